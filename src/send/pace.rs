//! How fast the file is sent, where that is limited.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The largest piece that is read at once, and the smallest.
const PIECE_BYTES_MAX: u64 = 64 * 1024;
const PIECE_BYTES_MIN: u64 = 512;
/// Pieces a second at the limit, so that it is no stop and go.
const PIECES_PER_SECOND: u64 = 10;
/// So much of lost time is made up for: a sleep ends late, each a little, and that adds up.
const LATE_MAX: Duration = Duration::from_millis(200);

/// At most so many bytes a second.
pub struct Pace {
    rate_max_bytes: Option<u64>,
    /// When the next piece may go.
    next_at: Instant,
}

impl Pace {
    /// A pace of so many bytes a second, or as fast as it goes.
    pub fn new(rate_max_bytes: Option<u64>) -> Self {
        Self {
            rate_max_bytes: rate_max_bytes.map(|rate| rate.max(1)),
            next_at: Instant::now(),
        }
    }

    /// How large the next piece may be.
    pub fn piece_bytes(&self) -> usize {
        let bytes = self.rate_max_bytes.map_or(PIECE_BYTES_MAX, |rate| {
            (rate / PIECES_PER_SECOND).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX)
        });
        usize::try_from(bytes).expect("64 KiB fit")
    }

    /// Waits until a piece of so many bytes may go.
    pub async fn wait(&mut self, n_bytes: u64) {
        let Some(rate) = self.rate_max_bytes else {
            return;
        };
        sleep_until(self.next_at).await;
        let now = Instant::now();
        let from = self.next_at.max(now.checked_sub(LATE_MAX).unwrap_or(now));
        self.next_at = from + Duration::from_secs_f64(n_bytes as f64 / rate as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_limit_is_kept_and_much_lost_time_is_lost() {
        let mut pace = Pace::new(Some(1000));
        assert_eq!(pace.piece_bytes(), 512);
        let began = Instant::now();
        for _ in 0..11 {
            pace.wait(500).await;
        }
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        tokio::time::advance(Duration::from_secs(60)).await;
        let began = Instant::now();
        for _ in 0..3 {
            pace.wait(500).await;
        }
        assert_eq!(began.elapsed(), Duration::from_millis(800));
    }

    #[tokio::test(start_paused = true)]
    async fn being_late_each_time_slows_nothing() {
        let mut pace = Pace::new(Some(1000));
        let began = Instant::now();
        for _ in 0..11 {
            pace.wait(500).await;
            tokio::time::advance(Duration::from_millis(150)).await;
        }
        assert_eq!(began.elapsed(), Duration::from_millis(5150));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nothing_waits() {
        let mut pace = Pace::new(None);
        let began = Instant::now();
        pace.wait(u64::MAX).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(pace.piece_bytes(), 64 * 1024);
    }
}
