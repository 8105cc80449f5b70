//! What `wire` writes to: sockets that the kernel sends files to, and TLS over one, for which a
//! file's bytes have to come here.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::SendFlags;
use tokio::io::{AsyncBufRead as _, AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpStream, UnixStream};

use crate::http::connection::Cut;
use crate::http::tls::{PIECE_BYTES, Secured};

/// A connection that `front` can answer on.
pub trait Line: AsyncRead + AsyncWrite + Cut + Unpin + Send + 'static {
    /// The most of a file that is sent at once.
    const BITE_BYTES: u64;
    /// Whether a reader on this machine runs after each bite.
    const GIVES_WAY: bool;

    /// Ready when there may be something to read.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Takes some of `bytes`. Where `flags` say that more follows, they may wait for that.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        flags: SendFlags,
    ) -> Poll<io::Result<usize>>;

    /// Takes some of the `n_bytes` from `at` of a file that is in the page cache; 0 at its end.
    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: &File,
        at: u64,
        n_bytes: usize,
    ) -> Poll<io::Result<usize>>;
}

/// A socket that the kernel can send files to.
pub trait Plain: AsyncRead + AsyncWrite + AsFd + Cut + Unpin + Send + 'static {
    /// Ready when there may be something to read.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ready when more may be written.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Tries a write without waiting.
    fn try_write_by<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T>;

    /// Writes something, once there is room for it.
    fn poll_write_by(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut() -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write_by(|| write().map_err(io::Error::from)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_write_ready(cx))?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl Plain for TcpStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_read_ready(self, cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_write_ready(self, cx)
    }

    fn try_write_by<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.try_io(Interest::WRITABLE, write)
    }
}

impl Plain for UnixStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_read_ready(self, cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_write_ready(self, cx)
    }

    fn try_write_by<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.try_io(Interest::WRITABLE, write)
    }
}

impl<S: Plain> Line for S {
    /// Larger ones save little, and keep others waiting where the client is as fast as we are.
    const BITE_BYTES: u64 = 1 << 20;
    const GIVES_WAY: bool = true;

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        flags: SendFlags,
    ) -> Poll<io::Result<usize>> {
        let flags = flags | SendFlags::NOSIGNAL;
        self.poll_write_by(cx, || rustix::net::send(&*self, bytes, flags))
    }

    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: &File,
        at: u64,
        n_bytes: usize,
    ) -> Poll<io::Result<usize>> {
        self.poll_write_by(cx, || {
            let mut from = at;
            rustix::fs::sendfile(&*self, file, Some(&mut from), n_bytes)
        })
    }
}

thread_local! {
    /// Where files are read to be encrypted. No connection keeps it: what was read and found no
    /// room is read again.
    static PIECE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Line for Secured {
    const BITE_BYTES: u64 = PIECE_BYTES as u64;
    // Encryption takes longer than any reader.
    const GIVES_WAY: bool = false;

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_fill_buf(cx).map_ok(drop)
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        flags: SendFlags,
    ) -> Poll<io::Result<usize>> {
        if flags.contains(SendFlags::MORE) {
            // Encrypted and kept, as long as there is room: it goes out with what follows.
            match self.get_mut().1.writer().write(bytes) {
                Ok(0) => {}
                written => return Poll::Ready(written),
            }
        }
        Pin::new(self).poll_write(cx, bytes)
    }

    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: &File,
        at: u64,
        n_bytes: usize,
    ) -> Poll<io::Result<usize>> {
        PIECE.with_borrow_mut(|piece| {
            piece.resize(PIECE_BYTES, 0);
            let piece = &mut piece[..n_bytes.min(PIECE_BYTES)];
            loop {
                match file.read_at(piece, at) {
                    Ok(0) => return Poll::Ready(Ok(0)),
                    Ok(n_read) => return Pin::new(self).poll_write(cx, &piece[..n_read]),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Poll::Ready(Err(e)),
                }
            }
        })
    }
}
