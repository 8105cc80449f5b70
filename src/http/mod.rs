//! Edge: HTTP.
