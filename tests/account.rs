//! The service as an account behind a relay: a server written by hand, with TLS, that hands on what
//! a relay sends, and what others would like to.

mod support;
#[path = "support/xmpp.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod xmpp;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jid::BareJid;
use minidom::Element;
use rcgen::CertifiedKey;
use slotd::config::{Account, Secret};
use slotd::xmpp::{Hosts, Identity, Socket, run, try_login};
use support::world::{Bench, bench, settings};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

const PASSWORD: &str = "correct horse battery";
const RELAY: &str = "upload.example.org";
const ROMEO: &str = "upload.example.org/romeo@example.org/phone";
const NODE: &str = "slotd@localhost/node-1";
const HEADER: &str = "<?xml version='1.0'?><stream:stream id='s' from='localhost' version='1.0' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:client'>";
const PATIENCE: Duration = Duration::from_secs(30);
const REQUEST: &str = "<request xmlns='urn:xmpp:http:upload:0' filename='a.bin' size='1000'/>";
const INFO: &str = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
const SLOT: &str = "result slot";
const UNAVAILABLE: &str = "error cancel service-unavailable";
const MALFORMED: &str = "error modify jid-malformed";
const FORBIDDEN: &str = "error auth forbidden";

/// An XMPP server, as far as one account sees it.
struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    dir: TempDir,
}

impl Server {
    async fn new() -> Self {
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
        let CertifiedKey { cert, signing_key } = pair.expect("a pair");
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .expect("a certificate");
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("ca.pem"), cert.pem()).expect("written");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            dir,
        }
    }

    fn account(&self) -> Account {
        let port = self.listener.local_addr().expect("an address").port();
        Account {
            jid: BareJid::new("slotd@localhost").expect("a JID"),
            password: Secret(PASSWORD.to_owned()),
            server: Some(("127.0.0.1".to_owned(), port)),
            ca: Some(self.dir.path().join("ca.pem")),
            insecure: false,
            resource: Some("node-1".to_owned()),
            relay: RELAY.to_owned(),
        }
    }

    async fn accept(&self) -> Client {
        let (socket, _) = timeout(PATIENCE, self.listener.accept())
            .await
            .expect("slotd connects")
            .expect("a connection");
        Client {
            io: Box::new(socket),
            seen: String::new(),
        }
    }

    /// A connection that has asked for TLS and been told to begin.
    async fn before_tls(&self) -> Client {
        let mut client = self.accept().await;
        client.header().await;
        client
            .features("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            .await;
        client.read_until("xmpp-tls").await;
        client.read_until(">").await;
        client
            .send("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            .await;
        client
    }

    /// A connection under TLS, at the features that offer `mechanisms`.
    async fn encrypted(&self, mechanisms: &str) -> Client {
        let client = self.before_tls().await;
        let socket = self.acceptor.accept(client.io).await.expect("TLS");
        let mut client = Client {
            io: Box::new(socket),
            seen: String::new(),
        };
        client.header().await;
        client.features(&offer(mechanisms)).await;
        client
    }

    /// A connection that is logged in, at its wish for a resource.
    async fn authenticated(&self) -> Client {
        let mut client = self.encrypted("<mechanism>PLAIN</mechanism>").await;
        let auth = client.read_until("</auth>").await;
        let sent = auth.split(['>', '<']).nth(2).expect("a response");
        let plain = STANDARD.decode(sent).expect("base64");
        assert_eq!(plain, format!("\0slotd\0{PASSWORD}").into_bytes());
        client
            .send("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
            .await;
        client.header().await;
        client
            .features("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>")
            .await;
        client
    }

    /// One that has its resource and has said that it is there.
    async fn log_in(&self) -> Client {
        let mut client = self.authenticated().await;
        let wish = client.read_until("</iq>").await;
        assert!(wish.contains(">node-1</"), "{wish}");
        client.bound(NODE).await;
        client.greeted().await;
        client
    }
}

fn offer(mechanisms: &str) -> String {
    format!("<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{mechanisms}</mechanisms>")
}

/// The server's end of a connection.
struct Client {
    io: Box<dyn Socket>,
    seen: String,
}

impl Client {
    async fn send(&mut self, xml: &str) {
        self.io.write_all(xml.as_bytes()).await.expect("sent");
        self.io.flush().await.expect("sent");
    }

    /// Reads until `end` has come, and returns what came up to there.
    async fn read_until(&mut self, end: &str) -> String {
        timeout(PATIENCE, async {
            loop {
                if let Some(at) = self.seen.find(end) {
                    let rest = self.seen.split_off(at + end.len());
                    return std::mem::replace(&mut self.seen, rest);
                }
                let mut bytes = [0; 4096];
                let n = self.io.read(&mut bytes).await.expect("read");
                assert_ne!(n, 0, "the end, and not {end}: {}", self.seen);
                self.seen += std::str::from_utf8(&bytes[..n]).expect("ASCII");
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{end} does not come"))
    }

    async fn header(&mut self) {
        let header = self.read_until("?>").await + &self.read_until(">").await;
        assert!(header.contains("localhost"), "{header}");
        self.send(HEADER).await;
    }

    async fn features(&mut self, inner: &str) {
        let features = format!("<stream:features>{inner}</stream:features>");
        self.send(&features).await;
    }

    async fn bound(&mut self, jid: &str) {
        let bind = "urn:ietf:params:xml:ns:xmpp-bind";
        let result = format!("<bind xmlns='{bind}'><jid>{jid}</jid></bind>");
        let result = format!("<iq type='result' id='bind'>{result}</iq>");
        self.send(&result).await;
    }

    /// Takes the presences of one who has just come.
    async fn greeted(&mut self) {
        let greeting = self.read_until(&format!("to='{RELAY}'>")).await;
        let n_presences = greeting.matches("<presence").count();
        assert_eq!(n_presences, 3, "{greeting}");
        assert!(greeting.contains("<presence></presence>"), "{greeting}");
        self.read_until("<priority>-1</priority></presence>").await;
    }

    /// Sends a stanza; all that is answered before the answer to the next.
    async fn ask(&mut self, stanza: &str) -> Vec<Element> {
        let fence = "<iq type='get' id='fence' from='localhost' to='slotd@localhost/node-1'>\
            <ping xmlns='urn:xmpp:ping'/></iq>";
        self.send(stanza).await;
        let mut seen = String::new();
        // What waits for the store may come after the first.
        for _ in 0..3 {
            self.send(fence).await;
            seen += &self.read_until("id='fence'").await;
            seen += &self.read_until("</iq>").await;
        }
        let all = format!("<all xmlns='jabber:client'>{seen}</all>");
        let all: Element = all.parse().expect("well-formed");
        let answers = all.children().cloned();
        answers
            .filter(|it| it.attr("id") != Some("fence"))
            .collect()
    }
}

fn iq(kind: &str, from: &str, payload: &str) -> String {
    format!("<iq type='{kind}' id='i1' from='{from}' to='{NODE}'>{payload}</iq>")
}

/// What an answer is, in short.
fn brief(answer: &Element) -> String {
    let kind = answer.attr("type").unwrap_or_default();
    let error = answer.children().find(|child| child.name() == "error");
    match error {
        Some(error) => {
            let condition = error.children().next().expect("a condition").name();
            format!("error {} {condition}", error.attr("type").expect("a type"))
        }
        None => {
            let payload = answer.children().next().map_or("", Element::name);
            format!("{kind} {payload}").trim().to_owned()
        }
    }
}

struct Running {
    bench: Bench,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

fn start(account: Account) -> Running {
    let bench = bench(settings());
    let (stop, stopped) = watch::channel(false);
    let operations = xmpp::operations(bench.service.clone());
    let hosts = Hosts {
        identities: vec![Identity::Account(account)],
        relay: None,
    };
    let running = tokio::spawn(run(hosts, operations, stopped));
    Running {
        bench,
        stop,
        running,
    }
}

/// Who asks is in the resource of the relay's address, and nowhere else; answers go to the address
/// as it came, and do not say whom they are from.
#[tokio::test]
async fn the_relay_alone_is_believed() {
    let server = Server::new().await;
    let _running = start(server.account());
    let mut client = server.log_in().await;
    let get = |from: &str, payload: &str| iq("get", from, payload);
    let emoji = "upload.example.org/romeo@example.org/\u{1f980}\u{1faf6}";
    for (stanza, expected) in [
        (get(ROMEO, REQUEST), SLOT),
        (get(&format!("{RELAY}/romeo@example.org"), REQUEST), SLOT),
        (get(emoji, REQUEST), SLOT),
        (get(&format!("{RELAY}/a@example.net/x"), REQUEST), FORBIDDEN),
        (get(&format!("{RELAY}/3f9a0c-handle"), REQUEST), MALFORMED),
        (get(&format!("{RELAY}/example.org/x"), REQUEST), MALFORMED),
        (get(&format!("{RELAY}/"), REQUEST), MALFORMED),
        (get(RELAY, REQUEST), MALFORMED),
        (get("romeo@example.org/phone", REQUEST), UNAVAILABLE),
        (get("romeo@example.org/phone", INFO), UNAVAILABLE),
        (
            get("evil.example/romeo@example.org/phone", REQUEST),
            UNAVAILABLE,
        ),
        (get(&format!("evil@{ROMEO}"), REQUEST), UNAVAILABLE),
        (get("slotd@localhost/node-2", REQUEST), UNAVAILABLE),
        (get("localhost", "<ping xmlns='urn:xmpp:ping'/>"), "result"),
        (get("localhost", REQUEST), UNAVAILABLE),
        (iq("set", ROMEO, "<x xmlns='urn:example'/>"), UNAVAILABLE),
        (get(ROMEO, "<ping xmlns='urn:xmpp:ping'/>"), "result"),
    ] {
        let answers = client.ask(&stanza).await;
        let [answer] = answers.as_slice() else {
            panic!("{stanza}: {answers:?}");
        };
        assert_eq!(brief(answer), expected, "{stanza}");
        let from = stanza.split('\'').nth(5).expect("a sender");
        assert_eq!(answer.attr("to"), Some(from), "{stanza}");
        assert_eq!(
            (answer.attr("from"), answer.attr("id")),
            (None, Some("i1")),
            "{stanza}"
        );
        let is_stranger = expected == UNAVAILABLE && !from.starts_with(&format!("{RELAY}/"));
        if is_stranger {
            assert_eq!(
                answer.children().count(),
                1,
                "nothing is given back: {answer:?}"
            );
        }
    }
    for silent in [
        iq("result", ROMEO, ""),
        iq("error", "romeo@example.org/phone", ""),
        format!("<message from='{ROMEO}' to='{NODE}'><body>x</body></message>"),
        format!("<presence from='{RELAY}' to='{NODE}'/>"),
    ] {
        assert_eq!(client.ask(&silent).await, [], "{silent}");
    }
}

/// To clients the relay's host is the service.
#[tokio::test]
async fn discovery_and_commands_name_the_relays_host() {
    let server = Server::new().await;
    let running = start(server.account());
    let mut client = server.log_in().await;
    let info = client.ask(&iq("get", ROMEO, INFO)).await;
    let text = String::from(&info[0]);
    assert!(text.contains("urn:xmpp:http:upload:0"), "{text}");
    let node = "http://jabber.org/protocol/commands";
    let items = format!("<query xmlns='http://jabber.org/protocol/disco#items' node='{node}'/>");
    let items = client.ask(&iq("get", ROMEO, &items)).await;
    let items: Vec<_> = items[0].children().flat_map(Element::children).collect();
    assert!(!items.is_empty());
    assert!(
        items.iter().all(|item| item.attr("jid") == Some(RELAY)),
        "{items:?}"
    );
    let streams = running.bench.service.streams().list();
    assert_eq!(streams[0].host, "slotd@localhost");
    assert_eq!(streams[0].n_up, 1);
}

#[tokio::test]
async fn the_relay_alone_sees_whether_we_are_there() {
    let server = Server::new().await;
    let _running = start(server.account());
    let mut client = server.log_in().await;
    let subscribe = |from: &str| format!("<presence type='subscribe' id='p' from='{from}'/>");
    for (from, expected) in [
        (RELAY, "subscribed"),
        ("romeo@example.org", "unsubscribed"),
        ("evil.example", "unsubscribed"),
        ("evil@upload.example.org", "unsubscribed"),
    ] {
        let answers = client.ask(&subscribe(from)).await;
        let [answer] = answers.as_slice() else {
            panic!("{from}: {answers:?}");
        };
        let told = ["type", "to", "id", "from"].map(|name| answer.attr(name));
        assert_eq!(told, [Some(expected), Some(from), Some("p"), None]);
    }
    for kind in [
        "unsubscribe",
        "unsubscribed",
        "error",
        "probe",
        "unavailable",
    ] {
        let stanza = format!("<presence type='{kind}' from='{RELAY}'/>");
        assert_eq!(client.ask(&stanza).await, [], "{kind}");
    }
}

/// First the relay is told; what it sent before it knows is still answered.
#[tokio::test]
async fn who_goes_says_so_first() {
    let server = Server::new().await;
    let Running {
        bench,
        stop,
        running,
    } = start(server.account());
    let mut client = server.log_in().await;
    bench.service.drain();
    client.read_until("type='unavailable'></presence>").await;
    let late = client.ask(&iq("get", ROMEO, REQUEST)).await;
    assert_eq!(
        brief(&late[0]),
        "error wait resource-constraint",
        "{late:?}"
    );
    stop.send(true).expect("it runs");
    client.read_until("</stream:stream>").await;
    client.send("</stream:stream>").await;
    timeout(PATIENCE, running)
        .await
        .expect("it ends")
        .expect("well");
}

/// Where somebody holds the resource, or takes it, the server makes another.
#[tokio::test]
async fn nodes_do_not_throw_each_other_out() {
    let server = Server::new().await;
    let _running = start(server.account());
    let mut client = server.authenticated().await;
    client.read_until("node-1").await;
    client.read_until("</iq>").await;
    let taken = "<iq type='error' id='bind'><error type='modify'>\
        <conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>";
    client.send(taken).await;
    let again = client.read_until("</iq>").await;
    assert!(!again.contains("resource"), "{again}");
    client.bound("slotd@localhost/made").await;
    client.greeted().await;
    client
        .send(&xmpp::stream_error("conflict", "replaced"))
        .await;
    let mut client = server.authenticated().await;
    let wish = client.read_until("</iq>").await;
    assert!(!wish.contains("resource"), "{wish}");
}

/// The password goes over TLS alone, and to nobody who cannot be trusted.
#[tokio::test]
async fn passwords_go_where_they_may() {
    let server = Server::new().await;
    let plain = "<mechanism>PLAIN</mechanism>";
    let tried = |account: Account| async move {
        let error = try_login(&Identity::Account(account)).await;
        error.expect_err("refused").to_string()
    };
    let unencrypted = async |account: Account| {
        let served = async {
            let mut client = server.accept().await;
            client.header().await;
            client.features(&offer(plain)).await;
            let mut rest = String::new();
            let _ = timeout(PATIENCE, client.io.read_to_string(&mut rest)).await;
            assert!(!rest.contains("<auth"), "{rest}");
        };
        tokio::join!(tried(account), served).0
    };
    let error = unencrypted(server.account()).await;
    assert!(error.contains("no encryption"), "{error}");
    assert!(error.contains("account.insecure"), "{error}");
    let insecure = Account {
        insecure: true,
        ..server.account()
    };
    let error = unencrypted(insecure).await;
    assert!(error.contains("over TLS"), "{error}");

    let stranger = Account {
        ca: None,
        ..server.account()
    };
    let served = async {
        let client = server.before_tls().await;
        assert!(server.acceptor.accept(client.io).await.is_err());
    };
    let (error, ()) = tokio::join!(tried(stranger), served);
    assert!(error.contains("account.ca"), "{error}");

    let refused = async {
        let mut client = server.encrypted(plain).await;
        client.read_until("</auth>").await;
        let failure =
            "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>";
        client.send(failure).await;
    };
    let (error, ()) = tokio::join!(tried(server.account()), refused);
    assert!(error.contains("account.jid"), "{error}");
    assert!(!error.contains(PASSWORD), "{error}");
}
