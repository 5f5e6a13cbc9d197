//! Reading a whole stream alone, from a cut on, through all changes of its segments, in order per key.
//!
//! ```text
//!   segments that are read side by side ─► events
//!       │ at its end
//!       └─► successors: each begins when all segments it follows on were read
//! ```
//!
//! Invariant: the cut covers all keys at every moment, and everything before it was handed out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use headwater_proto::controller::stream_info::AccessOperation;
use headwater_records::{EventPointer, StreamCut, is_unread};
use headwater_types::{ScopedStream, SegmentId, StreamSegment};

use crate::client::Client;
use crate::cuts::{Place, UNOPENED};
use crate::error::{Error, ErrorKind, Result};
use crate::reading::{Events, Piece, SegmentReader};
use crate::segments::Target;

/// Most bytes asked for at a time, per segment.
const PIECE_BYTES: usize = 512 << 10;

/// Where a [`StreamReader`] begins.
#[derive(Clone, Debug, Default)]
pub enum ReadFrom {
    /// With the oldest event there is.
    #[default]
    Head,
    /// With the first event that is written from now on.
    Tail,
    /// Behind everything that a cut has passed.
    Cut(StreamCut),
}

/// An event and where it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReadEvent {
    /// What was written.
    pub event: Bytes,
    /// Segment it is in.
    pub segment: SegmentId,
    /// Offset of its header there.
    pub offset: u64,
}

impl ReadEvent {
    /// By which it can be [fetched](Client::fetch_event) again.
    ///
    /// # Errors
    /// `Invalid`: it is too long for a pointer, which holds up to 1 GiB.
    pub fn pointer(&self, stream: &ScopedStream) -> Result<EventPointer> {
        let long = |_| Error::new(ErrorKind::Invalid, "event is too long for a pointer");
        let length = i32::try_from(self.event.len() + crate::writer::HEADER_BYTES).map_err(long)?;
        let segment = StreamSegment { stream: stream.clone(), id: self.segment };
        Ok(EventPointer { segment, offset: crate::segments::signed(self.offset)?, length })
    }
}

/// Reads all events of a stream, alone. For readers that share the work, use a reader group.
#[doc = crate::example!("examples/stream_reader.rs")]
#[derive(Debug)]
pub struct StreamReader {
    client: Client,
    stream: ScopedStream,
    /// Being read, the one that was served last at the end.
    active: VecDeque<Active>,
    /// Not begun, since not everything was read that it follows on: all of that, or nothing while it is not known.
    waiting: BTreeMap<SegmentId, BTreeSet<SegmentId>>,
    /// Read to these ends while something that follows on them still waits for others.
    done: BTreeMap<SegmentId, u64>,
    /// All that were read to their ends; a stream has few segments in its life.
    ended: BTreeSet<SegmentId>,
}

#[derive(Debug)]
struct Active {
    segment: SegmentId,
    reader: SegmentReader,
    events: Events,
    /// Offset where the taking of events began.
    start: u64,
    /// Nothing more comes.
    has_ended: bool,
}

impl Active {
    fn offset(&self) -> u64 {
        self.start + self.events.taken()
    }
}

impl Client {
    /// Reads a whole stream alone, and goes on at its tail.
    ///
    /// # Errors
    /// `NotFound`; `Invalid`: a cut of another stream.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn stream_reader(&self, stream: &ScopedStream, from: ReadFrom) -> Result<StreamReader> {
        let cut = match from {
            ReadFrom::Head => self.head_cut(stream).await?,
            ReadFrom::Tail => self.tail_cut(stream).await?,
            ReadFrom::Cut(cut) if cut.stream == *stream => cut,
            ReadFrom::Cut(cut) => {
                let what = format!("cut of stream {} is no position in {stream}", cut.stream);
                return Err(Error::new(ErrorKind::Invalid, what));
            }
        };
        let mut reader = StreamReader {
            client: self.clone(),
            stream: stream.clone(),
            active: VecDeque::new(),
            waiting: BTreeMap::new(),
            done: BTreeMap::new(),
            ended: BTreeSet::new(),
        };
        let mut read = Vec::new();
        for (segment, place) in self.places(&cut).await? {
            match place {
                Place::At(offset) => reader.begin(segment, offset),
                // What it follows on is known when something of that is read to its end.
                Place::Unopened => _ = reader.waiting.insert(segment, BTreeSet::new()),
                Place::Read => read.push(segment),
            }
        }
        // When all others have their places: that says of what follows whether it may begin.
        for segment in read {
            let end = reader.end_of(segment).await?;
            reader.pass(segment, end).await?;
        }
        Ok(reader)
    }

    /// The cut behind everything that is in the stream now. Empty for a sealed stream.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn tail_cut(&self, stream: &ScopedStream) -> Result<StreamCut> {
        let mut offsets = BTreeMap::new();
        for segment in self.current_segments(stream).await? {
            let end = self.segment_info(stream, segment.id).await?.end;
            offsets.insert(segment.id, crate::segments::signed(end)?);
        }
        Ok(StreamCut { stream: stream.clone(), offsets })
    }

    /// The event that a pointer leads to.
    ///
    /// # Errors
    /// * `Truncated`, `NotFound`: it is gone;
    /// * `Protocol`: the pointer leads to the middle of something.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn fetch_event(&self, pointer: &EventPointer) -> Result<Bytes> {
        let odd = || Error::new(ErrorKind::Invalid, format!("{pointer} is no pointer to an event"));
        let start = u64::try_from(pointer.offset).map_err(|_| odd())?;
        let length = u64::try_from(pointer.length).map_err(|_| odd())?;
        let slice = crate::batch::SegmentSlice {
            stream: pointer.segment.stream.clone(),
            segment: pointer.segment.id,
            start,
            end: start.checked_add(length).ok_or_else(odd)?,
        };
        let info = self.segment_info(&slice.stream, slice.segment).await?;
        if info.end < slice.end {
            return Err(Error::new(ErrorKind::Invalid, format!("segment {} ends at {}", slice.segment, info.end)));
        }
        match self.read_slice(&slice).next().await? {
            Some((_, event)) if event.len() as u64 + crate::writer::HEADER_BYTES as u64 == length => Ok(event),
            _ => Err(odd()),
        }
    }
}

impl StreamReader {
    /// The stream.
    pub fn stream(&self) -> &ScopedStream {
        &self.stream
    }

    fn begin(&mut self, segment: SegmentId, offset: u64) {
        let target = Target::new(&self.stream, segment, AccessOperation::Read);
        let reader = SegmentReader::new(self.client.segments().clone(), target, offset, PIECE_BYTES);
        let events = Events::default();
        self.active.push_back(Active { segment, reader, events, start: offset, has_ended: false });
    }

    /// Where a segment that was read ends; 0 once it is gone.
    async fn end_of(&self, segment: SegmentId) -> Result<u64> {
        match self.client.segment_info(&self.stream, segment).await {
            Ok(info) => Ok(info.end),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Of what a successor of `passed`, which is done, follows on, whatever was read before the cut with which this began: a
    /// checkpoint that was made between the ends of two segments that one follows on does not name the first.
    async fn read_before(&self, passed: SegmentId, before: &BTreeSet<SegmentId>) -> Result<Vec<SegmentId>> {
        let active = self.active.iter().map(|active| active.segment).filter(|segment| *segment != passed);
        let unread: BTreeSet<_> = active.chain(self.waiting.keys().copied()).collect();
        let is_placed = |id: &SegmentId| self.done.contains_key(id) || unread.contains(id);
        let nowhere: BTreeSet<_> = before.iter().copied().filter(|id| !is_placed(id)).collect();
        if nowhere.is_empty() {
            return Ok(Vec::new());
        }
        let ranges = self.client.ranges_of(&self.stream, &unread.union(&nowhere).copied().collect()).await?;
        let range = |id: SegmentId| ranges.get(&id).copied();
        let is_read = |id: &SegmentId| !is_unread(*id, range(*id), unread.iter().map(|id| (*id, range(*id))));
        Ok(nowhere.into_iter().filter(is_read).collect())
    }

    /// The next event; waits for one at the tail. `None` once a sealed stream is read to its end.
    ///
    /// # Errors
    /// * `Truncated`: what came next was truncated away. The next call goes on behind the gap;
    /// * `Unavailable`, `Denied`: the next call tries again;
    /// * `NotFound`: the stream is gone;
    /// * `Protocol`: the stream does not hold events.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Option<ReadEvent>> {
        self.next_until(None).await
    }

    /// As [`next`](Self::next), but `None` also once everything before a cut of this stream, such as
    /// [`tail_cut`](Client::tail_cut), was handed out: then it does not wait for more. An empty cut, that of a sealed
    /// stream's tail, is passed with the last event.
    ///
    /// # Errors
    /// As `next`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next_before(&mut self, cut: &StreamCut) -> Result<Option<ReadEvent>> {
        self.next_until(Some(cut).filter(|cut| !cut.offsets.is_empty())).await
    }

    async fn next_until(&mut self, cut: Option<&StreamCut>) -> Result<Option<ReadEvent>> {
        loop {
            if cut.is_some_and(|cut| self.has_passed(cut)) {
                return Ok(None);
            }
            // Whoever has events in memory is served in turn.
            for _ in 0..self.active.len() {
                let Some(active) = self.active.front_mut() else { break };
                let offset = active.offset();
                let (segment, event) = (active.segment, active.events.next()?);
                self.active.rotate_left(1);
                if let Some(event) = event {
                    return Ok(Some(ReadEvent { event, segment, offset }));
                }
            }
            if let Some(ended) = self.active.iter().position(|active| active.has_ended) {
                let (segment, end) = (self.active[ended].segment, self.active[ended].offset());
                self.pass(segment, end).await?;
                self.active.retain(|active| active.segment != segment);
                continue;
            }
            if self.active.is_empty() {
                return Ok(None);
            }
            let (at, piece) = self.first_piece().await;
            let active = &mut self.active[at];
            match piece? {
                Piece::Data { data, .. } => active.events.feed(data),
                Piece::End => active.has_ended = true,
                Piece::Truncated { start } => {
                    let (segment, offset) = (active.segment, active.offset());
                    active.reader.seek(start);
                    (active.events, active.start) = (Events::default(), start);
                    let what = format!("segment {segment} was truncated from {offset} to {start}");
                    return Err(Error::new(ErrorKind::Truncated, what));
                }
                // Truncated away as a whole; what follows on it may be there.
                Piece::Gone => {
                    active.has_ended = true;
                    let what = format!("segment {} was truncated away from {}", active.segment, active.offset());
                    return Err(Error::new(ErrorKind::Truncated, what));
                }
            }
        }
    }

    /// The first piece that any segment has.
    async fn first_piece(&mut self) -> (usize, Result<Piece>) {
        let active = &mut self.active;
        poll_fn(|cx| {
            for (at, one) in active.iter_mut().enumerate() {
                if let Poll::Ready(piece) = one.reader.poll_next(cx) {
                    return Poll::Ready((at, piece));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// A segment was read to its end: what follows on it alone begins.
    async fn pass(&mut self, segment: SegmentId, end: u64) -> Result<()> {
        let successors = self.client.successors(&self.stream, segment).await?;
        tracing::info!(
            target: crate::told::SCALE, stream = %self.stream, read = %segment, successors = successors.len(),
            "reader has read a segment to its end"
        );
        self.done.insert(segment, end);
        self.ended.insert(segment);
        for successor in successors {
            let id = successor.segment.id;
            let is_read = self.active.iter().any(|active| active.segment == id);
            if is_read || self.ended.contains(&id) {
                continue;
            }
            let before: BTreeSet<_> = successor.predecessors.into_iter().collect();
            for read in self.read_before(segment, &before).await? {
                self.done.insert(read, self.end_of(read).await?);
            }
            if before.iter().all(|before| self.done.contains_key(before)) {
                self.waiting.remove(&id);
                self.begin(id, 0);
            } else {
                self.waiting.insert(id, before);
            }
        }
        let waiting = &self.waiting;
        self.done.retain(|read, _| waiting.values().any(|before| before.contains(read)));
        Ok(())
    }

    /// Whether everything before a cut was handed out.
    fn has_passed(&self, cut: &StreamCut) -> bool {
        cut.offsets.iter().all(|(segment, offset)| match self.active.iter().find(|active| active.segment == *segment) {
            Some(active) => i64::try_from(active.offset()).is_ok_and(|read| read >= *offset),
            None => self.ended.contains(segment),
        })
    }

    /// The position behind the last event that was handed out.
    ///
    /// # Errors
    /// None in practice: offsets beyond 2^63.
    pub fn cut(&self) -> Result<StreamCut> {
        let mut offsets = BTreeMap::new();
        for active in &self.active {
            offsets.insert(active.segment, crate::segments::signed(active.offset())?);
        }
        // Segments that are read while others of the same successor are not: they stand at their ends.
        for (segment, end) in &self.done {
            offsets.insert(*segment, crate::segments::signed(*end)?);
        }
        // What the cut with which this began says was not opened, and nothing that was read since leads to.
        for (segment, _) in self.waiting.iter().filter(|(_, before)| before.is_empty()) {
            offsets.insert(*segment, UNOPENED);
        }
        Ok(StreamCut { stream: self.stream.clone(), offsets })
    }
}
