//! Why a file was not sent, and the exit status that says so.

use crate::xmpp::client::TrustError;

/// Why a file was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The command line, or what it names, is wrong.
    #[error("{0}")]
    Usage(String),
    /// The XMPP server does not let us in.
    #[error("{0}")]
    LoginRefused(String),
    /// The upload service, or the recipient's server, does not want it.
    #[error("{0}")]
    Refused(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl From<TrustError> for SendError {
    fn from(error: TrustError) -> Self {
        match error {
            TrustError::Unusable(words) => Self::Usage(words),
            failed @ TrustError::Failed(_) => Self::Failed(failed.to_string()),
        }
    }
}

impl SendError {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::LoginRefused(_) => 3,
            Self::Refused(_) => 4,
        }
    }
}
