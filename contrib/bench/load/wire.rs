//! HTTP/1.1 over one kept connection, as little of it as the peers' answers need.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::body::Body;
use crate::tls::{self, Tls};
use crate::urls::Url;

/// The longest head of an answer that is understood.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How much of a body one call reads into nothing. No such memory is ever touched.
const DISCARD_BYTES: usize = 4 << 20;
/// How long a peer may be silent; the slowest (a cache miss of a slow peer) takes seconds.
const SILENCE_MAX: Duration = Duration::from_secs(60);

enum Link {
    Plain(TcpStream),
    Tls(Tls),
}

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub status: u16,
    pub length: Option<u64>,
    /// The server closes the connection behind this answer.
    pub closes: bool,
}

/// A connection that is opened when it is needed.
pub struct Wire {
    address: SocketAddr,
    is_tls: bool,
    link: Option<Link>,
    head: Vec<u8>,
    discard: Vec<u8>,
    /// How often it was opened.
    pub n_opened: usize,
}

impl Wire {
    /// A connection to a URL's server, not opened yet.
    pub fn new(url: &Url) -> Self {
        Self {
            address: url.address,
            is_tls: url.is_tls,
            link: None,
            head: vec![0; HEAD_BYTES_MAX],
            discard: Vec::new(),
            n_opened: 0,
        }
    }

    /// Opens it, if it is not open.
    pub fn open(&mut self) -> io::Result<()> {
        if self.link.is_some() {
            return Ok(());
        }
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        self.n_opened += 1;
        self.link = Some(match self.is_tls {
            false => Link::Plain(stream),
            true => {
                let mut tls = tls::connect(stream)?;
                while tls.conn.is_handshaking() {
                    tls.conn.complete_io(&mut tls.sock)?;
                }
                Link::Tls(tls)
            }
        });
        Ok(())
    }

    /// Reads a file: the bytes of its body, or what went wrong.
    pub fn get(&mut self, url: &Url, size: Option<u64>) -> Result<u64, String> {
        let outcome = self.try_get(url);
        let (status, n_bytes) = self.settle(outcome)?;
        match status {
            200 if size.is_none_or(|size| size == n_bytes) => Ok(n_bytes),
            200 => Err("length".to_owned()),
            status => Err(status.to_string()),
        }
    }

    fn try_get(&mut self, url: &Url) -> io::Result<(u16, u64)> {
        let (host, target) = (&url.host, &url.target);
        self.open()?;
        self.send_head(
            format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            false,
        )?;
        self.answer()
    }

    /// Sends a file: the bytes of its body, or what went wrong.
    pub fn put(&mut self, url: &Url, body: &Body) -> Result<u64, String> {
        let outcome = self.try_put(url, body);
        match self.settle(outcome)? {
            (201 | 204, _) => Ok(body.size),
            (status, _) => Err(status.to_string()),
        }
    }

    fn try_put(&mut self, url: &Url, body: &Body) -> io::Result<(u16, u64)> {
        self.open()?;
        self.send_head(put_head(url, body.size), true)?;
        self.send_body(body)?;
        self.answer()
    }

    /// A connection that went wrong is not used again.
    fn settle(&mut self, outcome: io::Result<(u16, u64)>) -> Result<(u16, u64), String> {
        outcome.map_err(|e| {
            self.link = None;
            format!("{:?}", e.kind())
        })
    }

    /// The answer's status, and how many bytes its body had.
    pub fn answer(&mut self) -> io::Result<(u16, u64)> {
        let (head, n_read) = self.read_head()?;
        let (length, closes) = match head.length {
            Some(length) => (length, head.closes),
            None => (n_read, true),
        };
        let rest = length.checked_sub(n_read);
        let rest = rest.ok_or_else(|| io::Error::other("more than was announced"))?;
        self.discard(rest)?;
        if closes {
            self.link = None;
        }
        Ok((head.status, length))
    }

    /// Sends the head of a request; `more` follows at once.
    pub fn send_head(&mut self, head: String, more: bool) -> io::Result<()> {
        match self.link.as_mut().ok_or(io::ErrorKind::NotConnected)? {
            Link::Tls(tls) => tls.write_all(head.as_bytes()),
            Link::Plain(stream) => {
                let flags = match more {
                    true => SendFlags::MORE | SendFlags::NOSIGNAL,
                    false => SendFlags::NOSIGNAL,
                };
                let n_sent = rustix::net::send(&*stream, head.as_bytes(), flags)?;
                stream.write_all(&head.as_bytes()[n_sent..])
            }
        }
    }

    fn send_body(&mut self, body: &Body) -> io::Result<()> {
        match self.link.as_mut().ok_or(io::ErrorKind::NotConnected)? {
            Link::Tls(tls) => tls.write_all(&body.bytes).and_then(|()| tls.flush()),
            Link::Plain(stream) => {
                let mut at = 0;
                while at < body.size {
                    let rest = (body.size - at).try_into().unwrap_or(usize::MAX);
                    let n = rustix::fs::sendfile(&*stream, &body.file, Some(&mut at), rest);
                    match n {
                        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(e) => return Err(e.into()),
                    }
                }
                Ok(())
            }
        }
    }

    /// Sends some of a body as it is.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.link.as_mut().ok_or(io::ErrorKind::NotConnected)? {
            Link::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
            Link::Plain(stream) => stream.write_all(bytes),
        }
    }

    /// Sends no more, and waits until the server has seen that.
    pub fn break_off(&mut self) -> io::Result<()> {
        let stream = match self.link.take().ok_or(io::ErrorKind::NotConnected)? {
            Link::Tls(tls) => tls.sock,
            Link::Plain(stream) => stream,
        };
        stream.shutdown(Shutdown::Write)?;
        // It says what it thinks of that, or closes without a word; either is well.
        let mut rest = Vec::new();
        match (&stream).read_to_end(&mut rest) {
            Err(e) if e.kind() != io::ErrorKind::ConnectionReset => Err(e),
            _ => Ok(()),
        }
    }

    /// The head, and how many bytes of the body came with it.
    fn read_head(&mut self) -> io::Result<(Head, u64)> {
        let mut n_read = 0;
        loop {
            let buffer = &mut self.head[n_read..];
            let n = match self.link.as_mut().ok_or(io::ErrorKind::NotConnected)? {
                Link::Tls(tls) => tls.read(buffer)?,
                // Little more than a head: what follows it is read into nothing.
                Link::Plain(stream) => {
                    let end = buffer.len().min(1024);
                    stream.read(&mut buffer[..end])?
                }
            };
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            n_read += n;
            let read = &self.head[..n_read];
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = parse(&read[..end]).ok_or(io::ErrorKind::InvalidData)?;
                return Ok((head, (n_read - end - 4) as u64));
            }
        }
    }

    fn discard(&mut self, mut rest: u64) -> io::Result<()> {
        while rest > 0 {
            let wanted = DISCARD_BYTES.min(rest.try_into().unwrap_or(usize::MAX));
            if self.discard.len() < wanted {
                // Made anew and never copied, so that it stays untouched.
                self.discard = vec![0; wanted];
            }
            let buffer = &mut self.discard[..wanted];
            let n = match self.link.as_mut().ok_or(io::ErrorKind::NotConnected)? {
                Link::Tls(tls) => tls.read(buffer)?,
                Link::Plain(stream) => {
                    let flags = RecvFlags::TRUNC | RecvFlags::WAITALL;
                    match rustix::net::recv(&*stream, buffer, flags) {
                        Ok((_, n)) => n,
                        Err(Errno::INTR) => continue,
                        Err(e) => return Err(e.into()),
                    }
                }
            };
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            rest -= n as u64;
        }
        Ok(())
    }
}

/// The head of a PUT of `size` bytes.
pub fn put_head(url: &Url, size: u64) -> String {
    let (host, target) = (&url.host, &url.target);
    let authorization = match &url.authorization {
        Some(value) => format!("Authorization: {value}\r\n"),
        None => String::new(),
    };
    format!(
        "PUT {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n{authorization}\
         Content-Type: application/octet-stream\r\n\r\n"
    )
}

fn parse(head: &[u8]) -> Option<Head> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.get(2..5)?;
    let mut head = Head {
        status: status.parse().ok()?,
        length: None,
        closes: false,
    };
    for line in lines {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") {
            head.length = Some(value.trim().parse().ok()?);
        } else if name.eq_ignore_ascii_case("connection") {
            head.closes = value.trim().eq_ignore_ascii_case("close");
        }
    }
    if head.status == 204 {
        head.length = Some(0);
    }
    Some(head)
}
