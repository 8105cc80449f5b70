//! Logs in to the XMPP server as a client: STARTTLS, SASL, a resource. RFC 6120.
//!
//! Own log-in over `tokio_xmpp`'s pieces: in this build its default namespace is a component's.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use jid::Jid;
use minidom::Element;
use minidom::rxml::xml_ncname;
use sasl::client::Mechanism;
use sasl::client::mechanisms::{Plain, Scram};
use sasl::common::scram::{Sha1, Sha256};
use sasl::common::{ChannelBinding, Credentials};
use tokio::io::BufWriter;
use tokio_xmpp::xmlstream::{ReadError, StreamHeader, Timeouts, initiate_stream};
use xmpp_parsers::ns;

use super::reach::{Place, Reach, Route, is_distrust, tcp};
use crate::xmpp::guard::Guard;
use crate::xmpp::login::{Socket, StreamError, Wire};
use crate::xmpp::shared::Shared;

/// How long a log-in may take, from TLS on.
const LOGIN_WITHIN: Duration = Duration::from_secs(30);
const WRITE_BYTES: usize = 8 * 1024;
/// How much is shown of a text that the server wrote.
const WORDS_CHARS_MAX: usize = 200;

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
    /// What else whoever logs in wants.
    pub terms: &'static Terms,
}

/// What those who log in differ in.
pub struct Terms {
    /// How their users call the account, the server's place, the certificates that are trusted, and
    /// the leave to go without encryption: for the words of errors.
    pub names: [&'static str; 4],
    /// PLAIN goes over TLS alone, wherever the server is.
    pub plain_needs_tls: bool,
    /// After so long without a byte from the server the stream says so.
    pub quiet_for: Duration,
    /// After so much more it is dead.
    pub answer_within: Duration,
    /// After so long without a word from the other side's kernel the connection is dead.
    pub dead_after: Duration,
}

/// A stream that is logged in.
pub struct LoggedIn {
    /// The stream.
    pub wire: Wire,
    /// The socket under it.
    pub socket: Shared,
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
    let socket = tcp(&place.host, place.port, account.terms.dead_after).await;
    let socket = socket.map_err(unreached)?;
    let route = Route::of(&socket).map_err(unreached)?;
    let allows_plain = reach.allows_plain(&socket);
    let login = async {
        let socket: Box<dyn Socket> = Box::new(socket);
        if place.is_direct {
            let socket = encrypted(account, reach, socket, Some(b"xmpp-client")).await?;
            let (wire, features) = open(account, socket).await?;
            return authenticate(account, wire, &features, true).await;
        }
        let (mut wire, mut features) = open(account, socket).await?;
        let is_encrypted = features.get_child("starttls", ns::TLS).is_some();
        if is_encrypted {
            let socket = start_tls(account, wire).await?;
            let socket = encrypted(account, reach, socket, None).await?;
            (wire, features) = open(account, socket).await?;
        } else if !allows_plain {
            let [.., insecure] = account.terms.names;
            return Err(LoginError::Distrusted(format!(
                "the XMPP server {named} offers no encryption, and the password would be seen on \
                 the way; {insecure} goes on all the same"
            )));
        }
        authenticate(account, wire, &features, is_encrypted).await
    };
    let ended = tokio::time::timeout(LOGIN_WITHIN, login).await;
    let ended = ended.unwrap_or_else(|_| Err(lost("it did not finish within 30 seconds")));
    ended.map(|(wire, socket, jid)| LoggedIn {
        wire,
        socket,
        jid,
        route,
    })
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
             your own server, name its certificate or its authority's with {}",
            account.terms.names[2]
        ))),
        Err(error) => Err(lost(&format!("TLS: {error}"))),
    }
}

async fn start_tls(account: &Account, mut wire: Wire) -> Result<Box<dyn Socket>, LoginError> {
    send(&mut wire, &Element::bare("starttls", ns::TLS)).await?;
    let answer = next(account, &mut wire).await?;
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
        read_timeout: account.terms.quiet_for,
        response_timeout: account.terms.answer_within,
    };
    let guard = Guard::new(BufWriter::with_capacity(WRITE_BYTES, socket));
    let begun = initiate_stream(guard, ns::JABBER_CLIENT, header, timeouts).await;
    let mut wire: Wire = begun
        .map_err(|error| lost(&error.to_string()))?
        .skip_features();
    let features = next(account, &mut wire).await?;
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
    is_encrypted: bool,
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
    if offers("PLAIN") && (is_encrypted || !account.terms.plain_needs_tls) {
        let plain = Plain::from_credentials(credentials(&name));
        return Ok(Box::new(plain.map_err(|error| unusable(&error))?));
    }
    Err(LoginError::Refused(format!(
        "the XMPP server offers none of SCRAM-SHA-256, SCRAM-SHA-1 and{} PLAIN, but {}",
        if account.terms.plain_needs_tls {
            ", over TLS,"
        } else {
            ""
        },
        shown(&offered.join(", "))
    )))
}

async fn authenticate(
    account: &Account,
    mut wire: Wire,
    features: &Element,
    is_encrypted: bool,
) -> Result<(Wire, Shared, String), LoginError> {
    let offered: Vec<String> = features
        .get_child("mechanisms", ns::SASL)
        .map(|mechanisms| mechanisms.children().map(Element::text).collect())
        .unwrap_or_default();
    let mut mechanism = mechanism(account, &offered, is_encrypted)?;
    let initial = mechanism.initial();
    let auth = Element::builder("auth", ns::SASL)
        .attr(xml_ncname!("mechanism").to_owned(), mechanism.name());
    send(&mut wire, &auth.append(STANDARD.encode(initial)).build()).await?;
    loop {
        let answer = next(account, &mut wire).await?;
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
    let socket = Shared::new(bare(wire));
    let (wire, _) = open(account, Box::new(socket.clone())).await?;
    let (wire, jid) = bind(account, wire).await?;
    Ok((wire, socket, jid))
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
    let text = shown(&text_of(failure, "text", ns::SASL));
    let said = match text.as_str() {
        "" => condition.to_owned(),
        text => format!("{condition}: {text}"),
    };
    let bare = account.jid.to_bare();
    match condition {
        "not-authorized" => LoginError::Refused(format!(
            "the XMPP server refuses the password of {bare} ({said}); check {} and the password",
            account.terms.names[0]
        )),
        "temporary-auth-failure" => lost(&said),
        _ => LoginError::Refused(format!("the XMPP server does not let {bare} in ({said})")),
    }
}

/// Gets a resource: RFC 6120 #7. Where somebody holds the one that is asked for, the server makes
/// one.
async fn bind(account: &Account, mut wire: Wire) -> Result<(Wire, String), LoginError> {
    let mut resource = account.jid.resource();
    loop {
        let resource_asked = resource.map(|resource| {
            let element = Element::builder("resource", ns::BIND);
            element.append(resource.as_str()).build()
        });
        let wish = Element::builder("bind", ns::BIND).append_all(resource_asked);
        let asked = Element::builder("iq", ns::JABBER_CLIENT)
            .attr(xml_ncname!("type").to_owned(), "set")
            .attr(xml_ncname!("id").to_owned(), "bind");
        send(&mut wire, &asked.append(wish).build()).await?;
        let answer = loop {
            let answer = next(account, &mut wire).await?;
            if answer.attr("id") == Some("bind") {
                break answer;
            }
        };
        let bound = answer.get_child("bind", ns::BIND);
        let jid = bound.map(|bound| text_of(bound, "jid", ns::BIND));
        let error = answer.get_child("error", ns::JABBER_CLIENT);
        let is_taken = error.is_some_and(|it| it.has_child("conflict", ns::XMPP_STANZAS));
        match jid {
            Some(jid) if answer.attr("type") == Some("result") => return Ok((wire, jid)),
            _ if is_taken && resource.is_some() => resource = None,
            _ => return Err(lost("it gives no resource")),
        }
    }
}

/// The text of a child, or nothing.
fn text_of(element: &Element, name: &str, namespace: &str) -> String {
    let child = element.get_child(name, namespace);
    child.map(Element::text).unwrap_or_default()
}

/// A text of somebody else's, fit for a terminal.
pub fn shown(text: &str) -> String {
    let bare = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = text
        .trim()
        .chars()
        .take(WORDS_CHARS_MAX)
        .map(bare)
        .collect();
    text.trim().to_owned()
}

async fn send(wire: &mut Wire, element: &Element) -> Result<(), LoginError> {
    let sent = wire.send(element).await;
    sent.map_err(|error| lost(&error.to_string()))
}

async fn next(account: &Account, wire: &mut Wire) -> Result<Element, LoginError> {
    loop {
        return match wire.next().await {
            Some(Ok(element)) => match StreamError::read(&element) {
                Some(error) if error.condition == "host-unknown" => {
                    let [name, server, ..] = account.terms.names;
                    Err(LoginError::Refused(format!(
                        "the XMPP server does not know the account's domain; check {name} and \
                         {server}"
                    )))
                }
                Some(error) => Err(lost(&error.reason())),
                None => Ok(element),
            },
            Some(Err(ReadError::SoftTimeout | ReadError::ParseError(_))) => continue,
            Some(Err(ReadError::HardError(error))) => Err(lost(&error.to_string())),
            Some(Err(ReadError::StreamFooterReceived)) | None => Err(lost("it ended the stream")),
        };
    }
}
