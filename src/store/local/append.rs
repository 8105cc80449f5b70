//! Takes an upload's bytes into a part.
//!
//! Writes are made in-line, since they go to the page cache; an upload that met a slow one goes on
//! in the blocking pool. Syncs are made there always, and go on beside the next writes. Every write
//! has its offset, so that a late one cannot move another.
//!
//! After a write or sync that failed the part is cut back to what was durable before: the kernel
//! may have dropped the bytes, and the next sync would say nothing of them.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use tokio::task::JoinHandle;

use crate::config::Durability;
use crate::core::slot::PartId;
use crate::meters::{Synced, work};
use crate::store::local::claim::Claim;
use crate::store::local::place::{FILE_MODE, part_name};
use crate::store::local::{Inner, blocking, damaged, trouble};
use crate::store::{Body, Failure, Progress, StoreError};

/// Bytes after which what came is made durable.
const FLUSH_BYTES: u64 = 8 << 20;
/// Time after which it is, also when nothing comes any more.
const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// A write that takes longer waits for the disk: the rest goes to the blocking pool.
const WRITE_IN_LINE_MAX: Duration = Duration::from_millis(5);
/// Below this size a reservation costs more than it tells: the write itself soon says the same.
const RESERVE_BYTES_MIN: u64 = 1 << 20;

const WRITING: &str = "write an upload";
const SYNCING: &str = "make an upload durable";

/// A part that is being written.
struct Part {
    inner: Arc<Inner>,
    id: PartId,
    file: File,
    /// Held until the last write in the blocking pool has ended, too.
    _claim: Claim,
}

impl Part {
    /// Opens the part, cut back to `from`, with room for `size_bytes`.
    fn open(
        inner: Arc<Inner>,
        claim: Claim,
        id: PartId,
        from: u64,
        size_bytes: u64,
    ) -> Result<Self, StoreError> {
        let doing = "begin an upload";
        let name = part_name(id);
        let mut flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if from == 0 {
            flags |= OFlags::CREATE;
        }
        let open = || rustix::fs::openat(&inner.place.parts, &name, flags, Mode::from(FILE_MODE));
        let file = match open() {
            Err(Errno::NOENT) => return Err(damaged(id.slot)),
            opened => File::from(opened.map_err(|e| trouble(doing, e.into()))?),
        };
        inner.hand_over(&file).map_err(|e| trouble(doing, e))?;
        let part = Self {
            inner,
            id,
            file,
            _claim: claim,
        };
        let metadata = part.file.metadata().map_err(|e| trouble(doing, e))?;
        if !metadata.is_file() || metadata.len() < from {
            return Err(damaged(id.slot));
        }
        if metadata.len() != from {
            part.file.set_len(from).map_err(|e| trouble(doing, e))?;
            // New bytes must not meet the old length after a power cut: they would end in old ones.
            part.sync(Names::No)?;
        }
        part.reserve(from, size_bytes).inspect_err(|_| {
            part.cut_back(from);
        })?;
        Ok(part)
    }

    /// Reserves room, so that a full disk shows now and not at the last byte.
    fn reserve(&self, from: u64, size_bytes: u64) -> Result<(), StoreError> {
        let n_bytes = size_bytes.saturating_sub(from);
        if n_bytes < RESERVE_BYTES_MIN {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, from, n_bytes) {
            Ok(()) => Ok(()),
            // Not every file system can; the write will tell.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::INTR) => Ok(()),
            Err(e) => Err(trouble("reserve room for an upload", e.into())),
        }
    }

    fn write(&self, mut bytes: &[u8], mut at: u64) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            match rustix::io::pwrite(&self.file, bytes, at) {
                Ok(n_written) => {
                    bytes = &bytes[n_written..];
                    at += n_written as u64;
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(trouble(WRITING, e.into())),
            }
        }
        Ok(())
    }

    fn sync(&self, names: Names) -> Result<(), StoreError> {
        if self.inner.durability != Durability::None {
            let _timed = work().time_sync(Synced::File);
            let synced = rustix::fs::fdatasync(&self.file);
            synced.map_err(|e| trouble(SYNCING, e.into()))?;
        }
        if names == Names::Too && self.inner.durability == Durability::Full {
            let synced = self.inner.sync_parts(self.id.slot);
            synced.map_err(|e| trouble(SYNCING, e))?;
        }
        Ok(())
    }

    /// Leaves of the part what was durable; nothing at all where that cannot be done.
    fn cut_back(&self, durable: u64) {
        let is_cut = durable != 0 && self.file.set_len(durable).is_ok();
        if !is_cut {
            let name = part_name(self.id);
            let removed = rustix::fs::unlinkat(&self.inner.place.parts, name, AtFlags::empty());
            if let Err(e) = removed {
                let slot = self.id.slot.short();
                tracing::error!(slot, error = %e, "a part that failed cannot be removed");
            }
        }
    }
}

/// What a sync makes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// The part's bytes.
    No,
    /// Its entry in its directory, too.
    Too,
}

/// A sync under way, and the length it makes durable.
struct Flush {
    done: JoinHandle<Result<(), StoreError>>,
    length: u64,
}

/// One call of `append`.
pub(super) struct Appending {
    part: Arc<Part>,
    progress: Progress,
    size_bytes: u64,
    written: u64,
    durable: u64,
    /// When what is written has to be made durable, if anything is not.
    flush_at: Option<tokio::time::Instant>,
    flush: Option<Flush>,
    /// The part's name is durable.
    is_named: bool,
    is_slow: bool,
}

impl Appending {
    /// Claims and opens the part.
    pub(super) async fn begin(
        inner: &Arc<Inner>,
        id: PartId,
        from: u64,
        size_bytes: u64,
        progress: Progress,
    ) -> Result<Self, StoreError> {
        inner.check_writable(WRITING)?;
        let claim = inner.claims.claim(id, WRITING).await?;
        let inner = inner.clone();
        let part = blocking(WRITING, move || {
            Part::open(inner, claim, id, from, size_bytes)
        });
        Ok(Self {
            part: Arc::new(part.await?),
            progress,
            size_bytes,
            written: from,
            durable: from,
            flush_at: None,
            flush: None,
            is_named: false,
            is_slow: false,
        })
    }

    /// Takes the whole body, and returns the durable length.
    pub(super) async fn run(mut self, body: Body) -> Result<u64, Failure> {
        let taken = match self.take(body).await {
            Ok(()) | Err(Failure::Refused(_)) => self.end().await,
            Err(Failure::Broken(e)) => Err(e),
        };
        match taken {
            Ok(()) => Ok(self.durable),
            Err(e) => {
                self.give_up().await;
                Err(e.into())
            }
        }
    }

    async fn take(&mut self, mut body: Body) -> Result<(), Failure> {
        loop {
            let flush_at = self.flush_at;
            tokio::select! {
                biased;
                flushed = wait_for(&mut self.flush), if self.flush.is_some() => {
                    self.note_flush(flushed).await?;
                }
                () = sleep_until(flush_at), if flush_at.is_some() && self.flush.is_none() => {
                    self.start_flush();
                }
                piece = body.next() => match piece {
                    Some(Ok(bytes)) => self.write(bytes).await?,
                    Some(Err(_)) | None => return Ok(()),
                },
            }
        }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), Failure> {
        let (at, n_bytes) = (self.written, bytes.len() as u64);
        if self.is_slow {
            let part = self.part.clone();
            blocking(WRITING, move || part.write(&bytes, at)).await?;
        } else {
            let begun = Instant::now();
            self.part.write(&bytes, at)?;
            self.is_slow = WRITE_IN_LINE_MAX < begun.elapsed();
            // Not held while the disk is waited for below.
            drop(bytes);
        }
        self.written += n_bytes;
        if self.flush_at.is_none() {
            self.flush_at = Some(tokio::time::Instant::now() + FLUSH_EVERY);
        }
        let begun = self
            .flush
            .as_ref()
            .map_or(self.durable, |flush| flush.length);
        if FLUSH_BYTES <= self.written - begun {
            // The disk does not keep up: wait for it rather than fill the memory.
            if self.flush.is_some() {
                let flushed = wait_for(&mut self.flush).await;
                self.note_flush(flushed).await?;
            }
            self.start_flush();
        }
        Ok(())
    }

    fn start_flush(&mut self) {
        let names = match self.is_named {
            true => Names::No,
            false => Names::Too,
        };
        self.flush_at = None;
        let part = self.part.clone();
        self.flush = Some(Flush {
            done: tokio::task::spawn_blocking(move || part.sync(names)),
            length: self.written,
        });
    }

    async fn note_flush(&mut self, flushed: Result<u64, StoreError>) -> Result<(), Failure> {
        self.durable = flushed?;
        self.is_named = true;
        if self.durable < self.written && self.flush_at.is_none() {
            self.flush_at = Some(tokio::time::Instant::now() + FLUSH_EVERY);
        }
        (self.progress)(self.durable).await
    }

    /// Makes the rest durable.
    async fn end(&mut self) -> Result<(), StoreError> {
        if self.flush.is_some() {
            self.durable = wait_for(&mut self.flush).await?;
            self.is_named = true;
        }
        let (part, length) = (self.part.clone(), self.written);
        let is_whole = length == self.size_bytes;
        if self.durable == length && self.is_named && is_whole {
            return Ok(());
        }
        // A whole part gets its lasting name from `commit`.
        let names = match self.is_named || is_whole {
            true => Names::No,
            false => Names::Too,
        };
        blocking(SYNCING, move || {
            if !is_whole {
                // Gives back what was reserved beyond: the rest may never come.
                part.file.set_len(length).map_err(|e| trouble(SYNCING, e))?;
            }
            part.sync(names)
        })
        .await?;
        self.durable = length;
        Ok(())
    }

    async fn give_up(&mut self) {
        if self.flush.is_some() {
            // Its outcome changes nothing: what was told last stays.
            drop(wait_for(&mut self.flush).await);
        }
        let (part, durable) = (self.part.clone(), self.durable);
        let cut = blocking(WRITING, move || {
            part.cut_back(durable);
            Ok(())
        });
        if let Err(e) = cut.await {
            let slot = self.part.id.slot.short();
            tracing::error!(slot, error = %e, "a part that failed cannot be cut back");
        }
    }
}

/// Waits for the flush that is under way; returns the length it made durable.
async fn wait_for(flush: &mut Option<Flush>) -> Result<u64, StoreError> {
    let Some(Flush { done, length }) = flush else {
        return std::future::pending().await;
    };
    let length = *length;
    let ended = done.await;
    *flush = None;
    ended.unwrap_or_else(|e| Err(trouble(SYNCING, e.into())))?;
    Ok(length)
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::future::ready;
    use std::path::PathBuf;

    use futures_util::stream;
    use tempfile::TempDir;

    use super::*;
    use crate::core::slot::SlotId;
    use crate::store::FileStore as _;
    use crate::store::local::LocalFiles;

    const PART: PartId = PartId {
        slot: SlotId(7),
        attempt: 0,
    };

    fn files() -> (TempDir, LocalFiles) {
        let dir = TempDir::new().expect("made");
        let files = LocalFiles::open(dir.path(), Durability::Full).expect("opened");
        (dir, files)
    }

    fn path(dir: &TempDir) -> PathBuf {
        dir.path().join("parts").join(part_name(PART))
    }

    fn go_on() -> Progress {
        Arc::new(|_| Box::pin(ready(Ok(()))))
    }

    fn body(pieces: &[&'static [u8]]) -> Body {
        let pieces: Vec<_> = pieces.iter().map(|p| Ok(Bytes::from_static(p))).collect();
        stream::iter(pieces).boxed()
    }

    async fn appending(files: &LocalFiles) -> Appending {
        let appending = Appending::begin(&files.inner, PART, 0, 20, go_on());
        appending.await.expect("begun")
    }

    /// A disk that was slow once gets the rest from another thread: the same bytes in the same
    /// places.
    #[tokio::test]
    async fn a_slow_disk_gets_the_same_bytes() {
        let (dir, files) = files();
        let mut appending = appending(&files).await;
        let first = Bytes::from_static(b"in line, ");
        appending.write(first).await.expect("written");
        appending.is_slow = true;
        let length = appending.run(body(&[b"then ", b"", b"not"])).await;
        assert_eq!(length.expect("appended"), 17);
        let written = std::fs::read(path(&dir)).expect("read");
        assert_eq!(written, b"in line, then not");
    }

    /// A sync that fails, as it does on a device that is no file, leaves nothing that a second
    /// sync might call durable.
    #[tokio::test]
    async fn after_a_failed_sync_nothing_stays() {
        let (dir, files) = files();
        let mut appending = appending(&files).await;
        let null = OpenOptions::new().write(true).open("/dev/null");
        let part = Arc::get_mut(&mut appending.part).expect("nobody else's");
        part.file = null.expect("opened");
        let failed = appending.run(body(&[b"lost"])).await;
        assert!(
            matches!(failed, Err(Failure::Broken(StoreError::Unavailable { .. }))),
            "{failed:?}"
        );
        assert!(
            !path(&dir).exists(),
            "what cannot be trusted is still there"
        );
        assert_eq!(files.settle(PART).await.expect("settled"), 0);
    }

    /// A progress that breaks takes nothing back that it was told.
    #[tokio::test]
    async fn after_an_error_what_was_told_stays() {
        let (_dir, files) = files();
        let progress: Progress = Arc::new(|_| {
            let broken = StoreError::Corrupt("the row".to_owned());
            Box::pin(ready(Err(broken.into())))
        });
        let piece = Bytes::from(vec![7; 3 << 20]);
        // Without an end: only the error ends it.
        let endless = stream::repeat(Ok(piece)).boxed();
        let appended = files.append(PART, 0, 4, endless, progress).await;
        assert!(
            matches!(appended, Err(Failure::Broken(StoreError::Corrupt(_)))),
            "{appended:?}"
        );
        assert_eq!(files.settle(PART).await.expect("settled"), 9 << 20);
    }
}
