//! What a request asks for, and on whose behalf: all that can be refused before anybody is asked.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use jid::BareJid;
use tokio::time::timeout;
use zeroize::Zeroize as _;

use super::Refused;
use crate::core::bosh::form::{self, FORM_BYTES_MAX};
use crate::core::bosh::password::Password;

/// How long the form may take to come.
const FORM_WITHIN: Duration = Duration::from_secs(10);

/// A request.
pub(super) struct Ask {
    /// Who says to be an operator.
    pub(super) operator: BareJid,
    /// Their password.
    pub(super) password: Password,
    /// What they want.
    pub(super) what: What,
}

/// What is wanted.
pub(super) enum What {
    /// The empty form.
    Form,
    /// A session, as this form says.
    Session(Form),
}

/// A form as it came; its memory is wiped.
pub(super) struct Form(Vec<u8>);

impl AsRef<[u8]> for Form {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Form {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Ask {
    /// Reads a request for the form.
    pub(super) async fn read(request: Request<Body>) -> Result<Self, Refused> {
        let is_post = match *request.method() {
            Method::GET => false,
            Method::POST => true,
            _ => return Err(StatusCode::BAD_REQUEST.into()),
        };
        let headers = request.headers();
        if is_post {
            check_origin(headers, request.uri())?;
            check_type(headers)?;
        }
        let (operator, password) = credentials(headers).ok_or(StatusCode::UNAUTHORIZED)?;
        let what = match is_post {
            true => What::Session(form_of(request).await?),
            false => What::Form,
        };
        Ok(Self {
            operator,
            password,
            what,
        })
    }
}

/// Who says to be an operator. Two that say so are none.
fn credentials(headers: &HeaderMap) -> Option<(BareJid, Password)> {
    let mut fields = headers.get_all(AUTHORIZATION).into_iter();
    let (field, None) = (fields.next()?, fields.next()) else {
        return None;
    };
    form::basic(field.as_bytes())
}

/// Refuses a form that another site's page has a browser send: browsers add what they know of an
/// operator by themselves. What is no browser says nothing of where it comes from.
fn check_origin(headers: &HeaderMap, uri: &Uri) -> Result<(), StatusCode> {
    let is_ours = match (headers.get("sec-fetch-site"), headers.get(ORIGIN)) {
        (Some(site), _) => matches!(site.as_bytes(), b"same-origin" | b"none"),
        (None, Some(origin)) => {
            let origin = origin
                .to_str()
                .ok()
                .and_then(|text| text.parse::<Uri>().ok());
            let host = headers.get(HOST).and_then(|host| host.to_str().ok());
            let host = host.and_then(|host| host.parse::<Authority>().ok());
            let host = host.or_else(|| uri.authority().cloned());
            let origin = origin.and_then(|origin| origin.authority().cloned());
            origin.is_some() && origin == host
        }
        (None, None) => true,
    };
    match is_ours {
        true => Ok(()),
        false => Err(StatusCode::FORBIDDEN),
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), StatusCode> {
    let kind = headers
        .get(CONTENT_TYPE)
        .map_or(&b""[..], |it| it.as_bytes());
    let kind = kind.split(|b| *b == b';').next().unwrap_or_default();
    let form = b"application/x-www-form-urlencoded";
    match kind.trim_ascii().eq_ignore_ascii_case(form) {
        true => Ok(()),
        false => Err(StatusCode::UNSUPPORTED_MEDIA_TYPE),
    }
}

async fn form_of(request: Request<Body>) -> Result<Form, StatusCode> {
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| (FORM_BYTES_MAX as u64) < length) {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let body = Limited::new(request.into_body(), FORM_BYTES_MAX);
    let read = timeout(FORM_WITHIN, body.collect()).await;
    let read = read.map_err(|_| StatusCode::REQUEST_TIMEOUT)?;
    match read {
        Ok(form) => Ok(Form(wiped(form.to_bytes()))),
        Err(error) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::BAD_REQUEST),
    }
}

/// A copy of bytes, which are wiped where nobody else holds them.
fn wiped(bytes: Bytes) -> Vec<u8> {
    let copy = bytes.to_vec();
    if let Ok(mut bytes) = bytes.try_into_mut() {
        bytes.as_mut().zeroize();
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a form with these fields is taken: `field: value` each.
    #[track_caller]
    fn check(fields: &[(&'static str, &str)], is_taken: bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a value"));
        }
        let checked = check_origin(&headers, &Uri::from_static("/warm"));
        assert_eq!(checked.is_ok(), is_taken, "{fields:?}");
    }

    #[test]
    fn forms_of_other_sites_are_refused() {
        let host = ("host", "127.0.0.1:5051");
        check(&[], true);
        check(&[host], true);
        check(&[("sec-fetch-site", "same-origin")], true);
        check(&[("sec-fetch-site", "none")], true);
        check(&[("sec-fetch-site", "cross-site")], false);
        check(&[("sec-fetch-site", "same-site")], false);
        check(&[("sec-fetch-site", "")], false);
        // A proxy may give the host another name; the browser knows better.
        let origin = ("origin", "https://shop.example.org");
        check(&[host, origin, ("sec-fetch-site", "same-origin")], true);
        check(&[host, ("origin", "http://127.0.0.1:5051")], true);
        check(&[host, ("origin", "http://127.0.0.1:5052")], false);
        check(&[host, origin], false);
        check(&[host, ("origin", "null")], false);
        check(&[origin], false);
    }

    #[test]
    fn only_forms_are_read() {
        for (kind, is_form) in [
            ("application/x-www-form-urlencoded", true),
            ("Application/X-WWW-Form-URLEncoded; charset=UTF-8", true),
            ("text/plain", false),
            ("multipart/form-data; boundary=x", false),
            ("application/json", false),
            ("application/x-www-form-urlencodedx", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, kind.parse().expect("a value"));
            assert_eq!(check_type(&headers).is_ok(), is_form, "{kind}");
        }
        assert!(check_type(&HeaderMap::new()).is_err());
    }
}
