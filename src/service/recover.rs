//! After the machine lost power: of each upload under way only what its row vouches for is kept.
//!
//! A part may then be as long as before and hold zeros where its last bytes were. Whatever was told
//! of it is in its row, because that is written before anybody is told.

use tracing::{error, info};

use crate::core::slot::PartId;
use crate::service::Service;
use crate::store::StoreError;

/// Parts looked at in one step.
const PAGE: usize = 1000;

impl Service {
    /// Cuts each part back to what its row vouches for; returns how many were longer.
    ///
    /// For the start, before anybody can ask for an offset. Costs a look at each part, and none
    /// at files.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        let mut n_cut = 0;
        let mut after = None;
        loop {
            let page = self.stores.files.parts(after, PAGE).await?;
            let Some((last, _)) = page.last() else {
                if 0 < n_cut {
                    info!(n_cut, "uploads under way were cut back to what was durable");
                }
                return Ok(n_cut);
            };
            after = Some(last.slot);
            for (part, length) in page {
                n_cut += usize::from(self.recover_part(part, length).await?);
            }
        }
    }

    /// Whether the part was longer. One without a row, or with a damaged one, is the audit's.
    async fn recover_part(&self, part: PartId, length: u64) -> Result<bool, StoreError> {
        let row = match self.stores.sessions.get(part.slot).await {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(false),
            // Nobody goes on with it, and all others shall be served.
            Err(StoreError::Corrupt(what)) => {
                error!(
                    slot = part.slot.short(),
                    "{what} is damaged: its upload is left as it is"
                );
                return Ok(false);
            }
            Err(e) => return Err(e),
        };
        let vouched = row.vouched(part);
        if length <= vouched || !row.is_open() {
            return Ok(false);
        }
        self.cut_part(part, vouched).await?;
        Ok(true)
    }
}
