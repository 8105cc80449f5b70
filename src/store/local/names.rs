//! Gives uploads their names and takes them away, so that a crash leaves one or none.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::config::Durability;
use crate::core::slot::{PartId, SlotId};
use crate::meters::{Synced, work};
use crate::store::StoreError;
use crate::store::local::listing::length;
use crate::store::local::place::{fan, file_name, part_name};
use crate::store::local::{Inner, damaged, trouble};

impl Inner {
    pub(super) fn sync_files(&self, id: SlotId) -> io::Result<()> {
        sync_within(&self.place.files, &fan(id))
    }

    pub(super) fn sync_parts(&self, id: SlotId) -> io::Result<()> {
        sync_within(&self.place.parts, &fan(id))
    }

    pub(super) fn settle(&self, part: PartId) -> io::Result<u64> {
        let _timed = work().time_file_store("settle");
        let (name, flags) = (part_name(part), OFlags::WRONLY | OFlags::NOFOLLOW);
        let open = || {
            let flags = flags | OFlags::CLOEXEC;
            rustix::fs::openat(&self.place.parts, &name, flags, Mode::empty())
        };
        let mut was_file = false;
        let opened = match open() {
            Err(Errno::NOENT) => {
                let (from, to) = (&self.place.files, &self.place.parts);
                match rename_new(from, &file_name(part.slot), to, &name) {
                    Err(Errno::NOENT) => return Ok(0),
                    renamed => renamed?,
                }
                self.handles.forget(part.slot);
                was_file = true;
                open()
            }
            opened => opened,
        };
        let file = File::from(opened?);
        let metadata = file.metadata()?;
        if 1 < metadata.nlink() {
            // A crash came between the two halves of a rename by links.
            let name = file_name(part.slot);
            let unlinked = rustix::fs::unlinkat(&self.place.files, name, AtFlags::empty());
            self.handles.forget(part.slot);
            was_file |= unless_gone(unlinked)?;
        }
        // Gives back what a crash left reserved beyond.
        file.set_len(metadata.len())?;
        if self.durability != Durability::None {
            let _timed = work().time_sync(Synced::File);
            file.sync_data()?;
        }
        if self.durability == Durability::Full {
            // The new name first: at no time it has none.
            self.sync_parts(part.slot)?;
            if was_file {
                self.sync_files(part.slot)?;
            }
        }
        Ok(metadata.len())
    }

    pub(super) fn commit(&self, part: PartId, size_bytes: u64) -> Result<(), StoreError> {
        let _timed = work().time_file_store("commit");
        let doing = "give an upload its name";
        let (name, id) = (part_name(part), part.slot);
        let length = length(&self.place.parts, &name).map_err(|e| trouble(doing, e))?;
        if length != Some(size_bytes) {
            return Err(damaged(id));
        }
        match rename_new(&self.place.parts, &name, &self.place.files, &file_name(id)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                return Err(StoreError::Corrupt(format!("file {id:?}, complete twice,")));
            }
            Err(e) => return Err(trouble(doing, e.into())),
        }
        match self.durability {
            Durability::Full => self.sync_files(id).map_err(|e| trouble(doing, e)),
            Durability::Data | Durability::None => Ok(()),
        }
    }

    pub(super) fn remove(&self, id: SlotId) -> io::Result<()> {
        let nothing = AtFlags::empty();
        let unlinked = rustix::fs::unlinkat(&self.place.files, file_name(id), nothing);
        self.handles.forget(id);
        unless_gone(unlinked)?;
        if self.durability != Durability::None {
            // What comes next rests on it: the row goes, or another upload begins. Also where there
            // is nothing: a name that was taken away a moment ago may come back after a power cut.
            self.sync_files(id)?;
        }
        for part in self.parts_of(id)? {
            self.remove_part(part)?;
        }
        Ok(())
    }

    pub(super) fn remove_part(&self, part: PartId) -> io::Result<()> {
        let unlinked = rustix::fs::unlinkat(&self.place.parts, part_name(part), AtFlags::empty());
        if unless_gone(unlinked)? && self.durability == Durability::Full {
            self.sync_parts(part.slot)?;
        }
        Ok(())
    }
}

/// Syncs a directory in `directory`.
fn sync_within(directory: &File, name: &str) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let inner = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    let _timed = work().time_sync(Synced::Directory);
    Ok(rustix::fs::fsync(inner)?)
}

/// Renames without replacing.
fn rename_new(from: &File, old: &str, to: &File, new: &str) -> Result<(), Errno> {
    match rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE) {
        // The file system does not know the flag; a hard link replaces nothing either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rustix::fs::linkat(from, old, to, new, AtFlags::empty())?;
            rustix::fs::unlinkat(from, old, AtFlags::empty())
        }
        renamed => renamed,
    }
}

/// What is not there is removed already.
fn unless_gone(result: Result<(), Errno>) -> Result<bool, Errno> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e),
    }
}
