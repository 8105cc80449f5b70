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
            Agreement::Slot | Agreement::Resumable | Agreement::External { .. } => {
                idle_end.min(self.expires_at)
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::download::Served;
    use crate::core::refusal::Refusal;
    use crate::core::session::samples::{
        SIZE, announced, at, begin, complete, lifetimes, part, plain, romeo,
    };

    #[test]
    fn time_runs_from_the_last_byte() {
        let mut row = begin(plain(), 1);
        row.settle(part(0), 10, at(200));
        let claims = row.put_claims();
        let late = |row: &UploadSession, seconds| row.clone().begin(&claims, at(seconds));
        assert!(late(&row, 500).is_ok());
        assert_eq!(late(&row, 501), Err(Refusal::TokenInvalid));
        assert_eq!(row.sweep(at(500)), Sweep::Keep);
        assert_eq!(row.sweep(at(501)), Sweep::Expire);
        assert_eq!(late(&row.expire(), 210), Err(Refusal::Gone));
    }

    #[test]
    fn files_are_served_from_completion_to_keep_until() {
        let row = complete();
        let served = Served::of(&row).expect("complete");
        assert_eq!(Served::of(&begin(plain(), 1)), None);
        assert!(served.is_served(at(86_401)));
        assert!(!served.is_served(at(86_402)));
        assert_eq!(row.sweep(at(86_401)), Sweep::Keep);
        assert_eq!(row.sweep(at(86_402)), Sweep::RemoveFile);
    }

    #[test]
    fn an_unused_slot_gives_its_quota_back() {
        let row = plain();
        assert_eq!(row.quota_bytes(), SIZE);
        let row = row.expire();
        assert_eq!((row.quota_bytes(), row.stored_bytes()), (0, 0));
        assert_eq!(row.sweep(at(301)), Sweep::Keep);
        assert_eq!(row.sweep(at(901)), Sweep::RemoveRow);
        assert_eq!(complete().expire().stored_bytes(), SIZE);
    }

    #[test]
    fn what_was_announced_lives_until_its_age_is_over() {
        let age = 72 * 3600;
        let mut row = begin(announced(), 1);
        row.settle(part(0), 10, at(2));
        assert_eq!(row.sweep(at(age - 1)), Sweep::Keep);
        assert_eq!(row.sweep(at(age)), Sweep::Expire);
        let cancelled = row.cancel(&romeo(), at(3)).expect("open");
        for row in [cancelled, announced().expire()] {
            assert_eq!(row.sweep(at(age + 599)), Sweep::Keep);
            assert_eq!(row.sweep(at(age + 600)), Sweep::RemoveRow);
        }
    }

    #[test]
    fn tombstones_of_all_others_stay_ten_minutes() {
        let mut row = begin(plain(), 1);
        row.settle(part(0), 10, at(200));
        let row = row.expire();
        // Idle from 501 on.
        assert_eq!(row.sweep(at(501 + 599)), Sweep::Keep);
        assert_eq!(row.sweep(at(501 + 600)), Sweep::RemoveRow);
    }

    #[test]
    fn an_upload_that_goes_on_by_itself_may_rest_longer() {
        let mut row = begin(plain(), 1).resumable(&lifetimes());
        row.settle(part(0), 10, at(200));
        assert_eq!(row.sweep(at(3800)), Sweep::Keep);
        assert_eq!(row.sweep(at(3801)), Sweep::Expire);
        // Never past its age.
        row.last_byte_at = at(72 * 3600 - 1);
        assert_eq!(row.sweep(at(72 * 3600)), Sweep::Expire);
    }

    #[test]
    fn parts_matter_while_the_upload_is_open() {
        let mut row = begin(plain(), 1);
        assert_eq!(row.parts(), [part(0)]);
        row.end_attempt(part(0), 600, at(2));
        let mut row = begin(row, 3);
        assert_eq!(row.parts(), [part(0), part(1)]);
        row.end_attempt(part(1), 10, at(4));
        assert_eq!(row.parts(), [part(0)]);
        assert_eq!(row.expire().parts(), []);
    }
}
