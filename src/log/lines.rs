//! Where lines of the log go: to standard error, and to `log.file` by a thread of its own.
//!
//! Nobody waits for the file. What comes faster than it can be written waits up to a limit; what
//! comes on top of that, and what cannot be written, is left out of the file and counted.

use std::io::{self, Write};
use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{error, info};
use tracing_subscriber::fmt::MakeWriter;

use super::file::AppendFile;

/// Bytes of lines that wait for the file.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// How long the end of the process waits for the last lines.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// Lines that `log.file` lacks since the process began.
static N_LOST: AtomicU64 = AtomicU64::new(0);

/// How many lines `log.file` lacks since the process began.
pub fn n_lost() -> u64 {
    N_LOST.load(Ordering::Relaxed)
}

/// Takes lines for standard error and the file; any clone is the same.
#[derive(Clone, Default)]
pub struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    path: Option<PathBuf>,
    waiting: Vec<u8>,
    /// Whether lines were taken out of `waiting` that are not in the file yet.
    is_writing: bool,
    has_thread: bool,
}

impl Lines {
    /// Also writes to this file from now on, or to none.
    pub fn set_file(&self, path: Option<PathBuf>) {
        let mut state = self.0.lock();
        let needs_thread = path.is_some() && !state.has_thread;
        state.path = path;
        if needs_thread {
            let shared = self.0.clone();
            let thread = thread::Builder::new().name("log".to_owned());
            match thread.spawn(move || shared.write()) {
                Ok(_) => state.has_thread = true,
                Err(error) => {
                    state.path = None;
                    drop(state);
                    error!(%error, "log.file is not written: no thread for it");
                }
            }
        }
    }

    /// Waits until what was said so far is in the file, or a little while.
    pub fn flush(&self) {
        let state = self.0.lock();
        let is_busy =
            |state: &mut State| state.has_thread && (state.is_writing || !state.waiting.is_empty());
        let waited = self
            .0
            .changed
            .wait_timeout_while(state, FLUSH_WITHIN, is_busy);
        drop(waited);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.path.is_none() {
            return;
        }
        if WAITING_BYTES_MAX < state.waiting.len() + line.len() {
            N_LOST.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        if was_empty {
            self.changed.notify_all();
        }
    }

    /// Writes what comes, as long as the process lives.
    fn write(&self) {
        let mut file: Option<AppendFile> = None;
        let mut n_told = n_lost();
        let mut is_failing = false;
        loop {
            let (path, lines) = self.next();
            if AppendFile::follow(&mut file, path) {
                is_failing = false;
            }
            let Some(file) = &mut file else { continue };
            match file.append(&lines) {
                Ok(()) => {
                    is_failing = false;
                    let n_lost = n_lost();
                    if n_told != n_lost {
                        info!(n_lines = n_lost - n_told, "lines are missing in log.file");
                        n_told = n_lost;
                    }
                }
                Err(error) => {
                    let n_lines = lines.iter().filter(|byte| **byte == b'\n').count();
                    N_LOST.fetch_add(n_lines as u64, Ordering::Relaxed);
                    if !mem::replace(&mut is_failing, true) {
                        let path = file.path().display();
                        error!(%error, %path, "log.file cannot be written; trying on");
                    }
                }
            }
        }
    }

    /// What is to be written next, and where.
    fn next(&self) -> (Option<PathBuf>, Vec<u8>) {
        let mut state = self.lock();
        state.is_writing = false;
        self.changed.notify_all();
        let is_idle = |state: &mut State| state.waiting.is_empty();
        let state = self.changed.wait_while(state, is_idle);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.is_writing = true;
        (state.path.clone(), mem::take(&mut state.waiting))
    }
}

impl Write for Lines {
    /// A whole line, as the log hands them over.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Nobody may be left to read it; the file may still have somebody.
        let _ = io::stderr().write_all(line);
        self.0.take(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lines_go_to_the_file_that_was_named_last() {
        let dir = tempfile::tempdir().expect("a directory");
        let lines = Lines::default();
        let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
        lines.0.take(b"nowhere\n");
        lines.set_file(Some(first.clone()));
        lines.0.take(b"one\n");
        lines.flush();
        lines.set_file(Some(second.clone()));
        lines.0.take(b"two\n");
        lines.flush();
        lines.set_file(None);
        lines.0.take(b"three\n");
        lines.flush();
        assert_eq!(fs::read_to_string(first).expect("a file"), "one\n");
        assert_eq!(fs::read_to_string(second).expect("a file"), "two\n");
    }

    #[test]
    fn lines_too_many_are_counted() {
        let shared = Shared::default();
        shared.lock().path = Some("/nowhere/log".into());
        let before = n_lost();
        let line = [b'x'; 1 << 10];
        for _ in 0..(WAITING_BYTES_MAX >> 10) + 5 {
            shared.take(&line);
        }
        assert_eq!(shared.lock().waiting.len(), WAITING_BYTES_MAX);
        assert!(before + 5 <= n_lost());
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let dir = tempfile::tempdir().expect("a directory");
        let lines = Lines::default();
        let before = n_lost();
        lines.set_file(Some(dir.path().join("missing/log")));
        lines.0.take(b"one\ntwo\n");
        lines.flush();
        assert!(before + 2 <= n_lost());
        fs::create_dir(dir.path().join("missing")).expect("a directory");
        lines.0.take(b"three\n");
        lines.flush();
        let text = fs::read_to_string(dir.path().join("missing/log")).expect("a file");
        assert_eq!(text, "three\n");
    }
}
