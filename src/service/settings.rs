//! The rules, which may change while the service runs: swapped as a whole, read without a lock.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;
use jid::BareJid;

use super::Service;
use crate::core::accel::Accel;
use crate::core::bans::BanPolicy;
use crate::core::bosh::manager::WarmBinding;
use crate::core::command::operation::Configured;
use crate::core::external::System;
use crate::core::policy::Policy;
use crate::core::rate::Rate;
use crate::core::session::network::AddressPolicy;

/// The rules, as service and edges need them: all that may change while the service runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The rules of slot requests.
    pub policy: Policy,
    /// What every URL given out begins with; ends in `/`.
    pub public_url: String,
    /// Whether the slot's token goes into the URL's query or into a header.
    pub token_in_header: bool,
    /// Slots for one requester.
    pub slot_rate: Rate,
    /// Bytes of slots for one requester.
    pub byte_rate: Option<Rate>,
    /// How long a transfer may stand still.
    pub stall_for: Duration,
    /// The slowest transfer, in bytes a second.
    pub rate_min_bytes: u64,
    /// Whether a PUT must have the slot's content type.
    pub check_content_type: bool,
    /// Above this many stored bytes the oldest files go first.
    pub total_bytes_max: Option<u64>,
    /// How long a key signs.
    pub rotate_every: Option<Duration>,
    /// How long a replaced key still opens tokens.
    pub keep_old_for: Duration,
    /// Who sends the bytes of downloads that come through a trusted proxy.
    pub accel: Accel,
    /// Who may be banned, and who is without an operator.
    pub bans: BanPolicy,
    /// Connections of one address.
    pub connections_per_address_max: usize,
    /// All connections.
    pub connections_total_max: usize,
    /// How long running requests may go on when the service is stopped.
    pub stop_within: Duration,
    /// How much of clients' addresses is written down.
    pub addresses: AddressPolicy,
    /// Namespaces of before XEP-0363 that are answered, too.
    pub legacy_namespaces: Vec<&'static str>,
    /// Other systems whose tokens are taken.
    pub external: Vec<Arc<System>>,
    /// Accounts that may run operators' commands.
    pub operators: Vec<BareJid>,
    /// Who binds BOSH sessions for others, and where, if anybody.
    pub warm_binding: Option<Arc<WarmBinding>>,
    /// XEP-0157 addresses: the field's name and its URIs.
    pub contact: Vec<(&'static str, Vec<String>)>,
    /// What is configured, for operators to look at.
    pub configured: Vec<Configured>,
}

impl Service {
    /// The rules as they are now. Who needs them twice for one thing keeps them, or they change in
    /// between.
    pub fn settings(&self) -> Guard<Arc<Settings>> {
        self.settings.load()
    }

    /// Puts other rules into force, for what begins from now on.
    pub fn set_settings(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }
}
