//! Passwords that somebody tries through us: how often, before any server is asked.
//!
//! A server sees our address behind all of them, so what it does against guessing would hit
//! everybody: whoever guesses is stopped here. In memory and bounded in number, as rates are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jid::BareJid;

use super::Service;
use crate::core::bans::Subject;
use crate::core::rate::{Bucket, Rate};
use crate::core::time::Timestamp;

/// Tries a minute that come to nothing, of one account and from one address.
const TRIES: Rate = Rate { per_minute: 20 };
/// Sessions a minute that one operator gets, and that one account is given.
const SESSIONS: Rate = Rate { per_minute: 600 };
/// Buckets remembered at once; the full ones are forgotten first.
const BUCKETS_MAX: usize = 20_000;

/// Whose bucket, and of which rate.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Owner {
    Tries(Subject),
    Sessions(Subject),
}

impl Owner {
    fn rate(&self) -> Rate {
        match self {
            Self::Tries(_) => TRIES,
            Self::Sessions(_) => SESSIONS,
        }
    }
}

/// The buckets of all who try.
#[derive(Default)]
pub(super) struct Logins(Mutex<HashMap<Owner, Bucket>>);

impl Logins {
    /// Takes one of each; or nothing, and tells how long to wait.
    fn take(&self, owners: Vec<Owner>, now: Timestamp) -> Result<(), Duration> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if BUCKETS_MAX < all.len() + owners.len() {
            make_room(&mut all, now);
        }
        let mut taken = Vec::new();
        for owner in owners {
            let bucket = all.get(&owner).copied().unwrap_or_default();
            let bucket = owner.rate().take(bucket, 1, now);
            taken.push((owner, bucket.map_err(|at| at.since(now))?));
        }
        all.extend(taken);
        Ok(())
    }

    fn give_back(&self, owners: &[Owner]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for owner in owners {
            if let Some(bucket) = all.get_mut(owner) {
                *bucket = owner.rate().give_back(*bucket, 1);
            }
        }
    }
}

/// Forgets the full buckets; where none is full, everybody starts afresh rather than memory grow.
fn make_room(all: &mut HashMap<Owner, Bucket>, now: Timestamp) {
    all.retain(|_, bucket| !bucket.is_full(now));
    if BUCKETS_MAX / 2 < all.len() {
        all.clear();
    }
}

/// A try that is under way. It counts as one that came to nothing, unless it is told otherwise.
pub struct Try {
    owners: Vec<Owner>,
    client: Option<IpAddr>,
}

impl Service {
    /// Lets somebody try the password of `account`, from an address where one counts; or tells how
    /// long to wait.
    pub fn begin_try(&self, account: &BareJid, client: Option<IpAddr>) -> Result<Try, Duration> {
        let account = Owner::Tries(Subject::Account(account.clone()));
        let address = client.map(|client| Owner::Tries(Subject::of_address(client)));
        let owners: Vec<_> = address.into_iter().chain([account]).collect();
        self.logins.take(owners.clone(), self.world.now())?;
        Ok(Try { owners, client })
    }

    /// The password was right, or nobody could tell: the try does not count.
    pub fn forgive_try(&self, tried: Try) {
        self.logins.give_back(&tried.owners);
    }

    /// The password was wrong: the address comes closer to a ban.
    pub fn blame_try(self: &Arc<Self>, tried: Try) {
        if let Some(client) = tried.client {
            self.count_failure(Subject::of_address(client));
        }
    }

    /// Lets an operator have one more session of an account; or tells how long to wait.
    pub fn begin_session(&self, operator: &BareJid, account: &BareJid) -> Result<(), Duration> {
        let both = [operator, account].map(|jid| Owner::Sessions(Subject::Account(jid.clone())));
        let [by, of] = both;
        let owners = match by == of {
            true => vec![by],
            false => vec![by, of],
        };
        self.logins.take(owners, self.world.now())
    }

    /// 128 random bits, for what nobody shall foresee.
    pub fn chance(&self) -> u128 {
        self.world.random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn tries(name: &str) -> Owner {
        Owner::Tries(Subject::parse(name).expect("somebody"))
    }

    #[test]
    fn tries_that_come_to_nothing_count_by_account_and_by_address() {
        let logins = Logins::default();
        let take =
            |account: &str, address: &str| logins.take(vec![tries(address), tries(account)], NOW);
        for _ in 0..20 {
            assert_eq!(take("romeo@example.org", "192.0.2.7"), Ok(()));
        }
        let wait = Err(Duration::from_secs(3));
        assert_eq!(take("romeo@example.org", "192.0.2.8"), wait);
        assert_eq!(take("juliet@example.org", "192.0.2.7"), wait);
        assert_eq!(take("juliet@example.org", "192.0.2.8"), Ok(()));
    }

    #[test]
    fn a_refused_try_takes_nothing_of_anybody() {
        let logins = Logins::default();
        let romeo = || tries("romeo@example.org");
        for _ in 0..20 {
            logins.take(vec![romeo()], NOW).expect("within the rate");
        }
        for _ in 0..100 {
            assert!(logins.take(vec![tries("192.0.2.7"), romeo()], NOW).is_err());
        }
        assert_eq!(logins.take(vec![tries("192.0.2.7")], NOW), Ok(()));
    }

    #[test]
    fn who_knows_the_password_never_waits() {
        let logins = Logins::default();
        let both = || vec![tries("192.0.2.7"), tries("romeo@example.org")];
        for _ in 0..1000 {
            logins.take(both(), NOW).expect("what was given back");
            logins.give_back(&both());
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let logins = Logins::default();
        for n in 0..=BUCKETS_MAX {
            let who = tries(&format!("u{n}@example.org"));
            assert_eq!(logins.take(vec![who], NOW), Ok(()));
        }
        assert!(logins.0.lock().expect("not poisoned").len() <= BUCKETS_MAX);
    }
}
