//! PUT, answered in front: the connection is lent to the body, and comes back for the answer.

use super::ask::Ask;
use super::body::Arriving;
use super::line::Line;
use super::reply::Reply;
use super::{End, Front};
use crate::core::refusal::Refusal;
use crate::core::session::network::Visitor;
use crate::http::meter::{Answered, Reading};
use crate::http::put::{self, Asked, Caller};
use crate::http::{Edge, Origin, visitor};
use crate::service::upload::Received;
use crate::store::Body;

impl<S: Line> Front<S> {
    /// Answers a PUT; the front again if another request may follow.
    pub(super) async fn take(mut self, ask: Ask) -> Result<Self, End<S>> {
        let facts = self.facts(&ask);
        let visitor = visitor(&facts, &ask.headers);
        let reading = Reading::default();
        let n_first = usize::try_from(ask.length).unwrap_or(usize::MAX);
        let first = self.buffer.split_to(n_first.min(self.buffer.len()));
        if self.buffer.is_empty() {
            self.buffer = bytes::BytesMut::new();
        }
        let (body, back) = Arriving::new(self.wire, &ask, first.freeze(), reading.clone());
        let (taken, permit) = match self.edge.enter(Some(self.origin), facts.client) {
            Ok(permit) => {
                let taking = receive(&self.edge, self.origin, &ask, visitor, Box::pin(body));
                (taking.await, permit)
            }
            Err(refusal) => {
                drop(body);
                (Err(refusal), None)
            }
        };
        let Ok(back) = back.await else {
            return Err(End::Gone);
        };
        self.wire = back.wire;
        let is_whole = reading.is_at_end();
        let is_banned = matches!(taken, Err(Refusal::Banned { .. }));
        let is_last = ask.is_last || is_banned || !is_whole || self.is_stopping();
        if let Err(refusal) = &taken
            && let Ok(place) = &ask.place
            && let Ok(credential) = put::credential(place, &ask.uri, &ask.headers)
        {
            let service = &self.edge.service;
            service.blame_address(facts.client, &credential, refusal);
        }
        let reply = match taken {
            Ok(received) => Reply::created(&received, is_last),
            Err(refusal) => {
                self.edge.tell_refused(&refusal);
                Reply::refused(refusal, &ask, is_last).await
            }
        };
        let mut answered = Answered::new(reply.status, facts, Some(reading), permit);
        let sent = async {
            self.wire
                .send_bytes(back.unsent, rustix::net::SendFlags::empty())
                .await?;
            self.wire.send(reply, &mut answered.n_bytes).await
        };
        match sent.await {
            Err(error) => Err(self.cut(&error)),
            Ok(()) if !is_whole => Err(self.end(true)),
            Ok(()) if is_last => Err(self.close()),
            Ok(()) => Ok(self),
        }
    }
}

/// What `Edge::answer` does for other requests.
async fn receive(
    edge: &Edge,
    origin: Origin,
    ask: &Ask,
    visitor: Visitor,
    body: Body,
) -> Result<Received, Refusal> {
    edge.check_host(Some(origin), &ask.uri, http::Version::HTTP_11, &ask.headers)?;
    let asked = Asked {
        place: ask.place.as_ref().map_err(Refusal::clone)?,
        uri: &ask.uri,
        headers: &ask.headers,
    };
    let caller = Caller {
        visitor,
        dialect: None,
        early: None,
    };
    put::take(&edge.service, asked, caller, body).await
}
