//! Warm bindings: what is asked of a connection manager, what comes of what it says, and what is
//! refused before it is asked. Beside real servers they are tested in `tests/e2e`.

mod support;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use slotd::admin::{Listeners, router};
use slotd::config::{Admin, Listen};
use slotd::core::bosh::manager::{self as core, Door, Place, WarmBinding};
use slotd::core::event::Event;
use slotd::core::external::{SharedSecret, System};
use slotd::core::time::Timestamp;
use slotd::http::inherited::Inherited;
use slotd::http::{Origin, router as http_router};
use slotd::service::events::Listener;
use slotd::service::{Service, Settings};
use support::manager::{Act, Manager, answer, bound, created, failure, features, offer};
use support::manager::{refused, success};
use support::site::http;
use support::sockets;
use support::world::{bench, settings};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

const ADMIN: &str = "admin@example.org";
const FORM: &str = "jid=romeo%40example.org&password=pencil";
const PROXIED: &str = "203.0.113.7";

fn rules(port: u16, door: Door) -> Settings {
    let manager = core::Manager {
        place: Place::Loopback {
            host: "127.0.0.1".to_owned(),
            port,
        },
        host: format!("127.0.0.1:{port}"),
        path: "/bosh".to_owned(),
    };
    let managers = BTreeMap::from([("example.org".to_owned(), manager)]);
    let path = "/warm".to_owned();
    Settings {
        warm_binding: Some(Arc::new(WarmBinding {
            managers,
            path,
            door,
        })),
        ..settings()
    }
}

/// A private listener beside a manager.
struct Scene {
    manager: Manager,
    service: Arc<Service>,
    path: PathBuf,
    _directory: TempDir,
    _serving: JoinSet<()>,
}

/// An answer over HTTP.
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Scene {
    async fn new(acts: Vec<Act>) -> Self {
        let manager = Manager::start(acts).await;
        let service = bench(rules(manager.port, Door::Admin)).service;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("admin");
        let listen = vec![Listen::Unix(path.clone())];
        let listeners = Listeners::open(&Admin { listen }, &mut Inherited::default());
        let mut serving = JoinSet::new();
        serving.spawn(listeners.expect("bound").serve(router(service.clone())));
        Self {
            manager,
            service,
            path,
            _directory: directory,
            _serving: serving,
        }
    }

    /// The operator's part goes well, and then this.
    async fn admitted(acts: Vec<Act>) -> Self {
        let operator = [created("op", "PLAIN"), success("")].map(Act::Say);
        Self::new(operator.into_iter().chain(acts).collect()).await
    }

    /// Whoever asked has gone while the connection manager binds: it says so only at its gate.
    async fn abandoned() -> Self {
        let mut acts = all_well();
        acts[3] = Act::SayLater(bound("romeo@example.org/x"));
        let scene = Self::admitted(acts).await;
        let waiting = scene.begin(&post(FORM, "")).await;
        scene.manager.bodies_of(6).await;
        drop(waiting);
        scene
    }

    async fn begin(&self, request: &str) -> UnixStream {
        let mut stream = UnixStream::connect(&self.path).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("written");
        stream
    }

    async fn say(&self, request: &str) -> Reply {
        let mut stream = self.begin(request).await;
        let mut text = String::new();
        // What is closed over unread bytes may be reset behind the answer.
        let _ = stream.read_to_string(&mut text).await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
        Reply {
            status: status.unwrap_or_default(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    /// POSTs a form as curl does.
    async fn post(&self, form: &str, more: &str) -> Reply {
        self.say(&post(form, more)).await
    }

    async fn get(&self, more: &str) -> Reply {
        let head = format!("GET /warm HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n");
        self.say(&head).await
    }
}

fn basic(name: &str, password: &str) -> String {
    let pair = STANDARD.encode(format!("{name}:{password}"));
    format!("Authorization: Basic {pair}\r\n")
}

fn post(form: &str, more: &str) -> String {
    format!(
        "POST /warm HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n{more}\r\n{form}",
        basic(ADMIN, "secret"),
        form.len()
    )
}

/// A login that goes well.
fn logged_in(sid: &str, jid: &str) -> Vec<Act> {
    let all = [created(sid, "PLAIN"), success(""), offer(), bound(jid)];
    all.map(Act::Say).into()
}

/// The answers to an operator's password and to a user's, and then to whatever ends sessions.
fn all_well() -> Vec<Act> {
    let mut acts = logged_in("the-sid", "romeo@example.org/balcony");
    acts.push(Act::Say(answer("type='terminate'", "")));
    acts
}

fn rid(body: &str) -> u64 {
    let rid = body
        .split("rid='")
        .nth(1)
        .and_then(|it| it.split('\'').next());
    rid.and_then(|rid| rid.parse().ok()).expect("a rid")
}

fn ends(body: &str, sid: &str) -> bool {
    body.contains("type='terminate'") && body.contains(&format!("sid='{sid}'"))
}

#[tokio::test]
async fn a_session_is_bound_and_told_as_ever() {
    let scene = Scene::admitted(all_well()).await;
    let reply = scene.post(FORM, "").await;
    assert_eq!(reply.status, 200, "{}", reply.head);
    let bodies = scene.manager.bodies_of(7).await;
    let next = rid(&bodies[5]) + 1;
    assert_eq!(
        reply.body,
        format!(
            "<?xml version='1.0'?>\n\
             <!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\" \
             \"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n\
             <html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\">\
             <head><title>Success</title></head><body><p>Success</p>\
             <dl class=\"binding\">\
             <dt class=\"jid\">JID</dt><dd class=\"jid\">romeo@example.org/balcony</dd>\
             <dt class=\"sid\">SID</dt><dd class=\"sid\">the-sid</dd>\
             <dt class=\"rid\">RID</dt><dd class=\"rid\">{next}</dd></dl></body></html>"
        )
    );
    for field in [
        "content-type: text/html; charset=utf-8",
        "cache-control: no-store",
        "x-bosh-inactivity: 30",
        "x-content-type-options: nosniff",
    ] {
        assert!(
            reply.head.contains(&format!("\r\n{field}")),
            "{}",
            reply.head
        );
    }
    assert!(bodies[1].contains("AGFkbWluAHNlY3JldA=="), "{}", bodies[1]);
    assert!(bodies[3].contains("AHJvbWVvAHBlbmNpbA=="), "{}", bodies[3]);
    assert!(
        ends(&bodies[6], "op"),
        "the operator's session is not left behind"
    );
    assert_ne!(rid(&bodies[0]), rid(&bodies[2]));
}

#[tokio::test]
async fn who_wants_json_gets_it() {
    let scene = Scene::admitted(all_well()).await;
    let accept = "Accept: application/json, text/javascript\r\n";
    let reply = scene.post(FORM, accept).await;
    assert_eq!(reply.status, 200);
    assert!(
        reply
            .head
            .contains("\r\ncontent-type: application/json\r\n")
    );
    let told: serde_json::Value = serde_json::from_str(&reply.body).expect("JSON");
    let next = rid(&scene.manager.bodies_of(7).await[5]) + 1;
    let expected = serde_json::json!({
        "jid": "romeo@example.org/balcony", "sid": "the-sid", "rid": next,
    });
    assert_eq!(told, expected);
    let refused = scene.say(
        "POST /warm HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
        Accept: application/json\r\nContent-Type: text/plain\r\n\r\n",
    );
    let refused = refused.await;
    assert_eq!(refused.body, "{\"error\":\"Unsupported Media Type\"}");
}

#[tokio::test]
async fn an_operator_gets_the_form() {
    let scene = Scene::admitted(vec![Act::Say(answer("type='terminate'", ""))]).await;
    let reply = scene.get(&basic(ADMIN, "secret")).await;
    assert_eq!(reply.status, 200);
    for field in [
        "<input type=\"text\" name=\"jid\" value=\"\" ",
        "<input type=\"password\" name=\"password\" value=\"\" ",
        "<input type=\"text\" name=\"lang\" value=\"en\" ",
        "<input type=\"text\" name=\"wait\" value=\"60\" ",
        "<input type=\"text\" name=\"hold\" value=\"1\" ",
        "<input type=\"text\" name=\"ver\" value=\"1.6\" ",
        "<input type=\"submit\" value=\"Bind\">",
    ] {
        assert!(reply.body.contains(field), "{}", reply.body);
    }
    assert!(
        reply.head.contains("frame-ancestors 'none'"),
        "{}",
        reply.head
    );
    assert!(ends(&scene.manager.bodies_of(3).await[2], "op"));
}

/// The user's login goes so far, and then this happens: what whoever asked is told, and whether the
/// user's session has to be ended.
async fn check(name: &str, acts: Vec<Act>, status: u16, is_ended: bool) {
    let end = Act::Say(answer("type='terminate'", ""));
    let scene = Scene::admitted(acts.into_iter().chain([end]).collect()).await;
    let reply = scene.post(FORM, "").await;
    assert_eq!(reply.status, status, "{name}: {}", reply.body);
    let words = match status {
        400 => "Bad Request",
        409 => "Conflict",
        _ => "Bad Gateway",
    };
    let framed = format!("<title>{words}</title></head><body><p>{words}</p></body></html>");
    assert!(reply.body.ends_with(&framed), "{name}: {}", reply.body);
    // The last that is sent is the end of the operator's session.
    let bodies = scene.manager.bodies_until(|body| ends(body, "op")).await;
    let has_end = bodies.iter().any(|body| ends(body, "u"));
    assert_eq!(has_end, is_ended, "{name}: {bodies:#?}");
}

fn end(condition: &str) -> Act {
    Act::Say(answer(
        &format!("type='terminate' condition='{condition}'"),
        "",
    ))
}

#[tokio::test]
async fn without_a_session_none_is_ended() {
    let redirect = Act::Status("302 Found\r\nlocation: http://127.0.0.1:1/bosh".to_owned());
    let garbage = Act::Say("<html><body/></html>".to_owned());
    for (name, act, status) in [
        ("host", end("host-unknown"), 400),
        ("prosody", end("improper-addressing"), 400),
        ("remote", end("remote-connection-failed"), 502),
        ("redirect", redirect, 502),
        ("no bosh", Act::Status("404 Not Found".to_owned()), 502),
        ("flood", Act::Flood, 502),
        ("garbage", garbage, 502),
        ("nothing", Act::Say(String::new()), 502),
    ] {
        check(name, vec![act], status, false).await;
    }
    check("closed", vec![Act::Close; 2], 502, false).await;
    check("half", vec![Act::Half; 2], 502, false).await;
}

#[tokio::test]
async fn what_goes_wrong_later_leaves_no_session() {
    let created = |mechanism| Act::Say(created("u", mechanism));
    let oauth = vec![created("X-OAUTH2")];
    check("oauth", oauth, 502, true).await;
    for (name, acts, status, is_ended) in [
        (
            "password",
            vec![Act::Say(failure("not-authorized"))],
            400,
            true,
        ),
        (
            "disabled",
            vec![Act::Say(failure("account-disabled"))],
            400,
            true,
        ),
        (
            "later",
            vec![Act::Say(failure("temporary-auth-failure"))],
            502,
            true,
        ),
        ("flood", vec![Act::Flood], 502, true),
        ("ended", vec![end("item-not-found")], 502, false),
        ("silence", vec![Act::Say(answer("", "")); 6], 502, true),
        (
            "error",
            vec![Act::Say(answer("type='error'", "")); 2],
            502,
            true,
        ),
    ] {
        let acts = [vec![created("PLAIN")], acts].concat();
        check(name, acts, status, is_ended).await;
    }
    for (name, said, status) in [
        ("conflict", refused("conflict"), 409),
        ("sessions", refused("resource-constraint"), 409),
        ("resource", refused("bad-request"), 400),
        ("address", bound("nobody"), 502),
    ] {
        let mut acts = vec![created("PLAIN")];
        acts.extend([success(""), offer(), said].map(Act::Say));
        check(name, acts, status, true).await;
    }
}

/// Somebody stands between who does not know the password.
#[tokio::test]
async fn a_manager_with_a_wrong_signature_is_not_believed() {
    let acts = vec![
        Act::Say(created("u", "SCRAM-SHA-256")),
        Act::Challenge,
        Act::Say(success("v=rmF9pqV8S7suAoZWja4dJRkFsKQ=")),
        Act::Say(answer("type='terminate'", "")),
    ];
    let scene = Scene::admitted(acts).await;
    assert_eq!(scene.post(FORM, "").await.status, 502);
    assert!(ends(&scene.manager.bodies_of(6).await[5], "u"));
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_by_the_same_bytes() {
    for broken in [Act::Close, Act::Half] {
        let mut acts = all_well();
        acts.insert(1, broken.clone());
        acts.insert(0, broken);
        let scene = Scene::admitted(acts).await;
        assert_eq!(scene.post(FORM, "").await.status, 200);
        let bodies = scene.manager.bodies_of(9).await;
        assert_eq!(bodies[2], bodies[3]);
        assert_eq!(bodies[4], bodies[5]);
        assert_eq!(rid(&bodies[5]), rid(&bodies[3]) + 1);
    }
}

#[tokio::test]
async fn a_recoverable_error_gets_the_same_bytes_again() {
    let mut acts = all_well();
    acts.insert(1, Act::Say(answer("type='error'", "")));
    let scene = Scene::admitted(acts).await;
    assert_eq!(scene.post(FORM, "").await.status, 200);
    let bodies = scene.manager.bodies_of(8).await;
    assert_eq!(bodies[3], bodies[4]);
}

#[tokio::test]
async fn a_manager_that_hangs_or_is_dead_is_told_as_such() {
    let scene = Scene::admitted(vec![Act::Hang]).await;
    assert_eq!(scene.post(FORM, "").await.status, 504);
    let dead = Scene::new(vec![Act::Close]).await;
    dead.service.set_settings(rules(1, Door::Admin));
    assert_eq!(dead.post(FORM, "").await.status, 502);
}

#[tokio::test]
async fn what_nobody_may_ask_is_refused_before_anybody_is_asked() {
    let scene = Scene::new(vec![Act::Hang]).await;
    let (good, form) = (basic(ADMIN, "secret"), "application/x-www-form-urlencoded");
    let unauthorized = scene.get("").await;
    assert_eq!(unauthorized.status, 401);
    let challenge = "www-authenticate: Basic realm=\"HTTP Binding Warm\", charset=\"UTF-8\"";
    assert!(
        unauthorized.head.contains(challenge),
        "{}",
        unauthorized.head
    );
    let twice = format!("{good}{good}");
    for wrong in [
        "Authorization: Basic x\r\n",
        "Authorization: Bearer eA==\r\n",
        &twice,
    ] {
        assert_eq!(scene.get(wrong).await.status, 401, "{wrong}");
    }
    // A domain for which there is nobody to ask.
    let stranger = basic("admin@example.net", "secret");
    assert_eq!(scene.get(&stranger).await.status, 401);
    for (line, status) in [
        ("PUT /warm", 400),
        ("DELETE /warm", 400),
        ("OPTIONS /warm", 400),
        ("GET /warm/", 404),
        ("GET /warm/x", 404),
        ("GET /warmer", 404),
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{good}\r\n");
        assert_eq!(scene.say(&request).await.status, status, "{line}");
    }
    let long = format!("{FORM}&x={}", "x".repeat(8192));
    assert_eq!(scene.post(&long, "").await.status, 413);
    let chunked = format!(
        "POST /warm HTTP/1.1\r\nHost: x\r\n{good}Content-Type: {form}\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n2200\r\n{}\r\n0\r\n\r\n",
        "x".repeat(0x2200)
    );
    assert_eq!(scene.say(&chunked).await.status, 413);
    for field in ["Sec-Fetch-Site: cross-site", "Origin: https://evil.example"] {
        let reply = scene.post(FORM, &format!("{field}\r\n")).await;
        assert_eq!(reply.status, 403, "{field}");
    }
    let plain = post(FORM, "").replace(form, "text/plain");
    assert_eq!(scene.say(&plain).await.status, 415);
    assert_eq!(scene.manager.bodies(), Vec::<String>::new());
}

#[tokio::test]
async fn wrong_forms_are_refused_before_the_user_is_looked_for() {
    for form in [
        "",
        "jid=romeo@example.org",
        "password=x",
        "jid=romeo&password=x",
        "jid=romeo@example.net&password=x",
        "jid=romeo@example.org&password=x&wait=301",
        "jid=romeo@example.org&password=x&lang='><y",
        "jid=romeo@example.org&jid=juliet@example.org&password=x",
    ] {
        let scene = Scene::admitted(vec![Act::Say(answer("type='terminate'", ""))]).await;
        let reply = scene.post(form, "").await;
        assert_eq!(reply.status, 400, "{form}");
        let bodies = scene.manager.bodies_of(3).await;
        assert!(ends(&bodies[2], "op"), "{form}: {bodies:#?}");
    }
}

#[tokio::test]
async fn only_operators_with_their_own_password() {
    let scene = Scene::admitted(vec![Act::Say(answer("type='terminate'", ""))]).await;
    assert_eq!(
        scene
            .get(&basic("romeo@example.org", "pencil"))
            .await
            .status,
        403
    );
    assert!(ends(&scene.manager.bodies_of(3).await[2], "op"));
    let end = Act::Say(answer("type='terminate'", ""));
    let one = [Act::Say(created("op", "PLAIN")), Act::Say(success("")), end];
    let scene = Scene::new((0..20).flat_map(|_| one.clone()).collect()).await;
    for n in 1..=20 {
        assert_eq!(
            scene
                .get(&basic("romeo@example.org", "pencil"))
                .await
                .status,
            403
        );
        scene.manager.bodies_of(3 * n).await;
    }
    assert_eq!(
        scene
            .get(&basic("romeo@example.org", "pencil"))
            .await
            .status,
        429
    );
    let acts = [created("op", "PLAIN"), failure("not-authorized")].map(Act::Say);
    let scene = Scene::new(acts.into()).await;
    assert_eq!(scene.get(&basic(ADMIN, "wrong")).await.status, 401);
    // The server's trouble is nobody's wrong password.
    for trouble in [failure("encryption-required"), failure("aborted")] {
        let acts = [created("op", "PLAIN"), trouble].map(Act::Say);
        let scene = Scene::new(acts.into()).await;
        assert_eq!(scene.get(&basic(ADMIN, "secret")).await.status, 502);
    }
    let unknown = answer("type='terminate' condition='host-unknown'", "");
    let scene = Scene::new(vec![Act::Say(unknown)]).await;
    assert_eq!(scene.get(&basic(ADMIN, "secret")).await.status, 502);
}

#[tokio::test]
async fn so_many_wrong_passwords_and_no_more() {
    let offered = answer("sid='op'", &features(""));
    let scene = Scene::new(vec![Act::Say(offered)]).await;
    for _ in 0..25 {
        // Nobody could tell whether it was right: that counts for nothing.
        assert_eq!(scene.get(&basic(ADMIN, "wrong")).await.status, 502);
    }
    let acts = [created("op", "PLAIN"), failure("not-authorized")].map(Act::Say);
    let wrong: Vec<_> = (0..100).flat_map(|_| acts.clone()).collect();
    let end = Act::Say(answer("type='terminate'", ""));
    let wrong = wrong
        .chunks(2)
        .flat_map(|two| [two[0].clone(), two[1].clone(), end.clone()]);
    let scene = Scene::new(wrong.collect()).await;
    for n in 1..=20 {
        assert_eq!(scene.get(&basic(ADMIN, "wrong")).await.status, 401, "{n}");
        scene.manager.bodies_of(3 * n).await;
    }
    let reply = scene.get(&basic(ADMIN, "secret")).await;
    assert_eq!(reply.status, 429);
    assert!(
        reply.head.contains("\r\nretry-after: 3\r\n"),
        "{}",
        reply.head
    );
    assert_eq!(scene.manager.bodies().len(), 60);
}

#[tokio::test]
async fn only_so_many_at_a_time() {
    let scene = Scene::new(vec![Act::Hang]).await;
    let request = post(FORM, "");
    let mut waiting = Vec::new();
    for n in 1..=16 {
        waiting.push(scene.begin(&request).await);
        scene.manager.bodies_of(n).await;
    }
    let reply = scene.post(FORM, "").await;
    assert_eq!(reply.status, 503);
    assert!(
        reply.head.contains("\r\nretry-after: 5\r\n"),
        "{}",
        reply.head
    );
    let health = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(
        scene.say(health).await.status,
        200,
        "others are answered all the while"
    );
}

/// Whoever asked has gone: nobody will go on with the session.
#[tokio::test]
async fn a_session_that_nobody_takes_is_ended() {
    // When the listener notices is the kernel's affair.
    for _ in 0..20 {
        let scene = Scene::abandoned().await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        scene.manager.gate.add_permits(1);
        while !scene.manager.bodies().iter().any(|body| ends(body, "op")) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        if scene
            .manager
            .bodies()
            .iter()
            .any(|body| ends(body, "the-sid"))
        {
            return;
        }
    }
    panic!("nobody ended it");
}

#[tokio::test]
async fn a_reload_opens_and_closes_the_room() {
    let scene = Scene::admitted(all_well()).await;
    let port = scene.manager.port;
    scene.service.set_settings(settings());
    assert_eq!(
        scene.post(FORM, "").await.status,
        413,
        "nothing takes a body"
    );
    scene.service.set_settings(rules(port, Door::Http));
    assert_eq!(scene.get(&basic(ADMIN, "secret")).await.status, 404);
    scene.service.set_settings(rules(port, Door::Admin));
    assert_eq!(scene.post(FORM, "").await.status, 200);
}

/// Where uploads are: status and fields of the answer to a form from `peer`.
async fn post_where_uploads_are(
    router: &axum::Router,
    peer: Option<IpAddr>,
    password: &str,
) -> (u16, HeaderMap, String) {
    post_as(router, peer, PROXIED, (ADMIN, password)).await
}

/// The same through a proxy, from this address and as this account.
async fn post_from(
    router: &axum::Router,
    address: &str,
    name: &str,
    password: &str,
) -> (u16, HeaderMap, String) {
    post_as(router, None, address, (name, password)).await
}

async fn post_as(
    router: &axum::Router,
    peer: Option<IpAddr>,
    address: &str,
    (name, password): (&str, &str),
) -> (u16, HeaderMap, String) {
    let request = Request::post("/warm")
        .header("host", "upload.example.org")
        .header("x-forwarded-for", address)
        .header("content-type", "application/x-www-form-urlencoded")
        .header(
            "authorization",
            format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))),
        );
    let mut request = request.body(Body::from(FORM)).expect("a request");
    request
        .extensions_mut()
        .insert(Origin { peer, local: None });
    let Ok(response) = router.clone().oneshot(request).await;
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    (head.status.as_u16(), head.headers, body)
}

#[tokio::test]
async fn where_uploads_are_nobody_reads_along() {
    let acts = [created("op", "PLAIN"), success("")]
        .map(Act::Say)
        .into_iter();
    let manager = Manager::start(acts.chain(all_well()).collect()).await;
    let service = bench(rules(manager.port, Door::Http)).service;
    let router = http_router(service.clone(), &http());
    let before = (
        requests(&service, "4xx").await,
        requests(&service, "2xx").await,
    );
    let stranger = Some("192.0.2.66".parse().expect("an address"));
    let (status, ..) = post_where_uploads_are(&router, stranger, "secret").await;
    assert_eq!((status, manager.bodies().len()), (403, 0));
    let (status, fields, body) = post_where_uploads_are(&router, None, "secret").await;
    assert_eq!(status, 200, "{body}");
    // Counted as every request is.
    assert_eq!(requests(&service, "4xx").await, before.0 + 1);
    assert_eq!(requests(&service, "2xx").await, before.1 + 1);
    // No other site's page may read this.
    assert_eq!(fields.get("access-control-allow-origin"), None);
    assert_eq!(fields["connection"], "close");
    service.set_settings(rules(manager.port, Door::Admin));
    let (status, ..) = post_where_uploads_are(&router, None, "secret").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn who_guesses_on_is_banned() {
    let acts = [created("op", "PLAIN"), failure("not-authorized")].map(Act::Say);
    let end = Act::Say(answer("type='terminate'", ""));
    let one = [acts[0].clone(), acts[1].clone(), end];
    let manager = Manager::start((0..20).flat_map(|_| one.clone()).collect()).await;
    let service = bench(rules(manager.port, Door::Http)).service;
    let router = http_router(service.clone(), &http());
    let client = Some(PROXIED.parse().expect("an address"));
    for n in 1..=20 {
        assert!(service.check_address(client).is_ok(), "{n}");
        let (status, ..) = post_where_uploads_are(&router, None, "wrong").await;
        assert_eq!(status, 401, "{n}");
        manager.bodies_of(3 * n).await;
    }
    assert!(service.check_address(client).is_err());
    let (status, ..) = post_where_uploads_are(&router, None, "secret").await;
    assert_eq!((status, manager.bodies().len()), (403, 60));
}

/// How many requests of a method that is none of files were answered like this.
async fn requests(service: &Arc<Service>, status: &str) -> u64 {
    let request = Request::get("/metrics").body(Body::empty());
    let request = request.expect("a request");
    let Ok(response) = router(service.clone()).oneshot(request).await;
    let text = response.into_body().collect().await.expect("a body");
    let text = String::from_utf8_lossy(&text.to_bytes()).into_owned();
    let name = format!("slotd_requests_total{{method=\"other\",status=\"{status}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&name));
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or_default()
}

/// Strangers guess an operator's password; their own machine, which has it, does not wait for that.
#[tokio::test]
async fn who_guesses_holds_up_nobody_with_the_password() {
    let one = [created("op", "PLAIN"), failure("not-authorized")].map(Act::Say);
    let end = Act::Say(answer("type='terminate'", ""));
    let guess = [one[0].clone(), one[1].clone(), end];
    let good = [created("op", "PLAIN"), success("")].map(Act::Say);
    let acts = (0..20).flat_map(|_| guess.clone()).chain(good);
    let manager = Manager::start(acts.chain(all_well()).collect()).await;
    let service = bench(rules(manager.port, Door::Http)).service;
    let router = http_router(service.clone(), &http());
    for n in 1..=20 {
        let (status, ..) = post_from(&router, PROXIED, ADMIN, "wrong").await;
        assert_eq!(status, 401, "{n}");
        manager.bodies_of(3 * n).await;
    }
    let (status, ..) = post_from(&router, "203.0.113.8", ADMIN, "secret").await;
    assert_eq!(status, 200);
}

/// Whether a password is right, nobody learns of an account that is no operator's.
#[tokio::test]
async fn where_uploads_are_only_operators_passwords_are_tried() {
    let manager = Manager::start(vec![Act::Hang]).await;
    let service = bench(rules(manager.port, Door::Http)).service;
    let told = Arc::new(Denials::default());
    service.set_listeners(vec![told.clone()]);
    let router = http_router(service.clone(), &http());
    for password in ["pencil", "wrong"] {
        let romeo = "romeo@example.org";
        let (status, ..) = post_from(&router, PROXIED, romeo, password).await;
        assert_eq!(status, 401, "{password}");
    }
    assert_eq!(manager.bodies(), Vec::<String>::new(), "nobody was asked");
    let denied = "romeo@example.org from 203.0.113.7: no-operator";
    assert_eq!(*told.0.lock().expect("not poisoned"), [denied, denied]);
}

/// Who was not let in.
#[derive(Default)]
struct Denials(Mutex<Vec<String>>);

impl Listener for Denials {
    fn hear(&self, event: &Event<'_>, _: Timestamp) {
        if let Event::WarmBindingDenied {
            by,
            address,
            outcome,
        } = event
        {
            let address = address.map_or("-".to_owned(), |it| it.to_string());
            let line = format!("{by} from {address}: {outcome}");
            self.0.lock().expect("not poisoned").push(line);
        }
    }
}

/// At a stop nobody begins, and what is under way leaves no session behind.
#[tokio::test]
async fn a_stop_waits_for_logins_and_lets_none_begin() {
    let scene = Scene::abandoned().await;
    let service = scene.service.clone();
    let stopping = tokio::spawn(async move { service.end_logins().await });
    let health = async || scene.get(&basic(ADMIN, "secret")).await.status;
    tokio::task::yield_now().await;
    assert_eq!(health().await, 503);
    assert!(!stopping.is_finished());
    scene.manager.gate.add_permits(1);
    stopping.await.expect("it ends");
    let bodies = scene.manager.bodies();
    assert!(bodies.iter().any(|body| ends(body, "op")), "{bodies:#?}");
    assert_eq!(health().await, 503);
}

/// Over a socket, where plain requests are answered in front of hyper, and where another system has
/// all paths that are not ours.
#[tokio::test]
async fn a_plain_request_finds_the_room() {
    let system = System {
        prefix: "/".to_owned(),
        formats: Vec::new(),
        secret: SharedSecret::new(String::new()),
        delete_secret: None,
        domain: ADMIN.parse().expect("a JID"),
    };
    let warm_binding = rules(1, Door::Http).warm_binding;
    let front = sockets::Front::with(|settings| {
        settings.warm_binding = warm_binding;
        settings.external = vec![Arc::new(system)];
    });
    for (target, status) in [("/warm", 401), ("/other", 404)] {
        let asked = sockets::request("GET", target, "Connection: close\r\n");
        let answer = sockets::ask(&mut front.connect_tls().await, &asked, false).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
}
