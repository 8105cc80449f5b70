//! From what was written to what it means: every check that needs no I/O.
//!
//! All that is wrong is gathered, so that one run of `slotd check` shows the whole of it.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::core::policy::{Access, BUCKET, Policy, Quota, Room};
use crate::core::rate::Rate;
use crate::core::session;

use super::error::{Key, Problem};
use super::raw::{RawAccess, RawConfig, RawHttp, RawLimits, RawLog, RawQuota, RawTls};
use super::secret::SecretSource;
use super::{
    Component, Config, Durability, Http, Keys, Limits, Log, LogFormat, Retention, Secret, Tls,
    TokenIn, value,
};

/// How often an upload session may be refreshed.
const REFRESHES_MAX: u8 = 10;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// The longest of any duration: a century.
const EVER: Duration = Duration::from_secs(100 * 365 * 86_400);
/// A size of at least one byte.
const SOME: RangeInclusive<u64> = 1..=u64::MAX;
/// A size that may be none at all.
const ANY: RangeInclusive<u64> = 0..=u64::MAX;

/// Reads a component's secret; told the component's key and where the secret comes from.
pub type ReadSecret<'a> = dyn FnMut(&SecretSource) -> Result<Secret, Problem> + 'a;

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
    pub fn config(&mut self, raw: &RawConfig, read_secret: &mut ReadSecret<'_>) -> Option<Config> {
        let data_dir = self.take(Key::of("data_dir"), value::path(&raw.data_dir));
        let durability = self.take(
            Key::of("durability"),
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
        let components = self.components(raw, read_secret);
        let http = self.http(&raw.http);
        let limits = self.limits(&raw.limits);
        let policy = self.policy(raw, components.as_deref());
        let retention = self.retention(raw, policy.as_ref());
        let keys = self.keys(raw);
        let contact = self.contact(raw);
        let log = self.log(&raw.log);
        Some(Config {
            data_dir: data_dir?,
            durability: durability?,
            worker_threads: Some(worker_threads? as usize).filter(|n| 0 < *n),
            components: components?,
            http: http?,
            policy: policy?,
            limits: limits?,
            retention: retention?,
            keys: keys?,
            contact: contact?,
            log: log?,
        })
    }

    /// Notes what is wrong at `key`.
    pub fn take<T>(&mut self, key: Key, result: Result<T, Problem>) -> Option<T> {
        result
            .map_err(|problem| self.faults.push((key, problem)))
            .ok()
    }

    fn refuse(&mut self, key: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.faults.push((Key::of(key), Problem::new(what, remedy)));
    }

    fn warn(&mut self, key: &str, words: impl Into<String>) {
        self.warnings.push((Key::of(key), words.into()));
    }

    fn number(&mut self, key: &str, number: i64, range: RangeInclusive<i64>) -> Option<u64> {
        if range.contains(&number) {
            return u64::try_from(number).ok();
        }
        let remedy = format!("use a number from {} to {}", range.start(), range.end());
        self.refuse(key, format!("{number} is out of range"), remedy);
        None
    }

    fn size(&mut self, key: &str, text: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let n_bytes = self.take(Key::of(key), value::size(text))?;
        if range.contains(&n_bytes) {
            return Some(n_bytes);
        }
        self.refuse(
            key,
            format!("{text:?} makes no sense here"),
            "use \"1 B\" or more",
        );
        None
    }

    /// A size that may be absent, or `"none"`.
    fn size_or_none(&mut self, key: &str, text: Option<&str>) -> Option<Option<u64>> {
        match text {
            None | Some("none") => Some(None),
            Some(text) => self.size(key, text, SOME).map(Some),
        }
    }

    fn duration(
        &mut self,
        key: &str,
        text: &str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let duration = self.take(Key::of(key), value::duration(text))?;
        if range.contains(&duration) {
            return Some(duration);
        }
        let remedy = format!("use {} to {}", span(*range.start()), span(*range.end()));
        self.refuse(key, format!("{text:?} is out of range"), remedy);
        None
    }

    /// A duration, or `word` for without end.
    fn duration_or(
        &mut self,
        key: &str,
        text: &str,
        word: &str,
        min: Duration,
    ) -> Option<Option<Duration>> {
        match text {
            text if text == word => Some(None),
            text => self.duration(key, text, min..=EVER).map(Some),
        }
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

    fn components(
        &mut self,
        raw: &RawConfig,
        read_secret: &mut ReadSecret<'_>,
    ) -> Option<Vec<Component>> {
        let table = Key::of("component");
        if raw.component.list.is_empty() {
            self.warn("component", "none: nobody can ask for slots");
        }
        let mut components: Vec<Option<Component>> = Vec::new();
        for (index, one) in raw.component.list.iter().enumerate() {
            let key = match raw.component.is_array {
                true => table.index(index),
                false => table.clone(),
            };
            let jid = self.take(
                key.name("jid"),
                match &one.jid {
                    Some(jid) => value::domain(jid),
                    None => Err(missing("jid", "upload.example.org")),
                },
            );
            let is_taken = components
                .iter()
                .flatten()
                .any(|it| Some(&it.jid) == jid.as_ref());
            if is_taken {
                let remedy = "use connections = 2 for two streams of one host";
                let problem = Problem::new("another [[component]] has the same", remedy);
                self.faults.push((key.name("jid"), problem));
            }
            let server = self.take(key.name("server"), value::server(&one.server));
            let connections = match one.connections {
                n @ 1..=16 => Some(n as u8),
                n => {
                    let problem =
                        Problem::new(format!("{n} is out of range"), "use a number from 1 to 16");
                    self.take(key.name("connections"), Err(problem))
                }
            };
            let secret = self.secret(&key, one, read_secret);
            let component = || {
                Some(Component {
                    jid: jid?,
                    server: server?,
                    secret: secret?,
                    connections: connections?,
                })
            };
            components.push(component());
        }
        components.into_iter().collect()
    }

    fn secret(
        &mut self,
        key: &Key,
        raw: &super::raw::RawComponent,
        read_secret: &mut ReadSecret<'_>,
    ) -> Option<Secret> {
        let inline = raw.secret.clone().map(SecretSource::Inline);
        let file = match &raw.secret_file {
            Some(text) => Some(self.take(key.name("secret_file"), value::path(text))?),
            None => None,
        };
        let credential = raw.secret_credential.clone().map(SecretSource::Credential);
        let mut given: Vec<(&str, SecretSource)> = [
            ("secret", inline),
            ("secret_file", file.map(SecretSource::File)),
            ("secret_credential", credential),
        ]
        .into_iter()
        .filter_map(|(name, source)| source.map(|source| (name, source)))
        .collect();
        let many = given.len();
        match (given.pop(), many) {
            (Some((name, source)), 1) => self.take(key.name(name), read_secret(&source)),
            (Some((name, _)), _) => {
                let what = format!("{} is given too", given[0].0);
                let problem =
                    Problem::new(what, "keep one of secret, secret_file, secret_credential");
                self.take(key.name(name), Err(problem))
            }
            (None, _) => self.take(
                key.name("secret_file"),
                Err(missing("secret_file", "/etc/slotd/component.secret")),
            ),
        }
    }

    fn http(&mut self, raw: &RawHttp) -> Option<Http> {
        let listen = self.list("http.listen", &raw.listen, value::listen);
        if raw.listen.is_empty() {
            self.refuse("http.listen", "names no socket", "try [\"127.0.0.1:5050\"]");
        }
        let public_url = self.take(
            Key::of("http.public_url"),
            match &raw.public_url {
                Some(url) => value::public_url(url, raw.insecure),
                None => Err(missing("public_url", "https://upload.example.org/")),
            },
        );
        if public_url
            .as_deref()
            .is_some_and(|url| url.starts_with("http://"))
        {
            let words = "http:// shows every link and token to whoever sees the traffic";
            self.warn("http.public_url", words);
        }
        let trusted_proxies = self.list("http.trusted_proxies", &raw.trusted_proxies, value::proxy);
        let token_in = self.take(
            Key::of("http.token_in"),
            value::word(
                &raw.token_in,
                &[("url", TokenIn::Url), ("header", TokenIn::Header)],
            ),
        );
        let tls = match &raw.tls {
            Some(tls) => self.tls(tls).map(Some),
            None => Some(None),
        };
        Some(Http {
            listen: listen.filter(|list| !list.is_empty())?,
            public_url: public_url?,
            trusted_proxies: trusted_proxies?,
            token_in: token_in?,
            tls: tls?,
        })
    }

    fn tls(&mut self, raw: &RawTls) -> Option<Tls> {
        let mut file = |name: &str, text: &Option<String>| {
            let path = match text {
                Some(text) => value::path(text),
                None => Err(missing(name, &format!("/etc/slotd/{name}.pem"))),
            };
            self.take(Key::of("http.tls").name(name), path)
        };
        let (certificate, key) = (file("certificate", &raw.certificate), file("key", &raw.key));
        Some(Tls {
            certificate: certificate?,
            key: key?,
        })
    }

    fn limits(&mut self, raw: &RawLimits) -> Option<Limits> {
        let slots = self.number(
            "limits.slots_per_minute",
            raw.slots_per_minute,
            1..=1_000_000,
        );
        let bytes = self.size_or_none("limits.bytes_per_minute", raw.bytes_per_minute.as_deref());
        let stall_for = self.duration("limits.stall_for", &raw.stall_for, SECOND..=HOUR);
        let rate_min_bytes = self.size("limits.rate_min", &raw.rate_min, ANY);
        let per_address = self.number("limits.connections_max", raw.connections_max, 1..=1_000_000);
        let total = self.number(
            "limits.connections_total_max",
            raw.connections_total_max,
            1..=1_000_000,
        );
        let stop_within = self.duration(
            "limits.stop_within",
            &raw.stop_within,
            Duration::ZERO..=HOUR,
        );
        if let (Some(per_address), Some(total)) = (per_address, total)
            && total < per_address
        {
            let what = format!("{total} is less than limits.connections_max, {per_address}");
            self.refuse(
                "limits.connections_total_max",
                what,
                "raise it, or lower the other",
            );
        }
        if rate_min_bytes == Some(0) {
            self.warn(
                "limits.rate_min",
                "a client may hold a connection open with a byte a minute",
            );
        }
        Some(Limits {
            slot_rate: Rate { per_minute: slots? },
            byte_rate: bytes?.map(|per_minute| Rate { per_minute }),
            stall_for: stall_for?,
            rate_min_bytes: rate_min_bytes?,
            connections_per_address_max: per_address? as usize,
            connections_max: total? as usize,
            check_content_type: raw.check_content_type,
            stop_within: stop_within?,
        })
    }

    fn policy(&mut self, raw: &RawConfig, components: Option<&[Component]>) -> Option<Policy> {
        let limits = &raw.limits;
        let access = self.access(&raw.access, components);
        let size_bytes_max = self.size("limits.max_file_size", &limits.max_file_size, SOME);
        let quota = self.quota(&raw.quota, size_bytes_max);
        let bytes = self.size("limits.reserve_space", &limits.reserve_space, ANY);
        let inodes = self.number("limits.reserve_inodes", limits.reserve_inodes, 0..=i64::MAX);
        let lifetimes = self.lifetimes(raw);
        Some(Policy {
            access: access?,
            size_bytes_max: size_bytes_max?,
            quota: quota?,
            reserve: Room {
                bytes: bytes?,
                inodes: inodes?,
            },
            lifetimes: lifetimes?,
        })
    }

    fn access(&mut self, raw: &RawAccess, components: Option<&[Component]>) -> Option<Access> {
        let listed = raw.domains.as_deref().unwrap_or_default();
        let domains = self.list("access.domains", listed, value::domain);
        let listed = raw.jids.as_deref().unwrap_or_default();
        let jids = self.list("access.jids", listed, value::bare_jid);
        let deny = self.list("access.deny", &raw.deny, value::bare_jid);
        let mut access = Access {
            domains: domains?,
            jids: jids?,
            deny: deny?,
        };
        if raw.domains.is_none() && raw.jids.is_none() {
            for component in components? {
                match component.jid.split_once('.') {
                    Some((_, parent)) => access.domains.push(parent.to_owned()),
                    None => {
                        let what = format!(
                            "{:?} is below no domain whose accounts may upload",
                            component.jid
                        );
                        self.refuse(
                            "access.domains",
                            what,
                            "name them: domains = [\"example.org\"]",
                        );
                        return None;
                    }
                }
            }
            access.domains.sort();
            access.domains.dedup();
        } else if access.domains.is_empty() && access.jids.is_empty() {
            let remedy = "name domains or jids, or leave both out";
            self.refuse("access", "lets nobody upload", remedy);
        }
        Some(access)
    }

    fn quota(&mut self, raw: &RawQuota, size_bytes_max: Option<u64>) -> Option<Quota> {
        let mut limit = |name: &str, text: &Option<String>| {
            let key = format!("quota.{name}");
            let limit = self.size_or_none(&key, text.as_deref())?;
            if let (Some(limit), Some(size_bytes_max)) = (limit, size_bytes_max)
                && limit < size_bytes_max
            {
                let what = format!(
                    "{:?} is less than limits.max_file_size",
                    text.as_deref().unwrap_or("")
                );
                self.refuse(&key, what, "raise it, or lower limits.max_file_size");
            }
            Some(limit)
        };
        let per_requester = limit("per_requester", &raw.per_requester);
        let per_domain = limit("per_domain", &raw.per_domain);
        let total = limit("total", &raw.total);
        let window = self.duration("quota.window", &raw.window, HOUR..=90 * DAY);
        if let Some(window) = window
            && !window.as_secs().is_multiple_of(BUCKET.as_secs())
        {
            let hours = window.as_secs().div_ceil(BUCKET.as_secs());
            let what = format!("{:?} is not a number of whole hours", raw.window);
            self.refuse("quota.window", what, format!("try \"{hours} hours\""));
        }
        let mut exceptions = HashMap::new();
        for (name, text) in &raw.exceptions {
            let key = Key::of("quota.exceptions").name(name);
            let jid = self.take(key.clone(), value::bare_jid(name));
            // Without limit: more than anything that is ever stored.
            let limit = match text.as_str() {
                "none" => Some(u64::MAX),
                text => self.take(key.clone(), value::size(text)),
            };
            if limit == Some(0) {
                let problem = Problem::new("allows no byte", "use access.deny for that");
                self.faults.push((key, problem));
            }
            if let (Some(jid), Some(limit)) = (jid, limit) {
                exceptions.insert(jid, limit);
            }
        }
        Some(Quota {
            per_requester: per_requester?,
            per_domain: per_domain?,
            total: total?,
            window: window?,
            exceptions,
        })
    }

    fn lifetimes(&mut self, raw: &RawConfig) -> Option<session::Lifetimes> {
        let idle_for = self.duration("limits.idle_for", &raw.limits.idle_for, SECOND..=EVER);
        let session_age =
            self.duration("limits.session_age", &raw.limits.session_age, SECOND..=EVER);
        let keep = &raw.retention;
        let message = self.duration_or("retention.keep_for", &keep.keep_for, "forever", SECOND);
        let profile = self.duration_or("retention.profile", &keep.profile, "forever", SECOND);
        let ephemeral = self.duration_or("retention.ephemeral", &keep.ephemeral, "forever", SECOND);
        let permanent = self.duration_or("retention.permanent", &keep.permanent, "forever", SECOND);
        if let (Some(idle_for), Some(session_age)) = (idle_for, session_age)
            && session_age < idle_for
        {
            let what = format!(
                "{:?} is longer than limits.session_age, {:?}",
                raw.limits.idle_for, raw.limits.session_age
            );
            self.refuse(
                "limits.idle_for",
                what,
                "lower it, or raise limits.session_age",
            );
        }
        Some(session::Lifetimes {
            idle_for: idle_for?,
            session_age: session_age?,
            refreshes_max: REFRESHES_MAX,
            retention: session::Retention {
                message: message?,
                profile: profile?,
                ephemeral: ephemeral?,
                permanent: permanent?,
            },
        })
    }

    fn retention(&mut self, raw: &RawConfig, policy: Option<&Policy>) -> Option<Retention> {
        let raw = &raw.retention;
        let total = self.size_or_none("retention.total_max", raw.total_max.as_deref());
        if let (Some(Some(total)), Some(policy)) = (total, policy)
            && total < policy.size_bytes_max
        {
            let what = "is less than limits.max_file_size";
            let remedy = "raise it, or lower limits.max_file_size";
            self.refuse("retention.total_max", what, remedy);
        }
        let sweep_every = self.duration("retention.sweep_every", &raw.sweep_every, SECOND..=DAY);
        let report_file = match &raw.report_file {
            Some(text) => self
                .take(Key::of("retention.report_file"), value::path(text))
                .map(Some),
            None => Some(None),
        };
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
        // A fault of idle_for is told where it stands.
        let idle_for = value::duration(&raw.limits.idle_for).ok();
        if let (Some(keep_old_for), Some(idle_for)) = (keep_old_for, idle_for)
            && keep_old_for < idle_for
        {
            let what = format!(
                "{:?} is shorter than limits.idle_for, {:?}: a rotation would break uploads",
                raw.keys.keep_old_for, raw.limits.idle_for
            );
            self.refuse("keys.keep_old_for", what, "raise it: \"72 hours\"");
        }
        Some(Keys {
            rotate_every: rotate_every?,
            keep_old_for: keep_old_for?,
        })
    }

    fn contact(&mut self, raw: &RawConfig) -> Option<Vec<(&'static str, Vec<String>)>> {
        let raw = &raw.contact;
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
        let level = self.take(Key::of("log.level"), level);
        let format = self.take(
            Key::of("log.format"),
            value::word(
                &raw.format,
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            ),
        );
        level?;
        Some(Log {
            level: raw.level.clone(),
            format: format?,
        })
    }
}

fn missing(name: &str, example: &str) -> Problem {
    Problem::new("is missing", format!("write {name} = {example:?}"))
}

/// A bound of a range, in quotes, in the largest unit that fits.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [
        ("day", 86_400),
        ("hour", 3600),
        ("minute", 60),
        ("second", 1),
    ];
    let fits = |(_, unit): &&(&str, u64)| seconds.is_multiple_of(*unit) && *unit <= seconds;
    let (name, n) = match units.iter().find(fits) {
        Some((name, unit)) => (*name, seconds / unit),
        None => ("second", 0),
    };
    let s = if n == 1 { "" } else { "s" };
    format!("\"{n} {name}{s}\"")
}
