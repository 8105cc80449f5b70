//! Upload sessions from the service's side: what owners ask for, what resume URLs allow, and what
//! happens when requests, refreshes and restarts meet.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use slotd::core::refusal::Refusal;
use slotd::core::resume::{Checksum, Extent};
use slotd::core::session::owner::{REFRESH_PAUSE, REISSUES_MAX, Standing};
use slotd::core::session::{FailReason, State, UploadSession};
use slotd::core::slot::{Sha256, SlotId};
use slotd::core::token;
use slotd::service::session::SessionView;
use slotd::service::sweep::Sweeper;
use slotd::service::upload::{Extant, Received, Upload};
use slotd::service::{Service, World as _};
use slotd::store::{Body, Stored};
use support::faulty::{Fault, Plan, faulty};
use support::upload::{
    Put, SIZE, Session, append, audited, broken_after, content, digest, fed, get, jid_of, put_of,
    session, session_for, session_of, slot, whole,
};
use support::world::{Bench, START, bench, disk_bench, restarted, settings};
use tokio::task::JoinHandle;

const ROMEO: &str = "romeo@example.org/garden";
const JULIET: &str = "juliet@example.org/balcony";

fn all() -> Bytes {
    content(0)
}

fn visitor() -> slotd::core::session::network::Visitor {
    Default::default()
}

async fn offset(bench: &Bench, url: &str) -> Result<u64, Refusal> {
    let found = bench.service.find_offset(url, &visitor()).await?;
    Ok(match found.extant {
        Extant::Partial { offset } => offset,
        Extant::Complete { .. } => SIZE,
    })
}

async fn send(bench: &Bench, upload: Upload, body: Body) -> Result<Received, Refusal> {
    bench.service.receive(upload, body).await
}

/// Appends all that is missing.
async fn finish(bench: &Bench, url: &str, offset: u64) -> Result<Received, Refusal> {
    let rest = all().slice(offset as usize..);
    send(bench, append(url, offset, rest.len() as u64), whole(rest)).await
}

/// Appends bytes up to `end`, and the connection breaks.
async fn cut_at(bench: &Bench, url: &str, offset: u64, end: u64) -> Refusal {
    let bytes = all().slice(offset as usize..end as usize);
    let upload = append(url, offset, SIZE - offset);
    let cut = send(bench, upload, broken_after(bytes)).await;
    cut.map(|_| ()).expect_err("it was cut")
}

fn running(bench: &Bench, upload: Upload, body: Body) -> JoinHandle<Result<Received, Refusal>> {
    let service = bench.service.clone();
    tokio::spawn(async move { service.receive(upload, body).await })
}

async fn query(bench: &Bench, session: &Session) -> SessionView {
    let view = bench
        .service
        .query_session(&jid_of(ROMEO), session.id)
        .await;
    view.expect("the owner's")
}

/// Waits until so many bytes are durable.
async fn until(bench: &Bench, session: &Session, offset: u64) {
    while query(bench, session).await.offset < offset {
        tokio::task::yield_now().await;
    }
}

async fn refresh(bench: &Bench, session: &Session) -> Result<Session, Refusal> {
    let jid = jid_of(ROMEO);
    let refreshed = bench.service.refresh_session(&jid, session.id).await?;
    let slot = refreshed.slot.ok_or(Refusal::SessionComplete)?;
    let url = refreshed.session.resume_url.expect("it can go on");
    Ok(session_of(
        session.id,
        &slot,
        &url,
        refreshed.session.offset,
    ))
}

async fn row(bench: &Bench, id: SlotId) -> UploadSession {
    let row = bench.stores.sessions.get(id).await.expect("readable");
    row.expect("a row")
}

async fn assert_clean(bench: &Bench) {
    let report = audited(bench).await;
    assert!(report.is_clean(), "{:?}", report.findings);
}

#[tokio::test]
async fn an_owner_follows_an_upload_from_slot_to_file() {
    let bench = bench(settings());
    let session = session(&bench).await;
    let view = query(&bench, &session).await;
    assert_eq!((view.standing, view.offset), (Standing::Pending, 0));
    assert_eq!(
        (view.size_bytes, view.refreshes_left, view.is_active),
        (SIZE, 10, false)
    );
    let (feed, body) = fed();
    let put = running(&bench, session.put.clone().into(), body);
    feed.send(all().slice(..600)).expect("being read");
    until(&bench, &session, 600).await;
    let view = query(&bench, &session).await;
    assert_eq!((view.standing, view.is_active), (Standing::Uploading, true));
    drop(feed);
    assert_eq!(put.await.expect("no panic").err(), Some(Refusal::TooShort));
    let view = query(&bench, &session).await;
    assert_eq!((view.offset, view.is_active), (600, false));
    finish(&bench, &session.url, 600).await.expect("201");
    let sha256 = digest(&all());
    let view = query(&bench, &session).await;
    assert_eq!(
        (view.standing, view.offset),
        (Standing::Complete { sha256 }, SIZE)
    );
    assert_eq!(get(&bench, &session.put).await, Ok(all()));
    assert_clean(&bench).await;
}

#[tokio::test]
async fn others_learn_nothing() {
    let bench = bench(settings());
    let session = session(&bench).await;
    let unknown = slotd::core::slot::SessionId(42);
    for (who, id) in [
        (JULIET, session.id),
        (ROMEO, unknown),
        ("mallory@evil.example", session.id),
    ] {
        let jid = jid_of(who);
        let refused = Some(Refusal::UnknownSession);
        let service = &bench.service;
        assert_eq!(service.query_session(&jid, id).await.err(), refused);
        assert_eq!(
            service.refresh_session(&jid, id).await.map(|_| ()).err(),
            refused
        );
        assert_eq!(service.cancel_session(&jid, id).await.err(), refused);
    }
    let list = bench.service.list_sessions(&jid_of(JULIET), None).await;
    assert_eq!(list.expect("a list").sessions, []);
    assert_eq!(query(&bench, &session).await.standing, Standing::Pending);
}

#[tokio::test]
async fn lists_are_newest_first_filtered_and_cut() {
    let mut settings = settings();
    settings.policy.open_sessions_max = 100;
    let bench = bench(settings);
    let mut sessions = Vec::new();
    for _ in 0..60 {
        sessions.push(session(&bench).await);
        bench.world.pass(1);
    }
    slot(&bench).await;
    finish(&bench, &sessions[3].url, 0).await.expect("201");
    finish(&bench, &sessions[7].url, 0).await.expect("201");
    let list = async |wanted| {
        let list = bench.service.list_sessions(&jid_of(ROMEO), wanted).await;
        let list = list.expect("a list");
        let ids: Vec<_> = list.sessions.iter().map(|view| view.id).collect();
        (ids, list.is_cut)
    };
    let newest: Vec<_> = sessions.iter().rev().map(|session| session.id).collect();
    assert_eq!(list(None).await, (newest[..50].to_vec(), true));
    let complete = vec![sessions[7].id, sessions[3].id];
    assert_eq!(list(Some("complete")).await, (complete, false));
    let (pending, is_cut) = list(Some("pending")).await;
    assert_eq!((pending.len(), is_cut), (50, true));
    assert_eq!(list(Some("cancelled")).await, (Vec::new(), false));
}

/// What a crash left is looked at once, and not each time somebody asks.
#[tokio::test]
async fn a_list_after_a_crash_is_true_and_cheap() {
    let (sound, plan) = (bench(settings()), Plan::new());
    let stores = faulty(&sound.stores, &plan);
    let keys = sound.service.keys();
    let service = Service::new(settings(), keys, stores, sound.world.clone());
    let bench = Bench { service, ..sound };
    let mut sessions = Vec::new();
    for _ in 0..10 {
        let session = session(&bench).await;
        // As if the process had died in mid-upload.
        let claims = row(&bench, session.put.id).await.put_claims();
        let begin = Box::new(move |row: UploadSession| row.begin(&claims, START));
        let begun = bench.stores.sessions.update(session.put.id, begin).await;
        let part = begun.expect("begun").newest.expect("an attempt").0;
        let told: slotd::store::Progress = Arc::new(|_| Box::pin(async { Ok(()) }));
        let files = &bench.stores.files;
        let bytes = whole(all().slice(..600));
        files
            .append(part, 0, SIZE, bytes, told)
            .await
            .expect("written");
        sessions.push(session);
    }
    let list = async || {
        let n_before = plan.n_calls();
        let list = bench.service.list_sessions(&jid_of(ROMEO), None).await;
        let offsets = list
            .expect("a list")
            .sessions
            .into_iter()
            .map(|view| view.offset);
        (offsets.collect::<Vec<_>>(), plan.n_calls() - n_before)
    };
    let (offsets, _) = list().await;
    assert_eq!(offsets, [600; 10]);
    assert_eq!(list().await, (vec![600; 10], 1));
    for session in &sessions {
        assert_eq!(offset(&bench, &session.url).await, Ok(600));
    }
}

#[tokio::test]
async fn a_refresh_cuts_and_tells_where_to_go_on() {
    let bench = bench(settings());
    let old = session(&bench).await;
    let (feed, body) = fed();
    let put = running(&bench, old.put.clone().into(), body);
    feed.send(all().slice(..600)).expect("being read");
    until(&bench, &old, 600).await;
    let new = refresh(&bench, &old).await.expect("refreshed");
    assert_eq!(put.await.expect("no panic").err(), Some(Refusal::TakenOver));
    assert_eq!(new.offset, 600);
    // The old credentials are dead, all of them.
    assert_eq!(offset(&bench, &old.url).await, Err(Refusal::Gone));
    assert_eq!(
        finish(&bench, &old.url, 600).await.err(),
        Some(Refusal::Gone)
    );
    assert_eq!(
        bench.service.cancel_upload(&old.url).await,
        Err(Refusal::Gone)
    );
    let again = send(&bench, old.put.clone().into(), whole(all())).await;
    assert_eq!(again.err(), Some(Refusal::TokenInvalid));
    let done = finish(&bench, &new.url, new.offset).await.expect("201");
    assert_eq!(done.sha256(), Some(digest(&all())));
    let complete = bench.service.refresh_session(&jid_of(ROMEO), new.id).await;
    let complete = complete.expect("a lost 201 is looked up");
    assert!(complete.slot.is_none());
    assert_eq!(complete.session.refreshes_left, 9);
    assert_clean(&bench).await;
}

#[tokio::test]
async fn lost_replies_cost_nothing() {
    let bench = bench(settings());
    let old = session(&bench).await;
    let first = refresh(&bench, &old).await.expect("refreshed");
    for _ in 0..REISSUES_MAX {
        let again = refresh(&bench, &old).await.expect("issued again");
        assert_eq!(again.url, first.url);
    }
    assert_eq!(query(&bench, &old).await.refreshes_left, 9);
    let retry_at = START.plus(REFRESH_PAUSE);
    let sixth = refresh(&bench, &old).await.err();
    assert_eq!(sixth, Some(Refusal::RefreshTooSoon { retry_at }));
    bench.world.pass(5);
    let next = refresh(&bench, &old).await.expect("an ordinary one");
    assert_ne!(next.url, first.url);
    // Presented, in a request that is refused: the reply came through.
    assert!(matches!(
        finish(&bench, &next.url, 5).await,
        Err(Refusal::OtherOffset { .. })
    ));
    bench.world.pass(5);
    refresh(&bench, &old).await.expect("an ordinary one");
    assert_eq!(query(&bench, &old).await.refreshes_left, 7);
}

#[tokio::test]
async fn a_cancelled_upload_leaves_nothing() {
    for by_url in [false, true] {
        let bench = bench(settings());
        let session = session(&bench).await;
        let (feed, body) = fed();
        let put = running(&bench, session.put.clone().into(), body);
        feed.send(all().slice(..600)).expect("being read");
        until(&bench, &session, 600).await;
        let jid = jid_of(ROMEO);
        match by_url {
            true => bench
                .service
                .cancel_upload(&session.url)
                .await
                .expect("given up"),
            false => bench
                .service
                .cancel_session(&jid, session.id)
                .await
                .expect("given up"),
        }
        assert!(put.await.expect("no panic").is_err());
        let stored = bench.stores.files.find(session.put.id).await;
        assert_eq!(stored.expect("readable"), []);
        assert_eq!(query(&bench, &session).await.standing, Standing::Cancelled);
        assert_eq!(offset(&bench, &session.url).await, Err(Refusal::Gone));
        assert_eq!(
            bench.service.cancel_upload(&session.url).await,
            Err(Refusal::Gone)
        );
        assert_eq!(bench.service.cancel_session(&jid, session.id).await, Ok(()));
        let refreshed = refresh(&bench, &session).await.err();
        assert_eq!(refreshed, Some(Refusal::SessionCancelled));
        assert_clean(&bench).await;
    }
}

#[tokio::test]
async fn what_has_ended_is_told_to_its_owner_for_ten_minutes_more() {
    let bench = bench(settings());
    let session = session(&bench).await;
    cut_at(&bench, &session.url, 0, 600).await;
    let sweeper = Sweeper::new(bench.service.clone());
    let age = 72 * 3600;
    // Leaps of less than an hour, which the sweep believes.
    let pass = async |until: u64| {
        while row(&bench, session.put.id).await.created_at.0 + until > bench.world.now().0 {
            let left = row(&bench, session.put.id).await.created_at.0 + until - bench.world.now().0;
            bench.world.pass(left.min(3000));
            sweeper.sweep().await;
        }
    };
    pass(age - 1).await;
    assert_eq!(query(&bench, &session).await.standing, Standing::Uploading);
    assert_eq!(
        refresh(&bench, &session)
            .await
            .expect("the last second")
            .offset,
        600
    );
    pass(age).await;
    assert_eq!(query(&bench, &session).await.standing, Standing::Expired);
    assert_eq!(
        refresh(&bench, &session).await.err(),
        Some(Refusal::SessionExpired)
    );
    let jid = jid_of(ROMEO);
    let cancelled = bench.service.cancel_session(&jid, session.id).await;
    assert_eq!(cancelled, Err(Refusal::SessionExpired));
    pass(age + 599).await;
    assert_eq!(query(&bench, &session).await.standing, Standing::Expired);
    bench.world.pass(1);
    sweeper.sweep().await;
    let gone = bench.service.query_session(&jid, session.id).await.err();
    assert_eq!(gone, Some(Refusal::UnknownSession));
    assert_clean(&bench).await;
}

#[tokio::test]
async fn uploads_go_on_after_a_restart() {
    for on_disk in [false, true] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut bench = match on_disk {
            true => disk_bench(settings(), directory.path()),
            false => bench(settings()),
        };
        let session = session(&bench).await;
        for (from, to) in [(0, 333), (333, 334), (334, 800)] {
            assert_eq!(
                cut_at(&bench, &session.url, from, to).await,
                Refusal::Interrupted
            );
            // What it knew of the digest so far is gone.
            bench = restarted(bench);
            assert_eq!(query(&bench, &session).await.offset, to);
            assert_eq!(offset(&bench, &session.url).await, Ok(to));
        }
        let done = finish(&bench, &session.url, 800).await.expect("201");
        assert_eq!(done.sha256(), Some(digest(&all())));
        assert_eq!(get(&bench, &session.put).await, Ok(all()));
        assert_clean(&bench).await;
    }
}

#[tokio::test]
async fn a_wrong_checksum_leaves_the_offset_where_it_was() {
    let bench = bench(settings());
    let session = session(&bench).await;
    cut_at(&bench, &session.url, 0, 600).await;
    for right in [false, true] {
        let (feed, body) = fed();
        let mut upload = append(&session.url, 600, 400);
        let sum = digest(&all().slice(600..));
        upload.checksum = Some(Checksum::Sha256(if right { sum } else { Sha256([1; 32]) }));
        let patch = running(&bench, upload, body);
        feed.send(all().slice(600..)).expect("being read");
        for _ in 0..100 {
            tokio::task::yield_now().await;
            assert_eq!(
                query(&bench, &session).await.offset,
                600,
                "told before it was verified"
            );
        }
        drop(feed);
        let outcome = patch.await.expect("no panic");
        match right {
            true => assert_eq!(outcome.expect("201").sha256(), Some(digest(&all()))),
            false => {
                assert_eq!(outcome.err(), Some(Refusal::ChecksumMismatch));
                assert_eq!(offset(&bench, &session.url).await, Ok(600));
            }
        }
    }
    assert_clean(&bench).await;
}

/// Also where a crash or the connection came before the checksum.
#[tokio::test]
async fn bytes_whose_checksum_was_never_seen_do_not_count() {
    let bench = bench(settings());
    let session = session(&bench).await;
    cut_at(&bench, &session.url, 0, 600).await;
    let checked = || {
        let mut upload = append(&session.url, 600, 400);
        upload.checksum = Some(Checksum::Sha1([7; 20]));
        upload
    };
    let cut = send(&bench, checked(), broken_after(content(3).slice(600..700))).await;
    assert_eq!(cut.err(), Some(Refusal::Interrupted));
    assert_eq!(offset(&bench, &session.url).await, Ok(600));
    // A crash: the process with the transfer never ends it.
    let (feed, body) = fed();
    let lost = running(&bench, checked(), body);
    feed.send(content(3).slice(600..)).expect("being read");
    let has_come = async || {
        let stored = bench
            .stores
            .files
            .find(session.put.id)
            .await
            .expect("readable");
        stored.iter().any(|s| {
            matches!(
                s,
                Stored::Part {
                    size_bytes: SIZE,
                    ..
                }
            )
        })
    };
    while !has_come().await {
        tokio::task::yield_now().await;
    }
    let bench = restarted(bench);
    assert_eq!(query(&bench, &session).await.offset, 600);
    let done = finish(&bench, &session.url, 600).await.expect("201");
    assert_eq!(done.sha256(), Some(digest(&all())));
    lost.abort();
    assert_clean(&bench).await;
}

#[tokio::test]
async fn a_right_checksum_is_as_good_as_none_where_more_comes() {
    let bench = bench(settings());
    let session = session(&bench).await;
    for (from, to) in [(0, 300), (300, 1000)] {
        let bytes = all().slice(from..to);
        let mut upload = append(&session.url, from as u64, bytes.len() as u64);
        upload.extent = Extent::Unsaid;
        upload.checksum = Some(Checksum::Sha256(digest(&bytes)));
        send(&bench, upload, whole(bytes)).await.expect("taken");
    }
    assert_eq!(get(&bench, &session.put).await, Ok(all()));
    assert_clean(&bench).await;
}

#[tokio::test]
async fn other_bytes_than_announced_fail_the_session() {
    let bench = bench(settings());
    let announced = Some(digest(&content(9)));
    let session = session_for(&bench, announced).await;
    let refused = finish(&bench, &session.url, 0).await.err();
    assert_eq!(refused, Some(Refusal::DigestMismatch));
    let reason = FailReason::DigestMismatch;
    let view = query(&bench, &session).await;
    assert_eq!(
        (view.standing, view.offset),
        (Standing::Failed(reason), SIZE)
    );
    assert_eq!(
        refresh(&bench, &session).await.err(),
        Some(Refusal::SessionFailed { reason })
    );
    assert_eq!(offset(&bench, &session.url).await, Err(Refusal::Gone));
    let stored = bench.stores.files.find(session.put.id).await;
    assert_eq!(stored.expect("readable"), []);
    // A plain slot takes another PUT.
    let plain = slot(&bench).await;
    let wrong = Put {
        sha256: announced,
        ..plain.clone()
    };
    let refused = send(&bench, wrong.into(), whole(all())).await.err();
    assert_eq!(refused, Some(Refusal::DigestMismatch));
    send(&bench, plain.clone().into(), whole(all()))
        .await
        .expect("201");
    assert_clean(&bench).await;
}

#[tokio::test]
async fn too_many_bytes_fail_the_session_and_too_large_a_length_does_not() {
    let bench = bench(settings());
    let session = session(&bench).await;
    cut_at(&bench, &session.url, 0, 600).await;
    let before = row(&bench, session.put.id).await;
    let polled: Body = Box::pin(stream::poll_fn(|_| panic!("polled")));
    let long = send(&bench, append(&session.url, 600, 401), polled).await;
    assert_eq!(long.err(), Some(Refusal::TooLong));
    assert_eq!(row(&bench, session.put.id).await, before);
    // Elsewhere than at the offset that is said first, whatever the length.
    let polled: Body = Box::pin(stream::poll_fn(|_| panic!("polled")));
    let other = send(&bench, append(&session.url, 700, 401), polled).await;
    assert_eq!(other.err(), Some(Refusal::OtherOffset { offset: 600 }));
    let mut chunked = append(&session.url, 600, 0);
    chunked.length = None;
    let long = send(&bench, chunked, whole(content(0).slice(..401))).await;
    assert_eq!(long.err(), Some(Refusal::TooLong));
    let reason = FailReason::SizeMismatch;
    assert_eq!(
        query(&bench, &session).await.standing,
        Standing::Failed(reason)
    );
    assert_clean(&bench).await;
}

#[tokio::test]
async fn parts_make_a_file_when_the_last_one_says_so() {
    let bench = bench(settings());
    let session = session(&bench).await;
    let part = |offset: u64, end: u64, extent| {
        let mut upload = append(&session.url, offset, end - offset);
        upload.extent = extent;
        let bytes = all().slice(offset as usize..end as usize);
        send(&bench, upload, whole(bytes))
    };
    let received = part(0, 0, Extent::Part).await.expect("taken");
    assert!(matches!(received.extant, Extant::Partial { offset: 0 }));
    part(0, 300, Extent::Part).await.expect("taken");
    part(300, 500, Extent::Unsaid).await.expect("taken");
    let short = part(500, 700, Extent::Rest).await.err();
    assert_eq!(short, Some(Refusal::InconsistentLength));
    part(500, 1000, Extent::Part).await.expect("taken");
    assert_eq!(query(&bench, &session).await.standing, Standing::Uploading);
    let last = part(1000, 1000, Extent::Rest).await.expect("201");
    assert_eq!(last.sha256(), Some(digest(&all())));
    // Again, since the answer may have been lost.
    let again = part(1000, 1000, Extent::Rest).await.expect("201");
    assert_eq!(again.sha256(), Some(digest(&all())));
    let mut more = append(&session.url, SIZE, 0);
    more.length = None;
    let more = send(&bench, more, whole(all())).await.err();
    assert_eq!(more, Some(Refusal::TooLong));
    assert_eq!(get(&bench, &session.put).await, Ok(all()));
    assert_clean(&bench).await;
}

#[tokio::test]
async fn whoever_takes_over_the_longest_run_stays() {
    let bench = bench(settings());
    let session = session(&bench).await;
    cut_at(&bench, &session.url, 0, 600).await;
    // A PUT begins anew, and an append takes over in its midst.
    let (feed, body) = fed();
    let put = running(&bench, session.put.clone().into(), body);
    feed.send(all().slice(..200)).expect("being read");
    while row(&bench, session.put.id).await.newest.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(query(&bench, &session).await.offset, 600);
    assert_eq!(
        cut_at(&bench, &session.url, 600, 700).await,
        Refusal::Interrupted
    );
    assert_eq!(put.await.expect("no panic").err(), Some(Refusal::TakenOver));
    // One that comes further becomes the prefix.
    let cut = send(
        &bench,
        session.put.clone().into(),
        broken_after(all().slice(..900)),
    )
    .await;
    assert_eq!(cut.err(), Some(Refusal::Interrupted));
    assert_eq!(offset(&bench, &session.url).await, Ok(900));
    let stored = bench
        .stores
        .files
        .find(session.put.id)
        .await
        .expect("readable");
    assert_eq!(stored.len(), 1, "{stored:?}");
    finish(&bench, &session.url, 900).await.expect("201");
    assert_eq!(get(&bench, &session.put).await, Ok(all()));
    assert_clean(&bench).await;
}

#[tokio::test]
async fn access_that_was_withdrawn_ends_an_upload() {
    let before = bench(settings());
    let session = session(&before).await;
    cut_at(&before, &session.url, 0, 600).await;
    let mut settings = settings();
    settings.policy.access.deny.push(jid_of(ROMEO).to_bare());
    let keys = before.service.keys();
    let service = Service::new(settings, keys, before.stores.clone(), before.world.clone());
    let bench = Bench { service, ..before };
    let generation = row(&bench, session.put.id).await.generation;
    assert_eq!(
        refresh(&bench, &session).await.err(),
        Some(Refusal::NotAllowed)
    );
    assert_eq!(row(&bench, session.put.id).await.generation, generation);
    let refused = finish(&bench, &session.url, 600).await.err();
    assert_eq!(refused, Some(Refusal::NotAllowed));
    let standing = Standing::Failed(FailReason::Policy);
    assert_eq!(query(&bench, &session).await.standing, standing);
    assert_clean(&bench).await;
}

#[tokio::test]
async fn a_refresh_while_stopping_changes_nothing() {
    let bench = bench(settings());
    let session = session(&bench).await;
    cut_at(&bench, &session.url, 0, 600).await;
    let before = row(&bench, session.put.id).await;
    bench.service.drain();
    assert_eq!(
        refresh(&bench, &session).await.err(),
        Some(Refusal::Stopping)
    );
    assert_eq!(row(&bench, session.put.id).await, before);
    assert_eq!(query(&bench, &session).await.offset, 600);
    let bench = restarted(bench);
    assert_eq!(
        refresh(&bench, &session).await.expect("refreshed").offset,
        600
    );
}

/// A dead generation may neither end the upload nor learn where it goes on.
#[tokio::test]
async fn a_dead_generation_spoils_nothing_and_learns_nothing() {
    for manner in 0..3 {
        let bench = bench(settings());
        let session = session(&bench).await;
        let (feed, body) = fed();
        let mut upload = append(&session.url, 0, 0);
        upload.length = None;
        upload.extent = if manner == 0 {
            Extent::Part
        } else {
            Extent::Rest
        };
        upload.sha256 = (manner == 1).then_some(Sha256([0; 32]));
        let patch = running(&bench, upload, body);
        feed.send(all().slice(..600)).expect("being read");
        until(&bench, &session, 600).await;
        // The row alone, as a refresh does before it cuts.
        let owner = jid_of(ROMEO).to_bare();
        let lifetimes = settings().policy.lifetimes;
        let change = Box::new(move |row: UploadSession| row.refresh(&owner, &lifetimes, START));
        bench
            .stores
            .sessions
            .update(session.put.id, change)
            .await
            .expect("refreshed");
        let more = match manner {
            0 => 600..700,
            1 => 600..1000,
            _ => 0..1000,
        };
        let n_bytes = if manner == 0 { 700 } else { SIZE };
        feed.send(all().slice(more)).expect("being read");
        drop(feed);
        let outcome = patch.await.expect("no panic");
        assert!(outcome.is_err(), "{manner}: it was replaced");
        let after = row(&bench, session.put.id).await;
        assert_eq!(after.state, State::Uploading, "{manner}");
        // What is durable stays told.
        let offset = query(&bench, &session).await.offset;
        assert!(600 <= offset && offset <= n_bytes, "{manner}: {offset}");
    }
}

/// The offset that a HEAD tells is taken, whatever was under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_told_offset_is_taken_a_thousand_times() {
    let bench = bench(settings());
    let mut n_resumed = 0;
    while n_resumed < 1000 {
        let session = session(&bench).await;
        let mut offset_now = 0;
        let mut running_now: Option<JoinHandle<_>> = None;
        while offset_now < SIZE {
            let told = offset(&bench, &session.url).await.expect("told");
            assert!(offset_now <= told, "{told} after {offset_now}");
            offset_now = told;
            if let Some(before) = running_now.take() {
                let _ = before.await;
            }
            if told == SIZE {
                break;
            }
            let upload = append(&session.url, told, SIZE - told);
            let rest = all().slice(told as usize..);
            let pieces = (0..rest.len())
                .step_by(40)
                .map(|at| rest.slice(at..rest.len().min(at + 40)));
            let body = stream::iter(pieces.collect::<Vec<_>>()).then(|piece| async {
                tokio::task::yield_now().await;
                Ok(piece)
            });
            let (telling, begun) = tokio::sync::oneshot::channel();
            let mut upload = upload;
            upload.on_begun = Some(Box::new(move |_| {
                let _ = telling.send(());
            }));
            let append = running(&bench, upload, Box::pin(body));
            if begun.await.is_err() {
                let refusal = append.await.expect("no panic").err();
                // Each one before was cut before a byte of it came.
                let is_starved = matches!(refusal, Some(Refusal::TooManyStarts { .. }));
                assert!(is_starved, "{told} was told: {refusal:?}");
                break;
            }
            running_now = Some(append);
            n_resumed += 1;
            for _ in 0..n_resumed % 7 {
                tokio::task::yield_now().await;
            }
        }
        if let Some(last) = running_now {
            let _ = last.await;
        }
        bench
            .service
            .cancel_session(&jid_of(ROMEO), session.id)
            .await
            .ok();
    }
}

/// A body that counts who takes it in at the same time as another one.
fn counted(writers: &Arc<AtomicU64>, bytes: Bytes) -> Body {
    struct Writing(Arc<AtomicU64>, bool);
    impl Drop for Writing {
        fn drop(&mut self) {
            if self.1 {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
    let pieces: Vec<_> = (0..bytes.len())
        .step_by(100)
        .map(|at| bytes.slice(at..bytes.len().min(at + 100)))
        .collect();
    let writing = Writing(writers.clone(), false);
    let body = stream::unfold(
        (pieces.into_iter(), writing),
        |(mut pieces, mut writing)| async move {
            if !writing.1 {
                writing.1 = true;
                let n_before = writing.0.fetch_add(1, Ordering::SeqCst);
                assert_eq!(n_before, 0, "two write at once");
            }
            tokio::task::yield_now().await;
            let piece = pieces.next()?;
            Some((Ok(piece), (pieces, writing)))
        },
    );
    Box::pin(body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_appends_at_one_offset_make_one_body_a_thousand_times() {
    let bench = bench(settings());
    for n in 0..1000u64 {
        let session = session(&bench).await;
        let from = n % 5 * 200;
        if 0 < from {
            cut_at(&bench, &session.url, 0, from).await;
        }
        let writers = Arc::new(AtomicU64::new(0));
        let racers: Vec<_> = (1..=2u8)
            .map(|seed| {
                let rest = content(seed).slice(from as usize..);
                let upload = append(&session.url, from, SIZE - from);
                running(&bench, upload, counted(&writers, rest))
            })
            .collect();
        let mut winners = Vec::new();
        for (seed, racer) in (1..=2u8).zip(racers) {
            match racer.await.expect("no panic") {
                Ok(received) => winners.push((seed, received.sha256().expect("whole"))),
                Err(Refusal::OtherOffset { .. } | Refusal::TakenOver) => {}
                Err(refusal) => panic!("{refusal:?}"),
            }
        }
        if let Ok(stored) = get(&bench, &session.put).await {
            let (seed, sha256) = winners.first().copied().expect("a 201");
            let body = [&all()[..from as usize], &content(seed)[from as usize..]].concat();
            assert_eq!((winners.len(), sha256), (1, digest(&stored)));
            assert_eq!(stored, body);
        } else {
            assert_eq!(winners, []);
        }
        bench
            .service
            .cancel_session(&jid_of(ROMEO), session.id)
            .await
            .ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refreshes_race_with_appends_a_thousand_times() {
    let mut settings = settings();
    settings.policy.lifetimes.refreshes_max = 200;
    let bench = bench(settings);
    let mut n_rounds = 0;
    let mut told = SIZE;
    let mut session = session(&bench).await;
    while n_rounds < 1000 {
        if told == SIZE || 100 < n_rounds % 101 {
            bench
                .service
                .cancel_session(&jid_of(ROMEO), session.id)
                .await
                .ok();
            session = support::upload::session(&bench).await;
            told = 0;
        }
        n_rounds += 1;
        bench.world.pass(5);
        let writers = Arc::new(AtomicU64::new(0));
        let generation = row(&bench, session.put.id).await.generation;
        let rest = all().slice(told as usize..);
        let upload = append(&session.url, told, SIZE - told);
        let patch = running(&bench, upload, counted(&writers, rest));
        for _ in 0..n_rounds % 5 {
            tokio::task::yield_now().await;
        }
        let (first, second) = tokio::join!(refresh(&bench, &session), refresh(&bench, &session));
        let patched = patch.await.expect("no panic");
        let after = row(&bench, session.put.id).await;
        if let State::Complete { .. } = after.state {
            assert!(patched.is_ok());
            told = SIZE;
            continue;
        }
        if let Err(refusal) = patched {
            use Refusal as R;
            let is_cut = matches!(refusal, R::TakenOver | R::Gone);
            assert!(is_cut, "{refusal:?}");
        }
        // The same where no request of it had come through: its reply counts as lost.
        assert!(generation <= after.generation);
        for refreshed in [first, second].into_iter().flatten() {
            assert!(
                told <= refreshed.offset,
                "{} after {told}",
                refreshed.offset
            );
            session = refreshed;
        }
        session = refreshed_or(&bench, session).await;
        told = session.offset;
    }
    assert_clean(&bench).await;
}

/// Credentials that are alive, whoever of two refreshes was the later one.
async fn refreshed_or(bench: &Bench, session: Session) -> Session {
    let row = row(bench, session.put.id).await;
    let keys = bench.service.keys();
    let claims = token::open_resume(&keys, &session.url).expect("ours");
    if claims == row.resume_claims() {
        return session;
    }
    bench.world.pass(5);
    refresh(bench, &session).await.expect("refreshed")
}

/// A HEAD or refresh whose connection breaks while it waits lets nobody else in too early.
#[tokio::test]
async fn a_request_that_is_dropped_lets_no_second_writer_in() {
    let bench = bench(settings());
    let session = session(&bench).await;
    let writers = Arc::new(AtomicU64::new(0));
    for _ in 0..100 {
        let url = &session.url;
        let told = offset(&bench, url).await.expect("told");
        if told == SIZE {
            break;
        }
        let rest = all().slice(told as usize..(told as usize + 100).min(SIZE as usize));
        let body = counted(&writers, rest).chain(stream::pending());
        let patch = running(&bench, append(url, told, SIZE - told), Box::pin(body));
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        let mut head = Box::pin(offset(&bench, url));
        for _ in 0..3 {
            let _ = futures_util::poll!(head.as_mut());
        }
        drop(head);
        let now = row(&bench, session.put.id).await.offset();
        let next = counted(&writers, all().slice(now as usize..));
        let _ = send(&bench, append(url, now, SIZE - now), next).await;
        let _ = patch.await;
    }
    assert_clean(&bench).await;
}

/// A part that has to be read again is given up for a newer request, even where the disk hangs.
#[tokio::test]
async fn a_slow_reading_again_is_interrupted() {
    let sound = bench(settings());
    let session = session(&sound).await;
    cut_at(&sound, &session.url, 0, 600).await;
    let stores = support::slow::slow_parts(&sound.stores);
    let keys = sound.service.keys();
    let service = Service::new(settings(), keys, stores, sound.world.clone());
    let bench = Bench { service, ..sound };
    let patch = running(
        &bench,
        append(&session.url, 600, 400),
        whole(all().slice(600..)),
    );
    while row(&bench, session.put.id).await.newest.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(offset(&bench, &session.url).await, Ok(600));
    assert_eq!(
        patch.await.expect("no panic").err(),
        Some(Refusal::TakenOver)
    );
}

/// Whatever call of the stores fails, an offset that was told is told again.
#[tokio::test]
async fn faults_take_no_offset_back() {
    for fault in [Fault::Before, Fault::After, Fault::NoSpace] {
        for k in 0..30 {
            let (sound, plan) = (bench(settings()), Plan::new());
            let keys = sound.service.keys();
            let stores = faulty(&sound.stores, &plan);
            let service = Service::new(settings(), keys, stores, sound.world.clone());
            let bench = Bench { service, ..sound };
            let session = session(&bench).await;
            cut_at(&bench, &session.url, 0, 300).await;
            plan.fail(k, 2, fault);
            let mut told = 300;
            let _ = finish_by(&bench, &session.url, 300, 600).await;
            if let Ok(view) = bench
                .service
                .query_session(&jid_of(ROMEO), session.id)
                .await
            {
                told = view.offset.max(told);
            }
            if let Ok(new) = offset(&bench, &session.url).await {
                assert!(told <= new, "{fault:?} at {k}: {new} after {told}");
                told = new;
            }
            let _ = bench
                .service
                .refresh_session(&jid_of(ROMEO), session.id)
                .await;
            plan.heal();
            bench.world.pass(5);
            let session = refresh(&bench, &session).await.expect("refreshed");
            assert!(told <= session.offset, "{fault:?} at {k}");
            let done = finish(&bench, &session.url, session.offset).await;
            let done = done.map(|received| received.sha256());
            assert_eq!(done, Ok(Some(digest(&all()))), "{fault:?} at {k}");
            assert_eq!(get(&bench, &session.put).await, Ok(all()));
            assert_clean(&bench).await;
        }
    }
}

async fn finish_by(bench: &Bench, url: &str, offset: u64, end: u64) -> Result<Received, Refusal> {
    let mut upload = append(url, offset, end - offset);
    upload.extent = Extent::Part;
    let bytes = all().slice(offset as usize..end as usize);
    send(bench, upload, whole(bytes)).await
}

#[tokio::test]
async fn each_change_of_network_is_noted() {
    let bench = bench(settings());
    let session = session(&bench).await;
    for (n, from) in ["192.0.2.1", "192.0.2.1", "198.51.100.7"]
        .iter()
        .enumerate()
    {
        let visitor = slotd::core::session::network::Visitor {
            address: Some((*from).to_owned()),
            agent: None,
        };
        bench
            .service
            .find_offset(&session.url, &visitor)
            .await
            .expect("told");
        bench.world.pass(n as u64);
    }
    assert_eq!(row(&bench, session.put.id).await.n_network_changes(), 1);
}

#[tokio::test]
async fn an_upload_that_goes_on_by_itself_has_longer() {
    let bench = bench(settings());
    let plain = slot(&bench).await;
    let mut upload: Upload = plain.clone().into();
    upload.is_resumable = true;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    upload.on_begun = Some(Box::new(move |offer| {
        let _ = sender.send(offer.resume_url.clone());
    }));
    let cut = send(&bench, upload, broken_after(all().slice(..600))).await;
    assert_eq!(cut.err(), Some(Refusal::Interrupted));
    let url = put_of(&receiver.await.expect("offered"));
    bench.world.pass(3600);
    assert_eq!(offset(&bench, &url).await, Ok(600));
    bench.world.pass(1);
    assert_eq!(offset(&bench, &url).await, Err(Refusal::Gone));
}

/// The first request with new credentials is written down once, whoever sends it.
#[tokio::test]
async fn who_asks_for_an_offset_costs_no_write_of_its_own() {
    let mut n_calls = Vec::new();
    for address in [None, Some("192.0.2.7".to_owned())] {
        let mut bench = bench(settings());
        let old = session(&bench).await;
        let cut = bench
            .service
            .receive(old.put.clone().into(), broken_after(all().slice(..600)));
        assert_eq!(cut.await.err(), Some(Refusal::Interrupted));
        bench.world.pass(REFRESH_PAUSE.as_secs());
        let new = refresh(&bench, &old).await.expect("refreshed");
        let plan = Plan::new();
        let keys = bench.service.keys();
        let stores = faulty(&bench.stores, &plan);
        bench.service = Service::new(settings(), keys, stores, bench.world.clone());
        let visitor = slotd::core::session::network::Visitor {
            address: address.clone(),
            ..visitor()
        };
        let found = bench.service.find_offset(&new.url, &visitor).await;
        let found = found.expect("an offset");
        assert_eq!(found.extant, Extant::Partial { offset: 600 });
        n_calls.push(plan.n_calls());
        let row = row(&bench, new.put.id).await;
        let last = row.networks.last().map(|last| last.address.clone());
        assert!(row.is_presented);
        assert_eq!(last.unwrap_or_default(), address);
    }
    assert_eq!(n_calls[0], n_calls[1]);
}
