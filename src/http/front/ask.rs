//! A request as `front` takes it: GET, HEAD or PUT of a file, without anything unusual.

use std::borrow::Cow;

use http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, EXPECT, HOST, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE, SET_COOKIE, UPGRADE, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::core::forwarded::FORWARDED_FOR;
use crate::core::refusal::Refusal;
use crate::core::resume::INTEROP_VERSION;
use crate::core::resume::fields::{CONTENT_DIGEST, REPR_DIGEST};
use crate::core::slot::SlotId;
use crate::http::framing::{Framing, read_head};
use crate::http::head::{Place, check_expect};

/// The fields that have a say in the answer to a GET or HEAD; others are not kept.
const KEPT_OF_GET: [HeaderName; 9] = [
    HOST,
    RANGE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
    IF_RANGE,
    ACCEPT,
    HeaderName::from_static(FORWARDED_FOR),
];
/// The fields that make a GET or HEAD unusual.
const UNUSUAL_OF_GET: [HeaderName; 3] = [CONTENT_LENGTH, EXPECT, UPGRADE];
/// The same for a PUT.
const KEPT_OF_PUT: [HeaderName; 13] = [
    HOST,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    AUTHORIZATION,
    USER_AGENT,
    EXPECT,
    ACCEPT,
    REPR_DIGEST,
    CONTENT_DIGEST,
    CONTENT_ENCODING,
    CONTENT_RANGE,
    SET_COOKIE,
    HeaderName::from_static(FORWARDED_FOR),
];
/// The same for a PUT; who goes on by itself is told of it before the answer.
const UNUSUAL_OF_PUT: [HeaderName; 2] = [UPGRADE, INTEROP_VERSION];

/// A request for a file.
pub struct Ask {
    /// GET, HEAD or PUT.
    pub method: Method,
    /// In origin form.
    pub uri: Uri,
    /// Which file.
    pub place: Result<Place, Refusal>,
    /// What has a say in the answer.
    pub headers: HeaderMap,
    /// How many bytes follow the head.
    pub length: u64,
    /// The client wants the connection to end.
    pub is_last: bool,
}

impl Ask {
    /// Reads a whole head, in which `place` knows the paths; `None` for what is none of ours, and
    /// for what is to be refused.
    pub fn read(head: &[u8], place: impl FnOnce(&str) -> Result<Place, Refusal>) -> Option<Self> {
        let is_put = head.starts_with(b"PUT ");
        let (kept, unusual) = match is_put {
            true => (&KEPT_OF_PUT[..], &UNUSUAL_OF_PUT[..]),
            false => (&KEPT_OF_GET[..], &UNUSUAL_OF_GET[..]),
        };
        let mut headers = HeaderMap::new();
        let mut is_last = false;
        let mut is_usual = true;
        let read = read_head(head, |name, value| {
            let is = |known: &HeaderName| name.eq_ignore_ascii_case(known.as_str().as_bytes());
            if let Some(known) = kept.iter().find(|known| is(known)) {
                is_usual &= keep(&mut headers, known.clone(), value);
            } else if is(&CONNECTION) {
                is_last |= names_close(value);
            } else {
                is_usual &= !unusual.iter().any(is);
            }
        });
        let read = read.ok()?;
        let length = match (&read.method, read.framing) {
            (&Method::GET | &Method::HEAD, Framing::Length(0)) if !is_put => 0,
            (&Method::PUT, Framing::Length(length)) if is_put => length,
            _ => return None,
        };
        // Said twice alike it is one to hyper.
        let is_said_once = headers.get_all(CONTENT_LENGTH).iter().nth(1).is_none();
        let is_plain = read.is_1_1 && read.uri.authority().is_none() && is_said_once;
        if !is_plain || !is_usual || check_expect(&headers).is_err() {
            return None;
        }
        let place = place(read.uri.path());
        if matches!(place, Ok(Place::Upload(_))) {
            return None;
        }
        Some(Self {
            method: read.method,
            uri: read.uri,
            place,
            headers,
            length,
            is_last,
        })
    }

    /// The file, and what the path calls it.
    pub fn file(&self) -> Option<(SlotId, Cow<'_, str>)> {
        self.place.as_ref().ok().and_then(Place::file)
    }

    /// Whether the client waits for a word before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.headers.contains_key(EXPECT)
    }
}

/// Keeps a field; whether it could be.
fn keep(headers: &mut HeaderMap, name: HeaderName, value: &[u8]) -> bool {
    match HeaderValue::from_bytes(value) {
        Ok(value) => {
            headers.append(name, value);
            true
        }
        Err(_) => false,
    }
}

fn names_close(value: &[u8]) -> bool {
    let mut options = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
    options.any(|option| option.eq_ignore_ascii_case(b"close"))
}
