//! The relay's host on its stream: stanzas become core's events, and core's effects stanzas.
//!
//! `stanzas` reads and writes them. The desk gives us every stanza for the relay's host, on
//! whatever stream it came; what is due without having been asked for goes out on the relay's own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use minidom::Element;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tracing::debug;

use super::stream::random;
use super::{Lines, elements};
use crate::config;
use crate::core::relay::Relay as Decisions;
use crate::core::relay::courtship::News;
use crate::core::relay::fault::RelayFault;
use crate::core::relay::stanza::{Effect, Event, Moment, Way, What};
use crate::meters::work;
use crate::service::Service;

mod stanzas;

/// How often to look for asks that have waited too long.
const TICK_EVERY: Duration = Duration::from_secs(1);

/// The relay: one for the process.
pub struct Relay {
    config: config::Relay,
    service: Arc<Service>,
    started_at: Instant,
    decisions: Mutex<Decisions<Element>>,
    lines: Lines,
    /// How many resources are known, as was told last.
    n_targets: AtomicUsize,
}

impl Relay {
    /// A relay that knows nobody yet.
    pub fn new(config: config::Relay, service: Arc<Service>) -> Arc<Self> {
        let (host, target) = (&config.component.jid, config.target.clone());
        service.streams().tell_resources(host, 0);
        Arc::new(Self {
            decisions: Mutex::new(Decisions::new(
                host,
                target,
                config.terms,
                service.random_secret(),
            )),
            config,
            service,
            started_at: Instant::now(),
            lines: Lines::default(),
            n_targets: AtomicUsize::new(0),
        })
    }

    /// The relay's host.
    pub fn host(&self) -> &str {
        &self.config.component.jid
    }

    /// Whether an address is one of the relay's.
    pub fn is_for(&self, address: &str) -> bool {
        let bare = address.split('/').next().unwrap_or_default();
        let domain = bare.split_once('@').map_or(bare, |(_, domain)| domain);
        domain == self.host()
    }

    /// Takes a stanza for one of the relay's addresses; what is to be sent.
    pub fn take(&self, stanza: Element) -> Vec<Element> {
        let Some(came) = stanzas::read(stanza) else {
            return Vec::new();
        };
        if let What::Ask(_) = came.what
            && let Some(requester) = elements::requester(&came.from)
            && let Err(refusal) = self.service.check_account(&requester)
        {
            let refused = self.perform(came.refuse(refusal));
            return refused.into_iter().collect();
        }
        self.handle(Event::Stanza(came))
    }

    fn handle(&self, event: Event<Element>) -> Vec<Element> {
        let moment = Moment {
            now: self.started_at.elapsed(),
            random: random(),
        };
        let mut decisions = self.lock();
        if let Some(terms) = self.service.settings().relay {
            decisions.set_terms(terms);
        }
        let effects = decisions.handle(event, moment);
        let (n_pending, n_targets) = (decisions.n_pending(), decisions.n_targets());
        drop(decisions);
        work().set_relay(n_pending, n_targets);
        if self.n_targets.swap(n_targets, Ordering::Relaxed) != n_targets {
            let streams = self.service.streams();
            streams.tell_resources(self.host(), n_targets);
        }
        let effects = effects.into_iter();
        effects.filter_map(|effect| self.perform(effect)).collect()
    }

    fn perform(&self, effect: Effect<Element>) -> Option<Element> {
        match effect {
            Effect::Forward {
                way,
                mut stanza,
                from,
                to,
                id,
            } => {
                work().count_relayed(way.into());
                if way == Way::Retry {
                    debug!(to, "asking another resource");
                }
                stanzas::address(&mut stanza, &from, &to, &id);
                Some(stanza)
            }
            Effect::Refuse {
                stanza,
                from,
                to,
                id,
                refusal,
            } => {
                debug!(from = to, to = from, ?refusal, "stanza refused");
                let is_overdue = refusal == RelayFault::TimedOut.into();
                work().count_relayed(if is_overdue { "timed-out" } else { "refused" });
                work().refuse_iq(refusal.name());
                Some(stanzas::error(stanza, (&from, &to, &id), &refusal))
            }
            Effect::Send(presence) => {
                let target = self.config.target.as_str();
                stanzas::presence(presence, self.host(), target)
            }
            Effect::Drop => {
                work().count_relayed("dropped");
                None
            }
            Effect::Tell(news) => {
                self.tell(news);
                None
            }
        }
    }

    fn tell(&self, news: News) {
        let (host, target) = (self.host(), &self.config.target);
        match news {
            News::Found => {
                let line = format!("{target} is there, and answers what is asked of {host}");
                self.lines.info(host, &line, 1);
            }
            News::Nobody => {
                let line = format!(
                    "nobody answers what is asked of {host}: no resource of {target} is known; is \
                     it logged in, and has it accepted that {host} sees its presence?"
                );
                self.lines.warn(host, &line, 1);
            }
            News::Refused => {
                let line = format!(
                    "{target} does not let {host} see its presence: nobody answers; it is asked \
                     again in an hour"
                );
                self.lines.warn(host, &line, 1);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Decisions<Element>> {
        self.decisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The relay while its own stream is up.
pub struct OnStream {
    relay: Arc<Relay>,
    ticks: Interval,
    due: Vec<Element>,
}

impl OnStream {
    /// The stream is up.
    pub fn begin(relay: Arc<Relay>) -> Self {
        let mut ticks = interval(TICK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            due: relay.handle(Event::Connected),
            relay,
            ticks,
        }
    }

    /// What is to be sent without having been asked for.
    pub fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Vec<Element>> {
        while self.due.is_empty() {
            ready!(self.ticks.poll_tick(cx));
            self.due = self.relay.handle(Event::Tick);
        }
        Poll::Ready(std::mem::take(&mut self.due))
    }

    /// Takes no more asks.
    pub fn drain(&mut self) {
        self.due.extend(self.relay.handle(Event::Draining));
    }

    /// Whether nobody waits for an answer.
    pub fn is_idle(&self) -> bool {
        self.relay.lock().n_pending() == 0
    }

    /// The errors for all who still wait.
    pub fn give_up(&mut self) -> Vec<Element> {
        self.relay.handle(Event::Stopped)
    }
}

impl Drop for OnStream {
    fn drop(&mut self) {
        self.relay.handle(Event::Disconnected);
    }
}
