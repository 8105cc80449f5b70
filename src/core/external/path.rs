//! The path of a file that another system names: in its links, and under its tokens.

use std::fmt;

use percent_encoding::percent_decode_str;
use sha2::Digest as _;

use crate::core::refusal::Refusal;
use crate::core::slot::{FileName, SlotId};
use crate::core::time::Timestamp;

/// Longest path, decoded, in bytes of UTF-8: three components of the longest file names.
const PATH_BYTES_MAX: usize = 1024;
/// Most components of a path; the systems that are known have two or three.
const COMPONENTS_MAX: usize = 8;
/// Keeps the id of a path from being the digest of anything else.
const ID_LABEL: &[u8] = b"slotd/external-path/v1\0";
/// What a file is called whose name in the path is none that can be served.
const NAME_OF_NONE: &str = "file";

/// What stands in a link behind the base that the other system was told: `9f3c/picture.jpg`.
///
/// Decoded, UTF-8, 1 to 1,024 bytes in 1 to 8 components, none of them empty, `.` or `..`, without
/// control characters. `Debug` does not show it: who knows it has the file.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalPath(String);

impl ExternalPath {
    /// Reads what stands in a URL, percent-encoded or raw; it is decoded exactly once.
    ///
    /// Refuses `BadRequest` for what no path is, or for what others could read as another one: an
    /// encoded `/` among them.
    pub fn of_url(encoded: &str) -> Result<Self, Refusal> {
        let bytes = encoded.as_bytes();
        let is_escape = |at: usize| {
            let digits = bytes.get(at + 1..at + 3);
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        };
        let is_slash = |at: usize| bytes[at + 1..at + 3].eq_ignore_ascii_case(b"2f");
        let mut escapes = bytes.iter().enumerate().filter(|(_, b)| **b == b'%');
        if !escapes.all(|(at, _)| is_escape(at) && !is_slash(at)) {
            return Err(Refusal::BadRequest);
        }
        let decoded = percent_decode_str(encoded).decode_utf8();
        Self::parse(&decoded.map_err(|_| Refusal::BadRequest)?)
    }

    /// Checks a path that is decoded. Refuses `BadRequest` as `of_url` does.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let is_component = |it: &str| !matches!(it, "" | "." | "..");
        let is_path = text.len() <= PATH_BYTES_MAX
            && text.split('/').count() <= COMPONENTS_MAX
            && text.split('/').all(is_component)
            && !text.chars().any(char::is_control);
        match is_path {
            true => Ok(Self(text.to_owned())),
            false => Err(Refusal::BadRequest),
        }
    }

    /// The path in UTF-8, as tokens cover it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its components; there is always one.
    pub fn components(&self) -> Vec<&str> {
        self.0.split('/').collect()
    }

    /// Names the row and the file of this path below `prefix`. Made of the two alone, so that no
    /// index is needed; the path can be found out from it no more than it can be guessed.
    pub(super) fn id_below(&self, prefix: &str) -> SlotId {
        let digest = sha2::Sha256::new()
            .chain_update(ID_LABEL)
            .chain_update(prefix)
            .chain_update([0])
            .chain_update(&self.0)
            .finalize();
        let first = digest.first_chunk().expect("a digest has 32 bytes");
        SlotId(u128::from_be_bytes(*first))
    }

    /// What the file is called where it is saved: the last component, made fit for that.
    pub fn file_name(&self) -> FileName {
        let last = self.0.rsplit('/').next().unwrap_or_default();
        let name = FileName::parse(&last.replace('\\', "_"));
        name.or_else(|_| FileName::parse(NAME_OF_NONE))
            .expect("this name is one")
    }
}

impl fmt::Debug for ExternalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExternalPath(..)")
    }
}

/// That a path was filled, or began to be: it is never filled again, also when its file is gone.
/// Otherwise an old PUT URL could put other bytes behind a link that others have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedPath {
    /// `System::id_of` the path.
    pub id: SlotId,
    /// When no token for the path can be valid any more; `None` where tokens are so for ever.
    pub forget_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn decoded(encoded: &str) -> Option<String> {
        ExternalPath::of_url(encoded).ok().map(|path| path.0)
    }

    #[test]
    fn raw_and_encoded_letters_are_one_path() {
        for encoded in [
            "3f1d/tr%c3%a8s%20cool.jpg",
            "3f1d/tr%C3%A8s%20cool.jpg",
            "3f1d/très%20cool.jpg",
            "%33f1d/tr%c3%A8s cool.jpg",
        ] {
            let path = decoded(encoded);
            assert_eq!(path.as_deref(), Some("3f1d/très cool.jpg"), "{encoded}");
        }
        // Once alone.
        assert_eq!(decoded("a/%2561").as_deref(), Some("a/%61"));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let long = "a".repeat(PATH_BYTES_MAX);
        assert_eq!(decoded(&long).as_deref(), Some(&*long));
        let deep = ["a"; COMPONENTS_MAX].join("/");
        assert_eq!(decoded(&deep).as_deref(), Some(&*deep));
        for encoded in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            "a/./b",
            "a/../b",
            "%2e%2e/a",
            ".%2E/a",
            "a%2fb",
            "a%2Fb",
            "a/%",
            "a/%4",
            "a/%zz",
            "a/%00",
            "a/%0a",
            "a/%7f",
            "a/%c2%85",
            "a/%c3",
            "a/%ff",
            &format!("{long}a"),
            &format!("{deep}/a"),
        ] {
            assert_eq!(decoded(encoded), None, "{encoded}");
        }
    }

    #[test]
    fn ids_are_of_prefix_and_path() {
        let id_below = |prefix: &str, text: &str| {
            let path = ExternalPath::parse(text).expect("a path");
            path.id_below(prefix)
        };
        let id = |text: &str| id_below("/upload/", text);
        // What is stored under an id is found by it for ever: it must never be another one.
        assert_eq!(
            format!("{:032x}", id("foo/bar.jpg").0),
            "1ab5c75c67931d08a36dcf3c5db87dbe"
        );
        assert_ne!(id("foo/bar.jpg"), id("foo/bar.jpG"));
        assert_ne!(id("a/bc"), id("ab/c"));
        // Of two systems none reaches the other's files.
        assert_ne!(id("a/b"), id_below("/other/", "a/b"));
        assert_ne!(id("a/b"), id_below("/upload/a/", "b"));
    }

    #[test]
    fn every_file_has_a_name() {
        for (path, name) in [
            ("a/b.jpg", "b.jpg"),
            ("b.jpg", "b.jpg"),
            ("a/c\\b.jpg", "c_b.jpg"),
            ("a/evil\u{202E}gpj.exe", "evilgpj.exe"),
            ("a/ ", "file"),
            ("a/\u{202E}", "file"),
        ] {
            let path = ExternalPath::parse(path).expect("a path");
            assert_eq!(path.file_name().as_str(), name);
        }
    }

    #[test]
    fn a_path_is_not_shown() {
        let path = ExternalPath::parse("secret/a.jpg").expect("a path");
        assert!(!format!("{path:?}").contains("secret"));
    }

    proptest::proptest! {
        #[test]
        fn a_path_of_a_url_is_itself(text in "[^%]{0,40}") {
            const SET: &percent_encoding::AsciiSet =
                &percent_encoding::NON_ALPHANUMERIC.remove(b'/');
            let encoded = percent_encoding::utf8_percent_encode(&text, SET).to_string();
            let parsed = ExternalPath::parse(&text);
            proptest::prop_assert_eq!(&ExternalPath::of_url(&encoded), &parsed);
            proptest::prop_assert_eq!(&ExternalPath::of_url(&text), &parsed);
            if let Ok(path) = parsed {
                let mut components = path.components().into_iter();
                proptest::prop_assert!(components.all(|it| !matches!(it, "" | "." | "..")));
                proptest::prop_assert_eq!(path.components().join("/"), text);
            }
        }

        #[test]
        fn whatever_stands_in_a_url_is_a_path_or_refused(encoded in "[%/.a-f0-9è]{0,40}") {
            if let Ok(path) = ExternalPath::of_url(&encoded) {
                proptest::prop_assert_eq!(ExternalPath::parse(path.as_str()), Ok(path.clone()));
                let n_slashes = encoded.matches('/').count();
                proptest::prop_assert_eq!(path.components().len(), n_slashes + 1);
            }
        }
    }
}
