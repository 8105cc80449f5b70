//! Which address a request counts for: the socket's, or the one that a trusted proxy names.
//!
//! Only X-Forwarded-For is read, and only from the right: each proxy appends the address it saw, so
//! the rightmost entry that is no proxy of ours is the last one that nobody could invent. The
//! `Forwarded` and `X-Real-IP` fields are not read: a proxy that does not set them passes on what
//! the client made up.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;
use ipnet::IpNet;

/// The field that proxies append addresses to.
pub const FORWARDED_FOR: &str = "x-forwarded-for";
/// The bits of an IPv6 address that name a customer's network: within it, addresses are free.
const IPV6_NETWORK: u128 = !0 << 64;

/// The client's address, for a connection that came from `peer` with `request` fields.
///
/// `None` for `peer` is a Unix socket: its file's mode says who may connect, so what comes through
/// it is trusted as a proxy is. What cannot be read as an address ends the walk: the answer is the
/// nearest hop that could be.
pub fn client(peer: Option<IpAddr>, request: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let mut nearest = peer.map(|address| address.to_canonical());
    if nearest.is_some_and(|address| !is_trusted(address)) {
        return nearest;
    }
    let fields = request.get_all(FORWARDED_FOR).into_iter();
    let fields: Vec<&[u8]> = fields.map(|value| value.as_bytes()).collect();
    let hops = fields
        .iter()
        .rev()
        .flat_map(|list| list.rsplit(|b| *b == b','));
    for hop in hops {
        let Some(address) = parse(hop) else { break };
        nearest = Some(address);
        if !is_trusted(address) {
            break;
        }
    }
    nearest
}

/// Whether a request says that it came through a proxy, be it one that nobody vouches for.
pub fn is_marked(request: &HeaderMap) -> bool {
    let marks = [FORWARDED_FOR, "forwarded", "via"];
    marks.iter().any(|mark| request.contains_key(*mark))
}

/// Whether connections from `peer` carry the requests of others.
pub fn is_proxy(peer: Option<IpAddr>, trusted: &[IpNet]) -> bool {
    peer.is_none_or(|peer| trusted.iter().any(|net| net.contains(&peer.to_canonical())))
}

/// What addresses are counted by: IPv4 as it is, mapped or not; IPv6 by its /64.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & IPV6_NETWORK)),
        v4 => v4,
    }
}

/// Reads `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`, each
/// IPv6 form also with a zone.
fn parse(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim_matches([' ', '\t']);
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']')?;
            let port = match after {
                "" => None,
                after => Some(after.strip_prefix(':')?),
            };
            (address, port)
        }
        None => match text.split_once(':') {
            Some((address, port)) if !port.contains(':') => (address, Some(port)),
            _ => (text, None),
        },
    };
    let is_port =
        |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    if port.is_some_and(|port| !is_port(port)) {
        return None;
    }
    let address = match address.split_once('%') {
        Some((address, _zone)) if address.contains(':') => address,
        _ => address,
    };
    Some(address.parse::<IpAddr>().ok()?.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// The only place that calls `client`: rows are peer, X-Forwarded-For fields, who counts.
    #[track_caller]
    fn check(peer: &str, fields: &[&str], counts: &str) {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("a network"));
        let mut request = HeaderMap::new();
        for field in fields {
            request.append(FORWARDED_FOR, field.parse().expect("a field value"));
        }
        request.insert("x-real-ip", "203.0.113.99".parse().expect("a field value"));
        request.insert(
            "forwarded",
            "for=203.0.113.98".parse().expect("a field value"),
        );
        let peer = (!peer.is_empty()).then(|| address(peer));
        let got = client(peer, &request, &trusted).map(|address| address.to_string());
        assert_eq!(got.unwrap_or_default(), counts, "{fields:?}");
    }

    #[test]
    fn others_than_proxies_count_for_themselves() {
        check("192.0.2.1", &[], "192.0.2.1");
        check("192.0.2.1", &["203.0.113.7"], "192.0.2.1");
        check("::ffff:192.0.2.1", &["203.0.113.7"], "192.0.2.1");
        check("2001:db8::1", &["203.0.113.7, 10.0.0.2"], "2001:db8::1");
    }

    #[test]
    fn the_rightmost_that_is_no_proxy() {
        check(PROXY, &["203.0.113.7"], "203.0.113.7");
        check("::ffff:10.0.0.1", &["203.0.113.7"], "203.0.113.7");
        check(PROXY, &["198.51.100.1, 203.0.113.7"], "203.0.113.7");
        check(PROXY, &["198.51.100.1", "203.0.113.7"], "203.0.113.7");
        check(PROXY, &["203.0.113.7, 10.0.0.2,10.0.0.3"], "203.0.113.7");
        check(PROXY, &["203.0.113.7,\t::ffff:10.0.0.2"], "203.0.113.7");
        check(PROXY, &["10.0.0.9, 10.0.0.2"], "10.0.0.9");
        check("fd00::1", &["2001:db8::7"], "2001:db8::7");
        check("", &["203.0.113.7"], "203.0.113.7");
        check("", &[], "");
        let many = vec!["198.51.100.1"; 100].join(", ");
        check(PROXY, &[&many, "203.0.113.7"], "203.0.113.7");
    }

    #[test]
    fn spellings() {
        for (hop, counts) in [
            ("203.0.113.7:8080", "203.0.113.7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:8080", "2001:db8::7"),
            ("2001:db8::7", "2001:db8::7"),
            ("fe80::7%eth0", "fe80::7"),
            ("[fe80::7%25eth0]:1", "fe80::7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
        ] {
            check(PROXY, &[hop], counts);
        }
    }

    #[test]
    fn garbage_is_the_proxys_own() {
        for hop in [
            "",
            "unknown",
            "_hidden",
            "203.0.113.7:port",
            "203.0.113.7:99999",
            "203.0.113.7%eth0",
            "[2001:db8::7",
            "[2001:db8::7]x",
            "203.0.113",
            "203.0.113.7 198.51.100.1",
            &"9".repeat(16_000),
        ] {
            check(PROXY, &[hop], PROXY);
            check(PROXY, &["203.0.113.7", hop], PROXY);
            check(PROXY, &[hop, "10.0.0.2"], "10.0.0.2");
        }
    }

    #[test]
    fn neighbors_share_a_network() {
        let same = |a, b| network(address(a)) == network(address(b));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(same("2001:db8::1", "2001:db8::2"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }
}
