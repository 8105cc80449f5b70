//! A store that breaks at any one call of an upload or a sweep: nothing acknowledged is lost, and
//! whatever broke can be done again.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use slotd::service::sweep::Sweeper;
use slotd::service::{Service, Settings};
use support::faulty::{Fault, Plan, faulty};
use support::upload::{SIZE, audited, broken_after, get, slot, whole};
use support::world::{Bench, bench, settings};

const FAULTS: [Fault; 3] = [Fault::Before, Fault::After, Fault::NoSpace];

fn content(byte: u8) -> Bytes {
    vec![byte; SIZE as usize].into()
}

/// A service whose stores fail as the plan says.
fn faulty_bench(settings: Settings) -> (Bench, Arc<Plan>) {
    let plan = Plan::new();
    let sound = bench(settings.clone());
    let stores = faulty(&sound.stores, &plan);
    let service = Service::new(settings, sound.service.keys(), stores, sound.world.clone());
    (Bench { service, ..sound }, plan)
}

#[track_caller]
fn check_clean(report: slotd::service::audit::AuditReport, when: &str) {
    assert!(report.is_clean(), "{when}: {:?}", report.findings);
}

/// Uploads after an interrupted attempt, with a fault at call `k`; tells whether there was one.
async fn upload_with_fault(k: u64, fault: Fault) -> bool {
    let when = format!("{fault:?} at call {k}");
    let (bench, plan) = faulty_bench(settings());
    let upload = slot(&bench).await;
    let put = async |body| {
        bench
            .service
            .receive(upload.clone().into(), body)
            .await
            .is_ok()
    };
    assert!(!put(broken_after(content(1).slice(..600))).await);
    plan.fail(k, 1, fault);
    let until = plan.n_calls() + k;
    let first = put(whole(content(2))).await;
    let has_failed = until < plan.n_calls();
    plan.heal();
    if first {
        assert_eq!(get(&bench, &upload).await, Ok(content(2)), "{when}");
    }
    // The client, who was told that it failed or never got the answer, sends it again.
    assert!(put(whole(content(2))).await, "{when}");
    assert_eq!(get(&bench, &upload).await, Ok(content(2)), "{when}");
    check_clean(audited(&bench).await, &when);
    has_failed
}

#[tokio::test(start_paused = true)]
async fn an_upload_survives_a_fault_at_any_call() {
    for fault in FAULTS {
        let mut k = 0;
        while upload_with_fault(k, fault).await {
            k += 1;
        }
        assert!(8 < k, "an upload has more calls than {k}");
    }
}

/// A file that cannot be removed keeps its row; the others go, and the report names them.
#[tokio::test(start_paused = true)]
async fn one_file_that_stays_does_not_keep_the_others() {
    let mut settings = settings();
    settings.total_bytes_max = Some(2 * SIZE);
    for k in 0..12 {
        let (bench, plan) = faulty_bench(settings.clone());
        for _ in 0..5 {
            let upload = slot(&bench).await;
            let done = bench
                .service
                .receive(upload.into(), whole(content(1)))
                .await;
            assert!(done.is_ok());
            bench.world.pass(1);
        }
        let sweeper = Sweeper::new(bench.service.clone());
        plan.fail(k, 1, Fault::Before);
        let first = sweeper.sweep().await.removed.len();
        plan.heal();
        let totals = bench.stores.sessions.totals().await.expect("read");
        assert_eq!(totals.n_files as usize + first, 5, "fault at call {k}");
        sweeper.sweep().await;
        let totals = bench.stores.sessions.totals().await.expect("read");
        assert_eq!(totals.n_files, 2, "fault at call {k}");
        check_clean(audited(&bench).await, "after the sweeps");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_much_goes_in_one_go() {
    let mut settings = settings();
    settings.total_bytes_max = Some(2 * SIZE);
    let (bench, _) = faulty_bench(settings);
    for _ in 0..250 {
        let upload = slot(&bench).await;
        let done = bench
            .service
            .receive(upload.into(), whole(content(1)))
            .await;
        assert!(done.is_ok());
    }
    let sweeper = Sweeper::new(bench.service.clone());
    while sweeper.sweep().await.has_more {}
    let totals = bench.stores.sessions.totals().await.expect("read");
    assert_eq!(totals.n_files, 2);
}

#[tokio::test(start_paused = true)]
async fn an_audit_of_much_that_is_wrong_ends_soon() {
    let (bench, _) = faulty_bench(settings());
    for n in 0..400 {
        let upload = slot(&bench).await;
        let id = upload.id;
        let done = bench
            .service
            .receive(upload.into(), whole(content(1)))
            .await;
        assert!(done.is_ok());
        match n % 2 {
            0 => bench.stores.files.remove(id).await.expect("removed"),
            _ => bench.stores.sessions.remove(id).await.expect("removed"),
        }
    }
    let begun = tokio::time::Instant::now();
    let report = audited(&bench).await;
    assert_eq!(report.n_findings, 400);
    assert!(begun.elapsed().as_secs() < 2, "{:?}", begun.elapsed());
}
