//! What to do next in one upload: decided here from what happened, without touching anything.
//!
//! An upload is a `Plan`. Whoever drives it does the `Step`, tells what came of it as an `Event`,
//! and gets the next step. Time and chance arrive as arguments.

use std::time::Duration;

/// The first pause after trouble, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(300);
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// A service that names a longer time is asked again after this one.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// Most sessions or slots that are begun anew for one file, where the old one is of no use.
const RESTARTS_MAX: u32 = 5;
/// Most refused credentials in a row between which no byte was taken.
const STALE_MAX: u32 = 4;
/// A plain slot may be tried again for so long; XEP-0363 #impl recommends that it live 300 s.
const SLOT_FOR: Duration = Duration::from_secs(240);

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask for a slot, with a session where the service knows them.
    AskSlot,
    /// Ask over XMPP how far the session is.
    Query,
    /// Ask over XMPP for new credentials of the session.
    Refresh,
    /// Ask over HTTP how far the session is.
    AskOffset,
    /// Send what is missing, from this byte on.
    Append {
        /// How much the service has.
        offset: u64,
    },
    /// Send the whole file to the slot's own URL.
    Put,
    /// Look whether the file is there: the service says that it has it already.
    Look,
    /// Wait, then tell `Event::Rested`.
    Rest(Duration),
    /// The file is there.
    Done,
    /// The service does not want it.
    Refuse(String),
    /// It took too long.
    GiveUp(String),
}

/// A session's state as the service names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for bytes.
    Open,
    /// The file is there.
    Complete,
    /// It takes no bytes any more.
    Over,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing yet: the beginning.
    Start {
        /// A session was begun by an earlier run.
        is_known: bool,
    },
    /// A slot was given.
    Slot {
        /// With a session, and a URL to append to.
        is_resumable: bool,
    },
    /// The answer to a query or a refresh.
    Session {
        /// How it stands.
        state: State,
        /// How much the service has.
        offset: u64,
        /// Whether there is a URL to append to.
        is_resumable: bool,
    },
    /// How much the service has, told over HTTP.
    Offset(u64),
    /// The file is there.
    Complete,
    /// No network, no answer, or an answer that another time may be better.
    Trouble {
        /// What it is, for people.
        words: String,
        /// When the service wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The URL's credential does not count any more.
    Stale,
    /// The service says that it has the file, or another one, under this slot.
    Conflict,
    /// The session or slot is of no use any more.
    Gone(String),
    /// No, and it would be no the next time.
    Refused(String),
    /// A rest is over.
    Rested,
}

/// One upload under way.
#[derive(Debug)]
pub struct Plan {
    give_up_after: Duration,
    /// Whether there is a session: bytes that were taken stay taken.
    has_session: bool,
    step: Step,
    /// What comes after the rest.
    after_rest: Step,
    /// The most that the service said to have.
    offset: u64,
    n_troubles: u32,
    n_restarts: u32,
    n_stale: u32,
    /// When the slot was given.
    slot_at: Duration,
}

impl Plan {
    /// An upload that has not begun.
    pub fn new(give_up_after: Duration) -> Self {
        Self {
            give_up_after,
            has_session: false,
            step: Step::AskSlot,
            after_rest: Step::AskSlot,
            offset: 0,
            n_troubles: 0,
            n_restarts: 0,
            n_stale: 0,
            slot_at: Duration::ZERO,
        }
    }

    /// The next step, `since` so long after the beginning; `random` spreads the pauses.
    pub fn next(&mut self, event: Event, since: Duration, random: u64) -> Step {
        let step = match event {
            Event::Start { is_known } => {
                self.has_session = is_known;
                if is_known { Step::Query } else { Step::AskSlot }
            }
            Event::Slot { is_resumable } => {
                self.has_session = is_resumable;
                self.offset = 0;
                self.slot_at = since;
                match is_resumable {
                    true => Step::Append { offset: 0 },
                    false => Step::Put,
                }
            }
            Event::Session {
                state,
                offset,
                is_resumable,
            } => self.stands(state, offset, is_resumable),
            Event::Offset(offset) => self.go_on(offset, since, random),
            Event::Complete => Step::Done,
            Event::Trouble { words, retry_after } => {
                self.trouble(&words, retry_after, since, random)
            }
            Event::Stale => self.stale(),
            Event::Conflict if self.has_session => {
                let words = "the upload service contradicts itself";
                self.rest(Step::Query, words, None, since, random)
            }
            Event::Conflict if self.step == Step::Look => self.restart("its slot is used up"),
            Event::Conflict => Step::Look,
            Event::Gone(words) => self.restart(&words),
            Event::Refused(words) => Step::Refuse(words),
            Event::Rested => self.after_rest.clone(),
        };
        self.step = step.clone();
        step
    }

    fn stands(&mut self, state: State, offset: u64, is_resumable: bool) -> Step {
        match (state, &self.step) {
            (State::Complete, _) => Step::Done,
            (State::Over, _) => self.restart("the service has ended its session"),
            // A refresh cuts what was under way, so its offset is the last word.
            (State::Open, Step::Refresh) if is_resumable => {
                self.note(offset);
                Step::Append { offset }
            }
            (State::Open, Step::Refresh) => Step::Put,
            (State::Open, _) if is_resumable => Step::AskOffset,
            (State::Open, _) => Step::Refresh,
        }
    }

    /// An answer to bytes that were sent says where to go on; one that is of no use is trouble, or
    /// it would be got for ever.
    fn go_on(&mut self, offset: u64, since: Duration, random: u64) -> Step {
        let append = Step::Append { offset };
        let is_vain = matches!(self.step, Step::Append { .. }) && offset <= self.offset;
        self.note(offset);
        match is_vain {
            true => {
                let words = "the upload service takes nothing";
                self.rest(append, words, None, since, random)
            }
            false => append,
        }
    }

    /// Bytes were taken: the way is good again.
    fn note(&mut self, offset: u64) {
        if self.offset < offset {
            self.offset = offset;
            self.n_troubles = 0;
            self.n_stale = 0;
        }
    }

    fn trouble(
        &mut self,
        words: &str,
        retry_after: Option<Duration>,
        since: Duration,
        random: u64,
    ) -> Step {
        let next = match self.step {
            Step::Append { .. } | Step::AskOffset => Step::AskOffset,
            Step::Put if self.slot_at + SLOT_FOR <= since => match self.has_session {
                true => Step::Refresh,
                false => Step::AskSlot,
            },
            ref same => same.clone(),
        };
        self.rest(next, words, retry_after, since, random)
    }

    /// A pause before the next step, if there is time for one.
    fn rest(
        &mut self,
        next: Step,
        words: &str,
        retry_after: Option<Duration>,
        since: Duration,
        random: u64,
    ) -> Step {
        if self.give_up_after <= since {
            return Step::GiveUp(words.to_owned());
        }
        self.after_rest = next;
        let rest = match retry_after {
            Some(wanted) => wanted.clamp(PAUSE_MIN, RETRY_AFTER_MAX),
            None => pause(self.n_troubles, random),
        };
        self.n_troubles = self.n_troubles.saturating_add(1);
        Step::Rest(rest.min(self.give_up_after - since))
    }

    fn stale(&mut self) -> Step {
        self.n_stale += 1;
        if !self.has_session || STALE_MAX < self.n_stale {
            return self.restart("its credentials are refused");
        }
        Step::Refresh
    }

    fn restart(&mut self, words: &str) -> Step {
        self.n_restarts += 1;
        if RESTARTS_MAX < self.n_restarts {
            return Step::Refuse(format!("begun {RESTARTS_MAX} times anew in vain: {words}"));
        }
        self.has_session = false;
        self.offset = 0;
        self.n_stale = 0;
        Step::AskSlot
    }
}

/// How long to wait after so many troubles: twice as long each time, and never twice the same.
fn pause(n_troubles: u32, random: u64) -> Duration {
    let longest = PAUSE_MIN
        .saturating_mul(1 << n_troubles.min(16))
        .min(PAUSE_MAX);
    let spread = u32::try_from(random % 1000).unwrap_or_default();
    longest / 2 + longest / 2 * spread / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const SECOND: Duration = Duration::from_secs(1);

    fn trouble() -> Event {
        Event::Trouble {
            words: "no network".to_owned(),
            retry_after: None,
        }
    }

    fn session(state: State, offset: u64) -> Event {
        Event::Session {
            state,
            offset,
            is_resumable: true,
        }
    }

    /// Runs events at the first second and tells the last step.
    fn after(events: &[Event]) -> Step {
        let mut plan = Plan::new(DAY);
        let steps = events
            .iter()
            .map(|event| plan.next(event.clone(), SECOND, 7));
        steps.last().expect("an event")
    }

    const START: Event = Event::Start { is_known: false };
    const KNOWN: Event = Event::Start { is_known: true };
    const SLOT: Event = Event::Slot { is_resumable: true };
    const PLAIN: Event = Event::Slot {
        is_resumable: false,
    };

    #[test]
    fn each_event_has_its_step() {
        for (events, step) in [
            (vec![START], Step::AskSlot),
            (vec![START, SLOT], Step::Append { offset: 0 }),
            (vec![START, PLAIN], Step::Put),
            (vec![START, SLOT, Event::Complete], Step::Done),
            (vec![START, SLOT, trouble(), Event::Rested], Step::AskOffset),
            (vec![START, PLAIN, trouble(), Event::Rested], Step::Put),
            (vec![START, trouble(), Event::Rested], Step::AskSlot),
            (vec![START, SLOT, Event::Stale], Step::Refresh),
            (
                vec![START, SLOT, Event::Stale, trouble(), Event::Rested],
                Step::Refresh,
            ),
            (
                vec![START, SLOT, Event::Stale, session(State::Open, 9)],
                Step::Append { offset: 9 },
            ),
            (
                vec![START, SLOT, Event::Stale, session(State::Complete, 9)],
                Step::Done,
            ),
            (
                vec![START, SLOT, Event::Conflict, Event::Rested],
                Step::Query,
            ),
            (
                vec![START, SLOT, Event::Offset(9)],
                Step::Append { offset: 9 },
            ),
            (
                vec![
                    START,
                    SLOT,
                    Event::Offset(9),
                    Event::Offset(9),
                    Event::Rested,
                ],
                Step::Append { offset: 9 },
            ),
            (vec![START, PLAIN, Event::Stale], Step::AskSlot),
            (vec![START, PLAIN, Event::Conflict], Step::Look),
            (
                vec![START, PLAIN, Event::Conflict, Event::Conflict],
                Step::AskSlot,
            ),
            (vec![KNOWN], Step::Query),
            (vec![KNOWN, session(State::Open, 9)], Step::AskOffset),
            (vec![KNOWN, session(State::Complete, 9)], Step::Done),
            (vec![KNOWN, session(State::Over, 9)], Step::AskSlot),
            (vec![KNOWN, Event::Gone(String::new())], Step::AskSlot),
            (
                vec![KNOWN, session(State::Open, 9), Event::Offset(8)],
                Step::Append { offset: 8 },
            ),
            (
                vec![START, Event::Refused("no".to_owned())],
                Step::Refuse("no".to_owned()),
            ),
        ] {
            assert_eq!(after(&events), step, "{events:?}");
        }
    }

    #[test]
    fn pauses_grow_and_shrink_when_bytes_are_taken() {
        let mut plan = Plan::new(DAY);
        plan.next(START, SECOND, 0);
        plan.next(SLOT, SECOND, 0);
        let rest = |plan: &mut Plan| match plan.next(trouble(), SECOND, 0) {
            Step::Rest(pause) => pause,
            other => panic!("{other:?}"),
        };
        let first = rest(&mut plan);
        assert_eq!(first, PAUSE_MIN / 2);
        assert_eq!(rest(&mut plan), PAUSE_MIN);
        for _ in 0..40 {
            assert!(rest(&mut plan) <= PAUSE_MAX);
        }
        assert_eq!(rest(&mut plan), PAUSE_MAX / 2);
        plan.next(Event::Rested, SECOND, 0);
        plan.next(Event::Offset(1), SECOND, 0);
        assert_eq!(rest(&mut plan), first);
        // The same offset again is no progress.
        plan.next(Event::Offset(1), SECOND, 0);
        assert_eq!(rest(&mut plan), first * 2);
    }

    #[test]
    fn what_the_service_names_is_waited_for() {
        let named = |seconds| Event::Trouble {
            words: String::new(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        let rest = |seconds| after(&[START, SLOT, named(seconds)]);
        assert_eq!(rest(30), Step::Rest(Duration::from_secs(30)));
        assert_eq!(rest(0), Step::Rest(PAUSE_MIN));
        assert_eq!(rest(100_000), Step::Rest(RETRY_AFTER_MAX));
    }

    #[test]
    fn a_slot_that_is_too_old_is_not_tried_again() {
        let mut plan = Plan::new(DAY);
        plan.next(START, SECOND, 0);
        plan.next(PLAIN, SECOND, 0);
        plan.next(trouble(), SLOT_FOR, 0);
        assert_eq!(plan.next(Event::Rested, SLOT_FOR, 0), Step::Put);
        plan.next(trouble(), SLOT_FOR + SECOND, 0);
        assert_eq!(plan.next(Event::Rested, DAY, 0), Step::AskSlot);
    }

    /// A service whose answers lead nowhere is asked ever more seldom, and given up in the end.
    #[test]
    fn contradictions_are_no_loop() {
        for (answer, sent) in [
            (Event::Offset(0), Event::Offset(0)),
            (Event::Offset(9), Event::Offset(9)),
            (Event::Offset(9), Event::Offset(3)),
            (Event::Offset(9), Event::Conflict),
            (Event::Conflict, Event::Conflict),
        ] {
            let mut plan = Plan::new(DAY);
            let mut step = plan.next(KNOWN, SECOND, 0);
            let mut since = SECOND;
            let mut n_steps = 0;
            while !matches!(step, Step::GiveUp(_)) {
                n_steps += 1;
                assert!(
                    n_steps < 100_000,
                    "{answer:?}, {sent:?}: {step:?} after {since:?}"
                );
                let event = match step {
                    Step::Query | Step::Refresh => session(State::Open, 9),
                    Step::AskOffset => answer.clone(),
                    Step::Append { .. } => sent.clone(),
                    Step::Rest(pause) => {
                        since += pause;
                        Event::Rested
                    }
                    other => panic!("{other:?}"),
                };
                step = plan.next(event, since, 0);
            }
        }
    }

    #[test]
    fn nothing_goes_on_for_ever() {
        let mut plan = Plan::new(DAY);
        plan.next(START, SECOND, 0);
        plan.next(SLOT, SECOND, 0);
        let last = plan.next(trouble(), DAY - SECOND, 999);
        assert!(
            matches!(last, Step::Rest(pause) if pause <= SECOND),
            "{last:?}"
        );
        assert_eq!(
            plan.next(trouble(), DAY, 0),
            Step::GiveUp("no network".to_owned())
        );

        let mut plan = Plan::new(DAY);
        let mut n_slots = 0;
        let mut step = plan.next(START, SECOND, 0);
        for _ in 0..100 {
            step = match step {
                Step::AskSlot => {
                    n_slots += 1;
                    plan.next(SLOT, SECOND, 0)
                }
                Step::Refresh => plan.next(session(State::Open, 0), SECOND, 0),
                Step::Append { .. } => plan.next(Event::Stale, SECOND, 0),
                Step::Refuse(_) => break,
                other => panic!("{other:?}"),
            };
        }
        assert!(matches!(step, Step::Refuse(_)), "{step:?}");
        assert_eq!(n_slots, RESTARTS_MAX + 1);
    }
}
