//! Every "no": one variant a case, one row a variant, with its faces for XMPP and for HTTP.
//!
//! Both edges read the same row, so a rule has one condition, one status and one sentence. Words
//! are for people and hold no name, path or secret. XEP-0363 #errors; RFC 9110 #15.5.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType};

use crate::core::command::fault::CommandFault;
use crate::core::relay::fault::RelayFault;
use crate::core::session::FailReason;
use crate::core::time::Timestamp;

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Refusal {
    // Slot requests
    /// The file name is missing, empty, a path, or holds control characters.
    BadFileName,
    /// The size is missing or no positive whole number.
    BadSize,
    /// The content type is no media type.
    BadContentType,
    /// The purpose is unknown, given twice, or its time is over or unreadable.
    BadPurpose,
    /// The stanza is not what its type or its payload promises.
    BadStanza,
    /// The requester may not use this service.
    NotAllowed,
    /// A relay asks for somebody whose address it does not tell.
    UnnamedRequester,
    /// The file is larger than any slot (XEP-0363 #errors).
    FileTooLarge {
        /// The largest size a slot is given for, in bytes.
        size_bytes_max: u64,
    },
    /// The requester, their domain or all together have used up the window's bytes.
    QuotaReached {
        /// When the same request has a chance again.
        retry_at: Timestamp,
    },
    /// Too many slots or bytes were asked for in a short time.
    SlotRateReached {
        /// When the same request has a chance again.
        retry_at: Timestamp,
    },
    /// There is no room for the file, or no inode.
    StorageFull {
        /// When to ask again.
        retry_at: Timestamp,
    },
    /// No such thing is offered here.
    UnknownPayload,
    /// Nothing is at this address or node.
    UnknownNode,

    // Tokens
    /// No credential came with the request.
    TokenMissing,
    /// The credential is not ours, was altered, is of another generation or too old.
    TokenInvalid,
    /// The credential is good, and for something else than this request.
    TokenForOther,
    /// Two credentials that differ came with one request.
    TokenTwice,
    /// The request has no token of another system's that is good for it.
    TokenRefused,

    // Uploads
    /// Fewer bytes were sent or announced than the slot is for.
    TooShort,
    /// More bytes were sent or announced than the slot is for.
    TooLong,
    /// Neither Content-Length nor chunked coding.
    LengthMissing,
    /// A PUT of a part of a file (RFC 9110 #14.5).
    PartialPut,
    /// A content coding that would change the file.
    ContentEncoded,
    /// The media type differs from the slot's, and `limits.check_content_type` is on.
    OtherContentType,
    /// The bytes do not have the digest that the request announced (RFC 9530).
    DigestMismatch,
    /// The upload is complete, with other bytes.
    AlreadyComplete,
    /// The upload was cancelled, has failed or has expired.
    Gone,
    /// A newer request of the same slot took over.
    TakenOver,
    /// The bytes stopped coming, or came too slowly.
    Stalled,
    /// The connection ended before the body did.
    Interrupted,
    /// An append elsewhere than at the durable offset.
    OtherOffset {
        /// Where the next byte belongs.
        offset: u64,
    },
    /// Too many attempts ended where they began, or too many replays.
    TooManyStarts {
        /// How long to wait.
        retry_in: Duration,
    },
    /// The upload's place has no room, whatever the slot promised.
    NoSpace,

    // Downloads and HTTP at large
    /// No file is at this URL, or not yet, or no longer.
    UnknownFile,
    /// The request's framing or fields cannot be understood.
    BadRequest,
    /// A precondition in the request does not hold (RFC 9110 #13.1).
    PreconditionFailed,
    /// The method is not for this resource.
    MethodNotAllowed,
    /// An expectation other than 100-continue.
    UnknownExpectation,
    /// The Host field names another service.
    OtherHost,
    /// The request's target is too long.
    TargetTooLong,
    /// The request's fields are too many or too large.
    FieldsTooLarge,
    /// A transfer coding other than chunked.
    UnknownTransferCoding,
    /// Too many connections or requests from one address.
    TooManyRequests {
        /// How long to wait.
        retry_in: Duration,
    },
    /// The address, the account or its domain is banned.
    Banned {
        /// Until when; `None` is for ever.
        until: Option<Timestamp>,
    },
    /// The service is stopping.
    Stopping,

    // Upload sessions, over IQ
    /// There is no such upload session, or it is somebody else's.
    UnknownSession,
    /// The upload session's time is over.
    SessionExpired,
    /// The upload session was cancelled.
    SessionCancelled,
    /// The upload session has failed.
    SessionFailed {
        /// Why.
        reason: FailReason,
    },
    /// The upload session is complete: there is nothing to cancel.
    SessionComplete,
    /// The upload session was refreshed as often as it may be.
    RefreshLimitReached {
        /// How often that is.
        limit: u8,
    },
    /// The upload session was refreshed just now.
    RefreshTooSoon {
        /// When it may be again.
        retry_at: Timestamp,
    },
    /// The requester has as many open upload sessions as they may.
    TooManySessions {
        /// How many that is.
        limit: u32,
        /// When to ask again.
        retry_at: Timestamp,
    },

    // Resuming, over HTTP
    /// The resume URL has to be refreshed by its owner first.
    CredentialExpired,
    /// Lengths that contradict each other or the slot.
    InconsistentLength,
    /// The media type is not that of an append.
    OtherMediaType,
    /// The checksum does not fit the bytes of an append (tus).
    ChecksumMismatch,
    /// A version of tus other than 1.0.0.
    OtherTusVersion,

    // Operators
    /// A stage of a command (XEP-0050).
    #[strum(transparent)]
    Command(CommandFault),
    /// No slots are given out for now: an operator said so, or the service is being stopped.
    Draining {
        /// When to ask again.
        retry_at: Timestamp,
        /// What an operator wants everybody to know.
        note: Option<Box<str>>,
    },

    // The relay
    /// What is not relayed.
    #[strum(transparent)]
    Relay(RelayFault),

    // Trouble of our own
    /// Something broke on our side; the log says what.
    Broken,
}

/// The application element beside a condition; its content comes from the variant's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    /// The condition alone.
    None,
    /// `<file-too-large><max-file-size/></file-too-large>`
    FileTooLarge,
    /// `<retry stamp=''/>`
    Retry,
    /// `<bad-action/>` and the like: an element of XEP-0050 with this name.
    Command(&'static str),
    /// `<unknown-session/>` and the like: an element of our own with this name.
    Session(&'static str),
    /// `<session-failed reason=''/>`
    SessionFailed,
    /// `<refresh-limit-reached limit=''/>`
    RefreshLimit,
    /// `<sessions-limit-reached limit=''><retry stamp=''/></sessions-limit-reached>`
    SessionsLimit,
}

/// The faces of a refusal.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The stanza error's condition (RFC 6120 #8.3.3).
    pub condition: DefinedCondition,
    /// What the requester may do about it (RFC 6120 #8.3.2).
    pub kind: ErrorType,
    /// The application element: XEP-0363 #errors, or our own.
    pub app: App,
    /// The HTTP status.
    pub status: StatusCode,
    /// One short sentence for a person.
    pub text: &'static str,
}

impl Refusal {
    /// The refusal's row.
    #[rustfmt::skip]
    pub fn row(&self) -> Row {
        use DefinedCondition as C;
        use ErrorType::{Auth, Cancel, Modify, Wait};
        match self {
            Self::BadFileName            => row(C::BadRequest,          Modify, App::None,         400, "The file name is missing or not usable"),
            Self::BadSize                => row(C::BadRequest,          Modify, App::None,         400, "The size must be a positive whole number of bytes"),
            Self::BadContentType         => row(C::BadRequest,          Modify, App::None,         400, "The content type is not a media type"),
            Self::BadPurpose             => row(C::BadRequest,          Modify, App::None,         400, "The purpose is unknown or its time is not usable"),
            Self::BadStanza              => row(C::BadRequest,          Modify, App::None,         400, "The request is malformed"),
            Self::NotAllowed             => row(C::Forbidden,           Auth,   App::None,         403, "You may not upload files here"),
            Self::UnnamedRequester       => row(C::JidMalformed,        Modify, App::None,         400, "Your address cannot be told to this service, try a shorter resource"),
            Self::FileTooLarge { .. }    => row(C::NotAcceptable,       Modify, App::FileTooLarge, 413, "The file is too large"),
            Self::QuotaReached { .. }    => row(C::ResourceConstraint,  Wait,   App::Retry,        429, "The upload quota is used up, try again later"),
            Self::SlotRateReached { .. } => row(C::ResourceConstraint,  Wait,   App::Retry,        429, "Too many uploads in a short time, try again later"),
            Self::StorageFull { .. }     => row(C::ResourceConstraint,  Wait,   App::Retry,        507, "The storage is full, try again later"),
            Self::UnknownPayload         => row(C::ServiceUnavailable,  Cancel, App::None,         404, "This is not offered here"),
            Self::UnknownNode            => row(C::ItemNotFound,        Cancel, App::None,         404, "There is nothing at this address"),

            Self::TokenMissing           => row(C::NotAuthorized,       Auth,   App::None,         401, "An upload token is needed"),
            Self::TokenInvalid           => row(C::NotAuthorized,       Auth,   App::None,         401, "The upload token is not valid or no longer valid"),
            Self::TokenForOther          => row(C::Forbidden,           Auth,   App::None,         403, "The upload token is for another upload"),
            Self::TokenTwice             => row(C::BadRequest,          Modify, App::None,         400, "The request carries two upload tokens"),
            Self::TokenRefused           => row(C::Forbidden,           Auth,   App::None,         403, "The upload token is missing, or not valid for this upload"),
            Self::TooShort               => row(C::BadRequest,          Modify, App::None,         400, "The body is shorter than the upload slot"),
            Self::TooLong                => row(C::NotAcceptable,       Modify, App::None,         413, "The body is longer than the upload slot"),
            Self::LengthMissing          => row(C::BadRequest,          Modify, App::None,         411, "The length of the body is needed"),
            Self::PartialPut             => row(C::BadRequest,          Modify, App::None,         400, "Parts of a file cannot be sent with PUT"),
            Self::ContentEncoded         => row(C::NotAcceptable,       Modify, App::None,         415, "The body must not have a content coding"),
            Self::OtherContentType       => row(C::NotAcceptable,       Modify, App::None,         415, "The content type is not the one of the upload slot"),
            Self::DigestMismatch         => row(C::NotAcceptable,       Modify, App::None,         422, "The body does not have the digest that was announced"),
            Self::AlreadyComplete        => row(C::Conflict,            Cancel, App::None,         409, "The upload is complete and cannot be changed"),
            Self::Gone                   => row(C::ItemNotFound,        Cancel, App::None,         410, "The upload has ended"),
            Self::TakenOver              => row(C::Conflict,            Cancel, App::None,         409, "A newer request took this upload over"),
            Self::Stalled                => row(C::ResourceConstraint,  Wait,   App::None,         408, "The body came too slowly"),
            Self::Interrupted            => row(C::BadRequest,          Modify, App::None,         400, "The body ended too early"),
            Self::OtherOffset { .. }     => row(C::Conflict,            Cancel, App::None,         409, "The upload goes on at another offset"),
            Self::TooManyStarts { .. }   => row(C::ResourceConstraint,  Wait,   App::None,         429, "Too many attempts at this upload, try again later"),
            Self::NoSpace                => row(C::ResourceConstraint,  Wait,   App::None,         507, "The storage is full, try again later"),
            Self::UnknownFile            => row(C::ItemNotFound,        Cancel, App::None,         404, "There is no such file"),
            Self::BadRequest             => row(C::BadRequest,          Modify, App::None,         400, "The request is malformed"),
            Self::PreconditionFailed     => row(C::Conflict,            Cancel, App::None,         412, "A precondition does not hold"),
            Self::MethodNotAllowed       => row(C::NotAllowed,          Cancel, App::None,         405, "This method is not offered here"),
            Self::UnknownExpectation     => row(C::BadRequest,          Modify, App::None,         417, "This expectation is not supported"),
            Self::OtherHost              => row(C::ItemNotFound,        Cancel, App::None,         421, "This host is not served here"),
            Self::TargetTooLong          => row(C::BadRequest,          Modify, App::None,         414, "The address is too long"),
            Self::FieldsTooLarge         => row(C::BadRequest,          Modify, App::None,         431, "The header is too large"),
            Self::UnknownTransferCoding  => row(C::BadRequest,          Modify, App::None,         501, "This transfer coding is not supported"),
            Self::TooManyRequests { .. } => row(C::ResourceConstraint,  Wait,   App::None,         429, "Too many requests, try again later"),
            Self::Banned { .. }          => row(C::Forbidden,           Auth,   App::None,         403, "You are banned from this service"),
            Self::Stopping               => row(C::ResourceConstraint,  Wait,   App::None,         503, "The service is restarting, try again"),

            Self::UnknownSession         => row(C::ItemNotFound,        Cancel, App::Session("unknown-session"),   404, "There is no such upload session"),
            Self::SessionExpired         => row(C::ItemNotFound,        Cancel, App::Session("session-expired"),   410, "The upload session has expired"),
            Self::SessionCancelled       => row(C::ItemNotFound,        Cancel, App::Session("session-cancelled"), 410, "The upload session was cancelled"),
            Self::SessionFailed { .. }   => row(C::NotAcceptable,       Cancel, App::SessionFailed, 410, "The upload session has failed"),
            Self::SessionComplete        => row(C::Conflict,            Cancel, App::Session("session-complete"),  409, "The upload session is complete"),
            Self::RefreshLimitReached { .. } => row(C::NotAllowed,      Cancel, App::RefreshLimit, 403, "The upload session cannot be refreshed any more"),
            Self::RefreshTooSoon { .. }  => row(C::ResourceConstraint,  Wait,   App::Retry,        429, "The upload session was refreshed just now, try again later"),
            Self::TooManySessions { .. } => row(C::ResourceConstraint,  Wait,   App::SessionsLimit, 429, "Too many upload sessions are open, try again later"),
            Self::CredentialExpired      => row(C::NotAuthorized,       Auth,   App::None,         403, "The upload has to be refreshed over XMPP before it goes on"),
            Self::InconsistentLength     => row(C::BadRequest,          Modify, App::None,         400, "The lengths contradict each other or the upload slot"),
            Self::OtherMediaType         => row(C::NotAcceptable,       Modify, App::None,         415, "The content type is not that of an append"),
            Self::ChecksumMismatch       => row(C::NotAcceptable,       Modify, App::None,         460, "The checksum does not fit the bytes"),
            Self::OtherTusVersion        => row(C::NotAcceptable,       Modify, App::None,         412, "This version of tus is not supported"),
            Self::Command(fault)         => fault.row(),
            Self::Relay(fault)           => fault.row(),
            Self::Draining { .. }        => row(C::ResourceConstraint,  Wait,   App::Retry,        503, "No uploads are taken just now, try again later"),
            Self::Broken                 => row(C::InternalServerError, Wait,   App::None,         500, "Something went wrong here, try again later"),
        }
    }

    /// The row's sentence, and what an operator has to say to it.
    pub fn words(&self) -> Cow<'static, str> {
        let text = self.row().text;
        match self {
            Self::Draining {
                note: Some(note), ..
            } => format!("{text}: {note}").into(),
            _ => text.into(),
        }
    }

    /// The problem type for `application/problem+json` (RFC 9457), where there is a name for it.
    pub fn problem_type(&self) -> &'static str {
        match self {
            Self::OtherOffset { .. } => {
                "https://iana.org/assignments/http-problem-types#mismatching-upload-offset"
            }
            Self::InconsistentLength => {
                "https://iana.org/assignments/http-problem-types#inconsistent-upload-length"
            }
            Self::CredentialExpired => "urn:slotd:problem:credential-expired",
            Self::AlreadyComplete => "urn:slotd:problem:already-complete",
            Self::Banned { .. } => "urn:slotd:problem:banned",
            _ => "about:blank",
        }
    }

    /// When the requester may try again, where the refusal knows.
    pub fn retry_at(&self) -> Option<Timestamp> {
        match self {
            Self::QuotaReached { retry_at }
            | Self::SlotRateReached { retry_at }
            | Self::StorageFull { retry_at }
            | Self::RefreshTooSoon { retry_at }
            | Self::Draining { retry_at, .. }
            | Self::TooManySessions { retry_at, .. } => Some(*retry_at),
            Self::Banned { until } => *until,
            _ => None,
        }
    }

    /// How long an HTTP client shall wait, for `Retry-After`, where the refusal knows.
    pub fn retry_in(&self) -> Option<Duration> {
        match self {
            Self::TooManyStarts { retry_in } | Self::TooManyRequests { retry_in } => {
                Some(*retry_in)
            }
            // COMPAT(OkHttp, 2026): repeats a request once by itself at `Retry-After: 0`.
            Self::Stopping => Some(Duration::ZERO),
            _ => None,
        }
    }
}

pub(super) fn row(
    condition: DefinedCondition,
    kind: ErrorType,
    app: App,
    status: u16,
    text: &'static str,
) -> Row {
    let status = StatusCode::from_u16(status).expect("the table holds valid statuses");
    Row {
        condition,
        kind,
        app,
        status,
        text,
    }
}
