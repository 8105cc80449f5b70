//! PUT: a request's head becomes an `Upload`, its body a stream, and the service does the rest.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use futures_util::StreamExt as _;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, SET_COOKIE,
    TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{head, reply};
use crate::core::download::etag;
use crate::core::refusal::Refusal;
use crate::core::session::network::Visitor;
use crate::core::slot::{Sha256, SlotId};
use crate::service::Service;
use crate::service::upload::{Beginning, Credential, Extant, Extent, Received, Upload};
use crate::store::{Body, BodyError};

/// RFC 9530 #3.
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
/// RFC 9530 #2: the same thing as Repr-Digest for a PUT without content coding.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
/// Longest Content-Type looked at, in bytes.
const CONTENT_TYPE_BYTES_MAX: usize = 1024;

/// Takes a file; `100 Continue` goes out when the service first asks for the body.
pub async fn answer(
    service: &Arc<Service>,
    id: SlotId,
    name: String,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let token = head::token(&head.uri, &head.headers)?;
    let upload = read(id, name, token, &head.headers)?;
    let body: Body = Box::pin(
        body.into_data_stream()
            .map(|piece| piece.map_err(|_| BodyError)),
    );
    let received = service.receive(upload, body).await?;
    Ok(created(&received))
}

/// 201 and nothing else: Siskin takes no other status, and several clients take 204 for an error.
fn created(received: &Received) -> Response {
    let mut response = reply::empty(StatusCode::CREATED);
    let Extant::Complete { sha256 } = received.extant else {
        return response;
    };
    let digest = format!("sha-256=:{}:", sha256.to_base64());
    for (name, value) in [(ETAG, etag(sha256)), (REPR_DIGEST, digest)] {
        let value = HeaderValue::from_str(&value).expect("hexadecimal digits and base64 are ASCII");
        response.headers_mut().insert(name, value);
    }
    response
}

/// Reads the head. Refuses what would not be the file itself.
fn read(id: SlotId, name: String, token: String, headers: &HeaderMap) -> Result<Upload, Refusal> {
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
    if !headers.get_all(CONTENT_ENCODING).into_iter().all(is_plain) {
        return Err(Refusal::ContentEncoded);
    }
    let length = match single(headers, CONTENT_LENGTH)? {
        Some(text) => Some(text.parse().map_err(|_| Refusal::BadRequest)?),
        None if headers.contains_key(TRANSFER_ENCODING) => None,
        None => return Err(Refusal::LengthMissing),
    };
    let content_type = single(headers, CONTENT_TYPE)?.filter(|text| !text.is_empty());
    if content_type
        .as_ref()
        .is_some_and(|text| CONTENT_TYPE_BYTES_MAX < text.len())
    {
        return Err(Refusal::BadRequest);
    }
    Ok(Upload {
        credential: Credential::Put { id, name, token },
        beginning: Beginning::Whole,
        extent: Extent::Rest,
        length,
        upload_length: None,
        content_type,
        sha256: digest(headers)?,
        checksum: None,
        is_resumable: false,
        visitor: Visitor::default(),
        on_begun: None,
    })
}

/// The value of a field that may come once only.
fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Refusal::BadRequest);
    }
    Ok(value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()))
}

/// The SHA-256 that the request announces for its body, in either field of RFC 9530.
///
/// Other algorithms are passed over. Refuses `BadRequest` for a digest that is none, and for two
/// that differ: both name the same bytes.
fn digest(headers: &HeaderMap) -> Result<Option<Sha256>, Refusal> {
    let mut found = None;
    let fields = [REPR_DIGEST, CONTENT_DIGEST];
    let values = fields.iter().flat_map(|name| headers.get_all(name));
    for value in values {
        let text = value.to_str().map_err(|_| Refusal::BadRequest)?;
        // A dictionary of byte sequences (RFC 8941 #3.2): base64 holds no comma.
        for member in text.split(',') {
            let (key, value) = member.split_once('=').unwrap_or((member, ""));
            if key.trim_matches([' ', '\t']) != "sha-256" {
                continue;
            }
            let sha256 = byte_sequence(value).ok_or(Refusal::BadRequest)?;
            if found.is_some_and(|found| found != sha256) {
                return Err(Refusal::BadRequest);
            }
            found = Some(sha256);
        }
    }
    Ok(found)
}

/// `:base64:`, with parameters that mean nothing to us.
fn byte_sequence(text: &str) -> Option<Sha256> {
    let text = text
        .split(';')
        .next()
        .unwrap_or_default()
        .trim_matches([' ', '\t']);
    let base64 = text.strip_prefix(':')?.strip_suffix(':')?;
    Sha256::from_base64(base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";

    fn read_fields(fields: &[(&str, &str)]) -> Result<Upload, Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().expect("a field name");
            headers.append(name, value.parse().expect("a field value"));
        }
        read(SlotId(7), "a".to_owned(), "T".to_owned(), &headers)
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
