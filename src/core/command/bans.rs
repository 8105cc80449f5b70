//! The operators' commands about bans: to ban somebody, to end a ban, to see all.

use std::time::Duration;

use super::flows::run;
use super::form::{Choice, Field, Form, Kind, Report, Table, Tone, Values, Wrong, shortened};
use super::operation::{CHOICES_MAX, Operation, Outcome, PAGE_MAX};
use super::{Asker, Last, Next};
use crate::core::bans::{Ban, BanWish, Subject};
use crate::core::time::Timestamp;

/// The field that names who is banned.
const WHO: &str = "who";
/// The field that names somebody who is not listed.
const NAMED: &str = "name";
/// The field that says for how long.
const BAN_FOR: &str = "for";
/// The field that says why.
const WHY: &str = "why";
/// For how long: without end.
const FOREVER: &str = "forever";
/// The longest ban that has an end: who wants more wants it for ever.
const BAN_FOR_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A part of the bans that are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BanPage {
    /// How many come before it.
    pub skip: usize,
    /// How many are wanted.
    pub n_max: usize,
}

/// The same as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BansFound {
    /// The newest first.
    pub bans: Vec<Ban>,
    /// Whether others follow.
    pub has_more: bool,
}

/// What became of a change to the bans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BanChange {
    /// Somebody is banned; whether a restart will know of it.
    Banned(Ban, bool),
    /// Somebody is not banned any more; whether a restart will know of it.
    Unbanned(Ban, bool),
    /// There was no such ban.
    NoBan(Subject),
    /// It cannot be: the words say why.
    Refused(Wrong),
}

pub(super) fn ban(asker: &Asker<'_>, answers: &[Values]) -> Result<Next, Wrong> {
    let Some(filled) = answers.first() else {
        return Ok(Next::Ask(ban_form(), Last::Yes));
    };
    let subject = Subject::parse(filled.text(WHO).unwrap_or_default())?;
    asker.ban_policy.check(&subject)?;
    run(Operation::Ban(BanWish {
        subject,
        ban_for: ban_for(filled.text(BAN_FOR).unwrap_or_default())?,
        reason: filled.text(WHY).unwrap_or_default().to_owned(),
        by: asker.account.clone(),
    }))
}

fn ban_form() -> Form {
    Form {
        title: "Ban".to_owned(),
        instructions: "An account or a domain gets no slots, an address or a network nothing at \
                       all. Examples: romeo@example.org, example.org, 192.0.2.7, 2001:db8::/48. \
                       Of IPv6 a whole /64 is banned."
            .to_owned(),
        fields: vec![
            Field::new(WHO, "Account, domain, address or network", Kind::Text).required(),
            Field::new(
                BAN_FOR,
                "For how long (2 hours, 30 days, forever)",
                Kind::Text,
            )
            .required()
            .with("1 day"),
            Field::new(WHY, "Why", Kind::Text).required(),
        ],
    }
}

/// For how long; `None` is for ever.
fn ban_for(text: &str) -> Result<Option<Duration>, Wrong> {
    if text.eq_ignore_ascii_case(FOREVER) {
        return Ok(None);
    }
    let read = humantime::parse_duration(text).ok();
    match read.filter(|ban_for| (1..=BAN_FOR_MAX.as_secs()).contains(&ban_for.as_secs())) {
        Some(ban_for) => Ok(Some(ban_for)),
        None => Err(Wrong(format!(
            "{:?} is no time to ban for: try \"2 hours\", \"30 days\" or \"{FOREVER}\"",
            shortened(text)
        ))),
    }
}

pub(super) fn unban(asker: &Asker<'_>, answers: &[Values]) -> Result<Next, Wrong> {
    let Some(chosen) = answers.first() else {
        let page = BanPage {
            skip: 0,
            n_max: CHOICES_MAX,
        };
        return Ok(Next::Choose(Operation::Bans(page), unban_form, Last::Yes));
    };
    let text = chosen.text(NAMED).or(chosen.text(WHO));
    let text = text.ok_or_else(|| Wrong("Choose somebody, or name them".to_owned()))?;
    run(Operation::Unban(
        Subject::parse(text)?,
        asker.account.clone(),
    ))
}

fn unban_form(found: &Outcome) -> Result<Form, Box<Report>> {
    let nothing = || Box::new(Report::new("Unban").note(Tone::Info, "Nobody is banned"));
    let Outcome::Bans(found, now) = found else {
        return Err(nothing());
    };
    let choice = |ban: &Ban| {
        let who = ban.subject.to_string();
        let label = format!("{who}, {}, {}", until(ban, *now), ban.reason);
        Choice::new(who, label)
    };
    let choices: Vec<_> = found.bans.iter().map(choice).collect();
    // COMPAT(profanity 0.13): shows choices only where one is made.
    let first = choices.first().map(|choice| choice.value.clone());
    let first = first.ok_or_else(nothing)?;
    let mut fields = vec![Field::new(WHO, "Banned", Kind::One(choices)).with(first)];
    if found.has_more {
        let label = "Or one that is not listed";
        fields.push(Field::new(NAMED, label, Kind::Text));
    }
    Ok(Form {
        title: "Unban".to_owned(),
        instructions: "Whose ban shall end?".to_owned(),
        fields,
    })
}

pub(super) fn bans(_: &Asker<'_>, answers: &[Values]) -> Result<Next, Wrong> {
    Ok(Next::Show(Operation::Bans(BanPage {
        skip: answers.len() * PAGE_MAX,
        n_max: PAGE_MAX,
    })))
}

pub(super) fn bans_of(report: Report, found: &BansFound, now: Timestamp) -> Report {
    if found.bans.is_empty() {
        return report.note(Tone::Info, "Nobody is banned");
    }
    let columns = vec![
        ("who", "Banned"),
        ("why", "Why"),
        ("by", "By"),
        ("since", "Since"),
        ("until", "Until"),
    ];
    let row = |ban: &Ban| {
        vec![
            ban.subject.to_string(),
            ban.reason.clone(),
            ban.by.to_string(),
            ban.at.to_xep0082(),
            until(ban, now),
        ]
    };
    Report {
        table: Some(Table {
            columns,
            rows: found.bans.iter().map(row).collect(),
        }),
        ..report
    }
}

pub(super) fn change_of(report: Report, change: &BanChange, now: Timestamp) -> Report {
    let (report, is_kept) = match change {
        BanChange::Banned(ban, is_kept) => {
            let words = format!("Banned {}: {}", until(ban, now), ban.subject);
            (report.note(Tone::Info, words), *is_kept)
        }
        BanChange::Unbanned(ban, is_kept) => {
            let words = format!("Not banned any more: {}", ban.subject);
            (report.note(Tone::Info, words), *is_kept)
        }
        BanChange::NoBan(subject) => {
            let words = format!("There is no ban of {subject}");
            (report.note(Tone::Error, words), true)
        }
        BanChange::Refused(Wrong(words)) => (report.note(Tone::Error, words), true),
    };
    match is_kept {
        true => report,
        false => report.note(
            Tone::Warn,
            "It could not be written down yet, the log says why; a restart now would forget it",
        ),
    }
}

fn until(ban: &Ban, now: Timestamp) -> String {
    match ban.until {
        Some(until) => format!("until {} ({})", until.to_xep0082(), left(until, now)),
        None => "for ever".to_owned(),
    }
}

fn left(until: Timestamp, now: Timestamp) -> String {
    super::report::seconds_words(until.since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        let hours = |n: u64| Ok(Some(Duration::from_secs(n * 3600)));
        assert_eq!(ban_for("2 hours"), hours(2));
        assert_eq!(ban_for("1 day 1h"), hours(25));
        assert_eq!(ban_for("Forever"), Ok(None));
        let wrong = [
            "",
            "0 s",
            "-1 h",
            "1",
            "abc",
            "11 years",
            "10000000000000 years",
            "1.5",
        ];
        for text in wrong {
            let Err(Wrong(words)) = ban_for(text) else {
                panic!("{text:?} is a time");
            };
            assert!(words.contains("try \"2 hours\""), "{words}");
        }
    }
}
