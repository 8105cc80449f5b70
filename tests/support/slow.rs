//! A store of files whose parts take for ever to read.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use slotd::core::policy::Room;
use slotd::core::slot::{PartId, SlotId};
use slotd::store::{Body, Content, Failure, FileStore, Progress, StoreError, Stored, Stores};

/// `stores`, where `open_part` gives bodies that never end.
pub fn slow_parts(stores: &Stores) -> Stores {
    Stores {
        sessions: stores.sessions.clone(),
        files: Arc::new(SlowParts(stores.files.clone())),
    }
}

struct SlowParts(Arc<dyn FileStore>);

impl FileStore for SlowParts {
    fn append(
        &self,
        part: PartId,
        from: u64,
        size_bytes: u64,
        body: Body,
        progress: Progress,
    ) -> BoxFuture<'_, Result<u64, Failure>> {
        self.0.append(part, from, size_bytes, body, progress)
    }

    fn settle(&self, part: PartId) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.0.settle(part)
    }

    fn commit(&self, part: PartId, size_bytes: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.commit(part, size_bytes)
    }

    fn keep(&self, id: SlotId, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.keep(id, bytes)
    }

    fn open(&self, id: SlotId, bytes: Range<u64>) -> BoxFuture<'_, Result<Content, StoreError>> {
        self.0.open(id, bytes)
    }

    fn open_part(&self, _: PartId, _: u64) -> BoxFuture<'_, Result<Body, StoreError>> {
        Box::pin(async {
            let never: Body = Box::pin(futures_util::stream::pending());
            Ok(never)
        })
    }

    fn remove_part(&self, part: PartId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.remove_part(part)
    }

    fn remove(&self, id: SlotId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.remove(id)
    }

    fn find(&self, id: SlotId) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        self.0.find(id)
    }

    fn page(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        self.0.page(after, n_max)
    }

    fn parts(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<(PartId, u64)>, StoreError>> {
        self.0.parts(after, n_max)
    }

    fn room(&self) -> BoxFuture<'_, Result<Room, StoreError>> {
        self.0.room()
    }

    fn test(&self) -> BoxFuture<'_, Result<Vec<(&'static str, Duration)>, StoreError>> {
        self.0.test()
    }

    fn store_id(&self) -> BoxFuture<'_, Result<u128, StoreError>> {
        self.0.store_id()
    }
}
