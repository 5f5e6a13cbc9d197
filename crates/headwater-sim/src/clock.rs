//! Time that moves only when a test says so.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use headwater_engine::io::Clock;

/// [`Clock`] by hand. The wall clock may be set to anything; the monotonic one only advances.
#[derive(Debug)]
pub struct SimClock(Mutex<Times>);

#[derive(Clone, Copy, Debug)]
struct Times {
    wall_millis: i64,
    monotonic: Duration,
}

impl SimClock {
    /// Starts at `wall_millis` since 1970 and a monotonic time of 0.
    pub fn new(wall_millis: i64) -> Self {
        Self(Mutex::new(Times { wall_millis, monotonic: Duration::ZERO }))
    }

    /// Lets time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.monotonic += by;
        times.wall_millis =
            times.wall_millis.saturating_add_unsigned(u64::try_from(by.as_millis()).unwrap_or(u64::MAX));
    }

    /// Sets the wall clock, backwards too.
    pub fn set_wall(&self, wall_millis: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).wall_millis = wall_millis;
    }
}

impl Clock for SimClock {
    fn wall_millis(&self) -> i64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).wall_millis
    }

    fn monotonic(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).monotonic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_the_wall_clock_leaves_the_monotonic_one_alone() {
        let clock = SimClock::new(1000);
        clock.advance(Duration::from_millis(1500));
        clock.set_wall(-5);
        assert_eq!((clock.wall_millis(), clock.monotonic()), (-5, Duration::from_millis(1500)));
    }
}
