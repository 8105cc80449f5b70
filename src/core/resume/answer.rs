//! Heads of answers to requests that resume, each in the words of its protocol.

use std::time::{Duration, SystemTime};

use http::header::{ETAG, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::fields::REPR_DIGEST;
use super::{Dialect, INTEROP_VERSION, TUS_RESUMABLE, TUS_VERSION, UPLOAD_LENGTH, UPLOAD_OFFSET};
use crate::core::download::etag;
use crate::core::refusal::Refusal;
use crate::core::slot::Sha256;
use crate::core::time::Timestamp;

/// What the draft lets an upload be.
const UPLOAD_LIMIT: HeaderName = HeaderName::from_static("upload-limit");
/// tus: when the upload ends.
const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");

/// What OPTIONS says of tus, but for the largest size: all but creation, which is XEP-0363's.
const TUS_OPTIONS: [(HeaderName, &str); 3] = [
    (HeaderName::from_static("tus-version"), TUS_VERSION),
    (
        HeaderName::from_static("tus-extension"),
        "expiration,termination,checksum",
    ),
    (
        HeaderName::from_static("tus-checksum-algorithm"),
        "sha1,sha256",
    ),
];
/// The largest size.
const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");

/// An upload as an answer tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told<'a> {
    /// Where the next byte belongs.
    pub offset: u64,
    /// The file's digest, once it is whole.
    pub sha256: Option<Sha256>,
    /// The file's size.
    pub size_bytes: u64,
    /// How long the upload lives.
    pub expires_in: Duration,
    /// Until when that is.
    pub expires_at: Timestamp,
    /// Where it goes on.
    pub url: &'a str,
}

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, but for those common to every answer of the service.
    pub headers: HeaderMap,
}

/// The status of a request and its protocol's own mark.
fn head(dialect: Dialect, status: StatusCode) -> Head {
    Head {
        status,
        headers: mark(dialect),
    }
}

/// What every answer in a protocol carries.
fn mark(dialect: Dialect) -> HeaderMap {
    let mut headers = HeaderMap::new();
    match dialect.interop() {
        Some(version) => headers.insert(INTEROP_VERSION, HeaderValue::from_static(version)),
        None => headers.insert(TUS_RESUMABLE, HeaderValue::from_static(TUS_VERSION)),
    };
    headers
}

/// How far the upload is.
pub fn offset(dialect: Dialect, told: &Told<'_>) -> Head {
    let status = match dialect {
        Dialect::Tus => StatusCode::OK,
        _ => StatusCode::NO_CONTENT,
    };
    let mut head = head(dialect, status);
    tell_offset(&mut head.headers, dialect, told);
    head.headers.insert(UPLOAD_LENGTH, told.size_bytes.into());
    tell_end(&mut head.headers, dialect, told);
    head
}

/// The bytes of a PUT were taken, all of the file or a first part.
pub fn created(dialect: Dialect, told: &Told<'_>) -> Head {
    let mut head = head(dialect, StatusCode::CREATED);
    tell_offset(&mut head.headers, dialect, told);
    if let Some(sha256) = told.sha256 {
        tell_file(&mut head.headers, sha256);
    } else {
        head.headers.insert(LOCATION, value(told.url));
        tell_end(&mut head.headers, dialect, told);
    }
    head
}

/// The bytes of a PATCH were taken. What completes the file is answered as its PUT would be.
pub fn appended(dialect: Dialect, told: &Told<'_>) -> Head {
    let status = match (dialect, told.sha256) {
        (Dialect::Tus, _) | (_, None) => StatusCode::NO_CONTENT,
        (_, Some(_)) => StatusCode::CREATED,
    };
    let mut head = head(dialect, status);
    tell_offset(&mut head.headers, dialect, told);
    match told.sha256 {
        Some(sha256) => tell_file(&mut head.headers, sha256),
        None => tell_end(&mut head.headers, dialect, told),
    }
    head
}

/// The upload was given up.
pub fn cancelled(dialect: Dialect) -> Head {
    head(dialect, StatusCode::NO_CONTENT)
}

/// What a refusal says beside its row.
pub fn refused(dialect: Dialect, refusal: &Refusal) -> HeaderMap {
    let mut headers = mark(dialect);
    match (dialect, refusal) {
        (Dialect::Tus, Refusal::OtherTusVersion) => {
            let [(name, version), ..] = TUS_OPTIONS;
            headers.insert(name, HeaderValue::from_static(version));
        }
        (Dialect::Tus, _) => {}
        (_, Refusal::OtherOffset { offset }) => {
            headers.insert(UPLOAD_OFFSET, (*offset).into());
            tell_completeness(&mut headers, dialect, false);
        }
        _ => {}
    }
    headers
}

/// The file that a plain 201 tells of.
pub fn tell_file(headers: &mut HeaderMap, sha256: Sha256) {
    headers.insert(ETAG, value(&etag(sha256)));
    let digest = format!("sha-256=:{}:", sha256.to_base64());
    headers.insert(REPR_DIGEST, value(&digest));
}

/// What an upload that begins here may be: in the draft for any URL, with tus for resume URLs.
pub fn options(
    request: &HeaderMap,
    size_bytes_max: u64,
    session_age: Duration,
    is_resume: bool,
) -> HeaderMap {
    let dialect = Dialect::named(request).unwrap_or(Dialect::Draft8);
    let mut headers = mark(dialect);
    if let Some(limit) = limit(dialect, size_bytes_max, session_age) {
        headers.insert(UPLOAD_LIMIT, value(&limit));
    }
    if is_resume {
        headers.insert(TUS_MAX_SIZE, size_bytes_max.into());
        for (name, text) in TUS_OPTIONS {
            headers.insert(name, HeaderValue::from_static(text));
        }
    }
    headers
}

/// The interim response 104, byte for byte: where the upload goes on if it is broken off. tus has
/// none.
pub fn interim(dialect: Dialect, told: &Told<'_>) -> Option<String> {
    let version = dialect.interop()?;
    let mut text = format!(
        "HTTP/1.1 104 Upload Resumption Supported\r\nLocation: {}\r\n\
         Upload-Draft-Interop-Version: {version}\r\n",
        told.url
    );
    if let Some(limit) = limit(dialect, told.size_bytes, told.expires_in) {
        text.push_str(&format!("Upload-Limit: {limit}\r\n"));
    }
    text.push_str("\r\n");
    Some(text)
}

fn tell_offset(headers: &mut HeaderMap, dialect: Dialect, told: &Told<'_>) {
    headers.insert(UPLOAD_OFFSET, told.offset.into());
    tell_completeness(headers, dialect, told.sha256.is_some());
}

fn tell_completeness(headers: &mut HeaderMap, dialect: Dialect, is_complete: bool) {
    if dialect == Dialect::Tus {
        return;
    }
    let is_true = is_complete != (dialect == Dialect::Draft3);
    let text = if is_true { "?1" } else { "?0" };
    headers.insert(dialect.extent_field(), HeaderValue::from_static(text));
}

/// How long the upload lives: a limit of the draft, a date of tus.
fn tell_end(headers: &mut HeaderMap, dialect: Dialect, told: &Told<'_>) {
    if let Some(limit) = limit(dialect, told.size_bytes, told.expires_in) {
        headers.insert(UPLOAD_LIMIT, value(&limit));
    }
    if dialect == Dialect::Tus && told.sha256.is_none() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(told.expires_at.0);
        headers.insert(UPLOAD_EXPIRES, value(&httpdate::fmt_http_date(at)));
    }
}

/// A dictionary of structured integers, where the dialect has it.
fn limit(dialect: Dialect, size_bytes_max: u64, lives_for: Duration) -> Option<String> {
    let key = match dialect {
        Dialect::Draft3 | Dialect::Draft5 | Dialect::Tus => return None,
        Dialect::Draft6 => "expires",
        Dialect::Draft8 => "max-age",
    };
    let seconds = lives_for.as_secs();
    Some(format!("max-size={size_bytes_max}, {key}={seconds}"))
}

/// A value of our own making: a number, a date, base64, or a URL of ours.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_bytes(text.as_bytes()).expect("our own values hold no control characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: Told<'_> = Told {
        offset: 0,
        sha256: None,
        size_bytes: 1000,
        expires_in: Duration::from_secs(259_200),
        expires_at: Timestamp(1_767_582_245),
        url: "https://upload.example.org/r/AQ",
    };

    #[test]
    fn interim_responses() {
        for (dialect, version, limit) in [
            (Dialect::Draft3, "3", ""),
            (Dialect::Draft5, "5", ""),
            (
                Dialect::Draft6,
                "6",
                "Upload-Limit: max-size=1000, expires=259200\r\n",
            ),
            (
                Dialect::Draft8,
                "8",
                "Upload-Limit: max-size=1000, max-age=259200\r\n",
            ),
        ] {
            let expected = format!(
                "HTTP/1.1 104 Upload Resumption Supported\r\n\
                 Location: https://upload.example.org/r/AQ\r\n\
                 Upload-Draft-Interop-Version: {version}\r\n{limit}\r\n"
            );
            assert_eq!(interim(dialect, &TOLD), Some(expected));
        }
        assert_eq!(interim(Dialect::Tus, &TOLD), None);
    }

    #[test]
    fn odd_urls_do_not_break_an_answer() {
        let told = Told {
            url: "https://upload.example.org/gr\u{fc}n/r/AQ",
            ..TOLD
        };
        let head = created(Dialect::Draft8, &told);
        assert_eq!(head.headers[LOCATION].as_bytes(), told.url.as_bytes());
    }
}
