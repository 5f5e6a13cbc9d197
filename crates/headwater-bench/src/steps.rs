//! Things that are done one after the other, each when it is due, or as soon as the last is done.

use std::thread;
use std::time::Duration;

use crate::error::BenchError;
use crate::latency::Latencies;
use crate::pace::sleep_exactly;
use crate::write::generator::{Pace, Times};

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Of what ended (closed loop) or was due (open loop) while it counted; from when it was due, or begun.
    pub(crate) latencies: Latencies,
    /// What ended while it counted.
    pub(crate) counted: u64,
}

impl Done {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.latencies.merge(&other.latencies);
        self.counted += other.counted;
    }
}

/// Does the first, the second, … until the end; what takes longer than its time makes those behind it late.
///
/// # Errors
/// Those of `one`; [`BenchError::Behind`] if more than 1 % of what was due was not begun.
pub(crate) fn one_by_one(
    times: &Times,
    pace: Pace,
    mut one: impl FnMut(u64) -> Result<(), BenchError>,
) -> Result<Done, BenchError> {
    sleep_exactly();
    let mut done = Done::default();
    for n in 0.. {
        let now = times.now_ns();
        let due = match pace {
            Pace::Closed if now >= times.end_ns => break,
            Pace::Closed => now,
            Pace::Open(schedule) if n == schedule.total() || now >= schedule.judged_at() => {
                schedule.judge(n)?;
                break;
            }
            Pace::Open(schedule) => schedule.due(n),
        };
        thread::sleep(Duration::from_nanos(due.saturating_sub(now)));
        one(n)?;
        let ended = times.now_ns();
        let timed = match pace {
            Pace::Closed => times.counts(ended),
            Pace::Open(_) => times.counts(due),
        };
        if timed {
            done.latencies.record(ended.saturating_sub(due));
        }
        done.counted += u64::from(times.counts(ended));
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::Schedule;
    use std::time::Instant;

    const MS: u64 = 1_000_000;

    fn times(end_ns: u64) -> Times {
        Times { origin: Instant::now(), counted_from_ns: 0, end_ns }
    }

    #[test]
    fn a_stall_makes_what_became_due_meanwhile_late() {
        let times = times(300 * MS);
        let schedule = Schedule::new(0, times.end_ns, 1_000_000);
        let done = one_by_one(&times, Pace::Open(schedule), |n| {
            if n == 100 {
                thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        });
        let latencies = done.unwrap().latencies.quantiles();
        assert_eq!(latencies.count, 300);
        assert!(latencies.max_us >= 100_000.0 && latencies.p90_us >= 50_000.0, "{latencies}");
    }

    #[test]
    fn a_loop_that_is_too_slow_for_its_times_has_no_figures() {
        let times = times(50 * MS);
        let schedule = Schedule::new(0, times.end_ns, 1_000_000);
        let done = one_by_one(&times, Pace::Open(schedule), |_| {
            thread::sleep(Duration::from_millis(20));
            Ok(())
        });
        assert!(matches!(done, Err(BenchError::Behind { due: 50, .. })), "{done:?}");
    }

    #[test]
    fn a_closed_loop_ends_at_its_end_and_counts_what_ended_before() {
        let times = times(50 * MS);
        let mut begun = 0;
        let done = one_by_one(&times, Pace::Closed, |n| {
            assert_eq!(n, begun);
            begun += 1;
            thread::sleep(Duration::from_millis(20));
            Ok(())
        });
        let done = done.unwrap();
        assert!(begun <= 3 && done.counted < begun && done.latencies.count() == done.counted, "{begun} {done:?}");
    }
}
