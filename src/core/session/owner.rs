//! What the owner of an upload may do with it, whatever its requests do.

use jid::BareJid;

use crate::core::refusal::Refusal;
use crate::core::session::{Lifetimes, State, UploadSession};
use crate::core::time::Timestamp;

impl UploadSession {
    /// Makes a new generation of credentials, by which the old ones die. Owner only.
    ///
    /// Refuses `UnknownNode` to anybody else, `Gone` past the end, `TooManyStarts` when used up. A
    /// complete session is returned as it is.
    pub fn refresh(
        mut self,
        owner: &BareJid,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        self.check_owner(owner)?;
        match self.state {
            State::Complete { .. } => return Ok(self),
            State::Failed | State::Cancelled | State::Expired => return Err(Refusal::Gone),
            State::Pending | State::Uploading if self.expires_at <= now => {
                return Err(Refusal::Gone);
            }
            State::Pending | State::Uploading => {}
        }
        if lifetimes.refreshes_max <= self.refreshes || self.generation == u8::MAX {
            return Err(self.too_many_starts());
        }
        self.generation += 1;
        self.refreshes += 1;
        self.issued_at = now;
        self.fruitless_starts = 0;
        Ok(self)
    }

    /// Gives the upload up; owner only. Repeating it is no error, a complete file stays.
    pub fn cancel(mut self, owner: &BareJid) -> Result<Self, Refusal> {
        self.check_owner(owner)?;
        match self.state {
            State::Complete { .. } => Err(Refusal::AlreadyComplete),
            State::Pending | State::Uploading => {
                self.state = State::Cancelled;
                Ok(self)
            }
            State::Failed | State::Cancelled | State::Expired => Ok(self),
        }
    }

    fn check_owner(&self, owner: &BareJid) -> Result<(), Refusal> {
        // Nobody learns from the answer whether somebody else's session exists.
        if *owner == self.owner {
            Ok(())
        } else {
            Err(Refusal::UnknownNode)
        }
    }
}
