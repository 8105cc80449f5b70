//! What the owner of an upload may do with it, whatever its requests do.

use std::time::Duration;

use jid::BareJid;

use crate::core::refusal::Refusal;
use crate::core::session::{Agreement, FailReason, Lifetimes, State, UploadSession};
use crate::core::slot::{SessionId, Sha256};
use crate::core::time::Timestamp;

/// How long after a refresh that made a new generation the next one may come.
pub const REFRESH_PAUSE: Duration = Duration::from_secs(5);
/// How often one generation's credentials are issued again because the reply was lost.
pub const REISSUES_MAX: u8 = 5;

/// How an upload stands, as its owner is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No request has come yet.
    Pending,
    /// Bytes came, or a request did.
    Uploading,
    /// The file is served.
    Complete {
        /// Its digest.
        sha256: Sha256,
    },
    /// It cannot go on.
    Failed(FailReason),
    /// The owner gave it up.
    Cancelled,
    /// Its time ran out.
    Expired,
}

impl Standing {
    /// As it is written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Uploading => "uploading",
            Self::Complete { .. } => "complete",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

impl UploadSession {
    /// How it stands at `now`, also where the sweep is late.
    pub fn standing(&self, now: Timestamp) -> Standing {
        match self.state {
            State::Complete { sha256, .. } => Standing::Complete { sha256 },
            State::Failed(reason) => Standing::Failed(reason),
            State::Cancelled => Standing::Cancelled,
            State::Expired => Standing::Expired,
            State::Pending | State::Uploading if self.expires_at <= now => Standing::Expired,
            State::Pending => Standing::Pending,
            State::Uploading => Standing::Uploading,
        }
    }

    /// The name its owner knows it by, if the owner asked for an upload session.
    pub fn session_id(&self) -> Option<SessionId> {
        match self.agreement {
            Agreement::Session(id) => Some(id),
            Agreement::Slot | Agreement::Resumable | Agreement::External { .. } => None,
        }
    }

    /// Whether it counts towards its owner's open upload sessions.
    pub fn is_open_session(&self) -> bool {
        self.session_id().is_some() && self.is_open()
    }

    /// How long a request with the current credentials may still start.
    pub fn credential_left(&self, now: Timestamp) -> Duration {
        self.idle_at().min(self.expires_at).since(now)
    }

    /// How many refreshes are left under `lifetimes`.
    pub fn refreshes_left(&self, lifetimes: &Lifetimes) -> u8 {
        lifetimes.refreshes_max.saturating_sub(self.refreshes)
    }

    /// Refuses `UnknownSession` to anybody but the owner of an announced session: nobody learns
    /// from the answer whether somebody else's session exists.
    pub fn check_owner(&self, owner: &BareJid) -> Result<(), Refusal> {
        match *owner == self.owner && self.session_id().is_some() {
            true => Ok(()),
            false => Err(Refusal::UnknownSession),
        }
    }

    /// Makes a new generation of credentials, by which the old ones die. Owner only.
    ///
    /// Where the last reply was lost (nobody has presented what it held), the same generation is
    /// issued again and nothing is used up. A complete session is returned as it is. Refuses
    /// `UnknownSession`, `SessionExpired`, `SessionCancelled`, `SessionFailed`, `RefreshTooSoon`
    /// and `RefreshLimitReached`.
    pub fn refresh(
        mut self,
        owner: &BareJid,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        self.check_refresh(owner, now)?;
        if !self.is_open() {
            return Ok(self);
        }
        if self.is_reply_lost(now) {
            self.reissues += 1;
            self.issued_at = self.issued_at.max(now);
            return Ok(self);
        }
        let limit = lifetimes.refreshes_max;
        if limit <= self.refreshes || self.generation == u8::MAX {
            return Err(Refusal::RefreshLimitReached { limit });
        }
        let next_at = self.refreshed_at.plus(REFRESH_PAUSE);
        // A clock that was set back must not hold the owner up.
        let is_just_now = self.refreshed_at <= now && now < next_at;
        if 0 < self.refreshes && is_just_now {
            return Err(Refusal::RefreshTooSoon { retry_at: next_at });
        }
        self.generation += 1;
        self.refreshes += 1;
        self.refreshed_at = now;
        self.issued_at = now;
        self.reissues = 0;
        self.is_presented = false;
        self.fruitless_starts = 0;
        Ok(self)
    }

    /// Refuses what `refresh` refuses whenever it comes: `UnknownSession`, `SessionExpired`,
    /// `SessionCancelled` and `SessionFailed`.
    pub fn check_refresh(&self, owner: &BareJid, now: Timestamp) -> Result<(), Refusal> {
        self.check_owner(owner)?;
        match self.standing(now) {
            Standing::Pending | Standing::Uploading | Standing::Complete { .. } => Ok(()),
            Standing::Failed(reason) => Err(Refusal::SessionFailed { reason }),
            Standing::Cancelled => Err(Refusal::SessionCancelled),
            Standing::Expired => Err(Refusal::SessionExpired),
        }
    }

    /// Whether the reply to the last refresh seems not to have come through.
    fn is_reply_lost(&self, now: Timestamp) -> bool {
        0 < self.refreshes
            && !self.is_presented
            && self.reissues < REISSUES_MAX
            && now < self.issued_at.plus(self.idle_for)
    }

    /// Gives the upload up; owner only. Repeating it is no error.
    ///
    /// Refuses `UnknownSession`, `SessionComplete` and `SessionExpired`.
    pub fn cancel(mut self, owner: &BareJid, now: Timestamp) -> Result<Self, Refusal> {
        self.check_owner(owner)?;
        match self.standing(now) {
            Standing::Complete { .. } => Err(Refusal::SessionComplete),
            Standing::Expired => Err(Refusal::SessionExpired),
            Standing::Failed(_) | Standing::Cancelled => Ok(self),
            Standing::Pending | Standing::Uploading => {
                self.state = State::Cancelled;
                Ok(self)
            }
        }
    }

    /// Ends an upload whoever its owner is. Refuses `SessionComplete`, and `Gone` for one that has
    /// ended.
    pub fn abort(mut self) -> Result<Self, Refusal> {
        match self.state {
            State::Pending | State::Uploading => {
                self.state = State::Cancelled;
                Ok(self)
            }
            State::Complete { .. } => Err(Refusal::SessionComplete),
            State::Failed(_) | State::Cancelled | State::Expired => Err(Refusal::Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::session::samples::{
        announced, at, begin, complete, juliet, lifetimes, part, plain, refresh, romeo,
    };

    #[test]
    fn a_refresh_kills_the_old_generation() {
        let row = begin(announced(), 1);
        let old_claims = row.put_claims();
        let row = row.refresh(&romeo(), &lifetimes(), at(9)).expect("owner");
        assert_eq!(
            row.clone().progress(0, part(0), 10, at(10)),
            Err(Refusal::TakenOver)
        );
        assert_eq!(
            row.clone().begin(&old_claims, at(10)),
            Err(Refusal::TokenInvalid)
        );
        assert!(begin(row, 10).start().is_some());
    }

    #[test]
    fn refreshes_are_the_owners_and_counted() {
        let mut row = announced();
        let other = row.clone().refresh(&juliet(), &lifetimes(), at(1));
        assert_eq!(other, Err(Refusal::UnknownSession));
        let other = row.clone().cancel(&juliet(), at(1));
        assert_eq!(other, Err(Refusal::UnknownSession));
        for n in 1..=10 {
            row = row
                .refresh(&romeo(), &lifetimes(), at(5 * n))
                .expect("owner");
            row.is_presented = true;
        }
        let eleventh = row.refresh(&romeo(), &lifetimes(), at(60));
        assert_eq!(eleventh, Err(Refusal::RefreshLimitReached { limit: 10 }));
    }

    fn presented(mut row: UploadSession) -> UploadSession {
        row.is_presented = true;
        row
    }

    fn refusal(row: &UploadSession, seconds: u64) -> Option<Refusal> {
        row.clone()
            .refresh(&romeo(), &lifetimes(), at(seconds))
            .err()
    }

    #[test]
    fn a_lost_reply_costs_nothing_five_times() {
        let mut row = refresh(announced(), 1);
        for n in 1..=REISSUES_MAX {
            // No pause is needed.
            row = refresh(row, 1);
            assert_eq!((row.generation, row.refreshes, row.reissues), (1, 1, n));
        }
        let retry_at = at(1).plus(REFRESH_PAUSE);
        assert_eq!(refusal(&row, 5), Some(Refusal::RefreshTooSoon { retry_at }));
        let sixth = refresh(row, 6);
        assert_eq!(
            (sixth.generation, sixth.refreshes, sixth.reissues),
            (2, 2, 0)
        );
        assert_eq!(refresh(sixth, 6).reissues, 1);
    }

    #[test]
    fn a_reissue_is_for_credentials_that_nobody_presented_in_time() {
        // The slot's own answer is no refresh.
        assert_eq!(refresh(announced(), 0).generation, 1);
        let row = refresh(announced(), 1);
        let again = refresh(row.clone(), 100);
        assert_eq!((again.generation, again.issued_at), (1, at(100)));
        // The time runs from the issue that came last.
        assert_eq!(refresh(again.clone(), 399).generation, 1);
        assert_eq!(refresh(again, 400).generation, 2);
        assert_eq!(refresh(presented(row), 100).generation, 2);
    }

    #[test]
    fn refreshes_keep_their_pace_but_not_from_the_slot() {
        let first = presented(refresh(announced(), 0));
        let retry_at = at(5);
        let soon = Refusal::RefreshTooSoon { retry_at };
        assert_eq!(refusal(&first, 4), Some(soon));
        assert_eq!(refresh(first.clone(), 5).generation, 2);
        // A clock that was set back holds nobody up.
        let mut ahead = first;
        ahead.refreshed_at = at(86_400);
        assert_eq!(refresh(ahead, 9).generation, 2);
    }

    #[test]
    fn every_end_has_its_answer() {
        let sha256 = Sha256([9; 32]);
        assert_eq!(refresh(complete(), 9), complete());
        assert_eq!(complete().standing(at(9)), Standing::Complete { sha256 });
        let reason = FailReason::SizeMismatch;
        let mut failed = announced();
        failed.state = State::Failed(reason);
        let cancelled = announced().cancel(&romeo(), at(1)).expect("open");
        let age = 72 * 3600;
        for (row, seconds, refreshed, ended) in [
            (&failed, 9, Refusal::SessionFailed { reason }, None),
            (&cancelled, 9, Refusal::SessionCancelled, None),
            (
                &announced(),
                age,
                Refusal::SessionExpired,
                Some(Refusal::SessionExpired),
            ),
            (
                &announced().expire(),
                9,
                Refusal::SessionExpired,
                Some(Refusal::SessionExpired),
            ),
        ] {
            assert_eq!(refusal(row, seconds), Some(refreshed));
            let again = row.clone().cancel(&romeo(), at(seconds));
            assert_eq!(again.clone().err(), ended);
            assert_eq!(again.unwrap_or_else(|_| row.clone()), *row);
        }
        assert_eq!(refresh(announced(), age - 1).generation, 1);
        let complete = complete().cancel(&romeo(), at(9));
        assert_eq!(complete, Err(Refusal::SessionComplete));
    }

    #[test]
    fn what_nobody_announced_is_nobodys_session() {
        let row = plain();
        assert_eq!(refusal(&row, 1), Some(Refusal::UnknownSession));
        let cancelled = row.cancel(&romeo(), at(1));
        assert_eq!(cancelled, Err(Refusal::UnknownSession));
    }
}
