//! A service over stores in memory, with its slots at hand: what the HTTP tests talk to.

#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jid::Jid;
use slotd::config::{Http, Limits, Listen, TokenIn};
use slotd::core::policy::{Access, Policy, Quota, Room};
use slotd::core::rate::Rate;
use slotd::core::session::{Lifetimes, Retention};
use slotd::core::slot::{ContentType, FileName, Purpose, SlotId, SlotRequest};
use slotd::core::time::Timestamp;
use slotd::core::token::Keys;
use slotd::service::{Service, Settings, World};
use slotd::store::memory::{MemoryFiles, MemorySessions};
use slotd::store::{Stored, Stores};

/// What the slots' URLs begin with.
pub const PUBLIC_URL: &str = "https://upload.example.org/up/";
/// The size of `Site::slot`.
pub const SIZE: usize = 1000;

/// A clock that tests set, and ids in order.
pub struct FakeWorld {
    now_s: AtomicU64,
    n_random: AtomicU64,
}

impl World for FakeWorld {
    fn now(&self) -> Timestamp {
        Timestamp(self.now_s.load(Ordering::Relaxed))
    }

    fn random(&self) -> u128 {
        let n = self.n_random.fetch_add(1, Ordering::Relaxed);
        // Spread over all bits, so that ids are not alike.
        u128::from(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.now().0)
    }
}

/// A service, its stores, its clock.
pub struct Site {
    pub service: Arc<Service>,
    pub stores: Stores,
    pub world: Arc<FakeWorld>,
}

/// A slot as tests use it.
#[derive(Clone, Debug)]
pub struct TestSlot {
    pub id: SlotId,
    /// Path of GET and PUT, without the token.
    pub path: String,
    pub token: String,
}

impl TestSlot {
    /// Path and query of the PUT URL.
    pub fn put_path(&self) -> String {
        format!("{}?t={}", self.path, self.token)
    }
}

pub fn limits() -> Limits {
    Limits {
        slot_rate: Rate { per_minute: 10_000 },
        byte_rate: None,
        stall_for: Duration::from_secs(60),
        rate_min_bytes: 1024,
        connections_per_address_max: 64,
        connections_max: 128,
        check_content_type: false,
        stop_within: Duration::from_secs(10),
    }
}

pub fn http() -> Http {
    Http {
        listen: vec![Listen::Tcp(([127, 0, 0, 1], 0).into())],
        public_url: PUBLIC_URL.to_owned(),
        trusted_proxies: Vec::new(),
        token_in: TokenIn::Url,
        tls: None,
    }
}

impl Site {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// A site with other settings.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let limits = limits();
        let policy = Policy {
            access: Access {
                domains: vec!["example.org".to_owned()],
                ..Access::default()
            },
            size_bytes_max: 100 << 20,
            quota: Quota::default(),
            reserve: Room {
                bytes: 0,
                inodes: 0,
            },
            lifetimes: Lifetimes {
                idle_for: Duration::from_secs(300),
                session_age: Duration::from_secs(72 * 3600),
                refreshes_max: 10,
                retention: Retention::default(),
            },
        };
        let mut settings = Settings {
            policy,
            public_url: PUBLIC_URL.to_owned(),
            token_in_header: false,
            slot_rate: limits.slot_rate,
            byte_rate: None,
            stall_for: limits.stall_for,
            rate_min_bytes: limits.rate_min_bytes,
            check_content_type: false,
            total_bytes_max: None,
            rotate_every: None,
            keep_old_for: Duration::from_secs(3600),
        };
        change(&mut settings);
        let stores = Stores {
            sessions: Arc::new(MemorySessions::default()),
            files: Arc::new(MemoryFiles::default()),
        };
        let world = Arc::new(FakeWorld {
            now_s: AtomicU64::new(1_800_000_000),
            n_random: AtomicU64::new(0),
        });
        let keys = Keys::first([7; 32], world.now());
        let service = Service::new(settings, keys, stores.clone(), world.clone());
        Self {
            service,
            stores,
            world,
        }
    }

    /// Lets time pass.
    pub fn wait(&self, time: Duration) {
        self.world
            .now_s
            .fetch_add(time.as_secs(), Ordering::Relaxed);
    }

    /// A slot for `a.bin` of `SIZE` bytes.
    pub async fn slot(&self) -> TestSlot {
        self.slot_for("a.bin", SIZE).await
    }

    pub async fn slot_for(&self, name: &str, size: usize) -> TestSlot {
        let request = SlotRequest {
            filename: FileName::parse(name).expect("a usable name"),
            size_bytes: size as u64,
            content_type: Some(ContentType::octet_stream()),
            purpose: Purpose::Message,
        };
        let requester = Jid::new("romeo@example.org/orchard").expect("a valid JID");
        let slot = self.service.request_slot(&requester, request).await;
        let slot = slot.expect("a slot");
        let base = PUBLIC_URL.trim_end_matches("/up/");
        let path = slot.get_url.strip_prefix(base).expect("our URL");
        let id = path.split('/').nth(3).and_then(SlotId::parse);
        let (_, token) = slot.put_url.split_once("?t=").unwrap_or_default();
        TestSlot {
            id: id.expect("an id in the URL"),
            path: path.to_owned(),
            token: token.to_owned(),
        }
    }

    /// What the stores hold of a slot: its row's state, its files and parts.
    pub async fn trace(&self, slot: &TestSlot) -> (String, Vec<Stored>) {
        let row = self.stores.sessions.get(slot.id).await.expect("readable");
        let row = row.expect("a row");
        let stored = self.stores.files.find(slot.id).await.expect("readable");
        (format!("{:?} {:?}", row.state, row.generation), stored)
    }
}

/// Bytes that are not all alike.
pub fn content(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n % 251) as u8).collect()
}
