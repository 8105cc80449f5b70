//! Looks at the files that a configuration names, and changes nothing.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::Access;

use super::check::Checker;
use super::error::{Key, Problem};
use super::{Config, Listen, secret};

/// Bits of a mode that let everybody write.
const MODE_OTHERS_WRITE: u32 = 0o002;
/// Bits of a mode that let everybody read.
const MODE_OTHERS_READ: u32 = 0o004;
/// Ports below are for root, or for who has the capability.
const PORT_UNPRIVILEGED_MIN: u16 = 1024;

/// Notes what is wrong with the files that `config` names, as far as looking shows it.
pub fn look(config: &Config, checker: &mut Checker) {
    data_dir(&config.data_dir, checker);
    tls(config, checker);
    if let Some(file) = &config.retention.report_file {
        let dir = file.parent().unwrap_or(Path::new("/"));
        if !dir.is_dir() {
            let what = format!("{}: no such directory", dir.display());
            let problem = Problem::new(what, format!("mkdir {}", dir.display()));
            checker
                .faults
                .push((Key::of("retention.report_file"), problem));
        }
    }
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

/// Notes where everybody can read the configuration file, in which a secret stands.
pub fn look_at_own_mode(file: &Path, checker: &mut Checker) {
    let Ok(metadata) = fs::metadata(file) else {
        return;
    };
    if metadata.permissions().mode() & MODE_OTHERS_READ != 0 {
        let file = file.display();
        let words = format!("everybody on this machine can read it: chmod 0640 {file}");
        checker.warnings.push((Key::of("component.secret"), words));
    }
}

/// The data directory is made at the first start where its parent is there, as the store does it.
fn data_dir(dir: &Path, checker: &mut Checker) {
    let key = "data_dir";
    let shown = dir.display();
    let metadata = match fs::symlink_metadata(dir) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() != ErrorKind::NotFound => {
            let problem = Problem::new(
                format!("{shown}: {error}"),
                "name a directory that slotd can reach",
            );
            checker.faults.push((key.into(), problem));
            return;
        }
        Err(_) if dir.parent().is_some_and(Path::is_dir) => {
            checker.warn(key, format!("{shown} is made at the first start"));
            return;
        }
        Err(_) => {
            let what = format!("{shown}: no such directory, nor the one above it");
            let remedy = format!("install -d -m 0700 -o slotd {shown}");
            checker
                .faults
                .push((key.into(), Problem::new(what, remedy)));
            return;
        }
    };
    if checker.take(key, fit_for_data(dir, &metadata)).is_none() {
        return;
    }
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

fn fit_for_data(dir: &Path, metadata: &Metadata) -> Result<(), Problem> {
    let shown = dir.display();
    let problem = |what: &str, remedy: &str| Err(Problem::new(format!("{shown}: {what}"), remedy));
    if metadata.is_symlink() {
        return problem("a symbolic link", "name the directory itself");
    }
    if !metadata.is_dir() {
        return problem("not a directory", "name a directory of its own");
    }
    if metadata.permissions().mode() & MODE_OTHERS_WRITE != 0 {
        return problem("everybody can write to it", &format!("chmod 0700 {shown}"));
    }
    if !is_root() && !is_ours(metadata) {
        let remedy = format!("start as that user, or: chown -R slotd {shown}");
        return problem("belongs to another user", &remedy);
    }
    let wanted = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    match rustix::fs::access(dir, wanted) {
        Ok(()) => Ok(()),
        Err(error) => problem(
            &io::Error::from(error).to_string(),
            "let slotd read and write there",
        ),
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

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn is_ours(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
}
