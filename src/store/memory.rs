//! Both stores in maps: the reference, and the tests' stand-in.
//!
//! Short and plainly right rather than fast: sums are counted from the rows each time they are
//! asked for, and whatever is written is durable at once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::{BoxFuture, ready};
use futures_util::{StreamExt as _, stream};
use jid::BareJid;

use crate::core::policy::{Bucket, Room, Usage, Uses};
use crate::core::refusal::Refusal;
use crate::core::session::{State, UploadSession};
use crate::core::slot::{PartId, SlotId};
use crate::core::time::Timestamp;
use crate::store::{
    Admit, Body, Change, Failure, FileStore, Mend, Progress, Recount, SessionStore, StoreError,
    Stored, Totals,
};

/// What binds default stores to each other.
const STORE_ID: u128 = 1;
/// How much of a file goes into one piece of an opened body.
const PIECE_BYTES: usize = 64 << 10;

/// Rows in a map.
pub struct MemorySessions {
    store_id: u128,
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct Rows {
    by_id: BTreeMap<SlotId, UploadSession>,
    /// Complete rows that were removed: their bytes stay used.
    used: Vec<Use>,
    /// The first hour that still counts.
    since: Option<Bucket>,
}

/// One row's share of the quota.
struct Use {
    owner: BareJid,
    bucket: Bucket,
    n_bytes: u64,
}

impl Use {
    fn of(row: &UploadSession) -> Self {
        Self {
            owner: row.owner.clone(),
            bucket: Bucket::of(row.created_at),
            n_bytes: row.quota_bytes(),
        }
    }
}

impl Default for MemorySessions {
    fn default() -> Self {
        Self::new(STORE_ID)
    }
}

impl MemorySessions {
    /// No rows, bound to the files of `store_id`.
    pub fn new(store_id: u128) -> Self {
        Self {
            store_id,
            rows: Mutex::default(),
        }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        lock(&self.rows)
    }
}

/// A panic elsewhere leaves the maps whole: each change is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rows {
    /// Sums what rows of `who` used since `since`, by the hour.
    fn uses(&self, since: Bucket, who: impl Fn(&BareJid) -> bool) -> Uses {
        let since = self.since.map_or(since, |kept| since.max(kept));
        let mut sums = BTreeMap::new();
        let rows = self.by_id.values().map(Use::of);
        let used = self.used.iter().map(|used| Use {
            owner: used.owner.clone(),
            ..*used
        });
        for each in rows.chain(used) {
            if since <= each.bucket && 0 < each.n_bytes && who(&each.owner) {
                *sums.entry(each.bucket).or_insert(0u64) += each.n_bytes;
            }
        }
        sums.into_iter().collect()
    }

    fn admit(
        &mut self,
        owner: &BareJid,
        since: Bucket,
        mut decide: Admit,
    ) -> Result<UploadSession, Failure> {
        let usage = Usage {
            requester: self.uses(since, |other| other == owner),
            domain: self.uses(since, |other| other.domain() == owner.domain()),
            total: self.uses(since, |_| true),
        };
        let row = decide(&usage)?;
        if self.by_id.contains_key(&row.id) {
            return Err(StoreError::Corrupt(format!("slot {:?}, issued twice,", row.id)).into());
        }
        self.by_id.insert(row.id, row.clone());
        Ok(row)
    }

    fn update(&mut self, id: SlotId, mut change: Change) -> Result<UploadSession, Failure> {
        let old = self.by_id.get(&id).ok_or(Refusal::UnknownFile)?.clone();
        let row = change(old)?;
        self.by_id.insert(id, row.clone());
        Ok(row)
    }

    fn remove(&mut self, id: SlotId) {
        let Some(row) = self.by_id.remove(&id) else {
            return;
        };
        if matches!(row.state, State::Complete { .. }) {
            self.used.push(Use::of(&row));
        }
    }

    /// Ids of the rows that have a time, in order of it.
    fn by_time(&self, time: impl Fn(&UploadSession) -> Option<Timestamp>) -> Vec<SlotId> {
        let rows = self.by_id.values();
        let mut ids: Vec<_> = rows.filter_map(|row| Some((time(row)?, row.id))).collect();
        ids.sort();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    fn totals(&self) -> Totals {
        let files = self.by_id.values().filter(|row| is_complete(row));
        Totals {
            n_rows: self.by_id.len() as u64,
            n_files: files.clone().count() as u64,
            stored_bytes: files.map(UploadSession::stored_bytes).sum(),
        }
    }
}

fn is_complete(row: &UploadSession) -> bool {
    matches!(row.state, State::Complete { .. })
}

/// A future that is ready: maps never wait.
fn done<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(ready(value))
}

impl SessionStore for MemorySessions {
    fn admit(
        &self,
        owner: BareJid,
        since: Bucket,
        decide: Admit,
    ) -> BoxFuture<'_, Result<UploadSession, Failure>> {
        done(self.rows().admit(&owner, since, decide))
    }

    fn update(&self, id: SlotId, change: Change) -> BoxFuture<'_, Result<UploadSession, Failure>> {
        done(self.rows().update(id, change))
    }

    fn get(&self, id: SlotId) -> BoxFuture<'_, Result<Option<UploadSession>, StoreError>> {
        done(Ok(self.rows().by_id.get(&id).cloned()))
    }

    fn due(&self, now: Timestamp, n_max: usize) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>> {
        let due_at = |row: &UploadSession| row.due_at().filter(|due_at| *due_at <= now);
        let mut ids = self.rows().by_time(due_at);
        ids.truncate(n_max);
        done(Ok(ids))
    }

    fn oldest(&self, n_max: usize) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>> {
        let complete_at = |row: &UploadSession| match row.state {
            State::Complete { at, .. } => Some(at),
            _ => None,
        };
        let mut ids = self.rows().by_time(complete_at);
        ids.truncate(n_max);
        done(Ok(ids))
    }

    fn page(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<UploadSession>, StoreError>> {
        let rows = self.rows();
        let ids = rows.by_id.values().filter(|row| after < Some(row.id));
        done(Ok(ids.take(n_max).cloned().collect()))
    }

    fn remove(&self, id: SlotId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.rows().remove(id);
        done(Ok(()))
    }

    fn totals(&self) -> BoxFuture<'_, Result<Totals, StoreError>> {
        done(Ok(self.rows().totals()))
    }

    fn recount(&self, _mend: Mend) -> BoxFuture<'_, Result<Recount, StoreError>> {
        done(Ok(Recount::default()))
    }

    fn forget_uses(&self, before: Bucket) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut rows = self.rows();
        rows.since = rows.since.max(Some(before));
        rows.used.retain(|used| before <= used.bucket);
        done(Ok(()))
    }

    fn store_id(&self) -> BoxFuture<'_, Result<u128, StoreError>> {
        done(Ok(self.store_id))
    }
}

/// Bytes in maps.
pub struct MemoryFiles {
    store_id: u128,
    held: Mutex<Held>,
}

struct Held {
    files: BTreeMap<SlotId, Bytes>,
    parts: BTreeMap<PartId, Vec<u8>>,
    room: Room,
}

impl Default for MemoryFiles {
    fn default() -> Self {
        Self::new(STORE_ID)
    }
}

impl MemoryFiles {
    /// No files, room for everything, bound to the rows of `store_id`.
    pub fn new(store_id: u128) -> Self {
        let room = Room {
            bytes: u64::MAX,
            inodes: u64::MAX,
        };
        let held = Held {
            files: BTreeMap::new(),
            parts: BTreeMap::new(),
            room,
        };
        Self {
            store_id,
            held: Mutex::new(held),
        }
    }

    /// Says what room there is from now on; what is written does not lessen it.
    pub fn set_room(&self, room: Room) {
        self.held().room = room;
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }
}

impl Held {
    /// Cuts a part back to where an append begins.
    fn cut(&mut self, part: PartId, from: u64, size_bytes: u64) -> Result<(), StoreError> {
        if from == 0 {
            self.parts.entry(part).or_default();
        }
        let bytes = self.parts.get_mut(&part).ok_or_else(|| lost(part.slot))?;
        if (bytes.len() as u64) < from {
            return Err(lost(part.slot));
        }
        bytes.truncate(from as usize);
        if self.room.bytes < size_bytes.saturating_sub(from) {
            if from == 0 {
                self.parts.remove(&part);
            }
            return Err(StoreError::NoSpace {
                doing: "reserving room for an upload",
            });
        }
        Ok(())
    }

    /// Writes at an explicit offset, so that a late writer cannot write twice.
    fn write(&mut self, part: PartId, at: u64, piece: &[u8]) -> Result<(), StoreError> {
        let bytes = self.parts.get_mut(&part).ok_or_else(|| lost(part.slot))?;
        let (at, end) = (at as usize, at as usize + piece.len());
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[at..end].copy_from_slice(piece);
        Ok(())
    }

    fn settle(&mut self, part: PartId) -> u64 {
        if !self.parts.contains_key(&part)
            && let Some(file) = self.files.remove(&part.slot)
        {
            self.parts.insert(part, file.into());
        }
        self.parts.get(&part).map_or(0, |bytes| bytes.len() as u64)
    }

    fn commit(&mut self, part: PartId, size_bytes: u64) -> Result<(), StoreError> {
        if self.files.contains_key(&part.slot) {
            return Err(StoreError::Corrupt(format!(
                "file {:?}, complete twice,",
                part.slot
            )));
        }
        let is_whole = |bytes: &Vec<u8>| bytes.len() as u64 == size_bytes;
        if !self.parts.get(&part).is_some_and(is_whole) {
            return Err(lost(part.slot));
        }
        let bytes = self.parts.remove(&part).unwrap_or_default();
        self.files.insert(part.slot, bytes.into());
        Ok(())
    }

    /// Files and parts of the slots that `is_listed`, in order.
    fn list(&self, is_listed: impl Fn(SlotId) -> bool) -> Vec<Stored> {
        let files = self.files.iter().map(|(id, bytes)| Stored::File {
            id: *id,
            size_bytes: bytes.len() as u64,
        });
        let parts = self.parts.iter().map(|(part, bytes)| Stored::Part {
            part: *part,
            size_bytes: bytes.len() as u64,
        });
        let all = files.chain(parts);
        let mut listed: Vec<_> = all.filter(|stored| is_listed(stored.slot())).collect();
        listed.sort_by_key(Stored::place);
        listed
    }
}

fn lost(id: SlotId) -> StoreError {
    StoreError::Corrupt(format!("file {id:?}, of which bytes are missing,"))
}

impl FileStore for MemoryFiles {
    fn append(
        &self,
        part: PartId,
        from: u64,
        size_bytes: u64,
        mut body: Body,
        progress: Progress,
    ) -> BoxFuture<'_, Result<u64, Failure>> {
        Box::pin(async move {
            self.held().cut(part, from, size_bytes)?;
            let mut durable = from;
            while let Some(Ok(piece)) = body.next().await {
                self.held().write(part, durable, &piece)?;
                durable += piece.len() as u64;
                match progress(durable).await {
                    Ok(()) => {}
                    Err(Failure::Refused(_)) => break,
                    Err(broken) => return Err(broken),
                }
            }
            Ok(durable)
        })
    }

    fn settle(&self, part: PartId) -> BoxFuture<'_, Result<u64, StoreError>> {
        done(Ok(self.held().settle(part)))
    }

    fn commit(&self, part: PartId, size_bytes: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        done(self.held().commit(part, size_bytes))
    }

    fn open(&self, id: SlotId, bytes: Range<u64>) -> BoxFuture<'_, Result<Body, StoreError>> {
        let file = self.held().files.get(&id).cloned();
        let Some(file) = file.filter(|file| bytes.end <= file.len() as u64) else {
            return done(Err(lost(id)));
        };
        let mut rest = file.slice(bytes.start.min(bytes.end) as usize..bytes.end as usize);
        let pieces = std::iter::from_fn(move || {
            let piece = rest.split_to(rest.len().min(PIECE_BYTES));
            (!piece.is_empty()).then_some(Ok(piece))
        });
        done(Ok(stream::iter(pieces).boxed()))
    }

    fn remove_part(&self, part: PartId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.held().parts.remove(&part);
        done(Ok(()))
    }

    fn remove(&self, id: SlotId) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut held = self.held();
        held.files.remove(&id);
        held.parts.retain(|part, _| part.slot != id);
        done(Ok(()))
    }

    fn find(&self, id: SlotId) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        done(Ok(self.held().list(|slot| slot == id)))
    }

    fn page(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        let mut listed = self.held().list(|slot| after < Some(slot));
        // All of a slot together: whoever stands on the border comes with the rest of theirs.
        if let Some(last) = listed.get(n_max.saturating_sub(1)).map(Stored::slot) {
            listed.retain(|stored| stored.slot() <= last);
        }
        done(Ok(listed))
    }

    fn room(&self) -> BoxFuture<'_, Result<Room, StoreError>> {
        done(Ok(self.held().room))
    }

    fn store_id(&self) -> BoxFuture<'_, Result<u128, StoreError>> {
        done(Ok(self.store_id))
    }
}
