//! What servers answer.

use bytes::Bytes;
use headwater_types::WriterId;

use crate::FRAME_PAYLOAD_BYTES_MAX;
use crate::catalogue::commands;
use crate::field::Text;
use crate::parts::{ChunkInfo, ErrorCode, MergedSource, TableEntry, TableKey, TokenFailure};

commands! {
    /// A frame from the server. The fields stand in wire order and all of them are always written: the Rust client's
    /// decoder knows no optional fields. `trace` is a stack trace in stock servers and may be empty.
    enum Reply, payload at most FRAME_PAYLOAD_BYTES_MAX;

    /// The versions the server speaks, in answer to every Hello.
    -127 => Hello { high_version: i32, low_version: i32 }
    /// Answers `ListStorageChunks`.
    -6 => StorageChunksListed { request_id: i64, chunks: Vec<ChunkInfo> }
    /// Answers `FlushToStorage`.
    -4 => StorageFlushed { request_id: i64 }
    /// Answers `SetupAppend`; acknowledges everything up to the number it carries.
    2 => AppendSetup {
        request_id: i64,
        segment: Text,
        writer: WriterId,
        /// `i64::MIN` for a writer that never stored anything.
        last_event_number: i64,
    }
    /// Acknowledges one append.
    7 => DataAppended {
        writer: WriterId,
        /// Last event number of the append.
        event_number: i64,
        /// Number acknowledged before it; the first time, the one from `AppendSetup`.
        previous_event_number: i64 = -1,
        request_id: i64 = -1,
        /// Length of the segment right after the append.
        segment_length: i64 = -1,
    }
    /// The segment's length was not the expected offset; nothing was stored and the writer may go on.
    8 => ConditionalCheckFailed { writer: WriterId, event_number: i64, request_id: i64 = -1 }
    /// Answers `ReadSegment`.
    10 => SegmentRead {
        segment: Text,
        /// The offset that was asked for, always.
        offset: i64,
        /// Nothing follows the data yet.
        at_tail: bool,
        /// The segment is sealed and the data reaches its end.
        end_of_segment: bool,
        data: Bytes,
        request_id: i64 = -1,
    }
    /// Answers `GetStreamSegmentInfo`.
    12 => StreamSegmentInfo {
        request_id: i64,
        segment: Text,
        exists: bool,
        sealed: bool,
        deleted: bool,
        /// Milliseconds since 1970.
        last_modified: i64,
        /// Length, truncated bytes included.
        write_offset: i64,
        start_offset: i64 = 0,
    }
    /// Answers the three commands that create segments.
    21 => SegmentCreated { request_id: i64, segment: Text }
    /// Answers `SealSegment`.
    29 => SegmentSealed { request_id: i64, segment: Text }
    /// Answers the two commands that delete segments.
    31 => SegmentDeleted { request_id: i64, segment: Text }
    /// Answers `UpdateSegmentPolicy`.
    33 => SegmentPolicyUpdated { request_id: i64, segment: Text }
    /// Answers `GetSegmentAttribute`.
    35 => SegmentAttribute {
        request_id: i64,
        /// `i64::MIN` when unset.
        value: i64,
    }
    /// Answers `UpdateSegmentAttribute`; with `false` also a merge whose attribute condition failed.
    37 => SegmentAttributeUpdated { request_id: i64, success: bool }
    /// Answers `TruncateSegment`.
    39 => SegmentTruncated { request_id: i64, segment: Text }
    /// Answers `LocateOffset`.
    42 => OffsetLocated { request_id: i64, segment: Text, offset: i64 }
    /// The segment lives on another server.
    50 => WrongHost {
        request_id: i64,
        segment: Text,
        /// Stock servers leave it empty and no client reads it.
        correct_host: Text,
        trace: Text = Text::default(),
    }
    /// The segment does not grow any more.
    51 => SegmentIsSealed {
        request_id: i64,
        segment: Text,
        trace: Text = Text::default(),
        /// Of a read: the offset asked for. Of an append: its event number. Else −1.
        offset: i64 = -1,
    }
    /// The segment is there already.
    52 => SegmentAlreadyExists { request_id: i64, segment: Text, trace: Text = Text::default() }
    /// The segment is not there.
    53 => NoSuchSegment {
        request_id: i64,
        segment: Text,
        trace: Text = Text::default(),
        /// Of a read or truncation: the offset asked for. Else −1.
        offset: i64 = -1,
    }
    /// The writer's number is stale: another connection moved on. The server closes the connection after it.
    /// Layout of version 16; older servers put the event number where the request id is now and end after the trace.
    55 => InvalidEventNumber {
        writer: WriterId,
        request_id: i64,
        trace: Text = Text::default(),
        event_number: i64 = -1,
    }
    /// What was asked for is gone, or an offset condition failed.
    56 => SegmentIsTruncated {
        request_id: i64,
        segment: Text,
        /// Where the data starts now. Stands before the trace.
        start_offset: i64,
        trace: Text = Text::default(),
        /// What was asked for.
        offset: i64 = -1,
    }
    /// The server does not do that.
    57 => OperationUnsupported { request_id: i64, operation: Text, trace: Text = Text::default() }
    /// Answers `MergeSegments`.
    59 => SegmentsMerged {
        request_id: i64,
        target: Text,
        source: Text,
        /// Length of the target after the merge.
        target_length: i64 = -1,
    }
    /// The token is no good.
    60 => AuthTokenCheckFailed {
        request_id: i64,
        trace: Text = Text::default(),
        failure: TokenFailure = TokenFailure::Unspecified,
    }
    /// The request cannot be carried out, in words. The Java client fails every request of the flow.
    61 => ErrorMessage { request_id: i64, segment: Text, message: Text, code: ErrorCode }
    /// Answers `GetTableSegmentInfo`.
    69 => TableSegmentInfo {
        request_id: i64,
        segment: Text,
        start_offset: i64,
        /// End of the position space.
        length: i64,
        entry_count: i64,
        /// 0 for a hash table.
        key_length: i32,
    }
    /// Answers `UpdateTableEntries`.
    75 => TableEntriesUpdated {
        request_id: i64,
        /// One per entry, in the order of the request.
        versions: Vec<i64>,
    }
    /// Answers `RemoveTableKeys`.
    77 => TableKeysRemoved { request_id: i64, segment: Text }
    /// Answers `ReadTable`.
    79 => TableRead {
        request_id: i64,
        segment: Text,
        /// One per key, in the order of the request.
        entries: Vec<TableEntry>,
    }
    /// The table was to be deleted only if empty.
    80 => TableSegmentNotEmpty { request_id: i64, segment: Text, trace: Text }
    /// A key with an expected version is missing.
    81 => TableKeyDoesNotExist { request_id: i64, segment: Text, trace: Text }
    /// A key has another version than expected.
    82 => TableKeyBadVersion { request_id: i64, segment: Text, trace: Text }
    /// Answers `ReadTableKeys`. Only an empty page is the end.
    84 => TableKeysRead { request_id: i64, segment: Text, keys: Vec<TableKey>, continuation: Bytes }
    /// Answers `ReadTableEntries`. Only an empty page is the end.
    86 => TableEntriesRead { request_id: i64, segment: Text, entries: Vec<TableEntry>, continuation: Bytes }
    /// Answers `ReadTableEntriesDelta`.
    87 => TableEntriesDeltaRead {
        request_id: i64,
        segment: Text,
        entries: Vec<TableEntry>,
        /// Updates before the position may be gone: start over.
        should_clear: bool,
        reached_end: bool,
        /// Where the next request starts.
        last_position: i64,
    }
    /// Answers `MergeSegmentsBatch`.
    91 => SegmentsBatchMerged { request_id: i64, target: Text, merged: Vec<MergedSource> }
    /// Answers `KeepAlive`.
    100 => KeepAlive
}

impl Reply {
    /// Our side of the handshake. The Rust client needs a high version of at least 15.
    pub fn hello() -> Self {
        Self::Hello { high_version: crate::VERSION, low_version: crate::VERSION_OLDEST }
    }

    /// The id of the request this answers; `None` for Hello and KeepAlive.
    pub fn request_id(&self) -> Option<i64> {
        match self {
            Self::Hello { .. } | Self::KeepAlive => None,
            Self::StorageChunksListed { request_id, .. }
            | Self::StorageFlushed { request_id }
            | Self::AppendSetup { request_id, .. }
            | Self::DataAppended { request_id, .. }
            | Self::ConditionalCheckFailed { request_id, .. }
            | Self::SegmentRead { request_id, .. }
            | Self::StreamSegmentInfo { request_id, .. }
            | Self::SegmentCreated { request_id, .. }
            | Self::SegmentSealed { request_id, .. }
            | Self::SegmentDeleted { request_id, .. }
            | Self::SegmentPolicyUpdated { request_id, .. }
            | Self::SegmentAttribute { request_id, .. }
            | Self::SegmentAttributeUpdated { request_id, .. }
            | Self::SegmentTruncated { request_id, .. }
            | Self::OffsetLocated { request_id, .. }
            | Self::WrongHost { request_id, .. }
            | Self::SegmentIsSealed { request_id, .. }
            | Self::SegmentAlreadyExists { request_id, .. }
            | Self::NoSuchSegment { request_id, .. }
            | Self::InvalidEventNumber { request_id, .. }
            | Self::SegmentIsTruncated { request_id, .. }
            | Self::OperationUnsupported { request_id, .. }
            | Self::SegmentsMerged { request_id, .. }
            | Self::AuthTokenCheckFailed { request_id, .. }
            | Self::ErrorMessage { request_id, .. }
            | Self::TableSegmentInfo { request_id, .. }
            | Self::TableEntriesUpdated { request_id, .. }
            | Self::TableKeysRemoved { request_id, .. }
            | Self::TableRead { request_id, .. }
            | Self::TableSegmentNotEmpty { request_id, .. }
            | Self::TableKeyDoesNotExist { request_id, .. }
            | Self::TableKeyBadVersion { request_id, .. }
            | Self::TableKeysRead { request_id, .. }
            | Self::TableEntriesRead { request_id, .. }
            | Self::TableEntriesDeltaRead { request_id, .. }
            | Self::SegmentsBatchMerged { request_id, .. } => Some(*request_id),
        }
    }
}
