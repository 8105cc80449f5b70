//! What Prosody's mod_http_file_share wrote down of its uploads: the archive store `uploads` in the
//! form of mod_storage_internal, `uploads.list`.

use std::io::{self, BufRead, Read as _};

use jid::BareJid;

use crate::core::slot::ContentType;
use crate::core::time::Timestamp;
use crate::import::lua::{self, Table};

/// Longest item that is read; Prosody's have some 500 bytes.
const ITEM_BYTES_MAX: usize = 64 << 10;
/// What each item begins with, at the beginning of a line.
const BEGIN: &[u8] = b"item(";
/// Longest piece read at once: a line need not end.
const LINE_BYTES_MAX: u64 = 16 << 10;

/// One upload.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What the file is stored under, and the first component of its path.
    pub slot: String,
    /// Its name, the second component.
    pub filename: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// What it is served as.
    pub content_type: ContentType,
    /// Who asked for the slot.
    pub owner: BareJid,
    /// When.
    pub asked_at: Timestamp,
}

/// The items of a list, each with the number of its first line; one is held in memory at a time.
pub struct Items<R> {
    list: R,
    /// The lines of the item that was begun.
    item: Vec<u8>,
    is_too_long: bool,
    n_lines: u64,
    begun_at: u64,
    is_at_line_start: bool,
}

impl<R: BufRead> Items<R> {
    /// The items of `list`.
    pub fn new(list: R) -> Self {
        Self {
            list,
            item: Vec::new(),
            is_too_long: false,
            n_lines: 0,
            begun_at: 1,
            is_at_line_start: true,
        }
    }

    /// Reads one piece of a line; whether it begins an item, and its bytes. None at the end.
    fn piece(&mut self) -> io::Result<(bool, Vec<u8>)> {
        let mut piece = Vec::new();
        let mut limited = self.list.by_ref().take(LINE_BYTES_MAX);
        limited.read_until(b'\n', &mut piece)?;
        let is_begin = self.is_at_line_start && piece.starts_with(BEGIN);
        self.n_lines += u64::from(self.is_at_line_start && !piece.is_empty());
        self.is_at_line_start = piece.ends_with(b"\n");
        Ok((is_begin, piece))
    }

    /// What was gathered of an item, if there is any.
    fn finish(&mut self) -> Option<(u64, Option<Entry>)> {
        let (item, line) = (std::mem::take(&mut self.item), self.begun_at);
        let is_too_long = std::mem::take(&mut self.is_too_long);
        if item.trim_ascii().is_empty() {
            return None;
        }
        let entry = || entry(&lua::item(&item)?);
        Some((line, if is_too_long { None } else { entry() }))
    }
}

impl<R: BufRead> Iterator for Items<R> {
    /// The line, and what stands there; `None` where that is no upload.
    type Item = io::Result<(u64, Option<Entry>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (is_begin, piece) = match self.piece() {
                Ok(piece) => piece,
                Err(e) => return Some(Err(e)),
            };
            let is_end = piece.is_empty();
            let finished = if is_begin || is_end {
                self.finish()
            } else {
                None
            };
            if self.item.is_empty() {
                self.begun_at = self.n_lines;
            }
            if self.item.len() + piece.len() <= ITEM_BYTES_MAX {
                self.item.extend_from_slice(&piece);
            } else {
                self.is_too_long = true;
            }
            match finished {
                Some(item) => return Some(Ok(item)),
                None if is_end => return None,
                None => {}
            }
        }
    }
}

fn entry(item: &Table) -> Option<Entry> {
    let attributes = item.table("attr")?;
    let content_type = match attributes.text("content-type") {
        Some(text) => ContentType::parse(text).unwrap_or_else(|_| ContentType::octet_stream()),
        None => ContentType::octet_stream(),
    };
    let stamped = || Timestamp::from_xep0082(attributes.text("stamp")?);
    let asked_at = match item.number("when") {
        // A float is a whole number of seconds here, or one with a fraction that nobody needs.
        Some(when) if (0.0..1e15).contains(&when) => Timestamp(when as u64),
        _ => stamped()?,
    };
    Some(Entry {
        slot: item.text("key")?.to_owned(),
        filename: attributes.text("filename")?.to_owned(),
        size_bytes: attributes.text("size")?.parse().ok()?,
        content_type,
        owner: BareJid::new(item.text("with")?).ok()?,
        asked_at,
    })
}

/// The name of a slot's file, as Prosody's `datamanager` makes it: all but letters and digits of
/// ASCII escaped, so that no slot names a place elsewhere.
pub fn file_name(slot: &str) -> String {
    let mut name = String::new();
    for byte in slot.bytes() {
        match byte.is_ascii_alphanumeric() {
            true => name.push(char::from(byte)),
            false => name += &format!("%{byte:02x}"),
        }
    }
    name + ".bin"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(slot: &str, more: &str) -> String {
        format!(
            "item({{\n\t[\"key\"] = \"{slot}\";\n\t[\"with\"] = \"romeo@example.org\";\n{more}\
            \t[\"attr\"] = {{\n\t\t[\"filename\"] = \"a.jpg\";\n\t\t[\"size\"] = \"12\";\n\
            \t\t[\"content-type\"] = \"image/jpeg\";\n\
            \t\t[\"stamp\"] = \"2026-01-02T03:04:05Z\";\n\t}};\n}});\n"
        )
    }

    fn read(text: &str) -> Vec<(u64, Option<Entry>)> {
        let items = Items::new(text.as_bytes());
        items.map(|item| item.expect("read")).collect()
    }

    #[test]
    fn each_item_is_an_upload() {
        let list = item("one", "\t[\"when\"] = 1767323000;\n") + &item("two", "");
        let read = read(&list);
        let [(1, Some(one)), (12, Some(two))] = &read[..] else {
            panic!("{read:?}");
        };
        assert_eq!((one.slot.as_str(), one.asked_at.0), ("one", 1_767_323_000));
        assert_eq!((two.slot.as_str(), two.asked_at.0), ("two", 1_767_323_045));
        assert_eq!((one.filename.as_str(), one.size_bytes), ("a.jpg", 12));
        assert_eq!(one.content_type.as_str(), "image/jpeg");
        assert_eq!(one.owner.as_str(), "romeo@example.org");
    }

    #[test]
    fn what_is_no_upload_stops_nobody() {
        let long = item(
            "long",
            &format!("\t[\"x\"] = \"{}\";\n", "x".repeat(70_000)),
        );
        let cut = format!("{}\n", &item("cut", "")[..40]);
        let nobody = item("nobody", "").replace("romeo@example.org", "a@@b");
        // What begins nowhere belongs to what it stands behind, and spoils it.
        let behind = "  \nos.exit()\n";
        for other in [&long, &cut, &nobody, "item(nil);\n", behind] {
            let read = read(&[&item("one", ""), other, &item("two", "")].concat());
            let slots: Vec<_> = read
                .iter()
                .map(|(_, entry)| entry.as_ref().map(|entry| entry.slot.as_str()))
                .collect();
            match other == behind {
                true => assert_eq!(slots, [None, Some("two")]),
                false => assert_eq!(slots, [Some("one"), None, Some("two")], "{other:.50}"),
            }
        }
        assert_eq!(read(" \n\n"), []);
        assert_eq!(read("\u{fffd}"), [(1, None)]);
    }

    #[test]
    fn slots_name_files_as_prosody_does() {
        assert_eq!(file_name("oB2-_dyz"), "oB2%2d%5fdyz.bin");
        assert_eq!(file_name("../\u{e8}"), "%2e%2e%2f%c3%a8.bin");
    }
}
