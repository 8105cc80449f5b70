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
pub const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);
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

/// Spells a duration as it would be written: `"30 days"`, in the largest unit that fits.
pub fn spell(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [
        ("day", 86_400),
        ("hour", 3600),
        ("minute", 60),
        ("second", 1),
    ];
    let fits = |(_, unit): &&(&str, u64)| seconds.is_multiple_of(*unit) && *unit <= seconds;
    let (name, n) = match units.iter().find(fits) {
        Some((name, unit)) => (*name, seconds / unit),
        None => ("second", 0),
    };
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {name}{s}")
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
            let remedy = "try \"127.0.0.1:5347\" or \
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

/// Reads a JID that is a domain: a component's host, or a domain with accounts. `remedy` is for
/// whoever wrote an account.
pub fn domain(text: &str, remedy: &str) -> Result<String, Problem> {
    let jid = bare_jid(text)?;
    match jid.node() {
        None => Ok(jid.domain().as_str().to_owned()),
        Some(_) => {
            let what = format!("{text:?} is an account, not a host");
            Err(Problem::new(what, remedy))
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

/// Reads a location of nginx: a path that begins and ends in `/`.
pub fn location(text: &str) -> Result<String, Problem> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    let is_whole = text.starts_with('/') && text.ends_with('/') && 1 < text.len();
    match is_whole && text.bytes().all(is_plain) && !text.contains("//") && !text.contains("..") {
        true => Ok(text.to_owned()),
        false => {
            let what = format!("{text:?} is no path that begins and ends in \"/\"");
            Err(Problem::new(what, "try \"/slotd-files/\""))
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
    if rest.is_empty() || rest.starts_with(['/', ':']) {
        return Err(whole("has no host"));
    }
    let uri: http::Uri = text.parse().map_err(|_| whole("is not a URL"))?;
    let host = uri.host().unwrap_or("");
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
pub fn word<T: Clone>(text: &str, words: &[(&str, T)]) -> Result<T, Problem> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(value.clone());
    }
    let what = format!("{text:?} is not known");
    let quoted: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
    let remedy = match quoted.split_last() {
        Some((last, rest)) => format!("use {} or {last}", rest.join(", ")),
        None => String::new(),
    };
    Err(Problem::new(what, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows are `text, what it means`; a refusal is told as `what (remedy)`.
    #[track_caller]
    fn check<T: std::fmt::Debug>(got: Result<T, Problem>, expected: &str) {
        let got = match got {
            Ok(value) => format!("{value:?}"),
            Err(Problem { what, remedy }) => format!("{what} ({remedy})"),
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn sizes() {
        check(size("10 MiB"), "10485760");
        check(size(" 10MB "), "10000000");
        check(size("1.5 GiB"), "1610612736");
        check(size("0 B"), "0");
        check(size("1 EiB"), "1152921504606846976");
        for text in [
            "",
            " ",
            "MiB",
            "-1 MiB",
            "1e99",
            "1e3 MiB",
            "10 parsecs",
            "1,5 GiB",
            "0x10 B",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
        check(size("7"), "\"7\" has no unit (try \"7 B\", or \"100 MiB\")");
        check(size("2 Gbyte"), "\"2 Gbyte\" is not a size (try \"2 GiB\")");
        check(
            size("2 EiB"),
            "\"2 EiB\" is more than any disk holds (use \"1 EiB\" at most)",
        );
    }

    #[test]
    fn durations() {
        check(duration("5 minutes"), "300s");
        check(duration("72hours"), "259200s");
        check(duration("1 day 2 hours"), "93600s");
        check(duration("0 s"), "0ns");
        for text in [
            "",
            "soon",
            "-5 s",
            "500 ms",
            "101 years",
            "1 parsec",
            "99999999999999999999 s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_spelled_as_they_are_read() {
        for text in [
            "30 days",
            "1 day",
            "25 hours",
            "90 minutes",
            "1 second",
            "0 seconds",
        ] {
            assert_eq!(spell(duration(text).expect("a duration")), text);
        }
    }

    #[test]
    fn servers() {
        check(server("127.0.0.1:5347"), "Tcp(\"127.0.0.1:5347\")");
        check(
            server("xmpp.example.org:8888"),
            "Tcp(\"xmpp.example.org:8888\")",
        );
        check(server("[::1]:5347"), "Tcp(\"[::1]:5347\")");
        check(server("unix:/run/xmpp.sock"), "Unix(\"/run/xmpp.sock\")");
        for text in [
            "",
            ":5347",
            "::1:5347",
            "host",
            "host:0",
            "host:65536",
            "host:x",
            "a b:1",
        ] {
            assert!(server(text).is_err(), "{text}");
        }
    }

    #[test]
    fn listeners() {
        check(listen("[::]:443"), "Tcp([::]:443)");
        check(
            listen("unix:/run/slotd/http.sock"),
            "Unix(\"/run/slotd/http.sock\")",
        );
        for text in [
            "",
            "5050",
            ":5050",
            "*:5050",
            "unix:",
            "unix:relative",
            "127.0.0.1:0",
        ] {
            assert!(listen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn proxies() {
        check(proxy("127.0.0.1"), "127.0.0.1/32");
        check(proxy("10.1.2.3/8"), "10.0.0.0/8");
        check(proxy("::1"), "::1/128");
        check(proxy("::ffff:10.0.0.1"), "10.0.0.1/32");
        for text in [
            "",
            "*",
            "0.0.0.0/0",
            "0.0.0.0/1",
            "::/0",
            "2000::/3",
            "::ffff:0.0.0.0/96",
        ] {
            assert!(proxy(text).is_err(), "{text}");
        }
        for text in ["localhost", "10.0.0.0/33", "1.2.3", "1.2.3.4-5", "::/129"] {
            assert!(proxy(text).is_err(), "{text}");
        }
    }

    #[test]
    fn urls_end_in_a_slash() {
        check(
            public_url("https://u.example.org", false),
            "\"https://u.example.org/\"",
        );
        check(
            public_url("HTTPS://U.Example.org/a", false),
            "\"https://u.example.org/a/\"",
        );
        check(
            public_url("https://[2001:db8::1]:8443/", false),
            "\"https://[2001:db8::1]:8443/\"",
        );
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        for url in [
            "http://localhost:5050/",
            "http://127.0.0.1/",
            "http://[::1]/",
            "http://a.localhost",
        ] {
            assert!(public_url(url, false).is_ok(), "{url}");
        }
        for url in [
            "http://example.org/",
            "http://localhost.example.org/",
            "http://10.0.0.1/",
        ] {
            assert!(public_url(url, false).is_err(), "{url}");
            assert!(public_url(url, true).is_ok(), "{url}");
        }
    }

    #[test]
    fn what_is_no_public_url() {
        for url in [
            "",
            "upload.example.org",
            "https:/upload",
            "https://",
            "https:///a",
            "https://:443/",
            "https://h:/",
            "https://h:0/",
            "https://h:65536/",
            "https://a b/",
            "https://h/?q",
            "https://h/#f",
            "https://u@h/",
            "https://u:p@h/",
            "ftp://h/",
            "https://h\u{e4}/",
        ] {
            assert!(public_url(url, true).is_err(), "{url}");
        }
    }

    #[test]
    fn jids() {
        check(domain("Upload.Example.ORG", ""), "\"upload.example.org\"");
        assert!(domain("a@example.org", "").is_err());
        assert!(bare_jid("a@example.org").is_ok());
        for text in [
            "",
            "@",
            "a@",
            "@example.org",
            "a@example.org/x",
            "a b@example.org",
        ] {
            assert!(bare_jid(text).is_err(), "{text}");
        }
    }

    #[test]
    fn contacts() {
        for uri in [
            "mailto:abuse@example.org",
            "xmpp:a@example.org",
            "https://example.org/abuse",
        ] {
            assert!(contact(uri).is_ok(), "{uri}");
        }
        for text in [
            "",
            "abuse@example.org",
            "mailto:",
            ":x",
            "mail to:x",
            "https://a\nb",
        ] {
            assert!(contact(text).is_err(), "{text}");
        }
    }
}
