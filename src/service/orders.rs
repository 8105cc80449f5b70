//! What operators said that holds across restarts: kept in the store, and at hand in memory, since
//! every slot asks for it.

use arc_swap::ArcSwap;
use jid::BareJid;
use tokio::sync::Mutex;

use crate::core::command::fault::CommandFault;
use crate::core::command::operation::{Exception, Exceptions, Outcome, PAGE_MAX};
use crate::core::orders::{EXCEPTIONS_MAX, NOTE, Orders, Said};
use crate::core::refusal::Refusal;
use crate::service::{Service, broken};
use crate::store::StoreError;

/// What operators said.
#[derive(Default)]
pub(super) struct OrderBook {
    held: ArcSwap<Orders>,
    /// Held by who changes them: of two at once the older would win.
    turn: Mutex<()>,
}

impl OrderBook {
    pub(super) fn said_of(&self, requester: &BareJid) -> Said {
        self.held.load().said_of(requester)
    }
}

impl Service {
    /// Takes up what operators said before the last stop: once, at the start.
    pub async fn load_orders(&self) -> Result<(), StoreError> {
        let kept = self.stores.sessions.orders().await?;
        self.orders.held.store(Orders::read(kept).into());
        Ok(())
    }

    /// What an operator wants everybody to know.
    pub fn note(&self) -> Option<String> {
        self.orders.held.load().note.clone()
    }

    /// Sets the quota of an account or a domain, or goes back to the configuration's. Refuses
    /// `TooManyExceptions`.
    pub(super) async fn set_exception(
        &self,
        jid: BareJid,
        limit: Option<u64>,
    ) -> Result<Outcome, Refusal> {
        let _turn = self.orders.turn.lock().await;
        let mut orders = Orders::clone(&self.orders.held.load());
        match limit {
            Some(limit) => drop(orders.exceptions.insert(jid.clone(), limit)),
            None => drop(orders.exceptions.remove(&jid)),
        }
        if EXCEPTIONS_MAX < orders.exceptions.len() {
            return Err(Refusal::Command(CommandFault::TooManyExceptions));
        }
        let value = limit.map(|limit| limit.to_string());
        self.keep(Orders::exception_name(&jid), value, orders)
            .await?;
        Ok(Outcome::ExceptionSet(jid, limit))
    }

    /// Sets what everybody shall know, or takes it back.
    pub(super) async fn set_note(&self, note: Option<String>) -> Result<Outcome, Refusal> {
        let _turn = self.orders.turn.lock().await;
        let mut orders = Orders::clone(&self.orders.held.load());
        orders.note = note.clone();
        self.keep(NOTE.to_owned(), note.clone(), orders).await?;
        Ok(Outcome::Noted(note))
    }

    async fn keep(
        &self,
        name: String,
        value: Option<String>,
        orders: Orders,
    ) -> Result<(), Refusal> {
        let kept = self.stores.sessions.set_order(name, value).await;
        kept.map_err(|e| broken("keep what an operator said", &e))?;
        self.orders.held.store(orders.into());
        Ok(())
    }

    /// A page of the quotas that differ from the usual ones.
    pub(super) fn exceptions(&self, skip: usize) -> Exceptions {
        let (orders, settings) = (self.orders.held.load(), self.settings());
        let said = orders.exceptions.iter();
        let said = said.map(|(jid, limit)| (jid.clone(), (*limit, true)));
        let configured = settings.policy.quota.exceptions.iter();
        let configured = configured.map(|(jid, limit)| (jid.clone(), (*limit, false)));
        // Of one that was said and is configured, the one that counts.
        let all: std::collections::BTreeMap<_, _> = configured.chain(said).collect();
        let has_more = skip + PAGE_MAX < all.len();
        let page = all.into_iter().skip(skip).take(PAGE_MAX);
        let exception = |(jid, (limit, is_said))| Exception {
            jid,
            limit,
            is_said,
        };
        Exceptions {
            page: page.map(exception).collect(),
            has_more,
        }
    }
}
