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
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use crate::core::slot::{PartId, SlotId};
use crate::store::local::place::{file_name, part_name};
use crate::store::local::{Inner, damaged, trouble};
use crate::store::{Body, BodyError, Handle, Opened, StoreError};

/// The largest piece.
const PIECE_BYTES: u64 = 256 << 10;

struct Reading {
    id: SlotId,
    file: Arc<Handle>,
    rest: Range<u64>,
    /// The last piece's buffer: ours again once the piece is sent.
    spare: Option<Bytes>,
    /// The file system cannot tell whether it would wait.
    always_waits: bool,
}

impl Inner {
    /// The bytes `bytes` of a file, if it has them.
    pub(super) fn open(&self, id: SlotId, bytes: Range<u64>) -> Result<Opened, StoreError> {
        let missed = match self.handles.get(id) {
            Ok(file) if has_name(&file, id, bytes.end)? => return Ok(Opened { id, file, bytes }),
            Ok(_) => {
                // Somebody else removed it. There may be another of its name.
                self.handles.forget(id);
                None
            }
            Err(missed) => Some(missed),
        };
        let file = Arc::new(Handle::from(open(&self.place.files, &file_name(id), id)?));
        has_name(&file, id, bytes.end)?;
        if let Some(missed) = missed {
            self.handles.keep(id, missed, file.clone());
        }
        Ok(Opened { id, file, bytes })
    }

    /// The bytes `bytes` of a part, if it has them.
    pub(super) fn open_part(&self, part: PartId, bytes: Range<u64>) -> Result<Opened, StoreError> {
        let id = part.slot;
        let file = Arc::new(Handle::from(open(&self.place.parts, &part_name(part), id)?));
        has_name(&file, id, bytes.end)?;
        Ok(Opened { id, file, bytes })
    }
}

const OPENING: &str = "open a file";

fn open(directory: &File, name: &str, id: SlotId) -> Result<File, StoreError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => Err(damaged(id)),
        opened => Ok(File::from(opened.map_err(|e| trouble(OPENING, e.into()))?)),
    }
}

/// Whether an open file is still to be found; refuses what is no file of `n_bytes` at least.
fn has_name(file: &Handle, id: SlotId, n_bytes: u64) -> Result<bool, StoreError> {
    file.checked(n_bytes, |file| {
        let seen = rustix::fs::fstat(file).map_err(|e| trouble(OPENING, e.into()))?;
        let is_file = FileType::from_raw_mode(seen.st_mode).is_file();
        let size_bytes = u64::try_from(seen.st_size).unwrap_or(0);
        match seen.st_nlink {
            0 => Ok(None),
            _ if is_file && n_bytes <= size_bytes => Ok(Some(size_bytes)),
            _ => Err(damaged(id)),
        }
    })
}

/// The bytes of an open file; the caller has checked that it has them.
pub(in crate::store) fn body(opened: Opened) -> Body {
    let reading = Reading {
        id: opened.id,
        file: opened.file,
        rest: opened.bytes,
        spare: None,
        always_waits: false,
    };
    stream::unfold(Some(reading), |reading| async {
        let mut reading = reading.filter(|reading| !reading.rest.is_empty())?;
        match reading.next().await {
            Ok(piece) => Some((Ok(piece), Some(reading))),
            Err(e) => {
                let (slot, offset) = (reading.id.short(), reading.rest.start);
                tracing::error!(slot, offset, error = %e, "a file cannot be read to its end");
                Some((Err(BodyError), None))
            }
        }
    })
    .boxed()
}

impl Reading {
    async fn next(&mut self) -> io::Result<Bytes> {
        let mut buffer = self.take_buffer();
        let n_read = match self.read_cached(&mut buffer)? {
            Some(n_read) => n_read,
            None => {
                let (file, at) = (self.file.clone(), self.rest.start);
                let read = move || read_waiting(&file, buffer, at);
                let (n_read, filled) = tokio::task::spawn_blocking(read).await??;
                buffer = filled;
                n_read
            }
        };
        if n_read == 0 {
            // Somebody has cut the file meanwhile.
            self.file.doubt();
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.rest.start += n_read as u64;
        let whole = buffer.freeze();
        let piece = whole.slice(..n_read);
        self.spare = Some(whole);
        Ok(piece)
    }

    /// As much as the next piece may have: filled with zeros once a download, not once a piece.
    fn take_buffer(&mut self) -> BytesMut {
        let length = (self.rest.end - self.rest.start).min(PIECE_BYTES) as usize;
        let spare = self.spare.take();
        match spare.and_then(|spare| spare.try_into_mut().ok()) {
            Some(mut spare) if length <= spare.len() => {
                spare.truncate(length);
                spare
            }
            _ => BytesMut::zeroed(length),
        }
    }

    /// Reads what the page cache has; `None` where it has nothing of it.
    fn read_cached(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if self.always_waits {
            return Ok(None);
        }
        let mut into = [IoSliceMut::new(buffer)];
        let flags = ReadWriteFlags::NOWAIT;
        match rustix::io::preadv2(&**self.file, &mut into, self.rest.start, flags) {
            Ok(n_read) => Ok(Some(n_read)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.always_waits = true;
                Ok(None)
            }
            Err(e) => Err(e.into()),
        }
    }
}

fn read_waiting(file: &File, mut buffer: BytesMut, at: u64) -> io::Result<(usize, BytesMut)> {
    loop {
        match file.read_at(&mut buffer, at) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            read => return Ok((read?, buffer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::Advice;

    use super::*;

    const PIECE: usize = PIECE_BYTES as usize;

    fn content(n_bytes: usize) -> Vec<u8> {
        (0..n_bytes).map(|i| (i % 251) as u8).collect()
    }

    fn file_with(content: &[u8]) -> File {
        let file = tempfile::tempfile().expect("made");
        file.write_all_at(content, 0).expect("written");
        file
    }

    fn opened(file: File, bytes: Range<u64>) -> Opened {
        let file = Arc::new(Handle::from(file));
        Opened {
            id: SlotId(1),
            file,
            bytes,
        }
    }

    async fn read(file: &File, range: Range<u64>) -> Vec<u8> {
        let pieces = body(opened(file.try_clone().expect("cloned"), range));
        let pieces: Vec<_> = pieces.map(|piece| piece.expect("read")).collect().await;
        pieces.concat()
    }

    #[tokio::test]
    async fn every_range_is_exact() {
        let content = content(3 * PIECE + 5);
        let file = file_with(&content);
        let end = content.len();
        let starts = [0, 1, PIECE, end - 5];
        for (start, end) in starts
            .into_iter()
            .flat_map(|s| [2, PIECE, PIECE + 1, end].map(|e| (s, e)))
        {
            if start <= end {
                let read = read(&file, start as u64..end as u64).await;
                assert!(read == content[start..end], "{start}..{end}: other bytes");
            }
        }
    }

    /// A buffer is used again, but not before its piece is gone.
    #[tokio::test]
    async fn pieces_that_are_kept_do_not_change() {
        let content = content(4 * PIECE);
        let mut body = body(opened(file_with(&content), 0..content.len() as u64));
        let first = body.next().await.expect("a piece").expect("read");
        let second = body.next().await.expect("a piece").expect("read");
        let second_at = second.as_ptr();
        assert!(second == content[PIECE..2 * PIECE]);
        drop(second);
        let third = body.next().await.expect("a piece").expect("read");
        assert_eq!(
            third.as_ptr(),
            second_at,
            "a buffer that was free is not used"
        );
        assert!(third == content[2 * PIECE..3 * PIECE]);
        assert!(first == content[..PIECE], "a piece was overwritten");
    }

    /// What is not in the cache is read by another thread, and so is all on a file system that
    /// cannot tell.
    #[tokio::test]
    async fn cold_files_are_read() {
        let content = content(2 * PIECE + 1);
        let file = file_with(&content);
        file.sync_all().expect("synced");
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("dropped from the cache");
        assert!(read(&file, 0..content.len() as u64).await == content);
        let mut reading = Reading {
            id: SlotId(1),
            file: Arc::new(Handle::from(file)),
            rest: 1..4,
            spare: None,
            always_waits: true,
        };
        assert_eq!(reading.next().await.expect("read"), content[1..4]);
    }
}
