//! `slotd import`.

use std::process::ExitCode;

use slotd::config::{Config, Use};
use slotd::core::external::System;
use slotd::daemon::{self, Access};
use slotd::import::{ImportArgs, ImportError, Job, Tally, size};
use slotd::service::import::Import;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_TERMINATED, EXIT_USAGE, End, failed, load, runtime, say,
    say_aside, start_log,
};

/// Threads that wait for the disk: so many files are copied at a time, one is listed.
const THREADS: usize = 2;

/// Takes files over, and tells.
pub fn import(args: ImportArgs) -> Result<ExitCode, End> {
    let config = load(&args.config, &Use::DataDir)?.config;
    start_log(&config);
    let system = system(&config.external, args.under.as_deref())?;
    let runtime = runtime(Some(THREADS))?;
    // A task of its own: it may be busy with the disk when a signal comes.
    let running = runtime.spawn(run(args, config, system));
    let status = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        tokio::select! {
            status = running => status.map_err(failed)?,
            _ = interrupt.recv() => Ok(EXIT_INTERRUPTED),
            _ = terminate.recv() => Ok(EXIT_TERMINATED),
        }
    })?;
    if [EXIT_INTERRUPTED, EXIT_TERMINATED].contains(&status) {
        runtime.shutdown_background();
        say_aside("\ninterrupted; run the same command again to go on where it stopped");
    }
    Ok(ExitCode::from(status))
}

/// The system below whose path the links are.
fn system(systems: &[System], under: Option<&str>) -> Result<System, End> {
    let wrong = |words: String| End {
        words: format!("slotd import: {words}"),
        code: EXIT_USAGE,
    };
    let is_it = |system: &&System| under.is_none_or(|under| system.prefix == under);
    let mut fitting = systems.iter().filter(is_it);
    match (fitting.next(), fitting.next(), under) {
        (Some(system), None, _) => Ok(system.clone()),
        (Some(_), Some(_), _) => Err(wrong(
            "the configuration has several [[external]]: say with --under which path the links \
             are below"
                .to_owned(),
        )),
        (None, _, Some(under)) => {
            let words = format!("the configuration has no [[external]] with path = {under:?}");
            Err(wrong(words))
        }
        (None, _, None) => Err(wrong(
            "the configuration has no [[external]], whose path says where the old links lead: \
             write [[external]] with path = \"/upload/\" and domain = \"example.org\""
                .to_owned(),
        )),
    }
}

async fn run(args: ImportArgs, config: Config, system: System) -> Result<u8, End> {
    let access = match args.dry_run {
        true => Access::Look,
        false => Access::Change,
    };
    let job = Job::new(&args.dir, args.from, system, args.json).map_err(failed)?;
    let import = daemon::import(&config, access).map_err(failed)?;
    if !import.belong_together().await.map_err(failed)? {
        return Err(failed(
            "the database and the files in data_dir are of different stores; restore the one that \
             was replaced",
        ));
    }
    if !args.json {
        say_aside(&job.to_string());
    }
    let found = job.look(&import).await.map_err(failed)?;
    warn_of_total(&import, &config, &found).await?;
    let missing = missing_room(&import, &config, &found).await?;
    match (missing, args.dry_run) {
        (Some(words), false) => {
            let words = format!("{words}: make room, and run it again");
            return Err(failed(words));
        }
        (Some(words), true) => say_aside(&format!("warning: {words}")),
        (None, _) => {}
    }
    if args.dry_run {
        return tell(&found, Ok(()), args.json);
    }
    let (tally, ended) = job.take(&import, found.taken).await;
    tell(&tally, ended, args.json)
}

fn tell(tally: &Tally, ended: Result<(), ImportError>, is_json: bool) -> Result<u8, End> {
    if is_json {
        say(&serde_json::to_string(tally).map_err(failed)?)?;
    } else {
        for line in tally.refusals() {
            say_aside(&line);
        }
        say(&tally.to_string())?;
    }
    if let Err(error) = ended {
        let words = format!("{error}; run the same command again to go on where it stopped");
        return Err(failed(words));
    }
    Ok(if tally.refused == 0 { 0 } else { EXIT_FAILURE })
}

/// Warns where the next sweep would take files away again.
async fn warn_of_total(import: &Import, config: &Config, found: &Tally) -> Result<(), End> {
    let stored = import.stored_bytes().await.map_err(failed)?;
    let total = stored.saturating_add(found.taken.bytes);
    if let Some(max) = config.retention.total_bytes_max.filter(|max| *max < total) {
        let (total, max) = (size(total), size(max));
        say_aside(&format!(
            "warning: with these files {total} are kept, and retention.total_max is {max}: slotd \
             will remove the oldest"
        ));
    }
    Ok(())
}

/// What to say where the files would not fit: a full disk is nobody's friend.
async fn missing_room(
    import: &Import,
    config: &Config,
    found: &Tally,
) -> Result<Option<String>, End> {
    let free = import.free_room().await.map_err(failed)?;
    let (wanted, reserve) = (found.taken.bytes, config.policy.reserve);
    let is_enough = found.taken.files == 0 || free.holds(wanted, reserve);
    Ok((!is_enough).then(|| {
        format!(
            "the files need {}, {} stay free (limits.reserve_space), and {} are free in data_dir",
            size(wanted),
            size(reserve.bytes),
            size(free.bytes)
        )
    }))
}
