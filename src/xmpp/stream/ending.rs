//! How a stream is left in order: nobody who has asked is left without an answer.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{End, LINGER_FOR, OnStream, STOP_WITHIN, Served, stopped};

impl Served<'_> {
    /// Says that we go, where somebody listens to that, and serves on until we are to stop: what
    /// was sent to us before this is known comes a little later. What is under way is answered
    /// before: from who has gone a relay takes no answers.
    pub(super) async fn leave(&mut self, stop: &mut watch::Receiver<bool>) -> End {
        let farewell = self.speaker.farewell();
        if farewell.is_some() {
            let answered = poll_fn(|cx| match self.poll(cx) {
                Poll::Pending if self.running.is_empty() => Poll::Ready(End::Stopped),
                polled => polled,
            });
            match timeout(STOP_WITHIN, answered).await {
                Ok(End::Stopped) | Err(_) => {}
                Ok(end) => return end,
            }
        }
        let linger_for = match &farewell {
            Some(farewell) => {
                self.outbox.push(farewell);
                LINGER_FOR
            }
            None => Duration::ZERO,
        };
        let stopped = async {
            tokio::join!(stopped(stop), sleep(linger_for));
        };
        tokio::select! {
            end = poll_fn(|cx| self.poll(cx)) => end,
            () = stopped => End::Stopped,
        }
    }

    /// Waits a moment for the answers that the relay's target still owes; then the others are told
    /// that none comes. `Stopped`, or why the stream ended before.
    pub(super) async fn drain_relay(&mut self) -> End {
        let Some(relay) = &mut self.relay else {
            return End::Stopped;
        };
        relay.drain();
        let drained = poll_fn(|cx| match self.poll(cx) {
            Poll::Pending if self.relay.as_ref().is_none_or(OnStream::is_idle) => {
                Poll::Ready(End::Stopped)
            }
            polled => polled,
        });
        let end = timeout(STOP_WITHIN, drained).await.unwrap_or(End::Stopped);
        if let Some(mut relay) = self.relay.take() {
            let left = relay.give_up();
            left.iter().for_each(|stanza| self.outbox.push(stanza));
        }
        end
    }
}
