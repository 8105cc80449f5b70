//! Whether a directory is fit to hold other people's files: one judgement for whoever looks at it
//! (`slotd check`) and for whoever opens it (the store).

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::Access;

use super::error::Problem;

/// Bits of a mode that let everybody write.
const MODE_OTHERS_WRITE: u32 = 0o002;
const ROOT: u32 = 0;

/// Judges what is at `dir`, and returns it; `None` where there is nothing.
///
/// A link may stand for the directory where root or we made it: systemd's `DynamicUser` makes one.
/// What it points at is judged. The problem goes on from the directory's name: "is ...".
pub fn judge(dir: &Path, wanted: Access) -> Result<Option<Metadata>, Problem> {
    let ours = rustix::process::geteuid().as_raw();
    let unseen = |error: io::Error| {
        let what = format!("cannot be looked at: {error}");
        Err(Problem::new(what, "name a directory that slotd can reach"))
    };
    let is_link = match fs::symlink_metadata(dir) {
        Ok(link) if link.is_symlink() => {
            trust_link(link.uid(), ours)?;
            true
        }
        Ok(_) => false,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return unseen(error),
    };
    let seen = match fs::metadata(dir) {
        Ok(seen) => seen,
        Err(error) if error.kind() == ErrorKind::NotFound && is_link => {
            return Err(Problem::new(
                "is a symbolic link to nothing",
                "make the directory it points at, or name another",
            ));
        }
        Err(error) => return unseen(error),
    };
    if !seen.is_dir() {
        let remedy = "name a directory of its own";
        return Err(Problem::new("is not a directory", remedy));
    }
    if seen.mode() & MODE_OTHERS_WRITE != 0 {
        let remedy = format!("chmod 0700 {}", dir.display());
        return Err(Problem::new("can be written by everybody", remedy));
    }
    trust_owner(seen.uid(), ours)?;
    match rustix::fs::access(dir, wanted) {
        Ok(()) => Ok(Some(seen)),
        Err(error) => Err(Problem::new(
            format!("cannot be used: {}", io::Error::from(error)),
            "let slotd read and write there",
        )),
    }
}

/// Whoever owns a link chooses where the files go.
fn trust_link(owner: u32, ours: u32) -> Result<(), Problem> {
    if owner == ROOT || owner == ours {
        return Ok(());
    }
    Err(Problem::new(
        format!("is a symbolic link of user {owner}, who could turn it elsewhere"),
        "name the directory itself, or let root make the link",
    ))
}

/// Root may look after anybody's directory.
fn trust_owner(owner: u32, ours: u32) -> Result<(), Problem> {
    if ours == ROOT || owner == ours {
        return Ok(());
    }
    Err(Problem::new(
        format!("belongs to user {owner}, and slotd runs as user {ours}"),
        "start it as that user, or give it a directory of its own",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_others_are_not_followed() {
        for (owner, ours, is_trusted) in [
            (ROOT, 1000, true),
            (1000, 1000, true),
            (ROOT, ROOT, true),
            (1001, 1000, false),
            (1001, ROOT, false),
        ] {
            assert_eq!(trust_link(owner, ours).is_ok(), is_trusted, "{owner}");
        }
    }

    #[test]
    fn directories_of_others_are_for_root_alone() {
        for (owner, ours, is_trusted) in [
            (1000, 1000, true),
            (1001, ROOT, true),
            (1001, 1000, false),
            (ROOT, 1000, false),
        ] {
            assert_eq!(trust_owner(owner, ours).is_ok(), is_trusted, "{owner}");
        }
    }
}
