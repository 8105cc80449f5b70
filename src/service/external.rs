//! What comes with another system's token: a row is made for it by its first PUT, and its DELETE.

use std::sync::Arc;

use jid::Jid;
use tracing::{debug, info};

use crate::core::event::{Event, Removal};
use crate::core::external::{Grant, UsedPath};
use crate::core::policy::{self, Facts, Usage};
use crate::core::refusal::Refusal;
use crate::core::session::{State, UploadSession};
use crate::core::slot::SlotId;
use crate::core::time::Timestamp;
use crate::service::receive::check_lengths;
use crate::service::sweep::Deletions;
use crate::service::upload::{ExternalPut, Upload};
use crate::service::{Service, broken, full, refusal_of};

impl Service {
    /// The row that a PUT with another system's token may write to.
    ///
    /// A path gets one with its first PUT, and never again. Refuses as `System::open` does,
    /// `AlreadyComplete` for a path that was filled, unless this may be a lost 201, and `Gone` for
    /// one that was used and has no file; what is wrong with its length and type; and a first PUT
    /// as slots are refused.
    pub(super) async fn admit_external(
        &self,
        upload: &Upload,
        external: &ExternalPut,
    ) -> Result<UploadSession, Refusal> {
        let ExternalPut { system, put } = external;
        let now = self.world.now();
        let grant = system.open(put, now)?;
        if let Some(row) = self.row_of_path(grant.id).await? {
            let row = self.with_live_byte(row);
            row.clone().begin(&row.put_claims(), now)?;
            let is_complete = matches!(row.state, State::Complete { .. });
            if is_complete && row.file.size_bytes != grant.size_bytes {
                return Err(Refusal::AlreadyComplete);
            }
            check_lengths(upload, row.file.size_bytes)?;
            self.check_content_type(upload, &row.file.content_type)?;
            return Ok(row);
        }
        check_lengths(upload, grant.size_bytes)?;
        if grant.names_type {
            self.check_content_type(upload, &grant.content_type)?;
        }
        let (owner, size_bytes) = (grant.owner.clone(), grant.size_bytes);
        let kept = self.keep_external(grant, now).await;
        match &kept {
            Ok(row) => {
                let slot = row.id.short();
                info!(%owner, slot, size_bytes, "upload of another system admitted");
                self.tell(Event::SlotIssued { row });
            }
            Err(refusal) => {
                debug!(%owner, ?refusal, "upload of another system refused");
                self.tell(Event::SlotRefused {
                    account: &owner,
                    size_bytes,
                    refusal,
                });
            }
        }
        kept
    }

    async fn row_of_path(&self, id: SlotId) -> Result<Option<UploadSession>, Refusal> {
        let row = self.stores.sessions.get(id).await;
        row.map_err(|e| broken("look a path up", &e))
    }

    /// Keeps the row of a path that has none: it is durable before this returns.
    async fn keep_external(&self, grant: Grant, now: Timestamp) -> Result<UploadSession, Refusal> {
        let settings = self.settings.load_full();
        let owner = grant.owner.clone();
        self.check_account(&Jid::from(owner.clone()))?;
        policy::screen_external(&settings.policy, &grant)?;
        self.check_taking(now)?;
        // Where nobody is named, all would be one.
        if owner.node().is_some() {
            self.take_rate(&settings, &owner, grant.size_bytes, now)?;
        }
        let free = self.stores.files.room().await;
        let free = free.map_err(|e| full(broken("ask for free space", &e), now))?;
        let since = settings.policy.quota.since(now);
        let said = self.orders.said_of(&owner);
        let used = UsedPath {
            id: grant.id,
            forget_at: grant.forget_at,
        };
        let decide = Box::new(move |usage: &Usage| {
            let facts = Facts { usage, free, said };
            policy::admit_external(&settings.policy, &grant, facts, now)
        });
        let sessions = &self.stores.sessions;
        let row = sessions.admit_path(used, owner, since, decide).await;
        row.map_err(|failure| full(refusal_of("admit a path", failure), now))
    }

    /// Removes what is at a path: the system that let it in said so. Refuses `UnknownFile`.
    pub async fn delete_external(self: &Arc<Self>, id: SlotId) -> Result<(), Refusal> {
        let row = self.row_of_path(id).await?;
        let row = row.filter(|row| !row.is_tombstone());
        let seen = self.seen(row.ok_or(Refusal::UnknownFile)?);
        self.remove_upload(&seen, Removal::External).await?;
        if let Some(deletions) = self.deletions.get() {
            deletions.tell(&seen.row, self.world.now()).await;
        }
        Ok(())
    }

    /// Refuses `NotAllowed` for an account whose name stands for another one's files.
    pub fn check_name(&self, requester: &Jid) -> Result<(), Refusal> {
        let settings = self.settings.load();
        if settings.external.is_empty() {
            return Ok(());
        }
        let account = requester.to_bare();
        let mut systems = settings.external.iter();
        match systems.any(|system| system.stands_for_another(&account)) {
            true => Err(Refusal::NotAllowed),
            false => Ok(()),
        }
    }

    /// Where deletions that come over HTTP are told; once, at the start.
    pub fn report_to(&self, deletions: Deletions) {
        let _ = self.deletions.set(deletions);
    }
}
