//! A store in a temporary directory, and clients that speak to it over loopback.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use headwater_engine::io::{Disk, Io, RealClock, RealDisk, RealRandom};
use headwater_engine::{Engine, Options};
use headwater_server::Guard;
use headwater_server::connection::{self, AnswerRoom, Context, ReadRoom, ReceivingRoom};
use headwater_server::loads::Loads;
use headwater_server::metrics::Metrics;
use headwater_server::ports::EnginePorts;
use headwater_types::WriterId;
use headwater_wire::{ClientEnd, FrameQueue, OutgoingAppend, Reply, Request, TableEntry, TableKey, Token};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A name as clients use it.
pub(crate) const SEGMENT: &str = "scope/stream/0.#epoch.0";

/// A store that serves every connection made to it.
pub(crate) struct Store {
    pub(crate) engine: Engine,
    pub(crate) metrics: Metrics,
    pub(crate) stopping: CancellationToken,
    address: std::net::SocketAddr,
    _directory: TempDir,
}

impl Drop for Store {
    /// Nothing is written any more when the directory is removed.
    fn drop(&mut self) {
        self.engine.close();
    }
}

impl Store {
    pub(crate) async fn open() -> Self {
        Self::open_on(|root| Arc::new(RealDisk::new(root))).await
    }

    /// Opens it on another disk, which is made for a directory.
    pub(crate) async fn open_on(disk: impl FnOnce(&std::path::Path) -> Arc<dyn Disk>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let io =
            Io { disk: disk(directory.path()), clock: Arc::new(RealClock::default()), random: Arc::new(RealRandom) };
        // Small files, since each test writes its own.
        let options =
            Options { containers: 2, memory_bytes: 256 << 20, journal_file_bytes: 48 << 20, ..Options::default() };
        let on_fatal = Arc::new(|error| panic!("{error}"));
        let opening = tokio::task::spawn_blocking(move || Engine::open(io, &options, on_fatal).unwrap());
        let engine = opening.await.unwrap();
        EnginePorts::open(engine.clone()).await.unwrap();
        let (metrics, stopping) = (Metrics::new(), CancellationToken::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let context = Context {
            engine: engine.clone(),
            metrics: metrics.clone(),
            loads: Loads::default(),
            guard: Guard::off(),
            receiving: ReceivingRoom::new(32 << 20, false),
            reading: ReadRoom::new(32 << 20),
            answering: AnswerRoom::new(16 << 20),
            replying: AnswerRoom::new(16 << 20),
            parking: Context::places_to_wait(8 << 20),
            stopping: stopping.clone(),
        };
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(connection::serve(socket, context.clone()));
            }
        });
        Self { engine, metrics, stopping, address, _directory: directory }
    }

    /// A connection without a word said.
    pub(crate) async fn socket(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection after the handshake.
    pub(crate) async fn client(&self) -> Client {
        Client::greet(self.socket().await).await
    }
}

/// One client.
pub(crate) struct Client<S = TcpStream> {
    pub(crate) end: ClientEnd,
    pub(crate) out: FrameQueue,
    input: BytesMut,
    pub(crate) socket: S,
    id: i64,
    /// Sent with each request.
    pub(crate) token: Token,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// A connection after the handshake.
    pub(crate) async fn greet(socket: S) -> Self {
        let mut out = FrameQueue::new();
        let end = ClientEnd::connect(&mut out);
        let mut client = Self { end, out, input: BytesMut::new(), socket, id: 0, token: Token::default() };
        client.send().await;
        assert_eq!(client.reply().await, Reply::hello());
        client
    }

    /// A request id that was not used before.
    pub(crate) fn id(&mut self) -> i64 {
        self.id += 1;
        self.id
    }

    /// Sends what was put into `out`.
    pub(crate) async fn send(&mut self) {
        while self.out.has_remaining() {
            self.socket.write_buf(&mut self.out).await.unwrap();
        }
        // TLS may hold the end of it otherwise.
        self.socket.flush().await.unwrap();
    }

    /// The next reply; `None` if the server closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Reply> {
        tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(reply) = self.end.next_reply(&mut self.input).unwrap() {
                    return Some(reply);
                }
                self.input.reserve(self.end.wanted().max(4096));
                if self.socket.read_buf(&mut self.input).await.unwrap() == 0 {
                    return None;
                }
            }
        })
        .await
        .expect("the server answers or closes")
    }

    pub(crate) async fn reply(&mut self) -> Reply {
        self.next().await.expect("a reply, not the end of the connection")
    }

    /// Sends a request and takes the next reply.
    pub(crate) async fn ask(&mut self, request: Request) -> Reply {
        self.end.request(&request, &mut self.out).unwrap();
        self.send().await;
        self.reply().await
    }

    /// Sends a request and does not wait.
    pub(crate) async fn tell(&mut self, request: Request) {
        self.end.request(&request, &mut self.out).unwrap();
        self.send().await;
    }

    pub(crate) async fn create(&mut self, segment: &str) {
        let request_id = self.id();
        let request = Request::CreateSegment {
            request_id,
            segment: segment.into(),
            target_rate: 0,
            scale_type: 0,
            token: self.token.clone(),
            rollover_bytes: 0,
        };
        assert_eq!(self.ask(request).await, Reply::SegmentCreated { request_id, segment: segment.into() });
    }

    /// Sets a writer up and returns what the server has stored for it.
    pub(crate) async fn set_up(&mut self, writer: u128, segment: &str) -> i64 {
        match self.try_set_up(writer, segment).await {
            Reply::AppendSetup { last_event_number, .. } => last_event_number,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn try_set_up(&mut self, writer: u128, segment: &str) -> Reply {
        let id = self.id();
        let token = self.token.clone();
        self.end.set_up_append(id, WriterId(writer), segment.into(), token, &mut self.out).unwrap();
        self.send().await;
        self.reply().await
    }

    /// Puts an append into `out`, one event whose number is also the request's id.
    pub(crate) fn put_append(&mut self, writer: u128, number: i64, data: &[u8]) {
        self.end.append(outgoing(writer, number, data), &mut self.out).unwrap();
    }

    pub(crate) async fn append(&mut self, writer: u128, number: i64, data: &[u8]) -> Reply {
        self.put_append(writer, number, data);
        self.send().await;
        self.reply().await
    }

    pub(crate) async fn append_at(&mut self, writer: u128, number: i64, offset: i64, data: &[u8]) -> Reply {
        self.end.append_at(outgoing(writer, number, data), offset, &mut self.out).unwrap();
        self.send().await;
        self.reply().await
    }

    pub(crate) async fn info(&mut self, segment: &str) -> Reply {
        let request_id = self.id();
        self.ask(Request::GetStreamSegmentInfo { request_id, segment: segment.into(), token: self.token.clone() }).await
    }

    pub(crate) async fn length(&mut self, segment: &str) -> i64 {
        match self.info(segment).await {
            Reply::StreamSegmentInfo { write_offset, .. } => write_offset,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn seal(&mut self, segment: &str) -> Reply {
        let request_id = self.id();
        self.ask(Request::SealSegment { request_id, segment: segment.into(), token: self.token.clone() }).await
    }
}

pub(crate) fn outgoing(writer: u128, number: i64, data: &[u8]) -> OutgoingAppend {
    OutgoingAppend {
        request_id: number,
        writer: WriterId(writer),
        data: Bytes::copy_from_slice(data),
        event_count: 1,
        last_event_number: number,
    }
}

pub(crate) fn read(segment: &str, offset: i64, suggested_length: i32, request_id: i64) -> Request {
    Request::ReadSegment { segment: segment.into(), offset, suggested_length, token: Token::default(), request_id }
}

/// The acknowledgement of an append made with [`Client::append`].
pub(crate) fn acknowledged(writer: u128, number: i64, previous: i64, segment_length: i64) -> Reply {
    Reply::DataAppended {
        writer: WriterId(writer),
        event_number: number,
        previous_event_number: previous,
        request_id: number,
        segment_length,
    }
}

pub(crate) fn entry(key: &str, version: i64, value: &str) -> TableEntry {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    TableEntry { key: TableKey { key: bytes(key), version }, value: bytes(value) }
}
