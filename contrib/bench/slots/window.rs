//! A window of requests under way: who may ask, what came back, how long it took.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cpu::Watched;

/// Answers that are still waited for when no more is asked, at most for so long.
pub const DRAIN: Duration = Duration::from_secs(20);

/// When to stop asking.
#[derive(Clone, Copy)]
pub struct Limits {
    pub for_: Duration,
    pub slots_max: u64,
}

/// Requests by their number, which is also the stanza's id.
pub struct Window {
    start: Instant,
    limits: Limits,
    size: u64,
    n_answered: u64,
    /// When each was sent, in microseconds from the start.
    sent_us: Vec<u32>,
    tally: Tally,
}

/// What came of the requests.
#[derive(Default)]
pub struct Tally {
    n_slots: u64,
    n_errors: u64,
    took_us: Vec<u32>,
    last: Duration,
}

impl Window {
    pub fn new(start: Instant, limits: Limits, size: u64) -> Self {
        Self {
            start,
            limits,
            size,
            n_answered: 0,
            sent_us: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// The numbers of the requests to send now.
    pub fn next(&mut self) -> std::ops::Range<u64> {
        let now = self.start.elapsed();
        let sent = self.sent_us.len() as u64;
        let until = match now < self.limits.for_ {
            true => (self.n_answered + self.size).min(self.limits.slots_max),
            false => sent,
        };
        let until = until.max(sent);
        self.sent_us.resize(until as usize, micros(now));
        sent..until
    }

    /// Whether all that was asked was answered, and nothing more will be asked.
    pub fn is_done(&self) -> bool {
        let sent = self.sent_us.len() as u64;
        let is_over = self.limits.for_ <= self.start.elapsed() || self.limits.slots_max <= sent;
        is_over && self.n_answered == sent
    }

    /// Whether the answers that are missing were waited for long enough.
    pub fn is_lost(&self) -> bool {
        self.limits.for_ + DRAIN < self.start.elapsed()
    }

    /// Takes the whole answers from `bytes`; returns how many bytes they had.
    pub fn take(&mut self, bytes: &[u8]) -> usize {
        let mut n_taken = 0;
        let now = self.start.elapsed();
        while let Some(end) = find(&bytes[n_taken..], b"</iq>") {
            let end = n_taken + end + b"</iq>".len();
            self.answer(&bytes[n_taken..end], now);
            n_taken = end;
        }
        n_taken
    }

    fn answer(&mut self, stanza: &[u8], now: Duration) {
        let id = id(stanza).and_then(|id| self.sent_us.get(id as usize));
        let Some(sent_us) = id else { return };
        self.n_answered += 1;
        self.tally.last = now;
        self.tally
            .took_us
            .push(micros(now).saturating_sub(*sent_us));
        match find(stanza, b"<put") {
            Some(_) => self.tally.n_slots += 1,
            None => {
                if self.tally.n_errors == 0 {
                    eprintln!("refused: {}", String::from_utf8_lossy(stanza));
                }
                self.tally.n_errors += 1;
            }
        }
    }

    pub fn into_tally(self) -> Tally {
        self.tally
    }
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.n_slots += other.n_slots;
        self.n_errors += other.n_errors;
        self.took_us.extend(other.took_us);
        self.last = self.last.max(other.last);
    }

    /// The line of JSON.
    pub fn line(mut self, own: &Watched, watched: &[Watched]) -> String {
        self.took_us.sort_unstable();
        let at = |share: f64| {
            let index = (self.took_us.len() as f64 * share) as usize;
            let us = self.took_us.get(index).copied().unwrap_or(0);
            f64::from(us) / 1000.0
        };
        let n_answers = (self.n_slots + self.n_errors).max(1) as f64;
        let per_slot = |of: &Watched| (of.spent_s() / n_answers * 1e8).round() / 100.0;
        let cpu: serde_json::Map<_, _> = watched
            .iter()
            .map(|of| (of.name.clone(), json!(per_slot(of))))
            .collect();
        json!({
            "slots": self.n_slots,
            "errors": self.n_errors,
            "per_second": (n_answers / self.last.as_secs_f64().max(1e-6)).round(),
            "p50_ms": at(0.5),
            "p99_ms": at(0.99),
            "own_cpu_s": (own.spent_s() * 100.0).round() / 100.0,
            "cpu_us_per_slot": cpu,
        })
        .to_string()
    }
}

fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}

/// The number in the first `id` attribute: the stanza's own.
fn id(stanza: &[u8]) -> Option<u64> {
    let from = find(stanza, b" id=")? + b" id='".len();
    let digits = stanza[from..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    let mut id = None;
    for digit in digits {
        id = Some(id.unwrap_or(0) * 10 + u64::from(digit - b'0'));
    }
    id
}

/// Where `what` begins. Looks at its rarest byte first: for `<` the rest is seldom compared.
pub fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    let first = *what.first()?;
    let mut from = 0;
    loop {
        from += bytes[from..].iter().position(|byte| *byte == first)?;
        if bytes[from..].starts_with(what) {
            return Some(from);
        }
        from += 1;
    }
}
