//! How fast each requester asks: buckets in memory, bounded in number.
//!
//! In memory, because a flood must be refused before it costs a transaction, and because a restart
//! that forgives a minute's worth of slots harms nobody: the quota is kept by the store.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jid::BareJid;

use crate::core::rate::{Bucket, Rate};
use crate::core::time::Timestamp;

/// Requesters remembered at once; those whose buckets are full again are forgotten first.
const REQUESTERS_MAX: usize = 100_000;

/// The buckets of all requesters.
#[derive(Default)]
pub(super) struct Rates {
    buckets: Mutex<HashMap<BareJid, Buckets>>,
}

#[derive(Clone, Copy, Default)]
struct Buckets {
    slots: Bucket,
    bytes: Bucket,
}

impl Rates {
    /// Counts one slot of `size_bytes`; or tells when it would fit, and counts nothing.
    pub(super) fn take(
        &self,
        requester: &BareJid,
        size_bytes: u64,
        slot_rate: Rate,
        byte_rate: Option<Rate>,
        now: Timestamp,
    ) -> Result<(), Timestamp> {
        let mut all = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get_mut(requester);
        let old = known.as_deref().copied().unwrap_or_default();
        let slots = slot_rate.take(old.slots, 1, now)?;
        let bytes = match byte_rate {
            Some(rate) => rate.take(old.bytes, size_bytes, now)?,
            None => old.bytes,
        };
        let new = Buckets { slots, bytes };
        match known {
            Some(known) => *known = new,
            None => {
                if REQUESTERS_MAX <= all.len() {
                    make_room(&mut all, now);
                }
                all.insert(requester.clone(), new);
            }
        }
        Ok(())
    }
}

/// Forgets the full buckets; where none is full, everybody starts afresh rather than memory grow.
fn make_room(all: &mut HashMap<BareJid, Buckets>, now: Timestamp) {
    all.retain(|_, buckets| !buckets.slots.is_full(now) || !buckets.bytes.is_full(now));
    if REQUESTERS_MAX <= all.len() {
        all.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);
    const SLOTS: Rate = Rate { per_minute: 3 };

    fn jid(text: &str) -> BareJid {
        BareJid::new(text).expect("valid")
    }

    #[test]
    fn each_requester_has_buckets_of_their_own() {
        let rates = Rates::default();
        let take = |who: &str| rates.take(&jid(who), 10, SLOTS, None, NOW);
        for _ in 0..3 {
            assert_eq!(take("romeo@example.org"), Ok(()));
        }
        assert_eq!(take("romeo@example.org"), Err(Timestamp(NOW.0 + 20)));
        assert_eq!(take("juliet@example.org"), Ok(()));
    }

    #[test]
    fn bytes_are_counted_too_and_a_refusal_counts_nothing() {
        let rates = Rates::default();
        let bytes = Some(Rate { per_minute: 100 });
        let take = |n_bytes| rates.take(&jid("romeo@example.org"), n_bytes, SLOTS, bytes, NOW);
        assert_eq!(take(90), Ok(()));
        assert!(take(20).is_err());
        assert_eq!(take(10), Ok(()));
        assert!(take(1).is_err());
    }

    #[test]
    fn the_table_is_bounded() {
        let rates = Rates::default();
        for n in 0..=REQUESTERS_MAX {
            let who = jid(&format!("u{n}@example.org"));
            assert_eq!(rates.take(&who, 1, SLOTS, None, NOW), Ok(()));
        }
        assert!(rates.buckets.lock().expect("not poisoned").len() <= REQUESTERS_MAX);
    }
}
