//! Streams to an XMPP server as one of its clients: those of `slotd send`, and of a service that
//! runs as an ordinary account.
//!
//! `reach` finds the server and speaks TLS, `trust` says whom it believes, `login` does the rest.

mod login;
mod reach;
mod trust;

pub use login::{Account, LoggedIn, LoginError, Terms, log_in, shown};
pub use reach::{DEAD_AFTER, Reach, Route, Unencrypted, is_distrust, tcp};
pub use trust::{TrustError, load};
