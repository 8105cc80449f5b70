//! Commands under way (XEP-0050): who is at which stage of what.
//!
//! Pure: a table of bounded size, and the time as an argument. A command belongs to the full JID
//! that began it. While a stage is being worked on its command is not in the table, so that it
//! cannot be worked on twice.

use std::collections::HashMap;
use std::time::Duration;

use jid::BareJid;

use super::fault::CommandFault;
use super::form::{Form, Submitted, Values};
use super::{NODE, SELF_TEST};
use crate::core::refusal::Refusal;
use crate::core::time::Timestamp;

/// How long a command waits for its next stage.
pub const WAITS_FOR: Duration = Duration::from_secs(600);
/// Commands of one account at a time; with one more, the one that has waited longest ends.
pub const PER_ACCOUNT_MAX: usize = 4;
/// Commands of all accounts at a time; operators' are let in beyond it.
pub const ALL_MAX: usize = 1024;

/// What a requester wants of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To begin, or whatever the stage's usual way on is.
    Execute,
    /// To go on.
    Next,
    /// To go back.
    Prev,
    /// To come to the end.
    Complete,
    /// To leave it.
    Cancel,
}

impl Action {
    /// Reads the attribute; refuses `MalformedAction`.
    pub fn parse(text: Option<&str>) -> Result<Self, Refusal> {
        match text {
            None | Some("execute") => Ok(Self::Execute),
            Some("next") => Ok(Self::Next),
            Some("prev") => Ok(Self::Prev),
            Some("complete") => Ok(Self::Complete),
            Some("cancel") => Ok(Self::Cancel),
            Some(_) => Err(Refusal::Command(CommandFault::MalformedAction)),
        }
    }
}

/// A stage's request, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which command.
    pub node: String,
    /// By which the command waits; `None` where it begins.
    pub name: Option<String>,
    /// What is wanted.
    pub action: Action,
    /// What was filled in.
    pub form: Option<Submitted>,
}

impl Step {
    /// Whether a test of everything begins.
    pub fn is_self_test(&self) -> bool {
        self.name.is_none() && self.node.strip_prefix(NODE) == Some(SELF_TEST)
    }
}

/// The way on from a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Onward {
    /// Its form is sent, and another stage follows.
    Next(Form),
    /// Its form is sent, and the command runs.
    Complete(Form),
    /// It shows a page; another follows, with these values in place of a form's.
    Page(Values),
    /// It shows the last page.
    LastPage,
}

impl Onward {
    /// The same with its form to be mended: what is wrong with it, and what was filled in.
    pub fn to_mend(&self, words: &str, filled: Option<&Values>) -> Self {
        let mend = |form: &Form| form.to_mend(words, filled);
        match self {
            Self::Next(form) => Self::Next(mend(form)),
            Self::Complete(form) => Self::Complete(mend(form)),
            Self::Page(_) | Self::LastPage => self.clone(),
        }
    }
}

/// A command that waits for its next stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which command.
    pub command: &'static str,
    /// Who began it.
    pub account: BareJid,
    /// The full JID that it belongs to, as it came.
    pub from: String,
    /// What came back in the stages before.
    pub answers: Vec<Values>,
    /// How it goes on.
    pub onward: Onward,
    /// Until when it may.
    pub until: Timestamp,
}

/// What a stage's request comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Another stage, or the end, on what came back so far.
    Go(Vec<Values>),
    /// Nothing more.
    Finished,
    /// The requester left.
    Cancelled,
}

impl Waiting {
    /// What `action` with `form` comes to. Refuses `BadAction` for what the stage does not offer,
    /// `BadPayload` for a form that does not fit.
    pub fn turn(&self, action: Action, form: Option<&Submitted>) -> Result<Turn, Refusal> {
        let read = |asked: &Form| match form {
            Some(form) => asked.read(form),
            None => asked.defaults(),
        };
        let go_on = |more: Values| {
            let mut answers = self.answers.clone();
            answers.push(more);
            Ok(Turn::Go(answers))
        };
        match (action, &self.onward) {
            (Action::Cancel, _) => Ok(Turn::Cancelled),
            (Action::Prev, _) => self.back(),
            (Action::Execute | Action::Next, Onward::Next(asked)) => go_on(read(asked)?),
            (Action::Execute | Action::Complete, Onward::Complete(asked)) => go_on(read(asked)?),
            (Action::Execute | Action::Next, Onward::Page(more)) => go_on(more.clone()),
            (Action::Complete, Onward::Page(_)) => Ok(Turn::Finished),
            (Action::Execute | Action::Complete, Onward::LastPage) => Ok(Turn::Finished),
            (Action::Complete, Onward::Next(_))
            | (Action::Next, Onward::Complete(_) | Onward::LastPage) => {
                Err(Refusal::Command(CommandFault::BadAction))
            }
        }
    }

    /// Whether there is a stage before.
    pub fn has_prev(&self) -> bool {
        !self.answers.is_empty()
    }

    fn back(&self) -> Result<Turn, Refusal> {
        match self.answers.split_last() {
            Some((_, before)) => Ok(Turn::Go(before.to_vec())),
            None => Err(Refusal::Command(CommandFault::BadAction)),
        }
    }
}

/// Commands that wait, by their names.
#[derive(Debug, Default)]
pub struct Running {
    waiting: HashMap<String, Waiting>,
}

impl Running {
    /// Takes a command out to go on with it. Refuses `BadSessionId` where there is none of this
    /// name for this requester and command, `CommandExpired` where its time is over.
    pub fn take(
        &mut self,
        name: &str,
        from: &str,
        command: &str,
        now: Timestamp,
    ) -> Result<Waiting, Refusal> {
        let is_theirs = |it: &&Waiting| it.from == from && it.command == command;
        if self.waiting.get(name).filter(is_theirs).is_none() {
            return Err(Refusal::Command(CommandFault::BadSessionId));
        }
        let waiting = self.waiting.remove(name);
        let waiting = waiting.filter(|waiting| now <= waiting.until);
        waiting.ok_or(Refusal::Command(CommandFault::CommandExpired))
    }

    /// Keeps a command until its next stage. Refuses `TooManyCommands` where too many wait.
    pub fn put(
        &mut self,
        name: String,
        waiting: Waiting,
        is_operator: bool,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if ALL_MAX <= self.waiting.len() {
            self.waiting.retain(|_, waiting| now <= waiting.until);
        }
        self.make_room(&waiting.account);
        if ALL_MAX <= self.waiting.len() && !is_operator {
            return Err(Refusal::Command(CommandFault::TooManyCommands));
        }
        self.waiting.insert(name, waiting);
        Ok(())
    }

    /// Ends the commands of an account that have waited longest, until it may have one more.
    fn make_room(&mut self, account: &BareJid) {
        let of_account = self.waiting.iter().filter(|(_, it)| it.account == *account);
        let mut theirs: Vec<_> = of_account
            .map(|(name, it)| (it.until, name.clone()))
            .collect();
        theirs.sort();
        let n_over = (theirs.len() + 1).saturating_sub(PER_ACCOUNT_MAX);
        for (_, name) in theirs.into_iter().take(n_over) {
            self.waiting.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::command::form::{Field, Kind};

    const NOW: Timestamp = Timestamp(1_000_000);
    const FROM: &str = "romeo@example.org/orchard";

    fn asked() -> Form {
        Form {
            fields: vec![Field::new("jid", "Account", Kind::Jid).required()],
            ..Form::default()
        }
    }

    fn filled(value: &str) -> Submitted {
        Submitted::new(vec![("jid".to_owned(), vec![value.to_owned()])]).expect("small")
    }

    fn waiting(onward: Onward) -> Waiting {
        Waiting {
            command: "command",
            account: BareJid::new("romeo@example.org").expect("a JID"),
            from: FROM.to_owned(),
            answers: Vec::new(),
            onward,
            until: NOW.plus(WAITS_FOR),
        }
    }

    #[test]
    fn a_stage_takes_what_it_offers() {
        let next = waiting(Onward::Next(asked()));
        let form = filled("juliet@example.org");
        for action in [Action::Execute, Action::Next] {
            let Ok(Turn::Go(answers)) = next.turn(action, Some(&form)) else {
                panic!("it goes on");
            };
            assert_eq!(answers[0].text("jid"), Some("juliet@example.org"));
        }
        for action in [Action::Complete, Action::Prev] {
            assert_eq!(
                next.turn(action, Some(&form)),
                Err(Refusal::Command(CommandFault::BadAction))
            );
        }
        assert_eq!(
            next.turn(Action::Next, None),
            Err(Refusal::Command(CommandFault::BadPayload))
        );
        assert_eq!(next.turn(Action::Cancel, None), Ok(Turn::Cancelled));
        let last = waiting(Onward::Complete(asked()));
        assert!(last.turn(Action::Complete, Some(&form)).is_ok());
        assert_eq!(
            last.turn(Action::Next, Some(&form)),
            Err(Refusal::Command(CommandFault::BadAction))
        );
    }

    #[test]
    fn pages_go_both_ways_and_end() {
        let mut page = waiting(Onward::Page(Values::default()));
        let Ok(Turn::Go(answers)) = page.turn(Action::Next, None) else {
            panic!("another page");
        };
        page.answers = answers;
        assert_eq!(page.turn(Action::Prev, None), Ok(Turn::Go(Vec::new())));
        assert_eq!(page.turn(Action::Complete, None), Ok(Turn::Finished));
        page.onward = Onward::LastPage;
        assert_eq!(page.turn(Action::Execute, None), Ok(Turn::Finished));
        assert_eq!(
            page.turn(Action::Next, None),
            Err(Refusal::Command(CommandFault::BadAction))
        );
    }

    #[test]
    fn a_command_belongs_to_who_began_it() {
        let mut running = Running::default();
        let kept = waiting(Onward::LastPage);
        let put = running.put("x".to_owned(), kept.clone(), false, NOW);
        assert_eq!(put, Ok(()));
        for (name, from, node) in [
            ("", FROM, "command"),
            ("y", FROM, "command"),
            ("x", "romeo@example.org/garden", "command"),
            ("x", "juliet@example.org/orchard", "command"),
            ("x", FROM, "other"),
        ] {
            let taken = running.take(name, from, node, NOW);
            assert_eq!(taken, Err(Refusal::Command(CommandFault::BadSessionId)));
        }
        assert_eq!(running.take("x", FROM, "command", NOW), Ok(kept));
        let again = running.take("x", FROM, "command", NOW);
        assert_eq!(again, Err(Refusal::Command(CommandFault::BadSessionId)));
    }

    #[test]
    fn a_command_does_not_wait_for_ever() {
        let mut running = Running::default();
        let kept = waiting(Onward::LastPage);
        assert!(running.put("x".to_owned(), kept, false, NOW).is_ok());
        let late = Timestamp(NOW.plus(WAITS_FOR).0 + 1);
        let taken = running.take("x", FROM, "command", late);
        assert_eq!(taken, Err(Refusal::Command(CommandFault::CommandExpired)));
    }

    #[test]
    fn an_account_has_its_newest_commands() {
        let mut running = Running::default();
        for n in 0..=PER_ACCOUNT_MAX as u64 {
            let mut kept = waiting(Onward::LastPage);
            kept.until = Timestamp(NOW.0 + n);
            assert!(running.put(n.to_string(), kept, false, NOW).is_ok());
        }
        assert!(running.take("0", FROM, "command", NOW).is_err());
        assert!(running.take("1", FROM, "command", NOW).is_ok());
    }

    #[test]
    fn a_crowd_does_not_keep_operators_out() {
        let mut running = Running::default();
        let of = |n: usize| Waiting {
            account: BareJid::new(&format!("u{n}@example.org")).expect("a JID"),
            ..waiting(Onward::LastPage)
        };
        for n in 0..ALL_MAX {
            assert!(running.put(n.to_string(), of(n), false, NOW).is_ok());
        }
        let more = |running: &mut Running, is_operator, now| {
            running.put("more".to_owned(), of(ALL_MAX), is_operator, now)
        };
        let refused = more(&mut running, false, NOW);
        assert_eq!(
            refused,
            Err(Refusal::Command(CommandFault::TooManyCommands))
        );
        assert!(more(&mut running, true, NOW).is_ok());
        let later = Timestamp(NOW.plus(WAITS_FOR).0 + 1);
        assert!(more(&mut running, false, later).is_ok());
        assert_eq!(running.waiting.len(), 1);
    }
}
