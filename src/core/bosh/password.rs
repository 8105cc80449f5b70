//! A password, as long as it is needed and no longer.

use std::fmt;

use zeroize::{Zeroize as _, Zeroizing};

/// No password is longer, in bytes.
const BYTES_MAX: usize = 1024;

/// A password; `Debug` does not show it, and its memory is wiped.
///
/// Prepared as RFC 4013 says, as servers do before they compare: whoever types it elsewhere may
/// get other characters for the same ones.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes a password; `None` for what is none: nothing, control characters, more than 1 KiB.
    pub fn new(typed: Zeroizing<String>) -> Option<Self> {
        let is_one =
            !typed.is_empty() && typed.len() <= BYTES_MAX && !typed.chars().any(char::is_control);
        if !is_one {
            return None;
        }
        // What RFC 4013 does not know (it is older than emoji), the server has as it was typed.
        let prepared = stringprep::saslprep(&typed).map(|it| Zeroizing::new(it.into_owned()));
        let is_left = |prepared: &Zeroizing<String>| !prepared.is_empty();
        Some(Self(prepared.ok().filter(is_left).unwrap_or(typed)))
    }

    /// As SCRAM takes it.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// As PLAIN takes it: for nobody else (an empty authorization identity), by `name`. RFC 4616.
    pub(super) fn plain(&self, name: &str) -> Zeroizing<Vec<u8>> {
        let mut plain = Zeroizing::new(Vec::with_capacity(2 + name.len() + self.0.len()));
        plain.push(0);
        plain.extend_from_slice(name.as_bytes());
        plain.push(0);
        plain.extend_from_slice(self.as_bytes());
        plain
    }

    /// Wipes it before its time.
    pub(super) fn forget(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(...)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(typed: &str, taken: Option<&str>) {
        let password = Password::new(Zeroizing::new(typed.to_owned()));
        let got = password.map(|password| password.0.to_string());
        assert_eq!(got.as_deref(), taken, "{typed:?}");
    }

    #[test]
    fn passwords_are_prepared() {
        check("a password", Some("a password"));
        check("I\u{ad}X", Some("IX"));
        check("\u{2168}", Some("IX"));
        check("cafe\u{301}", Some("caf\u{e9}"));
        // Whatever servers make of it, they got it like this.
        check("\u{1f40e}", Some("\u{1f40e}"));
        check("\u{ad}", Some("\u{ad}"));
    }

    #[test]
    fn what_is_none_is_refused() {
        check("", None);
        check("a\0b", None);
        check("a\nb", None);
        check("a\u{85}b", None);
        check(&"x".repeat(1024), Some(&"x".repeat(1024)));
        check(&"x".repeat(1025), None);
    }

    #[test]
    fn it_is_shown_nowhere_and_forgotten() {
        let mut password = Password::new(Zeroizing::new("secret-4711".to_owned())).expect("one");
        assert_eq!(format!("{password:?}"), "Password(...)");
        assert_eq!(*password.plain("romeo"), b"\0romeo\0secret-4711");
        password.forget();
        assert_eq!(password.as_bytes(), b"");
    }
}
