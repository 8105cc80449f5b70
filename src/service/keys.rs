//! The signing keys in use, and when others take their place.

use std::sync::PoisonError;

use tokio::sync::MutexGuard;

use crate::core::event::Event;
use crate::core::token::Keys;
use crate::service::Service;

impl Service {
    /// The keys in use.
    pub fn keys(&self) -> Keys {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }

    /// Held by who changes the file of keys, until the new ones are in use: of two at once the
    /// older would win.
    pub async fn turn_for_keys(&self) -> MutexGuard<'_, ()> {
        self.keys_turn.lock().await
    }

    /// Puts other keys into use; what the old ones alone sealed is refused from now on.
    pub fn set_keys(&self, keys: Keys) {
        let n_keys = keys.list().len();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        self.tell(Event::KeysChanged { n_keys });
    }

    /// What `keys` become when their time has come: a new one signs, the oldest are left out.
    pub fn next_keys(&self, keys: &Keys) -> Option<Keys> {
        let (settings, now) = (self.settings(), self.world.now());
        let kept = keys.retire(settings.keep_old_for, now);
        let is_due = |every| kept.is_rotation_due(every, now);
        let next = if settings.rotate_every.is_some_and(is_due) {
            kept.rotate(self.random_secret(), now)
        } else {
            kept
        };
        (next != *keys).then_some(next)
    }

    /// Random bytes of the operating system that nobody else knows.
    pub fn random_secret(&self) -> [u8; 32] {
        let halves = [self.world.random(), self.world.random()];
        let mut secret = [0; 32];
        secret[..16].copy_from_slice(&halves[0].to_be_bytes());
        secret[16..].copy_from_slice(&halves[1].to_be_bytes());
        secret
    }
}
