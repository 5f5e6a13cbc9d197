//! Taking records apart, from the front.
//!
//! Guarantee: counts and lengths are checked against the bytes that remain, and against the memory that may be taken where that
//! is said, before anything is allocated.

use std::collections::BTreeMap;

use headwater_types::{KeyRange, Name, ScopedStream, SegmentName, StreamSegment};

use crate::{Allowance, Offsets, Ranges, RecordError};

type Result<T> = std::result::Result<T, RecordError>;

/// Bytes that are taken apart from the front.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
    /// What memory may be taken; as much as there is without it.
    allowance: Option<&'a Allowance>,
}

/// The bodies of a record's revisions.
#[derive(Debug)]
pub struct Revisions<'a> {
    version: u8,
    bodies: std::vec::IntoIter<Input<'a>>,
}

impl<'a> Revisions<'a> {
    /// The record's version.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// The revision that every record has.
    ///
    /// # Errors
    /// It has none.
    pub fn first(&mut self) -> Result<Input<'a>> {
        self.bodies.next().ok_or(RecordError::Short { wanted: 1, left: 0 })
    }

    /// The next revision, if the writer knew it.
    pub fn later(&mut self) -> Option<Input<'a>> {
        self.bodies.next()
    }
}

/// Least bytes of an offset's entry: an empty text's length, and the number.
const OFFSET_ENTRY_BYTES: usize = 10;

impl<'a> Input<'a> {
    /// All of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, allowance: None }
    }

    /// All of `bytes`; what is made of them takes no more memory than is allowed.
    pub fn within(bytes: &'a [u8], allowance: &'a Allowance) -> Self {
        Self { rest: bytes, allowance: Some(allowance) }
    }

    /// Takes memory, if it is limited.
    pub(crate) fn allow(
        &self,
        take: impl FnOnce(&Allowance) -> std::result::Result<(), crate::Exceeded>,
    ) -> Result<()> {
        self.allowance.map_or(Ok(()), take).map_err(|_| RecordError::Memory)
    }

    /// Nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// Something is.
    pub fn end(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(RecordError::Trailing { bytes: self.rest.len() }) }
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let left = self.rest.len();
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(RecordError::Short { wanted: count, left })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("take returns as many bytes as asked for"))
    }

    /// One byte.
    ///
    /// # Errors
    /// There is none.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// One byte that is not zero.
    ///
    /// # Errors
    /// There is none.
    pub fn bool(&mut self) -> Result<bool> {
        Ok(self.u8()? != 0)
    }

    /// Four bytes, highest first, as all numbers.
    ///
    /// # Errors
    /// There are fewer.
    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn f64(&mut self) -> Result<f64> {
        Ok(f64::from_be_bytes(self.array()?))
    }

    /// Sixteen bytes: a uuid.
    ///
    /// # Errors
    /// There are fewer.
    pub fn uuid(&mut self) -> Result<u128> {
        Ok(u128::from_be_bytes(self.array()?))
    }

    /// As many bytes as a 32-bit number before them says.
    ///
    /// # Errors
    /// There are fewer, or the number is below zero.
    pub fn counted(&mut self) -> Result<Input<'a>> {
        let number = self.i32()?;
        let what = "length";
        let count = usize::try_from(number).map_err(|_| RecordError::OutOfRange { what, number: number.into() })?;
        Ok(Self { rest: self.take(count)?, ..*self })
    }

    /// A text in modified UTF-8 after its length in two bytes: NUL takes two bytes there, characters beyond 16 bits six.
    ///
    /// # Errors
    /// The bytes are none, or half a character stands alone, which Java allows and Unicode does not.
    pub fn text(&mut self) -> Result<String> {
        let count = u16::from_be_bytes(self.array()?);
        let bytes = self.take(usize::from(count))?;
        self.allow(|allowance| allowance.take_text(bytes.len()))?;
        if bytes.iter().all(|byte| (1..0x80).contains(byte)) {
            return String::from_utf8(bytes.to_vec()).map_err(|_| RecordError::Text);
        }
        let mut units = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        let follow = |byte: u8| (byte & 0xc0 == 0x80).then_some(u16::from(byte & 0x3f)).ok_or(RecordError::Text);
        while let [first, tail @ ..] = rest {
            let first = *first;
            let (unit, tail) = match (first, tail) {
                (0..=0x7f, tail) => (u16::from(first), tail),
                (0xc0..=0xdf, [a, tail @ ..]) => (u16::from(first & 0x1f) << 6 | follow(*a)?, tail),
                (0xe0..=0xef, [a, b, tail @ ..]) => {
                    (u16::from(first & 0x0f) << 12 | follow(*a)? << 6 | follow(*b)?, tail)
                }
                _ => return Err(RecordError::Text),
            };
            units.push(unit);
            rest = tail;
        }
        String::from_utf16(&units).map_err(|_| RecordError::Text)
    }

    fn peek(&self) -> Result<u8> {
        self.rest.first().copied().ok_or(RecordError::Short { wanted: 1, left: 0 })
    }

    /// A number below 2^30 in one, two or four bytes.
    ///
    /// # Errors
    /// The bytes end within it.
    pub fn compact_int(&mut self) -> Result<u32> {
        match self.peek()? >> 6 {
            0 | 1 => self.u8().map(u32::from),
            2 => Ok(u32::from(u16::from_be_bytes(self.array()?) & 0x3fff)),
            _ => Ok(u32::from_be_bytes(self.array()?) & 0x3fff_ffff),
        }
    }

    /// A number from 0 to 2^62 - 1 in one, two, four or eight bytes.
    ///
    /// # Errors
    /// The bytes end within it.
    pub fn compact_long(&mut self) -> Result<i64> {
        match self.peek()? >> 6 {
            0 => self.u8().map(i64::from),
            1 => Ok(i64::from(u16::from_be_bytes(self.array()?) & 0x3fff)),
            2 => Ok(i64::from(u32::from_be_bytes(self.array()?) & 0x3fff_ffff)),
            _ => Ok(self.i64()? & 0x3fff_ffff_ffff_ffff),
        }
    }

    /// A number from -2^61 to 2^61 - 1 in one, two, four or eight bytes. Below zero, one more than it is stored.
    ///
    /// # Errors
    /// The bytes end within it.
    pub fn compact_signed_long(&mut self) -> Result<i64> {
        let first = self.peek()?;
        let magnitude = match (first >> 5) & 3 {
            0 => i64::from(self.u8()? & 0x1f),
            1 => i64::from(u16::from_be_bytes(self.array()?) & 0x1fff),
            2 => i64::from(u32::from_be_bytes(self.array()?) & 0x1fff_ffff),
            _ => self.i64()? & 0x1fff_ffff_ffff_ffff,
        };
        Ok(if first & 0x80 == 0 { magnitude } else { -magnitude - 1 })
    }

    fn count(&mut self, element_bytes: usize) -> Result<usize> {
        let count = self.compact_int()? as usize;
        let left = self.rest.len();
        if count > left / element_bytes { Err(RecordError::Count { count, left }) } else { Ok(count) }
    }

    /// Bytes after their number.
    ///
    /// # Errors
    /// There are fewer.
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let count = self.count(1)?;
        self.take(count)
    }

    /// Bytes after their number, to be taken apart themselves.
    ///
    /// # Errors
    /// There are fewer.
    pub fn nested(&mut self) -> Result<Self> {
        Ok(Self { rest: self.bytes()?, ..*self })
    }

    /// Elements after their number, each of which takes `element_bytes` or more.
    ///
    /// # Errors
    /// There are fewer, or `element` fails.
    pub fn list<T>(&mut self, element_bytes: usize, mut element: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.count(element_bytes)?;
        self.allow(|allowance| allowance.take_entries::<T>(count))?;
        (0..count).map(|_| element(self)).collect()
    }

    /// Keys and values after their number; a key and its value together take `entry_bytes` or more. Of a key that is there
    /// twice the last value counts.
    ///
    /// # Errors
    /// There are fewer, or `key` or `value` fails.
    pub fn map<K: Ord, V>(
        &mut self,
        entry_bytes: usize,
        mut key: impl FnMut(&mut Self) -> Result<K>,
        mut value: impl FnMut(&mut Self) -> Result<V>,
    ) -> Result<BTreeMap<K, V>> {
        let count = self.count(entry_bytes)?;
        self.allow(|allowance| allowance.take_entries::<(K, V)>(count))?;
        (0..count).map(|_| Ok((key(self)?, value(self)?))).collect()
    }

    /// A record: format, version, number of revisions, and of each its number, length and body.
    ///
    /// # Errors
    /// Another format, a version above `version_max`, or bytes that end early.
    pub fn record(&mut self, version_max: u8) -> Result<Revisions<'a>> {
        self.format()?;
        self.revisions(version_max)
    }

    /// The same with a type behind the format.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn typed_record(&mut self) -> Result<(u8, Revisions<'a>)> {
        self.format()?;
        Ok((self.u8()?, self.revisions(0)?))
    }

    fn format(&mut self) -> Result<()> {
        match self.u8()? {
            0 => Ok(()),
            other => Err(RecordError::Unknown { what: "record format", number: other.into() }),
        }
    }

    fn revisions(&mut self, version_max: u8) -> Result<Revisions<'a>> {
        let version = self.u8()?;
        if version > version_max {
            return Err(RecordError::Unknown { what: "record version", number: version.into() });
        }
        let count = self.u8()?;
        let mut bodies = Vec::new();
        for expected in 0..count {
            let number = self.u8()?;
            if number != expected {
                return Err(RecordError::Unknown { what: "revision", number: number.into() });
            }
            bodies.push(self.counted()?);
        }
        Ok(Revisions { version, bodies: bodies.into_iter() })
    }

    /// A stream as `scope/stream`.
    ///
    /// # Errors
    /// Some other text.
    pub fn stream(&mut self) -> Result<ScopedStream> {
        stream(&self.text()?)
    }

    /// A segment as `scope/stream/number.#epoch.epoch`.
    ///
    /// # Errors
    /// Some other text.
    pub fn segment(&mut self) -> Result<StreamSegment> {
        segment(&self.text()?)
    }

    /// Two numbers, both below zero if the range is not known.
    ///
    /// # Errors
    /// They are no range.
    pub fn range(&mut self) -> Result<Option<KeyRange>> {
        let (low, high) = (self.f64()?, self.f64()?);
        if low < 0.0 || high < 0.0 {
            return Ok(None);
        }
        KeyRange::new(low, high).map(Some).map_err(|_| RecordError::Range)
    }

    /// Segments with numbers of eight bytes.
    ///
    /// # Errors
    /// Something else.
    pub fn offsets(&mut self) -> Result<Offsets> {
        self.map(OFFSET_ENTRY_BYTES, Self::segment, Self::i64)
    }

    /// Segments with ranges.
    ///
    /// # Errors
    /// Something else.
    pub fn ranges(&mut self) -> Result<Ranges> {
        self.map(OFFSET_ENTRY_BYTES + 8, Self::segment, Self::range)
    }
}

pub(crate) fn stream(text: &str) -> Result<ScopedStream> {
    let name = |part| Name::parse(part).map_err(|_| RecordError::Name("stream"));
    let (scope, stream) = text.split_once('/').ok_or(RecordError::Name("stream"))?;
    Ok(ScopedStream { scope: name(scope)?, stream: name(stream)? })
}

pub(crate) fn segment(text: &str) -> Result<StreamSegment> {
    let name = SegmentName::parse(text).ok().and_then(|name| name.stream_segment());
    name.ok_or(RecordError::Name("segment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_java_writers_are_read() {
        for (bytes, expected) in [
            (&b"\0\x08reader-1"[..], "reader-1"),
            (b"\0\0", ""),
            (b"\0\x02\xc3\xa9", "\u{e9}"),
            (b"\0\x02\xc0\x80", "\0"),
            (b"\0\x06\xed\xa0\xbd\xed\xb8\x80", "\u{1f600}"),
        ] {
            let mut input = Input::new(bytes);
            assert_eq!(input.text().unwrap(), expected);
            assert!(input.is_empty());
        }
        for bytes in [&b"\0\x01\xff"[..], b"\0\x02\xc3a", b"\0\x03\xed\xa0\xbd", b"\0\x01\xc3"] {
            assert_eq!(Input::new(bytes).text(), Err(RecordError::Text), "{bytes:x?}");
        }
        for bytes in [&b"\0\x02a"[..], b"\0"] {
            assert!(matches!(Input::new(bytes).text(), Err(RecordError::Short { .. })), "{bytes:x?}");
        }
    }

    #[test]
    fn a_count_beyond_the_bytes_is_refused_before_it_is_believed() {
        for bytes in [&[0x7f][..], &[0xbf, 0xff], &[0xff, 0xff, 0xff, 0xff]] {
            assert!(matches!(Input::new(bytes).list(1, Input::u8), Err(RecordError::Count { .. })), "{bytes:x?}");
        }
        for bytes in [&[0x80][..], &[]] {
            assert!(matches!(Input::new(bytes).list(1, Input::u8), Err(RecordError::Short { .. })), "{bytes:x?}");
        }
        assert_eq!(Input::new(&[2, 7, 8]).list(1, Input::u8), Ok(vec![7, 8]));
        let long = Input::new(&[0x7f, 0xff, 0xff, 0xff]).counted();
        assert_eq!(long.map(|_| ()), Err(RecordError::Short { wanted: 0x7fff_ffff, left: 0 }));
        assert!(matches!(Input::new(&[0xff; 4]).counted(), Err(RecordError::OutOfRange { number: -1, .. })));
    }

    #[test]
    fn what_takes_more_memory_than_is_allowed_is_refused_before_it_is_taken() {
        // Half a KiB that stands for half a KiB of numbers.
        let many = [&[0x82, 0x00][..], &[7; 512]].concat();
        for (bytes, is_enough) in [(1 << 10, false), (1 << 11, true)] {
            let allowance = Allowance::new(bytes);
            let read = Input::within(&many, &allowance).list(1, Input::u8);
            assert_eq!(read, if is_enough { Ok(vec![7; 512]) } else { Err(RecordError::Memory) });
            assert_eq!(allowance.is_exceeded(), !is_enough);
        }
        let allowance = Allowance::new(100);
        let texts = [0, 1, b'a', 0, 1, b'b'];
        let mut input = Input::within(&texts, &allowance);
        assert_eq!((input.text(), input.text()), (Ok("a".to_owned()), Err(RecordError::Memory)));
    }

    #[test]
    fn later_revisions_are_passed_over_and_later_versions_are_not() {
        let record = [0, 0, 2, 0, 0, 0, 0, 1, 7, 1, 0, 0, 0, 2, 8, 9, 5];
        let mut input = Input::new(&record);
        assert_eq!(input.record(0).unwrap().first().unwrap().u8(), Ok(7));
        assert_eq!(input.u8(), Ok(5));
        let refused = |bytes: &[u8]| Input::new(bytes).record(0).map(|_| ()).unwrap_err().to_string();
        assert_eq!(refused(&[0, 1, 0]), "record version 1 is unknown");
        assert_eq!(refused(&[1, 0, 0]), "record format 1 is unknown");
        assert_eq!(refused(&[0, 0, 1, 3, 0, 0, 0, 0]), "revision 3 is unknown");
        assert_eq!(refused(&[0, 0, 1]), "1 bytes wanted where 0 are left");
    }
}
