//! A file's bytes, as a stream.
//!
//! What is in the page cache is read in-line, without a change of thread; what is not, in the
//! blocking pool.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use rustix::io::{Errno, ReadWriteFlags};

use crate::core::slot::SlotId;
use crate::store::{Body, BodyError};

/// The largest piece.
const PIECE_BYTES: usize = 256 << 10;

struct Reading {
    id: SlotId,
    file: Arc<File>,
    rest: Range<u64>,
    buffer: BytesMut,
    /// The file system cannot tell whether it would wait.
    always_waits: bool,
}

/// The bytes `range` of an open file; the caller has checked that it has them.
pub(super) fn body(id: SlotId, file: File, range: Range<u64>) -> Body {
    let reading = Reading {
        id,
        file: Arc::new(file),
        rest: range,
        buffer: BytesMut::new(),
        always_waits: false,
    };
    stream::unfold(Some(reading), |reading| async {
        let mut reading = reading.filter(|reading| !reading.rest.is_empty())?;
        match reading.next().await {
            Ok(piece) => Some((Ok(piece), Some(reading))),
            Err(e) => {
                let slot = reading.id.short();
                tracing::error!(slot, error = %e, "a file cannot be read to its end");
                Some((Err(BodyError), None))
            }
        }
    })
    .boxed()
}

impl Reading {
    async fn next(&mut self) -> io::Result<Bytes> {
        let n_rest = self.rest.end - self.rest.start;
        let n_wanted = usize::try_from(n_rest).map_or(PIECE_BYTES, |n| n.min(PIECE_BYTES));
        let mut piece = match self.read_cached(n_wanted)? {
            Some(piece) => piece,
            None => self.read_waiting(n_wanted).await?,
        };
        if piece.is_empty() {
            // Somebody has cut the file meanwhile.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.rest.start += piece.len() as u64;
        Ok(piece.split().freeze())
    }

    /// Reads what the page cache has; `None` where it has nothing of it.
    fn read_cached(&mut self, n_wanted: usize) -> io::Result<Option<BytesMut>> {
        if self.always_waits {
            return Ok(None);
        }
        self.buffer.resize(n_wanted, 0);
        let mut into = [IoSliceMut::new(&mut self.buffer)];
        let flags = ReadWriteFlags::NOWAIT;
        match rustix::io::preadv2(&self.file, &mut into, self.rest.start, flags) {
            Ok(n_read) => Ok(Some(self.buffer.split_to(n_read))),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.always_waits = true;
                Ok(None)
            }
            Err(e) => Err(e.into()),
        }
    }

    async fn read_waiting(&mut self, n_wanted: usize) -> io::Result<BytesMut> {
        let (file, at) = (self.file.clone(), self.rest.start);
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = move || {
            buffer.resize(n_wanted, 0);
            let n_read = loop {
                match file.read_at(&mut buffer, at) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    read => break read?,
                }
            };
            buffer.truncate(n_read);
            Ok(buffer)
        };
        tokio::task::spawn_blocking(read).await?
    }
}
