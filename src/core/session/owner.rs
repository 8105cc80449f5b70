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
            Agreement::Slot | Agreement::Resumable => None,
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
        self.check_owner(owner)?;
        match self.standing(now) {
            Standing::Complete { .. } => return Ok(self),
            Standing::Failed(reason) => return Err(Refusal::SessionFailed { reason }),
            Standing::Cancelled => return Err(Refusal::SessionCancelled),
            Standing::Expired => return Err(Refusal::SessionExpired),
            Standing::Pending | Standing::Uploading => {}
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
        if 0 < self.refreshes && now < next_at {
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
}
