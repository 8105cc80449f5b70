//! How both sides prove that they know the password.

use super::*;

/// The server's part of SCRAM-SHA-256: the conversation of RFC 7677 #3.
const CHALLENGE: &str =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const SIGNATURE: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn decoded(element: &Element) -> String {
    let data = body::data(element).expect("base64");
    String::from_utf8(data).expect("UTF-8")
}

#[test]
fn scram_goes_before_plain_and_its_end_may_come_in_two_ways() {
    let all = [
        "PLAIN",
        "SCRAM-SHA-1",
        "SCRAM-SHA-256",
        "SCRAM-SHA-256-PLUS",
    ];
    let challenged = || {
        let mut talk = Talk::session("user@example.org");
        let auth = talk.goes_on(&created(&mechanisms(&all)));
        let auth = auth.get_child("auth", ns::SASL).expect("<auth/>");
        assert_eq!(auth.attr("mechanism"), Some("SCRAM-SHA-256"));
        assert_eq!(decoded(auth), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let response = talk.goes_on(&answer("", &sasl("challenge", CHALLENGE)));
        let response = response
            .get_child("response", ns::SASL)
            .expect("<response/>");
        assert_eq!(
            decoded(response),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        talk
    };
    let mut talk = challenged();
    talk.goes_on(&answer("", &sasl("success", SIGNATURE)));
    assert_eq!(talk.sent.len(), 4);

    let mut talk = challenged();
    let last = talk.goes_on(&answer("", &sasl("challenge", SIGNATURE)));
    let last = last.get_child("response", ns::SASL).expect("<response/>");
    assert_eq!(last.text(), "");
    talk.goes_on(&answer("", &format!("<success xmlns='{}'/>", ns::SASL)));

    // Whoever goes on challenging has nothing to say.
    let mut talk = challenged();
    talk.goes_on(&answer("", &sasl("challenge", SIGNATURE)));
    talk.fails(&answer("", &sasl("challenge", SIGNATURE)), Failure::Garbled);
}

#[test]
fn a_server_that_proves_nothing_is_not_believed() {
    for proof in [
        sasl("success", ""),
        sasl("success", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5="),
        sasl("success", "v="),
        sasl("success", "e=other-error"),
        sasl("challenge", "v=AAAA"),
        format!("<success xmlns='{}'>=</success>", ns::SASL),
    ] {
        let mut talk = Talk::session("user@example.org");
        talk.goes_on(&created(&mechanisms(&["SCRAM-SHA-256"])));
        talk.goes_on(&answer("", &sasl("challenge", CHALLENGE)));
        talk.fails(&answer("", &proof), Failure::NotProven);
    }
    // Not even before it was challenged.
    let mut talk = Talk::session("user@example.org");
    talk.goes_on(&created(&mechanisms(&["SCRAM-SHA-256"])));
    talk.fails(&answer("", &sasl("success", SIGNATURE)), Failure::NotProven);
}

#[test]
fn challenges_that_would_weaken_or_hold_us_up_are_refused() {
    let ours = "rOprNGfwEbeRWgbNEkqO";
    let salt = "s=W22ZaJ0SNY7soEsUEjb6gQ==";
    for challenge in [
        String::new(),
        format!("r={ours},{salt},i=4096"),
        format!("r=other,{salt},i=4096"),
        format!("r={ours}x,{salt},i=4095"),
        format!("r={ours}x,{salt},i=1"),
        format!("r={ours}x,{salt},i=1000001"),
        format!("r={ours}x,{salt},i=4294967295"),
        format!("r={ours}x,{salt},i=-4096"),
        format!("r={ours}x,{salt}"),
        format!("r={ours}x,s=,i=4096"),
        format!("r={ours}x,s=!,i=4096"),
        format!("m=ext,r={ours}x,{salt},i=4096"),
        format!("{salt},r={ours}x,i=4096"),
    ] {
        let mut talk = Talk::session("user@example.org");
        talk.goes_on(&created(&mechanisms(&["SCRAM-SHA-256"])));
        talk.fails(
            &answer("", &sasl("challenge", &challenge)),
            Failure::Garbled,
        );
    }
}

/// What follows a challenge: the conversations of RFC 5802 #5 and RFC 7677 #3, and the latter with
/// SHA-512 as Python's hashlib has it.
#[test]
fn hashes() {
    for (mechanism, nonce, challenge, proof, signature) in [
        (
            "SCRAM-SHA-1",
            "fyko+d2lbbFgONRv9qkxdawL",
            "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
            "p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        ),
        (
            "SCRAM-SHA-512",
            "rOprNGfwEbeRWgbNEkqO",
            CHALLENGE,
            "p=gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTx\
             wnYPJQ==",
            "v=ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2r\
             R7N7Zw==",
        ),
    ] {
        let offered = ["SCRAM-SHA-1".to_owned(), mechanism.to_owned()];
        let mut scram = Scram::best_of(&offered, "user", nonce).expect("offered");
        assert_eq!(scram.mechanism(), mechanism);
        let password = wish("user@example.org").password;
        let response = scram
            .respond(challenge.as_bytes(), &password)
            .expect("a response");
        assert!(
            String::from_utf8_lossy(&response).ends_with(proof),
            "{mechanism}"
        );
        scram
            .verify_at_end(signature.as_bytes())
            .expect("the right signature");
    }
}

#[test]
fn names_are_written_as_scram_wants_them() {
    let offered = ["SCRAM-SHA-1".to_owned()];
    let scram = Scram::best_of(&offered, "a=b,c", "n").expect("offered");
    assert_eq!(scram.first(), "n,,n=a=3Db=2Cc,r=n");
}
