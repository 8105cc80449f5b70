//! Durability: what is synced at all, and one sync of a directory for all who wait for it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::config::Durability;
use crate::store::StoreError;
use crate::store::local::name::Dir;
use crate::store::local::tree::Tree;
use crate::store::local::{blocking, trouble};

const DOING: &str = "making a file's name durable";

/// Told how a sync ended.
type Waiter = oneshot::Sender<Result<(), Arc<io::Error>>>;

/// Syncs files and directories as the configuration wants it.
pub(super) struct Syncer {
    tree: Arc<Tree>,
    durability: Durability,
    /// Who waits for the next sync of a directory; an entry exists while a thread works on it. As
    /// many wait as uploads end at once, which the service limits.
    rounds: Mutex<HashMap<Dir, Vec<Waiter>>>,
}

impl Syncer {
    pub(super) fn new(tree: Arc<Tree>, durability: Durability) -> Arc<Self> {
        let rounds = Mutex::default();
        Arc::new(Self {
            tree,
            durability,
            rounds,
        })
    }

    /// Makes a file's bytes durable.
    pub(super) async fn data(&self, file: &Arc<File>) -> Result<(), StoreError> {
        if self.durability == Durability::None {
            return Ok(());
        }
        let doing = "making an upload durable";
        let file = file.clone();
        blocking(doing, move || {
            file.sync_data().map_err(|e| trouble(doing, e))
        })
        .await
    }

    /// Makes all names durable that were given or taken in `dir` before the call.
    pub(super) async fn names(self: &Arc<Self>, dir: Dir) -> Result<(), StoreError> {
        if self.durability != Durability::Full {
            return Ok(());
        }
        let (waiter, synced) = oneshot::channel();
        match self.rounds().entry(dir) {
            Entry::Occupied(mut waiting) => waiting.get_mut().push(waiter),
            Entry::Vacant(free) => {
                free.insert(vec![waiter]);
                let this = self.clone();
                tokio::task::spawn_blocking(move || this.run_rounds(dir));
            }
        }
        match synced.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(trouble(DOING, io::Error::new(e.kind(), e))),
            Err(e) => Err(trouble(DOING, io::Error::other(e))),
        }
    }

    /// Syncs a directory for all who wait, until nobody does. Whoever comes while a sync runs is
    /// in the next round: the running one may have begun before their name was there.
    fn run_rounds(&self, dir: Dir) {
        loop {
            let waiting = {
                let mut rounds = self.rounds();
                let waiting = rounds.get_mut(&dir).map(std::mem::take);
                match waiting {
                    Some(waiting) if !waiting.is_empty() => waiting,
                    _ => {
                        rounds.remove(&dir);
                        return;
                    }
                }
            };
            let synced = self.tree.sync(&dir.path()).map_err(Arc::new);
            for waiter in waiting {
                // Whoever stopped waiting needs no answer.
                let _ = waiter.send(synced.clone());
            }
        }
    }

    fn rounds(&self) -> MutexGuard<'_, HashMap<Dir, Vec<Waiter>>> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
