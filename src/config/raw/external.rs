//! Other systems whose tokens are taken: `[[external]]`.

use serde::{Deserialize, Serialize};

use crate::config::table::hide;

/// `[external]`; nothing in it has a default, for it says what somebody else was told.
#[derive(Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawExternal {
    pub(in crate::config) path: Option<String>,
    pub(in crate::config) protocol: Vec<String>,
    pub(in crate::config) domain: Option<String>,
    #[serde(serialize_with = "hide")]
    pub(in crate::config) secret: Option<String>,
    pub(in crate::config) secret_file: Option<String>,
    pub(in crate::config) secret_credential: Option<String>,
    #[serde(serialize_with = "hide")]
    pub(in crate::config) delete_secret: Option<String>,
    pub(in crate::config) delete_secret_file: Option<String>,
    pub(in crate::config) delete_secret_credential: Option<String>,
}
