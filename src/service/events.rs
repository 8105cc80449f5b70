//! Telling what happens to whoever listens.

use std::sync::{Arc, OnceLock};

use crate::core::event::Event;
use crate::core::time::Timestamp;
use crate::service::Service;

/// Somebody to whom everything is told that happens.
///
/// Called wherever it happens, also while a connection waits for its answer: a listener counts, or
/// puts a copy into a bounded queue, and never waits.
pub trait Listener: Send + Sync {
    /// Hears of one thing.
    fn hear(&self, event: &Event<'_>, now: Timestamp);
}

/// Those who listen: set once, before anything can happen, so that telling takes no lock.
#[derive(Default)]
pub(super) struct Listeners(OnceLock<Box<[Arc<dyn Listener>]>>);

impl Service {
    /// Has everything told to `listeners` that happens from now on. Only the first call counts.
    pub fn set_listeners(&self, listeners: Vec<Arc<dyn Listener>>) {
        let _ = self.listeners.0.set(listeners.into());
    }

    /// Tells what happened. Edges tell only what the service cannot know.
    pub fn tell(&self, event: Event<'_>) {
        let Some(listeners) = self.listeners.0.get().filter(|all| !all.is_empty()) else {
            return;
        };
        let now = self.world.now();
        for listener in listeners {
            listener.hear(&event, now);
        }
    }
}
