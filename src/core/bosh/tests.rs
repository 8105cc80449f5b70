//! Logins turn by turn, against a server that is played here.

use minidom::rxml::Namespace;
use xmpp_parsers::ns;
use zeroize::Zeroizing;

use super::*;

mod faults;
mod proof;

const SID: &str = "s1d";
const FEATURES: &str = "<stream:features xmlns:stream='http://etherx.jabber.org/streams'>";

fn wish(jid: &str) -> Wish {
    Wish {
        jid: Jid::new(jid).expect("a JID"),
        password: Password::new(Zeroizing::new("pencil".to_owned())).expect("a password"),
        terms: Terms::default(),
    }
}

/// An answer of a connection manager.
fn answer(attributes: &str, content: &str) -> String {
    format!("<body xmlns='http://jabber.org/protocol/httpbind' {attributes}>{content}</body>")
}

fn features(content: &str) -> String {
    format!("{FEATURES}{content}</stream:features>")
}

fn mechanisms(names: &[&str]) -> String {
    let name = |name: &&str| format!("<mechanism>{name}</mechanism>");
    let all: String = names.iter().map(name).collect();
    features(&format!(
        "<mechanisms xmlns='{}'>{all}</mechanisms>",
        ns::SASL
    ))
}

fn sasl(name: &str, data: &str) -> String {
    use base64::Engine as _;
    let data = base64::engine::general_purpose::STANDARD.encode(data);
    format!("<{name} xmlns='{}'>{data}</{name}>", ns::SASL)
}

fn iq(id: &str, kind: &str, content: &str) -> String {
    format!("<iq xmlns='jabber:client' id='{id}' type='{kind}'>{content}</iq>")
}

fn bound(jid: &str) -> String {
    let bind = format!("<bind xmlns='{}'><jid>{jid}</jid></bind>", ns::BIND);
    iq("warm-bind", "result", &bind)
}

fn bind_feature() -> String {
    features(&format!("<bind xmlns='{}'/>", ns::BIND))
}

fn created(content: &str) -> String {
    answer(
        &format!("sid='{SID}' wait='60' hold='1' inactivity='30'"),
        content,
    )
}

/// A login under way, with what it sent.
struct Talk {
    login: Login,
    sent: Vec<Element>,
    pauses: Vec<Duration>,
}

impl Talk {
    fn begin(wish: Wish, aim: Aim) -> Self {
        let nonce = "rOprNGfwEbeRWgbNEkqO".to_owned();
        let (login, body) = Login::begin(wish, aim, Rid(1000), nonce);
        let mut talk = Self {
            login,
            sent: Vec::new(),
            pauses: Vec::new(),
        };
        talk.note(&body);
        talk
    }

    fn session(jid: &str) -> Self {
        Self::begin(wish(jid), Aim::Session)
    }

    fn note(&mut self, body: &Body) {
        let body = Element::from_reader(body.as_ref()).expect("XML");
        let rid = (1000 + self.sent.len()).to_string();
        assert_eq!(
            body.attr("rid"),
            Some(rid.as_str()),
            "the numbers are in a row"
        );
        let sid = (!self.sent.is_empty()).then_some(SID);
        assert_eq!(body.attr("sid"), sid);
        self.sent.push(body);
    }

    /// What follows this answer, for who expects to send something.
    #[track_caller]
    fn goes_on(&mut self, answer: &str) -> &Element {
        match self.login.answer(answer.as_bytes()) {
            Step::Send(body, pause) => {
                self.note(&body);
                self.pauses.push(pause);
            }
            other => panic!("{other:?} after {answer}"),
        }
        self.sent.last().expect("sent")
    }

    #[track_caller]
    fn fails(&mut self, answer: &str, expected: Failure) {
        match self.login.answer(answer.as_bytes()) {
            Step::Failed(failure) => assert_eq!(failure, expected, "{answer}"),
            other => panic!("{other:?} after {answer}"),
        }
    }

    #[track_caller]
    fn is_bound(&mut self, answer: &str) -> Binding {
        match self.login.answer(answer.as_bytes()) {
            Step::Bound(binding) => binding,
            other => panic!("{other:?} after {answer}"),
        }
    }

    /// The end, after all that was sent.
    fn end(&mut self) -> Option<Body> {
        self.login.end(Some(Rid(999 + self.sent.len() as u64)))
    }

    /// Up to the point where a resource is asked for.
    fn with_plain(jid: &str) -> Self {
        let mut talk = Self::session(jid);
        talk.goes_on(&created(&mechanisms(&["PLAIN"])));
        talk.goes_on(&answer("", &sasl("success", "")));
        talk
    }
}

fn text(element: &Element, name: &str) -> String {
    let child = element.children().find(|child| child.name() == name);
    child.map(Element::text).unwrap_or_default()
}

#[test]
fn a_login_with_plain_from_creation_to_session() {
    let mut talk = Talk::session("romeo@example.org/garden");
    let create = &talk.sent[0];
    for (name, value) in [
        ("to", "example.org"),
        ("wait", "60"),
        ("hold", "1"),
        ("ver", "1.6"),
        ("content", "text/xml; charset=utf-8"),
    ] {
        assert_eq!(create.attr(name), Some(value));
    }
    let xml = Namespace::xml();
    assert_eq!(create.attr_ns(xml, "lang"), Some("en"));
    assert_eq!(create.attr_ns("urn:xmpp:xbosh", "version"), Some("1.0"));

    let auth = talk.goes_on(&created(&mechanisms(&["X-OAUTH2", "PLAIN"])));
    let auth = auth.get_child("auth", ns::SASL).expect("<auth/>");
    assert_eq!(auth.attr("mechanism"), Some("PLAIN"));
    // An empty authorization identity, the name, the password.
    assert_eq!(auth.text(), "AHJvbWVvAHBlbmNpbA==");

    let restart = talk.goes_on(&answer("", &sasl("success", "")));
    assert_eq!(restart.attr_ns("urn:xmpp:xbosh", "restart"), Some("true"));
    assert_eq!(restart.attr("to"), Some("example.org"));
    assert_eq!(restart.nodes().count(), 0);

    let bind = talk.goes_on(&answer("", &bind_feature()));
    let bind = bind.get_child("iq", ns::JABBER_CLIENT).expect("<iq/>");
    assert_eq!(
        (bind.attr("type"), bind.attr("id")),
        (Some("set"), Some("warm-bind"))
    );
    let bind = bind.get_child("bind", ns::BIND).expect("<bind/>");
    assert_eq!(text(bind, "resource"), "garden");

    let binding = talk.is_bound(&answer("", &bound("romeo@example.org/other")));
    assert_eq!(binding.jid.as_str(), "romeo@example.org/other");
    assert_eq!((binding.sid.as_str(), binding.rid), (SID, Rid(1004)));
    assert_eq!(binding.inactivity_s, Some(30));
    let end = talk.end().expect("a session");
    talk.note(&end);
    assert_eq!(talk.sent[4].attr("type"), Some("terminate"));
    assert!(talk.end().is_none());
}

#[test]
fn who_only_asks_about_a_password_gets_no_further() {
    let mut talk = Talk::begin(wish("admin@example.org"), Aim::Proof);
    talk.goes_on(&created(&mechanisms(&["PLAIN"])));
    let step = talk
        .login
        .answer(answer("", &sasl("success", "")).as_bytes());
    assert!(matches!(step, Step::Proven), "{step:?}");
    assert!(talk.end().is_some());
}

#[test]
fn the_end_takes_the_number_of_what_was_never_sent() {
    let mut talk = Talk::with_plain("romeo@example.org");
    let unsent = talk.sent.pop().expect("made");
    let end = talk.end().expect("a session");
    assert_eq!(end.rid(), Rid(1002));
    let end = Element::from_reader(end.as_ref()).expect("XML");
    assert_eq!(end.attr("rid"), unsent.attr("rid"));
    let mut talk = Talk::session("romeo@example.org");
    assert!(talk.login.end(None).is_none(), "there is no session");
}

#[test]
fn what_is_not_there_yet_is_asked_for() {
    let mut talk = Talk::session("romeo@example.org");
    for turn in [
        created(""),
        answer("", ""),
        answer("", &mechanisms(&["PLAIN"])),
        answer("", ""),
        answer("", &sasl("success", "")),
        answer("", "<message xmlns='jabber:client'/>"),
        answer("", &bind_feature()),
        answer("", &iq("other", "result", "")),
    ] {
        talk.goes_on(&turn);
    }
    let n_empty = talk
        .sent
        .iter()
        .filter(|body| body.nodes().count() == 0)
        .count();
    // With creation and restart.
    assert_eq!(n_empty, 2 + 5);
    assert_eq!(talk.pauses, [Duration::ZERO; 8]);
    talk.is_bound(&answer("", &bound("romeo@example.org/x")));
}

#[test]
fn a_manager_that_keeps_no_requests_is_not_asked_too_often() {
    for (attributes, pause_s) in [
        ("wait='60' hold='0' polling='2'", 2),
        ("wait='0' hold='1' polling='3'", 3),
        ("wait='0' hold='1' polling='4000000000'", 5),
        ("wait='0' hold='1'", 0),
        ("wait='60' hold='1' polling='2'", 0),
        ("polling='2'", 0),
        ("wait='x' hold='-1' polling='2'", 0),
    ] {
        let mut talk = Talk::session("romeo@example.org");
        talk.goes_on(&answer(&format!("sid='{SID}' {attributes}"), ""));
        assert_eq!(talk.pauses, [Duration::from_secs(pause_s)], "{attributes}");
        // What says something need not wait.
        talk.goes_on(&answer("", &mechanisms(&["PLAIN"])));
        assert_eq!(talk.pauses[1], Duration::ZERO);
    }
}

#[test]
fn a_session_is_asked_for_only_where_it_must_be() {
    let session = "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'>";
    let bind = format!("<bind xmlns='{}'/>", ns::BIND);
    for (optional, is_required) in [("<optional/>", false), ("", true)] {
        let mut talk = Talk::with_plain("romeo@example.org");
        let offered = features(&format!("{bind}{session}{optional}</session>"));
        talk.goes_on(&answer("", &offered));
        let bound = answer("", &bound("romeo@example.org/x"));
        if is_required {
            let iq = talk.goes_on(&bound).get_child("iq", ns::JABBER_CLIENT);
            assert_eq!(iq.and_then(|iq| iq.attr("id")), Some("warm-session"));
            let result = answer("", &iq_result("warm-session"));
            assert_eq!(talk.is_bound(&result).rid, Rid(1005));
        } else {
            assert_eq!(talk.is_bound(&bound).rid, Rid(1004));
        }
    }
}

fn iq_result(id: &str) -> String {
    iq(id, "result", "")
}

#[test]
fn numbers_leave_room_for_whoever_goes_on() {
    assert_eq!(Rid::first(0).number(), 1);
    assert_eq!(Rid::first(u128::MAX).number(), 1 << 52);
    let least = (1u64 << 53) - 1 - (1 << 52);
    assert!(1_000_000_000_000 < least);
}
