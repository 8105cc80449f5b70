//! What operators said that holds across restarts: quota exceptions, and a note to everybody.
//!
//! The store keeps it as names and values of text; what of it cannot be read counts as unsaid.

use std::collections::BTreeMap;

use jid::BareJid;

/// Quota exceptions by command; those of the configuration are not counted.
pub const EXCEPTIONS_MAX: usize = 1000;
/// The longest note, in characters.
pub const NOTE_CHARS_MAX: usize = 500;

/// The name of the note.
pub const NOTE: &str = "note";
/// What the name of an exception begins with; the account or domain follows.
const EXCEPTION: &str = "quota:";

/// What operators said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Quotas of accounts and domains, in place of all others; `u64::MAX` is no limit.
    pub exceptions: BTreeMap<BareJid, u64>,
    /// What everybody shall know.
    pub note: Option<String>,
}

/// What operators said of one requester's quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Their own.
    pub requester: Option<u64>,
    /// Their domain's.
    pub domain: Option<u64>,
}

impl Orders {
    /// Reads what the store kept.
    pub fn read(kept: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut orders = Self::default();
        for (name, value) in kept {
            let jid = name.strip_prefix(EXCEPTION).map(BareJid::new);
            match (jid, value.parse()) {
                (Some(Ok(jid)), Ok(limit)) => drop(orders.exceptions.insert(jid, limit)),
                (None, _) if name == NOTE => orders.note = Some(value),
                _ => {}
            }
        }
        orders
    }

    /// The name under which an exception is kept.
    pub fn exception_name(jid: &BareJid) -> String {
        format!("{EXCEPTION}{jid}")
    }

    /// What was said of a requester's quota.
    pub fn said_of(&self, requester: &BareJid) -> Said {
        if self.exceptions.is_empty() {
            return Said::default();
        }
        let domain = BareJid::from_parts(None, requester.domain());
        Said {
            requester: self.exceptions.get(requester).copied(),
            domain: self.exceptions.get(&domain).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> BareJid {
        BareJid::new(text).expect("valid")
    }

    #[test]
    fn what_was_kept_is_read_again() {
        let romeo = jid("romeo@example.org");
        let kept = [
            (Orders::exception_name(&romeo), "5".to_owned()),
            (
                Orders::exception_name(&jid("example.org")),
                u64::MAX.to_string(),
            ),
            (NOTE.to_owned(), "7".to_owned()),
            ("quota:@".to_owned(), "7".to_owned()),
            ("quota:juliet@example.org".to_owned(), "much".to_owned()),
            ("from a later version".to_owned(), "x".to_owned()),
        ];
        let orders = Orders::read(kept);
        assert_eq!(orders.note.as_deref(), Some("7"));
        assert_eq!(orders.exceptions.len(), 2);
        let said = orders.said_of(&romeo);
        assert_eq!((said.requester, said.domain), (Some(5), Some(u64::MAX)));
        assert_eq!(orders.said_of(&jid("romeo@example.net")), Said::default());
    }
}
