//! A part on its way in: written in line while the disk keeps up, made durable every so often.
//!
//! A writer that was left behind cannot harm: it writes at its own offsets of its own attempt.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, join};
use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::core::slot::PartId;
use crate::store::local::name::{Dir, file_path, part_path};
use crate::store::local::sync::Syncer;
use crate::store::local::tree::Tree;
use crate::store::local::{blocking, lost, trouble};
use crate::store::{Body, BodyError, Failure, Progress, StoreError};

/// Bytes after which what came is made durable.
const FLUSH_BYTES: u64 = 8 << 20;
/// Time after which what came is made durable.
const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// Bytes taken beyond what is durable; then the disk has to catch up first.
const UNFLUSHED_MAX: u64 = 2 * FLUSH_BYTES;
/// Bytes that another thread writes at once.
const GATHER_BYTES: usize = 256 << 10;
/// A write that took longer stood in the way of others on its thread.
const SLOW_WRITE: Duration = Duration::from_millis(5);

const WRITING: &str = "writing an upload";

/// A sync that runs, and the durable length when it is done.
type Flush = BoxFuture<'static, Result<u64, StoreError>>;

/// `FileStore::append`.
pub(super) async fn append(
    tree: Arc<Tree>,
    syncer: Arc<Syncer>,
    part: PartId,
    span: Span,
    body: Body,
    progress: Progress,
) -> Result<u64, Failure> {
    let opening = tree.clone();
    let file = blocking(WRITING, move || open(&opening, part, span)).await?;
    let mut writer = Writer {
        part,
        file: Arc::new(file),
        syncer,
        // What an earlier append left was settled by name, too.
        is_named: 0 < span.from,
        length: span.from,
        gathered: Vec::new(),
        n_gathered: 0,
        flushed: span.from,
        told: span.from,
        is_slow: false,
    };
    let appended = match writer.run(body, &progress).await {
        Ok(()) => writer.finish(span.size_bytes).await.map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    if appended.is_err() {
        writer.give_up(tree).await;
    }
    appended
}

/// Where an append begins, and where it should end.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) size_bytes: u64,
}

fn open(tree: &Tree, part: PartId, span: Span) -> Result<File, StoreError> {
    let path = part_path(part);
    let file = match span.from {
        0 => tree.create(&path).map_err(|e| trouble(WRITING, e))?,
        from => open_at(tree, part, from)?,
    };
    let Err(e) = reserve(&file, span) else {
        return Ok(file);
    };
    if span.from == 0 {
        discard(tree, part);
    }
    Err(trouble("reserving room for an upload", e))
}

/// Opens a part and cuts it back to `from`.
fn open_at(tree: &Tree, part: PartId, from: u64) -> Result<File, StoreError> {
    let file = match tree.open(&part_path(part), OFlags::WRONLY) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(lost(part.slot)),
        opened => opened.map_err(|e| trouble(WRITING, e))?,
    };
    let length = file.metadata().map_err(|e| trouble(WRITING, e))?.len();
    if length < from {
        return Err(lost(part.slot));
    }
    file.set_len(from).map_err(|e| trouble(WRITING, e))?;
    Ok(file)
}

/// A full disk shows before the first byte; the length stays what was written.
fn reserve(file: &File, span: Span) -> io::Result<()> {
    let n_bytes = span.size_bytes.saturating_sub(span.from);
    if n_bytes == 0 {
        return Ok(());
    }
    let keep_size = FallocateFlags::KEEP_SIZE;
    loop {
        match rustix::fs::fallocate(file, keep_size, span.from, n_bytes) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Removes a part of which nothing was told; it may as well stay, and a sweep finds it.
fn discard(tree: &Tree, part: PartId) {
    if let Err(e) = tree.remove(&part_path(part)) {
        debug!(slot = part.slot.short(), error = %e, "a part was left behind");
    }
}

/// One running append.
struct Writer {
    part: PartId,
    file: Arc<File>,
    syncer: Arc<Syncer>,
    /// Whether the part's name is durable.
    is_named: bool,
    /// Bytes written.
    length: u64,
    /// Pieces behind them that another thread shall write.
    gathered: Vec<Bytes>,
    n_gathered: usize,
    /// Up to where a sync was begun, at least.
    flushed: u64,
    /// What `progress` was told last.
    told: u64,
    /// Whether a write kept its thread waiting.
    is_slow: bool,
}

enum Event {
    Piece(Option<Result<Bytes, BodyError>>),
    Flushed(Result<u64, StoreError>),
    Due,
}

impl Writer {
    /// Writes until the body ends or `progress` refuses; a sync that still runs is waited for.
    async fn run(&mut self, mut body: Body, progress: &Progress) -> Result<(), Failure> {
        let mut flush: Option<Flush> = None;
        let timer = sleep_until(Instant::now() + FLUSH_EVERY);
        tokio::pin!(timer);
        loop {
            let event = tokio::select! {
                biased;
                flushed = wait(&mut flush), if flush.is_some() => Event::Flushed(flushed),
                () = &mut timer, if flush.is_none() && 0 < self.unflushed() => Event::Due,
                piece = body.next(), if self.unflushed() < UNFLUSHED_MAX => Event::Piece(piece),
            };
            match event {
                Event::Piece(Some(Ok(piece))) => {
                    if self.unflushed() == 0 && flush.is_none() {
                        timer.as_mut().reset(Instant::now() + FLUSH_EVERY);
                    }
                    self.take(piece).await?;
                    if flush.is_none() && FLUSH_BYTES <= self.unflushed() {
                        flush = Some(self.flush().await?);
                    }
                }
                Event::Due => flush = Some(self.flush().await?),
                Event::Flushed(durable) => {
                    flush = None;
                    timer.as_mut().reset(Instant::now() + FLUSH_EVERY);
                    if self.tell(durable?, progress).await?.is_break() {
                        return Ok(());
                    }
                }
                // Early or not: the service knows how long it should have been.
                Event::Piece(None | Some(Err(_))) => break,
            }
        }
        if let Some(flush) = flush {
            flush.await?;
        }
        Ok(())
    }

    /// Bytes that came since the last sync began.
    fn unflushed(&self) -> u64 {
        self.length + self.n_gathered as u64 - self.flushed
    }

    async fn take(&mut self, piece: Bytes) -> Result<(), StoreError> {
        if self.is_slow {
            self.n_gathered += piece.len();
            self.gathered.push(piece);
            return match GATHER_BYTES <= self.n_gathered {
                true => self.write_gathered().await,
                false => Ok(()),
            };
        }
        let began_at = std::time::Instant::now();
        let written = self.file.write_all_at(&piece, self.length);
        written.map_err(|e| trouble(WRITING, e))?;
        self.length += piece.len() as u64;
        if SLOW_WRITE < began_at.elapsed() {
            debug!(slot = self.part.slot.short(), "the disk is slow");
            self.is_slow = true;
        }
        Ok(())
    }

    async fn write_gathered(&mut self) -> Result<(), StoreError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let pieces = std::mem::take(&mut self.gathered);
        let (file, mut at) = (self.file.clone(), self.length);
        let write = move || {
            for piece in pieces {
                file.write_all_at(&piece, at)
                    .map_err(|e| trouble(WRITING, e))?;
                at += piece.len() as u64;
            }
            Ok(at)
        };
        self.length = blocking(WRITING, write).await?;
        self.n_gathered = 0;
        Ok(())
    }

    /// Begins to make durable what came, beside what comes.
    async fn flush(&mut self) -> Result<Flush, StoreError> {
        self.write_gathered().await?;
        self.flushed = self.length;
        let (file, syncer, length) = (self.file.clone(), self.syncer.clone(), self.length);
        // Once begun it is either done when anything is told, or nothing ever is.
        let is_named = std::mem::replace(&mut self.is_named, true);
        Ok(Box::pin(async move {
            let name = async {
                match is_named {
                    true => Ok(()),
                    false => syncer.names(Dir::Parts).await,
                }
            };
            let (data, name) = join(syncer.data(&file), name).await;
            data.and(name).map(|()| length)
        }))
    }

    async fn tell(
        &mut self,
        durable: u64,
        progress: &Progress,
    ) -> Result<std::ops::ControlFlow<()>, Failure> {
        self.told = durable;
        match progress(durable).await {
            Ok(()) => Ok(std::ops::ControlFlow::Continue(())),
            Err(Failure::Refused(_)) => Ok(std::ops::ControlFlow::Break(())),
            Err(broken) => Err(broken),
        }
    }

    /// Makes durable all that came, and returns its length.
    async fn finish(&mut self, size_bytes: u64) -> Result<u64, StoreError> {
        self.write_gathered().await?;
        if self.length < size_bytes {
            // An upload that is broken off keeps no room that it may never use.
            let (file, length) = (self.file.clone(), self.length);
            blocking(WRITING, move || {
                file.set_len(length).map_err(|e| trouble(WRITING, e))
            })
            .await?;
        }
        self.flush().await?.await
    }

    /// After an error only what was told counts. What a failed sync leaves behind is unknown, and
    /// a second one would call it durable: so nothing of it stays.
    async fn give_up(&mut self, tree: Arc<Tree>) {
        let (file, part, told) = (self.file.clone(), self.part, self.told);
        let cut = blocking(WRITING, move || {
            if told == 0 {
                discard(&tree, part);
            }
            file.set_len(told).map_err(|e| trouble(WRITING, e))
        });
        if let Err(e) = cut.await {
            warn!(slot = part.slot.short(), error = %e, "a broken part could not be cut back");
        }
    }
}

/// Waits for a sync that runs.
async fn wait(flush: &mut Option<Flush>) -> Result<u64, StoreError> {
    match flush {
        Some(flush) => flush.await,
        None => std::future::pending().await,
    }
}

/// `FileStore::settle`.
pub(super) async fn settle(
    tree: Arc<Tree>,
    syncer: Arc<Syncer>,
    part: PartId,
) -> Result<u64, StoreError> {
    let doing = "settling an upload";
    let opened = blocking(doing, move || {
        take_back(&tree, part).map_err(|e| trouble(doing, e))
    });
    let Some(settled) = opened.await? else {
        return Ok(0);
    };
    let file = Arc::new(settled.file);
    let names = async {
        let parts = syncer.names(Dir::Parts).await;
        match settled.was_committed {
            true => parts.and(syncer.names(Dir::of(part.slot)).await),
            false => parts,
        }
    };
    let (data, names) = join(syncer.data(&file), names).await;
    data.and(names).map(|()| settled.length)
}

struct Settled {
    file: File,
    length: u64,
    was_committed: bool,
}

/// Opens a part, or makes the slot's file the part.
fn take_back(tree: &Tree, part: PartId) -> io::Result<Option<Settled>> {
    let path = part_path(part);
    let is_gone = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
    let mut was_committed = false;
    let file = match tree.open(&path, OFlags::WRONLY) {
        Err(e) if is_gone(&e) => {
            match tree.rename(&file_path(part.slot), &path) {
                Err(e) if is_gone(&e) => return Ok(None),
                renamed => renamed?,
            }
            was_committed = true;
            tree.open(&path, OFlags::WRONLY)?
        }
        opened => opened?,
    };
    let length = file.metadata()?.len();
    // Gives back the room that a crash left reserved behind the end.
    file.set_len(length)?;
    Ok(Some(Settled {
        file,
        length,
        was_committed,
    }))
}
