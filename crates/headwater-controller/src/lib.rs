//! What a stream is: scopes, streams, epochs of segments, cuts and transactions, on top of two ports.
//!
//! This crate knows neither engine nor sockets nor the messages that clients send. It asks a [`SegmentOps`] for
//! segments and keeps its records in a [`MetadataTable`]. Start reading at [`Controller`]; what its calls take and
//! answer is in [`model`].
//!
//! ```text
//!   caller ─► Controller ─► tasks: lock, record, perform ─► MetadataTable, SegmentOps
//!                             │  ▲
//!                             ▼  │ plain values
//!                            state: decide
//! ```
//!
//! What it guarantees, through a crash between any two calls of a port:
//! * the open segments of a stream cover the key space exactly once, with bit-identical neighbouring bounds and 1.0 at
//!   the end
//! * a segment that a scale or a commit over a scale sealed has successors before it is sealed, and for ever; each
//!   successor names all its predecessors
//! * a commit that was accepted is merged whole, once, in the order of acceptance; an aborted transaction leaves
//!   nothing
//! * what is half done is finished by the next start, which does not look at idle streams
//!
//! Source of names, limits and edge cases: Pravega's controller, as its published clients meet it.

mod codec;
// For the fuzz package alone.
#[doc(hidden)]
pub mod fuzz;
pub mod model;
mod ports;
mod state;
mod tasks;

pub use ports::{
    AppendedAt, Change, Clock, Created, Deleted, Entry, Expect, Load, LoadMeter, Merged, MetadataTable, PolicyUpdated,
    PortError, Ports, Room, ScaleHint, Sealed, SegmentInfo, SegmentOps, SegmentRead, TableError, Truncated, Version,
};
pub use tasks::Controller;
