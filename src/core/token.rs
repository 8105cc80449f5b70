//! PUT token and resume URL: what lets HTTP requests write to one slot, sealed with HMAC-SHA-256.
//!
//! `v1.` base64url(payload) `.` base64url(tag), without padding; opaque to clients (XEP-0363
//! #impl). The payload has a fixed length, so no field can shift into another, and there is no
//! algorithm field to lie about. A token opens nothing by itself: generation and time are checked
//! against the row (`session`). Keys have ids, so that they can be rotated while tokens are under
//! way.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jid::BareJid;
use sha2::Digest as _;

use crate::core::refusal::Refusal;
use crate::core::slot::SlotId;
use crate::core::time::Timestamp;

const VERSION: &str = "v1.";
const PAYLOAD_BYTES: usize = 43;
/// Keeps a PUT token's tag from being valid for anything else sealed with the same key.
const PUT_LABEL: &[u8] = b"http-upload/put/v1";
/// The same for resume URLs.
const RESUME_LABEL: &[u8] = b"http-upload/resume/v1";
const RESUME_SCOPE: u8 = 2;
const RESUME_PAYLOAD_BYTES: usize = 19;
/// Longest text looked at; a token has 105 characters.
const TOKEN_BYTES_MAX: usize = 128;

/// What a credential allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To PUT the slot's file.
    Put,
}

impl Scope {
    fn to_byte(self) -> u8 {
        match self {
            Self::Put => 1,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        (byte == 1).then_some(Self::Put)
    }
}

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// What it allows.
    pub scope: Scope,
    /// Whose generation it belongs to.
    pub generation: u8,
    /// Which slot.
    pub id: SlotId,
    /// The slot's size in bytes.
    pub size_bytes: u64,
    /// When it was sealed.
    pub issued_at: Timestamp,
    /// `owner_hash` of the slot's owner.
    pub owner: [u8; 8],
}

/// The first 8 bytes of the owner's SHA-256: binds a token to its owner without naming them.
pub fn owner_hash(owner: &BareJid) -> [u8; 8] {
    let digest = sha2::Sha256::digest(owner.as_str().as_bytes());
    digest[..8].try_into().expect("a digest has 32 bytes")
}

/// Seals `claims` with the current key.
pub fn seal(keys: &Keys, claims: &Claims) -> String {
    let key = keys.current();
    let mut payload = Vec::with_capacity(PAYLOAD_BYTES);
    payload.extend([key.id, claims.scope.to_byte(), claims.generation]);
    payload.extend(claims.id.0.to_be_bytes());
    payload.extend(claims.size_bytes.to_be_bytes());
    payload.extend(claims.issued_at.0.to_be_bytes());
    payload.extend(claims.owner);
    let tag = mac(key, PUT_LABEL, &payload).finalize().into_bytes();
    let mut text = String::with_capacity(TOKEN_BYTES_MAX);
    text.push_str(VERSION);
    URL_SAFE_NO_PAD.encode_string(payload, &mut text);
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(tag, &mut text);
    text
}

/// Opens a token: what it says, if one of `keys` sealed it.
///
/// Refuses `TokenInvalid`, alike for whatever is wrong; the tag is compared in constant time. One
/// token has one spelling.
pub fn open(keys: &Keys, text: &str) -> Result<Claims, Refusal> {
    read(keys, text).ok_or(Refusal::TokenInvalid)
}

fn read(keys: &Keys, text: &str) -> Option<Claims> {
    if TOKEN_BYTES_MAX < text.len() {
        return None;
    }
    let (payload, tag) = text.strip_prefix(VERSION)?.split_once('.')?;
    let payload: [u8; PAYLOAD_BYTES] = URL_SAFE_NO_PAD.decode(payload).ok()?.try_into().ok()?;
    let tag: [u8; 32] = URL_SAFE_NO_PAD.decode(tag).ok()?.try_into().ok()?;
    let key = keys.find(payload[0])?;
    mac(key, PUT_LABEL, &payload).verify_slice(&tag).ok()?;
    let number = |from: usize| -> Option<u64> {
        Some(u64::from_be_bytes(payload[from..from + 8].try_into().ok()?))
    };
    Some(Claims {
        scope: Scope::from_byte(payload[1])?,
        generation: payload[2],
        id: SlotId(u128::from_be_bytes(payload[3..19].try_into().ok()?)),
        size_bytes: number(19)?,
        issued_at: Timestamp(number(27)?),
        owner: payload[35..].try_into().ok()?,
    })
}

/// Whether a token never was ours. What opens is ours, however late; and a key that is no longer in
/// use may have sealed it: whoever holds that is late, and no forger. Nor is who presents nothing.
pub fn is_forged(keys: &Keys, text: &str) -> bool {
    if text.is_empty() || read(keys, text).is_some() {
        return false;
    }
    let payload = text.strip_prefix(VERSION).and_then(|it| it.split_once('.'));
    let key_id = payload.and_then(|(payload, _)| {
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        (payload.len() == PAYLOAD_BYTES).then(|| payload[0])
    });
    TOKEN_BYTES_MAX < text.len() || !key_id.is_some_and(|id| keys.is_gone(id))
}

/// The same of a resume URL's last segment.
pub fn is_forged_resume(keys: &Keys, text: &str) -> bool {
    if read_resume(keys, text).is_some() {
        return false;
    }
    let bytes = (text.len() <= TOKEN_BYTES_MAX).then(|| URL_SAFE_NO_PAD.decode(text).ok());
    let bytes = bytes.flatten().unwrap_or_default();
    bytes.len() != RESUME_PAYLOAD_BYTES + 32 || !keys.is_gone(bytes[0])
}

/// What the last segment of a resume URL says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumeClaims {
    /// Which slot.
    pub id: SlotId,
    /// Whose generation it belongs to.
    pub generation: u8,
}

/// Seals `claims` with the current key: base64url(payload and tag), 68 characters.
pub fn seal_resume(keys: &Keys, claims: ResumeClaims) -> String {
    let key = keys.current();
    let mut bytes = vec![key.id, RESUME_SCOPE, claims.generation];
    bytes.extend(claims.id.0.to_be_bytes());
    let tag = mac(key, RESUME_LABEL, &bytes).finalize().into_bytes();
    bytes.extend(tag);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Opens what `seal_resume` made.
///
/// Refuses `UnknownFile`, alike for whatever is wrong: to a stranger there is nothing.
pub fn open_resume(keys: &Keys, text: &str) -> Result<ResumeClaims, Refusal> {
    read_resume(keys, text).ok_or(Refusal::UnknownFile)
}

fn read_resume(keys: &Keys, text: &str) -> Option<ResumeClaims> {
    if TOKEN_BYTES_MAX < text.len() {
        return None;
    }
    let bytes: [u8; RESUME_PAYLOAD_BYTES + 32] =
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    let (payload, tag) = bytes.split_at(RESUME_PAYLOAD_BYTES);
    let key = keys.find(payload[0])?;
    mac(key, RESUME_LABEL, payload).verify_slice(tag).ok()?;
    (payload[1] == RESUME_SCOPE).then_some(())?;
    Some(ResumeClaims {
        generation: payload[2],
        id: SlotId(u128::from_be_bytes(payload[3..].try_into().ok()?)),
    })
}

fn mac(key: &Key, label: &[u8], payload: &[u8]) -> Hmac<sha2::Sha256> {
    let mut mac =
        Hmac::<sha2::Sha256>::new_from_slice(&key.secret).expect("HMAC takes keys of any length");
    mac.update(label);
    mac.update(payload);
    mac
}

/// A signing key; `Debug` shows its id alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Named in each token.
    pub id: u8,
    /// When it began to sign.
    pub created_at: Timestamp,
    /// 32 random bytes.
    pub secret: [u8; 32],
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// The keys in use: the current one, which signs, and older ones, which still open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// The first key.
    pub fn first(secret: [u8; 32], now: Timestamp) -> Self {
        Self(vec![Key {
            id: 1,
            created_at: now,
            secret,
        }])
    }

    /// Keys read back from where they are kept, oldest first; `None` where there is none.
    pub fn from_list(keys: Vec<Key>) -> Option<Self> {
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// All keys, oldest first.
    pub fn list(&self) -> &[Key] {
        &self.0
    }

    fn current(&self) -> &Key {
        self.0.last().expect("there is always a key")
    }

    fn find(&self, id: u8) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }

    /// Whether there may have been a key of this id, which is no longer in use. Ids go from 1 up by
    /// one, and begin anew at the end.
    fn is_gone(&self, id: u8) -> bool {
        let is_before = |key: &Key| id < key.id;
        let has_begun_anew = self.0.first().is_some_and(|key| self.current().id < key.id);
        let was_given = has_begun_anew || self.0.first().is_some_and(is_before);
        id != 0 && was_given && self.find(id).is_none()
    }

    /// Whether the current key has signed for `rotate_every`.
    pub fn is_rotation_due(&self, rotate_every: Duration, now: Timestamp) -> bool {
        self.current().created_at.plus(rotate_every) <= now
    }

    /// Adds a new current key made of `secret`; its id is the oldest one's again after 255.
    pub fn rotate(&self, secret: [u8; 32], now: Timestamp) -> Self {
        let id = match self.current().id {
            u8::MAX => 1,
            id => id + 1,
        };
        let mut keys: Vec<Key> = self.0.iter().filter(|key| key.id != id).cloned().collect();
        keys.push(Key {
            id,
            created_at: now,
            secret,
        });
        Self(keys)
    }

    /// Leaves out the keys that were replaced longer ago than `keep_old_for`.
    pub fn retire(&self, keep_old_for: Duration, now: Timestamp) -> Self {
        let replaced_at = |index: usize| self.0.get(index + 1).map(|next| next.created_at);
        let is_kept =
            |index: usize| replaced_at(index).is_none_or(|at| now < at.plus(keep_old_for));
        let kept = self.0.iter().enumerate();
        Self(
            kept.filter(|(index, _)| is_kept(*index))
                .map(|(_, key)| key.clone())
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn keys() -> Keys {
        Keys::first([7; 32], Timestamp(0))
    }

    fn claims() -> Claims {
        Claims {
            scope: Scope::Put,
            generation: 3,
            id: SlotId(0x0123_4567_89ab_cdef),
            size_bytes: 1000,
            issued_at: Timestamp(1_700_000_000),
            owner: *b"12345678",
        }
    }

    proptest::proptest! {
        #[test]
        fn what_was_sealed_opens(generation: u8, id: u128, size_bytes: u64, issued_at: u64) {
            let issued_at = Timestamp(issued_at);
            let claims = Claims { generation, id: SlotId(id), size_bytes, issued_at, ..claims() };
            let token = seal(&keys(), &claims);
            proptest::prop_assert!(token.len() <= TOKEN_BYTES_MAX);
            proptest::prop_assert_eq!(open(&keys(), &token), Ok(claims));
        }

        #[test]
        fn garbage_is_refused(text in ".{0,200}") {
            proptest::prop_assert_eq!(open(&keys(), &text), Err(Refusal::TokenInvalid));
        }
    }

    #[test]
    fn resume_urls_open_what_they_were_sealed_for() {
        let claims = ResumeClaims {
            id: SlotId(0x0123_4567_89ab_cdef),
            generation: 3,
        };
        let text = seal_resume(&keys(), claims);
        assert_eq!(text.len(), 68);
        assert_eq!(open_resume(&keys(), &text), Ok(claims));
        for at in 0..text.len() {
            for bit in 0..7 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let changed = String::from_utf8(bytes).expect("still ASCII");
                let opened = open_resume(&keys(), &changed);
                assert_eq!(opened, Err(Refusal::UnknownFile), "bit {bit} at {at}");
            }
        }
        let put = seal(&keys(), &super::tests::claims());
        assert!(open_resume(&keys(), &put).is_err() && open(&keys(), &text).is_err());
    }

    #[test]
    fn any_changed_bit_refuses() {
        let token = seal(&keys(), &claims());
        for at in 0..token.len() {
            for bit in 0..7 {
                let mut bytes = token.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let changed = String::from_utf8(bytes).expect("still ASCII");
                assert_eq!(
                    open(&keys(), &changed),
                    Err(Refusal::TokenInvalid),
                    "bit {bit} at {at}"
                );
            }
        }
    }

    #[test]
    fn tags_of_other_lengths_are_refused() {
        let token = seal(&keys(), &claims());
        let (rest, tag) = token.rsplit_once('.').expect("a token has a tag");
        let tag = URL_SAFE_NO_PAD.decode(tag).expect("base64url");
        for length in 0..=33 {
            let mut cut = tag.clone();
            cut.resize(length, 0);
            let opened = open(&keys(), &format!("{rest}.{}", URL_SAFE_NO_PAD.encode(cut)));
            assert_eq!(opened.is_ok(), length == 32, "{length}");
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        let token = seal(&keys(), &claims());
        for other in [
            format!("{token}="),
            format!(" {token}"),
            token.replace('.', " ."),
            token.to_uppercase(),
            token.replacen("v1", "v2", 1),
            format!("{token}{}", "A".repeat(8192)),
        ] {
            assert_eq!(open(&keys(), &other), Err(Refusal::TokenInvalid));
        }
    }

    #[test]
    fn old_keys_open_for_their_grace() {
        let old = keys();
        let token = seal(&old, &claims());
        let now = Timestamp(1_000_000);
        let new = old.rotate([8; 32], now);
        assert_ne!(seal(&new, &claims()), token);
        let in_grace = new.retire(3 * DAY, now.plus(2 * DAY));
        assert!(open(&in_grace, &token).is_ok());
        let after = new.retire(3 * DAY, now.plus(3 * DAY));
        assert_eq!(open(&after, &token), Err(Refusal::TokenInvalid));
        assert!(open(&after, &seal(&new, &claims())).is_ok());
    }

    #[test]
    fn late_is_not_forged() {
        let old = keys();
        let (token, url) = (
            seal(&old, &claims()),
            seal_resume(
                &old,
                ResumeClaims {
                    id: SlotId(7),
                    generation: 3,
                },
            ),
        );
        let new = old
            .rotate([8; 32], Timestamp(9))
            .retire(DAY, Timestamp(9).plus(DAY));
        assert!(open(&new, &token).is_err() && open_resume(&new, &url).is_err());
        for keys in [&old, &new] {
            assert!(!is_forged(keys, &token) && !is_forged_resume(keys, &url));
        }
        // Another service's keys have the same ids.
        let other = Keys::first([9; 32], Timestamp(9));
        assert!(is_forged(&other, &token) && is_forged_resume(&other, &url));
        assert!(!is_forged(&new, ""));
        for text in ["v1.", "v1..", "v1.AQ.AQ", "AQ", "x", &"A".repeat(8192)] {
            assert!(
                is_forged(&new, text) && is_forged_resume(&new, text),
                "{text}"
            );
        }
        // Ids begin anew: any that is not in use may have been.
        let mut round = old;
        for n in 0..255 {
            round = round.rotate([1; 32], Timestamp(n));
        }
        let round = Keys(round.0.split_off(253));
        assert_eq!(
            round.list().iter().map(|key| key.id).collect::<Vec<_>>(),
            [255, 1]
        );
        assert!(!round.is_gone(0) && !other.is_gone(0) && !other.is_gone(2));
        assert!(round.is_gone(7) && !round.is_gone(255) && !round.is_gone(1));
    }

    #[test]
    fn key_ids_go_round_and_stay_unique() {
        let mut keys = keys();
        for n in 0..300 {
            keys = keys.rotate([1; 32], Timestamp(n));
            assert_ne!(keys.current().id, 0);
        }
        let mut ids: Vec<u8> = keys.list().iter().map(|key| key.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), keys.list().len());
        assert!(keys.is_rotation_due(DAY, Timestamp(299).plus(DAY)));
        assert!(!keys.is_rotation_due(DAY, Timestamp(299)));
    }
}
