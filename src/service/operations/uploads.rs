//! Looking for uploads: by account, by how they stand, by the name that tables show.

use jid::BareJid;

use crate::core::command::operation::{Named, Outcome, Page, Records, Seen, UploadName, Usage};
use crate::core::command::search::{Search, Wanted};
use crate::core::policy::{Bucket, Uses};
use crate::core::refusal::Refusal;
use crate::core::session::UploadSession;
use crate::core::slot::SlotId;
use crate::core::time::Timestamp;
use crate::service::{Service, broken};
use crate::store::StoreError;

/// Uploads looked at for one page; behind them nobody looks.
const LOOKS_MAX: usize = 20_000;
/// Rows read before others have their turn.
const ROWS_AT_ONCE: usize = 64;

impl Service {
    /// A page of the uploads that fit.
    pub(super) async fn search(&self, search: &Search) -> Result<Outcome, Refusal> {
        let now = self.world.now();
        let found = self.look_through(search, now).await;
        let page = found.map_err(|e| broken("look for uploads", &e))?;
        Ok(Outcome::Uploads(page, now))
    }

    async fn look_through(&self, search: &Search, now: Timestamp) -> Result<Page, StoreError> {
        let sessions = &self.stores.sessions;
        // Where nothing is left out, the page's own are enough.
        let n_looks = match (search.standing, search.silent_for, search.older_than) {
            (None, None, None) => (search.skip + search.n_max).min(LOOKS_MAX),
            _ => LOOKS_MAX,
        };
        let ids = match (&search.owner, search.standing) {
            (Some(owner), _) => sessions.uploads_of(owner.clone(), n_looks + 1).await?,
            (None, Some(Wanted::Active)) => self.transfers.active(),
            (None, Some(Wanted::Complete)) => sessions.newest(LOOKS_MAX + 1).await?,
            (None, Some(Wanted::Open | Wanted::Stuck | Wanted::Ended) | None) => {
                // Whatever is open or has ended is due within its age and a tombstone's.
                let lifetimes = &self.settings().policy.lifetimes;
                let horizon = now.plus(2 * lifetimes.session_age);
                sessions.due(horizon, LOOKS_MAX + 1).await?
            }
        };
        let mut page = Page {
            is_cut: LOOKS_MAX < ids.len(),
            ..Page::default()
        };
        let mut n_skipped = 0;
        for (n_seen, id) in ids.into_iter().take(LOOKS_MAX).enumerate() {
            give_way(n_seen).await;
            let row = match sessions.get(id).await {
                Ok(Some(row)) => row,
                Ok(None) => continue,
                Err(StoreError::Corrupt(_)) => {
                    page.n_unreadable += 1;
                    continue;
                }
                Err(e) => return Err(e),
            };
            let seen = self.seen(row);
            if !search.fits(&seen, now) {
                continue;
            }
            if n_skipped < search.skip {
                n_skipped += 1;
            } else if page.uploads.len() < search.n_max {
                page.uploads.push(seen);
            } else {
                page.has_more = true;
                break;
            }
        }
        page.is_cut &= !page.has_more;
        Ok(page)
    }

    /// The upload of a name. Refuses `UnknownFile`.
    pub(super) async fn find_named(&self, named: &Named) -> Result<Seen, Refusal> {
        let row = match &named.name {
            UploadName::Slot(id) => self.stores.sessions.get(*id).await,
            UploadName::Short(short) => self.find_short(short).await,
        };
        let row = row.map_err(|e| broken("look for an upload", &e))?;
        let is_theirs = |row: &UploadSession| {
            let owner = named.owner.as_ref();
            owner.is_none_or(|owner| *owner == row.owner)
        };
        let row = row.filter(is_theirs).ok_or(Refusal::UnknownFile)?;
        Ok(self.seen(row))
    }

    /// The one upload whose id begins like this.
    async fn find_short(&self, short: &str) -> Result<Option<UploadSession>, StoreError> {
        let Some(first) = SlotId::first_of_short(short) else {
            return Ok(None);
        };
        let before = first.0.checked_sub(1).map(SlotId);
        let rows = self.stores.sessions.page(before, 2).await?;
        let mut rows = rows.into_iter().filter(|row| row.id.short() == short);
        // Two that begin alike: neither is meant for sure.
        Ok(rows.next().filter(|_| rows.next().is_none()))
    }

    /// An upload as it stands now; disturbs nobody.
    pub(in crate::service) fn seen(&self, row: UploadSession) -> Seen {
        let is_active = row.is_open() && self.transfers.is_active(row.id);
        let live = self.with_live_byte(row.clone());
        let durable = self.transfers.durable_now(row.id).unwrap_or(0);
        Seen {
            is_active,
            offset: row.offset().max(durable),
            last_byte_at: live.last_byte_at,
            row,
        }
    }

    /// What an account uses, and may use.
    pub(super) async fn usage(&self, owner: BareJid) -> Result<Usage, Refusal> {
        let usage = self.count_usage(owner).await;
        let (usage, _) = usage.map_err(|e| broken("count what an account uses", &e))?;
        Ok(usage)
    }

    /// A page of all that is known of an account.
    pub(super) async fn records(&self, search: &Search) -> Result<Outcome, Refusal> {
        let found = async {
            let page = self.look_through(search, self.world.now()).await?;
            let usage = match (search.skip, &search.owner) {
                (0, Some(owner)) => Some(self.count_usage(owner.clone()).await?),
                _ => None,
            };
            Ok(Outcome::Records(Box::new(Records { usage, page })))
        };
        found
            .await
            .map_err(|e| broken("gather what is known of an account", &e))
    }

    async fn count_usage(&self, owner: BareJid) -> Result<(Usage, Uses), StoreError> {
        let quota = &self.settings().policy.quota;
        let since: Bucket = quota.since(self.world.now());
        let used = self.stores.sessions.usage(owner.clone(), since).await?;
        let sessions = &self.stores.sessions;
        let ids = sessions.uploads_of(owner.clone(), LOOKS_MAX + 1).await?;
        let is_cut = LOOKS_MAX < ids.len();
        let (mut n_files, mut stored_bytes) = (0, 0);
        for (n_seen, id) in ids.into_iter().take(LOOKS_MAX).enumerate() {
            give_way(n_seen).await;
            let row = match sessions.get(id).await {
                Ok(Some(row)) if row.owner == owner => row,
                Ok(_) | Err(StoreError::Corrupt(_)) => continue,
                Err(e) => return Err(e),
            };
            n_files += u64::from(0 < row.stored_bytes());
            stored_bytes += row.stored_bytes();
        }
        let said = self.orders.said_of(&owner);
        let usage = Usage {
            used_bytes: used.requester.iter().map(|(_, n_bytes)| n_bytes).sum(),
            quota_bytes: quota.of_requester(&owner, said),
            is_said: said.requester.is_some(),
            window: quota.window,
            n_open_sessions: used.n_open_sessions,
            n_files,
            stored_bytes,
            owner,
            is_cut,
        };
        Ok((usage, used.requester))
    }
}

/// Rows are there at once: without this, who looks at many keeps a thread from everybody else.
async fn give_way(n_seen: usize) {
    if n_seen.is_multiple_of(ROWS_AT_ONCE) {
        tokio::task::yield_now().await;
    }
}
