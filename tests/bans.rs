//! Bans over HTTP: whose failures count, by which address, for how long; and who is never banned.

mod support;

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use http::Request;
use http::header::{CONNECTION, RETRY_AFTER};
use http_body_util::BodyExt as _;
use slotd::core::bans::{Ban, By, Subject};
use slotd::core::event::Event;
use slotd::core::time::Timestamp;
use slotd::core::token::Keys;
use slotd::http::{Origin, router};
use slotd::service::Service;
use slotd::service::events::Listener;
use support::faulty::{Fault, Plan, faulty_service};
use support::site::{self, SIZE, Site, TestSlot, content};
use support::sockets;
use support::world::{START, settings};
use tokio::io::AsyncWriteExt as _;
use tower::ServiceExt as _;

const PROXY: &str = "10.0.0.1";
const STRANGER: &str = "192.0.2.66";
const VICTIM: &str = "203.0.113.9";
/// Well-formed, and never sealed here.
const FORGED: &str = "v1.AQEDAAAAAAAAAAABI0VniavN7wAAAAAAAAPoAAAAAGVT8QAxMjM0NTY3OA.\
                      AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn after() -> usize {
    let limit = settings().bans.failures.expect("bans are on");
    limit.after as usize
}

/// A site behind one trusted proxy, and a file in it.
struct Scene {
    site: Site,
    file: TestSlot,
    router: axum::Router,
}

impl Scene {
    async fn new() -> Self {
        let site = Site::with(|settings| {
            settings.bans.proxies = vec![PROXY.parse::<IpAddr>().expect("an address").into()];
        });
        let service = site.0.service.clone();
        let file = site.slot().await;
        let scene = Self {
            router: routed(service),
            site,
            file,
        };
        let put = scene.put(&scene.file, &scene.file.token, "198.51.100.1", None);
        assert_eq!(put.await, 201);
        scene
    }

    /// The answer to a request from `peer` that names others.
    async fn answer(
        &self,
        (method, target): (&str, &str),
        peer: &str,
        forwarded_for: Option<&str>,
    ) -> http::Response<Body> {
        let mut request = Request::builder().method(method).uri(target);
        request = request.header("host", "upload.example.org");
        if let Some(named) = forwarded_for {
            request = request.header("x-forwarded-for", named);
            request = request.header("x-real-ip", named);
            request = request.header("forwarded", format!("for={named}"));
        }
        let body = match method {
            "PUT" => content(SIZE),
            _ => Vec::new(),
        };
        request = request.header("content-length", body.len());
        let mut request = request.body(Body::from(body)).expect("a request");
        request.extensions_mut().insert(Origin {
            peer: Some(peer.parse().expect("an address")),
            local: None,
        });
        let answer = self.router.clone().oneshot(request).await;
        answer.expect("infallible")
    }

    async fn put(&self, slot: &TestSlot, token: &str, peer: &str, named: Option<&str>) -> u16 {
        let target = format!("{}?t={token}", slot.path);
        let answer = self.answer(("PUT", &target), peer, named).await;
        answer.status().as_u16()
    }

    async fn get(&self, peer: &str, named: Option<&str>) -> u16 {
        let asked = ("GET", self.file.path.as_str());
        self.answer(asked, peer, named).await.status().as_u16()
    }

    /// Fails once more than is allowed, each request naming somebody else.
    async fn fail_too_often(&self, peer: &str, named: impl Fn(usize) -> Option<String>) {
        for n in 0..after() {
            let named = named(n);
            let status = self.put(&self.file, FORGED, peer, named.as_deref());
            assert_eq!(status.await, 401, "{n}");
        }
        assert_eq!(self.get(peer, named(after()).as_deref()).await, 403);
    }

    /// The same site in another process.
    async fn restarted(self) -> Self {
        let Site(bench) = &self.site;
        let (keys, stores) = (bench.service.keys(), bench.stores.clone());
        let service = Service::new(settings(), keys, stores, bench.world.clone());
        service.load_bans().await.expect("readable");
        Self {
            router: routed(service),
            ..self
        }
    }
}

fn routed(service: Arc<Service>) -> axum::Router {
    let mut http = site::http();
    http.trusted_proxies = vec![PROXY.parse::<IpAddr>().expect("an address").into()];
    router(service, &http)
}

/// P01, P02: 1,000 invented addresses, and none evades; nobody who was named is banned.
#[tokio::test]
async fn a_stranger_is_who_they_are_whatever_they_say() {
    let scene = Scene::new().await;
    let named = |n: usize| match n % 2 {
        0 => VICTIM.to_owned(),
        _ => format!("203.{}.{}.7", n / 250, n % 250),
    };
    scene.fail_too_often(STRANGER, |n| Some(named(n))).await;
    for n in 0..1000 {
        let named = named(n);
        let status = scene.put(&scene.file, FORGED, STRANGER, Some(&named));
        assert_eq!(status.await, 403, "{n}");
    }
    assert_eq!(scene.get(STRANGER, None).await, 403);
    assert_eq!(scene.get(VICTIM, None).await, 200);
    assert_eq!(scene.get(PROXY, Some(VICTIM)).await, 200);
    assert_eq!(scene.get(PROXY, Some(STRANGER)).await, 403);
}

/// P03: of what a trusted proxy says its own word counts, the last; never the proxy itself.
#[tokio::test]
async fn behind_a_proxy_the_last_name_counts() {
    let scene = Scene::new().await;
    let forged = |n: usize| Some(format!("203.0.113.{}, {STRANGER}", n % 250));
    scene.fail_too_often(PROXY, forged).await;
    let named = format!("{STRANGER}, {VICTIM}");
    assert_eq!(scene.get(PROXY, Some(&named)).await, 200);
    assert_eq!(scene.get(PROXY, Some(VICTIM)).await, 200);
    for garbage in ["unknown", "", "127.0.0.1"] {
        for _ in 0..2 * after() {
            let status = scene.put(&scene.file, FORGED, PROXY, Some(garbage));
            assert_eq!(status.await, 401, "{garbage}");
        }
    }
    for _ in 0..2 * after() {
        assert_eq!(scene.put(&scene.file, FORGED, PROXY, None).await, 401);
        assert_eq!(scene.put(&scene.file, FORGED, "127.0.0.1", None).await, 401);
    }
    assert_eq!(scene.get(PROXY, Some(VICTIM)).await, 200);
}

/// P04: one network is one, and mapped IPv4 is IPv4.
#[tokio::test]
async fn neighbors_of_a_64_are_one() {
    let scene = Scene::new().await;
    for n in 0..after() {
        let peer = format!("2001:db8::{n:x}");
        assert_eq!(scene.put(&scene.file, FORGED, &peer, None).await, 401);
        let spelled = ["192.0.2.66", "::ffff:192.0.2.66"][n % 2];
        assert_eq!(scene.put(&scene.file, FORGED, spelled, None).await, 401);
    }
    for banned in ["2001:db8::ffff:1", "192.0.2.66", "::ffff:192.0.2.66"] {
        assert_eq!(scene.get(banned, None).await, 403, "{banned}");
    }
    for other in ["2001:db8:0:1::1", "192.0.2.67"] {
        assert_eq!(scene.get(other, None).await, 200, "{other}");
    }
}

#[tokio::test]
async fn a_ban_says_until_when_and_ends_by_itself() {
    let scene = Scene::new().await;
    scene.fail_too_often(STRANGER, |_| None).await;
    for asked in [("GET", "/"), ("OPTIONS", "/"), ("PUT", &*scene.file.path)] {
        let answer = scene.answer(asked, STRANGER, None).await;
        assert_eq!(answer.status(), 403, "{asked:?}");
        let header = |name| answer.headers()[name].to_str().expect("ASCII").to_owned();
        assert_eq!(header(CONNECTION), "close");
        let until = httpdate::parse_http_date(&header(RETRY_AFTER)).expect("a date");
        let until = until.duration_since(std::time::UNIX_EPOCH).expect("later");
        assert_eq!(until.as_secs(), START.0 + 3600);
        let body = answer.into_body().collect().await.expect("a body");
        let problem: serde_json::Value =
            serde_json::from_slice(&body.to_bytes()).expect("a problem document");
        assert_eq!(problem["type"], "urn:slotd:problem:banned");
    }
    let world = &scene.site.0.world;
    world.pass(3599);
    assert_eq!(scene.get(STRANGER, None).await, 403);
    world.pass(1);
    assert_eq!(scene.get(STRANGER, None).await, 200);
    // Nothing is left of it.
    let service = &scene.site.0.service;
    service.end_bans().await;
    assert_eq!(kept(&scene.site).await, [] as [String; 0]);
    scene.fail_too_often(STRANGER, |_| None).await;
}

async fn kept(site: &Site) -> Vec<String> {
    let bans = site.0.stores.sessions.bans().await.expect("readable");
    bans.iter().map(|ban| ban.subject.to_string()).collect()
}

#[tokio::test]
async fn a_ban_outlives_the_process() {
    let scene = Scene::new().await;
    scene.fail_too_often(STRANGER, |_| None).await;
    // What is under way to the store gets there.
    scene.site.0.service.end_bans().await;
    assert_eq!(kept(&scene.site).await, [STRANGER]);
    let scene = scene.restarted().await;
    assert_eq!(scene.get(STRANGER, None).await, 403);
    assert_eq!(scene.get(VICTIM, None).await, 200);
    scene.site.0.world.pass(3600);
    let scene = scene.restarted().await;
    assert_eq!(scene.get(STRANGER, None).await, 200);
}

/// Of bans from before, those that the configuration does not allow any more are lifted.
#[tokio::test]
async fn a_ban_of_who_is_a_proxy_now_is_lifted() {
    let scene = Scene::new().await;
    let ban = |who: &str| Ban {
        subject: Subject::parse(who).expect("somebody"),
        at: START,
        until: None,
        by: By::Failures,
        reason: String::new(),
    };
    let bans = [ban(PROXY), ban("admin@example.org"), ban(STRANGER)];
    let changes = bans.map(|ban| (ban.subject.clone(), Some(ban)));
    let Site(bench) = &scene.site;
    let sessions = &bench.stores.sessions;
    sessions.keep_bans(changes.to_vec()).await.expect("kept");
    bench.service.load_bans().await.expect("readable");
    assert_eq!(scene.get(PROXY, Some(VICTIM)).await, 200);
    assert_eq!(scene.get(PROXY, Some(STRANGER)).await, 403);
    bench.service.end_bans().await;
    assert_eq!(kept(&scene.site).await, [STRANGER]);
}

/// A phone that comes too late, again and again, and all else that honest clients do.
#[tokio::test]
async fn honest_clients_are_never_banned() {
    let scene = Scene::new().await;
    let Site(bench) = &scene.site;
    let (late, other) = (scene.site.slot().await, scene.site.slot().await);
    let (_, resume) = scene.site.session().await;
    bench.world.pass(100 * 3600);
    // What these slots were sealed with is gone, too.
    let sealed_before = scene.site.slot().await;
    let now = Timestamp(START.0 + 100 * 3600);
    let rotated = |keys: Keys| keys.rotate([9; 32], now);
    bench.service.set_keys(rotated(bench.service.keys()));
    for round in 0..2 {
        for n in 0..2 * after() {
            let put = |slot, token| scene.put(slot, token, VICTIM, None);
            assert_eq!(put(&late, &late.token).await, 401, "late, {n}");
            assert_ne!(put(&other, &late.token).await, 201, "of another slot");
            assert_ne!(put(&scene.file, &scene.file.token).await, 403, "again");
            let expected = [sealed_before.token.as_str(), &late.token];
            assert_ne!(
                put(&late, expected[round]).await,
                201,
                "of a key that is gone"
            );
            assert_eq!(put(&late, "").await, 401, "an empty token");
            for asked in [
                ("GET", "/up/f/AAAAAAAAAAAAAAAAAAAABw/gone.jpg"),
                ("GET", "/up/f/../../etc/passwd"),
                ("HEAD", "/up/r/QUFBQUFBQUFBQUFBQUFBQUFB"),
                ("GET", "/wp-login.php"),
                ("DELETE", scene.file.path.as_str()),
                ("PATCH", resume.as_str()),
                ("OPTIONS", "/"),
            ] {
                let answer = scene.answer(asked, VICTIM, None).await;
                assert_ne!(answer.status(), 403, "{asked:?}");
            }
        }
        let keys = bench.service.keys();
        let retired = keys.retire(std::time::Duration::ZERO, Timestamp(now.0 + 1));
        bench.service.set_keys(retired);
    }
    assert_eq!(scene.get(VICTIM, None).await, 200);
}

/// Links that others post are opened by everybody's client: looking never counts, writing does.
#[tokio::test]
async fn forged_resume_urls_count_for_who_writes() {
    let scene = Scene::new().await;
    let (_, resume) = scene.site.session().await;
    let forged = format!("{}AAAA", &resume[..resume.len() - 4]);
    for _ in 0..2 * after() {
        for method in ["GET", "HEAD", "OPTIONS"] {
            scene.answer((method, &forged), VICTIM, None).await;
        }
    }
    assert_eq!(scene.get(VICTIM, None).await, 200);
    for n in 0..after() {
        let method = ["PATCH", "DELETE"][n % 2];
        let answer = scene.answer((method, &forged), STRANGER, None).await;
        assert_eq!(answer.status(), 404, "{n}");
    }
    assert_eq!(scene.get(STRANGER, None).await, 403);
}

#[tokio::test]
async fn without_the_option_nobody_is_banned() {
    let site = Site::with(|settings| settings.bans.failures = None);
    let file = site.slot().await;
    let router = routed(site.0.service.clone());
    let scene = Scene { site, file, router };
    for _ in 0..10 * after() {
        assert_eq!(scene.put(&scene.file, FORGED, STRANGER, None).await, 401);
    }
}

/// A ban holds, also while it cannot be written, and is written when it can.
#[tokio::test]
async fn a_ban_waits_for_a_store_that_fails() {
    let scene = Scene::new().await;
    let Site(bench) = &scene.site;
    let plan = Plan::new();
    let service = faulty_service(bench, &plan);
    let scene = Scene {
        router: routed(service.clone()),
        ..scene
    };
    plan.fail(0, u64::MAX, Fault::NoSpace);
    for _ in 0..after() {
        assert_eq!(scene.put(&scene.file, FORGED, STRANGER, None).await, 401);
    }
    service.end_bans().await;
    assert_eq!(kept(&scene.site).await, [] as [String; 0]);
    assert_eq!(scene.put(&scene.file, FORGED, STRANGER, None).await, 403);
    plan.heal();
    service.end_bans().await;
    assert_eq!(kept(&scene.site).await, [STRANGER]);
}

/// The same by bytes, in front of hyper and behind it; a connection ends with the refusal.
#[tokio::test]
async fn a_banned_connection_is_closed() {
    let front = sockets::Front::new();
    let slot = front.file(SIZE).await;
    let named = |who: &str| format!("X-Forwarded-For: {who}\r\n");
    let target = format!("{}?t={FORGED}", slot.path);
    for n in 0..after() {
        let fields = format!("{}Content-Length: {SIZE}\r\n", named(STRANGER));
        let mut asked = sockets::request("PUT", &target, &fields);
        asked.extend(content(SIZE));
        let mut stream = front.connect_unix().await;
        stream.write_all(&asked).await.expect("taken");
        let (head, _) = sockets::answer(&mut stream, false).await;
        assert!(head.starts_with("HTTP/1.1 401 "), "{n}: {head}");
    }
    for fields in [named(STRANGER), named(STRANGER) + "Upgrade: x\r\n"] {
        for method in ["GET", "PUT", "OPTIONS"] {
            let length = ["", "Content-Length: 0\r\n"][usize::from(method == "PUT")];
            let asked = sockets::request(method, &target, &(fields.clone() + length));
            let mut stream = front.connect_unix().await;
            stream.write_all(&asked).await.expect("taken");
            // Closed, though nobody asked for it.
            let answer = sockets::read_all(&mut stream).await;
            let answer = String::from_utf8(answer).expect("UTF-8");
            assert!(answer.starts_with("HTTP/1.1 403 "), "{method}: {answer}");
            assert!(answer.contains("urn:slotd:problem:banned"), "{answer}");
        }
    }
    let mut stream = front.connect_unix().await;
    let asked = sockets::get(&slot, &named(VICTIM));
    stream.write_all(&asked).await.expect("taken");
    sockets::check(
        &sockets::answer(&mut stream, false).await,
        200,
        &content(SIZE),
    );
}

/// What is told of bans, in words.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Listener for Heard {
    fn hear(&self, event: &Event<'_>, _: Timestamp) {
        let told = match event {
            Event::Banned { whom, by: None, .. } => format!("banned {whom}"),
            Event::Unbanned { whom, by: None } => format!("over {whom}"),
            Event::Banned { .. } | Event::Unbanned { .. } => "by an operator".to_owned(),
            _ => return,
        };
        self.0.lock().expect("not poisoned").push(told);
    }
}

#[tokio::test]
async fn who_listens_hears_of_bans_and_their_end() {
    let scene = Scene::new().await;
    let Site(bench) = &scene.site;
    let heard = Arc::new(Heard::default());
    bench.service.set_listeners(vec![heard.clone()]);
    scene.fail_too_often(STRANGER, |_| None).await;
    bench.world.pass(3600);
    for _ in 0..2 {
        bench.service.end_bans().await;
    }
    let heard = heard.0.lock().expect("not poisoned");
    assert_eq!(*heard, ["banned 192.0.2.66", "over 192.0.2.66"]);
}
