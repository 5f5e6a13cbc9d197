//! Somebody who sees everything that readers write and read, and knows what must never be.

use std::collections::{BTreeMap, BTreeSet};

use headwater_records::Offsets;
use headwater_records::group::{Initial, State, Update};
use headwater_types::StreamSegment;

use super::world::{Event, Stream};

/// The state as it is at the end of the log, and what was read.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) state: State,
    /// What the group has read to the end, and what it never was to read.
    done: BTreeSet<StreamSegment>,
    /// The latter.
    skipped: BTreeSet<StreamSegment>,
    starting: BTreeSet<StreamSegment>,
    /// What was read or waited for a reader when a checkpoint began.
    began: BTreeMap<String, BTreeSet<StreamSegment>>,
    /// Of each key, how many events were read at least once.
    read: Vec<u64>,
    /// Events that were read again.
    pub(super) again: u64,
    pub(super) checkpoints: u64,
}

impl Watcher {
    pub(super) fn new(initial: Initial, stream: &Stream) -> Self {
        let mut watcher = Self {
            state: initial.into(),
            done: BTreeSet::new(),
            skipped: BTreeSet::new(),
            starting: BTreeSet::new(),
            began: BTreeMap::new(),
            read: vec![0; stream.written.len()],
            again: 0,
            checkpoints: 0,
        };
        watcher.begin(stream);
        watcher
    }

    fn begin(&mut self, stream: &Stream) {
        self.starting = self.state.unassigned().keys().cloned().collect();
        let coming = stream.from(self.starting.iter());
        self.skipped = stream.all().filter(|segment| !coming.contains(segment)).cloned().collect();
        self.done = self.skipped.clone();
        self.began.clear();
    }

    /// A change was appended.
    pub(super) fn applied(&mut self, update: &Update, stream: &Stream) -> Result<(), String> {
        self.state.apply(update).map_err(|error| format!("{update:?}: {error}"))?;
        match update {
            Update::Replace(initial) if matches!(**initial, Initial::Fresh(_)) => self.begin(stream),
            Update::Complete { segment, .. } => {
                self.done.insert(segment.clone());
            }
            Update::CreateCheckpoint { checkpoint } => {
                self.began.insert(checkpoint.clone(), self.state.offsets().into_keys().collect());
            }
            _ => {}
        }
        self.check_places(stream)?;
        self.check_checkpoints()
    }

    /// A whole state was appended in place of all before.
    pub(super) fn compacted(&self, initial: &Initial) -> Result<(), String> {
        if State::from(initial.clone()) == self.state { Ok(()) } else { Err("a compacted state is another".to_owned()) }
    }

    /// Every segment is at one place, none is lost, and none may be read before what it follows.
    fn check_places(&self, stream: &Stream) -> Result<(), String> {
        let state = &self.state;
        let mut places: BTreeMap<&StreamSegment, u32> = BTreeMap::new();
        let assigned = state.assigned().values().flat_map(BTreeMap::keys);
        for segment in state.unassigned().keys().chain(assigned).chain(state.future().keys()) {
            *places.entry(segment).or_default() += 1;
        }
        if let Some((segment, count)) = places.iter().find(|(_, count)| **count > 1) {
            return Err(format!("{segment} is at {count} places"));
        }
        let known = |segment: &StreamSegment| self.done.contains(segment) != places.contains_key(segment);
        if let Some(lost) = self.starting.iter().find(|segment| !known(segment)) {
            return Err(format!("{lost}, with which the group began, is lost or there although it is done"));
        }
        for segment in stream.all() {
            let before = stream.predecessors(segment);
            // Who begins where only some of them were read does not know of it before it has read another.
            let any = before.iter().any(|one| self.done.contains(one) && !self.skipped.contains(one));
            let all = before.iter().all(|one| self.done.contains(one));
            let is_future = state.future().contains_key(segment);
            if self.done.contains(segment) || self.starting.contains(segment) {
                continue;
            }
            let expected = if all && !before.is_empty() { Some(false) } else { any.then_some(true) };
            let found = places.contains_key(segment).then_some(is_future);
            if expected != found {
                return Err(format!("{segment} waits: {found:?}, should: {expected:?}"));
            }
        }
        Ok(())
    }

    /// What was reported to a complete checkpoint has an offset for all that was read when it began.
    fn check_checkpoints(&mut self) -> Result<(), String> {
        let complete = |name: &&String| self.state.is_checkpoint_complete(name);
        let names: Vec<String> = self.began.keys().filter(complete).cloned().collect();
        for name in names {
            let began = self.began.remove(&name).unwrap_or_default();
            let Some(reported) = self.state.checkpoint(&name) else { continue };
            self.checkpoints += 1;
            if let Some(missing) = began.iter().find(|segment| !reported.contains_key(segment)) {
                return Err(format!("checkpoint {name} has no offset for {missing}"));
            }
        }
        Ok(())
    }

    /// An event was read. None before it may be missing, and none may come twice unless `again` is allowed.
    pub(super) fn read(&mut self, event: Event, again: bool) -> Result<(), String> {
        let next = &mut self.read[event.key];
        if event.number > *next {
            return Err(format!("{event:?} was read before number {next} of its key"));
        }
        if event.number < *next {
            self.again += 1;
            return if again { Ok(()) } else { Err(format!("{event:?} was read again without need")) };
        }
        *next += 1;
        Ok(())
    }

    /// The group began anew at a place where this was read already.
    pub(super) fn skip_to(&mut self, read: &[u64]) {
        for (next, to) in self.read.iter_mut().zip(read) {
            *next = (*next).max(*to);
        }
    }

    /// Everything was read.
    pub(super) fn ended(&self, stream: &Stream) -> Result<(), String> {
        if self.read == stream.written { Ok(()) } else { Err(format!("read {:?} of {:?}", self.read, stream.written)) }
    }

    /// Whether these segments have all keys. Those of a checkpoint do not where only some are read of what a segment follows on.
    pub(super) fn are_whole(segments: &Offsets, stream: &Stream) -> bool {
        let ranges = segments.keys().map(|segment| stream.range(segment));
        let covered: f64 = ranges.map(|range| range.high() - range.low()).sum();
        (covered - 1.0).abs() < 1e-9
    }
}
