//! Upload sessions for tests: of 1,000 bytes, Romeo's, and their requests.

use std::time::Duration;

use jid::BareJid;

use crate::core::session::{FileFacts, Lifetimes, Retention, UploadSession};
use crate::core::slot::{ContentType, FileName, PartId, Purpose, SessionId, Sha256, SlotId};
use crate::core::time::Timestamp;

pub(super) const START: Timestamp = Timestamp(1_000_000);
pub(super) const SIZE: u64 = 1000;

pub(super) fn lifetimes() -> Lifetimes {
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

pub(super) fn romeo() -> BareJid {
    BareJid::new("romeo@example.org").expect("a valid JID")
}

pub(super) fn juliet() -> BareJid {
    BareJid::new("juliet@example.org").expect("a valid JID")
}

pub(super) fn pending(purpose: Purpose) -> UploadSession {
    let file = FileFacts {
        name: FileName::parse("a.bin").expect("a valid name"),
        size_bytes: SIZE,
        content_type: ContentType::octet_stream(),
        purpose,
    };
    UploadSession::new(SlotId(7), romeo(), file, &lifetimes(), START)
}

pub(super) fn plain() -> UploadSession {
    pending(Purpose::Message)
}

pub(super) fn announced() -> UploadSession {
    plain().announced(SessionId(1), None)
}

pub(super) fn at(seconds: u64) -> Timestamp {
    Timestamp(START.0 + seconds)
}

#[track_caller]
pub(super) fn begin(row: UploadSession, seconds: u64) -> UploadSession {
    let claims = row.put_claims();
    row.begin(&claims, at(seconds))
        .expect("the request is admitted")
}

#[track_caller]
pub(super) fn refresh(row: UploadSession, seconds: u64) -> UploadSession {
    row.refresh(&romeo(), &lifetimes(), at(seconds))
        .expect("it is refreshed")
}

pub(super) fn part(attempt: u16) -> PartId {
    PartId {
        slot: SlotId(7),
        attempt,
    }
}

pub(super) fn complete() -> UploadSession {
    begin(announced(), 1)
        .complete(0, part(0), Sha256([9; 32]), &lifetimes(), at(2))
        .expect("the newest attempt completes")
}
