//! One user of a part at a time.
//!
//! A write that was handed to the blocking pool goes on when its upload is dropped. Whoever comes
//! next for the same part waits for it, so that no late byte lands after a cut.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::core::slot::PartId;
use crate::store::StoreError;

/// How long to wait for a part; uploads are cut before anybody else asks for theirs.
const CLAIM_WITHIN: Duration = Duration::from_secs(30);

/// The parts in use.
#[derive(Debug, Default)]
pub(super) struct Claims {
    parts: Mutex<HashSet<PartId>>,
    freed: Notify,
}

/// The right to use a part.
#[derive(Debug)]
pub(super) struct Claim {
    claims: Arc<Claims>,
    part: PartId,
}

impl Claims {
    /// Waits until nobody uses `part`.
    pub(super) async fn claim(
        self: &Arc<Self>,
        part: PartId,
        doing: &'static str,
    ) -> Result<Claim, StoreError> {
        if let Some(claim) = self.try_claim(part) {
            return Ok(claim);
        }
        let wait = async {
            loop {
                let freed = self.freed.notified();
                if let Some(claim) = self.try_claim(part) {
                    return claim;
                }
                freed.await;
            }
        };
        tokio::time::timeout(CLAIM_WITHIN, wait)
            .await
            .map_err(|elapsed| StoreError::Unavailable {
                doing,
                source: Arc::new(elapsed),
            })
    }

    fn try_claim(self: &Arc<Self>, part: PartId) -> Option<Claim> {
        let is_free = self.lock().insert(part);
        is_free.then(|| Claim {
            claims: self.clone(),
            part,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<PartId>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.lock().remove(&self.part);
        self.claims.freed.notify_waiters();
    }
}
