//! A file on its way out: what the page cache has is read in line, the rest by another thread.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream;
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags};
use tracing::warn;

use crate::core::slot::SlotId;
use crate::store::local::name::file_path;
use crate::store::local::tree::Tree;
use crate::store::local::{lost, trouble};
use crate::store::{Body, BodyError, StoreError};

/// Most bytes read at once: measured, more gains nothing.
const PIECE_BYTES: u64 = 256 << 10;

/// Opens the bytes of a file. In line: names that are asked for are mostly in the cache.
pub(super) fn open(tree: &Tree, id: SlotId, bytes: Range<u64>) -> Result<Body, StoreError> {
    let doing = "opening a file";
    let file = match tree.open(&file_path(id), OFlags::RDONLY) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(lost(id)),
        Err(e) => return Err(trouble(doing, e)),
    };
    let length = file.metadata().map_err(|e| trouble(doing, e))?.len();
    if length < bytes.end {
        return Err(lost(id));
    }
    let reader = Reader {
        id,
        file: Arc::new(file),
        rest: bytes,
        spare: None,
        knows_cache: true,
    };
    Ok(stream::unfold(Some(reader), |reader| async move { reader?.next().await }).boxed())
}

struct Reader {
    id: SlotId,
    file: Arc<File>,
    rest: Range<u64>,
    /// The buffer of the last piece; ours again once the piece is sent.
    spare: Option<Bytes>,
    /// Whether the file system can tell what is in its cache.
    knows_cache: bool,
}

impl Reader {
    /// The next piece, and the reader where there is more to come.
    async fn next(mut self) -> Option<(Result<Bytes, BodyError>, Option<Self>)> {
        if self.rest.is_empty() {
            return None;
        }
        let problem = match self.read().await {
            Ok(piece) if !piece.is_empty() => {
                self.rest.start += piece.len() as u64;
                return Some((Ok(piece), Some(self)));
            }
            Ok(_) => io::Error::from(io::ErrorKind::UnexpectedEof),
            Err(e) => e,
        };
        warn!(
            slot = self.id.short(),
            offset = self.rest.start,
            error = %problem,
            "a file could not be read to its end"
        );
        Some((Err(BodyError), None))
    }

    /// Reads what is next; empty where the file ends.
    async fn read(&mut self) -> io::Result<Bytes> {
        let mut buffer = self.buffer();
        let n_read = match self.read_cached(&mut buffer) {
            Some(read) => read?,
            None => {
                let (file, at) = (self.file.clone(), self.rest.start);
                let read = tokio::task::spawn_blocking(move || {
                    let n_read = file.read_at(&mut buffer, at);
                    n_read.map(|n_read| (buffer, n_read))
                });
                let (filled, n_read) = read.await.map_err(io::Error::other)??;
                buffer = filled;
                n_read
            }
        };
        let whole = buffer.freeze();
        let piece = whole.slice(..n_read);
        self.spare = Some(whole);
        Ok(piece)
    }

    /// Reads without waiting for the disk; nothing where that cannot be.
    fn read_cached(&mut self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        if !self.knows_cache {
            return None;
        }
        let mut buffers = [IoSliceMut::new(buffer)];
        let flags = ReadWriteFlags::NOWAIT;
        match rustix::io::preadv2(&*self.file, &mut buffers, self.rest.start, flags) {
            Ok(n_read) => Some(Ok(n_read)),
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.knows_cache = false;
                None
            }
            Err(e) => Some(Err(e.into())),
        }
    }

    /// As many bytes as the next piece may have. A buffer is filled with zeros once, not for each
    /// piece.
    fn buffer(&mut self) -> BytesMut {
        let length = (self.rest.end - self.rest.start).min(PIECE_BYTES) as usize;
        let spare = self
            .spare
            .take()
            .and_then(|spare| spare.try_into_mut().ok());
        match spare {
            Some(mut spare) if length <= spare.len() => {
                spare.truncate(length);
                spare
            }
            _ => BytesMut::zeroed(length),
        }
    }
}
