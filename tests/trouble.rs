//! What the stores on disk do when something is wrong: damage, a full disk, a second process.
#![allow(missing_docs, reason = "tests")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use redb::{Builder, ConcurrencyMode, Database, TableDefinition};
use slotd::config::Durability;
use slotd::core::policy::Bucket;
use slotd::core::slot::SlotId;
use slotd::core::token::Keys;
use slotd::service::Service;
use slotd::service::sweep::Sweeper;
use slotd::store::local::LocalFiles;
use slotd::store::memory::MemoryFiles;
use slotd::store::redb::RedbSessions;
use slotd::store::{
    self, Body, Failure, FileStore, Mend, Progress, SessionStore, StoreError, Stores,
};

use support::rows::{NOW, complete, later, part, row, take};
use support::world::{START, TestWorld, settings};

mod support;

const ROMEO: &str = "romeo@example.org";

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn open(path: &Path) -> RedbSessions {
    RedbSessions::open(path, Durability::Full, 7).expect("a database")
}

/// Rows 1 to `n`, every third complete.
async fn fill(store: &RedbSessions, n: u128) {
    let admitted = (1..=n).map(|id| {
        let row = row(id, &format!("user{}@example.org", id % 7), 100, NOW);
        store.admit(row.owner.clone(), Bucket(0), take(row))
    });
    for admitted in join_all(admitted).await {
        admitted.expect("admitted");
    }
    let completed = (3..=n)
        .step_by(3)
        .map(|id| store.update(SlotId(id), complete(later(id as u64))));
    for completed in join_all(completed).await {
        completed.expect("completed");
    }
}

async fn check(store: &RedbSessions, n: u128) {
    let totals = store.totals().await.expect("sums");
    assert_eq!(u128::from(totals.n_rows), n);
    assert_eq!(u128::from(totals.n_files), n / 3);
    assert_eq!(
        store.recount(Mend::No).await.expect("a recount").wrong,
        [""; 0]
    );
    assert_eq!(
        store.page(None, 10_000).await.expect("a page").len() as u128,
        n
    );
}

#[tokio::test]
async fn rows_are_there_after_the_end() {
    let dir = dir();
    let path = dir.path().join("slotd.redb");
    let store = open(&path);
    fill(&store, 100).await;
    // What a killed process leaves: nothing was closed.
    let left = dir.path().join("left.redb");
    fs::copy(&path, &left).expect("copied");
    drop(store);
    for path in [&path, &left] {
        let store = RedbSessions::open(path, Durability::Full, 8).expect("a database");
        check(&store, 100).await;
        assert_eq!(store.store_id().await.expect("an id"), 7);
    }
    let mode = fs::metadata(&path).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_reader_beside_the_writer_follows_it() {
    let dir = dir();
    let path = dir.path().join("slotd.redb");
    let missing = RedbSessions::open_read_only(&path).err().expect("an error");
    assert!(missing.to_string().contains("slotd.redb cannot be opened"));
    let writer = open(&path);
    fill(&writer, 9).await;
    let reader = RedbSessions::open_read_only(&path).expect("beside the writer");
    check(&reader, 9).await;
    writer.remove(SlotId(1)).await.expect("removed");
    assert_eq!(reader.get(SlotId(1)).await.expect("an answer"), None);
    let refused = reader.remove(SlotId(2)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })));
    let second = RedbSessions::open(&path, Durability::Full, 7).err();
    let words = second.expect("one writer at a time").to_string();
    assert!(words.contains("in use by another process"), "{words}");
    // What a killed writer has left can be looked at, too.
    let left = dir.path().join("left.redb");
    fs::copy(&path, &left).expect("copied");
    let reader = RedbSessions::open_read_only(&left).expect("mended");
    assert_eq!(reader.totals().await.expect("sums").n_rows, 8);
    let again = RedbSessions::open(&left, Durability::Full, 7);
    assert!(again.is_ok(), "who looks keeps nobody from starting");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_at_once_all_get_their_rows() {
    let dir = dir();
    let store = Arc::new(open(&dir.path().join("slotd.redb")));
    let writers = (0..64u128).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..20 {
                let row = row(writer * 100 + n, ROMEO, 1, NOW);
                let admitted = store.admit(row.owner.clone(), Bucket(0), take(row));
                let id = admitted.await.expect("admitted").id;
                assert!(store.get(id).await.expect("an answer").is_some());
                if n % 2 == 0 {
                    store.update(id, complete(NOW)).await.expect("completed");
                }
            }
        })
    });
    for writer in join_all(writers).await {
        writer.expect("no panic");
    }
    let totals = store.totals().await.expect("sums");
    assert_eq!(
        (totals.n_rows, totals.n_files, totals.stored_bytes),
        (1280, 640, 640)
    );
    assert_eq!(
        store.recount(Mend::No).await.expect("a recount").wrong,
        [""; 0]
    );
}

fn raw(path: &Path) -> Database {
    let mut builder = Builder::new();
    builder.set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder.open(path).expect("a database")
}

#[tokio::test]
async fn a_recount_finds_and_mends_what_is_wrong() {
    const DUE: TableDefinition<(u64, u128), ()> = TableDefinition::new("due");
    const COMPLETE: TableDefinition<(u64, u128), ()> = TableDefinition::new("complete");
    const USES: TableDefinition<(u8, &str, u64), (u64, u64)> = TableDefinition::new("uses");
    const FACTS: TableDefinition<&str, u128> = TableDefinition::new("facts");
    let dir = dir();
    let path = dir.path().join("slotd.redb");
    let store = open(&path);
    fill(&store, 30).await;
    store.remove(SlotId(3)).await.expect("removed");
    drop(store);
    let hour = Bucket::of(NOW).0;
    let database = raw(&path);
    let write = database.begin_write().expect("a transaction");
    {
        let mut due = write.open_table(DUE).expect("a table");
        due.pop_first().expect("no error");
        due.insert((1, 99), ()).expect("no error");
        let mut complete = write.open_table(COMPLETE).expect("a table");
        complete.insert((1, 99), ()).expect("no error");
        let mut uses = write.open_table(USES).expect("a table");
        uses.insert((0, "user1@example.org", hour), (1, 0))
            .expect("no error");
        uses.remove((0, "user2@example.org", hour))
            .expect("no error");
        uses.insert((0, "nobody@example.org", hour), (5, 0))
            .expect("no error");
        let mut facts = write.open_table(FACTS).expect("a table");
        facts.insert("stored-bytes", 1).expect("no error");
    }
    write.commit().expect("committed");
    drop(database);
    let store = open(&path);
    let found = store.recount(Mend::No).await.expect("a recount").wrong;
    for words in [
        "is not in the index due",
        "entries of the index due have no row",
        "entries of the index complete have no row",
        "user1@example.org used 1 bytes",
        "user2@example.org used nothing",
        "nobody@example.org used 5 bytes",
        "stored bytes are 1, the rows say 900",
    ] {
        assert!(
            found.iter().any(|wrong| wrong.contains(words)),
            "{words}: {found:#?}"
        );
    }
    assert_eq!(store.recount(Mend::Yes).await.expect("mended").wrong, found);
    assert_eq!(
        store.recount(Mend::No).await.expect("a recount").wrong,
        [""; 0]
    );
    let totals = store.totals().await.expect("sums");
    assert_eq!(
        (totals.n_rows, totals.n_files, totals.stored_bytes),
        (29, 9, 900)
    );
}

#[tokio::test]
async fn a_sweep_does_not_go_round_on_an_index_that_is_wrong() {
    const DUE: TableDefinition<(u64, u128), ()> = TableDefinition::new("due");
    let dir = dir();
    let path = dir.path().join("slotd.redb");
    drop(open(&path));
    let database = raw(&path);
    let write = database.begin_write().expect("a transaction");
    {
        let mut due = write.open_table(DUE).expect("a table");
        due.insert((1, 99), ()).expect("no error");
    }
    write.commit().expect("committed");
    drop(database);
    let stores = Stores {
        sessions: Arc::new(open(&path)),
        files: Arc::new(MemoryFiles::new(7)),
    };
    let keys = Keys::first([7; 32], START);
    let service = Service::new(settings(), keys, stores, TestWorld::new(1));
    let report = Sweeper::new(service).sweep().await;
    assert!(!report.has_more && report.removed.is_empty() && report.n_failed == 0);
}

/// Numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % below
    }
}

fn damage(path: &Path, dice: &mut Dice) -> String {
    let file = fs::File::options().read(true).write(true).open(path);
    let file = file.expect("a file");
    let length = file.metadata().expect("metadata").len();
    match dice.roll(5) {
        0 => {
            let (at, mut byte) = (dice.roll(length), [0]);
            file.read_exact_at(&mut byte, at).expect("read");
            byte[0] ^= 1 << dice.roll(8);
            file.write_all_at(&byte, at).expect("written");
            format!("a bit at {at}")
        }
        1 => {
            let at = dice.roll(length / 4096) * 4096;
            file.write_all_at(&[0; 4096], at).expect("written");
            format!("zeros at {at}")
        }
        2 => {
            let at = dice.roll(length / 4096) * 4096;
            let noise: Vec<u8> = (0..4096).map(|_| dice.roll(256) as u8).collect();
            file.write_all_at(&noise, at).expect("written");
            format!("noise at {at}")
        }
        3 => {
            // A page that is another one: its own checksum is right.
            let (from, to) = (dice.roll(length / 4096), dice.roll(length / 4096));
            let mut page = [0; 4096];
            file.read_exact_at(&mut page, from * 4096).expect("read");
            file.write_all_at(&page, to * 4096).expect("written");
            format!("page {from} in place of page {to}")
        }
        _ => {
            let left = 1 + dice.roll(length - 1);
            file.set_len(left).expect("cut");
            format!("cut to {left}")
        }
    }
}

#[tokio::test]
async fn a_damaged_database_is_noticed_and_never_served() {
    let dir = dir();
    let good = dir.path().join("good.redb");
    let store = open(&good);
    fill(&store, 300).await;
    let rows = store.page(None, 1000).await.expect("a page");
    drop(store);
    let (mut dice, mut n_refused) = (Dice(1), 0);
    for round in 0..120 {
        let path = dir.path().join(format!("{round}.redb"));
        fs::copy(&good, &path).expect("copied");
        let what = damage(&path, &mut dice);
        match RedbSessions::open(&path, Durability::None, 8) {
            Err(e) => {
                let words = e.to_string();
                assert!(words.contains(&format!("{round}.redb")), "{what}: {words}");
                assert!(
                    words.contains("restore it from a backup"),
                    "{what}: {words}"
                );
                n_refused += 1;
            }
            Ok(store) => {
                let served = store.page(None, 1000).await.expect("a page");
                assert!(served == rows, "{what}: other rows are served");
                assert_eq!(store.store_id().await.expect("an id"), 7, "{what}");
                let recount = store.recount(Mend::No).await.expect("a recount");
                assert_eq!(recount.wrong, [""; 0], "{what}");
            }
        }
        fs::remove_file(&path).expect("removed");
    }
    // Most of the file is free space, where damage does no harm.
    assert!(10 < n_refused, "{n_refused} of 120 were noticed");
}

#[tokio::test]
async fn damage_in_a_large_database_is_noticed_where_it_is_read() {
    const BALLAST: TableDefinition<u64, &[u8]> = TableDefinition::new("ballast");
    let dir = dir();
    let good = dir.path().join("good.redb");
    let store = open(&good);
    fill(&store, 100).await;
    let rows = store.page(None, 1000).await.expect("a page");
    drop(store);
    let database = raw(&good);
    let write = database.begin_write().expect("a transaction");
    {
        let mut ballast = write.open_table(BALLAST).expect("a table");
        ballast.insert(1, &[0; 9 << 20][..]).expect("no error");
    }
    write.commit().expect("committed");
    drop(database);
    let bytes = fs::read(&good).expect("read");
    let owner = b"user3@example.org";
    let places: Vec<u64> = (0..bytes.len() as u64)
        .filter(|at| bytes[*at as usize..].starts_with(owner))
        .collect();
    let (mut dice, mut n_noticed) = (Dice(1), 0);
    for round in 0..9 {
        let path = dir.path().join(format!("{round}.redb"));
        fs::copy(&good, &path).expect("copied");
        let at = places[dice.roll(places.len() as u64) as usize];
        let file = fs::File::options().write(true).open(&path).expect("a file");
        match round % 3 {
            0 => file.write_all_at(b"v", at),
            1 => file.write_all_at(&[0; 4096], at / 4096 * 4096),
            _ => file.write_all_at(&[0xff; 4096], at / 4096 * 4096),
        }
        .expect("written");
        let Ok(store) = RedbSessions::open(&path, Durability::Full, 8) else {
            n_noticed += 1;
            continue;
        };
        match store.page(None, 1000).await {
            Ok(served) => assert!(served == rows, "round {round}: other rows are served"),
            Err(e) => {
                assert!(matches!(e, StoreError::Corrupt(_)), "round {round}: {e}");
                n_noticed += 1;
            }
        }
        drop(store);
        fs::remove_file(&path).expect("removed");
    }
    assert!(2 < n_noticed, "{n_noticed} of 9 were noticed");
}

#[tokio::test]
async fn what_is_no_database_stays_as_it_is() {
    let dir = dir();
    let path = dir.path().join("slotd.redb");
    let refuse = |words: &str| {
        let before = fs::read(&path).expect("a file");
        let error = RedbSessions::open(&path, Durability::Full, 7).err();
        let told = error.expect("refused").to_string();
        assert!(
            told.contains(words) && told.contains("slotd.redb"),
            "{told}"
        );
        assert!(fs::read(&path).expect("a file") == before, "it was changed");
    };
    fs::write(&path, "milk, bread, butter\n").expect("written");
    refuse("is damaged");
    fs::write(&path, vec![b'x'; 1 << 20]).expect("written");
    refuse("is damaged");
    fs::remove_file(&path).expect("removed");
    let other = Database::create(&path).expect("a database");
    let write = other.begin_write().expect("a transaction");
    const OTHER: TableDefinition<u64, u64> = TableDefinition::new("rows");
    write
        .open_table(OTHER)
        .expect("a table")
        .insert(1, 1)
        .expect("inserted");
    write.commit().expect("committed");
    drop(other);
    let told = RedbSessions::open(&path, Durability::Full, 7).err();
    let told = told.expect("refused").to_string();
    assert!(told.contains("not one of slotd's"), "{told}");
    fs::remove_file(&path).expect("removed");
    symlink("elsewhere.redb", &path).expect("a link");
    assert!(RedbSessions::open(&path, Durability::Full, 7).is_err());
    assert!(!dir.path().join("elsewhere.redb").exists());
}

#[track_caller]
fn refused(data_dir: &Path, words: &str) {
    let error = store::open(data_dir, Durability::Full).err();
    let told = error.expect("refused").to_string();
    assert!(told.contains(words), "{told}");
    assert!(told.contains(&data_dir.display().to_string()), "{told}");
}

#[tokio::test]
async fn data_directories_that_are_refused() {
    let dir = dir();
    let at = |name: &str| dir.path().join(name);
    refused(&at("no/such"), "cannot be made");
    fs::write(at("file"), "").expect("written");
    refused(&at("file"), "is not a directory");
    symlink(at("nowhere"), at("dangling")).expect("a link");
    refused(&at("dangling"), "is a symbolic link to nothing");
    assert!(!at("nowhere").exists(), "nothing is made through a link");
    symlink(at("file"), at("link-to-file")).expect("a link");
    refused(&at("link-to-file"), "is not a directory");
    fs::create_dir(at("open")).expect("made");
    fs::set_permissions(at("open"), Permissions::from_mode(0o777)).expect("set");
    refused(&at("open"), "can be written by everybody");
    symlink(at("open"), at("link-to-open")).expect("a link");
    refused(&at("link-to-open"), "can be written by everybody");
    fs::create_dir(at("inner")).expect("made");
    symlink(dir.path(), at("inner/parts")).expect("a link");
    refused(&at("inner"), "parts");
    for id in ["", "xyz", &"0".repeat(31), &format!("{:032x}", 7).repeat(2)] {
        let path = at("id");
        fs::create_dir_all(&path).expect("made");
        fs::write(path.join("store-id"), id).expect("written");
        refused(&path, "holds no store id");
    }
    assert!(store::open_read_only(&at("nothing")).is_err());
    assert!(!at("nothing").exists(), "looking makes nothing");
}

#[tokio::test]
async fn a_data_directory_may_be_a_link_of_ours() {
    let dir = dir();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    fs::create_dir(&real).expect("made");
    fs::set_permissions(&real, Permissions::from_mode(0o700)).expect("set");
    symlink("real", &link).expect("a link");
    let stores = store::open(&link, Durability::Full).expect("stores");
    let id = stores.sessions.store_id().await.expect("an id");
    drop(stores);
    assert!(real.join("files").is_dir());
    // The same place by its other name.
    let stores = store::open(&real, Durability::Full).expect("stores");
    assert_eq!(stores.sessions.store_id().await.expect("an id"), id);
    drop(stores);
    // Root alone can give a link away; the judgement has a test of its own.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(&link, Some(65_534), Some(65_534)).expect("given");
        refused(&link, "is a symbolic link of user 65534");
    }
}

#[tokio::test]
async fn a_lost_database_is_not_taken_for_a_new_one() {
    let dir = dir();
    let data_dir = dir.path().join("data");
    let ids = async |stores: &store::Stores| {
        let rows = stores.sessions.store_id().await.expect("an id");
        (rows, stores.files.store_id().await.expect("an id"))
    };
    let stores = store::open(&data_dir, Durability::Full).expect("new stores");
    let mode = fs::metadata(&data_dir).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let (rows, files) = ids(&stores).await;
    assert_eq!(rows, files);
    drop(stores);
    // Without files nothing was lost.
    let database = data_dir.join("slotd.redb");
    fs::remove_file(&database).expect("removed");
    let stores = store::open(&data_dir, Durability::Full).expect("stores");
    assert_eq!(ids(&stores).await, (files, files));
    write(&*stores.files, 1, 3).await.expect("written");
    drop(stores);
    fs::write(&database, "").expect("emptied");
    refused(&data_dir, "is empty, but there are files");
    fs::remove_file(&database).expect("removed");
    let stores = store::open(&data_dir, Durability::Full).expect("stores");
    let (rows, files_now) = ids(&stores).await;
    assert_eq!(files_now, files);
    assert_ne!(rows, files, "a sweep must not take them for its own");
    let looking = store::open_read_only(&data_dir).expect("beside it");
    assert_eq!(ids(&looking).await, (rows, files));
}

fn zeros(n_bytes: u64) -> Body {
    const PIECE: u64 = 64 << 10;
    let pieces = (0..n_bytes.div_ceil(PIECE)).map(move |n| {
        let length = PIECE.min(n_bytes - n * PIECE);
        Ok(Bytes::from(vec![0; length as usize]))
    });
    stream::iter(pieces.collect::<Vec<_>>()).boxed()
}

fn go_on() -> Progress {
    Arc::new(|_| async { Ok(()) }.boxed())
}

async fn write(files: &dyn FileStore, id: u128, n_bytes: u64) -> Result<u64, Failure> {
    let body = zeros(n_bytes);
    files.append(part(id, 0), 0, n_bytes, body, go_on()).await
}

/// A small file system of its own, where one may be mounted.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, options: &str) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(at)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            _ => {
                println!("skipped: no tmpfs can be mounted here (that takes root)");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

#[track_caller]
fn is_full<T: std::fmt::Debug>(result: Result<T, Failure>) {
    assert!(
        matches!(result, Err(Failure::Broken(StoreError::NoSpace { .. }))),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_full_disk_is_told_at_once_and_forgotten_at_once() {
    let dir = dir();
    let Some(_disk) = SmallDisk::mount(dir.path(), "size=8m,mode=0700") else {
        return;
    };
    let files = LocalFiles::open(dir.path(), Durability::Full).expect("a directory");
    let used = async || files.page(None, 100).await.expect("a page");
    // More than there is: refused before a byte is read.
    let body = stream::poll_fn(|_| panic!("the body was asked for")).boxed();
    is_full(files.append(part(1, 0), 0, 64 << 20, body, go_on()).await);
    assert_eq!(used().await, []);
    // Small ones are told when they are written; what was told before stays.
    assert_eq!(write(&files, 2, 5 << 20).await.expect("it fits"), 5 << 20);
    for id in 3..9 {
        let written = write(&files, id, 1000 << 10).await;
        if written.is_err() {
            is_full(written);
            assert_eq!(files.find(SlotId(id)).await.expect("an answer"), []);
        }
    }
    is_full(
        files
            .append(part(2, 0), 5 << 20, 9 << 20, zeros(4 << 20), go_on())
            .await,
    );
    assert_eq!(files.settle(part(2, 0)).await.expect("a length"), 5 << 20);
    // Room again: everything goes on.
    for id in 3..9 {
        files.remove(SlotId(id)).await.expect("removed");
    }
    let rest = files.append(part(2, 0), 5 << 20, 6 << 20, zeros(1 << 20), go_on());
    assert_eq!(rest.await.expect("it fits"), 6 << 20);
    files.commit(part(2, 0), 6 << 20).await.expect("committed");
}

#[tokio::test]
async fn a_disk_without_inodes_is_full() {
    let dir = dir();
    let Some(_disk) = SmallDisk::mount(dir.path(), "size=8m,nr_inodes=530,mode=0700") else {
        return;
    };
    let files = LocalFiles::open(dir.path(), Durability::Full).expect("a directory");
    let mut n_written = 0;
    while write(&files, n_written, 1).await.is_ok() {
        n_written += 1;
        assert!(n_written < 530, "there are no inodes for this");
    }
    is_full(write(&files, n_written, 1).await);
    files.remove(SlotId(0)).await.expect("removed");
    write(&files, n_written, 1).await.expect("room again");
}

#[tokio::test]
async fn a_database_on_a_full_disk_reads_on_and_recovers() {
    let dir = dir();
    let Some(_disk) = SmallDisk::mount(dir.path(), "size=24m,mode=0700") else {
        return;
    };
    let store = open(&dir.path().join("slotd.redb"));
    fill(&store, 30).await;
    let ballast = dir.path().join("ballast");
    let file = fs::File::create(&ballast).expect("a file");
    let mut n_bytes = 0;
    while file.write_all_at(&[1; 4096], n_bytes).is_ok() {
        n_bytes += 4096;
    }
    let refused = |id| {
        let row = row(id, ROMEO, 1, NOW);
        store.admit(row.owner.clone(), Bucket(0), take(row))
    };
    for id in 100..110 {
        is_full(refused(id).await);
        check(&store, 30).await;
    }
    drop(file);
    fs::remove_file(&ballast).expect("removed");
    refused(100).await.expect("room again, without a restart");
    assert_eq!(store.totals().await.expect("sums").n_rows, 31);
}

#[tokio::test(start_paused = true)]
async fn bytes_become_durable_also_when_nothing_comes() {
    let dir = dir();
    let files = LocalFiles::open(dir.path(), Durability::Full).expect("a directory");
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = told.clone();
    let begun = tokio::time::Instant::now();
    let progress: Progress = Arc::new(move |offset| {
        let mut told = telling.lock().expect("not poisoned");
        told.push((offset, begun.elapsed().as_secs()));
        async { Ok(()) }.boxed()
    });
    let slow = stream::unfold(0, |n| async move {
        tokio::time::sleep(Duration::from_secs(if n == 0 { 0 } else { 60 })).await;
        (n < 3).then(|| (Ok(Bytes::from_static(b"abc")), n + 1))
    });
    let length = files.append(part(1, 0), 0, 9, slow.boxed(), progress).await;
    assert_eq!(length.expect("appended"), 9);
    let told = told.lock().expect("not poisoned").clone();
    assert_eq!(told, [(3, 5), (6, 65), (9, 125)]);
}

#[tokio::test]
async fn a_file_that_is_cut_while_it_is_read_is_an_error() {
    let dir = dir();
    let files = LocalFiles::open(dir.path(), Durability::None).expect("a directory");
    write(&files, 1, 1 << 20).await.expect("written");
    files.commit(part(1, 0), 1 << 20).await.expect("committed");
    let content = files.open(SlotId(1), 0..1 << 20).await.expect("open");
    let mut body = content.into_body();
    let first = body.next().await.expect("a piece").expect("bytes");
    let path = dir.path().join(format!("files/00/{:032x}", 1));
    let file = fs::File::options().write(true).open(path).expect("a file");
    file.set_len(first.len() as u64 + 1).expect("cut");
    let rest: Vec<_> = body.collect().await;
    let (last, others) = rest.split_last().expect("there was more");
    assert!(last.is_err() && others.len() <= 1, "{rest:?}");
    assert!(files.open(SlotId(1), 0..1 << 20).await.is_err());
}
