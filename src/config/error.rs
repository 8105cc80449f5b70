//! What is wrong with a configuration file: which line, which key, what, and what to do about it.
//!
//! No value of a `secret` ever gets in here.

use std::fmt;
use std::path::PathBuf;

/// The place of a value: `limits.max_file_size`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key(pub Vec<Step>);

/// One step down to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into a table.
    Name(String),
    /// Into an array; not printed, the line tells.
    Index(usize),
}

impl Key {
    /// The key of `path`, whose names are joined by dots.
    pub fn of(path: &str) -> Self {
        Self(
            path.split('.')
                .map(|name| Step::Name(name.to_owned()))
                .collect(),
        )
    }

    /// The key of `name` in the table at this key.
    pub fn name(&self, name: &str) -> Self {
        self.step(Step::Name(name.to_owned()))
    }

    /// The key of an element of the array at this key.
    pub fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    fn step(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// The last name, which is the option's.
    pub fn option(&self) -> &str {
        let name = |step: &'_ Step| matches!(step, Step::Name(_));
        match self.0.iter().rfind(|step| name(step)) {
            Some(Step::Name(name)) => name,
            _ => "",
        }
    }
}

impl From<&str> for Key {
    fn from(path: &str) -> Self {
        Self::of(path)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let mut dot = "";
        for step in &self.0 {
            let Step::Name(name) = step else { continue };
            if name.chars().all(is_bare) {
                write!(f, "{dot}{name}")?;
            } else {
                write!(f, "{dot}{name:?}")?;
            }
            dot = ".";
        }
        Ok(())
    }
}

/// What is wrong with a value, and what to write instead; the place is told by whoever knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong: `"10 MBit" is not a size`.
    pub what: String,
    /// What to do: `try "10 MiB"`.
    pub remedy: String,
}

impl Problem {
    /// A problem and its remedy.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// A problem and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Counted from 1; `None` where the file could not be read at all.
    pub line: Option<usize>,
    /// Empty where no key could be told.
    pub key: Key,
    /// What is wrong there.
    pub problem: Problem,
}

/// All that is wrong with a configuration file, a line each:
/// `conf/slotd.toml:12: limits.max_file_size: "10 MBit" is not a size (try "10 MiB")`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: PathBuf,
    /// In the order of their lines; at least one.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut end = "";
        for fault in &self.faults {
            write!(f, "{end}{}:", self.file.display())?;
            if let Some(line) = fault.line {
                write!(f, "{line}:")?;
            }
            if !fault.key.0.is_empty() {
                write!(f, " {}:", fault.key)?;
            }
            write!(f, " {} ({})", fault.problem.what, fault.problem.remedy)?;
            end = "\n";
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_file_line_key_and_remedy() {
        let error = ConfigError {
            file: PathBuf::from("conf/slotd.toml"),
            faults: vec![
                Fault {
                    line: Some(12),
                    key: Key::of("limits.max_file_size"),
                    problem: Problem::new("\"10 MBit\" is not a size", "try \"10 MiB\""),
                },
                Fault {
                    line: Some(14),
                    key: Key::of("quota.exceptions").name("vip@example.org").index(3),
                    problem: Problem::new("wrong", "right"),
                },
            ],
        };
        let lines = "conf/slotd.toml:12: limits.max_file_size: \"10 MBit\" is not a size \
            (try \"10 MiB\")\n\
            conf/slotd.toml:14: quota.exceptions.\"vip@example.org\": wrong (right)";
        assert_eq!(error.to_string(), lines);
    }
}
