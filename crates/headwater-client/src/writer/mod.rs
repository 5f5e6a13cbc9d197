//! Writing events.
//!
//! ```text
//!   write ─► core: route by key ─► flow: batch, number ─► connection ─► segment store
//!    │                                  ▲                     │
//!    Ack ◄──────── ticket ◄─────────────┴──── acknowledged ◄──┘
//! ```
//!
//! `core` and `flow` decide; this module carries out what they ask for: it registers the writer on connections, asks for
//! successors of sealed segments, uploads large events.

mod core;
mod flow;
mod large;
mod numbered;
#[cfg(test)]
mod simulated;
mod ticket;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use headwater_proto::controller as proto;
use headwater_proto::controller::stream_info::AccessOperation;
use headwater_types::{EventNumber, ScopedStream, SegmentId, TransactionId, WriterId, hash};
use headwater_wire::{OutgoingAppend, Reply, TokenFailure};
use tokio::sync::Notify;

use self::core::{Core, Effect, Limits};
pub(crate) use self::flow::HEADER_BYTES;
use self::flow::Send;
use self::numbered::Kept;
pub use self::numbered::NumberedWriter;
pub use self::ticket::{Ack, Written};
use crate::client::Client;
use crate::connection::{AppendSink, Connection};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{SegmentRange, Successor, stream_info};
use crate::retry::Backoff;
use crate::segments::{ASKED_AT_ONCE, Target, unexpected};
use crate::streams::call;
use crate::told;

/// Largest event, in bytes: its length is a signed number of 32 bits where it is stored. Above 8 MiB an event is uploaded
/// as a segment of its own and then merged.
pub const EVENT_BYTES_MAX: usize = (1 << 31) - 1 - flow::HEADER_BYTES;

/// How an [`EventWriter`] works.
#[derive(Clone, Debug)]
pub struct EventWriterOptions {
    batch_bytes: usize,
    window_bytes: usize,
    linger: Duration,
    /// See [`Limits::header_bytes`].
    header_bytes: usize,
}

impl Default for EventWriterOptions {
    fn default() -> Self {
        Self { batch_bytes: 512 << 10, window_bytes: 32 << 20, linger: Duration::ZERO, header_bytes: HEADER_BYTES }
    }
}

impl EventWriterOptions {
    /// Most bytes of events that are appended together, per segment. From 1 KiB to 8 MiB; default 512 KiB. An event that is
    /// larger goes alone.
    #[must_use]
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes.clamp(1 << 10, 8 << 20);
        self
    }

    /// Most bytes of events that are written and not yet stored; writing waits while there are as many. At least 64 KiB;
    /// default 32 MiB. An event that is larger goes when nothing else is under way.
    #[must_use]
    pub fn window_bytes(mut self, bytes: usize) -> Self {
        self.window_bytes = bytes.max(64 << 10);
        self
    }

    /// How long a batch waits for more events before it is sent. The default, zero, sends a batch as soon as less than two
    /// of its segment are under way, which makes batches large by itself when there is much to write.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }
}

/// Writes events to a stream, each exactly once, in order per routing key: through lost connections, restarts of servers and
/// changes of the stream's segments.
///
/// Cheap to clone; clones share everything. When the last one is dropped, what is under way is given up: [`flush`](Self::flush)
/// first.
#[doc = crate::example!("../examples/event_writer.rs")]
pub struct EventWriter {
    shared: Arc<Shared>,
    /// Failures that this clone's flushes have told of.
    seen: AtomicU64,
}

impl Clone for EventWriter {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), seen: AtomicU64::new(self.seen.load(Ordering::Relaxed)) }
    }
}

impl std::fmt::Debug for EventWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventWriter").field("stream", &self.shared.stream).finish_non_exhaustive()
    }
}

/// What writers of events and of transactions have in common.
pub(crate) struct Shared {
    client: Client,
    stream: ScopedStream,
    /// Its segments are written to, instead of the stream's own.
    transaction: Option<TransactionId>,
    writer: WriterId,
    is_numbered: bool,
    linger: Duration,
    state: Mutex<State>,
    room: Notify,
    /// Those that wait for room, in the order in which they came.
    line: tokio::sync::Mutex<()>,
    waiting: AtomicUsize,
    this: Weak<Shared>,
}

struct State {
    core: Core,
    /// One per server.
    connections: BTreeMap<Endpoint, Connection>,
    /// Where the writer is registered, and under which request id.
    registered: BTreeMap<SegmentId, (Connection, i64)>,
    /// Segments where something failed and nothing was stored since.
    troubled: BTreeMap<SegmentId, Trouble>,
}

struct Trouble {
    backoff: Backoff,
    error: Error,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get_mut().expect("nobody panics while it holds the writer's state");
        state.core.end(&Error::new(ErrorKind::Closed, "writer was dropped"));
        for (connection, id) in state.registered.values() {
            connection.forget(*id);
        }
    }
}

impl Client {
    /// A writer of events to a stream.
    ///
    /// # Errors
    /// `NotFound`; `Sealed`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn event_writer(&self, stream: &ScopedStream, options: EventWriterOptions) -> Result<EventWriter> {
        let segments = self.current_segments(stream).await?;
        if segments.is_empty() {
            return Err(Error::new(ErrorKind::Sealed, format!("stream {stream} is sealed")));
        }
        let shared = Shared::open(self, stream, None, &segments, &options);
        Ok(EventWriter { shared, seen: AtomicU64::new(0) })
    }
}

impl EventWriter {
    /// Writes bytes to a segment, not events: nothing may be missing among them.
    pub(crate) fn of_bytes(
        client: &Client,
        stream: &ScopedStream,
        segment: SegmentRange,
        options: EventWriterOptions,
    ) -> Self {
        let options = EventWriterOptions { header_bytes: 0, ..options };
        Self { shared: Shared::open(client, stream, None, &[segment], &options), seen: AtomicU64::new(0) }
    }

    /// The stream.
    pub fn stream(&self) -> &ScopedStream {
        &self.shared.stream
    }

    /// Hands over an event and returns as soon as there is room for it; the [`Ack`] resolves once it is stored. Events with
    /// one routing key are stored, and later read, in the order in which they were handed over.
    ///
    /// * `event`: 1 to [`EVENT_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// * `Invalid`: the event is empty or too large; readers of Pravega's Rust client stall on empty ones.
    /// * `Sealed`: the stream takes no more.
    ///
    /// The `Ack` fails with
    /// * `Unavailable`: the server did not answer within the time for retries. The event **may be stored**;
    /// * `Sealed`: the event is not stored;
    /// * `NotFound`, `Denied`: the stream was deleted, the permission withdrawn.
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready writes nothing. Dropping the `Ack` changes nothing for the event.
    ///
    /// # Source
    /// Matches `EventStreamWriter.writeEvent` of Pravega's Java client, events and keys included.
    pub async fn write(&self, routing_key: &str, event: impl Into<Bytes>) -> Result<Ack> {
        self.push(hash::routing_key(routing_key), &[event.into()]).await
    }

    /// As [`write`](Self::write), without a key: the event goes to any segment, and has no place among others.
    ///
    /// # Errors
    /// As `write`.
    ///
    /// # Cancel safety
    /// As [`write`](Self::write).
    pub async fn write_anywhere(&self, event: impl Into<Bytes>) -> Result<Ack> {
        let chance = uuid::Uuid::new_v4().as_u128() >> 64;
        self.push((chance as f64 / 2f64.powi(64)).min(1.0 - f64::EPSILON), &[event.into()]).await
    }

    /// As [`write`](Self::write) for several events of one key, which are stored together or not at all, one behind the other.
    /// The `Ack` is that of the last.
    ///
    /// # Errors
    /// As `write`; `Invalid` also if there are none.
    ///
    /// # Cancel safety
    /// As [`write`](Self::write), of all of them.
    pub async fn write_all(&self, routing_key: &str, events: &[Bytes]) -> Result<Ack> {
        self.push(hash::routing_key(routing_key), events).await
    }

    pub(crate) async fn push(&self, hash: f64, events: &[Bytes]) -> Result<Ack> {
        self.shared.push(hash, None, events).await
    }

    /// Waits until everything that was handed over before is stored.
    ///
    /// # Errors
    /// A failure of any event, whoever wrote it, since this clone of the writer was made or last flushed.
    ///
    /// # Cancel safety
    /// Gives up waiting.
    pub async fn flush(&self) -> Result<()> {
        self.shared.flush(&self.seen).await
    }

    /// As [`flush`](Self::flush), but a failure is told again and again.
    pub(crate) async fn flush_without_gap(&self) -> Result<()> {
        self.shared.flush(&AtomicU64::new(0)).await
    }

    /// Bytes of events that are handed over and not yet stored.
    pub fn bytes_under_way(&self) -> usize {
        self.shared.locked().core.bytes()
    }

    /// Notes that everything this writer has written so far is not younger than `time`, in any unit that all writers of the
    /// stream share. Readers get time windows from it. [`flush`](Self::flush) first: what is not stored yet is not told of.
    ///
    /// # Errors
    /// * `Conflict`: a later time was noted before;
    /// * `NotFound`; `Unavailable`, `Denied`.
    ///
    /// # Cancel safety
    /// The time may be noted or not.
    pub async fn note_time(&self, time: i64) -> Result<()> {
        use proto::timestamp_response::Status;
        let cut = self.shared.position().await?;
        let asked = proto::TimestampFromWriter {
            writer: self.name(),
            position: Some(proto::StreamCut { stream_info: Some(stream_info(&self.shared.stream)), cut }),
            timestamp: time,
        };
        let answer = call!(self.shared.client, "noteTimestampFromWriter", note_timestamp_from_writer, asked)?;
        match answer.result() {
            Status::Success => Ok(()),
            Status::InvalidTime => {
                Err(Error::new(ErrorKind::Conflict, format!("a later time than {time} was noted before")))
            }
            Status::InvalidPosition => Err(Error::new(ErrorKind::Conflict, "a later position was noted before")),
            Status::InternalError => Err(crate::streams::failed("note the time of", &self.shared.stream)),
        }
    }

    /// This writer notes no times any more: once all that it noted counts, nobody's time windows wait for it. A later note takes
    /// it back. `false`: it has noted none, or the server has forgotten it.
    ///
    /// # Errors
    /// As [`Client::remove_writer`].
    ///
    /// # Cancel safety
    /// As there.
    pub async fn note_end(&self) -> Result<bool> {
        self.shared.client.remove_writer(&self.shared.stream, &self.name()).await
    }

    /// Under what it notes times.
    fn name(&self) -> String {
        format!("{:032x}", self.shared.writer.0)
    }
}

fn check(events: &[Bytes]) -> Result<()> {
    let invalid = |what: String| Err(Error::new(ErrorKind::Invalid, what));
    if events.is_empty() {
        return invalid("no events".to_owned());
    }
    if events.iter().any(Bytes::is_empty) {
        return invalid("event is empty".to_owned());
    }
    let bytes: usize = events.iter().map(|event| event.len() + flow::HEADER_BYTES).sum();
    if bytes > EVENT_BYTES_MAX + flow::HEADER_BYTES {
        return invalid(format!("event of {bytes} bytes, limit {EVENT_BYTES_MAX}"));
    }
    Ok(())
}

impl Shared {
    /// Writes to these segments of the stream, or to those that the transaction has for them.
    pub(crate) fn open(
        client: &Client,
        stream: &ScopedStream,
        transaction: Option<TransactionId>,
        segments: &[SegmentRange],
        options: &EventWriterOptions,
    ) -> Arc<Self> {
        let writer = WriterId(uuid::Uuid::new_v4().as_u128());
        Self::open_as(client, stream, transaction, segments, options, writer, None)
    }

    /// Under an id that is given; with what the stream has of it, if events come with numbers.
    fn open_as(
        client: &Client,
        stream: &ScopedStream,
        transaction: Option<TransactionId>,
        segments: &[SegmentRange],
        options: &EventWriterOptions,
        writer: WriterId,
        kept: Option<Kept>,
    ) -> Arc<Self> {
        let limits = Limits {
            batch_bytes: options.batch_bytes,
            window_bytes: options.window_bytes,
            lingers: !options.linger.is_zero(),
            header_bytes: options.header_bytes,
            is_numbered: kept.is_some(),
        };
        let state = State {
            core: Core::new(writer, segments, limits, kept.unwrap_or_default()),
            connections: BTreeMap::new(),
            registered: BTreeMap::new(),
            troubled: BTreeMap::new(),
        };
        Arc::new_cyclic(|this| Self {
            client: client.clone(),
            stream: stream.clone(),
            transaction,
            writer,
            is_numbered: limits.is_numbered,
            linger: options.linger,
            state: Mutex::new(state),
            room: Notify::new(),
            line: tokio::sync::Mutex::new(()),
            waiting: AtomicUsize::new(0),
            this: this.clone(),
        })
    }

    /// Takes events of one key as soon as there is room for them.
    pub(crate) async fn push(&self, hash: f64, number: Option<EventNumber>, events: &[Bytes]) -> Result<Ack> {
        check(events)?;
        // Whoever waits is served first: an event as large as the window would never see it empty among small ones.
        if self.waiting.load(Ordering::Relaxed) == 0 {
            let mut state = self.locked();
            if let Some(ack) = state.core.push(hash, number, events)? {
                self.carry_out(&mut state);
                return Ok(ack);
            }
        }
        let _waiting = Waiting::new(&self.waiting);
        let _turn = self.line.lock().await;
        loop {
            // Listening begins before looking, so that no news is missed in between.
            let room = self.room.notified();
            tokio::pin!(room);
            {
                let mut state = self.locked();
                if let Some(ack) = state.core.push(hash, number, events)? {
                    self.carry_out(&mut state);
                    return Ok(ack);
                }
                room.as_mut().enable();
            }
            room.await;
        }
    }

    /// Waits for everything that was taken before, and tells a failure of those that `seen` has not counted yet.
    pub(crate) async fn flush(&self, seen: &AtomicU64) -> Result<()> {
        let tickets = {
            let mut state = self.locked();
            state.core.hurry(None);
            let tickets = state.core.tickets();
            self.carry_out(&mut state);
            tickets
        };
        for ticket in tickets {
            // Failures are collected below.
            let _ = ticket::settled(ticket).await;
        }
        let state = self.locked();
        let (failures, failure) = state.core.failures();
        match failure {
            Some(failure) if failures > seen.load(Ordering::Relaxed) => {
                seen.store(failures, Ordering::Relaxed);
                Err(failure.clone())
            }
            _ => Ok(()),
        }
    }

    /// A place that everything lies before that was written so far: offsets by the numbers of segments.
    async fn position(&self) -> Result<BTreeMap<i64, i64>> {
        let observed = self.locked().core.observed();
        let found = observed.into_iter().map(async |(id, end)| {
            let end = match end {
                Some(end) => Ok(end),
                None => self.client.segments().info(&self.target(id)).await.map(|info| info.end),
            };
            match end {
                Ok(end) => Ok(Some((id.as_i64(), end.cast_signed()))),
                // Truncated away, or deleted with its stream.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        });
        let found = futures::stream::iter(found).buffer_unordered(ASKED_AT_ONCE).try_collect::<Vec<_>>().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Gives up everything under way.
    pub(crate) fn end(&self, error: &Error) {
        self.change(|state| state.core.end(error));
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while it holds the writer's state")
    }

    fn target(&self, segment: SegmentId) -> Target {
        let target = Target::new(&self.stream, segment, AccessOperation::Write);
        match self.transaction {
            None => target,
            Some(transaction) => target.named(self.stream.transaction_segment(segment, transaction)),
        }
    }

    /// The segment takes no more: its keys go elsewhere, or the transaction is over.
    fn sealed(&self, state: &mut State, segment: SegmentId, generation: u64) {
        match self.transaction {
            None => state.core.sealed(segment, generation),
            Some(id) => {
                let what = format!("transaction {id} of stream {} is not open any more", self.stream);
                state.core.end(&Error::new(ErrorKind::Conflict, what));
            }
        }
    }

    /// Does what the core asks for. What takes time is done by tasks of its own.
    fn carry_out(&self, state: &mut State) {
        for effect in std::mem::take(&mut state.core.effects) {
            let this = self.this.clone();
            match effect {
                Effect::Send { segment, send: Send::Append { data, event_count, last_event_number } } => {
                    let Some((connection, request_id)) = state.registered.get(&segment) else { continue };
                    let writer = core::writer_on(state.core.writer(), segment);
                    let request_id = *request_id;
                    let append = OutgoingAppend { request_id, writer, data, event_count, last_event_number };
                    // A connection that has ended says so to the sink.
                    let _ = connection.append(append);
                }
                Effect::Send { segment, send: Send::Large { data, previous, number } } => {
                    let generation = state.core.generation(segment);
                    tokio::spawn(large::send(this, segment, generation, data, previous, number));
                }
                Effect::SetUp { segment, generation } => drop(tokio::spawn(set_up(this, segment, generation))),
                Effect::Resolve { segment } => drop(tokio::spawn(resolve(this, segment))),
                Effect::Drop { segment } => {
                    if let Some((connection, id)) = state.registered.remove(&segment) {
                        connection.forget(id);
                    }
                }
                Effect::ForgetTrouble { segment } => drop(state.troubled.remove(&segment)),
                Effect::Linger { segment, sequence } => {
                    let linger = self.linger;
                    tokio::spawn(async move {
                        tokio::time::sleep(linger).await;
                        if let Some(shared) = this.upgrade() {
                            shared.change(|state| state.core.hurry(Some((segment, sequence))));
                        }
                    });
                }
                Effect::Room => self.room.notify_waiters(),
            }
        }
    }

    /// Changes the state and does what follows from it.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.locked();
        change(&mut state);
        self.carry_out(&mut state);
    }

    /// Something failed at a segment that may go better next time.
    fn trouble(&self, state: &mut State, segment: SegmentId, error: Error) {
        // A writer that has nothing to write is in no hurry; its next event begins anew.
        if !state.core.is_busy(segment) {
            return;
        }
        tracing::debug!(target: told::RETRY, stream = %self.stream, %segment, %error, "writer has to connect again");
        let retry_for = self.client.segments().retry_for();
        let trouble = state.troubled.entry(segment);
        trouble
            .and_modify(|trouble| trouble.error = error.clone())
            .or_insert_with(|| Trouble { backoff: Backoff::for_at_most(retry_for), error });
    }
}

/// Somebody waits for room, for as long as this is kept.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Registers the writer at the segment, wherever that is.
async fn set_up(this: Weak<Shared>, segment: SegmentId, generation: u64) {
    loop {
        let Some(shared) = this.upgrade() else { return };
        if shared.locked().core.writer_at(segment, generation).is_none() {
            return;
        }
        let mut trouble = shared.locked().troubled.remove(&segment);
        if let Some(trouble) = &mut trouble {
            drop(shared);
            let goes_on = trouble.backoff.pause().await;
            let Some(shared) = this.upgrade() else { return };
            if !goes_on {
                return shared.change(|state| {
                    if state.core.writer_at(segment, generation).is_some() {
                        state.core.fail(segment, &trouble.error);
                    }
                });
            }
        }
        let Some(shared) = this.upgrade() else { return };
        if let Some(trouble) = trouble {
            shared.locked().troubled.insert(segment, trouble);
        }
        let target = shared.target(segment);
        match register(&shared, &target, segment, generation).await {
            Ok(()) => return,
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                shared.client.segments().forget_place(&target);
                shared.trouble(&mut shared.locked(), segment, error);
            }
            Err(error) => return shared.change(|state| state.core.fail(segment, &error)),
        }
    }
}

async fn register(shared: &Arc<Shared>, target: &Target, segment: SegmentId, generation: u64) -> Result<()> {
    let segments = shared.client.segments();
    let endpoint = segments.place(target).await?;
    let token = segments.token(target).await?;
    let known = shared.locked().connections.get(&endpoint).filter(|it| it.takes_writers()).cloned();
    let connection = match (known, shared.transaction) {
        (Some(connection), _) => connection,
        (None, None) => segments.open(&endpoint).await?,
        // A transaction is too short for a connection of its own.
        (None, Some(_)) => segments.share(target).await?,
    };
    let mut state = shared.locked();
    // Another segment may have been faster.
    let kept = state.connections.entry(endpoint).or_insert_with(|| connection.clone());
    if !kept.takes_writers() {
        *kept = connection;
    }
    let connection = kept.clone();
    let Some(writer) = state.core.writer_at(segment, generation) else { return Ok(()) };
    let sink = Sink { writer: shared.this.clone(), segment, generation };
    let id = connection.set_up(writer, target.text(), token, Arc::new(sink))?;
    state.registered.insert(segment, (connection, id));
    tokio::spawn(expect_set_up(shared.this.clone(), segment, generation, segments.request_timeout()));
    Ok(())
}

/// A registration is answered in time, or tried anew.
async fn expect_set_up(this: Weak<Shared>, segment: SegmentId, generation: u64, limit: Duration) {
    tokio::time::sleep(limit).await;
    let Some(shared) = this.upgrade() else { return };
    shared.change(|state| {
        if state.core.is_setting_up(segment, generation) {
            let what = format!("segment store did not answer about {} within {limit:?}", shared.target(segment).name);
            shared.trouble(state, segment, Error::new(ErrorKind::Unavailable, what));
            state.core.disconnected(segment, generation);
        }
    });
}

/// Asks what follows on a sealed segment.
async fn resolve(this: Weak<Shared>, segment: SegmentId) {
    let Some(shared) = this.upgrade() else { return };
    let (client, stream, writer) = (shared.client.clone(), shared.stream.clone(), shared.writer);
    let is_numbered = shared.is_numbered;
    drop(shared);
    let last_number = if is_numbered { client.final_number(&stream, writer, segment).await } else { Ok(None) };
    let successors = match last_number {
        Ok(last) => client.successors(&stream, segment).await.map(|successors| (successors, last)),
        Err(error) => Err(error),
    };
    let Some(shared) = this.upgrade() else { return };
    shared.change(|state| match successors {
        Ok((successors, last)) => {
            if !successors.is_empty() {
                let successors = ids(&successors);
                tracing::info!(target: told::SCALE, %stream, sealed = %segment, %successors, "writer goes on in other segments");
            }
            state.troubled.remove(&segment);
            state.core.succeeded(segment, &successors, last);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => state.core.end(&error),
        Err(error) => state.core.fail(segment, &error),
    });
}

/// Segments, with commas between them.
fn ids(successors: &[Successor]) -> String {
    successors.iter().map(|it| it.segment.id.to_string()).collect::<Vec<_>>().join(",")
}

/// Hears what a segment store says about the writer on one segment.
struct Sink {
    writer: Weak<Shared>,
    segment: SegmentId,
    generation: u64,
}

impl AppendSink for Sink {
    fn reply(&self, reply: Reply) {
        let Some(shared) = self.writer.upgrade() else { return };
        let (segment, generation) = (self.segment, self.generation);
        shared.change(|state| match reply {
            // It knows another writer's number; the next registration may be understood.
            Reply::AppendSetup { segment: named, .. } if named != shared.target(segment).text() => {
                let what = format!("segment store answered for segment {named} instead of {segment}");
                shared.trouble(state, segment, Error::new(ErrorKind::Protocol, what));
                state.core.disconnected(segment, generation);
            }
            Reply::AppendSetup { last_event_number, .. } => {
                let last = (last_event_number != headwater_types::attribute::NULL).then_some(last_event_number);
                state.core.set_up(segment, generation, last);
                if !state.core.is_busy(segment) {
                    state.troubled.remove(&segment);
                }
            }
            Reply::DataAppended { event_number, segment_length, .. } => {
                if !state.troubled.is_empty() {
                    state.troubled.remove(&segment);
                }
                let length = u64::try_from(segment_length).ok();
                state.core.acknowledged(segment, generation, event_number, length);
            }
            // A segment that is gone has been truncated away, or its stream deleted; the controller knows.
            Reply::SegmentIsSealed { .. } | Reply::NoSuchSegment { .. } => shared.sealed(state, segment, generation),
            Reply::WrongHost { .. } => {
                let target = shared.target(segment);
                shared.client.segments().forget_place(&target);
                let what = format!("{} is not served where the controller says", target.name);
                shared.trouble(state, segment, Error::new(ErrorKind::Unavailable, what));
                state.core.disconnected(segment, generation);
            }
            Reply::AuthTokenCheckFailed { failure: TokenFailure::Expired, .. } => {
                shared.client.segments().forget_token(&shared.target(segment));
                let what = "token has expired again and again";
                shared.trouble(state, segment, Error::new(ErrorKind::Unauthenticated, what));
                state.core.disconnected(segment, generation);
            }
            Reply::AuthTokenCheckFailed { .. } => {
                let what = format!("segment store refuses to let write to {}", shared.stream);
                state.core.fail(segment, &Error::new(ErrorKind::Denied, what));
            }
            Reply::InvalidEventNumber { .. } => {
                // Something of an earlier connection arrived late; what the segment has got is asked again.
                let what = format!("another writer uses the same id on segment {segment}");
                shared.trouble(state, segment, Error::new(ErrorKind::Conflict, what));
                state.core.disconnected(segment, generation);
            }
            reply => state.core.fail(segment, &unexpected(&shared.target(segment), "an append", &reply)),
        });
    }

    fn closed(&self, error: &Error) {
        let Some(shared) = self.writer.upgrade() else { return };
        let (segment, generation) = (self.segment, self.generation);
        shared.client.segments().forget_place(&shared.target(segment));
        shared.change(|state| {
            if state.core.writer_at(segment, generation).is_some() {
                if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Protocol | ErrorKind::Closed) {
                    shared.trouble(state, segment, error.clone());
                    state.core.disconnected(segment, generation);
                } else {
                    state.core.fail(segment, error);
                }
            }
        });
    }
}
