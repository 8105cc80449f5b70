//! The first shape of a row, with which the later ones begin.

use std::time::Duration;

use jid::BareJid;
use serde::{Deserialize, Serialize};

use crate::core::session::{Agreement, FailReason, FileFacts, State, UploadSession};
use crate::core::slot::{ContentType, FileName, PartId, Purpose, Sha256, SlotId};
use crate::core::time::Timestamp;

/// A row whose state has the form `S`: postcard writes the fields of an inner shape as if they were
/// the outer's own.
#[derive(Serialize, Deserialize)]
pub(super) struct Row<S> {
    /// Also the row's key: tells a row that was put under another's.
    id: u128,
    owner: String,
    name: String,
    size_bytes: u64,
    content_type: String,
    purpose: RowPurpose,
    created_at: u64,
    expires_at: u64,
    keep_until: Option<u64>,
    generation: u8,
    issued_at: u64,
    idle_for: Duration,
    refreshes: u8,
    last_byte_at: u64,
    prefix: (u16, u64),
    newest: Option<(u16, u64)>,
    fruitless_starts: u8,
    replays: u8,
    state: S,
}

#[derive(Serialize, Deserialize)]
enum RowPurpose {
    Message,
    Profile,
    Ephemeral { expire_before: u64 },
    Permanent,
}

#[derive(Serialize, Deserialize)]
pub(super) enum FirstState {
    Pending,
    Uploading,
    Complete { sha256: [u8; 32], at: u64 },
    Failed,
    Cancelled,
    Expired,
}

impl<S: From<State>> From<&UploadSession> for Row<S> {
    fn from(session: &UploadSession) -> Self {
        let attempt = |(part, offset): (PartId, u64)| (part.attempt, offset);
        Self {
            id: session.id.0,
            owner: session.owner.to_string(),
            name: session.file.name.as_str().to_owned(),
            size_bytes: session.file.size_bytes,
            content_type: session.file.content_type.as_str().to_owned(),
            purpose: session.file.purpose.into(),
            created_at: session.created_at.0,
            expires_at: session.expires_at.0,
            keep_until: session.keep_until.map(|until| until.0),
            generation: session.generation,
            issued_at: session.issued_at.0,
            idle_for: session.idle_for,
            refreshes: session.refreshes,
            last_byte_at: session.last_byte_at.0,
            prefix: attempt(session.prefix),
            newest: session.newest.map(attempt),
            fruitless_starts: session.fruitless_starts,
            replays: session.replays,
            state: session.state.into(),
        }
    }
}

impl<S: Into<State>> Row<S> {
    /// The row as it is without what later shapes have added.
    pub(super) fn into_session(self) -> Option<UploadSession> {
        let id = SlotId(self.id);
        let part = |(attempt, offset): (u16, u64)| (PartId { slot: id, attempt }, offset);
        // Numbers went up from part to part.
        let n_attempts = match (self.newest, self.prefix) {
            (None, (0, 0)) => 0,
            (newest, (prefix, _)) => {
                let newest = newest.map_or(0, |(attempt, _)| attempt);
                newest.max(prefix).saturating_add(1)
            }
        };
        Some(UploadSession {
            id,
            owner: BareJid::new(&self.owner).ok()?,
            file: FileFacts {
                name: FileName::parse(&self.name).ok()?,
                size_bytes: self.size_bytes,
                content_type: ContentType::parse(&self.content_type).ok()?,
                purpose: self.purpose.into(),
            },
            agreement: Agreement::Slot,
            expected: None,
            created_at: Timestamp(self.created_at),
            expires_at: Timestamp(self.expires_at),
            keep_until: self.keep_until.map(Timestamp),
            generation: self.generation,
            issued_at: Timestamp(self.issued_at),
            idle_for: self.idle_for,
            refreshes: self.refreshes,
            refreshed_at: Timestamp(self.issued_at),
            reissues: 0,
            is_presented: false,
            last_byte_at: Timestamp(self.last_byte_at),
            prefix: part(self.prefix),
            newest: self.newest.map(part),
            is_held_back: false,
            n_attempts,
            fruitless_starts: self.fruitless_starts,
            replays: self.replays,
            networks: Vec::new(),
            state: self.state.into(),
        })
    }
}

impl From<Purpose> for RowPurpose {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Message => Self::Message,
            Purpose::Profile => Self::Profile,
            Purpose::Ephemeral { expire_before } => Self::Ephemeral {
                expire_before: expire_before.0,
            },
            Purpose::Permanent => Self::Permanent,
        }
    }
}

impl From<RowPurpose> for Purpose {
    fn from(purpose: RowPurpose) -> Self {
        match purpose {
            RowPurpose::Message => Self::Message,
            RowPurpose::Profile => Self::Profile,
            RowPurpose::Ephemeral { expire_before } => Self::Ephemeral {
                expire_before: Timestamp(expire_before),
            },
            RowPurpose::Permanent => Self::Permanent,
        }
    }
}

impl From<FirstState> for State {
    fn from(state: FirstState) -> Self {
        match state {
            FirstState::Pending => Self::Pending,
            FirstState::Uploading => Self::Uploading,
            FirstState::Complete { sha256, at } => Self::Complete {
                sha256: Sha256(sha256),
                at: Timestamp(at),
            },
            // Why was not kept; this reason says nothing against the bytes.
            FirstState::Failed => Self::Failed(FailReason::Policy),
            FirstState::Cancelled => Self::Cancelled,
            FirstState::Expired => Self::Expired,
        }
    }
}

#[cfg(test)]
impl From<State> for FirstState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Uploading => Self::Uploading,
            State::Complete { sha256, at } => Self::Complete {
                sha256: sha256.0,
                at: at.0,
            },
            State::Failed(_) => Self::Failed,
            State::Cancelled => Self::Cancelled,
            State::Expired => Self::Expired,
        }
    }
}
