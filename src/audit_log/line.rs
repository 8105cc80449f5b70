//! A line of the audit log. An upload is named by the first characters of its id, as in tables: the
//! whole id opens the file.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use crate::core::command::operation::Operation;
use crate::core::event::{Event, Removal};
use crate::core::session::network::AddressPolicy;
use crate::core::session::{Agreement, State, UploadSession};
use crate::core::time::Timestamp;

/// One thing that happened; what has no say in it is left out.
#[derive(Debug, Default, Serialize)]
pub(super) struct Line<'a> {
    time: String,
    kind: &'static str,
    /// The upload's short name.
    #[serde(skip_serializing_if = "Option::is_none")]
    upload: Option<String>,
    /// Whose upload it is, or who is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<u64>,
    /// `plain`, `resumable` or `session`.
    #[serde(skip_serializing_if = "Option::is_none")]
    agreement: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refreshes: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resent_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_other_network: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    /// Who did it: an account, or what stands for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_operator: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n_removed: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n_failed: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n_keys: Option<usize>,
    /// What a quota exception was set to, in bytes, or `none`; absent where it was cleared.
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<String>,
    /// What everybody shall know.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n_lost: Option<u64>,
}

impl<'a> Line<'a> {
    /// The line of an event; none for what strangers can make happen as often as they like, and
    /// for what people look up of their own.
    pub(super) fn of(
        event: &Event<'a>,
        addresses: impl Fn() -> AddressPolicy,
        now: Timestamp,
    ) -> Option<Self> {
        let line = Self {
            time: now.to_xep0082(),
            kind: event.kind(),
            ..Self::default()
        };
        match event {
            Event::SlotRefused { .. } | Event::FileServed { .. } | Event::RequestRefused { .. } => {
                None
            }
            Event::Swept {
                n_removed: 0,
                n_failed: 0,
                ..
            } => None,
            Event::CommandRun {
                is_operator: false,
                operation,
                ..
            } if !operation.changes() => None,
            Event::SlotIssued { .. }
            | Event::UploadBegun { .. }
            | Event::UploadResumed { .. }
            | Event::UploadInterrupted { .. }
            | Event::UploadTakenOver { .. }
            | Event::UploadRejected { .. }
            | Event::UploadComplete { .. }
            | Event::UploadReplayed { .. }
            | Event::UploadCancelled { .. }
            | Event::SessionRefreshed { .. }
            | Event::Removed { .. } => Some(line.of_upload(event)),
            Event::WarmBinding { account, .. } => Some(Self {
                account: Some(account.to_string()),
                ..line.of_service(event)
            }),
            Event::WarmBindingDenied { address, .. } => Some(Self {
                address: address.and_then(|address| addresses().apply(address)),
                ..line.of_service(event)
            }),
            Event::Banned { whom, .. } | Event::Unbanned { whom, .. } => Some(Self {
                account: Some(shown(whom, addresses())),
                ..line.of_service(event)
            }),
            Event::Started
            | Event::Stopping
            | Event::Swept { .. }
            | Event::CommandRun { .. }
            | Event::KeysChanged { .. }
            | Event::Draining { .. }
            | Event::Reloaded { .. } => Some(line.of_service(event)),
        }
    }

    /// Says that so many lines are missing.
    pub(super) fn lost(n_lost: u64, now: Timestamp) -> Self {
        Self {
            time: now.to_xep0082(),
            kind: "lines-lost",
            n_lost: Some(n_lost),
            ..Self::default()
        }
    }

    /// What is told of an upload.
    fn of_upload(self, event: &Event<'a>) -> Self {
        match *event {
            Event::SlotIssued { row } => Self {
                agreement: Some(match row.agreement {
                    Agreement::Slot => "plain",
                    Agreement::Resumable => "resumable",
                    Agreement::Session(_) => "session",
                    Agreement::External { .. } => "external",
                }),
                ..self.named(row)
            },
            Event::UploadBegun { row } => self.named(row).from(row),
            Event::UploadResumed { row, resumed } => Self {
                offset: Some(resumed.offset),
                resent_bytes: Some(resumed.resent_bytes),
                gap_seconds: Some(resumed.gap.as_secs()),
                is_other_network: Some(resumed.is_other_network),
                ..self.named(row).from(row)
            },
            Event::UploadInterrupted { row, offset, why } => Self {
                offset: Some(offset),
                reason: Some(why.name()),
                ..self.named(row)
            },
            Event::UploadTakenOver { row, offset } => Self {
                offset: Some(offset),
                ..self.named(row)
            },
            Event::UploadRejected {
                row,
                offset,
                reason,
            } => Self {
                offset: Some(offset),
                reason: Some(reason.as_str()),
                ..self.named(row)
            },
            Event::UploadComplete { row, took } => Self {
                took_ms: Some(ms(took)),
                generation: Some(row.generation),
                attempts: Some(row.n_attempts),
                ..self.named(row)
            },
            Event::UploadReplayed { row } => self.named(row),
            Event::UploadCancelled { row, by } => Self {
                by: Some(<&str>::from(by).to_owned()),
                ..self.named(row)
            },
            Event::SessionRefreshed { row, offset } => Self {
                offset: Some(offset),
                generation: Some(row.generation),
                refreshes: Some(row.refreshes),
                ..self.named(row)
            },
            Event::Removed { row, reason } => Self {
                reason: Some(reason.into()),
                outcome: Some(match (reason, row.state) {
                    (Removal::Unfinished, _) => "expired",
                    (_, State::Complete { .. }) => "file-removed",
                    _ => "upload-removed",
                }),
                ..self.named(row)
            },
            _ => self,
        }
    }

    /// What is told of the service and of who steers it.
    fn of_service(self, event: &Event<'a>) -> Self {
        match *event {
            Event::Swept {
                n_removed,
                n_failed,
                took,
                ..
            } => Self {
                n_removed: Some(n_removed),
                n_failed: Some(n_failed),
                took_ms: Some(ms(took)),
                ..self
            },
            Event::CommandRun {
                by,
                is_operator,
                operation,
                outcome,
            } => Self {
                by: Some(by.to_string()),
                is_operator: Some(is_operator),
                outcome: Some(match outcome {
                    Ok(outcome) if outcome.is_done() => "done",
                    Ok(_) => "refused",
                    Err(refusal) => refusal.name(),
                }),
                ..self.of_command(operation)
            },
            Event::WarmBinding { by, outcome, .. }
            | Event::WarmBindingDenied { by, outcome, .. } => Self {
                by: Some(by.to_string()),
                outcome: Some(outcome),
                ..self
            },
            Event::KeysChanged { n_keys } => Self {
                n_keys: Some(n_keys),
                ..self
            },
            Event::Draining { is_draining } => Self {
                outcome: Some(if is_draining { "draining" } else { "resumed" }),
                ..self
            },
            Event::Reloaded { outcome } => Self {
                outcome: Some(outcome.map_or("refused", |()| "done")),
                reason: outcome.err(),
                ..self
            },
            Event::Banned {
                by, reason, until, ..
            } => Self {
                by: by.map(ToString::to_string),
                reason: Some(reason),
                until: until.map(Timestamp::to_xep0082),
                ..self
            },
            Event::Unbanned { by, .. } => Self {
                by: by.map(ToString::to_string),
                ..self
            },
            _ => self,
        }
    }

    fn named(self, row: &'a UploadSession) -> Self {
        Self {
            upload: Some(row.id.short()),
            account: Some(row.owner.to_string()),
            file: Some(row.file.name.as_str()),
            size_bytes: Some(row.file.size_bytes),
            ..self
        }
    }

    /// Where the newest request came from, as far as that was written down with the upload.
    fn from(self, row: &'a UploadSession) -> Self {
        let last = row.networks.last();
        Self {
            address: last.and_then(|network| network.address.clone()),
            agent: last.and_then(|network| network.agent.as_deref()),
            ..self
        }
    }

    fn of_command(self, operation: &'a Operation) -> Self {
        let (quota, note) = match operation {
            Operation::SetException(_, Some(u64::MAX)) => (Some("none".to_owned()), None),
            Operation::SetException(_, Some(limit)) => (Some(limit.to_string()), None),
            Operation::SetNote(note) => (None, note.as_deref()),
            _ => (None, None),
        };
        Self {
            quota,
            note,
            command: Some(operation.into()),
            upload: operation.upload(),
            account: operation.account().map(ToString::to_string),
            ..self
        }
    }

    /// The line as it is written, with its end.
    ///
    /// Names and agents are strangers' words: of what is not ASCII, which may be turned around or
    /// look like something else, the number is written.
    pub(super) fn to_text(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        let mut text = String::with_capacity(json.len() + 1);
        for c in json.chars() {
            match c {
                ' '..='~' => text.push(c),
                // Only within strings, where JSON takes it like this.
                _ => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        text.push_str(&format!("\\u{unit:04x}"));
                    }
                }
            }
        }
        text.push('\n');
        text
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Who is banned, and of an address what may be written down.
fn shown(whom: &str, addresses: AddressPolicy) -> String {
    let address = whom
        .split('/')
        .next()
        .and_then(|it| it.parse::<IpAddr>().ok());
    match (address, addresses) {
        (None, _) | (_, AddressPolicy::Full) => whom.to_owned(),
        (Some(address), _) => addresses.apply(address).unwrap_or_else(|| "-".to_owned()),
    }
}
