//! Bytes in a directory of this machine.
//!
//! Order of events: bytes, their sync, the new name, its directory's sync; only then anybody is
//! told. A small file that comes whole has its name first (`keep`). A part that is cut back is
//! durably shorter before it grows again. Parallel syncs of directories share one write of the file
//! system's journal, so they are not gathered here.
//!
//! Assumptions: a rename is atomic; after a sync of a file and of its directory both survive.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::fchown;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::config::Durability;
use crate::core::accel;
use crate::core::policy::Room;
use crate::core::slot::{PartId, SlotId};
use crate::store::{Body, Content, Failure, FileStore, OpenError, Progress, StoreError, Stored};
use append::Appending;
use claim::Claims;
use handles::Handles;
use in_line::InLine;
use keep::KEEPING;
use place::{Place, Use};

mod append;
mod claim;
pub mod handles;
mod in_line;
mod keep;
mod listing;
mod names;
pub(crate) mod place;
mod read;
mod trial;

pub(super) use read::body;

/// How long an answer about free space stays good.
const ROOM_FOR: Duration = Duration::from_secs(1);

/// Bytes in a directory.
pub struct LocalFiles {
    inner: Arc<Inner>,
}

struct Inner {
    place: Place,
    how: Use,
    durability: Durability,
    claims: Arc<Claims>,
    in_line: InLine,
    handles: Handles,
    room: Mutex<Option<(Instant, Room)>>,
    /// Whose the files shall be that root makes: the data directory's owner and group.
    heir: Option<(u32, u32)>,
}

impl LocalFiles {
    /// Opens the files of `data_dir`, making what is missing.
    ///
    /// Refuses what is no directory, nobody's or everybody's, or spread over several file systems,
    /// in a sentence that says what to do.
    pub fn open(data_dir: &Path, durability: Durability) -> Result<Self, OpenError> {
        Self::new(data_dir, Use::Write(durability), durability)
    }

    /// Opens the files of `data_dir` as they are; nothing can be changed through it.
    pub fn open_read_only(data_dir: &Path) -> Result<Self, OpenError> {
        Self::new(data_dir, Use::Read, Durability::Full)
    }

    fn new(data_dir: &Path, how: Use, durability: Durability) -> Result<Self, OpenError> {
        let inner = Inner {
            place: Place::open(data_dir, how)?,
            how,
            durability,
            claims: Arc::default(),
            in_line: InLine::default(),
            handles: Handles::new(handles::kept_max()),
            room: Mutex::new(None),
            heir: place::heir_of(data_dir),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Whether there is neither file nor part.
    pub fn is_empty(&self) -> io::Result<bool> {
        self.inner.place.is_empty()
    }

    /// What binds these files to their rows.
    pub fn id(&self) -> u128 {
        self.inner.place.store_id
    }

    /// Reads in the blocking pool.
    async fn read<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = self.inner.clone();
        blocking(doing, move || work(&inner)).await
    }

    /// Changes something, in the blocking pool.
    async fn write<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.inner.check_writable(doing)?;
        self.read(doing, work).await
    }
}

/// Runs `work` in the blocking pool.
async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(trouble(doing, e.into())))
}

/// What an error of the operating system means.
fn trouble(doing: &'static str, e: io::Error) -> StoreError {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::NoSpace { doing },
        _ => StoreError::Unavailable {
            doing,
            source: Arc::new(e),
        },
    }
}

fn damaged(id: SlotId) -> StoreError {
    StoreError::Corrupt(format!("file {id:?}, of which bytes are missing,"))
}

impl Inner {
    fn check_writable(&self, doing: &'static str) -> Result<(), StoreError> {
        match self.how {
            Use::Write(_) => Ok(()),
            Use::Read => Err(trouble(doing, io::ErrorKind::ReadOnlyFilesystem.into())),
        }
    }

    /// What root makes belongs to whom the data directory belongs to: the service has to read it.
    fn hand_over(&self, file: &File) -> io::Result<()> {
        match self.heir {
            Some((user, group)) => fchown(file, Some(user), Some(group)),
            None => Ok(()),
        }
    }

    fn room(&self) -> io::Result<Room> {
        let mut cached = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, room)) = cached.filter(|(at, _)| at.elapsed() < ROOM_FOR) {
            return Ok(room);
        }
        let free = rustix::fs::fstatvfs(&self.place.files)?;
        let room = Room {
            bytes: free.f_bavail.saturating_mul(free.f_frsize),
            // Some file systems make inodes as they need them, and say they have none at all.
            inodes: match free.f_files {
                0 => u64::MAX,
                _ => free.f_favail,
            },
        };
        *cached = Some((Instant::now(), room));
        Ok(room)
    }
}

impl FileStore for LocalFiles {
    fn append(
        &self,
        part: PartId,
        from: u64,
        size_bytes: u64,
        body: Body,
        progress: Progress,
    ) -> BoxFuture<'_, Result<u64, Failure>> {
        Box::pin(async move {
            let appending = Appending::begin(&self.inner, part, from, size_bytes, progress);
            appending.await?.run(body).await
        })
    }

    fn settle(&self, part: PartId) -> BoxFuture<'_, Result<u64, StoreError>> {
        let doing = "settle an upload";
        Box::pin(async move {
            let claim = self.inner.claims.claim(part, doing).await?;
            let settle = move |inner: &Inner| {
                let settled = inner.settle(part);
                drop(claim);
                settled.map_err(|e| trouble(doing, e))
            };
            self.write(doing, settle).await
        })
    }

    fn commit(&self, part: PartId, size_bytes: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        let doing = "give an upload its name";
        Box::pin(async move {
            let claim = self.inner.claims.claim(part, doing).await?;
            let commit = move |inner: &Inner| {
                let committed = inner.commit(part, size_bytes);
                drop(claim);
                committed
            };
            self.write(doing, commit).await
        })
    }

    fn keep(&self, id: SlotId, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        let first = PartId {
            slot: id,
            attempt: 0,
        };
        Box::pin(async move {
            let claim = self.inner.claims.claim(first, KEEPING).await?;
            if let Some(kept) = self.inner.keep_in_line(id, &bytes) {
                return kept;
            }
            let keep = move |inner: &Inner| {
                let kept = inner.keep(id, &bytes);
                drop(claim);
                kept
            };
            self.write(KEEPING, keep).await
        })
    }

    fn open(&self, id: SlotId, bytes: Range<u64>) -> BoxFuture<'_, Result<Content, StoreError>> {
        let opened = self.inner.open(id, bytes).map(Content::File);
        Box::pin(std::future::ready(opened))
    }

    fn place(&self, id: SlotId) -> Option<accel::Place> {
        Some(accel::Place {
            directory: self.inner.place.files_path.to_str()?.to_owned(),
            name: place::file_name(id),
        })
    }

    fn open_part(&self, part: PartId, n_bytes: u64) -> BoxFuture<'_, Result<Body, StoreError>> {
        let opened = self.inner.open_part(part, 0..n_bytes).map(read::body);
        Box::pin(std::future::ready(opened))
    }

    fn remove_part(&self, part: PartId) -> BoxFuture<'_, Result<(), StoreError>> {
        let doing = "remove an attempt";
        let remove = move |inner: &Inner| inner.remove_part(part).map_err(|e| trouble(doing, e));
        Box::pin(self.write(doing, remove))
    }

    fn remove(&self, id: SlotId) -> BoxFuture<'_, Result<(), StoreError>> {
        let doing = "remove a file";
        let remove = move |inner: &Inner| inner.remove(id).map_err(|e| trouble(doing, e));
        Box::pin(self.write(doing, remove))
    }

    fn find(&self, id: SlotId) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        let doing = "look for a file";
        let find = move |inner: &Inner| inner.find(id).map_err(|e| trouble(doing, e));
        Box::pin(self.read(doing, find))
    }

    fn page(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        let doing = "list files";
        let page = move |inner: &Inner| inner.page(after, n_max).map_err(|e| trouble(doing, e));
        Box::pin(self.read(doing, page))
    }

    fn parts(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<(PartId, u64)>, StoreError>> {
        let doing = "list uploads under way";
        let parts = move |inner: &Inner| inner.parts(after, n_max).map_err(|e| trouble(doing, e));
        Box::pin(self.read(doing, parts))
    }

    fn room(&self) -> BoxFuture<'_, Result<Room, StoreError>> {
        let room = self.inner.room();
        let room = room.map_err(|e| trouble("ask for free space", e));
        Box::pin(std::future::ready(room))
    }

    fn test(&self) -> BoxFuture<'_, Result<Vec<(&'static str, Duration)>, StoreError>> {
        let doing = "test the store";
        let test = move |inner: &Inner| inner.try_out().map_err(|e| trouble(doing, e));
        Box::pin(self.write(doing, test))
    }

    fn store_id(&self) -> BoxFuture<'_, Result<u128, StoreError>> {
        Box::pin(std::future::ready(Ok(self.id())))
    }
}

#[cfg(test)]
mod tests;
