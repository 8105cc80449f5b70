//! What an upload's resume URL allows: to ask for the offset, to go on there, to give up.

use crate::core::refusal::Refusal;
use crate::core::session::attempt::Start;
use crate::core::session::{Agreement, Lifetimes, State, UploadSession};
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
        if self.agreement.is_plain() && self.is_open() {
            self.agreement = self.agreement.resumable();
            self.idle_for = self.idle_for.max(lifetimes.rufh_idle_for);
        }
        self
    }

    /// Refuses what the resume URL does not open: `UnknownFile` for another slot's, `Gone` for a
    /// dead generation, in a terminal state and past the end, `CredentialExpired` where its owner
    /// has to refresh it first. A complete upload answers until its session ends.
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
        if !self.is_open() || !self.is_idle(now) {
            return Ok(());
        }
        match self.agreement {
            Agreement::Session(_) => Err(Refusal::CredentialExpired),
            // Nobody can refresh it.
            Agreement::Slot | Agreement::Resumable | Agreement::External { .. } => {
                Err(Refusal::Gone)
            }
        }
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
        match self.prefix {
            // The prefix's part may hold what was found to be wrong.
            (_, 0) => self.start_anew(),
            place => self.start_at(place),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::session::samples::{
        SIZE, announced, at, begin, complete, lifetimes, part, pending, plain, refresh, romeo,
    };
    use crate::core::slot::{Purpose, Sha256, SlotId};

    #[test]
    fn an_append_starts_at_the_durable_offset_alone() {
        let mut row = begin(plain(), 1);
        row.settle(part(0), 600, at(5));
        let claims = row.resume_claims();
        let other = row.clone().append(claims, 500, at(6));
        assert_eq!(other, Err(Refusal::OtherOffset { offset: 600 }));
        let row = row.append(claims, 600, at(6)).expect("admitted");
        assert_eq!(
            row.start(),
            Some(Start::Receive {
                part: part(0),
                from: 600
            })
        );
    }

    #[test]
    fn the_order_of_checks_tells_a_stranger_least() {
        let check =
            |row: &UploadSession, claims, seconds| row.check_resume(claims, at(seconds)).err();
        let row = refresh(begin(announced(), 1), 2);
        let good = row.resume_claims();
        let id = SlotId(8);
        let dead = ResumeClaims {
            generation: 0,
            ..good
        };
        let age = 72 * 3600;
        // Each row has what all rows above it have wrong, and one thing less.
        let foreign = ResumeClaims { id, ..dead };
        assert_eq!(check(&row, foreign, age), Some(Refusal::UnknownFile));
        assert_eq!(check(&row, dead, 303), Some(Refusal::Gone));
        assert_eq!(check(&row, good, age), Some(Refusal::Gone));
        assert_eq!(check(&row, good, 303), Some(Refusal::CredentialExpired));
        assert_eq!(check(&row, good, 302), None);
        let cancelled = row.cancel(&romeo(), at(3)).expect("open");
        assert_eq!(check(&cancelled, good, 3), Some(Refusal::Gone));
    }

    #[test]
    fn an_upload_that_nobody_can_refresh_is_gone_when_idle() {
        let row = begin(plain(), 1).resumable(&lifetimes());
        let claims = row.resume_claims();
        assert_eq!(row.check_resume(claims, at(3600)), Ok(()));
        assert_eq!(row.check_resume(claims, at(3601)), Err(Refusal::Gone));
        // An owner who asked for a session is asked to refresh it.
        let row = begin(announced(), 1).resumable(&lifetimes());
        let idle = row.check_resume(claims, at(301));
        assert_eq!(idle, Err(Refusal::CredentialExpired));
    }

    #[test]
    fn a_complete_upload_answers_until_its_session_ends() {
        let row = complete();
        let claims = row.resume_claims();
        let last = 72 * 3600 - 1;
        assert_eq!(row.check_resume(claims, at(last)), Ok(()));
        assert_eq!(row.check_resume(claims, at(last + 1)), Err(Refusal::Gone));
        assert_eq!(row.offset(), SIZE);
        let again = row
            .clone()
            .append(claims, SIZE, at(9))
            .expect("nothing more");
        let sha256 = Sha256([9; 32]);
        assert_eq!(again.start_append(), Some(Start::Done { sha256 }));
        let other = row.clone().append(claims, 0, at(9));
        assert_eq!(other, Err(Refusal::OtherOffset { offset: SIZE }));
        let cancelled = row.cancel_by_url(claims, at(9));
        assert_eq!(cancelled, Err(Refusal::AlreadyComplete));
    }

    #[test]
    fn a_file_that_would_never_be_served_is_gone() {
        let expire_before = at(60);
        let row = begin(pending(Purpose::Ephemeral { expire_before }), 1);
        let claims = row.resume_claims();
        assert_eq!(row.check_resume(claims, at(59)), Ok(()));
        assert_eq!(row.check_resume(claims, at(60)), Err(Refusal::Gone));
    }

    #[test]
    fn an_append_at_the_first_byte_has_a_part_of_its_own() {
        let row = announced();
        let claims = row.resume_claims();
        let mut row = row.append(claims, 0, at(1)).expect("admitted");
        assert_eq!(row.newest, Some((part(0), 0)));
        row.end_attempt(part(0), 0, at(2));
        let row = row.append(claims, 0, at(3)).expect("admitted");
        assert_eq!(row.newest, Some((part(1), 0)));
    }

    #[test]
    fn whoever_has_the_url_may_give_up_and_no_other_generation() {
        let row = announced();
        let old = row.resume_claims();
        let row = refresh(row, 1);
        let dead = row.clone().cancel_by_url(old, at(2));
        assert_eq!(dead, Err(Refusal::Gone));
        let claims = row.resume_claims();
        let row = row.cancel_by_url(claims, at(2)).expect("open");
        assert_eq!(row.state, State::Cancelled);
        assert_eq!(row.cancel_by_url(claims, at(2)), Err(Refusal::Gone));
    }
}
