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

use super::epochs::{History, Segment};
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
    writers: &'a BTreeMap<String, WriterMark>,
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

/// The position that all given ones together have reached, filled up to cover the key space. `history` has the
/// creation epochs of all segments named; a segment that it does not know is left out.
pub(crate) fn join<'a>(
    positions: impl Iterator<Item = &'a StreamCut>,
    previous: Option<&Watermark>,
    history: &History,
) -> BTreeMap<SegmentId, (KeyRange, i64)> {
    let segments = history.segments();
    let mut joined: BTreeMap<SegmentId, (KeyRange, i64)> = BTreeMap::new();
    let add = |joined: &mut BTreeMap<_, (KeyRange, i64)>, segment: &Segment, offset: i64| {
        let entry = joined.entry(segment.id).or_insert((segment.range, offset));
        entry.1 = entry.1.max(offset);
    };
    for (id, offset) in positions.flatten() {
        if let Some(segment) = segments.get(id) {
            add(&mut joined, segment, (*offset).max(0));
        }
    }
    displace(&mut joined);
    if !gaps(&joined).is_empty() {
        for (id, (_, offset)) in previous.iter().flat_map(|previous| &previous.position) {
            if let Some(segment) = segments.get(id) {
                add(&mut joined, segment, *offset);
            }
        }
        displace(&mut joined);
    }
    // Each round adds segments of one epoch only, or of later ones that displaced theirs; the epoch that is current last
    // covers all by itself.
    loop {
        let gaps = gaps(&joined);
        let newest = joined.last_key_value().map_or(0, |(id, _)| id.epoch);
        let Some(epoch) = history.epoch(newest).filter(|_| !gaps.is_empty()) else { return joined };
        let before = joined.len();
        for gap in gaps {
            for segment in epoch.overlapping(gap) {
                add(&mut joined, segment, 0);
            }
        }
        if joined.len() == before {
            return joined;
        }
        displace(&mut joined);
    }
}

/// Drops what later segments have taken over.
fn displace(joined: &mut BTreeMap<SegmentId, (KeyRange, i64)>) {
    let later: Vec<(SegmentId, KeyRange)> = joined.iter().map(|(id, (range, _))| (*id, *range)).collect();
    joined.retain(|id, (range, _)| !later.iter().any(|(other, r)| other.epoch > id.epoch && r.overlaps(*range)));
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

/// More than a watermark of as many segments as a stream may have.
const EVENT_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::state::epochs::Epoch;
    use crate::state::scale;

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
    fn a_position_covers_all_keys_although_writers_saw_some_segments_only() {
        let first = Arc::new(Epoch::first(0, 2, 0));
        let plan = scale::plan(&first, &[A], &[(0.0, 0.25), (0.25, 0.5)], 1, 0).unwrap();
        let second = Arc::new(plan.next(&first));
        let history = History(vec![first, second]);
        let (c, d) = (SegmentId::new(2, 1), SegmentId::new(3, 1));
        let joined = |cuts: &[StreamCut], previous: Option<&Watermark>| -> StreamCut {
            let joined = join(cuts.iter(), previous, &history);
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
