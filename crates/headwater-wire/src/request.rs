//! What clients ask, apart from appends.

use bytes::Bytes;
use headwater_types::{AttributeId, WriterId};

use crate::catalogue::commands;
use crate::field::{Text, Token};
use crate::parts::{AttributeUpdate, TableEntry, TableKey};
use crate::{HEADER_BYTES, SERVER_FRAME_BYTES_MAX};

commands! {
    /// A request that gets exactly one reply. The fields stand in wire order.
    enum Request, payload at most SERVER_FRAME_BYTES_MAX - HEADER_BYTES;

    /// Answered by `StorageChunksListed`. Stock servers offer it on their admin port only.
    -5 => ListStorageChunks { segment: Text, token: Token, request_id: i64 }
    /// Answered by `StorageFlushed`. Stock servers offer it on their admin port only.
    -3 => FlushToStorage { container_id: i32, token: Token, request_id: i64 }
    /// Answered by `SegmentRead`. At the tail the answer waits for data. Several may be under way with one id.
    9 => ReadSegment {
        segment: Text,
        /// First byte wanted; the reply repeats it.
        offset: i64,
        /// Most bytes wanted.
        suggested_length: i32,
        token: Token,
        request_id: i64 = -1,
    }
    /// Answered by `StreamSegmentInfo`.
    11 => GetStreamSegmentInfo { request_id: i64, segment: Text, token: Token }
    /// Answered by `SegmentCreated`.
    20 => CreateSegment {
        request_id: i64,
        segment: Text,
        /// KB/s or events/s, by `scale_type`. Stands before the type.
        target_rate: i32,
        /// 0 fixed, 1 by throughput, 2 by event rate.
        scale_type: i8,
        token: Token,
        /// 0 leaves it to the server.
        rollover_bytes: i64 = 0,
    }
    /// Answered by `SegmentSealed`.
    28 => SealSegment { request_id: i64, segment: Text, token: Token }
    /// Answered by `SegmentDeleted`.
    30 => DeleteSegment { request_id: i64, segment: Text, token: Token }
    /// Answered by `SegmentPolicyUpdated`.
    32 => UpdateSegmentPolicy { request_id: i64, segment: Text, target_rate: i32, scale_type: i8, token: Token }
    /// Answered by `SegmentAttribute`.
    34 => GetSegmentAttribute { request_id: i64, segment: Text, attribute: AttributeId, token: Token }
    /// Answered by `SegmentAttributeUpdated`.
    36 => UpdateSegmentAttribute {
        request_id: i64,
        segment: Text,
        attribute: AttributeId,
        /// `i64::MIN` removes the attribute. Stands before the expected value.
        new_value: i64,
        /// `i64::MIN` for "must not be set".
        expected_value: i64,
        token: Token,
    }
    /// Answered by `SegmentTruncated`.
    38 => TruncateSegment {
        request_id: i64,
        segment: Text,
        /// New start of the segment.
        truncation_offset: i64,
        token: Token,
    }
    /// Answered by `SegmentCreated` with a name that the server makes.
    40 => CreateTransientSegment { request_id: i64, writer: WriterId, parent: Text, token: Token }
    /// Answered by `OffsetLocated`: an event boundary at or after the target.
    41 => LocateOffset { request_id: i64, segment: Text, target_offset: i64, token: Token }
    /// Answered by `SegmentsMerged`, or `SegmentAttributeUpdated(false)` when an attribute condition failed.
    58 => MergeSegments {
        request_id: i64,
        target: Text,
        source: Text,
        token: Token,
        attribute_updates: Vec<AttributeUpdate> = Vec::new(),
    }
    /// Answered by `TableSegmentInfo`.
    68 => GetTableSegmentInfo { request_id: i64, segment: Text, token: Token }
    /// Answered by `SegmentCreated`. The Rust client stops after the token.
    70 => CreateTableSegment {
        request_id: i64,
        segment: Text,
        token: Token,
        /// Ignored by servers.
        sorted: bool = false,
        /// Bytes of every key, 0 for a hash table.
        key_length: i32 = 0,
        /// 0 leaves it to the server.
        rollover_bytes: i64 = 0,
    }
    /// Answered by `SegmentDeleted`.
    71 => DeleteTableSegment { request_id: i64, segment: Text, must_be_empty: bool, token: Token }
    /// Answered by `TableEntriesUpdated`, all or nothing.
    74 => UpdateTableEntries {
        request_id: i64,
        segment: Text,
        token: Token,
        entries: Vec<TableEntry>,
        /// Length the table must have; −1 for any.
        table_offset: i64 = -1,
    }
    /// Answered by `TableKeysRemoved`, all or nothing.
    76 => RemoveTableKeys {
        request_id: i64,
        segment: Text,
        token: Token,
        keys: Vec<TableKey>,
        /// Length the table must have; −1 for any.
        table_offset: i64 = -1,
    }
    /// Answered by `TableRead` with one entry per key.
    78 => ReadTable {
        request_id: i64,
        segment: Text,
        token: Token,
        /// Versions are not looked at.
        keys: Vec<TableKey>,
    }
    /// Answered by `TableKeysRead`. The Rust client stops after the continuation token.
    83 => ReadTableKeys {
        request_id: i64,
        segment: Text,
        token: Token,
        suggested_count: i32,
        /// Of the page before; empty for the first.
        continuation: Bytes,
        /// Retired: written empty, ignored on reading.
        prefix: Bytes = Bytes::new(),
        /// Inclusive; empty for the smallest. Fixed-key-length tables only.
        from_key: Bytes = Bytes::new(),
        /// Inclusive; empty for the greatest. Fixed-key-length tables only.
        to_key: Bytes = Bytes::new(),
    }
    /// Answered by `TableEntriesRead`. The Rust client stops after the continuation token.
    85 => ReadTableEntries {
        request_id: i64,
        segment: Text,
        token: Token,
        suggested_count: i32,
        /// Of the page before; empty for the first.
        continuation: Bytes,
        /// Retired: written empty, ignored on reading.
        prefix: Bytes = Bytes::new(),
        /// Inclusive; empty for the smallest. Fixed-key-length tables only.
        from_key: Bytes = Bytes::new(),
        /// Inclusive; empty for the greatest. Fixed-key-length tables only.
        to_key: Bytes = Bytes::new(),
    }
    /// Answered by `TableEntriesDeltaRead`, whose code is the smaller one.
    88 => ReadTableEntriesDelta {
        request_id: i64,
        segment: Text,
        token: Token,
        /// 0 for the beginning, else `last_position` of the page before.
        from_position: i64,
        suggested_count: i32,
    }
    /// Answered by `SegmentsBatchMerged`; sources merge in this order.
    90 => MergeSegmentsBatch { request_id: i64, target: Text, sources: Vec<Text>, token: Token }
}

impl Request {
    /// The client's id, which the reply carries back unchanged. Ids need not be unique.
    pub fn request_id(&self) -> i64 {
        match self {
            Self::ListStorageChunks { request_id, .. }
            | Self::FlushToStorage { request_id, .. }
            | Self::ReadSegment { request_id, .. }
            | Self::GetStreamSegmentInfo { request_id, .. }
            | Self::CreateSegment { request_id, .. }
            | Self::SealSegment { request_id, .. }
            | Self::DeleteSegment { request_id, .. }
            | Self::UpdateSegmentPolicy { request_id, .. }
            | Self::GetSegmentAttribute { request_id, .. }
            | Self::UpdateSegmentAttribute { request_id, .. }
            | Self::TruncateSegment { request_id, .. }
            | Self::CreateTransientSegment { request_id, .. }
            | Self::LocateOffset { request_id, .. }
            | Self::MergeSegments { request_id, .. }
            | Self::GetTableSegmentInfo { request_id, .. }
            | Self::CreateTableSegment { request_id, .. }
            | Self::DeleteTableSegment { request_id, .. }
            | Self::UpdateTableEntries { request_id, .. }
            | Self::RemoveTableKeys { request_id, .. }
            | Self::ReadTable { request_id, .. }
            | Self::ReadTableKeys { request_id, .. }
            | Self::ReadTableEntries { request_id, .. }
            | Self::ReadTableEntriesDelta { request_id, .. }
            | Self::MergeSegmentsBatch { request_id, .. } => *request_id,
        }
    }

    /// Bytes of keys, values and bounds of pages: what of the frame is still needed once the request is read. `None` if
    /// there are no such fields.
    pub(crate) fn kept_bytes(&self) -> Option<usize> {
        match self {
            Self::UpdateTableEntries { entries, .. } => {
                Some(entries.iter().map(|entry| entry.key.key.len() + entry.value.len()).sum())
            }
            Self::RemoveTableKeys { keys, .. } | Self::ReadTable { keys, .. } => {
                Some(keys.iter().map(|key| key.key.len()).sum())
            }
            Self::ReadTableKeys { continuation, from_key, to_key, .. }
            | Self::ReadTableEntries { continuation, from_key, to_key, .. } => {
                Some(continuation.len() + from_key.len() + to_key.len())
            }
            _ => None,
        }
    }

    /// The segment the request is about: the parent of a transient segment, the target of a merge; none for a flush.
    pub fn segment(&self) -> Option<&Text> {
        match self {
            Self::ListStorageChunks { segment, .. }
            | Self::ReadSegment { segment, .. }
            | Self::GetStreamSegmentInfo { segment, .. }
            | Self::CreateSegment { segment, .. }
            | Self::SealSegment { segment, .. }
            | Self::DeleteSegment { segment, .. }
            | Self::UpdateSegmentPolicy { segment, .. }
            | Self::GetSegmentAttribute { segment, .. }
            | Self::UpdateSegmentAttribute { segment, .. }
            | Self::TruncateSegment { segment, .. }
            | Self::CreateTransientSegment { parent: segment, .. }
            | Self::LocateOffset { segment, .. }
            | Self::MergeSegments { target: segment, .. }
            | Self::GetTableSegmentInfo { segment, .. }
            | Self::CreateTableSegment { segment, .. }
            | Self::DeleteTableSegment { segment, .. }
            | Self::UpdateTableEntries { segment, .. }
            | Self::RemoveTableKeys { segment, .. }
            | Self::ReadTable { segment, .. }
            | Self::ReadTableKeys { segment, .. }
            | Self::ReadTableEntries { segment, .. }
            | Self::ReadTableEntriesDelta { segment, .. }
            | Self::MergeSegmentsBatch { target: segment, .. } => Some(segment),
            Self::FlushToStorage { .. } => None,
        }
    }

    /// The delegation token.
    pub fn token(&self) -> &Token {
        match self {
            Self::ListStorageChunks { token, .. }
            | Self::FlushToStorage { token, .. }
            | Self::ReadSegment { token, .. }
            | Self::GetStreamSegmentInfo { token, .. }
            | Self::CreateSegment { token, .. }
            | Self::SealSegment { token, .. }
            | Self::DeleteSegment { token, .. }
            | Self::UpdateSegmentPolicy { token, .. }
            | Self::GetSegmentAttribute { token, .. }
            | Self::UpdateSegmentAttribute { token, .. }
            | Self::TruncateSegment { token, .. }
            | Self::CreateTransientSegment { token, .. }
            | Self::LocateOffset { token, .. }
            | Self::MergeSegments { token, .. }
            | Self::GetTableSegmentInfo { token, .. }
            | Self::CreateTableSegment { token, .. }
            | Self::DeleteTableSegment { token, .. }
            | Self::UpdateTableEntries { token, .. }
            | Self::RemoveTableKeys { token, .. }
            | Self::ReadTable { token, .. }
            | Self::ReadTableKeys { token, .. }
            | Self::ReadTableEntries { token, .. }
            | Self::ReadTableEntriesDelta { token, .. }
            | Self::MergeSegmentsBatch { token, .. } => token,
        }
    }

    /// Protocol version since which servers know this command (a server of the version before may still know it, where
    /// the version was not raised for it).
    pub fn since_version(&self) -> i32 {
        match self {
            Self::ReadSegment { .. }
            | Self::GetStreamSegmentInfo { .. }
            | Self::CreateSegment { .. }
            | Self::SealSegment { .. }
            | Self::DeleteSegment { .. }
            | Self::UpdateSegmentPolicy { .. }
            | Self::GetSegmentAttribute { .. }
            | Self::UpdateSegmentAttribute { .. }
            | Self::MergeSegments { .. } => 1,
            Self::TruncateSegment { .. } => 2,
            Self::CreateTableSegment { .. }
            | Self::DeleteTableSegment { .. }
            | Self::UpdateTableEntries { .. }
            | Self::RemoveTableKeys { .. }
            | Self::ReadTable { .. } => 7,
            Self::ReadTableKeys { .. } | Self::ReadTableEntries { .. } => 8,
            Self::ReadTableEntriesDelta { .. } => 10,
            Self::FlushToStorage { .. } | Self::GetTableSegmentInfo { .. } => 14,
            Self::CreateTransientSegment { .. } | Self::MergeSegmentsBatch { .. } | Self::ListStorageChunks { .. } => {
                15
            }
            Self::LocateOffset { .. } => 17,
        }
    }
}
