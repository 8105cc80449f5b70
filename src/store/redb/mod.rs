//! Rows in one file: redb, with a commit shared by all that write at the time.
//!
//! Definitions
//! * A row is an `UploadSession` under its id, in the form of `row`.
//! * An index entry or a sum is *of* a row where `schema::Marks` of the row says so.
//! * An hour's use is what its sum holds for one account, one domain or everybody.
//!
//! * A name is the `SessionId` of a row; its session is open while bytes may still come.
//!
//! Invariants, which hold after each commit (`recount` checks 1 to 7)
//! 1. `due` holds (`due_at`, id) of each row that has a `due_at`, and nothing else.
//! 2. `complete` holds (time, id) of each complete row, and nothing else.
//! 3. `stored-bytes` is the sum of `stored_bytes` of all rows.
//! 4. A use is the sum of `quota_bytes` of the rows created in that hour, and of what rows had that
//!    were removed while complete; hours before `uses-since` have no use. `hours` holds the same
//!    keys, by hour.
//! 5. `sessions` holds name -> id of each row that has a name, and nothing else; no two rows have
//!    the same.
//! 6. `uploads` holds (owner, whether it has a name, `created_at`, id) of each row, and nothing
//!    else.
//! 7. `open` holds (owner, id) of each row that has a name and is open, and nothing else.
//! 8. What was answered is in the file, and on the disk: nothing is answered before its commit.
//!
//! A file of an earlier schema has no table for 6; one of the first has none for 5 and 7 either,
//! and no row with a name. Who writes brings it to today's before anything else (`migration`); who
//! only reads takes what is not there for empty.
//!
//! Beside all this stand `bans` and `paths`, to which no row refers.
//!
//! Assumptions: redb's commit is atomic, and durable where the disk's flush is; one process writes,
//! which redb's lock sees to.

use std::path::Path;
use std::sync::Arc;

use ::redb::{ReadOnlyDatabase, ReadTransaction, ReadableTableMetadata as _};
use futures_util::future::BoxFuture;
use jid::BareJid;

use crate::config::Durability;
use crate::core::bans::Ban;
use crate::core::download::Served;
use crate::core::external::UsedPath;
use crate::core::policy::{Bucket, Usage};
use crate::core::session::UploadSession;
use crate::core::slot::{SessionId, SlotId};
use crate::core::time::Timestamp;
use crate::store::{
    Admit, BanEntry, Change, Failure, Mend, OpenError, Recount, SessionStore, StoreError, Totals,
    row,
};
use access::unrefused;
use committer::{Committer, Shared};
use disk::Syncs;
use lists::First;
use schema::{COMPLETE, FACTS, Fault, ROWS, SESSIONS, STORE_ID, STORED_BYTES, Tables, newer_table};
use waiting::Pace;

mod access;
mod bans;
mod committer;
mod disk;
mod indexes;
mod lists;
mod migration;
mod opening;
mod paths;
mod recount;
mod schema;
mod snapshot;
mod sums;
mod trouble;
mod waiting;

/// Sums forgotten in one operation, so that nobody waits long behind it.
const FORGET_MAX: usize = 2000;

/// Rows in one redb file.
pub struct RedbSessions {
    access: Access,
}

enum Access {
    Write {
        shared: Arc<Shared>,
        committer: Committer,
    },
    Read(ReadOnlyDatabase),
}

impl RedbSessions {
    /// Opens the file at `path`, creating it with `new_store_id` where there is none.
    ///
    /// Every page is verified first, of a large file only where it was not closed cleanly; a
    /// damaged file is an error that says what to do. A second process that opens the same file
    /// this way gets an error too.
    pub fn open(
        path: &Path,
        durability: Durability,
        new_store_id: u128,
    ) -> Result<Self, OpenError> {
        let syncs = match durability {
            Durability::Full | Durability::Data => Syncs::Yes,
            Durability::None => Syncs::No,
        };
        let database = opening::open_or_create(path, syncs, new_store_id)?;
        let shared = Arc::new(Shared::new(path.to_owned(), syncs, database));
        let committer = Committer::start(shared.clone());
        let committer = committer
            .map_err(|e| OpenError::new(path, format!("cannot be written by a thread: {e}")))?;
        let access = Access::Write { shared, committer };
        Ok(Self { access })
    }

    /// Opens an existing file for reading, also while another process writes it.
    pub fn open_read_only(path: &Path) -> Result<Self, OpenError> {
        let access = Access::Read(opening::open_reader(path)?);
        Ok(Self { access })
    }
}

const READING: &str = "read a row";

fn row_of(
    read: &ReadTransaction,
    id: SlotId,
) -> Result<Result<Option<UploadSession>, StoreError>, Fault> {
    let bytes = read.open_table(ROWS)?.get(id.0)?;
    Ok(bytes
        .map(|bytes| row::decode(id, bytes.value()))
        .transpose())
}

impl SessionStore for RedbSessions {
    fn admit(
        &self,
        owner: BareJid,
        since: Bucket,
        decide: Admit,
    ) -> BoxFuture<'_, Result<UploadSession, Failure>> {
        let admit = move |tables: &mut Tables<'_>| tables.admit(&owner, since, decide);
        Box::pin(self.write_at("admit a slot", Pace::Patient, admit))
    }

    fn admit_path(
        &self,
        path: UsedPath,
        owner: BareJid,
        since: Bucket,
        decide: Admit,
    ) -> BoxFuture<'_, Result<UploadSession, Failure>> {
        let admit = move |tables: &mut Tables<'_>| tables.admit_path(path, &owner, since, decide);
        Box::pin(self.write("admit a path", admit))
    }

    fn forget_paths(&self, now: Timestamp) -> BoxFuture<'_, Result<(), StoreError>> {
        let doing = "forget used paths";
        Box::pin(async move {
            while self
                .read(doing, move |read| paths::is_due(read, now))
                .await?
            {
                let forget = move |tables: &mut Tables<'_>| tables.forget_paths(now, FORGET_MAX);
                unrefused(doing, self.write(doing, forget).await)?;
            }
            Ok(())
        })
    }

    fn update(&self, id: SlotId, change: Change) -> BoxFuture<'_, Result<UploadSession, Failure>> {
        Box::pin(self.write("change a row", move |tables| tables.update(id, change)))
    }

    fn get(&self, id: SlotId) -> BoxFuture<'_, Result<Option<UploadSession>, StoreError>> {
        let get = move |read: &ReadTransaction| row_of(read, id);
        Box::pin(async move { self.read(READING, get).await? })
    }

    fn served(&self, id: SlotId) -> BoxFuture<'_, Result<Option<Arc<Served>>, StoreError>> {
        let find = move |read: &ReadTransaction| {
            let row = row_of(read, id)?;
            Ok(row.map(|row| row.as_ref().and_then(Served::of)))
        };
        let served = move || match &self.access {
            Access::Write { shared, .. } => shared.read_open(|open| open.served(id, find)),
            Access::Read(_) => Ok(self.try_read(find)?.map(|served| served.map(Arc::new))),
        };
        Box::pin(async move { self.read_by(READING, served).await? })
    }

    fn find_session(&self, id: SessionId) -> BoxFuture<'_, Result<Option<SlotId>, StoreError>> {
        let find = move |read: &ReadTransaction| {
            let Some(sessions) = newer_table(read, SESSIONS)? else {
                return Ok(None);
            };
            Ok(sessions.get(id.0)?.map(|slot| SlotId(slot.value())))
        };
        Box::pin(self.read("look for an upload session", find))
    }

    fn owned(
        &self,
        owner: BareJid,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<UploadSession>, StoreError>> {
        let owned = move |read: &ReadTransaction| lists::owned(read, &owner, n_max);
        Box::pin(async move { self.read("list upload sessions", owned).await? })
    }

    fn due(&self, now: Timestamp, n_max: usize) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>> {
        let due = move |read: &ReadTransaction| lists::due(read, now, n_max);
        Box::pin(self.read("look for what is due", due))
    }

    fn oldest(&self, n_max: usize) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>> {
        let oldest = move |read: &_| lists::complete(read, First::Oldest, n_max);
        Box::pin(self.read("look for the oldest files", oldest))
    }

    fn uploads_of(
        &self,
        owner: BareJid,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>> {
        let uploads = move |read: &ReadTransaction| lists::uploads_of(read, &owner, n_max);
        Box::pin(self.read("list an account's uploads", uploads))
    }

    fn newest(&self, n_max: usize) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>> {
        let newest = move |read: &_| lists::complete(read, First::Newest, n_max);
        Box::pin(self.read("look for the newest files", newest))
    }

    fn usage(&self, owner: BareJid, since: Bucket) -> BoxFuture<'_, Result<Usage, StoreError>> {
        let doing = "count what was used";
        Box::pin(async move {
            let usage = move |tables: &mut Tables<'_>| tables.tell_usage(&owner, since);
            unrefused(doing, self.write(doing, usage).await)
        })
    }

    fn forget_owner(&self, owner: BareJid) -> BoxFuture<'_, Result<(), StoreError>> {
        let doing = "forget what an account used";
        Box::pin(async move {
            let forget = move |tables: &mut Tables<'_>| tables.forget_owner(&owner);
            unrefused(doing, self.write(doing, forget).await)
        })
    }

    fn page(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<UploadSession>, StoreError>> {
        let page = move |read: &ReadTransaction| {
            let first = match after {
                Some(SlotId(u128::MAX)) => return Ok(Ok(Vec::new())),
                Some(SlotId(after)) => after + 1,
                None => 0,
            };
            let rows = read.open_table(ROWS)?;
            let mut page = Vec::new();
            for entry in rows.range(first..)?.take(n_max) {
                let (id, bytes) = entry?;
                match row::decode(SlotId(id.value()), bytes.value()) {
                    Ok(row) => page.push(row),
                    Err(corrupt) => return Ok(Err(corrupt)),
                }
            }
            Ok(Ok(page))
        };
        Box::pin(async move { self.read("list rows", page).await? })
    }

    fn remove(&self, id: SlotId) -> BoxFuture<'_, Result<(), StoreError>> {
        let doing = "remove a row";
        Box::pin(async move {
            let removed = self.write(doing, move |tables| tables.remove(id)).await;
            unrefused(doing, removed)
        })
    }

    fn totals(&self) -> BoxFuture<'_, Result<Totals, StoreError>> {
        let totals = |read: &ReadTransaction| {
            let stored_bytes = read.open_table(FACTS)?.get(STORED_BYTES)?;
            let stored_bytes = stored_bytes.map_or(0, |fact| fact.value());
            Ok(Totals {
                n_rows: read.open_table(ROWS)?.len()?,
                n_files: read.open_table(COMPLETE)?.len()?,
                stored_bytes: u64::try_from(stored_bytes).unwrap_or(u64::MAX),
            })
        };
        Box::pin(self.read("read the sums", totals))
    }

    fn recount(&self, mend: Mend) -> BoxFuture<'_, Result<Recount, StoreError>> {
        let doing = "count the sums again";
        Box::pin(async move {
            let found = self.read(doing, recount::find).await??;
            if mend == Mend::Yes && !found.wrong.is_empty() {
                unrefused(doing, self.write(doing, recount::mend).await)?;
            }
            Ok(found)
        })
    }

    fn forget_uses(&self, before: Bucket) -> BoxFuture<'_, Result<(), StoreError>> {
        let doing = "forget old uses";
        Box::pin(async move {
            loop {
                let forget = move |tables: &mut Tables<'_>| tables.forget(before, FORGET_MAX);
                let n_forgotten = unrefused(doing, self.write(doing, forget).await)?;
                if n_forgotten < FORGET_MAX {
                    return Ok(());
                }
            }
        })
    }

    fn orders(&self) -> BoxFuture<'_, Result<Vec<(String, String)>, StoreError>> {
        Box::pin(self.read("read what operators said", lists::orders))
    }

    fn set_order(
        &self,
        name: String,
        value: Option<String>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let doing = "keep what an operator said";
        Box::pin(async move {
            let set = move |tables: &mut Tables<'_>| tables.set_order(&name, value.as_deref());
            unrefused(doing, self.write(doing, set).await)
        })
    }

    fn bans(&self) -> BoxFuture<'_, Result<Vec<Ban>, StoreError>> {
        Box::pin(async move { self.read("read the bans", bans::all).await? })
    }

    fn keep_bans(&self, changes: Vec<BanEntry>) -> BoxFuture<'_, Result<(), StoreError>> {
        let doing = "write bans down";
        Box::pin(async move {
            let keep = move |tables: &mut Tables<'_>| tables.keep_bans(&changes);
            unrefused(doing, self.write(doing, keep).await)
        })
    }

    fn store_id(&self) -> BoxFuture<'_, Result<u128, StoreError>> {
        Box::pin(self.fact("read the store id", STORE_ID))
    }
}

#[cfg(test)]
mod tests;
