//! What happens: told once, by `Service::tell`, to whoever listens (audit log, metrics, history).
//!
//! An event borrows what it tells of, so that telling costs nothing: a listener copies what it
//! keeps. It holds no credential and no whole link; a listener that writes down a slot's id writes
//! its first characters alone (`SlotId::short`), for the whole opens the file.

use std::net::IpAddr;
use std::time::Duration;

use jid::BareJid;

use crate::core::command::operation::{Operation, Outcome};
use crate::core::refusal::Refusal;
use crate::core::session::{FailReason, UploadSession};
use crate::core::slot::SlotId;
use crate::core::time::Timestamp;

/// Something that happened. Its name, in kebab-case, is its kind (`&'static str` by `From`).
#[derive(Clone, Copy, Debug, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Event<'a> {
    /// The service is ready.
    Started,
    /// The service takes nothing any more, and ends what runs.
    Stopping,

    /// A slot was given out, or another system's token took the place of one: `row.agreement` says
    /// which, and whether an upload session goes with it.
    SlotIssued {
        /// The upload to be.
        row: &'a UploadSession,
    },
    /// No slot was given out.
    SlotRefused {
        /// Who asked.
        account: &'a BareJid,
        /// For how many bytes.
        size_bytes: u64,
        /// Why not.
        refusal: &'a Refusal,
    },

    /// The first request of an upload was admitted. Of a small file that came whole it is told
    /// together with `UploadComplete`.
    UploadBegun {
        /// The upload.
        row: &'a UploadSession,
    },
    /// A later one was admitted: the upload goes on, or begins again. Also told of the parts of an
    /// upload that its client sends in several requests; their gap is next to nothing.
    UploadResumed {
        /// The upload.
        row: &'a UploadSession,
        /// How it goes on.
        resumed: Resumed,
    },
    /// A request ended before its last byte; what is durable stays.
    UploadInterrupted {
        /// The upload, as it was when the request was admitted.
        row: &'a UploadSession,
        /// How many bytes are durable.
        offset: u64,
        /// Why.
        why: &'a Refusal,
    },
    /// The same because something newer came: a request, a refresh, a cancel.
    UploadTakenOver {
        /// The upload, as it was when the older request was admitted.
        row: &'a UploadSession,
        /// How many bytes are durable.
        offset: u64,
    },
    /// What came was not the file that was promised. A plain slot stays usable; a session that
    /// told of these bytes has failed.
    UploadRejected {
        /// The upload, as it was when the request was admitted.
        row: &'a UploadSession,
        /// How many bytes came.
        offset: u64,
        /// Why.
        reason: FailReason,
    },
    /// The file is there, and was acknowledged.
    UploadComplete {
        /// The upload.
        row: &'a UploadSession,
        /// How long the request took that brought the last byte.
        took: Duration,
    },
    /// A complete upload came again, with the same bytes: its answer had been lost.
    UploadReplayed {
        /// The upload.
        row: &'a UploadSession,
    },
    /// An upload was given up, and its bytes are gone.
    UploadCancelled {
        /// The upload.
        row: &'a UploadSession,
        /// By what.
        by: Canceller,
    },
    /// A session has new credentials: `row.generation` counts them.
    SessionRefreshed {
        /// The upload.
        row: &'a UploadSession,
        /// How many bytes are durable.
        offset: u64,
    },

    /// An answer to GET is gone, with a file or a part of it.
    FileServed {
        /// Which file.
        id: SlotId,
        /// How many bytes were sent; none where a trusted proxy sends the file itself.
        n_bytes: u64,
        /// How long it took.
        took: Duration,
    },
    /// A request over HTTP was refused.
    RequestRefused {
        /// Why.
        refusal: &'a Refusal,
    },

    /// An upload is gone: its file, or what had come of it.
    Removed {
        /// As it was.
        row: &'a UploadSession,
        /// Why.
        reason: Removal,
    },
    /// What was due was looked for, and removed: a batch of it.
    Swept {
        /// How many uploads went.
        n_removed: usize,
        /// How many would not go.
        n_failed: usize,
        /// Whether nothing could be looked at.
        is_resting: bool,
        /// How long it took.
        took: Duration,
    },

    /// A command came to its end.
    CommandRun {
        /// Who ran it.
        by: &'a BareJid,
        /// Whether they are an operator.
        is_operator: bool,
        /// What they asked for.
        operation: &'a Operation,
        /// What came of it.
        outcome: Result<&'a Outcome, &'a Refusal>,
    },
    /// A session was to be bound for somebody else to go on with.
    WarmBinding {
        /// The operator who asked.
        by: &'a BareJid,
        /// Whose session.
        account: &'a BareJid,
        /// What came of it: `bound`, or the failure's name.
        outcome: &'static str,
    },
    /// Somebody asked for one and was not let in.
    WarmBindingDenied {
        /// The account that they named as theirs.
        by: &'a BareJid,
        /// From where, as far as that is known; shortened before it is written down.
        address: Option<IpAddr>,
        /// Why: `no-operator` or `wrong-password`.
        outcome: &'static str,
    },
    /// Other keys are in use.
    KeysChanged {
        /// How many.
        n_keys: usize,
    },
    /// An operator said that no slots shall be given out, or some again.
    Draining {
        /// Which of both.
        is_draining: bool,
    },
    /// The configuration was read again.
    Reloaded {
        /// What is wrong with it, where it changed nothing.
        outcome: Result<(), &'a str>,
    },
    /// An account, a domain or a network is kept out.
    Banned {
        /// It, in words; an address is shortened by `log.addresses` before it is written down.
        whom: &'a str,
        /// The operator who said so; none after failures.
        by: Option<&'a BareJid>,
        /// Why.
        reason: &'a str,
        /// Until when; none: until somebody says otherwise.
        until: Option<Timestamp>,
    },
    /// It may come again.
    Unbanned {
        /// It, in words.
        whom: &'a str,
        /// The operator who said so; none where its time was over.
        by: Option<&'a BareJid>,
    },
}

/// How an upload goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// Where the request's bytes begin.
    pub offset: u64,
    /// How many bytes that are durable already it brings once more.
    pub resent_bytes: u64,
    /// How long no byte had come.
    pub gap: Duration,
    /// Whether it comes from another address than the one before.
    pub is_other_network: bool,
}

/// What gave an upload up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Canceller {
    /// Its owner, over XMPP.
    Owner,
    /// Whoever has its resume URL.
    ResumeUrl,
    /// A command.
    Command,
}

/// Why an upload or its file went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Removal {
    /// A complete file's time was over.
    Retention,
    /// A complete file was the oldest, and too much was stored.
    TotalSize,
    /// An upload did not go on in time.
    Unfinished,
    /// A command named it.
    Command,
    /// A command removed everything of its owner.
    Purge,
    /// The system that let it in said so.
    External,
}

impl Event<'_> {
    /// What kind it is: `upload-complete` and the like.
    pub fn kind(&self) -> &'static str {
        self.into()
    }
}

impl Refusal {
    /// Its name for machines: `file-too-large` and the like. Holds nothing that a peer said.
    pub fn name(&self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::command::fault::CommandFault;

    #[test]
    fn names_are_for_machines() {
        assert_eq!(Event::Draining { is_draining: true }.kind(), "draining");
        let too_large = Refusal::FileTooLarge { size_bytes_max: 1 };
        assert_eq!(too_large.name(), "file-too-large");
        let fault = Refusal::Command(CommandFault::BadAction);
        assert_eq!(fault.name(), "bad-action");
        assert_eq!(<&str>::from(Removal::TotalSize), "total-size");
    }
}
