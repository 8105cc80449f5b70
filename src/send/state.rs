//! What outlives a run: one small file for each upload under way.
//!
//! It holds the session's id, which counts for its owner alone, and the file's link; no password
//! and no URL that lets anybody write.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Largest state file that is read.
const BYTES_MAX: u64 = 64 * 1024;
/// Records that are older are of uploads that nobody goes on with: no session lives so long.
const KEPT_FOR: Duration = Duration::from_secs(30 * 86_400);

/// What is known of an upload under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The file.
    pub file: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// Its digest in hex.
    pub sha256: String,
    /// Who sends it.
    pub account: String,
    /// Where it goes.
    pub service: String,
    /// The session's id.
    pub session: String,
    /// The file's link.
    pub get_url: String,
    /// How many bytes were sent, as far as that is known: some of them may have been lost.
    pub sent_bytes: u64,
    /// The upload is done.
    pub is_complete: bool,
    /// Who has the link already.
    pub told: Vec<String>,
}

/// The place of one upload's record, held by this process alone.
pub struct StateFile {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

/// What tells one upload from another.
pub struct Identity<'a> {
    /// The file's full path.
    pub file: &'a Path,
    /// Its digest in hex; the size goes with it.
    pub sha256: &'a str,
    /// Who sends it.
    pub account: &'a str,
    /// Where it goes.
    pub service: &'a str,
}

impl Identity<'_> {
    fn key(&self) -> String {
        let mut sum = Sha256::new();
        let file = self.file.as_os_str().as_encoded_bytes();
        let parts = [
            file,
            self.sha256.as_bytes(),
            self.account.as_bytes(),
            self.service.as_bytes(),
        ];
        for part in parts {
            sum.update((part.len() as u64).to_be_bytes());
            sum.update(part);
        }
        hex(&sum.finalize()[..16])
    }
}

/// Removes what was left long ago; what cannot be looked at stays.
fn forget_old(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let metadata = entry.metadata().ok().filter(|metadata| metadata.is_file());
        let age = metadata.and_then(|metadata| metadata.modified().ok()?.elapsed().ok());
        if age.is_some_and(|age| KEPT_FOR < age) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Bytes in hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where the records are: `$XDG_STATE_HOME/slotd`, or below the home directory.
pub fn directory() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let state = variable("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let state = state.or_else(|| Some(variable("HOME")?.join(".local/state")))?;
    Some(state.join("slotd"))
}

impl StateFile {
    /// Takes the place of an upload; `WouldBlock` where another process holds it.
    pub fn hold(directory: &Path, identity: &Identity) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        forget_old(directory);
        let key = identity.key();
        let lock_path = directory.join(format!("{key}.lock"));
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)?;
        lock.try_lock()?;
        Ok(Self {
            path: directory.join(format!("{key}.json")),
            lock_path,
            _lock: lock,
        })
    }

    /// What an earlier run left, if it can be read.
    pub fn read(&self) -> Option<Record> {
        let length = fs::metadata(&self.path).ok()?.len();
        let text = (length <= BYTES_MAX).then(|| fs::read(&self.path).ok())??;
        serde_json::from_slice(&text).ok()
    }

    /// Puts a record in place of what was there, whole or not at all.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        self.replace(record, true)
    }

    /// The same without waiting for the disk: how far it is may be lost with the machine.
    pub fn note(&self, record: &Record) -> io::Result<()> {
        self.replace(record, false)
    }

    fn replace(&self, record: &Record, is_durable: bool) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(record)?)?;
        if is_durable {
            file.sync_all()?;
        }
        fs::rename(&new, &self.path)
    }

    /// Forgets the upload.
    pub fn remove(self) -> io::Result<()> {
        for path in [&self.path, &self.lock_path] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::SystemTime;

    use super::*;

    fn identity(service: &str) -> Identity<'_> {
        Identity {
            file: Path::new("/a/b"),
            sha256: "00",
            account: "romeo@example.org",
            service,
        }
    }

    fn record() -> Record {
        Record {
            file: "/a/b".into(),
            size_bytes: 5,
            sha256: "00".to_owned(),
            account: "romeo@example.org".to_owned(),
            service: "upload.example.org".to_owned(),
            session: "i".to_owned(),
            get_url: "https://upload.example.org/f/x/b".to_owned(),
            sent_bytes: 3,
            is_complete: false,
            told: Vec::new(),
        }
    }

    #[test]
    fn a_record_is_found_again_and_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("state/slotd");
        let state = StateFile::hold(&place, &identity("a")).expect("held");
        assert_eq!(state.read(), None);
        state.write(&record()).expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&place), mode(&state.path)), (0o700, 0o600));
        drop(state);
        let state = StateFile::hold(&place, &identity("a")).expect("held again");
        assert_eq!(state.read(), Some(record()));
        let other = StateFile::hold(&place, &identity("b")).expect("held, too");
        assert_eq!(other.read(), None);
        drop(other);
        fs::write(&state.path, b"{").expect("written");
        assert_eq!(state.read(), None);
        state.remove().expect("removed");
        let left = fs::read_dir(&place).expect("there").count();
        assert_eq!(left, 1, "the lock of the other");
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, days) in [("old.json", 31), ("new.json", 29)] {
            let file = File::create(dir.path().join(name)).expect("made");
            let then = SystemTime::now() - Duration::from_secs(days * 86_400);
            file.set_modified(then).expect("set");
        }
        let _held = StateFile::hold(dir.path(), &identity("a")).expect("held");
        assert!(!dir.path().join("old.json").exists());
        assert!(dir.path().join("new.json").exists());
    }

    #[test]
    fn two_runs_do_not_send_one_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let _held = StateFile::hold(dir.path(), &identity("a")).expect("held");
        let second = StateFile::hold(dir.path(), &identity("a")).map(drop);
        let kind = second.expect_err("held already").kind();
        assert_eq!(kind, io::ErrorKind::WouldBlock);
    }
}
