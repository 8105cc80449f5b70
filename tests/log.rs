//! What crates say through `log` comes into ours, and their handshakes do not, whatever is set.
//!
//! A file of its own: a process has one `log`.

use std::io;
use std::sync::{Arc, Mutex};

use slotd::config::LogFormat;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut lines = self.0.lock().expect("not poisoned");
        lines.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn handshakes_logged_by_other_crates_stay_out() {
    let lines = Lines::default();
    let writer = lines.clone();
    let level = "trace,tokio_xmpp=trace,rxml=trace";
    slotd::log::subscriber(level, LogFormat::Text, move || writer.clone())
        .try_init()
        .expect("the first in this process");
    log::trace!(target: "tokio_xmpp::component::login", "handshake 1");
    log::debug!(target: "rxml", "handshake 2");
    log::info!(target: "tokio_xmpp", "theirs");
    log::debug!(target: "slotd::xmpp", "ours");
    let text = String::from_utf8(lines.0.lock().expect("not poisoned").clone()).expect("UTF-8");
    assert!(text.contains("tokio_xmpp: theirs"), "{text}");
    assert!(text.contains("slotd::xmpp: ours"), "{text}");
    assert!(!text.contains("handshake"), "{text}");
}
