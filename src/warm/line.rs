//! A connection to a connection manager, and what goes over it: one small request at a time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::core::bosh::body::ANSWER_BYTES_MAX;
use crate::core::bosh::failure::Failure;
use crate::core::bosh::manager::{Manager, Place};
use crate::core::bosh::{Body, Rid};

/// How often a body is sent: once more where the connection broke under it.
const SENT_MAX: u8 = 2;
/// Largest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The pause before a body is sent once more.
const AGAIN_IN: Duration = Duration::from_millis(100);

/// The way to a connection manager: one connection, made when it is needed.
pub(super) struct Line {
    manager: Manager,
    trust: Option<Arc<ClientConfig>>,
    sender: Option<SendRequest<Full<Bytes>>>,
    /// The number of the last body of which any byte may have left us.
    sent: Option<Rid>,
    /// Drives the connection, and ends with it.
    driver: JoinSet<()>,
}

/// Why a body has no answer.
enum Trouble {
    /// The connection broke: the manager may have it or not.
    Lost,
    /// Once more would be the same.
    Failed(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Line {
    /// No connection yet.
    pub(super) fn new(manager: Manager, trust: Option<Arc<ClientConfig>>) -> Self {
        Self {
            manager,
            trust,
            sender: None,
            sent: None,
            driver: JoinSet::new(),
        }
    }

    /// The number of the last body that was sent, whether it arrived or not.
    pub(super) fn sent(&self) -> Option<Rid> {
        self.sent
    }

    /// Sends a body and reads the answer to it. Where the connection breaks, the same bytes go once
    /// more: the manager knows by their number whether it has them (XEP-0124 #rids).
    pub(super) async fn post(&mut self, body: &Body) -> Result<Bytes, Failure> {
        for n_sent in 1..=SENT_MAX {
            match self.try_post(body).await {
                Ok(answer) => return Ok(answer),
                Err(Trouble::Failed(failure)) => return Err(failure),
                Err(Trouble::Lost) => self.sender = None,
            }
            if n_sent < SENT_MAX {
                tokio::time::sleep(AGAIN_IN).await;
            }
        }
        Err(Failure::Unreachable)
    }

    async fn try_post(&mut self, body: &Body) -> Result<Bytes, Trouble> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.manager.path)
            .header(header::HOST, &self.manager.host)
            .header(header::CONTENT_TYPE, "text/xml; charset=utf-8")
            // The bytes are the body's own, which wipes them when the last one lets go.
            .body(Full::new(Bytes::from_owner(body.clone())))
            .map_err(|_| Failure::Unreachable)?;
        let mut sender = self.sender().await?;
        self.sent = Some(body.rid());
        let sent = sender.send_request(request).await;
        let answer = sent.map_err(|_| Trouble::Lost)?;
        if answer.status() != StatusCode::OK {
            // A redirection, too: the configuration alone says where to go.
            let (host, status) = (&self.manager.host, answer.status().as_u16());
            tracing::warn!(host, status, "a connection manager answers with no BOSH");
            return Err(Failure::Garbled.into());
        }
        let read = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect();
        match read.await {
            Ok(answer) => {
                self.sender = Some(sender);
                Ok(answer.to_bytes())
            }
            Err(error) if error.is::<LengthLimitError>() => Err(Failure::Garbled.into()),
            Err(_) => Err(Trouble::Lost),
        }
    }

    /// The connection, which is made where there is none.
    async fn sender(&mut self) -> Result<SendRequest<Full<Bytes>>, Trouble> {
        if let Some(mut sender) = self.sender.take()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let io = connect(&self.manager.place, self.trust.clone()).await;
        let io = io.map_err(|error| {
            let host = &self.manager.host;
            tracing::warn!(host, %error, "a connection manager is not reached");
            Failure::Unreachable
        })?;
        let mut client = http1::Builder::new();
        client.max_buf_size(HEAD_BYTES_MAX);
        let begun = client.handshake(TokioIo::new(io)).await;
        let (sender, connection) = begun.map_err(|_| Trouble::Lost)?;
        self.driver = JoinSet::new();
        self.driver.spawn(async move {
            // Whoever waits for an answer is told.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

async fn connect(
    place: &Place,
    trust: Option<Arc<ClientConfig>>,
) -> std::io::Result<Box<dyn Socket>> {
    let other = |words: &str| std::io::Error::other(words.to_owned());
    match place {
        Place::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Place::Loopback { host, port } => {
            let socket = TcpStream::connect((host.as_str(), *port)).await?;
            socket.set_nodelay(true)?;
            // What a name means is for others to say.
            if !socket.peer_addr()?.ip().to_canonical().is_loopback() {
                return Err(other("its name leads away from this machine"));
            }
            Ok(Box::new(socket))
        }
        Place::Tls { host, port } => {
            let trust = trust.ok_or_else(|| other("this machine trusts no authority"))?;
            let socket = TcpStream::connect((host.as_str(), *port)).await?;
            socket.set_nodelay(true)?;
            let name = ServerName::try_from(host.clone()).map_err(std::io::Error::other)?;
            let socket = TlsConnector::from(trust).connect(name, socket).await?;
            Ok(Box::new(socket))
        }
    }
}
