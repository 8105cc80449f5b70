//! What a GET or HEAD of a file is answered with: status, header, and which bytes.
//!
//! Pure: what is served and a request's header in, an answer's head out, so that every way of
//! sending bytes shares one decision. RFC 9110 #13.2.2 gives the order of preconditions.

use std::ops::Deref;
use std::time::SystemTime;

use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::core::range::{Selection, select};
use crate::core::refusal::Refusal;
use crate::core::slot::Sha256;
use crate::core::time::Timestamp;

mod served;

pub use self::served::{Served, push_fields};

/// The head of an answer, and the bytes that follow it. `S` is how the caller holds the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<S> {
    /// 200, 206, 304 or 416.
    pub status: StatusCode,
    /// All headers but those common to every answer of the service.
    pub fields: Fields<S>,
    /// The bytes to send, from first to past the last; `None` for HEAD, 304 and 416.
    pub bytes: Option<std::ops::Range<u64>>,
}

/// The fields of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fields<S> {
    /// Those of a whole file at this time: at hand as the lines that go out.
    Whole(S, Timestamp),
    /// Any.
    Map(HeaderMap),
}

impl<S: Deref<Target = Served>> Fields<S> {
    /// As a map.
    pub fn into_map(self) -> HeaderMap {
        match self {
            Self::Whole(served, now) => served.whole(now),
            Self::Map(headers) => headers,
        }
    }
}

/// The fields of a request that have a say in the answer.
const DECISIVE: [HeaderName; 6] = [
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    RANGE,
];

/// Decides the answer to `method` (GET or HEAD) with `request` headers.
///
/// Refuses `UnknownFile` when the file is past its time, or not called `name`, and
/// `PreconditionFailed` as RFC 9110 #13.1 asks.
pub fn answer<S: Deref<Target = Served>>(
    served: S,
    name: &str,
    method: &Method,
    request: &HeaderMap,
    now: Timestamp,
) -> Result<Answer<S>, Refusal> {
    if !served.is_served(now) || name != served.name() {
        return Err(Refusal::UnknownFile);
    }
    let is_get = *method == Method::GET;
    if !request.keys().any(|name| DECISIVE.contains(name)) {
        return Ok(Answer {
            status: StatusCode::OK,
            bytes: is_get.then(|| 0..served.size_bytes()),
            fields: Fields::Whole(served, now),
        });
    }
    if let Condition::NotModified = precondition(request, &served)? {
        return Ok(Answer {
            status: StatusCode::NOT_MODIFIED,
            fields: Fields::Map(served.validators(now)),
            bytes: None,
        });
    }
    let size_bytes = served.size_bytes();
    let mut headers = served.whole(now);
    let range = (is_get && range_applies(request, &served))
        .then(|| single(request, RANGE))
        .flatten();
    let (status, bytes) = match select(range, size_bytes) {
        Selection::Whole => (StatusCode::OK, 0..size_bytes),
        Selection::Part { first, last } => {
            let text = format!("bytes {first}-{last}/{size_bytes}");
            headers.insert(CONTENT_RANGE, ascii(text));
            (StatusCode::PARTIAL_CONTENT, first..last + 1)
        }
        Selection::Unsatisfiable => {
            headers.insert(CONTENT_RANGE, ascii(format!("bytes */{size_bytes}")));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            for name in [CONTENT_TYPE, CONTENT_DISPOSITION] {
                headers.remove(name);
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, 0..0)
        }
    };
    headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.end - bytes.start));
    let has_body = is_get && status != StatusCode::RANGE_NOT_SATISFIABLE;
    Ok(Answer {
        status,
        fields: Fields::Map(headers),
        bytes: has_body.then_some(bytes),
    })
}

/// The strong validator of a file: its digest.
pub fn etag(sha256: Sha256) -> String {
    format!("\"{}\"", sha256.to_hex())
}

enum Condition {
    Holds,
    NotModified,
}

/// RFC 9110 #13.2.2, for GET and HEAD.
fn precondition(request: &HeaderMap, served: &Served) -> Result<Condition, Refusal> {
    let (etag, at) = (&*served.etag(), served.at());
    let date = |name| single(request, name).and_then(http_date);
    if request.contains_key(IF_MATCH) {
        if !names_etag(request, IF_MATCH, etag, Comparison::Strong) {
            return Err(Refusal::PreconditionFailed);
        }
    } else if date(IF_UNMODIFIED_SINCE).is_some_and(|since| since < at) {
        return Err(Refusal::PreconditionFailed);
    }
    let not_modified = if request.contains_key(IF_NONE_MATCH) {
        names_etag(request, IF_NONE_MATCH, etag, Comparison::Weak)
    } else {
        date(IF_MODIFIED_SINCE).is_some_and(|since| at <= since)
    };
    Ok(if not_modified {
        Condition::NotModified
    } else {
        Condition::Holds
    })
}

/// Whether If-Range, where there is one, still means this file. RFC 9110 #13.1.5.
fn range_applies(request: &HeaderMap, served: &Served) -> bool {
    if !request.contains_key(IF_RANGE) {
        return true;
    }
    single(request, IF_RANGE)
        .is_some_and(|text| text == served.etag() || http_date(text) == Some(served.at()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether a list of entity tags (RFC 9110 #8.8.3.2) names `etag`, or is `*`.
fn names_etag(request: &HeaderMap, name: HeaderName, etag: &str, how: Comparison) -> bool {
    let values = request.get_all(name).into_iter();
    // Our tags hold no comma, so a list may be cut at each.
    let mut tags = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim);
    tags.any(|tag| match tag.strip_prefix("W/") {
        Some(weak) => how == Comparison::Weak && weak == etag,
        None => tag == "*" || tag == etag,
    })
}

/// The value of a field that may come once only.
fn single(request: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = request.get_all(name).into_iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

fn http_date(text: &str) -> Option<Timestamp> {
    let instant = httpdate::parse_http_date(text).ok()?;
    let since_epoch = instant.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Timestamp(since_epoch.as_secs()))
}

fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("made of checked ASCII")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::{ETAG, LAST_MODIFIED};

    use super::*;
    use crate::core::session::{FileFacts, Lifetimes, Retention, UploadSession};
    use crate::core::slot::{ContentType, FileName, PartId, Purpose, SlotId};

    const AT: Timestamp = Timestamp(1_767_323_045);
    const TAG: &str = "\"0909090909090909090909090909090909090909090909090909090909090909\"";
    const DATE: &str = "Fri, 02 Jan 2026 03:04:05 GMT";
    const LATER: &str = "Fri, 02 Jan 2026 03:04:06 GMT";
    const EARLIER: &str = "Fri, 02 Jan 2026 03:04:04 GMT";

    fn file(name: &str, content_type: &str) -> Box<Served> {
        Box::new(Served::of(&row(name, content_type)).expect("complete"))
    }

    fn row(name: &str, content_type: &str) -> UploadSession {
        let lifetimes = Lifetimes {
            idle_for: Duration::from_secs(300),
            session_age: Duration::from_secs(86_400),
            rufh_idle_for: Duration::from_secs(3600),
            refreshes_max: 10,
            retention: Retention {
                message: Some(Duration::from_secs(1000)),
                ..Retention::default()
            },
        };
        let file = FileFacts {
            name: FileName::parse(name).expect("valid"),
            size_bytes: 100,
            content_type: ContentType::parse(content_type).expect("valid"),
            purpose: Purpose::Message,
        };
        let owner = jid::BareJid::new("romeo@example.org").expect("valid");
        let row = UploadSession::new(SlotId(7), owner, file, &lifetimes, AT);
        assert_eq!(Served::of(&row), None, "not complete");
        let claims = row.put_claims();
        let part = PartId {
            slot: SlotId(7),
            attempt: 0,
        };
        row.begin(&claims, AT)
            .and_then(|row| row.complete(0, part, Sha256([9; 32]), &lifetimes, AT))
            .expect("complete")
    }

    fn ask(method: Method, fields: &[(&str, &str)]) -> Result<Answer<Box<Served>>, Refusal> {
        let mut request = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().expect("a field name");
            request.append(name, value.parse().expect("a field value"));
        }
        answer(file("a.png", "image/png"), "a.png", &method, &request, AT)
    }

    /// Rows are: request fields, status and bytes of the answer.
    #[track_caller]
    fn check(fields: &[(&str, &str)], expected: &str) {
        let got = match ask(Method::GET, fields) {
            Ok(answer) => match answer.bytes {
                Some(bytes) => format!("{} {}-{}", answer.status.as_u16(), bytes.start, bytes.end),
                None => answer.status.as_u16().to_string(),
            },
            Err(refusal) => refusal.row().status.as_u16().to_string(),
        };
        assert_eq!(got, expected, "{fields:?}");
    }

    #[test]
    fn ranges() {
        check(&[], "200 0-100");
        check(&[("range", "bytes=0-")], "206 0-100");
        check(&[("range", "bytes=10-19")], "206 10-20");
        check(&[("range", "bytes=100-")], "416");
        check(&[("range", "bytes=0-1,5-6")], "200 0-100");
        check(
            &[("range", "bytes=0-1"), ("range", "bytes=2-3")],
            "200 0-100",
        );
    }

    #[test]
    fn if_range() {
        let range = ("range", "bytes=10-19");
        check(&[range, ("if-range", TAG)], "206 10-20");
        check(&[range, ("if-range", DATE)], "206 10-20");
        check(&[range, ("if-range", LATER)], "200 0-100");
        check(&[range, ("if-range", "\"other\"")], "200 0-100");
        check(&[range, ("if-range", &format!("W/{TAG}"))], "200 0-100");
    }

    #[test]
    fn preconditions_in_their_order() {
        check(&[("if-none-match", TAG)], "304");
        check(&[("if-none-match", &format!("\"x\", W/{TAG}"))], "304");
        check(&[("if-none-match", "*")], "304");
        check(&[("if-none-match", "\"x\"")], "200 0-100");
        check(&[("if-modified-since", DATE)], "304");
        check(&[("if-modified-since", EARLIER)], "200 0-100");
        check(&[("if-modified-since", "soon")], "200 0-100");
        check(
            &[("if-none-match", "\"x\""), ("if-modified-since", DATE)],
            "200 0-100",
        );
        check(&[("if-match", TAG)], "200 0-100");
        check(&[("if-match", "*")], "200 0-100");
        check(&[("if-match", "\"x\"")], "412");
        check(&[("if-match", &format!("W/{TAG}"))], "412");
        check(&[("if-unmodified-since", EARLIER)], "412");
        check(&[("if-unmodified-since", DATE)], "200 0-100");
        check(&[("if-match", "\"x\""), ("if-none-match", TAG)], "412");
    }

    #[test]
    fn head_is_a_get_without_bytes_and_ranges() {
        let head = ask(Method::HEAD, &[("range", "bytes=1-2")]).expect("found");
        let get = ask(Method::GET, &[]).expect("found");
        assert_eq!((head.status, &head.bytes), (StatusCode::OK, &None));
        let headers = head.fields.into_map();
        assert_eq!(headers, get.fields.into_map());
        assert_eq!(headers[CONTENT_LENGTH], "100");
        assert_eq!(headers[ETAG], TAG);
        assert_eq!(headers[LAST_MODIFIED], DATE);
    }

    /// The lines that are at hand say the same as the fields that are made for each request.
    #[test]
    fn lines_and_fields_say_the_same() {
        let usual = ask(Method::GET, &[]).expect("found").fields;
        let Fields::Whole(served, now) = usual.clone() else {
            panic!("made for this request: {usual:?}");
        };
        let other = ask(Method::GET, &[("if-match", "*")]).expect("found");
        assert!(matches!(other.fields, Fields::Map(_)));
        assert_eq!(usual.into_map(), other.fields.clone().into_map());
        let mut lines = b"HTTP/1.1 200 OK".to_vec();
        served.push_lines(now, &mut lines);
        lines.extend_from_slice(b"\r\n\r\n");
        let mut seen = HeaderMap::new();
        let lines = lines.split_inclusive(|b| *b == b'\n').skip(1);
        for line in lines.filter(|line| *line != b"\r\n") {
            let line = line.strip_suffix(b"\r\n").expect("ended");
            let colon = line.iter().position(|b| *b == b':').expect("a field");
            let name = HeaderName::from_bytes(&line[..colon]).expect("a name");
            let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).expect("a value");
            seen.append(name, value);
        }
        assert_eq!(seen, other.fields.into_map());
    }

    #[test]
    fn caches_are_never_told_to_keep_longer_than_we_do() {
        let served = file("a.png", "image/png");
        let at = |now| answer(&*served, "a.png", &Method::GET, &HeaderMap::new(), now);
        let cache = |now| at(now).expect("served").fields.into_map()[CACHE_CONTROL].clone();
        assert_eq!(
            cache(Timestamp(AT.0 + 990)),
            "public, max-age=10, immutable, no-transform"
        );
        assert_eq!(at(Timestamp(AT.0 + 1000)), Err(Refusal::UnknownFile));
    }

    #[test]
    fn another_name_is_another_file() {
        let served = file("a.png", "image/png");
        let got = answer(&*served, "b.png", &Method::GET, &HeaderMap::new(), AT);
        assert_eq!(got, Err(Refusal::UnknownFile));
    }

    #[test]
    fn only_what_cannot_run_is_inline() {
        for (content_type, kind) in [
            ("image/png", "inline"),
            ("video/mp4", "inline"),
            ("text/plain; charset=utf-8", "inline"),
            ("image/svg+xml", "attachment"),
            ("IMAGE/SVG+XML", "attachment"),
            ("text/html", "attachment"),
            ("application/pdf", "attachment"),
        ] {
            let served = file("a", content_type);
            let got = answer(&*served, "a", &Method::GET, &HeaderMap::new(), AT).expect("served");
            let headers = got.fields.into_map();
            let disposition = headers[CONTENT_DISPOSITION].to_str().expect("ASCII");
            assert!(disposition.starts_with(kind), "{content_type}");
        }
    }
}
