//! What ad-hoc commands do: looks, removals, and the switches of operators.
//!
//! `uploads` looks for uploads, `removal` removes them; here is the rest, and the one list of what
//! can be done.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Semaphore;
use tracing::info;

use crate::core::command::operation::{Operation, Outcome, Overview, Ping};
use crate::core::event::Event;
use crate::core::refusal::Refusal;
use crate::service::command::{Caller, Commands};
use crate::service::sweep::{Deletions, Sweeper};
use crate::service::{Service, broken};
use crate::store::keys;

pub mod reload;
mod removal;
mod uploads;

use reload::Reloads;

/// What operators may do, and what everybody may do with their own.
pub struct Operations {
    pub(super) service: Arc<Service>,
    pub(super) commands: Commands,
    sweeper: Arc<Sweeper>,
    deletions: Deletions,
    reloads: Reloads,
    data_dir: PathBuf,
    /// Who looks: reading many rows is not for everybody at once.
    looks: Semaphore,
}

/// How many look at a time.
const LOOKS_AT_ONCE: usize = 2;

impl Operations {
    /// Over `service`; signing keys are in `data_dir`.
    pub fn new(
        service: Arc<Service>,
        (sweeper, deletions): (Arc<Sweeper>, Deletions),
        reloads: Reloads,
        data_dir: PathBuf,
    ) -> Arc<Self> {
        Arc::new(Self {
            service,
            commands: Commands::default(),
            sweeper,
            deletions,
            reloads,
            data_dir,
            looks: Semaphore::new(LOOKS_AT_ONCE),
        })
    }

    /// The service behind it.
    pub fn service(&self) -> Arc<Service> {
        self.service.clone()
    }

    /// Does what a command comes to, and tells who asked.
    pub(super) async fn run(
        self: &Arc<Self>,
        caller: &Caller,
        operation: Operation,
    ) -> Result<Outcome, Refusal> {
        let (by, ping) = (caller.account.clone(), caller.ping);
        if operation.changes() {
            info!(%by, ?operation, "command");
        }
        // To its end, also where the stream ends before.
        let operations = self.clone();
        let done = tokio::spawn(async move {
            // Before a reload that may change it.
            let is_operator = operations.is_operator(&by);
            let done = operations.do_it(operation.clone(), ping).await;
            if let Err(refusal) = &done {
                info!(%by, ?refusal, "command failed");
            }
            operations.service.tell(Event::CommandRun {
                by: &by,
                is_operator,
                operation: &operation,
                outcome: done.as_ref(),
            });
            done
        });
        done.await.unwrap_or(Err(Refusal::Broken))
    }

    async fn do_it(&self, operation: Operation, ping: Ping) -> Result<Outcome, Refusal> {
        let (service, deletions) = (&self.service, &self.deletions);
        let _looking = match operation.changes() {
            true => None,
            false => Some(self.looks.acquire().await),
        };
        match operation {
            Operation::Overview => self.overview().await.map(Outcome::Overview),
            Operation::Uploads(search) => service.search(&search).await,
            Operation::Upload(named) => {
                let seen = service.find_named(&named).await?;
                Ok(Outcome::Upload(Box::new(seen), service.world.now()))
            }
            Operation::Usage(owner) => service.usage(owner).await.map(Outcome::Usage),
            Operation::Cancel(named) => service.abort(&named, deletions).await,
            Operation::Delete(named) => service.delete(&named, deletions).await,
            Operation::Purge(owner) => service.purge(&owner, deletions).await,
            Operation::Ban(wish) => Ok(service.ban(wish).await),
            Operation::Unban(subject, by) => Ok(service.unban(&subject, &by).await),
            Operation::Bans(page) => Ok(service.list_bans(page)),
            Operation::Sweep => Ok(self.sweep().await),
            Operation::RotateKeys => self.rotate_keys().await,
            Operation::Drain => Ok(service.set_draining(true)),
            Operation::Resume => Ok(service.set_draining(false)),
            Operation::Exceptions { skip } => Ok(Outcome::Exceptions(service.exceptions(skip))),
            Operation::SetException(jid, limit) => service.set_exception(jid, limit).await,
            Operation::Note => Ok(Outcome::Note(service.note())),
            Operation::SetNote(note) => service.set_note(note).await,
            Operation::Records(search) => service.records(&search).await,
            Operation::Configuration => {
                let configured = service.settings().configured.clone();
                Ok(Outcome::Configuration(configured))
            }
            Operation::Reload => self.reloads.ask().await.map(Outcome::Reloaded),
            Operation::SelfTest => self.test(ping).await,
        }
    }

    /// Tries files and rows; `ping` is what came of asking the server.
    async fn test(&self, ping: Ping) -> Result<Outcome, Refusal> {
        let service = &self.service;
        let tested = service.stores.files.test().await;
        let mut steps = tested.map_err(|e| broken("test the files", &e))?;
        let begun_at = service.world.monotonic();
        // Forgets what is not there: a commit like any other.
        let committed = service.stores.sessions.set_order("test".to_owned(), None);
        committed.await.map_err(|e| broken("test the rows", &e))?;
        let took = service.world.monotonic().saturating_sub(begun_at);
        steps.push(("commit a row", took));
        Ok(Outcome::Tested(steps, ping))
    }

    async fn overview(&self) -> Result<Overview, Refusal> {
        let service = &self.service;
        let totals = service.stores.sessions.totals().await;
        let totals = totals.map_err(|e| broken("read the sums", &e))?;
        let free = service.stores.files.room().await;
        Ok(Overview {
            uptime: service.uptime(),
            n_rows: totals.n_rows,
            n_files: totals.n_files,
            stored_bytes: totals.stored_bytes,
            free: free.map_err(|e| broken("ask for free space", &e))?,
            n_active: service.transfers.active().len(),
            n_keys: service.keys().list().len(),
            is_draining: service.is_draining(),
            note: service.note(),
        })
    }

    /// Sweeps until nothing is left to do.
    async fn sweep(&self) -> Outcome {
        let (mut n_removed, mut n_failed) = (0, 0);
        loop {
            let report = self.sweeper.sweep().await;
            n_removed += report.removed.len();
            n_failed = report.n_failed.max(n_failed);
            self.deletions.pass_on(report.removed).await;
            if !report.has_more {
                return Outcome::Swept {
                    n_removed,
                    n_failed,
                    is_resting: report.is_resting && n_removed == 0,
                };
            }
        }
    }

    async fn rotate_keys(&self) -> Result<Outcome, Refusal> {
        let (data_dir, service) = (self.data_dir.clone(), &self.service);
        let (secret, now) = (service.random_secret(), service.world.now());
        let _turn = service.turn_for_keys().await;
        let update = move || keys::update(&data_dir, |keys| Some(keys.rotate(secret, now)));
        match tokio::task::spawn_blocking(update).await {
            Ok(Ok(kept)) => {
                let n_keys = kept.list().len();
                service.set_keys(kept);
                Ok(Outcome::Rotated(n_keys))
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "could not rotate the signing keys");
                Err(Refusal::Broken)
            }
            Err(_) => Err(Refusal::Broken),
        }
    }
}

impl Service {
    /// Gives out no more slots, or some again; until then, or a restart.
    fn set_draining(&self, is_draining: bool) -> Outcome {
        self.is_draining.store(is_draining, Ordering::Relaxed);
        self.tell(Event::Draining { is_draining });
        Outcome::Draining(is_draining, self.transfers.active().len())
    }
}
