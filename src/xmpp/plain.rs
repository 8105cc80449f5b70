//! Slot requests as nearly all clients write them, read from their bytes alone.
//!
//! The parser and its elements cost more than all that is decided about a slot. What is read here
//! is a small part of XML, whose meaning needs no parser: one tag in another, known attributes,
//! values without references. Whatever deviates is left to the parser, and a plain request that
//! shall be refused is made into elements: what is said about it has one place.

use minidom::Element;
use xmpp_parsers::ns;

use super::elements;
use super::limits::TOKEN_BYTES_MAX;
use crate::core::refusal::Refusal;
use crate::core::slot::SlotRequest;

/// What the first tag may say, each once: its kind, who, to whom, and what changes nothing.
const IQ: [&[u8]; 6] = [b"type", b"id", b"from", b"to", b"xml:lang", b"xmlns"];
/// What the request may say, each once.
const REQUEST: [&[u8]; 4] = [b"xmlns", b"filename", b"size", b"content-type"];

/// A value's place in the stanza.
type Span = (usize, usize);

/// An IQ that asks for a slot and for nothing else.
#[derive(Debug)]
pub struct Plain {
    text: String,
    id: Span,
    from: Span,
    to: Span,
    filename: Option<Span>,
    size: Option<Span>,
    content_type: Option<Span>,
}

impl Plain {
    /// Reads the stanza at the beginning of `bytes`, and how many bytes it has; `None` where it is
    /// not plain or not whole. The stream's default namespace must be that of stanzas.
    pub fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut reader = Reader { bytes, at: 0 };
        reader.take(b"<iq")?;
        let [kind, id, from, to, _lang, namespace] = reader.tag(IQ)?;
        let is = |span: Span, text: &str| bytes[span.0..span.1] == *text.as_bytes();
        let is_stanza = |span| is(span, ns::COMPONENT) || is(span, ns::JABBER_CLIENT);
        if !is(kind?, "get") || !namespace.is_none_or(is_stanza) {
            return None;
        }
        reader.take(b"><request")?;
        let [namespace, filename, size, content_type] = reader.tag(REQUEST)?;
        if !is(namespace?, ns::HTTP_UPLOAD) {
            return None;
        }
        if reader.take(b"/>").is_none() {
            reader.take(b"></request>")?;
        }
        reader.take(b"</iq>")?;
        let text = str::from_utf8(&bytes[..reader.at]).ok()?;
        let has_strange = !text.is_ascii() && text.contains(['\u{fffe}', '\u{ffff}']);
        let plain = Self {
            text: (!has_strange).then(|| text.to_owned())?,
            id: id?,
            from: from?,
            to: to?,
            filename,
            size,
            content_type,
        };
        Some((plain, reader.at))
    }

    fn value(&self, span: Span) -> &str {
        &self.text[span.0..span.1]
    }

    /// The stanza's id.
    pub fn id(&self) -> &str {
        self.value(self.id)
    }

    /// Who asks.
    pub fn from(&self) -> &str {
        self.value(self.from)
    }

    /// Whom.
    pub fn to(&self) -> &str {
        self.value(self.to)
    }

    /// What is asked for; refuses as `elements::slot_request` does.
    pub fn request(&self) -> Result<SlotRequest, Refusal> {
        let value = |span: Option<Span>| span.map(|span| self.value(span));
        let (filename, size) = (value(self.filename), value(self.size));
        elements::plain_request(filename, size, value(self.content_type))
    }

    /// The stanza as the parser reads it.
    pub fn element(&self) -> Option<Element> {
        let namespace = Some(ns::COMPONENT.to_owned());
        Element::from_reader_with_prefixes(self.text.as_bytes(), namespace).ok()
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn take(&mut self, word: &[u8]) -> Option<()> {
        let is_next = self.rest().starts_with(word);
        is_next.then(|| self.at += word.len())
    }

    /// The values of a tag's attributes, up to its `>` or `/`.
    fn tag<const N: usize>(&mut self, names: [&[u8]; N]) -> Option<[Option<Span>; N]> {
        let mut values = [None; N];
        loop {
            let n_spaces = self.rest().iter().take_while(|byte| **byte == b' ').count();
            self.at += n_spaces;
            match self.rest().first()? {
                b'>' | b'/' => return Some(values),
                _ if n_spaces == 0 => return None,
                _ => {}
            }
            let is_next = |name: &&[u8]| {
                let after = self.rest().strip_prefix(*name);
                after.is_some_and(|after| after.first() == Some(&b'='))
            };
            let place = names.iter().position(is_next)?;
            self.at += names[place].len() + 1;
            let value = self.value()?;
            if values[place].replace(value).is_some() {
                return None;
            }
        }
    }

    fn value(&mut self) -> Option<Span> {
        let quote = *self.rest().first()?;
        if quote != b'\'' && quote != b'"' {
            return None;
        }
        let from = self.at + 1;
        let value = self.bytes.get(from..)?;
        let n = value
            .iter()
            .position(|byte| !IS_PLAIN[usize::from(*byte)])?;
        if value[n] != quote || TOKEN_BYTES_MAX < n {
            return None;
        }
        self.at = from + n + 1;
        Some((from, from + n))
    }
}

/// Bytes that stand for themselves in any value: no quote, no markup, no white space but blanks.
static IS_PLAIN: [bool; 256] = {
    let mut is_plain = [false; 256];
    let mut byte = 0x20;
    while byte < 256 {
        is_plain[byte] = !matches!(byte as u8, b'\'' | b'"' | b'<' | b'>' | b'&' | 0x7f);
        byte += 1;
    }
    is_plain
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STANZA: &str = "<iq type='get' id='1' to='up.example.org' from='a@b/c'>\
        <request xmlns='urn:xmpp:http:upload:0' filename='a.jpg' size='9'/></iq>";

    /// What the parser makes of a stanza, where it is nothing but a slot request.
    fn parsed(text: &str) -> Option<(Vec<String>, Result<SlotRequest, Refusal>, Element)> {
        let namespace = Some(ns::COMPONENT.to_owned());
        let stanza = Element::from_reader_with_prefixes(text.as_bytes(), namespace).ok()?;
        let is_iq = stanza.is("iq", ns::COMPONENT) || stanza.is("iq", ns::JABBER_CLIENT);
        let request = elements::only_child(&stanza)?;
        if !is_iq || stanza.attr("type") != Some("get") || !request.is("request", ns::HTTP_UPLOAD) {
            return None;
        }
        let head = ["id", "from", "to"].map(|name| stanza.attr(name).map(str::to_owned));
        let head = head.into_iter().collect::<Option<Vec<_>>>()?;
        let read = elements::slot_request(request);
        Some((head, read, stanza.clone()))
    }

    /// Whatever is read here the parser reads as the same; whether it is read.
    #[track_caller]
    fn reads(text: &str) -> bool {
        for cut in (0..text.len()).step_by(7) {
            let piece = &text.as_bytes()[..cut];
            if let Some((_, n_bytes)) = Plain::read(piece) {
                assert!(n_bytes <= cut);
            }
        }
        let Some((plain, n_bytes)) = Plain::read(text.as_bytes()) else {
            return false;
        };
        let parsed = parsed(&text[..n_bytes]);
        let (head, read, stanza) = parsed.unwrap_or_else(|| panic!("the parser refuses {text}"));
        assert_eq!(head, [plain.id(), plain.from(), plain.to()], "{text}");
        assert_eq!(plain.request(), read, "{text}");
        assert_eq!(plain.element(), Some(stanza), "{text}");
        true
    }

    #[test]
    fn what_clients_write_is_plain() {
        for stanza in [
            STANZA,
            &STANZA.replace('\'', "\""),
            &STANZA.replace("<iq", "<iq xmlns='jabber:client' xml:lang='de'"),
            &STANZA.replace("<iq", "<iq xmlns=\"jabber:component:accept\""),
            &STANZA.replace("/>", " content-type='image/png' />"),
            &STANZA.replace("/>", "></request>"),
            &STANZA.replace("a.jpg", "\u{1f980} b.jpg"),
            &STANZA.replace(" size='9'", ""),
            &format!("{STANZA}<iq"),
        ] {
            assert!(reads(stanza), "{stanza}");
        }
    }

    #[test]
    fn the_rest_is_for_the_parser() {
        for (from, to) in [
            ("'get'", "'set'"),
            (" id='1'", ""),
            ("<iq", "<iq xmlns='urn:example'"),
            ("<iq", "<iq a='b'"),
            ("<iq", "<iq id='2'"),
            ("type", "\ntype"),
            (" id", "id"),
            ("a.jpg", "a&amp;b"),
            ("a.jpg", "a\tb"),
            ("a.jpg", "a<b"),
            ("a.jpg", "a\"b"),
            ("a.jpg", "a\u{ffff}"),
            ("a.jpg", "a\u{0}"),
            ("upload:0", "upload:1"),
            ("xmlns='urn:xmpp:http:upload:0'", ""),
            ("<request", "\n<request"),
            ("/>", "><purpose/></request>"),
            ("/>", "/>a"),
            ("</iq>", "</iq >"),
            ("</iq>", ""),
        ] {
            let stanza = STANZA.replacen(from, to, 1);
            assert_ne!(stanza, STANZA);
            assert!(!reads(&stanza), "{stanza}");
        }
        let longest = "x".repeat(TOKEN_BYTES_MAX);
        assert!(reads(&STANZA.replace("a.jpg", &longest)));
        assert!(!reads(&STANZA.replace("a.jpg", &format!("{longest}x"))));
    }

    #[test]
    fn who_asks_is_an_address_where_it_is_a_jid() {
        for from in ["a@b/c", "b", "b/c", "a@b", "a@b/\u{e4}", "a@[::1]/c"] {
            assert!(jid::Jid::new(from).is_err() || super::super::head::is_address(from));
        }
    }

    /// A value, mostly one that makes a request plain.
    fn value(usual: &'static [&'static str]) -> impl Strategy<Value = String> {
        let odd =
            "a&amp;b|&#x1f980;|&lt;|<|\u{0}|\u{ffff}|\t|\n| |''|\u{85}|a>b|]]>|\u{7f}|\"|&x;|";
        let odd = proptest::sample::select(odd.split('|').collect::<Vec<_>>());
        prop_oneof![
            20 => proptest::sample::select(usual).prop_map(str::to_owned),
            1 => odd.prop_map(str::to_owned),
            1 => proptest::collection::vec(any::<char>(), 0..4)
                .prop_map(|characters| characters.into_iter().collect()),
        ]
    }

    fn attributes(
        usual: &'static [(&'static str, &'static [&'static str])],
    ) -> impl Strategy<Value = String> {
        let mut all: BoxedStrategy<Vec<String>> = Just(Vec::new()).boxed();
        for (name, values) in usual {
            let times = prop_oneof![1 => Just(0_usize), 30 => Just(1), 1 => Just(2)];
            let space =
                prop_oneof![20 => Just(" "), 1 => Just("  "), 1 => Just("\n"), 1 => Just("")];
            let equals = prop_oneof![40 => Just("="), 1 => Just(" = "), 1 => Just("")];
            let quote = proptest::sample::select(vec!['\'', '"']);
            let one = (value(values), times, space, equals, quote);
            let one = one.prop_map(move |(value, times, space, equals, quote)| {
                format!("{space}{name}{equals}{quote}{value}{quote}").repeat(times)
            });
            all = (all, one)
                .prop_map(|(mut all, one)| {
                    all.push(one);
                    all
                })
                .boxed();
        }
        all.prop_shuffle().prop_map(|all| all.concat())
    }

    fn stanza() -> impl Strategy<Value = String> {
        let iq = attributes(&[
            ("type", &["get", "get", "get", "set", ""]),
            ("id", &["1", "abc", ""]),
            ("from", &["a@b/c", "b", "a@b/\u{1f980}", "@"]),
            ("to", &["up.example.org", "UP.example.org", "a@b"]),
            ("xml:lang", &["en", ""]),
        ]);
        let request = attributes(&[
            ("xmlns", &["urn:xmpp:http:upload:0"]),
            (
                "filename",
                &["a.jpg", "\u{e4} \u{1f980}.png", "..", "a/b", " a "],
            ),
            ("size", &["1", "0", "-1", "007", "99999999999999999999999"]),
            ("content-type", &["image/png", "", " ", "a", "a/b; c=d"]),
        ]);
        let more = |usual: &'static str, odd: &'static [&'static str]| {
            let odd = proptest::sample::select(odd);
            prop_oneof![20 => Just(usual), 1 => odd]
        };
        let in_iq = more(
            "",
            &[
                " xmlns='jabber:client'",
                " xmlns='urn:example'",
                " a='b'",
                " xmlns:x='urn:example' x:id='2'",
                "/",
            ],
        );
        let before = more("", &["\n", " ", "a", "<a/>", "<![CDATA[]]>"]);
        let name = more("request", &["x:request", "Request", "request2"]);
        let ends = more(
            "/></iq>",
            &[
                "></request></iq>",
                "> </request></iq>",
                "/>\n</iq>",
                "/>a</iq>",
                "><profile xmlns='urn:xmpp:http:upload:purpose:0'/></request></iq>",
                "><session xmlns='urn:slotd:upload-session:0'/></request></iq>",
                " /></iq>",
                "/></iq >",
                "/><a/></iq>",
                "/></message>",
                "/>",
            ],
        );
        (iq, in_iq, before, name, request, ends).prop_map(
            |(iq, in_iq, before, name, request, ends)| {
                format!("<iq{iq}{in_iq}>{before}<{name}{request}{ends}")
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn the_parser_reads_the_same(text in stanza()) {
            reads(&text);
        }
    }
}
