//! How things stand, for whoever looks at the status page: values alone.

use std::time::Duration;

use crate::core::command::operation::Seen;
use crate::core::history::{Act, Span};
use crate::core::policy::Room;
use crate::core::session::State;
use crate::core::time::Timestamp;

/// After so long without a byte an upload stands still, and is shown so.
pub const STILL_AFTER: Duration = Duration::from_secs(10);

/// How things stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// When this was so.
    pub now: Timestamp,
    /// How long we run.
    pub uptime: Duration,
    /// Whether slots are given out.
    pub is_draining: bool,
    /// Uploads that are not complete; `None` where the store does not say.
    pub uploads: Option<Uploads>,
    /// The last hour, a span a minute.
    pub hour: Vec<Span>,
    /// The last day, a span a quarter of an hour.
    pub day: Vec<Span>,
    /// Disk and quota; `None` where the store does not say.
    pub storage: Option<Storage>,
    /// Streams and stores.
    pub health: Vec<Health>,
    /// What operators did, latest first.
    pub acts: Vec<Act>,
}

/// Uploads that are not complete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uploads {
    /// How many take bytes in.
    pub n_active: usize,
    /// Some of them and some that were broken off: those that take bytes in first.
    pub shown: Vec<Upload>,
    /// Whether there are others, or may be.
    pub has_more: bool,
}

/// An upload that is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// How it stands.
    pub seen: Seen,
    /// How many of its bytes have come, durable or not yet.
    pub here_bytes: u64,
}

impl Upload {
    /// An upload whose request brought `received` bytes so far.
    pub fn new(seen: Seen, received: u64) -> Self {
        let from = seen.row.newest.map_or(0, |(_, from)| from);
        let here_bytes = match seen.is_active {
            true => from.saturating_add(received).max(seen.offset),
            false => seen.offset,
        };
        Self { seen, here_bytes }
    }
}

/// How an upload goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Going {
    /// Bytes come in, from the first one on.
    First,
    /// Bytes come in, from this offset on.
    Resumed(u64),
    /// A request is there, and no byte for so long.
    Still(Duration),
    /// It was broken off so long ago, and may go on.
    BrokenOff(Duration),
}

impl Going {
    /// How an open upload goes.
    pub fn of(seen: &Seen, now: Timestamp) -> Self {
        let silent_for = now.since(seen.last_byte_at);
        let from = seen.row.newest.map_or(0, |(_, from)| from);
        match (seen.is_active, from) {
            (false, _) => Self::BrokenOff(silent_for),
            (true, _) if STILL_AFTER <= silent_for => Self::Still(silent_for),
            (true, 0) => Self::First,
            (true, from) => Self::Resumed(from),
        }
    }

    /// Whether an upload has begun and may go on.
    pub fn is_going(seen: &Seen, now: Timestamp) -> bool {
        let row = &seen.row;
        row.state == State::Uploading && now < row.expires_at
    }
}

/// Disk and quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Complete files.
    pub n_files: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// Above so many the oldest go.
    pub stored_bytes_max: Option<u64>,
    /// What the disk has left.
    pub free: Room,
    /// What of it stays free.
    pub reserve: Room,
    /// Bytes of slots in the quota's window, everybody's.
    pub used_bytes: u64,
    /// How many there may be.
    pub quota_bytes: Option<u64>,
    /// The window.
    pub window: Duration,
}

/// How well a part is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The part: `Stream of upload.example.org`.
    pub part: String,
    /// Whether it is well.
    pub is_well: bool,
    /// In words.
    pub words: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::session::{FileFacts, Lifetimes, Retention, UploadSession};
    use crate::core::slot::{ContentType, FileName, PartId, Purpose, SlotId};
    use jid::BareJid;

    const START: Timestamp = Timestamp(1_000_000);

    fn seen(from: u64, is_active: bool) -> Seen {
        let file = FileFacts {
            name: FileName::parse("a.bin").expect("a valid name"),
            size_bytes: 1000,
            content_type: ContentType::octet_stream(),
            purpose: Purpose::Message,
        };
        let lifetimes = Lifetimes {
            idle_for: Duration::from_secs(300),
            session_age: Duration::from_secs(3600),
            rufh_idle_for: Duration::from_secs(3600),
            refreshes_max: 10,
            retention: Retention::default(),
        };
        let owner = BareJid::new("romeo@example.org").expect("a valid JID");
        let mut row = UploadSession::new(SlotId(7), owner, file, &lifetimes, START);
        row.state = State::Uploading;
        let part = PartId {
            slot: row.id,
            attempt: 0,
        };
        row.newest = Some((part, from));
        Seen {
            row,
            is_active,
            offset: from,
            last_byte_at: START,
        }
    }

    fn at(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn how_it_goes_depends_on_its_request_and_its_last_byte() {
        let seconds = Duration::from_secs;
        assert_eq!(Going::of(&seen(0, true), at(9)), Going::First);
        assert_eq!(Going::of(&seen(400, true), at(9)), Going::Resumed(400));
        assert_eq!(
            Going::of(&seen(400, true), at(10)),
            Going::Still(seconds(10))
        );
        let broken = seen(400, false);
        assert_eq!(Going::of(&broken, at(1)), Going::BrokenOff(seconds(1)));
        // A clock that was set back.
        assert_eq!(Going::of(&broken, at(0)), Going::BrokenOff(seconds(0)));
    }

    #[test]
    fn what_came_counts_from_where_its_request_began() {
        let here = |from, is_active, received| {
            let upload = Upload::new(seen(from, is_active), received);
            upload.here_bytes
        };
        assert_eq!(here(0, true, 300), 300);
        assert_eq!(here(400, true, 300), 700);
        assert_eq!(here(400, true, 0), 400);
        // What a broken request brought and lost is not here.
        assert_eq!(here(400, false, 300), 400);
    }

    #[test]
    fn who_has_not_begun_or_cannot_go_on_is_not_going() {
        let mut one = seen(0, false);
        assert!(Going::is_going(&one, at(3599)));
        assert!(!Going::is_going(&one, at(3600)));
        one.row.state = State::Pending;
        assert!(!Going::is_going(&one, at(0)));
    }
}
