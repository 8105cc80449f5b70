//! A bench with its slots at hand, as HTTP clients see them.

use jid::Jid;
use slotd::config::{Http, Listen, TokenIn};
use slotd::core::accel::Accel;
use slotd::core::slot::{ContentType, FileName, Purpose, SessionWish, SlotId, SlotRequest};
use slotd::service::Settings;
use slotd::service::session::SessionView;
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

pub fn http() -> Http {
    Http {
        listen: vec![Listen::Tcp(([127, 0, 0, 1], 0).into())],
        public_url: PUBLIC_URL.to_owned(),
        trusted_proxies: Vec::new(),
        proxy_forwards_1xx: false,
        token_in: TokenIn::Url,
        accel: Accel::Off,
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
        self.issue(name, size, None).await.0
    }

    async fn issue(
        &self,
        name: &str,
        size: usize,
        session: Option<SessionWish>,
    ) -> (TestSlot, Option<SessionView>) {
        let request = SlotRequest {
            filename: FileName::parse(name).expect("a usable name"),
            size_bytes: size as u64,
            content_type: Some(ContentType::octet_stream()),
            purpose: Purpose::Message,
            session,
        };
        let requester = Jid::new("romeo@example.org/orchard").expect("a valid JID");
        let issued = self.0.service.request_slot(&requester, request).await;
        let issued = issued.expect("a slot");
        let slot = issued.slot;
        let path = path_of(&slot.get_url);
        let id = path.split('/').nth(3).and_then(SlotId::parse);
        let (_, token) = slot.put_url.split_once("?t=").unwrap_or_default();
        let slot = TestSlot {
            id: id.expect("an id in the URL"),
            path: path.clone(),
            token: token.to_owned(),
        };
        (slot, issued.session)
    }

    /// The resume URL's path of an upload session for `a.bin` of `SIZE` bytes, and its slot.
    pub async fn session(&self) -> (TestSlot, String) {
        let (slot, session) = self
            .issue("a.bin", SIZE, Some(SessionWish::default()))
            .await;
        let url = session.and_then(|view| view.resume_url);
        (slot, path_of(&url.expect("an upload session has one")))
    }

    /// What the stores hold of a slot: its row's state, its files and parts.
    pub async fn trace(&self, slot: &TestSlot) -> (String, Vec<Stored>) {
        let row = self.0.stores.sessions.get(slot.id).await.expect("readable");
        let row = row.expect("a row");
        let stored = self.0.stores.files.find(slot.id).await.expect("readable");
        (format!("{:?} {:?}", row.state, row.generation), stored)
    }
}

/// The path of one of the site's URLs.
pub fn path_of(url: &str) -> String {
    let base = PUBLIC_URL.trim_end_matches("/up/");
    url.strip_prefix(base).expect("our URL").to_owned()
}

/// Bytes that are not all alike.
pub fn content(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n % 251) as u8).collect()
}
