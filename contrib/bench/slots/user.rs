//! Accounts of an XMPP server that ask for slots.

use std::io;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Args;
use crate::cpu::Watched;
use crate::window::{Tally, Window, find};

/// Longest wait for a step of the log-in.
const STEP: Duration = Duration::from_secs(20);

/// Logs all users in, then lets them ask; the line of JSON.
pub async fn run(args: &Args) -> io::Result<String> {
    let server = args.server.as_deref().unwrap_or_default();
    let mut users = Vec::new();
    for n in 0..args.users {
        let name = format!("{}{n}", args.user_prefix);
        users.push(User::log_in(args, server, &name).await?);
    }
    let mut watched = args.watch.clone();
    watched.iter_mut().for_each(Watched::start);
    let (own, start) = (Watched::own(), Instant::now());
    let asking = users.into_iter().map(|user| user.ask(args, start));
    let mut all = Tally::default();
    for tally in futures_util::future::join_all(asking).await {
        all.add(tally?);
    }
    Ok(all.line(&own, &watched))
}

struct User {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl User {
    async fn log_in(args: &Args, server: &str, name: &str) -> io::Result<Self> {
        let socket = TcpStream::connect(server).await?;
        socket.set_nodelay(true)?;
        let mut user = Self {
            socket,
            buffer: Vec::with_capacity(64 * 1024),
        };
        let header = format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
             to='{}' version='1.0'>",
            args.domain
        );
        user.step(&header, b"</stream:features>").await?;
        let plain = STANDARD.encode(format!("\0{name}\0{}", args.password));
        let auth = format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>"
        );
        user.step(&auth, b"<success").await?;
        user.step(&header, b"</stream:features>").await?;
        let bind = "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                    <resource>bench</resource></bind></iq>";
        user.step(bind, b"</iq>").await?;
        Ok(user)
    }

    /// Writes, and reads until `awaited` has come.
    async fn step(&mut self, text: &str, awaited: &[u8]) -> io::Result<()> {
        self.socket.write_all(text.as_bytes()).await?;
        self.buffer.clear();
        while find(&self.buffer, awaited).is_none() {
            let read = timeout(STEP, self.socket.read_buf(&mut self.buffer)).await;
            let is_refused = [&b"<failure"[..], b"<stream:error", b"type='error'"]
                .iter()
                .any(|word| find(&self.buffer, word).is_some());
            if is_refused || !matches!(read, Ok(Ok(1..))) {
                let said = String::from_utf8_lossy(&self.buffer).into_owned();
                return Err(io::Error::other(format!("the log-in failed: {said}")));
            }
        }
        self.buffer.clear();
        Ok(())
    }

    async fn ask(mut self, args: &Args, start: Instant) -> io::Result<Tally> {
        let mut window = Window::new(start, args.limits(), args.window);
        let mut out = String::new();
        while !window.is_done() && !window.is_lost() {
            out.clear();
            for id in window.next() {
                out.push_str(&args.request(id, None));
            }
            self.socket.write_all(out.as_bytes()).await?;
            let read = self.socket.read_buf(&mut self.buffer);
            match timeout(Duration::from_secs(1), read).await {
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => drop(read?),
                Err(_) => {}
            }
            let n_taken = window.take(&self.buffer);
            self.buffer.drain(..n_taken);
        }
        Ok(window.into_tally())
    }
}
