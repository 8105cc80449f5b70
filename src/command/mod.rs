//! The subcommands, one a file, and what they share: loading, the log, the runtime, words.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use slotd::config::{self, Config, Loaded, Use};
use slotd::import::ImportArgs;
use slotd::send::SendArgs;
use tokio::runtime::Runtime;

mod audit;
mod check;
mod import;
mod keygen;
mod run;
mod send;

/// Exit status: the command line or the configuration is wrong. clap uses the same.
const EXIT_USAGE: u8 = 2;
/// Exit status: anything else went wrong, or the audit found something.
const EXIT_FAILURE: u8 = 1;
/// Exit statuses: ended by SIGINT and by SIGTERM, as a shell tells them.
const EXIT_INTERRUPTED: u8 = 130;
const EXIT_TERMINATED: u8 = 143;

/// What is to be done.
#[derive(Subcommand)]
pub enum Command {
    /// Runs the service until SIGTERM or SIGINT.
    ///
    /// Logs to standard error, and to log.file; RUST_LOG wins over the configured level. On a
    /// signal it stops taking requests, waits up to limits.stop_within for running ones, and ends;
    /// uploads cut then go on afterwards, or can be sent again. A second signal ends it at once.
    ///
    /// On SIGHUP it reads the configuration anew, while all goes on: a broken file changes nothing,
    /// and the log says what is wrong. data_dir, durability, worker_threads, [component],
    /// [account], [relay], but for its last three options, and [http], but for the files of
    /// [http.tls], take a restart.
    ///
    /// Takes sockets of a service manager (LISTEN_FDS) for addresses in http.listen, and tells it
    /// how it is (NOTIFY_SOCKET, WATCHDOG_USEC): contrib/systemd.
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
        /// Also logs in to the XMPP server as each component, the account and the relay, and out
        /// again.
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
    Audit(audit::AuditArgs),
    /// Takes over the files of another upload server, so that their links go on working.
    ///
    /// Knows prosody-filer, hmac-file-server, Prosody's mod_http_file_share and ejabberd's
    /// mod_http_upload.
    Import(ImportArgs),
    /// Uploads files as an XMPP client and sends their links, over a network that comes and goes.
    ///
    /// Works with every service that knows XEP-0363. With upload sessions, as slotd has them, an
    /// upload goes on where it was: after a switch of networks, a restart of either server, or a
    /// night in the suitcase.
    Send(Box<SendArgs>),
    /// Makes a component secret, or a new key for signing links.
    ///
    /// Without options prints a fresh secret for the XMPP server and for component.secret_file.
    Keygen(keygen::KeygenArgs),
}

impl Command {
    /// Does it; the exit status.
    pub fn perform(self) -> Result<ExitCode, End> {
        match self {
            Self::Run { config } => run::run(config),
            Self::Check { config, connect } => check::check(config, connect),
            Self::Audit(args) => audit::audit(args),
            Self::Import(args) => import::import(args),
            Self::Send(args) => send::send(*args),
            Self::Keygen(args) => keygen::keygen(args),
        }
    }
}

/// The configuration of whoever serves.
#[derive(Args)]
pub struct ConfigArgs {
    /// The configuration file; conf/slotd.toml is a sample that explains every option.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Reads the secret of every component and of the relay, or the account's password, from this
    /// file, whatever the configuration says.
    #[arg(long, value_name = "FILE")]
    component_secret_file: Option<PathBuf>,
}

impl ConfigArgs {
    fn wanted(&self) -> Use {
        let secret_file = self.component_secret_file.clone();
        Use::Serving { secret_file }
    }
}

/// Why a command could not do its work.
pub struct End {
    /// For standard error.
    pub words: String,
    /// The exit status.
    pub code: u8,
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
    load(&args.config, &args.wanted())
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
