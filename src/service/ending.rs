//! How an attempt ends that does not complete its upload: its bytes are noted, and what has no use
//! goes.
//!
//! The row goes first: a part that nobody removed is nobody's, and goes with its upload.

use std::sync::Arc;

use futures_util::FutureExt as _;
use tracing::info;

use crate::core::event::Event;
use crate::core::refusal::Refusal;
use crate::core::session::{FailReason, UploadSession};
use crate::core::slot::{PartId, SlotId};
use crate::service::upload::Received;
use crate::service::write::Attempt;
use crate::service::{Service, broken};
use crate::store::{Body, Change, Failure, Progress, StoreError, Stored};

impl Service {
    /// Takes bytes off again whose checksum was wrong, or never seen: nobody was told of them.
    pub(super) async fn cut_back(&self, part: PartId, from: u64) -> Result<(), Refusal> {
        let cut = self.cut_part(part, from).await;
        cut.map_err(|e| broken("cut an upload back", &e))
    }

    /// Leaves the first `length` bytes of a part, durably; needs no room for it.
    pub(super) async fn cut_part(&self, part: PartId, length: u64) -> Result<(), StoreError> {
        let files = &self.stores.files;
        if length == 0 {
            return files.remove_part(part).await;
        }
        let nothing: Body = Box::pin(futures_util::stream::empty());
        let ignore: Progress = Arc::new(|_| futures_util::future::ready(Ok(())).boxed());
        match files.append(part, length, length, nothing, ignore).await {
            Err(Failure::Broken(e)) => return Err(e),
            Ok(_) | Err(Failure::Refused(_)) => {}
        }
        // Durable before the next attempt is: after a crash they would be there again.
        files.settle(part).await?;
        Ok(())
    }

    /// Lets bytes count whose checksum was right.
    pub(super) async fn vouch(&self, attempt: &Attempt<'_>, offset: u64) -> Result<(), Refusal> {
        let (generation, part) = (attempt.row.generation, attempt.part);
        let now = self.world.now();
        let change: Change = Box::new(move |row| row.vouch(generation, part, offset, now));
        self.update(attempt.row.id, change).await?;
        Ok(())
    }

    /// Ends an attempt whose bytes are not the file's; see `UploadSession::reject`.
    pub(super) async fn reject(&self, attempt: &Attempt<'_>, offset: u64, reason: FailReason) {
        let Attempt { row, part, .. } = *attempt;
        info!(slot = row.id.short(), ?reason, "upload rejected");
        let (generation, now) = (row.generation, self.world.now());
        let change: Change =
            Box::new(move |row| row.reject(generation, (part, offset), reason, now));
        let next = match self.stores.sessions.update(row.id, change).await {
            Ok(next) => next,
            // Replaced meanwhile: the bytes are as good as those of any attempt that was cut.
            Err(Failure::Refused(_)) => return self.note_end(attempt, offset).await,
            Err(Failure::Broken(e)) => {
                broken("note a rejected upload", &e);
                return;
            }
        };
        self.tell(Event::UploadRejected {
            row,
            offset,
            reason,
        });
        self.hashes.forget(row.id);
        let removed = match next.is_open() {
            true => self.stores.files.remove_part(part).await,
            false => self.stores.files.remove(row.id).await,
        };
        if let Err(e) = removed {
            broken("remove a rejected upload", &e);
        }
    }

    /// Ends an attempt whose bytes are all there, with more to come by another one.
    pub(super) async fn end_part(
        &self,
        attempt: &Attempt<'_>,
        offset: u64,
    ) -> Result<Received, Refusal> {
        let Attempt { row, part, .. } = *attempt;
        let (generation, now) = (row.generation, self.world.now());
        let change: Change = Box::new(move |row| {
            let mut row = row.progress(generation, part, offset, now)?;
            row.end_attempt(part, offset, now);
            Ok(row)
        });
        match self.update(row.id, change).await {
            Ok(next) => {
                self.drop_parts(&[row.prefix.0, part], &next).await;
                Ok(self.received(&next))
            }
            // Whoever was replaced must not learn where the upload goes on.
            Err(refusal) => {
                self.note_end(attempt, offset).await;
                Err(refusal)
            }
        }
    }

    /// Notes how far an attempt came that did not complete; its slot stays usable.
    ///
    /// What could not be noted is found by the next request, as after a crash.
    pub(super) async fn note_end(&self, attempt: &Attempt<'_>, offset: u64) {
        let Attempt {
            row, part, from, ..
        } = *attempt;
        let mut offset = offset;
        if attempt.is_held_back {
            if self.cut_back(part, from).await.is_err() {
                return;
            }
            offset = from;
        }
        let now = self.world.now();
        let change: Change = Box::new(move |mut row| {
            row.end_attempt(part, offset, now);
            Ok(row)
        });
        if let Ok(next) = self.update(row.id, change).await {
            self.drop_parts(&[row.prefix.0, part], &next).await;
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
    pub(super) async fn remove_left_parts(&self, id: SlotId) -> Result<(), StoreError> {
        for stored in self.stores.files.find(id).await? {
            if let Stored::Part { part, .. } = stored {
                self.stores.files.remove_part(part).await?;
            }
        }
        Ok(())
    }
}
