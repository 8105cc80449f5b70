//! What we can do: one method each. The only caller of the stores.
//!
//! A method fetches facts, asks core, applies the effect, in that order. Stores' troubles end here:
//! they are logged once, with what was being done, and edges get a refusal without innards.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, Method};
use jid::Jid;
use tokio::sync::{Mutex, MutexGuard};
use tracing::{debug, error, info};

use crate::core::command::operation::Outcome;
use crate::core::download::{self, Answer, Served};
use crate::core::event::Event;
use crate::core::policy::{self, Facts, NewIds, STORAGE_RETRY_IN};
use crate::core::refusal::Refusal;
use crate::core::session::UploadSession;
use crate::core::slot::{SessionId, Slot, SlotId, SlotRequest};
use crate::core::time::Timestamp;
use crate::core::token::{self, Keys};
use crate::meters::work;
use crate::store::{Content, Failure, StoreError, Stores};

pub mod audit;
pub mod command;
mod ending;
pub mod events;
mod hashes;
pub mod health;
mod intake;
pub mod operations;
mod orders;
mod rates;
mod receive;
mod recover;
mod replay;
mod resume;
pub mod session;
mod settings;
pub mod sweep;
mod transfers;
pub mod upload;
mod whole;
mod write;

use events::Listeners;
use hashes::Hashes;
use health::Streams;
use orders::OrderBook;
use rates::Rates;
use session::SessionView;
pub use settings::Settings;
use transfers::Transfers;
use whole::Gathering;

/// When to ask again for a slot while none are given out.
const DRAINING_RETRY_IN: Duration = Duration::from_secs(300);

/// The two things that cannot be computed.
pub trait World: Send + Sync {
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// 128 random bits of the operating system.
    fn random(&self) -> u128;
    /// Time since some fixed moment, which nobody can set.
    fn monotonic(&self) -> Duration;
}

/// What a requester gets.
pub struct Issued {
    /// The slot.
    pub slot: Slot,
    /// The upload session, where one was asked for.
    pub session: Option<SessionView>,
}

/// An answer to GET or HEAD.
pub struct Download {
    /// Its head.
    pub answer: Answer<Arc<Served>>,
    /// Its bytes.
    pub body: Option<Content>,
}

/// The service: shared by all edges behind `Arc`.
pub struct Service {
    settings: ArcSwap<Settings>,
    keys: RwLock<Keys>,
    stores: Stores,
    world: Arc<dyn World>,
    started_at: Duration,
    transfers: Arc<Transfers>,
    rates: Rates,
    hashes: Hashes,
    gathering: Arc<Gathering>,
    is_draining: AtomicBool,
    keys_turn: Mutex<()>,
    streams: Arc<Streams>,
    listeners: Listeners,
    orders: OrderBook,
}

impl Service {
    /// The service over its stores.
    pub fn new(settings: Settings, keys: Keys, stores: Stores, world: Arc<dyn World>) -> Arc<Self> {
        Arc::new(Self {
            settings: ArcSwap::from_pointee(settings),
            keys: RwLock::new(keys),
            stores,
            started_at: world.monotonic(),
            world,
            transfers: Arc::default(),
            rates: Rates::default(),
            hashes: Hashes::default(),
            gathering: Arc::default(),
            is_draining: AtomicBool::new(false),
            keys_turn: Mutex::default(),
            streams: Arc::default(),
            listeners: Listeners::default(),
            orders: OrderBook::default(),
        })
    }

    /// The largest file a slot is given for, in bytes.
    pub fn size_bytes_max(&self) -> u64 {
        self.settings().policy.size_bytes_max
    }

    /// How long the service has run: XEP-0012.
    pub fn uptime(&self) -> Duration {
        self.world.monotonic().saturating_sub(self.started_at)
    }

    /// Issues a slot to `requester` (a full JID in most stanzas). XEP-0363 #request.
    ///
    /// Refuses as `policy` does, and `SlotRateReached`. The row is durable before this returns.
    pub async fn request_slot(
        &self,
        requester: &Jid,
        request: SlotRequest,
    ) -> Result<Issued, Refusal> {
        let (now, size_bytes) = (self.world.now(), request.size_bytes);
        let result = self.admit(requester, request, now).await;
        match &result {
            Ok(row) => {
                let slot = row.id.short();
                info!(requester = %row.owner, slot, size_bytes, "slot issued");
                self.tell(Event::SlotIssued { row });
            }
            Err(refusal) => {
                let account = &requester.to_bare();
                debug!(requester = %account, ?refusal, "slot refused");
                self.tell(Event::SlotRefused {
                    account,
                    size_bytes,
                    refusal,
                });
            }
        }
        result.map(|row| Issued {
            slot: self.slot(&row),
            session: row
                .session_id()
                .map(|id| self.view(&row, id, row.offset(), now)),
        })
    }

    async fn admit(
        &self,
        requester: &Jid,
        request: SlotRequest,
        now: Timestamp,
    ) -> Result<UploadSession, Refusal> {
        let settings = self.settings.load_full();
        let owner = requester.to_bare();
        policy::screen(&settings.policy, &owner, &request, now)?;
        if self.is_draining() {
            return Err(Refusal::Draining {
                retry_at: now.plus(DRAINING_RETRY_IN),
                note: self.note().map(String::into_boxed_str),
            });
        }
        let size_bytes = request.size_bytes;
        let (slot_rate, byte_rate) = (settings.slot_rate, settings.byte_rate);
        // Rates go by a clock that nobody sets: one set back would hold requesters up for as long.
        let uptime = Timestamp(self.uptime().as_secs());
        let taken = self
            .rates
            .take(&owner, size_bytes, slot_rate, byte_rate, uptime);
        taken.map_err(|fits_at| Refusal::SlotRateReached {
            retry_at: now.plus(fits_at.since(uptime)),
        })?;
        let full = |refusal| match refusal {
            Refusal::NoSpace => Refusal::StorageFull {
                retry_at: now.plus(STORAGE_RETRY_IN),
            },
            refusal => refusal,
        };
        let free = self.stores.files.room().await;
        let free = free.map_err(|e| full(broken("ask for free space", &e)))?;
        let since = settings.policy.quota.since(now);
        let ids = NewIds {
            slot: SlotId(self.world.random()),
            session: SessionId(self.world.random()),
        };
        let said = self.orders.said_of(&owner);
        let requester = owner.clone();
        let decide = Box::new(move |usage: &policy::Usage| {
            policy::admit(
                &settings.policy,
                &requester,
                &request,
                Facts { usage, free, said },
                ids,
                now,
            )
        });
        let row = self.stores.sessions.admit(owner, since, decide).await;
        row.map_err(|failure| full(refusal_of("admit a slot", failure)))
    }

    fn slot(&self, row: &UploadSession) -> Slot {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let token = token::seal(&keys, &row.put_claims());
        let settings = self.settings();
        let base = &settings.public_url;
        let (id, name) = (row.id.to_string(), row.file.name.to_url_segment());
        // Joined, not formatted: that would be an eighth of all that a slot costs.
        let get_url = [base, "f/", &id, "/", &name].concat();
        if settings.token_in_header {
            Slot {
                put_url: get_url.clone(),
                get_url,
                put_headers: vec![("Authorization", format!("Bearer {token}"))],
            }
        } else {
            Slot {
                put_url: [&get_url, "?t=", &token].concat(),
                get_url,
                put_headers: Vec::new(),
            }
        }
    }

    /// Opens a file for GET or HEAD; refuses as `download::answer` does.
    pub async fn open_file(
        &self,
        id: SlotId,
        name: &str,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Download, Refusal> {
        let answer = self.decide_download(id, name, method, headers).await?;
        self.open_decided(id, answer).await
    }

    /// The same for a request that came through a trusted proxy, which may send the bytes itself.
    pub async fn open_file_for_proxy(
        &self,
        id: SlotId,
        name: &str,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Download, Refusal> {
        let mut answer = self.decide_download(id, name, method, headers).await?;
        if let Some(place) = self.stores.files.place(id) {
            self.settings()
                .accel
                .hand_over(&mut answer, headers, &place);
        }
        self.open_decided(id, answer).await
    }

    async fn decide_download(
        &self,
        id: SlotId,
        name: &str,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Answer<Arc<Served>>, Refusal> {
        let served = self.stores.sessions.served(id).await;
        let served = served.map_err(|e| broken("look a file up", &e))?;
        let served = served.ok_or(Refusal::UnknownFile)?;
        download::answer(served, name, method, headers, self.world.now())
    }

    async fn open_decided(
        &self,
        id: SlotId,
        answer: Answer<Arc<Served>>,
    ) -> Result<Download, Refusal> {
        let body = match answer.bytes.clone() {
            Some(bytes) => {
                let body = self.stores.files.open(id, bytes).await;
                Some(body.map_err(|e| broken("open a file", &e))?)
            }
            None => None,
        };
        Ok(Download { answer, body })
    }

    /// The keys in use.
    pub fn keys(&self) -> Keys {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }

    /// Held by who changes the file of keys, until the new ones are in use: of two at once the
    /// older would win.
    pub async fn turn_for_keys(&self) -> MutexGuard<'_, ()> {
        self.keys_turn.lock().await
    }

    /// Puts other keys into use; what the old ones alone sealed is refused from now on.
    pub fn set_keys(&self, keys: Keys) {
        let n_keys = keys.list().len();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        self.tell(Event::KeysChanged { n_keys });
    }

    /// What `keys` become when their time has come: a new one signs, the oldest are left out.
    pub fn next_keys(&self, keys: &Keys) -> Option<Keys> {
        let now = self.world.now();
        let settings = self.settings();
        let kept = keys.retire(settings.keep_old_for, now);
        let is_due = |every| kept.is_rotation_due(every, now);
        let next = if settings.rotate_every.is_some_and(is_due) {
            kept.rotate(self.random_secret(), now)
        } else {
            kept
        };
        (next != *keys).then_some(next)
    }

    fn random_secret(&self) -> [u8; 32] {
        let halves = [self.world.random(), self.world.random()];
        let mut secret = [0; 32];
        secret[..16].copy_from_slice(&halves[0].to_be_bytes());
        secret[16..].copy_from_slice(&halves[1].to_be_bytes());
        secret
    }

    /// Gives out no more slots, or some again; until then, or a restart.
    fn set_draining(&self, is_draining: bool) -> Outcome {
        self.is_draining.store(is_draining, Ordering::Relaxed);
        self.tell(Event::Draining { is_draining });
        Outcome::Draining(is_draining, self.transfers.active().len())
    }

    /// Refuses new uploads from now on; tells how many are running.
    pub fn drain(&self) -> usize {
        self.transfers.stop()
    }

    /// Cuts the uploads that still run, and returns when their last bytes are durable.
    pub async fn cut_uploads(&self) {
        self.transfers.cut_all().await;
    }
}

/// What edges get to know of a failure; the log gets the rest.
fn refusal_of(doing: &'static str, failure: Failure) -> Refusal {
    match failure {
        Failure::Refused(refusal) => refusal,
        Failure::Broken(store_error) => broken(doing, &store_error),
    }
}

/// Logs a store's trouble, once, and turns it into what a peer may know.
fn broken(doing: &'static str, store_error: &StoreError) -> Refusal {
    error!(error = %store_error, "could not {doing}");
    work().count_store_error(store_error.kind());
    match store_error {
        StoreError::NoSpace { .. } => Refusal::NoSpace,
        StoreError::Unavailable { .. } | StoreError::Corrupt(_) => Refusal::Broken,
    }
}
