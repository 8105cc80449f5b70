//! Warm bindings where uploads are: the listener's own checks, before that room is asked.

use std::net::IpAddr;

use axum::extract::Request;
use axum::response::Response;
use http::{HeaderValue, Uri, header};

use super::head::Place;
use super::{Edge, Origin, guard, meter, reply};
use crate::core::forwarded;
use crate::core::refusal::Refusal;
use crate::warm::{Caller, Way};

impl Edge {
    /// Whether a request is for the room of warm bindings: files of ours have the first say; what
    /// another system has is whatever is left.
    pub(super) fn is_warm(&self, place: &Result<Place, Refusal>, uri: &Uri) -> bool {
        let is_left = matches!(place, Err(_) | Ok(Place::External(..)));
        is_left && self.warm.claims(uri.path())
    }

    /// Hands a request on to the room of warm bindings.
    pub(super) async fn answer_warm(
        &self,
        origin: Option<Origin>,
        facts: meter::Facts,
        request: Request,
    ) -> Response {
        let client = facts.client;
        let (request, reading) = meter::incoming(request);
        let (uri, headers) = (request.uri(), request.headers());
        let manner = reply::Manner {
            style: reply::ErrorStyle::of(headers),
            dialect: None,
            methods: "GET, POST",
        };
        let entered = match request.extensions().get() {
            Some(guard::Refused(refusal)) => Err(refusal.clone()),
            None => self
                .check_host(origin, uri, request.version(), headers)
                .and_then(|()| self.enter(origin, client)),
        };
        let permit = match entered {
            Ok(permit) => permit,
            Err(refusal) => {
                self.tell_refused(&refusal);
                let refused = reply::refuse(refusal, manner);
                let refused = reply::finish(refused, reply::After::Close);
                return meter::outgoing(refused, facts, reading, None);
            }
        };
        let caller = Caller {
            address: client,
            way: self.way(origin),
        };
        let mut response = self.warm.answer(caller, request).await;
        // None of the fields that let other sites' pages read our answers.
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        meter::outgoing(response, facts, reading, permit)
    }

    /// Whether anybody on the way reads what a request says.
    fn way(&self, origin: Option<Origin>) -> Way {
        let peer = origin.and_then(|origin| origin.peer);
        let is_loopback = |peer: IpAddr| peer.to_canonical().is_loopback();
        let is_near = peer.is_none_or(is_loopback) || forwarded::is_proxy(peer, &self.trusted);
        match self.has_tls || is_near {
            true => Way::Private,
            false => Way::Open,
        }
    }
}
