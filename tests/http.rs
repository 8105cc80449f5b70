//! Requests to the router and their answers: a row a request. `tests/wire.rs` has what only bytes
//! on a socket can show.

mod support;

use std::sync::{Arc, Mutex};

use axum::body::Body;
use futures_util::stream;
use http::Request;
use slotd::http::{Origin, router};
use support::front::{Answer, Fields, Front};
use support::site::{self, SIZE, Site, TestSlot, content};
use tower::ServiceExt as _;

/// A row: a request with a fresh slot's path (`P`) and token (`T`) that is refused, which changes
/// nothing and leaves the slot usable.
async fn check_refused(method: &str, target: &str, fields: Fields<'_>, body: &[u8], status: u16) {
    let front = Front::new();
    check_refused_by(&front, method, target, fields, body, status).await;
}

async fn check_refused_by(
    front: &Front,
    method: &str,
    target: &str,
    fields: Fields<'_>,
    body: &[u8],
    status: u16,
) -> Answer {
    let slot = front.site.slot().await;
    let before = front.site.trace(&slot).await;
    let fill = |text: &str| text.replace("{P}", &slot.path).replace("{T}", &slot.token);
    let fields: Vec<(&str, String)> = fields.iter().map(|(n, v)| (*n, fill(v))).collect();
    let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (*n, &**v)).collect();
    let answer = front.ask(method, &fill(target), &fields, body).await;
    assert_eq!(answer.status, status, "{method} {target} {fields:?}");
    assert_eq!(
        front.site.trace(&slot).await,
        before,
        "{method} {target} {fields:?}"
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(!answer.text().contains(&slot.token) && !answer.text().contains(&slot.path));
    front.check_usable(&slot).await;
    answer
}

/// A row of a PUT with the slot's own token and 1000 bytes.
async fn check_put_refused(fields: Fields<'_>, status: u16) {
    let mut all = vec![("content-length", "1000"), ("authorization", "Bearer {T}")];
    all.retain(|(name, _)| fields.iter().all(|(other, _)| other != name));
    all.extend(fields);
    check_refused("PUT", "{P}", &all, &content(SIZE), status).await;
}

#[tokio::test]
async fn a_file_goes_up_and_comes_down() {
    let front = Front::new();
    let slot = front.site.slot_for("Grüße (1).bin", SIZE).await;
    let missing = front.ask("GET", &slot.path, &[], b"").await;
    assert_eq!(
        (missing.status.as_u16(), missing.header("cache-control")),
        (404, "no-store")
    );
    let answer = front.put(&slot, &content(SIZE)).await;
    assert_eq!(answer.status, 201);
    let etag = answer.header("etag").to_owned();
    assert_eq!(etag.len(), 66);
    assert!(answer.header("repr-digest").starts_with("sha-256=:"));
    assert!(answer.body.is_empty() && answer.header("connection").is_empty());

    let get = front.ask("GET", &slot.path, &[], b"").await;
    assert_eq!(
        (get.status.as_u16(), &get.body[..]),
        (200, &content(SIZE)[..])
    );
    assert_eq!(
        (get.header("etag"), get.header("content-length")),
        (&*etag, "1000")
    );
    assert_eq!(get.header("content-type"), "application/octet-stream");
    assert!(
        get.header("content-disposition")
            .starts_with("attachment; ")
    );
    assert!(get.header("cache-control").starts_with("public, max-age="));
    let head = front.ask("HEAD", &slot.path, &[], b"").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.headers, get.headers);

    let part = front
        .ask("GET", &slot.path, &[("range", "bytes=10-19")], b"")
        .await;
    assert_eq!(
        (part.status.as_u16(), &part.body[..]),
        (206, &content(SIZE)[10..20])
    );
    assert_eq!(part.header("content-range"), "bytes 10-19/1000");
    let past = front
        .ask("GET", &slot.path, &[("range", "bytes=1000-")], b"")
        .await;
    assert_eq!(
        (past.status.as_u16(), past.header("content-range")),
        (416, "bytes */1000")
    );
    let same = front
        .ask("GET", &slot.path, &[("if-none-match", &etag)], b"")
        .await;
    assert_eq!((same.status.as_u16(), same.body.len()), (304, 0));
    let other = front
        .ask("GET", &slot.path, &[("if-match", "\"x\"")], b"")
        .await;
    assert_eq!(
        (other.status.as_u16(), other.header("cache-control")),
        (412, "no-store")
    );
}

#[tokio::test]
async fn clients_spell_urls_their_own_way() {
    let front = Front::new();
    let slot = front.site.slot_for("Grüße & (1).bin", SIZE).await;
    // aiohttp undoes needless encoding; some proxies cut the path of the public URL off.
    let path = slot
        .path
        .replace("%26", "&")
        .replace("%28", "(")
        .replace("%29", ")");
    assert_ne!(path, slot.path);
    let target = format!(
        "{}?t={}",
        path.replace("/up/", "/"),
        slot.token.replace('.', "%2E")
    );
    let sized = [("content-length", "1000")];
    assert_eq!(
        front
            .ask("PUT", &target, &sized, &content(SIZE))
            .await
            .status,
        201
    );
    assert_eq!(front.ask("GET", &path, &[], b"").await.status, 200);
}

#[tokio::test]
async fn a_put_comes_again() {
    let front = Front::new();
    let slot = front.site.slot().await;
    let first = front.put(&slot, &content(SIZE)).await;
    let again = front.put(&slot, &content(SIZE)).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201));
    assert_eq!(first.headers, again.headers);
    let other = front.put(&slot, &vec![0; SIZE]).await;
    assert_eq!(other.status, 409);
    front.site.0.world.pass(301);
    assert_eq!(front.put(&slot, &content(SIZE)).await.status, 401);
    let get = front.ask("GET", &slot.path, &[], b"").await;
    assert_eq!(get.body, content(SIZE));
}

#[tokio::test]
async fn h01_to_h04_credentials() {
    let sized = ("content-length", "1000");
    let put = async |fields: Fields<'_>, status| {
        let fields = [&[sized], fields].concat();
        check_refused("PUT", "{P}", &fields, &content(SIZE), status).await;
    };
    put(&[], 401).await;
    put(&[("authorization", "Basic cm9tZW86anVsaWV0")], 401).await;
    put(&[("authorization", "Bearer")], 401).await;
    put(&[("authorization", "bearer  {T}")], 401).await;
    put(
        &[("authorization", &format!("Bearer {}", "x".repeat(8192)))],
        401,
    )
    .await;
    put(
        &[
            ("authorization", "Bearer {T}"),
            ("authorization", "Bearer x"),
        ],
        400,
    )
    .await;
    put(
        &[
            ("authorization", "Bearer x"),
            ("authorization", "Bearer {T}"),
        ],
        400,
    )
    .await;
    let twice = [sized, ("authorization", "Bearer x")];
    check_refused("PUT", "{P}?t={T}", &twice, &content(SIZE), 400).await;
    check_refused("PUT", "{P}?t={T}&t=x", &[sized], &content(SIZE), 400).await;

    let front = Front::new();
    let other = front.site.slot().await;
    let target = format!("{{P}}?t={}", other.token);
    check_refused_by(&front, "PUT", &target, &[sized], &content(SIZE), 403).await;
    let renamed = front.site.slot().await;
    let path = renamed.path.replace("a.bin", "a.html");
    let target = format!("{path}?t={}", renamed.token);
    let answer = front.ask("PUT", &target, &[sized], &content(SIZE)).await;
    assert_eq!(answer.status, 403);
    front.check_usable(&renamed).await;
}

#[tokio::test]
async fn challenges_say_whether_there_was_a_token() {
    let front = Front::new();
    let sized = ("content-length", "1000");
    let missing = check_refused_by(&front, "PUT", "{P}", &[sized], b"", 401).await;
    assert_eq!(missing.header("www-authenticate"), "Bearer");
    let bad = check_refused_by(&front, "PUT", "{P}?t=x", &[sized], b"", 401).await;
    assert_eq!(
        bad.header("www-authenticate"),
        "Bearer error=\"invalid_token\""
    );
    assert_eq!(bad.header("connection"), "");
    let unread = check_refused_by(&front, "PUT", "{P}?t=x", &[sized], &content(SIZE), 401).await;
    assert_eq!(unread.header("connection"), "close");
}

#[tokio::test]
async fn t01_to_t04_and_t12_tokens() {
    let front = Front::new();
    let slot = front.site.slot().await;
    let before = front.site.trace(&slot).await;
    let refused = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let fields = [("content-length", "1000"), ("authorization", &*bearer)];
        let answer = front.ask("PUT", &slot.path, &fields, &content(SIZE)).await;
        assert_eq!(answer.status, 401, "{token}");
    };
    let (sealed, tag) = slot.token.rsplit_once('.').expect("a token has a tag");
    for at in 0..tag.len() {
        let other = if tag.as_bytes()[at] == b'A' { "E" } else { "A" };
        refused(&format!("{sealed}.{}{other}{}", &tag[..at], &tag[at + 1..])).await;
        refused(&format!("{sealed}.{}", &tag[..at])).await;
    }
    refused(&format!("{sealed}.{tag}AA")).await;
    refused(&format!("{sealed}.{tag}=")).await;
    refused("eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb21lbyJ9.").await;
    refused("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJyb21lbyJ9.c2lnbmF0dXJl").await;
    let encoded = format!("{}?t={}%20", slot.path, slot.token);
    let sized = [("content-length", "1000")];
    assert_eq!(
        front
            .ask("PUT", &encoded, &sized, &content(SIZE))
            .await
            .status,
        401
    );
    assert_eq!(front.site.trace(&slot).await, before);
    // From any address: a phone changes its own on the way.
    let mut request = through_proxy(&slot, "192.0.2.1");
    *request.method_mut() = http::Method::PUT;
    *request.uri_mut() = slot.put_path().parse().expect("a target");
    request.headers_mut().insert("content-length", 1000.into());
    *request.body_mut() = Body::from(content(SIZE));
    assert_eq!(front.send(request).await.status, 201);
}

#[tokio::test]
async fn t05_no_field_brings_a_dead_token_back() {
    let front = Front::new();
    let slot = front.site.slot().await;
    front.site.0.world.pass(301);
    let before = front.site.trace(&slot).await;
    for (query, field) in [
        ("", ("x-forwarded-for", "127.0.0.1")),
        ("&resume_allowed=true", ("user-agent", "Mozilla/5.0")),
        ("&session_id=x", ("x-session-id", "x")),
    ] {
        let target = format!("{}{query}", slot.put_path());
        let fields = [("content-length", "1000"), field];
        let answer = front.ask("PUT", &target, &fields, &content(SIZE)).await;
        assert_eq!(answer.status, 401, "{query}");
        assert_eq!(front.site.trace(&slot).await, before);
    }
}

#[tokio::test]
async fn h05_and_h10_lengths() {
    check_put_refused(&[("content-length", "999")], 400).await;
    check_put_refused(&[("content-length", "0")], 400).await;
    check_put_refused(&[("content-length", "1001")], 413).await;
    let bearer = ("authorization", "Bearer {T}");
    check_refused("PUT", "{P}", &[bearer], b"", 411).await;
}

#[tokio::test]
async fn h22_to_h26_fields() {
    check_put_refused(&[("expect", "foo")], 417).await;
    check_put_refused(&[("content-range", "bytes 0-999/1000")], 400).await;
    check_put_refused(&[("content-encoding", "gzip")], 415).await;
    check_put_refused(
        &[("content-type", &format!("text/{}", "a".repeat(8192)))],
        400,
    )
    .await;
    let injected = [("content-type", "text/html"), ("set-cookie", "a=b")];
    check_put_refused(&injected, 400).await;
    check_put_refused(&[("repr-digest", "sha-256=:AAAA:")], 400).await;
}

#[tokio::test]
async fn h25_content_types() {
    for content_type in ["text/html", "", "nonsense"] {
        let front = Front::new();
        let slot = front.site.slot().await;
        let fields = [("content-length", "1000"), ("content-type", content_type)];
        let answer = front
            .ask("PUT", &slot.put_path(), &fields, &content(SIZE))
            .await;
        assert_eq!(answer.status, 201, "{content_type}");
        let get = front.ask("GET", &slot.path, &[], b"").await;
        assert_eq!(get.header("content-type"), "application/octet-stream");
    }
    let front = Front::over(Site::with(|settings| settings.check_content_type = true));
    let fields = [("content-length", "1000"), ("content-type", "text/html")];
    check_refused_by(&front, "PUT", "{P}?t={T}", &fields, &content(SIZE), 415).await;
}

#[tokio::test]
async fn announced_digests_are_compared() {
    let front = Front::new();
    let slot = front.site.slot().await;
    let wrong = "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
    let fields = [("content-length", "1000"), ("repr-digest", wrong)];
    let answer = front
        .ask("PUT", &slot.put_path(), &fields, &content(SIZE))
        .await;
    assert_eq!(answer.status, 422);
    assert_eq!(front.ask("GET", &slot.path, &[], b"").await.status, 404);
    let answer = front.put(&slot, &content(SIZE)).await;
    let right = answer.header("repr-digest").to_owned();
    let slot = front.site.slot().await;
    let fields = [("content-length", "1000"), ("content-digest", &*right)];
    let answer = front
        .ask("PUT", &slot.put_path(), &fields, &content(SIZE))
        .await;
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn h19_hosts() {
    for (hosts, status) in [
        (&[("host", "other.example")][..], 421),
        (&[("host", "")], 400),
        (
            &[
                ("host", "upload.example.org"),
                ("host", "upload.example.org"),
            ],
            400,
        ),
    ] {
        let fields = [&[("content-length", "1000")], hosts].concat();
        check_refused("PUT", "{P}?t={T}", &fields, &content(SIZE), status).await;
        check_refused("GET", "{P}", hosts, b"", status).await;
    }
    let absolute = "http://other.example{P}?t={T}";
    check_refused(
        "PUT",
        absolute,
        &[("content-length", "1000")],
        &content(SIZE),
        421,
    )
    .await;
}

#[tokio::test]
async fn h27_methods() {
    let front = Front::new();
    for method in [
        "DELETE", "TRACE", "PROPFIND", "MOVE", "put", "POST", "PATCH", "MKCOL",
    ] {
        let answer = check_refused_by(&front, method, "{P}?t={T}", &[], b"", 405).await;
        assert_eq!(answer.header("allow"), "OPTIONS, HEAD, GET, PUT");
    }
}

#[tokio::test]
async fn h28_preflight() {
    let front = Front::new();
    let slot = front.site.slot().await;
    let fields = [
        ("origin", "https://chat.example"),
        ("access-control-request-method", "PUT"),
        (
            "access-control-request-headers",
            "authorization,content-type",
        ),
    ];
    for target in [&slot.path, &slot.put_path(), "*", "/"] {
        let answer = front.ask("OPTIONS", target, &fields, b"").await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
        let methods = answer.header("access-control-allow-methods");
        assert!(methods.contains("PUT") && methods.contains("GET"));
        let headers = answer.header("access-control-allow-headers").to_lowercase();
        assert!(headers.contains("authorization") && headers.contains("content-type"));
        assert_eq!(answer.header("access-control-max-age"), "7200");
    }
}

#[tokio::test]
async fn paths_that_name_nothing() {
    let front = Front::new();
    for (target, status) in [
        ("/", 404),
        ("/favicon.ico", 404),
        ("/up/f/", 404),
        ("{P}/", 404),
        ("{P}x", 404),
        ("/up/f/AAAAAAAAAAAAAAAAAAAAAA/a.bin", 404),
        ("{P}%00", 400),
        ("{P}%2f..", 400),
        ("/up/f/../{P}", 400),
        ("{P}%zz", 400),
    ] {
        let answer = check_refused_by(&front, "GET", target, &[], b"", status).await;
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert!(answer.text().ends_with(" file\n") || status == 400);
    }
    let sized = [("content-length", "1000")];
    check_refused("PUT", "/up/f/x/a.bin?t={T}", &sized, &content(SIZE), 404).await;
    let shifted = "/up/f/AAAAAAAAAAAAAAAAAAAAAA/a.bin?t={T}";
    check_refused("PUT", shifted, &sized, &content(SIZE), 403).await;
    check_refused("PUT", "{P}%2fx?t={T}", &sized, &content(SIZE), 400).await;
}

#[tokio::test]
async fn problems_for_those_who_ask() {
    let front = Front::new();
    let fields = [("accept", "text/html, application/problem+json")];
    let answer = check_refused_by(&front, "GET", "{P}", &fields, b"", 404).await;
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(problem["status"], 404);
    assert_eq!(problem["title"], "Not Found");
    assert_eq!(problem["detail"], "There is no such file");
}

#[tokio::test]
async fn a_stopping_service_says_when_to_come_back() {
    let front = Front::new();
    let slot = front.site.slot().await;
    front.site.0.service.drain();
    let answer = front.put(&slot, &content(SIZE)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("retry-after")),
        (503, "0")
    );
    assert_eq!(front.ask("GET", &slot.path, &[], b"").await.status, 404);
}

/// A request through a proxy, with what the proxy appended.
fn through_proxy(slot: &TestSlot, forwarded_for: &str) -> Request<Body> {
    let mut request = Request::get(&slot.path)
        .header("host", "localhost")
        .header("x-forwarded-for", forwarded_for)
        .body(Body::empty())
        .expect("a request");
    request.extensions_mut().insert(Origin {
        peer: Some([127, 0, 0, 1].into()),
        local: Some([127, 0, 0, 1].into()),
    });
    request
}

#[tokio::test]
async fn of_a_proxys_requests_those_in_flight_count() {
    let site = Site::with(|settings| settings.connections_per_address_max = 2);
    let mut http = site::http();
    http.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    let router = router(site.0.service.clone(), &http);
    let slot = site.slot().await;
    let ask = async |forwarded_for: &str| {
        let request = through_proxy(&slot, forwarded_for);
        router.clone().oneshot(request).await.expect("infallible")
    };
    // An answer whose body is not read yet is in flight.
    let held = [ask("192.0.2.1").await, ask("198.51.100.1, 192.0.2.1").await];
    assert!(held.iter().all(|answer| answer.status() == 404));
    let refused = ask("192.0.2.1").await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (429, &"5".parse().expect("a value"))
    );
    assert_eq!(ask("192.0.2.1, 192.0.2.2").await.status(), 404);
    assert_eq!(ask("garbage").await.status(), 404);
    drop(held);
    assert_eq!(ask("192.0.2.1").await.status(), 404);
}

/// Everything that is logged, at every level, while `requests` run; that of other tests as well,
/// since a subscriber of one thread misses what another thread has come across first.
async fn logged(requests: impl Future<Output = ()>) -> String {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || Lines(writer.clone()))
        .finish();
    tracing::subscriber::set_global_default(subscriber).expect("the only one");
    requests.await;
    let lines = lines.lock().expect("no panic").clone();
    String::from_utf8(lines).expect("UTF-8")
}

struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn logs_hold_no_secret() {
    let front = Front::new();
    let slot = front.site.slot().await;
    let other = front.site.slot().await;
    let (session, resume) = front.site.session().await;
    let log = logged(async {
        let partial = [
            ("content-type", "application/partial-upload"),
            ("upload-offset", "0"),
            ("upload-complete", "?0"),
            ("content-length", "400"),
        ];
        front.ask("PATCH", &resume, &partial, &content(400)).await;
        front.ask("PATCH", &resume, &partial, &content(400)).await;
        let broken = stream::iter([Err::<Vec<u8>, _>(std::io::Error::other("broken"))]);
        let request = partial.iter().fold(
            Request::patch(&resume).header("host", "localhost"),
            |request, (name, value)| match *name {
                "upload-offset" => request.header(*name, "400"),
                _ => request.header(*name, *value),
            },
        );
        let request = request.body(Body::from_stream(broken));
        front.send(request.expect("a request")).await;
        front.ask("DELETE", &format!("{resume}A"), &[], b"").await;
        front.ask("DELETE", &resume, &[], b"").await;
        front.put(&slot, &content(SIZE)).await;
        front.put(&other, b"short").await;
        front.ask("GET", &slot.path, &[], b"").await;
        front
            .ask("GET", &format!("{}%zz", slot.path), &[], b"")
            .await;
        let bearer = format!("Bearer {}", other.token);
        front
            .ask("PUT", &slot.path, &[("authorization", &bearer)], b"")
            .await;
        front
            .ask("FOO", &slot.put_path(), &[("host", "x.example")], b"")
            .await;
    })
    .await;
    for (method, status) in [
        ("PATCH", 204),
        ("PATCH", 409),
        ("DELETE", 404),
        ("DELETE", 204),
        ("PUT", 201),
        ("PUT", 400),
        ("GET", 200),
        ("PUT", 411),
        ("other", 421),
    ] {
        let line = format!("method=\"{method}\" status={status}");
        assert!(log.contains(&line), "{line} in {log}");
    }
    let cut = "method=\"PATCH\" status=\"cut\"";
    assert!(log.contains(cut), "{cut} in {log}");
    assert!(log.contains(&slot.id.short()) && log.contains("received_bytes=1000"));
    let sealed = resume.rsplit('/').next().expect("a last segment");
    assert!(!log.contains(&sealed[..16]), "{log}");
    for slot in [&slot, &other, &session] {
        let secrets = [slot.token.clone(), slot.id.to_string(), slot.path.clone()];
        for secret in secrets {
            assert!(!log.contains(&secret), "{log}");
        }
    }
}
