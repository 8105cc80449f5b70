//! How the target's account is asked for its presence, again and again but not too often.
//!
//! The account subscribes nobody and keeps no promise: it may accept now, in a week, or never. Once
//! it has accepted, its server tells of its resources when they come and go, and says so again to
//! whoever asks again.
//!
//! Nobody is probed who has not accepted: Prosody answers such a probe in the account's name, that
//! it is not allowed, and forgets that the account was asked (only the first half is in
//! RFC 6121 #4.3.2).

use std::time::Duration;

use super::stanza::{Effect, Presence};

/// How long after it was asked, or has refused, the account is asked again.
pub const ASK_EVERY: Duration = Duration::from_secs(3600);
/// The same after an error, doubled each time: its server may only be restarting.
pub const ERROR_WAIT_MIN: Duration = Duration::from_secs(60);
/// How long it may take until the first resource is known, before an admin is told.
pub const NOBODY_AFTER: Duration = Duration::from_secs(10);
/// Who is doubted is looked for at most so often.
pub const PROBE_EVERY: Duration = Duration::from_secs(10);

/// What an admin should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// A resource is known, the first one for some time.
    Found,
    /// No resource is known, for some time.
    Nobody,
    /// The account has refused, or taken back, its presence.
    Refused,
}

/// How far we got.
#[derive(Default)]
pub struct Courtship {
    is_connected: bool,
    /// When to ask again, where no resource is known.
    ask_at: Duration,
    /// The account has accepted, as far as we know.
    is_accepted: bool,
    /// The account has refused: nothing is asked before `ask_at`.
    is_refused: bool,
    /// How long to wait after the next error.
    error_wait: Option<Duration>,
    /// The last asking ended in an error, which may come once for each presence.
    has_failed: bool,
    probed_at: Option<Duration>,
    /// Somebody was doubted too early for another probe.
    is_probe_due: bool,
    /// Since when no resource is known.
    alone_since: Option<Duration>,
    /// What an admin was told last.
    told: Option<News>,
}

impl Courtship {
    /// The stream is up.
    pub fn connect<S>(&mut self, now: Duration) -> Vec<Effect<S>> {
        self.is_connected = true;
        self.alone_since = Some(now);
        match self.is_refused && now < self.ask_at {
            true => Vec::new(),
            false => self.ask(now),
        }
    }

    /// The stream is gone.
    pub fn disconnect(&mut self) {
        self.is_connected = false;
    }

    fn ask<S>(&mut self, now: Duration) -> Vec<Effect<S>> {
        self.ask_at = now + ASK_EVERY;
        self.is_refused = false;
        self.has_failed = false;
        let probe = self.is_accepted.then_some(Presence::Probe);
        let asked = [Presence::Subscribe].into_iter().chain(probe);
        asked.map(Effect::Send).collect()
    }

    /// Time went by; `is_alone` while no resource is known.
    pub fn tick<S>(&mut self, now: Duration, is_alone: bool) -> Vec<Effect<S>> {
        if !self.is_connected {
            return Vec::new();
        }
        if !is_alone {
            self.alone_since = None;
            let probe = self.is_probe_due.then(|| self.doubt(now)).flatten();
            return probe.into_iter().collect();
        }
        let since = *self.alone_since.get_or_insert(now);
        let mut effects = Vec::new();
        if NOBODY_AFTER <= now.saturating_sub(since) {
            effects.extend(self.tell(News::Nobody));
        }
        if self.ask_at <= now {
            effects.extend(self.ask(now));
        }
        effects
    }

    /// The account lets us see its presence.
    pub fn accepted(&mut self) {
        self.is_accepted = true;
        self.is_refused = false;
    }

    /// A resource is there.
    pub fn succeed<S>(&mut self) -> Vec<Effect<S>> {
        self.accepted();
        self.error_wait = None;
        self.tell(News::Found).into_iter().collect()
    }

    /// The account does not let us see its presence.
    pub fn refused<S>(&mut self, now: Duration) -> Vec<Effect<S>> {
        if self.is_refused {
            return Vec::new();
        }
        self.is_accepted = false;
        self.is_refused = true;
        self.ask_at = now + ASK_EVERY;
        self.tell(News::Refused).into_iter().collect()
    }

    /// What we sent to the account came back.
    pub fn failed(&mut self, now: Duration) {
        if !self.has_failed && !self.is_refused {
            let wait = self.error_wait.unwrap_or(ERROR_WAIT_MIN);
            self.ask_at = now + wait;
            self.error_wait = Some((wait * 2).min(ASK_EVERY));
            self.has_failed = true;
        }
    }

    /// A resource may be gone: if it is not, its presence says so, as soon as it may be asked.
    pub fn doubt<S>(&mut self, now: Duration) -> Option<Effect<S>> {
        let may_ask = |at: Duration| PROBE_EVERY <= now.saturating_sub(at);
        self.is_probe_due = !self.probed_at.is_none_or(may_ask);
        (!self.is_probe_due).then(|| {
            self.probed_at = Some(now);
            Effect::Send(Presence::Probe)
        })
    }

    /// Tells what is news, and was not told last.
    fn tell<S>(&mut self, news: News) -> Option<Effect<S>> {
        // Who has refused is not there: that is no news.
        let is_old =
            self.told == Some(news) || (news, self.told) == (News::Nobody, Some(News::Refused));
        if is_old {
            return None;
        }
        self.told = Some(news);
        Some(Effect::Tell(news))
    }
}
