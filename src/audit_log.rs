//! The audit log: what happened to whose uploads, and who did what, as one JSON object a line.
//!
//! A listener that makes a line and puts it into a bounded queue, and a thread that appends to
//! `log.audit_file`. Nobody waits for the disk. While it is slow or full the lines wait in the
//! queue; what comes when that is full is lost, which the log says at once, and a line of its own
//! (`lines-lost`, with their number) where they are missing.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use tracing::{error, info};

use crate::core::event::Event;
use crate::core::session::network::AddressPolicy;
use crate::core::time::Timestamp;
use crate::log::file::AppendFile;
use crate::service::events::Listener;

mod line;

use line::Line;

/// Lines that wait for the disk: a few minutes of a busy service, about 2 MB.
const QUEUE_MAX: usize = 4096;
/// Lines appended in one go.
const BATCH_MAX: usize = 256;
/// How long to wait after a failure before the same lines are tried again.
const RETRY_IN: Duration = Duration::from_secs(1);
/// How long the end of the process waits for the last lines.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);
/// How long to wait between looks whether there is room to ask for that.
const FLUSH_AGAIN_IN: Duration = Duration::from_millis(20);

/// What goes through the queue.
enum Message {
    /// Whole lines.
    Lines(String),
    /// To close when all before it was written.
    Flush(SyncSender<()>),
}

/// The audit log.
pub struct AuditLog {
    queue: SyncSender<Message>,
    n_lost: AtomicU64,
    shared: Arc<Shared>,
}

/// What the listener and its writer both look at.
struct Shared {
    // Beside the manner: what happens is only told of where it is written.
    is_written: AtomicBool,
    manner: Mutex<Manner>,
}

/// How the audit log is written.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// Where to; none: nowhere.
    pub path: Option<PathBuf>,
    /// How much of addresses.
    pub addresses: AddressPolicy,
}

impl AuditLog {
    /// Starts to write. Fails where there is no thread for it; a file that cannot be written is no
    /// failure: its lines wait.
    pub fn start(manner: Manner) -> io::Result<Arc<Self>> {
        let (queue, messages) = sync_channel(QUEUE_MAX);
        let shared = Arc::new(Shared {
            is_written: AtomicBool::new(manner.path.is_some()),
            manner: Mutex::new(manner),
        });
        let writing = shared.clone();
        let thread = thread::Builder::new().name("audit-log".to_owned());
        thread.spawn(move || writing.write(&messages))?;
        Ok(Arc::new(Self {
            queue,
            n_lost: AtomicU64::new(0),
            shared,
        }))
    }

    /// Goes on in another manner: the configuration was read again.
    pub fn change(&self, manner: Manner) {
        let is_written = manner.path.is_some();
        *self.shared.manner() = manner;
        self.shared.is_written.store(is_written, Ordering::Relaxed);
    }

    /// Waits until what was told so far is in the file, or a little while. Blocks its thread.
    pub fn flush(&self) {
        let (done, is_done) = sync_channel(0);
        let until = Instant::now() + FLUSH_WITHIN;
        let mut message = Message::Flush(done);
        // A full queue is when there is most to wait for.
        while let Err(TrySendError::Full(back)) = self.queue.try_send(message) {
            if until <= Instant::now() {
                return;
            }
            message = back;
            thread::sleep(FLUSH_AGAIN_IN);
        }
        // It is closed, never sent to.
        let _ = is_done.recv_timeout(until.saturating_duration_since(Instant::now()));
    }

    fn put(&self, mut lines: String, now: Timestamp) {
        let n_before = self.n_lost.swap(0, Ordering::Relaxed);
        if 0 < n_before {
            lines.insert_str(0, &Line::lost(n_before, now).to_text());
        }
        if self.queue.try_send(Message::Lines(lines)).is_err() {
            self.n_lost.fetch_add(n_before + 1, Ordering::Relaxed);
            if n_before == 0 {
                error!("the audit log cannot be written fast enough: lines of it are lost");
            }
        }
    }
}

impl Listener for AuditLog {
    fn hear(&self, event: &Event<'_>, now: Timestamp) {
        if !self.shared.is_written.load(Ordering::Relaxed) {
            return;
        }
        let addresses = || self.shared.manner().addresses;
        if let Some(line) = Line::of(event, addresses, now) {
            self.put(line.to_text(), now);
        }
    }
}

impl Shared {
    fn manner(&self) -> MutexGuard<'_, Manner> {
        self.manner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what comes through the queue, until nobody can send any more.
    fn write(&self, messages: &Receiver<Message>) {
        let mut file: Option<AppendFile> = None;
        while let Ok(first) = messages.recv() {
            let (mut lines, mut flushes) = (String::new(), Vec::new());
            let rest = messages.try_iter().take(BATCH_MAX - 1);
            for message in [first].into_iter().chain(rest) {
                match message {
                    Message::Lines(more) => lines.push_str(&more),
                    Message::Flush(done) => flushes.push(done),
                }
            }
            self.append(&mut file, &lines);
            drop(flushes);
        }
    }

    /// Appends `lines`, as soon as it can be done; nowhere, where there is no file any more.
    fn append(&self, file: &mut Option<AppendFile>, lines: &str) {
        let mut is_failing = false;
        loop {
            let path = self.manner().path.clone();
            AppendFile::follow(file, path);
            let Some(file) = file else { return };
            let Err(error) = file.append(lines.as_bytes()) else {
                break;
            };
            if !is_failing {
                let path = file.path().display();
                error!(%error, %path, "the audit log cannot be written; its lines wait");
            }
            is_failing = true;
            thread::sleep(RETRY_IN);
        }
        if is_failing {
            info!("the audit log is written again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn manner(path: PathBuf) -> Manner {
        Manner {
            path: Some(path),
            addresses: AddressPolicy::Full,
        }
    }

    fn kinds(text: &str) -> Vec<String> {
        let kind = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            line["kind"].as_str().expect("a kind").to_owned()
        };
        text.lines().map(kind).collect()
    }

    #[test]
    fn lines_wait_for_a_disk_and_follow_a_file_that_moves() {
        let dir = tempfile::tempdir().expect("a directory");
        let (missing, path) = (dir.path().join("missing"), dir.path().join("audit"));
        let log = AuditLog::start(manner(missing.join("audit"))).expect("a thread");
        log.hear(&Event::Started, Timestamp(1));
        assert!(!missing.exists());
        fs::create_dir(&missing).expect("made");
        log.flush();
        let text = fs::read_to_string(missing.join("audit")).expect("a file");
        assert_eq!(kinds(&text), ["started"]);
        log.change(manner(path.clone()));
        log.hear(&Event::Stopping, Timestamp(2));
        log.flush();
        fs::rename(&path, dir.path().join("audit.1")).expect("moved");
        log.hear(&Event::Started, Timestamp(3));
        log.flush();
        for (name, kind) in [("audit.1", "stopping"), ("audit", "started")] {
            let text = fs::read_to_string(dir.path().join(name)).expect("a file");
            assert_eq!(kinds(&text), [kind]);
        }
        log.change(Manner::default());
        log.hear(&Event::Stopping, Timestamp(4));
        log.flush();
        assert_eq!(
            fs::read_to_string(&path).expect("a file").lines().count(),
            1
        );
    }

    #[test]
    fn what_is_lost_is_counted_where_it_is_missing() {
        let dir = tempfile::tempdir().expect("a directory");
        let missing = dir.path().join("missing");
        let log = AuditLog::start(manner(missing.join("audit"))).expect("a thread");
        // However many of them the writer took before it failed: nobody waited.
        for n in 0..QUEUE_MAX + BATCH_MAX + 100 {
            log.hear(&Event::Started, Timestamp(n as u64));
        }
        let n_lost = log.n_lost.load(Ordering::Relaxed);
        assert!(100 <= n_lost, "{n_lost}");
        fs::create_dir(&missing).expect("made");
        // The queue is full, so that nothing can wait behind it yet.
        while log.n_lost.load(Ordering::Relaxed) != 0 {
            thread::sleep(Duration::from_millis(10));
            log.hear(&Event::Stopping, Timestamp(9999));
        }
        log.flush();
        let text = fs::read_to_string(missing.join("audit")).expect("a file");
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let lost: u64 = lines
            .iter()
            .filter_map(|line| line["n_lost"].as_u64())
            .sum();
        assert!(n_lost <= lost, "{lost}");
        let last_two: Vec<_> = lines
            .iter()
            .rev()
            .take(2)
            .map(|line| &line["kind"])
            .collect();
        assert_eq!(last_two, ["stopping", "lines-lost"]);
    }
}
