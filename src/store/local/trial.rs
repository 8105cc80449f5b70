//! Tries the disk on a file without a name, which no crash leaves behind.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use crate::config::Durability;
use crate::store::local::Inner;
use crate::store::local::place::{FILE_MODE, fan_of};

/// How much is written and read.
const TEST_BYTES: usize = 1 << 20;

impl Inner {
    pub(super) fn try_out(&self) -> io::Result<Vec<(&'static str, Duration)>> {
        let mut steps = Vec::new();
        let mut timed = |step, since: Instant| steps.push((step, since.elapsed()));
        let bytes: Vec<u8> = (0..TEST_BYTES).map(|at| (at % 251) as u8).collect();
        let begun = Instant::now();
        let mut file = self.nameless()?;
        timed("create", begun);
        let begun = Instant::now();
        file.write_all(&bytes)?;
        timed("write 1 MiB", begun);
        if self.durability != Durability::None {
            let begun = Instant::now();
            file.sync_data()?;
            timed("sync", begun);
        }
        let begun = Instant::now();
        let mut got = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut got)?;
        timed("read", begun);
        if got != bytes {
            return Err(io::Error::other("other bytes were read than were written"));
        }
        let begun = Instant::now();
        drop(file);
        timed("remove", begun);
        Ok(steps)
    }

    fn nameless(&self) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let mode = Mode::from(FILE_MODE);
        let opened = rustix::fs::openat(&self.place.parts, fan_of(0), flags, mode);
        Ok(File::from(opened?))
    }
}
