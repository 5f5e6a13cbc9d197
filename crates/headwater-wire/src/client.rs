//! The client's end of a connection: commands in, frames out; bytes in any cuts in, replies out.
//!
//! Data goes out in the three ways the published clients use: a lone block end ([`ClientEnd::append`], as the Rust client
//! does), a block of exactly the data ([`ClientEnd::append_block`]), or an open block that takes more appends while it is
//! already on its way ([`ClientEnd::open_block`]; the last two as the Java client does).
//!
//! Invariants:
//! * the first frame out is Hello, and the first reply taken is the server's Hello
//! * nothing leaves between a block and its end: every other command closes the block first (`ClientEnd::break_block`)
//! * a block's frame has as many bytes as it announced (`ClientEnd::break_block`, `ClientEnd::append_to_block`)
//! * after the first error of the input nothing but that error leaves (`ClientEnd::next_reply`)
//!
//! Not here: which requests are under way, event numbers, retries, time.

use bytes::{Bytes, BytesMut};
use headwater_types::{EventNumber, WriterId};

use crate::append::{AppendCommand, HELLO, SessionCommand};
use crate::block::{PADDING, PARTIAL_EVENT};
use crate::error::{EncodeError, WireError};
use crate::field::{Event, Field, Rest, Text, Token};
use crate::frame;
use crate::reply::Reply;
use crate::request::Request;
use crate::{
    FRAME_PAYLOAD_BYTES_MAX, FrameSink, HEADER_BYTES, HELLO_FRAME_BYTES_MAX, SERVER_FRAME_BYTES_MAX, VERSION,
    VERSION_OLDEST, versions_overlap,
};

/// Version since which servers know `ConditionalBlockEnd`.
const CONDITIONAL_BLOCK_END_SINCE: i32 = 11;
/// Bytes of an append block's payload before its data.
const BLOCK_PREFIX_BYTES: usize = 16;

/// Data on its way to a segment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OutgoingAppend {
    /// Comes back in the acknowledgement.
    pub request_id: i64,
    /// A writer that was set up on this connection.
    pub writer: WriterId,
    /// What to store.
    pub data: Bytes,
    /// Number of events in `data`; at least 1 or the server closes the connection.
    pub event_count: i32,
    /// Number of the last of them.
    pub last_event_number: EventNumber,
}

/// A block that still has room.
#[derive(Debug)]
struct OpenBlock {
    writer: WriterId,
    request_id: i64,
    /// Bytes of whole events written.
    whole_bytes: usize,
    /// Bytes that still fit, without the filler's header.
    room: usize,
    event_count: i32,
    last_event_number: EventNumber,
}

/// The client's end of one connection: give it commands and where their frames go, feed it what the server sent.
///
/// It keeps the open block, closes it before anything else is sent, refuses commands that the server is too old for, and
/// checks the server's Hello. Frames go out in the order of the calls; one queue per connection.
#[derive(Debug, Default)]
pub struct ClientEnd {
    /// Newest version both sides speak, once the server said hello.
    agreed: Option<i32>,
    block: Option<OpenBlock>,
    wanted: usize,
    failed: Option<WireError>,
}

impl ClientEnd {
    /// A new connection, whose first frame, our Hello, goes to `out`.
    pub fn connect(out: &mut impl FrameSink) -> Self {
        let hello = SessionCommand::Hello { high_version: VERSION, low_version: VERSION_OLDEST };
        hello.encode(out).expect("a hello has 16 bytes");
        Self { wanted: HEADER_BYTES, ..Self::default() }
    }

    /// Newest version both sides speak; `None` before the server's Hello. Commands can be sent before that, except those
    /// that a server of the oldest version would not know.
    pub fn agreed_version(&self) -> Option<i32> {
        self.agreed
    }

    /// Asks the server for a sign of life.
    pub fn keep_alive(&mut self, out: &mut impl FrameSink) {
        self.break_block(out);
        SessionCommand::KeepAlive.encode(out).expect("a keep-alive has no payload");
    }

    /// Sends a request.
    ///
    /// # Errors
    /// It is too large, or newer than the server. Then nothing was sent.
    pub fn request(&mut self, request: &Request, out: &mut impl FrameSink) -> Result<(), EncodeError> {
        self.check_version(request.name(), request.since_version())?;
        request.check()?;
        self.break_block(out);
        request.encode(out)
    }

    /// Registers a writer for a segment. Its data goes there until it is set up for another one.
    ///
    /// # Errors
    /// The name or token is too long. Then nothing was sent.
    pub fn set_up_append(
        &mut self,
        request_id: i64,
        writer: WriterId,
        segment: Text,
        token: Token,
        out: &mut impl FrameSink,
    ) -> Result<(), EncodeError> {
        let command = AppendCommand::SetupAppend { request_id, writer, segment, token };
        self.send(&command, out)
    }

    /// Sends data as a lone block end.
    ///
    /// # Errors
    /// There is too much of it. Then nothing was sent.
    pub fn append(&mut self, append: OutgoingAppend, out: &mut impl FrameSink) -> Result<(), EncodeError> {
        let command = AppendCommand::AppendBlockEnd {
            writer: append.writer,
            whole_bytes: i32_length(append.data.len())?,
            data: append.data,
            event_count: append.event_count,
            last_event_number: append.last_event_number,
            request_id: append.request_id,
        };
        self.send(&command, out)
    }

    /// Sends data as a block of exactly its size and an end without data.
    ///
    /// # Errors
    /// There is too much of it. Then nothing was sent.
    pub fn append_block(&mut self, append: OutgoingAppend, out: &mut impl FrameSink) -> Result<(), EncodeError> {
        let OutgoingAppend { request_id, writer, data, event_count, last_event_number } = append;
        let whole_bytes = i32_length(data.len())?;
        self.send(&AppendCommand::AppendBlock { writer, data: Rest(data) }, out)?;
        put_end(
            AppendCommand::AppendBlockEnd {
                writer,
                whole_bytes,
                data: Bytes::new(),
                event_count,
                last_event_number,
                request_id,
            },
            out,
        );
        Ok(())
    }

    /// Opens a block with room for `block_bytes` bytes of data, of which the append is the first part, and leaves it
    /// open for [`append_to_block`](Self::append_to_block). An append that leaves no room goes as
    /// [`append_block`](Self::append_block).
    ///
    /// # Errors
    /// The block or the append is too large. Then nothing was sent.
    pub fn open_block(
        &mut self,
        append: OutgoingAppend,
        block_bytes: usize,
        out: &mut impl FrameSink,
    ) -> Result<(), EncodeError> {
        let whole_bytes = append.data.len();
        if whole_bytes >= block_bytes {
            return self.append_block(append, out);
        }
        // The filler needs a header, so a block with room announces 8 bytes more than it has for data.
        let payload_bytes = block_bytes.saturating_add(BLOCK_PREFIX_BYTES + HEADER_BYTES);
        let limit = SERVER_FRAME_BYTES_MAX - HEADER_BYTES;
        if payload_bytes > limit {
            return Err(EncodeError::FrameTooLong { bytes: payload_bytes, limit });
        }
        self.break_block(out);
        let head = AppendCommand::AppendBlock { writer: append.writer, data: Rest::default() };
        frame::put_header(head.code(), payload_bytes, out);
        append.writer.put(out);
        out.put_shared(&append.data);
        self.block = Some(OpenBlock {
            writer: append.writer,
            request_id: append.request_id,
            whole_bytes,
            room: block_bytes - whole_bytes,
            event_count: append.event_count,
            last_event_number: append.last_event_number,
        });
        Ok(())
    }

    /// Puts more data into the open block of the same writer. What does not leave room closes the block: as much as fits
    /// is its partial event and the rest goes with the end. The request id of the block's first append rules.
    ///
    /// Returns whether the data was taken: not if no block of this writer is open.
    ///
    /// # Errors
    /// There is too much of it. Then nothing was sent and the block is as before.
    pub fn append_to_block(&mut self, append: &OutgoingAppend, out: &mut impl FrameSink) -> Result<bool, EncodeError> {
        let Some(block) = self.block.as_mut().filter(|block| block.writer == append.writer) else {
            return Ok(false);
        };
        let event_count = block.event_count.saturating_add(append.event_count);
        if append.data.len() < block.room {
            out.put_shared(&append.data);
            block.whole_bytes += append.data.len();
            block.room -= append.data.len();
            block.event_count = event_count;
            block.last_event_number = append.last_event_number;
            return Ok(true);
        }
        let end = AppendCommand::AppendBlockEnd {
            writer: block.writer,
            whole_bytes: i32_length(block.whole_bytes)?,
            data: append.data.slice(block.room..),
            event_count,
            last_event_number: append.last_event_number,
            request_id: block.request_id,
        };
        // Measured first: once the partial event is out, the end has to follow.
        end.check()?;
        frame::put_header(PARTIAL_EVENT, block.room, out);
        out.put_shared(&append.data.slice(..block.room));
        self.block = None;
        put_end(end, out);
        Ok(true)
    }

    /// Closes the open block, if there is one, with padding for the room that is left.
    pub fn break_block(&mut self, out: &mut impl FrameSink) {
        let Some(block) = self.block.take() else { return };
        frame::put_header(PADDING, block.room, out);
        let zeros = [0; 4096];
        let mut left = block.room;
        while left > 0 {
            let step = left.min(zeros.len());
            out.put_slice(&zeros[..step]);
            left -= step;
        }
        put_end(
            AppendCommand::AppendBlockEnd {
                writer: block.writer,
                whole_bytes: i32_length(block.whole_bytes).expect("a block is smaller than the frame limit"),
                data: Bytes::new(),
                event_count: block.event_count,
                last_event_number: block.last_event_number,
                request_id: block.request_id,
            },
            out,
        );
    }

    /// Sends data that is stored only if the segment has `expected_offset` bytes. The event count is not sent: it counts
    /// as one.
    ///
    /// # Errors
    /// There is too much of it, or the server is older than version 11. Then nothing was sent.
    pub fn append_at(
        &mut self,
        append: OutgoingAppend,
        expected_offset: i64,
        out: &mut impl FrameSink,
    ) -> Result<(), EncodeError> {
        self.check_version("ConditionalBlockEnd", CONDITIONAL_BLOCK_END_SINCE)?;
        let command = AppendCommand::ConditionalBlockEnd {
            writer: append.writer,
            event_number: append.last_event_number,
            expected_offset,
            data: append.data,
            request_id: append.request_id,
        };
        self.send(&command, out)
    }

    /// Sends one event, whose header is added, that is stored only if the segment has `expected_offset` bytes.
    ///
    /// # Errors
    /// It is too large. Then nothing was sent.
    pub fn append_event_at(
        &mut self,
        append: OutgoingAppend,
        expected_offset: i64,
        out: &mut impl FrameSink,
    ) -> Result<(), EncodeError> {
        let command = AppendCommand::ConditionalAppend {
            writer: append.writer,
            event_number: append.last_event_number,
            expected_offset,
            event: Event::new(&append.data)?,
            request_id: append.request_id,
        };
        self.send(&command, out)
    }

    /// Takes the next reply off the front of `input`; `None` when more bytes are needed, and then [`wanted`](Self::wanted)
    /// tells how many. The server's Hello comes out like any other reply, after it was checked.
    ///
    /// # Errors
    /// The connection has to be closed. Every later call returns the same error.
    pub fn next_reply(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, WireError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let outcome = self.advance(input);
        if let Err(error) = &outcome {
            self.failed = Some(error.clone());
        }
        outcome
    }

    /// Bytes missing for the frame at the front of the input (its header, as long as that is incomplete), as of the last
    /// [`next_reply`](Self::next_reply) that returned `None`.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    fn advance(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, WireError> {
        let Some(header) = frame::peek(input)? else {
            self.wanted = HEADER_BYTES - input.len();
            return Ok(None);
        };
        let code = header.code;
        if !Reply::has_code(code) {
            return Err(WireError::UnexpectedCommand { code });
        }
        if self.agreed.is_none() {
            if code != HELLO {
                return Err(WireError::HelloMissing { code });
            }
            header.check_limit(HELLO_FRAME_BYTES_MAX)?;
        }
        header.check_limit(HEADER_BYTES + FRAME_PAYLOAD_BYTES_MAX)?;
        if input.len() < header.frame_bytes() {
            self.wanted = header.frame_bytes() - input.len();
            return Ok(None);
        }
        let reply = frame::cut(input, header, |reader| Reply::decode(code, &mut reader.copying_once()))?;
        if let Reply::Hello { high_version, low_version } = reply {
            if !versions_overlap(high_version, low_version) {
                return Err(WireError::VersionsDoNotOverlap { low: low_version, high: high_version });
            }
            self.agreed = Some(high_version.min(VERSION));
        }
        self.wanted = HEADER_BYTES;
        Ok(Some(reply))
    }

    /// Closes the open block and sends the command. If it cannot be encoded, the block stays open and nothing is sent.
    fn send(&mut self, command: &AppendCommand, out: &mut impl FrameSink) -> Result<(), EncodeError> {
        command.check()?;
        self.break_block(out);
        command.encode(out)
    }

    fn check_version(&self, command: &'static str, needed: i32) -> Result<(), EncodeError> {
        if needed <= self.agreed.unwrap_or(VERSION_OLDEST) {
            Ok(())
        } else {
            Err(EncodeError::Version { command, needed, agreed: self.agreed })
        }
    }
}

/// The end of a block whose data was already measured.
fn put_end(end: AppendCommand, out: &mut impl FrameSink) {
    end.encode(out).expect("an end without data, or one that was checked, fits into a frame");
}

fn i32_length(bytes: usize) -> Result<i32, EncodeError> {
    i32::try_from(bytes).map_err(|_| EncodeError::FrameTooLong { bytes, limit: SERVER_FRAME_BYTES_MAX - HEADER_BYTES })
}
