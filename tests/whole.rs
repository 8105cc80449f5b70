//! A small file that comes whole: one row, one file, and nothing that a crash in between may spoil.

mod support;

use std::time::Duration;

use bytes::Bytes;
use slotd::core::refusal::Refusal;
use slotd::core::session::State;
use slotd::core::slot::Sha256;
use slotd::service::Service;
use slotd::service::sweep::Sweeper;
use slotd::store::{Body, Stored};
use support::faulty::{Fault, Plan, faulty};
use support::upload::{
    Put, SIZE, audited, broken_after, content, digest, fed, get, slot, slot_for, whole,
};
use support::world::{Bench, bench, disk_bench, settings};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

async fn put(bench: &Bench, upload: &Put, body: Body) -> Result<Sha256, Refusal> {
    let received = bench.service.receive(upload.clone().into(), body).await;
    received.map(|received| received.sha256().expect("a whole file"))
}

/// A PUT that runs while its body is fed, piece by piece.
fn begin(bench: &Bench, upload: &Put) -> (UnboundedSender<Bytes>, JoinHandle<Result<(), Refusal>>) {
    let (feed, body) = fed();
    let (service, head) = (bench.service.clone(), upload.clone());
    let running = tokio::spawn(async move { service.receive(head.into(), body).await.map(drop) });
    (feed, running)
}

async fn assert_clean(bench: &Bench) {
    let report = audited(bench).await;
    assert!(report.is_clean(), "{:?}", report.findings);
}

async fn state(bench: &Bench, upload: &Put) -> State {
    let row = bench.stores.sessions.get(upload.id).await.expect("read");
    row.expect("a row").state
}

fn with_faults(bench: Bench) -> (Bench, std::sync::Arc<Plan>) {
    let plan = Plan::new();
    let (keys, stores) = (bench.service.keys(), faulty(&bench.stores, &plan));
    let service = Service::new(settings(), keys, stores, bench.world.clone());
    (Bench { service, ..bench }, plan)
}

/// Looking the slot up before and after it is held, room, file and row: each wait costs a client
/// as much as the disk does.
#[tokio::test]
async fn a_first_put_asks_the_stores_five_times() {
    let (bench, plan) = with_faults(bench(settings()));
    let upload = slot(&bench).await;
    let before = plan.n_calls();
    put(&bench, &upload, whole(content(0))).await.expect("201");
    assert_eq!(plan.n_calls() - before, 5);
    assert_eq!(get(&bench, &upload).await, Ok(content(0)));
    assert_clean(&bench).await;
}

/// A fault at call `k` of a first PUT; whether there was one.
async fn first_put_with_fault(k: u64, fault: Fault) -> bool {
    let (bench, plan) = with_faults(bench(settings()));
    let upload = slot(&bench).await;
    let before = plan.n_calls();
    plan.fail(k, 1, fault);
    let first = put(&bench, &upload, whole(content(1))).await;
    let is_met = k < plan.n_calls() - before;
    plan.heal();
    let context = format!("{fault:?} at call {k}");
    assert_clean(&bench).await;
    match first {
        Ok(_) => assert_eq!(get(&bench, &upload).await, Ok(content(1)), "{context}"),
        Err(refusal) => {
            let is_said = matches!(refusal, Refusal::Broken | Refusal::NoSpace);
            assert!(is_said, "{context}: {refusal:?}");
            let served = get(&bench, &upload).await;
            let is_complete = matches!(state(&bench, &upload).await, State::Complete { .. });
            assert_eq!(served.is_ok(), is_complete, "{context}");
        }
    }
    let again = put(&bench, &upload, whole(content(1))).await;
    assert_eq!(again, Ok(digest(&content(1))), "{context}");
    assert_eq!(get(&bench, &upload).await, Ok(content(1)), "{context}");
    assert_clean(&bench).await;
    is_met
}

#[tokio::test]
async fn a_first_put_survives_a_fault_at_any_call() {
    for fault in [Fault::Before, Fault::After, Fault::NoSpace] {
        let mut k = 0;
        while first_put_with_fault(k, fault).await {
            k += 1;
        }
        assert_eq!(k, 5);
    }
}

/// What a crash may leave under the name of a file whose row was not written: of any length, with
/// any bytes.
fn traces() -> [Bytes; 3] {
    let half = content(9).slice(..500);
    [content(9), half, Bytes::new()]
}

/// A slot of which a process that died has left `trace`.
async fn crashed(bench: &Bench, trace: Bytes) -> Put {
    let upload = slot(bench).await;
    let files = &bench.stores.files;
    files.keep(upload.id, trace).await.expect("kept");
    assert_eq!(get(bench, &upload).await, Err(Refusal::UnknownFile));
    assert_clean(bench).await;
    upload
}

async fn check_that_traces_harm_nobody(bench: &Bench) {
    for trace in traces() {
        let upload = crashed(bench, trace.clone()).await;
        let at_once = put(bench, &upload, whole(content(1))).await;
        assert_eq!(at_once, Ok(digest(&content(1))));
        assert_eq!(get(bench, &upload).await, Ok(content(1)));

        let upload = crashed(bench, trace.clone()).await;
        let half = content(2).slice(..600);
        let broken = put(bench, &upload, broken_after(half)).await;
        assert_eq!(broken, Err(Refusal::Interrupted));
        let row = bench.stores.sessions.get(upload.id).await.expect("read");
        // What counts is what came, and nothing of the trace.
        assert_eq!(row.expect("a row").prefix.1, 600);
        let again = put(bench, &upload, whole(content(3))).await;
        assert_eq!(again, Ok(digest(&content(3))));
        assert_eq!(get(bench, &upload).await, Ok(content(3)));
        assert_clean(bench).await;
    }
}

#[tokio::test]
async fn what_a_crash_left_harms_nobody() {
    check_that_traces_harm_nobody(&bench(settings())).await;
}

#[tokio::test]
async fn what_a_crash_left_on_disk_harms_nobody() {
    let directory = tempfile::tempdir().expect("a directory");
    check_that_traces_harm_nobody(&disk_bench(settings(), directory.path())).await;
}

#[tokio::test]
async fn what_a_crash_left_goes_with_its_slot() {
    let bench = bench(settings());
    let sweeper = Sweeper::new(bench.service.clone());
    for trace in traces() {
        let upload = crashed(&bench, trace).await;
        bench.world.pass(301);
        sweeper.sweep().await;
        let stored = bench.stores.files.find(upload.id).await.expect("found");
        assert_eq!(stored, []);
        assert_clean(&bench).await;
    }
}

/// Power may be lost as well: nobody goes by the length of what has its name.
#[tokio::test]
async fn a_start_after_a_power_cut_believes_no_trace() {
    let bench = bench(settings());
    let upload = crashed(&bench, Bytes::from(vec![0; SIZE as usize])).await;
    bench.service.recover().await.expect("looked through");
    assert_eq!(get(&bench, &upload).await, Err(Refusal::UnknownFile));
    assert!(put(&bench, &upload, whole(content(1))).await.is_ok());
    assert_eq!(get(&bench, &upload).await, Ok(content(1)));
}

#[tokio::test(start_paused = true)]
async fn a_slow_sender_gets_a_row_and_gives_its_memory_back() {
    let bench = bench(settings());
    let upload = slot(&bench).await;
    let (feed, running) = begin(&bench, &upload);
    feed.send(content(4).slice(..300)).expect("being read");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(state(&bench, &upload).await, State::Uploading);
    let stored = bench.stores.files.find(upload.id).await.expect("found");
    let is_written = |stored: &Stored| {
        matches!(
            stored,
            Stored::Part {
                size_bytes: 300,
                ..
            }
        )
    };
    assert!(stored.iter().all(is_written), "{stored:?}");
    feed.send(content(4).slice(300..)).expect("being read");
    drop(feed);
    assert_eq!(running.await.expect("no panic"), Ok(()));
    assert_eq!(get(&bench, &upload).await, Ok(content(4)));
    assert_clean(&bench).await;
}

#[tokio::test]
async fn a_slot_that_ended_meanwhile_keeps_no_file() {
    let bench = bench(settings());
    let upload = slot(&bench).await;
    let (feed, running) = begin(&bench, &upload);
    feed.send(content(4).slice(..300)).expect("being read");
    tokio::task::yield_now().await;
    let end = Box::new(|row: slotd::core::session::UploadSession| Ok(row.expire()));
    let ended = bench.stores.sessions.update(upload.id, end).await;
    assert_eq!(ended.expect("changed").state, State::Expired);
    feed.send(content(4).slice(300..)).expect("being read");
    drop(feed);
    assert_eq!(running.await.expect("no panic"), Err(Refusal::Gone));
    let stored = bench.stores.files.find(upload.id).await.expect("found");
    assert_eq!(stored, []);
}

#[tokio::test]
async fn a_repeat_and_a_second_sender_meet_the_file_that_came_whole() {
    let bench = bench(settings());
    let upload = slot(&bench).await;
    put(&bench, &upload, whole(content(1))).await.expect("201");
    let repeat = put(&bench, &upload, whole(content(1))).await;
    assert_eq!(repeat, Ok(digest(&content(1))));
    let other = put(&bench, &upload, whole(content(2))).await;
    assert_eq!(other, Err(Refusal::AlreadyComplete));
    assert_eq!(get(&bench, &upload).await, Ok(content(1)));
}

/// What a large file is not held in memory for.
#[tokio::test(start_paused = true)]
async fn a_large_file_goes_the_usual_way() {
    let mut settings = settings();
    settings.policy.size_bytes_max = 4 << 20;
    let bench = bench(settings);
    let size_bytes = (1 << 20) + 1;
    let slot = slot_for(&bench.service, size_bytes).await.expect("granted");
    let upload = support::upload::put_from(&slot, size_bytes);
    let (feed, running) = begin(&bench, &upload);
    let bytes = Bytes::from(vec![7; size_bytes as usize]);
    feed.send(bytes.slice(..9)).expect("being read");
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(state(&bench, &upload).await, State::Uploading);
    feed.send(bytes.slice(9..)).expect("being read");
    drop(feed);
    assert_eq!(running.await.expect("no panic"), Ok(()));
    assert_eq!(get(&bench, &upload).await, Ok(bytes));
}

/// A stop comes while a body is gathered: what came is kept, as of any upload.
#[tokio::test]
async fn what_came_before_a_stop_is_kept() {
    let bench = bench(settings());
    let upload = slot(&bench).await;
    let (feed, running) = begin(&bench, &upload);
    feed.send(content(4).slice(..600)).expect("being read");
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.service.drain(), 1);
    bench.service.cut_uploads().await;
    assert_eq!(running.await.expect("no panic"), Err(Refusal::Stopping));
    let row = bench.stores.sessions.get(upload.id).await.expect("read");
    assert_eq!(row.expect("a row").prefix.1, 600);
}
