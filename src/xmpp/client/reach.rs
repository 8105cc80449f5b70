//! Connections: where the XMPP server is, TCP that notices a network that is gone, and TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::rdata::SRV;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::xmpp::login::Socket;

/// How long the connection to one address may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(8);
/// How long TLS may take.
const TLS_WITHIN: Duration = Duration::from_secs(15);
/// How long SRV records may take; without them the domain itself is tried.
const SRV_WITHIN: Duration = Duration::from_secs(5);
/// After so long without a word from the other side's kernel a connection is dead, whether it is
/// idle or holds bytes that nobody acknowledges: the network may have changed under it.
pub const DEAD_AFTER: Duration = Duration::from_secs(5);
const PROBES: u32 = 3;
/// So many bytes the kernel takes beyond those on their way: what it holds it cannot tell as sent.
const UNSENT_BYTES: u32 = 64 * 1024;
/// How often it is looked whether our own address has changed.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The port of an XMPP server that names none.
const XMPP_PORT: u16 = 5222;

/// Where an XMPP server may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS from the first byte, not by STARTTLS.
    pub is_direct: bool,
}

/// How to get anywhere.
pub struct Reach {
    /// How TLS is spoken, where anybody is trusted.
    pub tls: Option<Arc<ClientConfig>>,
    /// Where plain text may go.
    pub unencrypted: Unencrypted,
    /// The XMPP server's place, where it was given.
    pub server: Option<(String, u16)>,
}

/// Where plain text may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unencrypted {
    /// Nowhere.
    Never,
    /// To this machine.
    Loopback,
    /// Everywhere: who asks for that has been told.
    Anywhere,
}

impl Reach {
    /// Where the XMPP server of a domain may be, in the order in which to try.
    pub async fn places(&self, domain: &str) -> Vec<Place> {
        let at = |host: &str, port| Place {
            host: host.to_owned(),
            port,
            is_direct: false,
        };
        if let Some((host, port)) = &self.server {
            return vec![at(host, *port)];
        }
        let bare = domain.trim_start_matches('[').trim_end_matches(']');
        if domain == "localhost" || bare.parse::<std::net::IpAddr>().is_ok() {
            return vec![at(bare, XMPP_PORT)];
        }
        let found = match TokioResolver::builder_tokio().and_then(|builder| builder.build()) {
            Ok(resolver) => looked_up(&resolver, domain).await,
            Err(_) => None,
        };
        found.unwrap_or_else(|| vec![at(domain, XMPP_PORT)])
    }

    /// TLS over a connection, as `name`; `alpn` where the protocol has one.
    pub async fn tls(
        &self,
        socket: Box<dyn Socket>,
        name: &str,
        alpn: Option<&[u8]>,
    ) -> io::Result<TlsStream<Box<dyn Socket>>> {
        let Some(config) = &self.tls else {
            let words = "this machine trusts no certificate authority; install ca-certificates, \
                         or name certificates that are trusted";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
        };
        let mut config = config.clone();
        if let Some(protocol) = alpn {
            Arc::make_mut(&mut config).alpn_protocols = vec![protocol.to_vec()];
        }
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        timeout(TLS_WITHIN, TlsConnector::from(config).connect(name, socket)).await?
    }

    /// Whether plain text may go over this connection.
    pub fn allows_plain(&self, socket: &TcpStream) -> bool {
        let is_local = |peer: SocketAddr| peer.ip().to_canonical().is_loopback();
        match self.unencrypted {
            Unencrypted::Never => false,
            Unencrypted::Loopback => socket.peer_addr().is_ok_and(is_local),
            Unencrypted::Anywhere => true,
        }
    }
}

/// Whether an error says that the other side's certificate is not to be trusted: no pause mends it.
pub fn is_distrust(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(
        inner,
        Some(tokio_rustls::rustls::Error::InvalidCertificate(_))
    ) || error.kind() == io::ErrorKind::InvalidInput
}

/// Direct TLS before STARTTLS at the same priority; the lowest priority first, then the weightiest.
fn ordered(direct: Vec<SRV>, starttls: Vec<SRV>) -> Vec<Place> {
    let marked = |records: Vec<SRV>, is_direct| {
        let mark = move |record| (record, is_direct);
        records.into_iter().map(mark)
    };
    let mut records: Vec<(SRV, bool)> = marked(direct, true)
        .chain(marked(starttls, false))
        .collect();
    records
        .sort_by_key(|(record, is_direct)| (record.priority, !is_direct, u16::MAX - record.weight));
    let place = |(record, is_direct): (SRV, bool)| {
        let host = record.target.to_utf8();
        let host = host.trim_end_matches('.');
        // A lone dot: the domain has no such service.
        (!host.is_empty()).then(|| Place {
            host: host.to_owned(),
            port: record.port,
            is_direct,
        })
    };
    records.into_iter().filter_map(place).collect()
}

/// The places that DNS names; none where it names no records, and an empty list where it says that
/// the domain has no such service.
async fn looked_up(resolver: &TokioResolver, domain: &str) -> Option<Vec<Place>> {
    let (direct, starttls) = tokio::join!(
        service_records(resolver, "_xmpps-client._tcp", domain),
        service_records(resolver, "_xmpp-client._tcp", domain)
    );
    let is_named = !direct.is_empty() || !starttls.is_empty();
    is_named.then(|| ordered(direct, starttls))
}

async fn service_records(resolver: &TokioResolver, service: &str, domain: &str) -> Vec<SRV> {
    let asked = resolver.srv_lookup(format!("{service}.{domain}."));
    let Ok(Ok(found)) = timeout(SRV_WITHIN, asked).await else {
        return Vec::new();
    };
    let record = |data: &RData| match data {
        RData::SRV(record) => Some(record.clone()),
        _ => None,
    };
    let answers = found.answers().iter();
    answers.filter_map(|answer| record(&answer.data)).collect()
}

/// The way of a connection: from an address of ours to one of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Ours; none while there is no network.
    local: Option<IpAddr>,
    peer: SocketAddr,
}

impl Route {
    /// The way of a connection that is made.
    pub fn of(socket: &TcpStream) -> io::Result<Self> {
        Ok(Self {
            local: Some(socket.local_addr()?.ip()),
            peer: socket.peer_addr()?,
        })
    }

    /// The way that a connection would take that is made now. Nothing is sent to find out.
    fn now(peer: SocketAddr) -> Self {
        let any: IpAddr = match peer {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let local = UdpSocket::bind((any, 0)).and_then(|socket| {
            socket.connect(peer)?;
            socket.local_addr()
        });
        Self {
            local: local.ok().map(|local| local.ip()),
            peer,
        }
    }

    /// The way to the same place as it is now.
    pub fn again(&self) -> Self {
        Self::now(self.peer)
    }

    /// Whether a connection that is made now would come from another address of ours.
    pub fn is_left(&self) -> bool {
        let now = self.again();
        now.local.is_some() && now != *self
    }

    /// Whether both come from the same address.
    pub fn is_from(&self, other: &Self) -> bool {
        self.local == other.local
    }

    /// Ends when the way is left.
    pub async fn left(&self) {
        while !self.is_left() {
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Connects to the first address that answers. The kernel ends the connection where it has bytes
/// that nobody acknowledges for `dead_after`.
pub async fn tcp(host: &str, port: u16, dead_after: Duration) -> io::Result<TcpStream> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = timeout(CONNECT_WITHIN, lookup_host((host, port))).await??;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match connect(address).await {
            Ok(socket) => {
                watch(&socket, dead_after)?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let route = Route::now(address);
    tokio::select! {
        socket = TcpStream::connect(address) => socket,
        () = route.left() => Err(io::Error::other("the network has changed")),
        () = sleep(CONNECT_WITHIN) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Has the kernel end a connection whose network is gone, and hold little.
fn watch(socket: &TcpStream, dead_after: Duration) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new()
        .with_time(DEAD_AFTER / 2)
        .with_interval(DEAD_AFTER / 5)
        .with_retries(PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(dead_after))?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::Name;

    use super::*;

    fn record(priority: u16, weight: u16, target: &str) -> SRV {
        SRV::new(
            priority,
            weight,
            5222,
            Name::from_ascii(target).expect("a name"),
        )
    }

    #[test]
    fn records_are_tried_in_their_order() {
        let direct = vec![record(10, 0, "d."), record(5, 0, "first.")];
        let starttls = vec![
            record(10, 1, "light."),
            record(10, 9, "heavy."),
            record(0, 0, "."),
        ];
        let places = ordered(direct, starttls);
        let found: Vec<_> = places
            .iter()
            .map(|place| (place.host.as_str(), place.is_direct))
            .collect();
        let wanted = [
            ("first", true),
            ("d", true),
            ("heavy", false),
            ("light", false),
        ];
        assert_eq!(found, wanted);
    }
}
