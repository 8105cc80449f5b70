//! What several test files share.
#![allow(dead_code, missing_docs, reason = "each test file uses a part of it")]

pub mod faulty;
pub mod front;
pub mod manager;
pub mod outage;
pub mod rows;
pub mod servers;
pub mod site;
pub mod slow;
pub mod sockets;
pub mod upload;
pub mod world;
