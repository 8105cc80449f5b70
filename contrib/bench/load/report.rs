//! What was counted, and the line of JSON that tells it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

/// The kernel's clock ticks a second, as `/proc` counts CPU time.
const TICKS_PER_S: f64 = 100.0;

/// What one thread counted.
#[derive(Debug, Default)]
pub struct Tally {
    /// Microseconds of each request that succeeded.
    pub micros: Vec<u32>,
    pub bytes: u64,
    pub reconnects: usize,
    /// How often what went wrong: a status, or a word.
    pub errors: BTreeMap<String, usize>,
}

impl Tally {
    /// Counts one request that began `at`, or what went wrong with it.
    pub fn count(&mut self, at: Instant, outcome: Result<u64, String>) {
        match outcome {
            Ok(bytes) => {
                let micros = at.elapsed().as_micros();
                self.micros.push(micros.try_into().unwrap_or(u32::MAX));
                self.bytes += bytes;
            }
            Err(what) => *self.errors.entry(what).or_default() += 1,
        }
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: Self) {
        self.micros.extend(other.micros);
        self.bytes += other.bytes;
        self.reconnects += other.reconnects;
        for (what, n) in other.errors {
            *self.errors.entry(what).or_default() += n;
        }
    }
}

/// Time and CPU time from a moment on.
pub struct Watch {
    at: Instant,
    cpu_s: f64,
}

impl Watch {
    /// Starts it.
    pub fn start() -> Self {
        Self {
            cpu_s: own_cpu_s(),
            at: Instant::now(),
        }
    }

    /// The report of what was counted since.
    pub fn report(&self, mut tally: Tally) -> Report {
        let seconds = self.at.elapsed().as_secs_f64();
        let own_cpu_s = own_cpu_s() - self.cpu_s;
        tally.micros.sort_unstable();
        let n = tally.micros.len();
        Report {
            requests: n,
            seconds,
            bytes: tally.bytes,
            per_second: n as f64 / seconds,
            mib_per_second: tally.bytes as f64 / f64::from(1 << 20) / seconds,
            p50_ms: quantile_ms(&tally.micros, 0.5),
            p99_ms: quantile_ms(&tally.micros, 0.99),
            max_ms: quantile_ms(&tally.micros, 1.0),
            own_cpu_s,
            reconnects: tally.reconnects,
            errors: tally.errors,
            background: None,
        }
    }
}

/// One line of JSON.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Requests that succeeded.
    pub requests: usize,
    pub seconds: f64,
    /// Bytes of their bodies.
    pub bytes: u64,
    pub per_second: f64,
    pub mib_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// CPU time of the generator itself.
    pub own_cpu_s: f64,
    pub reconnects: usize,
    pub errors: BTreeMap<String, usize>,
    /// Bytes that were sent beside what is counted here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub background: Option<u64>,
}

impl Report {
    /// Prints it.
    pub fn print(&self, what: &str) {
        print(what, self);
    }
}

/// Prints a line of JSON that begins with what it is about.
pub fn print(what: &str, facts: &impl Serialize) {
    #[derive(Serialize)]
    struct Line<'a, T> {
        what: &'a str,
        #[serde(flatten)]
        facts: &'a T,
    }
    match serde_json::to_string(&Line { what, facts }) {
        Ok(line) => println!("{line}"),
        Err(e) => eprintln!("bench-load: {e}"),
    }
}

fn quantile_ms(sorted: &[u32], share: f64) -> f64 {
    let index = ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
    let micros = sorted.get(index).copied().unwrap_or_default();
    Duration::from_micros(micros.into()).as_secs_f64() * 1000.0
}

/// CPU time of this process with all its threads so far, in seconds.
fn own_cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may hold anything; utime and stime are the 12th and 13th after it.
    let (_, after) = stat.rsplit_once(')').unwrap_or_default();
    let ticks = after.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|text| text.parse::<u64>().ok()).sum();
    ticks as f64 / TICKS_PER_S
}
