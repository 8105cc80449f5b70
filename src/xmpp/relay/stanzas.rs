//! Stanzas of the relay's host: what core needs to know of them, and those that we write.
//!
//! Of a stanza that is passed on, the first tag's addresses and id change and nothing else. What it
//! holds is the parser's reading of it: other prefixes may be written for the same namespaces, and
//! CDATA as text.

use minidom::rxml::{Namespace, NcName, xml_ncname};
use minidom::{Element, Node};
use xmpp_parsers::ns;

use crate::core::refusal::Refusal;
use crate::core::relay::stanza::{Answer, Incoming, Kind, Presence, Stanza, What};
use crate::xmpp::head::is_address;
use crate::xmpp::limits::SKIPPED;
use crate::xmpp::{commands, elements};

/// About what an element takes up in memory, without its texts.
const ELEMENT_BYTES: usize = 200;

/// Reads a stanza; `None` where it has no addresses to answer to, is an IQ without id, or none.
pub fn read(stanza: Element) -> Option<Incoming<Element>> {
    let text = |name| stanza.attr(name).unwrap_or_default().to_owned();
    let [from, to, id] = ["from", "to", "id"].map(text);
    if !is_address(&from) || !is_address(&to) {
        return None;
    }
    let kind = stanza.attr("type").unwrap_or_default();
    let what = match stanza.name() {
        "iq" if id.is_empty() => return None,
        "iq" => iq(&stanza, kind),
        "message" if kind == "error" => What::MessageError,
        "message" => What::Message,
        "presence" => What::Presence(read_presence(kind)),
        _ => return None,
    };
    Some(Incoming {
        what,
        from,
        to,
        id,
        n_bytes: n_bytes(&stanza),
        stanza,
    })
}

fn iq(stanza: &Element, kind: &str) -> What {
    let is_skipped = stanza.attr(SKIPPED).is_some();
    let asked = match kind {
        "result" | "error" if is_skipped => return What::Reply(Answer::TooLong),
        "result" => return What::Reply(Answer::Said),
        "error" => return What::Reply(failure(stanza)),
        "get" => Kind::Get,
        "set" => Kind::Set,
        _ => return What::MalformedIq,
    };
    match elements::only_child(stanza) {
        Some(_) => What::Ask(asked),
        None => What::MalformedIq,
    }
}

/// What kind of error this is, by its condition.
fn failure(stanza: &Element) -> Answer {
    let mut children = stanza.children();
    let error = children.find(|child| child.name() == "error");
    let is_condition = |child: &&Element| child.has_ns(ns::XMPP_STANZAS) && child.name() != "text";
    let condition = error.and_then(|error| error.children().find(is_condition));
    let says = |name| error.is_some_and(|error| error.has_child(name, commands::NS));
    match condition.map_or("", Element::name) {
        "item-not-found" => Answer::Unknown,
        "bad-request" if says("bad-sessionid") => Answer::Unknown,
        "service-unavailable" => Answer::Unavailable,
        "recipient-unavailable" | "remote-server-not-found" | "remote-server-timeout" => {
            Answer::Unreachable
        }
        _ => Answer::Said,
    }
}

fn read_presence(kind: &str) -> Presence {
    match kind {
        "" => Presence::Available,
        "unavailable" => Presence::Unavailable,
        "subscribe" => Presence::Subscribe,
        "subscribed" => Presence::Subscribed,
        "unsubscribed" => Presence::Unsubscribed,
        "probe" => Presence::Probe,
        "error" => Presence::Error,
        _ => Presence::Other,
    }
}

fn n_bytes(element: &Element) -> usize {
    let attribute = |((_, name), value): ((_, &NcName), &String)| name.len() + value.len();
    let attributes = element.attrs().iter().map(attribute).sum::<usize>();
    let node = |node: &Node| match node {
        Node::Element(child) => n_bytes(child),
        Node::Text(text) => text.len(),
    };
    ELEMENT_BYTES + attributes + element.nodes().map(node).sum::<usize>()
}

/// Puts other addresses and another id into a stanza that has them all.
pub fn address(stanza: &mut Element, from: &str, to: &str, id: &str) {
    let values = [
        (xml_ncname!("from"), from),
        (xml_ncname!("to"), to),
        (xml_ncname!("id"), id),
    ];
    for (name, value) in values {
        stanza.set_attr(Namespace::NONE, name.to_owned(), value);
    }
}

/// The error that answers a stanza.
pub fn error(stanza: Stanza, (from, to, id): (&str, &str, &str), refusal: &Refusal) -> Element {
    let name = match stanza {
        Stanza::Iq => "iq",
        Stanza::Message => "message",
        Stanza::Presence => "presence",
    };
    Element::builder(name, ns::COMPONENT)
        .attr(xml_ncname!("type").to_owned(), "error")
        .attr(xml_ncname!("from").to_owned(), from)
        .attr(xml_ncname!("to").to_owned(), to)
        .attr(
            xml_ncname!("id").to_owned(),
            Some(id).filter(|id| !id.is_empty()),
        )
        .append(elements::error(refusal, ns::HTTP_UPLOAD))
        .build()
}

/// A presence of ours; `None` for one that we never send.
pub fn presence(presence: Presence, from: &str, to: &str) -> Option<Element> {
    let kind = match presence {
        Presence::Available => None,
        Presence::Subscribe => Some("subscribe"),
        Presence::Subscribed => Some("subscribed"),
        Presence::Probe => Some("probe"),
        _ => return None,
    };
    let element = Element::builder("presence", ns::COMPONENT)
        .attr(xml_ncname!("type").to_owned(), kind)
        .attr(xml_ncname!("from").to_owned(), from)
        .attr(xml_ncname!("to").to_owned(), to);
    Some(element.build())
}
