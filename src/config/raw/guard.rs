//! Who looks on, and who is kept out: `[admin]` and `[bans]`.

use serde::{Deserialize, Serialize};

/// `[admin]`: off, because every account of the machine reaches a loopback port, and because a port
/// that is taken shall not keep uploads from starting.
#[derive(Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawAdmin {
    pub(in crate::config) listen: Vec<String>,
    pub(in crate::config) insecure: bool,
}

/// `[bans]`
#[derive(Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawBans {
    pub(in crate::config) after_failures: i64,
    pub(in crate::config) within: String,
    pub(in crate::config) ban_for: String,
}

impl Default for RawBans {
    fn default() -> Self {
        Self {
            // No honest client forges one credential; behind one address may be a whole school.
            after_failures: 50,
            // A script fails so often in a second; what fails now and then harms nobody.
            within: "10 minutes".to_owned(),
            // Long enough that trying on is no use, short enough for the next owner of an address.
            ban_for: "1 hour".to_owned(),
        }
    }
}
