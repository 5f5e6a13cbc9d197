//! Client of Headwater and of Pravega servers.
//!
//! # What is told
//!
//! By way of `tracing`, never with events, keys, values, tokens or secrets in it:
//!
//! | target | level | what |
//! |---|---|---|
//! | `headwater_client::connection` | debug | a connection to a controller or segment store was opened or could not be, one to a segment store ended |
//! | `headwater_client::retry` | debug | an attempt failed and is made again, a writer connects again |
//! | `headwater_client::scale` | info | a writer, or a reader that is alone, goes on in the successors of a segment |
//! | `headwater_client::group` | info | a reader joined or left its group, takes a segment, gives one away, passes one on to its successors, declares another offline |
//! | `headwater_client::group` | warn | what a group has read cannot be released for the stream's retention |
//! | `headwater_client::token` | debug, warn | a token was renewed; could not be |

/// An example as the documentation shows it. It is compiled here, and runs against a store in the tests of the crate `headwater`,
/// which this one must not know.
macro_rules! example {
    ($file:literal) => {
        concat!(
            "\n```no_run\n# async fn run(client: &headwater_client::Client, stream: &headwater_client::ScopedStream) ",
            "-> std::result::Result<(), Box<dyn std::error::Error>> {\n",
            include_str!($file),
            "# Ok(())\n# }\n```"
        )
    };
}
pub(crate) use example;

mod addresses;
mod appending;
mod batch;
pub mod blocking;
mod byte_stream;
mod client;
mod connection;
mod controller;
mod credentials;
mod cuts;
mod endpoint;
mod error;
mod follow;
mod groups;
mod index;
mod model;
mod oidc;
mod options;
mod pool;
mod reading;
mod retry;
mod revisioned;
mod segments;
mod streams;
mod synchronizing;
mod tables;
mod told;
mod transactions;
mod transport;
mod typed;
mod writer;

pub use batch::{SegmentSlice, SliceReader};
pub use byte_stream::{ByteAck, ByteReader, ByteWriter, ByteWriterOptions};
pub use client::Client;
pub use credentials::{Credentials, basic, bearer};
pub use endpoint::Endpoint;
pub use error::{Error, ErrorKind, Result};
pub use follow::{ReadEvent, ReadFrom, StreamReader};
pub use groups::{
    Acknowledger, AcknowledgingOptions, AcknowledgingReader, Batch, CheckpointUnderWay, Delivery, EventBatch,
    EventReader, GroupEvent, GroupRetention, GroupWatch, Handover, ReaderGroup, ReaderGroupConfig, ReaderOptions,
    Received, TimeWindow,
};
pub use headwater_records::{Checkpoint, Cut, EventPointer, Position, StreamCut};
pub use headwater_types::{
    KeyRange, Name, NameError, ScopedStream, SegmentId, SegmentName, StreamSegment, TransactionId,
};
pub use index::{IndexReader, IndexRecord, IndexRecords, IndexWriter};
pub use model::{Retention, Scaling, SegmentInfo, SegmentRange, StreamConfig, Successor};
pub use oidc::{DeviceSignIn, OidcIssuer, OidcTokens};
pub use options::ClientOptions;
pub use revisioned::{Revision, RevisionReader, RevisionedStream};
pub use synchronizing::{Member, Membership, SharedMaps, SharedPut, SharedState, StateSynchronizer, TableSynchronizer};
pub use tables::{
    Condition, Entry, EntryIterator, KeyIterator, KeyValueRange, KeyValueTable, KeyValueTableConfig, Put, ScopedTable,
    Table, TableChanges, TableEntries, TableInfo, TableKey, Version,
};
pub use transactions::{Committing, Transaction, TransactionOptions, TransactionState, TransactionWriter};
pub use transport::{Duplex, Service, Transport};
pub use typed::{BadEvent, Json, Serializer, TypedWriter, Utf8};
pub use writer::{Ack, EVENT_BYTES_MAX, EventWriter, EventWriterOptions, NumberedWriter, Written};
