//! What a GET or HEAD of a file is answered with: status, header, and which bytes.
//!
//! Pure: a row and a request's header in, an answer's head out, so that every way of sending bytes
//! shares one decision. RFC 9110 #13.2.2 gives the order of preconditions.

use std::time::{Duration, SystemTime};

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
    RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::core::range::{Selection, select};
use crate::core::refusal::Refusal;
use crate::core::session::{State, UploadSession};
use crate::core::slot::{FileName, Sha256};
use crate::core::time::Timestamp;

/// The longest time a cache is told to keep a file.
const CACHE_FOR_MAX: Duration = Duration::from_secs(365 * 86_400);

/// Fields of a usual answer, and some room: the map does not have to grow.
const FIELDS_USUAL: usize = 12;

/// The head of an answer, and the bytes that follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200, 206, 304 or 416.
    pub status: StatusCode,
    /// All headers but those common to every answer of the service.
    pub headers: HeaderMap,
    /// The bytes to send, from first to past the last; `None` for HEAD, 304 and 416.
    pub bytes: Option<std::ops::Range<u64>>,
}

/// Decides the answer to `method` (GET or HEAD) with `request` headers.
///
/// Refuses `UnknownFile` unless the file is complete, not past its time, and called `name` (where
/// the URL named it), and `PreconditionFailed` as RFC 9110 #13.1 asks.
pub fn answer(
    row: &UploadSession,
    name: &str,
    method: &Method,
    request: &HeaderMap,
    now: Timestamp,
) -> Result<Answer, Refusal> {
    let State::Complete { sha256, at } = row.state else {
        return Err(Refusal::UnknownFile);
    };
    if !row.is_served(now) || name != row.file.name.as_str() {
        return Err(Refusal::UnknownFile);
    }
    let etag = etag(sha256);
    let mut headers = validators(row, &etag, at, now);
    match precondition(request, &etag, at)? {
        Condition::NotModified => {
            return Ok(Answer {
                status: StatusCode::NOT_MODIFIED,
                headers,
                bytes: None,
            });
        }
        Condition::Holds => {}
    }
    describe(&mut headers, row);
    let size_bytes = row.file.size_bytes;
    let range = (*method == Method::GET && range_applies(request, &etag, at))
        .then(|| single(request, RANGE))
        .flatten();
    let (status, bytes) = match select(range, size_bytes) {
        Selection::Whole => (StatusCode::OK, 0..size_bytes),
        Selection::Part { first, last } => {
            let text = format!("bytes {first}-{last}/{size_bytes}");
            set(&mut headers, CONTENT_RANGE, &text);
            (StatusCode::PARTIAL_CONTENT, first..last + 1)
        }
        Selection::Unsatisfiable => {
            set(
                &mut headers,
                CONTENT_RANGE,
                &format!("bytes */{size_bytes}"),
            );
            set(&mut headers, CACHE_CONTROL, "no-store");
            for name in [CONTENT_TYPE, CONTENT_DISPOSITION] {
                headers.remove(name);
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, 0..0)
        }
    };
    headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.end - bytes.start));
    let has_body = *method == Method::GET && status != StatusCode::RANGE_NOT_SATISFIABLE;
    Ok(Answer {
        status,
        headers,
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
fn precondition(request: &HeaderMap, etag: &str, at: Timestamp) -> Result<Condition, Refusal> {
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
fn range_applies(request: &HeaderMap, etag: &str, at: Timestamp) -> bool {
    if !request.contains_key(IF_RANGE) {
        return true;
    }
    single(request, IF_RANGE)
        .is_some_and(|validator| validator == etag || http_date(validator) == Some(at))
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

/// The headers that a 304 repeats (RFC 9110 #15.4.5).
fn validators(row: &UploadSession, etag: &str, at: Timestamp, now: Timestamp) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(FIELDS_USUAL);
    set(&mut headers, ETAG, etag);
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(at.0);
    set(
        &mut headers,
        LAST_MODIFIED,
        &httpdate::fmt_http_date(modified),
    );
    let left = row.keep_until.map(|keep_until| keep_until.since(now));
    let max_age = left.unwrap_or(CACHE_FOR_MAX).min(CACHE_FOR_MAX).as_secs();
    let text = format!("public, max-age={max_age}, immutable, no-transform");
    set(&mut headers, CACHE_CONTROL, &text);
    headers
}

fn describe(headers: &mut HeaderMap, row: &UploadSession) {
    set(headers, CONTENT_TYPE, row.file.content_type.as_str());
    let kind = if is_shown_inline(row.file.content_type.essence()) {
        "inline"
    } else {
        "attachment"
    };
    let text = disposition(kind, &row.file.name);
    set(headers, CONTENT_DISPOSITION, &text);
    set(headers, ACCEPT_RANGES, "bytes");
}

/// Media types that a browser can show without running anything in them: SVG can hold scripts.
fn is_shown_inline(essence: &str) -> bool {
    let kind = essence.split('/').next().unwrap_or_default();
    match kind {
        "image" => !essence.contains("xml") && !essence.contains("svg"),
        "video" | "audio" => true,
        _ => essence == "text/plain",
    }
}

/// RFC 6266 #4.3: the plain form for old clients, the extended one for the real name.
fn disposition(kind: &str, name: &FileName) -> String {
    let plain: String = name
        .as_str()
        .chars()
        .map(|c| match c {
            ' '..='~' if !"\"\\%".contains(c) => c,
            _ => '_',
        })
        .collect();
    let extended = name.to_url_segment();
    format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{extended}")
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("made of checked ASCII");
    headers.insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::session::{FileFacts, Lifetimes, Retention};
    use crate::core::slot::{ContentType, PartId, Purpose, SlotId};

    const AT: Timestamp = Timestamp(1_767_323_045);
    const TAG: &str = "\"0909090909090909090909090909090909090909090909090909090909090909\"";
    const DATE: &str = "Fri, 02 Jan 2026 03:04:05 GMT";
    const LATER: &str = "Fri, 02 Jan 2026 03:04:06 GMT";
    const EARLIER: &str = "Fri, 02 Jan 2026 03:04:04 GMT";

    fn file(name: &str, content_type: &str) -> UploadSession {
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
        let claims = row.put_claims();
        let part = PartId {
            slot: SlotId(7),
            attempt: 0,
        };
        row.begin(&claims, AT)
            .and_then(|row| row.complete(0, part, Sha256([9; 32]), &lifetimes, AT))
            .expect("complete")
    }

    fn ask(method: Method, fields: &[(&str, &str)]) -> Result<Answer, Refusal> {
        let mut request = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().expect("a field name");
            request.append(name, value.parse().expect("a field value"));
        }
        answer(&file("a.png", "image/png"), "a.png", &method, &request, AT)
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
        assert_eq!(head.headers, get.headers);
        assert_eq!((head.status, head.bytes), (StatusCode::OK, None));
        assert_eq!(head.headers[CONTENT_LENGTH], "100");
        assert_eq!(head.headers[ETAG], TAG);
        assert_eq!(head.headers[LAST_MODIFIED], DATE);
    }

    #[test]
    fn caches_are_never_told_to_keep_longer_than_we_do() {
        let row = file("a.png", "image/png");
        let at = |now| answer(&row, "a.png", &Method::GET, &HeaderMap::new(), now);
        let cache = |now| at(now).expect("served").headers[CACHE_CONTROL].clone();
        assert_eq!(
            cache(Timestamp(AT.0 + 990)),
            "public, max-age=10, immutable, no-transform"
        );
        assert_eq!(at(Timestamp(AT.0 + 1000)), Err(Refusal::UnknownFile));
    }

    #[test]
    fn another_name_is_another_file() {
        let row = file("a.png", "image/png");
        let got = answer(&row, "b.png", &Method::GET, &HeaderMap::new(), AT);
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
            let row = file("a", content_type);
            let got = answer(&row, "a", &Method::GET, &HeaderMap::new(), AT).expect("served");
            let disposition = got.headers[CONTENT_DISPOSITION].to_str().expect("ASCII");
            assert!(disposition.starts_with(kind), "{content_type}");
        }
    }

    #[test]
    fn names_in_headers() {
        let name = FileName::parse("Grü\"ße; 100%.txt").expect("valid");
        let plain = "inline; filename=\"Gr___e; 100_.txt\"";
        let extended = "filename*=UTF-8''Gr%C3%BC%22%C3%9Fe%3B%20100%25.txt";
        assert_eq!(disposition("inline", &name), format!("{plain}; {extended}"));
    }
}
