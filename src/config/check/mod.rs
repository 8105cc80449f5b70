//! From what was written to what it means: every check that needs no I/O.
//!
//! All that is wrong is gathered, so that one run of `slotd check` shows the whole of it.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use jid::BareJid;

use crate::core::policy::Policy;
use crate::core::session::network::AddressPolicy;

use super::error::{Key, Problem};
use super::raw::{RawConfig, RawContact, RawLog, RawOperators, RawRetention};
use super::secret::SecretSource;
use super::{Config, Durability, Keys, Log, LogFormat, Retention, Secret, value};

mod account;
mod admin;
mod bans;
mod component;
mod external;
mod http;
mod policy;
mod warm_binding;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Longer than any duration that is read.
const EVER: Duration = value::DURATION_MAX;
/// A size of at least one byte.
const SOME: RangeInclusive<u64> = 1..=u64::MAX;
/// A size that may be none at all.
const ANY: RangeInclusive<u64> = 0..=u64::MAX;

/// Reads a component's secret, or the account's password, from where the configuration says; `None`
/// where it does not say.
pub type ReadSecret<'a> = dyn Fn(Option<&SecretSource>) -> Result<Secret, Problem> + 'a;

/// Gathers what is wrong.
#[derive(Default)]
pub struct Checker {
    /// What makes the configuration unusable.
    pub faults: Vec<(Key, Problem)>,
    /// What the admin should know.
    pub warnings: Vec<(Key, String)>,
}

impl Checker {
    /// The whole configuration; `None` where there are faults.
    ///
    /// `read_own_secret` reads what slotd logs in with, `read_secret` the others.
    pub fn config(
        &mut self,
        raw: &RawConfig,
        read_own_secret: &ReadSecret<'_>,
        read_secret: &ReadSecret<'_>,
    ) -> Option<Config> {
        let data_dir = self.take("data_dir", value::path(&raw.data_dir));
        let durability = self.take(
            "durability",
            value::word(
                &raw.durability,
                &[
                    ("full", Durability::Full),
                    ("data", Durability::Data),
                    ("none", Durability::None),
                ],
            ),
        );
        let worker_threads = self.number("worker_threads", raw.worker_threads, 0..=1024);
        let components = self.components(raw, read_own_secret);
        let account = self.account(raw, read_own_secret);
        let legacy_namespaces = self.legacy_namespaces(&raw.component);
        let http = self.http(&raw.http);
        let admin = self.admin(&raw.admin, http.as_ref());
        let external = self.external(&raw.external, http.as_ref(), read_secret);
        let limits = self.limits(&raw.limits);
        let policy = self.policy(raw, components.as_deref().zip(account.as_ref()));
        let bans = self.bans(&raw.bans);
        let retention = self.retention(&raw.retention, policy.as_ref());
        let keys = self.keys(raw);
        let operators = self.operators(&raw.operators);
        let warm_binding = self.warm_binding(raw, operators.as_deref(), http.as_ref());
        let contact = self.contact(&raw.contact);
        let log = self.log(&raw.log);
        Some(Config {
            data_dir: data_dir?,
            durability: durability?,
            worker_threads: Some(worker_threads? as usize).filter(|n| 0 < *n),
            components: components?,
            account: account?,
            legacy_namespaces: legacy_namespaces?,
            http: http?,
            admin: admin?,
            external: external?,
            policy: policy?,
            limits: limits?,
            bans: bans?,
            retention: retention?,
            keys: keys?,
            operators: operators?,
            warm_binding: warm_binding?,
            contact: contact?,
            log: log?,
        })
    }

    /// Takes a value, or notes what is wrong with it.
    pub fn take<T>(&mut self, key: impl Into<Key>, result: Result<T, Problem>) -> Option<T> {
        result
            .map_err(|problem| self.faults.push((key.into(), problem)))
            .ok()
    }

    /// Notes what is wrong at `key`, found by comparing values.
    fn refuse(&mut self, key: impl Into<Key>, what: impl Into<String>, remedy: impl Into<String>) {
        self.faults.push((key.into(), Problem::new(what, remedy)));
    }

    /// Notes what the admin should know.
    pub fn warn(&mut self, key: impl Into<Key>, words: impl Into<String>) {
        self.warnings.push((key.into(), words.into()));
    }

    fn number(
        &mut self,
        key: impl Into<Key>,
        number: i64,
        range: RangeInclusive<i64>,
    ) -> Option<u64> {
        if range.contains(&number) {
            return u64::try_from(number).ok();
        }
        let remedy = format!("use a number from {} to {}", range.start(), range.end());
        self.refuse(key, format!("{number} is out of range"), remedy);
        None
    }

    fn size(&mut self, key: impl Into<Key>, text: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let key = key.into();
        let n_bytes = self.take(key.clone(), value::size(text))?;
        if range.contains(&n_bytes) {
            return Some(n_bytes);
        }
        let what = format!("{text:?} makes no sense here");
        self.refuse(key, what, "use \"1 B\" or more");
        None
    }

    /// A size, or `"none"`.
    fn size_or_none(&mut self, key: impl Into<Key>, text: &str) -> Option<Option<u64>> {
        match text {
            "none" => Some(None),
            text => self.size(key, text, SOME).map(Some),
        }
    }

    /// A size that no file may pass, or `"none"`.
    fn size_above_file(
        &mut self,
        key: &str,
        text: &str,
        size_bytes_max: Option<u64>,
    ) -> Option<Option<u64>> {
        let limit = self.size_or_none(key, text)?;
        // Where max_file_size itself is wrong, it is told there.
        if limit.is_some() && limit < size_bytes_max {
            let what = format!("{text:?} is less than limits.max_file_size");
            self.refuse(key, what, "raise it, or lower limits.max_file_size");
        }
        Some(limit)
    }

    /// A file that need not be.
    fn file(&mut self, key: &str, text: Option<&str>) -> Option<Option<PathBuf>> {
        match text {
            Some(text) => self.take(key, value::path(text)).map(Some),
            None => Some(None),
        }
    }

    fn duration(
        &mut self,
        key: &str,
        text: &str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let remedy = format!("use {} to {}", span(*range.start()), span(*range.end()));
        self.duration_within(key, text, range, remedy)
    }

    /// A duration of at least `min`, or `word` for without end.
    fn duration_or(
        &mut self,
        key: &str,
        text: &str,
        word: &str,
        min: Duration,
    ) -> Option<Option<Duration>> {
        if text == word {
            return Some(None);
        }
        let remedy = format!("use {} or more, or {word:?}", span(min));
        self.duration_within(key, text, min..=EVER, remedy)
            .map(Some)
    }

    fn duration_within(
        &mut self,
        key: &str,
        text: &str,
        range: RangeInclusive<Duration>,
        remedy: String,
    ) -> Option<Duration> {
        let duration = self.take(key, value::duration(text))?;
        if range.contains(&duration) {
            return Some(duration);
        }
        self.refuse(key, format!("{text:?} is out of range"), remedy);
        None
    }

    fn list<T>(
        &mut self,
        key: &str,
        texts: &[String],
        read: impl Fn(&str) -> Result<T, Problem>,
    ) -> Option<Vec<T>> {
        let key = Key::of(key);
        let read: Vec<Option<T>> = texts
            .iter()
            .enumerate()
            .map(|(index, text)| self.take(key.index(index), read(text)))
            .collect();
        read.into_iter().collect()
    }

    fn retention(&mut self, raw: &RawRetention, policy: Option<&Policy>) -> Option<Retention> {
        let size_bytes_max = policy.map(|policy| policy.size_bytes_max);
        let total = self.size_above_file("retention.total_max", &raw.total_max, size_bytes_max);
        let sweep_every = self.duration("retention.sweep_every", &raw.sweep_every, SECOND..=DAY);
        let report_file = self.file("retention.report_file", raw.report_file.as_deref());
        Some(Retention {
            total_bytes_max: total?,
            sweep_every: sweep_every?,
            report_file: report_file?,
        })
    }

    fn keys(&mut self, raw: &RawConfig) -> Option<Keys> {
        let rotate_every =
            self.duration_or("keys.rotate_every", &raw.keys.rotate_every, "never", HOUR);
        let keep_old_for =
            self.duration("keys.keep_old_for", &raw.keys.keep_old_for, SECOND..=EVER);
        let waits = [
            ("limits.idle_for", &raw.limits.idle_for),
            ("limits.rufh_idle_for", &raw.limits.rufh_idle_for),
        ];
        // A fault of a wait is told where it stands.
        let is_longer = |(_, wait): &(&str, &String)| {
            let wait = value::duration(wait).ok();
            keep_old_for.is_some_and(|keep_old_for| Some(keep_old_for) < wait)
        };
        if let Some((name, wait)) = waits.into_iter().find(is_longer) {
            let what = format!(
                "{:?} is shorter than {name}, {wait:?}: a rotation would break uploads",
                raw.keys.keep_old_for
            );
            self.refuse("keys.keep_old_for", what, "raise it: \"72 hours\"");
        } else if is_longer(&("", &raw.limits.session_age)) {
            self.warn(
                "keys.keep_old_for",
                "is shorter than limits.session_age: uploads that take longer end with a rotation",
            );
        }
        Some(Keys {
            rotate_every: rotate_every?,
            keep_old_for: keep_old_for?,
        })
    }

    /// A domain as an operator would make one of everybody in it.
    fn operators(&mut self, raw: &RawOperators) -> Option<Vec<BareJid>> {
        let account = |text: &str| {
            let jid = value::bare_jid(text)?;
            match jid.node() {
                Some(_) => Ok(jid),
                None => Err(Problem::new(
                    format!("{text:?} is a whole domain"),
                    "name accounts: \"admin@example.org\"",
                )),
            }
        };
        self.list("operators.jids", &raw.jids, account)
    }

    fn contact(&mut self, raw: &RawContact) -> Option<Vec<(&'static str, Vec<String>)>> {
        let fields = [
            ("contact.abuse", "abuse-addresses", &raw.abuse),
            ("contact.admin", "admin-addresses", &raw.admin),
            ("contact.feedback", "feedback-addresses", &raw.feedback),
            ("contact.sales", "sales-addresses", &raw.sales),
            ("contact.security", "security-addresses", &raw.security),
            ("contact.status", "status-addresses", &raw.status),
            ("contact.support", "support-addresses", &raw.support),
        ];
        let mut contact = Vec::new();
        for (key, field, texts) in fields {
            let uris = self.list(key, texts, value::contact);
            contact.push(uris.map(|uris| (field, uris)));
        }
        let contact: Option<Vec<_>> = contact.into_iter().collect();
        contact.map(|all| {
            all.into_iter()
                .filter(|(_, uris)| !uris.is_empty())
                .collect()
        })
    }

    fn log(&mut self, raw: &RawLog) -> Option<Log> {
        let level = crate::log::check_level(&raw.level).map_err(|what| {
            let remedy = "use \"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
            Problem::new(what, remedy)
        });
        let level = self.take("log.level", level);
        let format = self.take(
            "log.format",
            value::word(
                &raw.format,
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            ),
        );
        let file = self.file("log.file", raw.file.as_deref());
        let audit_file = self.file("log.audit_file", raw.audit_file.as_deref());
        let policies = [
            ("full", AddressPolicy::Full),
            ("prefix", AddressPolicy::Prefix),
            ("none", AddressPolicy::None),
        ];
        let addresses = self.take("log.addresses", value::word(&raw.addresses, &policies));
        level?;
        Some(Log {
            level: raw.level.clone(),
            format: format?,
            file: file?,
            audit_file: audit_file?,
            addresses: addresses?,
        })
    }
}

fn missing(table: &str, name: &str, example: &str) -> Problem {
    let remedy = format!("write {name} = {example:?} under [{table}]");
    Problem::new("is missing", remedy)
}

/// A bound of a range, as it would be written.
fn span(duration: Duration) -> String {
    format!("{:?}", value::spell(duration))
}
