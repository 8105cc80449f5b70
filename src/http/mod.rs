//! Edge: PUT, GET, HEAD and OPTIONS of files, HEAD, PATCH and DELETE of uploads; one function from
//! request to answer.
//!
//! `front` answers GET, HEAD and PUT of files by itself, downloads without TLS with the kernel's
//! help, and hands the connection on at the first request that is anything else.
//!
//! The layers behind it, from the socket inwards: `pace` ends clients that do not read, `tls`
//! decrypts, `guard` lets only request heads through that `framing` finds well-formed, `early`
//! writes interim responses, hyper parses, `Edge::answer` here decides who answers, `put`, `get`
//! and `resume` translate for the service, `reply` makes the answer's head. `listen` holds the
//! sockets and their limits.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, Uri, Version, header};
use ipnet::IpNet;
use tokio::sync::watch;

use crate::config;
use crate::core::bosh::manager::Door;
use crate::core::event::Event;
use crate::core::external::Format;
use crate::core::forwarded;
use crate::core::refusal::Refusal;
use crate::core::resume::{Dialect, answer as words};
use crate::core::session::network::Visitor;
use crate::core::slot::SlotId;
use crate::service::Service;
use crate::service::upload::Credential;
use crate::warm::Warm;

pub mod connection;
pub mod early;
mod framing;
mod front;
mod gate;
mod get;
mod guard;
mod hall;
mod head;
pub mod inherited;
pub mod listen;
mod meter;
mod pace;
mod put;
mod reply;
mod resume;
mod room;
pub mod tls;
mod warm;

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
    /// Whether trusted proxies pass interim responses on.
    proxy_forwards_1xx: bool,
    /// Requests in flight through trusted proxies, by the address they name.
    in_flight: Arc<gate::Gate>,
    told_of_host: AtomicBool,
    /// Whether TCP connections are encrypted up to here.
    has_tls: bool,
    warm: Arc<Warm>,
}

/// The HTTP side as a tower service: what `listen` serves, and what tests call.
pub fn router(service: Arc<Service>, http: &config::Http) -> Router {
    router_of(Arc::new(Edge::new(service, http)))
}

fn router_of(edge: Arc<Edge>) -> Router {
    Router::new().fallback(handle).with_state(edge)
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
    let place = edge.place(request.uri().path());
    if edge.is_warm(&place, request.uri()) {
        let facts = edge.facts(&request, None, client, started);
        return edge.answer_warm(origin, facts, request).await;
    }
    let dialect = dialect(&place, &request);
    let manner = reply::Manner {
        style: reply::ErrorStyle::of(request.headers()),
        dialect,
        methods: methods(&place),
    };
    let file = place.as_ref().ok().and_then(head::Place::file);
    let facts = edge.facts(&request, file.map(|(id, _)| id), client, started);
    let asked = Asked {
        place,
        dialect,
        visitor: visitor(&facts, request.headers()),
        early: edge.early(origin, &request),
    };
    let credential = credential(&asked.place, &request);
    let is_framed = is_framed(&request);
    let (request, reading) = meter::incoming(request);
    let mut permit = None;
    let answer = match edge.enter(origin, client) {
        Ok(entered) => {
            permit = entered;
            edge.answer(origin, asked, request).await
        }
        Err(refusal) => Err(refusal),
    };
    if let (Err(refusal), Some(credential)) = (&answer, &credential) {
        edge.service.blame_address(client, credential, refusal);
    }
    let is_banned = matches!(answer, Err(Refusal::Banned { .. }));
    let response = answer.unwrap_or_else(|refusal| {
        edge.tell_refused(&refusal);
        reply::refuse(refusal, manner)
    });
    let after = match reading.is_at_end() && is_framed && !is_banned {
        true => reply::After::KeepAlive,
        false => reply::After::Close,
    };
    meter::outgoing(reply::finish(response, after), facts, reading, permit)
}

/// What `handle` knows of a request.
struct Asked {
    place: Result<head::Place, Refusal>,
    /// The protocol in which it resumes.
    dialect: Option<Dialect>,
    visitor: Visitor,
    /// How to tell its sender something before the answer.
    early: Option<early::Early>,
}

fn dialect(place: &Result<head::Place, Refusal>, request: &Request) -> Option<Dialect> {
    match place {
        Ok(head::Place::Upload(_)) => Some(Dialect::of_resume(request.headers())),
        Ok(_) if request.method() == Method::PUT => Dialect::of_put(request.headers()),
        _ => None,
    }
}

/// By what a request wants to write. What only looks needs no care: anybody's client follows links.
fn credential(place: &Result<head::Place, Refusal>, request: &Request) -> Option<Credential> {
    match (place, request.method()) {
        (_, &Method::GET | &Method::HEAD | &Method::OPTIONS) => None,
        (Ok(head::Place::Upload(sealed)), _) => Some(Credential::Resume(sealed.clone())),
        (Ok(place), &Method::PUT) => put::credential(place, request.uri(), request.headers()).ok(),
        (Ok(head::Place::External(..)), &Method::DELETE) => {
            let presented = head::presented(request.uri(), request.headers()).ok()?;
            presented.has(Format::Token).then_some(Credential::Deletion)
        }
        _ => None,
    }
}

fn methods(place: &Result<head::Place, Refusal>) -> &'static str {
    match place {
        Ok(head::Place::Upload(_)) => reply::UPLOAD_METHODS,
        Ok(head::Place::External(system, _)) if system.deletes() => reply::EXTERNAL_METHODS,
        _ => reply::FILE_METHODS,
    }
}

fn visitor(facts: &meter::Facts, headers: &HeaderMap) -> Visitor {
    let agent = headers.get(header::USER_AGENT);
    Visitor {
        address: facts
            .client
            .and_then(|client| facts.addresses.apply(client)),
        agent: agent.map(|agent| String::from_utf8_lossy(agent.as_bytes()).into_owned()),
    }
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
    fn new(service: Arc<Service>, http: &config::Http) -> Self {
        Self {
            warm: Warm::new(service.clone(), Door::Http),
            has_tls: http.tls.is_some(),
            service,
            site: head::Site::of(&http.public_url),
            trusted: http.trusted_proxies.clone(),
            proxy_forwards_1xx: http.proxy_forwards_1xx,
            in_flight: Arc::default(),
            told_of_host: AtomicBool::new(false),
        }
    }

    /// What is known of a request when it comes.
    fn facts(
        &self,
        request: &Request,
        slot: Option<SlotId>,
        client: Option<IpAddr>,
        started: Instant,
    ) -> meter::Facts {
        meter::Facts {
            service: self.service.clone(),
            method: meter::method_name(request.method()),
            slot,
            client,
            addresses: self.service.settings().addresses,
            started,
        }
    }

    /// What a path names.
    fn place(&self, path: &str) -> Result<head::Place, Refusal> {
        self.site.place(path, &self.service.settings().external)
    }

    /// Turns banned addresses away. Counts a request that came through a trusted proxy, until its
    /// answer is sent; other clients are counted by connection.
    fn enter(
        &self,
        origin: Option<Origin>,
        client: Option<IpAddr>,
    ) -> Result<Option<gate::Permit>, Refusal> {
        self.service.check_address(client)?;
        let (Some(origin), Some(client)) = (origin, client) else {
            return Ok(None);
        };
        if !forwarded::is_proxy(origin.peer, &self.trusted) {
            return Ok(None);
        }
        let n_max = self.service.settings().connections_per_address_max;
        self.in_flight.enter(client, n_max).map(Some)
    }

    /// Who gets the answer to a request first. A proxy says for whom it asks: what comes from its
    /// machine without that, to look whether all is well, is no proxy's.
    fn by(&self, origin: Origin, headers: &HeaderMap) -> get::By {
        let is_proxy = forwarded::is_proxy(origin.peer, &self.trusted);
        match is_proxy && headers.contains_key(forwarded::FORWARDED_FOR) {
            true => get::By::Proxy,
            false => get::By::Client,
        }
    }

    /// How to send interim responses, where they reach the client: HTTP/1.0 has none (RFC 9110
    /// #15.2), and most proxies drop those that they do not know, or take them for the answer.
    fn early(&self, origin: Option<Origin>, request: &Request) -> Option<early::Early> {
        let arrives = match forwarded::is_proxy(origin?.peer, &self.trusted) {
            true => self.proxy_forwards_1xx,
            false => !forwarded::is_marked(request.headers()),
        };
        let early = request.extensions().get::<early::Early>();
        early
            .filter(|_| arrives && request.version() == Version::HTTP_11)
            .cloned()
    }

    async fn answer(
        &self,
        origin: Option<Origin>,
        asked: Asked,
        request: Request,
    ) -> Result<Response, Refusal> {
        if let Some(guard::Refused(refusal)) = request.extensions().get() {
            return Err(refusal.clone());
        }
        let (uri, headers) = (request.uri(), request.headers());
        self.check_host(origin, uri, request.version(), headers)?;
        head::check_expect(headers)?;
        if request.method() == Method::OPTIONS {
            return Ok(self.options(&asked, headers));
        }
        let Asked { visitor, .. } = asked;
        match (asked.place?, request.method().clone()) {
            (head::Place::Upload(sealed), _) => {
                let dialect = Dialect::of_resume(headers);
                resume::answer(&self.service, sealed, dialect, visitor, request).await
            }
            (place, Method::GET | Method::HEAD) => {
                let by = origin.map_or(get::By::Client, |origin| self.by(origin, headers));
                get::answer(&self.service, &place, by, request).await
            }
            (place, Method::PUT) => {
                let caller = put::Caller {
                    visitor,
                    dialect: asked.dialect,
                    early: asked.early,
                };
                put::answer(&self.service, &place, caller, request).await
            }
            (head::Place::External(system, path), Method::DELETE) => {
                system.check_delete(&path, &head::presented(uri, headers)?)?;
                self.service.delete_external(system.id_of(&path)).await?;
                Ok(reply::empty(StatusCode::NO_CONTENT))
            }
            (head::Place::File(..) | head::Place::External(..), _) => {
                Err(Refusal::MethodNotAllowed)
            }
        }
    }

    /// Refuses what is for another host.
    fn check_host(
        &self,
        origin: Option<Origin>,
        uri: &Uri,
        version: Version,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        let local = origin.and_then(|origin| origin.local);
        self.site
            .check_host(uri, version, headers, local)
            .inspect_err(|refusal| self.tell_of_host(refusal, headers))
    }

    /// What may be asked for, and how uploads resume here.
    fn options(&self, asked: &Asked, headers: &HeaderMap) -> Response {
        let is_resume = matches!(asked.place, Ok(head::Place::Upload(_)));
        let age = self.service.session_terms().session_age;
        let offers = match asked.place {
            Ok(_) => words::options(headers, self.service.size_bytes_max(), age, is_resume),
            Err(_) => HeaderMap::new(),
        };
        reply::options(methods(&asked.place), offers)
    }

    fn tell_refused(&self, refusal: &Refusal) {
        self.service.tell(Event::RequestRefused { refusal });
    }

    /// Tells the admin, once, what a wrongly set up proxy looks like from here.
    fn tell_of_host(&self, refusal: &Refusal, headers: &HeaderMap) {
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
