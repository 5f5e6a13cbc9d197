//! The words every other crate uses: names, ids, offsets, key ranges, limits. No I/O, no clock.
//!
//! Invariants, each kept by the type's only constructors:
//! * a [`Name`] holds only the characters Pravega allows; it is still never a path (`.` and `..` pass the rule)
//! * a [`KeyRange`] lies inside [0, 1] and is not empty
//! * adjoining ranges of [`KeyRange::split`] share bit-identical bounds and the last one ends at exactly 1.0

pub mod hash;
mod ids;
mod keyspace;
pub mod limits;
mod names;

pub use ids::{AttributeId, EventNumber, Offset, SegmentId, TransactionId, WriterId, attribute};
pub use keyspace::{KeyRange, KeyRangeError};
pub use names::{Name, NameError, ScopedStream, SegmentName, StreamSegment};
