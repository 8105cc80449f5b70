//! A slot's bytes coming in: written, judged, and made the file or kept as the prefix.
//!
//! Order of durability: bytes, then name, then row.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use sha2::Digest as _;
use tracing::{info, warn};

use crate::core::refusal::Refusal;
use crate::core::resume::{Checksum, Extent};
use crate::core::session::{FailReason, UploadSession};
use crate::core::slot::{PartId, Sha256, SlotId};
use crate::service::intake::{End, SharedGauge, Sum};
use crate::service::transfers::Transfer;
use crate::service::upload::Received;
use crate::service::{Service, broken, refusal_of};
use crate::store::{Body, Change, Failure, Progress, StoreError, Stored};

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

impl Service {
    /// Takes a request's bytes in, and completes the upload where all are there.
    pub(super) async fn write(
        self: &Arc<Self>,
        row: &UploadSession,
        incoming: Incoming,
        transfer: Arc<Transfer>,
    ) -> Result<Received, Refusal> {
        let size_bytes = row.file.size_bytes;
        let Incoming { part, from, .. } = incoming;
        transfer.note_durable(from);
        let hasher = self.hash_prefix(part, from, &transfer).await?;
        let sum = incoming.checksum.map(Sum::expecting);
        // What may have to be cut off again must not be told to anybody.
        let tells = match sum {
            Some(_) => Tells::No,
            None => Tells::Yes,
        };
        let n_bytes_max = size_bytes - from;
        let (intake, gauge) = self.intake(incoming.body, n_bytes_max, (hasher, sum), &transfer);
        let (progress, told) = self.progress(row, part, transfer.clone(), tells);
        let files = &self.stores.files;
        let appended = files
            .append(part, from, size_bytes, Box::pin(intake), progress)
            .await;
        let offset = match &appended {
            Ok(offset) => *offset,
            Err(_) => told.durable.load(Ordering::Relaxed).max(from),
        };
        if offset == from + gauge.n_bytes() {
            self.hashes.put(part, offset, gauge.hasher());
        }
        let judged = match appended {
            Ok(_) => match told.refused() {
                Some(refusal) => Err(refusal),
                None => self.judge(&gauge, offset, size_bytes, incoming.extent),
            },
            Err(failure) => Err(refusal_of("write an upload", failure)),
        };
        let announced = [incoming.sha256, row.expected];
        match judged {
            Ok(Judged::Whole(sha256)) if announced.iter().flatten().any(|it| *it != sha256) => {
                let refusal = Refusal::DigestMismatch;
                self.reject(row, part, FailReason::DigestMismatch).await;
                Err(refusal)
            }
            Ok(Judged::Whole(sha256)) => self.finish(row, (part, from), sha256).await,
            Ok(Judged::Part) => {
                let row = self.note_end(row, part, offset).await?;
                Ok(self.received(&row))
            }
            Err(Refusal::ChecksumMismatch) => {
                self.cut_back(part, from, size_bytes).await?;
                Err(Refusal::ChecksumMismatch)
            }
            Err(Refusal::TooLong) => {
                self.reject(row, part, FailReason::SizeMismatch).await;
                Err(Refusal::TooLong)
            }
            Err(refusal) => {
                info!(slot = row.id.short(), offset, why = ?refusal, "upload interrupted");
                // Why it could not be noted was logged; the client is told why it was cut.
                let noted = self.note_end(row, part, offset).await;
                drop(noted);
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
        if let Some(hasher) = self.hashes.get(part, from) {
            return Ok(hasher);
        }
        let body = self.stores.files.open_part(part, from).await;
        let mut body = body.map_err(|e| broken("read an upload again", &e))?;
        let mut hasher = sha2::Sha256::new();
        while let Some(piece) = body.next().await {
            if transfer.is_cut() {
                return Err(self.cut_refusal());
            }
            hasher.update(&piece.map_err(|_| Refusal::Broken)?);
        }
        Ok(hasher)
    }

    /// Takes bytes with a wrong checksum off again: the offset was not told to anybody.
    async fn cut_back(&self, part: PartId, from: u64, size_bytes: u64) -> Result<(), Refusal> {
        self.hashes.forget(part.slot);
        let nothing: Body = Box::pin(futures_util::stream::empty());
        let ignore: Progress = Arc::new(|_| futures_util::future::ready(Ok(())).boxed());
        let files = &self.stores.files;
        let cut = files.append(part, from, size_bytes, nothing, ignore).await;
        cut.map_err(|failure| refusal_of("cut an upload back", failure))?;
        Ok(())
    }

    /// Ends an attempt whose bytes are not the file's; see `UploadSession::reject`.
    async fn reject(&self, row: &UploadSession, part: PartId, reason: FailReason) {
        info!(slot = row.id.short(), ?reason, "upload rejected");
        self.hashes.forget(row.id);
        let change: Change = Box::new(move |row| Ok(row.reject(part, reason)));
        match self.update(row.id, change).await {
            Ok(row) => {
                let removed = match row.is_open() {
                    true => self.stores.files.remove_part(part).await,
                    false => self.stores.files.remove(row.id).await,
                };
                if let Err(e) = removed {
                    broken("remove a rejected upload", &e);
                }
            }
            Err(refusal) => warn!(?refusal, "could not note a rejected upload"),
        }
    }

    /// File before row: a row that says complete has its file.
    async fn finish(
        &self,
        row: &UploadSession,
        (part, from): (PartId, u64),
        sha256: Sha256,
    ) -> Result<Received, Refusal> {
        let size_bytes = row.file.size_bytes;
        if let Err(refusal) = self.settings.policy.access.check(&row.owner) {
            // Allowed when the slot was issued, and no more.
            self.reject(row, part, FailReason::Policy).await;
            return Err(refusal);
        }
        if let Err(e) = self.stores.files.commit(part, size_bytes).await {
            let refusal = broken("commit an upload", &e);
            // It may have its name, only not for good.
            self.take_back(part).await;
            return Err(refusal);
        }
        // Earlier attempts go before the row is complete: after a crash in between nobody would
        // look for them. The whole part outlasts them, whatever happens next.
        if (0 < part.attempt || 0 < from)
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
            Ok(row) => {
                info!(slot = row.id.short(), size_bytes, "upload complete");
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
        let note_every = NOTE_EVERY.min(row.idle_for / 4).as_secs();
        let progress: Progress = Arc::new(move |offset| {
            telling.durable.store(offset, Ordering::Relaxed);
            let (service, noted_at) = (service.clone(), noted_at.clone());
            let (telling, is_cut) = (telling.clone(), transfer.is_cut());
            if tells == Tells::Yes {
                transfer.note_durable(offset);
            }
            async move {
                if is_cut {
                    return Err(telling.refuse(service.cut_refusal()));
                }
                let now = service.world.now();
                // The part's length is the durable offset; the row only has to stay alive.
                let is_noted = now.0.saturating_sub(noted_at.load(Ordering::Relaxed)) < note_every;
                if is_noted || tells == Tells::No {
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
    async fn note_end(
        &self,
        row: &UploadSession,
        part: PartId,
        offset: u64,
    ) -> Result<UploadSession, Refusal> {
        if offset == 0 {
            if let Err(e) = self.stores.files.remove_part(part).await {
                broken("remove an attempt", &e);
            }
            return Ok(row.clone());
        }
        let now = self.world.now();
        let change: Change = Box::new(move |mut row| {
            row.settle(part, offset, now);
            Ok(row)
        });
        let next = self.update(row.id, change).await?;
        self.drop_parts(&[row.prefix.0, part], &next).await;
        Ok(next)
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
