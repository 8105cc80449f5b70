//! What the configuration means, checked: `conf/slotd.toml` explains every option.
//!
//! `raw` is what was written; this is what it means. Every check that needs no I/O is made on the
//! way from one to the other, so that the rooms below never check again.
//!
//! `document` reads the text and knows the lines, `raw` has keys and defaults, `value` reads single
//! values, `check` makes a `Config` of them (`login` is as whom slotd logs in), `secret` and
//! `files` look at the disk and change nothing, `error` tells what is wrong and where, `summary`
//! what is right, `table` every option.

use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use jid::BareJid;

use crate::core::accel::Accel;
use crate::core::bans::failures::FailureLimit;
use crate::core::bosh::manager::WarmBinding;
use crate::core::command::operation::Configured;
use crate::core::external::System;
use crate::core::policy::Policy;
use crate::core::rate::Rate;
use crate::core::session::network::AddressPolicy;

use self::check::Checker;
use self::document::Document;
use self::error::{ConfigError, Fault, Key, Problem};
use self::secret::SecretSource;

mod check;
pub mod data_dir;
mod document;
pub mod error;
mod files;
mod login;
mod raw;
mod secret;
pub mod summary;
mod table;
mod value;

pub use login::{Account, Component, Relay};

/// No configuration file is larger.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// What clients asked for slots in before `urn:xmpp:http:upload:0`.
pub const LEGACY_NAMESPACES: [&str; 2] =
    ["urn:xmpp:http:upload", "eu:siacs:conversations:http:upload"];

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything that must survive is kept.
    pub data_dir: PathBuf,
    /// What is durable before it is acknowledged.
    pub durability: Durability,
    /// Threads of the runtime; `None` is as many as there are cores.
    pub worker_threads: Option<usize>,
    /// The component streams; none, and no account, is a service without XMPP.
    pub components: Vec<Component>,
    /// The account to log in as, in place of components.
    pub account: Option<Account>,
    /// Namespaces of before XEP-0363 that are answered, too: some of `LEGACY_NAMESPACES`.
    pub legacy_namespaces: Vec<&'static str>,
    /// The client-proxy relay.
    pub relay: Option<Relay>,
    /// The HTTP side.
    pub http: Http,
    /// The private listener.
    pub admin: Admin,
    /// Other systems whose tokens are taken.
    pub external: Vec<System>,
    /// The rules of slot requests.
    pub policy: Policy,
    /// The rules of traffic.
    pub limits: Limits,
    /// How many failures bring a ban; `None` is no number of them.
    pub bans: Option<FailureLimit>,
    /// How files go.
    pub retention: Retention,
    /// How keys go.
    pub keys: Keys,
    /// Accounts that may run operators' commands.
    pub operators: Vec<BareJid>,
    /// Who binds BOSH sessions for others, and where, if anybody.
    pub warm_binding: Option<WarmBinding>,
    /// XEP-0157 addresses: the field's name (`abuse-addresses`) and its URIs.
    pub contact: Vec<(&'static str, Vec<String>)>,
    /// Where the log goes.
    pub log: Log,
}

impl Config {
    /// The hosts that requesters know us by.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        hosts(&self.components, self.account.as_ref())
    }

    /// The relay's host.
    pub fn relay_host(&self) -> Option<&str> {
        let relay = self.relay.as_ref();
        relay.map(|relay| relay.component.jid.as_str())
    }
}

/// The hosts that requesters know us by: those of components, or that of the account's relay.
fn hosts<'a>(
    components: &'a [Component],
    account: Option<&'a Account>,
) -> impl Iterator<Item = &'a str> {
    let components = components.iter().map(|component| component.jid.as_str());
    components.chain(account.map(|account| account.relay.as_str()))
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
    /// Whether these pass interim responses on.
    pub proxy_forwards_1xx: bool,
    /// Where a slot carries its token.
    pub token_in: TokenIn,
    /// Who sends the bytes of downloads that come through a trusted proxy.
    pub accel: Accel,
    /// TLS on the TCP listeners.
    pub tls: Option<Tls>,
}

/// The private listener: metrics, and how the service is.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where to listen; none where there is no such listener.
    pub listen: Vec<Listen>,
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
    pub connections_total_max: usize,
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
    /// Where lines go beside standard error.
    pub file: Option<PathBuf>,
    /// Where the audit log goes.
    pub audit_file: Option<PathBuf>,
    /// How much of clients' addresses is written down, here and in the rows of uploads.
    pub addresses: AddressPolicy,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// A configuration without faults.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it means.
    pub config: Config,
    /// What is allowed and yet may hurt, a line each.
    pub warnings: Vec<String>,
    /// Every option as it would be written, without secrets.
    pub configured: Vec<Configured>,
}

/// What a configuration is wanted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// To serve: needs secrets, and files that can be read.
    Serving {
        /// Where the secret of every component is, in place of what the file says.
        secret_file: Option<PathBuf>,
    },
    /// To look after `data_dir`: logs in nowhere, so that no secret is read.
    DataDir,
}

/// Reads a configuration file and whatever secrets it names. Changes nothing anywhere.
pub fn load(file: &Path, wanted: &Use) -> Result<Loaded, ConfigError> {
    let fail = |line, what: String, remedy: &str| ConfigError {
        file: file.to_owned(),
        faults: vec![Fault {
            line,
            key: Key::default(),
            problem: Problem::new(what, remedy),
        }],
    };
    let bytes = read(file).map_err(|error| {
        let remedy = "name a readable file with --config; conf/slotd.toml is a sample";
        fail(None, format!("cannot be read: {error}"), remedy)
    })?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = document::line_at(&bytes, error.valid_up_to());
        fail(
            Some(line),
            "is not UTF-8".to_owned(),
            "save the file as UTF-8",
        )
    })?;
    parse(file, text, wanted)
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(file)?;
    file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if CONFIG_BYTES_MAX < bytes.len() as u64 {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// Reads `text`, which is the content of `file`, and whatever secrets it names.
pub fn parse(file: &Path, text: &str, wanted: &Use) -> Result<Loaded, ConfigError> {
    let fail = |faults: Vec<Fault>| ConfigError {
        file: file.to_owned(),
        faults,
    };
    let document = Document::parse(text).map_err(|fault| fail(vec![fault]))?;
    let raw = document.read().map_err(|fault| fail(vec![fault]))?;
    let mut checker = Checker::default();
    let read_secret = |source: Option<&SecretSource>| match wanted {
        Use::DataDir => Ok(Secret(String::new())),
        Use::Serving { .. } => secret::read(source, std::env::var_os("CREDENTIALS_DIRECTORY")),
    };
    let config = checker.config(
        &raw,
        &|source| match wanted {
            Use::Serving {
                secret_file: Some(forced),
            } => read_secret(Some(&SecretSource::File(forced.clone()))),
            _ => read_secret(source),
        },
        &read_secret,
    );
    if let (Some(config), Use::Serving { .. }) = (&config, wanted) {
        files::look(config, &mut checker);
        if let Some(key) = raw.inline_secret() {
            files::look_at_own_mode(file, key, &mut checker);
        }
    }
    match config {
        Some(config) if checker.faults.is_empty() => Ok(Loaded {
            config,
            warnings: checker.warnings.into_iter().map(warning).collect(),
            configured: table::rows(&raw),
        }),
        _ => {
            let mut faults: Vec<Fault> = checker
                .faults
                .into_iter()
                .map(|(key, problem)| Fault {
                    line: Some(document.line_of(&key)),
                    key,
                    problem,
                })
                .collect();
            faults.sort_by_key(|fault| fault.line);
            Err(fail(faults))
        }
    }
}

fn warning((key, words): (Key, String)) -> String {
    format!("{key}: {words}")
}
