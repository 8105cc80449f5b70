//! Walks a directory: every file in it, one after the other, and no link followed, also when
//! somebody changes it meanwhile.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Directories within directories that are looked into.
const DEPTH_MAX: usize = 16;

/// A directory that is open.
pub type Directory = Arc<OwnedFd>;

/// What was found.
pub enum Found {
    /// A file, or what was one a moment ago.
    File {
        /// The directory that it is in.
        directory: Directory,
        /// Its path, from where the walk began.
        path: PathBuf,
    },
    /// Something that is no file, or could not be looked at.
    Odd {
        /// Its path, from where the walk began.
        path: PathBuf,
        /// What is odd.
        why: String,
    },
}

/// Opens a directory that is named by a person: links in its path are theirs.
pub fn open(path: &Path) -> Result<Directory, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map(Arc::new)
}

/// Opens a directory in `directory`; refuses a link.
pub fn open_within(directory: &OwnedFd, name: &OsStr) -> Result<Directory, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty()).map(Arc::new)
}

/// A walk: an iterator that holds one open directory for each level.
pub struct Walk {
    levels: Vec<Level>,
}

struct Level {
    directory: Directory,
    entries: Dir,
    path: PathBuf,
}

impl Level {
    fn new(directory: Directory, path: PathBuf) -> Result<Self, Errno> {
        let entries = Dir::read_from(&directory)?;
        Ok(Self {
            directory,
            entries,
            path,
        })
    }
}

impl Walk {
    /// Through all below `root`.
    pub fn new(root: Directory) -> Result<Self, Errno> {
        let levels = vec![Level::new(root, PathBuf::new())?];
        Ok(Self { levels })
    }

    /// What the entry `name` of the innermost directory is; `None` for a directory to look into.
    fn look(&mut self, name: &OsStr, told: FileType) -> Option<Found> {
        let level = self.levels.last()?;
        let (directory, path) = (level.directory.clone(), level.path.join(name));
        let kind = match told {
            // Not every file system tells it with the name.
            FileType::Unknown => {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                match rustix::fs::statat(&directory, name, flags) {
                    Ok(seen) => FileType::from_raw_mode(seen.st_mode),
                    Err(e) => return Some(odd(path, &e.to_string())),
                }
            }
            told => told,
        };
        match kind {
            FileType::RegularFile => Some(Found::File { directory, path }),
            FileType::Symlink => Some(odd(path, "a symbolic link, which is not followed")),
            FileType::Directory if DEPTH_MAX <= self.levels.len() => {
                Some(odd(path, "a directory too deep below"))
            }
            FileType::Directory => {
                let within = open_within(&directory, name);
                match within.and_then(|within| Level::new(within, path.clone())) {
                    Ok(level) => {
                        self.levels.push(level);
                        None
                    }
                    Err(e) => Some(odd(path, &e.to_string())),
                }
            }
            _ => Some(odd(path, "neither a file nor a directory")),
        }
    }
}

impl Iterator for Walk {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            let level = self.levels.last_mut()?;
            match level.entries.read() {
                None => {
                    self.levels.pop();
                }
                Some(Err(e)) => {
                    let path = level.path.clone();
                    self.levels.pop();
                    return Some(odd(path, &e.to_string()));
                }
                Some(Ok(entry)) => {
                    let name = OsStr::from_bytes(entry.file_name().to_bytes());
                    if name == "." || name == ".." {
                        continue;
                    }
                    if let Some(found) = self.look(name, entry.file_type()) {
                        return Some(found);
                    }
                }
            }
        }
    }
}

fn odd(path: PathBuf, why: &str) -> Found {
    Found::Odd {
        path,
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Each path that is found, and what is odd about it, in order of the paths.
    fn found(root: &Path) -> Vec<(String, String)> {
        let walk = Walk::new(open(root).expect("opened")).expect("listed");
        let mut found: Vec<_> = walk
            .map(|found| match found {
                Found::File { path, .. } => (path, String::new()),
                Found::Odd { path, why } => (path, why),
            })
            .map(|(path, why)| (path.to_string_lossy().into_owned(), why))
            .collect();
        found.sort();
        found
    }

    #[test]
    fn files_are_found_and_links_are_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let outside = dir.path().join("outside");
        let root = dir.path().join("root");
        for directory in [&outside, &root.join("a/b"), &root.join("empty")] {
            fs::create_dir_all(directory).expect("made");
        }
        fs::write(outside.join("secret"), "1").expect("written");
        fs::write(root.join("a/b/one"), "1").expect("written");
        fs::write(root.join("two"), "").expect("written");
        symlink(&outside, root.join("linked")).expect("linked");
        symlink(outside.join("secret"), root.join("a/linked")).expect("linked");
        let link = "a symbolic link, which is not followed";
        let expected = [
            ("a/b/one", ""),
            ("a/linked", link),
            ("linked", link),
            ("two", ""),
        ];
        let expected = expected.map(|(path, why)| (path.to_owned(), why.to_owned()));
        assert_eq!(found(&root), expected);
    }

    #[test]
    fn a_walk_has_a_bottom() {
        let dir = tempfile::tempdir().expect("a directory");
        let names = vec!["d"; DEPTH_MAX + 3];
        fs::create_dir_all(dir.path().join(names.join("/"))).expect("made");
        let found = found(dir.path());
        let deepest = vec!["d"; DEPTH_MAX].join("/");
        assert_eq!(found, [(deepest, "a directory too deep below".to_owned())]);
    }

    #[test]
    fn what_is_no_directory_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        fs::write(&file, "1").expect("written");
        symlink(dir.path(), dir.path().join("link")).expect("linked");
        assert_eq!(open(&file).err(), Some(Errno::NOTDIR));
        let root = open(dir.path()).expect("opened");
        assert!(open_within(&root, OsStr::new("link")).is_err());
        // A person may name a link.
        assert!(open(&dir.path().join("link")).is_ok());
    }
}
