//! Interim responses, which hyper cannot send: written under it, before it answers.
//!
//! A head goes out while its request is the one that is being answered and nothing of the answer
//! was made; the answer waits until the head is out. So nothing else than the end of the answer
//! before it can be in hyper's buffer, and hyper flushes us when that buffer is empty: a head
//! begins there and nowhere else, and what was begun is finished before hyper's next byte. A
//! `100 Continue` of hyper's is whole by then, or comes after.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Sends interim responses of one request; put beside each request that may get one.
#[derive(Clone)]
pub struct Early {
    turns: Turns,
    n: u64,
}

impl Early {
    /// Sends `head`, a whole interim response, unless the answer has begun. One at a time: where
    /// another is not written yet, this one is dropped.
    pub fn send(&self, head: Bytes) {
        let mut state = self.turns.lock();
        if state.is_open && state.n == self.n && state.head.is_empty() {
            state.head = head;
            let waker = state.waker.take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Put beside an answer that shall not be sent: the connection is cut instead, so that clients
/// which resume take it for a lost network and not for a refusal.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection is cut instead of an answer")]
pub struct CutOff;

/// Which request of a connection may send, and what it sends.
#[derive(Clone, Default)]
pub struct Turns(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The request being answered, the first is 0.
    n: u64,
    /// Whether it may send: it has come, and its answer has not.
    is_open: bool,
    /// What is to be written, or left to be.
    head: Bytes,
    /// Whether a part of it is written.
    is_begun: bool,
    /// Polls the connection.
    waker: Option<Waker>,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn of request number `n`.
    pub fn begin(&self, n: u64) -> Turn {
        let mut state = self.lock();
        state.n = n;
        state.is_open = true;
        let turns = self.clone();
        Turn(Early { turns, n })
    }
}

/// A request's time between its head and its answer; to be held until it is answered.
pub struct Turn(Early);

impl Turn {
    /// What the request sends with.
    pub fn early(&self) -> Early {
        self.0.clone()
    }

    /// Ends the turn, once what was sent is written.
    pub async fn end(self) {
        let turns = &self.0.turns;
        turns.lock().is_open = false;
        std::future::poll_fn(|_| match turns.lock().head.is_empty() {
            true => Poll::Ready(()),
            // hyper polls an answer and the connection in one task, and `Interims` wakes it.
            false => Poll::Pending,
        })
        .await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.0.turns.lock();
        if state.n == self.0.n {
            state.is_open = false;
            if !state.is_begun {
                state.head = Bytes::new();
            }
        }
    }
}

/// A connection on which interim responses are written beside what hyper writes.
pub struct Interims<I> {
    io: I,
    turns: Turns,
}

impl<I> Interims<I> {
    /// Puts `turns` on a connection of its own.
    pub fn new(io: I, turns: Turns) -> Self {
        Self { io, turns }
    }

    /// The connection.
    pub fn into_inner(self) -> I {
        self.io
    }
}

impl<I: AsyncWrite + Unpin> Interims<I> {
    /// Begins what waits. Only where nothing of hyper's is half written.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.turns.lock();
        if state
            .waker
            .as_ref()
            .is_none_or(|w| !w.will_wake(cx.waker()))
        {
            state.waker = Some(cx.waker().clone());
        }
        state.is_begun = !state.head.is_empty();
        drop(state);
        self.poll_finish(cx)
    }

    /// Writes what is left of a head that was begun.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.turns.lock();
        while state.is_begun {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &state.head))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => state.head.advance(n),
            }
            state.is_begun = !state.head.is_empty();
            if !state.is_begun && !state.is_open {
                // The answer waits for this.
                cx.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Interims<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_finish(cx))?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_finish(cx))?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_begin(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_finish(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Interims<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_hardly_pays_for_it() {
        assert!(size_of::<Mutex<State>>() <= 80);
        assert_eq!(size_of::<Interims<()>>(), size_of::<usize>());
    }
}
