//! Rows for tests of stores.

use std::time::Duration;

use jid::BareJid;
use slotd::core::policy::{Bucket, Usage};
use slotd::core::refusal::Refusal;
use slotd::core::session::{FileFacts, Lifetimes, Retention, UploadSession};
use slotd::core::slot::{ContentType, FileName, PartId, Purpose, SessionId, Sha256, SlotId};
use slotd::core::time::Timestamp;
use slotd::store::{Admit, Change};

/// When the rows are made.
pub const NOW: Timestamp = Timestamp(3600 * 490_000 + 1800);
/// How long files in messages are kept.
pub const KEEP_FOR: Duration = Duration::from_secs(30 * 86_400);

pub fn jid(text: &str) -> BareJid {
    BareJid::new(text).expect("a valid JID")
}

pub fn later(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

pub fn lifetimes() -> Lifetimes {
    Lifetimes {
        idle_for: Duration::from_secs(300),
        session_age: Duration::from_secs(72 * 3600),
        rufh_idle_for: Duration::from_secs(3600),
        refreshes_max: 10,
        retention: Retention {
            message: Some(KEEP_FOR),
            ..Retention::default()
        },
    }
}

pub fn row(id: u128, owner: &str, size_bytes: u64, created_at: Timestamp) -> UploadSession {
    row_for(id, owner, size_bytes, created_at, Purpose::Message)
}

pub fn row_for(
    id: u128,
    owner: &str,
    size_bytes: u64,
    created_at: Timestamp,
    purpose: Purpose,
) -> UploadSession {
    let file = FileFacts {
        name: FileName::parse("a.bin").expect("a valid name"),
        size_bytes,
        content_type: ContentType::octet_stream(),
        purpose,
    };
    UploadSession::new(SlotId(id), jid(owner), file, &lifetimes(), created_at)
}

/// The name of the upload session of the slot `id`.
pub fn name(id: u128) -> SessionId {
    SessionId(!id)
}

/// A row that its owner knows by `name(id)`.
pub fn announced(id: u128, owner: &str, size_bytes: u64, created_at: Timestamp) -> UploadSession {
    row(id, owner, size_bytes, created_at).announced(name(id), None)
}

/// A decision that looks at nothing.
pub fn take(row: UploadSession) -> Admit {
    Box::new(move |_: &Usage| Ok(row.clone()))
}

/// Admits where `limit` bytes of the owner's are not passed.
pub fn within(limit: u64, row: UploadSession) -> Admit {
    Box::new(move |usage: &Usage| {
        let used: u64 = usage.requester.iter().map(|(_, n_bytes)| n_bytes).sum();
        match used + row.file.size_bytes <= limit {
            true => Ok(row.clone()),
            false => Err(Refusal::QuotaReached { retry_at: NOW }),
        }
    })
}

/// The change that makes a row complete `at`.
pub fn complete(at: Timestamp) -> Change {
    Box::new(move |row: UploadSession| {
        let (claims, generation) = (row.put_claims(), row.generation);
        let row = row.begin(&claims, at)?;
        let part = row.newest.expect("it has begun").0;
        row.complete(generation, part, Sha256([9; 32]), &lifetimes(), at)
    })
}

pub fn part(id: u128, attempt: u16) -> PartId {
    PartId {
        slot: SlotId(id),
        attempt,
    }
}

pub fn hour() -> Bucket {
    Bucket::of(NOW)
}
