//! How much of a stream is kept: which of the cuts taken down now and then becomes the stream's head.
//!
//! Every run takes down where the stream ends, at what time and after how many bytes. Truncation happens at one of
//! these cuts, or where the slowest subscriber stands. Source of the rules: Pravega's retention service.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_types::SegmentId;

use super::cuts::Order;
use super::epochs::{History, Segment};
use super::head::{decode_cut, encode_cut};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::model::{FUTURE, RetentionKind, RetentionPolicy, StreamCut};

/// Where a stream ended when it was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Kept {
    /// Age of the store then, in milliseconds.
    pub(crate) time_ms: i64,
    /// Bytes of the stream before the cut, since its creation.
    pub(crate) bytes: i64,
    pub(crate) cut: StreamCut,
}

const VERSION: u8 = 1;

impl Kept {
    fn position(&self) -> Position {
        Position { cut: self.cut.clone(), bytes: self.bytes }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut encoder = Encoder::new(VERSION);
        encoder.i64(self.time_ms).i64(self.bytes);
        encode_cut(&mut encoder, &self.cut);
        encoder.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new("retention cut", VERSION, bytes)?;
        let record = Self { time_ms: decoder.i64()?, bytes: decoder.i64()?, cut: decode_cut(&mut decoder)? };
        decoder.finish()?;
        Ok(record)
    }
}

/// The furthest position that none of the cuts is behind of. All are valid; `history` has their creation epochs. The
/// result is not valid if the cuts contradict each other.
pub(crate) fn lower_bound(cuts: &[StreamCut], history: &History) -> StreamCut {
    let segments = history.segments();
    let mut least: BTreeMap<SegmentId, i64> = BTreeMap::new();
    for (id, offset) in cuts.iter().flatten() {
        let entry = least.entry(*id).or_insert(*offset);
        *entry = (*entry).min(*offset).max(FUTURE);
    }
    let mut bound = StreamCut::new();
    let mut taken: Vec<&Segment> = Vec::new();
    // Ids order by epoch first, so predecessors come before successors.
    for (id, offset) in least {
        let Some(segment) = segments.get(&id) else { continue };
        let before: Vec<&Segment> = taken
            .iter()
            .copied()
            .filter(|other| other.range.overlaps(segment.range) && other.id.epoch < id.epoch)
            .collect();
        if before.is_empty() {
            bound.insert(id, offset.max(0));
        } else if covers(&before, segment) {
            continue;
        } else {
            bound.insert(id, FUTURE);
        }
        taken.push(segment);
    }
    bound
}

/// Whether the segments, which may overlap, leave no key of `segment` free.
fn covers(segments: &[&Segment], segment: &Segment) -> bool {
    let mut ranges: Vec<_> = segments.iter().map(|segment| segment.range).collect();
    ranges.sort_by(|a, b| a.low().total_cmp(&b.low()));
    let mut reached = segment.range.low();
    for range in ranges {
        if range.low() > reached {
            return false;
        }
        reached = reached.max(range.high());
    }
    reached >= segment.range.high()
}

/// A cut with what lies before it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Position {
    pub(crate) cut: StreamCut,
    /// Bytes of the stream before the cut, since its creation.
    pub(crate) bytes: i64,
}

/// Where to truncate, if anywhere; it may be where the stream begins already. `readers` is where all subscribers
/// together stand. `kept` has the cuts that were taken down, oldest first, the newest of this moment; `order` says how
/// a cut of `kept` lies to that of `readers`.
pub(crate) fn choose(
    policy: RetentionPolicy,
    now_ms: i64,
    kept: &[Kept],
    readers: Option<&Position>,
    order: impl Fn(&StreamCut, &StreamCut) -> Order,
) -> Option<Position> {
    let newest = kept.last()?.bytes;
    let distance = |at: &Kept| match policy.kind {
        RetentionKind::Time => now_ms.saturating_sub(at.time_ms.min(now_ms)),
        RetentionKind::Size => newest.saturating_sub(at.bytes),
    };
    let keep = policy.keep.max(0);
    // Clients that know no maximum send none.
    let most = if policy.keep_max <= 0 { i64::MAX } else { policy.keep_max.max(keep) };
    let min_cut = kept.iter().filter(|at| distance(at) >= keep).min_by_key(|at| distance(at));
    let Some(readers) = readers else { return min_cut.map(Kept::position) };
    let max_cut =
        kept.iter().filter(|at| (keep..=most).contains(&distance(at))).max_by_key(|at| distance(at)).or(min_cut);
    let behind_readers = || kept.iter().rev().find(|at| order(&at.cut, &readers.cut) == Order::Before);
    let chosen = match policy.kind {
        RetentionKind::Size => {
            let unread = newest.saturating_sub(readers.bytes);
            if unread < keep {
                match min_cut {
                    Some(at) if order(&at.cut, &readers.cut) != Order::Before => behind_readers(),
                    other => other,
                }
            } else if unread < most {
                return Some(readers.clone());
            } else {
                match max_cut {
                    Some(at) if distance(at) < unread => Some(at),
                    _ => return Some(readers.clone()),
                }
            }
        }
        RetentionKind::Time => {
            let min_cut = min_cut?;
            match order(&min_cut.cut, &readers.cut) {
                Order::Before => Some(min_cut),
                Order::Overlaps => behind_readers(),
                Order::EqualOrAfter => {
                    let too_old = kept.iter().filter(|at| distance(at) >= most).min_by_key(|at| distance(at));
                    match too_old.map(|at| (at, order(&at.cut, &readers.cut))) {
                        None => return Some(readers.clone()),
                        Some((at, order)) if order == Order::Before || at.cut == readers.cut => {
                            return Some(readers.clone());
                        }
                        Some((_, Order::EqualOrAfter)) => max_cut,
                        Some((at, _)) => Some(at),
                    }
                }
            }
        }
    };
    chosen.map(Kept::position)
}

/// Most cuts kept of a stream.
pub(crate) const KEPT_MAX: usize = 1024;

/// Which cuts of a list that has grown too long are given up: every second of the older half.
pub(crate) fn thin(count: usize) -> impl Iterator<Item = usize> {
    (0..count / 2).filter(move |index| count > KEPT_MAX && index % 2 == 1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::state::cuts::tests::{A, B, M, N, O, cut, history};
    use crate::state::cuts::{self, order};
    use crate::state::epochs::Epoch;

    #[test]
    fn the_lower_bound_is_where_the_slowest_reader_is_for_each_key() {
        let history = history();
        for (readers, expected) in [
            (vec![cut(&[(A, 5), (B, 9)]), cut(&[(A, 7), (B, 3)])], cut(&[(A, 5), (B, 3)])),
            (vec![cut(&[(A, 5), (B, 9)]), cut(&[(M, 4)])], cut(&[(A, 5), (B, 9)])),
            (vec![cut(&[(M, 4)]), cut(&[(N, 1), (O, 2)])], cut(&[(M, 4)])),
            // One has finished A, the other is in N: B is left, and M for A's keys.
            (vec![cut(&[(B, 5), (M, FUTURE)]), cut(&[(N, 3), (O, 0)])], cut(&[(B, 5), (M, FUTURE)])),
            (vec![cut(&[(A, 5), (B, 5)]), cut(&[(B, 3), (M, FUTURE)])], cut(&[(A, 5), (B, 3)])),
            (vec![cut(&[(N, 3), (O, 0)])], cut(&[(N, 3), (O, 0)])),
        ] {
            let bound = lower_bound(&readers, &history);
            assert_eq!(bound, expected, "{readers:?}");
            assert!(cuts::surface(&bound, &history).is_some(), "{bound:?} is a cut");
            assert!(readers.iter().all(|reader| cuts::is_equal_or_after(reader, &bound, &history)));
        }
    }

    /// A cut per minute, 100 bytes apart, in a stream of one segment; the last is of now.
    fn kept() -> Vec<Kept> {
        (0..10).map(|n| Kept { time_ms: n * 60_000, bytes: n * 100, cut: cut(&[(A, n * 100)]) }).collect()
    }

    fn one() -> History {
        History(vec![Arc::new(Epoch::first(0, 1, 0))])
    }

    fn chosen(kind: RetentionKind, keep: i64, keep_max: i64, readers: Option<i64>) -> Option<i64> {
        let history = one();
        let readers = readers.map(|bytes| Position { cut: cut(&[(A, bytes)]), bytes });
        let policy = RetentionPolicy { kind, keep, keep_max };
        let chosen = choose(policy, 9 * 60_000, &kept(), readers.as_ref(), |a, b| order(a, b, &history).unwrap());
        chosen.map(|at| at.cut[&A])
    }

    #[test]
    fn without_readers_the_least_that_keeps_enough_goes() {
        use RetentionKind::{Size, Time};
        assert_eq!(chosen(Size, 250, i64::MAX, None), Some(600), "300 bytes stay");
        assert_eq!(chosen(Size, 300, i64::MAX, None), Some(600));
        assert_eq!(chosen(Size, 0, i64::MAX, None), Some(900));
        assert_eq!(chosen(Size, 901, i64::MAX, None), None);
        assert_eq!(chosen(Time, 150_000, i64::MAX, None), Some(600), "three minutes stay");
        assert_eq!(chosen(Time, 10 * 60_000, i64::MAX, None), None);
    }

    #[test]
    fn readers_hold_bytes_back_between_the_bounds() {
        use RetentionKind::Size;
        assert_eq!(chosen(Size, 200, 500, Some(550)), Some(550), "350 unread bytes are within the bounds");
        assert_eq!(chosen(Size, 200, 500, Some(850)), Some(700), "50 unread, but 200 are to be kept");
        assert_eq!(chosen(Size, 200, 500, Some(100)), Some(400), "800 unread are more than readers may hold back");
        assert_eq!(chosen(Size, 200, i64::MAX, Some(100)), Some(100));
        assert_eq!(chosen(Size, 200, 0, Some(100)), Some(100), "no maximum is given");
        assert_eq!(chosen(Size, 2000, i64::MAX, Some(800)), None, "nothing is old enough");
    }

    #[test]
    fn readers_hold_time_back_between_the_bounds() {
        use RetentionKind::Time;
        let minutes = |n: i64| n * 60_000;
        assert_eq!(chosen(Time, minutes(2), minutes(5), Some(550)), Some(550));
        assert_eq!(chosen(Time, minutes(2), minutes(5), Some(850)), Some(700), "two minutes are kept in any case");
        assert_eq!(chosen(Time, minutes(2), minutes(5), Some(100)), Some(400), "at most five");
        assert_eq!(chosen(Time, minutes(2), i64::MAX, Some(100)), Some(100));
        assert_eq!(chosen(Time, minutes(20), i64::MAX, Some(100)), None);
    }

    #[test]
    fn a_cut_that_is_ahead_of_the_clock_is_not_old() {
        let policy = RetentionPolicy { kind: RetentionKind::Time, keep: 60_000, keep_max: i64::MAX };
        let history = one();
        assert_eq!(choose(policy, -1_000_000_000, &kept(), None, |a, b| order(a, b, &history).unwrap()), None);
    }

    #[test]
    fn a_list_that_is_too_long_loses_every_second_of_its_older_half() {
        assert_eq!(thin(KEPT_MAX).count(), 0);
        let gone: Vec<_> = thin(KEPT_MAX + 2).collect();
        assert_eq!((gone.len(), gone[0], *gone.last().unwrap()), (256, 1, 511));
    }

    #[test]
    fn a_record_comes_back_and_no_bytes_make_decoding_panic() {
        let record = Kept { time_ms: 5, bytes: 7, cut: cut(&[(A, 1), (B, -1)]) };
        let good = record.encode();
        assert_eq!(Kept::decode(&good).unwrap(), record);
        for at in 0..good.len() {
            assert!(Kept::decode(&good[..at]).is_err());
            let mut bad = good.to_vec();
            bad[at] ^= 0xff;
            let _ = Kept::decode(&bad);
        }
    }
}
