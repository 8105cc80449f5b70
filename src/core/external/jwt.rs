//! The JWT that Prosody's mod_http_file_share signs: RFC 7519 with one algorithm (RFC 8725).
//!
//! The signature is HMAC-SHA-256 whatever the header says, and the header has to say so. Claims are
//! read after the signature was found right, so that nothing of a stranger's is parsed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jid::BareJid;
use serde_json::{Map, Value};

use super::SharedSecret;
use super::token::is_tag;
use crate::core::time::Timestamp;

/// Longest token looked at: room for the longest file name and account, escaped.
const JWT_BYTES_MAX: usize = 8 * 1024;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claims {
    /// Who asked for the slot: `sub`.
    pub(super) owner: BareJid,
    /// The first component of the path.
    pub(super) slot: String,
    /// The rest of it.
    pub(super) filename: String,
    /// The file's size in bytes.
    pub(super) filesize: u64,
    /// The file's media type, where it was said.
    pub(super) filetype: Option<String>,
    /// The first instant at which no upload may begin: `exp`.
    pub(super) expires_at: Timestamp,
}

/// Whether `secret` signed the token, whatever it says.
pub(super) fn is_signed(secret: &SharedSecret, token: &str) -> bool {
    parts(token).is_some_and(|(message, tag)| is_tag(secret, message, &tag))
}

/// Reads what a token says; `None` where `secret` did not sign it, or it is none for an upload.
pub(super) fn open(secret: &SharedSecret, token: &str) -> Option<Claims> {
    let (message, tag) = parts(token)?;
    if !is_tag(secret, message, &tag) {
        return None;
    }
    let (header, payload) = message.split_once('.')?;
    let header = object(header)?;
    let claims = object(payload)?;
    // RFC 7515 #4.1.11: what is critical has to be understood, and nothing of it is.
    if header.get("alg")?.as_str()? != "HS256" || header.contains_key("crit") {
        return None;
    }
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    Some(Claims {
        owner: BareJid::new(text("sub")?).ok()?,
        slot: text("slot")?.to_owned(),
        filename: text("filename")?.to_owned(),
        filesize: whole(claims.get("filesize")?)?,
        filetype: text("filetype").map(str::to_owned),
        expires_at: Timestamp(whole(claims.get("exp")?)?),
    })
}

/// What was signed, and the tag.
fn parts(token: &str) -> Option<(&str, Vec<u8>)> {
    if JWT_BYTES_MAX < token.len() {
        return None;
    }
    let (message, tag) = token.rsplit_once('.')?;
    Some((message, URL_SAFE_NO_PAD.decode(tag).ok()?))
}

fn object(segment: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(segment).ok()?).ok()
}

/// A whole number. Lua writes some of them as fractions: `1048576.0`.
fn whole(value: &Value) -> Option<u64> {
    let of_fraction = |number: f64| {
        // Above, not all whole numbers are there.
        let is_exact = number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number);
        is_exact.then_some(number as u64)
    };
    value
        .as_u64()
        .or_else(|| value.as_f64().and_then(of_fraction))
}

#[cfg(test)]
mod tests {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use serde_json::json;

    use super::*;

    const VECTOR: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJyb21lb0Btb250YWd1ZS5s\
        aXQiLCJzbG90IjoibzM1eDNHX29tUENlV3padyIsImZpbGVuYW1lIjoiYS5qcGciLCJmaWxlc2l6ZSI6MTA0ODU3N\
        iwiZmlsZXR5cGUiOiJpbWFnZS9qcGVnIiwiZXhwaXJlcyI6MTcwMDYwNDgwMCwiaWF0IjoxNzAwMDAwMDAwLCJleH\
        AiOjE3MDAwMDA2MDB9._54VwuYH4EKjlMGtiVcBM2MrrvMEky6rKwP4mtPhGkY";

    fn secret() -> SharedSecret {
        SharedSecret::new("secret string".to_owned())
    }

    fn claims() -> Value {
        json!({
            "sub": "romeo@montague.lit", "slot": "o35x3G_omPCeWzZw", "filename": "a.jpg",
            "filesize": 1_048_576, "filetype": "image/jpeg", "iat": 1_700_000_000,
            "exp": 1_700_000_600,
        })
    }

    fn sign(header: &Value, claims: &Value) -> String {
        let segment = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", segment(header), segment(claims));
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"secret string").expect("a key");
        mac.update(message.as_bytes());
        let tag = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        format!("{message}.{tag}")
    }

    #[test]
    fn prosodys_own_token_opens() {
        let opened = open(&secret(), VECTOR).expect("a good token");
        let wanted = Claims {
            owner: BareJid::new("romeo@montague.lit").expect("a JID"),
            slot: "o35x3G_omPCeWzZw".to_owned(),
            filename: "a.jpg".to_owned(),
            filesize: 1_048_576,
            filetype: Some("image/jpeg".to_owned()),
            expires_at: Timestamp(1_700_000_600),
        };
        assert_eq!(opened, wanted);
        let header = json!({"alg": "HS256", "typ": "JWT"});
        assert_eq!(open(&secret(), &sign(&header, &claims())), Some(wanted));
    }

    #[test]
    fn the_header_chooses_nothing() {
        for header in [
            json!({"alg": "none"}),
            json!({"alg": "RS256"}),
            json!({"alg": "hs256"}),
            json!({"typ": "JWT"}),
            json!({"alg": "HS256", "crit": ["exp"]}),
            json!(["HS256"]),
        ] {
            let token = sign(&header, &claims());
            assert_eq!(open(&secret(), &token), None, "{header}");
            let (message, _) = token.rsplit_once('.').expect("three parts");
            assert_eq!(open(&secret(), &format!("{message}.")), None);
        }
    }

    #[test]
    fn what_nobody_signed_does_not_open() {
        let other = SharedSecret::new("secret strinG".to_owned());
        assert_eq!(open(&other, VECTOR), None);
        assert!(is_signed(&secret(), VECTOR) && !is_signed(&other, VECTOR));
        for token in ["", ".", "..", "a.b.c", &format!("{VECTOR}="), &VECTOR[1..]] {
            assert_eq!(open(&secret(), token), None, "{token}");
            assert!(!is_signed(&secret(), token), "{token}");
        }
        let long = format!("{}.{VECTOR}", "a".repeat(JWT_BYTES_MAX));
        assert_eq!(open(&secret(), &long), None);
    }

    #[test]
    fn claims_that_are_missing_or_of_another_kind_open_nothing() {
        let header = json!({"alg": "HS256"});
        let opens = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            open(&secret(), &sign(&header, &claims)).is_some()
        };
        for name in ["sub", "slot", "filename", "filesize", "exp"] {
            assert!(!opens(name, Value::Null), "{name}");
            assert!(!opens(name, json!([1])), "{name}");
        }
        for size in [json!(-1), json!(1.5), json!("1"), json!(1e300)] {
            assert!(!opens("filesize", size.clone()), "{size}");
        }
        assert!(opens("filesize", json!(1_048_576.0)));
        assert!(opens("filetype", Value::Null));
        assert!(!opens("sub", json!("romeo@montague.lit/garden")));
    }
}
