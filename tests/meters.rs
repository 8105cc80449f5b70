//! The meters: their names and labels, what events count, and who else names them.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use slotd::core::command::operation::{Operation, Outcome};
use slotd::core::event::{Canceller, Event, Removal, Resumed};
use slotd::core::health::StreamCount;
use slotd::core::policy::Room;
use slotd::core::refusal::Refusal;
use slotd::core::session::{FailReason, UploadSession};
use slotd::core::slot::SlotId;
use slotd::meters::{Meters, Now, Stock};
use support::rows::{NOW, announced, jid, later, row};
use tokio::runtime::Handle;

/// More lines of one name would be a label that somebody outside chooses.
const LINES_OF_NAME_MAX: usize = 120;

fn now() -> Now {
    Now {
        is_ready: true,
        is_draining: false,
        stock: Some(Stock {
            n_rows: 12,
            n_files: 10,
            stored_bytes: 1 << 40,
            free: Room {
                bytes: u64::MAX,
                inodes: 7,
            },
        }),
        uptime: Duration::from_secs(77),
        n_active: 2,
        n_keys: 3,
        streams: vec![StreamCount {
            host: "upload.example.org".to_owned(),
            n_up: 1,
            n_resources: None,
            n_wanted: 2,
        }],
        reserve: Room {
            bytes: 100,
            inodes: 5,
        },
        runtime: Handle::current().metrics(),
    }
}

/// The value of each series: its name and labels as they are written.
fn values(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let read = |line: &str| {
        let (series, value) = line.rsplit_once(' ').expect("a series and its value");
        (series.to_owned(), value.parse().expect("a number"))
    };
    lines.map(read).collect()
}

/// Names and types.
fn types(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    lines.filter_map(|line| line.split_once(' ')).collect()
}

/// Counts one of every event, each with what a peer may have chosen.
fn count_all(meters: &Meters) {
    let uploads = [
        row(u128::MAX, "owner-1@example.org", 1_000, NOW),
        announced(8, "owner-1@example.org", 2_000, NOW),
    ];
    for row in &uploads {
        count_uploads(meters, row);
        count_ends(meters, row);
    }
    count_traffic(meters);
    count_operators(meters);
    meters.work().refuse_iq("bad-stanza");
}

fn count(meters: &Meters, events: &[Event<'_>]) {
    for event in events {
        meters.count(event, later(90));
    }
}

/// What happens to an upload while it lives.
fn count_uploads(meters: &Meters, row: &UploadSession) {
    let resumed = Resumed {
        offset: 500,
        resent_bytes: 20,
        gap: Duration::from_secs(40),
        is_other_network: true,
    };
    let took = Duration::from_millis(30);
    let events = [
        Event::SlotIssued { row },
        Event::UploadBegun { row },
        Event::UploadResumed { row, resumed },
        Event::UploadInterrupted {
            row,
            offset: 500,
            why: &Refusal::Stalled,
        },
        Event::UploadTakenOver { row, offset: 500 },
        Event::UploadComplete { row, took },
        Event::UploadReplayed { row },
        Event::SessionRefreshed { row, offset: 0 },
    ];
    count(meters, &events);
}

/// How it ends, in each way.
fn count_ends(meters: &Meters, row: &UploadSession) {
    let reasons = [
        FailReason::DigestMismatch,
        FailReason::SizeMismatch,
        FailReason::Policy,
    ];
    let offset = 500;
    let rejected = reasons.map(|reason| Event::UploadRejected {
        row,
        offset,
        reason,
    });
    count(meters, &rejected);
    let cancellers = [Canceller::Owner, Canceller::ResumeUrl, Canceller::Command];
    count(
        meters,
        &cancellers.map(|by| Event::UploadCancelled { row, by }),
    );
    let reasons = [
        Removal::Retention,
        Removal::TotalSize,
        Removal::Unfinished,
        Removal::Command,
        Removal::Purge,
    ];
    count(
        meters,
        &reasons.map(|reason| Event::Removed { row, reason }),
    );
}

fn count_traffic(meters: &Meters) {
    let took = Duration::from_millis(30);
    let events = [
        Event::Started,
        Event::Stopping,
        Event::SlotRefused {
            account: &jid("operator-1@example.org"),
            size_bytes: 9,
            refusal: &Refusal::QuotaReached { retry_at: NOW },
        },
        Event::FileServed {
            id: SlotId(u128::MAX),
            n_bytes: 700,
            took,
        },
        Event::RequestRefused {
            refusal: &Refusal::TokenInvalid,
        },
        Event::Swept {
            n_removed: 1,
            n_failed: 2,
            is_resting: true,
            took,
        },
    ];
    count(meters, &events);
}

fn count_operators(meters: &Meters) {
    let by = &jid("operator-1@example.org");
    let (draining, whom) = (Outcome::Draining(true, 1), "192.0.2.1");
    let operation = &Operation::Sweep;
    let run = |is_operator, outcome| Event::CommandRun {
        by,
        is_operator,
        operation,
        outcome,
    };
    let banned = |by| Event::Banned {
        whom,
        by,
        reason: "what-they-wrote",
        until: None,
    };
    let events = [
        run(true, Ok(&draining)),
        run(false, Err(&Refusal::NotAllowed)),
        Event::WarmBinding {
            by,
            account: &jid("somebody@example.org"),
            outcome: "not-authorized",
        },
        Event::WarmBindingDenied {
            by,
            address: None,
            outcome: "no-operator",
        },
        Event::KeysChanged { n_keys: 2 },
        Event::Draining { is_draining: true },
        Event::Reloaded { outcome: Ok(()) },
        Event::Reloaded {
            outcome: Err("line 3: what-they-wrote"),
        },
        banned(Some(by)),
        banned(None),
        Event::Unbanned { whom, by: Some(by) },
        Event::Unbanned { whom, by: None },
    ];
    count(meters, &events);
}

/// What `count_all` adds to which series.
#[rustfmt::skip]
const GROWN: &[(&str, u32)] = &[
    ("slotd_slots_issued_total{kind=\"plain\"}", 1),
    ("slotd_slots_issued_total{kind=\"session\"}", 1),
    ("slotd_slots_issued_bytes_total", 3000),
    ("slotd_slots_refused_total{reason=\"quota-reached\"}", 1),
    ("slotd_uploads_begun_total", 2),
    ("slotd_uploads_complete_total", 2),
    ("slotd_upload_size_bytes_sum", 3000),
    ("slotd_upload_size_bytes_bucket{le=\"1024\"}", 1),
    ("slotd_upload_seconds_count", 2),
    ("slotd_upload_life_seconds_sum", 180),
    ("slotd_uploads_resumed_total", 2),
    ("slotd_resume_gap_seconds_sum", 80),
    ("slotd_resent_bytes_total", 40),
    ("slotd_network_changes_total", 2),
    ("slotd_uploads_interrupted_total{reason=\"stalled\"}", 2),
    ("slotd_uploads_taken_over_total", 2),
    ("slotd_uploads_rejected_total{reason=\"digest-mismatch\"}", 2),
    ("slotd_uploads_rejected_total{reason=\"size-mismatch\"}", 2),
    ("slotd_uploads_rejected_total{reason=\"policy\"}", 2),
    ("slotd_uploads_replayed_total", 2),
    ("slotd_uploads_cancelled_total{by=\"owner\"}", 2),
    ("slotd_uploads_cancelled_total{by=\"resume-url\"}", 2),
    ("slotd_uploads_cancelled_total{by=\"command\"}", 2),
    ("slotd_sessions_refreshed_total", 2),
    ("slotd_downloads_total", 1),
    ("slotd_download_bytes_total", 700),
    ("slotd_download_seconds_count", 1),
    ("slotd_requests_refused_total{reason=\"token-invalid\"}", 1),
    ("slotd_removed_total{reason=\"retention\"}", 2),
    ("slotd_removed_total{reason=\"total-size\"}", 2),
    ("slotd_removed_total{reason=\"unfinished\"}", 2),
    ("slotd_removed_total{reason=\"command\"}", 2),
    ("slotd_removed_total{reason=\"purge\"}", 2),
    ("slotd_removed_bytes_total{reason=\"purge\"}", 3000),
    ("slotd_sweep_seconds_count", 1),
    ("slotd_sweep_failed_total", 2),
    ("slotd_sweep_resting", 1),
    ("slotd_commands_total{by=\"operator\"}", 1),
    ("slotd_commands_total{by=\"account\"}", 1),
    ("slotd_commands_refused_total{reason=\"not-allowed\"}", 1),
    ("slotd_warm_bindings_total{outcome=\"not-authorized\"}", 1),
    ("slotd_warm_bindings_total{outcome=\"no-operator\"}", 1),
    ("slotd_keys_changed_total", 1),
    ("slotd_reloads_total{outcome=\"taken\"}", 1),
    ("slotd_reloads_total{outcome=\"refused\"}", 1),
    ("slotd_bans_total{by=\"operator\"}", 1),
    ("slotd_bans_total{by=\"failures\"}", 1),
    ("slotd_unbans_total{by=\"operator\"}", 1),
    ("slotd_unbans_total{by=\"time\"}", 1),
];

#[tokio::test]
async fn events_are_counted_each_where_it_belongs() {
    let meters = Meters::new();
    let before = values(&meters.text(&now()));
    count_all(&meters);
    let after = values(&meters.text(&now()));
    let grown = |series: &str| {
        let value = after.get(series).unwrap_or_else(|| panic!("no {series}"));
        value - before.get(series).copied().unwrap_or_default()
    };
    for (series, wanted) in GROWN {
        let wanted = f64::from(*wanted);
        assert!(
            (grown(series) - wanted).abs() < 1e-9,
            "{series}: {}",
            grown(series)
        );
    }
}

#[tokio::test]
async fn names_follow_the_conventions() {
    let meters = Meters::new();
    count_all(&meters);
    let text = meters.text(&now());
    let types = types(&text);
    assert!(60 < types.len());
    for (name, kind) in &types {
        assert!(
            text.contains(&format!("# HELP {name} ")),
            "{name} has no help"
        );
        assert!(
            name.starts_with("slotd_") || name.starts_with("process_"),
            "{name}"
        );
        let is_plain = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        assert!(is_plain, "{name}");
        assert_eq!(name.ends_with("_total"), *kind == "counter", "{name}");
        if *kind == "histogram" {
            let has_unit = ["_seconds", "_bytes", "_writes"]
                .iter()
                .any(|unit| name.ends_with(unit));
            assert!(has_unit, "{name}");
        }
    }
    for (name, _) in values(&text) {
        let name = name.split('{').next().unwrap_or_default();
        let bases = ["_bucket", "_sum", "_count"].map(|end| name.strip_suffix(end));
        let is_known = |name: &&str| types.contains_key(name);
        let known = bases.iter().flatten().any(is_known) || is_known(&name);
        assert!(known, "{name} has no type");
    }
}

#[tokio::test]
async fn labels_hold_nothing_that_a_peer_chose() {
    let meters = Meters::new();
    count_all(&meters);
    let text = meters.text(&now());
    for secret in [
        "owner-1",
        "operator-1",
        "192.0.2.1",
        "what-they-wrote",
        "a.bin",
        "_____",
    ] {
        assert!(!text.contains(secret), "{secret}");
    }
    let mut n_lines: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        *n_lines
            .entry(line.split(['{', ' ']).next().unwrap_or_default())
            .or_default() += 1;
    }
    for (name, n_lines) in n_lines {
        assert!(n_lines <= LINES_OF_NAME_MAX, "{name} has {n_lines} lines");
    }
    // Counted again, nothing new comes.
    count_all(&meters);
    assert_eq!(meters.text(&now()).lines().count(), text.lines().count());
}

#[tokio::test]
async fn what_does_not_answer_stays_as_it_was() {
    let meters = Meters::new();
    meters.text(&now());
    let silent = Now {
        stock: None,
        is_ready: false,
        ..now()
    };
    let values = values(&meters.text(&silent));
    assert_eq!(values["slotd_ready"], 0.0);
    assert_eq!(values["slotd_uptime_seconds"], 77.0);
    assert_eq!(values["slotd_files"], 10.0);
    assert_eq!(values["slotd_free_inodes"], 7.0);
    assert_eq!(
        values["slotd_streams{component=\"upload.example.org\"}"],
        1.0
    );
    assert_eq!(
        values["slotd_streams_wanted{component=\"upload.example.org\"}"],
        2.0
    );
    assert!(1.0 <= values["slotd_workers"]);
    assert!(0.0 < values["process_open_fds"]);
}

/// Names of ours in a text.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text
        .split(|c| !is_part(c))
        .filter(|word| word.starts_with("slotd_"));
    let base = |word: &str| {
        let ends = ["_bucket", "_sum", "_count"];
        let cut = ends.iter().find_map(|end| word.strip_suffix(end));
        cut.unwrap_or(word).to_owned()
    };
    words.map(base).collect()
}

#[tokio::test]
async fn readme_dashboard_and_rules_name_what_there_is() {
    let meters = Meters::new();
    count_all(&meters);
    let text = meters.text(&now());
    let ours = |name: &&&str| name.starts_with("slotd_");
    let known: BTreeSet<String> = types(&text)
        .keys()
        .filter(ours)
        .map(|it| (*it).to_owned())
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).expect("readable");
    let readme = read("contrib/prometheus/README.md");
    let missing: Vec<_> = known.difference(&named(&readme)).cloned().collect();
    assert_eq!(missing, Vec::<String>::new(), "not in the table of metrics");
    for path in [
        "README.md",
        "contrib/prometheus/README.md",
        "contrib/prometheus/slotd.rules.yml",
        "contrib/prometheus/slotd.test.yml",
        "contrib/grafana/slotd.json",
    ] {
        let unknown: Vec<_> = named(&read(path)).difference(&known).cloned().collect();
        assert_eq!(
            unknown,
            Vec::<String>::new(),
            "{path} names what is not there"
        );
    }
}
