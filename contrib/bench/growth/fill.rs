//! A data directory as a service has it after a month, and a service over it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jid::BareJid;
use slotd::config::Durability;
use slotd::core::accel::Accel;
use slotd::core::bans::BanPolicy;
use slotd::core::policy::{Access, Bucket, Policy, Quota, Room};
use slotd::core::rate::Rate;
use slotd::core::session::network::AddressPolicy;
use slotd::core::session::{FileFacts, Lifetimes, Retention, State, UploadSession};
use slotd::core::slot::{ContentType, FileName, Purpose, SessionId, Sha256, SlotId};
use slotd::core::time::Timestamp;
use slotd::core::token::Keys;
use slotd::service::{Service, Settings, World};
use slotd::store::{self, Stores};

/// When all is measured; nothing that `fill` makes is due by then.
pub const NOW: Timestamp = Timestamp(1_767_323_045);
/// How long files are kept, and over how long the rows are spread.
const MONTH: u64 = 30 * 86_400;
/// Rows whose files exist, to be fetched.
pub const N_FILES: u64 = 200;
/// Upload sessions of the one account whose list is asked for.
const N_LISTED: u64 = 60;
/// Rows written at once.
const BATCH: u64 = 1024;
/// What each file that exists holds.
pub const CONTENT: [u8; 1024] = [7; 1024];

/// A clock that stands, and numbers that repeat.
pub struct Still(pub AtomicU64, pub Instant);

impl World for Still {
    fn now(&self) -> Timestamp {
        NOW
    }

    fn random(&self) -> u128 {
        id_of(self.0.fetch_add(1, Ordering::Relaxed)).0
    }

    fn monotonic(&self) -> Duration {
        self.1.elapsed()
    }
}

/// The id of the `n`th row: spread as random ones are.
pub fn id_of(n: u64) -> SlotId {
    let mix = |mut x: u64| {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    SlotId(u128::from(mix(n)) << 64 | u128::from(mix(!n)))
}

/// The owner of the `n`th row: one account for a hundred rows, a domain for a thousand accounts.
pub fn owner_of(n: u64, n_rows: u64) -> BareJid {
    let account = n % (n_rows / 100).max(1);
    let jid = format!("user{account}@d{}.example.org", account / 1000);
    BareJid::new(&jid).expect("a valid JID")
}

/// Who has `N_LISTED` upload sessions.
pub fn romeo() -> BareJid {
    BareJid::new("romeo@d0.example.org").expect("a valid JID")
}

fn file_facts() -> FileFacts {
    FileFacts {
        name: FileName::parse("picture-2026-01-02.jpg").expect("a valid name"),
        size_bytes: CONTENT.len() as u64,
        content_type: ContentType::parse("image/jpeg").expect("a valid type"),
        purpose: Purpose::Message,
    }
}

/// A complete row of `owner`'s, `age_s` old.
pub fn complete(id: SlotId, owner: BareJid, age_s: u64) -> UploadSession {
    let at = NOW.minus(Duration::from_secs(age_s));
    let mut row = UploadSession::new(id, owner, file_facts(), &lifetimes(), at);
    row.keep_until = Some(at.plus(Duration::from_secs(MONTH)));
    row.prefix.1 = row.file.size_bytes;
    row.n_attempts = 1;
    row.state = State::Complete {
        sha256: Sha256([9; 32]),
        at,
    };
    row
}

/// Of twenty rows one is a slot that waits, one an upload session under way.
fn row(n: u64, n_rows: u64) -> UploadSession {
    let (id, owner) = (id_of(n), owner_of(n, n_rows));
    let open = |owner| UploadSession::new(id, owner, file_facts(), &lifetimes(), NOW);
    match n % 20 {
        _ if n < N_FILES => complete(id, owner, 86_400),
        _ if n < N_FILES + N_LISTED => open(romeo()).announced(SessionId(id.0), None),
        18 => open(owner),
        19 => {
            let mut row = open(owner).announced(SessionId(id.0), None);
            (row.prefix.1, row.n_attempts, row.state) = (512, 1, State::Uploading);
            row
        }
        _ => complete(id, owner, 1 + n.wrapping_mul(7919) % (MONTH - 3600)),
    }
}

/// Makes the directory, with `n_rows` rows and a few files.
pub async fn fill(data_dir: &Path, n_rows: u64) {
    let stores = store::open(data_dir, Durability::None).expect("the stores open");
    let mut first = 0;
    while first < n_rows {
        let last = n_rows.min(first + BATCH);
        admit_all(&stores, (first..last).map(|n| row(n, n_rows)).collect()).await;
        first = last;
    }
    for n in 0..N_FILES {
        let name = format!("{:032x}", id_of(n).0);
        let path = data_dir.join("files").join(&name[..2]).join(&name);
        fs::write(path, CONTENT).expect("written");
    }
}

/// Keeps rows as they are.
pub async fn admit_all(stores: &Stores, rows: Vec<UploadSession>) {
    let admitted = rows.into_iter().map(|row| {
        let owner = row.owner.clone();
        let take = Box::new(move |_: &_| Ok(row.clone()));
        stores.sessions.admit(owner, Bucket(0), take)
    });
    for admitted in join_all(admitted).await {
        admitted.expect("admitted");
    }
}

fn lifetimes() -> Lifetimes {
    Lifetimes {
        idle_for: Duration::from_secs(300),
        session_age: Duration::from_secs(72 * 3600),
        rufh_idle_for: Duration::from_secs(3600),
        refreshes_max: 10,
        retention: Retention {
            message: Some(Duration::from_secs(MONTH)),
            ..Retention::default()
        },
    }
}

fn settings() -> Settings {
    Settings {
        policy: Policy {
            access: Access {
                domains: vec!["d0.example.org".to_owned()],
                ..Access::default()
            },
            size_bytes_max: 1 << 30,
            quota: Quota {
                per_requester: Some(1 << 40),
                per_domain: Some(1 << 50),
                total: Some(1 << 50),
                window: Duration::from_secs(86_400),
                exceptions: HashMap::new(),
            },
            open_sessions_max: 100,
            reserve: Room {
                bytes: 0,
                inodes: 0,
            },
            lifetimes: lifetimes(),
        },
        public_url: "https://upload.example.org/".to_owned(),
        token_in_header: false,
        slot_rate: Rate {
            per_minute: 100_000_000,
        },
        byte_rate: None,
        stall_for: Duration::from_secs(60),
        rate_min_bytes: 1,
        check_content_type: false,
        total_bytes_max: None,
        rotate_every: None,
        keep_old_for: Duration::from_secs(72 * 3600),
        accel: Accel::Off,
        connections_per_address_max: 1,
        connections_total_max: 1,
        stop_within: Duration::ZERO,
        addresses: AddressPolicy::Full,
        operators: Vec::new(),
        warm_binding: None,
        contact: Vec::new(),
        legacy_namespaces: Vec::new(),
        external: Vec::new(),
        configured: Vec::new(),
        bans: BanPolicy::default(),
    }
}

/// A service over `stores`; its new rows' ids begin at `n_begun`.
pub fn service(stores: Stores, n_begun: u64) -> Arc<Service> {
    let world = Arc::new(Still(AtomicU64::new(n_begun), Instant::now()));
    Service::new(settings(), Keys::first([7; 32], NOW), stores, world)
}
