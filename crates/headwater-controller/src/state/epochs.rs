//! Epochs: which segments share the key space at one time in the life of a stream.
//!
//! Epochs are numbered from 0. Each has exactly one segment for every key. A scale ends one epoch and begins the next;
//! a rolling commit begins two. Records of epochs are written once and never change or go away while the stream exists:
//! successors, cuts and transactions of any age refer to them.
//!
//! Invariant, checked where a record is made or read: the segments, by ascending key, tile [0, 1) with bit-identical
//! neighbouring bounds, and none was created after its epoch.

use bytes::Bytes;
use headwater_types::{KeyRange, SegmentId};

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::model::{SegmentRange, Successor};

/// One segment of an epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    pub(crate) range: KeyRange,
    /// When it was created, in milliseconds since 1970.
    pub(crate) created_ms: i64,
}

/// Record of one epoch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Epoch {
    pub(crate) epoch: i32,
    /// The epoch whose layout this one repeats; its own number except after a rolling commit.
    pub(crate) reference: i32,
    pub(crate) created_ms: i64,
    /// By ascending key.
    segments: Vec<Segment>,
}

const VERSION: u8 = 1;
const SEGMENT_BYTES: usize = 32;

impl Epoch {
    /// `segments` in any order.
    pub(crate) fn new(epoch: i32, reference: i32, created_ms: i64, mut segments: Vec<Segment>) -> Self {
        segments.sort_by(|a, b| a.range.low().total_cmp(&b.range.low()));
        let record = Self { epoch, reference, created_ms, segments };
        assert!(record.is_consistent(), "the segments of an epoch share the key space exactly");
        record
    }

    /// The first epoch of a stream, with segments numbered from `first_number`.
    pub(crate) fn first(first_number: i32, count: usize, now_ms: i64) -> Self {
        let segments = KeyRange::split(count)
            .into_iter()
            .zip(first_number..)
            .map(|(range, number)| Segment { id: SegmentId::new(number, 0), range, created_ms: now_ms })
            .collect();
        Self::new(0, 0, now_ms, segments)
    }

    /// The same numbers and ranges as new segments of a later epoch.
    pub(crate) fn duplicate(&self, epoch: i32, reference: i32, now_ms: i64) -> Self {
        let segments = self
            .segments
            .iter()
            .map(|segment| Segment {
                id: SegmentId::new(segment.id.number, epoch),
                range: segment.range,
                created_ms: now_ms,
            })
            .collect();
        Self::new(epoch, reference, now_ms, segments)
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(crate) fn segment(&self, id: SegmentId) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.id == id)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = SegmentId> {
        self.segments.iter().map(|segment| segment.id)
    }

    /// Segments that began with this epoch.
    pub(crate) fn created_here(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.id.epoch == self.epoch)
    }

    pub(crate) fn ranges(&self) -> Vec<SegmentRange> {
        self.segments.iter().map(|segment| SegmentRange { id: segment.id, range: segment.range }).collect()
    }

    /// The same layout under the names that a transaction of this layout uses: number of the segment, epoch of the
    /// transaction.
    pub(crate) fn generalised(&self, transaction_epoch: i32) -> Vec<SegmentRange> {
        self.segments
            .iter()
            .map(|s| SegmentRange { id: SegmentId::new(s.id.number, transaction_epoch), range: s.range })
            .collect()
    }

    /// Grows with every scale, since a scale always adds numbers above it.
    pub(crate) fn highest_number(&self) -> i32 {
        self.segments.iter().map(|segment| segment.id.number).max().expect("an epoch has at least one segment")
    }

    /// Bytes of memory, about.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Self>() + self.segments.len() * size_of::<Segment>()
    }

    pub(crate) fn overlapping(&self, range: KeyRange) -> impl Iterator<Item = &Segment> {
        // They tile the key space in this order.
        let first = self.segments.partition_point(|segment| segment.range.high() <= range.low());
        self.segments[first..].iter().take_while(move |segment| segment.range.low() < range.high())
    }

    fn is_consistent(&self) -> bool {
        let tiles = self.segments.windows(2).all(|pair| pair[0].range.high() == pair[1].range.low());
        let ends = self.segments.first().is_some_and(|s| s.range.low() == 0.0)
            && self.segments.last().is_some_and(|s| s.range.high() == 1.0);
        tiles && ends && self.segments.iter().all(|s| s.id.epoch <= self.epoch) && self.reference <= self.epoch
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut encoder = Encoder::new(VERSION);
        encoder.i32(self.epoch).i32(self.reference).i64(self.created_ms);
        encoder.list(&self.segments, |encoder, segment| {
            encoder.segment_id(segment.id).range(segment.range).i64(segment.created_ms);
        });
        encoder.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new("epoch", VERSION, bytes)?;
        let (epoch, reference, created_ms) = (decoder.i32()?, decoder.i32()?, decoder.i64()?);
        let segments = decoder.list(SEGMENT_BYTES, |decoder| {
            Ok(Segment { id: decoder.segment_id()?, range: decoder.range()?, created_ms: decoder.i64()? })
        })?;
        let record = Self { epoch, reference, created_ms, segments };
        if !record.is_consistent() {
            return Err(decoder.malformed());
        }
        decoder.finish()?;
        Ok(record)
    }
}

/// What is kept for ever about a segment that a scale or a rolling commit sealed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SealedSegment {
    /// The first epoch that does not have it.
    pub(crate) epoch: i32,
    /// Final length in bytes; −1 until it is known.
    pub(crate) bytes: i64,
}

impl SealedSegment {
    pub(crate) const BYTES_UNKNOWN: i64 = -1;

    pub(crate) fn encode(self) -> Bytes {
        let mut encoder = Encoder::new(VERSION);
        encoder.i32(self.epoch).i64(self.bytes);
        encoder.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new("sealed segment", VERSION, bytes)?;
        let record = Self { epoch: decoder.i32()?, bytes: decoder.i64()? };
        if record.epoch < 1 {
            return Err(decoder.malformed());
        }
        decoder.finish()?;
        Ok(record)
    }
}

/// What follows `segment`, which `before` has and `after`, the next epoch, has not. Each successor names all its
/// predecessors: a reader may open it only when all of them are read.
pub(crate) fn successors(segment: SegmentId, before: &Epoch, after: &Epoch) -> Option<Vec<Successor>> {
    debug_assert_eq!(before.epoch + 1, after.epoch, "successors are looked up between neighbouring epochs");
    let sealed = before.segment(segment)?;
    let found = after
        .overlapping(sealed.range)
        .map(|next| Successor {
            segment: SegmentRange { id: next.id, range: next.range },
            predecessors: before.overlapping(next.range).map(|segment| segment.id).collect(),
        })
        .collect();
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn id(number: i32, epoch: i32) -> SegmentId {
        SegmentId::new(number, epoch)
    }

    fn segment(number: i32, epoch: i32, low: f64, high: f64) -> Segment {
        Segment { id: id(number, epoch), range: KeyRange::new(low, high).unwrap(), created_ms: 7 }
    }

    #[test]
    fn an_epoch_comes_back_as_it_was() {
        for count in [1, 3, 49, 1000] {
            let epoch = Epoch::first(5, count, 1234);
            assert_eq!(Epoch::decode(&epoch.encode()).unwrap(), epoch);
        }
    }

    #[test]
    fn an_epoch_with_a_hole_is_refused() {
        let mut encoder = Encoder::new(VERSION);
        encoder.i32(0).i32(0).i64(0);
        encoder.list(&[segment(0, 0, 0.0, 0.5)], |encoder, s| {
            encoder.segment_id(s.id).range(s.range).i64(s.created_ms);
        });
        assert!(Epoch::decode(&encoder.finish()).is_err());
    }

    #[test]
    fn no_bytes_make_decoding_panic() {
        let good = Epoch::first(0, 3, 1).encode();
        for cut in 0..good.len() {
            assert!(Epoch::decode(&good[..cut]).is_err());
        }
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 0xff;
            let _ = Epoch::decode(&bad);
        }
    }

    #[test]
    fn a_successor_names_all_its_predecessors() {
        // Two segments merge into one while a third stays.
        let before =
            Epoch::new(0, 0, 0, vec![segment(0, 0, 0.0, 0.25), segment(1, 0, 0.25, 0.5), segment(2, 0, 0.5, 1.0)]);
        let after = Epoch::new(1, 1, 0, vec![segment(3, 1, 0.0, 0.5), segment(2, 0, 0.5, 1.0)]);
        let found = successors(id(0, 0), &before, &after).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].segment.id, id(3, 1));
        assert_eq!(found[0].predecessors, vec![id(0, 0), id(1, 0)]);
        assert_eq!(successors(id(9, 0), &before, &after), None);
    }

    #[test]
    fn touching_bounds_do_not_make_successors() {
        let before = Epoch::first(0, 2, 0);
        let after =
            Epoch::new(1, 1, 0, vec![segment(2, 1, 0.0, 0.25), segment(3, 1, 0.25, 0.5), segment(1, 0, 0.5, 1.0)]);
        let found = successors(id(0, 0), &before, &after).unwrap();
        assert_eq!(found.iter().map(|s| s.segment.id).collect::<Vec<_>>(), vec![id(2, 1), id(3, 1)]);
        assert!(found.iter().all(|s| s.predecessors == vec![id(0, 0)]));
    }
}
