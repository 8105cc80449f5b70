//! Checks who may ask for how much, and how long things last.

use std::collections::HashMap;

use super::{ANY, Checker, DAY, EVER, HOUR, SECOND, SOME};
use crate::config::error::{Key, Problem};
use crate::config::raw::{RawAccess, RawConfig, RawQuota};
use crate::config::{Account, Component, hosts, value};
use crate::core::policy::{self, Access, BUCKET, Policy, Quota, Room};
use crate::core::session;

/// Most refreshes: generations are counted in a byte.
const REFRESHES_MAX: i64 = 200;

impl Checker {
    pub(super) fn policy(
        &mut self,
        raw: &RawConfig,
        logins: Option<(&[Component], &Option<Account>)>,
    ) -> Option<Policy> {
        let limits = &raw.limits;
        let access = self.access(&raw.access, logins);
        let size_bytes_max = self.size("limits.max_file_size", &limits.max_file_size, SOME);
        let quota = self.quota(&raw.quota, size_bytes_max);
        let bytes = self.size("limits.reserve_space", &limits.reserve_space, ANY);
        let inodes = self.number("limits.reserve_inodes", limits.reserve_inodes, 0..=i64::MAX);
        let lifetimes = self.lifetimes(raw);
        let range = 1..=policy::OPEN_SESSIONS_MAX as i64;
        let open_sessions_max =
            self.number("limits.open_sessions_max", limits.open_sessions_max, range);
        Some(Policy {
            access: access?,
            size_bytes_max: size_bytes_max?,
            quota: quota?,
            open_sessions_max: open_sessions_max.and_then(|n| u32::try_from(n).ok())?,
            reserve: Room {
                bytes: bytes?,
                inodes: inodes?,
            },
            lifetimes: lifetimes?,
        })
    }

    fn access(
        &mut self,
        raw: &RawAccess,
        logins: Option<(&[Component], &Option<Account>)>,
    ) -> Option<Access> {
        let listed = raw.domains.as_deref().unwrap_or_default();
        let domains = self.list("access.domains", listed, |text| {
            value::domain(text, "accounts stand in access.jids")
        });
        let listed = raw.jids.as_deref().unwrap_or_default();
        let jids = self.list("access.jids", listed, value::bare_jid);
        let deny = self.list("access.deny", &raw.deny, value::bare_jid);
        let mut access = Access {
            domains: domains?,
            jids: jids?,
            deny: deny?,
        };
        if raw.domains.is_none() && raw.jids.is_none() {
            let (components, account) = logins?;
            for (index, jid) in hosts(components, account.as_ref()).enumerate() {
                let Some((_, parent)) = jid.split_once('.') else {
                    let what = format!("{jid:?} is below no domain whose accounts may upload");
                    let remedy = "write domains = [\"example.org\"] under [access]";
                    let key = match account {
                        Some(_) => Key::of("account.relay"),
                        None => Key::of("component").index(index).name("jid"),
                    };
                    return self.take(key, Err(Problem::new(what, remedy)));
                };
                access.domains.push(parent.to_owned());
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
        let mut limit = |key, text| self.size_above_file(key, text, size_bytes_max);
        let per_requester = limit("quota.per_requester", &raw.per_requester);
        let per_domain = limit("quota.per_domain", &raw.per_domain);
        let total = limit("quota.total", &raw.total);
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
            let limit = self.size_or_none(key, text);
            if let (Some(jid), Some(limit)) = (jid, limit) {
                // Without limit: more than is ever stored.
                exceptions.insert(jid, limit.unwrap_or(u64::MAX));
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
        let limits = &raw.limits;
        let rufh_idle_for =
            self.duration("limits.rufh_idle_for", &limits.rufh_idle_for, SECOND..=EVER);
        let range = 0..=REFRESHES_MAX;
        let refreshes_max = self.number("limits.refreshes_max", limits.refreshes_max, range);
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
            // Whoever cannot refresh never has less time than who can.
            rufh_idle_for: rufh_idle_for?.max(idle_for?),
            refreshes_max: refreshes_max.and_then(|n| u8::try_from(n).ok())?,
            retention: session::Retention {
                message: message?,
                profile: profile?,
                ephemeral: ephemeral?,
                permanent: permanent?,
            },
        })
    }
}
