//! Files in a directory: parts and files under names made of their ids, nothing else.
//!
//! Below the data directory are `files/xx/<id>` for files, where `xx` is the first byte of the id,
//! `parts/<id>.<attempt>` for parts, and `store-id`; ids in hexadecimal digits.
//!
//! Invariants
//! 1. A file under `files` is whole, and is never written to.
//! 2. What was told to be durable is: its bytes by fdatasync, its name by fsync of the directory
//!    (`Durability::Full`; less is lost less safely, see there).
//! 3. After a failed sync nothing that it should have made durable is kept.
//!
//! Assumptions: rename within the file system is atomic; after fsync of file and directory both
//! survive a power cut; one service writes (the database's lock sees to that).

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join, ready};

use crate::config::Durability;
use crate::core::policy::Room;
use crate::core::slot::{PartId, SlotId};
use crate::store::{Body, Failure, FileStore, OpenError, Progress, StoreError, Stored};
use name::{Dir, file_path, part_path};
use part::Span;
use sync::Syncer;
use tree::{Removal, Tree};

mod check;
mod list;
mod name;
mod part;
mod read;
mod sync;
mod tree;

/// How long what was free is believed to be free.
const ROOM_TTL: Duration = Duration::from_secs(1);

/// Files in a directory.
pub struct LocalFiles {
    tree: Arc<Tree>,
    syncer: Arc<Syncer>,
    access: Access,
    store_id: u128,
    /// What was free, and when.
    room: Mutex<Option<(Instant, Room)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Write,
    Read,
}

impl LocalFiles {
    /// Opens the files in `data_dir`, making the directory and what is in it where it is not there.
    pub fn open(data_dir: &Path, durability: Durability) -> Result<Self, OpenError> {
        let opened = check::open_or_create(data_dir)?;
        Ok(Self::new(opened, Access::Write, durability))
    }

    /// Opens existing files for reading, also while another process writes them; changes nothing.
    pub fn open_read_only(data_dir: &Path) -> Result<Self, OpenError> {
        let opened = check::open(data_dir)?;
        Ok(Self::new(opened, Access::Read, Durability::None))
    }

    fn new(opened: check::Opened, access: Access, durability: Durability) -> Self {
        let tree = Arc::new(Tree { root: opened.root });
        Self {
            syncer: Syncer::new(tree.clone(), durability),
            tree,
            access,
            store_id: opened.store_id,
            room: Mutex::new(None),
        }
    }

    fn writable(&self, doing: &'static str) -> Result<(), StoreError> {
        match self.access {
            Access::Write => Ok(()),
            Access::Read => Err(trouble(doing, io::ErrorKind::ReadOnlyFilesystem.into())),
        }
    }

    /// Does `work` where it may wait for the disk.
    async fn with_tree<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Tree) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let tree = self.tree.clone();
        blocking(doing, move || work(&tree).map_err(|e| trouble(doing, e))).await
    }

    async fn commit_part(&self, part: PartId, size_bytes: u64) -> Result<(), StoreError> {
        let doing = "committing an upload";
        self.writable(doing)?;
        let tree = self.tree.clone();
        blocking(doing, move || rename(&tree, part, size_bytes, doing)).await?;
        self.syncer.names(Dir::of(part.slot)).await
    }

    async fn remove_all(&self, id: SlotId) -> Result<(), StoreError> {
        let doing = "removing a file";
        self.writable(doing)?;
        let removed = self.with_tree(doing, move |tree| {
            let file = tree.remove(&file_path(id))?;
            let parts = list::parts_of(tree, id)?;
            for part in &parts {
                tree.remove(&part_path(*part))?;
            }
            Ok((file, !parts.is_empty()))
        });
        let (file, had_parts) = removed.await?;
        // The row goes next: a power cut in between must not bring the file back without it.
        let (files, parts) = join(
            self.sync_if(file == Removal::Removed, Dir::of(id)),
            self.sync_if(had_parts, Dir::Parts),
        )
        .await;
        files.and(parts)
    }

    async fn remove_one(&self, part: PartId) -> Result<(), StoreError> {
        let doing = "removing a part";
        self.writable(doing)?;
        let removed = self.with_tree(doing, move |tree| tree.remove(&part_path(part)));
        self.sync_if(removed.await? == Removal::Removed, Dir::Parts)
            .await
    }

    async fn sync_if(&self, is_changed: bool, dir: Dir) -> Result<(), StoreError> {
        match is_changed {
            true => self.syncer.names(dir).await,
            false => Ok(()),
        }
    }

    async fn free(&self) -> Result<Room, StoreError> {
        let now = Instant::now();
        let known = *self.room.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, room)) = known
            && now.duration_since(at) < ROOM_TTL
        {
            return Ok(room);
        }
        let doing = "looking for free space";
        let room = self.with_tree(doing, |tree| {
            let stat = rustix::fs::fstatvfs(&tree.root)?;
            let inodes = match stat.f_files {
                // Made as they are needed, by btrfs for one.
                0 => u64::MAX,
                _ => stat.f_favail,
            };
            let bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
            Ok(Room { bytes, inodes })
        });
        let room = room.await?;
        *self.room.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, room));
        Ok(room)
    }
}

/// Gives a part its slot's name.
fn rename(
    tree: &Tree,
    part: PartId,
    size_bytes: u64,
    doing: &'static str,
) -> Result<(), StoreError> {
    let (from, to) = (part_path(part), file_path(part.slot));
    let twice = || StoreError::Corrupt(format!("file {:?}, complete twice,", part.slot));
    let length = tree.size(&from).map_err(|e| trouble(doing, e))?;
    if length != Some(size_bytes) {
        let file = tree.size(&to).map_err(|e| trouble(doing, e))?;
        return Err(file.map_or_else(|| lost(part.slot), |_| twice()));
    }
    tree.rename(&from, &to).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => twice(),
        io::ErrorKind::NotFound => lost(part.slot),
        _ => trouble(doing, e),
    })
}

/// Does `work` on a thread that may wait for the disk.
async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(trouble(doing, io::Error::other(e))))
}

/// What an error of the disk means to whoever was `doing` something.
fn trouble(doing: &'static str, e: io::Error) -> StoreError {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::NoSpace { doing },
        _ => StoreError::Unavailable {
            doing,
            source: Arc::new(e),
        },
    }
}

fn lost(id: SlotId) -> StoreError {
    StoreError::Corrupt(format!("file {id:?}, of which bytes are missing,"))
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
        if let Err(e) = self.writable("writing an upload") {
            return Box::pin(ready(Err(e.into())));
        }
        let (tree, syncer) = (self.tree.clone(), self.syncer.clone());
        let span = Span { from, size_bytes };
        Box::pin(part::append(tree, syncer, part, span, body, progress))
    }

    fn settle(&self, part: PartId) -> BoxFuture<'_, Result<u64, StoreError>> {
        if let Err(e) = self.writable("settling an upload") {
            return Box::pin(ready(Err(e)));
        }
        Box::pin(part::settle(self.tree.clone(), self.syncer.clone(), part))
    }

    fn commit(&self, part: PartId, size_bytes: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.commit_part(part, size_bytes))
    }

    fn open(&self, id: SlotId, bytes: Range<u64>) -> BoxFuture<'_, Result<Body, StoreError>> {
        Box::pin(async move { read::open(&self.tree, id, bytes) })
    }

    fn remove_part(&self, part: PartId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.remove_one(part))
    }

    fn remove(&self, id: SlotId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.remove_all(id))
    }

    fn find(&self, id: SlotId) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        Box::pin(self.with_tree("looking for a file", move |tree| list::find(tree, id)))
    }

    fn page(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        Box::pin(self.with_tree("listing files", move |tree| list::page(tree, after, n_max)))
    }

    fn room(&self) -> BoxFuture<'_, Result<Room, StoreError>> {
        Box::pin(self.free())
    }

    fn store_id(&self) -> BoxFuture<'_, Result<u128, StoreError>> {
        Box::pin(ready(Ok(self.store_id)))
    }
}
