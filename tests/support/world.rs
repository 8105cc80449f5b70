//! A clock that tests set, and a service over stores in memory.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jid::BareJid;
use slotd::core::accel::Accel;
use slotd::core::bans::BanPolicy;
use slotd::core::bans::failures::FailureLimit;
use slotd::core::policy::{Access, Policy, Quota, Room};
use slotd::core::rate::Rate;
use slotd::core::session::network::AddressPolicy;
use slotd::core::session::{Lifetimes, Retention};
use slotd::core::time::Timestamp;
use slotd::core::token::Keys;
use slotd::service::{Service, Settings, World};
use slotd::store::Stores;
use slotd::store::memory::{MemoryFiles, MemorySessions};

/// When tests begin.
pub const START: Timestamp = Timestamp(1_767_323_045);

/// Time that moves when told to, and random numbers from a seed.
pub struct TestWorld {
    now_s: AtomicU64,
    monotonic_s: AtomicU64,
    random: Mutex<u128>,
}

impl TestWorld {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            now_s: AtomicU64::new(START.0),
            monotonic_s: AtomicU64::new(1000),
            random: Mutex::new(u128::from(seed)),
        })
    }

    /// Lets time pass.
    pub fn pass(&self, seconds: u64) {
        self.now_s.fetch_add(seconds, Ordering::SeqCst);
        self.monotonic_s.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Sets the wall clock alone, as an operator or NTP does.
    pub fn set_wall(&self, now: Timestamp) {
        self.now_s.store(now.0, Ordering::SeqCst);
    }
}

impl World for TestWorld {
    fn now(&self) -> Timestamp {
        Timestamp(self.now_s.load(Ordering::SeqCst))
    }

    fn random(&self) -> u128 {
        let mut state = self.random.lock().expect("not poisoned");
        // PCG's constants: an odd factor, or the state would stand still after a while.
        *state = state
            .wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
            .wrapping_add(0x5851_f42d_4c95_7f2d_1405_7b7e_f767_814f);
        *state ^ (*state >> 64)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.monotonic_s.load(Ordering::SeqCst))
    }
}

/// Rules that allow `example.org` files of up to 1 MB.
pub fn settings() -> Settings {
    Settings {
        policy: Policy {
            access: Access {
                domains: vec!["example.org".to_owned()],
                ..Access::default()
            },
            size_bytes_max: 1_000_000,
            quota: Quota {
                per_requester: None,
                per_domain: None,
                total: None,
                window: Duration::from_secs(86_400),
                exceptions: HashMap::new(),
            },
            open_sessions_max: 20,
            reserve: Room {
                bytes: 1000,
                inodes: 10,
            },
            lifetimes: Lifetimes {
                idle_for: Duration::from_secs(300),
                session_age: Duration::from_secs(72 * 3600),
                rufh_idle_for: Duration::from_secs(3600),
                refreshes_max: 10,
                retention: Retention {
                    message: Some(Duration::from_secs(30 * 86_400)),
                    ..Retention::default()
                },
            },
        },
        public_url: "https://upload.example.org/".to_owned(),
        token_in_header: false,
        slot_rate: Rate { per_minute: 10_000 },
        byte_rate: None,
        stall_for: Duration::from_secs(60),
        rate_min_bytes: 1,
        check_content_type: false,
        total_bytes_max: None,
        rotate_every: None,
        keep_old_for: Duration::from_secs(72 * 3600),
        accel: Accel::Off,
        connections_per_address_max: 64,
        connections_total_max: 128,
        stop_within: Duration::from_secs(10),
        addresses: AddressPolicy::Full,
        operators: vec![BareJid::new("admin@example.org").expect("a JID")],
        warm_binding: None,
        contact: vec![(
            "abuse-addresses",
            vec!["mailto:abuse@example.org".to_owned()],
        )],
        legacy_namespaces: Vec::new(),
        external: Vec::new(),
        configured: Vec::new(),
        bans: BanPolicy {
            failures: Some(FailureLimit {
                after: 20,
                within: Duration::from_secs(600),
                ban_for: Duration::from_secs(3600),
            }),
            operators: vec![BareJid::new("admin@example.org").expect("a JID")],
            hosts: vec![BareJid::new("upload.example.org").expect("a JID")],
            ..BanPolicy::default()
        },
    }
}

/// A service over stores in memory, and the handles that tests turn.
pub struct Bench {
    pub service: Arc<Service>,
    pub world: Arc<TestWorld>,
    pub stores: Stores,
    pub memory_files: Arc<MemoryFiles>,
}

/// The same over a directory, which has no files in memory to turn.
pub fn disk_bench(settings: Settings, directory: &Path) -> Bench {
    let durability = slotd::config::Durability::None;
    let stores = slotd::store::open(directory, durability).expect("the stores open");
    let world = TestWorld::new(1);
    let keys = Keys::first([7; 32], START);
    Bench {
        service: Service::new(settings, keys, stores.clone(), world.clone()),
        world,
        stores,
        memory_files: Arc::default(),
    }
}

/// A new process over the same stores.
pub fn restarted(bench: Bench) -> Bench {
    let (keys, stores) = (bench.service.keys(), bench.stores.clone());
    let service = Service::new(settings(), keys, stores, bench.world.clone());
    Bench { service, ..bench }
}

pub fn bench(settings: Settings) -> Bench {
    let world = TestWorld::new(1);
    let memory_files = Arc::new(MemoryFiles::new(7));
    let stores = Stores {
        sessions: Arc::new(MemorySessions::new(7)),
        files: memory_files.clone(),
    };
    let keys = Keys::first([7; 32], START);
    let service = Service::new(settings, keys, stores.clone(), world.clone());
    Bench {
        service,
        world,
        stores,
        memory_files,
    }
}
