//! One read transaction for all who read between two commits.
//!
//! To begin one costs four calls of the system, for the lock that lets an audit read beside us; to
//! read a row costs none. So it is kept until the next commit, which nobody may be answered before
//! it is dropped: who was told of a change reads it. What is kept holds back the pages of one
//! commit, as any reader would.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redb::{Database, ReadTransaction, ReadableDatabase as _};

use crate::core::download::Served;
use crate::core::slot::SlotId;
use crate::store::hot::Hot;
use crate::store::redb::schema::Fault;

/// Complete rows of which is kept what is served: a few MiB at most, for each is small.
const SERVED_MAX: u64 = 4096;

/// An open database, and what is read of it.
pub(super) struct Open {
    // Before the database: it is closed only when nobody reads.
    kept: Mutex<Kept>,
    served: Hot<Arc<Served>>,
    database: Database,
}

#[derive(Default)]
struct Kept {
    n_commits: u64,
    /// Who begins to read now may see the state before the commit or the one after it.
    is_committing: bool,
    snapshot: Option<Arc<ReadTransaction>>,
}

impl Open {
    pub(super) fn new(database: Database) -> Self {
        Self {
            kept: Mutex::default(),
            served: Hot::new(SERVED_MAX),
            database,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state after the last commit; while one is being made, before or after it.
    pub(super) fn snapshot(&self) -> Result<Arc<ReadTransaction>, Fault> {
        let n_commits = {
            let kept = self.kept();
            if let Some(snapshot) = &kept.snapshot {
                return Ok(snapshot.clone());
            }
            kept.n_commits
        };
        let snapshot = Arc::new(self.database.begin_read()?);
        let mut kept = self.kept();
        if kept.n_commits != n_commits {
            // It is good for us, and for nobody after us.
            return Ok(snapshot);
        }
        if let Some(kept) = &kept.snapshot {
            // Ours may be newer, and then the next read would be older.
            return Ok(kept.clone());
        }
        if !kept.is_committing {
            kept.snapshot = Some(snapshot.clone());
        }
        Ok(snapshot)
    }

    /// What is served of a slot: as it is kept, or as `find` finds it in a snapshot.
    pub(super) fn served<E>(
        &self,
        id: SlotId,
        find: impl FnOnce(&ReadTransaction) -> Result<Result<Option<Served>, E>, Fault>,
    ) -> Result<Result<Option<Arc<Served>>, E>, Fault> {
        let missed = match self.served.get(id) {
            Ok(served) => return Ok(Ok(Some(served))),
            Err(missed) => missed,
        };
        let n_commits = self.kept().n_commits;
        let found = find(&*self.snapshot()?)?.map(|served| served.map(Arc::new));
        if let Ok(Some(served)) = &found {
            let kept = self.kept();
            // While a commit is made others may see the state after it already: who came here
            // behind them must not find the one before it.
            if kept.n_commits == n_commits && !kept.is_committing {
                self.served.keep(id, missed, served.clone());
            }
        }
        Ok(found)
    }

    /// To be called within a commit, before it can be seen, for each complete row that it changes.
    pub(super) fn forget_served(&self, id: SlotId) {
        self.served.forget(id);
    }

    /// Runs a commit; nobody reads what was before it once this has returned.
    pub(super) fn commit<T>(&self, commit: impl FnOnce(&Database) -> T) -> T {
        self.kept().is_committing = true;
        let result = commit(&self.database);
        let mut kept = self.kept();
        kept.n_commits += 1;
        kept.is_committing = false;
        let old = kept.snapshot.take();
        drop(kept);
        drop(old);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::config::Durability;
    use crate::store::redb::RedbSessions;
    use crate::store::redb::schema::Tables;

    const N_CHANGES: u64 = 2000;

    /// Readers share a snapshot; none that is older than what was answered is left by then.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn whoever_begins_to_read_sees_what_was_answered_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("slotd.redb");
        let store = Arc::new(RedbSessions::open(&path, Durability::None, 7).expect("opened"));
        let answered = Arc::new(AtomicU64::new(0));
        let readers = (0..3).map(|_| {
            let (store, answered) = (store.clone(), answered.clone());
            tokio::spawn(async move {
                loop {
                    let before = answered.load(Ordering::Acquire);
                    let seen = store.fact("read", "note").await.expect("a fact");
                    assert!(
                        u128::from(before) <= seen,
                        "{seen} after {before} was answered"
                    );
                    if before == N_CHANGES {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            })
        });
        let readers: Vec<_> = readers.collect();
        for n in 1..=N_CHANGES {
            let note = move |tables: &mut Tables<'_>| {
                tables.set_fact("note", n.into())?;
                Ok(Ok(()))
            };
            store.write("note", note).await.expect("noted");
            answered.store(n, Ordering::Release);
        }
        for reader in readers {
            reader.await.expect("a reader ends");
        }
    }
}
