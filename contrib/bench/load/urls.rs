//! URLs from a list, as far as a generator looks at them.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// One target of a request.
#[derive(Clone, Debug)]
pub struct Url {
    pub is_tls: bool,
    pub address: SocketAddr,
    pub host: String,
    /// Path and query.
    pub target: String,
    /// What a service wants that takes its token in a header.
    pub authorization: Option<String>,
}

impl Url {
    fn parse(line: &str) -> Option<Self> {
        let (text, authorization) = match line.split_once('\t') {
            Some((text, authorization)) => (text, Some(authorization.to_owned())),
            None => (line, None),
        };
        let (scheme, rest) = text.split_once("://")?;
        let (host, target) = rest.split_once('/')?;
        let numeric = host.replace("localhost", "127.0.0.1");
        Some(Self {
            is_tls: scheme == "https",
            address: numeric.parse().ok()?,
            host: host.to_owned(),
            target: format!("/{target}"),
            authorization,
        })
    }
}

/// The list in a file, an URL a line, with a tab and a field `Authorization` where one is needed.
///
/// All of it goes to one server, the first URL's.
pub fn read(path: &Path) -> io::Result<Vec<Url>> {
    let text = std::fs::read_to_string(path)?;
    let urls: Option<Vec<_>> = text.lines().map(Url::parse).collect();
    match urls {
        Some(urls) if !urls.is_empty() => Ok(urls),
        _ => Err(io::Error::other(format!(
            "{}: not a list of URLs like http://127.0.0.1:5050/path",
            path.display()
        ))),
    }
}
