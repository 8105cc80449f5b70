//! Lets only whole and well-formed request heads through to hyper, one at a time.
//!
//! hyper takes what RFC 9112 says a recipient may take; two recipients in a row that take
//! different things are what request smuggling lives on. So a head that could be read in two ways
//! never gets past here: it is replaced by one that hyper parses, and `Refusals` says which
//! request is to be refused. Bodies pass through unread; only their end is followed, to find the
//! next head. What came in chunks is not followed, nor what follows a head that should announce a
//! body and does not: after both, the connection is closed.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::framing::{Framing, Scan, check_head, scan_head};
use crate::core::refusal::Refusal;

/// Bytes read at once while a head is awaited.
pub const READ_BYTES: usize = 4 * 1024;
/// How long a client may take for a head, from its first byte; for the first head of a
/// connection, from the connection.
pub const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may wait for its next request: longer than nginx keeps its upstream
/// connections (60 s), so that it is never we who close one that nginx is about to use.
pub const IDLE_FOR: Duration = Duration::from_secs(75);

/// What hyper gets in place of a refused head.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n";

/// Put beside a request whose head was refused.
#[derive(Clone, Debug)]
pub struct Refused(pub Refusal);

/// Which request of a connection was refused, and why: the last one, for nothing is read after it.
#[derive(Clone, Default)]
pub struct Refusals(Arc<Mutex<Option<(u64, Refusal)>>>);

impl Refusals {
    fn put(&self, n_heads: u64, refusal: Refusal) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some((n_heads, refusal));
    }

    /// Why the connection's request number `n`, counted from 0, is refused.
    pub fn of(&self, n: u64) -> Option<Refused> {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refusal = slot.as_ref().filter(|(at, _)| *at == n)?;
        Some(Refused(refusal.1.clone()))
    }
}

/// A connection whose reading side lets through what is well-formed.
pub struct Guard<I> {
    io: I,
    /// What was read and not handed over.
    buffer: BytesMut,
    state: State,
    n_heads: u64,
    refusals: Refusals,
    deadline: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A head is awaited; `is_timed` once somebody waits for it.
    Head { scan: Scan, is_timed: bool },
    /// A checked head is handed over, then comes what belongs to it; nothing, if it was refused.
    Through { left: usize, then: Option<Framing> },
    /// A body is handed over.
    Body { left: u64 },
    /// Chunks, to the end of the connection.
    Rest,
    /// Nothing is handed over any more.
    Shut,
}

impl<I> Guard<I> {
    /// Guards `io`, of which `buffer` was read already; its first head is awaited from now on.
    pub fn new(io: I, buffer: BytesMut, refusals: Refusals) -> Self {
        Self {
            io,
            buffer,
            state: State::Head {
                scan: Scan::default(),
                is_timed: true,
            },
            n_heads: 0,
            refusals,
            deadline: Box::pin(sleep_until(Instant::now() + HEAD_WITHIN)),
        }
    }

    /// The connection, and whether more of a request may be on its way.
    pub fn into_inner(self) -> (I, bool) {
        let is_clean = matches!(self.state, State::Head { .. }) && self.buffer.is_empty();
        (self.io, !is_clean)
    }

    /// The state after a head or a body.
    fn follow(&mut self, framing: Option<Framing>) {
        self.state = match framing {
            Some(Framing::Length(0)) => State::Head {
                scan: Scan::default(),
                is_timed: false,
            },
            Some(Framing::Length(left)) => State::Body { left },
            Some(Framing::Chunked) => State::Rest,
            Some(Framing::Unsaid) | None => State::Shut,
        };
    }

    /// hyper asks for a head when the answer before it is sent: the client's time begins.
    fn start_clock(&mut self, scan: Scan) {
        let wait = match self.buffer.is_empty() {
            true => IDLE_FOR,
            false => HEAD_WITHIN,
        };
        self.deadline.as_mut().reset(Instant::now() + wait);
        self.state = State::Head {
            scan,
            is_timed: true,
        };
    }

    /// Looks at what has come of a head.
    fn look(&mut self, mut scan: Scan) {
        self.state = match scan_head(&self.buffer, &mut scan) {
            Ok(None) => State::Head {
                scan,
                is_timed: true,
            },
            Ok(Some(end)) => match check_head(&self.buffer[..end]) {
                Ok(framing) => State::Through {
                    left: end,
                    then: Some(framing),
                },
                Err(refusal) => self.refuse(refusal),
            },
            Err(refusal) => self.refuse(refusal),
        };
    }

    fn refuse(&mut self, refusal: Refusal) -> State {
        self.refusals.put(self.n_heads, refusal);
        self.buffer = BytesMut::from(STAND_IN);
        State::Through {
            left: STAND_IN.len(),
            then: None,
        }
    }

    /// Hands over up to `left` bytes of what was read already.
    fn hand_over(&mut self, left: usize, buf: &mut ReadBuf<'_>) -> usize {
        let n = left.min(self.buffer.len()).min(buf.remaining());
        buf.put_slice(&self.buffer[..n]);
        self.buffer.advance(n);
        if self.buffer.is_empty() {
            // An idle connection or a long body needs no buffer here.
            self.buffer = BytesMut::new();
        }
        n
    }
}

impl<I: AsyncRead + Unpin> Guard<I> {
    /// Reads more of a head; `false` at the end of the connection or of the client's time.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let was_empty = self.buffer.is_empty();
        let mut bytes = [0; READ_BYTES];
        let mut piece = ReadBuf::new(&mut bytes);
        match Pin::new(&mut self.io).poll_read(cx, &mut piece) {
            Poll::Pending => {
                ready!(self.deadline.as_mut().poll(cx));
                // What came of a head that never ended gets no answer, so there is none to protect.
                self.buffer = BytesMut::new();
                return Poll::Ready(Ok(false));
            }
            Poll::Ready(read) => read?,
        }
        self.buffer.extend_from_slice(piece.filled());
        if was_empty && 0 < self.n_heads {
            self.deadline.as_mut().reset(Instant::now() + HEAD_WITHIN);
        }
        Poll::Ready(Ok(!piece.filled().is_empty()))
    }

    /// Hands over up to `left` bytes of a body; the number is 0 at the end of the connection.
    fn poll_body(
        &mut self,
        left: u64,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        if !self.buffer.is_empty() {
            return Poll::Ready(Ok(self.hand_over(left, buf)));
        }
        if buf.remaining() <= left {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
            return Poll::Ready(Ok(buf.filled().len() - before));
        }
        // The last bytes of a body: what follows belongs to the next head.
        let mut piece = ReadBuf::new(buf.initialize_unfilled_to(left));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut piece))?;
        let n = piece.filled().len();
        buf.advance(n);
        Poll::Ready(Ok(n))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Guard<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match this.state {
                State::Head { scan, is_timed } => {
                    if !is_timed {
                        this.start_clock(scan);
                    }
                    if scan.is_behind(&this.buffer) {
                        this.look(scan);
                    } else if !ready!(this.poll_more(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                State::Through { left, then } => {
                    let n = this.hand_over(left, buf);
                    match left - n {
                        0 => {
                            this.n_heads += 1;
                            this.follow(then);
                        }
                        left => this.state = State::Through { left, then },
                    }
                    return Poll::Ready(Ok(()));
                }
                State::Body { left } => {
                    let n = ready!(this.poll_body(left, cx, buf))? as u64;
                    this.follow(Some(Framing::Length(left - n)));
                    return Poll::Ready(Ok(()));
                }
                State::Rest => {
                    ready!(this.poll_body(u64::MAX, cx, buf))?;
                    return Poll::Ready(Ok(()));
                }
                State::Shut => return Poll::Pending,
            }
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Guard<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// What comes through of `bytes`, sent in pieces of these sizes, and what was refused.
    async fn pass(bytes: &[u8], pieces: &[usize]) -> (Vec<u8>, Option<(u64, Refusal)>) {
        let (near, mut far) = duplex(1 << 20);
        let refusals = Refusals::default();
        let mut guard = Guard::new(near, BytesMut::new(), refusals.clone());
        let mut passed = Vec::new();
        let mut rest = bytes;
        for n in pieces.iter().cycle() {
            let (piece, after) = rest.split_at((*n).min(rest.len()));
            far.write_all(piece).await.expect("room");
            rest = after;
            // Whatever can come through now does, a little at a time.
            let mut some = [0; 50];
            while let Some(Ok(n)) = futures_util::FutureExt::now_or_never(guard.read(&mut some)) {
                passed.extend(&some[..n]);
            }
            if rest.is_empty() {
                break;
            }
            // tokio lets a task read only so often without a pause.
            tokio::task::yield_now().await;
        }
        let refused = refusals.0.lock().expect("no panic").clone();
        (passed, refused)
    }

    fn requests(n_bodies: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for n in 0..n_bodies {
            let body = "\r\n\r\nGET / HTTP/1.0\n\0".repeat(n % 5 * 10);
            let length = body.len();
            let head = format!("PUT /{n} HTTP/1.1\r\nContent-Length: {length}\r\nX: y\r\n\r\n");
            bytes.extend(head.bytes().chain(body.bytes()));
        }
        bytes
    }

    proptest::proptest! {
        #[test]
        fn no_byte_is_lost_or_moved(
            n in 1usize..10,
            pieces in proptest::collection::vec(1usize..300, 1..20),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let passing = async {
                let good = requests(n);
                proptest::prop_assert_eq!(pass(&good, &pieces).await, (good.clone(), None));
                let bad = [&good[..], b"GET / HTTP/1.1\r\nX : y\r\n\r\n", &good].concat();
                let refused = (n as u64, Refusal::BadRequest);
                let expected = ([&good, STAND_IN].concat(), Some(refused));
                proptest::prop_assert_eq!(pass(&bad, &pieces).await, expected);
                Ok(())
            };
            runtime.expect("a runtime").block_on(passing)?;
        }

        #[test]
        fn garbage_never_comes_through(
            bytes: Vec<u8>,
            pieces in proptest::collection::vec(1usize..9, 1..9),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let (passed, _) = runtime.expect("a runtime").block_on(pass(&bytes, &pieces));
            proptest::prop_assert!(passed.is_empty() || passed == STAND_IN);
        }
    }
}
