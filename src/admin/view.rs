//! The status page as it is answered: gathered and drawn at most once a second, for everybody.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::admin::pulse::Beat;
use crate::admin::{Admin, page};
use crate::core::health::StreamCount;
use crate::core::status::Health;

/// How long a page is good enough.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// The last page, and when it was drawn.
#[derive(Default)]
pub(super) struct View(Mutex<Option<(Instant, Bytes)>>);

/// Answers with the page.
pub(super) async fn page(State(admin): State<Arc<Admin>>) -> Response {
    let fields = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, page::policy()),
    ];
    (fields, admin.page().await).into_response()
}

impl Admin {
    /// The page as of a moment ago. Who comes while it is drawn waits for it.
    async fn page(&self) -> Bytes {
        let mut last = self.view.0.lock().await;
        if let Some((at, page)) = last.as_ref()
            && at.elapsed() < FRESH_FOR
        {
            return page.clone();
        }
        let beat = self.pulse.feel().await;
        let health = self.health(beat.as_ref());
        let status = self.service.status(health, beat.is_some()).await;
        let page = Bytes::from(page::draw(&status));
        *last = Some((Instant::now(), page.clone()));
        page
    }

    /// How the parts are: each stream's component, the database, the files.
    fn health(&self, beat: Option<&Beat>) -> Vec<Health> {
        let streams = self.service.streams().list().into_iter().map(stream);
        let rows = beat.map(|beat| beat.stock.totals.map(|_| "answers".to_owned()));
        let files = beat.map(|beat| {
            let tried = beat.tried.as_ref().filter(|_| beat.stock.room.is_some());
            tried.map(|steps| in_words(steps))
        });
        let stores = [store("Database", rows), store("Files", files)];
        streams.chain(stores).collect()
    }
}

fn stream(count: StreamCount) -> Health {
    let StreamCount {
        host,
        n_up,
        n_wanted,
        n_resources,
    } = count;
    Health {
        is_well: 0 < n_up && n_resources != Some(0),
        words: match (n_up, n_wanted) {
            (0, _) => "no stream to the XMPP server".to_owned(),
            _ if n_resources == Some(0) => "nobody answers: no resource is known".to_owned(),
            (1, 1) => "connected to the XMPP server".to_owned(),
            _ => format!("{n_up} of {n_wanted} streams to the XMPP server"),
        },
        part: host,
    }
}

/// A store that does not answer, that fails, or that says how it is.
fn store(part: &str, said: Option<Option<String>>) -> Health {
    let is_well = matches!(said, Some(Some(_)));
    let words = match said {
        None => "does not answer".to_owned(),
        Some(None) => "fails; the log says why".to_owned(),
        Some(Some(words)) => words,
    };
    Health {
        part: part.to_owned(),
        is_well,
        words,
    }
}

/// What was tried, and how long it took: `write 0.2 ms, sync 3.1 ms`.
fn in_words(steps: &[(&str, Duration)]) -> String {
    let step =
        |(name, took): &(&str, Duration)| format!("{name} {:.1} ms", took.as_secs_f64() * 1000.0);
    steps.iter().map(step).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_without_resources_is_not_well() {
        let host = |n_up, n_resources| {
            let health = stream(StreamCount {
                host: "relay.example.org".to_owned(),
                n_up,
                n_wanted: 1,
                n_resources,
            });
            (health.is_well, health.words)
        };
        let words = |is_well, words: &str| (is_well, words.to_owned());
        let connected = "connected to the XMPP server";
        assert_eq!(host(1, None), words(true, connected));
        assert_eq!(host(1, Some(2)), words(true, connected));
        assert_eq!(
            host(1, Some(0)),
            words(false, "nobody answers: no resource is known")
        );
        assert_eq!(
            host(0, Some(0)),
            words(false, "no stream to the XMPP server")
        );
    }
}
