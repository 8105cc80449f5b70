//! The vertical axis of a picture: a round number at its top, and what stands beside its lines.

use crate::admin::page::words;

/// What a picture counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// A value as it stands in a sentence.
    pub(super) fn words(self, value: u64) -> String {
        match self {
            Self::Count => words::count(value),
            Self::Bytes => words::bytes(value),
        }
    }

    /// A value as it stands beside the axis, where there is little room.
    fn short(self, value: u64) -> String {
        match (self, value) {
            (Self::Bytes, 0) => "0".to_owned(),
            (Self::Bytes, _) => {
                let mut at = 0;
                let mut rest = value;
                while 1024 <= rest && at + 1 < BYTE_UNITS.len() {
                    rest /= 1024;
                    at += 1;
                }
                format!("{rest} {}", BYTE_UNITS[at])
            }
            (Self::Count, 0..10_000) => words::count(value),
            (Self::Count, _) => {
                let power = (value.ilog10() / 3).min(6);
                let (rest, unit) = (value / 1000u64.pow(power), COUNT_UNITS[power as usize]);
                format!("{rest}{unit}")
            }
        }
    }
}

const BYTE_UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const COUNT_UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];

/// An axis from 0 to a round number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    unit: Unit,
    /// The value at its top.
    top: u64,
}

impl Axis {
    /// An axis that holds values up to `highest`.
    pub(super) fn to(unit: Unit, highest: u64) -> Self {
        let steps: &[u64] = match unit {
            Unit::Count => &[1, 2, 3, 4, 6, 8, 10],
            Unit::Bytes => &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
        };
        let base = match unit {
            Unit::Count => 10u64,
            Unit::Bytes => 1024,
        };
        let power = highest.max(1).ilog(base);
        let step = base.saturating_pow(power);
        let tops = steps.iter().map(|factor| step.saturating_mul(*factor));
        // The last one is the next power, which is above whatever has this one.
        let top = tops.into_iter().find(|top| highest <= *top);
        Self {
            unit,
            top: top.unwrap_or(u64::MAX),
        }
    }

    /// How far up a value stands: 0 to 1.
    pub(super) fn share(self, value: u64) -> f64 {
        value as f64 / self.top as f64
    }

    /// The lines, from the bottom: how far up, and what stands beside.
    pub(super) fn lines(self) -> Vec<(f64, String)> {
        let mut values = vec![0, self.top];
        if self.top.is_multiple_of(2) {
            values.insert(1, self.top / 2);
        }
        let line = |value: u64| (self.share(value), self.unit.short(value));
        values.into_iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(unit: Unit, highest: u64) -> Vec<String> {
        let lines = Axis::to(unit, highest).lines();
        lines.into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn the_top_is_round_and_holds_everything() {
        for (highest, expected) in [
            (0, vec!["0", "1"]),
            (1, vec!["0", "1"]),
            (2, vec!["0", "1", "2"]),
            (5, vec!["0", "3", "6"]),
            (11, vec!["0", "10", "20"]),
            (95, vec!["0", "50", "100"]),
            (12_345, vec!["0", "10k", "20k"]),
            (240, vec!["0", "150", "300"]),
            (3_100_000, vec!["0", "2M", "4M"]),
        ] {
            assert_eq!(labels(Unit::Count, highest), expected, "{highest}");
        }
        for (highest, expected) in [
            (0, vec!["0", "1 B"]),
            (1000, vec!["0", "512 B", "1 KiB"]),
            (1025, vec!["0", "1 KiB", "2 KiB"]),
            (700 * 1024 * 1024, vec!["0", "512 MiB", "1 GiB"]),
        ] {
            assert_eq!(labels(Unit::Bytes, highest), expected, "{highest}");
        }
    }

    #[test]
    fn huge_values_have_an_axis() {
        for unit in [Unit::Count, Unit::Bytes] {
            for highest in [u64::MAX, u64::MAX / 2, 1 << 60] {
                let axis = Axis::to(unit, highest);
                assert!(highest <= axis.top && axis.share(highest) <= 1.0);
                assert!(labels(unit, highest).iter().all(|label| label.len() < 9));
            }
        }
    }
}
