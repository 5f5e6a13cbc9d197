//! Where the readers of a group stand, as far as they have written it down.
//!
//! Only what tells positions is followed. Checkpoints are left out, but for the positions that readers report to them:
//! a client could make the server copy all positions with a few bytes, and as often as it likes. Updates that
//! contradict the state change nothing, as clients never write such.
//!
//! Whoever wrote the bytes decides what becomes of them. So all memory, that of the answer included, is taken from an
//! allowance first.

use std::collections::BTreeMap;

use headwater_records::group::{CheckpointsRecord, Compacted, Initial, State, Update};
use headwater_records::revisioned::{Events, Payload};
use headwater_records::{Allowance, Exceeded, Offsets, RecordError};
use headwater_types::{KeyRange, ScopedStream, SegmentId, StreamSegment};

use crate::model::{GroupReaders, SegmentReading, StreamReading};

/// What the readers of a group have agreed on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReadersState {
    group: State,
    /// What each segment's present reader has said. Further than assigned offsets, which are those of an acquisition or
    /// a checkpoint.
    read: Offsets,
}

/// The segment does not hold a group's state.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum NoGroup {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("it begins with changes of a state that is not there")]
    Stateless,
    #[error("it ends within an event")]
    Half,
    #[error(transparent)]
    TooLarge(#[from] Exceeded),
}

/// Most that an update adds beside what its texts and collections take: an entry in each of two maps.
const UPDATE_BYTES: usize = 1 << 10;
/// What a segment takes that waits for another, in both directions.
pub(crate) const WAITING_BYTES: usize =
    12 * size_of::<StreamSegment>() + 3 * size_of::<(Option<i64>, Vec<StreamSegment>)>();
/// What a segment takes among those that are told, also as text, beside the names of its stream and its reader.
const READING_BYTES: usize = 512;
/// A character of a name is told in up to six bytes, and the name is kept once besides.
const NAME_COPIES: usize = 8;

/// Reads the events of a group's segment in pieces of any size, the first of which holds a whole state.
#[derive(Debug)]
pub(crate) struct StateReader<'a> {
    events: Events,
    state: Option<ReadersState>,
    /// What everything but the bytes that were fed is taken from.
    allowance: &'a Allowance,
}

/// As much as the server takes in one append.
const EVENT_BYTES_MAX: usize = headwater_types::limits::SERVER_FRAME_BYTES_MAX;

impl<'a> StateReader<'a> {
    pub(crate) fn new(allowance: &'a Allowance) -> Self {
        Self { events: Events::new(0, EVENT_BYTES_MAX), state: None, allowance }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), NoGroup> {
        self.events.feed(bytes);
        while let Some((_, payload)) = self.events.next_event()? {
            match Payload::decode_within(&payload, self.allowance)? {
                Payload::Initial(initial) => {
                    // The one before goes first.
                    self.state = None;
                    let initial = Initial::decode_within(&initial, self.allowance)?;
                    self.allowance.take(whole_bytes(&initial))?;
                    self.state = Some(initial.into());
                }
                Payload::Updates(updates) => {
                    let state = self.state.as_mut().ok_or(NoGroup::Stateless)?;
                    for update in updates {
                        let update = Update::decode_within(&update, self.allowance)?;
                        self.allowance.take(update_bytes(&update))?;
                        state.apply(update);
                    }
                }
            }
        }
        Ok(())
    }

    /// The state, if there was one.
    pub(crate) fn finish(self) -> Result<Option<ReadersState>, NoGroup> {
        if self.events.is_at_boundary() { Ok(self.state) } else { Err(NoGroup::Half) }
    }
}

/// What a state takes beside the record that it is made of: who waits for whom, and known ranges.
fn whole_bytes(initial: &Initial) -> usize {
    let (waiting, ranges) = match initial {
        Initial::Fresh(fresh) => (0, 2 * fresh.starting.len()),
        Initial::Compacted(compacted) => {
            (compacted.future.values().map(|ids| 1 + ids.len()).sum(), compacted.ranges.len())
        }
    };
    waiting * WAITING_BYTES + ranges * 3 * size_of::<(StreamSegment, KeyRange)>()
}

/// What a change takes beside what was decoded of it.
fn update_bytes(update: &Update) -> usize {
    UPDATE_BYTES
        + match update {
            Update::Replace(initial) => whole_bytes(initial),
            Update::AddReader { reader } | Update::Report { reader, .. } => 2 * reader.len(),
            Update::Complete { successors, ranges, .. } => {
                successors.values().map(|ids| 1 + ids.len()).sum::<usize>() * WAITING_BYTES
                    + ranges.len() * 3 * size_of::<(StreamSegment, KeyRange)>()
            }
            _ => 0,
        }
}

impl From<Initial> for ReadersState {
    fn from(initial: Initial) -> Self {
        match initial {
            Initial::Fresh(_) => Self { group: initial.into(), read: Offsets::new() },
            Initial::Compacted(compacted) => (*compacted).into(),
        }
    }
}

impl From<Compacted> for ReadersState {
    fn from(mut compacted: Compacted) -> Self {
        compacted.checkpoints = CheckpointsRecord::default();
        let read = std::mem::take(&mut compacted.last_read);
        Self { group: Initial::Compacted(Box::new(compacted)).into(), read }
    }
}

impl ReadersState {
    fn apply(&mut self, update: Update) {
        match update {
            Update::Replace(initial) => *self = (*initial).into(),
            Update::CreateCheckpoint { .. } => {}
            Update::Report { last_read, .. } => {
                let said = last_read.unwrap_or_default().into_iter();
                self.read.extend(said.map(|(segment, placed)| (segment, placed.offset)));
            }
            other => {
                let applied = self.group.apply(&other).is_ok();
                if let Update::Acquire { segment, .. } | Update::Complete { segment, .. } = other
                    && applied
                {
                    self.read.remove(&segment);
                }
            }
        }
    }

    /// Where the group stands; what is unread is not known here. The allowance is for what it takes to tell it, as
    /// well.
    pub(crate) fn readers(&self, allowance: &Allowance) -> Result<GroupReaders, Exceeded> {
        let held = self.group.assigned().values().flat_map(Offsets::keys);
        for StreamSegment { stream, .. } in self.group.unassigned().keys().chain(self.group.future().keys()).chain(held)
        {
            allowance.take(READING_BYTES + (stream.scope.as_str().len() + stream.stream.as_str().len()) * 2)?;
        }
        for (reader, held) in self.group.assigned() {
            allowance.take(reader.len().saturating_mul(NAME_COPIES).saturating_mul(1 + held.len()))?;
        }
        let mut streams: BTreeMap<ScopedStream, StreamReading> = BTreeMap::new();
        let empty = |stream: &ScopedStream| StreamReading {
            stream: stream.clone(),
            segments: Vec::new(),
            later: Vec::new(),
            unread_bytes: None,
        };
        let unassigned = self.group.unassigned().iter();
        let mut found: Vec<(&StreamSegment, Option<&String>, i64)> =
            unassigned.map(|(segment, offset)| (segment, None, *offset)).collect();
        for (reader, held) in self.group.assigned() {
            let last = |segment: &StreamSegment| self.read.get(segment).copied().unwrap_or(0);
            found.extend(held.iter().map(|(segment, offset)| (segment, Some(reader), last(segment).max(*offset))));
        }
        found.sort();
        for (StreamSegment { stream, id }, reader, offset) in found {
            let reading = SegmentReading { id: *id, reader: reader.cloned(), offset, unread_bytes: None };
            streams.entry(stream.clone()).or_insert_with(|| empty(stream)).segments.push(reading);
        }
        for StreamSegment { stream, id } in self.group.future().keys() {
            streams.entry(stream.clone()).or_insert_with(|| empty(stream)).later.push(*id);
        }
        let online = self.group.assigned().keys().cloned().collect();
        Ok(GroupReaders { online, streams: streams.into_values().collect() })
    }

    /// Where the group is to stop in a segment, if it is.
    pub(crate) fn end(&self, stream: &ScopedStream, id: SegmentId) -> Option<i64> {
        self.group.end(&StreamSegment { stream: stream.clone(), id }).filter(|end| *end < i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_records::group::{Fresh, Placed};
    use headwater_records::revisioned;
    use headwater_types::SegmentName;

    fn segment(name: &str) -> StreamSegment {
        SegmentName::parse(name).unwrap().stream_segment().unwrap()
    }

    /// An event with a whole state of one segment, unassigned at 5.
    fn initial() -> Vec<u8> {
        let placed = Placed { offset: 5, range: None };
        let fresh = Fresh { starting: [(segment("s/t/0.#epoch.0"), placed)].into(), ..Fresh::default() };
        let payload = Payload::Initial(Initial::Fresh(fresh).encode().unwrap());
        revisioned::event(&payload.encode().unwrap()).unwrap().to_vec()
    }

    fn changed(updates: &[Update]) -> Vec<u8> {
        let payload = Payload::Updates(updates.iter().map(|update| update.encode().unwrap()).collect());
        revisioned::event(&payload.encode().unwrap()).unwrap().to_vec()
    }

    fn read(events: &[u8]) -> Result<Option<ReadersState>, NoGroup> {
        read_within(events, &plenty())
    }

    fn read_within(events: &[u8], allowance: &Allowance) -> Result<Option<ReadersState>, NoGroup> {
        let mut reader = StateReader::new(allowance);
        reader.feed(events)?;
        reader.finish()
    }

    fn plenty() -> Allowance {
        Allowance::new(1 << 20)
    }

    /// A whole state in which each reader has that many segments.
    fn assigned(readers: &[&str], segments: i32) -> Vec<u8> {
        let held =
            |_| -> Offsets { (0..segments).map(|number| (segment(&format!("s/t/{number}.#epoch.0")), 0)).collect() };
        let assigned = readers.iter().map(|reader| ((*reader).to_owned(), held(()))).collect();
        let compacted = Compacted { assigned, ..Compacted::default() };
        let payload = Payload::Initial(Initial::Compacted(Box::new(compacted)).encode().unwrap());
        revisioned::event(&payload.encode().unwrap()).unwrap().to_vec()
    }

    fn added() -> Update {
        Update::AddReader { reader: "reader-1".to_owned() }
    }

    fn acquired() -> Update {
        Update::Acquire { reader: "reader-1".to_owned(), segment: segment("s/t/0.#epoch.0") }
    }

    fn reported(offset: i64) -> Update {
        let last_read = Some([(segment("s/t/0.#epoch.0"), Placed { offset, range: None })].into());
        Update::Report { reader: "reader-1".to_owned(), distance_ms: 0, last_read }
    }

    #[test]
    fn a_reader_is_online_from_when_a_client_added_it() {
        let readers = read(&[initial(), changed(&[added()])].concat()).unwrap().unwrap().readers(&plenty()).unwrap();
        assert_eq!(readers.online, ["reader-1"]);
        let reading = &readers.streams[0];
        assert_eq!(reading.stream.to_string(), "s/t");
        assert_eq!((reading.segments[0].offset, &reading.segments[0].reader), (5, &None));
    }

    #[test]
    fn what_a_reader_says_counts_until_another_takes_its_segment() {
        let offset = |events: &[Vec<u8>]| {
            read(&events.concat()).unwrap().unwrap().readers(&plenty()).unwrap().streams[0].segments[0].offset
        };
        let taken = changed(&[added(), acquired(), reported(50)]);
        assert_eq!(offset(&[initial(), taken.clone()]), 50);
        let offline = Update::RemoveReader { reader: "reader-1".to_owned(), offsets: [].into() };
        let again = changed(&[offline, added(), acquired()]);
        assert_eq!(offset(&[initial(), taken, again]), 5);
    }

    #[test]
    fn a_group_that_is_reset_begins_anew() {
        let fresh = Fresh {
            starting: [(segment("s/t/7.#epoch.1"), Placed { offset: 70, range: None })].into(),
            ..Fresh::default()
        };
        let reset = Update::Replace(Box::new(Initial::Fresh(fresh)));
        let events = [initial(), changed(&[added(), acquired(), reported(50)]), changed(&[reset])].concat();
        let readers = read(&events).unwrap().unwrap().readers(&plenty()).unwrap();
        assert!(readers.online.is_empty());
        let found: Vec<_> = readers.streams[0].segments.iter().map(|one| (one.id.number, one.offset)).collect();
        assert_eq!(found, [(7, 70)]);
    }

    #[test]
    fn checkpoints_cost_no_memory() {
        let create = |n: usize| Update::CreateCheckpoint { checkpoint: n.to_string() };
        let events = [initial(), changed(&(0..100).map(create).collect::<Vec<_>>())].concat();
        let state = read(&events).unwrap().unwrap();
        assert!(!state.group.is_any_checkpoint_under_way() && state.group.checkpoint("7").is_none());
    }

    #[test]
    fn changes_without_a_state_are_nobodys_and_no_events_are_no_state() {
        assert_eq!(read(&changed(&[added()])), Err(NoGroup::Stateless));
        assert_eq!(read(&[]), Ok(None));
    }

    #[test]
    fn a_group_of_ten_thousand_segments_is_told_in_some_mebibytes() {
        let events = assigned(&["reader-1", "reader-2"], 5000);
        let allowance = Allowance::new(16 << 20);
        let readers = read_within(&events, &allowance).unwrap().unwrap().readers(&allowance).unwrap();
        assert_eq!(readers.streams[0].segments.len(), 10_000);
    }

    #[test]
    fn a_state_that_becomes_much_larger_than_its_bytes_is_left_for_want_of_memory() {
        // A name of 60 KiB, to be told with each of a thousand segments.
        let name = "n".repeat(60_000);
        let allowance = Allowance::new(16 << 20);
        let state = read_within(&assigned(&[&name], 1000), &allowance).unwrap().unwrap();
        assert_eq!(state.readers(&allowance), Err(Exceeded));
        // Readers of few letters, each with a map of its own.
        let names: Vec<String> = (0..40_000).map(|number| format!("{number:x}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let events = assigned(&names, 0);
        let allowance = Allowance::new(8 * events.len());
        assert_eq!(read_within(&events, &allowance), Err(NoGroup::Record(RecordError::Memory)));
        // Many segments that each wait for the same few.
        let waits = (0..20_000).map(|number| (segment(&format!("s/t/{number}.#epoch.1")), [7, 8].into())).collect();
        let compacted = Compacted { future: waits, ..Compacted::default() };
        let payload = Payload::Initial(Initial::Compacted(Box::new(compacted)).encode().unwrap());
        let events = revisioned::event(&payload.encode().unwrap()).unwrap();
        let allowance = Allowance::new(32 << 20);
        assert_eq!(read_within(&events, &allowance), Err(NoGroup::TooLarge(Exceeded)));
        // Many changes, each of which is small.
        let changes =
            changed(&(0..5000).map(|number| Update::AddReader { reader: number.to_string() }).collect::<Vec<_>>());
        let allowance = Allowance::new(4 << 20);
        assert_eq!(read_within(&[initial(), changes].concat(), &allowance), Err(NoGroup::TooLarge(Exceeded)));
    }

    #[test]
    fn no_bytes_make_reading_panic() {
        let good = [initial(), changed(&[added()])].concat();
        for cut in 1..good.len() {
            let cut_at_event = cut == initial().len();
            assert_eq!(read(&good[..cut]).is_ok(), cut_at_event, "{cut}");
        }
        for at in 0..good.len() {
            for flip in [0x01, 0x40, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                let _ = read(&bad);
            }
        }
    }
}
