//! A site's router: requests and their answers, without a socket.

use axum::Router;
use axum::body::{Body, Bytes};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use slotd::http::router;
use tower::ServiceExt as _;

use super::site::{self, SIZE, Site, TestSlot, content};

pub type Fields<'a> = &'a [(&'a str, &'a str)];

/// A site and its router.
pub struct Front {
    pub site: Site,
    pub router: Router,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().expect("ASCII"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }
}

impl Front {
    pub fn new() -> Self {
        Self::over(Site::new())
    }

    pub fn over(site: Site) -> Self {
        let router = router(site.0.service.clone(), &site::http());
        Self { site, router }
    }

    pub async fn ask(&self, method: &str, target: &str, fields: Fields<'_>, body: &[u8]) -> Answer {
        let mut request = Request::builder().method(method).uri(target);
        let names_host = fields.iter().any(|(name, _)| *name == "host");
        if !names_host {
            request = request.header("host", "upload.example.org");
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let body = Body::from(body.to_vec());
        self.send(request.body(body).expect("a request")).await
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let is_preflight = request.method() == "OPTIONS";
        let response: Response<Body> = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("infallible");
        let (head, body) = response.into_parts();
        check_common(&head.headers);
        // Nobody looks for it elsewhere. A refusal of OPTIONS says nothing of it either.
        let says_what_may_be = head.headers.contains_key("access-control-allow-methods");
        assert_eq!(says_what_may_be, is_preflight && head.status == 204);
        let body = body.collect().await.expect("a whole body").to_bytes();
        Answer {
            status: head.status,
            headers: head.headers,
            body,
        }
    }

    pub async fn put(&self, slot: &TestSlot, body: &[u8]) -> Answer {
        let length = body.len().to_string();
        let fields = [("content-length", &*length)];
        self.ask("PUT", &slot.put_path(), &fields, body).await
    }

    /// The slot's owner can still upload, and others download.
    pub async fn check_usable(&self, slot: &TestSlot) {
        let answer = self.put(slot, &content(SIZE)).await;
        assert_eq!(answer.status, 201, "the slot's owner is harmed");
        let answer = self.ask("GET", &slot.path, &[], b"").await;
        assert_eq!(
            (answer.status.as_u16(), answer.body),
            (200, content(SIZE).into())
        );
    }
}

/// What every answer carries.
#[track_caller]
fn check_common(headers: &HeaderMap) {
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        (
            "content-security-policy",
            "default-src 'none'; frame-ancestors 'none'; sandbox",
        ),
    ] {
        assert_eq!(headers[name], value);
    }
    assert!(!headers.contains_key("access-control-allow-credentials"));
    assert!(!headers.contains_key("server"));
    assert!(headers.contains_key("cache-control"));
}
