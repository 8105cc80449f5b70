//! Secrets of components: where they come from, and which are too weak.
//!
//! Nothing here puts a secret into a message.

use std::ffi::OsString;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Secret;
use super::error::Problem;

/// The shortest secret, in characters.
const SECRET_LEN_MIN: usize = 8;
/// No secret file is longer: 4 KiB; what is, is some other file.
const SECRET_FILE_BYTES_MAX: u64 = 4096;
/// Secrets that stand in somebody's documentation, in lower case; the last is our own sample's.
const KNOWN_SECRETS: [&str; 7] = [
    "changeme",
    "secret",
    "password",
    "topsecret",
    "component_secret",
    "mysecretcomponentpassword",
    "paste-what-slotd-keygen-prints",
];

/// Bits of a mode that let everybody read, write or execute.
const MODE_OTHERS: u32 = 0o007;

/// Where a secret comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// It stands in the configuration file.
    Inline(String),
    /// The first line of a file.
    File(PathBuf),
    /// A systemd credential of this name.
    Credential(String),
}

/// Reads a secret and refuses weak ones.
///
/// `credentials_dir` is `$CREDENTIALS_DIRECTORY`.
pub fn read(source: &SecretSource, credentials_dir: Option<OsString>) -> Result<Secret, Problem> {
    match source {
        SecretSource::Inline(text) => check(text),
        SecretSource::File(path) => check(&read_file(path)?),
        SecretSource::Credential(name) => {
            if name.is_empty() || name.contains('/') || name.starts_with('.') {
                let what = format!("{name:?} is not the name of a credential");
                return Err(Problem::new(
                    what,
                    "use the name before \":\" in LoadCredential=",
                ));
            }
            let Some(dir) = credentials_dir else {
                return Err(Problem::new(
                    "the service manager passed no credentials",
                    format!("add LoadCredential={name}:/etc/slotd/component.secret to the unit"),
                ));
            };
            check(&read_file(&Path::new(&dir).join(name))?)
        }
    }
}

fn read_file(path: &Path) -> Result<String, Problem> {
    let shown = path.display();
    let problem = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Problem::new(
            format!("{shown}: no such file"),
            format!("make one with: slotd keygen --out {shown}"),
        ),
        ErrorKind::PermissionDenied => Problem::new(
            format!("{shown}: not readable by this user"),
            format!("chown it to the user slotd runs as: chown slotd {shown}"),
        ),
        _ => Problem::new(format!("{shown}: {error}"), "name a readable file"),
    };
    let file = std::fs::File::open(path).map_err(problem)?;
    let metadata = file.metadata().map_err(problem)?;
    if !metadata.is_file() {
        let what = format!("{shown}: not a file");
        return Err(Problem::new(what, "name the file that holds the secret"));
    }
    check_mode(path, metadata.permissions().mode())?;
    let mut text = String::new();
    let long = || {
        Problem::new(
            format!("{shown}: not one line of text"),
            "write the secret alone",
        )
    };
    file.take(SECRET_FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|_| long())?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match line.contains('\n') || text.len() as u64 == SECRET_FILE_BYTES_MAX {
        true => Err(long()),
        false => Ok(line.to_owned()),
    }
}

/// Refuses a secret file that everybody on the machine can read.
pub fn check_mode(path: &Path, mode: u32) -> Result<(), Problem> {
    if mode & MODE_OTHERS == 0 {
        return Ok(());
    }
    let shown = path.display();
    let what = format!("{shown}: open to everybody (mode {:04o})", mode & 0o7777);
    Err(Problem::new(what, format!("chmod 0600 {shown}")))
}

fn check(text: &str) -> Result<Secret, Problem> {
    let remedy = "make one with: slotd keygen";
    let n_chars = text.chars().count();
    if text.trim().is_empty() {
        return Err(Problem::new("the secret is empty", remedy));
    }
    if KNOWN_SECRETS.contains(&text.to_lowercase().as_str()) {
        return Err(Problem::new(
            "the secret is one that everybody knows",
            remedy,
        ));
    }
    if n_chars < SECRET_LEN_MIN {
        let what = format!("the secret has fewer than {SECRET_LEN_MIN} characters");
        return Err(Problem::new(what, remedy));
    }
    if text.chars().any(char::is_control) {
        return Err(Problem::new("the secret has control characters", remedy));
    }
    Ok(Secret(text.to_owned()))
}
