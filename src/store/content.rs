//! The bytes of uploads and files as they are handed on: a file of this machine, or a stream.

use std::fs::File;
use std::ops::{Deref, Range};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::Stream;

use crate::core::slot::SlotId;
use crate::store::local;

/// How long an open file is believed to have its name and its length: so long somebody else's
/// removal of it may go unseen.
const CHECKED_FOR: Duration = Duration::from_secs(1);
/// How long bytes that were in the page cache are believed to be there still, while they are asked
/// for. Where some were dropped all the same, whoever finds that sending takes long says so, and
/// they are looked for again.
const CACHED_FOR: Duration = Duration::from_secs(5);

/// The bytes of an upload or a download, in pieces of any size.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

/// A body ended before its end; why is known to whoever made it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body ended too early")]
pub struct BodyError;

/// The bytes of a file.
pub enum Content {
    /// Bytes of a file of this machine: whoever sends them may leave that to the kernel.
    File(Opened),
    /// Pieces, as they come.
    Stream(Body),
}

/// An open file of this machine, and which of its bytes are meant.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Whose it is, for the log.
    pub id: SlotId,
    /// It was long enough when it was looked at. Nobody of ours changes it.
    pub file: Arc<Handle>,
    /// From first to past the last.
    pub bytes: Range<u64>,
}

/// An open file, and what was lately seen of it.
#[derive(Debug)]
pub struct Handle {
    file: File,
    opened_at: Instant,
    checked: Seen,
    cached: Seen,
}

impl From<File> for Handle {
    fn from(file: File) -> Self {
        Self {
            file,
            opened_at: Instant::now(),
            checked: Seen::default(),
            cached: Seen::default(),
        }
    }
}

impl Deref for Handle {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Handle {
    /// Whether it lately had its name, and `n_bytes` at least; if not, `check` finds out how many
    /// it has.
    pub(crate) fn checked<E>(
        &self,
        n_bytes: u64,
        check: impl FnOnce(&File) -> Result<Option<u64>, E>,
    ) -> Result<bool, E> {
        let now = self.opened_at.elapsed();
        if self.checked.is_believed(n_bytes, now) {
            return Ok(true);
        }
        let found = check(&self.file)?;
        if let Some(found) = found {
            self.checked.note(found, now + CHECKED_FOR);
        }
        Ok(found.is_some())
    }

    /// It is not as it was seen: whoever asks next looks again.
    pub(crate) fn doubt(&self) {
        self.checked.forget();
        self.cached.forget();
    }

    /// Whether the page cache has these bytes, by `probe`, or had them lately. Remembered from the
    /// first byte on.
    pub(crate) fn is_cached(&self, bytes: Range<u64>, probe: impl FnOnce(&File) -> bool) -> bool {
        let now = self.opened_at.elapsed();
        if self.cached.is_believed(bytes.end, now) {
            return true;
        }
        let is_cached = probe(&self.file);
        if is_cached && bytes.start == 0 {
            self.cached.note(bytes.end, now + CACHED_FOR);
        } else if is_cached && self.cached.is_believed(bytes.start, now) {
            self.cached.extend(bytes.end);
        }
        is_cached
    }
}

/// A number of bytes that was found, and until when, since the file was opened, that is believed.
#[derive(Debug, Default)]
struct Seen {
    n_bytes: AtomicU64,
    until_ms: AtomicU64,
}

impl Seen {
    fn is_believed(&self, n_bytes: u64, now: Duration) -> bool {
        let until = Duration::from_millis(self.until_ms.load(Ordering::Acquire));
        now < until && n_bytes <= self.n_bytes.load(Ordering::Relaxed)
    }

    fn note(&self, n_bytes: u64, until: Duration) {
        self.n_bytes.store(n_bytes, Ordering::Relaxed);
        let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.until_ms.store(until, Ordering::Release);
    }

    fn forget(&self) {
        self.until_ms.store(0, Ordering::Release);
    }

    /// More was found behind it.
    fn extend(&self, n_bytes: u64) {
        self.n_bytes.fetch_max(n_bytes, Ordering::Relaxed);
    }
}

impl Content {
    /// The bytes as a stream: those in the page cache are read in-line, the others in the blocking
    /// pool.
    pub fn into_body(self) -> Body {
        match self {
            Self::File(opened) => local::body(opened),
            Self::Stream(body) => body,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_believed_for_a_while_and_no_further_than_it_was_seen() {
        let seen = Seen::default();
        let until = Duration::from_secs(5);
        assert!(!seen.is_believed(0, Duration::ZERO));
        seen.note(10, until);
        assert!(seen.is_believed(10, Duration::ZERO) && !seen.is_believed(11, Duration::ZERO));
        assert!(!seen.is_believed(10, until));
        seen.forget();
        assert!(!seen.is_believed(10, Duration::ZERO));
    }

    #[test]
    fn bytes_are_probed_once_from_the_first_on() {
        let handle = Handle::from(tempfile::tempfile().expect("made"));
        let ask = |bytes| {
            let mut is_probed = false;
            let is_cached = handle.is_cached(bytes, |_| {
                is_probed = true;
                true
            });
            assert!(is_cached);
            is_probed
        };
        assert!(ask(20..30), "nothing was seen");
        assert!(ask(20..30), "not from the first byte on");
        assert!(ask(0..10));
        assert!(!ask(0..10) && !ask(5..10));
        assert!(ask(10..20), "not seen yet");
        assert!(!ask(0..20) && !ask(10..20));
        assert!(ask(25..30), "bytes between were not seen");
        assert!(!handle.is_cached(0..40, |_| false));
        assert!(!ask(0..20), "the others were seen");
    }
}
