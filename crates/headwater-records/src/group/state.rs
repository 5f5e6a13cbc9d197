//! What a group has agreed on: who reads what, from where, and which checkpoints are under way.
//!
//! ```text
//!   future ──all it waits for is complete──► unassigned ──acquire──► assigned to a reader ──complete──► gone
//!                                                ▲                            │
//!                                                └──── release, offline ──────┘
//! ```
//!
//! Every client applies the same changes in the same order and comes to the same state: the rules are those of Java's
//! client to the letter, also where one might wish for others. One of those: a completed segment is struck from what
//! segments of *any* stream wait for, by its id alone. In a group over several streams that scale, a segment can so become
//! readable too early.
//!
//! Invariants:
//! * a change that contradicts the state changes nothing
//! * what is kept is bounded by what was applied, checkpoints aside: each of them copies the offsets of unassigned segments
//!
//! Source: `ReaderGroupState` and `CheckpointState` of Pravega's client.

use std::collections::{BTreeMap, BTreeSet};

use headwater_types::{KeyRange, ScopedStream, StreamSegment};

use super::checkpoints::Checkpoints;
use super::{Compacted, Fresh, GroupConfiguration, Initial, Placed, Update};
use crate::Offsets;

/// Least distance to the end that is reckoned with, in milliseconds. Source: Java's `ASSUMED_LAG_MILLIS`.
pub(super) const DISTANCE_MS_MIN: i64 = 30_000;

/// What the readers of a group have agreed on.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    configuration: GroupConfiguration,
    checkpoints: Checkpoints,
    distances_ms: BTreeMap<String, i64>,
    future: BTreeMap<StreamSegment, BTreeSet<i64>>,
    /// Who waits for each id, and under `None` who waits for nothing; the same as `future`, the other way round.
    waiting: BTreeMap<Option<i64>, BTreeSet<StreamSegment>>,
    assigned: BTreeMap<String, Offsets>,
    unassigned: Offsets,
    last_read: Offsets,
    ends: Offsets,
    ranges: BTreeMap<StreamSegment, KeyRange>,
    reconfiguring: bool,
}

/// Why a change cannot be one of this state's. No client writes such; whoever meets one reads something else than a group.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Contradiction {
    /// A reader is added that is there.
    #[error("reader {reader} is online already")]
    Online {
        /// Its id.
        reader: String,
    },
    /// A reader does something that is not there.
    #[error("reader {reader} is not online")]
    Offline {
        /// Its id.
        reader: String,
    },
    /// A reader gives away what it does not have.
    #[error("segment {segment} is not assigned to reader {reader}")]
    NotAssigned {
        /// Its id.
        reader: String,
        /// The segment.
        segment: StreamSegment,
    },
    /// A reader takes what is not to be had.
    #[error("segment {segment} is not unassigned")]
    NotUnassigned {
        /// The segment.
        segment: StreamSegment,
    },
    /// A reader reports to a checkpoint that does not wait for it.
    #[error("checkpoint {checkpoint} does not wait for reader {reader}")]
    NotAwaited {
        /// Name of the checkpoint.
        checkpoint: String,
        /// Its id.
        reader: String,
    },
}

impl From<Initial> for State {
    fn from(initial: Initial) -> Self {
        match initial {
            Initial::Fresh(fresh) => Self::fresh(fresh),
            Initial::Compacted(compacted) => Self::restored(*compacted),
        }
    }
}

impl State {
    fn fresh(fresh: Fresh) -> Self {
        let known = |(segment, placed): (&StreamSegment, &Placed)| Some((segment.clone(), placed.range?));
        let offsets = |(segment, placed): (&StreamSegment, &Placed)| (segment.clone(), placed.offset);
        let unassigned: Offsets = fresh.starting.iter().map(offsets).collect();
        Self {
            configuration: fresh.configuration,
            checkpoints: Checkpoints::new(),
            distances_ms: BTreeMap::new(),
            future: BTreeMap::new(),
            waiting: BTreeMap::new(),
            assigned: BTreeMap::new(),
            last_read: unassigned.clone(),
            unassigned,
            ends: fresh.ends,
            ranges: fresh.starting.iter().filter_map(known).collect(),
            reconfiguring: fresh.reconfiguring,
        }
    }

    fn restored(record: Compacted) -> Self {
        let mut waiting: BTreeMap<Option<i64>, BTreeSet<StreamSegment>> = BTreeMap::new();
        for (segment, ids) in &record.future {
            for id in ids {
                waiting.entry(Some(*id)).or_default().insert(segment.clone());
            }
            if ids.is_empty() {
                waiting.entry(None).or_default().insert(segment.clone());
            }
        }
        Self {
            configuration: record.configuration,
            checkpoints: record.checkpoints.into(),
            distances_ms: record.distances_ms,
            future: record.future,
            waiting,
            assigned: record.assigned,
            unassigned: record.unassigned,
            last_read: record.last_read,
            ends: record.ends,
            ranges: record.ranges.into_iter().filter_map(|(segment, range)| Some((segment, range?))).collect(),
            reconfiguring: record.reconfiguring,
        }
    }

    /// All of it as one record, from which the same state can be made.
    pub fn compacted(&self) -> Compacted {
        let assigned = self.assigned.values().flat_map(BTreeMap::keys);
        let named = self.future.keys().chain(assigned).chain(self.unassigned.keys()).chain(self.last_read.keys());
        let ranges = named.map(|segment| (segment.clone(), self.range(segment))).collect();
        Compacted {
            configuration: self.configuration.clone(),
            checkpoints: self.checkpoints.record().clone(),
            distances_ms: self.distances_ms.clone(),
            future: self.future.clone(),
            assigned: self.assigned.clone(),
            unassigned: self.unassigned.clone(),
            ends: self.ends.clone(),
            last_read: self.last_read.clone(),
            ranges,
            reconfiguring: self.reconfiguring,
        }
    }

    /// Applies a change.
    ///
    /// # Errors
    /// The change contradicts the state, which stays as it was.
    pub fn apply(&mut self, update: &Update) -> Result<(), Contradiction> {
        match update {
            Update::Replace(initial) => *self = Self::from((**initial).clone()),
            Update::AddReader { reader } => {
                if self.is_online(reader) {
                    return Err(Contradiction::Online { reader: reader.clone() });
                }
                self.assigned.insert(reader.clone(), Offsets::new());
                self.distances_ms.entry(reader.clone()).or_insert(i64::MAX);
            }
            Update::RemoveReader { reader, offsets } => self.remove_reader(reader, offsets),
            Update::Release { reader, segment, offset } => {
                self.take_from(reader, segment)?;
                self.unassigned.insert(segment.clone(), *offset);
                self.last_read.entry(segment.clone()).and_modify(|read| *read = *offset);
            }
            Update::Acquire { reader, segment } => {
                let held = self.assigned.get_mut(reader);
                let held = held.ok_or_else(|| Contradiction::Offline { reader: reader.clone() })?;
                let Some((segment, offset)) = self.unassigned.remove_entry(segment) else {
                    return Err(Contradiction::NotUnassigned { segment: segment.clone() });
                };
                held.insert(segment, offset);
            }
            Update::Report { reader, distance_ms, last_read } => {
                // Unconditional, so that the reader may be gone meanwhile, or what it says be known to be over.
                self.distances_ms.insert(reader.clone(), (*distance_ms).max(DISTANCE_MS_MIN));
                for (segment, placed) in last_read.iter().flatten() {
                    self.last_read.entry(segment.clone()).and_modify(|read| *read = placed.offset);
                }
            }
            Update::Complete { reader, segment, successors, ranges } => {
                self.take_from(reader, segment)?;
                self.last_read.remove(segment);
                self.ranges.remove(segment);
                let known = |(segment, range): (&StreamSegment, &Option<KeyRange>)| Some((segment.clone(), (*range)?));
                let follow = ranges.iter().filter(|(segment, _)| successors.contains_key(segment));
                self.ranges.extend(follow.filter_map(known));
                self.follow(segment.id.as_i64(), successors);
            }
            Update::ReportCheckpoint { checkpoint, reader, offsets } => {
                self.report_checkpoint(checkpoint, reader, offsets)?;
            }
            Update::CreateCheckpoint { checkpoint } => {
                self.checkpoints.create(checkpoint, self.assigned.keys().cloned().collect(), &self.unassigned);
            }
            Update::ClearCheckpoints { before } => self.checkpoints.clear_before(before),
            Update::Published(published) => self.checkpoints.set_published(*published),
            Update::Reconfiguring(reconfiguring) => self.reconfiguring = *reconfiguring,
            Update::CancelCheckpoints => self.checkpoints.cancel(),
        }
        Ok(())
    }

    fn take_from(&mut self, reader: &str, segment: &StreamSegment) -> Result<i64, Contradiction> {
        let held = self.assigned.get_mut(reader);
        let held = held.ok_or_else(|| Contradiction::Offline { reader: reader.to_owned() })?;
        let missing = || Contradiction::NotAssigned { reader: reader.to_owned(), segment: segment.clone() };
        held.remove(segment).ok_or_else(missing)
    }

    fn remove_reader(&mut self, reader: &str, offsets: &Offsets) {
        let mut left = Offsets::new();
        for (segment, stored) in self.assigned.remove(reader).into_iter().flatten() {
            let offset = offsets.get(&segment).copied().unwrap_or(stored);
            left.insert(segment, offset);
        }
        self.distances_ms.remove(reader);
        self.checkpoints.remove(reader, &left);
        // One by one: to append would go through all that are unassigned, each time.
        self.unassigned.extend(left);
    }

    fn report_checkpoint(&mut self, checkpoint: &str, reader: &str, offsets: &Offsets) -> Result<(), Contradiction> {
        self.checkpoints.accepts(checkpoint, reader)?;
        if !super::is_silent(checkpoint) {
            let held = self.assigned.get_mut(reader);
            let held = held.ok_or_else(|| Contradiction::Offline { reader: reader.to_owned() })?;
            for (segment, stored) in held {
                *stored = offsets.get(segment).copied().unwrap_or(*stored);
            }
        }
        self.checkpoints.report(checkpoint, reader, offsets);
        Ok(())
    }

    /// What follows from a segment's end: its successors are known, and whoever waited for the last time may be read.
    fn follow(&mut self, completed: i64, successors: &BTreeMap<StreamSegment, Vec<i64>>) {
        let mut may_be_ready = BTreeSet::new();
        for (successor, ids) in successors {
            if self.future.contains_key(successor) {
                continue;
            }
            let ids: BTreeSet<i64> = ids.iter().copied().collect();
            for id in &ids {
                self.waiting.entry(Some(*id)).or_default().insert(successor.clone());
            }
            if ids.is_empty() {
                may_be_ready.insert(successor.clone());
            }
            self.future.insert(successor.clone(), ids);
        }
        for id in [Some(completed), None] {
            may_be_ready.append(&mut self.waiting.remove(&id).unwrap_or_default());
        }
        for segment in may_be_ready {
            let Some(ids) = self.future.get_mut(&segment) else { continue };
            ids.remove(&completed);
            if ids.is_empty() {
                self.future.remove(&segment);
                self.last_read.entry(segment.clone()).or_insert(0);
                self.unassigned.insert(segment, 0);
            }
        }
    }

    /// How the group is to read.
    pub fn configuration(&self) -> &GroupConfiguration {
        &self.configuration
    }

    /// The configuration is being replaced: readers ask the controller for it.
    pub fn is_reconfiguring(&self) -> bool {
        self.reconfiguring
    }

    /// A reader was added and not removed.
    pub fn is_online(&self, reader: &str) -> bool {
        self.assigned.contains_key(reader)
    }

    /// All readers and what each of them has. Offsets are those of when it took a segment, or of the last checkpoint at which
    /// it stopped.
    pub fn assigned(&self) -> &BTreeMap<String, Offsets> {
        &self.assigned
    }

    /// What waits for a reader, and from where it is to be read.
    pub fn unassigned(&self) -> &Offsets {
        &self.unassigned
    }

    /// What may not be read yet, each with the ids of those that it waits for.
    pub fn future(&self) -> &BTreeMap<StreamSegment, BTreeSet<i64>> {
        &self.future
    }

    /// Segments of a stream that are read, or wait for a reader or for others.
    pub fn unread(&self, stream: &ScopedStream) -> impl Iterator<Item = &StreamSegment> {
        let assigned = self.assigned.values().flat_map(BTreeMap::keys);
        let all = self.unassigned.keys().chain(assigned).chain(self.future.keys());
        all.filter(move |segment| segment.stream == *stream)
    }

    /// How far readers said they were. What a new reader of a segment has read again meanwhile is in it.
    pub fn last_read(&self) -> &Offsets {
        &self.last_read
    }

    /// How far each reader said it was behind, in milliseconds; `i64::MAX` for one that has not said.
    pub fn distances_ms(&self) -> &BTreeMap<String, i64> {
        &self.distances_ms
    }

    /// Keys of a segment, if the group knows them.
    pub fn range(&self, segment: &StreamSegment) -> Option<KeyRange> {
        self.ranges.get(segment).copied()
    }

    /// Where reading ends in a segment, if it does: `Some(i64::MAX)` for its own end, behind which nothing follows.
    pub fn end(&self, segment: &StreamSegment) -> Option<i64> {
        self.ends.get(segment).copied()
    }

    /// Segments of a stream in which reading ends.
    pub fn ending(&self, stream: &ScopedStream) -> impl Iterator<Item = &StreamSegment> {
        self.ends.keys().filter(move |segment| segment.stream == *stream)
    }

    /// There is nothing to read and nothing will come.
    pub fn is_at_end(&self) -> bool {
        self.future.is_empty() && self.unassigned.is_empty() && self.assigned.values().all(BTreeMap::is_empty)
    }

    /// The oldest checkpoint that a reader has to report to.
    pub fn checkpoint_due(&self, reader: &str) -> Option<&str> {
        self.checkpoints.due(reader)
    }

    /// Some checkpoint waits for somebody.
    pub fn is_any_checkpoint_under_way(&self) -> bool {
        self.checkpoints.is_any_under_way()
    }

    /// A checkpoint waits for nobody, or is not there.
    pub fn is_checkpoint_complete(&self, checkpoint: &str) -> bool {
        self.checkpoints.is_complete(checkpoint)
    }

    /// What was reported to a checkpoint that is complete. While two segments are followed by one, and one of the two is
    /// complete, its keys are in none of the segments here: what follows cannot be read before the other is. A group can
    /// [begin](super::decide::awaited) there.
    pub fn checkpoint(&self, checkpoint: &str) -> Option<&Offsets> {
        self.checkpoints.reported(checkpoint)
    }

    /// What was reported to the last complete checkpoint that was not silent.
    pub fn last_checkpoint(&self) -> Option<&Offsets> {
        self.checkpoints.last()
    }

    /// The controller has been told of that one, or there is none.
    pub fn is_last_checkpoint_published(&self) -> bool {
        self.checkpoints.record().published
    }

    /// Checkpoints that are not silent and wait for somebody, by name.
    pub fn outstanding_checkpoints(&self) -> impl Iterator<Item = &String> {
        self.checkpoints.outstanding()
    }

    /// Whom each checkpoint waits for, silent ones as well.
    pub fn missing_reports(&self) -> &BTreeMap<String, Vec<String>> {
        self.checkpoints.missing()
    }

    /// Where the group is in each segment that is read or waits for a reader.
    pub fn offsets(&self) -> Offsets {
        let assigned = self.assigned.values().flatten();
        self.unassigned.iter().chain(assigned).map(|(segment, offset)| (segment.clone(), *offset)).collect()
    }

    /// Streams that are read.
    pub fn streams(&self) -> BTreeSet<ScopedStream> {
        self.offsets().into_keys().map(|segment| segment.stream).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::segment;

    fn of(segments: &[&str]) -> State {
        let placed = Placed { offset: 0, range: None };
        let starting = segments.iter().map(|name| (segment(name), placed)).collect();
        State::from(Initial::Fresh(Fresh { starting, ..Fresh::default() }))
    }

    fn add(reader: &str) -> Update {
        Update::AddReader { reader: reader.to_owned() }
    }

    fn acquire(reader: &str, name: &str) -> Update {
        Update::Acquire { reader: reader.to_owned(), segment: segment(name) }
    }

    fn complete(reader: &str, name: &str, successors: &[(&str, &[i64])]) -> Update {
        let successors = successors.iter().map(|(name, ids)| (segment(name), ids.to_vec())).collect();
        Update::Complete { reader: reader.to_owned(), segment: segment(name), successors, ranges: [].into() }
    }

    fn report(checkpoint: &str, reader: &str, offsets: &[(&str, i64)]) -> Update {
        let offsets = offsets.iter().map(|(name, offset)| (segment(name), *offset)).collect();
        Update::ReportCheckpoint { checkpoint: checkpoint.to_owned(), reader: reader.to_owned(), offsets }
    }

    fn create(checkpoint: &str) -> Update {
        Update::CreateCheckpoint { checkpoint: checkpoint.to_owned() }
    }

    #[track_caller]
    fn applied(state: &mut State, updates: &[Update]) {
        for update in updates {
            state.apply(update).unwrap();
            assert_eq!(State::from(Initial::Compacted(Box::new(state.compacted()))), *state, "after {update:?}");
        }
    }

    #[test]
    fn a_change_that_contradicts_the_state_changes_nothing() {
        let mut state = of(&["s/t/0.#epoch.0", "s/t/1.#epoch.0"]);
        applied(&mut state, &[add("a"), acquire("a", "s/t/0.#epoch.0"), add("b"), create("c")]);
        applied(&mut state, &[report("c", "a", &[])]);
        for (update, expected) in [
            (add("a"), "reader a is online already"),
            (acquire("x", "s/t/1.#epoch.0"), "reader x is not online"),
            (acquire("b", "s/t/0.#epoch.0"), "segment s/t/0.#epoch.0 is not unassigned"),
            (complete("b", "s/t/0.#epoch.0", &[]), "segment s/t/0.#epoch.0 is not assigned to reader b"),
            (complete("x", "s/t/0.#epoch.0", &[]), "reader x is not online"),
            (report("c", "a", &[]), "checkpoint c does not wait for reader a"),
            (report("gone", "x", &[]), "reader x is not online"),
        ] {
            let before = state.clone();
            assert_eq!(state.apply(&update).unwrap_err().to_string(), expected);
            assert_eq!(state, before);
        }
    }

    #[test]
    fn a_segment_waits_for_all_that_come_before_it() {
        let mut state = of(&["s/t/0.#epoch.0", "s/t/1.#epoch.0"]);
        applied(&mut state, &[add("a"), acquire("a", "s/t/0.#epoch.0"), acquire("a", "s/t/1.#epoch.0")]);
        let next: &[(&str, &[i64])] = &[("s/t/2.#epoch.1", &[0, 1])];
        applied(&mut state, &[complete("a", "s/t/0.#epoch.0", next)]);
        assert_eq!(state.future()[&segment("s/t/2.#epoch.1")], [1].into());
        assert!(!state.is_at_end() && state.unassigned().is_empty());
        applied(&mut state, &[complete("a", "s/t/1.#epoch.0", next)]);
        assert_eq!(state.unassigned(), &[(segment("s/t/2.#epoch.1"), 0)].into());
        applied(&mut state, &[acquire("a", "s/t/2.#epoch.1"), complete("a", "s/t/2.#epoch.1", &[])]);
        assert!(state.is_at_end());
    }

    #[test]
    fn ids_are_struck_in_all_streams_as_java_does() {
        let mut state = of(&["s/t/0.#epoch.0", "s/t/1.#epoch.0", "s/u/1.#epoch.0"]);
        let all = ["s/t/0.#epoch.0", "s/t/1.#epoch.0", "s/u/1.#epoch.0"];
        applied(&mut state, &[add("a")]);
        applied(&mut state, &all.map(|name| acquire("a", name)));
        applied(&mut state, &[complete("a", "s/t/0.#epoch.0", &[("s/t/2.#epoch.1", &[0, 1])])]);
        applied(&mut state, &[complete("a", "s/u/1.#epoch.0", &[])]);
        assert!(state.unassigned().contains_key(&segment("s/t/2.#epoch.1")), "its other predecessor is still read");
    }

    #[test]
    fn a_reader_that_is_gone_has_reported_to_all_it_owed() {
        let mut state = of(&["s/t/0.#epoch.0", "s/t/1.#epoch.0"]);
        let (a, b) = ("s/t/0.#epoch.0", "s/t/1.#epoch.0");
        applied(&mut state, &[add("a"), add("b"), acquire("a", a), acquire("b", b), create("c")]);
        assert_eq!(state.checkpoint_due("a"), Some("c"));
        applied(&mut state, &[report("c", "a", &[(a, 7)])]);
        assert_eq!((state.checkpoint_due("a"), state.is_checkpoint_complete("c")), (None, false));
        let offsets = [(segment(b), 9)].into();
        applied(&mut state, &[Update::RemoveReader { reader: "b".to_owned(), offsets }]);
        let both = [(segment(a), 7), (segment(b), 9)].into();
        assert_eq!(state.checkpoint("c"), Some(&both));
        assert_eq!(state.last_checkpoint(), Some(&both));
        assert!(!state.is_last_checkpoint_published());
        applied(&mut state, &[Update::RemoveReader { reader: "a".to_owned(), offsets: [].into() }]);
        assert_eq!(state.unassigned(), &both, "a checkpoint moves what is assigned");
    }

    #[test]
    fn a_silent_checkpoint_touches_nothing() {
        let mut state = of(&["s/t/0.#epoch.0"]);
        let name = &super::super::silent_checkpoint("x");
        applied(&mut state, &[add("a"), acquire("a", "s/t/0.#epoch.0"), create(name)]);
        assert_eq!(state.outstanding_checkpoints().count(), 0);
        applied(&mut state, &[report(name, "a", &[("s/t/0.#epoch.0", 7)])]);
        assert_eq!(state.checkpoint(name), Some(&[(segment("s/t/0.#epoch.0"), 7)].into()));
        assert_eq!(state.assigned()["a"], [(segment("s/t/0.#epoch.0"), 0)].into());
        assert_eq!((state.last_checkpoint(), state.is_last_checkpoint_published()), (None, true));
    }

    #[test]
    fn checkpoints_are_cleared_in_order_and_cancelled_together() {
        let mut state = of(&["s/t/0.#epoch.0"]);
        applied(&mut state, &[add("a"), create("1"), create("2"), create("3"), create("2")]);
        assert_eq!(state.checkpoint_due("a"), Some("1"));
        applied(&mut state, &[Update::ClearCheckpoints { before: "2".to_owned() }]);
        assert_eq!(state.checkpoint_due("a"), Some("2"));
        applied(&mut state, &[Update::ClearCheckpoints { before: "1".to_owned() }]);
        assert_eq!(state.outstanding_checkpoints().collect::<Vec<_>>(), ["2", "3"]);
        applied(&mut state, &[Update::CancelCheckpoints]);
        assert_eq!((state.checkpoint_due("a"), state.is_any_checkpoint_under_way()), (None, false));
        applied(&mut state, &[create("2")]);
        assert_eq!(state.checkpoint_due("a"), Some("2"));
        applied(&mut state, &[report("2", "a", &[])]);
        assert_eq!(state.checkpoint("2"), Some(&[(segment("s/t/0.#epoch.0"), 0)].into()));
    }
}
