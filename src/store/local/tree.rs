//! The system calls below the data directory; all of them may wait for a disk.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir as Entries, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::store::local::name::Dir;

/// The data directory.
pub(super) struct Tree {
    /// Paths begin here, so that nothing depends on what the directory is called later.
    pub(super) root: OwnedFd,
}

/// Whether there was something to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    Removed,
    WasGone,
}

impl Tree {
    /// Opens a file; a link in its place is refused.
    pub(super) fn open(&self, path: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(rustix::fs::openat(&self.root, path, flags, mode)?.into())
    }

    /// Creates an empty file. What had the name loses it, so that a writer that was left behind
    /// cannot write into the new one.
    pub(super) fn create(&self, path: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        match self.open(path, flags) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.remove(path)?;
                self.open(path, flags)
            }
            opened => opened,
        }
    }

    /// The size of a regular file, if there is one.
    pub(super) fn size(&self, path: &str) -> io::Result<Option<u64>> {
        match rustix::fs::statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() => {
                Ok(Some(stat.st_size as u64))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Renames; never replaces: that is `AlreadyExists`.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (root, no_replace) = (&self.root, RenameFlags::NOREPLACE);
        match rustix::fs::renameat_with(root, from, root, to, no_replace) {
            // Some file systems cannot (NFS); a link never replaces anything either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rustix::fs::linkat(root, from, root, to, AtFlags::empty())?;
                Ok(rustix::fs::unlinkat(root, from, AtFlags::empty())?)
            }
            renamed => Ok(renamed?),
        }
    }

    pub(super) fn remove(&self, path: &str) -> io::Result<Removal> {
        match rustix::fs::unlinkat(&self.root, path, AtFlags::empty()) {
            Ok(()) => Ok(Removal::Removed),
            Err(Errno::NOENT) => Ok(Removal::WasGone),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes the names in a directory durable.
    pub(super) fn sync(&self, dir: &str) -> io::Result<()> {
        self.open(dir, OFlags::RDONLY | OFlags::DIRECTORY)?
            .sync_all()
    }

    /// Shows `see` every name in a directory.
    pub(super) fn list(&self, dir: Dir, mut see: impl FnMut(&str)) -> io::Result<()> {
        let opened = self.open(&dir.path(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        for entry in Entries::read_from(&opened)? {
            if let Ok(name) = entry?.file_name().to_str() {
                see(name);
            }
        }
        Ok(())
    }
}
