//! Looks at the data directory before anything is done in it, and makes what it needs.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, OFlags};

use crate::store::OpenError;
use crate::store::local::name::{Dir, FILES, PARTS};

/// What binds files to their rows, in hexadecimal digits.
const STORE_ID: &str = "store-id";
/// Longest `store-id` read.
const STORE_ID_BYTES_MAX: u64 = 64;
/// Directories are for their owner alone: file names are the secrets of GET URLs.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const MODE_OTHERS_WRITE: u32 = 0o002;

/// An open data directory.
pub(super) struct Opened {
    pub(super) root: OwnedFd,
    pub(super) store_id: u128,
}

/// Checks `data_dir` and makes what is missing: itself, the store id, the directories in it.
pub(super) fn open_or_create(data_dir: &Path) -> Result<Opened, OpenError> {
    if let Err(e) = fs::symlink_metadata(data_dir)
        && e.kind() == io::ErrorKind::NotFound
    {
        create(data_dir)?;
    }
    let device = check(data_dir)?;
    let root = open_root(data_dir)?;
    if let Err(e) = rustix::fs::accessat(
        &root,
        ".",
        Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::EACCESS,
    ) {
        return Err(no_write(data_dir, &e.into()));
    }
    let store_id = match read_store_id(data_dir)? {
        Some(store_id) => store_id,
        None => create_store_id(data_dir)?,
    };
    create_dirs(data_dir)?;
    check_dirs(data_dir, device)?;
    Ok(Opened { root, store_id })
}

/// Checks `data_dir`, which a start of the service has made, and changes nothing.
pub(super) fn open(data_dir: &Path) -> Result<Opened, OpenError> {
    let device = check(data_dir)?;
    let store_id = read_store_id(data_dir)?;
    let store_id = store_id.ok_or_else(|| {
        OpenError::new(
            data_dir,
            "holds no store yet: it is made when `slotd run` starts for the first time",
        )
    })?;
    check_dirs(data_dir, device)?;
    let root = open_root(data_dir)?;
    Ok(Opened { root, store_id })
}

fn create(data_dir: &Path) -> Result<(), OpenError> {
    let made = fs::DirBuilder::new().mode(DIR_MODE).create(data_dir);
    let made = made.and_then(|()| sync_dir(&parent(data_dir)));
    made.map_err(|e| {
        let parent = parent(data_dir);
        let parent = parent.display();
        let shown = data_dir.display();
        let problem = match e.kind() {
            io::ErrorKind::NotFound => {
                format!("does not exist, nor does {parent}: mkdir -p {parent}")
            }
            _ => format!("cannot be created: {e}; try: install -d -m 0700 -o slotd {shown}"),
        };
        OpenError::new(data_dir, problem)
    })
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Returns the device that the directory is on.
fn check(data_dir: &Path) -> Result<u64, OpenError> {
    let metadata = fs::symlink_metadata(data_dir).map_err(|e| {
        let problem = match e.kind() {
            io::ErrorKind::NotFound => {
                "does not exist: check data_dir, or start the service once".to_owned()
            }
            _ => format!("cannot be looked at: {e}"),
        };
        OpenError::new(data_dir, problem)
    })?;
    match complaint(data_dir, &metadata) {
        Some(problem) => Err(OpenError::new(data_dir, problem)),
        None => Ok(metadata.dev()),
    }
}

fn complaint(data_dir: &Path, metadata: &Metadata) -> Option<String> {
    let shown = data_dir.display();
    if metadata.is_symlink() {
        return Some(match fs::canonicalize(data_dir) {
            Ok(target) => format!("is a symbolic link: set data_dir to {}", target.display()),
            Err(_) => "is a symbolic link that leads nowhere: remove it, or make its target".into(),
        });
    }
    if !metadata.is_dir() {
        return Some("is not a directory: name a directory of slotd's own".to_owned());
    }
    if metadata.mode() & MODE_OTHERS_WRITE != 0 {
        return Some(format!(
            "can be written by everybody on this machine: chmod 0700 {shown}"
        ));
    }
    let user = rustix::process::geteuid();
    // Root may: in a container the owner outside is often somebody else.
    if metadata.uid() != user.as_raw() && !user.is_root() {
        return Some(format!(
            "belongs to user {} and slotd runs as {}: start it as that user, or: \
             chown -R {} {shown}",
            metadata.uid(),
            user.as_raw(),
            user.as_raw()
        ));
    }
    None
}

fn open_root(data_dir: &Path) -> Result<OwnedFd, OpenError> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(data_dir);
    let opened = opened.map_err(|e| OpenError::new(data_dir, format!("cannot be opened: {e}")));
    Ok(opened?.into())
}

fn no_write(path: &Path, e: &io::Error) -> OpenError {
    let remedy = match e.kind() {
        io::ErrorKind::ReadOnlyFilesystem => "mount its file system for writing".to_owned(),
        io::ErrorKind::StorageFull => "make room on its file system".to_owned(),
        _ => format!("chmod u+rwx {}, as its owner", path.display()),
    };
    OpenError::new(path, format!("cannot be written: {e}; {remedy}"))
}

fn read_store_id(data_dir: &Path) -> Result<Option<u128>, OpenError> {
    let path = data_dir.join(STORE_ID);
    let read = File::open(&path).and_then(|file| {
        let mut text = String::new();
        file.take(STORE_ID_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    });
    let text = match read {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(OpenError::new(&path, format!("cannot be read: {e}"))),
    };
    match u128::from_str_radix(text.trim_end(), 16) {
        Ok(store_id) => Ok(Some(store_id)),
        Err(_) => Err(OpenError::new(
            &path,
            "is damaged: bring it back from a backup; without it the files cannot be told to \
             belong to the database",
        )),
    }
}

/// Durable before anything else is made: it says whose the rest is.
fn create_store_id(data_dir: &Path) -> Result<u128, OpenError> {
    let path = data_dir.join(STORE_ID);
    let fresh = data_dir.join("store-id.new");
    let write = || -> io::Result<u128> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let store_id = u128::from_be_bytes(random);
        // A start that did not get to the end may have left one.
        match fs::remove_file(&fresh) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(FILE_MODE);
        let mut file = options.open(&fresh)?;
        writeln!(file, "{store_id:032x}")?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        sync_dir(data_dir)?;
        Ok(store_id)
    };
    write().map_err(|e| no_write(data_dir, &e))
}

/// The paths of all directories of the store.
fn dirs(data_dir: &Path) -> impl Iterator<Item = PathBuf> {
    let above = [PARTS, FILES].map(PathBuf::from);
    let fans = (0..=u8::MAX).map(|byte| PathBuf::from(Dir::Files(byte).path()));
    let all = above.into_iter().chain(fans);
    all.map(|path| data_dir.join(path))
}

fn create_dirs(data_dir: &Path) -> Result<(), OpenError> {
    let mut is_new = false;
    for dir in dirs(data_dir) {
        match fs::DirBuilder::new().mode(DIR_MODE).create(&dir) {
            Ok(()) => is_new = true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(no_write(&dir, &e)),
        }
    }
    if is_new {
        for dir in [data_dir, &data_dir.join(FILES)] {
            sync_dir(dir).map_err(|e| no_write(dir, &e))?;
        }
    }
    Ok(())
}

/// A part becomes a file by its name alone, which no rename does from one file system to another.
fn check_dirs(data_dir: &Path, device: u64) -> Result<(), OpenError> {
    for dir in dirs(data_dir) {
        let problem = match fs::symlink_metadata(&dir) {
            Ok(metadata) if !metadata.is_dir() => {
                "is not a directory: move it out of the way".to_owned()
            }
            Ok(metadata) if metadata.dev() != device => format!(
                "is on another file system than {}: unmount it, and mount one for all of data_dir",
                data_dir.display()
            ),
            Ok(_) => continue,
            Err(e) => format!("cannot be looked at: {e}; start the service once to make it"),
        };
        return Err(OpenError::new(&dir, problem));
    }
    Ok(())
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
