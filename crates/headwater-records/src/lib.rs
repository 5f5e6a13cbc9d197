//! What clients write for each other: the binary forms of Pravega's Java client, read and written without a server.
//!
//! ```text
//!   Cut, Position, EventPointer, Checkpoint     objects that applications keep and hand back
//!   Watermark                                   the server writes them for readers
//!   revisioned                                  one segment as a list of changes that clients agree on
//!   group                                       what the readers of a group write there, and the rules they follow
//!   Input, Output                               the numbers, texts, lists and records all of these are made of
//!   Allowance                                   how much memory may be taken for what somebody else wrote
//! ```
//!
//! Guarantees:
//! * what is written here a Java client reads, and the other way round; later revisions that a newer one adds are passed over
//! * no bytes make reading panic, and none make it take more memory than a small multiple of their length
//! * what a record cannot hold (a text of 64 KiB, an offset beyond 2^61) is refused when it is written
//!
//! Not here: connections, time, chance. Source: `VersionedSerializer` and the serializers of Pravega 0.13's client.

mod allowance;
mod checkpoint;
mod cut;
mod error;
mod input;
mod output;
mod pointer;
mod position;
pub mod revisioned;
mod watermark;

pub mod group;
#[cfg(test)]
mod testing;

pub use allowance::{Allowance, Exceeded};
pub use checkpoint::Checkpoint;
pub use cut::{Cut, StreamCut, is_unread};
pub use error::RecordError;
pub use input::{Input, Revisions};
pub use output::Output;
pub use pointer::EventPointer;
pub use position::Position;
pub use watermark::Watermark;

use std::collections::BTreeMap;

use headwater_types::{KeyRange, StreamSegment};

/// Offset that stands for a segment read to its end, in positions and in what readers agree on.
pub const READ: i64 = -1;

/// Offsets in segments, of one stream or of several.
pub type Offsets = BTreeMap<StreamSegment, i64>;

/// Which keys segments hold, as far as that is known.
pub type Ranges = BTreeMap<StreamSegment, Option<KeyRange>>;
