//! The half of a connection that writes: turns outcomes into frames, in the order in which they come, and keeps what
//! waits for a slow peer within limits.
//!
//! ```text
//!   store ──outcome──► [Line::deliveries] ──► verdict ──► frames ──vectored write──► peer
//!                             ▲                  │
//!                             └──── again ◄──────┘   (answers of several steps, reads put off)
//! ```
//!
//! Guarantees:
//! * many answers leave in one write; a write ends only when nothing is left to send or the peer stops reading
//! * data of reads that the peer has not taken is bounded: what comes on top is let go and read again later
//!   (`readahead`)
//! * everything else that waits was charged by the reading half, which stops reading when the charges are used up
//! * after the connection's end nothing is written, and reads that still wait are abandoned ([`Waiting::is_abandoned`])

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Buf;
use headwater_engine::api::{self, Outcome, Request, Response};
use headwater_engine::{Engine, Permit};
use headwater_types::limits::SERVER_FRAME_BYTES_MAX;
use headwater_types::{Offset, SegmentName, WriterId};
use headwater_wire::{EncodeError, FrameQueue, Reply, Text};
use tokio::io::AsyncWriteExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::deliveries::Deliveries;
use crate::loads::Counter;
use crate::metrics::{Metrics, Reason};
use crate::readahead::{CONNECTION_BYTES_MAX, ReadAhead, ReadRoom, size};
use crate::replies::{Asked, Verdict, What, append_result, verdict, writer_verdict};
use crate::session::{Answer, Session, Ticket};
use crate::socket::WriteHalf;

/// Frames are collected up to this size before they are written.
const WRITE_BYTES: usize = 256 << 10;
/// Reads that were put off and are asked again after a write: as many of the largest as may wait for the peer.
const READS_AGAIN: usize = CONNECTION_BYTES_MAX / headwater_types::limits::READ_BYTES_MAX;

/// How long a peer may take nothing of what is sent to it.
pub(crate) const STALL_PATIENCE: Duration = Duration::from_secs(60);
/// How long a write may wait for room on the disk. Then its connection is closed; the client comes back and learns from
/// the stored number whether it happened.
const HOLD_PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked at whether writes wait.
const HOLD_TICK: Duration = Duration::from_secs(15);
/// How long a peer may take to take the last bytes of all.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked at whether a peer takes anything.
const STALL_TICK: Duration = Duration::from_secs(1);
/// Bytes that a peer has to take between two looks while it holds answers and others want their room.
const SCARCE_TICK_BYTES: usize = 64 << 10;

/// What both halves of a connection and the store's answers share.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) engine: Engine,
    pub(crate) metrics: Metrics,
    deliveries: Deliveries<Delivery>,
    /// Read data in `deliveries` and in the frames being written.
    ahead: ReadAhead,
    pub(crate) answering: Arc<AnswerRoom>,
    pub(crate) replying: Arc<AnswerRoom>,
    /// Writes that the store has not answered.
    writes: AtomicUsize,
    /// When a write was last answered, or the first of those above begun: milliseconds since `opened`.
    progress_millis: AtomicU64,
    opened: Instant,
    /// Transient segments made on this connection and not merged.
    transients: Mutex<BTreeSet<SegmentName>>,
}

/// What a request holds of limits until it is answered.
#[derive(Debug)]
pub(crate) struct Charge {
    /// Of the connection's; given back when the answer is in a frame.
    pub(crate) _connection: OwnedSemaphorePermit,
    /// Of what all connections share for requests under way and small answers, kept until the peer has taken the
    /// answer.
    pub(crate) common: Option<OwnedSemaphorePermit>,
    /// Of what all connections share.
    pub(crate) shared: Shared,
}

/// See [`Charge`].
#[derive(Debug)]
pub(crate) enum Shared {
    /// The answer is small.
    Nothing,
    /// Room for an answer about a table, kept until the peer has taken it.
    Answer(OwnedSemaphorePermit),
    /// A place for one more read that may wait for data.
    Place { _permit: OwnedSemaphorePermit },
}

/// Room for answers that peers have not taken yet, shared by all connections: one for those about tables, another for
/// requests under way and small answers.
#[derive(Debug)]
pub struct AnswerRoom {
    permits: Arc<Semaphore>,
    bytes: usize,
}

impl AnswerRoom {
    /// Room for so many bytes, at least for the largest answer.
    pub fn new(bytes: u64) -> Arc<Self> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let bytes = bytes.clamp(SERVER_FRAME_BYTES_MAX, Semaphore::MAX_PERMITS);
        Arc::new(Self { permits: Arc::new(Semaphore::new(bytes)), bytes })
    }

    /// Waits for room for so many bytes, or for all there is.
    pub(crate) async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let bytes = u32::try_from(bytes.min(self.bytes)).expect("no answer is longer than a frame");
        self.permits.clone().acquire_many_owned(bytes).await.expect("the room is never closed")
    }

    /// Little is left: who holds some of it has to hurry.
    fn is_scarce(&self) -> bool {
        self.permits.available_permits() < self.bytes / 4
    }
}

/// An append as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    pub(crate) bytes: usize,
    pub(crate) events: u32,
    pub(crate) at: Instant,
}

/// A writer on this connection: what it has under way with one segment.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) id: WriterId,
    /// As the client wrote it.
    pub(crate) text: Text,
    pub(crate) segment: SegmentName,
    /// Of the stream that the segment belongs to.
    load: Option<Arc<Counter>>,
    session: Mutex<Session>,
}

impl Writer {
    pub(crate) fn new(id: WriterId, text: Text, segment: SegmentName, load: Option<Arc<Counter>>) -> Arc<Self> {
        Arc::new(Self { id, text, segment, load, session: Mutex::default() })
    }

    pub(crate) fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().expect("a panic ends the process")
    }
}

/// What an answer of the store is needed for.
#[derive(Debug)]
pub(crate) enum Pending {
    Setup { writer: Arc<Writer>, ticket: Ticket },
    Append { writer: Arc<Writer>, ticket: Ticket, arrived: Arrived },
    Request { asked: Asked },
}

/// Something for the writing half.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// Send it.
    Reply { reply: Reply, charge: Charge },
    /// Do what it says.
    Decided { verdict: Verdict, charge: Charge },
    /// The store answered.
    Outcome { pending: Pending, outcome: Outcome, charge: Option<Charge> },
    /// The store answered a read while too much data was waiting; the data was let go.
    PutOff { asked: Asked, charge: Option<Charge> },
    /// The session may have an answer.
    Settled { writer: Arc<Writer>, charge: Charge },
    /// Write what came before, then end.
    Finish,
}

/// A request on its way through the store.
struct Waiting {
    line: Arc<Line>,
    pending: Pending,
    charge: Option<Charge>,
    /// Given back as soon as the store is done, however slowly the peer reads.
    room: Option<Permit>,
}

impl api::Reply for Waiting {
    fn send(self: Box<Self>, outcome: Outcome) {
        let Self { line, pending, charge, room } = *self;
        if room.is_some() {
            line.writes.fetch_sub(1, Ordering::Relaxed);
            line.note_progress();
        }
        drop(room);
        line.deliver(match (pending, outcome) {
            (Pending::Request { asked }, Ok(Response::Read(read))) => match line.ahead.admit(read) {
                Some(read) => {
                    Delivery::Outcome { pending: Pending::Request { asked }, outcome: Ok(Response::Read(read)), charge }
                }
                None => Delivery::PutOff { asked, charge },
            },
            (pending, outcome) => Delivery::Outcome { pending, outcome, charge },
        });
    }

    fn is_abandoned(&self) -> bool {
        self.line.deliveries.has_ended()
    }
}

/// Nobody waits for the answer.
struct Unheard;

impl api::Reply for Unheard {
    fn send(self: Box<Self>, _: Outcome) {}
}

impl Line {
    pub(crate) fn new(
        engine: Engine,
        metrics: Metrics,
        reading: Arc<ReadRoom>,
        [answering, replying]: [Arc<AnswerRoom>; 2],
    ) -> Arc<Self> {
        let (ahead, transients) = (ReadAhead::new(reading), Mutex::default());
        Arc::new(Self {
            engine,
            metrics,
            deliveries: Deliveries::default(),
            ahead,
            answering,
            replying,
            writes: AtomicUsize::new(0),
            progress_millis: AtomicU64::new(0),
            opened: Instant::now(),
            transients,
        })
    }

    /// Gives something to the writing half; after the connection's end it is dropped.
    pub(crate) fn deliver(&self, delivery: Delivery) {
        self.deliveries.deliver(delivery);
    }

    /// Hands a request to the store.
    pub(crate) fn submit(
        self: &Arc<Self>,
        request: Request,
        pending: Pending,
        charge: Option<Charge>,
        room: Option<Permit>,
    ) {
        if room.is_some() && self.writes.fetch_add(1, Ordering::Relaxed) == 0 {
            self.note_progress();
        }
        self.engine.submit(request, Box::new(Waiting { line: self.clone(), pending, charge, room }));
    }

    fn note_progress(&self) {
        self.progress_millis.store(self.opened.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// How long the store has answered none of the writes under way: a disk that is full makes them wait.
    fn held_for(&self) -> Duration {
        if self.writes.load(Ordering::Relaxed) == 0 {
            return Duration::ZERO;
        }
        let progress = Duration::from_millis(self.progress_millis.load(Ordering::Relaxed));
        self.opened.elapsed().saturating_sub(progress)
    }

    /// Has everything in a container stored. There has to be such a container.
    pub(crate) fn flush(self: &Arc<Self>, container: u32, asked: Asked, charge: Charge) {
        let pending = Pending::Request { asked };
        self.engine
            .flush(container, Box::new(Waiting { line: self.clone(), pending, charge: Some(charge), room: None }));
    }

    /// Remembers a transient segment that is about to be created. False if there are too many.
    pub(crate) fn add_transient(&self, segment: SegmentName, most: usize) -> bool {
        let mut transients = self.transients.lock().expect("a panic ends the process");
        transients.len() < most && transients.insert(segment)
    }

    /// A transient segment is gone, or never came.
    fn remove_transient(&self, segment: &str) {
        if let Ok(segment) = SegmentName::parse(segment) {
            self.transients.lock().expect("a panic ends the process").remove(&segment);
        }
    }

    /// Deletes the transient segments of this connection, once it has ended. A merge or creation that was asked for
    /// before is done first: the store lets a deletion overtake no write to the same segment, and a merge that waits
    /// for memory was not acknowledged. On a full disk it does overtake a creation, and such a segment stays, empty, until
    /// the next start deletes it.
    pub(crate) fn delete_transients(&self) {
        let transients = std::mem::take(&mut *self.transients.lock().expect("a panic ends the process"));
        for segment in transients {
            self.engine.submit(Request::Delete { segment }, Box::new(Unheard));
        }
    }
}

/// How the writing half ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ended {
    /// It was asked to.
    Finished,
    /// An answer ends the connection; the text is for the log.
    Closing(&'static str),
    /// The peer is gone.
    Lost,
}

/// Ends the deliveries of a connection, however its writing half ends.
struct Reader(Arc<Line>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.deliveries.end();
    }
}

/// Writes until the connection ends. Everything that was delivered before an end is written.
pub(crate) async fn write(line: Arc<Line>, mut socket: WriteHalf) -> Ended {
    let reader = Reader(line.clone());
    let mut outbound = Outbound {
        line,
        out: FrameQueue::new(),
        frames: 0,
        read_bytes: 0,
        answers: Vec::new(),
        common: None,
        put_off: VecDeque::new(),
        ended: None,
    };
    let mut look_at = Instant::now() + HOLD_TICK;
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            // An idle connection keeps no buffer.
            drop(std::mem::take(&mut waiting));
            let _ = timeout_at(look_at, reader.0.deliveries.arrived()).await;
            waiting = reader.0.deliveries.take();
        }
        if Instant::now() >= look_at {
            look_at = Instant::now() + HOLD_TICK;
            if outbound.line.held_for() >= HOLD_PATIENCE {
                end(&mut socket).await;
                return Ended::Closing("a write waits too long, the disk may be full");
            }
        }
        while outbound.ended.is_none() && outbound.out.remaining() < WRITE_BYTES {
            if waiting.is_empty() {
                waiting = reader.0.deliveries.take();
            }
            let Some(delivery) = waiting.pop_front() else { break };
            outbound.take(delivery);
        }
        if outbound.flush(&mut socket).await.is_err() {
            return Ended::Lost;
        }
        if let Some(ended) = outbound.ended {
            // The peer sees an orderly end; what it still sends is the reading half's business.
            end(&mut socket).await;
            return ended;
        }
        outbound.ask_again();
    }
}

/// Ends our direction. Under TLS that takes some bytes, which the peer may not take.
async fn end(socket: &mut WriteHalf) {
    let _ = timeout(END_PATIENCE, socket.shutdown()).await;
}

struct Outbound {
    line: Arc<Line>,
    out: FrameQueue,
    /// Frames in `out`.
    frames: u64,
    /// Read data in `out`.
    read_bytes: usize,
    /// Room of the answers in `out`.
    answers: Vec<OwnedSemaphorePermit>,
    /// Room of everything else in `out`.
    common: Option<OwnedSemaphorePermit>,
    /// Reads to be asked again, oldest first.
    put_off: VecDeque<(Asked, Option<Charge>)>,
    ended: Option<Ended>,
}

impl Outbound {
    fn take(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Reply { reply, charge } => {
                self.put(&reply);
                self.keep(charge);
            }
            Delivery::Decided { verdict, charge } => self.carry_out(verdict, Some(charge)),
            Delivery::Outcome { pending, outcome, charge } => self.on_outcome(pending, outcome, charge),
            Delivery::PutOff { asked, charge } => self.put_off.push_back((asked, charge)),
            Delivery::Settled { writer, charge } => {
                self.release(&writer, None);
                self.keep(charge);
            }
            Delivery::Finish => self.ended = Some(Ended::Finished),
        }
    }

    /// Keeps what others may want until the peer has taken what is in `out`.
    fn keep(&mut self, charge: Charge) {
        match (&mut self.common, charge.common) {
            (Some(common), Some(more)) => common.merge(more),
            (common @ None, more) => *common = more,
            (Some(_), None) => {}
        }
        if let Shared::Answer(room) = charge.shared {
            self.answers.push(room);
        }
    }

    fn on_outcome(&mut self, pending: Pending, outcome: Outcome, charge: Option<Charge>) {
        match pending {
            Pending::Request { asked } => {
                match (&asked.what, &outcome) {
                    (What::Merge { source }, Ok(_)) => self.line.remove_transient(source),
                    (What::CreateTransient, Err(_)) => self.line.remove_transient(&asked.segment),
                    (What::Read { .. }, Ok(Response::Read(read))) => {
                        self.read_bytes += size(read);
                    }
                    _ => {}
                }
                self.carry_out(verdict(asked, outcome), charge);
            }
            Pending::Setup { writer, ticket } => {
                let stored = outcome.map(|response| match response {
                    Response::LastEvent(number) => number,
                    other => unreachable!("the store answered a setup with {other:?}"),
                });
                writer.session().opened(ticket, stored);
                self.release(&writer, None);
                charge.into_iter().for_each(|charge| self.keep(charge));
            }
            Pending::Append { writer, ticket, arrived } => {
                writer.session().settled(ticket, append_result(outcome));
                self.release(&writer, Some(arrived));
                charge.into_iter().for_each(|charge| self.keep(charge));
            }
        }
    }

    /// Sends the answers of a writer whose turn has come. `settled`: the append that settled now.
    fn release(&mut self, writer: &Writer, mut settled: Option<Arrived>) {
        loop {
            let Some(answer) = writer.session().release() else { break };
            let metrics = &self.line.metrics;
            match &answer {
                Answer::Stored { .. } => {
                    metrics.appends.inc();
                    if let Some(Arrived { bytes, events, at }) = settled.take() {
                        metrics.append_bytes.inc_by(bytes as u64);
                        metrics.append_latency.observe(at.elapsed().as_secs_f64());
                        if let Some(load) = &writer.load {
                            load.add(events, bytes);
                        }
                    }
                }
                Answer::ConditionFailed { number, .. } | Answer::Stale { number, .. } => {
                    let is_stale = matches!(answer, Answer::Stale { .. });
                    metrics.appends_refused(if is_stale { Reason::Stale } else { Reason::Condition }).inc();
                    tracing::debug!(segment = %writer.segment, number, "append does not follow what is stored");
                }
                Answer::Refused { number, refusal, .. } => {
                    metrics.appends_refused(refusal.into()).inc();
                    tracing::debug!(segment = %writer.segment, number, %refusal, "append refused");
                }
                Answer::NotOpened { refusal, .. } => {
                    tracing::debug!(segment = %writer.segment, %refusal, "setup refused");
                }
                Answer::Opened { .. } => {}
            }
            self.carry_out(writer_verdict(writer.id, &writer.text, answer), None);
        }
    }

    fn carry_out(&mut self, verdict: Verdict, charge: Option<Charge>) {
        match verdict {
            Verdict::Reply(reply) => {
                let before = self.out.remaining();
                self.put(&reply);
                if let Some(mut charge) = charge {
                    if let Shared::Answer(room) = &mut charge.shared {
                        // What the answer might have taken and did not is for others.
                        let bytes = self.out.remaining().saturating_sub(before);
                        drop(room.split(room.num_permits().saturating_sub(bytes)));
                    }
                    self.keep(charge);
                }
            }
            Verdict::Pieces(read) => self.put_encoded(|out| read.encode(out)),
            Verdict::ReplyAndClose(reply) => {
                self.put(&reply);
                self.end("event number does not follow what is stored");
            }
            Verdict::Close(reason) => self.end(reason),
            Verdict::Again(request, asked) => self.line.submit(request, Pending::Request { asked }, charge, None),
        }
    }

    fn put(&mut self, reply: &Reply) {
        self.put_encoded(|out| reply.encode(out));
    }

    fn put_encoded(&mut self, encode: impl FnOnce(&mut FrameQueue) -> Result<(), EncodeError>) {
        // After the end nothing more is said, not even what was decided in the same breath.
        if self.ended.is_some() {
            return;
        }
        match encode(&mut self.out) {
            Ok(()) => self.frames += 1,
            Err(error) => {
                tracing::warn!(%error, "a reply does not fit into the protocol, closing the connection");
                self.end("reply does not fit into a frame");
            }
        }
    }

    fn end(&mut self, reason: &'static str) {
        self.ended.get_or_insert(Ended::Closing(reason));
    }

    async fn flush(&mut self, socket: &mut WriteHalf) -> std::io::Result<()> {
        let bytes = self.out.remaining();
        if bytes == 0 {
            self.common = None;
            self.forget_reads();
            return Ok(());
        }
        self.write_all(socket).await?;
        self.answers.clear();
        self.common = None;
        let metrics = &self.line.metrics;
        metrics.bytes_sent.inc_by(bytes as u64);
        metrics.frames_sent.inc_by(std::mem::take(&mut self.frames));
        self.forget_reads();
        // An idle connection keeps no buffer.
        self.out = FrameQueue::new();
        Ok(())
    }

    /// Writes `out`, for as long as the peer takes some of it now and then.
    async fn write_all(&mut self, socket: &mut WriteHalf) -> std::io::Result<()> {
        let mut progress = Instant::now();
        let (mut window, mut taken) = (progress, 0);
        while self.out.has_remaining() {
            match timeout(STALL_TICK, socket.write_buf(&mut self.out)).await {
                Ok(Ok(0)) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(Ok(bytes)) => {
                    progress = Instant::now();
                    taken += bytes;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
            let now = Instant::now();
            if now - window < STALL_TICK {
                continue;
            }
            let holds_scarce = !self.answers.is_empty() && self.line.answering.is_scarce()
                || self.common.is_some() && self.line.replying.is_scarce();
            let is_hogging = taken < SCARCE_TICK_BYTES && holds_scarce;
            if self.out.has_remaining() && (is_hogging || now - progress >= STALL_PATIENCE) {
                self.line.metrics.stalled.inc();
                let waited = now - progress;
                tracing::debug!(?waited, is_hogging, "peer does not take its answers, closing the connection");
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            (window, taken) = (now, 0);
        }
        // TLS holds the end of what it took until the peer takes that, too.
        match timeout(STALL_PATIENCE, socket.flush()).await {
            Ok(flushed) => flushed,
            Err(_) => {
                self.line.metrics.stalled.inc();
                Err(std::io::ErrorKind::TimedOut.into())
            }
        }
    }

    /// The peer took all read data that was in `out`.
    fn forget_reads(&mut self) {
        self.line.ahead.written(std::mem::take(&mut self.read_bytes));
    }

    fn ask_again(&mut self) {
        for _ in 0..READS_AGAIN {
            let Some((asked, charge)) = self.put_off.pop_front() else { break };
            let What::Read { offset, bytes_max } = asked.what else { unreachable!("only reads are put off") };
            let segment = SegmentName::parse(&asked.segment).expect("the name was read before");
            let offset = Offset::try_from(offset).expect("the offset was read before");
            let request = Request::Read { segment, offset, bytes_max };
            self.line.submit(request, Pending::Request { asked }, charge, None);
        }
    }
}
