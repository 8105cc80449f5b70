//! `slotd keygen`.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use slotd::config::{Config, Use};
use slotd::daemon;

use super::{End, failed, load, say, say_aside};

/// Random bytes of a component secret: 43 characters.
const SECRET_BYTES: usize = 32;

const AFTER_HELP: &str = "\
Examples:
  slotd keygen --out /etc/slotd/component.secret
  slotd keygen --rotate --config /etc/slotd/slotd.toml";

/// Which secret, and where to.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct KeygenArgs {
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
}

/// Makes what is wanted.
pub fn keygen(args: KeygenArgs) -> Result<ExitCode, End> {
    match args.config {
        Some(config) => rotate(&load(&config, &Use::DataDir)?.config),
        None => make_secret(args.out.as_deref()),
    }
}

fn rotate(config: &Config) -> Result<ExitCode, End> {
    daemon::rotate_key(&config.data_dir).map_err(failed)?;
    say("a new key signs; what the old one signed stays good for keys.keep_old_for")?;
    Ok(ExitCode::SUCCESS)
}

fn make_secret(out: Option<&Path>) -> Result<ExitCode, End> {
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
