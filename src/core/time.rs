//! Instants as whole seconds since the Unix epoch, and their XEP-0082 spelling.
//!
//! Core never asks for the time: every decision gets `now` as an argument.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat};

/// An instant: whole seconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The instant `wait` later; the fraction of a second is dropped.
    pub fn plus(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait.as_secs()))
    }

    /// The instant `wait` earlier, never before the epoch.
    pub fn minus(self, wait: Duration) -> Self {
        Self(self.0.saturating_sub(wait.as_secs()))
    }

    /// How long after `earlier` this is; zero where it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }

    /// The spelling of XEP-0082: `2026-01-02T03:04:05Z`.
    pub fn to_xep0082(self) -> String {
        let seconds = i64::try_from(self.0).unwrap_or(i64::MAX);
        DateTime::from_timestamp(seconds, 0)
            .unwrap_or(DateTime::<chrono::Utc>::MAX_UTC)
            .to_rfc3339_opts(SecondsFormat::Secs, true)
    }

    /// Reads an XEP-0082 DateTime; `None` where it is none, has no zone, or is before the epoch.
    pub fn from_xep0082(text: &str) -> Option<Self> {
        let instant = DateTime::parse_from_rfc3339(text).ok()?;
        u64::try_from(instant.timestamp()).ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_goes_both_ways() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_767_323_045, "2026-01-02T03:04:05Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Timestamp(seconds).to_xep0082(), text);
            assert_eq!(Timestamp::from_xep0082(text), Some(Timestamp(seconds)));
        }
    }

    #[test]
    fn other_zones_and_fractions_are_read() {
        let read = Timestamp::from_xep0082("2026-01-02T04:04:05.25+01:00");
        assert_eq!(read, Some(Timestamp(1_767_323_045)));
    }

    #[test]
    fn what_is_no_stamp_is_none() {
        for text in [
            "",
            "yesterday",
            "2026-01-02",
            "2026-01-02T03:04:05",
            "1969-12-31T23:59:59Z",
        ] {
            assert_eq!(Timestamp::from_xep0082(text), None, "{text}");
        }
    }

    #[test]
    fn arithmetic_stays_in_range() {
        let day = Duration::from_secs(86_400);
        assert_eq!(Timestamp(5).minus(day), Timestamp(0));
        assert_eq!(Timestamp(u64::MAX).plus(day), Timestamp(u64::MAX));
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
        assert!(Timestamp(u64::MAX).to_xep0082().ends_with('Z'));
    }
}
