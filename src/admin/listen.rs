//! The sockets of `admin.listen`, and their connections: few, short, and mostly without bodies.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;

use crate::config::Admin;
use crate::http::inherited::Inherited;
use crate::http::listen::{self, BindError, Socket};
use crate::warm::{Caller, Way};

/// Connections at a time; more wait in the kernel.
const CONNECTIONS_MAX: usize = 32;
/// How long a head may take, and how long a connection may wait for its next one.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may last; then it ends after the answer that is under way.
const CONNECTION_WITHIN: Duration = Duration::from_secs(120);
/// How long that answer may take.
const LAST_ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Largest buffer of a connection, each way; no head is larger.
const BUFFER_BYTES_MAX: usize = 16 * 1024;
/// How long to wait when there are no descriptors left for a connection.
const ACCEPT_AGAIN_IN: Duration = Duration::from_millis(500);

/// What every answer says: it is of now, of the type it names, and tells nobody where one was.
const COMMON: [(HeaderName, &str); 3] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// The sockets of `admin.listen`, bound and listening.
pub struct Listeners(Vec<Socket>);

impl Listeners {
    /// Opens all sockets; those that are `inherited` are taken from there. Call it in a runtime.
    pub fn open(admin: &Admin, inherited: &mut Inherited) -> Result<Self, BindError> {
        let open = |listen| Socket::open("admin.listen", listen, inherited);
        let sockets = admin.listen.iter().map(open);
        let sockets = sockets.map(|opened| opened.map(|(socket, _)| socket));
        sockets.collect::<Result<_, _>>().map(Self)
    }

    /// Answers with `router`, until dropped.
    pub async fn serve(self, router: Router) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut doors = JoinSet::new();
        for socket in self.0 {
            doors.spawn(admit(socket, router.clone(), places.clone()));
        }
        while doors.join_next().await.is_some() {}
    }
}

async fn admit(socket: Socket, router: Router, places: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, socket.accept().await)
        };
        tokio::select! {
            Some(_) = connections.join_next() => {}
            (place, incoming) = next => match (place, incoming) {
                (Ok(place), Ok(listen::Incoming::Tcp(stream, _))) => {
                    let is_loopback = |address: SocketAddr| address.ip().is_loopback();
                    let hosts = match stream.local_addr().is_ok_and(is_loopback) {
                        true => Hosts::Loopback,
                        false => Hosts::Any,
                    };
                    let address = stream.peer_addr().map(|peer| peer.ip().to_canonical()).ok();
                    let door = Door { hosts, address, router: router.clone() };
                    connections.spawn(answer_all(stream, door, place));
                }
                (Ok(place), Ok(listen::Incoming::Unix(stream))) => {
                    let (hosts, address) = (Hosts::Any, None);
                    let door = Door { hosts, address, router: router.clone() };
                    connections.spawn(answer_all(stream, door, place));
                }
                (_, Err(error)) => {
                    tracing::debug!(%error, "cannot accept a connection to admin.listen");
                    sleep(ACCEPT_AGAIN_IN).await;
                }
                (Err(_), _) => return,
            },
        }
    }
}

/// By which names we may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hosts {
    /// By any.
    Any,
    /// As this machine alone: a browser that runs here asks for whom a page from elsewhere names,
    /// and that page may read what it finds (DNS rebinding).
    Loopback,
}

impl Hosts {
    fn allow(self, request: &Request<Incoming>) -> bool {
        let host = request.headers().get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
        let is_ours = |host: Authority| {
            let name = host.host().trim_matches(['[', ']']);
            name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
        };
        // Only HTTP/1.0 has none, and no browser speaks it.
        self == Self::Any
            || !request.headers().contains_key(header::HOST)
            || host.is_some_and(is_ours)
    }
}

/// What the answers of one connection need.
#[derive(Clone)]
struct Door {
    hosts: Hosts,
    /// The other end's address; none of a Unix socket.
    address: Option<IpAddr>,
    router: Router,
}

/// Answers a connection's requests, while its time lasts.
async fn answer_all<S>(stream: S, door: Door, place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(door.clone(), request));
    let mut http = Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(BUFFER_BYTES_MAX);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    if timeout(CONNECTION_WITHIN, connection.as_mut())
        .await
        .is_err()
    {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_ANSWER_WITHIN, connection).await;
    }
    drop(place);
}

async fn answer(door: Door, mut request: Request<Incoming>) -> Result<Response, Infallible> {
    let mut response = match door.hosts.allow(&request) {
        false => {
            let words = "Ask for an address or localhost: by another name this could be a trick.\n";
            (StatusCode::MISDIRECTED_REQUEST, words).into_response()
        }
        true => {
            let caller = Caller {
                address: door.address,
                way: Way::Private,
            };
            request.extensions_mut().insert(caller);
            door.router.oneshot(request.map(Body::new)).await?
        }
    };
    let fields = response.headers_mut();
    for (name, value) in COMMON {
        fields.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}
