//! Rows of files that another server took: complete from the beginning, but for the time in which
//! their bytes are copied.

use std::time::Duration;

use jid::BareJid;

use crate::core::refusal::Refusal;
use crate::core::session::{FileFacts, Lifetimes, State, UploadSession};
use crate::core::slot::{PartId, Sha256, SlotId};
use crate::core::time::Timestamp;

/// How long a row waits for an import that was cut off to go on: so long that no path is lost, for
/// what has ended is never filled again. There are few of them.
pub const IMPORT_WITHIN: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The part that the bytes of an import come in.
pub fn import_part(slot: SlotId) -> PartId {
    PartId { slot, attempt: 0 }
}

impl UploadSession {
    /// The row of a file that was uploaded elsewhere at `uploaded_at`, before its bytes are here.
    ///
    /// Its only attempt is the import's. Its quota counts from the upload, as if we had taken it.
    pub fn import(
        (id, owner): (SlotId, BareJid),
        file: FileFacts,
        lifetimes: &Lifetimes,
        uploaded_at: Timestamp,
        now: Timestamp,
    ) -> Self {
        let mut row = Self::new(id, owner, file, lifetimes, now).external();
        row.created_at = uploaded_at;
        row.n_attempts = 1;
        row.newest = Some((import_part(row.id), 0));
        row.idle_for = IMPORT_WITHIN;
        row.expires_at = now.plus(IMPORT_WITHIN);
        row.state = State::Uploading;
        row
    }

    /// Whether it is the row of an import that has not come to its end, which no request has
    /// touched since.
    pub fn is_importing(&self) -> bool {
        self.state == State::Uploading
            && !self.is_presented
            && self.newest == Some((import_part(self.id), 0))
    }

    /// The same for what the file is now, by an import that goes on. Refuses `TakenOver` where it
    /// is no such row.
    pub fn import_again(mut self, file: FileFacts, now: Timestamp) -> Result<Self, Refusal> {
        if !self.is_importing() {
            return Err(Refusal::TakenOver);
        }
        self.file = file;
        self.issued_at = now;
        self.expires_at = now.plus(IMPORT_WITHIN);
        Ok(self)
    }

    /// Makes it complete since its upload: the file is there, whole and durable. Refuses
    /// `TakenOver` where it is no row of an import.
    pub fn complete_import(
        mut self,
        sha256: Sha256,
        lifetimes: &Lifetimes,
    ) -> Result<Self, Refusal> {
        if !self.is_importing() {
            return Err(Refusal::TakenOver);
        }
        let at = self.created_at;
        self.prefix = (import_part(self.id), self.file.size_bytes);
        self.newest = None;
        self.issued_at = at;
        self.refreshed_at = at;
        self.last_byte_at = at;
        self.idle_for = lifetimes.idle_for;
        self.expires_at = at.plus(lifetimes.session_age);
        self.keep_until = lifetimes.retention.keep_until(self.file.purpose, at);
        self.state = State::Complete { sha256, at };
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::download::Served;
    use crate::core::session::end::Sweep;
    use crate::core::session::samples::{SIZE, at, begin, lifetimes, plain, romeo};

    const LATER: u64 = 1000;

    fn importing() -> UploadSession {
        let of = (SlotId(7), romeo());
        UploadSession::import(of, plain().file, &lifetimes(), at(0), at(LATER))
    }

    #[test]
    fn an_imported_file_is_as_old_as_its_upload() {
        let row = importing();
        assert!(row.is_importing() && Served::of(&row).is_none());
        let row = row.complete_import(Sha256([9; 32]), &lifetimes());
        let row = row.expect("an import");
        assert_eq!(row.keep_until, Some(at(86_400)));
        assert_eq!(Served::of(&row).expect("complete").at(), at(0));
        assert_eq!((row.stored_bytes(), row.quota_bytes()), (SIZE, SIZE));
        assert!(!row.is_importing());
        assert!(row.complete_import(Sha256([9; 32]), &lifetimes()).is_err());
    }

    #[test]
    fn an_import_that_was_cut_off_waits_to_go_on() {
        let row = importing();
        let end = LATER + IMPORT_WITHIN.as_secs();
        assert_eq!(row.sweep(at(end - 1)), Sweep::Keep);
        assert_eq!(row.sweep(at(end)), Sweep::Expire);
        let mut file = row.file.clone();
        file.size_bytes = 5;
        let row = row.import_again(file, at(end - 1)).expect("an import");
        assert_eq!((row.file.size_bytes, row.quota_bytes()), (5, 5));
        assert_eq!(row.sweep(at(end)), Sweep::Keep);
    }

    #[test]
    fn a_row_of_somebody_else_is_no_import() {
        for row in [plain(), begin(plain(), 1), begin(importing(), LATER + 1)] {
            assert!(!row.is_importing());
            let file = row.file.clone();
            let again = row.clone().import_again(file, at(LATER));
            assert_eq!(again, Err(Refusal::TakenOver));
            let complete = row.complete_import(Sha256([9; 32]), &lifetimes());
            assert_eq!(complete, Err(Refusal::TakenOver));
        }
    }
}
