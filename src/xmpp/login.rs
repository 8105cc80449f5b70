//! Connects to the XMPP server and logs in as a component: XEP-0114 #proto.
//!
//! Own log-in over `tokio_xmpp`'s pieces: its `Component` hides why a log-in failed. Each failure
//! is one sentence that names the server's setting to look at.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{SinkExt as _, StreamExt as _};
use minidom::Element;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, BufWriter};
use tokio::net::{TcpStream, UnixStream};
use tokio_xmpp::xmlstream::{
    PendingFeaturesRecv, ReadError, StreamHeader, Timeouts, XmlStream, initiate_stream,
};
use xmpp_parsers::component::Handshake;
use xmpp_parsers::ns;

use super::client;
use super::guard::Guard;
use super::shared::Shared;
use crate::config::{Component, ServerAddress};

/// Longest log-in, from the connection to the server's handshake.
pub const LOGIN_WITHIN: Duration = Duration::from_secs(10);
/// After this long without a byte from the server it is asked for one.
pub const QUIET_FOR: Duration = Duration::from_secs(20);
/// After this much more the stream is dead.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Answers are gathered up to this size before they are written.
const WRITE_BYTES: usize = 32 * 1024;

/// A connection of any kind.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// How to reach a server: `connect`, or what tests have in its place.
pub type Connect =
    Arc<dyn Fn(ServerAddress) -> BoxFuture<'static, io::Result<Box<dyn Socket>>> + Send + Sync>;

/// A stream to the server, as elements.
pub type Wire = XmlStream<Guard<BufWriter<Box<dyn Socket>>>, Element>;

/// A stream that is logged in, and the socket under it.
pub struct Line {
    /// What is read from.
    pub wire: Wire,
    /// What answers are written to.
    pub socket: Shared,
}

/// Why a log-in failed, in words for an admin.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Nobody listens, or the address is wrong.
    #[error(
        "cannot connect to {server}: {source}; is the XMPP server running, and does it listen \
         there for components (Prosody: component_ports; ejabberd: a listener with module \
         ejabberd_service)?"
    )]
    Unreachable {
        /// `component.server`
        server: String,
        /// What the system says.
        source: io::Error,
    },
    /// Nothing came in time.
    #[error("{server} did not finish the log-in within 10 seconds")]
    TimedOut {
        /// `component.server`
        server: String,
    },
    /// The connection ended without a word.
    #[error("{server} closed the connection during the log-in; it may be starting or stopping")]
    Closed {
        /// `component.server`
        server: String,
    },
    /// The secret is wrong; ejabberd says the same of hosts it does not know.
    #[error(
        "the XMPP server refused the secret of {jid}: component.secret must equal \
         component_secret of Component \"{jid}\" in Prosody; in ejabberd, the password of \
         \"{jid}\" under hosts of ejabberd_service, and the host must be listed there"
    )]
    NotAuthorized {
        /// `component.jid`
        jid: String,
    },
    /// The server has no such component.
    #[error(
        "the XMPP server does not know the component {jid}: add Component \"{jid}\" with its \
         component_secret to the configuration of Prosody and restart it, since a reload adds no \
         host (or add \"{jid}\" to hosts of ejabberd_service); or correct component.jid, or \
         component.server if that is not the port for components"
    )]
    HostUnknown {
        /// `component.jid`
        jid: String,
    },
    /// Somebody else holds the name.
    #[error(
        "another connection holds {jid} on the XMPP server: another slotd, or a connection of \
         our own whose end the server has not noticed yet; with component_conflict_resolve = \
         \"kick_old\" Prosody lets the newer one in; in ejabberd {jid} must not be one of its hosts"
    )]
    Conflict {
        /// `component.jid`
        jid: String,
    },
    /// Another stream error.
    #[error("the XMPP server refused the stream of {jid}: {reason}")]
    Refused {
        /// `component.jid`
        jid: String,
        /// The condition, and the server's words.
        reason: String,
    },
    /// An account is not let in.
    #[error(transparent)]
    Account(#[from] client::LoginError),
    /// Something else listens there.
    #[error(
        "{server} does not speak the component protocol (XEP-0114): is it the port for \
         components, not the one for clients?"
    )]
    NotComponentPort {
        /// `component.server`
        server: String,
    },
}

impl LoginError {
    /// Whether the server has spoken: only somebody's hand will change its mind.
    pub fn is_refusal(&self) -> bool {
        !matches!(
            self,
            Self::Unreachable { .. }
                | Self::TimedOut { .. }
                | Self::Closed { .. }
                | Self::Account(client::LoginError::Unreachable(_))
        )
    }
}

/// A stream error as it came: its condition and its words. RFC 6120 #4.9.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamError {
    /// The condition's name, such as `conflict`.
    pub condition: String,
    /// The server's words, where it has some.
    pub text: String,
}

impl StreamError {
    /// Reads `<stream:error/>`; `None` for any other element.
    pub fn read(element: &Element) -> Option<Self> {
        if !element.is("error", ns::STREAM) {
            return None;
        }
        let of_kind = |child: &&Element| child.has_ns(ns::XMPP_STREAMS) && child.name() != "text";
        let condition = element.children().find(of_kind).map(Element::name);
        let text = element.get_child("text", ns::XMPP_STREAMS);
        Some(Self {
            condition: condition.unwrap_or("undefined-condition").to_owned(),
            text: text.map(Element::text).unwrap_or_default(),
        })
    }

    /// The condition, and the server's words in brackets.
    pub fn reason(&self) -> String {
        match self.text.as_str() {
            "" => self.condition.clone(),
            text => format!("{} ({})", self.condition, text.escape_debug()),
        }
    }

    /// What it means for a log-in as `jid` at `server`.
    pub fn into_login_error(self, component: &Component) -> LoginError {
        let jid = component.jid.clone();
        match self.condition.as_str() {
            "not-authorized" => LoginError::NotAuthorized { jid },
            "host-unknown" => LoginError::HostUnknown { jid },
            "conflict" => LoginError::Conflict { jid },
            "invalid-namespace" | "unsupported-version" => LoginError::NotComponentPort {
                server: spell(&component.server),
            },
            "system-shutdown" => LoginError::Closed {
                server: spell(&component.server),
            },
            _ => LoginError::Refused {
                jid,
                reason: self.reason(),
            },
        }
    }
}

/// The server's address as the configuration spells it.
pub fn spell(server: &ServerAddress) -> String {
    match server {
        ServerAddress::Tcp(address) => address.clone(),
        ServerAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Connects and logs in, within `LOGIN_WITHIN` in all.
pub async fn log_in(component: &Component, connect: &Connect) -> Result<Line, LoginError> {
    let server = || spell(&component.server);
    let login = async {
        let socket = connect(component.server.clone()).await;
        let socket = socket.map_err(|source| LoginError::Unreachable {
            server: server(),
            source,
        })?;
        log_in_over(socket, component).await
    };
    let ended = tokio::time::timeout(LOGIN_WITHIN, login).await;
    ended.unwrap_or_else(|_| Err(LoginError::TimedOut { server: server() }))
}

/// Connects over TCP or a Unix socket.
pub async fn connect(server: ServerAddress) -> io::Result<Box<dyn Socket>> {
    match server {
        ServerAddress::Tcp(address) => {
            let socket = TcpStream::connect(address).await?;
            watch_peer(&socket)?;
            Ok(Box::new(socket))
        }
        ServerAddress::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
    }
}

/// Has the kernel notice a peer that is gone, also while we have something to send.
fn watch_peer(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, QUIET_FOR)?;
    sockopt::set_tcp_keepintvl(socket, ANSWER_WITHIN / 4)?;
    sockopt::set_tcp_keepcnt(socket, 4)?;
    let dead_after = (QUIET_FOR + ANSWER_WITHIN).as_millis();
    let dead_after_ms = u32::try_from(dead_after).expect("40 s in milliseconds fit into 32 bits");
    sockopt::set_tcp_user_timeout(socket, dead_after_ms)?;
    Ok(())
}

async fn log_in_over(socket: Box<dyn Socket>, component: &Component) -> Result<Line, LoginError> {
    let shared = Shared::new(socket);
    let socket: Box<dyn Socket> = Box::new(shared.clone());
    let header = StreamHeader {
        to: Some((&component.jid).into()),
        ..StreamHeader::default()
    };
    let timeouts = Timeouts {
        read_timeout: QUIET_FOR,
        response_timeout: ANSWER_WITHIN,
    };
    let guard = Guard::new(BufWriter::with_capacity(WRITE_BYTES, socket));
    let begun = initiate_stream(guard, ns::COMPONENT, header, timeouts).await;
    let mut begun: PendingFeaturesRecv<_> = begun.map_err(|error| failed(component, &error))?;
    let id = begun.take_header().id.unwrap_or_default().into_owned();
    let mut wire: Wire = begun.skip_features();
    let handshake = Handshake::from_stream_id_and_password(id, &component.secret.0);
    // A server that refused the header has said so, and may be gone before this is written.
    let sent = wire.send(&handshake).await;
    let answer = wire.next().await;
    let closed = || LoginError::Closed {
        server: spell(&component.server),
    };
    match answer {
        Some(Ok(element)) if element.is("handshake", ns::COMPONENT) => {
            sent.map_err(|error| failed(component, &error))?;
            Ok(Line {
                wire,
                socket: shared,
            })
        }
        Some(Ok(element)) => Err(match StreamError::read(&element) {
            Some(error) => error.into_login_error(component),
            None => LoginError::NotComponentPort {
                server: spell(&component.server),
            },
        }),
        Some(Err(ReadError::HardError(error))) => Err(failed(component, &error)),
        Some(Err(_)) | None => Err(closed()),
    }
}

fn failed(component: &Component, error: &io::Error) -> LoginError {
    let server = spell(&component.server);
    match error.kind() {
        // XML of another kind, or no XML at all.
        io::ErrorKind::InvalidData if !is_cut_off(error) => LoginError::NotComponentPort { server },
        _ => LoginError::Closed { server },
    }
}

/// Whether the parser only misses the end: the connection was closed.
pub fn is_cut_off(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(minidom::rxml::Error::InvalidEof(_)))
}
