//! How operations reach the database: writes by the committer, reads in a snapshot.

use ::redb::{ReadTransaction, ReadableDatabase as _};

use crate::store::redb::schema::{FACTS, Fault, Outcome, Tables};
use crate::store::redb::trouble::Trouble;
use crate::store::redb::waiting::Pace;
use crate::store::redb::{Access, RedbSessions};
use crate::store::{Failure, StoreError};

impl RedbSessions {
    pub(super) async fn write<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&mut Tables<'_>) -> Outcome<T> + Send + 'static,
    ) -> Result<T, Failure> {
        self.write_at(doing, Pace::Prompt, work).await
    }

    pub(super) async fn write_at<T: Send + 'static>(
        &self,
        doing: &'static str,
        pace: Pace,
        work: impl FnOnce(&mut Tables<'_>) -> Outcome<T> + Send + 'static,
    ) -> Result<T, Failure> {
        match &self.access {
            Access::Write { committer, .. } => committer.write(doing, pace, work).await,
            Access::Read(_) => Err(Trouble::ReadOnly.into_error(doing).into()),
        }
    }

    /// Reads in a snapshot. A database that is closed after an error is waited for.
    pub(super) async fn read<T: Send>(
        &self,
        doing: &'static str,
        work: impl Fn(&ReadTransaction) -> Result<T, Fault> + Send,
    ) -> Result<T, StoreError> {
        self.read_by(doing, move || self.try_read(&work)).await
    }

    pub(super) async fn read_by<T: Send>(
        &self,
        doing: &'static str,
        read: impl Fn() -> Result<T, Trouble> + Send,
    ) -> Result<T, StoreError> {
        let read = match read() {
            Err(_) if matches!(self.access, Access::Write { .. }) => {
                // Nothing to write: it only makes the committer open the database.
                drop(self.write(doing, |_| Ok(Ok(()))).await);
                read()
            }
            read => read,
        };
        read.map_err(|trouble| trouble.into_error(doing))
    }

    pub(super) fn try_read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T, Trouble> {
        match &self.access {
            Access::Write { shared, .. } => shared.read(work),
            Access::Read(database) => {
                let read = database.begin_read().map_err(Fault::from);
                Ok(read.and_then(|transaction| work(&transaction))?)
            }
        }
    }

    pub(super) async fn fact(
        &self,
        doing: &'static str,
        name: &'static str,
    ) -> Result<u128, StoreError> {
        let fact = move |read: &ReadTransaction| {
            let facts = read.open_table(FACTS)?;
            Ok(facts.get(name)?.map_or(0, |fact| fact.value()))
        };
        self.read(doing, fact).await
    }
}

/// An operation that core never refuses.
pub(super) fn unrefused<T>(
    doing: &'static str,
    result: Result<T, Failure>,
) -> Result<T, StoreError> {
    result.map_err(|failure| match failure {
        Failure::Broken(e) => e,
        Failure::Refused(_) => Trouble::Closed.into_error(doing),
    })
}
