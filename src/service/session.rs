//! What the owner of an upload session asks for over XMPP: query, list, refresh, cancel.
//!
//! All are bound to the owner's bare JID. Somebody else's session and none are answered alike.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jid::{BareJid, Jid};
use tracing::info;

use crate::core::event::{Canceller, Event};
use crate::core::refusal::Refusal;
use crate::core::session::owner::Standing;
use crate::core::session::{State, UploadSession};
use crate::core::slot::{SessionId, Slot, SlotId};
use crate::core::time::Timestamp;
use crate::core::token;
use crate::service::transfers::Transfer;
use crate::service::{Service, broken, refusal_of};
use crate::store::{Change, Failure};

/// Most sessions in a list.
pub const LIST_MAX: usize = 50;
/// Most sessions looked at for a list of those in one state.
const LOOK_MAX: usize = 250;
/// How often a row is read again because its holder has just gone.
const LOOKS_MAX: usize = 100;

/// An upload session as its owner is told of it.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionView {
    /// Its name.
    pub id: SessionId,
    /// How it stands.
    pub standing: Standing,
    /// Whether bytes are coming in now.
    pub is_active: bool,
    /// How many bytes are durable; never less than was told before.
    pub offset: u64,
    /// The file's size in bytes.
    pub size_bytes: u64,
    /// How long a request with the current credentials may still start.
    pub credential_left: Duration,
    /// How long the session lives.
    pub expires_in: Duration,
    /// How many refreshes are left.
    pub refreshes_left: u8,
    /// Where the upload goes on, while it can.
    pub resume_url: Option<String>,
}

/// Without the resume URL: it would write to the slot.
impl fmt::Debug for SessionView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionView")
            .field("standing", &self.standing)
            .field("offset", &self.offset)
            .field("refreshes_left", &self.refreshes_left)
            .finish_non_exhaustive()
    }
}

/// A list of sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionList {
    /// The newest first.
    pub sessions: Vec<SessionView>,
    /// Whether there may be more.
    pub is_cut: bool,
}

/// The answer to a refresh.
pub struct Refreshed {
    /// How the session stands, with its final offset.
    pub session: SessionView,
    /// New credentials; none where the upload is complete.
    pub slot: Option<Slot>,
}

/// What upload sessions are like here, for service discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTerms {
    /// How long credentials wait for a request.
    pub slot_timeout: Duration,
    /// How often a session may be refreshed.
    pub refreshes_max: u8,
    /// How long a session lives.
    pub session_age: Duration,
}

impl Service {
    /// What upload sessions are like here.
    pub fn session_terms(&self) -> SessionTerms {
        let lifetimes = &self.settings().policy.lifetimes;
        SessionTerms {
            slot_timeout: lifetimes.idle_for,
            refreshes_max: lifetimes.refreshes_max,
            session_age: lifetimes.session_age,
        }
    }

    /// How a session stands; disturbs nobody. Refuses `UnknownSession`.
    pub async fn query_session(
        &self,
        requester: &Jid,
        id: SessionId,
    ) -> Result<SessionView, Refusal> {
        let row = self.owned_row(&requester.to_bare(), id).await?;
        self.look(row, id).await
    }

    /// The requester's sessions, the newest first, where `wanted` of those in one state.
    pub async fn list_sessions(
        &self,
        requester: &Jid,
        wanted: Option<&str>,
    ) -> Result<SessionList, Refusal> {
        let n_max = match wanted {
            None => LIST_MAX + 1,
            Some(_) => LOOK_MAX + 1,
        };
        let rows = self.stores.sessions.owned(requester.to_bare(), n_max).await;
        let rows = rows.map_err(|e| broken("list upload sessions", &e))?;
        let mut list = SessionList {
            sessions: Vec::new(),
            is_cut: n_max <= rows.len(),
        };
        let now = self.world.now();
        for row in rows.into_iter().take(n_max - 1) {
            let Some(id) = row.session_id() else { continue };
            if wanted.is_some_and(|wanted| wanted != row.standing(now).as_str()) {
                continue;
            }
            if LIST_MAX <= list.sessions.len() {
                list.is_cut = true;
                break;
            }
            list.sessions.push(self.look(row, id).await?);
        }
        Ok(list)
    }

    /// Makes new credentials; the old ones are dead, and a transfer in flight is cut, when this
    /// returns. Refuses `NotAllowed` and as `UploadSession::refresh` does.
    pub async fn refresh_session(
        self: &Arc<Self>,
        requester: &Jid,
        id: SessionId,
    ) -> Result<Refreshed, Refusal> {
        let owner = requester.to_bare();
        let row = self.owned_row(&owner, id).await?;
        self.settings().policy.access.check(&owner)?;
        if self.transfers.is_stopping() {
            return Err(Refusal::Stopping);
        }
        let (settings, now, by) = (self.settings.load_full(), self.world.now(), owner.clone());
        let change: Change = Box::new(move |row| row.refresh(&by, &settings.policy.lifetimes, now));
        let row = self.change_session(row.id, change).await?;
        let (row, offset) = match row.is_open() {
            true => self.settled(row.id).await?,
            false => (row.clone(), row.offset()),
        };
        // It may have ended while its last bytes came in.
        row.check_refresh(&owner, self.world.now())?;
        info!(
            slot = row.id.short(),
            generation = row.generation,
            offset,
            "upload session refreshed"
        );
        self.tell(Event::SessionRefreshed { row: &row, offset });
        Ok(Refreshed {
            session: self.view(&row, id, offset, self.world.now()),
            slot: row.is_open().then(|| self.slot(&row)),
        })
    }

    /// Gives an upload up: nothing of it is left when this returns. Refuses as
    /// `UploadSession::cancel` does.
    pub async fn cancel_session(
        self: &Arc<Self>,
        requester: &Jid,
        id: SessionId,
    ) -> Result<(), Refusal> {
        let owner = requester.to_bare();
        let row = self.owned_row(&owner, id).await?;
        let now = self.world.now();
        let cancel: Change = Box::new(move |row| row.cancel(&owner, now));
        self.give_up(row.id, cancel, Canceller::Owner).await
    }

    /// Ends an upload by `cancel`, and removes its bytes; also when the caller's future is dropped.
    pub(super) async fn give_up(
        self: &Arc<Self>,
        id: SlotId,
        cancel: Change,
        by: Canceller,
    ) -> Result<(), Refusal> {
        let service = self.clone();
        let discarding = tokio::spawn(async move {
            let row = service.change_session(id, cancel).await?;
            // From here on it is cancelled, whatever becomes of its bytes.
            service.tell(Event::UploadCancelled { row: &row, by });
            let _holder = service.take_over(id).await?;
            let removed = service.stores.files.remove(id).await;
            removed.map_err(|e| broken("remove a cancelled upload", &e))?;
            service.hashes.forget(id);
            info!(slot = id.short(), "upload cancelled");
            Ok(())
        });
        discarding.await.unwrap_or(Err(Refusal::Broken))
    }

    /// The row behind a session's name, if it is the owner's.
    async fn owned_row(&self, owner: &BareJid, id: SessionId) -> Result<UploadSession, Refusal> {
        let found = self.stores.sessions.find_session(id).await;
        let slot = found.map_err(|e| broken("look for an upload session", &e))?;
        let slot = slot.ok_or(Refusal::UnknownSession)?;
        let row = self.stores.sessions.get(slot).await;
        let row = row.map_err(|e| broken("look an upload session up", &e))?;
        let row = row.ok_or(Refusal::UnknownSession)?;
        row.check_owner(owner)?;
        Ok(row)
    }

    async fn change_session(&self, id: SlotId, change: Change) -> Result<UploadSession, Refusal> {
        match self.stores.sessions.update(id, change).await {
            Err(Failure::Refused(Refusal::UnknownFile)) => Err(Refusal::UnknownSession),
            updated => updated.map_err(|e| refusal_of("change an upload session", e)),
        }
    }

    /// A view that is up to date, also after a crash and while bytes come in.
    async fn look(&self, row: UploadSession, id: SessionId) -> Result<SessionView, Refusal> {
        let (row, offset) = self.look_closely(row).await?;
        Ok(self.view(&row, id, offset, self.world.now()))
    }

    /// The row and its durable offset; disturbs nobody.
    ///
    /// The row alone tells it where the last attempt was ended. Otherwise its writer knows, or a
    /// crash left it, and what it left is noted first, once.
    pub(super) async fn look_closely(
        &self,
        mut row: UploadSession,
    ) -> Result<(UploadSession, u64), Refusal> {
        for _ in 0..LOOKS_MAX {
            if row.state != State::Uploading || row.newest.is_none() {
                let offset = row.offset();
                return Ok((row, offset));
            }
            if let Some(durable) = self.transfers.durable(row.id).await {
                let offset = row.offset().max(durable);
                return Ok((row, offset));
            }
            if let Some(holder) = self.transfers.try_hold(row.id) {
                return self.settle_held(&holder, row.id).await;
            }
            if self.transfers.is_stopping() {
                return Err(Refusal::Stopping);
            }
            row = self.current_row(row.id).await?;
        }
        Err(Refusal::TakenOver)
    }

    async fn current_row(&self, id: SlotId) -> Result<UploadSession, Refusal> {
        let row = self.stores.sessions.get(id).await;
        let row = row.map_err(|e| broken("look a slot up", &e))?;
        row.ok_or(Refusal::UnknownSession)
    }

    pub(super) fn view(
        &self,
        row: &UploadSession,
        id: SessionId,
        offset: u64,
        now: Timestamp,
    ) -> SessionView {
        let standing = row.standing(now);
        let is_open = matches!(standing, Standing::Pending | Standing::Uploading);
        let is_useful = is_open || matches!(standing, Standing::Complete { .. });
        let is_useful = is_useful && now < row.expires_at;
        let live = self.with_live_byte(row.clone());
        SessionView {
            id,
            standing,
            is_active: is_open && self.transfers.is_active(row.id),
            offset,
            size_bytes: row.file.size_bytes,
            credential_left: match is_open {
                true => live.credential_left(now),
                false => Duration::ZERO,
            },
            expires_in: row.expires_at.since(now),
            refreshes_left: row.refreshes_left(&self.settings().policy.lifetimes),
            resume_url: is_useful.then(|| self.resume_url(row)),
        }
    }

    pub(super) fn resume_url(&self, row: &UploadSession) -> String {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let sealed = token::seal_resume(&keys, row.resume_claims());
        format!("{}r/{sealed}", self.settings().public_url)
    }

    /// Cuts whoever writes to the slot, and holds it. Refuses `Stopping`.
    async fn take_over(self: &Arc<Self>, id: SlotId) -> Result<Transfer, Refusal> {
        self.transfers.take_turn(id).await
    }

    /// The row and its durable offset, once whoever wrote has been cut and all that came is noted.
    ///
    /// Whoever came later waits: its turn is not taken from it.
    pub(super) async fn settled(
        self: &Arc<Self>,
        id: SlotId,
    ) -> Result<(UploadSession, u64), Refusal> {
        let holder = self.take_over(id).await?;
        self.settle_held(&holder, id).await
    }

    /// Notes what an attempt that nobody ended (a crash did) has left.
    async fn settle_held(
        &self,
        holder: &Transfer,
        id: SlotId,
    ) -> Result<(UploadSession, u64), Refusal> {
        let mut row = self.current_row(id).await?;
        if let Some((part, offset)) = self.left_over(&row).await? {
            let before = row.parts();
            let change: Change = Box::new(move |mut row| {
                row.end_attempt(part, offset, Timestamp::default());
                Ok(row)
            });
            row = self.update(id, change).await?;
            self.drop_parts(&before, &row).await;
        }
        let offset = row.offset();
        holder.note_durable(offset);
        Ok((row, offset))
    }
}
