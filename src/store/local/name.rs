//! Where a file or part of a slot stands below the data directory, and back.

use crate::core::slot::{PartId, SlotId};

/// The directory of the fan-out directories.
pub(super) const FILES: &str = "files";
/// The directory of the parts.
pub(super) const PARTS: &str = "parts";
/// Hexadecimal digits of a slot's id.
const ID_DIGITS: usize = 32;

/// A directory that holds files or parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Dir {
    /// All parts.
    Parts,
    /// The files of slots whose ids begin with this byte.
    Files(u8),
}

impl Dir {
    /// Where the file of a slot is.
    pub(super) fn of(id: SlotId) -> Self {
        Self::Files(fan(id))
    }

    pub(super) fn path(self) -> String {
        match self {
            Self::Parts => PARTS.to_owned(),
            Self::Files(byte) => format!("{FILES}/{byte:02x}"),
        }
    }
}

/// The byte that spreads slots over directories.
pub(super) fn fan(id: SlotId) -> u8 {
    id.0.to_be_bytes()[0]
}

pub(super) fn file_path(id: SlotId) -> String {
    format!("{}/{:032x}", Dir::of(id).path(), id.0)
}

pub(super) fn part_path(part: PartId) -> String {
    format!("{PARTS}/{:032x}.{}", part.slot.0, part.attempt)
}

/// Reads the last segment of `file_path`; other names are none of ours.
pub(super) fn parse_file(name: &str) -> Option<SlotId> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if name.len() != ID_DIGITS || !name.bytes().all(is_digit) {
        return None;
    }
    u128::from_str_radix(name, 16).ok().map(SlotId)
}

/// Reads the last segment of `part_path`.
pub(super) fn parse_part(name: &str) -> Option<PartId> {
    let (slot, attempt) = name.split_once('.')?;
    let part = PartId {
        slot: parse_file(slot)?,
        attempt: attempt.parse().ok()?,
    };
    // One spelling only: no sign, no leading zero.
    (attempt == part.attempt.to_string()).then_some(part)
}
