//! GET and HEAD: the service's answer, head and bytes, as it is.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, Method};

use super::head::Place;
use crate::core::refusal::Refusal;
use crate::service::{Download, Service};

/// Who gets an answer first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The client itself.
    Client,
    /// A proxy that is trusted.
    Proxy,
}

/// Sends a file, or what its preconditions and ranges make of it.
///
/// The length of a file is always in the answer, so nothing is sent in chunks and a download that
/// breaks is seen to be broken.
pub async fn answer(
    service: &Arc<Service>,
    place: &Place,
    by: By,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, _) = request.into_parts();
    let download = open(service, place, by, &head.method, &head.headers).await?;
    let body = download.body.map_or_else(Body::empty, |content| {
        Body::from_stream(content.into_body())
    });
    let mut response = Response::new(body);
    *response.status_mut() = download.answer.status;
    *response.headers_mut() = download.answer.fields.into_map();
    Ok(response)
}

/// What is to be sent of a file.
pub async fn open(
    service: &Service,
    place: &Place,
    by: By,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Download, Refusal> {
    let (id, name) = place.file().ok_or(Refusal::UnknownFile)?;
    match by {
        By::Client => service.open_file(id, &name, method, headers).await,
        By::Proxy => {
            service
                .open_file_for_proxy(id, &name, method, headers)
                .await
        }
    }
}
