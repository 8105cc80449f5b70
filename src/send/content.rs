//! The file to send: its name, size, type and digest, and its bytes as long as it stays the same.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::error::SendError;

/// A file that is open.
pub struct Content {
    /// As it was named.
    pub path: PathBuf,
    /// Where it is, for a later run from another directory.
    pub full_path: PathBuf,
    /// The name that the other side sees.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its type, by its name.
    pub content_type: String,
    modified: Option<SystemTime>,
    file: File,
}

impl Content {
    /// Opens a file; refuses what is none, and an empty one.
    pub fn open(path: &Path) -> Result<Self, SendError> {
        let wrong = |words: &str| SendError::Usage(format!("{}: {words}", path.display()));
        // A pipe would block before it could be refused.
        let metadata = std::fs::metadata(path).map_err(|error| wrong(&error.to_string()))?;
        if !metadata.is_file() {
            return Err(wrong("is no regular file; pack a directory first"));
        }
        let file = File::open(path).map_err(|error| wrong(&error.to_string()))?;
        let metadata = file.metadata().map_err(|error| wrong(&error.to_string()))?;
        if metadata.len() == 0 {
            return Err(wrong("is empty: there is nothing to send"));
        }
        let full_path = path
            .canonicalize()
            .map_err(|error| wrong(&error.to_string()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name: String = name
            .chars()
            .map(|c| if c.is_control() { '_' } else { c })
            .collect();
        let content_type = mime_guess::from_path(path).first_or_octet_stream();
        Ok(Self {
            path: path.to_owned(),
            full_path,
            name,
            size_bytes: metadata.len(),
            content_type: content_type.essence_str().to_owned(),
            modified: stamp(&metadata),
            file,
        })
    }

    /// The digest of the whole.
    pub fn sha256(&self) -> Result<[u8; 32], SendError> {
        let mut sum = Sha256::new();
        let mut piece = vec![0; 256 * 1024];
        let mut at = 0;
        while at < self.size_bytes {
            let n_bytes = self
                .file
                .read_at(&mut piece, at)
                .map_err(|error| self.unreadable(&error))?;
            if n_bytes == 0 {
                return Err(self.changed());
            }
            sum.update(&piece[..n_bytes]);
            at += n_bytes as u64;
        }
        self.check()?;
        Ok(sum.finalize().into())
    }

    /// Up to `max` bytes at an offset.
    pub fn read(&self, at: u64, max: usize) -> Result<Bytes, SendError> {
        let left = usize::try_from(self.size_bytes - at).unwrap_or(usize::MAX);
        let mut piece = vec![0; max.min(left)];
        self.file
            .read_exact_at(&mut piece, at)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => self.changed(),
                _ => self.unreadable(&error),
            })?;
        Ok(piece.into())
    }

    /// Refuses to go on where the file is not what it was.
    pub fn check(&self) -> Result<(), SendError> {
        let metadata = self
            .file
            .metadata()
            .map_err(|error| self.unreadable(&error))?;
        let is_same = metadata.len() == self.size_bytes && stamp(&metadata) == self.modified;
        is_same.then_some(()).ok_or_else(|| self.changed())
    }

    fn changed(&self) -> SendError {
        let path = self.path.display();
        SendError::Failed(format!(
            "{path}: it was changed while it was sent; send it again"
        ))
    }

    fn unreadable(&self, error: &std::io::Error) -> SendError {
        SendError::Failed(format!("{}: {error}", self.path.display()))
    }
}

fn stamp(metadata: &Metadata) -> Option<SystemTime> {
    metadata.modified().ok()
}

/// A password from a file: its first line.
pub fn first_line(path: &Path) -> Result<String, SendError> {
    /// Longest password file that makes sense.
    const BYTES_MAX: u64 = 64 * 1024;
    let wrong = |words: &str| SendError::Usage(format!("{}: {words}", path.display()));
    let file = File::open(path).map_err(|error| wrong(&error.to_string()))?;
    let mut text = String::new();
    let read = file.take(BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| wrong(&error.to_string()))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(wrong("its first line is empty: it should be the password")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_it_was_or_not_sent() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a\u{7}b.png");
        std::fs::write(&path, b"12345").expect("written");
        let content = Content::open(&path).expect("opened");
        assert_eq!((content.name.as_str(), content.size_bytes), ("a_b.png", 5));
        assert_eq!(content.content_type, "image/png");
        assert_eq!(content.read(3, 100).expect("read"), "45");
        content.sha256().expect("hashed");
        std::fs::write(&path, b"123").expect("written");
        assert!(matches!(content.check(), Err(SendError::Failed(_))));
        assert!(matches!(content.read(0, 5), Err(SendError::Failed(_))));
        assert!(matches!(content.sha256(), Err(SendError::Failed(_))));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let empty = dir.path().join("empty");
        std::fs::write(&empty, b"").expect("written");
        for path in [dir.path(), &empty, Path::new("/nonexistent/file")] {
            assert!(
                matches!(Content::open(path), Err(SendError::Usage(_))),
                "{path:?}"
            );
        }
    }
}
