//! Waits for a queue, but not for ever, and gathers what is in it.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// Who writes at the same time as others waits for them so long, so that they share a commit...
const NAP: Duration = Duration::from_micros(250);
/// ... and so often at most.
const NAPS_MAX: usize = 4;
/// How often others may run before what was gathered has to do.
const WAYS_MAX: usize = 4;

/// How soon a writer wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// As soon as can be: a connection stands still meanwhile.
    Prompt,
    /// A few milliseconds later, where many write: others' requests go on meanwhile.
    Patient,
}

/// What came of waiting.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received<T> {
    /// The next in the queue.
    Item(T),
    /// Nothing came for that long.
    Nothing,
    /// Nothing will come any more.
    End,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for the next in `queue`, for as long as `wait_max` where there is one; blocks the thread.
pub(super) fn receive<T>(queue: &mut mpsc::Receiver<T>, wait_max: Option<Duration>) -> Received<T> {
    let end = wait_max.map(|wait_max| Instant::now() + wait_max);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match queue.poll_recv(&mut Context::from_waker(&waker)) {
            Poll::Ready(Some(item)) => return Received::Item(item),
            Poll::Ready(None) => return Received::End,
            Poll::Pending => {}
        }
        // Parking may end for no reason, so what is left is asked for each time.
        match end.map(|end| end.saturating_duration_since(Instant::now())) {
            None => thread::park(),
            Some(Duration::ZERO) => return Received::Nothing,
            Some(left) => thread::park_timeout(left),
        }
    }
}

/// Waits, by `sleep`, while `are_fewer` than wrote the last time, and never long. (To be woken by
/// each that comes would cost as much as it spares.)
pub(super) fn await_others(are_fewer: impl Fn() -> bool, mut sleep: impl FnMut(Duration)) {
    for _ in 0..NAPS_MAX {
        if !are_fewer() {
            return;
        }
        sleep(NAP);
    }
}

/// Fills `batch` up to `n_max` with what is in `queue`. With `give_way`, which lets others run,
/// also with what they bring: as long as something comes, and a few times at most.
pub(super) fn gather<T>(
    queue: &mut mpsc::Receiver<T>,
    batch: &mut Vec<T>,
    n_max: usize,
    mut give_way: Option<impl FnMut()>,
) {
    for n_ways in 0..=WAYS_MAX {
        let n_before = batch.len();
        while batch.len() < n_max
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        let is_over = n_ways == WAYS_MAX || (0 < n_ways && batch.len() == n_before);
        match &mut give_way {
            Some(give_way) if !is_over && batch.len() < n_max => give_way(),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is gathered behind a first item and two that wait, where each way that is given brings
    /// `n_each` more; and how many ways were given.
    fn gathered(n_max: usize, n_each: usize, is_giving: bool) -> (usize, usize) {
        let (sender, mut queue) = mpsc::channel(100);
        let send = || sender.try_send(()).expect("room");
        (0..2).for_each(|_| send());
        let (mut batch, mut n_ways) = (vec![()], 0);
        let give_way = is_giving.then_some(|| {
            n_ways += 1;
            (0..n_each).for_each(|_| send());
        });
        gather(&mut queue, &mut batch, n_max, give_way);
        (batch.len(), n_ways)
    }

    #[test]
    fn whoever_is_alone_waits_for_nobody() {
        assert_eq!(gathered(50, 5, false), (3, 0));
    }

    #[test]
    fn ways_are_given_while_they_bring_something() {
        assert_eq!(gathered(50, 0, true), (3, 1));
        assert_eq!(gathered(50, 5, true), (3 + 5 * WAYS_MAX, WAYS_MAX));
    }

    #[test]
    fn a_batch_has_an_end() {
        assert_eq!(gathered(2, 5, true), (2, 0));
        assert_eq!(gathered(10, 5, true), (10, 2));
    }

    #[test]
    fn others_are_awaited_until_they_come_and_never_long() {
        let naps = |n_until: usize| {
            let n_naps = std::cell::Cell::new(0);
            await_others(|| n_naps.get() < n_until, |_| n_naps.set(n_naps.get() + 1));
            n_naps.get()
        };
        assert_eq!((naps(0), naps(3), naps(100)), (0, 3, NAPS_MAX));
    }

    #[test]
    fn what_comes_and_what_does_not() {
        let (sender, mut queue) = mpsc::channel(1);
        assert_eq!(
            receive(&mut queue, Some(Duration::from_millis(1))),
            Received::Nothing
        );
        let sending = thread::spawn(move || {
            for n in 0..1000 {
                sender.blocking_send(n).expect("received");
            }
        });
        for n in 0..1000 {
            let wait_max = (n % 2 == 0).then_some(Duration::from_secs(60));
            assert_eq!(receive(&mut queue, wait_max), Received::Item(n));
        }
        assert_eq!(receive(&mut queue, None), Received::End);
        sending.join().expect("no panic");
    }
}
