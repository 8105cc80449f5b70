//! The steps of an upload that go over HTTP.

use std::time::Duration;

use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::super::answers::{self, Answer};
use super::super::error::SendError;
use super::super::plan::Event;
use super::super::show::size;
use super::super::transfer::{self, Failure, Order};
use super::Upload;

/// How often the record of an upload under way is brought up to date.
const NOTE_EVERY: Duration = Duration::from_millis(500);
/// The version of the protocol for resumable uploads that is spoken.
const INTEROP_VERSION: &str = "8";

impl Upload<'_, '_> {
    pub(super) async fn ask_offset(&mut self) -> Result<Event, SendError> {
        let url = self.resume_url.clone().unwrap_or_default();
        let order = Order {
            method: Method::HEAD,
            url: &url,
            headers: interop(),
        };
        let answer = self.http.ask(&order).await;
        self.read(answers::Asked::Offset, answer)
    }

    /// Sends what is missing to the resume URL.
    pub(super) async fn append(&mut self, offset: u64) -> Result<Event, SendError> {
        let mut headers = interop();
        let kind = HeaderValue::from_static("application/partial-upload");
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(
            HeaderName::from_static("upload-offset"),
            HeaderValue::from(offset),
        );
        let whole = HeaderValue::from_static("?1");
        headers.insert(HeaderName::from_static("upload-complete"), whole);
        let url = self.resume_url.clone().unwrap_or_default();
        let order = Order {
            method: Method::PATCH,
            url: &url,
            headers,
        };
        self.send(answers::Asked::Append, &order, offset).await
    }

    /// Sends the whole to the slot's own URL.
    pub(super) async fn put(&mut self) -> Result<Event, SendError> {
        let Some(slot) = self.slot.clone() else {
            return Ok(Event::Gone("there is no slot".to_owned()));
        };
        let mut headers = HeaderMap::new();
        if let Ok(kind) = HeaderValue::try_from(&self.content.content_type) {
            headers.insert(header::CONTENT_TYPE, kind);
        }
        let asked = slot
            .headers
            .iter()
            .filter_map(|(name, value)| transfer::header(name, value));
        headers.extend(asked);
        let order = Order {
            method: Method::PUT,
            url: &slot.put_url,
            headers,
        };
        self.send(answers::Asked::Put, &order, 0).await
    }

    pub(super) async fn look(&mut self) -> Result<Event, SendError> {
        let url = self.record.get_url.clone();
        let order = Order {
            method: Method::HEAD,
            url: &url,
            headers: HeaderMap::new(),
        };
        let answer = self.http.ask(&order).await;
        self.read(answers::Asked::Look, answer)
    }

    async fn send(
        &mut self,
        asked: answers::Asked,
        order: &Order<'_>,
        offset: u64,
    ) -> Result<Event, SendError> {
        self.content.check()?;
        let twice = self.record.sent_bytes.saturating_sub(offset);
        if 0 < self.record.sent_bytes.max(offset) {
            let goes_on = match offset {
                0 => "sent again from the beginning".to_owned(),
                _ => format!("resumed at {}", size(offset)),
            };
            let again = match twice {
                0 => String::new(),
                bytes => format!(", {} sent twice", size(bytes)),
            };
            self.show.note(&format!("{goes_on}{again}"));
        }
        self.figures.sent_twice_bytes += twice;
        self.figures.n_attempts += 1;
        self.record.sent_bytes = offset;
        self.show.from(offset, self.figures.sent_twice_bytes);
        let (show, state, record) = (self.show, self.state, &mut self.record);
        let mut noted_at = Instant::now();
        let mut sent = |at| {
            record.sent_bytes = at;
            show.at(at);
            if !record.session.is_empty()
                && NOTE_EVERY <= noted_at.elapsed()
                && let Some(state) = state
            {
                noted_at = Instant::now();
                // The next one may be written, and the upload goes on without it.
                let _ = state.note(record);
            }
        };
        let sending = self
            .http
            .send(order, self.content, offset, &mut self.pace, &mut sent);
        let answer = tokio::select! {
            answer = sending => answer,
            never = self.line.idle() => match never {},
        };
        if answer.is_ok() {
            // What was written to the file meanwhile was sent half old, half new.
            self.content.check()?;
        }
        self.read(asked, answer)
    }

    fn read(
        &mut self,
        asked: answers::Asked,
        answer: Result<Answer, Failure>,
    ) -> Result<Event, SendError> {
        match answer {
            Ok(answer) => Ok(answers::read(asked, &answer, self.content.size_bytes)),
            Err(Failure::Final(error)) => Err(error),
            Err(Failure::Trouble(words)) => Ok(Event::Trouble {
                words,
                retry_after: None,
            }),
        }
    }
}

fn interop() -> HeaderMap {
    let name = HeaderName::from_static("upload-draft-interop-version");
    HeaderMap::from_iter([(name, HeaderValue::from_static(INTEROP_VERSION))])
}
