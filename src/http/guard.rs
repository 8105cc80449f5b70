//! Lets only whole and well-formed request heads through to hyper, one at a time.
//!
//! hyper takes what RFC 9112 says a recipient may take; two recipients in a row that take
//! different things are what request smuggling lives on. So a head that could be read in two ways
//! never gets past here: it is replaced by one that hyper parses, and `Refusals` says which
//! request is to be refused. Bodies pass through unread; only their end is followed, to find the
//! next head. What came in chunks is not followed: after it the connection is closed.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::core::refusal::Refusal;

/// Longest request target, in bytes.
const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Longest header section, in bytes.
const FIELDS_BYTES_MAX: usize = 16 * 1024;
/// Most fields.
const FIELDS_MAX: usize = 100;
/// Longest method and version, together with what separates them.
const LINE_REST_BYTES_MAX: usize = 64;
/// Bytes read at once while a head is awaited.
const READ_BYTES: usize = 4 * 1024;
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
    /// A checked head is handed over, then comes what belongs to it.
    Through { left: usize, then: Framing },
    /// A body is handed over.
    Body { left: u64 },
    /// Chunks, to the end of the connection.
    Rest,
    /// Nothing is handed over any more.
    Shut,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    Refused,
}

/// How far a head has been looked at: lines that are whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Scan {
    /// Where the next line begins.
    line_at: usize,
    /// Where to go on looking for its end.
    at: usize,
    n_lines: usize,
}

impl<I> Guard<I> {
    /// Guards `io`, which has just been accepted.
    pub fn new(io: I, refusals: Refusals) -> Self {
        Self {
            io,
            buffer: BytesMut::new(),
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
    fn follow(&mut self, framing: Framing) {
        self.state = match framing {
            Framing::Length(0) => State::Head {
                scan: Scan::default(),
                is_timed: false,
            },
            Framing::Length(left) => State::Body { left },
            Framing::Chunked => State::Rest,
            Framing::Refused => State::Shut,
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
                Ok(then) => State::Through { left: end, then },
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
            then: Framing::Refused,
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
                    if scan.at < this.buffer.len() {
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
                    this.follow(Framing::Length(left - n));
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

/// Looks for the empty line that ends a head; its end, if it is there. Refuses what grows too long
/// or has other line ends than CRLF, without waiting for more.
fn scan_head(buffer: &[u8], scan: &mut Scan) -> Result<Option<usize>, Refusal> {
    while let Some(n) = buffer[scan.at..].iter().position(|b| *b == b'\n') {
        let end = scan.at + n + 1;
        let line = &buffer[scan.line_at..end];
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return Err(Refusal::BadRequest);
        };
        scan.at = end;
        scan.line_at = end;
        if !line.is_empty() {
            scan.n_lines += 1;
        } else if 0 < scan.n_lines {
            return Ok(Some(end));
        }
        check_size(buffer, scan)?;
    }
    scan.at = buffer.len();
    check_size(buffer, scan)?;
    match buffer.trim_ascii_start().first() {
        Some(first) if !is_tchar(*first) => Err(Refusal::BadRequest),
        _ => Ok(None),
    }
}

fn check_size(buffer: &[u8], scan: &Scan) -> Result<(), Refusal> {
    let line_bytes_max = TARGET_BYTES_MAX + LINE_REST_BYTES_MAX;
    let head_bytes = scan.at.min(buffer.len());
    if scan.n_lines == 0 && line_bytes_max < head_bytes {
        return Err(Refusal::TargetTooLong);
    }
    if FIELDS_MAX + 1 < scan.n_lines || line_bytes_max + FIELDS_BYTES_MAX < head_bytes {
        return Err(Refusal::FieldsTooLarge);
    }
    Ok(())
}

/// Checks a head that is whole: request line, fields and empty line, each ended by CRLF.
fn check_head(head: &[u8]) -> Result<Framing, Refusal> {
    let mut lines = head.split(|b| *b == b'\n').map(|line| match line {
        [line @ .., b'\r'] => line,
        line => line,
    });
    // RFC 9112 #2.2: empty lines before the request line are passed over.
    let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let is_1_1 = check_line(line)?;
    let mut fields = Fields::default();
    let mut n_bytes = 0;
    for line in lines.filter(|line| !line.is_empty()) {
        n_bytes += line.len() + 2;
        fields.read(line)?;
    }
    if FIELDS_BYTES_MAX < n_bytes {
        return Err(Refusal::FieldsTooLarge);
    }
    fields.framing(is_1_1)
}

/// Checks `method SP target SP version`; whether the version is 1.1.
fn check_line(line: &[u8]) -> Result<bool, Refusal> {
    let parts: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let [method, target, version] = parts[..] else {
        return Err(Refusal::BadRequest);
    };
    if TARGET_BYTES_MAX < target.len() {
        return Err(Refusal::TargetTooLong);
    }
    let is_target = |b: &u8| b.is_ascii_graphic() && *b != b'#';
    if method.is_empty() || !method.iter().all(|b| is_tchar(*b)) {
        return Err(Refusal::BadRequest);
    }
    if target.is_empty() || !target.iter().all(is_target) {
        return Err(Refusal::BadRequest);
    }
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ => Err(Refusal::BadRequest),
    }
}

/// The fields that say where the body ends.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    coding: Option<Refusal>,
    is_chunked: bool,
}

impl Fields {
    /// Reads one field line (RFC 9112 #5). Neither folding nor space before the colon is taken.
    fn read(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let colon = line.iter().position(|b| *b == b':');
        let (name, value) = line.split_at(colon.ok_or(Refusal::BadRequest)?);
        let value = &value[1..];
        let is_value = |b: &u8| *b == b'\t' || (b' ' <= *b && *b != 0x7f);
        if name.is_empty() || !name.iter().all(|b| is_tchar(*b)) || !value.iter().all(is_value) {
            return Err(Refusal::BadRequest);
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = parse_length(value).ok_or(Refusal::BadRequest)?;
            if self.length.is_some_and(|before| before != length) {
                return Err(Refusal::BadRequest);
            }
            self.length = Some(length);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.is_chunked || self.coding.is_some() {
                return Err(Refusal::BadRequest);
            }
            if trim(value).eq_ignore_ascii_case(b"chunked") {
                self.is_chunked = true;
            } else {
                self.coding = Some(Refusal::UnknownTransferCoding);
            }
        }
        Ok(())
    }

    /// RFC 9112 #6.3, with nothing left to choose.
    fn framing(self, is_1_1: bool) -> Result<Framing, Refusal> {
        let has_coding = self.is_chunked || self.coding.is_some();
        if has_coding && (self.length.is_some() || !is_1_1) {
            return Err(Refusal::BadRequest);
        }
        match self.coding {
            Some(refusal) => Err(refusal),
            None if self.is_chunked => Ok(Framing::Chunked),
            None => Ok(Framing::Length(self.length.unwrap_or(0))),
        }
    }
}

/// Digits alone; lists of equal lengths are not taken.
fn parse_length(value: &[u8]) -> Option<u64> {
    let digits = trim(value);
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok()?;
    is_number.then(|| text.parse().ok()).flatten()
}

/// Takes off what RFC 9110 #5.6.3 calls OWS.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// RFC 9110 #5.6.2.
fn is_tchar(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}
