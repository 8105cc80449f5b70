//! Accepts connections: counts them, turns those too many away, gives each of the others a task.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use bytes::BytesMut;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::connection::{Connection, Cut, Rules, drain};
use super::front::line::Line;
use super::front::{End, FIRST_WITHIN, Front};
use super::gate::{Gate, Permit};
use super::listen::{BACKLOG, Incoming, Owner, Socket};
use super::pace::Paced;
use super::room::Room;
use super::tls::{HANDSHAKE_WITHIN, Reloader, Secured};
use super::{Edge, Origin, router_of, stopped};
use crate::config::Http;
use crate::core::forwarded;
use crate::core::refusal::Refusal;
use crate::meters::work;

/// How long to wait when there are no descriptors left for a connection.
const ACCEPT_AGAIN_IN: Duration = Duration::from_millis(100);
/// How often to tell that it goes on.
const TELL_AGAIN_IN: Duration = Duration::from_secs(60);
/// How soon who waits when the service stops can be accepted: at once, once they are seen.
const REST_WITHIN: Duration = Duration::from_millis(20);
/// How long to go on with that where more come all the time.
const ALL_REST_WITHIN: Duration = Duration::from_millis(500);
/// What a connection too many gets, where that costs no waiting.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 5\r\n\
    Access-Control-Allow-Origin: *\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// What all connections share.
pub struct Hall {
    edge: Arc<Edge>,
    router: Router,
    trusted: Vec<IpNet>,
    by_address: Arc<Gate>,
    room: Room,
    tls: Option<Arc<Reloader>>,
    shutdown: watch::Receiver<bool>,
    told_of_proxy: AtomicBool,
}

/// What a connection holds while it lasts.
type Held = (OwnedSemaphorePermit, Option<Permit>);

impl Hall {
    /// A hall with nobody in it.
    pub fn new(
        edge: Arc<Edge>,
        http: &Http,
        tls: Option<Arc<Reloader>>,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        Self {
            router: router_of(edge.clone()),
            edge,
            trusted: http.trusted_proxies.clone(),
            by_address: Arc::default(),
            room: Room::default(),
            tls,
            shutdown,
            told_of_proxy: AtomicBool::new(false),
        }
    }

    /// Accepts connections until the service stops; returns those that are left.
    pub async fn admit(self: Arc<Self>, socket: Socket, owner: Owner) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let mut shutdown = self.shutdown.clone();
        let mut told_at = None;
        loop {
            let next = async {
                let n_max = || self.edge.service.settings().connections_total_max;
                let place = self.room.take(n_max).await;
                (place, socket.accept().await)
            };
            tokio::select! {
                () = stopped(&mut shutdown) => {
                    if owner == Owner::Us {
                        self.admit_rest(&socket, &mut tasks).await;
                    }
                    return tasks;
                }
                Some(ended) = tasks.join_next() => log_panic(ended),
                (place, incoming) = next => match (place, incoming) {
                    (Ok(place), Ok(incoming)) => self.clone().greet(incoming, place, &mut tasks),
                    (_, Err(error)) => on_accept_error(&error, &mut told_at).await,
                    (Err(_), _) => return tasks,
                },
            }
        }
    }

    /// Accepts those that wait already: with the socket they would be reset.
    async fn admit_rest(self: &Arc<Self>, socket: &Socket, tasks: &mut JoinSet<()>) {
        let until = Instant::now() + ALL_REST_WITHIN;
        for _ in 0..BACKLOG {
            let n_max = || self.edge.service.settings().connections_total_max;
            let next = async { (self.room.take(n_max).await, socket.accept().await) };
            match timeout_at(until.min(Instant::now() + REST_WITHIN), next).await {
                Ok((Ok(place), Ok(incoming))) => self.clone().greet(incoming, place, tasks),
                _ => return,
            }
        }
    }

    /// Counts a connection and gives it a task, or turns it away.
    fn greet(
        self: Arc<Self>,
        incoming: Incoming,
        place: OwnedSemaphorePermit,
        tasks: &mut JoinSet<()>,
    ) {
        match incoming {
            Incoming::Tcp(stream, peer) => {
                let peer = peer.ip().to_canonical();
                let Ok(permit) = self.count(peer) else {
                    return self.turn_away(&stream, peer);
                };
                // Answers are written whole: waiting for more would only delay them.
                let _ = stream.set_nodelay(true);
                let origin = Origin {
                    peer: Some(peer),
                    local: stream.local_addr().ok().map(|local| local.ip()),
                };
                tasks.spawn(self.host_tcp(stream, origin, (place, permit)));
            }
            Incoming::Unix(stream) => {
                let origin = Origin {
                    peer: None,
                    local: None,
                };
                tasks.spawn(self.host(stream, origin, (place, None)));
            }
        }
    }

    /// Counts a connection by its address; those of proxies are counted by request (`Edge::enter`).
    fn count(&self, peer: IpAddr) -> Result<Option<Permit>, Refusal> {
        match forwarded::is_proxy(Some(peer), &self.trusted) {
            true => Ok(None),
            false => {
                let n_max = self.edge.service.settings().connections_per_address_max;
                self.by_address.enter(peer, n_max).map(Some)
            }
        }
    }

    fn turn_away(&self, stream: &TcpStream, peer: IpAddr) {
        work().refuse_connection();
        // Where all clients come through a proxy on this machine, the admin has to know.
        if peer.is_loopback() && !self.told_of_proxy.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %peer,
                "too many connections of one address: if it is a proxy, name it in \
                 http.trusted_proxies (told once)"
            );
        } else {
            tracing::debug!(%peer, "too many connections of one address");
        }
        if self.tls.is_none() {
            // What fits into the socket at once, or nothing.
            let _ = stream.try_write(TOO_MANY);
        }
    }

    async fn host_tcp(self: Arc<Self>, stream: TcpStream, origin: Origin, held: Held) {
        let Some(tls) = &self.tls else {
            return self.host(stream, origin, held).await;
        };
        // What a handshake needs is large, and gone before the first request.
        if let Some(stream) = Box::pin(self.shake_hands(tls, stream)).await {
            self.clone().host(stream, origin, held).await;
        }
    }

    async fn shake_hands(&self, tls: &Reloader, stream: TcpStream) -> Option<Secured> {
        let mut shutdown = self.shutdown.clone();
        let handshake = timeout(HANDSHAKE_WITHIN, tls.accept(stream));
        let given_up = async {
            stopped(&mut shutdown).await;
            sleep(FIRST_WITHIN).await;
        };
        let stream = tokio::select! {
            () = given_up => return None,
            stream = handshake => stream,
        };
        match stream {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(%error, "no TLS handshake"),
            Err(_) => tracing::debug!("no TLS handshake in time"),
        }
        None
    }

    /// Answers a connection: files in front, and the rest behind.
    async fn host<S: Line>(self: Arc<Self>, stream: S, origin: Origin, held: Held) {
        let _counted = work().hold_connection();
        let (edge, shutdown) = (self.edge.clone(), self.shutdown.clone());
        let pace = Rules::of(&edge.service.settings()).begin();
        let front = Front::new(edge, origin, stream, pace, shutdown);
        match front.run().await {
            End::Other(stream, pace, read) => {
                // What hyper needs is large: who never comes here does not pay for it.
                let stream = Paced::new(stream, pace);
                Box::pin(self.converse(stream, read, origin)).await;
            }
            End::Close(stream, pace, has_more) => {
                let mut stream = Paced::new(stream, pace);
                if !has_more || drain(&mut stream).await.is_ok() {
                    let _ = stream.shutdown().await;
                }
            }
            End::Cut(stream) => stream.cut(),
            End::Gone => {}
        }
        drop(held);
    }

    /// Answers a connection, of which `read` was read already, by hyper.
    async fn converse<I>(self: Arc<Self>, stream: I, read: BytesMut, origin: Origin)
    where
        I: AsyncRead + AsyncWrite + Cut + Unpin + Send + 'static,
    {
        let connection = Connection {
            router: self.router.clone(),
            origin,
            shutdown: self.shutdown.clone(),
        };
        if let Some(mut stream) = connection.resume(stream, read).await {
            let _ = stream.shutdown().await;
        }
    }
}

/// A connection that broke before it was accepted harms nobody; without descriptors, accepting
/// again at once would only spin, and telling each time would fill the log.
async fn on_accept_error(error: &io::Error, told_at: &mut Option<Instant>) {
    if error.kind() == io::ErrorKind::ConnectionAborted {
        return;
    }
    if told_at.is_none_or(|at| TELL_AGAIN_IN <= at.elapsed()) {
        tracing::error!(%error, "cannot accept connections (too many open files?); trying on");
        *told_at = Some(Instant::now());
    }
    sleep(ACCEPT_AGAIN_IN).await;
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection ended in a panic");
    }
}
