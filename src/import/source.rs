//! One file of another server: opened without following links, read once, and only as long as
//! nobody changes it.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::stream;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::core::time::Timestamp;
use crate::store::{Body, BodyError};

/// Bytes read at once.
const PIECE_BYTES: u64 = 256 << 10;

/// An open file.
pub struct Source {
    file: File,
    seen: Seen,
}

/// What tells whether a file was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    fn of(metadata: &Metadata) -> Self {
        Self {
            size_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Source {
    /// Opens a file in `directory`; `None` where there is nothing of that name.
    ///
    /// What is wrong is the end of a sentence.
    pub fn open(directory: &OwnedFd, name: &OsStr) -> Result<Option<Self>, String> {
        // A pipe or a device that took the file's place must not hold us up.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err("a symbolic link, which is not followed".to_owned()),
            Err(e) => return Err(words(&e.into())),
        };
        let metadata = file.metadata().map_err(|e| words(&e))?;
        if !metadata.is_file() {
            return Err("no file".to_owned());
        }
        let seen = Seen::of(&metadata);
        Ok(Some(Self { file, seen }))
    }

    /// Its size when it was opened.
    pub fn size_bytes(&self) -> u64 {
        self.seen.size_bytes
    }

    /// When it was written last.
    pub fn modified_at(&self) -> Timestamp {
        Timestamp(u64::try_from(self.seen.modified.0).unwrap_or(0))
    }

    /// Its bytes. They end early where they cannot be read, or where somebody changes the file;
    /// then it is written down why.
    pub fn into_body(self) -> (Body, Arc<OnceLock<String>>) {
        let why = Arc::new(OnceLock::new());
        let told = why.clone();
        let state = (Arc::new(self), 0u64);
        let body = stream::unfold(state, move |(source, at)| {
            let told = told.clone();
            async move {
                if source.size_bytes() <= at {
                    return None;
                }
                let reading = source.clone();
                let read = tokio::task::spawn_blocking(move || reading.piece(at)).await;
                match read.unwrap_or_else(|e| Err(e.to_string())) {
                    Ok(bytes) => {
                        let next = at + bytes.len() as u64;
                        Some((Ok(bytes), (source, next)))
                    }
                    Err(words) => {
                        let _ = told.set(words);
                        let end = source.size_bytes();
                        Some((Err(BodyError), (source, end)))
                    }
                }
            }
        });
        (Box::pin(body), why)
    }

    /// The bytes at an offset, handed on only if the file is what it was.
    fn piece(&self, at: u64) -> Result<Bytes, String> {
        let left = self.size_bytes() - at;
        let n_bytes = usize::try_from(left.min(PIECE_BYTES)).unwrap_or(0);
        let mut bytes = vec![0; n_bytes];
        let read = self.file.read_exact_at(&mut bytes, at);
        let metadata = self.file.metadata().map_err(|e| words(&e))?;
        let is_cut = matches!(&read, Err(e) if e.kind() == io::ErrorKind::UnexpectedEof);
        if is_cut || Seen::of(&metadata) != self.seen {
            return Err("was changed while it was read".to_owned());
        }
        read.map_err(|e| words(&e))?;
        Ok(bytes.into())
    }
}

fn words(e: &io::Error) -> String {
    format!("cannot be read: {e}")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write as _;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use futures_util::StreamExt as _;
    use tempfile::TempDir;

    use super::*;
    use crate::import::tree;

    fn open(dir: &Path, name: &str) -> Result<Option<Source>, String> {
        let directory = tree::open(dir).expect("opened");
        Source::open(&directory, OsStr::new(name))
    }

    /// A directory with one file, open.
    fn source(content: &[u8]) -> (TempDir, Source) {
        let dir = TempDir::new().expect("a directory");
        fs::write(dir.path().join("a"), content).expect("written");
        let source = open(dir.path(), "a").expect("opened").expect("there");
        (dir, source)
    }

    async fn read(mut body: Body) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await {
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(BodyError) => return (bytes, false),
            }
        }
        (bytes, true)
    }

    #[tokio::test]
    async fn a_file_is_read_whole() {
        let content = vec![7; PIECE_BYTES as usize * 2 + 1];
        let (_dir, source) = source(&content);
        assert_eq!(source.size_bytes(), content.len() as u64);
        let (body, why) = source.into_body();
        assert!(read(body).await == (content, true) && why.get().is_none());
    }

    #[tokio::test]
    async fn a_file_that_changes_has_no_end() {
        let content = vec![7; PIECE_BYTES as usize + 1];
        let append = |path: &Path| {
            let mut file = OpenOptions::new().append(true).open(path).expect("opened");
            file.write_all(b"more").expect("written");
        };
        let cut = |path: &Path| {
            let file = OpenOptions::new().write(true).open(path).expect("opened");
            file.set_len(9).expect("cut");
        };
        let changes: [&dyn Fn(&Path); 2] = [&append, &cut];
        for change in changes {
            let (dir, source) = source(&content);
            let (mut body, why) = source.into_body();
            let first = body.next().await.expect("a piece").expect("read");
            assert_eq!(first.len() as u64, PIECE_BYTES);
            change(&dir.path().join("a"));
            assert_eq!(read(body).await, (Vec::new(), false));
            assert_eq!(
                why.get().map(String::as_str),
                Some("was changed while it was read")
            );
        }
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = TempDir::new().expect("a directory");
        fs::create_dir(dir.path().join("directory")).expect("made");
        symlink("/etc/passwd", dir.path().join("link")).expect("linked");
        let made = std::process::Command::new("mkfifo")
            .arg(dir.path().join("pipe"))
            .status();
        assert!(made.expect("mkfifo runs").success());
        assert!(open(dir.path(), "missing").expect("looked for").is_none());
        for name in ["directory", "link", "pipe"] {
            assert!(open(dir.path(), name).is_err(), "{name}");
        }
    }
}
