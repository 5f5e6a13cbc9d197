//! The two ports of the controller: what it asks of the segment store, and where it keeps its records.
//!
//! Whoever plugs in an engine implements both. The controller repeats calls after errors and after a crash, so every
//! outcome that a repetition can meet ("already exists", "no such segment", "sealed") is a value here and not an error.
//! An error means: ask again later, and the call may have taken effect.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use headwater_types::{AttributeId, Name, Offset, SegmentName, StreamSegment};

/// Why a port did not answer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// Trouble that passes: recovering, shutting down, too slow. The call may have taken effect.
    #[error("segment store is unavailable: {0}")]
    Unavailable(String),
    /// Disk or memory is full. The call has not taken effect.
    #[error("segment store is out of resources: {0}")]
    Exhausted(String),
    /// Stored bytes failed their checksum.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    /// The call breaks a rule of the store (key or value too long, wrong kind of segment). A mistake of the caller.
    #[error("segment store refused the call: {0}")]
    Refused(String),
}

/// When a segment asks to be split, as the segment store keeps it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ScaleHint {
    /// 0 never, 1 by throughput in KB/s, 2 by events/s.
    pub kind: i8,
    /// Target rate in the unit of `kind`.
    pub rate: i32,
}

/// Outcome of creating a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Created {
    /// It is new.
    Created,
    /// It was there before, with whatever content it has.
    Exists,
}

/// Outcome of sealing a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sealed {
    /// Sealed now or earlier, at this length.
    Sealed {
        /// Final length in bytes.
        end: Offset,
    },
    /// There is no such segment.
    NoSuchSegment,
}

/// Outcome of truncating a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Truncated {
    /// Its first readable byte is at the offset or, if it was truncated further before, behind it.
    Truncated,
    /// The offset lies behind the end; nothing changed.
    BeyondEnd,
    /// There is no such segment.
    NoSuchSegment,
}

/// Outcome of deleting a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Deleted {
    /// It is gone now.
    Deleted,
    /// It was not there.
    NoSuchSegment,
}

/// Outcome of merging segments into another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Merged {
    /// All sources are in the target and gone. One offset per source, in order: the end of the target after that merge,
    /// and for a source that was not there (merged before) the end of the target as it was.
    Merged {
        /// One per source.
        ends: Vec<Offset>,
    },
    /// The target is sealed. Sources that were still there remain.
    TargetSealed,
    /// There is no target.
    NoSuchTarget,
}

/// Outcome of changing a segment's scale policy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PolicyUpdated {
    /// In force, or the segment is sealed and does not care.
    Updated,
    /// There is no such segment.
    NoSuchSegment,
}

/// Outcome of reading a segment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SegmentRead {
    /// From the offset asked for, contiguous; empty at the end.
    Bytes(Bytes),
    /// The offset lies before the first readable byte, or behind the end.
    Outside {
        /// First readable byte.
        start: Offset,
    },
    /// There is no such segment.
    NoSuchSegment,
}

/// Outcome of appending at an expected end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AppendedAt {
    /// The bytes begin where the segment ended.
    Appended,
    /// The segment ended elsewhere; nothing changed. Also what a repetition of an append meets.
    Moved,
    /// The segment is sealed.
    Sealed,
    /// There is no such segment.
    NoSuchSegment,
}

/// What a segment is like now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SegmentInfo {
    /// First readable byte.
    pub start: Offset,
    /// Byte behind the last.
    pub length: Offset,
    /// Never grows again.
    pub sealed: bool,
}

/// Memory that other requests do not have until this is dropped.
pub struct Room(Box<dyn std::any::Any + Send + Sync>);

impl Room {
    /// Whatever gives the memory back when it is dropped.
    pub fn new(held: impl std::any::Any + Send + Sync) -> Self {
        Self(Box::new(held))
    }

    /// Holds something else besides, as long.
    #[must_use]
    pub fn with(self, held: impl std::any::Any + Send + Sync) -> Self {
        Self::new((self, held))
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Room").field(&self.0.type_id()).finish()
    }
}

/// Segments, as the controller needs them. Each call returns when its effect is durable.
#[async_trait]
pub trait SegmentOps: Send + Sync + 'static {
    /// Creates an empty stream segment. `rollover_bytes` 0 is the default of the store.
    async fn create_segment(
        &self,
        segment: &SegmentName,
        scale: ScaleHint,
        rollover_bytes: u64,
    ) -> Result<Created, PortError>;

    /// Makes a segment read-only. Appends that were acknowledged before are inside.
    async fn seal_segment(&self, segment: &SegmentName) -> Result<Sealed, PortError>;

    /// Drops everything before `offset`.
    async fn truncate_segment(&self, segment: &SegmentName, offset: Offset) -> Result<Truncated, PortError>;

    /// Deletes a segment, sealed or not.
    async fn delete_segment(&self, segment: &SegmentName) -> Result<Deleted, PortError>;

    /// Seals each source, appends its bytes to the target in the order given, each contiguous, and removes it. A source
    /// that does not exist counts as merged.
    async fn merge_segments(&self, target: &SegmentName, sources: &[SegmentName]) -> Result<Merged, PortError>;

    /// `None` if there is no such segment.
    async fn segment_info(&self, segment: &SegmentName) -> Result<Option<SegmentInfo>, PortError>;

    /// Replaces the scale policy of a segment.
    async fn update_policy(&self, segment: &SegmentName, scale: ScaleHint) -> Result<PolicyUpdated, PortError>;

    /// Creates an empty table segment whose keys are all of `key_bytes` bytes and in order.
    async fn create_table_segment(
        &self,
        segment: &SegmentName,
        key_bytes: u32,
        rollover_bytes: u64,
    ) -> Result<Created, PortError>;

    /// Deletes a table segment with everything in it.
    async fn delete_table_segment(&self, segment: &SegmentName) -> Result<Deleted, PortError>;

    /// Whether there is a segment of this name, of whatever kind.
    async fn segment_exists(&self, segment: &SegmentName) -> Result<bool, PortError>;

    /// Bytes that are there now, at most `bytes_max`; does not wait for more.
    async fn read_segment(
        &self,
        segment: &SegmentName,
        offset: Offset,
        bytes_max: usize,
    ) -> Result<SegmentRead, PortError>;

    /// Appends if the segment ends at `end`.
    async fn append_at(&self, segment: &SegmentName, end: Offset, data: Bytes) -> Result<AppendedAt, PortError>;

    /// An attribute of a segment; `None` if it is not set, or there is no such segment.
    async fn attribute(&self, segment: &SegmentName, id: AttributeId) -> Result<Option<i64>, PortError>;

    /// Sets an attribute that is `from` now. False if it is not, or there is no such segment.
    async fn swap_attribute(
        &self,
        segment: &SegmentName,
        id: AttributeId,
        from: Option<i64>,
        to: i64,
    ) -> Result<bool, PortError>;

    /// Entries of a table that a client made, ascending, from behind the key `after`, at most `limit`. `None` if there
    /// is no such table.
    async fn scan_client_table(
        &self,
        segment: &SegmentName,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Option<Vec<Entry>>, PortError>;

    /// Takes memory from what all requests share, and waits a little for it. [`PortError::Exhausted`] for more than one
    /// request may have.
    async fn room(&self, bytes: usize) -> Result<Room, PortError>;

    /// Deletes all table segments named `<scope>/<anything>_kvtable/...`. Rust and Python clients make them without
    /// telling the controller, so nobody else would.
    async fn drop_tables_of_scope(&self, scope: &Name) -> Result<(), PortError>;
}

/// Version of a table entry: a new, never reused, non-negative number per write of its key.
pub type Version = i64;

/// One stored entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Key.
    pub key: Bytes,
    /// Value.
    pub value: Bytes,
    /// Version.
    pub version: Version,
}

/// What must hold for a key before a batch is applied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expect {
    /// No condition.
    Any,
    /// The key is not there.
    Absent,
    /// The key is there with this version.
    Version(Version),
}

/// One change of a batch. No batch names a key twice.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// At most 8 KiB.
    pub key: Bytes,
    /// Condition.
    pub expect: Expect,
    /// New value of at most 1,040,384 bytes, or `None` to remove the key (missing is fine under [`Expect::Any`]).
    pub put: Option<Bytes>,
}

/// Why a table did not do what was asked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// There is no such table.
    #[error("no table {0}")]
    NoSuchTable(String),
    /// A condition of the batch does not hold; nothing changed.
    #[error("an entry of table {0} has another version")]
    Conflict(String),
    /// The store did not answer.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// Ordered tables with atomic batches. Tables are named by texts of printable ASCII, at most 600 bytes, such as
/// `scopes` or `stream/s/t`; where they are kept is the implementation's business.
#[async_trait]
pub trait MetadataTable: Send + Sync + 'static {
    /// Creates an empty table; one that exists stays as it is.
    async fn create(&self, table: &str) -> Result<(), PortError>;

    /// Deletes a table with everything in it; a missing one is fine.
    async fn drop_table(&self, table: &str) -> Result<(), PortError>;

    /// Entries whose key starts with `prefix` and is greater than `after`, in unsigned byte order. Fewer than `limit`
    /// (at least 1) are returned only at the end or when a page would grow beyond some MiB, and none only at the end.
    async fn scan(
        &self,
        table: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, TableError>;

    /// The keys of what [`scan`](Self::scan) would return, without reading the values.
    async fn scan_keys(
        &self,
        table: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Bytes>, TableError>;

    /// One answer per key, in order; `None` for a missing key.
    async fn read(&self, table: &str, keys: &[Bytes]) -> Result<Vec<Option<Entry>>, TableError>;

    /// Applies all changes or none, durably. Batches stay below 16 MiB. Returns the new version of each put, in order,
    /// with −1 in the place of a removal.
    async fn commit(&self, table: &str, changes: Vec<Change>) -> Result<Vec<Version>, TableError>;
}

/// What came into one segment, its transactions included.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Load {
    /// The segment; of a transaction's segment its parent, which need not exist.
    pub segment: StreamSegment,
    /// Events.
    pub events: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Counts what clients write.
pub trait LoadMeter: Send + Sync + 'static {
    /// What came in since the last call, per segment; nothing for a segment that got nothing.
    fn take(&self) -> Vec<Load>;

    /// Whether segments can be created now. A scale that has to wait for room on the disk would keep its stream from
    /// being truncated or deleted, and so from making that room.
    fn has_room(&self) -> bool;
}

/// Wall-clock time, in milliseconds since 1970: what people are shown, and a hint of how long the store was closed.
/// It may jump. What passes while the store is open is counted by Tokio's time.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now_ms(&self) -> i64;
}

impl<F: Fn() -> i64 + Send + Sync + 'static> Clock for F {
    fn now_ms(&self) -> i64 {
        self()
    }
}

/// Everything outside that the controller works with.
#[derive(Clone)]
pub struct Ports {
    /// Segments.
    pub segments: Arc<dyn SegmentOps>,
    /// Records.
    pub tables: Arc<dyn MetadataTable>,
    /// Load of the segments.
    pub loads: Arc<dyn LoadMeter>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ports")
    }
}
