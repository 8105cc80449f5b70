//! Edge: the private listener, for those who look after the service and for what watches over it.
//!
//! Nobody is asked for a password here: `admin.listen` is loopback, a private network or a Unix
//! socket. So nothing here changes anything, and no answer holds a secret, a link or an address.
//! `listen` holds sockets and connections, `pulse` asks the stores how they are, for all who want
//! to know, and at most so often. `view` gathers what the status page shows, `page` draws it.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{StatusCode, header};
use tokio::runtime::Handle;

use crate::core::health::{self, Trouble};
use crate::meters;
use crate::service::Service;

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
}

/// Everything that can be asked for here; call it in a runtime.
pub fn router(service: Arc<Service>) -> Router {
    let pulse = Pulse::of(service.clone());
    let admin = Arc::new(Admin {
        service,
        pulse,
        view: View::default(),
    });
    Router::new()
        .route("/", get(view::page))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin)
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
