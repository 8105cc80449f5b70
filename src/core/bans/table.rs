//! The bans in force, by whom they are about; bounded, and quick to ask.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use jid::BareJid;

use super::{Ban, By, Subject};
use crate::core::time::Timestamp;

/// Bans kept. When there are as many, a ban for failures gives way to another; never an operator's.
pub const BANS_MAX: usize = 10_000;

/// All bans.
#[derive(Debug, Default)]
pub struct Bans {
    by_subject: HashMap<Subject, Ban>,
    /// How many networks there are of each length of prefix, of IPv4 and of IPv6: an address is
    /// looked for once for each length.
    prefixes: [BTreeMap<u8, usize>; 2],
    n_networks: usize,
}

/// There is no room for another ban: all are by operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Bans {
    /// How many there are of networks, and of accounts and domains.
    pub fn n(&self) -> (usize, usize) {
        (self.n_networks, self.by_subject.len() - self.n_networks)
    }

    /// The ban of an address; of several the one that holds longest.
    pub fn of_address(&self, address: IpAddr, now: Timestamp) -> Option<&Ban> {
        let address = address.to_canonical();
        let lengths = self.prefixes[usize::from(address.is_ipv6())].keys();
        let nets = lengths.filter_map(|length| IpNet::new(address, *length).ok());
        let found = nets.filter_map(|net| self.get(&Subject::Network(net.trunc()), now));
        found.max_by_key(|ban| ban.until.unwrap_or(Timestamp(u64::MAX)))
    }

    /// The ban of an account or of its domain.
    pub fn of_account(&self, account: &BareJid, now: Timestamp) -> Option<&Ban> {
        let domain = || Subject::Domain(BareJid::from_parts(None, account.domain()));
        self.get(&Subject::Account(account.clone()), now)
            .or_else(|| self.get(&domain(), now))
    }

    /// The ban of exactly this, in force.
    pub fn get(&self, subject: &Subject, now: Timestamp) -> Option<&Ban> {
        let ban = self.by_subject.get(subject);
        ban.filter(|ban| ban.is_in_force(now))
    }

    /// Adds a ban, or replaces the one of the same; a ban for failures replaces no operator's that
    /// is in force. Returns who had to give way for it, if anybody.
    pub fn put(&mut self, ban: Ban, now: Timestamp) -> Result<Option<Subject>, Full> {
        let old = self.get(&ban.subject, now);
        if ban.by == By::Failures && old.is_some_and(|old| old.by != By::Failures) {
            return Ok(None);
        }
        let mut gone = None;
        if BANS_MAX <= self.by_subject.len() && !self.by_subject.contains_key(&ban.subject) {
            let first = self.first_to_go().ok_or(Full)?;
            self.remove(&first);
            gone = Some(first);
        }
        self.remove(&ban.subject);
        if let Subject::Network(net) = &ban.subject {
            *self.lengths(net).entry(net.prefix_len()).or_default() += 1;
            self.n_networks += 1;
        }
        self.by_subject.insert(ban.subject.clone(), ban);
        Ok(gone)
    }

    /// The ban for failures that ends first.
    fn first_to_go(&self) -> Option<Subject> {
        let bans = self.by_subject.values();
        let of_failures = bans.filter(|ban| ban.by == By::Failures);
        let first = of_failures.min_by_key(|ban| (ban.until, ban.at));
        first.map(|ban| ban.subject.clone())
    }

    /// Takes a ban away.
    pub fn remove(&mut self, subject: &Subject) -> Option<Ban> {
        let ban = self.by_subject.remove(subject)?;
        if let Subject::Network(net) = subject {
            self.n_networks -= 1;
            let lengths = self.lengths(net);
            let n_left = lengths.get(&net.prefix_len()).map_or(0, |n| n - 1);
            match n_left {
                0 => lengths.remove(&net.prefix_len()),
                n => lengths.insert(net.prefix_len(), n),
            };
        }
        Some(ban)
    }

    fn lengths(&mut self, net: &IpNet) -> &mut BTreeMap<u8, usize> {
        &mut self.prefixes[usize::from(matches!(net, IpNet::V6(_)))]
    }

    /// How many there are whose time is over.
    pub fn n_over(&self, now: Timestamp) -> usize {
        let bans = self.by_subject.values();
        bans.filter(|ban| !ban.is_in_force(now)).count()
    }

    /// Takes away the bans whose time is over.
    pub fn end(&mut self, now: Timestamp) -> Vec<Ban> {
        let bans = self.by_subject.values();
        let over = bans.filter(|ban| !ban.is_in_force(now));
        let over: Vec<_> = over.map(|ban| ban.subject.clone()).collect();
        over.iter()
            .filter_map(|subject| self.remove(subject))
            .collect()
    }

    /// All that are in force, the newest first.
    pub fn list(&self, now: Timestamp) -> Vec<Ban> {
        let bans = self.by_subject.values();
        let mut list: Vec<_> = bans.filter(|ban| ban.is_in_force(now)).cloned().collect();
        list.sort_by(|one, other| (other.at, &one.subject).cmp(&(one.at, &other.subject)));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn subject(text: &str) -> Subject {
        Subject::parse(text).expect("somebody")
    }

    fn ban(text: &str, until: Option<u64>, by: By) -> Ban {
        Ban {
            subject: subject(text),
            at: NOW,
            until: until.map(|seconds| Timestamp(NOW.0 + seconds)),
            by,
            reason: String::new(),
        }
    }

    fn operator() -> By {
        By::Operator(BareJid::new("admin@example.org").expect("a JID"))
    }

    fn bans(texts: &[&str]) -> Bans {
        let mut bans = Bans::default();
        for text in texts {
            assert_eq!(bans.put(ban(text, Some(60), operator()), NOW), Ok(None));
        }
        bans
    }

    #[test]
    fn addresses_are_found_by_any_network_of_theirs() {
        let bans = bans(&[
            "192.0.2.7",
            "198.51.100.0/24",
            "2001:db8::1",
            "2001:db9::/32",
        ]);
        let is_banned = |text: &str| {
            let address: IpAddr = text.parse().expect("an address");
            bans.of_address(address, NOW).is_some()
        };
        let banned = ["192.0.2.7", "::ffff:192.0.2.7", "198.51.100.200"];
        assert!(banned.iter().all(|text| is_banned(text)));
        assert!(is_banned("2001:db8::2") && is_banned("2001:db9:1:2::3"));
        assert!(!is_banned("192.0.2.8") && !is_banned("2001:db8:0:1::1"));
        assert!(!is_banned("198.51.101.1") && !is_banned("::198.51.100.1"));
    }

    #[test]
    fn accounts_are_found_by_their_domain_too() {
        let bans = bans(&["romeo@example.org", "evil.example"]);
        let is_banned = |text: &str| {
            let account = BareJid::new(text).expect("a JID");
            bans.of_account(&account, NOW).is_some()
        };
        assert!(is_banned("romeo@example.org") && is_banned("x@evil.example"));
        assert!(is_banned("evil.example") && !is_banned("example.org"));
        assert!(!is_banned("juliet@example.org") && !is_banned("x@sub.evil.example"));
    }

    #[test]
    fn a_ban_ends_to_the_second() {
        let mut bans = bans(&["192.0.2.7", "romeo@example.org"]);
        let address = "192.0.2.7".parse().expect("an address");
        assert!(bans.of_address(address, Timestamp(NOW.0 + 59)).is_some());
        let over = Timestamp(NOW.0 + 60);
        assert!(bans.of_address(address, over).is_none() && bans.list(over).is_empty());
        assert_eq!(bans.n(), (1, 1));
        assert_eq!(bans.end(over).len(), 2);
        assert_eq!((bans.n(), bans.prefixes[0].len()), ((0, 0), 0));
    }

    #[test]
    fn failures_end_no_operators_ban() {
        let mut bans = bans(&["192.0.2.7"]);
        let failures = ban("192.0.2.7", Some(5), By::Failures);
        assert_eq!(bans.put(failures.clone(), NOW), Ok(None));
        assert_eq!(bans.list(NOW)[0].by, operator());
        let over = Timestamp(NOW.0 + 60);
        assert_eq!(bans.put(failures, over), Ok(None));
        assert_eq!(bans.by_subject.len(), 1);
    }

    #[test]
    fn a_full_table_forgets_no_operators_ban() {
        let mut bans = Bans::default();
        let who = |n: usize| format!("192.{}.{}.{}", n >> 16, (n >> 8) & 255, n & 255);
        for n in 0..BANS_MAX {
            let by = match n {
                0 | 2 | 4 => By::Failures,
                _ => operator(),
            };
            let put = bans.put(ban(&who(n), Some(100 + n as u64), by), NOW);
            assert_eq!(put, Ok(None));
        }
        let more = |n: usize, by| ban(&who(BANS_MAX + n), Some(50), by);
        let gone = bans.put(more(0, operator()), NOW);
        assert_eq!(gone, Ok(Some(subject(&who(0)))));
        let gone = bans.put(more(1, By::Failures), NOW);
        assert_eq!(gone, Ok(Some(subject(&who(2)))));
        // The one that was let in ends first.
        let gone = bans.put(more(2, operator()), NOW);
        assert_eq!(gone, Ok(Some(subject(&who(BANS_MAX + 1)))));
        assert!(bans.put(more(3, operator()), NOW).is_ok());
        assert_eq!(bans.put(more(4, operator()), NOW), Err(Full));
        assert_eq!(bans.put(more(4, By::Failures), NOW), Err(Full));
        assert_eq!(bans.by_subject.len(), BANS_MAX);
        assert!(bans.list(NOW).iter().all(|ban| ban.by == operator()));
        assert!(bans.put(ban(&who(1), None, operator()), NOW).is_ok());
    }

    proptest::proptest! {
        /// The table says what a look at each ban says, whatever was put in and taken out.
        #[test]
        fn the_table_finds_what_holds(
            steps in proptest::collection::vec(
                (0u32..64, 28u8..=32, proptest::option::of(0u64..9), 0u8..3), 1..40),
        ) {
            let mut bans = Bans::default();
            let mut all: Vec<Ban> = Vec::new();
            for (low, length, until, what) in steps {
                let text = format!("192.0.2.{low}/{length}");
                let one = ban(&text, until, operator());
                all.retain(|ban| ban.subject != one.subject);
                if what == 0 {
                    bans.remove(&one.subject);
                } else {
                    proptest::prop_assert_eq!(bans.put(one.clone(), NOW), Ok(None));
                    all.push(one);
                }
            }
            for now in [NOW, Timestamp(NOW.0 + 4), Timestamp(NOW.0 + 9)] {
                for low in 0..64 {
                    let address = IpAddr::from([192, 0, 2, low]);
                    let holds = |ban: &&Ban| match &ban.subject {
                        Subject::Network(net) => net.contains(&address) && ban.is_in_force(now),
                        _ => false,
                    };
                    let expected = all.iter().filter(holds);
                    let expected = expected.map(|ban| ban.until.unwrap_or(Timestamp(u64::MAX)));
                    let found = bans.of_address(address, now);
                    let found = found.map(|ban| ban.until.unwrap_or(Timestamp(u64::MAX)));
                    proptest::prop_assert_eq!(found, expected.max());
                }
            }
        }
    }
}
