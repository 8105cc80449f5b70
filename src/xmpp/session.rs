//! Upload sessions on the wire: what `urn:slotd:upload-session:0` asks for and is answered.
//!
//! Times go out as seconds from now: phones have wrong clocks. What is unknown in a request is
//! ignored, but for the values of attributes that we read.

use std::time::Duration;

use minidom::Element;
use minidom::rxml::xml_ncname;
use xmpp_parsers::ns;

use super::elements;
use crate::core::refusal::Refusal;
use crate::core::session::owner::Standing;
use crate::core::slot::{SessionId, SessionWish, Sha256};
use crate::service::session::{Refreshed, SessionList, SessionView};

/// The namespace of upload sessions: ours.
pub const NS: &str = "urn:slotd:upload-session:0";
/// What is offered of it beyond the namespace itself, as its features are named.
pub const PARTS: [&str; 4] = ["list", "rufh", "tus", "digest"];
/// How an upload goes on over HTTP: drafts of resumable uploads by their interop version, and tus.
pub const PROTOCOLS: [&str; 5] = ["rufh-8", "rufh-6", "rufh-5", "rufh-3", "tus-1.0"];
/// The states that a list may be asked for.
const STATES: [&str; 6] = [
    "pending",
    "uploading",
    "complete",
    "failed",
    "cancelled",
    "expired",
];
/// The one algorithm of XEP-0300 that files are known by here.
const ALGORITHM: &str = "sha-256";

/// Reads what a slot request says of an upload session, if it asks for one.
///
/// Refuses `BadStanza` where it asks twice, or where the digest that the file shall have is given
/// twice or cannot be read. Digests of other algorithms are ignored.
pub fn wish(request: &Element) -> Result<Option<SessionWish>, Refusal> {
    let is_ours = |child: &&Element| child.is("session", NS);
    let Some(wish) = at_most_one(request.children().filter(is_ours))? else {
        return Ok(None);
    };
    let mut known = Vec::new();
    for hash in wish.children().filter(|child| child.is("hash", ns::HASHES)) {
        match hash.attr("algo") {
            Some(ALGORITHM) => known.push(hash),
            Some(_) => {}
            None => return Err(Refusal::BadStanza),
        }
    }
    let sha256 = match at_most_one(known.into_iter())? {
        None => None,
        Some(hash) => {
            let digest = Sha256::from_base64(hash.text().trim());
            Some(digest.ok_or(Refusal::BadStanza)?)
        }
    };
    Ok(Some(SessionWish { sha256 }))
}

fn at_most_one<'a>(
    mut elements: impl Iterator<Item = &'a Element>,
) -> Result<Option<&'a Element>, Refusal> {
    match (elements.next(), elements.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(Refusal::BadStanza),
    }
}

/// Reads which session a request is about; refuses `BadStanza`.
pub fn id(payload: &Element) -> Result<SessionId, Refusal> {
    let id = payload.attr("id").and_then(SessionId::parse);
    id.ok_or(Refusal::BadStanza)
}

/// Reads which state a list is asked for, if one; refuses `BadStanza`.
pub fn wanted(sessions: &Element) -> Result<Option<&'static str>, Refusal> {
    let Some(wanted) = sessions.attr("state") else {
        return Ok(None);
    };
    let known = STATES.into_iter().find(|state| *state == wanted);
    known.map(Some).ok_or(Refusal::BadStanza)
}

/// `<session/>`: how an upload session stands.
///
/// What can no longer be used is left out: of an upload that has ended its credentials and
/// refreshes, of one that has failed or is over where it would go on.
pub fn session(view: SessionView) -> Element {
    let SessionView {
        id,
        standing,
        is_active,
        offset,
        size_bytes,
        credential_left,
        expires_in,
        refreshes_left,
        resume_url,
    } = view;
    let is_open = matches!(standing, Standing::Pending | Standing::Uploading);
    let lives = Duration::ZERO < expires_in;
    let reason = match standing {
        Standing::Failed(reason) => Some(reason.as_str()),
        _ => None,
    };
    let hash = match standing {
        Standing::Complete { sha256 } => Some(hash(sha256)),
        _ => None,
    };
    let seconds = |span: Duration| span.as_secs();
    Element::builder("session", NS)
        .attr(xml_ncname!("id").to_owned(), id.to_string())
        .attr(xml_ncname!("state").to_owned(), standing.as_str())
        .attr(
            xml_ncname!("active").to_owned(),
            is_active.then_some("true"),
        )
        .attr(xml_ncname!("offset").to_owned(), offset)
        .attr(xml_ncname!("size").to_owned(), size_bytes)
        .attr(
            xml_ncname!("token-expires-in").to_owned(),
            is_open.then(|| seconds(credential_left)),
        )
        .attr(
            xml_ncname!("expires-in").to_owned(),
            lives.then(|| seconds(expires_in)),
        )
        .attr(
            xml_ncname!("refreshes-left").to_owned(),
            is_open.then_some(refreshes_left),
        )
        .attr(
            xml_ncname!("resume-url").to_owned(),
            resume_url.filter(|_| lives),
        )
        .attr(xml_ncname!("reason").to_owned(), reason)
        .append_all(hash)
        .build()
}

fn hash(sha256: Sha256) -> Element {
    Element::builder("hash", ns::HASHES)
        .attr(xml_ncname!("algo").to_owned(), ALGORITHM)
        .append(sha256.to_base64())
        .build()
}

/// `<sessions/>`: a list.
pub fn sessions(list: SessionList) -> Element {
    let complete = list.is_cut.then_some("false");
    Element::builder("sessions", NS)
        .attr(xml_ncname!("complete").to_owned(), complete)
        .append_all(list.sessions.into_iter().map(session))
        .build()
}

/// `<refresh/>`: where the upload goes on, and with what.
pub fn refreshed(refreshed: Refreshed) -> Element {
    Element::builder("refresh", NS)
        .append(session(refreshed.session))
        .append_all(refreshed.slot.map(elements::slot))
        .build()
}

/// An application element of ours beside an error's condition.
pub fn app(name: &str) -> Element {
    Element::bare(name, NS)
}

/// `<session-failed/>` with the reason.
pub fn failed(refusal: &Refusal) -> Option<Element> {
    let Refusal::SessionFailed { reason } = refusal else {
        return None;
    };
    let element = Element::builder("session-failed", NS);
    let reason = reason.as_str();
    Some(
        element
            .attr(xml_ncname!("reason").to_owned(), reason)
            .build(),
    )
}

/// The limit that was reached: of refreshes, or of open sessions, with the time to ask again.
///
/// That stands inside, since an error has room for one element of an application beside its
/// condition: RFC 6120 #8.3.2.
pub fn limit_reached(refusal: &Refusal) -> Option<Element> {
    let (name, limit) = match refusal {
        Refusal::RefreshLimitReached { limit } => ("refresh-limit-reached", u32::from(*limit)),
        Refusal::TooManySessions { limit, .. } => ("sessions-limit-reached", *limit),
        _ => return None,
    };
    let element = Element::builder(name, NS);
    let element = element.attr(xml_ncname!("limit").to_owned(), limit);
    Some(
        element
            .append_all(elements::retry(refusal, ns::HTTP_UPLOAD))
            .build(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::session::FailReason;

    const DIGEST: Sha256 = Sha256([7; 32]);

    fn xml(text: &str) -> Element {
        text.parse().expect("a row is well-formed")
    }

    #[track_caller]
    fn check_wish(children: &str, read: Result<Option<Option<Sha256>>, Refusal>) {
        let request = format!("<request xmlns='urn:xmpp:http:upload:0'>{children}</request>");
        let got = wish(&xml(&request)).map(|wish| wish.map(|wish| wish.sha256));
        assert_eq!(got, read, "{children}");
    }

    #[test]
    fn wishes() {
        let session = |children: &str| format!("<session xmlns='{NS}'>{children}</session>");
        let hash = |algo: &str, text: &str| {
            format!("<hash xmlns='urn:xmpp:hashes:2' algo='{algo}'>{text}</hash>")
        };
        let digest = DIGEST.to_base64();
        let bad = || Err(Refusal::BadStanza);
        check_wish("", Ok(None));
        check_wish("<session xmlns='urn:example'/>", Ok(None));
        check_wish(&format!("<other xmlns='{NS}'/>"), Ok(None));
        check_wish(&session(""), Ok(Some(None)));
        check_wish(&session("<x xmlns='urn:example'/>"), Ok(Some(None)));
        check_wish(&session(&hash("sha-256", &digest)), Ok(Some(Some(DIGEST))));
        let spaced = hash("sha-256", &format!("\n {digest}\n"));
        check_wish(&session(&spaced), Ok(Some(Some(DIGEST))));
        let others = hash("sha3-256", "?") + &hash("sha-256", &digest) + &hash("md5", "");
        check_wish(&session(&others), Ok(Some(Some(DIGEST))));
        check_wish(&session(&hash("sha-512", &digest)), Ok(Some(None)));
        check_wish(&(session("") + &session("")), bad());
        check_wish(&session(&hash("sha-256", &digest).repeat(2)), bad());
        check_wish(&session("<hash xmlns='urn:xmpp:hashes:2'/>"), bad());
        for text in [
            "",
            "?",
            &digest[1..],
            &digest[..42],
            "AAAA",
            &DIGEST.to_hex(),
        ] {
            check_wish(&session(&hash("sha-256", text)), bad());
        }
    }

    #[test]
    fn ids_and_states() {
        let of = |attribute: &str| xml(&format!("<session xmlns='{NS}' {attribute}/>"));
        let good = SessionId(7).to_string();
        assert_eq!(id(&of(&format!("id='{good}' a='b'"))), Ok(SessionId(7)));
        for bad in [
            "",
            "id=''",
            "id='7'",
            "id='../../etc/passwd'",
            &format!("id='{good}='"),
        ] {
            assert_eq!(id(&of(bad)), Err(Refusal::BadStanza), "{bad}");
        }
        assert_eq!(wanted(&of("")), Ok(None));
        for standing in [
            Standing::Pending,
            Standing::Uploading,
            Standing::Complete { sha256: DIGEST },
            Standing::Failed(FailReason::Policy),
            Standing::Cancelled,
            Standing::Expired,
        ] {
            let state = standing.as_str();
            assert_eq!(wanted(&of(&format!("state='{state}'"))), Ok(Some(state)));
        }
        for bad in ["", "Pending", "open", "pending complete"] {
            let asked = of(&format!("state='{bad}'"));
            assert_eq!(wanted(&asked), Err(Refusal::BadStanza), "{bad}");
        }
    }

    fn view(standing: Standing) -> SessionView {
        SessionView {
            id: SessionId(0),
            standing,
            is_active: false,
            offset: 5,
            size_bytes: 9,
            credential_left: Duration::from_millis(299_900),
            expires_in: Duration::from_secs(1000),
            refreshes_left: 10,
            resume_url: Some("https://up.example.org/r/x".to_owned()),
        }
    }

    #[track_caller]
    fn check_view(view: SessionView, attributes: &str, children: &str) {
        let expected = format!(
            "<session xmlns='{NS}' id='AAAAAAAAAAAAAAAAAAAAAA' offset='5' size='9' \
             {attributes}>{children}</session>"
        );
        assert_eq!(session(view), xml(&expected));
    }

    /// Each state tells what can still be done, and nothing else.
    #[test]
    fn views() {
        const URL: &str = "resume-url='https://up.example.org/r/x'";
        let open = format!("token-expires-in='299' expires-in='1000' refreshes-left='10' {URL}");
        check_view(
            view(Standing::Pending),
            &format!("state='pending' {open}"),
            "",
        );
        let active = SessionView {
            is_active: true,
            ..view(Standing::Uploading)
        };
        check_view(
            active,
            &format!("state='uploading' active='true' {open}"),
            "",
        );
        let complete = Standing::Complete { sha256: DIGEST };
        let digest = DIGEST.to_base64();
        let hash = format!("<hash xmlns='urn:xmpp:hashes:2' algo='sha-256'>{digest}</hash>");
        check_view(
            view(complete),
            &format!("state='complete' expires-in='1000' {URL}"),
            &hash,
        );
        let old = SessionView {
            expires_in: Duration::ZERO,
            ..view(complete)
        };
        check_view(old, "state='complete'", &hash);
        for (reason, written) in [
            (FailReason::DigestMismatch, "digest-mismatch"),
            (FailReason::SizeMismatch, "size-mismatch"),
            (FailReason::Policy, "policy"),
        ] {
            let failed = SessionView {
                resume_url: None,
                ..view(Standing::Failed(reason))
            };
            let attributes = format!("state='failed' expires-in='1000' reason='{written}'");
            check_view(failed, &attributes, "");
        }
    }

    #[test]
    fn lists_say_that_they_are_cut() {
        let list = |is_cut| SessionList {
            sessions: vec![view(Standing::Expired)],
            is_cut,
        };
        assert_eq!(sessions(list(false)).attr("complete"), None);
        let cut = sessions(list(true));
        assert_eq!(cut.attr("complete"), Some("false"));
        assert!(cut.has_child("session", NS));
        let empty = format!("<sessions xmlns='{NS}'/>");
        assert_eq!(sessions(SessionList::default()), xml(&empty));
    }
}
