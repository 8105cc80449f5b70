//! The pages of warm bindings: what mod_warm_bindings answers, for those who read its markup, and
//! the same in JSON.

use std::sync::LazyLock;

use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use maud::{Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use super::Refused;
use super::job::Done;
use crate::core::bosh::{Binding, Terms};

const HTML_TYPE: &str = "text/html; charset=utf-8";
const JSON_TYPE: &str = "application/json";
const CHALLENGE: &str = "Basic realm=\"HTTP Binding Warm\", charset=\"UTF-8\"";
/// How long the session lives without a request: whoever attaches has to be as fast.
const INACTIVITY: HeaderName = HeaderName::from_static("x-bosh-inactivity");

/// What stands before the markup, byte by byte.
const PROLOG: &str = "<?xml version='1.0'?>\n\
    <!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\" \
    \"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n";

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:26rem;padding:2rem 1rem}\
h1{font-size:1.4rem}label{display:block;margin:0 0 .8rem}\
input{box-sizing:border-box;display:block;font:inherit;padding:.4rem;width:100%}";

/// What lets the form's style apply, the form be sent here, and nothing else be.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'"
    )
});

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Html,
    Json,
}

impl Format {
    /// JSON for who names it and no page: scripts do, browsers do not.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let fields = headers.get_all(header::ACCEPT).into_iter();
        let accepted: Vec<String> = fields
            .filter_map(|field| field.to_str().ok())
            .flat_map(|field| field.split(','))
            .filter_map(|range| range.split(';').next())
            .map(|range| range.trim().to_ascii_lowercase())
            .collect();
        let names = |kind: &str| accepted.iter().any(|range| range == kind);
        match names(JSON_TYPE) && !names("text/html") && !names("application/xhtml+xml") {
            true => Self::Json,
            false => Self::Html,
        }
    }
}

/// The answer to who got what they asked for.
pub(super) fn show(done: &Done, format: Format) -> Response {
    match (done, format) {
        (Done::Form, _) => answer(StatusCode::OK, HTML_TYPE, form()),
        (Done::Bound(binding), format) => {
            let mut response = match format {
                Format::Html => answer(StatusCode::OK, HTML_TYPE, success(binding)),
                Format::Json => answer(StatusCode::OK, JSON_TYPE, json(binding)),
            };
            if let Some(inactivity_s) = binding.inactivity_s {
                let value = HeaderValue::from(inactivity_s);
                response.headers_mut().insert(INACTIVITY, value);
            }
            response
        }
    }
}

/// The answer to who did not.
pub(super) fn refuse(refused: Refused, format: Format) -> Response {
    let status = refused.status;
    let words = status.canonical_reason().unwrap_or("Error");
    let mut response = match format {
        Format::Html => answer(status, HTML_TYPE, framed(words, &html! {})),
        Format::Json => {
            let error = serde_json::json!({ "error": words });
            answer(status, JSON_TYPE, error.to_string())
        }
    };
    let fields = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static(CHALLENGE);
        fields.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(retry_in) = refused.retry_in {
        fields.insert(header::RETRY_AFTER, retry_in.as_secs().max(1).into());
    }
    response
}

fn answer(status: StatusCode, kind: &'static str, text: String) -> Response {
    let mut response = (status, text).into_response();
    let fields = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            fields.insert(name, value);
        }
    }
    response
}

/// The frame of all pages but the form.
fn framed(words: &str, rest: &Markup) -> String {
    let page = html! {
        html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" {
            head { title { (words) } }
            body { p { (words) } (rest) }
        }
    };
    format!("{PROLOG}{}", page.into_string())
}

fn success(binding: &Binding) -> String {
    let Binding { jid, sid, rid, .. } = binding;
    let list = html! {
        dl class="binding" {
            dt class="jid" { "JID" } dd class="jid" { (jid) }
            dt class="sid" { "SID" } dd class="sid" { (sid) }
            dt class="rid" { "RID" } dd class="rid" { (rid.number()) }
        }
    };
    framed("Success", &list)
}

/// What Converse.js takes from its `prebind_url`.
fn json(binding: &Binding) -> String {
    let Binding { jid, sid, rid, .. } = binding;
    let object = serde_json::json!({
        "jid": jid.as_str(),
        "sid": sid,
        "rid": rid.number(),
    });
    object.to_string()
}

fn form() -> String {
    let standard = Terms::default();
    let fields = [
        ("jid", "JID", "text", String::new()),
        ("password", "Password", "password", String::new()),
        ("lang", "Language", "text", standard.lang),
        (
            "wait",
            "Wait, in seconds",
            "text",
            standard.wait_s.to_string(),
        ),
        (
            "hold",
            "Hold, in requests",
            "text",
            standard.hold.to_string(),
        ),
        ("ver", "Version of BOSH", "text", standard.ver),
    ];
    let page = html! {
        html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en" {
            head {
                title { "Warm binding" }
                meta name="viewport" content="width=device-width, initial-scale=1" {}
                style type="text/css" { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Warm binding" }
                form method="post" action="" {
                    @for (name, words, kind, value) in &fields {
                        label {
                            (words)
                            input type=(kind) name=(name) value=(value) autocomplete="off" {}
                        }
                    }
                    input type="submit" value="Bind" {}
                }
            }
        }
    };
    format!("{PROLOG}{}", page.into_string())
}
