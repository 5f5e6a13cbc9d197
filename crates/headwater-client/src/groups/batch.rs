//! Events that a reader hands out together.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use headwater_types::StreamSegment;

use super::reader::GroupEvent;
use crate::reading::Stored;
use crate::writer::HEADER_BYTES;

/// What a reader gets when it asks for many.
#[derive(Clone, Debug)]
pub enum Batch {
    /// Events, at least one.
    Events(EventBatch),
    /// A checkpoint, as [`Delivery::Checkpoint`](super::Delivery::Checkpoint).
    Checkpoint(String),
}

/// Events of one segment, one behind the other, in one piece of memory: nothing is made for each of them until it is asked for.
#[derive(Clone)]
pub struct EventBatch {
    pub(super) segment: Arc<StreamSegment>,
    /// Where the first one's header is in the segment.
    pub(super) offset: u64,
    /// Whole events with their headers.
    pub(super) bytes: Bytes,
    pub(super) count: usize,
}

impl fmt::Debug for EventBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, offset, count, .. } = self;
        write!(f, "{count} events of {segment} at {offset}")
    }
}

impl EventBatch {
    /// How many there are; at least one.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Segment they are in.
    pub fn segment(&self) -> &Arc<StreamSegment> {
        &self.segment
    }

    /// Offset of the first one's header in the segment.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Offset behind the last one.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    /// What was written, one by one, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        Stored(&self.bytes)
    }

    /// The events to keep, each with its place. They share the batch's memory.
    pub fn events(&self) -> impl Iterator<Item = GroupEvent> {
        let mut at = 0;
        self.iter().map(move |event| {
            let start = at + HEADER_BYTES;
            let offset = self.offset + at as u64;
            at = start + event.len();
            GroupEvent { event: self.bytes.slice(start..at), segment: self.segment.clone(), offset }
        })
    }
}
