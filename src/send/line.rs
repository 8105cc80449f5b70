//! The line to the XMPP server: questions and their answers, and a new stream when one is lost.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use minidom::Element;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_xmpp::xmlstream::ReadError;
use xmpp_parsers::ns;

use super::stanzas::{Refusal, attr, iq};
use crate::xmpp::Wire;
use crate::xmpp::client::{self, Account, LoginError, Reach, Route};

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// How long the server may take nothing of what we write, or to say good-bye.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// Most stanzas that are kept for whoever waits for them.
const KEPT_MAX: usize = 256;

/// Why a question has no good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskError {
    /// The server is not there, or did not answer: another time may be better.
    Lost(String),
    /// The server does not let us in.
    LoginRefused(String),
    /// Whoever was asked refused.
    Refused(Refusal),
}

impl From<LoginError> for AskError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Unreachable(words) => Self::Lost(words),
            LoginError::Refused(words) | LoginError::Distrusted(words) => Self::LoginRefused(words),
        }
    }
}

/// A question: who, and what.
pub struct Question<'a> {
    /// `get` or `set`.
    pub kind: &'static str,
    /// To whom.
    pub to: &'a str,
    /// What.
    pub payload: Element,
}

/// The line, up or down.
pub struct Line<'a> {
    account: &'a Account,
    reach: &'a Reach,
    wire: Option<Wire>,
    /// The way that the stream takes.
    route: Option<Route>,
    /// Our full address on the stream.
    pub jid: String,
    n_ids: u64,
    /// Messages and presences for whoever waits for them.
    kept: VecDeque<Element>,
}

impl<'a> Line<'a> {
    /// A line that is down.
    pub fn new(account: &'a Account, reach: &'a Reach) -> Self {
        Self {
            account,
            reach,
            wire: None,
            route: None,
            jid: String::new(),
            n_ids: 0,
            kept: VecDeque::new(),
        }
    }

    /// Logs in where that is not done, or where the network is another one than it was.
    pub async fn up(&mut self) -> Result<(), AskError> {
        if self.route.is_some_and(|route| route.is_left()) {
            self.wire = None;
        }
        if self.wire.is_none() {
            let logged_in = match client::log_in(self.account, self.reach).await {
                // It was the right one before: a captive portal, say, that stands in its place.
                Err(LoginError::Distrusted(words)) if self.route.is_some() => {
                    return Err(AskError::Lost(words));
                }
                logged_in => logged_in?,
            };
            self.jid = logged_in.jid;
            self.wire = Some(logged_in.wire);
            self.route = Some(logged_in.route);
            self.kept.clear();
        }
        Ok(())
    }

    /// An id that was not used on this line.
    pub fn new_id(&mut self) -> String {
        self.n_ids += 1;
        format!("slotd-{}", self.n_ids)
    }

    /// Asks one question.
    pub async fn ask(&mut self, question: Question<'_>) -> Result<Element, AskError> {
        let mut answers = self.ask_all(vec![question]).await?;
        match answers.pop().flatten() {
            Some(answer) if answer.attr("type") == Some("result") => Ok(answer),
            Some(answer) => Err(AskError::Refused(Refusal::read(&answer))),
            None => Err(self.unanswered()),
        }
    }

    /// A question or its answer is lost, or the way is: a new stream is sure.
    pub fn unanswered(&mut self) -> AskError {
        self.wire = None;
        AskError::Lost("no answer within 15 seconds".to_owned())
    }

    /// Asks many at once; `None` for who does not answer in time.
    pub async fn ask_all(
        &mut self,
        questions: Vec<Question<'_>>,
    ) -> Result<Vec<Option<Element>>, AskError> {
        self.up().await?;
        let mut waiting = HashMap::new();
        let mut answers: Vec<Option<Element>> = questions.iter().map(|_| None).collect();
        for (index, question) in questions.into_iter().enumerate() {
            let id = self.new_id();
            let Question { kind, to, payload } = question;
            self.send(&iq(kind, Some(to), &id, payload)).await?;
            waiting.insert(id, (index, to.to_owned()));
        }
        let deadline = Instant::now() + ANSWER_WITHIN;
        while !waiting.is_empty() {
            let Ok(stanza) = timeout_at(deadline, self.read()).await else {
                break;
            };
            let stanza = stanza?;
            let id = stanza.attr("id").unwrap_or_default().to_owned();
            match waiting.get(&id) {
                Some((index, to)) if self.is_answer(&stanza, to) => {
                    answers[*index] = Some(stanza);
                    waiting.remove(&id);
                }
                _ => self.keep(stanza),
            }
        }
        Ok(answers)
    }

    /// Whether an IQ answers a question to `to`; the server answers for our account without a name.
    fn is_answer(&self, stanza: &Element, to: &str) -> bool {
        let is_answer = matches!(stanza.attr("type"), Some("result" | "error"));
        let from = stanza.attr("from");
        let bare = self.jid.split('/').next();
        let is_theirs = match from {
            None => true,
            Some(from) => from.eq_ignore_ascii_case(to) || Some(from) == bare,
        };
        stanza.name() == "iq" && is_answer && is_theirs
    }

    fn keep(&mut self, stanza: Element) {
        if stanza.name() != "iq" && self.kept.len() < KEPT_MAX {
            self.kept.push_back(stanza);
        }
    }

    /// Sends a stanza; the line must be up.
    pub async fn send(&mut self, stanza: &Element) -> Result<(), AskError> {
        let Some(wire) = &mut self.wire else {
            return Err(AskError::Lost("the stream is closed".to_owned()));
        };
        match timeout(WRITE_WITHIN, wire.send(stanza)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.lose(&error.to_string())),
            Err(_) => Err(self.lose("the server takes nothing")),
        }
    }

    /// The next message or presence that `is_it`, within a time; others are dropped.
    pub async fn wait_for(
        &mut self,
        within: Duration,
        is_it: impl Fn(&Element) -> bool,
    ) -> Result<Option<Element>, AskError> {
        let deadline = Instant::now() + within;
        loop {
            while let Some(stanza) = self.kept.pop_front() {
                if is_it(&stanza) {
                    return Ok(Some(stanza));
                }
            }
            match timeout_at(deadline, self.read()).await {
                Ok(stanza) => {
                    let stanza = stanza?;
                    self.keep(stanza);
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// What came and nobody waited for.
    pub fn take_kept(&mut self) -> Vec<Element> {
        self.kept.drain(..).collect()
    }

    /// Keeps the stream alive while nothing is asked: answers the server's questions, and notes
    /// when it is lost. Never ends.
    pub async fn idle(&mut self) -> Infallible {
        while self.wire.is_some() {
            if let Ok(stanza) = self.read().await {
                self.keep(stanza);
            }
        }
        std::future::pending().await
    }

    /// Reads one stanza that is not a question to us; those are answered here.
    async fn read(&mut self) -> Result<Element, AskError> {
        loop {
            let Some(wire) = &mut self.wire else {
                return Err(AskError::Lost("the stream is closed".to_owned()));
            };
            let stanza = match wire.next().await {
                Some(Ok(stanza)) => stanza,
                Some(Err(ReadError::SoftTimeout | ReadError::ParseError(_))) => continue,
                Some(Err(ReadError::HardError(error))) => return Err(self.lose(&error.to_string())),
                Some(Err(ReadError::StreamFooterReceived)) | None => {
                    return Err(self.lose("the server closed it"));
                }
            };
            if stanza.is("error", ns::STREAM) {
                return Err(self.lose("the server ended it"));
            }
            if stanza.name() == "iq" && matches!(stanza.attr("type"), Some("get" | "set")) {
                self.send(&reply(&stanza)).await?;
                continue;
            }
            return Ok(stanza);
        }
    }

    fn lose(&mut self, words: &str) -> AskError {
        self.wire = None;
        AskError::Lost(format!("the stream to the XMPP server is lost: {words}"))
    }

    /// Says good-bye.
    pub async fn close(&mut self) {
        if let Some(mut wire) = self.wire.take() {
            // The server notices by itself, too.
            let _ = timeout(CLOSE_WITHIN, wire.shutdown()).await;
        }
    }
}

/// Pings are answered (XEP-0199), everything else is refused: RFC 6120 #8.2.3.
fn reply(question: &Element) -> Element {
    let is_ping = question.get_child("ping", ns::PING).is_some();
    let mut reply = Element::builder("iq", ns::JABBER_CLIENT)
        .attr(attr("type"), if is_ping { "result" } else { "error" })
        .attr(attr("id"), question.attr("id"))
        .attr(attr("to"), question.attr("from"))
        .build();
    if !is_ping {
        let condition = Element::bare("service-unavailable", ns::XMPP_STANZAS);
        let error = Element::builder("error", ns::JABBER_CLIENT)
            .attr(attr("type"), "cancel")
            .append(condition);
        reply.append_child(error.build());
    }
    reply
}
