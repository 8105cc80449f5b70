//! What a request's head says, checked: whose it is, which file, which credential.
//!
//! The framing is `guard`'s; here is what can be seen in fields and target.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, EXPECT, HOST};
use http::{HeaderMap, Uri, Version};
use percent_encoding::percent_decode_str;

use crate::core::external::{ExternalPath, Presented, System};
use crate::core::refusal::Refusal;
use crate::core::slot::SlotId;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file: its slot and its name, decoded.
    File(SlotId, String),
    /// An upload: the last segment of its resume URL.
    Upload(String),
    /// A file of another system's.
    External(Arc<System>, ExternalPath),
}

impl Place {
    /// The file that it names, and what the path calls it.
    pub fn file(&self) -> Option<(SlotId, Cow<'_, str>)> {
        match self {
            Self::File(id, name) => Some((*id, name.into())),
            Self::Upload(_) => None,
            Self::External(system, path) => {
                let name = path.file_name().as_str().to_owned();
                Some((system.id_of(path), name.into()))
            }
        }
    }
}

/// What `http.public_url` means for requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The host's name or address, in lower case.
    host: String,
    /// The path of all URLs: begins and ends in `/`.
    path: String,
}

impl Site {
    /// Reads a checked `http.public_url`.
    pub fn of(public_url: &str) -> Self {
        let uri: Uri = public_url.parse().unwrap_or_default();
        let path = uri.path().trim_end_matches('/');
        Self {
            host: uri.host().unwrap_or_default().to_ascii_lowercase(),
            path: format!("{path}/"),
        }
    }

    /// Refuses a request that is for another host: `BadRequest` where it does not say for which.
    ///
    /// Ports are not compared: proxies that listen elsewhere pass on the name alone. Besides the
    /// public name, `localhost` and the address that the connection came to are taken, since
    /// proxies put them in Host when they are not told otherwise; neither can be another service's
    /// name.
    pub fn check_host(
        &self,
        uri: &Uri,
        version: Version,
        headers: &HeaderMap,
        local: Option<IpAddr>,
    ) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(HOST).into_iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => {
                let text = host.to_str().map_err(|_| Refusal::BadRequest)?;
                Some(host_of(text).ok_or(Refusal::BadRequest)?)
            }
            // RFC 9112 #3.2: only HTTP/1.0 may leave it out.
            (None, None) if version < Version::HTTP_11 => None,
            _ => return Err(Refusal::BadRequest),
        };
        // RFC 9112 #3.2.2: the absolute form says it a second time.
        let authority = match uri.authority() {
            Some(authority) => Some(host_of(authority.as_str()).ok_or(Refusal::BadRequest)?),
            None => None,
        };
        let is_ours = |host: &str| self.is_ours(host, local);
        match [host, authority].into_iter().flatten().all(is_ours) {
            true => Ok(()),
            false => Err(Refusal::OtherHost),
        }
    }

    fn is_ours(&self, host: &str, local: Option<IpAddr>) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let address = || {
            host.trim_start_matches('[')
                .trim_end_matches(']')
                .parse()
                .ok()
        };
        host.eq_ignore_ascii_case(&self.host)
            || host.eq_ignore_ascii_case("localhost")
            || local.is_some_and(|local| address() == Some(local.to_canonical()))
    }

    /// What a path names.
    ///
    /// The path may also lack the part that it has in `http.public_url`: some proxies cut it off.
    /// What is not below our own rooms may be one of the other `systems`'.
    /// Refuses `BadRequest` for what could be read in two ways, `UnknownFile` for the rest.
    pub fn place(&self, path: &str, systems: &[Arc<System>]) -> Result<Place, Refusal> {
        if let Some(sealed) = self.upload(path) {
            return Ok(Place::Upload(sealed.to_owned()));
        }
        let is_ours = || {
            ["f/", "r/"]
                .iter()
                .any(|room| self.below(path, room).is_some())
        };
        if let Some((system, rest)) = external(path, systems).filter(|_| !is_ours()) {
            return Ok(Place::External(system.clone(), ExternalPath::of_url(rest)?));
        }
        self.file(path).map(|(id, name)| Place::File(id, name))
    }

    fn below<'a>(&self, path: &'a str, room: &str) -> Option<&'a str> {
        let bases = [&*self.path, "/"];
        bases
            .iter()
            .find_map(|base| path.strip_prefix(base)?.strip_prefix(room))
    }

    fn upload<'a>(&self, path: &'a str) -> Option<&'a str> {
        let sealed = self.below(path, "r/")?;
        let is_sealed = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        (!sealed.is_empty() && sealed.bytes().all(is_sealed)).then_some(sealed)
    }

    fn file(&self, path: &str) -> Result<(SlotId, String), Refusal> {
        // RFC 3986 #2.1: ours are encoded.
        if !path.is_ascii() {
            return Err(Refusal::BadRequest);
        }
        for segment in path.split('/') {
            if matches!(&*decode(segment)?, "." | "..") {
                return Err(Refusal::BadRequest);
            }
        }
        let below = self.below(path, "f/").and_then(|rest| rest.split_once('/'));
        let (id, name) = below.ok_or(Refusal::UnknownFile)?;
        let id = SlotId::parse(id).filter(|_| !name.contains('/'));
        Ok((id.ok_or(Refusal::UnknownFile)?, decode(name)?.into_owned()))
    }
}

/// The system that a path belongs to, and what it has for its own: the longest prefix wins.
fn external<'a, 's>(
    path: &'a str,
    systems: &'s [Arc<System>],
) -> Option<(&'s Arc<System>, &'a str)> {
    let rests = systems.iter().filter_map(|system| {
        let rest = path.strip_prefix(&*system.prefix)?;
        (!rest.is_empty()).then_some((system, rest))
    });
    rests.min_by_key(|(_, rest)| rest.len())
}

/// `host` of `host`, `host:port`, `[v6]` and `[v6]:port`.
fn host_of(authority: &str) -> Option<&str> {
    let end = match authority.starts_with('[') {
        true => authority.find(']')? + 1,
        false => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(end);
    let is_port = port
        .strip_prefix(':')
        .is_none_or(|port| port.bytes().all(|b| b.is_ascii_digit()));
    let is_host = !host.is_empty() && !host.contains(['@', '/', ',', ' ', '\t']);
    let is_all = port.is_empty() || port.starts_with(':');
    (is_host && is_port && is_all).then_some(host)
}

/// One segment of a path, percent-decoded; refuses what could mean something else elsewhere.
fn decode(segment: &str) -> Result<Cow<'_, str>, Refusal> {
    let bytes = segment.as_bytes();
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
    if bytes.iter().all(is_plain) {
        return Ok(Cow::Borrowed(segment));
    }
    let is_escape = |at: usize| {
        bytes
            .get(at + 1..at + 3)
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let escapes = bytes.iter().enumerate().filter(|(_, b)| **b == b'%');
    if !escapes.map(|(at, _)| at).all(is_escape) {
        return Err(Refusal::BadRequest);
    }
    let text = percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| Refusal::BadRequest)?;
    if text.contains(['/', '\\']) || text.chars().any(char::is_control) {
        return Err(Refusal::BadRequest);
    }
    Ok(text)
}

/// Refuses expectations other than 100-continue (RFC 9110 #10.1.1).
pub fn check_expect(headers: &HeaderMap) -> Result<(), Refusal> {
    let known = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    match headers.get_all(EXPECT).into_iter().all(known) {
        true => Ok(()),
        false => Err(Refusal::UnknownExpectation),
    }
}

/// What stands behind `Bearer` in the Authorization field. Another scheme is no credential of ours.
///
/// Refuses `BadRequest` for two fields.
fn bearer(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut fields = headers.get_all(AUTHORIZATION).into_iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(Refusal::BadRequest);
    }
    Ok(field.and_then(|value| {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let (scheme, token) = text.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| token.to_owned())
    }))
}

/// The tokens of other systems that the request carries; refuses as `Presented::read` does, and
/// `BadRequest` for two Authorization fields.
pub fn presented(uri: &Uri, headers: &HeaderMap) -> Result<Presented, Refusal> {
    let bearer = bearer(headers)?;
    Presented::read(uri.query().unwrap_or_default(), bearer.as_deref())
}

/// The request's PUT token, from `Authorization: Bearer` or from `t` in the query.
///
/// Refuses `TokenMissing`, `TokenTwice` for two that differ, `BadRequest` for two Authorization
/// fields.
pub fn token(uri: &Uri, headers: &HeaderMap) -> Result<String, Refusal> {
    let bearer = bearer(headers)?;
    let query = uri.query().unwrap_or_default();
    let in_query = query.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let token = percent_decode_str(value).decode_utf8_lossy().into_owned();
        (key == "t").then_some(token)
    });
    let mut tokens = bearer.into_iter().chain(in_query);
    let first = tokens.next().ok_or(Refusal::TokenMissing)?;
    match tokens.all(|token| token == first) {
        true => Ok(first),
        false => Err(Refusal::TokenTwice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "AAAAAAAAAAAAAAAAAAAABw";

    fn site() -> Site {
        Site::of("https://Upload.example.org:5443/up/")
    }

    #[track_caller]
    fn check_path(path: &str, found: Result<&str, Refusal>) {
        let got = site().file(path).map(|(id, name)| {
            assert_eq!(id, SlotId(7));
            name
        });
        assert_eq!(got, found.map(str::to_owned), "{path}");
    }

    #[test]
    fn paths() {
        check_path(&format!("/up/f/{ID}/a.bin"), Ok("a.bin"));
        check_path(&format!("/f/{ID}/a.bin"), Ok("a.bin"));
        check_path(
            &format!("/f/{ID}/Gr%C3%BC%c3%9fe%20(1)&+"),
            Ok("Grüße (1)&+"),
        );
        check_path(&format!("/f/{ID}/"), Ok(""));
        for unknown in [
            "/".to_owned(),
            "*".to_owned(),
            String::new(),
            "/up".to_owned(),
            format!("/f/{ID}"),
            format!("/f/{ID}/a/b"),
            format!("//f/{ID}/a"),
            format!("/down/f/{ID}/a"),
            format!("/f/{ID}=/a"),
            format!("/f/{}/a", &ID[1..]),
            "/f/AAAAAAAAAAAAAAAAAAAABx/a".to_owned(),
        ] {
            check_path(&unknown, Err(Refusal::UnknownFile));
        }
        for bad in [
            format!("/f/{ID}/a%2fb"),
            format!("/f/{ID}/a%5Cb"),
            format!("/f/{ID}/a\\b"),
            format!("/f/{ID}/.."),
            format!("/f/{ID}/%2e%2E"),
            format!("/f/../f/{ID}/a"),
            format!("/f/{ID}/a%00"),
            format!("/f/{ID}/a%0d%0aX: y"),
            format!("/f/{ID}/a%"),
            format!("/f/{ID}/a%4"),
            format!("/f/{ID}/a%zz"),
            format!("/f/{ID}/%ff"),
        ] {
            check_path(&bad, Err(Refusal::BadRequest));
        }
    }

    #[test]
    fn resume_urls() {
        let place = |path: &str| site().place(path, &[]);
        let upload = |sealed: &str| Ok(Place::Upload(sealed.to_owned()));
        assert_eq!(place("/up/r/Aa0-_"), upload("Aa0-_"));
        assert_eq!(place("/r/Aa0-_"), upload("Aa0-_"));
        for unknown in [
            "/r/",
            "/r",
            "/r/A/",
            "/r/A/a",
            "/r/A=",
            "/r/A%41",
            "/down/r/A",
            "//r/A",
        ] {
            assert_eq!(place(unknown), Err(Refusal::UnknownFile), "{unknown}");
        }
        for bad in ["/r/..", "/r/%2e%2e", "/r/A%00", "/r/A%2f", "/r/A%zz"] {
            assert_eq!(place(bad), Err(Refusal::BadRequest), "{bad}");
        }
    }

    #[track_caller]
    fn check_host(target: &str, hosts: &[&str], expected: Result<(), Refusal>) {
        let uri: Uri = target.parse().expect("a target");
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, host.parse().expect("a field value"));
        }
        let local = Some("::ffff:192.0.2.1".parse().expect("an address"));
        let got = site().check_host(&uri, Version::HTTP_11, &headers, local);
        assert_eq!(got, expected, "{target} {hosts:?}");
        let local = Some("2001:db8::1".parse().expect("an address"));
        let in_1_0 = site().check_host(&uri, Version::HTTP_10, &HeaderMap::new(), local);
        let absolute = uri.authority().is_some() && expected.is_err();
        assert_eq!(in_1_0.is_err(), absolute);
    }

    #[test]
    fn hosts() {
        for ours in [
            "upload.example.org",
            "UPLOAD.example.org.",
            "upload.example.org:443",
            "localhost:5050",
            "192.0.2.1:5050",
        ] {
            check_host("/", &[ours], Ok(()));
        }
        for other in [
            "other.example",
            "example.org",
            "192.0.2.2",
            "[2001:db8::1]",
            "xupload.example.org",
        ] {
            check_host("/", &[other], Err(Refusal::OtherHost));
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a,b",
            "u@upload.example.org",
            "a:b",
            "[::1",
            "[::1]x",
        ] {
            check_host("/", &[bad], Err(Refusal::BadRequest));
        }
        check_host("/", &[], Err(Refusal::BadRequest));
        check_host("/", &["localhost", "localhost"], Err(Refusal::BadRequest));
        check_host("http://upload.example.org/", &["localhost"], Ok(()));
        let other = Err(Refusal::OtherHost);
        check_host("http://other.example/", &["upload.example.org"], other);
    }

    #[track_caller]
    fn check_token(target: &str, fields: &[&str], expected: Result<&str, Refusal>) {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(AUTHORIZATION, field.parse().expect("a field value"));
        }
        let got = token(&target.parse().expect("a target"), &headers);
        assert_eq!(got, expected.map(str::to_owned), "{target} {fields:?}");
    }

    #[test]
    fn tokens() {
        check_token("/", &["Bearer T"], Ok("T"));
        check_token("/", &["bEARER T"], Ok("T"));
        check_token("/", &["bearer  T"], Ok(" T"));
        check_token("/?t=T", &[], Ok("T"));
        check_token("/?a=b&t=%54&c", &[], Ok("T"));
        check_token("/?t=T", &["Bearer T"], Ok("T"));
        check_token("/?t=T", &["Basic T"], Ok("T"));
        check_token("/?t=T&t=T", &[], Ok("T"));
        check_token("/", &[], Err(Refusal::TokenMissing));
        check_token("/?T=T&tt=T", &[], Err(Refusal::TokenMissing));
        check_token("/", &["Bearer"], Err(Refusal::TokenMissing));
        check_token("/", &["Basic T"], Err(Refusal::TokenMissing));
        check_token("/?t=T", &["Bearer U"], Err(Refusal::TokenTwice));
        check_token("/?t=T&t=U", &[], Err(Refusal::TokenTwice));
        let twice = ["Bearer T", "Bearer T"];
        check_token("/", &twice, Err(Refusal::BadRequest));
    }
}
