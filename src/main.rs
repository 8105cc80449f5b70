//! The command line: what is said on it is done by `command`, and its end is the exit status.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

mod command;

use command::{Command, End};

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

fn main() -> ExitCode {
    match Cli::parse().command.perform() {
        Ok(code) => code,
        Err(End { words, code }) => {
            // Standard error may be closed; there is nobody else to tell.
            let _ = writeln!(io::stderr(), "{words}");
            ExitCode::from(code)
        }
    }
}
