//! Pravega wire protocol: codec and the connection machines of both ends, without I/O.
//!
//! Version 17 of the protocol between clients and segment stores (Pravega 0.14), accepted down to version 5. A
//! connection task owns a socket, an input [`BytesMut`](bytes::BytesMut) and a [`FrameQueue`]; between them stands a
//! machine that turns bytes, cut anywhere, into events: [`ServerEnd`] or [`ClientEnd`].
//!
//! # Frames
//!
//! ```text
//!   0        4        8                      8 + length
//!   │ code   │ length │ payload: the fields  │            i32, i32, bytes; everything big-endian
//! ```
//!
//! Fields have no tags: they stand in the order in which the commands of [`Request`], [`Reply`] and [`AppendCommand`]
//! list them. Newer versions appended fields, so an older peer's frame may end early (the declared values are taken for
//! what is missing) and a newer peer's frame may go on (what follows is skipped). We always write all fields, because the
//! Rust client can do without none. The first frame of each side is `Hello`; a client need not wait for the answer.
//!
//! # Request ids
//!
//! A reply repeats the id of its request. Ids are the client's business: the Java client routes by the upper half and
//! uses one id for many reads at once, so a server neither compares nor deduplicates them. On the wire the id usually
//! comes first, but last in `ReadSegment`, `SegmentRead`, `AppendBlockEnd`, `ConditionalAppend`, `ConditionalBlockEnd`,
//! `ConditionalCheckFailed`, `FlushToStorage` and `ListStorageChunks`, fourth in `DataAppended` and second in
//! `InvalidEventNumber`. The fields `segment` (or `target`, `parent`) and `token` mean the same in every command: the
//! segment it is about, and the delegation token, empty without authentication.
//!
//! # Appends
//!
//! `SetupAppend` registers a writer for a segment; from then on data frames name only the writer. A Java client opens a
//! block (`AppendBlock`) of an announced length, streams events into it and closes it with `AppendBlockEnd`, filling
//! what is left with `Padding` or with the beginning of an event whose rest is in the end: the Rust client sends the end
//! alone, with all data in it. Nothing may stand between a block and its end. `ConditionalAppend` (one event, whose
//! 8-byte header is stored too) and `ConditionalBlockEnd` (any bytes) ask for a certain length of the segment. A server
//! sees none of this, only whole [`Append`]s.
//!
//! # Memory
//!
//! A frame above its limit is refused by its header. Lengths and counts inside are compared with what is left of the
//! frame, and counts with [`LIST_ITEMS_MAX`], before anything is allocated. Payloads of large frames are slices of the input
//! buffer, those of small ones copies: see [`COPY_BYTES_MAX`].
//!
//! # Example
//!
//! Both ends, with a buffer in place of each direction of a socket:
//!
//! ```
//! use bytes::{Bytes, BytesMut};
//! use headwater_types::WriterId;
//! use headwater_wire::{ClientEnd, OutgoingAppend, Reply, ServerEnd, ServerEvent, Token};
//!
//! let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
//! let mut client = ClientEnd::connect(&mut to_server);
//! let writer = WriterId(1);
//! client.set_up_append(7, writer, "scope/stream/0.#epoch.0".into(), Token::default(), &mut to_server)?;
//! let append = OutgoingAppend {
//!     request_id: 7,
//!     writer,
//!     data: Bytes::from_static(b"some bytes"),
//!     event_count: 1,
//!     last_event_number: 1,
//! };
//! client.append(append, &mut to_server)?;
//!
//! let mut server = ServerEnd::new();
//! let mut length = 0;
//! while let Some(event) = server.next_event(&mut to_server)? {
//!     let reply = match event {
//!         ServerEvent::Hello { .. } | ServerEvent::Incompatible { .. } => Reply::hello(),
//!         ServerEvent::SetupAppend(setup) => Reply::AppendSetup {
//!             request_id: setup.request_id,
//!             segment: setup.segment,
//!             writer: setup.writer,
//!             last_event_number: i64::MIN,
//!         },
//!         ServerEvent::Append(append) => {
//!             length += append.data.len() as i64;
//!             Reply::DataAppended {
//!                 writer: append.writer,
//!                 event_number: append.last_event_number,
//!                 previous_event_number: i64::MIN,
//!                 request_id: append.request_id,
//!                 segment_length: length,
//!             }
//!         }
//!         ServerEvent::KeepAlive => Reply::KeepAlive,
//!         ServerEvent::Request(_) => unreachable!("this client asks nothing"),
//!     };
//!     reply.encode(&mut to_client)?;
//! }
//!
//! let mut names = Vec::new();
//! while let Some(reply) = client.next_reply(&mut to_client)? {
//!     names.push(reply.name());
//! }
//! assert_eq!(names, ["Hello", "AppendSetup", "DataAppended"]);
//! assert_eq!(length, 10);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Source: Pravega wire protocol 17, the Java client 0.13/0.14 and the Rust client 0.3.7.

mod append;
mod block;
mod catalogue;
mod client;
mod error;
mod field;
mod frame;
mod parts;
mod pieces;
mod queue;
mod reply;
mod request;
mod server;

pub use append::{AppendCommand, SessionCommand};
pub use client::{ClientEnd, OutgoingAppend};
pub use error::{BlockMismatch, EncodeError, Malformed, WireError};
pub use field::{Event, Rest, Text, Token};
pub use headwater_types::limits::{FRAME_PAYLOAD_BYTES_MAX, SERVER_FRAME_BYTES_MAX};
pub use parts::{
    AttributeUpdate, ChunkInfo, ErrorCode, MergedSource, NO_VERSION, NOT_EXISTS, TableEntry, TableKey, TokenFailure,
};
pub use pieces::SegmentPieces;
pub use queue::{FrameQueue, FrameSink, SHARE_BYTES_MIN};
pub use reply::Reply;
pub use request::Request;
pub use server::{Append, ServerEnd, ServerEvent, SetupAppend};

/// The version we speak and announce.
pub const VERSION: i32 = 17;
/// The oldest version we understand, announced as well. Older ones have no delegation tokens in their requests.
pub const VERSION_OLDEST: i32 = 5;
/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 8;

/// Largest first frame of a peer, header included: a Hello has 16 bytes, and before it nobody may make us hold more than a
/// little of what newer versions might add to it.
pub const HELLO_FRAME_BYTES_MAX: usize = 1024;

/// Writers one connection may set up. The Java client shares a connection among at most 2000; the Rust client uses one
/// connection per writer and segment.
pub const WRITERS_MAX: usize = 4096;

/// Items in one list of a command. Bounds what a frame of tiny items takes when decoded to less than the frame limit;
/// the published clients send at most some hundreds.
pub const LIST_ITEMS_MAX: usize = 131_072;

/// Frames up to this size are copied out of the input buffer, larger ones are cut off it and shared. A shared payload
/// keeps the whole buffer it lies in alive, so a small append that waits in a queue or a cache would pin a buffer many
/// times its size; and a buffer that nobody shares is used again. 16 KiB pins at most four times its size in a
/// read buffer of 64 KiB, and copying it takes about a microsecond.
pub const COPY_BYTES_MAX: usize = 16 * 1024;

/// Most data one [`Append`] can have: a block and its end.
pub const APPEND_BYTES_MAX: usize = 2 * SERVER_FRAME_BYTES_MAX;

/// Whether a peer with these versions and we have one in common, by the rule of Pravega's server and Java client.
pub fn versions_overlap(high: i32, low: i32) -> bool {
    low <= VERSION && high >= VERSION_OLDEST
}
