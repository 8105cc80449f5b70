//! Checks who may ask for how much, and how long things last.

use std::collections::HashMap;

use super::{ANY, Checker, DAY, EVER, HOUR, SECOND, SOME};
use crate::config::error::{Key, Problem};
use crate::config::raw::{RawAccess, RawConfig, RawQuota};
use crate::config::{Component, value};
use crate::core::policy::{Access, BUCKET, Policy, Quota, Room};
use crate::core::session;

/// How often an upload session may be refreshed.
const REFRESHES_MAX: u8 = 10;

impl Checker {
    pub(super) fn policy(
        &mut self,
        raw: &RawConfig,
        components: Option<&[Component]>,
    ) -> Option<Policy> {
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
                self.refuse(
                    key.as_str(),
                    what,
                    "raise it, or lower limits.max_file_size",
                );
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
}
