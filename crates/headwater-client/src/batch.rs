//! Reading a stream without a group: slices of segments, each by whom one likes, in parallel.

use bytes::Bytes;
use headwater_proto::controller as proto;
use headwater_proto::controller::stream_info::AccessOperation;
use headwater_types::{ScopedStream, SegmentId};

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{SegmentInfo, stream_info};
use crate::reading::{Events, Piece, SegmentReader};
use crate::segments::Target;
use crate::streams::call;

/// Part of a segment, from an event's first byte to behind another's last.
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
        let segments = self.segment_ids(stream).await?;
        let mut slices = Vec::with_capacity(segments.len());
        for segment in segments {
            match self.segment_info(stream, segment).await {
                Ok(SegmentInfo { start, end, .. }) => {
                    slices.push(SegmentSlice { stream: stream.clone(), segment, start, end });
                }
                // Truncated away meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(slices)
    }

    /// All segments that the stream has, later ones after those that they follow on.
    pub(crate) async fn segment_ids(&self, stream: &ScopedStream) -> Result<Vec<SegmentId>> {
        let head = self.head_cut(stream).await?;
        let from = head.offsets.into_iter().map(|(id, offset)| (id.as_i64(), offset)).collect();
        let asked = proto::StreamCutRange { stream_info: Some(stream_info(stream)), from, ..Default::default() };
        let answer = call!(self, "getSegmentsBetween", get_segments_between, asked)?;
        let odd = || Error::new(ErrorKind::Protocol, "controller sent a segment without a proper id");
        let mut segments = Vec::with_capacity(answer.segments.len());
        for segment in answer.segments {
            segments.push(SegmentId::from_i64(segment.segment_id).ok_or_else(odd)?);
        }
        // The answer has no order; a successor has a later epoch than what it follows on.
        segments.sort();
        Ok(segments)
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
    /// * `Truncated`: what was to be read is gone;
    /// * `Protocol`: the slice does not begin or end with an event;
    /// * `Unavailable`, `Denied`. The next call tries again.
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
                Piece::Truncated { .. } | Piece::Gone => {
                    let what = format!("segment {} was truncated behind {offset}", self.slice.segment);
                    return Err(Error::new(ErrorKind::Truncated, what));
                }
            }
        }
    }
}
