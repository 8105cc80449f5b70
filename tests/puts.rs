//! Uploads over real sockets, as `front` takes them: whatever the borders between packets, and as
//! hyper's side answers.

mod support;

use std::time::Duration;

use support::site::{SIZE, TestSlot, content};
use support::sockets::{
    Front, PATIENCE, answer, ask, check, get, hyper_answers, lines, put, read_all, request,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const EXPECT: &str = "Expect: 100-continue\r\n";
/// Longer than a small file may take to come whole.
const TOO_LONG_FOR_MEMORY: Duration = Duration::from_millis(1500);

/// The head of a PUT of `size` bytes.
fn head(slot: &TestSlot, size: usize, fields: &str) -> Vec<u8> {
    let length = format!("Content-Length: {size}\r\n{fields}");
    request("PUT", &slot.put_path(), &length)
}

/// The slot's file is there and is `content`.
async fn check_file(front: &Front, slot: &TestSlot, size: usize) {
    let mut stream = front.connect().await;
    stream.write_all(&get(slot, "")).await.expect("taken");
    check(&answer(&mut stream, false).await, 200, &content(size));
}

/// The slot has no file, and takes one.
async fn check_usable(front: &Front, slot: &TestSlot, size: usize) {
    let mut stream = front.connect().await;
    let asked = [get(slot, ""), put(slot, size, "")].concat();
    stream.write_all(&asked).await.expect("taken");
    assert!(
        answer(&mut stream, false)
            .await
            .0
            .starts_with("HTTP/1.1 404 ")
    );
    check(&answer(&mut stream, false).await, 201, b"");
    check_file(front, slot, size).await;
}

/// What is asked of two slots alike, of the one in front and of the other behind.
struct Asked<'a> {
    target: &'a str,
    length: Option<usize>,
    fields: &'a str,
    body: usize,
    closes: bool,
}

impl Default for Asked<'_> {
    fn default() -> Self {
        Self {
            target: "{P}?t={T}",
            length: Some(SIZE),
            fields: "",
            body: SIZE,
            closes: false,
        }
    }
}

impl Asked<'_> {
    fn bytes(&self, slot: &TestSlot) -> Vec<u8> {
        let fill = |text: &str| text.replace("{P}", &slot.path).replace("{T}", &slot.token);
        let length = self
            .length
            .map(|length| format!("Content-Length: {length}\r\n"));
        let length = length.unwrap_or_default();
        let fields = format!("{length}{}Connection: close\r\n", fill(self.fields));
        let mut bytes = request("PUT", &fill(self.target), &fields);
        bytes.extend(content(self.body));
        bytes
    }
}

/// An answer as `lines` has it, and whether `100 Continue` came before it.
fn parts(bytes: &[u8]) -> (bool, Vec<String>, Vec<u8>) {
    let rest = bytes.strip_prefix(CONTINUE);
    let (head, body) = lines(rest.unwrap_or(bytes));
    (rest.is_some(), head, body)
}

async fn check_alike(front: &Front, status: u16, asked: Asked<'_>) {
    for (way, mut stream) in front.connect_both().await {
        let (one, other) = (front.site.slot().await, front.site.slot().await);
        let found = parts(&ask(&mut stream, &asked.bytes(&one), asked.closes).await);
        let expected = hyper_answers(front, &asked.bytes(&other), asked.closes).await;
        let context = format!("{way}: {} {}: {found:?}", asked.target, asked.fields);
        assert!(found == parts(&expected), "{context}");
        assert!(
            found.1[0].starts_with(&format!("HTTP/1.1 {status} ")),
            "{context}"
        );
        let traces = (front.site.trace(&one).await, front.site.trace(&other).await);
        assert_eq!(traces.0.0, traces.1.0, "{context}");
        if status == 201 {
            check_file(front, &one, SIZE).await;
        } else {
            check_usable(front, &one, SIZE).await;
        }
    }
}

#[tokio::test]
async fn fields_mean_what_they_mean_to_hyper() {
    let front = Front::new();
    let wrong = format!("Repr-Digest: sha-256=:{}=:\r\n", "A".repeat(43));
    let long = format!("Content-Type: text/{}\r\n", "a".repeat(2000));
    for (status, fields) in [
        (201, ""),
        (201, "Content-Type: text/plain\r\n"),
        (201, "Authorization: Bearer {T}\r\n"),
        (201, "Authorization: Basic eDp5\r\n"),
        (201, "Content-Encoding: identity\r\n"),
        (201, "X-Forwarded-For: 192.0.2.1\r\nUser-Agent: \u{e4}\r\n"),
        (201, "cOnTeNt-LeNgTh:1000\r\n"),
        (201, EXPECT),
        (201, "expect: 100-CONTINUE\r\n"),
        (201, "Upgrade: foo\r\n"),
        (201, "Upload-Complete: ?1\r\n"),
        (201, "Tus-Resumable: 1.0.0\r\n"),
        (417, "Expect: more\r\n"),
        (417, "Expect: 100-continue\r\nExpect: more\r\n"),
        (400, "Content-Length: 999\r\n"),
        (400, "Content-Type: a/b\r\nContent-Type: a/b\r\n"),
        (400, &long),
        (400, "Set-Cookie: a=b\r\n"),
        (400, "Repr-Digest: sha-256=:A:\r\n"),
        (400, "Content-Digest: sha-256=:A:\r\n"),
        (400, "Content-Range: bytes 0-9/1000\r\n"),
        (415, "Content-Encoding: gzip\r\n"),
        (400, "Authorization: Bearer other\r\n"),
        (400, "Host: other.example\r\n"),
        (400, "X : y\r\n"),
        (422, &wrong),
    ] {
        let asked = Asked {
            fields,
            ..Asked::default()
        };
        check_alike(&front, status, asked).await;
    }
}

#[tokio::test]
async fn targets_mean_what_they_mean_to_hyper() {
    let front = Front::new();
    for (status, target) in [
        (401, "{P}"),
        (401, "{P}?t=x"),
        (404, "/up/f/x/a"),
        (404, "/"),
        (400, "/up/f/../a"),
        (201, "http://localhost{P}?t={T}"),
        (421, "http://other.example{P}?t={T}"),
        (400, "{P}?t={T}&t=x"),
        (404, "/up/r/AAAA"),
    ] {
        for fields in ["", "Accept: application/problem+json\r\n", EXPECT] {
            let asked = Asked {
                target,
                fields,
                ..Asked::default()
            };
            check_alike(&front, status, asked).await;
        }
    }
}

#[tokio::test]
async fn lengths_mean_what_they_mean_to_hyper() {
    let front = Front::new();
    for (status, length, body) in [
        (400, Some(SIZE - 1), SIZE - 1),
        (413, Some(SIZE + 1), SIZE + 1),
        (413, Some(3 << 20), 3 << 20),
        (400, Some(0), 0),
        (411, None, 0),
        // Another request seems to follow: it is not one.
        (201, Some(SIZE), SIZE + 9),
    ] {
        for fields in ["", EXPECT] {
            let asked = Asked {
                length,
                fields,
                body,
                ..Asked::default()
            };
            check_alike(&front, status, asked).await;
        }
    }
}

#[tokio::test]
async fn a_body_that_ends_early_is_none() {
    let front = Front::new();
    for n_bytes in (0..SIZE).step_by(111) {
        for fields in ["", EXPECT] {
            let asked = Asked {
                fields,
                body: n_bytes,
                closes: true,
                ..Asked::default()
            };
            check_alike(&front, 400, asked).await;
        }
    }
}

/// A connection that breaks takes nothing with it but its request.
#[tokio::test]
async fn who_goes_away_leaves_the_slot_usable() {
    let front = Front::new();
    for size in [SIZE, 3 << 20] {
        for n_bytes in [0, 1, size / 2, size - 1] {
            let slot = front.site.slot_for("a.bin", size).await;
            let mut stream = front.connect().await;
            let mut asked = head(&slot, size, "");
            asked.extend(&content(size)[..n_bytes]);
            stream.write_all(&asked).await.expect("taken");
            stream.set_zero_linger().expect("a socket option");
            drop(stream);
            check_usable(&front, &slot, size).await;
        }
    }
}

#[tokio::test]
async fn head_and_body_may_be_cut_anywhere() {
    let front = Front::new();
    let asked = |slot: &TestSlot| [put(slot, SIZE, EXPECT), get(slot, "")].concat();
    let n_bytes = asked(&front.site.slot().await).len();
    for (_, mut stream) in front.connect_both().await {
        for at in (1..n_bytes).step_by(13) {
            let slot = front.site.slot().await;
            let asked = asked(&slot);
            for piece in [&asked[..at], &asked[at..]] {
                stream.write_all(piece).await.expect("taken");
                sleep(Duration::from_millis(1)).await;
            }
            check(&answer(&mut stream, false).await, 100, b"");
            check(&answer(&mut stream, false).await, 201, b"");
            check(&answer(&mut stream, false).await, 200, &content(SIZE));
        }
    }
}

/// Uploads and downloads in one go, small and large, on one connection.
async fn check_pipelined(front: &Front, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut asked = Vec::new();
    let sizes = [
        1,
        SIZE,
        4000,
        70_000,
        256 << 10,
        1 << 20,
        (1 << 20) + 1,
        3 << 20,
    ];
    for size in sizes {
        let slot = front.site.slot_for("a.bin", size).await;
        asked.extend(put(&slot, size, ""));
        asked.extend(get(&slot, ""));
        // The same bytes again, and others.
        asked.extend(put(&slot, size, ""));
        asked.extend(head(&slot, size, ""));
        asked.extend(vec![255; size]);
    }
    asked.extend(request("OPTIONS", "*", "Connection: close\r\n"));
    let (mut reading, mut writing) = tokio::io::split(&mut stream);
    let write = async {
        writing.write_all(&asked).await.expect("taken");
        writing.flush().await.expect("taken");
    };
    let read = async {
        for size in sizes {
            check(&answer(&mut reading, false).await, 201, b"");
            check(&answer(&mut reading, false).await, 200, &content(size));
            check(&answer(&mut reading, false).await, 201, b"");
            let other = answer(&mut reading, false).await;
            assert!(other.0.starts_with("HTTP/1.1 409 "), "{}", other.0);
        }
        check(&answer(&mut reading, false).await, 204, b"");
        assert_eq!(read_all(&mut reading).await, b"");
    };
    tokio::join!(write, read);
}

#[tokio::test]
async fn many_requests_at_once_over_tcp() {
    let front = Front::new();
    check_pipelined(&front, front.connect().await).await;
}

#[tokio::test]
async fn many_requests_at_once_over_a_unix_socket() {
    let front = Front::new();
    check_pipelined(&front, front.connect_unix().await).await;
}

#[tokio::test]
async fn many_requests_at_once_over_tls() {
    let front = Front::new();
    check_pipelined(&front, front.connect_tls().await).await;
}

#[tokio::test]
async fn who_waits_for_a_word_gets_it_when_the_body_is_wanted() {
    let front = Front::new();
    for (_, stream) in front.connect_both().await {
        check_waiting(&front, stream).await;
    }
}

async fn check_waiting(front: &Front, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let slot = front.site.slot().await;
    stream
        .write_all(&head(&slot, SIZE, EXPECT))
        .await
        .expect("taken");
    check(&answer(&mut stream, false).await, 100, b"");
    stream.write_all(&content(SIZE)).await.expect("taken");
    check(&answer(&mut stream, false).await, 201, b"");
    // Its repeat is compared with what there is.
    stream
        .write_all(&head(&slot, SIZE, EXPECT))
        .await
        .expect("taken");
    check(&answer(&mut stream, false).await, 100, b"");
    stream.write_all(&content(SIZE)).await.expect("taken");
    check(&answer(&mut stream, false).await, 201, b"");
    let refused = request(
        "PUT",
        &slot.path,
        &format!("Content-Length: {SIZE}\r\n{EXPECT}"),
    );
    stream.write_all(&refused).await.expect("taken");
    let refused = answer(&mut stream, false).await.0;
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    assert!(refused.contains("connection: close\r\n"), "{refused}");
    assert_eq!(read_all(&mut stream).await, b"");
}

#[tokio::test]
async fn who_sends_all_the_same_gets_to_read_why_not() {
    let front = Front::new();
    let slot = front.site.slot().await;
    let mut asked = request("PUT", &slot.path, "Content-Length: 20000000\r\n");
    asked.extend(vec![7; 20_000_000]);
    let mut stream = front.connect().await;
    let answered = timeout(PATIENCE, ask(&mut stream, &asked, false)).await;
    let (head, body) = lines(&answered.expect("in time"));
    assert!(head[0].starts_with("HTTP/1.1 401 "), "{head:?}");
    assert!(head.contains(&"connection: close".to_owned()), "{head:?}");
    assert!(!body.is_empty());
}

/// Sends half of a PUT that has begun.
async fn half(front: &Front, slot: &TestSlot, size: usize) -> TcpStream {
    let mut stream = front.connect().await;
    begin(&mut stream, slot, size).await;
    stream
}

async fn begin(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), slot: &TestSlot, size: usize) {
    let mut asked = head(slot, size, EXPECT);
    asked.extend(&content(size)[..size / 2]);
    stream.write_all(&asked).await.expect("taken");
    stream.flush().await.expect("taken");
    check(&answer(stream, false).await, 100, b"");
}

#[tokio::test]
async fn slow_bodies_come_whole() {
    let front = Front::new();
    for size in [SIZE, 300_000, 5 << 20] {
        for (_, mut stream) in front.connect_both().await {
            let slot = front.site.slot_for("a.bin", size).await;
            begin(&mut stream, &slot, size).await;
            sleep(TOO_LONG_FOR_MEMORY).await;
            for piece in content(size)[size / 2..].chunks(size.div_ceil(40)) {
                stream.write_all(piece).await.expect("taken");
                sleep(Duration::from_millis(3)).await;
            }
            stream.flush().await.expect("taken");
            check(&answer(&mut stream, false).await, 201, b"");
            check_file(&front, &slot, size).await;
        }
    }
}

#[tokio::test]
async fn who_stops_sending_is_told_so() {
    let front = Front::with(|settings| settings.stall_for = Duration::from_millis(200));
    let slot = front.site.slot_for("a.bin", 3 << 20).await;
    let mut stream = half(&front, &slot, 3 << 20).await;
    let (head, _) = answer(&mut stream, false).await;
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");
    check_usable(&front, &slot, 3 << 20).await;
}

#[tokio::test]
async fn the_newest_upload_of_a_slot_wins() {
    let front = Front::new();
    for size in [SIZE, 3 << 20] {
        let slot = front.site.slot_for("a.bin", size).await;
        let mut first = half(&front, &slot, size).await;
        let mut second = half(&front, &slot, size).await;
        let (head, _) = answer(&mut first, false).await;
        assert!(head.starts_with("HTTP/1.1 409 "), "{head}");
        assert!(head.contains("connection: close\r\n"), "{head}");
        second
            .write_all(&content(size)[size / 2..])
            .await
            .expect("taken");
        check(&answer(&mut second, false).await, 201, b"");
        check_file(&front, &slot, size).await;
    }
}

#[tokio::test]
async fn a_stop_lets_an_upload_end_and_begins_no_other() {
    let front = Front::new();
    let (slot, next) = (front.site.slot().await, front.site.slot().await);
    let mut stream = half(&front, &slot, SIZE).await;
    front.shutdown.send(true).expect("it listens");
    let rest = content(SIZE)[SIZE / 2..].to_vec();
    let asked = [rest, put(&next, SIZE, "")].concat();
    stream.write_all(&asked).await.expect("taken");
    let (head, _) = answer(&mut stream, false).await;
    assert!(head.starts_with("HTTP/1.1 201 "), "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert_eq!(read_all(&mut stream).await, b"");
    let (state, stored) = front.site.trace(&next).await;
    assert!(state.starts_with("Pending") && stored.is_empty(), "{state}");
}

#[tokio::test]
async fn a_stop_tells_uploads_that_do_not_end() {
    let front = Front::with(|settings| settings.stop_within = Duration::from_millis(100));
    let slot = front.site.slot_for("a.bin", 3 << 20).await;
    let mut stream = half(&front, &slot, 3 << 20).await;
    front.shutdown.send(true).expect("it listens");
    let (head, _) = answer(&mut stream, false).await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    let mut rest = Vec::new();
    // Reset or closed: both end it.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
}
