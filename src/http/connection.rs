//! One connection, from its first request to its last byte.

use std::error::Error as _;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use bytes::BytesMut;
use futures_util::future::BoxFuture;
use http::{Request, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tower::ServiceExt as _;

use super::early::{CutOff, Interims, Turn, Turns};
use super::guard::{Guard, Refusals};
use super::pace::{Pace, Paced};
use super::tls::Secured;
use super::{Origin, stopped};
use crate::service::Settings;

/// Largest buffer of a connection, each way: room for the longest head that `guard` lets through.
/// hyper's own limit is 400 KiB, times thousands of stalled uploads, of which each holds up to two.
const BUFFER_BYTES_MAX: usize = 32 * 1024;
/// How much of a request that was refused is read and thrown away, so that its sender gets to
/// read the refusal: a connection closed under unread bytes is reset, which destroys the answer.
const DRAIN_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long that may take.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);
/// How long the sender may say nothing meanwhile.
const DRAIN_SILENCE_MAX: Duration = Duration::from_secs(5);

/// How slowly a client may read.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    stall_for: Duration,
    rate_min_bytes: u64,
}

impl Rules {
    /// As the settings say.
    pub fn of(settings: &Settings) -> Self {
        Self {
            stall_for: settings.stall_for,
            rate_min_bytes: settings.rate_min_bytes,
        }
    }

    /// Puts a connection's writing side under these rules.
    pub fn pace<I>(&self, io: I) -> Paced<I> {
        Paced::new(io, self.begin())
    }

    /// These rules for a connection that begins.
    pub fn begin(&self) -> Pace {
        Pace::new(self.stall_for, self.rate_min_bytes)
    }
}

/// A connection that can be cut, so that the other end sees a broken one and no orderly end.
pub trait Cut {
    /// Makes dropping this a reset: what was not sent is thrown away with it.
    fn cut(&self);
}

impl Cut for TcpStream {
    fn cut(&self) {
        // Without the option the end looks orderly where nothing is left to read.
        let _ = self.set_zero_linger();
    }
}

impl Cut for UnixStream {
    /// There is no reset here; the other end is a proxy, which makes a 502 of a missing answer.
    fn cut(&self) {}
}

impl<I: Cut> Cut for Paced<I> {
    fn cut(&self) {
        self.get_ref().cut();
    }
}

impl Cut for Secured {
    fn cut(&self) {
        self.get_ref().0.cut();
    }
}

/// What one connection needs.
pub struct Connection {
    /// Who answers.
    pub router: Router,
    /// Who asks.
    pub origin: Origin,
    /// True when no further request shall begin.
    pub shutdown: watch::Receiver<bool>,
}

impl Connection {
    /// Answers the connection's requests; gives it back where it can still be closed in order.
    pub async fn run<I>(self, io: I) -> Option<I>
    where
        I: AsyncRead + AsyncWrite + Cut + Unpin + Send + 'static,
    {
        self.resume(io, BytesMut::new()).await
    }

    /// The same for a connection of which `read` was read already.
    pub async fn resume<I>(mut self, io: I, read: BytesMut) -> Option<I>
    where
        I: AsyncRead + AsyncWrite + Cut + Unpin + Send + 'static,
    {
        let refusals = Refusals::default();
        let turns = Turns::default();
        let guard = Guard::new(io, read, refusals.clone());
        let io = Interims::new(guard, turns.clone());
        let n_requests = AtomicU64::new(0);
        let (router, origin) = (self.router, self.origin);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let n = n_requests.fetch_add(1, Ordering::Relaxed);
            let turn = turns.begin(n);
            request.extensions_mut().insert(origin);
            if let Some(refused) = refusals.of(n) {
                request.extensions_mut().insert(refused);
            } else if request.version() == Version::HTTP_11 {
                request.extensions_mut().insert(turn.early());
            }
            answer(router.clone(), request.map(axum::body::Body::new), turn)
        });
        let mut http = Builder::new();
        http.timer(TokioTimer::new())
            // `guard` keeps the time: it tells an idle connection from a slow one.
            .header_read_timeout(None)
            // A client may close its side when it has said all; its answer still goes out.
            .half_close(true)
            .max_buf_size(BUFFER_BYTES_MAX);
        let mut connection = http.serve_connection(TokioIo::new(io), service);
        let result = tokio::select! {
            // A request that is here already is answered before the end begins.
            biased;
            result = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)) => result,
            () = stopped(&mut self.shutdown) => {
                Pin::new(&mut connection).graceful_shutdown();
                std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)).await
            }
        };
        let interims = connection.into_parts().io.into_inner();
        let (mut io, has_more) = interims.into_inner().into_inner();
        if let Err(error) = result {
            // Mostly clients that went away. A body that broke has no answer to protect.
            tracing::debug!(error = %deepest(&error), "connection ended early");
            if error.source().is_some_and(|source| source.is::<CutOff>()) {
                io.cut();
                return None;
            }
        }
        if has_more {
            drain(&mut io).await.ok()?;
        }
        Some(io)
    }
}

/// The router's answer, after what was sent before it; none where the connection is to be cut.
fn answer(
    router: Router,
    request: Request<axum::body::Body>,
    turn: Turn,
) -> BoxFuture<'static, Result<Response, CutOff>> {
    Box::pin(async move {
        let Ok(response) = router.oneshot(request).await;
        if let Some(cut) = response.extensions().get() {
            return Err(*cut);
        }
        turn.end().await;
        Ok(response)
    })
}

/// Closes the writing side, and reads until the other side closes too or its time is over.
pub async fn drain<I: AsyncRead + AsyncWrite + Unpin>(io: &mut I) -> io::Result<()> {
    io.shutdown().await?;
    let mut left = io.take(DRAIN_BYTES_MAX);
    let mut bytes = vec![0; BUFFER_BYTES_MAX];
    let read_all = async {
        while let Ok(read) = timeout(DRAIN_SILENCE_MAX, left.read(&mut bytes)).await {
            if read? == 0 {
                break;
            }
        }
        Ok(())
    };
    timeout(DRAIN_WITHIN, read_all).await.unwrap_or(Ok(()))
}

/// hyper's own words say only at which step; the cause says what.
fn deepest(error: &hyper::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
