//! Edge: PUT, GET, HEAD and OPTIONS of files; one function from request to answer.
//!
//! The layers, from the socket inwards: `pace` ends clients that do not read, `tls` decrypts,
//! `guard` lets only request heads through that `framing` finds
//! well-formed, `early` writes interim responses, hyper parses, `Edge::answer`
//! here decides who answers, `put` and `get` translate for the service, `reply` makes the answer's
//! head. `listen` holds the sockets and their limits.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{Method, header};
use ipnet::IpNet;
use tokio::sync::watch;

use crate::config;
use crate::core::forwarded;
use crate::core::refusal::Refusal;
use crate::service::Service;

pub mod connection;
pub mod early;
mod framing;
mod gate;
mod get;
mod guard;
mod hall;
mod head;
pub mod listen;
mod meter;
mod pace;
mod put;
mod reply;
pub mod tls;

/// Where a request came from: `listen` puts it beside each request.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The other end's address; `None` for a Unix socket.
    pub peer: Option<IpAddr>,
    /// Our address on this connection.
    pub local: Option<IpAddr>,
}

/// What requests need beside themselves.
struct Edge {
    service: Arc<Service>,
    site: head::Site,
    trusted: Vec<IpNet>,
    /// Requests in flight through trusted proxies, by the address they name.
    in_flight: Arc<gate::Gate>,
    told_of_host: AtomicBool,
}

/// The HTTP side as a tower service: what `listen` serves, and what tests call.
pub fn router(service: Arc<Service>, http: &config::Http, limits: &config::Limits) -> Router {
    let edge = Edge {
        service,
        site: head::Site::of(&http.public_url),
        trusted: http.trusted_proxies.clone(),
        in_flight: gate::Gate::new(limits.connections_per_address_max),
        told_of_host: AtomicBool::new(false),
    };
    Router::new().fallback(handle).with_state(Arc::new(edge))
}

/// Returns when the service shall stop.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // A sender that is gone can never ask for it: the process is ending anyway.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn handle(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let started = Instant::now();
    let origin = request.extensions().get::<Origin>().copied();
    let peer = origin.and_then(|origin| origin.peer);
    let client = forwarded::client(peer, request.headers(), &edge.trusted);
    let style = reply::ErrorStyle::of(request.headers());
    let facts = meter::Facts {
        method: meter::method_name(request.method()),
        slot: edge
            .site
            .file(request.uri().path())
            .ok()
            .map(|(id, _)| id.short()),
        client,
        started,
    };
    let is_framed = is_framed(&request);
    let (request, reading) = meter::incoming(request);
    let mut permit = None;
    let answer = match edge.enter(origin, client) {
        Ok(entered) => {
            permit = entered;
            edge.answer(origin, request).await
        }
        Err(refusal) => Err(refusal),
    };
    let response = answer.unwrap_or_else(|refusal| reply::refuse(&refusal, style));
    let after = match reading.is_at_end() && is_framed {
        true => reply::After::KeepAlive,
        false => reply::After::Close,
    };
    meter::outgoing(reply::finish(response, after), facts, reading, permit)
}

/// Whether nobody can take what follows a request for a part of it, or the other way round.
///
/// RFC 9112 #6.1: chunks may hide what another parser would call a second request. A body without
/// a length would be one.
fn is_framed(request: &Request) -> bool {
    let headers = request.headers();
    let has_end =
        headers.contains_key(header::CONTENT_LENGTH) || framing::is_bodiless(request.method());
    has_end && !headers.contains_key(header::TRANSFER_ENCODING)
}

impl Edge {
    /// Counts a request that came through a trusted proxy, until its answer is sent; other clients
    /// are counted by connection.
    fn enter(
        &self,
        origin: Option<Origin>,
        client: Option<IpAddr>,
    ) -> Result<Option<gate::Permit>, Refusal> {
        let (Some(origin), Some(client)) = (origin, client) else {
            return Ok(None);
        };
        if !forwarded::is_proxy(origin.peer, &self.trusted) {
            return Ok(None);
        }
        self.in_flight.enter(client).map(Some)
    }

    async fn answer(&self, origin: Option<Origin>, request: Request) -> Result<Response, Refusal> {
        if let Some(guard::Refused(refusal)) = request.extensions().get() {
            return Err(refusal.clone());
        }
        let (uri, headers) = (request.uri(), request.headers());
        let local = origin.and_then(|origin| origin.local);
        self.site
            .check_host(uri, request.version(), headers, local)
            .inspect_err(|refusal| self.tell_of_host(refusal, headers))?;
        head::check_expect(headers)?;
        if request.method() == Method::OPTIONS {
            return Ok(reply::options());
        }
        let (id, name) = self.site.file(uri.path())?;
        match *request.method() {
            Method::GET | Method::HEAD => get::answer(&self.service, id, &name, request).await,
            Method::PUT => put::answer(&self.service, id, name, request).await,
            _ => Err(Refusal::MethodNotAllowed),
        }
    }

    /// Tells the admin, once, what a wrongly set up proxy looks like from here.
    fn tell_of_host(&self, refusal: &Refusal, headers: &http::HeaderMap) {
        let is_first = || !self.told_of_host.swap(true, Ordering::Relaxed);
        if *refusal == Refusal::OtherHost && is_first() {
            let host = headers.get(header::HOST).map(|value| value.as_bytes());
            let host = String::from_utf8_lossy(host.unwrap_or_default());
            tracing::warn!(
                ?host,
                "a request was for another host than http.public_url: if it came through your \
                 proxy, let that pass Host on (nginx: proxy_set_header Host $host) (told once)"
            );
        }
    }
}
