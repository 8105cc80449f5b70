//! Which uploads a command is about.

use std::time::Duration;

use jid::BareJid;

use super::operation::Seen;
use crate::core::session::State;
use crate::core::time::Timestamp;

/// Which uploads are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// Those of an account.
    pub owner: Option<BareJid>,
    /// Those of a domain.
    pub domain: Option<String>,
    /// Those that stand like this.
    pub standing: Option<Wanted>,
    /// Those that have got no byte for so long.
    pub silent_for: Option<Duration>,
    /// Those whose slots were given out so long ago.
    pub older_than: Option<Duration>,
    /// How many that fit come before the page.
    pub skip: usize,
    /// How many are wanted.
    pub n_max: usize,
}

/// How wanted uploads stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Bytes may still come.
    Open,
    /// Bytes are coming in now.
    Active,
    /// Bytes came, and none are coming now.
    Stuck,
    /// The file is there.
    Complete,
    /// Ended without a file.
    Ended,
}

impl Wanted {
    /// Its values in forms, with what people read.
    pub const ALL: [(Self, &'static str, &'static str); 5] = [
        (Self::Open, "open", "Not complete"),
        (Self::Active, "active", "Coming in now"),
        (Self::Stuck, "stuck", "Stuck: begun, and nothing comes"),
        (Self::Complete, "complete", "Complete"),
        (Self::Ended, "ended", "Ended without a file"),
    ];

    /// Reads a value.
    pub fn parse(text: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|(_, value, _)| *value == text);
        found.map(|(wanted, ..)| wanted)
    }
}

impl Search {
    /// Whether an upload is wanted.
    pub fn fits(&self, seen: &Seen, now: Timestamp) -> bool {
        let row = &seen.row;
        let is_wanted = match self.standing {
            None => true,
            Some(Wanted::Open) => row.is_open(),
            Some(Wanted::Active) => seen.is_active,
            Some(Wanted::Stuck) => row.state == State::Uploading && !seen.is_active,
            Some(Wanted::Complete) => !row.is_open() && !row.is_tombstone(),
            Some(Wanted::Ended) => row.is_tombstone(),
        };
        let is_silent = |silent_for| row.is_open() && silent_for <= now.since(seen.last_byte_at);
        is_wanted
            && self.owner.as_ref().is_none_or(|owner| *owner == row.owner)
            && self
                .domain
                .as_ref()
                .is_none_or(|it| it == row.owner.domain().as_str())
            && self.silent_for.is_none_or(is_silent)
            && self
                .older_than
                .is_none_or(|age| age <= now.since(row.created_at))
    }
}
