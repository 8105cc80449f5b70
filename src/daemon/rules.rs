//! What the parts need to know of the configuration.

use std::sync::Arc;

use jid::BareJid;

use crate::audit_log;
use crate::config::{Config, Loaded, TokenIn};
use crate::core::bans::BanPolicy;
use crate::service::Settings;
use crate::upkeep::Plan;

/// How upkeep goes, as the configuration says.
pub(super) fn plan(config: &Config) -> Plan {
    Plan {
        every: config.retention.sweep_every,
        data_dir: config.data_dir.clone(),
        report_file: config.retention.report_file.clone(),
    }
}

/// How the audit log is written.
pub(super) fn audit_manner(config: &Config) -> audit_log::Manner {
    audit_log::Manner {
        path: config.log.audit_file.clone(),
        addresses: config.log.addresses,
    }
}

/// The rules of what was loaded, with every option to look at.
pub(super) fn live_settings(loaded: &Loaded) -> Settings {
    Settings {
        configured: loaded.configured.clone(),
        ..settings(&loaded.config)
    }
}

/// The configuration's rules, as the service needs them.
pub fn settings(config: &Config) -> Settings {
    Settings {
        policy: config.policy.clone(),
        public_url: config.http.public_url.clone(),
        token_in_header: config.http.token_in == TokenIn::Header,
        slot_rate: config.limits.slot_rate,
        byte_rate: config.limits.byte_rate,
        stall_for: config.limits.stall_for,
        rate_min_bytes: config.limits.rate_min_bytes,
        check_content_type: config.limits.check_content_type,
        total_bytes_max: config.retention.total_bytes_max,
        rotate_every: config.keys.rotate_every,
        keep_old_for: config.keys.keep_old_for,
        accel: config.http.accel.clone(),
        bans: ban_policy(config),
        connections_per_address_max: config.limits.connections_per_address_max,
        connections_total_max: config.limits.connections_total_max,
        stop_within: config.limits.stop_within,
        addresses: config.log.addresses,
        legacy_namespaces: config.legacy_namespaces.clone(),
        external: config.external.iter().cloned().map(Arc::new).collect(),
        operators: config.operators.clone(),
        warm_binding: config.warm_binding.clone().map(Arc::new),
        contact: config.contact.clone(),
        configured: Vec::new(),
    }
}

/// Who may be banned, from all over the configuration.
fn ban_policy(config: &Config) -> BanPolicy {
    let hosts = config.hosts().filter_map(|host| BareJid::new(host).ok());
    BanPolicy {
        failures: config.bans,
        proxies: config.http.trusted_proxies.clone(),
        operators: config.operators.clone(),
        hosts: hosts.collect(),
    }
}
