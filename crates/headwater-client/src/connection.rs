//! One connection to a segment store: many requests and writers at a time, each answered to whoever asked.
//!
//! ```text
//!   callers ─► inbox ─► task: ClientEnd ─► transport
//!      ▲                  │
//!      └── routes by id ◄─┘
//! ```
//!
//! Guarantees:
//! * frames leave in the order in which the methods of [`Connection`] were called, whoever called them
//! * every request ends: with its reply, or with the error that ended the connection
//! * a caller that gives up (drops its future) leaves the connection usable; the reply is thrown away when it comes
//! * a server that owes answers and says nothing for the time that a request may take has gone
//!
//! The inbox is not bounded here: whoever appends keeps a window of its own, and requests are as many as callers wait.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use futures::task::AtomicWaker;
use headwater_types::WriterId;
use headwater_wire::{ClientEnd, FrameQueue, OutgoingAppend, Reply, Request, Text, Token};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::told;
use crate::transport::Duplex;

/// Looks whether the server still speaks, in the time after which a silent one has gone.
const LOOKS: u32 = 6;
/// After so many of them in silence, a server that owes answers is asked for a sign of life.
const ASK_AFTER_LOOKS: u32 = 2;
/// Room made for what comes in; a large frame gets more, as it says how long it is.
const READ_BYTES: usize = 64 << 10;
/// Most room made at a time.
const READ_BYTES_MAX: usize = 2 << 20;
/// Writers registered on one connection before new ones go to another: there is no way to take a registration back, and
/// servers bound them (ours at 4096). Source: Pravega's Java client stops at 2000.
const WRITERS_MAX: usize = 2000;
/// Encoded and not yet taken by the transport; commands wait while there is more.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// Hears what the server says about one writer on one segment.
pub(crate) trait AppendSink: Send + Sync {
    /// Every reply that carries the id of the writer's set-up. Called by the connection's task: must not wait.
    fn reply(&self, reply: Reply);
    /// The connection has ended; nothing comes any more.
    fn closed(&self, error: &Error);
}

enum Command {
    Request {
        request: Request,
        answer: oneshot::Sender<Result<Reply>>,
    },
    SetUp {
        id: i64,
        writer: WriterId,
        segment: Text,
        token: Token,
        sink: Arc<dyn AppendSink>,
    },
    Append(OutgoingAppend),
    AppendAt {
        append: OutgoingAppend,
        expected_offset: i64,
        event: bool,
        answer: oneshot::Sender<Result<Reply>>,
    },
    /// Nobody waits for this answer any more.
    Forget(i64),
}

enum Route {
    Once(oneshot::Sender<Result<Reply>>),
    Writer(Arc<dyn AppendSink>),
}

/// A handle of a connection. The connection ends when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
    last: Arc<CloseOnDrop>,
}

struct Shared {
    inbox: Mutex<Inbox>,
    waker: AtomicWaker,
    next_id: AtomicI64,
}

#[derive(Default)]
struct Inbox {
    commands: Vec<Command>,
    /// Why nothing is taken any more.
    ended: Option<Error>,
    /// Requests that are not answered yet, those in `commands` included.
    under_way: usize,
    /// Writers that were registered so far.
    writers: usize,
}

struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let mut inbox = self.0.locked();
        inbox.ended.get_or_insert_with(|| Error::new(ErrorKind::Closed, "connection was closed"));
        drop(inbox);
        self.0.waker.wake();
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().expect("nobody panics while it holds the inbox")
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("ended", &self.shared.locked().ended).finish_non_exhaustive()
    }
}

/// Forgets a request whose caller does not wait any more.
struct Forget<'a> {
    connection: &'a Connection,
    id: Option<i64>,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let _ = self.connection.put(Command::Forget(id));
        }
    }
}

impl Connection {
    /// Takes over a stream whose server has said nothing yet, and waits for its hello. A server that owes answers and is silent
    /// for so long has gone. Needs a Tokio runtime.
    pub(crate) async fn open(stream: Box<dyn Duplex>, server: Endpoint, silence_max: Duration) -> Result<Self> {
        let shared =
            Arc::new(Shared { inbox: Mutex::default(), waker: AtomicWaker::new(), next_id: AtomicI64::new(1) });
        let (greet, greeted) = oneshot::channel();
        tokio::spawn(Task::new(stream, server, shared.clone(), greet, silence_max).run());
        let connection = Self { last: Arc::new(CloseOnDrop(shared.clone())), shared };
        match greeted.await {
            Ok(()) => Ok(connection),
            Err(_) => Err(connection.ended().unwrap_or_else(lost)),
        }
    }

    /// Why it ended, if it has.
    pub(crate) fn ended(&self) -> Option<Error> {
        self.shared.locked().ended.clone()
    }

    /// Whether it is alive, owes nobody an answer, and takes further writers.
    pub(crate) fn is_idle(&self) -> bool {
        let inbox = self.shared.locked();
        inbox.ended.is_none() && inbox.under_way == 0 && inbox.writers < WRITERS_MAX
    }

    /// Whether it is alive and takes further writers.
    pub(crate) fn takes_writers(&self) -> bool {
        let inbox = self.shared.locked();
        inbox.ended.is_none() && inbox.writers < WRITERS_MAX
    }

    /// How many hold it.
    pub(crate) fn handles(&self) -> usize {
        Arc::strong_count(&self.last)
    }

    fn next_id(&self) -> i64 {
        self.shared.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks and waits for the answer, however long it takes.
    ///
    /// # Errors
    /// `Unavailable`: the connection ended first. `Invalid`, `Unsupported`: the request cannot be sent.
    ///
    /// # Cancel safety
    /// The server may still do what was asked.
    pub(crate) async fn call(&self, make: impl FnOnce(i64) -> Request) -> Result<Reply> {
        let id = self.next_id();
        self.answer(id, |answer| Command::Request { request: make(id), answer }).await
    }

    /// Appends if the segment has exactly so many bytes, and waits for the answer. `event`: a header is put in front.
    pub(crate) async fn append_at(
        &self,
        append: impl FnOnce(i64) -> OutgoingAppend,
        expected_offset: i64,
        event: bool,
    ) -> Result<Reply> {
        let id = self.next_id();
        let append = append(id);
        self.answer(id, |answer| Command::AppendAt { append, expected_offset, event, answer }).await
    }

    async fn answer(&self, id: i64, command: impl FnOnce(oneshot::Sender<Result<Reply>>) -> Command) -> Result<Reply> {
        let (answer, answered) = oneshot::channel();
        self.put(command(answer))?;
        let mut forget = Forget { connection: self, id: Some(id) };
        let outcome = answered.await;
        forget.id = None;
        outcome.unwrap_or_else(|_| Err(self.ended().unwrap_or_else(lost)))
    }

    /// Registers a writer; all replies about it go to `sink`, the answer first.
    pub(crate) fn set_up(
        &self,
        writer: WriterId,
        segment: Text,
        token: Token,
        sink: Arc<dyn AppendSink>,
    ) -> Result<i64> {
        let id = self.next_id();
        self.put(Command::SetUp { id, writer, segment, token, sink })?;
        Ok(id)
    }

    /// Sends data of a writer that was set up; its `request_id` is that of the set-up.
    pub(crate) fn append(&self, append: OutgoingAppend) -> Result<()> {
        self.put(Command::Append(append))
    }

    /// Nobody wants to hear of this writer any more.
    pub(crate) fn forget(&self, id: i64) {
        let _ = self.put(Command::Forget(id));
    }

    fn put(&self, command: Command) -> Result<()> {
        let mut inbox = self.shared.locked();
        if let Some(error) = &inbox.ended {
            return Err(error.clone());
        }
        if matches!(command, Command::Request { .. } | Command::AppendAt { .. }) {
            inbox.under_way += 1;
        }
        if matches!(command, Command::SetUp { .. }) {
            inbox.writers += 1;
        }
        let first = inbox.commands.is_empty();
        inbox.commands.push(command);
        drop(inbox);
        if first {
            self.shared.waker.wake();
        }
        Ok(())
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Unavailable, "connection was lost")
}

struct Task {
    stream: Box<dyn Duplex>,
    server: Endpoint,
    shared: Arc<Shared>,
    end: ClientEnd,
    out: FrameQueue,
    input: BytesMut,
    /// Until the server says hello.
    greet: Option<oneshot::Sender<()>>,
    routes: BTreeMap<i64, Route>,
    taken: Vec<Command>,
    heard: Instant,
    silence_max: Duration,
    asked: bool,
    look: Pin<Box<Sleep>>,
    /// Why it ended.
    why: Option<Error>,
}

impl Drop for Task {
    /// Also when the task's runtime ends first: nobody may wait for a connection that nobody serves.
    fn drop(&mut self) {
        let why = self.why.take().unwrap_or_else(lost);
        tracing::debug!(target: told::CONNECTION, segment_store = %self.server, error = ?why, "connection ended");
        self.end_all(&why);
    }
}

impl Task {
    fn new(
        stream: Box<dyn Duplex>,
        server: Endpoint,
        shared: Arc<Shared>,
        greet: oneshot::Sender<()>,
        silence_max: Duration,
    ) -> Self {
        let mut out = FrameQueue::new();
        let end = ClientEnd::connect(&mut out);
        Self {
            stream,
            server,
            shared,
            end,
            out,
            input: BytesMut::new(),
            greet: Some(greet),
            routes: BTreeMap::new(),
            taken: Vec::new(),
            heard: Instant::now(),
            silence_max,
            asked: false,
            look: Box::pin(tokio::time::sleep(silence_max / LOOKS)),
            why: None,
        }
    }

    async fn run(mut self) {
        let Err(error) = poll_fn(|cx| self.turn(cx)).await;
        self.why = Some(error);
    }

    /// Does all that can be done now.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<std::convert::Infallible>> {
        self.shared.waker.register(cx.waker());
        match self.work(cx) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn work(&mut self, cx: &mut Context<'_>) -> Result<()> {
        // Reading first: it frees windows, and what is written next may be part of a larger frame then.
        while self.read(cx)? {}
        loop {
            self.take_commands()?;
            if !self.out.has_remaining() {
                break;
            }
            match poll_write_buf(Pin::new(&mut *self.stream), cx, &mut self.out) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(lost()),
                // A slow line is no silent server. What a line takes at once says nothing of the server.
                Poll::Ready(Ok(_)) if self.out.has_remaining() => self.heard = Instant::now(),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(broken(error)),
            }
        }
        if !self.out.has_remaining()
            && let Poll::Ready(Err(error)) = Pin::new(&mut *self.stream).poll_flush(cx)
        {
            return Err(broken(error));
        }
        self.watch(cx)
    }

    /// Reads what is there and hands it on; whether there may be more.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool> {
        self.input.reserve(self.end.wanted().clamp(READ_BYTES, READ_BYTES_MAX));
        match poll_read_buf(Pin::new(&mut *self.stream), cx, &mut self.input) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0)) => return Err(Error::new(ErrorKind::Unavailable, "server closed the connection")),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => return Err(broken(error)),
        }
        self.heard = Instant::now();
        self.asked = false;
        while let Some(reply) = self.end.next_reply(&mut self.input).map_err(nonsense)? {
            self.dispatch(reply);
        }
        Ok(true)
    }

    fn dispatch(&mut self, reply: Reply) {
        let Some(id) = reply.request_id() else {
            // The only replies to nobody are the server's hello and its signs of life.
            if let Some(greet) = self.greet.take() {
                let _ = greet.send(());
            }
            return;
        };
        match self.routes.get(&id) {
            Some(Route::Writer(sink)) => sink.reply(reply),
            Some(Route::Once(_)) => {
                let Some(Route::Once(answer)) = self.routes.remove(&id) else { return };
                self.shared.locked().under_way -= 1;
                let _ = answer.send(Ok(reply));
            }
            // Its caller has given up.
            None => {}
        }
    }

    fn take_commands(&mut self) -> Result<()> {
        let mut inbox = self.shared.locked();
        if let Some(error) = &inbox.ended {
            return Err(error.clone());
        }
        if self.out.remaining() >= WRITE_BYTES_MAX {
            return Ok(());
        }
        mem::swap(&mut inbox.commands, &mut self.taken);
        drop(inbox);
        let mut taken = mem::take(&mut self.taken);
        for command in taken.drain(..) {
            self.send(command);
        }
        self.taken = taken;
        Ok(())
    }

    fn send(&mut self, command: Command) {
        match command {
            Command::Request { request, answer } => {
                let outcome = self.end.request(&request, &mut self.out);
                self.route(request.request_id(), answer, outcome);
            }
            Command::AppendAt { append, expected_offset, event, answer } => {
                let id = append.request_id;
                let outcome = if event {
                    self.end.append_event_at(append, expected_offset, &mut self.out)
                } else {
                    self.end.append_at(append, expected_offset, &mut self.out)
                };
                self.route(id, answer, outcome);
            }
            Command::SetUp { id, writer, segment, token, sink } => {
                match self.end.set_up_append(id, writer, segment, token, &mut self.out) {
                    Ok(()) => {
                        self.routes.insert(id, Route::Writer(sink));
                    }
                    Err(error) => sink.closed(&unsendable(error)),
                }
            }
            Command::Append(append) => {
                let id = append.request_id;
                if let Err(error) = self.end.append(append, &mut self.out)
                    && let Some(Route::Writer(sink)) = self.routes.remove(&id)
                {
                    sink.closed(&unsendable(error));
                }
            }
            Command::Forget(id) => {
                if let Some(Route::Once(_)) = self.routes.remove(&id) {
                    self.shared.locked().under_way -= 1;
                }
            }
        }
    }

    fn route(
        &mut self,
        id: i64,
        answer: oneshot::Sender<Result<Reply>>,
        outcome: Result<(), headwater_wire::EncodeError>,
    ) {
        match outcome {
            Ok(()) => {
                self.routes.insert(id, Route::Once(answer));
            }
            Err(error) => {
                self.shared.locked().under_way -= 1;
                let _ = answer.send(Err(unsendable(error)));
            }
        }
    }

    /// Asks a silent server for a sign of life, and gives up one that gives none.
    fn watch(&mut self, cx: &mut Context<'_>) -> Result<()> {
        while self.look.as_mut().poll(cx).is_ready() {
            self.look.as_mut().reset(Instant::now() + self.silence_max / LOOKS);
            if self.routes.is_empty() {
                // It owes us nothing; the next request starts the clock anew.
                self.heard = Instant::now();
                continue;
            }
            let silence = self.heard.elapsed();
            if silence >= self.silence_max {
                let what = format!("server said nothing for {silence:?}");
                return Err(Error::new(ErrorKind::Unavailable, what));
            }
            if silence >= self.silence_max / LOOKS * ASK_AFTER_LOOKS && !self.asked {
                self.asked = true;
                self.end.keep_alive(&mut self.out);
                cx.waker().wake_by_ref();
            }
        }
        Ok(())
    }

    fn end_all(&mut self, error: &Error) {
        // Writers start tasks when they hear of it; where no runtime is left they have none to start.
        let has_runtime = tokio::runtime::Handle::try_current().is_ok();
        let mut inbox = self.shared.locked();
        inbox.ended = Some(error.clone());
        inbox.under_way = 0;
        let commands = mem::take(&mut inbox.commands);
        drop(inbox);
        self.greet = None;
        for route in mem::take(&mut self.routes).into_values() {
            match route {
                Route::Once(answer) => drop(answer.send(Err(error.clone()))),
                Route::Writer(sink) if has_runtime => sink.closed(error),
                Route::Writer(_) => {}
            }
        }
        for command in commands {
            match command {
                Command::Request { answer, .. } | Command::AppendAt { answer, .. } => {
                    drop(answer.send(Err(error.clone())));
                }
                Command::SetUp { sink, .. } if has_runtime => sink.closed(error),
                Command::SetUp { .. } | Command::Append(_) | Command::Forget(_) => {}
            }
        }
    }
}

fn broken(error: io::Error) -> Error {
    Error::caused(ErrorKind::Unavailable, "connection broke", error)
}

fn nonsense(error: headwater_wire::WireError) -> Error {
    Error::caused(ErrorKind::Protocol, "server does not speak the segment store's protocol", error)
}

fn unsendable(error: headwater_wire::EncodeError) -> Error {
    let kind = match error {
        headwater_wire::EncodeError::Version { .. } => ErrorKind::Unsupported,
        _ => ErrorKind::Invalid,
    };
    Error::caused(kind, "request cannot be sent", error)
}
