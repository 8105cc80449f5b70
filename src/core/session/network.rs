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

/// Fit for a log and a form: what a peer says of itself may hold anything, also what XML has no
/// word for.
fn printable(text: &str) -> String {
    let is_fit = |c: &char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    let mut text: String = text.chars().filter(is_fit).collect();
    let mut end = text.len().min(AGENT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::session::samples::{announced, at};

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn visit(row: &mut UploadSession, from: &str, agent: Option<&str>, seconds: u64) {
        let visitor = Visitor {
            address: Some(from.to_owned()),
            agent: agent.map(str::to_owned),
        };
        row.note_visitor(&visitor, at(seconds));
    }

    #[test]
    fn addresses_are_written_down_as_the_policy_says() {
        for (policy, from, written) in [
            (AddressPolicy::Full, "192.0.2.77", Some("192.0.2.77")),
            (AddressPolicy::Full, "::ffff:192.0.2.77", Some("192.0.2.77")),
            (
                AddressPolicy::Full,
                "2001:db8:1:2:3::4",
                Some("2001:db8:1:2:3::4"),
            ),
            (AddressPolicy::Prefix, "192.0.2.77", Some("192.0.2.0/24")),
            (
                AddressPolicy::Prefix,
                "::ffff:192.0.2.77",
                Some("192.0.2.0/24"),
            ),
            (
                AddressPolicy::Prefix,
                "2001:db8:1:2:3::4",
                Some("2001:db8:1:2::/64"),
            ),
            (AddressPolicy::None, "192.0.2.77", None),
        ] {
            let got = policy.apply(address(from));
            assert_eq!(got.as_deref(), written, "{policy:?} {from}");
        }
    }

    #[test]
    fn an_entry_is_a_change() {
        let mut row = announced();
        visit(&mut row, "a", None, 1);
        visit(&mut row, "a", None, 2);
        assert_eq!((row.networks.len(), row.networks[0].at), (1, at(1)));
        visit(&mut row, "a", Some("x"), 3);
        visit(&mut row, "b", Some("x"), 4);
        visit(&mut row, "a", Some("x"), 5);
        assert_eq!((row.networks.len(), row.n_network_changes()), (4, 2));
    }

    #[test]
    fn the_last_sixteen_are_kept() {
        let mut row = announced();
        for n in 0..40 {
            visit(&mut row, &n.to_string(), None, n);
        }
        assert_eq!(row.networks.len(), NETWORKS_MAX);
        assert_eq!(row.networks[0].address.as_deref(), Some("24"));
        assert_eq!(row.networks[15].address.as_deref(), Some("39"));
        assert_eq!(row.n_network_changes(), 15);
    }

    #[test]
    fn agents_are_printable_and_short() {
        assert_eq!(printable("a\r\nb\u{7f}\u{85}c\0"), "abc");
        assert_eq!(printable(&"x".repeat(500)).len(), AGENT_BYTES_MAX);
        // Three bytes each, and one before them: the last one would be cut in two.
        let cut = printable(&format!("a{}", "\u{20ac}".repeat(60)));
        assert_eq!((cut.len(), cut.chars().count()), (118, 40));
        let mut row = announced();
        visit(&mut row, "a", Some("\u{1}"), 1);
        assert_eq!(row.networks[0].agent.as_deref(), Some(""));
    }
}
