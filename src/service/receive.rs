//! An upload request from its head to its answer: admitted, and then written or compared.
//!
//! `write` takes the bytes in, `whole` a small file at once, `replay` compares. Whatever a request
//! does, its slot stays usable.

use std::sync::{Arc, PoisonError};

use futures_util::StreamExt as _;
use tracing::debug;

use crate::core::event::{Event, Resumed};
use crate::core::refusal::Refusal;
use crate::core::resume::Extent;
use crate::core::session::network::Visitor;
use crate::core::session::{Start, State, UploadSession};
use crate::core::slot::{ContentType, PartId, SlotId};
use crate::core::time::Timestamp;
use crate::core::token::{self, Claims, ResumeClaims};
use crate::service::intake::{End, Intake, Pace, SharedGauge, Sum};
use crate::service::transfers::Transfer;
use crate::service::upload::{Beginning, Credential, Received, Upload};
use crate::service::whole::{Taken, may_be_whole};
use crate::service::write::Incoming;
use crate::service::{Service, broken, refusal_of};
use crate::store::{Body, Change};

/// A credential that was opened.
#[derive(Clone, Copy)]
enum Opened {
    Put(Claims),
    Resume(ResumeClaims, u64),
}

impl Opened {
    /// Admits the request to the row it is for.
    fn admit(&self, row: UploadSession, now: Timestamp) -> Result<UploadSession, Refusal> {
        match self {
            Self::Put(claims) => row.begin(claims, now),
            Self::Resume(claims, offset) => row.append(*claims, *offset, now),
        }
    }

    /// Where the request's bytes begin.
    fn from(&self) -> u64 {
        match self {
            Self::Put(_) => 0,
            Self::Resume(_, offset) => *offset,
        }
    }

    fn start(&self, row: &UploadSession) -> Option<Start> {
        match self {
            Self::Put(_) => row.start(),
            Self::Resume(..) => row.start_append(),
        }
    }
}

impl Service {
    /// Takes an upload request: a PUT of a whole file, or an append to what there is of it.
    ///
    /// `body` is not polled before the request is admitted, so that a refusal comes before `100
    /// Continue`. Goes on when the caller's future is dropped: what has come is made durable and
    /// noted. Refuses as `UploadSession::begin` and `UploadSession::append` do, `TooShort`,
    /// `TooLong`, `InconsistentLength` and `OtherContentType` by the request's head; then by what
    /// the body turned out to be.
    pub async fn receive(
        self: &Arc<Self>,
        upload: Upload,
        body: Body,
    ) -> Result<Received, Refusal> {
        let (opened, id) = self.check_upload(&upload).await?;
        debug!(slot = id.short(), "upload begins");
        let service = self.clone();
        // A task of its own, since a connection that breaks takes its handler with it.
        let receiving =
            tokio::spawn(async move { service.run_upload(upload, opened, id, body).await });
        receiving.await.unwrap_or_else(|e| {
            tracing::error!(error = %e, "an upload's task ended early");
            Err(Refusal::Broken)
        })
    }

    /// Everything that can be refused without disturbing a running upload.
    async fn check_upload(&self, upload: &Upload) -> Result<(Opened, SlotId), Refusal> {
        let (opened, row) = match (&upload.credential, upload.beginning) {
            (Credential::External(external), Beginning::Whole) => {
                let row = self.admit_external(upload, external).await?;
                return Ok((Opened::Put(row.put_claims()), row.id));
            }
            (Credential::Put { id, name, token }, Beginning::Whole) => {
                let (claims, row) = self.check_put(*id, name, token).await?;
                (Opened::Put(claims), row)
            }
            (Credential::Resume(sealed), Beginning::At(offset)) => {
                let (claims, row) = self.check_resume(sealed, &Visitor::default()).await?;
                (Opened::Resume(claims, offset), row)
            }
            _ => return Err(Refusal::BadRequest),
        };
        if let Err(refusal) = check_lengths(upload, row.file.size_bytes) {
            return Err(self.other_offset(upload, row).await?.unwrap_or(refusal));
        }
        self.check_content_type(upload, &row.file.content_type)?;
        Ok((opened, row.id))
    }

    /// Refuses `OtherContentType` where types have to be those of the slot.
    pub(super) fn check_content_type(
        &self,
        upload: &Upload,
        expected: &ContentType,
    ) -> Result<(), Refusal> {
        match self.settings().check_content_type {
            true => check_content_type(expected, upload.content_type.as_deref()),
            false => Ok(()),
        }
    }

    /// `OtherOffset` for an append elsewhere than at the offset, whatever else is wrong with it:
    /// lengths are only told apart by where they begin. Disturbs nobody.
    async fn other_offset(
        &self,
        upload: &Upload,
        row: UploadSession,
    ) -> Result<Option<Refusal>, Refusal> {
        let Beginning::At(said) = upload.beginning else {
            return Ok(None);
        };
        let (_, offset) = self.look_closely(row).await?;
        Ok((said != offset).then_some(Refusal::OtherOffset { offset }))
    }

    async fn check_put(
        &self,
        id: SlotId,
        name: &str,
        token: &str,
    ) -> Result<(Claims, UploadSession), Refusal> {
        let claims = {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            token::open(&keys, token)?
        };
        if claims.id != id {
            return Err(Refusal::TokenForOther);
        }
        let row = self.stores.sessions.get(id).await;
        let row = row.map_err(|e| broken("look a slot up", &e))?;
        // We sealed its token, so there was such a slot once.
        let row = row.ok_or(Refusal::Gone)?;
        let row = self.present(row, claims.generation, None).await?;
        let row = self.with_live_byte(row);
        row.clone().begin(&claims, self.world.now())?;
        if name != row.file.name.as_str() {
            return Err(Refusal::TokenForOther);
        }
        Ok((claims, row))
    }

    async fn run_upload(
        self: Arc<Self>,
        mut upload: Upload,
        opened: Opened,
        id: SlotId,
        body: Body,
    ) -> Result<Received, Refusal> {
        let transfer = Arc::new(self.transfers.begin(id).await?);
        let heard_at = self.transfers.last_byte_at(id).unwrap_or_default();
        let before = self.stores.sessions.get(id).await;
        let before = before.map_err(|e| broken("look a slot up", &e))?;
        let before = before.ok_or(Refusal::Gone)?;
        if before.is_open() {
            let n_bytes = before.file.size_bytes.saturating_sub(opened.from());
            self.check_room(n_bytes).await?;
        }
        let body = match opened {
            Opened::Put(claims) if may_be_whole(&before, &upload) => {
                match self
                    .take_whole(&before, claims, &upload, body, &transfer)
                    .await?
                {
                    Taken::Whole(received) => return Ok(received),
                    Taken::Not(body) => body,
                }
            }
            _ => body,
        };
        let row = self
            .admit_upload(&before, &upload, opened, &transfer)
            .await?;
        self.drop_parts(&before.parts(), &row).await;
        if let Some(on_begun) = upload.on_begun.take() {
            on_begun(&self.offer(&row));
        }
        match opened.start(&row) {
            Some(Start::Receive { part, from }) => {
                self.tell_begun(&before, &row, from, heard_at);
                let incoming = Incoming {
                    part,
                    from,
                    extent: upload.extent,
                    sha256: upload.sha256,
                    checksum: upload.checksum,
                    body,
                };
                self.write(&row, incoming, transfer).await
            }
            Some(Start::Replay { sha256 }) => {
                self.replay(&row, sha256, upload.sha256, body, transfer)
                    .await
            }
            Some(Start::Done { .. }) => {
                self.check_empty(body, &transfer).await?;
                Ok(self.received(&row))
            }
            None => Err(Refusal::Gone),
        }
    }

    /// Makes the request the only one that counts, with all that came before it noted.
    async fn admit_upload(
        &self,
        before: &UploadSession,
        upload: &Upload,
        opened: Opened,
        transfer: &Transfer,
    ) -> Result<UploadSession, Refusal> {
        let left_over = self.left_over(before).await?;
        let durable = left_over.map_or(0, |(_, offset)| offset);
        transfer.note_durable(durable.max(before.offset()));
        let now = self.world.now();
        transfer.note_bytes(0, now);
        let (settings, visitor) = (self.settings.load_full(), upload.visitor.clone());
        let is_resumable = upload.is_resumable;
        let is_held_back = upload.checksum.is_some();
        let change: Change = Box::new(move |mut row| {
            if let Some((part, offset)) = left_over {
                row.end_attempt(part, offset, Timestamp::default());
            }
            let mut row = opened.admit(row, now)?;
            if is_held_back {
                row = row.hold_back();
            }
            if visitor != Visitor::default() {
                row.note_visitor(&visitor, now);
            }
            Ok(match is_resumable {
                true => row.resumable(&settings.policy.lifetimes),
                false => row,
            })
        });
        self.update(before.id, change).await
    }

    /// Tells that a request was admitted whose bytes begin at `offset`; `heard_at` is when the one
    /// before it got its last byte, where that one was still there.
    fn tell_begun(
        &self,
        before: &UploadSession,
        row: &UploadSession,
        offset: u64,
        heard_at: Timestamp,
    ) {
        if before.state == State::Pending {
            return self.tell(Event::UploadBegun { row });
        }
        let address = |row: &UploadSession| row.networks.last().and_then(|it| it.address.clone());
        let heard_at = heard_at.max(before.last_byte_at);
        let resumed = Resumed {
            offset,
            resent_bytes: row.offset().saturating_sub(offset),
            gap: self.world.now().since(heard_at),
            is_other_network: address(before) != address(row),
        };
        self.tell(Event::UploadResumed { row, resumed });
    }

    /// What an attempt that nobody ended (a crash did) has left; the caller holds the slot.
    pub(super) async fn left_over(
        &self,
        row: &UploadSession,
    ) -> Result<Option<(PartId, u64)>, Refusal> {
        match (row.state, row.newest) {
            (State::Uploading, Some((part, from))) if row.is_held_back => {
                self.cut_back(part, from).await?;
                Ok(Some((part, from)))
            }
            (State::Uploading, Some((part, _))) => {
                let length = self.stores.files.settle(part).await;
                let length = length.map_err(|e| broken("look for an earlier attempt", &e))?;
                Ok(Some((part, length)))
            }
            // Nobody was told anything of it, and it may be anything.
            _ if row.may_come_whole() => {
                let removed = self.stores.files.remove(row.id).await;
                removed.map_err(|e| broken("remove an earlier attempt", &e))?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    pub(super) fn cut_refusal(&self) -> Refusal {
        if self.transfers.is_stopping() {
            Refusal::Stopping
        } else {
            Refusal::TakenOver
        }
    }

    /// Measures a body whose bytes come behind those in `hasher`.
    pub(super) fn intake(
        &self,
        body: Body,
        n_bytes_max: u64,
        hashers: (sha2::Sha256, Option<Sum>),
        transfer: &Arc<Transfer>,
    ) -> (Intake, SharedGauge) {
        let settings = self.settings();
        let pace = Pace {
            stall_for: settings.stall_for,
            rate_min_bytes: settings.rate_min_bytes,
        };
        let (world, noting, recent) = (self.world.clone(), transfer.clone(), self.recent.clone());
        let on_bytes = Box::new(move |n_bytes| {
            let now = world.now();
            noting.note_bytes(n_bytes, now);
            recent.note_bytes(n_bytes, now);
        });
        Intake::new(body, n_bytes_max, hashers, pace, transfer.cut(), on_bytes)
    }

    /// Refuses `TooLong` where there are bytes behind the file's last.
    async fn check_empty(&self, body: Body, transfer: &Arc<Transfer>) -> Result<(), Refusal> {
        let hashers = (sha2::Sha256::default(), None);
        let (mut intake, gauge) = self.intake(body, 0, hashers, transfer);
        while let Some(Ok(_)) = intake.next().await {}
        match gauge.end() {
            End::Whole => Ok(()),
            End::TooLong => Err(Refusal::TooLong),
            End::Stalled => Err(Refusal::Stalled),
            End::Cut => Err(self.cut_refusal()),
            End::Interrupted | End::Open => Err(Refusal::Interrupted),
        }
    }

    /// Refuses `NoSpace` rather than let the disk fill up under the rows.
    async fn check_room(&self, size_bytes: u64) -> Result<(), Refusal> {
        let free = self.stores.files.room().await;
        let free = free.map_err(|e| broken("ask for free space", &e))?;
        match free.holds(size_bytes, self.settings().policy.reserve) {
            true => Ok(()),
            false => Err(Refusal::NoSpace),
        }
    }

    pub(super) async fn update(
        &self,
        id: SlotId,
        change: Change,
    ) -> Result<UploadSession, Refusal> {
        let updated = self.stores.sessions.update(id, change).await;
        updated.map_err(|failure| refusal_of("change a slot", failure))
    }
}

/// Refuses lengths that do not make the file: `TooLong`, `TooShort`, `InconsistentLength`.
pub(super) fn check_lengths(upload: &Upload, size_bytes: u64) -> Result<(), Refusal> {
    if upload.upload_length.is_some_and(|said| said != size_bytes) {
        return Err(Refusal::InconsistentLength);
    }
    let Some(length) = upload.length else {
        return Ok(());
    };
    let from = match upload.beginning {
        Beginning::Whole => 0,
        Beginning::At(offset) => offset,
    };
    let end = from.saturating_add(length);
    match (upload.beginning, upload.extent) {
        _ if size_bytes < end => Err(Refusal::TooLong),
        (Beginning::Whole, Extent::Rest) if end < size_bytes => Err(Refusal::TooShort),
        (Beginning::At(_), Extent::Rest) if end < size_bytes => Err(Refusal::InconsistentLength),
        _ => Ok(()),
    }
}

/// Refuses `OtherContentType`; an absent or empty type is nobody's other.
fn check_content_type(expected: &ContentType, got: Option<&str>) -> Result<(), Refusal> {
    let Some(got) = got.filter(|got| !got.trim().is_empty()) else {
        return Ok(());
    };
    match ContentType::parse(got) {
        Ok(got) if got.essence() == expected.essence() => Ok(()),
        _ => Err(Refusal::OtherContentType),
    }
}
