//! Answers GET, HEAD and PUT of files by itself, and hands everything else to hyper.
//!
//! A file's bytes go from the page cache to the socket without coming here, unless TLS has to
//! encrypt them (`line`), and to the service as they come (`body`). What is decided is decided
//! where hyper's requests are decided, too: `framing` reads the head, `Edge` and the service
//! answer. The first request that is anything but a plain GET, HEAD or PUT of a file goes to hyper
//! as it came, and with it the rest of the connection.
//!
//! While a connection waits for its next request it holds no buffer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant as StdInstant};

use bytes::{Buf as _, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Method;
use tokio::sync::watch;
use tokio::time::Instant;

use super::framing::{Scan, scan_head};
use super::guard::{HEAD_WITHIN, IDLE_FOR};
use super::pace::Pace;
use super::{Edge, Origin, get, meter, stopped};
use crate::core::forwarded;
use crate::core::refusal::Refusal;
use crate::service::Download;
use ask::Ask;
use line::Line;
use reply::Reply;
use wire::Wire;

mod ask;
mod body;
pub mod line;
mod put;
mod reply;
mod wire;

/// How long who has just connected, or begun to ask, may take for it when the service stops.
pub const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// A connection whose requests are answered here.
pub struct Front<S> {
    edge: Arc<Edge>,
    origin: Origin,
    wire: Wire<S>,
    /// What was read and not answered.
    buffer: BytesMut,
    n_heads: u64,
    /// When the first head has to be there.
    first_until: Instant,
    shutdown: watch::Receiver<bool>,
    stopping: BoxFuture<'static, ()>,
    /// Whether `stopping` is over.
    is_told: bool,
}

/// What is to be done with a connection that is not answered here any more.
pub enum End<S> {
    /// Close it in order, at the pace so far; more of a request may be on its way.
    Close(S, Pace, bool),
    /// Cut it: an answer is not whole, or nobody is there.
    Cut(S),
    /// It has ended already.
    Gone,
    /// Hand it to hyper, with what was read and the pace so far.
    Other(S, Pace, BytesMut),
}

/// What came of waiting for a head.
enum Awaited {
    /// It is in the buffer, up to here.
    Head(usize),
    /// It is to be refused.
    Bad,
    /// The client is through, or its time is, or the connection broke.
    Over,
}

impl<S: Line> Front<S> {
    /// Takes a connection that has just been accepted.
    pub fn new(
        edge: Arc<Edge>,
        origin: Origin,
        socket: S,
        pace: Pace,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        let mut stop = shutdown.clone();
        let now = Instant::now();
        let is_near = origin
            .peer
            .is_none_or(|peer| peer.to_canonical().is_loopback());
        Self {
            edge,
            origin,
            wire: Wire::new(socket, pace, is_near, now + IDLE_FOR),
            buffer: BytesMut::new(),
            n_heads: 0,
            first_until: now + HEAD_WITHIN,
            shutdown,
            stopping: Box::pin(async move { stopped(&mut stop).await }),
            is_told: false,
        }
    }

    /// Answers requests as long as they are plain.
    pub async fn run(mut self) -> End<S> {
        loop {
            let end = match self.await_head().await {
                Awaited::Head(end) => end,
                Awaited::Bad => return self.hand_over(),
                Awaited::Over => return self.close(),
            };
            let place = |path: &str| self.edge.place(path);
            let ask = Ask::read(&self.buffer[..end], place);
            let Some(ask) = ask.filter(|ask| !self.edge.is_warm(&ask.place, &ask.uri)) else {
                return self.hand_over();
            };
            self.buffer.advance(end);
            self.n_heads += 1;
            if ask.method == Method::PUT {
                // What an upload needs is large: who asks for a file does not pay for it.
                self = match Box::pin(self.take(ask)).await {
                    Ok(front) => front,
                    Err(end) => return end,
                };
                continue;
            }
            match self.answer(ask).await {
                Ok(true) => {}
                Ok(false) => return self.close(),
                Err(error) => return self.cut(&error),
            }
            // Requests that are here already are no reason not to look after others.
            tokio::task::consume_budget().await;
        }
    }

    fn is_stopping(&self) -> bool {
        *self.shutdown.borrow()
    }

    fn close(mut self) -> End<S> {
        // What came behind the last request, and was not read: a connection closed over it is
        // reset, and the end of the answer lost.
        let more = std::future::poll_fn(|cx| self.wire.poll_read(cx, &mut self.buffer));
        let _ = more.now_or_never();
        let has_more = !self.buffer.is_empty();
        self.end(has_more)
    }

    fn end(self, has_more: bool) -> End<S> {
        let (socket, pace) = self.wire.into_parts();
        End::Close(socket, pace, has_more)
    }

    fn cut(self, error: &std::io::Error) -> End<S> {
        tracing::debug!(%error, "connection ended early");
        End::Cut(self.wire.into_parts().0)
    }

    fn hand_over(self) -> End<S> {
        let (socket, pace) = self.wire.into_parts();
        End::Other(socket, pace, self.buffer)
    }

    async fn await_head(&mut self) -> Awaited {
        let mut scan = Scan::default();
        let mut until = (self.n_heads == 0).then_some(self.first_until);
        std::future::poll_fn(|cx| self.poll_head(cx, &mut scan, &mut until)).await
    }

    /// Reads up to the end of a head; `until` is set when somebody waits for it.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        scan: &mut Scan,
        until: &mut Option<Instant>,
    ) -> Poll<Awaited> {
        loop {
            if scan.is_behind(&self.buffer) {
                match scan_head(&self.buffer, scan) {
                    Ok(Some(end)) => return Poll::Ready(Awaited::Head(end)),
                    Ok(None) => {}
                    Err(_) => return Poll::Ready(Awaited::Bad),
                }
            }
            let was_empty = self.buffer.is_empty();
            match self.wire.poll_read(cx, &mut self.buffer) {
                // Who ends TLS without a word may still read the last answer.
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Awaited::Over),
                Poll::Ready(Ok(_)) if was_empty && 0 < self.n_heads => *until = None,
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return self.poll_until(cx, until),
            }
        }
    }

    /// Nothing is there to read: ready when nobody waits for it any longer.
    fn poll_until(&mut self, cx: &mut Context<'_>, until: &mut Option<Instant>) -> Poll<Awaited> {
        let wait = match self.buffer.is_empty() {
            true => IDLE_FOR,
            false => HEAD_WITHIN,
        };
        let until = until.get_or_insert_with(|| Instant::now() + wait);
        if !self.is_told && Pin::new(&mut self.stopping).poll(cx).is_ready() {
            self.is_told = true;
            if self.buffer.is_empty() && 0 < self.n_heads {
                return Poll::Ready(Awaited::Over);
            }
            // Who just connected, or has begun to ask, shall be answered.
            let soon = Instant::now() + FIRST_WITHIN;
            *until = soon.min(*until);
        }
        if self.wire.poll_alarm(cx, *until).is_ready() {
            // What came of a head that never ended gets no answer, so there is none to protect.
            self.buffer = BytesMut::new();
            return Poll::Ready(Awaited::Over);
        }
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Poll::Pending
    }

    /// What is known of a request as it comes.
    fn facts(&self, ask: &Ask) -> meter::Facts {
        meter::Facts {
            service: self.edge.service.clone(),
            method: meter::method_name(&ask.method),
            slot: ask.file().map(|(id, _)| id),
            client: forwarded::client(self.origin.peer, &ask.headers, &self.edge.trusted),
            addresses: self.edge.service.settings().addresses,
            started: StdInstant::now(),
        }
    }

    /// Answers a GET or HEAD; whether another request may follow.
    async fn answer(&mut self, ask: Ask) -> std::io::Result<bool> {
        let facts = self.facts(&ask);
        let edge = &self.edge;
        let (opened, permit) = match edge.enter(Some(self.origin), facts.client) {
            Ok(permit) => (open(edge, self.origin, &ask).await, permit),
            Err(refusal) => (Err(refusal), None),
        };
        let is_banned = matches!(opened, Err(Refusal::Banned { .. }));
        let is_last = ask.is_last || is_banned || self.is_stopping();
        let reply = match opened {
            Ok(download) => Reply::of(download, is_last),
            Err(refusal) => {
                edge.tell_refused(&refusal);
                Reply::refused(refusal, &ask, is_last).await
            }
        };
        let mut answered = meter::Answered::new(reply.status, facts, None, permit);
        let sent = self.wire.send(reply, &mut answered.n_bytes).await;
        sent.map(|()| !is_last)
    }
}

/// What `Edge::answer` does for other requests.
async fn open(edge: &Edge, origin: Origin, ask: &Ask) -> Result<Download, Refusal> {
    edge.check_host(Some(origin), &ask.uri, http::Version::HTTP_11, &ask.headers)?;
    let place = ask.place.as_ref().map_err(Refusal::clone)?;
    let by = edge.by(origin, &ask.headers);
    get::open(&edge.service, place, by, &ask.method, &ask.headers).await
}
