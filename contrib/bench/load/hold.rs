//! Connections that are held open, so that somebody can look what they cost the server.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::args::{IdleArgs, StalledArgs};
use crate::report;
use crate::urls;
use crate::wire::{Wire, put_head};

/// Uploads send in such bursts, each upload one in turn, as applications write.
const BURST_BYTES: usize = 64 << 10;

#[derive(Debug, Default, Serialize)]
struct Standing {
    /// Connections that stand as they should.
    connections: usize,
    /// How long it took to bring them there.
    seconds: f64,
    errors: BTreeMap<String, usize>,
}

impl Standing {
    fn stand(mut self, began: Instant, hold_s: f64) -> io::Result<()> {
        self.seconds = began.elapsed().as_secs_f64();
        report::print("ready", &self);
        io::stdout().flush()?;
        thread::sleep(Duration::from_secs_f64(hold_s));
        Ok(())
    }

    fn count(&mut self, outcome: io::Result<()>) -> bool {
        match &outcome {
            Ok(()) => self.connections += 1,
            Err(e) => *self.errors.entry(format!("{:?}", e.kind())).or_default() += 1,
        }
        outcome.is_ok()
    }
}

/// `stalled`: uploads that stop in their midst.
pub fn stalled(args: &StalledArgs) -> io::Result<()> {
    let (urls, began) = (urls::read(&args.common.urls)?, Instant::now());
    let mut wires = Vec::new();
    for url in urls.iter().take(args.common.connections) {
        let mut wire = Wire::new(url);
        wire.open()?;
        wire.send_head(put_head(url, args.size), true)?;
        wires.push(wire);
    }
    let (mut standing, mut rest) = (Standing::default(), args.sent);
    let burst = vec![b'x'; BURST_BYTES];
    while rest > 0 {
        let n = rest.min(BURST_BYTES as u64);
        rest -= n;
        wires.retain_mut(|wire| {
            let sent = wire.send_bytes(&burst[..n as usize]);
            // Who went wrong is counted when it does, who stands at the end.
            sent.is_ok() || standing.count(sent)
        });
    }
    standing.connections = wires.len();
    standing.stand(began, args.hold)
}

/// `idle`: connections with one request each behind them.
pub fn idle(args: &IdleArgs) -> io::Result<()> {
    let (urls, began) = (urls::read(&args.common.urls)?, Instant::now());
    let (mut standing, mut wires) = (Standing::default(), Vec::new());
    for n in 0..args.common.connections {
        let url = &urls[n % urls.len()];
        let mut wire = Wire::new(url);
        let outcome = wire.get(url, None);
        if standing.count(outcome.map(drop).map_err(io::Error::other)) {
            wires.push(wire);
        }
    }
    standing.stand(began, args.hold)
}
