//! Latencies of many events, merged across threads without losing their tails.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency that is told apart from longer ones, in nanoseconds: ten minutes.
const LONGEST_NS: u64 = 600_000_000_000;

/// A histogram of nanoseconds with three significant digits.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// Without any.
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("these bounds are valid for three digits"))
    }

    /// Counts one event, in nanoseconds; longer than ten minutes counts as ten minutes.
    pub fn record(&mut self, ns: u64) {
        self.record_many(ns, 1);
    }

    /// Counts several events with the same latency.
    pub(crate) fn record_many(&mut self, ns: u64, count: u64) {
        self.0.saturating_record_n(ns.max(1), count);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// What is printed of them.
    pub fn quantiles(&self) -> Quantiles {
        let at = |quantile: f64| self.0.value_at_quantile(quantile) as f64 / 1000.0;
        Quantiles {
            count: self.0.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: self.0.max() as f64 / 1000.0,
        }
    }
}

/// The one in the middle; of an even number, the greater of the two there.
///
/// # Panics
/// Without any figure.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// What is printed of a histogram, in microseconds. All zero when nothing was counted.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Quantiles {
    /// Events counted.
    pub count: u64,
    /// Median.
    pub p50_us: f64,
    /// 90 %.
    pub p90_us: f64,
    /// 99 %.
    pub p99_us: f64,
    /// 99.9 %.
    pub p999_us: f64,
    /// 99.99 %.
    pub p9999_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl std::fmt::Display for Quantiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { p50_us, p90_us, p99_us, p999_us, max_us, .. } = self;
        write!(f, "p50 {p50_us:.0}  p90 {p90_us:.0}  p99 {p99_us:.0}  p99.9 {p999_us:.0}  max {max_us:.0} µs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_histograms_say_what_one_of_all_events_would_say() {
        let (mut whole, mut parts) = (Latencies::new(), [Latencies::new(), Latencies::new()]);
        for n in 0..10_000_u64 {
            // The slow ones are all in one part, as when one writer has bad luck.
            let ns = if n % 100 == 99 { 50_000_000 + n } else { 100_000 + n };
            whole.record(ns);
            parts[usize::from(n % 100 == 99)].record(ns);
        }
        let [mut merged, other] = parts;
        merged.merge(&other);
        let (whole, merged) = (whole.quantiles(), merged.quantiles());
        assert_eq!(format!("{whole:?}"), format!("{merged:?}"));
        assert!(merged.p90_us < 200.0 && merged.p999_us > 40_000.0, "{merged}");
        assert_eq!(merged.count, 10_000);
    }

    #[test]
    fn a_latency_beyond_the_longest_is_kept_as_the_longest() {
        let mut latencies = Latencies::new();
        latencies.record_many(u64::MAX, 3);
        assert_eq!(latencies.count(), 3);
        assert!(latencies.quantiles().max_us >= LONGEST_NS as f64 / 1000.0 * 0.999);
    }
}
