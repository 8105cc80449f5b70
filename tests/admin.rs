//! The private listener: what it tells, and what nobody can do to it.

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slotd::admin::{Listeners, router};
use slotd::config::{Admin, Listen};
use slotd::http::inherited::Inherited;
use slotd::service::Service;
use support::faulty::{Fault, Plan, faulty_service};
use support::world::{bench, settings};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

const HOST: &str = "upload.example.org";

/// A service with its private listener.
struct Watched {
    service: Arc<Service>,
    path: PathBuf,
    _directory: TempDir,
    _serving: JoinSet<()>,
}

impl Watched {
    fn new(service: Arc<Service>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("admin");
        let listen = vec![Listen::Unix(path.clone())];
        let listeners =
            Listeners::open(&Admin { listen }, &mut Inherited::default()).expect("bound");
        let mut serving = JoinSet::new();
        serving.spawn(listeners.serve(router(service.clone())));
        Self {
            service,
            path,
            _directory: directory,
            _serving: serving,
        }
    }

    fn over_memory() -> Self {
        Self::new(bench(settings()).service)
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.expect("connected")
    }

    /// What comes for `request` until the connection ends.
    async fn say(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        // A connection that is closed over what it did not read may be reset behind the answer.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    /// Status and body of a GET.
    async fn get(&self, path: &str) -> (u16, String) {
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = self.say(&head).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("\r\ncache-control: no-store\r\n"), "{head}");
        assert!(head.contains("\r\nx-content-type-options: nosniff\r\n"));
        (status(head), body.to_owned())
    }
}

fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).unwrap_or_default();
    status.parse().unwrap_or_default()
}

#[tokio::test]
async fn it_is_ready_while_all_its_parts_are() {
    let watched = Watched::over_memory();
    let ready = (200, "ready\n".to_owned());
    assert_eq!(watched.get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(watched.get("/readyz").await, ready);

    let streams = watched.service.streams();
    streams.expect(HOST, 2);
    let words = "upload.example.org has no stream to the XMPP server\n";
    assert_eq!(watched.get("/readyz").await, (503, words.to_owned()));
    let up = streams.begin(HOST);
    assert_eq!(watched.get("/readyz").await, ready);
    drop(up);
    assert_eq!(watched.get("/readyz").await.0, 503);

    let _up = streams.begin(HOST);
    watched.service.drain();
    let words = "the service is stopping\n";
    assert_eq!(watched.get("/readyz").await, (503, words.to_owned()));
    assert_eq!(watched.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn it_is_not_ready_where_its_stores_fail() {
    let plan = Plan::new();
    let bench = bench(settings());
    let service = faulty_service(&bench, &plan);
    plan.fail(0, u64::MAX, Fault::Before);
    let watched = Watched::new(service);
    let words = "the database fails, see the log\nthe files' disk fails, see the log\n";
    assert_eq!(watched.get("/readyz").await, (503, words.to_owned()));
    // What fails is looked at again soon, and what works is not looked at for each request.
    plan.heal();
    let mut n_looks = 0;
    while watched.get("/readyz").await.0 != 200 {
        n_looks += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(0 < n_looks);
    let (n_calls, began) = (plan.n_calls(), Instant::now());
    for _ in 0..20 {
        assert_eq!(watched.get("/readyz").await.0, 200);
    }
    // Where the machine stands still, time goes by, and they are looked at again.
    let n_more = plan.n_calls() - n_calls;
    assert!(n_more <= 4 * (1 + began.elapsed().as_secs()), "{n_more}");
}

#[tokio::test]
async fn nothing_is_taken_and_nothing_else_is_there() {
    let watched = Watched::over_memory();
    assert_eq!(watched.get("/favicon.ico").await.0, 404);
    assert_eq!(watched.get("/metrics/../readyz").await.0, 404);
    for (request, wanted) in [
        (
            "POST /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            405,
        ),
        (
            "DELETE /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            405,
        ),
        (
            "GET /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
            413,
        ),
        (
            "POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            413,
        ),
        ("GET /readyz HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
    ] {
        assert_eq!(status(&watched.say(request).await), wanted, "{request}");
    }
    let long = "x".repeat(64 * 1024);
    let request = format!("GET /readyz HTTP/1.1\r\nX: {long}\r\n\r\n");
    // The answer is lost where the connection is reset over what was not read.
    assert!([431, 0].contains(&status(&watched.say(&request).await)));
    assert_eq!(watched.get("/readyz").await.0, 200);
}

#[tokio::test]
async fn a_head_is_sent_without_its_body() {
    let watched = Watched::over_memory();
    let head = "HEAD /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = watched.say(head).await;
    assert_eq!(status(&answer), 200);
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

/// 32 places: whoever takes them all is waited for no longer than a head may take.
#[tokio::test(start_paused = true)]
async fn who_says_nothing_holds_no_place_for_long() {
    let watched = Watched::over_memory();
    let mut silent = Vec::new();
    for n in 0..40 {
        let mut stream = watched.connect().await;
        let words: &[u8] = match n % 2 {
            0 => b"",
            _ => b"GET /readyz HTTP/1.1\r\n",
        };
        stream.write_all(words).await.expect("written");
        silent.push(stream);
    }
    let answered = timeout(Duration::from_secs(60), watched.get("/healthz"));
    assert_eq!(answered.await.expect("a place").0, 200);
    for mut stream in silent {
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_secs(60), stream.read_to_end(&mut rest));
        let _ = ended.await.expect("ended");
    }
}

/// A page from elsewhere that names this machine as its own (DNS rebinding) reads nothing.
#[tokio::test]
async fn on_loopback_it_answers_to_its_own_names_alone() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let listen = vec![Listen::Tcp(address)];
    let listeners = Listeners::open(&Admin { listen }, &mut Inherited::default()).expect("bound");
    let mut serving = JoinSet::new();
    serving.spawn(listeners.serve(router(bench(settings()).service)));
    for (host, expected) in [
        ("localhost", 200),
        ("LOCALHOST:5051", 200),
        ("127.0.0.1:5051", 200),
        ("[::1]:5051", 200),
        ("evil.example:5051", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
    ] {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let asked = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(asked.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert_eq!(status(&answer), expected, "{host}");
    }
}
