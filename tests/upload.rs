//! What happens to a slot, from request to removal, whatever its requests do.

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, future, stream};
use slotd::core::policy::Room;
use slotd::core::rate::Rate;
use slotd::core::refusal::Refusal;
use slotd::core::session::{State, UploadSession};
use slotd::core::slot::Sha256;
use slotd::core::time::Timestamp;
use slotd::service::Service;
use slotd::service::sweep::{Reason, Sweeper};
use slotd::store::{Body, Stored};
use support::faulty::{Fault, Plan, faulty};
use support::upload::{
    Put, SIZE, audited, broken_after, content, digest, fed, get, slot, slot_for, whole,
};
use support::world::{Bench, START, bench, settings};
use tokio::task::JoinHandle;

async fn put(bench: &Bench, upload: &Put, body: Body) -> Result<Sha256, Refusal> {
    let received = bench.service.receive(upload.clone().into(), body).await;
    received.map(|received| received.sha256().expect("a whole file"))
}

/// Waits until an upload has its part.
async fn until_begun(bench: &Bench, upload: &Put) {
    let files = &bench.stores.files;
    while files.find(upload.id).await.expect("found").is_empty() {
        tokio::task::yield_now().await;
    }
}

async fn assert_clean(bench: &Bench) {
    let report = audited(bench).await;
    assert!(report.is_clean(), "{:?}", report.findings);
}

/// A request that runs beside the test.
fn running(bench: &Bench, upload: &Put, body: Body) -> JoinHandle<Result<(), Refusal>> {
    let (service, upload) = (bench.service.clone(), upload.clone());
    tokio::spawn(async move { service.receive(upload.into(), body).await.map(|_| ()) })
}

#[tokio::test]
async fn a_file_goes_in_and_comes_out() {
    let bench = bench(settings());
    let upload = slot(&bench).await;
    assert_eq!(get(&bench, &upload).await, Err(Refusal::UnknownFile));
    let sent = content(0);
    let sha256 = put(&bench, &upload, whole(sent.clone())).await;
    assert_eq!(sha256, Ok(digest(&sent)));
    assert_eq!(get(&bench, &upload).await, Ok(sent));
    assert_clean(&bench).await;
}

#[tokio::test]
async fn a_put_can_be_repeated_on_a_broken_slot_and_on_a_finished_one() {
    let bench = bench(settings());
    let upload = slot(&bench).await;
    let (sent, other) = (content(0), content(1));
    let cut = put(&bench, &upload, broken_after(other.slice(..600))).await;
    assert_eq!(cut, Err(Refusal::Interrupted));
    assert_eq!(get(&bench, &upload).await, Err(Refusal::UnknownFile));
    let again = put(&bench, &upload, whole(sent.clone())).await;
    assert_eq!(again, Ok(digest(&sent)));
    let replay = put(&bench, &upload, whole(sent.clone())).await;
    assert_eq!(replay, Ok(digest(&sent)), "the 201 may have been lost");
    let differs = put(&bench, &upload, whole(other)).await;
    assert_eq!(differs, Err(Refusal::AlreadyComplete));
    assert_eq!(get(&bench, &upload).await, Ok(sent));
    assert_clean(&bench).await;
}

#[tokio::test]
async fn an_announced_digest_spares_the_replay_its_body() {
    let bench = bench(settings());
    let upload = slot(&bench).await;
    let sent = content(0);
    put(&bench, &upload, whole(sent.clone()))
        .await
        .expect("201");
    let announce = |sha256| Put {
        sha256: Some(sha256),
        ..upload.clone()
    };
    let silent = || -> Body { Box::pin(stream::pending()) };
    let same = put(&bench, &announce(digest(&sent)), silent()).await;
    assert_eq!(same, Ok(digest(&sent)));
    let other = put(&bench, &announce(Sha256([0; 32])), silent()).await;
    assert_eq!(other, Err(Refusal::AlreadyComplete));
}

#[tokio::test]
async fn bytes_without_the_announced_digest_are_not_published() {
    let bench = bench(settings());
    let upload = slot(&bench).await;
    let announced = Put {
        sha256: Some(Sha256([0; 32])),
        ..upload.clone()
    };
    let refused = put(&bench, &announced, whole(content(0))).await;
    assert_eq!(refused, Err(Refusal::DigestMismatch));
    assert_eq!(get(&bench, &upload).await, Err(Refusal::UnknownFile));
    assert!(put(&bench, &upload, whole(content(0))).await.is_ok());
    assert_clean(&bench).await;
}

#[tokio::test]
async fn chunked_bodies_must_have_the_slots_size() {
    let bench = bench(settings());
    let upload = Put {
        length: None,
        ..slot(&bench).await
    };
    let short = put(&bench, &upload, whole(content(0).slice(..999))).await;
    assert_eq!(short, Err(Refusal::TooShort));
    let endless = stream::repeat(Ok(content(0).slice(..300)));
    let long = put(&bench, &upload, Box::pin(endless)).await;
    assert_eq!(long, Err(Refusal::TooLong));
    assert_eq!(get(&bench, &upload).await, Err(Refusal::UnknownFile));
    assert!(put(&bench, &upload, whole(content(0))).await.is_ok());
    assert_clean(&bench).await;
}

#[tokio::test]
async fn heads_that_cannot_fit_leave_the_slot_alone() {
    let bench = bench(settings());
    let upload = slot(&bench).await;
    let with_length = |length| Put {
        length: Some(length),
        ..upload.clone()
    };
    let refused = |upload: Put| {
        let service = bench.service.clone();
        async move {
            // A body that must not be polled: a poll would be a `100 Continue`.
            let body: Body = Box::pin(stream::poll_fn(|_| panic!("polled")));
            service.receive(upload.into(), body).await.map(|_| ()).err()
        }
    };
    assert_eq!(refused(with_length(999)).await, Some(Refusal::TooShort));
    assert_eq!(refused(with_length(0)).await, Some(Refusal::TooShort));
    assert_eq!(refused(with_length(1001)).await, Some(Refusal::TooLong));
    let renamed = Put {
        name: "a.html".to_owned(),
        ..upload.clone()
    };
    assert_eq!(refused(renamed).await, Some(Refusal::TokenForOther));
    let other = slot(&bench).await;
    let swapped = Put {
        token: other.token,
        ..upload.clone()
    };
    assert_eq!(refused(swapped).await, Some(Refusal::TokenForOther));
    let bad = Put {
        token: "v1.x.y".to_owned(),
        ..upload.clone()
    };
    assert_eq!(refused(bad).await, Some(Refusal::TokenInvalid));
    assert!(put(&bench, &upload, whole(content(0))).await.is_ok());
}

#[tokio::test]
async fn the_newest_request_wins_at_once() {
    let bench = bench(settings());
    let upload = slot(&bench).await;
    let (feed, body) = fed();
    let first = running(&bench, &upload, body);
    feed.send(content(9).slice(..700)).expect("being read");
    until_begun(&bench, &upload).await;
    // The first connection is half dead: it neither sends nor ends.
    let second = put(&bench, &upload, whole(content(0))).await;
    assert_eq!(second, Ok(digest(&content(0))));
    assert_eq!(first.await.expect("no panic"), Err(Refusal::TakenOver));
    // What it sends too late goes nowhere.
    let _ = feed.send(content(9).slice(..300));
    assert_eq!(get(&bench, &upload).await, Ok(content(0)));
    assert_clean(&bench).await;
}

#[tokio::test]
async fn races_of_puts_store_just_one_body() {
    for n_racers in 2..=8u8 {
        let bench = bench(settings());
        let upload = slot(&bench).await;
        let racers = (0..n_racers).map(|seed| {
            let (service, upload) = (bench.service.clone(), upload.clone());
            tokio::spawn(async move {
                let pieces: Vec<_> = (0..10)
                    .map(|n| Ok(content(seed).slice(n * 100..(n + 1) * 100)))
                    .collect();
                let body = stream::iter(pieces).then(|piece| async {
                    tokio::task::yield_now().await;
                    piece
                });
                service.receive(upload.into(), Box::pin(body)).await
            })
        });
        let winners: Vec<_> = future::join_all(racers)
            .await
            .into_iter()
            .filter_map(|outcome| outcome.expect("no panic").ok())
            .collect();
        let stored = digest(&get(&bench, &upload).await.expect("one of them"));
        assert!(!winners.is_empty());
        assert!(winners.iter().all(|winner| winner.sha256() == Some(stored)));
        assert_clean(&bench).await;
    }
}

#[tokio::test]
async fn an_upload_goes_on_when_its_handler_is_dropped() {
    let bench = bench(settings());
    let upload = slot(&bench).await;
    let (feed, body) = fed();
    let mut handler = Box::pin(bench.service.receive(upload.clone().into(), body));
    feed.send(content(0)).expect("open");
    // Let it begin, then drop it as hyper does when the connection breaks.
    let _ = futures_util::poll!(handler.as_mut());
    tokio::task::yield_now().await;
    drop((handler, feed));
    while get(&bench, &upload).await.is_err() {
        tokio::task::yield_now().await;
    }
    let replay = put(&bench, &upload, whole(content(0))).await;
    assert_eq!(replay, Ok(digest(&content(0))));
}

#[tokio::test]
async fn quotas_are_exact_under_races_and_come_back() {
    let mut settings = settings();
    settings.policy.quota.per_requester = Some(10_000);
    for _ in 0..20 {
        let bench = bench(settings.clone());
        let asked = (0..50).map(|_| slot_for(&bench.service, 1000));
        let answers = future::join_all(asked).await;
        let granted = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(granted, 10);
    }
    let bench = bench(settings);
    for _ in 0..10 {
        slot_for(&bench.service, 1000).await.expect("granted");
    }
    assert!(slot_for(&bench.service, 1).await.is_err());
    bench.world.pass(301);
    Sweeper::new(bench.service.clone()).sweep().await;
    assert!(slot_for(&bench.service, 10_000).await.is_ok());
    assert_clean(&bench).await;
}

#[tokio::test]
async fn a_used_slot_counts_for_the_window() {
    let mut settings = settings();
    settings.policy.quota.per_requester = Some(1500);
    settings.policy.lifetimes.retention.message = Some(Duration::from_secs(60));
    let bench = bench(settings);
    let upload = slot(&bench).await;
    put(&bench, &upload, whole(content(0))).await.expect("201");
    bench.world.pass(400);
    Sweeper::new(bench.service.clone()).sweep().await;
    assert_eq!(get(&bench, &upload).await, Err(Refusal::UnknownFile));
    let refused = slot_for(&bench.service, 1000).await.map(|_| ());
    let Err(Refusal::QuotaReached { retry_at }) = refused else {
        panic!("{refused:?}");
    };
    bench.world.pass(retry_at.since(START).as_secs() - 400);
    assert!(slot_for(&bench.service, 1000).await.is_ok());
    assert_clean(&bench).await;
}

#[tokio::test]
async fn slots_have_a_rate() {
    let mut settings = settings();
    settings.slot_rate = Rate { per_minute: 3 };
    let bench = bench(settings);
    for _ in 0..3 {
        slot_for(&bench.service, 1).await.expect("granted");
    }
    let refused = slot_for(&bench.service, 1).await.map(|_| ());
    let retry_at = Timestamp(START.0 + 20);
    assert_eq!(refused, Err(Refusal::SlotRateReached { retry_at }));
}

#[tokio::test]
async fn a_full_disk_is_told_at_the_slot_and_at_the_put() {
    let bench = bench(settings());
    let upload = slot(&bench).await;
    bench.memory_files.set_room(Room {
        bytes: 1999,
        inodes: 1000,
    });
    let refused = slot_for(&bench.service, 1000).await.map(|_| ());
    assert!(matches!(refused, Err(Refusal::StorageFull { .. })));
    let refused = put(&bench, &upload, whole(content(0))).await;
    assert_eq!(refused, Err(Refusal::NoSpace));
    bench.memory_files.set_room(Room {
        bytes: 1 << 30,
        inodes: 1000,
    });
    assert!(put(&bench, &upload, whole(content(0))).await.is_ok());
}

#[tokio::test]
async fn slots_end_after_their_idle_time() {
    let bench = bench(settings());
    let upload = slot(&bench).await;
    bench.world.pass(200);
    let cut = put(&bench, &upload, broken_after(content(0).slice(..10))).await;
    assert_eq!(cut, Err(Refusal::Interrupted));
    bench.world.pass(300);
    let sweeper = Sweeper::new(bench.service.clone());
    assert!(sweeper.sweep().await.removed.is_empty());
    let cut = put(&bench, &upload, broken_after(content(0).slice(..20))).await;
    assert_eq!(cut, Err(Refusal::Interrupted));
    bench.world.pass(301);
    let late = put(&bench, &upload, whole(content(0))).await;
    assert_eq!(late, Err(Refusal::TokenInvalid));
    let removed = sweeper.sweep().await.removed;
    assert_eq!(removed.len(), 1);
    assert_eq!(removed[0].reason, Reason::Unfinished);
    let gone = put(&bench, &upload, whole(content(0))).await;
    assert_eq!(gone, Err(Refusal::Gone));
    assert!(
        bench
            .stores
            .files
            .find(upload.id)
            .await
            .expect("found")
            .is_empty()
    );
    bench.world.pass(3600);
    sweeper.sweep().await;
    assert_eq!(
        bench.stores.sessions.totals().await.expect("read").n_rows,
        0
    );
    assert_clean(&bench).await;
}

#[tokio::test]
async fn above_the_total_the_oldest_go_first() {
    let mut settings = settings();
    settings.total_bytes_max = Some(2500);
    let bench = bench(settings);
    let mut uploads = Vec::new();
    for _ in 0..4 {
        let upload = slot(&bench).await;
        put(&bench, &upload, whole(content(0))).await.expect("201");
        uploads.push(upload);
        bench.world.pass(1);
    }
    let removed = Sweeper::new(bench.service.clone()).sweep().await.removed;
    assert_eq!(removed.len(), 2);
    assert!(removed.iter().all(|one| one.reason == Reason::TotalSize));
    for (n, upload) in uploads.iter().enumerate() {
        assert_eq!(get(&bench, upload).await.is_ok(), 2 <= n);
    }
    assert_clean(&bench).await;
}

#[tokio::test]
async fn a_leaping_clock_deletes_nothing() {
    let bench = bench(settings());
    let upload = slot(&bench).await;
    put(&bench, &upload, whole(content(0))).await.expect("201");
    let sweeper = Sweeper::new(bench.service.clone());
    for wrong in [Timestamp(START.0 + 365 * 86_400), Timestamp(0)] {
        bench.world.set_wall(wrong);
        for _ in 0..3 {
            assert!(sweeper.sweep().await.removed.is_empty());
        }
        bench.world.set_wall(START);
        assert!(sweeper.sweep().await.removed.is_empty());
    }
    assert_eq!(get(&bench, &upload).await, Ok(content(0)));
    bench.world.pass(700);
    assert!(sweeper.sweep().await.removed.is_empty());
    bench.world.pass(31 * 86_400);
    assert_eq!(sweeper.sweep().await.removed.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_upload_ends_and_its_slot_lives() {
    let bench = bench(settings());
    let upload = slot(&bench).await;
    let (feed, body) = fed();
    feed.send(content(0).slice(..10)).expect("open");
    let stalled = put(&bench, &upload, body).await;
    assert_eq!(stalled, Err(Refusal::Stalled));
    assert!(put(&bench, &upload, whole(content(0))).await.is_ok());
}

#[tokio::test]
async fn stopping_cuts_uploads_at_a_durable_offset() {
    let bench = bench(settings());
    let upload = slot(&bench).await;
    let (feed, body) = fed();
    let running = running(&bench, &upload, body);
    feed.send(content(0).slice(..700)).expect("being read");
    until_begun(&bench, &upload).await;
    assert_eq!(bench.service.drain(), 1);
    let refused = put(&bench, &upload, whole(content(0))).await;
    assert_eq!(refused, Err(Refusal::Stopping));
    bench.service.cut_uploads().await;
    assert_eq!(running.await.expect("no panic"), Err(Refusal::Stopping));
    let again = Service::new(
        settings(),
        bench.service.keys(),
        bench.stores.clone(),
        bench.world.clone(),
    );
    let bench = Bench {
        service: again,
        ..bench
    };
    assert!(put(&bench, &upload, whole(content(0))).await.is_ok());
    assert_clean(&bench).await;
}

/// A store that waits for its disk hears of the stop from `progress`, not from the body's end.
#[tokio::test]
async fn an_upload_cut_at_a_sync_is_told_why() {
    let bench = bench(settings());
    let upload = slot(&bench).await;
    let service = bench.service.clone();
    let piece = stream::once(async move {
        // Stops while the piece is on its way to the disk; the body would go on.
        service.drain();
        let _ = service.cut_uploads().now_or_never();
        Ok(content(0).slice(..100))
    });
    let body = piece.chain(stream::pending());
    let cut = put(&bench, &upload, Box::pin(body)).await;
    assert_eq!(cut, Err(Refusal::Stopping));
}

#[tokio::test]
async fn rotated_keys_open_old_tokens_for_their_grace() {
    let mut settings = settings();
    settings.rotate_every = Some(Duration::from_secs(86_400));
    settings.policy.lifetimes.idle_for = Duration::from_secs(72 * 3600);
    let bench = bench(settings);
    let upload = slot(&bench).await;
    assert_eq!(bench.service.next_keys(&bench.service.keys()), None);
    bench.world.pass(86_400);
    let keys = bench
        .service
        .next_keys(&bench.service.keys())
        .expect("a rotation is due");
    bench.service.set_keys(keys);
    assert!(put(&bench, &upload, whole(content(0))).await.is_ok());
    let late = slot(&bench).await;
    for _ in 0..4 {
        bench.world.pass(86_400);
        let keys = bench
            .service
            .next_keys(&bench.service.keys())
            .expect("a rotation is due");
        bench.service.set_keys(keys);
    }
    let refused = put(&bench, &late, whole(content(0))).await;
    assert_eq!(refused, Err(Refusal::TokenInvalid));
}

#[tokio::test]
async fn a_crash_between_file_and_row_loses_nothing() {
    let bench = bench(settings());
    let upload = slot(&bench).await;
    let cut = put(&bench, &upload, broken_after(content(0).slice(..600))).await;
    assert_eq!(cut, Err(Refusal::Interrupted));
    // As if the next attempt had been committed, and the machine had died before its row.
    let begin = Box::new(|row: UploadSession| {
        let claims = row.resume_claims();
        row.append(claims, 600, START)
    });
    let begun = bench.stores.sessions.update(upload.id, begin).await;
    let (part, _) = begun.expect("begun").newest.expect("an attempt");
    let progress = Arc::new(|_| -> future::BoxFuture<'static, _> { Box::pin(async { Ok(()) }) });
    let files = &bench.stores.files;
    let rest = whole(content(0).slice(600..));
    let length = files.append(part, 600, SIZE, rest, progress).await;
    assert_eq!(length.expect("written"), SIZE);
    files.commit(part, SIZE).await.expect("committed");
    assert_eq!(get(&bench, &upload).await, Err(Refusal::UnknownFile));
    assert_clean(&bench).await;
    assert!(put(&bench, &upload, whole(content(3))).await.is_ok());
    assert_eq!(get(&bench, &upload).await, Ok(content(3)));
    assert_clean(&bench).await;
}

/// Lets `n_faults` calls of a PUT fail, from the k-th on; whether it got so far.
async fn put_with_faults(fault: Fault, k: u64, n_faults: u64) -> bool {
    let (bench, plan) = (bench(settings()), Plan::new());
    let (keys, stores) = (bench.service.keys(), faulty(&bench.stores, &plan));
    let service = Service::new(settings(), keys, stores, bench.world.clone());
    let bench = Bench { service, ..bench };
    let upload = slot(&bench).await;
    let cut = put(&bench, &upload, broken_after(content(0).slice(..600))).await;
    assert_eq!(cut, Err(Refusal::Interrupted));
    let n_before = plan.n_calls();
    plan.fail(k, n_faults, fault);
    let first = put(&bench, &upload, whole(content(0))).await;
    let is_met = k < plan.n_calls() - n_before;
    plan.heal();
    let context = format!("{fault:?} at call {k} and {n_faults} calls");
    assert_clean(&bench).await;
    match first {
        // What does not matter to the file may fail.
        Ok(_) => assert_eq!(get(&bench, &upload).await, Ok(content(0)), "{context}"),
        Err(refusal) => {
            let is_said = matches!(refusal, Refusal::Broken | Refusal::NoSpace);
            assert!(is_said, "{context}: {refusal:?}");
        }
    }
    let again = put(&bench, &upload, whole(content(0))).await;
    assert_eq!(again, Ok(digest(&content(0))), "{context}");
    assert_eq!(get(&bench, &upload).await, Ok(content(0)), "{context}");
    assert_clean(&bench).await;
    is_met
}

#[tokio::test]
async fn whatever_call_fails_the_same_put_goes_through_later() {
    for fault in [Fault::Before, Fault::After, Fault::NoSpace] {
        for n_faults in [1, 2, u64::MAX] {
            let mut k = 0;
            while put_with_faults(fault, k, n_faults).await {
                k += 1;
            }
            assert!(8 <= k, "only {k} calls");
        }
    }
}

#[tokio::test]
async fn a_file_whose_name_failed_is_no_file() {
    let (bench, plan) = (bench(settings()), Plan::new());
    let (keys, stores) = (bench.service.keys(), faulty(&bench.stores, &plan));
    let service = Service::new(settings(), keys, stores, bench.world.clone());
    let bench = Bench { service, ..bench };
    for k in 0.. {
        let upload = slot(&bench).await;
        plan.fail(k, 1, Fault::After);
        let first = put(&bench, &upload, whole(content(0))).await;
        plan.heal();
        let stored = bench.stores.files.find(upload.id).await.expect("found");
        let row = bench.stores.sessions.get(upload.id).await.expect("found");
        let is_complete = row.is_some_and(|row| matches!(row.state, State::Complete { .. }));
        let has_file = stored.iter().any(|s| matches!(s, Stored::File { .. }));
        assert_eq!(has_file, is_complete, "after call {k} failed");
        if first.is_ok() {
            break;
        }
    }
}

#[tokio::test]
async fn a_clock_that_leapt_while_the_service_was_off_deletes_nothing_at_once() {
    let bench = bench(settings());
    let upload = slot(&bench).await;
    put(&bench, &upload, whole(content(0))).await.expect("201");
    bench.world.set_wall(Timestamp(START.0 + 365 * 86_400));
    let sweeper = Sweeper::since(bench.service.clone(), START);
    for _ in 0..3 {
        assert!(sweeper.sweep().await.removed.is_empty());
    }
    bench.world.set_wall(START);
    bench.world.pass(700);
    assert!(sweeper.sweep().await.removed.is_empty());
    assert_eq!(get(&bench, &upload).await, Ok(content(0)));
}

#[tokio::test]
async fn an_upload_whose_session_is_over_is_told_so() {
    let mut settings = settings();
    settings.policy.lifetimes.session_age = Duration::from_secs(100);
    let bench = bench(settings);
    let upload = slot(&bench).await;
    let (feed, body) = fed();
    let running = running(&bench, &upload, body);
    feed.send(content(0).slice(..500)).expect("being read");
    until_begun(&bench, &upload).await;
    bench.world.pass(101);
    feed.send(content(0).slice(500..600)).expect("being read");
    assert_eq!(running.await.expect("no panic"), Err(Refusal::Gone));
}
