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
        let said = Said {
            prefix: "",
            inline: raw.secret.as_ref(),
            file: raw.secret_file.as_ref(),
            credential: raw.secret_credential.as_ref(),
        };
        let secret = self.secret(key, said, read_secret);
        Some(Component {
            jid: jid?,
            server: server?,
            secret: secret?,
            connections: u8::try_from(connections?).ok()?,
        })
    }

    /// The secret that `said` names. Refuses as `read_secret` does where there is none.
    pub(super) fn secret(
        &mut self,
        key: &Key,
        said: Said<'_>,
        read_secret: &ReadSecret<'_>,
    ) -> Option<Secret> {
        let prefix = said.prefix;
        let file = match said.file {
            Some(text) => {
                let key = key.name(&format!("{prefix}secret_file"));
                Some(self.take(key, value::path(text))?)
            }
            None => None,
        };
        let mut given = [
            ("secret", said.inline.cloned().map(SecretSource::Inline)),
            ("secret_file", file.map(SecretSource::File)),
            (
                "secret_credential",
                said.credential.cloned().map(SecretSource::Credential),
            ),
        ]
        .into_iter()
        .filter_map(|(name, source)| Some((format!("{prefix}{name}"), source?)));
        let Some((name, source)) = given.next() else {
            return self.take(key.clone(), read_secret(None));
        };
        if let Some((second, _)) = given.next() {
            let what = format!("{name} is given too");
            let remedy = format!(
                "keep one of {prefix}secret, {prefix}secret_file, {prefix}secret_credential"
            );
            return self.take(key.name(&second), Err(Problem::new(what, remedy)));
        }
        self.take(key.name(&name), read_secret(Some(&source)))
    }
}

/// Where a secret was said to be: by three options, whose names begin with `prefix`.
#[derive(Clone, Copy)]
pub(super) struct Said<'a> {
    pub(super) prefix: &'static str,
    pub(super) inline: Option<&'a String>,
    pub(super) file: Option<&'a String>,
    pub(super) credential: Option<&'a String>,
}

impl Said<'_> {
    /// Whether it was said at all.
    pub(super) fn is_any(self) -> bool {
        [self.inline, self.file, self.credential]
            .iter()
            .any(Option::is_some)
    }
}
