//! What may reach the XML parser, byte by byte: any account of the server can send us XML.
//!
//! What reaches the parser is bounded: each stanza arrives whole, or, where it is too deep, too
//! wide or too long, as the bare tag it began with. An IQ without a payload is a bad request by
//! itself, so its sender is told so and the stream goes on; nothing of the rest was kept. XML that
//! RFC 6120 #11.1 forbids, tags that do not match and stanzas without end break the stream.
//!
//! It does not check characters, names and namespaces: that is the parser's work.

use std::collections::VecDeque;

use tracing::debug;
use xmpp_parsers::ns;

use super::at::{At, is_kept, is_name, is_space};
use super::limits::{
    ATTRIBUTES_MAX, Broken, DEPTH_MAX, ELEMENTS_MAX, KEPT_BYTES_MAX, SKIPPED_BYTES_MAX,
    STANZA_BYTES_MAX, TOKEN_BYTES_MAX,
};
use super::names::Names;
use super::plain::Plain;

/// Longest entity or character reference; `&#x10FFFF;` has 10 bytes.
const REFERENCE_BYTES_MAX: usize = 32;
const CDATA_START: &[u8] = b"<![CDATA[";

/// The filter's state: bytes in, bounded XML out, whatever the pieces they come in.
#[derive(Default)]
pub struct Filter {
    at: At,
    /// The first tag has begun: an XML declaration comes too late.
    has_begun: bool,
    /// The stream says that stanzas are those without a namespace of their own.
    has_stanzas: bool,
    /// Open elements: 1 is the stream.
    depth: usize,
    /// The stanza under way, as it came; empty once it is cut.
    stanza: Vec<u8>,
    /// The bare first tag of the stanza under way, not yet closed.
    head: Vec<u8>,
    cut: bool,
    stanza_bytes: u64,
    n_elements: usize,
    n_attributes: usize,
    /// Decoded length of the name or value under way.
    token_bytes: usize,
    /// Length of the reference under way in a value.
    reference_bytes: usize,
    name: Vec<u8>,
    /// Where the value under way begins in `head`, if it is kept there.
    kept_from: Option<usize>,
    names: Names,
}

impl Filter {
    /// Takes what came and appends what may pass to `out`; an error is the stream's end.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
        bytes.iter().try_for_each(|byte| self.step(*byte, out))
    }

    /// The same, but plain slot requests that came in one piece go to `plains`.
    pub fn push_plain(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        plains: &mut VecDeque<Plain>,
    ) -> Result<(), Broken> {
        let mut rest = bytes;
        while let [byte, after @ ..] = rest {
            let begins = *byte == b'<' && self.depth == 1 && self.at == At::Text;
            if begins
                && self.has_stanzas
                && let Some((plain, n_bytes)) = Plain::read(rest)
            {
                plains.push_back(plain);
                rest = &rest[n_bytes..];
                continue;
            }
            self.step(*byte, out)?;
            rest = after;
        }
        Ok(())
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), Broken> {
        if self.depth <= 1 && self.at == At::Text && byte != b'<' {
            // Between stanzas: white space, or something that the parser will not like.
            out.push(byte);
            return Ok(());
        }
        self.count(byte)?;
        match self.at {
            At::Text => {
                if byte == b'<' {
                    self.at = At::Open;
                }
            }
            At::Open => self.open(byte)?,
            At::StartName | At::Tag | At::AttributeName | At::Equals | At::Quote => {
                self.in_tag(byte, out)?;
            }
            At::Value(quote) => self.value(byte, quote)?,
            At::EmptyTag => match byte {
                b'>' => self.end_start_tag(true, out)?,
                _ => return Err(Broken::NotWellFormed),
            },
            At::EndName | At::EndTag => self.end_tag(byte, out)?,
            At::Bang(n) => match CDATA_START.get(n) {
                Some(expected) if *expected == byte && 1 < self.depth => {
                    let all = n + 1 == CDATA_START.len();
                    self.at = if all { At::Cdata(0) } else { At::Bang(n + 1) };
                }
                _ => return Err(Broken::Restricted),
            },
            At::Cdata(n) => {
                self.at = match (byte, n) {
                    (b']', 0) => At::Cdata(1),
                    (b']', _) => At::Cdata(2),
                    (b'>', 2) => At::Text,
                    _ => At::Cdata(0),
                }
            }
            At::Declaration(last) => {
                self.at = At::Declaration(byte);
                if (last, byte) == (b'?', b'>') {
                    self.pass(out);
                }
            }
        }
        Ok(())
    }

    /// Keeps the byte, while the stanza may still be read.
    fn count(&mut self, byte: u8) -> Result<(), Broken> {
        self.stanza_bytes += 1;
        if SKIPPED_BYTES_MAX < self.stanza_bytes {
            return Err(Broken::TooLong);
        }
        if !self.cut {
            self.stanza.push(byte);
            if STANZA_BYTES_MAX < self.stanza.len() {
                self.cut("length");
            }
        }
        Ok(())
    }

    fn cut(&mut self, why: &'static str) {
        if !self.cut {
            debug!(why, "stanza beyond our limits is skipped");
        }
        self.cut = true;
        self.stanza = Vec::new();
    }

    fn open(&mut self, byte: u8) -> Result<(), Broken> {
        self.name.clear();
        self.token_bytes = 0;
        match byte {
            b'/' => {
                self.names.start();
                self.at = At::EndName;
            }
            b'!' => self.at = At::Bang(2),
            b'?' if !self.has_begun => self.at = At::Declaration(0),
            b'?' => return Err(Broken::Restricted),
            _ if is_name(byte) => {
                self.at = At::StartName;
                self.n_attributes = 0;
                self.n_elements += 1;
                self.names.start();
                if DEPTH_MAX < self.depth {
                    self.cut("depth");
                }
                if ELEMENTS_MAX < self.n_elements {
                    self.cut("elements");
                }
                if self.is_head() {
                    self.head.clear();
                    self.head.push(b'<');
                }
                self.start_name(byte);
            }
            _ => return Err(Broken::NotWellFormed),
        }
        self.has_begun = true;
        Ok(())
    }

    /// Whether the tag under way is the first of its stanza.
    fn is_head(&self) -> bool {
        self.depth <= 1
    }

    fn start_name(&mut self, byte: u8) {
        self.names.push_byte(byte);
        if self.is_head() && self.token_bytes < TOKEN_BYTES_MAX {
            self.head.push(byte);
            self.name.push(byte);
        }
        self.token();
    }

    /// Counts a byte of a name or value.
    fn token(&mut self) {
        self.token_bytes += 1;
        if TOKEN_BYTES_MAX < self.token_bytes {
            self.cut("token");
        }
    }

    /// A byte of a start tag, outside values.
    fn in_tag(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), Broken> {
        let at_name = matches!(self.at, At::StartName);
        let before_value = matches!(self.at, At::AttributeName | At::Equals);
        match byte {
            b'\'' | b'"' if self.at == At::Quote => self.start_value(byte),
            b'=' if before_value => self.at = At::Quote,
            _ if is_space(byte) => {
                self.at = match self.at {
                    At::StartName | At::Tag => At::Tag,
                    At::AttributeName | At::Equals => At::Equals,
                    other => other,
                }
            }
            b'>' if matches!(self.at, At::StartName | At::Tag) => {
                self.end_start_tag(false, out)?;
            }
            b'/' if matches!(self.at, At::StartName | At::Tag) => self.at = At::EmptyTag,
            _ if !is_name(byte) => return Err(Broken::NotWellFormed),
            _ if at_name => self.start_name(byte),
            _ if self.at == At::Tag => {
                self.at = At::AttributeName;
                self.name.truncate(self.head_name_bytes());
                self.token_bytes = 0;
                self.n_attributes += 1;
                if ATTRIBUTES_MAX < self.n_attributes {
                    self.cut("attributes");
                }
                self.attribute_name(byte);
            }
            _ if self.at == At::AttributeName => self.attribute_name(byte),
            _ => return Err(Broken::NotWellFormed),
        }
        Ok(())
    }

    /// `name` holds the name of a head tag, a space, and the attribute's name.
    fn head_name_bytes(&self) -> usize {
        let space = self.name.iter().position(|byte| *byte == b' ');
        space.unwrap_or(self.name.len())
    }

    fn attribute_name(&mut self, byte: u8) {
        if self.is_head() && self.token_bytes < TOKEN_BYTES_MAX {
            if self.token_bytes == 0 {
                self.name.push(b' ');
            }
            self.name.push(byte);
        }
        self.token();
    }

    fn start_value(&mut self, quote: u8) {
        let too_long = TOKEN_BYTES_MAX < self.token_bytes;
        self.at = At::Value(quote);
        self.token_bytes = 0;
        self.reference_bytes = 0;
        self.kept_from = None;
        if self.is_head() && !too_long && is_kept(&self.name) {
            self.kept_from = Some(self.head.len());
            let attribute = &self.name[self.head_name_bytes()..];
            self.head.extend_from_slice(attribute);
            self.head.extend([b'=', quote]);
        }
    }

    fn value(&mut self, byte: u8, quote: u8) -> Result<(), Broken> {
        if self.kept_from.is_some() {
            self.head.push(byte);
        }
        if byte == quote {
            self.at = At::Tag;
            if let Some(from) = self.kept_from.take()
                && self.depth == 0
            {
                self.note_namespace(from, quote);
            }
            return Ok(());
        }
        match (byte, self.reference_bytes) {
            (b'<', _) => return Err(Broken::NotWellFormed),
            (b'&', _) => {
                self.reference_bytes = 1;
                self.token();
            }
            (_, 0) => self.token(),
            (b';', _) => self.reference_bytes = 0,
            // A character reference stands for up to 4 bytes, an entity for one.
            (b'#', 1) => {
                self.reference_bytes = 2;
                self.token_bytes += 2;
                self.token();
            }
            (_, REFERENCE_BYTES_MAX) => return Err(Broken::NotWellFormed),
            _ => self.reference_bytes += 1,
        }
        if TOKEN_BYTES_MAX < self.token_bytes
            && let Some(from) = self.kept_from.take()
        {
            self.head.truncate(from);
        }
        Ok(())
    }

    /// Takes an attribute of the stream's own tag, which stands in `head`.
    fn note_namespace(&mut self, from: usize, quote: u8) {
        let value = self.head[from..].strip_prefix(b" xmlns=");
        let value = value.and_then(|value| value.strip_prefix(&[quote]));
        let value = value.and_then(|value| value.strip_suffix(&[quote]));
        if let Some(value) = value {
            let known = [ns::COMPONENT, ns::JABBER_CLIENT];
            self.has_stanzas = known.iter().any(|namespace| value == namespace.as_bytes());
        }
    }

    fn end_start_tag(&mut self, is_empty: bool, out: &mut Vec<u8>) -> Result<(), Broken> {
        self.at = At::Text;
        match self.depth {
            0 if self.cut => return Err(Broken::TooLong),
            0 => self.pass(out),
            _ => {}
        }
        if !is_empty {
            if 0 < self.depth {
                self.names.open(self.depth);
            }
            self.depth += 1;
        } else if self.depth == 1 {
            self.pass(out);
        }
        Ok(())
    }

    fn end_tag(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), Broken> {
        match byte {
            b'>' if 0 < self.depth => {
                self.at = At::Text;
                self.depth -= 1;
                if 0 < self.depth && !self.names.close(self.depth) {
                    return Err(Broken::NotWellFormed);
                }
                if self.depth <= 1 {
                    self.pass(out);
                }
            }
            _ if is_space(byte) => self.at = At::EndTag,
            _ if is_name(byte) && self.at == At::EndName => {
                self.names.push_byte(byte);
                self.token();
            }
            _ => return Err(Broken::NotWellFormed),
        }
        Ok(())
    }

    /// Hands on what is complete: a stanza, its bare first tag, or a tag of the stream itself.
    fn pass(&mut self, out: &mut Vec<u8>) {
        self.at = At::Text;
        if self.cut {
            out.append(&mut self.head);
            out.extend_from_slice(b"/>");
        } else {
            out.extend_from_slice(&self.stanza);
        }
        self.stanza.clear();
        if KEPT_BYTES_MAX < self.stanza.capacity() {
            self.stanza = Vec::new();
        }
        self.cut = false;
        self.stanza_bytes = 0;
        self.n_elements = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "<?xml version='1.0'?><stream:stream id=\"1\" \
        xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'>";
    const FIRST: &str = "<iq type='get' id='i' from='a@b/\u{1f980}' to='c'";
    const CUT: &str = "<iq type='get' id='i' from='a@b/\u{1f980}' to='c'/>";
    const NEXT: &str = "\n<iq id='n'><x/></iq>";

    /// What passes, in pieces of `n` bytes, and how it ends.
    fn filter(xml: &[u8], n: usize) -> (String, Result<(), Broken>) {
        let mut filter = Filter::default();
        let mut out = Vec::new();
        let mut end = Ok(());
        for piece in xml.chunks(n) {
            end = filter.push(piece, &mut out);
            if end.is_err() {
                break;
            }
        }
        let held = filter.stanza.len() + filter.head.len() + filter.name.len();
        assert!(held <= STANZA_BYTES_MAX + 8 * TOKEN_BYTES_MAX, "{held}");
        (String::from_utf8_lossy(&out).into_owned(), end)
    }

    /// Between a header and another stanza, `stanza` passes as `passed`, whatever the pieces.
    #[track_caller]
    fn passes(stanza: &str, passed: &str) {
        let xml = format!("{HEADER}{stanza}{NEXT}");
        for n in [1, 2, 3, 7, 64, 4096, 16 * 1024, xml.len()] {
            let (out, end) = filter(xml.as_bytes(), n);
            assert_eq!(end, Ok(()), "pieces of {n}");
            assert_eq!(out, format!("{HEADER}{passed}{NEXT}"), "pieces of {n}");
        }
    }

    #[track_caller]
    fn breaks(stanza: &str, broken: Broken) {
        for n in [1, 5, 16 * 1024] {
            let (out, end) = filter(format!("{HEADER}{stanza}").as_bytes(), n);
            assert_eq!(end, Err(broken), "pieces of {n}");
            assert!(out.starts_with(HEADER), "{out}");
        }
    }

    #[test]
    fn what_is_bounded_passes_as_it_came() {
        for stanza in [
            "<iq/>",
            "<iq ></iq >",
            "<iq a = 'b'\tc=\"d'>\" ><x y='&amp;&#x1f980;'/>text &lt; \u{1f980} ></iq>",
            "<message><body><![CDATA[</body> ]] ]]] <!-- ]]></body></message>",
            "<c:iq xmlns:c='jabber:client'><c:x/></c:iq>",
            "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
            " \n ",
            "</stream:stream>",
        ] {
            if stanza.starts_with("</") {
                let (out, end) = filter(format!("{HEADER}{stanza}").as_bytes(), 1);
                assert_eq!((out, end), (format!("{HEADER}{stanza}"), Ok(())));
            } else {
                passes(stanza, stanza);
            }
        }
        let deepest = format!("{}{}", "<x>".repeat(DEPTH_MAX), "</x>".repeat(DEPTH_MAX));
        passes(&deepest, &deepest);
        let wide = format!(
            "<iq{}/>",
            (0..64).map(|n| format!(" a{n}=''")).collect::<String>()
        );
        passes(&wide, &wide);
        let long = format!("<iq a='{}'/>", "x".repeat(TOKEN_BYTES_MAX));
        passes(&long, &long);
        let references = format!("<iq a='{}'/>", "&amp;".repeat(TOKEN_BYTES_MAX));
        passes(&references, &references);
    }

    #[test]
    fn too_much_passes_as_its_bare_first_tag() {
        let too_deep = format!("{}{}", "<x>".repeat(100_000), "</x>".repeat(100_000));
        let attributes: String = (0..100_000).map(|n| format!(" a{n}=''")).collect();
        let namespaces: String = (0..100_000).map(|n| format!(" xmlns:a{n}='u'")).collect();
        let long = "x".repeat(TOKEN_BYTES_MAX + 1);
        for content in [
            ">".to_owned() + &too_deep + "</iq>",
            format!("><x{attributes}/></iq>"),
            format!("><x{namespaces}></x></iq>"),
            format!("{attributes}/>"),
            format!("{namespaces}></iq>"),
            format!("><x a='{long}'/></iq>"),
            format!("><{long}/></iq>"),
            format!("><x {long}=''/></iq>"),
            format!(" a='{long}' {long}=''/>"),
            format!("><x a='{}'/></iq>", "&#x1f980;".repeat(TOKEN_BYTES_MAX / 3)),
            format!(">{}</iq>", "<x/>".repeat(ELEMENTS_MAX)),
            format!(">{}</iq>", "text ".repeat(STANZA_BYTES_MAX / 4)),
            format!("><![CDATA[{}]]></iq>", "]] ".repeat(STANZA_BYTES_MAX / 2)),
        ] {
            passes(&format!("{FIRST}{content}"), CUT);
        }
    }

    #[test]
    fn what_an_answer_needs_is_kept_wherever_it_stands() {
        let attributes: String = (0..1000).map(|n| format!(" a{n}='>/'")).collect();
        passes(
            &format!("<c:iq{attributes} id=\"&apos;\" xmlns:c='jabber:client' xmlns:d='u'/>"),
            "<c:iq id=\"&apos;\" xmlns:c='jabber:client'/>",
        );
        let long = "x".repeat(TOKEN_BYTES_MAX + 1);
        passes(
            &format!("<iq to='b' id='{long}' from='a'/>"),
            "<iq to='b' from='a'/>",
        );
    }

    #[test]
    fn ten_mebibytes_are_skipped_and_twenty_are_not() {
        let text = |n: usize| format!("{FIRST}><x>{}</x></iq>", "a".repeat(n << 20));
        let xml = format!("{HEADER}{}{NEXT}", text(10));
        assert_eq!(
            filter(xml.as_bytes(), 16 * 1024).0,
            format!("{HEADER}{CUT}{NEXT}")
        );
        let (out, end) = filter(format!("{HEADER}{}", text(20)).as_bytes(), 16 * 1024);
        assert_eq!((out.as_str(), end), (HEADER, Err(Broken::TooLong)));
    }

    #[test]
    fn forbidden_xml_breaks_the_stream() {
        for xml in [
            "<!DOCTYPE x [<!ENTITY a 'aa'><!ENTITY b '&a;&a;'>]>",
            "<!-- comment -->",
            "<?xml-stylesheet href='x'?>",
            "<iq><!-- comment --></iq>",
            "<iq><?php ?></iq>",
            "<iq><!ENTITY a 'b'></iq>",
            "<![CDATA[between stanzas]]>",
        ] {
            breaks(xml, Broken::Restricted);
        }
        let lol = "<?xml version='1.0'?><!DOCTYPE lolz [<!ENTITY lol 'lol'>]><lolz>&lol;</lolz>";
        let end = filter(lol.as_bytes(), 1).1;
        assert_eq!(end, Err(Broken::Restricted));
    }

    #[test]
    fn tags_that_do_not_match_break_the_stream() {
        let deep = "<x>".repeat(DEPTH_MAX);
        for xml in [
            "<iq></message>".to_owned(),
            "<iq><x></iq>".to_owned(),
            "<iq><x></y></iq>".to_owned(),
            "<iq a=b/>".to_owned(),
            "<iq a/>".to_owned(),
            "<iq a='<'/>".to_owned(),
            "<iq a='&aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa;'/>".to_owned(),
            "<iq/ >".to_owned(),
            "< iq/>".to_owned(),
            "<iq></iq a='b'>".to_owned(),
            format!("<iq>{deep}<a><b></a></b>{}</iq>", "</x>".repeat(DEPTH_MAX)),
            format!("<iq>{deep}<a><b></b></x>{}", "</x>".repeat(DEPTH_MAX)),
        ] {
            breaks(&xml, Broken::NotWellFormed);
        }
        let (_, end) = filter(b"</x>", 1);
        assert_eq!(end, Err(Broken::NotWellFormed));
    }

    #[test]
    fn a_header_without_end_is_refused() {
        let attributes: String = (0..1000).map(|n| format!(" a{n}=''")).collect();
        let (out, end) = filter(format!("<stream{attributes}>").as_bytes(), 64);
        assert_eq!((out.as_str(), end), ("", Err(Broken::TooLong)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same(
            bytes in proptest::collection::vec(
                proptest::sample::select(b"<>/!?[]CDATA-='\" &;:abiq#x1\n\xf0".to_vec()), 0..200),
            n in 1_usize..20,
        ) {
            let xml = [HEADER.as_bytes(), &bytes].concat();
            proptest::prop_assert_eq!(filter(&xml, n), filter(&xml, xml.len()));
        }
    }
}
