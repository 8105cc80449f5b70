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

/// One requester's bucket: the microseconds since the epoch at which it is full again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at_us: u64,
}

/// A minute, the depth of every bucket.
const DEPTH_US: u64 = 60_000_000;

impl Rate {
    /// Takes `n` units out of `bucket`, or tells when they would be there.
    ///
    /// More than a minute's worth is let through alone, when the bucket is full: it would never
    /// fit.
    pub fn take(self, bucket: Bucket, n: u64, now: Timestamp) -> Result<Bucket, Timestamp> {
        let now_us = now.0.saturating_mul(1_000_000);
        let full_at_us = bucket.full_at_us.max(now_us);
        let cost_us = cost_us(n, self.per_minute);
        let next_us = full_at_us.saturating_add(cost_us);
        let level_us = next_us - now_us;
        if level_us <= DEPTH_US || full_at_us == now_us {
            return Ok(Bucket {
                full_at_us: next_us,
            });
        }
        let wait_us = (level_us - DEPTH_US).min(full_at_us - now_us);
        let wait = Duration::from_secs(wait_us.div_ceil(1_000_000));
        Err(now.plus(wait))
    }

    /// Puts back `n` units that were taken and not used.
    pub fn give_back(self, bucket: Bucket, n: u64) -> Bucket {
        let cost_us = cost_us(n, self.per_minute);
        Bucket {
            full_at_us: bucket.full_at_us.saturating_sub(cost_us),
        }
    }
}

/// How long a bucket takes to fill by `n` units, rounded up so that nothing is free.
fn cost_us(n: u64, per_minute: u64) -> u64 {
    let cost_us = (u128::from(n) * u128::from(DEPTH_US)).div_ceil(u128::from(per_minute.max(1)));
    u64::try_from(cost_us).unwrap_or(u64::MAX)
}

impl Bucket {
    /// Whether the bucket is full, so that nothing needs to be remembered of it.
    pub fn is_full(self, now: Timestamp) -> bool {
        self.full_at_us <= now.0.saturating_mul(1_000_000)
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
    fn what_is_given_back_can_be_taken_again() {
        let rate = Rate { per_minute: 3 };
        let mut bucket = Bucket::default();
        for _ in 0..100 {
            let taken = rate.take(bucket, 1, NOW).expect("what was given back");
            bucket = rate.give_back(taken, 1);
        }
        for _ in 0..3 {
            bucket = rate.take(bucket, 1, NOW).expect("a minute's worth");
        }
        assert!(rate.take(bucket, 1, NOW).is_err());
        assert_eq!(rate.give_back(Bucket::default(), 1), Bucket::default());
    }

    #[test]
    fn small_amounts_of_large_rates_are_not_free() {
        let rate = Rate {
            per_minute: 1 << 30,
        };
        let mut bucket = Bucket::default();
        let small = 10_000;
        let n_fitting = (1u64 << 30) / small;
        for _ in 0..n_fitting - 5000 {
            bucket = rate.take(bucket, small, NOW).expect("within the rate");
        }
        let mut n_more = 0;
        while let Ok(next) = rate.take(bucket, small, NOW) {
            bucket = next;
            n_more += 1;
        }
        assert!(n_more <= 5000, "{n_more}");
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
