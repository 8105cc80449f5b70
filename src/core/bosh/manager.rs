//! Where warm bindings are asked for, and which connection manager serves which domain.
//!
//! It is configured, and nothing of it comes from a request: whoever asks names a domain, and
//! either there is a manager for it or there is none.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the section `[warm_binding]` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmBinding {
    /// The connection manager of each domain.
    pub managers: BTreeMap<String, Manager>,
    /// The path of the form.
    pub path: String,
    /// On which listener.
    pub door: Door,
}

/// A listener of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The private one.
    Admin,
    /// The one of uploads, which the world reaches.
    Http,
}

/// A connection manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    /// Where it listens.
    pub place: Place,
    /// How requests name it.
    pub host: String,
    /// The path of its BOSH service.
    pub path: String,
}

/// Where a connection manager listens: a way on which nobody else reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Anywhere, with TLS.
    Tls {
        /// The name that its certificate has.
        host: String,
        /// The port.
        port: u16,
    },
    /// On this machine.
    Loopback {
        /// A loopback address, or a name of one.
        host: String,
        /// The port.
        port: u16,
    },
    /// At a Unix socket.
    Unix(PathBuf),
}

impl WarmBinding {
    /// Whether a path is the form's; what is below it is not.
    pub fn claims(&self, path: &str) -> bool {
        path == self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_has_its_path_alone() {
        let warm = WarmBinding {
            managers: BTreeMap::new(),
            path: "/warm".to_owned(),
            door: Door::Admin,
        };
        for (path, is_ours) in [
            ("/warm", true),
            ("/warm/", false),
            ("/warm/x", false),
            ("/warmer", false),
            ("/war", false),
            ("/", false),
            ("/x/warm", false),
        ] {
            assert_eq!(warm.claims(path), is_ours, "{path}");
        }
    }
}
