//! Keys of the catalogue: one letter for the kind, then the parts in an order that sorts as needed.
//!
//! | letter | key | value |
//! |---|---|---|
//! | `N` | name of a segment | its id |
//! | `S` | segment id | its record |
//! | `A` | segment id, attribute id | value |
//! | `C` | segment id, end offset | start offset, chunk, position |
//! | `E` | segment id, offset | nothing: an append ended here |
//! | `F` | chunk | bytes in it that are still needed |
//! | `D` | segment id | nothing: its `A`, `E` and `T` keys are given up |
//! | `T` | segment id, table key | version, position, length of the value |
//! | `X` | segment id | nothing: the segment is transient |

use headwater_types::AttributeId;
use headwater_types::limits::TABLE_VALUE_BYTES_MAX;

use crate::catalogue::Key;
use crate::chunks::Place;
use crate::codec::{Decoder, Encoder, Malformed};

pub(super) fn name(key: &str) -> Key {
    [b"N", key.as_bytes()].concat()
}

fn numbered(letter: u8, id: u64) -> Encoder {
    let mut key = Encoder(Vec::with_capacity(25));
    key.u8(letter).u64(id);
    key
}

pub(super) fn segment(id: u64) -> Key {
    numbered(b'S', id).0
}

pub(super) fn transient(id: u64) -> Key {
    numbered(b'X', id).0
}

pub(super) const TRANSIENTS: &[u8] = b"X";

pub(super) fn attributes(id: u64) -> Key {
    numbered(b'A', id).0
}

pub(super) fn attribute(id: u64, attribute: AttributeId) -> Key {
    let mut key = numbered(b'A', id);
    key.u128(attribute.0);
    key.0
}

pub(super) const PIECES: &[u8] = b"C";

/// The attribute that a key of `A` is about.
pub(super) fn attribute_of(key: &[u8]) -> Result<AttributeId, Malformed> {
    let attribute = key.get(PREFIX_BYTES..).and_then(|attribute| attribute.try_into().ok());
    attribute.map(u128::from_be_bytes).map(AttributeId).ok_or(Malformed("key of an attribute has another length"))
}

/// The segment that a key belongs to, for `A`, `C`, `E` and `T`.
pub(super) fn owner(key: &[u8]) -> Result<u64, Malformed> {
    let owner = key.get(1..PREFIX_BYTES).and_then(|owner| owner.try_into().ok());
    owner.map(u64::from_be_bytes).ok_or(Malformed("catalogue key is too short"))
}

pub(super) fn pieces(id: u64) -> Key {
    numbered(b'C', id).0
}

pub(super) fn piece(id: u64, end: u64) -> Key {
    let mut key = numbered(b'C', id);
    key.u64(end);
    key.0
}

pub(super) fn boundaries(id: u64) -> Key {
    numbered(b'E', id).0
}

pub(super) fn boundary(id: u64, offset: u64) -> Key {
    let mut key = numbered(b'E', id);
    key.u64(offset);
    key.0
}

pub(super) fn chunk(number: u64) -> Key {
    numbered(b'F', number).0
}

pub(super) const CHUNKS: &[u8] = b"F";

pub(super) fn table_key(id: u64, table_key: &[u8]) -> Key {
    let mut key = numbered(b'T', id);
    key.0.extend_from_slice(table_key);
    key.0
}

/// Bytes of a key before the part that belongs to the segment.
pub(super) const PREFIX_BYTES: usize = 9;

/// The number behind the prefix, for `C` and `E`; the number itself for `S`, `X` and `F`.
pub(super) fn last_number(key: &[u8]) -> Result<u64, Malformed> {
    let tail = key.last_chunk::<8>().ok_or(Malformed("catalogue key is too short"))?;
    Ok(u64::from_be_bytes(*tail))
}

/// No segment and no chunk has a byte from here on: what is read from the disk is below and can be added up.
pub(super) const OFFSET_MAX: u64 = 1 << 60;

/// A run of a segment's bytes in a chunk. It has at least one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct StoredRun {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) place: Place,
}

impl StoredRun {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = Encoder::default();
        value.u64(self.start).u64(self.place.chunk).u64(self.place.position);
        value.0
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(value);
        let start = input.u64()?;
        let place = Place { chunk: input.u64()?, position: input.u64()? };
        let end = last_number(key)?;
        if start >= end {
            return Err(Malformed("piece ends before it begins"));
        }
        if end > OFFSET_MAX || place.position > OFFSET_MAX {
            return Err(Malformed("piece is behind the end of any chunk"));
        }
        Ok(Self { start, end, place })
    }

    pub(super) fn length(&self) -> u64 {
        self.end - self.start
    }
}

/// Where a table key's value is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct IndexEntry {
    pub(super) version: i64,
    pub(super) position: u64,
    pub(super) value_length: u32,
}

impl IndexEntry {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = Encoder::default();
        value.i64(self.version).u64(self.position).u32(self.value_length);
        value.0
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(value);
        let entry = Self { version: input.i64()?, position: input.u64()?, value_length: input.u32()? };
        if entry.position > OFFSET_MAX || entry.value_length as usize > TABLE_VALUE_BYTES_MAX {
            return Err(Malformed("table entry lies where none can be"));
        }
        Ok(entry)
    }
}

/// A plain number as a value.
pub(super) fn number(value: u64) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

pub(super) fn decode_number(value: &[u8]) -> Result<u64, Malformed> {
    Ok(u64::from_be_bytes(value.try_into().map_err(|_| Malformed("stored number has another length"))?))
}
