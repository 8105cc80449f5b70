//! Rows in a map; sums are counted each time they are asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};

use futures_util::future::BoxFuture;
use jid::BareJid;

use crate::core::bans::{Ban, Subject};
use crate::core::external::UsedPath;
use crate::core::policy::{Bucket, OPEN_SESSIONS_MAX, Usage, Uses};
use crate::core::refusal::Refusal;
use crate::core::session::{State, UploadSession};
use crate::core::slot::{SessionId, SlotId};
use crate::core::time::Timestamp;
use crate::store::memory::{STORE_ID, done, lock};
use crate::store::{
    Admit, BanEntry, Change, Failure, Mend, Recount, SessionStore, StoreError, Totals, changed,
    issued_twice, keeps_its_keys, named_twice,
};

/// Rows in a map.
pub struct MemorySessions {
    store_id: u128,
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct Rows {
    by_id: BTreeMap<SlotId, UploadSession>,
    /// Complete rows that were removed: their bytes stay used.
    used: Vec<Use>,
    /// The first hour that still counts.
    since: Option<Bucket>,
    /// What operators said.
    orders: BTreeMap<String, String>,
    bans: HashMap<Subject, Ban>,
    /// Other systems' paths that were used, and when they are forgotten.
    paths: HashMap<SlotId, Option<Timestamp>>,
}

/// One row's share of the quota.
struct Use {
    owner: BareJid,
    bucket: Bucket,
    n_bytes: u64,
}

impl Use {
    fn of(row: &UploadSession) -> Self {
        Self {
            owner: row.owner.clone(),
            bucket: Bucket::of(row.created_at),
            n_bytes: row.quota_bytes(),
        }
    }
}

impl Default for MemorySessions {
    fn default() -> Self {
        Self::new(STORE_ID)
    }
}

impl MemorySessions {
    /// No rows, bound to the files of `store_id`.
    pub fn new(store_id: u128) -> Self {
        Self {
            store_id,
            rows: Mutex::default(),
        }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        lock(&self.rows)
    }
}

impl Rows {
    /// Sums what rows of `who` used since `since`, by the hour.
    fn uses(&self, since: Bucket, who: impl Fn(&BareJid) -> bool) -> Uses {
        let since = self.since.map_or(since, |kept| since.max(kept));
        let mut sums = BTreeMap::new();
        let rows = self.by_id.values().map(Use::of);
        let used = self.used.iter().map(|used| Use {
            owner: used.owner.clone(),
            ..*used
        });
        for each in rows.chain(used) {
            if since <= each.bucket && 0 < each.n_bytes && who(&each.owner) {
                *sums.entry(each.bucket).or_insert(0u64) += each.n_bytes;
            }
        }
        sums.into_iter().collect()
    }

    fn usage(&self, owner: &BareJid, since: Bucket) -> Usage {
        Usage {
            requester: self.uses(since, |other| other == owner),
            domain: self.uses(since, |other| other.domain() == owner.domain()),
            total: self.uses(since, |_| true),
            n_open_sessions: self
                .by_id
                .values()
                .filter(|row| row.owner == *owner && row.is_open_session())
                .take(OPEN_SESSIONS_MAX)
                .count(),
        }
    }

    fn admit(
        &mut self,
        owner: &BareJid,
        since: Bucket,
        mut decide: Admit,
    ) -> Result<UploadSession, Failure> {
        let row = decide(&self.usage(owner, since))?;
        self.insert(row)
    }

    fn admit_path(
        &mut self,
        path: UsedPath,
        owner: &BareJid,
        since: Bucket,
        mut decide: Admit,
    ) -> Result<UploadSession, Failure> {
        if let Some(row) = self.by_id.get(&path.id) {
            return Ok(row.clone());
        }
        if self.paths.contains_key(&path.id) {
            return Err(Refusal::Gone.into());
        }
        let row = decide(&self.usage(owner, since))?;
        if row.id != path.id {
            return Err(changed(path.id).into());
        }
        let row = self.insert(row)?;
        self.paths.insert(path.id, path.forget_at);
        Ok(row)
    }

    fn insert(&mut self, row: UploadSession) -> Result<UploadSession, Failure> {
        if self.by_id.contains_key(&row.id) {
            return Err(issued_twice(row.id).into());
        }
        self.check_name(&row)?;
        self.by_id.insert(row.id, row.clone());
        Ok(row)
    }

    /// Refuses a `SessionId` that another row has.
    fn check_name(&self, row: &UploadSession) -> Result<(), StoreError> {
        let Some(session) = row.session_id() else {
            return Ok(());
        };
        let mut rows = self.by_id.values();
        match rows.any(|other| other.id != row.id && other.session_id() == Some(session)) {
            true => Err(named_twice(row.id)),
            false => Ok(()),
        }
    }

    fn update(&mut self, id: SlotId, mut change: Change) -> Result<UploadSession, Failure> {
        let old = self.by_id.get(&id).ok_or(Refusal::UnknownFile)?.clone();
        let row = change(old.clone())?;
        if !keeps_its_keys(&old, &row) {
            return Err(changed(id).into());
        }
        self.check_name(&row)?;
        self.by_id.insert(id, row.clone());
        Ok(row)
    }

    fn remove(&mut self, id: SlotId) {
        let Some(row) = self.by_id.remove(&id) else {
            return;
        };
        if matches!(row.state, State::Complete { .. }) {
            self.used.push(Use::of(&row));
        }
    }

    /// Ids of the rows that have a time, in order of it.
    fn by_time(&self, time: impl Fn(&UploadSession) -> Option<Timestamp>) -> Vec<SlotId> {
        let rows = self.by_id.values();
        let mut ids: Vec<_> = rows.filter_map(|row| Some((time(row)?, row.id))).collect();
        ids.sort();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    fn totals(&self) -> Totals {
        let files = self.by_id.values().filter(|row| is_complete(row));
        Totals {
            n_rows: self.by_id.len() as u64,
            n_files: files.clone().count() as u64,
            stored_bytes: files.map(UploadSession::stored_bytes).sum(),
        }
    }
}

fn complete_at(row: &UploadSession) -> Option<Timestamp> {
    match row.state {
        State::Complete { at, .. } => Some(at),
        _ => None,
    }
}

fn is_complete(row: &UploadSession) -> bool {
    matches!(row.state, State::Complete { .. })
}

impl SessionStore for MemorySessions {
    fn admit(
        &self,
        owner: BareJid,
        since: Bucket,
        decide: Admit,
    ) -> BoxFuture<'_, Result<UploadSession, Failure>> {
        done(self.rows().admit(&owner, since, decide))
    }

    fn admit_path(
        &self,
        path: UsedPath,
        owner: BareJid,
        since: Bucket,
        decide: Admit,
    ) -> BoxFuture<'_, Result<UploadSession, Failure>> {
        done(self.rows().admit_path(path, &owner, since, decide))
    }

    fn forget_paths(&self, now: Timestamp) -> BoxFuture<'_, Result<(), StoreError>> {
        let is_kept = |forget_at: &mut Option<Timestamp>| forget_at.is_none_or(|at| now < at);
        self.rows().paths.retain(|_, forget_at| is_kept(forget_at));
        done(Ok(()))
    }

    fn update(&self, id: SlotId, change: Change) -> BoxFuture<'_, Result<UploadSession, Failure>> {
        done(self.rows().update(id, change))
    }

    fn get(&self, id: SlotId) -> BoxFuture<'_, Result<Option<UploadSession>, StoreError>> {
        done(Ok(self.rows().by_id.get(&id).cloned()))
    }

    fn find_session(&self, id: SessionId) -> BoxFuture<'_, Result<Option<SlotId>, StoreError>> {
        let rows = self.rows();
        let found = rows.by_id.values().find(|row| row.session_id() == Some(id));
        done(Ok(found.map(|row| row.id)))
    }

    fn owned(
        &self,
        owner: BareJid,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<UploadSession>, StoreError>> {
        let rows = self.rows();
        let is_owned = |row: &&UploadSession| row.owner == owner && row.session_id().is_some();
        let mut owned: Vec<_> = rows.by_id.values().filter(is_owned).cloned().collect();
        owned.sort_by_key(|row| std::cmp::Reverse((row.created_at, row.id)));
        owned.truncate(n_max);
        done(Ok(owned))
    }

    fn due(&self, now: Timestamp, n_max: usize) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>> {
        let due_at = |row: &UploadSession| row.due_at().filter(|due_at| *due_at <= now);
        let mut ids = self.rows().by_time(due_at);
        ids.truncate(n_max);
        done(Ok(ids))
    }

    fn oldest(&self, n_max: usize) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>> {
        let mut ids = self.rows().by_time(complete_at);
        ids.truncate(n_max);
        done(Ok(ids))
    }

    fn uploads_of(
        &self,
        owner: BareJid,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>> {
        let created_at = |row: &UploadSession| (row.owner == owner).then_some(row.created_at);
        let newest = self.rows().by_time(created_at).into_iter().rev();
        done(Ok(newest.take(n_max).collect()))
    }

    fn newest(&self, n_max: usize) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>> {
        let newest = self.rows().by_time(complete_at).into_iter().rev();
        done(Ok(newest.take(n_max).collect()))
    }

    fn usage(&self, owner: BareJid, since: Bucket) -> BoxFuture<'_, Result<Usage, StoreError>> {
        done(Ok(self.rows().usage(&owner, since)))
    }

    fn forget_owner(&self, owner: BareJid) -> BoxFuture<'_, Result<(), StoreError>> {
        self.rows().used.retain(|used| used.owner != owner);
        done(Ok(()))
    }

    fn page(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<UploadSession>, StoreError>> {
        let rows = self.rows();
        let ids = rows.by_id.values().filter(|row| after < Some(row.id));
        done(Ok(ids.take(n_max).cloned().collect()))
    }

    fn remove(&self, id: SlotId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.rows().remove(id);
        done(Ok(()))
    }

    fn totals(&self) -> BoxFuture<'_, Result<Totals, StoreError>> {
        done(Ok(self.rows().totals()))
    }

    fn recount(&self, _mend: Mend) -> BoxFuture<'_, Result<Recount, StoreError>> {
        done(Ok(Recount::default()))
    }

    fn forget_uses(&self, before: Bucket) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut rows = self.rows();
        rows.since = rows.since.max(Some(before));
        rows.used.retain(|used| before <= used.bucket);
        done(Ok(()))
    }

    fn orders(&self) -> BoxFuture<'_, Result<Vec<(String, String)>, StoreError>> {
        done(Ok(self.rows().orders.clone().into_iter().collect()))
    }

    fn set_order(
        &self,
        name: String,
        value: Option<String>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let orders = &mut self.rows().orders;
        match value {
            Some(value) => drop(orders.insert(name, value)),
            None => drop(orders.remove(&name)),
        }
        done(Ok(()))
    }

    fn bans(&self) -> BoxFuture<'_, Result<Vec<Ban>, StoreError>> {
        done(Ok(self.rows().bans.values().cloned().collect()))
    }

    fn keep_bans(&self, changes: Vec<BanEntry>) -> BoxFuture<'_, Result<(), StoreError>> {
        let bans = &mut self.rows().bans;
        for (subject, ban) in changes {
            match ban {
                Some(ban) => drop(bans.insert(subject, ban)),
                None => drop(bans.remove(&subject)),
            }
        }
        done(Ok(()))
    }

    fn store_id(&self) -> BoxFuture<'_, Result<u128, StoreError>> {
        done(Ok(self.store_id))
    }
}
