//! Who asks, where a relay stands between: the address by which it hands a requester's stanzas on.
//!
//! A relay, as Prosody's mod_client_proxy is one, writes who asks as the resource of its own
//! address: `upload.example.org/romeo@example.org/phone`. The XMPP server vouches for the host and
//! for nothing behind it, so that the one host of the configuration is believed, and no other.

use jid::BareJid;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker<'a> {
    /// This JID, as the relay spells it. Its account is one; its resource may be unknown to us.
    Requester(&'a str),
    /// Somebody whose address the relay does not tell: it stands for an address that is too long
    /// for a resource, or there is none.
    Unnamed,
    /// Anybody else than the relay.
    Stranger,
}

/// Who asks by a stanza from `from`, where `relay` is the one host that is believed.
///
/// A JID without a local part is nobody's: a relay's handle for a longer address may look like one.
pub fn asker<'a>(from: &'a str, relay: &str) -> Asker<'a> {
    let (host, rest) = match from.split_once('/') {
        Some((host, rest)) => (host, Some(rest)),
        None => (from, None),
    };
    if !is_host(host, relay) {
        return Asker::Stranger;
    }
    let is_account = |rest: &&str| {
        let bare = rest.split('/').next().unwrap_or_default();
        BareJid::new(bare).is_ok_and(|bare| bare.node().is_some())
    };
    match rest.filter(is_account) {
        Some(rest) => Asker::Requester(rest),
        None => Asker::Unnamed,
    }
}

/// Whether a text is the host's name. Servers prepare what they vouch for: nothing else is alike.
pub fn is_host(text: &str, host: &str) -> bool {
    text.eq_ignore_ascii_case(host)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RELAY: &str = "upload.example.org";

    #[track_caller]
    fn check(from: &str, asked: Asker<'_>) {
        assert_eq!(asker(from, RELAY), asked, "{from}");
    }

    #[test]
    fn the_relay_is_believed() {
        for requester in [
            "romeo@example.org/phone",
            "romeo@example.org",
            "romeo@example.org/a/b@c/d",
            "romeo@example.org/\u{1f980}",
            "ROMEO@Example.org/phone",
        ] {
            check(&format!("{RELAY}/{requester}"), Asker::Requester(requester));
        }
        check("Upload.EXAMPLE.org/a@b/c", Asker::Requester("a@b/c"));
    }

    #[test]
    fn what_names_no_account_names_nobody() {
        for rest in [
            "/",
            "/handle",
            "/example.org/romeo@example.org",
            "/@example.org/x",
            "/romeo@/x",
            "/a@@example.org",
            "/romeo@-/x",
            "//romeo@example.org",
            "",
        ] {
            check(&format!("{RELAY}{rest}"), Asker::Unnamed);
        }
    }

    #[test]
    fn nobody_else_is_believed() {
        for from in [
            "",
            "/",
            "example.org/romeo@example.org/phone",
            "upload.example.org.evil.example/romeo@example.org/phone",
            "evil@upload.example.org/romeo@example.org/phone",
            "@upload.example.org/romeo@example.org/phone",
            "romeo@example.org/upload.example.org/romeo@example.org/phone",
            "upload.example.org@evil.example/romeo@example.org/phone",
            " upload.example.org/romeo@example.org/phone",
        ] {
            check(from, Asker::Stranger);
        }
    }

    /// Texts that hold parts of addresses where they need not be.
    fn texts() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            Just(RELAY.to_owned()),
            Just("UPLOAD.example.org".to_owned()),
            Just("romeo@example.org".to_owned()),
            Just("/".to_owned()),
            Just("@".to_owned()),
            Just(".".to_owned()),
            any::<char>().prop_map(String::from),
        ];
        proptest::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
    }

    proptest! {
        /// Whoever is believed came from the relay's host, and is what stands behind it.
        #[test]
        fn another_host_is_never_believed(from in texts()) {
            match asker(&from, RELAY) {
                Asker::Requester(requester) => {
                    let host = from.strip_suffix(requester).expect("the end of it");
                    prop_assert_eq!(host.to_lowercase(), "upload.example.org/");
                }
                Asker::Unnamed => {
                    let host = from.split('/').next().expect("one");
                    prop_assert!(is_host(host, RELAY));
                }
                Asker::Stranger => prop_assert!(!from.starts_with("upload.example.org/")),
            }
        }

        /// A requester's own address passes through whatever it holds.
        #[test]
        fn requesters_are_told_as_they_are(resource in texts()) {
            let requester = format!("romeo@example.org/{resource}");
            let from = format!("{RELAY}/{requester}");
            prop_assert_eq!(asker(&from, RELAY), Asker::Requester(requester.as_str()));
        }
    }
}
