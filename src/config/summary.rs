//! What a configuration means, in a few lines for the admin: `slotd check`.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;

use super::{Account, Component, Config, Listen, ServerAddress, value};
use crate::core::accel::Accel;
use crate::core::bosh::manager::Door;
use crate::core::session::network::AddressPolicy;

/// A configuration, told in lines.
pub struct Summary<'a>(pub &'a Config);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_logins(f)?;
        self.write_edges(f)?;
        self.write_external(f)?;
        self.write_warm(f)?;
        self.write_limits(f)?;
        match self.0.log.addresses {
            AddressPolicy::Full => {}
            AddressPolicy::Prefix => writeln!(f, "  addresses  of clients by their network alone")?,
            AddressPolicy::None => writeln!(f, "  addresses  of clients are not written down")?,
        }
        write!(f, "  data       {}", self.0.data_dir.display())
    }
}

impl Summary<'_> {
    /// As whom it logs in.
    fn write_logins(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config {
            components,
            account,
            relay,
            ..
        } = self.0;
        for component in components {
            writeln!(f, "  component  {}", told(component))?;
        }
        if let Some(account) = account {
            writeln!(f, "  account    {}", told_account(account))?;
        }
        if let Some(relay) = relay {
            let (host, target) = (told(&relay.component), &relay.target);
            writeln!(f, "  relay      {host}, to {target}")?;
        }
        Ok(())
    }

    /// Who is served, and where.
    fn write_edges(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config {
            http,
            admin,
            policy,
            ..
        } = self.0;
        let access = &policy.access;
        let who: Vec<String> = access
            .domains
            .iter()
            .map(|domain| format!("accounts of {domain}"))
            .chain(access.jids.iter().map(ToString::to_string))
            .collect();
        write!(f, "  uploads    {}", who.join(", "))?;
        if !access.deny.is_empty() {
            write!(f, "; not {}", joined(&access.deny))?;
        }
        writeln!(f)?;
        let tls = if http.tls.is_some() {
            "with TLS"
        } else {
            "without TLS"
        };
        let sockets: Vec<String> = http.listen.iter().map(socket).collect();
        writeln!(
            f,
            "  http       {} {tls}, as {}",
            sockets.join(", "),
            http.public_url
        )?;
        if !admin.listen.is_empty() {
            let sockets: Vec<String> = admin.listen.iter().map(socket).collect();
            writeln!(f, "  private    {}", sockets.join(", "))?;
        }
        if !http.trusted_proxies.is_empty() {
            let forwards = match http.proxy_forwards_1xx {
                true => "; they forward interim responses",
                false => "",
            };
            writeln!(
                f,
                "  proxies    {}{forwards}",
                joined(&http.trusted_proxies)
            )?;
        }
        match &http.accel {
            Accel::Off => {}
            Accel::XAccelRedirect { location } => {
                writeln!(
                    f,
                    "  downloads  sent by nginx, from its location {location}"
                )?;
            }
            Accel::XSendfile => writeln!(f, "  downloads  sent by the proxy (X-Sendfile)")?,
        }
        Ok(())
    }

    /// Whose tokens are taken beside our own.
    fn write_external(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for system in &self.0.external {
            let formats = system.formats.iter().map(|format| format.name());
            let (prefix, domain) = (&system.prefix, &system.domain);
            match joined(&formats.collect::<Vec<_>>()).as_str() {
                "" => writeln!(f, "  external   {prefix} without tokens, of {domain}")?,
                tokens => writeln!(f, "  external   {prefix} with tokens {tokens}, of {domain}")?,
            }
        }
        Ok(())
    }

    /// Who binds sessions for others.
    fn write_warm(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(warm) = &self.0.warm_binding else {
            return Ok(());
        };
        let domains: Vec<&str> = warm.managers.keys().map(String::as_str).collect();
        let (domains, path) = (domains.join(", "), &warm.path);
        let door = match warm.door {
            Door::Admin => "on the private listener",
            Door::Http => "where uploads are",
        };
        writeln!(f, "  warm       bindings for {domains}, at {path} {door}")
    }

    /// How much there may be of what, and for how long.
    fn write_limits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config {
            policy,
            limits,
            retention,
            ..
        } = self.0;
        writeln!(
            f,
            "  limits     {} a file, {} slots a minute, {} connections ({} an address)",
            ByteSize(policy.size_bytes_max),
            limits.slot_rate.per_minute,
            limits.connections_total_max,
            limits.connections_per_address_max,
        )?;
        let lifetimes = &policy.lifetimes;
        writeln!(
            f,
            "  sessions   {} after the last byte ({} over HTTP alone), {} refreshes, {} at most; \
             {} open a requester",
            value::spell(lifetimes.idle_for),
            value::spell(lifetimes.rufh_idle_for),
            lifetimes.refreshes_max,
            value::spell(lifetimes.session_age),
            policy.open_sessions_max,
        )?;
        let quota = &policy.quota;
        writeln!(
            f,
            "  quota      {} a requester, {} a domain, {} in total, in {}; {} exceptions",
            size(quota.per_requester),
            size(quota.per_domain),
            size(quota.total),
            value::spell(quota.window),
            quota.exceptions.len(),
        )?;
        if let Some(limit) = &self.0.bans {
            let (within, ban_for) = (value::spell(limit.within), value::spell(limit.ban_for));
            let after = limit.after;
            writeln!(
                f,
                "  bans       after {after} failures within {within}, for {ban_for}"
            )?;
        }
        let keep = &policy.lifetimes.retention;
        writeln!(
            f,
            "  retention  {}; profile {}, ephemeral {}, permanent {}; {} in all",
            span(keep.message),
            span(keep.profile),
            span(keep.ephemeral),
            span(keep.permanent),
            size(retention.total_bytes_max),
        )
    }
}

fn told(component: &Component) -> String {
    let server = match &component.server {
        ServerAddress::Tcp(address) => address.clone(),
        ServerAddress::Unix(path) => format!("unix:{}", path.display()),
    };
    match component.connections {
        1 => format!("{} at {server}", component.jid),
        n => format!("{} at {server}, {n} connections", component.jid),
    }
}

fn told_account(account: &Account) -> String {
    let (jid, relay) = (&account.jid, &account.relay);
    let server = match &account.server {
        Some((host, port)) => format!("{host}:{port}"),
        None => "the server that DNS names".to_owned(),
    };
    let resource = match &account.resource {
        Some(resource) => format!("/{resource}"),
        None => String::new(),
    };
    format!("{jid}{resource} at {server}, behind {relay}")
}

fn socket(listen: &Listen) -> String {
    match listen {
        Listen::Tcp(address) => address.to_string(),
        Listen::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn joined<T: ToString>(items: &[T]) -> String {
    let texts: Vec<String> = items.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

fn size(limit: Option<u64>) -> String {
    limit.map_or("no limit".to_owned(), |n_bytes| {
        ByteSize(n_bytes).to_string()
    })
}

fn span(keep_for: Option<Duration>) -> String {
    keep_for.map_or("forever".to_owned(), value::spell)
}
