//! A PUT repeated after its 201 was lost: compared with the complete file, never stored.

use std::sync::Arc;

use futures_util::StreamExt as _;
use sha2::Digest as _;
use tracing::debug;

use crate::core::event::Event;
use crate::core::refusal::Refusal;
use crate::core::session::UploadSession;
use crate::core::slot::Sha256;
use crate::service::Service;
use crate::service::intake::End;
use crate::service::transfers::Transfer;
use crate::service::upload::Received;
use crate::store::Body;

impl Service {
    /// Gives a lost 201 again to who sends the same bytes; refuses `AlreadyComplete` to others.
    pub(super) async fn replay(
        &self,
        row: &UploadSession,
        sha256: Sha256,
        announced: Option<Sha256>,
        body: Body,
        transfer: Arc<Transfer>,
    ) -> Result<Received, Refusal> {
        let received = match announced {
            Some(announced) => announced,
            None => {
                let hashers = (sha2::Sha256::new(), None);
                let (mut intake, gauge) =
                    self.intake(body, row.file.size_bytes, hashers, &transfer);
                while let Some(Ok(_)) = intake.next().await {}
                match gauge.end() {
                    End::Stalled => return Err(Refusal::Stalled),
                    End::Cut => return Err(self.cut_refusal()),
                    End::Interrupted | End::Open => return Err(Refusal::Interrupted),
                    // What passed may be the whole file; what came is not.
                    End::TooLong => return Err(Refusal::AlreadyComplete),
                    End::Whole => gauge.sha256(),
                }
            }
        };
        debug!(slot = row.id.short(), same = received == sha256, "replay");
        if received == sha256 {
            self.tell(Event::UploadReplayed { row });
            Ok(self.received(row))
        } else {
            Err(Refusal::AlreadyComplete)
        }
    }
}
