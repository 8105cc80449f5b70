//! How fast one requester may ask: a bucket that fills with time (GCRA).
//!
//! Pure: the state is one instant, kept by the caller.

use std::time::Duration;

use crate::core::time::Timestamp;

/// So many units a minute; a whole minute's worth may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units (slots or bytes) a minute; at least 1.
    pub per_minute: u64,
}

/// One requester's bucket: the milliseconds since the epoch at which it is full again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at_ms: u64,
}

/// A minute, the depth of every bucket.
const DEPTH_MS: u64 = 60_000;

impl Rate {
    /// Takes `n` units out of `bucket`, or tells when they would be there.
    ///
    /// More than a minute's worth is let through alone, when the bucket is full: it would never
    /// fit.
    pub fn take(self, bucket: Bucket, n: u64, now: Timestamp) -> Result<Bucket, Timestamp> {
        let now_ms = now.0.saturating_mul(1000);
        let full_at_ms = bucket.full_at_ms.max(now_ms);
        let cost_ms = n.saturating_mul(DEPTH_MS) / self.per_minute.max(1);
        let next_ms = full_at_ms.saturating_add(cost_ms);
        let level_ms = next_ms - now_ms;
        if level_ms <= DEPTH_MS || full_at_ms == now_ms {
            return Ok(Bucket {
                full_at_ms: next_ms,
            });
        }
        let wait_ms = (level_ms - DEPTH_MS).min(full_at_ms - now_ms);
        let wait = Duration::from_secs(wait_ms.div_ceil(1000));
        Err(now.plus(wait))
    }
}

impl Bucket {
    /// Whether the bucket is full, so that nothing needs to be remembered of it.
    pub fn is_full(self, now: Timestamp) -> bool {
        self.full_at_ms <= now.0.saturating_mul(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    #[test]
    fn a_minutes_worth_at_once_then_one_by_one() {
        let rate = Rate { per_minute: 60 };
        let mut bucket = Bucket::default();
        for _ in 0..60 {
            bucket = rate.take(bucket, 1, NOW).expect("within the rate");
        }
        assert_eq!(rate.take(bucket, 1, NOW), Err(Timestamp(NOW.0 + 1)));
        let later = Timestamp(NOW.0 + 1);
        bucket = rate.take(bucket, 1, later).expect("one has filled up");
        assert!(rate.take(bucket, 1, later).is_err());
        assert!(!bucket.is_full(Timestamp(NOW.0 + 60)));
        assert!(bucket.is_full(Timestamp(NOW.0 + 61)));
    }

    #[test]
    fn the_time_told_is_enough() {
        let rate = Rate { per_minute: 7 };
        let mut bucket = Bucket::default();
        let mut now = NOW;
        for n in 1..200 {
            match rate.take(bucket, n % 5, now) {
                Ok(next) => bucket = next,
                Err(retry_at) => {
                    assert!(now < retry_at);
                    now = retry_at;
                    bucket = rate.take(bucket, n % 5, now).expect("as told");
                }
            }
        }
    }

    #[test]
    fn more_than_a_minutes_worth_passes_alone() {
        let rate = Rate { per_minute: 10 };
        let bucket = rate.take(Bucket::default(), 100, NOW).expect("alone");
        assert_eq!(
            rate.take(bucket, 100, NOW),
            Err(Timestamp(NOW.0 + 600)),
            "and is paid for"
        );
    }
}
