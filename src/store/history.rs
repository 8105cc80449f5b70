//! What happened lately, on disk: `history.json` in the data directory.
//!
//! For the status page alone, and worth no more than that: it is written every few minutes, so a
//! crash loses the last of them, and a file that cannot be read is begun anew. It holds counts, and
//! operators' acts with their accounts; no credential and no link.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::core::history::{Act, Kept, Span, Tally};
use crate::core::time::Timestamp;
use crate::store::local::place::replace_file;

/// Name of the file.
pub const FILE: &str = "history.json";
/// A file that is larger was not written by us: 156 spans and 50 acts have less than 100 KiB.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// The file.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryFile {
    minutes: Vec<SpanRow>,
    quarters: Vec<SpanRow>,
    acts: Vec<ActRow>,
}

/// A span: its first second since the epoch, and its counts.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpanRow {
    from: u64,
    uploads: u64,
    bytes: u64,
    resumes: u64,
    refusals: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActRow {
    at: u64,
    by: String,
    what: String,
    is_done: bool,
}

/// Reads what was kept; nothing where nothing was kept yet.
pub fn read(data_dir: &Path) -> io::Result<Kept> {
    let file = match File::open(data_dir.join(FILE)) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
        Err(e) => return Err(e),
    };
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
    if FILE_BYTES_MAX < text.len() as u64 {
        let words = "the file is too large";
        return Err(io::Error::new(io::ErrorKind::InvalidData, words));
    }
    let HistoryFile {
        minutes,
        quarters,
        acts,
    } = serde_json::from_slice(&text)?;
    Ok(Kept {
        minutes: minutes.into_iter().map(Span::from).collect(),
        quarters: quarters.into_iter().map(Span::from).collect(),
        acts: acts.into_iter().map(Act::from).collect(),
    })
}

/// Keeps a history in the place of the one before.
pub fn write(data_dir: &Path, kept: Kept) -> io::Result<()> {
    let file = HistoryFile {
        minutes: kept.minutes.into_iter().map(SpanRow::from).collect(),
        quarters: kept.quarters.into_iter().map(SpanRow::from).collect(),
        acts: kept.acts.into_iter().map(ActRow::from).collect(),
    };
    replace_file(&data_dir.join(FILE), &serde_json::to_vec(&file)?)
}

impl From<SpanRow> for Span {
    fn from(row: SpanRow) -> Self {
        Self {
            from: Timestamp(row.from),
            tally: Tally {
                uploads: row.uploads,
                bytes: row.bytes,
                resumes: row.resumes,
                refusals: row.refusals,
            },
        }
    }
}

impl From<Span> for SpanRow {
    fn from(Span { from, tally }: Span) -> Self {
        Self {
            from: from.0,
            uploads: tally.uploads,
            bytes: tally.bytes,
            resumes: tally.resumes,
            refusals: tally.refusals,
        }
    }
}

impl From<ActRow> for Act {
    fn from(row: ActRow) -> Self {
        Self {
            at: Timestamp(row.at),
            by: row.by,
            what: row.what,
            is_done: row.is_done,
        }
    }
}

impl From<Act> for ActRow {
    fn from(act: Act) -> Self {
        Self {
            at: act.at.0,
            by: act.by,
            what: act.what,
            is_done: act.is_done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::core::history::{ACT_CHARS_MAX, ACTS_MAX};

    /// As much as there can be.
    fn full() -> Kept {
        let tally = Tally {
            uploads: u64::MAX,
            bytes: u64::MAX,
            resumes: u64::MAX,
            refusals: u64::MAX,
        };
        let spans = |n| {
            let from = Timestamp(u64::MAX);
            vec![Span { from, tally }; n]
        };
        let act = Act {
            at: Timestamp(u64::MAX),
            // What JSON spells the longest.
            by: "\u{1}".repeat(ACT_CHARS_MAX),
            what: "\u{1}".repeat(ACT_CHARS_MAX),
            is_done: false,
        };
        Kept {
            minutes: spans(60),
            quarters: spans(96),
            acts: vec![act; ACTS_MAX],
        }
    }

    #[test]
    fn what_was_kept_is_read_again() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(read(dir.path()).expect("nothing yet"), Kept::default());
        for kept in [full(), Kept::default()] {
            write(dir.path(), kept.clone()).expect("written");
            assert_eq!(read(dir.path()).expect("readable"), kept);
        }
    }

    #[test]
    fn what_is_damaged_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let huge = " ".repeat(300 * 1024);
        let negative = r#"{"minutes":[],"quarters":[],"acts":[],"more":1}"#;
        for text in ["", "{", "[]", negative, &huge] {
            fs::write(dir.path().join(FILE), text).expect("written");
            assert!(read(dir.path()).is_err());
        }
    }
}
