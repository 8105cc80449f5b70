//! Files that come with the tokens of another system, in place of whose upload server we stand.
//!
//! `path` is what such a system names a file by; `put` says what its tokens let a request do,
//! `token` and `jwt` how they are signed.

use std::fmt;

use jid::BareJid;

pub use self::path::{ExternalPath, UsedPath};
pub use self::put::{Grant, Presented, Put};

mod jwt;
mod path;
mod put;
#[cfg(test)]
mod tests;
mod token;

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
