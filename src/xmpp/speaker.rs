//! Whose stream it is: how a requester's JID is found on it, and what is said on it unasked.
//!
//! A component has its requesters in `from` and its host in `to`. An account hears of them from a
//! relay, in the resource of the relay's address; to them its host is the relay's.

use minidom::Element;
use minidom::rxml::xml_ncname;
use tracing::{debug, info, warn};
use xmpp_parsers::ns;

use super::head::is_address;
use super::stream::random;
use crate::core::refusal::Refusal;
use crate::core::relayed::{Asker, asker, is_host};

/// Who is logged in on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// A component.
    Component {
        /// Its host.
        host: String,
    },
    /// An account behind a relay.
    Account {
        /// The host of its server.
        domain: String,
        /// The relay's host: the only one that is believed about others.
        relay: String,
    },
}

impl Speaker {
    /// Where in `from` the requester's JID begins. Refuses `UnknownPayload` to who is not the
    /// relay: an account offers nothing; and `UnnamedRequester`.
    pub fn find_requester(&self, from: &str) -> Result<usize, Refusal> {
        let Self::Account { relay, .. } = self else {
            return Ok(0);
        };
        match asker(from, relay) {
            Asker::Requester(requester) => Ok(from.len() - requester.len()),
            Asker::Unnamed => Err(Refusal::UnnamedRequester),
            Asker::Stranger => Err(Refusal::UnknownPayload),
        }
    }

    /// The host that requesters know, of a stanza to `to`.
    pub fn host<'a>(&'a self, to: &'a str) -> &'a str {
        match self {
            Self::Component { .. } => to,
            Self::Account { relay, .. } => relay,
        }
    }

    /// Whether answers say who answers. Of an account its server says so.
    pub fn signs(&self) -> bool {
        matches!(self, Self::Component { .. })
    }

    /// As whom to ask which server, as one that stands for `host`.
    pub fn server_of<'a>(&'a self, host: &'a str) -> Option<(Option<&'a str>, &'a str)> {
        match self {
            Self::Component { .. } => {
                let (_, server) = host.split_once('.')?;
                Some((Some(host), server))
            }
            Self::Account { domain, .. } => Some((None, domain)),
        }
    }

    /// Whether a stanza is the account's own server's.
    pub fn is_own_server(&self, from: &str) -> bool {
        matches!(self, Self::Account { domain, .. } if is_host(from, domain))
    }

    /// Asks the server for a sign of life.
    ///
    /// A component pings itself through the server: XEP-0199 #s2c. That needs no knowledge of the
    /// server's name. Where several streams share the host (ejabberd), the server picks one by any
    /// part of either address, or at random: another local part each time lets each stream hear
    /// from time to time. It is answered like any IQ to an address nobody has.
    pub fn keepalive(&self) -> Element {
        let (from, to) = match self {
            Self::Component { host } => {
                let nobody = format!("keepalive-{:016x}@{host}", random());
                (Some(nobody.clone()), nobody)
            }
            Self::Account { domain, .. } => (None, domain.clone()),
        };
        Element::builder("iq", ns::COMPONENT)
            .attr(xml_ncname!("type").to_owned(), "get")
            .attr(xml_ncname!("from").to_owned(), from)
            .attr(xml_ncname!("to").to_owned(), to)
            .attr(xml_ncname!("id").to_owned(), "keepalive")
            .append(Element::bare("ping", ns::PING))
            .build()
    }

    /// What is said first: that the account is there.
    ///
    /// COMPAT(ejabberd, 2023): tells who wants to see our presence to those alone who take
    /// messages. Then we say that we take none, also to a relay that was not let in yet.
    pub fn greeting(&self) -> Vec<Element> {
        let Self::Account { relay, .. } = self else {
            return Vec::new();
        };
        let available = |to: Option<&str>| {
            let priority = Element::builder("priority", ns::COMPONENT).append("-1");
            let presence = Element::builder("presence", ns::COMPONENT);
            let presence = presence.attr(xml_ncname!("to").to_owned(), to);
            presence.append(priority).build()
        };
        let first = Element::bare("presence", ns::COMPONENT);
        vec![first, available(None), available(Some(relay))]
    }

    /// What is said last, so that the relay sends nothing more.
    pub fn farewell(&self) -> Option<Element> {
        let unavailable = || presence("unavailable", None, None, None);
        matches!(self, Self::Account { .. }).then(unavailable)
    }

    /// Answers presence. Nobody but the relay is told about ours; whoever asks shall not wait.
    pub fn answer_presence(&self, stanza: &Element) -> Option<Element> {
        let (from, id) = (stanza.attr("from").unwrap_or_default(), stanza.attr("id"));
        let relay = match self {
            Self::Component { .. } => None,
            Self::Account { relay, .. } => Some(relay).filter(|relay| is_host(from, relay)),
        };
        match (stanza.attr("type"), relay) {
            (Some("subscribe"), Some(relay)) => {
                info!(relay, "the relay sees from now on whether we are there");
                Some(presence("subscribed", None, Some(relay), id))
            }
            (Some("subscribe"), None) if is_address(from) => {
                let to = stanza.attr("to").filter(|_| self.signs());
                Some(presence("unsubscribed", to, Some(from), id))
            }
            (Some("error"), Some(relay)) => {
                let error = stanza.children().find(|child| child.name() == "error");
                let condition = error.and_then(|error| error.children().next());
                let condition = condition.map_or("no reason", Element::name);
                warn!(
                    relay,
                    condition, "the relay cannot be told that we are there"
                );
                None
            }
            (Some("unsubscribe" | "unsubscribed"), Some(relay)) => {
                debug!(relay, "the relay wants to hear nothing of us any more");
                None
            }
            _ => None,
        }
    }
}

fn presence(kind: &str, from: Option<&str>, to: Option<&str>, id: Option<&str>) -> Element {
    Element::builder("presence", ns::COMPONENT)
        .attr(xml_ncname!("type").to_owned(), kind)
        .attr(xml_ncname!("from").to_owned(), from)
        .attr(xml_ncname!("to").to_owned(), to)
        .attr(xml_ncname!("id").to_owned(), id)
        .build()
}
