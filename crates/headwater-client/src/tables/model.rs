//! Keys, versions, conditions.

use std::fmt;

use bytes::Bytes;
use headwater_types::{Name, NameError, ScopedStream, SegmentId};
use headwater_wire::{NO_VERSION, NOT_EXISTS};

use crate::error::{Error, ErrorKind, Result};
use crate::segments::Target;

/// A table and the scope it lives in.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ScopedTable {
    /// Scope.
    pub scope: Name,
    /// Table.
    pub table: Name,
}

impl ScopedTable {
    /// From `scope/table`.
    ///
    /// # Errors
    /// One of them is no name, or there is no `/`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let ScopedStream { scope, stream: table } = ScopedStream::parse(text)?;
        Ok(Self { scope, table })
    }

    /// One of its partitions; `is_known`: the controller has made it.
    pub(super) fn partition(&self, id: SegmentId, is_known: bool) -> Result<Target> {
        Target::partition(&self.scope, &self.table, id, is_known)
            .map_err(|error| Error::caused(ErrorKind::Invalid, format!("{self} is no name for a table"), error))
    }
}

impl fmt::Display for ScopedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.scope, self.table)
    }
}

/// Which change gave a key its value. Grows with each change of a key, and is never used twice for it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Version(i64);

impl Version {
    /// From its [number](Self::number); `None` for numbers below 0, which stand for no version.
    pub fn from_number(value: i64) -> Option<Self> {
        (value >= 0).then_some(Self(value))
    }

    /// The number, which is 0 or above and has no meaning but its order.
    pub const fn number(self) -> i64 {
        self.0
    }
}

/// What has to be true of a key for a change to be made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Condition {
    /// Nothing.
    #[default]
    None,
    /// The table does not have the key.
    Absent,
    /// The key has this version.
    At(Version),
}

impl Condition {
    pub(super) fn on_wire(self) -> i64 {
        match self {
            Self::None => NO_VERSION,
            Self::Absent => NOT_EXISTS,
            Self::At(version) => version.0,
        }
    }
}

/// A value to be put under a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Put<K> {
    /// Where.
    pub key: K,
    /// At most 1,040,384 bytes. Pravega's Rust client takes an empty one for a missing key.
    pub value: Bytes,
    /// When.
    pub condition: Condition,
}

impl<K> Put<K> {
    /// Whatever the key holds.
    pub fn new(key: impl Into<K>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), value: value.into(), condition: Condition::None }
    }

    /// Only under this condition.
    #[must_use]
    pub fn only_if(self, condition: Condition) -> Self {
        Self { condition, ..self }
    }
}

/// A key with what it holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry<K> {
    /// Key.
    pub key: K,
    /// Value.
    pub value: Bytes,
    /// Which change gave it this value.
    pub version: Version,
}

/// Key of a [`KeyValueTable`](super::KeyValueTable). Both parts have the lengths that the table was made with.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TableKey {
    /// Decides the partition: entries that share it can be changed at once.
    pub primary: Bytes,
    /// Tells them apart; empty in a table without.
    pub secondary: Bytes,
}

impl TableKey {
    /// Of both parts.
    pub fn new(primary: impl Into<Bytes>, secondary: impl Into<Bytes>) -> Self {
        Self { primary: primary.into(), secondary: secondary.into() }
    }
}

impl<T: Into<Bytes>> From<T> for TableKey {
    /// Without a secondary part.
    fn from(primary: T) -> Self {
        Self { primary: primary.into(), secondary: Bytes::new() }
    }
}
