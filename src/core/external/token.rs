//! What `?v=`, `?v2=`, `?token=` and `?v3=` are: HMAC-SHA-256, in lower-case hexadecimal digits.
//!
//! What each covers stands in `Format`. The key is the secret as it is written.

use hmac::{Hmac, KeyInit as _, Mac as _};

use super::SharedSecret;

type HmacSha256 = Hmac<sha2::Sha256>;

/// Hexadecimal digits of a token.
const TOKEN_DIGITS: usize = 64;

/// The message of `v`.
pub(super) fn v_message(path: &str, size_bytes: u64) -> String {
    format!("{path} {size_bytes}")
}

/// The message of `v2` and of `token`.
pub(super) fn v2_message(path: &str, size_bytes: u64, content_type: &str) -> String {
    format!("{path}\0{size_bytes}\0{content_type}")
}

/// The message of `v3`; `url_path` begins with a slash, `expires` is as the URL has it.
pub(super) fn v3_message(method: &str, expires: &str, url_path: &str) -> String {
    format!("{method}\n{expires}\n{url_path}")
}

/// The message of Metronome's DELETE.
pub(super) fn delete_message(path: &str, delete_secret: &SharedSecret) -> String {
    format!("{path}\0{}", delete_secret.0)
}

/// Whether `token` is what `secret` signs `message` with. A token has one spelling; it is compared
/// in constant time.
pub(super) fn is_signed(secret: &SharedSecret, message: &str, token: &str) -> bool {
    read_hex(token).is_some_and(|tag| is_tag(secret, message, &tag))
}

/// The same of a tag in bytes.
pub(super) fn is_tag(secret: &SharedSecret, message: &str, tag: &[u8]) -> bool {
    let mut mac =
        HmacSha256::new_from_slice(secret.0.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(message.as_bytes());
    mac.verify_slice(tag).is_ok()
}

fn read_hex(digits: &str) -> Option<[u8; TOKEN_DIGITS / 2]> {
    let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != TOKEN_DIGITS || !digits.bytes().all(is_digit) {
        return None;
    }
    let mut bytes = [0; TOKEN_DIGITS / 2];
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * n..2 * n + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V: &str = "e6df55a04516617d6a86ad6ca23879819591085a1a8c0041f4da06824f5d2db7";

    #[track_caller]
    fn check(key: &str, message: &str, token: &str) {
        assert!(is_signed(
            &SharedSecret::new(key.to_owned()),
            message,
            token
        ));
    }

    /// What the systems themselves sign.
    #[test]
    fn vectors() {
        let key = "secret string";
        let path = "foo/bar.jpg";
        check(key, &v_message(path, 1_048_576), V);
        let v2 = "a19d27add075aa60035e27c05e794f13079ba48c508852b3d7160a6bec0f85ab";
        check(key, &v2_message(path, 1_048_576, "image/jpeg"), v2);
        let unicode = "8263ca0b718801a0268ea0797ed0b35d586f640cb036dfcb9bd3c4a0b99b14dc";
        check(key, &v_message("3f1d/très cool.jpg", 23_456), unicode);
        let empty = "87cbae470a628844d87cb537a7e5072a864c5219f660394f47559674c82bbb90";
        check(key, &v_message(path, 0), empty);
        let delete = "3a69fb226a3d93d2f7bc2c777aafcf407f0e44eb6860686532019235bf7a2293";
        let delete_secret = SharedSecret::new("delete secret".to_owned());
        check(key, &delete_message(path, &delete_secret), delete);
        let v3 = "d9c8be1072f652960f862c9f49b2d6734475cdd2a8f10f2f3bd124380bdb4889";
        check(key, &v3_message("PUT", "1700000000", "/foo/bar.jpg"), v3);
        // From a peer's own tests.
        let (key, path) = ("mysecret", "thomas/abc/catmetal.jpg");
        let v = "7b8879e2d1c733b423a70cde30cecc3a3c64a03f790d1b5bcbb2a6aca52b477e";
        check(key, &v_message(path, 23_026), v);
        let v2 = "7318cd44d4c40731e3b2ff869f553ab2326eae631868e7b8054db20d4aee1c06";
        check(key, &v2_message(path, 23_026, "image/jpeg"), v2);
    }

    #[test]
    fn any_other_token_is_none() {
        let secret = SharedSecret::new("secret string".to_owned());
        let message = v_message("foo/bar.jpg", 1_048_576);
        for token in [
            "",
            "é",
            &V[..62],
            &format!("{V}00"),
            &V.to_uppercase(),
            &format!(" {}", &V[1..]),
            &V.replace('e', "f"),
            &V.replace('e', "+"),
        ] {
            assert!(!is_signed(&secret, &message, token), "{token}");
        }
        let other = v_message("foo/bar.jpg", 1_048_577);
        assert!(!is_signed(&secret, &other, V));
        let other = SharedSecret::new("secret strinG".to_owned());
        assert!(!is_signed(&other, &message, V));
    }
}
