//! A stream that scales while it is written, and the segment in which a group keeps its state: what servers would do.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use headwater_records::group::Successor;
use headwater_types::{KeyRange, Name, ScopedStream, SegmentId, StreamSegment, hash};

use crate::chance::Chance;

/// Bytes that an event takes.
pub(super) const EVENT_BYTES: i64 = 16;

/// An event: its key, and how many of that key came before.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Event {
    pub(super) key: usize,
    pub(super) number: u64,
}

#[derive(Debug)]
struct Segment {
    range: KeyRange,
    events: Vec<Event>,
    successors: Vec<Successor>,
    predecessors: BTreeSet<StreamSegment>,
    sealed: bool,
}

/// The stream.
#[derive(Debug)]
pub(super) struct Stream {
    name: ScopedStream,
    segments: BTreeMap<StreamSegment, Segment>,
    epoch: i32,
    /// Events of each key so far.
    pub(super) written: Vec<u64>,
}

/// What a read finds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Found {
    Event(Event),
    /// Nothing yet.
    Tail,
    /// Nothing ever.
    End,
}

impl Stream {
    pub(super) fn new(segments: usize, keys: usize) -> Self {
        let name = |text: &str| Name::parse(text).expect("a valid name");
        let mut stream = Self {
            name: ScopedStream { scope: name("s"), stream: name("t") },
            segments: BTreeMap::new(),
            epoch: 0,
            written: vec![0; keys],
        };
        for range in KeyRange::split(segments) {
            stream.open(range, BTreeSet::new());
        }
        stream
    }

    fn open(&mut self, range: KeyRange, predecessors: BTreeSet<StreamSegment>) -> StreamSegment {
        let number = i32::try_from(self.segments.len()).expect("a few segments");
        let segment = StreamSegment { stream: self.name.clone(), id: SegmentId::new(number, self.epoch) };
        let (events, successors) = (Vec::new(), Vec::new());
        let opened = Segment { range, events, successors, predecessors, sealed: false };
        self.segments.insert(segment.clone(), opened);
        segment
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &StreamSegment> {
        self.segments.keys()
    }

    pub(super) fn range(&self, segment: &StreamSegment) -> KeyRange {
        self.segments[segment].range
    }

    pub(super) fn ranges_of(&self, ids: &BTreeSet<SegmentId>) -> BTreeMap<SegmentId, KeyRange> {
        let named = self.segments.iter().filter(|(name, _)| ids.contains(&name.id));
        named.map(|(name, segment)| (name.id, segment.range)).collect()
    }

    pub(super) fn predecessors(&self, segment: &StreamSegment) -> &BTreeSet<StreamSegment> {
        &self.segments[segment].predecessors
    }

    /// Writes the next event of a key.
    pub(super) fn write(&mut self, key: usize) {
        let at = hash::routing_key(&key.to_string());
        let open = |segment: &&mut Segment| !segment.sealed && segment.range.low() <= at && at < segment.range.high();
        if let Some(segment) = self.segments.values_mut().find(open) {
            segment.events.push(Event { key, number: self.written[key] });
            self.written[key] += 1;
        }
    }

    /// Replaces a run of neighbours by another number of segments, with bounds anywhere.
    pub(super) fn scale(&mut self, chance: &mut Chance) {
        let mut open: Vec<(StreamSegment, KeyRange)> = self
            .segments
            .iter()
            .filter(|(_, segment)| !segment.sealed)
            .map(|(name, segment)| (name.clone(), segment.range))
            .collect();
        open.sort_by(|a, b| a.1.low().total_cmp(&b.1.low()));
        if open.is_empty() || self.segments.len() > 60 {
            return;
        }
        let first = chance.index(open.len());
        let count = (1 + chance.index(3)).min(open.len() - first);
        let run = &open[first..first + count];
        let (low, high) = (run[0].1.low(), run[count - 1].1.high());
        let pieces = 1 + chance.index(3);
        let mut bounds: Vec<f64> =
            (1..pieces).map(|_| low + (high - low) * chance.below(1 << 20) as f64 / f64::from(1 << 20)).collect();
        bounds.extend([low, high]);
        bounds.sort_by(f64::total_cmp);
        self.epoch += 1;
        let ranges = bounds.windows(2).filter_map(|pair| KeyRange::new(pair[0], pair[1]).ok());
        for range in ranges.collect::<Vec<_>>() {
            let before: BTreeSet<StreamSegment> =
                run.iter().filter(|(_, old)| old.overlaps(range)).map(|(name, _)| name.clone()).collect();
            let predecessors = before.iter().map(|segment| segment.id.as_i64()).collect::<Vec<_>>();
            let segment = self.open(range, before.clone());
            for old in before {
                let successor = Successor { segment: segment.clone(), range, predecessors: predecessors.clone() };
                self.segments.get_mut(&old).expect("it is open").successors.push(successor);
            }
        }
        for (name, _) in run {
            self.segments.get_mut(name).expect("it is open").sealed = true;
        }
    }

    pub(super) fn seal(&mut self) {
        for segment in self.segments.values_mut() {
            segment.sealed = true;
        }
    }

    pub(super) fn successors(&self, segment: &StreamSegment) -> Vec<Successor> {
        self.segments[segment].successors.clone()
    }

    pub(super) fn read(&self, segment: &StreamSegment, offset: i64) -> Found {
        assert_eq!(offset % EVENT_BYTES, 0, "{segment} is read from within an event");
        let segment = &self.segments[segment];
        let index = usize::try_from(offset / EVENT_BYTES).expect("no reader reads what it has read to the end");
        match segment.events.get(index) {
            Some(event) => Found::Event(*event),
            None if segment.sealed => Found::End,
            None => Found::Tail,
        }
    }

    /// Where every open segment ends now, which is a place to begin at.
    pub(super) fn tail(&self) -> BTreeMap<StreamSegment, i64> {
        let open = self.segments.iter().filter(|(_, segment)| !segment.sealed);
        let end = |segment: &Segment| i64::try_from(segment.events.len()).expect("a few events") * EVENT_BYTES;
        open.map(|(name, segment)| (name.clone(), end(segment))).collect()
    }

    /// All segments that come after these, and these.
    pub(super) fn from<'a>(&self, starting: impl Iterator<Item = &'a StreamSegment>) -> BTreeSet<StreamSegment> {
        let mut found = BTreeSet::new();
        let mut rest: Vec<StreamSegment> = starting.cloned().collect();
        while let Some(segment) = rest.pop() {
            rest.extend(self.segments[&segment].successors.iter().map(|one| one.segment.clone()));
            found.insert(segment);
        }
        found
    }
}

/// The segment in which the group keeps its state.
#[derive(Debug, Default)]
pub(super) struct Log {
    bytes: Vec<u8>,
    /// Offset of the first byte that is there.
    pub(super) start: u64,
    /// The attribute that says from where to read.
    pub(super) mark: Option<u64>,
}

/// The end has moved since it was looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved;

impl Log {
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    pub(super) fn append(&mut self, event: &Bytes) {
        self.bytes.extend_from_slice(event);
    }

    pub(super) fn append_at(&mut self, offset: u64, event: &Bytes) -> Result<(), Moved> {
        if offset != self.end() {
            return Err(Moved);
        }
        self.append(event);
        Ok(())
    }

    /// At most `count` bytes; `None` if the place is truncated away.
    pub(super) fn read(&self, offset: u64, count: usize) -> Option<&[u8]> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let rest = self.bytes.get(at..)?;
        Some(&rest[..count.min(rest.len())])
    }

    pub(super) fn truncate(&mut self, offset: u64) {
        let gone = offset.saturating_sub(self.start).min(self.bytes.len() as u64);
        self.bytes.drain(..usize::try_from(gone).expect("a part of what is there"));
        self.start += gone;
    }
}
