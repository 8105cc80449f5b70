//! The sockets of `http.listen`: bound before anything else starts, and how serving stops.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Edge;
use super::hall::Hall;
use super::inherited::{Given, Inherited};
use super::tls::{Reloader, TlsError};
use crate::config::{Http, Listen};
use crate::service::Service;

/// Connections that the kernel holds for us while we are busy.
pub(super) const BACKLOG: u32 = 1024;
/// Who may use a Unix socket: its owner and its group.
const UNIX_SOCKET_MODE: u32 = 0o660;
/// How long connections may go on when their uploads have been cut: time for the 503.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Why the service cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A TCP address.
    #[error("{key}: {address}: {source}{}", tcp_remedy(source))]
    Tcp {
        /// The option that names it.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A Unix socket.
    #[error("{key}: unix:{}: {source}{}", .path.display(), unix_remedy(source))]
    Unix {
        /// The option that names it.
        key: &'static str,
        /// The socket's file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Certificate or key.
    #[error("http.tls: {0}")]
    Tls(#[from] TlsError),
}

impl BindError {
    fn new(key: &'static str, listen: &Listen, source: io::Error) -> Self {
        match listen.clone() {
            Listen::Tcp(address) => Self::Tcp {
                key,
                address,
                source,
            },
            Listen::Unix(path) => Self::Unix { key, path, source },
        }
    }
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
    sockets: Vec<(Socket, Owner)>,
    tls: Option<Arc<Reloader>>,
}

/// A listening socket; the file of one that is ours is removed with it.
pub enum Socket {
    /// Of an address.
    Tcp(TcpListener),
    /// Of a file.
    Unix(UnixListener, Option<PathBuf>),
}

/// Whose a listening socket is: what becomes of connections that come after the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It ends with us, and they are refused.
    Us,
    /// The service manager keeps it, and they wait for the next start.
    Manager,
}

impl Listeners {
    /// Binds all sockets and reads the certificate; call it in a runtime.
    pub fn bind(http: &Http) -> Result<Self, BindError> {
        Self::bind_others(http, &mut Inherited::default())
    }

    /// The same, but for sockets that are `inherited`: these are taken from there.
    pub fn bind_others(http: &Http, inherited: &mut Inherited) -> Result<Self, BindError> {
        let tls = http.tls.as_ref().map(Reloader::open).transpose()?;
        let open = |listen| Socket::open("http.listen", listen, inherited);
        let sockets = http.listen.iter().map(open);
        Ok(Self {
            sockets: sockets.collect::<Result<_, BindError>>()?,
            tls: tls.map(Arc::new),
        })
    }

    /// What reads the certificate, where there is one.
    pub fn tls(&self) -> Option<Arc<Reloader>> {
        self.tls.clone()
    }

    /// The TCP addresses, with the ports that the system chose.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.sockets.iter().filter_map(|(socket, _)| match socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        });
        addresses.collect()
    }

    /// Serves until `shutdown` is true, and then until all requests have ended, as `stop` says.
    pub async fn serve(self, http: &Http, service: Arc<Service>, shutdown: watch::Receiver<bool>) {
        let edge = Arc::new(Edge::new(service.clone(), http));
        let hall = Arc::new(Hall::new(edge, http, self.tls, shutdown));
        let mut doors = JoinSet::new();
        for (socket, owner) in self.sockets {
            doors.spawn(hall.clone().admit(socket, owner));
        }
        let mut connections = JoinSet::new();
        while let Some(door) = doors.join_next().await {
            // All doors close together: nobody waits here for long.
            connections.spawn(drain(door.unwrap_or_default()));
        }
        stop(&service, connections).await;
    }
}

/// Lets running requests end within `stop_within`, then cuts uploads where they are, which their
/// clients are told by 503, then everything.
async fn stop(service: &Service, mut connections: JoinSet<()>) {
    let stop_within = service.settings().stop_within;
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

fn bind(listen: &Listen) -> io::Result<Socket> {
    match listen {
        Listen::Tcp(address) => bind_tcp(*address),
        Listen::Unix(path) => bind_unix(path),
    }
}

fn adopt(given: Given) -> io::Result<Socket> {
    match given {
        Given::Tcp(listener) => {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener).map(Socket::Tcp)
        }
        Given::Unix(listener) => {
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener).map(|listener| Socket::Unix(listener, None))
        }
    }
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
    let listener = socket.listen(BACKLOG)?;
    Ok(Socket::Unix(listener, Some(path.to_owned())))
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

/// A connection as it comes in.
pub enum Incoming {
    /// With the other end's address.
    Tcp(TcpStream, SocketAddr),
    /// From this machine.
    Unix(UnixStream),
}

impl Socket {
    /// The socket that the option `key` names: the one that is `inherited`, or a new one. Call it
    /// in a runtime.
    pub fn open(
        key: &'static str,
        listen: &Listen,
        inherited: &mut Inherited,
    ) -> Result<(Self, Owner), BindError> {
        let (socket, owner) = match inherited.claim(listen) {
            Some(given) => (adopt(given), Owner::Manager),
            None => (bind(listen), Owner::Us),
        };
        let socket = socket.map_err(|source| BindError::new(key, listen, source))?;
        Ok((socket, owner))
    }

    /// The next connection; nothing is lost where this is dropped before it comes.
    pub async fn accept(&self) -> io::Result<Incoming> {
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
        if let Self::Unix(_, Some(path)) = self {
            // The next start would remove it as well.
            let _ = std::fs::remove_file(path);
        }
    }
}
