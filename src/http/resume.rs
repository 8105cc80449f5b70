//! HEAD, PATCH and DELETE of resume URLs: how far an upload is, going on with it, giving it up.
//!
//! Whoever has the URL may; it needs no token. `core::resume` knows the protocols.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;

use super::{put, reply};
use crate::core::refusal::Refusal;
use crate::core::resume::{Append, Dialect, Meaning, answer, read};
use crate::core::session::network::Visitor;
use crate::service::Service;
use crate::service::upload::{Beginning, Credential, Upload};

/// Answers a request for the upload that `sealed` names.
pub async fn answer(
    service: &Arc<Service>,
    sealed: String,
    dialect: Dialect,
    visitor: Visitor,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let asked = match ask(&head, dialect) {
        Ok(asked) => asked,
        Err(refusal) => {
            service.check_resume_url(&sealed).await?;
            return Err(refusal);
        }
    };
    let answer = match asked {
        Asked::Offset => {
            let received = service.find_offset(&sealed, &visitor).await?;
            answer::offset(dialect, &put::told(&received))
        }
        Asked::Append(append, length) => {
            let upload = upload(sealed, append, length, visitor);
            let received = service.receive(upload, put::content(body)).await?;
            answer::appended(dialect, &put::told(&received))
        }
        Asked::Cancel => {
            service.cancel_upload(&sealed).await?;
            answer::cancelled(dialect)
        }
    };
    Ok(reply::bare(answer))
}

/// What the head asks for, checked.
enum Asked {
    Offset,
    /// With the body's length, where it is known.
    Append(Append, Option<u64>),
    Cancel,
}

fn ask(head: &Parts, dialect: Dialect) -> Result<Asked, Refusal> {
    Ok(match read(dialect, &head.method, &head.headers)? {
        Meaning::Offset => Asked::Offset,
        Meaning::Cancel => Asked::Cancel,
        Meaning::Append(append) => {
            put::check_plain(&head.headers)?;
            let length = match put::length(&head.headers) {
                // RFC 9112 #6.3: then there is no body, and some clients do not say so.
                Err(Refusal::LengthMissing) => Some(0),
                length => length?,
            };
            Asked::Append(append, length)
        }
    })
}

fn upload(sealed: String, append: Append, length: Option<u64>, visitor: Visitor) -> Upload {
    Upload {
        credential: Credential::Resume(sealed),
        beginning: Beginning::At(append.offset),
        extent: append.extent,
        length,
        upload_length: append.upload_length,
        // Those of an append say nothing of the file's.
        content_type: None,
        sha256: None,
        checksum: append.checksum,
        is_resumable: true,
        visitor,
        on_begun: None,
    }
}
