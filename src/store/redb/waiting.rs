//! Waits for a queue, but not for ever.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

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

#[cfg(test)]
mod tests {
    use super::*;

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
