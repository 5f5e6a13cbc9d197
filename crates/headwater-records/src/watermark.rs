//! Watermarks: what time it is at a position of a stream, as the server writes it into the stream's mark stream.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_types::{KeyRange, SegmentId};

use crate::{Input, Output, RecordError};

/// A position with its time: before it everything has been passed that writers wrote until the lower bound, and nothing from
/// after the upper bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Watermark {
    /// In whatever unit the application uses.
    pub lower: i64,
    /// The same; not below the lower bound.
    pub upper: i64,
    /// Keys and offset of each segment.
    pub position: BTreeMap<SegmentId, (KeyRange, i64)>,
}

/// A segment's record of 32 bytes, and its offset.
const ENTRY_BYTES: usize = 40;

impl Watermark {
    /// As bytes, without the header of an event.
    pub fn encode(&self) -> Bytes {
        let mut output = Output::default();
        output.record(
            0,
            &[&|output| {
                output.i64(self.lower).i64(self.upper).list(self.position.iter(), |output, (id, (range, offset))| {
                    output
                        .record(
                            0,
                            &[&|output| {
                                output.i64(id.as_i64()).range(Some(*range));
                            }],
                        )
                        .i64(*offset)
                });
            }],
        );
        output.finish().expect("numbers of fixed length always fit, and no stream has a billion segments")
    }

    /// From bytes.
    ///
    /// # Errors
    /// Something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut input = Input::new(bytes);
        let mut body = input.record(0)?.first()?;
        input.end()?;
        let (lower, upper) = (body.i64()?, body.i64()?);
        let segments = body.list(ENTRY_BYTES, |input| {
            let mut segment = input.record(0)?.first()?;
            let number = segment.i64()?;
            let id = SegmentId::from_i64(number).ok_or(RecordError::OutOfRange { what: "segment", number })?;
            let range = segment.range()?.ok_or(RecordError::Range)?;
            Ok((id, (range, input.i64()?)))
        })?;
        Ok(Self { lower, upper, position: segments.into_iter().collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{any_id, any_range, hex};
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    #[test]
    fn a_watermark_has_the_form_of_java() {
        let position = [(SegmentId::new(0, 0), (KeyRange::FULL, 512))].into();
        let watermark = Watermark { lower: 1000, upper: 2000, position };
        // Derived from the record format by hand.
        let record = "000001000000003900000000000003e800000000000007d00100000100000000180000000000000000\
                      00000000000000003ff00000000000000000000000000200";
        assert_eq!(hex(&watermark.encode()), record);
        assert_eq!(Watermark::decode(&watermark.encode()), Ok(watermark));
    }

    proptest! {
        #[test]
        fn a_watermark_comes_back(
            lower in any::<i64>(),
            upper in any::<i64>(),
            position in btree_map(any_id(), (any_range(), any::<i64>()), 0..5),
        ) {
            let watermark = Watermark { lower, upper, position };
            prop_assert_eq!(Watermark::decode(&watermark.encode()), Ok(watermark));
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes in any::<Vec<u8>>()) {
            let _ = Watermark::decode(&bytes);
        }
    }
}
