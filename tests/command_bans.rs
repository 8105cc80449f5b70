//! The commands of bans, stanza by stanza, and what a ban does to who is banned.

mod support;
#[path = "support/talk.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod talk;
#[path = "support/xmpp.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod xmpp;

use jid::BareJid;
use minidom::Element;
use support::world::settings;
use talk::{ADMIN, ROMEO, Stage, Talk};

const JULIET: &str = "juliet@example.org/balcony";

/// Fills the form of a ban in; the stage that follows.
async fn ban(talk: &mut Talk, who: &str, ban_for: &str) -> Stage {
    let asked = talk.start(ADMIN, "ban").await;
    let filled = [("who", who), ("for", ban_for), ("why", "spam")];
    let answer = talk.go_on(ADMIN, "ban", &asked, "complete", &filled).await;
    answer.expect("an answer")
}

/// What a slot request comes to.
async fn ask_for_slot(talk: &mut Talk, from: &str) -> String {
    let request = "<request xmlns='urn:xmpp:http:upload:0' filename='a.bin' size='5'/>";
    let answer = talk.ask("get", from, request).await;
    let Some(error) = answer.children().find(|child| child.name() == "error") else {
        return "slot".to_owned();
    };
    let names = error.children().map(Element::name).collect::<Vec<_>>();
    format!(
        "{} {}",
        error.attr("type").unwrap_or_default(),
        names.join(" ")
    )
}

#[tokio::test]
async fn accounts_and_domains_are_banned_and_unbanned() {
    let mut talk = Talk::begin().await;
    let settings = settings();
    assert!(settings.policy.access.domains == ["example.org"]);
    ban(&mut talk, "Romeo@Example.org", "2 hours")
        .await
        .is_over_with(
            "info",
            "Banned until 2026-01-02T05:04:05Z (2h): romeo@example.org",
        );
    ban(&mut talk, "evil.example", "forever")
        .await
        .is_over_with("info", "Banned for ever: evil.example");
    let refused = "auth forbidden text";
    assert_eq!(ask_for_slot(&mut talk, ROMEO).await, refused);
    assert_eq!(ask_for_slot(&mut talk, "x@evil.example/y").await, refused);
    assert_eq!(ask_for_slot(&mut talk, JULIET).await, "slot");
    let sessions = "<sessions xmlns='urn:slotd:upload-session:0'/>";
    let answer = talk.ask("get", ROMEO, sessions).await;
    assert_eq!(answer.attr("type"), Some("error"));
    let mine = talk.stage(ROMEO, "my-uploads", "", &[]).await;
    assert_eq!(mine.expect_err("refused"), "auth forbidden");
    let list = talk.start(ADMIN, "bans").await;
    let mut banned = list.column("who");
    banned.sort();
    assert_eq!(banned, ["evil.example", "romeo@example.org"]);
    assert_eq!(list.column("why"), ["spam", "spam"]);
    assert_eq!(
        list.column("by"),
        ["admin@example.org", "admin@example.org"]
    );
    // The store knows as much.
    let kept = talk.bench.stores.sessions.bans().await.expect("readable");
    assert_eq!(kept.len(), 2);
    let asked = talk.start(ADMIN, "unban").await;
    assert_eq!(asked.choices("who").len(), 2);
    let chosen = [("who", "romeo@example.org")];
    let done = talk
        .go_on(ADMIN, "unban", &asked, "complete", &chosen)
        .await;
    done.expect("done")
        .is_over_with("info", "romeo@example.org");
    assert_eq!(ask_for_slot(&mut talk, ROMEO).await, "slot");
    let kept = talk.bench.stores.sessions.bans().await.expect("readable");
    assert_eq!(kept.len(), 1);
}

#[tokio::test]
async fn a_ban_of_an_account_ends_by_itself() {
    let mut talk = Talk::begin().await;
    ban(&mut talk, "romeo@example.org", "1 hour").await;
    talk.bench.world.pass(3599);
    assert_eq!(ask_for_slot(&mut talk, ROMEO).await, "auth forbidden text");
    talk.bench.world.pass(1);
    assert_eq!(ask_for_slot(&mut talk, ROMEO).await, "slot");
    talk.start(ADMIN, "bans")
        .await
        .is_over_with("info", "Nobody is banned");
    talk.start(ADMIN, "unban")
        .await
        .is_over_with("info", "Nobody is banned");
}

/// A07 to A09: what cannot be taken is told, and the form can be filled in again.
#[tokio::test]
async fn a_ban_is_refused_with_its_reason() {
    let mut talk = Talk::begin().await;
    for (who, ban_for, words) in [
        ("0.0.0.0/0", "1 day", "covers too many"),
        ("::/0", "1 day", "covers too many"),
        ("127.0.0.1", "1 day", "this machine itself"),
        ("10.0.0.0/33", "1 day", "is no address"),
        ("1.2.3", "1 day", "is no address"),
        ("1.2.3.4-5", "1 day", "is no address"),
        ("admin@example.org", "1 day", "is an operator"),
        ("example.org", "1 day", "the domain of the operator"),
        ("upload.example.org", "1 day", "this service itself"),
        ("@", "1 day", "is no JID"),
        ("a b@example.org", "1 day", "is no JID"),
        (&"a".repeat(3000), "1 day", "is no JID"),
        ("192.0.2.7", "-1", "is no time"),
        ("192.0.2.7", "abc", "is no time"),
        (
            "192.0.2.7",
            "10000000000000000000000000000000 s",
            "is no time",
        ),
        ("192.0.2.7", "1.5", "is no time"),
    ] {
        let stage = ban(&mut talk, who, ban_for).await;
        assert_eq!(stage.status, "executing", "{who} {ban_for}");
        let is_told = stage
            .notes
            .iter()
            .any(|(kind, text)| kind == "error" && text.contains(words));
        assert!(is_told, "{who} {ban_for}: {:?}", stage.notes);
        // What was filled in is there to be mended, and the form itself says what is wrong.
        assert_eq!(
            (stage.value("who").as_str(), stage.value("for").as_str()),
            (who, ban_for)
        );
        let instructions = stage.form().children();
        let mut instructions = instructions.filter(|child| child.name() == "instructions");
        assert!(
            instructions.any(|child| child.text().contains(words)),
            "{who}"
        );
        let mended = [("who", "192.0.2.7"), ("for", "1 day"), ("why", "spam")];
        let done = talk.go_on(ADMIN, "ban", &stage, "complete", &mended).await;
        done.expect("done").is_over_with("info", "192.0.2.7");
    }
    let kept = talk.bench.stores.sessions.bans().await.expect("readable");
    assert_eq!(kept.len(), 1);
    // Empty fields are the client's fault.
    let asked = talk.start(ADMIN, "ban").await;
    let empty = [("who", ""), ("for", "1 day"), ("why", "spam")];
    let refused = talk.go_on(ADMIN, "ban", &asked, "complete", &empty).await;
    assert_eq!(
        refused.expect_err("refused"),
        "modify bad-request bad-payload"
    );
}

#[tokio::test]
async fn many_bans_are_shown_page_by_page() {
    let mut talk = Talk::begin().await;
    for n in 0..60 {
        ban(&mut talk, &format!("u{n}@example.org"), "1 day").await;
    }
    let first = talk.start(ADMIN, "bans").await;
    assert_eq!(
        (first.column("who").len(), first.usual.as_str()),
        (25, "next")
    );
    let next = talk
        .go_on(ADMIN, "bans", &first, "next", &[])
        .await
        .expect("a page");
    let last = talk
        .go_on(ADMIN, "bans", &next, "next", &[])
        .await
        .expect("a page");
    let mut all = [first.column("who"), next.column("who"), last.column("who")].concat();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 60);
    // Not all can be listed: the others can be named.
    let asked = talk.start(ADMIN, "unban").await;
    assert_eq!(asked.choices("who").len(), 50);
    for (name, tone, words) in [
        (
            "u7@example.org",
            "info",
            "Not banned any more: u7@example.org",
        ),
        (
            "u7@example.org",
            "error",
            "There is no ban of u7@example.org",
        ),
    ] {
        let asked = talk.start(ADMIN, "unban").await;
        let fields = [("who", &*asked.choices("who")[0]), ("name", name)];
        let done = talk
            .go_on(ADMIN, "unban", &asked, "complete", &fields)
            .await;
        done.expect("done").is_over_with(tone, words);
    }
}

/// Who asks on and on in spite of the rate, second after second; a burst is one failure.
#[tokio::test]
async fn an_account_that_does_not_wait_is_banned() {
    let mut settings = settings();
    settings.slot_rate.per_minute = 1;
    let mut talk = Talk::with(settings).await;
    let told_to_wait = "wait resource-constraint text retry";
    assert_eq!(ask_for_slot(&mut talk, ROMEO).await, "slot");
    for _ in 0..100 {
        assert_eq!(ask_for_slot(&mut talk, ROMEO).await, told_to_wait);
    }
    for _ in 0..19 {
        talk.bench.world.pass(1);
        assert_eq!(ask_for_slot(&mut talk, ROMEO).await, told_to_wait);
    }
    assert_eq!(ask_for_slot(&mut talk, ROMEO).await, "auth forbidden text");
    assert_eq!(ask_for_slot(&mut talk, JULIET).await, "slot");
    // Operators are spared, and can mend it.
    for _ in 0..50 {
        talk.bench.world.pass(1);
        ask_for_slot(&mut talk, ADMIN).await;
    }
    let list = talk.start(ADMIN, "bans").await;
    assert_eq!(list.column("who"), ["romeo@example.org"]);
    assert_eq!(list.column("by"), ["failures"]);
}

/// Nobody is left who could upload: that ban is refused, whatever the others are.
#[tokio::test]
async fn not_everybody_can_be_banned() {
    let mut settings = settings();
    settings.policy.access.domains = vec!["a.example".to_owned(), "b.example".to_owned()];
    let mut talk = Talk::with(settings).await;
    ban(&mut talk, "a.example", "1 day")
        .await
        .is_over_with("info", "a.example");
    ban(&mut talk, "b.example", "1 day")
        .await
        .is_over_with("error", "nobody could upload");
    let list = talk.start(ADMIN, "bans").await;
    assert_eq!(list.column("who"), ["a.example"]);
}

/// Rules that are read anew spare who may not be banned any more.
#[tokio::test]
async fn who_becomes_an_operator_is_banned_no_more() {
    let mut talk = Talk::begin().await;
    ban(&mut talk, "romeo@example.org", "1 day")
        .await
        .is_over_with("info", "romeo@example.org");
    let mut settings = settings();
    let romeo = BareJid::new("romeo@example.org").expect("a JID");
    settings.bans.operators.push(romeo);
    talk.bench.service.set_settings(settings);
    talk.bench.service.lift_bans();
    assert_eq!(ask_for_slot(&mut talk, ROMEO).await, "slot");
    talk.bench.service.end_bans().await;
    let kept = talk.bench.stores.sessions.bans().await;
    assert_eq!(kept.expect("readable"), []);
}

/// Strangers get nothing anyway, and could fill the list with names that they make up.
#[tokio::test]
async fn strangers_are_not_counted() {
    let mut talk = Talk::begin().await;
    for _ in 0..50 {
        talk.bench.world.pass(1);
        let answer = talk.stage("mallory@evil.example/x", "overview", "", &[]);
        assert_eq!(answer.await.expect_err("refused"), "cancel forbidden");
    }
    talk.start(ADMIN, "bans")
        .await
        .is_over_with("info", "Nobody is banned");
}
