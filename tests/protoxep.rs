//! The session protocol's proposal, `contrib/protoxep`: what its examples send gets what they say.
//!
//! All examples are one conversation with the real stream and the real HTTP listener over stores in
//! memory. Requests are sent as they stand; answers are compared as XML, or by status and the
//! fields that are shown. Where the service chooses at random, what the document shows stands for
//! what came, from then on. Captions say how much time passes: `12 seconds later`. Content is a
//! line in brackets: `[bytes 0 to 99 of a.txt]`.

mod support;
#[path = "support/xep.rs"]
mod xep;
#[path = "support/xmpp.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod xmpp;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jid::{BareJid, Jid};
use minidom::Element;
use slotd::config::{Component, Secret, ServerAddress};
use slotd::core::session::network::Visitor;
use slotd::core::session::owner::Standing;
use slotd::core::slot::{FileName, Purpose, SessionWish, SlotRequest};
use slotd::core::time::Timestamp;
use slotd::core::token::Keys;
use slotd::http::listen::Listeners;
use slotd::service::session::SessionView;
use slotd::service::sweep::Sweeper;
use slotd::service::{Service, Settings};
use slotd::store::Stores;
use support::site;
use support::world::{Bench, START, TestWorld, bench, settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use xep::{Content, Document, Ending, Example, Known, NS};
use xmpp::{Fake, Peer, Verdict, stanza};

const HOST: &str = "upload.montague.example";
const ROMEO: &str = "romeo@montague.example/street";
const JULIET: &str = "juliet@montague.example/chamber";
const NURSE: &str = "nurse@montague.example/kitchen";
/// When the first example is, 2026-11-22T18:00:00Z.
const BEGIN: Timestamp = Timestamp(1_795_370_400);
const BUFFER_BYTES: usize = 64 * 1024;
/// How often the service is asked whether it has noticed something yet.
const LOOKS_MAX: usize = 2000;

/// What the document's service is like.
fn terms() -> Settings {
    let mut settings = settings();
    settings.policy.access.domains = vec!["montague.example".to_owned()];
    settings.policy.size_bytes_max = 100 << 20;
    settings.public_url = format!("https://{HOST}/");
    settings.token_in_header = true;
    settings
}

/// The service at work, on a component stream and on a socket.
struct Running {
    service: Arc<Service>,
    sweeper: Sweeper,
    address: SocketAddr,
    peer: Peer,
    /// Keep the other sides running.
    _fake: Fake,
    _stop: watch::Sender<bool>,
}

impl Running {
    async fn start(settings: Settings, stores: &Stores, world: Arc<TestWorld>) -> Self {
        let keys = Keys::first([7; 32], START);
        let service = Service::new(settings, keys, stores.clone(), world);
        let component = Component {
            jid: HOST.to_owned(),
            server: ServerAddress::Tcp("127.0.0.1:5347".to_owned()),
            secret: Secret(xmpp::SECRET.to_owned()),
            connections: 1,
        };
        let mut fake = Fake::start(service.clone(), vec![component], BUFFER_BYTES);
        let mut peer = fake.next().await;
        peer.host = HOST;
        peer.log_in().await.expect("slotd logs in");
        let mut http = site::http();
        http.public_url = format!("https://{HOST}/");
        let listeners = Listeners::bind(&http).expect("bound");
        let address = listeners.addresses()[0];
        let (stop, stopping) = watch::channel(false);
        let serving = service.clone();
        tokio::spawn(async move {
            listeners.serve(&http, serving, stopping).await;
        });
        Self {
            sweeper: Sweeper::new(service.clone()),
            service,
            address,
            peer,
            _fake: fake,
            _stop: stop,
        }
    }

    /// The sessions of everybody in the document.
    async fn sessions(&self) -> Vec<SessionView> {
        let mut all = Vec::new();
        for owner in [ROMEO, JULIET, NURSE] {
            let owner = Jid::new(owner).expect("a JID");
            let list = self.service.list_sessions(&owner, None).await;
            all.extend(list.expect("a list").sessions);
        }
        all
    }

    /// Waits until the sessions are as `wanted` says.
    async fn wait(&self, wanted: impl Fn(&[SessionView]) -> bool) -> Verdict {
        for _ in 0..LOOKS_MAX {
            if wanted(&self.sessions().await) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(format!(
            "the service did not see it: {:?}",
            self.sessions().await
        ))
    }
}

/// A request of the document on its way.
struct Exchange {
    stream: TcpStream,
    seen: Vec<u8>,
    /// Whether it is to be cut before it is answered.
    is_open: bool,
    /// Whether its answer has no content, whatever its head says.
    is_head: bool,
}

impl Exchange {
    /// The head of the next answer.
    async fn head(&mut self) -> Verdict<String> {
        loop {
            let end = self.seen.windows(4).position(|part| part == b"\r\n\r\n");
            if let Some(end) = end {
                let rest = self.seen.split_off(end + 4);
                let head = std::mem::replace(&mut self.seen, rest);
                return String::from_utf8(head).map_err(|e| e.to_string());
            }
            self.more().await?;
        }
    }

    async fn body(&mut self, n_bytes: usize) -> Verdict<Vec<u8>> {
        while self.seen.len() < n_bytes {
            self.more().await?;
        }
        let rest = self.seen.split_off(n_bytes);
        Ok(std::mem::replace(&mut self.seen, rest))
    }

    async fn more(&mut self) -> Verdict {
        match self.stream.read_buf(&mut self.seen).await {
            Ok(1..) => Ok(()),
            Ok(0) => Err("the connection ended without an answer".to_owned()),
            Err(e) => Err(format!("no answer: {e}")),
        }
    }

    /// Whether all that was asked was answered, or cut where it had to be.
    async fn finish(mut self) -> Verdict {
        if self.is_open && self.more().await.is_ok() {
            return Err("the transfer was answered and not cut".to_owned());
        }
        match self.seen.is_empty() {
            true => Ok(()),
            false => Err("an answer went unread".to_owned()),
        }
    }
}

/// The conversation.
struct Play {
    bench: Bench,
    running: Running,
    known: Known,
    answers: VecDeque<Element>,
    exchange: Option<Exchange>,
    is_answer_due: bool,
}

impl Play {
    async fn new() -> Self {
        let bench = bench(terms());
        bench.world.set_wall(BEGIN);
        Self {
            running: Running::start(terms(), &bench.stores, bench.world.clone()).await,
            bench,
            known: Known::default(),
            answers: VecDeque::new(),
            exchange: None,
            is_answer_due: false,
        }
    }

    async fn step(&mut self, example: &Example) -> Verdict {
        if let Some(seconds) = example.later {
            self.bench.world.pass(seconds);
            while self.running.sweeper.sweep().await.has_more {}
        }
        let text = example.text.as_str();
        if text.starts_with("HTTP/") {
            return self.check_http(text).await;
        }
        let stanza = text.starts_with('<').then(|| stanza(text)).transpose()?;
        let is_answer = |iq: &&Element| matches!(iq.attr("type"), Some("result" | "error"));
        if let Some(answer) = stanza.as_ref().filter(is_answer) {
            return self.check_stanza(answer);
        }
        if self.is_answer_due || !self.answers.is_empty() {
            return Err("the example before it is not answered".to_owned());
        }
        match stanza {
            Some(_) => self.ask(text).await,
            None => self.request(text).await,
        }
    }

    /// Sends a stanza.
    async fn ask(&mut self, text: &str) -> Verdict {
        let xml = self.known.fill(text);
        let asked = self.running.peer.ask(xml).await;
        self.answers = asked.map_err(|e| format!("the stream ended: {e}"))?.into();
        match self.answers.len() {
            1 => Ok(()),
            n => Err(format!("{n} stanzas came")),
        }
    }

    fn check_stanza(&mut self, wanted: &Element) -> Verdict {
        let got = self.answers.pop_front().ok_or("nothing came")?;
        let compared = self.known.compare(wanted, &got);
        compared.map_err(|e| format!("{e}\nin {}", String::from(&got)))
    }

    /// Sends an HTTP request on a connection of its own.
    async fn request(&mut self, text: &str) -> Verdict {
        self.finish().await?;
        let (head, below) = text.split_once("\n\n").unwrap_or((text, ""));
        let content = Content::parse(below.trim())?;
        let head = self.known.fill(head.trim()).replace('\n', "\r\n") + "\r\n\r\n";
        let connected = TcpStream::connect(self.running.address).await;
        let mut stream = connected.map_err(|e| e.to_string())?;
        let bytes = [head.into_bytes(), content.bytes()].concat();
        // What is refused early is not read to its end.
        let sent = stream.write_all(&bytes).await;
        match content.ending {
            Ending::Whole => {}
            Ending::Breaks => {
                sent.map_err(|e| e.to_string())?;
                drop(stream);
                let is_kept = |view: &SessionView| view.offset == content.end && !view.is_active;
                return self.running.wait(|all| all.iter().any(is_kept)).await;
            }
            Ending::Open => {
                let is_there = |view: &SessionView| view.offset == content.end && view.is_active;
                self.running.wait(|all| all.iter().any(is_there)).await?;
            }
        }
        self.is_answer_due = content.ending == Ending::Whole;
        self.exchange = Some(Exchange {
            stream,
            seen: Vec::new(),
            is_open: content.ending == Ending::Open,
            is_head: text.starts_with("HEAD "),
        });
        Ok(())
    }

    /// Compares an answer over HTTP.
    async fn check_http(&mut self, text: &str) -> Verdict {
        let exchange = self.exchange.as_mut().ok_or("no request before it")?;
        let got = exchange.head().await?;
        let (wanted, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let complaint = |what: &str| format!("{what}\nin {got}");
        let status = |head: &str| head.split(' ').nth(1).map(str::to_owned);
        let got_status = status(&got);
        if got_status != status(wanted) {
            return Err(complaint("another status"));
        }
        for line in wanted.trim().lines().skip(1) {
            let (name, value) = line.split_once(": ").ok_or("a field is `Name: value`")?;
            let came = field(&got, name).ok_or_else(|| complaint(&format!("no {name}")))?;
            if !self.known.matches(value, came) {
                return Err(complaint(&format!("another {name}")));
            }
        }
        self.is_answer_due = got_status
            .as_ref()
            .is_some_and(|status| status.starts_with('1'));
        if self.is_answer_due {
            return Ok(());
        }
        let is_head = got_status.as_deref() == Some("204") || exchange.is_head;
        let n_bytes = match is_head {
            true => 0,
            false => field(&got, "content-length")
                .and_then(|n| n.parse().ok())
                .unwrap_or(0),
        };
        let came = exchange.body(n_bytes).await?;
        match body.trim() {
            "" => Ok(()),
            body => same_json(body, &came),
        }
    }

    /// Ends the request before.
    async fn finish(&mut self) -> Verdict {
        match self.exchange.take() {
            Some(exchange) => exchange.finish().await,
            None => Ok(()),
        }
    }

    /// Does what a section's prose says has happened.
    async fn set_the_scene(&mut self, section: &str) {
        match section {
            "error-refresh-limit" => self.use_refreshes_up().await,
            "error-sessions-limit" => self.open_sessions().await,
            "error-forbidden" => {
                let mut settings = terms();
                let romeo = BareJid::new("romeo@montague.example").expect("a JID");
                settings.policy.access.deny.push(romeo);
                self.restart(settings).await;
            }
            "error-expired" => self.restart(terms()).await,
            _ => {}
        }
    }

    /// Refreshes Romeo's pending session, and presents what comes, until no refresh is left.
    async fn use_refreshes_up(&mut self) {
        let romeo = Jid::new(ROMEO).expect("a JID");
        let service = self.running.service.clone();
        loop {
            let list = service.list_sessions(&romeo, None).await.expect("a list");
            let is_pending = |view: &&SessionView| view.standing == Standing::Pending;
            let session = list.sessions.iter().find(is_pending).expect("a session");
            if session.refreshes_left == 0 {
                return;
            }
            self.bench.world.pass(5);
            let refreshed = service.refresh_session(&romeo, session.id).await;
            let url = refreshed.expect("refreshed").session.resume_url;
            let url = url.expect("an open session has a resume URL");
            let (_, sealed) = url.rsplit_once('/').expect("a URL");
            let found = service.find_offset(sealed, &Visitor::default()).await;
            found.expect("the offset");
        }
    }

    /// Opens as many sessions for Juliet as she may have.
    async fn open_sessions(&mut self) {
        let juliet = Jid::new(JULIET).expect("a JID");
        for _ in 0..terms().policy.open_sessions_max {
            let request = SlotRequest {
                filename: FileName::parse("rose.jpg").expect("a name"),
                size_bytes: 1000,
                content_type: None,
                purpose: Purpose::Message,
                session: Some(SessionWish::default()),
            };
            let issued = self.running.service.request_slot(&juliet, request).await;
            issued.expect("a slot");
        }
    }

    /// The operator changes the settings.
    async fn restart(&mut self, settings: Settings) {
        let world = self.bench.world.clone();
        self.running = Running::start(settings, &self.bench.stores, world).await;
    }
}

/// A field of a message's head.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let (_, value) = fields.find(|(other, _)| other.eq_ignore_ascii_case(name))?;
    Some(value.trim())
}

fn same_json(wanted: &str, got: &[u8]) -> Verdict {
    let wanted: serde_json::Value = serde_json::from_str(wanted).map_err(|e| e.to_string())?;
    let words = String::from_utf8_lossy(got);
    let got: serde_json::Value = serde_json::from_slice(got).map_err(|e| e.to_string())?;
    match wanted == got {
        true => Ok(()),
        false => Err(format!("other content: {words}")),
    }
}

/// Plays all examples in order; the error says which one went wrong.
async fn play(document: &Document) -> Verdict {
    let mut play = Play::new().await;
    let mut section = "";
    for example in document.examples() {
        if section != example.section {
            section = &example.section;
            play.set_the_scene(section).await;
        }
        let done = play.step(example).await;
        done.map_err(|e| format!("Example {}: {}: {e}", example.number, example.caption))?;
    }
    match play.is_answer_due || !play.answers.is_empty() {
        true => Err("the last example is not answered".to_owned()),
        false => play.finish().await,
    }
}

#[tokio::test]
async fn all_examples_go_as_they_are_told() {
    let document = Document::read();
    let played = play(&document).await;
    played.unwrap_or_else(|e| panic!("{e}"));
    assert!(
        70 < document.examples().len(),
        "{} examples are too few",
        document.examples().len()
    );
}

/// The player sees what differs.
#[tokio::test]
async fn wrong_examples_are_told() {
    let text = xep::text();
    for (right, wrong, complaint) in [
        ("<value>259200</value>", "<value>259201</value>", "259201"),
        ("state='pending'", "state='open'", "state"),
        (
            " refreshes-left='10'",
            " refreshes-remaining='10'",
            "lacks refreshes-remaining",
        ),
        ("            offset='1048576'", "offset='1048577'", "offset"),
        ("12 seconds later", "13 seconds later", "token-expires-in"),
        (
            "Upload-Offset: 1048576\nUpload-Complete: ?0\nUpload-L",
            "Upload-Offset: 1\nUpload-L",
            "another Upload-Offset",
        ),
        (
            "HTTP/1.1 201 Created",
            "HTTP/1.1 204 No Content",
            "another status",
        ),
    ] {
        assert!(text.contains(right), "{right}");
        let document = Document::parse(&text.replace(right, wrong)).expect("well-formed");
        let error = play(&document).await.expect_err(wrong);
        assert!(error.contains(complaint), "{complaint}: {error}");
    }
}

/// Whether an example is a stanza that follows the schema.
fn is_right(example: &&Example) -> bool {
    // What is sent there is wrong on purpose.
    example.text.starts_with('<') && example.section != "error-malformed"
}

#[test]
fn all_stanzas_follow_the_schema() {
    let document = Document::read();
    let schema = document.schema();
    let mut n_checked = 0;
    for example in document.examples().iter().filter(is_right) {
        let stanza = stanza(&example.text).expect("well-formed");
        let checked = schema.check_below(&stanza);
        n_checked += checked.unwrap_or_else(|e| panic!("{}: {e}", example.caption));
    }
    assert!(50 < n_checked, "{n_checked} elements of {NS} are too few");
}

/// The schema's own reader says the same, where it is installed (`libxml2-utils`).
#[test]
fn all_stanzas_are_valid() {
    let document = Document::read();
    let directory = tempfile::tempdir().expect("a directory");
    let schema = directory.path().join("session.xsd");
    std::fs::write(&schema, document.xsd()).expect("written");
    let validate = |files: &[std::path::PathBuf]| {
        let mut xmllint = std::process::Command::new("xmllint");
        xmllint
            .args(["--noout", "--nonet", "--schema"])
            .arg(&schema);
        xmllint.args(files).output()
    };
    let write = |name: String, text: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let wrong = format!("<refresh xmlns='{NS}' session='1'/>");
    let wrong = match validate(&[write("wrong.xml".to_owned(), wrong)]) {
        Ok(output) => output,
        Err(_) => return eprintln!("skipped: there is no xmllint"),
    };
    assert!(!wrong.status.success(), "xmllint takes what is wrong");
    let mut files = Vec::new();
    for example in document.examples().iter().filter(is_right) {
        let stanza = stanza(&example.text).expect("well-formed");
        for ours in xep::outermost(&stanza) {
            let name = format!("{}-{}.xml", example.number, files.len());
            files.push(write(name, String::from(ours)));
        }
    }
    assert!(
        50 < files.len(),
        "{} elements of {NS} are too few",
        files.len()
    );
    let output = validate(&files).expect("xmllint runs");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
}

/// The checks of the schema see what is wrong.
#[test]
fn wrong_stanzas_are_told() {
    let schema = Document::read().schema();
    for (wrong, complaint) in [
        ("<pause xmlns='{}'/>", "no <pause>"),
        ("<cancel xmlns='{}'/>", "lacks id"),
        ("<cancel xmlns='{}' id='a' why='b'/>", "must not have why"),
        ("<session xmlns='{}' state='done'/>", "not listed"),
        (
            "<sessions xmlns='{}'><cancel id='a'/></sessions>",
            "must not hold <cancel>",
        ),
        (
            "<session xmlns='{}'><hash xmlns='urn:xmpp:hashes:1'/></session>",
            "must not hold <hash>",
        ),
        (
            "<session-complete xmlns='{}'>a</session-complete>",
            "holds text",
        ),
    ] {
        let stanza = stanza(&wrong.replace("{}", NS)).expect("well-formed");
        let error = schema.check_below(&stanza).expect_err(complaint);
        assert!(error.contains(complaint), "{complaint}: {error}");
    }
}

/// Links lead somewhere, anchors are unique, captions say something, and the format is the XSF's.
#[test]
fn the_document_holds_together() {
    let document = Document::read();
    let all = xep::below(&document.root);
    let mut anchors: Vec<&str> = all.iter().filter_map(|e| e.attr("anchor")).collect();
    let n_anchors = anchors.len();
    anchors.sort_unstable();
    anchors.dedup();
    assert_eq!(anchors.len(), n_anchors, "an anchor twice");
    for link in all.iter().filter(|element| element.name() == "link") {
        let url = link.attr("url").expect("a link has a URL");
        let is_there = match url.strip_prefix('#') {
            Some(anchor) => anchors.contains(&anchor),
            None => url.starts_with("https://"),
        };
        assert!(is_there, "{url}");
    }
    for element in &all {
        let known = xep::FORMAT.iter().find(|(name, _)| *name == element.name());
        let (name, children) = known.unwrap_or(&("?", &[]));
        for child in element.children() {
            assert!(
                children.contains(&child.name()),
                "<{}> in <{name}>",
                child.name()
            );
        }
    }
    for example in document.examples() {
        assert!(!example.caption.is_empty(), "Example {}", example.number);
        assert!(!example.section.is_empty(), "Example {}", example.number);
    }
}
