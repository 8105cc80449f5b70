//! Single values: sizes, durations, addresses, JIDs and URLs, from what was written.
//!
//! Pure. Every refusal tells what to write instead.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::{IpNet, Ipv4Net};
use jid::{BareJid, Jid};

use super::error::Problem;
use super::{Listen, ServerAddress};

/// No duration is longer: a century.
const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);
/// No size is larger: an exbibyte.
const SIZE_BYTES_MAX: u64 = 1 << 60;
/// The widest networks that can be somebody's own: 10.0.0.0/8, and a provider's IPv6.
const PREFIX_LEN_MIN_V4: u8 = 8;
const PREFIX_LEN_MIN_V6: u8 = 16;

/// Reads `"100 MiB"` as bytes. A number without unit is refused: nobody can see what it means.
pub fn size(text: &str) -> Result<u64, Problem> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let what = format!("{text:?} has no unit");
        return Err(Problem::new(
            what,
            format!("try \"{text} B\", or \"100 MiB\""),
        ));
    }
    let Ok(ByteSize(n_bytes)) = text.parse() else {
        let what = format!("{text:?} is not a size");
        return Err(Problem::new(
            what,
            format!("try \"{}\"", nearest_size(text)),
        ));
    };
    if SIZE_BYTES_MAX < n_bytes {
        let what = format!("{text:?} is more than any disk holds");
        return Err(Problem::new(what, "use \"1 EiB\" at most"));
    }
    Ok(n_bytes)
}

/// `"10 MiB"` for `"10 MBit"`: the same number with a unit that exists.
fn nearest_size(text: &str) -> String {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number = if number.is_empty() { "100" } else { number };
    let unit = match unit.trim().as_bytes().first().map(u8::to_ascii_uppercase) {
        Some(b'K') => "KiB",
        Some(b'G') => "GiB",
        Some(b'T') => "TiB",
        _ => "MiB",
    };
    format!("{number} {unit}")
}

/// Reads `"5 minutes"`: whole seconds, at most a century.
pub fn duration(text: &str) -> Result<Duration, Problem> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let what = format!("{text:?} has no unit");
        return Err(Problem::new(
            what,
            format!("try \"{text} seconds\", or \"30 days\""),
        ));
    }
    let Ok(duration) = humantime::parse_duration(text) else {
        let what = format!("{text:?} is not a duration");
        return Err(Problem::new(
            what,
            "try \"60 seconds\", \"5 minutes\" or \"30 days\"",
        ));
    };
    if duration.subsec_nanos() != 0 {
        let what = format!("{text:?} is not a number of whole seconds");
        return Err(Problem::new(what, "try \"1 second\""));
    }
    if DURATION_MAX < duration {
        let what = format!("{text:?} is longer than a century");
        return Err(Problem::new(what, "try \"30 days\""));
    }
    Ok(duration)
}

/// Reads an absolute path.
pub fn path(text: &str) -> Result<PathBuf, Problem> {
    let path = Path::new(text);
    if path.is_absolute() && !text.contains('\0') {
        return Ok(path.to_owned());
    }
    let what = format!("{text:?} is not an absolute path");
    Err(Problem::new(
        what,
        "begin it with \"/\", so that it means the same from everywhere",
    ))
}

/// Reads the address of a listening socket.
pub fn listen(text: &str) -> Result<Listen, Problem> {
    if let Some(socket) = text.strip_prefix("unix:") {
        return path(socket).map(Listen::Unix);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        if address.port() == 0 {
            let what = format!("{text:?} has no port that anybody could know");
            return Err(Problem::new(what, "use a port from 1 to 65535"));
        }
        return Ok(Listen::Tcp(address));
    }
    let what = format!("{text:?} is not an address and a port");
    Err(Problem::new(
        what,
        "try \"127.0.0.1:5050\", \"[::1]:5050\" or \"unix:/run/slotd/http.sock\"",
    ))
}

/// Reads where the XMPP server listens for components.
pub fn server(text: &str) -> Result<ServerAddress, Problem> {
    if let Some(socket) = text.strip_prefix("unix:") {
        return path(socket).map(ServerAddress::Unix);
    }
    let is_host = |host: &str| {
        let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        match inner {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_host_name(host),
        }
    };
    match text.rsplit_once(':') {
        Some((host, port)) if is_host(host) => match port.parse::<u16>() {
            Ok(1..) => Ok(ServerAddress::Tcp(text.to_owned())),
            _ => {
                let what = format!("{port:?} is not a port");
                Err(Problem::new(what, "use a number from 1 to 65535"))
            }
        },
        _ => {
            let what = format!("{text:?} is not a host and a port");
            let remedy = "try \"127.0.0.1:5347\" (Prosody), \"127.0.0.1:8888\" (ejabberd) or \
                \"unix:/path\"";
            Err(Problem::new(what, remedy))
        }
    }
}

fn is_host_name(host: &str) -> bool {
    let is_ours = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !host.is_empty() && host.len() <= 253 && host.bytes().all(is_ours)
}

/// Reads a network whose `X-Forwarded-For` is believed: an address or a network, not everybody's.
pub fn proxy(text: &str) -> Result<IpNet, Problem> {
    let parsed = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let Ok(network) = parsed else {
        let what = format!("{text:?} is not an address or a network");
        return Err(Problem::new(what, "try \"127.0.0.1\" or \"10.0.0.0/8\""));
    };
    let network = unmapped(network.trunc());
    let prefix_len_min = match network {
        IpNet::V4(_) => PREFIX_LEN_MIN_V4,
        IpNet::V6(_) => PREFIX_LEN_MIN_V6,
    };
    if network.prefix_len() < prefix_len_min {
        let what = format!("{text:?} lets everybody choose the address they are limited by");
        return Err(Problem::new(what, "name your proxies alone: \"127.0.0.1\""));
    }
    Ok(network)
}

/// `::ffff:10.0.0.0/104` is 10.0.0.0/8: sockets' addresses are compared in their IPv4 form.
fn unmapped(network: IpNet) -> IpNet {
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => v6
            .network()
            .to_ipv4_mapped()
            .and_then(|v4| Ipv4Net::new(v4, v6.prefix_len() - 96).ok())
            .map_or(network, IpNet::V4),
        _ => network,
    }
}

/// Reads a JID that is a domain: a component's host, or a domain with accounts.
pub fn domain(text: &str) -> Result<String, Problem> {
    let jid = bare_jid(text)?;
    match jid.node() {
        None => Ok(jid.domain().as_str().to_owned()),
        Some(_) => {
            let what = format!("{text:?} is an account, not a host");
            Err(Problem::new(what, format!("try \"{}\"", jid.domain())))
        }
    }
}

/// Reads a JID without resource: an account or a domain.
pub fn bare_jid(text: &str) -> Result<BareJid, Problem> {
    match Jid::new(text) {
        Ok(jid) if jid.resource().is_none() => Ok(jid.to_bare()),
        Ok(jid) => {
            let what = format!("{text:?} has a resource");
            Err(Problem::new(what, format!("try \"{}\"", jid.to_bare())))
        }
        Err(error) => {
            let what = format!("{text:?} is not a JID: {error}");
            Err(Problem::new(
                what,
                "try \"example.org\" or \"romeo@example.org\"",
            ))
        }
    }
}

/// Reads what every URL given out begins with; adds the last `/`.
pub fn public_url(text: &str, insecure: bool) -> Result<String, Problem> {
    let example = "try \"https://upload.example.org/\"";
    // Shown in no message: a URL with a password in it.
    if text.split(['?', '#']).next().unwrap_or("").contains('@') {
        return Err(Problem::new(
            "has user information before an \"@\"",
            example,
        ));
    }
    let whole = |what: &str| Problem::new(format!("{text:?} {what}"), example);
    if text.contains(['?', '#']) {
        return Err(whole("has a query or a fragment"));
    }
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| whole("is not a URL"))?;
    let scheme = scheme.to_ascii_lowercase();
    if scheme != "https" && scheme != "http" {
        return Err(whole("is not an https URL"));
    }
    let uri: http::Uri = text.parse().map_err(|_| whole("is not a URL"))?;
    let host = uri.host().unwrap_or("");
    if host.is_empty() || rest.starts_with('/') {
        return Err(whole("has no host"));
    }
    let authority = uri.authority().map_or("", |it| it.as_str());
    if authority.len() != host.len() && !matches!(uri.port_u16(), Some(1..)) {
        return Err(whole("has no port from 1 to 65535 after the host"));
    }
    if scheme == "http" && !insecure && !is_loopback(host) {
        let what = format!("{text:?} would show every link and token to the network");
        let remedy = "use https://, or insecure = true for a test";
        return Err(Problem::new(what, remedy));
    }
    let authority = authority.to_ascii_lowercase();
    let slash = if uri.path().ends_with('/') { "" } else { "/" };
    Ok(format!("{scheme}://{authority}{}{slash}", uri.path()))
}

/// Whether nothing to this host leaves the machine.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = host.to_ascii_lowercase();
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Reads a URI of a contact: `mailto:`, `xmpp:`, `https:`. XEP-0157.
pub fn contact(text: &str) -> Result<String, Problem> {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let is_good = |c: char| !c.is_whitespace() && !c.is_control();
    match text.split_once(':') {
        Some((scheme, rest))
            if is_scheme(scheme) && !rest.is_empty() && text.chars().all(is_good) =>
        {
            Ok(text.to_owned())
        }
        _ => {
            let what = format!("{text:?} is not a URI");
            let remedy = match text.contains('@') {
                true => format!("try \"mailto:{text}\" or \"xmpp:{text}\""),
                false => "try \"mailto:abuse@example.org\" or \"https://...\"".to_owned(),
            };
            Err(Problem::new(what, remedy))
        }
    }
}

/// Reads one of a few words.
pub fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Problem> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let all: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
    let what = format!("{text:?} is not known");
    Err(Problem::new(what, format!("use {}", all.join(" or "))))
}
