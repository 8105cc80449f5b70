//! Files that are kept open for the next download: what was just sent is often sent again.
//!
//! A file never changes, so an open one is as good as its name, as long as it has that name. Who
//! takes a name away says so here (`forget`), and nothing that was opened before is kept after
//! that. What somebody else removed has no name left, which `Inner::open` sees.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use crate::core::slot::SlotId;

/// Most files kept open: more than are asked for at a time, and next to nothing in memory.
const HANDLES_MAX: u64 = 4096;
/// Which part of the descriptors that we may have they are at most.
const DESCRIPTORS_SHARE: u64 = 8;
/// How long one is kept that nobody asks for.
const UNUSED_FOR_MAX: Duration = Duration::from_secs(60);
/// How often unused ones are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How many are compared to find one to close.
const N_COMPARED: usize = 16;
/// Locks, so that who asks for one file seldom waits for who asks for another.
const N_SHARDS: usize = 16;

/// How many files are kept open at most.
pub fn kept_max() -> u64 {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    HANDLES_MAX.min(descriptors / DESCRIPTORS_SHARE)
}

/// Files kept open.
pub(super) struct Handles {
    shards: [Mutex<Shard>; N_SHARDS],
    shard_max: usize,
}

struct Shard {
    held: HashMap<SlotId, Handle>,
    n_forgotten: u64,
    /// When unused ones were last looked for.
    looked_at: Instant,
}

impl Shard {
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
        let oldest = some.min_by_key(|(_, handle)| handle.used_at);
        oldest.map(|(id, _)| *id)
    }

    fn take_unused(&mut self, now: Instant) -> impl Iterator<Item = Handle> {
        let is_unused = move |handle: &Handle| UNUSED_FOR_MAX < now.duration_since(handle.used_at);
        let unused = self.held.extract_if(move |_, handle| is_unused(handle));
        unused.map(|(_, handle)| handle)
    }
}

struct Handle {
    file: Arc<File>,
    used_at: Instant,
}

/// When a file was looked for and not found: it may be kept if nothing was forgotten since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missed {
    n_forgotten: u64,
}

impl Handles {
    /// Keeps up to `n_max` files.
    pub(super) fn new(n_max: u64) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::new(Shard::new())),
            shard_max: usize::try_from(n_max).unwrap_or(usize::MAX) / N_SHARDS,
        }
    }

    fn shard(&self, id: SlotId) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[(id.0 % N_SHARDS as u128) as usize];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file, if it is kept.
    pub(super) fn get(&self, id: SlotId) -> Result<Arc<File>, Missed> {
        let mut shard = self.shard(id);
        let n_forgotten = shard.n_forgotten;
        let handle = shard.held.get_mut(&id).ok_or(Missed { n_forgotten })?;
        handle.used_at = Instant::now();
        Ok(handle.file.clone())
    }

    /// Keeps a file that was opened since it was `missed`.
    pub(super) fn keep(&self, id: SlotId, missed: Missed, file: Arc<File>) {
        let used_at = Instant::now();
        let mut gone = Vec::new();
        let mut shard = self.shard(id);
        if shard.n_forgotten != missed.n_forgotten || self.shard_max == 0 {
            return;
        }
        shard.held.insert(id, Handle { file, used_at });
        if self.shard_max < shard.held.len() {
            let oldest = shard.oldest_of_some();
            gone.extend(oldest.and_then(|id| shard.held.remove(&id)));
        }
        if LOOK_EVERY <= used_at.duration_since(shard.looked_at) {
            shard.looked_at = used_at;
            gone.extend(shard.take_unused(used_at));
        }
        // Files are closed where nobody waits for it.
        drop(shard);
        drop(gone);
    }

    /// Keeps a file no longer: it has lost its name.
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

    fn file() -> Arc<File> {
        Arc::new(tempfile::tempfile().expect("made"))
    }

    fn missed(handles: &Handles, id: u128) -> Missed {
        handles.get(SlotId(id)).expect_err("not kept")
    }

    #[test]
    fn what_is_kept_is_found_until_it_is_forgotten() {
        let handles = Handles::new(16);
        let when = missed(&handles, 1);
        handles.keep(SlotId(1), when, file());
        assert!(handles.get(SlotId(1)).is_ok());
        handles.forget(SlotId(1));
        missed(&handles, 1);
        // Opened before it lost its name.
        handles.keep(SlotId(1), when, file());
        missed(&handles, 1);
    }

    #[test]
    fn no_more_than_the_limit_are_kept_and_the_last_asked_for_stay() {
        let handles = Handles::new(2 * N_SHARDS as u64);
        // All of one shard.
        let ids = [1, 2, 3].map(|n| n * N_SHARDS as u128);
        for id in &ids[..2] {
            handles.keep(SlotId(*id), missed(&handles, *id), file());
        }
        assert!(handles.get(SlotId(ids[0])).is_ok());
        handles.keep(SlotId(ids[2]), missed(&handles, ids[2]), file());
        missed(&handles, ids[1]);
        assert!(handles.get(SlotId(ids[0])).is_ok() && handles.get(SlotId(ids[2])).is_ok());
        let none = Handles::new(0);
        none.keep(SlotId(1), missed(&none, 1), file());
        missed(&none, 1);
    }
}
