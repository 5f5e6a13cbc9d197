//! Streams of labelled records of one size, in which a record is found by a label's value without reading what is before it.
//!
//! ```text
//!   ┌────────────────────┬────────────────────┬────────────────────┐
//!   │ time=10 bytes=0    │ time=10 bytes=512  │ time=17 bytes=2048 │ ► values never fall
//!   │ data          0000 │ data          0000 │ data          0000 │
//!   └────────────────────┴────────────────────┴────────────────────┘
//!    every record as long as the first
//! ```
//!
//! Guarantees:
//! * all records of a stream have one size, which an attribute of its segment remembers
//! * all have the same labels, and no label's value falls from one record to the next
//!
//! Source: the index streams of Pravega's Rust client, whose attribute this is; what is inside a record is our own.

mod reader;
mod record;
mod writer;

pub use reader::{IndexReader, IndexRecords};
pub use record::IndexRecord;
pub use writer::IndexWriter;

use headwater_types::AttributeId;

/// Bytes of a record.
const RECORD_BYTES: AttributeId = AttributeId(0xffff_ffe8_b789_1801_0000_0000_0000_0011);
