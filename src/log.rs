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
    let directives = directives.filter(|directives| !directives.is_empty());
    let wrong = directives.map(check_level).and_then(Result::err);
    let level = match (directives, &wrong) {
        (Some(directives), None) => directives,
        _ => &config.level,
    };
    // Also takes what crates say through `log`. Fails where a log was started: that one goes on.
    let _ = subscriber(level, config.format, io::stderr).try_init();
    if let Some(what) = wrong {
        tracing::warn!("RUST_LOG: {what}; log.level is used");
    }
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

#[cfg(test)]
mod tests {
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
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
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
        let lines = Lines::default();
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
}
