//! Do rows and files agree? What `slotd audit` tells, and mends where it is asked to.
//!
//! Works on stores that another process writes to: what looks wrong is looked at again before it
//! is told, since rows and files cannot be read at one instant.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use sha2::Digest as _;

use crate::core::session::{State, UploadSession};
use crate::core::slot::{PartId, Sha256, SlotId};
use crate::store::{Mend, StoreError, Stored, Stores};

/// Rows and files looked at in one step.
const PAGE: usize = 1000;
/// Findings kept; more are counted.
const FINDINGS_MAX: usize = 1000;
/// How long to wait before looking again at what looks wrong.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How to audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether to mend what is wrong.
    pub mend: Mend,
    /// Whether to read every file and compare its digest.
    pub depth: Depth,
}

/// How closely files are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// By name and size.
    Sizes,
    /// By every byte.
    Digests,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// What kind of thing.
    pub kind: Kind,
    /// Which slot or sum, and how.
    pub what: String,
    /// Whether it was mended.
    pub mended: bool,
}

/// The kinds of wrong things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A complete row has no file: it is lost. Mended by removing the row.
    LostFile,
    /// A file is not the one that was acknowledged. Never mended: look at it.
    DamagedFile,
    /// A file has no row: nobody can fetch it. Mended by removing the file.
    StrayFile,
    /// A part has no upload that could go on with it. Mended by removing the part.
    StrayPart,
    /// A running sum or an index does not fit the rows. Mended by counting again.
    WrongSum,
    /// Database and files are of different stores. Never mended by itself.
    OtherStore,
}

/// What an audit saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct AuditReport {
    /// Rows of any state.
    pub n_rows: u64,
    /// Complete files.
    pub n_files: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// Parts of uploads under way.
    pub n_parts: u64,
    /// What is wrong, up to a thousand.
    pub findings: Vec<Finding>,
    /// How much is wrong.
    pub n_findings: u64,
    /// How much of it was mended.
    pub n_mended: u64,
}

impl AuditReport {
    /// Whether nothing is wrong, or all of it was mended.
    pub fn is_clean(&self) -> bool {
        self.n_findings == self.n_mended
    }

    fn add(&mut self, kind: Kind, what: String, mended: bool) {
        self.n_findings += 1;
        self.n_mended += u64::from(mended);
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { kind, what, mended });
        }
    }
}

/// Compares all rows with all files, both ways, and counts all sums again.
pub async fn audit(stores: &Stores, options: Options) -> Result<AuditReport, StoreError> {
    let mut audit = Audit {
        stores,
        options,
        report: AuditReport::default(),
    };
    if stores.sessions.store_id().await? != stores.files.store_id().await? {
        let what = "the database and the files in data_dir are of different stores".to_owned();
        audit.report.add(Kind::OtherStore, what, false);
        return Ok(audit.report);
    }
    audit.check_rows().await?;
    audit.check_files().await?;
    let recount = stores.sessions.recount(options.mend).await?;
    let mended = options.mend == Mend::Yes;
    for wrong in recount.wrong {
        audit.report.add(Kind::WrongSum, wrong, mended);
    }
    Ok(audit.report)
}

struct Audit<'a> {
    stores: &'a Stores,
    options: Options,
    report: AuditReport,
}

impl Audit<'_> {
    /// Every complete row has its file.
    async fn check_rows(&mut self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let rows = self.stores.sessions.page(after, PAGE).await?;
            let Some(last) = rows.last() else {
                return Ok(());
            };
            after = Some(last.id);
            let mut suspects = Vec::new();
            for row in &rows {
                self.report.n_rows += 1;
                let State::Complete { sha256, .. } = row.state else {
                    continue;
                };
                self.report.n_files += 1;
                self.report.stored_bytes += row.file.size_bytes;
                let wrong = self.look_at_file(row, sha256).await?;
                suspects.extend(wrong.map(|wrong| (row, wrong)));
            }
            look_again_later(&suspects).await;
            for (row, wrong) in suspects {
                self.check_row(row, wrong).await?;
            }
        }
    }

    /// Looks again at a row whose file was `wrong`.
    async fn check_row(&mut self, row: &UploadSession, wrong: Kind) -> Result<(), StoreError> {
        let still = self.stores.sessions.get(row.id).await?;
        if still.as_ref() != Some(row) {
            return Ok(());
        }
        let mends = self.options.mend == Mend::Yes && wrong == Kind::LostFile;
        if mends {
            self.stores.sessions.remove(row.id).await?;
        }
        let what = format!("slot {} of {}", row.id.short(), row.owner);
        self.report.add(wrong, what, mends);
        Ok(())
    }

    async fn look_at_file(
        &self,
        row: &UploadSession,
        sha256: Sha256,
    ) -> Result<Option<Kind>, StoreError> {
        let stored = self.stores.files.find(row.id).await?;
        let size_of = |stored: &Stored| match stored {
            Stored::File { size_bytes, .. } => Some(*size_bytes),
            Stored::Part { .. } => None,
        };
        match stored.iter().find_map(size_of) {
            None => Ok(Some(Kind::LostFile)),
            Some(size_bytes) if size_bytes != row.file.size_bytes => Ok(Some(Kind::DamagedFile)),
            Some(_) if self.options.depth == Depth::Sizes => Ok(None),
            Some(size_bytes) => {
                let same = self.digest(row.id, size_bytes).await? == Some(sha256);
                Ok((!same).then_some(Kind::DamagedFile))
            }
        }
    }

    /// The digest of a file; `None` where it cannot be read to its end.
    async fn digest(&self, id: SlotId, size_bytes: u64) -> Result<Option<Sha256>, StoreError> {
        let mut body = self.stores.files.open(id, 0..size_bytes).await?.into_body();
        let mut hasher = sha2::Sha256::new();
        while let Some(bytes) = body.next().await {
            match bytes {
                Ok(bytes) => hasher.update(&bytes),
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(Sha256(hasher.finalize().into())))
    }

    /// Every file has its complete row, every part its open one.
    async fn check_files(&mut self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.stores.files.page(after, PAGE).await?;
            let mut by_slot: BTreeMap<SlotId, Vec<Stored>> = BTreeMap::new();
            for stored in page {
                let id = match stored {
                    Stored::File { id, .. } => id,
                    Stored::Part { part, .. } => part.slot,
                };
                by_slot.entry(id).or_default().push(stored);
            }
            let Some(last) = by_slot.keys().next_back() else {
                return Ok(());
            };
            after = Some(*last);
            let mut suspects = Vec::new();
            for (id, all) in by_slot {
                let row = self.stores.sessions.get(id).await?;
                for stored in all {
                    match (belongs(row.as_ref(), stored), stored) {
                        (true, Stored::Part { .. }) => self.report.n_parts += 1,
                        (true, Stored::File { .. }) => {}
                        (false, _) => suspects.push(stored),
                    }
                }
            }
            look_again_later(&suspects).await;
            for stored in suspects {
                self.check_stored(stored.slot(), stored).await?;
            }
        }
    }

    /// Looks again at what no row had a use for: it may have been completed or removed since.
    async fn check_stored(&mut self, id: SlotId, stored: Stored) -> Result<(), StoreError> {
        let row = self.stores.sessions.get(id).await?;
        let still = self.stores.files.find(id).await?;
        let same = |other: &Stored| names(*other) == names(stored);
        if belongs(row.as_ref(), stored) || !still.iter().any(same) {
            return Ok(());
        }
        let mends = self.options.mend == Mend::Yes;
        let kind = match stored {
            Stored::File { .. } => Kind::StrayFile,
            Stored::Part { .. } => Kind::StrayPart,
        };
        if mends {
            match stored {
                Stored::File { id, .. } => self.stores.files.remove(id).await?,
                Stored::Part { part, .. } => self.stores.files.remove_part(part).await?,
            }
        }
        self.report.add(kind, format!("slot {}", id.short()), mends);
        Ok(())
    }
}

/// Waits once for all that looks wrong: a store that lost its rows has as many as files.
async fn look_again_later<T>(suspects: &[T]) {
    if !suspects.is_empty() {
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

fn names(stored: Stored) -> (SlotId, Option<PartId>) {
    match stored {
        Stored::File { id, .. } => (id, None),
        Stored::Part { part, .. } => (part.slot, Some(part)),
    }
}

/// Whether a row has a use for what is stored, or the sweep takes it away with the row.
///
/// A file beside an open row is the trace of a crash between commit and row, bytes beside a
/// tombstone that of a crash between row and removal.
fn belongs(row: Option<&UploadSession>, stored: Stored) -> bool {
    let Some(row) = row else { return false };
    match stored {
        Stored::File { .. } => true,
        Stored::Part { .. } => !matches!(row.state, State::Complete { .. }),
    }
}
