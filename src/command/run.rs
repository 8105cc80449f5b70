//! `slotd run`.

use std::process::ExitCode;

use slotd::config::Loaded;
use slotd::daemon::{self, Source, Start};
use slotd::http::inherited::Inherited;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::{ConfigArgs, EXIT_FAILURE, End, failed, load_to_serve, runtime, start_log};

/// Serves until a signal comes.
pub fn run(args: ConfigArgs) -> Result<ExitCode, End> {
    // First of all: it changes the environment, which no other thread may read meanwhile.
    let inherited = Inherited::take().map_err(failed)?;
    let source = Source {
        file: args.config.clone(),
        wanted: args.wanted(),
        directives: std::env::var("RUST_LOG").ok(),
    };
    let loaded = load_to_serve(args)?;
    start_log(&loaded.config);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = runtime(loaded.config.worker_threads)?;
    let done = runtime.block_on(run_until_signal(loaded, source, inherited));
    slotd::log::flush();
    done.map(|()| ExitCode::SUCCESS)
}

async fn run_until_signal(loaded: Loaded, source: Source, inherited: Inherited) -> Result<(), End> {
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let start = Start {
        loaded,
        source,
        inherited,
        hangups: signal(SignalKind::hangup()).map_err(failed)?,
    };
    let (stop, stopped) = oneshot::channel();
    let shutdown = async {
        // Also where the sender is gone, which then waits for no more signals.
        let _ = stopped.await;
    };
    // A task of its own: the service may be busy with the disk, and shall end all the same.
    let signals = tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping");
        let _ = stop.send(());
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::warn!("ended by a second signal");
        slotd::log::flush();
        std::process::exit(EXIT_FAILURE.into());
    });
    let done = daemon::run(start, shutdown).await;
    signals.abort();
    done.map_err(failed)
}
