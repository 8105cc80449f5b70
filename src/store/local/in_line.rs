//! Work that the page cache takes as fast as memory: done at once, while the disk lets it.
//!
//! Two changes of threads cost as much as making a small file does. But even the page cache waits
//! for a disk that stalls. So no more than one thread makes a small file in line at a time: the
//! others go on, and serve everybody else. And work that took long sends what follows to the
//! blocking pool, for longer the longer it took. (Pieces of large uploads are written in line as
//! well; each upload has its own memory of that: see `append`.)

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// Work that takes longer has waited for the disk, or for the processor.
const WORK_MAX: Duration = Duration::from_millis(5);
/// How long after such work nothing is done in line, at least; at most; and by how long it took.
const SLOW_FOR: Duration = Duration::from_millis(100);
const SLOW_FOR_MAX: Duration = Duration::from_secs(30);
const SLOW_TIMES: u32 = 20;

/// The right to work in line, and until when nobody has it.
#[derive(Default)]
pub(super) struct InLine {
    slow_until: Mutex<Option<Instant>>,
}

impl InLine {
    /// Does `work` now; `None` where it belongs into the blocking pool, and was not begun.
    pub(super) fn run<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        // Held while it works: whoever finds it taken does not wait.
        let mut slow_until = self.slow_until.try_lock().ok()?;
        let begun = Instant::now();
        if slow_until.is_some_and(|until| begun < until) || !are_there_others() {
            return None;
        }
        let done = work();
        let ended = Instant::now();
        let took = ended - begun;
        if WORK_MAX < took {
            *slow_until = Some(ended + (took * SLOW_TIMES).clamp(SLOW_FOR, SLOW_FOR_MAX));
        }
        Some(done)
    }
}

/// Whether there are more threads to serve everybody else.
fn are_there_others() -> bool {
    Handle::try_current().is_ok_and(|handle| 1 < handle.metrics().num_workers())
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_at_a_time() {
        let in_line = InLine::default();
        assert_eq!(in_line.run(|| in_line.run(|| 1)), Some(None));
        assert_eq!(InLine::default().run(|| 2), Some(2));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn after_slow_work_nothing_for_a_while() {
        let in_line = InLine::default();
        let slow_until = || in_line.slow_until.lock().expect("no panic");
        assert_eq!(in_line.run(|| sleep(2 * WORK_MAX)), Some(()));
        let noted = slow_until().expect("slow");
        assert!(Instant::now() + SLOW_FOR < noted && noted <= Instant::now() + SLOW_FOR_MAX);
        *slow_until() = Some(Instant::now() + 1000 * SLOW_FOR);
        assert_eq!(in_line.run(|| ()), None);
        *slow_until() = Some(Instant::now());
        assert_eq!(in_line.run(|| ()), Some(()));
    }

    #[tokio::test]
    async fn the_only_thread_waits_for_no_disk() {
        assert_eq!(InLine::default().run(|| ()), None);
    }
}
