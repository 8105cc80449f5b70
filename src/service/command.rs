//! A stage of an ad-hoc command: core says what is next, and it is done here.
//!
//! Who may is asked at every stage, whoever began the command.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jid::BareJid;

use crate::core::command::fault::CommandFault;
use crate::core::command::form::{Form, Report, Tone, Values, Wrong};
use crate::core::command::operation::Ping;
use crate::core::command::running::{Action, Onward, Running, Step, Turn, WAITS_FOR, Waiting};
use crate::core::command::{self, Asker, COMMANDS, Command, Last, Next, Who};
use crate::core::refusal::Refusal;
use crate::service::operations::Operations;

/// Commands that wait for their next stage.
#[derive(Default)]
pub(super) struct Commands {
    running: Mutex<Running>,
}

/// Who runs a command.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Their account.
    pub account: BareJid,
    /// Their full JID, as it came.
    pub from: String,
    /// How the XMPP server answered, where it was asked for a test.
    pub ping: Ping,
}

/// What a stage comes to.
#[derive(Debug)]
pub struct Staged {
    /// By which the command waits, or waited.
    pub name: String,
    /// What is to be shown.
    pub shown: Shown,
}

/// What is shown of a command.
#[derive(Debug)]
pub enum Shown {
    /// It waits for its next stage.
    Waiting {
        /// How it goes on.
        onward: Onward,
        /// Whether it also goes back.
        has_prev: bool,
        /// The page that it shows, and words.
        report: Report,
    },
    /// It is over.
    Completed(Report),
    /// The requester left it.
    Cancelled,
}

/// Why there is no next stage.
enum Trouble {
    /// Something that was filled in cannot be taken.
    Wrong(Wrong),
    /// It cannot be done.
    Refused(Refusal),
}

impl From<Wrong> for Trouble {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Operations {
    /// Whether an account may run operators' commands.
    pub fn is_operator(&self, account: &BareJid) -> bool {
        self.service.settings().operators.contains(account)
    }

    /// The commands that `account` may run.
    pub fn commands_of<'a>(
        &'a self,
        account: &'a BareJid,
    ) -> impl Iterator<Item = &'static Command> + 'a {
        let may = |command: &&Command| self.check_command(account, command).is_ok();
        COMMANDS.iter().filter(may)
    }

    /// The command of a node, if `account` may run it. Refuses `UnknownNode`, `NotOperator`, and
    /// `NotAllowed` for who may not ask for slots either.
    pub fn find_command(&self, account: &BareJid, node: &str) -> Result<&'static Command, Refusal> {
        let command = command::find(node).ok_or(Refusal::UnknownNode)?;
        self.check_command(account, command)?;
        Ok(command)
    }

    fn check_command(&self, account: &BareJid, command: &Command) -> Result<(), Refusal> {
        match command.who {
            _ if self.is_operator(account) => Ok(()),
            Who::Operators => Err(Refusal::Command(CommandFault::NotOperator)),
            Who::Everybody => self.service.settings().policy.access.check(account),
        }
    }

    /// Goes on with a command. Refuses as `find_command` and `Running::take` do, and `BadAction`
    /// and `BadPayload` for what does not fit the stage, which then may be tried again.
    ///
    /// What cannot be done, or cannot be taken as it was filled in, is no refusal: the command says
    /// so in words.
    pub async fn step_command(
        self: &Arc<Self>,
        caller: &Caller,
        step: Step,
    ) -> Result<Staged, Refusal> {
        let command = self.find_command(&caller.account, &step.node)?;
        let (name, waiting) = self.take_command(caller, command, &step)?;
        let turn = match &waiting {
            None => Ok(Turn::Go(Vec::new())),
            Some(waiting) => waiting.turn(step.action, step.form.as_ref()),
        };
        let shown = match turn {
            Ok(Turn::Go(answers)) => {
                let advanced = self.advance(caller, command, &answers).await;
                self.staged(&name, waiting, caller, command, answers, advanced)?
            }
            Ok(Turn::Finished) => Shown::Completed(Report::new(command.label)),
            Ok(Turn::Cancelled) => Shown::Cancelled,
            Err(refusal) => {
                if let Some(waiting) = waiting {
                    self.keep_command(&name, waiting)?;
                }
                return Err(refusal);
            }
        };
        Ok(Staged { name, shown })
    }

    /// The command that a stage belongs to; none where it begins.
    fn take_command(
        &self,
        caller: &Caller,
        command: &Command,
        step: &Step,
    ) -> Result<(String, Option<Waiting>), Refusal> {
        match &step.name {
            Some(name) => {
                let now = self.service.world.now();
                let mut running = self.commands.lock();
                let waiting = running.take(name, &caller.from, command.name, now)?;
                Ok((name.clone(), Some(waiting)))
            }
            None if step.action == Action::Execute => {
                Ok((format!("{:032x}", self.service.world.random()), None))
            }
            // There is nothing to go on with, back from or out of.
            None => Err(Refusal::Command(CommandFault::BadAction)),
        }
    }

    fn keep_command(&self, name: &str, waiting: Waiting) -> Result<(), Refusal> {
        let is_operator = self.is_operator(&waiting.account);
        let now = self.service.world.now();
        self.commands
            .lock()
            .put(name.to_owned(), waiting, is_operator, now)
    }

    /// What is next on `answers`: how it goes on, `None` at the end, and what is shown beside.
    async fn advance(
        self: &Arc<Self>,
        caller: &Caller,
        command: &Command,
        answers: &[Values],
    ) -> Result<(Option<Onward>, Report), Trouble> {
        let settings = self.service.settings();
        let asker = Asker {
            account: &caller.account,
            public_url: &settings.public_url,
            ban_policy: &settings.bans,
        };
        let ask = |form: Form, last| match last {
            Last::Yes => Onward::Complete(form),
            Last::No => Onward::Next(form),
        };
        Ok(match (command.next)(&asker, answers)? {
            Next::Ask(form, last) => (Some(ask(form, last)), Report::default()),
            Next::Choose(operation, make, last) => {
                match make(&self.run(caller, operation).await?) {
                    Ok(form) => (Some(ask(form, last)), Report::default()),
                    Err(report) => (None, *report),
                }
            }
            Next::Show(operation) => {
                let found = self.run(caller, operation).await?;
                let onward = match (found.has_more(), answers.is_empty()) {
                    (true, _) => Some(Onward::Page(Values::default())),
                    (false, false) => Some(Onward::LastPage),
                    (false, true) => None,
                };
                (onward, command::report(command.label, &found))
            }
            Next::Run(operation) => {
                let done = self.run(caller, operation).await?;
                (None, command::report(command.label, &done))
            }
        })
    }

    fn staged(
        &self,
        name: &str,
        before: Option<Waiting>,
        caller: &Caller,
        command: &'static Command,
        answers: Vec<Values>,
        advanced: Result<(Option<Onward>, Report), Trouble>,
    ) -> Result<Shown, Refusal> {
        let (waiting, report) = match (advanced, before) {
            (Ok((Some(onward), report)), _) => (
                Waiting {
                    command: command.name,
                    account: caller.account.clone(),
                    from: caller.from.clone(),
                    answers,
                    onward,
                    until: self.service.world.now().plus(WAITS_FOR),
                },
                report,
            ),
            (Ok((None, report)), _) => return Ok(Shown::Completed(report)),
            (Err(Trouble::Wrong(Wrong(words))), Some(before)) => {
                (before, Report::default().note(Tone::Error, words))
            }
            (Err(Trouble::Wrong(Wrong(words))), None) => {
                let report = Report::new(command.label).note(Tone::Error, words);
                return Ok(Shown::Completed(report));
            }
            (Err(Trouble::Refused(refusal)), _) => {
                let report = Report::new(command.label).note(Tone::Error, refusal.words());
                return Ok(Shown::Completed(report));
            }
        };
        let (onward, has_prev) = (waiting.onward.clone(), waiting.has_prev());
        self.keep_command(name, waiting)?;
        Ok(Shown::Waiting {
            onward,
            has_prev,
            report,
        })
    }
}

impl Commands {
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
