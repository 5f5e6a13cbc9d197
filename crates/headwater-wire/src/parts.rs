//! Structures inside commands: table keys and entries, attribute updates, merge results, error codes.

use bytes::Bytes;
use headwater_types::AttributeId;

use crate::FrameSink;
use crate::error::{EncodeError, Malformed};
use crate::field::{Field, Reader, Text, check_inner_size, record, take_inner_size};

/// Version in a request: whatever the key's version is.
pub const NO_VERSION: i64 = i64::MIN;
/// Version in a request: the key must not exist. In a reply: it does not.
pub const NOT_EXISTS: i64 = -1;

/// A key and the version it must have or has: [`NO_VERSION`], [`NOT_EXISTS`], or 0 and above. Never empty: a reply or
/// request with an empty key is refused in both directions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TableKey {
    /// At least one byte.
    pub key: Bytes,
    /// See [`TableKey`].
    pub version: i64,
}

/// A key, its version and its value. A missing key in a reply has version [`NOT_EXISTS`] and an empty value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TableEntry {
    /// Key and version.
    pub key: TableKey,
    /// May be empty, though the Rust client takes an empty value for a missing key.
    pub value: Bytes,
}

impl Field for TableKey {
    const BYTES_MIN: usize = 4 + 4 + 1 + 8;
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let announced = take_inner_size(reader)?;
        let key = Bytes::take(reader)?;
        if key.is_empty() {
            return Err(Malformed::EmptyKey);
        }
        check_inner_size(announced, 4 + key.len() + 8)?;
        Ok(Self { key, version: i64::take(reader)? })
    }
    fn encoded_bytes(&self) -> Result<usize, EncodeError> {
        if self.key.is_empty() { Err(EncodeError::EmptyKey) } else { Ok(4 + 4 + self.key.len() + 8) }
    }
    fn put(&self, out: &mut impl FrameSink) {
        ((4 + self.key.len() + 8) as i32).put(out);
        self.key.put(out);
        self.version.put(out);
    }
}

impl Field for TableEntry {
    const BYTES_MIN: usize = TableKey::BYTES_MIN + 8;
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let key = TableKey::take(reader)?;
        let announced = take_inner_size(reader)?;
        let value = Bytes::take(reader)?;
        check_inner_size(announced, 4 + value.len())?;
        Ok(Self { key, value })
    }
    fn encoded_bytes(&self) -> Result<usize, EncodeError> {
        Ok(self.key.encoded_bytes()? + 4 + 4 + self.value.len())
    }
    fn put(&self, out: &mut impl FrameSink) {
        self.key.put(out);
        ((4 + self.value.len()) as i32).put(out);
        self.value.put(out);
    }
}

/// A change of one attribute that a merge makes on its target, or a condition for the merge.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AttributeUpdate {
    /// Which attribute.
    pub attribute: AttributeId,
    /// 0 only if unset, 1 always, 2 only if greater, 3 add, 4 only if it equals `old_value`. Others are the sender's
    /// mistake and worth an answer, so they pass here.
    pub update_type: i8,
    /// The new value stands before the old one.
    pub new_value: i64,
    /// Compared with by type 4.
    pub old_value: i64,
}
record!(AttributeUpdate { attribute: AttributeId, update_type: i8, new_value: i64, old_value: i64 });

/// One source of a batch merge that is now part of the target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MergedSource {
    /// The segment that is gone.
    pub source: Text,
    /// Length of the target at or after this merge.
    pub target_length: i64,
}
record!(MergedSource { source: Text, target_length: i64 });

/// One object in which long-term storage keeps a part of a segment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChunkInfo {
    /// Length the segment's metadata knows, in bytes.
    pub length_in_metadata: i64,
    /// Length the storage reports, in bytes.
    pub length_in_storage: i64,
    /// Offset in the segment of the chunk's first byte.
    pub start_offset: i64,
    /// The storage's name for it.
    pub chunk_name: Text,
    /// Whether the storage has it at all.
    pub exists_in_storage: bool,
}
record!(ChunkInfo {
    length_in_metadata: i64,
    length_in_storage: i64,
    start_offset: i64,
    chunk_name: Text,
    exists_in_storage: bool
});

/// Codes travel as `i32`; unknown ones read as the variant after `else`.
macro_rules! codes {
    ($codes:ident { $($variant:ident = $code:literal),* } else $unknown:ident) => {
        impl Field for $codes {
            const BYTES_MIN: usize = 4;
            fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
                Ok(match i32::take(reader)? {
                    $($code => Self::$variant,)*
                    _ => Self::$unknown,
                })
            }
            fn encoded_bytes(&self) -> Result<usize, EncodeError> {
                Ok(4)
            }
            fn put(&self, out: &mut impl FrameSink) {
                let code: i32 = match self {
                    $(Self::$variant => $code,)*
                };
                code.put(out);
            }
        }
    };
}

/// Why a token was refused. The Rust client panics on any other code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TokenFailure {
    /// An older server did not say.
    Unspecified,
    /// Missing, malformed, badly signed or not good for this: the client gives up.
    Refused,
    /// The client fetches a new one and tries again.
    Expired,
}
codes!(TokenFailure { Unspecified = -1, Refused = 0, Expired = 1 } else Refused);

/// What an `ErrorMessage` is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ErrorCode {
    /// A failure without a reply of its own.
    Unspecified,
    /// The request itself is wrong and will stay so.
    IllegalArgument,
}
codes!(ErrorCode { Unspecified = -1, IllegalArgument = 0 } else Unspecified);
