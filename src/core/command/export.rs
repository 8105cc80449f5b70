//! All that is known of an account, as text for a program: one JSON object a line.
//!
//! An upload is named by the first characters of its id: a record is handed on, and the whole id
//! would open the file.

use serde_json::{Value, json};

use super::operation::{Records, Seen, Usage};
use crate::core::policy::{BUCKET, Uses};
use crate::core::session::network::Network;
use crate::core::session::{Agreement, State};
use crate::core::slot::Purpose;
use crate::core::time::Timestamp;

/// The lines of a page: what the account uses first, then its uploads, the newest first.
pub(super) fn lines(records: &Records) -> Vec<String> {
    let usage = records.usage.iter();
    let usage = usage.map(|(usage, uses)| usage_of(usage, uses));
    let uploads = records.page.uploads.iter().map(upload_of);
    usage
        .chain(uploads)
        .map(|object| object.to_string())
        .collect()
}

fn usage_of(usage: &Usage, uses: &Uses) -> Value {
    let hour = |(bucket, n_bytes): &(crate::core::policy::Bucket, u64)| {
        let begins = Timestamp(bucket.0 * BUCKET.as_secs());
        json!({"hour": begins.to_xep0082(), "bytes": n_bytes})
    };
    json!({
        "record": "account",
        "account": usage.owner.to_string(),
        "quota_bytes": usage.quota_bytes,
        "quota_set_by_operator": usage.is_said,
        "quota_window_seconds": usage.window.as_secs(),
        "used": uses.iter().map(hour).collect::<Vec<_>>(),
        "open_upload_sessions": usage.n_open_sessions,
        "files": usage.n_files,
        "stored_bytes": usage.stored_bytes,
    })
}

fn upload_of(seen: &Seen) -> Value {
    let row = &seen.row;
    let network = |network: &Network| {
        json!({
            "time": network.at.to_xep0082(),
            "address": network.address,
            "agent": network.agent,
        })
    };
    let completed = match row.state {
        State::Complete { at, .. } => Some(at.to_xep0082()),
        _ => None,
    };
    json!({
        "record": "upload",
        "upload": row.id.short(),
        "file": row.file.name.as_str(),
        "size_bytes": row.file.size_bytes,
        "type": row.file.content_type.as_str(),
        "purpose": purpose(row.file.purpose),
        "is_session": matches!(row.agreement, Agreement::Session(_)),
        "state": state(row.state),
        "offset": seen.offset,
        "created": row.created_at.to_xep0082(),
        "last_byte": seen.last_byte_at.to_xep0082(),
        "completed": completed,
        "expires": row.expires_at.to_xep0082(),
        "keep_until": row.keep_until.map(Timestamp::to_xep0082),
        "generation": row.generation,
        "refreshes": row.refreshes,
        "attempts": row.n_attempts,
        "networks": row.networks.iter().map(network).collect::<Vec<_>>(),
    })
}

fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Message => "message",
        Purpose::Profile => "profile",
        Purpose::Permanent => "permanent",
        Purpose::Ephemeral { .. } => "ephemeral",
    }
}

fn state(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Uploading => "uploading",
        State::Complete { .. } => "complete",
        State::Failed(_) => "failed",
        State::Cancelled => "cancelled",
        State::Expired => "expired",
    }
}
