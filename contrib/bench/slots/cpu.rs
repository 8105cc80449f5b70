//! CPU time of processes, as the kernel counts it.

use std::fs;

/// Clock ticks a second in /proc: 100 on every Linux that is in use.
const TICKS: f64 = 100.0;

/// A process to watch.
#[derive(Clone)]
pub struct Watched {
    pub name: String,
    pid: String,
    at_start_s: f64,
}

impl Watched {
    /// Reads `NAME=PID`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, pid) = text.split_once('=').ok_or("not NAME=PID")?;
        Ok(Self {
            name: name.to_owned(),
            pid: pid.to_owned(),
            at_start_s: of(pid).ok_or("no such process")?,
        })
    }

    /// This process.
    pub fn own() -> Self {
        Self {
            name: "own".to_owned(),
            pid: "self".to_owned(),
            at_start_s: of("self").unwrap_or(0.0),
        }
    }

    /// What counts begins now.
    pub fn start(&mut self) {
        self.at_start_s = of(&self.pid).unwrap_or(0.0);
    }

    /// User and system time since the start, in seconds.
    pub fn spent_s(&self) -> f64 {
        of(&self.pid).unwrap_or(f64::NAN) - self.at_start_s
    }
}

fn of(pid: &str) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}
