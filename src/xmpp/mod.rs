//! Edge: streams to the XMPP server.
