//! The log: text or JSON on standard error, and what must never get into it.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Crates that log whole stanzas, handshakes and request heads, and so tokens and secrets, at debug
/// and below: held at info whatever anybody sets.
const TALKATIVE: [&str; 10] = [
    "tokio_xmpp",
    "xmpp_parsers",
    "xso",
    "rxml",
    "minidom",
    "hyper",
    "hyper_util",
    "h2",
    "rustls",
    "tokio_rustls",
];

/// Refuses what is neither a level nor directives of levels (`info,slotd::xmpp=debug`).
pub fn check_level(text: &str) -> Result<(), String> {
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    for directive in text.split(',') {
        let level = directive.rsplit('=').next().unwrap_or("").trim();
        if level.is_empty() || !is_level(level) || level.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("{level:?} is not a level"));
        }
    }
    EnvFilter::builder()
        .parse(text)
        .map(|_| ())
        .map_err(|_| format!("{text:?} is not a list of levels"))
}

/// Starts the log of this process, on standard error.
///
/// `directives` (the environment's `RUST_LOG`), where given and good, win over the level of the
/// configuration. Does nothing where a log was started before.
pub fn start(config: &Log, directives: Option<&str>) {
    let level = directives
        .filter(|directives| check_level(directives).is_ok())
        .unwrap_or(&config.level);
    // Also takes what crates say through `log`. Fails where a log was started: that one goes on.
    let _ = subscriber(level, config.format, io::stderr).try_init();
}

/// What writes lines of `level` to `writer`.
pub fn subscriber<W>(
    level: &str,
    format: LogFormat,
    writer: W,
) -> impl Subscriber + Send + Sync + 'static
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse_lossy(level);
    Registry::default()
        .with(lines(format, writer).with_filter(filter_fn(is_harmless)))
        .with(filter)
}

fn lines<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => layer.with_ansi(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// Whether an event cannot hold a secret.
fn is_harmless(metadata: &Metadata<'_>) -> bool {
    let root = metadata.target().split("::").next().unwrap_or("");
    *metadata.level() <= tracing::Level::INFO || !TALKATIVE.contains(&root)
}
