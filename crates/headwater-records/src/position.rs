//! Positions of a reader, which applications keep beside what they made of the events.

use bytes::Bytes;

use crate::output::COMPACT_LONG_MAX;
use crate::{Input, Offsets, Output, READ, Ranges, RecordError};

/// How far a reader is in each segment that it has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Position {
    /// Offsets of the next event, in bytes; [`READ`] where there is none.
    pub offsets: Offsets,
    /// Keys of the segments. Older clients wrote none.
    pub ranges: Ranges,
}

/// Least bytes of an entry: an empty name and a short offset.
const ENTRY_BYTES: usize = 3;

impl Position {
    /// As bytes. Any offset below zero becomes [`READ`].
    ///
    /// # Errors
    /// An offset of 2^62 - 2 or more.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        let mut output = Output::default();
        if let Some(number) = self.offsets.values().copied().find(|offset| *offset == COMPACT_LONG_MAX) {
            return Err(RecordError::OutOfRange { what: "offset", number });
        }
        output.record(
            0,
            &[
                &|output| {
                    output.map(&self.offsets, Output::segment, |output, offset| {
                        output.compact_long(if *offset < 0 { COMPACT_LONG_MAX } else { *offset })
                    });
                },
                &|output| {
                    output.ranges(&self.ranges);
                },
            ],
        );
        output.finish()
    }

    /// From bytes.
    ///
    /// # Errors
    /// Something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut input = Input::new(bytes);
        let mut revisions = input.record(0)?;
        input.end()?;
        let offset = |input: &mut Input<'_>| {
            let offset = input.compact_long()?;
            Ok(if offset == COMPACT_LONG_MAX { READ } else { offset })
        };
        let offsets = revisions.first()?.map(ENTRY_BYTES, Input::segment, offset)?;
        let ranges = revisions.later().map(|mut body| body.ranges()).transpose()?.unwrap_or_default();
        Ok(Self { offsets, ranges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{any_offsets, any_ranges, hex, segment, unhex};
    use headwater_types::KeyRange;
    use proptest::prelude::*;

    #[test]
    fn a_position_has_the_bytes_that_java_gives_it() {
        let name = segment("scope/stream/0.#epoch.0");
        let position = Position { offsets: [(name.clone(), 28)].into(), ranges: [(name, Some(KeyRange::FULL))].into() };
        let bytes = "000002000000001b01001773636f70652f73747265616d2f302e2365706f63682e301c010000002a01001773636f70652f\
                     73747265616d2f302e2365706f63682e3000000000000000003ff0000000000000";
        assert_eq!(hex(&position.encode().unwrap()), bytes);
        assert_eq!(Position::decode(&unhex(bytes)), Ok(position));
    }

    #[test]
    fn a_segment_that_is_read_and_one_whose_keys_are_unknown_come_back() {
        let position = Position {
            offsets: [(segment("s/t/0.#epoch.0"), READ)].into(),
            ranges: [(segment("s/t/0.#epoch.0"), None)].into(),
        };
        let bytes = position.encode().unwrap();
        assert!(hex(&bytes).contains("fffffffffffffffe01"), "{}", hex(&bytes));
        assert_eq!(Position::decode(&bytes), Ok(position));
        let offsets = [(segment("s/t/0.#epoch.0"), COMPACT_LONG_MAX)].into();
        assert!(Position { offsets, ..Position::default() }.encode().is_err());
    }

    proptest! {
        #[test]
        fn a_position_comes_back(offsets in any_offsets(), ranges in any_ranges()) {
            let offsets = offsets.into_iter().map(|(segment, offset)| (segment, (offset >> 3).max(READ))).collect();
            let position = Position { offsets, ranges };
            prop_assert_eq!(Position::decode(&position.encode().unwrap()), Ok(position));
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes in any::<Vec<u8>>()) {
            let _ = Position::decode(&bytes);
        }
    }
}
