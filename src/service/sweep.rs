//! Removing what is due. Of a complete file the bytes go first and the row last.
//!
//! A crash in between leaves a row without a file, which the next sweep ends, never a file without
//! a row. Nothing is removed while rows and files do not belong together, and for
//! ten minutes after the clock has leapt, also while the service was off.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tracing::{info, warn};

use crate::core::event::{Event, Removal};
use crate::core::refusal::Refusal;
use crate::core::session::UploadSession;
use crate::core::session::end::Sweep;
use crate::core::slot::SlotId;
use crate::core::time::Timestamp;
use crate::service::{Service, World, broken};
use crate::store::{Change, Failure, StoreError};

/// Files and uploads removed in one batch.
const BATCH_MAX: usize = 100;
/// Rows looked at in one batch; as many that will not go hold up the others.
const ROWS_MAX: usize = 1000;
/// How far the wall clock may run ahead of the monotonic one between two sweeps.
const LEAP_MAX: Duration = Duration::from_secs(3600);
/// How long the sweep rests after the clock has leapt.
const LEAP_PAUSE: Duration = Duration::from_secs(600);

/// Why a file or an upload went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A complete file's time was over.
    Retention,
    /// A complete file was the oldest, and too much was stored.
    TotalSize,
    /// An upload did not go on in time.
    Unfinished,
    /// Its owner, an operator, or the system that let it in said so.
    Command,
}

impl From<Removal> for Reason {
    fn from(removal: Removal) -> Self {
        match removal {
            Removal::Retention => Self::Retention,
            Removal::TotalSize => Self::TotalSize,
            Removal::Unfinished => Self::Unfinished,
            Removal::Command | Removal::Purge | Removal::External => Self::Command,
        }
    }
}

/// A line of the deletion report.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Removed {
    /// When, as XEP-0082 writes it.
    pub at: String,
    /// The first 8 characters of the slot: no link can be made of them.
    pub slot: String,
    /// Whose file it was.
    pub owner: String,
    /// Its size, or the size it should have got.
    pub size_bytes: u64,
    /// When its slot was issued.
    pub created_at: String,
    /// Why it went.
    pub reason: Reason,
}

/// Where deletions are told that nobody sweeps: to whoever writes the report.
#[derive(Clone, Debug)]
pub struct Deletions(mpsc::Sender<Removed>);

/// Deletions that wait to be written; who removes more waits as well.
const DELETIONS_MAX: usize = 1024;

impl Deletions {
    /// The two ends.
    pub fn new() -> (Self, mpsc::Receiver<Removed>) {
        let (sender, receiver) = mpsc::channel(DELETIONS_MAX);
        (Self(sender), receiver)
    }

    pub(super) async fn pass_on(&self, removed: Vec<Removed>) {
        for one in removed {
            let _ = self.0.send(one).await;
        }
    }

    pub(super) async fn tell(&self, row: &UploadSession, now: Timestamp) {
        // Nobody writes any more where we are stopping.
        let _ = self.0.send(removed(row, Reason::Command, now)).await;
    }
}

/// What a sweep did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What went.
    pub removed: Vec<Removed>,
    /// How many would not go.
    pub n_failed: usize,
    /// Whether there may be more to do at once.
    pub has_more: bool,
    /// Whether nothing could be looked at; the log says why.
    pub is_resting: bool,
}

/// Whether a row that was due is done with.
enum Done {
    Yes,
    No,
}

/// Sweeps; one for each service.
pub struct Sweeper {
    service: Arc<Service>,
    /// Held for a whole batch: two at once would each remove what is too much.
    clock: Mutex<Clock>,
}

impl Sweeper {
    /// A sweeper of `service`'s stores, which believes the clock.
    pub fn new(service: Arc<Service>) -> Self {
        let seen_at = service.world.now();
        Self::since(service, seen_at)
    }

    /// A sweeper that knows when the clock was right last; rests first if that is long ago.
    pub fn since(service: Arc<Service>, seen_at: Timestamp) -> Self {
        let clock = Mutex::new(Clock::new(seen_at, service.world.as_ref()));
        Self { service, clock }
    }

    /// Removes up to about a hundred things that are due. Call again while `has_more`.
    pub async fn sweep(&self) -> Report {
        let mut clock = self.clock.lock().await;
        let mut report = Report::default();
        let started_at = self.service.world.monotonic();
        let Some(now) = clock.check(self.service.world.as_ref()) else {
            report.is_resting = true;
            self.tell(&report, started_at);
            return report;
        };
        // What went before a fault is told all the same.
        if let Err(e) = self.service.sweep_batch(now, &mut report).await {
            broken("sweep", &e);
            report.is_resting = true;
        }
        self.tell(&report, started_at);
        report
    }

    fn tell(&self, report: &Report, started_at: Duration) {
        let took = self.service.world.monotonic().saturating_sub(started_at);
        self.service.tell(Event::Swept {
            n_removed: report.removed.len(),
            n_failed: report.n_failed,
            is_resting: report.is_resting,
            took,
        });
    }
}

impl Service {
    async fn sweep_batch(&self, now: Timestamp, report: &mut Report) -> Result<(), StoreError> {
        if !self.stores_belong_together().await? {
            report.is_resting = true;
            return Ok(());
        }
        // Rows that will not go, or are in use, are seen again: behind them come others.
        let mut n_kept = 0;
        let mut n_done = 0;
        while report.removed.len() < BATCH_MAX && n_kept + n_done < ROWS_MAX {
            let due = self.stores.sessions.due(now, n_kept + BATCH_MAX).await?;
            if due.len() <= n_kept {
                break;
            }
            for id in due.into_iter().skip(n_kept) {
                match self.sweep_one(id, now, report).await {
                    Done::Yes => n_done += 1,
                    Done::No => n_kept += 1,
                }
            }
        }
        if report.removed.len() < BATCH_MAX {
            self.sweep_oldest(now, report).await?;
        }
        // Not where nothing went: the same rows would be looked at for ever.
        report.has_more =
            BATCH_MAX <= report.removed.len() || (0 < n_done && ROWS_MAX <= n_kept + n_done);
        let since = self.settings().policy.quota.since(now);
        self.stores.sessions.forget_uses(since).await?;
        self.stores.sessions.forget_paths(now).await
    }

    /// Whether rows and files carry the same store id; without it nothing may be removed.
    async fn stores_belong_together(&self) -> Result<bool, StoreError> {
        let rows = self.stores.sessions.store_id().await?;
        let files = self.stores.files.store_id().await?;
        if rows != files {
            warn!(
                "nothing is swept: the database and the files in data_dir are of different stores; \
                 restore the one that was replaced"
            );
        }
        Ok(rows == files)
    }

    async fn sweep_one(&self, id: SlotId, now: Timestamp, report: &mut Report) -> Done {
        // Somebody is writing: they are alive, whatever the row says.
        let Some(_holder) = self.transfers.try_hold(id) else {
            return Done::No;
        };
        let swept = self.sweep_held(id, now, report).await;
        swept.unwrap_or_else(|e| {
            broken("remove what is due", &e);
            report.n_failed += 1;
            Done::No
        })
    }

    async fn sweep_held(
        &self,
        id: SlotId,
        now: Timestamp,
        report: &mut Report,
    ) -> Result<Done, StoreError> {
        // Changed since it was listed, or listed by mistake: then it is listed again.
        let Some(row) = self.stores.sessions.get(id).await? else {
            return Ok(Done::No);
        };
        match row.sweep(now) {
            Sweep::Keep => return Ok(Done::No),
            Sweep::Expire => {
                let expired = self.make_tombstone(id, now).await;
                if let Err(StoreError::NoSpace { .. }) = expired {
                    // A full disk takes no row. Nobody can go on with this one, and its bytes
                    // make the room for it.
                    self.stores.files.remove(id).await?;
                }
                if !expired? {
                    return Ok(Done::No);
                }
                self.hashes.forget(id);
                report
                    .removed
                    .push(self.tell_removed(&row, Removal::Unfinished, now));
                self.stores.files.remove(id).await?;
            }
            Sweep::RemoveFile => {
                self.remove_file(id).await?;
                report
                    .removed
                    .push(self.tell_removed(&row, Removal::Retention, now));
            }
            Sweep::RemoveRow => self.remove_file(id).await?,
        }
        Ok(Done::Yes)
    }

    /// Ends an upload whose time is over; tells whether it still was.
    ///
    /// Here the row goes first: a row that could go on must not promise bytes that are gone. What
    /// a crash then leaves of them goes with the tombstone.
    async fn make_tombstone(&self, id: SlotId, now: Timestamp) -> Result<bool, StoreError> {
        let change: Change = Box::new(move |row| match row.sweep(now) {
            Sweep::Expire => Ok(row.expire()),
            Sweep::Keep | Sweep::RemoveFile | Sweep::RemoveRow => Err(Refusal::TakenOver),
        });
        match self.stores.sessions.update(id, change).await {
            Ok(_) => Ok(true),
            Err(Failure::Refused(_)) => Ok(false),
            Err(Failure::Broken(e)) => Err(e),
        }
    }

    /// Tells that an upload is gone, and gives its line of the deletion report.
    fn tell_removed(&self, row: &UploadSession, reason: Removal, now: Timestamp) -> Removed {
        self.tell(Event::Removed { row, reason });
        removed(row, reason.into(), now)
    }

    pub(super) async fn remove_file(&self, id: SlotId) -> Result<(), StoreError> {
        self.stores.files.remove(id).await?;
        self.stores.sessions.remove(id).await
    }

    /// Removes the oldest files while more is stored than shall be.
    async fn sweep_oldest(&self, now: Timestamp, report: &mut Report) -> Result<(), StoreError> {
        let Some(bytes_max) = self.settings().total_bytes_max else {
            return Ok(());
        };
        let mut stored_bytes = self.stores.sessions.totals().await?.stored_bytes;
        if stored_bytes <= bytes_max {
            return Ok(());
        }
        for id in self.stores.sessions.oldest(BATCH_MAX).await? {
            if stored_bytes <= bytes_max || BATCH_MAX <= report.removed.len() {
                break;
            }
            let Some(_holder) = self.transfers.try_hold(id) else {
                continue;
            };
            let Some(row) = self.stores.sessions.get(id).await? else {
                // Its owner or an operator was quicker: it is in no sum any more.
                stored_bytes = self.stores.sessions.totals().await?.stored_bytes;
                continue;
            };
            // Counted as gone also where it stays: its row may have lost its file, and only while
            // too much is stored does the next sweep come back to it.
            stored_bytes -= row.stored_bytes().min(stored_bytes);
            if let Err(e) = self.remove_file(id).await {
                broken("remove the oldest files", &e);
                report.n_failed += 1;
                continue;
            }
            report
                .removed
                .push(self.tell_removed(&row, Removal::TotalSize, now));
        }
        Ok(())
    }
}

fn removed(row: &UploadSession, reason: Reason, now: Timestamp) -> Removed {
    let (slot, size_bytes) = (row.id.short(), row.file.size_bytes);
    info!(slot, size_bytes, ?reason, "removed");
    Removed {
        at: now.to_xep0082(),
        slot,
        owner: row.owner.to_string(),
        size_bytes,
        created_at: row.created_at.to_xep0082(),
        reason,
    }
}

/// Tells whether the wall clock can be believed.
struct Clock {
    wall: Timestamp,
    monotonic: Duration,
    rest_until: Duration,
}

impl Clock {
    fn new(seen_at: Timestamp, world: &dyn World) -> Self {
        Self {
            wall: seen_at,
            monotonic: world.monotonic(),
            rest_until: Duration::ZERO,
        }
    }

    /// The time to sweep by, unless the clock has leapt ahead lately.
    fn check(&mut self, world: &dyn World) -> Option<Timestamp> {
        let (wall, monotonic) = (world.now(), world.monotonic());
        let expected = self
            .wall
            .plus(monotonic.saturating_sub(self.monotonic))
            .plus(LEAP_MAX);
        if expected < wall {
            warn!(
                "the clock is more than an hour ahead of when it was last seen: nothing is swept \
                 for {} minutes",
                LEAP_PAUSE.as_secs() / 60
            );
            self.rest_until = monotonic.saturating_add(LEAP_PAUSE);
        }
        (self.wall, self.monotonic) = (wall, monotonic);
        (self.rest_until <= monotonic).then_some(wall)
    }
}
