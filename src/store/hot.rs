//! What was lately asked for, kept for the next who asks: what was just sent is often sent again.
//!
//! Who makes something untrue says so here (`forget`), and nothing that was found before is kept
//! after that.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::core::slot::SlotId;

/// How long one is kept that nobody asks for, while others come.
const UNUSED_FOR_MAX: Duration = Duration::from_secs(60);
/// How often unused ones are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How many are compared to find one to let go.
const N_COMPARED: usize = 16;
/// Locks, so that who asks for one slot seldom waits for who asks for another.
const N_SHARDS: usize = 16;

/// A value for each of some slots.
pub(super) struct Hot<V> {
    shards: [Mutex<Shard<V>>; N_SHARDS],
    shard_max: usize,
}

struct Shard<V> {
    held: HashMap<SlotId, Held<V>>,
    n_forgotten: u64,
    /// When unused ones were last looked for.
    looked_at: Instant,
}

impl<V> Shard<V> {
    fn new() -> Self {
        Self {
            held: HashMap::new(),
            n_forgotten: 0,
            looked_at: Instant::now(),
        }
    }

    /// One that was not asked for as lately as others: exact among a few, and as cheap among many.
    fn oldest_of_some(&self) -> Option<SlotId> {
        let some = self.held.iter().take(N_COMPARED);
        let oldest = some.min_by_key(|(_, held)| held.used_at);
        oldest.map(|(id, _)| *id)
    }

    fn take_unused(&mut self, now: Instant) -> impl Iterator<Item = Held<V>> {
        let is_unused = move |held: &Held<V>| UNUSED_FOR_MAX < now.duration_since(held.used_at);
        let unused = self.held.extract_if(move |_, held| is_unused(held));
        unused.map(|(_, held)| held)
    }
}

struct Held<V> {
    value: V,
    used_at: Instant,
}

/// When a value was looked for and not found: it may be kept if nothing was forgotten since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missed {
    n_forgotten: u64,
}

impl<V: Clone> Hot<V> {
    /// Keeps up to `n_max` values.
    pub(super) fn new(n_max: u64) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::new(Shard::new())),
            shard_max: usize::try_from(n_max).unwrap_or(usize::MAX) / N_SHARDS,
        }
    }

    fn shard(&self, id: SlotId) -> MutexGuard<'_, Shard<V>> {
        let shard = &self.shards[(id.0 % N_SHARDS as u128) as usize];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, if it is kept.
    pub(super) fn get(&self, id: SlotId) -> Result<V, Missed> {
        let now = Instant::now();
        let mut shard = self.shard(id);
        let n_forgotten = shard.n_forgotten;
        let held = shard.held.get_mut(&id).ok_or(Missed { n_forgotten })?;
        held.used_at = now;
        Ok(held.value.clone())
    }

    /// Keeps a value that was found since it was `missed`.
    pub(super) fn keep(&self, id: SlotId, missed: Missed, value: V) {
        let used_at = Instant::now();
        let mut gone = Vec::new();
        let mut shard = self.shard(id);
        if shard.n_forgotten != missed.n_forgotten || self.shard_max == 0 {
            return;
        }
        gone.extend(shard.held.insert(id, Held { value, used_at }));
        if self.shard_max < shard.held.len() {
            let oldest = shard.oldest_of_some();
            gone.extend(oldest.and_then(|id| shard.held.remove(&id)));
        }
        if LOOK_EVERY <= used_at.duration_since(shard.looked_at) {
            shard.looked_at = used_at;
            gone.extend(shard.take_unused(used_at));
        }
        // Files, for one, are closed where nobody waits for it.
        drop(shard);
        drop(gone);
    }

    /// Keeps a value no longer: it is not true any more, or soon will not be.
    pub(super) fn forget(&self, id: SlotId) {
        let mut shard = self.shard(id);
        shard.n_forgotten += 1;
        let gone = shard.held.remove(&id);
        drop(shard);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missed(hot: &Hot<u8>, id: u128) -> Missed {
        hot.get(SlotId(id)).expect_err("not kept")
    }

    #[test]
    fn what_is_kept_is_found_until_it_is_forgotten() {
        let hot = Hot::new(16);
        let when = missed(&hot, 1);
        hot.keep(SlotId(1), when, 7);
        assert_eq!(hot.get(SlotId(1)), Ok(7));
        hot.forget(SlotId(1));
        missed(&hot, 1);
        // Found before it was forgotten.
        hot.keep(SlotId(1), when, 7);
        missed(&hot, 1);
    }

    #[test]
    fn no_more_than_the_limit_are_kept_and_the_last_asked_for_stay() {
        let hot = Hot::new(2 * N_SHARDS as u64);
        // All of one shard.
        let ids = [1, 2, 3].map(|n| n * N_SHARDS as u128);
        for id in &ids[..2] {
            hot.keep(SlotId(*id), missed(&hot, *id), 7);
        }
        assert!(hot.get(SlotId(ids[0])).is_ok());
        hot.keep(SlotId(ids[2]), missed(&hot, ids[2]), 7);
        missed(&hot, ids[1]);
        assert!(hot.get(SlotId(ids[0])).is_ok() && hot.get(SlotId(ids[2])).is_ok());
        let none = Hot::new(0);
        none.keep(SlotId(1), missed(&none, 1), 7);
        missed(&none, 1);
    }
}
