//! The connection under `front`: waits that have a limit, and bytes from memory or from a file.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant as StdInstant};

use bytes::{BufMut, BytesMut};
use futures_util::StreamExt as _;
use rustix::io::ReadWriteFlags;
use rustix::net::SendFlags;
use tokio::io::{AsyncReadExt as _, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::line::Line;
use super::reply::{Body, Reply};
use crate::http::guard::READ_BYTES;
use crate::http::pace::Pace;
use crate::store::{Content, Handle, Opened};

/// How far apart the bytes are that are asked for to see whether the rest is cached: as far as the
/// kernel reads ahead.
const PROBE_BYTES: usize = 128 << 10;
/// Giving bytes to the kernel takes longer only where it waits for the disk, or for the processor.
const SEND_MAX: Duration = Duration::from_millis(5);
/// How much is read at once to bring a file into the page cache.
const WARM_BYTES: usize = 128 << 10;

/// A connection, how slowly its other end reads, and a timer for both directions.
pub struct Wire<S> {
    socket: S,
    pace: Pace,
    /// The other end is on this machine; it may be a proxy.
    is_near: bool,
    /// Set seldom: most waits end long before their limit, so one that is set for an earlier
    /// moment is left as it is, and looked after when it rings.
    alarm: Pin<Box<Sleep>>,
}

impl<S: Line> Wire<S> {
    /// A wire to an end on this machine, or elsewhere, whose waits mostly end before `until`.
    pub fn new(socket: S, pace: Pace, is_near: bool, until: Instant) -> Self {
        Self {
            socket,
            pace,
            is_near,
            alarm: Box::pin(sleep_until(until)),
        }
    }

    /// The socket, and the pace so far.
    pub fn into_parts(self) -> (S, Pace) {
        (self.socket, self.pace)
    }

    /// Reads what is there behind what `buffer` holds; 0 at the end.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let mut bytes = [0; READ_BYTES];
        let mut piece = ReadBuf::new(&mut bytes);
        let read = Pin::new(&mut self.socket).poll_read(cx, &mut piece);
        read.map_ok(|()| {
            buffer.extend_from_slice(piece.filled());
            piece.filled().len()
        })
    }

    /// Ready when there may be something to read.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_readable(cx)
    }

    /// Reads into the room that `buffer` has; 0 at the end.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut impl BufMut,
    ) -> Poll<io::Result<usize>> {
        pin!(self.socket.read_buf(buffer)).poll(cx)
    }

    /// Writes some of `bytes`.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    /// Ready when nothing that was written is kept back.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// Ready at `until`.
    pub fn poll_alarm(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        if until < self.alarm.deadline() {
            self.alarm.as_mut().reset(until);
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            if until <= Instant::now() {
                return Poll::Ready(());
            }
            self.alarm.as_mut().reset(until);
        }
        Poll::Pending
    }

    /// Sends an answer, and counts the bytes behind its head.
    pub async fn send(&mut self, reply: Reply, n_sent: &mut u64) -> io::Result<()> {
        self.send_parts(reply, n_sent).await?;
        let flushed = self.write(|socket, cx| Pin::new(socket).poll_flush(cx).map_ok(|()| 0));
        flushed.await.map(drop)
    }

    async fn send_parts(&mut self, reply: Reply, n_sent: &mut u64) -> io::Result<()> {
        let Reply { mut head, body, .. } = reply;
        match body {
            Body::None => self.send_bytes(&head, SendFlags::empty()).await,
            Body::Text(text) => {
                head.extend_from_slice(&text);
                *n_sent = text.len() as u64;
                self.send_bytes(&head, SendFlags::empty()).await
            }
            Body::Content(Content::File(opened)) => {
                let more = match opened.bytes.is_empty() {
                    true => SendFlags::empty(),
                    false => SendFlags::MORE,
                };
                self.send_bytes(&head, more).await?;
                self.send_file(opened, n_sent).await
            }
            Body::Content(Content::Stream(mut pieces)) => {
                self.send_bytes(&head, SendFlags::empty()).await?;
                while let Some(piece) = pieces.next().await {
                    let piece = piece.map_err(io::Error::other)?;
                    self.send_bytes(&piece, SendFlags::empty()).await?;
                    *n_sent += piece.len() as u64;
                }
                Ok(())
            }
        }
    }

    /// Sends bytes from memory.
    pub async fn send_bytes(&mut self, mut bytes: &[u8], flags: SendFlags) -> io::Result<()> {
        while !bytes.is_empty() {
            let n_bytes = self.write(|socket, cx| socket.poll_send(cx, bytes, flags));
            bytes = &bytes[n_bytes.await?..];
        }
        Ok(())
    }

    /// Sends bytes of a file. What is not in the page cache is brought there first, in the blocking
    /// pool: the kernel would have this thread wait for the disk.
    async fn send_file(&mut self, opened: Opened, n_sent: &mut u64) -> io::Result<()> {
        let Opened { id, file, bytes } = opened;
        let mut at = bytes.start;
        while at < bytes.end {
            let end = bytes.end.min(at + S::BITE_BYTES);
            match self.send_bite(&file, at, end).await {
                Ok(n_bytes) => {
                    at += n_bytes;
                    *n_sent += n_bytes;
                }
                Err(error) => {
                    if is_ours(&error) {
                        let slot = id.short();
                        tracing::error!(slot, at, %error, "a file cannot be sent to its end");
                    }
                    return Err(error);
                }
            }
            if at < bytes.end {
                if self.is_near && S::GIVES_WAY {
                    // It gets the processor before there is more for it, and reads a bite at once
                    // rather than each packet: twice the throughput.
                    std::thread::yield_now();
                }
                // One client as fast as we are does not keep the others waiting.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Sends some of `file` from `at`, up to `end`.
    async fn send_bite(&mut self, file: &Arc<Handle>, at: u64, end: u64) -> io::Result<u64> {
        if !file.is_cached(at..end, |file| probe(file, at..end)) {
            warm(file.clone(), at, end).await?;
        }
        let n_bytes = usize::try_from(end - at).unwrap_or(usize::MAX);
        let sent = self.write(|socket, cx| {
            let begun = StdInstant::now();
            let sent = socket.poll_send_file(cx, file, at, n_bytes);
            if SEND_MAX < begun.elapsed() {
                // It waited for the disk: nobody else shall.
                file.doubt();
            }
            sent
        });
        match sent.await? {
            0 => {
                // Somebody has cut the file meanwhile.
                file.doubt();
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            n_bytes => Ok(n_bytes as u64),
        }
    }

    /// Writes something, once there is room for it: the other end has to read in its time.
    async fn write(
        &mut self,
        mut write: impl FnMut(&mut S, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> io::Result<usize> {
        let mut waits_since = None;
        let n_bytes = std::future::poll_fn(|cx| {
            if let Poll::Ready(written) = write(&mut self.socket, cx) {
                return Poll::Ready(written);
            }
            let since = *waits_since.get_or_insert_with(Instant::now);
            self.poll_alarm(cx, since + self.pace.left()).map(|()| {
                tracing::debug!("a client does not read what it asked for");
                Err(io::ErrorKind::TimedOut.into())
            })
        });
        let n_bytes = n_bytes.await?;
        if let Some(since) = waits_since {
            self.pace.on_waited(since.elapsed());
        }
        self.pace.on_taken(n_bytes);
        Ok(n_bytes)
    }
}

/// Whether an error is one of the file, and not of the connection.
fn is_ours(error: &io::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, HostUnreachable, NetworkUnreachable,
        NotConnected, TimedOut,
    };
    !matches!(
        error.kind(),
        BrokenPipe
            | ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | NetworkUnreachable
            | NotConnected
            | TimedOut
    )
}

/// Whether the page cache seems to hold the bytes: it has both ends, and some in between.
fn probe(file: &File, bytes: Range<u64>) -> bool {
    let end = bytes.end;
    let mut probes = bytes.step_by(PROBE_BYTES).chain([end - 1]);
    probes.all(|at| {
        let mut byte = [0];
        let mut into = [IoSliceMut::new(&mut byte)];
        // What a file system that cannot tell says counts as a no.
        rustix::io::preadv2(file, &mut into, at, ReadWriteFlags::NOWAIT).is_ok()
    })
}

/// Brings bytes of a file into the page cache.
async fn warm(file: Arc<Handle>, at: u64, end: u64) -> io::Result<()> {
    let read = move || {
        let mut bytes = vec![0; WARM_BYTES];
        let mut at = at;
        while at < end {
            match file.read_at(&mut bytes, at) {
                // Whoever sends it will see that it was cut.
                Ok(0) => break,
                Ok(n_read) => at += n_read as u64,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    };
    tokio::task::spawn_blocking(read).await?
}
