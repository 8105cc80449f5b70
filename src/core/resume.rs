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
        upload_length: fields::upload_length(request)?,
        sha256,
        checksum,
    })
}

/// Bytes for an upload that has begun.
///
/// Its Repr-Digest is not read: in a PATCH that is the digest of what is sent (RFC 9530 #3.1),
/// and some would mean the file's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// Where they belong.
    pub offset: u64,
    /// What comes after them.
    pub extent: Extent,
    /// The file's size, where it is said.
    pub upload_length: Option<u64>,
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
    let digest = fields::digest_of_body(request)?;
    let checksum = match dialect {
        Dialect::Tus => fields::tus_checksum(request, UPLOAD_CHECKSUM)?,
        _ => None,
    };
    Ok(Append {
        offset: offset.ok_or(Refusal::BadRequest)?,
        extent: dialect.extent(request)?,
        upload_length: fields::upload_length(request)?,
        checksum: checksum.or(digest.map(Checksum::Sha256)),
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const DIGEST: &str = "sha-256=:CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=:";

    fn fields(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().expect("a field name");
            headers.append(name, HeaderValue::from_str(value).expect("a field value"));
        }
        headers
    }

    #[test]
    fn dialects_of_puts() {
        let version = |version| ("upload-draft-interop-version", version);
        let whole = ("upload-complete", "?1");
        for (said, dialect) in [
            ("5", Dialect::Draft5),
            ("6", Dialect::Draft6),
            ("8", Dialect::Draft8),
        ] {
            let request = fields(&[version(said), whole]);
            assert_eq!(Dialect::of_put(&request), Some(dialect));
            assert_eq!(Dialect::of_put(&fields(&[version(said)])), None);
        }
        let old = fields(&[version("3"), ("upload-incomplete", "?0")]);
        assert_eq!(Dialect::of_put(&old), Some(Dialect::Draft3));
        assert_eq!(Dialect::of_put(&fields(&[version("3"), whole])), None);
        assert_eq!(Dialect::of_put(&fields(&[whole])), None);
        for unknown in ["", "0", "2", "4", "7", "9", "08", "8 ", "8;a", "?8", "8, 8"] {
            let request = fields(&[version(unknown), whole]);
            assert_eq!(Dialect::of_put(&request), None, "{unknown}");
        }
        let twice = fields(&[version("8"), version("8"), whole]);
        assert_eq!(Dialect::of_put(&twice), None);
    }

    #[test]
    fn dialects_of_resume_urls() {
        let version = |version| ("upload-draft-interop-version", version);
        let tus = ("tus-resumable", "1.0.0");
        for (said, dialect) in [
            (&[][..], Dialect::Draft8),
            (&[version("3")], Dialect::Draft3),
            (&[version("9")], Dialect::Draft8),
            (&[tus], Dialect::Tus),
            (&[version("6"), tus], Dialect::Tus),
            (&[("tus-resumable", "")], Dialect::Tus),
        ] {
            assert_eq!(Dialect::of_resume(&fields(said)), dialect, "{said:?}");
        }
    }

    #[track_caller]
    fn check(dialect: Dialect, said: &[(&str, &str)], extent: Result<Extent, Refusal>) {
        let mut all = vec![("upload-offset", "7")];
        if let Some(media_type) = dialect.append_type() {
            all.push(("content-type", media_type));
        }
        if dialect == Dialect::Tus {
            all.push(("tus-resumable", "1.0.0"));
        }
        all.extend(said);
        let got = read(dialect, &Method::PATCH, &fields(&all));
        let got = got.map(|meaning| match meaning {
            Meaning::Append(append) => (append.offset, append.extent),
            other => panic!("{other:?}"),
        });
        assert_eq!(
            got,
            extent.map(|extent| (7, extent)),
            "{dialect:?} {said:?}"
        );
    }

    #[test]
    fn whether_an_append_ends_the_file() {
        let complete = |value| [("upload-complete", value)];
        let incomplete = |value| [("upload-incomplete", value)];
        for draft in [Dialect::Draft5, Dialect::Draft6, Dialect::Draft8] {
            check(draft, &complete("?1"), Ok(Extent::Rest));
            check(draft, &complete("?0"), Ok(Extent::Part));
            for bad in [
                "", "1", "?2", "?", "yes", "true", "?1, ?1", "?1;a", " ?1", "??1",
            ] {
                check(draft, &complete(bad), Err(Refusal::BadRequest));
            }
            let twice = [complete("?1"), complete("?1")].concat();
            check(draft, &twice, Err(Refusal::BadRequest));
        }
        check(Dialect::Draft3, &incomplete("?0"), Ok(Extent::Rest));
        check(Dialect::Draft3, &incomplete("?1"), Ok(Extent::Part));
        check(Dialect::Draft3, &incomplete("no"), Err(Refusal::BadRequest));
        check(Dialect::Draft3, &complete("?0"), Ok(Extent::Unsaid));
        check(Dialect::Draft5, &[], Ok(Extent::Unsaid));
        check(Dialect::Draft6, &[], Err(Refusal::BadRequest));
        check(Dialect::Draft8, &[], Err(Refusal::BadRequest));
        check(Dialect::Tus, &complete("?0"), Ok(Extent::Unsaid));
    }

    #[test]
    fn creations() {
        let read = |said: &[(&str, &str)]| read_creation(Dialect::Draft8, &fields(said));
        let whole = ("upload-complete", "?1");
        let part = ("upload-complete", "?0");
        let sum = Some(Sha256([9; 32]));
        let creation = read(&[whole, ("upload-length", "5"), ("content-digest", DIGEST)]);
        let expected = Creation {
            extent: Extent::Rest,
            upload_length: Some(5),
            sha256: sum,
            checksum: None,
        };
        assert_eq!(creation, Ok(expected));
        let creation = read(&[part, ("content-digest", DIGEST)]).expect("read");
        let checksum = sum.map(Checksum::Sha256);
        assert_eq!((creation.sha256, creation.checksum), (None, checksum));
        let creation = read(&[part, ("repr-digest", DIGEST)]).expect("read");
        assert_eq!((creation.sha256, creation.checksum), (sum, None));
        assert!(read(&[whole, ("upload-offset", "0")]).is_ok());
        let middle = read(&[whole, ("upload-offset", "1")]);
        assert_eq!(middle, Err(Refusal::PartialPut));
        let length = read(&[whole, ("upload-length", "-1")]);
        assert_eq!(length, Err(Refusal::BadRequest));
    }

    #[test]
    fn methods_and_what_overrides_them() {
        let tus = ("tus-resumable", "1.0.0");
        let over = |method| ("x-http-method-override", method);
        let read_as = |dialect, method: &str, said: &[(&str, &str)]| {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            read(dialect, &method, &fields(said))
        };
        let (draft, no) = (Dialect::Draft8, Err(Refusal::MethodNotAllowed));
        assert_eq!(read_as(draft, "HEAD", &[]), Ok(Meaning::Offset));
        assert_eq!(read_as(draft, "GET", &[]), Ok(Meaning::Offset));
        assert_eq!(read_as(draft, "DELETE", &[]), Ok(Meaning::Cancel));
        assert_eq!(read_as(draft, "POST", &[over("DELETE")]), no);
        let tus_as = |method, over| read_as(Dialect::Tus, method, &[tus, over]);
        assert_eq!(tus_as("POST", over("DELETE")), Ok(Meaning::Cancel));
        assert_eq!(tus_as("DELETE", over("HEAD")), Ok(Meaning::Offset));
        for other in ["delete", "PUT", "GET", "POST"] {
            assert_eq!(tus_as("POST", over(other)), no, "{other}");
        }
        let bad = Err(Refusal::BadRequest);
        assert_eq!(tus_as("POST", over("")), bad);
        let twice = [tus, over("HEAD"), over("DELETE")];
        assert_eq!(read_as(Dialect::Tus, "POST", &twice), bad);
        for version in ["1.0", "0.2.2", "1.0.0, 1.0.0", ""] {
            let said = [("tus-resumable", version)];
            let got = read_as(Dialect::Tus, "HEAD", &said);
            assert_eq!(got, Err(Refusal::OtherTusVersion), "{version}");
        }
        let twice = read_as(Dialect::Tus, "HEAD", &[tus, tus]);
        assert_eq!(twice, Err(Refusal::OtherTusVersion));
    }

    #[test]
    fn media_types_of_appends() {
        let append = |dialect, media_type: &str| {
            let said = [
                ("content-type", media_type),
                ("upload-offset", "0"),
                ("upload-complete", "?1"),
                ("tus-resumable", "1.0.0"),
            ];
            read(dialect, &Method::PATCH, &fields(&said)).map(drop)
        };
        let (partial, tus) = (
            "application/partial-upload",
            "application/offset+octet-stream",
        );
        let other = Err(Refusal::OtherMediaType);
        for draft in [Dialect::Draft6, Dialect::Draft8] {
            assert_eq!(append(draft, partial), Ok(()));
            assert_eq!(append(draft, "Application/Partial-Upload ; a=b"), Ok(()));
            assert_eq!(append(draft, tus), other);
            assert_eq!(append(draft, ""), other);
            assert_eq!(append(draft, "application/partial-uploads"), other);
        }
        assert_eq!(append(Dialect::Tus, tus), Ok(()));
        assert_eq!(append(Dialect::Tus, partial), other);
        for draft in [Dialect::Draft3, Dialect::Draft5] {
            assert_eq!(append(draft, "video/mp4"), Ok(()));
        }
    }
}
