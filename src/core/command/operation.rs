//! What commands ask the service for, and what it found or did: values alone.

use std::time::Duration;

use jid::BareJid;

use crate::core::bans::{BanWish, Subject};
use crate::core::command::bans::{BanChange, BanPage, BansFound};
use crate::core::command::search::Search;
use crate::core::policy::{Room, Uses};
use crate::core::session::UploadSession;
use crate::core::slot::SlotId;
use crate::core::time::Timestamp;

/// How many characters of an upload's id are told: the whole id is a link.
const SHORT_CHARS: usize = 8;
/// Uploads on one page of a table.
pub const PAGE_MAX: usize = 25;
/// Uploads to choose from.
pub const CHOICES_MAX: usize = 50;

/// What a command comes to. Its name, in kebab-case, by `From`.
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Operation {
    /// How things stand.
    Overview,
    /// A page of uploads, the newest or the next due first.
    Uploads(Search),
    /// One upload.
    Upload(Named),
    /// What an account uses and may use.
    Usage(BareJid),
    /// To end an upload that is not complete; its bytes go.
    Cancel(Named),
    /// To remove an upload, complete or not, with its file.
    Delete(Named),
    /// To remove everything of an account: uploads, files, counts.
    Purge(BareJid),
    /// To ban somebody.
    Ban(BanWish),
    /// To end a ban; who wants it.
    Unban(Subject, BareJid),
    /// A page of bans.
    Bans(BanPage),
    /// To remove what is due now.
    Sweep,
    /// To make a new signing key; links given out stay good as long as they would have.
    RotateKeys,
    /// To give out no more slots, and let begun uploads go on.
    Drain,
    /// To give out slots again.
    Resume,
    /// To try the store: write, sync, read, remove.
    SelfTest,
    /// A page of the quotas that differ from the usual ones.
    Exceptions {
        /// How many come before it.
        skip: usize,
    },
    /// To set the quota of an account or a domain; none: to what the configuration says.
    SetException(BareJid, Option<u64>),
    /// What everybody shall know.
    Note,
    /// To set it, or to take it back.
    SetNote(Option<String>),
    /// A page of all that is known of an account.
    Records(Search),
    /// What is configured.
    Configuration,
    /// To read the configuration anew.
    Reload,
}

impl Operation {
    /// Whether it changes anything.
    pub fn changes(&self) -> bool {
        match self {
            Self::Overview
            | Self::Uploads(_)
            | Self::Upload(_)
            | Self::Usage(_)
            | Self::Exceptions { .. }
            | Self::Note
            | Self::Records(_)
            | Self::Configuration
            | Self::Bans(_) => false,
            Self::Cancel(_)
            | Self::Delete(_)
            | Self::Purge(_)
            | Self::Ban(_)
            | Self::Unban(..)
            | Self::Sweep
            | Self::RotateKeys
            | Self::Drain
            | Self::Resume
            | Self::SelfTest
            | Self::SetException(..)
            | Self::SetNote(_)
            | Self::Reload => true,
        }
    }

    /// The short name of the upload that it is about.
    pub fn upload(&self) -> Option<String> {
        match self {
            Self::Upload(named) | Self::Cancel(named) | Self::Delete(named) => {
                Some(match &named.name {
                    UploadName::Slot(id) => id.short(),
                    UploadName::Short(short) => short.chars().take(SHORT_CHARS).collect(),
                })
            }
            _ => None,
        }
    }

    /// The account that it is about.
    pub fn account(&self) -> Option<&BareJid> {
        match self {
            Self::Usage(owner) | Self::Purge(owner) | Self::SetException(owner, _) => Some(owner),
            Self::Uploads(search) | Self::Records(search) => search.owner.as_ref(),
            Self::Upload(named) | Self::Cancel(named) | Self::Delete(named) => named.owner.as_ref(),
            _ => None,
        }
    }
}

/// An upload by a name that can be told: the first characters of its id open no link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Which.
    pub name: UploadName,
    /// Whose it has to be; `None` for operators.
    pub owner: Option<BareJid>,
}

/// How an upload is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadName {
    /// By its file's address.
    Slot(SlotId),
    /// By what tables show of it.
    Short(String),
}

/// An upload, as it stands now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its row.
    pub row: UploadSession,
    /// Whether bytes are coming in now.
    pub is_active: bool,
    /// How many bytes are durable.
    pub offset: u64,
    /// When the last one came.
    pub last_byte_at: Timestamp,
}

/// A page of uploads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The uploads.
    pub uploads: Vec<Seen>,
    /// Whether others follow.
    pub has_more: bool,
    /// Whether looking was given up before all were seen.
    pub is_cut: bool,
    /// Rows that cannot be read.
    pub n_unreadable: usize,
}

/// How things stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// Since when we run.
    pub uptime: Duration,
    /// Rows of any state.
    pub n_rows: u64,
    /// Complete files.
    pub n_files: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// What the disk has left.
    pub free: Room,
    /// Uploads whose bytes are coming in.
    pub n_active: usize,
    /// Signing keys that open tokens.
    pub n_keys: usize,
    /// Whether slots are given out.
    pub is_draining: bool,
    /// What everybody shall know.
    pub note: Option<String>,
}

/// What an account uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Whose.
    pub owner: BareJid,
    /// Bytes of slots in the quota's window.
    pub used_bytes: u64,
    /// How many there may be.
    pub quota_bytes: Option<u64>,
    /// Whether an operator said so.
    pub is_said: bool,
    /// The window.
    pub window: Duration,
    /// Open upload sessions.
    pub n_open_sessions: usize,
    /// Complete files.
    pub n_files: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// Whether there are more files than were counted.
    pub is_cut: bool,
}

/// What came of asking the XMPP server for a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ping {
    /// It was not asked: too many ask, or nobody knows its name.
    NotSent,
    /// Nothing came.
    Silent,
    /// It answered after so long.
    Answered(Duration),
}

/// A quota that differs from the usual one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Whose: an account's or a domain's.
    pub jid: BareJid,
    /// How many bytes; `u64::MAX` is no limit.
    pub limit: u64,
    /// Whether a command set it; otherwise the configuration did.
    pub is_said: bool,
}

/// A page of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceptions {
    /// In order of domain and account.
    pub page: Vec<Exception>,
    /// Whether others follow.
    pub has_more: bool,
}

/// A page of what is known of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// What it uses, with the first page.
    pub usage: Option<(Usage, Uses)>,
    /// Its uploads.
    pub page: Page,
}

/// What an operation found or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// How things stand.
    Overview(Overview),
    /// Uploads.
    Uploads(Page, Timestamp),
    /// One upload.
    Upload(Box<Seen>, Timestamp),
    /// What an account uses.
    Usage(Usage),
    /// An upload is gone.
    Removed(Box<Seen>),
    /// Uploads of an account are gone.
    Purged {
        /// How many.
        n_removed: u64,
        /// How many bytes they had.
        n_bytes: u64,
        /// How many would not go.
        n_failed: usize,
    },
    /// Bans that are in force.
    Bans(BansFound, Timestamp),
    /// What became of a ban.
    Ban(Box<BanChange>, Timestamp),
    /// What was due is gone.
    Swept {
        /// How many.
        n_removed: usize,
        /// How many would not go.
        n_failed: usize,
        /// Whether nothing could be looked at.
        is_resting: bool,
    },
    /// There is a new signing key, and so many in all.
    Rotated(usize),
    /// Slots are given out, or not; uploads whose bytes are coming in.
    Draining(bool, usize),
    /// The stores work: each step and how long it took.
    Tested(Vec<(&'static str, Duration)>, Ping),
    /// Quotas that differ from the usual ones.
    Exceptions(Exceptions),
    /// A quota was set, or none any more.
    ExceptionSet(BareJid, Option<u64>),
    /// What everybody shall know.
    Note(Option<String>),
    /// It was set, or taken back.
    Noted(Option<String>),
    /// What is known of an account.
    Records(Box<Records>),
    /// What is configured.
    Configuration(Vec<Configured>),
    /// The configuration was read anew.
    Reloaded(Reloaded),
}

impl Outcome {
    /// Whether what was asked for was done; otherwise its words say why not.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Ban(change, _) => {
                !matches!(**change, BanChange::Refused(_) | BanChange::NoBan(_))
            }
            Self::Reloaded(reloaded) => matches!(reloaded, Reloaded::Done { .. }),
            _ => true,
        }
    }

    /// Whether another page follows.
    pub fn has_more(&self) -> bool {
        match self {
            Self::Uploads(page, _) => page.has_more,
            Self::Exceptions(exceptions) => exceptions.has_more,
            Self::Records(records) => records.page.has_more,
            Self::Bans(found, _) => found.has_more,
            _ => false,
        }
    }
}

/// An option and its value, as it would be written; no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// `limits.idle_for`
    pub key: String,
    /// `"5 minutes"`
    pub value: String,
    /// Whether it is what counts where nothing is written.
    pub is_default: bool,
}

/// What came of reading the configuration anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// It is in force.
    Done {
        /// The options that changed.
        changed: Vec<String>,
        /// What could not change, or may hurt: a line each.
        warnings: Vec<String>,
    },
    /// It is broken, and nothing changed: file, line, key and remedy, a line each.
    Refused(Vec<String>),
}
