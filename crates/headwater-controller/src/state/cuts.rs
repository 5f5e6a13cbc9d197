//! Stream cuts: whether a set of positions is one that a reader can have reached, and what lies before or after it.
//!
//! For any key, segments follow one another in time: exactly one per epoch. So a cut has one position per key, on the
//! segment whose entry covers the key; where none does, on the future entry that covers it. These positions, as pieces
//! that tile the key space, are the cut's [`Surface`]. Everything else follows from creation epochs: two segments
//! that share a key never share an epoch, so the one created first comes first.
//!
//! A stream may have lived through more epochs than fit in memory. So nothing here takes a history: what a surface needs
//! are the segments of its cut, and of what lies between two of them it says from which epochs ([`Spans`]) segments
//! are to be shown to it, in whatever portions.
//!
//! Offsets below zero are not numbers: they say that a segment has not been opened.

use std::collections::{BTreeMap, BTreeSet};

use headwater_types::{KeyRange, SegmentId};

use super::epochs::Segment;
use crate::model::StreamCut;

/// Segments, each with the latest epoch that was looked at and has it.
pub(crate) type Segments = BTreeMap<SegmentId, (Segment, i32)>;

/// Where a cut stands for each key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Surface {
    /// By ascending key, tiling [0, 1); each with the whole segment that it is a piece of.
    pieces: Vec<(KeyRange, Segment)>,
}

impl Surface {
    /// The surface of a cut that [is none](Self::is_contradicted) only if a segment of the epochs that it is [in
    /// doubt](Self::doubts) about says so; `None` for what is none in any case.
    ///
    /// A cut is: every segment exists; positions on opened segments do not overlap; keys without one are covered by
    /// future entries; a future entry is younger than the positions it shares keys with; and no segment would have to be
    /// both read to the end for some keys and not yet opened for others. Offsets are not compared with lengths.
    pub(crate) fn new(cut: &StreamCut, segments: &Segments) -> Option<Self> {
        let mut entries = Vec::with_capacity(cut.len());
        for (id, offset) in cut {
            entries.push((segments.get(id)?.0, *offset >= 0));
        }
        if entries.iter().all(|(_, opened)| !opened) {
            return None;
        }
        let surface = Self { pieces: sweep(&entries)? };
        let contradicted = entries.iter().any(|(segment, opened)| !opened && surface.is_contradicted(cut, segment));
        (!contradicted).then_some(surface)
    }

    /// The start of an epoch, or its end if nothing follows.
    pub(crate) fn of_segments<'a>(segments: impl IntoIterator<Item = &'a Segment>) -> Self {
        let mut pieces: Vec<_> = segments.into_iter().map(|segment| (segment.range, *segment)).collect();
        pieces.sort_by(|a, b| a.0.low().total_cmp(&b.0.low()));
        Self { pieces }
    }

    /// The epochs whose segments may say that the cut is none. Such a segment lies across the bound of two pieces, older
    /// than one and younger than the other; there is none where the older was still open when the younger came.
    pub(crate) fn doubts(&self, segments: &Segments) -> Spans {
        let bounds = self.pieces.windows(2).filter_map(|pair| {
            let (older, younger) = (pair[0].1.id.min(pair[1].1.id), pair[0].1.id.max(pair[1].1.id));
            let lasted = segments.get(&older).is_some_and(|(_, until)| *until >= younger.epoch);
            (!lasted).then_some((older.epoch + 1, younger.epoch - 1))
        });
        Spans::new(bounds.collect())
    }

    /// A segment would be both read to the end for some keys and not yet opened for others.
    pub(crate) fn is_contradicted(&self, cut: &StreamCut, segment: &Segment) -> bool {
        let opened = cut.get(&segment.id).is_some_and(|offset| *offset >= 0);
        let mut others = self.overlapping(segment.range).iter().map(|(_, on)| on.id).filter(|id| *id != segment.id);
        !opened && others.clone().any(|id| id > segment.id) && {
            // Read to the end for some keys: then nothing it shares a key with may be earlier, nor itself unopened.
            cut.contains_key(&segment.id) && self.has(segment) || others.any(|id| id < segment.id)
        }
    }

    fn overlapping(&self, range: KeyRange) -> &[(KeyRange, Segment)] {
        let from = self.pieces.partition_point(|(piece, _)| piece.high() <= range.low());
        let to = self.pieces.partition_point(|(piece, _)| piece.low() < range.high());
        &self.pieces[from..to.max(from)]
    }

    /// It stands on the segment for some keys.
    pub(crate) fn has(&self, segment: &Segment) -> bool {
        self.overlapping(segment.range).iter().any(|(_, on)| on.id == segment.id)
    }

    /// The segments that it stands on, each once.
    pub(crate) fn segments(&self) -> Vec<Segment> {
        let segments: BTreeMap<SegmentId, Segment> = self.pieces.iter().map(|(_, on)| (on.id, *on)).collect();
        segments.into_values().collect()
    }

    /// Everything of the segment has been passed: for all its keys the cut stands on younger segments.
    pub(crate) fn is_past(&self, segment: &Segment) -> bool {
        self.overlapping(segment.range).iter().all(|(_, on)| on.id.epoch > segment.id.epoch)
    }
}

/// Walks along the keys; at each bound entries begin and end.
fn sweep(entries: &[(Segment, bool)]) -> Option<Vec<(KeyRange, Segment)>> {
    // Bounds are non-negative, and the bits of non-negative doubles order as they do.
    let mut bounds: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * entries.len());
    for (index, (segment, _)) in entries.iter().enumerate() {
        bounds.push((segment.range.low().to_bits(), true, index));
        bounds.push((segment.range.high().to_bits(), false, index));
    }
    bounds.sort_unstable();
    let (mut opened, mut future) = (BTreeMap::new(), BTreeMap::new());
    let mut pieces: Vec<(KeyRange, Segment)> = Vec::with_capacity(entries.len());
    let mut reached = 0_u64;
    for at in bounds.chunk_by(|a, b| a.0 == b.0) {
        let key = at[0].0;
        if key > reached {
            let position: Segment = match (opened.len(), future.first_key_value()) {
                (0, Some((_, first))) => *first,
                (1, first) => {
                    let (id, position) = opened.first_key_value().expect("it has one element");
                    if first.is_some_and(|(first, _)| first < id) {
                        return None;
                    }
                    *position
                }
                _ => return None,
            };
            let (low, high) = (f64::from_bits(reached), f64::from_bits(key));
            match pieces.last_mut() {
                Some((range, on)) if on.id == position.id => *range = KeyRange::new(range.low(), high).ok()?,
                _ => pieces.push((KeyRange::new(low, high).ok()?, position)),
            }
            reached = key;
        }
        for (_, begins, index) in at {
            let (segment, is_opened) = entries[*index];
            let side = if is_opened { &mut opened } else { &mut future };
            if *begins {
                side.insert(segment.id, segment);
            } else {
                side.remove(&segment.id);
            }
        }
    }
    (reached == 1.0_f64.to_bits()).then_some(pieces)
}

/// Numbers of epochs, ascending, that are still to be looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Spans {
    /// First and last of each stretch, the lowest last; apart from one another.
    left: Vec<(i32, i32)>,
}

impl Spans {
    /// From first to last, both included; a last below its first is no stretch.
    pub(crate) fn new(mut stretches: Vec<(i32, i32)>) -> Self {
        stretches.retain(|(first, last)| first <= last);
        stretches.sort_unstable_by(|a, b| b.cmp(a));
        let mut left: Vec<(i32, i32)> = Vec::new();
        while let Some((first, last)) = stretches.pop() {
            match left.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => left.push((first, last)),
            }
        }
        left.reverse();
        Self { left }
    }

    /// The lowest stretch that is left.
    pub(crate) fn next(&self) -> Option<(i32, i32)> {
        self.left.last().copied()
    }

    /// Everything up to this epoch is done.
    pub(crate) fn pass(&mut self, epoch: i32) {
        while let Some((first, last)) = self.left.pop() {
            if last > epoch {
                self.left.push((first.max(epoch + 1), last));
                return;
            }
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.left.iter().map(|(first, last)| first.abs_diff(*last) as usize + 1).sum()
    }
}

/// What lies between two surfaces.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// By ascending key: for these keys it leads from the first segment to the last.
    steps: Vec<(KeyRange, SegmentId, SegmentId)>,
}

impl Way {
    pub(crate) fn new(from: &Surface, to: &Surface) -> Self {
        let mut steps = Vec::new();
        for (range, first) in &from.pieces {
            for (other, last) in to.overlapping(*range) {
                let (low, high) = (range.low().max(other.low()), range.high().min(other.high()));
                let keys = KeyRange::new(low, high).expect("pieces that overlap have a key in common");
                steps.push((keys, first.id, last.id));
            }
        }
        Self { steps }
    }

    /// For some key it leads back.
    pub(crate) fn is_backwards(&self) -> bool {
        self.steps.iter().any(|(_, first, last)| last < first)
    }

    /// The segments that it begins and ends with.
    pub(crate) fn ends(&self) -> BTreeSet<SegmentId> {
        self.steps.iter().flat_map(|(_, first, last)| [*first, *last]).collect()
    }

    /// The epochs that created whatever else is on it.
    pub(crate) fn spans(&self) -> Spans {
        Spans::new(self.steps.iter().map(|(_, first, last)| (first.epoch + 1, last.epoch.saturating_sub(1))).collect())
    }

    /// The segment is on it.
    pub(crate) fn touches(&self, segment: &Segment) -> bool {
        let at = self.steps.partition_point(|(range, ..)| range.high() <= segment.range.low());
        self.steps[at..]
            .iter()
            .take_while(|(range, ..)| range.low() < segment.range.high())
            .any(|(_, first, last)| (first.epoch..=last.epoch).contains(&segment.id.epoch))
    }
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
/// where it is the same one.
pub(crate) fn order_on((on_a, a): (&Surface, &StreamCut), (on_b, b): (&Surface, &StreamCut)) -> Order {
    // Not opened is as good as at the first byte.
    let offset = |cut: &StreamCut, id: &SegmentId| cut.get(id).map_or(0, |offset| (*offset).max(0));
    let (mut earlier, mut later) = (false, false);
    for (range, on) in &on_a.pieces {
        for (_, other) in on_b.overlapping(*range) {
            let order = on.id.cmp(&other.id).then_with(|| offset(a, &on.id).cmp(&offset(b, &on.id)));
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

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::FUTURE;
    use crate::state::epochs::Epoch;
    use crate::state::scale;

    /// All epochs of a stream, oldest first.
    #[derive(Clone, Debug)]
    pub(crate) struct History(pub(crate) Vec<Epoch>);

    impl History {
        pub(crate) fn segments(&self) -> BTreeMap<SegmentId, Segment> {
            self.0.iter().flat_map(|epoch| epoch.segments().iter()).map(|segment| (segment.id, *segment)).collect()
        }

        /// The segments of a cut, as they are found going back from its youngest.
        pub(crate) fn named(&self, cut: &StreamCut) -> Segments {
            let mut found = Segments::new();
            for id in cut.keys().rev() {
                let Some(epoch) = usize::try_from(id.epoch).ok().and_then(|epoch| self.0.get(epoch)) else { continue };
                if !found.contains_key(id) {
                    for segment in epoch.segments().iter().filter(|segment| cut.contains_key(&segment.id)) {
                        found.entry(segment.id).or_insert((*segment, epoch.epoch));
                    }
                }
            }
            found
        }

        /// What the epochs created.
        fn created(&self, mut spans: Spans) -> Vec<Segment> {
            let mut found = Vec::new();
            while let Some((first, _)) = spans.next() {
                found.extend(self.0[first as usize].created_here());
                spans.pass(first);
            }
            found
        }
    }

    pub(crate) fn surface(cut: &StreamCut, history: &History) -> Option<Surface> {
        let segments = history.named(cut);
        let surface = Surface::new(cut, &segments)?;
        let created = history.created(surface.doubts(&segments));
        (!created.iter().any(|segment| surface.is_contradicted(cut, segment))).then_some(surface)
    }

    pub(crate) fn order(a: &StreamCut, b: &StreamCut, history: &History) -> Option<Order> {
        Some(order_on((&surface(a, history)?, a), (&surface(b, history)?, b)))
    }

    pub(crate) fn is_equal_or_after(a: &StreamCut, b: &StreamCut, history: &History) -> bool {
        order(a, b, history) == Some(Order::EqualOrAfter)
    }

    fn between(from: &Surface, to: &Surface, history: &History) -> Option<Vec<SegmentId>> {
        let way = Way::new(from, to);
        let mut found = way.ends();
        found.extend(history.created(way.spans()).iter().filter(|segment| way.touches(segment)).map(|s| s.id));
        (!way.is_backwards()).then(|| found.into_iter().collect())
    }

    pub(crate) const A: SegmentId = SegmentId::new(0, 0);
    pub(crate) const B: SegmentId = SegmentId::new(1, 0);
    pub(crate) const M: SegmentId = SegmentId::new(2, 1);
    pub(crate) const N: SegmentId = SegmentId::new(3, 2);
    pub(crate) const O: SegmentId = SegmentId::new(4, 2);
    pub(crate) const P: SegmentId = SegmentId::new(5, 3);
    pub(crate) const Q: SegmentId = SegmentId::new(6, 3);

    /// A, B merge into M; M splits into N, O; N splits into P, Q.
    pub(crate) fn history() -> History {
        let mut epochs = vec![Epoch::first(0, 2, 0)];
        for (seal, new) in [
            (vec![A, B], vec![(0.0, 1.0)]),
            (vec![M], vec![(0.0, 0.5), (0.5, 1.0)]),
            (vec![N], vec![(0.0, 0.25), (0.25, 0.5)]),
        ] {
            let current = epochs.last().unwrap();
            let next = scale::plan(current, &seal, &new, 1, 0).unwrap().next(current);
            epochs.push(next);
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

    #[test]
    fn stretches_of_epochs_that_touch_are_looked_at_once() {
        let mut spans = Spans::new(vec![(5, 9), (1, 2), (8, 12), (3, 3), (20, 19), (30, 30)]);
        assert_eq!((spans.next(), spans.count()), (Some((1, 3)), 12));
        spans.pass(1);
        assert_eq!(spans.next(), Some((2, 3)));
        spans.pass(6);
        assert_eq!((spans.next(), spans.count()), (Some((7, 12)), 7));
        spans.pass(12);
        assert_eq!(spans.next(), Some((30, 30)));
        spans.pass(30);
        assert_eq!((spans.next(), spans.count()), (None, 0));
    }

    #[test]
    fn a_cut_whose_segments_were_open_together_or_that_leaves_keys_out_needs_nothing_that_lies_between() {
        let history = history();
        let doubts = |entries: &[(SegmentId, i64)]| {
            let cut = cut(entries);
            let segments = history.named(&cut);
            Surface::new(&cut, &segments).map(|surface| surface.doubts(&segments).next())
        };
        assert_eq!(doubts(&[(O, 3), (P, 0), (Q, 7)]), Some(None), "O was there when P and Q came");
        assert_eq!(doubts(&[(A, 5), (Q, 0)]), None, "a gap");
        assert_eq!(doubts(&[(A, 5), (O, 3)]), Some(Some((1, 1))), "what came between A and O?");
    }

    /// A stream that is split and merged at random.
    fn any_history() -> impl Strategy<Value = History> {
        let steps = proptest::collection::vec((any::<prop::sample::Index>(), 1_usize..4, 1_usize..4), 1..9);
        (1_usize..5, steps).prop_map(|(count, steps)| {
            let mut epochs = vec![Epoch::first(0, count, 0)];
            for (at, merge, split) in steps {
                let current = epochs.last().unwrap();
                let from = at.index(current.segments().len());
                let old = &current.segments()[from..(from + merge).min(current.segments().len())];
                let (low, high) = (old[0].range.low(), old[old.len() - 1].range.high());
                let bound = |i: usize| if i == split { high } else { low + (high - low) / split as f64 * i as f64 };
                let new: Vec<(f64, f64)> = (0..split).map(|i| (bound(i), bound(i + 1))).collect();
                let seal: Vec<_> = old.iter().map(|segment| segment.id).collect();
                let next = scale::plan(current, &seal, &new, 1, 0).unwrap().next(current);
                epochs.push(next);
            }
            History(epochs)
        })
    }

    /// Positions that tile the key space most of the time: for each stretch of keys a segment of some epoch.
    fn any_cut(history: &History, choices: &[(prop::sample::Index, i64)]) -> StreamCut {
        let (mut cut, mut reached) = (StreamCut::new(), 0.0);
        for (epoch, offset) in choices {
            let epoch = epoch.get(&history.0);
            let Some(segment) = epoch.segments().iter().find(|s| s.range.low() <= reached && reached < s.range.high())
            else {
                break;
            };
            cut.insert(segment.id, *offset);
            reached = segment.range.high();
        }
        cut
    }

    /// What the module says of cuts, looked up in everything there ever was.
    fn surface_of_all(cut: &StreamCut, history: &History) -> Option<Surface> {
        let all = history.segments();
        let known: Segments = all.iter().map(|(id, segment)| (*id, (*segment, i32::MIN))).collect();
        let surface = Surface::new(cut, &known)?;
        (!all.values().any(|segment| surface.is_contradicted(cut, segment))).then_some(surface)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_is_left_out_of_a_look_says_nothing(
            history in any_history(),
            a in proptest::collection::vec((any::<prop::sample::Index>(), -1_i64..9), 1..9),
            b in proptest::collection::vec((any::<prop::sample::Index>(), -1_i64..9), 1..9),
        ) {
            let (a, b) = (any_cut(&history, &a), any_cut(&history, &b));
            let (on_a, on_b) = (surface(&a, &history), surface(&b, &history));
            prop_assert_eq!(&on_a, &surface_of_all(&a, &history));
            prop_assert_eq!(&on_b, &surface_of_all(&b, &history));
            let (Some(on_a), Some(on_b)) = (on_a, on_b) else { return Ok(()) };
            let (way, all) = (Way::new(&on_a, &on_b), history.segments());
            let touched: Vec<_> = all.values().filter(|segment| way.touches(segment)).map(|s| s.id).collect();
            if let Some(between) = between(&on_a, &on_b, &history) {
                prop_assert_eq!(between, touched);
            }
            // What lies before the one and not before the other.
            let is_gone = |segment: &&Segment| on_b.is_past(segment) && !on_a.is_past(segment);
            let expected: BTreeSet<_> = all.values().filter(is_gone).map(|s| s.id).collect();
            let begins = on_a.segments();
            let created = history.created(way.spans());
            let found: BTreeSet<_> = begins.iter().chain(&created).filter(is_gone).map(|s| s.id).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
