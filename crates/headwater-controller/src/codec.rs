//! The controller's records as bytes.
//!
//! A record is one version byte and its fields, big-endian, counted texts and lists. A binary form of our own and not
//! JSON, because key bounds must come back bit for bit (they are stored as the bits of the double), and because an
//! epoch of 10,000 segments has to fit one table value. A record whose version is newer than this code is refused,
//! never guessed at.
//!
//! Counts are checked against the bytes that remain before anything is allocated.

use bytes::Bytes;
use headwater_types::{KeyRange, SegmentId, TransactionId};

/// Why bytes are not a record.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("{record} of version {version}, this program knows up to {known}; it was written by a newer one")]
    Newer { record: &'static str, version: u8, known: u8 },
    #[error("{record} is malformed")]
    Malformed { record: &'static str },
}

/// Builds a record.
pub(crate) struct Encoder(Vec<u8>);

impl Encoder {
    pub(crate) fn new(version: u8) -> Self {
        Self(vec![version])
    }

    pub(crate) fn finish(self) -> Bytes {
        self.0.into()
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(crate) fn i32(&mut self, value: i32) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn i64(&mut self, value: i64) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn u128(&mut self, value: u128) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn count(&mut self, count: usize) -> &mut Self {
        self.i32(i32::try_from(count).expect("records hold far fewer than 2^31 items"))
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.count(text.len());
        self.0.extend(text.as_bytes());
        self
    }

    pub(crate) fn segment_id(&mut self, id: SegmentId) -> &mut Self {
        self.i64(id.as_i64())
    }

    pub(crate) fn range(&mut self, range: KeyRange) -> &mut Self {
        self.i64(range.low().to_bits() as i64).i64(range.high().to_bits() as i64)
    }

    pub(crate) fn transaction(&mut self, id: TransactionId) -> &mut Self {
        self.u128(id.0)
    }

    pub(crate) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) -> &mut Self {
        match value {
            None => self.u8(0),
            Some(value) => {
                self.u8(1);
                write(self, value);
                self
            }
        }
    }

    pub(crate) fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.count(items.len());
        for item in items {
            write(self, item);
        }
        self
    }
}

/// Takes a record apart.
pub(crate) struct Decoder<'a> {
    record: &'static str,
    version: u8,
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// `known` is the newest version this code writes.
    pub(crate) fn new(record: &'static str, known: u8, bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (&version, rest) = bytes.split_first().ok_or(DecodeError::Malformed { record })?;
        if version > known {
            return Err(DecodeError::Newer { record, version, known });
        }
        if version == 0 {
            return Err(DecodeError::Malformed { record });
        }
        Ok(Self { record, version, rest })
    }

    /// Which version wrote the record; never newer than `known`.
    pub(crate) fn version(&self) -> u8 {
        self.version
    }

    /// Nothing may be left over.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed()) }
    }

    pub(crate) fn malformed(&self) -> DecodeError {
        debug_assert!(self.version > 0, "version 0 was never written");
        DecodeError::Malformed { record: self.record }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        Ok(self.take(N)?.try_into().expect("take returns as many bytes as asked for"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub(crate) fn u128(&mut self) -> Result<u128, DecodeError> {
        Ok(u128::from_be_bytes(self.array()?))
    }

    /// Number of items of at least `item_bytes` each.
    fn count(&mut self, item_bytes: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.i32()?).map_err(|_| self.malformed())?;
        if count > self.rest.len() / item_bytes { Err(self.malformed()) } else { Ok(count) }
    }

    pub(crate) fn text(&mut self) -> Result<String, DecodeError> {
        let count = self.count(1)?;
        let bytes = self.take(count)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.malformed())
    }

    pub(crate) fn segment_id(&mut self) -> Result<SegmentId, DecodeError> {
        SegmentId::from_i64(self.i64()?).ok_or_else(|| self.malformed())
    }

    pub(crate) fn range(&mut self) -> Result<KeyRange, DecodeError> {
        let (low, high) = (f64::from_bits(self.i64()? as u64), f64::from_bits(self.i64()? as u64));
        KeyRange::new(low, high).map_err(|_| self.malformed())
    }

    pub(crate) fn transaction(&mut self) -> Result<TransactionId, DecodeError> {
        Ok(TransactionId(self.u128()?))
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(self.malformed()),
        }
    }

    /// `item_bytes` is the least an item takes.
    pub(crate) fn list<T>(
        &mut self,
        item_bytes: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.count(item_bytes)?;
        (0..count).map(|_| read(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_bounds_come_back_bit_for_bit() {
        for range in KeyRange::split(49) {
            let mut encoder = Encoder::new(1);
            encoder.range(range);
            let bytes = encoder.finish();
            let mut decoder = Decoder::new("test", 1, &bytes).unwrap();
            let back = decoder.range().unwrap();
            assert_eq!((back.low().to_bits(), back.high().to_bits()), (range.low().to_bits(), range.high().to_bits()));
            decoder.finish().unwrap();
        }
    }

    #[test]
    fn a_newer_record_is_refused() {
        let error = Decoder::new("epoch", 1, &[2]).err();
        assert_eq!(error, Some(DecodeError::Newer { record: "epoch", version: 2, known: 1 }));
        assert!(Decoder::new("epoch", 1, &[]).is_err());
    }

    #[test]
    fn a_count_beyond_the_bytes_is_refused_before_it_is_believed() {
        let bytes = [1, 0x7f, 0xff, 0xff, 0xff, 0];
        assert!(Decoder::new("test", 1, &bytes).unwrap().list(1, Decoder::u8).is_err());
        assert!(Decoder::new("test", 1, &bytes).unwrap().text().is_err());
    }
}
