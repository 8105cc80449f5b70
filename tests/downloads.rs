//! Downloads of real files over real sockets: what the kernel sends, and what goes on to hyper.

mod support;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::Advice;
use slotd::config::{Limits, Listen};
use slotd::core::session::network::AddressPolicy;
use slotd::http::connection::{Connection, Rules};
use slotd::http::listen::Listeners;
use slotd::http::{Origin, router};
use support::site::{self, PUBLIC_URL, SIZE, Site, TestSlot, content};
use support::world::{disk_bench, settings};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long an answer may take before the test says that there is none.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than sockets hold.
const LARGE: usize = 48 << 20;

/// A site over a directory that listens on an address and on a Unix socket.
struct Front {
    site: Site,
    dir: TempDir,
    address: SocketAddr,
    shutdown: watch::Sender<bool>,
    _serving: JoinHandle<()>,
}

impl Front {
    fn new() -> Self {
        Self::with(site::limits())
    }

    fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut settings = settings();
        settings.public_url = PUBLIC_URL.to_owned();
        settings.policy.size_bytes_max = 100 << 20;
        let site = Site(disk_bench(settings, &dir.path().join("data")));
        let mut http = site::http();
        http.listen.push(Listen::Unix(dir.path().join("socket")));
        let listeners = Listeners::bind(&http).expect("bound");
        let address = listeners.addresses()[0];
        let (shutdown, stopping) = watch::channel(false);
        let service = site.0.service.clone();
        let serving = async move {
            let policy = AddressPolicy::Full;
            listeners
                .serve(&http, &limits, policy, service, stopping)
                .await;
        };
        Self {
            site,
            dir,
            address,
            shutdown,
            _serving: tokio::spawn(serving),
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connected")
    }

    /// A file of `size` bytes of `content`.
    async fn file(&self, size: usize) -> TestSlot {
        let slot = self.site.slot_for("a.bin", size).await;
        let mut stream = self.connect().await;
        let bytes = put(&slot, size, "Connection: close\r\n");
        stream.write_all(&bytes).await.expect("taken");
        let answer = read_all(&mut stream).await;
        assert!(answer.starts_with(b"HTTP/1.1 201 "));
        slot
    }

    /// Where a slot's file lies.
    fn path_of(&self, slot: &TestSlot) -> PathBuf {
        let name = format!("{:032x}", slot.id.0);
        self.dir
            .path()
            .join("data/files")
            .join(&name[..2])
            .join(name)
    }
}

fn get(slot: &TestSlot, fields: &str) -> Vec<u8> {
    request("GET", &slot.path, fields)
}

fn request(method: &str, target: &str, fields: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").into_bytes()
}

fn put(slot: &TestSlot, size: usize, fields: &str) -> Vec<u8> {
    let length = format!("Content-Length: {size}\r\n{fields}");
    let mut bytes = request("PUT", &slot.put_path(), &length);
    bytes.extend(content(size));
    bytes
}

async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    read.expect("closed in time").expect("closed in order");
    bytes
}

/// The next answer's head, and as many bytes as it says.
async fn answer(stream: &mut (impl AsyncRead + Unpin), is_head: bool) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let byte = timeout(PATIENCE, stream.read_u8()).await;
        bytes.push(byte.expect("answered in time").expect("answered"));
    }
    let head = String::from_utf8(bytes).expect("UTF-8");
    let length = head.split("content-length: ").nth(1);
    let length = length.and_then(|rest| rest.lines().next()?.parse().ok());
    let mut body = vec![0; length.filter(|_| !is_head).unwrap_or(0)];
    let read = timeout(PATIENCE, stream.read_exact(&mut body)).await;
    read.expect("sent in time").expect("the whole body");
    (head, body)
}

#[track_caller]
fn check(answer: &(String, Vec<u8>), status: u16, body: &[u8]) {
    let (head, found) = answer;
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    assert!(found == body, "{} bytes under {head}", found.len());
}

/// All kinds of answers on one connection, asked for at once.
async fn check_pipelined(
    front: &Front,
    mut stream: impl AsyncRead + tokio::io::AsyncWrite + Unpin,
) {
    let (small, large) = (front.file(SIZE).await, front.file(3 << 20).await);
    let mut asked = Vec::new();
    asked.extend(get(&small, ""));
    asked.extend(get(&large, ""));
    asked.extend(get(&large, "Range: bytes=1000000-2500000\r\n"));
    asked.extend(get(&small, "If-None-Match: *\r\n"));
    asked.extend(request("HEAD", &large.path, ""));
    asked.extend(get(&small, "Range: bytes=1000-\r\n"));
    asked.extend(request("GET", "/up/f/x/a", ""));
    asked.extend(get(&small, "If-Match: \"x\"\r\n"));
    asked.extend(get(&small, "Range: bytes=-1\r\nConnection: close\r\n"));
    asked.extend(get(&small, ""));
    stream.write_all(&asked).await.expect("taken");
    let whole = content(3 << 20);
    check(&answer(&mut stream, false).await, 200, &content(SIZE));
    check(&answer(&mut stream, false).await, 200, &whole);
    check(
        &answer(&mut stream, false).await,
        206,
        &whole[1_000_000..=2_500_000],
    );
    check(&answer(&mut stream, false).await, 304, b"");
    let head = answer(&mut stream, true).await;
    check(&head, 200, b"");
    assert!(head.0.contains("content-length: 3145728\r\n"), "{}", head.0);
    check(&answer(&mut stream, false).await, 416, b"");
    let missing = answer(&mut stream, false).await;
    assert!(missing.0.starts_with("HTTP/1.1 404 ") && missing.1.len() == 22);
    assert!(
        answer(&mut stream, false)
            .await
            .0
            .starts_with("HTTP/1.1 412 ")
    );
    let last = answer(&mut stream, false).await;
    check(&last, 206, &content(SIZE)[SIZE - 1..]);
    assert!(last.0.contains("connection: close\r\n"), "{}", last.0);
    assert_eq!(read_all(&mut stream).await, b"");
}

#[tokio::test]
async fn every_kind_of_answer_over_tcp() {
    let front = Front::new();
    check_pipelined(&front, front.connect().await).await;
}

#[tokio::test]
async fn every_kind_of_answer_over_a_unix_socket() {
    let front = Front::new();
    let path = front.dir.path().join("socket");
    let stream = UnixStream::connect(path).await.expect("connected");
    check_pipelined(&front, stream).await;
}

/// What hyper's side makes of the same request: its head's lines in order, without the date.
async fn by_hyper(front: &Front, asked: &[u8]) -> (Vec<String>, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let service = front.site.0.service.clone();
    let limits = site::limits();
    let router = router(service, &site::http(), &limits, AddressPolicy::Full);
    let (_stop, shutdown) = watch::channel(false);
    let serving = async {
        let (socket, peer) = listener.accept().await.expect("accepted");
        let origin = Origin {
            peer: Some(peer.ip()),
            local: Some(address.ip()),
        };
        let connection = Connection {
            router,
            origin,
            shutdown,
        };
        connection.run(Rules::of(&limits).pace(socket)).await;
    };
    let asking = async {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(asked).await.expect("taken");
        lines(&read_all(&mut stream).await)
    };
    tokio::join!(serving, asking).1
}

fn lines(bytes: &[u8]) -> (Vec<String>, Vec<u8>) {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = bytes.split_at(end.expect("a head") + 4);
    let head = String::from_utf8(head.to_vec()).expect("UTF-8");
    let dates = head
        .lines()
        .filter(|line| line.starts_with("date: "))
        .count();
    assert_eq!(dates, 1, "{head}");
    let rest = head.lines().filter(|line| !line.starts_with("date: "));
    let mut rest: Vec<String> = rest.map(str::to_owned).collect();
    rest[1..].sort();
    (rest, body.to_vec())
}

#[tokio::test]
async fn answers_are_those_that_hyper_sends() {
    let front = Front::new();
    let slot = front.file(SIZE).await;
    let path = &slot.path;
    for (method, target, fields) in [
        ("GET", &**path, ""),
        ("HEAD", path, ""),
        ("GET", path, "Range: bytes=5-9\r\n"),
        ("GET", path, "rAnGe:bytes=5-9\r\n"),
        ("GET", path, "Range: bytes=5-6\r\nRange: bytes=7-8\r\n"),
        ("GET", path, "Range: bytes=5000-\r\n"),
        ("GET", path, "If-None-Match: *\r\n"),
        ("GET", path, "If-Match: \"x\"\r\n"),
        (
            "GET",
            path,
            "If-Modified-Since: Fri, 02 Jan 2099 03:04:05 GMT\r\n",
        ),
        ("GET", path, "If-Range: \"x\"\r\nRange: bytes=5-9\r\n"),
        ("HEAD", path, "Range: bytes=5-9\r\n"),
        ("GET", "/up/f/x/a", ""),
        ("HEAD", "/up/f/x/a", ""),
        ("GET", "/up/f/x/a", "Accept: application/problem+json\r\n"),
        ("GET", "/up/f/../a", ""),
        ("GET", "/", "X-Forwarded-For: 192.0.2.1\r\n"),
        ("GET", path, "Expect: 100-continue\r\n"),
        ("GET", path, "Expect: more\r\n"),
        ("GET", path, "Upgrade: foo\r\n"),
        ("GET", path, "Content-Length: 0\r\n"),
        ("GET", path, "Host: other.example\r\n"),
        ("GET", path, "X : y\r\n"),
        ("POST", path, ""),
        ("OPTIONS", path, ""),
    ] {
        let fields = format!("{fields}Connection: close\r\n");
        let asked = request(method, target, &fields);
        let mut stream = front.connect().await;
        stream.write_all(&asked).await.expect("taken");
        let found = lines(&read_all(&mut stream).await);
        assert!(
            found == by_hyper(&front, &asked).await,
            "{method} {target} {fields}: {found:?}"
        );
    }
}

#[tokio::test]
async fn what_is_no_download_goes_on_to_hyper_with_what_came_behind_it() {
    let front = Front::new();
    let (old, new) = (front.file(SIZE).await, front.site.slot().await);
    let mut asked = [get(&old, ""), get(&old, "")].concat();
    asked.extend(put(&new, SIZE, ""));
    asked.extend(get(&new, ""));
    asked.extend(request("OPTIONS", "*", "Connection: close\r\n"));
    let mut stream = front.connect().await;
    // In pieces that respect no border.
    for piece in asked.chunks(77) {
        stream.write_all(piece).await.expect("taken");
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        check(&answer(&mut stream, false).await, 200, &content(SIZE));
    }
    check(&answer(&mut stream, false).await, 201, b"");
    check(&answer(&mut stream, false).await, 200, &content(SIZE));
    check(&answer(&mut stream, false).await, 204, b"");
    assert_eq!(read_all(&mut stream).await, b"");
}

#[tokio::test]
async fn files_that_are_not_in_memory_are_sent() {
    let front = Front::new();
    let slot = front.file(5 << 20).await;
    let file = File::open(front.path_of(&slot)).expect("there");
    file.sync_all().expect("synced");
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("dropped from the cache");
    let mut stream = front.connect().await;
    let asked = get(&slot, "Range: bytes=7-5000000\r\n");
    stream.write_all(&asked).await.expect("taken");
    let whole = content(5 << 20);
    check(
        &answer(&mut stream, false).await,
        206,
        &whole[7..=5_000_000],
    );
}

/// A download of `LARGE` bytes that has begun and is not read on.
async fn begun(front: &Front) -> (TestSlot, TcpStream) {
    let slot = front.file(LARGE).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    // With a small buffer here, the one on the other side stays small, too.
    socket.set_recv_buffer_size(4096).expect("a socket option");
    let mut stream = socket.connect(front.address).await.expect("connected");
    stream.write_all(&get(&slot, "")).await.expect("taken");
    stream.readable().await.expect("begun");
    (slot, stream)
}

/// How much comes before the connection is reset.
async fn read_to_reset(stream: &mut TcpStream) -> usize {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    let error = read.expect("ended").expect_err("cut, not closed in order");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    bytes.len()
}

#[tokio::test]
async fn a_file_that_is_cut_is_no_whole_answer() {
    let front = Front::new();
    let (slot, mut stream) = begun(&front).await;
    let file = File::options().write(true).open(front.path_of(&slot));
    file.expect("there").set_len(1).expect("cut");
    assert!(read_to_reset(&mut stream).await < LARGE);
}

#[tokio::test]
async fn who_does_not_read_is_ended() {
    let mut limits = site::limits();
    limits.stall_for = Duration::from_millis(200);
    let front = Front::with(limits);
    let (_, mut stream) = begun(&front).await;
    // Nothing is read until the other side has lost its patience.
    let gone = async {
        while stream.take_error().expect("a socket option").is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("ended");
    let mut bytes = Vec::new();
    // What the socket held comes, or nothing.
    let _ = stream.read_to_end(&mut bytes).await;
    assert!(bytes.len() < LARGE);
}

#[tokio::test]
async fn stopping_lets_a_download_end_and_begins_no_other() {
    let front = Front::new();
    let (slot, mut stream) = begun(&front).await;
    stream.write_all(&get(&slot, "")).await.expect("taken");
    front.shutdown.send(true).expect("it listens");
    check(&answer(&mut stream, false).await, 200, &content(LARGE));
    assert_eq!(read_all(&mut stream).await, b"");
}

#[tokio::test]
async fn what_is_removed_is_sent_no_more() {
    let front = Front::new();
    let (slot, other) = (front.file(SIZE).await, front.file(SIZE).await);
    let files = &front.site.0.stores.files;
    for _ in 0..2 {
        assert!(files.open(slot.id, 0..9).await.is_ok());
        assert!(files.open(other.id, 0..9).await.is_ok());
    }
    files.remove(slot.id).await.expect("removed");
    assert!(files.open(slot.id, 0..9).await.is_err());
    // Somebody else did it, which is looked for once a second.
    std::fs::remove_file(front.path_of(&other)).expect("removed");
    let is_gone = async || files.open(other.id, 0..9).await.is_err();
    let until = Instant::now() + Duration::from_secs(3);
    while !is_gone().await {
        assert!(Instant::now() < until, "a file without a name is sent");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
