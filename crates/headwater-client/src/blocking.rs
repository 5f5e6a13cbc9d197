//! The client for programs without asynchronous code: every call waits on the calling thread until it is done.
//!
//! ```no_run
//! # fn main() -> headwater_client::Result<()> {
//! use headwater_client::{EventWriterOptions, ReadFrom, ScopedStream, StreamConfig, blocking};
//!
//! let client = blocking::Client::connect("tcp://127.0.0.1:9090")?;
//! let stream = ScopedStream::parse("shop/orders").expect("a name");
//! client.run(client.asynchronous().create_scope(&stream.scope))?;
//! client.run(client.asynchronous().create_stream(&stream, &StreamConfig::fixed(1)))?;
//! let mut writer = client.event_writer(&stream, EventWriterOptions::default())?;
//! writer.write("customer 7", "an order")?.wait()?;
//! let mut reader = client.stream_reader(&stream, ReadFrom::Head)?;
//! assert_eq!(reader.next()?.expect("it is not sealed").event, "an order");
//! # Ok(())
//! # }
//! ```
//!
//! A thin layer over the client of this crate: what is not here is reached with [`Client::run`], which waits for any future of
//! [`Client::asynchronous`].
//!
//! * **Inside a Tokio runtime** every call is refused with `Invalid` and asks nobody: it would stop whatever else the thread
//!   has to do. That is so on all threads that belong to a runtime, those of `spawn_blocking` among them; use the asynchronous
//!   client there. Handles may be dropped anywhere. A call that takes its handle (commit, abort, close) drops it all the same:
//!   such a transaction ends with its lease.
//! * **Time**: calls end as those of the asynchronous client do, after
//!   [`retry_for`](crate::ClientOptions::retry_for), which leaves the last attempt a second, but for a person's sign-in, which takes as long as its code is good. Where the nature of a call is to wait for
//!   others (the next event, bytes at the tail, an acknowledgement while the server has no room), `…_within` gives up after a
//!   time of the caller's, and nothing is lost. A full server lets writes wait as long as it is full: so do `write` and
//!   `flush`, and not `write_within` and `flush_within`.
//! * **Threads**: a client starts two, which serve its connections. They end when the last of its handles (writers, readers,
//!   …) is dropped; what was handed over and not flushed is given up then.
//!
//! The types are [`Send`] and are used by one thread at a time; a [`Client`] is cheap to clone and can be used by many.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_records::{Position, StreamCut};
use headwater_types::{Name, ScopedStream, TransactionId};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::{Handle, Runtime};

use crate::error::{Error, ErrorKind, Result};
use crate::{
    Batch, ByteWriterOptions, ClientOptions, Delivery, Entry, EventWriterOptions, Put, ReadEvent, ReadFrom,
    ReaderOptions, ScopedTable, TransactionOptions, Version, Written,
};

/// Threads that serve a client's connections: most of the work is done by the thread that calls.
const THREADS: usize = 2;

/// What a wait with a limit came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Waited<T> {
    /// This came.
    Ready(T),
    /// Nothing came in time. The next call goes on waiting.
    TimedOut,
    /// Nothing will come any more: what was sealed is read to its end.
    End,
}

impl<T> Waited<T> {
    fn of(outcome: Option<Option<T>>) -> Self {
        match outcome {
            Some(Some(ready)) => Self::Ready(ready),
            Some(None) => Self::End,
            None => Self::TimedOut,
        }
    }
}

/// The runtime of one client and its handles.
#[derive(Debug)]
struct Runner(Option<Runtime>);

impl Drop for Runner {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Without waiting, which is forbidden where the last handle may be dropped.
            runtime.shutdown_background();
        }
    }
}

impl Runner {
    fn start() -> Result<Arc<Self>> {
        refuse_inside_runtime()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("headwater-client")
            .enable_all()
            .build()
            .map_err(|error| Error::caused(ErrorKind::Exhausted, "threads cannot be started", error))?;
        Ok(Arc::new(Self(Some(runtime))))
    }

    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("taken when it is dropped only")
    }

    fn run<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        refuse_inside_runtime()?;
        self.runtime().block_on(future)
    }

    /// `None`: not in time.
    fn run_within<T>(&self, limit: Duration, future: impl Future<Output = Result<T>>) -> Result<Option<T>> {
        self.run(async { tokio::time::timeout(limit, future).await.ok().transpose() })
    }
}

fn refuse_inside_runtime() -> Result<()> {
    match Handle::try_current() {
        Err(_) => Ok(()),
        Ok(_) => {
            let what = "the blocking client was called on a thread of a Tokio runtime; use the asynchronous one there";
            Err(Error::new(ErrorKind::Invalid, what))
        }
    }
}

/// A client of one cluster whose calls wait. See the [module](self) for what they do inside a runtime, and how long they wait.
#[derive(Clone, Debug)]
pub struct Client {
    inner: crate::Client,
    runner: Arc<Runner>,
}

impl Client {
    /// As [`crate::Client::connect`].
    ///
    /// # Errors
    /// As there. `Exhausted`: the system gives no threads.
    pub fn connect(address: &str) -> Result<Self> {
        Self::with(ClientOptions::new(address)?)
    }

    /// A client with settings of its own.
    ///
    /// # Errors
    /// As [`ClientOptions::connect`]. `Exhausted`: the system gives no threads.
    pub fn with(options: ClientOptions) -> Result<Self> {
        let runner = Runner::start()?;
        let inner = {
            let _inside = runner.runtime().enter();
            options.connect()?
        };
        Ok(Self { inner, runner })
    }

    /// Blocking calls of a client that there is already, such as that of a store in this process. The runtime that it was made in
    /// has to live on.
    ///
    /// # Errors
    /// `Exhausted`: the system gives no threads.
    pub fn over(client: crate::Client) -> Result<Self> {
        Ok(Self { inner: client, runner: Runner::start()? })
    }

    /// The client below, for what has no blocking call of its own.
    pub fn asynchronous(&self) -> &crate::Client {
        &self.inner
    }

    /// Waits for a future, most likely one of [`asynchronous`](Self::asynchronous). What it starts goes on after it has returned.
    ///
    /// # Errors
    /// Those of the future; `Invalid`: this is a thread of a runtime, and the future was dropped without being begun.
    pub fn run<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        self.runner.run(future)
    }

    /// As [`run`](Self::run), at most for so long; `None` if that was not enough, and the future is dropped, which does what its
    /// own documentation says.
    ///
    /// # Errors
    /// As `run`.
    pub fn run_within<T>(&self, limit: Duration, future: impl Future<Output = Result<T>>) -> Result<Option<T>> {
        self.runner.run_within(limit, future)
    }

    /// As [`crate::Client::event_writer`].
    ///
    /// # Errors
    /// As there.
    pub fn event_writer(&self, stream: &ScopedStream, options: EventWriterOptions) -> Result<EventWriter> {
        let inner = self.run(self.inner.event_writer(stream, options))?;
        Ok(EventWriter { inner, runner: self.runner.clone() })
    }

    /// As [`crate::Client::stream_reader`]: reads a stream alone.
    ///
    /// # Errors
    /// As there.
    pub fn stream_reader(&self, stream: &ScopedStream, from: ReadFrom) -> Result<StreamReader> {
        let inner = self.run(self.inner.stream_reader(stream, from))?;
        Ok(StreamReader { inner, runner: self.runner.clone() })
    }

    /// Adds a reader to a group that there is, as [`crate::ReaderGroup::reader_with`] does.
    ///
    /// # Errors
    /// As there; `NotFound`: there is no such group.
    pub fn group_reader(&self, scope: &Name, group: &Name, id: &str, options: ReaderOptions) -> Result<GroupReader> {
        let inner = self.run(async { self.inner.reader_group(scope, group).await?.reader_with(id, options).await })?;
        Ok(GroupReader { inner, runner: self.runner.clone() })
    }

    /// Begins a transaction, as [`crate::TransactionWriter::begin`] does.
    ///
    /// # Errors
    /// As there.
    pub fn begin_transaction(&self, stream: &ScopedStream, options: TransactionOptions) -> Result<Transaction> {
        let writer = self.inner.transaction_writer(stream, options);
        Ok(Transaction { inner: self.run(writer.begin())?, runner: self.runner.clone() })
    }

    /// Takes up a transaction, as [`crate::TransactionWriter::resume`] does.
    ///
    /// # Errors
    /// As there.
    pub fn resume_transaction(
        &self,
        stream: &ScopedStream,
        options: TransactionOptions,
        id: TransactionId,
    ) -> Result<Transaction> {
        let writer = self.inner.transaction_writer(stream, options);
        Ok(Transaction { inner: self.run(writer.resume(id))?, runner: self.runner.clone() })
    }

    /// As [`crate::Client::table`].
    ///
    /// # Errors
    /// As there.
    pub fn table(&self, name: &ScopedTable) -> Result<Table> {
        Ok(Table { inner: self.run(self.inner.table(name))?, runner: self.runner.clone() })
    }

    /// As [`crate::Client::byte_writer`].
    ///
    /// # Errors
    /// As there.
    pub fn byte_writer(&self, stream: &ScopedStream, options: ByteWriterOptions) -> Result<ByteWriter> {
        let inner = self.run(self.inner.byte_writer(stream, options))?;
        Ok(ByteWriter { inner, runner: self.runner.clone() })
    }

    /// As [`crate::Client::byte_reader`].
    ///
    /// # Errors
    /// As there.
    pub fn byte_reader(&self, stream: &ScopedStream, from: u64) -> Result<ByteReader> {
        let inner = self.run(self.inner.byte_reader(stream, from))?;
        Ok(ByteReader { inner, runner: self.runner.clone() })
    }
}

/// Writes events; see [`crate::EventWriter`].
#[derive(Debug)]
pub struct EventWriter {
    inner: crate::EventWriter,
    runner: Arc<Runner>,
}

impl EventWriter {
    /// Hands over an event and returns as soon as there is room for it; the [`Ack`] tells when it is stored.
    ///
    /// # Errors
    /// As [`crate::EventWriter::write`].
    pub fn write(&mut self, routing_key: &str, event: impl Into<Bytes>) -> Result<Ack> {
        let inner = self.runner.run(self.inner.write(routing_key, event))?;
        Ok(Ack { inner, runner: self.runner.clone() })
    }

    /// As [`write`](Self::write), waiting for room at most for so long; `None`: there was none, and the event was not handed
    /// over.
    ///
    /// # Errors
    /// As `write`.
    pub fn write_within(&mut self, limit: Duration, routing_key: &str, event: impl Into<Bytes>) -> Result<Option<Ack>> {
        let inner = self.runner.run_within(limit, self.inner.write(routing_key, event))?;
        Ok(inner.map(|inner| Ack { inner, runner: self.runner.clone() }))
    }

    /// As [`crate::EventWriter::write_all`]: several events of one key, all or none.
    ///
    /// # Errors
    /// As there.
    pub fn write_all(&mut self, routing_key: &str, events: &[Bytes]) -> Result<Ack> {
        let inner = self.runner.run(self.inner.write_all(routing_key, events))?;
        Ok(Ack { inner, runner: self.runner.clone() })
    }

    /// Waits until everything that was handed over before is stored.
    ///
    /// # Errors
    /// As [`crate::EventWriter::flush`].
    pub fn flush(&mut self) -> Result<()> {
        self.runner.run(self.inner.flush())
    }

    /// As [`flush`](Self::flush), at most for so long; `false`: not everything is stored yet, and the next flush waits for it, too.
    ///
    /// # Errors
    /// As `flush`.
    pub fn flush_within(&mut self, limit: Duration) -> Result<bool> {
        Ok(self.runner.run_within(limit, self.inner.flush())?.is_some())
    }
}

/// An event on its way. Dropping it changes nothing for the event.
#[derive(Debug)]
#[must_use = "an event is stored when its Ack says so; call flush if single events do not matter"]
pub struct Ack {
    inner: crate::Ack,
    runner: Arc<Runner>,
}

impl Ack {
    /// Waits until the event is stored.
    ///
    /// # Errors
    /// As [`crate::EventWriter::write`] says of its `Ack`.
    pub fn wait(self) -> Result<Written> {
        self.runner.run(self.inner)
    }

    /// As [`wait`](Self::wait), at most for so long; `None`: it is still on its way.
    ///
    /// # Errors
    /// As `wait`.
    pub fn wait_within(&mut self, limit: Duration) -> Result<Option<Written>> {
        self.runner.run_within(limit, &mut self.inner)
    }
}

/// Reads a stream alone; see [`crate::StreamReader`].
#[derive(Debug)]
pub struct StreamReader {
    inner: crate::StreamReader,
    runner: Arc<Runner>,
}

impl StreamReader {
    /// The next event; waits for one at the tail. `None` once a sealed stream is read to its end.
    ///
    /// # Errors
    /// As [`crate::StreamReader::next`].
    #[allow(clippy::should_implement_trait, reason = "an iterator cannot tell an error from the end")]
    pub fn next(&mut self) -> Result<Option<ReadEvent>> {
        self.runner.run(self.inner.next())
    }

    /// As [`next`](Self::next), at most for so long.
    ///
    /// # Errors
    /// As `next`.
    pub fn next_within(&mut self, limit: Duration) -> Result<Waited<ReadEvent>> {
        self.runner.run_within(limit, self.inner.next()).map(Waited::of)
    }

    /// As [`crate::StreamReader::next_before`]: `None` also once everything before a cut was handed out.
    ///
    /// # Errors
    /// As there.
    pub fn next_before(&mut self, cut: &StreamCut) -> Result<Option<ReadEvent>> {
        self.runner.run(self.inner.next_before(cut))
    }

    /// As [`crate::StreamReader::cut`]: behind what was handed out.
    ///
    /// # Errors
    /// As there.
    pub fn cut(&self) -> Result<StreamCut> {
        self.inner.cut()
    }
}

/// One reader of a group; see [`crate::EventReader`]. It takes part in the group only while it is asked for events.
#[derive(Debug)]
pub struct GroupReader {
    inner: crate::EventReader,
    runner: Arc<Runner>,
}

impl GroupReader {
    /// The next event or checkpoint; waits for one. `None` once the group has read everything there will be.
    ///
    /// # Errors
    /// As [`crate::EventReader::next`].
    #[allow(clippy::should_implement_trait, reason = "an iterator cannot tell an error from the end")]
    pub fn next(&mut self) -> Result<Option<Delivery>> {
        self.runner.run(self.inner.next())
    }

    /// As [`next`](Self::next), at most for so long.
    ///
    /// # Errors
    /// As `next`.
    pub fn next_within(&mut self, limit: Duration) -> Result<Waited<Delivery>> {
        self.runner.run_within(limit, self.inner.next()).map(Waited::of)
    }

    /// As [`crate::EventReader::next_batch`], at most for so long.
    ///
    /// # Errors
    /// As there.
    pub fn next_batch_within(&mut self, limit: Duration, events_max: usize) -> Result<Waited<Batch>> {
        self.runner.run_within(limit, self.inner.next_batch(events_max)).map(Waited::of)
    }

    /// Where it is: behind the last event that it delivered.
    pub fn position(&self) -> Position {
        self.inner.position()
    }

    /// Leaves the group: others go on behind the last event that was delivered. Dropping the reader leaves it in the group.
    ///
    /// # Errors
    /// As [`crate::EventReader::close`].
    pub fn close(self) -> Result<()> {
        self.runner.run(self.inner.close())
    }
}

/// An open transaction; see [`crate::Transaction`].
#[derive(Debug)]
pub struct Transaction {
    inner: crate::Transaction,
    runner: Arc<Runner>,
}

impl Transaction {
    /// Its identity, by which any process can resume it.
    pub fn id(&self) -> TransactionId {
        self.inner.id()
    }

    /// Hands over an event, which becomes readable with all others of the transaction.
    ///
    /// # Errors
    /// As [`crate::Transaction::write`].
    pub fn write(&mut self, routing_key: &str, event: impl Into<Bytes>) -> Result<Ack> {
        let inner = self.runner.run(self.inner.write(routing_key, event))?;
        Ok(Ack { inner, runner: self.runner.clone() })
    }

    /// Waits until all events are stored and can be read.
    ///
    /// * `time`: as [`crate::Transaction::commit`] has it.
    ///
    /// # Errors
    /// As [`crate::Transaction::commit`]; `Unavailable`: it **may be committed**.
    pub fn commit(self, time: Option<i64>) -> Result<()> {
        self.runner.run(async { self.inner.commit(time).await?.committed().await })
    }

    /// Drops all its events.
    ///
    /// # Errors
    /// As [`crate::Transaction::abort`].
    pub fn abort(self) -> Result<()> {
        self.runner.run(self.inner.abort())
    }
}

/// A table of one segment; see [`crate::Table`].
#[derive(Debug)]
pub struct Table {
    inner: crate::Table,
    runner: Arc<Runner>,
}

impl Table {
    /// What a key holds; `None` if the table does not have it.
    ///
    /// # Errors
    /// As [`crate::Table::get`].
    pub fn get(&self, key: impl Into<Bytes>) -> Result<Option<(Bytes, Version)>> {
        let key = key.into();
        self.runner.run(self.inner.get(&key))
    }

    /// Puts a value, whatever the key holds.
    ///
    /// # Errors
    /// As [`crate::Table::put`].
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Version> {
        self.runner.run(self.inner.put(key, value))
    }

    /// Puts a value if the table does not have the key.
    ///
    /// # Errors
    /// As [`put`](Self::put); `Conflict`: it has it.
    pub fn put_if_absent(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Version> {
        self.runner.run(self.inner.put_if_absent(key, value))
    }

    /// Puts a value if the key has a version.
    ///
    /// # Errors
    /// As [`put`](Self::put); `Conflict`: it has another one, or does not exist.
    pub fn replace(&self, key: impl Into<Bytes>, value: impl Into<Bytes>, version: Version) -> Result<Version> {
        self.runner.run(self.inner.replace(key, value, version))
    }

    /// Puts several values at once, all or none.
    ///
    /// # Errors
    /// As [`crate::Table::update`].
    pub fn update(&self, puts: Vec<Put<Bytes>>) -> Result<Vec<Version>> {
        self.runner.run(self.inner.update(puts))
    }

    /// Removes a key. Nothing happens if the table does not have it.
    ///
    /// # Errors
    /// As [`crate::Table::remove`].
    pub fn remove(&self, key: impl Into<Bytes>) -> Result<()> {
        self.runner.run(self.inner.remove(key))
    }

    /// All entries, page by page, in no order; behind the first error there is nothing.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry<Bytes>>> + use<> {
        let (mut entries, runner) = (self.inner.entries(), self.runner.clone());
        let mut is_over = false;
        std::iter::from_fn(move || {
            if is_over {
                return None;
            }
            let next = runner.run(entries.next()).transpose();
            is_over = !matches!(next, Some(Ok(_)));
            next
        })
    }
}

/// Appends bytes to a stream of one segment; see [`crate::ByteWriter`]. As an [`io::Write`], `write` hands over and `flush` waits
/// until all is stored: without it, what is dropped is given up.
#[derive(Debug)]
pub struct ByteWriter {
    inner: crate::ByteWriter,
    runner: Arc<Runner>,
}

impl ByteWriter {
    /// Offset behind the last byte that is stored, whoever wrote it.
    ///
    /// # Errors
    /// As [`crate::ByteWriter::tail`].
    pub fn tail(&self) -> Result<u64> {
        self.runner.run(self.inner.tail())
    }

    /// Drops everything before an offset.
    ///
    /// # Errors
    /// As [`crate::ByteWriter::truncate`].
    pub fn truncate(&self, to: u64) -> Result<()> {
        self.runner.run(self.inner.truncate(to))
    }

    /// Waits until everything is stored, and lets nothing be written any more, by anybody.
    ///
    /// # Errors
    /// As [`crate::ByteWriter::seal`].
    pub fn seal(&self) -> Result<()> {
        self.runner.run(self.inner.seal())
    }
}

impl io::Write for ByteWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            // Whether it is stored, `flush` tells.
            drop(self.runner.run(self.inner.write(Bytes::copy_from_slice(bytes)))?);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(self.runner.run(self.inner.flush())?)
    }
}

/// Reads the bytes of a stream of one segment; see [`crate::ByteReader`]. As an [`io::Read`] it waits at the tail, and ends where a
/// sealed stream does.
#[derive(Debug)]
pub struct ByteReader {
    inner: crate::ByteReader,
    runner: Arc<Runner>,
}

impl ByteReader {
    /// The next bytes, at most 1 MiB, at most for so long.
    ///
    /// # Errors
    /// As [`crate::ByteReader::next`].
    pub fn next_within(&mut self, limit: Duration) -> Result<Waited<Bytes>> {
        self.runner.run_within(limit, self.inner.next()).map(Waited::of)
    }

    /// Offset of the byte that is read next.
    pub fn offset(&self) -> u64 {
        self.inner.offset()
    }

    /// Goes on at an offset, as [`crate::ByteReader::seek_to`] does.
    pub fn seek_to(&mut self, offset: u64) {
        self.inner.seek_to(offset);
    }

    /// Offset behind the last byte that is stored.
    ///
    /// # Errors
    /// As [`crate::ByteReader::tail`].
    pub fn tail(&self) -> Result<u64> {
        self.runner.run(self.inner.tail())
    }
}

impl io::Read for ByteReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(into);
        let inner = &mut self.inner;
        refuse_inside_runtime()?;
        self.runner.runtime().block_on(std::future::poll_fn(|cx| Pin::new(&mut *inner).poll_read(cx, &mut buffer)))?;
        Ok(buffer.filled().len())
    }
}
