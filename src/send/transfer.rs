//! HTTP requests of one upload: a connection at a time, the body read from the file as it goes.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Uri};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt as _, Either, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::answers::{self, Answer};
use super::content::Content;
use super::error::SendError;
use super::pace::Pace;
use crate::xmpp::Socket;
use crate::xmpp::client::{DEAD_AFTER, Reach, Route, is_distrust, tcp};

/// How long the other side may take nothing. A network that is gone is noticed sooner.
const STALL_FOR: Duration = Duration::from_secs(20);
/// How long nothing is taken before it counts that our own address is another one now.
const MOVED_AFTER: Duration = Duration::from_millis(500);
/// The kernel is more patient with what cannot go on where it was.
const WHOLE_DEAD_AFTER: Duration = Duration::from_secs(20);
/// Most bytes that are held between the file and the kernel, and of an answer's head.
const HELD_BYTES: usize = 64 * 1024;
/// How long an answer may take once all is handed to the kernel, and the longest such time.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN_MAX: Duration = Duration::from_secs(600);
/// What the kernel may still hold then.
const KERNEL_BYTES: u64 = 4 * 1024 * 1024;
/// As much of an answer's body is read.
const WORDS_BYTES_MAX: usize = 4096;
const WORDS_WITHIN: Duration = Duration::from_secs(5);

type Outgoing = Either<Empty<Bytes>, Channel<Bytes>>;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Another time may be better.
    Trouble(String),
    /// No other time will be.
    Final(SendError),
}

impl Failure {
    fn trouble(words: impl ToString) -> Self {
        Self::Trouble(words.to_string())
    }
}

/// A request without its body.
pub struct Order<'a> {
    /// The method.
    pub method: Method,
    /// Where; often a secret, so that no error names more of it than the host.
    pub url: &'a str,
    /// Headers beside Host and Content-Length.
    pub headers: HeaderMap,
}

/// The way to the upload service.
pub struct Http<'a> {
    reach: &'a Reach,
    kept: Option<Kept>,
    route: Option<Route>,
    /// How often our own address was another one than before.
    pub n_network_changes: u32,
}

/// A connection that may be used once more.
struct Kept {
    uri: Uri,
    sender: SendRequest<Outgoing>,
    route: Route,
    /// Drives the connection, and ends with it.
    _driver: JoinSet<()>,
}

impl<'a> Http<'a> {
    /// No connection yet.
    pub fn new(reach: &'a Reach) -> Self {
        Self {
            reach,
            kept: None,
            route: None,
            n_network_changes: 0,
        }
    }

    /// Sends a request without a body.
    pub async fn ask(&mut self, order: &Order<'_>) -> Result<Answer, Failure> {
        let mut connection = self.connect(order).await?;
        let request = request(order, &connection.uri, None, Either::Left(Empty::new()))?;
        let answer = tokio::select! {
            answer = connection.sender.send_request(request) => answer,
            () = moved(&connection.route) => return Err(changed()),
            () = sleep(ANSWER_WITHIN) => {
                return Err(Failure::trouble("no answer within 60 seconds"));
            }
        };
        let answer = told(answer.map_err(|error| lost(&error))?).await;
        self.kept = Some(connection);
        Ok(answer)
    }

    /// Sends what the file holds from `from` on; `sent` hears how far it is.
    pub async fn send(
        &mut self,
        order: &Order<'_>,
        content: &Content,
        from: u64,
        pace: &mut Pace,
        sent: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Answer, Failure> {
        let mut connection = self.connect(order).await?;
        let (body, receiver) = Channel::new(1);
        let length = content.size_bytes - from;
        let request = request(
            order,
            &connection.uri,
            Some(length),
            Either::Right(receiver),
        )?;
        let began = Instant::now();
        let answer = connection.sender.send_request(request);
        let route = connection.route;
        let feeding = feed(body, content, from, pace, &route, sent);
        tokio::pin!(answer, feeding);
        let mut answer_by = None;
        let answer = loop {
            let overdue = sleep_until(answer_by.unwrap_or(began));
            let left = moved(&route);
            tokio::select! {
                answer = &mut answer => break answer.map_err(|error| lost(&error))?,
                fed = &mut feeding, if answer_by.is_none() => {
                    fed?;
                    answer_by = Some(Instant::now() + answer_within(length, began.elapsed()));
                }
                () = left, if answer_by.is_some() => return Err(changed()),
                () = overdue, if answer_by.is_some() => {
                    return Err(Failure::trouble("all is sent, and no answer comes"));
                }
            }
        };
        Ok(told(answer).await)
    }

    /// Waits, at most until there is another network.
    pub async fn rest(&self, pause: Duration) {
        let Some(route) = self.route.map(|route| route.again()) else {
            return sleep(pause).await;
        };
        // A way that is there again after a rest without any is another one, too.
        let _ = timeout(pause, route.left()).await;
    }

    async fn connect(&mut self, order: &Order<'_>) -> Result<Kept, Failure> {
        let uri = parse(order.url)?;
        if let Some(kept) = self.kept.take()
            && kept.uri.scheme() == uri.scheme()
            && kept.uri.authority() == uri.authority()
            && kept.sender.is_ready()
            && !kept.route.is_left()
        {
            return Ok(Kept { uri, ..kept });
        }
        let is_tls = uri.scheme() == Some(&Scheme::HTTPS);
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let unreached = |error: io::Error| Failure::Trouble(format!("no way to {host}: {error}"));
        let dead_after = match order.method {
            Method::PUT => WHOLE_DEAD_AFTER,
            _ => DEAD_AFTER,
        };
        let socket = tcp(host, port, dead_after).await.map_err(unreached)?;
        let route = Route::of(&socket).map_err(unreached)?;
        if self.route.is_some_and(|before| !before.is_from(&route)) {
            self.n_network_changes += 1;
        }
        let was_reached = self.route.replace(route).is_some();
        if !is_tls && !self.reach.allows_plain(&socket) {
            return Err(Failure::Final(SendError::Refused(format!(
                "the upload service gives a link to {host} without encryption (http:); \
                 --insecure uses it all the same"
            ))));
        }
        let mut socket: Box<dyn Socket> = Box::new(socket);
        if is_tls {
            let name = host.trim_start_matches('[').trim_end_matches(']');
            match self.reach.tls(socket, name, None).await {
                Ok(encrypted) => socket = Box::new(encrypted),
                // Where it was trusted before, a stranger stands between: a captive portal.
                Err(error) if is_distrust(&error) && !was_reached => {
                    return Err(Failure::Final(SendError::Failed(format!(
                        "the certificate of {host} is not to be trusted: {error}; if it is your \
                         own server, name its certificate or its authority's with --ca"
                    ))));
                }
                Err(error) => return Err(unreached(error)),
            }
        }
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HELD_BYTES)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|error| lost(&error))?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // The request hears of it.
            let _ = connection.await;
        });
        Ok(Kept {
            uri,
            sender,
            route,
            _driver: driver,
        })
    }
}

/// An URL that is one, of a kind that is spoken here.
fn parse(url: &str) -> Result<Uri, Failure> {
    let wrong = || {
        let words = "the upload service gives a link that is none for HTTP";
        Failure::Final(SendError::Refused(words.to_owned()))
    };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let is_http = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme());
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    let is_bare = !uri
        .authority()
        .is_some_and(|named| named.as_str().contains('@'));
    match is_http && has_host && is_bare {
        true => Ok(uri),
        false => Err(wrong()),
    }
}

fn request(
    order: &Order<'_>,
    uri: &Uri,
    length: Option<u64>,
    body: Outgoing,
) -> Result<Request<Outgoing>, Failure> {
    let unusable = |_| {
        let words = "the upload service asks for a request that cannot be written";
        Failure::Final(SendError::Refused(words.to_owned()))
    };
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let host = uri.authority().map_or("", Authority::as_str);
    let mut request = Request::builder()
        .method(order.method.clone())
        .uri(target)
        .header(header::HOST, host)
        .header(
            header::USER_AGENT,
            concat!("slotd-send/", env!("CARGO_PKG_VERSION")),
        );
    if let Some(headers) = request.headers_mut() {
        headers.extend(order.headers.clone());
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
    request.body(body).map_err(unusable)
}

/// A header of a slot, or nothing where it is none.
pub fn header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::try_from(name).ok()?;
    Some((name, HeaderValue::try_from(value).ok()?))
}

/// Reads the file into the body.
async fn feed(
    mut body: Sender<Bytes>,
    content: &Content,
    from: u64,
    pace: &mut Pace,
    route: &Route,
    sent: &mut (dyn FnMut(u64) + Send),
) -> Result<(), Failure> {
    let mut at = from;
    while at < content.size_bytes {
        let piece = content.read(at, pace.piece_bytes());
        let piece = piece.map_err(Failure::Final)?;
        let n_bytes = piece.len() as u64;
        pace.wait(n_bytes).await;
        tokio::select! {
            taken = body.send_data(piece) => if taken.is_err() {
                // The connection is gone or has its answer, and the request hears of it.
                return Ok(());
            },
            () = moved(route) => return Err(changed()),
            () = sleep(STALL_FOR) => {
                return Err(Failure::trouble("nothing was taken for 20 seconds"));
            }
        }
        at += n_bytes;
        sent(at);
    }
    Ok(())
}

/// Ends when nothing has happened for a moment, and a new connection would take another way.
async fn moved(route: &Route) {
    sleep(MOVED_AFTER).await;
    route.left().await;
}

fn changed() -> Failure {
    Failure::trouble("the network has changed")
}

/// How long the answer may take: what the kernel still holds leaves at the speed of the rest.
fn answer_within(sent_bytes: u64, took: Duration) -> Duration {
    let held = KERNEL_BYTES.min(sent_bytes) as f64 / sent_bytes.max(1) as f64;
    (ANSWER_WITHIN + took.mul_f64(held)).min(ANSWER_WITHIN_MAX)
}

/// The answer with its words; what is left of its body goes with the connection.
async fn told(answer: http::Response<Incoming>) -> Answer {
    let (parts, mut body) = answer.into_parts();
    let mut text = Vec::new();
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            if let Some(bytes) = frame.data_ref() {
                text.extend_from_slice(bytes);
            }
            if WORDS_BYTES_MAX < text.len() {
                break;
            }
        }
    };
    // Without its end the words are worse, and the answer is the same.
    let _ = timeout(WORDS_WITHIN, reading).await;
    text.truncate(WORDS_BYTES_MAX);
    Answer {
        status: parts.status,
        words: answers::words(&parts.headers, &text),
        headers: parts.headers,
    }
}

/// Why a connection broke, without hyper's layers.
fn lost(error: &hyper::Error) -> Failure {
    let mut inner: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(next) = inner {
        if let Some(error) = next.downcast_ref::<io::Error>() {
            return Failure::Trouble(format!("the connection broke: {error}"));
        }
        inner = next.source();
    }
    match error.is_incomplete_message() {
        true => Failure::trouble("the connection broke"),
        false => Failure::Trouble(format!("the connection broke: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_other_kinds_are_refused() {
        for url in [
            "ftp://a/",
            "/path",
            "https://",
            "https://u:p@a/",
            "",
            "http:///x",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
        assert!(parse("https://a:5443/x?t=y").is_ok());
    }

    #[test]
    fn a_slow_way_has_more_time_for_its_answer() {
        let hour = Duration::from_secs(3600);
        assert_eq!(answer_within(0, Duration::ZERO), ANSWER_WITHIN);
        assert_eq!(
            answer_within(KERNEL_BYTES * 60, hour),
            ANSWER_WITHIN + hour / 60
        );
        assert_eq!(answer_within(1, hour), ANSWER_WITHIN_MAX);
    }
}
