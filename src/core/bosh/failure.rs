//! Why there is no session, and what whoever asked is told.

use http::StatusCode;
use minidom::Element;
use xmpp_parsers::ns;

/// Why there is no session. Its name, in kebab-case, is for logs and counters (`&'static str` by
/// `From`): nothing in it was said by a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Failure {
    /// The connection manager does not know the account's domain.
    UnknownHost,
    /// The server does not let the account in: another password, or none would do.
    NotAuthorized,
    /// The server does not take the resource.
    BadResource,
    /// Somebody else has the resource.
    Conflict,
    /// The account has too many sessions.
    ResourceConstraint,
    /// The server offers no mechanism that we know, or none on this way.
    NoMechanism,
    /// The server did not prove that it knows the password: somebody stands between.
    NotProven,
    /// The server cannot tell now, or wants something else of us.
    NotReady,
    /// The connection manager ended the session.
    Terminated,
    /// It answers, and never what we wait for.
    Silent,
    /// What it says is no BOSH.
    Garbled,
    /// It is not reached.
    Unreachable,
    /// It did not end in time.
    TimedOut,
}

impl Failure {
    /// Its name for machines.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// What whoever asked for the session gets.
    pub fn status(self) -> StatusCode {
        match self {
            Self::UnknownHost | Self::NotAuthorized | Self::BadResource => StatusCode::BAD_REQUEST,
            Self::Conflict | Self::ResourceConstraint => StatusCode::CONFLICT,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// Of the condition with which a connection manager ends a session. XEP-0124 #errorstatus.
    pub(super) fn of_condition(condition: &str) -> Self {
        match condition {
            // Prosody says the latter of a host that it does not have.
            "host-unknown" | "improper-addressing" => Self::UnknownHost,
            _ => Self::Terminated,
        }
    }

    /// Of SASL's `<failure/>`: RFC 6120 #6.5.
    pub(super) fn of_sasl(failure: &Element) -> Self {
        if failure.name() != "failure" {
            return Self::Garbled;
        }
        let condition = failure.children().find(|child| child.name() != "text");
        match condition.map_or("", Element::name) {
            "not-authorized"
            | "account-disabled"
            | "credentials-expired"
            | "incorrect-encoding"
            | "invalid-authzid" => Self::NotAuthorized,
            "invalid-mechanism" | "mechanism-too-weak" | "encryption-required" => Self::NoMechanism,
            _ => Self::NotReady,
        }
    }

    /// Of the error of a question: RFC 6120 #7.6.2, #7.7.2.
    pub(super) fn of_stanza(iq: &Element) -> Self {
        let error = iq.children().find(|child| child.name() == "error");
        let is_condition =
            |child: &&Element| child.has_ns(ns::XMPP_STANZAS) && child.name() != "text";
        let condition = error.and_then(|error| error.children().find(is_condition));
        match condition.map_or("", Element::name) {
            "conflict" => Self::Conflict,
            "resource-constraint" => Self::ResourceConstraint,
            "bad-request" | "jid-malformed" => Self::BadResource,
            "not-allowed" | "forbidden" | "not-authorized" => Self::NotAuthorized,
            _ => Self::NotReady,
        }
    }
}
