//! A bench with its slots at hand, as HTTP clients see them.

use std::time::Duration;

use jid::Jid;
use slotd::config::{Http, Limits, Listen, TokenIn};
use slotd::core::rate::Rate;
use slotd::core::slot::{ContentType, FileName, Purpose, SlotId, SlotRequest};
use slotd::service::Settings;
use slotd::store::Stored;

use super::world::{Bench, bench, settings};

/// What the slots' URLs begin with.
pub const PUBLIC_URL: &str = "https://upload.example.org/up/";
/// The size of `Site::slot`.
pub const SIZE: usize = 1000;

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
        connections_total_max: 128,
        check_content_type: false,
        stop_within: Duration::from_secs(10),
    }
}

pub fn http() -> Http {
    Http {
        listen: vec![Listen::Tcp(([127, 0, 0, 1], 0).into())],
        public_url: PUBLIC_URL.to_owned(),
        trusted_proxies: Vec::new(),
        proxy_forwards_1xx: false,
        token_in: TokenIn::Url,
        tls: None,
    }
}

/// A bench that hands out slots.
pub struct Site(pub Bench);

impl Site {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// A site with other settings.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        settings.public_url = PUBLIC_URL.to_owned();
        settings.policy.size_bytes_max = 100 << 20;
        change(&mut settings);
        Self(bench(settings))
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
            session: None,
        };
        let requester = Jid::new("romeo@example.org/orchard").expect("a valid JID");
        let slot = self.0.service.request_slot(&requester, request).await;
        let slot = slot.expect("a slot").slot;
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
        let row = self.0.stores.sessions.get(slot.id).await.expect("readable");
        let row = row.expect("a row");
        let stored = self.0.stores.files.find(slot.id).await.expect("readable");
        (format!("{:?} {:?}", row.state, row.generation), stored)
    }
}

/// Bytes that are not all alike.
pub fn content(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n % 251) as u8).collect()
}
