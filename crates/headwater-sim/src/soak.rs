//! Every mode in turn over fresh seeds, for hours.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::harness::Failure;
use crate::modes::Mode;

/// How often it says how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// Runs all modes in turn, seed by seed from `seed` on, until `length` has passed; at least every mode once. Prints its
/// progress once a minute.
///
/// # Errors
/// The first broken promise, with the mode and what to type to see it again.
pub fn soak(seed: u64, length: Duration) -> Result<(), (Mode, Box<Failure>)> {
    #[allow(clippy::disallowed_methods, reason = "this is about hours of real time; nothing simulated sees it")]
    let began = Instant::now();
    let mut reported = Duration::ZERO;
    let mut totals = [(0_u64, 0_u64); Mode::ALL.len()];
    for seed in seed.. {
        for (mode, (seeds, count)) in Mode::ALL.into_iter().zip(&mut totals) {
            let summary = mode.run(seed).map_err(|failure| (mode, failure))?;
            *seeds += 1;
            *count += summary.count;
        }
        let passed = began.elapsed();
        let is_over = passed >= length;
        if is_over || passed >= reported + REPORT_EVERY {
            reported = passed;
            let parts = Mode::ALL.iter().zip(&totals).map(|(mode, (_, count))| format!("{mode} {count}"));
            println!("{:6} s, {} seeds: {}", passed.as_secs(), totals[0].0, parts.collect::<Vec<_>>().join(", "));
            // Whoever watches a pipe wants to see it now.
            let _ = std::io::stdout().flush();
        }
        if is_over {
            break;
        }
    }
    Ok(())
}
