//! Ad-hoc commands (XEP-0050), stanza by stanza: who may, which stage takes what, what it does.

mod support;
#[path = "support/talk.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod talk;
#[path = "support/xmpp.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod xmpp;

use std::sync::Arc;
use std::time::Duration;

use minidom::Element;
use slotd::core::command::running::WAITS_FOR;
use slotd::core::command::{COMMANDS, Who};
use slotd::core::refusal::Refusal;
use slotd::core::slot::SlotId;
use slotd::service::Service;
use slotd::service::sweep::Sweeper;
use slotd::store::Stores;
use support::upload::{Put, content, fed, get, session, slot, whole};
use support::world::{Bench, bench, settings};
use talk::{ADMIN, DATA, NS, ROMEO, Talk, read};
use tokio::sync::Semaphore;
use xmpp::Gated;

const JULIET: &str = "juliet@example.org/balcony";
const STRANGER: &str = "mallory@example.net/x";

async fn put(bench: &Bench, put: &Put) {
    let body = whole(content(1));
    bench
        .service
        .receive(put.clone().into(), body)
        .await
        .expect("201");
}

fn items(answer: &Element) -> Vec<String> {
    let query = answer.children().next().expect("a query");
    let nodes = query.children().filter_map(|item| item.attr("node"));
    nodes
        .map(|node| node.rsplit_once('#').expect("ours").1.to_owned())
        .collect()
}

/// A01, A02: who may not is not told what there is, and refused at every stage.
#[tokio::test]
async fn each_sees_and_runs_their_own() {
    let mut talk = Talk::begin().await;
    let list = format!("<query xmlns='http://jabber.org/protocol/disco#items' node='{NS}'/>");
    let all: Vec<_> = COMMANDS
        .iter()
        .map(|command| command.name.to_owned())
        .collect();
    let everybodys = COMMANDS
        .iter()
        .filter(|command| command.who == Who::Everybody);
    let everybodys: Vec<_> = everybodys.map(|command| command.name.to_owned()).collect();
    assert_eq!(everybodys, ["my-uploads", "my-usage", "delete-my-upload"]);
    let look_alikes = [
        "Admin@example.org.evil/x",
        "admin@example.net/desk",
        "\u{430}dmin@example.org/desk",
        "example.org",
        "admin@sub.example.org/desk",
    ];
    for (from, expected) in [
        (ADMIN, &all),
        ("ADMIN@example.org/other", &all),
        (ROMEO, &everybodys),
    ] {
        assert_eq!(
            items(&talk.ask("get", from, &list).await),
            *expected,
            "{from}"
        );
    }
    assert_eq!(items(&talk.ask("get", STRANGER, &list).await), [""; 0]);
    for from in look_alikes.into_iter().chain([ROMEO, STRANGER]) {
        for command in COMMANDS
            .iter()
            .filter(|command| command.who == Who::Operators)
        {
            let run = talk.stage(from, command.name, "", &[]).await;
            assert_eq!(
                run.expect_err("refused"),
                "cancel forbidden",
                "{from} {}",
                command.name
            );
            let about = format!(
                "<query xmlns='http://jabber.org/protocol/disco#info' node='{}'/>",
                command.node()
            );
            let info = talk.ask("get", from, &about).await;
            assert_eq!(read(&info).expect_err("refused"), "cancel forbidden");
        }
    }
    let mine = talk.stage(STRANGER, "my-uploads", "", &[]).await;
    assert_eq!(mine.expect_err("refused"), "auth forbidden");
}

#[tokio::test]
async fn commands_say_what_they_are() {
    let mut talk = Talk::begin().await;
    let ask = |node: &str| {
        format!("<query xmlns='http://jabber.org/protocol/disco#info' node='{node}'/>")
    };
    let list = talk.ask("get", ADMIN, &ask(NS)).await;
    let query = list.children().next().expect("a query");
    let identity = query.children().next().expect("an identity");
    assert_eq!(identity.attr("type"), Some("command-list"));
    let one = talk
        .ask("get", ADMIN, &ask("urn:slotd:command:0#overview"))
        .await;
    let query = one.children().next().expect("a query");
    let features = query.children().filter_map(|child| child.attr("var"));
    assert_eq!(features.collect::<Vec<_>>(), [NS, DATA]);
    let none = talk
        .ask("get", ADMIN, &ask("urn:slotd:command:0#nothing"))
        .await;
    assert_eq!(read(&none).expect_err("refused"), "cancel item-not-found");
    let all = talk
        .ask(
            "get",
            ROMEO,
            "<query xmlns='http://jabber.org/protocol/disco#info'/>",
        )
        .await;
    let query = all.children().next().expect("a query");
    assert!(query.children().any(|child| child.attr("var") == Some(NS)));
}

/// A03 to A06.
#[tokio::test]
async fn stages_take_what_they_offer_and_nothing_else() {
    let mut talk = Talk::begin().await;
    let bad = |app: &str| format!("modify bad-request {app}");
    let unknown = talk.stage(ADMIN, "nothing", "", &[]).await;
    assert_eq!(unknown.expect_err("refused"), "cancel item-not-found");
    for (attributes, expected) in [
        ("action='foo'", bad("malformed-action")),
        ("action='next'", bad("bad-action")),
        ("action='prev'", bad("bad-action")),
        ("action='cancel'", bad("bad-action")),
        ("sessionid=''", bad("bad-sessionid")),
        ("sessionid='mine' action='execute'", bad("bad-sessionid")),
    ] {
        let refused = talk.stage(ADMIN, "user-usage", attributes, &[]).await;
        assert_eq!(refused.expect_err("refused"), expected, "{attributes}");
    }
}

/// A03 to A06, behind the first stage.
#[tokio::test]
async fn later_stages_take_what_they_offer_and_nothing_else() {
    let mut talk = Talk::begin().await;
    let bad = |app: &str| format!("modify bad-request {app}");
    let asked = talk.start(ADMIN, "user-usage").await;
    assert_eq!(
        (asked.status.as_str(), asked.usual.as_str()),
        ("executing", "complete")
    );
    assert_eq!(asked.ways, ["complete"]);
    let whose = [("account", "romeo@example.org")];
    for (from, command, action, fields, expected) in [
        (ROMEO, "my-usage", "complete", &whose[..], "bad-sessionid"),
        (
            "admin@example.org/other",
            "user-usage",
            "complete",
            &whose,
            "bad-sessionid",
        ),
        (ADMIN, "user-uploads", "complete", &whose, "bad-sessionid"),
        (ADMIN, "user-usage", "next", &whose, "bad-action"),
        (ADMIN, "user-usage", "prev", &whose, "bad-action"),
        (ADMIN, "user-usage", "complete", &[], "bad-payload"),
        (
            ADMIN,
            "user-usage",
            "complete",
            &[("account", "")],
            "bad-payload",
        ),
        (
            ADMIN,
            "user-usage",
            "complete",
            &[("account", "a@b"), ("account", "c@d")],
            "bad-payload",
        ),
    ] {
        let refused = talk.go_on(from, command, &asked, action, fields).await;
        assert_eq!(
            refused.expect_err("refused"),
            bad(expected),
            "{from} {command} {action}"
        );
    }
    // After all that it can still be answered, and only once.
    let usage = talk
        .go_on(ADMIN, "user-usage", &asked, "complete", &whose)
        .await;
    assert_eq!(
        usage.expect("it goes on").value("account"),
        "romeo@example.org"
    );
    let again = talk
        .go_on(ADMIN, "user-usage", &asked, "complete", &whose)
        .await;
    assert_eq!(again.expect_err("used up"), bad("bad-sessionid"));
}

#[tokio::test]
async fn a_command_can_be_left_and_runs_out() {
    let mut talk = Talk::begin().await;
    let asked = talk.start(ADMIN, "user-usage").await;
    let left = talk.go_on(ADMIN, "user-usage", &asked, "cancel", &[]).await;
    assert_eq!(left.expect("left").status, "canceled");
    let gone = talk
        .go_on(ADMIN, "user-usage", &asked, "complete", &[])
        .await;
    assert_eq!(gone.expect_err("gone"), "modify bad-request bad-sessionid");
    let asked = talk.start(ADMIN, "user-usage").await;
    talk.bench.world.pass(WAITS_FOR.as_secs() + 1);
    let late = talk
        .go_on(ADMIN, "user-usage", &asked, "complete", &[])
        .await;
    assert_eq!(
        late.expect_err("late"),
        "cancel not-allowed session-expired"
    );
}

/// A07, A08, A10: what was filled in is told to be wrong, and can be mended.
#[tokio::test]
async fn wrong_values_are_told_in_words() {
    let mut talk = Talk::begin().await;
    let long = "x".repeat(3000);
    for account in ["@", "romeo", "a b@example.org", &long] {
        let asked = talk.start(ADMIN, "user-usage").await;
        let fields = [("account", account)];
        let told = talk
            .go_on(ADMIN, "user-usage", &asked, "complete", &fields)
            .await;
        let told = told.expect("in words");
        assert_eq!(
            (told.status.as_str(), told.notes[0].0.as_str()),
            ("executing", "error")
        );
        let fields = [("account", "romeo@example.org")];
        let mended = talk
            .go_on(ADMIN, "user-usage", &told, "complete", &fields)
            .await;
        assert_eq!(mended.expect("mended").status, "completed");
    }
    for silent in ["-1", "abc", "1.5", "1000000000000000000000000000000"] {
        let asked = talk.start(ADMIN, "uploads").await;
        let fields = [("silent", silent)];
        let told = talk.go_on(ADMIN, "uploads", &asked, "next", &fields).await;
        assert_eq!(told.expect("in words").notes[0].0, "error", "{silent}");
    }
    for file in [
        "../../etc/passwd",
        "https://other.example.org/f/AAAA/a",
        "https://upload.example.org/f/../x",
        "https://upload.example.org/r/AAAA",
    ] {
        let asked = talk.start(ADMIN, "delete-file").await;
        let fields = [("upload", file)];
        let told = talk
            .go_on(ADMIN, "delete-file", &asked, "next", &fields)
            .await;
        assert_eq!(told.expect("in words").notes[0].0, "error", "{file}");
    }
}

#[tokio::test]
async fn the_overview_counts() {
    let mut talk = Talk::begin().await;
    put(&talk.bench, &slot(&talk.bench).await).await;
    session(&talk.bench).await;
    let overview = talk.start(ADMIN, "overview").await;
    assert_eq!(overview.status, "completed");
    assert_eq!(overview.value("files"), "1");
    assert_eq!(overview.value("rows"), "2");
    assert_eq!(overview.value("active"), "0");
}

/// Uploads by how they stand, in pages; nothing that opens a file is among what is shown.
#[tokio::test]
async fn uploads_are_listed_in_pages() {
    let mut talk = Talk::begin().await;
    let done = slot(&talk.bench).await;
    put(&talk.bench, &done).await;
    for _ in 0..30 {
        slot(&talk.bench).await;
    }
    let asked = talk.start(ADMIN, "uploads").await;
    assert_eq!(asked.usual, "next");
    let mut seen = Vec::new();
    let open = [("state", "open")];
    let mut page = talk
        .go_on(ADMIN, "uploads", &asked, "next", &open)
        .await
        .expect("a page");
    assert_eq!(page.ways, ["prev", "next", "complete"]);
    seen.extend(page.column("upload"));
    page = talk
        .go_on(ADMIN, "uploads", &page, "next", &[])
        .await
        .expect("a page");
    assert_eq!(page.ways, ["prev", "complete"]);
    seen.extend(page.column("upload"));
    assert_eq!(seen.len(), 30);
    let back = talk
        .go_on(ADMIN, "uploads", &page, "prev", &[])
        .await
        .expect("a page");
    assert_eq!(back.column("upload"), seen[..25]);
    let end = talk
        .go_on(ADMIN, "uploads", &back, "complete", &[])
        .await
        .expect("the end");
    assert_eq!(end.status, "completed");

    for (fields, n_rows) in [
        ([("state", "complete"), ("account", "")], 1),
        ([("state", "ended"), ("account", "")], 0),
        ([("state", "active"), ("account", "")], 0),
        ([("state", "open"), ("account", "juliet@example.org")], 0),
        ([("state", "open"), ("account", "example.org")], 25),
        ([("state", "any"), ("account", "romeo@example.org")], 25),
    ] {
        let asked = talk.start(ADMIN, "uploads").await;
        let page = talk
            .go_on(ADMIN, "uploads", &asked, "next", &fields)
            .await
            .expect("a page");
        assert_eq!(page.column("upload").len(), n_rows, "{fields:?}");
        let shown = format!("{:?}", page.form);
        assert!(!shown.contains(&done.id.to_string()) && !shown.contains(&done.token));
    }
}

#[tokio::test]
async fn an_upload_that_comes_in_is_seen_and_cancelled() {
    let mut talk = Talk::begin().await;
    let theirs = session(&talk.bench).await;
    let (bytes, body) = fed();
    let (service, upload) = (talk.bench.service.clone(), theirs.put.clone());
    let running = tokio::spawn(async move { service.receive(upload.into(), body).await });
    bytes.send(content(1).slice(..400)).expect("taken");
    let short = theirs.put.id.short();
    for n_looks in 0.. {
        assert!(n_looks < 1000, "it is never seen");
        let asked = talk.start(ADMIN, "uploads").await;
        let active = [("state", "active")];
        let page = talk
            .go_on(ADMIN, "uploads", &asked, "next", &active)
            .await
            .expect("a page");
        if page.column("upload") == [short.clone()] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let asked = talk.start(ADMIN, "cancel-upload").await;
    assert_eq!(asked.choices("upload"), [&*short]);
    let chosen = [("upload", short.as_str())];
    let asked = talk
        .go_on(ADMIN, "cancel-upload", &asked, "next", &chosen)
        .await
        .expect("sure?");
    assert_eq!(asked.ways, ["prev", "complete"]);
    let unsure = talk
        .go_on(ADMIN, "cancel-upload", &asked, "complete", &[])
        .await;
    assert_eq!(unsure.expect("asked again").notes[0].0, "error");
    let sure = [("confirm", "1")];
    let done = talk
        .go_on(ADMIN, "cancel-upload", &asked, "complete", &sure)
        .await;
    done.expect("done").is_over_with("info", "Removed");
    let cut = running.await.expect("no panic");
    assert!(cut.is_err(), "the upload was cut");
    let row = talk
        .bench
        .stores
        .sessions
        .get(theirs.put.id)
        .await
        .expect("a look");
    assert!(row.expect("a tombstone").is_tombstone());
    let found = talk
        .bench
        .stores
        .files
        .find(theirs.put.id)
        .await
        .expect("a look");
    assert_eq!(found, []);
}

#[tokio::test]
async fn a_file_is_deleted_by_its_address_or_its_short_name() {
    let mut talk = Talk::begin().await;
    for by_address in [true, false] {
        let file = slot(&talk.bench).await;
        put(&talk.bench, &file).await;
        assert!(get(&talk.bench, &file).await.is_ok());
        let url = format!("https://upload.example.org/f/{}/{}", file.id, file.name);
        let name = match by_address {
            true => url,
            false => file.id.short(),
        };
        let asked = talk.start(ADMIN, "delete-file").await;
        let fields = [("upload", name.as_str())];
        let sure = talk
            .go_on(ADMIN, "delete-file", &asked, "next", &fields)
            .await
            .expect("sure?");
        let yes = [("confirm", "true")];
        let done = talk
            .go_on(ADMIN, "delete-file", &sure, "complete", &yes)
            .await;
        done.expect("done").is_over_with("info", "Removed");
        assert_eq!(get(&talk.bench, &file).await, Err(Refusal::UnknownFile));
        let again = talk.start(ADMIN, "delete-file").await;
        let gone = talk
            .go_on(ADMIN, "delete-file", &again, "next", &fields)
            .await;
        gone.expect("told").is_over_with("error", "no such file");
    }
}

/// What is not listed is named; what is neither chosen nor named is asked for again.
#[tokio::test]
async fn any_upload_can_be_shown_by_its_name() {
    let mut talk = Talk::begin().await;
    let file = slot(&talk.bench).await;
    put(&talk.bench, &file).await;
    let asked = talk.start(ADMIN, "show-upload").await;
    let nothing = talk
        .go_on(ADMIN, "show-upload", &asked, "complete", &[])
        .await;
    let asked = nothing.expect("asked again");
    assert_eq!(asked.notes[0].0, "error");
    let short = file.id.short();
    let named = [("name", &*short)];
    let shown = talk
        .go_on(ADMIN, "show-upload", &asked, "complete", &named)
        .await;
    assert_eq!(shown.expect("shown").value("state"), "complete");
    let asked = talk.start(ADMIN, "uploads").await;
    for account in ["", "example.org"] {
        let any = [("state", "any"), ("account", account)];
        let told = talk.go_on(ADMIN, "uploads", &asked, "next", &any).await;
        assert_eq!(told.expect("in words").notes[0].0, "error", "{account}");
    }
}

/// Clients send back what they were shown, a table for one, or a form that was left.
#[tokio::test]
async fn a_form_that_nobody_asked_for_is_in_nobodys_way() {
    let mut talk = Talk::begin().await;
    for _ in 0..30 {
        slot(&talk.bench).await;
    }
    let page = talk.start(ROMEO, "my-uploads").await;
    for (name, action, kind, status) in [
        ("my-uploads", "next", "result", "executing"),
        ("my-uploads", "prev", "form", "executing"),
        ("my-uploads", "cancel", "form", "canceled"),
    ] {
        let node = format!("urn:slotd:command:0#{name}");
        let payload = format!(
            "<command xmlns='{NS}' node='{node}' sessionid='{}' action='{action}'>\
             <x xmlns='{DATA}' type='{kind}'/></command>",
            page.name
        );
        let answer = talk.ask("set", ROMEO, &payload).await;
        assert_eq!(read(&answer).expect(action).status, status);
    }
}

/// A normal user deletes their own file, and nobody else's.
#[tokio::test]
async fn users_delete_their_own_alone() {
    let mut talk = Talk::begin().await;
    let romeos = slot(&talk.bench).await;
    put(&talk.bench, &romeos).await;
    let nothing = talk.start(JULIET, "delete-my-upload").await;
    nothing.is_over_with("info", "nothing to choose");
    assert_eq!(
        talk.start(JULIET, "my-uploads").await.column("upload"),
        [""; 0]
    );
    assert_eq!(
        talk.start(ROMEO, "my-uploads").await.column("upload"),
        [romeos.id.short()]
    );
    let asked = talk.start(ROMEO, "delete-my-upload").await;
    let other = SlotId(romeos.id.0 ^ (1 << 127)).short();
    let fields = [("upload", other.as_str())];
    let refused = talk
        .go_on(ROMEO, "delete-my-upload", &asked, "next", &fields)
        .await;
    assert_eq!(
        refused.expect_err("no choice"),
        "modify bad-request bad-payload"
    );
    let fields = [("upload", &*romeos.id.short())];
    let sure = talk
        .go_on(ROMEO, "delete-my-upload", &asked, "next", &fields)
        .await;
    let yes = [("confirm", "1")];
    let sure = sure.expect("sure?");
    let done = talk
        .go_on(ROMEO, "delete-my-upload", &sure, "complete", &yes)
        .await;
    done.expect("done").is_over_with("info", "Removed");
    assert_eq!(get(&talk.bench, &romeos).await, Err(Refusal::UnknownFile));
}

#[tokio::test]
async fn a_purge_leaves_nothing_of_a_user() {
    let mut talk = Talk::begin().await;
    for _ in 0..3 {
        put(&talk.bench, &slot(&talk.bench).await).await;
    }
    session(&talk.bench).await;
    let before = talk.start(ROMEO, "my-usage").await;
    assert_eq!(
        (before.value("files"), before.value("open")),
        ("3".to_owned(), "1".to_owned())
    );
    let asked = talk.start(ADMIN, "purge-user").await;
    let whose = [("account", "romeo@example.org")];
    let sure = talk
        .go_on(ADMIN, "purge-user", &asked, "next", &whose)
        .await
        .expect("sure?");
    let yes = [("confirm", "1")];
    let done = talk
        .go_on(ADMIN, "purge-user", &sure, "complete", &yes)
        .await;
    done.expect("done").is_over_with("info", "4 uploads");
    let totals = talk.bench.stores.sessions.totals().await.expect("sums");
    assert_eq!((totals.n_rows, totals.stored_bytes), (0, 0));
    let files = talk.bench.stores.files.page(None, 9).await.expect("a list");
    assert_eq!(files, []);
    let after = talk.start(ROMEO, "my-usage").await;
    assert_eq!(
        (after.value("used"), after.value("files")),
        ("0 B".to_owned(), "0".to_owned())
    );
}

#[tokio::test]
async fn slots_are_given_out_again_after_a_drain() {
    let mut talk = Talk::begin().await;
    let request = "<request xmlns='urn:xmpp:http:upload:0' filename='a' size='1'/>";
    let granted = |answer: &Element| answer.attr("type") == Some("result");
    assert!(granted(&talk.ask("get", ROMEO, request).await));
    talk.start(ADMIN, "drain")
        .await
        .is_over_with("info", "No more slots");
    let refused = talk.ask("get", ROMEO, request).await;
    assert_eq!(
        read(&refused).expect_err("refused"),
        "wait resource-constraint retry"
    );
    let warned = talk.start(ADMIN, "overview").await;
    warned.is_over_with("warn", "No slots");
    talk.start(ADMIN, "resume")
        .await
        .is_over_with("info", "again");
    assert!(granted(&talk.ask("get", ROMEO, request).await));
}

/// One by command beside the one that the clock began.
#[tokio::test]
async fn sweeps_at_once_remove_what_one_would() {
    let mut settings = settings();
    settings.total_bytes_max = Some(2500);
    let bench = bench(settings.clone());
    for _ in 0..4 {
        put(&bench, &slot(&bench).await).await;
        bench.world.pass(1);
    }
    let gated = Arc::new(Gated {
        files: bench.stores.files.clone(),
        gate: Semaphore::new(0),
    });
    let stores = Stores {
        sessions: bench.stores.sessions.clone(),
        files: gated.clone(),
    };
    let service = Service::new(settings, bench.service.keys(), stores, bench.world.clone());
    let sweeper = Sweeper::new(service);
    let open = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        gated.gate.add_permits(1);
    };
    let (one, other, ()) = tokio::join!(sweeper.sweep(), sweeper.sweep(), open);
    assert_eq!(one.removed.len() + other.removed.len(), 2);
    let totals = bench.stores.sessions.totals().await.expect("sums");
    assert_eq!(totals.n_files, 2);
}

#[tokio::test]
async fn what_is_due_goes_at_once() {
    let mut talk = Talk::begin().await;
    slot(&talk.bench).await;
    talk.start(ADMIN, "sweep")
        .await
        .is_over_with("info", "Removed: 0");
    talk.bench.world.pass(301);
    talk.start(ADMIN, "sweep")
        .await
        .is_over_with("info", "Removed: 1");
}
