//! Where the readers of a Java client's group stand: the state that they keep in the group's own stream, made again from
//! what they wrote there.
//!
//! ```text
//!   future ──all it waits for is read──► unassigned ──acquire──► assigned to a reader ──completed──► gone
//!                                            ▲                          │
//!                                            └─── release, offline ─────┘
//! ```
//!
//! Only what tells positions is followed: checkpoints do so in so far as readers report positions to them. Updates that
//! contradict the state change nothing, as clients never write such. Source: the layout and rules of Pravega's
//! `ReaderGroupState` and its updates.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use headwater_types::{ScopedStream, SegmentId, SegmentName};

use super::java::{Foreign, Input, Taken};
use crate::model::{GroupReaders, SegmentReading, StreamReading};

/// A segment of one of the group's streams.
pub(crate) type Segment = (ScopedStream, SegmentId);
pub(crate) type Positions = BTreeMap<Segment, i64>;

/// Part of the name of a checkpoint that readers report to without stopping, so that what they hold stays.
const SILENT: &str = "_SILENT_";
/// Least bytes of a segment's name with a number behind it.
const ENTRY_BYTES: usize = 10;

/// State of a group.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct ReadersState {
    assigned: BTreeMap<String, Positions>,
    unassigned: Positions,
    /// What each waits for.
    future: BTreeMap<Segment, BTreeSet<i64>>,
    /// Who waits for each; `None` before somebody asks. A hostile state has many of both.
    waiting: Option<BTreeMap<i64, Vec<Segment>>>,
    /// Further than assigned offsets, which are those of an acquisition or a checkpoint.
    last_read: Positions,
    ends: Positions,
}

impl ReadersState {
    /// What a run of events says, the first of which holds a whole state; `None` if there is none.
    pub(crate) fn read(events: &[u8]) -> Taken<Option<Self>> {
        let mut input = Input(events);
        let mut state = None;
        while !input.is_empty() {
            if input.i32()? != 0 {
                return Err(Foreign);
            }
            let mut event = input.counted()?;
            match event.i32()? {
                1 => state = Some(Self::whole(&mut event)?),
                2 => {
                    let state = state.as_mut().ok_or(Foreign)?;
                    while !event.is_empty() {
                        state.update(&mut event.counted()?)?;
                    }
                }
                _ => return Err(Foreign),
            }
        }
        Ok(state)
    }

    fn whole(record: &mut Input<'_>) -> Taken<Self> {
        let kind = kind(record)?;
        let mut revisions = record.revisions()?.into_iter();
        let mut first = revisions.next().ok_or(Foreign)?;
        let _configuration = first.bytes()?;
        let mut state = Self::default();
        match kind {
            0 => {
                state.unassigned = positions(&mut first)?;
                state.ends = positions(&mut first)?;
                // The same segments again, with ranges that we have from the stream.
            }
            1 => {
                let _checkpoints = first.bytes()?;
                let _distances = first.map(ENTRY_BYTES, Input::text, Input::i64)?;
                let ids = |input: &mut Input<'_>| Ok(input.list(8, Input::i64)?.into_iter().collect());
                state.future = first.map(3, segment, ids)?;
                state.assigned = first.map(3, Input::text, positions)?;
                state.unassigned = positions(&mut first)?;
                state.ends = positions(&mut first)?;
                if let Some(mut second) = revisions.next() {
                    state.last_read = positions(&mut second)?;
                }
            }
            _ => return Err(Foreign),
        }
        Ok(state)
    }

    fn update(&mut self, record: &mut Input<'_>) -> Taken<()> {
        let kind = kind(record)?;
        let mut revisions = record.revisions()?.into_iter();
        let mut first = revisions.next().ok_or(Foreign)?;
        match kind {
            2 => {
                self.assigned.entry(first.text()?).or_default();
            }
            3 => {
                let (reader, given) = (first.text()?, positions(&mut first)?);
                for (segment, stored) in self.assigned.remove(&reader).into_iter().flatten() {
                    let offset = given.get(&segment).copied().unwrap_or(stored);
                    self.unassigned.insert(segment, offset);
                }
            }
            4 => {
                let (reader, segment, offset) = (first.text()?, segment(&mut first)?, first.i64()?);
                if self.assigned.get_mut(&reader).and_then(|held| held.remove(&segment)).is_some() {
                    self.unassigned.insert(segment, offset);
                }
            }
            5 => {
                let (reader, segment) = (first.text()?, segment(&mut first)?);
                if let Some(held) = self.assigned.get_mut(&reader)
                    && let Some(offset) = self.unassigned.remove(&segment)
                {
                    self.last_read.remove(&segment);
                    held.insert(segment, offset);
                }
            }
            6 => {
                if let Some(mut second) = revisions.next() {
                    self.last_read.extend(second.map(ENTRY_BYTES, ranged, Input::i64)?);
                }
            }
            7 => {
                let (reader, completed) = (first.text()?, segment(&mut first)?);
                let ids = |input: &mut Input<'_>| Ok(input.list(8, Input::i64)?.into_iter().collect());
                let successors: BTreeMap<Segment, BTreeSet<i64>> = first.map(3, segment, ids)?;
                if self.assigned.get_mut(&reader).is_some_and(|held| held.remove(&completed).is_some()) {
                    self.complete(&completed, successors);
                }
            }
            8 => {
                let (checkpoint, reader, reported) = (first.text()?, first.text()?, positions(&mut first)?);
                if !checkpoint.contains(SILENT)
                    && let Some(held) = self.assigned.get_mut(&reader)
                {
                    for (segment, offset) in reported {
                        held.entry(segment).and_modify(|stored| *stored = offset);
                    }
                }
            }
            9..=13 => {}
            _ => return Err(Foreign),
        }
        Ok(())
    }

    fn complete(&mut self, completed: &Segment, successors: BTreeMap<Segment, BTreeSet<i64>>) {
        self.last_read.remove(completed);
        let mut waiting = self.waiting.take().unwrap_or_else(|| {
            let mut waiting: BTreeMap<i64, Vec<Segment>> = BTreeMap::new();
            for (segment, id) in self.future.iter().flat_map(|(segment, ids)| ids.iter().map(move |id| (segment, id))) {
                waiting.entry(*id).or_default().push(segment.clone());
            }
            waiting
        });
        for (successor, waits_for) in successors {
            if let Entry::Vacant(entry) = self.future.entry(successor) {
                for id in &waits_for {
                    waiting.entry(*id).or_default().push(entry.key().clone());
                }
                entry.insert(waits_for);
            }
        }
        let id = completed.1.as_i64();
        for segment in waiting.remove(&id).unwrap_or_default() {
            let Entry::Occupied(mut entry) = self.future.entry(segment) else { continue };
            entry.get_mut().remove(&id);
            if entry.get().is_empty() {
                self.unassigned.insert(entry.remove_entry().0, 0);
            }
        }
        self.waiting = Some(waiting);
    }

    pub(crate) fn assign(&mut self, reader: &str, held: Positions) {
        self.assigned.insert(reader.to_owned(), held);
    }

    pub(crate) fn leave(&mut self, segment: Segment, offset: i64) {
        self.unassigned.insert(segment, offset);
    }

    pub(crate) fn wait(&mut self, segment: Segment, waits_for: BTreeSet<i64>) {
        self.future.insert(segment, waits_for);
        self.waiting = None;
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
        let mut found: Vec<(&Segment, Option<&String>, i64)> =
            self.unassigned.iter().map(|(segment, offset)| (segment, None, *offset)).collect();
        for (reader, held) in &self.assigned {
            let last = |segment: &Segment| self.last_read.get(segment).copied().unwrap_or(0);
            found.extend(held.iter().map(|(segment, offset)| (segment, Some(reader), last(segment).max(*offset))));
        }
        found.sort();
        for ((stream, id), reader, offset) in found {
            let reading = SegmentReading { id: *id, reader: reader.cloned(), offset, unread_bytes: None };
            streams.entry(stream.clone()).or_insert_with(|| empty(stream)).segments.push(reading);
        }
        for (stream, id) in self.future.keys() {
            streams.entry(stream.clone()).or_insert_with(|| empty(stream)).later.push(*id);
        }
        GroupReaders { online: self.assigned.keys().cloned().collect(), streams: streams.into_values().collect() }
    }

    /// Where the group is to stop in a segment, if it is.
    pub(crate) fn end(&self, stream: &ScopedStream, id: SegmentId) -> Option<i64> {
        self.ends.get(&(stream.clone(), id)).copied().filter(|end| *end < i64::MAX)
    }
}

/// The type of a record that may have several.
fn kind(record: &mut Input<'_>) -> Taken<u8> {
    match record.u8()? {
        0 => record.u8(),
        _ => Err(Foreign),
    }
}

fn segment(input: &mut Input<'_>) -> Taken<Segment> {
    let name = SegmentName::parse(&input.text()?).map_err(|_| Foreign)?;
    let segment = name.stream_segment().ok_or(Foreign)?;
    Ok((segment.stream, segment.id))
}

/// A segment with the range of its keys, which is not needed.
fn ranged(input: &mut Input<'_>) -> Taken<Segment> {
    let segment = segment(input)?;
    input.take(16)?;
    Ok(segment)
}

fn positions(input: &mut Input<'_>) -> Taken<Positions> {
    input.map(ENTRY_BYTES, segment, Input::i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a Java client writes it: reader `reader-1` is added.
    const ADDED: &str = "000000000000001b000000020000001300020001000000000a00087265616465722d31";

    fn unhex(text: &str) -> Vec<u8> {
        let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(byte).collect()
    }

    /// An event with a whole state of one segment, unassigned at 5.
    fn initial() -> Vec<u8> {
        let name = b"\0\x0es/t/0.#epoch.0";
        let body = [&[0, 1][..], name, &5_i64.to_be_bytes(), &[0]].concat();
        let record = [&[0, 0, 0, 1, 0][..], &(body.len() as i32).to_be_bytes(), &body].concat();
        let payload = [&1_i32.to_be_bytes()[..], &record].concat();
        [&[0; 4][..], &(payload.len() as i32).to_be_bytes(), &payload].concat()
    }

    #[test]
    fn a_reader_is_online_from_when_a_client_added_it() {
        let events = [initial(), unhex(ADDED)].concat();
        let readers = ReadersState::read(&events).unwrap().unwrap().readers();
        assert_eq!(readers.online, ["reader-1"]);
        let reading = &readers.streams[0];
        assert_eq!(reading.stream.to_string(), "s/t");
        assert_eq!((reading.segments[0].offset, &reading.segments[0].reader), (5, &None));
    }

    #[test]
    fn updates_without_a_state_are_nobodys_and_no_events_are_no_state() {
        assert_eq!(ReadersState::read(&unhex(ADDED)), Err(Foreign));
        assert_eq!(ReadersState::read(&[]), Ok(None));
    }

    #[test]
    fn no_bytes_make_reading_panic() {
        let good = [initial(), unhex(ADDED)].concat();
        for cut in 1..good.len() {
            let cut_at_event = cut == initial().len();
            assert_eq!(ReadersState::read(&good[..cut]).is_ok(), cut_at_event, "{cut}");
        }
        for at in 0..good.len() {
            for flip in [0x01, 0x40, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                let _ = ReadersState::read(&bad);
            }
        }
    }

    #[test]
    fn a_segment_waits_for_all_that_come_before_it() {
        let stream = |id: i64| {
            let name = SegmentName::parse("s/t/0.#epoch.0").unwrap().stream_segment().unwrap().stream;
            (name, SegmentId::from_i64(id).unwrap())
        };
        let mut state = ReadersState::default();
        let next = BTreeMap::from([(stream(1 << 32 | 2), BTreeSet::from([0, 1]))]);
        state.complete(&stream(0), next.clone());
        assert_eq!(state.readers().streams[0].later, [SegmentId::new(2, 1)]);
        state.complete(&stream(1), next);
        let reading = &state.readers().streams[0];
        assert_eq!((reading.later.len(), reading.segments[0].offset), (0, 0));
    }
}
