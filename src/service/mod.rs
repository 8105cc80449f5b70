//! What we can do: one method each. The only caller of the stores.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use jid::Jid;

use crate::core::download::Answer;
use crate::core::policy::Policy;
use crate::core::rate::Rate;
use crate::core::refusal::Refusal;
use crate::core::slot::{Sha256, Slot, SlotId, SlotRequest};
use crate::core::time::Timestamp;
use crate::core::token::Keys;
use crate::store::{Body, Stores};

/// The two things that cannot be computed.
pub trait World: Send + Sync {
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// 128 random bits of the operating system.
    fn random(&self) -> u128;
}

/// The rules, as the service needs them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The rules of slot requests.
    pub policy: Policy,
    /// What every URL given out begins with; ends in `/`.
    pub public_url: String,
    /// Whether the slot's token goes into the URL's query or into a header.
    pub token_in_header: bool,
    /// Slots for one requester.
    pub slot_rate: Rate,
    /// Bytes of slots for one requester.
    pub byte_rate: Option<Rate>,
    /// How long a transfer may stand still.
    pub stall_for: Duration,
    /// The slowest transfer, in bytes a second.
    pub rate_min_bytes: u64,
    /// Whether a PUT must have the slot's content type.
    pub check_content_type: bool,
    /// Above this many stored bytes the oldest files go first.
    pub total_bytes_max: Option<u64>,
    /// How long a key signs.
    pub rotate_every: Option<Duration>,
    /// How long a replaced key still opens tokens.
    pub keep_old_for: Duration,
}

/// The head of a PUT, as the edge read it.
#[derive(Clone, Debug)]
pub struct Upload {
    /// The slot in the URL.
    pub id: SlotId,
    /// The file name in the URL, decoded.
    pub name: String,
    /// The token, from query or header.
    pub token: String,
    /// Content-Length; `None` for chunked coding.
    pub length: Option<u64>,
    /// Content-Type, as it came.
    pub content_type: Option<String>,
    /// The digest announced for the whole body (RFC 9530).
    pub sha256: Option<Sha256>,
}

/// A file that is complete.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Its digest.
    pub sha256: Sha256,
}

/// An answer to GET or HEAD.
pub struct Download {
    /// Its head.
    pub answer: Answer,
    /// Its bytes.
    pub body: Option<Body>,
}

/// The service: shared by all edges behind `Arc`.
pub struct Service {}

#[allow(unused_variables)]
impl Service {
    /// The service over its stores.
    pub fn new(settings: Settings, keys: Keys, stores: Stores, world: Arc<dyn World>) -> Arc<Self> {
        todo!()
    }

    /// The largest file a slot is given for, in bytes.
    pub fn size_bytes_max(&self) -> u64 {
        todo!()
    }

    /// How long the service has run: XEP-0012.
    pub fn uptime(&self) -> Duration {
        todo!()
    }

    /// Issues a slot to `requester` (a full JID in most stanzas). XEP-0363 #request.
    pub async fn request_slot(
        &self,
        requester: &Jid,
        request: SlotRequest,
    ) -> Result<Slot, Refusal> {
        todo!()
    }

    /// Takes a PUT. Does not poll `body` before the request is admitted, so that a refusal comes
    /// before `100 Continue`.
    pub async fn receive(&self, upload: Upload, body: Body) -> Result<Received, Refusal> {
        todo!()
    }

    /// Opens a file for GET or HEAD.
    pub async fn open_file(
        &self,
        id: SlotId,
        name: &str,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Download, Refusal> {
        todo!()
    }
}
