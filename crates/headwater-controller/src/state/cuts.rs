//! Stream cuts: whether a set of positions is one that a reader can have reached, and what lies before or after it.
//!
//! For any key, segments follow one another in time: exactly one per epoch. So a cut has one position per key, on the
//! segment whose entry covers the key; where none does, on the future entry that covers it. These positions, as pieces
//! that tile the key space, are the cut's [`Surface`]. Everything else follows from creation epochs: two segments
//! that share a key never share an epoch, so the one created first comes first.
//!
//! Offsets below zero are not numbers: they say that a segment has not been opened.

use std::collections::{BTreeMap, BTreeSet};

use headwater_types::{KeyRange, SegmentId};

use super::epochs::{History, Segment};
use crate::model::StreamCut;

/// Where a cut stands for each key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Surface {
    /// By ascending key, tiling [0, 1).
    pieces: Vec<(KeyRange, SegmentId)>,
}

/// Lowest and highest creation epoch in a cut; `None` for an empty one.
pub(crate) fn creation_epochs(cut: &StreamCut) -> Option<(i32, i32)> {
    // Ids order by epoch first.
    Some((cut.first_key_value()?.0.epoch, cut.last_key_value()?.0.epoch))
}

/// The surface of a valid cut; `None` for an invalid one. `history` covers the cut's creation epochs.
///
/// Valid means: every segment exists; positions on opened segments do not overlap; keys without one are covered by
/// future entries; a future entry is younger than the positions it shares keys with; and no segment would have to be
/// both read to the end for some keys and not yet opened for others. Offsets are not compared with lengths.
pub(crate) fn surface(cut: &StreamCut, history: &History) -> Option<Surface> {
    surface_among(cut, history, &history.segments())
}

/// [`surface`], with the history's segments at hand, for who asks about many cuts.
pub(crate) fn surface_among(
    cut: &StreamCut,
    history: &History,
    segments: &BTreeMap<SegmentId, Segment>,
) -> Option<Surface> {
    let (lowest, highest) = creation_epochs(cut)?;
    history.epoch(lowest)?;
    history.epoch(highest)?;
    let mut entries = Vec::with_capacity(cut.len());
    for (id, offset) in cut {
        entries.push((segments.get(id)?, *offset >= 0));
    }
    if entries.iter().all(|(_, opened)| !opened) {
        return None;
    }
    let surface = Surface { pieces: sweep(&entries)? };
    let contradiction = |segment: &Segment| {
        let opened = cut.get(&segment.id).is_some_and(|offset| *offset >= 0);
        let mut others = surface.overlapping(segment.range).iter().filter(|(_, id)| *id != segment.id);
        !opened && others.clone().any(|(_, id)| *id > segment.id) && {
            // Read to the end for some keys: then nothing it shares a key with may be earlier, nor itself unopened.
            cut.contains_key(&segment.id) && surface.has(segment) || others.any(|(_, id)| *id < segment.id)
        }
    };
    if segments.values().any(contradiction) { None } else { Some(surface) }
}

/// Walks along the keys; at each bound entries begin and end.
fn sweep(entries: &[(&Segment, bool)]) -> Option<Vec<(KeyRange, SegmentId)>> {
    let mut starts: BTreeMap<u64, Vec<(SegmentId, bool)>> = BTreeMap::new();
    let mut ends: BTreeMap<u64, Vec<(SegmentId, bool)>> = BTreeMap::new();
    // Bounds are non-negative, and the bits of non-negative doubles order as they do.
    for (segment, opened) in entries {
        starts.entry(segment.range.low().to_bits()).or_default().push((segment.id, *opened));
        ends.entry(segment.range.high().to_bits()).or_default().push((segment.id, *opened));
    }
    let bounds: BTreeSet<u64> = starts.keys().chain(ends.keys()).copied().chain([0, 1.0_f64.to_bits()]).collect();
    let bounds: Vec<u64> = bounds.into_iter().collect();
    let (mut opened, mut future) = (BTreeSet::new(), BTreeSet::new());
    let mut pieces: Vec<(KeyRange, SegmentId)> = Vec::new();
    for pair in bounds.windows(2) {
        for (id, is_opened) in ends.get(&pair[0]).into_iter().flatten() {
            if *is_opened {
                opened.remove(id)
            } else {
                future.remove(id)
            };
        }
        for (id, is_opened) in starts.get(&pair[0]).into_iter().flatten() {
            if *is_opened {
                opened.insert(*id)
            } else {
                future.insert(*id)
            };
        }
        let position = match (opened.len(), future.first()) {
            (0, Some(first)) => *first,
            (1, first) => {
                let position = *opened.first().expect("it has one element");
                if first.is_some_and(|first| *first < position) {
                    return None;
                }
                position
            }
            _ => return None,
        };
        let (low, high) = (f64::from_bits(pair[0]), f64::from_bits(pair[1]));
        match pieces.last_mut() {
            Some((range, id)) if *id == position => *range = KeyRange::new(range.low(), high).ok()?,
            _ => pieces.push((KeyRange::new(low, high).ok()?, position)),
        }
    }
    Some(pieces)
}

impl Surface {
    /// The start of an epoch, or its end if nothing follows.
    pub(crate) fn of_segments<'a>(segments: impl IntoIterator<Item = &'a Segment>) -> Self {
        let mut pieces: Vec<_> = segments.into_iter().map(|segment| (segment.range, segment.id)).collect();
        pieces.sort_by(|a, b| a.0.low().total_cmp(&b.0.low()));
        Self { pieces }
    }

    fn overlapping(&self, range: KeyRange) -> &[(KeyRange, SegmentId)] {
        let from = self.pieces.partition_point(|(piece, _)| piece.high() <= range.low());
        let to = self.pieces.partition_point(|(piece, _)| piece.low() < range.high());
        &self.pieces[from..to.max(from)]
    }

    fn has(&self, segment: &Segment) -> bool {
        self.overlapping(segment.range).iter().any(|(_, id)| *id == segment.id)
    }

    /// Everything of the segment has been passed: for all its keys the cut stands on younger segments.
    pub(crate) fn is_past(&self, segment: &Segment) -> bool {
        self.overlapping(segment.range).iter().all(|(_, id)| id.epoch > segment.id.epoch)
    }
}

/// Segments that have keys and time between two surfaces, the ones the surfaces stand on included.
/// `None` if `to` stands before `from` for some key.
pub(crate) fn between(from: &Surface, to: &Surface, history: &History) -> Option<Vec<SegmentId>> {
    let mut steps = Vec::new();
    for (range, first) in &from.pieces {
        for (other, last) in to.overlapping(*range) {
            if last < first {
                return None;
            }
            let low = range.low().max(other.low());
            let high = range.high().min(other.high());
            steps.push((KeyRange::new(low, high).ok()?, first.epoch, last.epoch));
        }
    }
    let touched = |segment: &&Segment| {
        let at = steps.partition_point(|(range, ..)| range.high() <= segment.range.low());
        steps[at..]
            .iter()
            .take_while(|(range, ..)| range.low() < segment.range.high())
            .any(|(_, first, last)| (*first..=*last).contains(&segment.id.epoch))
    };
    Some(history.segments().values().filter(touched).map(|segment| segment.id).collect())
}

/// How one cut lies to another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    /// Behind it somewhere, and ahead of it nowhere.
    Before,
    /// Behind it nowhere.
    EqualOrAfter,
    /// Behind it here and ahead of it there.
    Overlaps,
}

/// How a valid cut `a` lies to a valid cut `b`: by the segments that they stand on for each key, and by the offsets
/// where it is the same one. `history` covers the creation epochs of both. `None` if one of them is not valid.
pub(crate) fn order(a: &StreamCut, b: &StreamCut, history: &History) -> Option<Order> {
    let segments = history.segments();
    let (on_a, on_b) = (surface_among(a, history, &segments)?, surface_among(b, history, &segments)?);
    Some(order_on((&on_a, a), (&on_b, b)))
}

/// [`order`] of cuts whose surfaces are known.
pub(crate) fn order_on((on_a, a): (&Surface, &StreamCut), (on_b, b): (&Surface, &StreamCut)) -> Order {
    // Not opened is as good as at the first byte.
    let offset = |cut: &StreamCut, id: &SegmentId| cut.get(id).map_or(0, |offset| (*offset).max(0));
    let (mut earlier, mut later) = (false, false);
    for (range, id) in &on_a.pieces {
        for (_, other) in on_b.overlapping(*range) {
            let order = id.cmp(other).then_with(|| offset(a, id).cmp(&offset(b, id)));
            earlier |= order.is_lt();
            later |= order.is_gt();
        }
    }
    match (earlier, later) {
        (false, _) => Order::EqualOrAfter,
        (true, false) => Order::Before,
        (true, true) => Order::Overlaps,
    }
}

/// Whether a cut `a` is nowhere behind a cut `b`. Both are valid; `history` covers their creation epochs.
pub(crate) fn is_equal_or_after(a: &StreamCut, b: &StreamCut, history: &History) -> bool {
    order(a, b, history) == Some(Order::EqualOrAfter)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::FUTURE;
    use crate::state::epochs::Epoch;
    use crate::state::scale;

    pub(crate) const A: SegmentId = SegmentId::new(0, 0);
    pub(crate) const B: SegmentId = SegmentId::new(1, 0);
    pub(crate) const M: SegmentId = SegmentId::new(2, 1);
    pub(crate) const N: SegmentId = SegmentId::new(3, 2);
    pub(crate) const O: SegmentId = SegmentId::new(4, 2);
    pub(crate) const P: SegmentId = SegmentId::new(5, 3);
    pub(crate) const Q: SegmentId = SegmentId::new(6, 3);

    /// A, B merge into M; M splits into N, O; N splits into P, Q.
    pub(crate) fn history() -> History {
        let mut epochs = vec![Arc::new(Epoch::first(0, 2, 0))];
        for (seal, new) in [
            (vec![A, B], vec![(0.0, 1.0)]),
            (vec![M], vec![(0.0, 0.5), (0.5, 1.0)]),
            (vec![N], vec![(0.0, 0.25), (0.25, 0.5)]),
        ] {
            let current = epochs.last().unwrap();
            let next = scale::plan(current, &seal, &new, 1, 0).unwrap().next(current);
            epochs.push(Arc::new(next));
        }
        History(epochs)
    }

    pub(crate) fn cut(entries: &[(SegmentId, i64)]) -> StreamCut {
        entries.iter().copied().collect()
    }

    #[track_caller]
    fn valid(entries: &[(SegmentId, i64)]) -> bool {
        surface(&cut(entries), &history()).is_some()
    }

    #[test]
    fn positions_that_tile_the_keys_are_a_cut() {
        assert!(valid(&[(A, 5), (B, 0)]));
        assert!(valid(&[(M, 1)]));
        assert!(valid(&[(N, 0), (O, 9)]));
        assert!(valid(&[(O, 3), (P, 0), (Q, 7)]), "O outlives N");
    }

    #[test]
    fn what_no_reader_can_reach_is_no_cut() {
        assert!(!valid(&[]), "nothing");
        assert!(!valid(&[(A, 5)]), "a gap");
        assert!(!valid(&[(A, 5), (B, 5), (M, 0)]), "an overlap");
        assert!(!valid(&[(A, 5), (SegmentId::new(9, 0), 0)]), "an unknown segment");
        assert!(!valid(&[(A, 5), (SegmentId::new(1, 7), 0)]), "an unknown epoch");
        assert!(!valid(&[(A, FUTURE), (B, FUTURE)]), "only future segments");
        assert!(!valid(&[(A, 5), (O, 3)]), "O opens after M, and M after A");
    }

    #[test]
    fn a_future_segment_covers_keys_whose_predecessors_are_read() {
        assert!(valid(&[(B, 5), (M, FUTURE)]), "A is read to the end");
        assert!(!valid(&[(B, 5), (N, FUTURE)]), "M lies between and needs B");
        assert!(valid(&[(O, 5), (N, FUTURE)]));
        assert!(valid(&[(O, 5), (P, FUTURE), (Q, 0)]));
        assert!(!valid(&[(O, 5), (P, FUTURE)]), "a gap at Q");
        assert!(!valid(&[(N, 5), (M, FUTURE)]), "the future is not before the present");
    }

    #[test]
    fn offsets_and_spans_order_cuts() {
        let history = history();
        let check = |a: &[(SegmentId, i64)], b: &[(SegmentId, i64)]| is_equal_or_after(&cut(a), &cut(b), &history);
        assert!(check(&[(A, 5), (B, 5)], &[(A, 5), (B, 5)]));
        assert!(check(&[(A, 6), (B, 5)], &[(A, 5), (B, 5)]));
        assert!(!check(&[(A, 6), (B, 4)], &[(A, 5), (B, 5)]));
        assert!(check(&[(M, 0)], &[(A, 5), (B, 5)]));
        assert!(!check(&[(A, 5), (B, 5)], &[(M, 0)]));
        assert!(check(&[(N, 0), (O, 9)], &[(M, 100)]));
        assert!(check(&[(O, 9), (P, 0), (Q, 0)], &[(N, 5), (O, 9)]));
        assert!(!check(&[(N, 5), (O, 9)], &[(O, 9), (P, 0), (Q, 0)]));
        assert!(check(&[(O, 5), (N, FUTURE)], &[(O, 5), (N, 0)]), "not opened is as good as at the start");
        let waiting = [(B, 5), (M, FUTURE)];
        assert!(check(&waiting, &waiting), "a cut is not behind itself");
        assert!(check(&[(B, 6), (M, FUTURE)], &waiting) && !check(&[(B, 4), (M, FUTURE)], &waiting));
        assert!(check(&waiting, &[(A, 5), (B, 5)]) && !check(&[(A, 5), (B, 9)], &waiting));
        assert!(check(&[(M, 0)], &waiting));
    }

    #[test]
    fn cuts_lie_before_after_or_across() {
        let order = |a: &[(SegmentId, i64)], b: &[(SegmentId, i64)]| order(&cut(a), &cut(b), &history()).unwrap();
        assert_eq!(order(&[(A, 5), (B, 5)], &[(A, 5), (B, 5)]), Order::EqualOrAfter);
        assert_eq!(order(&[(A, 5), (B, 6)], &[(A, 5), (B, 5)]), Order::EqualOrAfter);
        assert_eq!(order(&[(A, 4), (B, 5)], &[(A, 5), (B, 5)]), Order::Before);
        assert_eq!(order(&[(A, 4), (B, 6)], &[(A, 5), (B, 5)]), Order::Overlaps);
        assert_eq!(order(&[(A, 9), (B, 9)], &[(M, 0)]), Order::Before);
        assert_eq!(order(&[(N, 0), (O, 0)], &[(M, 9)]), Order::EqualOrAfter);
        assert_eq!(order(&[(B, 9), (M, FUTURE)], &[(A, 9), (B, 10)]), Order::Overlaps);
    }

    #[test]
    fn a_segment_is_past_when_the_cut_stands_on_younger_ones_everywhere() {
        let history = history();
        let segments = history.segments();
        let surface = surface(&cut(&[(B, 5), (M, FUTURE)]), &history).unwrap();
        let past: Vec<_> = segments.values().filter(|s| surface.is_past(s)).map(|s| s.id).collect();
        assert_eq!(past, vec![A]);
    }

    #[test]
    fn segments_between_two_cuts_are_those_a_reader_meets() {
        let history = history();
        let at = |entries: &[(SegmentId, i64)]| surface(&cut(entries), &history).unwrap();
        let start = Surface::of_segments(history.0[0].segments());
        let tail = Surface::of_segments(history.0[3].segments());
        assert_eq!(between(&start, &tail, &history).unwrap(), vec![A, B, M, N, O, P, Q]);
        assert_eq!(between(&at(&[(M, 5)]), &at(&[(N, 0), (O, 1)]), &history).unwrap(), vec![M, N, O]);
        assert_eq!(between(&at(&[(B, 5), (M, FUTURE)]), &at(&[(M, 3)]), &history).unwrap(), vec![B, M]);
        assert_eq!(between(&at(&[(M, 5)]), &start, &history), None);
    }
}
