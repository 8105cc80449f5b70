//! The command line.

use std::path::PathBuf;

use clap::{Args as Group, Parser, Subcommand};

/// Load for upload services, and what it took.
#[derive(Parser)]
#[command(name = "bench-load")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub work: Work,
}

/// What there is to do.
#[derive(Subcommand)]
pub enum Work {
    /// Read files over kept connections.
    Get(GetArgs),
    /// Send one file to each of many URLs.
    Put(PutArgs),
    /// PUTs and GETs in a given share.
    Mixed(MixedArgs),
    /// Uploads that stop in their midst; prints a line when all stand.
    Stalled(StalledArgs),
    /// Uploads that break off after a little of each.
    Broken(BrokenArgs),
    /// Connections that made one request each; prints a line when all stand.
    Idle(IdleArgs),
    /// GETs with pauses while slow uploads run.
    SlowUploads(SlowArgs),
    /// Files written without any server: the disk's own limit.
    Disk(DiskArgs),
    /// A server that does next to nothing: the generator's own limit.
    Sink(SinkArgs),
}

/// What every load has.
#[derive(Group, Clone)]
pub struct Common {
    /// A file with a URL a line.
    #[arg(long)]
    pub urls: PathBuf,
    /// How many connections.
    #[arg(long, default_value_t = 16)]
    pub connections: usize,
    /// How many requests; without it as many as there are URLs.
    #[arg(long)]
    pub requests: Option<usize>,
    /// Ends sooner, after so many seconds.
    #[arg(long)]
    pub seconds: Option<f64>,
}

/// `get`
#[derive(Group, Clone)]
pub struct GetArgs {
    /// URLs, connections, ends.
    #[command(flatten)]
    pub common: Common,
    /// The size that every answer must have.
    #[arg(long)]
    pub size: Option<u64>,
    /// Milliseconds between an answer and the next request.
    #[arg(long, default_value_t = 0)]
    pub pause_ms: u64,
}

/// `put`
#[derive(Group, Clone)]
pub struct PutArgs {
    /// URLs, connections, ends.
    #[command(flatten)]
    pub common: Common,
    /// The file that is sent.
    #[arg(long)]
    pub body: PathBuf,
}

/// `mixed`
#[derive(Group, Clone)]
pub struct MixedArgs {
    /// The PUTs: URLs, connections, body.
    #[command(flatten)]
    pub put: PutArgs,
    /// A file with a URL a line, to be read.
    #[arg(long)]
    pub get_urls: PathBuf,
    /// How many of a hundred requests are PUTs.
    #[arg(long, default_value_t = 20)]
    pub put_percent: usize,
}

/// `stalled`
#[derive(Group, Clone)]
pub struct StalledArgs {
    /// URLs and connections, each URL for one of them.
    #[command(flatten)]
    pub common: Common,
    /// The size that each upload announces, in bytes.
    #[arg(long, default_value_t = 1 << 20)]
    pub size: u64,
    /// How much of it is sent.
    #[arg(long, default_value_t = 256 << 10)]
    pub sent: u64,
    /// How long to hold them, in seconds.
    #[arg(long, default_value_t = 10.0)]
    pub hold: f64,
}

/// `broken`
#[derive(Group, Clone)]
pub struct BrokenArgs {
    /// URLs and connections, each URL for one of them.
    #[command(flatten)]
    pub common: Common,
    /// The size that each upload announces, in bytes.
    #[arg(long, default_value_t = 100 << 10)]
    pub size: u64,
    /// How much of it is sent.
    #[arg(long, default_value_t = 4 << 10)]
    pub sent: usize,
}

/// `idle`
#[derive(Group, Clone)]
pub struct IdleArgs {
    /// URLs and connections.
    #[command(flatten)]
    pub common: Common,
    /// How long to hold them, in seconds.
    #[arg(long, default_value_t = 10.0)]
    pub hold: f64,
}

/// `slow-uploads`
#[derive(Group, Clone)]
pub struct SlowArgs {
    /// The GETs.
    #[command(flatten)]
    pub get: GetArgs,
    /// A file with a PUT URL a line: as many uploads.
    #[arg(long)]
    pub put_urls: PathBuf,
    /// The size that each upload announces, in bytes; no slower than the whole takes.
    #[arg(long, default_value_t = 4 << 20)]
    pub upload_size: u64,
    /// Bytes a second of each upload.
    #[arg(long, default_value_t = 64 << 10)]
    pub rate: u64,
}

/// `disk`
#[derive(Group, Clone)]
pub struct DiskArgs {
    /// The directory to write in.
    #[arg(long)]
    pub dir: PathBuf,
    /// How many threads.
    #[arg(long, default_value_t = 16)]
    pub connections: usize,
    /// How many files.
    #[arg(long)]
    pub requests: usize,
    /// The bytes of each.
    #[arg(long, default_value_t = 100 << 10)]
    pub size: usize,
    /// Sync the content before and the directory after each rename.
    #[arg(long)]
    pub sync: bool,
}

/// `sink`
#[derive(Group, Clone)]
pub struct SinkArgs {
    /// Where to listen: `address:port`.
    #[arg(long)]
    pub listen: String,
    /// The file that every GET is answered with.
    #[arg(long)]
    pub file: PathBuf,
}
