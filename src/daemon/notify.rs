//! Tells the service manager how it is, where there is one that listens (`NOTIFY_SOCKET`).
//!
//! A thread of its own tells: one that does not read would hold up who speaks to it.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tracing::{debug, error};

use crate::service::Service;

/// How much longer than `limits.stop_within` stopping may take: answers, good-byes, the database.
const STOP_MARGIN: Duration = Duration::from_secs(20);

/// What waits to be told at most; the rest is left out.
const WAITING_MAX: usize = 16;

/// All is up, or the configuration was read anew.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// The configuration is being read anew; `ready` follows.
pub fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now());
    tell(&states);
}

/// The end has begun, and may take so long.
pub fn stopping(stop_within: Duration) {
    let within = (stop_within + STOP_MARGIN).as_micros();
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status("stopping: running uploads may end"),
        NotifyState::ExtendTimeoutUsec(u32::try_from(within).unwrap_or(u32::MAX)),
    ]);
}

/// Says several times within the time that the service manager gives that all is well, as long as
/// it is: the runtime runs this, and the stores answer. Never ends; does nothing where nobody wants
/// it.
pub async fn watch(service: Arc<Service>) {
    let Some(within) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    // Often enough that one silence of the stores is no end, and not before it is said that we run.
    let every = within / 4;
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match timeout(every, service.answer()).await {
            Ok(()) => tell(&[NotifyState::Watchdog]),
            Err(_) => error!("the stores do not answer; the service manager may start us anew"),
        }
    }
}

fn tell(states: &[NotifyState<'static>]) {
    if let Some(teller) = TELLER.as_ref()
        && teller.try_send(states.to_vec()).is_err()
    {
        debug!("the service manager does not listen");
    }
}

type States = Vec<NotifyState<'static>>;

/// To whom everything goes; `None` where there is no service manager.
static TELLER: LazyLock<Option<SyncSender<States>>> = LazyLock::new(|| {
    std::env::var_os("NOTIFY_SOCKET")?;
    let (sender, receiver) = sync_channel(WAITING_MAX);
    let thread = thread::Builder::new().name("notify".to_owned());
    thread.spawn(move || speak(&receiver)).ok()?;
    Some(sender)
});

fn speak(states: &Receiver<States>) {
    while let Ok(states) = states.recv() {
        if let Err(error) = sd_notify::notify(&states) {
            debug!(%error, "cannot tell the service manager");
        }
    }
}
