//! When events are due, and how far a generator is behind. No clock here: `now` is an argument, in nanoseconds since the
//! run began.
//!
//! Latency counts from the moment an event was *due*, whenever it was sent: a server that stalls makes every event
//! behind the stall late, and hiding that by sending later would be coordinated omission.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::num::NonZeroU64;
use std::os::fd::AsFd;

use crate::error::{BenchError, Context};

/// Events at a fixed rate: event `n` is due at `start + n / rate`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    start_ns: u64,
    /// Events per second, in thousandths so that rates can be shared out among writers.
    rate_milli: u64,
    end_ns: u64,
}

/// Of all events due, so many hundredths may be unsent at the end of a valid run.
const BEHIND_MAX_PERCENT: u64 = 1;

/// So long after the end of a schedule it is judged: one wake-up that came late is not a generator that cannot keep up.
const GRACE_NS: u64 = 100_000_000;

impl Schedule {
    /// `rate_milli` (events per 1000 s) is at least 1; nothing is due at or after `end_ns`.
    pub(crate) fn new(start_ns: u64, end_ns: u64, rate_milli: u64) -> Self {
        assert!(rate_milli > 0, "a schedule has events");
        Self { start_ns, rate_milli, end_ns }
    }

    /// When event `n`, counted from 0, is due.
    pub(crate) fn due(&self, n: u64) -> u64 {
        let after = u128::from(n) * 1_000_000_000_000 / u128::from(self.rate_milli);
        self.start_ns.saturating_add(u64::try_from(after).unwrap_or(u64::MAX))
    }

    /// How many events are due at `now`.
    pub(crate) fn due_by(&self, now_ns: u64) -> u64 {
        // The last nanosecond at which something can be due is the one before the end.
        let Some(since) = now_ns.min(self.end_ns.saturating_sub(1)).checked_sub(self.start_ns) else { return 0 };
        // Event n is due by then iff floor(n * 10^12 / rate) <= since, which is n < (since + 1) * rate / 10^12.
        let bound = (u128::from(since) + 1) * u128::from(self.rate_milli);
        u64::try_from(bound.div_ceil(1_000_000_000_000)).unwrap_or(u64::MAX)
    }

    /// How many events the whole schedule has.
    pub(crate) fn total(&self) -> u64 {
        self.due_by(self.end_ns)
    }

    /// When to [`judge`](Self::judge), whatever was not sent by then: a little after the end.
    pub(crate) fn judged_at(&self) -> u64 {
        self.end_ns.saturating_add(GRACE_NS)
    }

    /// Whether a generator that sent so many events by then kept up.
    ///
    /// # Errors
    /// [`BenchError::Behind`] if more than 1 % are missing.
    pub(crate) fn judge(&self, sent: u64) -> Result<(), BenchError> {
        let due = self.total();
        let unsent = due.saturating_sub(sent);
        if unsent * 100 > due * BEHIND_MAX_PERCENT { Err(BenchError::Behind { due, unsent }) } else { Ok(()) }
    }
}

/// Makes the sleeps of this thread as exact as the kernel can; the default may be 50 µs late.
pub(crate) fn sleep_exactly() {
    // A kernel that refuses leaves the default, which shows in the latencies and nowhere else.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// Waits until something can be read or `until_ns`, whichever is first. True if something can be read.
pub(crate) fn readable(socket: &impl AsFd, now_ns: u64, until_ns: u64) -> Result<bool, BenchError> {
    let left = until_ns.saturating_sub(now_ns);
    let timeout = Timespec { tv_sec: (left / 1_000_000_000) as i64, tv_nsec: (left % 1_000_000_000) as i64 };
    let mut waiting = [PollFd::new(socket, PollFlags::IN)];
    match poll(&mut waiting, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error).on("wait for", "a socket"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn events_are_due_evenly_from_the_start_and_none_at_the_end() {
        let schedule = Schedule::new(5 * SECOND, 7 * SECOND, 1000 * 1000);
        assert_eq!(schedule.due(0), 5 * SECOND);
        assert_eq!(schedule.due(1000), 6 * SECOND);
        assert_eq!(schedule.due_by(0), 0);
        assert_eq!(schedule.due_by(5 * SECOND - 1), 0);
        assert_eq!(schedule.due_by(5 * SECOND), 1);
        assert_eq!(schedule.due_by(6 * SECOND), 1001);
        assert_eq!(schedule.total(), 2000);
        assert_eq!(schedule.due_by(99 * SECOND), 2000);
    }

    #[test]
    fn due_by_counts_exactly_the_events_whose_due_time_has_come() {
        for rate_milli in [1, 333, 1_000, 7_777_777, 200_000_000] {
            let schedule = Schedule::new(17, 3_000 * SECOND, rate_milli);
            for n in [0, 1, 2, 3, 57, 1000] {
                let due = schedule.due(n);
                if due < 3_000 * SECOND {
                    assert!(schedule.due_by(due) > n, "event {n} at rate {rate_milli} is due at {due}");
                    assert!(schedule.due_by(due - 1) <= n, "event {n} at rate {rate_milli} is not due before {due}");
                }
            }
        }
    }

    #[test]
    fn a_stall_is_charged_to_every_event_that_became_due_meanwhile() {
        let schedule = Schedule::new(0, 10 * SECOND, 1000 * 1000);
        // Nothing was sent for half a second: the generator finds 501 events due and times each from its own due time.
        let (sent, now) = (100, 600 * 1_000_000);
        let late: Vec<u64> = (sent..schedule.due_by(now)).map(|n| now - schedule.due(n)).collect();
        assert_eq!(late.len(), 501);
        assert_eq!((late[0], late[500]), (500 * 1_000_000, 0));
    }

    #[test]
    fn a_generator_more_than_one_percent_behind_invalidates_the_run() {
        let schedule = Schedule::new(0, SECOND, 1000 * 1000);
        assert!(schedule.judge(1000).is_ok());
        assert!(schedule.judge(990).is_ok());
        assert!(matches!(schedule.judge(989), Err(BenchError::Behind { due: 1000, unsent: 11 })));
    }

    #[test]
    fn a_wait_ends_when_bytes_come_or_at_its_time() {
        use std::io::Write as _;
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!readable(&theirs, 0, 1_000).unwrap());
        ours.write_all(b"x").unwrap();
        assert!(readable(&theirs, 0, 10 * SECOND).unwrap());
    }
}
