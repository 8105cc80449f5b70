//! One upload: does the steps of its plan, and tells it what came of them.

use std::time::{Duration, SystemTime};

use minidom::Element;
use tokio::time::Instant;
use xmpp_parsers::ns;

use super::asks;
use super::content::Content;
use super::discover::Service;
use super::error::SendError;
use super::line::{AskError, Line, Question};
use super::pace::Pace;
use super::plan::{Event, Plan, State, Step};
use super::show::Show;
use super::stanzas::{self, Session, Slot, Wanted};
use super::state::{Record, StateFile, hex};
use super::transfer::Http;

mod steps;

/// What an upload took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// It went on where an earlier run had stopped.
    pub was_resumed: bool,
    /// About how many bytes were sent more than once.
    pub sent_twice_bytes: u64,
    /// How often new credentials were got.
    pub n_refreshes: u32,
    /// How many transfers were begun.
    pub n_attempts: u32,
    /// How often our own address was another one than before.
    pub n_network_changes: u32,
}

/// One upload under way.
pub struct Upload<'a, 'l> {
    line: &'a mut Line<'l>,
    http: Http<'a>,
    content: &'a Content,
    sha256: [u8; 32],
    service: &'a Service,
    show: &'a Show,
    state: Option<&'a StateFile>,
    pace: Pace,
    /// What outlives this run, once there is a session.
    pub record: Record,
    slot: Option<Slot>,
    resume_url: Option<String>,
    /// What it took so far.
    pub figures: Figures,
}

/// What an upload is made of.
pub struct Parts<'a, 'l> {
    /// To the XMPP server.
    pub line: &'a mut Line<'l>,
    /// To the upload service.
    pub http: Http<'a>,
    /// The file.
    pub content: &'a Content,
    /// Its digest.
    pub sha256: [u8; 32],
    /// Where it goes.
    pub service: &'a Service,
    /// For the person.
    pub show: &'a Show,
    /// For the next run, where it can be kept.
    pub state: Option<&'a StateFile>,
    /// How fast.
    pub pace: Pace,
    /// Who sends it.
    pub account: String,
}

impl<'a, 'l> Upload<'a, 'l> {
    /// An upload that goes on from `earlier`, or begins.
    pub fn new(parts: Parts<'a, 'l>, earlier: Option<Record>) -> Self {
        let content = parts.content;
        let record = earlier.unwrap_or_else(|| Record {
            file: content.full_path.clone(),
            size_bytes: content.size_bytes,
            sha256: hex(&parts.sha256),
            account: parts.account,
            service: parts.service.jid.clone(),
            session: String::new(),
            get_url: String::new(),
            sent_bytes: 0,
            is_complete: false,
            told: Vec::new(),
        });
        Self {
            line: parts.line,
            http: parts.http,
            content,
            sha256: parts.sha256,
            service: parts.service,
            show: parts.show,
            state: parts.state,
            pace: parts.pace,
            record,
            slot: None,
            resume_url: None,
            figures: Figures::default(),
        }
    }

    /// Uploads; the link is in the record then.
    pub async fn run(&mut self, give_up_after: Duration) -> Result<(), SendError> {
        if self.record.is_complete && !self.is_lost().await? {
            return Ok(());
        }
        let began = Instant::now();
        let mut plan = Plan::new(give_up_after);
        let is_known = !self.record.session.is_empty();
        self.figures.was_resumed = is_known;
        let mut event = Event::Start { is_known };
        loop {
            self.tell(&event);
            let step = plan.next(event, began.elapsed(), random());
            event = match step {
                Step::AskSlot => self.ask_slot().await?,
                Step::Query => self.ask_session("get", "session").await?,
                Step::Refresh => {
                    self.show.say("asking for new credentials");
                    self.ask_session("set", "refresh").await?
                }
                Step::AskOffset => self.ask_offset().await?,
                Step::Append { offset } => self.append(offset).await?,
                Step::Put => self.put().await?,
                Step::Look => self.look().await?,
                Step::Rest(pause) => {
                    self.rest(pause).await;
                    Event::Rested
                }
                Step::Done => break,
                Step::Refuse(words) => return Err(SendError::Refused(words)),
                Step::GiveUp(words) => {
                    return Err(SendError::Failed(format!(
                        "given up after {}: {words}; the same command goes on where it stopped",
                        humantime::format_duration(give_up_after)
                    )));
                }
            };
        }
        self.figures.n_network_changes = self.http.n_network_changes;
        self.record.is_complete = true;
        self.write_record();
        Ok(())
    }

    /// Whether an upload that was complete is to be begun anew: its file has gone since.
    async fn is_lost(&mut self) -> Result<bool, SendError> {
        let is_lost = matches!(self.look().await?, Event::Conflict);
        if is_lost {
            self.record.is_complete = false;
            self.record.session.clear();
            self.record.told.clear();
        }
        Ok(is_lost)
    }

    fn tell(&self, event: &Event) {
        match event {
            Event::Trouble { words, .. } => self.show.say(&format!("{words}; trying again")),
            Event::Gone(words) => self.show.note(&format!("begun anew: {words}")),
            _ => {}
        }
    }

    /// The stream is kept alive while nothing else is done.
    async fn rest(&mut self, pause: Duration) {
        tokio::select! {
            () = self.http.rest(pause) => {}
            never = self.line.idle() => match never {},
        }
    }

    async fn ask(
        &mut self,
        kind: &'static str,
        payload: Element,
        asked: asks::Asked,
    ) -> Result<Result<Element, Event>, SendError> {
        let to = &self.service.jid;
        match self.line.ask(Question { kind, to, payload }).await {
            Ok(answer) => Ok(Ok(answer)),
            Err(AskError::LoginRefused(words)) => Err(SendError::LoginRefused(words)),
            Err(error) => Ok(Err(asks::read(asked, error, SystemTime::now().into()))),
        }
    }

    async fn ask_slot(&mut self) -> Result<Event, SendError> {
        let wanted = Wanted {
            filename: &self.content.name,
            size_bytes: self.content.size_bytes,
            content_type: &self.content.content_type,
            sha256: &self.sha256,
        };
        let request = stanzas::slot_request(&wanted, self.service.info.has_sessions);
        let answer = match self.ask("get", request, asks::Asked::Slot).await? {
            Ok(answer) => answer,
            Err(event) => return Ok(event),
        };
        let element = answer.get_child("slot", ns::HTTP_UPLOAD);
        let Some((element, slot)) = element.and_then(|slot| Some((slot, stanzas::slot(slot)?)))
        else {
            return Ok(Event::Refused(
                "the upload service gives a slot without links".to_owned(),
            ));
        };
        let session = element.get_child("session", stanzas::SESSIONS);
        let session = session.and_then(stanzas::session);
        self.record.get_url = slot.get_url.clone();
        self.record.sent_bytes = 0;
        self.record.session.clear();
        self.slot = Some(slot);
        self.resume_url = None;
        if let Some(Session {
            id: Some(id),
            resume_url,
            ..
        }) = session
        {
            self.record.session = id;
            self.resume_url = resume_url;
            self.write_record();
        }
        let is_resumable = self.resume_url.is_some();
        Ok(Event::Slot { is_resumable })
    }

    async fn ask_session(
        &mut self,
        kind: &'static str,
        name: &'static str,
    ) -> Result<Event, SendError> {
        let payload = stanzas::about_session(name, &self.record.session);
        let answer = match self.ask(kind, payload, asks::Asked::Session).await? {
            Ok(answer) => answer,
            Err(event) => return Ok(event),
        };
        let refresh = answer.get_child("refresh", stanzas::SESSIONS);
        let inside = refresh.unwrap_or(&answer);
        let session = inside.get_child("session", stanzas::SESSIONS);
        let Some(session) = session.and_then(stanzas::session) else {
            return Ok(Event::Gone(
                "the upload service tells nothing of the session".to_owned(),
            ));
        };
        if let Some(refresh) = refresh {
            let slot = refresh.get_child("slot", ns::HTTP_UPLOAD);
            if let Some(slot) = slot.and_then(stanzas::slot) {
                self.record.get_url = slot.get_url.clone();
                self.slot = Some(slot);
            }
            self.figures.n_refreshes += u32::from(session.state == State::Open);
        }
        if session.state == State::Complete
            && session
                .sha256
                .as_deref()
                .is_some_and(|sum| *sum != self.sha256)
        {
            return Ok(Event::Gone(
                "the upload service holds other bytes".to_owned(),
            ));
        }
        self.resume_url = session.resume_url;
        Ok(Event::Session {
            state: session.state,
            offset: session.offset.min(self.content.size_bytes),
            is_resumable: self.resume_url.is_some(),
        })
    }

    /// The line, for what comes after the upload.
    pub fn line(&mut self) -> &mut Line<'l> {
        self.line
    }

    /// Keeps the record, where there is something to go on with.
    pub fn write_record(&self) {
        let Some(state) = self.state.filter(|_| !self.record.session.is_empty()) else {
            return;
        };
        if let Err(error) = state.write(&self.record) {
            let words = format!("an interruption cannot be resumed: no state is kept: {error}");
            self.show.note(&words);
        }
    }
}

/// A number that spreads pauses; without one they are a little shorter.
fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}
