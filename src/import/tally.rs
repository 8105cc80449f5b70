//! What an import did, or would do: counted, and told as a table.

use std::fmt;

use serde::Serialize;

/// Odd things that are told; more are counted.
const ODDS_MAX: usize = 1000;

/// Files and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How many.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
}

impl Count {
    /// One more.
    pub fn add(&mut self, n_bytes: u64) {
        self.files += 1;
        self.bytes += n_bytes;
    }
}

/// Something that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Odd {
    /// Where it is.
    pub name: String,
    /// Why it was not taken.
    pub why: String,
}

/// What came of all that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Whether nothing was changed.
    pub is_dry_run: bool,
    /// Taken, or to be taken.
    pub taken: Count,
    /// Here already.
    pub here: Count,
    /// Past their time.
    pub over: Count,
    /// Slots that no file came to.
    pub unused: u64,
    /// What was refused.
    pub refused: u64,
    /// Of that, up to a thousand.
    pub odds: Vec<Odd>,
}

impl Tally {
    /// One more that is refused.
    pub fn refuse(&mut self, name: String, why: String) {
        self.refused += 1;
        if self.odds.len() < ODDS_MAX {
            self.odds.push(Odd { name, why });
        }
    }

    /// A line for each that was refused, as far as they are remembered.
    pub fn refusals(&self) -> Vec<String> {
        let line = |odd: &Odd| format!("refused: {}: {}", odd.name, odd.why);
        let mut lines: Vec<_> = self.odds.iter().map(line).collect();
        let more = self.refused - self.odds.len() as u64;
        if 0 < more {
            lines.push(format!("refused: and {more} more"));
        }
        lines
    }
}

/// The table.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken = match self.is_dry_run {
            true => "to be taken",
            false => "taken",
        };
        let size = |count: Count| super::size(count.bytes);
        writeln!(f, "{:>12} {:>12}", "files", "size")?;
        for (count, what) in [
            (self.taken, taken),
            (self.here, "there already"),
            (self.over, "past their time"),
        ] {
            writeln!(f, "{:>12} {:>12}  {what}", count.files, size(count))?;
        }
        write!(f, "{:>12} {:>12}  refused", self.refused, "")?;
        if 0 < self.unused {
            write!(f, "\n{:>12} {:>12}  slots without a file", self.unused, "")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_was_done() {
        let mut tally = Tally::default();
        tally.taken.add(3 << 20);
        tally.here.add(10);
        let table = tally.to_string();
        let rows: Vec<_> = table.lines().map(str::trim).collect();
        assert_eq!(
            rows,
            [
                "files         size",
                "1      3.0 MiB  taken",
                "1         10 B  there already",
                "0          0 B  past their time",
                "0               refused",
            ]
        );
        tally.is_dry_run = true;
        tally.unused = 7;
        let table = tally.to_string();
        assert!(table.contains("to be taken") && table.ends_with("slots without a file"));
    }

    #[test]
    fn what_is_odd_has_an_end() {
        let mut tally = Tally::default();
        for n in 0..ODDS_MAX + 5 {
            tally.refuse(n.to_string(), "no reason".to_owned());
        }
        let lines = tally.refusals();
        assert_eq!(lines.len(), ODDS_MAX + 1);
        assert_eq!(lines[3], "refused: 3: no reason");
        assert_eq!(lines[ODDS_MAX], "refused: and 5 more");
    }
}
