//! Values of request fields, read strictly: what could mean two things is refused.
//!
//! Upload fields are structured fields (RFC 9651), of which each holds one bare item here. Tus has
//! fields of the same names with plain digits, which are read alike.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};

use crate::core::refusal::Refusal;
use crate::core::resume::Checksum;
use crate::core::slot::Sha256;

/// RFC 9530 #3.
pub const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
/// RFC 9530 #2.
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
/// Digits of the longest structured integer (RFC 9651 #3.3.1).
const DIGITS_MAX: usize = 15;

/// The value of a field that may come once only.
pub fn single(request: &HeaderMap, name: HeaderName) -> Result<Option<String>, Refusal> {
    let mut values = request.get_all(name).into_iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Refusal::BadRequest);
    }
    Ok(value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()))
}

/// The same where it is a whole number: digits alone.
pub fn number(request: &HeaderMap, name: HeaderName) -> Result<Option<u64>, Refusal> {
    let Some(text) = single(request, name)? else {
        return Ok(None);
    };
    let is_number =
        (1..=DIGITS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let number = is_number.then(|| text.parse().ok()).flatten();
    number.map(Some).ok_or(Refusal::BadRequest)
}

/// The size of the whole file, where a request says it.
pub fn upload_length(request: &HeaderMap) -> Result<Option<u64>, Refusal> {
    number(request, super::UPLOAD_LENGTH)
}

/// The same where it is `?1` or `?0`.
pub fn boolean(request: &HeaderMap, name: HeaderName) -> Result<Option<bool>, Refusal> {
    match single(request, name)?.as_deref() {
        None => Ok(None),
        Some("?1") => Ok(Some(true)),
        Some("?0") => Ok(Some(false)),
        Some(_) => Err(Refusal::BadRequest),
    }
}

/// The SHA-256 digests that a request announces (RFC 9530).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// Repr-Digest: the whole file's.
    pub of_file: Option<Sha256>,
    /// Content-Digest: that of the request's body.
    pub of_body: Option<Sha256>,
}

impl Digests {
    /// The digest where the body is the whole file, so that both name the same bytes.
    pub fn of_all(self) -> Result<Option<Sha256>, Refusal> {
        match (self.of_file, self.of_body) {
            (Some(file), Some(body)) if file != body => Err(Refusal::BadRequest),
            (file, body) => Ok(file.or(body)),
        }
    }
}

/// Reads both digest fields; other algorithms are passed over.
///
/// Refuses `BadRequest` for a digest that is none, and for two that differ.
pub fn digests(request: &HeaderMap) -> Result<Digests, Refusal> {
    Ok(Digests {
        of_file: digest(request, REPR_DIGEST)?,
        of_body: digest_of_body(request)?,
    })
}

/// Reads Content-Digest alone, as `digests` does.
pub fn digest_of_body(request: &HeaderMap) -> Result<Option<Sha256>, Refusal> {
    digest(request, CONTENT_DIGEST)
}

fn digest(request: &HeaderMap, name: HeaderName) -> Result<Option<Sha256>, Refusal> {
    let mut found = None;
    for value in request.get_all(name) {
        let text = value.to_str().map_err(|_| Refusal::BadRequest)?;
        // A dictionary of byte sequences (RFC 9651 #3.2): base64 holds no comma.
        for member in text.split(',') {
            let (key, value) = member.split_once('=').unwrap_or((member, ""));
            if key.trim_matches([' ', '\t']) != "sha-256" {
                continue;
            }
            let sha256 = byte_sequence(value).ok_or(Refusal::BadRequest)?;
            if found.is_some_and(|found| found != sha256) {
                return Err(Refusal::BadRequest);
            }
            found = Some(sha256);
        }
    }
    Ok(found)
}

/// `:base64:`, with parameters that mean nothing to us.
fn byte_sequence(text: &str) -> Option<Sha256> {
    let text = text
        .split(';')
        .next()
        .unwrap_or_default()
        .trim_matches([' ', '\t']);
    let base64 = text.strip_prefix(':')?.strip_suffix(':')?;
    Sha256::from_base64(base64)
}

/// The checksum of tus: an algorithm and base64. Refuses `BadRequest` for an unknown algorithm.
pub fn tus_checksum(request: &HeaderMap, name: HeaderName) -> Result<Option<Checksum>, Refusal> {
    let Some(text) = single(request, name)? else {
        return Ok(None);
    };
    let checksum = match text.split_once(' ') {
        Some(("sha1", sum)) => STANDARD
            .decode(sum)
            .ok()
            .and_then(|bytes| Some(Checksum::Sha1(bytes.try_into().ok()?))),
        Some(("sha256", sum)) => Sha256::from_base64(sum).map(Checksum::Sha256),
        _ => None,
    };
    checksum.map(Some).ok_or(Refusal::BadRequest)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const NAME: HeaderName = HeaderName::from_static("upload-offset");
    const DIGEST: &str = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";

    fn fields(fields: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_str(value).expect("a field value"));
        }
        headers
    }

    #[test]
    fn numbers() {
        let read = |text: &str| number(&fields(&[(NAME, text)]), NAME);
        assert_eq!(number(&HeaderMap::new(), NAME), Ok(None));
        for (text, value) in [
            ("0", 0),
            ("007", 7),
            ("999999999999999", 999_999_999_999_999),
        ] {
            assert_eq!(read(text), Ok(Some(value)));
        }
        for bad in [
            "",
            "abc",
            "1.5",
            "-1",
            "+1",
            "1e3",
            "0x1",
            "10000000000000000000",
            "1, 2",
            "\"1\"",
            "1;a",
            " 1",
            "1 ",
            "1_000",
            "1000000000000000",
        ] {
            assert_eq!(read(bad), Err(Refusal::BadRequest), "{bad}");
        }
        let twice = fields(&[(NAME, "1"), (NAME, "1")]);
        assert_eq!(number(&twice, NAME), Err(Refusal::BadRequest));
    }

    proptest! {
        #[test]
        fn whatever_is_read_as_a_number_is_written_alike(
            bytes in prop::collection::vec(0x20u8..=0xff, 0..20),
        ) {
            let mut request = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                request.insert(NAME, value);
            }
            if let Ok(Some(number)) = number(&request, NAME) {
                let text = String::from_utf8(bytes).expect("digits");
                let digits = text.trim_start_matches('0');
                let written = number.to_string();
                prop_assert_eq!(if digits.is_empty() { "0" } else { digits }, written);
            }
        }
    }

    #[test]
    fn digests_of_file_and_body() {
        let some = Some(Sha256([9; 32]));
        let plain = format!("sha-256=:{DIGEST}:");
        let other = plain.replace('k', "g");
        let read = |repr: &str, content: &str| {
            digests(&fields(&[(REPR_DIGEST, repr), (CONTENT_DIGEST, content)]))
        };
        let both = read(&plain, &plain).expect("read");
        assert_eq!(
            (both.of_file, both.of_body, both.of_all()),
            (some, some, Ok(some))
        );
        let differ = read(&plain, &other).expect("read");
        assert_ne!(differ.of_body, some);
        assert_eq!(differ.of_all(), Err(Refusal::BadRequest));
        let body = read("sha-512=:AAAA:", &plain).expect("read");
        assert_eq!((body.of_file, body.of_all()), (None, Ok(some)));
    }

    #[test]
    fn checksums_of_tus() {
        let name = HeaderName::from_static("upload-checksum");
        let read = |text: &str| tus_checksum(&fields(&[(name.clone(), text)]), name.clone());
        let sha256 = Checksum::Sha256(Sha256([9; 32]));
        assert_eq!(read(&format!("sha256 {DIGEST}")), Ok(Some(sha256)));
        let sha1 = read("sha1 CQkJCQkJCQkJCQkJCQkJCQkJCQk=");
        assert_eq!(sha1, Ok(Some(Checksum::Sha1([9; 20]))));
        for bad in [
            "",
            "sha1",
            "sha1 ",
            "sha1 AAAA",
            "md5 AAAA",
            "sha256 AAAA",
            "SHA1 x",
            "sha1  CQ==",
        ] {
            assert_eq!(read(bad), Err(Refusal::BadRequest), "{bad}");
        }
    }
}
