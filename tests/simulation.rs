//! Random operations on the real service, from a seed: whatever happens, the invariants hold.
//!
//! Slots, uploads that end in every way, appends at right and wrong offsets, switches, races,
//! refreshes whose replies are lost, cancels, sweeps, leaping clocks, rotated keys, stores that
//! fail and processes that die. After each step everything is compared with a
//! model of what was acknowledged. `SLOTD_SIM_SEED=7` replays one seed with its story,
//! `SLOTD_SIM_SEED=1000..9000` goes further than a usual run.

mod support;

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Method, header};
use jid::{BareJid, Jid};
use sha2::Digest as _;
use slotd::core::policy::Bucket;
use slotd::core::refusal::Refusal;
use slotd::core::resume::{Checksum, Extent};
use slotd::core::session::network::Visitor;
use slotd::core::session::owner::Standing;
use slotd::core::session::{State, UploadSession};
use slotd::core::slot::{FileName, PartId, Purpose, SessionId, SessionWish, Sha256, SlotRequest};
use slotd::core::time::Timestamp;
use slotd::core::token::{self, Keys};
use slotd::service::audit::{Depth, Kind, Options, audit};
use slotd::service::sweep::{Reason, Sweeper};
use slotd::service::upload::{Beginning, Extant, Received};
use slotd::service::{Issued, Service, Settings};
use slotd::store::memory::{MemoryFiles, MemorySessions};
use slotd::store::{Body, BodyError, Mend, Stored, Stores};
use support::outage::{self, Outage, Trouble};
use support::upload::{Put, append, broken_after, put_from, put_of, whole};
use support::world::{START, TestWorld, settings};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Seeds of a usual run, over each kind of store.
const SEEDS_MEMORY: u64 = 60;
const SEEDS_DIRECTORY: u64 = 3;
const STEPS: u64 = 60;
const SIZE_MAX: u64 = 3000;
const QUOTA: u64 = 12_000;
const DAY_S: u64 = 86_400;
const ACCOUNTS: [&str; 3] = [
    "romeo@example.org",
    "juliet@example.org",
    "nurse@example.org",
];

/// Numbers from a seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 to `n - 1`.
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

fn content(kind: u8, size_bytes: u64) -> Bytes {
    (0..size_bytes)
        .map(|n| (n as u8).wrapping_mul(31) ^ kind)
        .collect()
}

fn digest(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

/// How a PUT's body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Whole,
    /// The connection breaks after so many bytes.
    Cut(u64),
    /// Chunked, and ends after so many bytes.
    Short(u64),
    /// Chunked, with so many bytes too many.
    Long(u64),
    /// The announced digest is another's.
    Misannounced,
    /// Content-Length is another's.
    WrongLength(u64),
    /// The URL names another file.
    WrongName,
}

/// What we know of a slot.
struct Held {
    upload: Put,
    owner: BareJid,
    size_bytes: u64,
    /// The upload session, where one was asked for.
    session: Option<SessionId>,
    /// The last segment of its resume URL, where there is one.
    url: Option<String>,
    /// Tokens of generations before.
    dead: Vec<String>,
    /// Resume URLs of generations before.
    dead_urls: Vec<String>,
    /// The highest offset that anybody was told.
    told: u64,
    /// The prefix when it was last looked at, and its bytes.
    prefix: Option<(PartId, Bytes)>,
    /// What a 201 was given for.
    acknowledged: Option<Bytes>,
    /// The row when it was last looked at.
    row: Option<UploadSession>,
    /// A sweep told that it removed it.
    is_removed: bool,
    /// Its row is no more.
    is_gone: bool,
}

/// An upload that goes on over several steps.
struct Flight {
    slot: usize,
    generation: u8,
    bytes: Bytes,
    n_sent: usize,
    feed: Option<mpsc::UnboundedSender<Result<Bytes, BodyError>>>,
    handle: JoinHandle<Result<Received, Refusal>>,
}

/// Where rows and files are.
enum Backing {
    Memory,
    Directory(tempfile::TempDir),
}

impl Backing {
    fn open(&self) -> Stores {
        match self {
            Self::Memory => Stores {
                sessions: Arc::new(MemorySessions::new(7)),
                files: Arc::new(MemoryFiles::new(7)),
            },
            Self::Directory(directory) => {
                let durability = slotd::config::Durability::None;
                slotd::store::open(directory.path(), durability).expect("the stores open")
            }
        }
    }
}

type Story = Arc<Mutex<Vec<String>>>;

struct Simulation {
    chance: Chance,
    backing: Backing,
    settings: Settings,
    world: Arc<TestWorld>,
    /// The stores themselves, and as the service sees them.
    stores: Stores,
    outage: Arc<Outage>,
    seen: Stores,
    service: Arc<Service>,
    sweeper: Sweeper,
    slots: Vec<Held>,
    flights: Vec<Flight>,
    /// Complete rows that are gone: their bytes stay used.
    used: Vec<(BareJid, Bucket, u64)>,
    forgotten: Bucket,
    /// The latest time it ever was.
    latest: Timestamp,
    /// Whether a sweep broke off, so that its report is not whole.
    sweep_broke: bool,
    /// Whether any call of a store ever failed.
    had_trouble: bool,
    latest_put: Option<usize>,
    story: Story,
}

impl Simulation {
    fn new(seed: u64, backing: Backing, story: Story) -> Self {
        let mut chance = Chance(seed);
        let mut settings = settings();
        settings.policy.quota.per_requester = Some(QUOTA);
        settings.policy.lifetimes.retention.ephemeral = Some(Duration::from_secs(DAY_S));
        settings.policy.lifetimes.retention.profile = Some(Duration::from_secs(40 * DAY_S));
        settings.policy.lifetimes.retention.permanent = Some(Duration::from_secs(90 * DAY_S));
        settings.total_bytes_max = chance.one_in(3).then_some(8000);
        let world = TestWorld::new(seed);
        let stores = backing.open();
        let outage = Outage::new(chance.next());
        let seen = outage::over(&stores, &outage);
        let keys = Keys::first([7; 32], START);
        let service = Service::new(settings.clone(), keys, seen.clone(), world.clone());
        Self {
            sweeper: Sweeper::new(service.clone()),
            chance,
            backing,
            settings,
            world,
            stores,
            outage,
            seen,
            service,
            slots: Vec::new(),
            flights: Vec::new(),
            used: Vec::new(),
            forgotten: Bucket(0),
            latest: START,
            sweep_broke: false,
            had_trouble: false,
            latest_put: None,
            story,
        }
    }

    fn tell(&self, what: impl Into<String>) {
        self.story.lock().expect("not poisoned").push(what.into());
    }

    fn now(&self) -> Timestamp {
        slotd::service::World::now(self.world.as_ref())
    }

    /// Uploads that span steps need stores that are done when tasks are.
    fn has_flights(&self) -> bool {
        matches!(self.backing, Backing::Memory)
    }

    async fn step(&mut self) {
        let has_trouble = self.outage.is_armed();
        if self.chance.one_in(6) {
            self.arm(0, 14);
        }
        match self.chance.below(150) {
            0..18 => self.request_slot().await,
            18..42 => self.put().await,
            42..48 => self.race().await,
            48..55 => self.put_with_dead_token().await,
            55..60 => self.refresh().await,
            60..63 => self.cancel().await,
            63..71 => self.sweep().await,
            71..78 => {
                self.pass();
                if self.chance.one_in(2) {
                    self.arm(0, 14);
                    self.sweep().await;
                }
            }
            78..80 => self.rotate_keys(),
            80..82 => self.restart().await,
            82..100 if self.has_flights() => self.fly().await,
            100..108 => self.query().await,
            108..118 => drop(self.head().await),
            118..136 => self.append().await,
            136..140 => self.append_with_dead_url().await,
            140..145 => self.refresh().await,
            _ => self.range().await,
        }
        self.land().await;
        if self.outage.is_dead() {
            self.crash().await;
            // A client that lost its answer comes again.
            if let Some(slot) = self.latest_put {
                self.put_to(slot, Manner::Whole).await;
            }
        } else if has_trouble && self.chance.one_in(2) {
            // It did not come in time: do without.
            self.outage.disarm();
        }
        self.latest = self.latest.max(self.now());
    }

    // What clients do

    async fn request_slot(&mut self) {
        let owner = BareJid::new(self.chance.pick(&ACCOUNTS)).expect("valid");
        let size_bytes = 1 + self.chance.below(SIZE_MAX);
        let now = self.now();
        let end = Timestamp(now.0 + self.chance.pick(&[60, 1000, 2 * DAY_S]));
        let ephemeral = Purpose::Ephemeral { expire_before: end };
        let purposes = [
            Purpose::Message,
            Purpose::Profile,
            Purpose::Permanent,
            ephemeral,
        ];
        let request = SlotRequest {
            filename: FileName::parse("a.bin").expect("valid"),
            size_bytes,
            content_type: None,
            purpose: self.chance.pick(&purposes),
            session: self.wish(size_bytes),
        };
        let is_armed = self.outage.is_armed();
        let n_rows = self.stores.sessions.totals().await.expect("read").n_rows;
        let used = self.used_bytes(&owner).await;
        let requester = Jid::from(owner.clone());
        let result = self.service.request_slot(&requester, request).await;
        self.tell(format!(
            "slot of {size_bytes} for {owner}: {:?}",
            result.as_ref().err()
        ));
        match result {
            Ok(slot) => {
                assert!(
                    used + size_bytes <= QUOTA,
                    "{used} + {size_bytes} of {QUOTA}"
                );
                self.hold(&slot, owner, size_bytes);
            }
            Err(refusal) => {
                let after = self.stores.sessions.totals().await.expect("read").n_rows;
                if !is_armed {
                    assert_eq!(n_rows, after, "a refusal changes nothing: {refusal:?}");
                    let is_full = QUOTA < used + size_bytes;
                    match refusal {
                        Refusal::QuotaReached { .. } => assert!(is_full, "{used} + {size_bytes}"),
                        Refusal::TooManySessions { .. } => assert!(!is_full),
                        refusal => panic!("{refusal:?}"),
                    }
                }
            }
        }
    }

    /// Every other slot is one of an upload session, some with a digest.
    fn wish(&mut self, size_bytes: u64) -> Option<SessionWish> {
        let sha256 = digest(&content(1, size_bytes));
        let wish = SessionWish {
            sha256: self.chance.one_in(4).then_some(sha256),
        };
        self.chance.one_in(2).then_some(wish)
    }

    fn hold(&mut self, issued: &Issued, owner: BareJid, size_bytes: u64) {
        let session = issued.session.as_ref();
        let url = session.and_then(|session| session.resume_url.as_deref());
        self.slots.push(Held {
            upload: put_from(&issued.slot, size_bytes),
            owner,
            size_bytes,
            session: session.map(|session| session.id),
            url: url.map(put_of),
            dead_urls: Vec::new(),
            told: 0,
            prefix: None,
            dead: Vec::new(),
            acknowledged: None,
            row: None,
            is_removed: false,
            is_gone: false,
        });
    }

    /// A slot, one of the later ones more often.
    fn pick_slot(&mut self) -> Option<usize> {
        let n_slots = self.slots.len() as u64;
        let back = self.chance.below(n_slots).min(self.chance.below(n_slots));
        (0 < n_slots).then(|| (n_slots - 1 - back) as usize)
    }

    fn pick_manner(&mut self, size_bytes: u64) -> Manner {
        let part = self.chance.below(size_bytes);
        match self.chance.below(16) {
            0..8 => Manner::Whole,
            8..11 => Manner::Cut(part),
            11 => Manner::Short(part),
            12 => Manner::Long(1 + part),
            13 => Manner::Misannounced,
            14 => Manner::WrongLength(part),
            _ => Manner::WrongName,
        }
    }

    /// The head and the body of a PUT; the body's pieces end anywhere.
    fn compose(&mut self, slot: usize, kind: u8, manner: Manner) -> (Put, Body) {
        let held = &self.slots[slot];
        let mut upload = held.upload.clone();
        let mut bytes = content(kind, held.size_bytes).to_vec();
        match manner {
            Manner::Whole => {}
            Manner::Cut(n) => bytes.truncate(n as usize),
            Manner::Short(n) => {
                upload.length = None;
                bytes.truncate(n as usize);
            }
            Manner::Long(n) => {
                upload.length = None;
                bytes.resize(bytes.len() + n as usize, 0);
            }
            Manner::Misannounced => upload.sha256 = Some(Sha256([1; 32])),
            Manner::WrongLength(n) => upload.length = Some(n),
            Manner::WrongName => upload.name = "b.bin".to_owned(),
        }
        let mut rest = Bytes::from(bytes);
        let mut pieces = Vec::new();
        // Also where the file should have ended.
        let border = held.size_bytes.min(rest.len() as u64) as usize;
        let mut whole = rest.split_to(border);
        for part in [&mut whole, &mut rest] {
            while !part.is_empty() {
                let n_bytes = 1 + self.chance.below(1500) as usize;
                pieces.push(Ok(part.split_to(n_bytes.min(part.len()))));
            }
        }
        if matches!(manner, Manner::Cut(_)) {
            pieces.push(Err(BodyError));
        }
        let body = stream::iter(pieces).then(|piece| async {
            tokio::task::yield_now().await;
            piece
        });
        (upload, Box::pin(body))
    }

    async fn put(&mut self) {
        if let Some(slot) = self.pick_slot() {
            let manner = self.pick_manner(self.slots[slot].size_bytes);
            if self.chance.one_in(5) {
                // About where the file gets its name and the row its state.
                self.arm(5, 6);
            }
            self.put_to(slot, manner).await;
        }
    }

    async fn put_to(&mut self, slot: usize, manner: Manner) {
        self.latest_put = Some(slot);
        let kind = self.chance.pick(&[1, 1, 1, 2]);
        let is_free = self.flights.iter().all(|flight| flight.slot != slot);
        let before = self.row(slot).await;
        let expected = self.expect(slot, before.as_ref(), kind, manner);
        let may_predict = !self.outage.is_armed() && is_free;
        let (upload, body) = self.compose(slot, kind, manner);
        let result = self.service.receive(upload.into(), body).await;
        let outcome = result.map(|received| received.sha256().expect("a whole file"));
        self.tell(format!("put {slot} {kind} {manner:?}: {outcome:?}"));
        if may_predict {
            assert_eq!(
                outcome, expected,
                "put {slot} {kind} {manner:?} on {before:?}"
            );
        }
        if matches!(manner, Manner::WrongLength(_) | Manner::WrongName) {
            let after = self.row(slot).await;
            assert!(outcome.is_err(), "a wrong head is refused");
            // But that the credentials came through is known now.
            let before = before.map(|row| UploadSession {
                is_presented: after.as_ref().is_some_and(|after| after.is_presented),
                ..row
            });
            assert_eq!(before, after, "a refusal changes nothing");
        }
        if let Ok(sha256) = outcome {
            self.acknowledge(slot, kind, sha256).await;
        }
    }

    /// What a PUT has to be answered, by the row as it is.
    fn expect(
        &self,
        slot: usize,
        row: Option<&UploadSession>,
        kind: u8,
        manner: Manner,
    ) -> Result<Sha256, Refusal> {
        let held = &self.slots[slot];
        let claims = token::open(&self.service.keys(), &held.upload.token)?;
        let row = row.ok_or(Refusal::Gone)?;
        row.clone().begin(&claims, self.now())?;
        let sha256 = digest(&content(kind, held.size_bytes));
        match (manner, row.state) {
            (Manner::WrongName, _) => Err(Refusal::TokenForOther),
            (Manner::WrongLength(_), _) => Err(Refusal::TooShort),
            (Manner::Cut(_), _) => Err(Refusal::Interrupted),
            (Manner::Whole, State::Complete { sha256: stored, .. }) if stored == sha256 => {
                Ok(sha256)
            }
            (_, State::Complete { .. }) => Err(Refusal::AlreadyComplete),
            (Manner::Whole, _) if row.expected.is_some_and(|it| it != sha256) => {
                Err(Refusal::DigestMismatch)
            }
            (Manner::Whole, _) => Ok(sha256),
            (Manner::Short(_), _) => Err(Refusal::TooShort),
            (Manner::Long(_), _) => Err(Refusal::TooLong),
            (Manner::Misannounced, _) => Err(Refusal::DigestMismatch),
        }
    }

    /// Notes a 201; it must be true already.
    async fn acknowledge(&mut self, slot: usize, kind: u8, sha256: Sha256) {
        assert!(!self.outage.is_dead(), "a dead process answers nothing");
        let bytes = content(kind, self.slots[slot].size_bytes);
        assert_eq!(sha256, digest(&bytes), "201 names the bytes that were sent");
        let row = self.row(slot).await.expect("a row");
        let is_so = matches!(row.state, State::Complete { sha256: stored, .. } if stored == sha256);
        assert!(is_so, "201 only for what is complete: {row:?}");
        self.slots[slot].acknowledged = Some(bytes);
    }

    /// Several PUTs of one slot at once: one body is stored, and every 201 is for it.
    async fn race(&mut self) {
        let Some(slot) = self.pick_slot() else { return };
        let n_racers = 2 + self.chance.below(3) as u8;
        let mut racers = Vec::new();
        for kind in 0..n_racers {
            let (upload, body) = self.compose(slot, kind, Manner::Whole);
            let service = self.service.clone();
            racers.push(tokio::spawn(async move {
                service.receive(upload.into(), body).await
            }));
        }
        for (kind, racer) in racers.into_iter().enumerate() {
            let outcome = racer
                .await
                .expect("no panic")
                .map(|received| received.sha256().expect("a whole file"));
            self.tell(format!("race {slot} {kind}: {outcome:?}"));
            if let Ok(sha256) = outcome {
                self.acknowledge(slot, kind as u8, sha256).await;
            }
        }
    }

    /// A generation that was replaced changes nothing any more.
    async fn put_with_dead_token(&mut self) {
        let Some(slot) = self.pick_slot() else { return };
        let held = &self.slots[slot];
        let dead = held.dead.clone();
        let Some(token) = dead.first() else { return };
        let upload = Put {
            token: token.clone(),
            ..held.upload.clone()
        };
        let before = self.row(slot).await;
        let body: Body = Box::pin(stream::iter([Ok(content(3, held.size_bytes))]));
        let outcome = self.service.receive(upload.into(), body).await.map(|_| ());
        self.tell(format!("dead token {slot}: {outcome:?}"));
        let refusal = outcome.expect_err("a dead generation");
        if !self.outage.is_armed() && !self.outage.is_dead() && refusal != Refusal::Broken {
            assert!(
                matches!(refusal, Refusal::TokenInvalid | Refusal::Gone),
                "{refusal:?}"
            );
        }
        assert_eq!(
            before,
            self.row(slot).await,
            "a dead generation changes nothing"
        );
    }

    /// A refresh by the owner or somebody else; the reply may be lost.
    async fn refresh(&mut self) {
        let Some(slot) = self.pick_slot() else { return };
        let held = &self.slots[slot];
        let Some(session) = held.session else { return };
        let (is_other, is_lost) = (self.chance.one_in(6), self.chance.one_in(3));
        let who = if is_other {
            "nurse@elsewhere.example"
        } else {
            held.owner.as_str()
        };
        let before = self.row(slot).await;
        let who = Jid::new(who).expect("valid");
        let result = self.service.refresh_session(&who, session).await;
        let refusal = result.as_ref().err().cloned();
        self.tell(format!("refresh {slot}, lost {is_lost}: {refusal:?}"));
        if is_other {
            assert!(result.is_err(), "not the owner");
            let is_quiet = self.flights.iter().all(|flight| flight.slot != slot);
            assert!(
                !is_quiet || before == self.row(slot).await,
                "a refusal changes nothing"
            );
        }
        let Ok(refreshed) = result else { return };
        self.note_told(slot, refreshed.session.offset);
        let Some(new) = refreshed.slot.filter(|_| !is_lost) else {
            return;
        };
        let row = self.row(slot).await.expect("a row");
        assert!(row.newest.is_none(), "nobody writes: {row:?}");
        let put = put_from(&new, self.slots[slot].size_bytes);
        let url = refreshed.session.resume_url.as_deref().map(put_of);
        let held = &mut self.slots[slot];
        let old = token::open(&self.service.keys(), &held.upload.token);
        if old.is_ok_and(|old| old.generation != row.generation) {
            held.dead.push(held.upload.token.clone());
            held.dead_urls.extend(held.url.take());
        }
        held.upload.token = put.token;
        held.url = url;
    }

    /// Gives an upload up, over IQ or over HTTP.
    async fn cancel(&mut self) {
        let Some(slot) = self.pick_slot() else { return };
        let held = &self.slots[slot];
        let owner = Jid::from(held.owner.clone());
        let result = match (held.session, &held.url) {
            (Some(session), _) if self.chance.one_in(2) => {
                self.service.cancel_session(&owner, session).await
            }
            (_, Some(url)) => self.service.cancel_upload(url).await,
            _ => return,
        };
        self.tell(format!("cancel {slot}: {result:?}"));
        if result.is_ok() {
            let row = self.row(slot).await.expect("a row");
            assert!(row.is_tombstone(), "{row:?}");
            let stored = self.stores.files.find(row.id).await.expect("readable");
            assert_eq!(stored, [], "nothing of it is left");
        }
    }

    /// Notes an offset that somebody was told: it never goes back, whatever comes in between.
    fn note_told(&mut self, slot: usize, offset: u64) {
        assert!(!self.outage.is_dead(), "a dead process answers nothing");
        let held = &mut self.slots[slot];
        assert!(held.told <= offset, "{slot}: {offset} after {}", held.told);
        held.told = offset;
    }

    async fn query(&mut self) {
        let Some(slot) = self.pick_slot() else { return };
        let held = &self.slots[slot];
        let Some(session) = held.session else { return };
        let owner = Jid::from(held.owner.clone());
        let view = match self.chance.one_in(3) {
            true => {
                let list = self.service.list_sessions(&owner, None).await;
                let list = list.map(|list| list.sessions).unwrap_or_default();
                list.into_iter().find(|view| view.id == session)
            }
            false => self.service.query_session(&owner, session).await.ok(),
        };
        let Some(view) = view else { return };
        self.tell(format!("query {slot}: {:?} {}", view.standing, view.offset));
        if matches!(view.standing, Standing::Pending | Standing::Uploading) {
            self.note_told(slot, view.offset);
        }
    }

    /// Asks for the offset, from wherever the client is now; cuts what was under way.
    async fn head(&mut self) -> Option<(usize, u64)> {
        let slot = self.pick_slot()?;
        let url = self.slots[slot].url.clone()?;
        let visitor = Visitor {
            address: Some(self.chance.pick(&["192.0.2.1", "198.51.100.7"]).to_owned()),
            agent: None,
        };
        let found = self.service.find_offset(&url, &visitor).await;
        self.tell(format!(
            "head {slot}: {:?}",
            found.as_ref().map(|found| found.extant)
        ));
        let Extant::Partial { offset } = found.ok()?.extant else {
            return None;
        };
        self.note_told(slot, offset);
        Some((slot, offset))
    }

    /// Goes on where a HEAD said, or elsewhere.
    async fn append(&mut self) {
        let Some((slot, offset)) = self.head().await else {
            return;
        };
        let held = &self.slots[slot];
        let (size_bytes, url) = (held.size_bytes, held.url.clone().expect("just used"));
        let rest = content(1, size_bytes).slice(offset as usize..);
        let part = self.chance.below(rest.len() as u64 + 1);
        let mut upload = append(&url, offset, rest.len() as u64);
        let bytes = rest.slice(..part as usize);
        let deed = self.chance.below(8);
        let is_armed = self.outage.is_armed();
        let (mut refused, mut body): (_, Body) = (None, whole(rest.clone()));
        match deed {
            0 => {
                let elsewhere = [offset.wrapping_sub(1), offset + 1];
                upload.beginning = Beginning::At(self.chance.pick(&elsewhere));
                refused = Some(Refusal::OtherOffset { offset });
            }
            1 => {
                body = broken_after(bytes);
                refused = Some(Refusal::Interrupted);
            }
            2 => {
                upload.extent = Extent::Part;
                upload.length = Some(part);
                body = whole(bytes);
            }
            3 => {
                upload.checksum = Some(Checksum::Sha256(Sha256([1; 32])));
                refused = Some(Refusal::ChecksumMismatch);
            }
            4 => upload.checksum = Some(Checksum::Sha256(digest(&rest))),
            5 => {
                upload.checksum = Some(Checksum::Sha256(digest(&rest)));
                body = broken_after(bytes);
                refused = Some(Refusal::Interrupted);
            }
            6 if self.chance.one_in(4) => {
                upload.length = None;
                body = whole([&rest[..], b"x"].concat().into());
                refused = Some(Refusal::TooLong);
            }
            _ => {}
        }
        let outcome = self.service.receive(upload, body).await;
        let what = outcome.as_ref().map(|received| received.extant);
        self.tell(format!("append {slot} at {offset}, deed {deed}: {what:?}"));
        let may_starve = matches!(what, Err(Refusal::TooManyStarts { .. }));
        if !is_armed && !may_starve {
            // Somebody may have sent other bytes before, or the file is over before it is there.
            let is_spoilt = matches!(what, Err(Refusal::DigestMismatch));
            assert!(
                is_spoilt || what.err() == refused.as_ref(),
                "{deed} {what:?}"
            );
        }
        match outcome.map(|received| received.extant) {
            Ok(Extant::Partial { offset }) => self.note_told(slot, offset),
            Ok(Extant::Complete { sha256 }) => self.acknowledge_as_stored(slot, sha256).await,
            Err(_) => {}
        }
    }

    /// Notes a 201 for bytes of several requests: they are what is stored.
    async fn acknowledge_as_stored(&mut self, slot: usize, sha256: Sha256) {
        let row = self.row(slot).await.expect("a row");
        let is_so = matches!(row.state, State::Complete { sha256: stored, .. } if stored == sha256);
        assert!(is_so, "201 only for what is complete: {row:?}");
        let upload = self.slots[slot].upload.clone();
        if let Ok(stored) = get(&self.service, &upload, None).await {
            assert_eq!(digest(&stored), sha256);
            self.slots[slot].acknowledged = Some(stored);
        }
    }

    /// A resume URL that was replaced opens nothing any more.
    async fn append_with_dead_url(&mut self) {
        let Some(slot) = self.pick_slot() else { return };
        let held = &self.slots[slot];
        let Some(url) = held.dead_urls.last().cloned() else {
            return;
        };
        let (size_bytes, before) = (held.size_bytes, self.row(slot).await);
        let body = whole(content(3, size_bytes));
        let outcome = self
            .service
            .receive(append(&url, 0, size_bytes), body)
            .await;
        let found = self.service.find_offset(&url, &Visitor::default()).await;
        let cancelled = self.service.cancel_upload(&url).await;
        self.tell(format!("dead URL {slot}: {:?}", outcome.as_ref().err()));
        assert!(outcome.is_err() && found.is_err() && cancelled.is_err());
        assert_eq!(
            before,
            self.row(slot).await,
            "a dead generation changes nothing"
        );
    }

    /// A part of a file, where there is one.
    async fn range(&mut self) {
        let Some(slot) = self.pick_slot() else { return };
        let Some(bytes) = self.slots[slot].acknowledged.clone() else {
            return;
        };
        let first = self.chance.below(bytes.len() as u64 + 2);
        let last = first + self.chance.below(1000);
        let range = format!("bytes={first}-{last}");
        let upload = &self.slots[slot].upload;
        let got = get(&self.service, upload, Some(&range)).await;
        self.tell(format!(
            "get {slot} {range}: {:?}",
            got.as_ref().map(Bytes::len)
        ));
        if let Ok(got) = got {
            let from = (first as usize).min(bytes.len());
            let to = (last as usize + 1).min(bytes.len());
            assert_eq!(got, bytes.slice(from..to.max(from)), "{range}");
        }
    }

    // Uploads over several steps

    async fn fly(&mut self) {
        let n_flights = self.flights.len() as u64;
        if n_flights == 0 || (n_flights < 4 && self.chance.one_in(3)) {
            return self.take_off().await;
        }
        let index = self.chance.below(n_flights) as usize;
        let n_bytes = 1 + self.chance.below(800) as usize;
        let deed = self.chance.below(10);
        self.tell(format!("fly {} deed {deed}", self.flights[index].slot));
        let flight = &mut self.flights[index];
        let from = flight.n_sent;
        let Some(feed) = flight.feed.clone() else {
            return;
        };
        match deed {
            0..4 => {
                let to = (from + n_bytes).min(flight.bytes.len());
                flight.n_sent = to;
                // Whoever was cut reads no more.
                let _ = feed.send(Ok(flight.bytes.slice(from..to)));
            }
            4..7 => {
                flight.n_sent = flight.bytes.len();
                let _ = feed.send(Ok(flight.bytes.slice(from..)));
                flight.feed = None;
            }
            7 => {
                let _ = feed.send(Err(BodyError));
                flight.feed = None;
            }
            8 => {
                // The handler goes with its connection; all bytes may have come before.
                let _ = feed.send(Ok(flight.bytes.slice(from..)));
                flight.feed = None;
                flight.handle.abort();
            }
            _ => tokio::time::advance(Duration::from_secs(61)).await,
        }
    }

    async fn take_off(&mut self) {
        let Some(slot) = self.pick_slot() else { return };
        let Some(row) = self.row(slot).await else {
            return;
        };
        let (feed, receiver) = mpsc::unbounded_channel();
        let body = stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|piece| (piece, receiver))
        });
        let held = &self.slots[slot];
        let (service, upload) = (self.service.clone(), held.upload.clone());
        let handle =
            tokio::spawn(async move { service.receive(upload.into(), Box::pin(body)).await });
        self.tell(format!("take off {slot}"));
        self.flights.push(Flight {
            slot,
            generation: row.generation,
            bytes: content(5, held.size_bytes),
            n_sent: 0,
            feed: Some(feed),
            handle,
        });
    }

    /// Lets tasks run, and looks at the uploads that have ended.
    async fn land(&mut self) {
        if self.has_flights() {
            for _ in 0..600 {
                tokio::task::yield_now().await;
            }
        }
        let (ended, flying) = std::mem::take(&mut self.flights)
            .into_iter()
            .partition(|flight: &Flight| flight.handle.is_finished());
        self.flights = flying;
        for flight in ended {
            let Ok(outcome) = flight.handle.await else {
                continue;
            };
            self.tell(format!(
                "landed {}: {:?}",
                flight.slot,
                outcome.as_ref().err()
            ));
            let Ok(received) = outcome else { continue };
            self.acknowledge(flight.slot, 5, received.sha256().expect("a whole file"))
                .await;
            let row = self.row(flight.slot).await.expect("a row");
            assert_eq!(
                row.generation, flight.generation,
                "a dead generation completes nothing"
            );
        }
    }

    // What the world does

    async fn sweep(&mut self) {
        let n_failed = self.outage.n_failed();
        loop {
            let now = self.now();
            let report = self.sweeper.sweep().await;
            for removed in &report.removed {
                let mut slots = self.slots.iter_mut();
                let held = slots.find(|held| held.upload.id.short() == removed.slot);
                let Some(held) = held else {
                    // The process died with the answer to its request: nobody ever had its URL.
                    assert_eq!(removed.reason, Reason::Unfinished);
                    continue;
                };
                held.is_removed = true;
                let row = held.row.as_ref().expect("seen before");
                let is_complete = matches!(row.state, State::Complete { .. });
                match removed.reason {
                    Reason::Unfinished => assert!(!is_complete, "{row:?}"),
                    Reason::Retention => {
                        let is_over = row.keep_until.is_some_and(|end| end <= now);
                        assert!(is_complete && is_over, "{now:?} {row:?}");
                    }
                    Reason::TotalSize => assert!(self.settings.total_bytes_max.is_some()),
                    Reason::Command => panic!("nobody asked for it: {row:?}"),
                }
            }
            self.tell(format!("sweep: {} removed", report.removed.len()));
            if !report.has_more || self.outage.is_dead() {
                break;
            }
        }
        self.sweep_broke |= n_failed < self.outage.n_failed();
        let since = self.settings.policy.quota.since(self.now());
        self.forgotten = self.forgotten.max(since);
    }

    fn pass(&mut self) {
        let passes = [5, 61, 200, 301, 700, 3600, DAY_S + 3600, 31 * DAY_S];
        let seconds = self.chance.pick(&passes);
        if self.chance.one_in(3) {
            return self.pass_to_an_end();
        }
        if self.chance.one_in(4) {
            // NTP: never back by more than the idle time.
            let back = self.chance.below(299);
            self.world.set_wall(Timestamp(self.now().0 - back));
            self.tell(format!("the clock is set back by {back}"));
        } else {
            self.world.pass(seconds);
            self.tell(format!("{seconds} s pass"));
        }
    }

    /// Goes to the very second at which some file is served no more.
    fn pass_to_an_end(&mut self) {
        let now = self.now();
        let rows = self.slots.iter().filter_map(|held| held.row.as_ref());
        let ends = rows
            .filter_map(|row| row.keep_until)
            .filter(|end| now < *end);
        if let Some(end) = ends.min() {
            self.world.pass(end.since(now).as_secs());
            self.tell(format!("time passes to the end of a file, {end:?}"));
        }
    }

    fn rotate_keys(&mut self) {
        let now = self.now();
        let secret = [self.chance.next() as u8; 32];
        let keys = self.service.keys().rotate(secret, now);
        self.service
            .set_keys(keys.retire(self.settings.keep_old_for, now));
        self.tell("keys are rotated");
    }

    /// Lets trouble come in `first` calls or up to `spread` later.
    fn arm(&mut self, first: u64, spread: u64) {
        let n_calls = first + self.chance.below(spread);
        let troubles = [Trouble::Fails, Trouble::DiesBefore, Trouble::DiesAfter];
        let trouble = self.chance.pick(&troubles);
        self.outage.arm(n_calls, trouble);
        self.tell(format!("trouble {trouble:?} in {n_calls} calls"));
    }

    /// A graceful stop: uploads are cut, what came is kept.
    async fn restart(&mut self) {
        self.tell("restart");
        self.service.drain();
        self.service.cut_uploads().await;
        self.land().await;
        self.renew().await;
    }

    /// A process died: what was promised holds at once, and after one sweep everything does.
    async fn crash(&mut self) {
        self.tell("crash");
        for flight in std::mem::take(&mut self.flights) {
            flight.handle.abort();
        }
        self.renew().await;
        self.latest = self.latest.max(self.now());
        self.check(Depth::Digests).await;
        self.sweep().await;
    }

    /// A new process over the same stores.
    async fn renew(&mut self) {
        self.had_trouble |= 0 < self.outage.n_failed();
        let keys = self.service.keys();
        self.flights.clear();
        self.outage = Outage::new(self.chance.next());
        if let Backing::Directory(_) = self.backing {
            // Nobody may hold the old ones: the database has one writer.
            let nothing = Stores {
                sessions: Arc::new(MemorySessions::new(0)),
                files: Arc::new(MemoryFiles::new(0)),
            };
            let (settings, world) = (self.settings.clone(), self.world.clone());
            self.service = Service::new(settings, keys.clone(), nothing.clone(), world);
            self.sweeper = Sweeper::new(self.service.clone());
            self.seen = nothing.clone();
            self.stores = nothing;
            tokio::task::yield_now().await;
            self.stores = self.backing.open();
        }
        self.seen = outage::over(&self.stores, &self.outage);
        let (settings, world) = (self.settings.clone(), self.world.clone());
        self.service = Service::new(settings, keys, self.seen.clone(), world);
        self.sweeper = Sweeper::new(self.service.clone());
    }

    // What must be true

    async fn row(&self, slot: usize) -> Option<UploadSession> {
        let id = self.slots[slot].upload.id;
        self.stores.sessions.get(id).await.expect("readable")
    }

    /// What counts against an account's quota now.
    async fn used_bytes(&self, owner: &BareJid) -> u64 {
        let since = self
            .settings
            .policy
            .quota
            .since(self.now())
            .max(self.forgotten);
        let rows = self
            .stores
            .sessions
            .page(None, 10_000)
            .await
            .expect("readable");
        let rows = rows
            .iter()
            .map(|row| (&row.owner, Bucket::of(row.created_at), row.quota_bytes()));
        let used = self
            .used
            .iter()
            .map(|(owner, bucket, n_bytes)| (owner, *bucket, *n_bytes));
        let counts =
            |(whose, bucket, _): &(&BareJid, Bucket, u64)| *whose == owner && since <= *bucket;
        rows.chain(used)
            .filter(counts)
            .map(|(_, _, n_bytes)| n_bytes)
            .sum()
    }

    async fn check(&mut self, depth: Depth) {
        self.had_trouble |= 0 < self.outage.n_failed();
        for slot in 0..self.slots.len() {
            self.check_slot(slot).await;
        }
        for account in ACCOUNTS {
            let owner = BareJid::new(account).expect("valid");
            let used = self.used_bytes(&owner).await;
            assert!(used <= QUOTA, "{owner} has {used} of {QUOTA}");
        }
        // An audit looks again at what looks wrong, a while later: on disk that is real time.
        if self.has_flights() || depth == Depth::Digests {
            self.check_audit(depth).await;
        }
    }

    async fn check_audit(&self, depth: Depth) {
        let options = Options {
            mend: Mend::No,
            depth,
        };
        let report = audit(&self.stores, options).await.expect("readable");
        for finding in &report.findings {
            let is_excused = match finding.kind {
                // A file that is due may be gone before its row.
                Kind::LostFile => self.slots.iter().any(|held| {
                    let is_due = self.is_over(held) || self.sweep_broke;
                    finding.what.contains(&held.upload.id.short()) && is_due
                }),
                // Its removal failed, or a process died before it: the row still accounts for it.
                Kind::StrayPart => self.had_trouble,
                _ => false,
            };
            assert!(is_excused, "{finding:?}");
        }
    }

    /// Whether a file's time was over at any moment.
    fn is_over(&self, held: &Held) -> bool {
        let end = held.row.as_ref().and_then(|row| row.keep_until);
        end.is_some_and(|end| end <= self.latest)
    }

    async fn check_slot(&mut self, slot: usize) {
        let row = self.row(slot).await;
        self.check_prefix(slot, row.as_ref()).await;
        let held = &mut self.slots[slot];
        match (&row, &held.row) {
            (Some(row), last) => {
                if let Some(last) = last {
                    check_succession(last, row);
                }
                held.row = Some(row.clone());
            }
            (None, Some(last)) if !held.is_gone => {
                let bucket = Bucket::of(last.created_at);
                self.used
                    .push((last.owner.clone(), bucket, last.stored_bytes()));
                held.is_gone = true;
            }
            (None, _) => {}
        }
        self.check_download(slot, row.as_ref()).await;
        let Some(row) = row else { return };
        if !matches!(row.state, State::Pending | State::Uploading) {
            return;
        }
        // The bytes below the offset are durable, in whichever part.
        let stored = self.stores.files.find(row.id).await.expect("readable");
        let size_of = |stored: &Stored| match stored {
            Stored::File { size_bytes, .. } | Stored::Part { size_bytes, .. } => *size_bytes,
        };
        let durable = stored.iter().map(size_of).max().unwrap_or(0);
        // A sweep that broke off may have taken the bytes of an upload whose time is over.
        let promised = row.prefix.1.max(self.slots[slot].told);
        assert!(
            promised <= durable || self.sweep_broke,
            "{promised} was told, {row:?} has {stored:?}"
        );
    }

    /// What is in the prefix stays as it is: nobody writes there again.
    async fn check_prefix(&mut self, slot: usize, row: Option<&UploadSession>) {
        let now = match row.filter(|row| row.is_open() && 0 < row.prefix.1) {
            Some(row) => {
                let (part, offset) = row.prefix;
                let body = self.stores.files.open_part(part, offset).await;
                // Where a crash came between commit and row it has its name already.
                body.ok().map(|body| (part, body))
            }
            None => None,
        };
        let Some((part, body)) = now else {
            self.slots[slot].prefix = None;
            return;
        };
        let pieces: Vec<_> = body.collect().await;
        let bytes: Vec<u8> = pieces
            .into_iter()
            .flat_map(|piece| piece.expect("read"))
            .collect();
        if let Some((before, kept)) = &self.slots[slot].prefix {
            assert!(
                *before != part || bytes.starts_with(kept),
                "{part:?} has changed"
            );
        }
        self.slots[slot].prefix = Some((part, bytes.into()));
    }

    /// What was acknowledged is served as it was sent, until its time is over; nothing else is.
    async fn check_download(&self, slot: usize, row: Option<&UploadSession>) {
        let held = &self.slots[slot];
        let (keys, world) = (self.service.keys(), self.world.clone());
        // Sees through the outage.
        let observer = Service::new(self.settings.clone(), keys, self.stores.clone(), world);
        let got = get(&observer, &held.upload, None).await;
        let now = self.now();
        let is_served = row.is_some_and(|row| {
            let is_complete = matches!(row.state, State::Complete { .. });
            is_complete && row.keep_until.is_none_or(|end| now < end)
        });
        match (&held.acknowledged, got) {
            (acknowledged, Ok(bytes)) => {
                let row = row.expect("a file has its row");
                assert!(is_served, "served too early or too late: {row:?}");
                let State::Complete { sha256, .. } = row.state else {
                    panic!("served without being complete: {row:?}");
                };
                assert_eq!(digest(&bytes), sha256, "{row:?}");
                assert!(
                    acknowledged.as_ref().is_none_or(|sent| *sent == bytes),
                    "{row:?}"
                );
            }
            (Some(_), Err(refusal)) => {
                let is_excused = self.is_over(held) || held.is_removed || self.sweep_broke;
                assert!(is_excused, "acknowledged and lost ({refusal:?}): {row:?}");
            }
            (None, Err(refusal)) => {
                assert!(
                    !is_served || self.sweep_broke,
                    "complete and lost ({refusal:?}): {row:?}"
                );
            }
        }
    }

    /// Everything goes when its time is over, and leaves nothing behind.
    async fn end(&mut self) {
        self.crash().await;
        self.check(Depth::Digests).await;
        let options = |mend| Options {
            mend,
            depth: Depth::Digests,
        };
        let mended = audit(&self.stores, options(Mend::Yes)).await;
        assert!(mended.expect("readable").is_clean());
        let report = audit(&self.stores, options(Mend::No)).await;
        assert_eq!(report.expect("readable").findings, []);
        for _ in 0..3 {
            self.world.pass(100 * DAY_S);
            self.latest = self.latest.max(self.now());
            // A leap of the wall clock may have been seen before; the sweep rests for a while.
            self.sweep().await;
            self.check(Depth::Sizes).await;
        }
        let totals = self.stores.sessions.totals().await.expect("readable");
        let files = self.stores.files.page(None, 10).await.expect("readable");
        assert_eq!(
            (totals.n_rows, totals.stored_bytes, files),
            (0, 0, Vec::new())
        );
    }
}

/// What may become of a row between two looks.
fn check_succession(last: &UploadSession, next: &UploadSession) {
    assert!(
        last.prefix.1 <= next.prefix.1,
        "the offset went back: {last:?} {next:?}"
    );
    assert!(last.generation <= next.generation, "{last:?} {next:?}");
    let is_end = |row: &UploadSession| !matches!(row.state, State::Pending | State::Uploading);
    if is_end(last) {
        let same = UploadSession {
            replays: last.replays,
            ..next.clone()
        };
        assert_eq!(*last, same, "what has ended does not change");
    }
}

async fn get(service: &Service, upload: &Put, range: Option<&str>) -> Result<Bytes, Refusal> {
    let mut headers = HeaderMap::new();
    if let Some(range) = range {
        headers.insert(header::RANGE, range.parse().expect("ASCII"));
    }
    let (id, name) = (upload.id, &upload.name);
    let download = service.open_file(id, name, &Method::GET, &headers).await?;
    let mut all = Vec::new();
    if let Some(content) = download.body {
        let mut body = content.into_body();
        while let Some(piece) = body.next().await {
            all.extend(piece.map_err(|_| Refusal::Broken)?);
        }
    }
    Ok(all.into())
}

async fn simulate(seed: u64, backing: Backing, story: Story) {
    let mut simulation = Simulation::new(seed, backing, story);
    for step in 0..STEPS {
        simulation.step().await;
        let depth = if step % 10 == 9 {
            Depth::Digests
        } else {
            Depth::Sizes
        };
        simulation.check(depth).await;
    }
    simulation.end().await;
}

/// Runs one seed; on failure its number and its story come with the complaint.
fn run(seed: u64, backing: Backing) {
    let is_paused = matches!(backing, Backing::Memory);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(is_paused)
        .build()
        .expect("a runtime");
    let story = Story::default();
    let telling = story.clone();
    let work = std::panic::AssertUnwindSafe(|| runtime.block_on(simulate(seed, backing, telling)));
    if let Err(panic) = std::panic::catch_unwind(work) {
        let story = story
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        println!("{}\nSLOTD_SIM_SEED={seed} replays this", story.join("\n"));
        std::panic::resume_unwind(panic);
    }
}

/// The seeds of this run: the one or the range that was asked for, or the usual ones.
fn seeds(n_usual: u64) -> Range<u64> {
    let number = |text: &str| -> u64 { text.parse().expect("SLOTD_SIM_SEED is 7 or 7..100") };
    match std::env::var("SLOTD_SIM_SEED") {
        Ok(asked) => match asked.split_once("..") {
            Some((first, end)) => number(first)..number(end),
            None => number(&asked)..number(&asked) + 1,
        },
        Err(_) => 0..n_usual,
    }
}

#[test]
fn the_invariants_hold_in_memory() {
    for seed in seeds(SEEDS_MEMORY) {
        run(seed, Backing::Memory);
    }
}

#[test]
fn the_invariants_hold_on_disk() {
    for seed in seeds(SEEDS_DIRECTORY) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        run(seed, Backing::Directory(directory));
    }
}
