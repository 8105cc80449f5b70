//! Downloads of real files over real sockets: what the kernel sends, and what goes on to hyper.

mod support;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::fs::Advice;
use support::site::{SIZE, TestSlot, content};
use support::sockets::{
    Front, PATIENCE, answer, by_hyper, check, get, lines, put, read_all, request,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

/// More than sockets hold.
const LARGE: usize = 48 << 20;

/// All kinds of answers on one connection, asked for at once.
async fn check_pipelined(front: &Front, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
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
    check_pipelined(&front, front.connect_unix().await).await;
}

#[tokio::test]
async fn every_kind_of_answer_over_tls() {
    let front = Front::new();
    check_pipelined(&front, front.connect_tls().await).await;
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
        for (way, mut stream) in front.connect_both().await {
            stream.write_all(&asked).await.expect("taken");
            let found = lines(&read_all(&mut stream).await);
            assert!(
                found == by_hyper(&front, &asked).await,
                "{way}: {method} {target} {fields}: {found:?}"
            );
        }
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
    for (_, stream) in front.connect_both().await {
        check_mixed(stream, &asked).await;
    }
}

async fn check_mixed(mut stream: impl AsyncRead + AsyncWrite + Unpin, asked: &[u8]) {
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
    let asked = get(&slot, "Range: bytes=7-5000000\r\n");
    let whole = content(5 << 20);
    for (_, mut stream) in front.connect_both().await {
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("dropped from the cache");
        stream.write_all(&asked).await.expect("taken");
        check(
            &answer(&mut stream, false).await,
            206,
            &whole[7..=5_000_000],
        );
    }
}

/// A download of `LARGE` bytes that has begun and is not read on.
async fn begun(front: &Front) -> (TestSlot, TcpStream) {
    let slot = front.file(LARGE).await;
    let mut stream = connect_to_read_little(front.address).await;
    stream.write_all(&get(&slot, "")).await.expect("taken");
    stream.readable().await.expect("begun");
    (slot, stream)
}

async fn connect_to_read_little(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    // With a small buffer here, the one on the other side stays small, too.
    socket.set_recv_buffer_size(4096).expect("a socket option");
    socket.connect(address).await.expect("connected")
}

/// The same over TLS; the head of the answer was read.
async fn begun_over_tls(front: &Front) -> (TestSlot, TlsStream<TcpStream>) {
    let slot = front.file(LARGE).await;
    let stream = connect_to_read_little(front.tls_address).await;
    let mut stream = front.secure(stream).await;
    stream.write_all(&get(&slot, "")).await.expect("taken");
    let head = answer(&mut stream, true).await;
    check(&head, 200, b"");
    (slot, stream)
}

/// How much comes before the connection is reset.
async fn read_to_reset(stream: &mut (impl AsyncRead + Unpin)) -> usize {
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
    let (slot, mut stream) = begun_over_tls(&front).await;
    let file = File::options().write(true).open(front.path_of(&slot));
    file.expect("there").set_len(1).expect("cut");
    assert!(read_to_reset(&mut stream).await < LARGE);
}

#[tokio::test]
async fn who_does_not_read_is_ended() {
    let front = Front::with(|settings| settings.stall_for = Duration::from_millis(200));
    let (_, mut stream) = begun(&front).await;
    has_ended(&stream).await;
    let mut bytes = Vec::new();
    // What the socket held comes, or nothing.
    let _ = stream.read_to_end(&mut bytes).await;
    assert!(bytes.len() < LARGE);
    let (_, stream) = begun_over_tls(&front).await;
    has_ended(stream.get_ref().0).await;
}

/// Nothing is read until the other side has lost its patience.
async fn has_ended(stream: &TcpStream) {
    let gone = async {
        while stream.take_error().expect("a socket option").is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("ended");
}

#[tokio::test]
async fn who_reads_slowly_over_tls_gets_it_whole() {
    let front = Front::new();
    let (slot, mut stream) = begun_over_tls(&front).await;
    let mut body = vec![0; LARGE];
    for piece in body.chunks_mut(LARGE / 16) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let read = timeout(PATIENCE, stream.read_exact(piece)).await;
        read.expect("sent in time").expect("the whole body");
    }
    assert!(body == content(LARGE));
    // The next request finds nothing left behind.
    let asked = get(&slot, "Range: bytes=0-9\r\nConnection: close\r\n");
    stream.write_all(&asked).await.expect("taken");
    check(&answer(&mut stream, false).await, 206, &content(10));
    assert_eq!(read_all(&mut stream).await, b"");
}

#[tokio::test]
async fn who_ends_tls_without_a_word_still_gets_the_answer() {
    let front = Front::new();
    let slot = front.file(SIZE).await;
    let mut stream = front.connect_tls().await;
    stream.write_all(&get(&slot, "")).await.expect("taken");
    stream.get_mut().0.shutdown().await.expect("closed");
    check(&answer(&mut stream, false).await, 200, &content(SIZE));
    assert_eq!(read_all(&mut stream).await, b"");
}

#[tokio::test]
async fn stopping_answers_who_has_asked_and_nobody_after() {
    let front = Front::new();
    let (slot, mut stream) = begun(&front).await;
    stream.write_all(&get(&slot, "")).await.expect("taken");
    front.shutdown.send(true).expect("it listens");
    check(&answer(&mut stream, false).await, 200, &content(LARGE));
    let last = answer(&mut stream, false).await;
    assert!(last.0.contains("connection: close"), "{}", last.0);
    check(&last, 200, &content(LARGE));
    let more = read_all(&mut stream).await;
    assert!(more.is_empty(), "{} bytes more", more.len());
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
