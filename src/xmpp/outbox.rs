//! Answers on their way to the server: as the bytes that go out, so that what waits is counted in
//! what it takes up.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf as _;
use futures_util::future::BoxFuture;
use minidom::rxml::bytes::BytesMut;
use minidom::rxml::writer::{Encoder, Item, SimpleNamespaces, TrackNamespace as _};
use minidom::rxml::xml_ncname;
use minidom::{Element, Node};
use tokio::io::AsyncWrite;
use tracing::warn;
use xmpp_parsers::ns;

use super::elements;
use super::head::Head;
use super::limits::KEPT_BYTES_MAX;
use super::route::Reply;
use crate::core::refusal::Refusal;
use crate::core::slot::Slot;

/// Most bytes that wait for the server to take them; then nothing more is read or decided, so one
/// answer may come on top. A thousand slots, or fifty of the longest lists.
pub const OUTBOX_BYTES_MAX: usize = 1024 * 1024;

/// What cannot stand in XML.
type Unwritable = minidom::rxml::Error;

/// Answers not yet taken by the server, the oldest first.
pub struct Outbox {
    encoder: Encoder<SimpleNamespaces>,
    bytes: BytesMut,
}

impl Outbox {
    /// Nothing yet, for a stream whose header has been sent.
    pub fn new() -> Self {
        Self {
            encoder: encoder(),
            bytes: BytesMut::new(),
        }
    }

    /// Whether nothing more should be asked for.
    pub fn is_full(&self) -> bool {
        OUTBOX_BYTES_MAX <= self.bytes.len()
    }

    /// Adds an answer, or what is asked before it: then the answer is still to come.
    pub fn push_reply(&mut self, reply: Reply) -> Option<BoxFuture<'static, Reply>> {
        match reply {
            Reply::Ask(question, answer) => {
                self.push(&question);
                return Some(answer);
            }
            Reply::Element(answer) => self.push(&answer),
            Reply::Slot(head, slot) => {
                let n_before = self.bytes.len();
                if !write_slot(&mut self.bytes, &head, &slot) {
                    self.bytes.truncate(n_before);
                    // The encoder says what is wrong.
                    self.push(&head.result(Some(elements::slot(slot))));
                }
            }
        }
        None
    }

    /// Adds a stanza; one that cannot be written is replaced by an error.
    pub fn push(&mut self, answer: &Element) {
        let Err(error) = self.write(|out| out.element(answer)) else {
            return;
        };
        warn!(%error, "answer that cannot be written is replaced by an error");
        if let Some(plain) = plain_error(answer)
            && let Err(error) = self.write(|out| out.element(&plain))
        {
            warn!(%error, "nor can the error be written");
        }
    }

    /// Writes all of a stanza, or nothing.
    fn write(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<(), Unwritable>,
    ) -> Result<(), Unwritable> {
        let n_before = self.bytes.len();
        let written = write(self);
        if written.is_err() {
            self.bytes.truncate(n_before);
            // It stands inside what could not be written.
            self.encoder = encoder();
        }
        written
    }

    fn item(&mut self, item: Item<'_>) -> Result<(), Unwritable> {
        self.encoder.encode_into_bytes(item, &mut self.bytes)
    }

    fn element(&mut self, element: &Element) -> Result<(), Unwritable> {
        let name = element.name().try_into()?;
        self.item(Item::ElementHeadStart(element.ns().into(), name))?;
        for ((namespace, name), value) in element.attrs() {
            self.item(Item::Attribute(namespace.clone(), name, value))?;
        }
        self.item(Item::ElementHeadEnd)?;
        for node in element.nodes() {
            match node {
                Node::Element(child) => self.element(child)?,
                Node::Text(text) => self.item(Item::Text(text))?,
            }
        }
        self.item(Item::ElementFoot)
    }

    /// Gives the server what it takes. Ready when all is written and flushed; `has_taken` tells
    /// whether it took anything.
    pub fn poll_write(
        &mut self,
        socket: &mut (impl AsyncWrite + Unpin),
        has_taken: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() {
            let n = ready!(Pin::new(&mut *socket).poll_write(cx, &self.bytes))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *has_taken = true;
            self.bytes.advance(n);
        }
        if KEPT_BYTES_MAX < self.bytes.capacity() {
            self.bytes = BytesMut::new();
        }
        Pin::new(socket).poll_flush(cx)
    }
}

/// What `elements::slot` makes, in a result, without elements and encoder: most answers are slots.
/// `false` where something cannot stand in XML; then what was written is good for nothing.
fn write_slot(out: &mut BytesMut, head: &Head, slot: &Slot) -> bool {
    let is_sound = Cell::new(true);
    let write = |out: &mut BytesMut, before: &str, value: &str, is_attribute| {
        out.extend_from_slice(before.as_bytes());
        is_sound.set(escape(out, value, is_attribute) && is_sound.get());
    };
    match head.sender() {
        Some(sender) => {
            write(out, "<iq from='", sender, true);
            write(out, "' id='", &head.id, true);
        }
        None => write(out, "<iq id='", &head.id, true),
    }
    write(out, "' to='", &head.from, true);
    out.extend_from_slice(b"' type='result'><slot xmlns='");
    out.extend_from_slice(ns::HTTP_UPLOAD.as_bytes());
    write(out, "'><put url='", &slot.put_url, true);
    out.extend_from_slice(b"'>");
    for (name, value) in &slot.put_headers {
        write(out, "<header name='", name, true);
        write(out, "'>", value, false);
        out.extend_from_slice(b"</header>");
    }
    write(out, "</put><get url='", &slot.get_url, true);
    out.extend_from_slice(b"'></get></slot></iq>");
    is_sound.get()
}

/// Writes `text` as the encoder does; `false` where it cannot stand in XML.
fn escape(out: &mut BytesMut, text: &str, is_attribute: bool) -> bool {
    let mut rest = text.as_bytes();
    while let Some(n) = rest.iter().position(|byte| NEEDS_CARE[usize::from(*byte)]) {
        let (before, from) = rest.split_at(n);
        out.extend_from_slice(before);
        let written: &[u8] = match from[0] {
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            b'&' => b"&amp;",
            b'\r' => b"&#xd;",
            b'"' if is_attribute => b"&#34;",
            b'\'' if is_attribute => b"&#39;",
            b'\n' if is_attribute => b"&#xa;",
            b'\t' if is_attribute => b"&#x9;",
            b'"' | b'\'' | b'\n' | b'\t' => &from[..1],
            0xef if !matches!(from, [_, 0xbf, 0xbe | 0xbf, ..]) => &from[..1],
            _ => return false,
        };
        out.extend_from_slice(written);
        rest = &from[1..];
    }
    out.extend_from_slice(rest);
    true
}

/// Bytes that may not stand for themselves: 0xef begins U+FFFE and U+FFFF, among others.
static NEEDS_CARE: [bool; 256] = {
    let mut needs_care = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let is_special = matches!(byte as u8, b'"' | b'\'' | b'<' | b'>' | b'&' | 0xef);
        needs_care[byte] = byte < 0x20 || is_special;
        byte += 1;
    }
    needs_care
};

/// An encoder inside a stream whose header was sent by another. Its stanzas are written without a
/// namespace, so that they are of the stream's own, an account's as well.
fn encoder() -> Encoder<SimpleNamespaces> {
    let mut encoder = Encoder::new();
    let namespaces = encoder.ns_tracker_mut();
    namespaces.declare_fixed(Some(xml_ncname!("stream")), ns::STREAM.into());
    namespaces.declare_fixed(None, ns::COMPONENT.into());
    let header = Item::ElementHeadStart(ns::STREAM.into(), xml_ncname!("stream"));
    let mut unsent = BytesMut::new();
    for item in [header, Item::ElementHeadEnd] {
        let encoded = encoder.encode_into_bytes(item, &mut unsent);
        encoded.expect("a document may begin with an element");
    }
    encoder
}

/// The error that takes the place of an answer with unwritable content; its addresses came from
/// the parser and can be written.
fn plain_error(answer: &Element) -> Option<Element> {
    if answer.name() != "iq" {
        return None;
    }
    let attribute = |name| answer.attr(name);
    let plain = Element::builder("iq", ns::COMPONENT)
        .attr(xml_ncname!("type").to_owned(), "error")
        .attr(xml_ncname!("from").to_owned(), attribute("from"))
        .attr(xml_ncname!("to").to_owned(), attribute("to"))
        .attr(xml_ncname!("id").to_owned(), attribute("id"))
        .append(elements::error(&Refusal::Broken, ns::HTTP_UPLOAD));
    Some(plain.build())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::xmpp::speaker::Speaker;

    fn text(outbox: &Outbox) -> &str {
        std::str::from_utf8(&outbox.bytes).expect("UTF-8")
    }

    const HOST: &str = "upload.example.org";

    fn speakers() -> [Arc<Speaker>; 2] {
        let (host, relay) = (HOST.to_owned(), HOST.to_owned());
        let domain = "example.org".to_owned();
        [
            Arc::new(Speaker::Component { host }),
            Arc::new(Speaker::Account { domain, relay }),
        ]
    }

    fn head_of(speaker: &Arc<Speaker>, id: &str) -> Head {
        Head::new(speaker, id, "romeo@example.org/\u{1f980}'\"<&>", HOST)
    }

    fn head(id: &str) -> Head {
        head_of(&speakers()[0], id)
    }

    fn slot(put_headers: Vec<(&'static str, String)>) -> Slot {
        Slot {
            put_url: "https://up.example.org/f/x/a%20b.jpg?t=v1.x".to_owned(),
            get_url: "https://up.example.org/f/x/a%20b.jpg".to_owned(),
            put_headers,
        }
    }

    #[test]
    fn a_slot_is_written_as_its_elements_are() {
        let header = || vec![("Authorization", "Bearer <x>".to_owned())];
        for (headers, speaker) in [Vec::new, header].into_iter().zip(speakers()) {
            for id in ["1", "a'b\"\t<"] {
                let head = || head_of(&speaker, id);
                let (mut written, mut made) = (Outbox::new(), Outbox::new());
                written.push_reply(Reply::Slot(head(), slot(headers())));
                let payload = elements::slot(slot(headers()));
                made.push(&head().result(Some(payload)));
                assert_eq!(text(&written), text(&made));
                let again = format!("{0}{0}", text(&made));
                written.push_reply(Reply::Slot(head(), slot(headers())));
                assert_eq!(text(&written), again);
            }
        }
    }

    #[test]
    fn stanzas_stand_in_the_streams_namespaces() {
        let mut outbox = Outbox::new();
        outbox.push(&head("1").result(None));
        let from = "to='romeo@example.org/\u{1f980}&#39;&#34;&lt;&amp;&gt;'";
        let expected = format!("<iq from='upload.example.org' id='1' {from} type='result'></iq>");
        assert_eq!(text(&outbox), expected);
    }

    #[test]
    fn what_cannot_be_written_becomes_an_error_and_the_next_is_sound() {
        let mut outbox = Outbox::new();
        let payload = Element::builder("x", "urn:example").append("\u{0}").build();
        outbox.push(&head("1").result(Some(payload)));
        assert!(text(&outbox).contains("type='error'"), "{}", text(&outbox));
        assert!(!text(&outbox).contains("urn:example"));
        let n_before = text(&outbox).len();
        let mut sound = Outbox::new();
        for outbox in [&mut outbox, &mut sound] {
            outbox.push_reply(Reply::Slot(head("2"), slot(Vec::new())));
        }
        assert_eq!(&text(&outbox)[n_before..], text(&sound));
    }

    /// Anything, and now and then what the writer has to look at.
    fn strings() -> impl proptest::strategy::Strategy<Value = String> {
        use proptest::prelude::*;
        let special = "\0\t\n\r\u{1f}\"'<>&]\u{7f}\u{85}\u{ef}\u{fffd}\u{fffe}\u{ffff}\u{1fffe}";
        let special = proptest::sample::select(special.chars().collect::<Vec<_>>());
        let character = prop_oneof![6 => proptest::char::range('!', '~'), 1 => any::<char>(),
            1 => special];
        let characters = proptest::collection::vec(character, 0..24);
        characters.prop_map(|characters| characters.into_iter().collect())
    }

    proptest::proptest! {
        #[test]
        fn any_slot_is_written_as_its_elements_are(
            head in (strings(), strings(), strings()),
            urls in (strings(), strings()),
            headers in proptest::collection::vec(strings(), 0..3),
        ) {
            let head = || Head::new(&speakers()[0], &head.0, &head.1, &head.2);
            let slot = || Slot {
                put_url: urls.0.clone(),
                get_url: urls.1.clone(),
                put_headers: headers.iter().map(|value| ("Authorization", value.clone())).collect(),
            };
            let (mut written, mut made) = (Outbox::new(), Outbox::new());
            written.push_reply(Reply::Slot(head(), slot()));
            let element = head().result(Some(elements::slot(slot())));
            made.push(&element);
            proptest::prop_assert_eq!(text(&written), text(&made));
            let mut hand = BytesMut::new();
            let is_sound = write_slot(&mut hand, &head(), &slot());
            let can_be_written = Outbox::new().write(|out| out.element(&element)).is_ok();
            proptest::prop_assert_eq!(is_sound, can_be_written);
        }
    }
}
