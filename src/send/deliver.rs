//! Sends the link to people and rooms.

use std::time::Duration;

use jid::Jid;
use minidom::Element;
use xmpp_parsers::ns;

use super::discover::{FindError, ask_info};
use super::error::SendError;
use super::line::{AskError, Line, Question};
use super::stanzas::{Refusal, link_message, room_presence};

/// How long a room may take to let us in, or to send our message back.
const ROOM_WITHIN: Duration = Duration::from_secs(20);
/// Names that are tried where ours is taken.
const NICKS_MAX: usize = 5;
/// XEP-0045: this presence is our own.
const SELF_PRESENCE: &str = "110";

/// Why a recipient has no link.
#[derive(Debug)]
pub enum DeliverError {
    /// The stream is lost: another one may do.
    Lost(String),
    /// No.
    Refused(SendError),
}

impl From<AskError> for DeliverError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Lost(words) => Self::Lost(words),
            AskError::LoginRefused(words) => Self::Refused(SendError::LoginRefused(words)),
            AskError::Refused(refusal) => Self::Refused(SendError::Refused(refusal.words())),
        }
    }
}

/// Sends one link to one recipient, and waits until the server has taken it.
pub async fn deliver(
    line: &mut Line<'_>,
    to: &Jid,
    nick: &str,
    url: &str,
) -> Result<(), DeliverError> {
    line.up().await?;
    let may_be_room = to.node().is_some() && to.resource().is_none();
    let is_room = match may_be_room {
        false => false,
        true => match ask_info(line, to.as_str()).await {
            Ok(info) => info.is_conference,
            Err(FindError::Ask(error)) => return Err(error.into()),
            Err(FindError::None(_)) => false,
        },
    };
    match is_room {
        true => to_room(line, to, nick, url).await,
        false => to_person(line, to, url).await,
    }
}

async fn to_person(line: &mut Line<'_>, to: &Jid, url: &str) -> Result<(), DeliverError> {
    let id = line.new_id();
    line.take_kept();
    line.send(&link_message(to.as_str(), "chat", &id, url))
        .await?;
    // Stanzas are worked off in their order: with this answer the message is taken, or back.
    let domain = to.domain().as_str().to_owned();
    settle(line, &domain).await?;
    let is_back = |stanza: &Element| {
        stanza.name() == "message"
            && stanza.attr("type") == Some("error")
            && stanza.attr("id") == Some(&id)
    };
    match line.take_kept().iter().find(|stanza| is_back(stanza)) {
        Some(error) => {
            let refusal = Refusal::read(error).words();
            let words = format!("the link does not reach {to}: {refusal}");
            Err(DeliverError::Refused(SendError::Refused(words)))
        }
        None => Ok(()),
    }
}

/// Waits until the recipient's server, and so ours, has worked off what was sent before.
async fn settle(line: &mut Line<'_>, domain: &str) -> Result<(), DeliverError> {
    let own = line.jid.split('/').next().unwrap_or_default().to_owned();
    let own_domain = own.rsplit('@').next().unwrap_or_default().to_owned();
    let ping = |to| Question {
        kind: "get",
        to,
        payload: Element::bare("ping", ns::PING),
    };
    let mut questions = vec![ping(own_domain.as_str())];
    if domain != own_domain {
        questions.push(ping(domain));
    }
    let answers = line.ask_all(questions).await?;
    // The other server may be slow; where ours says nothing nobody knows what became of it.
    match answers.first() {
        Some(Some(_)) => Ok(()),
        _ => Err(line.unanswered().into()),
    }
}

async fn to_room(
    line: &mut Line<'_>,
    room: &Jid,
    nick: &str,
    url: &str,
) -> Result<(), DeliverError> {
    let occupant = enter(line, room, nick).await?;
    let id = line.new_id();
    line.send(&link_message(room.as_str(), "groupchat", &id, url))
        .await?;
    let of_room = |stanza: &Element| {
        let from = stanza.attr("from").unwrap_or_default();
        stanza.name() == "message" && from.split('/').next() == Some(room.as_str())
    };
    let is_ours = |stanza: &Element| {
        let has_id = stanza.attr("id") == Some(&id);
        let body = stanza
            .get_child("body", ns::JABBER_CLIENT)
            .map(Element::text);
        let is_back = stanza.attr("from") == Some(&occupant) && body.as_deref() == Some(url);
        of_room(stanza) && (has_id || is_back)
    };
    let back = line.wait_for(ROOM_WITHIN, is_ours).await?;
    line.send(&room_presence(&occupant, true)).await?;
    match back {
        Some(message) if message.attr("type") == Some("error") => {
            let refusal = Refusal::read(&message).words();
            let words = format!("{room} does not take the link: {refusal}");
            Err(DeliverError::Refused(SendError::Refused(words)))
        }
        Some(_) => Ok(()),
        // Sent again it might stand there twice.
        None => Err(DeliverError::Refused(SendError::Failed(format!(
            "{room} does not show the link"
        )))),
    }
}

/// Enters a room, with another name where ours is taken: XEP-0045.
async fn enter(line: &mut Line<'_>, room: &Jid, nick: &str) -> Result<String, DeliverError> {
    let mut name = nick.to_owned();
    for n in 2..NICKS_MAX + 2 {
        let occupant = format!("{room}/{name}");
        line.send(&room_presence(&occupant, false)).await?;
        let of_room = |stanza: &Element| {
            let from = stanza.attr("from").unwrap_or_default();
            let is_room = from.split('/').next() == Some(room.as_str());
            let is_error = stanza.attr("type") == Some("error");
            stanza.name() == "presence" && is_room && (is_error || is_self(stanza))
        };
        let Some(presence) = line.wait_for(ROOM_WITHIN, of_room).await? else {
            return Err(DeliverError::Lost(format!("{room} does not answer")));
        };
        if presence.attr("type") != Some("error") {
            // The room may have given us another name.
            let given = presence.attr("from").unwrap_or(&occupant);
            return Ok(given.to_owned());
        }
        let refusal = Refusal::read(&presence);
        if refusal.condition != "conflict" {
            let words = format!("{room} does not let us in: {}", refusal.words());
            return Err(DeliverError::Refused(SendError::Refused(words)));
        }
        name = format!("{nick} {n}");
    }
    let words = format!("{room}: the name {nick} is taken; choose another with --nick");
    Err(DeliverError::Refused(SendError::Refused(words)))
}

fn is_self(presence: &Element) -> bool {
    let marks = presence
        .children()
        .filter(|child| child.is("x", ns::MUC_USER));
    let mut codes = marks.flat_map(Element::children);
    codes.any(|status| status.attr("code") == Some(SELF_PRESENCE))
}
