//! The load generator of the benchmark: it costs as little as it can, and says what it cost.
//!
//! One blocking thread for each connection; bodies are sent by sendfile and read into nothing
//! (`MSG_TRUNC`), but for TLS. Each subcommand prints one line of JSON when it has ended.

mod args;
mod body;
mod disk;
mod get;
mod hold;
mod put;
mod report;
mod sink;
mod slow;
mod tls;
mod urls;
mod wire;

use std::io;
use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Work};

fn main() -> ExitCode {
    let args = Args::parse();
    match work(args.work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench-load: {e}");
            ExitCode::FAILURE
        }
    }
}

fn work(work: Work) -> io::Result<()> {
    match work {
        Work::Get(get) => get::run(&get)?.print("get"),
        Work::Put(put) => put::run(&put)?.print("put"),
        Work::Mixed(mixed) => put::run_mixed(&mixed)?.print("mixed"),
        Work::Stalled(stalled) => hold::stalled(&stalled)?,
        Work::Broken(broken) => put::run_broken(&broken)?.print("broken"),
        Work::Idle(idle) => hold::idle(&idle)?,
        Work::SlowUploads(slow) => slow::run(&slow)?.print("slow-uploads"),
        Work::Disk(disk) => disk::run(&disk)?.print("disk"),
        Work::Sink(sink) => sink::run(&sink)?,
    }
    Ok(())
}
