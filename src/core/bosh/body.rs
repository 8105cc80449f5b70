//! The bodies of requests and answers: `<body/>` of XEP-0124, and what XEP-0206 puts into it.
//!
//! A writer of XML makes them, so that nothing in a name or a language is taken for markup.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jid::FullJid;
use minidom::Element;
use minidom::rxml::{Namespace, NcName};
use xmpp_parsers::ns;
use zeroize::Zeroizing;

use super::failure::Failure;
use super::{Rid, Wish};

/// Our question for a resource.
pub(super) const BIND_ID: &str = "warm-bind";
/// Our question for a session.
pub(super) const SESSION_ID: &str = "warm-session";

const BOSH: &str = "http://jabber.org/protocol/httpbind";
const XBOSH: &str = "urn:xmpp:xbosh";
const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";

/// No answer is larger: a server's features are some 2 KiB.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// No answer has more of them: what is nested deeply takes the stack of whoever drops it.
const TAGS_MAX: usize = 2000;
/// No session's name is longer.
const SID_BYTES_MAX: usize = 1024;

/// The content of a request; it may hold a password: `Debug` does not show it, and its memory is
/// wiped.
#[derive(Clone)]
pub struct Body {
    xml: Zeroizing<Vec<u8>>,
    rid: Rid,
}

impl Body {
    /// The number of the request.
    pub fn rid(&self) -> Rid {
        self.rid
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.xml
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body(...)")
    }
}

/// Asks for a session.
pub(super) fn create(wish: &Wish, rid: Rid) -> Body {
    let terms = &wish.terms;
    let mut body = bare(rid);
    set(&mut body, "to", wish.jid.domain().as_str());
    set(&mut body, "wait", &terms.wait_s.to_string());
    set(&mut body, "hold", &terms.hold.to_string());
    set(&mut body, "ver", &terms.ver);
    set(&mut body, "content", "text/xml; charset=utf-8");
    body.set_attr(Namespace::xml().clone(), name("lang"), terms.lang.as_str());
    body.set_attr(Namespace::from(XBOSH), name("version"), "1.0");
    written(&body, rid)
}

/// Asks for, or says, something in a session; with no content it asks for what is there.
pub(super) fn with(sid: &str, rid: Rid, content: &[Element]) -> Body {
    let mut body = bare(rid);
    set(&mut body, "sid", sid);
    for element in content {
        body.append_child(element.clone());
    }
    written(&body, rid)
}

/// Begins the stream anew, after SASL. XEP-0206 #preconditions-sasl.
pub(super) fn restart(sid: &str, rid: Rid, wish: &Wish) -> Body {
    let mut body = bare(rid);
    set(&mut body, "sid", sid);
    set(&mut body, "to", wish.jid.domain().as_str());
    let lang = wish.terms.lang.as_str();
    body.set_attr(Namespace::xml().clone(), name("lang"), lang);
    body.set_attr(Namespace::from(XBOSH), name("restart"), "true");
    written(&body, rid)
}

/// Ends a session. XEP-0124 #terminate.
pub(super) fn terminate(sid: &str, rid: Rid) -> Body {
    let mut body = bare(rid);
    set(&mut body, "sid", sid);
    set(&mut body, "type", "terminate");
    written(&body, rid)
}

pub(super) fn auth(mechanism: &str, initial: &[u8]) -> Element {
    let mut auth = sasl("auth", initial);
    set(&mut auth, "mechanism", mechanism);
    auth
}

pub(super) fn response(data: &[u8]) -> Element {
    sasl("response", data)
}

/// Asks for a resource: RFC 6120 #7.
pub(super) fn bind(resource: Option<&str>) -> Element {
    let mut bind = Element::bare("bind", ns::BIND);
    if let Some(resource) = resource {
        let resource = Element::builder("resource", ns::BIND).append(resource);
        bind.append_child(resource.build());
    }
    question(BIND_ID, bind)
}

/// Asks for RFC 3921's session.
pub(super) fn session() -> Element {
    question(SESSION_ID, Element::bare("session", SESSION))
}

/// The mechanisms that features offer.
pub(super) fn mechanisms(features: &Element) -> Vec<String> {
    let mechanisms = features.get_child("mechanisms", ns::SASL);
    let names = mechanisms.map(|all| all.children().map(Element::text).collect());
    names.unwrap_or_default()
}

pub(super) fn offers_bind(features: &Element) -> bool {
    features.has_child("bind", ns::BIND)
}

/// Whether features want a session: those that say `<optional/>` do without.
pub(super) fn requires_session(features: &Element) -> bool {
    let session = features.get_child("session", SESSION);
    session.is_some_and(|session| session.children().all(|it| it.name() != "optional"))
}

/// The address that a server gave.
pub(super) fn bound_jid(iq: &Element) -> Option<FullJid> {
    let bind = iq.get_child("bind", ns::BIND)?;
    FullJid::new(bind.get_child("jid", ns::BIND)?.text().trim()).ok()
}

/// What a SASL element says.
pub(super) fn data(element: &Element) -> Result<Vec<u8>, Failure> {
    match element.text().trim() {
        "" | "=" => Ok(Vec::new()),
        text => STANDARD.decode(text).map_err(|_| Failure::Garbled),
    }
}

/// An answer of a connection manager.
pub(super) struct Answer(Element);

impl Answer {
    /// Reads an answer; refuses what is no `<body/>`, or too large or too nested to be one.
    pub(super) fn read(xml: &[u8]) -> Result<Self, Failure> {
        let n_tags = xml.iter().filter(|byte| **byte == b'<').count();
        if ANSWER_BYTES_MAX < xml.len() || TAGS_MAX < n_tags {
            return Err(Failure::Garbled);
        }
        let element = Element::from_reader(xml).map_err(|_| Failure::Garbled)?;
        match element.is("body", BOSH) {
            true => Ok(Self(element)),
            false => Err(Failure::Garbled),
        }
    }

    /// Why the session is ended, if it is.
    pub(super) fn terminated(&self) -> Option<Failure> {
        let is_end = self.0.attr("type") == Some("terminate");
        let condition = self.0.attr("condition").unwrap_or_default();
        is_end.then(|| Failure::of_condition(condition))
    }

    /// Whether something went wrong that a repetition mends. XEP-0124 #errorstatus.
    pub(super) fn is_recoverable(&self) -> bool {
        self.0.attr("type") == Some("error")
    }

    pub(super) fn sid(&self) -> Option<&str> {
        let is_one = |sid: &&str| !sid.is_empty() && sid.len() <= SID_BYTES_MAX;
        self.0.attr("sid").filter(is_one)
    }

    /// A number that the manager says of the session.
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        self.0.attr(name)?.parse().ok()
    }

    pub(super) fn features(&self) -> Option<&Element> {
        self.0.get_child("features", ns::STREAM)
    }

    /// The first word about SASL.
    pub(super) fn sasl(&self) -> Option<&Element> {
        self.0.children().find(|child| child.has_ns(ns::SASL))
    }

    /// The answer to our question. Some managers leave it without a namespace of its own.
    pub(super) fn iq(&self, id: &str) -> Option<&Element> {
        let is_answer = |child: &&Element| {
            let has_ns = child.has_ns(ns::JABBER_CLIENT) || child.has_ns(BOSH);
            has_ns && child.name() == "iq" && child.attr("id") == Some(id)
        };
        self.0.children().find(is_answer)
    }
}

fn bare(rid: Rid) -> Element {
    let body = Element::builder("body", BOSH).prefix(Some("xmpp".to_owned()), XBOSH);
    // The only prefix there is.
    let body = body.expect("one prefix, once");
    body.attr(name("rid"), rid.number().to_string()).build()
}

fn sasl(name: &'static str, data: &[u8]) -> Element {
    let mut element = Element::bare(name, ns::SASL);
    if !data.is_empty() {
        element.append_text(STANDARD.encode(data));
    }
    element
}

fn question(id: &str, payload: Element) -> Element {
    Element::builder("iq", ns::JABBER_CLIENT)
        .attr(name("type"), "set")
        .attr(name("id"), id)
        .append(payload)
        .build()
}

fn set(element: &mut Element, attribute: &'static str, value: &str) {
    element.set_attr(Namespace::NONE, name(attribute), value);
}

fn name(name: &'static str) -> NcName {
    NcName::try_from(name).expect("the names in this program are XML names")
}

fn written(body: &Element, rid: Rid) -> Body {
    // Room for all of it: what outgrows its memory leaves a copy behind.
    let mut xml = Zeroizing::new(Vec::with_capacity(8 * 1024));
    let written = body.write_to(&mut *xml);
    written.expect("what is checked has no characters that XML lacks");
    Body { xml, rid }
}
