//! One blocking connection to a segment store: the sans-IO machine of the protocol between a socket and its owner.
//!
//! Frames are queued by the `put_*` methods and leave with [`Connection::flush`]; large payloads are not copied. Replies
//! come in the order of the server.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use headwater_types::WriterId;
use headwater_wire::{ClientEnd, FrameQueue, OutgoingAppend, Reply, Request, Text, Token};

use crate::error::{BenchError, Context};

/// A server that says nothing for so long will not say anything any more.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pieces of one vectored write.
const PIECES_MAX: usize = 64;
/// Replies other than data are short; data asks for more by itself.
const RECEIVE_BYTES: usize = 64 << 10;

/// How appends are framed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// A block of whole events and its end, as the Java client does
    #[default]
    Block,
    /// A lone block end with all events in it, as the Rust client does
    End,
    /// One request for each event
    Event,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    end: ClientEnd,
    out: FrameQueue,
    input: BytesMut,
    next_request: i64,
}

impl Connection {
    /// Connects and says hello; does not wait for the answer.
    pub(crate) fn open(server: &str) -> Result<Self, BenchError> {
        let socket = TcpStream::connect(server).on("connect to", server)?;
        socket.set_nodelay(true).on("configure", "a socket")?;
        socket.set_read_timeout(Some(PATIENCE)).on("configure", "a socket")?;
        socket.set_write_timeout(Some(PATIENCE)).on("configure", "a socket")?;
        let mut out = FrameQueue::new();
        let end = ClientEnd::connect(&mut out);
        Ok(Self { socket, end, out, input: BytesMut::new(), next_request: 1 })
    }

    /// Connects and waits for the answer: what a server may be asked depends on what it says first.
    pub(crate) fn greeted(server: &str) -> Result<Self, BenchError> {
        let mut connection = Self::open(server)?;
        connection.flush()?;
        while !matches!(connection.reply("it had to say hello")?, Reply::Hello { .. }) {}
        Ok(connection)
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Asks and waits for the answer. Nothing else may be under way.
    pub(crate) fn ask(&mut self, make: impl FnOnce(i64) -> Request) -> Result<Reply, BenchError> {
        let id = self.put_request(make)?;
        self.flush()?;
        loop {
            let reply = self.reply("a request was under way")?;
            if reply.request_id() == Some(id) {
                return Ok(reply);
            }
            if !matches!(reply, Reply::Hello { .. } | Reply::KeepAlive) {
                return Err(refused("a request", &reply));
            }
        }
    }

    /// Queues a request and returns its id.
    pub(crate) fn put_request(&mut self, make: impl FnOnce(i64) -> Request) -> Result<i64, BenchError> {
        let id = self.next_request;
        self.next_request += 1;
        self.end.request(&make(id), &mut self.out)?;
        Ok(id)
    }

    /// Queues the registration of a writer.
    pub(crate) fn put_setup(&mut self, writer: WriterId, segment: &Text) -> Result<(), BenchError> {
        let id = self.next_request;
        self.next_request += 1;
        Ok(self.end.set_up_append(id, writer, segment.clone(), Token::default(), &mut self.out)?)
    }

    /// Registers a writer and waits for it. Nothing else may be under way.
    pub(crate) fn set_up(&mut self, writer: WriterId, segment: &Text) -> Result<(), BenchError> {
        self.put_setup(writer, segment)?;
        self.flush()?;
        loop {
            match self.reply("a writer was registered")? {
                Reply::AppendSetup { .. } => return Ok(()),
                Reply::Hello { .. } | Reply::KeepAlive => {}
                reply => return Err(refused("SetupAppend", &reply)),
            }
        }
    }

    /// Appends whole events and waits for them. Nothing else may be under way.
    pub(crate) fn append(
        &mut self,
        framing: Framing,
        writer: WriterId,
        data: Bytes,
        event_count: usize,
        last_event_number: i64,
    ) -> Result<(), BenchError> {
        self.put_append(framing, writer, data, event_count, last_event_number)?;
        self.flush()?;
        loop {
            match self.reply("an append was under way")? {
                Reply::DataAppended { event_number, .. } if event_number == last_event_number => return Ok(()),
                Reply::KeepAlive => {}
                reply => return Err(refused("an append", &reply)),
            }
        }
    }

    /// Queues whole events; the last has this number, counted from 1.
    pub(crate) fn put_append(
        &mut self,
        framing: Framing,
        writer: WriterId,
        data: Bytes,
        event_count: usize,
        last_event_number: i64,
    ) -> Result<(), BenchError> {
        let event_count = i32::try_from(event_count).expect("a block is far smaller");
        let append = OutgoingAppend { request_id: 1, writer, data, event_count, last_event_number };
        match framing {
            Framing::Block => self.end.append_block(append, &mut self.out)?,
            Framing::End | Framing::Event => self.end.append(append, &mut self.out)?,
        }
        Ok(())
    }

    /// Hands everything queued to the system.
    pub(crate) fn flush(&mut self) -> Result<(), BenchError> {
        while self.out.has_remaining() {
            let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
            let count = self.out.chunks_vectored(&mut pieces);
            match self.socket.write_vectored(&pieces[..count]) {
                Ok(0) => return Err(BenchError::Closed { waiting: "it had to take more" }),
                Ok(written) => self.out.advance(written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(BenchError::Silent { seconds: PATIENCE.as_secs(), waiting: "it had to take more" });
                }
                Err(error) => return Err(error).on("write to", "the server"),
            }
        }
        Ok(())
    }

    /// Waits for the next reply.
    pub(crate) fn reply(&mut self, waiting: &'static str) -> Result<Reply, BenchError> {
        loop {
            if let Some(reply) = self.end.next_reply(&mut self.input)? {
                return Ok(reply);
            }
            self.receive(waiting)?;
        }
    }

    /// A reply that is here already, without asking the system.
    pub(crate) fn buffered_reply(&mut self) -> Result<Option<Reply>, BenchError> {
        Ok(self.end.next_reply(&mut self.input)?)
    }

    /// Waits until some bytes come.
    pub(crate) fn receive(&mut self, waiting: &'static str) -> Result<(), BenchError> {
        let before = self.input.len();
        // What is missing of a large reply at once, within reason: the room is cleared first, while it is in the cache.
        let room = self.end.wanted().clamp(RECEIVE_BYTES, 256 << 10);
        self.input.resize(before + room, 0);
        let outcome = self.socket.read(&mut self.input[before..]);
        self.input.truncate(before + *outcome.as_ref().unwrap_or(&0));
        match outcome {
            Ok(0) => Err(BenchError::Closed { waiting }),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(BenchError::Silent { seconds: PATIENCE.as_secs(), waiting })
            }
            Err(error) => Err(error).on("read from", "the server"),
        }
    }

    /// Creates segments, many at a time.
    pub(crate) fn create(&mut self, segments: &[Text]) -> Result<(), BenchError> {
        self.each(segments, "CreateSegment", |request_id, segment| Request::CreateSegment {
            request_id,
            segment,
            target_rate: 0,
            scale_type: 0,
            token: Token::default(),
            rollover_bytes: 0,
        })
    }

    /// Deletes segments, many at a time.
    pub(crate) fn delete(&mut self, segments: &[Text]) -> Result<(), BenchError> {
        self.each(segments, "DeleteSegment", |request_id, segment| Request::DeleteSegment {
            request_id,
            segment,
            token: Token::default(),
        })
    }

    fn each(
        &mut self,
        segments: &[Text],
        name: &'static str,
        make: impl Fn(i64, Text) -> Request,
    ) -> Result<(), BenchError> {
        for segments in segments.chunks(64) {
            for segment in segments {
                self.put_request(|id| make(id, segment.clone()))?;
            }
            self.flush()?;
            let mut left = segments.len();
            while left > 0 {
                match self.reply("segments were made or removed")? {
                    Reply::SegmentCreated { .. } | Reply::SegmentDeleted { .. } => left -= 1,
                    Reply::Hello { .. } | Reply::KeepAlive => {}
                    reply => return Err(refused(name, &reply)),
                }
            }
        }
        Ok(())
    }
}

/// The error for an answer nobody hoped for.
pub(crate) fn refused(request: &'static str, reply: &Reply) -> BenchError {
    // Data does not belong in a message.
    let reply = match reply {
        Reply::SegmentRead { .. } => reply.name().to_owned(),
        reply => format!("{reply:?}"),
    };
    BenchError::Refused { request, reply }
}
