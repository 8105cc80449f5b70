//! What a PUT or DELETE presents in place of a token of ours, and what it lets it do.

use std::time::Duration;

use jid::BareJid;

use super::path::ExternalPath;
use super::{Format, System, jwt, token};
use crate::core::refusal::Refusal;
use crate::core::slot::{ContentType, FileName, SlotId};
use crate::core::time::Timestamp;

/// What `v2` covers where a PUT has no Content-Type.
const NO_CONTENT_TYPE: &str = "application/octet-stream";
/// How long a used path is remembered after its last token expired: a clock may be set back.
const REMEMBER_FOR: Duration = Duration::from_secs(7 * 86_400);
/// The components of a link of ejabberd's; the first is the account, or stands for it.
const COMPONENTS_WITH_OWNER: usize = 3;

/// The tokens that a request carries, by the formats they claim to be of. No `Debug`: they write.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Presented {
    tokens: Vec<(Format, String)>,
    /// What `v3` covers, as it stands in the URL.
    expires: Option<String>,
}

impl Presented {
    /// Reads a query and what stands behind `Bearer` in a header. Parameters that are none of these
    /// are passed over. Refuses `TokenTwice` for one that is given twice.
    pub fn read(query: &str, bearer: Option<&str>) -> Result<Self, Refusal> {
        let bearer = bearer.map(|token| (Format::Jwt, token.to_owned()));
        let mut presented = Self {
            tokens: bearer.into_iter().collect(),
            expires: None,
        };
        let format_of = |name: &str| match name {
            "v2" => Some(Format::V2),
            "token" => Some(Format::Token),
            "v" => Some(Format::V),
            "v3" => Some(Format::V3),
            _ => None,
        };
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let is_new = match (name, format_of(name)) {
                ("expires", _) => presented.expires.replace(value.to_owned()).is_none(),
                (_, None) => true,
                (_, Some(format)) => {
                    let is_new = presented.find(format).is_none();
                    presented.tokens.push((format, value.to_owned()));
                    is_new
                }
            };
            if !is_new {
                return Err(Refusal::TokenTwice);
            }
        }
        Ok(presented)
    }

    /// Whether there is a token of this format.
    pub fn has(&self, format: Format) -> bool {
        self.find(format).is_some()
    }

    fn find(&self, format: Format) -> Option<&str> {
        let found = self.tokens.iter().find(|(it, _)| *it == format);
        found.map(|(_, token)| token.as_str())
    }
}

/// A PUT as its head tells of it, in what tokens cover.
#[derive(Clone, PartialEq, Eq)]
pub struct Put {
    /// Where to.
    pub path: ExternalPath,
    /// By what.
    pub presented: Presented,
    /// The file's size, where it is said.
    pub size_bytes: Option<u64>,
    /// Content-Type, verbatim.
    pub content_type: Option<String>,
}

/// What a token allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The row and the file that it is for.
    pub id: SlotId,
    /// What the file is called.
    pub name: FileName,
    /// Whose file it is: an account, what stands for one, or a domain where none is known.
    pub owner: BareJid,
    /// The file's size; the upload has just this many bytes.
    pub size_bytes: u64,
    /// What the file is served as.
    pub content_type: ContentType,
    /// Whether the token says so, and not the request.
    pub names_type: bool,
    /// When no token for the path can be valid any more; `None` where some may be for ever.
    pub forget_at: Option<Timestamp>,
}

impl System {
    /// The token that counts: of the formats that are accepted the strongest that is there. What is
    /// weaker is not looked at, also when this one is wrong.
    fn strongest<'p>(&self, presented: &'p Presented) -> Option<(Format, &'p str)> {
        let mut formats = self.formats.iter();
        formats.find_map(|format| Some((*format, presented.find(*format)?)))
    }

    /// Opens a PUT's token.
    ///
    /// Refuses `TokenRefused`, alike for one that is missing, of a format that is not accepted,
    /// altered, for another path, size or type, or expired; `LengthMissing` where it needs a size.
    pub fn open(&self, put: &Put, now: Timestamp) -> Result<Grant, Refusal> {
        let (format, token) = self
            .strongest(&put.presented)
            .ok_or(Refusal::TokenRefused)?;
        if format == Format::Jwt {
            return self.open_jwt(put, token, now).ok_or(Refusal::TokenRefused);
        }
        let size_bytes = put.size_bytes.ok_or(Refusal::LengthMissing)?;
        if !self.is_signed(put, format, token) {
            return Err(Refusal::TokenRefused);
        }
        if format == Format::V3 && put.expires_at().is_none_or(|at| at < now) {
            return Err(Refusal::TokenRefused);
        }
        let content_type = put.content_type.as_deref().unwrap_or(NO_CONTENT_TYPE);
        Ok(Grant {
            id: self.id_of(&put.path),
            name: put.path.file_name(),
            owner: self.owner_of(&put.path),
            size_bytes,
            content_type: content_type_of(content_type),
            names_type: false,
            forget_at: None,
        })
    }

    fn open_jwt(&self, put: &Put, token: &str, now: Timestamp) -> Option<Grant> {
        let claims = jwt::open(&self.secret, token)?;
        let path = format!("{}/{}", claims.slot, claims.filename);
        if path != put.path.as_str() || claims.expires_at <= now {
            return None;
        }
        Some(Grant {
            id: self.id_of(&put.path),
            name: put.path.file_name(),
            owner: claims.owner,
            size_bytes: claims.filesize,
            content_type: content_type_of(&claims.filetype.unwrap_or_default()),
            names_type: true,
            forget_at: self.forget_at(claims.expires_at),
        })
    }

    /// Whether nobody signed the token that counts: one that is late, or for another file, was.
    /// Who presents none forges nothing.
    pub fn is_forged(&self, put: &Put) -> bool {
        self.strongest(&put.presented)
            .is_some_and(|(format, token)| !self.is_signed(put, format, token))
    }

    fn is_signed(&self, put: &Put, format: Format, token: &str) -> bool {
        let path = put.path.as_str();
        let message = match (format, put.size_bytes) {
            (Format::Jwt, _) => return jwt::is_signed(&self.secret, token),
            (Format::V3, _) => {
                let expires = put.presented.expires.as_deref().unwrap_or_default();
                let url_path = format!("{}{path}", self.prefix);
                token::v3_message("PUT", expires, &url_path)
            }
            // Nobody can tell.
            (_, None) => return true,
            (Format::V, Some(size_bytes)) => token::v_message(path, size_bytes),
            (Format::V2 | Format::Token, Some(size_bytes)) => {
                let content_type = put.content_type.as_deref().unwrap_or(NO_CONTENT_TYPE);
                token::v2_message(path, size_bytes, content_type)
            }
        };
        token::is_signed(&self.secret, &message, token)
    }

    /// Whether a request may delete the file at `path`.
    ///
    /// Refuses `MethodNotAllowed` where this system deletes nothing, `TokenRefused` to others.
    pub fn check_delete(&self, path: &ExternalPath, presented: &Presented) -> Result<(), Refusal> {
        let delete_secret = self.delete_secret.as_ref().filter(|_| self.deletes());
        let message = token::delete_message(
            path.as_str(),
            delete_secret.ok_or(Refusal::MethodNotAllowed)?,
        );
        let is_signed = |token| token::is_signed(&self.secret, &message, token);
        match presented.find(Format::Token).is_some_and(is_signed) {
            true => Ok(()),
            false => Err(Refusal::TokenRefused),
        }
    }

    /// Whether files can be deleted by their path.
    pub fn deletes(&self) -> bool {
        self.delete_secret.is_some() && self.formats.contains(&Format::Token)
    }

    /// Whose file a path is, where the token does not say it: ejabberd's links begin with the
    /// account's name, or with a digest that stands for it as well.
    pub fn owner_of(&self, path: &ExternalPath) -> BareJid {
        let components = path.components();
        let named = (components.len() == COMPONENTS_WITH_OWNER)
            .then(|| BareJid::new(&format!("{}@{}", components[0], self.domain)).ok());
        // One that holds an `@` or a `/` would be somebody else's.
        let named = named
            .flatten()
            .filter(|it| it.domain() == self.domain.domain());
        named.unwrap_or_else(|| self.domain.clone())
    }

    /// When no token for a path can be good any more whose JWT is good until `expires_at`: each
    /// path has one. Of the others any number may have been made, with any end or none.
    fn forget_at(&self, expires_at: Timestamp) -> Option<Timestamp> {
        let is_jwt = self.formats.iter().all(|format| *format == Format::Jwt);
        is_jwt.then(|| expires_at.plus(REMEMBER_FOR))
    }
}

impl Put {
    /// Digits alone.
    fn expires_at(&self) -> Option<Timestamp> {
        let text = self.presented.expires.as_deref()?;
        let is_number = text.bytes().all(|b| b.is_ascii_digit());
        is_number
            .then(|| text.parse().ok().map(Timestamp))
            .flatten()
    }
}

/// What a file is served as; what is no media type is nothing that anybody knows.
fn content_type_of(text: &str) -> ContentType {
    ContentType::parse(text).unwrap_or_else(|_| ContentType::octet_stream())
}
