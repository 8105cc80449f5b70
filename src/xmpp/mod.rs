//! Edge: streams to the XMPP server. Logs in, stays logged in, and says in the log why it is not.
//!
//! `identity` says as whom: as a component by `login`, or by `client` as an account behind a relay.
//! `speaker` is what these two differ in once they are in. `stream` serves, `route` and `asks`
//! answer (`places` says how many at once), `outbox` writes past the stream's own writer (`shared`
//! is the socket of both), `elements`, `session`, `commands` with `forms`, and `disco` translate;
//! `pings` asks the server for a sign of life; `guard`, with `filter`, `at`, `limits` and `names`,
//! keeps the parser safe, and `plain` keeps most slot requests from it; `head` is what is around
//! any answer.
//! Here is what happens between two streams: how long to wait, and what to say.
//! Nothing is kept for a lost stream: XEP-0114 has no resumption, so every IQ can be asked again.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt as _, SinkExt};
use jid::BareJid;
use minidom::Element;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use crate::config::{Account, Component};
use crate::meters::work;
use crate::service::health::Streams;
use crate::service::operations::Operations;

mod asks;
mod at;
pub mod client;
mod commands;
mod disco;
mod elements;
mod filter;
mod forms;
mod guard;
mod head;
mod identity;
mod legacy;
mod limits;
mod login;
mod names;
mod outbox;
mod pings;
mod places;
mod plain;
mod route;
mod session;
mod shared;
mod speaker;
mod stream;

pub use identity::Identity;
pub(crate) use login::Wire;
pub use login::{Connect, LOGIN_WITHIN, LoginError, Socket};
use route::Desk;
use stream::End;

/// The first wait for a server that is gone, and for one that refused us.
const LOST_WAIT_MIN: Duration = Duration::from_millis(100);
const REFUSED_WAIT_MIN: Duration = Duration::from_secs(1);
/// The longest wait while the server may just be restarting: back 2 s after it answers again.
const LOST_WAIT_MAX: Duration = Duration::from_millis(1500);
/// After so many attempts in vain it is not; about ten minutes.
const RESTART_ATTEMPTS_MAX: u32 = 400;
/// The longest waits for a server that stays away, and for one that refuses us.
const AWAY_WAIT_MAX: Duration = Duration::from_secs(5);
const REFUSED_WAIT_MAX: Duration = Duration::from_secs(60);
/// A stream that lived this long was a good one: the next wait is a first one again. Longer than
/// the longest wait, so that two daemons that push each other out of one name do so once a minute.
const GOOD_AFTER: Duration = Duration::from_secs(120);
/// The same line is logged at most once in this time, the coming and going of a stream five times:
/// after a restart the last line shall say that all is well.
const SAME_LINE_EVERY: Duration = Duration::from_secs(60);
const COMING_AND_GOING_MAX: usize = 5;
/// How many lines are remembered for that.
const LINES_MAX: usize = 16;

/// Holds the streams of all components, or of the account, until `stop` turns true; then closes
/// them and returns.
///
/// Never gives up: whatever is wrong on the server's side may be mended while we wait.
pub async fn run(
    identities: Vec<Identity>,
    operations: Arc<Operations>,
    stop: watch::Receiver<bool>,
) {
    run_over(over_sockets(), identities, operations, stop).await;
}

/// As whom to log in.
pub fn identities(components: &[Component], account: Option<&Account>) -> Vec<Identity> {
    let components = components.iter().cloned().map(Identity::Component);
    components
        .chain(account.cloned().map(Identity::Account))
        .collect()
}

/// TCP and Unix sockets.
fn over_sockets() -> Connect {
    Arc::new(|server| login::connect(server).boxed())
}

/// `run` over other connections of components.
pub async fn run_over(
    connect: Connect,
    identities: Vec<Identity>,
    operations: Arc<Operations>,
    stop: watch::Receiver<bool>,
) {
    let hosts = identities.iter().filter_map(|identity| {
        let host = BareJid::new(identity.host());
        // The configuration has checked it.
        host.inspect_err(|error| error!(jid = identity.host(), %error, "no JID"))
            .ok()
    });
    let streams_up = operations.service().streams().clone();
    let desk = Desk::new(operations, hosts.collect());
    let mut streams = JoinSet::new();
    for identity in identities {
        let lines = Arc::new(Lines::default());
        streams_up.expect(identity.name(), identity.n_streams());
        for _ in 0..identity.n_streams() {
            let held = Held {
                identity: identity.clone(),
                connect: Arc::clone(&connect),
                desk: Arc::clone(&desk),
                lines: Arc::clone(&lines),
                streams_up: Arc::clone(&streams_up),
            };
            streams.spawn(hold_whatever_happens(held, stop.clone()));
        }
    }
    while streams.join_next().await.is_some() {}
}

/// Logs in and out again: does it work as it is configured?
///
/// With Prosody's `kick_old` this takes a component's name from a running slotd, which then logs in
/// again. An account gets a resource of its own.
pub async fn try_login(identity: &Identity) -> Result<(), LoginError> {
    let identity = match identity.clone() {
        Identity::Account(account) => Identity::Account(Account {
            resource: None,
            ..account
        }),
        component => component,
    };
    let mut wire = identity.log_in(&over_sockets()).await?.wire;
    // The answer is known; a server that does not say good-bye does not change it.
    let closed = timeout(LOGIN_WITHIN, SinkExt::<&Element>::close(&mut wire)).await;
    drop(closed);
    Ok(())
}

/// What a stream needs, each time it is made anew.
#[derive(Clone)]
struct Held {
    identity: Identity,
    connect: Connect,
    desk: Arc<Desk>,
    lines: Arc<Lines>,
    streams_up: Arc<Streams>,
}

/// A fault of ours must not leave the component offline until somebody looks.
async fn hold_whatever_happens(held: Held, stop: watch::Receiver<bool>) {
    loop {
        let holding = AssertUnwindSafe(hold(held.clone(), stop.clone()));
        if holding.catch_unwind().await.is_ok() {
            return;
        }
        error!(
            jid = held.identity.name(),
            "a stream ended in a panic; making it anew"
        );
        tokio::time::sleep(REFUSED_WAIT_MIN).await;
    }
}

/// Keeps one stream up.
async fn hold(held: Held, mut stop: watch::Receiver<bool>) {
    let Held {
        mut identity,
        connect,
        desk,
        lines,
        streams_up,
    } = held;
    let (name, speaker) = (identity.name().to_owned(), Arc::new(identity.speaker()));
    let mut attempts = 0_u32;
    let mut was_refused = false;
    loop {
        let login = tokio::select! {
            login = identity.log_in(&connect) => login,
            () = stream::stopped(&mut stop) => return,
        };
        work().count_login(login.is_ok());
        let refused = match login {
            Err(error) => {
                lines.warn(&name, &error.to_string(), 1);
                attempts = attempts.saturating_add(1);
                error.is_refusal()
            }
            Ok(line) => {
                lines.info(&name, &identity.online(), COMING_AND_GOING_MAX);
                let since = Instant::now();
                let up = streams_up.begin(&name);
                let end = stream::serve(line, &desk, &speaker, &mut stop).await;
                drop(up);
                work().count_stream_end(end.kind());
                if let End::Stopped = end {
                    return;
                }
                let times = match end {
                    End::Closed => COMING_AND_GOING_MAX,
                    _ => 1,
                };
                lines.warn(&name, &words(&end, &identity), times);
                if GOOD_AFTER <= since.elapsed() {
                    attempts = 0;
                }
                attempts = attempts.saturating_add(1);
                identity.learn(&end)
            }
        };
        if refused != was_refused {
            // A server that is up again may refuse us for a moment; and the other way round.
            was_refused = refused;
            attempts = 1;
        }
        let wait = wait(refused, attempts, stream::random());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stream::stopped(&mut stop) => return,
        }
    }
}

/// Why a stream ended, for an admin.
fn words(end: &End, identity: &Identity) -> String {
    match end {
        End::Stopped => "stopped".to_owned(),
        End::Closed => "the XMPP server closed the connection; connecting again".to_owned(),
        End::Silent => "the XMPP server is silent; connecting again".to_owned(),
        End::Stuck => "the XMPP server does not take our answers; connecting again".to_owned(),
        End::Broken(broken) => format!("{broken}; connecting again"),
        End::Error(error) => identity.words(error),
    }
}

/// How long to wait after `attempts` in vain: doubled each time up to the longest wait, and then
/// any time from half of that to all of it, so that many components do not come at once.
fn wait(refused: bool, attempts: u32, random: u64) -> Duration {
    let (first, longest) = match refused {
        true => (REFUSED_WAIT_MIN, REFUSED_WAIT_MAX),
        false if attempts <= RESTART_ATTEMPTS_MAX => (LOST_WAIT_MIN, LOST_WAIT_MAX),
        false => (LOST_WAIT_MIN, AWAY_WAIT_MAX),
    };
    let doubled = first.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    let half = doubled.min(longest) / 2;
    let share = u32::try_from(random % 1024).expect("less than 1024");
    half + half * share / 1023
}

/// The lines said lately about one component, by all of its streams.
#[derive(Default)]
struct Lines(Mutex<Vec<(String, Instant)>>);

impl Lines {
    fn info(&self, jid: &str, line: &str, times: usize) {
        if self.is_news(line, times, Instant::now()) {
            info!(jid, "{line}");
        }
    }

    fn warn(&self, jid: &str, line: &str, times: usize) {
        if self.is_news(line, times, Instant::now()) {
            warn!(jid, "{line}");
        }
    }

    /// Whether `line` was said less than `times` lately; counts it if so.
    fn is_news(&self, line: &str, times: usize, now: Instant) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|(_, at)| now.duration_since(*at) < SAME_LINE_EVERY);
        if times <= said.iter().filter(|(other, _)| other == line).count() {
            return false;
        }
        if said.len() == LINES_MAX {
            said.remove(0);
        }
        said.push((line.to_owned(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_limits() {
        let longest = |refused, attempts| wait(refused, attempts, 1023).as_millis();
        assert_eq!(longest(false, 1), 100);
        assert_eq!(longest(false, 2), 200);
        assert_eq!(longest(false, RESTART_ATTEMPTS_MAX), 1500);
        assert_eq!(longest(false, u32::MAX), 5000);
        assert_eq!(longest(true, 1), 1000);
        assert_eq!(longest(true, 6), 32_000);
        assert_eq!(longest(true, u32::MAX), 60_000);
        assert_eq!(wait(true, 1, 0), Duration::from_millis(500));
    }

    #[test]
    fn lines_come_again_after_a_while() {
        let lines = Lines::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let news = [0, 1, 59, 60, 61, 120].map(|s| lines.is_news("gone", 1, at(s)));
        assert_eq!(news, [true, false, false, true, false, true]);
        let news = [120, 121, 122].map(|s| lines.is_news("online", 2, at(s)));
        assert_eq!(news, [true, true, false]);
    }
}
