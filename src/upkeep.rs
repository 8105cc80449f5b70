//! Edge: the clock. Every so often what is due goes, keys are rotated, bans end.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior};
use tracing::{error, info};

use crate::service::Service;
use crate::service::sweep::{Removed, Sweeper};
use crate::store::keys;

pub mod history;

/// What upkeep needs to know of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How often.
    pub every: Duration,
    /// Where the signing keys are.
    pub data_dir: PathBuf,
    /// Where each deletion is noted, one JSON object a line.
    pub report_file: Option<PathBuf>,
}

/// Deletions noted in one go.
const NOTED_AT_ONCE: usize = 100;

/// Sweeps and rotates until `stop` turns true, ending after the batch that is under way.
///
/// Follows the plan as it changes.
pub async fn run(
    mut plans: watch::Receiver<Plan>,
    service: Arc<Service>,
    sweeper: Arc<Sweeper>,
    mut deletions: mpsc::Receiver<Removed>,
    stop: watch::Receiver<bool>,
) {
    let mut stopping = stop.clone();
    let stopped = async move { drop(stopping.wait_for(|is_stopping| *is_stopping).await) };
    tokio::pin!(stopped);
    let mut plan = plans.borrow_and_update().clone();
    let mut ticks = ticks(plan.every);
    loop {
        let mut told = Vec::new();
        tokio::select! {
            _ = ticks.tick() => sweep(&plan, &service, &sweeper, &stop).await,
            // Without commands nobody tells, and this branch is never taken.
            1.. = deletions.recv_many(&mut told, NOTED_AT_ONCE) => note(&plan, told).await,
            // Where nobody changes it any more this branch is never taken.
            Ok(()) = plans.changed() => {
                let every = plan.every;
                plan = plans.borrow_and_update().clone();
                if plan.every != every {
                    ticks = self::ticks(plan.every);
                }
            }
            () = &mut stopped => break,
        }
    }
    deletions.close();
    let mut told = Vec::new();
    while deletions.recv_many(&mut told, NOTED_AT_ONCE).await != 0 {
        note(&plan, std::mem::take(&mut told)).await;
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Removes what is due, renews the keys, and ends bans.
async fn sweep(
    plan: &Plan,
    service: &Arc<Service>,
    sweeper: &Sweeper,
    stop: &watch::Receiver<bool>,
) {
    renew_keys(&plan.data_dir, service).await;
    service.end_bans().await;
    loop {
        let report = sweeper.sweep().await;
        note(plan, report.removed).await;
        if !report.has_more || *stop.borrow() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Takes up keys that `slotd keygen --rotate` added, and rotates when it is time.
async fn renew_keys(data_dir: &Path, service: &Arc<Service>) {
    let _turn = service.turn_for_keys().await;
    let (data_dir, deciding) = (data_dir.to_owned(), service.clone());
    let update = move || keys::update(&data_dir, |keys| deciding.next_keys(keys));
    match tokio::task::spawn_blocking(update).await {
        Ok(Ok(kept)) if kept != service.keys() => {
            info!(n_keys = kept.list().len(), "signing keys changed");
            service.set_keys(kept);
        }
        Ok(Ok(_)) => {}
        Ok(Err(e)) => error!(error = %e, "could not look after the signing keys"),
        Err(e) => error!(error = %e, "looking after the signing keys ended early"),
    }
}

/// Appends to the deletion report; opened each time, so that logrotate may move it.
async fn note(plan: &Plan, removed: Vec<Removed>) {
    let Some(path) = plan.report_file.clone().filter(|_| !removed.is_empty()) else {
        return;
    };
    let shown = path.display().to_string();
    match tokio::task::spawn_blocking(move || append(&path, &removed)).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => error!(error = %e, path = shown, "could not write the deletion report"),
        Err(e) => error!(error = %e, "writing the deletion report ended early"),
    }
}

fn append(path: &Path, removed: &[Removed]) -> io::Result<()> {
    let mut lines = Vec::new();
    for one in removed {
        serde_json::to_writer(&mut lines, one)?;
        lines.push(b'\n');
    }
    let mut options = OpenOptions::new();
    let mut file = options.create(true).append(true).mode(0o640).open(path)?;
    file.write_all(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::sweep::Reason;

    #[tokio::test]
    async fn the_report_grows_line_by_line() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("removed.jsonl");
        let one = Removed {
            at: "2026-01-02T03:04:05Z".to_owned(),
            slot: "AAAAAAAA".to_owned(),
            owner: "romeo@example.org".to_owned(),
            size_bytes: 5,
            created_at: "2026-01-01T03:04:05Z".to_owned(),
            reason: Reason::TotalSize,
        };
        let plan = Plan {
            every: Duration::from_secs(60),
            data_dir: directory.path().to_owned(),
            report_file: Some(path.clone()),
        };
        note(&plan, vec![one.clone(), one.clone()]).await;
        note(&plan, Vec::new()).await;
        note(&plan, vec![one]).await;
        let text = std::fs::read_to_string(&path).expect("written");
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains(r#""reason":"total-size""#), "{text}");
    }
}
