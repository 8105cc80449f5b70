//! Checks `[relay]`.

use jid::BareJid;

use super::{Checker, HOUR, ReadSecret, SECOND, missing};
use crate::config::error::{Key, Problem};
use crate::config::raw::RawRelay;
use crate::config::{Component, Relay, value};
use crate::core::relay::Terms;

/// Most asks that wait: each takes up to 25 KiB.
const PENDING_MAX: i64 = 65_536;

impl Checker {
    /// The relay, where there is one; `None` where something is wrong with it.
    pub(super) fn relay(
        &mut self,
        raw: Option<&RawRelay>,
        components: Option<&[Component]>,
        read_secret: &ReadSecret<'_>,
    ) -> Option<Option<Relay>> {
        let Some(raw) = raw else {
            return Some(None);
        };
        let component = self.component(&Key::of("relay"), &raw.login(), read_secret);
        let target = self.take("relay.target", target(raw));
        let answer_within = self.duration("relay.answer_within", &raw.answer_within, SECOND..=HOUR);
        let range = 1..=PENDING_MAX;
        let pending_max = self.number("relay.pending_max", raw.pending_max, range.clone());
        let total = self.number("relay.pending_total_max", raw.pending_total_max, range);
        let (component, target) = (component?, target?);
        self.relay_differs(&component, &target, components.unwrap_or_default());
        Some(Some(Relay {
            component,
            target,
            terms: Terms {
                answer_within: answer_within?,
                pending_max: usize::try_from(pending_max?).ok()?,
                pending_total_max: usize::try_from(total?).ok()?,
            },
        }))
    }

    /// What is sent to the relay must not come back to it, nor mean a component.
    fn relay_differs(&mut self, relay: &Component, target: &BareJid, components: &[Component]) {
        if components.iter().any(|it| it.jid == relay.jid) {
            let remedy = "give the relay a host of its own: \"relay.example.org\"";
            self.refuse("relay.jid", "[component] has it too", remedy);
        }
        if target.domain().as_str() == relay.jid {
            let remedy = "name an account of the XMPP server: \"service@example.org\"";
            self.refuse("relay.target", "is an address of the relay itself", remedy);
        }
    }
}

fn target(raw: &RawRelay) -> Result<BareJid, Problem> {
    let example = "service@example.org";
    let text = raw.target.as_ref();
    let jid = value::bare_jid(text.ok_or_else(|| missing("relay", "target", example))?)?;
    match jid.node() {
        Some(_) => Ok(jid),
        None => Err(Problem::new(
            format!("{:?} is no account", jid.as_str()),
            format!("name an account: {example:?}"),
        )),
    }
}
