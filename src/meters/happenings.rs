//! Counts what happens, from the events that the service tells.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::Meters;
use super::book::{Book, DISK_SECONDS, LIFE_SECONDS, SIZE_BYTES, TRANSFER_SECONDS, Words};
use crate::core::event::{Event, Resumed};
use crate::core::session::{Agreement, UploadSession};
use crate::core::time::Timestamp;

/// Counters of events.
pub struct Happenings {
    slots_issued: Words<IntCounter>,
    slots_issued_bytes: IntCounter,
    slots_refused: IntCounterVec,
    uploads_begun: IntCounter,
    uploads_complete: IntCounter,
    upload_size_bytes: Histogram,
    upload_seconds: Histogram,
    upload_life_seconds: Histogram,
    uploads_resumed: IntCounter,
    resume_gap_seconds: Histogram,
    resent_bytes: IntCounter,
    network_changes: IntCounter,
    uploads_interrupted: IntCounterVec,
    uploads_taken_over: IntCounter,
    uploads_rejected: Words<IntCounter>,
    uploads_replayed: IntCounter,
    uploads_cancelled: Words<IntCounter>,
    sessions_refreshed: IntCounter,
    downloads: IntCounter,
    download_bytes: IntCounter,
    download_seconds: Histogram,
    requests_refused: IntCounterVec,
    removed: Words<IntCounter>,
    removed_bytes: Words<IntCounter>,
    sweep_seconds: Histogram,
    sweep_failed: IntCounter,
    sweep_resting: IntGauge,
    commands: Words<IntCounter>,
    commands_refused: IntCounterVec,
    warm_bindings: IntCounterVec,
    keys_changed: IntCounter,
    reloads: Words<IntCounter>,
    bans: Words<IntCounter>,
    unbans: Words<IntCounter>,
}

const KINDS: &[&str] = &["plain", "session", "external"];
const FAILURES: &[&str] = &["digest-mismatch", "size-mismatch", "policy"];
const CANCELLERS: &[&str] = &["owner", "resume-url", "command"];
const REMOVALS: &[&str] = &[
    "retention",
    "total-size",
    "unfinished",
    "command",
    "purge",
    "external",
];

impl Happenings {
    /// All at zero.
    #[rustfmt::skip]
    pub fn new(book: &Book<'_>) -> Self {
        Self {
            slots_issued: book.counters_of("slotd_slots_issued_total", "Slots given out, plain or with an upload session, and uploads that other systems let in", "kind", KINDS),
            slots_issued_bytes: book.counter("slotd_slots_issued_bytes_total", "Bytes of the files that slots were given out for"),
            slots_refused: book.counters("slotd_slots_refused_total", "Slot requests refused, quotas and rates among them", "reason"),
            uploads_begun: book.counter("slotd_uploads_begun_total", "Uploads whose first request was admitted"),
            uploads_complete: book.counter("slotd_uploads_complete_total", "Uploads whose file is there and was acknowledged"),
            upload_size_bytes: book.histogram("slotd_upload_size_bytes", "Sizes of complete uploads", SIZE_BYTES),
            upload_seconds: book.histogram("slotd_upload_seconds", "How long the request took that completed an upload", TRANSFER_SECONDS),
            upload_life_seconds: book.histogram("slotd_upload_life_seconds", "How long it took from slot to file", LIFE_SECONDS),
            uploads_resumed: book.counter("slotd_uploads_resumed_total", "Requests that went on with an upload, or began it again"),
            resume_gap_seconds: book.histogram("slotd_resume_gap_seconds", "How long no byte had come before an upload went on", LIFE_SECONDS),
            resent_bytes: book.counter("slotd_resent_bytes_total", "Bytes that were durable and came once more"),
            network_changes: book.counter("slotd_network_changes_total", "Requests that went on with an upload from another network"),
            uploads_interrupted: book.counters("slotd_uploads_interrupted_total", "Upload requests that ended before their last byte", "reason"),
            uploads_taken_over: book.counter("slotd_uploads_taken_over_total", "Upload requests that ended because something newer came"),
            uploads_rejected: book.counters_of("slotd_uploads_rejected_total", "Uploads of which other bytes came than were promised", "reason", FAILURES),
            uploads_replayed: book.counter("slotd_uploads_replayed_total", "Complete uploads that came again and got their answer again"),
            uploads_cancelled: book.counters_of("slotd_uploads_cancelled_total", "Uploads given up", "by", CANCELLERS),
            sessions_refreshed: book.counter("slotd_sessions_refreshed_total", "Upload sessions that got new credentials"),
            downloads: book.counter("slotd_downloads_total", "Answers to GET with a file or a part of it"),
            download_bytes: book.counter("slotd_download_bytes_total", "Bytes of files sent by slotd itself"),
            download_seconds: book.histogram("slotd_download_seconds", "How long answers to GET took", TRANSFER_SECONDS),
            requests_refused: book.counters("slotd_requests_refused_total", "HTTP requests refused", "reason"),
            removed: book.counters_of("slotd_removed_total", "Uploads and files removed", "reason", REMOVALS),
            removed_bytes: book.counters_of("slotd_removed_bytes_total", "Sizes of the uploads and files removed", "reason", REMOVALS),
            sweep_seconds: book.histogram("slotd_sweep_seconds", "How long a batch of the sweep took", DISK_SECONDS),
            sweep_failed: book.counter("slotd_sweep_failed_total", "Uploads and files that were due and would not go"),
            sweep_resting: book.gauge("slotd_sweep_resting", "Whether the last sweep could look at nothing"),
            commands: book.counters_of("slotd_commands_total", "Commands that came to their end", "by", &["operator", "account"]),
            commands_refused: book.counters("slotd_commands_refused_total", "Commands that came to nothing", "reason"),
            warm_bindings: book.counters("slotd_warm_bindings_total", "BOSH sessions asked for to hand on, and what came of it", "outcome"),
            keys_changed: book.counter("slotd_keys_changed_total", "How often other signing keys came into use"),
            reloads: book.counters_of("slotd_reloads_total", "How often the configuration was read again", "outcome", &["taken", "refused"]),
            bans: book.counters_of("slotd_bans_total", "Bans of accounts, domains and networks", "by", &["operator", "failures"]),
            unbans: book.counters_of("slotd_unbans_total", "Bans that ended", "by", &["operator", "time"]),
        }
    }

    fn count_complete(&self, row: &UploadSession, took: Duration, now: Timestamp) {
        self.uploads_complete.inc();
        self.upload_size_bytes.observe(row.file.size_bytes as f64);
        self.upload_seconds.observe(took.as_secs_f64());
        let life = now.since(row.created_at);
        self.upload_life_seconds.observe(life.as_secs_f64());
    }

    fn count_resumed(&self, resumed: &Resumed) {
        self.uploads_resumed.inc();
        self.resume_gap_seconds.observe(resumed.gap.as_secs_f64());
        self.resent_bytes.inc_by(resumed.resent_bytes);
        if resumed.is_other_network {
            self.network_changes.inc();
        }
    }

    fn count_sweep(&self, n_failed: usize, is_resting: bool, took: Duration) {
        self.sweep_failed.inc_by(n_failed as u64);
        self.sweep_resting.set(is_resting.into());
        self.sweep_seconds.observe(took.as_secs_f64());
    }
}

impl Meters {
    /// Counts one event.
    pub fn count(&self, event: &Event<'_>, now: Timestamp) {
        let all = &self.happenings;
        let inc = |counters: &IntCounterVec, word| counters.with_label_values(&[word]).inc();
        match *event {
            Event::SlotIssued { row } => {
                let kind = match row.agreement {
                    Agreement::Slot | Agreement::Resumable => "plain",
                    Agreement::Session(_) => "session",
                    Agreement::External { .. } => "external",
                };
                all.slots_issued.get(kind).inc();
                all.slots_issued_bytes.inc_by(row.file.size_bytes);
            }
            Event::SlotRefused { refusal, .. } => inc(&all.slots_refused, refusal.name()),
            Event::UploadBegun { .. } => all.uploads_begun.inc(),
            Event::UploadResumed { ref resumed, .. } => all.count_resumed(resumed),
            Event::UploadInterrupted { why, .. } => inc(&all.uploads_interrupted, why.name()),
            Event::UploadTakenOver { .. } => all.uploads_taken_over.inc(),
            Event::UploadRejected { reason, .. } => all.uploads_rejected.get(reason.as_str()).inc(),
            Event::UploadComplete { row, took } => all.count_complete(row, took, now),
            Event::UploadReplayed { .. } => all.uploads_replayed.inc(),
            Event::UploadCancelled { by, .. } => all.uploads_cancelled.get(by.into()).inc(),
            Event::SessionRefreshed { .. } => all.sessions_refreshed.inc(),
            Event::FileServed { n_bytes, took, .. } => {
                all.downloads.inc();
                all.download_bytes.inc_by(n_bytes);
                all.download_seconds.observe(took.as_secs_f64());
            }
            Event::RequestRefused { refusal } => inc(&all.requests_refused, refusal.name()),
            Event::Removed { row, reason } => {
                all.removed.get(reason.into()).inc();
                all.removed_bytes
                    .get(reason.into())
                    .inc_by(row.file.size_bytes);
            }
            #[rustfmt::skip]
            Event::Swept { n_failed, is_resting, took, .. } => {
                all.count_sweep(n_failed, is_resting, took);
            }
            #[rustfmt::skip]
            Event::CommandRun { is_operator, outcome, .. } => {
                all.commands.get(if is_operator { "operator" } else { "account" }).inc();
                if let Err(refusal) = outcome {
                    inc(&all.commands_refused, refusal.name());
                }
            }
            Event::WarmBinding { outcome, .. } | Event::WarmBindingDenied { outcome, .. } => {
                inc(&all.warm_bindings, outcome);
            }
            Event::KeysChanged { .. } => all.keys_changed.inc(),
            Event::Reloaded { outcome } => {
                all.reloads
                    .get(if outcome.is_ok() { "taken" } else { "refused" })
                    .inc();
            }
            Event::Banned { by, .. } => {
                all.bans.get(by.map_or("failures", |_| "operator")).inc();
            }
            Event::Unbanned { by, .. } => all.unbans.get(by.map_or("time", |_| "operator")).inc(),
            // The process' own age, and gauges, tell of these.
            Event::Started | Event::Stopping | Event::Draining { .. } => {}
        }
    }
}
