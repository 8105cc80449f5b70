//! Files written, synced and renamed without any server: what the disk itself allows.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::args::DiskArgs;
use crate::report::{Report, Tally, Watch};

/// `disk`
pub fn run(args: &DiskArgs) -> io::Result<Report> {
    let shared = Arc::new((args.clone(), vec![b'x'; args.size], AtomicUsize::new(0)));
    let (watch, mut threads) = (Watch::start(), Vec::new());
    for _ in 0..args.connections {
        let shared = shared.clone();
        threads.push(thread::spawn(move || {
            let (args, bytes, next) = &*shared;
            let mut tally = Tally::default();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= args.requests {
                    return tally;
                }
                let at = Instant::now();
                let outcome = write(args, bytes, n);
                tally.count(at, outcome.map_err(|e| format!("{:?}", e.kind())));
            }
        }));
    }
    let mut tally = Tally::default();
    for thread in threads {
        tally.add(
            thread
                .join()
                .map_err(|_| io::Error::other("a thread broke"))?,
        );
    }
    Ok(watch.report(tally))
}

fn write(args: &DiskArgs, bytes: &[u8], n: usize) -> io::Result<u64> {
    let (part, whole) = (
        args.dir.join(format!("{n}.part")),
        args.dir.join(format!("{n}")),
    );
    let mut file = File::create_new(&part)?;
    file.write_all(bytes)?;
    if args.sync {
        file.sync_data()?;
    }
    fs::rename(part, whole)?;
    if args.sync {
        File::open(&args.dir)?.sync_all()?;
    }
    Ok(bytes.len() as u64)
}
