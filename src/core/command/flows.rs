//! The commands' stages: what each asks, and what it comes to.

use std::time::Duration;

use super::form::{Choice, Field, Form, Kind, Report, Tone, Values, Wrong};
use super::operation::{CHOICES_MAX, Named, Operation, Outcome, PAGE_MAX, Seen, UploadName};
use super::report::{file_line, seconds_words};
use super::search::{Search, Wanted};
use super::{Asker, Last, Next};
use crate::core::slot::SlotId;

/// The field that names an upload.
const UPLOAD: &str = "upload";
/// The field that names one that is not listed.
const NAMED: &str = "name";
/// The field that names an account.
pub(super) const ACCOUNT: &str = "account";
/// The box to be ticked before something is destroyed.
const CONFIRM: &str = "confirm";

pub(super) fn run(operation: Operation) -> Result<Next, Wrong> {
    Ok(Next::Run(operation))
}

pub(super) fn overview(_: &Asker<'_>, _: &[Values]) -> Result<Next, Wrong> {
    run(Operation::Overview)
}

pub(super) fn my_uploads(asker: &Asker<'_>, answers: &[Values]) -> Result<Next, Wrong> {
    Ok(Next::Show(Operation::Uploads(page_of(
        Search {
            owner: Some(asker.account.clone()),
            ..Search::default()
        },
        answers.len(),
    ))))
}

pub(super) fn my_usage(asker: &Asker<'_>, _: &[Values]) -> Result<Next, Wrong> {
    run(Operation::Usage(asker.account.clone()))
}

pub(super) fn delete_my_upload(asker: &Asker<'_>, answers: &[Values]) -> Result<Next, Wrong> {
    let owner = Some(asker.account.clone());
    let Some((chosen, rest)) = answers.split_first() else {
        let theirs = Search {
            owner,
            n_max: CHOICES_MAX,
            ..Search::default()
        };
        let list = Operation::Uploads(theirs);
        return Ok(Next::Choose(
            list,
            |found| choose("Delete an upload", found),
            Last::No,
        ));
    };
    let sure: Make = |found| confirm_form("Delete this upload?", found);
    if_sure(named(chosen, owner, asker)?, rest, sure, Operation::Delete)
}

pub(super) fn uploads(_: &Asker<'_>, answers: &[Values]) -> Result<Next, Wrong> {
    let Some((filter, pages)) = answers.split_first() else {
        return Ok(Next::Ask(filter_form(), Last::No));
    };
    let whose = filter.jid(ACCOUNT)?;
    let standing = filter.text("state").and_then(Wanted::parse);
    let is_account = whose.as_ref().is_some_and(|jid| jid.node().is_some());
    if standing.is_none() && !is_account {
        let words = "Uploads of any state can be listed of one account: name it, or choose a state";
        return Err(Wrong(words.to_owned()));
    }
    let domain = whose.as_ref().filter(|jid| jid.node().is_none());
    let minutes = |text: &str| {
        text.parse()
            .ok()
            .map(|n: u32| Duration::from_secs(60 * u64::from(n)))
    };
    let search = Search {
        domain: domain.map(|jid| jid.domain().as_str().to_owned()),
        owner: whose.filter(|jid| jid.node().is_some()),
        standing,
        silent_for: filter.number("silent", "a number of minutes", minutes)?,
        older_than: filter.number("age", "a number of minutes", minutes)?,
        ..Search::default()
    };
    Ok(Next::Show(Operation::Uploads(page_of(search, pages.len()))))
}

fn filter_form() -> Form {
    let states = Wanted::ALL.into_iter();
    let states = states.map(|(_, value, label)| Choice::new(value, label));
    let any = Choice::new("any", "Any");
    Form {
        title: "Uploads".to_owned(),
        instructions: "Which uploads? What is left empty does not matter.".to_owned(),
        fields: vec![
            Field::new(
                "state",
                "State",
                Kind::One([any].into_iter().chain(states).collect()),
            )
            .with("open"),
            Field::new(ACCOUNT, "Of this account or domain", Kind::Jid),
            Field::new("silent", "Without a byte for so many minutes", Kind::Text),
            Field::new("age", "Begun so many minutes ago or more", Kind::Text),
        ],
    }
}

pub(super) fn show_upload(asker: &Asker<'_>, answers: &[Values]) -> Result<Next, Wrong> {
    match answers {
        [] => choose_open(|found| choose_or_name("Show an upload", found), Last::Yes),
        [chosen, ..] => run(Operation::Upload(named(chosen, None, asker)?)),
    }
}

pub(super) fn cancel_upload(asker: &Asker<'_>, answers: &[Values]) -> Result<Next, Wrong> {
    let Some((chosen, rest)) = answers.split_first() else {
        return choose_open(|found| choose_or_name("Cancel an upload", found), Last::No);
    };
    let sure: Make = |found| confirm_form("Cancel this upload? What has come of it goes.", found);
    if_sure(named(chosen, None, asker)?, rest, sure, Operation::Cancel)
}

pub(super) fn delete_file(asker: &Asker<'_>, answers: &[Values]) -> Result<Next, Wrong> {
    let Some((chosen, rest)) = answers.split_first() else {
        let form = Form {
            title: "Delete a file".to_owned(),
            instructions: "Its address, or what lists show of it.".to_owned(),
            fields: vec![Field::new(UPLOAD, "File", Kind::Text).required()],
        };
        return Ok(Next::Ask(form, Last::No));
    };
    let sure: Make = |found| confirm_form("Delete this file? Nobody can load it any more.", found);
    if_sure(named(chosen, None, asker)?, rest, sure, Operation::Delete)
}

pub(super) fn user_uploads(_: &Asker<'_>, answers: &[Values]) -> Result<Next, Wrong> {
    let Some((first, pages)) = answers.split_first() else {
        return Ok(Next::Ask(account_form("A user's uploads"), Last::No));
    };
    let theirs = Search {
        owner: Some(account(first)?),
        ..Search::default()
    };
    Ok(Next::Show(Operation::Uploads(page_of(theirs, pages.len()))))
}

pub(super) fn user_usage(_: &Asker<'_>, answers: &[Values]) -> Result<Next, Wrong> {
    match answers {
        [] => Ok(Next::Ask(account_form("A user's usage"), Last::Yes)),
        [first, ..] => run(Operation::Usage(account(first)?)),
    }
}

pub(super) fn purge_user(_: &Asker<'_>, answers: &[Values]) -> Result<Next, Wrong> {
    match answers {
        [] => Ok(Next::Ask(account_form("Purge a user"), Last::No)),
        [first] => Ok(Next::Choose(
            Operation::Usage(account(first)?),
            |found| match found {
                Outcome::Usage(usage) => Ok(confirmation(
                    "Purge this user?",
                    &format!(
                        "{}: {} files, {} open upload sessions. All of it goes for good.",
                        usage.owner, usage.n_files, usage.n_open_sessions
                    ),
                )),
                _ => Err(nothing("Purge a user")),
            },
            Last::Yes,
        )),
        [first, confirmed, ..] => {
            check_confirmed(confirmed)?;
            run(Operation::Purge(account(first)?))
        }
    }
}

pub(super) fn rotate_keys(_: &Asker<'_>, answers: &[Values]) -> Result<Next, Wrong> {
    match answers {
        [] => Ok(Next::Ask(
            confirmation(
                "Rotate the signing keys?",
                "New links are signed with a new key. Links that were given out stay good as long \
                 as keys.keep_old_for says.",
            ),
            Last::Yes,
        )),
        [confirmed, ..] => {
            check_confirmed(confirmed)?;
            run(Operation::RotateKeys)
        }
    }
}

fn page_of(search: Search, n_before: usize) -> Search {
    Search {
        skip: n_before * PAGE_MAX,
        n_max: PAGE_MAX,
        ..search
    }
}

pub(super) fn account_form(title: &str) -> Form {
    Form {
        title: title.to_owned(),
        instructions: "Whose?".to_owned(),
        fields: vec![Field::new(ACCOUNT, "Account", Kind::Jid).required()],
    }
}

pub(super) fn account(values: &Values) -> Result<jid::BareJid, Wrong> {
    let jid = values.jid(ACCOUNT)?;
    let jid = jid.filter(|jid| jid.node().is_some());
    jid.ok_or_else(|| Wrong("An account is needed, such as romeo@example.org".to_owned()))
}

type Make = fn(&Outcome) -> Result<Form, Box<Report>>;

/// One of the open uploads, or any by its name.
fn choose_open(make: Make, last: Last) -> Result<Next, Wrong> {
    let open = Search {
        standing: Some(Wanted::Open),
        n_max: CHOICES_MAX,
        ..Search::default()
    };
    Ok(Next::Choose(Operation::Uploads(open), make, last))
}

/// The same, where one that is not listed can be named; also where none is.
fn choose_or_name(title: &str, found: &Outcome) -> Result<Form, Box<Report>> {
    let listed = choose(title, found)
        .map(|form| form.fields)
        .unwrap_or_default();
    let listed = listed.into_iter().map(|field| Field {
        is_required: false,
        ..field
    });
    let named = Field::new(
        NAMED,
        "Or by its address, or by what tables show of it",
        Kind::Text,
    );
    Ok(Form {
        title: title.to_owned(),
        instructions: "Which one? Listed are those that are not complete.".to_owned(),
        fields: listed.chain([named]).collect(),
    })
}

/// A list of uploads to choose one from.
fn choose(title: &str, found: &Outcome) -> Result<Form, Box<Report>> {
    let Outcome::Uploads(page, _) = found else {
        return Err(nothing(title));
    };
    if page.uploads.is_empty() {
        return Err(nothing(title));
    }
    let choice = |seen: &Seen| Choice::new(seen.row.id.short(), file_line(seen));
    let choices: Vec<_> = page.uploads.iter().map(choice).collect();
    // COMPAT(profanity 0.13): shows choices only where one is made.
    let first = choices[0].value.clone();
    let instructions = match page.has_more {
        true => "Which one? Only the first are listed.",
        false => "Which one?",
    };
    Ok(Form {
        title: title.to_owned(),
        instructions: instructions.to_owned(),
        fields: vec![
            Field::new(UPLOAD, "Upload", Kind::One(choices))
                .required()
                .with(first),
        ],
    })
}

fn nothing(title: &str) -> Box<Report> {
    Box::new(Report::new(title).note(Tone::Info, "There is nothing to choose from."))
}

/// Which upload was chosen, by its short name or its address.
fn named(values: &Values, owner: Option<jid::BareJid>, asker: &Asker<'_>) -> Result<Named, Wrong> {
    let text = values.text(NAMED).or(values.text(UPLOAD));
    let text = text.ok_or_else(|| Wrong("Choose an upload, or name one".to_owned()))?;
    let name = match text.split_once("://") {
        Some(_) => UploadName::Slot(slot_of_url(text, asker.public_url)?),
        // Nothing else, which may be half a link, gets into the log.
        None if SlotId::first_of_short(text).is_some() => UploadName::Short(text.to_owned()),
        None => {
            let words = "Name an upload by its address, or by what tables show of it";
            return Err(Wrong(words.to_owned()));
        }
    };
    Ok(Named { name, owner })
}

fn slot_of_url(url: &str, public_url: &str) -> Result<SlotId, Wrong> {
    let path = url.strip_prefix(public_url);
    let path =
        path.ok_or_else(|| Wrong(format!("Addresses of files here begin with {public_url}")))?;
    let id = path
        .strip_prefix("f/")
        .and_then(|rest| rest.split('/').next());
    let id = id.and_then(SlotId::parse);
    id.ok_or_else(|| Wrong("This is not the address of a file".to_owned()))
}

/// What destroys an upload, once it was confirmed in `rest`.
fn if_sure(
    named: Named,
    rest: &[Values],
    sure: Make,
    act: fn(Named) -> Operation,
) -> Result<Next, Wrong> {
    let Some(confirmed) = rest.first() else {
        return Ok(Next::Choose(Operation::Upload(named), sure, Last::Yes));
    };
    check_confirmed(confirmed)?;
    run(act(named))
}

fn confirm_form(question: &str, found: &Outcome) -> Result<Form, Box<Report>> {
    match found {
        Outcome::Upload(seen, now) => {
            let age = seconds_words(now.since(seen.row.created_at));
            let line = format!("{}, {} old", file_line(seen), age);
            Ok(confirmation(question, &line))
        }
        _ => Err(nothing(question)),
    }
}

fn confirmation(question: &str, facts: &str) -> Form {
    Form {
        title: question.to_owned(),
        instructions: facts.to_owned(),
        fields: vec![Field::new(CONFIRM, "Yes", Kind::Flag).with("0")],
    }
}

fn check_confirmed(values: &Values) -> Result<(), Wrong> {
    match values.is_set(CONFIRM) {
        true => Ok(()),
        false => Err(Wrong(
            "Nothing was done: tick the box to confirm".to_owned(),
        )),
    }
}
