//! Counts every index and sum again from the rows, and compares.

use std::collections::BTreeMap;

use ::redb::{Key, ReadOnlyTable, ReadTransaction, ReadableTable as _, ReadableTableMetadata as _};

use crate::core::session::UploadSession;
use crate::core::slot::SlotId;
use crate::store::redb::indexes::Marks;
use crate::store::redb::schema::{
    COMPLETE, DUE, FACTS, Fault, HOURS, OPEN, OWNED, Outcome, ROWS, SESSIONS, STORED_BYTES, Tables,
    USES, USES_SINCE, newer_table, scopes,
};
use crate::store::{Recount, StoreError, row};

/// Sentences about what is wrong; more are counted.
const WRONG_MAX: usize = 1000;

/// (scope, who, hour) -> bytes.
type Sums = BTreeMap<(u8, String, u64), u64>;

/// Finds what is wrong, in a snapshot.
pub(super) fn find(read: &ReadTransaction) -> Result<Result<Recount, StoreError>, Fault> {
    let facts = read.open_table(FACTS)?;
    let fact =
        |name: &str| -> Result<u128, Fault> { Ok(facts.get(name)?.map_or(0, |fact| fact.value())) };
    let since = fact(USES_SINCE)?;
    let mut compared = Compared::open(read)?;
    let mut finder = Finder::default();
    for entry in read.open_table(ROWS)?.iter()? {
        let (id, bytes) = entry?;
        let session = match row::decode(SlotId(id.value()), bytes.value()) {
            Ok(session) => session,
            Err(corrupt) => return Ok(Err(corrupt)),
        };
        compared.check(&session, &mut finder)?;
        let marks = Marks::of(&session);
        finder.stored_bytes += u128::from(marks.stored_bytes);
        if since <= u128::from(marks.hour) && 0 < marks.quota_bytes {
            for (kind, who) in scopes(&session.owner) {
                *finder
                    .sums
                    .entry((kind, who.to_owned(), marks.hour))
                    .or_default() += marks.quota_bytes;
            }
        }
    }
    compared.check_strays(&mut finder)?;
    finder.check_stored(fact(STORED_BYTES)?);
    finder.check_uses(read)?;
    Ok(Ok(finder.end()))
}

/// The indexes of rows, each held against the rows.
struct Compared {
    due: Index<(u64, u128)>,
    complete: Index<(u64, u128)>,
    owned: Index<(&'static str, u8, u64, u128)>,
    open: Index<(&'static str, u128)>,
    sessions: Option<ReadOnlyTable<u128, u128>>,
    n_sessions: u64,
}

impl Compared {
    fn open(read: &ReadTransaction) -> Result<Self, Fault> {
        Ok(Self {
            due: Index::new("due", Some(read.open_table(DUE)?)),
            complete: Index::new("complete", Some(read.open_table(COMPLETE)?)),
            owned: Index::new("owned", newer_table(read, OWNED)?),
            open: Index::new("open", newer_table(read, OPEN)?),
            sessions: newer_table(read, SESSIONS)?,
            n_sessions: 0,
        })
    }

    fn check(&mut self, row: &UploadSession, finder: &mut Finder) -> Result<(), Fault> {
        let marks = Marks::of(row);
        self.due.check(row.id, marks.due, finder)?;
        self.complete.check(row.id, marks.complete, finder)?;
        self.owned.check(row.id, marks.owned, finder)?;
        self.open.check(row.id, marks.open, finder)?;
        let Some((session, slot)) = marks.session else {
            return Ok(());
        };
        let named = match &self.sessions {
            Some(sessions) => sessions.get(session)?.map(|named| named.value()),
            None => None,
        };
        match named == Some(slot) {
            true => self.n_sessions += 1,
            false => finder.miss(row.id, "sessions"),
        }
        Ok(())
    }

    fn check_strays(&self, finder: &mut Finder) -> Result<(), Fault> {
        self.due.check_strays(finder)?;
        self.complete.check_strays(finder)?;
        self.owned.check_strays(finder)?;
        self.open.check_strays(finder)?;
        let n_all = self.sessions.as_ref().map_or(Ok(0), |table| table.len())?;
        finder.check_strays("sessions", self.n_sessions, n_all);
        Ok(())
    }
}

/// An index of rows.
struct Index<K: Key + 'static> {
    name: &'static str,
    table: Option<ReadOnlyTable<K, ()>>,
    n_right: u64,
}

impl<K: Key + 'static> Index<K> {
    fn new(name: &'static str, table: Option<ReadOnlyTable<K, ()>>) -> Self {
        Self {
            name,
            table,
            n_right: 0,
        }
    }

    fn check(
        &mut self,
        id: SlotId,
        place: Option<K::SelfType<'_>>,
        finder: &mut Finder,
    ) -> Result<(), Fault> {
        // A file of an earlier schema has no such table yet.
        let (Some(place), Some(table)) = (place, &self.table) else {
            return Ok(());
        };
        match table.get(place)?.is_some() {
            true => self.n_right += 1,
            false => finder.miss(id, self.name),
        }
        Ok(())
    }

    fn check_strays(&self, finder: &mut Finder) -> Result<(), Fault> {
        let n_all = self.table.as_ref().map_or(Ok(0), |table| table.len())?;
        finder.check_strays(self.name, self.n_right, n_all);
        Ok(())
    }
}

#[derive(Default)]
struct Finder {
    wrong: Vec<String>,
    n_wrong: usize,
    stored_bytes: u128,
    sums: Sums,
}

impl Finder {
    fn say(&mut self, what: String) {
        self.n_wrong += 1;
        if self.wrong.len() < WRONG_MAX {
            self.wrong.push(what);
        }
    }

    fn miss(&mut self, id: SlotId, index: &str) {
        self.say(format!("slot {} is not in the index {index}", id.short()));
    }

    /// Each row's entry was found; whatever an index holds beside them is nobody's.
    fn check_strays(&mut self, name: &str, n_right: u64, n_all: u64) {
        if n_right != n_all {
            let n_strays = n_all.saturating_sub(n_right);
            self.say(format!(
                "{n_strays} entries of the index {name} have no row"
            ));
        }
    }

    fn check_stored(&mut self, sum: u128) {
        let right = self.stored_bytes;
        if sum != right {
            self.say(format!("stored bytes are {sum}, the rows say {right}"));
        }
    }

    fn check_uses(&mut self, read: &ReadTransaction) -> Result<(), Fault> {
        let hours = read.open_table(HOURS)?;
        let mut n_hours = 0;
        for entry in read.open_table(USES)?.iter()? {
            let (key, used) = entry?;
            let ((kind, who, hour), (sum, of_gone)) = (key.value(), used.value());
            let of_rows = self.sums.remove(&(kind, who.to_owned(), hour)).unwrap_or(0);
            let right = of_rows.saturating_add(of_gone);
            if sum != right {
                let who = name(kind, who);
                self.say(format!(
                    "{who} used {sum} bytes in hour {hour}, the rows say {right}"
                ));
            }
            match hours.get((hour, kind, who))? {
                Some(_) => n_hours += 1,
                None => self.say(format!(
                    "uses of {} in hour {hour} are not in the index hours",
                    name(kind, who)
                )),
            }
        }
        self.check_strays("hours", n_hours, hours.len()?);
        for ((kind, who, hour), right) in std::mem::take(&mut self.sums) {
            let who = name(kind, &who);
            self.say(format!(
                "{who} used nothing in hour {hour}, the rows say {right}"
            ));
        }
        Ok(())
    }

    fn end(mut self) -> Recount {
        let n_more = self.n_wrong - self.wrong.len();
        if 0 < n_more {
            self.wrong.push(format!("{n_more} more"));
        }
        Recount { wrong: self.wrong }
    }
}

/// Whom a sum is about.
fn name(kind: u8, who: &str) -> &str {
    if kind == 2 { "everybody" } else { who }
}

/// Writes all indexes and sums anew. What removed rows have used stays as it is.
pub(super) fn mend(tables: &mut Tables<'_>) -> Outcome<()> {
    tables.is_dirty = true;
    tables.indexes.clear()?;
    tables.sums.leave_gone()?;
    let since = tables.fact(USES_SINCE)?.unwrap_or(0);
    let mut stored_bytes = 0;
    for entry in tables.rows.iter()? {
        let (id, bytes) = entry?;
        let session = match row::decode(SlotId(id.value()), bytes.value()) {
            Ok(session) => session,
            // Caught by `find` before; a transaction half done must not be committed.
            Err(corrupt) => return Err(Fault::Corrupted(corrupt.to_string())),
        };
        let marks = Marks::of(&session);
        tables.indexes.shift(&Marks::default(), &marks)?;
        stored_bytes += u128::from(marks.stored_bytes);
        if since <= u128::from(marks.hour) {
            for scope in scopes(&session.owner) {
                tables.sums.change(scope, marks.hour, |(sum, gone)| {
                    (sum.saturating_add(marks.quota_bytes), gone)
                })?;
            }
        }
    }
    tables.set_fact(STORED_BYTES, stored_bytes)?;
    Ok(Ok(()))
}
