//! `[account]`: an ordinary account behind a relay, in place of a component.

use serde::{Deserialize, Serialize};

/// `[account]`
#[derive(Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawAccount {
    pub(in crate::config) jid: Option<String>,
    #[serde(serialize_with = "crate::config::table::hide")]
    pub(in crate::config) password: Option<String>,
    pub(in crate::config) password_file: Option<String>,
    pub(in crate::config) password_credential: Option<String>,
    /// None: where DNS says.
    pub(in crate::config) server: Option<String>,
    pub(in crate::config) ca: Option<String>,
    pub(in crate::config) insecure: bool,
    /// None: the server makes one, so that nodes differ by themselves.
    pub(in crate::config) resource: Option<String>,
    pub(in crate::config) relay: Option<String>,
}
