//! Time as the store itself counts it. No jump of the wall clock moves it, in whatever direction and however often.
//!
//! | count | while the store is open | while it is closed |
//! |---|---|---|
//! | open time | with the monotonic clock | stands still |
//! | age | with the monotonic clock | by the wall clock, unless that says less than nothing or more than a day |
//!
//! Transactions go by the open time: while the store is closed nobody can ping them, end them or ask how they ended.
//! What retention keeps grows old by age. What either stands at says nothing; differences do.
//!
//! Both are written down now and then. The open time goes on where it was written down last, so after a hard stop the
//! time since then is not counted: it is never ahead of the time that has really passed.

use bytes::Bytes;

use crate::codec::{DecodeError, Decoder, Encoder};

/// A point in time, in milliseconds by each count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Moment {
    /// Of the wall clock, since 1970: what people are shown.
    pub(crate) wall_ms: i64,
    /// Of the store.
    pub(crate) age_ms: i64,
    /// For which the store has been open, over all its runs; from the first run that counted it.
    pub(crate) open_ms: i64,
}

/// Version 1 had no open time.
const VERSION: u8 = 2;

impl Moment {
    /// Of a store that has counted nothing yet.
    pub(crate) fn first(wall_ms: i64) -> Self {
        Self { wall_ms, age_ms: wall_ms, open_ms: 0 }
    }

    /// Later in the same run.
    pub(crate) fn later(self, passed_ms: i64, wall_ms: i64) -> Self {
        let (age_ms, open_ms) = (self.age_ms.saturating_add(passed_ms), self.open_ms.saturating_add(passed_ms));
        Self { wall_ms, age_ms, open_ms }
    }

    /// When the store is opened again, and whether the wall clock is believed about how long it was closed.
    pub(crate) fn reopened(self, wall_ms: i64) -> (Self, bool) {
        let away_ms = wall_ms.saturating_sub(self.wall_ms);
        let counted_ms = passed_while_away(away_ms);
        let age_ms = self.age_ms.saturating_add(counted_ms);
        (Self { wall_ms, age_ms, open_ms: self.open_ms }, counted_ms == away_ms)
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut encoder = Encoder::new(VERSION);
        encoder.i64(self.wall_ms).i64(self.age_ms).i64(self.open_ms);
        encoder.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new("clock", VERSION, bytes)?;
        let (wall_ms, age_ms) = (decoder.i64()?, decoder.i64()?);
        let open_ms = if decoder.version() == 1 { 0 } else { decoder.i64()? };
        decoder.finish()?;
        Ok(Self { wall_ms, age_ms, open_ms })
    }
}

/// Milliseconds by which the wall clock may be away from the time that has passed before nobody believes it.
const JUMP_MS: i64 = 24 * 60 * 60 * 1000;

/// Whether the wall clock went further, forwards or backwards, than time has passed, by more than a day.
pub(crate) fn has_jumped(wall_ms: i64, passed_ms: i64) -> bool {
    wall_ms.saturating_sub(passed_ms).saturating_abs() > JUMP_MS
}

/// What a time counts in which nobody watched the clock: what the wall clock says, unless that is less than nothing or
/// more than a day. Then it is not known, and nothing is counted: what is kept too long can be truncated later.
fn passed_while_away(wall_ms: i64) -> i64 {
    if (0..=JUMP_MS).contains(&wall_ms) { wall_ms } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_more_than_a_day_away_from_the_time_that_has_passed() {
        assert!(has_jumped(365 * JUMP_MS, 60_000) && !has_jumped(JUMP_MS, 60_000) && has_jumped(-2 * JUMP_MS, 60_000));
        assert!(!has_jumped(10 * JUMP_MS, 9 * JUMP_MS), "a long sleep is no jump");
        assert_eq!([-1, 5, JUMP_MS, JUMP_MS + 1].map(passed_while_away), [0, 5, JUMP_MS, 0]);
    }

    #[test]
    fn while_the_store_is_closed_it_grows_older_and_is_not_open() {
        let then = Moment { wall_ms: 1_000, age_ms: 70, open_ms: 30 };
        assert_eq!(then.reopened(1_500), (Moment { wall_ms: 1_500, age_ms: 570, open_ms: 30 }, true));
        for wall_ms in [999, 1_001 + JUMP_MS, i64::MIN, i64::MAX] {
            assert_eq!(then.reopened(wall_ms), (Moment { wall_ms, ..then }, false), "{wall_ms}");
        }
    }

    #[test]
    fn while_it_is_open_the_wall_clock_counts_nothing() {
        let then = Moment::first(1_000);
        for wall_ms in [i64::MIN, 0, 1_000, i64::MAX] {
            assert_eq!(then.later(5, wall_ms), Moment { wall_ms, age_ms: 1_005, open_ms: 5 });
        }
    }

    #[test]
    fn a_record_comes_back_and_one_of_before_the_open_time_was_counted_begins_it() {
        let record = Moment { wall_ms: -1, age_ms: i64::MAX, open_ms: 7 };
        let bytes = record.encode();
        assert_eq!(Moment::decode(&bytes).unwrap(), record);
        let mut old = bytes[..17].to_vec();
        old[0] = 1;
        assert_eq!(Moment::decode(&old).unwrap(), Moment { open_ms: 0, ..record });
        for cut in 0..bytes.len() {
            assert!(Moment::decode(&bytes[..cut]).is_err());
        }
    }
}
