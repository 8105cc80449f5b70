//! Other systems' paths that were used, in tables beside the rows: a path outlives its row.
//!
//! The tables are made by the first path. `FORGETS` holds (`forget_at`, id) of each path of `PATHS`
//! that is forgotten some day, and nothing else.

use ::redb::{ReadTransaction, ReadableTable as _, TableDefinition};
use jid::BareJid;

use crate::core::external::UsedPath;
use crate::core::policy::Bucket;
use crate::core::refusal::Refusal;
use crate::core::session::UploadSession;
use crate::core::time::Timestamp;
use crate::store::redb::schema::{Fault, Outcome, Tables, newer_table};
use crate::store::{Admit, changed};

/// Id -> when it is forgotten; `None` is never.
const PATHS: TableDefinition<u128, Option<u64>> = TableDefinition::new("paths");
/// (`forget_at`, id)
const FORGETS: TableDefinition<(u64, u128), ()> = TableDefinition::new("paths-to-forget");

/// Whether there is a path to forget at `now`.
pub(super) fn is_due(read: &ReadTransaction, now: Timestamp) -> Result<bool, Fault> {
    let Some(forgets) = newer_table(read, FORGETS)? else {
        return Ok(false);
    };
    let mut due = forgets.range(..=(now.0, u128::MAX))?;
    Ok(due.next().transpose()?.is_some())
}

impl Tables<'_> {
    /// Keeps a new row for `path`, and that the path was used; the row it has, where it has one.
    pub(super) fn admit_path(
        &mut self,
        path: UsedPath,
        owner: &BareJid,
        since: Bucket,
        mut decide: Admit,
    ) -> Outcome<UploadSession> {
        match self.get(path.id)? {
            Ok(None) => {}
            Ok(Some(row)) => return Ok(Ok(row)),
            Err(corrupt) => return Ok(Err(corrupt.into())),
        }
        let mut paths = self.transaction.open_table(PATHS)?;
        if paths.get(path.id.0)?.is_some() {
            return Ok(Err(Refusal::Gone.into()));
        }
        let usage = self.usage(owner, since)?;
        let row = match decide(&usage) {
            Ok(row) if row.id == path.id => row,
            Ok(_) => return Ok(Err(changed(path.id).into())),
            Err(refusal) => return Ok(Err(refusal.into())),
        };
        let row = match self.insert(row)? {
            Ok(row) => row,
            Err(failure) => return Ok(Err(failure)),
        };
        let forget_at = path.forget_at.map(|at| at.0);
        paths.insert(path.id.0, forget_at)?;
        if let Some(at) = forget_at {
            let mut forgets = self.transaction.open_table(FORGETS)?;
            forgets.insert((at, path.id.0), ())?;
        }
        Ok(Ok(row))
    }

    /// Forgets up to `n_max` paths that are to be forgotten at `now`; returns how many there were.
    pub(super) fn forget_paths(&mut self, now: Timestamp, n_max: usize) -> Outcome<usize> {
        let mut paths = self.transaction.open_table(PATHS)?;
        let mut forgets = self.transaction.open_table(FORGETS)?;
        let due: Result<Vec<(u64, u128)>, Fault> = forgets
            .range(..=(now.0, u128::MAX))?
            .take(n_max)
            .map(|entry| Ok(entry?.0.value()))
            .collect();
        let due = due?;
        for place in &due {
            forgets.remove(place)?;
            paths.remove(place.1)?;
        }
        self.is_dirty |= !due.is_empty();
        Ok(Ok(due.len()))
    }
}
