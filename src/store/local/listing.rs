//! What lies in the directories.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::core::slot::{PartId, SlotId};
use crate::store::Stored;
use crate::store::local::Inner;
use crate::store::local::place::{
    fan, fan_of, file_name, parse_file_name, parse_part_name, part_name,
};

impl Inner {
    pub(super) fn parts_of(&self, id: SlotId) -> io::Result<Vec<PartId>> {
        let directory = self.place.parts_path.join(fan(id));
        let mut parts = names(&directory, parse_part_name)?;
        parts.retain(|part| part.slot == id);
        parts.sort();
        Ok(parts)
    }

    pub(super) fn find(&self, id: SlotId) -> io::Result<Vec<Stored>> {
        let mut found = Vec::new();
        if let Some(size_bytes) = length(&self.place.files, &file_name(id))? {
            found.push(Stored::File { id, size_bytes });
        }
        for part in self.parts_of(id)? {
            if let Some(size_bytes) = length(&self.place.parts, &part_name(part))? {
                found.push(Stored::Part { part, size_bytes });
            }
        }
        Ok(found)
    }

    pub(super) fn page(&self, after: Option<SlotId>, n_max: usize) -> io::Result<Vec<Stored>> {
        let first = after.map_or(0, |id| (id.0 >> 120) as u8);
        let mut page = Vec::new();
        for first_byte in first..=u8::MAX {
            let fan = fan_of(first_byte);
            let files = names(&self.place.files_path.join(&fan), parse_file_name)?;
            let parts = names(&self.place.parts_path.join(&fan), parse_part_name)?;
            let of_parts = parts.into_iter().map(|part| part.slot);
            let mut ids: Vec<_> = files.into_iter().chain(of_parts).collect();
            ids.retain(|id| after < Some(*id));
            ids.sort();
            ids.dedup();
            for id in ids {
                if n_max <= page.len() {
                    return Ok(page);
                }
                page.extend(self.find(id)?);
            }
        }
        Ok(page)
    }

    pub(super) fn parts(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> io::Result<Vec<(PartId, u64)>> {
        let first = after.map_or(0, |id| (id.0 >> 120) as u8);
        let mut page: Vec<(PartId, u64)> = Vec::new();
        for first_byte in first..=u8::MAX {
            let mut parts = names(
                &self.place.parts_path.join(fan_of(first_byte)),
                parse_part_name,
            )?;
            parts.retain(|part| after < Some(part.slot));
            parts.sort();
            for part in parts {
                let is_next = page.last().is_none_or(|(last, _)| last.slot != part.slot);
                if n_max <= page.len() && is_next {
                    return Ok(page);
                }
                if let Some(size_bytes) = length(&self.place.parts, &part_name(part))? {
                    page.push((part, size_bytes));
                }
            }
        }
        Ok(page)
    }
}

/// A regular file's length; `None` where there is none.
pub(super) fn length(directory: &File, name: &str) -> io::Result<Option<u64>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(seen) if rustix::fs::FileType::from_raw_mode(seen.st_mode).is_file() => {
            Ok(u64::try_from(seen.st_size).ok())
        }
        Ok(_) | Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// What `parse` makes of the names in a directory; other people's names are passed over.
fn names<T>(directory: &Path, parse: fn(&str) -> Option<T>) -> io::Result<Vec<T>> {
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().to_str().and_then(parse));
    }
    Ok(names)
}
