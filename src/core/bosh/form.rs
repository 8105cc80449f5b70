//! What is wished for: the fields of a form, and the credentials of whoever sends it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jid::{BareJid, Jid};
use percent_encoding::percent_decode;
use zeroize::Zeroizing;

use super::password::Password;
use super::{Terms, Wish};

/// The largest form, in bytes.
pub const FORM_BYTES_MAX: usize = 8 * 1024;

/// The largest values of `wait`, in seconds, and of `hold`: servers take no more.
const WAIT_S_MAX: u16 = 300;
const HOLD_MAX: u8 = 2;
/// RFC 5646 #4.4.1: every language fits.
const LANG_BYTES_MAX: usize = 35;
const VER_BYTES_MAX: usize = 8;
/// No address is longer.
const JID_BYTES_MAX: usize = 3071;

/// What is wrong with a form: the field, or the form itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It is no form.
    #[error("the form is malformed")]
    Form,
    /// It has one of its fields twice.
    #[error("{0} is there twice")]
    Twice(&'static str),
    /// It lacks a field.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field says what it cannot mean.
    #[error("{0} makes no sense")]
    Value(&'static str),
}

/// The fields by their names; of others nothing is read.
#[derive(Default)]
struct Fields<'a> {
    jid: Field<'a>,
    password: Field<'a>,
    lang: Field<'a>,
    language: Field<'a>,
    wait: Field<'a>,
    hold: Field<'a>,
    ver: Field<'a>,
}

/// A field's value as it was written.
type Field<'a> = Option<&'a [u8]>;

/// Reads a form (`application/x-www-form-urlencoded`): `jid` and `password`, and, if anybody cares,
/// `lang` (or `language`), `wait`, `hold` and `ver`. What is empty is as if it were not there.
pub fn read(form: &[u8]) -> Result<Wish, Wrong> {
    let fields = Fields::read(form)?;
    let standard = Terms::default();
    let jid = text(fields.jid, "jid")?.ok_or(Wrong::Missing("jid"))?;
    let password = text(fields.password, "password")?.ok_or(Wrong::Missing("password"))?;
    let lang = match fields.lang {
        None => text(fields.language, "language")?,
        lang => text(lang, "lang")?,
    };
    let lang = checked(lang, "lang", is_lang)?;
    let ver = checked(text(fields.ver, "ver")?, "ver", is_ver)?;
    let wait_s = number(text(fields.wait, "wait")?, "wait", WAIT_S_MAX)?;
    let hold = number(text(fields.hold, "hold")?, "hold", HOLD_MAX)?;
    Ok(Wish {
        jid: account(&jid).ok_or(Wrong::Value("jid"))?,
        password: Password::new(password).ok_or(Wrong::Value("password"))?,
        terms: Terms {
            lang: lang.unwrap_or(standard.lang),
            wait_s: wait_s.unwrap_or(standard.wait_s),
            hold: hold.unwrap_or(standard.hold),
            ver: ver.unwrap_or(standard.ver),
        },
    })
}

/// Reads the value of `Authorization: Basic`: an account and its password. RFC 7617.
pub fn basic(value: &[u8]) -> Option<(BareJid, Password)> {
    let (scheme, data) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = Zeroizing::new(STANDARD.decode(data.trim_start_matches(' ')).ok()?);
    let (name, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    let password = Password::new(Zeroizing::new(password.to_owned()))?;
    let account = account(name)?.try_into_full().err()?;
    Some((account, password))
}

impl<'a> Fields<'a> {
    fn read(form: &'a [u8]) -> Result<Self, Wrong> {
        let mut fields = Self::default();
        for pair in form.split(|byte| *byte == b'&') {
            let at = pair.iter().position(|byte| *byte == b'=');
            let (name, value) = pair.split_at(at.unwrap_or(pair.len()));
            let value = value.strip_prefix(b"=").unwrap_or(value);
            let name = decoded(name).ok_or(Wrong::Form)?;
            let Some((name, field)) = fields.named(&name) else {
                continue;
            };
            if field.is_some() {
                return Err(Wrong::Twice(name));
            }
            *field = Some(value).filter(|value| !value.is_empty());
        }
        Ok(fields)
    }

    fn named(&mut self, name: &str) -> Option<(&'static str, &mut Field<'a>)> {
        Some(match name {
            "jid" => ("jid", &mut self.jid),
            "password" => ("password", &mut self.password),
            "lang" => ("lang", &mut self.lang),
            "language" => ("language", &mut self.language),
            "wait" => ("wait", &mut self.wait),
            "hold" => ("hold", &mut self.hold),
            "ver" => ("ver", &mut self.ver),
            _ => return None,
        })
    }
}

/// A field's text.
fn text(field: Field<'_>, name: &'static str) -> Result<Option<Zeroizing<String>>, Wrong> {
    let text = |value| decoded(value).ok_or(Wrong::Value(name));
    field.map(text).transpose()
}

/// Undoes the form's encoding: `+` is a space, `%2B` a plus.
fn decoded(value: &[u8]) -> Option<Zeroizing<String>> {
    let spaced = value
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte });
    let spaced = Zeroizing::new(spaced.collect::<Vec<_>>());
    let bytes = match Cow::from(percent_decode(&spaced)) {
        Cow::Borrowed(bytes) => bytes.to_vec(),
        Cow::Owned(bytes) => bytes,
    };
    match String::from_utf8(bytes) {
        Ok(text) => Some(Zeroizing::new(text)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            None
        }
    }
}

/// An account's address, with a resource or without.
fn account(text: &str) -> Option<Jid> {
    let jid = Jid::new(text)
        .ok()
        .filter(|_| text.len() <= JID_BYTES_MAX)?;
    jid.node().is_some().then_some(jid)
}

fn checked(
    value: Option<Zeroizing<String>>,
    name: &'static str,
    is_good: fn(&str) -> bool,
) -> Result<Option<String>, Wrong> {
    match value {
        Some(text) if !is_good(&text) => Err(Wrong::Value(name)),
        value => Ok(value.map(|text| text.to_string())),
    }
}

fn is_lang(text: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    text.len() <= LANG_BYTES_MAX && text.bytes().all(is_part)
}

fn is_ver(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts = text.split_once('.');
    text.len() <= VER_BYTES_MAX && parts.is_some_and(|(a, b)| is_number(a) && is_number(b))
}

fn number<T: std::str::FromStr + PartialOrd>(
    value: Option<Zeroizing<String>>,
    name: &'static str,
    max: T,
) -> Result<Option<T>, Wrong> {
    let Some(text) = value else { return Ok(None) };
    let is_plain = text.bytes().all(|b| b.is_ascii_digit());
    let number = text
        .parse()
        .ok()
        .filter(|number| is_plain && *number <= max);
    number.map(Some).ok_or(Wrong::Value(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "jid=romeo%40example.org&password=pencil";

    fn told(form: &str) -> Result<String, Wrong> {
        let wish = read(form.as_bytes())?;
        let Terms {
            lang,
            wait_s,
            hold,
            ver,
        } = wish.terms;
        let password = String::from_utf8_lossy(wish.password.as_bytes()).into_owned();
        Ok(format!(
            "{} {password:?} {lang} {wait_s} {hold} {ver}",
            wish.jid
        ))
    }

    /// What a form with these fields means.
    #[track_caller]
    fn check(form: &str, expected: &str) {
        assert_eq!(told(form).as_deref(), Ok(expected), "{form}");
    }

    #[track_caller]
    fn refused(form: &str, wrong: Wrong) {
        assert_eq!(told(form), Err(wrong), "{form}");
    }

    #[test]
    fn fields_and_their_defaults() {
        check(GOOD, "romeo@example.org \"pencil\" en 60 1 1.6");
        check(
            "jid=romeo@example.org/a%20b&password=a+b%2Bc&lang=de-AT&wait=0&hold=2&ver=1.10",
            "romeo@example.org/a b \"a b+c\" de-AT 0 2 1.10",
        );
        check(
            "password=x&jid=R%C3%B6meo@EXAMPLE.org&wait=&hold=&ver=&lang=",
            "r\u{f6}meo@example.org \"x\" en 60 1 1.6",
        );
        check(
            &format!("{GOOD}&language=fr&submit=Bind&&="),
            "romeo@example.org \"pencil\" fr 60 1 1.6",
        );
        check(
            &format!("{GOOD}&language=fr&lang=it"),
            "romeo@example.org \"pencil\" it 60 1 1.6",
        );
        check(
            &format!("{GOOD}&lang=&language=fr"),
            "romeo@example.org \"pencil\" fr 60 1 1.6",
        );
        // What is no escape stands for itself, as in every form.
        check(
            "jid=a@example.org&password=100%",
            "a@example.org \"100%\" en 60 1 1.6",
        );
    }

    #[test]
    fn what_is_missing() {
        refused("", Wrong::Missing("jid"));
        refused("password=x", Wrong::Missing("jid"));
        refused("jid=&password=x", Wrong::Missing("jid"));
        refused("jid=a@example.org", Wrong::Missing("password"));
        refused("jid=a@example.org&password=", Wrong::Missing("password"));
        refused("jid=a@example.org&Password=x", Wrong::Missing("password"));
    }

    #[test]
    fn what_is_there_twice() {
        for name in ["jid", "password", "lang", "language", "wait", "hold", "ver"] {
            let form = format!("{name}=1&{name}=2");
            refused(&form, Wrong::Twice(name));
        }
    }

    /// Markup, NUL, control characters, entities and too much of anything, in every field.
    #[test]
    fn what_cannot_be_meant() {
        let long = "x".repeat(4000);
        let wrong = [
            "%00", "a%00b", "%0D%0A", "%01", "%FF", "%C3%28", "%C2%85", &long,
        ];
        for name in ["jid", "password", "lang", "wait", "hold", "ver"] {
            let other: Vec<_> = GOOD.split('&').filter(|it| !it.starts_with(name)).collect();
            for value in wrong {
                let form = format!("{}&{name}={value}", other.join("&"));
                refused(&form, Wrong::Value(name));
            }
            let markup = [
                "'/><x a='",
                "<!--",
                "\"",
                "&",
                "&lt;",
                "]]>",
                "&#x0;",
                "a b",
            ];
            for value in markup.map(|value| value.replace('&', "%26").replace('#', "%23")) {
                if name != "password" {
                    let form = format!("{}&{name}={value}", other.join("&"));
                    refused(&form, Wrong::Value(name));
                }
            }
        }
        refused("%FF=x", Wrong::Form);
    }

    #[test]
    fn ranges() {
        for (name, good, bad) in [
            (
                "wait",
                vec!["0", "300", "007"],
                vec!["301", "-1", "+1", "1.5", "1e2", "0x3", "99999"],
            ),
            ("hold", vec!["0", "2"], vec!["3", "-1", "256", "257", "one"]),
            (
                "ver",
                vec!["1.6", "0.0", "10.12"],
                vec!["1", "1.", ".6", "1.6.1", "1,6", "1.6a"],
            ),
            (
                "lang",
                vec!["en", "x-klingon", "1"],
                vec!["en_US", "e n", "\u{e4}"],
            ),
        ] {
            for value in good {
                assert!(
                    told(&format!("{GOOD}&{name}={value}")).is_ok(),
                    "{name}={value}"
                );
            }
            for value in bad {
                refused(&format!("{GOOD}&{name}={value}"), Wrong::Value(name));
            }
        }
        for jid in [
            "example.org",
            "@example.org",
            "a@",
            "a@b@c",
            "a@example.org/",
            "a b@c.org",
        ] {
            refused(&format!("jid={jid}&password=x"), Wrong::Value("jid"));
        }
    }

    fn basic_of(pair: &[u8]) -> Option<(String, Vec<u8>)> {
        let value = format!("Basic {}", STANDARD.encode(pair));
        let (jid, password) = basic(value.as_bytes())?;
        Some((jid.to_string(), password.as_bytes().to_vec()))
    }

    #[test]
    fn credentials() {
        let told = |pair: &str| basic_of(pair.as_bytes());
        let pair = |jid: &str, password: &str| Some((jid.to_owned(), password.into()));
        assert_eq!(
            told("admin@example.org:a:b"),
            pair("admin@example.org", "a:b")
        );
        assert_eq!(told("Admin@Example.org:x"), pair("admin@example.org", "x"));
        for wrong in [
            "",
            ":",
            "admin@example.org",
            "admin@example.org:",
            "admin:x",
            "example.org:x",
            "admin@example.org/home:x",
            "admin@example.org:a\0b",
        ] {
            assert_eq!(told(wrong), None, "{wrong}");
        }
        assert_eq!(basic_of(b"a@b.c:\xff"), None);
        let good = STANDARD.encode("admin@example.org:x");
        assert!(basic(format!("bAsIc   {good}").as_bytes()).is_some());
        for wrong in [
            good.clone(),
            format!("Bearer {good}"),
            format!("Basic{good}"),
            format!("Basic {good}!"),
        ] {
            assert!(basic(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }

    proptest::proptest! {
        /// Nobody's form brings anything down.
        #[test]
        fn any_bytes_are_read(form in proptest::collection::vec(0u8..=255, 0..200)) {
            let _ = read(&form);
            let _ = basic(&form);
        }
    }
}
