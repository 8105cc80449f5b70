//! Ends a connection whose other end does not read what is sent: hyper waits for it without limit.
//!
//! Only time spent waiting for the other end counts, so a slow disk of ours harms nobody.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a client lets us wait: it must take so many bytes in each `stall_for` of waiting.
#[derive(Clone, Debug)]
pub struct Pace {
    stall_for: Duration,
    bytes_min: u64,
    /// Bytes taken, and time waited, since the count began.
    n_bytes: u64,
    waited: Duration,
}

impl Pace {
    /// Begins to count; `rate_min_bytes` is a second's.
    pub fn new(stall_for: Duration, rate_min_bytes: u64) -> Self {
        Self {
            stall_for,
            bytes_min: rate_min_bytes.saturating_mul(stall_for.as_secs()).max(1),
            n_bytes: 0,
            waited: Duration::ZERO,
        }
    }

    /// How long the wait that begins now may take.
    pub fn left(&self) -> Duration {
        self.stall_for.saturating_sub(self.waited)
    }

    /// Counts a wait.
    pub fn on_waited(&mut self, waited: Duration) {
        self.waited += waited;
    }

    /// Counts bytes that the other end took.
    pub fn on_taken(&mut self, n_bytes: usize) {
        self.n_bytes = self.n_bytes.saturating_add(n_bytes as u64);
        if self.bytes_min <= self.n_bytes {
            self.n_bytes = 0;
            self.waited = Duration::ZERO;
        }
    }
}

/// A connection whose other end is kept at its pace.
pub struct Paced<I> {
    io: I,
    pace: Pace,
    /// When the wait that is on began, and what ends it.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<I> Paced<I> {
    /// Watches `io`.
    pub fn new(io: I, pace: Pace) -> Self {
        Self {
            io,
            pace,
            waiting: None,
        }
    }

    /// The connection.
    pub fn get_ref(&self) -> &I {
        &self.io
    }

    /// Counts what a write came to, and ends it where the other end had its time.
    fn keep_pace(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Pending => self.poll_wait(cx).map(Err),
            Poll::Ready(written) => {
                self.on_written(*written.as_ref().unwrap_or(&0));
                Poll::Ready(written)
            }
        }
    }

    fn on_written(&mut self, n_bytes: usize) {
        if let Some((since, _)) = self.waiting.take() {
            self.pace.on_waited(since.elapsed());
        }
        self.pace.on_taken(n_bytes);
    }

    /// Ready when the other end had its time.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let left = self.pace.left();
        let (_, sleep) = self.waiting.get_or_insert_with(|| {
            let now = Instant::now();
            (now, Box::pin(sleep_until(now + left)))
        });
        ready!(sleep.as_mut().poll(cx));
        tracing::debug!("a client does not read what it asked for");
        Poll::Ready(io::Error::from(io::ErrorKind::TimedOut))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Paced<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.keep_pace(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.keep_pace(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS keeps what the other end has not read yet.
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.keep_pace(cx, polled.map_ok(|()| 0)).map_ok(drop)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.keep_pace(cx, polled.map_ok(|()| 0)).map_ok(drop)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Paced<I> {
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::sleep;

    use super::*;

    const STALL_FOR: Duration = Duration::from_secs(60);

    /// Sends 1 MiB to a reader that takes `step` bytes each second, through a buffer of 100 bytes.
    async fn send_to_reader_of(step: usize) -> (io::Result<()>, Duration) {
        let (near, mut far) = duplex(100);
        tokio::spawn(async move {
            let mut bytes = vec![0; step];
            while far.read_exact(&mut bytes).await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        });
        let started = Instant::now();
        let mut paced = Paced::new(near, Pace::new(STALL_FOR, 1024));
        let sent = paced.write_all(&vec![0; 1 << 20]).await;
        (sent, started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn slow_readers_are_ended() {
        let (sent, after) = send_to_reader_of(10).await;
        assert_eq!(sent.expect_err("ended").kind(), io::ErrorKind::TimedOut);
        assert!(after <= STALL_FOR + Duration::from_secs(1), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn steady_readers_are_not() {
        let (sent, after) = send_to_reader_of(2048).await;
        assert!(sent.is_ok() && STALL_FOR < after, "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_pauses_do_not_count() {
        let (near, mut far) = duplex(100);
        let mut paced = Paced::new(near, Pace::new(STALL_FOR, 1024));
        let mut bytes = [0; 100];
        for _ in 0..10 {
            paced.write_all(&[0; 100]).await.expect("sent");
            far.read_exact(&mut bytes).await.expect("read");
            sleep(STALL_FOR * 2).await;
        }
    }
}
