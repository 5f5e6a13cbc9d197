//! Finding and reading records.

use bytes::{Bytes, BytesMut};
use headwater_proto::controller::stream_info::AccessOperation;
use headwater_types::ScopedStream;

use super::{IndexRecord, RECORD_BYTES};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::segments::{SegmentStores, Target};

/// Most bytes asked for at a time by whoever reads on.
const PIECE_BYTES: u64 = 1 << 20;

/// Finds and reads records of a stream that an [`IndexWriter`](super::IndexWriter) writes.
#[derive(Clone, Debug)]
pub struct IndexReader {
    stores: SegmentStores,
    target: Target,
    record_bytes: usize,
}

impl Client {
    /// A reader of a stream of labelled records.
    ///
    /// # Errors
    /// `Invalid`: the stream holds none, or has several segments. `NotFound`, `Sealed`, `Denied`, `Unavailable`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn index_reader(&self, stream: &ScopedStream) -> Result<IndexReader> {
        let segment = self.only_segment(stream).await?;
        let (stores, target) = (self.segments().clone(), Target::new(stream, segment, AccessOperation::Read));
        let decided = stores.attribute(&target, RECORD_BYTES).await?;
        let record_bytes = decided.and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
        let record_bytes = record_bytes.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("stream {stream} holds something else than labelled records"))
        })?;
        Ok(IndexReader { stores, target, record_bytes })
    }
}

impl IndexReader {
    /// Size of every record, in bytes.
    pub fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    /// Offsets of the first record and of the place behind the last.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `Unavailable`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn bounds(&self) -> Result<(u64, u64)> {
        let info = self.stores.info(&self.target).await?;
        let record_bytes = self.record_bytes as u64;
        let end = info.end - info.end % record_bytes;
        Ok((info.start.next_multiple_of(record_bytes).min(end), end))
    }

    /// The record at an offset.
    ///
    /// # Errors
    /// `Invalid`: no record begins there. `Truncated`: it is gone. `Protocol`: it is none. `NotFound`, `Denied`, `Unavailable`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn record(&self, offset: u64) -> Result<IndexRecord> {
        let (first, end) = self.bounds().await?;
        if offset < first {
            return Err(Error::new(ErrorKind::Truncated, format!("first record begins at {first} now")));
        }
        if offset >= end || !offset.is_multiple_of(self.record_bytes as u64) {
            return Err(Error::new(ErrorKind::Invalid, format!("no record begins at {offset}")));
        }
        record(&self.stores, &self.target, offset, self.record_bytes).await
    }

    /// Offset of the first record whose label has this value or a greater one; `None` if all have less. It reads as many records
    /// as their number has binary digits.
    ///
    /// # Errors
    /// `Invalid`: the records do not have the label. Otherwise as [`record`](Self::record).
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn search(&self, label: &str, value: u64) -> Result<Option<u64>> {
        let record_bytes = self.record_bytes as u64;
        let (first, end) = self.bounds().await?;
        let (mut low, mut high) = (first / record_bytes, end / record_bytes);
        while low < high {
            let middle = low + (high - low) / 2;
            let found = record(&self.stores, &self.target, middle * record_bytes, self.record_bytes).await?;
            let held = found.labels.get(label);
            let held = held.ok_or_else(|| Error::new(ErrorKind::Invalid, format!("records have no label {label}")))?;
            if *held < value {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok((low * record_bytes < end).then_some(low * record_bytes))
    }

    /// Records from an offset on, up to the last that is there now.
    ///
    /// # Errors
    /// As [`record`](Self::record), but the place behind the last record is a place to begin.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn records(&self, from: u64) -> Result<IndexRecords> {
        let (first, end) = self.bounds().await?;
        if from < first {
            return Err(Error::new(ErrorKind::Truncated, format!("first record begins at {first} now")));
        }
        if from > end || !from.is_multiple_of(self.record_bytes as u64) {
            return Err(Error::new(ErrorKind::Invalid, format!("no record begins at {from}")));
        }
        Ok(IndexRecords { reader: self.clone(), next: from, end, bytes: BytesMut::new() })
    }
}

/// Records one after the other.
#[derive(Debug)]
pub struct IndexRecords {
    reader: IndexReader,
    /// Offset of the next record.
    next: u64,
    end: u64,
    /// From the next record on.
    bytes: BytesMut,
}

impl IndexRecords {
    /// The next record with its offset; `None` behind the last that was there when reading began.
    ///
    /// # Errors
    /// As [`IndexReader::record`]. The next call tries again.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Option<(u64, IndexRecord)>> {
        if self.next >= self.end {
            return Ok(None);
        }
        while self.bytes.len() < self.reader.record_bytes {
            let from = self.next + self.bytes.len() as u64;
            let wanted = (self.end - from).min(PIECE_BYTES);
            let piece = self.reader.stores.read(&self.reader.target, from, wanted).await?;
            self.bytes.extend_from_slice(&piece);
        }
        let record = IndexRecord::decode(Bytes::copy_from_slice(&self.bytes[..self.reader.record_bytes]))?;
        let offset = self.next;
        drop(self.bytes.split_to(self.reader.record_bytes));
        self.next += self.reader.record_bytes as u64;
        Ok(Some((offset, record)))
    }
}

/// Reads one record.
pub(super) async fn record(
    stores: &SegmentStores,
    target: &Target,
    offset: u64,
    record_bytes: usize,
) -> Result<IndexRecord> {
    let mut bytes = BytesMut::with_capacity(record_bytes);
    while bytes.len() < record_bytes {
        let (from, rest) = (offset + bytes.len() as u64, record_bytes - bytes.len());
        bytes.extend_from_slice(&stores.read(target, from, rest as u64).await?);
    }
    IndexRecord::decode(bytes.freeze())
}
