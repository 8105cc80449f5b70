//! The stages of commands about what operators say: quota exceptions, a note, a user's records.

use bytesize::ByteSize;

use super::flows::{ACCOUNT, account, account_form, run};
use super::form::{Choice, Field, Form, Kind, Report, Tone, Values, Wrong};
use super::operation::{Exception, Operation, Outcome, PAGE_MAX};
use super::report::limit_words;
use super::search::Search;
use super::{Asker, Last, Next};
use crate::core::orders::NOTE_CHARS_MAX;

/// The field that holds a size.
const SIZE: &str = "size";
/// The field that names an exception of a list.
const LISTED: &str = "listed";
/// The field that holds words.
const NOTE: &str = "note";

pub(super) fn export_user(_: &Asker<'_>, answers: &[Values]) -> Result<Next, Wrong> {
    let Some((first, pages)) = answers.split_first() else {
        return Ok(Next::Ask(account_form("Export a user's records"), Last::No));
    };
    Ok(Next::Show(Operation::Records(Search {
        owner: Some(account(first)?),
        skip: pages.len() * PAGE_MAX,
        n_max: PAGE_MAX,
        ..Search::default()
    })))
}

pub(super) fn quota_exceptions(_: &Asker<'_>, answers: &[Values]) -> Result<Next, Wrong> {
    let skip = answers.len() * PAGE_MAX;
    Ok(Next::Show(Operation::Exceptions { skip }))
}

pub(super) fn set_quota(_: &Asker<'_>, answers: &[Values]) -> Result<Next, Wrong> {
    let Some(first) = answers.first() else {
        let form = Form {
            title: "Set a quota exception".to_owned(),
            instructions: "It holds in place of the configuration's, also after a restart."
                .to_owned(),
            fields: vec![
                Field::new(ACCOUNT, "Account or domain", Kind::Jid).required(),
                Field::new(
                    SIZE,
                    "Bytes within the window, such as 10 GiB, or none",
                    Kind::Text,
                )
                .required(),
            ],
        };
        return Ok(Next::Ask(form, Last::Yes));
    };
    let jid = first.jid(ACCOUNT)?;
    let jid = jid.ok_or_else(|| Wrong("An account or a domain is needed".to_owned()))?;
    let read = |text: &str| match text {
        // No limit: more than is ever stored.
        "none" => Some(u64::MAX),
        text => text.parse::<ByteSize>().ok().map(|size| size.as_u64()),
    };
    let limit = first.number(SIZE, "a size such as 10 GiB, or none", read)?;
    let limit = limit.ok_or_else(|| Wrong("A size is needed".to_owned()))?;
    run(Operation::SetException(jid, Some(limit)))
}

pub(super) fn clear_quota(_: &Asker<'_>, answers: &[Values]) -> Result<Next, Wrong> {
    let Some(first) = answers.first() else {
        let all = Operation::Exceptions { skip: 0 };
        return Ok(Next::Choose(all, choose_exception, Last::Yes));
    };
    let jid = match first.jid(ACCOUNT)? {
        Some(jid) => Some(jid),
        None => first.jid(LISTED)?,
    };
    let jid = jid.ok_or_else(|| Wrong("Choose one, or name an account or a domain".to_owned()))?;
    run(Operation::SetException(jid, None))
}

fn choose_exception(found: &Outcome) -> Result<Form, Box<Report>> {
    const TITLE: &str = "Clear a quota exception";
    let exceptions = match found {
        Outcome::Exceptions(exceptions) => exceptions.page.as_slice(),
        _ => &[],
    };
    let choice = |it: &Exception| {
        Choice::new(
            it.jid.to_string(),
            format!("{}: {}", it.jid, limit_words(it.limit)),
        )
    };
    let said = exceptions.iter().filter(|it| it.is_said);
    let choices: Vec<_> = said.map(choice).collect();
    let first = choices.first().map(|choice| choice.value.clone());
    let has_more = matches!(found, Outcome::Exceptions(exceptions) if exceptions.has_more);
    if first.is_none() && !has_more {
        let words = "No command has set a quota exception.";
        return Err(Box::new(Report::new(TITLE).note(Tone::Info, words)));
    }
    let listed = first.map(|first| Field::new(LISTED, "Of", Kind::One(choices)).with(first));
    let named = Field::new(ACCOUNT, "Of this account or domain", Kind::Jid);
    Ok(Form {
        title: TITLE.to_owned(),
        instructions: "Then the configuration's holds again. Not all may be listed.".to_owned(),
        fields: listed.into_iter().chain([named]).collect(),
    })
}

pub(super) fn maintenance_note(_: &Asker<'_>, answers: &[Values]) -> Result<Next, Wrong> {
    let Some(first) = answers.first() else {
        return Ok(Next::Choose(Operation::Note, note_form, Last::Yes));
    };
    let note = first.text(NOTE).unwrap_or_default();
    let note: String = note
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if NOTE_CHARS_MAX < note.chars().count() {
        return Err(Wrong(format!(
            "A note has at most {NOTE_CHARS_MAX} characters"
        )));
    }
    run(Operation::SetNote((!note.is_empty()).then_some(note)))
}

fn note_form(found: &Outcome) -> Result<Form, Box<Report>> {
    let note = match found {
        Outcome::Note(Some(note)) => note.as_str(),
        _ => "",
    };
    Ok(Form {
        title: "Note to everybody".to_owned(),
        instructions: "Whoever is refused a slot while none are given out reads it, and whoever \
                       looks at the service. Leave it empty to take it back."
            .to_owned(),
        fields: vec![Field::new(NOTE, "Note", Kind::Text).with(note)],
    })
}
