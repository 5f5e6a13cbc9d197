//! Manual scales: whether one is allowed, and what it makes.

use std::collections::BTreeSet;

use headwater_types::{KeyRange, SegmentId};

use super::epochs::{Epoch, Segment};
use crate::model::{ControllerError, SEGMENTS_MAX};

/// A scale that has been decided and will happen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ScalePlan {
    /// Open segments that it seals, ascending.
    pub(crate) sealed: Vec<SegmentId>,
    /// Segments that it makes, by ascending key, all of the next epoch.
    pub(crate) new: Vec<Segment>,
    /// The next epoch is written: successors can be asked for, and the old segments may be sealed.
    pub(crate) recorded: bool,
}

/// Why a scale does not happen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ScaleRefused {
    /// Ranges do not fit the segments.
    Failure,
    /// A segment is not open, or too few would remain.
    Precondition,
    /// Not even a question.
    Invalid(ControllerError),
}

/// Plans to replace the segments `seal` of the current epoch by segments with the ranges `new`. At least
/// `min_segments` must remain.
///
/// New numbers are those above the highest of the current epoch, by ascending key.
pub(crate) fn plan(
    current: &Epoch,
    seal: &[SegmentId],
    new: &[(f64, f64)],
    min_segments: i32,
    now_ms: i64,
) -> Result<ScalePlan, ScaleRefused> {
    let mut starts: Vec<u64> = new.iter().map(|(low, _)| (if *low == 0.0 { 0.0 } else { *low }).to_bits()).collect();
    starts.sort_unstable();
    if starts.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(ScaleRefused::Invalid(ControllerError::Invalid("two new ranges begin at the same key".into())));
    }
    let mut ranges = Vec::with_capacity(new.len());
    for (low, high) in new {
        ranges.push(KeyRange::new(*low, *high).map_err(|_| ScaleRefused::Failure)?);
    }
    ranges.sort_by(|a, b| a.low().total_cmp(&b.low()));

    let seal: BTreeSet<SegmentId> = seal.iter().copied().collect();
    let mut old = Vec::with_capacity(seal.len());
    for id in &seal {
        old.push(current.segment(*id).ok_or(ScaleRefused::Precondition)?.range);
    }
    old.sort_by(|a, b| a.low().total_cmp(&b.low()));
    if old.is_empty() || joined(&old) != joined(&ranges) {
        return Err(ScaleRefused::Failure);
    }
    let count = current.segments().len() - old.len() + ranges.len();
    if count < usize::try_from(min_segments).unwrap_or(0) {
        return Err(ScaleRefused::Precondition);
    }
    if count > SEGMENTS_MAX {
        let text = format!("{count} segments after the scale, at most {SEGMENTS_MAX}");
        return Err(ScaleRefused::Invalid(ControllerError::Invalid(text)));
    }
    let first = current.highest_number() as i64 + 1;
    if first + ranges.len() as i64 > i32::MAX as i64 || current.epoch == i32::MAX {
        return Err(ScaleRefused::Invalid(ControllerError::Invalid("segment numbers are used up".into())));
    }
    let new = ranges
        .into_iter()
        .zip(first as i32..)
        .map(|(range, number)| Segment { id: SegmentId::new(number, current.epoch + 1), range, created_ms: now_ms })
        .collect();
    Ok(ScalePlan { sealed: seal.into_iter().collect(), new, recorded: false })
}

impl ScalePlan {
    /// The epoch that the scale brings about.
    pub(crate) fn next(&self, current: &Epoch) -> Epoch {
        let epoch = current.epoch + 1;
        let created_ms = self.new.first().map_or(current.created_ms, |segment| segment.created_ms);
        let kept = current.segments().iter().filter(|segment| self.sealed.binary_search(&segment.id).is_err());
        Epoch::new(epoch, epoch, created_ms, kept.chain(&self.new).copied().collect())
    }

    /// A repeated request for this very scale.
    pub(crate) fn is_for(&self, seal: &[SegmentId], new: &[(f64, f64)]) -> bool {
        let mut seal = seal.to_vec();
        seal.sort_unstable();
        seal.dedup();
        let mut new = new.to_vec();
        new.sort_by(|a, b| a.0.total_cmp(&b.0));
        let ranges = self.new.iter().map(|segment| (segment.range.low(), segment.range.high()));
        seal == self.sealed && new.len() == self.new.len() && ranges.eq(new)
    }
}

/// Ranges, ascending by start, with neighbours that share a bound joined into one.
fn joined(ranges: &[KeyRange]) -> Vec<(u64, u64)> {
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for range in ranges {
        let (low, high) = (range.low().to_bits(), range.high().to_bits());
        match joined.last_mut() {
            Some(last) if last.1 == low => last.1 = high,
            _ => joined.push((low, high)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: i32, epoch: i32) -> SegmentId {
        SegmentId::new(number, epoch)
    }

    #[track_caller]
    fn refused(seal: &[SegmentId], new: &[(f64, f64)], min: i32) -> ScaleRefused {
        plan(&Epoch::first(0, 4, 0), seal, new, min, 9).unwrap_err()
    }

    #[test]
    fn new_segments_are_numbered_by_ascending_key() {
        let current = Epoch::first(0, 4, 0);
        let plan = plan(&current, &[id(1, 0)], &[(0.375, 0.5), (0.25, 0.375)], 1, 9).unwrap();
        assert_eq!(plan.new.iter().map(|s| s.id).collect::<Vec<_>>(), vec![id(4, 1), id(5, 1)]);
        let next = plan.next(&current);
        assert_eq!(next.ids().collect::<Vec<_>>(), vec![id(0, 0), id(4, 1), id(5, 1), id(2, 0), id(3, 0)]);
        assert_eq!((next.epoch, next.reference), (1, 1));
    }

    #[test]
    fn ranges_must_cover_exactly_what_is_sealed() {
        let failure = ScaleRefused::Failure;
        assert_eq!(refused(&[id(1, 0)], &[(0.25, 0.4)], 1), failure, "short");
        assert_eq!(refused(&[id(1, 0)], &[(0.25, 0.6)], 1), failure, "long");
        assert_eq!(refused(&[id(1, 0)], &[(0.25, 0.4), (0.41, 0.5)], 1), failure, "hole");
        assert_eq!(refused(&[id(1, 0)], &[(0.25, 0.4), (0.39, 0.5)], 1), failure, "overlap");
        assert_eq!(refused(&[id(1, 0)], &[(0.5, 0.25)], 1), failure, "inverted");
        assert_eq!(refused(&[id(1, 0)], &[(-0.1, -0.2)], 1), failure, "inverted below zero");
        assert_eq!(refused(&[id(1, 0)], &[(f64::NAN, 0.5)], 1), failure, "not a number");
        assert_eq!(refused(&[], &[], 1), failure, "nothing");
    }

    #[test]
    fn segments_that_are_apart_may_be_scaled_together() {
        let ranges = [(0.0, 0.125), (0.125, 0.25), (0.5, 0.75)];
        assert!(plan(&Epoch::first(0, 4, 0), &[id(0, 0), id(2, 0)], &ranges, 1, 9).is_ok());
    }

    #[test]
    fn closed_segments_and_too_few_segments_fail_the_precondition() {
        assert_eq!(refused(&[id(7, 0)], &[(0.25, 0.5)], 1), ScaleRefused::Precondition);
        assert_eq!(refused(&[id(0, 0), id(1, 0)], &[(0.0, 0.5)], 4), ScaleRefused::Precondition);
    }

    #[test]
    fn two_ranges_with_one_start_are_an_invalid_request() {
        assert!(matches!(refused(&[id(1, 0)], &[(0.25, 0.4), (0.25, 0.5)], 1), ScaleRefused::Invalid(_)));
    }

    #[test]
    fn a_repeated_request_is_recognised() {
        let plan = plan(&Epoch::first(0, 4, 0), &[id(1, 0)], &[(0.25, 0.375), (0.375, 0.5)], 1, 9).unwrap();
        assert!(plan.is_for(&[id(1, 0)], &[(0.375, 0.5), (0.25, 0.375)]));
        assert!(!plan.is_for(&[id(1, 0)], &[(0.25, 0.3), (0.3, 0.5)]));
        assert!(!plan.is_for(&[id(2, 0)], &[(0.25, 0.375), (0.375, 0.5)]));
    }

    proptest! {
        /// Splits and merges at random places keep every key in exactly one segment; `Epoch::new` asserts it.
        #[test]
        fn random_scales_keep_the_key_space_covered(
            count in 1usize..60,
            steps in proptest::collection::vec((any::<prop::sample::Index>(), 1usize..4, 1usize..6), 1..40),
        ) {
            let mut current = Epoch::first(0, count, 0);
            for (at, merge, split) in steps {
                let from = at.index(current.segments().len());
                let to = (from + merge).min(current.segments().len());
                let old = &current.segments()[from..to];
                let (low, high) = (old[0].range.low(), old[old.len() - 1].range.high());
                let bound = |i: usize| if i == split { high } else { low + (high - low) / split as f64 * i as f64 };
                let new: Vec<(f64, f64)> = (0..split).map(|i| (bound(i), bound(i + 1))).collect();
                prop_assume!(new.iter().all(|(low, high)| low < high));
                let seal: Vec<_> = old.iter().map(|s| s.id).collect();
                let plan = plan(&current, &seal, &new, 1, 0).unwrap();
                let next = plan.next(&current);
                prop_assert!(next.highest_number() > current.highest_number());
                for id in &seal {
                    let found = super::super::epochs::successors(*id, &current, &next).unwrap();
                    prop_assert!(!found.is_empty());
                    prop_assert!(found.iter().all(|successor| successor.predecessors.contains(id)));
                }
                prop_assert_eq!(&Epoch::decode(&next.encode()).unwrap(), &next);
                current = next;
            }
        }
    }
}
