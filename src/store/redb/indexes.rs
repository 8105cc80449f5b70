//! The indexes of rows, and what they hold of each.

use ::redb::{Key, ReadableTable as _, Table, WriteTransaction};
use jid::BareJid;

use crate::core::policy::{Bucket, OPEN_SESSIONS_MAX};
use crate::core::session::{State, UploadSession};
use crate::core::slot::{SessionId, SlotId};
use crate::core::time::Timestamp;
use crate::store::redb::schema::{COMPLETE, DUE, Fault, NAMED, NAMELESS, OPEN, OWNED, SESSIONS};

/// What the indexes and sums hold of one row; by default, of none.
#[derive(Default)]
pub(super) struct Marks<'r> {
    pub(super) due: Option<(u64, u128)>,
    pub(super) complete: Option<(u64, u128)>,
    pub(super) owned: Option<(&'r str, u8, u64, u128)>,
    pub(super) session: Option<(u128, u128)>,
    pub(super) open: Option<(&'r str, u128)>,
    pub(super) hour: u64,
    pub(super) quota_bytes: u64,
    pub(super) stored_bytes: u64,
}

impl<'r> Marks<'r> {
    pub(super) fn of(row: &'r UploadSession) -> Self {
        let place = |at: Timestamp| (at.0, row.id.0);
        let (who, session) = (row.owner.as_str(), row.session_id());
        let kind = match session {
            Some(_) => NAMED,
            None => NAMELESS,
        };
        Self {
            due: row.due_at().map(place),
            complete: match row.state {
                State::Complete { at, .. } => Some(place(at)),
                _ => None,
            },
            owned: Some((who, kind, row.created_at.0, row.id.0)),
            session: session.map(|session| (session.0, row.id.0)),
            open: row.is_open_session().then_some((who, row.id.0)),
            hour: Bucket::of(row.created_at).0,
            quota_bytes: row.quota_bytes(),
            stored_bytes: row.stored_bytes(),
        }
    }
}

/// The indexes, open for writing.
pub(super) struct Indexes<'t> {
    pub(super) due: Table<'t, (u64, u128), ()>,
    complete: Table<'t, (u64, u128), ()>,
    pub(super) owned: Table<'t, (&'static str, u8, u64, u128), ()>,
    open: Table<'t, (&'static str, u128), ()>,
    sessions: Table<'t, u128, u128>,
}

impl<'t> Indexes<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, Fault> {
        Ok(Self {
            due: transaction.open_table(DUE)?,
            complete: transaction.open_table(COMPLETE)?,
            owned: transaction.open_table(OWNED)?,
            open: transaction.open_table(OPEN)?,
            sessions: transaction.open_table(SESSIONS)?,
        })
    }

    pub(super) fn clear(&mut self) -> Result<(), Fault> {
        self.due.retain(|_, ()| false)?;
        self.complete.retain(|_, ()| false)?;
        self.owned.retain(|_, ()| false)?;
        self.open.retain(|_, ()| false)?;
        self.sessions.retain(|_, _| false)?;
        Ok(())
    }

    /// Moves a row's entries from where they were to where they belong.
    pub(super) fn shift(&mut self, before: &Marks<'_>, after: &Marks<'_>) -> Result<(), Fault> {
        move_mark(&mut self.due, before.due, after.due)?;
        move_mark(&mut self.complete, before.complete, after.complete)?;
        move_mark(&mut self.owned, before.owned, after.owned)?;
        move_mark(&mut self.open, before.open, after.open)?;
        if before.session == after.session {
            return Ok(());
        }
        if let Some((session, _)) = before.session {
            self.sessions.remove(session)?;
        }
        if let Some((session, slot)) = after.session {
            self.sessions.insert(session, slot)?;
        }
        Ok(())
    }

    pub(super) fn slot_of(&self, session: SessionId) -> Result<Option<SlotId>, Fault> {
        Ok(self
            .sessions
            .get(session.0)?
            .map(|slot| SlotId(slot.value())))
    }

    /// Counts the open upload sessions of `owner`, up to `OPEN_SESSIONS_MAX`.
    pub(super) fn n_open(&self, owner: &BareJid) -> Result<usize, Fault> {
        let who = owner.as_str();
        let mut open = self.open.range((who, 0)..=(who, u128::MAX))?;
        let mut n_open = 0;
        while n_open < OPEN_SESSIONS_MAX && open.next().transpose()?.is_some() {
            n_open += 1;
        }
        Ok(n_open)
    }
}

/// Moves a row's entry in an index.
fn move_mark<'k, K: Key + 'static>(
    index: &mut Table<'_, K, ()>,
    before: Option<K::SelfType<'k>>,
    after: Option<K::SelfType<'k>>,
) -> Result<(), Fault>
where
    K::SelfType<'k>: PartialEq,
{
    if before == after {
        return Ok(());
    }
    if let Some(place) = before {
        index.remove(place)?;
    }
    if let Some(place) = after {
        index.insert(place, ())?;
    }
    Ok(())
}
