//! How much XML we take from the server, and why a stream cannot go on.

use xmpp_parsers::stream_error::DefinedCondition;

/// Longest name or attribute value, in bytes; the parser's own limit is 8192.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// Deepest nesting, the stanza itself counted: dropping an element is recursive.
pub const DEPTH_MAX: usize = 32;
/// Most attributes of one tag, namespaces counted.
pub const ATTRIBUTES_MAX: usize = 64;
/// Most elements of one stanza: an element of 4 bytes takes 200 in memory.
pub const ELEMENTS_MAX: usize = 1024;
/// Longest stanza that is read, in bytes.
pub const STANZA_BYTES_MAX: usize = 512 * 1024;
/// Longest stanza that is skipped, in bytes; a longer one ends the stream.
pub const SKIPPED_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The attribute of a stanza that was skipped, of which its bare first tag alone passes: an empty
/// result is good, one that was too long is none.
pub const SKIPPED: &str = "slotd-skipped";
/// A buffer that one large stanza made larger than this is given back.
pub const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Why the stream cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A DTD, a processing instruction or a comment.
    #[error("the server sent XML that XMPP forbids (a comment, instruction or DTD)")]
    Restricted,
    /// Tags that do not match, or no XML at all.
    #[error("the server sent XML that is not well-formed")]
    NotWellFormed,
    /// A stanza longer than what is skipped.
    #[error("the server sent a stanza without end")]
    TooLong,
}

impl Broken {
    /// What the server is told (RFC 6120 #4.9.3).
    pub fn condition(self) -> DefinedCondition {
        match self {
            Self::Restricted => DefinedCondition::RestrictedXml,
            Self::NotWellFormed => DefinedCondition::NotWellFormed,
            Self::TooLong => DefinedCondition::PolicyViolation,
        }
    }
}
