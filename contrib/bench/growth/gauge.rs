//! Takes times, and what this process has of the processor and of memory.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// What one operation costs among so many rows.
#[derive(serde::Serialize)]
pub struct Line {
    /// Rows in the database.
    pub n_rows: u64,
    /// Which operation.
    pub name: &'static str,
    /// Microseconds from call to return: the middle one.
    pub median_us: f64,
    /// The one that 99 of 100 stay below.
    pub p99_us: f64,
    /// Microseconds of processor time in each, all threads.
    pub cpu_us: f64,
    /// Bytes of memory afterwards, where a process was looked at.
    pub rss_bytes: Option<u64>,
}

impl Line {
    /// A line of the table.
    pub fn print(&self) {
        let rss = self.rss_bytes.map_or(String::new(), |n_bytes| {
            format!("{:8.1} MiB", n_bytes as f64 / 1_048_576.0)
        });
        println!(
            "{:>9} rows  {:<26} median {:>10.1} us  p99 {:>10.1} us  cpu {:>9.1} us {rss}",
            self.n_rows, self.name, self.median_us, self.p99_us, self.cpu_us
        );
    }
}

/// Samples of one operation.
pub struct Gauge {
    name: &'static str,
    samples: Vec<Duration>,
    cpu_before: Duration,
    /// Operations in one sample.
    pub n_each: u32,
}

impl Gauge {
    /// Begins.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            samples: Vec::new(),
            cpu_before: cpu(),
            n_each: 1,
        }
    }

    /// One sample.
    pub fn add(&mut self, begun: Instant) {
        self.samples.push(begun.elapsed());
    }

    /// What it came to.
    pub fn end(mut self, n_rows: u64) -> Line {
        let cpu = cpu() - self.cpu_before;
        let n = self.samples.len();
        self.samples.sort();
        let us = |sample: Duration| sample.as_secs_f64() * 1e6 / f64::from(self.n_each);
        Line {
            n_rows,
            name: self.name,
            median_us: us(self.samples[n / 2]),
            p99_us: us(self.samples[n * 99 / 100]),
            cpu_us: us(cpu) / n as f64,
            rss_bytes: None,
        }
    }
}

/// Processor time of all threads of this process that live.
pub fn cpu() -> Duration {
    cpu_of(Path::new("/proc/self"))
}

/// The same of any process, by its directory in `/proc`.
pub fn cpu_of(proc: &Path) -> Duration {
    let tasks = fs::read_dir(proc.join("task")).expect("a list of threads");
    let ns = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(ns.sum())
}

/// Memory of this process that is in RAM and its own, in bytes.
pub fn rss_bytes() -> u64 {
    rss_of(Path::new("/proc/self"))
}

/// The same of any process.
pub fn rss_of(proc: &Path) -> u64 {
    let text = fs::read_to_string(proc.join("status")).expect("a status");
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    1024 * kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0)
}
