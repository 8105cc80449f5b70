//! The stored form of an upload session: a version byte, a digest of the rest, then postcard.
//!
//! A shape of its own, so that core can change its types without changing what lies on disks: a new
//! field needs a new version here, and the old one stays readable. Whatever is read passes the same
//! constructors as what comes from a requester; bytes that are no row are `Corrupt`.

use std::time::Duration;

use jid::BareJid;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::core::session::network::Network;
use crate::core::session::{Agreement, FailReason, FileFacts, State, UploadSession};
use crate::core::slot::{ContentType, FileName, PartId, Purpose, SessionId, Sha256, SlotId};
use crate::core::time::Timestamp;
use crate::store::StoreError;

/// The first byte of a row of today's shape.
const VERSION: u8 = 2;
/// Bytes of the digest: enough to tell damage, which is no attack.
const DIGEST_BYTES: usize = 8;
/// What a usual row takes: saves growing the buffer.
const ROW_BYTES_USUAL: usize = 256;

#[derive(Serialize, Deserialize)]
struct Row {
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
    state: RowState,
    agreement: RowAgreement,
    expected: Option<[u8; 32]>,
    refreshed_at: u64,
    reissues: u8,
    is_presented: bool,
    networks: Vec<RowNetwork>,
    is_held_back: bool,
    n_attempts: u16,
}

#[derive(Serialize, Deserialize)]
enum RowAgreement {
    Slot,
    Resumable,
    Session(u128),
}

#[derive(Serialize, Deserialize)]
struct RowNetwork {
    at: u64,
    address: Option<String>,
    agent: Option<String>,
}

#[derive(Serialize, Deserialize)]
enum RowPurpose {
    Message,
    Profile,
    Ephemeral { expire_before: u64 },
    Permanent,
}

#[derive(Serialize, Deserialize)]
enum RowState {
    Pending,
    Uploading,
    Complete { sha256: [u8; 32], at: u64 },
    Failed(RowReason),
    Cancelled,
    Expired,
}

#[derive(Serialize, Deserialize)]
enum RowReason {
    DigestMismatch,
    SizeMismatch,
    Policy,
}

/// The stored form of `session`.
pub fn encode(session: &UploadSession) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ROW_BYTES_USUAL);
    bytes.push(VERSION);
    bytes.extend([0; DIGEST_BYTES]);
    let bytes = postcard::to_extend(&Row::from(session), bytes);
    let mut bytes = bytes.expect("a vector takes any row");
    let digest = digest(&bytes[1 + DIGEST_BYTES..]);
    bytes[1..=DIGEST_BYTES].copy_from_slice(&digest);
    bytes
}

/// redb verifies its pages when it opens them all, not when it reads one.
fn digest(row: &[u8]) -> [u8; DIGEST_BYTES] {
    let digest = sha2::Sha256::digest(row);
    std::array::from_fn(|n| digest[n])
}

/// Reads what `encode` wrote for the slot `id`.
pub fn decode(id: SlotId, bytes: &[u8]) -> Result<UploadSession, StoreError> {
    let read = || match bytes.split_first()? {
        (&VERSION, rest) => {
            let (expected, row) = rest.split_first_chunk()?;
            if digest(row) != *expected {
                return None;
            }
            match postcard::take_from_bytes::<Row>(row) {
                Ok((row, [])) if row.id == id.0 => row.into_session(),
                _ => None,
            }
        }
        _ => None,
    };
    read().ok_or_else(|| StoreError::Corrupt(format!("the row of {id:?}")))
}

impl From<&UploadSession> for Row {
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
            agreement: session.agreement.into(),
            expected: session.expected.map(|sha256| sha256.0),
            refreshed_at: session.refreshed_at.0,
            reissues: session.reissues,
            is_presented: session.is_presented,
            networks: session.networks.iter().map(RowNetwork::from).collect(),
            is_held_back: session.is_held_back,
            n_attempts: session.n_attempts,
        }
    }
}

impl From<&Network> for RowNetwork {
    fn from(network: &Network) -> Self {
        Self {
            at: network.at.0,
            address: network.address.clone(),
            agent: network.agent.clone(),
        }
    }
}

impl From<RowNetwork> for Network {
    fn from(network: RowNetwork) -> Self {
        Self {
            at: Timestamp(network.at),
            address: network.address,
            agent: network.agent,
        }
    }
}

impl From<Agreement> for RowAgreement {
    fn from(agreement: Agreement) -> Self {
        match agreement {
            Agreement::Slot => Self::Slot,
            Agreement::Resumable => Self::Resumable,
            Agreement::Session(id) => Self::Session(id.0),
        }
    }
}

impl From<RowAgreement> for Agreement {
    fn from(agreement: RowAgreement) -> Self {
        match agreement {
            RowAgreement::Slot => Self::Slot,
            RowAgreement::Resumable => Self::Resumable,
            RowAgreement::Session(id) => Self::Session(SessionId(id)),
        }
    }
}

impl From<FailReason> for RowReason {
    fn from(reason: FailReason) -> Self {
        match reason {
            FailReason::DigestMismatch => Self::DigestMismatch,
            FailReason::SizeMismatch => Self::SizeMismatch,
            FailReason::Policy => Self::Policy,
        }
    }
}

impl From<RowReason> for FailReason {
    fn from(reason: RowReason) -> Self {
        match reason {
            RowReason::DigestMismatch => Self::DigestMismatch,
            RowReason::SizeMismatch => Self::SizeMismatch,
            RowReason::Policy => Self::Policy,
        }
    }
}

impl Row {
    fn into_session(self) -> Option<UploadSession> {
        let id = SlotId(self.id);
        let part = |(attempt, offset): (u16, u64)| (PartId { slot: id, attempt }, offset);
        Some(UploadSession {
            id,
            owner: BareJid::new(&self.owner).ok()?,
            file: FileFacts {
                name: FileName::parse(&self.name).ok()?,
                size_bytes: self.size_bytes,
                content_type: ContentType::parse(&self.content_type).ok()?,
                purpose: self.purpose.into(),
            },
            created_at: Timestamp(self.created_at),
            expires_at: Timestamp(self.expires_at),
            keep_until: self.keep_until.map(Timestamp),
            generation: self.generation,
            issued_at: Timestamp(self.issued_at),
            idle_for: self.idle_for,
            refreshes: self.refreshes,
            last_byte_at: Timestamp(self.last_byte_at),
            prefix: part(self.prefix),
            newest: self.newest.map(part),
            fruitless_starts: self.fruitless_starts,
            replays: self.replays,
            state: self.state.into(),
            agreement: self.agreement.into(),
            expected: self.expected.map(Sha256),
            refreshed_at: Timestamp(self.refreshed_at),
            reissues: self.reissues,
            is_presented: self.is_presented,
            networks: self.networks.into_iter().map(Network::from).collect(),
            is_held_back: self.is_held_back,
            n_attempts: self.n_attempts,
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

impl From<State> for RowState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Uploading => Self::Uploading,
            State::Complete { sha256, at } => Self::Complete {
                sha256: sha256.0,
                at: at.0,
            },
            State::Failed(reason) => Self::Failed(reason.into()),
            State::Cancelled => Self::Cancelled,
            State::Expired => Self::Expired,
        }
    }
}

impl From<RowState> for State {
    fn from(state: RowState) -> Self {
        match state {
            RowState::Pending => Self::Pending,
            RowState::Uploading => Self::Uploading,
            RowState::Complete { sha256, at } => Self::Complete {
                sha256: Sha256(sha256),
                at: Timestamp(at),
            },
            RowState::Failed(reason) => Self::Failed(reason.into()),
            RowState::Cancelled => Self::Cancelled,
            RowState::Expired => Self::Expired,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PURPOSES: [Purpose; 4] = [
        Purpose::Message,
        Purpose::Profile,
        Purpose::Ephemeral {
            expire_before: Timestamp(77),
        },
        Purpose::Permanent,
    ];

    fn states(digest: [u8; 32], at: u64) -> [State; 6] {
        [
            State::Pending,
            State::Uploading,
            State::Complete {
                sha256: Sha256(digest),
                at: Timestamp(at),
            },
            State::Failed(FailReason::SizeMismatch),
            State::Cancelled,
            State::Expired,
        ]
    }

    prop_compose! {
        fn any_session()(
            (id, size_bytes, created_at, expires_at) in any::<(u128, u64, u64, u64)>(),
            (keep_until, generation, issued_at) in any::<(Option<u64>, u8, u64)>(),
            (idle_s, refreshes, last_byte_at) in any::<(u64, u8, u64)>(),
            (prefix, newest) in any::<((u16, u64), Option<(u16, u64)>)>(),
            (fruitless_starts, replays, digest) in any::<(u8, u8, [u8; 32])>(),
            (purpose, state) in (0..PURPOSES.len(), 0..6usize),
            name in "[^/\\\\\u{0}-\u{1f}\u{7f}-\u{9f}]{1,40}x",
        ) -> UploadSession {
            let part = |(attempt, offset)| (PartId { slot: SlotId(id), attempt }, offset);
            UploadSession {
                id: SlotId(id),
                owner: BareJid::new("romeo@example.org").expect("a valid JID"),
                file: FileFacts {
                    name: FileName::parse(&name).expect("a valid name"),
                    size_bytes,
                    content_type: ContentType::parse("Text/plain; a=B").expect("a valid type"),
                    purpose: PURPOSES[purpose],
                },
                created_at: Timestamp(created_at),
                expires_at: Timestamp(expires_at),
                keep_until: keep_until.map(Timestamp),
                generation,
                issued_at: Timestamp(issued_at),
                idle_for: Duration::from_secs(idle_s),
                refreshes,
                last_byte_at: Timestamp(last_byte_at),
                prefix: part(prefix),
                newest: newest.map(part),
                agreement: Agreement::Session(SessionId(!id)),
                expected: Some(Sha256(digest)),
                refreshed_at: Timestamp(issued_at),
                reissues: refreshes,
                is_presented: refreshes % 2 == 0,
                networks: vec![Network {
                    at: Timestamp(created_at),
                    address: Some("192.0.2.1".to_owned()),
                    agent: Some(name.clone()),
                }],
                is_held_back: refreshes % 3 == 0,
                n_attempts: prefix.0,
                fruitless_starts,
                replays,
                state: states(digest, created_at)[state],
            }
        }
    }

    proptest! {
        #[test]
        fn a_row_comes_back_as_it_was(session in any_session()) {
            let bytes = encode(&session);
            prop_assert_eq!(decode(session.id, &bytes).expect("our own row"), session);
        }

        #[test]
        fn no_other_bytes_are_a_row(session in any_session(), cut: prop::sample::Index) {
            let bytes = encode(&session);
            let other = SlotId(session.id.0 ^ 1);
            prop_assert!(decode(other, &bytes).is_err());
            prop_assert!(decode(session.id, &bytes[..cut.index(bytes.len())]).is_err());
            let longer = [&bytes[..], b"x"].concat();
            prop_assert!(decode(session.id, &longer).is_err());
        }

        #[test]
        fn garbage_is_an_error(id: u128, mut bytes: Vec<u8>, versioned: bool) {
            if versioned {
                bytes.insert(0, VERSION);
            }
            prop_assert!(decode(SlotId(id), &bytes).is_err());
        }

        #[test]
        fn a_changed_bit_is_damage(
            session in any_session(),
            at: prop::sample::Index,
            bit in 0..8u8,
        ) {
            let mut bytes = encode(&session);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(session.id, &bytes).is_err());
        }

        #[test]
        fn a_row_with_its_digest_is_no_panic(
            session in any_session(),
            at: prop::sample::Index,
            byte: u8,
        ) {
            let mut row = encode(&session).split_off(1 + DIGEST_BYTES);
            let at = at.index(row.len());
            row[at] = byte;
            let bytes = [&[VERSION], &digest(&row)[..], &row].concat();
            if let Ok(read) = decode(session.id, &bytes) {
                let again = decode(session.id, &encode(&read));
                prop_assert_eq!(again.expect("what was read can be kept"), read);
            }
        }
    }

    #[test]
    fn the_first_version_stays_readable() {
        let session = UploadSession {
            id: SlotId(7),
            owner: BareJid::new("romeo@example.org").expect("a valid JID"),
            file: FileFacts {
                name: FileName::parse("a.bin").expect("a valid name"),
                size_bytes: 1000,
                content_type: ContentType::octet_stream(),
                purpose: Purpose::Message,
            },
            agreement: Agreement::Slot,
            expected: None,
            created_at: Timestamp(1),
            expires_at: Timestamp(2),
            keep_until: Some(Timestamp(3)),
            generation: 4,
            issued_at: Timestamp(5),
            idle_for: Duration::from_secs(6),
            refreshes: 7,
            refreshed_at: Timestamp(5),
            reissues: 0,
            is_presented: false,
            last_byte_at: Timestamp(8),
            prefix: (
                PartId {
                    slot: SlotId(7),
                    attempt: 9,
                },
                10,
            ),
            newest: None,
            is_held_back: false,
            n_attempts: 10,
            fruitless_starts: 11,
            replays: 12,
            networks: Vec::new(),
            state: State::Complete {
                sha256: Sha256([13; 32]),
                at: Timestamp(14),
            },
        };
        let head = b"\x07\x11romeo@example.org\x05a.bin\xe8\x07";
        let tail = b"\x18application/octet-stream\x00\x01\x02\x01\x03\x04\x05\x06\x00\x07\x08";
        let end = b"\x09\x0a\x00\x0b\x0c\x02\x0d";
        let digest = b"\x66\xcd\xd0\x5a\xd2\x27\x25\x0a";
        let bytes = [b"\x01", &digest[..], head, tail, end, &[13; 31], &[14]].concat();
        assert_eq!(decode(SlotId(7), &bytes).expect("version 1"), session);
    }
}
