//! Slots of 1,000 bytes, and bodies for them.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Method};
use jid::Jid;
use sha2::Digest as _;
use slotd::core::refusal::Refusal;
use slotd::core::resume::Extent;
use slotd::core::session::network::Visitor;
use slotd::core::slot::{
    FileName, Purpose, SessionId, SessionWish, Sha256, Slot, SlotId, SlotRequest,
};
use slotd::service::Service;
use slotd::service::audit::{AuditReport, Depth, Options, audit};
use slotd::service::upload::{Beginning, Credential, Upload};
use slotd::store::{Body, BodyError, Mend};
use tokio::sync::mpsc;

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

/// An upload session as its owner holds it.
#[derive(Clone, Debug)]
pub struct Session {
    pub id: SessionId,
    pub put: Put,
    /// The last segment of its resume URL.
    pub url: String,
    pub offset: u64,
}

pub fn jid_of(text: &str) -> Jid {
    Jid::new(text).expect("valid")
}

/// The last segment of a resume URL.
pub fn put_of(resume_url: &str) -> String {
    let (_, sealed) = resume_url.rsplit_once("/r/").expect("a resume URL");
    sealed.to_owned()
}

/// Reads a slot of `size_bytes` as the HTTP edge does.
pub fn put_from(slot: &Slot, size_bytes: u64) -> Put {
    Put {
        length: Some(size_bytes),
        ..Put::of(&slot.put_url)
    }
}

pub fn session_of(id: SessionId, slot: &Slot, resume_url: &str, offset: u64) -> Session {
    Session {
        id,
        put: put_from(slot, SIZE),
        url: put_of(resume_url),
        offset,
    }
}

/// An upload session of Romeo's.
pub async fn session(bench: &Bench) -> Session {
    session_for(bench, None).await
}

/// The same for a file whose digest is announced.
pub async fn session_for(bench: &Bench, sha256: Option<Sha256>) -> Session {
    let request = SlotRequest {
        filename: FileName::parse("a.bin").expect("valid"),
        size_bytes: SIZE,
        content_type: None,
        purpose: Purpose::Message,
        session: Some(SessionWish { sha256 }),
    };
    let romeo = jid_of("romeo@example.org/garden");
    let issued = bench.service.request_slot(&romeo, request).await;
    let issued = issued.expect("granted");
    let view = issued.session.expect("announced");
    let url = view.resume_url.expect("it can go on");
    session_of(view.id, &issued.slot, &url, view.offset)
}

/// An append of the rest, `length` bytes long.
pub fn append(sealed: &str, offset: u64, length: u64) -> Upload {
    Upload {
        credential: Credential::Resume(sealed.to_owned()),
        beginning: Beginning::At(offset),
        extent: Extent::Rest,
        length: Some(length),
        upload_length: None,
        content_type: None,
        sha256: None,
        checksum: None,
        is_resumable: false,
        visitor: Visitor::default(),
        on_begun: None,
    }
}

/// A file of the slots' size.
pub fn content(seed: u8) -> Bytes {
    (0..SIZE).map(|n| (n as u8).wrapping_add(seed)).collect()
}

pub fn digest(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

/// A body that a test feeds, piece by piece.
pub fn fed() -> (mpsc::UnboundedSender<Bytes>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let body = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|bytes| (Ok(bytes), receiver))
    });
    (sender, Box::pin(body))
}

pub async fn get(bench: &Bench, upload: &Put) -> Result<Bytes, Refusal> {
    let headers = HeaderMap::new();
    let download = bench
        .service
        .open_file(upload.id, &upload.name, &Method::GET, &headers)
        .await?;
    let mut body = download.body.expect("GET has a body").into_body();
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
