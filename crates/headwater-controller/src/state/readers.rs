//! Where the readers of a group stand, as far as they have written it down.
//!
//! Only what tells positions is followed. Checkpoints are left out, but for the positions that readers report to them: a
//! client could make the server copy all positions with a few bytes, and as often as it likes. Updates that contradict the
//! state change nothing, as clients never write such.

use std::collections::BTreeMap;

use headwater_records::group::{CheckpointsRecord, Compacted, Initial, State, Update};
use headwater_records::revisioned::{Events, Payload};
use headwater_records::{Offsets, RecordError};
use headwater_types::{ScopedStream, SegmentId, StreamSegment};

use crate::model::{GroupReaders, SegmentReading, StreamReading};

/// What the readers of a group have agreed on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReadersState {
    group: State,
    /// What each segment's present reader has said. Further than assigned offsets, which are those of an acquisition or a
    /// checkpoint.
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
}

/// Reads the events of a group's segment in pieces of any size, the first of which holds a whole state.
#[derive(Debug)]
pub(crate) struct StateReader {
    events: Events,
    state: Option<ReadersState>,
}

impl Default for StateReader {
    fn default() -> Self {
        Self { events: Events::new(0, EVENT_BYTES_MAX), state: None }
    }
}

/// As much as the server takes in one append.
const EVENT_BYTES_MAX: usize = headwater_types::limits::SERVER_FRAME_BYTES_MAX;

impl StateReader {
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), NoGroup> {
        self.events.feed(bytes);
        while let Some((_, payload)) = self.events.next_event()? {
            match Payload::decode(&payload)? {
                Payload::Initial(initial) => self.state = Some(Initial::decode(&initial)?.into()),
                Payload::Updates(updates) => {
                    let state = self.state.as_mut().ok_or(NoGroup::Stateless)?;
                    for update in updates {
                        state.apply(Update::decode(&update)?);
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

    /// Where the group stands; what is unread is not known here.
    pub(crate) fn readers(&self) -> GroupReaders {
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
        GroupReaders { online, streams: streams.into_values().collect() }
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
        let mut reader = StateReader::default();
        reader.feed(events)?;
        reader.finish()
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
        let readers = read(&[initial(), changed(&[added()])].concat()).unwrap().unwrap().readers();
        assert_eq!(readers.online, ["reader-1"]);
        let reading = &readers.streams[0];
        assert_eq!(reading.stream.to_string(), "s/t");
        assert_eq!((reading.segments[0].offset, &reading.segments[0].reader), (5, &None));
    }

    #[test]
    fn what_a_reader_says_counts_until_another_takes_its_segment() {
        let offset =
            |events: &[Vec<u8>]| read(&events.concat()).unwrap().unwrap().readers().streams[0].segments[0].offset;
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
        let readers = read(&events).unwrap().unwrap().readers();
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
