//! Decides, and touches nothing: no sockets, no files, no clock, no random numbers, no waiting.
//!
//! Everything a decision needs arrives as an argument; what it decides goes back as a value. The
//! walls of this room are checked by `tests/tidy.rs`.

pub mod accel;
pub mod bans;
pub mod bosh;
pub mod command;
pub mod download;
pub mod event;
pub mod external;
pub mod forwarded;
pub mod health;
pub mod history;
pub mod orders;
pub mod policy;
pub mod range;
pub mod rate;
pub mod refusal;
pub mod relayed;
pub mod resume;
pub mod session;
pub mod slot;
pub mod status;
pub mod time;
pub mod token;
