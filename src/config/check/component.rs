//! Checks `[component]`, or each `[[component]]`.

use std::collections::BTreeSet;

use super::{Checker, ReadSecret, missing};
use crate::config::error::{Key, Problem};
use crate::config::raw::{RawComponent, RawComponents, RawConfig};
use crate::config::secret::SecretSource;
use crate::config::{Component, LEGACY_NAMESPACES, Secret, value};

/// The most streams of one host.
const CONNECTIONS_MAX: i64 = 16;

/// Where a secret was said to be, if it was: by three options, inline, a file, or a credential.
pub(super) type Said<'a> = [(&'static str, Option<&'a str>); 3];

impl Checker {
    pub(super) fn components(
        &mut self,
        raw: &RawConfig,
        read_secret: &ReadSecret<'_>,
    ) -> Option<Vec<Component>> {
        let table = Key::of("component");
        if raw.component.list.is_empty() && raw.account.is_none() {
            self.warn("component", "there is none: nobody can ask for slots");
        }
        let raw = &raw.component;
        let mut components: Vec<Option<Component>> = Vec::new();
        for (index, one) in raw.list.iter().enumerate() {
            let key = match raw.is_array {
                true => table.index(index),
                false => table.clone(),
            };
            let component = self.component(&key, one, read_secret);
            let is_taken = |jid: &str| components.iter().flatten().any(|it| it.jid == jid);
            if component.as_ref().is_some_and(|it| is_taken(&it.jid)) {
                let remedy = "use connections = 2 for two streams of one host";
                self.refuse(key.name("jid"), "another [[component]] has it too", remedy);
            }
            components.push(component);
        }
        components.into_iter().collect()
    }

    fn component(
        &mut self,
        key: &Key,
        raw: &RawComponent,
        read_secret: &ReadSecret<'_>,
    ) -> Option<Component> {
        let jid = match &raw.jid {
            Some(jid) => value::domain(jid, "name the host: \"upload.example.org\""),
            None => Err(missing("component", "jid", "upload.example.org")),
        };
        let jid = self.take(key.name("jid"), jid);
        let server = self.take(key.name("server"), value::server(&raw.server));
        let range = 1..=CONNECTIONS_MAX;
        let connections = self.number(key.name("connections"), raw.connections, range);
        let secret = self.secret(
            key,
            [
                ("secret", raw.secret.as_deref()),
                ("secret_file", raw.secret_file.as_deref()),
                ("secret_credential", raw.secret_credential.as_deref()),
            ],
            read_secret,
        );
        Some(Component {
            jid: jid?,
            server: server?,
            secret: secret?,
            connections: u8::try_from(connections?).ok()?,
        })
    }

    /// The namespaces of before XEP-0363 that some component names, each once.
    pub(super) fn legacy_namespaces(&mut self, raw: &RawComponents) -> Option<Vec<&'static str>> {
        let words = LEGACY_NAMESPACES.map(|namespace| (namespace, namespace));
        let mut named = BTreeSet::new();
        for (index, one) in raw.list.iter().enumerate() {
            let table = Key::of("component");
            let table = if raw.is_array {
                table.index(index)
            } else {
                table
            };
            let key = table.name("legacy_namespaces");
            for (index, text) in one.legacy_namespaces.iter().enumerate() {
                named.insert(self.take(key.index(index), value::word(text, &words))?);
            }
        }
        Some(named.into_iter().collect())
    }

    /// The secret of a table. Refuses as `read_secret` does where there is none.
    pub(super) fn secret(
        &mut self,
        key: &Key,
        options: Said<'_>,
        read_secret: &ReadSecret<'_>,
    ) -> Option<Secret> {
        let names = options.map(|(name, _)| name);
        let [inline, file, credential] = options.map(|(_, text)| text);
        let file = match file {
            Some(text) => Some(self.take(key.name(names[1]), value::path(text))?),
            None => None,
        };
        let sources = [
            inline.map(|text| SecretSource::Inline(text.to_owned())),
            file.map(SecretSource::File),
            credential.map(|name| SecretSource::Credential(name.to_owned())),
        ];
        let given = names.into_iter().zip(sources);
        let mut given = given.filter_map(|(name, source)| Some((name, source?)));
        let Some((name, source)) = given.next() else {
            return self.take(key.clone(), read_secret(None));
        };
        if let Some((second, _)) = given.next() {
            let what = format!("{name} is given too");
            let remedy = format!("keep one of {}", names.join(", "));
            return self.take(key.name(second), Err(Problem::new(what, remedy)));
        }
        self.take(key.name(name), read_secret(Some(&source)))
    }
}
