//! Puts the rooms together: what `slotd run`, `audit`, `import` and `keygen --rotate` do.
//!
//! `reload` reads the configuration anew, `notify` talks to the service manager.

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::admin;
use crate::audit_log::AuditLog;
use crate::config::{Config, Loaded};
use crate::core::event::Event;
use crate::core::time::Timestamp;
use crate::http::inherited::Inherited;
use crate::http::listen::{BindError, Listeners};
use crate::meters::Counting;
use crate::service::audit::{self, AuditReport, Options};
use crate::service::events::Listener;
use crate::service::import::Import;
use crate::service::operations::Operations;
use crate::service::operations::reload::Reloads;
use crate::service::sweep::{Deletions, Sweeper};
use crate::service::{Service, World};
use crate::store::boot;
use crate::store::keys::{self, KeysError};
use crate::store::{self, Mend, OpenError, StoreError};
use crate::upkeep::{self, Plan};
use crate::xmpp;

mod notify;
mod reload;
pub mod rules;

use reload::Reload;
pub use reload::Source;

/// Why the service could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The signing keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A socket was handed over that the configuration does not know.
    #[error(
        "the service manager listens on {0} for us, where nobody would answer (write the same \
         addresses in slotd.socket and in http.listen)"
    )]
    Unclaimed(String),
    /// A store broke while it was looked through.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system gave no random numbers.
    #[error("the operating system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// There is no thread for the audit log.
    #[error("no thread for the audit log: {0}")]
    Thread(std::io::Error),
    /// A part of the service ended, which none does by itself.
    #[error("a part of the service ended unexpectedly; the log says which")]
    Ended,
}

/// Clock and random numbers of the operating system.
struct SystemWorld {
    started: Instant,
    random: Mutex<Random>,
}

/// Random bytes asked for at once: each slot takes two names, and a system call for each would cost
/// more than their making.
const RANDOM_BYTES: usize = 4096;

/// Random bytes of the operating system that nobody has taken yet.
struct Random {
    bytes: [u8; RANDOM_BYTES],
    n_taken: usize,
}

impl Random {
    fn take(&mut self) -> u128 {
        const N: usize = size_of::<u128>();
        if self.n_taken == RANDOM_BYTES {
            getrandom::fill(&mut self.bytes).expect("it gave random numbers at the start");
            self.n_taken = 0;
        }
        let place = &mut self.bytes[self.n_taken..self.n_taken + N];
        self.n_taken += N;
        let number = u128::from_ne_bytes((&*place).try_into().expect("so many bytes"));
        // Nothing that was given out stays here.
        place.fill(0);
        number
    }
}

impl World for SystemWorld {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Timestamp(since_epoch.unwrap_or_default().as_secs())
    }

    fn random(&self) -> u128 {
        let random = self.random.lock();
        random.unwrap_or_else(PoisonError::into_inner).take()
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

fn world() -> Arc<SystemWorld> {
    Arc::new(SystemWorld {
        started: Instant::now(),
        random: Mutex::new(Random {
            bytes: [0; RANDOM_BYTES],
            n_taken: RANDOM_BYTES,
        }),
    })
}

fn random_secret() -> Result<[u8; 32], RunError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(RunError::Random)?;
    Ok(secret)
}

/// What a run begins with.
pub struct Start {
    /// The configuration.
    pub loaded: Loaded,
    /// Where to read it anew.
    pub source: Source,
    /// Sockets that the service manager handed over.
    pub inherited: Inherited,
    /// Each is a wish to read the configuration anew.
    pub hangups: Signal,
}

/// Runs the service until `shutdown` completes, and then until what runs has ended or
/// `limits.stop_within` is over.
pub async fn run(start: Start, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    raise_descriptor_limit();
    let Start {
        loaded,
        source,
        inherited,
        hangups,
    } = start;
    let Prepared {
        service,
        audit_log,
        sweeper,
        listeners,
        private,
    } = prepare(&loaded, inherited).await?;
    let (reloads, asks) = Reloads::new();
    let (plans, planned) = watch::channel(rules::plan(&loaded.config));
    let (stop, stopped) = watch::channel(false);
    let mut parts = start_parts(&loaded.config, &service, sweeper, reloads, planned, stopped);
    // To the very end: who watches over us shall see us stop.
    let mut watched = JoinSet::new();
    watched.spawn(private.serve(admin::router(service.clone())));
    watched.spawn(notify::watch(service.clone()));
    info!(addresses = ?listeners.addresses(), "slotd {} is ready", env!("CARGO_PKG_VERSION"));
    service.tell(Event::Started);
    let (http, tls, serving) = (loaded.config.http.clone(), listeners.tls(), service.clone());
    let reload = Reload {
        source,
        service: service.clone(),
        audit_log: audit_log.clone(),
        tls,
        plans,
        running: loaded,
    };
    let (close, closed) = watch::channel(false);
    let mut front = JoinSet::new();
    front.spawn(async move { listeners.serve(&http, serving, closed).await });
    let mut aside = JoinSet::new();
    aside.spawn(reload.run(hangups, asks));
    notify::ready();
    let ended = tokio::select! {
        () = shutdown => Ok(()),
        ended = parts.join_next() => Err(ended),
        ended = front.join_next() => Err(ended),
        ended = aside.join_next() => Err(ended),
    };
    let ended = ended.map_err(|ended| {
        error!(?ended, "a part of the service ended unexpectedly");
        RunError::Ended
    });
    drop(aside);
    notify::stopping(service.settings().stop_within);
    wind_down(&service, audit_log, (close, front), (stop, parts)).await;
    info!("stopped");
    ended
}

/// Ends uploads before streams: until then slots are refused with a time to ask again, and whoever
/// wants to know how their upload stands is told.
async fn wind_down(
    service: &Service,
    audit_log: Arc<AuditLog>,
    (close, mut front): (watch::Sender<bool>, JoinSet<()>),
    (stop, mut parts): (watch::Sender<bool>, JoinSet<()>),
) {
    service.tell(Event::Stopping);
    service.drain();
    // Nobody listens any more where all parts have ended.
    let _ = close.send(true);
    let served = async { while front.join_next().await.is_some() {} };
    tokio::join!(served, service.end_logins());
    let _ = stop.send(true);
    while parts.join_next().await.is_some() {}
    service.cut_uploads().await;
    // Bans are written behind; the last ones now.
    service.end_bans().await;
    let _ = tokio::task::spawn_blocking(move || audit_log.flush()).await;
}

/// What can fail at a start has not.
struct Prepared {
    service: Arc<Service>,
    audit_log: Arc<AuditLog>,
    sweeper: Arc<Sweeper>,
    listeners: Listeners,
    private: admin::Listeners,
}

/// Opens stores and sockets, and brings what the last end left in order.
async fn prepare(loaded: &Loaded, mut inherited: Inherited) -> Result<Prepared, RunError> {
    let (config, world) = (&loaded.config, world());
    let seen_at = store::written_at(&config.data_dir);
    let stores = store::open(&config.data_dir, config.durability)?;
    let keys = keys::load_or_create(&config.data_dir, random_secret()?, world.now())?;
    let listeners = Listeners::bind_others(&config.http, &mut inherited)?;
    let private = admin::Listeners::open(&config.admin, &mut inherited)?;
    if !inherited.unclaimed().is_empty() {
        return Err(RunError::Unclaimed(inherited.unclaimed().join(", ")));
    }
    let service = Service::new(rules::live_settings(loaded), keys, stores, world);
    let audit_log = set_listeners(&service, config)?;
    service.load_orders().await?;
    service.load_bans().await?;
    recover(&config.data_dir, &service).await?;
    let sweeper = Arc::new(match seen_at {
        Some(seen_at) => Sweeper::since(service.clone(), seen_at),
        None => Sweeper::new(service.clone()),
    });
    Ok(Prepared {
        service,
        audit_log,
        sweeper,
        listeners,
        private,
    })
}

/// Starts what runs beside HTTP.
fn start_parts(
    config: &Config,
    service: &Arc<Service>,
    sweeper: Arc<Sweeper>,
    reloads: Reloads,
    planned: watch::Receiver<Plan>,
    stopped: watch::Receiver<bool>,
) -> JoinSet<()> {
    let (deletions, told) = Deletions::new();
    service.report_to(deletions.clone());
    let mut parts = JoinSet::new();
    if config.hosts().next().is_none() {
        info!(
            "no component and no account is configured: files are served, slots cannot be asked for"
        );
    }
    let hosts = xmpp::Hosts::of(config);
    if !hosts.is_empty() {
        let operations = Operations::new(
            service.clone(),
            (sweeper.clone(), deletions),
            reloads,
            config.data_dir.clone(),
        );
        parts.spawn(xmpp::run(hosts, operations, stopped.clone()));
    }
    if is_watched(config) {
        let (data_dir, service) = (config.data_dir.clone(), service.clone());
        parts.spawn(upkeep::history::keep(data_dir, service, stopped.clone()));
    }
    parts.spawn(upkeep::run(
        planned,
        service.clone(),
        sweeper,
        told,
        stopped,
    ));
    parts
}

/// Whether anybody can ask what goes on: else nothing of it is remembered.
fn is_watched(config: &Config) -> bool {
    !config.admin.listen.is_empty()
}

/// Has everything told to those who listen.
fn set_listeners(service: &Service, config: &Config) -> Result<Arc<AuditLog>, RunError> {
    let audit_log = AuditLog::start(rules::audit_manner(config)).map_err(RunError::Thread)?;
    let mut listeners: Vec<Arc<dyn Listener>> = vec![audit_log.clone(), Arc::new(Counting)];
    if is_watched(config) {
        upkeep::history::begin(&config.data_dir, service);
        listeners.push(service.recent().clone());
    }
    service.set_listeners(listeners);
    Ok(audit_log)
}

/// After a power cut: looks through the uploads that were under way.
async fn recover(data_dir: &Path, service: &Service) -> Result<(), RunError> {
    if boot::is_started_anew(data_dir) {
        service.recover().await?;
        if let Err(e) = boot::note_start(data_dir) {
            // A full disk, most likely: the next start looks through the uploads once more.
            warn!(error = %e, "cannot note in data_dir that the machine was started anew");
        }
    }
    Ok(())
}

/// Takes as many open files as the system lets us have.
///
/// The soft limit is often 1024, for the sake of programs that call `select`; we do not.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(e) = setrlimit(Resource::Nofile, raised) {
        warn!(error = %e, "the limit of open files cannot be raised");
    }
}

/// Compares rows with files: see `service::audit`.
pub async fn audit(config: Config, options: Options) -> Result<AuditReport, RunError> {
    let stores = match options.mend {
        Mend::Yes => store::open(&config.data_dir, config.durability)?,
        Mend::No => store::open_read_only(&config.data_dir)?,
    };
    Ok(audit::audit(&stores, options).await?)
}

/// What an import may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Look, also beside a running service.
    Look,
    /// Take files, while no service runs.
    Change,
}

/// Opens the stores for files of another server: see `service::import`.
pub fn import(config: &Config, access: Access) -> Result<Import, RunError> {
    let stores = match access {
        Access::Look => store::open_read_only(&config.data_dir)?,
        Access::Change => {
            store::check_heir(&config.data_dir)?;
            store::open(&config.data_dir, config.durability)?
        }
    };
    let lifetimes = config.policy.lifetimes.clone();
    Ok(Import::new(stores, lifetimes, world().now()))
}

/// Adds a new signing key to `data_dir`; a running service takes it up by itself.
pub fn rotate_key(data_dir: &Path) -> Result<(), RunError> {
    let now = world().now();
    keys::load_or_create(data_dir, random_secret()?, now)?;
    let secret = random_secret()?;
    keys::update(data_dir, |keys| Some(keys.rotate(secret, now)))?;
    Ok(())
}
