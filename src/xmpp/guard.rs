//! The socket under the XML parser, with `filter` between them.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::filter::Filter;
use super::limits::{Broken, KEPT_BYTES_MAX};
use super::plain::Plain;

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
    /// Plain slot requests go past the parser.
    takes_plain: AtomicBool,
    /// Those that came; of one read, for before the next they are taken.
    plains: Mutex<VecDeque<Plain>>,
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
            takes_plain: AtomicBool::new(false),
            plains: Mutex::default(),
        }
    }

    /// The socket alone; what came and was not read is dropped.
    pub fn into_inner(self) -> Io {
        self.io
    }

    /// Keeps plain slot requests from the parser from now on; whoever polls must then take them,
    /// until there are none, before it waits: nothing more is read before, and nobody is woken.
    pub fn take_plains(&self) {
        self.takes_plain.store(true, Ordering::Relaxed);
    }

    /// The next plain slot request.
    pub fn next_plain(&self) -> Option<Plain> {
        let mut plains = self.plains.lock().unwrap_or_else(PoisonError::into_inner);
        plains.pop_front()
    }

    /// Whether there is one.
    pub fn has_plains(&self) -> bool {
        let plains = self.plains.lock().unwrap_or_else(PoisonError::into_inner);
        !plains.is_empty()
    }

    /// Why the parser was made to fail, if it was.
    pub fn broken(&self) -> Option<Broken> {
        self.broken
    }
}

impl<Io: AsyncRead + Unpin> AsyncBufRead for Guard<Io> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        let plains = this.plains.get_mut();
        let plains = plains.unwrap_or_else(PoisonError::into_inner);
        while this.n_consumed == this.passed.len() && this.broken.is_none() {
            if !plains.is_empty() {
                return Poll::Pending;
            }
            this.passed.clear();
            this.passed.shrink_to(KEPT_BYTES_MAX);
            this.n_consumed = 0;
            let mut input = ReadBuf::new(&mut this.input);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut input))?;
            if input.filled().is_empty() {
                break;
            }
            let (bytes, passed) = (input.filled(), &mut this.passed);
            let pushed = match *this.takes_plain.get_mut() {
                true => this.filter.push_plain(bytes, passed, plains),
                false => this.filter.push(bytes, passed),
            };
            if let Err(broken) = pushed {
                this.broken = Some(broken);
                // The parser hands on what it has only if it fails by itself.
                this.passed.extend_from_slice(b"<!");
            }
            if this.passed.is_empty() && !plains.is_empty() {
                // White space between stanzas: a sign of life for who times the silence.
                this.passed.push(b' ');
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const HEADER: &str = "<s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns=";
    const PLAIN: &str = "<iq type='get' id='1' to='up.example.org' from='a@b/c'>\
        <request xmlns='urn:xmpp:http:upload:0' filename='a' size='9'/></iq>";
    const OTHER: &str = "<iq type='get' id='2'/>";

    /// What passes to the parser after a header with this namespace, and how many do not.
    async fn passed(namespace: &str, stanzas: &str) -> (String, usize) {
        let (mut far, near) = tokio::io::duplex(4096);
        let mut guard = Guard::new(near);
        guard.take_plains();
        let header = format!("{HEADER}'{namespace}'>");
        let (mut passed, mut n_plain) = (Vec::new(), 0);
        for sent in [header.as_str(), stanzas] {
            far.write_all(sent.as_bytes()).await.expect("room");
            passed.clear();
            poll_fn(|cx| {
                while let Poll::Ready(bytes) = Pin::new(&mut guard).poll_fill_buf(cx) {
                    let bytes = bytes.expect("no error");
                    passed.extend_from_slice(bytes);
                    let n = bytes.len();
                    Pin::new(&mut guard).consume(n);
                }
                Poll::Ready(())
            })
            .await;
            while guard.next_plain().is_some() {
                n_plain += 1;
            }
        }
        (String::from_utf8(passed).expect("UTF-8"), n_plain)
    }

    /// The parser gets a blank where all went past it: it times the silence.
    #[tokio::test]
    async fn plain_requests_go_past_the_parser() {
        let component = "jabber:component:accept";
        let some = format!("{PLAIN}{OTHER}\n{PLAIN}");
        assert_eq!(passed(component, &some).await, (format!("{OTHER}\n"), 2));
        assert_eq!(passed(component, PLAIN).await, (" ".to_owned(), 1));
        assert_eq!(passed("jabber:client", PLAIN).await, (" ".to_owned(), 1));
        assert_eq!(passed("urn:example", PLAIN).await, (PLAIN.to_owned(), 0));
        let nested = format!("<message>{PLAIN}</message>");
        assert_eq!(passed(component, &nested).await, (nested.clone(), 0));
    }
}
