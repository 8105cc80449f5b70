//! What is done for one request: the operator's password is tried, then the session is bound.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use jid::BareJid;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::rustls::ClientConfig;
use tracing::{debug, info};

use super::Refused;
use super::ask::{Ask, What};
use super::line::Line;
use crate::core::bosh::failure::Failure;
use crate::core::bosh::form;
use crate::core::bosh::manager::{Door, Manager, WarmBinding};
use crate::core::bosh::password::Password;
use crate::core::bosh::{Aim, Binding, Body, Login, Rid, Step, Terms, Wish};
use crate::core::event::Event;
use crate::service::Service;

/// How long all of it may take.
const DONE_WITHIN: Duration = Duration::from_secs(10);
/// How long the end of a session may take that nobody needs any more.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Why somebody is not let in: they are no operator.
const NO_OPERATOR: &str = "no-operator";
/// Why somebody is not let in: it is not the operator's password.
const WRONG_PASSWORD: &str = "wrong-password";

/// What a request got.
pub(super) enum Done {
    /// The form to fill in.
    Form,
    /// A session.
    Bound(Binding),
}

/// What a job needs.
pub(super) struct Job {
    pub(super) service: Arc<Service>,
    pub(super) rules: Arc<WarmBinding>,
    /// Where the request came from.
    pub(super) address: Option<IpAddr>,
    pub(super) trust: Option<Arc<ClientConfig>>,
}

/// A session at a connection manager, from its first request on.
struct Session {
    login: Arc<Mutex<Login>>,
    line: Line,
}

/// What became of a login.
type Logged = Result<Option<Binding>, Failure>;

impl Job {
    /// Does it, answers, and ends every session that nobody will go on with.
    pub(super) async fn run(self, ask: Ask, answer: oneshot::Sender<Result<Done, Refused>>) {
        let by = Instant::now() + DONE_WITHIN;
        let Ask {
            operator,
            password,
            what,
        } = ask;
        let (tried, admitted) = self.admit(&operator, password, by).await;
        let (session, done) = match (admitted, what) {
            (Err(refused), _) => (None, Err(refused)),
            (Ok(()), What::Form) => (None, Ok(Done::Form)),
            (Ok(()), What::Session(form)) => {
                let wanted = self.bind(&operator, form.as_ref(), by).await;
                drop(form);
                wanted
            }
        };
        let is_bound = matches!(done, Ok(Done::Bound(_)));
        let is_taken = answer.send(done).is_ok();
        if let Some(session) = session.filter(|_| !(is_bound && is_taken)) {
            session.end().await;
        }
        if let Some(session) = tried {
            session.end().await;
        }
    }

    /// Has the server say whether this is the operator's password. Refuses 401 where it is not, and
    /// 403 where it is somebody else's. But where the world asks, whoever is no operator gets 401
    /// before any server is asked: or strangers could try the passwords of every account.
    async fn admit(
        &self,
        operator: &BareJid,
        password: Password,
        by: Instant,
    ) -> (Option<Session>, Result<(), Refused>) {
        let Some(manager) = self.rules.managers.get(operator.domain().as_str()) else {
            return (None, Err(StatusCode::UNAUTHORIZED.into()));
        };
        let tried = match self.service.begin_try(operator, self.address) {
            Ok(tried) => tried,
            Err(retry_in) => return (None, Err(Refused::wait(retry_in))),
        };
        let is_operator = self.service.settings().operators.contains(operator);
        if self.rules.door == Door::Http && !is_operator {
            self.service.blame_try(tried);
            self.tell_refused(operator, NO_OPERATOR);
            return (None, Err(StatusCode::UNAUTHORIZED.into()));
        }
        let wish = Wish {
            jid: operator.clone().into(),
            password,
            terms: Terms::default(),
        };
        let (session, logged) = self.log_in(manager, wish, Aim::Proof, by).await;
        let outcome = logged
            .as_ref()
            .map_or_else(|failure| failure.name(), |_| "admitted");
        debug!(%operator, outcome, "a warm binding is asked for");
        let admitted = match logged {
            Err(Failure::NotAuthorized) => {
                self.service.blame_try(tried);
                self.tell_refused(operator, WRONG_PASSWORD);
                return (Some(session), Err(StatusCode::UNAUTHORIZED.into()));
            }
            // Nobody could tell whether the password is right.
            Err(failure) if failure.status() == StatusCode::BAD_REQUEST => {
                Err(StatusCode::BAD_GATEWAY.into())
            }
            Err(failure) => Err(failure.into()),
            // Their own password is right, and still they shall not come as often as they like.
            Ok(_) if !is_operator => {
                self.tell_refused(operator, NO_OPERATOR);
                return (Some(session), Err(StatusCode::FORBIDDEN.into()));
            }
            Ok(_) => Ok(()),
        };
        self.service.forgive_try(tried);
        (Some(session), admitted)
    }

    /// Tells that somebody asked who was not let in: as seldom as they may try.
    fn tell_refused(&self, by: &BareJid, outcome: &'static str) {
        let address = self.address;
        self.service.tell(Event::WarmBindingDenied {
            by,
            address,
            outcome,
        });
    }

    /// Binds the session that a form asks for.
    async fn bind(
        &self,
        operator: &BareJid,
        form: &[u8],
        by: Instant,
    ) -> (Option<Session>, Result<Done, Refused>) {
        let wish = match form::read(form) {
            Ok(wish) => wish,
            Err(wrong) => {
                debug!(%operator, %wrong, "a form cannot be read");
                return (None, Err(StatusCode::BAD_REQUEST.into()));
            }
        };
        let account = wish.jid.to_bare();
        let tell = |outcome| {
            info!(by = %operator, %account, outcome, "warm binding");
            let (by, account) = (operator, &account);
            self.service.tell(Event::WarmBinding {
                by,
                account,
                outcome,
            });
        };
        let Some(manager) = self.rules.managers.get(wish.jid.domain().as_str()) else {
            tell(Failure::UnknownHost.name());
            return (None, Err(Failure::UnknownHost.into()));
        };
        let begun = self.service.begin_session(operator, &account);
        let begun = begun.and_then(|()| self.service.begin_visit(&account));
        let tried = match begun {
            Ok(tried) => tried,
            Err(retry_in) => {
                tell("too-many");
                return (None, Err(Refused::wait(retry_in)));
            }
        };
        let (session, logged) = self.log_in(manager, wish, Aim::Session, by).await;
        tell(
            logged
                .as_ref()
                .map_or_else(|failure| failure.name(), |_| "bound"),
        );
        match logged {
            Err(Failure::NotAuthorized) => self.service.blame_try(tried),
            _ => self.service.forgive_try(tried),
        }
        let done = match logged {
            Ok(Some(binding)) => Ok(Done::Bound(binding)),
            Ok(None) => Err(Failure::Garbled.into()),
            Err(failure) => Err(failure.into()),
        };
        (Some(session), done)
    }

    /// Logs in, in time or not at all.
    async fn log_in(
        &self,
        manager: &Manager,
        wish: Wish,
        aim: Aim,
        by: Instant,
    ) -> (Session, Logged) {
        let chance = || self.service.chance();
        let nonce = format!("{:032x}", chance());
        let (login, first) = Login::begin(wish, aim, Rid::first(chance()), nonce);
        let mut session = Session {
            login: Arc::new(Mutex::new(login)),
            line: Line::new(manager.clone(), self.trust.clone()),
        };
        let logged = timeout_at(by, session.talk(first)).await;
        (session, logged.unwrap_or(Err(Failure::TimedOut)))
    }
}

impl Session {
    /// Carries bodies and answers until the login is over.
    async fn talk(&mut self, first: Body) -> Logged {
        let (mut body, mut is_repeated) = (first, false);
        loop {
            let answer = self.line.post(&body).await?;
            let login = self.login.clone();
            // SCRAM takes its time.
            let step = tokio::task::spawn_blocking(move || {
                let mut login = login.lock().unwrap_or_else(PoisonError::into_inner);
                login.answer(&answer)
            });
            match step.await.map_err(|_| Failure::Garbled)? {
                Step::Send(next, pause) => {
                    (body, is_repeated) = (next, false);
                    sleep(pause).await;
                }
                Step::Repeat if is_repeated => return Err(Failure::Terminated),
                Step::Repeat => is_repeated = true,
                Step::Proven => return Ok(None),
                Step::Bound(binding) => return Ok(Some(binding)),
                Step::Failed(failure) => return Err(failure),
            }
        }
    }

    /// Tells the connection manager that nobody will go on with this; it finds out by itself, too.
    async fn end(mut self) {
        let (login, sent) = (self.login.clone(), self.line.sent());
        let end = tokio::task::spawn_blocking(move || {
            let mut login = login.lock().unwrap_or_else(PoisonError::into_inner);
            login.end(sent)
        });
        if let Ok(Some(body)) = end.await {
            let _ = timeout(END_WITHIN, self.line.post(&body)).await;
        }
    }
}
