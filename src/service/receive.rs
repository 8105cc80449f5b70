//! A PUT on its way from the first byte to 201, or to its refusal.
//!
//! Order of durability: bytes, then name, then row, then the answer. What was received of an
//! attempt that did not end stays as the slot's prefix, and the slot stays usable.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use tracing::{debug, info, warn};

use crate::core::refusal::Refusal;
use crate::core::session::{Beginning, Start, State, UploadSession};
use crate::core::slot::{ContentType, PartId, Sha256, SlotId};
use crate::core::time::Timestamp;
use crate::core::token::{self, Claims};
use crate::service::intake::{End, Intake, Pace, SharedGauge};
use crate::service::transfers::Transfer;
use crate::service::{Received, Service, Upload, broken, refusal_of};
use crate::store::{Body, Change, Failure, Progress, StoreError, Stored};

/// How often a running upload writes down that it lives.
const NOTE_EVERY: Duration = Duration::from_secs(60);

impl Service {
    /// Takes a PUT.
    ///
    /// `body` is not polled before the request is admitted, so that a refusal comes before `100
    /// Continue`. Goes on when the caller's future is dropped: what has come is made durable and
    /// noted. Refuses as `UploadSession::begin` does, `TooShort`, `TooLong` and `OtherContentType`
    /// by the request's head; then by what the body turned out to be.
    pub async fn receive(
        self: &Arc<Self>,
        upload: Upload,
        body: Body,
    ) -> Result<Received, Refusal> {
        let (claims, row) = self.check_upload(&upload).await?;
        debug!(slot = row.id.short(), "upload begins");
        let service = self.clone();
        // A task of its own, since a connection that breaks takes its handler with it.
        let receiving = tokio::spawn(async move { service.run_upload(upload, claims, body).await });
        receiving.await.unwrap_or_else(|e| {
            tracing::error!(error = %e, "an upload's task ended early");
            Err(Refusal::Broken)
        })
    }

    /// Everything that can be refused without disturbing a running upload.
    async fn check_upload(&self, upload: &Upload) -> Result<(Claims, UploadSession), Refusal> {
        let claims = {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            token::open(&keys, &upload.token)?
        };
        if claims.id != upload.id {
            return Err(Refusal::TokenForOther);
        }
        let row = self.stores.sessions.get(upload.id).await;
        let row = row.map_err(|e| broken("look a slot up", &e))?;
        // We sealed its token, so there was such a slot once.
        let mut row = row.ok_or(Refusal::Gone)?;
        if let Some(last_byte_at) = self.transfers.last_byte_at(row.id) {
            row.last_byte_at = row.last_byte_at.max(last_byte_at);
        }
        row.clone()
            .begin(&claims, Beginning::Whole, self.world.now())?;
        if upload.name != row.file.name.as_str() {
            return Err(Refusal::TokenForOther);
        }
        match upload.length {
            Some(length) if length < row.file.size_bytes => return Err(Refusal::TooShort),
            Some(length) if row.file.size_bytes < length => return Err(Refusal::TooLong),
            _ => {}
        }
        if self.settings.check_content_type {
            check_content_type(&row.file.content_type, upload.content_type.as_deref())?;
        }
        Ok((claims, row))
    }

    async fn run_upload(
        self: Arc<Self>,
        upload: Upload,
        claims: Claims,
        body: Body,
    ) -> Result<Received, Refusal> {
        let transfer = Arc::new(self.transfers.begin(upload.id).await?);
        let before = self.stores.sessions.get(upload.id).await;
        let before = before.map_err(|e| broken("look a slot up", &e))?;
        let before = before.ok_or(Refusal::Gone)?;
        let left_over = self.left_over(&before).await?;
        let now = self.world.now();
        transfer.note_byte(now);
        let change: Change = Box::new(move |mut row| {
            if let Some((part, offset)) = left_over {
                row.settle(part, offset, Timestamp::default());
            }
            row.begin(&claims, Beginning::Whole, now)
        });
        let row = self.update(before.id, change).await?;
        self.drop_parts(&before.parts(), &row).await;
        match row.start() {
            Some(Start::Receive { part, from: _ }) => {
                self.write(&row, part, upload.sha256, body, transfer).await
            }
            Some(Start::Replay { sha256 }) => {
                self.replay(&row, sha256, upload.sha256, body, transfer)
                    .await
            }
            None => Err(Refusal::Gone),
        }
    }

    /// What an attempt that nobody ended (a crash did) has left.
    async fn left_over(&self, row: &UploadSession) -> Result<Option<(PartId, u64)>, Refusal> {
        match (row.state, row.newest) {
            (State::Uploading, Some((part, _))) => {
                let length = self.stores.files.settle(part).await;
                let length = length.map_err(|e| broken("look for an earlier attempt", &e))?;
                Ok(Some((part, length)))
            }
            _ => Ok(None),
        }
    }

    /// Receives a new attempt's bytes, and completes the upload where all came.
    async fn write(
        self: &Arc<Self>,
        row: &UploadSession,
        part: PartId,
        announced: Option<Sha256>,
        body: Body,
        transfer: Arc<Transfer>,
    ) -> Result<Received, Refusal> {
        let size_bytes = row.file.size_bytes;
        self.check_room(size_bytes).await?;
        let (intake, gauge) = self.intake(body, size_bytes, &transfer);
        let (progress, durable) = self.progress(row, part, transfer.clone());
        let files = &self.stores.files;
        let appended = files
            .append(part, 0, size_bytes, Box::pin(intake), progress)
            .await;
        let offset = match &appended {
            Ok(offset) => *offset,
            Err(_) => durable.load(Ordering::Relaxed),
        };
        let outcome = match appended {
            Ok(_) => self.judge(&gauge, offset, size_bytes, announced, &transfer),
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
        transfer: &Transfer,
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
            // The store was told to stop before the body could be.
            End::Open if transfer.is_cut() => Err(self.cut_refusal()),
            End::Interrupted | End::Open => Err(Refusal::Interrupted),
        }
    }

    fn cut_refusal(&self) -> Refusal {
        if self.transfers.is_stopping() {
            Refusal::Stopping
        } else {
            Refusal::TakenOver
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

    /// Compares a repeated PUT with the complete file: a lost 201 is given again.
    async fn replay(
        &self,
        row: &UploadSession,
        sha256: Sha256,
        announced: Option<Sha256>,
        body: Body,
        transfer: Arc<Transfer>,
    ) -> Result<Received, Refusal> {
        let received = match announced {
            Some(announced) => announced,
            None => {
                let (mut intake, gauge) = self.intake(body, row.file.size_bytes, &transfer);
                while let Some(Ok(_)) = intake.next().await {}
                match gauge.end() {
                    End::Stalled => return Err(Refusal::Stalled),
                    End::Cut => return Err(self.cut_refusal()),
                    End::Interrupted | End::Open => return Err(Refusal::Interrupted),
                    // What passed may be the whole file; what came is not.
                    End::TooLong => return Err(Refusal::AlreadyComplete),
                    End::Whole => gauge.sha256(),
                }
            }
        };
        debug!(slot = row.id.short(), same = received == sha256, "replay");
        if received == sha256 {
            Ok(Received { sha256 })
        } else {
            Err(Refusal::AlreadyComplete)
        }
    }

    fn intake(
        self: &Service,
        body: Body,
        n_bytes_max: u64,
        transfer: &Arc<Transfer>,
    ) -> (Intake, SharedGauge) {
        let pace = Pace {
            stall_for: self.settings.stall_for,
            rate_min_bytes: self.settings.rate_min_bytes,
        };
        let (world, noting) = (self.world.clone(), transfer.clone());
        let on_bytes = Box::new(move || noting.note_byte(world.now()));
        Intake::new(body, n_bytes_max, pace, transfer.cut(), on_bytes)
    }

    /// What the file store is told to do whenever more bytes are durable; and how many were.
    fn progress(
        self: &Arc<Self>,
        row: &UploadSession,
        part: PartId,
        transfer: Arc<Transfer>,
    ) -> (Progress, Arc<AtomicU64>) {
        let durable = Arc::new(AtomicU64::new(0));
        let noted_at = Arc::new(AtomicU64::new(self.world.now().0));
        let (service, durable_too) = (self.clone(), durable.clone());
        let (id, generation) = (row.id, row.generation);
        let note_every = NOTE_EVERY.min(row.idle_for / 4).as_secs();
        let progress: Progress = Arc::new(move |offset| {
            durable.store(offset, Ordering::Relaxed);
            let (service, noted_at) = (service.clone(), noted_at.clone());
            let is_cut = transfer.is_cut();
            async move {
                if is_cut {
                    return Err(Failure::Refused(service.cut_refusal()));
                }
                let now = service.world.now();
                // The part's length is the durable offset; the row only has to stay alive.
                if note_every <= now.0.saturating_sub(noted_at.load(Ordering::Relaxed)) {
                    noted_at.store(now.0, Ordering::Relaxed);
                    let change: Change =
                        Box::new(move |row| row.progress(generation, part, offset, now));
                    service.stores.sessions.update(id, change).await?;
                }
                Ok(())
            }
            .boxed()
        });
        (progress, durable_too)
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
    async fn drop_parts(&self, parts: &[PartId], row: &UploadSession) {
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

    /// Refuses `NoSpace` rather than let the disk fill up under the rows.
    async fn check_room(&self, size_bytes: u64) -> Result<(), Refusal> {
        let free = self.stores.files.room().await;
        let free = free.map_err(|e| broken("ask for free space", &e))?;
        let reserve = self.settings.policy.reserve;
        let needed_bytes = reserve.bytes.saturating_add(size_bytes);
        if free.bytes < needed_bytes || free.inodes <= reserve.inodes {
            return Err(Refusal::NoSpace);
        }
        Ok(())
    }

    pub(super) async fn update(
        &self,
        id: SlotId,
        change: Change,
    ) -> Result<UploadSession, Refusal> {
        let updated = self.stores.sessions.update(id, change).await;
        updated.map_err(|failure| refusal_of("change a slot", failure))
    }
}

/// Refuses `OtherContentType`; an absent or empty type is nobody's other.
fn check_content_type(expected: &ContentType, got: Option<&str>) -> Result<(), Refusal> {
    let Some(got) = got.filter(|got| !got.trim().is_empty()) else {
        return Ok(());
    };
    match ContentType::parse(got) {
        Ok(got) if got.essence() == expected.essence() => Ok(()),
        _ => Err(Refusal::OtherContentType),
    }
}
