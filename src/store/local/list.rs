//! What there is: of one slot, and of all in order of id.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::core::slot::{PartId, SlotId};
use crate::store::Stored;
use crate::store::local::name::{self, Dir, file_path, parse_file, parse_part, part_path};
use crate::store::local::tree::Tree;

/// The attempts of slots that have parts.
type Attempts = BTreeMap<SlotId, BTreeSet<u16>>;

/// The file and the parts of a slot.
pub(super) fn find(tree: &Tree, id: SlotId) -> io::Result<Vec<Stored>> {
    let attempts = attempts(tree, |slot| slot == id)?;
    let mut found = Vec::new();
    add(tree, id, attempts.get(&id), &mut found)?;
    Ok(found)
}

/// The attempts at a slot that have a part.
pub(super) fn parts_of(tree: &Tree, id: SlotId) -> io::Result<Vec<PartId>> {
    let attempts = attempts(tree, |slot| slot == id)?.remove(&id);
    let attempts = attempts.unwrap_or_default().into_iter();
    Ok(attempts
        .map(|attempt| PartId { slot: id, attempt })
        .collect())
}

/// Up to about `n_max` files and parts with ids after `after`, all of a slot together.
///
/// Reads the parts' directory, which is small, once, and of the others those it needs; keeps no
/// more than `n_max` ids of files.
pub(super) fn page(tree: &Tree, after: Option<SlotId>, n_max: usize) -> io::Result<Vec<Stored>> {
    let n_max = n_max.max(1);
    let mut attempts = attempts(tree, |slot| after < Some(slot))?;
    let mut after = after;
    let mut found = Vec::new();
    let mut fan = after.map_or(0, name::fan);
    loop {
        let files = files(tree, fan, after, n_max)?;
        // Up to where the listing is complete: a part beyond may come after a file not seen.
        let last = match files.last() {
            Some(last) if files.len() == n_max => *last,
            _ => last_of(fan),
        };
        let beyond = last.0.checked_add(1).map(SlotId);
        let later = beyond.map(|beyond| attempts.split_off(&beyond));
        let ids: BTreeSet<_> = files.iter().chain(attempts.keys()).copied().collect();
        for id in ids {
            add(tree, id, attempts.get(&id), &mut found)?;
            if n_max <= found.len() {
                return Ok(found);
            }
        }
        attempts = later.unwrap_or_default();
        after = Some(last);
        if last == last_of(fan) {
            match fan.checked_add(1) {
                Some(next) => fan = next,
                None => return Ok(found),
            }
        }
    }
}

/// The last id whose file is in the directory of `fan`.
fn last_of(fan: u8) -> SlotId {
    let mut bytes = [u8::MAX; 16];
    bytes[0] = fan;
    SlotId(u128::from_be_bytes(bytes))
}

/// The first `n_max` ids after `after` of the files in one directory.
fn files(
    tree: &Tree,
    fan: u8,
    after: Option<SlotId>,
    n_max: usize,
) -> io::Result<BTreeSet<SlotId>> {
    let mut ids = BTreeSet::new();
    let dir = Dir::Files(fan);
    tree.list(dir, |name| {
        // A file in another's directory would not be found by its id.
        let id = parse_file(name).filter(|id| Dir::of(*id) == dir && after < Some(*id));
        ids.extend(id);
        if n_max < ids.len() {
            ids.pop_last();
        }
    })?;
    Ok(ids)
}

fn attempts(tree: &Tree, is_listed: impl Fn(SlotId) -> bool) -> io::Result<Attempts> {
    let mut attempts = Attempts::new();
    tree.list(Dir::Parts, |name| {
        if let Some(part) = parse_part(name).filter(|part| is_listed(part.slot)) {
            attempts.entry(part.slot).or_default().insert(part.attempt);
        }
    })?;
    Ok(attempts)
}

/// Adds what is still there of a slot: somebody may remove it at the same time.
fn add(
    tree: &Tree,
    id: SlotId,
    attempts: Option<&BTreeSet<u16>>,
    found: &mut Vec<Stored>,
) -> io::Result<()> {
    if let Some(size_bytes) = tree.size(&file_path(id))? {
        found.push(Stored::File { id, size_bytes });
    }
    for attempt in attempts.into_iter().flatten() {
        let part = PartId {
            slot: id,
            attempt: *attempt,
        };
        if let Some(size_bytes) = tree.size(&part_path(part))? {
            found.push(Stored::Part { part, size_bytes });
        }
    }
    Ok(())
}
