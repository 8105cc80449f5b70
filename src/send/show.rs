//! What the person at the terminal sees: a bar, or plain lines where there is no terminal.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use rustix::termios::tcgetwinsize;

/// The name, the bar, and below them the figures: room for all on narrow terminals.
const BAR: &str = "{prefix} [{wide_bar}] {percent:>3}%\n{figures}";
const TICK: Duration = Duration::from_millis(200);
/// After so long without a byte that is told instead of the speed.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// Longest name that stands before a bar, in characters, and the part of the line that it may have.
const NAME_CHARS_MAX: usize = 32;
const NAME_PART: usize = 3;
/// The width of a terminal that does not tell it.
const COLUMNS: u16 = 80;

/// The lines on standard error.
pub struct Show {
    bar: Option<ProgressBar>,
    is_quiet: bool,
    name: String,
    /// The last line, which is not said twice in a row.
    last: Mutex<String>,
    beside: Arc<Mutex<Beside>>,
}

/// What stands beside the bytes.
struct Beside {
    /// What goes on; nothing while bytes are sent.
    words: String,
    moved_at: Instant,
    twice_bytes: u64,
}

impl Show {
    /// For one file, or for none yet.
    pub fn new(name: &str, size_bytes: u64, is_quiet: bool) -> Self {
        let beside = Arc::new(Mutex::new(Beside {
            words: String::new(),
            moved_at: Instant::now(),
            twice_bytes: 0,
        }));
        let is_drawn = io::stderr().is_terminal() && !is_quiet && 0 < size_bytes;
        let bar = is_drawn.then(|| {
            let bar = ProgressBar::with_draw_target(Some(size_bytes), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(BAR);
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            let drawn = beside.clone();
            let figures = move |state: &ProgressState, into: &mut dyn fmt::Write| {
                let line = figures(state, &held(&drawn));
                // A line that is too long would wrap, and the next one would not be drawn over it.
                let line: String = line.chars().take(columns().saturating_sub(1)).collect();
                let _ = into.write_str(&line);
            };
            bar.set_style(style.with_key("figures", figures).progress_chars("=> "));
            bar.set_prefix(short(name, NAME_CHARS_MAX.min(columns() / NAME_PART)));
            bar.enable_steady_tick(TICK);
            bar
        });
        Self {
            bar,
            is_quiet,
            name: name.to_owned(),
            last: Mutex::new(String::new()),
            beside,
        }
    }

    /// What goes on now: beside the bar, or as a line.
    pub fn say(&self, words: &str) {
        match &self.bar {
            Some(_) => held(&self.beside).words = words.to_owned(),
            None => self.note(words),
        }
    }

    /// What stays to be read: above the bar, or as a line.
    pub fn note(&self, words: &str) {
        if !self.is_quiet {
            self.complain(words);
        }
    }

    /// The same for what is wrong, which is told in any case.
    pub fn complain(&self, words: &str) {
        let line = match self.name.as_str() {
            "" => words.to_owned(),
            name => format!("{name}: {words}"),
        };
        if let Ok(mut last) = self.last.lock() {
            if *last == line {
                return;
            }
            last.clone_from(&line);
        }
        match &self.bar {
            Some(bar) => bar.println(line),
            None => {
                // Nobody else is there to be told.
                let _ = writeln!(io::stderr(), "{line}");
            }
        }
    }

    /// How far it is.
    pub fn at(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            let mut beside = held(&self.beside);
            beside.words.clear();
            beside.moved_at = Instant::now();
            drop(beside);
            bar.set_position(bytes);
        }
    }

    /// It goes on from here, with so many bytes in all sent twice: what was there before says
    /// nothing of the speed.
    pub fn from(&self, bytes: u64, twice_bytes: u64) {
        if let Some(bar) = &self.bar {
            held(&self.beside).twice_bytes = twice_bytes;
            self.at(bytes);
            bar.reset_eta();
        }
    }

    /// No bar any more, and a last line.
    pub fn end(&self, words: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.note(words);
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn held(beside: &Mutex<Beside>) -> MutexGuard<'_, Beside> {
    beside.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The line below a bar: bytes, what goes on or how fast, and what was sent twice.
fn figures(state: &ProgressState, beside: &Beside) -> String {
    let total = state.len().unwrap_or_default();
    let mut line = format!("  {}/{}, ", size(state.pos()), size(total));
    let still = beside.moved_at.elapsed();
    line += &match beside.words.as_str() {
        "" if STALLED_AFTER <= still => format!("stalled for {} s", still.as_secs()),
        "" => {
            let left = HumanDuration(Duration::from_secs(state.eta().as_secs()));
            format!("{}/s, {left:#} left", size(state.per_sec() as u64))
        }
        words => words.to_owned(),
    };
    if 0 < beside.twice_bytes {
        line += &format!(", {} sent twice", size(beside.twice_bytes));
    }
    line
}

fn columns() -> usize {
    let told = tcgetwinsize(io::stderr()).map_or(0, |size| size.ws_col);
    usize::from(if told == 0 { COLUMNS } else { told })
}

/// A name that leaves room for the bar.
fn short(name: &str, chars_max: usize) -> String {
    match name.char_indices().nth(chars_max) {
        None => name.to_owned(),
        Some(_) => {
            let begin: String = name.chars().take(chars_max.saturating_sub(3)).collect();
            format!("{begin}...")
        }
    }
}

/// A size as people write it.
pub fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_leave_room() {
        assert_eq!(short("film.mp4", 10), "film.mp4");
        assert_eq!(short("holiday film.mp4", 10), "holiday...");
        assert_eq!(short("\u{e4}\u{f6}\u{fc}\u{df}\u{e9}", 4), "\u{e4}...");
    }
}
