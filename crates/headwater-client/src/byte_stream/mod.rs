//! Streams of one segment that hold bytes and no events: written at the end, read from any offset.
//!
//! Offsets count from the first byte ever written; truncation moves the first that can be read and renumbers nothing.
//!
//! Source: `ByteStreamWriter` and `ByteStreamReader` of Pravega's Java client, which write and read the same bytes.

mod reader;
mod writer;

pub use reader::ByteReader;
pub use writer::{ByteAck, ByteWriter, ByteWriterOptions};
