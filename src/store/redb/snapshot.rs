//! One read transaction for all who read between two commits.
//!
//! To begin one costs four calls of the system, for the lock that lets an audit read beside us; to
//! read a row costs none. So it is kept until the next commit, which nobody may be answered before
//! it is dropped: who was told of a change reads it. What is kept holds back the pages of one
//! commit, as any reader would.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redb::{Database, ReadTransaction, ReadableDatabase as _};

use crate::store::redb::schema::Fault;

/// An open database, and what is read of it.
pub(super) struct Open {
    // Before the database: it is closed only when nobody reads.
    kept: Mutex<Kept>,
    pub(super) database: Database,
}

#[derive(Default)]
struct Kept {
    n_commits: u64,
    snapshot: Option<Arc<ReadTransaction>>,
}

impl Open {
    pub(super) fn new(database: Database) -> Self {
        Self {
            kept: Mutex::default(),
            database,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state after the last commit.
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
        // One that was begun before a commit is good for us, and for nobody after us.
        if kept.n_commits == n_commits {
            kept.snapshot = Some(snapshot.clone());
        }
        Ok(snapshot)
    }

    /// Lets nobody read what was before the commit that was just made.
    pub(super) fn forget_snapshot(&self) {
        let mut kept = self.kept();
        kept.n_commits += 1;
        let old = kept.snapshot.take();
        drop(kept);
        drop(old);
    }
}
