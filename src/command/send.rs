//! `slotd send`.

use std::process::ExitCode;

use slotd::send::{SendArgs, Sending};
use tokio::signal::unix::{SignalKind, signal};

use super::{EXIT_INTERRUPTED, EXIT_TERMINATED, End, failed, runtime, say_aside};

/// Sends files until all are sent or a signal comes; what an upload needs to go on is kept.
pub fn send(args: SendArgs) -> Result<ExitCode, End> {
    let sending = Sending::prepare(args).map_err(|error| End {
        words: format!("slotd send: {error}"),
        code: error.status(),
    })?;
    let runtime = runtime(Some(2))?;
    // A task of its own: it may be busy with the disk when a signal comes.
    let running = runtime.spawn(sending.run());
    let status = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        tokio::select! {
            status = running => status.map_err(failed),
            _ = interrupt.recv() => Ok(EXIT_INTERRUPTED),
            _ = terminate.recv() => Ok(EXIT_TERMINATED),
        }
    })?;
    runtime.shutdown_background();
    if [EXIT_INTERRUPTED, EXIT_TERMINATED].contains(&status) {
        say_aside("\ninterrupted; run the same command again to go on where it stopped");
    }
    Ok(ExitCode::from(status))
}
