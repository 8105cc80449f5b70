//! Brings a database of an earlier schema to today's.

use std::collections::BTreeMap;

use ::redb::ReadableTable as _;

use crate::core::slot::SlotId;
use crate::store::redb::indexes::Marks;
use crate::store::redb::schema::{Fault, SCHEMA, SCHEMA_VERSION, SCHEMAS_BEFORE, Tables};
use crate::store::row;

/// What a schema's number means to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// Ours.
    Today,
    /// An earlier one: can be read as it is, and brought to ours.
    Before,
    /// One of slotd's that we do not know.
    Newer(u128),
    /// None of slotd's.
    Foreign,
}

impl Age {
    pub(super) fn of(schema: Option<u128>) -> Self {
        match schema {
            Some(SCHEMA_VERSION) => Self::Today,
            Some(before) if SCHEMAS_BEFORE.contains(&before) => Self::Before,
            Some(other) if SCHEMA_VERSION < other => Self::Newer(other),
            Some(_) | None => Self::Foreign,
        }
    }

    /// Why it cannot be opened, if it cannot.
    pub(super) fn problem(self) -> Option<String> {
        match self {
            Self::Today | Self::Before => None,
            Self::Newer(schema) => Some(format!(
                "was written by a newer version of slotd (schema {schema}, this one knows up to \
                 {SCHEMA_VERSION}); install that version again, or restore a backup made before it"
            )),
            Self::Foreign => Some("is a database, but not one of slotd's".to_owned()),
        }
    }
}

/// Brings the tables to today's schema; the caller commits.
///
/// The first schema had no upload sessions, so their tables begin empty, and its rows stay as they
/// are until they change. Its tombstones were due by another rule: their entries move. The second
/// had no index of all rows by owner; the third has all that ours has. A row that cannot be read
/// keeps nobody from starting.
pub(super) fn bring_to_today(tables: &mut Tables<'_>) -> Result<(), Fault> {
    let (due, owned) = (&mut tables.indexes.due, &mut tables.indexes.owned);
    let mut moved = BTreeMap::new();
    for entry in tables.rows.iter()? {
        let (id, bytes) = entry?;
        let Ok(session) = row::decode(SlotId(id.value()), bytes.value()) else {
            continue;
        };
        let marks = Marks::of(&session);
        if let Some(place) = marks.owned {
            owned.insert(place, ())?;
        }
        if let Some(place) = marks.due
            && due.get(place)?.is_none()
        {
            moved.insert(id.value(), place);
        }
    }
    if !moved.is_empty() {
        due.retain(|(_, id), ()| !moved.contains_key(&id))?;
    }
    for place in moved.into_values() {
        due.insert(place, ())?;
    }
    tables.set_fact(SCHEMA, SCHEMA_VERSION)
}

#[cfg(test)]
mod tests {
    use crate::store::redb::schema::{FACTS, OWNED, OWNED_BEFORE, SCHEMA};
    use crate::store::redb::tests::{admit, announced, jid, open, slot, tamper, wrong};
    use crate::store::{Mend, SessionStore as _};

    /// The second schema listed named rows alone, in a table that is gone then.
    #[tokio::test]
    async fn the_second_schema_is_brought_to_today() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(&dir);
        let named = announced(1);
        admit(&store, named.clone()).await;
        admit(&store, slot(2)).await;
        drop(store);
        tamper(&dir.path().join("slotd.redb"), |write| {
            let mut facts = write.open_table(FACTS).expect("a table");
            facts.insert(SCHEMA, 2).expect("inserted");
            assert!(write.delete_table(OWNED).expect("deleted"));
            let mut before = write.open_table(OWNED_BEFORE).expect("a table");
            let place = (named.owner.as_str(), named.created_at.0, named.id.0);
            before.insert(place, ()).expect("inserted");
        });
        let store = open(&dir);
        assert_eq!(wrong(&store, Mend::No).await, [""; 0]);
        let romeo = jid("romeo@example.org");
        assert_eq!(
            store.owned(romeo.clone(), 9).await.expect("listed"),
            [named]
        );
        assert_eq!(store.uploads_of(romeo, 9).await.expect("listed").len(), 2);
        drop(store);
        tamper(&dir.path().join("slotd.redb"), |write| {
            assert!(
                !write.delete_table(OWNED_BEFORE).expect("looked"),
                "it is still there"
            );
        });
    }
}
