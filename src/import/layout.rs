//! How the servers keep their files, and how it shows whose directory somebody named.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use clap::ValueEnum;
use rustix::fs::Dir;
use rustix::io::Errno;

use crate::import::tree::{self, Directory};

/// The archive of mod_http_file_share, and the directory of its files.
pub const ARCHIVE: &str = "uploads.list";
pub const SHARE: &str = "http_file_share";

/// Names that are looked at to tell whose directory it is.
const LOOK_MAX: usize = 1000;

/// A server, by how it keeps its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// Each file at the path of its link.
    ProsodyFiler,
    /// The same; uploads that are under way end in `.tmp`.
    HmacFileServer,
    /// Files by slot, and what is known of them in an archive.
    #[value(name = "mod_http_file_share")]
    ModHttpFileShare,
    /// Each file at the path of its link, which has three components.
    Ejabberd,
}

impl Layout {
    /// Its server's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ProsodyFiler => "prosody-filer",
            Self::HmacFileServer => "hmac-file-server",
            Self::ModHttpFileShare => "mod_http_file_share",
            Self::Ejabberd => "ejabberd",
        }
    }

    /// Why a file at `path` has no link, if it has none.
    pub fn objection(self, path: &str) -> Option<&'static str> {
        match self {
            Self::Ejabberd if path.split('/').count() != 3 => {
                Some("not at ACCOUNT/RANDOM/FILE, where ejabberd keeps files")
            }
            Self::HmacFileServer if path.ends_with(".tmp") => Some("an upload under way"),
            _ => None,
        }
    }
}

/// Looks whose directory it is; where that is unclear, the end of a sentence.
pub fn recognize(root: &Directory) -> Result<Layout, String> {
    let unreadable = |e: Errno| format!("cannot be read: {e}");
    let (mut n_seen, mut n_uuids, mut n_digests) = (0, 0, 0);
    for entry in Dir::read_from(root).map_err(unreadable)?.take(LOOK_MAX) {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_bytes();
        if [ARCHIVE.as_bytes(), SHARE.as_bytes()].contains(&name) {
            return Ok(Layout::ModHttpFileShare);
        }
        if name.starts_with(b".") {
            continue;
        }
        if is_host_with_share(root, name) {
            let host = String::from_utf8_lossy(name).into_owned();
            return Err(format!(
                "holds the hosts of a Prosody: name the one with the uploads, which is in {host:?}"
            ));
        }
        n_seen += 1;
        n_uuids += usize::from(is_uuid(name));
        n_digests += usize::from(is_digest(name));
    }
    match n_seen {
        0 => Err("is empty".to_owned()),
        _ if n_seen == n_uuids => Ok(Layout::ProsodyFiler),
        _ if n_seen == n_digests => Ok(Layout::Ejabberd),
        _ => Err("looks like no server's that is known: say whose it is with --from".to_owned()),
    }
}

/// Whether `name` is where a Prosody keeps all of a host, uploads among it.
fn is_host_with_share(root: &Directory, name: &[u8]) -> bool {
    let host = tree::open_within(root, OsStr::from_bytes(name));
    host.is_ok_and(|host| tree::open_within(&host, OsStr::new(SHARE)).is_ok())
}

/// As mod_http_upload_external names a slot.
fn is_uuid(name: &[u8]) -> bool {
    let is_dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    let mut bytes = name.iter().enumerate();
    name.len() == 36
        && bytes.all(|(at, b)| match is_dash(at) {
            true => *b == b'-',
            false => b.is_ascii_hexdigit(),
        })
}

/// As ejabberd names an account: by its SHA-1.
fn is_digest(name: &[u8]) -> bool {
    name.len() == 40 && name.iter().all(u8::is_ascii_hexdigit)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const UUID: &str = "a1b2c3d4-0000-4000-8000-0123456789ab";
    const DIGEST: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

    fn seen(paths: &[&str]) -> Result<Layout, String> {
        let dir = tempfile::tempdir().expect("a directory");
        for path in paths {
            fs::create_dir_all(dir.path().join(path)).expect("made");
        }
        recognize(&tree::open(dir.path()).expect("opened"))
    }

    #[test]
    fn servers_are_recognized_by_their_names() {
        assert_eq!(seen(&[UUID]), Ok(Layout::ProsodyFiler));
        assert_eq!(seen(&[DIGEST, ".hidden"]), Ok(Layout::Ejabberd));
        assert_eq!(seen(&["uploads.list"]), Ok(Layout::ModHttpFileShare));
        let share = ["accounts", "http_file_share"];
        assert_eq!(seen(&share), Ok(Layout::ModHttpFileShare));
        for (paths, words) in [
            (&[][..], "is empty"),
            (&[UUID, DIGEST], "--from"),
            (&["photos"], "--from"),
            (&["share%2eexample/http_file_share"], "share%2eexample"),
        ] {
            let unclear = seen(paths).expect_err("unclear");
            assert!(unclear.contains(words), "{unclear}");
        }
    }

    #[test]
    fn what_has_no_link_is_told() {
        for (layout, path, has_link) in [
            (Layout::ProsodyFiler, "a/b.tmp", true),
            (Layout::HmacFileServer, "a/b.jpg", true),
            (Layout::HmacFileServer, "a/b.tmp", false),
            (Layout::Ejabberd, "a/b/c", true),
            (Layout::Ejabberd, "a/c", false),
        ] {
            assert_eq!(layout.objection(path).is_none(), has_link, "{path}");
        }
    }
}
