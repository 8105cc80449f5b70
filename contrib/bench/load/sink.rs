//! A server that does next to nothing, so that the generator meets its own limit.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustix::net::{RecvFlags, SendFlags};

use crate::args::SinkArgs;

/// The longest request head that is understood.
const HEAD_BYTES_MAX: usize = 4096;
/// How much of a body one call reads into nothing.
const DISCARD_BYTES: usize = 4 << 20;

/// `sink`: runs until it is ended.
pub fn run(args: &SinkArgs) -> io::Result<()> {
    let file = File::open(&args.file)?;
    let shared = Arc::new((file.metadata()?.len(), file));
    for stream in TcpListener::bind(&args.listen)?.incoming() {
        let (stream, shared) = (stream?, shared.clone());
        stream.set_nodelay(true)?;
        thread::spawn(move || serve(stream, shared.0, &shared.1));
    }
    Ok(())
}

/// Answers one connection's requests; how it ends is nobody's concern.
fn serve(mut stream: TcpStream, size: u64, file: &File) -> io::Result<()> {
    let (mut head, mut discard) = (vec![0; HEAD_BYTES_MAX], vec![0; DISCARD_BYTES]);
    loop {
        let n = stream.read(&mut head)?;
        if n == 0 {
            return Ok(());
        }
        // Our own generator's heads are short and come in one piece.
        let end = head[..n].windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.ok_or(io::ErrorKind::InvalidData)?;
        if head.starts_with(b"GET ") {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
            rustix::net::send(&stream, answer.as_bytes(), SendFlags::MORE)?;
            let mut at = 0;
            while at < size {
                let rest = (size - at) as usize;
                rustix::fs::sendfile(&stream, file, Some(&mut at), rest)?;
            }
            continue;
        }
        let mut rest = length(&head[..end]).saturating_sub((n - end - 4) as u64);
        while rest > 0 {
            let buffer = &mut discard[..(DISCARD_BYTES as u64).min(rest) as usize];
            let (_, n) = rustix::net::recv(&stream, buffer, RecvFlags::TRUNC)?;
            if n == 0 {
                return Ok(());
            }
            rest -= n as u64;
        }
        stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")?;
    }
}

fn length(head: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(head);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    line.and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}
