//! As whom slotd logs in.

use std::path::PathBuf;

use jid::BareJid;

use super::{Secret, ServerAddress};
use crate::core::relay::Terms;

/// One XEP-0114 component.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// An ordinary account behind a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The account.
    pub jid: BareJid,
    /// Its password.
    pub password: Secret,
    /// Host and port of its server; none is where DNS says.
    pub server: Option<(String, u16)>,
    /// Certificates that are trusted beside those of this machine.
    pub ca: Option<PathBuf>,
    /// Whether the log-in may go without encryption, to this machine alone.
    pub insecure: bool,
    /// The resource; none is one that the server makes.
    pub resource: Option<String>,
    /// The relay's host: the service's JID to everybody, and the one that is believed about others.
    pub relay: String,
}

/// The client-proxy relay: a host of its own, whose requests an account answers.
#[derive(Clone, Debug)]
pub struct Relay {
    /// Its host: one stream.
    pub component: Component,
    /// The account.
    pub target: BareJid,
    /// How many may ask for how long.
    pub terms: Terms,
}
