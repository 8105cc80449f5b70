//! Component streams against a server that misbehaves: broken stanzas, silence, errors, refusals.

mod support;
#[path = "support/xmpp.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod xmpp;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jid::BareJid;
use minidom::Element;
use slotd::config::ServerAddress;
use slotd::core::rate::Rate;
use slotd::core::slot::Sha256;
use slotd::service::Service;
use slotd::store::{FileStore as _, Stores};
use slotd::xmpp::{Identity, LoginError, try_login};
use support::faulty::{Fault, Plan, faulty};
use support::upload::{Put, broken_after, whole};
use support::world::{Bench, bench, settings};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use xmpp::{Fake, Gated, HEADER, Peer, component, stream_error};

const BUFFER_BYTES: usize = 64 * 1024;
const ROMEO: &str = "romeo@example.org/phone";

fn server() -> ServerAddress {
    ServerAddress::Tcp("127.0.0.1:5347".to_owned())
}

fn identity(server: ServerAddress) -> Identity {
    Identity::Component(component(server))
}

fn start(bench: &Bench) -> Fake {
    Fake::start(
        bench.service.clone(),
        vec![component(server())],
        BUFFER_BYTES,
    )
}

fn iq(kind: &str, from: &str, payload: &str) -> String {
    format!("<iq type='{kind}' id='i' from='{from}' to='upload.example.org'>{payload}</iq>")
}

fn request(attributes: &str) -> String {
    format!("<request xmlns='urn:xmpp:http:upload:0' {attributes}/>")
}

/// What came back, in short: `result slot`, `error modify bad-request`, or nothing.
#[track_caller]
fn brief(answers: &[Element]) -> String {
    let [answer] = answers else {
        assert!(answers.is_empty(), "one answer at most: {answers:?}");
        return String::new();
    };
    let kind = answer.attr("type").expect("a type");
    let Some(error) = answer.children().find(|child| child.name() == "error") else {
        let payload = answer.children().next().map_or("", Element::name);
        return format!("{} {kind} {payload}", answer.name());
    };
    let condition = error.children().next().expect("a condition").name();
    let texts = error.children().filter(|child| child.name() == "text");
    assert_eq!(texts.count(), 1, "words for a person: {error:?}");
    let app = error
        .children()
        .nth(2)
        .map(|app| format!(" {}", app.name()));
    let kind = error.attr("type").expect("an error type");
    format!("error {kind} {condition}{}", app.unwrap_or_default())
}

const SLOT: &str = "iq result slot";
const BAD: &str = "error modify bad-request";
const TOO_LARGE: &str = "error modify not-acceptable file-too-large";
const FORBIDDEN: &str = "error auth forbidden";
const NOT_HERE: &str = "error cancel item-not-found";
const UNKNOWN: &str = "error cancel service-unavailable";
const SILENCE: &str = "";

/// Sends each stanza, and compares its answer; returns how many slots were issued.
async fn check_rows(rows: &[(String, &str)]) -> u64 {
    let bench = bench(settings());
    let mut fake = start(&bench);
    let mut peer = fake.log_in().await;
    for (stanza, expected) in rows {
        let answers = peer.ask(stanza).await.expect("the stream lives");
        assert_eq!(brief(&answers), *expected, "{stanza}");
        for answer in answers.iter().filter(|answer| answer.name() == "iq") {
            let xml = format!("<all xmlns='jabber:component:accept'>{stanza}</all>");
            let sent: Element = xml.parse().expect("a row is well-formed");
            let sent = sent.children().next().expect("a stanza");
            assert_eq!(answer.attr("id"), sent.attr("id"), "{stanza}");
            assert_eq!(answer.attr("to"), sent.attr("from"), "{stanza}");
            assert_eq!(answer.attr("from"), sent.attr("to"), "{stanza}");
        }
    }
    let totals = bench.stores.sessions.totals().await;
    totals.expect("sums are kept").n_rows
}

/// I01 to I04, I14; `core::slot` and `xmpp::elements` have the other rows.
#[tokio::test(start_paused = true)]
async fn slot_requests_are_checked() {
    let many_digits = format!("filename='a' size='{}'", "9".repeat(400));
    let rows = [
        ("filename='a.bin' size='1000'", SLOT),
        (
            "filename='tr\u{e8}s bon.jpg' size='1' content-type='image/jpeg'",
            SLOT,
        ),
        ("filename='a' size='1' content-type=''", SLOT),
        ("size='1000'", BAD),
        ("filename='a/b' size='1000'", BAD),
        ("filename='a' size='1e3'", BAD),
        ("filename='a' size='1' content-type='*/*'", BAD),
        ("filename='a' size='1000001'", TOO_LARGE),
        (&many_digits, TOO_LARGE),
    ];
    let get = |payload: &str| iq("get", ROMEO, payload);
    let mut rows = Vec::from(rows.map(|(attributes, brief)| (get(&request(attributes)), brief)));
    let with = |purposes: &[&str]| {
        let of = |name: &&str| format!("<{name} xmlns='urn:xmpp:http:upload:purpose:0'/>");
        let purposes: String = purposes.iter().map(of).collect();
        let request = request("filename='a' size='1'");
        get(&request.replace("/>", &format!(">\n{purposes}</request>")))
    };
    rows.push((with(&["profile"]), SLOT));
    rows.push((
        with(&["ephemeral expire-before='2027-01-02T03:04:05Z'"]),
        SLOT,
    ));
    rows.push((
        with(&["ephemeral expire-before='2020-01-02T03:04:05Z'"]),
        BAD,
    ));
    rows.push((with(&["ephemeral expire-before='yesterday'"]), BAD));
    rows.push((with(&["message", "profile"]), BAD));
    assert_eq!(check_rows(&rows).await, 5);
}

/// I06 to I08: who asks, and whom.
#[tokio::test(start_paused = true)]
async fn addresses_are_checked() {
    let good = request("filename='a.bin' size='1000'");
    let from = [
        (ROMEO, SLOT),
        ("romeo@example.org/\u{1f980}\u{1faf6}", SLOT),
        ("ROMEO@example.org", SLOT),
        ("upload.example.org", FORBIDDEN),
        ("muc.example.org", FORBIDDEN),
        ("room@muc.example.org/nick", FORBIDDEN),
        ("romeo@example.net/phone", FORBIDDEN),
        ("\u{1f980}@example.org/phone", FORBIDDEN),
        ("", SILENCE),
        ("@", SILENCE),
        ("romeo@", SILENCE),
        ("romeo@/phone", SILENCE),
        ("a@@example.org/phone", SILENCE),
    ];
    let mut rows = Vec::from(from.map(|(from, brief)| (iq("get", from, &good), brief)));
    let stanza = iq("get", ROMEO, &good);
    let long_id = format!("id='{}'", "x".repeat(10 * 1024));
    let changed = [
        ("to='upload.", "to='UPLOAD.", SLOT),
        ("to='upload.", "to='user@upload.", NOT_HERE),
        (
            "to='upload.example.org",
            "to='upload.example.org/resource",
            NOT_HERE,
        ),
        ("to='upload.", "to='proxy.", NOT_HERE),
        ("to='upload.example.org'", "", SILENCE),
        ("from='romeo@example.org/phone'", "", SILENCE),
        ("id='i'", "", SILENCE),
        ("id='i'", "id=''", SILENCE),
        ("id='i'", &long_id, SILENCE),
    ];
    rows.extend(changed.map(|(old, new, brief)| (stanza.replace(old, new), brief)));
    assert_eq!(check_rows(&rows).await, 4);
}

/// I05, I09 to I13: each get and set is answered once, nothing else is.
#[tokio::test(start_paused = true)]
async fn each_stanza_gets_the_answer_of_its_kind() {
    let good = request("filename='a.bin' size='1000'");
    let query = |namespace: &str| format!("<query xmlns='{namespace}'/>");
    let info = query("http://jabber.org/protocol/disco#info");
    let command = "<command xmlns='http://jabber.org/protocol/commands' node='x'/>";
    let iqs = [
        ("get", format!("\n {good}\n"), SLOT),
        ("set", good.clone(), BAD),
        ("get", format!("{good}{good}"), BAD),
        ("get", format!("{good}<x xmlns='urn:example'/>"), BAD),
        ("get", format!("{good}junk"), BAD),
        ("get", "junk".to_owned(), BAD),
        ("get", String::new(), BAD),
        ("get", query("urn:example"), UNKNOWN),
        (
            "get",
            "<ping xmlns='urn:xmpp:http:upload:0'/>".to_owned(),
            UNKNOWN,
        ),
        ("get", good.replace("upload:0", "upload"), UNKNOWN),
        ("set", command.to_owned(), NOT_HERE),
        ("result", String::new(), SILENCE),
        ("result", good.clone(), SILENCE),
        ("error", good.clone(), SILENCE),
        ("foo", good.clone(), BAD),
        ("get", info.clone(), "iq result query"),
        ("get", info.replace("/>", " node='x'/>"), NOT_HERE),
        ("set", info, BAD),
        (
            "get",
            query("http://jabber.org/protocol/disco#items"),
            "iq result query",
        ),
        ("get", query("jabber:iq:version"), "iq result query"),
        ("get", query("jabber:iq:last"), "iq result query"),
        (
            "get",
            "<ping xmlns='urn:xmpp:ping'/>".to_owned(),
            "iq result ",
        ),
    ];
    let mut rows = Vec::from(iqs.map(|(kind, payload, brief)| (iq(kind, ROMEO, &payload), brief)));
    let stanza = iq("get", ROMEO, &good);
    rows.push((stanza.replace("<iq ", "<iq xmlns='jabber:client' "), SLOT));
    rows.push((stanza.replace("<iq ", "<iq xmlns='urn:example' "), SILENCE));
    rows.push((stanza.replace("type='get'", ""), BAD));
    let addresses = "from='romeo@example.org' to='upload.example.org'";
    for (other, brief) in [
        ("message", SILENCE),
        ("message type='error'", SILENCE),
        ("presence", SILENCE),
        ("presence type='probe'", SILENCE),
        ("presence type='unsubscribed'", SILENCE),
        ("presence type='error'", SILENCE),
        ("presence type='subscribe'", "presence unsubscribed "),
        ("r xmlns='urn:xmpp:sm:3'", SILENCE),
    ] {
        rows.push((format!("<{other} {addresses}/>"), brief));
    }
    assert_eq!(check_rows(&rows).await, 2);
}

#[tokio::test(start_paused = true)]
async fn discovery_lists_what_is_served() {
    let bench = bench(settings());
    let mut fake = start(&bench);
    let mut peer = fake.log_in().await;
    let info = iq(
        "get",
        ROMEO,
        "<query xmlns='http://jabber.org/protocol/disco#info'/>",
    );
    let answers = peer.ask(info).await.expect("an answer");
    let query = answers[0].children().next().expect("a query");
    let features: Vec<_> = query
        .children()
        .filter_map(|child| child.attr("var"))
        .collect();
    let expected = [
        "http://jabber.org/protocol/disco#info",
        "http://jabber.org/protocol/disco#items",
        "urn:xmpp:http:upload:0",
        "urn:slotd:upload-session:0",
        "http://jabber.org/protocol/commands",
        "urn:xmpp:ping",
        "jabber:iq:version",
        "jabber:iq:last",
        "urn:slotd:upload-session:0#list",
        "urn:slotd:upload-session:0#rufh",
        "urn:slotd:upload-session:0#tus",
        "urn:slotd:upload-session:0#digest",
        "urn:xmpp:http:upload:purpose:0#message",
        "urn:xmpp:http:upload:purpose:0#profile",
        "urn:xmpp:http:upload:purpose:0#ephemeral",
        "urn:xmpp:http:upload:purpose:0#permanent",
    ];
    assert_eq!(features, expected);
    let forms: Vec<_> = query
        .children()
        .filter(|child| child.name() == "x")
        .collect();
    assert_eq!(forms.len(), 3);
    assert_eq!(
        forms[0].text() + &forms[0].children().map(Element::text).collect::<String>(),
        ""
    );
    let size = forms[0].children().nth(1).expect("the size");
    assert_eq!(
        size.children().next().map(Element::text).as_deref(),
        Some("1000000")
    );
}

/// I15: after the limit `wait` with a stamp; others are served.
#[tokio::test(start_paused = true)]
async fn a_flood_is_told_to_wait() {
    let settings = slotd::service::Settings {
        slot_rate: Rate { per_minute: 100 },
        ..settings()
    };
    let bench = bench(settings);
    let mut fake = start(&bench);
    let mut peer = fake.log_in().await;
    let flood: String = (0..1000)
        .map(|n| {
            let from = format!("romeo@example.org/{n}");
            iq("get", &from, &request("filename='a' size='1'"))
        })
        .collect();
    let answers = peer.ask(flood).await.expect("answers");
    assert_eq!(answers.len(), 1000);
    let refused = answers
        .iter()
        .filter(|answer| answer.attr("type") == Some("error"));
    assert_eq!(refused.clone().count(), 900);
    for answer in refused {
        assert_eq!(
            brief(std::slice::from_ref(answer)),
            "error wait resource-constraint retry"
        );
    }
    let other = iq(
        "get",
        "juliet@example.org/b",
        &request("filename='a' size='1'"),
    );
    assert_eq!(
        brief(&peer.ask(other).await.expect("an answer")),
        "iq result slot"
    );
}

/// Slot requests that wait for a slow store hold up nobody: who sends too many is told to wait, and
/// takes no one else's place.
#[tokio::test(start_paused = true)]
async fn slow_slots_hold_up_nobody() {
    const OWN_MAX: usize = 128;
    let (bench, files) = gated(0);
    let mut fake = start(&bench);
    let mut peer = fake.log_in().await;
    let of = |who: &str| iq("get", who, &request("filename='a' size='1'"));
    let slots = of(ROMEO).repeat(OWN_MAX);
    assert_eq!(peer.ask(&slots).await.expect("pings are answered"), []);
    let refused = peer.ask(slots).await.expect("answers");
    assert_eq!(refused.len(), OWN_MAX);
    for answer in refused {
        let brief = brief(std::slice::from_ref(&answer));
        assert_eq!(brief, "error wait resource-constraint");
    }
    let juliet = of("juliet@example.org/b");
    assert_eq!(peer.ask(juliet).await.expect("no refusal"), []);
    files.gate.add_permits(OWN_MAX + 1);
    for _ in 0..=OWN_MAX {
        let answer = peer.read_until("</iq>").await.expect("an answer");
        assert!(answer.contains("<slot"), "{answer}");
    }
    let last = of(ROMEO);
    assert_eq!(
        brief(&peer.ask(last).await.expect("an answer")),
        "iq result slot"
    );
}

/// Who asks for large answers and takes none is not read from when a megabyte waits.
#[tokio::test(start_paused = true)]
async fn answers_that_nobody_takes_are_counted_in_bytes() {
    const WAITING_BYTES_MAX: usize = 1024 * 1024;
    // One more answer, and the answers to what was read of the connection and not yet looked at.
    const SLACK_BYTES: usize = 256 * 1024;
    let bench = bench(settings());
    let components = vec![component(server())];
    let mut fake = Fake::start(bench.service.clone(), components, 1024);
    let mut peer = fake.log_in().await;
    let asked = iq(
        "get",
        ROMEO,
        "<query xmlns='http://jabber.org/protocol/disco#info'/>",
    );
    let answers = peer.ask(&asked).await.expect("an answer");
    let answer_bytes = String::from(&answers[0]).len();
    let mut n_taken = 0;
    while let Ok(sent) = timeout(Duration::from_secs(1), peer.send(&asked)).await {
        sent.expect("the stream goes on");
        n_taken += 1;
        let waiting_bytes = n_taken * answer_bytes;
        assert!(waiting_bytes < WAITING_BYTES_MAX + SLACK_BYTES, "{n_taken}");
    }
    // On the wire they are somewhat longer.
    assert!(WAITING_BYTES_MAX / 2 < n_taken * answer_bytes, "{n_taken}");
}

/// A service whose files wait for a gate with `n_open` permits.
fn gated(n_open: usize) -> (Bench, Arc<Gated>) {
    let made = bench(settings());
    let files = Arc::new(Gated {
        files: made.stores.files.clone(),
        gate: Semaphore::new(n_open),
    });
    let stores = Stores {
        files: files.clone(),
        ..made.stores.clone()
    };
    let service = Service::new(settings(), made.service.keys(), stores, made.world.clone());
    (Bench { service, ..made }, files)
}

const SESSIONS: &str = "urn:slotd:upload-session:0";
/// A session's name that was never given.
const NEVER: &str = "AAAAAAAAAAAAAAAAAAAAAA";
const UNKNOWN_SESSION: &str = "error cancel item-not-found unknown-session";

fn session_iq(kind: &str, from: &str, name: &str, id: &str) -> String {
    iq(
        kind,
        from,
        &format!("<{name} xmlns='{SESSIONS}' id='{id}'/>"),
    )
}

/// The three things that can be asked about a session.
fn all_of(from: &str, id: &str) -> [String; 3] {
    [("get", "session"), ("set", "refresh"), ("set", "cancel")]
        .map(|(kind, name)| session_iq(kind, from, name, id))
}

fn announced(from: &str, hash: &str) -> String {
    let request = request("filename='a' size='5'");
    let session = format!("><session xmlns='{SESSIONS}'>{hash}</session></request>");
    iq("get", from, &request.replace("/>", &session))
}

/// Asks for an upload session: its name and its PUT URL.
async fn new_session(peer: &mut Peer, from: &str, hash: &str) -> (String, Put) {
    let answers = peer.ask(announced(from, hash)).await.expect("an answer");
    assert_eq!(brief(&answers), SLOT);
    let slot = answers[0].children().next().expect("a slot");
    let parts: Vec<_> = slot.children().collect();
    let id = parts[2].attr("id").expect("a name").to_owned();
    (id, Put::of(parts[0].attr("url").expect("a URL")))
}

async fn upload(bench: &Bench, put: &Put, bytes: &'static [u8]) -> bool {
    let put = Put {
        length: Some(5),
        ..put.clone()
    };
    let body = match bytes.len() {
        5 => whole(bytes.into()),
        _ => broken_after(bytes.into()),
    };
    bench.service.receive(put.into(), body).await.is_ok()
}

/// Each IQ of ours is answered once, and by its kind.
#[tokio::test(start_paused = true)]
async fn requests_about_upload_sessions_are_checked() {
    let of = |payload: &str| format!("<{payload} xmlns='{SESSIONS}'/>");
    let known = format!("session id='{NEVER}'");
    let rows = [
        ("get", of(&known), UNKNOWN_SESSION),
        ("set", of(&known), BAD),
        ("get", of("session"), BAD),
        ("get", of("session id=''"), BAD),
        ("get", of(&format!("session id='{NEVER}='")), BAD),
        ("get", of("sessions"), "iq result sessions"),
        ("get", of("sessions state='failed'"), "iq result sessions"),
        ("get", of("sessions state='?'"), BAD),
        ("set", of("sessions"), BAD),
        (
            "set",
            of(&known.replace("session ", "refresh ")),
            UNKNOWN_SESSION,
        ),
        ("get", of(&known.replace("session ", "refresh ")), BAD),
        ("set", of("refresh"), BAD),
        (
            "set",
            of(&known.replace("session ", "cancel ")),
            UNKNOWN_SESSION,
        ),
        ("get", of(&known.replace("session ", "cancel ")), BAD),
        ("set", of("cancel id='&lt;'"), BAD),
        ("get", of("info"), UNKNOWN),
        ("set", of("session-expired"), UNKNOWN),
        ("result", of(&known), SILENCE),
        ("error", of(&known), SILENCE),
    ];
    let mut rows = Vec::from(rows.map(|(kind, payload, brief)| (iq(kind, ROMEO, &payload), brief)));
    rows.push((announced(ROMEO, ""), SLOT));
    let hash = "<hash xmlns='urn:xmpp:hashes:2' algo='sha-256'>?</hash>";
    rows.push((announced(ROMEO, hash), BAD));
    // Whoever they are: an account, a host, one whose name no JID library knows.
    for from in [
        "x@elsewhere.example/x",
        "muc.example.org",
        "\u{1f980}@example.org/x",
    ] {
        let brief = match from.is_ascii() {
            true => UNKNOWN_SESSION,
            false => FORBIDDEN,
        };
        rows.extend(all_of(from, NEVER).map(|stanza| (stanza, brief)));
    }
    assert_eq!(check_rows(&rows).await, 1);
}

/// Who asked for no upload session gets what XEP-0363 has and not a byte more.
#[tokio::test(start_paused = true)]
async fn plain_slots_are_what_they_were() {
    let bench = bench(settings());
    let mut fake = start(&bench);
    let mut peer = fake.log_in().await;
    let plain = iq("get", ROMEO, &request("filename='a' size='5'"));
    peer.send(plain).await.expect("sent");
    let answer = peer.read_until("</iq>").await.expect("an answer");
    let answer = answer.replace('"', "'");
    let url = |name: &str| {
        let (_, rest) = answer
            .split_once(&format!("<{name} url='"))
            .expect("an URL");
        rest.split('\'').next().expect("its end")
    };
    let expected = format!(
        "<iq from='upload.example.org' id='i' to='{ROMEO}' type='result'>\
         <slot xmlns='urn:xmpp:http:upload:0'><put url='{}'></put>\
         <get url='{}'></get></slot></iq>",
        url("put"),
        url("get"),
    );
    assert_eq!(answer, expected);
}

/// Whatever state a session is in, a stranger gets the very bytes of one that never was.
#[tokio::test(start_paused = true)]
async fn strangers_learn_nothing() {
    const JULIET: &str = "juliet@example.org/balcony";
    let bench = bench(settings());
    let mut fake = start(&bench);
    let mut peer = fake.log_in().await;
    let hash = format!(
        "<hash xmlns='urn:xmpp:hashes:2' algo='sha-256'>{}</hash>",
        Sha256([7; 32]).to_base64()
    );
    let (expired, _) = new_session(&mut peer, ROMEO, "").await;
    bench.world.pass(72 * 3600);
    let (pending, _) = new_session(&mut peer, ROMEO, "").await;
    let (uploading, put) = new_session(&mut peer, ROMEO, "").await;
    assert!(!upload(&bench, &put, b"hel").await);
    let (complete, put) = new_session(&mut peer, ROMEO, "").await;
    assert!(upload(&bench, &put, b"hello").await);
    let (failed, put) = new_session(&mut peer, ROMEO, &hash).await;
    assert!(!upload(&bench, &put, b"hello").await);
    let (cancelled, _) = new_session(&mut peer, ROMEO, "").await;
    let cancel = session_iq("set", ROMEO, "cancel", &cancelled);
    assert_eq!(
        brief(&peer.ask(cancel).await.expect("an answer")),
        "iq result "
    );
    for (id, state) in [
        (expired, "expired"),
        (pending, "pending"),
        (uploading, "uploading"),
        (complete, "complete"),
        (failed, "failed"),
        (cancelled, "cancelled"),
    ] {
        let of_never = all_of(JULIET, NEVER);
        for (of_it, of_never) in all_of(JULIET, &id).into_iter().zip(of_never) {
            let got = peer.ask(of_it).await.expect("an answer");
            let never = peer.ask(of_never).await.expect("an answer");
            assert_eq!(brief(&got), UNKNOWN_SESSION);
            let got = String::from(&got[0]).replace(&id, NEVER);
            assert_eq!(got, String::from(&never[0]), "{state}");
        }
        let query = session_iq("get", ROMEO, "session", &id);
        let answers = peer.ask(query).await.expect("an answer");
        let view = answers[0].children().next().expect("a session");
        assert_eq!(view.attr("state"), Some(state));
    }
}

/// An owner is an account, however its JID is spelled and whether or not a device is named; a
/// domain is one of its own, and not its accounts.
#[tokio::test(start_paused = true)]
async fn owners_are_told_by_their_prepared_jid() {
    let mut settings = settings();
    settings.policy.access.jids = vec![BareJid::new("bot.example.org").expect("valid")];
    settings
        .policy
        .access
        .domains
        .push("bot.example.org".to_owned());
    let bench = bench(settings);
    let mut fake = start(&bench);
    let mut peer = fake.log_in().await;
    for (owner, same, others) in [
        (
            "Romeo@EXAMPLE.org",
            [
                "romeo@example.org/garden",
                "ROMEO@example.ORG",
                "romeo@example.org/",
            ],
            [
                "romeo@bot.example.org/x",
                "example.org",
                "romeo2@example.org/x",
            ],
        ),
        (
            "BOT.example.org",
            [
                "bot.example.org",
                "bot.example.org/x",
                "Bot.Example.Org/romeo@x",
            ],
            [
                "romeo@bot.example.org/x",
                "example.org",
                "x.bot.example.org",
            ],
        ),
    ] {
        let (id, _) = new_session(&mut peer, owner, "").await;
        let rows = same.map(|from| (from, "iq result session"));
        let rows = rows
            .into_iter()
            .chain(others.map(|from| (from, UNKNOWN_SESSION)));
        for (from, expected) in rows {
            let query = session_iq("get", from, "session", &id);
            let answers = peer.ask(query).await.expect("an answer");
            assert_eq!(brief(&answers), expected, "{from} of {owner}");
            assert_eq!(answers[0].attr("to"), Some(from));
        }
    }
}

/// The twenty-first is told why, and how long to wait.
#[tokio::test(start_paused = true)]
async fn one_account_has_twenty_open_sessions() {
    let bench = bench(settings());
    let mut fake = start(&bench);
    let mut peer = fake.log_in().await;
    let flood = announced(ROMEO, "").repeat(25);
    let answers = peer.ask(flood).await.expect("answers");
    let (slots, refused): (Vec<_>, Vec<_>) = answers
        .into_iter()
        .partition(|answer| answer.attr("type") == Some("result"));
    assert_eq!((slots.len(), refused.len()), (20, 5));
    let error = refused[0].get_child("error", "jabber:component:accept");
    let names: Vec<_> = error
        .expect("an error")
        .children()
        .map(Element::name)
        .collect();
    let expected = ["resource-constraint", "text", "sessions-limit-reached"];
    assert_eq!(names, expected);
    let plain = iq("get", ROMEO, &request("filename='a' size='5'"));
    assert_eq!(brief(&peer.ask(plain).await.expect("an answer")), SLOT);
}

/// What was granted can be withdrawn: then nothing is refreshed, but still looked at and given up.
#[tokio::test(start_paused = true)]
async fn who_may_no_longer_upload_gets_no_new_credentials() {
    let bench = bench(settings());
    let mut fake = start(&bench);
    let (id, _) = new_session(&mut fake.log_in().await, ROMEO, "").await;
    let mut settings = settings();
    let romeo = BareJid::new("romeo@example.org").expect("valid");
    settings.policy.access.deny.push(romeo);
    let (keys, stores) = (bench.service.keys(), bench.stores.clone());
    let service = Service::new(settings, keys, stores, bench.world.clone());
    let mut fake = Fake::start(service, vec![component(server())], BUFFER_BYTES);
    let mut peer = fake.log_in().await;
    let briefs = ["iq result session", FORBIDDEN, "iq result "];
    for (stanza, expected) in all_of(ROMEO, &id).into_iter().zip(briefs) {
        assert_eq!(brief(&peer.ask(stanza).await.expect("an answer")), expected);
    }
}

/// Trouble with the store is told as such, and is over when it is.
#[tokio::test(start_paused = true)]
async fn a_store_in_trouble_is_told() {
    let made = bench(settings());
    let plan = Plan::new();
    let stores = faulty(&made.stores, &plan);
    let service = Service::new(settings(), made.service.keys(), stores, made.world);
    let mut fake = Fake::start(service, vec![component(server())], BUFFER_BYTES);
    let mut peer = fake.log_in().await;
    let (id, _) = new_session(&mut peer, ROMEO, "").await;
    let list = iq("get", ROMEO, &format!("<sessions xmlns='{SESSIONS}'/>"));
    plan.fail(0, u64::MAX, Fault::Before);
    for stanza in all_of(ROMEO, &id).iter().chain([&list]) {
        let answers = peer.ask(stanza).await.expect("an answer");
        assert_eq!(brief(&answers), "error wait internal-server-error");
    }
    plan.heal();
    let expected = [
        "iq result session",
        "iq result refresh",
        "iq result ",
        "iq result sessions",
    ];
    for (stanza, expected) in all_of(ROMEO, &id).iter().chain([&list]).zip(expected) {
        assert_eq!(brief(&peer.ask(stanza).await.expect("an answer")), expected);
    }
}

/// Whoever waits for the store takes a place, whatever they ask.
#[tokio::test(start_paused = true)]
async fn floods_about_upload_sessions_hold_up_nobody() {
    const OWN_MAX: usize = 128;
    let (bench, files) = gated(1);
    let mut fake = start(&bench);
    let mut peer = fake.log_in().await;
    let (id, _) = new_session(&mut peer, ROMEO, "").await;
    let queries = session_iq("get", ROMEO, "session", &id).repeat(1000);
    let answers = peer.ask(queries).await.expect("answers");
    assert_eq!(answers.len(), 1000);
    files.gate.try_acquire().expect("open").forget();
    let slots = iq("get", ROMEO, &request("filename='a' size='1'")).repeat(OWN_MAX);
    assert_eq!(peer.ask(slots).await.expect("pings are answered"), []);
    let list = iq("get", ROMEO, &format!("<sessions xmlns='{SESSIONS}'/>"));
    for stanza in all_of(ROMEO, &id).iter().chain([&list]) {
        let answers = peer.ask(stanza).await.expect("an answer");
        assert_eq!(brief(&answers), "error wait resource-constraint");
    }
    for stanza in all_of("juliet@example.org/b", &id) {
        let answers = peer.ask(stanza).await.expect("an answer");
        assert_eq!(brief(&answers), UNKNOWN_SESSION);
    }
}

/// A list has fifty at most, and says so.
#[tokio::test(start_paused = true)]
async fn long_lists_are_cut() {
    let mut settings = settings();
    settings.policy.open_sessions_max = 100;
    let bench = bench(settings);
    let mut fake = start(&bench);
    let mut peer = fake.log_in().await;
    let list = iq("get", ROMEO, &format!("<sessions xmlns='{SESSIONS}'/>"));
    for (n_more, n_listed, complete) in [(50, 50, None), (1, 50, Some("false"))] {
        let slots = peer.ask(announced(ROMEO, "").repeat(n_more)).await;
        assert_eq!(slots.expect("answers").len(), n_more);
        let answers = peer.ask(&list).await.expect("an answer");
        let sessions = answers[0].children().next().expect("a list");
        assert_eq!(sessions.children().count(), n_listed);
        assert_eq!(sessions.attr("complete"), complete);
    }
}

/// The same thing asked many times at once is done once, and each is answered so.
#[tokio::test(start_paused = true)]
async fn the_same_cancel_many_times_at_once() {
    let (bench, files) = gated(1);
    let mut fake = start(&bench);
    let mut peer = fake.log_in().await;
    let (id, put) = new_session(&mut peer, ROMEO, "").await;
    assert!(!upload(&bench, &put, b"hel").await);
    files.gate.try_acquire().expect("open").forget();
    let cancels = session_iq("set", ROMEO, "cancel", &id).repeat(100);
    assert_eq!(peer.ask(cancels).await.expect("no answer yet"), []);
    files.gate.add_permits(1);
    for _ in 0..100 {
        let answer = peer.read_until(">").await.expect("an answer");
        assert!(answer.contains("result"), "{answer}");
        peer.read_until("</iq>").await.expect("its end");
    }
}

/// A fault of ours in one request is that request's alone.
#[tokio::test(start_paused = true)]
async fn a_panic_ends_no_stream() {
    let (bench, files) = gated(1);
    let mut fake = start(&bench);
    let mut peer = fake.log_in().await;
    let (id, _) = new_session(&mut peer, ROMEO, "").await;
    files.gate.close();
    let broken = "error wait internal-server-error";
    for _ in 0..200 {
        let [query, _, cancel] = all_of(ROMEO, &id);
        assert_eq!(brief(&peer.ask(cancel).await.expect("an answer")), broken);
        let slot = announced(ROMEO, "");
        assert_eq!(brief(&peer.ask(slot).await.expect("an answer")), broken);
        let answers = peer.ask(query).await.expect("an answer");
        assert_eq!(brief(&answers), "iq result session");
    }
}

/// What was begun for its owner goes through, also where the stream ends before it can be told.
#[tokio::test(start_paused = true)]
async fn a_cancel_goes_through_without_its_stream() {
    let (bench, files) = gated(1);
    let mut fake = start(&bench);
    let mut peer = fake.log_in().await;
    let (id, put) = new_session(&mut peer, ROMEO, "").await;
    assert!(!upload(&bench, &put, b"hel").await);
    let stored = || async { files.find(put.id).await.expect("readable").len() };
    assert_eq!(stored().await, 1);
    files.gate.try_acquire().expect("open").forget();
    let cancel = session_iq("set", ROMEO, "cancel", &id);
    assert_eq!(peer.ask(cancel).await.expect("no answer yet"), []);
    drop(peer);
    let mut peer = fake.log_in().await;
    files.gate.add_permits(1);
    let gone = async {
        while 0 < stored().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(60), gone)
        .await
        .expect("removed");
    let query = session_iq("get", ROMEO, "session", &id);
    let answers = peer.ask(query).await.expect("an answer");
    let view = answers[0].children().next().expect("a session");
    assert_eq!(view.attr("state"), Some("cancelled"));
}

/// X03, X04, X05: skipped and answered, and the stream stays.
#[tokio::test(start_paused = true)]
async fn stanzas_beyond_our_limits_are_answered() {
    let bench = bench(settings());
    let mut fake = start(&bench);
    let mut peer = fake.log_in().await;
    let deep = "<x>".repeat(100_000) + &"</x>".repeat(100_000);
    let attributes: String = (0..100_000).map(|n| format!(" a{n}=''")).collect();
    let namespaces: String = (0..100_000).map(|n| format!(" xmlns:a{n}='u'")).collect();
    for payload in [
        deep,
        format!("<x{attributes}/>"),
        format!("<x{namespaces}/>"),
        request(&format!("filename='{}' size='1'", "a".repeat(64 * 1024))),
        format!("<x>{}</x>", "a".repeat(10 << 20)),
        format!("<x><![CDATA[{}]]></x>", "a".repeat(1 << 20)),
    ] {
        let answers = peer
            .ask(iq("get", ROMEO, &payload))
            .await
            .expect("the stream lives");
        assert_eq!(brief(&answers), "error modify bad-request");
        assert_eq!(answers[0].attr("to"), Some(ROMEO));
        let others = [
            iq("result", ROMEO, &payload),
            format!("<message>{payload}</message>"),
        ];
        for stanza in others {
            assert_eq!(peer.ask(stanza).await.expect("the stream lives"), []);
        }
    }
}

/// X01, X02, X05, X06: told why, closed, and a new stream.
#[tokio::test(start_paused = true)]
async fn xml_that_no_stream_can_hold_ends_it() {
    let bench = bench(settings());
    let mut fake = start(&bench);
    let lol = "<!DOCTYPE lolz [<!ENTITY a 'lol'><!ENTITY b '&a;&a;&a;'>]><iq>&b;</iq>";
    for (xml, condition) in [
        (lol.into(), "restricted-xml"),
        (
            "<!DOCTYPE x SYSTEM 'file:///etc/passwd'>".into(),
            "restricted-xml",
        ),
        ("<iq><?x?></iq>".into(), "restricted-xml"),
        ("<!-- -->".into(), "restricted-xml"),
        (iq("get", ROMEO, "&lol;").into(), "not-well-formed"),
        (iq("get", ROMEO, "&#0;").into(), "not-well-formed"),
        (iq("get", ROMEO, "\u{fffe}").into(), "not-well-formed"),
        (b"<iq id='\0'/>".to_vec(), "not-well-formed"),
        (b"<iq id='\xff'/>".to_vec(), "not-well-formed"),
        (b"<iq><x></iq>".to_vec(), "not-well-formed"),
        (b"<a:iq/>".to_vec(), "not-well-formed"),
        (b"<iq id='a' id='b'/>".to_vec(), "not-well-formed"),
        (b"text between stanzas".to_vec(), "not-well-formed"),
        (
            format!("<iq>{}", "a".repeat(17 << 20)).into(),
            "policy-violation",
        ),
    ] {
        let xml: Vec<u8> = xml;
        let mut peer = fake.log_in().await;
        // The stream may end before all of it is written.
        let _ = peer.send(&xml).await;
        let rest = peer.read_to_end().await;
        let start: String = xml.iter().take(60).map(|byte| char::from(*byte)).collect();
        assert!(rest.contains(condition), "{start}: {rest}");
        assert!(rest.ends_with("</stream:stream>"), "{start}: {rest}");
    }
    assert_eq!(peer_answers(&mut fake).await, "iq result ");
}

async fn peer_answers(fake: &mut Fake) -> String {
    let mut peer = fake.log_in().await;
    let ping = iq("get", ROMEO, "<ping xmlns='urn:xmpp:ping'/>");
    brief(&peer.ask(ping).await.expect("the stream lives"))
}

/// X07, and silence without half a stanza: asked after 20 s, given up after 40.
#[tokio::test(start_paused = true)]
async fn silence_is_noticed() {
    let bench = bench(settings());
    let mut fake = start(&bench);
    for last_words in ["", "<iq type='get' id='i' from='a@b'"] {
        let mut peer = fake.log_in().await;
        peer.send(last_words).await.expect("sent");
        let since = Instant::now();
        peer.read_until("<ping").await.expect("a ping");
        assert_eq!(since.elapsed().as_secs(), 20);
        let rest = peer.read_to_end().await;
        assert_eq!(since.elapsed().as_secs(), 40);
        assert!(rest.contains("connection-timeout"), "{rest}");
    }
    assert_eq!(peer_answers(&mut fake).await, "iq result ");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_gives_pings_back_is_alive() {
    let bench = bench(settings());
    let mut fake = start(&bench);
    let mut peer = fake.log_in().await;
    let since = Instant::now();
    for _ in 0..100 {
        let ping = peer.read_until("</iq>").await.expect("a ping");
        assert!(ping.contains("urn:xmpp:ping"), "{ping}");
        // As the server routes it: to ourselves; and the answer, too.
        peer.send(&ping).await.expect("sent");
        let answer = peer.read_until("</iq>").await.expect("an answer");
        assert!(answer.contains("item-not-found"), "{answer}");
        peer.send(&answer).await.expect("sent");
    }
    assert_eq!(since.elapsed().as_secs() / 100, 20);
    assert!(fake.peers.try_recv().is_err(), "still the first stream");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_nothing_is_left() {
    let bench = bench(settings());
    let mut fake = Fake::start(bench.service.clone(), vec![component(server())], 1024);
    let mut peer = fake.log_in().await;
    let since = Instant::now();
    let info = iq(
        "get",
        ROMEO,
        "<query xmlns='http://jabber.org/protocol/disco#info'/>",
    );
    // We never read: at some point we cannot write, either.
    while peer.send(&info).await.is_ok() {}
    assert_eq!(since.elapsed().as_secs(), 10);
    assert_eq!(peer_answers(&mut fake).await, "iq result ");
}

/// X08: no spin, and no flood of lines.
#[tokio::test(start_paused = true)]
async fn refusals_are_asked_again_ever_more_rarely() {
    for (condition, words) in [
        ("conflict", "component_conflict_resolve"),
        ("not-authorized", "component_secret"),
        ("host-unknown", "does not know the component"),
        ("policy-violation", "policy-violation"),
    ] {
        let log = Log::default();
        let _guard = log.gather();
        let bench = bench(settings());
        let mut fake = start(&bench);
        let since = Instant::now();
        let mut n_tries = 0;
        while since.elapsed() < Duration::from_secs(600) {
            let mut peer = fake.next().await;
            n_tries += 1;
            peer.read_until("<stream:stream").await.expect("a header");
            let answer = HEADER.to_owned() + &stream_error(condition, "no");
            peer.send(answer).await.expect("sent");
            peer.read_to_end().await;
        }
        assert!(
            (10..=30).contains(&n_tries),
            "{condition}: {n_tries} tries in ten minutes"
        );
        let lines = log.lines(words);
        assert!(
            (1..=11).contains(&lines),
            "{condition}: {lines} lines in ten minutes"
        );
        fake.running.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn lost_streams_are_made_anew_within_two_seconds() {
    let log = Log::default();
    let _guard = log.gather();
    let bench = bench(settings());
    let mut fake = start(&bench);
    for _ in 0..60 {
        let since = Instant::now();
        let peer = fake.log_in().await;
        assert!(since.elapsed() < Duration::from_secs(2));
        drop(peer);
    }
    // About a minute passed.
    for words in ["closed the connection", "online"] {
        assert!((5..=10).contains(&log.lines(words)), "{words}");
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_the_stream_properly() {
    let bench = bench(settings());
    let mut fake = start(&bench);
    let mut peer = fake.log_in().await;
    let ping = iq("get", ROMEO, "<ping xmlns='urn:xmpp:ping'/>");
    peer.ask(ping).await.expect("an answer");
    fake.stop.send(true).expect("slotd listens");
    assert_eq!(peer.read_to_end().await, "</stream:stream>");
    fake.running.await.expect("ended");
}

#[tokio::test(start_paused = true)]
async fn several_hosts_and_streams_are_told_apart_by_address() {
    let bench = bench(settings());
    let mut two = component(server());
    two.connections = 2;
    let mut other = component(server());
    other.jid = "files.example.org".to_owned();
    let mut fake = Fake::start(bench.service.clone(), vec![two, other], BUFFER_BYTES);
    let ask = |host: &str| {
        let iq = iq("get", ROMEO, &request("filename='a' size='1'"));
        iq.replace("upload.example.org", host)
    };
    for _ in 0..3 {
        let mut peer = fake.next().await;
        let Ok(()) = peer.log_in().await else {
            continue;
        };
        for host in ["upload.example.org", "files.example.org"] {
            let answers = peer.ask(ask(host)).await.expect("an answer");
            assert_eq!(brief(&answers), "iq result slot");
            assert_eq!(answers[0].attr("from"), Some(host));
        }
    }
}

/// What `slotd check --connect` says, over real sockets.
#[tokio::test]
async fn each_failure_to_log_in_has_its_words() {
    const COMPONENT_PORT: &str = "the port for components";
    let header_c2s = HEADER.replace("jabber:component:accept", "jabber:client");
    for (answer, words) in [
        (
            HEADER.to_owned() + &stream_error("host-unknown", ""),
            "does not know the component",
        ),
        (
            HEADER.to_owned() + &stream_error("not-authorized", ""),
            "component_secret",
        ),
        (
            HEADER.to_owned() + &stream_error("conflict", ""),
            "kick_old",
        ),
        (
            HEADER.to_owned() + &stream_error("system-shutdown", ""),
            "starting or stopping",
        ),
        (
            HEADER.to_owned() + &stream_error("policy-violation", "a\nb"),
            "policy-violation (a\\nb)",
        ),
        (
            header_c2s + &stream_error("invalid-namespace", ""),
            COMPONENT_PORT,
        ),
        (HEADER.to_owned() + "<iq/>", COMPONENT_PORT),
        (HEADER.to_owned(), "starting or stopping"),
        (
            "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned(),
            COMPONENT_PORT,
        ),
        ("<html>".to_owned(), COMPONENT_PORT),
        (String::new(), "starting or stopping"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let served = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.expect("a connection");
            let mut peer = Peer::new(socket);
            peer.read_until("<stream:stream").await.expect("a header");
            peer.send(&answer).await.expect("sent");
            // Read on, so that what was sent is not lost with a reset.
            let _ = timeout(Duration::from_millis(50), peer.read_to_end()).await;
        });
        let tried = try_login(&identity(ServerAddress::Tcp(address))).await;
        let error = tried.expect_err("refused").to_string();
        assert!(error.contains(words), "{words}: {error}");
        assert!(!error.contains(xmpp::SECRET), "{error}");
        served.await.expect("served");
    }
}

#[tokio::test]
async fn tcp_and_unix_sockets_are_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let served = tokio::spawn(async move {
        let mut peer = Peer::new(listener.accept().await.expect("a connection").0);
        peer.log_in().await.expect("a log-in");
        peer.read_to_end().await
    });
    let tcp = identity(ServerAddress::Tcp(address.clone()));
    try_login(&tcp).await.expect("logged in");
    assert_eq!(served.await.expect("served"), "</stream:stream>");
    let error = try_login(&tcp).await.expect_err("nobody listens");
    assert!(matches!(error, LoginError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&address), "{error}");

    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("component.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let served = tokio::spawn(async move {
        let mut peer = Peer::new(listener.accept().await.expect("a connection").0);
        peer.log_in().await
    });
    let unix = identity(ServerAddress::Unix(path));
    try_login(&unix).await.expect("logged in");
    served.await.expect("served").expect("a log-in");
}

#[tokio::test(start_paused = true)]
async fn a_log_in_without_answer_is_given_up() {
    let bench = bench(settings());
    let mut fake = start(&bench);
    let mut peer = fake.next().await;
    let since = Instant::now();
    peer.read_to_end().await;
    assert_eq!(since.elapsed().as_secs(), 10);
    assert_eq!(peer_answers(&mut fake).await, "iq result ");
}

/// The log of this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn gather(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || log.clone());
        tracing::subscriber::set_default(subscriber.finish())
    }

    /// How many lines hold `words`.
    fn lines(&self, words: &str) -> usize {
        let log = self.0.lock().expect("not poisoned");
        let log = String::from_utf8(log.clone()).expect("UTF-8");
        assert!(!log.contains(xmpp::SECRET));
        log.lines().filter(|line| line.contains(words)).count()
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
