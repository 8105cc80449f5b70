//! A slot's bytes coming in: written, judged, and made the file or kept as the prefix.
//!
//! Order of durability: bytes, then name, then row.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use sha2::Digest as _;
use tracing::info;

use crate::core::event::Event;
use crate::core::refusal::Refusal;
use crate::core::resume::{Checksum, Extent};
use crate::core::session::{FailReason, UploadSession};
use crate::core::slot::{PartId, Sha256};
use crate::service::intake::{End, SharedGauge, Sum};
use crate::service::transfers::Transfer;
use crate::service::upload::Received;
use crate::service::{Service, broken, refusal_of};
use crate::store::{Body, Change, Failure, Progress};

/// How often a running upload writes down that it lives.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// Whether an offset that grows is told before the request has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tells {
    Yes,
    No,
}

/// What was said between the file store and the service while a body came in.
#[derive(Default)]
struct Told {
    /// The part's durable length.
    durable: AtomicU64,
    /// Why the store was told to stop.
    refused: Mutex<Option<Refusal>>,
}

impl Told {
    fn refuse(&self, refusal: Refusal) -> Failure {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused = Some(refusal.clone());
        Failure::Refused(refusal)
    }

    fn refused(&self) -> Option<Refusal> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.clone()
    }
}

/// The bytes that a request brings, and where they belong.
pub(super) struct Incoming {
    /// The attempt to write.
    pub(super) part: PartId,
    /// Where in it they begin.
    pub(super) from: u64,
    /// What comes after them.
    pub(super) extent: Extent,
    /// The digest announced for the file.
    pub(super) sha256: Option<Sha256>,
    /// The digest announced for these bytes.
    pub(super) checksum: Option<Checksum>,
    /// They themselves.
    pub(super) body: Body,
}

/// What a body that came in turned out to be.
enum Judged {
    /// The last byte of the file is there.
    Whole(Sha256),
    /// More has to come.
    Part,
}

/// Whose bytes come in, and where they begin.
pub(super) struct Attempt<'a> {
    /// The row that admitted it.
    pub(super) row: &'a UploadSession,
    /// What it writes.
    pub(super) part: PartId,
    /// Where in it its bytes begin.
    pub(super) from: u64,
    /// Whether its bytes wait for their checksum.
    pub(super) is_held_back: bool,
    /// When it began: `World::monotonic`.
    started_at: Duration,
}

impl Service {
    /// Takes a request's bytes in, and completes the upload where all are there.
    pub(super) async fn write(
        self: &Arc<Self>,
        row: &UploadSession,
        incoming: Incoming,
        transfer: Arc<Transfer>,
    ) -> Result<Received, Refusal> {
        let mut attempt = Attempt {
            row,
            part: incoming.part,
            from: incoming.from,
            is_held_back: row.is_held_back,
            started_at: self.world.monotonic(),
        };
        let announced = [incoming.sha256, row.expected];
        let (offset, judged) = self.take_in(&attempt, incoming, transfer.clone()).await;
        if attempt.is_held_back && judged.is_ok() {
            if let Err(refusal) = self.vouch(&attempt, offset).await {
                self.note_end(&attempt, offset).await;
                self.tell_interrupted(&attempt, offset, &refusal);
                return Err(refusal);
            }
            attempt.is_held_back = false;
        }
        let rejected = match &judged {
            Ok(Judged::Whole(sha256)) if announced.iter().flatten().any(|it| it != sha256) => {
                Some((FailReason::DigestMismatch, Refusal::DigestMismatch))
            }
            // Allowed when the slot was issued, and no more.
            Ok(Judged::Whole(_)) => self
                .settings()
                .policy
                .access
                .check_upload(row)
                .err()
                .map(|refusal| (FailReason::Policy, refusal)),
            Err(Refusal::TooLong) => Some((FailReason::SizeMismatch, Refusal::TooLong)),
            Ok(Judged::Part) | Err(_) => None,
        };
        if let Some((reason, refusal)) = rejected {
            self.reject(&attempt, offset, reason).await;
            return Err(refusal);
        }
        let received = match judged {
            Ok(Judged::Whole(sha256)) => self.finish(&attempt, sha256).await,
            Ok(Judged::Part) => self.end_part(&attempt, offset).await,
            Err(refusal) => {
                self.note_end(&attempt, offset).await;
                Err(refusal)
            }
        };
        received.inspect_err(|why| self.tell_interrupted(&attempt, offset, why))
    }

    fn tell_interrupted(&self, attempt: &Attempt<'_>, offset: u64, why: &Refusal) {
        let row = attempt.row;
        let offset = match attempt.is_held_back {
            true => attempt.from,
            false => offset,
        };
        info!(slot = row.id.short(), offset, ?why, "upload interrupted");
        self.tell(match why {
            Refusal::TakenOver | Refusal::Gone => Event::UploadTakenOver { row, offset },
            _ => Event::UploadInterrupted { row, offset, why },
        });
    }

    pub(super) fn tell_complete(&self, row: &UploadSession, started_at: Duration) {
        let size_bytes = row.file.size_bytes;
        info!(slot = row.id.short(), size_bytes, "upload complete");
        let took = self.world.monotonic().saturating_sub(started_at);
        self.tell(Event::UploadComplete { row, took });
    }

    /// Writes a body behind what there is: how much is durable then, and what it turned out to be.
    async fn take_in(
        self: &Arc<Self>,
        attempt: &Attempt<'_>,
        incoming: Incoming,
        transfer: Arc<Transfer>,
    ) -> (u64, Result<Judged, Refusal>) {
        let Attempt {
            row, part, from, ..
        } = *attempt;
        let size_bytes = row.file.size_bytes;
        // What may have to be cut off again must not be told to anybody.
        let tells = match attempt.is_held_back {
            true => Tells::No,
            false => Tells::Yes,
        };
        transfer.note_durable(from);
        let hasher = match self.hash_prefix(part, from, &transfer).await {
            Ok(hasher) => hasher,
            Err(refusal) => return (from, Err(refusal)),
        };
        let sum = incoming.checksum.map(Sum::expecting);
        let n_bytes_max = size_bytes - from;
        let (intake, gauge) = self.intake(incoming.body, n_bytes_max, (hasher, sum), &transfer);
        let (progress, told) = self.progress(row, part, transfer, tells);
        let body: Body = Box::pin(intake);
        let files = &self.stores.files;
        let appended = files.append(part, from, size_bytes, body, progress).await;
        let offset = match &appended {
            Ok(offset) => *offset,
            Err(_) => told.durable.load(Ordering::Relaxed).max(from),
        };
        let judged = match (appended, told.refused()) {
            (Ok(_), Some(refusal)) => Err(refusal),
            (Ok(_), None) => self.judge(&gauge, offset, size_bytes, incoming.extent),
            (Err(failure), _) => Err(refusal_of("write an upload", failure)),
        };
        // Of the prefix, which it is if no other part is longer, and of nothing else.
        let is_prefix = row.prefix.0 == part || row.prefix.1 < offset;
        let counts = judged.is_ok() || !attempt.is_held_back;
        if is_prefix && counts && offset == from + gauge.n_bytes() {
            self.hashes.put(part, offset, gauge.hasher());
        }
        (offset, judged)
    }

    /// What the body turned out to be.
    fn judge(
        &self,
        gauge: &SharedGauge,
        offset: u64,
        size_bytes: u64,
        extent: Extent,
    ) -> Result<Judged, Refusal> {
        match (gauge.end(), extent) {
            (End::Whole, _) if !gauge.has_right_sum() => Err(Refusal::ChecksumMismatch),
            (End::Whole, Extent::Rest) if offset < size_bytes => Err(Refusal::TooShort),
            (End::Whole, Extent::Part) => Ok(Judged::Part),
            (End::Whole, Extent::Unsaid) if offset < size_bytes => Ok(Judged::Part),
            (End::Whole, Extent::Rest | Extent::Unsaid) => Ok(Judged::Whole(gauge.sha256())),
            (End::TooLong, _) => Err(Refusal::TooLong),
            (End::Stalled, _) => Err(Refusal::Stalled),
            (End::Cut, _) => Err(self.cut_refusal()),
            (End::Interrupted | End::Open, _) => Err(Refusal::Interrupted),
        }
    }

    /// The digest of a part's first `from` bytes: remembered, or read again after a restart.
    async fn hash_prefix(
        &self,
        part: PartId,
        from: u64,
        transfer: &Transfer,
    ) -> Result<sha2::Sha256, Refusal> {
        if from == 0 {
            return Ok(sha2::Sha256::new());
        }
        if let Some(hasher) = self.hashes.take(part, from) {
            return Ok(hasher);
        }
        let mut cut = transfer.cut();
        let again = async {
            let body = self.stores.files.open_part(part, from).await;
            let mut body = body.map_err(|e| broken("read an upload again", &e))?;
            let mut hasher = sha2::Sha256::new();
            while let Some(piece) = body.next().await {
                hasher.update(&piece.map_err(|_| Refusal::Broken)?);
            }
            Ok(hasher)
        };
        // It takes a while, and whoever waits for a newer request does not care.
        tokio::select! {
            biased;
            _ = cut.wait_for(|is_cut| *is_cut) => Err(self.cut_refusal()),
            hasher = again => hasher,
        }
    }

    /// File before row: a row that says complete has its file.
    async fn finish(&self, attempt: &Attempt<'_>, sha256: Sha256) -> Result<Received, Refusal> {
        let Attempt { row, part, .. } = *attempt;
        let size_bytes = row.file.size_bytes;
        if let Err(e) = self.stores.files.commit(part, size_bytes).await {
            let refusal = broken("commit an upload", &e);
            // It may have its name, only not for good.
            self.take_back(part).await;
            return Err(refusal);
        }
        // Earlier attempts go before the row is complete: after a crash in between nobody would
        // look for them. The whole part outlasts them, whatever happens next.
        if 1 < row.n_attempts
            && let Err(e) = self.remove_left_parts(row.id).await
        {
            let refusal = broken("remove earlier attempts", &e);
            self.take_back(part).await;
            return Err(refusal);
        }
        let (generation, now) = (row.generation, self.world.now());
        let settings = self.settings.load_full();
        let change: Change = Box::new(move |row| {
            let lifetimes = &settings.policy.lifetimes;
            row.complete(generation, part, sha256, lifetimes, now)
        });
        match self.stores.sessions.update(row.id, change).await {
            Ok(row) => {
                self.tell_complete(&row, attempt.started_at);
                self.hashes.forget(row.id);
                Ok(self.received(&row))
            }
            Err(Failure::Refused(refusal)) => {
                self.take_back(part).await;
                Err(refusal)
            }
            // The row may be complete all the same, and then needs its file. Where it is not, the
            // next attempt or the sweep finds the file, as after a crash.
            Err(Failure::Broken(e)) => Err(broken("complete an upload", &e)),
        }
    }

    /// Makes a file a part again: its row is not complete, so it must not look committed.
    async fn take_back(&self, part: PartId) {
        if let Err(e) = self.stores.files.settle(part).await {
            broken("take an upload back", &e);
        }
    }

    /// What the file store calls whenever more bytes are durable; and what was said then.
    fn progress(
        self: &Arc<Self>,
        row: &UploadSession,
        part: PartId,
        transfer: Arc<Transfer>,
        tells: Tells,
    ) -> (Progress, Arc<Told>) {
        let told = Arc::new(Told::default());
        let noted_at = Arc::new(AtomicU64::new(self.world.now().0));
        let (service, telling) = (self.clone(), told.clone());
        let (id, generation) = (row.id, row.generation);
        // Of an upload that goes on, only what its row has survives a power cut (`recover`). A
        // plain one begins again in any case; its row only has to stay alive.
        let note_every = match (row.agreement.is_plain(), tells) {
            (false, Tells::Yes) => 0,
            (true, _) | (_, Tells::No) => NOTE_EVERY.min(row.idle_for / 4).as_secs(),
        };
        let progress: Progress = Arc::new(move |offset| {
            telling.durable.store(offset, Ordering::Relaxed);
            let (service, noted_at) = (service.clone(), noted_at.clone());
            let (telling, transfer) = (telling.clone(), transfer.clone());
            async move {
                if transfer.is_cut() {
                    return Err(telling.refuse(service.cut_refusal()));
                }
                let now = service.world.now();
                let is_noted = now.0.saturating_sub(noted_at.load(Ordering::Relaxed)) < note_every;
                if is_noted {
                    return Ok(());
                }
                noted_at.store(now.0, Ordering::Relaxed);
                let change: Change =
                    Box::new(move |row| row.progress(generation, part, offset, now));
                match service.stores.sessions.update(id, change).await {
                    Ok(_) => {
                        if tells == Tells::Yes {
                            transfer.note_durable(offset);
                        }
                        Ok(())
                    }
                    Err(Failure::Refused(refusal)) => Err(telling.refuse(refusal)),
                    Err(broken) => Err(broken),
                }
            }
            .boxed()
        });
        (progress, told)
    }
}
