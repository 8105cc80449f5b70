//! The heart: one upload session, from slot to tombstone.
//!
//! Each method takes the row and gives the next row, or refuses and changes nothing. Stores run
//! them inside their transactions, as often as they need to. Bytes never pass here: what is durable
//! arrives as a number. `owner` holds what the owner may do, `resume` what its resume URL allows,
//! `end` how it ends, `network` where it came from.
//!
//! Invariants: the prefix's offset never decreases; only the newest attempt's progress counts; only
//! the current generation's credentials count; a complete row never changes.

use std::time::Duration;

use jid::BareJid;

use crate::core::refusal::Refusal;
use crate::core::session::network::Network;
use crate::core::slot::{ContentType, FileName, PartId, Purpose, SessionId, Sha256, SlotId};
use crate::core::time::Timestamp;
use crate::core::token::{Claims, Scope, owner_hash};

pub mod end;
pub mod network;
pub mod owner;
mod resume;

/// How often a generation's requests may end where they began, before they have to wait.
pub const FRUITLESS_STARTS_MAX: u8 = 20;
/// How often a complete upload is compared with a repeated PUT.
pub const REPLAYS_MAX: u8 = 3;
/// How far a token's time of issue may lie ahead of our clock.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);
/// How long a tombstone stays at least.
pub const TOMBSTONE_FOR_MIN: Duration = Duration::from_secs(600);

/// How long things last. Part of the configuration, as core sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// How long a slot waits for its PUT, and a broken upload for its next byte.
    pub idle_for: Duration,
    /// How long an upload session lives at most, from its slot.
    pub session_age: Duration,
    /// The same for an upload that goes on over HTTP alone: nobody can refresh it.
    pub rufh_idle_for: Duration,
    /// How often a session may be refreshed.
    pub refreshes_max: u8,
    /// How long a complete file is kept, by purpose.
    pub retention: Retention,
}

/// How long complete files are kept; `None` is for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Files sent in messages, and those of no stated purpose.
    pub message: Option<Duration>,
    /// Avatars and the like.
    pub profile: Option<Duration>,
    /// Files that name their own end; this bounds it.
    pub ephemeral: Option<Duration>,
    /// Files that shall stay.
    pub permanent: Option<Duration>,
}

impl Retention {
    /// The first instant at which a file complete `at` is no longer served.
    pub fn keep_until(&self, purpose: Purpose, at: Timestamp) -> Option<Timestamp> {
        let after = |keep_for: Option<Duration>| keep_for.map(|keep_for| at.plus(keep_for));
        match purpose {
            Purpose::Message => after(self.message),
            Purpose::Profile => after(self.profile),
            Purpose::Permanent => after(self.permanent),
            Purpose::Ephemeral { expire_before } => {
                let bound = after(self.ephemeral).unwrap_or(expire_before);
                Some(bound.min(expire_before))
            }
        }
    }
}

/// What the slot request said of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Its name.
    pub name: FileName,
    /// Its size: the upload has just this many bytes.
    pub size_bytes: u64,
    /// What it is served as.
    pub content_type: ContentType,
    /// What it is for.
    pub purpose: Purpose,
}

/// What was agreed on when the upload began: it decides how long the upload waits for its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Agreement {
    /// A plain slot of XEP-0363: one PUT, which may be repeated.
    #[default]
    Slot,
    /// The HTTP client said that it goes on by itself; its owner knows nothing of it.
    Resumable,
    /// The slot request asked for an upload session: its owner refreshes it, by this name.
    Session(SessionId),
}

/// Why an upload cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailReason {
    /// Its bytes do not have the digest that was announced.
    DigestMismatch,
    /// More bytes came than the slot is for.
    SizeMismatch,
    /// Its owner may no longer upload.
    Policy,
}

impl FailReason {
    /// As it is written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DigestMismatch => "digest-mismatch",
            Self::SizeMismatch => "size-mismatch",
            Self::Policy => "policy",
        }
    }
}

/// How far an upload session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No request has come yet.
    Pending,
    /// A request has come; the upload goes on or waits for its next request.
    Uploading,
    /// The file is whole, durable and served.
    Complete {
        /// The file's digest, also its ETag.
        sha256: Sha256,
        /// Since when.
        at: Timestamp,
    },
    /// The upload cannot go on. Tombstone.
    Failed(FailReason),
    /// The owner gave it up. Tombstone.
    Cancelled,
    /// Its time ran out. Tombstone.
    Expired,
}

/// One row: an upload session. XEP-0363 #impl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadSession {
    /// Its slot.
    pub id: SlotId,
    /// Who asked for the slot.
    pub owner: BareJid,
    /// What it is for.
    pub file: FileFacts,
    /// What was agreed on.
    pub agreement: Agreement,
    /// The digest that the slot request announced for the file.
    pub expected: Option<Sha256>,
    /// When the slot was issued; the quota counts the bytes from here.
    pub created_at: Timestamp,
    /// When the upload ends, whatever its state.
    pub expires_at: Timestamp,
    /// The first instant at which the complete file is no longer served.
    pub keep_until: Option<Timestamp>,
    /// Which credentials are alive.
    pub generation: u8,
    /// When the generation's credentials were issued.
    pub issued_at: Timestamp,
    /// How long after issue or last byte a request may still start, as promised with the slot.
    pub idle_for: Duration,
    /// How many refreshes made a new generation.
    pub refreshes: u8,
    /// When the last refresh made one; the slot's issue before the first.
    pub refreshed_at: Timestamp,
    /// How often this generation's credentials were issued again, its reply being lost.
    pub reissues: u8,
    /// Whether this generation's credentials were seen in a request.
    pub is_presented: bool,
    /// When the last byte became durable; the slot's issue before the first.
    pub last_byte_at: Timestamp,
    /// The longest durable run of bytes from 0, and its part.
    pub prefix: (PartId, u64),
    /// The attempt that may write, and where it began.
    pub newest: Option<(PartId, u64)>,
    /// Requests of this generation that ended where they began.
    pub fruitless_starts: u8,
    /// PUTs compared with the complete file.
    pub replays: u8,
    /// Where its requests came from, a change an entry, newest last.
    pub networks: Vec<Network>,
    /// How far it is.
    pub state: State,
}

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
    /// A new session: pending, generation 0.
    pub fn new(
        id: SlotId,
        owner: BareJid,
        file: FileFacts,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Self {
        let part = PartId {
            slot: id,
            attempt: 0,
        };
        Self {
            id,
            owner,
            file,
            agreement: Agreement::Slot,
            expected: None,
            created_at: now,
            expires_at: now.plus(lifetimes.session_age),
            keep_until: None,
            generation: 0,
            issued_at: now,
            idle_for: lifetimes.idle_for,
            refreshes: 0,
            refreshed_at: now,
            reissues: 0,
            is_presented: false,
            last_byte_at: now,
            prefix: (part, 0),
            newest: None,
            fruitless_starts: 0,
            replays: 0,
            networks: Vec::new(),
            state: State::Pending,
        }
    }

    /// The same as an upload session that its owner knows of, for a file of the digest `expected`.
    pub fn announced(mut self, id: SessionId, expected: Option<Sha256>) -> Self {
        self.agreement = Agreement::Session(id);
        self.expected = expected;
        self
    }

    /// The claims of the current generation's PUT token.
    pub fn put_claims(&self) -> Claims {
        Claims {
            scope: Scope::Put,
            generation: self.generation,
            id: self.id,
            size_bytes: self.file.size_bytes,
            issued_at: self.issued_at,
            owner: owner_hash(&self.owner),
        }
    }

    /// Admits a PUT with `claims`, as the newest attempt or as a replay; see `start`.
    ///
    /// Refuses `TokenForOther` where the claims are another slot's, `TokenInvalid` for a dead
    /// generation, a future issue or a time that ran out, `Gone` in a terminal state, and
    /// `TooManyStarts`.
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
        let attempt = self.newest.map_or(0, |(part, _)| part.attempt + 1);
        let slot = self.id;
        self.start_at((PartId { slot, attempt }, 0))
    }

    /// Makes `place` the only one whose progress counts.
    fn start_at(mut self, place: (PartId, u64)) -> Result<Self, Refusal> {
        let (part, _) = place;
        if FRUITLESS_STARTS_MAX <= self.fruitless_starts || part.attempt == u16::MAX {
            return Err(self.too_many_starts());
        }
        self.newest = Some(place);
        self.fruitless_starts += 1;
        self.state = State::Uploading;
        Ok(self)
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
            return Err(Refusal::TokenInvalid);
        }
        Ok(())
    }

    /// Whether it is over without a file.
    pub fn is_tombstone(&self) -> bool {
        matches!(
            self.state,
            State::Failed(_) | State::Cancelled | State::Expired
        )
    }

    /// Whether the file would never be served.
    fn is_pointless(&self, now: Timestamp) -> bool {
        matches!(self.file.purpose, Purpose::Ephemeral { expire_before } if expire_before <= now)
    }

    /// Whether the time in which a request may start has run out.
    fn is_idle(&self, now: Timestamp) -> bool {
        match self.state {
            State::Complete { at, .. } => at.plus(self.idle_for) < now,
            _ => self.idle_at() < now || self.expires_at <= now,
        }
    }

    /// The last instant at which a request may start.
    fn idle_at(&self) -> Timestamp {
        self.issued_at.max(self.last_byte_at).plus(self.idle_for)
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
        match self.state {
            State::Uploading => {}
            State::Pending | State::Complete { .. } => return Err(Refusal::TakenOver),
            State::Failed(_) | State::Cancelled | State::Expired => return Err(Refusal::Gone),
        }
        if self.expires_at <= now {
            return Err(Refusal::Gone);
        }
        let is_newest = self.newest.is_some_and(|(newest, _)| newest == part);
        if generation != self.generation || !is_newest {
            return Err(Refusal::TakenOver);
        }
        self.settle(part, offset, now);
        Ok(self)
    }

    /// Notes how far an attempt's bytes are durable once it can write no more, whatever came since.
    ///
    /// Bytes that are durable stay useful after a take-over: the longest run becomes the prefix.
    pub fn settle(&mut self, part: PartId, offset: u64, now: Timestamp) {
        if self.state != State::Uploading || self.file.size_bytes < offset {
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
        row.newest = Some(row.prefix);
        row.keep_until = lifetimes.retention.keep_until(row.file.purpose, now);
        row.state = State::Complete { sha256, at: now };
        Ok(row)
    }

    /// Notes that the bytes of `part` are not the file's.
    ///
    /// Whoever can ask for the offset was or may have been told of them, and it must not go back:
    /// such an upload has failed. In a plain slot nobody knows of them: the slot stays usable.
    pub fn reject(mut self, part: PartId, reason: FailReason) -> Self {
        if !self.is_open() {
            return self;
        }
        if self.agreement != Agreement::Slot {
            self.state = State::Failed(reason);
        } else if self.prefix.0 == part {
            self.prefix.1 = 0;
        }
        self
    }

    /// Whether bytes may still come.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Pending | State::Uploading)
    }

    fn too_many_starts(&self) -> Refusal {
        Refusal::TooManyStarts {
            retry_in: self.idle_for,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::end::Sweep;
    use super::*;

    const START: Timestamp = Timestamp(1_000_000);
    const SIZE: u64 = 1000;

    fn lifetimes() -> Lifetimes {
        Lifetimes {
            idle_for: Duration::from_secs(300),
            session_age: Duration::from_secs(72 * 3600),
            rufh_idle_for: Duration::from_secs(3600),
            refreshes_max: 10,
            retention: Retention {
                message: Some(Duration::from_secs(86_400)),
                ephemeral: Some(Duration::from_secs(3600)),
                ..Retention::default()
            },
        }
    }

    fn romeo() -> BareJid {
        BareJid::new("romeo@example.org").expect("a valid JID")
    }

    fn pending(purpose: Purpose) -> UploadSession {
        let file = FileFacts {
            name: FileName::parse("a.bin").expect("a valid name"),
            size_bytes: SIZE,
            content_type: ContentType::octet_stream(),
            purpose,
        };
        UploadSession::new(SlotId(7), romeo(), file, &lifetimes(), START)
    }

    fn announced() -> UploadSession {
        pending(Purpose::Message).announced(SessionId(1), None)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp(START.0 + seconds)
    }

    #[track_caller]
    fn begin(row: UploadSession, seconds: u64) -> UploadSession {
        let claims = row.put_claims();
        row.begin(&claims, at(seconds))
            .expect("the request is admitted")
    }

    fn part(attempt: u16) -> PartId {
        PartId {
            slot: SlotId(7),
            attempt,
        }
    }

    fn complete() -> UploadSession {
        begin(announced(), 1)
            .complete(0, part(0), Sha256([9; 32]), &lifetimes(), at(2))
            .expect("the newest attempt completes")
    }

    #[test]
    fn a_new_attempt_never_shortens_the_prefix() {
        let mut row = begin(pending(Purpose::Message), 1);
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
    fn an_append_starts_at_the_durable_offset_alone() {
        let mut row = begin(pending(Purpose::Message), 1);
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
    fn only_the_newest_attempt_counts() {
        let row = begin(begin(pending(Purpose::Message), 1), 2);
        let old = row.clone().progress(0, part(0), 10, at(3));
        assert_eq!(old, Err(Refusal::TakenOver));
        let late = row
            .clone()
            .complete(0, part(0), Sha256([1; 32]), &lifetimes(), at(3));
        assert_eq!(late, Err(Refusal::TakenOver));
        assert!(row.progress(0, part(1), 10, at(3)).is_ok());
    }

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
        let juliet = BareJid::new("juliet@example.org").expect("valid");
        let other = row.clone().refresh(&juliet, &lifetimes(), at(1));
        assert_eq!(other, Err(Refusal::UnknownSession));
        let other = row.clone().cancel(&juliet, at(1));
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

    #[test]
    fn time_runs_from_the_last_byte() {
        let mut row = begin(pending(Purpose::Message), 1);
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
    fn claims_of_anything_else_are_refused() {
        let row = pending(Purpose::Message);
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
        let mut row = pending(Purpose::Message);
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
    fn retention_goes_by_purpose() {
        let until = |purpose| lifetimes().retention.keep_until(purpose, at(0));
        assert_eq!(until(Purpose::Message), Some(at(86_400)));
        assert_eq!(until(Purpose::Profile), None);
        let soon = Purpose::Ephemeral {
            expire_before: at(60),
        };
        assert_eq!(until(soon), Some(at(60)));
        let far = Purpose::Ephemeral {
            expire_before: Timestamp(u64::MAX),
        };
        assert_eq!(until(far), Some(at(3600)));
    }

    #[test]
    fn files_are_served_from_completion_to_keep_until() {
        let row = complete();
        assert!(!begin(pending(Purpose::Message), 1).is_served(at(2)));
        assert!(row.is_served(at(86_401)));
        assert!(!row.is_served(at(86_402)));
        assert_eq!(row.sweep(at(86_401)), Sweep::Keep);
        assert_eq!(row.sweep(at(86_402)), Sweep::RemoveFile);
    }

    #[test]
    fn an_unused_slot_gives_its_quota_back() {
        let row = pending(Purpose::Message);
        assert_eq!(row.quota_bytes(), SIZE);
        let row = row.expire();
        assert_eq!((row.quota_bytes(), row.stored_bytes()), (0, 0));
        assert_eq!(row.sweep(at(301)), Sweep::Keep);
        assert_eq!(row.sweep(at(901)), Sweep::RemoveRow);
        assert_eq!(complete().expire().stored_bytes(), SIZE);
    }
}
