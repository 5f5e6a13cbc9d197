//! Taking down what writers say the time is, and writing watermarks every ten seconds into the mark streams of the
//! streams that have such writers.
//!
//! A table of their own, `times`, names those streams, so that a start finds them without looking at all streams. A
//! note is written into it before the first writer's mark is, and taken back, under the same lock, when no writer is
//! left.
//!
//! Locks: `Slot::times` is the innermost. Who holds it never waits for `Slot::work`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_records::Watermark;
use headwater_types::attribute::REVISION_MARK as MARK;
use headwater_types::{ScopedStream, SegmentName};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::slots::{Slot, View, locked};
use super::streams::mark_stream;
use super::walks::For;
use super::{Inner, Result, present, put, remove};
use crate::model::{
    ControllerError, NoteTime, PAGE_ENTRIES, RemoveWriter, SEGMENTS_MAX, StreamCut, WRITER_ID_BYTES_MAX, WRITERS_MAX,
};
use crate::ports::{AppendedAt, Change, Expect, SegmentRead, TableError};
use crate::state::cuts::{self, Order};
use crate::state::head::State;
use crate::state::keys;
use crate::state::watermarks::{
    Backwards, EVENT_BYTES_MAX, Join, MarkReader, Time, WriterMark, event, judge, watermarks,
};

/// How often watermarks are computed. Source: Pravega `watermarking.frequency.seconds`.
const EVERY: Duration = Duration::from_secs(10);
/// Bytes of a mark segment read at once.
const READ_BYTES: usize = 256 * 1024;
/// Bytes of a mark segment looked at to find what can be dropped: at least one watermark more than is kept.
const TRIM_BYTES: usize = 2 * EVENT_BYTES_MAX;

/// Streams that have writers with a time.
#[derive(Default)]
pub(super) struct Times(std::sync::Mutex<BTreeMap<ScopedStream, Looked>>);

/// What is remembered of a stream from one look to the next.
#[derive(Default)]
struct Looked {
    /// Since when writers have not gone on.
    silence: BTreeMap<String, Instant>,
    /// Bytes before the stream's beginning for which no watermark more can be dropped.
    trimmed: Option<i64>,
}

/// A writer's word without its position, which may be large.
struct Noted {
    mark: WriterMark,
    version: i64,
}

impl Inner {
    pub(super) async fn note_time(
        self: &Arc<Self>,
        name: &ScopedStream,
        writer: String,
        time: i64,
        position: StreamCut,
    ) -> Result<NoteTime> {
        if writer.is_empty() || writer.len() > WRITER_ID_BYTES_MAX {
            let text = format!("writer id of {} bytes, allowed are 1 to {WRITER_ID_BYTES_MAX}", writer.len());
            return Err(ControllerError::Invalid(text));
        }
        if mark_stream(name).is_none() {
            return Err(ControllerError::Invalid(format!("{name} is internal and has no time")));
        }
        let (slot, _) = self.complete(name).await?;
        // Segments exist from the moment on when they are told as successors, before their epoch is the current one.
        if position.len() > SEGMENTS_MAX
            || self.walk(&slot, For::Client).segments(&position, true).await?.len() < position.len()
        {
            return Ok(NoteTime::InvalidPosition);
        }
        self.put_mark(&slot, &writer, time, position).await
    }

    /// Takes a writer's word down if it goes forwards. The stream exists, or did a moment ago.
    pub(super) async fn put_mark(&self, slot: &Slot, writer: &str, time: i64, position: StreamCut) -> Result<NoteTime> {
        let mut writers = slot.times.lock().await;
        let key = keys::writer(writer);
        let found = self.ports.tables.read(&slot.table, std::slice::from_ref(&key)).await?.pop().flatten();
        let expect = match &found {
            None => {
                let count = match *writers {
                    Some(count) => count,
                    None => self.count(&slot.table, keys::WRITER_PREFIX, WRITERS_MAX).await?,
                };
                *writers = Some(count);
                if count >= WRITERS_MAX {
                    let text = format!("stream {} has {WRITERS_MAX} writers with a time", slot.name);
                    return Err(ControllerError::Exhausted(text));
                }
                Expect::Absent
            }
            Some(entry) => match WriterMark::decode(&entry.value)?.accepts(time, &position) {
                Err(Backwards::Time) => return Ok(NoteTime::InvalidTime),
                Err(Backwards::Position) => return Ok(NoteTime::InvalidPosition),
                Ok(()) => Expect::Version(entry.version),
            },
        };
        if !locked(&self.times.0).contains_key(&slot.name) {
            self.ports.tables.commit(keys::TIMES, vec![put(keys::scoped_key(&slot.name), present())]).await?;
            locked(&self.times.0).insert(slot.name.clone(), Looked::default());
        }
        let mark = WriterMark { time, position, alive: true };
        // Without an answer it may be there or not.
        let count = std::mem::take(&mut *writers);
        self.ports.tables.commit(&slot.table, vec![Change { key, expect, put: Some(mark.encode()) }]).await?;
        *writers = count.map(|count| count + usize::from(expect == Expect::Absent));
        Ok(NoteTime::Success)
    }

    /// How many records of a kind a table has; counts no further than `most`.
    pub(super) async fn count(&self, table: &str, prefix: &[u8], most: usize) -> Result<usize> {
        let (mut count, mut after) = (0, None::<Bytes>);
        while count < most {
            let page = self.ports.tables.scan_keys(table, prefix, after.as_deref(), PAGE_ENTRIES).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            count += page.len();
        }
        Ok(count)
    }

    pub(super) async fn remove_writer(&self, name: &ScopedStream, writer: &str) -> Result<RemoveWriter> {
        // Nobody of such a name was ever noted, and no table takes it as a key.
        if writer.is_empty() || writer.len() > WRITER_ID_BYTES_MAX {
            return Ok(RemoveWriter::UnknownWriter);
        }
        let slot = self.slots.slot(name);
        let _alone = slot.times.lock().await;
        let key = keys::writer(writer);
        let found = match self.ports.tables.read(&slot.table, std::slice::from_ref(&key)).await {
            Ok(mut found) => found.pop().flatten(),
            Err(TableError::NoSuchTable(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let Some(entry) = found else { return Ok(RemoveWriter::UnknownWriter) };
        let mark = WriterMark { alive: false, ..WriterMark::decode(&entry.value)? };
        let change = Change { key, expect: Expect::Version(entry.version), put: Some(mark.encode()) };
        self.ports.tables.commit(&slot.table, vec![change]).await?;
        Ok(RemoveWriter::Success)
    }

    /// Finds the streams that had writers with a time when the last run ended.
    pub(super) async fn recover_times(&self) -> Result<()> {
        let mut after: Option<Bytes> = None;
        loop {
            let page = self.ports.tables.scan(keys::TIMES, b"", after.as_deref(), PAGE_ENTRIES).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key.clone());
            for entry in page {
                locked(&self.times.0).insert(keys::scoped_stream(&entry.key)?, Looked::default());
            }
        }
    }

    pub(super) async fn run_watermarks(self: Arc<Self>) {
        let mut stopped = self.stopped.subscribe();
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            let streams: Vec<ScopedStream> = locked(&self.times.0).keys().cloned().collect();
            for stream in streams {
                if self.is_stopped() {
                    return;
                }
                if let Err(error) = self.advance_time(&stream).await {
                    warn!(%stream, %error, "no watermark this time");
                }
            }
        }
    }

    /// Writes a watermark if all writers have gone on since the last, and forgets writers that do not count any more.
    async fn advance_time(self: &Arc<Self>, name: &ScopedStream) -> Result<()> {
        let slot = self.slots.slot(name);
        // Both before the lock; see above.
        let view = self.view(&slot).await?.filter(|view| view.head.state != State::Deleting);
        let marks = match (&view, mark_stream(name)) {
            (Some(_), Some(mark)) => {
                let view = self.view(&self.slots.slot(&mark)).await?;
                view.and_then(|view| Some(mark.segment(view.current.segments().first()?.id)))
            }
            _ => None,
        };
        let mut count = slot.times.lock().await;
        let (Some(view), Some(marks)) = (view, marks) else {
            return self.forget_time(&slot).await;
        };
        let previous = self.last_watermark(&marks).await?;
        let mut writers = BTreeMap::new();
        self.each_writer(&slot, |writer, mark, version| {
            // The position may be large.
            writers.insert(writer, Noted { mark: WriterMark { position: StreamCut::new(), ..mark }, version });
        })
        .await?;
        let timeout_ms = view.head.config.timestamp_aggregation_timeout_ms;
        let (inactive, time) = {
            let now = Instant::now();
            let mut times = locked(&self.times.0);
            let silence = &mut times.entry(name.clone()).or_default().silence;
            let last = previous.last.as_ref().map(|(_, last)| last);
            silence.retain(|writer, _| {
                writers.get(writer).is_some_and(|noted| last.is_some_and(|last| noted.mark.time <= last.lower))
            });
            let marks = writers.iter().map(|(writer, noted)| (writer, &noted.mark));
            let (inactive, time) = judge(last, marks, timeout_ms, |writer| {
                let since = silence.entry(writer.to_owned()).or_insert(now);
                i64::try_from(now.duration_since(*since).as_millis()).unwrap_or(i64::MAX)
            });
            (inactive.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), time)
        };
        *count = None;
        for writer in &inactive {
            let Some(noted) = writers.get(writer) else { continue };
            let change = Change { key: keys::writer(writer), expect: Expect::Version(noted.version), put: None };
            self.ports.tables.commit(&slot.table, vec![change]).await?;
        }
        *count = Some(writers.len() - inactive.len());
        match time {
            Time::Waits => Ok(()),
            Time::Nobody => self.forget_time(&slot).await,
            Time::Advances { lower, upper } => {
                let last = previous.last.as_ref().map(|(_, last)| last);
                let mut join = Join::default();
                self.each_writer(&slot, |writer, mark, _| {
                    if !inactive.contains(&writer) {
                        join.add(&mark.position);
                    }
                })
                .await?;
                let mut walk = self.walk(&slot, For::Itself);
                let segments = walk.segments(&join.named(last), false).await?;
                let mut joined = join.finish(&segments, last);
                while let Some(number) = joined.wants() {
                    let Some(epoch) = walk.epoch(number).await? else { break };
                    if !joined.fill(&epoch) {
                        break;
                    }
                }
                drop((walk, segments));
                let watermark = Watermark { lower, upper, position: joined.position };
                self.write_watermark(&marks, &previous, &watermark).await?;
                debug!(stream = %name, lower, upper, "watermark");
                self.trim(&slot, &view, &marks).await
            }
        }
    }

    /// No writer of the stream has a time any more.
    async fn forget_time(&self, slot: &Slot) -> Result<()> {
        self.ports.tables.commit(keys::TIMES, vec![remove(keys::scoped_key(&slot.name))]).await?;
        locked(&self.times.0).remove(&slot.name);
        Ok(())
    }

    /// Goes through what writers have said, with the versions of the records. Whoever holds `Slot::times` sees the same
    /// each time.
    async fn each_writer(&self, slot: &Slot, mut look: impl FnMut(String, WriterMark, i64)) -> Result<()> {
        let mut after: Option<Bytes> = None;
        loop {
            let scan = self.ports.tables.scan(&slot.table, keys::WRITER_PREFIX, after.as_deref(), PAGE_ENTRIES);
            let page = scan.await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key.clone());
            for entry in page {
                let writer = entry.key.get(keys::WRITER_PREFIX.len()..).unwrap_or_default();
                let writer = String::from_utf8_lossy(writer).into_owned();
                look(writer, WriterMark::decode(&entry.value)?, entry.version);
            }
        }
    }

    /// The last watermark of a mark segment, as Java's readers find it: from the place that the attribute names.
    async fn last_watermark(&self, segment: &SegmentName) -> Result<Marks> {
        let store = &self.ports.segments;
        let missing = || ControllerError::Unavailable(format!("mark segment {segment} is not there"));
        let from = match store.attribute(segment, MARK).await? {
            Some(from) => from,
            None => {
                let start = store.segment_info(segment).await?.ok_or_else(missing)?.start;
                let start = i64::try_from(start).unwrap_or(i64::MAX);
                store.swap_attribute(segment, MARK, None, start).await?;
                start
            }
        };
        let mut at = u64::try_from(from).unwrap_or(0);
        let mut reader = MarkReader::new(at);
        loop {
            match store.read_segment(segment, at, READ_BYTES).await? {
                SegmentRead::Bytes(bytes) if bytes.is_empty() => break,
                SegmentRead::Bytes(bytes) => {
                    at += bytes.len() as u64;
                    let fed = reader.feed(&bytes);
                    fed.map_err(|error| {
                        ControllerError::Damaged(format!("{segment} holds something that is no watermark: {error}"))
                    })?;
                }
                SegmentRead::Outside { .. } | SegmentRead::NoSuchSegment => return Err(missing()),
            }
        }
        Ok(Marks { from, end: at, last: reader.last })
    }

    /// Appends a watermark and moves the attribute to the one before, so that readers begin with that.
    async fn write_watermark(&self, segment: &SegmentName, before: &Marks, watermark: &Watermark) -> Result<()> {
        let store = &self.ports.segments;
        match store.append_at(segment, before.end, event(watermark)).await? {
            AppendedAt::Appended => {}
            // An append of ours whose answer was lost; the next round finds it.
            AppendedAt::Moved => return Ok(()),
            AppendedAt::Sealed | AppendedAt::NoSuchSegment => {
                return Err(ControllerError::Unavailable(format!("mark segment {segment} takes nothing")));
            }
        }
        if let Some((offset, _)) = &before.last {
            let to = i64::try_from(*offset).unwrap_or(i64::MAX);
            store.swap_attribute(segment, MARK, Some(before.from), to).await?;
        }
        Ok(())
    }
}

impl Inner {
    /// Drops watermarks that lie before the stream's beginning, but for the last of them: Java's readers begin with the
    /// oldest there is, and it tells the time at the beginning. Some at a time; the rest is for the next watermarks.
    ///
    /// A reader that is there already has fetched at least the first watermark behind its own place, so none is told of
    /// the truncation that was not told so by the stream itself.
    async fn trim(&self, slot: &Slot, view: &View, segment: &SegmentName) -> Result<()> {
        let Some(truncation) = &view.head.truncation else { return Ok(()) };
        let is_done = |looked: &Looked| looked.trimmed == Some(truncation.bytes);
        if locked(&self.times.0).get(&slot.name).is_none_or(is_done) {
            return Ok(());
        }
        let store = &self.ports.segments;
        let Some(info) = store.segment_info(segment).await? else { return Ok(()) };
        // What lies behind it is read by the next look.
        let from = store.attribute(segment, MARK).await?.and_then(|from| u64::try_from(from).ok()).unwrap_or(0);
        let mut bytes = Vec::new();
        while bytes.len() < TRIM_BYTES {
            let at = info.start + bytes.len() as u64;
            match store.read_segment(segment, at, (TRIM_BYTES - bytes.len()).min(READ_BYTES)).await? {
                SegmentRead::Bytes(more) if more.is_empty() => break,
                SegmentRead::Bytes(more) => bytes.extend_from_slice(&more),
                SegmentRead::Outside { .. } | SegmentRead::NoSuchSegment => return Ok(()),
            }
        }
        let found = watermarks(&bytes).map_err(|error| {
            ControllerError::Damaged(format!("{segment} holds something that is no watermark: {error}"))
        })?;
        drop(bytes);
        let mut walk = self.walk(slot, For::Itself);
        let Some(beginning) = walk.standing(&truncation.cut).await? else { return Ok(()) };
        // Watermarks are in order.
        let (mut passed, mut behind) = (0, found.len());
        while passed < behind {
            let middle = passed.midpoint(behind);
            let position: StreamCut = found[middle].1.position.iter().map(|(id, (_, at))| (*id, *at)).collect();
            let surface = walk.surface(&position).await?;
            let order = surface.map(|surface| cuts::order_on((&beginning, &truncation.cut), (&surface, &position)));
            if order == Some(Order::EqualOrAfter) {
                passed = middle + 1;
            } else {
                behind = middle;
            }
        }
        drop(walk);
        let to = passed.checked_sub(1).map_or(0, |last| info.start + found[last].0).min(from);
        if to > info.start {
            store.truncate_segment(segment, to).await?;
        }
        if passed < found.len()
            && let Some(looked) = locked(&self.times.0).get_mut(&slot.name)
        {
            looked.trimmed = Some(truncation.bytes);
        }
        Ok(())
    }
}

/// A mark segment as it was read.
struct Marks {
    /// Value of the attribute.
    from: i64,
    /// Where it ended.
    end: u64,
    /// The last watermark and where it begins.
    last: Option<(u64, Watermark)>,
}
