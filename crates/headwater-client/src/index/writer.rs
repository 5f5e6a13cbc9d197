//! Writing records.

use bytes::BytesMut;
use headwater_proto::controller::stream_info::AccessOperation;
use headwater_types::ScopedStream;
use headwater_types::limits::EVENT_BYTES_MAX;

use super::{IndexRecord, RECORD_BYTES};
use crate::appending::Appender;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::segments::{SegmentStores, Target};

/// Records are at least so long, so that there is room for a label.
const RECORD_BYTES_MIN: usize = 64;

/// Appends records to a stream of one segment. There is one writer at a time: of two, one is told that the other was there.
pub struct IndexWriter {
    stores: SegmentStores,
    target: Target,
    appender: Appender,
    record_bytes: usize,
    /// Where the next record goes and what the last one was; `None` until it is looked for.
    tail: Option<(u64, Option<IndexRecord>)>,
}

impl std::fmt::Debug for IndexWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexWriter")
            .field("segment", &self.target.name)
            .field("record_bytes", &self.record_bytes)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A writer of labelled records to a stream of one segment that holds nothing else.
    ///
    /// * `record_bytes`: the size of every record, 64 bytes to 8 MiB; 4096 is usual. The first writer of a stream decides.
    ///
    /// # Errors
    /// `Invalid`: another size, or the stream holds other things or has several segments. `NotFound`, `Sealed`, `Denied`,
    /// `Unavailable`.
    ///
    /// # Cancel safety
    /// The size may be decided.
    pub async fn index_writer(&self, stream: &ScopedStream, record_bytes: usize) -> Result<IndexWriter> {
        if !(RECORD_BYTES_MIN..=EVENT_BYTES_MAX).contains(&record_bytes) {
            let what = format!("records of {record_bytes} bytes; they have {RECORD_BYTES_MIN} to {EVENT_BYTES_MAX}");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let segment = self.only_segment(stream).await?;
        let (stores, target) = (self.segments().clone(), Target::new(stream, segment, AccessOperation::ReadWrite));
        let wanted = i64::try_from(record_bytes).expect("8 MiB fit");
        let mut decided = stores.attribute(&target, RECORD_BYTES).await?;
        if decided.is_none() {
            if stores.info(&target).await?.end > 0 {
                let what = format!("stream {stream} holds something else than labelled records");
                return Err(Error::new(ErrorKind::Invalid, what));
            }
            let is_ours = stores.replace_attribute(&target, RECORD_BYTES, None, wanted).await?;
            decided = if is_ours { Some(wanted) } else { stores.attribute(&target, RECORD_BYTES).await? };
        }
        if decided != Some(wanted) {
            let what = format!("records of {stream} have {} bytes and not {wanted}", decided.unwrap_or(0));
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let appender = Appender::new(stores.clone(), target.clone());
        Ok(IndexWriter { stores, target, appender, record_bytes, tail: None })
    }
}

impl IndexWriter {
    /// Appends records, all or none, and waits until they are stored. Returns the offset of the first.
    ///
    /// * `records`: at least one; together at most 8 MiB with what fills them up. All have the same labels as those before, and no
    ///   value falls.
    ///
    /// # Errors
    /// * `Invalid`: they do not follow on those before, are too large, or there are none;
    /// * `Conflict`: another writer has appended meanwhile; the next call follows on its records;
    /// * `Unavailable`: they **may be stored**; the next call looks. `Sealed`, `NotFound`, `Denied`.
    ///
    /// # Cancel safety
    /// They may be stored.
    pub async fn append(&mut self, records: &[IndexRecord]) -> Result<u64> {
        // Not put back when something goes wrong: what the stream holds is looked up then.
        let (offset, mut last) = match self.tail.take() {
            Some(tail) => tail,
            None => self.find_tail().await?,
        };
        let outcome = self.encode(records, last.as_ref());
        let bytes = match outcome {
            Ok(bytes) => bytes,
            Err(error) => {
                self.tail = Some((offset, last));
                return Err(error);
            }
        };
        let behind = offset + bytes.len() as u64;
        if !self.appender.append_bytes_at(&bytes.freeze(), offset).await? {
            let what = format!("another writer has appended to {}", self.target.name);
            return Err(Error::new(ErrorKind::Conflict, what));
        }
        last = records.last().cloned();
        self.tail = Some((behind, last));
        Ok(offset)
    }

    fn encode(&self, records: &[IndexRecord], last: Option<&IndexRecord>) -> Result<BytesMut> {
        let bytes = records.len().saturating_mul(self.record_bytes);
        if records.is_empty() || bytes > EVENT_BYTES_MAX {
            let what = format!("{} records of {} bytes, limit {EVENT_BYTES_MAX}", records.len(), self.record_bytes);
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let mut out = BytesMut::with_capacity(bytes);
        let befores = last.into_iter().map(Some).chain(last.is_none().then_some(None)).chain(records.iter().map(Some));
        for (before, record) in befores.zip(records) {
            if let Some(before) = before {
                record.check_after(before)?;
            }
            record.encode(self.record_bytes, &mut out)?;
        }
        Ok(out)
    }

    async fn find_tail(&self) -> Result<(u64, Option<IndexRecord>)> {
        let info = self.stores.info(&self.target).await?;
        let record_bytes = self.record_bytes as u64;
        if !info.end.is_multiple_of(record_bytes) {
            let what = format!("{} ends inside a record", self.target.name);
            return Err(Error::new(ErrorKind::Protocol, what));
        }
        let last = match info.end.checked_sub(record_bytes).filter(|begin| *begin >= info.start) {
            Some(begin) => Some(super::reader::record(&self.stores, &self.target, begin, self.record_bytes).await?),
            None => None,
        };
        Ok((info.end, last))
    }

    /// Drops records before an offset, which is that of a record.
    ///
    /// # Errors
    /// `Invalid`: no record begins there, or the stream does not reach so far. `NotFound`, `Denied`, `Unavailable`.
    ///
    /// # Cancel safety
    /// They may be gone.
    pub async fn truncate(&self, to: u64) -> Result<()> {
        if !to.is_multiple_of(self.record_bytes as u64) {
            return Err(Error::new(ErrorKind::Invalid, format!("no record begins at {to}")));
        }
        self.stores.truncate(&self.target, to).await
    }
}
