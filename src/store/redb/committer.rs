//! Many writers, one thread, one commit for all that wait.
//!
//! A writer hands its operation over a bounded queue and waits. The thread takes what is there,
//! runs it all in one transaction, commits, and only then answers. A commit costs more than a row:
//! while many write, the thread lets them run first, so that more share the next. Where redb fails,
//! nobody of the batch is told that anything happened, and the database is closed and opened again:
//! after an I/O error redb takes no further transaction. So a full disk ends when it has room
//! again, without a restart.
//!
//! Who has nothing to do for a moment leaves the file as a quick start wants it: see `opening`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ::redb::{Database, ReadTransaction, StorageError};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use crate::meters;
use crate::store::Failure;
use crate::store::redb::disk::Syncs;
use crate::store::redb::opening::{self, Check};
use crate::store::redb::schema::{Fault, Outcome, Tables};
use crate::store::redb::snapshot::Open;
use crate::store::redb::trouble::Trouble;
use crate::store::redb::waiting::{Pace, Received, await_others, gather, receive};

/// Writers that may wait for the thread; more wait for a place in the queue.
const QUEUE_MAX: usize = 4096;
/// Operations in one commit.
const BATCH_MAX: usize = 1024;
/// So many who can wait a little are a crowd, in which more are about to write.
const CROWD: usize = 8;
/// For a crowd a commit begins so long after the last one: it costs as much as thirty slots.
const CROWD_COMMITS_EVERY: Duration = Duration::from_millis(8);
/// Those who shared a commit so long ago may share the next: after that each is alone again.
const LATELY: Duration = Duration::from_millis(10);
/// Free bytes below which nothing is written: redb would stop in the middle of it.
const FREE_BYTES_MIN: u64 = 4 << 20;
/// How long to wait before the second attempt to open again after an error; then twice as long.
const REOPEN_AFTER_MIN: Duration = Duration::from_millis(100);
/// The longest such wait.
const REOPEN_AFTER_MAX: Duration = Duration::from_secs(2);
/// How long nobody writes before the file is settled: so seldom that nobody waits behind it often,
/// and so soon that a kill rarely comes before.
const SETTLE_AFTER: Duration = Duration::from_millis(250);

/// The database, which may be closed for a moment.
pub(super) struct Shared {
    path: PathBuf,
    syncs: Syncs,
    database: RwLock<Option<Open>>,
    /// Somebody met an error after which redb does nothing any more.
    has_failed: AtomicBool,
    /// The error said that the file is damaged.
    is_damaged: AtomicBool,
    /// Nothing was committed after the last attempt to settle the file.
    is_settled: AtomicBool,
}

impl Shared {
    pub(super) fn new(path: PathBuf, syncs: Syncs, database: Database) -> Self {
        Self {
            path,
            syncs,
            database: RwLock::new(Some(Open::new(database))),
            has_failed: AtomicBool::new(false),
            is_damaged: AtomicBool::new(false),
            is_settled: AtomicBool::new(true),
        }
    }

    /// Runs `work` on a snapshot; in-line, for it takes a microsecond.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T, Trouble> {
        self.read_open(|open| work(&*open.snapshot()?))
    }

    /// The same for who can do without a snapshot.
    pub(super) fn read_open<T>(
        &self,
        work: impl FnOnce(&Open) -> Result<T, Fault>,
    ) -> Result<T, Trouble> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        // After a failure nobody knows whether the last commit is in it, until it is opened again.
        let has_failed = self.has_failed.load(Ordering::Acquire);
        let open = database.as_ref().filter(|_| !has_failed);
        let open = open.ok_or(Trouble::Closed)?;
        let read = || work(open);
        // A page that is damaged may be a panic of redb's.
        let panicked = || Fault::Corrupted("a page cannot be read".to_owned());
        let read = catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(panicked()));
        read.map_err(|fault| self.note(fault))
    }

    /// Notes an error of redb's, so that the thread opens the database again.
    fn note(&self, fault: Fault) -> Trouble {
        let trouble = Trouble::from(fault);
        if matches!(trouble, Trouble::Damaged(_)) {
            self.is_damaged.store(true, Ordering::Relaxed);
        }
        self.has_failed.store(true, Ordering::Release);
        trouble
    }

    /// Runs all jobs in one transaction and commits it.
    fn commit(&self, batch: &mut [Box<dyn Job>]) -> Result<(), Trouble> {
        self.check_room()?;
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let open = database.as_ref().ok_or(Trouble::Closed)?;
        let run = |database: &Database| -> Result<(), Fault> {
            let transaction = database.begin_write()?;
            let mut tables = Tables::open(&transaction)?;
            for job in batch {
                job.run(&mut tables)?;
            }
            let was_complete = std::mem::take(&mut tables.was_complete);
            match tables.finish()? {
                true => {
                    was_complete
                        .into_iter()
                        .for_each(|id| open.forget_served(id));
                    self.is_settled.store(false, Ordering::Relaxed);
                    transaction.commit()?;
                }
                false => transaction.abort()?,
            }
            Ok(())
        };
        open.commit(run).map_err(|fault| self.note(fault))
    }

    /// Commits nothing but what spares the next open a walk through the file: see `opening`.
    ///
    /// Costs two syncs and a few pages. The next commit makes it void.
    fn settle(&self) -> Result<(), Trouble> {
        // Tried once: a failure costs the next start its time, and nobody else.
        self.is_settled.store(true, Ordering::Relaxed);
        // Without syncs the next open walks through all of it anyway.
        if self.syncs == Syncs::No {
            return Ok(());
        }
        self.check_room()?;
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let open = database.as_ref().ok_or(Trouble::Closed)?;
        let run = |database: &Database| -> Result<(), Fault> {
            let mut transaction = database.begin_write()?;
            transaction.set_quick_repair(true);
            Ok(transaction.commit()?)
        };
        open.commit(run).map_err(|fault| self.note(fault))
    }

    fn check_room(&self) -> Result<(), Trouble> {
        match rustix::fs::statvfs(&self.path) {
            Ok(free) if free.f_bavail.saturating_mul(free.f_frsize) < FREE_BYTES_MIN => {
                Err(Trouble::NoSpace)
            }
            // A file system that does not tell is no reason not to try.
            _ => Ok(()),
        }
    }

    fn place(&self) -> RwLockWriteGuard<'_, Option<Open>> {
        self.database
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn reopen(&self) -> Result<(), Trouble> {
        let check = match self.is_damaged.load(Ordering::Relaxed) {
            true => Check::Everything,
            false => Check::Nothing,
        };
        // Closes it: redb lets go of its lock. That writes and syncs, so not while readers wait:
        // they find it closed.
        let old = self.place().take();
        let open = AssertUnwindSafe(|| {
            drop(old);
            opening::forget_cached(&self.path);
            opening::open_writer(&self.path, self.syncs, check)
        });
        // redb may panic over a damaged file; the next attempt verifies it first.
        let opened = catch_unwind(open).unwrap_or_else(|_| {
            self.is_damaged.store(true, Ordering::Relaxed);
            Err(StorageError::Corrupted("it cannot be read".to_owned()).into())
        });
        let opened = opened.map_err(|e| Trouble::from(Fault::from(e)))?;
        *self.place() = Some(Open::new(opened));
        self.has_failed.store(false, Ordering::Release);
        self.is_damaged.store(false, Ordering::Relaxed);
        Ok(())
    }
}

/// One writer's operation.
trait Job: Send {
    /// Whether its writer gains nothing by an answer within milliseconds.
    fn is_patient(&self) -> bool;
    /// Runs it; an error fails the transaction.
    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), Fault>;
    /// Tells the writer what came of it.
    fn answer(self: Box<Self>, committed: &Result<(), Trouble>);
}

struct Write<T, W> {
    doing: &'static str,
    is_patient: bool,
    work: Option<W>,
    outcome: Option<Result<T, Failure>>,
    reply: oneshot::Sender<Result<T, Failure>>,
}

impl<T, W> Job for Write<T, W>
where
    T: Send,
    W: FnOnce(&mut Tables<'_>) -> Outcome<T> + Send,
{
    fn is_patient(&self) -> bool {
        self.is_patient
    }

    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), Fault> {
        if let Some(work) = self.work.take() {
            self.outcome = Some(work(tables)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, committed: &Result<(), Trouble>) {
        // A refusal too may rest on what was not committed.
        let answer = match (committed, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            (Ok(()), None) => Err(Trouble::Closed.into_error(self.doing).into()),
            (Err(trouble), _) => Err(trouble.clone().into_error(self.doing).into()),
        };
        // A writer that went away has no use for the answer.
        drop(self.reply.send(answer));
    }
}

/// The thread, and the way to it.
pub(super) struct Committer {
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    /// Starts the thread.
    pub(super) fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let thread = thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || Loop::new(shared).run(jobs))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Runs `work` in the next transaction, and returns when it is durable.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        doing: &'static str,
        pace: Pace,
        work: impl FnOnce(&mut Tables<'_>) -> Outcome<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let _timed = meters::work().time_row_write();
        let (reply, answer) = oneshot::channel();
        let job = Write {
            doing,
            is_patient: pace == Pace::Patient,
            work: Some(work),
            outcome: None,
            reply,
        };
        let gone = || Trouble::Closed.into_error(doing);
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.send(Box::new(job)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        // Without senders the thread ends once the queue is empty. Waiting for it lets the next
        // one open the file.
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the committer ended early");
        }
    }
}

/// What the thread does.
struct Loop {
    shared: Arc<Shared>,
    /// Why the database is closed.
    trouble: Trouble,
    /// When to try to open it again.
    reopen_at: Instant,
    reopen_after: Duration,
}

impl Loop {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            trouble: Trouble::Closed,
            reopen_at: Instant::now(),
            reopen_after: Duration::ZERO,
        }
    }

    fn run(mut self, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let (mut n_before, mut is_crowd) = (0, false);
        let [mut began_at, mut ended_at] = [Instant::now(); 2];
        loop {
            let is_settled = self.shared.is_settled.load(Ordering::Relaxed);
            match receive(&mut jobs, (!is_settled).then_some(SETTLE_AFTER)) {
                Received::Item(first) => batch.push(first),
                Received::Nothing => {
                    drop(self.attempt(Shared::settle));
                    drop(self.ensure_open());
                    continue;
                }
                Received::End => return,
            }
            if is_crowd && batch.iter().all(|job| job.is_patient()) {
                thread::sleep(CROWD_COMMITS_EVERY.saturating_sub(began_at.elapsed()));
            } else if ended_at.elapsed() < LATELY {
                await_others(|| batch.len() + jobs.len() < n_before, thread::sleep);
            }
            let give_way = (1 < n_before).then_some(thread::yield_now);
            gather(&mut jobs, &mut batch, BATCH_MAX, give_way);
            (n_before, began_at) = (batch.len(), Instant::now());
            is_crowd = CROWD <= n_before && batch.iter().all(|job| job.is_patient());
            let committed = self.attempt(|shared| shared.commit(&mut batch));
            meters::work().count_commit(batch.len(), began_at.elapsed(), committed.is_ok());
            for job in batch.drain(..) {
                job.answer(&committed);
            }
            ended_at = Instant::now();
            // Readers want it open again also when nobody writes.
            drop(self.ensure_open());
        }
    }

    fn attempt(
        &mut self,
        commit: impl FnOnce(&Shared) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        self.ensure_open()?;
        // A panic in one batch must not end the thread: everything after it would hang in the air.
        let commit = AssertUnwindSafe(|| commit(&self.shared));
        let committed = catch_unwind(commit).unwrap_or_else(|_| {
            error!("a commit panicked");
            self.shared.has_failed.store(true, Ordering::Release);
            Err(Trouble::Closed)
        });
        if committed.is_ok() {
            self.reopen_after = Duration::ZERO;
        }
        committed
    }

    fn ensure_open(&mut self) -> Result<(), Trouble> {
        if !self.shared.has_failed.load(Ordering::Acquire) {
            return Ok(());
        }
        if Instant::now() < self.reopen_at {
            return Err(self.trouble.clone());
        }
        // At once for the first time; then ever later, until a commit succeeds.
        let wait = self.reopen_after;
        self.reopen_at = Instant::now() + wait;
        self.reopen_after = (wait * 2).clamp(REOPEN_AFTER_MIN, REOPEN_AFTER_MAX);
        let path = self.shared.path.display();
        match self.shared.reopen() {
            Ok(()) => {
                warn!(%path, "the database was opened again after an error");
                Ok(())
            }
            Err(trouble) => {
                error!(%path, error = %trouble, "the database cannot be opened again yet");
                self.trouble = trouble.clone();
                Err(trouble)
            }
        }
    }
}
