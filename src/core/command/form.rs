//! Data forms as values (XEP-0004): what a command asks for, what comes back, and tables.
//!
//! Names of fields and values of choices are for programs and never change with the language;
//! labels are for people. What comes back is held against what was asked: a form that does not fit
//! is refused before anybody looks at its values.

use jid::BareJid;

use crate::core::command::fault::CommandFault;
use crate::core::refusal::Refusal;

/// The most fields that a form may come back with; no form of ours asks for half as many.
pub const FIELDS_MAX: usize = 64;
/// The most values of one field.
pub const VALUES_MAX: usize = 256;
/// The longest value, in bytes: room for the longest JID.
pub const VALUE_BYTES_MAX: usize = 3071;

/// A form to be filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// What it is about.
    pub title: String,
    /// What to do with it.
    pub instructions: String,
    /// In the order in which they are shown.
    pub fields: Vec<Field>,
}

/// A field of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// By which it comes back.
    pub name: &'static str,
    /// What people read.
    pub label: String,
    /// What may be in it.
    pub kind: Kind,
    /// Whether it has to be filled in.
    pub is_required: bool,
    /// What is in it before anybody wrote.
    pub values: Vec<String>,
}

/// What a field may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One line of text.
    Text,
    /// One JID.
    Jid,
    /// Yes or no.
    Flag,
    /// One of these.
    One(Vec<Choice>),
}

/// One thing that can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What comes back.
    pub value: String,
    /// What people read.
    pub label: String,
}

impl Choice {
    /// A choice of `value`, shown as `label`.
    pub fn new(value: impl Into<String>, label: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            label: label.into(),
        }
    }
}

impl Field {
    /// A field that may stay empty.
    pub fn new(name: &'static str, label: impl Into<String>, kind: Kind) -> Self {
        Self {
            name,
            label: label.into(),
            kind,
            is_required: false,
            values: Vec::new(),
        }
    }

    /// The same field, to be filled in.
    pub fn required(self) -> Self {
        Self {
            is_required: true,
            ..self
        }
    }

    /// The same field with something in it.
    pub fn with(self, value: impl Into<String>) -> Self {
        Self {
            values: vec![value.into()],
            ..self
        }
    }

    /// Refuses `BadPayload` for values that cannot be this field's.
    fn check(&self, values: &[String]) -> Result<(), Refusal> {
        let is_empty = values.iter().all(String::is_empty);
        if 1 < values.len() || self.is_required && is_empty {
            return Err(Refusal::Command(CommandFault::BadPayload));
        }
        let fits = |value: &String| match &self.kind {
            Kind::Flag => flag(value).is_some(),
            Kind::One(choices) => {
                value.is_empty() || choices.iter().any(|choice| choice.value == *value)
            }
            Kind::Text | Kind::Jid => true,
        };
        match values.iter().all(fits) {
            true => Ok(()),
            false => Err(Refusal::Command(CommandFault::BadPayload)),
        }
    }
}

impl Form {
    /// What came back, held against what was asked: refuses `BadPayload` for a field that is
    /// missing, comes twice, or has values that it cannot have. Fields that nobody asked for are
    /// ignored: clients add `FORM_TYPE` and others.
    pub fn read(&self, submitted: &Submitted) -> Result<Values, Refusal> {
        let mut values = Vec::new();
        for field in &self.fields {
            let mut named = submitted.0.iter().filter(|(name, _)| name == field.name);
            let got = named.next().map(|(_, values)| values.as_slice());
            if named.next().is_some() {
                return Err(Refusal::Command(CommandFault::BadPayload));
            }
            field.check(got.unwrap_or_default())?;
            let got = got.unwrap_or_default().iter();
            let filled = got.filter(|value| !value.is_empty()).cloned();
            values.push((field.name, filled.collect()));
        }
        Ok(Values(values))
    }

    /// What the form says before anybody wrote: what a step without a form means.
    pub fn defaults(&self) -> Result<Values, Refusal> {
        let filled = self.fields.iter();
        let filled = filled.map(|field| (field.name.to_owned(), field.values.clone()));
        self.read(&Submitted::new(filled.collect())?)
    }
}

/// A form as it came back, of bounded size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Submitted(Vec<(String, Vec<String>)>);

impl Submitted {
    /// Fields by name; refuses `BadPayload` for too many or too long ones.
    pub fn new(fields: Vec<(String, Vec<String>)>) -> Result<Self, Refusal> {
        let is_short = |value: &String| value.len() <= VALUE_BYTES_MAX;
        let fits = |(name, values): &(String, Vec<String>)| {
            is_short(name) && values.len() <= VALUES_MAX && values.iter().all(is_short)
        };
        match fields.len() <= FIELDS_MAX && fields.iter().all(fits) {
            true => Ok(Self(fields)),
            false => Err(Refusal::Command(CommandFault::BadPayload)),
        }
    }
}

/// What a form that fits came back with. Values are still anybody's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values(Vec<(&'static str, Vec<String>)>);

/// A value that cannot be taken: a sentence for who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong(pub String);

impl Values {
    /// All values of a field.
    pub fn all(&self, name: &str) -> &[String] {
        let found = self.0.iter().find(|(it, _)| *it == name);
        found.map_or(&[], |(_, values)| values.as_slice())
    }

    /// The value of a field, where it has one.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.all(name).first().map(|value| value.trim())
    }

    /// Whether a box was ticked.
    pub fn is_set(&self, name: &str) -> bool {
        self.text(name).and_then(flag) == Some(true)
    }

    /// An account, or a domain where no account is named.
    pub fn jid(&self, name: &str) -> Result<Option<BareJid>, Wrong> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let jid = BareJid::new(text);
        jid.map(Some)
            .map_err(|e| Wrong(format!("{:?} is no JID: {e}", shortened(text))))
    }

    /// A whole number of the units that `read` knows.
    pub fn number<T>(
        &self,
        name: &str,
        what: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Wrong> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let wrong = || Wrong(format!("{:?} is not {what}", shortened(text)));
        read(text).map(Some).ok_or_else(wrong)
    }
}

/// What XEP-0004 takes for a boolean.
fn flag(text: &str) -> Option<bool> {
    match text.trim() {
        "1" | "true" => Some(true),
        "" | "0" | "false" => Some(false),
        _ => None,
    }
}

/// The beginning of what somebody wrote, to show it to them again.
pub(in crate::core) fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut short: String = text.chars().take(CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('\u{2026}');
    }
    short
}

/// Rows under named columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Each column's name, and what people read above it.
    pub columns: Vec<(&'static str, &'static str)>,
    /// As many cells in each as there are columns.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// The table as lines of text, heads first: for clients that show no tables.
    pub fn lines(&self) -> Vec<String> {
        let heads = self.columns.iter().map(|(_, label)| (*label).to_owned());
        let mut rows = vec![heads.collect::<Vec<_>>()];
        rows.extend(self.rows.iter().cloned());
        let width = |at: usize| {
            let cells = rows.iter().filter_map(|row| row.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths);
            let cells = cells.map(|(cell, width)| format!("{cell:width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            line.trim_end().to_owned()
        };
        rows.iter().map(line).collect()
    }
}

/// How a note is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// All is well.
    Info,
    /// Done, but look.
    Warn,
    /// Not done.
    Error,
}

/// What is shown when a command has run: facts or a table, and words. Never both: clients show of
/// a form with a table nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What it is about.
    pub title: String,
    /// Facts: name, label, values.
    pub facts: Vec<(&'static str, &'static str, Vec<String>)>,
    /// Rows, where there are some.
    pub table: Option<Table>,
    /// What is to be said beside.
    pub notes: Vec<(Tone, String)>,
}

impl Report {
    /// A report about `title`.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            ..Self::default()
        }
    }

    /// The same with a fact.
    pub fn fact(
        mut self,
        name: &'static str,
        label: &'static str,
        value: impl Into<String>,
    ) -> Self {
        self.facts.push((name, label, vec![value.into()]));
        self
    }

    /// The same with words.
    pub fn note(mut self, tone: Tone, words: impl Into<String>) -> Self {
        self.notes.push((tone, words.into()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_can_be_read_as_text() {
        let table = Table {
            columns: vec![("file", "File"), ("size", "Size")],
            rows: vec![
                vec!["caf\u{e9}.jpg".to_owned(), "1 B".to_owned()],
                vec!["b".to_owned(), "10 B".to_owned()],
            ],
        };
        let lines = ["File      Size", "caf\u{e9}.jpg  1 B", "b         10 B"];
        assert_eq!(table.lines(), lines);
    }
}
