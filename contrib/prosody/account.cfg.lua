-- For slotd as an ordinary account ([account] in slotd.toml), without a port for components:
-- mod_client_proxy hands requests to whoever is logged in as the account. It is no part of Prosody:
-- prosodyctl install --server=https://modules.prosody.im/rocks/ mod_client_proxy
-- Make the account with: prosodyctl adduser slotd@example.org
-- Where mod_limits is on, slotd's answers must not wait, in the part before the first VirtualHost:
-- unlimited_jids = { "slotd@example.org" }

Component "upload.example.org" "client_proxy"
	target_address = "slotd@example.org"
