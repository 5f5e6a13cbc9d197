//! When a person's sign-in on another device is asked about again. No socket, no clock.
//!
//! Source: RFC 8628, 3.5.

use std::time::Duration;

use tokio::time::Instant;

/// What RFC 8628 adds when the issuer asks for more time.
const SLOWER_BY: Duration = Duration::from_secs(5);
/// Longest pause after which an issuer that did not answer is asked again.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Least time between two questions, whatever the issuer allows: every one of them is work for it.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// What the issuer said, last time, of somebody who has not signed in yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Heard {
    /// Nobody has come yet.
    Pending,
    /// The same, and it was asked too often.
    SlowDown,
    /// Nothing: it did not answer.
    Silence,
}

/// A sign-in that is waited for.
#[derive(Debug)]
pub(super) struct Waiting {
    interval: Duration,
    until: Instant,
}

impl Waiting {
    /// Asked about at most every `interval`, given up at `until`.
    pub(super) fn new(interval: Duration, until: Instant) -> Self {
        Self { interval: interval.max(PAUSE_MIN), until }
    }

    /// When to ask first.
    pub(super) fn first(&self, now: Instant) -> Option<Instant> {
        self.at(now)
    }

    /// When to ask again; `None`: the code is no good any more.
    pub(super) fn next(&mut self, heard: Heard, now: Instant) -> Option<Instant> {
        match heard {
            Heard::Pending => {}
            Heard::SlowDown => self.interval += SLOWER_BY,
            Heard::Silence => self.interval = (self.interval * 2).min(PAUSE_MAX).max(self.interval),
        }
        self.at(now)
    }

    fn at(&self, now: Instant) -> Option<Instant> {
        now.checked_add(self.interval).filter(|at| *at < self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_sign_in_is_asked_about_no_more_often_than_the_issuer_wants() {
        let now = Instant::now();
        let seconds = |seconds| Some(now + Duration::from_secs(seconds));
        let mut waiting = Waiting::new(Duration::from_secs(5), now + Duration::from_secs(600));
        assert_eq!(waiting.first(now), seconds(5));
        assert_eq!(waiting.next(Heard::Pending, now), seconds(5));
        assert_eq!(waiting.next(Heard::SlowDown, now), seconds(10), "from now on");
        assert_eq!(waiting.next(Heard::Pending, now), seconds(10));
        assert_eq!(waiting.next(Heard::SlowDown, now), seconds(15));
        assert_eq!(waiting.next(Heard::Silence, now), seconds(30));
        assert_eq!(waiting.next(Heard::Silence, now), seconds(60));
        assert_eq!(waiting.next(Heard::Silence, now), seconds(60));
        assert_eq!(waiting.next(Heard::Pending, now + Duration::from_secs(539)), seconds(599));
        assert_eq!(waiting.next(Heard::Pending, now + Duration::from_secs(540)), None, "the code has ended by then");
    }

    #[tokio::test(start_paused = true)]
    async fn an_issuer_that_allows_every_instant_is_not_asked_all_the_time() {
        let now = Instant::now();
        let mut waiting = Waiting::new(Duration::ZERO, now + Duration::from_secs(600));
        assert_eq!(waiting.next(Heard::Pending, now), Some(now + PAUSE_MIN));
        let mut slow = Waiting::new(Duration::from_secs(90), now + Duration::from_secs(600));
        assert_eq!(slow.next(Heard::Silence, now), Some(now + Duration::from_secs(90)), "silence makes nobody faster");
    }
}
