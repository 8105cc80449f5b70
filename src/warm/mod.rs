//! Edge: warm bindings, BOSH sessions that an operator has logged in for others to go on with.
//!
//! What mod_warm_bindings does inside of Prosody, beside any server: a web site's own machine asks,
//! and its visitor's browser attaches to the session, without the password. Either listener has
//! this room at `warm_binding.path`; `ask` reads the request, `job` logs in, `line` carries bodies
//! to the connection manager, `page` draws what comes of it, `trust`
//! reads whom TLS trusts.
//!
//! Who asks is an operator, and the XMPP server says whether it is them: there is no second store
//! of passwords. Nothing of what opens a session, or a password, is written down or kept.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{Request, StatusCode};
use tokio::sync::oneshot;

use crate::core::bosh::failure::Failure;
use crate::core::bosh::manager::{Door, Place, WarmBinding};
use crate::service::Service;

mod ask;
mod job;
mod line;
mod page;
mod trust;

use ask::Ask;
use job::Job;
use page::Format;
use trust::Trust;

/// When who finds no place shall come again.
const RETRY_IN: Duration = Duration::from_secs(5);

/// Who asks, as the listener knows it.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// From where; none for a Unix socket.
    pub address: Option<IpAddr>,
    /// On what way.
    pub way: Way,
}

/// Who may read what a request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nobody between us and the caller, or a proxy that is trusted.
    Private,
    /// Whoever sees the traffic.
    Open,
}

/// The room.
pub struct Warm {
    service: Arc<Service>,
    door: Door,
    trust: Trust,
}

/// Why there is no page but one that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refused {
    status: StatusCode,
    retry_in: Option<Duration>,
}

impl From<StatusCode> for Refused {
    fn from(status: StatusCode) -> Self {
        let retry_in = None;
        Self { status, retry_in }
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        failure.status().into()
    }
}

impl Refused {
    /// Too many have asked.
    fn wait(retry_in: Duration) -> Self {
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            retry_in: Some(retry_in),
        }
    }
}

impl Warm {
    /// The room behind one of the listeners.
    pub fn new(service: Arc<Service>, door: Door) -> Arc<Self> {
        Arc::new(Self {
            service,
            door,
            trust: Trust::default(),
        })
    }

    /// Whether a request for `path` is for this room, as it is configured now.
    pub fn claims(&self, path: &str) -> bool {
        self.rules_for(path).is_some()
    }

    /// Answers a request that is for this room.
    pub async fn answer(&self, caller: Caller, request: Request<Body>) -> Response {
        let format = Format::of(request.headers());
        let answered = match self.rules_for(request.uri().path()) {
            Some(rules) => self.serve(rules, caller, request, format).await,
            None => Err(StatusCode::NOT_FOUND.into()),
        };
        answered.unwrap_or_else(|refused| page::refuse(refused, format))
    }

    fn rules_for(&self, path: &str) -> Option<Arc<WarmBinding>> {
        let rules = self.service.settings().warm_binding.clone();
        rules.filter(|rules| rules.door == self.door && rules.claims(path))
    }

    async fn serve(
        &self,
        rules: Arc<WarmBinding>,
        caller: Caller,
        request: Request<Body>,
        format: Format,
    ) -> Result<Response, Refused> {
        let banned = self.service.check_address(caller.address);
        banned.map_err(|_| StatusCode::FORBIDDEN)?;
        if caller.way == Way::Open {
            tracing::warn!("a warm binding was asked for on a way where others read: refused");
            return Err(StatusCode::FORBIDDEN.into());
        }
        let ask = Ask::read(request).await?;
        let place = self.service.begin_login().ok_or(Refused {
            status: StatusCode::SERVICE_UNAVAILABLE,
            retry_in: Some(RETRY_IN),
        })?;
        let has_tls = |place: &Place| matches!(place, Place::Tls { .. });
        let trust = match rules.managers.values().any(|it| has_tls(&it.place)) {
            true => self.trust.get().await,
            false => None,
        };
        let job = Job {
            service: self.service.clone(),
            rules,
            address: caller.address,
            trust,
        };
        let (answer, answered) = oneshot::channel();
        // On its own: whoever asked may go away, and then their session has to be ended.
        tokio::spawn(async move {
            job.run(ask, answer).await;
            drop(place);
        });
        let done = answered.await;
        let done = done.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        done.map(|done| page::show(&done, format))
    }
}
