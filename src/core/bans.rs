//! Who may not come in for a while: accounts and domains over XMPP, addresses and networks over
//! HTTP.
//!
//! An operator bans whom they like, but nobody that would lock everybody out (`BanPolicy::check`).
//! Who fails again and again is banned without one (`failures`); the bans in force stand in one
//! table of bounded size (`table`). Pure: the time is an argument.
//!
//! # What a ban stops
//!
//! A banned address gets nothing, no downloads either. A banned account or domain gets no slots,
//! and no answer about upload sessions and commands; what it has begun may come to its end, and its
//! files stay until somebody purges them.
//!
//! # What counts as a failure
//!
//! Only what no honest client does by mistake, and what no link makes another's client do (a page
//! could make a browser write: that costs its visitor an hour, and gains nobody anything):
//! * of an address, a request that writes (PUT, PATCH, DELETE) with a credential that we never
//!   sealed. Credentials of ours that are late, used, of a key that is gone or of another slot are
//!   none: so come phones from a tunnel. What is read is none, be it guessed or gone: a chat's
//!   links would get everybody banned who looks at them. Malformed requests are none either: a
//!   proxy that was set up wrongly sends everybody's.
//! * of an address, a wrong password with which somebody asks for warm bindings.
//! * of an account, a slot that it asks for in spite of the rate, and an operators' command that it
//!   may not run and was never offered. What fails within one second is one failure: a client that
//!   sends an album asks for all of it at once. Who may not upload here at all, or has used up the
//!   quota, was told so, and asking again costs us as little as a ban would.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jid::BareJid;

use crate::core::command::form::{Wrong, shortened};
use crate::core::forwarded::network;
use crate::core::policy::Access;
use crate::core::session::network::AddressPolicy;
use crate::core::time::Timestamp;

pub mod failures;
pub mod table;

use self::failures::FailureLimit;

/// The shortest prefixes that can be banned at once: what one provider hands out.
const PREFIX_LEN_MIN_V4: u8 = 16;
const PREFIX_LEN_MIN_V6: u8 = 32;
/// The longest prefix of IPv6: within a customer's network addresses are free.
const PREFIX_LEN_MAX_V6: u8 = 64;
/// The longest reason that is kept, in characters.
const REASON_CHARS_MAX: usize = 200;

/// Who is banned.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// An account.
    Account(BareJid),
    /// All accounts of a domain, and the domain itself; not those below it.
    Domain(BareJid),
    /// An address or a network; of IPv6 at least a /64.
    Network(IpNet),
}

impl Subject {
    /// What a connection's or a proxy's client is banned by: IPv4 by the address, IPv6 by its /64.
    pub fn of_address(address: IpAddr) -> Self {
        Self::Network(canonical(IpNet::from(network(address))))
    }

    /// Reads an account, a domain, an address or a network.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let text = text.trim();
        if text.contains('@') {
            return jid(text).map(Self::Account);
        }
        if text.contains([':', '/']) || is_numeric(text) {
            return net(text).map(Self::Network);
        }
        let domain = jid(text)?;
        // A pattern is no domain, though a JID may hold the signs of one.
        let is_name = |c: char| !c.is_control() && !" *?,;|!".contains(c);
        match domain.as_str().chars().all(is_name) && !is_numeric(domain.as_str()) {
            true => Ok(Self::Domain(domain)),
            false => Err(Wrong(format!("{:?} is no domain", shortened(text)))),
        }
    }

    /// How stores name it: what `of_key` reads again, whatever it holds.
    pub fn key(&self) -> String {
        let kind = match self {
            Self::Account(_) => 'a',
            Self::Domain(_) => 'd',
            Self::Network(_) => 'n',
        };
        format!("{kind}:{self}")
    }

    /// Reads a `key`.
    pub fn of_key(key: &str) -> Option<Self> {
        let (kind, name) = key.split_once(':')?;
        match kind {
            "a" => BareJid::new(name).ok().map(Self::Account),
            "d" => BareJid::new(name).ok().map(Self::Domain),
            "n" => net(name).ok().map(Self::Network),
            _ => None,
        }
    }

    /// Who it is, for the log: an address as far as it may be written down.
    pub fn logged(&self, addresses: AddressPolicy) -> String {
        match (self, addresses) {
            (Self::Network(net), AddressPolicy::Prefix) => addresses
                .apply(net.network())
                .unwrap_or_else(|| format!("{self:?}")),
            (Self::Network(_), AddressPolicy::None) => format!("{self:?}"),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(jid) | Self::Domain(jid) => jid.fmt(f),
            Self::Network(IpNet::V4(net)) if net.prefix_len() == 32 => net.addr().fmt(f),
            Self::Network(net) => net.fmt(f),
        }
    }
}

/// Without the address: the log has it as `log.addresses` says, or not at all.
impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(jid) | Self::Domain(jid) => jid.fmt(f),
            Self::Network(_) => f.write_str("an address"),
        }
    }
}

fn jid(text: &str) -> Result<BareJid, Wrong> {
    BareJid::new(text).map_err(|e| Wrong(format!("{:?} is no JID: {e}", shortened(text))))
}

/// Names of domains never end in a label that begins with a digit.
fn is_numeric(text: &str) -> bool {
    let last = text.trim_end_matches('.').rsplit('.').next();
    last.is_some_and(|label| label.starts_with(|c: char| c.is_ascii_digit()))
}

fn net(text: &str) -> Result<IpNet, Wrong> {
    let parsed = match text.contains('/') {
        true => text.parse::<IpNet>().ok(),
        false => text.parse::<IpAddr>().ok().map(IpNet::from),
    };
    let words = "is no address and no network, such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/48";
    let wrong = || Wrong(format!("{:?} {words}", shortened(text)));
    parsed.map(canonical).ok_or_else(wrong)
}

/// One network has one spelling: no bits behind the prefix, IPv4 as such, IPv6 of at most /64.
fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net.trunc() else {
        return net.trunc();
    };
    let mapped = v6.network().to_ipv4_mapped();
    let mapped = mapped.zip(v6.prefix_len().checked_sub(96));
    let mapped = mapped.and_then(|(v4, length)| Ipv4Net::new(v4, length).ok());
    match mapped {
        Some(v4) => IpNet::V4(v4),
        None => {
            let length = v6.prefix_len().min(PREFIX_LEN_MAX_V6);
            let wide = Ipv6Net::new(v6.network(), length).unwrap_or(v6);
            IpNet::V6(wide.trunc())
        }
    }
}

/// Who banned somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// Nobody: too many failures.
    Failures,
    /// An operator.
    Operator(BareJid),
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures => f.write_str("failures"),
            Self::Operator(account) => account.fmt(f),
        }
    }
}

/// A ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Who is banned.
    pub subject: Subject,
    /// Since when.
    pub at: Timestamp,
    /// Until when; `None` is for ever.
    pub until: Option<Timestamp>,
    /// Who says so.
    pub by: By,
    /// Why.
    pub reason: String,
}

impl Ban {
    /// A ban by an operator.
    pub fn of_operator(wish: BanWish, now: Timestamp) -> Self {
        let reason = wish.reason.chars().filter(|c| !c.is_control());
        Self {
            subject: wish.subject,
            at: now,
            until: wish.ban_for.map(|ban_for| now.plus(ban_for)),
            by: By::Operator(wish.by),
            reason: reason.take(REASON_CHARS_MAX).collect(),
        }
    }

    /// A ban for too many failures.
    pub fn of_failures(subject: Subject, limit: &FailureLimit, now: Timestamp) -> Self {
        Self {
            subject,
            at: now,
            until: Some(now.plus(limit.ban_for)),
            by: By::Failures,
            reason: format!("{} failures", limit.after),
        }
    }

    /// Whether it still holds.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BanWish {
    /// Who shall be banned.
    pub subject: Subject,
    /// For how long; `None` is for ever.
    pub ban_for: Option<Duration>,
    /// Why.
    pub reason: String,
    /// Who wants it.
    pub by: BareJid,
}

/// The rules of bans.
#[derive(Clone, Debug, Default)]
pub struct BanPolicy {
    /// How many failures bring a ban; `None` is no number of them.
    pub failures: Option<FailureLimit>,
    /// Trusted proxies: everybody else comes through them.
    pub proxies: Vec<IpNet>,
    /// Operators.
    pub operators: Vec<BareJid>,
    /// Our own hosts.
    pub hosts: Vec<BareJid>,
}

impl BanPolicy {
    /// Says why somebody may never be banned: it would lock out everybody, or an operator.
    pub fn check(&self, subject: &Subject) -> Result<(), Wrong> {
        let wrong = match subject {
            Subject::Account(account) => self.wrong_account(account),
            Subject::Domain(domain) => self.wrong_domain(domain),
            Subject::Network(net) => self.wrong_network(net),
        };
        let told = |why| Err(Wrong(format!("{subject} cannot be banned: {why}")));
        wrong.map_or(Ok(()), told)
    }

    fn wrong_account(&self, account: &BareJid) -> Option<String> {
        if self.operators.contains(account) {
            return Some("it is an operator".to_owned());
        }
        let is_host = |host: &BareJid| host.domain() == account.domain();
        let is_ours = self.hosts.iter().any(is_host);
        is_ours.then(|| "it belongs to this service itself".to_owned())
    }

    fn wrong_domain(&self, domain: &BareJid) -> Option<String> {
        if self.hosts.contains(domain) {
            return Some("it is this service itself".to_owned());
        }
        let is_theirs = |operator: &&BareJid| operator.domain() == domain.domain();
        let operator = self.operators.iter().find(is_theirs)?;
        Some(format!("it is the domain of the operator {operator}"))
    }

    fn wrong_network(&self, net: &IpNet) -> Option<String> {
        let prefix_len_min = match net {
            IpNet::V4(_) => PREFIX_LEN_MIN_V4,
            IpNet::V6(_) => PREFIX_LEN_MIN_V6,
        };
        if net.prefix_len() < prefix_len_min {
            return Some(format!(
                "it covers too many; the largest network is a /{prefix_len_min}"
            ));
        }
        let shares = |other: &IpNet| net.contains(other) || other.contains(net);
        if let Some(proxy) = self.proxies.iter().find(|proxy| shares(proxy)) {
            return Some(format!("everybody comes through the trusted proxy {proxy}"));
        }
        if loopback().iter().any(shares) {
            return Some("it holds addresses of this machine itself".to_owned());
        }
        let nobody = [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ];
        let is_nobodys = nobody.iter().any(|address| net.contains(address));
        is_nobodys.then(|| "it is nobody's address".to_owned())
    }
}

/// What a machine calls itself.
fn loopback() -> [IpNet; 2] {
    let v4 = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    let v6 = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
    [IpNet::V4(v4), IpNet::V6(v6)]
}

/// Whether nobody of those who may ask for slots could, were all banned whom `is_banned` names.
pub fn locks_everybody_out(access: &Access, is_banned: impl Fn(&Subject) -> bool) -> bool {
    let domain = |domain: &str| BareJid::new(domain).map(Subject::Domain);
    let is_out = |name: &str| domain(name).is_ok_and(|domain| is_banned(&domain));
    let is_jid_out =
        |jid: &BareJid| is_out(jid.domain().as_str()) || is_banned(&Subject::Account(jid.clone()));
    let mut domains = access.domains.iter();
    let has_any = !access.domains.is_empty() || !access.jids.is_empty();
    has_any && domains.all(|name| is_out(name)) && access.jids.iter().all(is_jid_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> BanPolicy {
        let jids = |texts: &[&str]| {
            let jid = |text: &&str| BareJid::new(text).expect("a JID");
            texts.iter().map(jid).collect()
        };
        let proxies = ["10.1.0.0/24", "203.0.113.80", "fd00:1::/64"];
        let net = |text: &str| match Subject::parse(text) {
            Ok(Subject::Network(net)) => net,
            other => panic!("{text}: {other:?}"),
        };
        BanPolicy {
            proxies: proxies.map(net).to_vec(),
            operators: jids(&["admin@example.org"]),
            hosts: jids(&["upload.example.org"]),
            ..BanPolicy::default()
        }
    }

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let subject = Subject::parse(text);
        let got = subject.and_then(|subject| policy().check(&subject).map(|()| subject));
        match (got, expected) {
            (Ok(subject), Ok(spelling)) => assert_eq!(subject.to_string(), spelling),
            (Err(Wrong(words)), Err(why)) => assert!(words.contains(why), "{text}: {words}"),
            (got, expected) => panic!("{text}: {got:?}, not {expected:?}"),
        }
    }

    #[test]
    fn who_can_be_banned() {
        for (text, spelling) in [
            ("Romeo@Example.org", "romeo@example.org"),
            (" evil.example ", "evil.example"),
            ("org", "org"),
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("198.51.0.0/16", "198.51.0.0/16"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("2001:db8::1", "2001:db8::/64"),
            ("2001:db8::1/128", "2001:db8::/64"),
            ("2001:db8::/32", "2001:db8::/32"),
        ] {
            check(text, Ok(spelling));
        }
    }

    #[test]
    fn who_cannot() {
        for (text, why) in [
            ("0.0.0.0/0", "covers too many"),
            ("::/0", "covers too many"),
            ("::ffff:0.0.0.0/96", "covers too many"),
            ("198.0.0.0/15", "covers too many"),
            ("2001:da0::/31", "covers too many"),
            ("127.0.0.1", "this machine itself"),
            ("::ffff:127.0.0.1", "this machine itself"),
            ("::1", "this machine itself"),
            ("0:0::/40", "this machine itself"),
            ("10.1.0.7", "the trusted proxy 10.1.0.0/24"),
            ("10.1.0.0/16", "the trusted proxy 10.1.0.0/24"),
            ("203.0.113.80", "the trusted proxy"),
            ("203.0.113.0/24", "the trusted proxy"),
            ("fd00:1::1", "the trusted proxy"),
            ("0.0.0.0", "nobody's address"),
            ("admin@example.org", "is an operator"),
            ("example.org", "the operator admin@example.org"),
            ("upload.example.org", "this service itself"),
            ("x@upload.example.org", "this service itself"),
            ("10.0.0.0/33", "is no address"),
            ("1.2.3", "is no address"),
            ("1.2.3.4-5", "is no address"),
            ("1.2.3.4.5", "is no address"),
            ("192.0.2.0/", "is no address"),
            ("192.0.2.0/-1", "is no address"),
            ("fe80::1%eth0", "is no address"),
            ("https://evil.example/", "is no address"),
            ("1.2.3.", "is no address"),
            ("\u{ff11}.\u{ff12}", "is no domain"),
            ("*", "is no domain"),
            ("*.example.org", "is no domain"),
            ("", "is no JID"),
            ("@", "is no JID"),
            ("romeo@example.org/x y", "is no JID"),
            ("ro meo@example.org", "is no JID"),
        ] {
            check(text, Err(why));
        }
    }

    #[test]
    fn everybody_is_more_than_one() {
        let jid = |text: &str| BareJid::new(text).expect("a JID");
        let access = Access {
            domains: vec!["example.org".to_owned(), "example.com".to_owned()],
            jids: vec![jid("guest@example.net")],
            ..Access::default()
        };
        let all = ["example.org", "example.com", "guest@example.net"];
        let out = |names: &[&str]| {
            locks_everybody_out(&access, |subject| {
                names.contains(&subject.to_string().as_str())
            })
        };
        assert!(out(&all) && out(&["example.org", "example.com", "example.net"]));
        assert!(!out(&all[..2]) && !out(&all[1..]) && !out(&[]));
        assert!(!locks_everybody_out(&Access::default(), |_| true));
    }

    #[test]
    fn the_log_tells_what_it_may() {
        let subject = Subject::parse("192.0.2.7").expect("an address");
        let logged = |addresses| subject.logged(addresses);
        assert_eq!(logged(AddressPolicy::Full), "192.0.2.7");
        assert_eq!(logged(AddressPolicy::Prefix), "192.0.2.0/24");
        assert_eq!(logged(AddressPolicy::None), "an address");
        assert_eq!(format!("{subject:?}"), "an address");
        let account = Subject::parse("romeo@example.org").expect("an account");
        assert_eq!(account.logged(AddressPolicy::None), "romeo@example.org");
    }

    proptest::proptest! {
        #[test]
        fn keys_are_read_again(text in "([a-z]{1,4}@)?[a-z\u{94d}\u{939}*+]{1,8}\\.[a-z0-9]{1,4}") {
            if let Ok(jid) = BareJid::new(&text) {
                for subject in [Subject::Account(jid.clone()), Subject::Domain(jid.clone())] {
                    let again = Subject::of_key(&subject.key());
                    proptest::prop_assert_eq!(again.as_ref(), Some(&subject));
                }
            }
        }

        #[test]
        fn what_is_read_is_read_again(text in ".{0,40}|[0-9a-f:./]{0,24}") {
            if let Ok(subject) = Subject::parse(&text) {
                let again = Subject::parse(&subject.to_string()).ok();
                proptest::prop_assert_eq!(again.as_ref(), Some(&subject));
                proptest::prop_assert_eq!(Subject::of_key(&subject.key()), Some(subject));
            }
        }

        #[test]
        fn no_ban_reaches_a_proxy_or_us(
            bits in proptest::prelude::any::<u128>(),
            is_v4: bool,
            zeros in 0u32..128,
            length in 0u8..=128,
        ) {
            let bits = bits >> zeros;
            let (address, length): (IpAddr, u8) = match is_v4 {
                true => (Ipv4Addr::from_bits(bits as u32).into(), length % 33),
                false => (Ipv6Addr::from_bits(bits).into(), length),
            };
            let text = format!("{address}/{length}");
            let Ok(Subject::Network(net)) = Subject::parse(&text) else {
                panic!("{text} is a network");
            };
            if policy().check(&Subject::Network(net)).is_ok() {
                let kept = ["127.0.0.1", "::1", "10.1.0.1", "203.0.113.80", "fd00:1::9", "::"];
                for kept in kept {
                    let kept: IpAddr = kept.parse().expect("an address");
                    proptest::prop_assert!(!net.contains(&kept), "{net} {kept}");
                }
                let n_most = if net.addr().is_ipv4() { 16 } else { 32 };
                proptest::prop_assert!(n_most <= net.prefix_len());
            }
        }
    }
}
