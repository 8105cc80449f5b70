//! slotd: an upload service for XMPP (XEP-0363) as an external component (XEP-0114).

pub mod config;
pub mod core;
pub mod daemon;
pub mod http;
pub mod log;
pub mod service;
pub mod store;
pub mod upkeep;
pub mod xmpp;
