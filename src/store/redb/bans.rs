//! Bans, in a table beside the rows: small, read at the start, and written seldom.
//!
//! The table is made by the first ban. Nothing else refers to it, so that a file with it and one
//! without are of the same schema.

use ::redb::{ReadTransaction, ReadableTable as _, TableDefinition};
use jid::BareJid;
use tracing::warn;

use crate::core::bans::{Ban, By, Subject};
use crate::core::time::Timestamp;
use crate::store::redb::schema::{Fault, Outcome, Tables, newer_table};
use crate::store::{BanEntry, StoreError};

/// Since when, until when, by which operator (empty: by failures), why.
type Columns = (u64, Option<u64>, &'static str, &'static str);

/// `Subject::key` -> the ban.
const BANS: TableDefinition<&str, Columns> = TableDefinition::new("bans");

/// All bans.
pub(super) fn all(read: &ReadTransaction) -> Result<Result<Vec<Ban>, StoreError>, Fault> {
    let Some(table) = newer_table(read, BANS)? else {
        return Ok(Ok(Vec::new()));
    };
    let mut bans = Vec::new();
    for entry in table.iter()? {
        let (who, columns) = entry?;
        match ban(who.value(), columns.value()) {
            Some(ban) => bans.push(ban),
            // One that nobody can read must not keep the service from starting.
            None => warn!("a ban cannot be read, and does not hold"),
        }
    }
    Ok(Ok(bans))
}

fn ban(who: &str, (at, until, by, reason): (u64, Option<u64>, &str, &str)) -> Option<Ban> {
    Some(Ban {
        subject: Subject::of_key(who)?,
        at: Timestamp(at),
        until: until.map(Timestamp),
        by: match by {
            "" => By::Failures,
            operator => By::Operator(BareJid::new(operator).ok()?),
        },
        reason: reason.to_owned(),
    })
}

impl Tables<'_> {
    /// Replaces bans, or removes them.
    pub(super) fn keep_bans(&mut self, changes: &[BanEntry]) -> Outcome<()> {
        self.is_dirty = true;
        let mut table = self.transaction.open_table(BANS)?;
        for (subject, ban) in changes {
            let who = subject.key();
            let Some(ban) = ban else {
                table.remove(who.as_str())?;
                continue;
            };
            let by = match &ban.by {
                By::Failures => "",
                By::Operator(account) => account.as_str(),
            };
            let until = ban.until.map(|until| until.0);
            table.insert(who.as_str(), (ban.at.0, until, by, ban.reason.as_str()))?;
        }
        Ok(Ok(()))
    }
}
