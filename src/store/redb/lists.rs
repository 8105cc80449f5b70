//! Reads along the indexes, each within one snapshot.

use ::redb::{ReadTransaction, ReadableTable as _};
use jid::BareJid;

use crate::core::session::UploadSession;
use crate::core::slot::SlotId;
use crate::core::time::Timestamp;
use crate::store::redb::schema::{
    COMPLETE, DUE, Fault, NAMED, NAMELESS, ORDERS, OWNED, ROWS, newer_table,
};
use crate::store::{StoreError, row};

/// Upload sessions of `owner`, the newest first.
pub(super) fn owned(
    read: &ReadTransaction,
    owner: &BareJid,
    n_max: usize,
) -> Result<Result<Vec<UploadSession>, StoreError>, Fault> {
    let rows = read.open_table(ROWS)?;
    let mut owned = Vec::new();
    for (_, id) in places(read, owner, NAMED, n_max)? {
        let Some(bytes) = rows.get(id)? else { continue };
        match row::decode(SlotId(id), bytes.value()) {
            // Somebody else's is not shown, whatever the index says.
            Ok(row) if row.check_owner(owner).is_ok() => owned.push(row),
            Ok(_) => {}
            Err(corrupt) => return Ok(Err(corrupt)),
        }
    }
    Ok(Ok(owned))
}

/// Slots of `owner`, the newest first.
pub(super) fn uploads_of(
    read: &ReadTransaction,
    owner: &BareJid,
    n_max: usize,
) -> Result<Vec<SlotId>, Fault> {
    let mut all = places(read, owner, NAMED, n_max)?;
    all.append(&mut places(read, owner, NAMELESS, n_max)?);
    all.sort_unstable_by(|one, other| other.cmp(one));
    Ok(all
        .into_iter()
        .take(n_max)
        .map(|(_, id)| SlotId(id))
        .collect())
}

/// (`created_at`, id) of rows of `owner`, the newest first.
fn places(
    read: &ReadTransaction,
    owner: &BareJid,
    kind: u8,
    n_max: usize,
) -> Result<Vec<(u64, u128)>, Fault> {
    let Some(index) = newer_table(read, OWNED)? else {
        return Ok(Vec::new());
    };
    let who = owner.as_str();
    let theirs = index.range((who, kind, 0, 0)..=(who, kind, u64::MAX, u128::MAX))?;
    let place = |entry: Result<_, _>| {
        let (key, _): (::redb::AccessGuard<'_, (&str, u8, u64, u128)>, _) = entry?;
        let (_, _, created_at, id) = key.value();
        Ok((created_at, id))
    };
    theirs.rev().take(n_max).map(place).collect()
}

/// Rows that are due, the longest due first.
pub(super) fn due(
    read: &ReadTransaction,
    now: Timestamp,
    n_max: usize,
) -> Result<Vec<SlotId>, Fault> {
    let index = read.open_table(DUE)?;
    let entries = index.range((0, 0)..=(now.0, u128::MAX))?;
    let id = |entry: Result<(::redb::AccessGuard<'_, (u64, u128)>, _), _>| {
        Ok(SlotId(entry?.0.value().1))
    };
    entries.take(n_max).map(id).collect()
}

/// What operators said, by its name.
pub(super) fn orders(read: &ReadTransaction) -> Result<Vec<(String, String)>, Fault> {
    let Some(orders) = newer_table(read, ORDERS)? else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    for entry in orders.iter()? {
        let (name, value) = entry?;
        all.push((name.value().to_owned(), value.value().to_owned()));
    }
    Ok(all)
}

/// From which end complete rows are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    Oldest,
    Newest,
}

/// Complete rows by their time of completion.
pub(super) fn complete(
    read: &ReadTransaction,
    first: First,
    n_max: usize,
) -> Result<Vec<SlotId>, Fault> {
    let index = read.open_table(COMPLETE)?;
    let mut entries = index.iter()?;
    let mut next = || match first {
        First::Oldest => entries.next(),
        First::Newest => entries.next_back(),
    };
    let mut ids = Vec::new();
    while ids.len() < n_max
        && let Some(entry) = next()
    {
        ids.push(SlotId(entry?.0.value().1));
    }
    Ok(ids)
}
