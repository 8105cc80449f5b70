//! What happened in the last hour and the last day, as counts; and who did what.
//!
//! Memory is bounded: 60 minutes, 96 quarters of an hour and `ACTS_MAX` acts, whatever comes in.
//! Each span is kept under its own number, so a clock that leaps spoils nothing but the spans in
//! which it was wrong: what is asked for is found under its number, or not at all.

use std::collections::VecDeque;
use std::time::Duration;

use jid::BareJid;

use crate::core::command::operation::Operation;
use crate::core::time::Timestamp;

/// Operators' acts that are remembered; the oldest go first.
pub const ACTS_MAX: usize = 50;
/// The longest account, command or outcome of an act, in characters.
pub const ACT_CHARS_MAX: usize = 200;

const MINUTE: Duration = Duration::from_secs(60);
const N_MINUTES: usize = 60;
const QUARTER: Duration = Duration::from_secs(900);
const N_QUARTERS: usize = 96;

/// How often something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Uploads that became complete.
    pub uploads: u64,
    /// Bytes of uploads that came in.
    pub bytes: u64,
    /// Uploads that went on where they had been broken off.
    pub resumes: u64,
    /// Requests that were refused.
    pub refusals: u64,
}

impl Tally {
    const NONE: Self = Self {
        uploads: 0,
        bytes: 0,
        resumes: 0,
        refusals: 0,
    };
    /// An upload that became complete.
    pub const UPLOAD: Self = Self {
        uploads: 1,
        ..Self::NONE
    };
    /// An upload that went on.
    pub const RESUME: Self = Self {
        resumes: 1,
        ..Self::NONE
    };
    /// A request that was refused.
    pub const REFUSAL: Self = Self {
        refusals: 1,
        ..Self::NONE
    };

    /// So many bytes that came in.
    pub fn of_bytes(bytes: u64) -> Self {
        Self {
            bytes,
            ..Self::NONE
        }
    }

    fn add(&mut self, more: Self) {
        self.uploads = self.uploads.saturating_add(more.uploads);
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.resumes = self.resumes.saturating_add(more.resumes);
        self.refusals = self.refusals.saturating_add(more.refusals);
    }
}

/// What an operator did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// When.
    pub at: Timestamp,
    /// Who: an account.
    pub by: String,
    /// What, in words.
    pub what: String,
    /// Whether it was done.
    pub is_done: bool,
}

/// A span of time and what happened in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first second.
    pub from: Timestamp,
    /// What happened until the next one's.
    pub tally: Tally,
}

/// Spans of one width, as many as fit; each takes the place of the one that many before it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ring {
    width: Duration,
    /// At the span's number modulo their count: that number, and its tally.
    places: Vec<(u64, Tally)>,
}

impl Ring {
    fn new(width: Duration, n_spans: usize) -> Self {
        Self {
            width,
            places: vec![(0, Tally::default()); n_spans],
        }
    }

    fn number(&self, at: Timestamp) -> u64 {
        at.0 / self.width.as_secs()
    }

    fn place(&self, number: u64) -> usize {
        (number % self.places.len() as u64) as usize
    }

    fn note(&mut self, tally: Tally, at: Timestamp) {
        let number = self.number(at);
        let place = self.place(number);
        let place = &mut self.places[place];
        if place.0 != number {
            *place = (number, Tally::default());
        }
        place.1.add(tally);
    }

    /// The spans up to the one of `now`, oldest first, those without a tally too.
    fn until(&self, now: Timestamp) -> Vec<Span> {
        let last = self.number(now);
        let first = last.saturating_sub(self.places.len() as u64 - 1);
        (first..=last).map(|number| self.span(number)).collect()
    }

    fn span(&self, number: u64) -> Span {
        let (held, tally) = self.places[self.place(number)];
        Span {
            from: Timestamp(number.saturating_mul(self.width.as_secs())),
            tally: if held == number {
                tally
            } else {
                Tally::default()
            },
        }
    }

    /// The spans in which anything happened, in no order.
    fn kept(&self) -> impl Iterator<Item = Span> {
        let busy = |(_, tally): &&(u64, Tally)| *tally != Tally::default();
        let busy = self.places.iter().filter(busy);
        busy.map(|(number, _)| self.span(*number))
    }
}

impl Act {
    /// What a command did, or failed to do. Names no upload by more than its first characters: the
    /// whole id is a link.
    pub fn of(by: &BareJid, operation: &Operation, is_done: bool, at: Timestamp) -> Self {
        let account = || operation.account().map(BareJid::to_string);
        let whom = operation.upload().or_else(account);
        let name: &str = operation.into();
        Self {
            at,
            by: by.to_string(),
            what: whom.map_or(name.to_owned(), |whom| format!("{name} {whom}")),
            is_done,
        }
    }
}

/// What happened lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    minutes: Ring,
    quarters: Ring,
    /// Oldest first.
    acts: VecDeque<Act>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            minutes: Ring::new(MINUTE, N_MINUTES),
            quarters: Ring::new(QUARTER, N_QUARTERS),
            acts: VecDeque::new(),
        }
    }
}

/// A history in parts: to be written down and read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Minutes in which anything happened.
    pub minutes: Vec<Span>,
    /// Quarters of an hour in which anything happened.
    pub quarters: Vec<Span>,
    /// Acts, oldest first.
    pub acts: Vec<Act>,
}

impl History {
    /// Counts what happened at `at`.
    pub fn note(&mut self, tally: Tally, at: Timestamp) {
        self.minutes.note(tally, at);
        self.quarters.note(tally, at);
    }

    /// Remembers an act; what is too long is shortened.
    pub fn note_act(&mut self, act: Act) {
        while ACTS_MAX <= self.acts.len() {
            self.acts.pop_front();
        }
        let short = |text: String| text.chars().take(ACT_CHARS_MAX).collect();
        self.acts.push_back(Act {
            by: short(act.by),
            what: short(act.what),
            ..act
        });
    }

    /// The last hour, a span a minute, oldest first; the last one is not over.
    pub fn hour(&self, now: Timestamp) -> Vec<Span> {
        self.minutes.until(now)
    }

    /// The last day, a span a quarter of an hour, oldest first; the last one is not over.
    pub fn day(&self, now: Timestamp) -> Vec<Span> {
        self.quarters.until(now)
    }

    /// The last acts, latest first.
    pub fn acts(&self) -> impl Iterator<Item = &Act> {
        self.acts.iter().rev()
    }

    /// All that there is.
    pub fn kept(&self) -> Kept {
        Kept {
            minutes: self.minutes.kept().collect(),
            quarters: self.quarters.kept().collect(),
            acts: self.acts.iter().cloned().collect(),
        }
    }

    /// The history that was kept, whoever changed it meanwhile: bounds hold as for what is noted.
    pub fn restore(kept: Kept) -> Self {
        let mut history = Self::default();
        for Span { from, tally } in kept.minutes {
            history.minutes.note(tally, from);
        }
        for Span { from, tally } in kept.quarters {
            history.quarters.note(tally, from);
        }
        for act in kept.acts {
            history.note_act(act);
        }
        history
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::command::operation::{Named, UploadName};
    use crate::core::slot::SlotId;

    /// A day's noon.
    const NOON: Timestamp = Timestamp(1_767_355_200);

    fn upload(bytes: u64) -> Tally {
        Tally {
            uploads: 1,
            bytes,
            ..Tally::default()
        }
    }

    fn after(seconds: u64) -> Timestamp {
        Timestamp(NOON.0 + seconds)
    }

    fn sum(spans: &[Span]) -> u64 {
        spans.iter().map(|span| span.tally.uploads).sum()
    }

    #[test]
    fn what_happened_stands_in_its_minute_and_its_quarter() {
        let mut history = History::default();
        history.note(upload(5), after(0));
        history.note(upload(7), after(59));
        history.note(upload(1), after(60));
        let hour = history.hour(after(120));
        assert_eq!(hour.len(), 60);
        assert_eq!(hour[59].from, after(120));
        assert_eq!(hour[57].tally.uploads, 2);
        assert_eq!(hour[57].tally.bytes, 12);
        assert_eq!(hour[58].tally, upload(1));
        let day = history.day(after(120));
        assert_eq!((day.len(), day[95].from), (96, NOON));
        assert_eq!(day[95].tally.bytes, 13);
    }

    #[test]
    fn what_is_over_is_gone() {
        let mut history = History::default();
        history.note(upload(5), NOON);
        assert_eq!(sum(&history.hour(after(3599))), 1);
        assert_eq!(sum(&history.hour(after(3600))), 0);
        assert_eq!(sum(&history.day(after(86_399))), 1);
        assert_eq!(sum(&history.day(after(86_400))), 0);
        // A place that was taken anew holds nothing of before.
        history.note(upload(5), after(3600));
        assert_eq!(sum(&history.hour(after(3600))), 1);
    }

    #[test]
    fn a_clock_that_leaps_spoils_what_it_touched_alone() {
        let mut history = History::default();
        for minute in 0..60 {
            history.note(upload(1), after(minute * 60));
        }
        let now = after(59 * 60);
        // Ten years ahead and back: one place of each ring was taken.
        history.note(upload(1), after(315_360_000));
        assert!(58 < sum(&history.hour(now)));
        assert_eq!(sum(&history.hour(after(315_360_000))), 1);
        // A minute that comes twice holds both.
        history.note(upload(1), after(120));
        assert_eq!(history.hour(now)[2].tally.uploads, 2);
        // To the epoch and to the end of time.
        for at in [Timestamp(0), Timestamp(u64::MAX)] {
            history.note(upload(1), at);
            assert_eq!(sum(&history.hour(at)), 1);
            assert_eq!(sum(&history.day(at)), 1);
        }
    }

    #[test]
    fn counts_stay_in_range() {
        let mut history = History::default();
        history.note(upload(u64::MAX), NOON);
        history.note(upload(u64::MAX), NOON);
        assert_eq!(history.hour(NOON)[59].tally.bytes, u64::MAX);
    }

    #[test]
    fn acts_are_bounded_in_number_and_length() {
        let mut history = History::default();
        for n in 0..=ACTS_MAX as u64 {
            history.note_act(Act {
                at: after(n),
                by: "romeo@example.org".to_owned(),
                what: "x".repeat(10_000),
                is_done: true,
            });
        }
        let acts: Vec<_> = history.acts().collect();
        assert_eq!(acts.len(), ACTS_MAX);
        assert_eq!((acts[0].at, acts[49].at), (after(50), after(1)));
        assert_eq!(acts[0].what.len(), ACT_CHARS_MAX);
    }

    #[test]
    fn acts_name_uploads_by_their_first_characters() {
        let by = BareJid::new("romeo@example.org").expect("a valid JID");
        let slot = SlotId(u128::MAX / 3);
        let what = |operation| Act::of(&by, &operation, true, NOON).what;
        let named = |name| Named { name, owner: None };
        let deleted = what(Operation::Delete(named(UploadName::Slot(slot))));
        assert_eq!(deleted, format!("delete {}", slot.short()));
        let whole = UploadName::Short(slot.to_string());
        assert_eq!(
            what(Operation::Cancel(named(whole))),
            format!("cancel {}", slot.short())
        );
        let purged = what(Operation::Purge(by.clone()));
        assert_eq!(purged, "purge romeo@example.org");
        assert_eq!(what(Operation::RotateKeys), "rotate-keys");
    }

    #[test]
    fn what_is_kept_comes_back() {
        let mut history = History::default();
        for n in 0..5000 {
            history.note(upload(n), after(n * 20));
        }
        history.note_act(Act {
            at: NOON,
            by: "romeo@example.org".to_owned(),
            what: "Drain".to_owned(),
            is_done: false,
        });
        let kept = history.kept();
        assert_eq!((kept.minutes.len(), kept.quarters.len()), (60, 96));
        assert_eq!(History::restore(kept), history);
        assert_eq!(History::default().kept(), Kept::default());
    }
}
