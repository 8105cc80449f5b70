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

impl Pings {
    /// A ping from `host`, one of ours, to the domain above it; and what comes of it. None where
    /// there is no such domain, or too many are asked for.
    pub fn ask(
        self: &Arc<Self>,
        host: &str,
    ) -> Option<(Element, impl Future<Output = Ping> + Send + 'static)> {
        let (_, server) = host.split_once('.')?;
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
            .attr(xml_ncname!("from").to_owned(), host)
            .attr(xml_ncname!("to").to_owned(), server)
            .attr(xml_ncname!("id").to_owned(), id.as_str())
            .append(Element::bare("ping", ns::PING))
            .build();
        let (pings, begun) = (self.clone(), Instant::now());
        let outcome = async move {
            let answer = timeout(ANSWER_WITHIN, answer).await;
            pings.lock().remove(&id);
            match answer {
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
