//! The bytes of one request on their way in: counted, hashed, timed, cut where a newer one came.
//!
//! A stream around the request's body, handed to the file store; why it ended is read from its
//! `Gauge` afterwards. It never lets a byte past the slot's size through.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use sha2::Digest as _;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use crate::core::resume::Checksum;
use crate::core::slot::Sha256;
use crate::store::{Body, BodyError};

/// How slowly a body may come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How long nothing, or too little, may come.
    pub(super) stall_for: Duration,
    /// How many bytes a second have to come, averaged over `stall_for`.
    pub(super) rate_min_bytes: u64,
}

/// Why a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It goes on.
    Open,
    /// Its last byte came.
    Whole,
    /// It is longer than the slot.
    TooLong,
    /// It came too slowly.
    Stalled,
    /// A newer request took over, or the service stops.
    Cut,
    /// The connection broke.
    Interrupted,
}

/// What passed so far.
pub(super) struct Gauge {
    /// Of the whole file, also of what came before.
    hasher: sha2::Sha256,
    /// Of these bytes alone, where somebody announced it.
    sum: Option<Sum>,
    n_bytes: u64,
    end: End,
}

/// The checksum of a request's body, and what it has to be.
pub(super) enum Sum {
    /// SHA-256.
    Sha256(sha2::Sha256, Sha256),
    /// SHA-1.
    Sha1(Box<sha1::Sha1>, [u8; 20]),
}

impl Sum {
    /// For a body that has to fit `checksum`.
    pub(super) fn expecting(checksum: Checksum) -> Self {
        match checksum {
            Checksum::Sha256(sha256) => Self::Sha256(sha2::Sha256::new(), sha256),
            Checksum::Sha1(sha1) => Self::Sha1(Box::default(), sha1),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher, _) => hasher.update(bytes),
            Self::Sha1(hasher, _) => hasher.update(bytes),
        }
    }

    fn fits(&self) -> bool {
        match self {
            Self::Sha256(hasher, sha256) => hasher.clone().finalize().as_slice() == sha256.0,
            Self::Sha1(hasher, sha1) => hasher.clone().finalize().as_slice() == sha1,
        }
    }
}

/// A gauge that outlives its body.
#[derive(Clone)]
pub(super) struct SharedGauge(Arc<Mutex<Gauge>>);

impl SharedGauge {
    fn with<T>(&self, look: impl FnOnce(&mut Gauge) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why the body ended.
    pub(super) fn end(&self) -> End {
        self.with(|gauge| gauge.end)
    }

    /// How many bytes passed.
    pub(super) fn n_bytes(&self) -> u64 {
        self.with(|gauge| gauge.n_bytes)
    }

    /// The digest of the file up to here.
    pub(super) fn sha256(&self) -> Sha256 {
        Sha256(self.hasher().finalize().into())
    }

    /// The same, to go on with.
    pub(super) fn hasher(&self) -> sha2::Sha256 {
        self.with(|gauge| gauge.hasher.clone())
    }

    /// Whether the bytes have the checksum that was announced for them, if any was.
    pub(super) fn has_right_sum(&self) -> bool {
        self.with(|gauge| gauge.sum.as_ref().is_none_or(Sum::fits))
    }
}

/// The stream; see the module.
pub(super) struct Intake {
    body: Body,
    n_bytes_max: u64,
    pace: Pace,
    gauge: SharedGauge,
    cut: BoxFuture<'static, ()>,
    deadline: Pin<Box<Sleep>>,
    /// When the last bytes were handed over: until we are asked for more, nobody waits for the
    /// sender.
    handed_over_at: Option<Instant>,
    /// Bytes since the deadline was set.
    n_bytes_now: u64,
    /// Whether the body was asked for already: what has come before is taken also when the request
    /// was cut meanwhile.
    is_begun: bool,
    on_bytes: Box<dyn FnMut(u64) + Send>,
}

impl Intake {
    /// Takes in at most `n_bytes_max` bytes of `body`, which come behind those in `hasher`;
    /// `on_bytes` is told how many came, whenever some did.
    pub(super) fn new(
        body: Body,
        n_bytes_max: u64,
        (hasher, sum): (sha2::Sha256, Option<Sum>),
        pace: Pace,
        mut cut: watch::Receiver<bool>,
        on_bytes: Box<dyn FnMut(u64) + Send>,
    ) -> (Self, SharedGauge) {
        let gauge = SharedGauge(Arc::new(Mutex::new(Gauge {
            hasher,
            sum,
            n_bytes: 0,
            end: End::Open,
        })));
        let cut = async move {
            // An error means that the transfer was replaced and has to end as well.
            let _ = cut.wait_for(|is_cut| *is_cut).await;
        };
        let intake = Self {
            body,
            n_bytes_max,
            pace,
            gauge: gauge.clone(),
            cut: cut.boxed(),
            deadline: Box::pin(tokio::time::sleep(pace.stall_for)),
            handed_over_at: None,
            n_bytes_now: 0,
            is_begun: false,
            on_bytes,
        };
        (intake, gauge)
    }

    fn finish(&self, end: End) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.gauge.with(|gauge| gauge.end = end);
        match end {
            End::Whole => Poll::Ready(None),
            _ => Poll::Ready(Some(Err(BodyError))),
        }
    }

    fn take(&mut self, bytes: Bytes) -> Poll<Option<Result<Bytes, BodyError>>> {
        let n_bytes = bytes.len() as u64;
        let room = self.n_bytes_max - self.gauge.n_bytes();
        if room < n_bytes {
            return self.finish(End::TooLong);
        }
        self.gauge.with(|gauge| {
            gauge.hasher.update(&bytes);
            if let Some(sum) = &mut gauge.sum {
                sum.update(&bytes);
            }
            gauge.n_bytes += n_bytes;
        });
        self.n_bytes_now += n_bytes;
        self.handed_over_at = Some(Instant::now());
        (self.on_bytes)(n_bytes);
        Poll::Ready(Some(Ok(bytes)))
    }

    /// Whether the time since the last deadline brought too few bytes; sets the next one.
    fn is_too_slow(&mut self) -> bool {
        let stall_s = self.pace.stall_for.as_secs().max(1);
        let n_bytes_min = self.pace.rate_min_bytes.saturating_mul(stall_s).max(1);
        let is_too_slow = self.n_bytes_now < n_bytes_min;
        self.n_bytes_now = 0;
        let next = Instant::now() + self.pace.stall_for;
        self.deadline.as_mut().reset(next);
        is_too_slow
    }
}

impl Stream for Intake {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.gauge.end() != End::Open {
            return Poll::Ready(None);
        }
        if let Some(at) = this.handed_over_at.take() {
            let later = this.deadline.deadline() + at.elapsed();
            this.deadline.as_mut().reset(later);
        }
        let mut is_first = !std::mem::replace(&mut this.is_begun, true);
        loop {
            if !is_first && this.cut.poll_unpin(context).is_ready() {
                return this.finish(End::Cut);
            }
            match this.body.poll_next_unpin(context) {
                // Empty pieces are no progress and no end.
                Poll::Ready(Some(Ok(bytes))) if bytes.is_empty() => continue,
                Poll::Ready(Some(Ok(bytes))) => return this.take(bytes),
                Poll::Ready(Some(Err(BodyError))) => return this.finish(End::Interrupted),
                Poll::Ready(None) => return this.finish(End::Whole),
                Poll::Pending => {}
            }
            if std::mem::take(&mut is_first) {
                continue;
            }
            ready!(this.deadline.as_mut().poll(context));
            if this.is_too_slow() {
                return this.finish(End::Stalled);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    const PACE: Pace = Pace {
        stall_for: Duration::from_secs(60),
        rate_min_bytes: 10,
    };

    async fn run(body: Body, n_bytes_max: u64) -> (u64, End) {
        let (_cut, receiver) = watch::channel(false);
        let (mut intake, gauge) = Intake::new(
            body,
            n_bytes_max,
            (sha2::Sha256::new(), None),
            PACE,
            receiver,
            Box::new(|_| ()),
        );
        let mut n_passed = 0;
        while let Some(Ok(bytes)) = intake.next().await {
            n_passed += bytes.len() as u64;
        }
        assert_eq!(n_passed, gauge.n_bytes());
        (n_passed, gauge.end())
    }

    fn pieces(texts: &'static [&'static str]) -> Body {
        Box::pin(stream::iter(texts).map(|text| Ok(Bytes::from_static(text.as_bytes()))))
    }

    /// A piece of `n_bytes` each second, for ever.
    fn drip(n_bytes: usize) -> Body {
        Box::pin(stream::unfold((), move |()| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok(Bytes::from(vec![0; n_bytes])), ()))
        }))
    }

    #[tokio::test]
    async fn no_byte_past_the_size_passes() {
        assert_eq!(run(pieces(&["abc", "", "de"]), 5).await, (5, End::Whole));
        assert_eq!(run(pieces(&["abc", "de"]), 6).await, (5, End::Whole));
        assert_eq!(run(pieces(&["abc", "de"]), 4).await, (3, End::TooLong));
    }

    #[tokio::test]
    async fn a_broken_body_is_told_from_a_whole_one() {
        let broken = stream::iter([Ok(Bytes::from_static(b"abc")), Err(BodyError)]);
        assert_eq!(run(Box::pin(broken), 5).await, (3, End::Interrupted));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_dripping_are_stalls() {
        assert_eq!(run(Box::pin(stream::pending()), 5).await, (0, End::Stalled));
        let (n_passed, end) = run(drip(9), 1 << 30).await;
        assert_eq!(end, End::Stalled);
        assert!(n_passed < 9 * 61);
        let (n_passed, end) = run(drip(11), 11 * 600).await;
        assert_eq!((n_passed, end), (11 * 600, End::TooLong));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_disk_is_not_the_senders_fault() {
        let (_cut, receiver) = watch::channel(false);
        let body = drip(1000);
        let (mut intake, gauge) = Intake::new(
            body,
            1 << 30,
            (sha2::Sha256::new(), None),
            PACE,
            receiver,
            Box::new(|_| ()),
        );
        for _ in 0..5 {
            assert!(intake.next().await.is_some_and(|piece| piece.is_ok()));
            tokio::time::sleep(Duration::from_secs(120)).await;
        }
        assert_eq!(gauge.end(), End::Open);
    }

    #[tokio::test]
    async fn a_cut_ends_a_silent_body() {
        let (cut, receiver) = watch::channel(false);
        let body: Body = Box::pin(stream::pending());
        let (mut intake, gauge) = Intake::new(
            body,
            5,
            (sha2::Sha256::new(), None),
            PACE,
            receiver,
            Box::new(|_| ()),
        );
        let (next, _) = tokio::join!(intake.next(), async { cut.send(true) });
        assert!(next.is_some_and(|piece| piece.is_err()));
        assert_eq!(gauge.end(), End::Cut);
    }

    #[tokio::test]
    async fn what_came_before_a_cut_is_taken() {
        let (cut, receiver) = watch::channel(true);
        let (mut intake, gauge) = Intake::new(
            pieces(&["abc", "de"]),
            5,
            (sha2::Sha256::new(), None),
            PACE,
            receiver,
            Box::new(|_| ()),
        );
        assert!(intake.next().await.is_some_and(|piece| piece.is_ok()));
        assert!(intake.next().await.is_some_and(|piece| piece.is_err()));
        assert_eq!((gauge.n_bytes(), gauge.end()), (3, End::Cut));
        drop(cut);
    }

    #[tokio::test]
    async fn the_digest_is_of_what_passed() {
        let (_cut, receiver) = watch::channel(false);
        let (intake, gauge) = Intake::new(
            pieces(&["abc"]),
            3,
            (sha2::Sha256::new(), None),
            PACE,
            receiver,
            Box::new(|_| ()),
        );
        intake.for_each(|_| async {}).await;
        assert_eq!(
            gauge.sha256().to_hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
