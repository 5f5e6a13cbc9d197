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
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use headwater_proto::controller::stream_info::AccessOperation;
use headwater_records::{EventPointer, StreamCut, is_unread};
use headwater_types::{KeyRange, ScopedStream, SegmentId, StreamSegment};

use crate::client::Client;
use crate::cuts::{Place, Surface, UNOPENED, check_stream};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{SegmentRange, Successor};
use crate::reading::{Events, Piece, SegmentReader};
use crate::segments::{ASKED_AT_ONCE, Target};

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
    /// Read to these ends while something that follows on them still waits for others. `None`: other things that follow on them
    /// were begun, or they are gone; a cut that named them would have two places for some keys, or one that is no more.
    done: BTreeMap<SegmentId, Option<u64>>,
    /// Read to these ends, and nothing follows on them: the stream is sealed.
    last: BTreeMap<SegmentId, u64>,
    /// All that were read to their ends; a stream has few segments in its life.
    ended: BTreeSet<SegmentId>,
    /// Keys of segments, as far as somebody had to know.
    ranges: BTreeMap<SegmentId, KeyRange>,
    /// Where it began, unless that was the head.
    began: Option<StreamCut>,
    /// Up to where was read last.
    bound: Option<Arc<Bound>>,
}

/// A cut up to which is read.
#[derive(Debug)]
struct Bound {
    cut: StreamCut,
    ahead: Ahead,
}

/// How is told whether a cut was reached.
#[derive(Debug)]
enum Ahead {
    /// By the keys of segments.
    Keys(Surface),
    /// By the segments between where the reader began and the cut, both included: for whoever is not told which keys they have.
    Segments(BTreeSet<SegmentId>),
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
    /// Since it does not exist any more.
    is_gone: bool,
}

impl Active {
    fn offset(&self) -> u64 {
        self.start + self.events.taken()
    }

    /// Goes on somewhere else, where an event begins.
    fn seek(&mut self, offset: u64) {
        self.reader.seek(offset);
        (self.events, self.start) = (Events::default(), offset);
    }
}

impl Client {
    /// Reads a whole stream alone, and goes on at its tail.
    ///
    /// Servers that ask who calls want READ of it where it begins at a cut that names all keys and has no offset below 0. Which keys
    /// segments have, which others need, they tell whoever has READ_UPDATE, and so where the head is and the tail.
    ///
    /// # Errors
    /// `NotFound`; `Invalid`: a cut of another stream, or with a segment that the stream never had.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn stream_reader(&self, stream: &ScopedStream, from: ReadFrom) -> Result<StreamReader> {
        let is_head = matches!(from, ReadFrom::Head);
        let cut = match from {
            ReadFrom::Head => self.head_cut(stream).await?,
            ReadFrom::Tail => self.tail_cut(stream).await?,
            ReadFrom::Cut(cut) => {
                check_stream(stream, &cut)?;
                cut
            }
        };
        let mut reader = StreamReader {
            client: self.clone(),
            stream: stream.clone(),
            active: VecDeque::new(),
            waiting: BTreeMap::new(),
            done: BTreeMap::new(),
            last: BTreeMap::new(),
            ended: BTreeSet::new(),
            ranges: BTreeMap::new(),
            began: None,
            bound: None,
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
        // When all others have their places: that says of what follows whether it may begin. What was read is begun.
        reader.ended.extend(&read);
        for segment in read {
            let end = reader.end_of(segment).await?;
            reader.pass(segment, end).await?;
        }
        // In the words of its own cuts, none of which lies before it. Before the head there is nothing that somebody could ask for.
        if !is_head {
            reader.began = Some(reader.cut()?);
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
        self.active.push_back(Active { segment, reader, events, start: offset, has_ended: false, is_gone: false });
    }

    /// Where a segment that was read ends; `None` once it is gone.
    async fn end_of(&self, segment: SegmentId) -> Result<Option<u64>> {
        let error = match self.client.segment_info(&self.stream, segment).await {
            Ok(info) => return Ok(Some(info.end)),
            Err(error) => self.client.gone(&self.stream, segment, error).await,
        };
        if error.kind() == ErrorKind::Truncated { Ok(None) } else { Err(error) }
    }

    /// Of what successors of `passed` follow on, whatever was read before the cut with which this began: that need not name it,
    /// as a checkpoint that was made between the ends of two segments that one follows on.
    async fn read_before(&mut self, passed: SegmentId, before: &BTreeSet<SegmentId>) -> Result<Vec<SegmentId>> {
        let unread: BTreeSet<_> = self.unread().filter(|segment| *segment != passed).collect();
        let is_placed = |id: &SegmentId| *id == passed || self.done.contains_key(id) || unread.contains(id);
        let nowhere: Vec<_> = before.iter().copied().filter(|id| !is_placed(id)).collect();
        if nowhere.is_empty() {
            return Ok(nowhere);
        }
        match self.learn_ranges(unread.iter().chain(&nowhere).copied().collect()).await {
            Err(error) if error.kind() == ErrorKind::Denied => {
                let ahead = self.led_to(unread, &nowhere).await?;
                return Ok(nowhere.into_iter().filter(|id| !ahead.contains(id)).collect());
            }
            learnt => learnt?,
        }
        let range = |id: SegmentId| self.ranges.get(&id).copied();
        let is_read = |id: &SegmentId| !is_unread(*id, range(*id), unread.iter().map(|id| (*id, range(*id))));
        Ok(nowhere.into_iter().filter(is_read).collect())
    }

    /// Of these segments, those that others lead to: for whoever is not told which keys segments have.
    async fn led_to(&self, others: BTreeSet<SegmentId>, segments: &[SegmentId]) -> Result<BTreeSet<SegmentId>> {
        let (mut ahead, mut found) = (others, BTreeSet::new());
        // What follows on a segment is later than it.
        while let Some(id) = ahead.pop_first().filter(|id| segments.iter().any(|wanted| id <= wanted)) {
            if segments.contains(&id) {
                found.insert(id);
            }
            let successors = self.client.successors(&self.stream, id).await?;
            ahead.extend(successors.into_iter().map(|successor| successor.segment.id));
        }
        Ok(found)
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
    /// [`tail_cut`](Client::tail_cut), was handed out: then it does not wait for more. Until then events behind the cut may be
    /// among them. An empty cut, that of a sealed stream's tail, is passed with the last event. A segment without an offset in
    /// the cut has nothing before it if it follows on others of the cut, and is read to its end otherwise, as the checkpoint of
    /// a group means it; so has what follows on the segments of a cut that leaves its keys out.
    ///
    /// Servers that ask who calls want READ of it for a cut that names all keys and has no offset below 0, else READ_UPDATE.
    ///
    /// # Errors
    /// As `next`, and `Invalid`: the cut is one of another stream, names segments that the stream never had, leaves keys out that
    /// nothing leads to, or lies before the cut, or the tail, where this reader began. One that began at the head has passed what lies
    /// before.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next_before(&mut self, cut: &StreamCut) -> Result<Option<ReadEvent>> {
        check_stream(&self.stream, cut)?;
        if cut.offsets.is_empty() {
            return self.next_until(None).await;
        }
        let bound = self.bound(cut).await?;
        self.next_until(Some(bound.as_ref())).await
    }

    async fn next_until(&mut self, cut: Option<&Bound>) -> Result<Option<ReadEvent>> {
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
                let active = &self.active[ended];
                let (segment, end) = (active.segment, (!active.is_gone).then(|| active.offset()));
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
                    active.seek(start);
                    let what = format!("segment {segment} was truncated from {offset} to {start}");
                    return Err(Error::new(ErrorKind::Truncated, what));
                }
                // Truncated away as a whole; what follows on it may be there.
                Piece::Gone => {
                    (active.has_ended, active.is_gone) = (true, true);
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

    /// A segment was read to its end, here or before the cut with which this began, and then it may be gone: what follows on it
    /// alone begins. Dropped, or with an error, it has changed nothing.
    async fn pass(&mut self, segment: SegmentId, end: Option<u64>) -> Result<()> {
        let successors = self.client.successors(&self.stream, segment).await?;
        let ahead = successors.iter().filter(|successor| !self.is_begun(successor.segment.id));
        let before = ahead.flat_map(|successor| successor.predecessors.iter().copied()).collect();
        let read = self.read_before(segment, &before).await?;

        // Nothing is waited for from here on: what follows on a segment begins all together with its end.
        tracing::info!(
            target: crate::told::SCALE, stream = %self.stream, read = %segment, successors = successors.len(),
            "reader has read a segment to its end"
        );
        if let Some(end) = end.filter(|_| successors.is_empty()) {
            self.last.insert(segment, end);
        }
        self.done.insert(segment, end);
        self.done.extend(read.into_iter().map(|segment| (segment, None)));
        self.ended.insert(segment);
        for Successor { segment: SegmentRange { id, range }, predecessors } in successors {
            self.ranges.insert(id, range);
            if !self.is_begun(id) {
                if !predecessors.iter().all(|before| self.done.contains_key(before)) {
                    self.waiting.insert(id, predecessors.into_iter().collect());
                    continue;
                }
                self.waiting.remove(&id);
                self.begin(id, 0);
            }
            for before in predecessors {
                self.done.entry(before).and_modify(|end| *end = None);
            }
        }
        let waiting = &self.waiting;
        self.done.retain(|read, _| waiting.values().any(|before| before.contains(read)));
        Ok(())
    }

    /// Goes on about so many bytes further, to where an event ends, and reads nothing: at least one event in each segment that
    /// has one. At the end of what is there, nothing changes. Not for a reader that was asked for events.
    ///
    /// # Errors
    /// As [`Client::next_cut`].
    pub(crate) async fn skip(&mut self, bytes: u64) -> Result<()> {
        loop {
            let each = (bytes / self.active.len().max(1) as u64).max(1);
            let asked = self
                .active
                .iter()
                .map(|active| self.client.locate(&self.stream, active.segment, active.offset(), each));
            let located = futures::stream::iter(asked.collect::<Vec<_>>()).buffered(ASKED_AT_ONCE);
            let located: Vec<u64> = located.try_collect().await?;
            let (mut has_moved, mut standing) = (false, Vec::new());
            for (active, to) in self.active.iter_mut().zip(located) {
                if to > active.offset() {
                    active.seek(to);
                    has_moved = true;
                } else {
                    standing.push((active.segment, to));
                }
            }
            let mut has_passed = false;
            for (segment, end) in standing {
                // More may have been written since it was located.
                let info = self.client.segment_info(&self.stream, segment).await?;
                if info.sealed && info.end == end {
                    self.pass(segment, Some(end)).await?;
                    self.active.retain(|active| active.segment != segment);
                    has_passed = true;
                }
            }
            if has_moved || !has_passed {
                return Ok(());
            }
        }
    }

    fn is_begun(&self, segment: SegmentId) -> bool {
        self.ended.contains(&segment) || self.active.iter().any(|active| active.segment == segment)
    }

    /// Segments that are read, or wait to be.
    fn unread(&self) -> impl Iterator<Item = SegmentId> {
        self.active.iter().map(|active| active.segment).chain(self.waiting.keys().copied())
    }

    /// Finds out which keys segments have, as far as they exist.
    async fn learn_ranges(&mut self, mut segments: BTreeSet<SegmentId>) -> Result<()> {
        segments.retain(|segment| !self.ranges.contains_key(segment));
        if !segments.is_empty() {
            self.ranges.extend(self.client.ranges_of(&self.stream, &segments).await?);
        }
        Ok(())
    }

    /// Where a cut stands up to which is to be read.
    async fn bound(&mut self, cut: &StreamCut) -> Result<Arc<Bound>> {
        if let Some(bound) = self.bound.as_ref().filter(|bound| bound.cut == *cut) {
            return Ok(bound.clone());
        }
        let ahead = match self.surface_of(cut).await {
            Err(error) if error.kind() == ErrorKind::Denied => Ahead::Segments(self.way_to(cut, error).await?),
            surface => Ahead::Keys(surface?),
        };
        let bound = Arc::new(Bound { cut: cut.clone(), ahead });
        self.bound = Some(bound.clone());
        Ok(bound)
    }

    async fn surface_of(&mut self, cut: &StreamCut) -> Result<Surface> {
        let Some(surface) = self.client.surface(cut).await? else {
            let what = format!("cut leaves keys of stream {} out, or segments are none of its", self.stream);
            return Err(Error::new(ErrorKind::Invalid, what));
        };
        if let Some(began) = &self.began
            && let Some(began) = self.client.surface(began).await?
            && surface.is_before(&began)
        {
            return Err(self.lies_before());
        }
        let unread = self.unread().collect();
        self.learn_ranges(unread).await?;
        Ok(surface)
    }

    /// The segments from where this began to a cut, of which the controller tells whoever may read. What an offset below 0 means,
    /// only the keys say, and a head is for those who are told them: then it stays `denied`.
    async fn way_to(&self, cut: &StreamCut, denied: Error) -> Result<BTreeSet<SegmentId>> {
        let began = self.began.as_ref().filter(|began| !began.offsets.is_empty());
        let Some(began) = began.filter(|_| cut.offsets.values().all(|offset| *offset >= 0)) else {
            return Err(denied);
        };
        // The controller goes by segments alone.
        if cut.offsets.iter().any(|(id, offset)| began.offsets.get(id).is_some_and(|began| offset < began)) {
            return Err(self.lies_before());
        }
        let way = self.client.segments_between(&self.stream, &began.offsets, &cut.offsets).await?;
        Ok(way.into_iter().collect())
    }

    fn lies_before(&self) -> Error {
        let what = format!("cut of stream {} lies before where its reader began", self.stream);
        Error::new(ErrorKind::Invalid, what)
    }

    /// Whether everything before a cut was handed out.
    fn has_passed(&self, bound: &Bound) -> bool {
        let active = self.active.iter().map(|active| (active.segment, active.offset()));
        active.chain(self.waiting.keys().map(|segment| (*segment, 0))).all(|(segment, offset)| match &bound.ahead {
            Ahead::Keys(cut) => {
                // One that nobody knows may have any.
                let keys = self.ranges.get(&segment).copied().unwrap_or(KeyRange::FULL);
                cut.is_reached(segment, keys, offset)
            }
            Ahead::Segments(way) => match bound.cut.offsets.get(&segment) {
                Some(end) => u64::try_from(*end).is_ok_and(|end| offset >= end),
                None => !way.contains(&segment),
            },
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
        let ends = self.done.iter().filter_map(|(segment, end)| Some((segment, (*end)?)));
        for (segment, end) in ends.chain(self.last.iter().map(|(segment, end)| (segment, *end))) {
            offsets.insert(*segment, crate::segments::signed(end)?);
        }
        // For some keys nothing else of the cut stands in front of it, or nothing that was read since leads to it.
        let is_left = |id: &SegmentId| self.done.get(id) == Some(&None);
        for (segment, _) in self.waiting.iter().filter(|(_, before)| before.is_empty() || before.iter().any(is_left)) {
            offsets.insert(*segment, UNOPENED);
        }
        Ok(StreamCut { stream: self.stream.clone(), offsets })
    }
}
