//! Every mode in turn over fresh seeds, for hours.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::harness::Failure;
use crate::modes::Mode;

/// How often it says how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// Of so many seeds one is used to flip every bit.
const EVERY_BIT_SEEDS: u64 = 16;

/// Runs all modes in turn, seed by seed from `seed` on, until `length` has passed; at least every mode once. Prints its
/// progress once a minute.
///
/// # Errors
/// The first broken promise. Its last line is what to type to see it again.
pub fn soak(seed: u64, length: Duration) -> Result<(), Box<Failure>> {
    #[allow(clippy::disallowed_methods, reason = "this is about hours of real time; nothing simulated sees it")]
    let began = Instant::now();
    let mut reported = Duration::ZERO;
    let mut totals = [0; Mode::ALL.len()];
    let mut done: u64 = 0;
    for seed in seed.. {
        for (mode, count) in Mode::ALL.into_iter().zip(&mut totals) {
            // As long as all others together, and stores differ little in what it looks at.
            if mode != Mode::EveryBit || done.is_multiple_of(EVERY_BIT_SEEDS) {
                let summary = mode.run(seed).map_err(|mut failure| {
                    failure.what.push_str(&format!("\nsee it again: {}", mode.command(seed)));
                    failure
                })?;
                *count += summary.count;
            }
        }
        done += 1;
        let passed = began.elapsed();
        let is_over = passed >= length;
        if is_over || passed >= reported + REPORT_EVERY {
            reported = passed;
            let parts = Mode::ALL.iter().zip(&totals).map(|(mode, count)| format!("{mode} {count}"));
            println!("{:6} s, {} seeds: {}", passed.as_secs(), done, parts.collect::<Vec<_>>().join(", "));
            // Whoever watches a pipe wants to see it now.
            let _ = std::io::stdout().flush();
        }
        if is_over {
            break;
        }
    }
    Ok(())
}
