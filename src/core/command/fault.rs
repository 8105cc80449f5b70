//! What can be wrong with a stage of a command, and how it is told.

use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType};

use crate::core::refusal::{App, Row, row};

/// What is wrong with a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum CommandFault {
    /// Only operators may run this.
    NotOperator,
    /// The action is none of XEP-0050.
    MalformedAction,
    /// The action is not for this stage.
    BadAction,
    /// The form does not fit what was asked.
    BadPayload,
    /// No command of this name waits for this requester.
    BadSessionId,
    /// The command has waited too long for its next stage.
    CommandExpired,
    /// Too many commands wait for their next stage.
    TooManyCommands,
    /// There are as many quota exceptions as there may be.
    TooManyExceptions,
}

impl CommandFault {
    /// Its row in the table of refusals.
    #[rustfmt::skip]
    pub(in crate::core) fn row(self) -> Row {
        use DefinedCondition as C;
        use ErrorType::{Cancel, Modify, Wait};
        match self {
            Self::NotOperator            => row(C::Forbidden,           Cancel, App::None,         403, "Only operators may do this"),
            Self::MalformedAction        => row(C::BadRequest,          Modify, App::Command("malformed-action"), 400, "There is no such action"),
            Self::BadAction              => row(C::BadRequest,          Modify, App::Command("bad-action"),    400, "This action is not for this stage"),
            Self::BadPayload             => row(C::BadRequest,          Modify, App::Command("bad-payload"),   400, "The form is not what was asked for"),
            Self::BadSessionId           => row(C::BadRequest,          Modify, App::Command("bad-sessionid"), 400, "There is no such command under way"),
            Self::CommandExpired         => row(C::NotAllowed,          Cancel, App::Command("session-expired"), 403, "The command has waited too long, begin again"),
            Self::TooManyCommands        => row(C::ResourceConstraint,  Wait,   App::None,         429, "Too many commands are under way, try again later"),
            Self::TooManyExceptions      => row(C::ResourceConstraint,  Cancel, App::None,         409, "There are too many quota exceptions: clear some first"),
        }
    }
}
