//! What is counted and measured, for Prometheus.
//!
//! A meter is an atomic number that is reached without a look-up. There is one set for the
//! process, as there is one log. No label holds what a peer chose: each takes one of a few words.

use std::sync::LazyLock;

use prometheus::{Encoder as _, IntGauge, Registry, TextEncoder};

/// What is not counted as it happens, but looked at when somebody asks.
pub struct Now {
    /// Whether slots can be asked for and uploads taken.
    pub is_ready: bool,
}

/// All meters.
pub struct Meters {
    registry: Registry,
    ready: IntGauge,
}

/// The meters of this process.
pub fn meters() -> &'static Meters {
    static METERS: LazyLock<Meters> = LazyLock::new(Meters::new);
    &METERS
}

impl Meters {
    fn new() -> Self {
        let registry = Registry::new();
        let ready = IntGauge::new(
            "slotd_ready",
            "Whether slots can be asked for and uploads taken",
        )
        .expect("a good name");
        registry
            .register(Box::new(ready.clone()))
            .expect("a new name");
        Self { registry, ready }
    }

    /// All of it in Prometheus' text format.
    pub fn text(&self, now: &Now) -> String {
        self.ready.set(now.is_ready.into());
        let mut text = Vec::new();
        let families = self.registry.gather();
        match TextEncoder::new().encode(&families, &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => {
                tracing::error!(%error, "metrics cannot be written");
                String::new()
            }
        }
    }
}
