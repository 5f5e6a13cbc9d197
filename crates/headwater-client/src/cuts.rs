//! What cuts say of the segments that they name, and where they stand for each key.
//!
//! An offset below 0 says one of two things. In the cuts of a controller, and of readers of whole streams, the segment was not
//! opened: not all is read that it follows on. In the checkpoints of groups, as Java's clients make them, it was read to its end.
//! Which one is seen from the keys: a segment that follows on another of the same cut, which is not read, cannot be read to its end.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use headwater_records::{StreamCut, is_unread};
use headwater_types::{KeyRange, ScopedStream, SegmentId};

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::cut_to_proto;
use crate::segments::signed;
use crate::streams::call;

/// Offset in cuts of a segment that was not opened. Source: the cuts of Pravega's controller.
pub(crate) const UNOPENED: i64 = -1;
/// Bounds of segments that are no further apart are the same: servers that add up equal parts fall short by as little.
const ROUNDING: f64 = 1e-9;
/// Segments through which is gone to complete a cut. Those between two of its own lie close together, as a rule.
const AHEAD_MAX: usize = 10_000;

/// Where a cut stands in a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// Everything in front of this offset lies before the cut.
    At(u64),
    /// Nothing of the segment lies before the cut, nor all that it follows on. Whoever reads on comes to it.
    Unopened,
    /// All of the segment lies before the cut.
    Read,
}

impl Client {
    /// Where a cut at which somebody reads stands in each segment that it names.
    ///
    /// # Errors
    /// `NotFound`: the stream.
    ///
    /// # Cancel safety
    /// It only asks.
    pub(crate) async fn places(&self, cut: &StreamCut) -> Result<BTreeMap<SegmentId, Place>> {
        self.places_among(cut, &self.ranges_of_marked(cut).await?).await
    }

    /// The same, when the keys of the segments are known.
    async fn places_among(
        &self,
        cut: &StreamCut,
        ranges: &BTreeMap<SegmentId, KeyRange>,
    ) -> Result<BTreeMap<SegmentId, Place>> {
        let mut places = places(&cut.offsets, ranges, Place::Read);
        let read: Vec<SegmentId> =
            places.iter().filter(|(_, place)| **place == Place::Read).map(|(id, _)| *id).collect();
        for id in read {
            // What still takes events has not been read to its end, whoever says so. The segment itself knows: it is sealed
            // before the stream goes on without it.
            match self.segment_info(&cut.stream, id).await {
                Ok(info) if !info.sealed => _ = places.insert(id, Place::At(0)),
                Ok(_) => {}
                // Truncated away, or never there: that is found out by whoever goes on from it.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        leave_passed(&mut places, ranges);
        Ok(places)
    }

    /// Where a cut up to which a group reads stands in each segment that it names. A segment without an offset that follows on no
    /// other is read to its end, also one that is still to come.
    ///
    /// # Errors
    /// Those of every call.
    ///
    /// # Cancel safety
    /// It only asks.
    pub(crate) async fn ends(&self, cut: &StreamCut) -> Result<BTreeMap<SegmentId, Place>> {
        let cut = self.completed(cut).await?;
        let ranges = self.ranges_of_marked(&cut).await?;
        let mut places = places(&cut.offsets, &ranges, Place::Read);
        leave_passed(&mut places, &ranges);
        Ok(places)
    }

    /// A cut that also names what waits for the segments that it names, if for some keys it names nothing. The checkpoint of a group
    /// that has read one of two segments on which a third follows names the other alone: the third is not opened, and what was
    /// read leads nowhere else. The same cut if it names all keys, or does not so either: nothing follows on what was read of a
    /// sealed stream.
    ///
    /// # Errors
    /// Those of every call; `NotFound`: the stream.
    ///
    /// # Cancel safety
    /// It only asks.
    pub(crate) async fn completed(&self, cut: &StreamCut) -> Result<StreamCut> {
        // Most name all keys, and to be told so takes no more than READ.
        if cut.offsets.is_empty() || self.is_cut(cut).await? {
            return Ok(cut.clone());
        }
        let ranges = self.ranges_of(&cut.stream, &cut.offsets.keys().copied().collect()).await?;
        if ranges.len() < cut.offsets.len() {
            return Ok(cut.clone());
        }
        let mut left = ranges.values().fold(vec![KeyRange::FULL], |left, taken| without(&left, *taken));
        let unread = places(&cut.offsets, &ranges, Place::Read).into_iter().filter(|(_, place)| *place != Place::Read);
        let mut ahead: BTreeMap<_, _> = unread.map(|(id, _)| (id, ranges[&id])).collect();
        let mut found = cut.clone();
        for _ in 0..AHEAD_MAX {
            if left.is_empty() {
                return Ok(found);
            }
            // What follows on a segment is later, so the first that has a key is the first to be read there.
            let Some((id, range)) = ahead.pop_first() else { break };
            if left.iter().any(|keys| keys.overlaps(range)) {
                found.offsets.insert(id, UNOPENED);
                left = without(&left, range);
            }
            let successors = self.successors(&cut.stream, id).await?;
            ahead.extend(successors.into_iter().map(|successor| (successor.segment.id, successor.segment.range)));
        }
        Ok(cut.clone())
    }

    /// Whether the controller takes it for a cut: one that names all keys, and each segment for what it is.
    async fn is_cut(&self, cut: &StreamCut) -> Result<bool> {
        Ok(call!(self, "isStreamCutValid", is_stream_cut_valid, cut_to_proto(cut))?.response)
    }

    /// Where a cut at which somebody reads stands for each key; `None` if it leaves keys out or names segments that the stream
    /// never had.
    ///
    /// # Errors
    /// Those of every call.
    ///
    /// # Cancel safety
    /// It only asks.
    pub(crate) async fn surface(&self, cut: &StreamCut) -> Result<Option<Surface>> {
        let cut = self.completed(cut).await?;
        let ranges = self.ranges_of(&cut.stream, &cut.offsets.keys().copied().collect()).await?;
        Ok(Surface::new(&self.places_among(&cut, &ranges).await?, &ranges))
    }

    /// The head of a stream, of which the controller tells in its own words, in those that everybody understands: where nothing
    /// is before a segment, it begins with its first byte.
    ///
    /// # Errors
    /// Those of every call.
    ///
    /// # Cancel safety
    /// It only asks.
    pub(crate) async fn plain_head(&self, told: StreamCut) -> Result<StreamCut> {
        let places = places(&told.offsets, &self.ranges_of_marked(&told).await?, Place::At(0));
        let offset = |place| match place {
            Place::At(offset) => signed(offset),
            Place::Unopened | Place::Read => Ok(UNOPENED),
        };
        let offsets = places.into_iter().map(|(id, place)| Ok((id, offset(place)?))).collect::<Result<_>>()?;
        Ok(StreamCut { offsets, ..told })
    }

    /// Keys of the segments of a cut that has some without an offset; others can do without.
    async fn ranges_of_marked(&self, cut: &StreamCut) -> Result<BTreeMap<SegmentId, KeyRange>> {
        if cut.offsets.values().all(|offset| *offset >= 0) {
            return Ok(BTreeMap::new());
        }
        self.ranges_of(&cut.stream, &cut.offsets.keys().copied().collect()).await
    }
}

/// # Errors
/// `Invalid`: the cut is one of another stream.
pub(crate) fn check_stream(stream: &ScopedStream, cut: &StreamCut) -> Result<()> {
    if cut.stream == *stream {
        return Ok(());
    }
    let what = format!("cut of stream {} is no position in {stream}", cut.stream);
    Err(Error::new(ErrorKind::Invalid, what))
}

/// What a cut says of each segment, as far as offsets and keys tell. One whose keys nobody knows is taken to follow on no other.
/// `alone` is what an offset below 0 says of such a one.
fn places(
    offsets: &BTreeMap<SegmentId, i64>,
    ranges: &BTreeMap<SegmentId, KeyRange>,
    alone: Place,
) -> BTreeMap<SegmentId, Place> {
    let (mut places, mut marked, mut unread) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (id, offset) in offsets {
        match u64::try_from(*offset) {
            Ok(offset) => {
                places.insert(*id, Place::At(offset));
                unread.extend(ranges.get(id).map(|range| (*id, Some(*range))));
            }
            Err(_) => marked.push(*id),
        }
    }
    // By ascending epochs: what was not opened leads to others that were not.
    for id in marked {
        let range = ranges.get(&id).copied();
        let follows = range.is_some() && is_unread(id, range, unread.iter().copied());
        let place = if follows { Place::Unopened } else { alone };
        places.insert(id, place);
        if place != Place::Read {
            unread.extend(range.map(|range| (id, Some(range))));
        }
    }
    places
}

/// What is left of keys without others.
fn without(keys: &[KeyRange], taken: KeyRange) -> Vec<KeyRange> {
    let parts =
        |part: &KeyRange| [(part.low(), part.high().min(taken.low())), (part.low().max(taken.high()), part.high())];
    let left = keys.iter().flat_map(parts).filter(|(low, high)| high - low >= ROUNDING);
    left.filter_map(|(low, high)| KeyRange::new(low, high).ok()).collect()
}

/// Takes out what was read and leads, for all of its keys, to something later that the cut names and was begun: whoever went on
/// from there would read that again.
fn leave_passed(places: &mut BTreeMap<SegmentId, Place>, ranges: &BTreeMap<SegmentId, KeyRange>) {
    if let Some(surface) = Surface::new(places, ranges) {
        places.retain(|id, place| *place != Place::Read || surface.pieces.iter().any(|(_, at, _)| at == id));
    }
}

/// Where a cut stands for each key: in one segment, which is the last in front of it that is read for this key, or else the
/// first that was not opened. Of two segments with a key in common the one with the greater id came later.
#[derive(Clone, Debug)]
pub(crate) struct Surface {
    /// By ascending keys, which they cover.
    pieces: Vec<(KeyRange, SegmentId, Place)>,
}

impl Surface {
    /// `None` where keys of a segment are not known, or left out.
    fn new(places: &BTreeMap<SegmentId, Place>, ranges: &BTreeMap<SegmentId, KeyRange>) -> Option<Self> {
        let mut entries = Vec::with_capacity(places.len());
        for (id, place) in places {
            entries.push((*ranges.get(id)?, *id, *place));
        }
        let mut bounds = vec![0.0, 1.0];
        bounds.extend(entries.iter().flat_map(|(keys, ..)| [keys.low(), keys.high()]));
        bounds.sort_by(f64::total_cmp);
        bounds.dedup();
        let mut pieces = Vec::with_capacity(entries.len());
        for bound in bounds.windows(2) {
            let keys = KeyRange::new(bound[0], bound[1]).ok()?;
            let mut here = entries.iter().filter(|entry| entry.0.overlaps(keys));
            let opened = here.clone().rfind(|entry| entry.2 != Place::Unopened);
            match opened.or_else(|| here.next()) {
                Some((_, id, place)) => pieces.push((keys, *id, *place)),
                None if keys.high() - keys.low() < ROUNDING => {}
                None => return None,
            }
        }
        Some(Self { pieces })
    }

    /// The pieces that have a key in common with these.
    fn along(&self, keys: KeyRange) -> &[(KeyRange, SegmentId, Place)] {
        let from = self.pieces.partition_point(|(piece, ..)| piece.high() <= keys.low());
        let to = self.pieces.partition_point(|(piece, ..)| piece.low() < keys.high());
        &self.pieces[from..to.max(from)]
    }

    /// Whoever reads these keys in this segment, and goes on or will begin at this offset, has read all of them that lies
    /// before the cut.
    pub(crate) fn is_reached(&self, segment: SegmentId, keys: KeyRange, offset: u64) -> bool {
        self.along(keys).iter().all(|(_, id, place)| match segment.cmp(id) {
            Ordering::Less => false,
            Ordering::Equal => match place {
                Place::At(end) => offset >= *end,
                Place::Unopened => true,
                // Who has read it is further.
                Place::Read => false,
            },
            Ordering::Greater => true,
        })
    }

    /// For some key it lies before another cut of the stream.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        let offset = |place: Place| match place {
            Place::At(offset) => offset,
            Place::Unopened => 0,
            Place::Read => u64::MAX,
        };
        other.pieces.iter().any(|(keys, id, place)| {
            let theirs = (*id, offset(*place));
            self.along(*keys).iter().any(|(_, id, place)| (*id, offset(*place)) < theirs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lower and the upper half; what follows on both, and then on that, of the lowest keys and of the others.
    const LOW: SegmentId = SegmentId::new(0, 0);
    const HIGH: SegmentId = SegmentId::new(1, 0);
    const BOTH: SegmentId = SegmentId::new(2, 1);
    const LOWEST: SegmentId = SegmentId::new(3, 2);
    const OTHERS: SegmentId = SegmentId::new(4, 2);
    /// No segment of the stream.
    const UNKNOWN: SegmentId = SegmentId::new(9, 9);

    fn range(low: f64, high: f64) -> KeyRange {
        KeyRange::new(low, high).unwrap()
    }

    fn ranges() -> BTreeMap<SegmentId, KeyRange> {
        let all = [range(0.0, 0.5), range(0.5, 1.0), KeyRange::FULL, range(0.0, 0.2), range(0.2, 1.0)];
        [LOW, HIGH, BOTH, LOWEST, OTHERS].into_iter().zip(all).collect()
    }

    #[track_caller]
    fn check(cut: &[(SegmentId, i64)], alone: Place, expected: &[(SegmentId, Place)]) {
        let found = places(&cut.iter().copied().collect(), &ranges(), alone);
        assert_eq!(found, expected.iter().copied().collect(), "{cut:?}");
    }

    fn surface(cut: &[(SegmentId, i64)]) -> Option<Surface> {
        let ranges = ranges();
        Surface::new(&places(&cut.iter().copied().collect(), &ranges, Place::Read), &ranges)
    }

    #[test]
    fn what_follows_on_something_unread_of_the_cut_was_not_opened() {
        use Place::{At, Read, Unopened};
        for alone in [At(0), Read] {
            check(&[(LOW, 0), (HIGH, 7)], alone, &[(LOW, At(0)), (HIGH, At(7))]);
            check(&[(HIGH, 7), (BOTH, -1)], alone, &[(HIGH, At(7)), (BOTH, Unopened)]);
            check(&[(LOW, -1), (HIGH, 7)], alone, &[(LOW, alone), (HIGH, At(7))]);
            // Through one that is not named, and through one that was not opened itself.
            check(&[(HIGH, 7), (OTHERS, -1)], alone, &[(HIGH, At(7)), (OTHERS, Unopened)]);
            let nested = [(HIGH, At(7)), (BOTH, Unopened), (LOWEST, Unopened)];
            check(&[(HIGH, 7), (BOTH, -1), (LOWEST, -1)], alone, &nested);
            check(&[(HIGH, 7), (UNKNOWN, -1)], alone, &[(HIGH, At(7)), (UNKNOWN, alone)]);
        }
        // No position at all: what is read leads nowhere, and what begins leads on.
        check(&[(LOW, -1), (HIGH, -1), (BOTH, -1)], Read, &[(LOW, Read), (HIGH, Read), (BOTH, Read)]);
        check(&[(LOW, -1), (HIGH, -1), (BOTH, -1)], At(0), &[(LOW, At(0)), (HIGH, At(0)), (BOTH, Unopened)]);
    }

    #[test]
    fn what_was_read_and_leads_to_something_later_of_the_cut_is_left_out() {
        use Place::{At, Read, Unopened};
        #[track_caller]
        fn check(cut: &[(SegmentId, i64)], expected: &[(SegmentId, Place)]) {
            let ranges = ranges();
            let mut found = places(&cut.iter().copied().collect(), &ranges, Read);
            leave_passed(&mut found, &ranges);
            assert_eq!(found, expected.iter().copied().collect(), "{cut:?}");
        }
        check(&[(LOW, -1), (HIGH, -1), (BOTH, -1)], &[(BOTH, Read)]);
        check(&[(LOW, -1), (BOTH, 5)], &[(BOTH, At(5))]);
        // For some keys nothing else is known.
        check(&[(BOTH, -1), (LOWEST, -1)], &[(BOTH, Read), (LOWEST, Read)]);
        check(&[(LOW, -1), (HIGH, 7), (BOTH, -1)], &[(LOW, Read), (HIGH, At(7)), (BOTH, Unopened)]);
        check(&[(LOW, -1)], &[(LOW, Read)]);
    }

    #[test]
    fn keys_without_others_are_what_is_left_on_both_sides() {
        #[track_caller]
        fn check(taken: (f64, f64), expected: &[(f64, f64)]) {
            let expected: Vec<_> = expected.iter().map(|(low, high)| range(*low, *high)).collect();
            assert_eq!(without(&[range(0.0, 0.25), range(0.5, 0.75)], range(taken.0, taken.1)), expected);
        }
        check((0.25, 0.5), &[(0.0, 0.25), (0.5, 0.75)]);
        check((0.0, 1.0), &[]);
        check((0.125, 0.625), &[(0.0, 0.125), (0.625, 0.75)]);
        check((0.5625, 0.625), &[(0.0, 0.25), (0.5, 0.5625), (0.625, 0.75)]);
        // As far as servers compute bounds.
        check((1e-12, 1.0), &[]);
    }

    #[test]
    fn a_cut_stands_in_one_segment_for_each_key() {
        use Place::{At, Read, Unopened};
        #[track_caller]
        fn check(cut: &[(SegmentId, i64)], expected: &[(f64, f64, SegmentId, Place)]) {
            let expected: Vec<_> =
                expected.iter().map(|(low, high, id, place)| (range(*low, *high), *id, *place)).collect();
            assert_eq!(surface(cut).unwrap().pieces, expected, "{cut:?}");
        }
        check(&[(LOW, 3), (HIGH, 7)], &[(0.0, 0.5, LOW, At(3)), (0.5, 1.0, HIGH, At(7))]);
        check(&[(LOW, -1), (HIGH, 7)], &[(0.0, 0.5, LOW, Read), (0.5, 1.0, HIGH, At(7))]);
        check(&[(HIGH, 7), (BOTH, -1)], &[(0.0, 0.5, BOTH, Unopened), (0.5, 1.0, HIGH, At(7))]);
        // Of several that were not opened the first, and of what is read the last.
        let nested = [(HIGH, 7), (BOTH, -1), (LOWEST, -1)];
        check(&nested, &[(0.0, 0.2, BOTH, Unopened), (0.2, 0.5, BOTH, Unopened), (0.5, 1.0, HIGH, At(7))]);
        let ended = [(BOTH, 9), (LOWEST, 1)];
        check(&ended, &[(0.0, 0.2, LOWEST, At(1)), (0.2, 1.0, BOTH, At(9))]);
        assert!(surface(&[(HIGH, 7)]).is_none(), "the lower half is left out");
        assert!(surface(&[(LOW, 0), (HIGH, 7), (UNKNOWN, -1)]).is_none(), "nobody knows its keys");
        assert!(surface(&[]).is_none());
        // As far as servers compute bounds.
        let nearly = [(LOW, range(0.0, 0.5 - 1e-12)), (HIGH, range(0.5, 1.0 - 1e-12))].into();
        assert!(Surface::new(&[(LOW, At(0)), (HIGH, At(0))].into(), &nearly).is_some());
    }

    #[test]
    fn a_cut_is_reached_when_everything_before_it_was_read() {
        let (low, high) = (range(0.0, 0.5), range(0.5, 1.0));
        let halves = surface(&[(LOW, 3), (HIGH, 7)]).unwrap();
        assert!(!halves.is_reached(LOW, low, 2) && halves.is_reached(LOW, low, 3));
        assert!(!halves.is_reached(HIGH, high, 3) && halves.is_reached(BOTH, KeyRange::FULL, 0));
        // The lower half has to be read to its end, and the upper up to 7.
        let unopened = surface(&[(HIGH, 7), (BOTH, -1)]).unwrap();
        assert!(!unopened.is_reached(LOW, low, u64::MAX) && unopened.is_reached(HIGH, high, 7));
        assert!(unopened.is_reached(BOTH, KeyRange::FULL, 0));
        let checkpoint = surface(&[(LOW, -1), (HIGH, 7)]).unwrap();
        assert!(!checkpoint.is_reached(LOW, low, u64::MAX) && checkpoint.is_reached(BOTH, KeyRange::FULL, 0));
    }

    #[test]
    fn a_cut_lies_before_another_if_it_does_for_some_key() {
        let in_order = [
            surface(&[(LOW, 3), (HIGH, 7)]).unwrap(),
            surface(&[(LOW, -1), (HIGH, 7)]).unwrap(),
            surface(&[(HIGH, 7), (BOTH, -1)]).unwrap(),
            surface(&[(HIGH, 8), (BOTH, -1)]).unwrap(),
            surface(&[(BOTH, 1)]).unwrap(),
            surface(&[(LOWEST, 0), (OTHERS, 0)]).unwrap(),
        ];
        for (at, one) in in_order.iter().enumerate() {
            for (other_at, other) in in_order.iter().enumerate() {
                assert_eq!(one.is_before(other), at < other_at, "{one:?} and {other:?}");
            }
        }
        let across = (surface(&[(LOW, 3), (HIGH, 8)]).unwrap(), surface(&[(LOW, 4), (HIGH, 7)]).unwrap());
        assert!(across.0.is_before(&across.1) && across.1.is_before(&across.0));
    }
}
