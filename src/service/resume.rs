//! What whoever has an upload's resume URL asks for over HTTP: its offset, or its end.
//!
//! Appends are `receive`'s. Each request cuts the one before it.

use std::sync::{Arc, PoisonError};

use crate::core::event::Canceller;
use crate::core::refusal::Refusal;
use crate::core::session::network::Visitor;
use crate::core::session::{State, UploadSession};
use crate::core::token::{self, ResumeClaims};
use crate::service::upload::{Extant, Offer, Received};
use crate::service::{Service, broken};
use crate::store::Change;

impl Service {
    /// How far the upload behind a resume URL is: an append that starts there is taken.
    ///
    /// Cuts a transfer in flight. Refuses as `UploadSession::check_resume` does.
    pub async fn find_offset(
        self: &Arc<Self>,
        sealed: &str,
        visitor: &Visitor,
    ) -> Result<Received, Refusal> {
        let (claims, row) = self.check_resume(sealed, visitor).await?;
        let (row, offset) = match row.is_open() {
            true => self.settled(row.id).await?,
            false => (row.clone(), row.offset()),
        };
        let now = self.world.now();
        row.check_resume(claims, now)?;
        let (mut seen, visitor) = (row.clone(), visitor.clone());
        if visitor != Visitor::default() {
            seen.note_visitor(&visitor, now);
        }
        // A write for what is new alone: clients ask for the offset often.
        let row = match seen == row || !row.is_open() {
            true => row,
            false => {
                let change: Change = Box::new(move |mut row| {
                    row.check_resume(claims, now)?;
                    row.note_visitor(&visitor, now);
                    Ok(row)
                });
                self.update(row.id, change).await?
            }
        };
        Ok(self.received_at(&row, offset))
    }

    /// Gives the upload behind a resume URL up: nothing of it is left when this returns.
    ///
    /// Refuses as `UploadSession::cancel_by_url` does.
    pub async fn cancel_upload(self: &Arc<Self>, sealed: &str) -> Result<(), Refusal> {
        let (claims, row) = self.check_resume(sealed, &Visitor::default()).await?;
        let now = self.world.now();
        let cancel: Change = Box::new(move |row| row.cancel_by_url(claims, now));
        self.give_up(row.id, cancel, Canceller::ResumeUrl).await
    }

    /// Refuses what the resume URL does not open: before a request is refused for its own sake, so
    /// that a stranger learns nothing by it.
    pub async fn check_resume_url(&self, sealed: &str) -> Result<(), Refusal> {
        let nobody = Visitor::default();
        self.check_resume(sealed, &nobody).await.map(drop)
    }

    /// Opens a resume URL, and notes that it was presented; where that is news, also by whom.
    pub(super) async fn check_resume(
        &self,
        sealed: &str,
        visitor: &Visitor,
    ) -> Result<(ResumeClaims, UploadSession), Refusal> {
        let claims = {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            token::open_resume(&keys, sealed)?
        };
        let row = self.stores.sessions.get(claims.id).await;
        let row = row.map_err(|e| broken("look a slot up", &e))?;
        // We sealed it, so there was such a slot once.
        let row = row.ok_or(Refusal::Gone)?;
        let by = (*visitor != Visitor::default()).then(|| (claims, visitor.clone()));
        let row = self.present(row, claims.generation, by).await?;
        let row = self.with_live_byte(row);
        row.check_resume(claims, self.world.now())?;
        Ok((claims, row))
    }

    /// Notes that a generation's credentials came through to their owner, whatever becomes of the
    /// request: from now on a refresh makes new ones. The first generation needs no note.
    pub(super) async fn present(
        &self,
        row: UploadSession,
        generation: u8,
        by: Option<(ResumeClaims, Visitor)>,
    ) -> Result<UploadSession, Refusal> {
        if row.is_presented || generation == 0 || generation != row.generation || !row.is_open() {
            return Ok(row);
        }
        let now = self.world.now();
        let change: Change = Box::new(move |mut row| {
            row.is_presented |= row.generation == generation;
            // Nobody who is refused is noted.
            if let Some((claims, visitor)) = &by
                && row.check_resume(*claims, now).is_ok()
            {
                row.note_visitor(visitor, now);
            }
            Ok(row)
        });
        self.update(row.id, change).await
    }

    /// The row with the time of the last byte of a transfer in flight.
    pub(super) fn with_live_byte(&self, mut row: UploadSession) -> UploadSession {
        if let Some(last_byte_at) = self.transfers.last_byte_at(row.id) {
            row.last_byte_at = row.last_byte_at.max(last_byte_at);
        }
        row
    }

    /// How far the upload is, and how it goes on.
    pub(super) fn received(&self, row: &UploadSession) -> Received {
        self.received_at(row, row.offset())
    }

    fn received_at(&self, row: &UploadSession, offset: u64) -> Received {
        Received {
            extant: match row.state {
                State::Complete { sha256, .. } => Extant::Complete { sha256 },
                _ => Extant::Partial { offset },
            },
            offer: self.offer(row),
        }
    }

    pub(super) fn offer(&self, row: &UploadSession) -> Offer {
        Offer {
            resume_url: self.resume_url(row),
            size_bytes: row.file.size_bytes,
            expires_in: row.expires_at.since(self.world.now()),
            expires_at: row.expires_at,
        }
    }
}
