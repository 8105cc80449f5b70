//! XML to core's types and back: slot requests, slots and errors.
//!
//! `xmpp_parsers::http_upload` wants a content type in every request and takes `+5` for a size, so
//! requests are read here. What is written holds checked values and fixed words only.

use jid::Jid;
use minidom::rxml::{NcName, xml_ncname};
use minidom::{Element, Node};
use xmpp_parsers::ns;
use xmpp_parsers::stanza_error::StanzaError;

use super::{commands, session};
use crate::core::refusal::{App, Refusal};
use crate::core::slot::{ContentType, FileName, Purpose, Slot, SlotRequest};
use crate::core::time::Timestamp;
use crate::service::Issued;

/// The namespace of purposes (XEP-0363 #purpose).
pub const PURPOSE: &str = "urn:xmpp:http:upload:purpose:0";
/// Largest payload that an error gives back, in bytes of XML.
const ECHOED_BYTES_MAX: usize = 1024;

/// Reads `<request xmlns='urn:xmpp:http:upload:0'/>`.
///
/// Refuses `BadFileName`, `BadSize`, `BadContentType`, `BadPurpose`, and what `session::wish` does;
/// children of other namespaces are ignored. A size beyond 64 bits is the largest number there is,
/// so that it is refused as too large whatever its length. XEP-0363 #request, #purpose.
pub fn slot_request(request: &Element) -> Result<SlotRequest, Refusal> {
    let attribute = |name| request.attr(name);
    let content_type = attribute("content-type");
    let plain = plain_request(attribute("filename"), attribute("size"), content_type)?;
    let mut purposes = request.children().filter(|child| child.has_ns(PURPOSE));
    let purpose = match (purposes.next(), purposes.next()) {
        (None, _) => Purpose::Message,
        (Some(one), None) => purpose(one)?,
        (Some(_), Some(_)) => return Err(Refusal::BadPurpose),
    };
    Ok(SlotRequest {
        purpose,
        session: session::wish(request)?,
        ..plain
    })
}

/// Reads a request without children from its attributes.
pub fn plain_request(
    filename: Option<&str>,
    size_bytes: Option<&str>,
    content_type: Option<&str>,
) -> Result<SlotRequest, Refusal> {
    let filename = FileName::parse(filename.ok_or(Refusal::BadFileName)?)?;
    let size_bytes = size(size_bytes.ok_or(Refusal::BadSize)?)?;
    // COMPAT(Converse.js, 2026): sends an empty type when the browser knows none.
    let content_type = match content_type.map(str::trim) {
        None | Some("") => None,
        Some(text) => Some(ContentType::parse(text)?),
    };
    Ok(SlotRequest {
        filename,
        size_bytes,
        content_type,
        purpose: Purpose::Message,
        session: None,
    })
}

/// Digits alone, at least 1.
fn size(text: &str) -> Result<u64, Refusal> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::BadSize);
    }
    match text.parse().unwrap_or(u64::MAX) {
        0 => Err(Refusal::BadSize),
        size_bytes => Ok(size_bytes),
    }
}

fn purpose(element: &Element) -> Result<Purpose, Refusal> {
    match element.name() {
        "message" => Ok(Purpose::Message),
        "profile" => Ok(Purpose::Profile),
        "permanent" => Ok(Purpose::Permanent),
        "ephemeral" => {
            let stamp = element.attr("expire-before").ok_or(Refusal::BadPurpose)?;
            let expire_before = Timestamp::from_xep0082(stamp).ok_or(Refusal::BadPurpose)?;
            Ok(Purpose::Ephemeral { expire_before })
        }
        _ => Err(Refusal::BadPurpose),
    }
}

/// `<slot/>` for a slot request; the upload session that was asked for stands last, where no client
/// looks that has not asked.
pub fn issued(issued: Issued) -> Element {
    let mut slot = slot(issued.slot);
    if let Some(view) = issued.session {
        slot.append_child(session::session(view));
    }
    slot
}

/// `<slot/>` as XEP-0363 #request has it.
pub fn slot(slot: Slot) -> Element {
    let header = |(name, value): (&'static str, String)| {
        let header = Element::builder("header", ns::HTTP_UPLOAD);
        header
            .attr(xml_ncname!("name").to_owned(), name)
            .append(value)
    };
    let url = || xml_ncname!("url").to_owned();
    let put = Element::builder("put", ns::HTTP_UPLOAD)
        .attr(url(), slot.put_url)
        .append_all(slot.put_headers.into_iter().map(header));
    let get = Element::builder("get", ns::HTTP_UPLOAD).attr(url(), slot.get_url);
    Element::builder("slot", ns::HTTP_UPLOAD)
        .append(put)
        .append(get)
        .build()
}

/// `<error/>` for a refusal, with the words that clients show; what is XEP-0363's in it is in the
/// `namespace` that was asked in.
pub fn error(refusal: &Refusal, namespace: &str) -> Element {
    let row = refusal.row();
    let app = match row.app {
        App::None => None,
        App::FileTooLarge => file_too_large(refusal, namespace),
        App::Retry => retry(refusal, namespace),
        App::Command(name) => Some(Element::bare(name, commands::NS)),
        App::Session(name) => Some(session::app(name)),
        App::SessionFailed => session::failed(refusal),
        App::RefreshLimit | App::SessionsLimit => session::limit_reached(refusal),
    };
    let mut error = StanzaError::new(row.kind, row.condition, "en", refusal.words());
    error.other = app;
    Element::from(error)
}

fn file_too_large(refusal: &Refusal, namespace: &str) -> Option<Element> {
    let Refusal::FileTooLarge { size_bytes_max } = refusal else {
        return None;
    };
    let limit = Element::builder("max-file-size", namespace)
        .append(size_bytes_max.to_string())
        .build();
    let element = Element::builder("file-too-large", namespace);
    Some(element.append(limit).build())
}

/// When to ask again, in XEP-0363's words.
pub(super) fn retry(refusal: &Refusal, namespace: &str) -> Option<Element> {
    let stamp = refusal.retry_at()?.to_xep0082();
    let element = Element::builder("retry", namespace);
    Some(element.attr(xml_ncname!("stamp").to_owned(), stamp).build())
}

/// The payload to give back beside an error: `None` where it is not small.
pub fn echo(payload: &Element) -> Option<Element> {
    let mut xml = Vec::new();
    payload.write_to(&mut xml).ok()?;
    (xml.len() <= ECHOED_BYTES_MAX).then(|| payload.clone())
}

/// The only element in a stanza, kept for an error to come; `None` where it is not small.
///
/// It is measured without being written: nearly every request is granted.
pub fn small_child(mut stanza: Element) -> Option<Element> {
    let mut children = stanza
        .take_nodes()
        .into_iter()
        .filter_map(Node::into_element);
    children
        .next()
        .filter(|child| bytes_min(child) <= ECHOED_BYTES_MAX)
}

/// The fewest bytes that an element takes as XML.
fn bytes_min(element: &Element) -> usize {
    let attribute = |((_, name), value): ((_, &NcName), &String)| name.len() + value.len() + 4;
    let attributes = element.attrs().iter().map(attribute).sum::<usize>();
    let node = |node: &Node| match node {
        Node::Element(child) => bytes_min(child),
        Node::Text(text) => text.len(),
    };
    element.name().len() + 3 + attributes + element.nodes().map(node).sum::<usize>()
}

/// The requester's JID as decisions need it; `None` where even its bare part is none.
///
/// A resource may hold characters that the JID library does not know yet, emoji for one: the
/// account is who asks, so its bare JID will do.
pub fn requester(from: &str) -> Option<Jid> {
    let bare = || Jid::new(from.split('/').next()?).ok();
    Jid::new(from).ok().or_else(bare)
}

/// The only child of a stanza; `None` where there are none or several, or text beside it.
pub fn only_child(stanza: &Element) -> Option<&Element> {
    let is_blank = |node: &Node| node.as_text().is_some_and(|text| text.trim().is_empty());
    let mut nodes = stanza.nodes().filter(|node| !is_blank(node));
    match (nodes.next(), nodes.next()) {
        (Some(node), None) => node.as_element(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn error(refusal: &Refusal) -> Element {
        super::error(refusal, ns::HTTP_UPLOAD)
    }
    use crate::core::session::FailReason;
    use crate::core::session::owner::Standing;
    use crate::core::slot::SessionId;
    use crate::service::session::SessionView;

    #[track_caller]
    fn request(attributes: &str, children: &str) -> Result<SlotRequest, Refusal> {
        let xml =
            format!("<request xmlns='urn:xmpp:http:upload:0' {attributes}>{children}</request>");
        slot_request(&xml.parse().expect("a row is well-formed"))
    }

    #[test]
    fn sizes() {
        let digits = "9".repeat(400);
        for (size, read) in [
            ("1", Ok(1)),
            ("007", Ok(7)),
            ("9223372036854775808", Ok(1 << 63)),
            ("18446744073709551616", Ok(u64::MAX)),
            (&digits, Ok(u64::MAX)),
            ("", Err(Refusal::BadSize)),
            ("0", Err(Refusal::BadSize)),
            ("000", Err(Refusal::BadSize)),
            ("-1", Err(Refusal::BadSize)),
            ("+5", Err(Refusal::BadSize)),
            (" 5", Err(Refusal::BadSize)),
            ("1.5", Err(Refusal::BadSize)),
            ("1e3", Err(Refusal::BadSize)),
            ("0x10", Err(Refusal::BadSize)),
            ("\u{665}", Err(Refusal::BadSize)),
        ] {
            let got = request(&format!("filename='a' size='{size}'"), "");
            assert_eq!(got.map(|request| request.size_bytes), read, "{size}");
        }
        assert_eq!(request("filename='a'", ""), Err(Refusal::BadSize));
    }

    #[test]
    fn names_and_types() {
        assert_eq!(request("size='1'", ""), Err(Refusal::BadFileName));
        assert_eq!(
            request("size='1' filename=''", ""),
            Err(Refusal::BadFileName)
        );
        assert_eq!(
            request("size='1' filename='a/b'", ""),
            Err(Refusal::BadFileName)
        );
        for (attribute, read) in [
            ("", Ok(None)),
            ("content-type=''", Ok(None)),
            ("content-type='image/png'", Ok(Some("image/png"))),
            ("content-type='a'", Err(Refusal::BadContentType)),
            (
                "content-type='a/b&#13;&#10;X: y'",
                Err(Refusal::BadContentType),
            ),
            ("content-type='*/*'", Err(Refusal::BadContentType)),
        ] {
            let got = request(&format!("filename='a' size='1' {attribute}"), "\n  ");
            let got = got.map(|request| request.content_type);
            let got = got
                .as_ref()
                .map(|kind| kind.as_ref().map(ContentType::as_str));
            assert_eq!(got, read.as_ref().copied(), "{attribute}");
        }
    }

    #[test]
    fn purposes() {
        let of = |children: &str| request("filename='a' size='1'", children).map(|r| r.purpose);
        let child = |name: &str| format!("<{name} xmlns='{PURPOSE}'/>");
        let ephemeral = |stamp: &str| child(&format!("ephemeral expire-before='{stamp}'"));
        assert_eq!(of(""), Ok(Purpose::Message));
        assert_eq!(of("<other xmlns='urn:example'/>"), Ok(Purpose::Message));
        assert_eq!(of(&child("message")), Ok(Purpose::Message));
        assert_eq!(of(&child("profile")), Ok(Purpose::Profile));
        assert_eq!(of(&child("permanent")), Ok(Purpose::Permanent));
        let expire_before = Timestamp(1_767_323_045);
        assert_eq!(
            of(&ephemeral("2026-01-02T03:04:05Z")),
            Ok(Purpose::Ephemeral { expire_before })
        );
        for bad in [
            child("ephemeral"),
            ephemeral("yesterday"),
            ephemeral("2026-01-02T03:04:05"),
            child("forever"),
            child("message") + &child("profile"),
            child("message") + &child("message"),
        ] {
            assert_eq!(of(&bad), Err(Refusal::BadPurpose), "{bad}");
        }
    }

    #[test]
    fn a_slot_is_written_as_the_xep_has_it() {
        let written = slot(Slot {
            put_url: "https://up.example.org/x/a%20b?t=1&u=2".to_owned(),
            get_url: "https://up.example.org/x/a%20b".to_owned(),
            put_headers: vec![("Authorization", "Bearer v1.a.b".to_owned())],
        });
        let expected = "<slot xmlns='urn:xmpp:http:upload:0'>\
            <put url='https://up.example.org/x/a%20b?t=1&amp;u=2'>\
            <header name='Authorization'>Bearer v1.a.b</header></put>\
            <get url='https://up.example.org/x/a%20b'/></slot>";
        assert_eq!(written, expected.parse().expect("well-formed"));
    }

    #[test]
    fn errors_say_what_and_when() {
        let too_large = error(&Refusal::FileTooLarge {
            size_bytes_max: 100,
        });
        let expected = "<error xmlns='jabber:component:accept' type='modify'>\
            <not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
            <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>\
            The file is too large</text>\
            <file-too-large xmlns='urn:xmpp:http:upload:0'>\
            <max-file-size>100</max-file-size></file-too-large></error>";
        assert_eq!(too_large, expected.parse().expect("well-formed"));
        let retry_at = Timestamp(1_767_323_045);
        let quota = error(&Refusal::QuotaReached { retry_at });
        let retry = quota.get_child("retry", ns::HTTP_UPLOAD).expect("a stamp");
        assert_eq!(retry.attr("stamp"), Some("2026-01-02T03:04:05Z"));
        assert_eq!(quota.attr("type"), Some("wait"));
    }

    /// The one element beside each condition, in `session::NS` but for `<retry/>`.
    #[test]
    fn errors_of_upload_sessions() {
        let retry_at = Timestamp(1_767_323_045);
        let limits = (
            Refusal::RefreshLimitReached { limit: 10 },
            Refusal::TooManySessions {
                limit: 20,
                retry_at,
            },
        );
        let reason = FailReason::DigestMismatch;
        let ours = "xmlns='urn:slotd:upload-session:0'";
        let retry = "<retry xmlns='urn:xmpp:http:upload:0' stamp='2026-01-02T03:04:05Z'/>";
        for (refusal, condition, apps) in [
            (
                Refusal::UnknownSession,
                "cancel item-not-found",
                format!("<unknown-session {ours}/>"),
            ),
            (
                Refusal::SessionExpired,
                "cancel item-not-found",
                format!("<session-expired {ours}/>"),
            ),
            (
                Refusal::SessionCancelled,
                "cancel item-not-found",
                format!("<session-cancelled {ours}/>"),
            ),
            (
                Refusal::SessionFailed { reason },
                "cancel not-acceptable",
                format!("<session-failed {ours} reason='digest-mismatch'/>"),
            ),
            (
                limits.0,
                "cancel not-allowed",
                format!("<refresh-limit-reached {ours} limit='10'/>"),
            ),
            (
                Refusal::SessionComplete,
                "cancel conflict",
                format!("<session-complete {ours}/>"),
            ),
            (
                Refusal::RefreshTooSoon { retry_at },
                "wait resource-constraint",
                retry.to_owned(),
            ),
            (
                limits.1,
                "wait resource-constraint",
                format!(
                    "<sessions-limit-reached {ours} limit='20'>{retry}</sessions-limit-reached>"
                ),
            ),
        ] {
            let (kind, condition) = condition.split_once(' ').expect("type and condition");
            let expected = format!(
                "<error xmlns='jabber:component:accept' type='{kind}'>\
                 <{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
                 <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>{}</text>\
                 {apps}</error>",
                refusal.row().text
            );
            assert_eq!(error(&refusal), expected.parse().expect("well-formed"));
            // Strict readers take one application element: RFC 6120 #8.3.2 has no more.
            StanzaError::try_from(error(&refusal)).expect("read again");
        }
    }

    /// Who asked for no upload session gets what XEP-0363 has, byte for byte.
    #[test]
    fn slots_of_the_two_kinds() {
        let plain = || Slot {
            put_url: "https://up.example.org/f/x/a?t=1".to_owned(),
            get_url: "https://up.example.org/f/x/a".to_owned(),
            put_headers: vec![("Authorization", "Bearer v1.a.b".to_owned())],
        };
        let written = |session| {
            let mut xml = Vec::new();
            let slot = plain();
            let element = issued(Issued { slot, session });
            element.write_to(&mut xml).expect("memory takes it");
            String::from_utf8(xml).expect("UTF-8")
        };
        const PLAIN: &str = "<slot xmlns='urn:xmpp:http:upload:0'>\
            <put url='https://up.example.org/f/x/a?t=1'>\
            <header name='Authorization'>Bearer v1.a.b</header></put>\
            <get url='https://up.example.org/f/x/a'/></slot>";
        assert_eq!(written(None), PLAIN);
        let announced = written(Some(SessionView {
            id: SessionId(0),
            standing: Standing::Pending,
            is_active: false,
            offset: 0,
            size_bytes: 9,
            credential_left: Duration::from_secs(300),
            expires_in: Duration::from_secs(259_200),
            refreshes_left: 10,
            resume_url: Some("https://up.example.org/r/x".to_owned()),
        }));
        let before = PLAIN.trim_end_matches("</slot>");
        let session = announced.strip_prefix(before).expect("the same before it");
        assert!(session.starts_with("<session xmlns="), "{session}");
        assert!(session.ends_with("/></slot>"), "{session}");
    }

    #[test]
    fn requesters_with_any_resource_are_known() {
        let bare = |from| requester(from).map(|jid| jid.to_bare().to_string());
        for (from, known) in [
            ("romeo@example.org/phone", Some("romeo@example.org")),
            (
                "romeo@example.org/\u{1f980}\u{1faf6}",
                Some("romeo@example.org"),
            ),
            ("romeo@example.org/a/b@c", Some("romeo@example.org")),
            ("romeo@example.org/", Some("romeo@example.org")),
            ("example.org", Some("example.org")),
            ("\u{1f980}@example.org/phone", None),
            ("@example.org", None),
            ("a@@example.org", None),
            ("", None),
        ] {
            assert_eq!(bare(from).as_deref(), known, "{from}");
        }
    }

    #[test]
    fn only_small_payloads_come_back() {
        let payload = |n: usize| {
            Element::builder("x", "urn:example")
                .append("a".repeat(n))
                .build()
        };
        assert!(echo(&payload(900)).is_some());
        assert!(echo(&payload(1024)).is_none());
    }
}
