//! What was written: the tables and keys of `conf/slotd.toml`, unchecked, and all defaults.
//!
//! A default stands here and nowhere else, as it would be written in the file, beside its reason;
//! it takes the same way through the checks as a written value.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod account;
mod external;
mod guard;
mod tables;
mod warm;

pub use account::RawAccount;
pub use external::RawExternal;
pub use guard::{RawAdmin, RawBans};
pub use tables::Tables;
pub use warm::RawWarmBinding;

/// The whole file.
#[derive(Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    pub(super) data_dir: String,
    pub(super) durability: String,
    pub(super) worker_threads: i64,
    pub(super) component: RawComponents,
    pub(super) account: Option<RawAccount>,
    pub(super) http: RawHttp,
    pub(super) admin: RawAdmin,
    pub(super) external: Tables<RawExternal>,
    pub(super) limits: RawLimits,
    pub(super) quota: RawQuota,
    pub(super) access: RawAccess,
    pub(super) bans: RawBans,
    pub(super) retention: RawRetention,
    pub(super) keys: RawKeys,
    pub(super) operators: RawOperators,
    pub(super) warm_binding: Option<RawWarmBinding>,
    pub(super) contact: RawContact,
    pub(super) log: RawLog,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            // Where the file hierarchy standard puts a service's state.
            data_dir: "/var/lib/slotd".to_owned(),
            // A 201 is a promise: only this keeps it over a power cut.
            durability: "full".to_owned(),
            // As many as there are cores.
            worker_threads: 0,
            component: RawComponents::default(),
            account: None,
            http: RawHttp::default(),
            admin: RawAdmin::default(),
            // Whoever stood here before slotd is the operator's to name.
            external: Tables::default(),
            limits: RawLimits::default(),
            quota: RawQuota::default(),
            access: RawAccess::default(),
            bans: RawBans::default(),
            retention: RawRetention::default(),
            keys: RawKeys::default(),
            operators: RawOperators::default(),
            // Nobody else than a server should have passwords, but for whoever wants just this.
            warm_binding: None,
            contact: RawContact::default(),
            log: RawLog::default(),
        }
    }
}

impl RawConfig {
    /// Which option has a secret stand in the file itself.
    pub fn inline_secret(&self) -> Option<&'static str> {
        let account = self.account.as_ref();
        let mut components = self.component.list.iter();
        let mut systems = self.external.list.iter();
        let of_system = |one: &RawExternal| one.secret.is_some() || one.delete_secret.is_some();
        let found = [
            (
                account.is_some_and(|account| account.password.is_some()),
                "account.password",
            ),
            (
                components.any(|one| one.secret.is_some()),
                "component.secret",
            ),
            (systems.any(of_system), "external.secret"),
        ];
        let found = found.into_iter().find(|(is_there, _)| *is_there);
        found.map(|(_, key)| key)
    }
}

/// `[component]` once, or `[[component]]` several times.
pub type RawComponents = Tables<RawComponent>;

/// `[component]`
#[derive(Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawComponent {
    pub(super) jid: Option<String>,
    pub(super) server: String,
    #[serde(serialize_with = "super::table::hide")]
    pub(super) secret: Option<String>,
    pub(super) secret_file: Option<String>,
    pub(super) secret_credential: Option<String>,
    pub(super) connections: i64,
    pub(super) legacy_namespaces: Vec<String>,
}

impl Default for RawComponent {
    fn default() -> Self {
        Self {
            jid: None,
            // Prosody's default; ejabberd's sample has 8888, which its admin has to write anyway.
            server: "127.0.0.1:5347".to_owned(),
            secret: None,
            secret_file: None,
            secret_credential: None,
            // Prosody takes no second one for the same host.
            connections: 1,
            // No client of today needs them, and one of 2018 was broken by both beside each other.
            legacy_namespaces: Vec::new(),
        }
    }
}

/// `[http]`
#[derive(Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawHttp {
    pub(super) listen: Vec<String>,
    pub(super) public_url: Option<String>,
    pub(super) insecure: bool,
    pub(super) trusted_proxies: Vec<String>,
    pub(super) proxy_forwards_1xx: bool,
    pub(super) token_in: String,
    pub(super) accel: String,
    pub(super) accel_location: String,
    pub(super) tls: Option<RawTls>,
}

impl Default for RawHttp {
    fn default() -> Self {
        Self {
            // Loopback: what the world reaches shall be a decision, and a proxy is on this machine.
            listen: vec!["127.0.0.1:5050".to_owned()],
            public_url: None,
            insecure: false,
            // None: a client that may name its own address evades every limit.
            trusted_proxies: Vec::new(),
            // nginx, the most usual proxy, does not.
            proxy_forwards_1xx: false,
            // Works with every client; some send no headers of a slot.
            token_in: "url".to_owned(),
            // Needs a proxy that can read the files.
            accel: "none".to_owned(),
            accel_location: "/slotd-files/".to_owned(),
            tls: None,
        }
    }
}

/// `[http.tls]`
#[derive(Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawTls {
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
}

/// `[limits]`
#[derive(Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawLimits {
    pub(super) max_file_size: String,
    pub(super) slots_per_minute: i64,
    pub(super) bytes_per_minute: String,
    pub(super) idle_for: String,
    pub(super) rufh_idle_for: String,
    pub(super) session_age: String,
    pub(super) refreshes_max: i64,
    pub(super) open_sessions_max: i64,
    pub(super) stall_for: String,
    pub(super) rate_min: String,
    pub(super) connections_max: i64,
    pub(super) connections_total_max: i64,
    pub(super) check_content_type: bool,
    pub(super) stop_within: String,
    pub(super) reserve_space: String,
    pub(super) reserve_inodes: i64,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            // A minute of a phone's video. Prosody's default of 10 MiB refuses most of them.
            max_file_size: "100 MiB".to_owned(),
            // An album of a hundred pictures at once passes; a loop does not.
            slots_per_minute: 120,
            // The quota bounds bytes; a rate would only slow the albums down.
            bytes_per_minute: "none".to_owned(),
            // XEP-0363 #impl recommends about 300 s.
            idle_for: "5 minutes".to_owned(),
            // Nobody can refresh such an upload: an hour in a tunnel shall not end it.
            rufh_idle_for: "1 hour".to_owned(),
            // A weekend in a dead spot, and Monday morning.
            session_age: "72 hours".to_owned(),
            // Ten dead spots longer than idle_for; a client that needs more goes in a circle.
            refreshes_max: 10,
            // An album whose pictures are sent side by side.
            open_sessions_max: 20,
            // A handover between networks takes less; a dead peer holds its place no longer.
            stall_for: "60 seconds".to_owned(),
            // The slowest link people send files over (GPRS) is faster.
            rate_min: "1 KiB".to_owned(),
            // A school or a carrier's NAT behind one address; not a whole attack.
            connections_max: 256,
            // At some 30 KiB each, 240 MiB; with a file for each, within 16,384 descriptors.
            connections_total_max: 8000,
            // Several clients announce one type and send another, or none.
            check_content_type: false,
            // Small uploads end by themselves; large ones are resumed after the restart.
            stop_within: "10 seconds".to_owned(),
            // Room for the rows and their journal, so that a full disk does not stop downloads.
            reserve_space: "64 MiB".to_owned(),
            // The same for file systems that count files.
            reserve_inodes: 1000,
        }
    }
}

/// `[quota]`
#[derive(Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawQuota {
    pub(super) per_requester: String,
    pub(super) per_domain: String,
    pub(super) total: String,
    pub(super) window: String,
    pub(super) exceptions: BTreeMap<String, String>,
}

impl Default for RawQuota {
    fn default() -> Self {
        Self {
            // None: only the admin knows disk and people; the free-space reserve always holds.
            per_requester: "none".to_owned(),
            per_domain: "none".to_owned(),
            total: "none".to_owned(),
            // Daily, as Prosody counts.
            window: "1 day".to_owned(),
            exceptions: BTreeMap::new(),
        }
    }
}

/// `[access]`
#[derive(Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawAccess {
    pub(super) domains: Option<Vec<String>>,
    pub(super) jids: Option<Vec<String>>,
    pub(super) deny: Vec<String>,
}

/// `[retention]`
#[derive(Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawRetention {
    pub(super) keep_for: String,
    pub(super) profile: String,
    pub(super) ephemeral: String,
    pub(super) permanent: String,
    pub(super) total_max: String,
    pub(super) sweep_every: String,
    pub(super) report_file: Option<String>,
}

impl Default for RawRetention {
    fn default() -> Self {
        Self {
            // Long enough for a phone that was off over the holidays, short enough for a disk.
            keep_for: "30 days".to_owned(),
            // An avatar that vanishes is broken for everyone who shows it, and it is small.
            profile: "forever".to_owned(),
            // Its sender wants it gone early: never longer than a message's file.
            ephemeral: "30 days".to_owned(),
            // That is what its sender asked for; the quota bounds it.
            permanent: "forever".to_owned(),
            // None: nothing goes before its time unless the admin says so.
            total_max: "none".to_owned(),
            // A file is not served past its time anyway; this frees its room soon after.
            sweep_every: "1 minute".to_owned(),
            report_file: None,
        }
    }
}

/// `[keys]`
#[derive(Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawKeys {
    pub(super) rotate_every: String,
    pub(super) keep_old_for: String,
}

impl Default for RawKeys {
    fn default() -> Self {
        Self {
            // A leaked copy of data_dir stops being worth anything after a month.
            rotate_every: "30 days".to_owned(),
            // limits.session_age: whatever was signed before a rotation ends by itself.
            keep_old_for: "72 hours".to_owned(),
        }
    }
}

/// `[operators]`
#[derive(Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawOperators {
    pub(super) jids: Vec<String>,
}

/// `[contact]`
#[derive(Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawContact {
    pub(super) abuse: Vec<String>,
    pub(super) admin: Vec<String>,
    pub(super) feedback: Vec<String>,
    pub(super) sales: Vec<String>,
    pub(super) security: Vec<String>,
    pub(super) status: Vec<String>,
    pub(super) support: Vec<String>,
}

/// `[log]`
#[derive(Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawLog {
    pub(super) level: String,
    pub(super) format: String,
    pub(super) file: Option<String>,
    pub(super) audit_file: Option<String>,
    pub(super) addresses: String,
}

impl Default for RawLog {
    fn default() -> Self {
        Self {
            // One line per slot, upload and removal.
            level: "info".to_owned(),
            // The journal is read by people first.
            format: "text".to_owned(),
            // The journal has it.
            file: None,
            // It is about people: who wants it says so.
            audit_file: None,
            // An operator who looks into trouble needs them; who must not keep them says so.
            addresses: "full".to_owned(),
        }
    }
}
