//! Why bytes were refused, and why a command cannot become bytes.

use headwater_types::WriterId;

/// Why a connection cannot go on. There is no way back to a known place between two frames and no reply that a client
/// would expect, so the connection is closed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// A header announces more than the peer may send; found before the bytes arrive.
    #[error("frame of {bytes} bytes, limit {limit}")]
    FrameTooLong {
        /// Whole frame, header included.
        bytes: usize,
        /// Largest whole frame accepted at this point.
        limit: usize,
    },
    /// A header announces a length below zero.
    #[error("frame of negative length {length}")]
    NegativeLength {
        /// As announced.
        length: i32,
    },
    /// A buffer that should hold one whole frame holds less or more.
    #[error("{bytes} bytes are not one frame")]
    NotOneFrame {
        /// Bytes in the buffer.
        bytes: usize,
    },
    /// No command of this protocol has this code, or it never travels in this direction.
    #[error("unexpected command code {code}")]
    UnexpectedCommand {
        /// As announced.
        code: i32,
    },
    /// The first frame of each side is its Hello.
    #[error("command code {code} before hello")]
    HelloMissing {
        /// What came instead.
        code: i32,
    },
    /// The peer speaks no version that we speak.
    #[error("peer speaks versions {low} to {high}, we speak {ours_low} to {ours_high}", ours_low = crate::VERSION_OLDEST, ours_high = crate::VERSION)]
    VersionsDoNotOverlap {
        /// Oldest version of the peer.
        low: i32,
        /// Newest version of the peer.
        high: i32,
    },
    /// A field does not hold what its command promises.
    #[error("{command}, field {field}: {reason}")]
    Malformed {
        /// Name of the command.
        command: &'static str,
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it.
        reason: Malformed,
    },
    /// Data for a writer that was never set up on this connection.
    #[error("{command} of writer {:032x}, which was not set up", writer.0)]
    WriterNotSetUp {
        /// Name of the command.
        command: &'static str,
        /// The writer.
        writer: WriterId,
    },
    /// More writers than one connection may set up.
    #[error("more than {limit} writers set up on one connection", limit = crate::WRITERS_MAX)]
    TooManyWriters,
    /// Only the end of a block may follow the block.
    #[error("command code {code} inside an open append block")]
    BlockOpen {
        /// What came instead.
        code: i32,
    },
    /// A block and its end contradict each other.
    #[error("append block of {block_bytes} bytes: {reason}")]
    Block {
        /// Bytes announced by the block.
        block_bytes: usize,
        /// The contradiction.
        reason: BlockMismatch,
    },
    /// An append without a single event.
    #[error("append of {event_count} events")]
    EventCount {
        /// As announced.
        event_count: i32,
    },
    /// Event numbers of a writer went back.
    #[error("event number {number} after {last}")]
    EventNumberWentBack {
        /// Of this append.
        number: i64,
        /// Of the append before it, 0 right after the writer was set up.
        last: i64,
    },
}

/// What is wrong with one field.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The frame is over before the field is.
    #[error("{needed} bytes needed, {left} left")]
    Short {
        /// Bytes the field still needs.
        needed: usize,
        /// Bytes left in the frame.
        left: usize,
    },
    /// A length or count below zero.
    #[error("negative length {length}")]
    Negative {
        /// As announced.
        length: i32,
    },
    /// More items than the rest of the frame can hold, or than [`LIST_ITEMS_MAX`](crate::LIST_ITEMS_MAX).
    #[error("list of {count} items")]
    TooManyItems {
        /// As announced.
        count: usize,
    },
    /// Text that is not UTF-8. Java's own variant of it is refused where it differs.
    #[error("text is not utf-8")]
    NotUtf8,
    /// A table key without bytes: the published clients do not agree on its layout.
    #[error("empty table key")]
    EmptyKey,
    /// An inner size that contradicts the size of what it encloses.
    #[error("inner size {announced}, contents need {needed}")]
    InnerSize {
        /// As announced.
        announced: i32,
        /// Computed from the contents.
        needed: usize,
    },
    /// The nested command is not an event.
    #[error("nested command code {code} is not an event")]
    NotAnEvent {
        /// As announced.
        code: i32,
    },
    /// A segment name that is longer than any segment's.
    #[error("segment name of {bytes} bytes, limit {limit}", limit = headwater_types::limits::SEGMENT_NAME_BYTES_MAX)]
    NameTooLong {
        /// Its length.
        bytes: usize,
    },
}

/// How a block and its end contradict each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockMismatch {
    /// The end names another writer.
    #[error("end names another writer")]
    Writer,
    /// More whole events than the block has bytes, or a negative number.
    #[error("{whole_bytes} bytes of whole events")]
    WholeBytes {
        /// As announced by the end.
        whole_bytes: i32,
    },
    /// What follows the whole events is neither padding nor a partial event that fills the block.
    #[error("filler is neither padding nor a partial event of the right length")]
    Filler,
    /// The end carries data although no partial event is waiting for it.
    #[error("end carries {bytes} bytes that continue no partial event")]
    Unexpected {
        /// Bytes carried.
        bytes: usize,
    },
}

/// Why a command cannot be encoded. Nothing was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The frame would be longer than its receiver accepts.
    #[error("payload of {bytes} bytes, limit {limit}")]
    FrameTooLong {
        /// Payload, without the header.
        bytes: usize,
        /// Largest payload the receiver takes.
        limit: usize,
    },
    /// Text above 65 535 bytes.
    #[error("text of {bytes} bytes, limit {limit}", limit = u16::MAX)]
    TextTooLong {
        /// Its length.
        bytes: usize,
    },
    /// More than [`LIST_ITEMS_MAX`](crate::LIST_ITEMS_MAX) items.
    #[error("list of {count} items, limit {limit}", limit = crate::LIST_ITEMS_MAX)]
    TooManyItems {
        /// Their number.
        count: usize,
    },
    /// A table key without bytes: the published clients do not agree on its layout.
    #[error("empty table key")]
    EmptyKey,
    /// The peer is too old for this command, or has not said its version yet.
    #[error("{command} needs version {needed}, agreed on {agreed:?}")]
    Version {
        /// Name of the command.
        command: &'static str,
        /// Version that introduced it.
        needed: i32,
        /// Version both sides speak; `None` before the peer's Hello.
        agreed: Option<i32>,
    },
}
