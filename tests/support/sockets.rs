//! A site over a directory that listens on two addresses, one with TLS, and on a Unix socket; and
//! its clients.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use slotd::config::{Http, Listen, Tls};
use slotd::http::connection::{Connection, Rules};
use slotd::http::listen::Listeners;
use slotd::http::{Origin, router};
use slotd::service::Settings;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::site::{self, PUBLIC_URL, Site, TestSlot, content};
use super::world::{disk_bench, settings};

/// How long an answer may take before the test says that there is none.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Any connection of a client.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

/// A site over a directory that listens on two addresses, one with TLS, and on a Unix socket.
pub struct Front {
    pub site: Site,
    pub dir: TempDir,
    pub address: SocketAddr,
    pub tls_address: SocketAddr,
    pub shutdown: watch::Sender<bool>,
    connector: TlsConnector,
    _serving: [JoinHandle<()>; 2],
}

impl Front {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// One with other settings.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut settings = settings();
        settings.public_url = PUBLIC_URL.to_owned();
        settings.policy.size_bytes_max = 100 << 20;
        change(&mut settings);
        let site = Site(disk_bench(settings, &dir.path().join("data")));
        let mut http = site::http();
        let mut secured = site::http();
        http.listen.push(Listen::Unix(dir.path().join("socket")));
        let (pair, connector) = pair(dir.path());
        secured.tls = Some(pair);
        let (shutdown, _) = watch::channel(false);
        let serve = |http: Http| {
            let listeners = Listeners::bind(&http).expect("bound");
            let address = listeners.addresses()[0];
            let service = site.0.service.clone();
            let stopping = shutdown.subscribe();
            let serving = async move {
                listeners.serve(&http, service, stopping).await;
            };
            (address, tokio::spawn(serving))
        };
        let (address, plain) = serve(http);
        let (tls_address, secured) = serve(secured);
        Self {
            site,
            dir,
            address,
            tls_address,
            shutdown,
            connector,
            _serving: [plain, secured],
        }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connected")
    }

    pub async fn connect_unix(&self) -> UnixStream {
        let path = self.dir.path().join("socket");
        UnixStream::connect(path).await.expect("connected")
    }

    pub async fn connect_tls(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.tls_address).await;
        self.secure(stream.expect("connected")).await
    }

    /// The handshake on a connection to the address with TLS.
    pub async fn secure(&self, stream: TcpStream) -> TlsStream<TcpStream> {
        let name = "localhost".try_into().expect("a name");
        let secured = self.connector.connect(name, stream).await;
        secured.expect("a handshake")
    }

    /// A connection without TLS, and one with it.
    pub async fn connect_both(&self) -> [(&'static str, Box<dyn Duplex>); 2] {
        [
            ("plain", Box::new(self.connect().await)),
            ("TLS", Box::new(self.connect_tls().await)),
        ]
    }

    /// A file of `size` bytes of `content`.
    pub async fn file(&self, size: usize) -> TestSlot {
        let slot = self.site.slot_for("a.bin", size).await;
        let mut stream = self.connect().await;
        let bytes = put(&slot, size, "Connection: close\r\n");
        stream.write_all(&bytes).await.expect("taken");
        let answer = read_all(&mut stream).await;
        assert!(answer.starts_with(b"HTTP/1.1 201 "));
        slot
    }

    /// Where a slot's file lies.
    pub fn path_of(&self, slot: &TestSlot) -> PathBuf {
        let name = format!("{:032x}", slot.id.0);
        self.dir
            .path()
            .join("data/files")
            .join(&name[..2])
            .join(name)
    }
}

/// A certificate with its key, and who trusts it.
fn pair(dir: &Path) -> (Tls, TlsConnector) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a pair");
    let files = Tls {
        certificate: dir.join("cert.pem"),
        key: dir.join("key.pem"),
    };
    std::fs::write(&files.certificate, cert.pem()).expect("written");
    std::fs::write(&files.key, signing_key.serialize_pem()).expect("written");
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("a certificate");
    let config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (files, TlsConnector::from(Arc::new(config)))
}

pub fn get(slot: &TestSlot, fields: &str) -> Vec<u8> {
    request("GET", &slot.path, fields)
}

pub fn request(method: &str, target: &str, fields: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").into_bytes()
}

pub fn put(slot: &TestSlot, size: usize, fields: &str) -> Vec<u8> {
    let length = format!("Content-Length: {size}\r\n{fields}");
    let mut bytes = request("PUT", &slot.put_path(), &length);
    bytes.extend(content(size));
    bytes
}

pub async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    read.expect("closed in time").expect("closed in order");
    bytes
}

/// The next answer's head, and as many bytes as it says.
pub async fn answer(stream: &mut (impl AsyncRead + Unpin), is_head: bool) -> (String, Vec<u8>) {
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
pub fn check(answer: &(String, Vec<u8>), status: u16, body: &[u8]) {
    let (head, found) = answer;
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    assert!(found == body, "{} bytes under {head}", found.len());
}

/// Sends a request that is the last of its connection, and reads what comes. Who sends no more may
/// say so.
pub async fn ask(stream: &mut impl Duplex, asked: &[u8], closes: bool) -> Vec<u8> {
    stream.write_all(asked).await.expect("taken");
    stream.flush().await.expect("taken");
    if closes {
        stream.shutdown().await.expect("closed");
    }
    read_all(stream).await
}

/// What hyper's side makes of a request: its head's lines in order, without the date.
pub async fn by_hyper(front: &Front, asked: &[u8]) -> (Vec<String>, Vec<u8>) {
    lines(&hyper_answers(front, asked, false).await)
}

/// What hyper's side sends to who asks so.
pub async fn hyper_answers(front: &Front, asked: &[u8], closes: bool) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let service = front.site.0.service.clone();
    let rules = Rules::of(&service.settings());
    let router = router(service, &site::http());
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
        connection.run(rules.pace(socket)).await;
    };
    let asking = async {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        ask(&mut stream, asked, closes).await
    };
    tokio::join!(serving, asking).1
}

pub fn lines(bytes: &[u8]) -> (Vec<String>, Vec<u8>) {
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
