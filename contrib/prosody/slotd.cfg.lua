-- The whole of Prosody's side. Put it at the end of /etc/prosody/prosody.cfg.lua (a Component line
-- ends the section of the host before it), or in a file of its own under /etc/prosody/conf.d/.
-- The name must be a subdomain of the VirtualHost whose accounts use it: then every client finds
-- the service by itself. Remove or comment out any `Component ... "http_file_share"` line.

Component "upload.example.org"
	component_secret = "PUT-YOUR-SECRET-HERE"
