//! Edge: the private listener, for those who look after the service and for what watches over it.
//!
//! Nobody is asked for a password here: `admin.listen` is loopback, a private network or a Unix
//! socket. So nothing here changes anything, and no answer holds a secret, a link or an address;
//! but for warm bindings, a room of their own that is let in here and asks for a password.
//! `listen` holds sockets and connections, `pulse` asks the stores how they are, for all who want
//! to know, and at most so often. `view` gathers what the status page shows, `page` draws it.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};
use http_body::Body as _;
use tokio::runtime::Handle;

use crate::core::bosh::manager::Door;
use crate::core::health::{self, Trouble};
use crate::meters;
use crate::service::Service;
use crate::warm::{Caller, Warm};

mod listen;
pub mod page;
mod pulse;
mod view;

pub use listen::Listeners;
use pulse::{Beat, Pulse};
use view::View;

/// What Prometheus takes, and promtool checks.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// What all pages are made from.
struct Admin {
    service: Arc<Service>,
    pulse: Pulse,
    view: View,
    warm: Arc<Warm>,
}

/// Everything that can be asked for here; call it in a runtime.
pub fn router(service: Arc<Service>) -> Router {
    let pulse = Pulse::of(service.clone());
    let admin = Arc::new(Admin {
        warm: Warm::new(service.clone(), Door::Admin),
        service,
        pulse,
        view: View::default(),
    });
    Router::new()
        .route("/", get(view::page))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route_layer(from_fn(without_body))
        .fallback(other)
        .with_state(admin)
}

/// Nothing here takes a body, but for warm bindings.
async fn without_body(request: Request, next: Next) -> Response {
    match refuse_body(&request) {
        Some(refused) => refused,
        None => next.run(request).await,
    }
}

fn refuse_body(request: &Request) -> Option<Response> {
    // The rest of the connection is not worth reading past it.
    let close = [(header::CONNECTION, HeaderValue::from_static("close"))];
    let refused = || (StatusCode::PAYLOAD_TOO_LARGE, close).into_response();
    (!request.body().is_end_stream()).then(refused)
}

/// Warm bindings, and what is not there.
async fn other(State(admin): State<Arc<Admin>>, request: Request) -> Response {
    let caller = request.extensions().get::<Caller>().copied();
    match caller.filter(|_| admin.warm.claims(request.uri().path())) {
        Some(caller) => admin.warm.answer(caller, request).await,
        None => refuse_body(&request).unwrap_or_else(|| StatusCode::NOT_FOUND.into_response()),
    }
}

/// The process lives, and its runtime gives everybody a turn.
async fn healthz() -> Response {
    text(StatusCode::OK, TEXT_TYPE, "ok\n".to_owned())
}

/// Whether slots can be asked for and uploads taken; a line for each reason why not.
async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let troubles = admin.troubles().await;
    if troubles.is_empty() {
        return text(StatusCode::OK, TEXT_TYPE, "ready\n".to_owned());
    }
    let lines = troubles.iter().map(|trouble| format!("{trouble}\n"));
    let status = StatusCode::SERVICE_UNAVAILABLE;
    text(status, TEXT_TYPE, lines.collect())
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let now = admin.now().await;
    text(StatusCode::OK, METRICS_TYPE, meters::meters().text(&now))
}

impl Admin {
    /// Why the service is not ready, as of a moment ago.
    async fn troubles(&self) -> Vec<Trouble> {
        self.troubles_of(self.pulse.feel().await.as_ref())
    }

    fn troubles_of(&self, beat: Option<&Beat>) -> Vec<Trouble> {
        let files = |beat: &Beat| beat.stock.room.is_some() && beat.tried.is_some();
        health::troubles(&health::Seen {
            rows: beat.map(|beat| beat.stock.totals.is_some()),
            files: beat.map(files),
            streams: self.service.streams().list(),
            is_draining: self.service.is_draining(),
            is_stopping: self.service.is_stopping(),
        })
    }

    /// What the meters do not know by themselves, as of a moment ago.
    async fn now(&self) -> meters::Now {
        let (beat, service) = (self.pulse.feel().await, &self.service);
        let stock = beat
            .as_ref()
            .and_then(|beat| beat.stock.totals.zip(beat.stock.room));
        meters::Now {
            is_ready: self.troubles_of(beat.as_ref()).is_empty(),
            is_draining: service.is_draining(),
            stock: stock.map(|(totals, free)| meters::Stock {
                n_rows: totals.n_rows,
                n_files: totals.n_files,
                stored_bytes: totals.stored_bytes,
                free,
            }),
            uptime: service.uptime(),
            n_active: service.n_active(),
            n_keys: service.keys().list().len(),
            streams: service.streams().list(),
            reserve: service.reserve(),
            runtime: Handle::current().metrics(),
        }
    }
}

fn text(status: StatusCode, kind: &'static str, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, kind)], text).into_response()
}
