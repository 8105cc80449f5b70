//! Places for IQs that wait for the store: so many for all, so many for each requester.
//!
//! Without a share of their own, whoever sends a thousand requests at once would have everybody
//! else told to come again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jid::BareJid;

use crate::core::refusal::Refusal;

/// Most requests that are decided at the same time.
pub const PLACES_MAX: usize = 1024;
/// Most of them of one requester.
pub const REQUESTER_PLACES_MAX: usize = 128;
/// When to ask again if there are more.
const RETRY_IN: Duration = Duration::from_secs(1);

/// Who has how many places. It holds an entry only for requests under way.
#[derive(Default)]
pub struct Places(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    n_all: usize,
    by_requester: HashMap<BareJid, usize>,
}

/// A place, until dropped.
pub struct Place {
    places: Arc<Places>,
    requester: BareJid,
}

impl Places {
    /// Takes a place for `requester`; refuses `TooManyRequests`.
    pub fn take(self: &Arc<Self>, requester: BareJid) -> Result<Place, Refusal> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let n_own = taken.by_requester.get(&requester).copied().unwrap_or(0);
        if PLACES_MAX <= taken.n_all || REQUESTER_PLACES_MAX <= n_own {
            return Err(Refusal::TooManyRequests { retry_in: RETRY_IN });
        }
        taken.n_all += 1;
        match taken.by_requester.get_mut(&requester) {
            Some(n_own) => *n_own += 1,
            None => drop(taken.by_requester.insert(requester.clone(), 1)),
        }
        let places = Arc::clone(self);
        Ok(Place { places, requester })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.n_all -= 1;
        if let Some(n_own) = taken.by_requester.get_mut(&self.requester) {
            *n_own -= 1;
            if *n_own == 0 {
                taken.by_requester.remove(&self.requester);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> BareJid {
        BareJid::new(text).expect("valid")
    }

    #[test]
    fn nobody_takes_the_places_of_others() {
        let places = Arc::new(Places::default());
        let take = |who: &str| places.take(jid(who)).ok();
        let mut held: Vec<_> = (0..REQUESTER_PLACES_MAX)
            .map(|_| take("flood@example.org").expect("a place"))
            .collect();
        assert!(take("flood@example.org").is_none());
        assert!(take("juliet@example.org").is_some());
        held.pop();
        assert!(take("flood@example.org").is_some());
        drop(held);
        assert!(
            places
                .0
                .lock()
                .expect("not poisoned")
                .by_requester
                .is_empty()
        );
    }

    #[test]
    fn there_are_so_many_for_all() {
        let places = Arc::new(Places::default());
        let take = |n: usize| places.take(jid(&format!("u{n}@example.org"))).ok();
        let held: Vec<_> = (0..PLACES_MAX).map(|n| take(n).expect("a place")).collect();
        assert!(take(PLACES_MAX).is_none());
        drop(held);
        assert!(take(0).is_some());
    }
}
