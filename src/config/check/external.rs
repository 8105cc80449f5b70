//! Checks each `[[external]]`: other systems whose tokens are taken.

use std::collections::BTreeSet;

use jid::BareJid;

use super::component::Said;
use super::{Checker, ReadSecret, missing};
use crate::config::error::{Key, Problem};
use crate::config::raw::{RawExternal, Tables};
use crate::config::{Http, Secret, value};
use crate::core::external::{Format, SharedSecret, System};

/// The most systems: each is looked at for each request.
const SYSTEMS_MAX: usize = 16;
/// What our own paths begin with, behind the base or without it.
const OWN_PREFIXES: [&str; 2] = ["f/", "r/"];

impl Checker {
    pub(super) fn external(
        &mut self,
        raw: &Tables<RawExternal>,
        http: Option<&Http>,
        read_secret: &ReadSecret<'_>,
    ) -> Option<Vec<System>> {
        let table = Key::of("external");
        if SYSTEMS_MAX < raw.list.len() {
            let what = format!("there are more than {SYSTEMS_MAX}");
            self.refuse(table.index(SYSTEMS_MAX), what, "leave some out");
        }
        let mut systems: Vec<Option<System>> = Vec::new();
        for (index, one) in raw.list.iter().enumerate() {
            let key = match raw.is_array {
                true => table.index(index),
                false => table.clone(),
            };
            let system = self.system(&key, one, http, read_secret);
            let is_taken = |path: &str| systems.iter().flatten().any(|it| it.prefix == path);
            if system.as_ref().is_some_and(|it| is_taken(&it.prefix)) {
                let remedy = "give each system a path of its own, or one all its protocols";
                self.refuse(key.name("path"), "another [[external]] has it too", remedy);
            }
            systems.push(system);
        }
        systems.into_iter().collect()
    }

    fn system(
        &mut self,
        key: &Key,
        raw: &RawExternal,
        http: Option<&Http>,
        read_secret: &ReadSecret<'_>,
    ) -> Option<System> {
        let path = match &raw.path {
            Some(path) => check_prefix(path, http),
            None => Err(missing("[external]", "path", "/upload/")),
        };
        let path = self.take(key.name("path"), path);
        let domain = match &raw.domain {
            Some(domain) => value::domain(domain, "name its domain: \"example.org\""),
            None => Err(missing("[external]", "domain", "example.org")),
        };
        let domain = self.take(key.name("domain"), domain);
        let (formats, secret, delete_secret) = self.tokens(key, raw, read_secret)?;
        Some(System {
            prefix: path?,
            formats,
            secret,
            delete_secret,
            domain: BareJid::new(&domain?).ok()?,
        })
    }

    /// The tokens that are taken, and the secrets of those who make them; none where nobody does:
    /// then the files that are there are served, and no other comes.
    fn tokens(
        &mut self,
        key: &Key,
        raw: &RawExternal,
        read_secret: &ReadSecret<'_>,
    ) -> Option<(Vec<Format>, SharedSecret, Option<SharedSecret>)> {
        let said = [
            ("secret", raw.secret.as_deref()),
            ("secret_file", raw.secret_file.as_deref()),
            ("secret_credential", raw.secret_credential.as_deref()),
        ];
        let delete_said = [
            ("delete_secret", raw.delete_secret.as_deref()),
            ("delete_secret_file", raw.delete_secret_file.as_deref()),
            (
                "delete_secret_credential",
                raw.delete_secret_credential.as_deref(),
            ),
        ];
        let is_said = |options: Said<'_>| options.iter().any(|(_, text)| text.is_some());
        let (has_secret, may_delete) = (is_said(said), is_said(delete_said));
        if raw.protocol.is_empty() && !has_secret && !may_delete {
            return Some((Vec::new(), SharedSecret::new(String::new()), None));
        }
        let formats = self.formats(&key.name("protocol"), &raw.protocol);
        if !has_secret && read_secret(None).is_err() {
            let remedy = "write secret_file = \"/etc/slotd/external.secret\", with what that \
                system has";
            self.refuse(key.clone(), "has no secret", remedy);
            return None;
        }
        let secret = self.secret(key, said, read_secret).map(shared);
        let delete_secret = match may_delete {
            true => Some(self.secret(key, delete_said, read_secret).map(shared)?),
            false => None,
        };
        if may_delete
            && formats
                .as_ref()
                .is_some_and(|it| !it.contains(&Format::Token))
        {
            let words = "changes nothing: protocol does not have \"token\"";
            self.warn(key.name("delete_secret"), words);
        }
        Some((formats?, secret?, delete_secret))
    }

    /// The formats, the strongest first.
    fn formats(&mut self, key: &Key, raw: &[String]) -> Option<Vec<Format>> {
        if raw.is_empty() {
            let remedy = "try [\"v2\"], as http_upload_external_protocol says";
            self.refuse(key.clone(), "names no format of tokens", remedy);
            return None;
        }
        let mut formats = BTreeSet::new();
        for (index, text) in raw.iter().enumerate() {
            let format = value::word(text, &Format::ALL);
            formats.insert(self.take(key.index(index), format)?);
        }
        let spell = |chosen: &dyn Fn(Format) -> bool| {
            let named = Format::ALL.iter().filter(|(_, it)| formats.contains(it));
            let names = named.filter(|(_, it)| chosen(*it)).map(|(name, _)| *name);
            names.collect::<Vec<_>>().join(", ")
        };
        let lasting = spell(&|format| !format.expires());
        if !lasting.is_empty() {
            let words = "tokens never expire: who has a link that was not used may use it for ever";
            self.warn(key.clone(), format!("{lasting}: {words}"));
        }
        let sizeless = spell(&|format| !format.has_size());
        if !sizeless.is_empty() {
            let words = "tokens hold no size: each is good for a file of limits.max_file_size";
            self.warn(key.clone(), format!("{sizeless}: {words}"));
        }
        Some(formats.into_iter().collect())
    }
}

fn shared(secret: Secret) -> SharedSecret {
    SharedSecret::new(secret.0)
}

/// A path that begins and ends in `/`, and is nobody else's.
fn check_prefix(text: &str, http: Option<&Http>) -> Result<String, Problem> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
    let is_whole = text.starts_with('/') && text.ends_with('/');
    let has_gap = text.contains("//") || text.split('/').any(|it| matches!(it, "." | ".."));
    if !is_whole || has_gap || !text.bytes().all(is_plain) {
        let what = format!("{text:?} is no path that begins and ends in \"/\"");
        return Err(Problem::new(what, "try \"/upload/\""));
    }
    let url: Option<http::Uri> = http.and_then(|http| http.public_url.parse().ok());
    let base = url.as_ref().map_or("/", http::Uri::path);
    let is_own = |base: &str| {
        let own = OWN_PREFIXES.iter().map(|own| format!("{base}{own}"));
        own.into_iter().any(|own| text.starts_with(&own))
    };
    match is_own("/") || is_own(base) {
        true => Err(Problem::new(
            format!("{text:?} is where slotd's own files are"),
            "try \"/upload/\"",
        )),
        false => Ok(text.to_owned()),
    }
}
