//! An answer as `front` sends it: a head in bytes, and what follows it.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;

use super::ask::Ask;
use crate::core::download::{Fields, Served, push_fields};
use crate::core::refusal::Refusal;
use crate::http::put;
use crate::http::reply::{self, ErrorStyle, Manner};
use crate::service::Download;
use crate::service::upload::Received;
use crate::store::Content;

/// What a usual head takes: saves growing the buffer.
const HEAD_BYTES_USUAL: usize = 1024;

/// An answer.
pub struct Reply {
    /// Its status, for the log.
    pub status: StatusCode,
    /// Status line and fields.
    pub head: Vec<u8>,
    /// What follows.
    pub body: Body,
}

/// What follows a head.
pub enum Body {
    /// Nothing.
    None,
    /// A line of text.
    Text(Bytes),
    /// Bytes of a file.
    Content(Content),
}

impl Reply {
    /// The service's answer as it is.
    pub fn of(download: Download, is_last: bool) -> Self {
        let answer = download.answer;
        Self {
            status: answer.status,
            head: head(answer.status, &answer.fields, None, is_last),
            body: download.body.map_or(Body::None, Body::Content),
        }
    }

    /// The answer to a PUT whose file is there.
    pub fn created(received: &Received, is_last: bool) -> Self {
        let answer = put::created(received);
        let fields = Fields::Map(answer.headers);
        Self {
            status: answer.status,
            head: head(answer.status, &fields, Some(0), is_last),
            body: Body::None,
        }
    }

    /// A refusal, in the words that it has everywhere.
    pub async fn refused(refusal: Refusal, ask: &Ask, is_last: bool) -> Self {
        let manner = Manner {
            style: ErrorStyle::of(&ask.headers),
            dialect: None,
            methods: reply::FILE_METHODS,
        };
        let (parts, body) = reply::refuse(refusal, manner).into_parts();
        // It is in memory as a whole.
        let text = body.collect().await.map(|text| text.to_bytes());
        let text = text.unwrap_or_default();
        let fields = Fields::Map(parts.headers);
        Self {
            status: parts.status,
            head: head(parts.status, &fields, Some(text.len()), is_last),
            body: match ask.method {
                Method::HEAD => Body::None,
                _ => Body::Text(text),
            },
        }
    }
}

/// A head: the answer's own fields, `length` where it is not among them, and what every answer has.
fn head(
    status: StatusCode,
    fields: &Fields<Arc<Served>>,
    length: Option<usize>,
    is_last: bool,
) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES_USUAL);
    let words = [
        "HTTP/1.1 ",
        status.as_str(),
        " ",
        status.canonical_reason().unwrap_or("<none>"),
    ];
    for text in words {
        head.extend_from_slice(text.as_bytes());
    }
    match fields {
        Fields::Whole(served, now) => served.push_lines(*now, &mut head),
        Fields::Map(headers) => {
            push_fields(headers, &mut head);
            if !headers.contains_key(CACHE_CONTROL) {
                head.extend_from_slice(b"\r\ncache-control: no-store");
            }
        }
    }
    head.extend_from_slice(b"\r\n");
    head.extend_from_slice(reply::common());
    if let Some(length) = length {
        let field = format!("{CONTENT_LENGTH}: {length}\r\n");
        head.extend_from_slice(field.as_bytes());
    }
    if is_last {
        head.extend_from_slice(b"connection: close\r\n");
    }
    push_date(&mut head);
    head
}

/// The date and the empty line. Its text is made once a second by each thread.
fn push_date(head: &mut Vec<u8>) {
    thread_local! {
        static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = since_epoch.unwrap_or_default().as_secs();
    DATE.with_borrow_mut(|(at, text)| {
        if *at != now || text.is_empty() {
            let date = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
            *at = now;
            *text = format!("date: {}\r\n\r\n", httpdate::fmt_http_date(date));
        }
        head.extend_from_slice(text.as_bytes());
    });
}
