//! The time of a stream: what its writers say it is, and the watermarks that follow from it.
//!
//! A watermark says: before this position of the stream everything that writers wrote until its lower bound has been
//! passed, and nothing from after its upper bound. It is written into the stream's mark stream in the form in which
//! Java readers keep records there.
//!
//! Source of the rules: Pravega's watermarking service, as its readers rely on it.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_records::revisioned::{self, Events};
use headwater_records::{RecordError, Watermark};
use headwater_types::{KeyRange, SegmentId};

use super::cuts::Segments;
use super::epochs::Epoch;
use super::head::{decode_cut, encode_cut};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::model::StreamCut;

/// What a writer said last.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct WriterMark {
    /// Its time, in whatever unit the application uses.
    pub(crate) time: i64,
    /// How far it had written; segments that it did not write to are missing.
    pub(crate) position: StreamCut,
    /// It has not said that it is gone.
    pub(crate) alive: bool,
}

/// Why a writer's word is not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Backwards {
    Time,
    Position,
}

const VERSION: u8 = 1;

impl WriterMark {
    /// Checks that a writer goes forwards only. Segments that are in one of the positions alone are not compared.
    pub(crate) fn accepts(&self, time: i64, position: &StreamCut) -> Result<(), Backwards> {
        if time < self.time {
            return Err(Backwards::Time);
        }
        let back = |(id, offset): (&SegmentId, &i64)| self.position.get(id).is_some_and(|before| offset < before);
        if position.iter().any(back) { Err(Backwards::Position) } else { Ok(()) }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut encoder = Encoder::new(VERSION);
        encoder.i64(self.time).u8(self.alive.into());
        encode_cut(&mut encoder, &self.position);
        encoder.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new("writer mark", VERSION, bytes)?;
        let (time, alive) = (decoder.i64()?, decoder.u8()? != 0);
        let record = Self { time, alive, position: decode_cut(&mut decoder)? };
        decoder.finish()?;
        Ok(record)
    }
}

/// What the writers' marks amount to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Time {
    /// No writer counts any more.
    Nobody,
    /// Some writer that counts has not gone on since the last watermark.
    Waits,
    /// All writers that count are beyond the last watermark.
    Advances {
        /// Least time of them.
        lower: i64,
        /// Greatest time of them.
        upper: i64,
    },
}

/// Writers that no longer count, and what the others amount to. A writer counts that went on since `previous`, or that
/// is alive and has been `silent_ms` for less than the stream's timeout.
pub(crate) fn judge<'a>(
    previous: Option<&Watermark>,
    writers: impl IntoIterator<Item = (&'a String, &'a WriterMark)>,
    timeout_ms: i64,
    mut silent_ms: impl FnMut(&str) -> i64,
) -> (Vec<&'a str>, Time) {
    let (mut inactive, mut waits) = (Vec::new(), false);
    let mut bounds: Option<(i64, i64)> = None;
    for (writer, mark) in writers {
        if previous.is_none_or(|previous| mark.time > previous.lower) {
            let (lower, upper) = bounds.unwrap_or((mark.time, mark.time));
            bounds = Some((lower.min(mark.time), upper.max(mark.time)));
        } else if mark.alive && silent_ms(writer) < timeout_ms {
            waits = true;
        } else {
            inactive.push(writer.as_str());
        }
    }
    let time = match bounds {
        _ if waits => Time::Waits,
        Some((lower, upper)) => Time::Advances { lower, upper },
        None => Time::Nobody,
    };
    (inactive, time)
}

/// The position that several together have reached. They come one by one, since there may be many large ones.
#[derive(Debug, Default)]
pub(crate) struct Join {
    reached: StreamCut,
}

/// Segments with their ranges and offsets.
type Position = BTreeMap<SegmentId, (KeyRange, i64)>;

impl Join {
    pub(crate) fn add(&mut self, position: &StreamCut) {
        for (id, offset) in position {
            let entry = self.reached.entry(*id).or_insert(0);
            *entry = (*entry).max(*offset);
        }
    }

    /// Everything that they and the last watermark name.
    pub(crate) fn named(&self, previous: Option<&Watermark>) -> StreamCut {
        let previous = previous.iter().flat_map(|previous| previous.position.keys());
        self.reached.keys().chain(previous).map(|id| (*id, 0)).collect()
    }

    /// The position as far as they know it, given the segments that are [named](Self::named); one that is missing there is
    /// left out.
    pub(crate) fn finish(self, segments: &Segments, previous: Option<&Watermark>) -> Joined {
        let mut joined = Joined { position: Position::new() };
        let range = |id: &SegmentId| segments.get(id).map(|(segment, _)| segment.range);
        for (id, offset) in &self.reached {
            range(id).into_iter().for_each(|range| joined.reach(*id, range, *offset));
        }
        displace(&mut joined.position);
        if !gaps(&joined.position).is_empty() {
            for (id, (_, offset)) in previous.iter().flat_map(|previous| &previous.position) {
                range(id).into_iter().for_each(|range| joined.reach(*id, range, *offset));
            }
            displace(&mut joined.position);
        }
        joined
    }
}

/// A position that may leave keys out.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) position: Position,
}

impl Joined {
    fn reach(&mut self, id: SegmentId, range: KeyRange, offset: i64) {
        let entry = self.position.entry(id).or_insert((range, offset));
        entry.1 = entry.1.max(offset);
    }

    /// The epoch with which to [fill](Self::fill) it up; `None` if it covers all keys.
    pub(crate) fn wants(&self) -> Option<i32> {
        let newest = self.position.last_key_value().map_or(0, |(id, _)| id.epoch);
        (!gaps(&self.position).is_empty()).then_some(newest)
    }

    /// Each time segments of one epoch only are added, or of later ones that displace them; the epoch that is current last
    /// covers all by itself. False if it adds nothing.
    pub(crate) fn fill(&mut self, epoch: &Epoch) -> bool {
        let before = self.position.len();
        for gap in gaps(&self.position) {
            for segment in epoch.overlapping(gap) {
                self.reach(segment.id, segment.range, 0);
            }
        }
        let is_more = self.position.len() > before;
        displace(&mut self.position);
        is_more
    }
}

/// Drops what later segments have taken over.
fn displace(joined: &mut Position) {
    // From the newest epoch back; ids order by epoch first.
    let ranges: Vec<(SegmentId, KeyRange)> = joined.iter().map(|(id, (range, _))| (*id, *range)).collect();
    let mut taken = Keys::default();
    for of_epoch in ranges.chunk_by(|(a, _), (b, _)| a.epoch == b.epoch).rev() {
        for (id, range) in of_epoch {
            if taken.overlap(*range) {
                joined.remove(id);
            }
        }
        of_epoch.iter().for_each(|(_, range)| taken.add(*range));
    }
}

/// A set of keys: for each stretch of them where it begins, as bits, which order as the numbers do, and where it ends.
#[derive(Debug, Default)]
struct Keys(BTreeMap<u64, f64>);

impl Keys {
    fn bits(key: f64) -> u64 {
        // Without the sign that a zero may have.
        (key + 0.0).to_bits()
    }

    fn overlap(&self, range: KeyRange) -> bool {
        let last = self.0.range(..Self::bits(range.high())).next_back();
        last.is_some_and(|(_, high)| *high > range.low())
    }

    /// Stretches that touch become one, so that none hides behind another.
    fn add(&mut self, range: KeyRange) {
        let (mut low, mut high) = (range.low(), range.high());
        while let Some((bits, end)) = self.0.range(..=Self::bits(high)).next_back().map(|(bits, end)| (*bits, *end))
            && end >= low
        {
            self.0.remove(&bits);
            low = low.min(f64::from_bits(bits));
            high = high.max(end);
        }
        self.0.insert(Self::bits(low), high);
    }
}

/// Keys that no segment covers.
fn gaps(joined: &BTreeMap<SegmentId, (KeyRange, i64)>) -> Vec<KeyRange> {
    let mut ranges: Vec<KeyRange> = joined.values().map(|(range, _)| *range).collect();
    ranges.sort_by(|a, b| a.low().total_cmp(&b.low()));
    let (mut gaps, mut reached) = (Vec::new(), 0.0);
    for range in ranges {
        gaps.extend(KeyRange::new(reached, range.low()).ok());
        reached = range.high().max(reached);
    }
    gaps.extend(KeyRange::new(reached, 1.0).ok());
    gaps
}

/// A watermark as an event of the mark stream.
pub(crate) fn event(watermark: &Watermark) -> Bytes {
    revisioned::event(&watermark.encode()).expect("an epoch's segments take far less than 2 GiB")
}

/// Events of a mark segment, read from an event boundary on in pieces of any size; keeps the last.
#[derive(Debug)]
pub(crate) struct MarkReader {
    events: Events,
    /// The last watermark and where its event begins.
    pub(crate) last: Option<(u64, Watermark)>,
}

impl MarkReader {
    /// The first event begins at `offset`.
    pub(crate) fn new(offset: u64) -> Self {
        Self { events: Events::new(offset, EVENT_BYTES_MAX), last: None }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), RecordError> {
        self.events.feed(bytes);
        while let Some((offset, payload)) = self.events.next_event()? {
            self.last = Some((offset, Watermark::decode(&payload)?));
        }
        Ok(())
    }
}

/// The watermarks at the beginning of a mark segment, each with where it begins in `bytes`; one that is cut off is left
/// out.
pub(crate) fn watermarks(bytes: &[u8]) -> Result<Vec<(u64, Watermark)>, RecordError> {
    let (mut events, mut found) = (Events::new(0, EVENT_BYTES_MAX), Vec::new());
    events.feed(bytes);
    while let Some((offset, payload)) = events.next_event()? {
        found.push((offset, Watermark::decode(&payload)?));
    }
    Ok(found)
}

/// More than a watermark of as many segments as a stream may have.
pub(crate) const EVENT_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::cuts::tests::History;
    use crate::state::scale;

    fn filled(join: Join, previous: Option<&Watermark>, history: &History) -> Position {
        let segments = history.named(&join.named(previous));
        let mut joined = join.finish(&segments, previous);
        while let Some(epoch) = joined.wants() {
            assert!(joined.fill(&history.0[epoch as usize]), "each round adds something");
        }
        joined.position
    }

    const A: SegmentId = SegmentId::new(0, 0);
    const B: SegmentId = SegmentId::new(1, 0);

    fn mark(time: i64, alive: bool) -> WriterMark {
        WriterMark { time, position: StreamCut::new(), alive }
    }

    fn at(lower: i64) -> Watermark {
        Watermark { lower, upper: lower, position: BTreeMap::new() }
    }

    #[test]
    fn the_last_watermark_is_found_however_the_bytes_come() {
        let range = KeyRange::new(0.0, 1.0).unwrap();
        let marks: Vec<_> =
            (0..3).map(|n| Watermark { lower: n, upper: n + 1, position: [(A, (range, n))].into() }).collect();
        let bytes: Vec<u8> = marks.iter().flat_map(event).collect();
        for step in [1, 7, 64, 1000] {
            let mut reader = MarkReader::new(70);
            for piece in bytes.chunks(step) {
                reader.feed(piece).unwrap();
            }
            assert_eq!(reader.last, Some((70 + 2 * bytes.len() as u64 / 3, marks[2].clone())));
        }
        let event = bytes.len() as u64 / 3;
        let expected: Vec<_> = (0..).map(|number| number * event).zip(marks).collect();
        assert_eq!(watermarks(&bytes), Ok(expected.clone()));
        assert_eq!(watermarks(&bytes[..bytes.len() - 1]), Ok(expected[..2].to_vec()), "one that is cut off");
        assert!(watermarks(&[&bytes[..], &[1; 8]].concat()).is_err());
    }

    #[test]
    fn a_mark_comes_back_whole_or_not_at_all() {
        let mark = WriterMark { time: 5, position: [(A, 3)].into(), alive: true };
        assert_eq!(WriterMark::decode(&mark.encode()).unwrap(), mark);
        for cut in 0..mark.encode().len() {
            assert!(WriterMark::decode(&mark.encode()[..cut]).is_err());
        }
    }

    #[test]
    fn a_writer_goes_forwards_only() {
        let mark = WriterMark { time: 5, position: [(A, 10), (B, 10)].into(), alive: true };
        assert_eq!(mark.accepts(5, &[(A, 10)].into()), Ok(()));
        assert_eq!(mark.accepts(4, &[(A, 11)].into()), Err(Backwards::Time));
        assert_eq!(mark.accepts(6, &[(A, 9)].into()), Err(Backwards::Position));
        assert_eq!(mark.accepts(6, &[(SegmentId::new(2, 1), 0)].into()), Ok(()), "other segments are not compared");
    }

    #[test]
    fn time_advances_when_every_writer_that_counts_has_gone_on() {
        let writers: BTreeMap<String, WriterMark> = [("a".into(), mark(10, true)), ("b".into(), mark(20, true))].into();
        let judged = |previous: Option<&Watermark>, timeout, silent: i64| {
            let (inactive, time) = judge(previous, &writers, timeout, |_| silent);
            (inactive.join(","), time)
        };
        assert_eq!(judged(None, 0, 0), (String::new(), Time::Advances { lower: 10, upper: 20 }));
        assert_eq!(judged(Some(&at(10)), 1000, 999), (String::new(), Time::Waits), "a holds the others up");
        assert_eq!(judged(Some(&at(10)), 1000, 1000), ("a".into(), Time::Advances { lower: 20, upper: 20 }));
        assert_eq!(judged(Some(&at(10)), 0, 0), ("a".into(), Time::Advances { lower: 20, upper: 20 }));
        assert_eq!(judged(Some(&at(20)), 0, 0), ("a,b".into(), Time::Nobody));
        let gone: BTreeMap<String, WriterMark> = [("a".into(), mark(10, false)), ("b".into(), mark(20, false))].into();
        let (inactive, time) = judge(Some(&at(10)), &gone, i64::MAX, |_| 0);
        assert_eq!((inactive, time), (vec!["a"], Time::Advances { lower: 20, upper: 20 }), "b was still waited for");
    }

    #[test]
    fn what_later_segments_have_taken_over_goes_as_if_each_were_compared_with_each() {
        let mut state = 1_u64;
        let mut chance = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..2000 {
            let mut joined = Position::new();
            for number in 0..chance(12) {
                let (low, length) = (chance(16), 1 + chance(6));
                let range = KeyRange::new(low as f64 / 16.0, ((low + length) as f64 / 16.0).min(1.0)).unwrap();
                joined.insert(SegmentId::new(number as i32, chance(4) as i32), (range, 0));
            }
            let mut expected = joined.clone();
            let later: Vec<_> = joined.iter().map(|(id, (range, _))| (id.epoch, *range)).collect();
            expected.retain(|id, (range, _)| !later.iter().any(|(epoch, r)| *epoch > id.epoch && r.overlaps(*range)));
            displace(&mut joined);
            assert_eq!(joined, expected);
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "how long it takes is what is tested")]
    fn ten_thousand_segments_are_joined_in_steps_that_do_not_multiply() {
        // Compared each with each these are 10^8 pairs, a hundred times over.
        let first = Epoch::first(0, crate::model::SEGMENTS_MAX, 0);
        let history = History(vec![first.clone()]);
        let half: StreamCut = first.ids().step_by(2).map(|id| (id, 1)).collect();
        let begun = std::time::Instant::now();
        for _ in 0..100 {
            let mut join = Join::default();
            join.add(&half);
            assert_eq!(filled(join, None, &history).len(), crate::model::SEGMENTS_MAX);
        }
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_position_covers_all_keys_although_writers_saw_some_segments_only() {
        let first = Epoch::first(0, 2, 0);
        let plan = scale::plan(&first, &[A], &[(0.0, 0.25), (0.25, 0.5)], 1, 0).unwrap();
        let second = plan.next(&first);
        let history = History(vec![first, second]);
        let (c, d) = (SegmentId::new(2, 1), SegmentId::new(3, 1));
        let joined = |cuts: &[StreamCut], previous: Option<&Watermark>| -> StreamCut {
            let mut join = Join::default();
            cuts.iter().for_each(|cut| join.add(cut));
            let joined = filled(join, previous, &history);
            assert!(gaps(&joined).is_empty(), "{joined:?}");
            joined.into_iter().map(|(id, (_, offset))| (id, offset)).collect()
        };
        assert_eq!(joined(&[], None), [(A, 0), (B, 0)].into());
        assert_eq!(joined(&[[(A, 5)].into(), [(A, 3)].into()], None), [(A, 5), (B, 0)].into());
        // One writer went over to the successors; what it did not write to begins at 0.
        assert_eq!(joined(&[[(A, 5), (B, 7)].into(), [(c, 1)].into()], None), [(c, 1), (d, 0), (B, 7)].into());
        // The last watermark knows more than nothing.
        let range = KeyRange::new(0.5, 1.0).unwrap();
        let previous = Watermark { position: [(B, (range, 9))].into(), ..at(0) };
        assert_eq!(joined(&[[(c, 1)].into()], Some(&previous)), [(c, 1), (d, 0), (B, 9)].into());
        // Segments nobody has heard of are left out.
        assert_eq!(joined(&[[(SegmentId::new(9, 0), 5)].into()], None), [(A, 0), (B, 0)].into());
    }
}
