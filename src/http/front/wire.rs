//! The socket under `front`: waits that have a limit, and bytes from memory or from a file.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, BytesMut};
use futures_util::StreamExt as _;
use rustix::io::ReadWriteFlags;
use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep_until};

use super::reply::{Body, Reply};
use crate::http::connection::Cut;
use crate::http::guard::READ_BYTES;
use crate::http::pace::Pace;
use crate::store::{Content, Handle, Opened};

/// The most that is given to the kernel at once. Larger ones save little, and keep others waiting
/// where the client is as fast as we are.
const BITE_BYTES: u64 = 1 << 20;
/// How far apart the bytes are that are asked for to see whether the rest is cached: as far as the
/// kernel reads ahead.
const PROBE_BYTES: usize = 128 << 10;
/// How much is read at once to bring a file into the page cache.
const WARM_BYTES: usize = 128 << 10;

/// A socket that the kernel can send files to.
pub trait Plain: AsyncRead + AsyncWrite + AsFd + Cut + Unpin + Send + Sync + 'static {
    /// Ready when there may be something to read.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ready when more may be written.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Tries a write without waiting.
    fn try_write_by<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T>;
}

impl Plain for TcpStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_ready(cx)
    }

    fn try_write_by<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.try_io(Interest::WRITABLE, write)
    }
}

impl Plain for UnixStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_ready(cx)
    }

    fn try_write_by<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.try_io(Interest::WRITABLE, write)
    }
}

/// A socket, how slowly its other end reads, and a timer for both directions.
pub struct Wire<S> {
    socket: S,
    pace: Pace,
    /// Set seldom: most waits end long before their limit, so one that is set for an earlier
    /// moment is left as it is, and looked after when it rings.
    alarm: Pin<Box<Sleep>>,
}

impl<S: Plain> Wire<S> {
    /// A wire whose waits mostly end before `until`.
    pub fn new(socket: S, pace: Pace, until: Instant) -> Self {
        Self {
            socket,
            pace,
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
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
            let n_bytes = self.write(|socket| {
                let flags = flags | SendFlags::NOSIGNAL;
                rustix::net::send(socket, bytes, flags)
            });
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
            let end = bytes.end.min(at + BITE_BYTES);
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
        let n_bytes = self.write(|socket| {
            let mut from = at;
            let n_bytes = usize::try_from(end - at).unwrap_or(usize::MAX);
            rustix::fs::sendfile(socket, &***file, Some(&mut from), n_bytes)
        });
        match n_bytes.await? {
            0 => {
                // Somebody has cut the file meanwhile.
                file.doubt();
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            n_bytes => Ok(n_bytes as u64),
        }
    }

    /// Writes something, once there is room for it.
    async fn write(
        &mut self,
        mut write: impl FnMut(&S) -> rustix::io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            let socket = &self.socket;
            let written = socket.try_write_by(|| write(socket).map_err(io::Error::from));
            match written {
                Ok(n_bytes) => {
                    self.pace.on_taken(n_bytes);
                    return Ok(n_bytes);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wait().await?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Waits until the other end has read something, as long as it may take for it.
    async fn wait(&mut self) -> io::Result<()> {
        let since = Instant::now();
        let until = since + self.pace.left();
        std::future::poll_fn(|cx| {
            if let Poll::Ready(ready) = self.socket.poll_writable(cx) {
                return Poll::Ready(ready);
            }
            self.poll_alarm(cx, until).map(|()| {
                tracing::debug!("a client does not read what it asked for");
                Err(io::ErrorKind::TimedOut.into())
            })
        })
        .await?;
        self.pace.on_waited(since.elapsed());
        Ok(())
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
