//! One reader of a group.
//!
//! ```text
//!   next ─► what the machine wants: look at the group, take, give, report …  one call at a time, kept while it is under way
//!       └─► an event that is here ─► or the first bytes of any segment, or time to look again
//! ```
//!
//! Invariants:
//! * before the machine ([`Member`]) decides anything it knows of every event that was handed out, and of none that was not
//! * from when it stops for a checkpoint until it says to read on, nothing is handed out
//! * what is appended for it is settled before anything else is done: a dropped future takes nothing with it, and after a
//!   failure whose outcome is unknown the same entry is offered again, at the same place

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use headwater_records::group::{Effect, Handover, Intent, Member, Offline, State, Step, Successor, Update, decide};
use headwater_records::{EventPointer, Position, Ranges, StreamCut};
use headwater_types::{KeyRange, ScopedStream, SegmentId, StreamSegment};
use tokio::time::Instant;

use super::acknowledging::{Acknowledger, Place};
use super::batch::Batch;
use super::beating::GroupWatch;
use super::calls::GroupName;
use super::group::adopt;
use super::reading::{Reading, Taken, Turn};
use super::replica::{First, Replica, entry};
use super::windows::Marks;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::segments::signed;
use crate::told;

/// While events come, the machine is asked as often as this; between two events it rarely wants anything.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// The same while nothing comes.
const IDLE_LOOK_EVERY: Duration = Duration::from_millis(20);
/// Most events between two looks at the clock, while many come in [`LOOK_EVERY`].
const LOOK_EVENTS_MAX: u32 = 16;
/// Pieces smaller than this are not worth a request.
const PIECE_BYTES_MIN: usize = 1 << 10;

/// How a reader reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReaderOptions {
    /// When it may give away what it has read. Between checkpoints, a reader of the default kind neither goes on from a
    /// segment to its successors nor shares anew, as Java's.
    pub handover: Handover,
    /// It waits for this long, and by chance up to as long again, before it takes anything, so that others that start at the
    /// same time get their part.
    pub delay: Duration,
    /// Most bytes asked for at a time, for each segment; at least 1 KiB. Up to twice as many are kept in memory.
    pub piece_bytes: usize,
    /// It beats while it lives, whether it is asked for events or not; others that beat declare it offline once it has not for
    /// so long, and it does the same with them. At least 1 s; 10 s to 30 s are usual. `None`, the default: it neither beats nor
    /// watches, as Java's readers.
    pub dead_after: Option<Duration>,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self { handover: Handover::AtCheckpoint, delay: Duration::ZERO, piece_bytes: 512 << 10, dead_after: None }
    }
}

impl ReaderOptions {
    /// For applications that have handled an event when they ask for the next: what was read is given away at once, without
    /// checkpoints.
    pub fn at_once() -> Self {
        Self { handover: Handover::AtOnce, ..Self::default() }
    }
}

/// What a reader gets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Delivery {
    /// An event.
    Event(GroupEvent),
    /// A checkpoint of this name: everything before it is part of it. Keep what has to be kept before asking for more.
    Checkpoint(String),
}

/// An event and where it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupEvent {
    /// What was written.
    pub event: Bytes,
    /// Segment it is in.
    pub segment: Arc<StreamSegment>,
    /// Offset of its header there.
    pub offset: u64,
}

impl GroupEvent {
    /// By which it can be [fetched](Client::fetch_event) again.
    ///
    /// # Errors
    /// `Invalid`: it is too long for a pointer, which holds up to 1 GiB.
    pub fn pointer(&self) -> Result<EventPointer> {
        let long = |_| Error::new(ErrorKind::Invalid, "event is too long for a pointer");
        let length = i32::try_from(self.event.len() + crate::writer::HEADER_BYTES).map_err(long)?;
        Ok(EventPointer { segment: (*self.segment).clone(), offset: signed(self.offset)?, length })
    }
}

/// One reader of a group. It takes part in the group only while it is asked for events: ask at least every few seconds.
///
/// Dropping it leaves it in the group, with what it has: [close](Self::close) it, or [declare it
/// offline](super::ReaderGroup::reader_offline). If it [beats](ReaderOptions::dead_after), others will do so.
pub struct EventReader {
    client: Client,
    group: GroupName,
    member: Member,
    reading: Reading,
    piece_bytes: usize,
    /// Keys of what it has or had.
    ranges: Ranges,
    /// With whoever is at work on it, otherwise here.
    replica: Option<Replica>,
    work: Option<BoxFuture<'static, (Replica, Result<Done>)>>,
    pending: Option<Pending>,
    /// To be told.
    truncated: VecDeque<Error>,
    origin: Instant,
    /// The group has put it out.
    out: Option<Error>,
    /// Marks of the streams that times were asked of.
    pub(super) marks: BTreeMap<ScopedStream, Marks>,
    /// If it beats.
    pub(super) watch: Option<GroupWatch>,
    /// Events are acknowledged one by one; the machine is told of those instead of what was handed out.
    pub(super) out_events: Option<Acknowledger>,
    /// Events up to there were handed out, and the machine does not know yet.
    unreported: Option<(Arc<StreamSegment>, i64)>,
    /// Events handed out since the clock was looked at, and how many may be until it is again.
    events: u32,
    events_max: u32,
    /// When it was, from `origin`.
    looked_at: Duration,
    /// When the machine is asked next, from `origin`.
    look_at: Duration,
    /// When everything that was stored had last arrived.
    at_tail: Duration,
}

/// Something that has to be appended.
struct Pending {
    intent: Intent,
    /// What it came to be in the state that is known, as changes and as an entry.
    offered: Option<(Vec<Update>, Bytes)>,
    /// Nobody knows whether it is stored.
    is_doubtful: bool,
}

/// What may be handed out.
pub(super) enum Ready {
    /// Events, if there are any.
    Events,
    Checkpoint(String),
    End,
}

/// What some work came to.
enum Done {
    /// Others' changes are applied.
    Refreshed,
    /// What is pending is stored.
    Stored,
    /// Something else was stored first; that is applied.
    Overtaken,
    /// What follows on a segment, and the keys of others that this takes.
    Successors(StreamSegment, Vec<Successor>, BTreeMap<SegmentId, KeyRange>),
    /// Nobody will ever know whether what is pending was stored.
    Lost,
    /// Nothing to be done about it.
    Other,
}

impl fmt::Debug for EventReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventReader").field("group", &self.group).field("id", &self.id()).finish_non_exhaustive()
    }
}

impl EventReader {
    pub(super) async fn join(client: Client, group: GroupName, id: &str, options: ReaderOptions) -> Result<Self> {
        let origin = Instant::now();
        let chance = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
        let member = Member::new(id, options.handover, Duration::ZERO, options.delay, chance);
        let mut replica = Replica::open(&client, &group).await?;
        let join = |state: &State| {
            let online = |error| {
                let what = format!("reader {id} of group {group} exists");
                Error::caused(ErrorKind::AlreadyExists, what, error)
            };
            Ok(vec![member.join(state).map_err(online)?])
        };
        replica.join(join, id).await?;
        tracing::info!(target: told::GROUP, %group, reader = id, "reader joined its group");
        Ok(Self {
            client,
            group,
            member,
            reading: Reading::default(),
            piece_bytes: options.piece_bytes.max(PIECE_BYTES_MIN),
            ranges: Ranges::new(),
            replica: Some(replica),
            work: None,
            pending: None,
            truncated: VecDeque::new(),
            origin,
            out: None,
            marks: BTreeMap::new(),
            watch: None,
            out_events: None,
            unreported: None,
            events: 0,
            events_max: 1,
            looked_at: Duration::ZERO,
            look_at: Duration::ZERO,
            at_tail: Duration::ZERO,
        })
    }

    /// Its id in the group.
    pub fn id(&self) -> &str {
        self.member.id()
    }

    /// Where it is: behind the last event that it delivered. Keep it with what was made of the events, so that the reader can
    /// be [declared offline](super::ReaderGroup::reader_offline) there.
    pub fn position(&self) -> Position {
        let mut offsets = self.member.offsets();
        if let Some((segment, end)) = &self.unreported
            && let Some(offset) = offsets.get_mut(&**segment)
        {
            *offset = *end;
        }
        let range = |segment: &StreamSegment| self.ranges.get(segment).copied().flatten();
        let ranges = offsets.keys().map(|segment| (segment.clone(), range(segment))).collect();
        Position { offsets, ranges }
    }

    /// The next event or checkpoint; waits for one. `None` once the group has read everything there will be.
    ///
    /// # Errors
    /// * `Truncated`: what came next was truncated away, and the reader is behind the gap. Told once for each gap;
    /// * `Closed`: the group has put the reader out: it was declared offline, or the group was reset. It stays so;
    /// * `NotFound`: the group or a stream was deleted;
    /// * `Protocol`: a stream does not hold events, or the group something else than its readers wrote;
    /// * `Unavailable`, `Denied`: the next call tries again.
    ///
    /// # Cancel safety
    /// Nothing is lost, and what is under way goes on with the next call.
    pub async fn next(&mut self) -> Result<Option<Delivery>> {
        loop {
            match self.ready().await? {
                Ready::Events => {}
                Ready::Checkpoint(name) => return Ok(Some(Delivery::Checkpoint(name))),
                Ready::End => return Ok(None),
            }
            if let Some(found) = self.reading.take()? {
                self.handed_out(&found.segment, found.end, found.is_bounded)?;
                let event = GroupEvent { event: found.event, segment: found.segment, offset: found.offset };
                return Ok(Some(Delivery::Event(event)));
            }
            self.wait().await?;
        }
    }

    /// As [`next`](Self::next), but all events of a segment that are here already, up to `events_max` (at least one): for small
    /// events that come fast. The reader's [position](Self::position) is behind the last of them.
    ///
    /// # Errors
    /// As `next`.
    ///
    /// # Cancel safety
    /// As `next`.
    pub async fn next_batch(&mut self, events_max: usize) -> Result<Option<Batch>> {
        loop {
            match self.ready().await? {
                Ready::Events => {}
                Ready::Checkpoint(name) => return Ok(Some(Batch::Checkpoint(name))),
                Ready::End => return Ok(None),
            }
            if let Some(Taken { batch, is_bounded }) = self.reading.take_batch(events_max)? {
                self.handed_out(&batch.segment, batch.end(), is_bounded)?;
                // Handling these takes long enough for a look at the clock.
                self.events = self.events_max;
                return Ok(Some(Batch::Events(batch)));
            }
            self.wait().await?;
        }
    }

    /// Leaves the group: others go on behind the last event that was delivered. `Ok` as well if the group had put it out
    /// already.
    ///
    /// # Errors
    /// `NotFound`: the group was deleted. `Unavailable`: it **may still be in the group**. `Denied`.
    ///
    /// # Cancel safety
    /// It may still be in the group.
    pub async fn close(mut self) -> Result<()> {
        if self.out.is_some() {
            return Ok(());
        }
        // What that came to is in the group's state.
        if let Some(work) = &mut self.work {
            let (replica, _) = work.await;
            (self.work, self.replica) = (None, Some(replica));
        }
        self.report();
        if let Some(out) = self.out_events.take() {
            // At once: what is acknowledged from here on others hand out.
            let moved = out.locked().close();
            for (segment, place) in moved {
                self.moved(&segment, place);
            }
        }
        let replica = self.replica.as_mut().expect(IDLE);
        let has_left = replica.leave(&self.member).await?;
        if has_left {
            tracing::info!(target: told::GROUP, group = %self.group, reader = self.member.id(), "reader left its group");
        }
        let beats = self.watch.take().is_some();
        if has_left && beats { super::beating::forget(&replica.stream, self.member.id()).await } else { Ok(()) }
    }

    /// Does what has to be done before events may be handed out.
    pub(super) async fn ready(&mut self) -> Result<Ready> {
        if let Some(error) = &self.out {
            return Err(error.clone());
        }
        loop {
            self.work().await?;
            if self.is_time_to_look() {
                self.report();
                let now = self.looked_at;
                // Nothing is handed out before it says so: what is behind a checkpoint would be counted into it.
                self.look_at = Duration::ZERO;
                let replica = self.replica.as_mut().expect(IDLE);
                match self.member.next(&replica.state, now) {
                    Ok(Step::Read) => self.look_at = now + LOOK_EVERY,
                    Ok(Step::Checkpoint(name)) => return Ok(Ready::Checkpoint(name)),
                    Ok(Step::End) => return Ok(Ready::End),
                    Ok(step) => {
                        self.begin(step);
                        continue;
                    }
                    Err(offline) => return Err(self.closed(offline)),
                }
            }
            return match self.truncated.pop_front() {
                Some(error) => Err(error),
                None => Ok(Ready::Events),
            };
        }
    }

    /// Waits until there may be events, or it is time to look at the group.
    pub(super) async fn wait(&mut self) -> Result<()> {
        self.look_soon();
        match self.turn().await? {
            None => self.look_at = Duration::ZERO,
            Some(turn) => self.turned(turn)?,
        }
        Ok(())
    }

    /// The same, without waiting.
    pub(super) async fn glance(&mut self) -> Result<()> {
        self.look_soon();
        // Whoever asks all the time is not to keep from work those that bring the bytes.
        tokio::task::yield_now().await;
        let reading = &mut self.reading;
        match poll_fn(|cx| Poll::Ready(reading.poll_turn(cx))).await {
            Poll::Ready(turn) => self.turned(turn?),
            Poll::Pending => Ok(()),
        }
    }

    /// There is time for the clock.
    pub(super) fn look_soon(&mut self) {
        self.events = self.events_max;
    }

    fn turned(&mut self, turn: Turn) -> Result<()> {
        match turn {
            Turn::Fed => {
                if self.reading.is_at_tail() {
                    self.at_tail = self.origin.elapsed();
                }
            }
            Turn::End(segment) => self.read_to_end(&segment),
            Turn::Truncated { segment, from, to } => {
                let what = format!("segment {segment} was truncated from {from} to {to}");
                self.truncated.push_back(Error::new(ErrorKind::Truncated, what));
                self.read_to(&segment, to)?;
            }
            // What follows on it may be there.
            Turn::Gone { segment, from } => {
                let what = format!("segment {segment} was truncated away from {from}");
                self.truncated.push_back(Error::new(ErrorKind::Truncated, what));
                self.read_to_end(&segment);
            }
        }
        Ok(())
    }

    /// The reader has nothing any more and does nothing any more.
    fn closed(&mut self, offline: Offline) -> Error {
        let what = format!("group {} has put reader {} out: declared offline, or reset", self.group, self.id());
        let error = Error::caused(ErrorKind::Closed, what, offline);
        self.out = Some(error.clone());
        self.watch = None;
        if let Some(out) = &self.out_events {
            out.locked().closed_all();
        }
        error
    }

    /// Whether the machine is to be asked. Looking at the clock for every event would cost a tenth of the events.
    fn is_time_to_look(&mut self) -> bool {
        if self.events < self.events_max && self.look_at > Duration::ZERO {
            return false;
        }
        let now = self.origin.elapsed();
        let is_quick = self.events == self.events_max && now - self.looked_at < LOOK_EVERY / 16;
        self.events_max = if is_quick { (self.events_max * 2).min(LOOK_EVENTS_MAX) } else { 1 };
        (self.events, self.looked_at) = (0, now);
        now >= self.look_at
    }

    /// Notes an event. The machine is told when the segment changes or when it decides something.
    fn handed_out(&mut self, segment: &Arc<StreamSegment>, end: u64, is_bounded: bool) -> Result<()> {
        self.events += 1;
        let end = signed(end)?;
        match &mut self.unreported {
            Some((last, offset)) if Arc::ptr_eq(last, segment) => *offset = end,
            _ => {
                self.report();
                self.unreported = Some((segment.clone(), end));
            }
        }
        if is_bounded {
            self.report();
        }
        Ok(())
    }

    pub(super) fn report(&mut self) {
        if let Some(out) = &self.out_events {
            let moved = out.locked().take_moved();
            for (segment, place) in moved {
                self.moved(&segment, place);
            }
        }
        if let Some((segment, end)) = self.unreported.take()
            && self.member.read_to(&segment, end)
        {
            self.reading.close(&segment);
            self.look_at = Duration::ZERO;
        }
    }

    /// Events of a segment are acknowledged up to there.
    fn moved(&mut self, segment: &StreamSegment, place: Place) {
        let ends = match place {
            // No segment is as long as a signed number goes.
            Place::At(offset) => self.member.read_to(segment, offset.cast_signed()),
            Place::End => {
                self.member.read_to_end(segment);
                true
            }
        };
        if ends {
            self.reading.close(segment);
            self.look_at = Duration::ZERO;
        }
    }

    /// The next event that is here, and where it ends. The machine hears of it when it is acknowledged.
    pub(super) fn take_unreported(&mut self) -> Result<Option<(GroupEvent, u64)>> {
        let Some(found) = self.reading.take()? else { return Ok(None) };
        self.events += 1;
        if found.is_bounded && self.member.ends_at(&found.segment, signed(found.end)?) {
            // Nothing behind it is the group's.
            self.reading.close(&found.segment);
        }
        let event = GroupEvent { event: found.event, segment: found.segment, offset: found.offset };
        Ok(Some((event, found.end)))
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// What the group has agreed on, as far as this reader knows.
    pub(super) async fn state(&mut self) -> Result<&State> {
        if let Some(error) = &self.out {
            return Err(error.clone());
        }
        self.work().await?;
        Ok(&self.replica.as_ref().expect(IDLE).state)
    }

    /// Time since the reader began.
    pub(super) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Lets a moment pass in which nothing is read.
    pub(super) async fn idle(&mut self) {
        tokio::time::sleep(IDLE_LOOK_EVERY).await;
        (self.events, self.look_at) = (self.events_max, Duration::ZERO);
    }

    fn read_to(&mut self, segment: &StreamSegment, offset: u64) -> Result<()> {
        if let Some(out) = &self.out_events {
            out.locked().skipped(segment, offset);
            return Ok(());
        }
        self.report();
        if self.member.read_to(segment, signed(offset)?) {
            self.reading.close(segment);
            self.look_at = Duration::ZERO;
        }
        Ok(())
    }

    fn read_to_end(&mut self, segment: &StreamSegment) {
        if let Some(out) = &self.out_events {
            out.locked().ended(segment);
        } else {
            self.report();
            self.member.read_to_end(segment);
        }
        self.reading.close(segment);
        self.look_at = Duration::ZERO;
    }

    /// What comes first of any segment; `None` if it is time to look at the group.
    async fn turn(&mut self) -> Result<Option<Turn>> {
        let mut time = std::pin::pin!(tokio::time::sleep(IDLE_LOOK_EVERY));
        let reading = &mut self.reading;
        poll_fn(|cx| {
            if let Poll::Ready(turn) = reading.poll_turn(cx) {
                return Poll::Ready(turn.map(Some));
            }
            time.as_mut().poll(cx).map(|()| Ok(None))
        })
        .await
    }

    /// Does what is under way, until there is nothing more to be done for it.
    async fn work(&mut self) -> Result<()> {
        loop {
            if let Some(work) = &mut self.work {
                let (replica, outcome) = work.await;
                let is_out = replica.is_out();
                (self.work, self.replica) = (None, Some(replica));
                if is_out {
                    return Err(self.closed(Offline { reader: self.id().to_owned() }));
                }
                self.done(outcome)?;
            } else if self.pending.is_some() {
                self.offer()?;
            } else {
                return Ok(());
            }
        }
    }

    fn begin(&mut self, step: Step) {
        let intent = match step {
            Step::Append(intent) => intent,
            Step::CreateCheckpoint => Intent::CreateCheckpoint(uuid::Uuid::new_v4().to_string()),
            Step::Refresh => {
                return self.start(|mut replica| async move {
                    let outcome = async {
                        replica.fetch().await?;
                        replica.compact().await
                    };
                    let outcome = outcome.await.map(|()| Done::Refreshed);
                    (replica, outcome)
                });
            }
            Step::Successors(segment) => {
                let client = self.client.clone();
                return self.start(|replica| async move {
                    let outcome = successors(&client, &replica.state, segment).await;
                    (replica, outcome)
                });
            }
            Step::Publish => {
                let (client, group) = (self.client.clone(), self.group.clone());
                return self.start(|replica| async move {
                    let outcome = publish(&client, &group, &replica).await.map(|()| Done::Other);
                    (replica, outcome)
                });
            }
            Step::Reconfigure => {
                let (client, group) = (self.client.clone(), self.group.clone());
                return self.start(|mut replica| async move {
                    let outcome = adopt(&client, &group, &mut replica).await.map(|()| Done::Refreshed);
                    (replica, outcome)
                });
            }
            Step::Checkpoint(_) | Step::Read | Step::End => unreachable!("these are no work"),
        };
        self.pending = Some(Pending { intent, offered: None, is_doubtful: false });
    }

    fn start<F>(&mut self, work: impl FnOnce(Replica) -> F)
    where
        F: Future<Output = (Replica, Result<Done>)> + Send + 'static,
    {
        let replica = self.replica.take().expect(IDLE);
        self.work = Some(Box::pin(work(replica)));
    }

    /// Appends what is pending. What may be stored is offered once more as it was.
    fn offer(&mut self) -> Result<()> {
        let pending = self.pending.as_mut().expect("there is something pending");
        let now = self.origin.elapsed();
        if pending.offered.is_none() {
            let replica = self.replica.as_ref().expect(IDLE);
            let distance = if self.reading.is_at_tail() { Duration::ZERO } else { now - self.at_tail };
            let distance_ms = i64::try_from(distance.as_millis()).unwrap_or(i64::MAX);
            let updates = self.member.updates(&pending.intent, &replica.state, distance_ms);
            let updates = match updates {
                Ok(updates) => updates,
                Err(offline) => {
                    self.pending = None;
                    return Err(self.closed(offline));
                }
            };
            if updates.is_empty() {
                let intent = self.pending.take().expect("it was there").intent;
                return self.settle(&intent, &[], now);
            }
            let entry = entry(&updates)?;
            pending.offered = Some((updates, entry));
        }
        let (_, entry) = pending.offered.as_ref().expect("it was just made");
        let (entry, is_doubtful) = (entry.clone(), pending.is_doubtful);
        let is_report = pending.intent == Intent::Report;
        pending.is_doubtful = true;
        self.start(move |mut replica| async move {
            let outcome = offered(&mut replica, &entry, is_doubtful, is_report).await;
            (replica, outcome)
        });
        Ok(())
    }

    fn done(&mut self, outcome: Result<Done>) -> Result<()> {
        let now = self.origin.elapsed();
        match outcome? {
            Done::Refreshed => {
                let state = &self.replica.as_ref().expect(IDLE).state;
                let refreshed = self.member.refreshed(state, now);
                refreshed.map_err(|offline| self.closed(offline))
            }
            Done::Stored => {
                let Some(Pending { intent, offered: Some((updates, _)), .. }) = self.pending.take() else {
                    unreachable!("what is stored was offered");
                };
                self.settle(&intent, &updates, now)
            }
            Done::Overtaken => {
                let pending = self.pending.as_mut().expect("what was overtaken is pending");
                (pending.offered, pending.is_doubtful) = (None, false);
                Ok(())
            }
            Done::Successors(segment, successors, ranges) => {
                let (group, reader) = (&self.group, self.member.id());
                tracing::info!(
                    target: told::GROUP, %group, reader, %segment, successors = successors.len(),
                    "reader passes a segment on to its successors"
                );
                let intent = Intent::Complete { segment, successors, ranges };
                self.pending = Some(Pending { intent, offered: None, is_doubtful: false });
                Ok(())
            }
            Done::Lost => {
                self.pending = None;
                Err(self.closed(Offline { reader: self.id().to_owned() }))
            }
            Done::Other => Ok(()),
        }
    }

    fn settle(&mut self, intent: &Intent, updates: &[Update], now: Duration) -> Result<()> {
        let state = &self.replica.as_ref().expect(IDLE).state;
        let settled = self.member.settled(intent, updates, state, now);
        self.ranges = self.member.position(state).ranges;
        let effects = settled.map_err(|offline| self.closed(offline))?;
        if let (Intent::Complete { segment, .. }, [_, ..], Some(out)) = (intent, updates, &self.out_events) {
            out.locked().closed(segment);
        }
        for effect in effects {
            match effect {
                Effect::Open { segment, offset, end } => {
                    let offset = u64::try_from(offset).expect("segments are opened at an offset of 0 or more");
                    if let Some(out) = &self.out_events {
                        out.locked().opened(segment.clone(), offset);
                    }
                    let (group, reader) = (&self.group, self.member.id());
                    tracing::info!(target: told::GROUP, %group, reader, %segment, offset, "reader takes a segment");
                    self.reading.open(&self.client, segment, offset, end.is_some(), self.piece_bytes);
                    self.at_tail = now;
                }
                Effect::Close(segment) => {
                    let (group, reader) = (&self.group, self.member.id());
                    tracing::info!(target: told::GROUP, %group, reader, %segment, "reader gives a segment away");
                    self.reading.close(&segment);
                    if let Some(out) = &self.out_events {
                        out.locked().closed(&segment);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Where the replica is while nothing is under way.
const IDLE: &str = "nobody is at work on the state";

/// Offers an entry, which may be stored already if that is doubtful.
async fn offered(replica: &mut Replica, entry: &Bytes, is_doubtful: bool, is_report: bool) -> Result<Done> {
    if is_report {
        // It says how things are: twice does no harm.
        replica.append_anywhere(entry).await?;
        return Ok(Done::Stored);
    }
    if replica.append(entry).await? {
        return Ok(Done::Stored);
    }
    // Only this reader writes such an entry.
    Ok(match replica.fetch_and_find(is_doubtful.then_some(entry)).await? {
        First::Wanted => Done::Stored,
        First::Gone if is_doubtful => Done::Lost,
        First::Another | First::Gone => Done::Overtaken,
    })
}

async fn successors(client: &Client, state: &State, segment: StreamSegment) -> Result<Done> {
    let found = client.successors(&segment.stream, segment.id).await?;
    let successor = |one: crate::model::Successor| Successor {
        segment: StreamSegment { stream: segment.stream.clone(), id: one.segment.id },
        range: one.segment.range,
        predecessors: one.predecessors.into_iter().map(|id| id.as_i64()).collect(),
    };
    let successors: Vec<_> = found.into_iter().map(successor).collect();
    let unplaced = decide::unplaced(state, &segment, &successors);
    let ranges = client.ranges_of(&segment.stream, &unplaced).await?;
    Ok(Done::Successors(segment, successors, ranges))
}

/// Lets go of what lies before the last checkpoint.
async fn publish(client: &Client, group: &GroupName, replica: &Replica) -> Result<()> {
    let Some(offsets) = replica.state.last_checkpoint() else { return Ok(()) };
    for cut in StreamCut::all(offsets) {
        let released = client.release_before(group, replica.state.configuration(), &cut).await;
        match released {
            Ok(()) => {}
            // One that lies before the last one, or a stream that is gone: the next checkpoint may do better.
            Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Conflict) => {
                tracing::warn!(target: told::GROUP, group = %group, %error, "what was read is not released");
            }
            Err(error) => return Err(error),
        }
    }
    replica.append_anywhere(&entry(&[Update::Published(true)])?).await
}
