//! Attempts: who may write, how far they came, and what became of their bytes.
//!
//! A request that brings bytes is an attempt. One that begins at the first byte gets a part of its
//! own, whose number no other attempt ever has: whatever an earlier one left behind, or writes too
//! late, is nobody's. One that goes on does so in the prefix's part.
//!
//! The first PUT of a small file may come whole before anything of it is noted: then it begins and
//! completes in one step, and has no part.

use crate::core::refusal::Refusal;
use crate::core::session::{
    CLOCK_SKEW_MAX, FRUITLESS_STARTS_MAX, FailReason, Lifetimes, REPLAYS_MAX, State, UploadSession,
};
use crate::core::slot::{PartId, Sha256};
use crate::core::time::Timestamp;
use crate::core::token::{Claims, owner_hash};

/// The largest file that may come whole before its row says that it began: it is held in memory
/// until then. Most pictures are smaller.
pub const WHOLE_BYTES_MAX: u64 = 1 << 20;

/// What `begin` decided, read from the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Append to `part`, whose bytes before `from` are kept.
    Receive {
        /// The attempt to write.
        part: PartId,
        /// Where it begins.
        from: u64,
    },
    /// The upload is complete: compare the bytes, store nothing.
    Replay {
        /// The digest they must have.
        sha256: Sha256,
    },
    /// The upload is complete, and nothing more was to come.
    Done {
        /// The file's digest.
        sha256: Sha256,
    },
}

impl UploadSession {
    /// Admits a PUT with `claims`, as the newest attempt or as a replay; see `start`.
    ///
    /// Refuses `TokenForOther` where the claims are another slot's, `TokenInvalid` for a dead
    /// generation, a future issue or a time that ran out, `Gone` in a terminal state, and
    /// `TooManyStarts`. What another system let in is `Gone`, too, when its time ran out, and
    /// `AlreadyComplete` when it is complete by then.
    pub fn begin(mut self, claims: &Claims, now: Timestamp) -> Result<Self, Refusal> {
        self.check_claims(claims, now)?;
        self.is_presented = true;
        if matches!(self.state, State::Complete { .. }) {
            if REPLAYS_MAX <= self.replays {
                return Err(self.too_many_starts());
            }
            self.replays += 1;
            return Ok(self);
        }
        self.start_anew()
    }

    /// Whether nobody has to know of a PUT before its last byte is there: the first of a small
    /// plain slot, which goes on for nobody and of whose offset nobody is told.
    ///
    /// Only beside such a row may lie a file that was not noted: what a crash left.
    pub fn may_come_whole(&self) -> bool {
        self.state == State::Pending
            && self.agreement.is_plain()
            && self.n_attempts == 0
            && self.file.size_bytes <= WHOLE_BYTES_MAX
    }

    /// Begins a PUT with `claims` that came at `begun_at`, and completes it: the file is there,
    /// whole and durable.
    ///
    /// Refuses as `begin` and `complete` do, and `TakenOver` where anything came between.
    pub fn take_whole(
        self,
        claims: &Claims,
        begun_at: Timestamp,
        sha256: Sha256,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let generation = self.generation;
        let is_untouched = self.may_come_whole() && generation == claims.generation;
        if !is_untouched && !self.is_tombstone() {
            return Err(Refusal::TakenOver);
        }
        let row = self.begin(claims, begun_at)?;
        match row.start() {
            Some(Start::Receive { part, .. }) => {
                row.complete(generation, part, sha256, lifetimes, now)
            }
            Some(Start::Replay { .. } | Start::Done { .. }) | None => Err(Refusal::TakenOver),
        }
    }

    /// Makes a new attempt at the first byte the newest one.
    pub(super) fn start_anew(mut self) -> Result<Self, Refusal> {
        let (slot, attempt) = (self.id, self.n_attempts);
        let next = attempt.checked_add(1);
        self.n_attempts = next.ok_or_else(|| self.too_many_starts())?;
        self.start_at((PartId { slot, attempt }, 0))
    }

    /// Makes `place` the only one whose progress counts.
    pub(super) fn start_at(mut self, place: (PartId, u64)) -> Result<Self, Refusal> {
        if FRUITLESS_STARTS_MAX <= self.fruitless_starts {
            return Err(self.too_many_starts());
        }
        self.newest = Some(place);
        self.is_held_back = false;
        self.fruitless_starts += 1;
        self.state = State::Uploading;
        Ok(self)
    }

    /// Lets the newest attempt's bytes count only once its checksum was found right: they may be
    /// none of the file's.
    pub fn hold_back(mut self) -> Self {
        if self.is_open() {
            self.is_held_back = self.newest.is_some();
        }
        self
    }

    /// What was decided, read back from the row, so that it survives a crash.
    pub fn start(&self) -> Option<Start> {
        match (self.state, self.newest) {
            (State::Complete { sha256, .. }, _) => Some(Start::Replay { sha256 }),
            (State::Uploading, Some((part, from))) => Some(Start::Receive { part, from }),
            _ => None,
        }
    }

    /// Checks in the order that tells a stranger least: slot, generation, state, time.
    pub fn check_claims(&self, claims: &Claims, now: Timestamp) -> Result<(), Refusal> {
        let same_upload = claims.id == self.id
            && claims.size_bytes == self.file.size_bytes
            && claims.owner == owner_hash(&self.owner);
        if !same_upload {
            return Err(Refusal::TokenForOther);
        }
        if claims.generation != self.generation || now.plus(CLOCK_SKEW_MAX) < claims.issued_at {
            return Err(Refusal::TokenInvalid);
        }
        if self.is_tombstone() || self.is_pointless(now) {
            return Err(Refusal::Gone);
        }
        if self.is_idle(now) {
            return Err(self.too_late());
        }
        Ok(())
    }

    /// A token of ours is no longer valid then; others' have no end, or one that we do not choose.
    fn too_late(&self) -> Refusal {
        match self.state {
            _ if !self.agreement.is_external() => Refusal::TokenInvalid,
            State::Complete { .. } => Refusal::AlreadyComplete,
            _ => Refusal::Gone,
        }
    }

    /// Refuses `TakenOver` where a newer attempt or generation took over, `Gone` past the end.
    fn check_writer(&self, generation: u8, part: PartId, now: Timestamp) -> Result<(), Refusal> {
        match self.state {
            State::Uploading => {}
            State::Pending | State::Complete { .. } => return Err(Refusal::TakenOver),
            State::Failed(_) | State::Cancelled | State::Expired => return Err(Refusal::Gone),
        }
        if self.expires_at <= now {
            return Err(Refusal::Gone);
        }
        if generation != self.generation || !self.is_newest(part) {
            return Err(Refusal::TakenOver);
        }
        Ok(())
    }

    fn is_newest(&self, part: PartId) -> bool {
        self.newest.is_some_and(|(newest, _)| newest == part)
    }

    /// Notes that `part` is durable up to `offset`; allowed to the newest attempt alone.
    ///
    /// Refuses `TakenOver` where a newer attempt or generation took over, `Gone` past the end.
    pub fn progress(
        mut self,
        generation: u8,
        part: PartId,
        offset: u64,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        self.check_writer(generation, part, now)?;
        self.settle(part, offset, now);
        self.last_byte_at = self.last_byte_at.max(now);
        Ok(self)
    }

    /// The same once the checksum of bytes that were held back was found right.
    pub fn vouch(
        mut self,
        generation: u8,
        part: PartId,
        offset: u64,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        self.is_held_back &= !self.is_newest(part);
        self.progress(generation, part, offset, now)
    }

    /// Notes how far an attempt's bytes are durable, whatever came since.
    ///
    /// Bytes that are durable stay useful after a take-over: the longest run becomes the prefix.
    /// Those that are held back do not count.
    pub fn settle(&mut self, part: PartId, offset: u64, now: Timestamp) {
        let is_out = self.is_held_back && self.is_newest(part);
        if self.state != State::Uploading || self.file.size_bytes < offset || is_out {
            return;
        }
        let grew = self.prefix.1 < offset;
        if grew {
            self.prefix = (part, offset);
            self.fruitless_starts = 0;
        }
        let brought_bytes = |(newest, from): (PartId, u64)| newest == part && from < offset;
        if grew || self.newest.is_some_and(brought_bytes) {
            self.last_byte_at = self.last_byte_at.max(now);
        }
    }

    /// The same once the attempt writes no more: of its part nothing is left to be found.
    pub fn end_attempt(&mut self, part: PartId, offset: u64, now: Timestamp) {
        self.settle(part, offset, now);
        if self.is_newest(part) {
            self.newest = None;
            self.is_held_back = false;
        }
    }

    /// Makes the session complete: `part` is the file, committed and durable.
    ///
    /// Refuses `TakenOver` or `Gone` like `progress`, so that a late writer completes nothing.
    pub fn complete(
        self,
        generation: u8,
        part: PartId,
        sha256: Sha256,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let size_bytes = self.file.size_bytes;
        let mut row = self.progress(generation, part, size_bytes, now)?;
        row.prefix = (part, size_bytes);
        row.newest = None;
        row.keep_until = lifetimes.retention.keep_until(row.file.purpose, now);
        row.state = State::Complete { sha256, at: now };
        Ok(row)
    }

    /// Ends an attempt whose bytes, durable up to `offset`, are not the file's.
    ///
    /// Whoever can ask for the offset was or may have been told of them, and it must not go back:
    /// such an upload has failed. In a plain slot nobody knows of them: the slot stays usable.
    /// Refuses `TakenOver` or `Gone` like `progress`: an attempt that was replaced spoils nothing.
    pub fn reject(
        mut self,
        generation: u8,
        (part, offset): (PartId, u64),
        reason: FailReason,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        self.check_writer(generation, part, now)?;
        if !self.agreement.is_plain() {
            self.end_attempt(part, offset, now);
            self.state = State::Failed(reason);
            return Ok(self);
        }
        self.newest = None;
        self.is_held_back = false;
        if self.prefix.0 == part {
            self.prefix.1 = 0;
        }
        Ok(self)
    }

    pub(super) fn too_many_starts(&self) -> Refusal {
        Refusal::TooManyStarts {
            retry_in: self.idle_for,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::session::samples::{
        announced, at, begin, complete, lifetimes, part, plain, refresh, romeo,
    };
    use crate::core::slot::SlotId;

    #[test]
    fn a_new_attempt_never_shortens_the_prefix() {
        let mut row = begin(plain(), 1);
        row.settle(part(0), 600, at(5));
        let mut row = begin(row, 10);
        assert_eq!(
            row.start(),
            Some(Start::Receive {
                part: part(1),
                from: 0
            })
        );
        row.settle(part(1), 200, at(20));
        assert_eq!((row.prefix, row.last_byte_at), ((part(0), 600), at(20)));
        assert_eq!(row.parts(), [part(0), part(1)]);
        row.settle(part(1), 700, at(21));
        assert_eq!(row.prefix, (part(1), 700));
        assert_eq!(row.parts(), [part(1)]);
    }

    #[test]
    fn a_file_that_comes_whole_is_complete_as_if_it_had_begun_before() {
        let row = plain();
        let (claims, sha256) = (row.put_claims(), Sha256([9; 32]));
        let at_once = row
            .clone()
            .take_whole(&claims, at(1), sha256, &lifetimes(), at(3));
        let begun = begin(row, 1);
        assert!(!begun.may_come_whole());
        let noted = begun.complete(0, part(0), sha256, &lifetimes(), at(3));
        assert!(noted.is_ok());
        assert_eq!(at_once, noted);
    }

    #[test]
    fn nothing_is_taken_whole_once_something_came_between() {
        let claims = plain().put_claims();
        let take = |row: UploadSession| {
            let sha256 = Sha256([9; 32]);
            row.take_whole(&claims, at(1), sha256, &lifetimes(), at(3))
                .err()
        };
        assert_eq!(take(begin(plain(), 1)), Some(Refusal::TakenOver));
        let mut tried = begin(plain(), 1);
        tried.end_attempt(part(0), 0, at(2));
        assert_eq!(take(tried), Some(Refusal::TakenOver));
        let claims_of_old = UploadSession {
            generation: 1,
            ..plain()
        };
        assert_eq!(take(claims_of_old), Some(Refusal::TakenOver));
        let agreed = plain().resumable(&lifetimes());
        assert_eq!(take(agreed), Some(Refusal::TakenOver));
        assert_eq!(take(complete()), Some(Refusal::TakenOver));
        assert_eq!(take(plain().expire()), Some(Refusal::Gone));
        let over = plain().take_whole(&claims, at(1), Sha256([9; 32]), &lifetimes(), at(259_200));
        assert_eq!(over, Err(Refusal::Gone));
    }

    #[test]
    fn only_small_plain_slots_come_whole() {
        assert!(plain().may_come_whole());
        assert!(!announced().may_come_whole());
        assert!(!complete().may_come_whole());
        let mut row = plain();
        row.file.size_bytes = WHOLE_BYTES_MAX;
        assert!(row.may_come_whole());
        row.file.size_bytes += 1;
        assert!(!row.may_come_whole());
    }

    #[test]
    fn only_the_newest_attempt_counts() {
        let row = begin(begin(plain(), 1), 2);
        let old = row.clone().progress(0, part(0), 10, at(3));
        assert_eq!(old, Err(Refusal::TakenOver));
        let late = row
            .clone()
            .complete(0, part(0), Sha256([1; 32]), &lifetimes(), at(3));
        assert_eq!(late, Err(Refusal::TakenOver));
        assert!(row.progress(0, part(1), 10, at(3)).is_ok());
    }

    #[test]
    fn claims_of_anything_else_are_refused() {
        let row = plain();
        let good = row.put_claims();
        let refuse = |claims: Claims| row.clone().begin(&claims, at(1)).err();
        let id = SlotId(8);
        assert_eq!(refuse(Claims { id, ..good }), Some(Refusal::TokenForOther));
        let size_bytes = 999;
        assert_eq!(
            refuse(Claims { size_bytes, ..good }),
            Some(Refusal::TokenForOther)
        );
        let owner = [0; 8];
        assert_eq!(
            refuse(Claims { owner, ..good }),
            Some(Refusal::TokenForOther)
        );
        let generation = 1;
        assert_eq!(
            refuse(Claims { generation, ..good }),
            Some(Refusal::TokenInvalid)
        );
        let issued_at = at(3600);
        assert_eq!(
            refuse(Claims { issued_at, ..good }),
            Some(Refusal::TokenInvalid)
        );
    }

    #[test]
    fn a_complete_session_replays_three_times_and_not_for_ever() {
        let mut row = complete();
        let sha256 = Sha256([9; 32]);
        for _ in 0..REPLAYS_MAX {
            row = begin(row, 3);
            assert_eq!(row.start(), Some(Start::Replay { sha256 }));
        }
        let claims = row.put_claims();
        let fourth = row.begin(&claims, at(3));
        assert!(matches!(fourth, Err(Refusal::TooManyStarts { .. })));
        let late = complete().begin(&claims, at(303));
        assert_eq!(late, Err(Refusal::TokenInvalid));
        let cancelled = complete().cancel(&romeo(), at(3));
        assert_eq!(cancelled, Err(Refusal::SessionComplete));
    }

    #[test]
    fn requests_that_bring_nothing_are_counted() {
        let mut row = plain();
        for _ in 0..FRUITLESS_STARTS_MAX {
            row = begin(row, 1);
        }
        let claims = row.put_claims();
        let more = row.clone().begin(&claims, at(2));
        assert!(matches!(more, Err(Refusal::TooManyStarts { .. })));
        row.settle(part(19), 1, at(2));
        assert!(row.begin(&claims, at(2)).is_ok());
    }

    #[test]
    fn numbers_of_parts_are_not_used_again() {
        let mut row = begin(plain(), 1);
        row.end_attempt(part(0), 600, at(2));
        let mut row = begin(row, 3);
        row.end_attempt(part(1), 100, at(4));
        let claims = row.resume_claims();
        let mut row = row.append(claims, 600, at(5)).expect("admitted");
        row.end_attempt(part(0), 700, at(6));
        let row = begin(row, 7);
        assert_eq!(row.newest, Some((part(2), 0)));
        let mut row = plain();
        row.n_attempts = u16::MAX;
        let claims = row.put_claims();
        let more = row.begin(&claims, at(1));
        assert!(matches!(more, Err(Refusal::TooManyStarts { .. })));
    }

    #[test]
    fn what_has_ended_progresses_no_more() {
        let mut row = begin(announced(), 1);
        row.end_attempt(part(0), 600, at(2));
        assert_eq!((row.prefix, row.newest), ((part(0), 600), None));
        let late = row.clone().progress(0, part(0), 700, at(3));
        assert_eq!(late, Err(Refusal::TakenOver));
        let late = row.reject(0, (part(0), 700), FailReason::SizeMismatch, at(3));
        assert_eq!(late, Err(Refusal::TakenOver));
    }

    #[test]
    fn bytes_that_are_held_back_count_once_they_are_vouched_for() {
        let mut row = begin(announced(), 1);
        row.end_attempt(part(0), 600, at(2));
        let claims = row.resume_claims();
        let row = row
            .append(claims, 600, at(3))
            .expect("admitted")
            .hold_back();
        let mut cut = row.clone().progress(0, part(0), 800, at(4)).expect("alive");
        assert_eq!((cut.offset(), cut.last_byte_at), (600, at(4)));
        cut.end_attempt(part(0), 800, at(5));
        assert_eq!(cut.offset(), 600);
        let good = row.vouch(0, part(0), 800, at(4)).expect("alive");
        assert_eq!((good.offset(), good.is_held_back), (800, false));
    }

    #[test]
    fn a_checksum_on_the_repeat_of_a_finished_upload_changes_nothing() {
        let repeated = begin(complete(), 3);
        assert_eq!(repeated.clone().hold_back(), repeated);
    }

    #[test]
    fn an_attempt_that_was_replaced_spoils_nothing() {
        let reason = FailReason::DigestMismatch;
        let reject = |row: UploadSession, n| row.reject(0, (part(n), 900), reason, at(9));
        let refreshed = refresh(begin(announced(), 1), 2);
        assert_eq!(reject(refreshed, 0), Err(Refusal::TakenOver));
        let newer = begin(begin(announced(), 1), 2);
        assert_eq!(reject(newer.clone(), 0), Err(Refusal::TakenOver));
        let failed = reject(newer, 1).expect("the newest");
        assert_eq!(
            (failed.state, failed.offset()),
            (State::Failed(reason), 900)
        );
        assert_eq!(reject(failed, 1), Err(Refusal::Gone));
    }

    #[test]
    fn wrong_bytes_leave_a_plain_slot_usable() {
        let mut row = begin(plain(), 1);
        row.end_attempt(part(0), 600, at(2));
        let rejected = begin(row.clone(), 3)
            .reject(0, (part(1), 1000), FailReason::DigestMismatch, at(4))
            .expect("the newest");
        assert_eq!((rejected.prefix, rejected.newest), ((part(0), 600), None));
        let claims = row.resume_claims();
        let rejected = row
            .append(claims, 600, at(3))
            .expect("admitted")
            .reject(0, (part(0), 1000), FailReason::DigestMismatch, at(4))
            .expect("the newest");
        assert_eq!((rejected.offset(), rejected.is_open()), (0, true));
        assert_eq!(begin(rejected, 5).newest, Some((part(1), 0)));
    }
}
