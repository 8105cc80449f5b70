//! Where an upload's requests came from: one entry for each change of address or user agent.
//!
//! An operator reads from it that a phone moved, or that somebody else has its link. Never a reason
//! to refuse: honest phones change networks more often than thieves do.

use std::net::IpAddr;

use crate::core::forwarded::network;
use crate::core::session::UploadSession;
use crate::core::time::Timestamp;

/// Entries kept; the oldest go first.
pub const NETWORKS_MAX: usize = 16;
/// Longest user agent kept, in bytes.
const AGENT_BYTES_MAX: usize = 120;

/// How much of an address is written down, in rows and in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressPolicy {
    /// All of it.
    #[default]
    Full,
    /// The network: /24 of IPv4, /64 of IPv6.
    Prefix,
    /// Nothing.
    None,
}

impl AddressPolicy {
    /// The address as it is written down.
    pub fn apply(self, address: IpAddr) -> Option<String> {
        match (self, network(address)) {
            (Self::None, _) => None,
            (Self::Full, _) => Some(address.to_canonical().to_string()),
            (Self::Prefix, IpAddr::V6(v6)) => Some(format!("{v6}/64")),
            (Self::Prefix, IpAddr::V4(v4)) => {
                let [a, b, c, _] = v4.octets();
                Some(format!("{a}.{b}.{c}.0/24"))
            }
        }
    }
}

/// Who sent a request, as far as it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visitor {
    /// The address, as it may be written down.
    pub address: Option<String>,
    /// The user agent, as it came.
    pub agent: Option<String>,
}

/// Where requests came from, from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Since when.
    pub at: Timestamp,
    /// The address, as far as it is written down.
    pub address: Option<String>,
    /// The user agent, printable and shortened.
    pub agent: Option<String>,
}

impl UploadSession {
    /// Notes where a request came from, if from elsewhere than the one before.
    pub fn note_visitor(&mut self, visitor: &Visitor, now: Timestamp) {
        let agent = visitor.agent.as_deref().map(printable);
        let is_same = |last: &Network| last.address == visitor.address && last.agent == agent;
        if self.networks.last().is_some_and(is_same) {
            return;
        }
        if NETWORKS_MAX <= self.networks.len() {
            self.networks.remove(0);
        }
        self.networks.push(Network {
            at: now,
            address: visitor.address.clone(),
            agent,
        });
    }

    /// How often the address changed, as far as it is remembered.
    pub fn n_network_changes(&self) -> usize {
        let changed = |pair: &[Network]| pair[0].address != pair[1].address;
        self.networks
            .windows(2)
            .filter(|pair| changed(pair))
            .count()
    }
}

/// Fit for a log and a form: what a peer says of itself may hold anything.
fn printable(text: &str) -> String {
    let mut text: String = text.chars().filter(|c| !c.is_control()).collect();
    let mut end = text.len().min(AGENT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
