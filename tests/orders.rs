//! What operators say: quota exceptions, a note to everybody, records of a user, and the test that
//! also asks the XMPP server.

mod support;
#[path = "support/talk.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod talk;
#[path = "support/xmpp.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod xmpp;

use jid::BareJid;
use minidom::Element;
use slotd::core::refusal::Refusal;
use slotd::core::session::network::Visitor;
use slotd::service::upload::Upload;
use support::upload::{broken_after, content, fed, session, slot, slot_for, whole};
use support::world::{restarted, settings};
use talk::{ADMIN, Talk};

const JULIETS: &str = "juliet@example.org";
const ROMEOS: &str = "romeo@example.org";

async fn set(talk: &mut Talk, command: &str, fields: &[(&str, &str)]) -> talk::Stage {
    let asked = talk.start(ADMIN, command).await;
    let done = talk.go_on(ADMIN, command, &asked, "complete", fields).await;
    done.unwrap_or_else(|error| panic!("{command}: {error}"))
}

#[tokio::test]
async fn a_quota_exception_is_set_shown_and_cleared() {
    let mut talk = Talk::begin().await;
    let fields = [("account", ROMEOS), ("size", "500 B")];
    set(&mut talk, "set-quota", &fields)
        .await
        .is_over_with("info", "romeo@example.org: 500 B");
    let service = talk.bench.service.clone();
    let refused = slot_for(&service, 1000).await;
    assert!(matches!(refused, Err(Refusal::QuotaReached { .. })));
    let listed = talk.start(ADMIN, "quota-exceptions").await;
    assert_eq!(listed.column("account"), [ROMEOS]);
    assert_eq!(listed.column("by"), ["command"]);
    let usage = set(&mut talk, "user-usage", &[("account", ROMEOS)]).await;
    assert_eq!(usage.value("quota"), "500 B (set by an operator)");
    let choosing = talk.start(ADMIN, "clear-quota").await;
    assert_eq!(choosing.choices("listed"), [ROMEOS]);
    let chosen = [("listed", ROMEOS)];
    let cleared = talk.go_on(ADMIN, "clear-quota", &choosing, "complete", &chosen);
    cleared
        .await
        .expect("cleared")
        .is_over_with("info", "holds");
    assert!(slot_for(&service, 1000).await.is_ok());
}

/// The configuration's exceptions fill the list; the one to be cleared is on none of its places.
#[tokio::test]
async fn one_that_is_not_listed_can_be_named() {
    let mut settings = settings();
    let configured = (0..25).map(|n| (BareJid::new(&format!("a{n}@a.example")).expect("a JID"), 1));
    settings.policy.quota.exceptions.extend(configured);
    let mut talk = Talk::with(settings).await;
    set(
        &mut talk,
        "set-quota",
        &[("account", ROMEOS), ("size", "500 B")],
    )
    .await;
    let asked = talk.start(ADMIN, "clear-quota").await;
    let named = [("account", ROMEOS)];
    let cleared = talk.go_on(ADMIN, "clear-quota", &asked, "complete", &named);
    cleared
        .await
        .expect("cleared")
        .is_over_with("info", "holds");
}

#[tokio::test]
async fn a_domain_without_limit_and_words_that_are_no_size() {
    let mut talk = Talk::begin().await;
    for (account, size) in [
        (JULIETS, "-1"),
        (JULIETS, "much"),
        ("@", "1 B"),
        (JULIETS, "1 parsec"),
    ] {
        let asked = talk.start(ADMIN, "set-quota").await;
        let fields = [("account", account), ("size", size)];
        let again = talk
            .go_on(ADMIN, "set-quota", &asked, "complete", &fields)
            .await;
        let again = again.expect("asked again");
        assert_eq!(
            (again.status.as_str(), again.notes.len()),
            ("executing", 1),
            "{size}"
        );
    }
    let fields = [("account", "example.org"), ("size", "none")];
    set(&mut talk, "set-quota", &fields)
        .await
        .is_over_with("info", "example.org: none");
}

#[tokio::test]
async fn what_was_said_holds_after_a_restart_and_goes_with_its_account() {
    let mut talk = Talk::begin().await;
    set(
        &mut talk,
        "set-quota",
        &[("account", ROMEOS), ("size", "10 B")],
    )
    .await;
    set(
        &mut talk,
        "maintenance-note",
        &[("note", "New disks until noon")],
    )
    .await;
    let before = support::world::Bench {
        service: talk.bench.service.clone(),
        world: talk.bench.world.clone(),
        stores: talk.bench.stores.clone(),
        memory_files: talk.bench.memory_files.clone(),
    };
    let after = restarted(before);
    assert_eq!(after.service.note(), None);
    after.service.load_orders().await.expect("read");
    assert_eq!(
        after.service.note().as_deref(),
        Some("New disks until noon")
    );
    assert!(slot_for(&after.service, 1000).await.is_err());
    let asked = talk.start(ADMIN, "purge-user").await;
    let sure = talk
        .go_on(ADMIN, "purge-user", &asked, "next", &[("account", ROMEOS)])
        .await;
    let sure = sure.expect("to be confirmed");
    let purged = talk
        .go_on(ADMIN, "purge-user", &sure, "complete", &[("confirm", "1")])
        .await;
    purged.expect("purged").is_over_with("info", "Removed");
    assert!(slot_for(&talk.bench.service, 1000).await.is_ok());
}

#[tokio::test]
async fn rows_on_disk_keep_what_was_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let bench = support::world::disk_bench(settings(), dir.path());
    let sessions = &bench.stores.sessions;
    assert!(sessions.orders().await.expect("none yet").is_empty());
    let value = |text: &str| Some(text.to_owned());
    for (name, said) in [
        ("a", value("1")),
        ("b", value("2")),
        ("a", value("3")),
        ("b", None),
    ] {
        let kept = sessions.set_order(name.to_owned(), said).await;
        kept.expect("kept");
    }
    drop(bench);
    let again = support::world::disk_bench(settings(), dir.path());
    let kept = again.stores.sessions.orders().await.expect("read");
    assert_eq!(kept, [("a".to_owned(), "3".to_owned())]);
}

#[tokio::test]
async fn a_note_is_read_where_it_matters() {
    let mut talk = Talk::begin().await;
    let query = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    let note = [("note", "New disks\nuntil noon")];
    set(&mut talk, "maintenance-note", &note).await;
    let info = talk.ask("get", talk::ROMEO, query).await;
    assert!(String::from(&info).contains("New disks until noon"));
    let overview = talk.start(ADMIN, "overview").await;
    assert_eq!(overview.value("note"), "New disks until noon");
    talk.start(ADMIN, "drain").await;
    let request = "<request xmlns='urn:xmpp:http:upload:0' filename='a' size='5'/>";
    let refused = talk.ask("get", talk::ROMEO, request).await;
    assert!(String::from(&refused).contains("try again later: New disks until noon"));
    let again = talk.start(ADMIN, "maintenance-note").await;
    assert_eq!(again.value("note"), "New disks until noon");
    set(&mut talk, "maintenance-note", &[("note", "")]).await;
    let info = talk.ask("get", talk::ROMEO, query).await;
    assert!(!String::from(&info).contains("maintenance"));
}

#[tokio::test]
async fn records_hold_what_is_known_and_no_link() {
    let mut talk = Talk::begin().await;
    let first = slot(&talk.bench).await;
    let visitor = Visitor {
        address: Some("192.0.2.1".to_owned()),
        agent: Some("phone".to_owned()),
    };
    let upload = Upload {
        visitor,
        ..first.clone().into()
    };
    let taken = talk.bench.service.receive(upload, whole(content(1))).await;
    assert!(taken.is_ok());
    for _ in 0..26 {
        slot(&talk.bench).await;
        talk.bench.world.pass(1);
    }
    let asked = talk.start(ADMIN, "export-user").await;
    let mut page = talk
        .go_on(ADMIN, "export-user", &asked, "next", &[("account", ROMEOS)])
        .await
        .expect("a page");
    let mut records = page.values("records");
    while page.ways.contains(&"next".to_owned()) {
        page = talk
            .go_on(ADMIN, "export-user", &page, "next", &[])
            .await
            .expect("a page");
        records.extend(page.values("records"));
    }
    let records: Vec<serde_json::Value> = records
        .iter()
        .map(|line| serde_json::from_str(line).expect("an object"))
        .collect();
    assert_eq!(
        (records[0]["record"].as_str(), records.len()),
        (Some("account"), 28)
    );
    let complete = records.iter().find(|it| it["state"] == "complete");
    let complete = complete.expect("the file");
    assert_eq!(complete["networks"][0]["address"], "192.0.2.1");
    assert_eq!(complete["networks"][0]["agent"], "phone");
    let all = format!("{records:?}");
    assert!(!all.contains(&first.id.to_string()) && !all.contains(&first.token));
}

#[tokio::test]
async fn stuck_and_old_uploads_are_found() {
    let mut talk = Talk::begin().await;
    let service = talk.bench.service.clone();
    let stuck = session(&talk.bench).await;
    let broken = service.receive(
        stuck.put.clone().into(),
        broken_after(content(1).slice(..9)),
    );
    assert!(broken.await.is_err());
    talk.bench.world.pass(120);
    // One that waits, and one whose bytes are coming in.
    slot(&talk.bench).await;
    let live = session(&talk.bench).await;
    let (bytes, body) = fed();
    let receiving = tokio::spawn({
        let service = service.clone();
        async move { service.receive(live.put.into(), body).await.is_ok() }
    });
    bytes.send(content(2).slice(..9)).expect("taken");
    let find = async |talk: &mut Talk, fields: &[(&str, &str)]| {
        let asked = talk.start(ADMIN, "uploads").await;
        let found = talk.go_on(ADMIN, "uploads", &asked, "next", fields).await;
        found.expect("a page").column("upload")
    };
    while find(&mut talk, &[("state", "active")]).await.is_empty() {
        tokio::task::yield_now().await;
    }
    let short = stuck.put.id.short();
    let found = find(&mut talk, &[("state", "stuck")]).await;
    assert_eq!(found, [short.as_str()]);
    let found = find(&mut talk, &[("state", "open"), ("age", "2")]).await;
    assert_eq!(found, [short.as_str()]);
    let found = find(&mut talk, &[("state", "open"), ("age", "3")]).await;
    assert!(found.is_empty());
    bytes.send(content(2).slice(9..)).expect("taken");
    drop(bytes);
    assert!(receiving.await.expect("no panic"));
}

#[tokio::test]
async fn the_test_asks_the_server_too() {
    for answers in [true, false] {
        // The second is asked last: from there on the clock stands still.
        let mut talk = Talk::begin().await;
        let node = "urn:slotd:command:0#self-test";
        let payload = format!("<command xmlns='{}' node='{node}'/>", talk::NS);
        let ping = talk.ask("set", ADMIN, &payload).await;
        assert_eq!(ping.attr("to"), Some("example.org"), "{ping:?}");
        let id = ping.attr("id").expect("an id").to_owned();
        let answer = |from: &str| {
            format!("<iq type='result' id='{id}' from='{from}' to='upload.example.org'/>")
        };
        // Somebody else's answer is none.
        talk.peer
            .send(answer("mallory@example.net"))
            .await
            .expect("the stream lives");
        if answers {
            talk.peer
                .send(answer("example.org"))
                .await
                .expect("the stream lives");
        } else {
            // Nobody has to wait for the time to run out.
            tokio::time::pause();
        }
        let seen = talk.peer.read_until("</iq>").await.expect("an answer");
        let xml = format!("<all xmlns='jabber:component:accept'>{seen}</all>");
        let all: Element = xml.parse().expect("well-formed");
        let tested = talk::read(all.children().next().expect("an answer")).expect("done");
        let (tone, words) = match answers {
            true => ("info", "All is well"),
            false => ("warn", "did not answer"),
        };
        tested.is_over_with(tone, words);
        let steps = tested.column("step");
        assert_eq!(
            steps.contains(&"answer of the XMPP server".to_owned()),
            answers
        );
        assert!(steps.contains(&"commit a row".to_owned()));
    }
}

/// Two operators at once: each has their own stages, and what one removed is gone for the other.
#[tokio::test]
async fn two_operators_do_not_meet() {
    let mut talk = Talk::begin().await;
    let put = slot(&talk.bench).await;
    let other = "admin@example.org/phone";
    let short = put.id.short();
    let chosen = [("upload", short.as_str())];
    let mut stages = Vec::new();
    for from in [ADMIN, other] {
        let asked = talk.start(from, "cancel-upload").await;
        let sure = talk
            .go_on(from, "cancel-upload", &asked, "next", &chosen)
            .await;
        stages.push(sure.expect("to be confirmed"));
    }
    let confirm = [("confirm", "1")];
    let stolen = talk
        .go_on(other, "cancel-upload", &stages[0], "complete", &confirm)
        .await;
    assert_eq!(
        stolen.err().as_deref(),
        Some("modify bad-request bad-sessionid")
    );
    let done = talk
        .go_on(ADMIN, "cancel-upload", &stages[0], "complete", &confirm)
        .await;
    done.expect("done").is_over_with("info", "Removed");
    let late = talk
        .go_on(other, "cancel-upload", &stages[1], "complete", &confirm)
        .await;
    late.expect("told").is_over_with("error", "ended");
}
