//! The segments that a reader has, and the events in them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use headwater_proto::controller::stream_info::AccessOperation;
use headwater_types::StreamSegment;

use super::batch::EventBatch;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::reading::{Events, Piece, SegmentReader};
use crate::segments::Target;

/// Events of one segment that are served before another has its turn: changing over costs more than an event does.
const RUN: u32 = 64;

/// Segments read side by side.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The one that is served at the front.
    active: VecDeque<Active>,
    /// Events of it that were served.
    run: u32,
}

#[derive(Debug)]
struct Active {
    segment: Arc<StreamSegment>,
    /// The group ends inside it.
    is_bounded: bool,
    reader: SegmentReader,
    events: Events,
    /// Offset where the taking of events began.
    start: u64,
    /// Nothing followed on the last bytes when they were sent.
    at_tail: bool,
}

/// An event and where it is.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) segment: Arc<StreamSegment>,
    pub(super) event: Bytes,
    /// Of its header.
    pub(super) offset: u64,
    /// Behind its last byte.
    pub(super) end: u64,
    /// The group ends inside the segment.
    pub(super) is_bounded: bool,
}

/// Events that were taken together.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) batch: EventBatch,
    /// The group ends inside the segment.
    pub(super) is_bounded: bool,
}

/// What a segment came to.
#[derive(Debug)]
pub(super) enum Turn {
    /// There may be events.
    Fed,
    /// It is read to its end.
    End(Arc<StreamSegment>),
    /// What came next is gone; the segment goes on here.
    Truncated { segment: Arc<StreamSegment>, from: u64, to: u64 },
    /// It is gone as a whole.
    Gone { segment: Arc<StreamSegment>, from: u64 },
}

impl Reading {
    pub(super) fn open(
        &mut self,
        client: &Client,
        segment: StreamSegment,
        offset: u64,
        is_bounded: bool,
        piece_bytes: usize,
    ) {
        let target = Target::new(&segment.stream, segment.id, AccessOperation::Read);
        let reader = SegmentReader::new(client.segments().clone(), target, offset, piece_bytes);
        let (segment, events) = (Arc::new(segment), Events::default());
        self.active.push_back(Active { segment, is_bounded, reader, events, start: offset, at_tail: false });
    }

    pub(super) fn close(&mut self, segment: &StreamSegment) {
        self.active.retain(|active| *active.segment != *segment);
    }

    /// All that is stored has arrived here, as far as servers have said.
    pub(super) fn is_at_tail(&self) -> bool {
        self.active.iter().all(|active| active.at_tail)
    }

    /// The next event that is here; segments are served in turn, some events of each.
    ///
    /// # Errors
    /// `Protocol`: a segment does not hold events.
    pub(super) fn take(&mut self) -> Result<Option<Found>> {
        for _ in 0..=self.active.len() {
            let Some(active) = self.active.front_mut() else { break };
            if self.run < RUN {
                let offset = active.start + active.events.taken();
                if let Some(event) = active.events.next()? {
                    self.run += 1;
                    let (segment, end) = (active.segment.clone(), active.start + active.events.taken());
                    return Ok(Some(Found { segment, event, offset, end, is_bounded: active.is_bounded }));
                }
            }
            self.run = 0;
            self.active.rotate_left(1);
        }
        Ok(None)
    }

    /// Events of one segment that are here, up to so many; of a segment that the group ends inside, one.
    ///
    /// # Errors
    /// `Protocol`: a segment does not hold events.
    pub(super) fn take_batch(&mut self, events_max: usize) -> Result<Option<Taken>> {
        for _ in 0..self.active.len() {
            let Some(active) = self.active.front_mut() else { break };
            let offset = active.start + active.events.taken();
            let stored = active.events.next_stored(if active.is_bounded { 1 } else { events_max })?;
            let (segment, is_bounded) = (active.segment.clone(), active.is_bounded);
            self.run = 0;
            self.active.rotate_left(1);
            if let Some((bytes, count)) = stored {
                return Ok(Some(Taken { batch: EventBatch { segment, offset, bytes, count }, is_bounded }));
            }
        }
        Ok(None)
    }

    /// What comes first of any segment. Take all events that are here before.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<Turn>> {
        for active in &mut self.active {
            let Poll::Ready(piece) = active.reader.poll_next(cx) else { continue };
            let (segment, from) = (active.segment.clone(), active.start + active.events.taken());
            return Poll::Ready(match piece {
                Err(error) => Err(error),
                Ok(Piece::Data { data, at_tail }) => {
                    active.events.feed(data);
                    active.at_tail = at_tail;
                    Ok(Turn::Fed)
                }
                Ok(Piece::End) if active.events.pending() > 0 => {
                    let what = format!("segment {segment} ends inside an event");
                    Err(Error::new(ErrorKind::Protocol, what))
                }
                Ok(Piece::End) => Ok(Turn::End(segment)),
                Ok(Piece::Truncated { start }) => {
                    active.reader.seek(start);
                    (active.events, active.start) = (Events::default(), start);
                    Ok(Turn::Truncated { segment, from, to: start })
                }
                Ok(Piece::Gone) => Ok(Turn::Gone { segment, from }),
            });
        }
        Poll::Pending
    }
}
