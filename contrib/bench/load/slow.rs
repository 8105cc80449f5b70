//! GETs with pauses, timed while many slow uploads run beside them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::args::SlowArgs;
use crate::get;
use crate::report::Report;
use crate::urls;
use crate::wire::{Wire, put_head};

/// How often each upload sends.
const TICK: Duration = Duration::from_millis(125);
/// The uploads of one tick are sent in so many groups, spread over it.
const GROUPS: usize = 25;

/// `slow-uploads`
pub fn run(args: &SlowArgs) -> io::Result<Report> {
    let uploads = urls::read(&args.put_urls)?;
    let mut wires = Vec::new();
    for url in &uploads {
        let mut wire = Wire::new(url);
        wire.open()?;
        wire.send_head(put_head(url, args.upload_size), false)?;
        wires.push(wire);
    }
    let n_bytes = (args.rate as f64 * TICK.as_secs_f64()) as usize;
    let (ended, sent) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let (seen, counted, size) = (ended.clone(), sent.clone(), args.upload_size);
    let background = thread::spawn(move || trickle(wires, n_bytes, size, &seen, &counted));
    let report = get::run(&args.get);
    ended.store(true, Ordering::Relaxed);
    let n_broken = background
        .join()
        .map_err(|_| io::Error::other("a thread broke"))?;
    let mut report = report?;
    report.background = Some(sent.load(Ordering::Relaxed));
    if n_broken > 0 {
        report.errors.insert("uploads".to_owned(), n_broken);
    }
    Ok(report)
}

/// Sends a little of each upload in every tick, and leaves them unfinished; how many broke.
fn trickle(
    mut wires: Vec<Wire>,
    n_bytes: usize,
    size: u64,
    ended: &AtomicBool,
    sent: &AtomicU64,
) -> usize {
    let (bytes, n_wires) = (vec![b'x'; n_bytes], wires.len());
    let (began, mut n_steps) = (Instant::now(), 0);
    // One tick less than the whole: an upload that ended would send no more.
    let n_ticks_max = (size / n_bytes as u64).saturating_sub(1) as u32;
    while !ended.load(Ordering::Relaxed) && n_steps / (GROUPS as u32) < n_ticks_max {
        let group = n_steps as usize % GROUPS;
        for wire in wires.iter_mut().skip(group).step_by(GROUPS) {
            if wire.send_bytes(&bytes).is_ok() {
                sent.fetch_add(n_bytes as u64, Ordering::Relaxed);
            }
        }
        n_steps += 1;
        let due = TICK / GROUPS as u32 * n_steps;
        thread::sleep(due.saturating_sub(began.elapsed()));
    }
    // A broken one takes nothing any more.
    wires.retain_mut(|wire| wire.send_bytes(b"x").is_ok());
    n_wires - wires.len()
}
