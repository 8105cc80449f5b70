//! The audit log: the whole life of uploads, line by line, and nothing that opens a file.

mod support;

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;
use slotd::audit_log::{AuditLog, Manner};
use slotd::core::command::operation::{Operation, Outcome, Reloaded};
use slotd::core::event::Event;
use slotd::core::session::network::{AddressPolicy, Visitor};
use slotd::core::slot::{FileName, Purpose, SlotRequest};
use slotd::service::sweep::Sweeper;
use slotd::service::upload::Upload;
use support::upload::{
    Put, append, broken_after, content, get, jid_of, put_of, session, slot, whole,
};
use support::world::{Bench, bench, settings};

/// A service whose audit log a test reads.
struct Audited {
    bench: Bench,
    log: Arc<AuditLog>,
    dir: tempfile::TempDir,
}

impl Audited {
    fn begin(addresses: AddressPolicy) -> Self {
        let bench = bench(settings());
        let dir = tempfile::tempdir().expect("a directory");
        let path = Some(dir.path().join("audit.jsonl"));
        let log = AuditLog::start(Manner { path, addresses }).expect("a thread");
        bench.service.set_listeners(vec![log.clone()]);
        Self { bench, log, dir }
    }

    fn text(&self) -> String {
        self.log.flush();
        std::fs::read_to_string(self.dir.path().join("audit.jsonl")).expect("written")
    }

    fn lines(&self) -> Vec<Value> {
        let read = |line: &str| serde_json::from_str(line).expect("an object");
        self.text().lines().map(read).collect()
    }

    #[track_caller]
    fn check_kinds(&self, expected: &[&str]) {
        let lines = self.lines();
        let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str()).collect();
        let expected: Vec<_> = expected.iter().copied().map(Some).collect();
        assert_eq!(kinds, expected);
    }
}

fn from(upload: Upload, address: &str) -> Upload {
    let visitor = Visitor {
        address: Some(address.to_owned()),
        agent: Some("phone\u{202e}".to_owned()),
    };
    Upload { visitor, ..upload }
}

#[tokio::test]
async fn the_whole_life_of_a_session() {
    let audited = Audited::begin(AddressPolicy::Full);
    let service = &audited.bench.service;
    let begun = session(&audited.bench).await;
    let bytes = content(1);
    let first = from(append(&begun.url, 0, 1000), "192.0.2.1");
    let broken = service.receive(first, broken_after(bytes.slice(..600)));
    assert!(broken.await.is_err());
    audited.bench.world.pass(400);
    let romeo = jid_of("romeo@example.org/garden");
    let refreshed = service.refresh_session(&romeo, begun.id).await;
    let refreshed = refreshed.expect("refreshed").session;
    let url = put_of(&refreshed.resume_url.expect("it goes on"));
    let second = from(append(&url, 600, 400), "198.51.100.7");
    let done = service.receive(second, whole(bytes.slice(600..))).await;
    assert!(done.is_ok());
    audited.bench.world.pass(31 * 86_400);
    let sweeper = Sweeper::new(service.clone());
    assert_eq!(sweeper.sweep().await.removed.len(), 1);
    audited.check_kinds(&[
        "slot-issued",
        "upload-begun",
        "upload-interrupted",
        "session-refreshed",
        "upload-resumed",
        "upload-complete",
        "removed",
        "swept",
    ]);
    let lines = audited.lines();
    let (begun_line, resumed) = (&lines[1], &lines[4]);
    assert_eq!(lines[0]["agreement"], "session");
    assert_eq!(begun_line["address"], "192.0.2.1");
    assert_eq!(lines[2]["offset"], 600);
    assert_eq!(lines[2]["reason"], "interrupted");
    assert_eq!(lines[3]["generation"], 1);
    for (key, value) in [("offset", 600), ("resent_bytes", 0), ("gap_seconds", 400)] {
        assert_eq!(resumed[key], value, "{resumed}");
    }
    assert_eq!(resumed["is_other_network"], true);
    assert_eq!(lines[6]["reason"], "retention");
    let upload = begun.put.id.short();
    for line in &lines[..7] {
        assert_eq!(line["upload"], upload.as_str(), "{line}");
        assert_eq!(line["account"], "romeo@example.org", "{line}");
    }
    let text = audited.text();
    for secret in [
        &begun.url,
        &url,
        &begun.put.token,
        &begun.put.id.to_string(),
    ] {
        assert!(!text.contains(secret.as_str()), "{text}");
    }
}

#[tokio::test]
async fn plain_slots_begin_again_are_taken_over_and_repeated() {
    let audited = Audited::begin(AddressPolicy::Full);
    let service = &audited.bench.service;
    let put = slot(&audited.bench).await;
    let bytes = content(2);
    let broken = service.receive(put.clone().into(), broken_after(bytes.slice(..300)));
    assert!(broken.await.is_err());
    for _ in 0..2 {
        let put: Put = put.clone();
        let taken = service.receive(put.into(), whole(bytes.clone())).await;
        assert!(taken.is_ok());
    }
    get(&audited.bench, &put).await.expect("served");
    audited.check_kinds(&[
        "slot-issued",
        "upload-begun",
        "upload-interrupted",
        "upload-resumed",
        "upload-complete",
        "upload-replayed",
    ]);
    assert_eq!(audited.lines()[3]["resent_bytes"], 300);
}

#[tokio::test]
async fn a_small_file_that_comes_whole_has_its_two_lines() {
    let audited = Audited::begin(AddressPolicy::Full);
    let put = slot(&audited.bench).await;
    let taken = audited.bench.service.receive(put.into(), whole(content(3)));
    assert!(taken.await.is_ok());
    audited.check_kinds(&["slot-issued", "upload-begun", "upload-complete"]);
}

#[tokio::test]
async fn hostile_names_stay_in_their_place() {
    let audited = Audited::begin(AddressPolicy::Full);
    let name = "a\"},{\u{e9}.\u{1f600}";
    let request = SlotRequest {
        filename: FileName::parse(name).expect("a name"),
        size_bytes: 5,
        content_type: None,
        purpose: Purpose::Message,
        session: None,
    };
    let owner = jid_of("r\u{f6}meo@example.org/x");
    let issued = audited.bench.service.request_slot(&owner, request).await;
    assert!(issued.is_ok());
    let text = audited.text();
    assert!(text.is_ascii() && text.lines().count() == 1, "{text}");
    let line = &audited.lines()[0];
    assert_eq!(line["file"], name);
    assert_eq!(line["account"], "r\u{f6}meo@example.org");
}

#[test]
fn a_banned_address_is_written_as_the_policy_says() {
    for (addresses, shown) in [
        (AddressPolicy::Full, "192.0.2.77"),
        (AddressPolicy::Prefix, "192.0.2.0/24"),
        (AddressPolicy::None, "-"),
    ] {
        let audited = Audited::begin(addresses);
        let whom: IpAddr = "192.0.2.77".parse().expect("an address");
        audited.bench.service.tell(Event::Banned {
            whom: &whom.to_string(),
            by: None,
            reason: "bad tokens",
            until: None,
        });
        audited.bench.service.tell(Event::Unbanned {
            whom: "romeo@example.org",
            by: None,
        });
        let lines = audited.lines();
        assert_eq!(lines[0]["account"], shown);
        assert_eq!(lines[1]["account"], "romeo@example.org");
    }
}

#[test]
fn who_may_not_ask_for_a_warm_binding_is_written_with_their_address() {
    for (addresses, shown) in [
        (AddressPolicy::Full, Some("192.0.2.77")),
        (AddressPolicy::Prefix, Some("192.0.2.0/24")),
        (AddressPolicy::None, None),
    ] {
        let audited = Audited::begin(addresses);
        audited.bench.service.tell(Event::WarmBindingDenied {
            by: &jid_of("romeo@example.org").to_bare(),
            address: Some("192.0.2.77".parse().expect("an address")),
            outcome: "no-operator",
        });
        let lines = audited.lines();
        assert_eq!(lines[0]["kind"], "warm-binding-denied");
        assert_eq!(lines[0]["by"], "romeo@example.org");
        assert_eq!(lines[0]["outcome"], "no-operator");
        let address = lines[0].get("address").and_then(Value::as_str);
        assert_eq!(address, shown, "{addresses:?}");
    }
}

/// What was asked for and not done is no deed; what was set can be read.
#[test]
fn acts_are_written_with_what_came_of_them() {
    let audited = Audited::begin(AddressPolicy::Full);
    let admin = jid_of("admin@example.org").to_bare();
    let romeo = jid_of("romeo@example.org").to_bare();
    let tell = |operation: &Operation, outcome: &Outcome| {
        audited.bench.service.tell(Event::CommandRun {
            by: &admin,
            is_operator: true,
            operation,
            outcome: Ok(outcome),
        });
    };
    for limit in [Some(500), Some(u64::MAX), None] {
        let set = Outcome::ExceptionSet(romeo.clone(), limit);
        tell(&Operation::SetException(romeo.clone(), limit), &set);
    }
    let note = Some("New disks".to_owned());
    tell(&Operation::SetNote(note.clone()), &Outcome::Noted(note));
    let broken = Reloaded::Refused(vec!["slotd.toml:1: what".to_owned()]);
    tell(&Operation::Reload, &Outcome::Reloaded(broken));
    let lines = audited.lines();
    assert_eq!(lines[0]["quota"], "500");
    assert_eq!(lines[1]["quota"], "none");
    assert!(lines[2].get("quota").is_none());
    assert_eq!(lines[3]["note"], "New disks");
    assert!(lines[..4].iter().all(|line| line["outcome"] == "done"));
    assert_eq!(lines[4]["outcome"], "refused");
}
