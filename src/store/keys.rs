//! The signing keys, kept in `data_dir/keys.toml`.
//!
//! Whoever reads the file can make PUT tokens, so it is ours alone (0600) and replaced as a whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::core::time::Timestamp;
use crate::core::token::{Key, Keys};
use crate::store::OpenError;
use crate::store::local::place::replace_file;

const KEYS_FILE: &str = "keys.toml";
/// Longest file read: 255 keys fit well.
const FILE_BYTES_MAX: u64 = 64 << 10;
const HEADER: &str =
    "# Signing keys of slotd, oldest first; the last one signs. Keep them secret.\n";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    key: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    id: u8,
    /// XEP-0082 text.
    created_at: String,
    /// Base64 of 32 bytes.
    secret: String,
}

/// The state of the key file: when it differs from an earlier one, there are other keys in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    modified_at: Option<SystemTime>,
    size_bytes: u64,
}

/// Loads the keys of `data_dir`, making a first one where there is no file.
pub fn load_or_create(data_dir: &Path, now: Timestamp) -> Result<Keys, OpenError> {
    match load(data_dir)? {
        Some(keys) => Ok(keys),
        None => {
            let keys = Keys::first(random_secret(data_dir)?, now);
            save(data_dir, &keys)?;
            Ok(keys)
        }
    }
}

/// Loads the keys of `data_dir`; `None` where there is no file.
///
/// Refuses a file that others can read or write, and one that is damaged: new keys in its place
/// would make every link given out useless.
pub fn load(data_dir: &Path) -> Result<Option<Keys>, OpenError> {
    let path = path(data_dir);
    let say = |problem: String| OpenError::new(&path, problem);
    let Some(file) = open(&path).map_err(|e| say(format!("cannot be opened: {e}")))? else {
        return Ok(None);
    };
    let seen = file
        .metadata()
        .map_err(|e| say(format!("cannot be looked at: {e}")))?;
    if !seen.is_file() {
        return Err(say("is no file".to_owned()));
    }
    if seen.mode() & 0o077 != 0 {
        let problem = "can be read or written by others; `chmod 0600` it, and replace the keys \
             with `slotd keygen --rotate` if somebody may have read it";
        return Err(say(problem.to_owned()));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|e| say(format!("cannot be read: {e}")))?;
    match parse(&text) {
        Some(keys) => Ok(Some(keys)),
        None => Err(say(
            "is damaged; restore it from a backup, or remove it to begin with a new key: links \
             to upload that were given out stop working"
                .to_owned(),
        )),
    }
}

/// Replaces the keys of `data_dir`, durably.
pub fn save(data_dir: &Path, keys: &Keys) -> Result<(), OpenError> {
    let path = path(data_dir);
    let stored = keys.list().iter().map(|key| StoredKey {
        id: key.id,
        created_at: key.created_at.to_xep0082(),
        secret: STANDARD.encode(key.secret),
    });
    let file = KeyFile {
        key: stored.collect(),
    };
    let text = toml::to_string(&file)
        .map_err(|e| OpenError::new(&path, format!("cannot be written: {e}")))?;
    replace_file(&path, format!("{HEADER}{text}").as_bytes())
        .map_err(|e| OpenError::new(&path, format!("cannot be written: {e}")))
}

/// The key file's state; `None` where there is none to be seen.
pub fn stamp(data_dir: &Path) -> Option<Stamp> {
    let seen = std::fs::symlink_metadata(path(data_dir)).ok()?;
    Some(Stamp {
        inode: seen.ino(),
        modified_at: seen.modified().ok(),
        size_bytes: seen.len(),
    })
}

/// 32 random bytes, for a new key.
pub fn random_secret(data_dir: &Path) -> Result<[u8; 32], OpenError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|e| {
        let problem = format!("gets no key: the operating system has no random numbers ({e})");
        OpenError::new(&path(data_dir), problem)
    })?;
    Ok(secret)
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(KEYS_FILE)
}

fn open(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)
    {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn parse(text: &str) -> Option<Keys> {
    let file: KeyFile = toml::from_str(text).ok()?;
    let mut keys: Vec<Key> = Vec::new();
    for stored in file.key {
        // An id of two keys would open with the wrong one.
        if keys.iter().any(|key| key.id == stored.id) {
            return None;
        }
        keys.push(Key {
            id: stored.id,
            created_at: Timestamp::from_xep0082(&stored.created_at)?,
            secret: STANDARD.decode(stored.secret).ok()?.try_into().ok()?,
        });
    }
    Keys::from_list(keys)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000);

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    #[test]
    fn keys_come_back() {
        let dir = dir();
        assert_eq!(load(dir.path()), Ok(None));
        let first = load_or_create(dir.path(), NOW).expect("a first key");
        assert_eq!(load_or_create(dir.path(), Timestamp(9)), Ok(first.clone()));
        let before = stamp(dir.path()).expect("there is a file");
        let next = first.rotate([9; 32], Timestamp(NOW.0 + 60));
        save(dir.path(), &next).expect("saved");
        assert_eq!(load(dir.path()), Ok(Some(next)));
        assert_ne!(stamp(dir.path()), Some(before));
        let mode = fs::metadata(path(dir.path())).expect("a file").mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn first_keys_differ() {
        let (a, b) = (dir(), dir());
        let keys = |dir: &tempfile::TempDir| load_or_create(dir.path(), NOW).expect("a key");
        assert_ne!(keys(&a), keys(&b));
    }

    #[track_caller]
    fn refused(content: &str, mode: u32) -> String {
        let dir = dir();
        fs::write(path(dir.path()), content).expect("written");
        fs::set_permissions(path(dir.path()), Permissions::from_mode(mode)).expect("set");
        let error = load_or_create(dir.path(), NOW).expect_err("refused");
        let kept = fs::read_to_string(path(dir.path())).expect("still there");
        assert_eq!(kept, content, "a refused file stays as it was");
        error.to_string()
    }

    #[test]
    fn files_that_others_can_read_are_refused() {
        let dir = dir();
        load_or_create(dir.path(), NOW).expect("a first key");
        let good = fs::read_to_string(path(dir.path())).expect("a file");
        for mode in [0o640, 0o604, 0o660, 0o602] {
            let words = refused(&good, mode);
            assert!(words.contains("keys.toml can be read"), "{words}");
        }
    }

    #[test]
    fn damaged_files_are_refused() {
        let secret = STANDARD.encode([1; 32]);
        let key = |id: &str, secret: &str| {
            format!(
                "[[key]]\nid = {id}\ncreated_at = \"2026-01-02T03:04:05Z\"\nsecret = \"{secret}\"\n"
            )
        };
        let good = key("1", &secret);
        assert!(parse(&good).is_some());
        for content in [
            String::new(),
            "key = []".to_owned(),
            "\0\0\0\0".to_owned(),
            good[..good.len() - 9].to_owned(),
            key("256", &secret),
            key("1", "AAAA"),
            format!("{good}{good}"),
            format!("{good}extra = 1\n"),
        ] {
            let words = refused(&content, 0o600);
            assert!(words.contains("is damaged; restore"), "{words}");
        }
    }

    #[test]
    fn links_are_not_followed() {
        let dir = dir();
        std::os::unix::fs::symlink("/etc/passwd", path(dir.path())).expect("a link");
        assert!(load_or_create(dir.path(), NOW).is_err());
    }
}
