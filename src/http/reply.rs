//! What every answer carries, and how a refusal looks over HTTP.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONNECTION,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::early::CutOff;
use crate::core::refusal::Refusal;
use crate::core::resume::Dialect;
use crate::core::resume::answer::{Head, refused};

/// The methods of a file's URL.
pub const FILE_METHODS: &str = "OPTIONS, HEAD, GET, PUT";
/// The same where another system deletes its files.
pub const EXTERNAL_METHODS: &str = "OPTIONS, HEAD, GET, PUT, DELETE";
/// The methods of a resume URL.
pub const UPLOAD_METHODS: &str = "OPTIONS, HEAD, GET, PATCH, DELETE";

/// What every answer carries.
///
/// CORS: any page may use a URL it was given, and no page's cookies or passwords come along, so
/// there is no Allow-Credentials. XEP-0363 #security.
const COMMON: [(HeaderName, &str); 5] = [
    (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (
        ACCESS_CONTROL_EXPOSE_HEADERS,
        "Accept-Ranges, Content-Disposition, Content-Range, ETag, Repr-Digest, Retry-After, \
         Location, Upload-Complete, Upload-Incomplete, Upload-Offset, Upload-Length, \
         Upload-Limit, Upload-Draft-Interop-Version, Upload-Expires, Tus-Resumable, Tus-Version, \
         Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm",
    ),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'; sandbox",
    ),
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// What the answer to OPTIONS carries besides: nobody looks for it in others, and a head that is
/// sent with each small file is better short.
const PREFLIGHT: [(HeaderName, &str); 3] = [
    (
        ACCESS_CONTROL_ALLOW_METHODS,
        "OPTIONS, HEAD, GET, PUT, PATCH, DELETE",
    ),
    (
        ACCESS_CONTROL_ALLOW_HEADERS,
        "Authorization, Content-Type, Content-Digest, Repr-Digest, Range, If-Range, If-None-Match, \
         Upload-Complete, Upload-Incomplete, Upload-Offset, Upload-Length, \
         Upload-Draft-Interop-Version, Upload-Checksum, Tus-Resumable, X-HTTP-Method-Override",
    ),
    (ACCESS_CONTROL_MAX_AGE, "7200"),
];

/// What every answer carries, as a part of a head.
pub fn common() -> &'static [u8] {
    static LINES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let lines = COMMON
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"));
        lines.collect::<String>().into_bytes()
    });
    &LINES
}

/// Whether the connection can carry another request after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The request was read to its end.
    KeepAlive,
    /// It was not, so nobody can tell where the next one begins.
    Close,
}

/// Adds what every answer carries.
pub fn finish(mut response: Response, after: After) -> Response {
    let headers = response.headers_mut();
    for (name, value) in COMMON {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Only an answer that says otherwise may be kept by a cache.
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    if after == After::Close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The answer to OPTIONS, which needs no token: a browser asks before it sends one.
pub fn options(methods: &'static str, offers: HeaderMap) -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.extend(offers);
    headers.insert(ALLOW, HeaderValue::from_static(methods));
    for (name, value) in PREFLIGHT {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// How a request wants to be told what went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorStyle {
    /// A line of text: browsers and clients show it as it is.
    Text,
    /// `application/problem+json` (RFC 9457).
    Problem,
}

impl ErrorStyle {
    /// Problem details for who names them in Accept.
    pub fn of(request: &HeaderMap) -> Self {
        let values = request.get_all(http::header::ACCEPT).into_iter();
        let mut values = values.filter_map(|value| value.to_str().ok());
        match values.any(|value| value.contains("application/problem+json")) {
            true => Self::Problem,
            false => Self::Text,
        }
    }
}

/// An answer that is a head alone.
pub fn bare(head: Head) -> Response {
    let mut response = empty(head.status);
    *response.headers_mut() = head.headers;
    response
}

/// What a refusal has to know of the request.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// How it wants to be told.
    pub style: ErrorStyle,
    /// The protocol it resumes in.
    pub dialect: Option<Dialect>,
    /// The methods of its target.
    pub methods: &'static str,
}

impl Manner {
    fn is_draft(&self) -> bool {
        self.dialect.is_some_and(|dialect| dialect != Dialect::Tus)
    }

    /// The draft has its own words for some of what the service refuses.
    fn translate(&self, refusal: Refusal) -> Refusal {
        match refusal {
            Refusal::ChecksumMismatch if self.is_draft() => Refusal::DigestMismatch,
            Refusal::TooShort if self.is_draft() => Refusal::InconsistentLength,
            refusal => refusal,
        }
    }
}

/// A refusal as an answer.
pub fn refuse(refusal: Refusal, manner: Manner) -> Response {
    let refusal = manner.translate(refusal);
    let row = refusal.row();
    // The draft's clients read problem types, whatever they accept besides; and a ban shall not be
    // taken for any other 403.
    let is_banned = matches!(refusal, Refusal::Banned { .. });
    let style = match manner.is_draft() || is_banned {
        true => ErrorStyle::Problem,
        false => manner.style,
    };
    let (content_type, body) = match style {
        ErrorStyle::Text => ("text/plain; charset=utf-8", format!("{}\n", row.text)),
        ErrorStyle::Problem => ("application/problem+json", problem(&refusal)),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = row.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // RFC 6750 #3.1: no error code where there was no credential.
    let challenge = match refusal {
        Refusal::TokenMissing => Some("Bearer"),
        Refusal::TokenInvalid => Some("Bearer error=\"invalid_token\""),
        _ => None,
    };
    if let Some(challenge) = challenge {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if refusal == Refusal::MethodNotAllowed {
        headers.insert(ALLOW, HeaderValue::from_static(manner.methods));
    }
    if let Some(retry) = retry_after(&refusal) {
        headers.insert(RETRY_AFTER, retry);
    }
    if let Some(dialect) = manner.dialect {
        headers.extend(refused(dialect, &refusal));
        if is_lost(&refusal) {
            response.extensions_mut().insert(CutOff);
        }
    }
    response
}

/// Whether the client shall go on rather than read why it could not.
fn is_lost(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Stalled | Refusal::TakenOver | Refusal::Interrupted
    )
}

fn problem(refusal: &Refusal) -> String {
    let row = refusal.row();
    let title = row.status.canonical_reason().unwrap_or("Error");
    let mut problem = serde_json::json!({
        "type": refusal.problem_type(),
        "title": title,
        "status": row.status.as_u16(),
        "detail": row.text,
    });
    if let Refusal::OtherOffset { offset } = refusal {
        problem["expected-offset"] = (*offset).into();
    }
    problem.to_string()
}

/// Seconds, or a date where the refusal knows one (RFC 9110 #10.2.3).
fn retry_after(refusal: &Refusal) -> Option<HeaderValue> {
    if let Some(wait) = refusal.retry_in() {
        return Some(HeaderValue::from(wait.as_secs()));
    }
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(refusal.retry_at()?.0);
    HeaderValue::from_str(&httpdate::fmt_http_date(at)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_cut_off(refusal: Refusal, dialect: Option<Dialect>) -> bool {
        let manner = Manner {
            style: ErrorStyle::Text,
            dialect,
            methods: UPLOAD_METHODS,
        };
        refuse(refusal, manner)
            .extensions()
            .get::<CutOff>()
            .is_some()
    }

    #[test]
    fn who_goes_on_is_cut_off_rather_than_refused() {
        let lost = [Refusal::Stalled, Refusal::TakenOver, Refusal::Interrupted];
        for refusal in lost {
            assert!(is_cut_off(refusal.clone(), Some(Dialect::Draft3)));
            assert!(is_cut_off(refusal.clone(), Some(Dialect::Tus)));
            assert!(!is_cut_off(refusal, None));
        }
        let told = [
            Refusal::Gone,
            Refusal::Stopping,
            Refusal::OtherOffset { offset: 1 },
        ];
        for refusal in told {
            assert!(!is_cut_off(refusal, Some(Dialect::Draft8)));
        }
    }

    #[test]
    fn the_draft_has_words_of_its_own() {
        let status = |refusal, dialect| {
            let manner = Manner {
                style: ErrorStyle::Text,
                dialect: Some(dialect),
                methods: UPLOAD_METHODS,
            };
            refuse(refusal, manner).status().as_u16()
        };
        assert_eq!(status(Refusal::ChecksumMismatch, Dialect::Draft8), 422);
        assert_eq!(status(Refusal::ChecksumMismatch, Dialect::Tus), 460);
    }
}
