//! Taking apart what Java clients write for each other: framed records of numbers, texts, lists and maps.
//!
//! Guarantee: counts and lengths are checked against the bytes that remain before anything is allocated, and no bytes make
//! this panic. Source: the layouts of Pravega's `VersionedSerializer` and `RevisionDataStream`.

use std::collections::BTreeMap;

/// The bytes are not what a Java client writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not what a Java client writes")]
pub(crate) struct Foreign;

pub(crate) type Taken<T> = Result<T, Foreign>;

/// Bytes that are taken apart from the front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, count: usize) -> Taken<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Foreign)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Taken<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("take returns as many bytes as asked for"))
    }

    pub(crate) fn u8(&mut self) -> Taken<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn i32(&mut self) -> Taken<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Taken<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// As many bytes as a 32-bit number before them says.
    pub(crate) fn counted(&mut self) -> Taken<Input<'a>> {
        let count = usize::try_from(self.i32()?).map_err(|_| Foreign)?;
        self.take(count).map(Input)
    }

    /// Texts of Java writers: NUL takes two bytes there, and characters beyond 16 bits six.
    pub(crate) fn text(&mut self) -> Taken<String> {
        let count = u16::from_be_bytes(self.array()?);
        let bytes = self.take(usize::from(count))?;
        let mut units = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        let follow = |byte: u8| (byte & 0xc0 == 0x80).then_some(u16::from(byte & 0x3f)).ok_or(Foreign);
        while let [first, tail @ ..] = rest {
            let first = *first;
            let (unit, tail) = match (first, tail) {
                (0..=0x7f, tail) => (u16::from(first), tail),
                (0xc0..=0xdf, [a, tail @ ..]) => (u16::from(first & 0x1f) << 6 | follow(*a)?, tail),
                (0xe0..=0xef, [a, b, tail @ ..]) => {
                    (u16::from(first & 0x0f) << 12 | follow(*a)? << 6 | follow(*b)?, tail)
                }
                _ => return Err(Foreign),
            };
            units.push(unit);
            rest = tail;
        }
        String::from_utf16(&units).map_err(|_| Foreign)
    }

    /// A number of one, two or four bytes; the first says how many.
    fn count(&mut self, item_bytes: usize) -> Taken<usize> {
        let first = *self.0.first().ok_or(Foreign)?;
        let count = match first >> 6 {
            0 | 1 => usize::from(self.u8()?),
            2 => usize::from(u16::from_be_bytes(self.array()?) & 0x3fff),
            _ => usize::try_from(self.i32()? & 0x3fff_ffff).map_err(|_| Foreign)?,
        };
        if count > self.0.len() / item_bytes { Err(Foreign) } else { Ok(count) }
    }

    pub(crate) fn bytes(&mut self) -> Taken<&'a [u8]> {
        let count = self.count(1)?;
        self.take(count)
    }

    pub(crate) fn list<T>(&mut self, item_bytes: usize, mut item: impl FnMut(&mut Self) -> Taken<T>) -> Taken<Vec<T>> {
        let count = self.count(item_bytes)?;
        (0..count).map(|_| item(self)).collect()
    }

    /// `entry_bytes` is the least that a key and its value take.
    pub(crate) fn map<K: Ord, V>(
        &mut self,
        entry_bytes: usize,
        mut key: impl FnMut(&mut Self) -> Taken<K>,
        mut value: impl FnMut(&mut Self) -> Taken<V>,
    ) -> Taken<BTreeMap<K, V>> {
        let count = self.count(entry_bytes)?;
        (0..count).map(|_| Ok((key(self)?, value(self)?))).collect()
    }

    /// The bodies of a record's revisions, oldest first; what later programs added behind those we know is passed over.
    pub(crate) fn revisions(&mut self) -> Taken<Vec<Input<'a>>> {
        let _version = self.u8()?;
        let count = self.u8()?;
        (0..count)
            .map(|_| {
                let _number = self.u8()?;
                self.counted()
            })
            .collect()
    }
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
            let mut input = Input(bytes);
            assert_eq!(input.text().unwrap(), expected);
            assert!(input.is_empty());
        }
        for bytes in [&b"\0\x02a"[..], b"\0\x01\xff", b"\0\x02\xc3a", b"\0\x03\xed\xa0\xbd", b"\0"] {
            assert_eq!(Input(bytes).text(), Err(Foreign), "{bytes:x?}");
        }
    }

    #[test]
    fn a_count_beyond_the_bytes_is_refused_before_it_is_believed() {
        for bytes in [&[0x7f][..], &[0xbf, 0xff], &[0xff, 0xff, 0xff, 0xff], &[0x80], &[]] {
            assert_eq!(Input(bytes).list(1, Input::u8), Err(Foreign));
        }
        assert_eq!(Input(&[2, 7, 8]).list(1, Input::u8), Ok(vec![7, 8]));
        assert_eq!(Input(&[0x7f, 0xff, 0xff, 0xff]).counted().err(), Some(Foreign));
    }
}
