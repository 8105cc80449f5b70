//! What stanzas ask of the service, and how it is done.

use std::panic::resume_unwind;
use std::sync::Arc;

use jid::Jid;
use minidom::Element;

use super::head::Head;
use super::route::Desk;
use super::{commands, elements, legacy, session};
use crate::core::command::operation::Ping;
use crate::core::command::running::Step;
use crate::core::refusal::Refusal;
use crate::core::slot::{SessionId, Slot, SlotRequest};
use crate::service::Issued;
use crate::service::command::Caller;

/// What is asked of the service; its names are the meters'.
#[derive(strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Ask {
    /// A slot.
    Slot(SlotRequest),
    /// The same in a namespace of before.
    LegacySlot(SlotRequest, &'static str),
    /// How an upload session stands.
    Query(SessionId),
    /// The requester's upload sessions, where wanted of those in one state.
    List(Option<&'static str>),
    /// New credentials for an upload session.
    Refresh(SessionId),
    /// To give an upload up.
    Cancel(SessionId),
    /// A stage of a command, and how the server answered where it was asked for that.
    Command(Step, Ping),
}

/// The payload of a result.
pub enum Payload {
    /// A slot and nothing else.
    Slot(Slot),
    /// Any other, or none.
    Element(Option<Element>),
}

impl Ask {
    /// The same, knowing what came of a ping.
    pub fn with(self, ping: Ping) -> Self {
        match self {
            Self::Command(step, _) => Self::Command(step, ping),
            other => other,
        }
    }

    /// The payload of the result.
    pub async fn answer(
        self,
        desk: &Desk,
        head: &Head,
        requester: &Jid,
    ) -> Result<Payload, Refusal> {
        let service = &desk.service;
        let payload = match self {
            Self::Slot(request) => match service.request_slot(requester, request).await? {
                Issued {
                    slot,
                    session: None,
                } => return Ok(Payload::Slot(slot)),
                issued => Some(elements::issued(issued)),
            },
            Self::LegacySlot(request, namespace) => {
                let issued = service.request_slot(requester, request).await?;
                Some(legacy::slot(&issued.slot, namespace))
            }
            Self::Query(id) => {
                let view = service.query_session(requester, id).await?;
                Some(session::session(view))
            }
            Self::List(wanted) => {
                let list = service.list_sessions(requester, wanted).await?;
                Some(session::sessions(list))
            }
            Self::Refresh(id) => {
                let (service, requester) = (Arc::clone(service), requester.clone());
                let refresh = async move { service.refresh_session(&requester, id).await };
                Some(session::refreshed(to_its_end(refresh).await?))
            }
            Self::Cancel(id) => {
                let (service, requester) = (Arc::clone(service), requester.clone());
                let cancel = async move { service.cancel_session(&requester, id).await };
                to_its_end(cancel).await?;
                None
            }
            Self::Command(step, ping) => {
                let caller = Caller {
                    ping,
                    account: requester.to_bare(),
                    from: head.requester()?.to_owned(),
                };
                let node = step.node.clone();
                let staged = desk.operations.step_command(&caller, step).await?;
                Some(commands::staged(&node, staged))
            }
        };
        Ok(Payload::Element(payload))
    }
}

/// Runs what has several steps, also where the stream ends before: an upload that was cancelled
/// must not leave its bytes behind because nobody could be told.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::spawn(change).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // Nothing else ends it but the end of slotd.
            Err(_) => Err(Refusal::Stopping),
        },
    }
}
