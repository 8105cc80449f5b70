//! The bytes of a file as they are handed out: a file of this machine, or a stream.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use crate::core::slot::SlotId;
use crate::store::{Body, local};

/// The bytes of a file.
pub enum Content {
    /// Bytes of a file of this machine: whoever sends them may leave that to the kernel.
    File(Opened),
    /// Pieces, as they come.
    Stream(Body),
}

/// An open file of this machine, and which of its bytes are meant.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Whose it is, for the log.
    pub id: SlotId,
    /// It was long enough when it was opened. Nobody of ours changes it.
    pub file: Arc<File>,
    /// From first to past the last.
    pub bytes: Range<u64>,
}

impl Content {
    /// The bytes as a stream: those in the page cache are read in-line, the others in the blocking
    /// pool.
    pub fn into_body(self) -> Body {
        match self {
            Self::File(opened) => local::body(opened),
            Self::Stream(body) => body,
        }
    }
}
