//! A file that lines are appended to, and that somebody may move away, cut or remove meanwhile.
//!
//! logrotate works with it in all its ways, and nobody has to be told: each time the path is looked
//! at, and where it names another file than the one at hand, that one is opened or made.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Who may read a file that is made: its owner and its group, less what the umask takes.
const MODE: u32 = 0o640;

/// A file by its path, for whole lines.
pub struct AppendFile {
    path: PathBuf,
    file: Option<File>,
}

impl AppendFile {
    /// The file of `path`; it is opened, and made where there is none, when something is appended.
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has `held` be the file of `path`, where it is another one's; whether it was.
    pub fn follow(held: &mut Option<Self>, path: Option<PathBuf>) -> bool {
        let is_other = held.as_ref().map(Self::path) != path.as_deref();
        if is_other {
            *held = path.map(Self::new);
        }
        is_other
    }

    /// Appends `lines`: all of them, or none where the disk is full. Does not wait for the disk.
    ///
    /// Fails where the path names something that is no regular file, or that may not be written;
    /// each call tries anew.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut file = self.current()?;
        let mut n_written = 0;
        while n_written < lines.len() {
            match file.write(&lines[n_written..]) {
                Ok(0) => return take_back(file, n_written, io::ErrorKind::WriteZero.into()),
                Ok(n_bytes) => n_written += n_bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return take_back(file, n_written, error),
            }
        }
        Ok(())
    }

    /// The file that the path names now.
    fn current(&mut self) -> io::Result<&File> {
        let held = self.file.as_ref().map(File::metadata).transpose()?;
        let named = fs::metadata(&self.path);
        let is_same = |named: &Metadata| {
            let held = held.as_ref();
            held.is_some_and(|held| (held.dev(), held.ino()) == (named.dev(), named.ino()))
        };
        if !named.is_ok_and(|named| is_same(&named)) {
            match open(&self.path) {
                Ok(file) => self.file = Some(file),
                // It was moved, and the one that shall take its place is not there yet: what was
                // moved is as good a place. One that was removed is not.
                Err(_) if held.is_some_and(|held| 0 < held.nlink()) => {}
                Err(error) => {
                    self.file = None;
                    return Err(error);
                }
            }
        }
        self.file.as_ref().ok_or(io::ErrorKind::NotFound.into())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.create(true).append(true).mode(MODE);
    // Or a pipe that nobody reads would hold us up.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = options.custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

/// Takes the beginning of a line back, so that the next one does not stand behind it.
fn take_back(file: &File, n_bytes: usize, error: io::Error) -> io::Result<()> {
    if 0 < n_bytes {
        let length = file.metadata()?.len();
        file.set_len(length.saturating_sub(n_bytes as u64))?;
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn place() -> (tempfile::TempDir, AppendFile) {
        let dir = tempfile::tempdir().expect("a directory");
        let file = AppendFile::new(dir.path().join("log"));
        (dir, file)
    }

    #[track_caller]
    fn check_content(path: &Path, expected: &str) {
        assert_eq!(fs::read_to_string(path).expect("a file"), expected);
    }

    #[test]
    fn what_was_moved_is_made_again() {
        let (dir, mut file) = place();
        file.append(b"one\n").expect("written");
        fs::rename(dir.path().join("log"), dir.path().join("log.1")).expect("moved");
        file.append(b"two\n").expect("written");
        fs::remove_file(dir.path().join("log")).expect("removed");
        file.append(b"three\n").expect("written");
        check_content(&dir.path().join("log.1"), "one\n");
        check_content(&dir.path().join("log"), "three\n");
        let mode = fs::metadata(file.path()).expect("a file").permissions();
        assert_eq!(mode.mode() & 0o007, 0);
    }

    #[test]
    fn what_was_cut_begins_anew() {
        let (dir, mut file) = place();
        file.append(b"one\n").expect("written");
        let path = dir.path().join("log");
        let other = OpenOptions::new().write(true).open(&path).expect("opened");
        other.set_len(0).expect("cut");
        file.append(b"two\n").expect("written");
        check_content(&path, "two\n");
    }

    #[test]
    fn what_is_put_in_its_place_is_taken_up() {
        let (dir, mut file) = place();
        file.append(b"one\n").expect("written");
        let path = dir.path().join("log");
        fs::write(dir.path().join("other"), "there\n").expect("written");
        fs::rename(dir.path().join("other"), &path).expect("moved");
        file.append(b"two\n").expect("written");
        check_content(&path, "there\ntwo\n");
    }

    #[test]
    fn what_cannot_be_written_is_tried_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        fs::create_dir(&path).expect("a directory");
        let mut file = AppendFile::new(path.clone());
        file.append(b"one\n").expect_err("a directory");
        fs::remove_dir(&path).expect("removed");
        file.append(b"two\n").expect("written");
        check_content(&path, "two\n");
    }

    /// /dev/full is as full as a disk can be.
    #[test]
    fn what_is_no_file_is_refused() {
        for path in ["/dev/full", "/dev/null"] {
            let mut file = AppendFile::new(path.into());
            file.append(b"one\n").expect_err(path);
        }
    }

    #[test]
    fn a_line_that_did_not_fit_leaves_nothing() {
        let (dir, mut file) = place();
        file.append(b"one\nhal").expect("written");
        let held = file.current().expect("open");
        let full = take_back(held, 3, io::ErrorKind::StorageFull.into());
        full.expect_err("passed on");
        file.append(b"two\n").expect("written");
        check_content(&dir.path().join("log"), "one\ntwo\n");
    }
}
