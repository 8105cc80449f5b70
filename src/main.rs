//! The command line: reads the configuration, starts the log, runs, and tells how it ended.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Parser, Subcommand};
use slotd::config::summary::Summary;
use slotd::config::{self, Config, Loaded, Use};
use slotd::send::{SendArgs, Sending};
use slotd::service::audit::{AuditReport, Depth, Kind, Options};
use slotd::store::Mend;
use slotd::{daemon, xmpp};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Exit status: the command line or the configuration is wrong. clap uses the same.
const EXIT_USAGE: u8 = 2;
/// Exit status: anything else went wrong, or the audit found something.
const EXIT_FAILURE: u8 = 1;
/// Exit statuses: ended by SIGINT and by SIGTERM, as a shell tells them.
const EXIT_INTERRUPTED: u8 = 130;
const EXIT_TERMINATED: u8 = 143;

/// Random bytes of a component secret: 43 characters.
const SECRET_BYTES: usize = 32;

const AFTER_HELP: &str = "\
Examples:
  slotd keygen --out /etc/slotd/component.secret
  slotd check --config /etc/slotd/slotd.toml --connect
  slotd run --config /etc/slotd/slotd.toml
  slotd send film.mp4 --account romeo@example.org --to juliet@example.org

Exit status: 0 good; 1 failed, or the audit found something; 2 wrong command line or
configuration; `send` has more.";

/// Upload service for XMPP: gives out XEP-0363 slots as an external component, and takes and serves
/// the files.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the service until SIGTERM or SIGINT.
    ///
    /// Logs to standard error; RUST_LOG wins over the configured level. On a signal it stops
    /// taking requests, waits up to limits.stop_within for running ones, and ends; uploads cut
    /// then go on afterwards, or can be sent again. A second signal ends it at once.
    Run {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Checks a configuration and tells what it means. Changes nothing.
    ///
    /// Each fault is a line on standard error: file, line, option, what is wrong, and what to do.
    #[command(after_help = "\
Examples:
  slotd check --config /etc/slotd/slotd.toml
  slotd check --config conf/slotd.toml --component-secret-file ./component.secret --connect")]
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        /// Also logs in to the XMPP server as each component, and out again.
        ///
        /// Beside a service that is running with the same configuration Prosody refuses it with a
        /// conflict, unless component_conflict_resolve is "kick_old": then the running one is
        /// thrown out for a moment and comes back by itself.
        #[arg(long)]
        connect: bool,
    },
    /// Compares rows with files; works beside a running service.
    ///
    /// Without --repair it changes nothing but what the next start would mend anyway. Exit status
    /// 1 where something is wrong.
    #[command(after_help = "\
Examples:
  slotd audit --config /etc/slotd/slotd.toml --deep
  slotd audit --config /etc/slotd/slotd.toml --json | jq .")]
    Audit {
        /// The configuration file; its secrets are not read.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Mends what can be mended: stop the service first.
        #[arg(long)]
        repair: bool,
        /// Also reads every file and compares its digest: takes as long as reading the disk.
        #[arg(long)]
        deep: bool,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Uploads files as an XMPP client and sends their links, over a network that comes and goes.
    ///
    /// Works with every service that knows XEP-0363. With upload sessions, as slotd has them, an
    /// upload goes on where it was: after a switch of networks, a restart of either server, or a
    /// night in the suitcase.
    Send(Box<SendArgs>),
    /// Makes a component secret, or a new key for signing links.
    ///
    /// Without options prints a fresh secret for the XMPP server and for component.secret_file.
    #[command(after_help = "\
Examples:
  slotd keygen --out /etc/slotd/component.secret
  slotd keygen --rotate --config /etc/slotd/slotd.toml")]
    Keygen {
        /// Writes the secret to a new file of mode 0600, and prints what the XMPP server needs.
        #[arg(long, value_name = "FILE", conflicts_with = "rotate")]
        out: Option<PathBuf>,
        /// Adds a signing key to data_dir: a running service takes it up. Older links stay good
        /// for keys.keep_old_for.
        #[arg(long, requires = "config")]
        rotate: bool,
        /// The configuration file, for --rotate.
        #[arg(long, value_name = "FILE", requires = "rotate")]
        config: Option<PathBuf>,
    },
}

#[derive(Args)]
struct ConfigArgs {
    /// The configuration file; conf/slotd.toml is a sample that explains every option.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Reads the secret of every component from this file, whatever the configuration says.
    #[arg(long, value_name = "FILE")]
    component_secret_file: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run { config } => load_to_serve(config).and_then(run),
        Command::Check { config, connect } => check(config, connect),
        Command::Audit {
            config,
            repair,
            deep,
            json,
        } => {
            let mend = if repair { Mend::Yes } else { Mend::No };
            let depth = if deep { Depth::Digests } else { Depth::Sizes };
            let options = Options { mend, depth };
            load(&config, &Use::DataDir).and_then(|loaded| audit(loaded.config, options, json))
        }
        Command::Send(args) => send(*args),
        Command::Keygen {
            config: Some(config),
            ..
        } => load(&config, &Use::DataDir).and_then(|loaded| rotate(&loaded.config)),
        Command::Keygen { out, .. } => keygen(out.as_deref()),
    };
    match done {
        Ok(code) => code,
        Err(End { words, code }) => {
            // Standard error may be closed; there is nobody else to tell.
            let _ = writeln!(io::stderr(), "{words}");
            ExitCode::from(code)
        }
    }
}

/// Why a command could not do its work.
struct End {
    words: String,
    code: u8,
}

fn failed(error: impl ToString) -> End {
    End {
        words: format!("slotd: {}", error.to_string()),
        code: EXIT_FAILURE,
    }
}

fn load(file: &Path, wanted: &Use) -> Result<Loaded, End> {
    config::load(file, wanted).map_err(|error| End {
        words: error.to_string(),
        code: EXIT_USAGE,
    })
}

fn load_to_serve(args: ConfigArgs) -> Result<Loaded, End> {
    let secret_file = args.component_secret_file;
    load(&args.config, &Use::Serving { secret_file })
}

fn run(loaded: Loaded) -> Result<ExitCode, End> {
    let Loaded { config, warnings } = loaded;
    start_log(&config);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = runtime(config.worker_threads)?;
    runtime.block_on(run_until_signal(config))?;
    Ok(ExitCode::SUCCESS)
}

async fn run_until_signal(config: Config) -> Result<(), End> {
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
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
        std::process::exit(EXIT_FAILURE.into());
    });
    let done = daemon::run(config, shutdown).await;
    signals.abort();
    done.map_err(failed)
}

fn check(args: ConfigArgs, connect: bool) -> Result<ExitCode, End> {
    let file = args.config.display().to_string();
    let Loaded { config, warnings } = load_to_serve(args)?;
    for warning in &warnings {
        say_aside(&format!("warning: {warning}"));
    }
    say(&format!("{file} is good:\n{}", Summary(&config)))?;
    if connect {
        let runtime = runtime(Some(1))?;
        for component in &config.components {
            if let Err(error) = runtime.block_on(xmpp::try_login(component)) {
                return Err(failed(format!("{}: {error}", component.jid)));
            }
            say(&format!("{}: logged in", component.jid))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn audit(config: Config, options: Options, json: bool) -> Result<ExitCode, End> {
    start_log(&config);
    let runtime = runtime(Some(1))?;
    let report = runtime
        .block_on(daemon::audit(config, options))
        .map_err(failed)?;
    if json {
        say(&serde_json::to_string(&report).map_err(failed)?)?;
    } else {
        say(&told(&report))?;
    }
    match report.is_clean() {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::from(EXIT_FAILURE)),
    }
}

/// Sends files until all are sent or a signal comes; what an upload needs to go on is kept.
fn send(args: SendArgs) -> Result<ExitCode, End> {
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

/// An audit's report in lines.
fn told(report: &AuditReport) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let mended = if finding.mended { " (mended)" } else { "" };
        text += &format!("{}: {}{mended}\n", kind(finding.kind), finding.what);
    }
    let more = report.n_findings - report.findings.len() as u64;
    if 0 < more {
        text += &format!("and {more} more\n");
    }
    let verdict = match (report.n_findings, report.is_clean()) {
        (0, _) => "nothing is wrong",
        (_, true) => "all that was wrong is mended",
        (_, false) => "something is wrong",
    };
    let AuditReport {
        n_rows,
        n_files,
        stored_bytes,
        n_parts,
        ..
    } = report;
    text + &format!(
        "{n_rows} rows, {n_files} files ({stored_bytes} bytes), {n_parts} parts: {verdict}"
    )
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::LostFile => "lost file",
        Kind::DamagedFile => "damaged file",
        Kind::StrayFile => "stray file",
        Kind::StrayPart => "stray part",
        Kind::WrongSum => "wrong sum",
        Kind::OtherStore => "other store",
    }
}

fn rotate(config: &Config) -> Result<ExitCode, End> {
    daemon::rotate_key(&config.data_dir).map_err(failed)?;
    say("a new key signs; what the old one signed stays good for keys.keep_old_for")?;
    Ok(ExitCode::SUCCESS)
}

fn keygen(out: Option<&Path>) -> Result<ExitCode, End> {
    let mut random = [0; SECRET_BYTES];
    getrandom::fill(&mut random).map_err(failed)?;
    let secret = URL_SAFE_NO_PAD.encode(random);
    let hint = hint(&secret);
    match out {
        Some(path) => {
            write_new(path, &secret)
                .map_err(|error| failed(format!("{}: {error}", path.display())))?;
            say(&hint)?;
        }
        None => {
            // The secret alone on standard output, so that it can go into a pipe.
            say(&secret)?;
            say_aside(&hint);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What to write into the XMPP server's configuration.
fn hint(secret: &str) -> String {
    format!(
        "\nProsody, in prosody.cfg.lua:\n\n  \
         Component \"upload.example.org\"\n    \
         component_secret = \"{secret}\"\n\n\
         ejabberd, under listen: in ejabberd.yml:\n\n  \
         - port: 5347\n    ip: \"127.0.0.1\"\n    module: ejabberd_service\n    \
         access: all\n    hosts:\n      \
         \"upload.example.org\":\n        password: \"{secret}\""
    )
}

/// Writes a file that did not exist, for its owner alone.
fn write_new(path: &Path, secret: &str) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{secret}")?;
    file.sync_all()
}

fn start_log(config: &Config) {
    slotd::log::start(&config.log, std::env::var("RUST_LOG").ok().as_deref());
}

fn runtime(worker_threads: Option<usize>) -> Result<Runtime, End> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(n_threads) = worker_threads {
        builder.worker_threads(n_threads);
    }
    builder.enable_all().build().map_err(failed)
}

/// A line on standard output; not being able to is a failure, as for every tool in a pipe.
fn say(text: &str) -> Result<(), End> {
    writeln!(io::stdout(), "{text}").map_err(failed)
}

/// A line on standard error, beside the result.
fn say_aside(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
