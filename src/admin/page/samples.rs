//! How things might stand: a day of uploads that was made up, for tests and for the eye.

use std::time::Duration;

use jid::BareJid;

use crate::core::command::operation::Seen;
use crate::core::history::{Act, History, Tally};
use crate::core::policy::Room;
use crate::core::session::{FileFacts, Lifetimes, Retention, State, UploadSession};
use crate::core::slot::{ContentType, FileName, PartId, Purpose, SlotId};
use crate::core::status::{Health, Status, Storage, Upload, Uploads};
use crate::core::time::Timestamp;

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;
pub(super) const NOW: Timestamp = Timestamp(1_767_364_509);

/// An upload of `name`: `offset` of `size_bytes` are here, the last one `silent_for` seconds ago.
pub(super) fn upload(
    name: &str,
    offset: u64,
    size_bytes: u64,
    from: u64,
    silent_for: u64,
) -> Upload {
    let file = FileFacts {
        name: FileName::parse(name).expect("a valid name"),
        size_bytes,
        content_type: ContentType::octet_stream(),
        purpose: Purpose::Message,
    };
    let lifetimes = Lifetimes {
        idle_for: Duration::from_secs(300),
        session_age: Duration::from_secs(72 * 3600),
        rufh_idle_for: Duration::from_secs(3600),
        refreshes_max: 10,
        retention: Retention::default(),
    };
    let owner = BareJid::new("romeo@example.org").expect("a valid JID");
    let begun_at = NOW.minus(Duration::from_secs(340));
    let id = SlotId(u128::from(size_bytes) << 90 | 0x2345_6789);
    let mut row = UploadSession::new(id, owner, file, &lifetimes, begun_at);
    row.state = State::Uploading;
    let part = PartId {
        slot: id,
        attempt: 0,
    };
    row.newest = Some((part, from));
    let seen = Seen {
        row,
        is_active: silent_for < 60,
        offset,
        last_byte_at: NOW.minus(Duration::from_secs(silent_for)),
    };
    Upload::new(seen, 0)
}

fn uploads() -> Option<Uploads> {
    Some(Uploads {
        n_active: 3,
        shown: vec![
            upload("balcony scene.mp4", 310 * MIB, 700 * MIB, 0, 0),
            upload("IMG_20260102_140501.jpg", 3 * MIB, 4 * MIB, 2 * MIB, 1),
            upload("backup-of-verona.tar.zst", GIB, 2 * GIB, 0, 42),
            upload("voice-message.ogg", 200_000, 910_000, 0, 190),
        ],
        has_more: false,
    })
}

/// A day: quiet at night, busy in the evening.
pub(super) fn history() -> History {
    let mut history = History::default();
    for n in (0..4320).rev() {
        let at = NOW.minus(Duration::from_secs(n * 20));
        let busy = 1 + (at.0 / 3600 % 24).abs_diff(4).min(12) * (3 + at.0 / 61 % 5);
        let tally = Tally {
            uploads: u64::from(at.0 / 20 % 9 * 5 < busy),
            bytes: busy * 270_000 * (1 + at.0 / 77 % 3),
            resumes: u64::from(at.0 / 20 % 97 < busy / 16),
            refusals: u64::from((at.0 / 20).is_multiple_of(211)) * (1 + busy / 9),
        };
        history.note(tally, at);
    }
    history.note_act(act(70_000, "juliet@example.org", "sweep", true));
    history.note_act(act(9_000, "juliet@example.org", "rotate-keys", false));
    let words = "purge mercutio@example.org";
    history.note_act(act(310, "nurse@example.org", words, true));
    history
}

fn act(seconds_ago: u64, by: &str, what: &str, is_done: bool) -> Act {
    Act {
        at: NOW.minus(Duration::from_secs(seconds_ago)),
        by: by.to_owned(),
        what: what.to_owned(),
        is_done,
    }
}

/// A service in the midst of a day.
pub(super) fn busy() -> Status {
    let history = history();
    let part = |part: &str, words: &str| Health {
        part: part.to_owned(),
        is_well: true,
        words: words.to_owned(),
    };
    Status {
        now: NOW,
        uptime: Duration::from_secs(266_400),
        is_draining: false,
        uploads: uploads(),
        hour: history.hour(NOW),
        day: history.day(NOW),
        storage: Some(Storage {
            n_files: 12_345,
            stored_bytes: 61 * GIB,
            stored_bytes_max: Some(80 * GIB),
            free: Room {
                bytes: 112 * GIB,
                inodes: 8_123_456,
            },
            reserve: Room {
                bytes: GIB,
                inodes: 1000,
            },
            used_bytes: 7 * GIB,
            quota_bytes: None,
            window: Duration::from_secs(86_400),
        }),
        health: vec![
            part("Stream of upload.example.org", "up for 3 days"),
            part("Store", "no trouble since the start"),
        ],
        acts: history.acts().cloned().collect(),
    }
}

/// A service that was just started, where nobody uploads.
pub(super) fn idle() -> Status {
    let history = History::default();
    Status {
        uptime: Duration::ZERO,
        uploads: Some(Uploads::default()),
        hour: history.hour(NOW),
        day: history.day(NOW),
        storage: None,
        health: Vec::new(),
        acts: Vec::new(),
        ..busy()
    }
}
