//! Checks `[admin]`.

use std::net::{IpAddr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::Checker;
use crate::config::error::Key;
use crate::config::raw::RawAdmin;
use crate::config::{Admin, Http, Listen, value};

/// Networks from which only one's own machines are reached: RFC 1918, RFC 6598 (carriers, and what
/// overlay networks take), RFC 3927.
const PRIVATE_4: [&str; 5] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
];
/// The same in IPv6: RFC 4193, RFC 4291.
const PRIVATE_6: [&str; 2] = ["fc00::/7", "fe80::/10"];

/// Who may reach an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// This machine.
    Machine,
    /// A network that is not the world.
    Private,
    /// Everybody, or nobody can tell.
    World,
}

impl Checker {
    /// Nobody is asked for a password there: so it must not be where the world is.
    pub(super) fn admin(&mut self, raw: &RawAdmin, http: Option<&Http>) -> Option<Admin> {
        let listen = self.list("admin.listen", &raw.listen, value::listen)?;
        let key = Key::of("admin.listen");
        for (index, socket) in listen.iter().enumerate() {
            let written = &raw.listen[index];
            if http.is_some_and(|http| http.listen.contains(socket)) {
                let what = format!("{written:?} stands in http.listen, too");
                self.refuse(
                    key.index(index),
                    what,
                    "use another port: \"127.0.0.1:5051\"",
                );
            }
            let Listen::Tcp(address) = socket else {
                continue;
            };
            match reach(*address) {
                Reach::World if !raw.insecure => {
                    let what = format!("{written:?} may be reached by everybody");
                    let remedy = "use \"127.0.0.1:5051\", or admin.insecure = true behind a \
                        firewall";
                    self.refuse(key.index(index), what, remedy);
                }
                Reach::World | Reach::Private => {
                    let words = format!("{written:?}: whoever reaches it sees what goes on here");
                    self.warn(key.index(index), words);
                }
                Reach::Machine => {}
            }
        }
        Some(Admin { listen })
    }
}

fn reach(address: SocketAddr) -> Reach {
    let is_private = match address.ip().to_canonical() {
        ip if ip.is_loopback() => return Reach::Machine,
        IpAddr::V4(ip) => PRIVATE_4
            .iter()
            .filter_map(|network| network.parse::<Ipv4Net>().ok())
            .any(|network| network.contains(&ip)),
        IpAddr::V6(ip) => PRIVATE_6
            .iter()
            .filter_map(|network| network.parse::<Ipv6Net>().ok())
            .any(|network| network.contains(&ip)),
    };
    match is_private {
        true => Reach::Private,
        false => Reach::World,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_outside_reaches_is_told_from_the_rest() {
        for (address, wanted) in [
            ("127.0.0.1:1", Reach::Machine),
            ("127.8.8.8:1", Reach::Machine),
            ("[::1]:1", Reach::Machine),
            ("[::ffff:127.0.0.1]:1", Reach::Machine),
            ("10.1.2.3:1", Reach::Private),
            ("172.31.255.255:1", Reach::Private),
            ("192.168.1.1:1", Reach::Private),
            ("100.64.0.1:1", Reach::Private),
            ("169.254.1.1:1", Reach::Private),
            ("[fd00::1]:1", Reach::Private),
            ("[fe80::1]:1", Reach::Private),
            ("[::ffff:10.0.0.1]:1", Reach::Private),
            ("0.0.0.0:1", Reach::World),
            ("[::]:1", Reach::World),
            ("172.32.0.1:1", Reach::World),
            ("100.128.0.1:1", Reach::World),
            ("198.51.100.7:1", Reach::World),
            ("[2001:db8::1]:1", Reach::World),
        ] {
            let address: SocketAddr = address.parse().expect("an address");
            assert_eq!(reach(address), wanted, "{address}");
        }
    }
}
