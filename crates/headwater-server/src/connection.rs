//! One connection of the segment store protocol: one task reads, one writes.
//!
//! ```text
//!   socket ─► bytes ─► ServerEnd ─► event ─► charge ─► request ─► store ─► outbound ─► socket
//!                                              │
//!                              used up: stop reading until answers leave
//! ```
//!
//! Guarantees:
//! * the peer says hello within [`HELLO_PATIENCE`], and a frame that has begun goes on within [`FRAME_PATIENCE`]; in
//!   between it may be silent for ever
//! * of a frame above 16 KiB only so much is received as there is room for among those of all connections, and who
//!   holds that room without sending is closed once others want it ([`ReceivingRoom`])
//! * what one peer can make us hold is bounded: [`UNANSWERED_BYTES_MAX`] of requests under way, [`PARKED_READS_MAX`]
//!   reads that wait for data, [`TRANSIENTS_MAX`] uploads, one frame being received
//! * what all peers together can make us hold is bounded, too: answers about tables ([`Context::answering`]), requests
//!   under way and small answers beyond [`REQUESTS_FREE_BYTES`] of each ([`Context::replying`]), and reads that wait
//!   ([`Context::parking`]). A peer that takes nothing for a minute is closed; one that holds answers and takes them
//!   slowly is closed as soon as others want their room
//! * no command is carried out that its token does not allow; appends go on until the token of their set-up ends, and
//!   with it the connection
//! * malformed or misplaced frames close this connection and nothing else; answers decided before are sent first
//! * when the connection ends, transient segments that were not merged are deleted, and nobody is answered any more;
//!   the store drops its parked reads within seconds
//!
//! Not here: bytes of frames (`headwater-wire`), what a request means (`requests`), what an outcome becomes
//! (`replies`), the order of a writer's answers (`session`).

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use headwater_auth::WireCommand;
use headwater_auth::delegation::TokenError;
use headwater_engine::api::{Append as StoredAppend, Request};
use headwater_types::Offset;
use headwater_types::limits::{SEGMENT_NAME_BYTES_MAX, TABLE_PAGE_BYTES, TABLE_VALUE_BYTES_MAX};
use headwater_wire::{Append, Reply, Request as Wire, ServerEnd, ServerEvent, SetupAppend, Text, WireError};
use tokio::sync::{Semaphore, TryAcquireError};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::auth::Guard;
use crate::auth::wire::{Tokens, failure};
use crate::loads::Loads;
use crate::metrics::Metrics;
pub use crate::outbound::AnswerRoom;
use crate::outbound::{self, Arrived, Charge, Delivery, Ended, Line, Pending, Shared, Writer};
use crate::private::public_name;
pub use crate::readahead::ReadRoom;
pub use crate::receiving::ReceivingRoom;
use crate::receiving::{FREE_BYTES, LOOK, NoRoom, Share};
use crate::replies::{GET_KEYS_MAX, Verdict, illegal};
use crate::requests::{Plan, plan};
use crate::session::{Begun, NotSetUp};
use crate::socket::{ReadHalf, Socket};

/// How long a new peer may take to say hello.
pub const HELLO_PATIENCE: Duration = Duration::from_secs(10);
/// How long the bytes of a frame that has begun may stop coming.
pub const FRAME_PATIENCE: Duration = Duration::from_secs(10);
/// Requests under way on one connection, in bytes: what they carry and at most bring back. Then its socket is not read.
/// A client's own window is smaller (the Rust client's is 16 MiB of events over all its connections).
pub const UNANSWERED_BYTES_MAX: usize = 32 << 20;
/// Requests under way on one connection take room that all connections share once they hold more than this, in bytes.
/// What appends and updates of tables carry does not count: the store has room of its own for that.
pub const REQUESTS_FREE_BYTES: usize = 16 << 10;
/// Reads that wait for data on one connection. Clients leave abandoned ones behind; more than this is a mistake.
pub const PARKED_READS_MAX: usize = 16_384;
/// Of these so many are free; more of them take places that all connections share.
pub const PARKED_READS_FREE: usize = 16;
/// What a read that waits takes in memory, in bytes, about.
const PARKED_READ_BYTES: u64 = 512;
/// Uploads of large events under way on one connection; clients use one connection each.
pub const TRANSIENTS_MAX: usize = 1024;

/// What any request costs besides its bytes: its own bookkeeping and a small reply.
const REQUEST_BYTES: usize = 512;
/// Half of what a key or an entry of a request holds besides its bytes, in bytes: itself, and what is made of it.
const ITEM_BYTES: usize = 64;
/// Read from the socket at a time.
const READ_BYTES: usize = 64 << 10;
/// And at first: most connections never send more at a time, and of those that do not wait for an answer there are few.
const FIRST_READ_BYTES: usize = 8 << 10;
/// How long a large frame may wait for room, and then for the answers before it to leave.
const ROOM_PATIENCE: Duration = Duration::from_secs(60);
/// A longer frame gets a buffer for all of it only once it was allowed more than this.
const PART_BYTES: usize = 1 << 20;
/// A large frame has to arrive at this rate at least, in bytes per second, since others may wait for its room.
const LARGE_FRAME_RATE_MIN: usize = 64 << 10;
/// Room for what comes before hello.
const HELLO_BYTES: usize = 1024;
/// How long the answers to what is under way may take when the server stops.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
/// How long a peer may take to read the last answers.
const FLUSH_PATIENCE: Duration = Duration::from_secs(3);

/// What every connection needs.
#[derive(Clone, Debug)]
pub struct Context {
    /// The store.
    pub engine: headwater_engine::Engine,
    /// Where to count.
    pub metrics: Metrics,
    /// Where to count what streams get.
    pub loads: Loads,
    /// Who may do what.
    pub guard: Guard,
    /// Room for large frames that are being received.
    pub receiving: ReceivingRoom,
    /// Room for read data that peers have not taken yet.
    pub reading: Arc<ReadRoom>,
    /// Room for answers about tables that peers have not taken yet.
    pub answering: Arc<AnswerRoom>,
    /// Room for requests under way, and for small answers that peers have not taken yet.
    pub replying: Arc<AnswerRoom>,
    /// Places for reads that wait for data.
    pub parking: Arc<Semaphore>,
    /// Cancelled when the server stops: no new requests are read, those under way are answered.
    pub stopping: CancellationToken,
}

impl Context {
    /// Places for as many reads that wait as fit into so many bytes.
    pub fn places_to_wait(bytes: u64) -> Arc<Semaphore> {
        let places = usize::try_from(bytes / PARKED_READ_BYTES).unwrap_or(usize::MAX);
        Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)))
    }
}

/// Why the reading half ended.
#[derive(Debug, thiserror::Error)]
enum ReadEnd {
    #[error("peer is gone")]
    Gone,
    #[error("no hello in time")]
    NoHello,
    #[error("frame stopped coming, or came too slowly")]
    Stalled,
    #[error("no room for a large frame in time")]
    NoRoom,
    #[error("holds the room for large frames that others wait for, and sends too little")]
    Hogs,
    #[error(transparent)]
    Malformed(#[from] WireError),
    #[error(transparent)]
    NotSetUp(#[from] NotSetUp),
    #[error("more than {PARKED_READS_MAX} reads wait")]
    TooManyReads,
    #[error("no memory for more reads that wait")]
    NoPlaceForReads,
    #[error("no room for an answer in time")]
    NoRoomToAnswer,
    #[error("more than {TRANSIENTS_MAX} transient segments")]
    TooManyTransients,
    #[error("token of a writer has expired")]
    TokenExpired,
}

/// Serves one connection until it ends.
pub async fn serve(socket: impl Into<Socket>, context: Context) {
    let (read, write) = socket.into().into_split();
    let answers = [context.answering, context.replying];
    let line = Line::new(context.engine, context.metrics.clone(), context.reading, answers);
    let mut writing = tokio::spawn(outbound::write(line.clone(), write));
    let unanswered = Arc::new(Semaphore::new(UNANSWERED_BYTES_MAX));
    let mut inbound = Inbound {
        line: line.clone(),
        socket: read,
        tokens: Tokens::new(context.guard.clone()),
        writers: Vec::new(),
        expires: None,
        loads: context.loads.clone(),
        receiving: context.receiving.clone(),
        unanswered: unanswered.clone(),
        parked: Arc::new(Semaphore::new(PARKED_READS_MAX)),
        parking: context.parking.clone(),
    };
    let stopped = tokio::select! {
        end = inbound.read() => Some(end),
        () = context.stopping.cancelled() => {
            // Everything under way gets its answer; what cannot have one (a read at the tail) is given up.
            let all = u32::try_from(UNANSWERED_BYTES_MAX).expect("the limit is 32 MiB");
            let _ = timeout(DRAIN_PATIENCE, unanswered.acquire_many(all)).await;
            None
        }
        ended = &mut writing => {
            if let Ok(Ended::Closing(reason)) = ended {
                tracing::debug!(reason, "connection closed by an answer");
                inbound.socket.linger().await;
            }
            line.delete_transients();
            return;
        }
    };
    match stopped {
        Some(ReadEnd::Gone) => writing.abort(),
        // As agreed: the client comes back with a new one.
        Some(end @ ReadEnd::TokenExpired) => {
            tracing::debug!(reason = %end, "connection closed");
            inbound.finish(writing).await;
        }
        Some(violation) => {
            context.metrics.protocol_errors.inc();
            tracing::debug!(reason = %violation, "connection closed");
            inbound.finish(writing).await;
        }
        None => inbound.finish(writing).await,
    }
    line.delete_transients();
}

/// A large frame on its way, and the room it takes until it is handed over.
struct LargeFrame {
    share: Share,
    until: Instant,
}

/// A writer, and when its token ends.
struct Admitted {
    writer: Arc<Writer>,
    until: Option<Instant>,
}

struct Inbound {
    line: Arc<Line>,
    socket: ReadHalf,
    tokens: Tokens,
    /// By the slot of the writer; `None` if its last setup named no possible segment or its token did not allow it.
    writers: Vec<Option<Admitted>>,
    /// When the first of the tokens ends that they were set up with.
    expires: Option<Instant>,
    loads: Loads,
    receiving: ReceivingRoom,
    /// Bytes of requests that may still come under way.
    unanswered: Arc<Semaphore>,
    /// Reads that may still come under way.
    parked: Arc<Semaphore>,
    /// The same for all connections together, beyond [`PARKED_READS_FREE`] of each.
    parking: Arc<Semaphore>,
}

impl Inbound {
    /// Reads until the connection ends.
    async fn read(&mut self) -> ReadEnd {
        match self.read_frames().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn read_frames(&mut self) -> Result<std::convert::Infallible, ReadEnd> {
        let hello_until = Instant::now() + HELLO_PATIENCE;
        let mut greeted = false;
        let mut end = ServerEnd::new();
        let mut input = BytesMut::new();
        let mut large: Option<LargeFrame> = None;
        let mut buffer_bytes = FIRST_READ_BYTES;
        // When bytes came last, or were first wanted again.
        let mut heard = Instant::now();
        loop {
            while let Some(event) = end.next_event(&mut input)? {
                greeted = true;
                self.line.metrics.frames_received.inc();
                match large.take() {
                    None => self.on_event(event).await?,
                    // Its room is wanted by others, so its answers must not keep it waiting.
                    Some(_room) => {
                        timeout(ROOM_PATIENCE, self.on_event(event)).await.map_err(|_| ReadEnd::NoRoom)??
                    }
                }
                heard = Instant::now();
            }
            let frame_bytes = input.len() + end.wanted();
            let mut read_max = buffer_bytes;
            if frame_bytes > FREE_BYTES {
                if large.as_ref().is_none_or(|large| large.share.frame_bytes() < frame_bytes) {
                    drop(large.take());
                    large = Some(self.begin_large(frame_bytes, input.len()));
                }
                let large = large.as_mut().expect("it was just begun");
                if large.share.allowed() == input.len() {
                    large.until += large.share.grow(ROOM_PATIENCE).await.map_err(|NoRoom| ReadEnd::NoRoom)?;
                    heard = Instant::now();
                }
                let allowed = large.share.allowed();
                let buffer = buffer_bytes_of(frame_bytes, allowed);
                if input.capacity() < buffer {
                    let begun = std::mem::replace(&mut input, BytesMut::with_capacity(buffer));
                    input.extend_from_slice(&begun);
                }
                read_max = allowed - input.len();
            } else {
                input.reserve(if greeted { buffer_bytes } else { HELLO_BYTES });
            }
            match self.socket.try_read_buf(&mut input, read_max) {
                Ok(0) => return Err(ReadEnd::Gone),
                Ok(bytes) => {
                    heard = Instant::now();
                    self.line.metrics.bytes_received.inc_by(bytes as u64);
                    if bytes == buffer_bytes && large.is_none() {
                        buffer_bytes = READ_BYTES;
                    }
                    continue;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(ReadEnd::Gone),
            }
            if large.as_mut().is_some_and(|large| large.share.is_hogged(input.len())) {
                self.line.metrics.stalled.inc();
                return Err(ReadEnd::Hogs);
            }
            let readable = if !greeted {
                timeout_at(hello_until, self.socket.readable()).await.map_err(|_| ReadEnd::NoHello)?
            } else if input.is_empty() {
                // An idle connection keeps no buffer.
                input = BytesMut::new();
                match self.expires {
                    None => self.socket.readable().await,
                    Some(at) => timeout_at(at, self.socket.readable()).await.map_err(|_| ReadEnd::TokenExpired)?,
                }
            } else {
                let stalled = heard + FRAME_PATIENCE;
                let until = large.as_ref().map_or(stalled, |large| stalled.min(large.until));
                let holds_room = large.as_ref().is_some_and(|large| large.share.holds_room());
                let look = if holds_room { until.min(Instant::now() + LOOK) } else { until };
                match timeout_at(look, self.socket.readable()).await {
                    Ok(readable) => readable,
                    Err(_) if Instant::now() >= until => return Err(ReadEnd::Stalled),
                    Err(_) => continue,
                }
            };
            readable.map_err(|_| ReadEnd::Gone)?;
        }
    }

    /// Begins a frame that takes room as its bytes come.
    fn begin_large(&self, frame_bytes: usize, received: usize) -> LargeFrame {
        let arrival = Duration::from_secs((frame_bytes / LARGE_FRAME_RATE_MIN) as u64);
        LargeFrame {
            share: self.receiving.begin(frame_bytes, received, self.tokens.is_known()),
            until: Instant::now() + FRAME_PATIENCE + arrival,
        }
    }

    async fn on_event(&mut self, event: ServerEvent) -> Result<(), ReadEnd> {
        match event {
            // After an incompatible one the machine refuses whatever follows, which closes the connection.
            ServerEvent::Hello { .. } | ServerEvent::Incompatible { .. } => self.reply(Reply::hello()).await,
            ServerEvent::KeepAlive => self.reply(Reply::KeepAlive).await,
            ServerEvent::SetupAppend(setup) => self.on_setup(setup).await,
            ServerEvent::Append(append) => self.on_append(append).await,
            ServerEvent::Request(request) => self.on_request(request).await,
        }
    }

    /// Puts a writer, or none, into a slot that exists.
    fn place(&mut self, slot: usize, writer: Option<Admitted>) {
        let ends = |admitted: &Option<Admitted>| admitted.as_ref().and_then(|admitted| admitted.until);
        let changed = ends(&self.writers[slot]) != ends(&writer);
        self.writers[slot] = writer;
        // Here and not where it is asked for: that is before every wait for the peer.
        if changed {
            self.expires = self.writers.iter().filter_map(ends).min();
        }
    }

    /// Says that a token does not allow something.
    async fn refuse(&mut self, request_id: i64, error: TokenError) -> Result<(), ReadEnd> {
        self.line.metrics.tokens_refused.inc();
        self.reply(Reply::AuthTokenCheckFailed { request_id, trace: Text::default(), failure: failure(error) }).await
    }

    async fn on_setup(&mut self, setup: SetupAppend) -> Result<(), ReadEnd> {
        let SetupAppend { request_id, writer: id, slot, segment: text, token, .. } = setup;
        if self.writers.len() <= slot {
            self.writers.resize_with(slot + 1, || None);
        }
        let until = match self.tokens.check(WireCommand::SetupAppend, &[&text], &token) {
            Ok(until) => until,
            Err(error) => {
                self.place(slot, None);
                self.refuse(request_id, error).await?;
                // A writer that is told so comes back with a new one on a new connection.
                return if error == TokenError::Expired { Err(ReadEnd::TokenExpired) } else { Ok(()) };
            }
        };
        let Some(segment) = public_name(&text) else {
            self.place(slot, None);
            return self
                .reply(Reply::NoSuchSegment { request_id, segment: text, trace: Text::default(), offset: -1 })
                .await;
        };
        let charge = self.charge(REQUEST_BYTES + 2 * text.len(), 0).await?;
        // What the writer has under way with another segment is still answered: the answers hold on to it.
        let writer = match &self.writers[slot] {
            Some(Admitted { writer, .. }) if writer.segment == segment => writer.clone(),
            _ => {
                let load = self.loads.counter(&segment);
                Writer::new(id, text, segment.clone(), load)
            }
        };
        self.place(slot, Some(Admitted { writer: writer.clone(), until }));
        let ticket = writer.session().setup(request_id);
        let request = Request::OpenWriter { segment, writer: id };
        self.line.submit(request, Pending::Setup { writer, ticket }, Some(charge), None);
        Ok(())
    }

    async fn on_append(&mut self, append: Append) -> Result<(), ReadEnd> {
        let received = Instant::now();
        let Append { request_id, slot, data, event_count, last_event_number: number, expected_offset, .. } = append;
        let Admitted { writer, until } = self.writers.get(slot).and_then(Option::as_ref).ok_or(NotSetUp)?;
        if until.is_some_and(|until| received >= until) {
            return Err(ReadEnd::TokenExpired);
        }
        let writer = writer.clone();
        let bytes = data.len();
        let charge = self.charge(REQUEST_BYTES, bytes).await?;
        let begun = writer.session().begin(request_id, number)?;
        let (ticket, previous) = match begun {
            Begun::Send { ticket, previous } => (ticket, previous),
            Begun::Decided => {
                self.line.deliver(Delivery::Settled { writer, charge });
                return Ok(());
            }
            Begun::Discard => return Ok(()),
        };
        let room = self.line.engine.room(REQUEST_BYTES + bytes).await;
        let segment = writer.segment.clone();
        let append = StoredAppend {
            segment,
            writer: writer.id,
            data,
            event_count,
            previous,
            number,
            // A negative length is none that a segment can have.
            expected_length: expected_offset.map(|offset| Offset::try_from(offset).unwrap_or(Offset::MAX)),
        };
        let pending = Pending::Append { writer, ticket, arrived: Arrived { bytes, events: event_count, at: received } };
        self.line.submit(Request::Append(append), pending, Some(charge), Some(room));
        Ok(())
    }

    async fn on_request(&mut self, request: Wire) -> Result<(), ReadEnd> {
        if let Err(error) = self.tokens.check_request(&request) {
            return self.refuse(request.request_id(), error).await;
        }
        let charge = if let Wire::ReadSegment { segment, .. } = &request
            && segment.len() <= SEGMENT_NAME_BYTES_MAX
        {
            self.charge_read(segment.len())?
        } else {
            let answer = answer_cost(&request);
            let mut charge = self.charge(request_cost(&request), carried(&request) + answer).await?;
            if answer > 0 {
                let room = timeout(ROOM_PATIENCE, self.line.answering.take(answer)).await;
                charge.shared = Shared::Answer(room.map_err(|_| ReadEnd::NoRoomToAnswer)?);
            }
            charge
        };
        let engine = &self.line.engine;
        let (request, asked) = match plan(request, |parent, writer| engine.transient_name(parent, writer)) {
            Plan::Ask(request, asked) => (request, asked),
            Plan::AskTransient(segment, request, asked) => {
                if !self.line.add_transient(segment, TRANSIENTS_MAX) {
                    return Err(ReadEnd::TooManyTransients);
                }
                (request, asked)
            }
            Plan::Flush(container, asked) => {
                if container < engine.containers() {
                    self.line.flush(container, asked, charge);
                } else {
                    let verdict = Verdict::Reply(illegal(asked.request_id, &asked.segment, "no such container"));
                    self.line.deliver(Delivery::Decided { verdict, charge });
                }
                return Ok(());
            }
            Plan::Decided(Verdict::Again(request, asked)) => (request, asked),
            Plan::Decided(verdict) => {
                self.line.deliver(Delivery::Decided { verdict, charge });
                return Ok(());
            }
        };
        let room = match &request {
            Request::TableUpdate { changes, .. } => {
                let bytes = changes.iter().map(|change| change.key.len() + change.value.as_ref().map_or(0, Bytes::len));
                Some(self.line.engine.room(REQUEST_BYTES + bytes.sum::<usize>()).await)
            }
            _ => None,
        };
        self.line.submit(request, Pending::Request { asked }, Some(charge), room);
        Ok(())
    }

    async fn reply(&mut self, reply: Reply) -> Result<(), ReadEnd> {
        let charge = self.charge(REQUEST_BYTES, 0).await?;
        self.line.deliver(Delivery::Reply { reply, charge });
        Ok(())
    }

    /// Waits until a request may come under way that holds `bytes`, and `elsewhere` so many for which others have room.
    /// This is what stops the reading of a peer that sends faster than the store stores, or than it takes its answers.
    async fn charge(&self, bytes: usize, elsewhere: usize) -> Result<Charge, ReadEnd> {
        let all = u32::try_from((bytes + elsewhere).min(UNANSWERED_BYTES_MAX)).expect("the limit is 32 MiB");
        let permit = self.unanswered.clone().acquire_many_owned(all).await;
        let _connection = permit.expect("the limit is never closed");
        let is_free = UNANSWERED_BYTES_MAX - self.unanswered.available_permits() <= REQUESTS_FREE_BYTES;
        let common = if is_free {
            None
        } else {
            let room = timeout(ROOM_PATIENCE, self.line.replying.take(bytes)).await;
            Some(room.map_err(|_| ReadEnd::NoRoomToAnswer)?)
        };
        Ok(Charge { _connection, common, shared: Shared::Nothing })
    }

    /// Takes a place for a read, which may wait for data for ever; a large one if its segment has a long name.
    fn charge_read(&self, name_bytes: usize) -> Result<Charge, ReadEnd> {
        let take = |places: &Arc<Semaphore>, count: u32| match places.clone().try_acquire_many_owned(count) {
            Ok(permit) => Some(permit),
            Err(TryAcquireError::NoPermits) => None,
            Err(TryAcquireError::Closed) => unreachable!("the limit is never closed"),
        };
        let _connection = take(&self.parked, 1).ok_or(ReadEnd::TooManyReads)?;
        let shared = if self.parked.available_permits() >= PARKED_READS_MAX - PARKED_READS_FREE {
            Shared::Nothing
        } else {
            let places = 1 + 2 * name_bytes / PARKED_READ_BYTES as usize;
            let places = u32::try_from(places).expect("a name is short");
            Shared::Place { _permit: take(&self.parking, places).ok_or(ReadEnd::NoPlaceForReads)? }
        };
        Ok(Charge { _connection, common: None, shared })
    }

    /// Lets the writing half send what was delivered, then ends the connection.
    async fn finish(&mut self, mut writing: tokio::task::JoinHandle<Ended>) {
        self.line.deliver(Delivery::Finish);
        if timeout(FLUSH_PATIENCE, &mut writing).await.is_err() {
            writing.abort();
        } else {
            self.socket.linger().await;
        }
    }
}

/// The buffer of a large frame of which so many bytes may have come: one for the whole frame, and no larger, since what is
/// stored of it shares the buffer. Who only announces a frame gets none for it, and who sends only a part of a very
/// large one gets a buffer for that part at first.
fn buffer_bytes_of(frame_bytes: usize, allowed: usize) -> usize {
    let is_whole = allowed > PART_BYTES || frame_bytes <= PART_BYTES && allowed > FREE_BYTES;
    if is_whole { frame_bytes } else { allowed }
}

/// What a request may hold, in bytes, until it is answered and the answer is taken, besides [`carried`] and
/// [`answer_cost`]. Names are repeated in answers, also those that no segment can have.
fn request_cost(request: &Wire) -> usize {
    let names = request.segment().map_or(0, |segment| segment.len());
    let more = match request {
        Wire::MergeSegments { source, .. } => source.len(),
        Wire::MergeSegmentsBatch { sources, .. } => sources.iter().map(|source| source.len() + REQUEST_BYTES).sum(),
        Wire::ReadTable { keys, .. } => keys.iter().map(|key| key.key.len() + ITEM_BYTES).sum(),
        Wire::RemoveTableKeys { keys, .. } => keys.len() * ITEM_BYTES,
        Wire::UpdateTableEntries { entries, .. } => entries.len() * ITEM_BYTES,
        _ => 0,
    };
    REQUEST_BYTES + 2 * (names + more)
}

/// What a request brings that is to be stored, in bytes.
fn carried(request: &Wire) -> usize {
    match request {
        Wire::UpdateTableEntries { entries, .. } => {
            entries.iter().map(|entry| entry.key.key.len() + entry.value.len()).sum()
        }
        Wire::RemoveTableKeys { keys, .. } => keys.iter().map(|key| key.key.len()).sum(),
        _ => 0,
    }
}

/// What the answer to a request may have, in bytes, if it may be long; reads of segments have rules of their own.
fn answer_cost(request: &Wire) -> usize {
    match request {
        Wire::ReadTable { keys, .. } => keys.len().min(GET_KEYS_MAX) * TABLE_VALUE_BYTES_MAX,
        Wire::ReadTableKeys { .. }
        | Wire::ReadTableEntries { .. }
        | Wire::ReadTableEntriesDelta { .. }
        | Wire::ListStorageChunks { .. } => TABLE_PAGE_BYTES,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use headwater_wire::{TableKey, Token};

    use super::*;

    #[test]
    fn who_only_announces_a_frame_gets_no_buffer_for_it() {
        for frame_bytes in [FREE_BYTES + 1, PART_BYTES, PART_BYTES + 1, 16 << 20] {
            assert_eq!(buffer_bytes_of(frame_bytes, FREE_BYTES), FREE_BYTES, "a frame of {frame_bytes} bytes");
        }
        assert_eq!(buffer_bytes_of(PART_BYTES, FREE_BYTES + 1), PART_BYTES);
        assert_eq!(buffer_bytes_of(16 << 20, PART_BYTES), PART_BYTES);
        assert_eq!(buffer_bytes_of(16 << 20, PART_BYTES + 1), 16 << 20);
    }

    #[test]
    fn a_lookup_of_any_number_of_keys_fits_the_limit_of_a_connection() {
        let keys = vec![TableKey { key: "k".into(), version: i64::MIN }; 1000];
        let request = Wire::ReadTable { request_id: 1, segment: "t".into(), token: Token::default(), keys };
        assert!(request_cost(&request) + answer_cost(&request) <= UNANSWERED_BYTES_MAX);
    }
}
