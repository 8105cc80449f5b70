//! Stores that break when told to: one call that fails, or a process that dies.
//!
//! A call that fails does nothing, as `StoreError::Unavailable` promises. A death comes before or
//! after the effect of a call, since a machine that stops asks nobody; from then on nothing gets
//! through, so whatever still runs above is as good as gone.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use jid::BareJid;
use slotd::core::bans::Ban;
use slotd::core::external::UsedPath;
use slotd::core::policy::{Bucket, Room, Usage};
use slotd::core::session::UploadSession;
use slotd::core::slot::{PartId, SessionId, SlotId};
use slotd::core::time::Timestamp;
use slotd::store::{
    Admit, BanEntry, Body, BodyError, Change, Content, Failure, FileStore, Mend, Progress, Recount,
    SessionStore, StoreError, Stored, Stores, Totals,
};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The call fails, the next one works.
    Fails,
    /// Nothing works from this call on.
    DiesBefore,
    /// This call works unseen, and nothing after it.
    DiesAfter,
}

/// When it goes wrong: shared by both stores, which count their calls together.
#[derive(Default)]
pub struct Outage {
    armed: Mutex<Option<(u64, Trouble)>>,
    is_dead: AtomicBool,
    n_failed: AtomicU64,
    /// Decides how long calls take.
    chance: AtomicU64,
}

impl Outage {
    /// No trouble; calls take a time that `seed` decides.
    pub fn new(seed: u64) -> Arc<Self> {
        let outage = Self::default();
        outage.chance.store(seed, Ordering::SeqCst);
        Arc::new(outage)
    }

    /// Lets trouble come at the `n_calls`th call from now, counted from 0.
    pub fn arm(&self, n_calls: u64, trouble: Trouble) {
        *self.armed.lock().expect("not poisoned") = Some((n_calls, trouble));
    }

    /// Lets no trouble come after all.
    pub fn disarm(&self) {
        *self.armed.lock().expect("not poisoned") = None;
    }

    /// Whether trouble is still to come.
    pub fn is_armed(&self) -> bool {
        self.armed.lock().expect("not poisoned").is_some()
    }

    /// Whether nothing gets through any more.
    pub fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::SeqCst)
    }

    /// Ends everything now.
    pub fn die(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
    }

    /// How many calls failed.
    pub fn n_failed(&self) -> u64 {
        self.n_failed.load(Ordering::SeqCst)
    }

    /// Lets others go first, up to three times.
    async fn take_time(&self) {
        // Knuth's MMIX constants; the upper bits are the random ones.
        let step = |n: u64| Some(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        let before = self
            .chance
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, step);
        for _ in 0..before.unwrap_or(0) >> 62 {
            tokio::task::yield_now().await;
        }
    }

    /// Counts a call: what comes of it.
    fn next(&self) -> Option<Trouble> {
        let mut armed = self.armed.lock().expect("not poisoned");
        match *armed {
            Some((0, trouble)) => {
                *armed = None;
                Some(trouble)
            }
            Some((n_calls, trouble)) => {
                *armed = Some((n_calls - 1, trouble));
                None
            }
            None => None,
        }
    }

    fn broken(&self) -> StoreError {
        self.n_failed.fetch_add(1, Ordering::SeqCst);
        StoreError::Unavailable {
            doing: "act in a simulation",
            source: Arc::new(std::io::Error::other("an outage")),
        }
    }

    async fn call<T, E: From<StoreError>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.take_time().await;
        if self.is_dead() {
            return Err(self.broken().into());
        }
        match self.next() {
            None => {}
            Some(Trouble::Fails) => return Err(self.broken().into()),
            Some(Trouble::DiesBefore) => {
                self.die();
                return Err(self.broken().into());
            }
            Some(Trouble::DiesAfter) => {
                let _ = call.await;
                self.die();
                return Err(self.broken().into());
            }
        }
        let result = call.await;
        self.take_time().await;
        // Whoever died while waiting never heard the answer.
        if self.is_dead() {
            return Err(self.broken().into());
        }
        result
    }
}

/// `stores`, as somebody sees them who has `outage`.
pub fn over(stores: &Stores, outage: &Arc<Outage>) -> Stores {
    Stores {
        sessions: Arc::new(Sessions(stores.sessions.clone(), outage.clone())),
        files: Arc::new(Files(stores.files.clone(), outage.clone())),
    }
}

struct Sessions(Arc<dyn SessionStore>, Arc<Outage>);

impl SessionStore for Sessions {
    fn admit(
        &self,
        owner: BareJid,
        since: Bucket,
        decide: Admit,
    ) -> BoxFuture<'_, Result<UploadSession, Failure>> {
        Box::pin(async move {
            self.1
                .call(async { self.0.admit(owner, since, decide).await })
                .await
        })
    }

    fn admit_path(
        &self,
        path: UsedPath,
        owner: BareJid,
        since: Bucket,
        decide: Admit,
    ) -> BoxFuture<'_, Result<UploadSession, Failure>> {
        Box::pin(async move {
            self.1
                .call(async { self.0.admit_path(path, owner, since, decide).await })
                .await
        })
    }

    fn forget_paths(&self, now: Timestamp) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.forget_paths(now).await }).await })
    }

    fn update(&self, id: SlotId, change: Change) -> BoxFuture<'_, Result<UploadSession, Failure>> {
        Box::pin(async move { self.1.call(async { self.0.update(id, change).await }).await })
    }

    fn get(&self, id: SlotId) -> BoxFuture<'_, Result<Option<UploadSession>, StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.get(id).await }).await })
    }

    fn find_session(&self, id: SessionId) -> BoxFuture<'_, Result<Option<SlotId>, StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.find_session(id).await }).await })
    }

    fn owned(
        &self,
        owner: BareJid,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<UploadSession>, StoreError>> {
        Box::pin(async move {
            self.1
                .call(async { self.0.owned(owner, n_max).await })
                .await
        })
    }

    fn uploads_of(
        &self,
        owner: BareJid,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>> {
        Box::pin(async move {
            self.1
                .call(async { self.0.uploads_of(owner, n_max).await })
                .await
        })
    }

    fn newest(&self, n_max: usize) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.newest(n_max).await }).await })
    }

    fn usage(&self, owner: BareJid, since: Bucket) -> BoxFuture<'_, Result<Usage, StoreError>> {
        Box::pin(async move {
            self.1
                .call(async { self.0.usage(owner, since).await })
                .await
        })
    }

    fn forget_owner(&self, owner: BareJid) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.1
                .call(async { self.0.forget_owner(owner).await })
                .await
        })
    }

    fn due(&self, now: Timestamp, n_max: usize) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.due(now, n_max).await }).await })
    }

    fn oldest(&self, n_max: usize) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.oldest(n_max).await }).await })
    }

    fn page(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<UploadSession>, StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.page(after, n_max).await }).await })
    }

    fn remove(&self, id: SlotId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.remove(id).await }).await })
    }

    fn totals(&self) -> BoxFuture<'_, Result<Totals, StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.totals().await }).await })
    }

    fn recount(&self, mend: Mend) -> BoxFuture<'_, Result<Recount, StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.recount(mend).await }).await })
    }

    fn forget_uses(&self, before: Bucket) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.1
                .call(async { self.0.forget_uses(before).await })
                .await
        })
    }

    fn orders(&self) -> BoxFuture<'_, Result<Vec<(String, String)>, StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.orders().await }).await })
    }

    fn set_order(
        &self,
        name: String,
        value: Option<String>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.1
                .call(async { self.0.set_order(name, value).await })
                .await
        })
    }

    fn bans(&self) -> BoxFuture<'_, Result<Vec<Ban>, StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.bans().await }).await })
    }

    fn keep_bans(&self, changes: Vec<BanEntry>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.keep_bans(changes).await }).await })
    }

    fn store_id(&self) -> BoxFuture<'_, Result<u128, StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.store_id().await }).await })
    }
}

/// A body that ends where trouble comes; `is_over` says whether it came.
fn until_trouble(body: Body, outage: Arc<Outage>, is_over: Arc<AtomicBool>) -> Body {
    let pieces = body.map(move |piece| {
        if outage.is_dead() {
            return Err(BodyError);
        }
        match outage.next() {
            None => piece,
            Some(trouble) => {
                if trouble != Trouble::Fails {
                    outage.die();
                }
                is_over.store(true, Ordering::SeqCst);
                Err(BodyError)
            }
        }
    });
    pieces.boxed()
}

struct Files(Arc<dyn FileStore>, Arc<Outage>);

impl FileStore for Files {
    fn append(
        &self,
        part: PartId,
        from: u64,
        size_bytes: u64,
        body: Body,
        progress: Progress,
    ) -> BoxFuture<'_, Result<u64, Failure>> {
        Box::pin(async move {
            // Trouble at a piece of the body is trouble in the middle of the append.
            let is_over = Arc::new(AtomicBool::new(false));
            let body = until_trouble(body, self.1.clone(), is_over.clone());
            let append = async { self.0.append(part, from, size_bytes, body, progress).await };
            let appended = self.1.call(append).await;
            if is_over.load(Ordering::SeqCst) {
                return Err(self.1.broken().into());
            }
            appended
        })
    }

    fn settle(&self, part: PartId) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.settle(part).await }).await })
    }

    fn commit(&self, part: PartId, size_bytes: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.1
                .call(async { self.0.commit(part, size_bytes).await })
                .await
        })
    }

    fn keep(&self, id: SlotId, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.keep(id, bytes).await }).await })
    }

    fn open(&self, id: SlotId, bytes: Range<u64>) -> BoxFuture<'_, Result<Content, StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.open(id, bytes).await }).await })
    }

    fn open_part(&self, part: PartId, n_bytes: u64) -> BoxFuture<'_, Result<Body, StoreError>> {
        Box::pin(async move {
            let open = async { self.0.open_part(part, n_bytes).await };
            let body = self.1.call(open).await?;
            Ok(until_trouble(body, self.1.clone(), Arc::default()))
        })
    }

    fn remove_part(&self, part: PartId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.remove_part(part).await }).await })
    }

    fn remove(&self, id: SlotId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.remove(id).await }).await })
    }

    fn find(&self, id: SlotId) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.find(id).await }).await })
    }

    fn page(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.page(after, n_max).await }).await })
    }

    fn parts(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<(PartId, u64)>, StoreError>> {
        Box::pin(async move {
            self.1
                .call(async { self.0.parts(after, n_max).await })
                .await
        })
    }

    fn room(&self) -> BoxFuture<'_, Result<Room, StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.room().await }).await })
    }

    fn test(&self) -> BoxFuture<'_, Result<Vec<(&'static str, Duration)>, StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.test().await }).await })
    }

    fn store_id(&self) -> BoxFuture<'_, Result<u128, StoreError>> {
        Box::pin(async move { self.1.call(async { self.0.store_id().await }).await })
    }
}
