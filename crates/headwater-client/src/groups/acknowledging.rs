//! Reading with acknowledgements, one for each event, in any order.
//!
//! ```text
//!   a segment:   ████████░░█░███████·······
//!                        ▲              ▲
//!                     position        read to       █ acknowledged  ░ handed out  · not yet
//! ```
//!
//! To the group, the reader is where its position is: before the first event that is not acknowledged. Whatever happens to it,
//! reading goes on there.
//!
//! Invariants:
//! * the position of a segment passes acknowledged events only
//! * a segment is read to its end for the group when all its events are acknowledged
//! * at most as many events are out as the options allow

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use headwater_records::Position;
use headwater_records::group::Handover;
use headwater_types::StreamSegment;

use super::ReaderGroup;
use super::reader::{EventReader, GroupEvent, ReaderOptions, Ready};
use crate::error::{Error, ErrorKind, Result};

/// How an [`AcknowledgingReader`] reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AcknowledgingOptions {
    /// Most events that are handed out and not acknowledged; at least 1. Default 1000.
    pub unacknowledged_max: usize,
    /// Most bytes of them, but for the last, which may go beyond. Default 32 MiB.
    pub unacknowledged_bytes_max: usize,
    /// An event that is not acknowledged for so long is handed out again. Default 30 s.
    pub redeliver_after: Duration,
    /// As [`ReaderOptions::delay`].
    pub delay: Duration,
    /// As [`ReaderOptions::piece_bytes`].
    pub piece_bytes: usize,
    /// As [`ReaderOptions::dead_after`].
    pub dead_after: Option<Duration>,
}

impl Default for AcknowledgingOptions {
    fn default() -> Self {
        let ReaderOptions { delay, piece_bytes, .. } = ReaderOptions::default();
        Self {
            unacknowledged_max: 1000,
            unacknowledged_bytes_max: 32 << 20,
            redeliver_after: Duration::from_secs(30),
            delay,
            piece_bytes,
            dead_after: None,
        }
    }
}

/// An event to be acknowledged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Received {
    /// The event, by which it is acknowledged.
    pub event: GroupEvent,
    /// How often this reader has handed it out, this time included. 1 does not say that no other reader has had it.
    pub attempt: u32,
}

/// A reader of a group whose events are handled in any order, by any tasks, and each acknowledged when it is.
///
/// Each event is handed out at least once, and again until it is acknowledged: after a time, or by whichever reader
/// goes on after this one has lost its segment or died. Events of one key are handed out in order, apart from those that are
/// repeated. What can never be handled has to be acknowledged, too: everything behind it is handed out again after a crash
/// until then, and the segment does not end.
///
/// Checkpoints of the group contain what is acknowledged. The reader takes part in them without a word.
///
/// It takes part in the group only while it is asked for events: ask at least every few seconds. Dropping it leaves it in the
/// group: [close](Self::close) it, or [declare it offline](ReaderGroup::reader_offline).
///
/// ```no_run
/// # async fn run(group: headwater_client::ReaderGroup) -> headwater_client::Result<()> {
/// let mut reader = group.acknowledging_reader("worker-1", Default::default()).await?;
/// while let Some(received) = reader.next().await? {
///     let acknowledger = reader.acknowledger();
///     tokio::spawn(async move {
///         // Handle the event here; without an acknowledgement it comes again.
///         acknowledger.acknowledge(&received.event);
///     });
/// }
/// reader.close().await
/// # }
/// ```
#[doc = crate::example!("../examples/acknowledging_reader.rs")]
#[derive(Debug)]
pub struct AcknowledgingReader {
    reader: EventReader,
    out: Acknowledger,
    /// What was handed out last was so before.
    has_repeated: bool,
}

/// Acknowledges events of one [`AcknowledgingReader`]. Cheap to clone, for whoever handles them.
#[derive(Clone, Debug)]
pub struct Acknowledger(Arc<Mutex<Out>>);

/// What is handed out and not acknowledged.
#[derive(Debug)]
pub(super) struct Out {
    options: AcknowledgingOptions,
    segments: BTreeMap<Arc<StreamSegment>, Progress>,
    /// When each event is handed out again, and a number that keeps those of one time apart.
    due: BTreeMap<(Duration, u64), (Arc<StreamSegment>, u64)>,
    numbers: u64,
    bytes: usize,
    /// Segments whose position is another than the group's machine knows.
    moved: BTreeSet<Arc<StreamSegment>>,
}

/// How far one segment is.
#[derive(Debug, Default)]
struct Progress {
    /// Behind the last event that was handed out.
    read_to: u64,
    /// Nothing follows there.
    is_ended: bool,
    /// By offset.
    out: BTreeMap<u64, OutEvent>,
}

#[derive(Debug)]
struct OutEvent {
    event: Bytes,
    attempt: u32,
    due: (Duration, u64),
}

/// Where a segment's position is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    At(u64),
    End,
}

impl Out {
    fn new(options: AcknowledgingOptions) -> Self {
        Self { options, segments: BTreeMap::new(), due: BTreeMap::new(), numbers: 0, bytes: 0, moved: BTreeSet::new() }
    }

    /// The segment is read from here on.
    pub(super) fn opened(&mut self, segment: StreamSegment, offset: u64) {
        self.segments.insert(Arc::new(segment), Progress { read_to: offset, ..Progress::default() });
    }

    /// The segment belongs to others now, or is over.
    pub(super) fn closed(&mut self, segment: &StreamSegment) {
        let Some(progress) = self.segments.remove(segment) else { return };
        for out in progress.out.into_values() {
            self.due.remove(&out.due);
            self.bytes -= out.event.len();
        }
        self.moved.remove(segment);
    }

    /// All segments belong to others now.
    pub(super) fn closed_all(&mut self) {
        let segments: Vec<_> = self.segments.keys().cloned().collect();
        segments.iter().for_each(|segment| self.closed(segment));
    }

    /// The same; what has moved until then.
    pub(super) fn close(&mut self) -> Vec<(Arc<StreamSegment>, Place)> {
        let moved = self.take_moved();
        self.closed_all();
        moved
    }

    /// What lies before `to` and was not handed out never will be.
    pub(super) fn skipped(&mut self, segment: &StreamSegment, to: u64) {
        if let Some((segment, progress)) = self.progress(segment) {
            progress.read_to = to;
            self.moved.insert(segment);
        }
    }

    /// Nothing follows in the segment on what was handed out.
    pub(super) fn ended(&mut self, segment: &StreamSegment) {
        if let Some((segment, progress)) = self.progress(segment) {
            progress.is_ended = true;
            self.moved.insert(segment);
        }
    }

    fn progress(&mut self, segment: &StreamSegment) -> Option<(Arc<StreamSegment>, &mut Progress)> {
        let segment = self.segments.get_key_value(segment)?.0.clone();
        let progress = self.segments.get_mut(&segment)?;
        Some((segment, progress))
    }

    /// Where positions have moved to since this was asked last.
    pub(super) fn take_moved(&mut self) -> Vec<(Arc<StreamSegment>, Place)> {
        let moved = std::mem::take(&mut self.moved);
        let place = |segment: Arc<StreamSegment>| {
            let progress = self.segments.get(&segment)?;
            let place = match progress.out.first_key_value() {
                Some((offset, _)) => Place::At(*offset),
                None if progress.is_ended => Place::End,
                None => Place::At(progress.read_to),
            };
            Some((segment, place))
        };
        moved.into_iter().filter_map(place).collect()
    }

    fn is_full(&self) -> bool {
        self.due.len() >= self.options.unacknowledged_max.max(1) || self.bytes > self.options.unacknowledged_bytes_max
    }

    fn due_after(&mut self, segment: Arc<StreamSegment>, offset: u64, at: Duration) -> (Duration, u64) {
        self.numbers += 1;
        let due = (at, self.numbers);
        self.due.insert(due, (segment, offset));
        due
    }

    /// An event is handed out for the first time. What is kept is a copy: a small event would hold the piece that it was read in.
    fn hand_out(&mut self, event: &GroupEvent, end: u64, now: Duration) -> Received {
        let segment = event.segment.clone();
        let copy = Bytes::copy_from_slice(&event.event);
        let due = self.due_after(segment.clone(), event.offset, now.saturating_add(self.options.redeliver_after));
        let progress = self.segments.get_mut(&segment).expect("events come of segments that were opened");
        progress.read_to = end;
        progress.out.insert(event.offset, OutEvent { event: copy.clone(), attempt: 1, due });
        self.bytes += copy.len();
        Received { event: GroupEvent { event: copy, segment, offset: event.offset }, attempt: 1 }
    }

    /// An event that has waited long enough.
    fn again(&mut self, now: Duration) -> Option<Received> {
        let entry = self.due.first_entry().filter(|entry| entry.key().0 <= now)?;
        let (segment, offset) = entry.remove();
        let due = self.due_after(segment.clone(), offset, now.saturating_add(self.options.redeliver_after));
        let progress = self.segments.get_mut(&segment).expect("what is due is out");
        let out = progress.out.get_mut(&offset).expect("what is due is out");
        out.attempt = out.attempt.saturating_add(1);
        out.due = due;
        let (event, attempt) = (out.event.clone(), out.attempt);
        Some(Received { event: GroupEvent { event, segment, offset }, attempt })
    }

    fn acknowledge(&mut self, segment: &StreamSegment, offset: u64) -> bool {
        let Some((segment, progress)) = self.progress(segment) else { return false };
        let is_first = progress.out.first_key_value().is_some_and(|(first, _)| *first == offset);
        let Some(out) = progress.out.remove(&offset) else { return false };
        self.due.remove(&out.due);
        self.bytes -= out.event.len();
        if is_first {
            self.moved.insert(segment);
        }
        true
    }

    fn give_back(&mut self, segment: &StreamSegment, offset: u64) -> bool {
        let Some((segment, progress)) = self.progress(segment) else { return false };
        let Some(before) = progress.out.get(&offset).map(|out| out.due) else { return false };
        self.due.remove(&before);
        let due = self.due_after(segment.clone(), offset, Duration::ZERO);
        let out = self.segments.get_mut(&segment).and_then(|progress| progress.out.get_mut(&offset));
        out.expect("it was there above").due = due;
        true
    }
}

impl Acknowledger {
    pub(super) fn locked(&self) -> MutexGuard<'_, Out> {
        self.0.lock().expect("nobody panics while it holds what is handed out")
    }

    /// The event is handled. `false` if nobody waits for that: it was acknowledged before, or its segment is another reader's
    /// by now, which hands it out again.
    pub fn acknowledge(&self, event: &GroupEvent) -> bool {
        self.locked().acknowledge(&event.segment, event.offset)
    }

    /// The event is not handled: the reader hands it out again when it is asked next. `false` as with
    /// [`acknowledge`](Self::acknowledge).
    pub fn give_back(&self, event: &GroupEvent) -> bool {
        self.locked().give_back(&event.segment, event.offset)
    }

    /// Events that are handed out and not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.locked().due.len()
    }
}

impl ReaderGroup {
    /// Adds a reader whose events are acknowledged one by one.
    ///
    /// # Errors
    /// As [`reader_with`](Self::reader_with).
    ///
    /// # Cancel safety
    /// The reader may be in the group.
    pub async fn acknowledging_reader(&self, id: &str, options: AcknowledgingOptions) -> Result<AcknowledgingReader> {
        let AcknowledgingOptions { delay, piece_bytes, dead_after, .. } = options;
        // What the group's machine is told to be read is acknowledged.
        let reading = ReaderOptions { handover: Handover::AtOnce, delay, piece_bytes, dead_after };
        let mut reader = self.reader_with(id, reading).await?;
        let out = Acknowledger(Arc::new(Mutex::new(Out::new(options))));
        reader.out_events = Some(out.clone());
        Ok(AcknowledgingReader { reader, out, has_repeated: false })
    }
}

impl AcknowledgingReader {
    /// Its id in the group.
    pub fn id(&self) -> &str {
        self.reader.id()
    }

    /// By which events are acknowledged.
    pub fn acknowledger(&self) -> Acknowledger {
        self.out.clone()
    }

    /// Where it is: before the first event of each segment that is not acknowledged.
    pub fn position(&mut self) -> Position {
        self.reader.report();
        self.reader.position()
    }

    /// The next event; waits for one. `None` once the group has read everything there will be, and everything this reader
    /// handed out is acknowledged.
    ///
    /// # Errors
    /// * `Exhausted`: as many events are out as there may be, and none has waited long enough to be handed out again.
    ///   Acknowledge some, or wait for [`room`](Self::room);
    /// * and those of [`EventReader::next`].
    ///
    /// # Cancel safety
    /// Nothing is lost, and what is under way goes on with the next call.
    pub async fn next(&mut self) -> Result<Option<Received>> {
        loop {
            match self.reader.ready().await? {
                Ready::Events => {}
                // What is acknowledged is kept already.
                Ready::Checkpoint(_) => continue,
                Ready::End => return Ok(None),
            }
            let now = self.reader.now();
            {
                let mut out = self.out.locked();
                // Where the same fails again and again it takes turns with what is new.
                if (out.is_full() || !self.has_repeated)
                    && let Some(received) = out.again(now)
                {
                    self.has_repeated = true;
                    self.reader.look_soon();
                    return Ok(Some(received));
                }
                if out.is_full() {
                    self.reader.look_soon();
                    let what = format!("{} events are handed out and not acknowledged", out.due.len());
                    return Err(Error::new(ErrorKind::Exhausted, what));
                }
            }
            if let Some((event, end)) = self.reader.take_unreported()? {
                self.has_repeated = false;
                return Ok(Some(self.out.locked().hand_out(&event, end, now)));
            }
            if std::mem::take(&mut self.has_repeated) {
                self.reader.glance().await?;
            } else {
                self.reader.wait().await?;
            }
        }
    }

    /// Waits until [`next`](Self::next) may hand out something, when it said `Exhausted`.
    ///
    /// # Errors
    /// Those of [`EventReader::next`].
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn room(&mut self) -> Result<()> {
        loop {
            if matches!(self.reader.ready().await?, Ready::End) {
                return Ok(());
            }
            let now = self.reader.now();
            {
                let out = self.out.locked();
                if !out.is_full() || out.due.keys().next().is_some_and(|(due, _)| *due <= now) {
                    return Ok(());
                }
            }
            self.reader.idle().await;
        }
    }

    /// Leaves the group: others go on behind what is acknowledged. `Ok` as well if the group had put it out already.
    ///
    /// # Errors
    /// As [`EventReader::close`].
    ///
    /// # Cancel safety
    /// It may still be in the group.
    pub async fn close(self) -> Result<()> {
        self.reader.close().await
    }
}

#[cfg(test)]
mod tests {
    use headwater_types::{ScopedStream, SegmentId};

    use super::*;

    fn segment() -> StreamSegment {
        StreamSegment { stream: ScopedStream::parse("s/t").unwrap(), id: SegmentId::new(0, 0) }
    }

    fn out(unacknowledged_max: usize) -> Out {
        let redeliver_after = Duration::from_secs(10);
        let mut out =
            Out::new(AcknowledgingOptions { unacknowledged_max, redeliver_after, ..AcknowledgingOptions::default() });
        out.opened(segment(), 0);
        out
    }

    /// Events of two bytes, and so ten with their headers.
    fn hand_out(out: &mut Out, offsets: &[u64], now: u64) {
        for offset in offsets {
            let segment = Arc::new(segment());
            let event = GroupEvent { event: Bytes::from_static(b"ab"), segment, offset: *offset };
            assert_eq!(out.hand_out(&event, offset + 10, Duration::from_secs(now)).attempt, 1);
        }
    }

    fn moved(out: &mut Out) -> Option<Place> {
        out.take_moved().pop().map(|(_, place)| place)
    }

    #[test]
    fn the_position_moves_over_acknowledged_events_only() {
        let mut out = out(10);
        hand_out(&mut out, &[0, 10, 20], 0);
        assert_eq!(moved(&mut out), None);
        assert!(out.acknowledge(&segment(), 10));
        assert!(!out.acknowledge(&segment(), 10), "once is enough");
        assert_eq!(moved(&mut out), None);
        assert!(out.acknowledge(&segment(), 0));
        assert_eq!(moved(&mut out), Some(Place::At(20)));
        out.ended(&segment());
        assert_eq!(moved(&mut out), Some(Place::At(20)), "one is missing");
        assert!(out.acknowledge(&segment(), 20));
        assert_eq!((moved(&mut out), out.bytes, out.due.len()), (Some(Place::End), 0, 0));
    }

    #[test]
    fn what_is_not_acknowledged_in_time_comes_again_and_again() {
        let mut out = out(10);
        hand_out(&mut out, &[0], 0);
        hand_out(&mut out, &[10], 5);
        let mut again = |now| out.again(Duration::from_secs(now)).map(|it| (it.event.offset, it.attempt));
        assert_eq!([again(9), again(10), again(14)], [None, Some((0, 2)), None]);
        assert_eq!([again(20), again(20), again(20)], [Some((10, 2)), Some((0, 3)), None]);
        assert!(out.give_back(&segment(), 10));
        assert!(!out.give_back(&segment(), 90));
        let first = out.again(Duration::from_secs(21)).unwrap();
        assert_eq!((first.event.offset, first.attempt), (10, 3));
        assert!(out.acknowledge(&segment(), 10));
        assert_eq!(out.again(Duration::from_secs(29)), None);
    }

    #[test]
    fn only_so_much_is_out() {
        let mut out = out(2);
        hand_out(&mut out, &[0], 0);
        assert!(!out.is_full());
        hand_out(&mut out, &[10], 0);
        assert!(out.is_full());
        assert!(out.acknowledge(&segment(), 10));
        assert!(!out.is_full());
        out.options.unacknowledged_bytes_max = 1;
        assert!(out.is_full());
    }

    #[test]
    fn what_belongs_to_others_is_forgotten() {
        let mut out = out(10);
        hand_out(&mut out, &[0, 10], 0);
        out.closed(&segment());
        assert!(!out.acknowledge(&segment(), 0));
        assert_eq!((out.again(Duration::from_secs(99)), out.bytes, out.due.len()), (None, 0, 0));
        out.opened(segment(), 0);
        hand_out(&mut out, &[0], 0);
        assert!(out.acknowledge(&segment(), 0), "whoever has handled it has handled it");
        out.skipped(&segment(), 70);
        assert_eq!(moved(&mut out), Some(Place::At(70)));
    }
}
