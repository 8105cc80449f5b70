//! Ad-hoc commands (XEP-0050): one table of what can be asked, by whom, and in which stages.
//!
//! A command is a function from what came back so far to what is next: another form, a page, or an
//! `Operation` for the service. It is asked anew at each stage, so going back is to leave out the
//! last answer. `form` has the data forms, `running` the commands that wait for their next stage,
//! `flows`, `orders` and `bans` the commands themselves, `report` and `export` what is shown of an
//! outcome.

use jid::BareJid;

use self::bans::{ban, bans, unban};
use self::flows::*;
use self::form::{Form, Report, Values, Wrong};
use self::operation::{Operation, Outcome};
use self::orders::*;
use crate::core::bans::BanPolicy;

pub mod bans;
mod export;
pub mod fault;
mod flows;
pub mod form;
pub mod operation;
mod orders;
mod report;
pub mod running;
pub mod search;
mod settings;

pub use self::report::report;

/// What the nodes of our commands begin with.
pub const NODE: &str = "urn:slotd:command:0#";

/// The command that tests everything: behind `NODE`.
pub const SELF_TEST: &str = "self-test";

/// Who may run a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Everybody who may ask for slots; they see and change their own things alone.
    Everybody,
    /// Operators.
    Operators,
}

/// Who runs a command.
#[derive(Clone, Debug)]
pub struct Asker<'a> {
    /// Their account.
    pub account: &'a BareJid,
    /// What every URL that we gave out begins with.
    pub public_url: &'a str,
    /// Who can be banned.
    pub ban_policy: &'a BanPolicy,
}

/// What is next.
pub enum Next {
    /// A form; whether its answer is the last.
    Ask(Form, Last),
    /// A form made of what an operation finds; nothing to choose from ends the command.
    Choose(Operation, fn(&Outcome) -> Result<Form, Box<Report>>, Last),
    /// A page of what an operation finds; another may follow.
    Show(Operation),
    /// The end.
    Run(Operation),
}

/// Whether a command runs when a stage was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// It does.
    Yes,
    /// Another stage follows.
    No,
}

/// A command.
pub struct Command {
    /// Behind `NODE`.
    pub name: &'static str,
    /// What people read.
    pub label: &'static str,
    /// Who may run it.
    pub who: Who,
    /// What is next after these answers.
    pub next: fn(&Asker<'_>, &[Values]) -> Result<Next, Wrong>,
}

/// All commands, in the order in which they are listed.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command { name: "my-uploads",       label: "My uploads",               who: Who::Everybody, next: my_uploads },
    Command { name: "my-usage",         label: "My usage",                 who: Who::Everybody, next: my_usage },
    Command { name: "delete-my-upload", label: "Delete one of my uploads", who: Who::Everybody, next: delete_my_upload },
    Command { name: "overview",         label: "Overview",                 who: Who::Operators, next: overview },
    Command { name: "uploads",          label: "Uploads",                  who: Who::Operators, next: uploads },
    Command { name: "show-upload",      label: "Show an upload",           who: Who::Operators, next: show_upload },
    Command { name: "cancel-upload",    label: "Cancel an upload",         who: Who::Operators, next: cancel_upload },
    Command { name: "delete-file",      label: "Delete a file",            who: Who::Operators, next: delete_file },
    Command { name: "user-uploads",     label: "A user's uploads",         who: Who::Operators, next: user_uploads },
    Command { name: "user-usage",       label: "A user's usage",           who: Who::Operators, next: user_usage },
    Command { name: "purge-user",       label: "Purge a user",             who: Who::Operators, next: purge_user },
    Command { name: "export-user",      label: "Export a user's records",  who: Who::Operators, next: export_user },
    Command { name: "quota-exceptions", label: "Quota exceptions",         who: Who::Operators, next: quota_exceptions },
    Command { name: "set-quota",        label: "Set a quota exception",    who: Who::Operators, next: set_quota },
    Command { name: "clear-quota",      label: "Clear a quota exception",  who: Who::Operators, next: clear_quota },
    Command { name: "maintenance-note", label: "Note to everybody",        who: Who::Operators, next: maintenance_note },
    Command { name: "ban",              label: "Ban",                      who: Who::Operators, next: ban },
    Command { name: "unban",            label: "Unban",                    who: Who::Operators, next: unban },
    Command { name: "bans",             label: "Bans",                     who: Who::Operators, next: bans },
    Command { name: "sweep",            label: "Sweep now",                who: Who::Operators, next: |_, _| run(Operation::Sweep) },
    Command { name: "rotate-keys",      label: "Rotate the signing keys",  who: Who::Operators, next: rotate_keys },
    Command { name: "drain",            label: "Give out no more slots",   who: Who::Operators, next: |_, _| run(Operation::Drain) },
    Command { name: "resume",           label: "Give out slots again",     who: Who::Operators, next: |_, _| run(Operation::Resume) },
    Command { name: SELF_TEST,          label: "Test store and server",    who: Who::Operators, next: |_, _| run(Operation::SelfTest) },
    Command { name: "configuration",    label: "Configuration",            who: Who::Operators, next: |_, _| run(Operation::Configuration) },
    Command { name: "reload",           label: "Reload the configuration", who: Who::Operators, next: |_, _| run(Operation::Reload) },
];

/// The command of a node.
pub fn find(node: &str) -> Option<&'static Command> {
    let name = node.strip_prefix(NODE)?;
    COMMANDS.iter().find(|command| command.name == name)
}

impl Command {
    /// By which it is asked for.
    pub fn node(&self) -> String {
        format!("{NODE}{}", self.name)
    }
}
