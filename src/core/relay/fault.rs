//! Why something is not relayed, and how that is told.

use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType};

use crate::core::refusal::{App, Refusal, Row, row};

/// Why something is not relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum RelayFault {
    /// No resource of the target is known.
    NobodyThere,
    /// It is no IQ.
    OnlyRequests,
    /// It is a presence.
    NoPresence,
    /// The target's account asks itself.
    OwnAccount,
    /// The target asks, or writes to, somebody.
    OnlyReplies,
    /// As many asks wait as may.
    TooManyPending,
    /// No answer came in time.
    TimedOut,
    /// The resource that was asked is gone.
    TargetGone,
    /// The answer is beyond our limits.
    AnswerTooLong,
}

impl RelayFault {
    /// Its row in the table of refusals. There is no HTTP to it.
    #[rustfmt::skip]
    pub(in crate::core) fn row(self) -> Row {
        use DefinedCondition as C;
        use ErrorType::{Cancel, Wait};
        match self {
            Self::NobodyThere    => row(C::ServiceUnavailable,    Cancel, App::None, 503, "Nobody is there to answer"),
            Self::OnlyRequests   => row(C::FeatureNotImplemented, Cancel, App::None, 501, "Only IQs are taken here"),
            Self::NoPresence     => row(C::BadRequest,            Cancel, App::None, 400, "No presence is taken here"),
            Self::OwnAccount     => row(C::BadRequest,            Cancel, App::None, 400, "The account behind this address cannot use it"),
            Self::OnlyReplies    => row(C::FeatureNotImplemented, Cancel, App::None, 501, "Only replies to IQs are taken here"),
            Self::TooManyPending => row(C::ResourceConstraint,    Wait,   App::None, 429, "Too many requests wait for an answer, try again later"),
            Self::TimedOut       => row(C::RemoteServerTimeout,   Wait,   App::None, 504, "No answer came in time"),
            Self::TargetGone     => row(C::RecipientUnavailable,  Wait,   App::None, 502, "Whoever was to answer has gone, try again"),
            Self::AnswerTooLong  => row(C::PolicyViolation,       Cancel, App::None, 502, "The answer is too long to be passed on"),
        }
    }
}

impl From<RelayFault> for Refusal {
    fn from(fault: RelayFault) -> Self {
        Self::Relay(fault)
    }
}
