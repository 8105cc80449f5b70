//! The digests of uploads that were broken off, so far: to go on without reading them again.
//!
//! Only a saving: what is forgotten here, by its bound or a restart, is read from the part.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::core::slot::{PartId, SlotId};

/// Uploads remembered, at 200 bytes each; one more makes an arbitrary one forgotten.
const UPLOADS_MAX: usize = 10_000;

/// Digests by slot.
#[derive(Default)]
pub(super) struct Hashes(Mutex<HashMap<SlotId, Hash>>);

struct Hash {
    part: PartId,
    offset: u64,
    hasher: sha2::Sha256,
}

impl Hashes {
    /// The digest of the first `offset` bytes of `part`, if it is known. What is known of the part
    /// is forgotten: whoever asks is about to write to it.
    pub(super) fn take(&self, part: PartId, offset: u64) -> Option<sha2::Sha256> {
        let mut hashes = self.lock();
        if hashes.get(&part.slot)?.part != part {
            return None;
        }
        let hash = hashes.remove(&part.slot)?;
        (hash.offset == offset).then_some(hash.hasher)
    }

    /// Remembers the digest of the first `offset` bytes of `part`, in place of any other.
    pub(super) fn put(&self, part: PartId, offset: u64, hasher: sha2::Sha256) {
        let mut hashes = self.lock();
        if UPLOADS_MAX <= hashes.len() && !hashes.contains_key(&part.slot) {
            let some = hashes.keys().next().copied();
            some.and_then(|id| hashes.remove(&id));
        }
        let hash = Hash {
            part,
            offset,
            hasher,
        };
        hashes.insert(part.slot, hash);
    }

    /// Forgets what is known of a slot that has ended.
    pub(super) fn forget(&self, id: SlotId) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SlotId, Hash>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use sha2::Digest as _;

    use super::*;

    fn part(slot: u128, attempt: u16) -> PartId {
        let slot = SlotId(slot);
        PartId { slot, attempt }
    }

    #[test]
    fn only_what_fits_exactly_is_given_and_once() {
        let hashes = Hashes::default();
        let put = || hashes.put(part(1, 0), 3, sha2::Sha256::new_with_prefix(b"abc"));
        put();
        assert!(hashes.take(part(1, 1), 3).is_none());
        assert!(hashes.take(part(2, 0), 3).is_none());
        let got = hashes.take(part(1, 0), 3).expect("known");
        assert_eq!(got.finalize(), sha2::Sha256::digest(b"abc"));
        assert!(hashes.take(part(1, 0), 3).is_none());
        put();
        // Whoever begins elsewhere overwrites what was hashed.
        assert!(hashes.take(part(1, 0), 2).is_none());
        assert!(hashes.take(part(1, 0), 3).is_none());
        put();
        hashes.forget(SlotId(1));
        assert!(hashes.take(part(1, 0), 3).is_none());
    }

    #[test]
    fn the_table_is_bounded() {
        let hashes = Hashes::default();
        for n in 0..=UPLOADS_MAX {
            hashes.put(part(n as u128, 0), 1, sha2::Sha256::new());
        }
        assert_eq!(hashes.lock().len(), UPLOADS_MAX);
        assert!(hashes.take(part(UPLOADS_MAX as u128, 0), 1).is_some());
    }
}
