//! What each operation costs among a thousand rows and among a million.
//!
//! Fills a data directory of its own with rows as a service has them after a month, and measures
//! through the library what a service does with them; starts are measured as processes. Prints a
//! table; `--json FILE` has the same for `picture`, which draws it. `growth/run` does all of it.
//!
//! `cargo run --profile quick -p slotd-bench --bin bench-growth -- --rows 1000,10000,100000`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

mod fill;
mod gauge;
mod operations;
mod starts;

use gauge::Line;

/// What the command line says.
struct Args {
    rows: Vec<u64>,
    json: Option<PathBuf>,
    /// The program whose starts are measured, too.
    slotd: Option<PathBuf>,
    /// Where the data directories are made.
    below: PathBuf,
    /// Only operations whose name holds this.
    only: String,
}

const USAGE: &str = "usage: bench-growth [--rows 1000,10000] [--json FILE] [--slotd PROGRAM] \
                     [--below DIRECTORY] [--only WORD]";

fn parse(mut words: impl Iterator<Item = String>) -> Option<Args> {
    let mut args = Args {
        rows: vec![1000, 10_000, 100_000],
        json: None,
        slotd: None,
        below: std::env::temp_dir(),
        only: String::new(),
    };
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word.as_str() {
            "--rows" => {
                let rows = value.split(',').map(|n| n.parse().ok());
                args.rows = rows.collect::<Option<_>>()?;
            }
            "--json" => args.json = Some(value.into()),
            "--slotd" => args.slotd = Some(value.into()),
            "--below" => args.below = value.into(),
            "--only" => args.only = value,
            _ => return None,
        }
    }
    Some(args)
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    if words.peek().is_some_and(|word| word == starts::CHILD) {
        return starts::child(words.skip(1).collect());
    }
    let Some(args) = parse(words) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut lines = Vec::new();
    for n_rows in &args.rows {
        lines.extend(measure(*n_rows, &args));
    }
    if let Some(path) = args.json {
        let json = serde_json::to_string_pretty(&lines).expect("numbers and names");
        std::fs::write(path, json + "\n").expect("the file can be written");
    }
    ExitCode::SUCCESS
}

fn measure(n_rows: u64, args: &Args) -> Vec<Line> {
    let dir = tempfile::tempdir_in(&args.below).expect("a directory");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let data_dir = dir.path().join("data");
    let begun = Instant::now();
    runtime.block_on(fill::fill(&data_dir, n_rows));
    eprintln!("{n_rows} rows in {:.1} s", begun.elapsed().as_secs_f64());
    let mut lines = Vec::new();
    let mut add = |line: Line| {
        line.print();
        lines.push(line);
    };
    let wanted = |name: &str| name.contains(&args.only);
    if wanted("start") {
        starts::measure(&data_dir, n_rows, args.slotd.as_deref(), &mut add);
    }
    runtime.block_on(operations::measure(&data_dir, n_rows, &wanted, &mut add));
    lines
}
