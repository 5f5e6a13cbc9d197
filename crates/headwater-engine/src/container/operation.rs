//! Operations: what was decided, in the form the journal keeps. Applying one never fails and never asks anybody; the
//! same operations in the same order give the same state, when they are decided and when they are replayed.

use headwater_types::{AttributeId, WriterId};

use crate::api::{SegmentKind, SegmentPolicy};
use crate::codec::{Decoder, Encoder, Malformed};

/// One change of a container's state. Bulk bytes travel beside it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Operation {
    /// A new segment under the container's next id.
    Create {
        key: String,
        kind: SegmentKind,
        policy: SegmentPolicy,
        now: i64,
    },
    /// The payload goes to the end of the segment.
    Append {
        segment: u64,
        offset: u64,
        writer: WriterId,
        number: i64,
        event_count: u32,
        now: i64,
    },
    Seal {
        segment: u64,
        now: i64,
    },
    Truncate {
        segment: u64,
        offset: u64,
    },
    Delete {
        segment: u64,
    },
    /// All of `source` goes to the end of `target`; `source` disappears. Attributes have their final values.
    Merge {
        target: u64,
        source: u64,
        offset: u64,
        attributes: Vec<(AttributeId, i64)>,
        now: i64,
    },
    Attributes {
        segment: u64,
        attributes: Vec<(AttributeId, i64)>,
    },
    SetPolicy {
        segment: u64,
        policy: SegmentPolicy,
    },
    /// The payload holds table entries in the layout of `tables`; it goes to the end of the table's log.
    TableEntries {
        segment: u64,
        offset: u64,
        now: i64,
    },
    /// Entries copied forward from the head of the table's log, whose part before `start` is given up.
    TableCompact {
        segment: u64,
        offset: u64,
        start: u64,
    },
}

const CREATE: u8 = 1;
const APPEND: u8 = 2;
const SEAL: u8 = 3;
const TRUNCATE: u8 = 4;
const DELETE: u8 = 5;
const MERGE: u8 = 6;
const ATTRIBUTES: u8 = 7;
const SET_POLICY: u8 = 8;
const TABLE_ENTRIES: u8 = 9;
const TABLE_COMPACT: u8 = 10;

impl Operation {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder(Vec::with_capacity(64));
        match self {
            Self::Create { key, kind, policy, now } => {
                out.u8(CREATE).bytes(key.as_bytes());
                encode_kind(&mut out, *kind);
                encode_policy(&mut out, policy);
                out.i64(*now)
            }
            Self::Append { segment, offset, writer, number, event_count, now } => {
                out.u8(APPEND).u64(*segment).u64(*offset).u128(writer.0).i64(*number).u32(*event_count).i64(*now)
            }
            Self::Seal { segment, now } => out.u8(SEAL).u64(*segment).i64(*now),
            Self::Truncate { segment, offset } => out.u8(TRUNCATE).u64(*segment).u64(*offset),
            Self::Delete { segment } => out.u8(DELETE).u64(*segment),
            Self::Merge { target, source, offset, attributes, now } => {
                out.u8(MERGE).u64(*target).u64(*source).u64(*offset).i64(*now);
                encode_attributes(&mut out, attributes)
            }
            Self::Attributes { segment, attributes } => {
                out.u8(ATTRIBUTES).u64(*segment);
                encode_attributes(&mut out, attributes)
            }
            Self::SetPolicy { segment, policy } => {
                out.u8(SET_POLICY).u64(*segment);
                encode_policy(&mut out, policy)
            }
            Self::TableEntries { segment, offset, now } => out.u8(TABLE_ENTRIES).u64(*segment).u64(*offset).i64(*now),
            Self::TableCompact { segment, offset, start } => {
                out.u8(TABLE_COMPACT).u64(*segment).u64(*offset).u64(*start)
            }
        };
        out.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(bytes);
        let operation = match input.u8()? {
            CREATE => Self::Create {
                key: input.text()?.to_owned(),
                kind: decode_kind(&mut input)?,
                policy: decode_policy(&mut input)?,
                now: input.i64()?,
            },
            APPEND => Self::Append {
                segment: input.u64()?,
                offset: input.u64()?,
                writer: WriterId(input.u128()?),
                number: input.i64()?,
                event_count: input.u32()?,
                now: input.i64()?,
            },
            SEAL => Self::Seal { segment: input.u64()?, now: input.i64()? },
            TRUNCATE => Self::Truncate { segment: input.u64()?, offset: input.u64()? },
            DELETE => Self::Delete { segment: input.u64()? },
            MERGE => {
                let (target, source, offset, now) = (input.u64()?, input.u64()?, input.u64()?, input.i64()?);
                Self::Merge { target, source, offset, now, attributes: decode_attributes(&mut input)? }
            }
            ATTRIBUTES => Self::Attributes { segment: input.u64()?, attributes: decode_attributes(&mut input)? },
            SET_POLICY => Self::SetPolicy { segment: input.u64()?, policy: decode_policy(&mut input)? },
            TABLE_ENTRIES => Self::TableEntries { segment: input.u64()?, offset: input.u64()?, now: input.i64()? },
            TABLE_COMPACT => Self::TableCompact { segment: input.u64()?, offset: input.u64()?, start: input.u64()? },
            _ => return Err(Malformed("operation of unknown kind")),
        };
        input.end()?;
        Ok(operation)
    }
}

pub(super) fn encode_kind(out: &mut Encoder, kind: SegmentKind) {
    match kind {
        SegmentKind::Stream => out.u8(0).u32(0),
        SegmentKind::Transient => out.u8(1).u32(0),
        SegmentKind::Table { key_length } => out.u8(2).u32(key_length),
    };
}

pub(super) fn decode_kind(input: &mut Decoder<'_>) -> Result<SegmentKind, Malformed> {
    let (kind, key_length) = (input.u8()?, input.u32()?);
    match kind {
        0 => Ok(SegmentKind::Stream),
        1 => Ok(SegmentKind::Transient),
        2 => Ok(SegmentKind::Table { key_length }),
        _ => Err(Malformed("segment of unknown kind")),
    }
}

pub(super) fn encode_policy<'a>(out: &'a mut Encoder, policy: &SegmentPolicy) -> &'a mut Encoder {
    out.u8(policy.scale_type).u32(policy.rate as u32).u64(policy.rollover_bytes)
}

pub(super) fn decode_policy(input: &mut Decoder<'_>) -> Result<SegmentPolicy, Malformed> {
    Ok(SegmentPolicy { scale_type: input.u8()?, rate: input.u32()? as i32, rollover_bytes: input.u64()? })
}

fn encode_attributes<'a>(out: &'a mut Encoder, attributes: &[(AttributeId, i64)]) -> &'a mut Encoder {
    out.u32(attributes.len() as u32);
    for (id, value) in attributes {
        out.u128(id.0).i64(*value);
    }
    out
}

fn decode_attributes(input: &mut Decoder<'_>) -> Result<Vec<(AttributeId, i64)>, Malformed> {
    let count = input.u32()? as usize;
    if count > input.remaining() / 24 {
        return Err(Malformed("operation announces more attributes than fit"));
    }
    (0..count).map(|_| Ok((AttributeId(input.u128()?), input.i64()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_comes_back_from_its_bytes_and_from_nothing_shorter() {
        let policy = SegmentPolicy { scale_type: 2, rate: -5, rollover_bytes: 9 };
        let attributes = vec![(AttributeId(3), -4), (AttributeId(u128::MAX), i64::MIN)];
        for operation in [
            Operation::Create { key: "s/t/0".into(), kind: SegmentKind::Table { key_length: 4 }, policy, now: 1 },
            Operation::Append { segment: 1, offset: 2, writer: WriterId(3), number: -4, event_count: 5, now: 6 },
            Operation::Seal { segment: 1, now: 2 },
            Operation::Truncate { segment: 1, offset: 2 },
            Operation::Delete { segment: 1 },
            Operation::Merge { target: 1, source: 2, offset: 3, attributes: attributes.clone(), now: 4 },
            Operation::Attributes { segment: 1, attributes },
            Operation::SetPolicy { segment: 1, policy },
            Operation::TableEntries { segment: 1, offset: 2, now: 3 },
            Operation::TableCompact { segment: 1, offset: 2, start: 3 },
        ] {
            let bytes = operation.encode();
            assert_eq!(Operation::decode(&bytes), Ok(operation));
            for length in 0..bytes.len() {
                assert!(Operation::decode(&bytes[..length]).is_err());
            }
        }
    }
}
