//! Ad-hoc commands on the wire (XEP-0050).

use minidom::Element;
use minidom::element::ElementBuilder;
use minidom::rxml::xml_ncname;

use super::forms;
use crate::core::command::fault::CommandFault;
use crate::core::command::form::{Report, Tone};
use crate::core::command::running::{Action, Onward, Step};
use crate::core::refusal::Refusal;
use crate::service::command::{Shown, Staged};

/// The namespace of ad-hoc commands, and the node that lists them.
pub const NS: &str = "http://jabber.org/protocol/commands";

/// Reads `<command/>`. Refuses `UnknownNode` without a node, `MalformedAction`, `BadPayload`.
pub fn step(command: &Element) -> Result<Step, Refusal> {
    let node = command.attr("node").ok_or(Refusal::UnknownNode)?;
    let action = Action::parse(command.attr("action"))?;
    let mut forms = command.children().filter(|child| child.is("x", forms::NS));
    let form = match (action, forms.next(), forms.next()) {
        // Nobody looks at what was filled in.
        (Action::Cancel | Action::Prev, ..) | (_, None, _) => None,
        (_, Some(form), None) => forms::submitted(form)?,
        (_, _, Some(_)) => return Err(Refusal::Command(CommandFault::BadPayload)),
    };
    Ok(Step {
        node: node.to_owned(),
        name: command.attr("sessionid").map(str::to_owned),
        action,
        form,
    })
}

/// `<command/>` of an answer.
pub fn staged(node: &str, staged: Staged) -> Element {
    let begin = |status: &str| {
        Element::builder("command", NS)
            .attr(xml_ncname!("node").to_owned(), node)
            .attr(xml_ncname!("sessionid").to_owned(), staged.name.as_str())
            .attr(xml_ncname!("status").to_owned(), status)
    };
    match &staged.shown {
        Shown::Cancelled => begin("canceled").build(),
        Shown::Completed(report) => with_report(begin("completed"), report).build(),
        Shown::Waiting {
            onward,
            has_prev,
            report,
        } => {
            let command = begin("executing").append(actions(onward, *has_prev));
            let command = match onward {
                Onward::Next(form) | Onward::Complete(form) => command.append(forms::form(form)),
                Onward::Page(_) | Onward::LastPage => command.append_all(forms::page(report)),
            };
            with_notes(command, report).build()
        }
    }
}

/// What the requester may do next; what they do where they do not say is named as well, since a
/// stage without either would be invalid.
fn actions(onward: &Onward, has_prev: bool) -> Element {
    let (usual, others): (&str, &[&str]) = match onward {
        Onward::Next(_) => ("next", &[]),
        Onward::Page(_) => ("next", &["complete"]),
        Onward::Complete(_) | Onward::LastPage => ("complete", &[]),
    };
    let prev = has_prev.then_some("prev");
    let names = prev
        .into_iter()
        .chain([usual])
        .chain(others.iter().copied());
    Element::builder("actions", NS)
        .attr(xml_ncname!("execute").to_owned(), usual)
        .append_all(names.map(|name| Element::bare(name, NS)))
        .build()
}

fn with_report(command: ElementBuilder, report: &Report) -> ElementBuilder {
    with_notes(command.append_all(forms::result(report)), report)
}

fn with_notes(command: ElementBuilder, report: &Report) -> ElementBuilder {
    let note = |(tone, words): &(Tone, String)| {
        let tone = match tone {
            Tone::Info => "info",
            Tone::Warn => "warn",
            Tone::Error => "error",
        };
        let note = Element::builder("note", NS).attr(xml_ncname!("type").to_owned(), tone);
        note.append(words.as_str()).build()
    };
    command.append_all(report.notes.iter().map(note))
}
