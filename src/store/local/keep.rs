//! A small file in one go: made, written, synced and named in one job of the blocking pool, or
//! in line where it is not synced.
//!
//! It has its lasting name before its bytes are durable, so that the sync that writes the bytes
//! finds the name in the same step of the file system's journal, and the directory's sync has
//! nothing left to write. That harms nobody: a file is served because its row says that it is
//! complete, and the row is written after this. What a crash leaves lies beside a row that says
//! that nothing came yet. Its length says nothing, and nobody believes it: the next request makes
//! the file anew, or takes it for a part and cuts it to nothing; otherwise the sweep takes it away.

use std::fs::File;
use std::io::Write as _;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::config::Durability;
use crate::core::slot::SlotId;
use crate::meters::{Synced, work};
use crate::store::StoreError;
use crate::store::local::place::{FILE_MODE, Use, file_name};
use crate::store::local::{Inner, trouble};

/// What is being done, for the log.
pub(super) const KEEPING: &str = "keep an upload";

impl Inner {
    /// Keeps a file at once where nothing of it has to reach the disk; `None` where the blocking
    /// pool has to.
    pub(super) fn keep_in_line(&self, id: SlotId, bytes: &[u8]) -> Option<Result<(), StoreError>> {
        if self.durability != Durability::None || self.how == Use::Read {
            return None;
        }
        self.in_line.run(|| self.keep(id, bytes))
    }

    pub(super) fn keep(&self, id: SlotId, bytes: &[u8]) -> Result<(), StoreError> {
        let _timed = work().time_file_store("keep");
        let kept = self.try_keep(id, bytes);
        if kept.is_err() {
            // The kernel may have dropped the bytes: nothing is left that looks like a file.
            let removed = rustix::fs::unlinkat(&self.place.files, file_name(id), AtFlags::empty());
            self.handles.forget(id);
            if let Err(e) = removed
                && e != Errno::NOENT
            {
                let slot = id.short();
                tracing::error!(slot, error = %e, "a file that failed cannot be removed");
            }
        }
        kept.map_err(|e| trouble(KEEPING, e))
    }

    fn try_keep(&self, id: SlotId, bytes: &[u8]) -> std::io::Result<()> {
        let mut file = self.make(id)?;
        self.hand_over(&file)?;
        file.write_all(bytes)?;
        if self.durability != Durability::None {
            let _timed = work().time_sync(Synced::File);
            file.sync_data()?;
        }
        match self.durability {
            Durability::Full => self.sync_files(id),
            Durability::Data | Durability::None => Ok(()),
        }
    }

    /// Makes a file that is nobody else's, in place of what a crash left.
    fn make(&self, id: SlotId) -> Result<File, Errno> {
        let name = file_name(id);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let make = || rustix::fs::openat(&self.place.files, &*name, flags, Mode::from(FILE_MODE));
        let made = match make() {
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&self.place.files, &*name, AtFlags::empty())?;
                self.handles.forget(id);
                make()
            }
            made => made,
        };
        made.map(File::from)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::runtime::{Builder, Runtime};

    use crate::config::Durability;
    use crate::core::slot::SlotId;
    use crate::store::FileStore as _;
    use crate::store::local::LocalFiles;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(100);

    /// Two threads, and one for all that blocks.
    fn runtime() -> Runtime {
        let mut builder = Builder::new_multi_thread();
        let builder = builder.worker_threads(2).max_blocking_threads(1);
        builder.enable_all().build().expect("threads")
    }

    /// Whether a file is kept within `time` while everything that blocks waits for its turn.
    async fn is_kept_in_line(durability: Durability, time: Duration) -> bool {
        let dir = tempfile::tempdir().expect("a directory");
        let files = LocalFiles::open(dir.path(), durability).expect("opened");
        let (free, busy) = mpsc::channel::<()>();
        let holding = tokio::task::spawn_blocking(move || busy.recv());
        let keep = files.keep(SlotId(7), Bytes::from_static(b"now"));
        let kept = tokio::time::timeout(time, keep).await;
        drop(free);
        assert!(holding.await.expect("held").is_err());
        kept.is_ok_and(|kept| kept.is_ok())
    }

    #[test]
    fn what_is_not_synced_needs_no_other_thread() {
        assert!(runtime().block_on(is_kept_in_line(Durability::None, LONG)));
    }

    #[test]
    fn nobody_waits_in_line_for_a_sync() {
        for durability in [Durability::Full, Durability::Data] {
            assert!(!runtime().block_on(is_kept_in_line(durability, SHORT)));
        }
    }
}
