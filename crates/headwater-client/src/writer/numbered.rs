//! A writer whose events have numbers of the caller's, so that a process that starts again goes on without doubles.
//!
//! Each segment remembers the number of the last event that it got under the writer's id. `core` sees to it that this tells
//! of all keys of the segment: an event of a key is stored if and only if any segment that has or had this key has got a number
//! as high. A writer that is opened asks all segments that the stream still has, those that scales have sealed included.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use headwater_proto::controller::stream_info::AccessOperation;
use headwater_types::{AttributeId, EventNumber, ScopedStream, SegmentId, WriterId, hash};

use super::core::writer_on;
use super::flow::NUMBER_MAX;
use super::{Ack, EventWriter, EventWriterOptions, Shared};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::SegmentRange;
use crate::retry::Backoff;
use crate::segments::{ASKED_AT_ONCE, Target};

/// The last number of one writer that segments have got.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    segments: Vec<(SegmentRange, EventNumber)>,
    /// Highest of them: most events are behind it, and nothing is looked for.
    highest: EventNumber,
    /// Everything below is stored, whatever its key.
    forgotten_below: EventNumber,
}

impl Kept {
    pub(crate) fn add(&mut self, segment: SegmentRange, number: EventNumber) {
        self.highest = self.highest.max(number);
        self.segments.push((segment, number));
    }

    /// Everything below this number is stored: which segment has it is not asked any more.
    pub(crate) fn forget_below(&mut self, number: EventNumber) {
        self.forgotten_below = self.forgotten_below.max(number);
        self.segments.retain(|(_, last)| *last >= number);
    }

    /// Whether events of this number are stored, whatever their keys.
    pub(crate) fn has_forgotten(&self, number: EventNumber) -> bool {
        number < self.forgotten_below
    }

    /// A segment that has the event of this key and number, which is not forgotten.
    pub(crate) fn find(&self, hash: f64, number: EventNumber) -> Option<SegmentId> {
        if number > self.highest {
            return None;
        }
        // As keys are routed: one on a bound belongs to the lower segment.
        let has_key = |it: &SegmentRange| (it.range.low() < hash || it.range.low() == 0.0) && hash <= it.range.high();
        let found = self.segments.iter().find(|(segment, last)| *last >= number && has_key(segment));
        found.map(|(segment, _)| segment.id)
    }

    /// The number up to which every event is there, whatever its key.
    pub(crate) fn of_all_keys(&self) -> Option<EventNumber> {
        let bounds = self.segments.iter().flat_map(|(segment, _)| [segment.range.low(), segment.range.high()]);
        let mut bounds: Vec<f64> = bounds.chain([0.0, 1.0]).collect();
        bounds.sort_by(f64::total_cmp);
        bounds.dedup();
        // Within a part no bound lies: its upper end stands for all its keys.
        let parts = bounds.windows(2).map(|part| {
            let here = |(segment, _): &&(SegmentRange, EventNumber)| {
                segment.range.low() < part[1] && part[1] <= segment.range.high()
            };
            self.segments.iter().filter(here).map(|(_, last)| *last).max()
        });
        parts.min().flatten()
    }
}

/// Writes events that the caller has numbered, each once, whatever process writes it: for sources that can be read again, as
/// files, queues with offsets, or another stream.
///
/// A process that was killed is started again, opens a writer of the same name, reads its source again from behind
/// [`resume_after`](Self::resume_after) or from any place before that, and writes the same events with the same keys under
/// the same numbers. Those that are stored already are recognized and not stored again.
///
/// # What is guaranteed
/// Each event is stored once, and events of one key are stored in the order of their numbers, through lost connections,
/// restarts of servers and of the writing process, and changes of the stream's segments before, between and after these,
/// provided that
/// * no process leaves out events, or gives a number to another event or key than the one before it did;
/// * what is written again is not older than what the stream keeps: of a segment that was truncated away as a whole nobody
///   knows what it got, and its events would be stored again. `resume_after` does not tell of this: it may lie before such
///   events, and be 0. Where a stream is truncated or has a retention, keep a number of your own, up to which everything was
///   [flushed](Self::flush), note it more often than events are let go, and begin behind the higher of the two.
///
/// A second process that writes under the same name at the same time does no harm if it writes the same events.
///
/// After the first failure nothing is taken any more, so that no event is missing before others: open the writer again and go
/// on as after a restart.
///
/// ```no_run
/// # async fn run(client: headwater_client::Client) -> headwater_client::Result<()> {
/// use headwater_client::ScopedStream;
///
/// let stream = ScopedStream::parse("shop/orders").expect("a name");
/// let writer = client.numbered_writer(&stream, "importer-3", Default::default()).await?;
/// let lines = ["7 one apple", "9 two pears", "7 a third"];
/// // What was flushed once stays behind us, also if the stream has let go of it.
/// let noted = std::fs::read_to_string("importer-3.done").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
/// let done = writer.resume_after().max(noted);
/// for (number, line) in (1..).zip(lines).skip_while(|(number, _)| *number <= done) {
///     let (customer, _) = line.split_once(' ').expect("two words");
///     let _ = writer.write(number, customer, line).await?;
/// }
/// writer.flush().await?;
/// std::fs::write("importer-3.done", lines.len().to_string()).expect("a place to note it");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct NumberedWriter {
    inner: EventWriter,
    resume_after: u64,
}

impl Client {
    /// A writer of numbered events under a name that outlives the process. Asks each segment that the stream has, sealed ones
    /// included, what it has got under this name.
    ///
    /// * `name`: nobody else's within the stream, and not empty. Its hash is the id that segments know the writer by.
    ///
    /// # Errors
    /// `Invalid`: the name is empty. `NotFound`; `Sealed`; `Denied`; `Unavailable`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn numbered_writer(
        &self,
        stream: &ScopedStream,
        name: &str,
        options: EventWriterOptions,
    ) -> Result<NumberedWriter> {
        if name.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "a writer's name is empty"));
        }
        let writer = WriterId(AttributeId::named(&format!("NumberedWriter {name}")).0);
        // First: what a scale seals after this is written to, found sealed, and asked again then.
        let segments = self.current_segments(stream).await?;
        if segments.is_empty() {
            return Err(Error::new(ErrorKind::Sealed, format!("stream {stream} is sealed")));
        }
        let all = self.all_segments(stream, &segments).await?;
        let asked = all.into_iter().map(async |segment| {
            let number = self.last_number(stream, writer, segment.id).await?;
            Ok::<_, Error>(number.map(|number| (segment, number)))
        });
        let numbers = futures::stream::iter(asked).buffer_unordered(ASKED_AT_ONCE).try_collect::<Vec<_>>().await?;
        let mut kept = Kept::default();
        numbers.into_iter().flatten().for_each(|(segment, number)| kept.add(segment, number));
        let resume_after = kept.of_all_keys().and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
        let shared = Shared::open_as(self, stream, None, &segments, &options, writer, Some(kept));
        Ok(NumberedWriter { inner: EventWriter { shared, seen: AtomicU64::new(0) }, resume_after })
    }

    /// Segments that the stream has, with their keys.
    async fn all_segments(&self, stream: &ScopedStream, current: &[SegmentRange]) -> Result<Vec<SegmentRange>> {
        let mut ids: BTreeSet<SegmentId> = self.segment_ids(stream).await?.into_iter().collect();
        let mut known: BTreeMap<SegmentId, SegmentRange> = current.iter().map(|it| (it.id, *it)).collect();
        ids.extend(known.keys());
        let unknown: BTreeSet<i32> = ids.iter().filter(|id| !known.contains_key(id)).map(|id| id.epoch).collect();
        let asked = unknown.into_iter().map(|epoch| self.epoch_segments(stream, epoch));
        let epochs = futures::stream::iter(asked).buffer_unordered(ASKED_AT_ONCE).try_collect::<Vec<_>>().await?;
        known.extend(epochs.into_iter().flatten().map(|it| (it.id, it)));
        let odd = |id| Error::new(ErrorKind::Protocol, format!("controller does not know the keys of segment {id}"));
        ids.into_iter().map(|id| known.get(&id).copied().ok_or_else(|| odd(id))).collect()
    }

    async fn last_number(
        &self,
        stream: &ScopedStream,
        writer: WriterId,
        segment: SegmentId,
    ) -> Result<Option<EventNumber>> {
        let target = Target::new(stream, segment, AccessOperation::Write);
        match self.segments().attribute(&target, writer_on(writer, segment).into()).await {
            // Truncated away meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            number => number,
        }
    }

    /// The last number that a segment has got and ever will, which is sealed or about to be.
    pub(super) async fn final_number(
        &self,
        stream: &ScopedStream,
        writer: WriterId,
        segment: SegmentId,
    ) -> Result<Option<EventNumber>> {
        let target = Target::new(stream, segment, AccessOperation::Write);
        let mut backoff = Backoff::for_at_most(self.segments().retry_for());
        loop {
            match self.segments().info(&target).await {
                Ok(info) if info.sealed => return self.last_number(stream, writer, segment).await,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
            if !backoff.pause().await {
                let what = format!("segment {segment} of stream {stream} has successors and is not sealed");
                return Err(Error::new(ErrorKind::Unavailable, what));
            }
        }
    }
}

impl NumberedWriter {
    /// The stream.
    pub fn stream(&self) -> &ScopedStream {
        self.inner.stream()
    }

    /// Number up to which every event was stored when the writer was opened, whatever its key; 0 if none. Above it, some
    /// may be stored as well: they are recognized when they are written.
    ///
    /// It is as high as what has come to each part of the stream's keys: with few keys, some parts never get any, and it
    /// stays low or 0. As long as the stream has all its segments, that only means more to recognize; events of segments
    /// that were truncated away are [not recognized](Self#what-is-guaranteed).
    pub fn resume_after(&self) -> u64 {
        self.resume_after
    }

    /// Whether the event of this key and number is known to be stored. What is under way is not, until it is acknowledged.
    pub fn is_stored(&self, number: u64, routing_key: &str) -> bool {
        let number = EventNumber::try_from(number).unwrap_or(EventNumber::MAX);
        self.inner.shared.locked().core.is_stored(hash::routing_key(routing_key), number)
    }

    /// Hands over an event and returns as soon as there is room for it; the [`Ack`] resolves once it is stored. For one that
    /// was found stored it resolves without an [offset](super::Written::offset).
    ///
    /// * `number`: above that of every event handed over before; from 1 to 2^62 − 1. Numbers that no event has may be left out.
    /// * `event`: 1 to [`EVENT_BYTES_MAX`](super::EVENT_BYTES_MAX) bytes.
    ///
    /// # Errors
    /// * `Invalid`: the number is none of these, the event is empty or too large. It counts as not handed over;
    /// * that of the first failure: nothing is taken any more.
    ///
    /// The `Ack` fails as with [`EventWriter::write`].
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready writes nothing; hand the same event over again then, before any behind it: one
    /// that is left out is taken for stored later. Dropping the `Ack` changes nothing for the event.
    pub async fn write(&self, number: u64, routing_key: &str, event: impl Into<Bytes>) -> Result<Ack> {
        self.write_all(number, routing_key, &[event.into()]).await
    }

    /// As [`write`](Self::write) for several events of one key, which have one number, and are stored together or not at all.
    ///
    /// # Errors
    /// As `write`; `Invalid` also if there are none.
    ///
    /// # Cancel safety
    /// As `write`.
    pub async fn write_all(&self, number: u64, routing_key: &str, events: &[Bytes]) -> Result<Ack> {
        let signed = EventNumber::try_from(number).ok().filter(|number| (1..=NUMBER_MAX).contains(number));
        let signed = signed.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("{number} is no number of an event: they go from 1 to {NUMBER_MAX}"))
        })?;
        let shared: &Arc<Shared> = &self.inner.shared;
        shared.push(hash::routing_key(routing_key), Some(signed), events).await
    }

    /// Waits until everything that was handed over before is stored.
    ///
    /// # Errors
    /// The first failure.
    ///
    /// # Cancel safety
    /// Gives up waiting.
    pub async fn flush(&self) -> Result<()> {
        // Told again and again: nothing behind it is taken.
        self.inner.flush_without_gap().await
    }

    /// Bytes of events that are handed over and not yet stored.
    pub fn bytes_under_way(&self) -> usize {
        self.inner.bytes_under_way()
    }

    /// As [`EventWriter::note_time`], in the name of whichever process writes, and of all that the processes before this one
    /// have written: segments that this one has not written to are asked for their ends.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn note_time(&self, time: i64) -> Result<()> {
        self.inner.note_time(time).await
    }

    /// As [`EventWriter::note_end`], whichever process noted the times.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn note_end(&self) -> Result<bool> {
        self.inner.note_end().await
    }
}

#[cfg(test)]
mod tests {
    use headwater_types::KeyRange;

    use super::*;

    fn kept(segments: &[(f64, f64, EventNumber)]) -> Kept {
        let mut kept = Kept::default();
        for (at, (low, high, number)) in (0..).zip(segments) {
            let range = KeyRange::new(*low, *high).unwrap();
            kept.add(SegmentRange { id: SegmentId::new(at, 0), range }, *number);
        }
        kept
    }

    #[test]
    fn everything_is_there_up_to_the_least_that_any_key_has() {
        assert_eq!(kept(&[]).of_all_keys(), None);
        assert_eq!(kept(&[(0.0, 1.0, 7)]).of_all_keys(), Some(7));
        assert_eq!(kept(&[(0.0, 0.5, 7)]).of_all_keys(), None, "the other half may have had some");
        assert_eq!(kept(&[(0.0, 0.5, 7), (0.5, 1.0, 4)]).of_all_keys(), Some(4));
        let of_two_epochs = [(0.0, 0.5, 7), (0.5, 1.0, 4), (0.0, 0.25, 9), (0.25, 1.0, 6)];
        assert_eq!(kept(&of_two_epochs).of_all_keys(), Some(6));
    }

    #[test]
    fn a_key_on_a_bound_is_looked_for_where_it_was_sent() {
        let kept = kept(&[(0.0, 0.5, 7), (0.5, 1.0, 4)]);
        let find = |hash, number| kept.find(hash, number).map(|id| id.number);
        assert_eq!([find(0.0, 7), find(0.5, 7), find(0.5, 8)], [Some(0), Some(0), None]);
        let upper = super::Kept { segments: vec![kept.segments[1]], highest: 7, forgotten_below: 0 };
        assert_eq!([upper.find(0.0, 4), upper.find(0.5, 4)], [None; 2]);
        assert_eq!([find(0.6, 4), find(0.6, 5), find(0.6, 1)], [Some(1), None, Some(1)]);
    }
}
