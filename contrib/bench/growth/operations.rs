//! What a service does with its rows, one operation after the other.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt as _;
use http::{HeaderMap, Method};
use jid::Jid;
use slotd::config::Durability;
use slotd::core::refusal::Refusal;
use slotd::core::slot::{ContentType, FileName, Purpose, SessionWish, SlotRequest};
use slotd::service::Service;
use slotd::service::sweep::Sweeper;
use slotd::store::{self, Stores};

use crate::fill::{self, NOW};
use crate::gauge::{Gauge, Line, rss_bytes};

/// Samples of what takes microseconds.
const N_READS: u64 = 5000;
/// Samples of what waits for the disk.
const N_WRITES: u64 = 1000;
/// Samples of what looks at a thousand things.
const N_PAGES: u64 = 50;
/// Requests at once where many are.
const N_AT_ONCE: u64 = 64;
/// Requests of each of them.
const N_OF_EACH: u64 = 200;
/// Files whose time is over in the sweep.
const N_DUE: u64 = 1000;
/// Upload sessions for their memory.
const N_SESSIONS: u64 = 10_000;

struct Bench<'a> {
    n_rows: u64,
    stores: Stores,
    service: Arc<Service>,
    wanted: &'a dyn Fn(&str) -> bool,
    add: &'a mut dyn FnMut(Line),
}

/// All operations, in the order in which they disturb each other least.
pub async fn measure(
    data_dir: &Path,
    n_rows: u64,
    wanted: &dyn Fn(&str) -> bool,
    add: &mut dyn FnMut(Line),
) {
    let stores = store::open(data_dir, Durability::Full).expect("the stores open");
    let service = fill::service(stores.clone(), 1 << 40);
    let mut bench = Bench {
        n_rows,
        stores,
        service,
        wanted,
        add,
    };
    bench.fetch().await;
    bench.list().await;
    bench.sum().await;
    bench.sweep_nothing().await;
    bench.page().await;
    bench.slot().await;
    bench.slots().await;
    bench.sweep_due().await;
    bench.sessions().await;
}

fn request(session: Option<SessionWish>) -> SlotRequest {
    SlotRequest {
        filename: FileName::parse("picture-2026-01-02.jpg").expect("a valid name"),
        size_bytes: 1024,
        content_type: ContentType::parse("image/jpeg").ok(),
        purpose: Purpose::Message,
        session,
    }
}

/// One of a thousand accounts.
fn requester(n: u64) -> Jid {
    let jid = format!("user{}@d0.example.org/phone", n % 1000);
    Jid::new(&jid).expect("a valid JID")
}

impl Bench<'_> {
    fn begin(&self, name: &'static str) -> Option<Gauge> {
        (self.wanted)(name).then(|| Gauge::new(name))
    }

    fn end(&mut self, gauge: Gauge) {
        (self.add)(gauge.end(self.n_rows));
    }

    async fn fetch(&mut self) {
        let Some(mut gauge) = self.begin("get") else {
            return;
        };
        let headers = HeaderMap::new();
        for n in 0..N_READS {
            let begun = Instant::now();
            let id = fill::id_of(n % fill::N_FILES);
            let name = "picture-2026-01-02.jpg";
            let opened = self.service.open_file(id, name, &Method::GET, &headers);
            let Ok(opened) = opened.await else {
                panic!("not served")
            };
            let mut body = opened.body.expect("a GET has a body").into_body();
            let first = body.next().await.expect("a piece").expect("bytes");
            gauge.add(begun);
            assert_eq!(first, fill::CONTENT[..]);
        }
        self.end(gauge);
    }

    async fn list(&mut self) {
        let Some(mut gauge) = self.begin("list of 50 sessions") else {
            return;
        };
        let romeo = Jid::from(fill::romeo());
        for _ in 0..N_READS / 10 {
            let begun = Instant::now();
            let list = self.service.list_sessions(&romeo, None).await;
            let list = list.expect("listed");
            gauge.add(begun);
            assert_eq!(list.sessions.len(), 50);
        }
        self.end(gauge);
    }

    /// What a slot request reads before it is decided; it is refused, so nothing is committed.
    async fn sum(&mut self) {
        let Some(mut gauge) = self.begin("quota sums") else {
            return;
        };
        let since =
            slotd::core::policy::Bucket::of(NOW.minus(std::time::Duration::from_secs(86_400)));
        for n in 0..N_READS {
            let begun = Instant::now();
            let no = Box::new(|_: &_| Err(Refusal::NotAllowed));
            let owner = requester(n).to_bare();
            let refused = self.stores.sessions.admit(owner, since, no).await;
            gauge.add(begun);
            assert!(refused.is_err());
        }
        self.end(gauge);
    }

    async fn sweep_nothing(&mut self) {
        let Some(mut gauge) = self.begin("sweep, nothing due") else {
            return;
        };
        let sweeper = Sweeper::new(self.service.clone());
        // The first forgets the sums of a month.
        sweeper.sweep().await;
        for _ in 0..N_WRITES {
            let begun = Instant::now();
            let report = sweeper.sweep().await;
            gauge.add(begun);
            assert!(report.removed.is_empty() && report.n_failed == 0);
        }
        self.end(gauge);
    }

    async fn page(&mut self) {
        let Some(mut gauge) = self.begin("audit page of 1000") else {
            return;
        };
        for n in 0..N_PAGES {
            let begun = Instant::now();
            let after = Some(fill::id_of(n * 7));
            let page = self.stores.sessions.page(after, 1000).await;
            gauge.add(begun);
            page.expect("a page");
        }
        self.end(gauge);
    }

    async fn slot(&mut self) {
        let Some(mut gauge) = self.begin("slot, one at a time") else {
            return;
        };
        for n in 0..N_WRITES {
            let requester = requester(n);
            let begun = Instant::now();
            let issued = self.service.request_slot(&requester, request(None));
            assert!(issued.await.is_ok());
            gauge.add(begun);
        }
        self.end(gauge);
    }

    async fn slots(&mut self) {
        let Some(mut gauge) = self.begin("slot, 64 at a time") else {
            return;
        };
        let begun = Instant::now();
        let tasks: Vec<_> = (0..N_AT_ONCE)
            .map(|who| {
                let service = self.service.clone();
                tokio::spawn(async move {
                    for n in 0..N_OF_EACH {
                        let requester = requester(who * N_OF_EACH + n);
                        let issued = service.request_slot(&requester, request(None));
                        assert!(issued.await.is_ok());
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        gauge.n_each = (N_AT_ONCE * N_OF_EACH) as u32;
        gauge.add(begun);
        self.end(gauge);
    }

    async fn sweep_due(&mut self) {
        let name = "removal of one of 1000 due";
        if !(self.wanted)(name) {
            return;
        }
        let due = (0..N_DUE).map(|n| {
            let owner = fill::owner_of(n, self.n_rows);
            fill::complete(fill::id_of(n + (1 << 50)), owner, 31 * 86_400)
        });
        fill::admit_all(&self.stores, due.collect()).await;
        let sweeper = Sweeper::new(self.service.clone());
        let mut gauge = Gauge::new(name);
        gauge.n_each = 100;
        let mut n_removed = 0;
        loop {
            let begun = Instant::now();
            let report = sweeper.sweep().await;
            if report.removed.is_empty() {
                break;
            }
            gauge.add(begun);
            n_removed += report.removed.len() as u64;
        }
        assert_eq!(n_removed, N_DUE);
        self.end(gauge);
    }

    /// What 10,000 live sessions take of memory.
    async fn sessions(&mut self) {
        let Some(mut gauge) = self.begin("session, one at a time") else {
            return;
        };
        let before = rss_bytes();
        let mut issued = Vec::new();
        for first in (0..N_SESSIONS).step_by(N_AT_ONCE as usize) {
            let begun = Instant::now();
            let wish = Some(SessionWish::default());
            let last = N_SESSIONS.min(first + N_AT_ONCE);
            let ask = (first..last).map(|n| {
                let requester = Jid::new(&format!("live{n}@d0.example.org/phone"));
                let requester = requester.expect("a valid JID");
                let service = self.service.clone();
                async move { service.request_slot(&requester, request(wish)).await }
            });
            issued.extend(futures_util::future::join_all(ask).await);
            gauge.add(begun);
        }
        gauge.n_each = N_AT_ONCE as u32;
        assert!(issued.iter().all(Result::is_ok));
        drop(issued);
        let mut line = gauge.end(self.n_rows);
        line.name = "10000 sessions' memory";
        line.rss_bytes = Some(rss_bytes().saturating_sub(before));
        (self.add)(line);
    }
}
