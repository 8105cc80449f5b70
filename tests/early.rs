//! Interim responses between a request and its answer, byte for byte, and connections that are cut.

mod support;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use slotd::config::Tls;
use slotd::http::Origin;
use slotd::http::connection::{Connection, Cut, Rules};
use slotd::http::early::{CutOff, Early};
use slotd::http::tls::Reloader;
use support::world::settings;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex,
};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::{TlsConnector, rustls};

/// How long something may take before the test says that it does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service that does what the request's path says, a letter a step:
///
/// * `s` sends an interim response, `t` has another task send it, `T` waits for that task too
/// * `y` lets the connection's task go on, `g` waits until the test opens the gate
/// * `f` reads a piece of the body, `b` all of it
/// * `k` keeps the handle, `l` sends with the one kept
/// * `c` cuts the connection in place of an answer
///
/// Steps behind `a` are taken beside and after the answer.
#[derive(Clone)]
struct Scripts {
    gate: Arc<Semaphore>,
    kept: Arc<Mutex<Option<Early>>>,
    n_answered: Arc<AtomicUsize>,
}

impl Scripts {
    fn new() -> Self {
        Self {
            gate: Arc::new(Semaphore::new(0)),
            kept: Arc::default(),
            n_answered: Arc::default(),
        }
    }

    fn router(&self) -> Router {
        let scripts = self.clone();
        Router::new().fallback(move |request| scripts.clone().answer(request))
    }

    async fn answer(self, request: Request) -> Response {
        self.n_answered.fetch_add(1, Ordering::Relaxed);
        let (head, body) = request.into_parts();
        let path = head.uri.path().trim_start_matches('/').to_owned();
        let (script, name) = path.split_once('/').unwrap_or((&path, ""));
        let (before, after) = script.split_once('a').unwrap_or((script, ""));
        let mut acting = Acting {
            scripts: self,
            early: head.extensions.get().cloned(),
            body,
            name: name.to_owned(),
            n_sent: 0,
            n_bytes: 0,
            is_cut: false,
        };
        acting.act(before).await;
        let unheard = match acting.early {
            Some(_) => "",
            None => ", unheard",
        };
        let text = format!("{name} got {}{unheard}", acting.n_bytes);
        let is_cut = acting.is_cut;
        if !after.is_empty() {
            let after = after.to_owned();
            tokio::spawn(async move { acting.act(&after).await });
        }
        let mut response = Response::new(Body::from(text));
        response
            .headers_mut()
            .insert("date", http::HeaderValue::from_static("today"));
        if is_cut {
            response.extensions_mut().insert(CutOff);
        }
        response
    }
}

struct Acting {
    scripts: Scripts,
    early: Option<Early>,
    body: Body,
    name: String,
    n_sent: u32,
    n_bytes: usize,
    is_cut: bool,
}

impl Acting {
    async fn act(&mut self, script: &str) {
        for step in script.chars() {
            match step {
                's' => self.send(),
                't' => drop(self.send_elsewhere()),
                'T' => self.send_elsewhere().await.expect("sent"),
                'y' => tokio::task::yield_now().await,
                'g' => self.scripts.gate.acquire().await.expect("open").forget(),
                'f' => self.n_bytes += self.frame().await.unwrap_or(0),
                'b' => {
                    while let Some(n) = self.frame().await {
                        self.n_bytes += n;
                    }
                }
                'k' => *self.scripts.kept.lock().expect("no panic") = self.early.clone(),
                'l' => {
                    let kept = self.scripts.kept.lock().expect("no panic").clone();
                    kept.expect("a handle kept").send(LATE.into());
                }
                'c' => self.is_cut = true,
                _ => panic!("no such step: {step}"),
            }
        }
    }

    fn send(&mut self) {
        if let Some(early) = &self.early {
            self.n_sent += 1;
            early.send(interim(&self.name, self.n_sent).into());
        }
    }

    fn send_elsewhere(&mut self) -> tokio::task::JoinHandle<()> {
        self.n_sent += 1;
        let head = interim(&self.name, self.n_sent);
        let early = self.early.clone();
        tokio::spawn(async move {
            if let Some(early) = early {
                early.send(head.into());
            }
        })
    }

    async fn frame(&mut self) -> Option<usize> {
        let frame = self.body.frame().await?.ok()?;
        Some(frame.into_data().map_or(0, |data| data.len()))
    }
}

const LATE: &str = "HTTP/1.1 104 Late\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

fn interim(name: &str, n: u32) -> String {
    format!("HTTP/1.1 104 Upload Resumption Supported\r\nlocation: /{name}/{n}\r\n\r\n")
}

fn answer(name: &str, n_bytes: usize) -> String {
    let text = format!("{name} got {n_bytes}");
    let length = text.len();
    format!("HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: {length}\r\n\r\n{text}")
}

/// A request with a body of `n_bytes`.
fn put(script: &str, name: &str, fields: &str, n_bytes: usize) -> String {
    let length = format!("Content-Length: {n_bytes}\r\n");
    let body = "x".repeat(n_bytes);
    format!("PUT /{script}/{name} HTTP/1.1\r\nHost: a\r\n{length}{fields}\r\n{body}")
}

/// A connection as a test sees it.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<I: AsyncRead + AsyncWrite + Unpin + Send> Stream for I {}

/// A pipe that takes and gives a few bytes at a time.
struct Pipe(DuplexStream);

impl Cut for Pipe {
    fn cut(&self) {}
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Serves a connection until it ends.
fn serve<I>(scripts: &Scripts, io: I)
where
    I: AsyncRead + AsyncWrite + Cut + Unpin + Send + 'static,
{
    let (stop, shutdown) = watch::channel(false);
    let connection = Connection {
        router: scripts.router(),
        origin: Origin {
            peer: None,
            local: None,
        },
        shutdown,
    };
    let io = Rules::of(&settings()).pace(io);
    tokio::spawn(async move {
        if let Some(mut io) = connection.run(io).await {
            let _ = io.shutdown().await;
        }
        drop(stop);
    });
}

/// Listens as `Hall` does, with a send buffer of `buffer_bytes` where that is said.
fn listen(scripts: &Scripts, buffer_bytes: Option<u32>) -> SocketAddr {
    let socket = TcpSocket::new_v4().expect("a socket");
    if let Some(size) = buffer_bytes {
        socket.set_send_buffer_size(size).expect("a socket option");
    }
    socket.bind(([127, 0, 0, 1], 0).into()).expect("bound");
    let listener: TcpListener = socket.listen(16).expect("listening");
    let address = listener.local_addr().expect("an address");
    let scripts = scripts.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("a socket option");
            serve(&scripts, stream);
        }
    });
    address
}

async fn tcp(scripts: &Scripts) -> TcpStream {
    let address = listen(scripts, None);
    TcpStream::connect(address).await.expect("connected")
}

async fn tls(scripts: &Scripts) -> Box<dyn Stream> {
    let dir = tempfile::tempdir().expect("a directory");
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a pair");
    let files = Tls {
        certificate: dir.path().join("tls.crt"),
        key: dir.path().join("tls.key"),
    };
    std::fs::write(&files.certificate, pair.cert.pem()).expect("written");
    std::fs::write(&files.key, pair.signing_key.serialize_pem()).expect("written");
    let reloader = Reloader::open(&files).expect("a pair");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let scripts = scripts.clone();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let stream = reloader.accept(stream).await.expect("a handshake");
        serve(&scripts, stream);
    });
    let mut roots = rustls::RootCertStore::empty();
    let certificate = CertificateDer::from(pair.cert.der().to_vec());
    roots.add(certificate).expect("a certificate");
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ));
    let config = config.with_safe_default_protocol_versions();
    let config = config.expect("versions").with_root_certificates(roots);
    let connector = TlsConnector::from(Arc::new(config.with_no_client_auth()));
    let name = "localhost".try_into().expect("a name");
    let stream = TcpStream::connect(address).await.expect("connected");
    Box::new(connector.connect(name, stream).await.expect("a handshake"))
}

/// One connection of each kind.
async fn all_kinds(scripts: &Scripts) -> Vec<(&'static str, Box<dyn Stream>)> {
    let (near, far) = UnixStream::pair().expect("a pair");
    serve(scripts, far);
    let (thin, other) = duplex(7);
    serve(scripts, Pipe(other));
    vec![
        ("TCP", Box::new(tcp(scripts).await)),
        ("Unix", Box::new(near)),
        ("TLS", tls(scripts).await),
        ("a pipe of 7 bytes", Box::new(thin)),
    ]
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), text: &str) {
    let sent = timeout(PATIENCE, stream.write_all(text.as_bytes())).await;
    sent.expect("somebody reads").expect("sent");
}

/// Reads as many bytes as are expected; they must be these.
async fn expect(stream: &mut (impl AsyncRead + Unpin), text: &str, why: &str) {
    let mut bytes = vec![0; text.len()];
    let mut n = 0;
    while n < bytes.len() {
        let read = timeout(PATIENCE, stream.read(&mut bytes[n..])).await;
        let came = String::from_utf8_lossy(&bytes[..n]).into_owned();
        match read.unwrap_or_else(|_| panic!("{why}: nothing after {came:?}")) {
            Ok(0) | Err(_) => panic!("{why}: the end after {came:?}"),
            Ok(more) => n += more,
        }
    }
    assert_eq!(String::from_utf8_lossy(&bytes), text, "{why}");
}

/// Reads to the end of the connection; nothing may come.
async fn expect_end(stream: &mut (impl AsyncRead + Unpin), why: &str) {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    read.expect("closed in time").expect("closed in order");
    assert_eq!(String::from_utf8_lossy(&bytes), "", "{why}");
}

/// Steps of a dialogue: what is sent, and what comes back.
type Dialogue<'a> = &'a [(&'a str, &'a str)];

/// A dialogue on a connection of each kind, which still works in the end.
async fn check(dialogue: Dialogue<'_>) {
    for (kind, stream) in all_kinds(&Scripts::new()).await {
        check_on(stream, dialogue, kind).await;
    }
}

async fn check_on(mut stream: Box<dyn Stream>, dialogue: Dialogue<'_>, kind: &str) {
    let last = put("sb", "last", "", 9);
    let expected = interim("last", 1) + &answer("last", 9);
    for (sent, received) in dialogue.iter().chain([&(&*last, &*expected)]) {
        send(&mut stream, sent).await;
        expect(&mut stream, received, &format!("{kind}: {sent:?}")).await;
    }
    stream.shutdown().await.expect("half closed");
    expect_end(&mut stream, kind).await;
}

/// With room for whatever is written at once.
async fn check_in_one_go(dialogue: Dialogue<'_>) {
    let (near, far) = duplex(1 << 16);
    serve(&Scripts::new(), Pipe(far));
    check_on(Box::new(near), dialogue, "a wide pipe").await;
}

#[tokio::test]
async fn before_the_body_and_with_it() {
    let request = put("sb", "n", "", 500);
    let (head, body) = request.split_at(request.len() - 500);
    check(&[(head, &interim("n", 1)), (body, &answer("n", 500))]).await;
    let both = interim("n", 1) + &answer("n", 500);
    // Head and body in one segment, and a service that waits for nothing.
    for script in ["sb", "bs", "Tb", "sab"] {
        let n_bytes = 500 * usize::from(!script.contains('a'));
        let both = interim("n", 1) + &answer("n", n_bytes);
        check(&[(&put(script, "n", "", n_bytes), &both)]).await;
    }
    check(&[(&request, &both), (&request, &both), (&request, &both)]).await;
}

#[tokio::test]
async fn beside_100_continue() {
    let request = |script| {
        let request = put(script, "n", "Expect: 100-continue\r\n", 0);
        request.replace("Length: 0", "Length: 3")
    };
    let both = interim("n", 1) + CONTINUE;
    check(&[(&request("sb"), &both), ("abc", &answer("n", 3))]).await;
    check(&[(&request("syb"), &both), ("abc", &answer("n", 3))]).await;
    // The body is asked for before the head is sent.
    let rest = interim("n", 1) + &answer("n", 3);
    check(&[(&request("fsb"), CONTINUE), ("abc", &rest)]).await;
    let three = interim("n", 1) + &interim("n", 2) + &interim("n", 3) + CONTINUE;
    let dialogue = &[(&*request("sysysb"), &*three), ("abc", &answer("n", 3))];
    check_in_one_go(dialogue).await;
}

#[tokio::test]
async fn chunked_bodies() {
    let request = put("sfsb", "n", "", 0);
    let head = request.replace("Content-Length: 0", "Transfer-Encoding: chunked");
    for (kind, mut stream) in all_kinds(&Scripts::new()).await {
        for (sent, received) in [
            (&*head, interim("n", 1)),
            ("3\r\nabc\r\n", interim("n", 2)),
            ("4\r\ndefg\r\n0\r\n\r\n", answer("n", 7)),
        ] {
            send(&mut stream, sent).await;
            expect(&mut stream, &received, kind).await;
        }
    }
}

/// One request with a head of its own, which gets an answer that knows of no handle.
async fn check_unheard(request: &str) {
    for (kind, mut stream) in all_kinds(&Scripts::new()).await {
        send(&mut stream, request).await;
        stream.shutdown().await.expect("half closed");
        let mut text = String::new();
        let read = timeout(PATIENCE, stream.read_to_string(&mut text)).await;
        read.expect("closed in time").expect("closed in order");
        assert_eq!(text.matches("HTTP/1.").count(), 1, "{kind}: {text}");
        assert!(text.ends_with(", unheard"), "{kind}: {text}");
    }
}

#[tokio::test]
async fn http_1_0_and_refused_heads_get_none() {
    let request = put("sysysb", "n", "Connection: keep-alive\r\n", 3);
    check_unheard(&request.replace("HTTP/1.1", "HTTP/1.0")).await;
    check_unheard("PUT /s HTTP/1.1\r\nX : y\r\n\r\n").await;
}

#[tokio::test]
async fn one_at_a_time() {
    // The second finds the first unwritten; the third does not, for the connection had its turn.
    let expected = interim("n", 1) + &interim("n", 3) + &answer("n", 3);
    check_in_one_go(&[(&put("ssysb", "n", "", 3), &expected)]).await;
}

#[tokio::test]
async fn never_after_the_answer_began() {
    // The steps behind `a` are taken while the answer is written, and after it.
    let once = interim("n", 1) + &answer("n", 0);
    let next = (&*put("yyyb", "m", "", 2), &*answer("m", 2));
    check(&[(&put("saststTsys", "n", "", 0), &once), next]).await;
    // Nor in the next request's time.
    check(&[
        (&put("k", "n", "", 0), &answer("n", 0)),
        (
            &put("lylTlb", "m", "", 2),
            &(interim("m", 1) + &answer("m", 2)),
        ),
    ])
    .await;
}

#[tokio::test]
async fn hyper_is_woken_where_it_only_reads() {
    let scripts = Scripts::new();
    let request = put("gsgTb", "n", "", 5);
    let (head, body) = request.split_at(request.len() - 5);
    for (kind, mut stream) in all_kinds(&scripts).await {
        send(&mut stream, head).await;
        for n in 1..3 {
            // Whether the service waits by now or will: the body is not here, so hyper reads.
            scripts.gate.add_permits(1);
            expect(&mut stream, &interim("n", n), kind).await;
        }
        send(&mut stream, body).await;
        expect(&mut stream, &answer("n", 5), kind).await;
    }
}

#[tokio::test]
async fn another_task_sends_while_hyper_waits_for_the_body() {
    let scripts = Scripts::new();
    let (mut near, far) = duplex(1 << 16);
    serve(&scripts, Pipe(far));
    let request = put("kfb", "n", "", 5);
    let (head, body) = request.split_at(request.len() - 5);
    send(&mut near, head).await;
    let early = loop {
        let kept = scripts.kept.lock().expect("no panic").take();
        match kept {
            Some(early) => break early,
            None => tokio::task::yield_now().await,
        }
    };
    for _ in 0..3 {
        early.send(LATE.into());
        expect(&mut near, LATE, "from another task").await;
    }
    send(&mut near, body).await;
    expect(&mut near, &answer("n", 5), "the body").await;
    early.send(LATE.into());
    near.shutdown().await.expect("half closed");
    expect_end(&mut near, "after the answer").await;
    early.send(LATE.into());
}

const REQUESTS: usize = 10_000;
const BUFFER_BYTES: u32 = 64 * 1024;

#[tokio::test]
async fn ten_thousand_requests_on_one_connection() {
    let mut stream = tcp(&Scripts::new()).await;
    let scripts = ["sb", "bs", "fsb", "sfb", "b", "saTst", "syb", "bsas"];
    for n in 0..REQUESTS {
        let script = scripts[n % scripts.len()];
        let name = n.to_string();
        let n_bytes = match script.contains('b') {
            true => n % 97,
            false => 0,
        };
        send(&mut stream, &put(script, &name, "", n_bytes)).await;
        let early = match script {
            "b" => String::new(),
            _ => interim(&name, 1),
        };
        expect(&mut stream, &(early + &answer(&name, n_bytes)), script).await;
    }
    stream.shutdown().await.expect("half closed");
    expect_end(&mut stream, "all are answered").await;
}

#[tokio::test]
async fn pipelined_requests_of_a_client_that_does_not_read() {
    // Buffers that do not hold it all, so that answers are written in parts.
    let scripts = Scripts::new();
    let address = listen(&scripts, Some(BUFFER_BYTES));
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .set_recv_buffer_size(BUFFER_BYTES)
        .expect("a socket option");
    let stream = socket.connect(address).await.expect("connected");
    let (mut reading, mut writing) = stream.into_split();
    tokio::spawn(async move {
        let requests = (0..REQUESTS).map(|n| put("s", &n.to_string(), "", 0));
        send(&mut writing, &requests.collect::<String>()).await;
        writing.shutdown().await.expect("half closed");
    });
    let mut n_before = usize::MAX;
    while n_before != scripts.n_answered.load(Ordering::Relaxed) {
        n_before = scripts.n_answered.load(Ordering::Relaxed);
        sleep(Duration::from_millis(100)).await;
    }
    assert!((1..REQUESTS).contains(&n_before), "it must get stuck");
    for n in 0..REQUESTS {
        let name = n.to_string();
        let expected = interim(&name, 1) + &answer(&name, 0);
        expect(&mut reading, &expected, "pipelined").await;
    }
    expect_end(&mut reading, "all are answered").await;
}

#[tokio::test]
async fn cut_connections_are_reset() {
    // All that was announced is read: an orderly end would look like one.
    for (script, n_bytes) in [("gfc", 10), ("gbc", 10), ("gc", 0), ("gsbc", 10)] {
        let scripts = Scripts::new();
        for (kind, mut stream) in all_kinds(&scripts).await {
            send(&mut stream, &put("sb", "n", "", 5)).await;
            let first = interim("n", 1) + &answer("n", 5);
            expect(&mut stream, &first, kind).await;
            send(&mut stream, &put(script, "m", "", n_bytes)).await;
            scripts.gate.add_permits(1);
            let mut came = Vec::new();
            let read = timeout(PATIENCE, stream.read_to_end(&mut came)).await;
            let read = read.expect("ended").map_err(|e| e.kind());
            let came = String::from_utf8_lossy(&came);
            assert!(!came.contains("HTTP/1.1 200"), "{kind}: {came}");
            if ["TCP", "TLS"].contains(&kind) {
                assert_eq!(read, Err(io::ErrorKind::ConnectionReset), "{kind} {script}");
            }
        }
    }
}

/// What a request does, and what its client says.
#[derive(Clone, Debug)]
struct Plan {
    before: String,
    after: String,
    n_bytes: usize,
    expects_continue: bool,
}

fn plan() -> impl Strategy<Value = Plan> {
    ("[stTyf]{0,6}", "[stTyl]{0,4}", 0usize..60, any::<bool>()).prop_map(
        |(before, after, n_bytes, expects_continue)| Plan {
            before,
            after,
            n_bytes,
            expects_continue,
        },
    )
}

impl Plan {
    fn request(&self, n: usize) -> String {
        // The first handle is kept, and tried by all requests after it.
        let first = ["k", "l"][n.min(1)];
        let script = format!("{first}{}ba{}", self.before, self.after);
        let fields = match self.expects_continue {
            true => "Expect: 100-continue\r\n",
            false => "",
        };
        put(&script, &n.to_string(), fields, self.n_bytes)
    }

    /// Takes this request's answer and what came before it off `text`.
    fn take<'a>(&self, n: usize, mut text: &'a str) -> Result<&'a str, TestCaseError> {
        let (name, mut n_continues) = (n.to_string(), 0);
        // Tasks race, so any order will do.
        let n_sends = self.before.matches(['s', 't', 'T']).count() as u32;
        let mut left: Vec<_> = (1..=n_sends).collect();
        loop {
            if let Some(rest) = text.strip_prefix(&answer(&name, self.n_bytes)) {
                prop_assert!(n_continues <= usize::from(self.expects_continue && self.n_bytes > 0));
                return Ok(rest);
            }
            if let Some(rest) = text.strip_prefix(CONTINUE) {
                n_continues += 1;
                text = rest;
                continue;
            }
            let next = left
                .iter()
                .position(|k| text.starts_with(&interim(&name, *k)));
            if let Some(at) = next {
                text = &text[interim(&name, left.remove(at)).len()..];
                continue;
            }
            return Err(TestCaseError::fail(format!("request {n}: {text:?}")));
        }
    }
}

/// All that comes back, from a service on threads of its own.
async fn converse(plans: &[Plan], pipe_bytes: usize, is_pipelined: bool) -> String {
    let (near, far) = duplex(pipe_bytes);
    serve(&Scripts::new(), Pipe(far));
    let (mut reading, mut writing) = tokio::io::split(near);
    let mut came = String::new();
    let requests = plans.iter().enumerate().map(|(n, plan)| plan.request(n));
    let requests: Vec<_> = requests.collect();
    if is_pipelined {
        let write = async {
            send(&mut writing, &requests.concat()).await;
            writing.shutdown().await.expect("half closed");
        };
        let read = timeout(PATIENCE, reading.read_to_string(&mut came));
        let ((), read) = tokio::join!(write, read);
        read.expect("closed in time").expect("closed in order");
        return came;
    }
    for (n, request) in requests.iter().enumerate() {
        let end = format!("{n} got {}", plans[n].n_bytes);
        let read = async {
            while !came.ends_with(&end) {
                came.push(char::from(reading.read_u8().await.expect("answered")));
            }
        };
        let both = async { tokio::join!(send(&mut writing, request), read) };
        timeout(PATIENCE, both).await.expect("answered in time");
    }
    writing.shutdown().await.expect("half closed");
    let read = timeout(PATIENCE, reading.read_to_string(&mut came)).await;
    read.expect("closed in time").expect("closed in order");
    came
}

proptest! {
    #[test]
    fn whatever_the_timing_answers_stay_whole_and_in_order(
        plans in proptest::collection::vec(plan(), 1..8),
        pipe_bytes in 1usize..300,
        is_pipelined: bool,
    ) {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_time().build().expect("a runtime");
        let came = runtime.block_on(converse(&plans, pipe_bytes, is_pipelined));
        let mut text = &*came;
        for (n, plan) in plans.iter().enumerate() {
            text = plan.take(n, text)?;
        }
        prop_assert_eq!(text, "");
    }
}
