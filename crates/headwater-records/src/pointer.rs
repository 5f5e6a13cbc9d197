//! Pointers to single events, as bytes and as text.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use headwater_types::StreamSegment;

use crate::input::segment;
use crate::{Input, Output, RecordError};

/// Where one event is.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EventPointer {
    /// Segment.
    pub segment: StreamSegment,
    /// Offset of the event's header in bytes; never below zero.
    pub offset: i64,
    /// Bytes of the event with its header of 8; below 2^30 - 1.
    pub length: i32,
}

impl EventPointer {
    /// As bytes.
    ///
    /// # Errors
    /// Offset or length below zero or beyond what the form holds.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        let number = i64::from(self.length);
        let length = usize::try_from(number).map_err(|_| RecordError::OutOfRange { what: "length", number })?;
        let mut output = Output::default();
        output.record(
            0,
            &[&|output| {
                output.segment(&self.segment).compact_long(self.offset).compact_int(length);
            }],
        );
        output.finish()
    }

    /// From bytes.
    ///
    /// # Errors
    /// Something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut input = Input::new(bytes);
        let mut body = input.record(0)?.first()?;
        input.end()?;
        let (segment, offset) = (body.segment()?, body.compact_long()?);
        let length = body.compact_int()?.try_into().expect("compact numbers stay below 2^30");
        Ok(Self { segment, offset, length })
    }
}

impl fmt::Display for EventPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}-{}", self.segment, self.offset, self.length)
    }
}

impl FromStr for EventPointer {
    type Err = RecordError;

    fn from_str(text: &str) -> Result<Self, RecordError> {
        let malformed = || RecordError::Form("event pointer");
        let (name, numbers) = text.rsplit_once(':').ok_or_else(malformed)?;
        let (offset, length) = numbers.split_once('-').ok_or_else(malformed)?;
        let pointer = Self {
            segment: segment(name)?,
            offset: offset.parse().map_err(|_| malformed())?,
            length: length.parse().map_err(|_| malformed())?,
        };
        if pointer.offset < 0 || pointer.length < 0 { Err(malformed()) } else { Ok(pointer) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{any_segment, hex, unhex};
    use proptest::prelude::*;

    #[test]
    fn a_pointer_has_the_bytes_that_java_gives_it() {
        let pointer: EventPointer = "scope/stream/0.#epoch.0:13-15".parse().unwrap();
        assert_eq!((pointer.offset, pointer.length), (13, 15));
        let bytes = "000001000000001b001773636f70652f73747265616d2f302e2365706f63682e300d0f";
        assert_eq!(hex(&pointer.encode().unwrap()), bytes);
        assert_eq!(EventPointer::decode(&unhex(bytes)), Ok(pointer));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "s/t/0.#epoch.0", "s/t/0.#epoch.0:1", "s/t/0.#epoch.0:-1-5", "s/t/0.#epoch.0:1--5", "t/0:1-5"]
        {
            assert!(text.parse::<EventPointer>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_pointer_comes_back(segment in any_segment(), offset in 0..1_i64 << 61, length in 0..1 << 29) {
            let pointer = EventPointer { segment, offset, length };
            prop_assert_eq!(EventPointer::decode(&pointer.encode().unwrap()), Ok(pointer.clone()));
            prop_assert_eq!(pointer.to_string().parse(), Ok(pointer));
        }

        #[test]
        fn no_bytes_and_no_text_make_reading_panic(bytes in any::<Vec<u8>>(), text in any::<String>()) {
            let _ = (EventPointer::decode(&bytes), text.parse::<EventPointer>());
        }
    }
}
