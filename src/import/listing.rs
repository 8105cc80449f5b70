//! Lists the files of a server, open, with all that is known of each.

use std::ffi::OsStr;
use std::fs::File;
use std::io::BufReader;
use std::ops::ControlFlow;
use std::path::Path;

use jid::BareJid;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::core::external::ExternalPath;
use crate::core::slot::ContentType;
use crate::core::time::Timestamp;
use crate::import::archive::{self, Entry, Items};
use crate::import::layout::{ARCHIVE, Layout, SHARE};
use crate::import::source::Source;
use crate::import::tree::{self, Directory, Found, Walk};

/// A file that may be taken.
pub struct Candidate {
    /// Where it is, for people.
    pub name: String,
    /// Where its link leads.
    pub path: ExternalPath,
    /// Its bytes.
    pub source: Source,
    /// Who uploaded it, where that is known.
    pub owner: Option<BareJid>,
    /// What it is.
    pub content_type: ContentType,
    /// When it was uploaded.
    pub uploaded_at: Timestamp,
}

/// What a listing comes upon.
pub enum Listed {
    /// A file.
    File(Box<Candidate>),
    /// A slot that no file came to, or whose file is gone.
    Unused,
    /// What cannot be taken: where it is, and why.
    Odd(String, String),
}

/// Tells `each` of all there is in `root`, until it wants no more. What stops the listing itself
/// is the end of a sentence.
pub fn list(
    root: &Directory,
    layout: Layout,
    each: impl FnMut(Listed) -> ControlFlow<()>,
) -> Result<(), String> {
    match layout {
        Layout::ModHttpFileShare => list_share(root, each),
        Layout::ProsodyFiler | Layout::HmacFileServer | Layout::Ejabberd => {
            list_tree(root, layout, each)
        }
    }
}

fn list_tree(
    root: &Directory,
    layout: Layout,
    mut each: impl FnMut(Listed) -> ControlFlow<()>,
) -> Result<(), String> {
    let walk = Walk::new(root.clone()).map_err(|e| format!("cannot be read: {e}"))?;
    for found in walk {
        let listed = match found {
            Found::File { directory, path } => in_tree(&directory, &path, layout),
            Found::Odd { path, why } => Some(Listed::Odd(for_people(&path), why)),
        };
        if listed.is_some_and(|listed| each(listed).is_break()) {
            break;
        }
    }
    Ok(())
}

/// The file at `path`; `None` where it is gone.
fn in_tree(directory: &Directory, path: &Path, layout: Layout) -> Option<Listed> {
    let odd = |why: &str| Some(Listed::Odd(for_people(path), why.to_owned()));
    let Some(text) = path.to_str() else {
        return odd("its name is not UTF-8");
    };
    if let Some(why) = layout.objection(text) {
        return odd(why);
    }
    let Ok(link) = ExternalPath::parse(text) else {
        return odd(NO_PATH);
    };
    let source = match Source::open(directory, path.file_name().unwrap_or_default()) {
        Ok(source) => source?,
        Err(why) => return odd(&why),
    };
    let guessed = mime_guess::from_path(path).first_or_octet_stream();
    let content_type = ContentType::parse(guessed.essence_str());
    Some(Listed::File(Box::new(Candidate {
        name: for_people(path),
        path: link,
        uploaded_at: source.modified_at(),
        source,
        owner: None,
        content_type: content_type.unwrap_or_else(|_| ContentType::octet_stream()),
    })))
}

const NO_PATH: &str = "no link can have this path: it is too long or too deep, or holds control \
                       characters";

fn list_share(
    root: &Directory,
    mut each: impl FnMut(Listed) -> ControlFlow<()>,
) -> Result<(), String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let list = match rustix::fs::openat(root, ARCHIVE, flags, Mode::empty()) {
        Ok(list) => File::from(list),
        Err(Errno::NOENT) => {
            return Err(format!(
                "has no {ARCHIVE}, which tells names and owners: name the directory of the upload \
                 host below Prosody's data_path; if Prosody's storage is SQL, move its archives to \
                 \"internal\" first, with prosody-migrator"
            ));
        }
        Err(e) => return Err(format!("holds {ARCHIVE}, which cannot be read: {e}")),
    };
    let share = match tree::open_within(root, OsStr::new(SHARE)) {
        Ok(share) => Some(share),
        Err(Errno::NOENT) => None,
        Err(e) => return Err(format!("holds {SHARE}, which cannot be read: {e}")),
    };
    for item in Items::new(BufReader::new(list)) {
        let (line, entry) = item.map_err(|e| format!("holds {ARCHIVE}, which breaks off: {e}"))?;
        let at_line = || format!("{ARCHIVE}, line {line}");
        let listed = match (entry, &share) {
            (None, _) => Listed::Odd(at_line(), "no upload that can be read".to_owned()),
            (Some(_), None) => Listed::Unused,
            (Some(entry), Some(share)) => in_share(share, entry),
        };
        if each(listed).is_break() {
            break;
        }
    }
    Ok(())
}

fn in_share(share: &Directory, entry: Entry) -> Listed {
    let name = format!("{}/{}", entry.slot, entry.filename);
    let odd = |why: String| Listed::Odd(escaped(&name), why);
    let Ok(path) = ExternalPath::parse(&name) else {
        return odd(NO_PATH.to_owned());
    };
    let source = match Source::open(share, OsStr::new(&archive::file_name(&entry.slot))) {
        Ok(Some(source)) => source,
        Ok(None) => return Listed::Unused,
        Err(why) => return odd(why),
    };
    if source.size_bytes() != entry.size_bytes {
        return odd(format!(
            "has {} bytes, and should have {}",
            source.size_bytes(),
            entry.size_bytes
        ));
    }
    Listed::File(Box::new(Candidate {
        name: escaped(&name),
        path,
        source,
        owner: Some(entry.owner),
        content_type: entry.content_type,
        uploaded_at: entry.asked_at,
    }))
}

fn for_people(path: &Path) -> String {
    escaped(&path.to_string_lossy())
}

/// Without what could move a terminal's cursor.
fn escaped(text: &str) -> String {
    text.escape_debug().to_string()
}
