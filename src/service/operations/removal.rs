//! Removing uploads because somebody says so.
//!
//! The row decides first, then whoever writes is cut, then the bytes go; a complete file goes
//! before its row, as in the sweep.

use std::collections::HashSet;
use std::sync::Arc;

use jid::BareJid;

use crate::core::command::operation::{Named, Outcome, Seen};
use crate::core::event::{Canceller, Event, Removal};
use crate::core::refusal::Refusal;
use crate::core::session::UploadSession;
use crate::core::slot::SlotId;
use crate::core::time::Timestamp;
use crate::service::sweep::Deletions;
use crate::service::{Service, broken};
use crate::store::Change;

/// Uploads of an account removed in one batch.
const BATCH_MAX: usize = 100;

impl Service {
    /// Ends an upload that is not complete. Refuses `UnknownFile`, `SessionComplete` and `Gone`.
    pub(super) async fn abort(
        self: &Arc<Self>,
        named: &Named,
        deletions: &Deletions,
    ) -> Result<Outcome, Refusal> {
        let seen = self.find_named(named).await?;
        let abort: Change = Box::new(|row| row.abort());
        self.give_up(seen.row.id, abort, Canceller::Command).await?;
        Ok(self.removed(seen, deletions).await)
    }

    /// Removes an upload, complete or not, for good. Refuses `UnknownFile`.
    pub(super) async fn delete(
        self: &Arc<Self>,
        named: &Named,
        deletions: &Deletions,
    ) -> Result<Outcome, Refusal> {
        let seen = self.find_named(named).await?;
        self.remove_upload(&seen, Removal::Command).await?;
        Ok(self.removed(seen, deletions).await)
    }

    async fn removed(&self, seen: Seen, deletions: &Deletions) -> Outcome {
        deletions.tell(&seen.row, self.world.now()).await;
        Outcome::Removed(Box::new(seen))
    }

    /// Removes everything of an account that is there now: uploads, files, and what it used of its
    /// quota. What will not go is counted, and in the way of nothing else.
    pub(super) async fn purge(
        self: &Arc<Self>,
        owner: &BareJid,
        deletions: &Deletions,
    ) -> Result<Outcome, Refusal> {
        let begun_at = self.world.now();
        let (mut n_removed, mut n_bytes, mut n_failed) = (0, 0, 0);
        let mut stuck = HashSet::new();
        loop {
            let sessions = &self.stores.sessions;
            let ids = sessions
                .uploads_of(owner.clone(), BATCH_MAX + stuck.len())
                .await;
            let mut ids = ids.map_err(|e| broken("list an account's uploads", &e))?;
            ids.retain(|id| !stuck.contains(id));
            if ids.is_empty() {
                break;
            }
            for id in ids {
                match self.purge_one(id, owner, begun_at).await {
                    Ok(Some(row)) => {
                        n_bytes += row.stored_bytes();
                        n_removed += 1;
                        deletions.tell(&row, begun_at).await;
                    }
                    Ok(None) => drop(stuck.insert(id)),
                    Err(_) => {
                        n_failed += 1;
                        stuck.insert(id);
                    }
                }
            }
        }
        let forgotten = self.stores.sessions.forget_owner(owner.clone()).await;
        forgotten.map_err(|e| broken("forget what an account used", &e))?;
        self.set_exception(owner.clone(), None).await?;
        Ok(Outcome::Purged {
            n_removed,
            n_bytes,
            n_failed,
        })
    }

    /// Removes one upload and its row. Somebody else's stays, whatever the index says; and one that
    /// is newer than `begun_at`: an account may ask for slots faster than they go.
    async fn purge_one(
        self: &Arc<Self>,
        id: SlotId,
        owner: &BareJid,
        begun_at: Timestamp,
    ) -> Result<Option<UploadSession>, Refusal> {
        let row = self.stores.sessions.get(id).await;
        let row = row.map_err(|e| broken("look an upload up", &e))?;
        let is_theirs = |row: &UploadSession| row.owner == *owner && row.created_at <= begun_at;
        let Some(row) = row.filter(is_theirs) else {
            return Ok(None);
        };
        let seen = self.seen(row.clone());
        self.remove_upload(&seen, Removal::Purge).await?;
        Ok(Some(row))
    }

    /// Removes an upload, its file and its row.
    pub(in crate::service) async fn remove_upload(
        self: &Arc<Self>,
        seen: &Seen,
        reason: Removal,
    ) -> Result<(), Refusal> {
        let id = seen.row.id;
        if seen.row.is_open() {
            let abort: Change = Box::new(|row| row.abort());
            match self.give_up(id, abort, Canceller::Command).await {
                // It may have come to its end meanwhile, one way or the other.
                Ok(()) | Err(Refusal::SessionComplete | Refusal::Gone) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        let _holder = self.transfers.take_turn(id).await?;
        let removed = self.remove_file(id).await;
        removed.map_err(|e| broken("remove an upload", &e))?;
        self.hashes.forget(id);
        let row = &seen.row;
        self.tell(Event::Removed { row, reason });
        Ok(())
    }
}
