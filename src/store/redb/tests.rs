//! What only this database can get wrong: batches, indexes, files of another version.
//!
//! `tests/conformance.rs` asks what every store of rows promises, `tests/trouble.rs` for damage.

use std::time::Duration;

use ::redb::{Builder, ConcurrencyMode, Database, ReadableDatabase as _, WriteTransaction};
use futures_util::FutureExt as _;
use futures_util::future::join;

use super::*;
use crate::core::policy::Usage;
use crate::core::refusal::Refusal;
use crate::core::session::{FileFacts, Lifetimes, Retention};
use crate::core::slot::{ContentType, FileName, Purpose};
use schema::{DUE, HOURS, NAMED, OPEN, OWNED, Outcome, SCHEMA, SCHEMA_VERSION, USES, scopes};

pub(super) fn open(dir: &tempfile::TempDir) -> RedbSessions {
    let path = dir.path().join("slotd.redb");
    RedbSessions::open(&path, Durability::Full, 7).expect("a new database")
}

fn note(tables: &mut Tables<'_>) -> Outcome<()> {
    tables.set_fact("note", 1)?;
    Ok(Ok(()))
}

fn fail(tables: &mut Tables<'_>) -> Outcome<()> {
    tables.set_fact("note", 2)?;
    Err(Fault::PreviousIo)
}

#[tokio::test]
async fn an_error_fails_the_batch_and_the_next_one_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    store.write("note", note).await.expect("noted");
    for _ in 0..2 {
        // In one batch or in two: what failed is not there, what was answered is.
        let (first, second) = join(store.write("fail", fail), store.write("note", note)).await;
        assert!(matches!(
            first,
            Err(Failure::Broken(StoreError::Unavailable { .. }))
        ));
        assert_eq!(store.fact("read", "note").await.expect("a fact"), 1);
        drop(second);
        let refused = store
            .write("refuse", |_| Ok(Err::<(), _>(Refusal::Gone.into())))
            .await;
        assert!(matches!(refused, Err(Failure::Refused(Refusal::Gone))));
        store.write("note", note).await.expect("open again");
    }
}

#[tokio::test]
async fn a_reader_meets_a_database_that_was_opened_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    let failed = store.try_read(|_| Err::<(), _>(Fault::PreviousIo));
    assert!(failed.is_err());
    assert_eq!(store.fact("read", STORE_ID).await.expect("a fact"), 7);
    store.write("note", note).await.expect("noted");
}

#[tokio::test]
async fn a_panic_ends_no_more_than_its_batch() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    let panicked = store
        .write("panic", |tables| -> Outcome<()> {
            tables.set_fact("note", 2)?;
            panic!("a panic that this test makes")
        })
        .await;
    assert!(panicked.is_err());
    assert_eq!(store.fact("read", "note").await.expect("a fact"), 0);
    store.write("note", note).await.expect("noted");
}

#[tokio::test]
async fn whoever_waits_is_answered_before_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    let mut waiting = Box::pin(store.write("note", note));
    assert!((&mut waiting).now_or_never().is_none());
    drop(waiting);
    drop(store);
    let store = open(&dir);
    assert_eq!(store.fact("read", "note").await.expect("a fact"), 1);
}

/// A copy of the file, opened as it is after a kill; `None` where redb has to mend it first.
fn after_a_kill(dir: &tempfile::TempDir) -> Option<Database> {
    let copy = dir.path().join("copy.redb");
    std::fs::copy(dir.path().join("slotd.redb"), &copy).expect("copied");
    let mut builder = Builder::new();
    builder.set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder.set_repair_callback(|repair| repair.abort());
    builder.create(&copy).ok()
}

async fn quiet_copy(dir: &tempfile::TempDir) -> Database {
    for _ in 0..3000 {
        match after_a_kill(dir) {
            Some(copy) => return copy,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("the file is never settled");
}

/// In a quiet time nothing is left to mend, again after each time of writing.
#[tokio::test]
async fn a_kill_in_a_quiet_time_leaves_nothing_to_mend() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    for id in 1..=3 {
        admit(&store, slot(id)).await;
        let copy = quiet_copy(&dir).await;
        let read = copy.begin_read().expect("a transaction");
        let rows = read.open_table(ROWS).expect("a table");
        assert_eq!(u128::from(rows.len().expect("a number")), id);
    }
    drop(store);
    let copy = dir.path().join("copy.redb");
    let store = RedbSessions::open(&copy, Durability::Full, 8).expect("a database");
    admit(&store, slot(4)).await;
    assert_eq!(store.totals().await.expect("sums").n_rows, 4);
    assert_eq!(wrong(&store, Mend::No).await, [""; 0]);
}

const NOW: Timestamp = Timestamp(3600 * 490_000);

pub(super) fn jid(text: &str) -> BareJid {
    BareJid::new(text).expect("a valid JID")
}

/// A plain slot for 100 bytes.
pub(super) fn slot(id: u128) -> UploadSession {
    let lifetimes = Lifetimes {
        idle_for: Duration::from_secs(300),
        session_age: Duration::from_secs(3600),
        rufh_idle_for: Duration::from_secs(3600),
        refreshes_max: 10,
        retention: Retention::default(),
    };
    let file = FileFacts {
        name: FileName::parse("a.bin").expect("a valid name"),
        size_bytes: 100,
        content_type: ContentType::octet_stream(),
        purpose: Purpose::Message,
    };
    UploadSession::new(SlotId(id), jid("romeo@example.org"), file, &lifetimes, NOW)
}

pub(super) fn announced(id: u128) -> UploadSession {
    slot(id).announced(SessionId(id + 1000), None)
}

pub(super) async fn admit(store: &RedbSessions, row: UploadSession) {
    let decide = Box::new(move |_: &Usage| Ok(row.clone()));
    let admitted = store.admit(jid("romeo@example.org"), Bucket(0), decide);
    admitted.await.expect("admitted");
}

/// Changes the file at `path` as no store would.
pub(super) fn tamper(path: &Path, how: impl FnOnce(&WriteTransaction)) {
    let database = raw(path);
    let write = database.begin_write().expect("a transaction");
    how(&write);
    write.commit().expect("committed");
}

fn raw(path: &Path) -> Database {
    let mut builder = Builder::new();
    builder.set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder.create(path).expect("a database")
}

pub(super) async fn wrong(store: &RedbSessions, mend: Mend) -> Vec<String> {
    store.recount(mend).await.expect("counted").wrong
}

/// Entries that are missing, that are nobody's, and that name another row, in each index of
/// upload sessions: found, said and mended.
#[tokio::test]
async fn a_recount_mends_the_indexes_of_upload_sessions() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    for id in 1..=4 {
        admit(&store, announced(id)).await;
    }
    admit(&store, slot(5)).await;
    let expire = Box::new(|row: UploadSession| Ok(row.expire()));
    store.update(SlotId(4), expire).await.expect("expired");
    assert_eq!(wrong(&store, Mend::No).await, [""; 0]);
    drop(store);
    let romeo = "romeo@example.org";
    tamper(&dir.path().join("slotd.redb"), |write| {
        let mut owned = write.open_table(OWNED).expect("a table");
        owned.remove((romeo, NAMED, NOW.0, 1)).expect("removed");
        owned
            .insert((romeo, NAMED, NOW.0, 5), ())
            .expect("inserted");
        owned
            .insert(("juliet@example.org", NAMED, 7, 2), ())
            .expect("inserted");
        let mut open = write.open_table(OPEN).expect("a table");
        open.remove((romeo, 2)).expect("removed");
        open.insert((romeo, 4), ()).expect("inserted");
        let mut sessions = write.open_table(SESSIONS).expect("a table");
        sessions.remove(1001).expect("removed");
        sessions.insert(1002, 3).expect("inserted");
        sessions.insert(7, 99).expect("inserted");
    });
    let store = open(&dir);
    let juliets = store.owned(jid("juliet@example.org"), 9).await;
    assert_eq!(juliets.expect("listed"), [], "somebody else's is shown");
    let short = |id: u128| SlotId(id).short();
    let mut expected = vec![
        format!("slot {} is not in the index owned", short(1)),
        format!("slot {} is not in the index sessions", short(1)),
        format!("slot {} is not in the index open", short(2)),
        format!("slot {} is not in the index sessions", short(2)),
        "2 entries of the index owned have no row".to_owned(),
        "1 entries of the index open have no row".to_owned(),
        "2 entries of the index sessions have no row".to_owned(),
    ];
    let mut found = wrong(&store, Mend::Yes).await;
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(wrong(&store, Mend::No).await, [""; 0]);
    let owned = store.owned(jid(romeo), 9).await.expect("listed");
    let ids: Vec<_> = owned.iter().map(|row| row.id.0).collect();
    assert_eq!(ids, [4, 3, 2, 1]);
    let found = store.find_session(SessionId(1002)).await;
    assert_eq!(found.expect("looked"), Some(SlotId(2)));
    let open = store.write("count", |tables| {
        Ok(Ok(tables.indexes.n_open(&jid("romeo@example.org"))?))
    });
    assert_eq!(open.await.expect("counted"), 3);
}

/// A tombstone that the first schema had due later than we have it.
fn tombstone(id: u128) -> UploadSession {
    let mut row = slot(id);
    row.last_byte_at = row.expires_at;
    row.expire()
}

/// Writes a file as the first schema had it: `rows` of its shape, and no tables for names.
fn write_first(path: &Path, rows: &[UploadSession]) {
    tamper(path, |write| {
        let mut facts = write.open_table(FACTS).expect("a table");
        facts.insert(SCHEMA, 1).expect("inserted");
        facts.insert(STORE_ID, 7).expect("inserted");
        let mut table = write.open_table(ROWS).expect("a table");
        let mut due = write.open_table(DUE).expect("a table");
        write.open_table(COMPLETE).expect("a table");
        let mut uses = write.open_table(USES).expect("a table");
        let mut hours = write.open_table(HOURS).expect("a table");
        for row in rows {
            let bytes = row::encode_first(row);
            table.insert(row.id.0, &bytes[..]).expect("inserted");
            let late = match row.is_tombstone() {
                true => row.idle_for.as_secs() + 1,
                false => 0,
            };
            let due_at = row.due_at().expect("due").0 + late;
            due.insert((due_at, row.id.0), ()).expect("inserted");
            let hour = Bucket::of(row.created_at).0;
            for (kind, who) in scopes(&row.owner).into_iter().filter(|_| row.is_open()) {
                uses.insert((kind, who, hour), (100, 0)).expect("inserted");
                hours.insert((hour, kind, who), ()).expect("inserted");
            }
        }
    });
}

/// A file of the first schema is read as it is, also while its service writes; and brought to
/// today's by whoever writes next, while readers look on.
#[tokio::test]
async fn the_first_schema_is_read_and_brought_to_today() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("slotd.redb");
    write_first(&path, &[slot(1), tombstone(2)]);
    let service = raw(&path);
    let reader = RedbSessions::open_read_only(&path).expect("opened beside its service");
    drop(service);
    for store in [
        &reader,
        &RedbSessions::open_read_only(&path).expect("opened"),
    ] {
        let row = store.get(SlotId(1)).await.expect("read");
        assert_eq!(row, Some(slot(1)));
        assert_eq!(
            store.find_session(SessionId(1)).await.expect("looked"),
            None
        );
        let owned = store.owned(jid("romeo@example.org"), 9).await;
        assert_eq!(owned.expect("listed"), []);
        let wrong = wrong(store, Mend::No).await;
        assert!(wrong.iter().all(|wrong| wrong.contains("due")), "{wrong:?}");
    }
    let schema = reader.fact("read", SCHEMA).await.expect("a fact");
    assert_eq!(schema, 1, "a reader wrote");

    let store = RedbSessions::open(&path, Durability::Full, 8).expect("brought to today's");
    assert_eq!(store.store_id().await.expect("an id"), 7);
    assert_eq!(wrong(&store, Mend::No).await, [""; 0]);
    assert_eq!(
        store.fact("read", SCHEMA).await.expect("a fact"),
        SCHEMA_VERSION
    );
    admit(&store, announced(3)).await;
    store.remove(SlotId(2)).await.expect("removed");
    assert_eq!(wrong(&store, Mend::No).await, [""; 0]);
    let found = reader.find_session(SessionId(1003)).await;
    assert_eq!(found.expect("looked"), Some(SlotId(3)));
    drop(store);
    let store = RedbSessions::open(&path, Durability::Full, 8).expect("opened again");
    assert_eq!(store.totals().await.expect("sums").n_rows, 2);
    assert_eq!(store.get(SlotId(1)).await.expect("read"), Some(slot(1)));
}

/// One row that cannot be read keeps a service from nothing but that row.
#[tokio::test]
async fn a_damaged_row_does_not_keep_the_others_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("slotd.redb");
    write_first(&path, &[slot(1), slot(2)]);
    tamper(&path, |write| {
        let mut rows = write.open_table(ROWS).expect("a table");
        rows.insert(1, &b"\x01no row at all"[..]).expect("inserted");
    });
    let store = open(&dir);
    assert!(store.get(SlotId(1)).await.is_err());
    assert_eq!(store.get(SlotId(2)).await.expect("read"), Some(slot(2)));
    let due = store.due(Timestamp(u64::MAX), 9).await;
    assert_eq!(due.expect("looked"), [SlotId(1), SlotId(2)]);
}

#[tokio::test]
async fn a_newer_schema_is_refused_in_a_sentence() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("slotd.redb");
    drop(open(&dir));
    tamper(&path, |write| {
        let mut facts = write.open_table(FACTS).expect("a table");
        facts.insert(SCHEMA, SCHEMA_VERSION + 1).expect("inserted");
    });
    for refused in [
        RedbSessions::open(&path, Durability::Full, 7).err(),
        RedbSessions::open_read_only(&path).err(),
    ] {
        let told = refused.expect("refused").to_string();
        let words = "written by a newer version of slotd";
        assert!(told.contains(words), "{told}");
    }
}

/// What one operation books the next one sees, though it is written when all have run.
#[tokio::test]
async fn operations_of_one_commit_see_each_others_sums() {
    fn used(tables: &mut Tables<'_>, id: Option<u128>) -> Result<[Vec<(Bucket, u64)>; 3], Fault> {
        let (telling, told) = std::sync::mpsc::channel();
        let decide = Box::new(move |usage: &Usage| {
            let uses = [&usage.requester, &usage.domain, &usage.total];
            telling.send(uses.map(Clone::clone)).expect("waited for");
            id.map(slot).ok_or(Refusal::NotAllowed)
        });
        let admitted = tables.admit(&jid("romeo@example.org"), Bucket(0), decide)?;
        assert_eq!(admitted.is_ok(), id.is_some());
        Ok(told.recv().expect("decided"))
    }
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    let hour = Bucket::of(NOW);
    let all = store.write("test", move |tables| {
        let mut all = vec![used(tables, Some(1))?, used(tables, Some(2))?];
        all.push(used(tables, None)?);
        drop(tables.remove(SlotId(1))?);
        all.push(used(tables, Some(3))?);
        Ok(Ok(all))
    });
    let each = |uses: Vec<(Bucket, u64)>| [uses.clone(), uses.clone(), uses];
    let of = |n_bytes| each(vec![(hour, n_bytes)]);
    let all = all.await.expect("committed");
    assert_eq!(all, [each(Vec::new()), of(100), of(200), of(100)]);
    assert_eq!(wrong(&store, Mend::No).await, [""; 0]);
    let after = store.write("test", move |tables| {
        let before = used(tables, Some(4))?;
        drop(tables.forget(Bucket(hour.0 + 1), 9)?);
        Ok(Ok([before, used(tables, None)?]))
    });
    let after = after.await.expect("committed");
    assert_eq!(after, [of(200), each(Vec::new())]);
    assert_eq!(wrong(&store, Mend::Yes).await, [""; 0]);
}
