//! Numbers and times as people read them: `1.5 MiB`, `12,345`, `2 h 5 min`, `14:05`.

use std::time::Duration;

use bytesize::ByteSize;

use crate::core::time::Timestamp;

/// Bytes: `1.5 MiB`.
pub(super) fn bytes(n_bytes: u64) -> String {
    ByteSize::b(n_bytes).display().iec().to_string()
}

/// A count, in groups of three digits.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// So many of them: `1 file`, `2 files`.
pub(super) fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// A span of time by its two largest units: `2 h 5 min`.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let units = [
        (seconds / 86_400, "days"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let Some(first) = units.iter().position(|(n, _)| *n != 0) else {
        return "0 s".to_owned();
    };
    let spelled = units[first..].iter().take(2).filter(|(n, _)| *n != 0);
    let spelled = spelled.map(|(n, unit)| match (n, *unit) {
        (1, "days") => "1 day".to_owned(),
        (n, unit) => format!("{n} {unit}"),
    });
    spelled.collect::<Vec<_>>().join(" ")
}

/// The time of day, UTC: `14:05`.
pub(super) fn minute(at: Timestamp) -> String {
    format!("{:02}:{:02}", at.0 / 3600 % 24, at.0 / 60 % 60)
}

/// The time of day with seconds, UTC: `14:05:09`.
pub(super) fn second(at: Timestamp) -> String {
    format!("{}:{:02}", minute(at), at.0 % 60)
}

/// The date: `2026-01-02`.
pub(super) fn date(at: Timestamp) -> String {
    let stamp = at.to_xep0082();
    stamp.split('T').next().unwrap_or_default().to_owned()
}

/// How much of `whole` a part is, in whole percent; 100 for all of it alone.
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    match whole {
        0 => 100,
        _ => {
            let share = u128::from(part.min(whole)) * 100 / u128::from(whole);
            u64::try_from(share).unwrap_or(100)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let counts = [0, 7, 999, 1000, 1_234_567, u64::MAX].map(count);
        let words = ["0", "7", "999", "1,000", "1,234,567"];
        assert_eq!(counts[..5], words);
        assert_eq!(counts[5], "18,446,744,073,709,551,615");
        assert_eq!(counted(1, "file", "files"), "1 file");
        assert_eq!(counted(0, "file", "files"), "0 files");
        assert_eq!(bytes(1_572_864), "1.5 MiB");
        assert_eq!(bytes(0), "0 B");
    }

    #[test]
    fn spans_have_two_units() {
        for (seconds, words) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (7500, "2 h 5 min"),
            (7201, "2 h"),
            (86_400, "1 day"),
            (266_400, "3 days 2 h"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), words);
        }
    }

    #[test]
    fn times_are_of_the_day() {
        let at = Timestamp(1_767_323_045);
        assert_eq!(second(at), "03:04:05");
        assert_eq!(date(at), "2026-01-02");
        assert!(!date(Timestamp(u64::MAX)).is_empty());
    }

    #[test]
    fn only_all_of_it_is_a_hundred() {
        assert_eq!(percent(999, 1000), 99);
        assert_eq!(percent(1000, 1000), 100);
        assert_eq!(percent(u64::MAX, 1), 100);
        assert_eq!(percent(0, 0), 100);
        assert_eq!(percent(u64::MAX - 1, u64::MAX), 99);
    }
}
