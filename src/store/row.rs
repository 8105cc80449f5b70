//! The stored form of an upload session: a version byte, a digest of the rest, then postcard.
//!
//! Shapes of their own, so that core can change its types without changing what lies on disks: a
//! new field needs a new version here, and the old ones stay readable (`first`, `second`). Whatever
//! is read passes the same constructors as what comes from a requester; bytes that are no row are
//! `Corrupt`.

use serde::de::DeserializeOwned;
use sha2::Digest as _;

use crate::core::session::UploadSession;
use crate::core::slot::SlotId;
use crate::store::StoreError;
use first::FirstState;

mod first;
mod second;

/// The first byte of a row of the first shape.
const FIRST: u8 = 1;
/// The first byte of a row of today's shape.
const VERSION: u8 = 2;
/// Bytes of the digest: enough to tell damage, which is no attack.
const DIGEST_BYTES: usize = 8;
/// What a usual row takes: saves growing the buffer.
const ROW_BYTES_USUAL: usize = 256;

/// The stored form of `session`.
pub fn encode(session: &UploadSession) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ROW_BYTES_USUAL);
    bytes.push(VERSION);
    bytes.extend([0; DIGEST_BYTES]);
    let bytes = postcard::to_extend(&second::Row::from(session), bytes);
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

/// Reads what `encode` wrote for the slot `id`, in this version or an earlier one.
pub fn decode(id: SlotId, bytes: &[u8]) -> Result<UploadSession, StoreError> {
    let session = read(bytes).filter(|session| session.id == id);
    session.ok_or_else(|| StoreError::Corrupt(format!("the row of {id:?}")))
}

fn read(bytes: &[u8]) -> Option<UploadSession> {
    let (version, rest) = bytes.split_first()?;
    let (expected, row) = rest.split_first_chunk()?;
    if digest(row) != *expected {
        return None;
    }
    match *version {
        FIRST => whole::<first::Row<FirstState>>(row)?.into_session(),
        VERSION => whole::<second::Row>(row)?.into_session(),
        _ => None,
    }
}

/// A shape that takes all of `row`.
fn whole<T: DeserializeOwned>(row: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(row) {
        Ok((shape, [])) => Some(shape),
        _ => None,
    }
}

/// The form that the first version wrote.
#[cfg(test)]
pub(crate) fn encode_first(session: &UploadSession) -> Vec<u8> {
    let row = first::Row::<FirstState>::from(session);
    let row = postcard::to_allocvec(&row).expect("a vector takes any row");
    [&[FIRST], &digest(&row)[..], &row].concat()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jid::BareJid;
    use proptest::prelude::*;

    use super::*;
    use crate::core::session::network::Network;
    use crate::core::session::{Agreement, FailReason, FileFacts, State};
    use crate::core::slot::{ContentType, FileName, PartId, Purpose, SessionId, Sha256};
    use crate::core::time::Timestamp;

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
            State::Failed(
                [
                    FailReason::DigestMismatch,
                    FailReason::SizeMismatch,
                    FailReason::Policy,
                ][usize::from(digest[0] % 3)],
            ),
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
                agreement: [
                    Agreement::Slot,
                    Agreement::Resumable,
                    Agreement::Session(SessionId(!id)),
                    Agreement::External { is_resumable: id % 2 == 0 },
                ][usize::from(generation % 4)],
                expected: (refreshes % 3 != 0).then_some(Sha256(digest)),
                refreshed_at: Timestamp(issued_at),
                reissues: refreshes,
                is_presented: refreshes % 2 == 0,
                networks: vec![Network {
                    at: Timestamp(created_at),
                    address: Some("192.0.2.1".to_owned()),
                    agent: Some(name.clone()),
                }],
                is_held_back: refreshes % 5 == 0,
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
                bytes.insert(0, 1 + bytes.len() as u8 % VERSION);
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

    /// A session whose bytes are known.
    fn known() -> UploadSession {
        let (slot, attempt) = (SlotId(7), 9);
        UploadSession {
            id: slot,
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
            prefix: (PartId { slot, attempt }, 10),
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
        }
    }

    /// What all shapes begin with, up to the state.
    fn known_bytes() -> Vec<u8> {
        let head = b"\x07\x11romeo@example.org\x05a.bin\xe8\x07";
        let tail = b"\x18application/octet-stream\x00\x01\x02\x01\x03\x04\x05\x06\x00\x07\x08";
        [&head[..], tail, b"\x09\x0a\x00\x0b\x0c"].concat()
    }

    #[test]
    fn the_first_version_stays_readable() {
        let digest_of_all = b"\x66\xcd\xd0\x5a\xd2\x27\x25\x0a";
        let row = [&known_bytes()[..], b"\x02", &[13; 32], b"\x0e"].concat();
        let bytes = [b"\x01", &digest_of_all[..], &row].concat();
        assert_eq!(decode(SlotId(7), &bytes).expect("version 1"), known());
        assert_eq!(encode_first(&known()), bytes);
        for (state, expected) in [
            (b"\x00", State::Pending),
            (b"\x01", State::Uploading),
            (b"\x03", State::Failed(FailReason::Policy)),
            (b"\x04", State::Cancelled),
            (b"\x05", State::Expired),
        ] {
            let row = [&known_bytes()[..], state].concat();
            let bytes = [b"\x01", &digest(&row)[..], &row].concat();
            let session = decode(SlotId(7), &bytes).expect("version 1");
            assert_eq!(session.state, expected);
            let newer = encode(&session);
            assert_eq!(decode(SlotId(7), &newer).expect("version 2"), session);
        }
    }

    #[test]
    fn the_second_version_stays_readable() {
        let session = UploadSession {
            agreement: Agreement::Session(SessionId(15)),
            expected: Some(Sha256([16; 32])),
            refreshed_at: Timestamp(17),
            reissues: 18,
            is_presented: true,
            is_held_back: true,
            networks: vec![Network {
                at: Timestamp(19),
                address: Some("192.0.2.1".to_owned()),
                agent: None,
            }],
            state: State::Failed(FailReason::SizeMismatch),
            ..known()
        };
        let state = b"\x03\x01";
        let added = [&b"\x02\x0f\x01"[..], &[16; 32], b"\x11\x12\x01"].concat();
        let networks = b"\x01\x13\x01\x09192.0.2.1\x00";
        let attempts = b"\x01\x0a";
        let row = [&known_bytes()[..], state, &added, networks, attempts].concat();
        let bytes = [b"\x02", &digest(&row)[..], &row].concat();
        assert_eq!(encode(&session), bytes);
        assert_eq!(decode(SlotId(7), &bytes).expect("version 2"), session);
    }
}
