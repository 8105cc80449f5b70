//! What only a directory can get wrong: many at once, links, readers.
//!
//! `tests/conformance.rs` asks what every file store promises, `tests/trouble.rs` and
//! `tests/mounts.rs` for full disks and odd ones.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tempfile::TempDir;

use super::place::{file_name, part_name};
use super::*;
use crate::store::BodyError;
use crate::store::memory::MemoryFiles;

fn open(path: &Path) -> LocalFiles {
    LocalFiles::open(path, Durability::Full).expect("a directory that is ours")
}

fn part(slot: u128, attempt: u16) -> PartId {
    let slot = SlotId(slot);
    PartId { slot, attempt }
}

fn go_on() -> Progress {
    Arc::new(|_| Box::pin(std::future::ready(Ok(()))))
}

fn body(content: &'static str) -> Body {
    stream::iter([Ok(Bytes::from_static(content.as_bytes()))]).boxed()
}

fn broken_off(content: &'static str) -> Body {
    body(content).chain(stream::iter([Err(BodyError)])).boxed()
}

async fn append(
    files: &dyn FileStore,
    part: PartId,
    size_bytes: u64,
    body: Body,
) -> Result<u64, Failure> {
    files.append(part, 0, size_bytes, body, go_on()).await
}

async fn put(files: &dyn FileStore, part: PartId, content: &'static str) {
    let size_bytes = content.len() as u64;
    let appended = append(files, part, size_bytes, body(content)).await;
    assert_eq!(appended.expect("appended"), size_bytes);
    files.commit(part, size_bytes).await.expect("committed");
}

async fn get(files: &dyn FileStore, id: u128, size_bytes: u64) -> Vec<u8> {
    let opened = files.open(SlotId(id), 0..size_bytes).await;
    let body = opened.expect("opened").into_body();
    let pieces = body.map(|piece| piece.expect("read"));
    pieces.collect::<Vec<_>>().await.concat()
}

async fn get_part(files: &dyn FileStore, part: PartId, n_bytes: u64) -> Vec<u8> {
    let opened = files.open_part(part, n_bytes).await;
    let pieces = opened.expect("opened").map(|piece| piece.expect("read"));
    pieces.collect::<Vec<_>>().await.concat()
}

fn part_path(dir: &TempDir, part: PartId) -> PathBuf {
    dir.path().join("parts").join(part_name(part))
}

/// Takes room for `n_bytes` behind the end of a part, as an upload does that a crash ends.
fn reserve_beyond(path: &Path, n_bytes: u64) {
    let file = fs::File::options().write(true).open(path).expect("opened");
    let keep_size = rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, keep_size, 0, n_bytes).expect("a file system that reserves");
    assert!(n_bytes <= occupied_bytes(path));
}

fn occupied_bytes(path: &Path) -> u64 {
    fs::metadata(path).expect("there").blocks() * 512
}

/// Uploads that end at once all end well, and none replaces another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_commit_at_once() {
    let dir = TempDir::new().expect("made");
    let files = Arc::new(open(dir.path()));
    let upload = |n: u128| {
        let files = files.clone();
        // Half of them in one directory.
        let slot = n | ((n % 2) * n) << 120;
        tokio::spawn(async move {
            let (first, second) = (part(slot, 0), part(slot, 1));
            for attempt in [first, second] {
                let appended = append(files.as_ref(), attempt, 4, body("same")).await;
                assert_eq!(appended.expect("appended"), 4);
            }
            let committed = tokio::join!(files.commit(first, 4), files.commit(second, 4));
            assert!(committed.0.is_ok() != committed.1.is_ok(), "{committed:?}");
            slot
        })
    };
    let uploads: Vec<_> = (0..64).map(upload).collect();
    for upload in uploads {
        let slot = upload.await.expect("uploaded");
        assert_eq!(get(files.as_ref(), slot, 4).await, b"same");
        assert_eq!(files.find(SlotId(slot)).await.expect("looked").len(), 2);
    }
}

/// Every page of every size is the reference's, on the borders of directories too.
#[tokio::test]
async fn pages_are_the_references() {
    let dir = TempDir::new().expect("made");
    let files = LocalFiles::open(dir.path(), Durability::None).expect("opened");
    let memory = MemoryFiles::default();
    let fans = [0x00_u128, 0x01, 0x7f, 0xff];
    let slots = fans.map(|fan| [0, 1, 2, u128::MAX >> 8].map(|low| fan << 120 | low));
    for (n, slot) in slots.into_iter().flatten().enumerate() {
        for store in [&files as &dyn FileStore, &memory] {
            if n % 3 != 0 {
                put(store, part(slot, 0), "file").await;
            }
            for attempt in 0..(n % 4) as u16 {
                let part = part(slot, attempt * 300);
                let appended = append(store, part, 9, broken_off("part")).await;
                assert_eq!(appended.expect("appended"), 4);
            }
        }
    }
    fs::write(dir.path().join("files/00/README"), "not ours").expect("written");
    fs::write(dir.path().join("parts/00/junk.0"), "not ours").expect("written");
    let n_all = memory.page(None, 1000).await.expect("listed").len();
    assert!(20 < n_all);
    for n_max in 1..n_all + 2 {
        let mut after = None;
        loop {
            let expected = memory.page(after, n_max).await.expect("listed");
            let page = files.page(after, n_max).await.expect("listed");
            assert_eq!(page, expected, "{n_max} after {after:?}");
            match expected.last() {
                Some(last) => after = Some(last.slot()),
                None => break,
            }
        }
    }
}

#[tokio::test]
async fn a_reader_changes_nothing() {
    let dir = TempDir::new().expect("made");
    let files = open(dir.path());
    put(&files, part(1, 0), "file").await;
    let appended = append(&files, part(2, 0), 9, broken_off("part")).await;
    assert_eq!(appended.expect("appended"), 4);
    let reader = LocalFiles::open_read_only(dir.path()).expect("opened");
    assert_eq!(get(&reader, 1, 4).await, b"file");
    assert_eq!(reader.id(), files.id());
    assert_eq!(get_part(&reader, part(2, 0), 3).await, b"par");
    let refused = [
        reader.commit(part(2, 0), 4).await,
        reader.settle(part(2, 0)).await.map(drop),
        reader.settle(part(1, 0)).await.map(drop),
        reader.remove_part(part(2, 0)).await,
        reader.remove(SlotId(1)).await,
    ];
    for refused in refused {
        assert!(
            matches!(refused, Err(StoreError::Unavailable { .. })),
            "{refused:?}"
        );
    }
    let appended = append(&reader, part(3, 0), 4, body("file")).await;
    assert!(
        matches!(
            appended,
            Err(Failure::Broken(StoreError::Unavailable { .. }))
        ),
        "{appended:?}"
    );
    let listed = reader.page(None, 9).await.expect("listed");
    assert_eq!(listed, files.page(None, 9).await.expect("listed"));
    assert_eq!(listed.len(), 2);
}

/// Files are for their owner, and for the group that the data directory is opened to; a link in a
/// file's place leads nowhere.
#[tokio::test]
async fn files_are_private() {
    let dir = TempDir::new().expect("made");
    let files = open(dir.path());
    put(&files, part(1, 0), "file").await;
    let file = dir.path().join("files").join(file_name(SlotId(1)));
    let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o777;
    assert_eq!(mode(&file), 0o640);
    assert_eq!(mode(&dir.path().join("files/00")), 0o750);
    assert_eq!(mode(&dir.path().join("parts/00")), 0o700);
    assert_eq!(mode(&dir.path().join("store-id")), 0o600);
    let target = dir.path().join("target");
    fs::write(&target, "untouched").expect("written");
    fs::remove_file(&file).expect("removed");
    symlink(&target, &file).expect("linked");
    assert!(files.open(SlotId(1), 0..1).await.is_err());
    let linked = dir.path().join("parts").join(part_name(part(2, 0)));
    symlink(&target, linked).expect("linked");
    assert!(append(&files, part(2, 0), 4, body("file")).await.is_err());
    assert!(files.settle(part(2, 0)).await.is_err());
    assert_eq!(fs::read(target).expect("read"), b"untouched");
}

/// What a crash left of an upload goes on in the next process, wherever it broke off.
#[tokio::test]
async fn another_process_goes_on_where_one_was_killed() {
    let dir = TempDir::new().expect("made");
    let (part, size_bytes) = (part(1, 0), 4 << 20);
    let files = open(dir.path());
    let endless = body("begin").chain(stream::pending()).boxed();
    let uploading = append(&files, part, size_bytes, endless);
    let killed = tokio::time::timeout(Duration::from_millis(200), uploading).await;
    assert!(killed.is_err(), "it ended by itself");
    drop(files);
    let files = open(dir.path());
    assert_eq!(files.settle(part).await.expect("settled"), 5);
    assert!(occupied_bytes(&part_path(&dir, part)) < 1 << 20);
    assert_eq!(get_part(&files, part, 5).await, b"begin");
    let rest = files.append(part, 5, 9, body(" end"), go_on()).await;
    assert_eq!(rest.expect("appended"), 9);
    // All is there; one more request brings the end, and no byte.
    let nothing = files.append(part, 9, 9, body(""), go_on()).await;
    assert_eq!(nothing.expect("appended"), 9);
    files.commit(part, 9).await.expect("committed");
    assert_eq!(get(&files, 1, 9).await, b"begin end");
}

/// Room that a crash left reserved goes back with the next append that ends before its file does,
/// with a cut, and with a settling.
#[tokio::test]
async fn reserved_room_goes_back() {
    let dir = TempDir::new().expect("made");
    let files = open(dir.path());
    let (part, reserved) = (part(1, 0), 8 << 20);
    let path = part_path(&dir, part);
    let appended = append(&files, part, 9, broken_off("part")).await;
    assert_eq!(appended.expect("appended"), 4);
    reserve_beyond(&path, reserved);
    let appended = files.append(part, 4, 9, body("s"), go_on()).await;
    assert_eq!(appended.expect("appended"), 5);
    assert!(occupied_bytes(&path) < reserved, "after an append");
    reserve_beyond(&path, reserved);
    let cut = files.append(part, 2, 9, body(""), go_on()).await;
    assert_eq!(cut.expect("cut"), 2);
    assert!(occupied_bytes(&path) < reserved, "after a cut");
    reserve_beyond(&path, reserved);
    assert_eq!(files.settle(part).await.expect("settled"), 2);
    assert!(occupied_bytes(&path) < reserved, "after a settling");
    assert_eq!(get_part(&files, part, 2).await, b"pa");
}

/// An append that cannot begin leaves what was durable, and no byte more.
#[tokio::test]
async fn an_append_without_room_leaves_the_part() {
    let dir = TempDir::new().expect("made");
    let files = open(dir.path());
    let part = part(1, 0);
    let appended = append(&files, part, 9, broken_off("part")).await;
    assert_eq!(appended.expect("appended"), 4);
    // More than a file can have.
    let huge = files.append(part, 3, i64::MAX as u64, body("s"), go_on());
    let refused = huge.await;
    assert!(matches!(refused, Err(Failure::Broken(_))), "{refused:?}");
    assert_eq!(files.settle(part).await.expect("settled"), 3);
    let appended = files.append(part, 3, 4, body("k"), go_on()).await;
    assert_eq!(appended.expect("appended"), 4);
    assert_eq!(get_part(&files, part, 4).await, b"park");
}

/// A part that somebody else has shortened, linked or replaced is damaged, not read.
#[tokio::test]
async fn parts_are_read_as_they_are_or_not() {
    let dir = TempDir::new().expect("made");
    let files = open(dir.path());
    let (part, path) = (part(1, 0), part_path(&dir, part(1, 0)));
    let appended = append(&files, part, 9, broken_off("part")).await;
    assert_eq!(appended.expect("appended"), 4);
    let corrupt = async || {
        let opened = files.open_part(part, 4).await;
        matches!(opened.err(), Some(StoreError::Corrupt(_)))
    };
    let reading = files.open_part(part, 4).await.expect("opened");
    let file = fs::File::options().write(true).open(&path).expect("opened");
    file.set_len(2).expect("cut");
    let pieces: Vec<_> = reading.collect().await;
    assert!(pieces.iter().any(Result::is_err), "{pieces:?}");
    assert!(corrupt().await, "shorter");
    file.write_all_at(b"part", 0).expect("written");
    assert_eq!(get_part(&files, part, 4).await, b"part");
    fs::remove_file(&path).expect("removed");
    assert!(corrupt().await, "gone");
    fs::create_dir(&path).expect("made");
    assert!(corrupt().await, "a directory");
    fs::remove_dir(&path).expect("removed");
    symlink("/etc/passwd", &path).expect("linked");
    assert!(files.open_part(part, 4).await.is_err(), "a link");
}
