//! How fast are slots issued, and what does a slot cost? A load generator for slot requests.
//!
//! Two ways to ask. As accounts of an XMPP server (`--server`): each user logs in over plain TCP
//! with SASL PLAIN and keeps a window of requests under way; the server must allow that, and have
//! the accounts. Or in the server's place (`--mock`): it listens as an XMPP server does for
//! components, and whatever logs in is sent the requests, so that the component is measured alone.
//!
//! It prints one line of JSON. It reads no more of an answer than its id and whether there is a
//! `<put`, for it shares the machine with what it measures; `own_cpu_s` says what it took itself.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

mod cpu;
mod mock;
mod user;
mod window;

/// Asks for slots as fast as they are issued.
#[derive(Parser)]
#[command(name = "bench-slots")]
pub struct Args {
    /// The XMPP server's port for clients: host:port.
    #[arg(long, required_unless_present = "mock")]
    server: Option<String>,
    /// Listen here in the XMPP server's place, and send the requests to the component that comes.
    #[arg(long, conflicts_with = "server")]
    mock: Option<String>,
    /// The domain of the accounts.
    #[arg(long, default_value = "localhost")]
    domain: String,
    /// Whom to ask.
    #[arg(long, default_value = "upload.localhost")]
    service: String,
    /// How many users ask at once.
    #[arg(long, default_value_t = 8)]
    users: u64,
    /// How many requests each keeps under way.
    #[arg(long, default_value_t = 50)]
    window: u64,
    /// How long to ask.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How many slots to ask for, at most.
    #[arg(long)]
    slots: Option<u64>,
    /// Ask for an upload session with each slot.
    #[arg(long)]
    session: bool,
    /// The accounts are this and a number, from 0.
    #[arg(long, default_value = "u")]
    user_prefix: String,
    /// The accounts' password.
    #[arg(long, default_value = "a-password")]
    password: String,
    /// Mock only: how many accounts the requests come from; as many as users, if not given.
    #[arg(long)]
    accounts: Option<u64>,
    /// Mock only: how many requests are written at once. Prosody writes few, ejabberd many.
    #[arg(long, default_value_t = 64)]
    burst: usize,
    /// A process whose CPU time a slot is told: NAME=PID. May be given again.
    #[arg(long, value_parser = cpu::Watched::parse)]
    watch: Vec<cpu::Watched>,
}

impl Args {
    fn limits(&self) -> window::Limits {
        window::Limits {
            for_: Duration::from_secs_f64(self.seconds),
            slots_max: self.slots.unwrap_or(u64::MAX),
        }
    }

    /// A slot request from `from` (a client's server knows it).
    fn request(&self, id: u64, from: Option<&str>) -> String {
        let from = from.map_or(String::new(), |from| format!(" from='{from}'"));
        let session = match self.session {
            true => "><session xmlns='urn:slotd:upload-session:0'/></request>",
            false => "/>",
        };
        format!(
            "<iq type='get' id='{id}' to='{}'{from}><request xmlns='urn:xmpp:http:upload:0' \
             filename='photo-{id}.jpg' size='102400' content-type='image/jpeg'{session}</iq>",
            self.service
        )
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let run = async {
        match &args.mock {
            Some(address) => mock::run(&args, address).await,
            None => user::run(&args).await,
        }
    };
    match runtime.and_then(|runtime| runtime.block_on(run)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("bench-slots: {e}");
            ExitCode::FAILURE
        }
    }
}
