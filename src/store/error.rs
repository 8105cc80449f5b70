//! What stores say when something did not happen.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::core::refusal::Refusal;
use crate::core::slot::SlotId;

/// Why something could not be done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The store did not do it; the same call may succeed later.
    #[error("{doing}: {source}")]
    Unavailable {
        /// What was being done, for the log.
        doing: &'static str,
        /// What the backend said.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// There is no room.
    #[error("{doing}: no space left")]
    NoSpace {
        /// What was being done, for the log.
        doing: &'static str,
    },
    /// What is stored is not what was put there.
    #[error("{0} is damaged")]
    Corrupt(String),
}

impl StoreError {
    /// Its kind, as meters name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::NoSpace { .. } => "no-space",
            Self::Corrupt(_) => "corrupt",
        }
    }
}

/// Why a store cannot be opened: the file or directory, and a sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {problem}", path.display())]
pub struct OpenError {
    /// What cannot be opened.
    pub path: PathBuf,
    /// The rest of the sentence.
    pub problem: String,
}

impl OpenError {
    pub(super) fn new(path: &Path, problem: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }
}

/// Why something did not happen: we said no, or we could not.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// Core said no; nothing was changed.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// The store could not.
    #[error(transparent)]
    Broken(#[from] StoreError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A change of what no change may touch.
pub(super) fn changed(id: SlotId) -> StoreError {
    StoreError::Corrupt(format!("the change of {id:?}"))
}

/// A new row under the id of another.
pub(super) fn issued_twice(id: SlotId) -> StoreError {
    StoreError::Corrupt(format!("slot {id:?}, issued twice,"))
}

/// A row that calls itself as another does.
pub(super) fn named_twice(id: SlotId) -> StoreError {
    StoreError::Corrupt(format!("the name of {id:?}, which another has,"))
}
