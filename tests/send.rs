//! `slotd send` against servers that do what real ones seldom do: lose answers, cut bodies, forget
//! sessions. `tests/e2e/send.py` has the real ones.

mod support;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::servers::{Act, Answers, Seen, Uploads, all, xmpp};

const SIZE: usize = 300_000;
const CREATED: &str = "HTTP/1.1 201 Created\r\nUpload-Complete: ?1\r\nUpload-Offset: 300000\r\n\
     Content-Length: 0\r\n\r\n";
const HALF: &str =
    "HTTP/1.1 204 No Content\r\nUpload-Complete: ?0\r\nUpload-Offset: 150000\r\n\r\n";
const WHOLE: &str =
    "HTTP/1.1 204 No Content\r\nUpload-Complete: ?1\r\nUpload-Offset: 300000\r\n\r\n";
const DORMANT: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
const GONE: &str = "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n";
const ELSEWHERE: &str = "HTTP/1.1 409 Conflict\r\nUpload-Complete: ?0\r\nUpload-Offset: 150000\r\n\
    Content-Length: 0\r\nConnection: close\r\n\r\n";
const BUSY: &str =
    "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const TOO_LARGE: &str = "HTTP/1.1 413 Content Too Large\r\nContent-Type: application/problem+json\
    \r\nContent-Length: 25\r\n\r\n{\"detail\":\"far too long\"}";
const USED_UP: &str = "HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const NOT_THERE: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const THERE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n";

const SESSIONS: &str = "urn:slotd:upload-session:0";
const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";

fn error(kind: &str, condition: &str) -> String {
    format!("<error type='{kind}'><{condition} xmlns='{STANZAS}'/></error>")
}

/// A home for runs of one client, with a file.
struct Home {
    dir: tempfile::TempDir,
    content: Vec<u8>,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let content: Vec<u8> = (0..SIZE).map(|n| (n % 251) as u8).collect();
        std::fs::write(dir.path().join("a.bin"), &content).expect("written");
        Self { dir, content }
    }

    fn records(&self) -> Vec<PathBuf> {
        let found = std::fs::read_dir(self.dir.path().join("state/slotd"));
        let paths = found
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        paths
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .collect()
    }

    fn send(&self, xmpp_port: u16, words: &[&str]) -> Output {
        let server = format!("127.0.0.1:{xmpp_port}");
        let output = Command::new(env!("CARGO_BIN_EXE_slotd"))
            .args([
                "send",
                "--account",
                "romeo@localhost",
                "--server",
                &server,
                "--json",
            ])
            .args(words)
            .arg(self.dir.path().join("a.bin"))
            .env("SLOTD_PASSWORD", "secret")
            .env("XDG_STATE_HOME", self.dir.path().join("state"))
            .stdin(Stdio::null())
            .output();
        let output = output.expect("slotd starts");
        for text in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(text);
            for secret in ["/r/", "/p?t=", "Basic hidden"] {
                assert!(!text.contains(secret), "{secret} is told: {text}");
            }
        }
        output
    }
}

/// How an XMPP server answers for an upload service: with sessions or without, and what it says of
/// refreshes, each time.
fn answers(
    port: u16,
    with_sessions: bool,
    refresh: impl Fn(usize) -> Result<String, String> + Send + Sync + 'static,
) -> Answers {
    let n_refreshes = AtomicUsize::new(0);
    let url = move |path: &str| format!("http://127.0.0.1:{port}{path}");
    let session = move |name: &str, offset: u64| {
        let resume = url(&format!("/r/{name}"));
        format!(
            "<session xmlns='{SESSIONS}' id='s' state='uploading' offset='{offset}' \
             size='300000' resume-url='{resume}'/>"
        )
    };
    let links = move || {
        let (put, get) = (url("/p?t=hidden"), url("/f/a.bin"));
        format!(
            "<put url='{put}'><header name='Authorization'>Basic hidden</header>\
             <header name='X-Odd'>odd</header></put><get url='{get}'/>"
        )
    };
    Arc::new(move |stanza: &str| {
        if stanza.contains("disco#items") {
            let items = "<item jid='upload.localhost'/>";
            let namespace = "http://jabber.org/protocol/disco#items";
            return Ok(format!("<query xmlns='{namespace}'>{items}</query>"));
        }
        if stanza.contains("disco#info") {
            let mut features = String::new();
            if stanza.contains("upload.localhost") {
                features += "<feature var='urn:xmpp:http:upload:0'/>";
                if with_sessions {
                    features += &format!("<feature var='{SESSIONS}'/>");
                }
            }
            let namespace = "http://jabber.org/protocol/disco#info";
            return Ok(format!("<query xmlns='{namespace}'>{features}</query>"));
        }
        if stanza.contains("<request") {
            assert_eq!(stanza.contains("<session"), with_sessions, "{stanza}");
            let session = if with_sessions {
                session("ONE", 0)
            } else {
                String::new()
            };
            let links = links();
            return Ok(format!(
                "<slot xmlns='urn:xmpp:http:upload:0'>{links}{session}</slot>"
            ));
        }
        if stanza.contains("<refresh") {
            let words = refresh(n_refreshes.fetch_add(1, Ordering::SeqCst))?;
            let inner = if words.is_empty() {
                session("TWO", 150_000)
            } else {
                words
            };
            return Ok(format!("<refresh xmlns='{SESSIONS}'>{inner}</refresh>"));
        }
        if stanza.contains("<session") {
            return Ok(session("ONE", 150_000));
        }
        Ok(String::new())
    })
}

fn no_refresh(_: usize) -> Result<String, String> {
    panic!("nobody asked for a refresh")
}

/// What a run told of its file.
fn told(output: &Output) -> serde_json::Value {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[track_caller]
fn check_status(output: &Output, status: i32, part: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert!(stderr.contains(part), "{stderr}");
}

/// A run with sessions through these acts: its output, what the service saw and the stanzas.
fn run(home: &Home, acts: Vec<Act>) -> (Output, Uploads, Seen) {
    let uploads = Uploads::start(acts);
    let (port, stanzas) = xmpp(answers(uploads.port, true, |_| Ok(String::new())));
    let output = home.send(port, &["--no-message"]);
    (output, uploads, stanzas)
}

#[test]
fn a_file_is_appended_from_its_beginning() {
    let home = Home::new();
    let (output, uploads, _) = run(&home, vec![Act::Answer(CREATED)]);
    let told = told(&output);
    assert_eq!(uploads.lines(), ["PATCH /r/ONE HTTP/1.1"]);
    let head = all(&uploads.heads).concat().to_ascii_lowercase();
    for line in [
        "content-type: application/partial-upload\r\n",
        "upload-offset: 0\r\n",
        "upload-complete: ?1\r\n",
        "content-length: 300000\r\n",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    let bodies = uploads.bodies.lock().expect("bodies");
    assert_eq!((bodies.len(), &bodies[0]), (1, &home.content));
    assert!(told["url"].as_str().expect("a link").ends_with("/f/a.bin"));
    assert!(home.records().is_empty());
}

#[test]
fn a_cut_body_goes_on_at_the_services_offset() {
    let home = Home::new();
    let acts = vec![Act::Cut(200_000), Act::Answer(HALF), Act::Answer(CREATED)];
    let (output, uploads, _) = run(&home, acts);
    let told = told(&output);
    let lines = [
        "PATCH /r/ONE HTTP/1.1",
        "HEAD /r/ONE HTTP/1.1",
        "PATCH /r/ONE HTTP/1.1",
    ];
    assert_eq!(uploads.lines(), lines);
    let bodies = uploads.bodies.lock().expect("bodies");
    assert_eq!(bodies[2], home.content[150_000..]);
    assert_eq!(told["attempts"], 2);
    assert!(told["sent_twice_bytes"].as_u64().expect("a number") <= 150_000);
}

#[test]
fn a_lost_answer_is_asked_for() {
    let (output, uploads, _) = run(&Home::new(), vec![Act::Deaf, Act::Answer(WHOLE)]);
    assert_eq!(told(&output)["attempts"], 1);
    assert_eq!(
        uploads.lines(),
        ["PATCH /r/ONE HTTP/1.1", "HEAD /r/ONE HTTP/1.1"]
    );
}

#[test]
fn another_offset_is_taken_as_it_is_told() {
    let (output, uploads, _) = run(
        &Home::new(),
        vec![Act::Answer(ELSEWHERE), Act::Answer(CREATED)],
    );
    told(&output);
    let heads = all(&uploads.heads);
    assert!(
        heads[1]
            .to_ascii_lowercase()
            .contains("upload-offset: 150000"),
        "{}",
        heads[1]
    );
}

#[test]
fn a_dormant_session_is_refreshed_and_goes_on_at_once() {
    for stale in [DORMANT, GONE] {
        let acts = vec![Act::Cut(1), Act::Answer(stale), Act::Answer(CREATED)];
        let (output, uploads, stanzas) = run(&Home::new(), acts);
        assert_eq!(told(&output)["refreshes"], 1);
        assert_eq!(uploads.lines()[2], "PATCH /r/TWO HTTP/1.1");
        let refreshes = all(&stanzas)
            .into_iter()
            .filter(|text| text.contains("<refresh"));
        assert_eq!(refreshes.count(), 1);
    }
}

#[test]
fn a_service_in_trouble_is_asked_again() {
    let acts = vec![Act::Answer(BUSY), Act::Answer(HALF), Act::Answer(CREATED)];
    let (output, uploads, _) = run(&Home::new(), acts);
    told(&output);
    assert_eq!(uploads.lines().len(), 3);
}

#[test]
fn a_session_that_is_gone_is_begun_anew() {
    let uploads = Uploads::start(vec![Act::Answer(GONE), Act::Answer(CREATED)]);
    let gone = |_| Err(error("cancel", "item-not-found"));
    let (port, _) = xmpp(answers(uploads.port, true, gone));
    let home = Home::new();
    told(&home.send(port, &["--no-message"]));
    assert_eq!(uploads.lines().len(), 2);
    let bodies = uploads.bodies.lock().expect("bodies");
    assert_eq!(bodies[1], home.content);
}

#[test]
fn a_refresh_that_finds_the_file_complete_ends_well() {
    let uploads = Uploads::start(vec![Act::Answer(GONE)]);
    let complete = |_| {
        Ok(format!(
            "<session xmlns='{SESSIONS}' state='complete' offset='300000' size='300000'/>"
        ))
    };
    let (port, _) = xmpp(answers(uploads.port, true, complete));
    assert_eq!(
        told(&Home::new().send(port, &["--no-message"]))["refreshes"],
        0
    );
}

#[test]
fn a_run_that_gave_up_is_taken_up_by_the_next() {
    let home = Home::new();
    let uploads = Uploads::start(vec![Act::Cut(200_000)]);
    let (port, _) = xmpp(answers(uploads.port, true, no_refresh));
    let output = home.send(port, &["--no-message", "--give-up-after", "1s"]);
    check_status(&output, 1, "given up after 1s");
    let records = home.records();
    let text = std::fs::read_to_string(&records[0]).expect("a record");
    assert!(
        !text.contains("/r/") && !text.contains("t=") && !text.contains("secret"),
        "{text}"
    );

    // The link of another port: the first service is gone, and the session is the same.
    let uploads = Uploads::start(vec![Act::Answer(HALF), Act::Answer(CREATED)]);
    let (port, stanzas) = xmpp(answers(uploads.port, true, no_refresh));
    let told = told(&home.send(port, &["--to", "juliet@localhost"]));
    assert_eq!(
        (&told["resumed"], &told["to"][0]),
        (&true.into(), &"juliet@localhost".into())
    );
    let bodies = uploads.bodies.lock().expect("bodies");
    assert_eq!(bodies[1], home.content[150_000..]);
    let stanzas = all(&stanzas);
    assert!(
        !stanzas.iter().any(|text| text.contains("<request")),
        "a new slot"
    );
    let message = stanzas
        .iter()
        .find(|text| text.contains("<message"))
        .expect("a message");
    assert!(
        message.contains("jabber:x:oob") && message.contains("<body>http://"),
        "{message}"
    );
    assert!(home.records().is_empty());
}

/// Makes a record say that its upload was complete, at a link of `port`.
fn complete(record: &std::path::Path, port: u16) {
    let text = std::fs::read_to_string(record).expect("a record");
    let mut record_now: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    record_now["is_complete"] = true.into();
    record_now["get_url"] = format!("http://127.0.0.1:{port}/f/a.bin").into();
    std::fs::write(record, record_now.to_string()).expect("written");
}

#[test]
fn a_complete_upload_is_begun_anew_only_if_its_file_has_gone() {
    for (look, n_bodies) in [(THERE, 1), (NOT_THERE, 2)] {
        let home = Home::new();
        let uploads = Uploads::start(vec![Act::Cut(200_000)]);
        let (port, _) = xmpp(answers(uploads.port, true, no_refresh));
        let output = home.send(port, &["--no-message", "--give-up-after", "1s"]);
        check_status(&output, 1, "given up after 1s");
        let uploads = Uploads::start(vec![Act::Answer(look), Act::Answer(CREATED)]);
        complete(&home.records()[0], uploads.port);
        let (port, stanzas) = xmpp(answers(uploads.port, true, no_refresh));
        told(&home.send(port, &["--no-message"]));
        let bodies = uploads.bodies.lock().expect("bodies");
        assert_eq!(bodies.len(), n_bodies);
        assert!(n_bodies == 1 || bodies[1] == home.content);
        let asks_anew = all(&stanzas).iter().any(|text| text.contains("<request"));
        assert_eq!(asks_anew, n_bodies == 2);
    }
}

#[test]
fn fresh_gives_the_old_session_up() {
    let home = Home::new();
    let uploads = Uploads::start(vec![Act::Cut(200_000)]);
    let (port, _) = xmpp(answers(uploads.port, true, no_refresh));
    let output = home.send(port, &["--no-message", "--give-up-after", "1s"]);
    check_status(&output, 1, "given up");
    let uploads = Uploads::start(vec![Act::Answer(CREATED)]);
    let (port, stanzas) = xmpp(answers(uploads.port, true, no_refresh));
    let told = told(&home.send(port, &["--no-message", "--fresh"]));
    assert_eq!(told["resumed"], false);
    assert!(all(&stanzas).iter().any(|text| text.contains("<cancel")));
}

#[test]
fn what_the_service_refuses_is_4() {
    let (output, _, _) = run(&Home::new(), vec![Act::Answer(TOO_LARGE)]);
    check_status(&output, 4, "413: far too long");
    for link in ["ftp://a/b", "https://user:word@a/b", "/b"] {
        let slot = format!(
            "<slot xmlns='urn:xmpp:http:upload:0'><put url='{link}'/><get url='{link}'/></slot>"
        );
        let usual = answers(1, false, no_refresh);
        let (port, _) = xmpp(Arc::new(move |stanza: &str| {
            match stanza.contains("<request") {
                true => Ok(slot.clone()),
                false => usual(stanza),
            }
        }));
        let output = Home::new().send(port, &["--no-message"]);
        check_status(&output, 4, "none for HTTP");
    }
}

#[test]
fn a_slot_alone_is_put_again_whole() {
    let home = Home::new();
    let uploads = Uploads::start(vec![Act::Cut(10), Act::Answer(CREATED)]);
    let (port, _) = xmpp(answers(uploads.port, false, no_refresh));
    told(&home.send(port, &["--no-message"]));
    assert_eq!(uploads.lines(), ["PUT /p?t=hidden HTTP/1.1"; 2]);
    let head = all(&uploads.heads).swap_remove(1).to_ascii_lowercase();
    assert!(
        head.contains("authorization: basic hidden") && !head.contains("x-odd"),
        "{head}"
    );
    assert_eq!(uploads.bodies.lock().expect("bodies")[1], home.content);
}

#[test]
fn a_used_up_slot_whose_file_is_there_is_done() {
    let acts = vec![Act::Deaf, Act::Answer(USED_UP), Act::Answer(THERE)];
    let uploads = Uploads::start(acts);
    let (port, _) = xmpp(answers(uploads.port, false, no_refresh));
    told(&Home::new().send(port, &["--no-message"]));
    assert_eq!(uploads.lines()[2], "HEAD /f/a.bin HTTP/1.1");
}

#[test]
fn a_wrong_password_is_3() {
    let (port, _) = xmpp(answers(1, true, no_refresh));
    let home = Home::new();
    std::fs::write(home.dir.path().join("word"), "other\n").expect("written");
    let word = home.dir.path().join("word");
    let word = word.to_string_lossy();
    let output = home.send(port, &["--no-message", "--password-file", &word]);
    check_status(&output, 3, "refuses the password of romeo@localhost");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("other"));
}

#[test]
fn a_recipient_that_tells_nothing_of_itself_is_sent_a_message() {
    let home = Home::new();
    let uploads = Uploads::start(vec![Act::Answer(CREATED)]);
    let usual = answers(uploads.port, true, no_refresh);
    let (port, _) = xmpp(Arc::new(move |stanza: &str| {
        let is_room = stanza.contains("room@") && stanza.contains("disco#info");
        match is_room {
            true => Err(error("cancel", "service-unavailable")),
            false => usual(stanza),
        }
    }));
    let to = ["--to", "room@localhost", "--to", "juliet@localhost"];
    told(&home.send(port, &to));
    assert!(home.records().is_empty());
}
