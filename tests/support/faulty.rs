//! Stores that fail when they are told to: the k-th call from now, or all from then on.
//!
//! A call that fails does nothing, or does its work and then says that it failed: both happen when
//! a disk or a network breaks.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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
use slotd::service::Service;
use slotd::store::{
    Admit, BanEntry, Body, BodyError, Change, Content, Failure, FileStore, Mend, Progress, Recount,
    SessionStore, StoreError, Stored, Stores, Totals,
};

use super::world::{Bench, settings};

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing was done.
    Before,
    /// It was done, and the answer was lost.
    After,
    /// There is no room; nothing was done.
    NoSpace,
    /// What is stored cannot be read; nothing was done.
    Damaged,
    /// No answer comes.
    Never,
}

/// When calls fail; shared by all stores it was given to.
#[derive(Debug, Default)]
pub struct Plan {
    n_calls: AtomicU64,
    next: Mutex<Option<(u64, u64, Fault)>>,
}

impl Plan {
    /// No call fails.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How many calls there were.
    pub fn n_calls(&self) -> u64 {
        self.n_calls.load(Ordering::SeqCst)
    }

    /// Lets `n` calls fail, the first of them `k` calls from now (0 is the next one).
    pub fn fail(&self, k: u64, n: u64, fault: Fault) {
        let first = self.n_calls() + k;
        *self.lock() = Some((first, first.saturating_add(n), fault));
    }

    /// No call fails any more.
    pub fn heal(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(u64, u64, Fault)>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call; how it fails, if it does.
    fn next(&self) -> Option<Fault> {
        let call = self.n_calls.fetch_add(1, Ordering::SeqCst);
        let planned = *self.lock();
        planned.and_then(|(first, end, fault)| (first..end).contains(&call).then_some(fault))
    }
}

fn error(fault: Fault, doing: &'static str) -> StoreError {
    match fault {
        Fault::NoSpace => StoreError::NoSpace { doing },
        Fault::Damaged => StoreError::Corrupt(doing.to_owned()),
        Fault::Before | Fault::After | Fault::Never => StoreError::Unavailable {
            doing,
            source: Arc::new(std::io::Error::other("a fault was injected")),
        },
    }
}

/// Both stores behind one plan.
pub fn faulty(stores: &Stores, plan: &Arc<Plan>) -> Stores {
    Stores {
        sessions: Arc::new(Faulty {
            inner: stores.sessions.clone(),
            plan: plan.clone(),
        }),
        files: Arc::new(Faulty {
            inner: stores.files.clone(),
            plan: plan.clone(),
        }),
    }
}

/// The service of `bench`, with both stores behind one plan.
pub fn faulty_service(bench: &Bench, plan: &Arc<Plan>) -> Arc<Service> {
    let stores = faulty(&bench.stores, plan);
    Service::new(
        settings(),
        bench.service.keys(),
        stores,
        bench.world.clone(),
    )
}

/// A store and the plan of its faults.
pub struct Faulty<S: ?Sized> {
    pub inner: Arc<S>,
    pub plan: Arc<Plan>,
}

impl<S: ?Sized> Faulty<S> {
    /// Makes a call as the plan says.
    async fn call<T, E: From<StoreError>>(
        &self,
        doing: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match self.plan.next() {
            None => work.await,
            Some(fault @ (Fault::Before | Fault::NoSpace | Fault::Damaged)) => {
                Err(error(fault, doing).into())
            }
            Some(Fault::Never) => std::future::pending().await,
            Some(Fault::After) => {
                work.await?;
                Err(error(Fault::After, doing).into())
            }
        }
    }

    /// A body whose pieces fail as the plan says.
    fn pieces(&self, body: Body) -> Body {
        let plan = self.plan.clone();
        let pieces = body.map(move |piece: Result<Bytes, BodyError>| match plan.next() {
            None => piece,
            Some(_) => Err(BodyError),
        });
        pieces.boxed()
    }
}

// The futures of the inner store are made within `async`: a call that fails before is not made.
impl SessionStore for Faulty<dyn SessionStore> {
    fn admit(
        &self,
        owner: BareJid,
        since: Bucket,
        decide: Admit,
    ) -> BoxFuture<'_, Result<UploadSession, Failure>> {
        let work = async move { self.inner.admit(owner, since, decide).await };
        Box::pin(self.call("admit", work))
    }

    fn admit_path(
        &self,
        path: UsedPath,
        owner: BareJid,
        since: Bucket,
        decide: Admit,
    ) -> BoxFuture<'_, Result<UploadSession, Failure>> {
        let work = async move { self.inner.admit_path(path, owner, since, decide).await };
        Box::pin(self.call("admit a path", work))
    }

    fn forget_paths(&self, now: Timestamp) -> BoxFuture<'_, Result<(), StoreError>> {
        let work = async move { self.inner.forget_paths(now).await };
        Box::pin(self.call("forget paths", work))
    }

    fn update(&self, id: SlotId, change: Change) -> BoxFuture<'_, Result<UploadSession, Failure>> {
        let work = async move { self.inner.update(id, change).await };
        Box::pin(self.call("update", work))
    }

    fn get(&self, id: SlotId) -> BoxFuture<'_, Result<Option<UploadSession>, StoreError>> {
        Box::pin(self.call("get", async move { self.inner.get(id).await }))
    }

    fn find_session(&self, id: SessionId) -> BoxFuture<'_, Result<Option<SlotId>, StoreError>> {
        Box::pin(self.call("find a session", async move {
            self.inner.find_session(id).await
        }))
    }

    fn owned(
        &self,
        owner: BareJid,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<UploadSession>, StoreError>> {
        Box::pin(self.call("owned", async move { self.inner.owned(owner, n_max).await }))
    }

    fn uploads_of(
        &self,
        owner: BareJid,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>> {
        let work = async move { self.inner.uploads_of(owner, n_max).await };
        Box::pin(self.call("uploads of", work))
    }

    fn newest(&self, n_max: usize) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>> {
        Box::pin(self.call("newest", async move { self.inner.newest(n_max).await }))
    }

    fn usage(&self, owner: BareJid, since: Bucket) -> BoxFuture<'_, Result<Usage, StoreError>> {
        let work = async move { self.inner.usage(owner, since).await };
        Box::pin(self.call("usage", work))
    }

    fn forget_owner(&self, owner: BareJid) -> BoxFuture<'_, Result<(), StoreError>> {
        let work = async move { self.inner.forget_owner(owner).await };
        Box::pin(self.call("forget an owner", work))
    }

    fn due(&self, now: Timestamp, n_max: usize) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>> {
        Box::pin(self.call("due", async move { self.inner.due(now, n_max).await }))
    }

    fn oldest(&self, n_max: usize) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>> {
        Box::pin(self.call("oldest", async move { self.inner.oldest(n_max).await }))
    }

    fn page(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<UploadSession>, StoreError>> {
        let work = async move { self.inner.page(after, n_max).await };
        Box::pin(self.call("page", work))
    }

    fn remove(&self, id: SlotId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.call("remove", async move { self.inner.remove(id).await }))
    }

    fn totals(&self) -> BoxFuture<'_, Result<Totals, StoreError>> {
        Box::pin(self.call("totals", async move { self.inner.totals().await }))
    }

    fn recount(&self, mend: Mend) -> BoxFuture<'_, Result<Recount, StoreError>> {
        Box::pin(self.call("recount", async move { self.inner.recount(mend).await }))
    }

    fn forget_uses(&self, before: Bucket) -> BoxFuture<'_, Result<(), StoreError>> {
        let work = async move { self.inner.forget_uses(before).await };
        Box::pin(self.call("forget uses", work))
    }

    fn orders(&self) -> BoxFuture<'_, Result<Vec<(String, String)>, StoreError>> {
        Box::pin(self.call("orders", async move { self.inner.orders().await }))
    }

    fn set_order(
        &self,
        name: String,
        value: Option<String>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let work = async move { self.inner.set_order(name, value).await };
        Box::pin(self.call("set an order", work))
    }

    fn bans(&self) -> BoxFuture<'_, Result<Vec<Ban>, StoreError>> {
        Box::pin(self.call("bans", async move { self.inner.bans().await }))
    }

    fn keep_bans(&self, changes: Vec<BanEntry>) -> BoxFuture<'_, Result<(), StoreError>> {
        let work = async move { self.inner.keep_bans(changes).await };
        Box::pin(self.call("keep bans", work))
    }

    fn store_id(&self) -> BoxFuture<'_, Result<u128, StoreError>> {
        Box::pin(self.call("store id", async move { self.inner.store_id().await }))
    }
}

impl FileStore for Faulty<dyn FileStore> {
    /// Fails by its own count: once for the begin, and once for each sync that is told.
    fn append(
        &self,
        part: PartId,
        from: u64,
        size_bytes: u64,
        body: Body,
        progress: Progress,
    ) -> BoxFuture<'_, Result<u64, Failure>> {
        let plan = self.plan.clone();
        let syncing: Progress = Arc::new(move |offset| match plan.next() {
            None => progress(offset),
            // The sync that was about to be told is the one that failed.
            Some(fault) => Box::pin(async move { Err(error(fault, "sync").into()) }),
        });
        let work = async move {
            let files = &self.inner;
            files.append(part, from, size_bytes, body, syncing).await
        };
        Box::pin(self.call("append", work))
    }

    fn settle(&self, part: PartId) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.call("settle", async move { self.inner.settle(part).await }))
    }

    fn commit(&self, part: PartId, size_bytes: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        let work = async move { self.inner.commit(part, size_bytes).await };
        Box::pin(self.call("commit", work))
    }

    fn keep(&self, id: SlotId, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        let work = async move { self.inner.keep(id, bytes).await };
        Box::pin(self.call("keep", work))
    }

    /// Fails by its own count: once for the opening, and once for each piece.
    fn open(&self, id: SlotId, bytes: Range<u64>) -> BoxFuture<'_, Result<Content, StoreError>> {
        let work = async move {
            let body = self.inner.open(id, bytes).await?.into_body();
            Ok(Content::Stream(self.pieces(body)))
        };
        Box::pin(self.call("open", work))
    }

    /// Fails as `open` does.
    fn open_part(&self, part: PartId, n_bytes: u64) -> BoxFuture<'_, Result<Body, StoreError>> {
        let work = async move { Ok(self.pieces(self.inner.open_part(part, n_bytes).await?)) };
        Box::pin(self.call("open a part", work))
    }

    fn remove_part(&self, part: PartId) -> BoxFuture<'_, Result<(), StoreError>> {
        let work = async move { self.inner.remove_part(part).await };
        Box::pin(self.call("remove a part", work))
    }

    fn remove(&self, id: SlotId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.call("remove", async move { self.inner.remove(id).await }))
    }

    fn find(&self, id: SlotId) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        Box::pin(self.call("find", async move { self.inner.find(id).await }))
    }

    fn page(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        let work = async move { self.inner.page(after, n_max).await };
        Box::pin(self.call("page", work))
    }

    fn parts(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<(PartId, u64)>, StoreError>> {
        let work = async move { self.inner.parts(after, n_max).await };
        Box::pin(self.call("parts", work))
    }

    fn room(&self) -> BoxFuture<'_, Result<Room, StoreError>> {
        Box::pin(self.call("room", async move { self.inner.room().await }))
    }

    fn test(&self) -> BoxFuture<'_, Result<Vec<(&'static str, Duration)>, StoreError>> {
        Box::pin(self.call("test", async move { self.inner.test().await }))
    }

    fn store_id(&self) -> BoxFuture<'_, Result<u128, StoreError>> {
        Box::pin(self.call("store id", async move { self.inner.store_id().await }))
    }
}
