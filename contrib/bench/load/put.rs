//! One file sent to each of many URLs, alone or with GETs in between.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::args::{BrokenArgs, MixedArgs, PutArgs};
use crate::body::Body;
use crate::get::{Turns, on_connections};
use crate::report::Report;
use crate::urls;
use crate::wire::put_head;

/// `put`: each URL once.
pub fn run(args: &PutArgs) -> io::Result<Report> {
    let urls = urls::read(&args.common.urls)?;
    let first = urls[0].clone();
    let body = Body::open(&args.body, first.is_tls)?;
    let turns = Turns::new(&args.common, urls.len()).at_most(urls.len());
    on_connections(args.common.connections, &first, turns, move |wire, turn| {
        wire.put(&urls[turn], &body)
    })
}

/// `broken`: each URL once, of whose body only the beginning comes.
pub fn run_broken(args: &BrokenArgs) -> io::Result<Report> {
    let urls = urls::read(&args.common.urls)?;
    let first = urls[0].clone();
    let turns = Turns::new(&args.common, urls.len()).at_most(urls.len());
    let (bytes, size) = (vec![b'x'; args.sent], args.size);
    on_connections(args.common.connections, &first, turns, move |wire, turn| {
        let sent = wire
            .open()
            .and_then(|()| wire.send_head(put_head(&urls[turn], size), true))
            .and_then(|()| wire.send_bytes(&bytes))
            .and_then(|()| wire.break_off());
        let n_sent = bytes.len() as u64;
        sent.map(|()| n_sent).map_err(|e| format!("{:?}", e.kind()))
    })
}

/// `mixed`: PUTs as long as there are URLs for them.
pub fn run_mixed(args: &MixedArgs) -> io::Result<Report> {
    let (put_urls, get_urls) = (
        urls::read(&args.put.common.urls)?,
        urls::read(&args.get_urls)?,
    );
    let first = get_urls[0].clone();
    let body = Body::open(&args.put.body, first.is_tls)?;
    let n_requests = put_urls.len() * 100 / args.put_percent.clamp(1, 100);
    let turns = Turns::new(&args.put.common, n_requests).at_most(n_requests);
    let (percent, next_put) = (args.put_percent, AtomicUsize::new(0));
    let n = args.put.common.connections;
    on_connections(n, &first, turns, move |wire, turn| {
        // Spread evenly: a PUT whenever the share's whole part steps up.
        let is_put = (turn + 1) * percent / 100 > turn * percent / 100;
        let url = is_put.then(|| put_urls.get(next_put.fetch_add(1, Ordering::Relaxed)));
        match url.flatten() {
            Some(url) => wire.put(url, &body),
            None => wire.get(&get_urls[turn % get_urls.len()], None),
        }
    })
}
