//! Files that come with the tokens of another system, in place of whose upload server we stand.
//!
//! `path` is what such a system names a file by; `put` says what its tokens let a request do,
//! `token` and `jwt` how they are signed.

use std::fmt;

use jid::BareJid;
use sha1::{Digest as _, Sha1};

use crate::core::slot::SlotId;

pub use self::path::{ExternalPath, UsedPath};
pub use self::put::{Grant, Presented, Put};

mod jwt;
mod path;
mod put;
#[cfg(test)]
mod tests;
mod token;

/// Characters of a digest that stands for an account in links of ejabberd.
const DIGEST_CHARS: usize = 40;

/// How a system says that a request may write. In the order of their strength, the strongest
/// first: of those that a request carries the first that is accepted counts, and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// Prosody's mod_http_file_share: a JWT in the header, over path, size, type, owner and time.
    Jwt,
    /// `?v2=` of mod_http_upload_external: over path, size and type.
    V2,
    /// `?token=` of Metronome: the same under another name.
    Token,
    /// `?v=` of mod_http_upload_external and ejabberd: over path and size.
    V,
    /// `?v3=` of hmac-file-server: over method, path and time, so for a file of any size.
    V3,
}

impl Format {
    /// All, by the names that the configuration has for them.
    pub const ALL: [(&'static str, Self); 5] = [
        ("jwt", Self::Jwt),
        ("v2", Self::V2),
        ("token", Self::Token),
        ("v", Self::V),
        ("v3", Self::V3),
    ];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        let named = Self::ALL.iter().find(|(_, format)| *format == self);
        named.map_or("", |(name, _)| name)
    }

    /// Whether a token is good for a while only.
    pub fn expires(self) -> bool {
        matches!(self, Self::Jwt | Self::V3)
    }

    /// Whether a token is good for a file of one size only.
    pub fn has_size(self) -> bool {
        self != Self::V3
    }
}

/// A secret that another system shares with us; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedSecret(String);

impl SharedSecret {
    /// Takes a secret as it was configured: its bytes are the key, as they are.
    pub fn new(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(...)")
    }
}

/// Another system whose tokens are taken: one `[[external]]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// What its requests' paths begin with; begins and ends in `/`.
    pub prefix: String,
    /// The formats that are accepted, the strongest first. Where there is none, the files are
    /// served that are there, and no other comes.
    pub formats: Vec<Format>,
    /// What its tokens are signed with.
    pub secret: SharedSecret,
    /// What a DELETE has to know beside; `None` where there is none.
    pub delete_secret: Option<SharedSecret>,
    /// The XMPP domain whose accounts send the files.
    pub domain: BareJid,
}

impl System {
    /// Names the row and the file of one of its paths; no other system has the same.
    pub fn id_of(&self, path: &ExternalPath) -> SlotId {
        path.id_below(&self.prefix)
    }

    /// Whether the name of an account is a digest that stands for another account's files here:
    /// who registers such a name must not have them.
    pub fn stands_for_another(&self, account: &BareJid) -> bool {
        account.domain() == self.domain.domain() && is_digest(account)
    }
}

/// Whether `owner` is what stands for `account` in links of ejabberd: SHA-1 of its JID.
pub fn stands_for(owner: &BareJid, account: &BareJid) -> bool {
    let digest = Sha1::digest(account.as_str());
    let spells = |name: &str| {
        let pairs = digest.iter().map(|byte| format!("{byte:02x}"));
        pairs.collect::<String>() == name
    };
    let name = owner.node().filter(|_| is_digest(owner));
    owner.domain() == account.domain() && name.is_some_and(|name| spells(name.as_str()))
}

fn is_digest(account: &BareJid) -> bool {
    let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let name = account.node().map_or("", |name| name.as_str());
    name.len() == DIGEST_CHARS && name.bytes().all(is_hex)
}
