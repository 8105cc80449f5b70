//! Every stanza and who answers it: one table.
//!
//! RFC 6120 #8: each IQ of type get or set gets exactly one answer, `result` and `error` get none.
//! `from`, `to` and `id` go into the answer as the text they came as; JIDs are parsed for decisions
//! alone. The host is told by the stanza's `to`, never by the stream it came on: ejabberd hands the
//! stanzas of all of a listener's hosts to any of its streams.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use jid::{BareJid, Jid};
use minidom::{Element, NSChoice};
use tracing::{debug, error};
use xmpp_parsers::ns;

use super::asks::{Ask, Payload};
use super::commands;
use super::disco::{self, Offer};
use super::elements;
use super::head::Head;
use super::legacy;
use super::pings::Pings;
use super::places::{Place, Places};
use super::plain::Plain;
use super::relay::Relay;
use super::session;
use super::speaker::Speaker;
use crate::core::command::operation::Ping;
use crate::core::refusal::Refusal;
use crate::core::slot::{Slot, SlotRequest};
use crate::service::Service;
use crate::service::operations::Operations;

/// Servers write stanzas in the component's namespace and take both.
const STANZAS: NSChoice<'static> = NSChoice::AnyOf(&[ns::COMPONENT, ns::JABBER_CLIENT]);

/// What all streams answer from.
pub struct Desk {
    pub(super) service: Arc<Service>,
    pub(super) operations: Arc<Operations>,
    hosts: Vec<BareJid>,
    places: Arc<Places>,
    pings: Arc<Pings>,
    /// Has a host of its own, and all that is sent there.
    pub(super) relay: Option<Arc<Relay>>,
}

impl Desk {
    /// A desk for the hosts whose stanzas we answer, and for the relay's.
    pub fn new(
        operations: Arc<Operations>,
        hosts: Vec<BareJid>,
        relay: Option<Arc<Relay>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            service: operations.service(),
            operations,
            hosts,
            places: Arc::default(),
            pings: Arc::default(),
            relay,
        })
    }
}

/// What becomes of a stanza.
pub enum Answer {
    /// Nothing is due.
    None,
    /// A stanza.
    Now(Element),
    /// Any number of them, in this order: the relay's.
    All(Vec<Element>),
    /// A stanza that waits for the store.
    Later(BoxFuture<'static, Reply>),
}

/// What waited for the store.
pub enum Reply {
    /// Any stanza.
    Element(Element),
    /// A slot alone, as most are: it is written without being made into elements.
    Slot(Head, Slot),
    /// A stanza that asks the server something, and the answer that waits for its.
    Ask(Element, BoxFuture<'static, Self>),
}

/// What a handler made of a payload.
enum Work {
    /// The payload of the result.
    Done(Option<Element>),
    /// Something that waits for the store.
    Ask(Ask),
}

struct Route {
    kind: &'static str,
    name: &'static str,
    /// Also the feature that disco#info lists, once for routes side by side.
    namespace: &'static str,
    handler: fn(&Desk, &Head, &Element) -> Result<Work, Refusal>,
}

#[rustfmt::skip]
const ROUTES: &[Route] = &[
    Route { kind: "get", name: "query",   namespace: ns::DISCO_INFO,  handler: disco_info },
    Route { kind: "get", name: "query",   namespace: ns::DISCO_ITEMS, handler: disco_items },
    Route { kind: "get", name: "request", namespace: ns::HTTP_UPLOAD, handler: |_, _, request| ask(elements::slot_request(request), Ask::Slot) },
    Route { kind: "get", name: "session",  namespace: session::NS,    handler: |_, _, session| ask(session::id(session), Ask::Query) },
    Route { kind: "get", name: "sessions", namespace: session::NS,    handler: |_, _, sessions| ask(session::wanted(sessions), Ask::List) },
    Route { kind: "set", name: "refresh",  namespace: session::NS,    handler: |_, _, refresh| ask(session::id(refresh), Ask::Refresh) },
    Route { kind: "set", name: "cancel",   namespace: session::NS,    handler: |_, _, cancel| ask(session::id(cancel), Ask::Cancel) },
    Route { kind: "set", name: "command", namespace: commands::NS,     handler: |_, _, command| ask(commands::step(command), |step| Ask::Command(step, Ping::NotSent)) },
    Route { kind: "get", name: "ping",    namespace: ns::PING,        handler: |_, _, _| Ok(Work::Done(None)) },
    Route { kind: "get", name: "query",   namespace: disco::VERSION,  handler: |_, _, _| done(Ok(disco::version())) },
    Route { kind: "get", name: "query",   namespace: disco::LAST,     handler: |desk, _, _| done(Ok(disco::last(desk.service.uptime().as_secs()))) },
];

fn done(payload: Result<Element, Refusal>) -> Result<Work, Refusal> {
    payload.map(|payload| Work::Done(Some(payload)))
}

fn ask<T>(read: Result<T, Refusal>, ask: fn(T) -> Ask) -> Result<Work, Refusal> {
    read.map(|read| Work::Ask(ask(read)))
}

fn disco_info(desk: &Desk, head: &Head, query: &Element) -> Result<Work, Refusal> {
    match query.attr("node") {
        None | Some("") => {}
        Some(commands::NS) => return done(Ok(disco::command_list())),
        Some(node) => {
            let account = account(head)?;
            let command = desk.operations.find_command(&account, node)?;
            return done(Ok(disco::command(command)));
        }
    }
    let mut features: Vec<_> = ROUTES.iter().map(|route| route.namespace).collect();
    features.dedup();
    let settings = desk.service.settings();
    let offer = Offer {
        features,
        legacy: settings.legacy_namespaces.clone(),
        size_bytes_max: desk.service.size_bytes_max(),
        sessions: desk.service.session_terms(),
        note: desk.service.note(),
    };
    done(disco::info(query, offer, &settings.contact))
}

/// Commands are listed to those alone who may run them.
fn disco_items(desk: &Desk, head: &Head, query: &Element) -> Result<Work, Refusal> {
    if query.attr("node") != Some(commands::NS) {
        return done(disco::items(query));
    }
    let account = account(head)?;
    let commands = desk.operations.commands_of(&account);
    done(Ok(disco::commands(&head.to, commands)))
}

fn account(head: &Head) -> Result<BareJid, Refusal> {
    let requester = elements::requester(head.requester()?).ok_or(Refusal::NotAllowed)?;
    Ok(requester.to_bare())
}

/// Answers a stanza of any kind.
pub fn route(desk: &Arc<Desk>, speaker: &Arc<Speaker>, stanza: Element) -> Answer {
    if !stanza.has_ns(STANZAS) {
        debug!(name = stanza.name(), "element that is no stanza is ignored");
        return Answer::None;
    }
    let to = stanza.attr("to").unwrap_or_default();
    if let Some(relay) = desk.relay.as_ref().filter(|relay| relay.is_for(to)) {
        return Answer::All(relay.take(stanza));
    }
    match stanza.name() {
        "iq" => route_iq(desk, speaker, stanza),
        "presence" => match speaker.answer_presence(&stanza) {
            Some(answer) => Answer::Now(answer),
            None => Answer::None,
        },
        _ => Answer::None,
    }
}

fn route_iq(desk: &Arc<Desk>, speaker: &Arc<Speaker>, stanza: Element) -> Answer {
    let kind = stanza.attr("type").unwrap_or_default();
    if kind == "result" || kind == "error" {
        desk.pings.hear(&stanza);
        return Answer::None;
    }
    let Some(head) = Head::read(speaker, &stanza) else {
        debug!("IQ without usable id or sender is dropped");
        return Answer::None;
    };
    let payload = elements::only_child(&stanza);
    if let Err(refusal) = head.requester() {
        return Answer::Now(answer_stranger(&head, payload, &refusal));
    }
    let refused = match handle(desk, &head, kind, payload) {
        Ok(Work::Done(payload)) => return Answer::Now(head.result(payload)),
        Ok(Work::Ask(ask)) => match admit(desk, &head) {
            Ok((requester, place)) => {
                let payload = Asked::Payload(elements::small_child(stanza));
                let desk = Arc::clone(desk);
                let answer = answer_ask(desk, place, head, requester, ask, payload);
                return Answer::Later(answer.boxed());
            }
            Err(refusal) => refusal,
        },
        Err(refusal) => refusal,
    };
    debug!(from = head.from, to = head.to, refusal = ?refused, "IQ refused");
    Answer::Now(head.error(&refused, payload))
}

/// Answers who is none of the relay's: our own server may want a sign of life.
fn answer_stranger(head: &Head, payload: Option<&Element>, refusal: &Refusal) -> Element {
    let is_ping = payload.is_some_and(|payload| payload.is("ping", ns::PING));
    match is_ping && head.speaker.is_own_server(&head.from) {
        true => head.result(None),
        false => head.error(refusal, None),
    }
}

/// Answers a slot request that was read without the parser, as `route` does.
pub fn route_plain(desk: &Arc<Desk>, speaker: &Arc<Speaker>, plain: Plain) -> Answer {
    let Some((request, (requester, place))) = admit_plain(desk, speaker, &plain) else {
        return match plain.element() {
            Some(stanza) => route(desk, speaker, stanza),
            None => Answer::None,
        };
    };
    let head = Head::new(speaker, plain.id(), plain.from(), plain.to());
    let (ask, payload, desk) = (Ask::Slot(request), Asked::Plain(plain), Arc::clone(desk));
    Answer::Later(answer_ask(desk, place, head, requester, ask, payload).boxed())
}

/// What is asked, by whom, and a place; `None` where something may be wrong with it, which is for
/// `route` to say. Who asks and who is asked are addresses by being a JID and one of our hosts.
fn admit_plain(
    desk: &Desk,
    speaker: &Speaker,
    plain: &Plain,
) -> Option<(SlotRequest, (Jid, Place))> {
    let is_host = |host: &BareJid| host.as_str() == speaker.host(plain.to());
    if plain.id().is_empty() || !desk.hosts.iter().any(is_host) {
        return None;
    }
    let request = plain.request().ok()?;
    let at = speaker.find_requester(plain.from()).ok()?;
    let requester = Jid::new(&plain.from()[at..]).ok()?;
    desk.service.check_account(&requester).ok()?;
    desk.service.check_name(&requester).ok()?;
    let place = desk.places.take(requester.to_bare()).ok()?;
    Some((request, (requester, place)))
}

/// What an error gives back, should it come to one.
enum Asked {
    Payload(Option<Element>),
    Plain(Plain),
}

impl Asked {
    fn payload(self) -> Option<Element> {
        match self {
            Self::Payload(payload) => payload,
            Self::Plain(plain) => elements::small_child(plain.element()?),
        }
    }
}

/// Who asks, and a place for what waits for the store.
fn admit(desk: &Desk, head: &Head) -> Result<(Jid, Place), Refusal> {
    let requester = elements::requester(head.requester()?).ok_or(Refusal::NotAllowed)?;
    desk.service.check_account(&requester)?;
    desk.service.check_name(&requester)?;
    let place = desk.places.take(requester.to_bare())?;
    Ok((requester, place))
}

fn handle(
    desk: &Desk,
    head: &Head,
    kind: &str,
    payload: Option<&Element>,
) -> Result<Work, Refusal> {
    if kind != "get" && kind != "set" {
        return Err(Refusal::BadStanza);
    }
    if !desk.is_ours(&head.to) {
        return Err(Refusal::UnknownNode);
    }
    let payload = payload.ok_or(Refusal::BadStanza)?;
    let served = |route: &&Route| payload.is(route.name, route.namespace);
    let route = ROUTES.iter().find(served);
    let Some(route) = route else {
        let namespace = desk.legacy(payload).ok_or(Refusal::UnknownPayload)?;
        return match kind {
            "get" => legacy::slot_request(payload)
                .map(|request| Work::Ask(Ask::LegacySlot(request, namespace))),
            _ => Err(Refusal::BadStanza),
        };
    };
    if route.kind != kind {
        return Err(Refusal::BadStanza);
    }
    (route.handler)(desk, head, payload)
}

impl Desk {
    /// The namespace of a slot request of before, where it is switched on.
    fn legacy(&self, payload: &Element) -> Option<&'static str> {
        let settings = self.service.settings();
        let mut namespaces = settings.legacy_namespaces.iter().copied();
        namespaces.find(|namespace| payload.is("request", *namespace))
    }

    /// Whether `to` is one of our hosts, without localpart and resource.
    fn is_ours(&self, to: &str) -> bool {
        // The prepared spelling is the usual one.
        let is_host = |host: &BareJid| host.as_str() == to;
        self.hosts.iter().any(is_host)
            || Jid::new(to).is_ok_and(|to| self.hosts.iter().any(|host| *host == to))
    }
}

/// Answers what waits for the store; a test of everything asks the server first.
async fn answer_ask(
    desk: Arc<Desk>,
    place: Place,
    head: Head,
    requester: Jid,
    ask: Ask,
    payload: Asked,
) -> Reply {
    let is_test = matches!(&ask, Ask::Command(step, _) if step.is_self_test());
    if is_test
        && desk.operations.is_operator(&requester.to_bare())
        && let Some((from, server)) = head.speaker.server_of(&head.to)
        && let Some((question, answer)) = desk.pings.ask(from, server)
    {
        let then = async move {
            let ask = ask.with(answer.await);
            answer_asked(desk, place, head, requester, ask, payload).await
        };
        return Reply::Ask(question, then.boxed());
    }
    answer_asked(desk, place, head, requester, ask, payload).await
}

async fn answer_asked(
    desk: Arc<Desk>,
    _place: Place,
    head: Head,
    requester: Jid,
    ask: Ask,
    payload: Asked,
) -> Reply {
    let _timed = crate::meters::work().time_iq((&ask).into());
    let is_logged = matches!(ask, Ask::Slot(_) | Ask::LegacySlot(..));
    // A fault in one request must not end the stream of all.
    let answer = AssertUnwindSafe(ask.answer(&desk, &head, &requester)).catch_unwind();
    let answer = answer.await.unwrap_or_else(|_| {
        error!(from = head.from, "answering an IQ ended in a panic");
        Err(Refusal::Broken)
    });
    Reply::Element(match answer {
        Ok(Payload::Slot(slot)) => return Reply::Slot(head, slot),
        Ok(Payload::Element(payload)) => head.result(payload),
        Err(refusal) => {
            desk.service.blame_account(requester.to_bare(), &refusal);
            // The service tells of refused slots itself.
            if !is_logged {
                debug!(from = head.from, to = head.to, ?refusal, "IQ refused");
            }
            head.error(&refusal, payload.payload().as_ref())
        }
    })
}
