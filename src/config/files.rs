//! Looks at the files that a configuration names, and changes nothing.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::Access;

use super::check::Checker;
use super::error::{Key, Problem};
use super::{Config, Listen, data_dir, secret};

/// Bits of a mode that let everybody read.
const MODE_OTHERS_READ: u32 = 0o004;
/// Ports below are for root, or for who has the capability.
const PORT_UNPRIVILEGED_MIN: u16 = 1024;

/// Notes what is wrong with the files that `config` names, as far as looking shows it.
pub fn look(config: &Config, checker: &mut Checker) {
    look_at_data_dir(&config.data_dir, checker);
    tls(config, checker);
    directory(
        "retention.report_file",
        config.retention.report_file.as_deref(),
        checker,
    );
    directory("log.file", config.log.file.as_deref(), checker);
    directory("log.audit_file", config.log.audit_file.as_deref(), checker);
    for (index, listen) in config.http.listen.iter().enumerate() {
        let key = Key::of("http.listen").index(index);
        match listen {
            Listen::Tcp(address) if address.port() < PORT_UNPRIVILEGED_MIN => {
                let words = format!("{address} needs root or CAP_NET_BIND_SERVICE");
                checker.warnings.push((key, words));
            }
            Listen::Unix(path) if !path.parent().is_some_and(Path::is_dir) => {
                let words = format!("the directory of {} does not exist yet", path.display());
                checker.warnings.push((key, words));
            }
            _ => {}
        }
    }
}

/// Notes where a file that is written has no directory.
fn directory(key: &str, file: Option<&Path>, checker: &mut Checker) {
    let dir = file.map(|file| file.parent().unwrap_or(Path::new("/")));
    if let Some(dir) = dir.filter(|dir| !dir.is_dir()) {
        let what = format!("{}: no such directory", dir.display());
        let problem = Problem::new(what, format!("mkdir {}", dir.display()));
        checker.faults.push((Key::of(key), problem));
    }
}

/// Notes where everybody can read the configuration file, in which a secret stands at `key`.
pub fn look_at_own_mode(file: &Path, key: &str, checker: &mut Checker) {
    let Ok(metadata) = fs::metadata(file) else {
        return;
    };
    if metadata.permissions().mode() & MODE_OTHERS_READ != 0 {
        let file = file.display();
        let words = format!("everybody on this machine can read it: chmod 0640 {file}");
        checker.warn(key, words);
    }
}

/// The data directory is made at the first start where its parent is there, as the store does it.
fn look_at_data_dir(dir: &Path, checker: &mut Checker) {
    let key = "data_dir";
    let shown = dir.display();
    let wanted = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    let judged = data_dir::judge(dir, wanted).map_err(|problem| Problem {
        what: format!("{shown} {}", problem.what),
        ..problem
    });
    let Some(found) = checker.take(key, judged) else {
        return;
    };
    let Some(metadata) = found else {
        if dir.parent().is_some_and(Path::is_dir) {
            checker.warn(key, format!("{shown} is made at the first start"));
            return;
        }
        let what = format!("{shown}: no such directory, nor the one above it");
        let remedy = format!("install -d -m 0700 -o slotd {shown}");
        checker
            .faults
            .push((key.into(), Problem::new(what, remedy)));
        return;
    };
    if !is_ours(&metadata) {
        let words = format!(
            "{shown} belongs to user {}: start as that user",
            metadata.uid()
        );
        checker.warn(key, words);
    }
    for inner in ["files", "parts"] {
        let path = dir.join(inner);
        let Ok(inner) = fs::symlink_metadata(&path) else {
            continue;
        };
        if !inner.is_dir() || inner.dev() != metadata.dev() {
            let what = format!(
                "{}: not a directory of the same file system",
                path.display()
            );
            let remedy = "mount one file system over data_dir as a whole";
            checker
                .faults
                .push((key.into(), Problem::new(what, remedy)));
        }
    }
}

fn tls(config: &Config, checker: &mut Checker) {
    let Some(tls) = &config.http.tls else { return };
    let key = Key::of("http.tls");
    for (name, path) in [("certificate", &tls.certificate), ("key", &tls.key)] {
        let shown = path.display();
        let problem = match fs::File::open(path).and_then(|file| file.metadata()) {
            Ok(metadata) if !metadata.is_file() => Err(Problem::new(
                format!("{shown}: not a file"),
                "name a PEM file",
            )),
            Ok(metadata) if name == "key" => {
                secret::check_mode(path, metadata.permissions().mode())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(Problem::new(
                format!("{shown}: {error}"),
                "name a PEM file that slotd can read",
            )),
        };
        checker.take(key.name(name), problem);
    }
}

fn is_ours(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
}
