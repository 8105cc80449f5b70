//! Sockets and connections: who may connect, how many, for how long, and how it all stops.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::connection::{Connection, Rules};
use super::gate::{Gate, Permit};
use super::tls::{HANDSHAKE_WITHIN, Reloader, TlsError};
use super::{Origin, router, stopped};
use crate::config::{Http, Limits, Listen};
use crate::core::forwarded;
use crate::service::Service;

/// Connections that the kernel holds for us while we are busy.
const BACKLOG: u32 = 1024;
/// Who may use a Unix socket: its owner and its group.
const UNIX_SOCKET_MODE: u32 = 0o660;
/// How long to wait when there are no descriptors left for a connection.
const ACCEPT_AGAIN_IN: Duration = Duration::from_millis(100);
/// Descriptors that are not for connections: database, log, XMPP, files being swept.
const DESCRIPTORS_RESERVED: u64 = 64;
/// How long connections may go on when their uploads have been cut: time for the 503.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// What a connection too many gets, where that costs no waiting.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 5\r\n\
    Access-Control-Allow-Origin: *\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Why the service cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A TCP address.
    #[error("http.listen: {address}: {source}{}", tcp_remedy(source))]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A Unix socket.
    #[error("http.listen: unix:{}: {source}{}", .path.display(), unix_remedy(source))]
    Unix {
        /// The socket's file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Certificate or key.
    #[error("http.tls: {0}")]
    Tls(#[from] TlsError),
}

fn tcp_remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            " (another program listens there: stop it, or take another port)"
        }
        io::ErrorKind::AddrNotAvailable => " (this machine does not have the address)",
        io::ErrorKind::PermissionDenied => {
            " (ports below 1024 need the capability CAP_NET_BIND_SERVICE)"
        }
        _ => "",
    }
}

fn unix_remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            " (another program listens there: stop it, or take another path)"
        }
        io::ErrorKind::AlreadyExists => " (something else than a socket is there: move it away)",
        io::ErrorKind::NotFound => " (its directory is missing: create it)",
        io::ErrorKind::PermissionDenied => " (its directory must be writable for this user)",
        _ => "",
    }
}

/// The sockets of `http.listen`, bound and listening.
pub struct Listeners {
    sockets: Vec<Socket>,
    tls: Option<Arc<Reloader>>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// A connection as it comes in.
enum Incoming {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Listeners {
    /// Binds all sockets and reads the certificate; call it in a runtime.
    pub fn bind(http: &Http) -> Result<Self, BindError> {
        let tls = http.tls.as_ref().map(Reloader::open).transpose()?;
        let sockets = http.listen.iter().map(|listen| match listen {
            Listen::Tcp(address) => bind_tcp(*address).map_err(|source| BindError::Tcp {
                address: *address,
                source,
            }),
            Listen::Unix(path) => bind_unix(path).map_err(|source| BindError::Unix {
                path: path.clone(),
                source,
            }),
        });
        Ok(Self {
            sockets: sockets.collect::<Result<_, _>>()?,
            tls: tls.map(Arc::new),
        })
    }

    /// The TCP addresses, with the ports that the system chose.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.sockets.iter().filter_map(|socket| match socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        });
        addresses.collect()
    }

    /// Serves until `shutdown` is true, and then until all requests have ended, as `stop` says.
    pub async fn serve(
        self,
        http: &Http,
        limits: &Limits,
        service: Arc<Service>,
        shutdown: watch::Receiver<bool>,
    ) {
        let hall = Arc::new(Hall {
            router: router(service.clone(), http, limits),
            rules: Rules::of(limits),
            trusted: http.trusted_proxies.clone(),
            by_address: Gate::new(limits.connections_per_address_max),
            places: Arc::new(Semaphore::new(n_places(limits.connections_max))),
            tls: self.tls,
            shutdown,
        });
        let mut doors = JoinSet::new();
        for socket in self.sockets {
            doors.spawn(hall.clone().admit(socket));
        }
        let mut connections = JoinSet::new();
        while let Some(door) = doors.join_next().await {
            // All doors close together: nobody waits here for long.
            connections.spawn(drain(door.unwrap_or_default()));
        }
        stop(&service, connections, limits.stop_within).await;
    }
}

/// Lets running requests end within `stop_within`, then cuts uploads where they are, which their
/// clients are told by 503, then everything.
async fn stop(service: &Service, mut connections: JoinSet<()>, stop_within: Duration) {
    let n_uploads = service.drain();
    tracing::info!(n_uploads, "HTTP stops");
    let mut all_ended = async || while connections.join_next().await.is_some() {};
    if timeout(stop_within, all_ended()).await.is_ok() {
        return;
    }
    service.cut_uploads().await;
    if timeout(ANSWER_WITHIN, all_ended()).await.is_err() {
        tracing::info!("HTTP ends with requests unanswered");
    }
}

async fn drain(mut connections: JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

/// As many connections as are configured, and no more than there can be descriptors for, of which
/// each may need one for its file.
fn n_places(connections_max: usize) -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let possible = descriptors.saturating_sub(DESCRIPTORS_RESERVED) / 2;
    let possible = usize::try_from(possible).unwrap_or(usize::MAX).max(1);
    if possible < connections_max {
        tracing::warn!(
            connections_max,
            possible,
            "limits.connections_total_max needs more open files than are allowed (ulimit -n, LimitNOFILE)"
        );
    }
    possible
        .min(connections_max)
        .clamp(1, Semaphore::MAX_PERMITS)
}

fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(Socket::Tcp(socket.listen(BACKLOG)?))
}

fn bind_unix(path: &Path) -> io::Result<Socket> {
    remove_stale(path)?;
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    // Before `listen`, so that nobody connects with the mode that the umask left.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(UNIX_SOCKET_MODE))?;
    Ok(Socket::Unix(socket.listen(BACKLOG)?, path.to_owned()))
}

/// Removes a socket that nobody listens on: a crash leaves one.
fn remove_stale(path: &Path) -> io::Result<()> {
    let meta = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        meta => meta?,
    };
    if !meta.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(_) => std::fs::remove_file(path),
    }
}

impl Socket {
    async fn accept(&self) -> io::Result<Incoming> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Incoming::Tcp(stream, peer))
            }
            Self::Unix(listener, _) => Ok(Incoming::Unix(listener.accept().await?.0)),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // The next start would remove it as well.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What all connections share.
struct Hall {
    router: Router,
    rules: Rules,
    trusted: Vec<ipnet::IpNet>,
    by_address: Arc<Gate>,
    places: Arc<Semaphore>,
    tls: Option<Arc<Reloader>>,
    shutdown: watch::Receiver<bool>,
}

/// What a connection holds while it lasts.
type Held = (OwnedSemaphorePermit, Option<Permit>);

impl Hall {
    /// Accepts connections until the service stops; returns those that are left.
    async fn admit(self: Arc<Self>, socket: Socket) -> JoinSet<()> {
        let mut connections = JoinSet::new();
        let mut shutdown = self.shutdown.clone();
        loop {
            let next = async {
                let place = self.places.clone().acquire_owned().await;
                (place, socket.accept().await)
            };
            tokio::select! {
                () = stopped(&mut shutdown) => return connections,
                Some(ended) = connections.join_next() => log_panic(ended),
                (place, incoming) = next => match (place, incoming) {
                    (Ok(place), Ok(incoming)) => self.clone().greet(incoming, place, &mut connections),
                    (_, Err(error)) => self.on_accept_error(&error).await,
                    (Err(_), _) => return connections,
                },
            }
        }
    }

    /// A connection that broke before it was accepted harms nobody; without descriptors, accepting
    /// again at once would only spin.
    async fn on_accept_error(&self, error: &io::Error) {
        if error.kind() != io::ErrorKind::ConnectionAborted {
            tracing::warn!(%error, "cannot accept a connection");
            sleep(ACCEPT_AGAIN_IN).await;
        }
    }

    /// Counts a connection and gives it a task, or turns it away.
    fn greet(
        self: Arc<Self>,
        incoming: Incoming,
        place: OwnedSemaphorePermit,
        connections: &mut JoinSet<()>,
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
                connections.spawn(self.host_tcp(stream, origin, (place, permit)));
            }
            Incoming::Unix(stream) => {
                let origin = Origin {
                    peer: None,
                    local: None,
                };
                connections.spawn(self.host(stream, origin, (place, None)));
            }
        }
    }

    /// Counts a connection by its address; those of proxies are counted by request (`Edge::enter`).
    fn count(&self, peer: IpAddr) -> Result<Option<Permit>, crate::core::refusal::Refusal> {
        match forwarded::is_proxy(Some(peer), &self.trusted) {
            true => Ok(None),
            false => self.by_address.enter(peer).map(Some),
        }
    }

    fn turn_away(&self, stream: &TcpStream, peer: IpAddr) {
        tracing::debug!(
            %peer,
            "too many connections of one address; a proxy belongs into http.trusted_proxies"
        );
        if self.tls.is_none() {
            // What fits into the socket at once, or nothing.
            let _ = stream.try_write(TOO_MANY);
        }
    }

    async fn host_tcp(self: Arc<Self>, stream: TcpStream, origin: Origin, held: Held) {
        let Some(tls) = &self.tls else {
            return self.host(stream, origin, held).await;
        };
        let stream = self.rules.pace(stream);
        let mut shutdown = self.shutdown.clone();
        let handshake = timeout(HANDSHAKE_WITHIN, tls.acceptor().accept(stream));
        let stream = tokio::select! {
            () = stopped(&mut shutdown) => return,
            stream = handshake => stream,
        };
        match stream {
            Ok(Ok(stream)) => self.converse(stream, origin, held).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS handshake"),
            Err(_) => tracing::debug!("no TLS handshake in time"),
        }
    }

    async fn host<I>(self: Arc<Self>, stream: I, origin: Origin, held: Held)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = self.rules.pace(stream);
        self.converse(stream, origin, held).await;
    }

    async fn converse<I>(self: Arc<Self>, stream: I, origin: Origin, held: Held)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = Connection {
            router: self.router.clone(),
            origin,
            shutdown: self.shutdown.clone(),
        };
        if let Some(mut stream) = connection.run(stream).await {
            let _ = stream.shutdown().await;
        }
        drop(held);
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection ended in a panic");
    }
}
