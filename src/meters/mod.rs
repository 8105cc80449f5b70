//! What is counted and measured, for Prometheus.
//!
//! A meter is an atomic number that is reached without a look-up or a lock. There is one set for
//! the process, as there is one log: `happenings` counts what the service tells of, `work` what
//! its parts do, `state` is looked at when somebody asks. No label holds what a peer chose: each
//! takes one of a few words, but for the components' hosts, which the configuration lists.

use std::sync::{LazyLock, Mutex, PoisonError};

use prometheus::{Encoder as _, Registry, TextEncoder};

use crate::core::event::Event;
use crate::core::time::Timestamp;
use crate::service::events::Listener;

mod book;
mod happenings;
mod state;
mod work;

use book::Book;
use happenings::Happenings;
use state::State;
pub use state::{Now, Stock};
pub use work::{HeldConnection, Synced, Work};

/// All meters.
pub struct Meters {
    registry: Registry,
    happenings: Happenings,
    work: Work,
    state: State,
    /// Held by who sets the state and reads it.
    turn: Mutex<()>,
}

/// Has these of the process count what the service tells.
pub struct Counting;

impl Listener for Counting {
    fn hear(&self, event: &Event<'_>, now: Timestamp) {
        meters().count(event, now);
    }
}

/// The meters of this process.
pub fn meters() -> &'static Meters {
    static METERS: LazyLock<Meters> = LazyLock::new(Meters::new);
    &METERS
}

/// Those of what the process' parts do.
pub fn work() -> &'static Work {
    &meters().work
}

impl Meters {
    /// All at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let book = Book(&registry);
        Self {
            happenings: Happenings::new(&book),
            work: Work::new(&book),
            state: State::new(&book),
            registry,
            turn: Mutex::default(),
        }
    }

    /// Those of what the service's parts do.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// All of it in Prometheus' text format.
    pub fn text(&self, now: &Now) -> String {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.state.set(now);
        let mut text = Vec::new();
        let families = self.registry.gather();
        match TextEncoder::new().encode(&families, &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => {
                tracing::error!(%error, "the meters cannot be written");
                String::new()
            }
        }
    }
}

impl Default for Meters {
    fn default() -> Self {
        Self::new()
    }
}
