//! After the machine lost power: of each upload under way only what its row vouches for is kept.
//!
//! A part may then be as long as before and hold zeros where its last bytes were. Whatever was told
//! of it is in its row, because that is written before anybody is told.

use tracing::info;

use crate::core::slot::PartId;
use crate::service::Service;
use crate::store::{StoreError, Stored};

/// Parts looked at in one step.
const PAGE: usize = 1000;

impl Service {
    /// Cuts each part back to what its row vouches for; returns how many were longer.
    ///
    /// For the start, before anybody can ask for an offset. Costs a step for each part.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        let mut n_cut = 0;
        let mut after = None;
        loop {
            let page = self.stores.files.page(after, PAGE).await?;
            let Some(last) = page.last() else {
                if 0 < n_cut {
                    info!(n_cut, "uploads under way were cut back to what was durable");
                }
                return Ok(n_cut);
            };
            after = Some(last.slot());
            for stored in page {
                if let Stored::Part { part, size_bytes } = stored {
                    n_cut += usize::from(self.recover_part(part, size_bytes).await?);
                }
            }
        }
    }

    /// Whether the part was longer. One without a row is the audit's.
    async fn recover_part(&self, part: PartId, length: u64) -> Result<bool, StoreError> {
        let Some(row) = self.stores.sessions.get(part.slot).await? else {
            return Ok(false);
        };
        let vouched = row.vouched(part);
        if length <= vouched || !row.is_open() {
            return Ok(false);
        }
        self.cut_part(part, vouched, row.file.size_bytes).await?;
        Ok(true)
    }
}
