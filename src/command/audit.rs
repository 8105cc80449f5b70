//! `slotd audit`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use slotd::config::Use;
use slotd::daemon;
use slotd::service::audit::{AuditReport, Depth, Kind, Options};
use slotd::store::Mend;

use super::{EXIT_FAILURE, End, failed, load, runtime, say, start_log};

const AFTER_HELP: &str = "\
Examples:
  slotd audit --config /etc/slotd/slotd.toml --deep
  slotd audit --config /etc/slotd/slotd.toml --json | jq .";

/// What is compared, and how it is told.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct AuditArgs {
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
}

/// Compares, mends where that is wanted, and tells.
pub fn audit(args: AuditArgs) -> Result<ExitCode, End> {
    let options = Options {
        mend: if args.repair { Mend::Yes } else { Mend::No },
        depth: if args.deep {
            Depth::Digests
        } else {
            Depth::Sizes
        },
    };
    let config = load(&args.config, &Use::DataDir)?.config;
    start_log(&config);
    let runtime = runtime(Some(1))?;
    let report = runtime
        .block_on(daemon::audit(config, options))
        .map_err(failed)?;
    if args.json {
        say(&serde_json::to_string(&report).map_err(failed)?)?;
    } else {
        say(&told(&report))?;
    }
    match report.is_clean() {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::from(EXIT_FAILURE)),
    }
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
