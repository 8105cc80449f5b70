//! The addresses under which the target sees requesters.

use hmac::{Hmac, KeyInit as _, Mac as _};
use jid::ResourcePart;
use sha2::Sha256;

/// How many bytes of a digest make a handle: nobody guesses 128 bits.
const HANDLE_BYTES: usize = 16;

/// Finds addresses.
pub struct Addressing {
    secret: [u8; 32],
}

impl Addressing {
    /// Handles depend on `secret`: random, and known to nobody else.
    pub fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// The resource of the relay's host under which the target sees the requester `from`.
    ///
    /// It is the whole JID where that can be a resource, as with mod_client_proxy: the target reads
    /// from it who asks. A longer one, or one that a server would write differently, gets a handle:
    /// always the same for the same requester, until the relay starts anew. It begins with `@`,
    /// which no JID does, so that nobody takes it for one. It is not kept: the ask knows whose it
    /// is.
    pub fn of(&self, from: &str) -> String {
        match ResourcePart::new(from) {
            Ok(part) if part.as_str() == from => from.to_owned(),
            _ => self.handle(from),
        }
    }

    fn handle(&self, from: &str) -> String {
        let mut digest = Hmac::<Sha256>::new_from_slice(&self.secret).expect("any key will do");
        digest.update(from.as_bytes());
        let digest = digest.finalize().into_bytes();
        let hex = digest.iter().take(HANDLE_BYTES);
        hex.fold("@".to_owned(), |handle, byte| format!("{handle}{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(from: &str) -> String {
        Addressing::new([7; 32]).of(from)
    }

    #[test]
    fn a_jid_that_can_be_a_resource_is_one() {
        let longest = format!("romeo@example.net/{}", "x".repeat(1023 - 18));
        for from in [
            "romeo@example.net/phone",
            "romeo@example.net/a/b@c d",
            "example.net",
            "r\u{f6}meo@example.net/caf\u{e9}",
            &longest,
        ] {
            assert_eq!(of(from), from);
        }
    }

    /// Longer ones, and those that another server would prepare or refuse.
    #[test]
    fn any_other_gets_a_handle_of_its_own() {
        let long = format!("romeo@example.net/{}", "x".repeat(1023 - 17));
        let mut handles = Vec::new();
        for from in [
            long.as_str(),
            "romeo@example.net/\u{1faf6}",
            "romeo@example.net/\u{2460}",
            "romeo@example.net/\u{7f}",
        ] {
            let handle = of(from);
            assert_eq!(handle, of(from), "the same each time");
            assert_eq!(handle.len(), 33);
            assert!(jid::Jid::new(&handle).is_err(), "{handle}");
            assert_eq!(
                ResourcePart::new(&handle).expect("a resource").as_str(),
                handle
            );
            assert_ne!(Addressing::new([8; 32]).of(from), handle);
            handles.push(handle);
        }
        handles.sort();
        handles.dedup();
        assert_eq!(handles.len(), 4);
    }
}
