//! Checks `[account]`.

use jid::{BareJid, ResourcePart};

use super::{Checker, ReadSecret, missing};
use crate::config::error::{Key, Problem};
use crate::config::raw::{RawAccount, RawConfig};
use crate::config::{Account, ServerAddress, value};

impl Checker {
    /// The account, where there is one; then no component may be there.
    pub(super) fn account(
        &mut self,
        raw: &RawConfig,
        read_secret: &ReadSecret<'_>,
    ) -> Option<Option<Account>> {
        let Some(account) = &raw.account else {
            return Some(None);
        };
        if !raw.component.list.is_empty() {
            let remedy = "keep [component], or [account] where a relay stands between";
            self.refuse("account", "[component] is there too", remedy);
        }
        self.the_account(account, read_secret).map(Some)
    }

    fn the_account(&mut self, raw: &RawAccount, read_secret: &ReadSecret<'_>) -> Option<Account> {
        let key = Key::of("account");
        let jid = match &raw.jid {
            Some(jid) => account_jid(jid),
            None => Err(missing("account", "jid", "slotd@example.org")),
        };
        let jid = self.take(key.name("jid"), jid);
        let relay = match &raw.relay {
            Some(relay) => value::domain(relay, "name the relay's host: \"upload.example.org\""),
            None => Err(missing("account", "relay", "upload.example.org")),
        };
        let relay = self.take(key.name("relay"), relay);
        if let (Some(jid), Some(relay)) = (&jid, &relay)
            && jid.domain().as_str() == relay
        {
            let what = format!("{relay:?} is the server of account.jid, which is no relay");
            let remedy = "name the host of mod_client_proxy: \"upload.example.org\"";
            self.refuse("account.relay", what, remedy);
        }
        let resource = self.resource(raw.resource.as_deref());
        let server = self.account_server(raw);
        let ca = self.file("account.ca", raw.ca.as_deref());
        let password = self.secret(
            &key,
            [
                ("password", raw.password.as_deref()),
                ("password_file", raw.password_file.as_deref()),
                ("password_credential", raw.password_credential.as_deref()),
            ],
            &|source| match (source, read_secret(source)) {
                (None, Err(_)) => Err(Problem::new(
                    "has no password",
                    "write password_file = \"/etc/slotd/account.password\"",
                )),
                (_, read) => read,
            },
        );
        Some(Account {
            jid: jid?,
            password: password?,
            server: server?,
            ca: ca?,
            insecure: raw.insecure,
            resource: resource?,
            relay: relay?,
        })
    }

    fn resource(&mut self, text: Option<&str>) -> Option<Option<String>> {
        let Some(text) = text else {
            return Some(None);
        };
        let resource = ResourcePart::new(text).map(|resource| resource.as_str().to_owned());
        let resource = resource.map_err(|error| {
            let what = format!("{text:?} is not the resource of a JID: {error}");
            Problem::new(what, "try \"node-1\", or leave it out")
        });
        self.take("account.resource", resource).map(Some)
    }

    fn account_server(&mut self, raw: &RawAccount) -> Option<Option<(String, u16)>> {
        let server = match &raw.server {
            None => None,
            Some(text) => Some(self.take("account.server", host_and_port(text))?),
        };
        let host = server.as_ref().map(|(host, _)| host.as_str());
        if raw.insecure && !host.is_some_and(value::is_loopback) {
            let remedy = "name it in account.server: \"127.0.0.1:5222\", or use TLS";
            let what = "is for a server on this machine alone";
            self.refuse("account.insecure", what, remedy);
        } else if raw.insecure {
            self.warn("account.insecure", "the log-in may go without encryption");
        }
        Some(server)
    }
}

fn account_jid(text: &str) -> Result<BareJid, Problem> {
    let jid = value::bare_jid(text)?;
    match jid.node() {
        Some(_) => Ok(jid),
        None => Err(Problem::new(
            format!("{text:?} is a host, not an account"),
            "name the account: \"slotd@example.org\"; a host stands in component.jid",
        )),
    }
}

fn host_and_port(text: &str) -> Result<(String, u16), Problem> {
    let wrong = || {
        let what = format!("{text:?} is not a host and a port");
        Problem::new(what, "try \"xmpp.example.org:5222\"")
    };
    let address = match value::server(text) {
        Ok(ServerAddress::Tcp(address)) => address,
        Ok(ServerAddress::Unix(_)) | Err(_) => return Err(wrong()),
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    Ok((host.to_owned(), port.parse().map_err(|_| wrong())?))
}
