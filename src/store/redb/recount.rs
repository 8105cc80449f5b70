//! Counts every index and sum again from the rows, and compares.

use std::collections::BTreeMap;

use ::redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable as _, ReadableTableMetadata as _, Table,
};

use crate::core::slot::SlotId;
use crate::store::redb::schema::{
    COMPLETE, DUE, FACTS, Fault, HOURS, Marks, Outcome, ROWS, STORED_BYTES, Tables, USES,
    USES_SINCE, scopes,
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
    let mut finder = Finder {
        wrong: Vec::new(),
        n_wrong: 0,
        n_due: 0,
        n_complete: 0,
        stored_bytes: 0,
        sums: Sums::new(),
    };
    let since = fact(USES_SINCE)?;
    let (due, complete) = (read.open_table(DUE)?, read.open_table(COMPLETE)?);
    for entry in read.open_table(ROWS)?.iter()? {
        let (id, bytes) = entry?;
        let session = match row::decode(SlotId(id.value()), bytes.value()) {
            Ok(session) => session,
            Err(corrupt) => return Ok(Err(corrupt)),
        };
        let marks = Marks::of(&session);
        finder.check_marks(&marks, &due, &complete)?;
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
    finder.check_strays("due", finder.n_due, due.len()?);
    finder.check_strays("complete", finder.n_complete, complete.len()?);
    finder.check_stored(fact(STORED_BYTES)?);
    finder.check_uses(read)?;
    Ok(Ok(finder.end()))
}

struct Finder {
    wrong: Vec<String>,
    n_wrong: usize,
    n_due: u64,
    n_complete: u64,
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

    fn check_marks(
        &mut self,
        marks: &Marks,
        due: &ReadOnlyTable<(u64, u128), ()>,
        complete: &ReadOnlyTable<(u64, u128), ()>,
    ) -> Result<(), Fault> {
        let n_due = &mut self.n_due;
        let mut missing = Vec::new();
        for (place, index, name, n) in [
            (marks.due, due, "due", n_due),
            (marks.complete, complete, "complete", &mut self.n_complete),
        ] {
            let Some(place) = place else { continue };
            match index.get(place)? {
                Some(_) => *n += 1,
                None => missing.push((name, SlotId(place.1))),
            }
        }
        for (name, id) in missing {
            self.say(format!("slot {} is not in the index {name}", id.short()));
        }
        Ok(())
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
    let mut sums: BTreeMap<(u8, String, u64), (u64, u64)> = BTreeMap::new();
    for entry in tables.uses.iter()? {
        let (key, used) = entry?;
        let ((kind, who, hour), (_, of_gone)) = (key.value(), used.value());
        sums.insert((kind, who.to_owned(), hour), (of_gone, of_gone));
    }
    tables.is_dirty = true;
    clear(&mut tables.due)?;
    clear(&mut tables.complete)?;
    tables.hours.retain(|_, ()| false)?;
    tables.uses.retain(|_, _| false)?;
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
        if let Some(place) = marks.due {
            tables.due.insert(place, ())?;
        }
        if let Some(place) = marks.complete {
            tables.complete.insert(place, ())?;
        }
        stored_bytes += u128::from(marks.stored_bytes);
        if since <= u128::from(marks.hour) {
            for (kind, who) in scopes(&session.owner) {
                let sum = sums.entry((kind, who.to_owned(), marks.hour));
                let sum = &mut sum.or_default().0;
                *sum = sum.saturating_add(marks.quota_bytes);
            }
        }
    }
    tables.set_fact(STORED_BYTES, stored_bytes)?;
    for ((kind, who, hour), used) in sums {
        tables.set_used((kind, &who), hour, used)?;
    }
    Ok(Ok(()))
}

fn clear(index: &mut Table<'_, (u64, u128), ()>) -> Result<(), Fault> {
    Ok(index.retain(|_, ()| false)?)
}
