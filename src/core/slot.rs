//! What a slot request asks for and what a slot holds, as checked values.
//!
//! Every type's constructor is its only check. XEP-0363 #request, #purpose; nothing here decides
//! whether the requester may have the slot: that is `policy`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::core::refusal::Refusal;
use crate::core::time::Timestamp;

/// Longest file name kept, in bytes of UTF-8: what file systems take.
pub const FILE_NAME_BYTES_MAX: usize = 255;
/// Longest extension that survives the shortening of a long name, in bytes with its dot.
const EXTENSION_BYTES_MAX: usize = 32;
/// Longest content type taken, in bytes.
const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// All but the unreserved characters of RFC 3986: clients cut URLs at a bare `(`, and `aesgcm://`
/// links lose what follows a `#`.
const URL_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What an id is spelled with.
const ID_CHARS: usize = 22;

/// The bits of an id that tell when it was made.
const TICK_BITS: u32 = 24;
/// How many times a second they change.
const TICKS_PER_SECOND: u128 = 128;

/// A name for what is made at `uptime`: neighbors in time are neighbors in the store's tables, so
/// that many of them change few pages. The time comes round after 36 hours, which harms nothing.
fn name_at(uptime: Duration, random: u128) -> u128 {
    let ticks = uptime.as_nanos() * TICKS_PER_SECOND / 1_000_000_000;
    ticks << (u128::BITS - TICK_BITS) | random >> TICK_BITS
}

/// Names a slot and its file: the secret of the GET URL, 104 of its 128 bits random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u128);

impl SlotId {
    /// A new one, of 128 random bits that nothing else is made of.
    pub fn new(uptime: Duration, random: u128) -> Self {
        Self(name_at(uptime, random))
    }

    /// Reads the one spelling that `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        // The decoder writes three bytes at a time.
        let mut bytes = [0; 18];
        let n_bytes = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let bytes = bytes[..n_bytes].try_into().ok()?;
        Some(Self(u128::from_be_bytes(bytes)))
    }

    /// The first 8 characters: enough to follow a slot in the log, useless as a link.
    pub fn short(self) -> String {
        self.to_string()[..8].to_owned()
    }

    /// The smallest id whose `short` is `text`.
    pub fn first_of_short(text: &str) -> Option<Self> {
        let bytes: [u8; 6] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let mut id = [0; 16];
        id[..6].copy_from_slice(&bytes);
        Some(Self(u128::from_be_bytes(id)))
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; ID_CHARS];
        let written = URL_SAFE_NO_PAD.encode_slice(self.0.to_be_bytes(), &mut text);
        let text = written.ok().and_then(|n| str::from_utf8(&text[..n]).ok());
        f.write_str(text.ok_or(fmt::Error)?)
    }
}

impl fmt::Debug for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotId({}..)", self.short())
    }
}

/// Names an upload session to its owner: never part of a URL, so that no link gives it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

impl SessionId {
    /// A new one, of 128 random bits that nothing else is made of.
    pub fn new(uptime: Duration, random: u128) -> Self {
        Self(name_at(uptime, random))
    }

    /// Reads the one spelling that `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        SlotId::parse(text).map(|id| Self(id.0))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SlotId(self.0).fmt(f)
    }
}

/// One attempt at a slot's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartId {
    /// Whose bytes.
    pub slot: SlotId,
    /// Which attempt, counted from 0.
    pub attempt: u16,
}

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        // Each download spells one: byte by byte through `format!` it is a tenth of its work.
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
        let digits = self
            .0
            .iter()
            .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
        let mut text = String::with_capacity(2 * self.0.len());
        text.extend(digits);
        text
    }

    /// Standard base64 with padding, as XEP-0300 and RFC 9530 write it.
    pub fn to_base64(self) -> String {
        base64::engine::general_purpose::STANDARD.encode(self.0)
    }

    /// Reads `to_base64`'s spelling.
    pub fn from_base64(text: &str) -> Option<Self> {
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text)
            .ok()?;
        Some(Self(bytes.try_into().ok()?))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({})", self.to_hex())
    }
}

/// A file name fit for a URL, a header and a file manager: never a path, 1 to 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileName(String);

impl FileName {
    /// Takes a requester's file name.
    ///
    /// Surrounding white space and the characters that turn the direction of text are left out; a
    /// name that is too long loses the end of its stem and keeps its extension. Refuses
    /// `BadFileName` for what is empty, `.`, `..`, holds `/`, `\` or a control character.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        if text.contains(['/', '\\']) || text.chars().any(char::is_control) {
            return Err(Refusal::BadFileName);
        }
        let visible: Cow<str> = match text.contains(turns_direction) {
            true => text.chars().filter(|c| !turns_direction(*c)).collect(),
            false => text.into(),
        };
        let name = visible.trim();
        if name.is_empty() || name == "." || name == ".." {
            return Err(Refusal::BadFileName);
        }
        Ok(Self(shorten(name)))
    }

    /// The name in UTF-8.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as one segment of a URL path (RFC 3986 #2.3: all but unreserved is encoded).
    pub fn to_url_segment(&self) -> String {
        Cow::from(utf8_percent_encode(&self.0, URL_SEGMENT)).into_owned()
    }
}

/// Whether `c` turns the direction of the text after it, which can disguise an extension.
fn turns_direction(c: char) -> bool {
    matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Cuts a name to `FILE_NAME_BYTES_MAX` at a character boundary, keeping a short extension.
fn shorten(name: &str) -> String {
    if name.len() <= FILE_NAME_BYTES_MAX {
        return name.to_owned();
    }
    let dot = name.rfind('.').unwrap_or(name.len());
    let extension = match &name[dot..] {
        long if EXTENSION_BYTES_MAX < long.len() => "",
        short => short,
    };
    let mut stem_end = FILE_NAME_BYTES_MAX - extension.len();
    while !name.is_char_boundary(stem_end) {
        stem_end -= 1;
    }
    format!("{}{extension}", name[..stem_end].trim_end())
}

/// A media type fit for a header, such as `video/mp4` or `text/plain; charset=utf-8`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContentType(String);

impl ContentType {
    /// Reads a media type; refuses `BadContentType` for what is not `type/subtype` with optional
    /// parameters in visible ASCII (RFC 9110 #8.3.1), for wildcards, and over 255 bytes.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let (essence, parameters) = match text.split_once(';') {
            Some((essence, parameters)) => (essence.trim(), Some(parameters)),
            None => (text.trim(), None),
        };
        let tokens = essence.split_once('/');
        let valid = tokens.is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
            && text.len() <= CONTENT_TYPE_BYTES_MAX
            && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        if !valid {
            return Err(Refusal::BadContentType);
        }
        let essence = essence.to_ascii_lowercase();
        Ok(Self(match parameters {
            Some(parameters) => format!("{essence};{parameters}"),
            None => essence,
        }))
    }

    /// What a file is of which nothing is known (XEP-0363 #upload).
    pub fn octet_stream() -> Self {
        Self("application/octet-stream".to_owned())
    }

    /// The whole type, parameters included.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `type/subtype` without parameters, in lower case.
    pub fn essence(&self) -> &str {
        self.0.split(';').next().unwrap_or(&self.0).trim()
    }
}

/// RFC 9110 #5.6.2, less the wildcard.
fn is_token(text: &str) -> bool {
    let is_tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_tchar)
}

/// What a file is for, which decides how long it is kept. XEP-0363 #purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Sent in a message; assumed when the request names none.
    Message,
    /// A picture or background that others see for long.
    Profile,
    /// Not to be served at or after `expire_before` (XEP-0363 #purpose-ephemeral).
    Ephemeral {
        /// The first instant at which the file is no longer served.
        expire_before: Timestamp,
    },
    /// To be kept until somebody deletes it.
    Permanent,
}

impl Purpose {
    /// The names of their elements, and of the features after `urn:xmpp:http:upload:purpose:0#`.
    pub const NAMES: [&'static str; 4] = ["message", "profile", "ephemeral", "permanent"];
}

/// A checked slot request. XEP-0363 #request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRequest {
    /// The file's name.
    pub filename: FileName,
    /// The file's size; the upload must have just this many bytes. At least 1.
    pub size_bytes: u64,
    /// The media type, where the requester named one.
    pub content_type: Option<ContentType>,
    /// What the file is for.
    pub purpose: Purpose,
    /// Whether an upload session is asked for, too.
    pub session: Option<SessionWish>,
}

/// What a slot request says of the upload session it asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionWish {
    /// The digest that the file shall have.
    pub sha256: Option<Sha256>,
}

/// A slot as it goes to the requester. XEP-0363 #request.
#[derive(Clone, PartialEq, Eq)]
pub struct Slot {
    /// Where to send the file, percent-encoded.
    pub put_url: String,
    /// Where others fetch it, percent-encoded.
    pub get_url: String,
    /// Headers that the PUT must carry; names as in the XEP's short list.
    pub put_headers: Vec<(&'static str, String)>,
}

impl Slot {
    /// Where to send the file by a PUT that carries no headers of the slot's.
    pub fn put_url_alone(&self) -> String {
        let bearer = |(_, value): &(&str, String)| Some(value.strip_prefix("Bearer ")?.to_owned());
        match self.put_headers.iter().find_map(bearer) {
            Some(token) => [&self.put_url, "?t=", &token].concat(),
            None => self.put_url.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn name(text: &str) -> Option<String> {
        FileName::parse(text).ok().map(|name| name.0)
    }

    #[test]
    fn ids_stand_in_the_order_of_time_and_are_random() {
        let at = |millis| SlotId::new(Duration::from_millis(millis), u128::MAX).0;
        assert_eq!(at(0), u128::MAX >> 24);
        assert!(at(0) < at(8) && at(8) < at(1000) && at(1000) < at(36 * 3_600_000));
        assert_eq!(at(1000 << 17), at(0));
        let zero = SlotId::new(Duration::from_secs(1), 0);
        assert_eq!(zero.0, 128 << 104);
        let session = SessionId::new(Duration::from_secs(1), 1 << 24);
        assert_eq!(session.0, zero.0 + 1);
    }

    #[test]
    fn names_that_are_kept_as_they_are() {
        for text in [
            "a.bin",
            "-rf",
            ".htaccess",
            "CON",
            "trailing.",
            "très bon.jpg",
            "\u{301}",
        ] {
            assert_eq!(name(text).as_deref(), Some(text));
        }
    }

    #[test]
    fn names_that_are_refused() {
        for text in [
            "", " ", ".", "..", "a/b", "a\\b", "/", "a\nb", "a\u{85}b", "a\0",
        ] {
            assert_eq!(name(text), None, "{text:?}");
        }
    }

    #[test]
    fn names_that_are_mended() {
        assert_eq!(name("evil\u{202E}gpj.exe").as_deref(), Some("evilgpj.exe"));
        assert_eq!(name(" a ").as_deref(), Some("a"));
        let long = format!("{}.tar", "ü".repeat(400));
        let kept = name(&long).expect("a long name is shortened");
        assert!(kept.len() <= FILE_NAME_BYTES_MAX && kept.ends_with("ü.tar"));
        let no_extension = name(&format!("a.{}", "b".repeat(400))).expect("shortened");
        assert_eq!(no_extension.len(), FILE_NAME_BYTES_MAX);
    }

    proptest::proptest! {
        #[test]
        fn a_name_of_a_name_is_itself(text in ".{0,400}") {
            if let Ok(first) = FileName::parse(&text) {
                proptest::prop_assert!((1..=FILE_NAME_BYTES_MAX).contains(&first.0.len()));
                proptest::prop_assert_eq!(FileName::parse(first.as_str()), Ok(first.clone()));
                let url = first.to_url_segment();
                let plain = percent_encoding::percent_decode_str(&url).decode_utf8();
                let plain = plain.expect("encoded UTF-8 decodes");
                proptest::prop_assert_eq!(plain.as_ref(), first.as_str());
            }
        }

        #[test]
        fn a_slot_id_has_one_spelling(id: u128) {
            proptest::prop_assert_eq!(SlotId::parse(&SlotId(id).to_string()), Some(SlotId(id)));
        }
    }

    #[test]
    fn slot_ids_in_other_spellings_are_none() {
        let text = SlotId(7).to_string();
        for other in [
            format!("{text}="),
            text.replace('A', "+"),
            text[1..].to_owned(),
            String::new(),
            format!("{}x", &text[..21]),
        ] {
            assert_eq!(SlotId::parse(&other), None, "{other}");
        }
    }

    #[test]
    fn urls_hold_unreserved_characters_only() {
        let name = FileName::parse("Grüße & 100% (1) #x?.bin").expect("a valid name");
        assert_eq!(
            name.to_url_segment(),
            "Gr%C3%BC%C3%9Fe%20%26%20100%25%20%281%29%20%23x%3F.bin"
        );
    }

    #[test]
    fn content_types() {
        for (text, kept) in [
            ("video/mp4", Some("video/mp4")),
            ("Image/PNG", Some("image/png")),
            (
                "text/plain; charset=utf-8",
                Some("text/plain; charset=utf-8"),
            ),
            ("application/vnd.a+xml", Some("application/vnd.a+xml")),
            ("a", None),
            ("a/b/c", None),
            ("*/*", None),
            ("image/*", None),
            ("/", None),
            ("text/html\r\nX: y", None),
            ("text/html; a=\u{e9}", None),
        ] {
            let got = ContentType::parse(text).ok();
            assert_eq!(got.as_ref().map(ContentType::as_str), kept, "{text:?}");
        }
        assert!(ContentType::parse(&format!("a/{}", "b".repeat(300))).is_err());
        let plain = ContentType::parse("text/plain; charset=utf-8").expect("valid");
        assert_eq!(plain.essence(), "text/plain");
    }
}
