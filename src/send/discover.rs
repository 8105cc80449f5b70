//! Finds the upload service among those of the account's server: XEP-0363 #disco.

use minidom::Element;
use xmpp_parsers::ns;

use super::asks::words;
use super::error::SendError;
use super::line::{AskError, Line, Question};
use super::stanzas::{self, Info};

/// Most services that are looked at.
const ITEMS_MAX: usize = 64;

/// An upload service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its address.
    pub jid: String,
    /// What it says of itself.
    pub info: Info,
}

/// The service to use: the named one, or the server's; one that knows sessions before one that does
/// not.
pub async fn find(
    line: &mut Line<'_>,
    domain: &str,
    named: Option<&str>,
) -> Result<Service, FindError> {
    if let Some(jid) = named {
        let info = ask_info(line, jid).await?;
        return match info.has_slots {
            true => Ok(Service {
                jid: jid.to_owned(),
                info,
            }),
            false => Err(refused(format!("{jid} is no upload service (XEP-0363)"))),
        };
    }
    let mut jids = vec![domain.to_owned()];
    jids.extend(items(line, domain).await?);
    let questions = jids.iter().map(|jid| question(jid, ns::DISCO_INFO));
    let answers = line.ask_all(questions.collect()).await?;
    let mut found = None;
    for (jid, answer) in jids.into_iter().zip(answers) {
        let info = answer.map(|answer| info(&answer)).unwrap_or_default();
        let is_better = found
            .as_ref()
            .is_none_or(|before: &Service| info.has_sessions && !before.info.has_sessions);
        if info.has_slots && is_better {
            found = Some(Service { jid, info });
        }
    }
    found.ok_or_else(|| {
        refused(format!(
            "{domain} offers no upload service (XEP-0363); if you know one, name it with --service"
        ))
    })
}

/// Why no service is found.
#[derive(Debug)]
pub enum FindError {
    /// There is none.
    None(SendError),
    /// Nobody could be asked.
    Ask(AskError),
}

impl From<AskError> for FindError {
    fn from(error: AskError) -> Self {
        Self::Ask(error)
    }
}

fn refused(words: String) -> FindError {
    FindError::None(SendError::Refused(words))
}

/// What an address says of itself; whoever refuses to say so says nothing.
pub async fn ask_info(line: &mut Line<'_>, jid: &str) -> Result<Info, FindError> {
    let mut answers = line.ask_all(vec![question(jid, ns::DISCO_INFO)]).await?;
    let answer = answers.pop().flatten();
    Ok(answer.map(|answer| info(&answer)).unwrap_or_default())
}

async fn items(line: &mut Line<'_>, domain: &str) -> Result<Vec<String>, FindError> {
    let answer = match line.ask(question(domain, ns::DISCO_ITEMS)).await {
        Ok(answer) => answer,
        Err(AskError::Refused(refusal)) => {
            let refusal = words(&AskError::Refused(refusal));
            return Err(refused(format!(
                "{domain} does not tell its services ({refusal}); name the upload service with \
                 --service"
            )));
        }
        Err(error) => return Err(error.into()),
    };
    let query = answer.get_child("query", ns::DISCO_ITEMS);
    let items = query.into_iter().flat_map(Element::children);
    let jids = items.filter_map(|item| item.attr("jid").map(str::to_owned));
    Ok(jids.take(ITEMS_MAX).collect())
}

fn question<'a>(to: &'a str, namespace: &'static str) -> Question<'a> {
    Question {
        kind: "get",
        to,
        payload: Element::bare("query", namespace),
    }
}

fn info(answer: &Element) -> Info {
    let query = answer.get_child("query", ns::DISCO_INFO);
    query.map(stanzas::info).unwrap_or_default()
}
