//! What the service's parts do: requests, streams, stores.

use std::time::Duration;

use prometheus::{Histogram, HistogramTimer, IntCounter, IntCounterVec, IntGauge};

use super::book::{Book, COUNTS, DISK_SECONDS, Words};

/// Meters of the parts, each reached without a look-up by whoever has something to count.
pub struct Work {
    requests: Vec<Words<IntCounter>>,
    received_bytes: IntCounter,
    sent_bytes: IntCounter,
    connections: IntGauge,
    connections_refused: IntCounter,
    iq_seconds: Words<Histogram>,
    iqs_refused: IntCounterVec,
    logins: Words<IntCounter>,
    streams_ended: Words<IntCounter>,
    row_write_seconds: Histogram,
    commit_seconds: Histogram,
    commit_writes: Histogram,
    commits_failed: IntCounter,
    fsync_seconds: Words<Histogram>,
    file_store_seconds: Words<Histogram>,
    store_errors: Words<IntCounter>,
}

const METHODS: &[&str] = &["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];
const STATUSES: &[&str] = &["cut", "1xx", "2xx", "3xx", "4xx", "5xx"];
const ASKS: &[&str] = &[
    "slot",
    "legacy-slot",
    "query",
    "list",
    "refresh",
    "cancel",
    "command",
];
const ENDS: &[&str] = &["stopped", "closed", "silent", "stuck", "broken", "error"];
const STORE_ERRORS: &[&str] = &["no-space", "corrupt", "unavailable"];

/// What is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synced {
    /// The database.
    Database,
    /// The bytes of a file or part.
    File,
    /// A directory, for the names in it.
    Directory,
}

impl Work {
    /// All at zero.
    #[rustfmt::skip]
    pub fn new(book: &Book<'_>) -> Self {
        let disk = DISK_SECONDS;
        Self {
            requests: book.counters_by("slotd_requests_total", "HTTP requests answered; cut: the connection was, in place of an answer", ("method", METHODS), ("status", STATUSES)),
            received_bytes: book.counter("slotd_received_bytes_total", "Bytes of the bodies of HTTP requests"),
            sent_bytes: book.counter("slotd_sent_bytes_total", "Bytes of the bodies of answers over HTTP"),
            connections: book.gauge("slotd_connections", "HTTP connections"),
            connections_refused: book.counter("slotd_connections_refused_total", "HTTP connections refused as too many of one address"),
            iq_seconds: book.histograms_of("slotd_iq_seconds", "How long IQs that need the store waited for their answer", disk, ("request", ASKS)),
            iqs_refused: book.counters("slotd_iqs_refused_total", "IQs answered with an error, slot requests among them", "reason"),
            logins: book.counters_of("slotd_logins_total", "Attempts to log in to an XMPP server", "outcome", &["done", "failed"]),
            streams_ended: book.counters_of("slotd_streams_ended_total", "Component streams that ended", "reason", ENDS),
            row_write_seconds: book.histogram("slotd_row_write_seconds", "How long writers waited until their row was durable", disk),
            commit_seconds: book.histogram("slotd_commit_seconds", "How long commits of the database took", disk),
            commit_writes: book.histogram("slotd_commit_writes", "Writers that shared a commit", COUNTS),
            commits_failed: book.counter("slotd_commits_failed_total", "Commits of the database that failed"),
            fsync_seconds: book.histograms_of("slotd_fsync_seconds", "How long syncs to the disk took", disk, ("of", &["database", "file", "directory"])),
            file_store_seconds: book.histograms_of("slotd_file_store_seconds", "How long it took to keep a small file, to make a part the file, and to settle a part", disk, ("step", &["keep", "commit", "settle"])),
            store_errors: book.counters_of("slotd_store_errors_total", "Calls of the stores that failed", "kind", STORE_ERRORS),
        }
    }

    /// Counts a request when its answer is gone; no status where the connection was cut.
    pub fn count_request(&self, method: &str, status: Option<u16>) {
        let method = METHODS.iter().position(|known| *known == method);
        let statuses = &self.requests[method.unwrap_or(METHODS.len() - 1)];
        let class = status.map_or(0, |status| usize::from(status / 100));
        statuses.get(STATUSES[class.min(STATUSES.len() - 1)]).inc();
    }

    /// Counts the bytes of a request's body, and of its answer's.
    pub fn count_bytes(&self, n_received: u64, n_sent: u64) {
        for (counter, n_bytes) in [
            (&self.received_bytes, n_received),
            (&self.sent_bytes, n_sent),
        ] {
            // Most requests have bytes in one direction alone.
            if n_bytes != 0 {
                counter.inc_by(n_bytes);
            }
        }
    }

    /// Counts a connection until what this returns is dropped.
    pub fn hold_connection(&self) -> HeldConnection<'_> {
        self.connections.inc();
        HeldConnection(self)
    }

    /// Counts a connection that was turned away.
    pub fn refuse_connection(&self) {
        self.connections_refused.inc();
    }

    /// Measures an IQ until what this returns is dropped.
    pub fn time_iq(&self, request: &str) -> HistogramTimer {
        self.iq_seconds.get(request).start_timer()
    }

    /// Counts an IQ that is answered with an error.
    pub fn refuse_iq(&self, reason: &'static str) {
        self.iqs_refused.with_label_values(&[reason]).inc();
    }

    /// Counts an attempt to log in.
    pub fn count_login(&self, is_done: bool) {
        self.logins
            .get(if is_done { "done" } else { "failed" })
            .inc();
    }

    /// Counts the end of a stream.
    pub fn count_stream_end(&self, reason: &str) {
        self.streams_ended.get(reason).inc();
    }

    /// Measures a writer until its row is durable, which is when this is dropped.
    pub fn time_row_write(&self) -> HistogramTimer {
        self.row_write_seconds.start_timer()
    }

    /// Measures a commit of `n_writes`.
    pub fn count_commit(&self, n_writes: usize, took: Duration, is_done: bool) {
        self.commit_writes.observe(n_writes as f64);
        self.commit_seconds.observe(took.as_secs_f64());
        if !is_done {
            self.commits_failed.inc();
        }
    }

    /// Measures a sync until what this returns is dropped.
    pub fn time_sync(&self, of: Synced) -> HistogramTimer {
        let of = match of {
            Synced::Database => "database",
            Synced::File => "file",
            Synced::Directory => "directory",
        };
        self.fsync_seconds.get(of).start_timer()
    }

    /// Measures a step of the file store until what this returns is dropped.
    pub fn time_file_store(&self, step: &str) -> HistogramTimer {
        self.file_store_seconds.get(step).start_timer()
    }

    /// Counts a call of a store that failed.
    pub fn count_store_error(&self, kind: &str) {
        self.store_errors.get(kind).inc();
    }
}

/// A connection that is counted.
pub struct HeldConnection<'w>(&'w Work);

impl Drop for HeldConnection<'_> {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}
