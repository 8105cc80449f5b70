//! What the configuration means, checked: `conf/slotd.toml` explains every option.
//!
//! `raw` is what was written; this is what it means. Every check that needs no I/O is made on the
//! way from one to the other, so that the rooms below never check again.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::core::policy::Policy;
use crate::core::rate::Rate;

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything that must survive is kept.
    pub data_dir: PathBuf,
    /// What is durable before it is acknowledged.
    pub durability: Durability,
    /// Threads of the runtime; `None` is as many as there are cores.
    pub worker_threads: Option<usize>,
    /// The component streams; none is a service without XMPP.
    pub components: Vec<Component>,
    /// The HTTP side.
    pub http: Http,
    /// The rules of slot requests.
    pub policy: Policy,
    /// The rules of traffic.
    pub limits: Limits,
    /// How files go.
    pub retention: Retention,
    /// How keys go.
    pub keys: Keys,
    /// XEP-0157 addresses: the field's name (`abuse-addresses`) and its URIs.
    pub contact: Vec<(&'static str, Vec<String>)>,
    /// Where the log goes.
    pub log: Log,
}

/// What is durable before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Content and name: survives a power cut.
    Full,
    /// Content alone: the name may be lost with a power cut.
    Data,
    /// Neither: a power cut loses what the kernel had not written.
    None,
}

/// One XEP-0114 component.
#[derive(Clone, Debug)]
pub struct Component {
    /// Its host name: the service's JID.
    pub jid: String,
    /// Where the XMPP server listens for components.
    pub server: ServerAddress,
    /// The shared secret.
    pub secret: Secret,
    /// How many streams to hold: several only with a server that takes several for one host.
    pub connections: u8,
}

/// Where an XMPP server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerAddress {
    /// `host:port`
    Tcp(String),
    /// `unix:/path`
    Unix(PathBuf),
}

/// A secret; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

/// The HTTP side.
#[derive(Clone, Debug)]
pub struct Http {
    /// Where to listen; at least one.
    pub listen: Vec<Listen>,
    /// What every URL given out begins with; ends in `/`.
    pub public_url: String,
    /// Networks whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Where a slot carries its token.
    pub token_in: TokenIn,
    /// TLS on the TCP listeners.
    pub tls: Option<Tls>,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// `address:port`
    Tcp(SocketAddr),
    /// `unix:/path`
    Unix(PathBuf),
}

/// Where a slot carries its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenIn {
    /// In the PUT URL's query, as `t`.
    Url,
    /// In an Authorization header of the slot.
    Header,
}

/// Where certificate and key are, in PEM; both are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The rules of traffic.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Slots for one requester.
    pub slot_rate: Rate,
    /// Bytes of slots for one requester.
    pub byte_rate: Option<Rate>,
    /// How long a transfer may stand still.
    pub stall_for: Duration,
    /// The slowest transfer, in bytes a second, averaged over `stall_for`.
    pub rate_min_bytes: u64,
    /// Connections of one address.
    pub connections_per_address_max: usize,
    /// All connections.
    pub connections_max: usize,
    /// Whether a PUT must have the slot's content type.
    pub check_content_type: bool,
    /// How long the service waits for running requests when it is stopped.
    pub stop_within: Duration,
}

/// How files go. How long each purpose is kept stands in `Policy::lifetimes`.
#[derive(Clone, Debug)]
pub struct Retention {
    /// Above this many stored bytes the oldest files go first.
    pub total_bytes_max: Option<u64>,
    /// How often to look for what is due.
    pub sweep_every: Duration,
    /// Where each deletion is noted, one JSON object a line.
    pub report_file: Option<PathBuf>,
}

/// How signing keys go.
#[derive(Clone, Debug)]
pub struct Keys {
    /// How long a key signs; `None` is until somebody rotates it.
    pub rotate_every: Option<Duration>,
    /// How long a replaced key still opens tokens.
    pub keep_old_for: Duration,
}

/// Where the log goes.
#[derive(Clone, Debug)]
pub struct Log {
    /// A level, or directives as `tracing_subscriber::EnvFilter` reads them.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}
