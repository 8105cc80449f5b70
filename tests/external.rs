//! PUTs, GETs and DELETEs on the paths of other systems, with the tokens that these make.

mod support;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::StatusCode;
use jid::BareJid;
use serde_json::json;
use slotd::core::external::{ExternalPath, Format, SharedSecret, System};
use slotd::core::policy::Bucket;
use slotd::core::session::State;
use slotd::service::Settings;
use slotd::service::sweep::Sweeper;
use support::front::{Answer, Front};
use support::site::Site;
use support::sockets;
use support::world::START;

const SECRET: &str = "secret string";
const DELETE_SECRET: &str = "delete secret";
const DAY: u64 = 86_400;

fn system(formats: &[Format]) -> Arc<System> {
    Arc::new(System {
        prefix: "/upload/".to_owned(),
        formats: formats.to_vec(),
        secret: SharedSecret::new(SECRET.to_owned()),
        delete_secret: Some(SharedSecret::new(DELETE_SECRET.to_owned())),
        domain: BareJid::new("montague.lit").expect("a domain"),
    })
}

fn front(formats: &[Format]) -> Front {
    front_with(formats, |_| {})
}

fn front_with(formats: &[Format], change: impl FnOnce(&mut Settings)) -> Front {
    let external = vec![system(formats)];
    Front::over(Site::with(|settings| {
        settings.external = external;
        change(settings);
    }))
}

fn sign(message: &str) -> Vec<u8> {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(message: &str) -> String {
    sign(message)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn v(path: &str, size: usize) -> String {
    format!("v={}", hex(&format!("{path} {size}")))
}

fn v2(path: &str, size: usize, kind: &str) -> String {
    format!("v2={}", hex(&format!("{path}\0{size}\0{kind}")))
}

fn v3(path: &str, expires: u64) -> String {
    let message = format!("PUT\n{expires}\n/upload/{path}");
    format!("v3={}&expires={expires}", hex(&message))
}

/// Prosody's token for a file of `size` bytes, good until `exp`.
fn jwt(path: &str, size: usize, exp: u64) -> String {
    let (slot, filename) = path.split_once('/').expect("two components");
    let segment = |text: String| URL_SAFE_NO_PAD.encode(text);
    let header = segment(r#"{"alg":"HS256","typ":"JWT"}"#.to_owned());
    let claims = json!({
        "sub": "romeo@montague.lit", "slot": slot, "filename": filename, "filesize": size,
        "filetype": "image/png", "iat": exp - 600, "exp": exp,
    });
    let message = format!("{header}.{}", segment(claims.to_string()));
    let tag = URL_SAFE_NO_PAD.encode(sign(&message));
    format!("Bearer {message}.{tag}")
}

async fn put(front: &Front, target: &str, body: &[u8]) -> u16 {
    put_as(front, target, body, &[("content-type", "image/png")]).await
}

async fn put_as(front: &Front, target: &str, body: &[u8], fields: &[(&str, &str)]) -> u16 {
    let length = body.len().to_string();
    let mut all = vec![("content-length", &*length)];
    all.extend(fields);
    let answer = front
        .ask("PUT", &format!("/upload/{target}"), &all, body)
        .await;
    answer.status.as_u16()
}

async fn get(front: &Front, path: &str) -> Answer {
    front.ask("GET", &format!("/upload/{path}"), &[], b"").await
}

async fn check_served(front: &Front, path: &str, body: &[u8]) {
    let answer = get(front, path).await;
    assert_eq!(answer.status, 200, "{path}");
    assert_eq!(answer.body, body, "{path}");
}

async fn sweep(front: &Front, seconds: u64) {
    // Step by step: the sweep does not believe a clock that leaps.
    for _ in 0..seconds.div_ceil(1800) {
        front.site.0.world.pass(1800);
    }
    let sweeper = Sweeper::new(front.site.0.service.clone());
    while sweeper.sweep().await.has_more {}
}

fn id(path: &str) -> slotd::core::slot::SlotId {
    let path = ExternalPath::parse(path).expect("a path");
    system(&[]).id_of(&path)
}

#[tokio::test]
async fn a_file_comes_by_each_format() {
    let body = b"a picture";
    let n = body.len();
    for (format, path) in [
        (Format::V, "9f/a b.png"),
        (Format::V, "3f1d/slot/c.png"),
        (Format::V2, "9f/d.png"),
        (Format::V3, "9f/e.png"),
        (Format::Token, "9f/f.png"),
    ] {
        let front = front(&[format]);
        let query = match format {
            Format::V => v(path, n),
            Format::V3 => v3(path, START.0),
            Format::Token => v2(path, n, "image/png").replace("v2=", "token="),
            _ => v2(path, n, "image/png"),
        };
        let link = path.replace(' ', "%20");
        assert_eq!(get(&front, &link).await.status, 404);
        let target = format!("{link}?{query}");
        assert_eq!(put(&front, &target, body).await, 201, "{path}");
        check_served(&front, &link, body).await;
        // A lost answer is given again; other bytes are not the file's.
        assert_eq!(put(&front, &target, body).await, 201, "{path}");
        assert_eq!(put(&front, &target, b"A picture").await, 409, "{path}");
        check_served(&front, &link, body).await;
    }
}

#[tokio::test]
async fn a_jwt_opens_its_own_path_until_it_expires() {
    let front = front(&[Format::Jwt]);
    let path = "o35x3G/a.png";
    let token = jwt(path, 9, START.0 + 600);
    let fields = [("authorization", &*token)];
    assert_eq!(put_as(&front, path, b"a picture", &[]).await, 403);
    assert_eq!(
        put_as(&front, "o35x3G/b.png", b"a picture", &fields).await,
        403
    );
    assert_eq!(put_as(&front, path, b"a pictures", &fields).await, 413);
    assert_eq!(put_as(&front, path, b"a picture", &fields).await, 201);
    let answer = get(&front, path).await;
    assert_eq!(answer.body.as_ref(), b"a picture");
    assert_eq!(answer.header("content-type"), "image/png");
    let row = front.site.0.stores.sessions.get(id(path)).await;
    let row = row.expect("readable").expect("a row");
    assert_eq!(row.owner.as_str(), "romeo@montague.lit");
    let path = "another/a.png";
    let token = jwt(path, 9, START.0 + 600);
    let fields = [("authorization", &*token)];
    front.site.0.world.pass(600);
    assert_eq!(put_as(&front, path, b"a picture", &fields).await, 403);
}

#[tokio::test]
async fn what_is_not_signed_gets_nothing() {
    let front = front(&[Format::V2, Format::V]);
    let (path, body) = ("9f/a.png", b"a picture");
    let (good, weak) = (v2(path, 9, "image/png"), v(path, 9));
    let bad = v2(path, 8, "image/png");
    for query in ["", "v2=", "v2=0", "t=abc", &bad, &format!("{weak}&{bad}")] {
        let target = format!("{path}?{query}");
        assert_eq!(put(&front, &target, body).await, 403, "{query}");
    }
    let other_type = [("content-type", "image/PNG")];
    let target = format!("{path}?{good}");
    assert_eq!(put_as(&front, &target, body, &other_type).await, 403);
    assert_eq!(put_as(&front, &target, body, &[]).await, 403);
    let twice = format!("{path}?{good}&{good}");
    assert_eq!(put(&front, &twice, body).await, 400);
    for bad in [
        "9f/",
        "9f//a",
        "9f/%2e%2e/a",
        "9f/%00",
        "9f%2fa.png",
        "9f/%ff",
    ] {
        let target = format!("{bad}?{good}");
        assert_eq!(put(&front, &target, body).await, 400, "{bad}");
    }
    // Nothing of all this has used the path.
    assert_eq!(get(&front, path).await.status, 404);
    assert_eq!(put(&front, &target, body).await, 201);
}

#[tokio::test]
async fn a_weaker_format_is_taken_only_where_it_is_listed() {
    let path = "9f/a.png";
    let target = format!("{path}?{}", v(path, 9));
    assert_eq!(put(&front(&[Format::V2]), &target, b"a picture").await, 403);
    let both = front(&[Format::V2, Format::V]);
    assert_eq!(put(&both, &target, b"a picture").await, 201);
}

/// An old PUT URL must not put other bytes behind a link that others have.
#[tokio::test]
async fn a_path_is_never_filled_again() {
    let front = front(&[Format::Token]);
    let target = |path: &str| {
        let query = v2(path, 9, "image/png").replace("v2=", "token=");
        format!("{path}?{query}")
    };
    let delete = |path: &str| {
        let token = hex(&format!("{path}\0{DELETE_SECRET}"));
        format!("/upload/{path}?token={token}")
    };
    for path in ["9f/swept.png", "9f/deleted.png"] {
        assert_eq!(put(&front, &target(path), b"a picture").await, 201);
    }
    // Long after, another system's token is as good as before, and the file is as it was.
    front.site.0.world.pass(3600);
    assert_eq!(
        put(&front, &target("9f/swept.png"), b"a picture").await,
        409
    );
    check_served(&front, "9f/swept.png", b"a picture").await;
    let wrong = target("9f/deleted.png");
    let refused = front
        .ask("DELETE", &format!("/upload/{wrong}"), &[], b"")
        .await;
    assert_eq!(refused.status, 403);
    let deleted = front
        .ask("DELETE", &delete("9f/deleted.png"), &[], b"")
        .await;
    assert_eq!(deleted.status, 204);
    let again = front
        .ask("DELETE", &delete("9f/deleted.png"), &[], b"")
        .await;
    assert_eq!(again.status, 404);
    check_served(&front, "9f/swept.png", b"a picture").await;
    sweep(&front, 40 * DAY).await;
    for path in ["9f/swept.png", "9f/deleted.png"] {
        assert_eq!(get(&front, path).await.status, 404, "{path}");
        let row = front.site.0.stores.sessions.get(id(path)).await;
        assert_eq!(row.expect("readable"), None, "{path}");
        assert_eq!(
            put(&front, &target(path), b"Z picture").await,
            410,
            "{path}"
        );
        assert_eq!(get(&front, path).await.status, 404, "{path}");
    }
}

/// Any number of tokens may have been made for a path, each with another end.
#[tokio::test]
async fn a_path_of_v3_is_never_filled_again() {
    let front = front(&[Format::V3]);
    let path = "9f/a.png";
    let first = format!("{path}?{}", v3(path, START.0 + 60));
    assert_eq!(put(&front, &first, b"a picture").await, 201);
    let second = format!("{path}?{}", v3(path, START.0 + 365 * DAY));
    assert_eq!(put(&front, &second, b"other bytes").await, 409);
    sweep(&front, 41 * DAY).await;
    assert_eq!(put(&front, &first, b"a picture").await, 403);
    assert_eq!(put(&front, &second, b"other bytes").await, 410);
}

#[tokio::test]
async fn what_expires_by_itself_is_forgotten_some_day() {
    let front = front(&[Format::Jwt]);
    let path = "9f/a.png";
    let token = jwt(path, 9, START.0 + 600);
    let fields = [("authorization", &*token)];
    assert_eq!(put_as(&front, path, b"a picture", &fields).await, 201);
    sweep(&front, 41 * DAY).await;
    // The mark went after the last second in which the token could be good.
    assert_eq!(put_as(&front, path, b"a picture", &fields).await, 403);
    let marked = front.site.0.stores.sessions.admit_path(
        slotd::core::external::UsedPath {
            id: id(path),
            forget_at: None,
        },
        BareJid::new("montague.lit").expect("a domain"),
        Bucket(0),
        Box::new(|_| Err(slotd::core::refusal::Refusal::NotAllowed)),
    );
    let marked = format!("{:?}", marked.await.expect_err("refused"));
    assert!(marked.contains("NotAllowed"), "{marked}");
}

#[tokio::test]
async fn a_broken_upload_may_come_again_for_a_while() {
    let front = front(&[Format::V]);
    let body = vec![7; 2 << 20];
    for (path, wait, status) in [("9f/soon.bin", 300, 201), ("9f/late.bin", 301, 410)] {
        let target = format!("/upload/{path}?{}", v(path, body.len()));
        let length = body.len().to_string();
        let fields = [("content-length", &*length)];
        // The body ends early.
        let broken = front.ask("PUT", &target, &fields, &body[..1000]).await;
        assert_eq!(broken.status, 400);
        assert_eq!(get(&front, path).await.status, 404);
        front.site.0.world.pass(wait);
        let again = front.ask("PUT", &target, &fields, &body).await;
        assert_eq!(again.status.as_u16(), status, "{path}");
    }
    check_served(&front, "9f/soon.bin", &body).await;
    sweep(&front, 3600).await;
    let path = "9f/late.bin";
    let target = format!("{path}?{}", v(path, body.len()));
    assert_eq!(put(&front, &target, &body).await, 410);
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    let front = front(&[Format::V]);
    let target = format!("9f/a.png?{}", v("9f/a.png", 0));
    assert_eq!(put(&front, &target, b"").await, 201);
    check_served(&front, "9f/a.png", b"").await;
    assert_eq!(put(&front, &target, b"").await, 201);
}

#[tokio::test]
async fn limits_are_ours() {
    let limited = |change: fn(&mut Settings)| front_with(&[Format::Jwt, Format::V], change);
    let status = async |front: &Front, path: &str, size: usize| {
        let target = format!("{path}?{}", v(path, size));
        put(front, &target, &vec![0; size]).await
    };
    let front = limited(|settings| settings.policy.size_bytes_max = 10);
    assert_eq!(status(&front, "9f/a", 10).await, 201);
    assert_eq!(status(&front, "9f/b", 11).await, 413);
    // ejabberd's accounts have a name each; where there is none, only the domain's quota holds.
    let front = limited(|settings| {
        settings.policy.quota.per_requester = Some(10);
        settings.policy.quota.per_domain = Some(35);
        settings.slot_rate.per_minute = 2;
    });
    assert_eq!(status(&front, "romeo/9f/a", 9).await, 201);
    assert_eq!(status(&front, "romeo/9f/b", 9).await, 429);
    assert_eq!(status(&front, "juliet/9f/b", 9).await, 201);
    assert_eq!(status(&front, "9f/c", 14).await, 201);
    assert_eq!(status(&front, "9f/d", 14).await, 429);
    assert_eq!(status(&front, "9f/e", 1).await, 201);
    let front = limited(|settings| {
        let denied = ["romeo@montague.lit", "capulet.lit"];
        let denied = denied.iter().map(|jid| BareJid::new(jid).expect("a JID"));
        settings.policy.access.deny = denied.collect();
    });
    assert_eq!(status(&front, "romeo/9f/a", 9).await, 403);
    let token = jwt("9f/a.png", 9, START.0 + 600);
    let fields = [("authorization", &*token)];
    assert_eq!(put_as(&front, "9f/a.png", b"a picture", &fields).await, 403);
    assert_eq!(status(&front, "juliet/9f/a", 9).await, 201);
    // ejabberd may write SHA-1 of the account: of romeo@montague.lit.
    let digest = "d011ed1f53dbba99de4fcedabaa4ee6c9282c4c3";
    assert_eq!(status(&front, &format!("{digest}/9f/a"), 9).await, 403);
}

/// Who registers such a name would have the other account's files.
#[tokio::test]
async fn nobody_asks_under_a_name_that_stands_for_another() {
    let front = front(&[Format::V]);
    let service = &front.site.0.service;
    let asks = |account: &str| service.check_name(&account.parse().expect("a JID")).is_ok();
    let digest = "d011ed1f53dbba99de4fcedabaa4ee6c9282c4c3";
    assert!(!asks(&format!("{digest}@montague.lit/phone")));
    assert!(asks(&format!("{digest}@capulet.lit/phone")));
    assert!(asks("romeo@montague.lit/phone"));
}

/// Each has its own files, tokens and secrets, also where paths are alike.
#[tokio::test]
async fn two_systems_have_nothing_of_each_other() {
    let mine = system(&[Format::V]);
    let other = Arc::new(System {
        prefix: "/other/".to_owned(),
        ..System::clone(&mine)
    });
    let front = front_with(&[Format::V], |settings| {
        settings.external.push(other.clone())
    });
    let path = "9f/a.png";
    let target = format!("{path}?{}", v(path, 9));
    assert_eq!(put(&front, &target, b"a picture").await, 201);
    assert_eq!(get(&front, path).await.status, 200);
    let there = front.ask("GET", &format!("/other/{path}"), &[], b"").await;
    assert_eq!(there.status, 404);
}

#[tokio::test]
async fn who_forges_is_banned() {
    for (method, format) in [("PUT", "v"), ("DELETE", "token")] {
        check_forger(method, format).await;
    }
}

async fn check_forger(method: &str, format: &str) {
    let front = front(&[Format::V, Format::Token]);
    let target = format!("/upload/9f/a.png?{format}={}", "0".repeat(64));
    let mut seen = Vec::new();
    for _ in 0..30 {
        let request = http::Request::builder().method(method).uri(&target);
        let mut request = request
            .header("host", "upload.example.org")
            .header("content-length", "0")
            .body(axum::body::Body::empty())
            .expect("a request");
        request.extensions_mut().insert(slotd::http::Origin {
            peer: Some("192.0.2.66".parse().expect("an address")),
            local: None,
        });
        let answer = front.send(request).await;
        seen.push(answer.text().contains("banned"));
    }
    assert!(!seen[0] && seen[29]);
    let address = "192.0.2.66".parse().expect("an address");
    assert!(front.site.0.service.check_address(Some(address)).is_err());
}

#[tokio::test]
async fn links_of_ours_stay_ours() {
    let external = vec![Arc::new(System {
        prefix: "/".to_owned(),
        ..(*system(&[Format::V])).clone()
    })];
    let front = Front::over(Site::with(|settings| settings.external = external));
    let slot = front.site.slot().await;
    front.check_usable(&slot).await;
    let path = "9f/a.png";
    let target = format!("/{path}?{}", v(path, 9));
    let fields = [("content-length", "9")];
    let answer = front.ask("PUT", &target, &fields, b"a picture").await;
    assert_eq!(answer.status, StatusCode::CREATED);
    // What begins as ours do is never another system's.
    let target = format!("/f/a.png?{}", v("f/a.png", 9));
    let answer = front.ask("PUT", &target, &fields, b"a picture").await;
    assert_eq!(answer.status, 404);
    let raw = front.ask("GET", &format!("{}è", slot.path), &[], b"").await;
    assert_eq!(raw.status, 400);
}

#[tokio::test]
async fn answers_are_those_of_all_files() {
    let front = front(&[Format::V]);
    let path = "9f/tr%c3%a8s%20cool.png";
    let target = format!("{path}?{}", v("9f/très cool.png", 9));
    let fields = [("content-type", "image/png")];
    assert_eq!(put_as(&front, &target, b"a picture", &fields).await, 201);
    let link = format!("/upload/{path}");
    let head = front.ask("HEAD", &link, &[], b"").await;
    assert_eq!(head.header("content-length"), "9");
    assert!(
        head.header("content-disposition")
            .contains("tr%C3%A8s%20cool.png")
    );
    let part = front
        .ask("GET", &link, &[("range", "bytes=2-4")], b"")
        .await;
    assert_eq!(
        (part.status.as_u16(), part.body.as_ref()),
        (206, &b"pic"[..])
    );
    let tag = head.header("etag");
    let same = front
        .ask("GET", &link, &[("if-none-match", tag)], b"")
        .await;
    assert_eq!(same.status, 304);
    let options = front.ask("OPTIONS", &link, &[], b"").await;
    assert_eq!(options.status, 204);
    assert_eq!(options.header("allow"), "OPTIONS, HEAD, GET, PUT");
    let delete = front.ask("DELETE", &link, &[], b"").await;
    assert_eq!(
        (delete.status.as_u16(), delete.header("allow")),
        (405, options.header("allow"))
    );
    let metronome = support::front::Front::over(Site::with(|settings| {
        settings.external = vec![system(&[Format::Token])];
    }));
    let options = metronome.ask("OPTIONS", &link, &[], b"").await;
    assert_eq!(options.header("allow"), "OPTIONS, HEAD, GET, PUT, DELETE");
}

/// Over sockets, where plain requests are answered in front of hyper: letters as ejabberd leaves
/// them, and as clients encode them, are the same path.
#[tokio::test]
async fn raw_and_encoded_letters_are_one_file() {
    let front = sockets::Front::with(|settings| settings.external = vec![system(&[Format::V])]);
    for way in ["plain", "tls", "hyper"] {
        let path = format!("3f1d/{way}/très.png");
        let query = v(&path, 9);
        let links = [
            path.clone(),
            path.replace('è', "%c3%a8"),
            path.replace('è', "%C3%A8"),
        ];
        let steps = [
            ("GET", 1, 404),
            ("PUT", 0, 201),
            ("PUT", 1, 201),
            ("PUT", 2, 201),
        ];
        let steps = steps.into_iter().chain((0..3).map(|n| ("GET", n, 200)));
        for (method, n, status) in steps {
            let (length, body) = match method {
                "PUT" => ("Content-Length: 9\r\n", "a picture"),
                _ => ("", ""),
            };
            let target = format!("/upload/{}?{query}", links[n]);
            let fields = format!("{length}Connection: close\r\n");
            let mut asked = sockets::request(method, &target, &fields);
            asked.extend(body.as_bytes());
            let answer = match way {
                "plain" => sockets::ask(&mut front.connect().await, &asked, false).await,
                "tls" => sockets::ask(&mut front.connect_tls().await, &asked, false).await,
                _ => sockets::hyper_answers(&front, &asked, false).await,
            };
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let wanted = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&wanted), "{way} {method} {n}: {answer}");
            assert_eq!(answer.ends_with("a picture"), status == 200, "{way} {n}");
        }
        let row = front.site.0.stores.sessions.get(id(&path)).await;
        let row = row.expect("readable").expect("a row");
        assert!(matches!(row.state, State::Complete { .. }));
    }
}
