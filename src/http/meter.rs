//! Counts the bytes of a request and of its answer, and logs both when the answer is gone.
//!
//! A log line never holds a path or a query: the path of a file is the secret that opens it, that
//! of an upload lets write to it, and the query may hold a token.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use http::{Method, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::early::CutOff;
use super::gate::Permit;
use crate::core::event::Event;
use crate::core::session::network::AddressPolicy;
use crate::core::slot::SlotId;
use crate::meters::work;
use crate::service::Service;

/// What is known of a request when it comes.
pub struct Facts {
    /// Whom to tell when its answer is gone.
    pub service: Arc<Service>,
    /// Its method, where it is one of ours.
    pub method: &'static str,
    /// The slot in its path.
    pub slot: Option<SlotId>,
    /// Whom it counts for.
    pub client: Option<IpAddr>,
    /// How much of that may be written down.
    pub addresses: AddressPolicy,
    /// When it came.
    pub started: Instant,
}

/// A method's name for the log: a peer's own words do not go there.
pub fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// How much of a request's body was read.
#[derive(Clone, Default)]
pub struct Reading(Arc<Read>);

#[derive(Default)]
struct Read {
    bytes: AtomicU64,
    is_at_end: AtomicBool,
}

impl Reading {
    /// Whether nothing of the body is left.
    pub fn is_at_end(&self) -> bool {
        self.0.is_at_end.load(Ordering::Relaxed)
    }

    /// Counts bytes that were read.
    pub fn count(&self, n_bytes: usize) {
        self.0.bytes.fetch_add(n_bytes as u64, Ordering::Relaxed);
    }

    /// Notes that nothing of the body is left.
    pub fn end(&self) {
        self.0.is_at_end.store(true, Ordering::Relaxed);
    }
}

/// Wraps a request's body, to count it.
pub fn incoming(request: Request) -> (Request, Reading) {
    let reading = Reading::default();
    let (head, body) = request.into_parts();
    if body.is_end_stream() {
        reading.end();
        return (Request::from_parts(head, body), reading);
    }
    let body = Incoming {
        body,
        reading: reading.clone(),
    };
    (Request::from_parts(head, Body::new(body)), reading)
}

struct Incoming {
    body: Body,
    reading: Reading,
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => self.reading.count(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(_)) => {}
            None => self.reading.end(),
        }
        if self.body.is_end_stream() {
            self.reading.end();
        }
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// Wraps an answer's body: when it is gone, sent or not, the request is logged and counted no more.
pub fn outgoing(
    response: Response,
    facts: Facts,
    reading: Reading,
    permit: Option<Permit>,
) -> Response {
    let (head, body) = response.into_parts();
    let is_cut = head.extensions.get::<CutOff>().is_some();
    let body = Outgoing {
        body,
        answered: Answered {
            n_bytes: 0,
            status: (!is_cut).then_some(head.status),
            facts,
            reading: Some(reading),
            _permit: permit,
        },
    };
    Response::from_parts(head, Body::new(body))
}

struct Outgoing {
    body: Body,
    answered: Answered,
}

/// A request that is being answered: when this is dropped, it is logged and counted no more.
pub struct Answered {
    /// How much of the answer's body was sent.
    pub n_bytes: u64,
    /// None where the connection is cut in place of an answer.
    status: Option<StatusCode>,
    facts: Facts,
    /// None where there was no body to read.
    reading: Option<Reading>,
    _permit: Option<Permit>,
}

impl Answered {
    /// Of a request of which `reading` was read; none where it has no body.
    pub fn new(
        status: StatusCode,
        facts: Facts,
        reading: Option<Reading>,
        permit: Option<Permit>,
    ) -> Self {
        Self {
            n_bytes: 0,
            status: Some(status),
            facts,
            reading,
            _permit: permit,
        }
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.answered.n_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        frame
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

impl Answered {
    fn count(&self) {
        let status = self.status.map(|status| status.as_u16());
        work().count_request(self.facts.method, status);
        work().count_bytes(self.n_received(), self.n_bytes);
    }

    fn n_received(&self) -> u64 {
        let received = |reading: &Reading| reading.0.bytes.load(Ordering::Relaxed);
        self.reading.as_ref().map_or(0, received)
    }

    fn tell(&self) {
        let is_file = matches!(
            self.status,
            Some(StatusCode::OK | StatusCode::PARTIAL_CONTENT)
        );
        if let Some(id) = self
            .facts
            .slot
            .filter(|_| is_file && self.facts.method == "GET")
        {
            self.facts.service.tell(Event::FileServed {
                id,
                n_bytes: self.n_bytes,
                took: self.facts.started.elapsed(),
            });
        }
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.count();
        self.tell();
        // Nobody listens: its words cost more than they say.
        if !tracing::enabled!(target: "slotd::http", tracing::Level::INFO) {
            return;
        }
        let slot = self.facts.slot.map(SlotId::short);
        let addresses = self.facts.addresses;
        let client = self.facts.client.and_then(|client| addresses.apply(client));
        let status = self.status.map(|status| status.as_u16());
        let status: &dyn tracing::Value = match &status {
            Some(status) => status,
            None => &"cut",
        };
        tracing::info!(
            target: "slotd::http",
            method = self.facts.method,
            status,
            slot = slot.as_deref().unwrap_or("-"),
            client = client.as_deref().unwrap_or("-"),
            received_bytes = self.n_received(),
            sent_bytes = self.n_bytes,
            ms = u64::try_from(self.facts.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "request"
        );
    }
}
