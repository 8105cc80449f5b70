//! What answers say of a complete file: made once of its row, and good as long as the row is.

use std::time::{Duration, SystemTime};

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, ETAG,
    LAST_MODIFIED,
};
use http::{HeaderMap, HeaderValue};

use super::{ascii, etag};
use crate::core::session::{State, UploadSession};
use crate::core::slot::{ContentType, FileName, Sha256};
use crate::core::time::Timestamp;

/// The longest time a cache is told to keep a file.
const CACHE_FOR_MAX: Duration = Duration::from_secs(365 * 86_400);
/// Fields of a usual answer, and some room: the map does not have to grow.
const FIELDS_USUAL: usize = 12;

/// Writes fields as HTTP/1.1 has them, each behind the end of the line before.
pub fn push_fields(headers: &HeaderMap, into: &mut Vec<u8>) {
    for (name, value) in headers {
        for part in [b"\r\n", name.as_str().as_bytes(), b": ", value.as_bytes()] {
            into.extend_from_slice(part);
        }
    }
}

/// A complete file, as answers describe it: at most some 2 KiB, for names and types are short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    name: FileName,
    content_type: ContentType,
    size_bytes: u64,
    sha256: Sha256,
    at: Timestamp,
    keep_until: Option<Timestamp>,
    /// The fields of the whole file that do not change with time, as they go out.
    lines: Box<[u8]>,
}

impl Served {
    /// What is served of a row; nothing unless it is complete.
    pub fn of(row: &UploadSession) -> Option<Self> {
        let State::Complete { sha256, at } = row.state else {
            return None;
        };
        let mut served = Self {
            name: row.file.name.clone(),
            content_type: row.file.content_type.clone(),
            size_bytes: row.file.size_bytes,
            sha256,
            at,
            keep_until: row.keep_until,
            lines: Box::default(),
        };
        let mut lines = Vec::new();
        push_fields(&served.lasting(), &mut lines);
        served.lines = lines.into();
        Some(served)
    }

    /// Whether it is served at `now`. XEP-0363 #purpose-ephemeral: never late.
    pub fn is_served(&self, now: Timestamp) -> bool {
        self.keep_until.is_none_or(|keep_until| now < keep_until)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Its size.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Since when it is complete.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Its strong validator.
    pub fn etag(&self) -> String {
        etag(self.sha256)
    }

    /// The headers that a 304 repeats (RFC 9110 #15.4.5).
    pub fn validators(&self, now: Timestamp) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(FIELDS_USUAL);
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(self.at.0);
        headers.insert(ETAG, ascii(self.etag()));
        headers.insert(LAST_MODIFIED, ascii(httpdate::fmt_http_date(modified)));
        headers.insert(CACHE_CONTROL, ascii(self.cache_control(now)));
        headers
    }

    /// The headers of the whole file.
    pub fn whole(&self, now: Timestamp) -> HeaderMap {
        let mut headers = self.validators(now);
        let kind = match is_shown_inline(self.content_type.essence()) {
            true => "inline",
            false => "attachment",
        };
        let content_type = self.content_type.as_str().to_owned();
        headers.insert(CONTENT_TYPE, ascii(content_type));
        headers.insert(CONTENT_DISPOSITION, ascii(disposition(kind, &self.name)));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(self.size_bytes));
        headers
    }

    /// Those of the whole file's that do not change with time.
    fn lasting(&self) -> HeaderMap {
        let mut headers = self.whole(self.at);
        headers.remove(CACHE_CONTROL);
        headers
    }

    /// Writes the headers of the whole file as lines, each with the line end before it.
    pub fn push_lines(&self, now: Timestamp, head: &mut Vec<u8>) {
        head.extend_from_slice(&self.lines);
        head.extend_from_slice(b"\r\ncache-control: ");
        head.extend_from_slice(self.cache_control(now).as_bytes());
    }

    fn cache_control(&self, now: Timestamp) -> String {
        let left = self.keep_until.map(|keep_until| keep_until.since(now));
        let max_age = left.unwrap_or(CACHE_FOR_MAX).min(CACHE_FOR_MAX).as_secs();
        format!("public, max-age={max_age}, immutable, no-transform")
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_headers() {
        let name = FileName::parse("Grü\"ße; 100%.txt").expect("valid");
        let plain = "inline; filename=\"Gr___e; 100_.txt\"";
        let extended = "filename*=UTF-8''Gr%C3%BC%22%C3%9Fe%3B%20100%25.txt";
        assert_eq!(disposition("inline", &name), format!("{plain}; {extended}"));
    }
}
