//! What is not counted as it happens, but looked at when somebody asks.

use std::time::Duration;

use prometheus::process_collector::ProcessCollector;
use prometheus::{Counter, IntGauge, IntGaugeVec, Opts};
use tokio::runtime::RuntimeMetrics;

use super::book::Book;
use crate::core::health::StreamCount;
use crate::core::policy::Room;

/// What was seen of the service.
#[derive(Clone, Debug)]
pub struct Now {
    /// Whether slots can be asked for and uploads taken.
    pub is_ready: bool,
    /// Whether an operator said that no slots are given out.
    pub is_draining: bool,
    /// What the stores hold; `None` where they do not answer.
    pub stock: Option<Stock>,
    /// How long the service has run.
    pub uptime: Duration,
    /// How many uploads come in.
    pub n_active: usize,
    /// How many signing keys are in use.
    pub n_keys: usize,
    /// The streams of all components.
    pub streams: Vec<StreamCount>,
    /// What has to stay free on the disk.
    pub reserve: Room,
    /// The runtime of whoever asks.
    pub runtime: RuntimeMetrics,
}

/// What the stores hold.
#[derive(Clone, Copy, Debug)]
pub struct Stock {
    /// Rows of any state.
    pub n_rows: u64,
    /// Complete files.
    pub n_files: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// What is free.
    pub free: Room,
}

/// Gauges, set before they are read.
pub struct State {
    uptime_seconds: IntGauge,
    ready: IntGauge,
    draining: IntGauge,
    rows: IntGauge,
    files: IntGauge,
    stored_bytes: IntGauge,
    free_bytes: IntGauge,
    free_inodes: IntGauge,
    reserve_bytes: IntGauge,
    reserve_inodes: IntGauge,
    uploads_active: IntGauge,
    keys: IntGauge,
    streams: IntGaugeVec,
    streams_wanted: IntGaugeVec,
    tasks: IntGauge,
    queued_tasks: IntGauge,
    workers: IntGauge,
    busy_seconds: Counter,
}

impl State {
    /// All at zero. What the process takes (`process_...`) is looked at by itself.
    #[rustfmt::skip]
    pub fn new(book: &Book<'_>) -> Self {
        book.include(ProcessCollector::for_self());
        let build = book.gauges("slotd_build_info", "1; its version is the label's", "version");
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            // The unit hides what the process' own start is reckoned from (ProcSubset=pid).
            uptime_seconds: book.gauge("slotd_uptime_seconds", "How long the service has run"),
            ready: book.gauge("slotd_ready", "Whether slots can be asked for and uploads taken: 1 or 0"),
            draining: book.gauge("slotd_draining", "Whether an operator said that no slots are given out: 1 or 0"),
            rows: book.gauge("slotd_rows", "Uploads of any state that the database holds"),
            files: book.gauge("slotd_files", "Complete files"),
            stored_bytes: book.gauge("slotd_stored_bytes", "Bytes of complete files"),
            free_bytes: book.gauge("slotd_free_bytes", "Bytes that are free on the disk of data_dir"),
            free_inodes: book.gauge("slotd_free_inodes", "Inodes that are free on the disk of data_dir"),
            reserve_bytes: book.gauge("slotd_reserve_bytes", "Free bytes below which no slot is given out"),
            reserve_inodes: book.gauge("slotd_reserve_inodes", "Free inodes below which no slot is given out"),
            uploads_active: book.gauge("slotd_uploads_active", "Uploads that come in"),
            keys: book.gauge("slotd_keys", "Signing keys in use"),
            streams: book.gauges("slotd_streams", "Streams to the XMPP server that are logged in", "component"),
            streams_wanted: book.gauges("slotd_streams_wanted", "Streams to the XMPP server that are configured", "component"),
            tasks: book.gauge("slotd_tasks", "Tasks of the runtime"),
            queued_tasks: book.gauge("slotd_queued_tasks", "Tasks that wait in the runtime's common queue"),
            workers: book.gauge("slotd_workers", "Threads of the runtime"),
            busy_seconds: book.add(Counter::with_opts(Opts::new("slotd_workers_busy_seconds_total", "How long the runtime's threads have worked, together"))),
        }
    }

    /// Takes over what was seen. What does not answer stays as it was.
    pub fn set(&self, now: &Now) {
        self.uptime_seconds.set(signed(now.uptime.as_secs()));
        self.ready.set(now.is_ready.into());
        self.draining.set(now.is_draining.into());
        self.uploads_active.set(signed(now.n_active as u64));
        self.keys.set(signed(now.n_keys as u64));
        self.reserve_bytes.set(signed(now.reserve.bytes));
        self.reserve_inodes.set(signed(now.reserve.inodes));
        if let Some(stock) = &now.stock {
            self.rows.set(signed(stock.n_rows));
            self.files.set(signed(stock.n_files));
            self.stored_bytes.set(signed(stock.stored_bytes));
            self.free_bytes.set(signed(stock.free.bytes));
            self.free_inodes.set(signed(stock.free.inodes));
        }
        for stream in &now.streams {
            let of = [&stream.host];
            self.streams
                .with_label_values(&of)
                .set(signed(stream.n_up as u64));
            self.streams_wanted
                .with_label_values(&of)
                .set(signed(stream.n_wanted as u64));
        }
        self.set_runtime(&now.runtime);
    }

    fn set_runtime(&self, runtime: &RuntimeMetrics) {
        let n_workers = runtime.num_workers();
        self.workers.set(signed(n_workers as u64));
        self.tasks.set(signed(runtime.num_alive_tasks() as u64));
        self.queued_tasks
            .set(signed(runtime.global_queue_depth() as u64));
        let busy = (0..n_workers).map(|worker| runtime.worker_total_busy_duration(worker));
        let busy: Duration = busy.sum();
        // It is set by one scrape at a time, and never goes back.
        let more = busy.as_secs_f64() - self.busy_seconds.get();
        self.busy_seconds.inc_by(more.max(0.0));
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
