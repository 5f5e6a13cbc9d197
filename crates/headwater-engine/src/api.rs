//! What can be asked of the engine, and what it answers.
//!
//! Every request names one segment (a merge names two that share a container) and gets exactly one [`Outcome`]. A
//! success is durable, and so is everything it shows: an answer waits until the journal holds all it is based on.

use bytes::Bytes;
use headwater_types::{AttributeId, EventNumber, Offset, SegmentName, WriterId};

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Request {
    /// Makes a segment. → [`Response::Done`], or [`Refusal::SegmentExists`].
    Create {
        /// Its name.
        segment: SegmentName,
        /// What it will hold.
        kind: SegmentKind,
        /// Scaling policy that travels with it.
        policy: SegmentPolicy,
        /// Also while the disk is full, as what frees room: for what has to be finished before a stream can be sealed and
        /// deleted. Everybody else waits for room.
        on_reserve: bool,
    },
    /// → [`Response::Info`].
    Info {
        /// Which.
        segment: SegmentName,
    },
    /// Asks for the last event number stored for a writer; also works on a sealed segment. → [`Response::LastEvent`].
    OpenWriter {
        /// Which.
        segment: SegmentName,
        /// Who.
        writer: WriterId,
    },
    /// → [`Response::Appended`].
    Append(Append),
    /// Waits at the end of an open segment until there is something to read. → [`Response::Read`]; [`Refusal::Sealed`] if it
    /// waited behind the end when the segment was sealed, [`Refusal::BehindEnd`] if it was sealed before.
    Read {
        /// Which.
        segment: SegmentName,
        /// First byte wanted.
        offset: Offset,
        /// Most bytes wanted; the reply carries at most [`READ_BYTES_MAX`](headwater_types::limits::READ_BYTES_MAX).
        bytes_max: usize,
    },
    /// → [`Response::Sealed`]; sealing twice is [`Refusal::Sealed`].
    Seal {
        /// Which.
        segment: SegmentName,
    },
    /// Gives up the bytes before `offset`. → [`Response::Done`]; outside of start..=length: [`Refusal::Truncated`].
    Truncate {
        /// Which.
        segment: SegmentName,
        /// New start.
        offset: Offset,
    },
    /// → [`Response::Done`].
    Delete {
        /// Which.
        segment: SegmentName,
    },
    /// Moves all of `source` to the end of `target`, sealing the source first if needed. → [`Response::Merged`].
    Merge {
        /// Grows.
        target: SegmentName,
        /// Disappears.
        source: SegmentName,
        /// Applied to the target together with the merge, or nothing is.
        updates: Vec<AttributeUpdate>,
    },
    /// Merges several in order; one that is gone counts as merged. → [`Response::MergedBatch`].
    MergeBatch {
        /// Grows.
        target: SegmentName,
        /// Disappear.
        sources: Vec<SegmentName>,
    },
    /// → [`Response::Attribute`].
    Attribute {
        /// Which.
        segment: SegmentName,
        /// Which of its attributes.
        id: AttributeId,
    },
    /// All or none. → [`Response::Done`], or [`Refusal::AttributeMismatch`].
    UpdateAttributes {
        /// Which.
        segment: SegmentName,
        /// At most [`ATTRIBUTE_UPDATES_MAX`].
        updates: Vec<AttributeUpdate>,
    },
    /// → [`Response::Done`].
    SetPolicy {
        /// Which.
        segment: SegmentName,
        /// New policy; the rollover size is left as it is.
        policy: SegmentPolicy,
    },
    /// Finds an event boundary at or after an offset. → [`Response::Located`].
    Locate {
        /// Which.
        segment: SegmentName,
        /// Where to start looking.
        offset: Offset,
    },
    /// Puts and removes keys of a table, all or none. → [`Response::Versions`], one per change in order (a removal
    /// answers [`VERSION_MISSING`]). Every expectation is checked against the state before the batch; of several
    /// changes to one key the last wins.
    TableUpdate {
        /// Which.
        segment: SegmentName,
        /// At least one; serialized at most 32 MiB.
        changes: Vec<TableChange>,
        /// If given, the table's length must equal it, or [`Refusal::OffsetMismatch`].
        at: Option<Offset>,
    },
    /// → [`Response::Values`], one per key in order.
    TableGet {
        /// Which.
        segment: SegmentName,
        /// What to look up.
        keys: Vec<Bytes>,
    },
    /// Pages through live keys in unsigned byte order. → [`Response::Page`].
    TableScan {
        /// Which.
        segment: SegmentName,
        /// Where the page begins and how far it may go.
        range: ScanRange,
        /// Most entries; at least one is returned if there is any.
        count_max: usize,
        /// Leaves the values empty and does not read them.
        keys_only: bool,
    },
    /// Pages through the table's log from a position; only entries that are still their key's newest. → [`Response::Delta`].
    TableDelta {
        /// Which.
        segment: SegmentName,
        /// 0 or a position from an earlier page.
        from: Offset,
        /// Stop after this many entries.
        count_max: usize,
    },
    /// → [`Response::Table`].
    TableInfo {
        /// Which.
        segment: SegmentName,
    },
    /// Where the segment's bytes are in long-term storage. → [`Response::Chunks`].
    ListChunks {
        /// Which.
        segment: SegmentName,
    },
    /// → [`Response::Done`], or [`Refusal::TableNotEmpty`].
    DeleteTable {
        /// Which.
        segment: SegmentName,
        /// Refuse if there are live keys.
        must_be_empty: bool,
    },
}

impl Request {
    /// The segment that decides which container takes the request.
    pub fn segment(&self) -> &SegmentName {
        match self {
            Self::Append(append) => &append.segment,
            Self::Merge { target, .. } | Self::MergeBatch { target, .. } => target,
            Self::Create { segment, .. }
            | Self::Info { segment }
            | Self::OpenWriter { segment, .. }
            | Self::Read { segment, .. }
            | Self::Seal { segment }
            | Self::Truncate { segment, .. }
            | Self::Delete { segment }
            | Self::Attribute { segment, .. }
            | Self::UpdateAttributes { segment, .. }
            | Self::SetPolicy { segment, .. }
            | Self::Locate { segment, .. }
            | Self::TableUpdate { segment, .. }
            | Self::TableGet { segment, .. }
            | Self::TableScan { segment, .. }
            | Self::TableDelta { segment, .. }
            | Self::TableInfo { segment }
            | Self::ListChunks { segment }
            | Self::DeleteTable { segment, .. } => segment,
        }
    }
}

/// Names of tables that begin so belong to the services around the store, which need them to free room: on a full disk
/// these tables go on being changed while other writes wait. What grows without bound is not for them.
pub const SYSTEM_TABLES: &str = "_system/_tables/";

/// Most attribute updates in one request.
pub const ATTRIBUTE_UPDATES_MAX: usize = 64;

/// Most attributes that a transient segment may have set at a time, numbers of writers included. Source: wire protocol 17,
/// where such a segment keeps its attributes in memory alone.
pub const TRANSIENT_ATTRIBUTES_MAX: usize = 16;

/// What a segment holds. A table's bytes are written by [`Request::TableUpdate`] alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SegmentKind {
    /// Bytes that clients append.
    Stream,
    /// Bytes of an upload under way; deleted when the store starts, if still there.
    Transient,
    /// Keys and values.
    Table {
        /// 0: keys of 1 to 8192 bytes; otherwise every key has this length, 1 to 256.
        key_length: u32,
    },
}

/// Scaling policy of a segment; the engine keeps it and does not act on it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SegmentPolicy {
    /// 0 none, 1 throughput in KB/s, 2 events/s.
    pub scale_type: u8,
    /// Target rate in the unit of the type.
    pub rate: i32,
    /// Bytes after which storage should start a new chunk; 0 = default.
    pub rollover_bytes: u64,
}

/// Bytes to be appended in one piece.
#[derive(Clone, Debug)]
pub struct Append {
    /// To where.
    pub segment: SegmentName,
    /// By whom.
    pub writer: WriterId,
    /// The bytes, opaque to the engine; may be empty.
    pub data: Bytes,
    /// How many events they hold.
    pub event_count: u32,
    /// Number the segment must have stored for this writer; `None`: nothing yet. [`Refusal::WriterConflict`] otherwise.
    pub previous: Option<EventNumber>,
    /// Number that is stored together with the bytes; not below `previous`.
    pub number: EventNumber,
    /// If given, the segment's length must equal it, or [`Refusal::LengthMismatch`]. Checked after the writer's number.
    pub expected_length: Option<Offset>,
}

/// One change of one attribute.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AttributeUpdate {
    /// Which.
    pub id: AttributeId,
    /// On what condition, and how the value enters.
    pub kind: UpdateKind,
    /// The value; [`attribute::NULL`](headwater_types::attribute::NULL) removes.
    pub value: i64,
}

/// Rule of an [`AttributeUpdate`]. The number in brackets is the code on the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UpdateKind {
    /// Only if not set (0).
    IfAbsent,
    /// Always (1).
    Replace,
    /// Only if unset or smaller than the value (2).
    IfGreater,
    /// Adds to what is there (3).
    Accumulate,
    /// Only if it is this now; `NULL` = only if unset (4).
    IfEquals(i64),
}

/// A version that means "there is no such key". Source: wire protocol, `NOT_EXISTS`.
pub const VERSION_MISSING: i64 = -1;

/// What a table change expects of its key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expect {
    /// Anything.
    Any,
    /// No such key.
    Missing,
    /// Exactly this version, ≥ 0.
    Version(i64),
}

/// One key's change in a [`Request::TableUpdate`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TableChange {
    /// 1 to 8192 bytes, or the table's fixed length.
    pub key: Bytes,
    /// New value, at most 1,040,384 bytes; `None` removes.
    pub value: Option<Bytes>,
    /// Condition.
    pub expect: Expect,
}

/// Part of a table's key space.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ScanRange {
    /// First key, or the one before it; `None`: the beginning.
    pub from: Option<Bytes>,
    /// Whether `from` itself is left out (a continuation) or included.
    pub exclusive: bool,
    /// Last key, included; `None`: the end.
    pub to: Option<Bytes>,
    /// Only keys that begin so.
    pub prefix: Bytes,
}

/// A live entry of a table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TableEntry {
    /// Key.
    pub key: Bytes,
    /// Never reused for the key, grows with each change of it, ≥ 0.
    pub version: i64,
    /// Value.
    pub value: Bytes,
}

/// The success of a [`Request`].
#[derive(Clone, Debug)]
pub enum Response {
    /// It is so now.
    Done,
    /// State of a segment.
    Info(SegmentInfo),
    /// Last event number stored for the writer; `None`: nothing.
    LastEvent(Option<EventNumber>),
    /// Stored.
    Appended {
        /// Length of the segment right after this append.
        length: Offset,
    },
    /// Part of a segment, from the offset asked.
    Read(ReadResult),
    /// Sealed now.
    Sealed {
        /// Final length.
        length: Offset,
    },
    /// Merged.
    Merged {
        /// Length of the target right after.
        length: Offset,
    },
    /// Merged, or gone before: one length of the target per source.
    MergedBatch(Vec<Offset>),
    /// Value of an attribute; [`attribute::NULL`](headwater_types::attribute::NULL) if unset.
    Attribute(i64),
    /// A boundary, or the segment's length if none is known.
    Located(Offset),
    /// Versions after a table update.
    Versions(Vec<i64>),
    /// `None` for a missing key.
    Values(Vec<Option<TableEntry>>),
    /// Entries in key order; the end is an empty page.
    Page(Vec<TableEntry>),
    /// Part of a table's log.
    Delta(Delta),
    /// State of a table.
    Table(TableInfo),
    /// Runs of a segment's bytes in chunks, in order; what is in none yet is not named.
    Chunks(Vec<StoredChunk>),
}

/// A run of a segment's bytes in long-term storage. A chunk may hold runs of many segments.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredChunk {
    /// Offset of its first byte in the segment.
    pub start: Offset,
    /// Bytes of the segment.
    pub length: u64,
    /// Where it is, relative to the place of all chunks.
    pub name: String,
}

/// State of a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SegmentInfo {
    /// First readable byte.
    pub start: Offset,
    /// Bytes ever written.
    pub length: Offset,
    /// Never grows again.
    pub sealed: bool,
    /// Milliseconds since 1970.
    pub modified_millis: i64,
    /// Events appended and merged so far.
    pub event_count: u64,
}

/// Bytes read.
#[derive(Clone, Debug)]
pub struct ReadResult {
    /// Contiguous, in order, possibly in several pieces; empty only together with `end_of_segment`, or if the store
    /// is closing.
    pub data: Vec<Bytes>,
    /// Nothing follows for now.
    pub at_tail: bool,
    /// Nothing will ever follow.
    pub end_of_segment: bool,
}

/// State of a table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TableInfo {
    /// First position still kept.
    pub start: Offset,
    /// End of the position space.
    pub length: Offset,
    /// Live keys.
    pub entries: u64,
    /// 0 = variable.
    pub key_length: u32,
}

/// A page of a table's log.
#[derive(Clone, Debug)]
pub struct Delta {
    /// Newest live entries in log order. Empty only at the end of the log.
    pub entries: Vec<TableEntry>,
    /// Entries before the position may have been compacted away: rebuild.
    pub should_clear: bool,
    /// The page reaches the end of the log.
    pub reached_end: bool,
    /// Ask on from here.
    pub position: Offset,
}

/// Why a request was not carried out. Nothing changed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Never existed, was deleted, or was merged. Names the source in a merge if that is the one missing.
    #[error("no such segment")]
    NoSuchSegment,
    /// There is one of that name.
    #[error("segment exists")]
    SegmentExists,
    /// Cannot grow or change.
    #[error("segment is sealed")]
    Sealed,
    /// The offset lies outside of what is kept.
    #[error("segment starts at {start}")]
    Truncated {
        /// First readable byte.
        start: Offset,
    },
    /// The offset lies behind the end of a sealed segment.
    #[error("offset is behind the end of a sealed segment of {length} bytes")]
    BehindEnd {
        /// Final length.
        length: Offset,
    },
    /// Another number is stored for the writer.
    #[error("writer stored event {stored:?}")]
    WriterConflict {
        /// What is stored.
        stored: Option<EventNumber>,
    },
    /// The segment's length is another.
    #[error("segment has {length} bytes")]
    LengthMismatch {
        /// Its length.
        length: Offset,
    },
    /// An attribute's condition failed.
    #[error("attribute has another value")]
    AttributeMismatch,
    /// A table change expected a key that is not there.
    #[error("key does not exist")]
    KeyMissing,
    /// A table change expected another version.
    #[error("key has another version")]
    KeyVersion,
    /// The table's length is another.
    #[error("table has {length} bytes")]
    OffsetMismatch {
        /// Its length.
        length: Offset,
    },
    /// It has live keys.
    #[error("table is not empty")]
    TableNotEmpty,
    /// A table operation on something else, or the other way round.
    #[error("segment is of another kind")]
    WrongKind,
    /// A merge of a segment that has lost its beginning.
    #[error("source of a merge is truncated")]
    SourceTruncated,
    /// The request itself can never succeed.
    #[error("{0}")]
    Invalid(&'static str),
    /// Not for this kind of table.
    #[error("not supported by this table")]
    Unsupported,
    /// Stored bytes failed their checksum; nothing of that range is served. The log names file and position.
    #[error("stored bytes are damaged")]
    Damaged,
    /// The object storage that has these bytes does not answer; later it may.
    #[error("stored bytes cannot be reached for now")]
    Unavailable,
    /// The store is closing; nobody knows whether the request was carried out.
    #[error("store is closing")]
    Closing,
}

/// What became of a request.
pub type Outcome = Result<Response, Refusal>;

/// Where an outcome goes. Called once, from a thread of the engine, in the order the segment's container decided.
pub trait Reply: Send + 'static {
    /// Takes the outcome; must not block.
    fn send(self: Box<Self>, outcome: Outcome);
    /// Nobody waits any more; a parked read is dropped then.
    fn is_abandoned(&self) -> bool {
        false
    }
}

impl Reply for tokio::sync::oneshot::Sender<Outcome> {
    fn send(self: Box<Self>, outcome: Outcome) {
        // The receiver gave up; what was done stays done.
        let _ = (*self).send(outcome);
    }

    fn is_abandoned(&self) -> bool {
        self.is_closed()
    }
}
