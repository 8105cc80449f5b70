//! What happened lately: hears of everything and remembers it for the status page.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::core::command::operation::Outcome;
use crate::core::event::Event;
use crate::core::history::{Act, History, Kept, Tally};
use crate::core::time::Timestamp;
use crate::service::Service;
use crate::service::events::Listener;

/// An upload that goes on sooner comes in pieces, as its client wants it; nothing broke.
const GAP_MIN: Duration = Duration::from_secs(1);

/// The history, as it grows.
#[derive(Default)]
pub struct Recent {
    // A std Mutex: it is held for a few additions, or one copy a second.
    history: Mutex<History>,
    is_changed: AtomicBool,
    /// Whether anybody can look at it.
    is_kept: AtomicBool,
}

impl Recent {
    /// Goes on from what was kept before the start.
    pub fn restore(&self, kept: Kept) {
        *self.history() = History::restore(kept);
    }

    /// Notes things from now on: somebody can look at them.
    pub fn begin(&self) {
        self.is_kept.store(true, Ordering::Relaxed);
    }

    /// All of it, if anything happened since the last call.
    pub fn take_changed(&self) -> Option<Kept> {
        let is_changed = self.is_changed.swap(false, Ordering::Relaxed);
        is_changed.then(|| self.history().kept())
    }

    /// Has the next call give all of it again: it could not be kept.
    pub fn set_changed(&self) {
        self.is_changed.store(true, Ordering::Relaxed);
    }

    /// Counts bytes of uploads, as they come.
    pub(super) fn note_bytes(&self, bytes: u64, now: Timestamp) {
        // Each piece of each body comes here.
        if self.is_kept.load(Ordering::Relaxed) {
            self.note(Tally::of_bytes(bytes), now);
        }
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        // Counts are whole between statements, whatever happened to other holders.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, tally: Tally, now: Timestamp) {
        self.history().note(tally, now);
        self.set_changed();
    }
}

impl Service {
    /// What happened lately; hears of nothing unless it is among the listeners.
    pub fn recent(&self) -> &Arc<Recent> {
        &self.recent
    }
}

impl Listener for Recent {
    fn hear(&self, event: &Event<'_>, now: Timestamp) {
        match *event {
            Event::UploadComplete { .. } => self.note(Tally::UPLOAD, now),
            Event::UploadResumed { resumed, .. } if GAP_MIN <= resumed.gap => {
                self.note(Tally::RESUME, now);
            }
            Event::SlotRefused { .. } | Event::RequestRefused { .. } => {
                self.note(Tally::REFUSAL, now)
            }
            Event::CommandRun {
                by,
                is_operator: true,
                operation,
                outcome,
            } if operation.changes() => {
                let act = Act::of(by, operation, outcome.is_ok_and(Outcome::is_done), now);
                self.history().note_act(act);
                self.set_changed();
            }
            _ => {}
        }
    }
}
