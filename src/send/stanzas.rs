//! The stanzas that are sent and read here, in `jabber:client` whatever the build's default is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minidom::Element;
use minidom::rxml::NcName;
use xmpp_parsers::ns;

use super::plan::State;
use crate::xmpp::client::shown;

/// The protocol of upload sessions.
pub const SESSIONS: &str = "urn:slotd:upload-session:0";
const SHA_256: &str = "sha-256";
/// Headers that a slot may ask for; others are dropped. XEP-0363 #request.
const PUT_HEADERS: [&str; 3] = ["authorization", "cookie", "expires"];

/// An attribute's name that is written in this program.
pub fn attr(name: &'static str) -> NcName {
    NcName::try_from(name).expect("the names in this program are XML names")
}

/// An element with a text.
pub fn text_in(name: &'static str, namespace: &'static str, text: &str) -> Element {
    Element::builder(name, namespace).append(text).build()
}

/// The text of a child, or nothing.
pub fn child_text(element: &Element, name: &str, namespace: &str) -> String {
    let child = element.get_child(name, namespace);
    child.map(Element::text).unwrap_or_default()
}

/// An IQ.
pub fn iq(kind: &'static str, to: Option<&str>, id: &str, payload: Element) -> Element {
    let iq = Element::builder("iq", ns::JABBER_CLIENT)
        .attr(attr("type"), kind)
        .attr(attr("id"), id)
        .attr(attr("to"), to);
    iq.append(payload).build()
}

/// An IQ's error, or another stanza's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// `wait`, `cancel`, ...
    pub kind: String,
    /// The defined condition.
    pub condition: String,
    /// The words of whoever refuses.
    pub text: String,
    /// The application's own condition.
    pub app: String,
    /// `max-file-size`, where that is what is wrong.
    pub size_bytes_max: Option<u64>,
    /// When to ask again, as XEP-0082 writes it.
    pub retry_at: Option<String>,
}

impl Refusal {
    /// Reads the error of a stanza.
    pub fn read(stanza: &Element) -> Self {
        let Some(error) = stanza.children().find(|child| child.name() == "error") else {
            return Self::default();
        };
        let mut refusal = Self {
            kind: error.attr("type").unwrap_or_default().to_owned(),
            text: shown(&child_text(error, "text", ns::XMPP_STANZAS)),
            ..Self::default()
        };
        for child in error.children() {
            match (child.name(), child.has_ns(ns::XMPP_STANZAS)) {
                ("text", true) => {}
                (name, true) => refusal.condition = shown(name),
                ("retry", false) => refusal.retry_at = stamp(child),
                (name, false) => {
                    refusal.app = shown(name);
                    let limit = child_text(child, "max-file-size", ns::HTTP_UPLOAD);
                    refusal.size_bytes_max = limit.trim().parse().ok();
                    let retry = child.get_child("retry", ns::HTTP_UPLOAD);
                    refusal.retry_at = retry.and_then(stamp).or(refusal.retry_at);
                }
            }
        }
        refusal
    }

    /// In words, for people.
    pub fn words(&self) -> String {
        let condition = match (self.app.as_str(), self.condition.as_str()) {
            ("", "") => "an error without a name",
            ("", condition) => condition,
            (app, _) => app,
        };
        match self.text.as_str() {
            "" => condition.to_owned(),
            text => format!("{text} ({condition})"),
        }
    }
}

fn stamp(retry: &Element) -> Option<String> {
    retry.attr("stamp").map(str::to_owned)
}

/// What a service is asked for.
pub struct Wanted<'a> {
    /// The file's name.
    pub filename: &'a str,
    /// Its size.
    pub size_bytes: u64,
    /// Its type.
    pub content_type: &'a str,
    /// Its digest.
    pub sha256: &'a [u8; 32],
}

/// `<request/>` of XEP-0363 #request, with the wish for a session where there can be one.
pub fn slot_request(wanted: &Wanted, with_session: bool) -> Element {
    let mut request = Element::builder("request", ns::HTTP_UPLOAD)
        .attr(attr("filename"), wanted.filename)
        .attr(attr("size"), wanted.size_bytes.to_string())
        .attr(attr("content-type"), wanted.content_type)
        .build();
    if with_session {
        let hash = Element::builder("hash", ns::HASHES)
            .attr(attr("algo"), SHA_256)
            .append(STANDARD.encode(wanted.sha256));
        let session = Element::builder("session", SESSIONS).append(hash);
        request.append_child(session.build());
    }
    request
}

/// A slot as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Where to PUT.
    pub put_url: String,
    /// With these headers.
    pub headers: Vec<(String, String)>,
    /// The file's link.
    pub get_url: String,
}

/// Reads `<slot/>`.
pub fn slot(slot: &Element) -> Option<Slot> {
    let put = slot.get_child("put", ns::HTTP_UPLOAD)?;
    let headers = put
        .children()
        .filter(|child| child.is("header", ns::HTTP_UPLOAD));
    let headers = headers.filter_map(|header| {
        let name = header.attr("name")?.trim();
        let is_known = PUT_HEADERS.contains(&name.to_ascii_lowercase().as_str());
        // XEP-0363 #request: line breaks are taken out.
        let value = header.text().replace(['\r', '\n'], "");
        is_known.then(|| (name.to_owned(), value))
    });
    Some(Slot {
        put_url: put.attr("url")?.to_owned(),
        headers: headers.collect(),
        get_url: slot
            .get_child("get", ns::HTTP_UPLOAD)?
            .attr("url")?
            .to_owned(),
    })
}

/// A session as the service tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its name, not a secret by itself: it counts for its owner alone.
    pub id: Option<String>,
    /// How it stands.
    pub state: State,
    /// How many bytes the service has.
    pub offset: u64,
    /// Where to append; a secret.
    pub resume_url: Option<String>,
    /// The digest of a complete file.
    pub sha256: Option<Vec<u8>>,
}

/// Reads `<session/>`.
pub fn session(session: &Element) -> Option<Session> {
    let state = match session.attr("state")? {
        "pending" | "uploading" => State::Open,
        "complete" => State::Complete,
        "failed" | "cancelled" | "expired" => State::Over,
        _ => return None,
    };
    let hashes = session
        .children()
        .filter(|child| child.is("hash", ns::HASHES));
    let mut sha256 = hashes.filter(|hash| hash.attr("algo") == Some(SHA_256));
    Some(Session {
        id: session.attr("id").map(str::to_owned),
        state,
        offset: session.attr("offset").and_then(|text| text.parse().ok())?,
        resume_url: session.attr("resume-url").map(str::to_owned),
        sha256: sha256
            .next()
            .and_then(|hash| STANDARD.decode(hash.text().trim()).ok()),
    })
}

/// `<session/>`, `<refresh/>` or `<cancel/>` for a session.
pub fn about_session(name: &'static str, id: &str) -> Element {
    Element::builder(name, SESSIONS)
        .attr(attr("id"), id)
        .build()
}

/// What disco#info says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// It gives out slots.
    pub has_slots: bool,
    /// It knows upload sessions.
    pub has_sessions: bool,
    /// The largest file it takes.
    pub size_bytes_max: Option<u64>,
    /// It is a room or a service of rooms.
    pub is_conference: bool,
}

/// Reads the result of disco#info: XEP-0030 #info.
pub fn info(query: &Element) -> Info {
    let has = |name: &str| {
        let features = query.children().filter(|child| child.name() == "feature");
        features
            .into_iter()
            .any(|feature| feature.attr("var") == Some(name))
    };
    let conference = |child: &Element| {
        child.name() == "identity" && child.attr("category") == Some("conference")
    };
    let forms = query
        .children()
        .filter(|child| child.is("x", ns::DATA_FORMS));
    let mut limits = forms.filter_map(|form| {
        let value = |name: &str| {
            let mut fields = form
                .children()
                .filter(|field| field.attr("var") == Some(name));
            let field = fields.next()?;
            Some(child_text(field, "value", ns::DATA_FORMS))
        };
        let is_ours = value("FORM_TYPE").as_deref() == Some(ns::HTTP_UPLOAD);
        let limit = value("max-file-size").filter(|_| is_ours)?;
        limit.trim().parse().ok()
    });
    Info {
        has_slots: has(ns::HTTP_UPLOAD),
        has_sessions: has(SESSIONS),
        size_bytes_max: limits.next(),
        is_conference: query.children().any(conference),
    }
}

/// A message that carries the link: XEP-0066, as every client shows it.
pub fn link_message(to: &str, kind: &'static str, id: &str, url: &str) -> Element {
    let data = Element::builder("x", ns::OOB).append(text_in("url", ns::OOB, url));
    Element::builder("message", ns::JABBER_CLIENT)
        .attr(attr("type"), kind)
        .attr(attr("to"), to)
        .attr(attr("id"), id)
        .append(text_in("body", ns::JABBER_CLIENT, url))
        .append(data)
        .build()
}

/// Presence that enters a room without its history, or leaves it: XEP-0045.
pub fn room_presence(occupant: &str, is_leaving: bool) -> Element {
    let presence = Element::builder("presence", ns::JABBER_CLIENT).attr(attr("to"), occupant);
    if is_leaving {
        return presence.attr(attr("type"), "unavailable").build();
    }
    let history = Element::builder("history", ns::MUC).attr(attr("maxstanzas"), "0");
    let wish = Element::builder("x", ns::MUC).append(history);
    presence.append(wish).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xml(text: &str) -> Element {
        text.parse().expect("well-formed")
    }

    #[test]
    fn a_slot_keeps_three_headers_and_no_line_breaks() {
        let read = slot(&xml(
            "<slot xmlns='urn:xmpp:http:upload:0'><put url='https://a/p'>\
             <header name='authorization'>Basic a\r\nb</header><header name='Host'>b</header>\
             </put><get url='https://a/g'/></slot>",
        ));
        let read = read.expect("a slot");
        let header = ("authorization".to_owned(), "Basic ab".to_owned());
        assert_eq!(read.headers, [header]);
        assert_eq!(
            (read.put_url.as_str(), read.get_url.as_str()),
            ("https://a/p", "https://a/g")
        );
        assert_eq!(slot(&xml("<slot xmlns='urn:xmpp:http:upload:0'/>")), None);
    }

    #[test]
    fn a_session_is_read() {
        let read = session(&xml(
            "<session xmlns='urn:slotd:upload-session:0' id='i' state='uploading' offset='7' \
             size='9' resume-url='https://a/r' new='?'/>",
        ));
        let read = read.expect("a session");
        assert_eq!((read.state, read.offset), (State::Open, 7));
        assert_eq!(read.resume_url.as_deref(), Some("https://a/r"));
        for wrong in ["state='odd' offset='1'", "state='complete'", "offset='1'"] {
            let element = xml(&format!("<session xmlns='{SESSIONS}' {wrong}/>"));
            assert_eq!(session(&element), None, "{wrong}");
        }
    }

    #[test]
    fn a_refusal_has_words() {
        let refusal = Refusal::read(&xml(
            "<iq xmlns='jabber:client' type='error'><error type='modify'>\
             <not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
             <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>Too large</text>\
             <file-too-large xmlns='urn:xmpp:http:upload:0'><max-file-size>5</max-file-size>\
             </file-too-large></error></iq>",
        ));
        assert_eq!(refusal.size_bytes_max, Some(5));
        assert_eq!(refusal.words(), "Too large (file-too-large)");
        assert_eq!(Refusal::default().words(), "an error without a name");
    }

    /// Beside the condition, or within the element that says what for.
    #[test]
    fn when_to_ask_again_is_read() {
        const LIMIT: &str = "sessions-limit-reached";
        let retry = "<retry xmlns='urn:xmpp:http:upload:0' stamp='2026-01-02T03:04:05Z'/>";
        let limit = format!("<{LIMIT} xmlns='{SESSIONS}' limit='2'>{retry}</{LIMIT}>");
        for (app, words) in [(retry, "resource-constraint"), (&limit, LIMIT)] {
            let refusal = Refusal::read(&xml(&format!(
                "<iq xmlns='jabber:client' type='error'><error type='wait'>\
                 <resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>{app}\
                 </error></iq>"
            )));
            assert_eq!(refusal.retry_at.as_deref(), Some("2026-01-02T03:04:05Z"));
            assert_eq!(refusal.words(), words);
        }
    }

    #[test]
    fn info_is_read() {
        let read = info(&xml(
            "<query xmlns='http://jabber.org/protocol/disco#info'>\
             <feature var='urn:xmpp:http:upload:0'/><x xmlns='jabber:x:data' type='result'>\
             <field var='FORM_TYPE'><value>urn:xmpp:http:upload:0</value></field>\
             <field var='max-file-size'><value>5000</value></field></x></query>",
        ));
        assert!(read.has_slots && !read.has_sessions && !read.is_conference);
        assert_eq!(read.size_bytes_max, Some(5000));
    }
}
