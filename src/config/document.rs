//! The text of a configuration file: reads it into `RawConfig` and finds the line of a key.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use super::error::{Fault, Key, Problem, Step};
use super::raw::RawConfig;

/// A key is offered in place of an unknown one when it is at least this similar (Jaro-Winkler).
const SIMILARITY_MIN: f64 = 0.75;

/// A file of good syntax.
pub struct Document<'t> {
    text: &'t str,
    table: DeTable<'t>,
    span: Range<usize>,
}

impl<'t> Document<'t> {
    /// Reads the syntax alone.
    pub fn parse(text: &'t str) -> Result<Self, Fault> {
        match DeTable::parse(text) {
            Ok(table) => Ok(Self {
                text,
                span: table.span(),
                table: table.into_inner(),
            }),
            Err(error) => Err(syntax_fault(text, &error)),
        }
    }

    /// Reads keys and types.
    pub fn read(&self) -> Result<RawConfig, Fault> {
        let table = Spanned::new(self.span.clone(), self.table.clone());
        RawConfig::deserialize(Deserializer::from(table)).map_err(|error| self.type_fault(&error))
    }

    /// The line of `key`; of the nearest table around it where it was not written.
    pub fn line_of(&self, key: &Key) -> usize {
        let mut at = 0;
        let mut value: Option<&DeValue<'_>> = None;
        for step in &key.0 {
            let next = match (step, value) {
                (Step::Name(name), None) => entry(&self.table, name),
                (Step::Name(name), Some(DeValue::Table(table))) => entry(table, name),
                // The only table where an array was possible: `[component]`.
                (Step::Index(_), Some(DeValue::Table(_))) => continue,
                (Step::Index(index), Some(DeValue::Array(array))) => {
                    array.get(*index).map(|item| (item.span(), item.get_ref()))
                }
                _ => None,
            };
            let Some((span, inner)) = next else { break };
            at = span.start;
            value = Some(inner);
        }
        line_at(self.text.as_bytes(), at)
    }

    fn type_fault(&self, error: &Error) -> Fault {
        let span = error.span().unwrap_or(0..0);
        let unknown = error.message().strip_prefix("unknown field ");
        let (key, found) = find(&self.table, &span).unwrap_or_default();
        let problem = match unknown {
            Some(rest) => unknown_key(key.option(), rest),
            None => wrong_type(found, error.message()),
        };
        Fault {
            line: Some(line_at(self.text.as_bytes(), span.start)),
            key,
            problem,
        }
    }
}

/// Where the key `name` of `table` stands, and its value.
fn entry<'a, 't>(table: &'a DeTable<'t>, name: &str) -> Option<(Range<usize>, &'a DeValue<'t>)> {
    let (key, value) = table.get_key_value(name)?;
    Some((key.span(), value.get_ref()))
}

/// The key whose name or value stands at `span`, and what kind of value it has.
fn find(table: &DeTable<'_>, span: &Range<usize>) -> Option<(Key, &'static str)> {
    table.iter().find_map(|(name, value)| {
        let key = Key::default().name(name.get_ref());
        if name.span() == *span {
            return Some((key, value.get_ref().type_str()));
        }
        find_in_value(&key, value, span)
    })
}

fn find_in_value(
    key: &Key,
    value: &Spanned<DeValue<'_>>,
    span: &Range<usize>,
) -> Option<(Key, &'static str)> {
    let inner = match value.get_ref() {
        DeValue::Table(table) => find(table, span).map(|(below, found)| {
            let steps = key.0.iter().cloned().chain(below.0).collect();
            (Key(steps), found)
        }),
        DeValue::Array(array) => array
            .iter()
            .enumerate()
            .find_map(|(index, item)| find_in_value(&key.index(index), item, span)),
        _ => None,
    };
    let here = || (value.span() == *span).then(|| (key.clone(), value.get_ref().type_str()));
    inner.or_else(here)
}

/// An unknown key; `rest` is serde's "`foo`, expected one of `a`, `b`".
fn unknown_key(name: &str, rest: &str) -> Problem {
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).skip(1).collect();
    let similarity = |key: &&&str| (strsim::jaro_winkler(name, key) * 1000.0) as u64;
    let nearest = known.iter().max_by_key(similarity);
    let remedy = match nearest {
        Some(key) if SIMILARITY_MIN <= strsim::jaro_winkler(name, key) => {
            format!("did you mean \"{key}\"?")
        }
        _ => format!("known here: {}", known.join(", ")),
    };
    Problem::new("unknown key", remedy)
}

/// A value of the wrong type. Shows no value: it may be a secret.
fn wrong_type(found: &str, message: &str) -> Problem {
    let expected = message.rsplit_once(", expected ").map_or("", |(_, it)| it);
    let (expected, remedy) = match expected {
        "a string" => ("a string", "put the value in quotes"),
        "a boolean" => ("a boolean", "write true or false, without quotes"),
        "i64" => ("a number", "write a whole number, without quotes"),
        "a sequence" => ("a list", "put the value in brackets: [\"...\"]"),
        _ => ("a table", "write its keys under a [header]"),
    };
    let found = match found {
        "array" => "list",
        "integer" | "float" => "number",
        other => other,
    };
    let what = match (expected, found) {
        ("a number", "number") => "is not a whole number that fits".to_owned(),
        _ => format!("is a {found}, not {expected}"),
    };
    Problem::new(what, remedy)
}

fn syntax_fault(text: &str, error: &Error) -> Fault {
    let span = error.span().unwrap_or(text.len()..text.len());
    let at = span.start.min(text.len());
    let line_start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let line = text[line_start..].lines().next().unwrap_or("");
    let key = match at < text.len() {
        true => key_on_line(&text[..line_start], line),
        // Something was not closed, anywhere before.
        false => Key::default(),
    };
    let problem = if error.message().starts_with("duplicate key") {
        Problem::new("is written twice", "keep one of the two")
    } else {
        let remedy = "strings and units in quotes, lists in brackets, one option a line";
        Problem::new(error.message(), remedy)
    };
    Fault {
        line: Some(line_at(text.as_bytes(), at)),
        key,
        problem,
    }
}

/// Which option a broken line seems to be about: what looks like our keys and is no secret.
fn key_on_line(before: &str, line: &str) -> Key {
    let header = |line: &str| {
        let name = line.trim().strip_prefix('[')?.trim_start_matches('[');
        Some(name.split(']').next().unwrap_or("").trim().to_owned())
    };
    let looks_like_ours = |name: &str| {
        !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || "_.".contains(c))
    };
    let mut path = before.lines().rev().find_map(header);
    if let Some(name) = header(line) {
        path = Some(name);
    } else if let Some((name, _)) = line.split_once('=') {
        let table = path.map(|table| table + ".").unwrap_or_default();
        path = Some(table + name.trim());
    }
    match path {
        Some(path) if looks_like_ours(&path) => Key::of(&path),
        _ => Key::default(),
    }
}

/// The line of the byte at `at`, counted from 1.
pub fn line_at(text: &[u8], at: usize) -> usize {
    let before = &text[..at.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
