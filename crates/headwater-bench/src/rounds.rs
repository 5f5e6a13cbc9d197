//! Several rounds of the same: what one machine does differs from minute to minute, and only what was measured in turns
//! can be compared.

use std::time::Instant;

use serde::Serialize;

use crate::error::BenchError;
use crate::latency::median;
use crate::write::generator::Times;

/// How often and how long.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Rounds {
    /// Rounds of everything in turn; the medians count
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: u32,
    /// Seconds that count, of each run
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Seconds before them
    #[arg(long, default_value_t = 0.5)]
    pub(crate) warmup: f64,
}

impl Rounds {
    /// # Errors
    /// [`BenchError::Setting`] names what makes no sense.
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        sound("--rounds is from 1 to 100", (1..=100).contains(&self.rounds))?;
        sound("--seconds is from 0.1 to 3600", (0.1..=3600.0).contains(&self.seconds))?;
        sound("--warmup is from 0 to 600", (0.0..=600.0).contains(&self.warmup))
    }

    /// What each round finds, in their order.
    pub(crate) fn each<T>(&self, mut round: impl FnMut() -> Result<T, BenchError>) -> Result<Vec<T>, BenchError> {
        (0..self.rounds).map(|_| round()).collect()
    }

    /// Of a run that begins now or soon.
    pub(crate) fn times(&self, origin: Instant) -> Times {
        let ns = |seconds: f64| (seconds * 1e9) as u64;
        Times { origin, counted_from_ns: ns(self.warmup), end_ns: ns(self.warmup + self.seconds) }
    }
}

/// # Errors
/// [`BenchError::Setting`] with these words unless it holds.
pub(crate) fn sound(what: &str, holds: bool) -> Result<(), BenchError> {
    if holds { Ok(()) } else { Err(BenchError::Setting { what: what.to_owned() }) }
}

/// One figure of all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Spread {
    /// The one in the middle; of an even number, the greater of the two there.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
    /// Of each round, in their order.
    pub rounds: Vec<f64>,
}

impl Spread {
    /// # Panics
    /// Without any round.
    pub(crate) fn of(rounds: impl IntoIterator<Item = f64>) -> Self {
        let rounds: Vec<f64> = rounds.into_iter().collect();
        Self {
            median: median(rounds.iter().copied()),
            least: rounds.iter().copied().fold(f64::INFINITY, f64::min),
            greatest: rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            rounds,
        }
    }

    /// The same figure in another unit: for people, who read megabytes more easily than bytes.
    pub(crate) fn divided_by(&self, unit: f64) -> Self {
        Self::of(self.rounds.iter().map(|figure| figure / unit))
    }
}

impl std::fmt::Display for Spread {
    /// The median and, if there were several rounds, the range, with as many decimals as the precision says.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self { median, least, greatest, rounds }, decimals) = (self, f.precision().unwrap_or(0));
        write!(f, "{median:.decimals$}")?;
        if rounds.len() > 1 {
            write!(f, " ({least:.decimals$}–{greatest:.decimals$})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_keeps_every_round_and_shows_the_median_between_its_bounds() {
        let spread = Spread::of([30.0, 10.26, 20.0]);
        assert_eq!(spread.rounds, [30.0, 10.26, 20.0]);
        assert_eq!(format!("{spread:.1}"), "20.0 (10.3–30.0)");
        assert_eq!(spread.divided_by(10.0).to_string(), "2 (1–3)");
        assert_eq!(Spread::of([7.0]).to_string(), "7");
    }

    #[test]
    fn senseless_settings_are_named() {
        let rounds = Rounds { rounds: 1, seconds: 1.0, warmup: 0.0 };
        assert!(rounds.check().is_ok());
        for (rounds, flag) in [
            (Rounds { rounds: 0, ..rounds.clone() }, "--rounds"),
            (Rounds { seconds: f64::NAN, ..rounds.clone() }, "--seconds"),
            (Rounds { warmup: -1.0, ..rounds }, "--warmup"),
        ] {
            assert!(rounds.check().unwrap_err().to_string().contains(flag), "{flag}");
        }
    }
}
