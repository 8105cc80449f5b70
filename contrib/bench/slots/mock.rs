//! An XMPP server as a component sees it (XEP-0114), which does nothing but ask for slots.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::Args;
use crate::cpu::Watched;
use crate::window::{Window, find};

/// Waits for the component, lets it in whatever its secret, and asks; the line of JSON.
pub async fn run(args: &Args, address: &str) -> io::Result<String> {
    let listener = TcpListener::bind(address).await?;
    let (mut socket, _) = listener.accept().await?;
    socket.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(256 * 1024);
    await_word(&mut socket, &mut buffer, b"<stream:stream").await?;
    let header = format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
         xmlns:stream='http://etherx.jabber.org/streams' id='1' from='{}'>",
        args.service
    );
    socket.write_all(header.as_bytes()).await?;
    await_word(&mut socket, &mut buffer, b"</handshake>").await?;
    socket.write_all(b"<handshake/>").await?;
    buffer.clear();
    ask(args, socket, buffer).await
}

async fn await_word(socket: &mut TcpStream, buffer: &mut Vec<u8>, word: &[u8]) -> io::Result<()> {
    while find(buffer, word).is_none() {
        if socket.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

async fn ask(args: &Args, mut socket: TcpStream, mut buffer: Vec<u8>) -> io::Result<String> {
    let accounts = args.accounts.unwrap_or(args.users).max(1);
    let mut watched = args.watch.clone();
    watched.iter_mut().for_each(Watched::start);
    let own = Watched::own();
    let mut window = Window::new(Instant::now(), args.limits(), args.window * args.users);
    while !window.is_done() && !window.is_lost() {
        let ids: Vec<u64> = window.next().collect();
        for ids in ids.chunks(args.burst.max(1)) {
            let mut out = String::new();
            for id in ids {
                let account = format!("{}{}", args.user_prefix, id % accounts);
                let from = format!("{account}@{}/client.{account}", args.domain);
                out.push_str(&args.request(*id, Some(&from)));
            }
            socket.write_all(out.as_bytes()).await?;
        }
        match timeout(Duration::from_secs(1), socket.read_buf(&mut buffer)).await {
            Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => drop(read?),
            Err(_) => {}
        }
        let n_taken = window.take(&buffer);
        buffer.drain(..n_taken);
    }
    Ok(window.into_tally().line(&own, &watched))
}
