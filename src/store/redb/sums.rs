//! The quota's sums in one transaction: each is read once, changed in memory and written once.
//!
//! All who share a commit share the sums of everybody, and most of them those of a domain: read
//! and written for each of them, these are most of what a slot costs.

use std::collections::{BTreeMap, HashMap};

use ::redb::{ReadableTable as _, Table, WriteTransaction};

use crate::core::policy::{Bucket, Uses};
use crate::store::redb::schema::{Fault, HOURS, USES};

/// Whose sum: its kind, and who it is about; see `schema::scopes`.
type Scope<'a> = (u8, &'a str);
/// Bytes that count; of them, bytes of rows that are gone.
type Used = (u64, u64);

/// The sums, open for writing. What `set` changes is in the tables after `flush`.
pub(super) struct Sums<'t> {
    uses: Table<'t, (u8, &'static str, u64), Used>,
    hours: Table<'t, (u64, u8, &'static str), ()>,
    /// By kind, then by whom.
    known: [HashMap<String, Known>; 3],
}

/// What was read of one scope.
#[derive(Default)]
struct Known {
    /// From this hour on all that is not in `hours` is nothing.
    since: Option<u64>,
    hours: BTreeMap<u64, Sum>,
}

struct Sum {
    now: Used,
    stored: Used,
}

impl Sum {
    fn of(stored: Used) -> Self {
        Self {
            now: stored,
            stored,
        }
    }
}

impl<'t> Sums<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, Fault> {
        Ok(Self {
            uses: transaction.open_table(USES)?,
            hours: transaction.open_table(HOURS)?,
            known: Default::default(),
        })
    }

    /// What a scope used since `since`, by the hour.
    pub(super) fn since(&mut self, scope: Scope<'_>, since: Bucket) -> Result<Uses, Fault> {
        let (kind, who) = scope;
        let known = self.known[usize::from(kind)]
            .entry(who.to_owned())
            .or_default();
        let end = known.since.unwrap_or(u64::MAX);
        if since.0 < end || known.since.is_none() {
            for entry in self.uses.range((kind, who, since.0)..=(kind, who, end))? {
                let (key, stored) = entry?;
                let sum = || Sum::of(stored.value());
                known.hours.entry(key.value().2).or_insert_with(sum);
            }
            known.since = Some(since.0);
        }
        let sums = known.hours.range(since.0..).map(|(hour, sum)| (*hour, sum));
        Ok(sums
            .filter(|(_, sum)| sum.now != (0, 0))
            .map(|(hour, sum)| (Bucket(hour), sum.now.0))
            .collect())
    }

    /// Changes the sum of one hour.
    pub(super) fn change(
        &mut self,
        scope: Scope<'_>,
        hour: u64,
        change: impl FnOnce(Used) -> Used,
    ) -> Result<(), Fault> {
        let (kind, who) = scope;
        let known = self.known[usize::from(kind)]
            .entry(who.to_owned())
            .or_default();
        let is_known = known.since.is_some_and(|since| since <= hour);
        if !is_known && !known.hours.contains_key(&hour) {
            let stored = self.uses.get((kind, who, hour))?;
            let stored = stored.map_or((0, 0), |used| used.value());
            known.hours.insert(hour, Sum::of(stored));
        }
        let sum = known.hours.entry(hour).or_insert(Sum::of((0, 0)));
        sum.now = change(sum.now);
        Ok(())
    }

    /// What a scope used by rows that are gone, by the hour.
    pub(super) fn of_gone(&mut self, scope: Scope<'_>) -> Result<Vec<(u64, u64)>, Fault> {
        self.since(scope, Bucket(0))?;
        let known = self.known[usize::from(scope.0)].get(scope.1);
        let hours = known.into_iter().flat_map(|known| &known.hours);
        let of_gone = hours.map(|(hour, sum)| (*hour, sum.now.1));
        Ok(of_gone.filter(|(_, gone)| 0 < *gone).collect())
    }

    /// Writes what was changed. Must come before the commit.
    pub(super) fn flush(&mut self) -> Result<(), Fault> {
        let scopes = (0..).zip(std::mem::take(&mut self.known));
        for (kind, scopes) in scopes {
            for (who, known) in scopes {
                for (hour, sum) in known.hours {
                    if sum.now != sum.stored {
                        self.write((kind, &who), hour, &sum)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, (kind, who): Scope<'_>, hour: u64, sum: &Sum) -> Result<(), Fault> {
        if sum.now == (0, 0) {
            self.uses.remove((kind, who, hour))?;
            self.hours.remove((hour, kind, who))?;
            return Ok(());
        }
        self.uses.insert((kind, who, hour), sum.now)?;
        if sum.stored == (0, 0) {
            self.hours.insert((hour, kind, who), ())?;
        }
        Ok(())
    }

    /// Forgets up to `n_max` sums of hours before `before`; returns how many there were.
    pub(super) fn forget(&mut self, before: Bucket, n_max: usize) -> Result<usize, Fault> {
        self.flush()?;
        let mut old = Vec::new();
        for entry in self.hours.range(..(before.0, 0, ""))?.take(n_max) {
            let (key, _) = entry?;
            let (hour, kind, who) = key.value();
            old.push((hour, kind, who.to_owned()));
        }
        for (hour, kind, who) in &old {
            self.uses.remove((*kind, who.as_str(), *hour))?;
            self.hours.remove((*hour, *kind, who.as_str()))?;
        }
        Ok(old.len())
    }

    /// Leaves of all sums what rows used that are gone.
    pub(super) fn leave_gone(&mut self) -> Result<(), Fault> {
        self.flush()?;
        let mut of_gone = Vec::new();
        for entry in self.uses.iter()? {
            let (key, used) = entry?;
            let ((kind, who, hour), (_, gone)) = (key.value(), used.value());
            of_gone.push((kind, who.to_owned(), hour, gone));
        }
        self.uses.retain(|_, _| false)?;
        self.hours.retain(|_, ()| false)?;
        for (kind, who, hour, gone) in of_gone {
            self.change((kind, &who), hour, |_| (gone, gone))?;
        }
        Ok(())
    }
}
