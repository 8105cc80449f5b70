//! Sessions that are logged in for others: `[warm_binding]`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `[warm_binding]`
#[derive(Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawWarmBinding {
    pub(in crate::config) managers: BTreeMap<String, String>,
    pub(in crate::config) path: String,
    pub(in crate::config) listen: String,
}

impl Default for RawWarmBinding {
    fn default() -> Self {
        Self {
            // Only the admin knows where the connection managers are.
            managers: BTreeMap::new(),
            // Where mod_warm_bindings has it.
            path: "/warm".to_owned(),
            // Passwords come in here: not from the world, unless the admin says so.
            listen: "admin".to_owned(),
        }
    }
}
