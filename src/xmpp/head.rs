//! What an IQ's answer needs, and the answers around any payload.

use std::sync::Arc;

use jid::DomainPart;
use minidom::Element;
use minidom::rxml::xml_ncname;
use xmpp_parsers::ns;

use super::elements;
use super::speaker::Speaker;
use crate::config::LEGACY_NAMESPACES;
use crate::core::refusal::Refusal;
use crate::meters::work;

/// Whether an answer can be sent to `text`: servers close streams over addresses that are none.
pub fn is_address(text: &str) -> bool {
    let bare = text.split('/').next().unwrap_or_default();
    match bare.split_once('@') {
        Some((local, domain)) => !local.is_empty() && DomainPart::new(domain).is_ok(),
        None => DomainPart::new(bare).is_ok(),
    }
}

/// What an IQ's answer needs, as it came.
pub struct Head {
    /// Of the stanza.
    pub id: String,
    /// Where the answer goes.
    pub from: String,
    /// Which of our hosts was asked.
    pub to: String,
    /// Who was asked, and answers.
    pub speaker: Arc<Speaker>,
}

impl Head {
    /// Of a stanza that says so.
    pub fn new(speaker: &Arc<Speaker>, id: &str, from: &str, to: &str) -> Self {
        Self {
            id: id.to_owned(),
            from: from.to_owned(),
            to: speaker.host(to).to_owned(),
            speaker: Arc::clone(speaker),
        }
    }

    /// Reads it, where the stanza can be answered.
    pub fn read(speaker: &Arc<Speaker>, stanza: &Element) -> Option<Self> {
        let id = stanza.attr("id").filter(|id| !id.is_empty())?;
        let from = stanza.attr("from").filter(|from| is_address(from))?;
        // Without `to` no answer has a sender; servers always write it.
        let to = stanza.attr("to").filter(|to| is_address(to))?;
        Some(Self::new(speaker, id, from, to))
    }

    /// The JID of who asked, as it came. Refuses as `Speaker::find_requester` does.
    pub fn requester(&self) -> Result<&str, Refusal> {
        let at = self.speaker.find_requester(&self.from)?;
        Ok(&self.from[at..])
    }

    /// As whom we answer, where that is to be said.
    pub fn sender(&self) -> Option<&str> {
        self.speaker.signs().then_some(&self.to)
    }

    fn answer(&self, kind: &str) -> minidom::element::ElementBuilder {
        Element::builder("iq", ns::COMPONENT)
            .attr(xml_ncname!("type").to_owned(), kind)
            .attr(xml_ncname!("from").to_owned(), self.sender())
            .attr(xml_ncname!("to").to_owned(), &self.from)
            .attr(xml_ncname!("id").to_owned(), &self.id)
    }

    /// The result.
    pub fn result(&self, payload: Option<Element>) -> Element {
        self.answer("result").append_all(payload).build()
    }

    /// The error for a refusal, with the payload where it is small.
    pub fn error(&self, refusal: &Refusal, payload: Option<&Element>) -> Element {
        work().refuse_iq(refusal.name());
        let is_legacy = |namespace: &&&str| payload.is_some_and(|it| it.has_ns(**namespace));
        let legacy = LEGACY_NAMESPACES.iter().find(is_legacy);
        let namespace = legacy.copied().unwrap_or(ns::HTTP_UPLOAD);
        self.answer("error")
            .append_all(payload.and_then(elements::echo))
            .append(elements::error(refusal, namespace))
            .build()
    }
}
