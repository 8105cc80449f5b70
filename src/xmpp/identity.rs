//! As whom slotd logs in, and what its streams' ends mean then.

use std::time::Duration;

use jid::{Jid, ResourcePart};
use tokio::task::spawn_blocking;
use tracing::info;

use super::client::{self, Reach, Terms, Unencrypted};
use super::login::{self, Connect, Line, LoginError};
use super::speaker::Speaker;
use super::stream::End;
use crate::config::{Account, Component};

/// How an account logs in.
const TERMS: Terms = Terms {
    names: [
        "account.jid",
        "account.server",
        "account.ca",
        "account.insecure",
    ],
    plain_needs_tls: true,
    quiet_for: login::QUIET_FOR,
    answer_within: login::ANSWER_WITHIN,
    dead_after: Duration::from_secs(login::QUIET_FOR.as_secs() + login::ANSWER_WITHIN.as_secs()),
};

/// Stream errors by which a server sends an account away; after others it may be let in at once.
const REFUSALS: [&str; 3] = ["host-unknown", "not-authorized", "policy-violation"];

/// As whom a stream is logged in.
#[derive(Clone, Debug)]
pub enum Identity {
    /// A component.
    Component(Component),
    /// An account behind a relay.
    Account(Account),
}

impl Identity {
    /// Its name in the log and in figures.
    pub fn name(&self) -> &str {
        match self {
            Self::Component(component) => &component.jid,
            Self::Account(account) => account.jid.as_str(),
        }
    }

    /// The host that requesters know.
    pub fn host(&self) -> &str {
        match self {
            Self::Component(component) => &component.jid,
            Self::Account(account) => &account.relay,
        }
    }

    /// How many streams to hold.
    pub fn n_streams(&self) -> u8 {
        match self {
            Self::Component(component) => component.connections.max(1),
            Self::Account(_) => 1,
        }
    }

    /// How its streams speak.
    pub fn speaker(&self) -> Speaker {
        match self {
            Self::Component(component) => Speaker::Component {
                host: component.jid.clone(),
            },
            Self::Account(account) => Speaker::Account {
                domain: account.jid.domain().as_str().to_owned(),
                relay: account.relay.clone(),
            },
        }
    }

    /// What is said of it when it is logged in.
    pub fn online(&self) -> String {
        match self {
            Self::Component(_) => "component is online".to_owned(),
            Self::Account(account) => format!("account is online behind {}", account.relay),
        }
    }

    /// Logs in.
    pub async fn log_in(&self, connect: &Connect) -> Result<Line, LoginError> {
        match self {
            Self::Component(component) => login::log_in(component, connect).await,
            Self::Account(account) => log_in(account).await,
        }
    }

    /// What the end of a stream means for the next: whether the server refuses us.
    ///
    /// Of two that log in under one resource the server throws out the older: the resource of the
    /// next log-in is one that the server makes, or they would do that to each other for ever.
    pub fn learn(&mut self, end: &End) -> bool {
        let End::Error(error) = end else {
            return false;
        };
        match self {
            Self::Component(component) => error.clone().into_login_error(component).is_refusal(),
            Self::Account(account) if error.condition == "conflict" => {
                account.resource.take().is_none()
            }
            Self::Account(_) => REFUSALS.contains(&error.condition.as_str()),
        }
    }

    /// What a stream error means, for an admin.
    pub fn words(&self, error: &login::StreamError) -> String {
        let component = match self {
            Self::Component(component) => component,
            Self::Account(account) if error.condition == "conflict" => {
                let resource = account.resource.as_deref().unwrap_or("of ours");
                return format!(
                    "another log-in took the resource {resource}: another slotd with the same \
                     account.resource? Logging in with a resource that the server makes"
                );
            }
            Self::Account(_) => {
                let reason = error.reason();
                return format!("the XMPP server ended the stream: {reason}; connecting again");
            }
        };
        match error.clone().into_login_error(component) {
            LoginError::Refused { reason, .. } => {
                format!("the XMPP server ended the stream: {reason}; connecting again")
            }
            LoginError::Closed { .. } => {
                format!(
                    "the XMPP server shuts down ({}); connecting again",
                    error.condition
                )
            }
            known => known.to_string(),
        }
    }
}

async fn log_in(account: &Account) -> Result<Line, LoginError> {
    let ca = account.ca.clone();
    // Read each time: a certificate that was renewed is known by itself.
    let tls = spawn_blocking(move || client::load(ca.as_deref())).await;
    let tls = match tls {
        Ok(tls) => tls.map_err(|error| client::LoginError::Distrusted(error.to_string()))?,
        Err(_) => return Err(client::LoginError::Unreachable("slotd stops".to_owned()).into()),
    };
    let reach = Reach {
        tls,
        unencrypted: match account.insecure {
            true => Unencrypted::Loopback,
            false => Unencrypted::Never,
        },
        server: account.server.clone(),
    };
    let resource = account.resource.as_deref().map(ResourcePart::new);
    let jid = match resource {
        // The configuration has checked it.
        Some(Ok(resource)) => account.jid.with_resource(&resource).into(),
        Some(Err(_)) | None => Jid::from(account.jid.clone()),
    };
    let account = client::Account {
        jid,
        password: account.password.0.clone(),
        terms: &TERMS,
    };
    let logged_in = client::log_in(&account, &reach).await?;
    if account.jid.resource().is_some() && account.jid.as_str() != logged_in.jid {
        info!(
            jid = logged_in.jid,
            "the resource is another one than account.resource"
        );
    }
    Ok(Line {
        wire: logged_in.wire,
        socket: logged_in.socket,
    })
}
