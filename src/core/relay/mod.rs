//! The client-proxy relay: requests of strangers go to whoever is logged in to one account, and its
//! answers go back. Where each stanza of the relay's host goes is decided here.
//!
//! `Relay::handle` takes what happens, one closed set of events, and says what is to be done, one
//! closed set of effects: `stanza` has both. `pending` has the asks that wait for an answer,
//! `targets` the account's resources, `courtship` how it is asked for its presence, `address` the
//! addresses under which it sees the requesters, `fault` the noes.
//!
//! Each ask gets exactly one answer: the target's, or an error of ours. Nothing else passes: the
//! target cannot speak to anybody who has not asked it.

use std::time::Duration;

use jid::BareJid;

use crate::core::refusal::Refusal;

pub mod address;
pub mod courtship;
pub mod fault;
mod pending;
pub mod stanza;
mod targets;

use self::address::Addressing;
use self::courtship::Courtship;
use self::fault::RelayFault;
use self::pending::{Ask, Pending};
use self::stanza::{Answer, Effect, Event, Incoming, Kind, Moment, Presence, Way, What};
use self::targets::Targets;

/// The rules, which may change while the relay runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long an ask waits for its answer.
    pub answer_within: Duration,
    /// Most asks of one user (a bare JID) that wait.
    pub pending_max: usize,
    /// Most of all users together.
    pub pending_total_max: usize,
}

/// How many resources are asked for what none of them knows.
const ASKED_MAX: usize = 8;

/// The relay: what it knows, and what waits.
pub struct Relay<S> {
    host: String,
    target: BareJid,
    addressing: Addressing,
    terms: Terms,
    targets: Targets,
    pending: Pending<S>,
    courtship: Courtship,
    is_draining: bool,
}

/// Who sent a stanza.
enum Sender<'a> {
    /// An address of the relay itself: a ping of its own, or a loop.
    Itself,
    /// The target's account.
    Target {
        /// Which of its resources.
        resource: Option<&'a str>,
    },
    /// Anybody else.
    Stranger {
        /// Their bare JID.
        user: BareJid,
    },
}

impl<S: Clone> Relay<S> {
    /// A relay at `host` to the account `target`. `secret` is random, and nobody else knows it.
    pub fn new(host: &str, target: BareJid, terms: Terms, secret: [u8; 32]) -> Self {
        Self {
            host: host.to_owned(),
            target,
            addressing: Addressing::new(secret),
            terms,
            targets: Targets::default(),
            pending: Pending::default(),
            courtship: Courtship::default(),
            is_draining: false,
        }
    }

    /// How many resources of the target are known.
    pub fn n_targets(&self) -> usize {
        self.targets.len()
    }

    /// How many asks wait for their answer.
    pub fn n_pending(&self) -> usize {
        self.pending.len()
    }

    /// Puts other rules into force, for asks to come.
    pub fn set_terms(&mut self, terms: Terms) {
        self.terms = terms;
    }

    /// What is to be done about an event, in this order.
    pub fn handle(&mut self, event: Event<S>, moment: Moment) -> Vec<Effect<S>> {
        match event {
            Event::Connected => {
                self.targets.clear();
                self.courtship.connect(moment.now)
            }
            Event::Disconnected => {
                self.targets.clear();
                self.courtship.disconnect();
                Vec::new()
            }
            Event::Stanza(incoming) => self.take(incoming, moment),
            Event::Tick => self.tick(moment.now),
            Event::Draining => {
                self.is_draining = true;
                Vec::new()
            }
            Event::Stopped => {
                let left = self.pending.take_all().into_iter();
                left.map(|ask| ask.refuse(Refusal::Stopping)).collect()
            }
        }
    }

    fn tick(&mut self, now: Duration) -> Vec<Effect<S>> {
        let overdue = self.pending.take_overdue(now).into_iter();
        let mut effects: Vec<_> = overdue
            .map(|ask| ask.refuse(RelayFault::TimedOut.into()))
            .collect();
        effects.extend(self.courtship.tick(now, self.targets.is_empty()));
        effects
    }

    fn take(&mut self, incoming: Incoming<S>, moment: Moment) -> Vec<Effect<S>> {
        let from = incoming.from.clone();
        match self.sender(&from) {
            Some(Sender::Stranger { user }) => vec![self.hear_stranger(incoming, user, moment)],
            Some(Sender::Target { resource }) => self.hear_target(incoming, resource, moment),
            Some(Sender::Itself) | None => vec![Effect::Drop],
        }
    }

    /// `None` where the address is none, which nobody could be answered at.
    fn sender<'a>(&self, from: &'a str) -> Option<Sender<'a>> {
        let (bare, resource) = match from.split_once('/') {
            Some((bare, resource)) => (bare, Some(resource)),
            None => (from, None),
        };
        let user = BareJid::new(bare).ok().filter(|_| resource != Some(""))?;
        Some(if user.domain().as_str() == self.host {
            Sender::Itself
        } else if user == self.target {
            Sender::Target { resource }
        } else {
            Sender::Stranger { user }
        })
    }

    fn hear_stranger(&mut self, came: Incoming<S>, user: BareJid, moment: Moment) -> Effect<S> {
        match came.what {
            What::Ask(kind) => self.ask(came, kind, user, moment),
            What::MalformedIq => came.refuse(Refusal::BadStanza),
            What::Message => came.refuse(RelayFault::OnlyRequests.into()),
            What::Presence(Presence::Error) => Effect::Drop,
            What::Presence(_) => came.refuse(RelayFault::NoPresence.into()),
            What::Reply(_) | What::MessageError => Effect::Drop,
        }
    }

    fn ask(&mut self, came: Incoming<S>, kind: Kind, user: BareJid, moment: Moment) -> Effect<S> {
        let refusal = if self.is_draining {
            Some(Refusal::Stopping)
        } else if self.targets.is_empty() {
            Some(RelayFault::NobodyThere.into())
        } else if self.terms.pending_total_max <= self.pending.len()
            || self.terms.pending_max <= self.pending.n_of_user(&user)
        {
            Some(RelayFault::TooManyPending.into())
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return came.refuse(refusal);
        }
        let until = moment.now.saturating_add(self.terms.answer_within);
        let address = self.addressing.of(&came.from);
        let keeps = self.pending.has_room(came.n_bytes);
        let ask = Box::new(Ask {
            address,
            from: came.from,
            to: came.to,
            id: came.id,
            user,
            kind,
            again: keeps.then(|| (came.stanza.clone(), came.n_bytes)),
            asked: Vec::new(),
            until,
        });
        self.send(ask, came.stanza, Way::Request, moment.random)
            .unwrap_or_else(|ask| ask.refuse(RelayFault::NobodyThere.into()))
    }

    /// Sends an ask to the resource with the least to do that was not asked yet; gives it back
    /// where there is none.
    fn send(
        &mut self,
        mut ask: Box<Ask<S>>,
        stanza: S,
        way: Way,
        random: u64,
    ) -> Result<Effect<S>, Box<Ask<S>>> {
        let pending = &self.pending;
        let load = |resource: &str| pending.n_of_resource(resource);
        let Some(resource) = self.targets.pick(&ask.asked, load, random) else {
            return Err(ask);
        };
        let to = format!("{}/{resource}", self.target);
        let from = format!("{}/{}", self.host, ask.address);
        let resource = resource.to_owned();
        ask.asked.push(resource.clone());
        let id = self.pending.insert(ask, resource);
        Ok(Effect::Forward {
            way,
            stanza,
            from,
            to,
            id,
        })
    }

    fn hear_target(
        &mut self,
        came: Incoming<S>,
        resource: Option<&str>,
        moment: Moment,
    ) -> Vec<Effect<S>> {
        let is_to_host = came.to == self.host;
        match came.what {
            What::Presence(presence) if is_to_host => {
                self.hear_presence(presence, resource, moment)
            }
            What::Reply(answer) => self.answer(came, answer, resource, moment),
            What::Presence(_) | What::MessageError => vec![Effect::Drop],
            What::MalformedIq => vec![came.refuse(Refusal::BadStanza)],
            What::Ask(_) | What::Message => {
                let fault = match is_to_host {
                    true => RelayFault::OwnAccount,
                    false => RelayFault::OnlyReplies,
                };
                vec![came.refuse(fault.into())]
            }
        }
    }

    fn hear_presence(
        &mut self,
        presence: Presence,
        resource: Option<&str>,
        moment: Moment,
    ) -> Vec<Effect<S>> {
        match (presence, resource) {
            (Presence::Available, Some(resource)) => {
                self.targets.appear(resource);
                self.courtship.succeed()
            }
            (Presence::Unavailable, Some(resource)) => self.lose(resource, moment.random),
            (Presence::Unavailable, None) => self.lose_all(moment.random),
            (Presence::Subscribe, _) => vec![
                Effect::Send(Presence::Subscribed),
                Effect::Send(Presence::Available),
            ],
            (Presence::Probe, _) => vec![Effect::Send(Presence::Available)],
            (Presence::Subscribed, _) => {
                self.courtship.accepted();
                vec![Effect::Send(Presence::Probe)]
            }
            (Presence::Unsubscribed, _) => {
                let mut effects = self.courtship.refused(moment.now);
                effects.extend(self.lose_all(moment.random));
                effects
            }
            (Presence::Error, _) => {
                self.courtship.failed(moment.now);
                self.lose_all(moment.random)
            }
            (Presence::Available, None) | (Presence::Other, _) => vec![Effect::Drop],
        }
    }

    fn lose_all(&mut self, random: u64) -> Vec<Effect<S>> {
        // All at once: nothing shall be asked again of one that goes too.
        let gone = self.targets.clear();
        let gone = gone.into_iter();
        gone.flat_map(|resource| self.lose(&resource, random))
            .collect()
    }

    /// A resource is gone: what it was asked goes to another one, or comes to an end.
    fn lose(&mut self, resource: &str, mut random: u64) -> Vec<Effect<S>> {
        self.targets.leave(resource);
        let left = self.pending.take_of_resource(resource).into_iter();
        left.map(|ask| {
            random = shuffled(random);
            let again = self.ask_again(ask, Answer::Unreachable, random);
            again.unwrap_or_else(|ask| ask.refuse(RelayFault::TargetGone.into()))
        })
        .collect()
    }

    /// Asks another resource: what one may not have heard, once, and only what changes nothing;
    /// what one knows nothing of, until somebody does.
    fn ask_again(
        &mut self,
        ask: Box<Ask<S>>,
        answer: Answer,
        random: u64,
    ) -> Result<Effect<S>, Box<Ask<S>>> {
        let may = match answer {
            Answer::Unreachable => ask.kind == Kind::Get && ask.asked.len() == 1,
            Answer::Unknown => ask.asked.len() < ASKED_MAX,
            Answer::Said | Answer::Unavailable | Answer::TooLong => false,
        };
        let stanza = ask.again.as_ref().filter(|_| may);
        match stanza.map(|(stanza, _)| stanza.clone()) {
            Some(stanza) => self.send(ask, stanza, Way::Retry, random),
            None => Err(ask),
        }
    }

    fn answer(
        &mut self,
        came: Incoming<S>,
        answer: Answer,
        resource: Option<&str>,
        moment: Moment,
    ) -> Vec<Effect<S>> {
        let address = came.to.strip_prefix(&self.host);
        let address = address.and_then(|rest| rest.strip_prefix('/'));
        let (Some(address), Some(resource)) = (address, resource) else {
            return vec![Effect::Drop];
        };
        let Some(ask) = self.pending.take(address, &came.id, resource) else {
            return vec![Effect::Drop];
        };
        let mut effects = Vec::new();
        if matches!(answer, Answer::Unavailable | Answer::Unreachable) {
            self.targets.doubt(resource);
            effects.extend(self.courtship.doubt(moment.now));
        }
        let effect = match self.ask_again(ask, answer, moment.random) {
            Ok(again) => again,
            Err(ask) if answer == Answer::TooLong => ask.refuse(RelayFault::AnswerTooLong.into()),
            Err(ask) => Effect::Forward {
                way: Way::Reply,
                stanza: came.stanza,
                from: ask.to,
                to: ask.from,
                id: ask.id,
            },
        };
        effects.insert(0, effect);
        effects
    }
}

/// Another number from a random one (splitmix64).
fn shuffled(random: u64) -> u64 {
    let mut next = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    next = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    next = (next ^ (next >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    next ^ (next >> 31)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod any_order {
    use proptest::prelude::*;

    use super::tests::*;
    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Ask(usize, usize, bool),
        /// An answer to the n-th that was sent, answered or not.
        Reply(usize, Answer),
        Appear(usize),
        Leave(usize),
        Presence(Presence),
        Wait(u64),
        Disconnected,
        Connected,
    }

    fn steps() -> impl Strategy<Value = Step> {
        use Answer::{Said, TooLong, Unavailable, Unknown, Unreachable};
        let answers = vec![Said, Said, TooLong, Unavailable, Unknown, Unreachable];
        let answers = proptest::sample::select(answers);
        let presences = proptest::sample::select(vec![
            Presence::Unavailable,
            Presence::Error,
            Presence::Unsubscribed,
            Presence::Subscribed,
        ]);
        prop_oneof![
            6 => (0..4_usize, 0..2_usize, any::<bool>()).prop_map(|(a, b, c)| Step::Ask(a, b, c)),
            4 => (0..40_usize, answers).prop_map(|(n, answer)| Step::Reply(n, answer)),
            3 => (0..3_usize).prop_map(Step::Appear),
            2 => (0..3_usize).prop_map(Step::Leave),
            1 => presences.prop_map(Step::Presence),
            2 => (0..40_u64).prop_map(Step::Wait),
            1 => Just(Step::Disconnected),
            1 => Just(Step::Connected),
        ]
    }

    /// Who has asked what, which of it is owed an answer, and what was sent on.
    #[derive(Default)]
    struct Ledger {
        asked: Vec<(String, String)>,
        owed: Vec<(String, String)>,
        sent: Vec<(usize, [String; 3])>,
    }

    impl Ledger {
        fn note(&mut self, effects: Vec<Effect<usize>>) {
            for effect in effects {
                match effect {
                    Effect::Forward {
                        way: Way::Reply,
                        stanza,
                        from,
                        to,
                        id,
                    } => {
                        assert_eq!(from, HOST);
                        assert_eq!((to.clone(), id.clone()), self.asked[stanza]);
                        self.settle((to, id));
                    }
                    Effect::Forward {
                        stanza,
                        from,
                        to,
                        id,
                        ..
                    } => {
                        let (requester, _) = &self.asked[stanza];
                        assert_eq!(from, format!("{HOST}/{requester}"));
                        self.sent.push((stanza, [from, to, id]));
                    }
                    Effect::Refuse { to, id, .. } => self.settle((to, id)),
                    Effect::Send(_) | Effect::Drop | Effect::Tell(_) => {}
                }
            }
        }

        fn settle(&mut self, answered: (String, String)) {
            let owed = self.owed.iter().position(|owed| *owed == answered);
            self.owed.swap_remove(owed.expect("an answer that is owed"));
        }
    }

    fn play(bench: &mut Bench, ledger: &mut Ledger, step: Step) -> Vec<Effect<usize>> {
        match step {
            Step::Ask(user, id, is_set) => {
                let kind = if is_set { Kind::Set } else { Kind::Get };
                let asked = (format!("user{user}@example.net/x"), format!("{id}"));
                ledger.asked.push(asked.clone());
                ledger.owed.push(asked.clone());
                let n = ledger.asked.len() - 1;
                bench.hear_stanza(What::Ask(kind), [&asked.0, HOST, &asked.1], n)
            }
            Step::Reply(n, answer) => {
                let Some((stanza, [to, from, id])) = ledger.sent.get(n).cloned() else {
                    return Vec::new();
                };
                bench.hear_stanza(What::Reply(answer), [&from, &to, &id], stanza)
            }
            Step::Appear(n) => {
                let resource = format!("{TARGET}/{n}");
                bench.hear(What::Presence(Presence::Available), &resource, HOST, "")
            }
            Step::Leave(n) => bench.leave(&n.to_string()),
            Step::Presence(presence) => bench.hear(What::Presence(presence), TARGET, HOST, ""),
            Step::Wait(seconds) => bench.wait(seconds),
            Step::Disconnected => bench.handle(Event::Disconnected),
            Step::Connected => bench.handle(Event::Connected),
        }
    }

    proptest! {
        #[test]
        fn each_ask_gets_exactly_one_answer(
            steps in proptest::collection::vec(steps(), 0..120),
        ) {
            let mut bench = Bench::new(&["0", "1"]);
            let mut ledger = Ledger::default();
            for step in steps {
                let effects = play(&mut bench, &mut ledger, step);
                ledger.note(effects);
                prop_assert_eq!(bench.relay.n_pending(), ledger.owed.len());
                prop_assert!(bench.relay.n_pending() <= TERMS.pending_total_max);
                for user in 0..4 {
                    let from = format!("user{user}@example.net/x");
                    let n_owed = ledger.owed.iter().filter(|(it, _)| *it == from).count();
                    prop_assert!(n_owed <= TERMS.pending_max);
                }
            }
            ledger.note(bench.handle(Event::Stopped));
            prop_assert!(ledger.owed.is_empty());
            prop_assert_eq!(bench.relay.n_pending(), 0);
        }
    }
}
