//! Removing uploads because somebody says so.
//!
//! The row decides first, then whoever writes is cut, then the bytes go; a complete file goes
//! before its row, as in the sweep.

use std::sync::Arc;

use jid::BareJid;
use tracing::info;

use crate::core::command::operation::{Named, Outcome, Seen};
use crate::core::refusal::Refusal;
use crate::core::slot::SlotId;
use crate::service::{Service, broken};

/// Uploads of an account removed in one batch.
const BATCH_MAX: usize = 100;

impl Service {
    /// Ends an upload that is not complete. Refuses `UnknownFile`, `SessionComplete` and `Gone`.
    pub(super) async fn abort(self: &Arc<Self>, named: &Named) -> Result<Outcome, Refusal> {
        let seen = self.find_named(named).await?;
        self.give_up(seen.row.id, Box::new(|row| row.abort()))
            .await?;
        Ok(Outcome::Removed(Box::new(seen)))
    }

    /// Removes an upload, complete or not, for good. Refuses `UnknownFile`.
    pub(super) async fn delete(self: &Arc<Self>, named: &Named) -> Result<Outcome, Refusal> {
        let seen = self.find_named(named).await?;
        self.remove_upload(&seen).await?;
        Ok(Outcome::Removed(Box::new(seen)))
    }

    /// Removes everything of an account: uploads, files, and what it used of its quota.
    pub(super) async fn purge(self: &Arc<Self>, owner: &BareJid) -> Result<Outcome, Refusal> {
        let (mut n_removed, mut n_bytes) = (0, 0);
        loop {
            let sessions = &self.stores.sessions;
            let ids = sessions.uploads_of(owner.clone(), BATCH_MAX).await;
            let ids = ids.map_err(|e| broken("list an account's uploads", &e))?;
            let (n_listed, before) = (ids.len(), n_removed);
            for id in ids {
                if let Some(more) = self.purge_one(id, owner).await? {
                    n_bytes += more;
                    n_removed += 1;
                }
            }
            match (n_listed, n_removed - before) {
                (0, _) => break,
                // The same would be listed for ever.
                (_, 0) => return Err(Refusal::Broken),
                _ => {}
            }
        }
        let forgotten = self.stores.sessions.forget_owner(owner.clone()).await;
        forgotten.map_err(|e| broken("forget what an account used", &e))?;
        Ok(Outcome::Purged { n_removed, n_bytes })
    }

    /// Removes one upload and its row; tells how many bytes its file had. Somebody else's stays,
    /// whatever the index says.
    async fn purge_one(
        self: &Arc<Self>,
        id: SlotId,
        owner: &BareJid,
    ) -> Result<Option<u64>, Refusal> {
        let row = self.stores.sessions.get(id).await;
        let row = row.map_err(|e| broken("look an upload up", &e))?;
        let Some(row) = row.filter(|row| row.owner == *owner) else {
            return Ok(None);
        };
        let n_bytes = row.stored_bytes();
        self.remove_upload(&self.seen(row)).await?;
        Ok(Some(n_bytes))
    }

    /// Removes an upload, its file and its row.
    async fn remove_upload(self: &Arc<Self>, seen: &Seen) -> Result<(), Refusal> {
        let id = seen.row.id;
        if seen.row.is_open() {
            match self.give_up(id, Box::new(|row| row.abort())).await {
                // It may have come to its end meanwhile, one way or the other.
                Ok(()) | Err(Refusal::SessionComplete | Refusal::Gone) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        let _holder = self.transfers.take_turn(id).await?;
        let removed = self.remove_file(id).await;
        removed.map_err(|e| broken("remove an upload", &e))?;
        self.hashes.forget(id);
        info!(slot = id.short(), owner = %seen.row.owner, "removed by command");
        Ok(())
    }
}
