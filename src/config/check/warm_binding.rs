//! Checks `[warm_binding]`.

use std::collections::BTreeMap;

use jid::BareJid;

use super::Checker;
use crate::config::error::{Key, Problem};
use crate::config::raw::{RawConfig, RawWarmBinding};
use crate::config::{Http, Listen, value};
use crate::core::bosh::manager::{Door, Manager, Place, WarmBinding};

/// What a path must not begin with: the pages of the private listener, and the rooms of uploads.
const TAKEN: [&str; 5] = ["/healthz", "/readyz", "/metrics", "/f", "/r"];
/// No path is longer.
const PATH_BYTES_MAX: usize = 200;
const TRY: &str = "try \"http://127.0.0.1:5280/http-bind\"";

impl Checker {
    /// The section, where there is one.
    pub(super) fn warm_binding(
        &mut self,
        raw: &RawConfig,
        operators: Option<&[BareJid]>,
        http: Option<&Http>,
    ) -> Option<Option<WarmBinding>> {
        let Some(section) = &raw.warm_binding else {
            return Some(None);
        };
        let managers = self.managers(section);
        let path = self.take("warm_binding.path", path(&section.path));
        let doors = [("admin", Door::Admin), ("http", Door::Http)];
        let door = value::word(&section.listen, &doors);
        let door = self.take("warm_binding.listen", door);
        match door {
            Some(Door::Admin) if raw.admin.listen.is_empty() => {
                let remedy = "write listen = [\"127.0.0.1:5051\"] under [admin]";
                self.refuse(
                    "warm_binding.listen",
                    "there is no private listener",
                    remedy,
                );
            }
            Some(Door::Admin) => self.check_private_way(raw),
            Some(Door::Http) => {
                self.check_way(http);
                if let Some(path) = &path {
                    self.check_systems(path, raw);
                }
            }
            _ => {}
        }
        let managers = managers?;
        let is_served = |jid: &BareJid| managers.contains_key(jid.domain().as_str());
        if operators.is_some_and(|all| !all.iter().any(is_served)) {
            let words = "no account of operators.jids is of a domain in here: nobody can use it";
            self.warn("warm_binding.managers", words);
        }
        Some(Some(WarmBinding {
            managers,
            path: path?,
            door: door?,
        }))
    }

    fn managers(&mut self, raw: &RawWarmBinding) -> Option<BTreeMap<String, Manager>> {
        let key = Key::of("warm_binding.managers");
        if raw.managers.is_empty() {
            let example = "{ \"example.org\" = \"http://127.0.0.1:5280/http-bind\" }";
            let remedy = format!("write managers = {example} under [warm_binding]");
            let remedy = Problem::new("names no connection manager", remedy);
            return self.take(key, Err(remedy));
        }
        let read = raw.managers.iter().map(|(domain, url)| {
            let key = key.name(domain);
            let remedy = "name the domain alone: \"example.org\"";
            let domain = self.take(key.clone(), value::domain(domain, remedy));
            let manager = self.take(key, manager(url));
            Some((domain?, manager?))
        });
        read.collect::<Vec<_>>().into_iter().collect()
    }

    /// The private listener has no TLS: passwords come to it on this machine, unless the admin says
    /// that who else is there may read them.
    fn check_private_way(&mut self, raw: &RawConfig) {
        let key = Key::of("admin.listen");
        for (index, text) in raw.admin.listen.iter().enumerate() {
            let is_open = matches!(value::listen(text), Ok(Listen::Tcp(address))
                if !address.ip().to_canonical().is_loopback());
            if !is_open {
                continue;
            }
            if raw.admin.insecure {
                let words = format!(
                    "{text:?}: DANGER: with [warm_binding] passwords of operators and users come \
                     in here without encryption: whoever sees the traffic reads them"
                );
                self.warn(key.index(index), words);
            } else {
                let what =
                    format!("{text:?} would show passwords of [warm_binding] to the network");
                let remedy = "use a loopback address or \"unix:/path/of/socket\", or \
                    admin.insecure = true where nobody else sees the traffic";
                self.refuse(key.index(index), what, remedy);
            }
        }
    }

    /// Where another system's files are, the form must not take the place of one. Such files are
    /// in folders: one beside them is in nobody's way.
    fn check_systems(&mut self, path: &str, raw: &RawConfig) {
        let key = "warm_binding.path";
        for prefix in raw.external.list.iter().filter_map(|it| it.path.as_deref()) {
            let is_same = prefix.strip_suffix('/') == Some(path);
            match path.strip_prefix(prefix) {
                Some(file) if !file.contains('/') => {
                    let words = format!("no file of that name is served below {prefix:?} any more");
                    self.warn(key, words);
                }
                None if !is_same => {}
                _ => {
                    let what = format!("{path:?} is where files of [[external]] are: {prefix:?}");
                    self.refuse(key, what, "try \"/warm\", or listen = \"admin\"");
                }
            }
        }
    }

    /// Passwords come in over TLS, or do not leave the machine before a proxy.
    fn check_way(&mut self, http: Option<&Http>) {
        let Some(http) = http else { return };
        let key = "warm_binding.listen";
        let host: Option<http::Uri> = http.public_url.parse().ok();
        let host = host.as_ref().and_then(|url| url.host()).unwrap_or_default();
        if http.public_url.starts_with("http://") && !value::is_loopback(host) {
            let what = "would show passwords to the network: http.public_url is http://";
            return self.refuse(key, what, "use https://, or listen = \"admin\"");
        }
        let words = "passwords of operators and users come in from wherever HTTP is reached";
        self.warn(key, words);
    }
}

/// Reads a path of ours that nothing else has.
fn path(text: &str) -> Result<String, Problem> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
    let is_part = |part: &str| !matches!(part, "" | "." | "..");
    let parts = text.strip_prefix('/').unwrap_or_default();
    if !text.bytes().all(is_plain) || !parts.split('/').all(is_part) || PATH_BYTES_MAX < text.len()
    {
        let what = format!("{text:?} is no path");
        return Err(Problem::new(what, "try \"/warm\""));
    }
    let is_below = |taken: &&str| {
        let rest = text.strip_prefix(*taken);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match TAKEN.into_iter().find(is_below) {
        Some(taken) => {
            let what = format!("{text:?} is in the way of {taken}");
            Err(Problem::new(what, "try \"/warm\""))
        }
        None => Ok(text.to_owned()),
    }
}

/// Reads where a connection manager is: https, or a way that does not leave this machine.
fn manager(text: &str) -> Result<Manager, Problem> {
    if let Some(rest) = text.strip_prefix("unix:") {
        return unix(text, rest);
    }
    // Shown in no message: a URL with a password in it.
    if text.split(['?', '#']).next().unwrap_or("").contains('@') {
        return Err(Problem::new("has user information before an \"@\"", TRY));
    }
    let wrong = |what: &str| Problem::new(format!("{text:?} {what}"), TRY);
    if text.contains(['?', '#']) {
        return Err(wrong("has a query or a fragment"));
    }
    let uri: http::Uri = text.parse().map_err(|_| wrong("is not a URL"))?;
    let (Some(host), Some(authority)) = (uri.host(), uri.authority()) else {
        return Err(wrong("is not a URL"));
    };
    let has_port = authority.as_str().len() != host.len();
    let port = uri.port_u16().filter(|port| *port != 0);
    if host.is_empty() || has_port != port.is_some() {
        return Err(wrong("has no host, or no port from 1 to 65535 after it"));
    }
    let bare = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let place = match uri.scheme_str() {
        Some("https") => Place::Tls {
            port: port.unwrap_or(443),
            host: bare,
        },
        Some("http") if value::is_loopback(host) => Place::Loopback {
            port: port.unwrap_or(80),
            host: bare,
        },
        Some("http") => {
            let what = format!("{text:?} would show passwords to the network");
            return Err(Problem::new(what, "use https://"));
        }
        _ => return Err(wrong("is not an http URL")),
    };
    Ok(Manager {
        place,
        host: authority.as_str().to_owned(),
        path: uri.path().to_owned(),
    })
}

/// Reads `unix:/path/of/socket:/path/of/service`, as nginx writes it.
fn unix(text: &str, rest: &str) -> Result<Manager, Problem> {
    let wrong = || {
        let what = format!("{text:?} names no socket and no path in it");
        Problem::new(what, "try \"unix:/run/prosody/http.sock:/http-bind\"")
    };
    let (socket, path) = rest.rsplit_once(':').ok_or_else(wrong)?;
    let is_path = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic());
    match is_path && !path.contains(['?', '#']) {
        true => Ok(Manager {
            place: Place::Unix(value::path(socket)?),
            host: "localhost".to_owned(),
            path: path.to_owned(),
        }),
        false => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, place: &Place, host: &str, path: &str) {
        let manager = manager(text).expect(text);
        assert_eq!(&manager.place, place, "{text}");
        assert_eq!(
            (manager.host.as_str(), manager.path.as_str()),
            (host, path),
            "{text}"
        );
    }

    #[test]
    fn managers() {
        let loopback = |host: &str, port| Place::Loopback {
            host: host.to_owned(),
            port,
        };
        let tls = |host: &str, port| Place::Tls {
            host: host.to_owned(),
            port,
        };
        let at = loopback("127.0.0.1", 5280);
        check(
            "http://127.0.0.1:5280/http-bind",
            &at,
            "127.0.0.1:5280",
            "/http-bind",
        );
        check(
            "http://[::1]:5280/bosh",
            &loopback("::1", 5280),
            "[::1]:5280",
            "/bosh",
        );
        check(
            "http://localhost/bosh",
            &loopback("localhost", 80),
            "localhost",
            "/bosh",
        );
        check(
            "https://a.example.org",
            &tls("a.example.org", 443),
            "a.example.org",
            "/",
        );
        let at = tls("a.example.org", 5281);
        check(
            "HTTPS://a.example.org:5281/x",
            &at,
            "a.example.org:5281",
            "/x",
        );
        let at = Place::Unix("/run/a.sock".into());
        check("unix:/run/a.sock:/bosh", &at, "localhost", "/bosh");
        for text in [
            "",
            "127.0.0.1:5280",
            "/http-bind",
            "ftp://127.0.0.1/x",
            "http://example.org/http-bind",
            "http://10.0.0.1:5280/http-bind",
            "http://127.0.0.1.example.org/",
            "http://user:secret@127.0.0.1/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:99999/",
            "http://127.0.0.1:/x",
            "http:///x",
            "https://example.org/x?y",
            "https://example.org/x#y",
            "https://exa mple.org/",
            "unix:/run/a.sock",
            "unix:run/a.sock:/bosh",
            "unix:/run/a.sock:bosh",
            "unix:/run/a.sock:/bo sh",
        ] {
            let Err(problem) = manager(text) else {
                panic!("{text} is taken")
            };
            assert!(!problem.what.contains("secret"), "{}", problem.what);
        }
    }

    #[test]
    fn paths() {
        for good in ["/warm", "/a/b", "/fa", "/metrics2"] {
            assert!(path(good).is_ok(), "{good}");
        }
        let long = format!("/{}", "x".repeat(PATH_BYTES_MAX));
        for bad in [
            "",
            "/",
            "warm",
            "/warm/",
            "/a//b",
            "/../a",
            "/a/.",
            "/w?x",
            "/w x",
            "/%41",
            &long,
            "/metrics",
            "/f",
            "/f/x",
            "/r",
            "/healthz/a",
            "/readyz",
        ] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}
