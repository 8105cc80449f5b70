//! Where things lie in the data directory, and whether it is fit to hold them.
//!
//! `files/xx/ID` holds committed files, `parts/xx/ID.ATTEMPT` attempts under way; ID in lower-case
//! hexadecimal digits (so that no file system can take two for one), xx its first two. `store-id`
//! binds both to the rows of one database.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, OFlags};

use crate::config::{Durability, data_dir};
use crate::core::slot::{PartId, SlotId};
use crate::store::OpenError;

/// Directories under `files` and under `parts`: one for each first byte of an id.
const FAN_OUT: u16 = 256;
/// Ours alone.
const DATA_DIR_MODE: u32 = 0o700;
/// Our group may read files, so that a proxy can send them: it gets to them once the admin opens
/// the data directory to it, and the umask lets the bits be.
const DIR_MODE: u32 = 0o750;
/// Nobody else reads what is not whole.
const PARTS_DIR_MODE: u32 = 0o700;
/// The same of a file.
pub(super) const FILE_MODE: u32 = 0o640;
/// Longest `store-id` read.
const STORE_ID_BYTES_MAX: u64 = 64;

/// The directory of an id under `files` or `parts`.
pub(super) fn fan(id: SlotId) -> String {
    fan_of((id.0 >> 120) as u8)
}

pub(super) fn fan_of(first_byte: u8) -> String {
    format!("{first_byte:02x}")
}

/// A file's name, from `files`.
pub(super) fn file_name(id: SlotId) -> String {
    format!("{}/{:032x}", fan(id), id.0)
}

/// A part's name, from `parts`.
pub(super) fn part_name(part: PartId) -> String {
    format!("{}/{:032x}.{}", fan(part.slot), part.slot.0, part.attempt)
}

/// Reads the last segment of `file_name`; `None` for anything else.
pub(super) fn parse_file_name(name: &str) -> Option<SlotId> {
    let id = SlotId(u128::from_str_radix(name, 16).ok()?);
    (file_name(id).split_once('/')?.1 == name).then_some(id)
}

/// Reads the last segment of `part_name`; `None` for anything else.
pub(super) fn parse_part_name(name: &str) -> Option<PartId> {
    let (slot, attempt) = name.split_once('.')?;
    let part = PartId {
        slot: parse_file_name(slot)?,
        attempt: attempt.parse().ok()?,
    };
    (part_name(part).split_once('/')?.1 == name).then_some(part)
}

/// The directories, open.
#[derive(Debug)]
pub(super) struct Place {
    /// Where `files` is.
    pub(super) files_path: PathBuf,
    /// Where `parts` is.
    pub(super) parts_path: PathBuf,
    pub(super) files: File,
    pub(super) parts: File,
    pub(super) store_id: u128,
}

/// Whether to write into the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Make what is missing.
    Write(Durability),
    /// Change nothing.
    Read,
}

impl Place {
    /// Opens the data directory; makes it, and what is missing in it, where it is to be written.
    ///
    /// Every problem is a sentence that says what to do.
    pub(super) fn open(data_dir: &Path, how: Use) -> Result<Self, OpenError> {
        if let Use::Write(_) = how {
            create_data_dir(data_dir)?;
        }
        let device = check_data_dir(data_dir, how)?;
        let (files_path, parts_path) = (data_dir.join("files"), data_dir.join("parts"));
        for (path, mode) in [(&files_path, DIR_MODE), (&parts_path, PARTS_DIR_MODE)] {
            if let Use::Write(durability) = how {
                // Nothing is made in a place that is not ours.
                if fs::symlink_metadata(path).is_ok() {
                    check_inner(path, device)?;
                }
                create_fan_out(path, mode, durability).map_err(|e| cannot_make(path, &e))?;
            }
            check_inner(path, device)?;
        }
        let open = |path: &Path| {
            let directory = File::open(path);
            directory.map_err(|e| OpenError::new(path, format!("cannot be opened: {e}")))
        };
        Ok(Self {
            files: open(&files_path)?,
            parts: open(&parts_path)?,
            store_id: store_id(data_dir, how)?,
            files_path,
            parts_path,
        })
    }

    /// Whether there is neither file nor part.
    pub(super) fn is_empty(&self) -> io::Result<bool> {
        for path in [&self.files_path, &self.parts_path] {
            for first_byte in 0..FAN_OUT {
                let directory = path.join(fan_of(first_byte as u8));
                match fs::read_dir(directory).map(|mut entries| entries.next().is_some()) {
                    Ok(true) => return Ok(false),
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
        }
        Ok(true)
    }
}

/// Makes the data directory where its parent exists: a slip in a longer path is no directory.
fn create_data_dir(data_dir: &Path) -> Result<(), OpenError> {
    match DirBuilder::new().mode(DATA_DIR_MODE).create(data_dir) {
        Ok(()) => {
            let parent = data_dir.parent().filter(|parent| *parent != Path::new(""));
            // Nothing is in it yet: an unsynced parent loses nothing.
            drop(sync_directory(parent.unwrap_or(Path::new("."))));
            Ok(())
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(OpenError::new(
            data_dir,
            format!("cannot be made ({e}); make it, and give it to the user that slotd runs as"),
        )),
    }
}

/// Refuses what must not hold other people's files; returns the file system's device.
fn check_data_dir(data_dir: &Path, how: Use) -> Result<u64, OpenError> {
    let say = |problem: String| Err(OpenError::new(data_dir, problem));
    let wanted = match how {
        Use::Write(_) => Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
        Use::Read => Access::READ_OK | Access::EXEC_OK,
    };
    match data_dir::judge(data_dir, wanted) {
        Ok(Some(seen)) => Ok(seen.dev()),
        Ok(None) => say("does not exist; the service makes it when it starts".to_owned()),
        Err(problem) => say(format!("{}; {}", problem.what, problem.remedy)),
    }
}

/// `files` and `parts` are directories of one file system: a rename must not become a copy.
fn check_inner(path: &Path, device: u64) -> Result<(), OpenError> {
    let say = |problem: String| Err(OpenError::new(path, problem));
    match fs::symlink_metadata(path) {
        Ok(seen) if !seen.is_dir() => say("is no directory; move it out of the way".to_owned()),
        Ok(seen) if seen.dev() != device => {
            let problem = "is on another file system than data_dir; mount one over data_dir as a \
                 whole instead";
            say(problem.to_owned())
        }
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            say("does not exist; the service makes it when it starts".to_owned())
        }
        Err(e) => say(format!("cannot be looked at: {e}")),
    }
}

fn cannot_make(path: &Path, e: &io::Error) -> OpenError {
    let remedy = match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room there",
        io::ErrorKind::ReadOnlyFilesystem => "mount its file system for writing",
        _ => "slotd must be allowed to make directories there",
    };
    OpenError::new(path, format!("cannot be made: {e}; {remedy}"))
}

fn create_fan_out(path: &Path, mode: u32, durability: Durability) -> io::Result<()> {
    let mut is_new = make_directory(path, mode)?;
    // One look at all of them: nearly always there is nothing to make.
    let names = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name()));
    let there: HashSet<OsString> = names.collect::<io::Result<_>>()?;
    for first_byte in 0..FAN_OUT {
        let name = fan_of(first_byte as u8);
        if !there.contains(OsStr::new(&name)) {
            is_new |= make_directory(&path.join(name), mode)?;
        }
    }
    if is_new && durability != Durability::None {
        sync_directory(path)?;
        if let Some(parent) = path.parent() {
            sync_directory(parent)?;
        }
    }
    Ok(())
}

/// Makes a directory; tells whether it is new.
fn make_directory(path: &Path, mode: u32) -> io::Result<bool> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    }
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Reads `store-id`, or makes one.
fn store_id(data_dir: &Path, how: Use) -> Result<u128, OpenError> {
    let path = data_dir.join("store-id");
    let say = |problem: String| OpenError::new(&path, problem);
    let mut text = String::new();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(&path);
    let read = file.and_then(|file| file.take(STORE_ID_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => parse_store_id(&text).ok_or_else(|| {
            say("holds no store id; restore it from a backup of data_dir".to_owned())
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound && how != Use::Read => {
            create_store_id(data_dir).map_err(|e| say(format!("cannot be written: {e}")))
        }
        Err(e) => Err(say(format!("cannot be read: {e}"))),
    }
}

fn parse_store_id(text: &str) -> Option<u128> {
    let digits = text.strip_suffix('\n').unwrap_or(text);
    let is_id = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then(|| u128::from_str_radix(digits, 16).ok())?
}

fn create_store_id(data_dir: &Path) -> io::Result<u128> {
    let id = random_u128()?;
    replace_file(
        &data_dir.join("store-id"),
        format!("{id:032x}\n").as_bytes(),
    )?;
    Ok(id)
}

/// 128 random bits.
pub(crate) fn random_u128() -> io::Result<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(u128::from_be_bytes(bytes))
}

/// Replaces a file as a whole, durably: its old content or the new, never a mixture.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // Left over by a crash; `create_new` below follows no link.
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    give_to_owner_of(directory, &file)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_directory(directory)
}

/// What root makes belongs to whom the directory belongs to: the service has to read it.
pub(crate) fn give_to_owner_of(directory: &Path, file: &File) -> io::Result<()> {
    match heir_of(directory) {
        Some((user, group)) => fchown(file, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// Whose shall be what we make in a directory, by user and group: nobody's but ours, unless we are
/// root in somebody else's.
pub(crate) fn heir_of(directory: &Path) -> Option<(u32, u32)> {
    let seen = fs::metadata(directory).ok()?;
    let is_anothers = rustix::process::geteuid().is_root() && seen.uid() != 0;
    is_anothers.then(|| (seen.uid(), seen.gid()))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn names_go_both_ways() {
        let part = PartId {
            slot: SlotId(0xab << 120 | 7),
            attempt: 300,
        };
        assert_eq!(part_name(part), "ab/ab000000000000000000000000000007.300");
        let name = part_name(part);
        let (_, last) = name.split_once('/').expect("two segments");
        assert_eq!(parse_part_name(last), Some(part));
        assert_eq!(parse_file_name(&last[..32]), Some(part.slot));
        for other in [
            "",
            "ab",
            "AB000000000000000000000000000007",
            "+b000000000000000000000000000007",
            "ab0000000000000000000000000000070",
        ] {
            assert_eq!(parse_file_name(other), None, "{other}");
            assert_eq!(parse_part_name(&format!("{other}.1")), None, "{other}");
        }
        for other in ["", "-1", "+1", "01", "65536", "x"] {
            assert_eq!(parse_part_name(&format!("{}.{other}", &last[..32])), None);
        }
    }

    const WRITE: Use = Use::Write(Durability::Full);

    fn open(path: &Path) -> u128 {
        let place = Place::open(path, WRITE);
        place.expect("a directory that is ours").store_id
    }

    fn refusal(path: &Path, how: Use) -> OpenError {
        Place::open(path, how).expect_err("refused")
    }

    #[test]
    fn a_first_start_makes_everything_and_a_second_finds_it() {
        let above = TempDir::new().expect("made");
        let dir = above.path().join("slotd");
        let first = open(&dir);
        assert_eq!(fs::metadata(&dir).expect("there").mode() & 0o777, 0o700);
        // What a start that was cut off may leave.
        fs::write(dir.join("store-id.new"), "0").expect("written");
        fs::remove_dir(dir.join("files/07")).expect("removed");
        assert_eq!(open(&dir), first);
        assert!(dir.join("files/07").is_dir());
        assert_ne!(open(&above.path().join("other")), first);
    }

    #[test]
    fn a_reader_makes_nothing() {
        let dir = TempDir::new().expect("made");
        let missing = refusal(&dir.path().join("missing"), Use::Read);
        assert!(
            missing.problem.contains("the service makes it"),
            "{missing}"
        );
        let empty = refusal(dir.path(), Use::Read);
        assert_eq!(empty.path, dir.path().join("files"));
        assert!(empty.problem.contains("the service makes it"), "{empty}");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 0);
    }

    #[test]
    fn a_file_in_a_directorys_place_is_named() {
        let dir = TempDir::new().expect("made");
        fs::write(dir.path().join("parts"), "").expect("written");
        let e = refusal(dir.path(), WRITE);
        assert_eq!(e.path, dir.path().join("parts"));
        assert!(e.problem.contains("move it out of the way"), "{e}");
    }
}
