//! What redb's errors mean to us.

use std::io;
use std::sync::Arc;

use crate::store::StoreError;
use crate::store::redb::schema::Fault;

/// Why a transaction failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The disk is full.
    #[error("no space left")]
    NoSpace,
    /// The file is not what redb wrote.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The database is closed.
    #[error("the database is closed")]
    Closed,
    /// The database was opened for reading only.
    #[error("the database was opened for reading only")]
    ReadOnly,
    /// Anything else.
    #[error(transparent)]
    Other(Arc<Fault>),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io(e) if is_full(&e) => Self::NoSpace,
            Fault::Corrupted(what) => Self::Damaged(what),
            Fault::DatabaseClosed => Self::Closed,
            other => Self::Other(Arc::new(other)),
        }
    }
}

impl Trouble {
    /// What whoever was `doing` it is told.
    pub(super) fn into_error(self, doing: &'static str) -> StoreError {
        match self {
            Self::NoSpace => StoreError::NoSpace { doing },
            Self::Damaged(what) => StoreError::Corrupt(format!("the database ({what})")),
            other => StoreError::Unavailable {
                doing,
                source: Arc::new(other),
            },
        }
    }
}

fn is_full(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
