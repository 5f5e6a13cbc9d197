//! What a stream is: scopes, streams, epochs of segments, cuts and transactions, on top of two ports.
//!
//! This crate knows neither engine nor sockets nor the messages that clients send. It asks a [`SegmentOps`] for segments
//! and keeps its records in a [`MetadataTable`].

mod codec;
pub mod model;
mod ports;
mod state;
mod tasks;

pub use ports::{
    Change, Clock, Created, Deleted, Entry, Expect, Merged, MetadataTable, PolicyUpdated, PortError, Ports, ScaleHint,
    Sealed, SegmentInfo, SegmentOps, TableError, Truncated, Version,
};
pub use tasks::Controller;
