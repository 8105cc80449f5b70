//! Passwords that somebody tries through us: how often, before any server is asked.
//!
//! A server sees our address behind all of them, so what it does against guessing would hit
//! everybody: whoever guesses is stopped here. In memory and bounded in number, as rates are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jid::BareJid;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Service;
use crate::core::bans::Subject;
use crate::core::rate::{Bucket, Rate};
use crate::core::time::Timestamp;

/// Tries a minute that come to nothing: from one address, or of one account where none counts; and
/// of one visitor's account.
const TRIES: Rate = Rate { per_minute: 20 };
/// Tries a minute that come to nothing, of one account from all addresses together: strangers who
/// guess shall not hold up who knows the password, and many who guess are held up all the same.
const TRIES_OF_ACCOUNT: Rate = Rate { per_minute: 600 };
/// Sessions a minute that one operator gets, and that one account is given.
const SESSIONS: Rate = Rate { per_minute: 600 };
/// Buckets remembered at once; the full ones are forgotten first.
const BUCKETS_MAX: usize = 20_000;
/// Log-ins under way at a time; who comes then shall come again.
const PLACES: u32 = 16;
/// The longest wait at a stop for those under way, each of which ends in less.
const ENDED_WITHIN: Duration = Duration::from_secs(15);

/// Whose bucket, and of which rate.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Owner {
    Tries(Subject),
    TriesOfAccount(BareJid),
    TriesForVisitors(BareJid),
    Sessions(Subject),
}

impl Owner {
    fn rate(&self) -> Rate {
        match self {
            Self::Tries(_) | Self::TriesForVisitors(_) => TRIES,
            Self::TriesOfAccount(_) => TRIES_OF_ACCOUNT,
            Self::Sessions(_) => SESSIONS,
        }
    }
}

/// The buckets of all who try, and the places of those whose try is under way.
pub(super) struct Logins {
    buckets: Mutex<HashMap<Owner, Bucket>>,
    places: Arc<Semaphore>,
}

impl Default for Logins {
    fn default() -> Self {
        Self {
            buckets: Mutex::default(),
            places: Arc::new(Semaphore::new(PLACES as usize)),
        }
    }
}

impl Logins {
    /// Takes one of each; or nothing, and tells how long to wait.
    fn take(&self, owners: Vec<Owner>, now: Timestamp) -> Result<(), Duration> {
        let mut all = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut all = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Whose buckets a try is taken from.
fn tries(account: &BareJid, client: Option<IpAddr>) -> Vec<Owner> {
    let source = match client {
        Some(client) => Subject::of_address(client),
        None => Subject::Account(account.clone()),
    };
    vec![Owner::Tries(source), Owner::TriesOfAccount(account.clone())]
}

impl Service {
    /// Takes a place for a log-in, until what this returns is dropped; none where all are taken,
    /// or the service stops.
    pub fn begin_login(&self) -> Option<OwnedSemaphorePermit> {
        let places = self.logins.places.clone();
        let place = places.try_acquire_owned().ok();
        place.filter(|_| !self.is_stopping())
    }

    /// Lets no log-in begin any more, and waits until those under way have ended their sessions;
    /// not for longer than `limits.stop_within`.
    pub async fn end_logins(&self) {
        let within = self.settings().stop_within.min(ENDED_WITHIN);
        // Whoever waits for all places gets each that is free, before those who want one.
        let all = timeout(within, self.logins.places.acquire_many(PLACES)).await;
        self.logins.places.close();
        drop(all);
    }

    /// Lets somebody try the password of their own `account`, from an address where one counts; or
    /// tells how long to wait.
    pub fn begin_try(&self, account: &BareJid, client: Option<IpAddr>) -> Result<Try, Duration> {
        let owners = tries(account, client);
        self.logins.take(owners.clone(), self.world.now())?;
        Ok(Try { owners, client })
    }

    /// Lets an operator try the password of a visitor's `account`; or tells how long to wait. It is
    /// the visitors who guess: that holds up none who asks for themselves.
    pub fn begin_visit(&self, account: &BareJid) -> Result<Try, Duration> {
        let owners = vec![Owner::TriesForVisitors(account.clone())];
        self.logins.take(owners.clone(), self.world.now())?;
        let client = None;
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

    const ROMEO: &str = "romeo@example.org";

    /// The buckets of a try of an account from an address, "" for none.
    fn of(account: &str, address: &str) -> Vec<Owner> {
        let account = account.parse().expect("an account");
        tries(&account, address.parse().ok())
    }

    #[test]
    fn who_guesses_holds_up_nobody_else() {
        let logins = Logins::default();
        let take = |account, address| logins.take(of(account, address), NOW);
        for _ in 0..20 {
            assert_eq!(take(ROMEO, "192.0.2.7"), Ok(()));
        }
        let wait = Err(Duration::from_secs(3));
        assert_eq!(take(ROMEO, "192.0.2.7"), wait);
        assert_eq!(take("juliet@example.org", "192.0.2.7"), wait);
        assert_eq!(take(ROMEO, "192.0.2.8"), Ok(()));
        for _ in 0..20 {
            assert_eq!(take(ROMEO, ""), Ok(()), "where no address counts");
            let visited = vec![Owner::TriesForVisitors(ROMEO.parse().expect("an account"))];
            assert_eq!(logins.take(visited, NOW), Ok(()));
        }
        assert_eq!(take(ROMEO, ""), wait);
        assert_eq!(take("juliet@example.org", ""), Ok(()));
    }

    #[test]
    fn many_who_guess_one_password_are_held_up_together() {
        let logins = Logins::default();
        for n in 0..600 {
            let address = format!("192.0.2.{}", n % 60);
            assert_eq!(logins.take(of(ROMEO, &address), NOW), Ok(()));
        }
        assert!(logins.take(of(ROMEO, "192.0.2.200"), NOW).is_err());
    }

    #[test]
    fn a_refused_try_takes_nothing_of_anybody() {
        let logins = Logins::default();
        let other = "juliet@example.org";
        for _ in 0..20 {
            logins
                .take(of(other, "192.0.2.7"), NOW)
                .expect("within the rate");
        }
        for _ in 0..1000 {
            assert!(logins.take(of(ROMEO, "192.0.2.7"), NOW).is_err());
        }
        assert_eq!(logins.take(of(ROMEO, "192.0.2.8"), NOW), Ok(()));
    }

    #[test]
    fn who_knows_the_password_never_waits() {
        let logins = Logins::default();
        for _ in 0..1000 {
            let both = of(ROMEO, "192.0.2.7");
            logins.take(both.clone(), NOW).expect("what was given back");
            logins.give_back(&both);
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let logins = Logins::default();
        for n in 0..=BUCKETS_MAX {
            let who = of(&format!("u{n}@example.org"), "");
            assert_eq!(logins.take(who, NOW), Ok(()));
        }
        assert!(logins.buckets.lock().expect("not poisoned").len() <= BUCKETS_MAX);
    }
}
