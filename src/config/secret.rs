//! Secrets of components, and passwords of accounts: where they come from, and which are too weak.
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

/// Reads a secret and refuses weak ones; `None` is refused too.
///
/// `credentials_dir` is `$CREDENTIALS_DIRECTORY`.
pub fn read(
    source: Option<&SecretSource>,
    credentials_dir: Option<OsString>,
) -> Result<Secret, Problem> {
    let Some(source) = source else {
        return Err(Problem::new(
            "has no secret",
            "write secret_file = \"/etc/slotd/component.secret\"; slotd keygen makes one",
        ));
    };
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
    let what = format!("{shown}: mode {:04o} opens it to everybody", mode & 0o7777);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, part: &str) {
        match check(text) {
            Err(problem) => assert!(problem.what.contains(part), "{}", problem.what),
            Ok(_) => panic!("{text:?} is taken"),
        }
    }

    #[test]
    fn weak_secrets_are_refused() {
        refused("", "empty");
        refused("         ", "empty");
        refused("1234567", "fewer than 8");
        refused("changeme", "everybody knows");
        refused("Secret", "everybody knows");
        refused("paste-what-slotd-keygen-prints", "everybody knows");
        refused("12345678\n9", "control");
        assert!(check("12345678").is_ok());
        refused("\u{e4}\u{f6}\u{fc}\u{e4}\u{f6}\u{fc}", "fewer than 8");
    }

    #[test]
    fn a_secret_is_not_shown() {
        let secret = check("12345678").expect("good");
        assert_eq!(format!("{secret:?}"), "Secret(...)");
    }

    fn dir_with(text: &[u8], mode: u32) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("name");
        std::fs::write(&path, text).expect("written");
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&path, permissions).expect("set");
        dir
    }

    #[track_caller]
    fn check_file(text: &[u8], mode: u32, expected: Result<&str, &str>) {
        let dir = dir_with(text, mode);
        let source = SecretSource::File(dir.path().join("name"));
        let got = read(Some(&source), None).map(|secret| secret.0);
        match (&got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected),
            (Err(problem), Err(part)) => assert!(problem.what.contains(part), "{}", problem.what),
            _ => panic!("{got:?}"),
        }
    }

    #[test]
    fn files() {
        check_file(b"12345678", 0o600, Ok("12345678"));
        check_file(b"12345678\r\n", 0o640, Ok("12345678"));
        check_file(b" 12345678\n", 0o400, Ok(" 12345678"));
        check_file(b"12345678", 0o604, Err("mode 0604"));
        check_file(b"12345678", 0o602, Err("mode 0602"));
        check_file(b"12345678\n\n", 0o600, Err("not one line"));
        check_file(b"\xff\xfe345678", 0o600, Err("not one line"));
        check_file(&[b'x'; 5000], 0o600, Err("not one line"));
        check_file(b"", 0o600, Err("empty"));
        let source = SecretSource::File(PathBuf::from("/"));
        let problem = read(Some(&source), None).expect_err("a directory");
        assert!(problem.what.contains("not a file"), "{}", problem.what);
    }

    #[test]
    fn credentials() {
        let dir = dir_with(b"12345678\n", 0o400);
        let read = |name: &str, dir: Option<&Path>| {
            let source = SecretSource::Credential(name.to_owned());
            read(Some(&source), dir.map(|dir| dir.as_os_str().to_owned()))
        };
        assert!(read("name", Some(dir.path())).is_ok());
        assert!(read("other", Some(dir.path())).is_err());
        assert!(read("name", None).is_err());
        for name in ["", "../name", "/name", ".", "a/b"] {
            let problem = read(name, Some(dir.path())).expect_err(name);
            assert!(problem.what.contains("not the name"), "{}", problem.what);
        }
    }
}
