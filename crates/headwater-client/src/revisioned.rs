//! One segment as a list of changes that clients agree on: each change is appended at the end that its author has seen, or
//! not at all.
//!
//! Guarantees:
//! * of all changes that are written at one revision, one is stored, and its author knows
//! * whoever asks for the latest revision gets one that lies behind everything acknowledged before
//!
//! Source: Pravega's `RevisionedStreamClient`; bytes, mark and text form are the same, so that Java clients take part.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use headwater_proto::controller::stream_info::AccessOperation;
use headwater_types::limits::EVENT_BYTES_MAX;
use headwater_types::{AttributeId, ScopedStream, SegmentId, SegmentName, attribute};
use tokio::sync::Mutex;

use crate::appending::Appender;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::reading::Events;
use crate::segments::{SegmentStores, Target, offset, signed};
use crate::writer::HEADER_BYTES;

/// Most bytes asked for at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// A place between two entries of a [`RevisionedStream`]: everything before it has been seen.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Revision {
    pub(crate) offset: u64,
    pub(crate) index: u32,
}

impl Revision {
    /// Before anything was written.
    pub const ZERO: Self = Self::at(0);

    /// The place at an offset of the segment, in bytes. Only where an entry ends is there one.
    pub const fn at(offset: u64) -> Self {
        Self { offset, index: 0 }
    }

    /// Offset in the segment, in bytes.
    pub const fn offset(self) -> u64 {
        self.offset
    }

    /// Number of the change within an entry that holds several, as state synchronizers write them; 0 otherwise.
    pub const fn index(self) -> u32 {
        self.index
    }
}

/// A stream of one segment that several clients change by agreement. Cheap to clone; clones share a connection for writing,
/// and write one after the other.
#[derive(Clone)]
pub struct RevisionedStream {
    shared: Arc<Shared>,
}

struct Shared {
    stream: ScopedStream,
    stores: SegmentStores,
    reading: Target,
    writing: Target,
    appender: Mutex<Appender>,
}

impl fmt::Debug for RevisionedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevisionedStream").field("segment", &self.shared.reading.name).finish_non_exhaustive()
    }
}

impl Client {
    /// Opens a stream of one segment for changes by agreement. Make it with [`StreamConfig::fixed(1)`](crate::StreamConfig::fixed).
    ///
    /// # Errors
    /// `NotFound`; `Sealed`; `Invalid`: it has several segments.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn revisioned_stream(&self, stream: &ScopedStream) -> Result<RevisionedStream> {
        let segment = self.only_segment(stream).await?;
        let stores = self.segments().clone();
        let target = |access| Target::new(stream, segment, access);
        let (reading, writing) = (target(AccessOperation::Read), target(AccessOperation::ReadWrite));
        let appender = Mutex::new(Appender::new(stores.clone(), writing.clone()));
        let shared = Shared { stream: stream.clone(), stores, reading, writing, appender };
        Ok(RevisionedStream { shared: Arc::new(shared) })
    }

    /// The segment of a stream that has one.
    pub(crate) async fn only_segment(&self, stream: &ScopedStream) -> Result<SegmentId> {
        match self.current_segments(stream).await?.as_slice() {
            [segment] => Ok(segment.id),
            [] => Err(Error::new(ErrorKind::Sealed, format!("stream {stream} is sealed"))),
            segments => {
                let what = format!("stream {stream} has {} segments and not one", segments.len());
                Err(Error::new(ErrorKind::Invalid, what))
            }
        }
    }
}

impl RevisionedStream {
    /// The stream.
    pub fn stream(&self) -> &ScopedStream {
        &self.shared.stream
    }

    /// Name of its segment.
    pub fn segment(&self) -> &SegmentName {
        &self.shared.reading.name
    }

    /// The place behind the last entry.
    ///
    /// # Errors
    /// `NotFound`: the stream was deleted. `Unavailable`; `Denied`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn latest(&self) -> Result<Revision> {
        Ok(Revision::at(self.shared.stores.info(&self.shared.reading).await?.end))
    }

    /// The place before the first entry that was not truncated.
    ///
    /// # Errors
    /// As [`latest`](Self::latest).
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn oldest(&self) -> Result<Revision> {
        Ok(Revision::at(self.shared.stores.info(&self.shared.reading).await?.start))
    }

    /// Reads the entries behind a revision, up to the last one that is there now.
    ///
    /// # Errors
    /// * `Truncated`: entries behind it are gone; begin with the [`mark`](Self::mark), or where the stream begins now;
    /// * `Invalid`: the stream does not reach so far;
    /// * `NotFound`, `Unavailable`, `Denied`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn read(&self, from: Revision) -> Result<RevisionReader> {
        let info = self.shared.stores.info(&self.shared.reading).await?;
        if from.offset < info.start {
            let what = format!("{} begins at {} now, behind {}", self.segment(), info.start, from.offset);
            return Err(Error::new(ErrorKind::Truncated, what));
        }
        if from.offset > info.end {
            let what = format!("{} ends at {} and does not reach to {}", self.segment(), info.end, from.offset);
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let (shared, begin) = (self.shared.clone(), from.offset);
        Ok(RevisionReader { shared, begin, fetched: begin, end: info.end, events: Events::default() })
    }

    /// Writes an entry at the end, wherever that is by now, and waits until it is stored.
    ///
    /// * `entry`: at most 8 MiB.
    ///
    /// # Errors
    /// * `Unavailable`: no answer within the time for retries. The entry **may be stored**;
    /// * `Invalid`: it is too large. `Sealed`, `NotFound`, `Denied`. Nothing was stored.
    ///
    /// # Cancel safety
    /// The entry may be stored.
    pub async fn write(&self, entry: &Bytes) -> Result<()> {
        self.check(entry)?;
        self.shared.appender.lock().await.append(entry, None).await?;
        Ok(())
    }

    /// Writes an entry if `expected` is the latest revision, and waits until that is decided. Returns the revision behind the
    /// entry; `None` if something else was written first, and this was not.
    ///
    /// * `entry`: at most 8 MiB.
    ///
    /// # Errors
    /// As [`write`](Self::write). A connection that is lost meanwhile is not an error: the segment is asked what it has got.
    ///
    /// # Cancel safety
    /// The entry may be stored.
    pub async fn write_at(&self, expected: Revision, entry: &Bytes) -> Result<Option<Revision>> {
        self.check(entry)?;
        let is_stored = self.shared.appender.lock().await.append(entry, Some(expected.offset)).await?;
        Ok(is_stored.then(|| Revision::at(expected.offset + (HEADER_BYTES + entry.len()) as u64)))
    }

    fn check(&self, entry: &Bytes) -> Result<()> {
        if entry.len() > EVENT_BYTES_MAX {
            let what = format!("entry of {} bytes, limit {EVENT_BYTES_MAX}", entry.len());
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(())
    }

    /// The place that readers who know nothing begin at; `None` if none was set.
    ///
    /// # Errors
    /// As [`latest`](Self::latest).
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn mark(&self) -> Result<Option<Revision>> {
        let value = self.attribute(attribute::REVISION_MARK).await?;
        value.map(|value| Ok(Revision::at(offset(value)?))).transpose()
    }

    /// Moves the mark from `expected` to `new`, or takes it away. `false` if it was somewhere else, and still is.
    ///
    /// # Errors
    /// As [`latest`](Self::latest); `Sealed`. After `Unavailable` it **may have moved**.
    ///
    /// # Cancel safety
    /// It may have moved.
    pub async fn replace_mark(&self, expected: Option<Revision>, new: Option<Revision>) -> Result<bool> {
        let value = |revision: Option<Revision>| revision.map(|revision| signed(revision.offset)).transpose();
        self.replace_attribute(attribute::REVISION_MARK, value(expected)?, value(new)?).await
    }

    /// An attribute of the segment.
    pub(crate) async fn attribute(&self, attribute: AttributeId) -> Result<Option<i64>> {
        self.shared.stores.attribute(&self.shared.reading, attribute).await
    }

    /// Sets or removes an attribute if it is as expected; whether it was. After `Unavailable` it **may be set**.
    pub(crate) async fn replace_attribute(
        &self,
        attribute: AttributeId,
        expected: Option<i64>,
        new: Option<i64>,
    ) -> Result<bool> {
        let new = new.unwrap_or(attribute::NULL);
        self.shared.stores.replace_attribute(&self.shared.writing, attribute, expected, new).await
    }

    /// Drops all entries before `to`. Nothing happens if they are gone already.
    ///
    /// # Errors
    /// As [`latest`](Self::latest); `Invalid`: the stream does not reach so far.
    ///
    /// # Cancel safety
    /// They may be gone.
    pub async fn truncate(&self, to: Revision) -> Result<()> {
        self.shared.stores.truncate(&self.shared.writing, to.offset).await
    }

    /// A revision as text, as Java clients write it: the segment's name, offset and index.
    pub fn format(&self, revision: Revision) -> String {
        format!("{}:{}:{}", self.segment(), revision.offset, revision.index)
    }

    /// The revision that [`format`](Self::format) made a text of.
    ///
    /// # Errors
    /// `Invalid`: it is none, or one of another segment.
    pub fn parse(&self, text: &str) -> Result<Revision> {
        parse(self.segment().as_str(), text).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("{text:?} is no revision of segment {}", self.segment()))
        })
    }
}

fn parse(segment: &str, text: &str) -> Option<Revision> {
    let (offset, index) = text.strip_prefix(segment)?.strip_prefix(':')?.split_once(':')?;
    let offset: i64 = offset.parse().ok()?;
    Some(Revision { offset: u64::try_from(offset).ok()?, index: index.parse().ok()? })
}

/// The entries behind a revision, in the order in which they were written.
pub struct RevisionReader {
    shared: Arc<Shared>,
    begin: u64,
    /// Up to here, bytes were asked for.
    fetched: u64,
    end: u64,
    events: Events,
}

impl fmt::Debug for RevisionReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevisionReader")
            .field("segment", &self.shared.reading.name)
            .field("at", &self.revision())
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl RevisionReader {
    /// The place behind the last entry that was returned.
    pub fn revision(&self) -> Revision {
        Revision::at(self.begin + self.events.taken())
    }

    /// The next entry, with the revision behind it; `None` behind the last one that was there when reading began.
    ///
    /// # Errors
    /// * `Truncated`: it was truncated away meanwhile;
    /// * `Protocol`: these are no entries;
    /// * `NotFound`, `Unavailable`, `Denied`. The next call tries again.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Option<(Revision, Bytes)>> {
        loop {
            if let Some(entry) = self.events.next()? {
                return Ok(Some((self.revision(), entry)));
            }
            if self.fetched >= self.end {
                if self.events.pending() > 0 {
                    let what = format!("segment {} ends inside an entry", self.shared.reading.name);
                    return Err(Error::new(ErrorKind::Protocol, what));
                }
                return Ok(None);
            }
            let data = {
                let (shared, wanted) = (&self.shared, (self.end - self.fetched).min(PIECE_BYTES));
                shared.stores.read(&shared.reading, self.fetched, wanted).await?
            };
            self.fetched += data.len() as u64;
            self.events.feed(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_read_from_its_text_and_from_nothing_else() {
        let segment = "s/t/0.#epoch.0";
        assert_eq!(parse(segment, "s/t/0.#epoch.0:17:2"), Some(Revision { offset: 17, index: 2 }));
        for bad in
            ["s/t/1.#epoch.0:17:2", "s/t/0.#epoch.0:17", "s/t/0.#epoch.0:-1:0", "s/t/0.#epoch.0:1:-1", "17:2", ""]
        {
            assert_eq!(parse(segment, bad), None, "{bad}");
        }
    }
}
