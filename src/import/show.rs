//! What the person at the terminal sees meanwhile: a bar, or nothing where there is no terminal.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use rustix::termios::tcgetwinsize;

use super::size;
use crate::import::tally::Count;

/// The bar, and below it the figures: room for all on narrow terminals.
const BAR: &str = "taking [{wide_bar}] {percent:>3}%\n{figures}";
const LOOKING: &str = "looking at DIR: {human_pos} files";
const TICK: Duration = Duration::from_millis(200);
/// The width of a terminal that does not tell it.
const COLUMNS: u16 = 80;

/// A bar on standard error.
pub struct Show {
    bar: ProgressBar,
    n_files: Arc<AtomicU64>,
}

impl Show {
    /// While files are counted.
    pub fn looking(is_quiet: bool) -> Self {
        let bar = ProgressBar::with_draw_target(None, target(is_quiet));
        if let Ok(style) = ProgressStyle::with_template(LOOKING) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        let n_files = Arc::default();
        Self { bar, n_files }
    }

    /// While they are taken.
    pub fn taking(all: Count, is_quiet: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(all.bytes), target(is_quiet));
        let n_files = Arc::new(AtomicU64::new(0));
        let done = n_files.clone();
        let figures = move |state: &ProgressState, into: &mut dyn fmt::Write| {
            let done = done.load(Ordering::Relaxed);
            let left = HumanDuration(Duration::from_secs(state.eta().as_secs()));
            let (at, total) = (size(state.pos()), size(all.bytes));
            let speed = size(state.per_sec() as u64);
            let of = all.files;
            let line = format!("  {at}/{total}, {done}/{of} files, {speed}/s, {left:#} left");
            // A line that is too long would wrap, and the next one would not be drawn over it.
            let line: String = line.chars().take(columns().saturating_sub(1)).collect();
            let _ = into.write_str(&line);
        };
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style.with_key("figures", figures).progress_chars("=> "));
        }
        bar.enable_steady_tick(TICK);
        Self { bar, n_files }
    }

    /// One more was looked at.
    pub fn seen(&self) {
        self.bar.inc(1);
    }

    /// The bar, to be told of bytes: `inc`.
    pub fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }

    /// One more is done.
    pub fn done(&self) {
        self.n_files.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn columns() -> usize {
    let told = tcgetwinsize(io::stderr()).map_or(0, |size| size.ws_col);
    usize::from(if told == 0 { COLUMNS } else { told })
}

fn target(is_quiet: bool) -> ProgressDrawTarget {
    match io::stderr().is_terminal() && !is_quiet {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    }
}
