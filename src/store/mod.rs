//! The two stores, rows and bytes, and who implements them.
//!
//! A store keeps what it is given and decides nothing: a decision that must be atomic comes to it
//! as a function and is run inside its own transaction. Only `service` calls a store; each backend
//! passes what `memory` passes (`tests/conformance.rs`).

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use jid::BareJid;

use crate::core::accel::Place;
use crate::core::bans::{Ban, Subject};
use crate::core::download::Served;
use crate::core::external::UsedPath;
use crate::core::policy::{Bucket, Room, Usage};
use crate::core::refusal::Refusal;
use crate::core::session::UploadSession;
use crate::core::slot::{PartId, SessionId, SlotId};
use crate::core::time::Timestamp;

pub mod boot;
mod content;
mod error;
pub mod history;
mod hot;
pub mod keys;
pub mod local;
pub mod memory;
mod open;
pub mod redb;
pub mod row;

pub use content::{Body, BodyError, Content, Handle, Opened};
pub use error::{Failure, OpenError, StoreError};
use error::{changed, issued_twice, named_twice};
pub use local::handles::kept_max as files_kept_max;
pub use open::{check_heir, open, open_read_only, written_at};

/// Decides a slot request on what is in use; run inside the store's transaction.
pub type Admit = Box<dyn FnMut(&Usage) -> Result<UploadSession, Refusal> + Send>;
/// Changes a row; run inside the store's transaction, as often as the store needs to.
pub type Change = Box<dyn FnMut(UploadSession) -> Result<UploadSession, Refusal> + Send>;
/// A subject's ban, or that it has none any more.
pub type BanEntry = (Subject, Option<Ban>);
/// Told each time more bytes of a part are durable, with the part's durable length; refuses when
/// the writer shall stop. The last length is not always told: `append` returns it.
pub type Progress = Arc<dyn Fn(u64) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync>;

/// Whether a change leaves what indexes and sums are kept by: core never changes it.
fn keeps_its_keys(old: &UploadSession, new: &UploadSession) -> bool {
    old.id == new.id && old.owner == new.owner && old.created_at == new.created_at
}

/// Sums that the store keeps beside its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows of any state.
    pub n_rows: u64,
    /// Complete files.
    pub n_files: u64,
    /// Their bytes.
    pub stored_bytes: u64,
}

/// Rows of upload sessions, each change durable before it returns.
///
/// Beside the rows it keeps running sums: `UploadSession::quota_bytes` by requester, domain and in
/// total for the hour of `created_at`, and `Totals`. Indexes: by `due_at`; of complete rows by
/// their time of completion; of rows with a `SessionId` by it, and by owner and `created_at`; of
/// open upload sessions by owner, for `Usage::n_open_sessions`. Each call costs the same among ten
/// rows and a million.
pub trait SessionStore: Send + Sync {
    /// Runs `decide` on what `owner`, their domain and everybody used since `since`, and keeps the
    /// row it returns. Two calls at once see each other's rows. An id or a name that another row
    /// has is `Corrupt`.
    fn admit(
        &self,
        owner: BareJid,
        since: Bucket,
        decide: Admit,
    ) -> BoxFuture<'_, Result<UploadSession, Failure>>;

    /// Admits as `admit` does what comes to another system's `path`, once for ever: the path stays
    /// marked as used when its row is gone, until `forget_paths` forgets it.
    ///
    /// Where the path has a row already it is that row, and `decide` is not asked. Refuses `Gone`
    /// where it had one. A row of another id than the path's is `Corrupt`.
    fn admit_path(
        &self,
        path: UsedPath,
        owner: BareJid,
        since: Bucket,
        decide: Admit,
    ) -> BoxFuture<'_, Result<UploadSession, Failure>>;

    /// Forgets the used paths whose `forget_at` is not after `now`.
    fn forget_paths(&self, now: Timestamp) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Replaces a row by what `change` makes of it. Refuses `UnknownFile` where there is no row.
    /// Another id, owner or `created_at`, or another row's name, is `Corrupt`.
    fn update(&self, id: SlotId, change: Change) -> BoxFuture<'_, Result<UploadSession, Failure>>;

    /// The row, if there is one.
    fn get(&self, id: SlotId) -> BoxFuture<'_, Result<Option<UploadSession>, StoreError>>;

    /// What is served of a slot, if its row is complete: what `get` would find.
    fn served(&self, id: SlotId) -> BoxFuture<'_, Result<Option<Arc<Served>>, StoreError>> {
        Box::pin(async move {
            let row = self.get(id).await?;
            Ok(row.as_ref().and_then(Served::of).map(Arc::new))
        })
    }

    /// The slot of an upload session, if there is one of this name.
    fn find_session(&self, id: SessionId) -> BoxFuture<'_, Result<Option<SlotId>, StoreError>>;

    /// Up to `n_max` upload sessions that `owner` asked for, the newest first, and of one second
    /// the highest id first. Rows without a name for their owner are not among them.
    fn owned(
        &self,
        owner: BareJid,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<UploadSession>, StoreError>>;

    /// Up to `n_max` slots of `owner`, of any state, the newest first, and of one second the
    /// highest id first.
    fn uploads_of(
        &self,
        owner: BareJid,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>>;

    /// Up to `n_max` rows whose `due_at` is not after `now`, the longest due first.
    fn due(&self, now: Timestamp, n_max: usize) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>>;

    /// Up to `n_max` complete rows, the longest complete first.
    fn oldest(&self, n_max: usize) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>>;

    /// Up to `n_max` complete rows, the latest complete first.
    fn newest(&self, n_max: usize) -> BoxFuture<'_, Result<Vec<SlotId>, StoreError>>;

    /// What `owner`, their domain and everybody used since `since`.
    fn usage(&self, owner: BareJid, since: Bucket) -> BoxFuture<'_, Result<Usage, StoreError>>;

    /// Up to `n_max` rows with ids after `after`, in order of id: for the audit.
    fn page(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<UploadSession>, StoreError>>;

    /// Removes a row; what is not there is removed already. Sums of the quota stay for a complete
    /// row (its bytes were used), and go back for others.
    fn remove(&self, id: SlotId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The sums.
    fn totals(&self) -> BoxFuture<'_, Result<Totals, StoreError>>;

    /// Counts all sums again from the rows; tells whether they were right, and mends them where
    /// `mend` says so. Quota sums of removed complete rows cannot be recounted: hours in which a
    /// complete row was removed may hold more than the rows, never less.
    fn recount(&self, mend: Mend) -> BoxFuture<'_, Result<Recount, StoreError>>;

    /// Forgets quota sums of hours before `before`.
    fn forget_uses(&self, before: Bucket) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Forgets what `owner` used, but for what their rows hold: of an account that is gone.
    fn forget_owner(&self, owner: BareJid) -> BoxFuture<'_, Result<(), StoreError>>;

    /// What operators said that holds across restarts, by its name.
    fn orders(&self) -> BoxFuture<'_, Result<Vec<(String, String)>, StoreError>>;

    /// Keeps what an operator said under `name`, or forgets it. How many there may be is the
    /// caller's to see to.
    fn set_order(
        &self,
        name: String,
        value: Option<String>,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// All bans that are kept, in any order.
    fn bans(&self) -> BoxFuture<'_, Result<Vec<Ban>, StoreError>>;

    /// Keeps bans, each in place of the one of the same subject, or removes them.
    fn keep_bans(&self, changes: Vec<BanEntry>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// What binds these rows to their files: where the file store's differs, the sweep touches
    /// nothing.
    fn store_id(&self) -> BoxFuture<'_, Result<u128, StoreError>>;
}

/// Whether a check also mends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mend {
    /// Look only.
    No,
    /// Mend what is wrong.
    Yes,
}

/// What `SessionStore::recount` found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recount {
    /// One sentence for each sum or index entry that was wrong.
    pub wrong: Vec<String>,
}

/// A file or part as the file store holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A committed file.
    File {
        /// Whose.
        id: SlotId,
        /// Its size in bytes.
        size_bytes: u64,
    },
    /// A part.
    Part {
        /// Which.
        part: PartId,
        /// Its length in bytes.
        size_bytes: u64,
    },
}

impl Stored {
    /// The slot it belongs to.
    pub fn slot(&self) -> SlotId {
        match self {
            Self::File { id, .. } => *id,
            Self::Part { part, .. } => part.slot,
        }
    }

    /// Its place in a listing: by slot, the file before the parts.
    fn place(&self) -> (SlotId, Option<u16>) {
        match self {
            Self::File { id, .. } => (*id, None),
            Self::Part { part, .. } => (part.slot, Some(part.attempt)),
        }
    }
}

/// The bytes of uploads.
pub trait FileStore: Send + Sync {
    /// Cuts `part` back to `from` bytes (creating it where `from` is 0), reserves room up to
    /// `size_bytes`, appends `body`, and makes bytes durable every so often, telling `progress`.
    ///
    /// Returns the durable length when the body ended, early or not, or `progress` refused. A
    /// write or sync that fails is `Broken`: the part's durable length is then what was last told.
    fn append(
        &self,
        part: PartId,
        from: u64,
        size_bytes: u64,
        body: Body,
        progress: Progress,
    ) -> BoxFuture<'_, Result<u64, Failure>>;

    /// Makes what there is of `part` durable and returns its length; 0 where there is none.
    ///
    /// Where a crash came between commit and row, the committed file becomes the part again; so
    /// never call it for a row that is complete.
    fn settle(&self, part: PartId) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Makes `part`, `size_bytes` long, the slot's file: durable by name and content. Never
    /// replaces a file: that is `Corrupt`.
    fn commit(&self, part: PartId, size_bytes: u64) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Makes `bytes` the file of a slot whose row is not complete, in one go: durable by name and
    /// content. What a crash left under its name goes.
    ///
    /// An error leaves no file, or one that is not to be trusted.
    fn keep(&self, id: SlotId, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The bytes of a file. A removal or another name that comes later does not change them.
    fn open(&self, id: SlotId, bytes: Range<u64>) -> BoxFuture<'_, Result<Content, StoreError>>;

    /// Where a proxy of the operator's finds a file; `None` for files that are in no directory.
    fn place(&self, _id: SlotId) -> Option<Place> {
        None
    }

    /// The first `n_bytes` bytes of a part: to hash them again after a restart.
    fn open_part(&self, part: PartId, n_bytes: u64) -> BoxFuture<'_, Result<Body, StoreError>>;

    /// Removes one part; what is not there is removed already.
    fn remove_part(&self, part: PartId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Removes the file and all parts of a slot; what is not there is removed already.
    fn remove(&self, id: SlotId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// What there is of a slot: its file and its parts.
    fn find(&self, id: SlotId) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>>;

    /// Up to about `n_max` files and parts with ids after `after`, in order of id, all of a slot
    /// together: for the audit.
    fn page(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>>;

    /// Up to about `n_max` parts of slots after `after`, each with its length, in order, all of a
    /// slot together. Costs a look at parts alone, however many files there are.
    fn parts(
        &self,
        after: Option<SlotId>,
        n_max: usize,
    ) -> BoxFuture<'_, Result<Vec<(PartId, u64)>, StoreError>>;

    /// Free bytes and inodes.
    fn room(&self) -> BoxFuture<'_, Result<Room, StoreError>>;

    /// Tries what uploads and downloads need, on bytes of its own that are nobody's and that no
    /// crash leaves behind; each step and how long it took.
    fn test(&self) -> BoxFuture<'_, Result<Vec<(&'static str, Duration)>, StoreError>>;

    /// What binds these files to their rows.
    fn store_id(&self) -> BoxFuture<'_, Result<u128, StoreError>>;
}

/// Both stores, as the service holds them.
#[derive(Clone)]
pub struct Stores {
    /// Rows.
    pub sessions: Arc<dyn SessionStore>,
    /// Bytes.
    pub files: Arc<dyn FileStore>,
}
