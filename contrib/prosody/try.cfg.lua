-- A Prosody of its own on loopback, for trying slotd and for its tests; contrib/demo and
-- tests/run fill in the words between @ signs and add slotd.cfg.lua at the end.
-- Not for production: it has a self-signed certificate and talks to no other server.

run_as_root = true
pidfile = "@DIR@/prosody.pid"
data_path = "@DIR@/data"
certificates = "@DIR@"
log = { info = "*console" }

interfaces = { "127.0.0.1" }
c2s_ports = { @C2S_PORT@ }
component_interfaces = { "127.0.0.1" }
component_ports = { @COMPONENT_PORT@ }
s2s_ports = {}
http_ports = {}
https_ports = {}

modules_enabled = { "roster", "saslauth", "tls", "disco", "ping", "carbons", "offline" }
modules_disabled = { "s2s" }
authentication = "internal_hashed"
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
ssl = { certificate = "@DIR@/tls.crt", key = "@DIR@/tls.key" }

VirtualHost "@DOMAIN@"
