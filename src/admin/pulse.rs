//! How the stores are: asked on demand, by one task for all, and not more often than they bear.
//!
//! A disk that hangs holds up this one task; whoever asks is told after a while that nothing
//! answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use crate::service::Service;
use crate::service::health::Stock;

/// How long what was seen is good enough.
const FRESH_FOR: Duration = Duration::from_secs(5);
/// How long files that could be written are believed to be writable: each try writes and syncs.
const TRIED_FOR: Duration = Duration::from_secs(60);
/// How long whoever asks waits. Less than Prometheus does (10 s).
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What was seen.
#[derive(Clone)]
pub struct Beat {
    /// When.
    pub at: Instant,
    /// What the stores hold.
    pub stock: Stock,
    /// How long the steps of the last try of the files took; `None` where it failed.
    pub tried: Option<Vec<(&'static str, Duration)>>,
}

/// The way to the task that asks. It ends with this.
pub struct Pulse {
    wanted: Arc<Notify>,
    beats: watch::Receiver<Option<Beat>>,
}

impl Pulse {
    /// Starts the task; call it in a runtime.
    pub fn of(service: Arc<Service>) -> Self {
        let wanted = Arc::new(Notify::new());
        let (sender, beats) = watch::channel(None);
        tokio::spawn(beat(service, wanted.clone(), sender));
        Self { wanted, beats }
    }

    /// What was seen a moment ago, or is seen now; `None` where the stores do not answer.
    pub async fn feel(&self) -> Option<Beat> {
        let mut beats = self.beats.clone();
        let is_fresh = |beat: &Option<Beat>| {
            let beat = beat.as_ref();
            beat.is_some_and(|beat| beat.at.elapsed() < FRESH_FOR)
        };
        if !is_fresh(&beats.borrow_and_update()) {
            self.wanted.notify_one();
        }
        let fresh = timeout(ANSWER_WITHIN, beats.wait_for(is_fresh)).await;
        fresh.ok()?.ok()?.clone()
    }
}

async fn beat(service: Arc<Service>, wanted: Arc<Notify>, beats: watch::Sender<Option<Beat>>) {
    let mut tried_at: Option<Instant> = None;
    let mut tried = None;
    loop {
        tokio::select! {
            () = wanted.notified() => {}
            () = beats.closed() => return,
        }
        if tried.is_none() || tried_at.is_none_or(|at| TRIED_FOR <= at.elapsed()) {
            tried_at = Some(Instant::now());
            tried = service.try_files().await;
        }
        let stock = service.take_stock().await;
        let (at, tried) = (Instant::now(), tried.clone());
        beats.send_replace(Some(Beat { at, stock, tried }));
    }
}
