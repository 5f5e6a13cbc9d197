//! How much of a stream is kept: which of the cuts taken down now and then becomes the stream's head.
//!
//! Every run takes down where the stream ends, at what time and after how many bytes. Truncation happens at one of
//! these cuts, or where the slowest subscriber stands. Source of the rules: Pravega's retention service.

use bytes::Bytes;

use super::cuts::{Order, Segments};
use super::epochs::Segment;
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

/// A [`Kept`] without its cut, which may be large.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Mark {
    pub(crate) time_ms: i64,
    pub(crate) bytes: i64,
}

impl Kept {
    pub(crate) fn mark(&self) -> Mark {
        Mark { time_ms: self.time_ms, bytes: self.bytes }
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

/// The furthest position that none of some cuts is behind of. They come one by one, since there may be many large ones.
#[derive(Debug, Default)]
pub(crate) struct LowerBound {
    least: StreamCut,
}

impl LowerBound {
    /// Takes a valid cut.
    pub(crate) fn add(&mut self, cut: &StreamCut) {
        for (id, offset) in cut {
            let entry = self.least.entry(*id).or_insert(*offset);
            *entry = (*entry).min(*offset).max(FUTURE);
        }
    }

    /// Everything that some cut names.
    pub(crate) fn named(&self) -> &StreamCut {
        &self.least
    }

    /// The bound, given what is [named](Self::named). It is not valid if the cuts contradict each other.
    pub(crate) fn finish(self, segments: &Segments) -> StreamCut {
        bound(self.least, segments)
    }
}

fn bound(least: StreamCut, segments: &Segments) -> StreamCut {
    let mut bound = StreamCut::new();
    let mut taken: Vec<&Segment> = Vec::new();
    // Ids order by epoch first, so predecessors come before successors.
    for (id, offset) in least {
        let Some((segment, _)) = segments.get(&id) else { continue };
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

/// Where all subscribers together stand, as [`choose`] goes by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readers {
    pub(crate) bytes: i64,
    /// How many of the oldest cuts lie before it: where the stream ended grows.
    pub(crate) before: usize,
    /// From which on the cuts are equal to it or after.
    pub(crate) after: usize,
    /// That cut is the very same.
    pub(crate) is_kept: bool,
}

impl Readers {
    /// How a cut lies to it.
    fn order(&self, index: usize) -> Order {
        if index < self.before {
            Order::Before
        } else if index >= self.after {
            Order::EqualOrAfter
        } else {
            Order::Overlaps
        }
    }
}

/// Where a stream is to begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Choice {
    /// At one of the cuts, by its number.
    Kept(usize),
    /// Where all subscribers together stand.
    Readers,
}

/// Where to truncate, if anywhere; it may be where the stream begins already. `kept` are the cuts that were taken down and
/// are not behind the stream's head, oldest first, the newest of this moment.
pub(crate) fn choose(policy: RetentionPolicy, now_ms: i64, kept: &[Mark], readers: Option<Readers>) -> Option<Choice> {
    let newest = kept.last()?.bytes;
    let distance = |at: usize| match policy.kind {
        RetentionKind::Time => now_ms.saturating_sub(kept[at].time_ms.min(now_ms)),
        RetentionKind::Size => newest.saturating_sub(kept[at].bytes),
    };
    let keep = policy.keep.max(0);
    // Clients that know no maximum send none.
    let most = if policy.keep_max <= 0 { i64::MAX } else { policy.keep_max.max(keep) };
    let all = || 0..kept.len();
    let min_cut = all().filter(|at| distance(*at) >= keep).min_by_key(|at| distance(*at));
    let Some(readers) = readers else { return min_cut.map(Choice::Kept) };
    let max_cut = all().filter(|at| (keep..=most).contains(&distance(*at))).max_by_key(|at| distance(*at)).or(min_cut);
    let behind_readers = || all().rev().find(|at| readers.order(*at) == Order::Before);
    let chosen = match policy.kind {
        RetentionKind::Size => {
            let unread = newest.saturating_sub(readers.bytes);
            if unread < keep {
                match min_cut {
                    Some(at) if readers.order(at) != Order::Before => behind_readers(),
                    other => other,
                }
            } else if unread < most {
                return Some(Choice::Readers);
            } else {
                match max_cut {
                    Some(at) if distance(at) < unread => Some(at),
                    _ => return Some(Choice::Readers),
                }
            }
        }
        RetentionKind::Time => {
            let min_cut = min_cut?;
            match readers.order(min_cut) {
                Order::Before => Some(min_cut),
                Order::Overlaps => behind_readers(),
                Order::EqualOrAfter => {
                    let too_old = all().filter(|at| distance(*at) >= most).min_by_key(|at| distance(*at));
                    match too_old.map(|at| (at, readers.order(at))) {
                        None | Some((_, Order::Before)) => return Some(Choice::Readers),
                        Some((at, _)) if readers.is_kept && at == readers.after => return Some(Choice::Readers),
                        Some((_, Order::EqualOrAfter)) => max_cut,
                        // All before it is too old, whatever of that some reader still wants.
                        Some((at, Order::Overlaps)) => Some(at),
                    }
                }
            }
        }
    };
    chosen.map(Choice::Kept)
}

/// Most cuts kept of a stream.
pub(crate) const KEPT_MAX: usize = 1024;

/// Which cuts of a list that has grown too long are given up: every second of the older half.
pub(crate) fn thin(count: usize) -> impl Iterator<Item = usize> {
    (0..count / 2).filter(move |index| count > KEPT_MAX && index % 2 == 1)
}

#[cfg(test)]
mod tests {
    use headwater_types::SegmentId;

    use super::*;
    use crate::state::cuts::tests::{A, B, History, M, N, O, P, Q, cut, history, is_equal_or_after, order, surface};
    use crate::state::epochs::Epoch;

    impl Kept {
        fn position(&self) -> Position {
            Position { cut: self.cut.clone(), bytes: self.bytes }
        }
    }

    fn lower_bound(cuts: &[StreamCut], history: &History) -> StreamCut {
        let mut bound = LowerBound::default();
        cuts.iter().for_each(|cut| bound.add(cut));
        let segments = history.named(bound.named());
        bound.finish(&segments)
    }

    /// What is chosen of these cuts.
    fn position(
        policy: RetentionPolicy,
        now_ms: i64,
        kept: &[Kept],
        readers: Option<&Position>,
        history: &History,
    ) -> Option<Position> {
        let stands = readers.map(|readers| {
            let orders: Vec<_> = kept.iter().map(|at| order(&at.cut, &readers.cut, history).unwrap()).collect();
            let before = orders.partition_point(|order| *order == Order::Before);
            let after = orders.partition_point(|order| *order != Order::EqualOrAfter);
            let is_kept = kept.get(after).is_some_and(|at| at.cut == readers.cut);
            let stands = Readers { bytes: readers.bytes, before, after, is_kept };
            let told: Vec<_> = (0..kept.len()).map(|index| stands.order(index)).collect();
            assert_eq!(told, orders, "where a stream ended grows");
            stands
        });
        let marks: Vec<Mark> = kept.iter().map(Kept::mark).collect();
        choose(policy, now_ms, &marks, stands).map(|choice| match choice {
            Choice::Kept(at) => kept[at].position(),
            Choice::Readers => readers.expect("they were given").clone(),
        })
    }

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
            assert!(surface(&bound, &history).is_some(), "{bound:?} is a cut");
            assert!(readers.iter().all(|reader| is_equal_or_after(reader, &bound, &history)));
        }
    }

    /// A cut per minute, 100 bytes apart, in a stream of one segment; the last is of now.
    fn kept() -> Vec<Kept> {
        (0..10).map(|n| Kept { time_ms: n * 60_000, bytes: n * 100, cut: cut(&[(A, n * 100)]) }).collect()
    }

    /// A stream that merges and splits, a cut per minute, 100 bytes apart; the last is of now. A and B ended at 100 bytes each,
    /// M at 200, N at 100.
    fn kept_over_scales() -> Vec<Kept> {
        let cuts: [&[(SegmentId, i64)]; 10] = [
            &[(A, 0), (B, 0)],
            &[(A, 60), (B, 40)],
            &[(A, 100), (B, 100)],
            &[(M, 100)],
            &[(M, 200)],
            &[(N, 60), (O, 40)],
            &[(N, 100), (O, 100)],
            &[(O, 140), (P, 30), (Q, 30)],
            &[(O, 180), (P, 60), (Q, 60)],
            &[(O, 200), (P, 100), (Q, 100)],
        ];
        let kept =
            |(n, entries): (i64, &[(SegmentId, i64)])| Kept { time_ms: n * 60_000, bytes: n * 100, cut: cut(entries) };
        (0..).zip(cuts).map(kept).collect()
    }

    /// Where readers of that stream may stand together, with the bytes before.
    fn standing(entries: &[(SegmentId, i64)]) -> Position {
        let ended = [(A, 100), (B, 100), (M, 200), (N, 100)];
        let history = history();
        let at = cut(entries);
        let surface = surface(&at, &history).expect("readers stand on a cut");
        let is_past = |id: &SegmentId| surface.is_past(&history.segments()[id]);
        let past: i64 = ended.iter().filter(|(id, _)| is_past(id)).map(|(_, end)| end).sum();
        Position { bytes: past + at.values().map(|offset| (*offset).max(0)).sum::<i64>(), cut: at }
    }

    fn chosen_over_scales(kind: RetentionKind, keep: i64, keep_max: i64, readers: &Position) -> Option<Position> {
        let (history, kept) = (history(), kept_over_scales());
        let policy = RetentionPolicy { kind, keep, keep_max };
        position(policy, 9 * 60_000, &kept, Some(readers), &history)
    }

    fn one() -> History {
        History(vec![Epoch::first(0, 1, 0)])
    }

    fn chosen(kind: RetentionKind, keep: i64, keep_max: i64, readers: Option<i64>) -> Option<i64> {
        let history = one();
        let readers = readers.map(|bytes| Position { cut: cut(&[(A, bytes)]), bytes });
        let policy = RetentionPolicy { kind, keep, keep_max };
        position(policy, 9 * 60_000, &kept(), readers.as_ref(), &history).map(|at| at.cut[&A])
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
        assert_eq!(position(policy, -1_000_000_000, &kept(), None, &one()), None);
    }

    #[test]
    fn a_cut_that_is_ahead_of_readers_here_and_behind_them_there_gives_way_to_one_that_is_behind_them() {
        use RetentionKind::{Size, Time};
        let minutes = |n: i64| n * 60_000;
        let (ahead_on_n, past_a) = (standing(&[(N, 100), (O, 20)]), standing(&[(B, 50), (M, FUTURE)]));
        assert_eq!((ahead_on_n.bytes, past_a.bytes), (520, 150));
        for (kind, keep, readers, expected) in [
            // Four minutes ago N was at 60 and O at 40; a minute before, M ended.
            (Time, minutes(4), &ahead_on_n, 4),
            (Time, minutes(6), &ahead_on_n, 3),
            // A and B had just ended; the minute before, both were behind the reader.
            (Time, minutes(7), &past_a, 1),
            (Size, 400, &ahead_on_n, 4),
            (Size, 500, &ahead_on_n, 4),
            (Size, 600, &ahead_on_n, 3),
            (Size, 760, &past_a, 1),
            (Size, 790, &standing(&[(B, 20), (M, FUTURE)]), 0),
        ] {
            let expected = kept_over_scales()[expected].position();
            assert_eq!(chosen_over_scales(kind, keep, 0, readers), Some(expected.clone()), "{kind:?} {keep}");
            assert_eq!(chosen_over_scales(kind, keep, i64::MAX, readers), Some(expected), "{kind:?} {keep}");
        }
        for (kind, keep) in [(Time, minutes(2)), (Size, 380)] {
            assert_eq!(
                chosen_over_scales(kind, keep, 0, &ahead_on_n),
                Some(ahead_on_n.clone()),
                "{kind:?}: all that was read"
            );
        }
    }

    #[test]
    fn what_is_beyond_the_maximum_goes_also_where_readers_are_ahead_of_it_elsewhere() {
        use RetentionKind::{Size, Time};
        let minutes = |n: i64| n * 60_000;
        let readers = standing(&[(N, 100), (O, 20)]);
        // With four minutes O's bytes from 20 to 40 are too old, and N is cut at 60, where it is.
        for (most, expected) in [(3, Some(6)), (4, Some(5)), (5, None), (9, None)] {
            let expected = expected.map_or(readers.clone(), |at: usize| kept_over_scales()[at].position());
            assert_eq!(chosen_over_scales(Time, minutes(2), minutes(most), &readers), Some(expected), "{most} minutes");
        }
        let readers = standing(&[(N, 90), (O, 0)]);
        for (most, expected) in [(250, Some(7)), (300, Some(6)), (400, Some(5)), (410, Some(5)), (411, None)] {
            let expected = expected.map_or(readers.clone(), |at: usize| kept_over_scales()[at].position());
            assert_eq!(chosen_over_scales(Size, 200, most, &readers), Some(expected), "{most} bytes");
        }
    }

    #[test]
    fn without_a_maximum_nothing_goes_that_a_reader_wants_or_that_is_to_be_kept() {
        let history = history();
        let kept = kept_over_scales();
        let mut standings: Vec<Position> = kept.iter().map(Kept::position).collect();
        for here in (0..=100).step_by(20) {
            for there in (0..=100).step_by(20) {
                standings.push(standing(&[(A, here), (B, there)]));
                standings.push(standing(&[(N, here), (O, there)]));
                standings.push(standing(&[(O, here), (P, FUTURE), (Q, there)]));
            }
            standings.push(standing(&[(B, here), (M, FUTURE)]));
            standings.push(standing(&[(N, here), (O, FUTURE)]));
        }
        let mut truncated = 0;
        for readers in &standings {
            for minute in 0..=10 {
                for (kind, keep) in [(RetentionKind::Time, minute * 60_000), (RetentionKind::Size, minute * 100 - 30)] {
                    let Some(at) = chosen_over_scales(kind, keep, i64::MAX, readers) else { continue };
                    truncated += 1;
                    assert!(is_equal_or_after(&readers.cut, &at.cut, &history), "{readers:?} {kind:?} {keep}: {at:?}");
                    let kept_enough = match kind {
                        RetentionKind::Size => 900 - at.bytes >= keep,
                        // Whatever goes was there at the cut that is just old enough.
                        RetentionKind::Time => kept.iter().any(|old| {
                            9 * 60_000 - old.time_ms >= keep && is_equal_or_after(&old.cut, &at.cut, &history)
                        }),
                    };
                    assert!(kept_enough, "{readers:?} {kind:?} {keep}: {at:?}");
                }
            }
        }
        assert!(truncated > 1000, "{truncated}");
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
