//! What is configured, option by option, as it would be written in the file: without secrets.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::raw::{RawAccount, RawComponent, RawConfig, RawExternal, RawWarmBinding};
use crate::core::command::operation::Configured;

/// What stands in place of a secret.
const HIDDEN: &str = "(hidden)";

/// Every option with its value, in the order of their names.
pub fn rows(raw: &RawConfig) -> Vec<Configured> {
    let mut defaults = flat(&RawConfig::default());
    for (key, value) in flat(&RawComponent::default()) {
        defaults.insert(format!("component.{key}"), value);
    }
    for (key, value) in flat(&RawExternal::default()) {
        defaults.insert(format!("external.{key}"), value);
    }
    for (key, value) in flat(&RawWarmBinding::default()) {
        defaults.insert(format!("warm_binding.{key}"), value);
    }
    for (key, value) in flat(&RawAccount::default()) {
        defaults.insert(format!("account.{key}"), value);
    }
    let row = |(key, value): (String, Value)| {
        let default = defaults.get(&without_index(&key));
        Configured {
            is_default: default.unwrap_or(&Value::Null) == &value,
            value: spelled(&value),
            key,
        }
    };
    flat(raw).into_iter().map(row).collect()
}

/// Writes a secret down as something that is none.
pub fn hide<S: Serializer>(secret: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| HIDDEN).serialize(serializer)
}

fn flat(raw: &impl Serialize) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    // Nothing in there refuses to be written: texts, numbers, lists, tables with names.
    gather(
        String::new(),
        serde_json::to_value(raw).unwrap_or_default(),
        &mut found,
    );
    found
}

fn gather(key: String, value: Value, found: &mut BTreeMap<String, Value>) {
    let below = |name: &str| match key.as_str() {
        "" => name.to_owned(),
        key => format!("{key}.{name}"),
    };
    match value {
        Value::Object(table) if !table.is_empty() => {
            for (name, value) in table {
                gather(below(&name), value, found);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            for (index, value) in list.into_iter().enumerate() {
                gather(format!("{key}[{index}]"), value, found);
            }
        }
        value => drop(found.insert(key, value)),
    }
}

/// `component[1].jid` is `component.jid` where defaults are told.
fn without_index(key: &str) -> String {
    match (key.find('['), key.find(']')) {
        (Some(from), Some(to)) if from < to => format!("{}{}", &key[..from], &key[to + 1..]),
        _ => key.to_owned(),
    }
}

/// TOML writes texts, numbers and lists of them as JSON does; `-` is not written at all.
fn spelled(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<Configured> {
        rows(&toml::from_str(text).expect("good"))
    }

    #[track_caller]
    fn check(rows: &[Configured], key: &str, value: &str, is_default: bool) {
        let row = rows.iter().find(|row| row.key == key).expect(key);
        assert_eq!(
            (row.value.as_str(), row.is_default),
            (value, is_default),
            "{key}"
        );
    }

    #[test]
    fn options_are_told_as_they_are_written() {
        let rows = told(
            "[component]\njid = \"a\"\nsecret = \"never-shown-4711\"\n\
             [limits]\nidle_for = \"1 minute\"\nrefreshes_max = 10\n\
             [http]\nlisten = [\"a\", \"b\"]\n\
             [quota]\nexceptions = { \"vip@example.org\" = \"10 GiB\" }\n",
        );
        check(&rows, "component.jid", "\"a\"", false);
        check(&rows, "component.secret", "\"(hidden)\"", false);
        check(&rows, "component.secret_file", "-", true);
        check(&rows, "component.connections", "1", true);
        check(&rows, "limits.idle_for", "\"1 minute\"", false);
        check(&rows, "limits.refreshes_max", "10", true);
        check(&rows, "http.listen", "[\"a\",\"b\"]", false);
        check(&rows, "http.tls", "-", true);
        check(
            &rows,
            "quota.exceptions.vip@example.org",
            "\"10 GiB\"",
            false,
        );
        check(&rows, "data_dir", "\"/var/lib/slotd\"", true);
        assert!(!format!("{rows:?}").contains("4711"));
    }

    #[test]
    fn each_component_has_its_own() {
        let rows =
            told("[[component]]\njid = \"a\"\n[[component]]\njid = \"b\"\nconnections = 2\n");
        check(&rows, "component[0].jid", "\"a\"", false);
        check(&rows, "component[0].connections", "1", true);
        check(&rows, "component[1].connections", "2", false);
    }
}
