//! What was written under `[relay]`, and its defaults.

use serde::{Deserialize, Serialize};

use super::RawComponent;

/// `[relay]`
#[derive(Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawRelay {
    pub(in crate::config) jid: Option<String>,
    pub(in crate::config) server: String,
    #[serde(serialize_with = "crate::config::table::hide")]
    pub(in crate::config) secret: Option<String>,
    pub(in crate::config) secret_file: Option<String>,
    pub(in crate::config) secret_credential: Option<String>,
    pub(in crate::config) target: Option<String>,
    pub(in crate::config) answer_within: String,
    pub(in crate::config) pending_max: i64,
    pub(in crate::config) pending_total_max: i64,
}

impl Default for RawRelay {
    fn default() -> Self {
        Self {
            jid: None,
            server: RawComponent::default().server,
            secret: None,
            secret_file: None,
            secret_credential: None,
            target: None,
            // Many clients wait no longer themselves.
            answer_within: "60 seconds".to_owned(),
            // More than any client has under way; a loop is told to wait.
            pending_max: 128,
            // At worst some 25 MiB, and 8 MiB of requests that may be asked again.
            pending_total_max: 1024,
        }
    }
}

impl RawRelay {
    /// What it shares with a component.
    pub(in crate::config) fn login(&self) -> RawComponent {
        RawComponent {
            jid: self.jid.clone(),
            server: self.server.clone(),
            secret: self.secret.clone(),
            secret_file: self.secret_file.clone(),
            secret_credential: self.secret_credential.clone(),
            ..RawComponent::default()
        }
    }
}
