//! The history of the last day over a restart: read at the start, kept every few minutes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::{error, warn};

use crate::service::Service;
use crate::store::history;

/// How often it is written; what came after the last time is lost in a crash.
const KEEP_EVERY: Duration = Duration::from_secs(300);

/// Goes on from what was kept. What cannot be read is begun anew, which is no reason not to start.
pub fn begin(data_dir: &Path, service: &Service) {
    service.recent().begin();
    match history::read(data_dir) {
        Ok(kept) => service.recent().restore(kept),
        Err(e) => {
            let file = data_dir.join(history::FILE).display().to_string();
            warn!(error = %e, file, "the status page's history cannot be read, and begins anew");
        }
    }
}

/// Keeps what changed, every so often and when `stop` turns true.
pub async fn keep(data_dir: PathBuf, service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    let mut ticks = interval_at(Instant::now() + KEEP_EVERY, KEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_last = tokio::select! {
            _ = ticks.tick() => false,
            _ = stop.wait_for(|is_stopping| *is_stopping) => true,
        };
        write(&data_dir, &service).await;
        if is_last {
            return;
        }
    }
}

async fn write(data_dir: &Path, service: &Service) {
    let Some(kept) = service.recent().take_changed() else {
        return;
    };
    let data_dir = data_dir.to_owned();
    let written = tokio::task::spawn_blocking(move || history::write(&data_dir, kept)).await;
    if let Ok(Err(e)) = written {
        error!(error = %e, "could not keep the status page's history");
        service.recent().set_changed();
    }
}
