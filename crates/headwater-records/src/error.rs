//! Why bytes are no record, or values do not fit into one.

/// Why bytes are not what a client writes, or why something cannot be written that way.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The bytes end in the middle.
    #[error("{wanted} bytes wanted where {left} are left")]
    Short {
        /// Bytes that should follow.
        wanted: usize,
        /// Bytes that do.
        left: usize,
    },
    /// More elements are announced than could be in the bytes that follow.
    #[error("{count} elements announced in {left} bytes")]
    Count {
        /// Number of elements.
        count: usize,
        /// Bytes that follow.
        left: usize,
    },
    /// Bytes follow that belong to nothing.
    #[error("{bytes} bytes follow the record")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A format, version, type or other number that is not known.
    #[error("{what} {number} is unknown")]
    Unknown {
        /// What the number says.
        what: &'static str,
        /// The number.
        number: i64,
    },
    /// A number that the form cannot hold, or a length below zero.
    #[error("{what} {number} is out of range")]
    OutOfRange {
        /// What the number says.
        what: &'static str,
        /// The number.
        number: i64,
    },
    /// A text that is not Unicode, or not in Java's modified UTF-8.
    #[error("text is not in modified utf-8")]
    Text,
    /// A text longer than 65535 bytes.
    #[error("text of {bytes} bytes, limit 65535")]
    TextTooLong {
        /// Its length in modified UTF-8.
        bytes: usize,
    },
    /// A text that is not the name of what it should name.
    #[error("not the name of a {0}")]
    Name(&'static str),
    /// Bounds that are no range of keys.
    #[error("not a range of keys")]
    Range,
    /// A text form that does not have its parts.
    #[error("not the text form of a {0}")]
    Form(&'static str),
    /// What the bytes stand for takes more memory than is allowed.
    #[error("takes more memory than is allowed")]
    Memory,
}
