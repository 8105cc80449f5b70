//! The socket under the XML parser, with `filter` between them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::filter::Filter;
use super::limits::{Broken, KEPT_BYTES_MAX};

/// How much is read from the socket at once.
const READ_BYTES: usize = 16 * 1024;

/// A socket under its filter.
pub struct Guard<Io> {
    io: Io,
    filter: Filter,
    broken: Option<Broken>,
    passed: Vec<u8>,
    n_consumed: usize,
    input: Box<[u8]>,
}

impl<Io> Guard<Io> {
    /// Puts the filter on `io`, at the beginning of a stream.
    pub fn new(io: Io) -> Self {
        Self {
            io,
            filter: Filter::default(),
            broken: None,
            passed: Vec::new(),
            n_consumed: 0,
            input: vec![0; READ_BYTES].into_boxed_slice(),
        }
    }

    /// The socket alone; what came and was not read is dropped.
    pub fn into_inner(self) -> Io {
        self.io
    }

    /// Why the parser was made to fail, if it was.
    pub fn broken(&self) -> Option<Broken> {
        self.broken
    }
}

impl<Io: AsyncRead + Unpin> AsyncBufRead for Guard<Io> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.n_consumed == this.passed.len() && this.broken.is_none() {
            this.passed.clear();
            this.passed.shrink_to(KEPT_BYTES_MAX);
            this.n_consumed = 0;
            let mut input = ReadBuf::new(&mut this.input);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut input))?;
            if input.filled().is_empty() {
                break;
            }
            if let Err(broken) = this.filter.push(input.filled(), &mut this.passed) {
                this.broken = Some(broken);
                // The parser hands on what it has only if it fails by itself.
                this.passed.extend_from_slice(b"<!");
            }
        }
        Poll::Ready(Ok(&this.passed[this.n_consumed..]))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        self.get_mut().n_consumed += amount;
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Guard<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = ready!(self.as_mut().poll_fill_buf(cx))?;
        let n = bytes.len().min(buffer.remaining());
        buffer.put_slice(&bytes[..n]);
        self.consume(n);
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Guard<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
