//! How many connections there may be at a time, a number that may change meanwhile.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::store::files_kept_max;

/// Descriptors that are not for connections: database, log, XMPP, files being swept. Files that
/// are kept open come on top.
const DESCRIPTORS_RESERVED: u64 = 64;
/// How often who waits for a place looks whether there are more now.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Places for connections.
pub struct Room {
    places: Arc<Semaphore>,
    now: Mutex<Now>,
}

/// How many there are.
#[derive(Default)]
struct Now {
    connections_max: usize,
    n_places: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(0)),
            now: Mutex::default(),
        }
    }
}

impl Room {
    /// Waits for a place, of as many as `connections_max` says at the time.
    pub async fn take(
        &self,
        connections_max: impl Fn() -> usize,
    ) -> Result<OwnedSemaphorePermit, AcquireError> {
        loop {
            self.fit(connections_max());
            if let Ok(place) = timeout(LOOK_EVERY, self.places.clone().acquire_owned()).await {
                return place;
            }
        }
    }

    /// Adds places, or takes some away: those that are taken go when they are left.
    fn fit(&self, connections_max: usize) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.connections_max == connections_max {
            return;
        }
        let n_places = n_places(connections_max);
        if now.n_places < n_places {
            self.places.add_permits(n_places - now.n_places);
        } else {
            let n_fewer = now.n_places - n_places;
            let n_taken = n_fewer - self.places.forget_permits(n_fewer);
            let places = self.places.clone();
            tokio::spawn(async move {
                for _ in 0..n_taken {
                    if let Ok(left) = places.acquire().await {
                        left.forget();
                    }
                }
            });
        }
        *now = Now {
            connections_max,
            n_places,
        };
    }
}

/// As many connections as are configured, and no more than there can be descriptors for, of which
/// each may need one for its file.
fn n_places(connections_max: usize) -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let taken = DESCRIPTORS_RESERVED + files_kept_max();
    let possible = descriptors.saturating_sub(taken) / 2;
    let possible = usize::try_from(possible).unwrap_or(usize::MAX).max(1);
    if possible < connections_max {
        tracing::warn!(
            connections_total_max = connections_max,
            possible,
            "limits.connections_total_max needs more open files than are allowed \
             (ulimit -Hn, LimitNOFILE)"
        );
    }
    possible
        .min(connections_max)
        .clamp(1, Semaphore::MAX_PERMITS)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn places_come_and_go_while_they_are_taken() {
        let room = Arc::new(Room::default());
        let take = |n: usize| room.take(move || n).now_or_never().and_then(Result::ok);
        let mut held: Vec<_> = (0..3).map(|_| take(3).expect("a place")).collect();
        assert!(take(3).is_none());
        held.push(take(4).expect("another"));
        // Two are too many: the first two that are left are nobody's.
        assert!(take(2).is_none());
        tokio::task::yield_now().await;
        for _ in 0..2 {
            held.pop();
            tokio::task::yield_now().await;
            assert!(take(2).is_none());
        }
        held.pop();
        assert!(take(2).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_hears_of_new_places() {
        let room = Arc::new(Room::default());
        let n_max = Arc::new(AtomicUsize::new(1));
        let _held = room.take(|| 1).await.expect("a place");
        let (waiting, seen) = (room.clone(), n_max.clone());
        let waiting = tokio::spawn(async move {
            let taken = waiting.take(|| seen.load(Ordering::Relaxed)).await;
            taken.is_ok()
        });
        tokio::task::yield_now().await;
        n_max.store(2, Ordering::Relaxed);
        assert!(waiting.await.expect("no panic"));
    }
}
