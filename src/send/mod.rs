//! `slotd send`: uploads files as an XMPP client and sends their links, whatever happens to the
//! network meanwhile.
//!
//! `plan` decides what comes next in an upload, `answers` and `asks` what an answer means; none of
//! them touches anything. `upload` does the steps: over `line` (`stanzas`) to the XMPP server, over
//! `transfer` to the upload service, both by way of `xmpp::client`. `discover` finds the service,
//! `deliver` sends the link, `state` remembers for the next run, `show` tells.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use jid::Jid;
use serde::Serialize;
use tokio::time::{Instant, sleep};

mod answers;
mod args;
mod asks;
mod content;
mod deliver;
mod discover;
mod error;
mod line;
mod pace;
mod plan;
mod show;
mod stanzas;
mod state;
mod transfer;
mod upload;

pub use args::SendArgs;
use content::Content;
use deliver::DeliverError;
use discover::{FindError, Service};
pub use error::SendError;
use line::{AskError, Line, Question};
use pace::Pace;
use show::{Show, size};
use state::{Identity, Record, StateFile, hex};
use transfer::Http;
use upload::{Figures, Parts, Upload};

use crate::xmpp::client::{self, Account, DEAD_AFTER, Reach, Terms, Unencrypted};

/// Environment variable with the account's password.
const PASSWORD_VARIABLE: &str = "SLOTD_PASSWORD";
/// How often the XMPP server is tried before anything has worked, and how often a link is sent.
const FIRST_ATTEMPTS: u32 = 4;
const DELIVER_ATTEMPTS: u32 = 8;
/// The pause between two such attempts, times the attempt.
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);

/// How we log in. A silent server is no trouble between two questions: a question has its own time.
const TERMS: Terms = Terms {
    names: ["--account", "--server", "--ca", "--insecure"],
    plain_needs_tls: false,
    quiet_for: Duration::from_secs(3600),
    answer_within: Duration::from_secs(3600),
    dead_after: DEAD_AFTER,
};

/// What is told of a file that was sent.
#[derive(Serialize)]
struct Sent<'a> {
    file: String,
    size_bytes: u64,
    sha256: String,
    url: &'a str,
    resumed: bool,
    sent_twice_bytes: u64,
    refreshes: u32,
    attempts: u32,
    network_changes: u32,
    seconds: f64,
    to: Vec<String>,
}

/// What is told of a file that was not sent.
#[derive(Serialize)]
struct NotSent {
    file: String,
    error: String,
    exit_status: u8,
}

/// All that is needed before anything is sent.
pub struct Sending {
    args: SendArgs,
    contents: Vec<Content>,
    reach: Reach,
    account: Account,
}

impl Sending {
    /// Opens the files and gets the password, if need be from the terminal.
    pub fn prepare(args: SendArgs) -> Result<Self, SendError> {
        let opened = args.files.iter().map(|path| Content::open(path));
        let contents = opened.collect::<Result<_, _>>()?;
        let reach = Reach {
            tls: client::load(args.ca.as_deref())?,
            unencrypted: match args.insecure {
                true => Unencrypted::Anywhere,
                false => Unencrypted::Loopback,
            },
            server: args.server.clone(),
        };
        let account = Account {
            jid: args.account.clone(),
            password: password(&args)?,
            terms: &TERMS,
        };
        Ok(Self {
            args,
            contents,
            reach,
            account,
        })
    }

    /// Sends all files; the exit status.
    pub async fn run(self) -> u8 {
        match self.send_all().await {
            Ok(status) => status,
            Err(error) => {
                complain("slotd send", &error);
                error.status()
            }
        }
    }

    async fn send_all(&self) -> Result<u8, SendError> {
        let mut line = Line::new(&self.account, &self.reach);
        let service = find_service(&mut line, &self.args).await?;
        let mut status = 0;
        for content in &self.contents {
            let one = One {
                args: &self.args,
                reach: &self.reach,
                service: &service,
                content,
            };
            let Err(error) = one.send(&mut line).await else {
                continue;
            };
            complain(&content.path.display().to_string(), &error);
            if self.args.json {
                print(&NotSent {
                    file: content.path.display().to_string(),
                    error: error.to_string(),
                    exit_status: error.status(),
                })?;
            }
            status = error.status();
            if matches!(error, SendError::LoginRefused(_)) {
                break;
            }
        }
        line.close().await;
        Ok(status)
    }
}

fn complain(what: &str, error: &SendError) {
    // Standard error may be closed; there is nobody else to tell.
    let _ = writeln!(io::stderr(), "{what}: {error}");
}

/// The password, from where it is.
fn password(args: &SendArgs) -> Result<String, SendError> {
    if let Some(path) = &args.password_file {
        return content::first_line(path);
    }
    if let Ok(password) = std::env::var(PASSWORD_VARIABLE)
        && !password.is_empty()
    {
        return Ok(password);
    }
    if !io::stdin().is_terminal() {
        return Err(SendError::Usage(format!(
            "no password: set {PASSWORD_VARIABLE}, or name a file with --password-file"
        )));
    }
    let asked = rpassword::prompt_password(format!("Password of {}: ", args.account.to_bare()));
    asked.map_err(|error| SendError::Usage(format!("no password: {error}")))
}

/// Logs in and finds the service; a server that is not reached is tried a few times.
async fn find_service(line: &mut Line<'_>, args: &SendArgs) -> Result<Service, SendError> {
    let show = Show::new("", 0, args.quiet);
    let named = args.service.as_ref().map(Jid::as_str);
    let domain = args.account.domain().as_str();
    let mut n_attempts = 0;
    loop {
        n_attempts += 1;
        match discover::find(line, domain, named).await {
            Ok(service) => return Ok(service),
            Err(FindError::None(error)) => return Err(error),
            Err(FindError::Ask(AskError::LoginRefused(words))) => {
                return Err(SendError::LoginRefused(words));
            }
            Err(FindError::Ask(AskError::Refused(refusal))) => {
                return Err(SendError::Refused(refusal.words()));
            }
            Err(FindError::Ask(AskError::Lost(words))) if n_attempts < FIRST_ATTEMPTS => {
                show.say(&format!("{words}; trying again"));
                sleep(ATTEMPT_PAUSE * n_attempts).await;
            }
            Err(FindError::Ask(AskError::Lost(words))) => return Err(SendError::Failed(words)),
        }
    }
}

/// One file.
struct One<'a> {
    args: &'a SendArgs,
    reach: &'a Reach,
    service: &'a Service,
    content: &'a Content,
}

impl One<'_> {
    async fn send(&self, line: &mut Line<'_>) -> Result<(), SendError> {
        let began = Instant::now();
        let content = self.content;
        if let Some(max) = self.service.info.size_bytes_max
            && max < content.size_bytes
        {
            return Err(SendError::Refused(format!(
                "{} is larger than {} takes, which is {}",
                size(content.size_bytes),
                self.service.jid,
                size(max)
            )));
        }
        let show = Show::new(&content.name, content.size_bytes, self.args.quiet);
        show.say("reading the file");
        let sha256 = content.sha256()?;
        let account = self.args.account.to_bare().to_string();
        let state = self.hold_state(&hex(&sha256), &account, &show)?;
        let earlier = self.earlier(state.as_ref(), line).await;
        if earlier.is_none() && self.service.info.has_sessions {
            show.say(&format!("sending {}", size(content.size_bytes)));
        } else if earlier.is_none() {
            show.note(&format!(
                "{} knows no upload sessions: an interruption means sending from the beginning",
                self.service.jid
            ));
        }
        let parts = Parts {
            line,
            http: Http::new(self.reach),
            content,
            sha256,
            service: self.service,
            show: &show,
            state: state.as_ref(),
            pace: Pace::new(self.args.rate_max.map(|rate| rate.as_u64())),
            account,
        };
        let mut upload = Upload::new(parts, earlier);
        upload.run(self.args.give_up_after).await?;
        self.deliver(&mut upload, &show).await?;
        let (record, figures) = (upload.record, upload.figures);
        if let Some(state) = state {
            // What is left of it is found complete by the next run.
            let _ = state.remove();
        }
        self.report(&record, &figures, began.elapsed(), &show)
    }

    /// The place where the next run looks; without one there is no going on later.
    fn hold_state(
        &self,
        sha256: &str,
        account: &str,
        show: &Show,
    ) -> Result<Option<StateFile>, SendError> {
        let identity = Identity {
            file: &self.content.full_path,
            sha256,
            account,
            service: &self.service.jid,
        };
        let held = match state::directory() {
            Some(directory) => StateFile::hold(&directory, &identity),
            None => Err(io::Error::other("neither XDG_STATE_HOME nor HOME is set")),
        };
        match held {
            Ok(state) => Ok(Some(state)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SendError::Failed(
                "another slotd send is sending this file at this moment".to_owned(),
            )),
            Err(error) => {
                show.note(&format!(
                    "an interruption cannot be resumed: no state is kept: {error}"
                ));
                Ok(None)
            }
        }
    }

    /// What an earlier run left; with --fresh its session is given up.
    async fn earlier(&self, state: Option<&StateFile>, line: &mut Line<'_>) -> Option<Record> {
        let record = state?.read()?;
        if !self.args.fresh {
            return Some(record);
        }
        let cancel = Question {
            kind: "set",
            to: &self.service.jid,
            payload: stanzas::about_session("cancel", &record.session),
        };
        // It ends by itself where this does not work.
        let _ = line.ask(cancel).await;
        None
    }

    /// Sends the link to those who do not have it yet.
    async fn deliver(&self, upload: &mut Upload<'_, '_>, show: &Show) -> Result<(), SendError> {
        let node = self.args.account.node();
        let own = node.map_or("slotd", |node| node.as_str());
        let nick = self.args.nick.as_deref().unwrap_or(own);
        let mut refused = None;
        for to in &self.args.to {
            if upload.record.told.iter().any(|told| told == to.as_str()) {
                continue;
            }
            show.say(&format!("sending the link to {to}"));
            let mut n_attempts = 0;
            loop {
                n_attempts += 1;
                let url = upload.record.get_url.clone();
                match deliver::deliver(upload.line(), to, nick, &url).await {
                    Ok(()) => {
                        upload.record.told.push(to.to_string());
                        upload.write_record();
                        break;
                    }
                    Err(DeliverError::Refused(error)) => {
                        let url = &upload.record.get_url;
                        show.complain(&format!("uploaded to {url}, but: {error}"));
                        refused = Some(error);
                        break;
                    }
                    Err(DeliverError::Lost(words)) if n_attempts < DELIVER_ATTEMPTS => {
                        show.say(&format!("{words}; trying again"));
                        sleep(ATTEMPT_PAUSE * n_attempts).await;
                    }
                    Err(DeliverError::Lost(words)) => return Err(SendError::Failed(words)),
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    fn report(
        &self,
        record: &Record,
        figures: &Figures,
        took: Duration,
        show: &Show,
    ) -> Result<(), SendError> {
        let twice = match figures.sent_twice_bytes {
            0 => String::new(),
            bytes => format!(", {} sent twice", size(bytes)),
        };
        let seconds = took.as_secs_f64();
        let sent = size(record.size_bytes);
        show.end(&format!("sent {sent} in {seconds:.1} s{twice}"));
        if !self.args.json {
            return print_line(&record.get_url);
        }
        print(&Sent {
            file: self.content.path.display().to_string(),
            size_bytes: record.size_bytes,
            sha256: record.sha256.clone(),
            url: &record.get_url,
            resumed: figures.was_resumed,
            sent_twice_bytes: figures.sent_twice_bytes,
            refreshes: figures.n_refreshes,
            attempts: figures.n_attempts,
            network_changes: figures.n_network_changes,
            seconds,
            to: record.told.clone(),
        })
    }
}

fn print(object: &impl Serialize) -> Result<(), SendError> {
    let text = serde_json::to_string(object);
    print_line(&text.map_err(|error| SendError::Failed(error.to_string()))?)
}

fn print_line(text: &str) -> Result<(), SendError> {
    let written = writeln!(io::stdout(), "{text}");
    written.map_err(|error| SendError::Failed(format!("standard output: {error}")))
}
