//! What callers say to the controller and what it answers, as plain values. Each status maps to one of an rpc's.

use std::collections::BTreeMap;

use headwater_types::{KeyRange, ScopedStream, SegmentId, TransactionId};

use crate::ports::{PortError, ScaleHint, TableError};

/// Position in a stream: segment → offset. [`FUTURE`] stands for a segment that covers keys of the cut but has not been
/// opened, because something before it is not read to the end.
pub type StreamCut = BTreeMap<SegmentId, i64>;

/// Offset of a segment that has not been opened. Any negative offset means the same.
pub const FUTURE: i64 = -1;

/// Most entries of one page of a listing.
pub const PAGE_ENTRIES: usize = 1000;
/// Most segments one epoch of a stream has; an epoch must fit one table value.
pub const SEGMENTS_MAX: usize = 10_000;
/// Largest answer to a client, in bytes. Source: what gRPC clients take unless they are told otherwise, Java's among them.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;
/// What an answer may have besides segments: tokens, and everything that one segment follows on.
const ANSWER_BESIDES_BYTES: usize = 128 << 10;
/// What a segment takes in an answer besides the names of its scope and stream: ids, keys, lengths.
const ANSWER_SEGMENT_BYTES: usize = 64;
/// Most tags one stream carries.
pub const TAGS_MAX: usize = 1024;
/// Bytes of all tags of a stream together; a stream's head record, which may hold its configuration twice, must fit one
/// table value.
pub const TAGS_BYTES_MAX: usize = 128 * 1024;
/// Longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 1024;
/// Longest name of a stream, in bytes: five less than any name, since its mark stream is named `_MARK<stream>`.
pub const STREAM_NAME_BYTES_MAX: usize = 250;
/// Shortest lease of a transaction, in milliseconds. Source: Pravega `transaction.lease.count.min`.
pub const LEASE_MS_MIN: i64 = 10_000;
/// Longest lease of a transaction, in milliseconds. Source: Pravega `transaction.lease.count.max`.
pub const LEASE_MS_MAX: i64 = 600_000;
/// Most transactions open at once on this controller; each is armed in memory.
pub const TRANSACTIONS_OPEN_MAX: usize = 200_000;
/// Longest writer id that a commit may carry, in bytes.
pub const WRITER_ID_BYTES_MAX: usize = 4096;
/// Most writers of one stream that have said what time it is.
pub const WRITERS_MAX: usize = 10_000;
/// Most reader groups that hold back the retention of one stream.
pub const SUBSCRIBERS_MAX: usize = 1000;
/// Most completed transactions that are listed.
pub const COMPLETED_LIST_MAX: usize = 500;

/// Most partitions of a key-value table.
pub const PARTITIONS_MAX: i32 = 1000;
/// Longest name of a key-value table or a reader group, in bytes; their segments and streams have longer ones.
pub const ITEM_NAME_BYTES_MAX: usize = 250;
/// Longest key of a key-value table, primary and secondary part together, in bytes.
pub const TABLE_KEY_BYTES_MAX: i32 = 256;
/// Bytes that a reader group's configuration may take; its record holds up to two and must fit one table value.
pub const GROUP_CONFIG_BYTES_MAX: usize = 400_000;

/// Most segments of a stream in one answer. Each comes with the names of scope and stream, so it hangs on how long they are.
pub fn answer_segments_max(stream: &ScopedStream) -> usize {
    let names = stream.scope.as_str().len() + stream.stream.as_str().len();
    (ANSWER_BYTES_MAX - ANSWER_BESIDES_BYTES) / (names + ANSWER_SEGMENT_BYTES)
}

/// Most segments that a stream has at a time: [`SEGMENTS_MAX`], or fewer if its names are so long (together above 342
/// bytes) that clients could not be told of so many.
pub fn segments_max(stream: &ScopedStream) -> usize {
    SEGMENTS_MAX.min(answer_segments_max(stream))
}

/// How a controller works.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ControllerOptions {
    /// Time between two looks at a stream with a retention policy. Source: Pravega `retention.frequency.minutes`.
    pub retention_every: std::time::Duration,
    /// Memory for records of streams that nothing happens to, in bytes. More of them are in memory only while they are in
    /// use; those that are not are read when they are asked for.
    pub records_bytes_max: usize,
}

impl Default for ControllerOptions {
    fn default() -> Self {
        Self { retention_every: std::time::Duration::from_secs(30 * 60), records_bytes_max: 32 << 20 }
    }
}

/// Why a call has no answer. Whoever maps it to an interface has to choose for each, also for a new one.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ControllerError {
    /// The caller's mistake; the same call fails again.
    #[error("{0}")]
    Invalid(String),
    /// Stream, epoch or scope does not exist.
    #[error("{0} does not exist")]
    NotFound(String),
    /// Trouble that passes. What was asked may happen nevertheless.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Disk, memory or a limit is used up.
    #[error("out of resources: {0}")]
    Exhausted(String),
    /// What clients keep for each other is not what it should be. Somebody wrote it so; nothing was lost.
    #[error("{0}")]
    Foreign(String),
    /// Stored bytes are damaged.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    /// A record was written by a newer release.
    #[error("controller records: {0}")]
    Newer(String),
    /// Records contradict each other.
    #[error("controller records: {0}")]
    Internal(String),
}

impl From<PortError> for ControllerError {
    fn from(error: PortError) -> Self {
        match error {
            PortError::Unavailable(text) => Self::Unavailable(text),
            PortError::Exhausted(text) => Self::Exhausted(text),
            PortError::Damaged(text) => Self::Damaged(text),
            PortError::Refused(text) => Self::Internal(text),
        }
    }
}

impl From<TableError> for ControllerError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Port(error) => error.into(),
            // Somebody else changed what we looked at, or a late write of our own did: look again.
            TableError::NoSuchTable(_) | TableError::Conflict(_) => Self::Unavailable(error.to_string()),
        }
    }
}

/// When a stream splits and merges its segments.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ScalingPolicy {
    /// What is measured.
    pub kind: ScalingKind,
    /// Target rate of one segment, in the unit of `kind`; unused when fixed.
    pub target_rate: i32,
    /// Most pieces of one split; unused when fixed.
    pub scale_factor: i32,
    /// Segments at the beginning, and the fewest ever.
    pub min_segments: i32,
}

/// What makes a stream scale.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ScalingKind {
    /// Nothing.
    Fixed,
    /// KB/s.
    Kilobytes,
    /// Events/s.
    Events,
}

impl ScalingPolicy {
    /// A fixed number of segments.
    pub const fn fixed(segments: i32) -> Self {
        Self { kind: ScalingKind::Fixed, target_rate: 0, scale_factor: 0, min_segments: segments }
    }

    pub(crate) fn hint(self) -> ScaleHint {
        match self.kind {
            ScalingKind::Fixed => ScaleHint { kind: 0, rate: 0 },
            ScalingKind::Kilobytes => ScaleHint { kind: 1, rate: self.target_rate },
            ScalingKind::Events => ScaleHint { kind: 2, rate: self.target_rate },
        }
    }
}

/// How much of a stream is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RetentionPolicy {
    /// Unit of the two numbers.
    pub kind: RetentionKind,
    /// At least this much is kept.
    pub keep: i64,
    /// Readers may not hold back more than this; `i64::MAX` is no bound.
    pub keep_max: i64,
}

/// Unit of a retention policy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RetentionKind {
    /// Milliseconds.
    Time,
    /// Bytes.
    Size,
}

/// What a stream is configured to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StreamConfig {
    /// When it scales.
    pub scaling: ScalingPolicy,
    /// How much is kept; `None` is everything.
    pub retention: Option<RetentionPolicy>,
    /// Words it can be found by, in the order given.
    pub tags: Vec<String>,
    /// How long a silent writer holds back the stream's time, in milliseconds; 0 is not at all.
    pub timestamp_aggregation_timeout_ms: i64,
    /// Where the segment store starts a new chunk, in bytes; 0 is its default.
    pub rollover_bytes: i64,
}

impl StreamConfig {
    /// No retention, no tags, defaults otherwise.
    pub const fn new(scaling: ScalingPolicy) -> Self {
        Self { scaling, retention: None, tags: Vec::new(), timestamp_aggregation_timeout_ms: 0, rollover_bytes: 0 }
    }

    /// Checks what the store could not carry out for a stream of this name, or clients could not be told of.
    pub(crate) fn check(&self, stream: &ScopedStream) -> Result<(), ControllerError> {
        let invalid = |text: String| Err(ControllerError::Invalid(text));
        let (count, most) = (self.scaling.min_segments, segments_max(stream));
        if count < 1 || count as usize > most {
            return invalid(format!(
                "{count} segments, allowed are 1 to {most} for a stream with names of this length"
            ));
        }
        if self.rollover_bytes < 0 {
            return invalid(format!("rollover size {} is negative", self.rollover_bytes));
        }
        if self.tags.len() > TAGS_MAX {
            return invalid(format!("{} tags, at most {TAGS_MAX}", self.tags.len()));
        }
        for tag in &self.tags {
            if tag.len() > TAG_BYTES_MAX || tag.contains('\0') {
                return invalid(format!("tag of {} bytes is longer than {TAG_BYTES_MAX} or has a NUL", tag.len()));
            }
        }
        if let Some(RetentionPolicy { keep, keep_max, .. }) = self.retention
            && (keep < 0 || (1..keep).contains(&keep_max))
        {
            return invalid(format!("retention of at least {keep} and at most {keep_max}"));
        }
        let bytes: usize = self.tags.iter().map(String::len).sum();
        if bytes > TAGS_BYTES_MAX {
            return invalid(format!("{bytes} bytes of tags, at most {TAGS_BYTES_MAX}"));
        }
        Ok(())
    }

    pub(crate) fn rollover(&self) -> u64 {
        u64::try_from(self.rollover_bytes).unwrap_or(0)
    }
}

/// A segment and the keys it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SegmentRange {
    /// Segment.
    pub id: SegmentId,
    /// Keys.
    pub range: KeyRange,
}

/// A segment that continues another, and everything it continues.
#[derive(Clone, Debug, PartialEq)]
pub struct Successor {
    /// The segment.
    pub segment: SegmentRange,
    /// All its predecessors.
    pub predecessors: Vec<SegmentId>,
}

/// One page of names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Page {
    /// At most [`PAGE_ENTRIES`], ascending. Empty is the end.
    pub names: Vec<String>,
    /// Says where the next page begins.
    pub token: String,
}

/// Answer to `createScope`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CreateScope {
    /// It is new.
    Success,
    /// It was there.
    Exists,
    /// The name breaks the rule.
    InvalidName,
}

/// Answer to `deleteScope`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeleteScope {
    /// It is gone.
    Success,
    /// It was not there.
    NotFound,
    /// Streams are in it, perhaps internal ones.
    NotEmpty,
}

/// Answer to a listing inside a scope.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Listing {
    /// A page.
    Page(Page),
    /// There is no such scope.
    ScopeNotFound,
}

/// Answer to `createStream`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CreateStream {
    /// It can be written to.
    Success,
    /// It was there, open or sealed.
    Exists,
    /// There is no such scope.
    ScopeNotFound,
    /// The name breaks the rule.
    InvalidName,
}

/// Answer to `updateStream`, `truncateStream` and `sealStream`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UpdateStream {
    /// Done.
    Success,
    /// Refused: the cut is not one, or lies behind the head.
    Failure,
    /// There is no such stream.
    StreamNotFound,
    /// It is sealed.
    Sealed,
}

/// Answer to `deleteStream`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeleteStream {
    /// It is gone.
    Success,
    /// It was not there.
    NotFound,
    /// It must be sealed first.
    NotSealed,
}

/// Answer to `scale`.
#[derive(Clone, Debug, PartialEq)]
pub enum Scale {
    /// Recorded, and certain to happen.
    Started {
        /// The epoch before.
        epoch: i32,
        /// What it creates.
        segments: Vec<SegmentRange>,
    },
    /// Ranges do not fit, another scale is under way, or the stream is sealed or missing.
    Failure,
    /// A segment to seal is not open, or too few would remain.
    PreconditionFailed,
}

/// Answer to `checkScale`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ScaleProgress {
    /// The epoch is still the current one.
    InProgress,
    /// A later epoch is in force.
    Success,
    /// No such epoch or stream.
    InvalidInput,
}

/// An open transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct CreatedTransaction {
    /// Its id.
    pub id: TransactionId,
    /// Parents of its segments, by ascending key. The id's epoch is that of the transaction; such a segment need not
    /// exist.
    pub segments: Vec<SegmentRange>,
}

/// Answer to `pingTransaction`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ping {
    /// The lease is extended.
    Ok,
    /// Longer than the longest lease.
    LeaseTooLarge,
    /// The transaction would outlive its longest time.
    MaxExecutionTimeExceeded,
    /// The stream or this controller is shutting down.
    Disconnected,
    /// Committed, or about to be.
    Committed,
    /// Aborted, or about to be.
    Aborted,
    /// No such transaction.
    Unknown,
}

/// Answer to `commitTransaction` and `abortTransaction`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EndTransaction {
    /// Accepted, or done before.
    Success,
    /// Unknown, or the other end was chosen.
    Failure,
    /// There is no such stream.
    StreamNotFound,
}

/// State of a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TransactionState {
    /// Never there, or forgotten.
    Unknown,
    /// Takes events.
    Open,
    /// Will be merged.
    Committing,
    /// Merged.
    Committed,
    /// Will be deleted.
    Aborting,
    /// Deleted.
    Aborted,
}

/// What a key-value table is configured to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TableConfig {
    /// Parts of the key space, each a segment; 1 to [`PARTITIONS_MAX`].
    pub partitions: i32,
    /// Bytes of each key that decide on its partition; at least 1.
    pub primary_key_bytes: i32,
    /// Bytes behind them, may be 0; both together at most [`TABLE_KEY_BYTES_MAX`].
    pub secondary_key_bytes: i32,
    /// Where the segment store starts a new chunk, in bytes; 0 is its default.
    pub rollover_bytes: i64,
}

impl TableConfig {
    pub(crate) fn check(&self) -> Result<(), ControllerError> {
        let invalid = |text: String| Err(ControllerError::Invalid(text));
        if !(1..=PARTITIONS_MAX).contains(&self.partitions) {
            return invalid(format!("{} partitions, allowed are 1 to {PARTITIONS_MAX}", self.partitions));
        }
        let (primary, secondary) = (self.primary_key_bytes, self.secondary_key_bytes);
        if primary < 1 || secondary < 0 || primary.saturating_add(secondary) > TABLE_KEY_BYTES_MAX {
            let rule = format!("1 or more and 0 or more, together up to {TABLE_KEY_BYTES_MAX}");
            return invalid(format!("key lengths {primary} and {secondary}, allowed are {rule}"));
        }
        if self.rollover_bytes < 0 {
            return invalid(format!("rollover size {} is negative", self.rollover_bytes));
        }
        Ok(())
    }

    /// Bytes of each key.
    pub(crate) fn key_bytes(&self) -> u32 {
        self.primary_key_bytes.saturating_add(self.secondary_key_bytes).unsigned_abs()
    }
}

/// Answer to `createKeyValueTable`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CreateTable {
    /// It can be used.
    Success,
    /// It was there.
    Exists,
    /// There is no such scope.
    ScopeNotFound,
    /// The name breaks the rule.
    InvalidName,
    /// A table or reader group that a Rust or Python client made without the controller has its segment.
    Taken,
}

/// Answer to `deleteKeyValueTable`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeleteTable {
    /// It is gone, with everything in it.
    Success,
    /// It was not there.
    NotFound,
}

/// Whether a reader group holds back the retention of the streams that it reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GroupRetention {
    /// It does not.
    None,
    /// Up to the cut that its application names.
    Manual,
    /// Up to its last checkpoint.
    Automatic,
}

/// Where a reader group begins or ends in one stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupCut {
    /// The stream, which need not exist.
    pub stream: headwater_types::ScopedStream,
    /// Position; empty is unbounded.
    pub cut: StreamCut,
}

/// What a reader group is configured to be. Clients compare what they get with what they sent, so everything is kept as
/// it came, also the order of the cuts and the unbounded ones.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupConfig {
    /// How often readers look for changes, in milliseconds.
    pub refresh_ms: i64,
    /// Milliseconds between automatic checkpoints; negative is never.
    pub checkpoint_every_ms: i64,
    /// Most checkpoints under way.
    pub checkpoints_max: i32,
    /// Whether it holds back retention.
    pub retention: GroupRetention,
    /// Beginning, one per stream.
    pub starting: Vec<GroupCut>,
    /// End, one per stream or none at all.
    pub ending: Vec<GroupCut>,
}

/// A reader group as the controller knows it. Who reads what is in the group's own stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Group {
    /// Id that its creator gave it, never 0.
    pub id: u128,
    /// Number of updates.
    pub generation: i64,
    /// Configuration.
    pub config: GroupConfig,
}

/// Answer to `createReaderGroup`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CreateGroup {
    /// The group of this name: the new one, or the one that was there, whatever was asked for.
    Group(Group),
    /// There is no such scope.
    ScopeNotFound,
    /// The name breaks the rule.
    InvalidName,
}

/// Answer to `updateReaderGroup`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UpdateGroup {
    /// Stored.
    Success {
        /// The generation that it has now.
        generation: i64,
    },
    /// There is no such group.
    NotFound,
    /// The group has another id or generation: somebody else was faster.
    InvalidConfig,
}

/// Answer to `deleteReaderGroup`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeleteGroup {
    /// It is gone.
    Success,
    /// There is no such group, or its id is another.
    NotFound,
}

/// Answer to `updateSubscriberStreamCut`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MoveSubscriber {
    /// Everything before the cut may go.
    Success,
    /// There is no such stream.
    StreamNotFound,
    /// The group does not hold back the stream's retention, or its id is another.
    SubscriberNotFound,
    /// The group was updated meanwhile.
    GenerationMismatch,
    /// The cut is not one, or lies behind the one before.
    CutNotValid,
}

/// Load of an open segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SegmentHeat {
    /// The segment.
    pub segment: SegmentRange,
    /// Events per second, averaged over 2, 5, 10 and 20 minutes.
    pub events_per_second: [f64; 4],
    /// Units of 1024 bytes per second, averaged likewise.
    pub kilobytes_per_second: [f64; 4],
}

/// Answer to `noteTimestampFromWriter`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoteTime {
    /// Taken down.
    Success,
    /// The writer has said a later time before.
    InvalidTime,
    /// The writer has been further in some segment before, or a segment was never part of the stream.
    InvalidPosition,
}

/// Answer to `removeWriter`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RemoveWriter {
    /// Nobody waits for it any more.
    Success,
    /// It has said no time, or there is no such stream.
    UnknownWriter,
}

/// What a retention run would do about a stream now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RetentionPlan {
    /// What the stream is configured to keep.
    pub policy: RetentionPolicy,
    /// The wall clock has jumped by more than a day. Retention does not go by it.
    pub clock_jumped: bool,
    /// Bytes of the stream from its head to its end.
    pub stored_bytes: i64,
    /// Bytes that the slowest subscriber has not read; `None` without subscribers.
    pub held_bytes: Option<i64>,
    /// What would go; `None` if nothing.
    pub truncation: Option<PlannedTruncation>,
}

/// A truncation that has not happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlannedTruncation {
    /// Where the stream would begin.
    pub cut: StreamCut,
    /// Bytes that would go.
    pub bytes: i64,
    /// Segments that would go or lose bytes, by ascending id: the first [`PLANNED_SEGMENTS_MAX`] of them.
    pub segments: Vec<PlannedSegment>,
    /// Segments that would go or lose bytes and are not listed.
    pub more_segments: usize,
}

/// Segments that a planned truncation lists: a page, as of streams or scopes.
pub const PLANNED_SEGMENTS_MAX: usize = 1000;

/// What a truncation would take from a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PlannedSegment {
    /// The segment.
    pub id: SegmentId,
    /// Offset of the first byte that would go.
    pub from: i64,
    /// Offset behind the last byte that would go.
    pub to: i64,
    /// The segment itself would go, too.
    pub is_deleted: bool,
}

/// A time in a stream's life during which its segments stayed the same.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochRecord {
    /// Its number; they count from 0.
    pub epoch: i32,
    /// The epoch whose layout it repeats; its own number except after a commit over a scale.
    pub reference: i32,
    /// When it began, in milliseconds since 1970.
    pub created_ms: i64,
    /// Segments that take events in it, by ascending key, and when each was created.
    pub segments: Vec<(SegmentRange, i64)>,
}

/// A transaction that has not come to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LiveTransaction {
    /// Its id.
    pub id: TransactionId,
    /// Open, committing or aborting.
    pub state: TransactionState,
    /// When it was opened, in milliseconds since 1970.
    pub created_ms: i64,
    /// Lease last asked for, in milliseconds.
    pub lease_ms: i64,
    /// When an open one is aborted unless it is pinged before, in milliseconds since 1970: its lease and half of that
    /// again. As the wall clock has it now; what counts is the time that passes while the store is open.
    pub expires_ms: i64,
    /// Latest time to which pings may move the end of the lease; the same applies.
    pub expires_ms_max: i64,
}

/// One page of transactions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TransactionPage {
    /// At most as many as were asked for: open ones first, then those that wait to be committed, then to be aborted.
    pub transactions: Vec<LiveTransaction>,
    /// Where the next page begins; `None` at the end.
    pub token: Option<String>,
}

/// One page of the open transactions of all streams.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OpenTransactionPage {
    /// With their streams, in the order of these. At most as many as were asked for; those that came to their end while
    /// the page was made are missing.
    pub transactions: Vec<(headwater_types::ScopedStream, LiveTransaction)>,
    /// Where the next page begins; `None` at the end.
    pub token: Option<String>,
}

/// Where a reader group stands, as its readers last wrote it down. They read on before they do so again, by default
/// within half a minute, so a group is never behind what this says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GroupReaders {
    /// Readers that have not been declared offline, in the order of their names.
    pub online: Vec<String>,
    /// What the group reads, in the order of names.
    pub streams: Vec<StreamReading>,
}

/// Where a reader group stands in one stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StreamReading {
    /// The stream, which need not exist any more.
    pub stream: headwater_types::ScopedStream,
    /// Segments that are being read or wait for a reader.
    pub segments: Vec<SegmentReading>,
    /// Segments that begin where others end which are not read to their end.
    pub later: Vec<SegmentId>,
    /// Bytes from there to the end of the stream, or of what the group is to read. `None` if that cannot be said: the
    /// stream has gone, or was truncated under readers.
    pub unread_bytes: Option<i64>,
}

/// Where a reader group stands in one segment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SegmentReading {
    /// The segment.
    pub id: SegmentId,
    /// Who reads it; `None` if it waits for a reader.
    pub reader: Option<String>,
    /// Byte that is read next.
    pub offset: i64,
    /// Bytes from there to the end of the segment; `None` if it has gone.
    pub unread_bytes: Option<i64>,
}
