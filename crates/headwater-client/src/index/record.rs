//! One record as bytes.

use std::collections::BTreeMap;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::error::{Error, ErrorKind, Result};

/// Labels with their values, and data.
///
/// As bytes: the number of labels (16 bits), for each its length (8 bits), its text and its value (64 bits), the length of the
/// data (32 bits), the data, and zeros up to the size of all records. Numbers are big-endian, labels ascend.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct IndexRecord {
    /// Values by label; a label has 1 to 255 bytes.
    pub labels: BTreeMap<String, u64>,
    /// Anything.
    pub data: Bytes,
}

impl IndexRecord {
    /// Of its parts.
    pub fn new<L: Into<String>>(labels: impl IntoIterator<Item = (L, u64)>, data: impl Into<Bytes>) -> Self {
        let labels = labels.into_iter().map(|(label, value)| (label.into(), value)).collect();
        Self { labels, data: data.into() }
    }

    /// Whether it can follow on another.
    ///
    /// # Errors
    /// `Invalid`: it has other labels, or a value that is less.
    pub(super) fn check_after(&self, before: &Self) -> Result<()> {
        if !self.labels.keys().eq(before.labels.keys()) {
            return Err(Error::new(ErrorKind::Invalid, "record has other labels than those before it"));
        }
        for (label, value) in &self.labels {
            let last = before.labels[label];
            if *value < last {
                let what = format!("{label} is {value} in this record and was {last} in the last one");
                return Err(Error::new(ErrorKind::Invalid, what));
            }
        }
        Ok(())
    }

    /// Adds it with so many bytes.
    ///
    /// # Errors
    /// `Invalid`: it takes more.
    pub(super) fn encode(&self, record_bytes: usize, out: &mut BytesMut) -> Result<()> {
        let invalid = |what: String| Err(Error::new(ErrorKind::Invalid, what));
        if let Some(label) = self.labels.keys().find(|label| label.is_empty() || label.len() > 255) {
            return invalid(format!("label of {} bytes; a label has 1 to 255", label.len()));
        }
        let labels: usize = self.labels.keys().map(|label| 1 + label.len() + 8).sum();
        let bytes = 2 + labels + 4 + self.data.len();
        let (Ok(count), Ok(length)) = (u16::try_from(self.labels.len()), u32::try_from(self.data.len())) else {
            return invalid(format!("record of {bytes} bytes, limit {record_bytes}"));
        };
        if bytes > record_bytes {
            return invalid(format!("record of {bytes} bytes, limit {record_bytes}"));
        }
        let end = out.len() + record_bytes;
        out.put_u16(count);
        for (label, value) in &self.labels {
            out.put_u8(u8::try_from(label.len()).expect("the length was checked above"));
            out.extend_from_slice(label.as_bytes());
            out.put_u64(*value);
        }
        out.put_u32(length);
        out.extend_from_slice(&self.data);
        out.resize(end, 0);
        Ok(())
    }

    /// From all its bytes.
    ///
    /// # Errors
    /// `Protocol`: these are none.
    pub(super) fn decode(bytes: Bytes) -> Result<Self> {
        parse(bytes).ok_or_else(|| Error::new(ErrorKind::Protocol, "stream holds something else than labelled records"))
    }
}

fn parse(mut bytes: Bytes) -> Option<IndexRecord> {
    let count = bytes.try_get_u16().ok()?;
    let mut labels = BTreeMap::new();
    for _ in 0..count {
        let length = usize::from(bytes.try_get_u8().ok()?);
        let label = (length <= bytes.len()).then(|| bytes.split_to(length))?;
        let label = std::str::from_utf8(&label).ok()?;
        let is_next = labels.last_key_value().is_none_or(|(last, _): (&String, _)| last.as_str() < label);
        if !is_next || label.is_empty() {
            return None;
        }
        labels.insert(label.to_owned(), bytes.try_get_u64().ok()?);
    }
    let length = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
    let data = (length <= bytes.len()).then(|| bytes.split_to(length))?;
    bytes.iter().all(|byte| *byte == 0).then_some(IndexRecord { labels, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(record: &IndexRecord, record_bytes: usize) -> Result<Bytes> {
        let mut bytes = BytesMut::new();
        record.encode(record_bytes, &mut bytes).map(|()| bytes.freeze())
    }

    #[test]
    fn a_record_comes_back_if_it_fits() {
        let record = IndexRecord::new([("time", 7), ("a", u64::MAX)], "data");
        let bytes = 2 + (1 + 4 + 8) + (1 + 1 + 8) + 4 + 4;
        for record_bytes in [bytes, bytes + 1, 4096] {
            let encoded = encoded(&record, record_bytes).unwrap();
            assert_eq!(encoded.len(), record_bytes);
            assert_eq!(IndexRecord::decode(encoded).unwrap(), record);
        }
        assert_eq!(encoded(&record, bytes - 1).unwrap_err().kind(), ErrorKind::Invalid);
        for label in ["", &"x".repeat(256)] {
            let error = encoded(&IndexRecord::new([(label, 1)], ""), 4096).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let good = encoded(&IndexRecord::new([("a", 1), ("b", 2)], "data"), 40).unwrap();
        for cut in 0..30 {
            assert!(IndexRecord::decode(good.slice(..cut)).is_err(), "{cut}");
        }
        for (at, byte) in [(0, 1), (2, 200), (3, b'z'), (22, 0xff), (39, 1)] {
            let mut bad = good.to_vec();
            bad[at] = byte;
            assert!(IndexRecord::decode(bad.into()).is_err(), "{at}");
        }
    }

    #[test]
    fn values_never_fall_and_labels_never_change() {
        let record = |labels: &[(&str, u64)]| IndexRecord::new(labels.iter().copied(), "");
        let before = record(&[("a", 5), ("b", 5)]);
        assert!(record(&[("a", 5), ("b", 6)]).check_after(&before).is_ok());
        for bad in [&[("a", 4), ("b", 6)][..], &[("a", 5)], &[("a", 5), ("c", 5)]] {
            assert_eq!(record(bad).check_after(&before).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
}
