//! Pings that we send to an XMPP server, and what comes back: XEP-0199 #protocol.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use minidom::Element;
use minidom::rxml::xml_ncname;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use xmpp_parsers::ns;

use super::stream::random;
use crate::core::command::operation::Ping;

/// Pings under way; nobody needs more, and a stranger's result finds none.
const PINGS_MAX: usize = 8;
/// How long to wait for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Pings under way, by their id.
#[derive(Default)]
pub struct Pings(Mutex<HashMap<String, Waiting>>);

struct Waiting {
    /// Who was asked.
    server: String,
    answered: oneshot::Sender<()>,
}

/// A ping's place among them, given back also where the stream ends before the answer.
struct Place(Arc<Pings>, String);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

impl Pings {
    /// A ping to a server, `from` one of our hosts where that is to be said; and what comes of it.
    /// None where too many are asked for.
    pub fn ask(
        self: &Arc<Self>,
        from: Option<&str>,
        server: &str,
    ) -> Option<(Element, impl Future<Output = Ping> + Send + 'static)> {
        let id = format!("ping-{:016x}", random());
        let (answered, answer) = oneshot::channel();
        let mut waiting = self.lock();
        if PINGS_MAX <= waiting.len() {
            return None;
        }
        let asked = Waiting {
            server: server.to_owned(),
            answered,
        };
        waiting.insert(id.clone(), asked);
        let ping = Element::builder("iq", ns::COMPONENT)
            .attr(xml_ncname!("type").to_owned(), "get")
            .attr(xml_ncname!("from").to_owned(), from)
            .attr(xml_ncname!("to").to_owned(), server)
            .attr(xml_ncname!("id").to_owned(), id.as_str())
            .append(Element::bare("ping", ns::PING))
            .build();
        let (place, begun) = (Place(self.clone(), id), Instant::now());
        let outcome = async move {
            let _place = place;
            match timeout(ANSWER_WITHIN, answer).await {
                Ok(Ok(())) => Ping::Answered(begun.elapsed()),
                Ok(Err(_)) | Err(_) => Ping::Silent,
            }
        };
        Some((ping, outcome))
    }

    /// A result or an error came: an error is an answer too.
    pub fn hear(&self, stanza: &Element) {
        let mut waiting = self.lock();
        let (Some(id), Some(from)) = (stanza.attr("id"), stanza.attr("from")) else {
            return;
        };
        if waiting.get(id).is_some_and(|it| it.server == from)
            && let Some(asked) = waiting.remove(id)
        {
            // Who asked may have gone.
            let _ = asked.answered.send(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a stream that ended nobody waits for the answer.
    #[test]
    fn places_are_given_back() {
        let pings = Arc::new(Pings::default());
        let ask = || pings.ask(Some("upload.example.org"), "example.org");
        for _ in 0..2 {
            let asked: Vec<_> = (0..PINGS_MAX).map(|_| ask().expect("a place")).collect();
            assert!(ask().is_none());
            drop(asked);
        }
    }
}
