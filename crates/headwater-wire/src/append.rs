//! The commands that carry appends, and those that open and keep a connection, as they stand on the wire.
//!
//! Users of the machines see none of these: the server end hands out whole [`Append`](crate::Append)s and the client
//! end takes them. They are public for tools that look at single frames.

use bytes::Bytes;
use headwater_types::WriterId;

use crate::catalogue::commands;
use crate::field::{Event, Rest, Text, Token};
use crate::{HEADER_BYTES, SERVER_FRAME_BYTES_MAX};

/// Code of the first frame of each side.
pub(crate) const HELLO: i32 = -127;
/// Code of the only frame that may follow an append block.
pub(crate) const APPEND_BLOCK_END: i32 = 4;

commands! {
    /// A frame of the append path, client to server.
    enum AppendCommand, payload at most SERVER_FRAME_BYTES_MAX - HEADER_BYTES;

    /// Fills the end of a block; alone it means nothing and is skipped.
    -1 => Padding {
        /// Zeros, by custom.
        zeros: Rest,
    }
    /// Registers a writer for a segment and asks for its last event number.
    1 => SetupAppend { request_id: i64, writer: WriterId, segment: Text, token: Token }
    /// Opens a block: whole events, then nothing, padding, or the beginning of one more event.
    3 => AppendBlock { writer: WriterId, data: Rest }
    /// Closes the block, or is a whole append by itself.
    4 => AppendBlockEnd {
        writer: WriterId,
        /// How much of the block is whole events; meaningless without a block.
        whole_bytes: i32,
        data: Bytes,
        event_count: i32,
        last_event_number: i64,
        request_id: i64 = -1,
    }
    /// One event, to be stored only at `expected_offset`.
    5 => ConditionalAppend {
        writer: WriterId,
        event_number: i64,
        expected_offset: i64,
        event: Event,
        request_id: i64 = -1,
    }
    /// Any bytes, to be stored only at `expected_offset`.
    89 => ConditionalBlockEnd {
        writer: WriterId,
        event_number: i64,
        expected_offset: i64,
        data: Bytes,
        request_id: i64,
    }
}

commands! {
    /// A frame that belongs to the connection itself, in either direction.
    enum SessionCommand, payload at most SERVER_FRAME_BYTES_MAX - HEADER_BYTES;

    /// The versions a side speaks.
    -127 => Hello { high_version: i32, low_version: i32 }
    /// Asks for the same back.
    100 => KeepAlive
}
