//! Slots of 1,000 bytes, and bodies for them.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Method};
use jid::Jid;
use slotd::core::refusal::Refusal;
use slotd::core::resume::Extent;
use slotd::core::session::network::Visitor;
use slotd::core::slot::{FileName, Purpose, Sha256, Slot, SlotId, SlotRequest};
use slotd::service::Service;
use slotd::service::audit::{AuditReport, Depth, Options, audit};
use slotd::service::upload::{Beginning, Credential, Upload};
use slotd::store::{Body, BodyError, Mend};

use super::world::Bench;

pub const SIZE: u64 = 1000;

pub fn whole(bytes: Bytes) -> Body {
    Box::pin(stream::iter([Ok(bytes)]))
}

pub fn broken_after(bytes: Bytes) -> Body {
    Box::pin(stream::iter([Ok(bytes), Err(BodyError)]))
}

pub async fn slot_for(service: &Service, size_bytes: u64) -> Result<Slot, Refusal> {
    let romeo = Jid::new("romeo@example.org/garden").expect("valid");
    let request = SlotRequest {
        filename: FileName::parse("a.bin").expect("valid"),
        size_bytes,
        content_type: None,
        purpose: Purpose::Message,
        session: None,
    };
    let issued = service.request_slot(&romeo, request).await?;
    Ok(issued.slot)
}

/// A PUT of a whole file, as often as it is wanted.
#[derive(Clone, Debug)]
pub struct Put {
    pub id: SlotId,
    pub name: String,
    pub token: String,
    pub length: Option<u64>,
    pub content_type: Option<String>,
    pub sha256: Option<Sha256>,
}

impl From<Put> for Upload {
    fn from(put: Put) -> Self {
        let Put {
            id, name, token, ..
        } = put;
        Self {
            credential: Credential::Put { id, name, token },
            beginning: Beginning::Whole,
            extent: Extent::Rest,
            length: put.length,
            upload_length: None,
            content_type: put.content_type,
            sha256: put.sha256,
            checksum: None,
            is_resumable: false,
            visitor: Visitor::default(),
            on_begun: None,
        }
    }
}

impl Put {
    /// A PUT on a slot's URL, read as the HTTP edge does.
    pub fn of(put_url: &str) -> Self {
        let path = put_url
            .strip_prefix("https://upload.example.org/f/")
            .expect("our URL");
        let (id, rest) = path.split_once('/').expect("id and name");
        let (name, token) = rest.split_once("?t=").expect("a token");
        Self {
            id: SlotId::parse(id).expect("an id"),
            name: name.to_owned(),
            token: token.to_owned(),
            length: Some(SIZE),
            content_type: None,
            sha256: None,
        }
    }
}

/// A slot and its PUT.
pub async fn slot(bench: &Bench) -> Put {
    let slot = slot_for(&bench.service, SIZE).await.expect("granted");
    Put::of(&slot.put_url)
}

pub async fn get(bench: &Bench, upload: &Put) -> Result<Bytes, Refusal> {
    let headers = HeaderMap::new();
    let download = bench
        .service
        .open_file(upload.id, &upload.name, &Method::GET, &headers)
        .await?;
    let mut body = download.body.expect("GET has a body");
    let mut all = Vec::new();
    while let Some(bytes) = body.next().await {
        all.extend(bytes.expect("whole"));
    }
    Ok(all.into())
}

/// What an audit that reads every byte says of the stores.
pub async fn audited(bench: &Bench) -> AuditReport {
    let options = Options {
        mend: Mend::No,
        depth: Depth::Digests,
    };
    audit(&bench.stores, options).await.expect("readable")
}
