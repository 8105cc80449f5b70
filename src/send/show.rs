//! What the person at the terminal sees: a bar, or plain lines where there is no terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const BAR: &str = "{prefix} {bytes}/{total_bytes} [{wide_bar}] {percent}% {bytes_per_sec}, \
                   {eta} left {msg}";
const TICK: Duration = Duration::from_millis(200);
/// Longest name that stands before a bar, in characters.
const NAME_CHARS_MAX: usize = 24;

/// The lines on standard error.
pub struct Show {
    bar: Option<ProgressBar>,
    is_quiet: bool,
    name: String,
    /// The last line, which is not said twice in a row.
    last: Mutex<String>,
}

impl Show {
    /// For one file, or for none yet.
    pub fn new(name: &str, size_bytes: u64, is_quiet: bool) -> Self {
        let is_drawn = io::stderr().is_terminal() && !is_quiet && 0 < size_bytes;
        let bar = is_drawn.then(|| {
            let bar = ProgressBar::with_draw_target(Some(size_bytes), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(BAR);
            bar.set_style(
                style
                    .unwrap_or_else(|_| ProgressStyle::default_bar())
                    .progress_chars("=> "),
            );
            bar.set_prefix(short(name));
            bar.enable_steady_tick(TICK);
            bar
        });
        Self {
            bar,
            is_quiet,
            name: name.to_owned(),
            last: Mutex::new(String::new()),
        }
    }

    /// What goes on now: beside the bar, or as a line.
    pub fn say(&self, words: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(words.to_owned()),
            None => self.note(words),
        }
    }

    /// All is well again; no word is needed beside a bar that moves.
    pub fn hush(&self) {
        if let Some(bar) = &self.bar {
            bar.set_message(String::new());
        }
    }

    /// What stays to be read: above the bar, or as a line.
    pub fn note(&self, words: &str) {
        if self.is_quiet {
            return;
        }
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
            bar.set_position(bytes);
        }
    }

    /// It goes on from here: what was there before says nothing of the speed.
    pub fn from(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
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

/// A name that leaves room for the bar.
fn short(name: &str) -> String {
    match name.char_indices().nth(NAME_CHARS_MAX) {
        None => name.to_owned(),
        Some((cut, _)) => format!("{}...", &name[..cut]),
    }
}

/// A size as people write it.
pub fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}
