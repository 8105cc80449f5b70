//! Data forms on the wire (XEP-0004). `xmpp_parsers::data_forms` knows no tables.

use minidom::Element;
use minidom::rxml::xml_ncname;

use crate::core::command::form::{Choice, Field, Form, Kind, Report, Submitted, Table};
use crate::core::refusal::Refusal;

/// The namespace of data forms.
pub const NS: &str = "jabber:x:data";

/// Fields that only show something: with the next page's request they come back, as they are or as
/// one long line, and nobody reads them.
const SHOWN: [&str; 2] = ["table", "records"];

/// What stands between the cells of a row.
const BETWEEN: &str = " | ";

/// Reads a form that came back; refuses `BadPayload` for one that is too large.
///
/// None for one that was not filled in, such as a table sent back with the next page's request.
/// What a client sends to leave a form is read as if it had been filled in: XEP-0050 has actions
/// for leaving.
pub fn submitted(form: &Element) -> Result<Option<Submitted>, Refusal> {
    if !matches!(form.attr("type"), Some("submit" | "cancel")) {
        return Ok(None);
    }
    let fields = form.children().filter(|child| child.is("field", NS));
    let is_shown = |field: &&Element| SHOWN.iter().any(|name| field.attr("var") == Some(name));
    let fields = fields.filter(|field| !is_shown(field));
    let read = |field: &Element| {
        let values = field.children().filter(|child| child.is("value", NS));
        let name = field.attr("var")?.to_owned();
        Some((name, values.map(Element::text).collect()))
    };
    Submitted::new(fields.filter_map(read).collect()).map(Some)
}

/// `<x type='form'/>`
pub fn form(form: &Form) -> Element {
    begin("form", &form.title)
        .append_all(words("instructions", &form.instructions))
        .append_all(form.fields.iter().map(field))
        .build()
}

/// `<x type='result'/>`; `None` where there is nothing to show.
pub fn result(report: &Report) -> Option<Element> {
    if report.facts.is_empty() && report.table.is_none() {
        return None;
    }
    let form = begin("result", &report.title).append_all(report.facts.iter().map(fact));
    let form = match &report.table {
        // COMPAT(profanity 0.13): shows fields alone, no tables.
        Some(table) => form
            .append(fact(&("table", "Table", table.lines())))
            .append(reported(table))
            .append_all(items(table)),
        None => form,
    };
    Some(form.build())
}

/// A page that is not the only one, each row of its table a field; `None` where nothing is to be
/// shown.
///
/// COMPAT(Converse.js 14): of a table it shows nothing once a form was filled in, and of a long
/// text two lines. COMPAT(profanity 0.13): shows no result before the last. A form they all show.
pub fn page(report: &Report) -> Option<Element> {
    if report.facts.is_empty() && report.table.is_none() {
        return None;
    }
    let table = report.table.iter();
    let heads = table.clone().map(|table| {
        let labels: Vec<_> = table.columns.iter().map(|(_, label)| *label).collect();
        labels.join(BETWEEN)
    });
    let rows = table.flat_map(|table| &table.rows).enumerate();
    let row = |(n, cells): (usize, &Vec<String>)| {
        let (first, rest) = cells.split_first()?;
        let field = named(
            "field",
            &format!("row-{n}"),
            Some(first),
            Some("text-single"),
        );
        Some(field.append(value(rest.join(BETWEEN))).build())
    };
    let form = begin("form", &report.title)
        .append_all(heads.filter_map(|heads| words("instructions", &heads)))
        .append_all(report.facts.iter().map(fact))
        .append_all(rows.filter_map(row));
    Some(form.build())
}

fn fact((name, label, values): &(&str, &str, Vec<String>)) -> Element {
    let kind = match (values.len(), SHOWN.contains(name)) {
        (1, false) => "text-single",
        _ => "text-multi",
    };
    named("field", name, Some(label), Some(kind))
        .append_all(values.iter().map(value))
        .build()
}

fn begin(kind: &str, title: &str) -> minidom::element::ElementBuilder {
    let form = Element::builder("x", NS).attr(xml_ncname!("type").to_owned(), kind);
    form.append_all(words("title", title))
}

fn words(name: &str, words: &str) -> Option<Element> {
    let element = Element::builder(name, NS).append(words);
    (!words.is_empty()).then(|| element.build())
}

fn named(
    element: &str,
    name: &str,
    label: Option<&str>,
    kind: Option<&str>,
) -> minidom::element::ElementBuilder {
    Element::builder(element, NS)
        .attr(
            xml_ncname!("var").to_owned(),
            (!name.is_empty()).then_some(name),
        )
        .attr(
            xml_ncname!("label").to_owned(),
            label.filter(|label| !label.is_empty()),
        )
        .attr(xml_ncname!("type").to_owned(), kind)
}

fn field(field: &Field) -> Element {
    let kind = match field.kind {
        Kind::Text => "text-single",
        Kind::Jid => "jid-single",
        Kind::Flag => "boolean",
        Kind::One(_) => "list-single",
    };
    let choices: &[Choice] = match &field.kind {
        Kind::One(choices) => choices,
        _ => &[],
    };
    let option = |choice: &Choice| {
        let option = Element::builder("option", NS);
        let option = option.attr(xml_ncname!("label").to_owned(), choice.label.as_str());
        option.append(value(&choice.value)).build()
    };
    named("field", field.name, Some(&field.label), Some(kind))
        .append_all(field.is_required.then(|| Element::bare("required", NS)))
        .append_all(field.values.iter().map(value))
        .append_all(choices.iter().map(option))
        .build()
}

fn value(text: impl AsRef<str>) -> Element {
    Element::builder("value", NS).append(text.as_ref()).build()
}

fn reported(table: &Table) -> Element {
    let column = |(name, label): &(&str, &str)| {
        named("field", name, Some(label), Some("text-single")).build()
    };
    let reported = Element::builder("reported", NS);
    reported
        .append_all(table.columns.iter().map(column))
        .build()
}

fn items(table: &Table) -> impl Iterator<Item = Element> {
    table.rows.iter().map(|row| {
        let cells = table.columns.iter().zip(row);
        let cell = |((name, _), text): (&(&str, &str), &String)| {
            named("field", name, None, None).append(value(text)).build()
        };
        Element::builder("item", NS)
            .append_all(cells.map(cell))
            .build()
    })
}
