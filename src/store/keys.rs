//! The signing keys on disk: `keys.toml` in the data directory, for its owner's eyes alone.
//!
//! The daemon and `slotd keygen --rotate` may change it at the same time: a change is read, decided
//! and written under a lock, and the file is replaced as a whole, so that a power cut leaves the
//! old or the new one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};

use crate::core::time::Timestamp;
use crate::core::token::{Key, Keys};
use crate::store::local::place::{give_to_owner_of, replace_file};

const FILE: &str = "keys.toml";
const LOCK: &str = "keys.lock";
/// Permission bits of anybody but the owner.
const OTHERS: u32 = 0o077;
/// A file that is larger was not written by us; 255 keys have 30 KiB.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read the keys.
    #[error("{path}: others can read the signing keys (run `chmod 600 {path}`)")]
    Readable {
        /// Which file.
        path: PathBuf,
    },
    /// The file is not as we wrote it.
    #[error(
        "{path}: {what} (restore it from a backup; or move it away, and a new key is made: \
         uploads under way then need new slots, files stay)"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    key: Vec<KeyRow>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyRow {
    id: u8,
    created_at: String,
    secret: String,
}

/// Reads the keys, or makes the first one of `secret`.
pub fn load_or_create(
    data_dir: &Path,
    secret: [u8; 32],
    now: Timestamp,
) -> Result<Keys, KeysError> {
    let _lock = lock(data_dir)?;
    match read(data_dir)? {
        Some(keys) => Ok(keys),
        None => {
            let keys = Keys::first(secret, now);
            write(data_dir, &keys)?;
            Ok(keys)
        }
    }
}

/// Replaces the keys by what `change` makes of them, and returns those that are kept then.
pub fn update(
    data_dir: &Path,
    change: impl FnOnce(&Keys) -> Option<Keys>,
) -> Result<Keys, KeysError> {
    let _lock = lock(data_dir)?;
    let keys = read(data_dir)?.ok_or_else(|| KeysError::Damaged {
        path: data_dir.join(FILE),
        what: "the signing keys are gone",
    })?;
    match change(&keys) {
        Some(next) => {
            write(data_dir, &next)?;
            Ok(next)
        }
        None => Ok(keys),
    }
}

/// Held until dropped.
fn lock(data_dir: &Path) -> Result<File, KeysError> {
    let path = data_dir.join(LOCK);
    let open = || {
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).write(true).mode(0o600);
        // Root gives away what it opens here: that must be no file of somebody else's.
        let options = options.custom_flags(OFlags::NOFOLLOW.bits() as i32);
        let file = options.open(&path)?;
        give_to_owner_of(data_dir, &file)?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    };
    open().map_err(|source| KeysError::Io { path, source })
}

fn read(data_dir: &Path) -> Result<Option<Keys>, KeysError> {
    let path = data_dir.join(FILE);
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(KeysError::Io { path, source }),
    };
    if metadata.mode() & OTHERS != 0 {
        return Err(KeysError::Readable { path });
    }
    let damaged = |what| KeysError::Damaged {
        path: path.clone(),
        what,
    };
    if FILE_BYTES_MAX < metadata.len() {
        return Err(damaged("the file is too large"));
    }
    let text = fs::read_to_string(&path).map_err(|source| KeysError::Io {
        path: path.clone(),
        source,
    })?;
    // toml's own words could quote a secret.
    let file: KeyFile =
        toml::from_str(&text).map_err(|_| damaged("the signing keys are damaged"))?;
    let keys: Option<Vec<Key>> = file.key.iter().map(key).collect();
    let keys = keys.ok_or_else(|| damaged("a signing key is damaged"))?;
    let keys = Keys::from_list(keys).ok_or_else(|| damaged("there is no signing key"))?;
    Ok(Some(keys))
}

fn key(row: &KeyRow) -> Option<Key> {
    Some(Key {
        id: row.id,
        created_at: Timestamp::from_xep0082(&row.created_at)?,
        secret: STANDARD.decode(&row.secret).ok()?.try_into().ok()?,
    })
}

fn write(data_dir: &Path, keys: &Keys) -> Result<(), KeysError> {
    let path = data_dir.join(FILE);
    let rows = keys.list().iter().map(|key| KeyRow {
        id: key.id,
        created_at: key.created_at.to_xep0082(),
        secret: STANDARD.encode(key.secret),
    });
    let file = KeyFile {
        key: rows.collect(),
    };
    let text = toml::to_string(&file).expect("rows of strings and numbers are TOML");
    let text = format!(
        "# Keys that sign upload tokens, the last one is in use. Keep them secret.\n\n{text}"
    );
    replace_file(&path, text.as_bytes()).map_err(|source| KeysError::Io { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    #[test]
    fn keys_are_made_once_and_read_back() {
        let directory = directory();
        let load = |byte| load_or_create(directory.path(), [byte; 32], Timestamp(1000));
        let first = load(1).expect("made");
        assert_eq!(load(2).expect("read"), first);
        let mode = fs::metadata(directory.path().join(FILE))
            .expect("there")
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn changes_are_kept() {
        let directory = directory();
        load_or_create(directory.path(), [1; 32], Timestamp(1000)).expect("made");
        let rotate = |keys: &Keys| Some(keys.rotate([2; 32], Timestamp(2000)));
        let rotated = update(directory.path(), rotate).expect("kept");
        assert_eq!(rotated.list().len(), 2);
        assert_eq!(update(directory.path(), |_| None).expect("read"), rotated);
    }

    #[test]
    fn keys_belong_to_the_owner_of_the_directory() {
        let directory = directory();
        // Root alone can give a directory away; for others everything is theirs anyway.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(directory.path(), Some(65_534), Some(65_534)).expect("given");
        }
        load_or_create(directory.path(), [1; 32], Timestamp(1000)).expect("made");
        update(directory.path(), |keys| {
            Some(keys.rotate([2; 32], Timestamp(2000)))
        })
        .expect("kept");
        let owner = |path: &Path| fs::metadata(path).expect("there").uid();
        for name in [FILE, LOCK] {
            assert_eq!(owner(&directory.path().join(name)), owner(directory.path()));
        }
    }

    #[test]
    fn files_that_cannot_be_trusted_are_refused() {
        let directory = directory();
        load_or_create(directory.path(), [1; 32], Timestamp(1000)).expect("made");
        let path = directory.path().join(FILE);
        let refused = || {
            let keys = load_or_create(directory.path(), [2; 32], Timestamp(1000));
            keys.expect_err("refused").to_string()
        };
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
        assert!(refused().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        let good = fs::read_to_string(&path).expect("read");
        for bad in [
            "",
            "key = []",
            "nonsense",
            &good.replace("secret = \"", "secret = \"x"),
            &good.replace("created_at = \"", "created_at = \"x"),
            &"#".repeat(70_000),
        ] {
            fs::write(&path, bad).expect("written");
            let words = refused();
            assert!(words.contains("keys.toml"), "{words}");
            assert!(!words.contains("AQEB"), "{words}");
        }
    }

    #[test]
    fn a_lost_file_is_not_replaced_while_running() {
        let directory = directory();
        assert!(update(directory.path(), |_| None).is_err());
    }
}
