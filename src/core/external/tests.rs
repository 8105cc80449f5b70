//! What tokens of other systems open, and what none of them does.

use jid::BareJid;

use super::*;
use crate::core::refusal::Refusal;
use crate::core::time::Timestamp;

const PATH: &str = "foo/bar.jpg";
const V: &str = "e6df55a04516617d6a86ad6ca23879819591085a1a8c0041f4da06824f5d2db7";
const V2: &str = "a19d27add075aa60035e27c05e794f13079ba48c508852b3d7160a6bec0f85ab";
const V3: &str = "d9c8be1072f652960f862c9f49b2d6734475cdd2a8f10f2f3bd124380bdb4889";
const DELETE: &str = "3a69fb226a3d93d2f7bc2c777aafcf407f0e44eb6860686532019235bf7a2293";
const JWT: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJyb21lb0Btb250YWd1ZS5saXQiL\
    CJzbG90IjoibzM1eDNHX29tUENlV3padyIsImZpbGVuYW1lIjoiYS5qcGciLCJmaWxlc2l6ZSI6MTA0ODU3NiwiZmlsZ\
    XR5cGUiOiJpbWFnZS9qcGVnIiwiZXhwaXJlcyI6MTcwMDYwNDgwMCwiaWF0IjoxNzAwMDAwMDAwLCJleHAiOjE3MDAw\
    MDA2MDB9._54VwuYH4EKjlMGtiVcBM2MrrvMEky6rKwP4mtPhGkY";
const JWT_PATH: &str = "o35x3G_omPCeWzZw/a.jpg";
/// When the tokens that expire are still good.
const NOW: Timestamp = Timestamp(1_700_000_000);

fn secret(text: &str) -> SharedSecret {
    SharedSecret::new(text.to_owned())
}

fn system(formats: &[Format]) -> System {
    System {
        prefix: "/".to_owned(),
        formats: formats.to_vec(),
        secret: secret("secret string"),
        delete_secret: None,
        domain: BareJid::new("montague.lit").expect("a domain"),
    }
}

/// A picture of the vectors' size, with the tokens of `query`.
fn put(path: &str, query: &str, bearer: Option<&str>) -> Put {
    Put {
        path: ExternalPath::parse(path).expect("a path"),
        presented: Presented::read(query, bearer).expect("readable"),
        size_bytes: Some(1_048_576),
        content_type: Some("image/jpeg".to_owned()),
    }
}

/// Whether a PUT with `query` is let in where `formats` are accepted.
fn opens(formats: &[Format], query: &str) -> bool {
    let opened = system(formats).open(&put(PATH, query, None), NOW);
    match &opened {
        Ok(grant) => assert_eq!(grant.size_bytes, 1_048_576),
        Err(refusal) => assert_eq!(*refusal, Refusal::TokenRefused),
    }
    opened.is_ok()
}

#[test]
fn each_format_opens_where_it_is_accepted() {
    let v3 = format!("v3={V3}&expires=1700000000");
    for (format, query) in [
        (Format::V, format!("v={V}")),
        (Format::V2, format!("v2={V2}")),
        (Format::Token, format!("token={V2}")),
        (Format::V3, v3),
    ] {
        assert!(opens(&[format], &query), "{format:?}");
        assert!(
            opens(&[format], &format!("a=b&{query}&v9=c&d")),
            "{format:?}"
        );
        let others = Format::ALL.iter().map(|(_, other)| *other);
        let others: Vec<_> = others.filter(|other| *other != format).collect();
        assert!(!opens(&others, &query), "{format:?} among others");
        assert!(!opens(&[format], ""), "{format:?} without a token");
        assert!(!opens(&[format], &query.replace('=', "=0")), "{format:?}");
    }
    assert!(!opens(&[Format::V], &format!("v2={V2}")));
}

#[test]
fn only_the_strongest_that_is_accepted_counts() {
    let all = Format::ALL.map(|(_, format)| format);
    let (bad, v, v2) = ("0".repeat(64), format!("v={V}"), format!("v2={V2}"));
    assert!(opens(&all, &v) && opens(&all, &format!("{v}&{v2}")));
    // From a failed one there is no way to a weaker one, in any order.
    assert!(!opens(&all, &format!("{v}&v2={bad}")));
    assert!(!opens(&all, &format!("v2={bad}&{v}")));
    assert!(!opens(&all, &format!("v2=&{v}")));
    assert!(!opens(&all, &format!("token={bad}&{v}")));
    assert!(opens(&all, &format!("{v2}&token={bad}&v={bad}")));
    // Who does not accept it does not look at it.
    assert!(opens(&[Format::V], &format!("{v}&v2={bad}")));
    let jwt = put(PATH, &v2, Some("a.b.c"));
    let refused = system(&all).open(&jwt, NOW);
    assert_eq!(refused, Err(Refusal::TokenRefused));
    assert!(system(&[Format::V2]).open(&jwt, NOW).is_ok());
    for twice in [
        format!("{v}&{v}"),
        format!("{v}&v={bad}"),
        "expires=1&expires=2".to_owned(),
    ] {
        assert!(Presented::read(&twice, None).is_err(), "{twice}");
    }
}

#[test]
fn a_token_is_for_one_path_size_and_type() {
    let check = |put: &Put| system(&[Format::V2]).open(put, NOW);
    let good = put(PATH, &format!("v2={V2}"), None);
    assert_eq!(
        check(&good),
        Ok(Grant {
            id: system(&[Format::V2]).id_of(&good.path),
            name: good.path.file_name(),
            owner: BareJid::new("montague.lit").expect("a domain"),
            size_bytes: 1_048_576,
            content_type: crate::core::slot::ContentType::parse("image/jpeg").expect("a type"),
            names_type: false,
            forget_at: None,
        })
    );
    for (other, refusal) in [
        (
            Put {
                size_bytes: Some(1_048_577),
                ..good.clone()
            },
            Refusal::TokenRefused,
        ),
        (
            Put {
                content_type: Some("image/JPEG".to_owned()),
                ..good.clone()
            },
            Refusal::TokenRefused,
        ),
        (
            Put {
                content_type: None,
                ..good.clone()
            },
            Refusal::TokenRefused,
        ),
        (
            Put {
                path: ExternalPath::parse("foo/bar.jpG").expect("a path"),
                ..good.clone()
            },
            Refusal::TokenRefused,
        ),
        (
            Put {
                size_bytes: None,
                ..good.clone()
            },
            Refusal::LengthMissing,
        ),
    ] {
        assert_eq!(check(&other), Err(refusal));
    }
}

#[test]
fn what_expires_has_no_grace() {
    let forget_at = |formats: &[Format], put: &Put, now| {
        let grant = system(formats).open(put, Timestamp(now));
        grant.map(|grant| grant.forget_at.map(|at| at.0))
    };
    let week = 7 * 86_400;
    let v3 = put(PATH, &format!("v3={V3}&expires=1700000000"), None);
    let last = 1_700_000_000;
    assert_eq!(forget_at(&[Format::V3], &v3, last), Ok(None));
    assert_eq!(
        forget_at(&[Format::V3], &v3, last + 1),
        Err(Refusal::TokenRefused)
    );
    let jwt = put(JWT_PATH, "", Some(JWT));
    let end = 1_700_000_600;
    assert_eq!(
        forget_at(&[Format::Jwt], &jwt, end - 1),
        Ok(Some(end + week))
    );
    assert_eq!(
        forget_at(&[Format::Jwt], &jwt, end),
        Err(Refusal::TokenRefused)
    );
    // Another token for the same path may be good for ever.
    assert_eq!(
        forget_at(&[Format::Jwt, Format::V], &jwt, end - 1),
        Ok(None)
    );
    // Other ends than the one that was signed, and no end at all.
    for expires in [
        "&expires=1700000001",
        "&expires=+1700000000",
        "&expires=",
        "",
    ] {
        let put = put(PATH, &format!("v3={V3}{expires}"), None);
        assert_eq!(
            forget_at(&[Format::V3], &put, 0),
            Err(Refusal::TokenRefused)
        );
    }
}

#[test]
fn v3_is_for_the_path_of_the_url() {
    // What hmac-file-server would take instead: no end, and no method.
    let elsewhere = System {
        prefix: "/foo/".to_owned(),
        ..system(&[Format::V3])
    };
    let below = put("bar.jpg", &format!("v3={V3}&expires=1700000000"), None);
    assert!(elsewhere.open(&below, NOW).is_ok());
    let whole = put(PATH, &format!("v3={V3}&expires=1700000000"), None);
    assert!(elsewhere.open(&whole, NOW).is_err());
}

#[test]
fn a_jwt_says_whose_it_is_and_for_what() {
    let system = system(&[Format::Jwt]);
    let grant = system
        .open(&put(JWT_PATH, "", Some(JWT)), NOW)
        .expect("good");
    assert_eq!(grant.owner.as_str(), "romeo@montague.lit");
    assert_eq!(grant.content_type.as_str(), "image/jpeg");
    for path in ["o35x3G_omPCeWzZw/b.jpg", "o35x3G_omPCeWzZW/a.jpg", "a.jpg"] {
        let refused = system.open(&put(path, "", Some(JWT)), NOW);
        assert_eq!(refused, Err(Refusal::TokenRefused), "{path}");
    }
    // Its size is in it: a body in chunks is counted.
    let chunked = Put {
        size_bytes: None,
        ..put(JWT_PATH, "", Some(JWT))
    };
    assert_eq!(
        system.open(&chunked, NOW).map(|it| it.size_bytes),
        Ok(1_048_576)
    );
}

#[test]
fn links_of_three_components_name_their_account() {
    let owner = |path: &str| {
        let path = ExternalPath::parse(path).expect("a path");
        let owner = system(&[Format::V]).owner_of(&path);
        owner.to_string()
    };
    let digest = "0123456789abcdef0123456789abcdef01234567";
    let slot = "h2Rd1kPWO3JMVgnXQbAZ4zCSYtFEuNeLsrlTyoxj";
    for (path, wanted) in [
        (
            format!("{digest}/{slot}/a.jpg"),
            format!("{digest}@montague.lit"),
        ),
        (
            format!("romeo/{slot}/a.jpg"),
            "romeo@montague.lit".to_owned(),
        ),
        (format!("{slot}/a.jpg"), "montague.lit".to_owned()),
        (format!("a/b/{slot}/a.jpg"), "montague.lit".to_owned()),
        (
            format!("juliet@capulet.lit/{slot}/a.jpg"),
            "montague.lit".to_owned(),
        ),
        (format!("@/{slot}/a.jpg"), "montague.lit".to_owned()),
        (format!("a b/{slot}/a.jpg"), "montague.lit".to_owned()),
    ] {
        assert_eq!(owner(&path), wanted, "{path}");
    }
}

#[test]
fn a_forgery_is_what_nobody_signed() {
    let is_forged = |formats: &[Format], put: &Put| system(formats).is_forged(put);
    let all = Format::ALL.map(|(_, format)| format);
    assert!(!is_forged(&all, &put(PATH, "", None)));
    assert!(!is_forged(&all, &put(PATH, &format!("v2={V2}"), None)));
    assert!(is_forged(&all, &put(PATH, &format!("v2={V}"), None)));
    assert!(!is_forged(
        &[Format::Token],
        &put(PATH, &format!("v2={V}"), None)
    ));
    // Late, and for another file, but signed.
    let v3 = put(PATH, &format!("v3={V3}&expires=1700000000"), None);
    assert!(!is_forged(&all, &v3));
    assert!(!is_forged(&all, &put("a/b", "", Some(JWT))));
    assert!(is_forged(
        &all,
        &put(JWT_PATH, "", Some(&JWT[..JWT.len() - 4]))
    ));
}

#[test]
fn who_deletes_has_to_know_both_secrets() {
    let path = ExternalPath::parse(PATH).expect("a path");
    let check = |system: &System, query: &str| {
        let presented = Presented::read(query, None).expect("readable");
        system.check_delete(&path, &presented)
    };
    let mut metronome = system(&[Format::Token]);
    let good = format!("token={DELETE}");
    assert_eq!(check(&metronome, &good), Err(Refusal::MethodNotAllowed));
    metronome.delete_secret = Some(secret("delete secret"));
    assert_eq!(check(&metronome, &good), Ok(()));
    for bad in [
        "",
        &format!("token={V2}"),
        &format!("v2={DELETE}"),
        &format!("v={DELETE}"),
    ] {
        assert_eq!(check(&metronome, bad), Err(Refusal::TokenRefused), "{bad}");
    }
    metronome.formats = vec![Format::V2];
    assert_eq!(check(&metronome, &good), Err(Refusal::MethodNotAllowed));
    assert!(!metronome.deletes());
}

#[test]
fn no_secret_is_shown() {
    let shown = format!("{:?}", system(&Format::ALL.map(|(_, format)| format)));
    assert!(shown.contains("SharedSecret(...)") && !shown.contains("secret string"));
}
