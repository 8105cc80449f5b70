//! How the service is: what its stores hold and whether they work, and which streams are up.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::core::health::StreamCount;
use crate::core::policy::Room;
use crate::service::{Service, broken};
use crate::store::Totals;

/// What the stores said.
#[derive(Clone, Debug)]
pub struct Stock {
    /// What they hold; `None` where the rows cannot be read.
    pub totals: Option<Totals>,
    /// What is free; `None` where nobody can tell.
    pub room: Option<Room>,
}

impl Service {
    /// Looks at the sums and the free room: cheap, and changes nothing.
    pub async fn take_stock(&self) -> Stock {
        let totals = self.stores.sessions.totals().await;
        let room = self.stores.files.room().await;
        Stock {
            totals: totals.map_err(|e| broken("read the sums", &e)).ok(),
            room: room.map_err(|e| broken("ask for free space", &e)).ok(),
        }
    }

    /// Writes a file, syncs it and reads it again: each step and how long it took; `None` where
    /// one failed.
    pub async fn try_files(&self) -> Option<Vec<(&'static str, Duration)>> {
        let tried = self.stores.files.test().await;
        tried.map_err(|e| broken("test the store", &e)).ok()
    }

    /// Where streams are counted.
    pub fn streams(&self) -> &Arc<Streams> {
        &self.streams
    }

    /// How many uploads come in.
    pub fn n_active(&self) -> usize {
        self.transfers.active().len()
    }

    /// Free room below which no slot is given out.
    pub fn reserve(&self) -> Room {
        self.settings().policy.reserve
    }

    /// Whether an operator said that no slots shall be given out.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Turns true when the service begins to stop.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.transfers.stopping()
    }

    /// Whether the service is being stopped.
    pub fn is_stopping(&self) -> bool {
        self.transfers.is_stopping()
    }
}

/// How many streams of which component are up.
#[derive(Default)]
pub struct Streams(Mutex<BTreeMap<String, Count>>);

#[derive(Default)]
struct Count {
    n_up: usize,
    n_wanted: usize,
}

impl Streams {
    /// Makes a component known that shall have `n_wanted` streams.
    pub fn expect(&self, host: &str, n_wanted: u8) {
        let mut counts = self.lock();
        counts.entry(host.to_owned()).or_default().n_wanted = n_wanted.into();
    }

    /// Counts a stream that is logged in, until what this returns is dropped.
    pub fn begin(self: &Arc<Self>, host: &str) -> StreamUp {
        self.lock().entry(host.to_owned()).or_default().n_up += 1;
        StreamUp {
            streams: self.clone(),
            host: host.to_owned(),
        }
    }

    /// All components, by name.
    pub fn list(&self) -> Vec<StreamCount> {
        let counts = self.lock();
        let told = counts.iter().map(|(host, count)| StreamCount {
            host: host.clone(),
            n_up: count.n_up,
            n_wanted: count.n_wanted,
        });
        told.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that is logged in.
pub struct StreamUp {
    streams: Arc<Streams>,
    host: String,
}

impl Drop for StreamUp {
    fn drop(&mut self) {
        if let Some(count) = self.streams.lock().get_mut(&self.host) {
            count.n_up -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_count_while_they_are_held() {
        let streams = Arc::new(Streams::default());
        streams.expect("b.example.org", 2);
        streams.expect("a.example.org", 1);
        let counts = || -> Vec<(String, usize, usize)> {
            let told = streams.list().into_iter();
            told.map(|it| (it.host, it.n_up, it.n_wanted)).collect()
        };
        let told = |a_up, b_up| {
            vec![
                ("a.example.org".to_owned(), a_up, 1),
                ("b.example.org".to_owned(), b_up, 2),
            ]
        };
        assert_eq!(counts(), told(0, 0));
        let first = streams.begin("b.example.org");
        let second = streams.begin("b.example.org");
        assert_eq!(counts(), told(0, 2));
        drop(first);
        assert_eq!(counts(), told(0, 1));
        drop(second);
        assert_eq!(counts(), told(0, 0));
    }
}
