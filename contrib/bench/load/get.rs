//! Files read over kept connections.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::args::{Common, GetArgs};
use crate::report::{Report, Tally, Watch};
use crate::urls::{self, Url};
use crate::wire::Wire;

/// What all connections share: who is next, and when to end.
pub struct Turns {
    next: AtomicUsize,
    n_requests: usize,
    seconds: Option<f64>,
    pause: Duration,
}

impl Turns {
    /// As many turns as asked for, or one for each of `n_urls`.
    pub fn new(common: &Common, n_urls: usize) -> Self {
        Self {
            next: AtomicUsize::new(0),
            // With a time the requests have no other end.
            n_requests: common.requests.unwrap_or(match common.seconds {
                Some(_) => usize::MAX,
                None => n_urls,
            }),
            seconds: common.seconds,
            pause: Duration::ZERO,
        }
    }

    /// With a pause on each connection behind each answer.
    pub fn with_pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// No more turns than there are URLs.
    pub fn at_most(mut self, n_urls: usize) -> Self {
        self.n_requests = self.n_requests.min(n_urls);
        self
    }

    /// The next turn's number, of a load that began `at`.
    pub fn take(&self, at: Instant) -> Option<usize> {
        if self
            .seconds
            .is_some_and(|seconds| at.elapsed().as_secs_f64() >= seconds)
        {
            return None;
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        (turn < self.n_requests).then_some(turn)
    }
}

/// Runs `one` on as many connections as asked for, all opened before the time begins.
pub fn on_connections<F>(n: usize, url: &Url, turns: Turns, one: F) -> io::Result<Report>
where
    F: Fn(&mut Wire, usize) -> Result<u64, String> + Send + Sync + 'static,
{
    let shared = Arc::new((turns, one, Barrier::new(n + 1)));
    let mut threads = Vec::new();
    for _ in 0..n {
        let (shared, mut wire) = (shared.clone(), Wire::new(url));
        wire.open()?;
        threads.push(thread::spawn(move || {
            let (turns, one, barrier) = &*shared;
            let mut tally = Tally::default();
            barrier.wait();
            let began = Instant::now();
            while let Some(turn) = turns.take(began) {
                let at = Instant::now();
                let outcome = one(&mut wire, turn);
                tally.count(at, outcome);
                if !turns.pause.is_zero() {
                    thread::sleep(turns.pause);
                }
            }
            tally.reconnects = wire.n_opened - 1;
            (tally, wire)
        }));
    }
    shared.2.wait();
    let watch = Watch::start();
    let mut tally = Tally::default();
    // Connections stay open until the last has ended: closing them is not part of the work.
    let mut wires = Vec::new();
    for thread in threads {
        let (one, wire) = thread
            .join()
            .map_err(|_| io::Error::other("a thread broke"))?;
        tally.add(one);
        wires.push(wire);
    }
    Ok(watch.report(tally))
}

/// `get`
pub fn run(args: &GetArgs) -> io::Result<Report> {
    let urls = urls::read(&args.common.urls)?;
    let pause = Duration::from_millis(args.pause_ms);
    let turns = Turns::new(&args.common, urls.len()).with_pause(pause);
    let (first, size) = (urls[0].clone(), args.size);
    on_connections(args.common.connections, &first, turns, move |wire, turn| {
        wire.get(&urls[turn % urls.len()], size)
    })
}
