//! Every sentence that the store traits promise, asked of every store.
#![allow(missing_docs, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use slotd::config::Durability;
use slotd::core::bans::{Ban, By, Subject};
use slotd::core::download::Served;
use slotd::core::external::UsedPath;
use slotd::core::policy::{Bucket, OPEN_SESSIONS_MAX, Usage, Uses};
use slotd::core::refusal::Refusal;
use slotd::core::session::{Agreement, FailReason, UploadSession};
use slotd::core::slot::{PartId, Purpose, SessionId, SlotId};
use slotd::core::time::Timestamp;
use slotd::store::local::LocalFiles;
use slotd::store::memory::{MemoryFiles, MemorySessions};
use slotd::store::redb::RedbSessions;
use slotd::store::{
    Body, BodyError, Change, Failure, FileStore, Mend, Progress, SessionStore, StoreError, Stored,
    Stores, Totals,
};

use support::faulty::{self, Fault, Plan};
use support::outage::{self, Outage};
use support::rows::{
    KEEP_FOR, NOW, announced, complete, hour, jid, later, name, part, row, row_for, take, within,
};

mod support;

const ROMEO: &str = "romeo@example.org";
const JULIET: &str = "juliet@example.org";
const NURSE: &str = "nurse@example.com";
const HOUR: u64 = 3600;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[tokio::test]
async fn rows_in_memory() {
    sessions(|| Arc::new(MemorySessions::new(7))).await;
}

#[tokio::test]
async fn rows_in_redb() {
    let dir = dir();
    let n_stores = AtomicU64::new(0);
    sessions(|| {
        let n = n_stores.fetch_add(1, Ordering::Relaxed);
        let path = dir.path().join(format!("{n}.redb"));
        Arc::new(RedbSessions::open(&path, Durability::None, 7).expect("a new database"))
    })
    .await;
}

/// How often a slot is filled and removed while others ask for it, each time a second later: few
/// enough that the slot stays good.
const N_FILLS: u64 = 200;

/// What readers may see while the writer goes on: odd steps make the file complete, even ones
/// remove it.
#[derive(Default)]
struct Steps {
    begun: AtomicU64,
    answered: AtomicU64,
}

/// Nobody sees what was before what was answered, nor what was before what they have seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_served_what_is_no_more() {
    let dir = dir();
    let path = dir.path().join("slotd.redb");
    let store = Arc::new(RedbSessions::open(&path, Durability::None, 7).expect("a new database"));
    let steps = Arc::new(Steps::default());
    let readers = (0..3).map(|_| tokio::spawn(watch(store.clone(), steps.clone())));
    let readers: Vec<_> = readers.collect();
    for n in 1..=N_FILLS {
        admit(&*store, row(1, ROMEO, 1000, NOW)).await;
        steps.begun.store(2 * n - 1, Ordering::SeqCst);
        change(&*store, 1, complete(later(n))).await;
        steps.answered.store(2 * n - 1, Ordering::SeqCst);
        // Somebody has found it, perhaps.
        tokio::task::yield_now().await;
        steps.begun.store(2 * n, Ordering::SeqCst);
        store.remove(SlotId(1)).await.expect("removed");
        steps.answered.store(2 * n, Ordering::SeqCst);
    }
    let n_seen = join_all(readers).await;
    let n_seen: u64 = n_seen.into_iter().map(|n| n.expect("a reader ends")).sum();
    assert!(0 < n_seen, "nobody has found the file");
}

async fn watch(store: Arc<RedbSessions>, steps: Arc<Steps>) -> u64 {
    let (mut n_seen, mut last) = (0, 0);
    loop {
        let answered = steps.answered.load(Ordering::SeqCst);
        let found = served(&*store).await;
        let begun = steps.begun.load(Ordering::SeqCst);
        // The step that was seen, or the last that it may have been.
        let seen = match found {
            Some(at) => 2 * at.since(NOW).as_secs() - 1,
            None => begun - begun % 2,
        };
        let least = answered.max(last);
        assert!(
            least <= seen && seen <= begun,
            "{found:?} between {answered} and {begun}, behind {last}"
        );
        if found.is_some() {
            n_seen += 1;
            last = seen;
        }
        if answered == 2 * N_FILLS {
            return n_seen;
        }
        tokio::task::yield_now().await;
    }
}

fn in_memory() -> Stores {
    Stores {
        sessions: Arc::new(MemorySessions::new(7)),
        files: Arc::new(MemoryFiles::new(7)),
    }
}

#[tokio::test]
async fn rows_behind_a_plan_without_faults() {
    sessions(|| faulty::faulty(&in_memory(), &Plan::new()).sessions).await;
}

#[tokio::test]
async fn rows_behind_an_outage_that_does_not_come() {
    sessions(|| outage::over(&in_memory(), &Outage::new(1)).sessions).await;
}

/// Asks one kind of store everything, each time of a new one.
async fn sessions(new: impl Fn() -> Arc<dyn SessionStore>) {
    rows_come_and_go(&*new()).await;
    what_is_served_follows_the_rows(&*new()).await;
    refusals_change_nothing(&*new()).await;
    no_id_is_given_twice(&*new()).await;
    no_name_is_given_twice(&*new()).await;
    keys_stay(&*new()).await;
    usage_is_by_owner_domain_and_all(&*new()).await;
    unused_slots_give_their_bytes_back(&*new()).await;
    quotas_are_exact_at_once(&*new()).await;
    uses_are_forgotten(&*new()).await;
    what_is_due_comes_in_its_order(&*new()).await;
    the_oldest_files_come_first(&*new()).await;
    an_owners_uploads_are_listed(&*new()).await;
    an_owner_is_forgotten(&*new()).await;
    totals_follow_the_rows(&*new()).await;
    pages_follow_the_ids(&*new()).await;
    changes_at_once_are_all_made(&*new()).await;
    sessions_are_found_by_name(&*new()).await;
    owners_see_their_sessions(&*new()).await;
    open_sessions_are_counted(&*new()).await;
    open_sessions_are_exact_at_once(&*new()).await;
    bans_are_kept_until_they_are_removed(&*new()).await;
    a_path_is_used_once(&*new()).await;
    paths_are_forgotten_in_their_time(&*new()).await;
    a_path_at_once_is_one_row(&*new()).await;
}

async fn bans_are_kept_until_they_are_removed(store: &dyn SessionStore) {
    let ban = |who: &str, by: By, until: Option<u64>| Ban {
        subject: Subject::parse(who).expect("somebody"),
        at: NOW,
        until: until.map(later),
        by,
        reason: "spam, \u{e9}tc.".to_owned(),
    };
    let admin = || By::Operator(jid(ROMEO));
    let bans = [
        ban(JULIET, admin(), None),
        ban("example.com", admin(), Some(60)),
        ban("192.0.2.0/24", By::Failures, Some(5)),
        ban("2001:db8::/64", By::Failures, Some(0)),
    ];
    let kept = async || {
        let mut kept = store.bans().await.expect("an answer");
        kept.sort_by(|one, other| one.subject.cmp(&other.subject));
        kept
    };
    let put = |ban: &Ban| (ban.subject.clone(), Some(ban.clone()));
    let remove = |ban: &Ban| (ban.subject.clone(), None);
    let change = async |changes| store.keep_bans(changes).await.expect("kept");
    assert_eq!(kept().await, []);
    change(bans.iter().map(put).collect()).await;
    let mut expected = bans.to_vec();
    expected.sort_by(|one, other| one.subject.cmp(&other.subject));
    assert_eq!(kept().await, expected);
    // Another takes the place of the one before, and what is not there is removed already.
    let other = ban("example.com", By::Failures, None);
    change(vec![remove(&bans[0]), put(&other), remove(&bans[2])]).await;
    change(vec![remove(&bans[0])]).await;
    assert_eq!(kept().await, [other.clone(), bans[3].clone()]);
    // An account without a local part is not its domain, whatever its name holds.
    for name in [
        "example.com",
        "192.0.2.9",
        "\u{939}\u{93f}\u{928}\u{94d}.example",
    ] {
        let account = Ban {
            subject: Subject::Account(jid(name)),
            ..other.clone()
        };
        change(vec![put(&account)]).await;
        assert!(
            kept().await.contains(&account) && kept().await.contains(&other),
            "{name}"
        );
        change(vec![remove(&account)]).await;
    }
    assert_eq!(kept().await, [other, bans[3].clone()]);
    check_sums(store).await;
}

async fn admit(store: &dyn SessionStore, row: UploadSession) -> UploadSession {
    let admitted = store.admit(row.owner.clone(), Bucket(0), take(row)).await;
    admitted.expect("a row is admitted")
}

async fn change(store: &dyn SessionStore, id: u128, change: Change) -> UploadSession {
    let changed = store.update(SlotId(id), change).await;
    changed.expect("a row is changed")
}

async fn usage(store: &dyn SessionStore, owner: &str, since: Bucket) -> Usage {
    let seen = Arc::new(std::sync::Mutex::new(None));
    let seen_too = seen.clone();
    let look = Box::new(move |usage: &Usage| {
        *seen_too.lock().expect("not poisoned") = Some(usage.clone());
        Err(Refusal::NotAllowed)
    });
    let refused = store.admit(jid(owner), since, look).await;
    assert!(matches!(
        refused,
        Err(Failure::Refused(Refusal::NotAllowed))
    ));
    let seen = seen.lock().expect("not poisoned").take();
    seen.expect("it was asked")
}

async fn rows_come_and_go(store: &dyn SessionStore) {
    assert_eq!(store.store_id().await.expect("an id"), 7);
    assert_eq!(store.get(SlotId(1)).await.expect("an answer"), None);
    let missing = store.update(SlotId(1), complete(NOW)).await;
    assert!(matches!(
        missing,
        Err(Failure::Refused(Refusal::UnknownFile))
    ));
    let made = admit(store, row(1, ROMEO, 1000, NOW)).await;
    assert_eq!(made, row(1, ROMEO, 1000, NOW));
    assert_eq!(store.get(SlotId(1)).await.expect("an answer"), Some(made));
    let whole = change(store, 1, complete(later(5))).await;
    assert_eq!(store.get(SlotId(1)).await.expect("an answer"), Some(whole));
    for _ in 0..2 {
        store.remove(SlotId(1)).await.expect("removed already");
        assert_eq!(store.get(SlotId(1)).await.expect("an answer"), None);
    }
}

/// Since when the file of the slot 1 is complete, if it is served.
async fn served(store: &dyn SessionStore) -> Option<Timestamp> {
    let served = store.served(SlotId(1)).await.expect("an answer");
    served.map(|served| served.at())
}

async fn what_is_served_follows_the_rows(store: &dyn SessionStore) {
    for seconds in 0..3 {
        assert_eq!(served(store).await, None);
        admit(store, row(1, ROMEO, 1000, NOW)).await;
        assert_eq!(served(store).await, None);
        let whole = change(store, 1, complete(later(seconds))).await;
        for _ in 0..2 {
            assert_eq!(served(store).await, Some(later(seconds)));
            let found = store.served(SlotId(1)).await.expect("an answer");
            assert_eq!(found.as_deref(), Served::of(&whole).as_ref());
        }
        let shorter = Box::new(move |row| {
            Ok(UploadSession {
                keep_until: Some(later(seconds + 1)),
                ..row
            })
        });
        let shorter = change(store, 1, shorter).await;
        let found = store.served(SlotId(1)).await.expect("an answer");
        assert_eq!(found.as_deref(), Served::of(&shorter).as_ref());
        store.remove(SlotId(1)).await.expect("removed");
    }
    assert_eq!(served(store).await, None);
}

async fn refusals_change_nothing(store: &dyn SessionStore) {
    let full = within(999, row(1, ROMEO, 1000, NOW));
    let refused = store.admit(jid(ROMEO), Bucket(0), full).await;
    assert!(matches!(
        refused,
        Err(Failure::Refused(Refusal::QuotaReached { .. }))
    ));
    assert_eq!(store.get(SlotId(1)).await.expect("an answer"), None);
    let before = admit(store, row(1, ROMEO, 1000, NOW)).await;
    let refused = store
        .update(SlotId(1), Box::new(|_| Err(Refusal::Gone)))
        .await;
    assert!(matches!(refused, Err(Failure::Refused(Refusal::Gone))));
    assert_eq!(store.get(SlotId(1)).await.expect("an answer"), Some(before));
    check_sums(store).await;
}

async fn no_id_is_given_twice(store: &dyn SessionStore) {
    let first = admit(store, row(1, ROMEO, 1000, NOW)).await;
    let again = store
        .admit(jid(JULIET), Bucket(0), take(row(1, JULIET, 5, NOW)))
        .await;
    assert!(matches!(
        again,
        Err(Failure::Broken(StoreError::Corrupt(_)))
    ));
    assert_eq!(store.get(SlotId(1)).await.expect("an answer"), Some(first));
    assert_eq!(usage(store, JULIET, Bucket(0)).await.requester, Uses::new());
}

/// Another system's path with the id 1, forgotten `forget_at`.
fn path(forget_at: Option<Timestamp>) -> UsedPath {
    let id = SlotId(1);
    UsedPath { id, forget_at }
}

async fn admit_path(
    store: &dyn SessionStore,
    path: UsedPath,
    row: UploadSession,
) -> Result<UploadSession, Failure> {
    let owner = row.owner.clone();
    store.admit_path(path, owner, Bucket(0), take(row)).await
}

async fn a_path_is_used_once(store: &dyn SessionStore) {
    let refused = store.admit_path(
        path(None),
        jid(ROMEO),
        Bucket(0),
        within(999, row(1, ROMEO, 1000, NOW)),
    );
    assert!(matches!(
        refused.await,
        Err(Failure::Refused(Refusal::QuotaReached { .. }))
    ));
    let other = admit_path(store, path(None), row(2, ROMEO, 1000, NOW)).await;
    assert!(matches!(
        other,
        Err(Failure::Broken(StoreError::Corrupt(_)))
    ));
    assert_eq!(store.get(SlotId(2)).await.expect("an answer"), None);
    // Neither of them has used it.
    let first = admit_path(store, path(None), row(1, ROMEO, 1000, NOW)).await;
    assert_eq!(first.expect("admitted"), row(1, ROMEO, 1000, NOW));
    let whole = change(store, 1, complete(later(5))).await;
    let again = admit_path(store, path(None), row(1, JULIET, 5, NOW)).await;
    assert_eq!(again.expect("the row it has"), whole);
    check_sums(store).await;
    store.remove(SlotId(1)).await.expect("removed");
    let refilled = admit_path(store, path(None), row(1, ROMEO, 1000, NOW)).await;
    assert!(matches!(refilled, Err(Failure::Refused(Refusal::Gone))));
    assert_eq!(store.get(SlotId(1)).await.expect("an answer"), None);
}

async fn paths_are_forgotten_in_their_time(store: &dyn SessionStore) {
    let is_used = async |id: u128| {
        let id = SlotId(id);
        let refuse: Box<_> = Box::new(|_: &Usage| Err(Refusal::NotAllowed));
        let used = UsedPath {
            id,
            forget_at: None,
        };
        let asked = store.admit_path(used, jid(ROMEO), Bucket(0), refuse).await;
        matches!(asked, Err(Failure::Refused(Refusal::Gone)))
    };
    for (id, forget_at) in [(1, Some(later(10))), (2, None), (3, Some(later(20)))] {
        let used = UsedPath {
            id: SlotId(id),
            forget_at,
        };
        let row = row(id, ROMEO, 1000, NOW);
        admit_path(store, used, row).await.expect("admitted");
        store.remove(SlotId(id)).await.expect("removed");
    }
    for (seconds, used) in [
        (9, [true, true, true]),
        (10, [false, true, true]),
        (19, [false, true, true]),
        (86_400, [false, true, false]),
    ] {
        store.forget_paths(later(seconds)).await.expect("forgotten");
        let found = [is_used(1).await, is_used(2).await, is_used(3).await];
        assert_eq!(found, used, "after {seconds} s");
    }
}

/// Two first requests for a path: one makes the row, the other finds it.
async fn a_path_at_once_is_one_row(store: &dyn SessionStore) {
    let sizes = 1..=20;
    let admitted =
        join_all(sizes.map(|size| admit_path(store, path(None), row(1, ROMEO, size, NOW))));
    let rows = admitted.await.into_iter().map(|row| row.expect("a row"));
    let mut rows: Vec<_> = rows.collect();
    rows.dedup();
    assert_eq!(rows.len(), 1);
    assert_eq!(store.totals().await.expect("totals").n_rows, 1);
}

async fn usage_is_by_owner_domain_and_all(store: &dyn SessionStore) {
    let of = |hours: u64| later(hours * HOUR);
    for (id, owner, size_bytes, hours) in [
        (1, ROMEO, 10, 0),
        (2, ROMEO, 20, 0),
        (3, ROMEO, 40, 2),
        (4, JULIET, 80, 2),
        (5, NURSE, 160, 3),
        (6, "romeo@example.org.evil", 320, 3),
    ] {
        admit(store, row(id, owner, size_bytes, of(hours))).await;
    }
    let at = |hours: u64| Bucket(hour().0 + hours);
    let seen = usage(store, ROMEO, at(0)).await;
    assert_eq!(seen.requester, [(at(0), 30), (at(2), 40)]);
    assert_eq!(seen.domain, [(at(0), 30), (at(2), 120)]);
    assert_eq!(seen.total, [(at(0), 30), (at(2), 120), (at(3), 480)]);
    let seen = usage(store, ROMEO, at(1)).await;
    assert_eq!(seen.requester, [(at(2), 40)]);
    let seen = usage(store, "tybalt@example.org", at(3)).await;
    assert_eq!((seen.requester, seen.domain), (Uses::new(), Uses::new()));
    assert_eq!(seen.total, [(at(3), 480)]);
}

async fn unused_slots_give_their_bytes_back(store: &dyn SessionStore) {
    for id in 1..=3 {
        admit(store, row(id, ROMEO, 100, NOW)).await;
    }
    admit(store, announced(4, ROMEO, 100, NOW)).await;
    let used = async || -> u64 {
        let uses = usage(store, ROMEO, Bucket(0)).await.requester;
        uses.iter().map(|(_, n_bytes)| n_bytes).sum()
    };
    assert_eq!(used().await, 400);
    change(store, 1, Box::new(|row| Ok(row.expire()))).await;
    assert_eq!(used().await, 300);
    // A tombstone has nothing left to give back.
    store.remove(SlotId(1)).await.expect("removed");
    assert_eq!(used().await, 300);
    store.remove(SlotId(2)).await.expect("removed");
    assert_eq!(used().await, 200);
    // In the hour of the slot, whenever its file was complete or removed.
    change(store, 3, complete(later(60))).await;
    assert_eq!(used().await, 200);
    store.remove(SlotId(3)).await.expect("removed");
    assert_eq!(used().await, 200);
    change(store, 4, Box::new(|row| row.cancel(&jid(ROMEO), NOW))).await;
    let seen = usage(store, ROMEO, Bucket(0)).await;
    assert_eq!(seen.requester, [(hour(), 100)]);
    assert_eq!(
        (&seen.domain, &seen.total),
        (&seen.requester, &seen.requester)
    );
    check_sums(store).await;
}

async fn quotas_are_exact_at_once(store: &dyn SessionStore) {
    for round in 0..4u128 {
        let owner = format!("user{round}@example.org");
        let ask = |n: u128| {
            let asked = within(100, row(round * 100 + n, &owner, 10, NOW));
            store.admit(jid(&owner), Bucket(0), asked)
        };
        let answers = join_all((0..50).map(ask)).await;
        let n_admitted = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(n_admitted, 10);
    }
}

async fn uses_are_forgotten(store: &dyn SessionStore) {
    admit(store, row(1, ROMEO, 10, NOW)).await;
    admit(store, row(2, ROMEO, 20, later(HOUR))).await;
    admit(store, row(3, ROMEO, 40, later(2 * HOUR))).await;
    let next = Bucket(hour().0 + 1);
    for _ in 0..2 {
        store.forget_uses(next).await.expect("forgotten");
        let seen = usage(store, ROMEO, Bucket(0)).await;
        let left = [(next, 20), (Bucket(next.0 + 1), 40)];
        assert_eq!(
            (&seen.requester[..], &seen.total[..]),
            (&left[..], &left[..])
        );
    }
    // What is forgotten stays so, whatever happens to its rows.
    change(store, 1, Box::new(|row| Ok(row.expire()))).await;
    store.remove(SlotId(1)).await.expect("removed");
    admit(store, row(4, ROMEO, 80, NOW)).await;
    store.forget_uses(Bucket(0)).await.expect("nothing to do");
    let seen = usage(store, ROMEO, Bucket(0)).await;
    assert_eq!(seen.requester.first(), Some(&(next, 20)));
    check_sums(store).await;
}

async fn what_is_due_comes_in_its_order(store: &dyn SessionStore) {
    let ids = |ids: &[u128]| ids.iter().map(|id| SlotId(*id)).collect::<Vec<_>>();
    let due = async |now, n_max| store.due(now, n_max).await.expect("an answer");
    for (id, seconds) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
        admit(store, row(id, ROMEO, 1, later(seconds))).await;
    }
    // A file that is kept for ever is never due.
    admit(store, row_for(5, ROMEO, 1, NOW, Purpose::Permanent)).await;
    change(store, 5, complete(NOW)).await;
    let due_at = |seconds: u64| later(seconds + 301);
    assert_eq!(due(later(310), 9).await, ids(&[]));
    assert_eq!(due(due_at(10), 9).await, ids(&[2, 4]));
    assert_eq!(due(Timestamp(u64::MAX), 9).await, ids(&[2, 4, 3, 1]));
    assert_eq!(due(Timestamp(u64::MAX), 2).await, ids(&[2, 4]));
    // A change of state changes the time; a removal ends it.
    change(store, 2, complete(later(15))).await;
    store.remove(SlotId(4)).await.expect("removed");
    assert_eq!(due(due_at(30), 9).await, ids(&[3, 1]));
    let kept_until = later(15).plus(KEEP_FOR);
    assert_eq!(
        due(kept_until.minus(Duration::from_secs(1)), 9).await,
        ids(&[3, 1])
    );
    assert_eq!(due(kept_until, 9).await, ids(&[3, 1, 2]));
}

async fn the_oldest_files_come_first(store: &dyn SessionStore) {
    let ids = |ids: &[u128]| ids.iter().map(|id| SlotId(*id)).collect::<Vec<_>>();
    for (id, seconds) in [(1, 30), (2, 10), (3, 20), (4, 5)] {
        admit(store, row(id, ROMEO, 1, NOW)).await;
        if id != 4 {
            change(store, id, complete(later(seconds))).await;
        }
    }
    assert_eq!(store.oldest(9).await.expect("an answer"), ids(&[2, 3, 1]));
    assert_eq!(store.oldest(1).await.expect("an answer"), ids(&[2]));
    store.remove(SlotId(2)).await.expect("removed");
    assert_eq!(store.oldest(9).await.expect("an answer"), ids(&[3, 1]));
    assert_eq!(store.newest(9).await.expect("an answer"), ids(&[1, 3]));
    assert_eq!(store.newest(1).await.expect("an answer"), ids(&[1]));
}

/// Of any state, with a name or without.
async fn an_owners_uploads_are_listed(store: &dyn SessionStore) {
    let of = async |owner: &str, n_max| {
        let ids = store.uploads_of(jid(owner), n_max).await;
        let ids = ids.expect("an answer").into_iter().map(|id| id.0);
        ids.collect::<Vec<_>>()
    };
    assert_eq!(of(ROMEO, 9).await, [0; 0]);
    admit(store, row(1, ROMEO, 1, later(10))).await;
    admit(store, announced(2, ROMEO, 1, later(20))).await;
    admit(store, row(3, ROMEO, 1, later(20))).await;
    admit(store, announced(4, ROMEO, 1, NOW)).await;
    admit(store, row(5, JULIET, 1, NOW)).await;
    change(store, 1, complete(later(30))).await;
    change(store, 4, Box::new(|row| Ok(row.expire()))).await;
    assert_eq!(of(ROMEO, 9).await, [3, 2, 1, 4]);
    assert_eq!(of(ROMEO, 3).await, [3, 2, 1]);
    assert_eq!(of(JULIET, 9).await, [5]);
    store.remove(SlotId(2)).await.expect("removed");
    assert_eq!(of(ROMEO, 9).await, [3, 1, 4]);
    check_sums(store).await;
}

/// What is left is what is there; others' sums are as they were.
async fn an_owner_is_forgotten(store: &dyn SessionStore) {
    let used = async |owner: &str| {
        let told = store.usage(jid(owner), Bucket(0)).await.expect("an answer");
        assert_eq!(told, usage(store, owner, Bucket(0)).await);
        let sum = |uses: &Uses| uses.iter().map(|(_, n_bytes)| n_bytes).sum::<u64>();
        (sum(&told.requester), sum(&told.domain), sum(&told.total))
    };
    admit(store, row(1, ROMEO, 100, NOW)).await;
    admit(store, row(2, ROMEO, 10, later(7200))).await;
    admit(store, row(3, NURSE, 1, NOW)).await;
    for (id, at) in [(1, NOW), (2, later(7200)), (3, NOW)] {
        change(store, id, complete(at)).await;
    }
    store.remove(SlotId(1)).await.expect("removed");
    store.remove(SlotId(3)).await.expect("removed");
    let before = used(NURSE).await;
    assert_eq!(used(ROMEO).await.0, 110);
    store.forget_owner(jid(ROMEO)).await.expect("forgotten");
    assert_eq!(used(ROMEO).await.0, 10);
    let after = used(NURSE).await;
    assert_eq!(after, (before.0, after.1, before.2 - 100));
    store.remove(SlotId(2)).await.expect("removed");
    store.forget_owner(jid(ROMEO)).await.expect("forgotten");
    assert_eq!(used(ROMEO).await.0, 0);
    store
        .forget_owner(jid("nobody@example.org"))
        .await
        .expect("nothing to do");
    check_sums(store).await;
}

async fn totals_follow_the_rows(store: &dyn SessionStore) {
    let totals = async || {
        let totals = store.totals().await.expect("an answer");
        (totals.n_rows, totals.n_files, totals.stored_bytes)
    };
    assert_eq!(totals().await, (0, 0, 0));
    for id in 1..=3 {
        admit(store, row(id, ROMEO, 100, NOW)).await;
    }
    assert_eq!(totals().await, (3, 0, 0));
    change(store, 1, complete(NOW)).await;
    change(store, 2, complete(NOW)).await;
    assert_eq!(totals().await, (3, 2, 200));
    change(store, 3, Box::new(|row| Ok(row.expire()))).await;
    store.remove(SlotId(1)).await.expect("removed");
    assert_eq!(totals().await, (2, 1, 100));
    check_sums(store).await;
}

async fn pages_follow_the_ids(store: &dyn SessionStore) {
    assert_eq!(store.page(None, 9).await.expect("a page"), []);
    let ids = [0, 5, 3, u128::MAX, u128::MAX - 1];
    for id in ids {
        admit(store, row(id, ROMEO, 1, NOW)).await;
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.page(after, 2).await.expect("a page");
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen.extend(page.iter().map(|row| row.id.0));
    }
    assert_eq!(seen, [0, 3, 5, u128::MAX - 1, u128::MAX]);
}

async fn changes_at_once_are_all_made(store: &dyn SessionStore) {
    admit(store, row(1, ROMEO, 1000, NOW)).await;
    let once = |_| {
        let more: Change = Box::new(|mut row| {
            row.prefix.1 += 1;
            Ok(row)
        });
        store.update(SlotId(1), more)
    };
    let made = join_all((0..64).map(once)).await;
    assert!(made.iter().all(Result::is_ok));
    let row = store.get(SlotId(1)).await.expect("an answer");
    assert_eq!(row.expect("a row").prefix.1, 64);
}

async fn no_name_is_given_twice(store: &dyn SessionStore) {
    let first = admit(store, announced(1, ROMEO, 1000, NOW)).await;
    let again = row(2, JULIET, 5, NOW).announced(name(1), None);
    let again = store.admit(jid(JULIET), Bucket(0), take(again)).await;
    assert!(matches!(
        again,
        Err(Failure::Broken(StoreError::Corrupt(_)))
    ));
    assert_eq!(store.get(SlotId(2)).await.expect("an answer"), None);
    admit(store, row(3, ROMEO, 5, NOW)).await;
    let take_name: Change = Box::new(|row| Ok(row.announced(name(1), None)));
    let taken = store.update(SlotId(3), take_name).await;
    assert!(matches!(
        taken,
        Err(Failure::Broken(StoreError::Corrupt(_)))
    ));
    let found = store.find_session(name(1)).await.expect("an answer");
    assert_eq!(found, Some(SlotId(1)));
    assert_eq!(owned(store, ROMEO, 9).await, [1]);
    assert_eq!(owned(store, JULIET, 9).await, [0; 0]);
    assert_eq!(store.get(SlotId(1)).await.expect("an answer"), Some(first));
    check_sums(store).await;
}

async fn keys_stay(store: &dyn SessionStore) {
    let before = admit(store, announced(1, ROMEO, 1000, NOW)).await;
    let changes: [fn(&mut UploadSession); 3] = [
        |row| row.id = SlotId(2),
        |row| row.owner = jid(JULIET),
        |row| row.created_at = later(1),
    ];
    for change in changes {
        let change: Change = Box::new(move |mut row| {
            change(&mut row);
            Ok(row)
        });
        let changed = store.update(SlotId(1), change).await;
        assert!(matches!(
            changed,
            Err(Failure::Broken(StoreError::Corrupt(_)))
        ));
    }
    assert_eq!(store.get(SlotId(1)).await.expect("an answer"), Some(before));
    assert_eq!(store.get(SlotId(2)).await.expect("an answer"), None);
    check_sums(store).await;
}

async fn sessions_are_found_by_name(store: &dyn SessionStore) {
    let find = async |id: u128| store.find_session(name(id)).await.expect("an answer");
    assert_eq!(find(1).await, None);
    admit(store, announced(1, ROMEO, 1000, NOW)).await;
    admit(store, announced(2, JULIET, 1000, NOW)).await;
    admit(store, row(3, ROMEO, 1000, NOW)).await;
    assert_eq!(find(1).await, Some(SlotId(1)));
    assert_eq!(find(2).await, Some(SlotId(2)));
    // A slot's id is no name, and a slot without a name has none.
    let by_slot = store.find_session(SessionId(1)).await;
    assert_eq!(by_slot.expect("an answer"), None);
    assert_eq!(find(3).await, None);
    // However it ends, its owner is told, until the row goes.
    change(store, 1, complete(later(5))).await;
    change(store, 2, Box::new(|row| Ok(row.expire()))).await;
    assert_eq!(
        (find(1).await, find(2).await),
        (Some(SlotId(1)), Some(SlotId(2)))
    );
    for _ in 0..2 {
        store.remove(SlotId(1)).await.expect("removed");
        assert_eq!(find(1).await, None);
    }
    // What was agreed on decides, also where it changes.
    change(store, 3, agree(Agreement::Session(name(3)))).await;
    assert_eq!(find(3).await, Some(SlotId(3)));
    change(store, 3, agree(Agreement::Session(name(4)))).await;
    assert_eq!((find(3).await, find(4).await), (None, Some(SlotId(3))));
    change(store, 3, agree(Agreement::Resumable)).await;
    assert_eq!(find(4).await, None);
    assert_eq!(owned(store, ROMEO, 9).await, [0; 0]);
    check_sums(store).await;
}

fn agree(agreement: Agreement) -> Change {
    Box::new(move |mut row| {
        row.agreement = agreement;
        Ok(row)
    })
}

/// The ids of what `owner` is shown.
async fn owned(store: &dyn SessionStore, owner: &str, n_max: usize) -> Vec<u128> {
    let owned = store.owned(jid(owner), n_max).await.expect("an answer");
    for row in &owned {
        let kept = store.get(row.id).await.expect("an answer");
        assert_eq!(kept.as_ref(), Some(row));
    }
    owned.iter().map(|row| row.id.0).collect()
}

async fn owners_see_their_sessions(store: &dyn SessionStore) {
    assert_eq!(owned(store, ROMEO, 9).await, [0; 0]);
    for (id, owner, seconds) in [
        (7, ROMEO, 20),
        (2, ROMEO, 30),
        (5, JULIET, 40),
        (9, ROMEO, 20),
        (u128::MAX, ROMEO, 0),
        (0, ROMEO, 0),
        (8, ROMEO, 20),
        (4, "romeo@example.org.evil", 50),
        (6, "rome@example.org", 50),
    ] {
        admit(store, announced(id, owner, 10, later(seconds))).await;
    }
    admit(store, row(3, ROMEO, 10, later(60))).await;
    let all = [2, 9, 8, 7, u128::MAX, 0];
    for n_max in 0..=7 {
        let shown = owned(store, ROMEO, n_max).await;
        assert_eq!(shown, all[..n_max.min(all.len())]);
    }
    assert_eq!(owned(store, JULIET, 9).await, [5]);
    assert_eq!(owned(store, NURSE, 9).await, [0; 0]);
    // Their place does not depend on how far they are.
    change(store, 9, complete(later(90))).await;
    change(store, 2, Box::new(|row| Ok(row.expire()))).await;
    assert_eq!(owned(store, ROMEO, 9).await, all);
    store.remove(SlotId(9)).await.expect("removed");
    store.remove(SlotId(0)).await.expect("removed");
    assert_eq!(owned(store, ROMEO, 9).await, [2, 8, 7, u128::MAX]);
    check_sums(store).await;
}

async fn open_sessions_are_counted(store: &dyn SessionStore) {
    let n_open = async |owner| usage(store, owner, Bucket(0)).await.n_open_sessions;
    assert_eq!(n_open(ROMEO).await, 0);
    for id in 1..=6 {
        admit(store, announced(id, ROMEO, 10, NOW)).await;
    }
    // Nor plain slots, nor others'.
    admit(store, row(7, ROMEO, 10, NOW)).await;
    admit(store, announced(8, JULIET, 10, NOW)).await;
    admit(store, announced(9, "romeo@example.org.evil", 10, NOW)).await;
    assert_eq!((n_open(ROMEO).await, n_open(JULIET).await), (6, 1));
    let begin: Change = Box::new(|row| {
        let claims = row.put_claims();
        row.begin(&claims, NOW)
    });
    change(store, 1, begin).await;
    assert_eq!(n_open(ROMEO).await, 6);
    change(store, 1, complete(later(5))).await;
    assert_eq!(n_open(ROMEO).await, 5);
    change(store, 2, Box::new(|row| row.cancel(&jid(ROMEO), NOW))).await;
    assert_eq!(n_open(ROMEO).await, 4);
    change(store, 3, Box::new(|row| Ok(row.expire()))).await;
    assert_eq!(n_open(ROMEO).await, 3);
    let reject: Change = Box::new(|row| {
        let claims = row.put_claims();
        let row = row.begin(&claims, NOW)?;
        row.reject(0, (part(4, 0), 10), FailReason::DigestMismatch, NOW)
    });
    change(store, 4, reject).await;
    assert_eq!(n_open(ROMEO).await, 2);
    store.remove(SlotId(5)).await.expect("removed");
    assert_eq!(n_open(ROMEO).await, 1);
    // What was counted out is not counted out twice.
    for id in 1..=4 {
        store.remove(SlotId(id)).await.expect("removed");
    }
    assert_eq!(n_open(ROMEO).await, 1);
    change(store, 6, agree(Agreement::Slot)).await;
    assert_eq!((n_open(ROMEO).await, n_open(JULIET).await), (0, 1));
    for id in 100..100 + OPEN_SESSIONS_MAX as u128 + 5 {
        admit(store, announced(id, NURSE, 1, NOW)).await;
    }
    assert_eq!(n_open(NURSE).await, OPEN_SESSIONS_MAX);
    check_sums(store).await;
}

async fn open_sessions_are_exact_at_once(store: &dyn SessionStore) {
    for round in 0..4u128 {
        let owner = format!("user{round}@example.org");
        let ask = |n: u128| {
            let asked = announced(round * 100 + n, &owner, 10, NOW);
            let decide = Box::new(move |usage: &Usage| match usage.n_open_sessions < 5 {
                true => Ok(asked.clone()),
                false => Err(Refusal::NotAllowed),
            });
            store.admit(jid(&owner), Bucket(0), decide)
        };
        let answers = join_all((0..50).map(ask)).await;
        let n_admitted = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(n_admitted, 5);
        assert_eq!(owned(store, &owner, 50).await.len(), 5);
    }
    check_sums(store).await;
}

async fn check_sums(store: &dyn SessionStore) {
    let recount = store.recount(Mend::No).await.expect("an answer");
    assert_eq!(recount.wrong, Vec::<String>::new());
}

#[tokio::test]
async fn files_in_memory() {
    files(|| Arc::new(MemoryFiles::new(7))).await;
}

#[tokio::test]
async fn files_in_a_directory() {
    in_a_directory(dir(), Durability::Full).await;
}

#[tokio::test]
async fn files_in_a_directory_without_syncs_of_names() {
    in_a_directory(memory_dir(), Durability::Data).await;
}

#[tokio::test]
async fn files_in_a_directory_without_syncs() {
    in_a_directory(memory_dir(), Durability::None).await;
}

/// Another kind of file system, where there is one: faster, and without some of the disk's calls.
fn memory_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| dir())
}

async fn in_a_directory(dir: tempfile::TempDir, durability: Durability) {
    let n_stores = AtomicU64::new(0);
    files(|| {
        let n = n_stores.fetch_add(1, Ordering::Relaxed);
        let path = dir.path().join(n.to_string());
        std::fs::create_dir(&path).expect("made");
        std::fs::write(path.join("store-id"), format!("{:032x}\n", 7)).expect("written");
        Arc::new(LocalFiles::open(&path, durability).expect("a directory that is ours"))
    })
    .await;
}

#[tokio::test]
async fn files_behind_a_plan_without_faults() {
    files(|| faulty::faulty(&in_memory(), &Plan::new()).files).await;
}

#[tokio::test]
async fn files_behind_an_outage_that_does_not_come() {
    files(|| outage::over(&in_memory(), &Outage::new(1)).files).await;
}

/// Asks one kind of store everything, each time of a new one.
async fn files(new: impl Fn() -> Arc<dyn FileStore>) {
    files_come_and_go(&*new()).await;
    a_part_goes_on_where_it_is_cut(&*new()).await;
    an_upload_goes_on_in_the_same_part(&*new()).await;
    a_body_that_breaks_off_leaves_what_came(&*new()).await;
    a_writer_that_is_refused_stops(&*new()).await;
    progress_never_runs_ahead(&*new()).await;
    attempts_are_apart(&*new()).await;
    a_file_is_never_replaced(&*new()).await;
    a_small_file_is_kept_in_one_go(&*new()).await;
    a_commit_needs_the_whole_part(&*new()).await;
    what_was_not_told_becomes_a_part_again(&*new()).await;
    ranges_are_exact(&*new()).await;
    a_parts_first_bytes_are_exact(&*new()).await;
    removals_can_be_repeated(&*new()).await;
    listings_follow_the_ids(&*new()).await;
    a_dropped_upload_can_be_settled(&*new()).await;
}

fn body(pieces: &[&'static [u8]]) -> Body {
    let pieces: Vec<_> = pieces
        .iter()
        .map(|piece| Ok(Bytes::from_static(piece)))
        .collect();
    stream::iter(pieces).boxed()
}

fn broken_off(pieces: &[&'static [u8]]) -> Body {
    let end = stream::iter([Err(BodyError), Ok(Bytes::from_static(b"never"))]);
    body(pieces).chain(end).boxed()
}

fn go_on() -> Progress {
    Arc::new(|_| async { Ok(()) }.boxed())
}

async fn append(store: &dyn FileStore, part: PartId, from: u64, size: u64, body: Body) -> u64 {
    let appended = store.append(part, from, size, body, go_on()).await;
    appended.expect("bytes are appended")
}

async fn read(store: &dyn FileStore, id: u128, range: std::ops::Range<u64>) -> Vec<u8> {
    let content = store.open(SlotId(id), range).await.expect("an open file");
    let mut body = content.into_body();
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece.expect("a piece"));
    }
    bytes
}

async fn read_part(store: &dyn FileStore, part: PartId, n_bytes: u64) -> Vec<u8> {
    let opened = store.open_part(part, n_bytes).await;
    let pieces = opened.expect("an open part");
    let pieces: Vec<_> = pieces.map(|piece| piece.expect("a piece")).collect().await;
    pieces.concat()
}

async fn files_come_and_go(store: &dyn FileStore) {
    assert_eq!(store.store_id().await.expect("an id"), 7);
    let free = store.room().await.expect("an answer");
    assert!(0 < free.bytes && 0 < free.inodes);
    let missing = store.open(SlotId(1), 0..1).await;
    assert!(matches!(missing.err(), Some(StoreError::Corrupt(_))));
    assert_eq!(store.find(SlotId(1)).await.expect("an answer"), []);
    let length = append(store, part(1, 0), 0, 6, body(&[b"abc", b"", b"def"])).await;
    assert_eq!(length, 6);
    let found = store.find(SlotId(1)).await.expect("an answer");
    let (part, size_bytes) = (part(1, 0), 6);
    assert_eq!(found, [Stored::Part { part, size_bytes }]);
    // Nothing is served before the commit.
    assert!(store.open(SlotId(1), 0..6).await.is_err());
    store.commit(part, 6).await.expect("committed");
    let id = SlotId(1);
    let found = store.find(id).await.expect("an answer");
    assert_eq!(found, [Stored::File { id, size_bytes }]);
    assert_eq!(read(store, 1, 0..6).await, b"abcdef");
}

async fn a_part_goes_on_where_it_is_cut(store: &dyn FileStore) {
    let part = part(1, 3);
    assert_eq!(append(store, part, 0, 9, body(&[b"abcdef"])).await, 6);
    // Cut back to 4: what stood there is gone.
    assert_eq!(append(store, part, 4, 9, body(&[b"XY"])).await, 6);
    assert_eq!(append(store, part, 6, 9, body(&[b"Z"])).await, 7);
    assert_eq!(append(store, part, 7, 9, body(&[])).await, 7);
    assert_eq!(append(store, part, 5, 9, body(&[])).await, 5);
    assert_eq!(store.settle(part).await.expect("a length"), 5);
    assert_eq!(append(store, part, 5, 9, body(&[b"1", b"2"])).await, 7);
    store.commit(part, 7).await.expect("committed");
    assert_eq!(read(store, 1, 0..7).await, b"abcdX12");
    // From 0 it begins anew; from elsewhere there must be something.
    let other = support::rows::part(2, 0);
    assert_eq!(append(store, other, 0, 9, body(&[b"abc"])).await, 3);
    assert_eq!(append(store, other, 0, 9, body(&[b"x"])).await, 1);
    for (part, from) in [(other, 2), (support::rows::part(2, 1), 1)] {
        let lost = store.append(part, from, 9, body(&[b"x"]), go_on()).await;
        assert!(matches!(lost, Err(Failure::Broken(StoreError::Corrupt(_)))));
    }
    assert_eq!(store.settle(other).await.expect("a length"), 1);
}

async fn an_upload_goes_on_in_the_same_part(store: &dyn FileStore) {
    let part = part(1, 0);
    assert_eq!(append(store, part, 0, 12, broken_off(&[b"abc"])).await, 3);
    // A network switch after each byte, and one without any.
    for (from, piece) in [(3, &b"d"[..]), (4, b"e"), (5, b"")] {
        let length = append(store, part, from, 12, broken_off(&[piece])).await;
        assert_eq!(length, from + piece.len() as u64);
        assert_eq!(store.settle(part).await.expect("a length"), length);
    }
    // Bytes with a wrong checksum are taken off again, and the right ones come.
    assert_eq!(append(store, part, 5, 12, body(&[b"WRONG"])).await, 10);
    assert_eq!(append(store, part, 5, 12, body(&[])).await, 5);
    assert_eq!(store.settle(part).await.expect("a length"), 5);
    assert_eq!(read_part(store, part, 5).await, b"abcde");
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let telling = told.clone();
    let progress: Progress = Arc::new(move |offset| {
        telling.lock().expect("not poisoned").push(offset);
        async { Ok(()) }.boxed()
    });
    let rest = store.append(part, 5, 12, body(&[b"fgh", b"ijkl"]), progress);
    assert_eq!(rest.await.expect("appended"), 12);
    let told = told.lock().expect("not poisoned").clone();
    assert!(told.iter().all(|told| (5..=12).contains(told)), "{told:?}");
    // All bytes are there, and the request that says so brings none.
    assert_eq!(append(store, part, 12, 12, body(&[])).await, 12);
    store.commit(part, 12).await.expect("committed");
    assert_eq!(read(store, 1, 0..12).await, b"abcdefghijkl");
}

async fn a_body_that_breaks_off_leaves_what_came(store: &dyn FileStore) {
    let (part, size_bytes) = (part(1, 0), 4 << 20);
    let length = append(store, part, 0, size_bytes, broken_off(&[b"abc", b"d"])).await;
    assert_eq!(length, 4);
    assert_eq!(store.settle(part).await.expect("a length"), 4);
    assert_eq!(append(store, part, 4, 6, body(&[b"ef"])).await, 6);
    store.commit(part, 6).await.expect("committed");
    assert_eq!(read(store, 1, 0..6).await, b"abcdef");
}

/// A body of pieces of 1 MiB, each of one letter.
fn large(n_pieces: u8) -> Body {
    let pieces = (0..n_pieces).map(|n| Ok(Bytes::from(vec![b'a' + n; 1 << 20])));
    stream::iter(pieces).boxed()
}

async fn a_writer_that_is_refused_stops(store: &dyn FileStore) {
    let (n_told, pieces) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (told, seen) = (n_told.clone(), pieces.clone());
    let stop: Progress = Arc::new(move |offset| {
        told.store(offset, Ordering::SeqCst);
        async { Err(Failure::Refused(Refusal::TakenOver)) }.boxed()
    });
    let endless = stream::repeat_with(move || {
        seen.fetch_add(1, Ordering::SeqCst);
        Ok(Bytes::from(vec![b'x'; 1 << 20]))
    });
    let endless = endless.take(64).boxed();
    let length = store.append(part(1, 0), 0, 64 << 20, endless, stop).await;
    let length = length.expect("a refusal is no error");
    let told = n_told.load(Ordering::SeqCst);
    assert!(0 < told && told <= length, "{told} {length}");
    assert!(pieces.load(Ordering::SeqCst) < 64, "it went on to the end");
    assert_eq!(store.settle(part(1, 0)).await.expect("a length"), length);
}

async fn progress_never_runs_ahead(store: &dyn FileStore) {
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let telling = told.clone();
    let progress: Progress = Arc::new(move |offset| {
        telling.lock().expect("not poisoned").push(offset);
        async { Ok(()) }.boxed()
    });
    let size_bytes = 20 << 20;
    let length = store
        .append(part(1, 0), 0, size_bytes, large(20), progress)
        .await;
    assert_eq!(length.expect("appended"), size_bytes);
    let told = told.lock().expect("not poisoned").clone();
    assert!(!told.is_empty(), "20 MiB came without a word");
    assert!(told.is_sorted() && told.iter().all(|told| *told <= size_bytes));
    store
        .commit(part(1, 0), size_bytes)
        .await
        .expect("committed");
    let bytes = read(store, 1, 0..size_bytes).await;
    assert_eq!(bytes.len() as u64, size_bytes);
    let is_right = |(n, piece): (usize, &[u8])| piece.iter().all(|b| *b == b'a' + n as u8);
    assert!(bytes.chunks(1 << 20).enumerate().all(is_right));
}

async fn attempts_are_apart(store: &dyn FileStore) {
    let (old, new) = (part(1, 0), part(1, 1));
    let both = join(
        append(store, old, 0, 6, body(&[b"old", b"old"])),
        append(store, new, 0, 6, body(&[b"n", b"ew"])),
    );
    assert_eq!(both.await, (6, 3));
    assert_eq!(store.settle(old).await.expect("a length"), 6);
    assert_eq!(store.settle(new).await.expect("a length"), 3);
    store.remove_part(new).await.expect("removed");
    assert_eq!(store.settle(new).await.expect("a length"), 0);
    store.commit(old, 6).await.expect("committed");
    assert_eq!(read(store, 1, 0..6).await, b"oldold");
}

async fn a_file_is_never_replaced(store: &dyn FileStore) {
    append(store, part(1, 0), 0, 3, body(&[b"abc"])).await;
    append(store, part(1, 1), 0, 3, body(&[b"xyz"])).await;
    store.commit(part(1, 0), 3).await.expect("committed");
    for _ in 0..2 {
        let again = store.commit(part(1, 1), 3).await;
        assert!(matches!(again, Err(StoreError::Corrupt(_))));
        assert_eq!(read(store, 1, 0..3).await, b"abc");
    }
}

async fn a_small_file_is_kept_in_one_go(store: &dyn FileStore) {
    let id = SlotId(1);
    // What a crash leaves is of any length, and replaced.
    for bytes in [&b"longer than the file"[..], b"", b"abc"] {
        store
            .keep(id, Bytes::from_static(bytes))
            .await
            .expect("kept");
        let size_bytes = bytes.len() as u64;
        let found = store.find(id).await.expect("an answer");
        assert_eq!(found, [Stored::File { id, size_bytes }]);
        assert_eq!(read(store, 1, 0..size_bytes).await, bytes);
    }
    let bytes = Bytes::from_static(b"other");
    store.keep(SlotId(2), bytes).await.expect("kept");
    assert_eq!(read(store, 1, 0..3).await, b"abc");
    append(store, part(1, 0), 0, 3, body(&[b"xyz"])).await;
    let refused = store.commit(part(1, 0), 3).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))));
    store.remove(id).await.expect("removed");
    assert_eq!(store.find(id).await.expect("an answer"), []);
    assert_eq!(read(store, 2, 0..5).await, b"other");
}

async fn a_commit_needs_the_whole_part(store: &dyn FileStore) {
    append(store, part(1, 0), 0, 9, body(&[b"abc"])).await;
    for (part, size_bytes) in [(part(1, 0), 4), (part(1, 0), 2), (part(1, 1), 3)] {
        let refused = store.commit(part, size_bytes).await;
        assert!(matches!(refused, Err(StoreError::Corrupt(_))));
    }
    assert!(store.open(SlotId(1), 0..3).await.is_err());
    assert_eq!(store.settle(part(1, 0)).await.expect("a length"), 3);
}

async fn what_was_not_told_becomes_a_part_again(store: &dyn FileStore) {
    append(store, part(1, 2), 0, 3, body(&[b"abc"])).await;
    store.commit(part(1, 2), 3).await.expect("committed");
    for _ in 0..2 {
        assert_eq!(store.settle(part(1, 2)).await.expect("a length"), 3);
        assert!(store.open(SlotId(1), 0..3).await.is_err());
        let (part, size_bytes) = (part(1, 2), 3);
        let found = store.find(SlotId(1)).await.expect("an answer");
        assert_eq!(found, [Stored::Part { part, size_bytes }]);
    }
    // An older attempt that is still there is itself, and leaves the file alone.
    append(store, part(1, 0), 0, 3, body(&[b"x"])).await;
    store.commit(part(1, 2), 3).await.expect("committed");
    assert_eq!(store.settle(part(1, 0)).await.expect("a length"), 1);
    assert_eq!(read(store, 1, 0..3).await, b"abc");
    assert_eq!(store.settle(part(2, 0)).await.expect("a length"), 0);
    assert_eq!(store.find(SlotId(2)).await.expect("an answer"), []);
}

async fn ranges_are_exact(store: &dyn FileStore) {
    let size_bytes: u64 = (1 << 20) + 77;
    let byte = |at: u64| (at * 7 % 251) as u8;
    let bytes: Vec<u8> = (0..size_bytes).map(byte).collect();
    let whole = stream::iter([Ok(Bytes::from(bytes.clone()))]).boxed();
    append(store, part(1, 0), 0, size_bytes, whole).await;
    store
        .commit(part(1, 0), size_bytes)
        .await
        .expect("committed");
    for range in [
        0..size_bytes,
        0..1,
        size_bytes - 1..size_bytes,
        5..5,
        262_143..262_145,
        1..size_bytes - 1,
        300_000..900_001,
    ] {
        let got = read(store, 1, range.clone()).await;
        let wanted = &bytes[range.start as usize..range.end as usize];
        assert!(got == wanted, "{range:?} came as {} bytes", got.len());
    }
    let beyond = store.open(SlotId(1), 0..size_bytes + 1).await;
    assert!(matches!(beyond.err(), Some(StoreError::Corrupt(_))));
}

async fn a_parts_first_bytes_are_exact(store: &dyn FileStore) {
    let length: u64 = (1 << 20) + 77;
    let bytes: Vec<u8> = (0..length).map(|at| (at * 7 % 251) as u8).collect();
    let whole = stream::iter([Ok(Bytes::from(bytes.clone()))]).boxed();
    append(store, part(1, 3), 0, length + 9, whole).await;
    append(store, part(1, 4), 0, 9, body(&[b"other"])).await;
    for n_bytes in [0, 1, 262_143, 262_144, 262_145, length - 1, length] {
        let got = read_part(store, part(1, 3), n_bytes).await;
        let wanted = &bytes[..n_bytes as usize];
        assert!(got == wanted, "{n_bytes} came as {}", got.len());
    }
    let corrupt = async |part, n_bytes| {
        let opened = store.open_part(part, n_bytes).await;
        matches!(opened.err(), Some(StoreError::Corrupt(_)))
    };
    assert!(corrupt(part(1, 3), length + 1).await, "longer");
    assert!(corrupt(part(1, 5), 1).await, "no such attempt");
    assert!(corrupt(part(1, 5), 0).await, "no such attempt");
    assert!(corrupt(part(2, 3), 1).await, "no such slot");
    assert_eq!(append(store, part(1, 3), 5, 9, body(&[])).await, 5);
    assert!(corrupt(part(1, 3), 6).await, "cut back");
    assert!(read_part(store, part(1, 3), 5).await == bytes[..5]);
    // A file is no part any more.
    store.commit(part(1, 3), 5).await.expect("committed");
    assert!(corrupt(part(1, 3), 1).await, "committed");
    assert_eq!(read_part(store, part(1, 4), 5).await, b"other");
}

async fn removals_can_be_repeated(store: &dyn FileStore) {
    append(store, part(1, 0), 0, 3, body(&[b"abc"])).await;
    append(store, part(1, 7), 0, 3, body(&[b"ab"])).await;
    append(store, part(2, 7), 0, 3, body(&[b"ab"])).await;
    store.commit(part(1, 0), 3).await.expect("committed");
    // A reader that began before the removal gets the whole file.
    let reading = store.open(SlotId(1), 0..3).await.expect("an open file");
    for _ in 0..2 {
        store.remove(SlotId(1)).await.expect("removed already");
        assert_eq!(store.find(SlotId(1)).await.expect("an answer"), []);
        store
            .remove_part(part(1, 7))
            .await
            .expect("removed already");
    }
    let pieces: Vec<_> = reading
        .into_body()
        .map(|piece| piece.expect("a piece"))
        .collect()
        .await;
    assert_eq!(pieces.concat(), b"abc");
    assert!(store.open(SlotId(1), 0..3).await.is_err());
    assert_eq!(store.find(SlotId(2)).await.expect("an answer").len(), 1);
}

async fn listings_follow_the_ids(store: &dyn FileStore) {
    assert_eq!(store.page(None, 9).await.expect("a page"), []);
    assert_eq!(store.parts(None, 9).await.expect("a page"), []);
    let ids = [0, 1, 1 << 120, 2 << 120, 3 << 120, u128::MAX];
    for id in ids {
        append(store, part(id, 0), 0, 1, body(&[b"a"])).await;
        append(store, part(id, 300), 0, 2, body(&[b"ab"])).await;
        append(store, part(id, 20), 0, 3, body(&[b"abc"])).await;
        store.commit(part(id, 0), 1).await.expect("committed");
    }
    let all_of = |id: u128| {
        let (id, of) = (SlotId(id), |attempt, size_bytes| Stored::Part {
            part: part(id, attempt),
            size_bytes,
        });
        [Stored::File { id, size_bytes: 1 }, of(20, 3), of(300, 2)]
    };
    for n_max in [1, 2, 7, 100] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = store.page(after, n_max).await.expect("a page");
            assert!(page.len() <= n_max + 2, "{} for {n_max}", page.len());
            let Some(last) = page.last() else { break };
            after = Some(last.slot());
            seen.extend(page);
        }
        let wanted: Vec<_> = ids.into_iter().flat_map(all_of).collect();
        assert_eq!(seen, wanted, "in pages of {n_max}");
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = store.parts(after, n_max).await.expect("a page");
            assert!(page.len() <= n_max + 1, "{} for {n_max}", page.len());
            let Some((last, _)) = page.last() else { break };
            after = Some(last.slot);
            seen.extend(page);
        }
        let parts_of = |id| [(part(id, 20), 3), (part(id, 300), 2)];
        let wanted: Vec<_> = ids.into_iter().flat_map(parts_of).collect();
        assert_eq!(seen, wanted, "parts in pages of {n_max}");
    }
}

async fn a_dropped_upload_can_be_settled(store: &dyn FileStore) {
    let waiting = body(&[b"abc"]).chain(stream::pending()).boxed();
    let upload = store.append(part(1, 0), 0, 9, waiting, go_on());
    assert!(
        tokio::time::timeout(Duration::from_millis(200), upload)
            .await
            .is_err()
    );
    let length = store.settle(part(1, 0)).await.expect("a length");
    assert!(length <= 3);
    let rest = [&b"abc"[length as usize..], b"def"].concat();
    let rest = stream::iter([Ok(Bytes::from(rest))]).boxed();
    assert_eq!(append(store, part(1, 0), length, 6, rest).await, 6);
    store.commit(part(1, 0), 6).await.expect("committed");
    assert_eq!(read(store, 1, 0..6).await, b"abcdef");
}

#[tokio::test]
async fn a_plan_fails_the_call_it_names() {
    let stores = in_memory();
    let plan = Plan::new();
    let behind = faulty::faulty(&stores, &plan);
    plan.fail(1, 1, Fault::After);
    admit(&*behind.sessions, row(1, ROMEO, 1, NOW)).await;
    let lost = behind.sessions.remove(SlotId(1)).await;
    assert!(matches!(lost, Err(StoreError::Unavailable { .. })));
    assert_eq!(
        stores.sessions.totals().await.expect("sums"),
        Totals::default()
    );
    plan.fail(0, 2, Fault::NoSpace);
    let full = behind.files.settle(part(1, 0)).await;
    assert!(matches!(full, Err(StoreError::NoSpace { .. })));
    assert!(behind.sessions.get(SlotId(1)).await.is_err());
    assert!(behind.sessions.get(SlotId(1)).await.is_ok());
    plan.fail(0, u64::MAX, Fault::Before);
    assert!(behind.files.room().await.is_err());
    plan.heal();
    assert!(behind.files.room().await.is_ok());
    assert_eq!(plan.n_calls(), 7);
}

/// The calls of upload sessions fail as the others do, and a part's bytes break off like a file's.
#[tokio::test]
async fn a_plan_fails_the_calls_of_upload_sessions() {
    let stores = in_memory();
    let plan = Plan::new();
    let behind = faulty::faulty(&stores, &plan);
    admit(&*stores.sessions, announced(1, ROMEO, 9, NOW)).await;
    append(&*stores.files, part(1, 0), 0, 9, body(&[b"abc"])).await;
    plan.fail(0, 3, Fault::Before);
    assert!(behind.sessions.find_session(name(1)).await.is_err());
    assert!(behind.sessions.owned(jid(ROMEO), 9).await.is_err());
    assert!(behind.files.open_part(part(1, 0), 3).await.is_err());
    assert_eq!(owned(&*behind.sessions, ROMEO, 9).await, [1]);
    plan.fail(1, 1, Fault::Before);
    let pieces = behind.files.open_part(part(1, 0), 3).await;
    let pieces: Vec<_> = pieces.expect("an open part").collect().await;
    assert!(pieces.iter().any(Result::is_err), "{pieces:?}");
    plan.heal();
    assert_eq!(read_part(&*behind.files, part(1, 0), 3).await, b"abc");
}

#[tokio::test]
async fn an_outage_fails_the_calls_of_upload_sessions() {
    let stores = in_memory();
    let outage = Outage::new(1);
    let over = outage::over(&stores, &outage);
    admit(&*stores.sessions, announced(1, ROMEO, 9, NOW)).await;
    append(&*stores.files, part(1, 0), 0, 9, body(&[b"abc"])).await;
    outage.arm(1, outage::Trouble::Fails);
    assert!(over.sessions.find_session(name(1)).await.is_ok());
    assert!(over.sessions.owned(jid(ROMEO), 9).await.is_err());
    assert_eq!(owned(&*over.sessions, ROMEO, 9).await, [1]);
    outage.arm(1, outage::Trouble::DiesBefore);
    let pieces = over.files.open_part(part(1, 0), 3).await;
    let pieces: Vec<_> = pieces.expect("an open part").collect().await;
    assert!(pieces.iter().any(Result::is_err), "{pieces:?}");
    assert!(outage.is_dead());
    assert!(over.files.open_part(part(1, 0), 3).await.is_err());
    assert!(over.sessions.find_session(name(1)).await.is_err());
}
