//! The log: text or JSON on standard error and in a file, and what must never get into it.
//!
//! `file` is a file that may be moved meanwhile, `lines` what writes to it beside standard error.

use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use self::lines::Lines;
use crate::config::{Log, LogFormat};

pub mod file;
pub mod lines;

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

/// The log of this process, once it was started.
static STARTED: OnceLock<Started> = OnceLock::new();

/// What of the log can change.
struct Started {
    lines: Lines,
    set: Set,
}

/// Sets level and format of a log that runs.
type Set = Box<dyn Fn(&str, LogFormat) + Send + Sync>;

/// Starts the log of this process, on standard error and in the file that the configuration names.
///
/// `directives` (the environment's `RUST_LOG`), where given and good, win over the level of the
/// configuration. Does nothing where a log was started before.
pub fn start(config: &Log, directives: Option<&str>) {
    let (level, wrong) = level(config, directives);
    let lines = Lines::default();
    let (set, subscriber) = changeable(level, config.format, lines.clone());
    lines.set_file(config.file.clone());
    // Also takes what crates say through `log`. Fails where a log was started: that one goes on.
    if subscriber.try_init().is_ok() {
        let _ = STARTED.set(Started { lines, set });
    }
    if let Some(what) = wrong {
        tracing::warn!("RUST_LOG: {what}; log.level is used");
    }
}

/// Goes on as `config` says, which `start` was given otherwise; the same for `directives`.
pub fn change(config: &Log, directives: Option<&str>) {
    if let Some(started) = STARTED.get() {
        started.lines.set_file(config.file.clone());
        (started.set)(level(config, directives).0, config.format);
    }
}

/// Waits until what was said is in the file, or a little while: before the process ends.
pub fn flush() {
    if let Some(started) = STARTED.get() {
        started.lines.flush();
    }
}

/// The level that counts, and what is wrong with `RUST_LOG`.
fn level<'a>(config: &'a Log, directives: Option<&'a str>) -> (&'a str, Option<String>) {
    let directives = directives.filter(|directives| !directives.is_empty());
    let wrong = directives.map(check_level).and_then(Result::err);
    match (directives, &wrong) {
        (Some(directives), None) => (directives, None),
        _ => (&config.level, wrong),
    }
}

/// What writes lines to `lines`, and what changes their level and format.
fn changeable(
    level: &str,
    format: LogFormat,
    lines: Lines,
) -> (Set, impl Subscriber + Send + Sync + 'static) {
    let (layer, layers) = reload::Layer::new(self::layer(format, lines.clone()));
    let (filter, filters) = reload::Layer::new(EnvFilter::builder().parse_lossy(level));
    let set = move |level: &str, format| {
        // They fail where the log is gone, and then there is nothing to change.
        let _ = layers.reload(self::layer(format, lines.clone()));
        let _ = filters.reload(EnvFilter::builder().parse_lossy(level));
    };
    let subscriber = Registry::default()
        .with(layer.with_filter(filter_fn(is_harmless)))
        .with(filter);
    (Box::new(set), subscriber)
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
        .with(layer(format, writer).with_filter(filter_fn(is_harmless)))
        .with(filter)
}

fn layer<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn levels() {
        for text in [
            "info",
            "off",
            "TRACE",
            "info,slotd::xmpp=debug",
            "slotd=warn",
        ] {
            assert!(check_level(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "inof",
            "info,",
            "slotd=verbose",
            "3",
            "=,",
            "debug slotd",
        ] {
            assert!(check_level(text).is_err(), "{text}");
        }
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .expect("not poisoned")
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str, format: LogFormat, act: impl FnOnce()) -> String {
        let lines = Written::default();
        let writer = lines.clone();
        let subscriber = subscriber(level, format, move || writer.clone());
        tracing::subscriber::with_default(subscriber, act);
        let bytes = lines.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn talkative_crates_are_held_at_info() {
        let text = logged("trace,tokio_xmpp=trace", LogFormat::Text, || {
            tracing::trace!(target: "slotd::http", "ours");
            tracing::debug!(target: "tokio_xmpp::component", "handshake 1");
            tracing::trace!(target: "rxml", "handshake 2");
            tracing::debug!(target: "hyper::proto::h1", "handshake 3");
            tracing::info!(target: "tokio_xmpp", "theirs");
        });
        assert!(text.contains("ours") && text.contains("theirs"), "{text}");
        assert!(!text.contains("handshake"), "{text}");
    }

    #[test]
    fn a_level_is_a_limit() {
        let act = || {
            tracing::info!(target: "slotd", "said");
            tracing::debug!(target: "slotd", "unsaid");
        };
        let text = logged("info", LogFormat::Text, act);
        assert!(text.contains("said") && !text.contains("unsaid"), "{text}");
    }

    #[test]
    fn a_line_is_one_object_and_line_ends_are_escaped() {
        let text = logged("info", LogFormat::Json, || {
            tracing::info!(name = "a\r\nforged", size_bytes = 5, "stored");
        });
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(line["size_bytes"], 5);
        assert_eq!(line["message"], "stored");
        let text = logged("info", LogFormat::Text, || {
            tracing::info!(name = "a\r\nforged", "stored");
        });
        assert_eq!(text.matches('\n').count(), 1, "{text}");
    }

    #[test]
    fn level_format_and_file_change_while_it_runs() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let lines = Lines::default();
        let (set, subscriber) = changeable("info", LogFormat::Text, lines.clone());
        tracing::subscriber::with_default(subscriber, || {
            let speak = || {
                tracing::info!(target: "slotd", "aloud");
                tracing::debug!(target: "slotd", "quietly");
                tracing::debug!(target: "hyper", "secret");
            };
            speak();
            lines.set_file(Some(path.clone()));
            speak();
            set("debug", LogFormat::Json);
            speak();
            set("warn", LogFormat::Json);
            speak();
        });
        lines.flush();
        let text = std::fs::read_to_string(&path).expect("a file");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].ends_with("slotd: aloud"), "{text}");
        for (line, message) in [(lines[1], "aloud"), (lines[2], "quietly")] {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(line["message"], message);
        }
    }
}
