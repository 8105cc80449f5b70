//! A PUT from its head to 201, or to its refusal: admitted, and then a new attempt or a replay.
//!
//! `write` receives the new attempt. Whatever a request does, its slot stays usable.

use std::sync::{Arc, PoisonError};

use futures_util::StreamExt as _;
use tracing::debug;

use crate::core::refusal::Refusal;
use crate::core::session::{Beginning, Start, State, UploadSession};
use crate::core::slot::{ContentType, PartId, Sha256, SlotId};
use crate::core::time::Timestamp;
use crate::core::token::{self, Claims};
use crate::service::intake::{End, Intake, Pace, SharedGauge};
use crate::service::transfers::Transfer;
use crate::service::{Received, Service, Upload, broken, refusal_of};
use crate::store::{Body, Change};

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
        if !matches!(before.state, State::Complete { .. }) {
            self.check_room(before.file.size_bytes).await?;
        }
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

    pub(super) fn cut_refusal(&self) -> Refusal {
        if self.transfers.is_stopping() {
            Refusal::Stopping
        } else {
            Refusal::TakenOver
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

    pub(super) fn intake(
        &self,
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

    /// Refuses `NoSpace` rather than let the disk fill up under the rows.
    async fn check_room(&self, size_bytes: u64) -> Result<(), Refusal> {
        let free = self.stores.files.room().await;
        let free = free.map_err(|e| broken("ask for free space", &e))?;
        match free.holds(size_bytes, self.settings.policy.reserve) {
            true => Ok(()),
            false => Err(Refusal::NoSpace),
        }
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
