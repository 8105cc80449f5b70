//! How long a start takes, after a stop and after an end that nobody announced.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use slotd::config::Durability;
use slotd::store;

use crate::fill;
use crate::gauge::{self, Line};

/// The first word of a command line that this program gives itself.
pub const CHILD: &str = "--child";
/// How long a quiet time before an end is.
const QUIET_FOR: Duration = Duration::from_secs(2);
/// Starts of each kind.
const N_STARTS: usize = 7;

/// Opens the stores of a data directory, tells how long it took, and ends well or badly.
pub fn child(words: Vec<String>) -> ExitCode {
    let [data_dir, how] = words.as_slice() else {
        return ExitCode::from(2);
    };
    let begun = Instant::now();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let stores = store::open(Path::new(data_dir), Durability::Full).expect("the stores open");
        let service = fill::service(stores.clone(), u64::from(std::process::id()) << 32);
        let took = begun.elapsed();
        let (cpu, rss) = (gauge::cpu(), gauge::rss_bytes());
        println!("{} {} {rss}", took.as_nanos(), cpu.as_nanos());
        if how != "end" {
            // Something that the next start has to look at.
            let row = fill::complete(fill::id_of(took.as_nanos() as u64), fill::romeo(), 1);
            fill::admit_all(&stores, vec![row]).await;
            if how == "quiet" {
                tokio::time::sleep(QUIET_FOR).await;
            }
            std::process::abort();
        }
        drop(service);
    });
    ExitCode::SUCCESS
}

/// Measures starts of this program, and of `slotd` where there is one.
pub fn measure(data_dir: &Path, n_rows: u64, slotd: Option<&Path>, add: &mut dyn FnMut(Line)) {
    let library = |how: &str| {
        let starts = (0..N_STARTS).map(|_| start_child(data_dir, how));
        starts.collect::<Vec<_>>()
    };
    // The first open follows a clean stop, whatever its own end.
    start_child(data_dir, "end");
    add(line("start after a stop", n_rows, library("end")));
    start_child(data_dir, "abort");
    add(line("start after a kill", n_rows, library("abort")));
    start_child(data_dir, "quiet");
    add(line("start after a quiet kill", n_rows, library("quiet")));
    start_child(data_dir, "end");
    if let Some(slotd) = slotd {
        start_slotd(slotd, data_dir);
        let clean = (0..N_STARTS).map(|_| start_slotd(slotd, data_dir));
        add(line("slotd run until ready", n_rows, clean.collect()));
    }
}

/// Time, processor time, and memory of one start.
struct Start(Duration, Duration, u64);

fn line(name: &'static str, n_rows: u64, mut starts: Vec<Start>) -> Line {
    starts.sort_by_key(|start| start.0);
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let middle = &starts[starts.len() / 2];
    Line {
        n_rows,
        name,
        median_us: us(middle.0),
        p99_us: us(starts[starts.len() - 1].0),
        cpu_us: us(middle.1),
        rss_bytes: Some(middle.2),
    }
}

fn start_child(data_dir: &Path, how: &str) -> Start {
    let mut command = Command::new(std::env::current_exe().expect("our own path"));
    command.arg(CHILD).arg(data_dir).arg(how);
    let output = command.stderr(Stdio::inherit()).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
    let [took, cpu, rss] = numbers[..] else {
        panic!("the start failed: {text}");
    };
    Start(Duration::from_nanos(took), Duration::from_nanos(cpu), rss)
}

/// `slotd run`, from its start to its word that it is ready; then it is stopped.
fn start_slotd(program: &Path, data_dir: &Path) -> Start {
    let free = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = free.local_addr().expect("an address");
    drop(free);
    let conf = data_dir.with_extension("toml");
    let text = format!(
        "data_dir = \"{}\"\n[http]\nlisten = [\"{address}\"]\n\
         public_url = \"http://127.0.0.1:5050/\"\n",
        data_dir.display()
    );
    fs::write(&conf, text).expect("written");
    let begun = Instant::now();
    let mut command = Command::new(program);
    command.arg("run").arg("--config").arg(&conf);
    let mut slotd = command.stderr(Stdio::piped()).spawn().expect("starts");
    let lines = BufReader::new(slotd.stderr.take().expect("piped")).lines();
    let is_ready = |line: &Result<String, _>| line.as_ref().is_ok_and(|l| l.contains("is ready"));
    let ready = lines.into_iter().find(is_ready);
    let took = begun.elapsed();
    assert!(ready.is_some(), "slotd ended");
    let proc = Path::new("/proc").join(slotd.id().to_string());
    let (cpu, rss) = (gauge::cpu_of(&proc), gauge::rss_of(&proc));
    let stopped = Command::new("kill").arg(slotd.id().to_string()).status();
    assert!(stopped.is_ok_and(|status| status.success()));
    slotd.wait().expect("ended");
    Start(took, cpu, rss)
}
