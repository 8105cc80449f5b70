//! What an upload's resume URL allows: to ask for the offset, to go on there, to give up.

use crate::core::refusal::Refusal;
use crate::core::session::{Agreement, Lifetimes, Start, State, UploadSession};
use crate::core::time::Timestamp;
use crate::core::token::ResumeClaims;

impl UploadSession {
    /// The claims of the current generation's resume URL.
    pub fn resume_claims(&self) -> ResumeClaims {
        ResumeClaims {
            id: self.id,
            generation: self.generation,
        }
    }

    /// Notes that the HTTP client goes on by itself, and gives it longer for that.
    pub fn resumable(mut self, lifetimes: &Lifetimes) -> Self {
        if self.agreement == Agreement::Slot && self.is_open() {
            self.agreement = Agreement::Resumable;
            self.idle_for = self.idle_for.max(lifetimes.rufh_idle_for);
        }
        self
    }

    /// Refuses what the resume URL does not open: `UnknownFile` for another slot's, `Gone` for a
    /// dead generation, in a terminal state and past the end, `CredentialExpired` where it has to
    /// be refreshed first. A complete upload answers until its session ends.
    pub fn check_resume(&self, claims: ResumeClaims, now: Timestamp) -> Result<(), Refusal> {
        if claims.id != self.id {
            return Err(Refusal::UnknownFile);
        }
        let is_dead = claims.generation != self.generation
            || self.is_tombstone()
            || self.is_pointless(now)
            || self.expires_at <= now;
        if is_dead {
            return Err(Refusal::Gone);
        }
        if self.is_open() && self.is_idle(now) {
            return Err(Refusal::CredentialExpired);
        }
        Ok(())
    }

    /// Where the next byte belongs: the durable offset, or the size of a complete file.
    pub fn offset(&self) -> u64 {
        match self.state {
            State::Complete { .. } => self.file.size_bytes,
            _ => self.prefix.1,
        }
    }

    /// Admits an append at `offset`; see `start_append`.
    ///
    /// Refuses as `check_resume` does, `OtherOffset` for another than the durable offset, and
    /// `TooManyStarts`.
    pub fn append(
        mut self,
        claims: ResumeClaims,
        offset: u64,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        self.check_resume(claims, now)?;
        self.is_presented = true;
        if offset != self.offset() {
            return Err(Refusal::OtherOffset {
                offset: self.offset(),
            });
        }
        if matches!(self.state, State::Complete { .. }) {
            return Ok(self);
        }
        let place = self.prefix;
        self.start_at(place)
    }

    /// What `append` decided, read back from the row.
    pub fn start_append(&self) -> Option<Start> {
        match self.state {
            State::Complete { sha256, .. } => Some(Start::Done { sha256 }),
            _ => self.start(),
        }
    }

    /// Gives the upload up, by whoever has its resume URL. Refuses as `check_resume` does, and
    /// `AlreadyComplete`.
    pub fn cancel_by_url(mut self, claims: ResumeClaims, now: Timestamp) -> Result<Self, Refusal> {
        self.check_resume(claims, now)?;
        if matches!(self.state, State::Complete { .. }) {
            return Err(Refusal::AlreadyComplete);
        }
        self.state = State::Cancelled;
        Ok(self)
    }
}
