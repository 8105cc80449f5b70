//! Is this a request head that everybody reads alike, and where does its body end? RFC 9112.
//!
//! Pure, and stricter than it has to be: what could be read in two ways is refused.

use http::{Method, Uri};

use crate::core::refusal::Refusal;

/// Longest request target, in bytes.
const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Longest header section, in bytes.
const FIELDS_BYTES_MAX: usize = 16 * 1024;
/// Most fields.
const FIELDS_MAX: usize = 100;
/// Longest method and version, together with what separates them.
const LINE_REST_BYTES_MAX: usize = 64;
/// Longest body: more than any file has, and less than what hyper refuses in words of its own.
const LENGTH_MAX: u64 = u64::MAX >> 1;

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks, to the last one.
    Chunked,
    /// Nothing says whether there is a body, and the method is one that has them: by RFC 9112
    /// #6.3 there is none, but what follows may be a body all the same and not a request.
    Unsaid,
}

/// Whether `method` asks for something and sends nothing, as a rule.
pub fn is_bodiless(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// How far a head has been looked at: lines that are whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Where the next line begins.
    line_at: usize,
    /// Where to go on looking for its end.
    at: usize,
    n_lines: usize,
}

impl Scan {
    /// Whether `buffer` holds bytes that were not looked at.
    pub fn is_behind(&self, buffer: &[u8]) -> bool {
        self.at < buffer.len()
    }
}

/// Looks for the empty line that ends a head; its end, if it is there. Refuses what grows too long
/// or has other line ends than CRLF, without waiting for more.
pub fn scan_head(buffer: &[u8], scan: &mut Scan) -> Result<Option<usize>, Refusal> {
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

/// A head that everybody reads alike.
#[derive(Clone, Debug)]
pub struct Head {
    pub method: Method,
    pub uri: Uri,
    /// HTTP/1.1, not HTTP/1.0.
    pub is_1_1: bool,
    pub framing: Framing,
}

/// Checks a head that is whole: request line, fields and empty line, each ended by CRLF.
pub fn check_head(head: &[u8]) -> Result<Framing, Refusal> {
    Ok(read_head(head, |_, _| {})?.framing)
}

/// The same for who goes on to read the head: `on_field` gets each field's name and value.
pub fn read_head<'a>(
    head: &'a [u8],
    mut on_field: impl FnMut(&'a [u8], &'a [u8]),
) -> Result<Head, Refusal> {
    let mut lines = head.split(|b| *b == b'\n').map(|line| match line {
        [line @ .., b'\r'] => line,
        line => line,
    });
    // RFC 9112 #2.2: empty lines before the request line are passed over.
    let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let (method, uri, is_1_1) = read_line(line)?;
    let mut fields = Fields::default();
    let mut n_bytes = 0;
    for line in lines.filter(|line| !line.is_empty()) {
        n_bytes += line.len() + 2;
        let (name, value) = fields.read(line)?;
        on_field(name, value);
    }
    if FIELDS_BYTES_MAX < n_bytes {
        return Err(Refusal::FieldsTooLarge);
    }
    let framing = fields.framing(is_bodiless(&method), is_1_1)?;
    Ok(Head {
        method,
        uri,
        is_1_1,
        framing,
    })
}

/// Reads `method SP target SP version`; whether the version is 1.1.
fn read_line(line: &[u8]) -> Result<(Method, Uri, bool), Refusal> {
    let mut parts = line.split(|b| *b == b' ');
    let mut next = || parts.next().ok_or(Refusal::BadRequest);
    let (method, target, version) = (next()?, next()?, next()?);
    if parts.next().is_some() {
        return Err(Refusal::BadRequest);
    }
    if TARGET_BYTES_MAX < target.len() {
        return Err(Refusal::TargetTooLong);
    }
    // COMPAT(ejabberd, 2026): leaves letters raw in its links, and some clients send them so.
    let is_target = |b: &u8| (b.is_ascii_graphic() || !b.is_ascii()) && *b != b'#';
    let method = Method::from_bytes(method).map_err(|_| Refusal::BadRequest)?;
    if !target.iter().all(is_target) {
        return Err(Refusal::BadRequest);
    }
    // What hyper cannot parse it answers itself, without what our answers carry.
    let uri = Uri::try_from(target).map_err(|_| Refusal::BadRequest)?;
    // RFC 9112 #3.2: the authority form is for CONNECT, which we do not do.
    if uri.scheme().is_none() && uri.authority().is_some() {
        return Err(Refusal::BadRequest);
    }
    let is_1_1 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return Err(Refusal::BadRequest),
    };
    Ok((method, uri, is_1_1))
}

/// The fields that say where the body ends.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    coding: Option<Refusal>,
    is_chunked: bool,
}

impl Fields {
    /// Reads one field line (RFC 9112 #5): its name, and its value without the space around it.
    /// Neither folding nor space before the colon is taken.
    fn read<'a>(&mut self, line: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Refusal> {
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
        Ok((name, trim(value)))
    }

    /// RFC 9112 #6.3, with nothing left to choose.
    fn framing(self, is_bodiless: bool, is_1_1: bool) -> Result<Framing, Refusal> {
        let has_coding = self.is_chunked || self.coding.is_some();
        if has_coding && (self.length.is_some() || !is_1_1) {
            return Err(Refusal::BadRequest);
        }
        match self.coding {
            Some(refusal) => Err(refusal),
            None if self.is_chunked => Ok(Framing::Chunked),
            None => match self.length {
                Some(length) => Ok(Framing::Length(length)),
                None if is_bodiless => Ok(Framing::Length(0)),
                None => Ok(Framing::Unsaid),
            },
        }
    }
}

/// Digits alone; lists of equal lengths are not taken.
fn parse_length(value: &[u8]) -> Option<u64> {
    let digits = trim(value);
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok()?;
    let length = is_number.then(|| text.parse().ok()).flatten();
    length.filter(|length| *length <= LENGTH_MAX)
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
