//! Putting records together.
//!
//! Values that the form cannot hold are remembered and reported at the end, so that writing reads like the record.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_types::{KeyRange, ScopedStream, StreamSegment};

use crate::{Offsets, Ranges, RecordError};

/// Bytes of a record while it is written.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    refused: Option<RecordError>,
}

/// Largest number of elements.
const COUNT_MAX: usize = 0x3fff_fffe;
/// Largest number that [`Output::compact_long`] takes.
pub(crate) const COMPACT_LONG_MAX: i64 = 0x3fff_ffff_ffff_fffe;
/// Bounds of [`Output::compact_signed_long`].
const COMPACT_SIGNED_LONG_MAX: i64 = 0x1fff_ffff_ffff_ffff;

impl Output {
    /// What was written.
    ///
    /// # Errors
    /// The first value that did not fit.
    pub fn finish(self) -> Result<Bytes, RecordError> {
        match self.refused {
            None => Ok(self.bytes.into()),
            Some(refused) => Err(refused),
        }
    }

    fn refuse(&mut self, refused: RecordError) {
        self.refused.get_or_insert(refused);
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    /// One byte, 1 or 0.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(value.into())
    }

    /// Four bytes, highest first, as all numbers.
    pub fn i32(&mut self, value: i32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Eight bytes.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Eight bytes.
    pub fn f64(&mut self, value: f64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Sixteen bytes: a uuid.
    pub fn uuid(&mut self, value: u128) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// A text in modified UTF-8 after its length in two bytes. At most 65535 bytes.
    pub fn text(&mut self, text: &str) -> &mut Self {
        let begin = self.bytes.len();
        self.raw(&[0, 0]);
        for unit in text.encode_utf16() {
            let low = |bits: u16| 0x80 | (bits & 0x3f) as u8;
            match unit {
                1..=0x7f => self.bytes.push(unit as u8),
                0 | 0x80..=0x7ff => self.bytes.extend([0xc0 | (unit >> 6) as u8, low(unit)]),
                _ => self.bytes.extend([0xe0 | (unit >> 12) as u8, low(unit >> 6), low(unit)]),
            }
        }
        let bytes = self.bytes.len() - begin - 2;
        match u16::try_from(bytes) {
            Ok(count) => self.bytes[begin..begin + 2].copy_from_slice(&count.to_be_bytes()),
            Err(_) => self.refuse(RecordError::TextTooLong { bytes }),
        }
        self
    }

    /// A number in one, two or four bytes; at most 2^30 - 2.
    pub fn compact_int(&mut self, value: usize) -> &mut Self {
        match value {
            0..=0x7f => self.u8(value as u8),
            0x80..=0x3fff => self.raw(&(value as u16 | 0x8000).to_be_bytes()),
            0x4000..=COUNT_MAX => self.raw(&(value as u32 | 0xc000_0000).to_be_bytes()),
            _ => {
                let number = i64::try_from(value).unwrap_or(i64::MAX);
                self.refuse(RecordError::OutOfRange { what: "number", number });
                self
            }
        }
    }

    /// A number in one, two, four or eight bytes, from 0 to 2^62 - 2.
    pub fn compact_long(&mut self, value: i64) -> &mut Self {
        match value {
            0..=0x3f => self.u8(value as u8),
            0x40..=0x3fff => self.raw(&(value as u16 | 0x4000).to_be_bytes()),
            0x4000..=0x3fff_ffff => self.raw(&(value as u32 | 0x8000_0000).to_be_bytes()),
            0x4000_0000..=COMPACT_LONG_MAX => self.raw(&(value as u64 | 0xc000_0000_0000_0000).to_be_bytes()),
            _ => {
                self.refuse(RecordError::OutOfRange { what: "number", number: value });
                self
            }
        }
    }

    /// A number in one, two, four or eight bytes, from -2^61 to 2^61 - 1.
    pub fn compact_signed_long(&mut self, value: i64) -> &mut Self {
        // All bits turned over is what is missing to -1.
        let (sign, magnitude) = if value < 0 { (1_u64 << 63, !value) } else { (0, value) };
        match magnitude {
            0..=0x1f => self.u8(magnitude as u8 | (sign >> 56) as u8),
            0x20..=0x1fff => self.raw(&(magnitude as u16 | 0x2000 | (sign >> 48) as u16).to_be_bytes()),
            0x2000..=0x1fff_ffff => self.raw(&(magnitude as u32 | 0x4000_0000 | (sign >> 32) as u32).to_be_bytes()),
            0x2000_0000..=COMPACT_SIGNED_LONG_MAX => {
                self.raw(&(magnitude as u64 | 0x6000_0000_0000_0000 | sign).to_be_bytes())
            }
            _ => {
                self.refuse(RecordError::OutOfRange { what: "number", number: value });
                self
            }
        }
    }

    /// Bytes after their number.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.compact_int(bytes.len()).raw(bytes)
    }

    /// What another record's writing gave, after its number of bytes.
    pub fn nested(&mut self, record: Result<Bytes, RecordError>) -> &mut Self {
        match record {
            Ok(bytes) => self.bytes(&bytes),
            Err(refused) => {
                self.refuse(refused);
                self
            }
        }
    }

    /// Elements after their number.
    pub fn list<T>(
        &mut self,
        elements: impl ExactSizeIterator<Item = T>,
        mut element: impl for<'o> FnMut(&'o mut Self, T) -> &'o mut Self,
    ) -> &mut Self {
        self.compact_int(elements.len());
        for each in elements {
            element(self, each);
        }
        self
    }

    /// Keys and values after their number.
    pub fn map<K, V>(
        &mut self,
        entries: &BTreeMap<K, V>,
        mut key: impl for<'o> FnMut(&'o mut Self, &K) -> &'o mut Self,
        mut value: impl for<'o> FnMut(&'o mut Self, &V) -> &'o mut Self,
    ) -> &mut Self {
        self.list(entries.iter(), |output, (k, v)| value(key(output, k), v))
    }

    /// A record of these revisions.
    pub fn record(&mut self, version: u8, revisions: &[&dyn Fn(&mut Self)]) -> &mut Self {
        self.u8(0).revisions(version, revisions)
    }

    /// The same with a type behind the format.
    pub fn typed_record(&mut self, kind: u8, revisions: &[&dyn Fn(&mut Self)]) -> &mut Self {
        self.raw(&[0, kind]).revisions(0, revisions)
    }

    fn revisions(&mut self, version: u8, revisions: &[&dyn Fn(&mut Self)]) -> &mut Self {
        let count = u8::try_from(revisions.len()).expect("no record has more than a few revisions");
        self.raw(&[version, count]);
        for (number, revision) in (0..).zip(revisions) {
            self.u8(number).counted(|output| revision(output));
        }
        self
    }

    /// What `body` writes, after its length in four bytes.
    pub fn counted(&mut self, body: impl FnOnce(&mut Self)) -> &mut Self {
        let begin = self.bytes.len();
        self.i32(0);
        body(self);
        let length = self.bytes.len() - begin - 4;
        match i32::try_from(length) {
            Ok(length) => self.bytes[begin..begin + 4].copy_from_slice(&length.to_be_bytes()),
            Err(_) => {
                let number = i64::try_from(length).unwrap_or(i64::MAX);
                self.refuse(RecordError::OutOfRange { what: "length", number });
            }
        }
        self
    }

    /// A stream as `scope/stream`.
    pub fn stream(&mut self, stream: &ScopedStream) -> &mut Self {
        self.text(&stream.to_string())
    }

    /// A segment as `scope/stream/number.#epoch.epoch`.
    pub fn segment(&mut self, segment: &StreamSegment) -> &mut Self {
        self.text(&segment.to_string())
    }

    /// Two numbers, -1 and -1 if the range is not known.
    pub fn range(&mut self, range: Option<KeyRange>) -> &mut Self {
        let (low, high) = range.map_or((-1.0, -1.0), |range| (range.low(), range.high()));
        self.f64(low).f64(high)
    }

    /// Segments with numbers of eight bytes.
    pub fn offsets(&mut self, offsets: &Offsets) -> &mut Self {
        self.map(offsets, Self::segment, |output, offset| output.i64(*offset))
    }

    /// Segments with ranges.
    pub fn ranges(&mut self, ranges: &Ranges) -> &mut Self {
        self.map(ranges, Self::segment, |output, range| output.range(*range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Input;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Output) -> &mut Output) -> Result<Bytes, RecordError> {
        let mut output = Output::default();
        write(&mut output);
        output.finish()
    }

    #[test]
    fn numbers_take_the_bytes_that_java_gives_them() {
        let long = |value| written(|output| output.compact_long(value)).unwrap().to_vec();
        assert_eq!(long(0x3f), [0x3f]);
        assert_eq!(long(0x40), [0x40, 0x40]);
        assert_eq!(long(0x3fff), [0x7f, 0xff]);
        assert_eq!(long(0x4000), [0x80, 0, 0x40, 0]);
        assert_eq!(long(COMPACT_LONG_MAX), [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]);
        let signed = |value| written(|output| output.compact_signed_long(value)).unwrap().to_vec();
        assert_eq!(signed(28), [0x1c]);
        assert_eq!(signed(-1), [0x80]);
        assert_eq!(signed(-32), [0x9f]);
        assert_eq!(signed(-33), [0xa0, 0x20]);
        assert_eq!(signed(100), [0x20, 0x64]);
        assert_eq!(signed(-0x2001), [0xc0, 0, 0x20, 0]);
        assert_eq!(signed(0x2000), [0x40, 0, 0x20, 0]);
        assert_eq!(signed(-0x2000_0001), [0xe0, 0, 0, 0, 0x20, 0, 0, 0]);
        let int = |value| written(|output| output.compact_int(value)).unwrap().to_vec();
        assert_eq!(int(0x7f), [0x7f]);
        assert_eq!(int(0x80), [0x80, 0x80]);
        assert_eq!(int(0x4000), [0xc0, 0, 0x40, 0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |write: fn(&mut Output) -> &mut Output| written(write).unwrap_err().to_string();
        assert_eq!(refused(|output| output.text(&"a".repeat(65_536))), "text of 65536 bytes, limit 65535");
        assert_eq!(refused(|output| output.compact_long(-1).u8(1)), "number -1 is out of range");
        assert_eq!(
            refused(|output| output.compact_long(COMPACT_LONG_MAX + 1)),
            "number 4611686018427387903 is out of range"
        );
        assert!(written(|output| output.compact_signed_long(COMPACT_SIGNED_LONG_MAX + 1)).is_err());
        assert!(written(|output| output.compact_signed_long(i64::MIN)).is_err());
        assert!(written(|output| output.compact_int(COUNT_MAX + 1)).is_err());
        assert!(written(|output| output.text(&"\0".repeat(32_768))).is_err(), "a NUL takes two bytes");
    }

    proptest! {
        #[test]
        fn numbers_and_texts_come_back(number in any::<i64>(), bits in 0..63, text in any::<String>()) {
            let number = number >> bits;
            let (count, long) = (number as usize & COUNT_MAX, number & COMPACT_LONG_MAX);
            let signed = number >> 2;
            let bytes = written(|output| {
                output.compact_int(count).compact_long(long).compact_signed_long(signed).text(&text)
            })
            .unwrap();
            let mut input = Input::new(&bytes);
            prop_assert_eq!(input.compact_int().unwrap() as usize, count);
            prop_assert_eq!(input.compact_long(), Ok(long));
            prop_assert_eq!(input.compact_signed_long(), Ok(signed));
            prop_assert_eq!(input.text(), Ok(text));
            prop_assert_eq!(input.end(), Ok(()));
        }
    }
}
