//! How often and how long something that failed is tried again.

use std::time::Duration;

use tokio::time::Instant;

/// First pause. Short: a server that was restarted answers within a tenth of a second.
const FIRST: Duration = Duration::from_millis(5);
/// Longest pause: what a caller waits in vain after the server has come back.
const LONGEST: Duration = Duration::from_secs(1);

/// What an attempt is given however little time is left: a call is made at least once, and a busy server needs a moment for its
/// answer.
const ATTEMPT_MIN: Duration = Duration::from_secs(1);
/// For limits that no clock can hold.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Pauses that double, up to a deadline.
#[derive(Debug)]
pub(crate) struct Backoff {
    deadline: Instant,
    next: Duration,
}

impl Backoff {
    /// Until so much time has passed from now.
    pub(crate) fn for_at_most(limit: Duration) -> Self {
        let now = Instant::now();
        // What nobody lives to see is as good as never.
        Self { deadline: now.checked_add(limit).unwrap_or(now + NEVER), next: FIRST }
    }

    /// Time that is left.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// How long the next attempt may take that would get `limit` at any other time: no longer than there is time left, and
    /// [`ATTEMPT_MIN`] for the last one.
    pub(crate) fn attempt(&self, limit: Duration) -> Duration {
        limit.min(self.left().max(ATTEMPT_MIN))
    }

    /// Waits before the next attempt; `false` if there is no time for another. Each pause is between half and all of its
    /// length, so that clients that lost one server do not come back in step.
    pub(crate) async fn pause(&mut self) -> bool {
        let share = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
        let pause = self.next.mul_f64(0.5 + share / 2.0);
        self.next = (self.next * 2).min(LONGEST);
        if pause >= self.left() {
            return false;
        }
        tokio::time::sleep(pause).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_attempt_gets_what_is_left_and_a_fair_minimum() {
        let usual = Duration::from_secs(30);
        let backoff = Backoff::for_at_most(Duration::from_secs(10));
        assert_eq!(backoff.attempt(usual), Duration::from_secs(10));
        assert_eq!(backoff.attempt(Duration::from_secs(2)), Duration::from_secs(2));
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(backoff.attempt(usual), Duration::from_secs(3));
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(backoff.attempt(usual), ATTEMPT_MIN);
        assert_eq!(backoff.attempt(Duration::from_millis(5)), Duration::from_millis(5));
    }
}
