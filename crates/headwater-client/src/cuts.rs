//! What cuts say of the segments that they name.
//!
//! An offset below 0 says one of two things. In the cuts of a controller, and of readers of whole streams, the segment was not
//! opened: not all is read that it follows on. In the checkpoints of groups, as Java's clients make them, it was read to its end.
//! Which one is seen from the keys: a segment that follows on another of the same cut, which is not read, cannot be read to its end.

use std::collections::BTreeMap;

use headwater_records::{StreamCut, is_unread};
use headwater_types::{KeyRange, SegmentId};

use crate::client::Client;
use crate::error::Result;
use crate::segments::signed;

/// Offset in cuts of a segment that was not opened. Source: the cuts of Pravega's controller.
pub(crate) const UNOPENED: i64 = -1;

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
        let mut places = places(&cut.offsets, &self.ranges_of_marked(cut).await?, Place::Read);
        if places.values().any(|place| *place == Place::Read) {
            // What still takes events has not been read to its end, whoever says so.
            for open in self.current_segments(&cut.stream).await? {
                places.entry(open.id).and_modify(|place| {
                    if *place == Place::Read {
                        *place = Place::At(0);
                    }
                });
            }
        }
        Ok(places)
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

    #[track_caller]
    fn check(cut: &[(SegmentId, i64)], alone: Place, expected: &[(SegmentId, Place)]) {
        let range = |low, high| KeyRange::new(low, high).unwrap();
        let ranges = [
            (LOW, range(0.0, 0.5)),
            (HIGH, range(0.5, 1.0)),
            (BOTH, range(0.0, 1.0)),
            (LOWEST, range(0.0, 0.2)),
            (OTHERS, range(0.2, 1.0)),
        ];
        let found = places(&cut.iter().copied().collect(), &ranges.into(), alone);
        assert_eq!(found, expected.iter().copied().collect(), "{cut:?}");
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
}
