//! Takes over files that another server took, each under the id of its old path.
//!
//! Order of durability: row, bytes, name, row again. What an import leaves that is cut off anywhere
//! in between is a row that waits, and bytes that belong to it: the next import goes on there. No
//! other row is ever changed.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use futures_util::{FutureExt as _, StreamExt as _};
use jid::BareJid;
use sha2::Digest as _;

use crate::core::external::UsedPath;
use crate::core::policy::{Bucket, Room};
use crate::core::session::import::import_part;
use crate::core::session::{FileFacts, Lifetimes, State, UploadSession, WHOLE_BYTES_MAX};
use crate::core::slot::{Sha256, SlotId};
use crate::core::time::Timestamp;
use crate::store::{Body, Change, Failure, Progress, StoreError, Stores};

/// A file of another server, before it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The id of its path.
    pub id: SlotId,
    /// Whose it is.
    pub owner: BareJid,
    /// What it is.
    pub file: FileFacts,
    /// Since when the other server has it; what lies ahead of our clock is now.
    pub uploaded_at: Timestamp,
}

/// How a file stands before it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It can be taken.
    New,
    /// It is here already.
    Here,
    /// Its time would be over.
    Over,
    /// Something else is under its path, or was.
    Barred(Bar),
}

/// Why nothing may be put under a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// A file of another size is there.
    OtherFile,
    /// An upload to it is under way.
    Upload,
    /// Something was there that is gone, or two files of one import have this path.
    Used,
}

/// What became of a file that was to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is here, whole and durable.
    Yes,
    /// It did not have to be, or must not.
    No(Standing),
    /// Its bytes ended early; nothing of them is left.
    Short,
}

/// An import into stores that nobody else uses.
pub struct Import {
    stores: Stores,
    lifetimes: Lifetimes,
    now: Timestamp,
    /// Of files that are being taken.
    ids: Mutex<HashSet<SlotId>>,
}

impl Import {
    /// Into `stores`, by the configured `lifetimes`, at `now`.
    pub fn new(stores: Stores, lifetimes: Lifetimes, now: Timestamp) -> Self {
        Self {
            stores,
            lifetimes,
            now,
            ids: Mutex::default(),
        }
    }

    /// Whether rows and files are of one store; else nothing may be put there.
    pub async fn belong_together(&self) -> Result<bool, StoreError> {
        let rows = self.stores.sessions.store_id().await?;
        Ok(rows == self.stores.files.store_id().await?)
    }

    /// What is free where files are kept.
    pub async fn free_room(&self) -> Result<Room, StoreError> {
        self.stores.files.room().await
    }

    /// Bytes of all files that are here.
    pub async fn stored_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.stores.sessions.totals().await?.stored_bytes)
    }

    /// How a file stands. Changes nothing.
    pub async fn standing(&self, foreign: &Foreign) -> Result<Standing, StoreError> {
        let row = self.stores.sessions.get(foreign.id).await?;
        let standing = row.map_or(Standing::New, |row| standing_of(&row, foreign));
        let retention = &self.lifetimes.retention;
        let uploaded_at = foreign.uploaded_at.min(self.now);
        let keep_until = retention.keep_until(foreign.file.purpose, uploaded_at);
        Ok(match (standing, keep_until) {
            (Standing::New, Some(end)) if end <= self.now => Standing::Over,
            (standing, _) => standing,
        })
    }

    /// Takes a file: when it returns `Yes`, the file is served under its path for as long as if it
    /// had been uploaded here.
    pub async fn take(&self, foreign: &Foreign, body: Body) -> Result<Taken, StoreError> {
        let Some(_turn) = Turn::of(foreign.id, &self.ids) else {
            return Ok(Taken::No(Standing::Barred(Bar::Used)));
        };
        let standing = self.standing(foreign).await?;
        if standing != Standing::New {
            return Ok(Taken::No(standing));
        }
        if WHOLE_BYTES_MAX < foreign.file.size_bytes {
            self.take_large(foreign, body).await
        } else {
            self.take_small(foreign, body).await
        }
    }

    /// Reads it first: of what cannot be read there is no trace.
    async fn take_small(&self, foreign: &Foreign, mut body: Body) -> Result<Taken, StoreError> {
        let mut bytes = BytesMut::new();
        while let Some(piece) = body.next().await {
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(_) => return Ok(Taken::Short),
            }
        }
        if bytes.len() as u64 != foreign.file.size_bytes {
            return Ok(Taken::Short);
        }
        let sha256 = Sha256(sha2::Sha256::digest(&bytes).into());
        if let Some(standing) = self.begin(foreign).await? {
            return Ok(Taken::No(standing));
        }
        self.stores.files.keep(foreign.id, bytes.freeze()).await?;
        self.complete(foreign.id, sha256).await
    }

    async fn take_large(&self, foreign: &Foreign, body: Body) -> Result<Taken, StoreError> {
        if let Some(standing) = self.begin(foreign).await? {
            return Ok(Taken::No(standing));
        }
        let (size_bytes, part) = (foreign.file.size_bytes, import_part(foreign.id));
        let sum = Arc::new(Mutex::new(sha2::Sha256::new()));
        let summing = sum.clone();
        let body = body.inspect(move |piece| {
            if let Ok(piece) = piece {
                let mut sum = summing.lock().unwrap_or_else(PoisonError::into_inner);
                sum.update(piece);
            }
        });
        let go_on: Progress = Arc::new(|_| async { Ok(()) }.boxed());
        let appended = self
            .stores
            .files
            .append(part, 0, size_bytes, Box::pin(body), go_on)
            .await;
        let length = appended.map_err(unrefused)?;
        if length != size_bytes {
            self.stores.files.remove(foreign.id).await?;
            return Ok(Taken::Short);
        }
        self.stores.files.commit(part, size_bytes).await?;
        let sum = sum.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.complete(foreign.id, Sha256(sum.finalize().into()))
            .await
    }

    /// Makes the row, or goes on with the one that an earlier import left; how the file stands
    /// where neither can be.
    async fn begin(&self, foreign: &Foreign) -> Result<Option<Standing>, StoreError> {
        let Foreign {
            id,
            owner,
            file,
            uploaded_at,
        } = foreign.clone();
        let uploaded_at = uploaded_at.min(self.now);
        let path = UsedPath {
            id,
            forget_at: None,
        };
        let of = (id, owner.clone());
        let row = UploadSession::import(of, file.clone(), &self.lifetimes, uploaded_at, self.now);
        let is_new = Arc::new(AtomicBool::new(false));
        let made = is_new.clone();
        let decide = Box::new(move |_: &_| {
            made.store(true, Ordering::Relaxed);
            Ok(row.clone())
        });
        let since = Bucket::of(self.now);
        let admitted = self.stores.sessions.admit_path(path, owner, since, decide);
        let there = match admitted.await {
            Ok(_) if is_new.load(Ordering::Relaxed) => return Ok(None),
            Ok(there) => there,
            Err(Failure::Refused(_)) => return Ok(Some(Standing::Barred(Bar::Used))),
            Err(Failure::Broken(e)) => return Err(e),
        };
        match standing_of(&there, foreign) {
            Standing::New => {}
            other => return Ok(Some(other)),
        }
        // What came before the cut is read again.
        self.stores.files.remove(id).await?;
        let now = self.now;
        let again: Change = Box::new(move |row| row.import_again(file.clone(), now));
        let updated = self.stores.sessions.update(id, again).await;
        updated.map_err(unrefused)?;
        Ok(None)
    }

    async fn complete(&self, id: SlotId, sha256: Sha256) -> Result<Taken, StoreError> {
        let lifetimes = self.lifetimes.clone();
        let complete: Change = Box::new(move |row| row.complete_import(sha256, &lifetimes));
        let completed = self.stores.sessions.update(id, complete).await;
        completed.map_err(unrefused)?;
        Ok(Taken::Yes)
    }
}

fn standing_of(row: &UploadSession, foreign: &Foreign) -> Standing {
    let is_same = row.file.size_bytes == foreign.file.size_bytes;
    match row.state {
        State::Complete { .. } if is_same => Standing::Here,
        State::Complete { .. } => Standing::Barred(Bar::OtherFile),
        State::Failed(_) | State::Cancelled | State::Expired => Standing::Barred(Bar::Used),
        State::Pending | State::Uploading if row.is_importing() => Standing::New,
        State::Pending | State::Uploading => Standing::Barred(Bar::Upload),
    }
}

/// A refusal where nobody else is there to cause one.
fn unrefused(failure: Failure) -> StoreError {
    match failure {
        Failure::Broken(e) => e,
        Failure::Refused(refusal) => {
            StoreError::Corrupt(format!("the row of an import ({refusal:?})"))
        }
    }
}

/// The right to take the file of one path: two at once would get into each other's bytes.
struct Turn<'i> {
    id: SlotId,
    ids: &'i Mutex<HashSet<SlotId>>,
}

impl<'i> Turn<'i> {
    fn of(id: SlotId, ids: &'i Mutex<HashSet<SlotId>>) -> Option<Self> {
        let is_free = ids
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id);
        is_free.then_some(Self { id, ids })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.remove(&self.id);
    }
}
