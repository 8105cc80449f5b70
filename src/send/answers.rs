//! What an HTTP answer means for the upload: status and headers in, event out.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use super::plan::Event;
use crate::xmpp::client::shown;

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// HEAD of the resume URL.
    Offset,
    /// PATCH of the resume URL.
    Append,
    /// PUT of a slot.
    Put,
    /// HEAD of the file's link.
    Look,
}

/// An answer, its body read as far as it is of use.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// What the body says is wrong.
    pub words: String,
}

/// What the answer means for a file of `size_bytes`.
pub fn read(asked: Asked, answer: &Answer, size_bytes: u64) -> Event {
    let status = answer.status;
    let words = || match answer.words.as_str() {
        "" => format!("the upload service answers {}", status.as_u16()),
        words => format!("the upload service answers {}: {words}", status.as_u16()),
    };
    let trouble = || Event::Trouble {
        words: words(),
        retry_after: retry_after(&answer.headers),
    };
    let is_again = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_EARLY
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::LOCKED
    );
    if status.is_server_error() || is_again {
        return trouble();
    }
    match asked {
        Asked::Offset | Asked::Append => match status.as_u16() {
            200..=299 => taken(&answer.headers, size_bytes).unwrap_or_else(trouble),
            401 | 403 | 404 | 410 => Event::Stale,
            409 => match offset(&answer.headers) {
                Some(offset) if offset <= size_bytes => Event::Offset(offset),
                _ => Event::Conflict,
            },
            422 => Event::Gone(words()),
            _ => Event::Refused(words()),
        },
        Asked::Put => match status.as_u16() {
            200..=299 => Event::Complete,
            401 | 403 | 404 | 410 => Event::Stale,
            409 => Event::Conflict,
            _ => Event::Refused(words()),
        },
        Asked::Look => match status.as_u16() {
            200 if length(&answer.headers) == Some(size_bytes) => Event::Complete,
            _ => Event::Conflict,
        },
    }
}

/// What a good answer of a resume URL says.
fn taken(headers: &HeaderMap, size_bytes: u64) -> Option<Event> {
    match headers.get("upload-complete").map(|value| value.as_bytes()) {
        Some(b"?1") => Some(Event::Complete),
        _ => {
            let offset = offset(headers)?;
            (offset <= size_bytes).then_some(Event::Offset(offset))
        }
    }
}

fn offset(headers: &HeaderMap) -> Option<u64> {
    number(headers.get("upload-offset")?.to_str().ok()?)
}

fn length(headers: &HeaderMap) -> Option<u64> {
    number(headers.get(header::CONTENT_LENGTH)?.to_str().ok()?)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    number(text).map(Duration::from_secs)
}

fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// What a body says is wrong: the words of problem details (RFC 9457), or a short plain text.
pub fn words(headers: &HeaderMap, body: &[u8]) -> String {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let problem: Option<serde_json::Value> = match kind.contains("json") {
        true => serde_json::from_slice(body).ok(),
        false => None,
    };
    let field = |name| problem.as_ref()?.get(name)?.as_str();
    let text = match field("detail").or(field("title")) {
        Some(text) => text.to_owned(),
        None if kind.starts_with("text/plain") => String::from_utf8_lossy(body).into_owned(),
        None => String::new(),
    };
    shown(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(asked: Asked, status: u16, headers: &[(&'static str, &'static str)]) -> Event {
        let answer = Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: headers
                .iter()
                .map(|(name, value)| {
                    let name = http::HeaderName::from_static(name);
                    (name, http::HeaderValue::from_static(value))
                })
                .collect(),
            words: String::new(),
        };
        read(asked, &answer, 100)
    }

    #[test]
    fn good_answers_are_read() {
        let open = [("upload-offset", "60"), ("upload-complete", "?0")];
        assert_eq!(event(Asked::Offset, 204, &open), Event::Offset(60));
        assert_eq!(event(Asked::Append, 201, &open), Event::Offset(60));
        assert_eq!(event(Asked::Append, 409, &open), Event::Offset(60));
        let done = [("upload-offset", "100"), ("upload-complete", "?1")];
        assert_eq!(event(Asked::Offset, 204, &done), Event::Complete);
        assert_eq!(event(Asked::Append, 201, &done), Event::Complete);
        for status in [200, 201, 204] {
            assert_eq!(event(Asked::Put, status, &[]), Event::Complete);
        }
        let length = [("content-length", "100")];
        assert_eq!(event(Asked::Look, 200, &length), Event::Complete);
        assert_eq!(event(Asked::Look, 200, &[]), Event::Conflict);
        assert_eq!(event(Asked::Look, 404, &length), Event::Conflict);
    }

    #[test]
    fn an_offset_beyond_the_file_is_not_believed() {
        for offset in ["101", "-1", "+5", "", "18446744073709551616"] {
            let headers = [("upload-offset", offset)];
            let event = event(Asked::Offset, 204, &headers);
            assert!(
                matches!(event, Event::Trouble { .. }),
                "{offset}: {event:?}"
            );
        }
        let beyond = [("upload-offset", "101")];
        assert_eq!(event(Asked::Append, 409, &beyond), Event::Conflict);
    }

    #[test]
    fn noes_are_told_apart() {
        for asked in [Asked::Offset, Asked::Append, Asked::Put] {
            for status in [401, 403, 404, 410] {
                assert_eq!(
                    event(asked, status, &[]),
                    Event::Stale,
                    "{asked:?} {status}"
                );
            }
            for status in [400, 413, 415] {
                let event = event(asked, status, &[]);
                assert!(matches!(event, Event::Refused(_)), "{asked:?} {status}");
            }
            for status in [408, 429, 500, 502, 503, 507] {
                let event = event(asked, status, &[("retry-after", "7")]);
                let Event::Trouble { retry_after, .. } = event else {
                    panic!("{asked:?} {status}: {event:?}");
                };
                assert_eq!(retry_after, Some(Duration::from_secs(7)));
            }
        }
        assert!(matches!(event(Asked::Append, 422, &[]), Event::Gone(_)));
        assert_eq!(event(Asked::Put, 409, &[]), Event::Conflict);
    }

    #[test]
    fn words_are_fit_for_a_terminal() {
        let mut headers = HeaderMap::new();
        let problem = http::HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem);
        let body = br#"{"title":"t","detail":"no\u001b[31m room"}"#;
        assert_eq!(words(&headers, body), "no [31m room");
        assert_eq!(words(&headers, b"{}"), "");
        assert_eq!(words(&HeaderMap::new(), b"<html>"), "");
        assert_eq!(shown(&"x".repeat(1000)).len(), 200);
    }
}
