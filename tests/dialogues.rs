//! Dialogues: what a requester and HTTP clients send, and what they get, as `dialogues/*.scs` tell.
//!
//! Played against the real stream, route and router over stores in memory and a clock that the
//! dialogue moves; no sockets. A dialogue is lines at the margin, with what belongs to a line
//! indented below it:
//!
//! * `given KEY = "VALUE"`: a setting, before anything else
//! * `JID sends:` and a stanza; `JID receives:` and the stanza that answers; `JID receives nothing`
//! * `PUT URL with "text"`, `with 5 bytes`, `chunked`, `broken`; `PATCH`, `GET`, `HEAD`, `DELETE`,
//!   `OPTIONS`; header fields below
//! * `-> 201`, `-> 200 with "text"`; header fields below, among others
//! * `tick 6 minutes`: time passes and the sweep runs; `wait 6 minutes`: time passes
//!
//! `{name}` matches any text and is remembered: from then on it stands for that text. `{any}` is
//! never remembered.

mod support;
#[path = "support/xmpp.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod xmpp;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytesize::ByteSize;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use jid::BareJid;
use minidom::{Element, Node};
use slotd::config::ServerAddress;
use slotd::core::policy::Room;
use slotd::core::rate::Rate;
use slotd::service::Settings;
use slotd::service::sweep::Sweeper;
use support::site;
use support::world::{Bench, bench, settings};
use tower::ServiceExt as _;
use xmpp::{Fake, Peer, Verdict, compare_tags, component, stanza};

const HOST: &str = "upload.example.org";
const BUFFER_BYTES: usize = 64 * 1024;

/// A line at the margin and what is indented below it.
struct Step {
    line: usize,
    text: String,
    below: Vec<String>,
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match steps.last_mut() {
            Some(step) if line.starts_with(' ') => step.below.push(line.trim().to_owned()),
            _ => steps.push(Step {
                line: index + 1,
                text: line.trim().to_owned(),
                below: Vec::new(),
            }),
        }
    }
    steps
}

/// What the names in braces stand for.
#[derive(Default)]
struct Memory(HashMap<String, String>);

impl Memory {
    /// `text` with all names replaced; a name that stands for nothing is a mistake.
    fn fill(&self, text: &str) -> Verdict<String> {
        let mut filled = text.to_owned();
        for (name, value) in &self.0 {
            filled = filled.replace(&format!("{{{name}}}"), value);
        }
        match filled.contains('{') {
            true => Err(format!("nothing is remembered for a name in: {filled}")),
            false => Ok(filled),
        }
    }

    /// Whether `got` is `wanted`; remembers what its names match.
    fn matches(&mut self, wanted: &str, got: &str) -> bool {
        let Some((before, rest)) = wanted.split_once('{') else {
            return wanted == got;
        };
        let Some((name, after)) = rest.split_once('}') else {
            return wanted == got;
        };
        let Some(got) = got.strip_prefix(before) else {
            return false;
        };
        if let Some(known) = self.0.get(name).cloned() {
            return got
                .strip_prefix(&known)
                .is_some_and(|got| self.matches(after, got));
        }
        let until = after.split('{').next().unwrap_or_default();
        let ends = match after.is_empty() {
            true => Some(got.len()),
            false => got.find(until),
        };
        let Some((value, got)) = ends.map(|ends| got.split_at(ends)) else {
            return false;
        };
        if name != "any" {
            self.0.insert(name.to_owned(), value.to_owned());
        }
        self.matches(after, got)
    }

    /// Compares elements: names, attributes, children in order; blank text between them is nothing.
    fn compare(&mut self, wanted: &Element, got: &Element) -> Verdict {
        compare_tags(wanted, got, |_, wanted, got| self.matches(wanted, got))?;
        let name = wanted.name();
        let (wanted, got) = (nodes(wanted), nodes(got));
        if wanted.len() != got.len() {
            return Err(format!(
                "<{name}> has {} children, not {}",
                got.len(),
                wanted.len()
            ));
        }
        for pair in wanted.into_iter().zip(got) {
            match pair {
                (Node::Element(wanted), Node::Element(got)) => self.compare(&wanted, &got)?,
                (Node::Text(wanted), Node::Text(got)) if self.matches(&wanted, &got) => {}
                (Node::Text(wanted), got) => {
                    return Err(format!("<{name}> holds {got:?}, not {wanted}"));
                }
                (wanted, _) => return Err(format!("<{name}> lacks {wanted:?}")),
            }
        }
        Ok(())
    }
}

fn nodes(element: &Element) -> Vec<Node> {
    let trimmed = |node: &Node| match node {
        Node::Text(text) if text.trim().is_empty() => None,
        Node::Text(text) => Some(Node::Text(text.trim().to_owned())),
        Node::Element(_) => Some(node.clone()),
    };
    element.nodes().filter_map(trimmed).collect()
}

/// A stanza with one more attribute.
fn addressed(xml: &str, name: &str, value: &str) -> String {
    let xml = xml.trim();
    let ends = xml.find([' ', '/', '>']).unwrap_or(xml.len());
    let (start, rest) = xml.split_at(ends);
    format!("{start} {name}='{value}'{rest}")
}

/// Changes a setting; the names are those of `conf/slotd.toml`.
fn give(settings: &mut Settings, room: &mut Option<Room>, key: &str, value: &str) -> Verdict {
    let size = || value.parse::<ByteSize>().map(|size| size.0);
    let time = || humantime::parse_duration(value).map_err(|e| e.to_string());
    let number = || value.parse::<u64>().map_err(|e| e.to_string());
    let jids = || {
        value
            .split_whitespace()
            .map(|jid| BareJid::new(jid).map_err(|e| e.to_string()))
    };
    let policy = &mut settings.policy;
    match key {
        "max_file_size" => policy.size_bytes_max = size()?,
        "per_requester" => policy.quota.per_requester = Some(size()?),
        "per_domain" => policy.quota.per_domain = Some(size()?),
        "total" => policy.quota.total = Some(size()?),
        "jids" => policy.access.jids = jids().collect::<Verdict<_>>()?,
        "deny" => policy.access.deny = jids().collect::<Verdict<_>>()?,
        "keep_for" => policy.lifetimes.retention.message = Some(time()?),
        "refreshes_max" => policy.lifetimes.refreshes_max = number()? as u8,
        "open_sessions_max" => policy.open_sessions_max = number()? as u32,
        "total_max" => settings.total_bytes_max = Some(size()?),
        "slots_per_minute" => {
            settings.slot_rate = Rate {
                per_minute: number()?,
            }
        }
        "token_in" => settings.token_in_header = value == "header",
        "legacy_namespaces" => {
            let is_named = |namespace: &&str| value.split_whitespace().any(|it| it == *namespace);
            let named = slotd::config::LEGACY_NAMESPACES.into_iter();
            settings.legacy_namespaces = named.filter(is_named).collect();
        }
        "check_content_type" => settings.check_content_type = value == "true",
        "free_space" => {
            *room = Some(Room {
                bytes: size()?,
                inodes: 1000,
            });
        }
        _ => return Err(format!("{key} is no setting")),
    }
    Ok(())
}

/// Bytes by their description: `"text"` or `5 bytes`.
fn bytes_of(words: &str) -> Verdict<Vec<u8>> {
    if let Some(text) = words
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    {
        return Ok(text.as_bytes().to_vec());
    }
    let number = words
        .strip_suffix(" bytes")
        .ok_or_else(|| format!("{words} are no bytes"))?;
    number
        .parse()
        .map(site::content)
        .map_err(|e| format!("{words}: {e}"))
}

/// A dialogue that is being played.
struct Play {
    bench: Bench,
    sweeper: Sweeper,
    router: Router,
    /// Keeps the stream's other side running.
    _fake: Fake,
    peer: Peer,
    memory: Memory,
    received: VecDeque<Element>,
    answer: Option<Response<Vec<u8>>>,
}

impl Play {
    async fn new(settings: Settings, room: Option<Room>) -> Self {
        let bench = bench(settings);
        if let Some(room) = room {
            bench.memory_files.set_room(room);
        }
        let mut http = site::http();
        http.public_url = format!("https://{HOST}/");
        let router = slotd::http::router(bench.service.clone(), &http);
        let server = ServerAddress::Tcp("127.0.0.1:5347".to_owned());
        let components = vec![component(server)];
        let mut fake = Fake::start(bench.service.clone(), components, BUFFER_BYTES);
        let peer = fake.log_in().await;
        Self {
            sweeper: Sweeper::new(bench.service.clone()),
            bench,
            router,
            _fake: fake,
            peer,
            memory: Memory::default(),
            received: VecDeque::new(),
            answer: None,
        }
    }

    async fn step(&mut self, step: &Step) -> Verdict {
        let text = step.text.as_str();
        let words: Vec<&str> = text.split(' ').collect();
        if text.starts_with("-> ") {
            return self.check_answer(text, &step.below);
        }
        if let Some(answer) = self.answer.take() {
            return Err(format!(
                "before it, -> {} went unread",
                answer.status().as_u16()
            ));
        }
        match words.as_slice() {
            [from, "sends:"] => self.send(from, &step.below.join("\n")).await,
            [to, "receives:"] => self.receive(to, &step.below.join("\n")),
            [_, "receives", "nothing"] => self.check_silence(),
            ["tick", ..] => {
                self.pass(text)?;
                while self.sweeper.sweep().await.has_more {}
                Ok(())
            }
            ["wait", ..] => self.pass(text),
            [
                "PUT" | "PATCH" | "GET" | "HEAD" | "OPTIONS" | "POST" | "DELETE",
                ..,
            ] => self.request(text, &step.below).await,
            _ => Err("not understood".to_owned()),
        }
    }

    async fn send(&mut self, from: &str, xml: &str) -> Verdict {
        self.check_silence()?;
        let xml = addressed(&self.memory.fill(xml)?, "from", from);
        stanza(&xml)?;
        let answers = self
            .peer
            .ask(xml)
            .await
            .map_err(|e| format!("the stream ended: {e}"))?;
        self.received.extend(answers);
        Ok(())
    }

    fn check_silence(&self) -> Verdict {
        let unread = self.received.front();
        unread.map_or(Ok(()), |unread| {
            Err(format!("unread: {}", String::from(unread)))
        })
    }

    fn receive(&mut self, to: &str, xml: &str) -> Verdict {
        let wanted = stanza(&addressed(xml, "to", to))?;
        let got = self.received.pop_front().ok_or("nothing came")?;
        let compared = self.memory.compare(&wanted, &got);
        compared.map_err(|e| format!("{e}\nin {}", String::from(&got)))
    }

    fn pass(&self, text: &str) -> Verdict {
        let (_, span) = text.split_once(' ').ok_or("how long?")?;
        let span: Duration = humantime::parse_duration(span).map_err(|e| e.to_string())?;
        self.bench.world.pass(span.as_secs());
        Ok(())
    }

    async fn request(&mut self, text: &str, fields: &[String]) -> Verdict {
        let (head, body) = match text.split_once(" with ") {
            Some((head, body)) => (head, Some(body)),
            None => (text, None),
        };
        let (method, url) = head.split_once(' ').ok_or("which URL?")?;
        let url = self.memory.fill(url)?;
        let path = url
            .strip_prefix("https://")
            .and_then(|url| url.strip_prefix(HOST));
        let path = path.ok_or_else(|| format!("{url} is not ours"))?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", HOST);
        for field in fields {
            let field = self.memory.fill(field)?;
            let (name, value) = field.split_once(": ").ok_or("a field is `Name: value`")?;
            request = request.header(name, value);
        }
        let (body, is_chunked, is_broken) = match body {
            Some(body) => {
                let (body, is_broken) = flag(body, " broken");
                let (body, is_chunked) = flag(body, " chunked");
                (bytes_of(body)?, is_chunked, is_broken)
            }
            None => (Vec::new(), false, false),
        };
        let has_length = fields
            .iter()
            .any(|field| field.starts_with("Content-Length:"));
        if is_chunked {
            request = request.header("transfer-encoding", "chunked");
        } else if matches!(method, "PUT" | "PATCH") && !has_length {
            request = request.header("content-length", body.len());
        }
        let mut pieces = vec![Ok(body)];
        if is_broken {
            pieces.push(Err(std::io::Error::from(
                std::io::ErrorKind::ConnectionReset,
            )));
        }
        let request = request.body(Body::from_stream(stream::iter(pieces)));
        let request = request.map_err(|e| e.to_string())?;
        let answer = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("never fails");
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
        self.answer = Some(Response::from_parts(head, body.to_vec()));
        Ok(())
    }

    fn check_answer(&mut self, text: &str, fields: &[String]) -> Verdict {
        let answer = self.answer.take().ok_or("no request before it")?;
        let wanted = text.strip_prefix("-> ").unwrap_or_default();
        let (status, body) = match wanted.split_once(" with ") {
            Some((status, body)) => (status, Some(body)),
            None => (wanted, None),
        };
        if answer.status().as_str() != status {
            let words = String::from_utf8_lossy(answer.body());
            return Err(format!("-> {} came: {words}", answer.status().as_str()));
        }
        if let Some(body) = body
            && *answer.body() != bytes_of(body)?
        {
            return Err(format!("{} other bytes came", answer.body().len()));
        }
        for field in fields {
            let (name, value) = field.split_once(": ").ok_or("a field is `Name: value`")?;
            let got = answer.headers().get(name).and_then(|got| got.to_str().ok());
            let got = got.ok_or_else(|| format!("no {name} came"))?;
            if !self.memory.matches(value, got) {
                return Err(format!("{name}: {got} came"));
            }
        }
        Ok(())
    }
}

/// Takes a word off the end of a text.
fn flag<'a>(text: &'a str, word: &str) -> (&'a str, bool) {
    match text.strip_suffix(word) {
        Some(rest) => (rest, true),
        None => (text, false),
    }
}

/// Plays a dialogue; the error says which line went wrong.
async fn play(text: &str) -> Verdict {
    let steps = steps(text);
    let (mut settings, mut room) = (settings(), None);
    let n_given = steps
        .iter()
        .take_while(|step| step.text.starts_with("given "))
        .count();
    let (given, acts) = steps.split_at(n_given);
    for step in given {
        let (key, value) = step.text.split_once(" = ").ok_or("given KEY = \"VALUE\"")?;
        let key = key.trim_start_matches("given ");
        let given = give(&mut settings, &mut room, key, value.trim_matches('"'));
        given.map_err(|e| format!("{}: {e}", step.line))?;
    }
    let mut play = Play::new(settings, room).await;
    for step in acts {
        let done = play.step(step).await;
        done.map_err(|e| format!("{}: {}: {e}", step.line, step.text))?;
    }
    if play.answer.is_some() {
        return Err("the last answer went unread".to_owned());
    }
    play.check_silence()
}

#[tokio::test(start_paused = true)]
async fn all_dialogues_go_as_they_are_told() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let entries = std::fs::read_dir(directory).expect("a directory of dialogues");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    assert!(10 <= paths.len(), "{} dialogues are too few", paths.len());
    let mut wrong = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("readable");
        if let Err(error) = play(&text).await {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            wrong.push(format!("{name}:{error}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n\n"));
}

/// The player sees what differs: dialogues that are wrong, and the words of the complaint.
#[tokio::test(start_paused = true)]
async fn wrong_dialogues_are_told() {
    const PING: &str = "a@example.org/b sends:\n  <iq type='get' id='1' to='upload.example.org'>\
        <ping xmlns='urn:xmpp:ping'/></iq>\n";
    let receives = |xml: &str| format!("{PING}a@example.org/b receives:\n  {xml}\n");
    let answer = "<iq type='result' id='1' from='upload.example.org'/>";
    play(&receives(answer)).await.expect("a right dialogue");
    for (text, complaint) in [
        (receives(&answer.replace("'1'", "'2'")), "id='2'"),
        (receives(&answer.replace("/>", "><a/></iq>")), "children"),
        (receives(&answer.replace(" id='1'", "")), "has id"),
        (PING.to_owned(), "unread"),
        (format!("{PING}tick 1 minute\n{PING}"), "unread"),
        (
            "a@example.org/b receives:\n  <iq/>".to_owned(),
            "nothing came",
        ),
        (
            "GET https://upload.example.org/f/x/y\n-> 200".to_owned(),
            "404 came",
        ),
        ("GET https://upload.example.org/f/x/y".to_owned(), "unread"),
        ("GET {get_url}\n-> 200".to_owned(), "remembered"),
        ("sing".to_owned(), "not understood"),
        ("given moon = \"full\"".to_owned(), "no setting"),
    ] {
        let error = play(&text).await.expect_err("a wrong dialogue");
        assert!(error.contains(complaint), "{error}");
    }
}
