//! A request as `front` takes it: a GET or HEAD of a file, without anything unusual.

use http::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::core::forwarded::FORWARDED_FOR;
use crate::core::refusal::Refusal;
use crate::core::slot::SlotId;
use crate::http::framing::{Framing, read_head};
use crate::http::head::{Place, Site};

/// The fields that have a say in the answer; others are not kept.
const KEPT: [HeaderName; 8] = [
    HOST,
    RANGE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
    IF_RANGE,
    ACCEPT,
];
/// The fields that make a request unusual.
const UNUSUAL: [HeaderName; 3] = [CONTENT_LENGTH, EXPECT, UPGRADE];

/// A request for a file.
pub struct Ask {
    /// GET or HEAD.
    pub method: Method,
    /// In origin form.
    pub uri: Uri,
    /// Which file, and the name that the path gives it.
    pub place: Result<(SlotId, String), Refusal>,
    /// What has a say in the answer.
    pub headers: HeaderMap,
    /// The client wants the connection to end.
    pub is_last: bool,
}

impl Ask {
    /// Reads a whole head; `None` for what is none of ours, and for what is to be refused.
    pub fn read(head: &[u8], site: &Site) -> Option<Self> {
        let mut headers = HeaderMap::new();
        let mut is_last = false;
        let mut is_usual = true;
        let read = read_head(head, |name, value| {
            let is = |known: &HeaderName| name.eq_ignore_ascii_case(known.as_str().as_bytes());
            if let Some(known) = KEPT.iter().find(|known| is(known)) {
                is_usual &= keep(&mut headers, known.clone(), value);
            } else if name.eq_ignore_ascii_case(FORWARDED_FOR.as_bytes()) {
                is_usual &= keep(&mut headers, HeaderName::from_static(FORWARDED_FOR), value);
            } else if is(&CONNECTION) {
                is_last |= names_close(value);
            } else {
                is_usual &= !UNUSUAL.iter().any(is);
            }
        });
        let read = read.ok()?;
        let is_plain = matches!(read.method, Method::GET | Method::HEAD)
            && read.is_1_1
            && read.framing == Framing::Length(0)
            && read.uri.authority().is_none();
        if !is_plain || !is_usual {
            return None;
        }
        let place = match site.place(read.uri.path()) {
            Ok(Place::File(id, name)) => Ok((id, name)),
            Ok(Place::Upload(_)) => return None,
            Err(refusal) => Err(refusal),
        };
        Some(Self {
            method: read.method,
            uri: read.uri,
            place,
            headers,
            is_last,
        })
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
