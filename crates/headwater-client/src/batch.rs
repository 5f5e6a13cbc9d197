//! Reading a stream without a group: slices of segments, each by whom one likes, in parallel.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use headwater_proto::controller as proto;
use headwater_proto::controller::stream_info::AccessOperation;
use headwater_records::StreamCut;
use headwater_types::{ScopedStream, SegmentId};

use crate::client::Client;
use crate::cuts::check_stream;
use crate::error::{Error, ErrorKind, Result};
use crate::follow::ReadFrom;
use crate::model::{SegmentInfo, stream_info};
use crate::reading::{Events, Piece, SegmentReader};
use crate::segments::{ASKED_AT_ONCE, Target};
use crate::streams::call;

/// Part of a segment, from an event's first byte to behind another's last.
#[doc = crate::example!("examples/slices.rs")]
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SegmentSlice {
    /// Stream of the segment.
    pub stream: ScopedStream,
    /// Which.
    pub segment: SegmentId,
    /// Offset of the first byte.
    pub start: u64,
    /// Offset behind the last byte.
    pub end: u64,
}

/// Most bytes asked for at a time.
const PIECE_BYTES: usize = 1 << 20;

impl Client {
    /// What a segment holds now, everything acknowledged before included.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn segment_info(&self, stream: &ScopedStream, segment: SegmentId) -> Result<SegmentInfo> {
        self.segments().info(&Target::new(stream, segment, AccessOperation::Read)).await
    }

    /// All that a stream holds now, a slice for each segment; those of one key stand in the order in which they were
    /// written. Events that are written later are not part of it.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn slices(&self, stream: &ScopedStream) -> Result<Vec<SegmentSlice>> {
        self.slices_between(stream, None, None).await
    }

    /// What lies between two cuts of a stream, as [`slices`](Self::slices) has it: each event behind `from` and before `to`, in
    /// one slice. A segment that both name at the same place has an empty one.
    ///
    /// * `from`: `None` is the first event there is;
    /// * `to`: `None` is the last one there is now; so is an empty cut, that of a sealed stream's tail.
    ///
    /// What is truncated behind `from` is in the slices all the same: whoever reads it is told.
    ///
    /// Servers that ask who calls want READ of it where both cuts name all keys and have no offset below 0, else READ_UPDATE.
    ///
    /// # Errors
    /// * `Invalid`: a cut is one of another stream, names segments or offsets that the stream never had, or leaves keys out that
    ///   nothing leads to that follows on its segments; or `to` lies before `from`, or before where the stream begins now;
    /// * `Truncated`: a whole segment behind `from` is gone;
    /// * `NotFound`: the stream does not exist.
    ///
    /// # Cancel safety
    /// It only asks.
    ///
    /// # Source
    /// Matches Pravega's `BatchClientFactory.getSegments`.
    pub async fn slices_between(
        &self,
        stream: &ScopedStream,
        from: Option<&StreamCut>,
        to: Option<&StreamCut>,
    ) -> Result<Vec<SegmentSlice>> {
        for cut in from.into_iter().chain(to) {
            check_stream(stream, cut)?;
        }
        if from.is_some_and(|from| from.offsets.is_empty()) {
            return Ok(Vec::new());
        }
        let starts = self.read_up_to(stream, from).await?;
        let ends = self.read_up_to(stream, to).await?;
        let segments = self.segments_between(stream, &starts, &ends).await?;
        let slices = segments.into_iter().map(async |segment| {
            let info = match self.segment_info(stream, segment).await {
                Ok(info) => info,
                Err(error) => {
                    let error = self.gone(stream, segment, error).await;
                    let is_truncated = error.kind() == ErrorKind::Truncated;
                    // Meanwhile; whoever begins with what there is does not miss it.
                    return if is_truncated && from.is_none() { Ok(None) } else { Err(error) };
                }
            };
            // Where a segment was not opened, nothing of it lies before the cut.
            let offset = |of: &i64| (*of).max(0).cast_unsigned();
            let end = ends.get(&segment).map_or(info.end, offset);
            // Whoever begins with what there is wants what is left of it.
            let start = if from.is_none() { info.start.min(end) } else { starts.get(&segment).map_or(0, offset) };
            if end > info.end || start > end {
                let what = format!(
                    "segment {segment} of {stream} has no bytes from {start} to {end}, it ends at {}",
                    info.end
                );
                return Err(Error::new(ErrorKind::Invalid, what));
            }
            Ok(Some(SegmentSlice { stream: stream.clone(), segment, start, end }))
        });
        let slices = futures::stream::iter(slices).buffered(ASKED_AT_ONCE).try_collect::<Vec<_>>().await?;
        Ok(slices.into_iter().flatten().collect())
    }

    /// Offsets of a cut as the controller takes them: below 0 only in segments that were not opened. None for no cut.
    async fn read_up_to(&self, stream: &ScopedStream, cut: Option<&StreamCut>) -> Result<BTreeMap<SegmentId, i64>> {
        let Some(cut) = cut else { return Ok(BTreeMap::new()) };
        let cut = self.completed(cut).await?;
        // What else it may mean that a segment has no offset, a reader knows.
        Ok(self.stream_reader(stream, ReadFrom::Cut(cut)).await?.cut()?.offsets)
    }

    /// All segments that the stream has, later ones after those that they follow on.
    pub(crate) async fn segment_ids(&self, stream: &ScopedStream) -> Result<Vec<SegmentId>> {
        self.segments_between(stream, &BTreeMap::new(), &BTreeMap::new()).await
    }

    /// The segments that lie between two cuts, in the same order. No cut is the head, or the tail.
    pub(crate) async fn segments_between(
        &self,
        stream: &ScopedStream,
        from: &BTreeMap<SegmentId, i64>,
        to: &BTreeMap<SegmentId, i64>,
    ) -> Result<Vec<SegmentId>> {
        let on_wire = |cut: &BTreeMap<SegmentId, i64>| cut.iter().map(|(id, offset)| (id.as_i64(), *offset)).collect();
        let mut asked =
            proto::StreamCutRange { stream_info: Some(stream_info(stream)), from: on_wire(from), to: on_wire(to) };
        if from.is_empty() {
            // Without, the controller begins with what the stream began with.
            asked.from = on_wire(&self.head_cut(stream).await?.offsets);
        }
        let answer = call!(self, "getSegmentsBetween", get_segments_between, asked)?;
        let odd = || Error::new(ErrorKind::Protocol, "controller sent a segment without a proper id");
        let mut segments = Vec::with_capacity(answer.segments.len());
        for segment in answer.segments {
            segments.push(SegmentId::from_i64(segment.segment_id).ok_or_else(odd)?);
        }
        // The answer has no order; a successor has a later epoch than what it follows on. Read once is enough, however often
        // a segment is in it.
        segments.sort();
        segments.dedup();
        Ok(segments)
    }

    /// A later cut of the stream, about so many bytes behind this one, spread over its segments: what lies between the two makes
    /// one part of the work for whoever reads the stream in parts ([`slices_between`](Self::slices_between)). The same cut if
    /// nothing is behind it yet.
    ///
    /// * `bytes`: of events with their headers, and no more than a wish: the answer lies at least an event further on in each
    ///   segment that has one, at a place that the server remembers (ours one in each 100,000 bytes), and not so far where a
    ///   segment ends, as at the tail.
    ///
    /// Parts between cuts that follow on one another share no event and leave none out, whatever is written or scaled meanwhile.
    ///
    /// Servers that ask who calls want READ of it for a cut without offsets below 0, else READ_UPDATE.
    ///
    /// # Errors
    /// * `Invalid`: the cut names segments that the stream never had, or offsets behind their ends;
    /// * `Truncated`: a segment of the cut is gone; [`head_cut`](Self::head_cut) is where the stream begins now;
    /// * `NotFound`: the stream does not exist;
    /// * `Unsupported`: the segment store speaks a wire version below 17.
    ///
    /// # Cancel safety
    /// It only asks.
    ///
    /// # Source
    /// Matches `BatchClientFactory.getNextStreamCut` of Pravega's main line.
    pub async fn next_cut(&self, cut: &StreamCut, bytes: u64) -> Result<StreamCut> {
        let mut reader = self.stream_reader(&cut.stream, ReadFrom::Cut(cut.clone())).await?;
        reader.skip(bytes).await?;
        reader.cut()
    }

    /// An end of events in a segment, about so many bytes behind `from`; `from` if there is none behind it.
    pub(crate) async fn locate(&self, stream: &ScopedStream, segment: SegmentId, from: u64, bytes: u64) -> Result<u64> {
        let target = Target::new(stream, segment, AccessOperation::Read);
        let located = match self.segments().locate(&target, from.saturating_add(bytes)).await {
            Ok(located) => located,
            Err(error) => return Err(self.gone(stream, segment, error).await),
        };
        if located < from {
            let what = format!("segment {segment} of {stream} ends at {located}, before {from}");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(located)
    }

    /// What it means that a segment that a cut leads to does not exist, if that is the error: it was truncated away, if the
    /// stream had it.
    pub(crate) async fn gone(&self, stream: &ScopedStream, segment: SegmentId, error: Error) -> Error {
        if error.kind() != ErrorKind::NotFound {
            return error;
        }
        let found = async {
            // Before anything that needs more than READ.
            if !self.stream_exists(stream).await? {
                return Ok(None);
            }
            // What is truncated away is followed by others, and to ask for these takes less rights than to ask for epochs.
            let is_followed = self.successors(stream, segment).await.is_ok_and(|found| !found.is_empty());
            let was_there = is_followed || self.ranges_of(stream, &[segment].into()).await?.contains_key(&segment);
            Ok::<_, Error>(Some(was_there))
        };
        match found.await {
            Ok(Some(true)) => {
                Error::caused(ErrorKind::Truncated, format!("segment {segment} of {stream} was truncated away"), error)
            }
            Ok(Some(false)) => {
                Error::caused(ErrorKind::Invalid, format!("stream {stream} never had a segment {segment}"), error)
            }
            Ok(None) => error,
            Err(other) => other,
        }
    }

    /// Reads the events of a slice in order.
    pub fn read_slice(&self, slice: &SegmentSlice) -> SliceReader {
        let target = Target::new(&slice.stream, slice.segment, AccessOperation::Read);
        let reader = SegmentReader::new(self.segments().clone(), target, slice.start, PIECE_BYTES);
        SliceReader { slice: slice.clone(), reader, events: Events::default() }
    }
}

/// The events of a slice, one after the other.
#[derive(Debug)]
pub struct SliceReader {
    slice: SegmentSlice,
    reader: SegmentReader,
    events: Events,
}

impl SliceReader {
    /// The next event and the offset of its header; `None` at the end of the slice.
    ///
    /// # Errors
    /// * `Truncated`: what came next was truncated away. The next call goes on behind the gap;
    /// * `Protocol`: the slice does not begin or end with an event;
    /// * `Unavailable`, `Denied`: the next call tries again.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Option<(u64, Bytes)>> {
        loop {
            let offset = self.slice.start + self.events.taken();
            if offset >= self.slice.end {
                return Ok(None);
            }
            let event = self.events.next()?;
            let inside = || {
                let what = format!("slice of segment {} ends inside an event", self.slice.segment);
                Error::new(ErrorKind::Protocol, what)
            };
            if let Some(event) = event {
                let ends_within = self.slice.start + self.events.taken() <= self.slice.end;
                return if ends_within { Ok(Some((offset, event))) } else { Err(inside()) };
            }
            // What is missing of the event is not in the slice, and may never be written.
            if offset + self.events.pending() as u64 >= self.slice.end {
                return Err(inside());
            }
            match self.reader.next().await? {
                Piece::Data { data, .. } => self.events.feed(data),
                Piece::End => return Err(inside()),
                Piece::Truncated { start } => return Err(self.truncated(offset, start)),
                Piece::Gone => return Err(self.truncated(offset, self.slice.end)),
            }
        }
    }

    /// Goes on where the segment begins now, if that is in the slice.
    fn truncated(&mut self, from: u64, to: u64) -> Error {
        let to = to.min(self.slice.end);
        self.slice.start = to;
        self.events = Events::default();
        self.reader.seek(to);
        let what = format!("segment {} was truncated from {from} to {to}", self.slice.segment);
        Error::new(ErrorKind::Truncated, what)
    }
}
