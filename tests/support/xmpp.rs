//! A server's side of component streams, written by hand: for what real servers never do.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use minidom::Element;
use slotd::config::{Component, Secret, ServerAddress};
use slotd::core::policy::Room;
use slotd::core::slot::{PartId, SlotId};
use slotd::service::Service;
use slotd::service::operations::Operations;
use slotd::service::operations::reload::Reloads;
use slotd::service::sweep::{Deletions, Sweeper};
use slotd::store::{Body, Content, Failure, FileStore, Progress, StoreError, Stored};
use slotd::xmpp::{self, Connect, Identity, Socket};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

/// The component's name where a test does not choose another.
pub const HOST: &str = "upload.example.org";
pub const SECRET: &str = "correct horse";
/// SHA-1 of the id below and `SECRET`.
const DIGEST: &str = "<handshake>f96deaa739e06cde030ab0ae7a4afe2e02200ded</handshake>";
pub const HEADER: &str = "<?xml version='1.0'?><stream:stream id='a&amp;b' \
    from='upload.example.org' xmlns:stream='http://etherx.jabber.org/streams' \
    xmlns='jabber:component:accept'>";

pub fn component(server: ServerAddress) -> Component {
    Component {
        jid: "upload.example.org".to_owned(),
        server,
        secret: Secret(SECRET.to_owned()),
        connections: 1,
    }
}

pub fn stream_error(condition: &str, text: &str) -> String {
    format!(
        "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
         <text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>{text}</text></stream:error>\
         </stream:stream>"
    )
}

/// What is wrong, for whoever reads the test's failure.
pub type Verdict<T = ()> = Result<T, String>;

/// A stanza as it is on a component's stream.
pub fn stanza(xml: &str) -> Verdict<Element> {
    let all = format!("<all xmlns='jabber:component:accept'>{xml}</all>");
    let all: Element = all.parse().map_err(|e| format!("not well-formed: {e}"))?;
    all.children()
        .next()
        .cloned()
        .ok_or_else(|| "no stanza".to_owned())
}

/// Compares two tags: name, namespace, attributes; `is_same` takes an attribute's name, its wanted
/// value and what came.
pub fn compare_tags(
    wanted: &Element,
    got: &Element,
    mut is_same: impl FnMut(&str, &str, &str) -> bool,
) -> Verdict {
    let (name, ns) = (wanted.name(), wanted.ns());
    if (got.name(), got.ns()) != (name, ns.clone()) {
        return Err(format!("<{name} xmlns='{ns}'> expected"));
    }
    for (key, value) in wanted.attrs() {
        let found = got.attrs().into_iter().find(|(other, _)| *other == key);
        let (_, got) = found.ok_or_else(|| format!("<{name}> lacks {}", key.1))?;
        if !is_same(key.1, value, got) {
            return Err(format!(
                "<{name} {}='{value}'> expected, not '{got}'",
                key.1
            ));
        }
    }
    let is_extra = |key| !wanted.attrs().into_iter().any(|(other, _)| other == key);
    match got.attrs().into_iter().find(|(key, _)| is_extra(*key)) {
        Some((key, _)) => Err(format!("<{name}> has {}", key.1)),
        None => Ok(()),
    }
}

/// The server's end of one connection.
pub struct Peer {
    /// The component's name.
    pub host: &'static str,
    io: Box<dyn Socket>,
    seen: Vec<u8>,
    n_asked: usize,
}

impl Peer {
    pub fn new(io: impl Socket + 'static) -> Self {
        Self {
            host: HOST,
            io: Box::new(io),
            seen: Vec::new(),
            n_asked: 0,
        }
    }

    pub async fn send(&mut self, xml: impl AsRef<[u8]>) -> io::Result<()> {
        self.io.write_all(xml.as_ref()).await?;
        self.io.flush().await
    }

    /// Reads until `end` has come, and returns what came up to there; fails at the end of it all.
    pub async fn read_until(&mut self, end: &str) -> io::Result<String> {
        loop {
            let at = self
                .seen
                .windows(end.len())
                .position(|part| part == end.as_bytes());
            if let Some(at) = at {
                let rest = self.seen.split_off(at + end.len());
                let part = std::mem::replace(&mut self.seen, rest);
                return Ok(String::from_utf8(part).expect("UTF-8"));
            }
            if self.io.read_buf(&mut self.seen).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads until the connection ends.
    pub async fn read_to_end(&mut self) -> String {
        while matches!(self.io.read_buf(&mut self.seen).await, Ok(1..)) {}
        String::from_utf8(std::mem::take(&mut self.seen)).expect("UTF-8")
    }

    /// Takes the header and the handshake, and answers both.
    pub async fn log_in(&mut self) -> io::Result<()> {
        let header = self.read_until(">").await? + &self.read_until(">").await?;
        let to = format!("to=\"{}\"", self.host);
        assert!(header.contains(&to) || header.contains("to='"), "{header}");
        self.send(HEADER.replace(HOST, self.host)).await?;
        let handshake = self.read_until("</handshake>").await?;
        assert_eq!(handshake, DIGEST);
        self.send("<handshake/>").await
    }

    /// Sends `xml` and returns all stanzas that come back, slot answers included.
    pub async fn ask(&mut self, xml: impl AsRef<[u8]>) -> io::Result<Vec<Element>> {
        self.send(xml).await?;
        let mut answers = self.fence().await?;
        // What was decided while the first fence was answered comes before the second.
        answers.extend(self.fence().await?);
        Ok(answers)
    }

    async fn fence(&mut self) -> io::Result<Vec<Element>> {
        self.n_asked += 1;
        let id = format!("fence-{}", self.n_asked);
        self.send(format!(
            "<iq type='get' id='{id}' from='fence@example.org/f' to='{}'>\
             <ping xmlns='urn:xmpp:ping'/></iq>",
            self.host
        ))
        .await?;
        let mut seen = self.read_until(&id).await?;
        loop {
            seen += &self.read_until(">").await?;
            let xml = format!(
                "<all xmlns='jabber:component:accept' \
                 xmlns:stream='http://etherx.jabber.org/streams'>{seen}</all>"
            );
            let Ok(all) = xml.parse::<Element>() else {
                continue;
            };
            let mut answers: Vec<Element> = all.children().cloned().collect();
            if answers.last().and_then(|answer| answer.attr("id")) == Some(&id) {
                answers.pop();
                return Ok(answers);
            }
        }
    }
}

/// Commands over `service`, with one operator; its signing keys are in no file.
pub fn operations(service: Arc<Service>) -> Arc<Operations> {
    let sweeper = Arc::new(Sweeper::new(service.clone()));
    let (deletions, _) = Deletions::new();
    Operations::new(
        service,
        (sweeper, deletions),
        Reloads::new().0,
        PathBuf::new(),
    )
}

/// slotd with connections in memory, each of which arrives as a `Peer`.
pub struct Fake {
    pub peers: mpsc::UnboundedReceiver<Peer>,
    pub stop: watch::Sender<bool>,
    pub running: JoinHandle<()>,
}

impl Fake {
    /// Starts slotd; each connection takes up `buffer_bytes` in either direction.
    pub fn start(service: Arc<Service>, components: Vec<Component>, buffer_bytes: usize) -> Self {
        let (arrive, peers) = mpsc::unbounded_channel();
        let connect: Connect = Arc::new(move |_| {
            let (ours, theirs) = tokio::io::duplex(buffer_bytes);
            let arrived = arrive.send(Peer::new(theirs));
            let ours: Box<dyn Socket> = Box::new(ours);
            let refused = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
            std::future::ready(arrived.map(|()| ours).map_err(refused)).boxed()
        });
        let (stop, stopped) = watch::channel(false);
        let operations = operations(service);
        let running = {
            let identities = components.into_iter().map(Identity::Component);
            xmpp::run_over(connect, identities.collect(), operations, stopped)
        };
        Self {
            peers,
            stop,
            running: tokio::spawn(running),
        }
    }

    /// The next connection, not yet logged in.
    pub async fn next(&mut self) -> Peer {
        self.peers.recv().await.expect("slotd connects")
    }

    /// The next connection, logged in.
    pub async fn log_in(&mut self) -> Peer {
        let mut peer = self.next().await;
        peer.log_in().await.expect("slotd logs in");
        peer
    }
}

/// Files in memory whose free space is told, and which are removed, only through an open gate; a
/// closed one is a fault.
pub struct Gated {
    pub files: Arc<dyn FileStore>,
    pub gate: Semaphore,
}

impl FileStore for Gated {
    fn append(
        &self,
        part: PartId,
        from: u64,
        size_bytes: u64,
        body: Body,
        progress: Progress,
    ) -> BoxFuture<'_, Result<u64, Failure>> {
        self.files.append(part, from, size_bytes, body, progress)
    }

    fn settle(&self, part: PartId) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.files.settle(part)
    }

    fn commit(&self, part: PartId, size_bytes: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        self.files.commit(part, size_bytes)
    }

    fn keep(&self, id: SlotId, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        self.files.keep(id, bytes)
    }

    fn open(&self, id: SlotId, bytes: Range<u64>) -> BoxFuture<'_, Result<Content, StoreError>> {
        self.files.open(id, bytes)
    }

    fn open_part(&self, part: PartId, n_bytes: u64) -> BoxFuture<'_, Result<Body, StoreError>> {
        self.files.open_part(part, n_bytes)
    }

    fn remove_part(&self, part: PartId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.files.remove_part(part)
    }

    fn remove(&self, id: SlotId) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let _passed = self.gate.acquire().await.expect("the gate stays");
            self.files.remove(id).await
        }
        .boxed()
    }

    fn find(&self, id: SlotId) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        self.files.find(id)
    }

    fn page(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        self.files.page(after, n_max)
    }

    fn parts(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<(PartId, u64)>, StoreError>> {
        self.files.parts(after, n_max)
    }

    fn room(&self) -> BoxFuture<'_, Result<Room, StoreError>> {
        async {
            let _passed = self.gate.acquire().await.expect("the gate stays");
            self.files.room().await
        }
        .boxed()
    }

    fn test(&self) -> BoxFuture<'_, Result<Vec<(&'static str, Duration)>, StoreError>> {
        self.files.test()
    }

    fn store_id(&self) -> BoxFuture<'_, Result<u128, StoreError>> {
        self.files.store_id()
    }
}
