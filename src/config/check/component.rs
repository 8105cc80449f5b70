//! Checks `[component]`, or each `[[component]]`.

use super::{Checker, ReadSecret, missing};
use crate::config::error::{Key, Problem};
use crate::config::raw::{RawComponent, RawComponents};
use crate::config::secret::SecretSource;
use crate::config::{Component, Secret, value};

/// The most streams of one host.
const CONNECTIONS_MAX: i64 = 16;

impl Checker {
    pub(super) fn components(
        &mut self,
        raw: &RawComponents,
        read_secret: &ReadSecret<'_>,
    ) -> Option<Vec<Component>> {
        let table = Key::of("component");
        if raw.list.is_empty() {
            self.warn("component", "there is none: nobody can ask for slots");
        }
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

    pub(super) fn component(
        &mut self,
        key: &Key,
        raw: &RawComponent,
        read_secret: &ReadSecret<'_>,
    ) -> Option<Component> {
        let example = match key.option() {
            "relay" => "relay",
            _ => "upload",
        };
        let jid = match &raw.jid {
            Some(jid) => value::domain(jid, &format!("name the host: \"{example}.example.org\"")),
            None => Err(missing(
                &key.to_string(),
                "jid",
                &format!("{example}.example.org"),
            )),
        };
        let jid = self.take(key.name("jid"), jid);
        let server = self.take(key.name("server"), value::server(&raw.server));
        let range = 1..=CONNECTIONS_MAX;
        let connections = self.number(key.name("connections"), raw.connections, range);
        let secret = self.secret(key, raw, read_secret);
        Some(Component {
            jid: jid?,
            server: server?,
            secret: secret?,
            connections: u8::try_from(connections?).ok()?,
        })
    }

    fn secret(
        &mut self,
        key: &Key,
        raw: &RawComponent,
        read_secret: &ReadSecret<'_>,
    ) -> Option<Secret> {
        let inline = raw.secret.clone().map(SecretSource::Inline);
        let file = match &raw.secret_file {
            Some(text) => Some(self.take(key.name("secret_file"), value::path(text))?),
            None => None,
        };
        let credential = raw.secret_credential.clone();
        let mut given = [
            ("secret", inline),
            ("secret_file", file.map(SecretSource::File)),
            (
                "secret_credential",
                credential.map(SecretSource::Credential),
            ),
        ]
        .into_iter()
        .filter_map(|(name, source)| Some((name, source?)));
        let Some((name, source)) = given.next() else {
            return self.take(key.clone(), read_secret(None));
        };
        if let Some((second, _)) = given.next() {
            let what = format!("{name} is given too");
            let remedy = "keep one of secret, secret_file, secret_credential";
            return self.take(key.name(second), Err(Problem::new(what, remedy)));
        }
        self.take(key.name(name), read_secret(Some(&source)))
    }
}
