//! What a request that resumes means, and in which protocol it says so.
//!
//! One resource, two protocols: draft-ietf-httpbis-resumable-upload, in those of its versions that
//! clients in the field speak, and tus 1.0.0. Here request heads become one of a closed set of
//! meanings; `fields` reads the values, `answer` writes what comes back.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, Method};

use crate::core::refusal::Refusal;
use crate::core::slot::Sha256;

pub mod answer;
pub mod fields;

/// Which of its incompatible states an implementation of the draft speaks.
pub const INTEROP_VERSION: HeaderName = HeaderName::from_static("upload-draft-interop-version");
/// Whether the request ends the file.
const UPLOAD_COMPLETE: HeaderName = HeaderName::from_static("upload-complete");
/// The same the other way round, in the first version.
const UPLOAD_INCOMPLETE: HeaderName = HeaderName::from_static("upload-incomplete");
/// Where the bytes belong.
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
/// The file's size.
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
/// The version of tus.
const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
/// The only version of tus there is.
const TUS_VERSION: &str = "1.0.0";
/// tus: a digest of a request's bytes.
const UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
/// tus: the method that is meant, from where others than POST do not get through.
const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");

/// What a request says of the bytes after its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Its body ends the file.
    Rest,
    /// More will come, whatever its length.
    Part,
    /// Nothing: the file is complete when all its bytes are there.
    Unsaid,
}

/// A digest of one request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-1, which tus requires.
    Sha1([u8; 20]),
}

/// A protocol in which uploads go on over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The draft's version 01, as iOS 17 speaks it.
    Draft3,
    /// Its version 03.
    Draft5,
    /// Its versions 04 and 05: appends have a media type, limits are told.
    Draft6,
    /// Its versions since 09.
    Draft8,
    /// tus 1.0.0.
    Tus,
}

impl Dialect {
    /// The draft's version that a request names, if it is one we speak.
    fn named(request: &HeaderMap) -> Option<Self> {
        let version = fields::single(request, INTEROP_VERSION).ok()??;
        let drafts = [Self::Draft3, Self::Draft5, Self::Draft6, Self::Draft8];
        drafts
            .into_iter()
            .find(|draft| draft.interop() == Some(&version))
    }

    /// That of a PUT whose client goes on by itself; `None` for a plain PUT, which one with an
    /// unknown version is as well.
    pub fn of_put(request: &HeaderMap) -> Option<Self> {
        let draft = Self::named(request)?;
        request.contains_key(draft.extent_field()).then_some(draft)
    }

    /// That of a request for a resume URL, where the newest draft needs no name.
    pub fn of_resume(request: &HeaderMap) -> Self {
        match request.contains_key(TUS_RESUMABLE) {
            true => Self::Tus,
            false => Self::named(request).unwrap_or(Self::Draft8),
        }
    }

    /// The draft's interop version; none of tus.
    pub fn interop(self) -> Option<&'static str> {
        match self {
            Self::Draft3 => Some("3"),
            Self::Draft5 => Some("5"),
            Self::Draft6 => Some("6"),
            Self::Draft8 => Some("8"),
            Self::Tus => None,
        }
    }

    /// The field that says whether a request ends the file.
    fn extent_field(self) -> HeaderName {
        match self {
            Self::Draft3 => UPLOAD_INCOMPLETE,
            _ => UPLOAD_COMPLETE,
        }
    }

    /// The media type of an append, where it has to have one.
    fn append_type(self) -> Option<&'static str> {
        match self {
            Self::Draft3 | Self::Draft5 => None,
            Self::Draft6 | Self::Draft8 => Some("application/partial-upload"),
            Self::Tus => Some("application/offset+octet-stream"),
        }
    }

    /// What a request says of the bytes after its own, as far as it has to.
    fn extent(self, request: &HeaderMap) -> Result<Extent, Refusal> {
        if self == Self::Tus {
            return Ok(Extent::Unsaid);
        }
        let said = fields::boolean(request, self.extent_field())?;
        match said.map(|said| said != (self == Self::Draft3)) {
            Some(true) => Ok(Extent::Rest),
            Some(false) => Ok(Extent::Part),
            None if self.append_type().is_none() => Ok(Extent::Unsaid),
            None => Err(Refusal::BadRequest),
        }
    }
}

/// A PUT whose client goes on by itself if it is cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creation {
    /// What comes after its bytes.
    pub extent: Extent,
    /// The file's size, where it is said.
    pub upload_length: Option<u64>,
    /// The digest of the whole file.
    pub sha256: Option<Sha256>,
    /// The digest of these bytes, where they are not the whole file.
    pub checksum: Option<Checksum>,
}

/// Reads the head of a PUT in `dialect`. Refuses `BadRequest`, and `PartialPut` for one that is
/// meant for the middle of the file.
pub fn read_creation(dialect: Dialect, request: &HeaderMap) -> Result<Creation, Refusal> {
    if !matches!(fields::number(request, UPLOAD_OFFSET)?, None | Some(0)) {
        return Err(Refusal::PartialPut);
    }
    let extent = dialect.extent(request)?;
    let digests = fields::digests(request)?;
    let (sha256, checksum) = match extent {
        Extent::Part => (digests.of_file, digests.of_body.map(Checksum::Sha256)),
        // What ends the file here is all of it, so both digests are the file's.
        Extent::Rest | Extent::Unsaid => (digests.of_all()?, None),
    };
    Ok(Creation {
        extent,
        upload_length: fields::number(request, UPLOAD_LENGTH)?,
        sha256,
        checksum,
    })
}

/// Bytes for an upload that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// Where they belong.
    pub offset: u64,
    /// What comes after them.
    pub extent: Extent,
    /// The file's size, where it is said.
    pub upload_length: Option<u64>,
    /// The digest of the whole file.
    pub sha256: Option<Sha256>,
    /// The digest of these bytes.
    pub checksum: Option<Checksum>,
}

/// What a request for a resume URL asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Where the upload goes on.
    Offset,
    /// To go on.
    Append(Append),
    /// To give it up.
    Cancel,
}

/// Reads the head of a request for a resume URL.
///
/// Refuses `OtherTusVersion`, `MethodNotAllowed`, `OtherMediaType` and `BadRequest`.
pub fn read(dialect: Dialect, method: &Method, request: &HeaderMap) -> Result<Meaning, Refusal> {
    if dialect == Dialect::Tus {
        check_tus_version(request)?;
    }
    match method_of(dialect, method, request)? {
        Method::HEAD => Ok(Meaning::Offset),
        // The draft's next version asks with GET as well.
        Method::GET if dialect != Dialect::Tus => Ok(Meaning::Offset),
        Method::PATCH => read_append(dialect, request).map(Meaning::Append),
        Method::DELETE => Ok(Meaning::Cancel),
        _ => Err(Refusal::MethodNotAllowed),
    }
}

fn check_tus_version(request: &HeaderMap) -> Result<(), Refusal> {
    match fields::single(request, TUS_RESUMABLE) {
        Ok(Some(version)) if version == TUS_VERSION => Ok(()),
        _ => Err(Refusal::OtherTusVersion),
    }
}

/// The method that is meant: with tus, the one that came may not be the one that was sent.
fn method_of(dialect: Dialect, method: &Method, request: &HeaderMap) -> Result<Method, Refusal> {
    if dialect != Dialect::Tus {
        return Ok(method.clone());
    }
    match fields::single(request, METHOD_OVERRIDE)? {
        Some(name) => Method::from_bytes(name.as_bytes()).map_err(|_| Refusal::BadRequest),
        None => Ok(method.clone()),
    }
}

fn read_append(dialect: Dialect, request: &HeaderMap) -> Result<Append, Refusal> {
    let media_type = fields::single(request, CONTENT_TYPE)?.unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default();
    let is_type = |wanted: &str| {
        essence
            .trim_matches([' ', '\t'])
            .eq_ignore_ascii_case(wanted)
    };
    if !dialect.append_type().is_none_or(is_type) {
        return Err(Refusal::OtherMediaType);
    }
    let offset = fields::number(request, UPLOAD_OFFSET)?;
    let digests = fields::digests(request)?;
    let checksum = match dialect {
        Dialect::Tus => fields::tus_checksum(request, UPLOAD_CHECKSUM)?,
        _ => None,
    };
    Ok(Append {
        offset: offset.ok_or(Refusal::BadRequest)?,
        extent: dialect.extent(request)?,
        upload_length: fields::number(request, UPLOAD_LENGTH)?,
        sha256: digests.of_file,
        checksum: checksum.or(digests.of_body.map(Checksum::Sha256)),
    })
}
