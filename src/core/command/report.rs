//! What is shown of an outcome: facts, tables and words. Sizes and times as people read them in
//! any language: `1.5 MiB`, `2026-11-22T08:00:00Z`, `2h 5m`.

use std::time::Duration;

use bytesize::ByteSize;

use super::bans::{bans_of, change_of};
use super::export;
use super::form::{Report, Table, Tone};
use super::operation::{Exception, Exceptions, Outcome, Overview, Page, Ping, Seen, Usage};
use super::settings;
use crate::core::session::network::Network;
use crate::core::session::{State, UploadSession};
use crate::core::time::Timestamp;

/// The longest file name in a table, in characters.
const NAME_CHARS_MAX: usize = 40;

/// What is shown of an outcome.
pub fn report(title: &str, outcome: &Outcome) -> Report {
    let report = Report::new(title);
    match outcome {
        Outcome::Overview(overview) => overview_of(report, overview),
        Outcome::Uploads(page, now) => uploads_of(report, page, *now),
        Outcome::Upload(seen, now) => upload_of(report, seen, *now),
        Outcome::Usage(usage) => usage_of(report, usage),
        Outcome::Removed(seen) => report.note(Tone::Info, format!("Removed: {}", file_line(seen))),
        Outcome::Purged {
            n_removed,
            n_bytes,
            n_failed,
        } => {
            let words = format!("Removed: {n_removed} uploads, {} of files", size(*n_bytes));
            failed(report.note(Tone::Info, words), *n_failed)
        }
        Outcome::Bans(found, now) => bans_of(report, found, *now),
        Outcome::Ban(change, now) => change_of(report, change, *now),
        Outcome::Swept {
            is_resting: true, ..
        } => report.note(Tone::Warn, "Nothing is swept just now; the log says why"),
        Outcome::Swept {
            n_removed,
            n_failed,
            ..
        } => {
            let report = report.note(Tone::Info, format!("Removed: {n_removed}"));
            failed(report, *n_failed)
        }
        Outcome::Rotated(n_keys) => report.note(
            Tone::Info,
            format!("A new key signs; {n_keys} keys open what was signed before"),
        ),
        Outcome::Draining(true, n_active) => report.note(
            Tone::Info,
            format!("No more slots are given out; {n_active} uploads are coming in"),
        ),
        Outcome::Draining(false, _) => report.note(Tone::Info, "Slots are given out again"),
        Outcome::Tested(steps, ping) => tested(report, steps, *ping),
        Outcome::Configuration(rows) => settings::configuration(report, rows),
        Outcome::Reloaded(reloaded) => settings::reloaded(report, reloaded),
        Outcome::Exceptions(exceptions) => exceptions_of(report, exceptions),
        Outcome::ExceptionSet(jid, Some(limit)) => {
            report.note(Tone::Info, format!("{jid}: {}", limit_words(*limit)))
        }
        Outcome::ExceptionSet(jid, None) => report.note(
            Tone::Info,
            format!("{jid}: what the configuration says holds"),
        ),
        Outcome::Note(Some(note)) | Outcome::Noted(Some(note)) => report.note(Tone::Info, note),
        Outcome::Note(None) | Outcome::Noted(None) => {
            report.note(Tone::Info, "There is no note to everybody")
        }
        Outcome::Records(records) => Report {
            facts: vec![("records", "Records", export::lines(records))],
            ..report
        },
    }
}

fn exceptions_of(report: Report, exceptions: &Exceptions) -> Report {
    if exceptions.page.is_empty() {
        return report.note(Tone::Info, "Nobody has a quota exception");
    }
    let row = |it: &Exception| {
        let by = match it.is_said {
            true => "command",
            false => "configuration",
        };
        vec![it.jid.to_string(), limit_words(it.limit), by.to_owned()]
    };
    Report {
        table: Some(Table {
            columns: vec![("account", "Of"), ("quota", "Quota"), ("by", "Set by")],
            rows: exceptions.page.iter().map(row).collect(),
        }),
        ..report
    }
}

/// A quota exception's size.
pub(super) fn limit_words(limit: u64) -> String {
    match limit {
        u64::MAX => "none".to_owned(),
        limit => size(limit),
    }
}

fn failed(report: Report, n_failed: usize) -> Report {
    match n_failed {
        0 => report,
        n => {
            let words = format!("{n} could not be removed; the log says why");
            report.note(Tone::Warn, words)
        }
    }
}

fn overview_of(report: Report, overview: &Overview) -> Report {
    let report = report
        .fact("uptime", "Running for", seconds_words(overview.uptime))
        .fact("active", "Uploads coming in", overview.n_active.to_string())
        .fact("files", "Files", overview.n_files.to_string())
        .fact("stored", "Their size", size(overview.stored_bytes))
        .fact("rows", "Uploads known of", overview.n_rows.to_string())
        .fact("free", "Free on the disk", size(overview.free.bytes))
        .fact("keys", "Signing keys", overview.n_keys.to_string());
    let report = match &overview.note {
        Some(note) => report.fact("note", "Note to everybody", note),
        None => report,
    };
    match overview.is_draining {
        false => report,
        true => report.note(
            Tone::Warn,
            "No slots are given out: see \"Give out slots again\"",
        ),
    }
}

fn uploads_of(report: Report, page: &Page, now: Timestamp) -> Report {
    let columns = vec![
        ("upload", "Upload"),
        ("account", "Account"),
        ("file", "File"),
        ("size", "Size"),
        ("progress", "Here"),
        ("state", "State"),
        ("age", "Age"),
    ];
    let row = |seen: &Seen| {
        vec![
            seen.row.id.short(),
            seen.row.owner.to_string(),
            short_name(&seen.row),
            size(seen.row.file.size_bytes),
            progress(seen),
            state(seen, now),
            seconds_words(now.since(seen.row.created_at)),
        ]
    };
    let rows: Vec<_> = page.uploads.iter().map(row).collect();
    let mut report = report;
    if page.is_cut {
        let words = "There are too many uploads to look at all; a narrower search sees more";
        report = report.note(Tone::Warn, words);
    }
    if 0 < page.n_unreadable {
        let words = format!(
            "{} uploads cannot be read; see slotd audit",
            page.n_unreadable
        );
        report = report.note(Tone::Warn, words);
    }
    if rows.is_empty() {
        return report.note(Tone::Info, "There is nothing more to show");
    }
    report.table = Some(Table { columns, rows });
    report
}

fn upload_of(report: Report, seen: &Seen, now: Timestamp) -> Report {
    let row = &seen.row;
    let mut report = report
        .fact("upload", "Upload", row.id.short())
        .fact("account", "Account", row.owner.to_string())
        .fact("file", "File", row.file.name.as_str())
        .fact("type", "Type", row.file.content_type.as_str())
        .fact("size", "Size", size(row.file.size_bytes))
        .fact("state", "State", state(seen, now))
        .fact("progress", "Here", progress(seen))
        .fact("created", "Slot given out", row.created_at.to_xep0082())
        .fact("last-byte", "Last byte", seen.last_byte_at.to_xep0082())
        .fact("expires", "Ends at the latest", row.expires_at.to_xep0082())
        .fact("generation", "Generation", row.generation.to_string())
        .fact("refreshes", "Refreshes", row.refreshes.to_string())
        .fact("attempts", "Attempts", row.n_attempts.to_string());
    if let Some(keep_until) = row.keep_until {
        report = report.fact("keep-until", "File kept until", keep_until.to_xep0082());
    }
    let network = |network: &Network| {
        let known = [&network.address, &network.agent].into_iter().flatten();
        let known: Vec<_> = known.map(String::as_str).collect();
        format!("{} {}", network.at.to_xep0082(), known.join(" "))
    };
    if !row.networks.is_empty() {
        let all = row.networks.iter().map(network).collect();
        report.facts.push(("networks", "Came from", all));
    }
    report
}

fn usage_of(report: Report, usage: &Usage) -> Report {
    let quota = match usage.quota_bytes {
        Some(bytes) if usage.is_said => format!("{} (set by an operator)", limit_words(bytes)),
        Some(bytes) => limit_words(bytes),
        None => "-".to_owned(),
    };
    let n_files = match usage.is_cut {
        true => format!("more than {}", usage.n_files),
        false => usage.n_files.to_string(),
    };
    report
        .fact("account", "Account", usage.owner.to_string())
        .fact("used", "Asked for lately", size(usage.used_bytes))
        .fact("quota", "Of at most", quota)
        .fact("window", "Within", seconds_words(usage.window))
        .fact("files", "Files", n_files)
        .fact("stored", "Their size", size(usage.stored_bytes))
        .fact(
            "open",
            "Open upload sessions",
            usage.n_open_sessions.to_string(),
        )
}

fn tested(report: Report, steps: &[(&'static str, Duration)], ping: Ping) -> Report {
    let row = |(step, took): &(&'static str, Duration)| {
        vec![
            (*step).to_owned(),
            format!("{:.1} ms", took.as_secs_f64() * 1000.0),
        ]
    };
    let mut rows: Vec<_> = steps.iter().map(row).collect();
    let report = match ping {
        Ping::Answered(took) => {
            rows.push(row(&("answer of the XMPP server", took)));
            report.note(Tone::Info, "All is well")
        }
        Ping::Silent => report.note(
            Tone::Warn,
            "The store is well; the XMPP server did not answer",
        ),
        Ping::NotSent => report.note(
            Tone::Info,
            "The store is well; the XMPP server was not asked",
        ),
    };
    let columns = vec![("step", "Step"), ("took", "Took")];
    Report {
        table: Some(Table { columns, rows }),
        ..report
    }
}

/// An upload on one line.
pub(super) fn file_line(seen: &Seen) -> String {
    let row = &seen.row;
    let (name, owner) = (short_name(row), &row.owner);
    format!(
        "{name}, {}, {} here, {owner}",
        size(row.file.size_bytes),
        progress(seen)
    )
}

fn short_name(row: &UploadSession) -> String {
    let name = row.file.name.as_str();
    let mut short: String = name.chars().take(NAME_CHARS_MAX).collect();
    if short.len() < name.len() {
        short.push('\u{2026}');
    }
    short
}

fn state(seen: &Seen, now: Timestamp) -> String {
    let standing = seen.row.standing(now).as_str();
    match seen.is_active {
        true => format!("{standing}, active"),
        false => standing.to_owned(),
    }
}

fn progress(seen: &Seen) -> String {
    let size_bytes = seen.row.file.size_bytes;
    let here = match seen.row.state {
        State::Complete { .. } => size_bytes,
        _ => seen.offset,
    };
    match size_bytes {
        0 => "100 %".to_owned(),
        // Never 100 before the last byte.
        _ => format!("{} %", u128::from(here) * 100 / u128::from(size_bytes)),
    }
}

fn size(n_bytes: u64) -> String {
    ByteSize::b(n_bytes).display().iec().to_string()
}

/// A span of time by its two largest units: `3days 4h`.
pub(super) fn seconds_words(span: Duration) -> String {
    let words = humantime::format_duration(Duration::from_secs(span.as_secs())).to_string();
    let units: Vec<_> = words.split(' ').take(2).collect();
    units.join(" ")
}
