//! How an upload ends: when it is due, what goes then, and what it counts for until then.

use std::time::Duration;

use crate::core::session::{Agreement, State, TOMBSTONE_FOR_MIN, UploadSession};
use crate::core::slot::PartId;
use crate::core::time::Timestamp;

/// What is to be done with a row that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// Nothing: it is not due.
    Keep,
    /// Remove the parts, then make it a tombstone.
    Expire,
    /// Remove the file, then the row.
    RemoveFile,
    /// Remove the row.
    RemoveRow,
}

impl UploadSession {
    /// When the sweep has to look at the row next; `None` for a file that is kept for ever.
    pub fn due_at(&self) -> Option<Timestamp> {
        // `idle_at` is the last good second, so the row is due one later.
        let idle_end = self.idle_at().plus(Duration::from_secs(1));
        // The owner of an announced session can refresh it until its age is over, and is told how
        // it ended for as long.
        let end = match self.agreement {
            Agreement::Session(_) => self.expires_at,
            Agreement::Slot | Agreement::Resumable => idle_end.min(self.expires_at),
        };
        match self.state {
            State::Pending | State::Uploading => Some(end),
            State::Complete { .. } => self.keep_until,
            State::Failed(_) | State::Cancelled | State::Expired => {
                Some(end.plus(TOMBSTONE_FOR_MIN))
            }
        }
    }

    /// What the sweep does with the row now.
    pub fn sweep(&self, now: Timestamp) -> Sweep {
        if self.due_at().is_none_or(|due_at| now < due_at) {
            return Sweep::Keep;
        }
        match self.state {
            State::Pending | State::Uploading => Sweep::Expire,
            State::Complete { .. } => Sweep::RemoveFile,
            State::Failed(_) | State::Cancelled | State::Expired => Sweep::RemoveRow,
        }
    }

    /// The row after its time ran out.
    pub fn expire(mut self) -> Self {
        if matches!(self.state, State::Pending | State::Uploading) {
            self.state = State::Expired;
        }
        self
    }

    /// Whether the file is served at `now`. XEP-0363 #purpose-ephemeral: never late.
    pub fn is_served(&self, now: Timestamp) -> bool {
        matches!(self.state, State::Complete { .. })
            && self.keep_until.is_none_or(|keep_until| now < keep_until)
    }

    /// The bytes that the quota counts for this row: a slot that was not used gives them back.
    pub fn quota_bytes(&self) -> u64 {
        match self.state {
            State::Pending | State::Uploading | State::Complete { .. } => self.file.size_bytes,
            State::Failed(_) | State::Cancelled | State::Expired => 0,
        }
    }

    /// The bytes of the complete file, 0 before.
    pub fn stored_bytes(&self) -> u64 {
        match self.state {
            State::Complete { .. } => self.file.size_bytes,
            _ => 0,
        }
    }

    /// How many bytes of `part` were durable when the row was last written.
    pub fn vouched(&self, part: PartId) -> u64 {
        let noted = (self.prefix.0 == part).then_some(self.prefix.1);
        let begun = self.newest.filter(|(newest, _)| *newest == part);
        noted.max(begun.map(|(_, from)| from)).unwrap_or(0)
    }

    /// The parts whose bytes still matter.
    pub fn parts(&self) -> Vec<PartId> {
        match self.state {
            State::Pending | State::Uploading => {
                let prefix = (0 < self.prefix.1).then_some(self.prefix.0);
                let newest = self.newest.map(|(part, _)| part);
                let mut parts: Vec<_> = prefix.into_iter().chain(newest).collect();
                parts.dedup();
                parts
            }
            _ => Vec::new(),
        }
    }
}
