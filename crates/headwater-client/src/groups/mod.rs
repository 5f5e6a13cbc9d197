//! Reader groups: readers that share the events of streams among them, so that each event is read by one.
//!
//! ```text
//!   ReaderGroup ─ reader(id) ─► EventReader ── events of the segments that it has ─► application
//!        │                          │
//!        │      Replica of the group's state: a stream of one segment that all readers change by agreement
//!        └──────────────────────────┘
//! ```
//!
//! Guarantees:
//! * each segment is read by one reader at a time, and goes on with the next one where the last one left it: readers follow the
//!   rules of Pravega's Java client on the same bytes, and share groups with it
//! * events of one key come in the order in which they were written, through all changes of a stream's segments
//! * a reader that dies loses nothing: what it has goes on from the position that it is [declared
//!   offline](ReaderGroup::reader_offline) with, or from its last checkpoint. What came behind that is read again
//!
//! That a reader died others find out by themselves if it [beats](ReaderOptions::dead_after). Of others, as Java's, whoever runs
//! them has to say so.

mod acknowledging;
mod batch;
mod beating;
mod calls;
mod config;
mod group;
mod reader;
mod reading;
mod replica;
mod windows;

pub use acknowledging::{Acknowledger, AcknowledgingOptions, AcknowledgingReader, Received};
pub use batch::{Batch, EventBatch};
pub use beating::GroupWatch;
pub use config::ReaderGroupConfig;
pub use group::{CheckpointUnderWay, ReaderGroup};
pub use headwater_records::group::{Handover, Retention as GroupRetention};
pub use reader::{Delivery, EventReader, GroupEvent, ReaderOptions};
pub use windows::TimeWindow;
