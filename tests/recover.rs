//! The first start after a power cut: what the rows vouch for stays, and nothing more.

mod support;

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use slotd::core::policy::Room;
use slotd::core::refusal::Refusal;
use slotd::core::session::network::Visitor;
use slotd::core::slot::{PartId, SlotId};
use slotd::service::Service;
use slotd::service::upload::Extant;
use slotd::store::{Progress, StoreError, Stored};
use support::faulty::{Fault, Plan, faulty};
use support::upload::{SIZE, Session, append, audited, broken_after, content, get, session, whole};
use support::world::{Bench, bench, disk_bench, restarted, settings};

fn part(slot: SlotId, attempt: u16) -> PartId {
    PartId { slot, attempt }
}

/// A bench over each kind of stores.
fn benches(directory: &tempfile::TempDir) -> [Bench; 2] {
    [bench(settings()), disk_bench(settings(), directory.path())]
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// What a power cut may leave behind `from`: a length without its bytes.
async fn lengthen(bench: &Bench, part: PartId, from: u64, n_bytes: usize) {
    let zeros = whole(vec![0; n_bytes].into());
    let go_on: Progress = Arc::new(|_| async { Ok(()) }.boxed());
    let files = &bench.stores.files;
    let written = files.append(part, from, SIZE, zeros, go_on).await;
    assert_eq!(written.expect("written"), from + n_bytes as u64);
}

/// An upload session of which 600 bytes were told.
async fn broken_off(bench: &Bench) -> Session {
    let session = session(bench).await;
    let first = broken_after(content(1).slice(..600));
    let cut = bench
        .service
        .receive(session.put.clone().into(), first)
        .await;
    assert_eq!(cut.err(), Some(Refusal::Interrupted));
    assert_eq!(offset(bench, &session).await, 600);
    session
}

async fn offset(bench: &Bench, session: &Session) -> u64 {
    let found = bench
        .service
        .find_offset(&session.url, &Visitor::default())
        .await;
    match found.expect("an offset").extant {
        Extant::Partial { offset } => offset,
        Extant::Complete { .. } => SIZE,
    }
}

/// Sends the rest from where it belongs; the file as it is served then.
async fn finish(bench: &Bench, session: &Session) -> Bytes {
    let offset = offset(bench, session).await;
    let rest = append(&session.url, offset, SIZE - offset);
    let body = whole(content(1).slice(offset as usize..));
    bench.service.receive(rest, body).await.expect("complete");
    get(bench, &session.put).await.expect("served")
}

async fn lengths(bench: &Bench, id: SlotId) -> Vec<(u16, u64)> {
    let found = bench.stores.files.find(id).await.expect("found");
    let parts = found.into_iter().filter_map(|stored| match stored {
        Stored::Part { part, size_bytes } => Some((part.attempt, size_bytes)),
        Stored::File { .. } => None,
    });
    parts.collect()
}

/// Two uploads that were broken off, each with more bytes than its row vouches for.
async fn two_longer(bench: &Bench) -> [Session; 2] {
    let sessions = [broken_off(bench).await, broken_off(bench).await];
    for session in &sessions {
        lengthen(bench, part(session.put.id, 0), 600, 300).await;
    }
    sessions
}

#[tokio::test]
async fn a_part_is_cut_back_to_what_was_told() {
    let directory = directory();
    for bench in benches(&directory) {
        let session = broken_off(&bench).await;
        lengthen(&bench, part(session.put.id, 0), 600, 300).await;
        let bench = restarted(bench);
        assert_eq!(bench.service.recover().await.expect("recovered"), 1);
        assert_eq!(lengths(&bench, session.put.id).await, [(0, 600)]);
        assert_eq!(offset(&bench, &session).await, 600);
        assert_eq!(finish(&bench, &session).await, content(1));
        assert!(audited(&bench).await.is_clean());
    }
}

#[tokio::test]
async fn what_rows_vouch_for_and_what_none_knows_stays() {
    let directory = directory();
    for bench in benches(&directory) {
        let equal = broken_off(&bench).await;
        let complete = broken_off(&bench).await;
        finish(&bench, &complete).await;
        // A crash kept an attempt of a complete upload from being removed; the audit's, too.
        lengthen(&bench, part(complete.put.id, 7), 0, 10).await;
        let stray = SlotId(1);
        lengthen(&bench, part(stray, 0), 0, 10).await;
        let bench = restarted(bench);
        assert_eq!(bench.service.recover().await.expect("recovered"), 0);
        assert_eq!(lengths(&bench, equal.put.id).await, [(0, 600)]);
        assert_eq!(lengths(&bench, complete.put.id).await, [(7, 10)]);
        assert_eq!(lengths(&bench, stray).await, [(0, 10)]);
        assert_eq!(get(&bench, &complete.put).await, Ok(content(1)));
        assert_eq!(finish(&bench, &equal).await, content(1));
    }
}

/// An attempt of which nothing was told goes; the earlier one, which holds the prefix, is cut. They
/// lie where one page ends and the next begins.
#[tokio::test]
async fn all_attempts_of_a_slot_are_seen() {
    const PAGE: u128 = 1000;
    let bench = bench(settings());
    for id in 1..PAGE {
        lengthen(&bench, part(SlotId(id), 0), 0, 1).await;
    }
    let session = broken_off(&bench).await;
    let id = session.put.id;
    assert!(SlotId(PAGE) < id, "the strays come first");
    // A PUT begins anew, and the power goes before anything of it is noted.
    let silent = broken_after(Bytes::new());
    let put = session.put.clone().into();
    let cut = bench.service.receive(put, silent).await;
    assert_eq!(cut.err(), Some(Refusal::Interrupted));
    lengthen(&bench, part(id, 0), 600, 300).await;
    lengthen(&bench, part(id, 1), 0, 900).await;
    let bench = restarted(bench);
    assert_eq!(bench.service.recover().await.expect("recovered"), 2);
    assert_eq!(lengths(&bench, id).await, [(0, 600)]);
    assert_eq!(finish(&bench, &session).await, content(1));
}

#[tokio::test]
async fn a_recovery_that_breaks_off_is_made_again() {
    let mut k = 0;
    loop {
        let bench = bench(settings());
        let sessions = two_longer(&bench).await;
        let plan = Plan::new();
        let stores = faulty(&bench.stores, &plan);
        let keys = bench.service.keys();
        let service = Service::new(settings(), keys, stores, bench.world.clone());
        plan.fail(k, 1, [Fault::Before, Fault::After][k as usize % 2]);
        let first = service.recover().await;
        if plan.n_calls() <= k {
            assert_eq!(first.expect("nothing failed"), 2);
            break;
        }
        assert!(first.is_err(), "the fault at call {k} is not told");
        plan.heal();
        service.recover().await.expect("recovered");
        for session in &sessions {
            assert_eq!(
                lengths(&bench, session.put.id).await,
                [(0, 600)],
                "call {k}"
            );
            assert_eq!(finish(&bench, session).await, content(1), "call {k}");
        }
        k += 1;
    }
    assert!(5 < k, "a recovery has more calls than {k}");
}

/// One row that cannot be read is the audit's; it must not keep all others from being served.
#[tokio::test]
async fn a_damaged_row_does_not_keep_the_service_down() {
    let bench = bench(settings());
    two_longer(&bench).await;
    let plan = Plan::new();
    let stores = faulty(&bench.stores, &plan);
    let keys = bench.service.keys();
    let service = Service::new(settings(), keys, stores, bench.world.clone());
    // The first call lists the parts, the second asks for the first one's row.
    plan.fail(1, 1, Fault::Damaged);
    assert_eq!(service.recover().await.expect("recovered"), 1);
}

/// Cutting needs no room: a full disk must not keep the service down.
#[tokio::test]
async fn parts_are_cut_on_a_full_disk() {
    let bench = bench(settings());
    let session = broken_off(&bench).await;
    lengthen(&bench, part(session.put.id, 0), 600, 300).await;
    let bench = restarted(bench);
    bench.memory_files.set_room(Room {
        bytes: 0,
        inodes: 0,
    });
    assert!(matches!(
        bench.service.recover().await,
        Ok::<_, StoreError>(1)
    ));
    assert_eq!(lengths(&bench, session.put.id).await, [(0, 600)]);
}

/// A million files take a minute to list, and have nothing to be recovered.
#[tokio::test]
async fn files_are_not_looked_at() {
    let directory = directory();
    let bench = disk_bench(settings(), directory.path());
    let session = broken_off(&bench).await;
    lengthen(&bench, part(session.put.id, 0), 600, 300).await;
    fs::remove_dir(directory.path().join("files/ff")).expect("removed");
    fs::write(directory.path().join("files/ff"), b"no directory").expect("written");
    let bench = restarted(bench);
    assert_eq!(bench.service.recover().await.expect("recovered"), 1);
    assert_eq!(lengths(&bench, session.put.id).await, [(0, 600)]);
}

/// Otherwise the next start would rely on what was never looked at.
#[test]
fn the_start_is_noted_after_the_recovery_alone() {
    let directory = directory();
    let data = directory.path().join("data");
    fs::create_dir(&data).expect("made");
    let free = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = free.local_addr().expect("an address");
    drop(free);
    let conf = directory.path().join("slotd.toml");
    let text = format!(
        "data_dir = \"{}\"\n[http]\nlisten = [\"{address}\"]\n\
         public_url = \"http://127.0.0.1:5050/\"\n",
        data.display()
    );
    fs::write(&conf, text).expect("written");
    let run = || {
        let mut slotd = Command::new(env!("CARGO_BIN_EXE_slotd"));
        slotd.arg("run").arg("--config").arg(&conf);
        slotd.stdin(Stdio::null());
        slotd
    };
    let mut child = run()
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    while !data.join("boot-id").exists() {
        assert!(child.try_wait().expect("asked").is_none(), "slotd ended");
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    // Another start of the machine, and a listing that breaks.
    fs::remove_file(data.join("boot-id")).expect("removed");
    fs::remove_dir(data.join("parts/00")).expect("removed");
    fs::write(data.join("parts/00"), b"no directory").expect("written");
    let output = run().output().expect("slotd starts");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && words.contains("list uploads under way"),
        "{words}"
    );
    assert!(!data.join("boot-id").exists());
}
