//! Files on file systems of their own: room kept and given back, and places that will not do.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use slotd::config::Durability;
use slotd::core::slot::{PartId, SlotId};
use slotd::store::local::LocalFiles;
use slotd::store::{Body, BodyError, Failure, FileStore as _, OpenError, StoreError};
use tempfile::TempDir;

/// A file system for one test; only root can have one.
struct Mount {
    path: PathBuf,
    _dir: Option<TempDir>,
}

impl Mount {
    fn new(options: &str) -> Option<Self> {
        let dir = TempDir::new().expect("made");
        let mut mount = Self::at(dir.path(), options)?;
        mount._dir = Some(dir);
        Some(mount)
    }

    fn at(path: &Path, options: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        let options = format!("{options},mode=0700");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]);
        match mount.arg(path).output() {
            Ok(output) if output.status.success() => Some(Self {
                path: path.to_owned(),
                _dir: None,
            }),
            not_mounted => {
                println!("skipped, nothing can be mounted here: {not_mounted:?}");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.path).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

fn refusal(path: &Path) -> OpenError {
    let opened = LocalFiles::open(path, Durability::Full);
    opened.err().expect("refused")
}

fn part(slot: u128) -> PartId {
    let slot = SlotId(slot);
    PartId { slot, attempt: 0 }
}

async fn append(
    files: &LocalFiles,
    slot: u128,
    size_bytes: u64,
    body: Body,
) -> Result<u64, Failure> {
    let go_on = Arc::new(|_| async { Ok(()) }.boxed());
    files.append(part(slot), 0, size_bytes, body, go_on).await
}

fn broken_off() -> Body {
    let bit = Ok(Bytes::from_static(b"bit"));
    stream::iter([bit, Err(BodyError)]).boxed()
}

/// Room that an upload reserved is free again when it is broken off, or when what a crash left of
/// it is settled.
#[tokio::test]
async fn broken_uploads_hold_no_room() {
    let Some(mount) = Mount::new("size=6m") else {
        return;
    };
    let files = LocalFiles::open(&mount.path, Durability::Full).expect("opened");
    for slot in 0..8 {
        let appended = append(&files, slot, 3 << 20, broken_off()).await;
        assert_eq!(appended.expect("room"), 3, "upload {slot}");
    }
    // Nobody is left to give anything back: the upload is dropped once its body is asked for.
    let (asked, is_asked) = tokio::sync::oneshot::channel();
    let mut asked = Some(asked);
    let silent = stream::poll_fn(move |_| {
        asked.take().map(|asked| asked.send(()));
        std::task::Poll::Pending
    });
    tokio::select! {
        appended = append(&files, 20, 5 << 20, silent.boxed()) => panic!("ended: {appended:?}"),
        asked = is_asked => asked.expect("asked for bytes"),
    }
    let appended = append(&files, 21, 3 << 20, broken_off()).await;
    assert!(
        matches!(appended, Err(Failure::Broken(StoreError::NoSpace { .. }))),
        "{appended:?}"
    );
    assert_eq!(files.settle(part(20)).await.expect("settled"), 0);
    let appended = append(&files, 21, 3 << 20, broken_off()).await;
    assert_eq!(appended.expect("room"), 3);
}

#[test]
fn parts_and_files_share_a_file_system() {
    let dir = TempDir::new().expect("made");
    LocalFiles::open(dir.path(), Durability::Full).expect("opened");
    let Some(parts) = Mount::at(&dir.path().join("parts"), "size=1m") else {
        return;
    };
    let e = refusal(dir.path());
    assert_eq!(e.path, parts.path);
    assert!(e.problem.contains("on another file system"), "{e}");
    assert_eq!(std::fs::read_dir(&parts.path).expect("listed").count(), 0);
}

#[test]
fn file_systems_that_will_not_do_are_named() {
    for (options, words) in [("ro", "ead-only"), ("nr_inodes=20", "; make room there")] {
        let Some(mount) = Mount::new(options) else {
            return;
        };
        let e = refusal(&mount.path);
        assert!(e.path.starts_with(&mount.path), "{e}");
        assert!(e.problem.contains(words), "{e}");
    }
}
