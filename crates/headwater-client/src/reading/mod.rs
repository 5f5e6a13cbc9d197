//! Reading segments: bytes as they come, and the events in them.

mod events;
mod segment;

pub(crate) use events::{Events, Stored};
pub(crate) use segment::{Piece, SegmentReader};
