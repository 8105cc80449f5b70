//! PUT: a request's head becomes an `Upload`, its body a stream, and the service does the rest.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use futures_util::StreamExt as _;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, SET_COOKIE, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use super::early::Early;
use super::head::Place;
use super::{head, reply};
use crate::core::external::Put;
use crate::core::refusal::Refusal;
use crate::core::resume::Extent;
use crate::core::resume::answer::{self, Head, Told};
use crate::core::resume::fields::{digests, single, upload_length};
use crate::core::resume::{Dialect, read_creation};
use crate::core::session::network::Visitor;
use crate::service::Service;
use crate::service::upload::{
    Beginning, Credential, Extant, ExternalPut, Offer, OnBegun, Received, Upload,
};
use crate::store::{Body, BodyError};

/// Longest Content-Type looked at, in bytes.
const CONTENT_TYPE_BYTES_MAX: usize = 1024;

/// What is known of a PUT beside its head.
pub struct Caller {
    /// Where it comes from.
    pub visitor: Visitor,
    /// The protocol in which its client goes on.
    pub dialect: Option<Dialect>,
    /// How to tell it where, if it can be told before it is answered.
    pub early: Option<Early>,
}

/// Takes a file; `100 Continue` goes out when the service first asks for the body.
pub async fn answer(
    service: &Arc<Service>,
    place: &Place,
    caller: Caller,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let dialect = caller.dialect;
    let head = Asked {
        place,
        uri: &head.uri,
        headers: &head.headers,
    };
    let received = take(service, head, caller, content(body)).await?;
    Ok(reply::bare(match dialect {
        None => created(&received),
        Some(dialect) => answer::created(dialect, &told(&received)),
    }))
}

/// A PUT's head.
pub struct Asked<'a> {
    /// What its path names.
    pub place: &'a Place,
    /// Its target.
    pub uri: &'a Uri,
    /// Its fields.
    pub headers: &'a HeaderMap,
}

/// Takes a file whose bytes are in `body`, which is asked for nothing before the head is admitted.
pub async fn take(
    service: &Arc<Service>,
    asked: Asked<'_>,
    caller: Caller,
    body: Body,
) -> Result<Received, Refusal> {
    let credential = credential(asked.place, asked.uri, asked.headers)?;
    let upload = read(credential, caller, asked.headers)?;
    service.receive(upload, body).await
}

/// By what a PUT wants to write; refuses one that does not say, and what cannot be written to.
pub fn credential(place: &Place, uri: &Uri, headers: &HeaderMap) -> Result<Credential, Refusal> {
    match place {
        Place::File(id, name) => Ok(Credential::Put {
            token: head::token(uri, headers)?,
            id: *id,
            name: name.clone(),
        }),
        Place::Upload(_) => Err(Refusal::MethodNotAllowed),
        Place::External(system, path) => Ok(Credential::External(Box::new(ExternalPut {
            system: system.clone(),
            put: Put {
                path: path.clone(),
                presented: head::presented(uri, headers)?,
                size_bytes: file_size(headers)?,
                content_type: content_type(headers)?,
            },
        }))),
    }
}

/// The size of the file that a request begins, where it says it.
fn file_size(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    match upload_length(headers)? {
        Some(size_bytes) => Ok(Some(size_bytes)),
        None => length(headers),
    }
}

/// A request's body, as the service takes it.
pub fn content(body: axum::body::Body) -> Body {
    Box::pin(
        body.into_data_stream()
            .map(|piece| piece.map_err(|_| BodyError)),
    )
}

/// 201 and nothing else: Siskin takes no other status, and several clients take 204 for an error.
pub fn created(received: &Received) -> Head {
    let mut headers = HeaderMap::new();
    if let Some(sha256) = received.sha256() {
        answer::tell_file(&mut headers, sha256);
    }
    let status = StatusCode::CREATED;
    Head { status, headers }
}

/// An upload as answers tell of it.
pub fn told(received: &Received) -> Told<'_> {
    let offer = &received.offer;
    let offset = match received.extant {
        Extant::Complete { .. } => offer.size_bytes,
        Extant::Partial { offset } => offset,
    };
    Told {
        offset,
        sha256: received.sha256(),
        ..offered(offer)
    }
}

/// The same of one that has only begun.
fn offered(offer: &Offer) -> Told<'_> {
    Told {
        offset: 0,
        sha256: None,
        size_bytes: offer.size_bytes,
        expires_in: offer.expires_in,
        expires_at: offer.expires_at,
        url: &offer.resume_url,
    }
}

/// Reads the head. Refuses what would not be the file itself.
fn read(credential: Credential, caller: Caller, headers: &HeaderMap) -> Result<Upload, Refusal> {
    check_plain(headers)?;
    let length = length(headers)?;
    let mut upload = Upload {
        credential,
        beginning: Beginning::Whole,
        extent: Extent::Rest,
        length,
        upload_length: None,
        content_type: content_type(headers)?,
        sha256: None,
        checksum: None,
        is_resumable: false,
        visitor: caller.visitor,
        on_begun: None,
    };
    match caller.dialect {
        None => upload.sha256 = digests(headers)?.of_all()?,
        Some(dialect) => {
            let creation = read_creation(dialect, headers)?;
            upload.extent = creation.extent;
            upload.upload_length = creation.upload_length;
            upload.sha256 = creation.sha256;
            upload.checksum = creation.checksum;
            upload.is_resumable = true;
            upload.on_begun = caller.early.map(|early| on_begun(dialect, early));
        }
    }
    Ok(upload)
}

/// Content-Type, verbatim; an empty one is none.
fn content_type(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let text = single(headers, CONTENT_TYPE)?.filter(|text| !text.is_empty());
    match text {
        Some(text) if CONTENT_TYPE_BYTES_MAX < text.len() => Err(Refusal::BadRequest),
        text => Ok(text),
    }
}

/// Tells where the upload goes on as soon as it is known.
fn on_begun(dialect: Dialect, early: Early) -> OnBegun {
    Box::new(move |offer| {
        if let Some(head) = answer::interim(dialect, &offered(offer)) {
            early.send(head.into());
        }
    })
}

/// Refuses what would not be the bytes themselves, or would be others elsewhere.
pub fn check_plain(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.contains_key(CONTENT_RANGE) {
        return Err(Refusal::PartialPut);
    }
    // Only answers have it: here it is the trace of a line break put into another field's value.
    if headers.contains_key(SET_COOKIE) {
        return Err(Refusal::BadRequest);
    }
    let is_plain = |value: &HeaderValue| {
        let coding = value.as_bytes();
        coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")
    };
    match headers.get_all(CONTENT_ENCODING).into_iter().all(is_plain) {
        true => Ok(()),
        false => Err(Refusal::ContentEncoded),
    }
}

/// The body's length; `None` for chunked coding. Refuses `LengthMissing`.
pub fn length(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    match single(headers, CONTENT_LENGTH)? {
        Some(text) => text.parse().map(Some).map_err(|_| Refusal::BadRequest),
        None if headers.contains_key(TRANSFER_ENCODING) => Ok(None),
        None => Err(Refusal::LengthMissing),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::core::slot::Sha256;
    use crate::core::slot::SlotId;

    const DIGEST: &str = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";

    fn read_fields(fields: &[(&str, &str)]) -> Result<Upload, Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().expect("a field name");
            headers.append(name, value.parse().expect("a field value"));
        }
        let credential = Credential::Put {
            id: SlotId(7),
            name: "a".to_owned(),
            token: "T".to_owned(),
        };
        let caller = Caller {
            visitor: Visitor::default(),
            dialect: Dialect::of_put(&headers),
            early: None,
        };
        read(credential, caller, &headers)
    }

    #[track_caller]
    fn check_refused(fields: &[(&str, &str)], refusal: Refusal) {
        let got = read_fields(fields).expect_err("refused");
        assert_eq!(got, refusal, "{fields:?}");
    }

    #[test]
    fn heads_that_are_taken() {
        let sized = ("content-length", "1000");
        let upload = read_fields(&[sized]).expect("taken");
        assert_eq!((upload.length, upload.content_type), (Some(1000), None));
        let upload = read_fields(&[("transfer-encoding", "chunked")]).expect("taken");
        assert_eq!(upload.length, None);
        let upload = read_fields(&[sized, ("content-type", "")]).expect("taken");
        assert_eq!(upload.content_type, None);
        let coded = [
            sized,
            ("content-encoding", "Identity"),
            ("content-type", "a/b"),
        ];
        let upload = read_fields(&coded).expect("taken");
        assert_eq!(upload.content_type.as_deref(), Some("a/b"));
    }

    #[test]
    fn heads_that_are_refused() {
        let sized = ("content-length", "1000");
        check_refused(&[], Refusal::LengthMissing);
        check_refused(&[sized, sized], Refusal::BadRequest);
        check_refused(
            &[sized, ("content-range", "bytes 0-9/1000")],
            Refusal::PartialPut,
        );
        check_refused(
            &[sized, ("content-encoding", "gzip")],
            Refusal::ContentEncoded,
        );
        let both = ("content-encoding", "identity, gzip");
        check_refused(&[sized, both], Refusal::ContentEncoded);
        check_refused(&[sized, ("set-cookie", "a=b")], Refusal::BadRequest);
        let long = format!("text/{}", "a".repeat(8192));
        check_refused(&[sized, ("content-type", &long)], Refusal::BadRequest);
        let kind = ("content-type", "text/plain");
        check_refused(&[sized, kind, kind], Refusal::BadRequest);
    }

    #[track_caller]
    fn check_digest(fields: &[(&str, &str)], expected: Result<Option<Sha256>, Refusal>) {
        let mut all = vec![("content-length", "1000")];
        all.extend(fields);
        let got = read_fields(&all).map(|upload| upload.sha256);
        assert_eq!(got, expected, "{fields:?}");
    }

    #[test]
    fn digests() {
        let some = Ok(Some(Sha256([9; 32])));
        let plain = format!("sha-256=:{DIGEST}:");
        let other = plain.replace('k', "g");
        check_digest(&[], Ok(None));
        check_digest(&[("repr-digest", &plain)], some.clone());
        check_digest(&[("content-digest", &plain)], some.clone());
        let mixed = format!("md5=:AAAA:, sha-512=:zz:,\t{plain};a=1");
        check_digest(&[("repr-digest", &mixed)], some.clone());
        check_digest(&[("repr-digest", "sha-512=:AAAA:")], Ok(None));
        let both = [("repr-digest", &*plain), ("content-digest", &*plain)];
        check_digest(&both, some);
        let differ = [("repr-digest", &*plain), ("content-digest", &*other)];
        check_digest(&differ, Err(Refusal::BadRequest));
        for bad in [
            "sha-256",
            "sha-256=",
            "sha-256=AAAA",
            "sha-256=:AAAA:",
            "sha-256=:*:",
            "sha-256=\"\"",
        ] {
            check_digest(&[("repr-digest", bad)], Err(Refusal::BadRequest));
        }
    }
}
