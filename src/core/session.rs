//! The heart: one upload session, from slot to tombstone.
//!
//! Each method takes the row and gives the next row, or refuses and changes nothing. Stores run
//! them inside their transactions, as often as they need to. Bytes never pass here: what is durable
//! arrives as a number. `attempt` holds what its requests do, `owner` what the owner may do,
//! `resume` what its resume URL allows, `end` how it ends, `network` where it came from, `import`
//! what an import does.
//!
//! Invariants: the prefix's offset never decreases; only the newest attempt's progress counts; only
//! the current generation's credentials count; a complete row never changes.

use std::time::Duration;

use jid::BareJid;

use crate::core::session::network::Network;
use crate::core::slot::{ContentType, FileName, PartId, Purpose, SessionId, Sha256, SlotId};
use crate::core::time::Timestamp;
use crate::core::token::{Claims, Scope, owner_hash};

pub use self::attempt::{Start, WHOLE_BYTES_MAX};

mod attempt;
pub mod end;
pub mod import;
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
    /// No slot of ours: a PUT with another system's token, admitted when it came. It goes on as a
    /// plain slot does, or, where its client said so, as a `Resumable` one.
    External {
        /// Whether its client said that it goes on by itself.
        is_resumable: bool,
    },
}

impl Agreement {
    /// Whether nobody goes on: what breaks begins again, and nobody is told of an offset.
    pub fn is_plain(self) -> bool {
        match self {
            Self::Slot => true,
            Self::Resumable | Self::Session(_) => false,
            Self::External { is_resumable } => !is_resumable,
        }
    }

    /// Whether another system let it in.
    pub fn is_external(self) -> bool {
        matches!(self, Self::External { .. })
    }

    /// The same of an upload whose HTTP client goes on by itself.
    fn resumable(self) -> Self {
        match self {
            Self::Slot | Self::Resumable => Self::Resumable,
            Self::Session(id) => Self::Session(id),
            Self::External { .. } => Self::External { is_resumable: true },
        }
    }
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
    /// The attempt that may write, and where it began; `None` once its bytes are all noted.
    pub newest: Option<(PartId, u64)>,
    /// Whether the newest attempt's bytes wait for their checksum.
    pub is_held_back: bool,
    /// How many parts were begun: their numbers are not used again.
    pub n_attempts: u16,
    /// Requests of this generation that ended where they began.
    pub fruitless_starts: u8,
    /// PUTs compared with the complete file.
    pub replays: u8,
    /// Where its requests came from, a change an entry, newest last.
    pub networks: Vec<Network>,
    /// How far it is.
    pub state: State,
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
            is_held_back: false,
            n_attempts: 0,
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

    /// The same as an upload that another system let in.
    pub fn external(mut self) -> Self {
        let is_resumable = false;
        self.agreement = Agreement::External { is_resumable };
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

    /// Whether bytes may still come.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Pending | State::Uploading)
    }
}

#[cfg(test)]
mod samples;
#[cfg(test)]
mod story;
#[cfg(test)]
mod tests {
    use super::samples::{at, lifetimes};
    use super::*;

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
}
