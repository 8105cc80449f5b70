//! Bytes on real sockets and what comes back: framing, limits, early answers, stopping.

mod support;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use slotd::config::{Http, Listen, Tls};
use slotd::http::listen::Listeners;
use slotd::store::Stored;
use support::site::{self, SIZE, Site, TestSlot, content};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::{TlsConnector, rustls};

/// How long an answer may take before the test says that there is none.
const PATIENCE: Duration = Duration::from_secs(20);

/// A site that listens.
struct Front {
    site: Site,
    address: SocketAddr,
    shutdown: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Front {
    async fn new() -> Self {
        Self::with(Site::new(), site::http())
    }

    fn with(site: Site, http: Http) -> Self {
        let listeners = Listeners::bind(&http).expect("bound");
        let address = listeners.addresses().first().copied();
        let (shutdown, stopping) = watch::channel(false);
        let service = site.0.service.clone();
        let serving = tokio::spawn(async move {
            listeners.serve(&http, service, stopping).await;
        });
        Self {
            site,
            address: address.unwrap_or(([0, 0, 0, 0], 0).into()),
            shutdown,
            serving,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connected")
    }

    /// All that comes back on a connection of its own.
    async fn ask(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        send(&mut stream, bytes).await;
        read_all(&mut stream).await
    }

    async fn put(&self, slot: &TestSlot) -> String {
        let mut bytes = put_head(slot, "Content-Length: 1000\r\nConnection: close\r\n");
        bytes.extend(content(SIZE));
        self.ask(&bytes).await
    }

    async fn get(&self, slot: &TestSlot) -> String {
        let head = format!(
            "GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            slot.path
        );
        self.ask(head.as_bytes()).await
    }

    /// Nothing is published, and the slot's owner can still upload.
    async fn check_usable(&self, slot: &TestSlot, why: &str) {
        let stored = self
            .site
            .0
            .stores
            .files
            .find(slot.id)
            .await
            .expect("readable");
        let is_file = |stored: &Stored| matches!(stored, Stored::File { .. });
        assert!(!stored.iter().any(is_file), "published: {why}");
        assert_eq!(statuses(&self.get(slot).await), [404], "{why}");
        assert_eq!(statuses(&self.put(slot).await), [201], "{why}");
        assert_eq!(statuses(&self.get(slot).await), [200], "{why}");
    }
}

/// Writes what the other side still takes.
async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    let sent = timeout(PATIENCE, stream.write_all(bytes)).await;
    let sent = sent.expect("somebody reads");
    assert!(
        sent.is_ok(),
        "the other side must read on until it has answered: {sent:?}"
    );
}

async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> String {
    read_all_for(stream, PATIENCE).await
}

async fn read_all_for(stream: &mut (impl AsyncRead + Unpin), patience: Duration) -> String {
    let mut bytes = Vec::new();
    let read = timeout(patience, stream.read_to_end(&mut bytes)).await;
    read.expect("closed in time").expect("closed in order");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads up to the end of the next answer's head.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let byte = timeout(PATIENCE, stream.read_u8()).await;
        bytes.push(byte.expect("answered in time").expect("answered"));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The statuses of all answers in `text`.
fn statuses(text: &str) -> Vec<u16> {
    let after = |part: &str| part.get(..3).and_then(|status| status.parse().ok());
    text.split("HTTP/1.1 ").skip(1).filter_map(after).collect()
}

fn put_head(slot: &TestSlot, fields: &str) -> Vec<u8> {
    let path = slot.put_path();
    format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").into_bytes()
}

/// A row: what is sent (`{P}` and `{T}` are the slot's path and token), the one status that comes
/// back before the connection is closed.
async fn check_refused(text: &str, status: u16) {
    check_bytes_refused(text.as_bytes(), status).await;
}

async fn check_bytes_refused(template: &[u8], status: u16) {
    let front = Front::new().await;
    let slot = front.site.slot().await;
    let before = front.site.trace(&slot).await;
    let bytes = fill(template, &slot);
    let why = String::from_utf8_lossy(&template[..template.len().min(200)]).into_owned();
    let answer = front.ask(&bytes).await;
    assert_eq!(statuses(&answer), [status], "{why:?} got {answer}");
    assert!(answer.contains("connection: close"), "{why:?} got {answer}");
    assert!(answer.contains("access-control-allow-origin: *"), "{why:?}");
    assert_eq!(front.site.trace(&slot).await, before, "{why:?}");
    front.check_usable(&slot, &why).await;
}

fn fill(template: &[u8], slot: &TestSlot) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = template;
    while let Some((first, after)) = rest.split_first() {
        rest = if let Some(after) = rest.strip_prefix(b"{P}") {
            bytes.extend(slot.path.as_bytes());
            after
        } else if let Some(after) = rest.strip_prefix(b"{T}") {
            bytes.extend(slot.token.as_bytes());
            after
        } else {
            bytes.push(*first);
            after
        };
    }
    bytes
}

/// A PUT with the slot's token, these fields and this body.
async fn check_put_refused(fields: &str, body: &str, status: u16) {
    let text = format!("PUT {{P}}?t={{T}} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}");
    check_refused(&text, status).await;
}

#[tokio::test]
async fn early_answers_reach_a_client_that_first_sends_all() {
    let front = Front::new().await;
    let slot = front.site.slot().await;
    let body = vec![7; 20 << 20];
    for (path, status) in [
        (slot.put_path(), 413),
        (slot.path.clone(), 401),
        (format!("{}?t=x", slot.path), 401),
        ("/up/f/x/a".to_owned(), 404),
    ] {
        let length = body.len();
        let head =
            format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        let mut stream = front.connect().await;
        send(&mut stream, head.as_bytes()).await;
        send(&mut stream, &body).await;
        let answer = read_all(&mut stream).await;
        assert_eq!(statuses(&answer), [status]);
        assert!(answer.contains("connection: close"));
    }
    front.check_usable(&slot, "early answers").await;
}

#[tokio::test]
async fn h06_bodies_that_break_off() {
    for is_reset in [false, true] {
        let front = Front::new().await;
        let slot = front.site.slot().await;
        let mut stream = front.connect().await;
        let mut bytes = put_head(&slot, "Content-Length: 1000\r\n");
        bytes.extend(&content(SIZE)[..600]);
        send(&mut stream, &bytes).await;
        let part_of = async |size| loop {
            let (_, stored) = front.site.trace(&slot).await;
            let length = |stored: &Stored| match stored {
                Stored::Part { size_bytes, .. } => Some(*size_bytes),
                Stored::File { .. } => None,
            };
            if stored.iter().find_map(length) == Some(size) {
                break;
            }
            tokio::task::yield_now().await;
        };
        if is_reset {
            timeout(PATIENCE, part_of(600))
                .await
                .expect("the bytes arrive");
            stream.set_zero_linger().expect("a socket option");
            drop(stream);
        } else {
            stream.shutdown().await.expect("half closed");
            assert_eq!(statuses(&read_all(&mut stream).await), [400]);
        }
        timeout(PATIENCE, part_of(600))
            .await
            .expect("the part is kept");
        front.check_usable(&slot, "a broken body").await;
    }
}

#[tokio::test]
async fn h07_chunks() {
    let front = Front::new().await;
    let slot = front.site.slot().await;
    let mut bytes = put_head(&slot, "Transfer-Encoding: Chunked\r\nTrailer: X\r\n");
    for piece in content(SIZE).chunks(300) {
        bytes.extend(format!("{:X};name=value\r\n", piece.len()).bytes());
        bytes.extend(piece);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\nX: y\r\n\r\n");
    let answer = front.ask(&bytes).await;
    assert_eq!(statuses(&answer), [201]);
    assert!(answer.contains("connection: close"));
    assert_eq!(statuses(&front.get(&slot).await), [200]);
}

/// What comes after the head changes the slot's row, but publishes nothing; `kept` bytes of it
/// stay as the slot's prefix.
async fn check_body_refused(body: &[u8], status: u16, kept: u64) {
    let front = Front::new().await;
    let slot = front.site.slot().await;
    let mut bytes = put_head(&slot, "Transfer-Encoding: chunked\r\n");
    bytes.extend(body);
    let answer = front.ask(&bytes).await;
    let why = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
    assert_eq!(statuses(&answer), [status], "{why}");
    assert!(answer.contains("connection: close"));
    let (_, stored) = front.site.trace(&slot).await;
    let size_of = |stored: &Stored| match stored {
        Stored::Part { size_bytes, .. } | Stored::File { size_bytes, .. } => *size_bytes,
    };
    assert_eq!(stored.iter().map(size_of).sum::<u64>(), kept, "{why}");
    front.check_usable(&slot, &why).await;
}

#[tokio::test]
async fn h08_h09_h15_bad_chunks() {
    let short = [b"3e7\r\n", &content(999)[..], b"\r\n0\r\n\r\n"].concat();
    check_body_refused(&short, 400, 999).await;
    let long = [b"3e9\r\n", &content(1001)[..], b"\r\n0\r\n\r\n"].concat();
    check_body_refused(&long, 413, 0).await;
    let endless = b"10\r\n0123456789abcdef\r\n".repeat(100_000);
    check_body_refused(&endless, 413, 0).await;
    check_body_refused(b"FFFFFFFFFFFFFFFFF\r\nx", 400, 0).await;
    check_body_refused(b"-1\r\nx", 400, 0).await;
    check_body_refused(b"\r\nx", 400, 0).await;
    check_body_refused(b"3e8\n", 400, 0).await;
    let extension = [b"1;", &vec![b'x'; 1 << 20][..], b"\r\n"].concat();
    check_body_refused(&extension, 400, 0).await;
    let whole = [b"3e8\r\n", &content(SIZE)[..], b"\r\n0\r\n"].concat();
    let trailers = [&whole[..], &b"X: y\r\n".repeat(11_000)].concat();
    check_body_refused(&trailers, 400, 1000).await;
}

#[tokio::test]
async fn h11_to_h13_transfer_codings() {
    let hidden = "0\r\n\r\nGET {P} HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (length, chunked) = ("Content-Length: 1000\r\n", "Transfer-Encoding: chunked\r\n");
    check_put_refused(&format!("{length}{chunked}"), hidden, 400).await;
    check_put_refused(&format!("{chunked}{length}"), hidden, 400).await;
    check_put_refused(
        "Content-Length: 5\r\ntransfer-encoding:chunked\r\n",
        hidden,
        400,
    )
    .await;
    let head = "PUT {P}?t={T} HTTP/1.0\r\nHost: localhost\r\n";
    check_refused(&format!("{head}{chunked}\r\n{hidden}"), 400).await;
    for (coding, status) in [
        ("gzip, chunked", 501),
        ("chunked, chunked", 501),
        ("identity", 501),
        ("xchunked", 501),
        ("chunked;q=1", 501),
        ("\"chunked\"", 501),
        ("", 501),
        ("chunked\x0b", 400),
        ("\x0bchunked", 400),
    ] {
        check_put_refused(&format!("Transfer-Encoding: {coding}\r\n"), hidden, status).await;
    }
    check_put_refused(&format!("{chunked}{chunked}"), hidden, 400).await;
    check_put_refused(
        &format!("{chunked}Transfer-Encoding: identity\r\n"),
        hidden,
        400,
    )
    .await;
}

#[tokio::test]
async fn h14_lengths() {
    for length in [
        "+1000",
        "-1",
        "1e3",
        "0x3e8",
        "1000, 1000",
        "1000, 999",
        "1000,",
        "9999999999999999999999999",
        "18446744073709551615",
        "9223372036854775808",
        "",
        "1 000",
        "1000;",
        "\u{661}",
    ] {
        check_put_refused(&format!("Content-Length: {length}\r\n"), "x", 400).await;
    }
    let two = "Content-Length: 1000\r\nContent-Length: 999\r\n";
    check_put_refused(two, "x", 400).await;
    let two = "Content-Length: 5\r\nContent-Length: 1000\r\n";
    check_put_refused(two, "x", 400).await;
    let front = Front::new().await;
    let slot = front.site.slot().await;
    let fields = "Content-Length: 1000\r\nContent-Length: 1000\r\nConnection: close\r\n";
    let equal = [put_head(&slot, fields), content(SIZE)].concat();
    assert_eq!(statuses(&front.ask(&equal).await), [201]);
}

#[tokio::test]
async fn h16_fields() {
    let sized = "Content-Length: 1000\r\n";
    for field in [
        "X: a\r\n b\r\n",
        "X: a\r\n\tb\r\n",
        " X: a\r\n",
        "X : a\r\n",
        "X\t: a\r\n",
        "X: a\0b\r\n",
        "X: a\rb\r\n",
        "X: a\x7fb\r\n",
        "X: a\x01b\r\n",
        "Gr\u{fc}\u{df}e: a\r\n",
        "X(y): a\r\n",
        ": a\r\n",
        "no colon\r\n",
        "X: a\n",
        "X: a\n\r\n",
        "X: a\r\r\n",
    ] {
        check_put_refused(&format!("{sized}{field}"), "x", 400).await;
        check_put_refused(&format!("{field}{sized}"), "x", 400).await;
    }
}

#[tokio::test]
async fn request_lines() {
    let rest = "\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx";
    for line in [
        "PUT\t{P}?t={T} HTTP/1.1",
        "PUT  {P}?t={T} HTTP/1.1",
        " PUT {P}?t={T} HTTP/1.1",
        "PUT {P}?t={T} HTTP/1.1 ",
        "PUT {P}?t={T} HTTP/1.2",
        "PUT {P}?t={T} HTTP/2.0",
        "PUT {P}?t={T} http/1.1",
        "PUT {P}?t={T} HTTP/1.1x",
        "PUT {P}?t={T}",
        "PUT {P}\0?t={T} HTTP/1.1",
        "PUT {P}#x?t={T} HTTP/1.1",
        "PUT {P}\u{fc}?t={T} HTTP/1.1",
        "PUT {P}?t={T}\" HTTP/1.1",
        "PUT {P}<?t={T} HTTP/1.1",
        "PUT {P}`?t={T} HTTP/1.1",
        "PUT http://[::1{P}?t={T} HTTP/1.1",
        "PUT localhost:80 HTTP/1.1",
        "PUT localhost{P} HTTP/1.1",
        "CONNECT localhost:80 HTTP/1.1",
        "P\u{dc}T {P}?t={T} HTTP/1.1",
        "(PUT) {P}?t={T} HTTP/1.1",
    ] {
        check_refused(&format!("{line}{rest}"), 400).await;
    }
    check_bytes_refused(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400).await;
    check_refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400).await;
    check_refused("GET {P} HTTP/1.1\nHost: localhost\n\n", 400).await;
}

#[tokio::test]
async fn h20_sizes() {
    let field = |n: usize| format!("X: {}\r\n", "y".repeat(n));
    check_put_refused(&field(17 << 10), "", 431).await;
    check_put_refused(&field(1000).repeat(17), "", 431).await;
    check_put_refused(&field(1 << 20), "", 431).await;
    check_put_refused(&field(1).repeat(100), "", 431).await;
    check_put_refused(&field(1).repeat(50_000), "", 431).await;
    let long = "a".repeat(9 << 10);
    check_refused(
        &format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        414,
    )
    .await;
    check_refused(
        &format!("GET {{P}}?{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        414,
    )
    .await;
    check_refused(&format!("GET /{}", "a".repeat(1 << 20)), 414).await;
    check_refused(&"a".repeat(1 << 20), 414).await;
    let front = Front::new().await;
    let fields = field(150).repeat(98);
    let target = "a".repeat(8 << 10);
    let head = format!(
        "GET {} HTTP/1.1\r\nHost: localhost\r\n{fields}Connection: close\r\n\r\n",
        &target[1..]
    );
    let large = head.replacen("GET ", "GET /", 1);
    assert_eq!(statuses(&front.ask(large.as_bytes()).await), [404]);
}

#[tokio::test]
async fn h17_h18_nothing_in_a_body_is_a_request() {
    let hidden = "GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let length = hidden.len();
    let sized = format!("Content-Length: {length}\r\n");
    let put =
        |fields: &str| format!("PUT {{P}}?t={{T}} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    let fields = format!("{sized}Connection: upgrade\r\nUpgrade: foo\r\n");
    // Too short for the slot: refused before the body is read.
    check_refused(&format!("{}{hidden}", put(&fields)), 400).await;
    check_refused(&format!("{}{hidden}", put(&sized)), 400).await;
    let other = format!("PUT {{P}}?t=x HTTP/1.1\r\nHost: localhost\r\n{sized}\r\n{hidden}");
    check_refused(&other, 401).await;
    let get = format!("GET {{P}} HTTP/1.1\r\nHost: localhost\r\n{sized}\r\n{hidden}");
    check_refused(&get, 404).await;
    let connect = format!("CONNECT {{P}} HTTP/1.1\r\nHost: localhost\r\n{sized}\r\n{hidden}");
    check_refused(&connect, 405).await;
    // H10: who leaves the length out may send a body all the same.
    check_refused(&format!("{}{hidden}", put("")), 411).await;
    let post = format!("POST {{P}} HTTP/1.1\r\nHost: localhost\r\n\r\n{hidden}");
    check_refused(&post, 405).await;
}

#[tokio::test]
async fn a_body_without_a_length_does_not_destroy_the_answer() {
    let front = Front::new().await;
    let slot = front.site.slot().await;
    let mut stream = front.connect().await;
    send(&mut stream, &put_head(&slot, "")).await;
    assert_eq!(statuses(&read_head(&mut stream).await), [411]);
    send(&mut stream, &content(SIZE)).await;
    stream.shutdown().await.expect("half closed");
    read_all(&mut stream).await;
    front.check_usable(&slot, "no length").await;
}

#[tokio::test]
async fn h19_hosts() {
    let sized = "Content-Length: 1000\r\n";
    for fields in ["", "Host: localhost\r\nHost: localhost\r\n", "Host:\r\n"] {
        let text = format!("PUT {{P}}?t={{T}} HTTP/1.1\r\n{fields}{sized}\r\nx");
        check_refused(&text, 400).await;
    }
    for (target, host) in [
        ("", "other.example"),
        ("http://other.example", "localhost"),
        ("https://other.example:443", "localhost"),
    ] {
        let line = format!("PUT {target}{{P}}?t={{T}} HTTP/1.1");
        check_refused(&format!("{line}\r\nHost: {host}\r\n{sized}\r\nx"), 421).await;
    }
}

/// The answers that have no body, with one after each that shows where they end.
#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    let front = Front::new().await;
    let slot = front.site.slot().await;
    assert_eq!(statuses(&front.put(&slot).await), [201]);
    let mut stream = front.connect().await;
    for (method, target, fields, status, length) in [
        ("HEAD", &*slot.path, "", 200, Some(SIZE)),
        ("HEAD", "/up/f/x/a", "", 404, Some(22)),
        ("GET", &slot.path, "If-None-Match: *\r\n", 304, None),
        ("HEAD", &slot.path, "Range: bytes=1-2\r\n", 200, Some(SIZE)),
        ("GET", &slot.path, "Range: bytes=1000-\r\n", 416, Some(0)),
        ("OPTIONS", "*", "", 204, None),
        ("HEAD", &slot.path, "Connection: close\r\n", 200, Some(SIZE)),
    ] {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        send(&mut stream, head.as_bytes()).await;
        let head = read_head(&mut stream).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        let (_, found) = head.split_once("content-length: ").unzip();
        let found = found.and_then(|rest| rest.lines().next()?.parse().ok());
        assert_eq!(found, length, "{head}");
        assert!(!head.contains("transfer-encoding"), "{head}");
    }
    assert_eq!(read_all(&mut stream).await, "");
}

#[tokio::test]
async fn upgrades_are_passed_over() {
    let front = Front::new().await;
    let slot = front.site.slot().await;
    let fields = "Connection: upgrade\r\nUpgrade: foo\r\nContent-Length: 1000\r\n";
    let mut bytes = put_head(&slot, fields);
    bytes.extend(content(SIZE));
    bytes.extend(b"GET /next HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(statuses(&front.ask(&bytes).await), [201, 404]);
}

#[tokio::test]
async fn h21_expectations() {
    let expect = "Expect: 100-continue\r\n";
    let first_answer = async |query: &str, length: &str| {
        let front = Front::new().await;
        let slot = front.site.slot().await;
        let query = query.replace("{T}", &slot.token);
        let head = format!(
            "PUT {}?{query} HTTP/1.1\r\nHost: localhost\r\n{expect}\
             Content-Length: {length}\r\n\r\n",
            slot.path
        );
        let mut stream = front.connect().await;
        send(&mut stream, head.as_bytes()).await;
        let first = read_head(&mut stream).await;
        (front, slot, stream, statuses(&first))
    };
    for (query, length, status) in [
        ("t=x", "1000", 401),
        ("t={T}", "1001", 413),
        ("t={T}", "9", 400),
    ] {
        let (front, slot, mut stream, first) = first_answer(query, length).await;
        assert_eq!(first, [status], "no 100 before a refusal");
        stream.shutdown().await.expect("half closed");
        read_all(&mut stream).await;
        front.check_usable(&slot, query).await;
    }
    let (_front, _slot, mut stream, first) = first_answer("t={T}", "1000").await;
    assert_eq!(first, [100]);
    send(&mut stream, &content(SIZE)).await;
    assert_eq!(statuses(&read_head(&mut stream).await), [201]);
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let front = Front::new().await;
    let (first, second) = (front.site.slot().await, front.site.slot().await);
    let mut bytes = b"\r\n".to_vec();
    for slot in [&first, &second] {
        bytes.extend(put_head(slot, "Content-Length: 1000\r\n"));
        bytes.extend(content(SIZE));
        let path = &slot.path;
        bytes.extend(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").bytes());
    }
    bytes.extend(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut stream = front.connect().await;
    // In pieces that respect no border.
    for piece in bytes.chunks(77) {
        send(&mut stream, piece).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(
        statuses(&read_all(&mut stream).await),
        [201, 200, 201, 200, 204]
    );
    assert_eq!(
        statuses(&front.ask(&bytes).await),
        [201, 200, 201, 200, 204]
    );
}

#[tokio::test]
async fn a_bad_request_ends_the_connection_after_the_good_ones() {
    let front = Front::new().await;
    let slot = front.site.slot().await;
    let mut bytes = put_head(&slot, "Content-Length: 1000\r\n");
    bytes.extend(content(SIZE));
    bytes.extend(b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n");
    bytes.extend(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(statuses(&front.ask(&bytes).await), [201, 400]);
}

#[tokio::test]
async fn old_and_half_closing_clients() {
    let front = Front::new().await;
    let slot = front.site.slot().await;
    let path = slot.put_path();
    let head = format!("PUT {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n");
    let bytes = [head.as_bytes(), &content(SIZE)].concat();
    let answer = front.ask(&bytes).await;
    assert!(
        answer.starts_with("HTTP/1.0 201") || answer.starts_with("HTTP/1.1 201"),
        "{answer}"
    );
    let slot = front.site.slot().await;
    let mut stream = front.connect().await;
    send(&mut stream, &put_head(&slot, "Content-Length: 1000\r\n")).await;
    send(&mut stream, &content(SIZE)).await;
    stream.shutdown().await.expect("half closed");
    assert_eq!(statuses(&read_all(&mut stream).await), [201]);
}

/// How long the service lets a client that does nothing more hang on, in its own time.
async fn time_to_end(front: &Front, bytes: &[u8]) -> Duration {
    let mut stream = front.connect().await;
    send(&mut stream, bytes).await;
    let started = Instant::now();
    assert_eq!(read_all(&mut stream).await, "", "no answer to no request");
    started.elapsed()
}

#[tokio::test(start_paused = true)]
async fn f01_f02_heads_must_come_in_time() {
    let front = Front::new().await;
    let limit = Duration::from_millis(10_100);
    assert!(time_to_end(&front, b"").await < limit);
    assert!(time_to_end(&front, b"GET / HTTP/1.1\r\nHost: local").await < limit);
    let mut stream = front.connect().await;
    let started = Instant::now();
    let drip = async {
        while stream.write_all(b"G").await.is_ok() {
            sleep(Duration::from_secs(3)).await;
        }
    };
    timeout(PATIENCE, drip).await.expect("the service closes");
    assert!(started.elapsed() < Duration::from_secs(16));
}

#[tokio::test(start_paused = true)]
async fn idle_connections_outlast_nginx() {
    let front = Front::new().await;
    let mut stream = front.connect().await;
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for wait in [61, 9, 61, 0] {
        send(&mut stream, request).await;
        let head = read_head(&mut stream).await;
        assert_eq!(statuses(&head), [404]);
        let mut body = [0; 22];
        stream.read_exact(&mut body).await.expect("the body");
        sleep(Duration::from_secs(wait)).await;
    }
    let started = Instant::now();
    read_all_for(&mut stream, Duration::from_secs(100)).await;
    assert!(Duration::from_secs(70) < started.elapsed());
    // The time for a head counts from its first byte.
    let mut stream = front.connect().await;
    send(&mut stream, request).await;
    read_head(&mut stream).await;
    sleep(Duration::from_secs(50)).await;
    send(&mut stream, b"GET").await;
    let started = Instant::now();
    read_all(&mut stream).await;
    assert!(started.elapsed() < Duration::from_millis(10_100));
}

#[tokio::test(start_paused = true)]
async fn f04_an_upload_that_stands_still_is_told_so() {
    let front = Front::new().await;
    let (slot, mut uploading) = begin_upload(&front).await;
    let started = Instant::now();
    let answer = read_all_for(&mut uploading, Duration::from_secs(200)).await;
    assert_eq!(statuses(&answer), [408]);
    assert!(answer.contains("connection: close"));
    assert!(
        started.elapsed() < Duration::from_secs(125),
        "{:?}",
        started.elapsed()
    );
    check_part(&front.site, &slot, 600).await;
    front.check_usable(&slot, "a stalled upload").await;
}

/// A part of `n_bytes` is kept for the slot.
async fn check_part(site: &Site, slot: &TestSlot, n_bytes: u64) {
    let (_, stored) = site.trace(slot).await;
    let is_part = |stored: &Stored| match stored {
        Stored::Part { size_bytes, .. } => *size_bytes == n_bytes,
        Stored::File { .. } => false,
    };
    assert!(stored.iter().any(is_part), "the bytes are kept");
}

/// Random bytes in random places of good requests: an answer each at most, and no harm.
#[tokio::test]
async fn garbage_in_good_requests() {
    let front = Front::new().await;
    let (target, bystander) = (front.site.slot().await, front.site.slot().await);
    let fields = "Content-Length: 9\r\nConnection: close\r\n";
    let good = [put_head(&target, fields), b"too short".to_vec()].concat();
    let mut seed = 1u64;
    let mut random = |n: usize| {
        // Knuth's MMIX constants.
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).expect("31 bits") % n
    };
    for _ in 0..500 {
        let mut bytes = good.clone();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = u8::try_from(random(256)).expect("a byte"),
                1 => bytes.insert(at, b"\r\n :,;\t%/"[random(9)]),
                _ => drop(bytes.remove(at)),
            }
        }
        let mut stream = front.connect().await;
        send(&mut stream, &bytes).await;
        // What is left open waits for more: this is all.
        let _ = stream.shutdown().await;
        let answer = statuses(&read_all(&mut stream).await);
        let text = String::from_utf8_lossy(&bytes);
        assert!(answer.len() <= 1, "{text:?} got {answer:?}");
        assert!(
            answer.iter().all(|status| (400..500).contains(status)),
            "{text:?} got {answer:?}"
        );
    }
    front.check_usable(&target, "garbage").await;
    front.check_usable(&bystander, "garbage").await;
}

#[tokio::test]
async fn f05_a_download_that_nobody_reads_is_ended() {
    let site = Site::with(|settings| settings.stall_for = Duration::from_secs(1));
    let front = Front::with(site, site::http());
    let size = 6 << 20;
    let slot = front.site.slot_for("a.bin", size).await;
    let mut bytes = put_head(
        &slot,
        &format!("Content-Length: {size}\r\nConnection: close\r\n"),
    );
    bytes.extend(content(size));
    assert_eq!(statuses(&front.ask(&bytes).await), [201]);
    drop(bytes);
    let path = &slot.path;
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // With a small buffer here, the one on the other side stays small, too.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a socket option");
    let mut stream = socket.connect(front.address).await.expect("connected");
    send(&mut stream, head.as_bytes()).await;
    // Longer than it may stand still: only the socket's buffers fill meanwhile.
    sleep(Duration::from_millis(2500)).await;
    let mut read = Vec::new();
    // An error as well as an early end: the client sees that the file is not whole.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut read))
        .await
        .expect("ended");
    assert!(
        !read.is_empty() && read.len() < size,
        "{} of {size}",
        read.len()
    );
}

#[tokio::test]
async fn f06_one_address_has_its_share() {
    let site = Site::with(|settings| settings.connections_per_address_max = 3);
    let front = Front::with(site, site::http());
    let mut held = Vec::new();
    for n in 0..3 {
        let mut stream = front.connect().await;
        // P01: what an unknown peer says of itself changes nothing.
        let forwarded = format!("X-Forwarded-For: 192.0.2.{n}\r\nX-Real-IP: 192.0.2.{n}\r\n");
        let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{forwarded}\r\n");
        send(&mut stream, head.as_bytes()).await;
        assert_eq!(statuses(&read_head(&mut stream).await), [404]);
        held.push(stream);
    }
    let mut fourth = front.connect().await;
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, fourth.read_to_end(&mut bytes)).await;
    let is_reset = read
        .expect("closed")
        .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset);
    assert!(is_reset || statuses(&String::from_utf8_lossy(&bytes)) == [429]);
    drop(held);
    let slot = front.site.slot().await;
    let put = async || loop {
        let mut stream = front.connect().await;
        let bytes = [
            put_head(&slot, "Content-Length: 1000\r\nConnection: close\r\n"),
            content(SIZE),
        ]
        .concat();
        let mut answer = Vec::new();
        if stream.write_all(&bytes).await.is_ok() && stream.read_to_end(&mut answer).await.is_ok() {
            let answer = statuses(&String::from_utf8_lossy(&answer));
            if answer == [201] {
                break;
            }
        }
    };
    timeout(PATIENCE, put()).await.expect("places come free");
}

#[tokio::test]
async fn all_places_taken_is_a_queue() {
    let site = Site::with(|settings| settings.connections_total_max = 1);
    let front = Arc::new(Front::with(site, site::http()));
    let mut held = front.connect().await;
    send(&mut held, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    read_head(&mut held).await;
    let waiting = front.clone();
    let waiting = tokio::spawn(async move {
        waiting
            .ask(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(held);
    let answer = timeout(PATIENCE, waiting)
        .await
        .expect("served")
        .expect("no panic");
    assert_eq!(statuses(&answer), [404]);
}

/// An upload with 600 of 1000 bytes sent.
async fn begin_upload(front: &Front) -> (TestSlot, TcpStream) {
    let slot = front.site.slot().await;
    let mut stream = front.connect().await;
    let fields = "Content-Length: 1000\r\nExpect: 100-continue\r\n";
    send(&mut stream, &put_head(&slot, fields)).await;
    assert_eq!(statuses(&read_head(&mut stream).await), [100]);
    send(&mut stream, &content(SIZE)[..600]).await;
    (slot, stream)
}

#[tokio::test]
async fn stopping_lets_uploads_end() {
    let front = Front::new().await;
    let (slot, mut uploading) = begin_upload(&front).await;
    let mut idle = front.connect().await;
    send(&mut idle, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    read_head(&mut idle).await;
    front.shutdown.send(true).expect("it listens");
    read_all(&mut idle).await;
    // Who waits in the socket is still taken, and then it closes.
    let refused = async { while TcpStream::connect(front.address).await.is_ok() {} };
    timeout(PATIENCE, refused).await.expect("it closes");
    send(&mut uploading, &content(SIZE)[600..]).await;
    let answer = read_all(&mut uploading).await;
    assert_eq!(statuses(&answer), [201]);
    assert!(answer.contains("connection: close"));
    timeout(PATIENCE, front.serving)
        .await
        .expect("ended")
        .expect("no panic");
    let (state, _) = front.site.trace(&slot).await;
    assert!(state.starts_with("Complete"));
}

/// Neither who has connected and said nothing yet, nor who waits in the socket, is sent away.
#[tokio::test]
async fn stopping_answers_who_has_just_connected() {
    let front = Front::new().await;
    // Uploads hold the end up, so that there is time to ask.
    let (_, mut uploading) = begin_upload(&front).await;
    let mut silent = front.connect().await;
    let mut begun = front.connect().await;
    send(&mut begun, b"GET / HTTP/1.1\r\nHost: local").await;
    front.shutdown.send(true).expect("it listens");
    send(&mut silent, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    send(&mut begun, b"host\r\n\r\n").await;
    for stream in [&mut silent, &mut begun] {
        let answer = read_all(stream).await;
        assert_eq!(statuses(&answer), [404]);
        assert!(answer.contains("connection: close"), "{answer}");
    }
    send(&mut uploading, &content(SIZE)[600..]).await;
    assert_eq!(statuses(&read_all(&mut uploading).await), [201]);
}

#[tokio::test]
async fn stopping_cuts_uploads_that_do_not_end() {
    let site = Site::with(|settings| settings.stop_within = Duration::from_millis(50));
    let front = Front::with(site, site::http());
    let (slot, mut uploading) = begin_upload(&front).await;
    front.shutdown.send(true).expect("it listens");
    let answer = read_head(&mut uploading).await;
    assert_eq!(statuses(&answer), [503]);
    assert!(answer.contains("retry-after: 0") && answer.contains("connection: close"));
    timeout(PATIENCE, front.serving)
        .await
        .expect("ended")
        .expect("no panic");
    check_part(&front.site, &slot, 600).await;
}

/// What `Listeners::bind` says of these sockets.
fn bind_error(listen: Vec<Listen>) -> String {
    let http = Http {
        listen,
        ..site::http()
    };
    Listeners::bind(&http).err().expect("refused").to_string()
}

#[tokio::test]
async fn sockets_that_cannot_be_had() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = taken.local_addr().expect("an address");
    let words = bind_error(vec![Listen::Tcp(address)]);
    assert!(
        words.contains(&address.to_string()) && words.contains("another program"),
        "{words}"
    );
    let words = bind_error(vec![Listen::Tcp(([192, 0, 2, 1], 0).into())]);
    assert!(words.contains("does not have the address"), "{words}");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").expect("written");
    let words = bind_error(vec![Listen::Unix(file.clone())]);
    assert!(words.contains("something else than a socket"), "{words}");
    assert_eq!(
        std::fs::read_to_string(&file).expect("still there"),
        "precious"
    );
    let words = bind_error(vec![Listen::Unix(dir.path().join("missing/socket"))]);
    assert!(words.contains("create it"), "{words}");
}

#[tokio::test]
async fn unix_sockets() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("socket");
    // What a crash leaves.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    let http = Http {
        listen: vec![Listen::Unix(path.clone())],
        ..site::http()
    };
    let front = Front::with(Site::new(), http.clone());
    let mode = std::fs::metadata(&path)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    assert!(bind_error(http.listen).contains("another program"));
    let slot = front.site.slot().await;
    let mut stream = UnixStream::connect(&path).await.expect("connected");
    let fields = "Content-Length: 1000\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: close\r\n";
    send(&mut stream, &put_head(&slot, fields)).await;
    send(&mut stream, &content(SIZE)).await;
    assert_eq!(statuses(&read_all(&mut stream).await), [201]);
    front.shutdown.send(true).expect("it listens");
    timeout(PATIENCE, front.serving)
        .await
        .expect("ended")
        .expect("no panic");
    assert!(!path.exists());
}

/// A site with a certificate, and what trusts it.
fn tls_front(dir: &tempfile::TempDir) -> (Front, TlsConnector) {
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a pair");
    let tls = Tls {
        certificate: dir.path().join("cert.pem"),
        key: dir.path().join("key.pem"),
    };
    std::fs::write(&tls.certificate, pair.cert.pem()).expect("written");
    std::fs::write(&tls.key, pair.signing_key.serialize_pem()).expect("written");
    let http = Http {
        tls: Some(tls),
        ..site::http()
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pair.cert.der().clone()).expect("a certificate");
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    (Front::with(Site::new(), http), connector)
}

#[tokio::test]
async fn tls_without_a_proxy() {
    let dir = tempfile::tempdir().expect("a directory");
    let (front, connector) = tls_front(&dir);
    let slot = front.site.slot().await;
    let connect = async || {
        let name = "localhost".try_into().expect("a name");
        let stream = connector.connect(name, front.connect().await).await;
        stream.expect("a handshake")
    };
    let mut stream = connect().await;
    let mut bytes = put_head(&slot, "Content-Length: 1000\r\nConnection: close\r\n");
    bytes.extend(content(SIZE));
    send(&mut stream, &bytes).await;
    assert_eq!(statuses(&read_all(&mut stream).await), [201]);
    // An early answer, under a body that is still being sent.
    let mut stream = connect().await;
    send(&mut stream, &put_head(&slot, "Content-Length: 8000000\r\n")).await;
    send(&mut stream, &vec![0; 8_000_000]).await;
    assert_eq!(statuses(&read_all(&mut stream).await), [413]);
    // Who speaks without TLS is closed, not answered.
    let mut plain = front.connect().await;
    send(&mut plain, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut answer = Vec::new();
    // A reset is as good as an end.
    let _ = timeout(PATIENCE, plain.read_to_end(&mut answer))
        .await
        .expect("closed");
    assert_eq!(statuses(&String::from_utf8_lossy(&answer)), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn f03_handshakes_must_come_in_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let (front, _) = tls_front(&dir);
    let client_hello_begins = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    assert!(time_to_end(&front, client_hello_begins).await < Duration::from_millis(10_100));
}

/// A PUT in the draft's words that waits until its body is asked for.
async fn begin_resumable(front: &Front, version: &str, field: &str) -> (TestSlot, TcpStream) {
    let slot = front.site.slot().await;
    let mut stream = front.connect().await;
    let fields = format!(
        "Upload-Draft-Interop-Version: {version}\r\n{field}\r\nContent-Length: 1000\r\n\
         Expect: 100-continue\r\n"
    );
    send(&mut stream, &put_head(&slot, &fields)).await;
    (slot, stream)
}

/// The statuses of all that comes back on such a PUT when its body is sent, sorted.
async fn answers_to_whole(mut stream: TcpStream) -> Vec<u16> {
    let mut all = Vec::new();
    while all.iter().all(|status| *status < 200) {
        let head = read_head(&mut stream).await;
        if statuses(&head) == [100] {
            send(&mut stream, &content(SIZE)).await;
        }
        all.extend(statuses(&head));
    }
    all.sort_unstable();
    all
}

#[tokio::test]
async fn who_asks_is_told_at_once_where_the_upload_goes_on() {
    let front = Front::new().await;
    for (version, field, limit) in [
        ("3", "Upload-Incomplete: ?0", ""),
        ("5", "Upload-Complete: ?1", ""),
        (
            "6",
            "Upload-Complete: ?1",
            "Upload-Limit: max-size=1000, expires=259200\r\n",
        ),
        (
            "8",
            "Upload-Complete: ?1",
            "Upload-Limit: max-size=1000, max-age=259200\r\n",
        ),
    ] {
        let (slot, mut stream) = begin_resumable(&front, version, field).await;
        // In either order: one asks for the body, the other does not wait for it.
        let mut interims = [read_head(&mut stream).await, read_head(&mut stream).await];
        interims.sort();
        let [asks, interim] = interims;
        assert_eq!(statuses(&asks), [100]);
        let (line, fields) = interim.split_once("\r\n").expect("a line");
        assert_eq!(line, "HTTP/1.1 104 Upload Resumption Supported");
        let (location, rest) = fields.split_once("\r\n").expect("a field");
        assert_eq!(
            rest,
            format!("Upload-Draft-Interop-Version: {version}\r\n{limit}\r\n")
        );
        send(&mut stream, &content(400)).await;
        // The network is gone; the upload goes on where it was told.
        drop(stream);
        let url = location.strip_prefix("Location: ").expect("the URL");
        let path = site::path_of(url);
        let head = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = front.ask(head.as_bytes()).await;
        assert_eq!(statuses(&answer), [204], "{answer}");
        let offset = answer.split("upload-offset: ").nth(1).expect("told");
        let offset = offset.lines().next().and_then(|offset| offset.parse().ok());
        let offset: usize = offset.expect("digits");
        let mut rest = format!(
            "PATCH {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/partial-upload\r\nUpload-Offset:  {offset} \r\n\
             Upload-Complete: ?1\r\nContent-Length: {}\r\n\r\n",
            SIZE - offset
        )
        .into_bytes();
        rest.extend(&content(SIZE)[offset..]);
        assert_eq!(statuses(&front.ask(&rest).await), [201]);
        assert_eq!(statuses(&front.get(&slot).await), [200]);
    }
}

#[tokio::test]
async fn others_are_not_told_where_it_goes_on() {
    let front = Front::new().await;
    for (version, field) in [
        ("7", "Upload-Complete: ?1"),
        ("8", "Upload-Length: 1000"),
        ("8, 8", "Upload-Complete: ?1"),
        ("3", "Upload-Complete: ?1"),
    ] {
        let (_, stream) = begin_resumable(&front, version, field).await;
        assert_eq!(answers_to_whole(stream).await, [100, 201], "{version}");
    }
    // HTTP/1.0 has no interim responses.
    let slot = front.site.slot().await;
    let head = format!(
        "PUT {} HTTP/1.0\r\nUpload-Draft-Interop-Version: 8\r\nUpload-Complete: ?1\r\n\
         Content-Length: 1000\r\n\r\n",
        slot.put_path()
    );
    let mut bytes = head.into_bytes();
    bytes.extend(content(SIZE));
    assert_eq!(front.ask(&bytes).await.matches("HTTP/1.").count(), 1);
}

#[tokio::test]
async fn proxies_are_not_sent_what_they_may_drop() {
    for (forwards, expected) in [(false, &[100, 201][..]), (true, &[100, 104, 201])] {
        let mut http = site::http();
        http.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
        http.proxy_forwards_1xx = forwards;
        let front = Front::with(Site::new(), http);
        let (_, stream) = begin_resumable(&front, "8", "Upload-Complete: ?1").await;
        assert_eq!(answers_to_whole(stream).await, expected);
    }
}

#[tokio::test]
async fn proxies_that_nobody_named_are_not_sent_it_either() {
    let front = Front::new().await;
    for trace in [
        "X-Forwarded-For: 192.0.2.1",
        "Forwarded: for=192.0.2.1",
        "Via: 1.1 proxy",
    ] {
        let fields = format!("Upload-Complete: ?1\r\n{trace}");
        let (_, stream) = begin_resumable(&front, "8", &fields).await;
        assert_eq!(answers_to_whole(stream).await, [100, 201], "{trace}");
    }
}

#[tokio::test]
async fn an_append_that_is_taken_over_ends_without_an_answer() {
    let front = Front::new().await;
    let (_, path) = front.site.session().await;
    for tus in ["", "Tus-Resumable: 1.0.0\r\n"] {
        let mut stream = front.connect().await;
        let media_type = match tus {
            "" => "application/partial-upload",
            _ => "application/offset+octet-stream",
        };
        let head = format!(
            "PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\n{tus}\
             Upload-Offset: 0\r\nUpload-Complete: ?1\r\nContent-Length: 1000\r\n\
             Expect: 100-continue\r\n\r\n"
        );
        send(&mut stream, head.as_bytes()).await;
        assert_eq!(statuses(&read_head(&mut stream).await), [100]);
        let ask = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert_eq!(statuses(&front.ask(ask.as_bytes()).await), [204]);
        let mut rest = Vec::new();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        let error = ended.expect("ended").expect_err("cut, not closed in order");
        assert_eq!(
            (error.kind(), rest.len()),
            (io::ErrorKind::ConnectionReset, 0)
        );
    }
}

#[tokio::test]
async fn a_patch_that_says_no_length_has_no_body() {
    let front = Front::new().await;
    let (_, path) = front.site.session().await;
    let text = format!(
        "PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/partial-upload\r\n\
         Upload-Offset: 0\r\nUpload-Complete: ?0\r\n\r\nDELETE {path} HTTP/1.1\r\n\
         Host: localhost\r\n\r\n"
    );
    let answer = front.ask(text.as_bytes()).await;
    assert_eq!(statuses(&answer), [204], "{answer}");
    assert!(answer.contains("connection: close"));
    let ask = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(statuses(&front.ask(ask.as_bytes()).await), [204]);
}
