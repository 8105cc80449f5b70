//! Slots for the benchmark of HTTP, without any XMPP: rows in a data directory, and their URLs.
//!
//! Works on the `data_dir` of a slotd that does not run. The quotas and rates of the configuration
//! do not count; its lifetimes do.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use jid::Jid;
use slotd::config::{self, Config, Durability, Use};
use slotd::core::policy::{Access, Quota};
use slotd::core::rate::Rate;
use slotd::core::slot::{ContentType, FileName, Purpose, SessionWish, SlotRequest};
use slotd::core::time::Timestamp;
use slotd::daemon::rules;
use slotd::service::{Issued, Service, Settings, World};
use slotd::store::{self, keys};

/// Slots that are asked for at once; the store commits them together where it can.
const AT_ONCE: usize = 64;
/// Sessions of one account: half of what the default configuration allows it.
const SESSIONS_EACH: usize = 10;

/// Makes slots while slotd does not run.
#[derive(Parser)]
#[command(name = "bench-mint")]
struct Args {
    /// slotd's configuration.
    #[arg(long)]
    config: PathBuf,
    /// How many slots.
    #[arg(long)]
    slots: usize,
    /// The size of each file, in bytes.
    #[arg(long)]
    size: u64,
    /// Where to write a PUT URL a line.
    #[arg(long)]
    put_urls: PathBuf,
    /// Where to write a GET URL a line.
    #[arg(long)]
    get_urls: PathBuf,
    /// Makes upload sessions, and writes a resume URL a line.
    #[arg(long)]
    resume_urls: Option<PathBuf>,
}

struct SystemWorld(Instant);

impl World for SystemWorld {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Timestamp(since_epoch.unwrap_or_default().as_secs())
    }

    fn random(&self) -> u128 {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the system gives random numbers");
        u128::from_ne_bytes(bytes)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let config = config::load(&args.config, &Use::DataDir)?.config;
    let world = Arc::new(SystemWorld(Instant::now()));
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    let keys = keys::load_or_create(&config.data_dir, secret, world.now())?;
    // Whether these rows survive a power cut is nobody's concern.
    let stores = store::open(&config.data_dir, Durability::None)?;
    let service = Service::new(unrefusing(&config), keys, stores, world);
    let issued = mint(&service, &args).await?;
    write(
        &args.put_urls,
        issued.iter().map(|one| one.slot.put_url.clone()),
    )?;
    write(
        &args.get_urls,
        issued.iter().map(|one| one.slot.get_url.clone()),
    )?;
    if let Some(path) = &args.resume_urls {
        let views = issued.iter().filter_map(|one| one.session.as_ref());
        write(path, views.filter_map(|view| view.resume_url.clone()))?;
    }
    Ok(())
}

async fn mint(service: &Arc<Service>, args: &Args) -> Result<Vec<Issued>, Box<dyn Error>> {
    let mut issued = Vec::with_capacity(args.slots);
    for first in (0..args.slots).step_by(AT_ONCE) {
        let asked = (first..args.slots.min(first + AT_ONCE)).map(|n| {
            let (service, is_session) = (service.clone(), args.resume_urls.is_some());
            let (size_bytes, account) = (args.size, n / SESSIONS_EACH);
            tokio::spawn(async move {
                let requester = Jid::new(&format!("user{account}@localhost/bench"));
                let request = SlotRequest {
                    filename: FileName::parse("bench.bin").expect("a usable name"),
                    size_bytes,
                    content_type: Some(ContentType::octet_stream()),
                    purpose: Purpose::Message,
                    session: is_session.then(SessionWish::default),
                };
                let requester = requester.expect("a valid JID");
                service.request_slot(&requester, request).await
            })
        });
        for slot in asked.collect::<Vec<_>>() {
            issued.push(
                slot.await?
                    .map_err(|refusal| format!("refused: {refusal:?}"))?,
            );
        }
    }
    Ok(issued)
}

fn write(path: &Path, urls: impl Iterator<Item = String>) -> std::io::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    for url in urls {
        writeln!(file, "{url}")?;
    }
    file.flush()
}

/// The configuration's settings, but for what would refuse anybody.
fn unrefusing(config: &Config) -> Settings {
    let mut settings = rules::settings(config);
    settings.policy.access = Access {
        domains: vec!["localhost".to_owned()],
        ..Access::default()
    };
    settings.policy.quota = Quota {
        per_requester: None,
        per_domain: None,
        total: None,
        window: Duration::from_secs(86_400),
        exceptions: HashMap::new(),
    };
    settings.slot_rate = Rate {
        per_minute: 1_000_000_000,
    };
    settings.byte_rate = None;
    settings.token_in_header = false;
    settings
}
