//! What servers refuse, what is no answer, and what nobody may make of a name.

use super::*;

fn failure(condition: &str) -> String {
    format!(
        "<failure xmlns='{}'><{condition}/><text>no</text></failure>",
        ns::SASL
    )
}

fn stanza_error(id: &str, condition: &str) -> String {
    let condition = format!("<{condition} xmlns='{}'/>", ns::XMPP_STANZAS);
    iq(
        id,
        "error",
        &format!("<error type='cancel'>{condition}</error>"),
    )
}

#[test]
fn what_never_comes_is_not_asked_for_for_ever() {
    let mut talk = Talk::session("romeo@example.org");
    talk.goes_on(&created(""));
    for _ in 1..EMPTY_MAX {
        talk.goes_on(&answer("", ""));
    }
    talk.fails(&answer("", ""), Failure::Silent);
    assert!(talk.end().is_some());
}

#[test]
fn what_the_server_says_against_a_password() {
    for (condition, expected) in [
        ("not-authorized", Failure::NotAuthorized),
        ("account-disabled", Failure::NotAuthorized),
        ("credentials-expired", Failure::NotAuthorized),
        ("invalid-authzid", Failure::NotAuthorized),
        ("encryption-required", Failure::NoMechanism),
        ("mechanism-too-weak", Failure::NoMechanism),
        ("invalid-mechanism", Failure::NoMechanism),
        ("temporary-auth-failure", Failure::NotReady),
        ("aborted", Failure::NotReady),
        ("malformed-request", Failure::NotReady),
        ("never-heard-of", Failure::NotReady),
    ] {
        for mechanism in ["PLAIN", "SCRAM-SHA-1"] {
            let mut talk = Talk::session("romeo@example.org");
            talk.goes_on(&created(&mechanisms(&[mechanism])));
            talk.fails(&answer("", &failure(condition)), expected);
            assert!(talk.end().is_some(), "the session is there all the same");
        }
    }
    for offered in [&["X-OAUTH2", "EXTERNAL", "scram-sha-1"][..], &[]] {
        let mut talk = Talk::session("romeo@example.org");
        talk.fails(&created(&mechanisms(offered)), Failure::NoMechanism);
    }
    let mut talk = Talk::session("romeo@example.org");
    talk.fails(&created(&bind_feature()), Failure::NoMechanism);
}

#[test]
fn what_the_server_says_against_a_resource() {
    for (condition, expected) in [
        ("conflict", Failure::Conflict),
        ("resource-constraint", Failure::ResourceConstraint),
        ("bad-request", Failure::BadResource),
        ("not-allowed", Failure::NotAuthorized),
        ("internal-server-error", Failure::NotReady),
    ] {
        let mut talk = Talk::with_plain("romeo@example.org");
        talk.goes_on(&answer("", &bind_feature()));
        talk.fails(&answer("", &stanza_error("warm-bind", condition)), expected);
    }
    for jid in [
        "",
        "romeo@example.org",
        "@/x",
        "a b@c/x",
        "romeo@example.org/&#xd;",
    ] {
        let mut talk = Talk::with_plain("romeo@example.org");
        talk.goes_on(&answer("", &bind_feature()));
        talk.fails(&answer("", &bound(jid)), Failure::Garbled);
    }
}

#[test]
fn a_session_that_is_ended_is_not_ended_again() {
    for (condition, expected) in [
        ("host-unknown", Failure::UnknownHost),
        ("improper-addressing", Failure::UnknownHost),
        ("item-not-found", Failure::Terminated),
        ("remote-connection-failed", Failure::Terminated),
        ("system-shutdown", Failure::Terminated),
        ("see-other-uri", Failure::Terminated),
        ("", Failure::Terminated),
    ] {
        let end = answer(&format!("type='terminate' condition='{condition}'"), "");
        let mut talk = Talk::session("romeo@example.org");
        talk.fails(&end, expected);
        assert!(talk.end().is_none());
        let mut talk = Talk::with_plain("romeo@example.org");
        talk.fails(&end, expected);
        assert!(talk.end().is_none());
    }
}

#[test]
fn a_recoverable_error_asks_for_the_same_once_more() {
    let mut talk = Talk::session("romeo@example.org");
    talk.goes_on(&created(&mechanisms(&["PLAIN"])));
    let step = talk.login.answer(answer("type='error'", "").as_bytes());
    assert!(matches!(step, Step::Repeat), "{step:?}");
    talk.goes_on(&answer("", &sasl("success", "")));
}

#[test]
fn what_is_no_answer() {
    let nested = "<a xmlns='b'>".repeat(1500) + &"</a>".repeat(1500);
    let large = format!("<a xmlns='b'>{}</a>", "x".repeat(body::ANSWER_BYTES_MAX));
    for garbage in [
        "".to_owned(),
        "nothing".to_owned(),
        "<html><body>502</body></html>".to_owned(),
        "<body/>".to_owned(),
        "<body xmlns='jabber:client' sid='x'/>".to_owned(),
        "<body xmlns='http://jabber.org/protocol/httpbind' sid='x'>".to_owned(),
        "<!DOCTYPE body [<!ENTITY a 'a'>]><body xmlns='http://jabber.org/protocol/httpbind'/>"
            .to_owned(),
        created("&a;"),
        created(&nested),
        created(&large),
        answer("", &mechanisms(&["PLAIN"])),
        answer("sid=''", &mechanisms(&["PLAIN"])),
        answer(&format!("sid='{}'", "x".repeat(1025)), ""),
    ] {
        Talk::session("romeo@example.org").fails(&garbage, Failure::Garbled);
    }
    let mut talk = Talk::session("romeo@example.org");
    talk.goes_on(&created(&mechanisms(&["PLAIN"])));
    let silly = format!("<silly xmlns='{}'/>", ns::SASL);
    talk.fails(&answer("", &silly), Failure::Garbled);
    // Nothing is left to say after it.
    talk.fails(&answer("", &sasl("success", "")), Failure::Garbled);
}

#[test]
fn nothing_in_a_name_is_taken_for_markup() {
    let resource = "'/><x a=\"&amp;<![CDATA[ ]]>\u{e4}";
    let mut wish = wish(&format!("romeo@example.org/{resource}"));
    wish.terms.lang = "'><y".to_owned();
    wish.terms.ver = "\"/>&".to_owned();
    let mut talk = Talk::begin(wish, Aim::Session);
    assert_eq!(talk.sent[0].attr_ns(Namespace::xml(), "lang"), Some("'><y"));
    assert_eq!(talk.sent[0].attr("ver"), Some("\"/>&"));
    assert_eq!(talk.sent[0].nodes().count(), 0);
    talk.goes_on(&created(&mechanisms(&["PLAIN"])));
    talk.goes_on(&answer("", &sasl("success", "")));
    let bind = talk.goes_on(&answer("", &bind_feature()));
    let bind = bind.get_child("iq", ns::JABBER_CLIENT).expect("<iq/>");
    let bind = bind.get_child("bind", ns::BIND).expect("<bind/>");
    assert_eq!(bind.children().count(), 1);
    assert_eq!(text(bind, "resource"), resource);
}

#[test]
fn what_opens_a_session_is_shown_nowhere() {
    let mut talk = Talk::with_plain("romeo@example.org");
    talk.goes_on(&answer("", &bind_feature()));
    let binding = talk.is_bound(&answer("", &bound("romeo@example.org/x")));
    let (login, body) = Login::begin(wish("a@example.org"), Aim::Session, Rid(77), String::new());
    let shown = format!(
        "{binding:?} {body:?} {:?} {:?}",
        login.wish,
        Step::Bound(binding.clone())
    );
    for secret in [SID, "1004", "77", "pencil"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(shown.contains("romeo@example.org/x"));
}

proptest::proptest! {
    /// Whatever account somebody asks for, it is asked for in XML.
    #[test]
    fn any_account_is_written(text in "\\PC{1,20}@\\PC{1,20}(/\\PC{1,20})?") {
        if let Ok(jid) = Jid::new(&text) {
            Talk::session(jid.as_str());
            let resource = jid.resource().map(|it| it.as_str());
            body::with(SID, Rid(1), &[body::bind(resource)]);
        }
    }

    /// Whatever a connection manager says, at any point, nothing comes down.
    #[test]
    fn any_answer_is_read(bytes in proptest::collection::vec(0u8..=255, 0..100)) {
        Talk::session("a@example.org").login.answer(&bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Talk::with_plain("a@example.org").login.answer(answer("", &text).as_bytes());
    }
}
