//! Asks that wait for an answer of the target.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use jid::BareJid;

use super::stanza::{Effect, Kind, Stanza};
use crate::core::refusal::Refusal;

/// Most bytes of requests that are kept, all together, to ask another resource.
pub const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A request under way.
pub struct Ask<S> {
    /// The resource of the relay's host under which the target sees the requester.
    pub address: String,
    /// Who asks.
    pub from: String,
    /// Which address of the relay was asked: the answer comes from there.
    pub to: String,
    /// The requester's id.
    pub id: String,
    /// Who is counted for it.
    pub user: BareJid,
    /// What it wants.
    pub kind: Kind,
    /// The request, and about how many bytes it takes up, where it may be asked again.
    pub again: Option<(S, usize)>,
    /// Which resources were asked.
    pub asked: Vec<String>,
    /// When it is given up.
    pub until: Duration,
}

impl<S> Ask<S> {
    /// Answers with an error of ours.
    pub fn refuse(self, refusal: Refusal) -> Effect<S> {
        Effect::Refuse {
            stanza: Stanza::Iq,
            from: self.to,
            to: self.from,
            id: self.id,
            refusal,
        }
    }
}

/// What an answer must have to be one: the requester's address, the id, and the resource.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    address: String,
    id: String,
    resource: String,
}

/// The asks, found by what their answer has, by their time, and counted by who asks and is asked.
pub struct Pending<S> {
    asks: HashMap<Key, (u64, Box<Ask<S>>)>,
    by_time: BTreeSet<(Duration, u64)>,
    keys: HashMap<u64, Key>,
    by_user: HashMap<BareJid, usize>,
    by_resource: HashMap<String, usize>,
    kept_bytes: usize,
    /// Numbers asks as they come.
    n_inserted: u64,
}

impl<S> Default for Pending<S> {
    fn default() -> Self {
        Self {
            asks: HashMap::new(),
            by_time: BTreeSet::new(),
            keys: HashMap::new(),
            by_user: HashMap::new(),
            by_resource: HashMap::new(),
            kept_bytes: 0,
            n_inserted: 0,
        }
    }
}

impl<S> Pending<S> {
    pub fn len(&self) -> usize {
        self.asks.len()
    }

    /// How many are one user's.
    pub fn n_of_user(&self, user: &BareJid) -> usize {
        self.by_user.get(user).copied().unwrap_or(0)
    }

    /// How many a resource has to answer.
    pub fn n_of_resource(&self, resource: &str) -> usize {
        self.by_resource.get(resource).copied().unwrap_or(0)
    }

    /// Whether so many bytes more may be kept.
    pub fn has_room(&self, n_bytes: usize) -> bool {
        self.kept_bytes.saturating_add(n_bytes) <= KEPT_BYTES_MAX
    }

    /// Adds an ask to `resource`; the id it goes there with, which is the requester's own unless
    /// that one is under way already.
    pub fn insert(&mut self, ask: Box<Ask<S>>, resource: String) -> String {
        self.n_inserted += 1;
        let mut key = Key {
            address: ask.address.clone(),
            id: ask.id.clone(),
            resource,
        };
        let mut n = self.n_inserted;
        while self.asks.contains_key(&key) {
            key.id = format!("relay-{n:x}");
            n += 1;
        }
        let id = key.id.clone();
        add(&mut self.by_user, &ask.user);
        add(&mut self.by_resource, &key.resource);
        self.kept_bytes += kept_bytes(&ask);
        self.by_time.insert((ask.until, self.n_inserted));
        self.keys.insert(self.n_inserted, key.clone());
        self.asks.insert(key, (self.n_inserted, ask));
        id
    }

    /// Takes out the ask that a reply is for.
    pub fn take(&mut self, address: &str, id: &str, resource: &str) -> Option<Box<Ask<S>>> {
        let [address, id, resource] = [address, id, resource].map(str::to_owned);
        self.remove(&Key {
            address,
            id,
            resource,
        })
    }

    /// Takes out what has waited too long.
    pub fn take_overdue(&mut self, now: Duration) -> Vec<Box<Ask<S>>> {
        let overdue = self.by_time.iter().take_while(|(until, _)| *until <= now);
        let overdue: Vec<u64> = overdue.map(|(_, number)| *number).collect();
        self.remove_all(overdue)
    }

    /// Takes out what a resource has to answer, the oldest first.
    pub fn take_of_resource(&mut self, resource: &str) -> Vec<Box<Ask<S>>> {
        if self.n_of_resource(resource) == 0 {
            return Vec::new();
        }
        let its = self.keys.iter().filter(|(_, key)| key.resource == resource);
        let mut its: Vec<u64> = its.map(|(number, _)| *number).collect();
        its.sort_unstable();
        self.remove_all(its)
    }

    /// Takes out all.
    pub fn take_all(&mut self) -> Vec<Box<Ask<S>>> {
        let mut all: Vec<u64> = self.keys.keys().copied().collect();
        all.sort_unstable();
        self.remove_all(all)
    }

    fn remove_all(&mut self, numbers: Vec<u64>) -> Vec<Box<Ask<S>>> {
        let keys = numbers.iter().filter_map(|number| self.keys.get(number));
        let keys: Vec<Key> = keys.cloned().collect();
        keys.iter().filter_map(|key| self.remove(key)).collect()
    }

    fn remove(&mut self, key: &Key) -> Option<Box<Ask<S>>> {
        let (number, ask) = self.asks.remove(key)?;
        self.keys.remove(&number);
        self.by_time.remove(&(ask.until, number));
        subtract(&mut self.by_user, &ask.user);
        subtract(&mut self.by_resource, &key.resource);
        self.kept_bytes -= kept_bytes(&ask);
        Some(ask)
    }
}

fn kept_bytes<S>(ask: &Ask<S>) -> usize {
    ask.again.as_ref().map_or(0, |(_, n_bytes)| *n_bytes)
}

fn add<K: Clone + Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    match counts.get_mut(key) {
        Some(n) => *n += 1,
        None => drop(counts.insert(key.clone(), 1)),
    }
}

fn subtract<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(n) = counts.get_mut(key) {
        *n -= 1;
        if *n == 0 {
            counts.remove(key);
        }
    }
}
