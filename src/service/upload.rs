//! An upload request as an edge read it, and what an edge is told of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::core::external::{Put, System};
use crate::core::resume::{Checksum, Extent};
use crate::core::session::network::Visitor;
use crate::core::slot::{Sha256, SlotId};
use crate::core::time::Timestamp;

/// What lets a request write to a slot.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A PUT on the slot's URL.
    Put {
        /// The slot in the URL.
        id: SlotId,
        /// The file name in the URL, decoded.
        name: String,
        /// The token, from query or header.
        token: String,
    },
    /// The last segment of a resume URL.
    Resume(String),
    /// A PUT on another system's path.
    External(Box<ExternalPut>),
    /// A token with a DELETE on another system's path.
    Deletion,
}

/// A PUT with another system's token.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalPut {
    /// Whose path it is.
    pub system: Arc<System>,
    /// What it says.
    pub put: Put,
}

/// Where a request's bytes belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// At the file's first byte, as a new attempt.
    Whole,
    /// At an offset, behind what is durable.
    At(u64),
}

/// What an answer tells of an upload that can go on.
#[derive(Clone, PartialEq, Eq)]
pub struct Offer {
    /// Where it goes on.
    pub resume_url: String,
    /// The file's size.
    pub size_bytes: u64,
    /// How long the upload lives.
    pub expires_in: Duration,
    /// Until when that is.
    pub expires_at: Timestamp,
}

/// Called when a request is admitted, before anything of its body is asked for.
pub type OnBegun = Box<dyn FnOnce(&Offer) + Send + Sync>;

/// The head of an upload request, as the edge read it.
pub struct Upload {
    /// What lets it write.
    pub credential: Credential,
    /// Where its bytes belong.
    pub beginning: Beginning,
    /// What comes after them.
    pub extent: Extent,
    /// Content-Length; `None` for chunked coding.
    pub length: Option<u64>,
    /// The file's size, where the request says it.
    pub upload_length: Option<u64>,
    /// Content-Type of the file, as it came.
    pub content_type: Option<String>,
    /// The digest announced for the whole file (RFC 9530 #3).
    pub sha256: Option<Sha256>,
    /// The digest announced for this request's body.
    pub checksum: Option<Checksum>,
    /// Whether the client said that it goes on by itself if it is cut off.
    pub is_resumable: bool,
    /// Where it comes from.
    pub visitor: Visitor,
    /// Called when it is admitted.
    pub on_begun: Option<OnBegun>,
}

/// Without the credential: it would write to the slot.
impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("beginning", &self.beginning)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// How far an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extant {
    /// The file is whole, and served.
    Complete {
        /// Its digest.
        sha256: Sha256,
    },
    /// So many bytes are durable.
    Partial {
        /// How many.
        offset: u64,
    },
}

/// What became of an upload request, or what there is of an upload.
pub struct Received {
    /// How far the upload is.
    pub extant: Extant,
    /// How it goes on.
    pub offer: Offer,
}

impl Received {
    /// The digest of the file, once it is whole.
    pub fn sha256(&self) -> Option<Sha256> {
        match self.extant {
            Extant::Complete { sha256 } => Some(sha256),
            Extant::Partial { .. } => None,
        }
    }
}
