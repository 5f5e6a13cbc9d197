//! The key space [0, 1] and the ranges that segments own.

/// A part of the key space: `low` inclusive, `high` exclusive (the last range of a stream ends at 1.0).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeyRange {
    low: f64,
    high: f64,
}

// No bound is NaN.
impl Eq for KeyRange {}

/// Why two numbers are not a range.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("key range {low}..{high} is empty or leaves 0..1")]
pub struct KeyRangeError {
    low: f64,
    high: f64,
}

impl KeyRange {
    /// All keys.
    pub const FULL: Self = Self { low: 0.0, high: 1.0 };

    /// Checks 0 ≤ low < high ≤ 1; a NaN fails.
    pub fn new(low: f64, high: f64) -> Result<Self, KeyRangeError> {
        // A negative zero would compare equal and print differently on the other side.
        let low = if low == 0.0 { 0.0 } else { low };
        if (0.0..1.0).contains(&low) && low < high && high <= 1.0 {
            Ok(Self { low, high })
        } else {
            Err(KeyRangeError { low, high })
        }
    }

    /// First key of the range.
    pub const fn low(self) -> f64 {
        self.low
    }

    /// First key behind the range.
    pub const fn high(self) -> f64 {
        self.high
    }

    /// The whole key space in `count` equal parts, the way Pravega computes them, except that the last bound is exactly
    /// 1.0: `count * (1 / count)` falls short for 49, 98, 103 and others, and clients insist on 1.0.
    pub fn split(count: usize) -> Vec<Self> {
        assert!(count > 0, "a stream has at least one segment");
        let step = 1.0 / count as f64;
        let bound = |index: usize| if index == count { 1.0 } else { index as f64 * step };
        (0..count).map(|index| Self { low: bound(index), high: bound(index + 1) }).collect()
    }

    /// Touching bounds do not overlap.
    pub fn overlaps(self, other: Self) -> bool {
        self.low < other.high && self.high > other.low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_covers_the_key_space_without_gap_or_overlap() {
        for count in 1..=1000 {
            let ranges = KeyRange::split(count);
            assert_eq!(ranges[0].low(), 0.0);
            assert_eq!(ranges[count - 1].high(), 1.0, "{count} parts");
            for pair in ranges.windows(2) {
                assert_eq!(pair[0].high().to_bits(), pair[1].low().to_bits(), "{count} parts");
                assert!(pair[0].low() < pair[0].high());
            }
        }
    }

    #[test]
    fn numbers_outside_the_key_space_are_no_range() {
        for (low, high) in [(0.5, 0.5), (0.6, 0.5), (-0.1, 0.5), (0.5, 1.1), (f64::NAN, 0.5), (0.1, f64::NAN)] {
            assert!(KeyRange::new(low, high).is_err(), "{low}..{high}");
        }
        assert_eq!(KeyRange::new(0.0, 1.0), Ok(KeyRange::FULL));
    }
}
