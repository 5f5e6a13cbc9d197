//! Record of a key-value table: what it is, and what is being done to it.

use bytes::Bytes;
use headwater_types::{KeyRange, SegmentId};

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::model::{SegmentRange, TableConfig};

/// A table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Table {
    pub(crate) life: Life,
    pub(crate) config: TableConfig,
    /// Number of the first partition; above all that a deleted table of this name used.
    pub(crate) first_number: i32,
}

/// Life of a table or a reader group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Life {
    Creating,
    Active,
    Deleting,
}

impl Life {
    pub(crate) fn encode(self, encoder: &mut Encoder) {
        encoder.u8(match self {
            Self::Creating => 1,
            Self::Active => 2,
            Self::Deleting => 3,
        });
    }

    pub(crate) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(match decoder.u8()? {
            1 => Self::Creating,
            2 => Self::Active,
            3 => Self::Deleting,
            _ => return Err(decoder.malformed()),
        })
    }
}

const VERSION: u8 = 1;

impl Table {
    /// Partitions by ascending key.
    pub(crate) fn partitions(&self) -> Vec<SegmentRange> {
        let count = usize::try_from(self.config.partitions).unwrap_or(0);
        (self.first_number..)
            .zip(KeyRange::split(count))
            .map(|(number, range)| SegmentRange { id: SegmentId::new(number, 0), range })
            .collect()
    }

    pub(crate) fn last_number(&self) -> i32 {
        self.first_number + self.config.partitions - 1
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut encoder = Encoder::new(VERSION);
        self.life.encode(&mut encoder);
        let config = self.config;
        encoder.i32(config.partitions).i32(config.primary_key_bytes).i32(config.secondary_key_bytes);
        encoder.i64(config.rollover_bytes).i32(self.first_number);
        encoder.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new("key-value table", VERSION, bytes)?;
        let record = Self {
            life: Life::decode(&mut decoder)?,
            config: TableConfig {
                partitions: decoder.i32()?,
                primary_key_bytes: decoder.i32()?,
                secondary_key_bytes: decoder.i32()?,
                rollover_bytes: decoder.i64()?,
            },
            first_number: decoder.i32()?,
        };
        let numbered = record.first_number >= 0 && record.first_number.checked_add(record.config.partitions).is_some();
        if record.config.check().is_err() || !numbered {
            return Err(decoder.malformed());
        }
        decoder.finish()?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let config =
            TableConfig { partitions: 3, primary_key_bytes: 4, secondary_key_bytes: 2, rollover_bytes: 1 << 40 };
        Table { life: Life::Deleting, config, first_number: 7 }
    }

    #[test]
    fn a_table_comes_back_as_it_was() {
        assert_eq!(Table::decode(&table().encode()).unwrap(), table());
    }

    #[test]
    fn no_bytes_make_decoding_panic() {
        let good = table().encode();
        for cut in 0..good.len() {
            assert!(Table::decode(&good[..cut]).is_err());
        }
        for at in 0..good.len() {
            for flip in [0x01, 0x7f, 0x80, 0xff] {
                let mut bad = good.to_vec();
                bad[at] ^= flip;
                if let Ok(table) = Table::decode(&bad) {
                    assert_eq!(table.partitions().len(), table.config.partitions as usize);
                    assert!(table.last_number() >= table.first_number);
                }
            }
        }
    }

    #[test]
    fn partitions_are_numbered_on_and_cover_the_key_space() {
        let partitions = table().partitions();
        assert_eq!(partitions.iter().map(|p| p.id.number).collect::<Vec<_>>(), vec![7, 8, 9]);
        assert_eq!(table().last_number(), 9);
        assert_eq!((partitions[0].range.low(), partitions[2].range.high()), (0.0, 1.0));
    }
}
