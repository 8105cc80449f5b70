//! What we can do: one method each. The only caller of the stores.
//!
//! A method fetches facts, asks core, applies the effect, in that order. Stores' troubles end here:
//! they are logged once, with what was being done, and edges get a refusal without innards.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, Method};
use jid::{BareJid, Jid};
use tokio::sync::Mutex;
use tracing::{debug, error, info};

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
mod bans;
pub mod command;
mod ending;
pub mod events;
mod external;
mod hashes;
pub mod health;
pub mod import;
mod intake;
mod keys;
pub mod logins;
pub mod operations;
mod orders;
mod rates;
mod receive;
pub mod recent;
mod recover;
mod replay;
mod resume;
pub mod session;
mod settings;
mod status;
pub mod sweep;
mod transfers;
pub mod upload;
mod whole;
mod write;

use bans::Gatekeeper;
use events::Listeners;
use hashes::Hashes;
use health::Streams;
use logins::Logins;
use orders::OrderBook;
use rates::Rates;
use recent::Recent;
use session::SessionView;
pub use settings::Settings;
use sweep::Deletions;
use transfers::Transfers;
use whole::Gathering;

/// When to ask again for a slot while none are given out.
const DRAINING_RETRY_IN: Duration = Duration::from_secs(300);

/// The same while the service stops: it may be there again soon after.
const STOPPING_RETRY_IN: Duration = Duration::from_secs(15);

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
    bans: Gatekeeper,
    logins: Logins,
    hashes: Hashes,
    gathering: Arc<Gathering>,
    is_draining: AtomicBool,
    keys_turn: Mutex<()>,
    streams: Arc<Streams>,
    listeners: Listeners,
    orders: OrderBook,
    recent: Arc<Recent>,
    deletions: OnceLock<Deletions>,
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
            bans: Gatekeeper::default(),
            logins: Logins::default(),
            hashes: Hashes::default(),
            gathering: Arc::default(),
            is_draining: AtomicBool::new(false),
            keys_turn: Mutex::default(),
            streams: Arc::default(),
            listeners: Listeners::default(),
            orders: OrderBook::default(),
            recent: Arc::default(),
            deletions: OnceLock::new(),
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
        self.check_taking(now)?;
        let uptime = self.uptime();
        self.take_rate(&settings, &owner, request.size_bytes, now)?;
        let free = self.stores.files.room().await;
        let free = free.map_err(|e| full(broken("ask for free space", &e), now))?;
        let since = settings.policy.quota.since(now);
        let ids = NewIds {
            slot: SlotId::new(uptime, self.world.random()),
            session: SessionId::new(uptime, self.world.random()),
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
        row.map_err(|failure| full(refusal_of("admit a slot", failure), now))
    }

    /// Refuses `Draining` while no uploads are taken.
    fn check_taking(&self, now: Timestamp) -> Result<(), Refusal> {
        let retry_in = match self.transfers.is_stopping() {
            true => STOPPING_RETRY_IN,
            false if self.is_draining() => DRAINING_RETRY_IN,
            false => return Ok(()),
        };
        Err(Refusal::Draining {
            retry_at: now.plus(retry_in),
            note: self.note().map(String::into_boxed_str),
        })
    }

    /// Counts an upload of `owner`'s, or refuses `SlotRateReached`.
    fn take_rate(
        &self,
        settings: &Settings,
        owner: &BareJid,
        size_bytes: u64,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let (slot_rate, byte_rate) = (settings.slot_rate, settings.byte_rate);
        // Rates go by a clock that nobody sets: one set back would hold requesters up for as long.
        let steady_now = Timestamp(self.uptime().as_secs());
        let taken = self
            .rates
            .take(owner, size_bytes, slot_rate, byte_rate, steady_now);
        taken.map_err(|fits_at| Refusal::SlotRateReached {
            retry_at: now.plus(fits_at.since(steady_now)),
        })
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

    /// Returns once both stores have said something, whatever it was.
    pub async fn answer(&self) {
        let said = self.stores.sessions.totals().await.map(drop);
        let also_said = self.stores.files.room().await.map(drop);
        for error in [said, also_said].into_iter().filter_map(Result::err) {
            debug!(%error, "a store answers with trouble");
        }
    }

    /// Refuses new uploads and slots from now on; tells how many are running.
    pub fn drain(&self) -> usize {
        self.transfers.stop()
    }

    /// Cuts the uploads that still run, and returns when their last bytes are durable.
    pub async fn cut_uploads(&self) {
        self.transfers.cut_all().await;
    }
}

/// No room for a new upload: it may be asked for again.
fn full(refusal: Refusal, now: Timestamp) -> Refusal {
    match refusal {
        Refusal::NoSpace => Refusal::StorageFull {
            retry_at: now.plus(STORAGE_RETRY_IN),
        },
        refusal => refusal,
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
