//! The relay on its stream: stanzas in and stanzas out, against a server written by hand.

mod support;
#[path = "support/xmpp.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod xmpp;

use std::time::Duration;

use jid::BareJid;
use minidom::Element;
use slotd::config::{Component, Relay, ServerAddress};
use slotd::core::command::fault::CommandFault;
use slotd::core::refusal::Refusal;
use slotd::core::relay::Terms;
use slotd::service::Settings;
use slotd::xmpp::Hosts;
use support::world::{Bench, bench, settings};
use tokio::time::sleep;
use xmpp::{Fake, Peer, component};

const HOST: &str = "relay.example.org";
const TARGET: &str = "service@example.org";
const ROMEO: &str = "romeo@example.net/phone";
const BUFFER_BYTES: usize = 64 * 1024;
const TERMS: Terms = Terms {
    answer_within: Duration::from_secs(60),
    pending_max: 3,
    pending_total_max: 100,
};

fn server() -> ServerAddress {
    ServerAddress::Tcp("127.0.0.1:5347".to_owned())
}

fn hosts(components: Vec<Component>) -> Hosts {
    let relay = Relay {
        component: Component {
            jid: HOST.to_owned(),
            ..component(server())
        },
        target: BareJid::new(TARGET).expect("a JID"),
        terms: TERMS,
    };
    Hosts {
        relay: Some(relay),
        ..Hosts::from(components)
    }
}

/// slotd with a relay alone, and the server's end of its stream.
struct Bed {
    bench: Bench,
    fake: Fake,
    peer: Peer,
    n_fences: usize,
}

impl Bed {
    /// Logged in, and asked for the target's presence; these resources are there.
    async fn new(resources: &[&str]) -> Self {
        Self::with(settings(), resources).await
    }

    async fn with(settings: Settings, resources: &[&str]) -> Self {
        let bench = bench(settings);
        let mut fake = Fake::start(bench.service.clone(), hosts(Vec::new()), BUFFER_BYTES);
        let peer = log_in(&mut fake).await;
        let mut bed = Self {
            bench,
            fake,
            peer,
            n_fences: 0,
        };
        let asked = bed.send("").await;
        assert_eq!(written(&asked), [presence("subscribe")]);
        for resource in resources {
            let come = bed.send(&target_presence(resource, "")).await;
            assert_eq!(written(&come), [""; 0]);
        }
        bed
    }

    /// Sends stanzas, and returns all that come back.
    async fn send(&mut self, xml: &str) -> Vec<Element> {
        self.n_fences += 1;
        let fence = format!("fence-{}", self.n_fences);
        let message = format!("<message from='fence@example.net/f' to='{HOST}' id='{fence}'/>");
        self.peer
            .send(format!("{xml}{message}"))
            .await
            .expect("the stream lives");
        let mut seen = self
            .peer
            .read_until(&fence)
            .await
            .expect("an error for the fence");
        seen += &self
            .peer
            .read_until("</message>")
            .await
            .expect("an error for the fence");
        let mut all = parse(&seen);
        all.pop();
        all
    }

    async fn exchange(&mut self, sent: &str, wanted: &[&str]) {
        let came = self.send(sent).await;
        let wanted: Vec<_> = wanted.iter().flat_map(|xml| parse(xml)).collect();
        assert_eq!(written(&came), written(&wanted), "{sent}");
    }

    async fn refused(&mut self, sent: &str, error: &str) {
        let came = self.send(sent).await;
        assert_eq!(brief(&came), error, "{sent}");
    }
}

async fn log_in(fake: &mut Fake) -> Peer {
    let mut peer = fake.next().await;
    peer.host = HOST;
    peer.log_in().await.expect("slotd logs in");
    peer
}

fn parse(xml: &str) -> Vec<Element> {
    let all = format!("<all xmlns='jabber:component:accept'>{xml}</all>");
    let all: Element = all.parse().expect("well-formed");
    all.children().cloned().collect()
}

/// In one spelling, to be compared.
fn written(stanzas: &[Element]) -> Vec<String> {
    stanzas.iter().map(String::from).collect()
}

fn presence(kind: &str) -> String {
    let xml = format!("<presence from='{HOST}' to='{TARGET}' type='{kind}'/>");
    written(&parse(&xml)).remove(0)
}

fn target_presence(resource: &str, kind: &str) -> String {
    let kind = match kind {
        "" => String::new(),
        kind => format!(" type='{kind}'"),
    };
    format!("<presence from='{TARGET}/{resource}' to='{HOST}'{kind}/>")
}

/// Errors in short: `iq 1 romeo@example.net/phone cancel bad-request`.
fn brief(stanzas: &[Element]) -> String {
    let one = |stanza: &Element| {
        let [id, to, from] = ["id", "to", "from"].map(|name| stanza.attr(name).unwrap_or("-"));
        assert!(from.contains(HOST), "{stanza:?}");
        let error = stanza.children().find(|child| child.name() == "error");
        let Some(error) = error else {
            return format!("{} {id} {to}", stanza.name());
        };
        let kind = error.attr("type").expect("a type");
        let condition = error.children().next().expect("a condition").name();
        format!("{} {id} {to} {kind} {condition}", stanza.name())
    };
    stanzas.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn ask(kind: &str, id: &str, payload: &str) -> String {
    format!("<iq type='{kind}' id='{id}' from='{ROMEO}' to='{HOST}'>{payload}</iq>")
}

fn asked(kind: &str, id: &str, resource: &str, payload: &str) -> String {
    format!(
        "<iq type='{kind}' id='{id}' from='{HOST}/{ROMEO}' to='{TARGET}/{resource}'>{payload}</iq>"
    )
}

fn reply(kind: &str, id: &str, resource: &str, payload: &str) -> String {
    format!(
        "<iq type='{kind}' id='{id}' from='{TARGET}/{resource}' to='{HOST}/{ROMEO}'>{payload}</iq>"
    )
}

fn replied(kind: &str, id: &str, payload: &str) -> String {
    format!("<iq type='{kind}' id='{id}' from='{HOST}' to='{ROMEO}'>{payload}</iq>")
}

const QUERY: &str = "<query xmlns='urn:x'/>";

/// The dialogue in mod_client_proxy's README.
#[tokio::test(start_paused = true)]
async fn requests_and_replies_are_passed_on() {
    let mut bed = Bed::new(&["b"]).await;
    bed.exchange(&ask("get", "q7", QUERY), &[&asked("get", "q7", "b", QUERY)])
        .await;
    bed.exchange(
        &reply("result", "q7", "b", ""),
        &[&replied("result", "q7", "")],
    )
    .await;
    bed.exchange(&reply("result", "q7", "b", ""), &[]).await;
    let error = "<error type='cancel'><item-not-found \
        xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    bed.exchange(&ask("set", "q8", QUERY), &[&asked("set", "q8", "b", QUERY)])
        .await;
    bed.exchange(
        &reply("error", "q8", "b", error),
        &[&replied("error", "q8", error)],
    )
    .await;
    // All IQs, also those that any other host answers by itself.
    for payload in [
        "<query xmlns='http://jabber.org/protocol/disco#info'/>",
        "<ping xmlns='urn:xmpp:ping'/>",
        "<request xmlns='urn:xmpp:http:upload:0' filename='a' size='1'/>",
    ] {
        bed.exchange(
            &ask("get", "q9", payload),
            &[&asked("get", "q9", "b", payload)],
        )
        .await;
        bed.exchange(
            &reply("result", "q9", "b", ""),
            &[&replied("result", "q9", "")],
        )
        .await;
    }
}

/// Byte for byte, where the spelling is ours: mixed content, unknown namespaces, languages.
#[tokio::test(start_paused = true)]
async fn payloads_are_not_touched() {
    let mut bed = Bed::new(&["b"]).await;
    let payload = "<x xmlns=\"urn:unknown:a\" b=\"1\" c=\"&#xa; &#39; &lt;\" \
        xml:lang=\"de-CH\">Gr\u{fc}\u{df}e <y>zwei <z xmlns=\"urn:unknown:b\"></z> drei\n\t</y>  \
        <y></y>\u{1f980} &amp; &lt;b&gt;<iq xmlns=\"jabber:client\" from=\"a@b/c\" id=\"inner\" \
        to=\"d\"><body></body></iq></x>"
        .replace('\'', "\"");
    let sent = ask("get", "1", &payload);
    bed.peer.send(&sent).await.expect("sent");
    let came = bed
        .peer
        .read_until("</iq></x></iq>")
        .await
        .expect("passed on");
    let inside = came.split_once('>').expect("a tag").1;
    let inside = inside
        .strip_suffix("</iq>")
        .expect("its end")
        .replace('\'', "\"");
    assert_eq!(inside, payload);
    // The stanza's own language goes with it, and attributes of other namespaces.
    let more = "xml:lang='fr' xmlns:o='urn:other' o:kept='1'";
    let stanza = |head: &str| format!("<iq type='set' id='2' {head} {more}>{QUERY}</iq>");
    let sent = stanza(&format!("from='{ROMEO}' to='{HOST}'"));
    let wanted = stanza(&format!("from='{HOST}/{ROMEO}' to='{TARGET}/b'"));
    let came = bed.send(&sent).await;
    assert_eq!(came, parse(&wanted));
}

/// What is no request of a stranger, row by row: sender, stanza, answer.
#[tokio::test(start_paused = true)]
async fn nothing_else_is_passed_on() {
    let mut bed = Bed::new(&["b"]).await;
    let target = format!("{TARGET}/b");
    let to_romeo = format!("{HOST}/{ROMEO}");
    let iq = |kind: &str| format!("iq type='{kind}' id='1'");
    let message = |kind: &str| format!("message type='{kind}' id='1'");
    let presence = |kind: &str| format!("presence type='{kind}' id='1'");
    let (bad, no) = ("cancel bad-request", "cancel feature-not-implemented");
    for (from, to, stanza, error) in [
        (ROMEO, HOST, iq("result"), ""),
        (ROMEO, HOST, iq("error"), ""),
        (ROMEO, HOST, iq("get"), "modify bad-request"),
        (ROMEO, HOST, iq("foo"), "modify bad-request"),
        (ROMEO, HOST, "iq type='get'".to_owned(), ""),
        (ROMEO, HOST, message("chat"), no),
        (ROMEO, "x@relay.example.org/y", message("normal"), no),
        (ROMEO, HOST, message("error"), ""),
        (ROMEO, HOST, presence("subscribe"), bad),
        (ROMEO, HOST, presence("unavailable"), bad),
        (ROMEO, HOST, presence("error"), ""),
        (&target, HOST, message("chat"), bad),
        (&target, HOST, message("error"), ""),
        (&target, HOST, iq("result"), ""),
        (&target, HOST, iq("error"), ""),
        (&target, &to_romeo, message("chat"), no),
        (&target, &to_romeo, message("error"), ""),
        (&target, &to_romeo, iq("result"), ""),
        (&target, &to_romeo, presence("subscribe"), ""),
        (&target, &to_romeo, presence("unavailable"), ""),
        ("x@relay.example.org/y", HOST, message("chat"), ""),
        (HOST, HOST, presence("subscribe"), ""),
    ] {
        let sent = format!("<{stanza} from='{from}' to='{to}'/>");
        let name = stanza.split_once(' ').expect("a name").0;
        let error = match error {
            "" => String::new(),
            error => format!("{name} 1 {from} {error}"),
        };
        bed.refused(&sent, &error).await;
    }
    for (to, error) in [(HOST, bad), (to_romeo.as_str(), no)] {
        for kind in ["get", "set"] {
            let sent = format!("<iq type='{kind}' id='1' from='{target}' to='{to}'>{QUERY}</iq>");
            bed.refused(&sent, &format!("iq 1 {target} {error}")).await;
        }
    }
    // Its own pings come back to it, and go no further.
    let itself = format!("from='x@{HOST}' to='x@{HOST}'");
    bed.refused(&format!("<iq type='get' id='1' {itself}>{QUERY}</iq>"), "")
        .await;
    bed.exchange(&ask("get", "2", QUERY), &[&asked("get", "2", "b", QUERY)])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_goes_leaves_nobody_waiting() {
    let mut bed = Bed::new(&["b"]).await;
    bed.exchange(&ask("get", "1", QUERY), &[&asked("get", "1", "b", QUERY)])
        .await;
    bed.exchange(&ask("set", "2", QUERY), &[&asked("set", "2", "b", QUERY)])
        .await;
    bed.exchange(&target_presence("c", ""), &[]).await;
    let came = bed.send(&target_presence("b", "unavailable")).await;
    assert_eq!(
        written(&came[..1]),
        written(&parse(&asked("get", "1", "c", QUERY)))
    );
    assert_eq!(
        brief(&came[1..]),
        format!("iq 2 {ROMEO} wait recipient-unavailable")
    );
    bed.exchange(&reply("result", "1", "b", ""), &[]).await;
    bed.exchange(
        &reply("result", "1", "c", ""),
        &[&replied("result", "1", "")],
    )
    .await;
    bed.exchange(&target_presence("c", "unavailable"), &[])
        .await;
    let error = format!("iq 3 {ROMEO} cancel service-unavailable");
    bed.refused(&ask("get", "3", QUERY), &error).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_target_is_waited_for_a_minute() {
    let mut bed = Bed::new(&["b"]).await;
    bed.exchange(&ask("get", "1", QUERY), &[&asked("get", "1", "b", QUERY)])
        .await;
    for _ in 0..5 {
        // A word now and then, or the server itself is taken for dead.
        sleep(Duration::from_millis(11_500)).await;
        bed.exchange("", &[]).await;
    }
    sleep(Duration::from_secs(4)).await;
    bed.refused("", &format!("iq 1 {ROMEO} wait remote-server-timeout"))
        .await;
    bed.exchange(&reply("result", "1", "b", ""), &[]).await;
}

#[tokio::test(start_paused = true)]
async fn one_user_has_so_many_under_way() {
    let rules = Terms {
        pending_max: 2,
        ..TERMS
    };
    // The rules in force win over those of the start.
    let settings = Settings {
        relay: Some(rules),
        ..settings()
    };
    let mut bed = Bed::with(settings, &["b"]).await;
    for id in ["1", "2"] {
        bed.exchange(&ask("get", id, QUERY), &[&asked("get", id, "b", QUERY)])
            .await;
    }
    let refused = format!("iq 3 {ROMEO} wait resource-constraint");
    bed.refused(&ask("get", "3", QUERY), &refused).await;
    bed.exchange(
        &reply("result", "1", "b", ""),
        &[&replied("result", "1", "")],
    )
    .await;
    bed.exchange(&ask("get", "3", QUERY), &[&asked("get", "3", "b", QUERY)])
        .await;
}

#[tokio::test(start_paused = true)]
async fn who_is_banned_is_not_relayed() {
    let mut bed = Bed::new(&["b"]).await;
    let account = BareJid::new("romeo@example.org").expect("a JID");
    let refusal = Refusal::Command(CommandFault::NotOperator);
    let banned = format!("<iq type='get' id='1' from='{account}/x' to='{HOST}'>{QUERY}</iq>");
    assert_eq!(brief(&bed.send(&banned).await), format!("iq 1 {TARGET}/b"));
    for _ in 0..=20 {
        // Once a second counts.
        bed.bench.world.pass(1);
        let service = &bed.bench.service;
        service.blame_account(account.clone(), &refusal);
    }
    bed.refused(&banned, &format!("iq 1 {account}/x auth forbidden"))
        .await;
}

/// An empty result is good; one that was too long to be read is none.
#[tokio::test(start_paused = true)]
async fn what_is_too_long_is_not_passed_on() {
    let mut bed = Bed::new(&["b"]).await;
    let long = format!("<x xmlns='urn:x'>{}</x>", "a".repeat(600 * 1024));
    let bad = format!("iq 1 {ROMEO} modify bad-request");
    bed.refused(&ask("get", "1", &long), &bad).await;
    let deep = format!("{}{}", "<x>".repeat(100), "</x>".repeat(100));
    bed.refused(&ask("get", "1", &deep), &bad).await;
    bed.exchange(&ask("get", "1", QUERY), &[&asked("get", "1", "b", QUERY)])
        .await;
    let told = format!("iq 1 {ROMEO} cancel policy-violation");
    bed.refused(&reply("result", "1", "b", &long), &told).await;
}

/// A JID too long for a resource goes under another name.
#[tokio::test(start_paused = true)]
async fn a_long_address_gets_a_handle() {
    let mut bed = Bed::new(&["b"]).await;
    let from = format!("romeo@example.net/{}", "x".repeat(1020));
    let sent = format!("<iq type='get' id='1' from='{from}' to='{HOST}'>{QUERY}</iq>");
    let came = bed.send(&sent).await;
    let handle = came[0].attr("from").expect("an address").to_owned();
    assert!(handle.starts_with("relay.example.org/@"), "{handle}");
    assert!(handle.len() < 100);
    let reply = format!("<iq type='result' id='1' from='{TARGET}/b' to='{handle}'/>");
    let wanted = format!("<iq type='result' id='1' from='{HOST}' to='{from}'/>");
    bed.exchange(&reply, &[&wanted]).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_stream_resources_are_asked_for_again() {
    let mut bed = Bed::new(&["b"]).await;
    bed.exchange(&ask("get", "1", QUERY), &[&asked("get", "1", "b", QUERY)])
        .await;
    let n_resources = |bed: &Bed| bed.bench.service.streams().list()[0].n_resources;
    assert_eq!(n_resources(&bed), Some(1));
    bed.peer.send("</stream:stream>").await.expect("sent");
    bed.peer.read_to_end().await;
    bed.peer = log_in(&mut bed.fake).await;
    assert_eq!(n_resources(&bed), Some(0));
    let again = bed.send("").await;
    assert_eq!(written(&again), [presence("subscribe"), presence("probe")]);
    let nobody = format!("iq 2 {ROMEO} cancel service-unavailable");
    bed.refused(&ask("get", "2", QUERY), &nobody).await;
    // What was asked over the last stream may be answered over this one.
    bed.exchange(
        &reply("result", "1", "b", ""),
        &[&replied("result", "1", "")],
    )
    .await;
    bed.exchange(&target_presence("b", ""), &[]).await;
    bed.exchange(&ask("get", "3", QUERY), &[&asked("get", "3", "b", QUERY)])
        .await;
}

/// Who still waits when we stop is told, once there was time for an answer.
#[tokio::test(start_paused = true)]
async fn stopping_leaves_nobody_waiting() {
    let mut bed = Bed::new(&["b"]).await;
    for id in ["1", "2"] {
        bed.exchange(&ask("set", id, QUERY), &[&asked("set", id, "b", QUERY)])
            .await;
    }
    bed.fake.stop.send(true).expect("it runs");
    bed.exchange(
        &reply("result", "1", "b", ""),
        &[&replied("result", "1", "")],
    )
    .await;
    bed.refused(
        &ask("get", "3", QUERY),
        &format!("iq 3 {ROMEO} wait resource-constraint"),
    )
    .await;
    let rest = bed.peer.read_to_end().await;
    let rest = rest.strip_suffix("</stream:stream>").expect("a good-bye");
    assert_eq!(
        brief(&parse(rest)),
        format!("iq 2 {ROMEO} wait resource-constraint")
    );
    bed.fake.running.await.expect("no panic");
}

/// ejabberd hands the stanzas of all hosts of a listener to any stream.
#[tokio::test(start_paused = true)]
async fn hosts_are_told_apart_by_address() {
    let bench = bench(settings());
    let hosts = hosts(vec![component(server())]);
    let mut fake = Fake::start(bench.service.clone(), hosts, BUFFER_BYTES);
    let (mut upload, mut relay) = (fake.next().await, fake.next().await);
    upload.log_in().await.expect("logged in");
    relay.host = HOST;
    relay.log_in().await.expect("logged in");
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    let to_upload =
        format!("<iq type='get' id='1' from='{ROMEO}' to='upload.example.org'>{ping}</iq>");
    relay.send(to_upload).await.expect("sent");
    let answer = relay.read_until("id='1'").await.expect("an answer");
    assert!(answer.contains("from='upload.example.org'"), "{answer}");
    let come = target_presence("b", "");
    upload
        .send(format!("{come}{}", ask("get", "2", ping)))
        .await
        .expect("sent");
    let passed = upload.read_until("</iq>").await.expect("passed on");
    assert_eq!(
        written(&parse(&passed)),
        written(&parse(&asked("get", "2", "b", ping)))
    );
}
