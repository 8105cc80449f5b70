//! A connection manager that does as it is told: for what a real one cannot be made to do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const PATIENCE: Duration = Duration::from_secs(20);

/// What happens to one request.
#[derive(Clone, Debug)]
pub enum Act {
    /// 200 with this.
    Say(String),
    /// The same once somebody lets it go.
    SayLater(String),
    /// Another status, and whatever else.
    Status(String),
    /// Closed without an answer.
    Close,
    /// Closed in the middle of an answer.
    Half,
    /// An answer without end.
    Flood,
    /// No answer.
    Hang,
    /// A challenge of SCRAM for whoever asked.
    Challenge,
}

/// It, and what it was sent.
pub struct Manager {
    pub port: u16,
    pub gate: Arc<Semaphore>,
    bodies: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Manager {
    /// Starts one that does this, request by request; after the last it does the last again.
    pub async fn start(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let bodies: Arc<Mutex<Vec<String>>> = Arc::default();
        let gate = Arc::new(Semaphore::new(0));
        let (noted, held) = (bodies.clone(), gate.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let one = serve(stream, acts.clone(), noted.clone(), held.clone());
                connections.spawn(one);
            }
        });
        Self {
            port,
            gate,
            bodies,
            _serving: serving,
        }
    }

    pub fn bodies(&self) -> Vec<String> {
        self.bodies.lock().expect("not poisoned").clone()
    }

    /// The bodies, once there are as many.
    pub async fn bodies_of(&self, n: usize) -> Vec<String> {
        self.bodies_when(|bodies| n <= bodies.len()).await
    }

    /// The bodies, once such a one is among them.
    pub async fn bodies_until(&self, is_it: impl Fn(&str) -> bool) -> Vec<String> {
        self.bodies_when(|bodies| bodies.iter().any(|body| is_it(body)))
            .await
    }

    async fn bodies_when(&self, is_so: impl Fn(&[String]) -> bool) -> Vec<String> {
        let there = async {
            while !is_so(&self.bodies()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let came = timeout(PATIENCE, there).await;
        assert!(came.is_ok(), "not all came: {:#?}", self.bodies());
        self.bodies()
    }
}

async fn serve(
    mut stream: TcpStream,
    acts: Vec<Act>,
    bodies: Arc<Mutex<Vec<String>>>,
    gate: Arc<Semaphore>,
) {
    while let Some(body) = request(&mut stream).await {
        let n = {
            let mut bodies = bodies.lock().expect("not poisoned");
            bodies.push(body.clone());
            bodies.len() - 1
        };
        let act = acts.get(n).or(acts.last()).expect("something to do");
        let said = match act {
            Act::Say(xml) => ok(xml),
            Act::SayLater(xml) => {
                gate.acquire().await.expect("open").forget();
                ok(xml)
            }
            Act::Status(head) => format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n"),
            Act::Close => return,
            Act::Half => {
                let half = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n<body xmlns='http:";
                let _ = stream.write_all(half.as_bytes()).await;
                return;
            }
            Act::Flood => return flood(stream).await,
            Act::Hang => return std::future::pending().await,
            Act::Challenge => ok(&answer("", &challenge(&body))),
        };
        if stream.write_all(said.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The next request's body.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            assert!(head.starts_with("POST /bosh HTTP/1.1\r\n"), "{head}");
            assert!(
                head.contains("\r\ncontent-type: text/xml; charset=utf-8"),
                "{head}"
            );
            let length = head.split("content-length: ").nth(1).expect("no chunks");
            let length: usize = length.lines().next()?.parse().expect("a number");
            if length <= body.len() {
                return Some(body.to_owned());
            }
        }
        let n_read = stream.read_buf(&mut bytes).await.ok()?;
        if n_read == 0 {
            return None;
        }
    }
}

async fn flood(mut stream: TcpStream) {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(4096));
    let mut sent = stream.write_all(head.as_bytes()).await;
    while sent.is_ok() {
        sent = stream.write_all(chunk.as_bytes()).await;
    }
}

fn ok(xml: &str) -> String {
    let length = xml.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{xml}")
}

/// An answer with these attributes and this content.
pub fn answer(attributes: &str, content: &str) -> String {
    format!("<body xmlns='http://jabber.org/protocol/httpbind' {attributes}>{content}</body>")
}

/// The answer to a request for a session.
pub fn created(sid: &str, mechanism: &str) -> String {
    let mechanisms =
        format!("<mechanisms xmlns='{SASL}'><mechanism>{mechanism}</mechanism></mechanisms>");
    let attributes = format!("sid='{sid}' wait='60' hold='1' inactivity='30'");
    answer(&attributes, &features(&mechanisms))
}

pub fn features(content: &str) -> String {
    let stream = "http://etherx.jabber.org/streams";
    format!("<stream:features xmlns:stream='{stream}'>{content}</stream:features>")
}

pub fn success(data: &str) -> String {
    let data = STANDARD.encode(data);
    answer("", &format!("<success xmlns='{SASL}'>{data}</success>"))
}

pub fn failure(condition: &str) -> String {
    answer(
        "",
        &format!("<failure xmlns='{SASL}'><{condition}/></failure>"),
    )
}

/// The offer of a resource.
pub fn offer() -> String {
    answer(
        "",
        &features("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"),
    )
}

/// The resource that is asked for first.
pub fn bound(jid: &str) -> String {
    let bind = "urn:ietf:params:xml:ns:xmpp-bind";
    answer(
        "",
        &format!(
            "<iq xmlns='jabber:client' type='result' id='warm-bind'>\
         <bind xmlns='{bind}'><jid>{jid}</jid></bind></iq>"
        ),
    )
}

pub fn refused(condition: &str) -> String {
    let stanzas = "urn:ietf:params:xml:ns:xmpp-stanzas";
    answer(
        "",
        &format!(
            "<iq xmlns='jabber:client' type='error' id='warm-bind'>\
         <error type='cancel'><{condition} xmlns='{stanzas}'/></error></iq>"
        ),
    )
}

fn challenge(body: &str) -> String {
    let inside = body.split("</auth>").next().unwrap_or_default();
    let data = inside.rsplit('>').next().unwrap_or_default();
    let first = STANDARD.decode(data).expect("base64");
    let first = String::from_utf8(first).expect("UTF-8");
    let nonce = first.rsplit("r=").next().expect("a nonce");
    let challenge = STANDARD.encode(format!("r={nonce}server,s=QSXCR+Q6sek8bf92,i=4096"));
    format!("<challenge xmlns='{SASL}'>{challenge}</challenge>")
}
