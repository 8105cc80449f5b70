//! Which downloads an operator's proxy sends itself, and what it is told for that.
//!
//! A proxy that reads a file from the disk costs a quarter of one that has its bytes passed on. It
//! is only told after a download was decided as any other.

use std::ops::Deref;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, IF_MATCH, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::core::download::{Answer, Fields, Served};

const X_ACCEL_REDIRECT: HeaderName = HeaderName::from_static("x-accel-redirect");
const X_SENDFILE: HeaderName = HeaderName::from_static("x-sendfile");

/// Who sends the bytes of a download that comes through a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Accel {
    /// We do.
    #[default]
    Off,
    /// nginx, which finds the directory of the files at this location of its own; begins and ends
    /// in `/`.
    XAccelRedirect {
        /// An `internal` location.
        location: String,
    },
    /// Apache's mod_xsendfile and those that know its field, which gets the file's path.
    XSendfile,
}

/// Where a file is on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The directory of all files.
    pub directory: String,
    /// The file in it: segments of letters and digits.
    pub name: String,
}

impl Accel {
    /// Makes `answer` one that has the proxy send the file at `place`; leaves it as it is where the
    /// bytes are better sent by us.
    ///
    /// The proxy sees the request's Range itself, and sends the part. It knows other validators
    /// than ours, so what must not be sent when they differ is not left to it.
    pub fn hand_over<S: Deref<Target = Served>>(
        &self,
        answer: &mut Answer<S>,
        request: &HeaderMap,
        place: &Place,
    ) {
        let must_match =
            request.contains_key(IF_MATCH) || request.contains_key(IF_UNMODIFIED_SINCE);
        if answer.bytes.is_none() || must_match {
            return;
        }
        let (field, value) = match self {
            Self::Off => return,
            Self::XAccelRedirect { location } => {
                (X_ACCEL_REDIRECT, format!("{location}{}", place.name))
            }
            Self::XSendfile => (X_SENDFILE, format!("{}/{}", place.directory, place.name)),
        };
        let Ok(value) = HeaderValue::try_from(value) else {
            return;
        };
        let fields = Fields::Map(HeaderMap::new());
        let mut headers = std::mem::replace(&mut answer.fields, fields).into_map();
        headers.insert(field, value);
        // Of this answer's own body; the proxy knows the file's length.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        headers.remove(CONTENT_RANGE);
        answer.fields = Fields::Map(headers);
        answer.status = StatusCode::OK;
        answer.bytes = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: StatusCode, bytes: Option<std::ops::Range<u64>>) -> Answer<Box<Served>> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(5));
        headers.insert(CONTENT_RANGE, HeaderValue::from_static("bytes 5-9/10"));
        headers.insert("etag", HeaderValue::from_static("\"a\""));
        Answer {
            status,
            fields: Fields::Map(headers),
            bytes,
        }
    }

    fn handed_over(
        accel: &Accel,
        before: &Answer<Box<Served>>,
        request: &HeaderMap,
    ) -> Answer<Box<Served>> {
        let place = Place {
            directory: "/var/lib/slotd/files".to_owned(),
            name: "ab/ab07".to_owned(),
        };
        let mut after = before.clone();
        accel.hand_over(&mut after, request, &place);
        after
    }

    fn nginx() -> Accel {
        Accel::XAccelRedirect {
            location: "/slotd-files/".to_owned(),
        }
    }

    #[test]
    fn the_proxy_is_told_where_the_file_is() {
        let part = answer(StatusCode::PARTIAL_CONTENT, Some(5..10));
        for (accel, field, path) in [
            (nginx(), "x-accel-redirect", "/slotd-files/ab/ab07"),
            (
                Accel::XSendfile,
                "x-sendfile",
                "/var/lib/slotd/files/ab/ab07",
            ),
        ] {
            let told = handed_over(&accel, &part, &HeaderMap::new());
            assert_eq!((told.status, &told.bytes), (StatusCode::OK, &None));
            let headers = told.fields.into_map();
            assert_eq!(headers.len(), 3, "{headers:?}");
            assert_eq!(headers["content-length"], "0");
            assert_eq!(headers[field], path);
            assert_eq!(headers["etag"], "\"a\"");
        }
    }

    #[test]
    fn what_the_proxy_cannot_judge_is_ours() {
        let whole = answer(StatusCode::OK, Some(0..10));
        let head = answer(StatusCode::OK, None);
        let none = HeaderMap::new();
        assert_eq!(handed_over(&Accel::Off, &whole, &none), whole);
        assert_eq!(handed_over(&nginx(), &head, &none), head);
        for field in ["if-match", "if-unmodified-since"] {
            let mut request = HeaderMap::new();
            request.insert(field, HeaderValue::from_static("\"a\""));
            assert_eq!(handed_over(&nginx(), &whole, &request), whole, "{field}");
        }
    }
}
