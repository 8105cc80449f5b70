//! How many things one address has under way: connections, or requests through a trusted proxy.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::core::forwarded::network;
use crate::core::refusal::Refusal;

/// What an address that has too much under way is told to wait.
const RETRY_IN: Duration = Duration::from_secs(5);

/// A count by address. It holds an entry only for what is under way.
#[derive(Default)]
pub struct Gate {
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// One thing under way; counted until it is dropped.
pub struct Permit {
    gate: Arc<Gate>,
    network: IpAddr,
}

impl Gate {
    /// Counts one more of `address`; refuses `TooManyRequests` where it has `n_max` already.
    pub fn enter(self: &Arc<Self>, address: IpAddr, n_max: usize) -> Result<Permit, Refusal> {
        let network = network(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        // A limit of 0 would leave an entry behind; it lets nobody in.
        if n_max <= *count {
            if *count == 0 {
                counts.remove(&network);
            }
            return Err(Refusal::TooManyRequests { retry_in: RETRY_IN });
        }
        *count += 1;
        let gate = Arc::clone(self);
        Ok(Permit { gate, network })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let counts = self.gate.counts.lock();
        let mut counts = counts.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_network_has_its_own_count() {
        let gate = Arc::new(Gate::default());
        let first = gate.enter(address("192.0.2.1"), 2).ok();
        let second = gate.enter(address("::ffff:192.0.2.1"), 2).ok();
        assert!(first.is_some() && second.is_some());
        assert!(gate.enter(address("192.0.2.1"), 2).is_err());
        assert!(gate.enter(address("192.0.2.2"), 2).is_ok());
        drop(first);
        assert!(gate.enter(address("192.0.2.1"), 2).is_ok());
        let one = gate.enter(address("2001:db8::1"), 2);
        let two = gate.enter(address("2001:db8::2"), 2);
        assert!(one.is_ok() && two.is_ok());
        assert!(gate.enter(address("2001:db8::3"), 2).is_err());
    }

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        for n_max in [0, 1] {
            let gate = Arc::new(Gate::default());
            drop(gate.enter(address("192.0.2.1"), n_max));
            assert_eq!(gate.counts.lock().expect("no panic").len(), 0);
        }
    }
}
