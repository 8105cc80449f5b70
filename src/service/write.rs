//! A new attempt at a slot's bytes: written, judged, and made the file or kept as the prefix.
//!
//! Order of durability: bytes, then name, then row.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tracing::{info, warn};

use crate::core::refusal::Refusal;
use crate::core::session::UploadSession;
use crate::core::slot::{PartId, Sha256, SlotId};
use crate::service::intake::{End, SharedGauge};
use crate::service::transfers::Transfer;
use crate::service::{Received, Service, broken, refusal_of};
use crate::store::{Body, Change, Failure, Progress, StoreError, Stored};

/// How often a running upload writes down that it lives.
const NOTE_EVERY: Duration = Duration::from_secs(60);

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

impl Service {
    /// Receives a new attempt's bytes, and completes the upload where all came.
    pub(super) async fn write(
        self: &Arc<Self>,
        row: &UploadSession,
        part: PartId,
        announced: Option<Sha256>,
        body: Body,
        transfer: Arc<Transfer>,
    ) -> Result<Received, Refusal> {
        let size_bytes = row.file.size_bytes;
        let (intake, gauge) = self.intake(body, size_bytes, &transfer);
        let (progress, told) = self.progress(row, part, transfer.clone());
        let files = &self.stores.files;
        let appended = files
            .append(part, 0, size_bytes, Box::pin(intake), progress)
            .await;
        let offset = match &appended {
            Ok(offset) => *offset,
            Err(_) => told.durable.load(Ordering::Relaxed),
        };
        let outcome = match appended {
            Ok(_) => match told.refused() {
                Some(refusal) => Err(refusal),
                None => self.judge(&gauge, offset, size_bytes, announced),
            },
            Err(failure) => Err(refusal_of("write an upload", failure)),
        };
        match outcome {
            Ok(sha256) => self.finish(row, part, sha256).await,
            Err(refusal) => {
                self.note_end(row, part, offset, &refusal).await;
                Err(refusal)
            }
        }
    }

    /// What the body turned out to be.
    fn judge(
        &self,
        gauge: &SharedGauge,
        offset: u64,
        size_bytes: u64,
        announced: Option<Sha256>,
    ) -> Result<Sha256, Refusal> {
        match gauge.end() {
            End::Whole if offset < size_bytes => Err(Refusal::TooShort),
            End::Whole => {
                let sha256 = gauge.sha256();
                match announced {
                    Some(announced) if announced != sha256 => Err(Refusal::DigestMismatch),
                    _ => Ok(sha256),
                }
            }
            End::TooLong => Err(Refusal::TooLong),
            End::Stalled => Err(Refusal::Stalled),
            End::Cut => Err(self.cut_refusal()),
            End::Interrupted | End::Open => Err(Refusal::Interrupted),
        }
    }

    /// File before row: a row that says complete has its file.
    async fn finish(
        &self,
        row: &UploadSession,
        part: PartId,
        sha256: Sha256,
    ) -> Result<Received, Refusal> {
        let size_bytes = row.file.size_bytes;
        if let Err(e) = self.stores.files.commit(part, size_bytes).await {
            let refusal = broken("commit an upload", &e);
            // It may have its name, only not for good.
            self.take_back(part).await;
            return Err(refusal);
        }
        // Earlier attempts go before the row is complete: after a crash in between nobody would
        // look for them. The whole part outlasts them, whatever happens next.
        if 0 < part.attempt
            && let Err(e) = self.remove_left_parts(row.id).await
        {
            let refusal = broken("remove earlier attempts", &e);
            self.take_back(part).await;
            return Err(refusal);
        }
        let (settings, generation) = (self.settings.clone(), row.generation);
        let now = self.world.now();
        let change: Change = Box::new(move |row| {
            let lifetimes = &settings.policy.lifetimes;
            row.complete(generation, part, sha256, lifetimes, now)
        });
        match self.stores.sessions.update(row.id, change).await {
            Ok(_) => {
                info!(slot = row.id.short(), size_bytes, "upload complete");
                Ok(Received { sha256 })
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
    ) -> (Progress, Arc<Told>) {
        let told = Arc::new(Told::default());
        let noted_at = Arc::new(AtomicU64::new(self.world.now().0));
        let (service, telling) = (self.clone(), told.clone());
        let (id, generation) = (row.id, row.generation);
        let note_every = NOTE_EVERY.min(row.idle_for / 4).as_secs();
        let progress: Progress = Arc::new(move |offset| {
            telling.durable.store(offset, Ordering::Relaxed);
            let (service, noted_at) = (service.clone(), noted_at.clone());
            let (telling, is_cut) = (telling.clone(), transfer.is_cut());
            async move {
                if is_cut {
                    return Err(telling.refuse(service.cut_refusal()));
                }
                let now = service.world.now();
                // The part's length is the durable offset; the row only has to stay alive.
                if now.0.saturating_sub(noted_at.load(Ordering::Relaxed)) < note_every {
                    return Ok(());
                }
                noted_at.store(now.0, Ordering::Relaxed);
                let change: Change =
                    Box::new(move |row| row.progress(generation, part, offset, now));
                match service.stores.sessions.update(id, change).await {
                    Ok(_) => Ok(()),
                    Err(Failure::Refused(refusal)) => Err(telling.refuse(refusal)),
                    Err(broken) => Err(broken),
                }
            }
            .boxed()
        });
        (progress, told)
    }

    /// Notes how far an attempt came that did not complete; its slot stays usable.
    async fn note_end(&self, row: &UploadSession, part: PartId, offset: u64, why: &Refusal) {
        let slot = row.id.short();
        info!(slot, offset, ?why, "upload interrupted");
        // Bytes that are known to be wrong must not become anybody's prefix.
        let is_wrong = matches!(why, Refusal::TooLong | Refusal::DigestMismatch);
        if is_wrong || offset == 0 {
            if let Err(e) = self.stores.files.remove_part(part).await {
                broken("remove an attempt", &e);
            }
            return;
        }
        let now = self.world.now();
        let change: Change = Box::new(move |mut row| {
            row.settle(part, offset, now);
            Ok(row)
        });
        match self.update(row.id, change).await {
            Ok(next) => self.drop_parts(&[row.prefix.0, part], &next).await,
            Err(refusal) => warn!(slot, ?refusal, "could not note an interrupted upload"),
        }
    }

    /// Removes those of `parts` that `row` has no use for any more.
    pub(super) async fn drop_parts(&self, parts: &[PartId], row: &UploadSession) {
        let kept = row.parts();
        for part in parts.iter().filter(|part| !kept.contains(part)) {
            if let Err(e) = self.stores.files.remove_part(*part).await {
                broken("remove an earlier attempt", &e);
            }
        }
    }

    /// Removes whatever parts a slot has left, also those that a crash kept from being removed.
    async fn remove_left_parts(&self, id: SlotId) -> Result<(), StoreError> {
        for stored in self.stores.files.find(id).await? {
            if let Stored::Part { part, .. } = stored {
                self.stores.files.remove_part(part).await?;
            }
        }
        Ok(())
    }
}
