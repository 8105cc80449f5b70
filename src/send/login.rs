//! Logs in to the XMPP server as a client: STARTTLS, SASL, a resource. RFC 6120.
//!
//! Own log-in over `tokio_xmpp`'s pieces: in this build its default namespace is a component's.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use jid::Jid;
use minidom::Element;
use sasl::client::Mechanism;
use sasl::client::mechanisms::{Plain, Scram};
use sasl::common::scram::{Sha1, Sha256};
use sasl::common::{ChannelBinding, Credentials};
use tokio::io::BufWriter;
use tokio_xmpp::xmlstream::{ReadError, StreamHeader, Timeouts, initiate_stream};
use xmpp_parsers::ns;

use super::answers::shown;
use super::reach::{DEAD_AFTER, Place, Reach, Route, is_distrust, tcp};
use super::stanzas::{attr, child_text, iq, text_in};
use crate::xmpp::{Guard, Socket, StreamError, Wire};

/// How long a log-in may take, from TLS on.
const LOGIN_WITHIN: Duration = Duration::from_secs(30);
/// A silent server is no trouble between two questions; a question has its own time.
const QUIET_FOR: Duration = Duration::from_secs(3600);
const WRITE_BYTES: usize = 8 * 1024;

/// Why there is no stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// No server is reached, or it is not ready: another time may be better.
    #[error("{0}")]
    Unreachable(String),
    /// The server refuses us.
    #[error("{0}")]
    Refused(String),
    /// Whoever answers may be somebody else: no password is sent.
    #[error("{0}")]
    Distrusted(String),
}

/// Who we are.
pub struct Account {
    /// The address; its resource, if it has one, is asked for.
    pub jid: Jid,
    /// The password.
    pub password: String,
}

/// A stream that is logged in.
pub struct LoggedIn {
    /// The stream.
    pub wire: Wire,
    /// Our full address, as the server spells it.
    pub jid: String,
    /// The way it takes.
    pub route: Route,
}

/// Connects and logs in, at the first place that lets itself be reached.
pub async fn log_in(account: &Account, reach: &Reach) -> Result<LoggedIn, LoginError> {
    let domain = account.jid.domain().as_str();
    let mut last = LoginError::Unreachable(format!("{domain} names no XMPP server"));
    for place in reach.places(domain).await {
        match at_place(account, reach, &place).await {
            Err(LoginError::Unreachable(words)) => last = LoginError::Unreachable(words),
            other => return other,
        }
    }
    Err(last)
}

async fn at_place(account: &Account, reach: &Reach, place: &Place) -> Result<LoggedIn, LoginError> {
    let named = format!("{}:{}", place.host, place.port);
    let unreached = |error: std::io::Error| {
        let words = format!("cannot connect to the XMPP server {named}: {error}");
        LoginError::Unreachable(words)
    };
    let socket = tcp(&place.host, place.port, DEAD_AFTER).await;
    let socket = socket.map_err(unreached)?;
    let route = Route::of(&socket).map_err(unreached)?;
    let allows_plain = reach.allows_plain(&socket);
    let login = async {
        let socket: Box<dyn Socket> = Box::new(socket);
        if place.is_direct {
            let socket = encrypted(account, reach, socket, Some(b"xmpp-client")).await?;
            let (wire, features) = open(account, socket).await?;
            return authenticate(account, wire, &features).await;
        }
        let (mut wire, mut features) = open(account, socket).await?;
        if features.get_child("starttls", ns::TLS).is_some() {
            let socket = start_tls(wire).await?;
            let socket = encrypted(account, reach, socket, None).await?;
            (wire, features) = open(account, socket).await?;
        } else if !allows_plain {
            return Err(LoginError::Distrusted(format!(
                "the XMPP server {named} offers no encryption, and the password would be seen on \
                 the way; --insecure goes on all the same"
            )));
        }
        authenticate(account, wire, &features).await
    };
    let ended = tokio::time::timeout(LOGIN_WITHIN, login).await;
    let ended = ended.unwrap_or_else(|_| Err(lost("it did not finish within 30 seconds")));
    ended.map(|(wire, jid)| LoggedIn { wire, jid, route })
}

fn lost(words: &str) -> LoginError {
    LoginError::Unreachable(format!(
        "the XMPP server was lost during the log-in: {words}"
    ))
}

async fn encrypted(
    account: &Account,
    reach: &Reach,
    socket: Box<dyn Socket>,
    alpn: Option<&[u8]>,
) -> Result<Box<dyn Socket>, LoginError> {
    let domain = account.jid.domain().as_str();
    match reach.tls(socket, domain, alpn).await {
        Ok(socket) => Ok(Box::new(socket)),
        Err(error) if is_distrust(&error) => Err(LoginError::Distrusted(format!(
            "the XMPP server's certificate for {domain} is not to be trusted: {error}; if it is \
             your own server, name its certificate or its authority's with --ca"
        ))),
        Err(error) => Err(lost(&format!("TLS: {error}"))),
    }
}

async fn start_tls(mut wire: Wire) -> Result<Box<dyn Socket>, LoginError> {
    send(&mut wire, &Element::bare("starttls", ns::TLS)).await?;
    let answer = next(&mut wire).await?;
    if !answer.is("proceed", ns::TLS) {
        return Err(lost("it refuses STARTTLS"));
    }
    Ok(bare(wire))
}

/// The socket under a stream. What came and was not read goes with the guard, so that nobody slips
/// plain text under TLS.
fn bare(wire: Wire) -> Box<dyn Socket> {
    wire.into_inner().into_inner().into_inner()
}

/// Opens a stream and reads its features.
async fn open(account: &Account, socket: Box<dyn Socket>) -> Result<(Wire, Element), LoginError> {
    let header = StreamHeader {
        to: Some(account.jid.domain().as_str().into()),
        ..StreamHeader::default()
    };
    let timeouts = Timeouts {
        read_timeout: QUIET_FOR,
        response_timeout: QUIET_FOR,
    };
    let guard = Guard::new(BufWriter::with_capacity(WRITE_BYTES, socket));
    let begun = initiate_stream(guard, ns::JABBER_CLIENT, header, timeouts).await;
    let mut wire: Wire = begun
        .map_err(|error| lost(&error.to_string()))?
        .skip_features();
    let features = next(&mut wire).await?;
    match features.is("features", ns::STREAM) {
        true => Ok((wire, features)),
        false => Err(lost(
            "it does not speak XMPP for clients; is it another port?",
        )),
    }
}

/// Mechanisms in the order in which we like them.
fn mechanism(
    account: &Account,
    offered: &[String],
) -> Result<Box<dyn Mechanism + Send>, LoginError> {
    let node = account.jid.node().map(|node| node.as_str().to_owned());
    let name = node.unwrap_or_default();
    let credentials = |name: &str| {
        let credentials = Credentials::default().with_username(name);
        let credentials = credentials.with_password(account.password.as_str());
        credentials.with_channel_binding(ChannelBinding::None)
    };
    // RFC 5802 #5.1: in SCRAM these two stand for something else.
    let escaped = name.replace('=', "=3D").replace(',', "=2C");
    let unusable = |error: &dyn std::fmt::Display| LoginError::Refused(format!("SASL: {error}"));
    let offers = |name: &str| offered.iter().any(|offered| offered == name);
    if offers("SCRAM-SHA-256") {
        let scram = Scram::<Sha256>::from_credentials(credentials(&escaped));
        return Ok(Box::new(scram.map_err(|error| unusable(&error))?));
    }
    if offers("SCRAM-SHA-1") {
        let scram = Scram::<Sha1>::from_credentials(credentials(&escaped));
        return Ok(Box::new(scram.map_err(|error| unusable(&error))?));
    }
    if offers("PLAIN") {
        let plain = Plain::from_credentials(credentials(&name));
        return Ok(Box::new(plain.map_err(|error| unusable(&error))?));
    }
    Err(LoginError::Refused(format!(
        "the XMPP server offers none of SCRAM-SHA-256, SCRAM-SHA-1 and PLAIN, but {}",
        shown(&offered.join(", "))
    )))
}

async fn authenticate(
    account: &Account,
    mut wire: Wire,
    features: &Element,
) -> Result<(Wire, String), LoginError> {
    let offered: Vec<String> = features
        .get_child("mechanisms", ns::SASL)
        .map(|mechanisms| mechanisms.children().map(Element::text).collect())
        .unwrap_or_default();
    let mut mechanism = mechanism(account, &offered)?;
    let initial = mechanism.initial();
    let auth = Element::builder("auth", ns::SASL).attr(attr("mechanism"), mechanism.name());
    send(&mut wire, &auth.append(STANDARD.encode(initial)).build()).await?;
    loop {
        let answer = next(&mut wire).await?;
        let data = || STANDARD.decode(answer.text().trim()).unwrap_or_default();
        match answer.name() {
            _ if !answer.has_ns(ns::SASL) => return Err(lost("an answer that is none")),
            "challenge" => {
                let response = mechanism.response(&data());
                let response = response.map_err(|error| not_ours(&error.to_string()))?;
                let response = Element::builder("response", ns::SASL)
                    .append(STANDARD.encode(response))
                    .build();
                send(&mut wire, &response).await?;
            }
            "success" => {
                mechanism
                    .success(&data())
                    .map_err(|error| not_ours(&error.to_string()))?;
                break;
            }
            _ => return Err(refused(account, &answer)),
        }
    }
    drop(mechanism);
    let (wire, _) = open(account, bare(wire)).await?;
    bind(account, wire).await
}

/// The server does not know the password itself: somebody stands between.
fn not_ours(words: &str) -> LoginError {
    LoginError::Refused(format!(
        "the XMPP server did not prove that it knows the password ({words}); do not trust this \
         network"
    ))
}

/// `<failure/>` in words: RFC 6120 #6.5.
fn refused(account: &Account, failure: &Element) -> LoginError {
    let condition = failure.children().find(|child| child.name() != "text");
    let condition = condition.map_or("failure", Element::name);
    let text = shown(&child_text(failure, "text", ns::SASL));
    let said = match text.as_str() {
        "" => condition.to_owned(),
        text => format!("{condition}: {text}"),
    };
    let bare = account.jid.to_bare();
    match condition {
        "not-authorized" => LoginError::Refused(format!(
            "the XMPP server refuses the password of {bare} ({said}); check --account and the \
             password"
        )),
        "temporary-auth-failure" => lost(&said),
        _ => LoginError::Refused(format!("the XMPP server does not let {bare} in ({said})")),
    }
}

/// Gets a resource: RFC 6120 #7.
async fn bind(account: &Account, mut wire: Wire) -> Result<(Wire, String), LoginError> {
    let mut wish = Element::bare("bind", ns::BIND);
    if let Some(resource) = account.jid.resource() {
        wish.append_child(text_in("resource", ns::BIND, resource.as_str()));
    }
    send(&mut wire, &iq("set", None, "bind", wish)).await?;
    loop {
        let answer = next(&mut wire).await?;
        if answer.attr("id") != Some("bind") {
            continue;
        }
        let bound = answer.get_child("bind", ns::BIND);
        let jid = bound.map(|bound| child_text(bound, "jid", ns::BIND));
        return match jid {
            Some(jid) if answer.attr("type") == Some("result") => Ok((wire, jid)),
            _ => Err(lost("it gives no resource")),
        };
    }
}

async fn send(wire: &mut Wire, element: &Element) -> Result<(), LoginError> {
    let sent = wire.send(element).await;
    sent.map_err(|error| lost(&error.to_string()))
}

async fn next(wire: &mut Wire) -> Result<Element, LoginError> {
    loop {
        return match wire.next().await {
            Some(Ok(element)) => match StreamError::read(&element) {
                Some(error) if error.condition == "host-unknown" => Err(LoginError::Refused(
                    "the XMPP server does not know the account's domain; check --account and \
                     --server"
                        .to_owned(),
                )),
                Some(error) => Err(lost(&error.reason())),
                None => Ok(element),
            },
            Some(Err(ReadError::SoftTimeout | ReadError::ParseError(_))) => continue,
            Some(Err(ReadError::HardError(error))) => Err(lost(&error.to_string())),
            Some(Err(ReadError::StreamFooterReceived)) | None => Err(lost("it ended the stream")),
        };
    }
}
