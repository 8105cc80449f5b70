//! The tables, and the few operations that keep them in step.
//!
//! Everything here runs inside one transaction of somebody else's. A refusal, and an error of our
//! own making, come before the first write; so a transaction that an operation refused in is as it
//! was, and can be shared with others.

use std::ops::RangeInclusive;

use ::redb::{
    Key, ReadOnlyTable, ReadTransaction, ReadableTable as _, Table, TableDefinition, TableError,
    Value, WriteTransaction,
};
use jid::BareJid;

use crate::core::policy::{Bucket, Usage};
use crate::core::refusal::Refusal;
use crate::core::session::UploadSession;
use crate::core::slot::SlotId;
use crate::store::redb::indexes::{Indexes, Marks};
use crate::store::redb::sums::Sums;
use crate::store::{
    Admit, Change, Failure, StoreError, changed, issued_twice, keeps_its_keys, named_twice, row,
};

/// What redb itself says is wrong: the whole transaction fails.
pub(super) type Fault = ::redb::Error;
/// What an operation comes to, unless the transaction fails.
pub(super) type Outcome<T> = Result<Result<T, Failure>, Fault>;

/// Id -> `row::encode`.
pub(super) const ROWS: TableDefinition<u128, &[u8]> = TableDefinition::new("rows");
/// (`due_at`, id) of each row that has one.
pub(super) const DUE: TableDefinition<(u64, u128), ()> = TableDefinition::new("due");
/// (time of completion, id) of each complete row.
pub(super) const COMPLETE: TableDefinition<(u64, u128), ()> = TableDefinition::new("complete");
/// (scope, who, hour) -> bytes that count for the quota; of them, bytes of rows that are gone.
pub(super) const USES: TableDefinition<(u8, &str, u64), (u64, u64)> = TableDefinition::new("uses");
/// The keys of `USES`, by hour: what there is to forget.
pub(super) const HOURS: TableDefinition<(u64, u8, &str), ()> = TableDefinition::new("hours");
/// (owner, `NAMED` or `NAMELESS`, `created_at`, id) of each row.
pub(super) const OWNED: TableDefinition<(&str, u8, u64, u128), ()> =
    TableDefinition::new("uploads");
/// The mark in `OWNED` of a row with a `SessionId`, and of one without.
pub(super) const NAMED: u8 = 0;
pub(super) const NAMELESS: u8 = 1;
/// What schema 2 had in place of `OWNED`: named rows alone.
pub(super) const OWNED_BEFORE: TableDefinition<(&str, u64, u128), ()> =
    TableDefinition::new("owned");
/// `SessionId` -> id of each row that has one.
pub(super) const SESSIONS: TableDefinition<u128, u128> = TableDefinition::new("sessions");
/// (owner, id) of each open upload session.
pub(super) const OPEN: TableDefinition<(&str, u128), ()> = TableDefinition::new("open");
/// Name -> what an operator said. Made when the first is kept: a database of this schema may lack
/// it.
pub(super) const ORDERS: TableDefinition<&str, &str> = TableDefinition::new("orders");
/// Single numbers; see below.
pub(super) const FACTS: TableDefinition<&str, u128> = TableDefinition::new("facts");

/// Fact: which schema the tables follow.
pub(super) const SCHEMA: &str = "schema";
/// Fact: what binds the rows to their files.
pub(super) const STORE_ID: &str = "store-id";
/// Fact: bytes of all complete files.
pub(super) const STORED_BYTES: &str = "stored-bytes";
/// Fact: the first hour whose uses are counted.
pub(super) const USES_SINCE: &str = "uses-since";

/// The schema described here.
pub(super) const SCHEMA_VERSION: u128 = 4;
/// The schemas before it that can be brought to it: the first had neither `SESSIONS` nor `OPEN`,
/// the first two had no `OWNED` of all rows, and none had rows of other systems, which whoever
/// knows no later schema would take for damaged.
pub(super) const SCHEMAS_BEFORE: RangeInclusive<u128> = 1..=3;

/// A table for reading; `None` where a database of the schema before has none yet.
pub(super) fn newer_table<K: Key + 'static, V: Value + 'static>(
    read: &ReadTransaction,
    table: TableDefinition<K, V>,
) -> Result<Option<ReadOnlyTable<K, V>>, Fault> {
    match read.open_table(table) {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

/// Whose uses: a key of `USES` begins with its scope and with whom it is about.
pub(super) fn scopes(owner: &BareJid) -> [(u8, &str); 3] {
    [(0, owner.as_str()), (1, owner.domain().as_str()), (2, "")]
}

/// All tables, open for writing.
pub(super) struct Tables<'t> {
    /// For tables that few operations need.
    pub(super) transaction: &'t WriteTransaction,
    pub(super) rows: Table<'t, u128, &'static [u8]>,
    pub(super) indexes: Indexes<'t>,
    pub(super) sums: Sums<'t>,
    pub(super) facts: Table<'t, &'static str, u128>,
    /// Whether anything was written: otherwise there is nothing to commit.
    pub(super) is_dirty: bool,
    /// Which complete rows were changed or removed.
    pub(super) was_complete: Vec<SlotId>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, Fault> {
        Ok(Self {
            transaction,
            rows: transaction.open_table(ROWS)?,
            indexes: Indexes::open(transaction)?,
            sums: Sums::open(transaction)?,
            facts: transaction.open_table(FACTS)?,
            is_dirty: false,
            was_complete: Vec::new(),
        })
    }

    /// Writes what the operations left to write; tells whether there is anything to commit.
    pub(super) fn finish(mut self) -> Result<bool, Fault> {
        self.sums.flush()?;
        Ok(self.is_dirty)
    }

    pub(super) fn fact(&self, name: &str) -> Result<Option<u128>, Fault> {
        Ok(self.facts.get(name)?.map(|fact| fact.value()))
    }

    pub(super) fn set_fact(&mut self, name: &str, value: u128) -> Result<(), Fault> {
        self.is_dirty = true;
        self.facts.insert(name, value)?;
        Ok(())
    }

    pub(super) fn usage(&mut self, owner: &BareJid, since: Bucket) -> Result<Usage, Fault> {
        let [requester, domain, total] = scopes(owner);
        Ok(Usage {
            requester: self.sums.since(requester, since)?,
            domain: self.sums.since(domain, since)?,
            total: self.sums.since(total, since)?,
            n_open_sessions: self.indexes.n_open(owner)?,
        })
    }

    /// Keeps the row that `decide` makes of what `owner`, their domain and everybody used.
    pub(super) fn admit(
        &mut self,
        owner: &BareJid,
        since: Bucket,
        mut decide: Admit,
    ) -> Outcome<UploadSession> {
        let usage = self.usage(owner, since)?;
        match decide(&usage) {
            Ok(row) => self.insert(row),
            Err(refusal) => Ok(Err(refusal.into())),
        }
    }

    /// Keeps a new row.
    pub(super) fn insert(&mut self, row: UploadSession) -> Outcome<UploadSession> {
        if self.rows.get(row.id.0)?.is_some() {
            return Ok(Err(issued_twice(row.id).into()));
        }
        if let Some(taken) = self.check_name(&row)? {
            return Ok(Err(taken.into()));
        }
        self.put(None, Some(&row))?;
        Ok(Ok(row))
    }

    /// What is wrong where another row has the same `SessionId`.
    fn check_name(&self, row: &UploadSession) -> Result<Option<StoreError>, Fault> {
        let Some(session) = row.session_id() else {
            return Ok(None);
        };
        let slot = self.indexes.slot_of(session)?;
        let is_taken = slot.is_some_and(|slot| slot != row.id);
        Ok(is_taken.then(|| named_twice(row.id)))
    }

    /// Replaces a row by what `change` makes of it.
    pub(super) fn update(&mut self, id: SlotId, mut change: Change) -> Outcome<UploadSession> {
        let old = match self.get(id)? {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(Err(Refusal::UnknownFile.into())),
            Err(corrupt) => return Ok(Err(corrupt.into())),
        };
        let new = match change(old.clone()) {
            Ok(row) => row,
            Err(refusal) => return Ok(Err(refusal.into())),
        };
        if !keeps_its_keys(&old, &new) {
            return Ok(Err(changed(id).into()));
        }
        if let Some(taken) = self.check_name(&new)? {
            return Ok(Err(taken.into()));
        }
        if old != new {
            self.put(Some(&old), Some(&new))?;
        }
        Ok(Ok(new))
    }

    /// Keeps what an operator said, or forgets it.
    pub(super) fn set_order(&mut self, name: &str, value: Option<&str>) -> Outcome<()> {
        let mut orders = self.transaction.open_table(ORDERS)?;
        match value {
            Some(value) => drop(orders.insert(name, value)?),
            None => drop(orders.remove(name)?),
        }
        self.is_dirty = true;
        Ok(Ok(()))
    }

    /// Removes a row, if there is one.
    pub(super) fn remove(&mut self, id: SlotId) -> Outcome<()> {
        match self.get(id)? {
            Ok(Some(row)) => self.put(Some(&row), None)?,
            Ok(None) => {}
            Err(corrupt) => return Ok(Err(corrupt.into())),
        }
        Ok(Ok(()))
    }

    pub(super) fn get(
        &self,
        id: SlotId,
    ) -> Result<Result<Option<UploadSession>, StoreError>, Fault> {
        let bytes = self.rows.get(id.0)?;
        Ok(bytes
            .map(|bytes| row::decode(id, bytes.value()))
            .transpose())
    }

    /// Puts a row in another's place, with all that indexes and sums hold of it.
    fn put(
        &mut self,
        old: Option<&UploadSession>,
        new: Option<&UploadSession>,
    ) -> Result<(), Fault> {
        self.is_dirty = true;
        match (old, new) {
            (_, Some(row)) => drop(self.rows.insert(row.id.0, row::encode(row).as_slice())?),
            (Some(row), None) => drop(self.rows.remove(row.id.0)?),
            (None, None) => {}
        }
        let before = old.map(Marks::of).unwrap_or_default();
        let after = new.map(Marks::of).unwrap_or_default();
        if let Some((_, id)) = before.complete {
            self.was_complete.push(SlotId(id));
        }
        self.indexes.shift(&before, &after)?;
        self.count_stored(&before, &after)?;
        match (old, new) {
            // The bytes of a complete file were used, also when it is gone.
            (Some(row), None) if before.complete.is_some() => {
                self.charge(row, (0, 0), before.quota_bytes)
            }
            (Some(row), _) | (None, Some(row)) => {
                self.charge(row, (before.quota_bytes, after.quota_bytes), 0)
            }
            (None, None) => Ok(()),
        }
    }

    fn count_stored(&mut self, before: &Marks<'_>, after: &Marks<'_>) -> Result<(), Fault> {
        if before.stored_bytes == after.stored_bytes {
            return Ok(());
        }
        let sum = self.fact(STORED_BYTES)?.unwrap_or(0);
        let rest = sum.saturating_sub(u128::from(before.stored_bytes));
        self.set_fact(STORED_BYTES, rest + u128::from(after.stored_bytes))
    }

    /// Books a row's change with the quotas of the hour in which it was created: what comes `back`,
    /// `more`, and what is used `of_gone` from now on.
    fn charge(
        &mut self,
        row: &UploadSession,
        (back, more): (u64, u64),
        of_gone: u64,
    ) -> Result<(), Fault> {
        let hour = Bucket::of(row.created_at).0;
        if back == more && of_gone == 0 {
            return Ok(());
        }
        if u128::from(hour) < self.fact(USES_SINCE)?.unwrap_or(0) {
            return Ok(());
        }
        for scope in scopes(&row.owner) {
            self.sums.change(scope, hour, |(sum, gone)| {
                let sum = sum.saturating_sub(back).saturating_add(more);
                (sum, gone.saturating_add(of_gone))
            })?;
        }
        Ok(())
    }

    /// What `owner`, their domain and everybody used; nothing is written.
    pub(super) fn tell_usage(&mut self, owner: &BareJid, since: Bucket) -> Outcome<Usage> {
        self.usage(owner, since).map(Ok)
    }

    /// Takes what `owner` used by rows that are gone off all sums.
    pub(super) fn forget_owner(&mut self, owner: &BareJid) -> Outcome<()> {
        let [theirs, domain, total] = scopes(owner);
        for (hour, of_gone) in self.sums.of_gone(theirs)? {
            self.is_dirty = true;
            for scope in [theirs, domain, total] {
                self.sums.change(scope, hour, |(sum, gone)| {
                    (sum.saturating_sub(of_gone), gone.saturating_sub(of_gone))
                })?;
            }
        }
        Ok(Ok(()))
    }

    /// Forgets up to `n_max` sums of hours before `before`; returns how many there were.
    pub(super) fn forget(&mut self, before: Bucket, n_max: usize) -> Outcome<usize> {
        let n_forgotten = self.sums.forget(before, n_max)?;
        self.is_dirty |= 0 < n_forgotten;
        let since = u128::from(before.0);
        if self.fact(USES_SINCE)?.unwrap_or(0) < since {
            self.set_fact(USES_SINCE, since)?;
        }
        Ok(Ok(n_forgotten))
    }
}
