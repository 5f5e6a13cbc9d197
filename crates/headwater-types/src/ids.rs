//! Numbers with a meaning.

use std::fmt;

/// Position of a byte in a segment, counted from the first byte ever written to it.
/// Truncation moves the readable start forward and never renumbers.
pub type Offset = u64;

/// The number a writer gives its event: grows within one writer and segment, may skip.
/// "Nothing stored yet" is `None` in our code and `i64::MIN` on the wire.
pub type EventNumber = i64;

/// Identity a client draws for one writer on one segment; doubles as an [`AttributeId`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WriterId(pub u128);

/// Names one 64-bit attribute of a segment.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AttributeId(pub u128);

impl From<WriterId> for AttributeId {
    fn from(writer: WriterId) -> Self {
        Self(writer.0)
    }
}

/// Attribute ids and values with a fixed meaning.
pub mod attribute {
    use super::AttributeId;

    const fn core(low: u64) -> AttributeId {
        AttributeId((0x8000_0000_0000_0000_u128 << 64) | low as u128)
    }

    /// Value that stands for "not set"; storing it removes the attribute.
    pub const NULL: i64 = i64::MIN;
    /// When the segment was created, in milliseconds since 1970.
    pub const CREATION_TIME: AttributeId = core(0);
    /// Sum of the event counts of all appends and merges.
    pub const EVENT_COUNT: AttributeId = core(1);
    /// Scale policy: 0 none, 1 throughput in KB/s, 2 events/s.
    pub const SCALE_TYPE: AttributeId = core(2);
    /// Target rate of the scale policy.
    pub const SCALE_RATE: AttributeId = core(3);
    /// Rollover size in bytes, 0 = default.
    pub const ROLLOVER_BYTES: AttributeId = core(4);
    /// Offset from which clients read a segment that they keep a common state in. Source: Java's revisioned stream client,
    /// which names it `RevisionStreamClientMark`.
    pub const REVISION_MARK: AttributeId = AttributeId(0x7df9_a874_246c_c9d6_9397_cdd1_9ead_68c5);
}

/// A stream segment inside its stream: number and creation epoch. On the wire: `epoch << 32 | number`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SegmentId {
    /// Epoch in which the segment was created.
    pub epoch: i32,
    /// Unique within the stream among segments made by creation and scaling.
    pub number: i32,
}

impl SegmentId {
    /// Both halves must be non-negative, as everywhere in the protocol.
    pub const fn new(number: i32, epoch: i32) -> Self {
        assert!(number >= 0 && epoch >= 0, "segment numbers and epochs are never negative");
        Self { epoch, number }
    }

    /// From the 64-bit form; `None` if either half is negative.
    pub const fn from_i64(id: i64) -> Option<Self> {
        let (epoch, number) = ((id >> 32) as i32, id as i32);
        if epoch < 0 || number < 0 { None } else { Some(Self { epoch, number }) }
    }

    /// The 64-bit form that controller messages carry.
    pub const fn as_i64(self) -> i64 {
        ((self.epoch as i64) << 32) | self.number as i64
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.#epoch.{}", self.number, self.epoch)
    }
}

/// Identity of a transaction. The top 32 bits are its epoch; the Rust client needs bit 63 of the low half clear.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TransactionId(pub u128);

impl TransactionId {
    /// From the two signed halves of `TxnId`.
    pub const fn from_halves(high: i64, low: i64) -> Self {
        Self(((high as u64 as u128) << 64) | low as u64 as u128)
    }

    /// The two signed halves, high first.
    pub const fn halves(self) -> (i64, i64) {
        ((self.0 >> 64) as i64, self.0 as i64)
    }

    /// Epoch of the segment layout the transaction writes to.
    pub const fn epoch(self) -> i32 {
        (self.0 >> 96) as i32
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_id_packs_epoch_above_number() {
        let id = SegmentId::new(2, 1);
        assert_eq!(id.as_i64(), 4_294_967_298);
        assert_eq!(SegmentId::from_i64(4_294_967_298), Some(id));
        assert_eq!(SegmentId::from_i64(-1), None);
        assert_eq!(id.to_string(), "2.#epoch.1");
    }

    #[test]
    fn a_transaction_id_keeps_its_epoch_in_the_top_bits() {
        let id = TransactionId::from_halves(3 << 32, 5);
        assert_eq!(id.epoch(), 3);
        assert_eq!(id.halves(), (3 << 32, 5));
        assert_eq!(id.to_string(), "00000003000000000000000000000005");
    }
}
