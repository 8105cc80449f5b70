//! What is shown of the configuration, and of reading it anew.

use super::form::{Report, Table, Tone};
use super::operation::{Configured, Reloaded};

/// Options in a table: all that there are, and some exceptions of quotas.
const ROWS_MAX: usize = 200;
/// The longest value, in characters.
const VALUE_CHARS_MAX: usize = 200;
/// Lines of what is wrong or changed.
const LINES_MAX: usize = 50;

/// Every option with its value; those that somebody set first.
pub fn configuration(report: Report, rows: &[Configured]) -> Report {
    let (mut ordered, unset): (Vec<_>, Vec<_>) = rows.iter().partition(|row| !row.is_default);
    ordered.extend(unset);
    let row = |row: &&Configured| {
        let is_default = match row.is_default {
            true => "default",
            false => "",
        };
        vec![row.key.clone(), short(&row.value), is_default.to_owned()]
    };
    let table = Table {
        columns: vec![
            ("key", "Option"),
            ("value", "Value"),
            ("default", "Default"),
        ],
        rows: ordered.iter().take(ROWS_MAX).map(row).collect(),
    };
    let report = Report {
        table: Some(table),
        ..report
    };
    match rows.len().checked_sub(ROWS_MAX) {
        None | Some(0) => report,
        Some(n) => report.note(Tone::Warn, format!("{n} more are not shown")),
    }
}

/// What came of reading the configuration anew.
pub fn reloaded(report: Report, reloaded: &Reloaded) -> Report {
    match reloaded {
        Reloaded::Refused(faults) => {
            let report = report.note(Tone::Error, "The configuration is broken; nothing changed");
            lines(report, Tone::Error, faults)
        }
        Reloaded::Done { changed, warnings } => {
            let words = match changed.as_slice() {
                [] => "Nothing changed".to_owned(),
                changed => short(&format!("Changed: {}", changed.join(", "))),
            };
            lines(report.note(Tone::Info, words), Tone::Warn, warnings)
        }
    }
}

fn lines(mut report: Report, tone: Tone, lines: &[String]) -> Report {
    for line in lines.iter().take(LINES_MAX) {
        report = report.note(tone, line);
    }
    match lines.len().checked_sub(LINES_MAX) {
        None | Some(0) => report,
        Some(n) => report.note(tone, format!("{n} more are in the log")),
    }
}

fn short(text: &str) -> String {
    let mut short: String = text.chars().take(VALUE_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_set_comes_first_and_long_lists_are_cut() {
        let row = |key: &str, is_default| Configured {
            key: key.to_owned(),
            value: "x".repeat(VALUE_CHARS_MAX + 1),
            is_default,
        };
        let mut rows = vec![row("a", true), row("b", false)];
        let shown = configuration(Report::default(), &rows)
            .table
            .expect("a table");
        let keys: Vec<_> = shown.rows.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(keys, ["b", "a"]);
        assert_eq!(shown.rows[0][1].len(), VALUE_CHARS_MAX + 3);
        rows.extend((0..ROWS_MAX).map(|_| row("c", false)));
        let shown = configuration(Report::default(), &rows);
        assert_eq!(shown.notes.len(), 1);
        assert_eq!(shown.table.expect("a table").rows.len(), ROWS_MAX);
    }

    #[test]
    fn what_is_wrong_is_told_line_by_line() {
        let refused = Reloaded::Refused(vec!["slotd.toml:3: limits.idle_for: no".to_owned(); 60]);
        let shown = reloaded(Report::default(), &refused);
        assert_eq!(shown.notes.len(), 1 + LINES_MAX + 1);
        assert!(shown.notes.iter().all(|(tone, _)| *tone == Tone::Error));
    }
}
