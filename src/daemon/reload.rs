//! Reads the configuration anew, on SIGHUP or when an operator says so, while all goes on.
//!
//! All of it is read and checked before anything changes. What only a start can change is told and
//! stays; the rest changes for what begins from now on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use super::notify;
use super::rules::{audit_manner, live_settings, plan};
use crate::audit_log::AuditLog;
use crate::config::{self, Config, Loaded, Use};
use crate::core::command::operation::{Configured, Reloaded};
use crate::core::event::Event;
use crate::core::policy::Access;
use crate::http::tls::{Pair, Reloader};
use crate::log;
use crate::service::Service;
use crate::service::operations::reload::Asked;
use crate::upkeep::Plan;

/// Where a configuration came from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its file.
    pub file: PathBuf,
    /// What it is wanted for.
    pub wanted: Use,
    /// The environment's `RUST_LOG`, which wins over `log.level`.
    pub directives: Option<String>,
}

/// What is in force, and all that follows it.
pub struct Reload {
    /// Where to read it anew.
    pub source: Source,
    /// What is in force.
    pub running: Loaded,
    /// Follows it: the rules.
    pub service: Arc<Service>,
    /// Follows it: the audit log.
    pub audit_log: Arc<AuditLog>,
    /// Follows it: certificate and key.
    pub tls: Option<Arc<Reloader>>,
    /// Follows it: the sweep.
    pub plans: watch::Sender<Plan>,
}

impl Reload {
    /// Reads it whenever somebody wants it. Never ends.
    pub async fn run(mut self, mut hangups: Signal, mut asks: mpsc::Receiver<Asked>) {
        loop {
            tokio::select! {
                _ = hangups.recv() => drop(self.reload().await),
                Some(asked) = asks.recv() => {
                    let reloaded = self.reload().await;
                    // Who asked may be gone; the log has it.
                    let _ = asked.send(reloaded);
                }
            }
        }
    }

    async fn reload(&mut self) -> Reloaded {
        notify::reloading();
        let (source, has_tls) = (self.source.clone(), self.tls.is_some());
        let read = tokio::task::spawn_blocking(move || read(&source, has_tls)).await;
        let read = read.unwrap_or_else(|_| Err(vec!["reading it ended early".to_owned()]));
        let reloaded = match read {
            Ok((loaded, pair)) => self.take_up(loaded, pair),
            Err(faults) => {
                error!("the configuration is broken; nothing changed");
                for fault in &faults {
                    error!("{fault}");
                }
                Reloaded::Refused(faults)
            }
        };
        notify::ready();
        self.tell(&reloaded);
        reloaded
    }

    fn tell(&self, reloaded: &Reloaded) {
        let faults = match reloaded {
            Reloaded::Done { .. } => None,
            Reloaded::Refused(faults) => Some(faults.join("; ")),
        };
        let outcome = faults.as_deref().map_or(Ok(()), Err);
        self.service.tell(Event::Reloaded { outcome });
    }

    /// Puts what was read into force; nothing in here can fail.
    fn take_up(&mut self, loaded: Loaded, pair: Option<Pair>) -> Reloaded {
        let (loaded, fixed) = keep_fixed(loaded, &self.running);
        let changed = differing(&self.running.configured, &loaded.configured);
        let mut warnings: Vec<_> = fixed
            .iter()
            .map(|key| format!("{key} takes a restart; it stays as it was"))
            .collect();
        warnings.extend(loaded.warnings.iter().cloned());
        log::change(&loaded.config.log, self.source.directives.as_deref());
        self.audit_log.change(audit_manner(&loaded.config));
        self.service.set_settings(live_settings(&loaded));
        self.service.lift_bans();
        if let (Some(tls), Some(pair)) = (&self.tls, pair) {
            tls.take_up(pair);
        }
        self.plans.send_replace(plan(&loaded.config));
        self.running = loaded;
        info!(?changed, "the configuration was read anew");
        for warning in &warnings {
            warn!("{warning}");
        }
        Reloaded::Done { changed, warnings }
    }
}

/// The configuration, and its certificate where one is in use; or what is wrong, a line each.
fn read(source: &Source, has_tls: bool) -> Result<(Loaded, Option<Pair>), Vec<String>> {
    let loaded = config::load(&source.file, &source.wanted);
    let loaded = loaded.map_err(|error| -> Vec<String> {
        let told = error.to_string();
        told.lines().map(str::to_owned).collect()
    })?;
    let files = loaded.config.http.tls.as_ref().filter(|_| has_tls);
    let pair = files.map(Reloader::read).transpose();
    let pair = pair.map_err(|error| vec![format!("{}: http.tls: {error}", source.file.display())]);
    Ok((loaded, pair?))
}

/// Puts what only a start can change back to what it is; also the options that would have changed.
fn keep_fixed(new: Loaded, running: &Loaded) -> (Loaded, Vec<String>) {
    let has_tls = |loaded: &Loaded| loaded.config.http.tls.is_some();
    let may_change_tls = has_tls(&new) && has_tls(running);
    let has_relay = |loaded: &Loaded| loaded.config.relay.is_some();
    let may_change_relay = has_relay(&new) && has_relay(running);
    let is_fixed = |row: &&Configured| is_fixed(&row.key, may_change_tls, may_change_relay);
    let [before, wanted] = [running, &new].map(|it| {
        it.configured
            .iter()
            .filter(is_fixed)
            .cloned()
            .collect::<Vec<_>>()
    });
    let mut fixed = differing(&before, &wanted);
    fixed.extend(other_secrets(&new.config, &running.config, &fixed));
    let says = |key| {
        new.configured
            .iter()
            .any(|row| row.key == key && !row.is_default)
    };
    let says_who = says("access.domains") || says("access.jids");
    let rest = new.configured.iter().filter(|row| !is_fixed(row));
    let mut configured: Vec<_> = before.into_iter().chain(rest.cloned()).collect();
    configured.sort_by(|a, b| a.key.cmp(&b.key));
    let (mut config, kept) = (new.config, running.config.clone());
    // Who may upload follows from the name of the service, where nothing else is said.
    if !says_who && !config.hosts().eq(kept.hosts()) {
        config.policy.access = Access {
            deny: config.policy.access.deny,
            ..kept.policy.access
        };
    }
    let tls = match may_change_tls {
        true => config.http.tls,
        false => kept.http.tls,
    };
    let terms = config.relay.map(|relay| relay.terms);
    let relay = kept.relay.map(|kept| config::Relay {
        terms: terms.unwrap_or(kept.terms),
        ..kept
    });
    let config = Config {
        relay,
        data_dir: kept.data_dir,
        durability: kept.durability,
        worker_threads: kept.worker_threads,
        components: kept.components,
        account: kept.account,
        http: config::Http { tls, ..kept.http },
        admin: kept.admin,
        ..config
    };
    let loaded = Loaded {
        config,
        configured,
        ..new
    };
    (loaded, fixed)
}

/// What changed of those we log in as, where `named`, the options that differ, do not tell.
fn other_secrets(new: &Config, running: &Config, named: &[String]) -> Vec<String> {
    let login = |config: &Config| config.relay.as_ref().map(|relay| relay.component.clone());
    let logins = [
        ("component", new.components != running.components, "secret"),
        ("account", new.account != running.account, "password"),
        ("relay", login(new) != login(running), "secret"),
    ];
    let is_named = |table: &str| named.iter().any(|key| key.starts_with(table));
    let other = logins.into_iter();
    let other = other.filter(|(table, is_other, _)| *is_other && !is_named(table));
    let other = other.map(|(table, _, secret)| format!("the {table}'s {secret}"));
    other.collect()
}

/// Whether an option is read at the start alone.
fn is_fixed(key: &str, may_change_tls: bool, may_change_relay: bool) -> bool {
    let table = key.split(['.', '[']).next().unwrap_or(key);
    match table {
        "limits" | "quota" | "access" | "bans" | "retention" | "keys" | "operators" | "contact"
        | "log" | "warm_binding" | "external" => false,
        "component" if key.contains(".legacy_namespaces") => false,
        "relay" => {
            let rules = [
                "relay.answer_within",
                "relay.pending_max",
                "relay.pending_total_max",
            ];
            !(may_change_relay && rules.contains(&key))
        }
        _ => !(may_change_tls && key.starts_with("http.tls.")),
    }
}

/// The options that have other values, or are in one of the two alone.
fn differing(before: &[Configured], after: &[Configured]) -> Vec<String> {
    let values = |rows: &[Configured]| -> BTreeMap<String, String> {
        let pair = |row: &Configured| (row.key.clone(), row.value.clone());
        rows.iter().map(pair).collect()
    };
    let (before, mut after) = (values(before), values(after));
    let mut differing = Vec::new();
    for (key, value) in before {
        if after.remove(&key).as_ref() != Some(&value) {
            differing.push(key);
        }
    }
    differing.extend(after.into_keys());
    differing.sort();
    differing
}

#[cfg(test)]
mod tests {
    use super::is_fixed;

    #[test]
    fn what_a_start_alone_reads_is_fixed() {
        let fixed = |key: &str| is_fixed(key, true, true);
        for key in [
            "data_dir",
            "component.jid",
            "component[0].secret_file",
            "account.relay",
            "relay.target",
            "http.listen[0]",
            "admin.listen[0]",
        ] {
            assert!(fixed(key), "{key}");
        }
        for key in [
            "limits.max_file_size",
            "external[0].protocol[0]",
            "external.path",
            "component.legacy_namespaces[0]",
            "component[1].legacy_namespaces[0]",
            "warm_binding.path",
            "relay.answer_within",
            "http.tls.key",
        ] {
            assert!(!fixed(key), "{key}");
        }
        // A relay, or TLS, that was not there begins with a start.
        assert!(is_fixed("relay.answer_within", true, false));
        assert!(is_fixed("http.tls.key", false, true));
    }
}
