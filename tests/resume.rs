//! Uploads that go on over HTTP, by each dialect of the draft and by tus: a row a request.

mod support;

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use http::Request;
use jid::Jid;
use proptest::prelude::*;
use sha2::Digest as _;
use slotd::core::session::network::AddressPolicy;
use slotd::http::{Origin, router};
use support::front::{Answer, Fields, Front};
use support::site::{self, SIZE, Site, TestSlot, content, path_of};
use tokio::sync::mpsc;

const PARTIAL: (&str, &str) = ("content-type", "application/partial-upload");
const TUS: (&str, &str) = ("tus-resumable", "1.0.0");
const V8: (&str, &str) = ("upload-draft-interop-version", "8");
const TUS_TYPE: (&str, &str) = ("content-type", "application/offset+octet-stream");
const WHOLE: (&str, &str) = ("upload-complete", "?1");
const PART: (&str, &str) = ("upload-complete", "?0");

/// A site with an upload session of which nothing came yet.
struct Upload {
    front: Front,
    slot: TestSlot,
    path: String,
}

impl Upload {
    async fn new() -> Self {
        let front = Front::new();
        let (slot, path) = front.site.session().await;
        Self { front, slot, path }
    }

    /// The same with its first `offset` bytes.
    async fn at(offset: usize) -> Self {
        let upload = Self::new().await;
        let answer = upload.append(0, &content(SIZE)[..offset], &[PART]).await;
        assert_eq!(answer.status, 204);
        upload
    }

    async fn ask(&self, method: &str, fields: Fields<'_>, body: &[u8]) -> Answer {
        self.front.ask(method, &self.path, fields, body).await
    }

    /// A PATCH of the draft.
    async fn append(&self, offset: usize, body: &[u8], fields: Fields<'_>) -> Answer {
        let (offset, length) = (offset.to_string(), body.len().to_string());
        let mut all = vec![
            PARTIAL,
            ("upload-offset", &*offset),
            ("content-length", &*length),
        ];
        all.retain(|(name, _)| fields.iter().all(|(other, _)| other != name));
        all.extend(fields);
        self.ask("PATCH", &all, body).await
    }

    /// A PATCH of tus.
    async fn tus(&self, offset: usize, body: &[u8], fields: Fields<'_>) -> Answer {
        let all = [&[TUS, TUS_TYPE], fields].concat();
        self.append(offset, body, &all).await
    }

    /// A request that is refused and changes nothing.
    async fn check_refused(&self, method: &str, fields: Fields<'_>, body: &[u8], status: u16) {
        let before = self.front.site.trace(&self.slot).await;
        let answer = self.ask(method, fields, body).await;
        assert_eq!(answer.status, status, "{method} {fields:?}");
        let after = self.front.site.trace(&self.slot).await;
        assert_eq!(after.1, before.1, "{method} {fields:?}");
        self.check_silent(&answer);
    }

    /// It holds no secret and is kept by nobody.
    fn check_silent(&self, answer: &Answer) {
        assert_eq!(answer.header("cache-control"), "no-store");
        let text = answer.text();
        assert!(!text.contains(&self.path) && !text.contains(&self.slot.path));
    }

    /// Where the upload goes on, as HEAD says.
    async fn offset(&self) -> u64 {
        let answer = self.ask("HEAD", &[], b"").await;
        assert_eq!(answer.status, 204);
        answer.header("upload-offset").parse().expect("digits")
    }

    /// It can be completed from where it is, and the file is right.
    async fn check_usable(&self) {
        let at = usize::try_from(self.offset().await).expect("small");
        let answer = self.append(at, &content(SIZE)[at..], &[WHOLE]).await;
        assert_eq!(answer.status, 201);
        self.check_file().await;
    }

    async fn check_file(&self) {
        let get = self.front.ask("GET", &self.slot.path, &[], b"").await;
        assert_eq!(
            (get.status.as_u16(), &get.body[..]),
            (200, &content(SIZE)[..])
        );
    }
}

/// What an answer's fields are, in order; "" for one that is missing.
fn values<'a>(answer: &'a Answer, names: &[&str]) -> Vec<&'a str> {
    names.iter().map(|name| answer.header(name)).collect()
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_broken_off() {
    let upload = Upload::at(400).await;
    assert_eq!(upload.offset().await, 400);
    upload.check_usable().await;
}

#[tokio::test]
async fn what_completes_a_file_is_answered_as_its_put() {
    let upload = Upload::at(400).await;
    let patched = upload.append(400, &content(SIZE)[400..], &[WHOLE]).await;
    let slot = upload.front.site.slot().await;
    let put = upload.front.put(&slot, &content(SIZE)).await;
    let names = ["etag", "repr-digest"];
    assert_eq!(values(&patched, &names), values(&put, &names));
    assert_eq!(put.header("upload-complete"), "");
    let names = [
        "upload-complete",
        "upload-offset",
        "upload-draft-interop-version",
        "location",
    ];
    assert_eq!(values(&patched, &names), ["?1", "1000", "8", ""]);
    assert!(patched.body.is_empty());
}

/// How a dialect's HEAD tells of an upload: offset, completeness, length, limit.
async fn check_head(upload: &Upload, version: &str, field: &str, expected: [&str; 4]) {
    let fields = [("upload-draft-interop-version", version)];
    for method in ["HEAD", "GET"] {
        let answer = upload.ask(method, &fields, b"").await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
        let names = ["upload-offset", field, "upload-length", "upload-limit"];
        assert_eq!(values(&answer, &names), expected, "{method} {version}");
        let names = [
            "upload-draft-interop-version",
            "cache-control",
            "tus-resumable",
        ];
        assert_eq!(values(&answer, &names), [version, "no-store", ""]);
        let other = match field {
            "upload-complete" => "upload-incomplete",
            _ => "upload-complete",
        };
        assert_eq!(answer.header(other), "");
    }
}

#[tokio::test]
async fn every_dialect_tells_the_offset() {
    let (complete, incomplete) = ("upload-complete", "upload-incomplete");
    let upload = Upload::at(400).await;
    let (expires, age) = (
        "max-size=1000, expires=259200",
        "max-size=1000, max-age=259200",
    );
    check_head(&upload, "3", incomplete, ["400", "?1", "1000", ""]).await;
    check_head(&upload, "5", complete, ["400", "?0", "1000", ""]).await;
    check_head(&upload, "6", complete, ["400", "?0", "1000", expires]).await;
    check_head(&upload, "8", complete, ["400", "?0", "1000", age]).await;
    upload.check_usable().await;
    check_head(&upload, "3", incomplete, ["1000", "?0", "1000", ""]).await;
    check_head(&upload, "8", complete, ["1000", "?1", "1000", age]).await;
    upload.front.site.0.world.pass(200_000);
    let later = "max-size=1000, max-age=59200";
    check_head(&upload, "8", complete, ["1000", "?1", "1000", later]).await;
}

#[tokio::test]
async fn every_dialect_appends() {
    for (version, part, whole) in [
        (
            "3",
            ("upload-incomplete", "?1"),
            ("upload-incomplete", "?0"),
        ),
        ("5", PART, WHOLE),
        ("6", PART, WHOLE),
        ("8", PART, WHOLE),
    ] {
        let upload = Upload::new().await;
        let version = ("upload-draft-interop-version", version);
        let answer = upload.append(0, &content(400), &[version, part]).await;
        assert_eq!(answer.status, 204);
        let names = [part.0, "upload-offset", version.0];
        assert_eq!(values(&answer, &names), [part.1, "400", version.1]);
        // All bytes and no word of the end: it is not the file yet.
        let rest = &content(SIZE)[400..];
        let answer = upload.append(400, rest, &[version, part]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header(part.0)),
            (204, part.1)
        );
        let get = upload.front.ask("GET", &upload.slot.path, &[], b"").await;
        assert_eq!(get.status, 404);
        let answer = upload.append(SIZE, b"", &[version, whole]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header(part.0)),
            (201, whole.1)
        );
        upload.check_file().await;
    }
    // The older two need neither media type nor word of the end.
    for version in ["3", "5"] {
        let upload = Upload::at(400).await;
        let fields = [
            ("upload-draft-interop-version", version),
            ("content-type", "video/mp4"),
        ];
        let answer = upload.append(400, &content(SIZE)[400..], &fields).await;
        assert_eq!(answer.status, 201);
        upload.check_file().await;
    }
}

#[tokio::test]
async fn every_dialect_begins_with_a_put() {
    for (version, part, whole, limit) in [
        (
            "3",
            ("upload-incomplete", "?1"),
            ("upload-incomplete", "?0"),
            "",
        ),
        ("5", PART, WHOLE, ""),
        ("6", PART, WHOLE, "max-size=1000, expires=259200"),
        ("8", PART, WHOLE, "max-size=1000, max-age=259200"),
    ] {
        let front = Front::new();
        let slot = front.site.slot().await;
        let version = ("upload-draft-interop-version", version);
        let fields = [("content-length", "1000"), version, whole];
        let answer = front
            .ask("PUT", &slot.put_path(), &fields, &content(SIZE))
            .await;
        let names = [whole.0, version.0, "location"];
        assert_eq!(answer.status, 201);
        assert_eq!(values(&answer, &names), [whole.1, version.1, ""]);
        assert!(!answer.header("etag").is_empty() && !answer.header("repr-digest").is_empty());
        // A lost 201 is given again in the same words.
        let again = front
            .ask("PUT", &slot.put_path(), &fields, &content(SIZE))
            .await;
        assert_eq!(
            (again.status, again.headers),
            (answer.status, answer.headers)
        );

        let slot = front.site.slot().await;
        let fields = [("content-length", "400"), version, part];
        let answer = front
            .ask("PUT", &slot.put_path(), &fields, &content(400))
            .await;
        let names = [part.0, version.0, "upload-offset", "upload-limit", "etag"];
        assert_eq!(answer.status, 201);
        assert_eq!(
            values(&answer, &names),
            [part.1, version.1, "400", limit, ""]
        );
        let path = path_of(answer.header("location"));
        let upload = Upload { front, slot, path };
        // Nobody can refresh it, so it waits longer.
        upload.front.site.0.world.pass(3600);
        assert_eq!(upload.offset().await, 400);
        upload.check_usable().await;
    }
}

#[tokio::test]
async fn other_puts_are_plain() {
    let version = |version| ("upload-draft-interop-version", version);
    let old = ("upload-incomplete", "?0");
    for fields in [
        &[version("4"), WHOLE][..],
        &[version("7"), WHOLE],
        &[version("9"), WHOLE],
        &[version("8, 8"), WHOLE],
        &[version("8"), version("8"), WHOLE],
        &[version("3"), WHOLE],
        &[version("8"), old],
        &[WHOLE],
        &[V8],
        &[V8, ("upload-length", "7")],
        &[TUS, ("upload-offset", "0")],
    ] {
        let front = Front::new();
        let slot = front.site.slot().await;
        let fields = [&[("content-length", "1000")], fields].concat();
        let answer = front
            .ask("PUT", &slot.put_path(), &fields, &content(SIZE))
            .await;
        assert_eq!(answer.status, 201, "{fields:?}");
        let names = ["upload-complete", "upload-offset", "tus-resumable", V8.0];
        assert_eq!(values(&answer, &names), [""; 4], "{fields:?}");
    }
    // A first part, for those who do not know the version, is a file cut short.
    for number in ["7", "9"] {
        let front = Front::new();
        let slot = front.site.slot().await;
        let fields = [("content-length", "400"), version(number), PART];
        let answer = front
            .ask("PUT", &slot.put_path(), &fields, &content(400))
            .await;
        assert_eq!(answer.status, 400);
        assert!(front.site.trace(&slot).await.1.is_empty());
        front.check_usable(&slot).await;
    }
}

#[tokio::test]
async fn puts_that_are_refused_in_the_drafts_words() {
    for (fields, status, kind) in [
        (&[("upload-complete", "yes")][..], 400, "about:blank"),
        (&[WHOLE, WHOLE], 400, "about:blank"),
        (&[WHOLE, ("upload-length", "abc")], 400, "about:blank"),
        (&[WHOLE, ("upload-offset", "400")], 400, "about:blank"),
        (
            &[WHOLE, ("upload-length", "999")],
            400,
            "inconsistent-upload-length",
        ),
        (
            &[PART, ("upload-length", "1001")],
            400,
            "inconsistent-upload-length",
        ),
        (
            &[WHOLE, ("content-length", "999")],
            400,
            "inconsistent-upload-length",
        ),
        (&[PART, ("content-length", "1001")], 413, "about:blank"),
        (&[WHOLE, ("content-encoding", "gzip")], 415, "about:blank"),
        (
            &[WHOLE, ("content-range", "bytes 0-999/1000")],
            400,
            "about:blank",
        ),
    ] {
        let front = Front::new();
        let slot = front.site.slot().await;
        let mut all = vec![V8, ("content-length", "1000")];
        all.retain(|(name, _)| fields.iter().all(|(other, _)| other != name));
        all.extend(fields);
        let answer = front
            .ask("PUT", &slot.put_path(), &all, &content(SIZE))
            .await;
        assert_eq!(answer.status, status, "{fields:?}");
        check_problem(&answer, kind);
        assert!(front.site.trace(&slot).await.1.is_empty());
        front.check_usable(&slot).await;
    }
    let front = Front::new();
    let slot = front.site.slot().await;
    let fields = [V8, WHOLE, ("content-length", "1000")];
    let answer = front.ask("PUT", &slot.path, &fields, b"").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("www-authenticate")),
        (401, "Bearer")
    );
    check_problem(&answer, "about:blank");
}

/// The answer is problem details, and their type ends in `kind`.
#[track_caller]
fn check_problem(answer: &Answer, kind: &str) -> serde_json::Value {
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let got = problem["type"].as_str().expect("a type");
    let path = "https://iana.org/assignments/http-problem-types#";
    let known = [
        kind.to_owned(),
        format!("{path}{kind}"),
        format!("urn:slotd:problem:{kind}"),
    ];
    assert!(known.iter().any(|known| known == got), "{problem} {kind}");
    assert_eq!(problem["status"], answer.status.as_u16());
    problem
}

#[tokio::test]
async fn r01_urls_that_open_nothing() {
    let upload = Upload::at(400).await;
    let (start, sealed) = upload.path.rsplit_once('/').expect("a path");
    let mut others = vec![
        format!("{start}/"),
        start.to_owned(),
        format!("{}/", upload.path),
    ];
    for at in (0..sealed.len()).step_by(7) {
        let other = if sealed.as_bytes()[at] == b'A' {
            "B"
        } else {
            "A"
        };
        others.push(format!(
            "{start}/{}{other}{}",
            &sealed[..at],
            &sealed[at + 1..]
        ));
        others.push(format!("{start}/{}", &sealed[..at]));
    }
    others.push(format!("{}A", upload.path));
    others.push(format!("{}%41", upload.path));
    others.push(format!("{}/a.bin", upload.path));
    others.push(format!("{start}/{}", "A".repeat(4000)));
    others.push(format!("{start}/{}", upload.slot.token));
    for other in &others {
        // What else is wrong with a request is no stranger's to know.
        for method in ["HEAD", "DELETE", "PATCH", "GET"] {
            for fields in [&[][..], &[TUS]] {
                let answer = upload.front.ask(method, other, fields, b"").await;
                let is_file = method == "PATCH" || method == "DELETE";
                let status = answer.status.as_u16();
                assert!(
                    status == 404 || (status == 405 && is_file),
                    "{method} {other}"
                );
                assert_eq!(answer.header("upload-offset"), "");
            }
        }
    }
    upload.check_usable().await;
}

#[tokio::test]
async fn r01_urls_of_replaced_generations() {
    let upload = Upload::at(400).await;
    let romeo = Jid::new("romeo@example.org/orchard").expect("valid");
    let service = &upload.front.site.0.service;
    let list = service.list_sessions(&romeo, None).await.expect("listed");
    let id = list.sessions[0].id;
    let refreshed = service
        .refresh_session(&romeo, id)
        .await
        .expect("refreshed");
    for method in ["HEAD", "DELETE", "PATCH"] {
        for fields in [&[][..], &[TUS]] {
            upload.check_refused(method, fields, b"", 410).await;
        }
    }
    let answer = upload.append(400, &content(SIZE)[400..], &[WHOLE]).await;
    assert_eq!(answer.status, 410);
    check_problem(&answer, "about:blank");
    let url = refreshed.session.resume_url.expect("open");
    let next = Upload {
        path: path_of(&url),
        ..upload
    };
    next.check_usable().await;
}

#[tokio::test]
async fn r02_and_r07_values_that_are_none() {
    let upload = Upload::at(400).await;
    let offsets = [
        "abc",
        "1.5",
        "-1",
        "1e3",
        "10000000000000000000",
        "1, 2",
        "\"1\"",
        "",
        "+400",
        "0x190",
        "400;a",
        "400 ",
    ];
    for offset in offsets {
        let fields = [("upload-offset", offset), WHOLE];
        let answer = upload.append(400, &content(SIZE)[400..], &fields).await;
        // Space around a value is not its own (RFC 9110 #5.5), but only a socket strips it.
        assert_eq!(answer.status, 400, "{offset}");
        check_problem(&answer, "about:blank");
        let answer = upload
            .tus(400, &content(SIZE)[400..], &[("upload-offset", offset)])
            .await;
        assert_eq!(answer.status, 400, "{offset}");
    }
    let sized = ("content-length", "600");
    let rest = &content(SIZE)[400..];
    upload
        .check_refused("PATCH", &[PARTIAL, sized, WHOLE], rest, 400)
        .await;
    upload
        .check_refused("PATCH", &[TUS, TUS_TYPE, sized], rest, 400)
        .await;
    for complete in ["yes", "?2", "1", "", "?1;a=b", "?1, ?1", "true"] {
        let answer = upload
            .append(400, rest, &[("upload-complete", complete)])
            .await;
        assert_eq!(answer.status, 400, "{complete}");
    }
    assert_eq!(upload.append(400, rest, &[]).await.status, 400);
    assert_eq!(upload.append(400, rest, &[WHOLE, PART]).await.status, 400);
    upload.check_usable().await;
}

#[tokio::test]
async fn r03_appends_elsewhere() {
    let upload = Upload::at(400).await;
    for offset in [401, 399, 0, 1000, 1001, 999_999_999_999_999] {
        let answer = upload.append(offset, &content(SIZE)[400..], &[WHOLE]).await;
        assert_eq!(answer.status, 409, "{offset}");
        let names = [
            "upload-offset",
            "upload-complete",
            "upload-draft-interop-version",
        ];
        assert_eq!(values(&answer, &names), ["400", "?0", "8"]);
        let problem = check_problem(&answer, "mismatching-upload-offset");
        assert_eq!(problem["expected-offset"], 400);
        let answer = upload.tus(offset, b"abc", &[]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("tus-resumable")),
            (409, "1.0.0")
        );
        let old = [("upload-draft-interop-version", "3")];
        let answer = upload.append(offset, b"abc", &old).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("upload-incomplete")),
            (409, "?1")
        );
    }
    upload.check_usable().await;
}

#[tokio::test]
async fn r04_media_types() {
    let upload = Upload::at(400).await;
    let rest = &content(SIZE)[400..];
    for media_type in [
        "application/octet-stream",
        "",
        "application/offset+octet-stream",
    ] {
        let fields = [("content-type", media_type), WHOLE];
        let answer = upload.append(400, rest, &fields).await;
        assert_eq!(answer.status, 415);
        check_problem(&answer, "about:blank");
    }
    let six = ("upload-draft-interop-version", "6");
    let fields = [("content-type", "text/plain"), six, WHOLE];
    assert_eq!(upload.append(400, rest, &fields).await.status, 415);
    let offset = ("upload-offset", "400");
    let sized = ("content-length", "600");
    upload
        .check_refused("PATCH", &[offset, sized, WHOLE], rest, 415)
        .await;
    upload
        .check_refused("PATCH", &[offset, sized, TUS], rest, 415)
        .await;
    upload
        .check_refused("PATCH", &[offset, sized, TUS, PARTIAL], rest, 415)
        .await;
    let coded = [WHOLE, ("content-encoding", "gzip")];
    assert_eq!(upload.append(400, rest, &coded).await.status, 415);
    let ranged = [WHOLE, ("content-range", "bytes 400-999/1000")];
    assert_eq!(upload.append(400, rest, &ranged).await.status, 400);
    let injected = [WHOLE, ("set-cookie", "a=b")];
    assert_eq!(upload.append(400, rest, &injected).await.status, 400);
    upload.check_usable().await;
}

#[tokio::test]
async fn r05_appends_past_the_end() {
    let chunked = ("transfer-encoding", "chunked");
    for fields in [&[PARTIAL, WHOLE][..], &[PARTIAL, PART], &[TUS, TUS_TYPE]] {
        // A length that is too large changes nothing.
        let upload = Upload::at(400).await;
        let at = ("upload-offset", "400");
        let sized = [fields, &[at, ("content-length", "601")]].concat();
        upload
            .check_refused("PATCH", &sized, &content(601), 413)
            .await;
        // Bytes that are too many are no part of the file.
        let unsized_ = [fields, &[at, chunked]].concat();
        let answer = upload.ask("PATCH", &unsized_, &content(601)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("connection")),
            (413, "close")
        );
        upload.check_refused("HEAD", &[], b"", 410).await;
        upload
            .check_refused("PATCH", &unsized_, &content(600), 410)
            .await;
        let get = upload.front.ask("GET", &upload.slot.path, &[], b"").await;
        assert_eq!(get.status, 404);
    }
}

#[tokio::test]
async fn r06_and_r08_lengths() {
    let upload = Upload::at(400).await;
    let rest = &content(SIZE)[400..];
    for (fields, body) in [
        (&[WHOLE, ("upload-length", "999")][..], rest),
        (&[PART, ("upload-length", "1001")], rest),
        (&[WHOLE], &rest[..599]),
        (&[WHOLE], b""),
    ] {
        let answer = upload.append(400, body, fields).await;
        assert_eq!(answer.status, 400, "{fields:?}");
        check_problem(&answer, "inconsistent-upload-length");
    }
    let answer = upload.tus(400, rest, &[("upload-length", "999")]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("tus-resumable")),
        (400, "1.0.0")
    );
    assert_eq!(upload.offset().await, 400);
    // What came in chunks and ended short stays, and is no file.
    let chunked = [
        PARTIAL,
        WHOLE,
        ("upload-offset", "400"),
        ("transfer-encoding", "chunked"),
    ];
    let answer = upload.ask("PATCH", &chunked, &rest[..100]).await;
    assert_eq!(answer.status, 400);
    check_problem(&answer, "inconsistent-upload-length");
    assert_eq!(upload.offset().await, 500);
    let said = [WHOLE, ("upload-length", "1000")];
    assert_eq!(upload.append(500, &rest[100..], &said).await.status, 201);
    upload.check_file().await;
}

#[tokio::test]
async fn r09_appends_to_a_file_that_is_whole() {
    let upload = Upload::at(400).await;
    let first = upload.append(400, &content(SIZE)[400..], &[WHOLE]).await;
    let again = upload.append(SIZE, b"", &[WHOLE]).await;
    assert_eq!(
        (again.status, &again.headers),
        (first.status, &first.headers)
    );
    let bare = [PARTIAL, WHOLE, ("upload-offset", "1000")];
    assert_eq!(upload.ask("PATCH", &bare, b"").await.status, 201);
    assert_eq!(upload.tus(SIZE, b"", &[]).await.status, 204);
    let answer = upload.append(400, &content(SIZE)[400..], &[WHOLE]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("upload-offset")),
        (409, "1000")
    );
    assert_eq!(upload.append(SIZE, b"x", &[WHOLE]).await.status, 413);
    for fields in [&[][..], &[TUS]] {
        upload.check_refused("DELETE", fields, b"", 409).await;
    }
    let answer = upload.ask("DELETE", &[], b"").await;
    let problem = check_problem(&answer, "already-complete");
    assert!(!answer.text().contains("other content"), "{problem}");
    let answer = upload.ask("HEAD", &[TUS], b"").await;
    let names = ["upload-offset", "upload-length", "upload-expires"];
    assert_eq!(values(&answer, &names), ["1000", "1000", ""]);
    upload.check_file().await;
}

/// A request whose body comes as the sender gives it.
fn in_pieces(upload: &Upload, fields: Fields<'_>) -> (mpsc::Sender<Bytes>, Request<Body>) {
    let (sender, receiver) = mpsc::channel(1);
    let pieces = stream::unfold(receiver, |mut receiver: mpsc::Receiver<Bytes>| async {
        let piece = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(piece), receiver))
    });
    let mut request = Request::patch(&upload.path).header("host", "localhost");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from_stream(pieces));
    (sender, request.expect("a request"))
}

#[tokio::test]
async fn r10_and_r12_newer_requests_cut_older_ones() {
    let upload = Upload::new().await;
    let mut offset = 0;
    for n in 0..9 {
        let at = offset.to_string();
        let fields = [
            PARTIAL,
            WHOLE,
            ("upload-offset", &*at),
            ("transfer-encoding", "chunked"),
        ];
        let (sender, request) = in_pieces(&upload, &fields);
        let sending = async {
            let piece = Bytes::copy_from_slice(&content(SIZE)[offset..offset + 100]);
            sender.send(piece).await.expect("taken");
            let _ = sender.reserve().await.expect("taken");
            // Only a newer request ends this one: its body does not.
            if n % 2 == 0 {
                return upload.ask("HEAD", &[], b"").await;
            }
            upload.ask("HEAD", &[TUS], b"").await
        };
        let (cut, head) = tokio::join!(upload.front.send(request), sending);
        assert_eq!(cut.status, 409);
        let told: usize = head.header("upload-offset").parse().expect("digits");
        assert!(offset <= told && told <= offset + 100, "{offset} {told}");
        offset = told;
    }
    assert!(0 < offset, "some bytes were there");
    let at = offset.to_string();
    let fields = [
        PARTIAL,
        PART,
        ("upload-offset", &*at),
        ("transfer-encoding", "chunked"),
    ];
    let (sender, request) = in_pieces(&upload, &fields);
    let (cut, gone) = tokio::join!(upload.front.send(request), async {
        tokio::task::yield_now().await;
        upload.ask("DELETE", &[], b"").await
    });
    drop(sender);
    assert_eq!(gone.status, 204);
    assert!(matches!(cut.status.as_u16(), 409 | 410), "{}", cut.status);
    upload.check_refused("HEAD", &[], b"", 410).await;
    assert!(upload.front.site.trace(&upload.slot).await.1.is_empty());
}

#[tokio::test]
async fn r11_of_two_appends_at_one_offset_one_counts() {
    for n in 0..20 {
        let upload = Upload::at(400).await;
        let zeros = vec![0; 600];
        let rest = &content(SIZE)[400..];
        let (fields, other) = ([WHOLE], [PART]);
        let (first, second) = match n % 2 {
            0 => tokio::join!(
                upload.append(400, rest, &fields),
                upload.append(400, &zeros, &other)
            ),
            _ => tokio::join!(
                upload.append(400, rest, &fields),
                upload.tus(400, rest, &[])
            ),
        };
        let n_taken = [&first, &second]
            .iter()
            .filter(|it| it.status.is_success())
            .count();
        assert!(n_taken <= 1, "{} {}", first.status, second.status);
    }
}

#[tokio::test]
async fn an_upload_is_given_up() {
    for fields in [&[][..], &[TUS]] {
        let upload = Upload::at(400).await;
        let answer = upload.ask("DELETE", fields, b"").await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
        for method in ["HEAD", "DELETE", "PATCH"] {
            upload.check_refused(method, fields, b"", 410).await;
        }
        assert!(upload.front.site.trace(&upload.slot).await.1.is_empty());
        let answer = upload.front.put(&upload.slot, &content(SIZE)).await;
        assert_eq!(answer.status, 410);
    }
}

fn sha256_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    let digest = sha2::Sha256::digest(bytes);
    base64::engine::general_purpose::STANDARD.encode(digest)
}

#[tokio::test]
async fn r13_digests_of_appends() {
    let upload = Upload::at(400).await;
    let rest = &content(SIZE)[400..];
    let wrong = format!("sha-256=:{}:", sha256_of(b"other"));
    let answer = upload
        .append(400, rest, &[WHOLE, ("content-digest", &wrong)])
        .await;
    assert_eq!(answer.status, 422);
    check_problem(&answer, "about:blank");
    assert_eq!(upload.offset().await, 400);
    for (sum, status) in [
        (format!("sha256 {}", sha256_of(b"other")), 460),
        ("sha1 CQkJCQkJCQkJCQkJCQkJCQkJCQk=".to_owned(), 460),
        ("md5 CQkJCQkJCQkJCQkJCQkJCQ==".to_owned(), 400),
        ("sha1 CQ==".to_owned(), 400),
        ("sha1".to_owned(), 400),
    ] {
        let answer = upload.tus(400, rest, &[("upload-checksum", &sum)]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header(TUS.0)),
            (status, TUS.1),
            "{sum}"
        );
        assert_eq!(upload.offset().await, 400, "{sum}");
    }
    let right = format!("sha-256=:{}:", sha256_of(&rest[..100]));
    let answer = upload
        .append(400, &rest[..100], &[PART, ("content-digest", &right)])
        .await;
    assert_eq!(answer.status, 204);
    let right = format!("sha256 {}", sha256_of(&rest[100..200]));
    let answer = upload
        .tus(500, &rest[100..200], &[("upload-checksum", &right)])
        .await;
    assert_eq!(answer.status, 204);
    upload.check_usable().await;
    // That of an append's representation is no digest of the file, and harms none.
    for digest in [
        format!("sha-256=:{}:", sha256_of(rest)),
        format!("sha-256=:{}:", sha256_of(&content(SIZE))),
        "sha-256=".to_owned(),
    ] {
        let upload = Upload::at(400).await;
        let answer = upload
            .append(400, rest, &[WHOLE, ("repr-digest", &digest)])
            .await;
        assert_eq!(answer.status, 201, "{digest}");
        upload.check_file().await;
    }
}

#[tokio::test]
async fn digests_of_a_first_part() {
    let front = Front::new();
    let slot = front.site.slot().await;
    let wrong = format!("sha-256=:{}:", sha256_of(b"other"));
    let right = format!("sha-256=:{}:", sha256_of(&content(400)));
    let sized = ("content-length", "400");
    let fields = [V8, PART, sized, ("content-digest", &*wrong)];
    let answer = front
        .ask("PUT", &slot.put_path(), &fields, &content(400))
        .await;
    assert_eq!(answer.status, 422);
    check_problem(&answer, "about:blank");
    let fields = [V8, PART, sized, ("content-digest", &*right)];
    let answer = front
        .ask("PUT", &slot.put_path(), &fields, &content(400))
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("upload-offset")),
        (201, "400")
    );
}

#[tokio::test]
async fn tus_goes_on_as_well() {
    let upload = Upload::new().await;
    let names = [
        "upload-offset",
        "upload-length",
        "upload-expires",
        "tus-resumable",
        "cache-control",
        "upload-complete",
        "upload-limit",
        "upload-draft-interop-version",
    ];
    let ends = "Mon, 05 Jan 2026 03:04:05 GMT";
    let head = upload.ask("HEAD", &[TUS], b"").await;
    let told = ["0", "1000", ends, "1.0.0", "no-store", "", "", ""];
    assert_eq!(
        (head.status.as_u16(), values(&head, &names)),
        (200, told.to_vec())
    );
    let answer = upload.tus(0, &content(400), &[]).await;
    let told = ["400", "", ends, "1.0.0", "no-store", "", "", ""];
    assert_eq!(
        (answer.status.as_u16(), values(&answer, &names)),
        (204, told.to_vec())
    );
    let answer = upload.tus(400, &content(SIZE)[400..], &[]).await;
    let told = ["1000", "", "", "1.0.0", "no-store", "", "", ""];
    assert_eq!(
        (answer.status.as_u16(), values(&answer, &names)),
        (204, told.to_vec())
    );
    upload.check_file().await;
}

#[tokio::test]
async fn tus_of_other_versions() {
    let upload = Upload::at(400).await;
    for version in ["0.2.2", "1.0", "2.0.0", "", "1.0.0, 1.0.0"] {
        for method in ["HEAD", "PATCH", "DELETE", "POST", "GET"] {
            let answer = upload.ask(method, &[("tus-resumable", version)], b"").await;
            assert_eq!(answer.status, 412, "{method} {version}");
            let names = ["tus-version", "tus-resumable", "upload-offset"];
            assert_eq!(values(&answer, &names), ["1.0.0", "1.0.0", ""]);
        }
    }
    upload.check_usable().await;
}

#[tokio::test]
async fn tus_where_patch_does_not_get_through() {
    let upload = Upload::new().await;
    let over = |method| ("x-http-method-override", method);
    let patch = [
        TUS,
        TUS_TYPE,
        over("PATCH"),
        ("upload-offset", "0"),
        ("content-length", "400"),
    ];
    let answer = upload.ask("POST", &patch, &content(400)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("upload-offset")),
        (204, "400")
    );
    let answer = upload.ask("POST", &[TUS, over("HEAD")], b"").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("upload-offset")),
        (200, "400")
    );
    upload
        .check_refused("POST", &[TUS, over("PUT")], b"", 405)
        .await;
    upload
        .check_refused("POST", &[TUS, over("a b")], b"", 400)
        .await;
    upload
        .check_refused("POST", &[over("DELETE")], b"", 405)
        .await;
    let answer = upload.ask("POST", &[TUS, over("DELETE")], b"").await;
    assert_eq!(answer.status, 204);
}

#[tokio::test]
async fn options_say_what_is_offered() {
    let upload = Upload::new().await;
    let tus = [
        "tus-version",
        "tus-extension",
        "tus-max-size",
        "tus-checksum-algorithm",
        "tus-resumable",
    ];
    let limit = "max-size=104857600, max-age=259200";
    for fields in [
        &[][..],
        &[V8],
        &[TUS],
        &[("origin", "https://chat.example")],
    ] {
        let answer = upload.ask("OPTIONS", fields, b"").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("upload-limit")),
            (204, limit)
        );
        assert_eq!(answer.header("allow"), "OPTIONS, HEAD, GET, PATCH, DELETE");
        let told = [
            "1.0.0",
            "expiration,termination,checksum",
            "104857600",
            "sha1,sha256",
            "",
        ];
        assert_eq!(values(&answer, &tus), told);
    }
    let six = [("upload-draft-interop-version", "6")];
    let answer = upload.ask("OPTIONS", &six, b"").await;
    let limit6 = "max-size=104857600, expires=259200";
    assert_eq!(answer.header("upload-limit"), limit6);
    let answer = upload
        .front
        .ask("OPTIONS", &upload.slot.path, &[], b"")
        .await;
    assert_eq!(answer.header("upload-limit"), limit);
    assert_eq!(answer.header("allow"), "OPTIONS, HEAD, GET, PUT");
    assert_eq!(values(&answer, &tus), [""; 5]);
    let answer = upload.front.ask("OPTIONS", "*", &[], b"").await;
    assert_eq!(answer.header("upload-limit"), "");
    // A browser asks before each of these.
    for (field, names) in [
        (
            "access-control-allow-headers",
            "Authorization, Content-Type, Upload-Offset, Upload-Complete, Upload-Incomplete, \
             Upload-Length, Upload-Draft-Interop-Version, Content-Digest, Repr-Digest, Range, \
             If-Range, Tus-Resumable, Upload-Checksum, X-HTTP-Method-Override",
        ),
        (
            "access-control-expose-headers",
            "Location, Upload-Offset, Upload-Complete, Upload-Incomplete, Upload-Length, \
             Upload-Limit, Upload-Expires, Retry-After, Content-Range, Accept-Ranges, ETag, \
             Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm",
        ),
        (
            "access-control-allow-methods",
            "OPTIONS, HEAD, GET, PUT, PATCH, DELETE",
        ),
    ] {
        let allowed: Vec<_> = answer.header(field).split(", ").collect();
        assert!(
            names.split(", ").all(|name| allowed.contains(&name)),
            "{field}"
        );
    }
}

#[tokio::test]
async fn methods_of_a_resume_url() {
    let upload = Upload::at(400).await;
    for method in ["PUT", "POST", "TRACE", "MKCOL", "patch", "head"] {
        let answer = upload.ask(method, &[("content-length", "0")], b"").await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), "OPTIONS, HEAD, GET, PATCH, DELETE");
        check_problem(&answer, "about:blank");
    }
    let answer = upload.ask("GET", &[TUS], b"").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("tus-resumable")),
        (405, "1.0.0")
    );
    let path = upload.path.replace("/up/", "/");
    assert_eq!(upload.front.ask("HEAD", &path, &[], b"").await.status, 204);
    let elsewhere = [("host", "other.example")];
    upload.check_refused("HEAD", &elsewhere, b"", 421).await;
    upload
        .check_refused("PATCH", &[("expect", "foo")], b"", 417)
        .await;
    upload.check_usable().await;
}

#[tokio::test]
async fn times_that_run_out() {
    // An upload session waits for its owner.
    let upload = Upload::at(400).await;
    upload.front.site.0.world.pass(301);
    for (method, fields) in [("HEAD", &[][..]), ("DELETE", &[]), ("PATCH", &[PARTIAL])] {
        let answer = upload.ask(method, fields, b"").await;
        assert_eq!(answer.status, 403, "{method}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        if method != "HEAD" {
            check_problem(&answer, "credential-expired");
        }
        upload.check_refused(method, &[TUS], b"", 403).await;
    }
    upload.front.site.0.world.pass(72 * 3600);
    upload.check_refused("HEAD", &[], b"", 410).await;
    upload.check_refused("HEAD", &[TUS], b"", 410).await;
    // A file that is whole answers as long as its session lives.
    let upload = Upload::new().await;
    upload.check_usable().await;
    upload.front.site.0.world.pass(72 * 3600 - 1);
    assert_eq!(upload.offset().await, 1000);
    upload.front.site.0.world.pass(1);
    upload.check_refused("HEAD", &[], b"", 410).await;
}

#[tokio::test]
async fn appends_that_bring_nothing_end() {
    let upload = Upload::at(400).await;
    for _ in 0..20 {
        let answer = upload.append(400, b"", &[PART]).await;
        assert_eq!(answer.status, 204);
    }
    let answer = upload.append(400, b"", &[PART]).await;
    assert_eq!(answer.status, 429);
    assert!(!answer.header("retry-after").is_empty());
    check_problem(&answer, "about:blank");
    let answer = upload.tus(400, b"", &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header(TUS.0)), (429, TUS.1));
}

#[tokio::test]
async fn growing_parts_are_as_many_as_wanted() {
    let upload = Upload::new().await;
    for at in (0..SIZE).step_by(10) {
        let answer = upload
            .append(at, &content(SIZE)[at..at + 10], &[PART])
            .await;
        assert_eq!(answer.status, 204);
    }
    upload.check_usable().await;
}

/// The status of a request from an address.
async fn ask_from(upload: &Upload, method: &str, from: &str, agent: &str) -> u16 {
    let request = Request::builder().method(method).uri(&upload.path);
    let fields = [
        V8,
        PARTIAL,
        PART,
        ("upload-offset", "0"),
        ("content-length", "400"),
    ];
    let add = |request: http::request::Builder, (name, value): &(&str, &str)| {
        request.header(*name, *value)
    };
    let request = fields.iter().fold(request, add);
    let request = request
        .header("host", "localhost")
        .header("user-agent", agent);
    let mut request = request.body(Body::from(content(400))).expect("a request");
    request.extensions_mut().insert(Origin {
        peer: Some(from.parse().expect("an address")),
        local: None,
    });
    upload.front.send(request).await.status.as_u16()
}

#[tokio::test]
async fn where_requests_come_from_is_noted() {
    for (policy, first, second) in [
        (
            AddressPolicy::Full,
            Some("192.0.2.7"),
            Some("2001:db8:1:2:3::4"),
        ),
        (
            AddressPolicy::Prefix,
            Some("192.0.2.0/24"),
            Some("2001:db8:1:2::/64"),
        ),
        (AddressPolicy::None, None, None),
    ] {
        let site = Site::with(|settings| settings.addresses = policy);
        let router = router(site.0.service.clone(), &site::http());
        let front = Front { site, router };
        let (slot, path) = front.site.session().await;
        let upload = Upload { front, slot, path };
        assert_eq!(
            ask_from(&upload, "PATCH", "192.0.2.7", "Monal/1").await,
            204
        );
        assert_eq!(
            ask_from(&upload, "HEAD", "2001:db8:1:2:3::4", "Monal/2").await,
            204
        );
        let row = upload
            .front
            .site
            .0
            .stores
            .sessions
            .get(upload.slot.id)
            .await;
        let networks = row.expect("readable").expect("a row").networks;
        let noted: Vec<_> = networks
            .iter()
            .map(|network| (network.address.as_deref(), network.agent.as_deref()))
            .collect();
        assert_eq!(noted, [(first, Some("Monal/1")), (second, Some("Monal/2"))]);
    }
    // So it is of a plain PUT.
    let front = Front::new();
    let slot = front.site.slot().await;
    let fields = [("content-length", "1000"), ("user-agent", "Gajim")];
    front
        .ask("PUT", &slot.put_path(), &fields, &content(SIZE))
        .await;
    let row = front.site.0.stores.sessions.get(slot.id).await;
    let networks = row.expect("readable").expect("a row").networks;
    assert_eq!(networks[0].agent.as_deref(), Some("Gajim"));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_keeps_what_came() {
    let upload = Upload::new().await;
    let fields = [
        PARTIAL,
        WHOLE,
        ("upload-offset", "0"),
        ("transfer-encoding", "chunked"),
    ];
    let (sender, request) = in_pieces(&upload, &fields);
    let (stalled, ()) = tokio::join!(upload.front.send(request), async {
        sender.send(Bytes::from(content(400))).await.expect("taken");
        tokio::time::sleep(Duration::from_secs(3600)).await;
    });
    assert_eq!(
        (stalled.status.as_u16(), stalled.header("connection")),
        (408, "close")
    );
    drop(sender);
    assert_eq!(upload.offset().await, 400);
    upload.check_usable().await;
}

const METHODS: [&str; 9] = [
    "HEAD", "GET", "PATCH", "DELETE", "OPTIONS", "PUT", "POST", "TRACE", "patch",
];
const NAMES: [&str; 18] = [
    "upload-draft-interop-version",
    "upload-complete",
    "upload-incomplete",
    "upload-offset",
    "upload-length",
    "upload-limit",
    "upload-checksum",
    "upload-metadata",
    "upload-defer-length",
    "tus-resumable",
    "x-http-method-override",
    "content-type",
    "content-length",
    "content-encoding",
    "content-digest",
    "repr-digest",
    "transfer-encoding",
    "accept",
];
const VALUES: [&str; 22] = [
    "0",
    "100",
    "400",
    "600",
    "1000",
    "18446744073709551615",
    "-1",
    "3",
    "5",
    "6",
    "8",
    "?0",
    "?1",
    "1.0.0",
    "application/partial-upload",
    "application/offset+octet-stream",
    "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:",
    "sha1 CQkJCQkJCQkJCQkJCQkJCQkJCQk=",
    "chunked",
    "PATCH",
    "DELETE",
    "",
];

#[derive(Clone, Debug)]
struct Hostile {
    method: &'static str,
    is_put: bool,
    fields: Vec<(&'static str, Vec<u8>)>,
    n_bytes: usize,
}

fn hostile() -> impl Strategy<Value = Hostile> {
    let known = prop::sample::select(&VALUES[..]).prop_map(|value| value.as_bytes().to_vec());
    let any = prop::collection::vec(0x20u8..=0xff, 0..20)
        .prop_map(|bytes| bytes.into_iter().filter(|b| *b != 0x7f).collect());
    let value = prop_oneof![9 => known, 1 => any];
    let field = (prop::sample::select(&NAMES[..]), value);
    let sized = prop::sample::select(&[0usize, 100, 400, 600, 1000, 1001][..]);
    let fields = prop::collection::vec(field, 0..9);
    let method = prop_oneof![
        1 => prop::sample::select(&METHODS[..]),
        1 => Just("PATCH"),
    ];
    (method, any_bool(), fields, sized).prop_map(|(method, is_put, fields, n_bytes)| Hostile {
        method,
        is_put,
        fields,
        n_bytes,
    })
}

fn any_bool() -> impl Strategy<Value = bool> {
    prop::sample::select(&[false, false, false, true][..])
}

/// Requests of any kind, one after the other: none breaks anything, and no offset goes back.
async fn check_hostile(requests: Vec<Hostile>) {
    let upload = Upload::at(100).await;
    let mut last = 100;
    for hostile in &requests {
        let target = match hostile.is_put {
            true => upload.slot.put_path(),
            false => upload.path.clone(),
        };
        let mut request = Request::builder()
            .method(hostile.method)
            .uri(target)
            .header("host", "localhost");
        for (name, value) in &hostile.fields {
            request = request.header(*name, &value[..]);
        }
        let body = Body::from(content(hostile.n_bytes));
        let answer = upload
            .front
            .send(request.body(body).expect("a request"))
            .await;
        let status = answer.status.as_u16();
        assert!(
            (200..300).contains(&status) || (400..470).contains(&status),
            "{hostile:?}"
        );
        assert!(!answer.text().contains(&upload.path), "{hostile:?}");
        let head = upload.ask("HEAD", &[], b"").await;
        match head.status.as_u16() {
            204 => {
                let offset: u64 = head.header("upload-offset").parse().expect("digits");
                assert!(last <= offset, "{hostile:?}");
                last = offset;
            }
            410 => return,
            other => panic!("{other} {hostile:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn no_combination_breaks_anything(requests in prop::collection::vec(hostile(), 1..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(check_hostile(requests));
    }
}
