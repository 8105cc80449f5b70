//! How things stand, gathered for the status page.
//!
//! Costs the same among ten rows and a million: sums that are kept anyway, and `ROWS_MAX` rows.

use std::collections::HashSet;
use std::time::Duration;

use jid::BareJid;
use tokio::time::timeout;

use crate::core::status::{Going, Health, Status, Storage, Upload, Uploads};
use crate::core::time::Timestamp;
use crate::service::{Service, broken};
use crate::store::StoreError;

/// Uploads that are shown.
const SHOWN_MAX: usize = 30;
/// Rows that are read for them.
const ROWS_MAX: usize = 200;
/// An account that nobody has, to ask for what everybody used.
const NOBODY: &str = "nobody.invalid";
/// How long a store has to answer; a page with less on it is better than none.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What a store says in time; its trouble is logged.
async fn said<T>(
    doing: &'static str,
    asking: impl Future<Output = Result<T, StoreError>>,
) -> Option<T> {
    let said = timeout(ANSWER_WITHIN, asking).await.ok()?;
    said.map_err(|e| broken(doing, &e)).ok()
}

impl Service {
    /// How things stand, given how the parts are; stores that do not answer are not asked again.
    pub async fn status(&self, health: Vec<Health>, is_answering: bool) -> Status {
        let now = self.world.now();
        let (mut uploads, mut storage) = (None, None);
        if is_answering {
            uploads = said("look at uploads", self.uploads_now(now)).await;
            storage = said("look at sums", self.storage(now)).await;
        }
        let history = self.recent.history();
        Status {
            now,
            uptime: self.uptime(),
            is_draining: self.is_draining(),
            uploads,
            hour: history.hour(now),
            day: history.day(now),
            storage,
            health,
            acts: history.acts().cloned().collect(),
        }
    }

    /// Uploads that take bytes in, and behind them those that were broken off.
    async fn uploads_now(&self, now: Timestamp) -> Result<Uploads, StoreError> {
        let sessions = &self.stores.sessions;
        let active = self.transfers.active();
        let n_active = active.len();
        // Whatever may go on is due within an upload's age.
        let horizon = now.plus(self.settings().policy.lifetimes.session_age);
        let due = sessions.due(horizon, ROWS_MAX).await?;
        let is_cut = due.len() == ROWS_MAX;
        let mut shown = Vec::new();
        let mut looked_at = HashSet::new();
        for id in active.into_iter().chain(due).take(ROWS_MAX) {
            if !looked_at.insert(id) {
                continue;
            }
            let row = match sessions.get(id).await {
                Ok(row) => row,
                // `slotd audit` finds it; the page shows the others.
                Err(StoreError::Corrupt(_)) => None,
                Err(e) => return Err(e),
            };
            let seen = row.map(|row| self.seen(row));
            let going = seen.filter(|seen| Going::is_going(seen, now));
            shown.extend(going.map(|seen| Upload::new(seen, self.transfers.received_now(id))));
        }
        let has_more = SHOWN_MAX < shown.len() || ROWS_MAX < n_active || is_cut;
        shown.sort_by_key(|Upload { seen, .. }| (!seen.is_active, seen.row.created_at));
        shown.truncate(SHOWN_MAX);
        Ok(Uploads {
            n_active,
            shown,
            has_more,
        })
    }

    async fn storage(&self, now: Timestamp) -> Result<Storage, StoreError> {
        let settings = self.settings();
        let policy = &settings.policy;
        let totals = self.stores.sessions.totals().await?;
        let nobody = BareJid::new(NOBODY).expect("a valid JID");
        let since = policy.quota.since(now);
        let used = self.stores.sessions.usage(nobody, since).await?;
        let used = used.total.iter().map(|(_, n_bytes)| *n_bytes);
        Ok(Storage {
            n_files: totals.n_files,
            stored_bytes: totals.stored_bytes,
            stored_bytes_max: settings.total_bytes_max,
            free: self.stores.files.room().await?,
            reserve: policy.reserve,
            used_bytes: used.fold(0, u64::saturating_add),
            quota_bytes: policy.quota.total,
            window: policy.quota.window,
        })
    }
}
