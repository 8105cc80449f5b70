//! Bytes in maps; whatever is written is durable at once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};

use crate::core::policy::Room;
use crate::core::slot::{PartId, SlotId};
use crate::store::memory::{STORE_ID, done, lock};
use crate::store::{Body, Content, Failure, FileStore, Progress, StoreError, Stored};

/// How much of a file goes into one piece of an opened body.
const PIECE_BYTES: usize = 64 << 10;

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

fn pieces(mut rest: Bytes) -> Body {
    let pieces = std::iter::from_fn(move || {
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        (!piece.is_empty()).then_some(Ok(piece))
    });
    stream::iter(pieces).boxed()
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

    fn keep(&self, id: SlotId, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        self.held().files.insert(id, bytes);
        done(Ok(()))
    }

    fn open(&self, id: SlotId, bytes: Range<u64>) -> BoxFuture<'_, Result<Content, StoreError>> {
        let file = self.held().files.get(&id).cloned();
        let file = file.filter(|file| bytes.end <= file.len() as u64);
        done(file.map_or(Err(lost(id)), |file| {
            let start = bytes.start.min(bytes.end);
            let bytes = file.slice(start as usize..bytes.end as usize);
            Ok(Content::Stream(pieces(bytes)))
        }))
    }

    fn open_part(&self, part: PartId, n_bytes: u64) -> BoxFuture<'_, Result<Body, StoreError>> {
        let bytes = self
            .held()
            .parts
            .get(&part)
            .map(|bytes| Bytes::copy_from_slice(bytes));
        let bytes = bytes.filter(|bytes| n_bytes <= bytes.len() as u64);
        done(bytes.map_or(Err(lost(part.slot)), |bytes| {
            Ok(pieces(bytes.slice(..n_bytes as usize)))
        }))
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

    fn parts(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<(PartId, u64)>, StoreError>> {
        let held = self.held();
        let mut parts: Vec<_> = held
            .parts
            .iter()
            .map(|(part, bytes)| (*part, bytes.len() as u64))
            .filter(|(part, _)| after < Some(part.slot))
            .collect();
        parts.sort();
        if let Some((last, _)) = parts.get(n_max.saturating_sub(1)).copied() {
            parts.retain(|(part, _)| part.slot <= last.slot);
        }
        done(Ok(parts))
    }

    fn room(&self) -> BoxFuture<'_, Result<Room, StoreError>> {
        done(Ok(self.held().room))
    }

    fn test(&self) -> BoxFuture<'_, Result<Vec<(&'static str, Duration)>, StoreError>> {
        done(Ok(vec![("remember", Duration::ZERO)]))
    }

    fn store_id(&self) -> BoxFuture<'_, Result<u128, StoreError>> {
        done(Ok(self.store_id))
    }
}
