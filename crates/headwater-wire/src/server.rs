//! The server's end of a connection: bytes in any cuts in, requests and whole appends out.
//!
//! ```text
//!   SetupAppend ─────────► registered writers ─────────► SetupAppend event
//!                                │ segment, last number
//!   AppendBlock ──► open block ──┤
//!   AppendBlockEnd ──────────────┴─► whole events ++ partial event ++ end's data ─► Append event
//! ```
//!
//! Invariants:
//! * events leave in the order in which their last frame arrived (`ServerEnd::next_event`)
//! * an append leaves only for a writer that was set up on this connection, goes to the segment of its latest setup,
//!   and its number is not below the writer's number before it (`ServerEnd::finish_append`)
//! * a writer keeps its `slot`, and slots are `0..writers`, fewer than [`WRITERS_MAX`] (`ServerEnd::set_up`)
//! * after the first error nothing but that error leaves (`ServerEnd::next_event`)
//!
//! Not here: what a segment makes of an append, whether a token is good, and answers of any kind.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use headwater_types::limits::SEGMENT_NAME_BYTES_MAX;
use headwater_types::{EventNumber, WriterId};

use crate::append::{APPEND_BLOCK_END, AppendCommand, HELLO, SessionCommand};
use crate::block::{BlockEnd, assemble};
use crate::error::{BlockMismatch, Malformed, WireError};
use crate::field::{Reader, Text, Token};
use crate::frame::{self, Header};
use crate::request::Request;
use crate::{HEADER_BYTES, HELLO_FRAME_BYTES_MAX, SERVER_FRAME_BYTES_MAX, WRITERS_MAX, versions_overlap};

/// What a client wants of the server.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerEvent {
    /// The client's versions overlap ours. Answer with [`Reply::hello`](crate::Reply::hello), also to a second one.
    Hello {
        /// Newest version of the client.
        high_version: i32,
        /// Oldest version of the client.
        low_version: i32,
    },
    /// No version in common: answer with [`Reply::hello`](crate::Reply::hello), which tells the client why, and close.
    /// Nothing follows.
    Incompatible {
        /// Newest version of the client.
        high_version: i32,
        /// Oldest version of the client.
        low_version: i32,
    },
    /// Answer with [`Reply::KeepAlive`](crate::Reply::KeepAlive).
    KeepAlive,
    /// Answer with the writer's last event number on this segment.
    SetupAppend(SetupAppend),
    /// Store it; one acknowledgement or failure for each.
    Append(Append),
    /// Anything else; one reply for each.
    Request(Request),
}

/// A writer announces itself for a segment. Data of this writer goes to this segment until its next setup.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SetupAppend {
    /// The client's id.
    pub request_id: i64,
    /// Who writes.
    pub writer: WriterId,
    /// Number of the writer on this connection, from 0 without gaps and below [`WRITERS_MAX`]. The same writer keeps
    /// it when it is set up again, also for another segment, so it can index a table of the server.
    pub slot: usize,
    /// Where to; at most 1024 bytes, otherwise unchecked.
    pub segment: Text,
    /// The right to do so.
    pub token: Token,
}

/// Bytes to be stored at the end of a segment, all or nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Append {
    /// The client's id, for the acknowledgement; -1 from clients before version 8.
    pub request_id: i64,
    /// Who writes.
    pub writer: WriterId,
    /// See [`SetupAppend::slot`].
    pub slot: usize,
    /// Segment of the writer's latest setup.
    pub segment: Text,
    /// What to store; may be empty. At most [`APPEND_BYTES_MAX`](crate::APPEND_BYTES_MAX).
    pub data: Bytes,
    /// Number of events in `data`, at least 1.
    pub event_count: u32,
    /// Number of the last of them: not below the one before, but possibly equal, which is a stale append.
    pub last_event_number: EventNumber,
    /// Length the segment must have; a negative one can never match.
    pub expected_offset: Option<i64>,
}

/// A writer that was set up.
#[derive(Debug)]
struct Registered {
    segment: Text,
    /// Of the latest append; 0 after setup, so that no negative number passes.
    last_event_number: EventNumber,
}

/// A block whose end has not come.
#[derive(Debug)]
struct OpenBlock {
    writer: WriterId,
    slot: usize,
    data: Bytes,
}

/// The server's end of one connection: feed it what the client sent, do what its events say.
///
/// It remembers which writers were set up for which segment and the block that is open, joins blocks and their ends into
/// whole [`Append`]s in the order of arrival, and refuses whatever breaks the protocol. It writes nothing: answers are
/// encoded with [`Reply::encode`](crate::Reply::encode).
#[derive(Debug, Default)]
pub struct ServerEnd {
    greeted: bool,
    /// By slot.
    registered: Vec<Registered>,
    slots: BTreeMap<WriterId, usize>,
    block: Option<OpenBlock>,
    wanted: usize,
    failed: Option<WireError>,
}

impl ServerEnd {
    /// A connection on which nothing arrived yet.
    pub fn new() -> Self {
        Self { wanted: HEADER_BYTES, ..Self::default() }
    }

    /// Takes the next event off the front of `input`; `None` when more bytes are needed, and then [`wanted`](Self::wanted)
    /// tells how many. The caller owns the buffer, appends what arrives and calls until `None`.
    ///
    /// # Errors
    /// The connection has to be closed. Every later call returns the same error.
    pub fn next_event(&mut self, input: &mut BytesMut) -> Result<Option<ServerEvent>, WireError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let outcome = self.advance(input);
        match &outcome {
            Err(error) => self.fail(error.clone()),
            Ok(Some(ServerEvent::Incompatible { high_version, low_version })) => {
                self.fail(WireError::VersionsDoNotOverlap { low: *low_version, high: *high_version });
            }
            Ok(_) => {}
        }
        outcome
    }

    /// Bytes missing for the frame at the front of the input (its header, as long as that is incomplete), as of the last
    /// [`next_event`](Self::next_event) that returned `None`. Never more than a frame may have, since a longer one is
    /// refused by its header; a peer can announce such a frame with 8 bytes, so reserve in steps if that matters.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    fn fail(&mut self, error: WireError) {
        *self = Self { failed: Some(error), ..Self::default() };
    }

    fn advance(&mut self, input: &mut BytesMut) -> Result<Option<ServerEvent>, WireError> {
        loop {
            let Some(header) = frame::peek(input)? else {
                self.wanted = HEADER_BYTES - input.len();
                return Ok(None);
            };
            self.admit(header)?;
            if input.len() < header.frame_bytes() {
                self.wanted = header.frame_bytes() - input.len();
                return Ok(None);
            }
            if let Some(mut event) = frame::cut(input, header, |reader| self.on_frame(header.code, reader))? {
                if let ServerEvent::Append(append) = &mut event {
                    append.data = frame::without_ballast(std::mem::take(&mut append.data), header.payload_bytes);
                }
                self.wanted = HEADER_BYTES;
                return Ok(Some(event));
            }
        }
    }

    /// Refuses what can be refused by the header, before the rest arrives.
    fn admit(&self, header: Header) -> Result<(), WireError> {
        let code = header.code;
        if !self.greeted {
            if code != HELLO {
                return Err(WireError::HelloMissing { code });
            }
            return header.check_limit(HELLO_FRAME_BYTES_MAX);
        }
        if self.block.is_some() && code != APPEND_BLOCK_END {
            return Err(WireError::BlockOpen { code });
        }
        if !(AppendCommand::has_code(code) || Request::has_code(code) || SessionCommand::has_code(code)) {
            return Err(WireError::UnexpectedCommand { code });
        }
        header.check_limit(SERVER_FRAME_BYTES_MAX)
    }

    /// `None` for frames that tell the server nothing by themselves.
    fn on_frame(&mut self, code: i32, mut reader: Reader<'_>) -> Result<Option<ServerEvent>, WireError> {
        if AppendCommand::has_code(code) {
            return self.on_append_command(AppendCommand::decode(code, &mut reader)?);
        }
        if Request::has_code(code) {
            return Ok(Some(ServerEvent::Request(decode_request(code, reader)?)));
        }
        Ok(Some(match SessionCommand::decode(code, &mut reader)? {
            SessionCommand::KeepAlive => ServerEvent::KeepAlive,
            SessionCommand::Hello { high_version, low_version } if versions_overlap(high_version, low_version) => {
                self.greeted = true;
                ServerEvent::Hello { high_version, low_version }
            }
            SessionCommand::Hello { high_version, low_version } => {
                ServerEvent::Incompatible { high_version, low_version }
            }
        }))
    }

    fn on_append_command(&mut self, command: AppendCommand) -> Result<Option<ServerEvent>, WireError> {
        let name = command.name();
        match command {
            AppendCommand::Padding { .. } => Ok(None),
            AppendCommand::SetupAppend { request_id, writer, segment, token } => {
                let slot = self.set_up(writer, segment.clone())?;
                Ok(Some(ServerEvent::SetupAppend(SetupAppend { request_id, writer, slot, segment, token })))
            }
            AppendCommand::AppendBlock { writer, data } => {
                let slot = self.slot(name, writer)?;
                self.block = Some(OpenBlock { writer, slot, data: data.0 });
                Ok(None)
            }
            AppendCommand::AppendBlockEnd { writer, whole_bytes, data, event_count, last_event_number, request_id } => {
                let (slot, data) = match self.block.take() {
                    Some(block) if block.writer == writer => {
                        (block.slot, assemble(block.data, BlockEnd { whole_bytes, data })?)
                    }
                    Some(block) => {
                        let reason = BlockMismatch::Writer;
                        return Err(WireError::Block { block_bytes: block.data.len(), reason });
                    }
                    // All that the Rust client ever sends; `whole_bytes` says nothing then.
                    None => (self.slot(name, writer)?, data),
                };
                let count = u32::try_from(event_count).unwrap_or(0);
                if count == 0 {
                    return Err(WireError::EventCount { event_count });
                }
                self.finish_append(slot, writer, request_id, data, count, last_event_number, None)
            }
            AppendCommand::ConditionalAppend { writer, event_number, expected_offset, event, request_id } => {
                let slot = self.slot(name, writer)?;
                // The header belongs to what is stored.
                let data = event.into_bytes();
                self.finish_append(slot, writer, request_id, data, 1, event_number, Some(expected_offset))
            }
            AppendCommand::ConditionalBlockEnd { writer, event_number, expected_offset, data, request_id } => {
                let slot = self.slot(name, writer)?;
                self.finish_append(slot, writer, request_id, data, 1, event_number, Some(expected_offset))
            }
        }
    }

    fn slot(&self, command: &'static str, writer: WriterId) -> Result<usize, WireError> {
        self.slots.get(&writer).copied().ok_or(WireError::WriterNotSetUp { command, writer })
    }

    fn set_up(&mut self, writer: WriterId, segment: Text) -> Result<usize, WireError> {
        let bytes = segment.len();
        if bytes > SEGMENT_NAME_BYTES_MAX {
            let reason = Malformed::NameTooLong { bytes };
            return Err(WireError::Malformed { command: "SetupAppend", field: "segment", reason });
        }
        let registered = Registered { segment, last_event_number: 0 };
        if let Some(&slot) = self.slots.get(&writer) {
            self.registered[slot] = registered;
            return Ok(slot);
        }
        let slot = self.registered.len();
        if slot == WRITERS_MAX {
            return Err(WireError::TooManyWriters);
        }
        self.registered.push(registered);
        self.slots.insert(writer, slot);
        assert_eq!(self.slots.len(), self.registered.len(), "every slot belongs to one writer");
        Ok(slot)
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of an append, named where they come from")]
    fn finish_append(
        &mut self,
        slot: usize,
        writer: WriterId,
        request_id: i64,
        data: Bytes,
        event_count: u32,
        last_event_number: EventNumber,
        expected_offset: Option<i64>,
    ) -> Result<Option<ServerEvent>, WireError> {
        let registered = &mut self.registered[slot];
        let last = registered.last_event_number;
        if last_event_number < last {
            return Err(WireError::EventNumberWentBack { number: last_event_number, last });
        }
        registered.last_event_number = last_event_number;
        Ok(Some(ServerEvent::Append(Append {
            request_id,
            writer,
            slot,
            segment: registered.segment.clone(),
            data,
            event_count,
            last_event_number,
            expected_offset,
        })))
    }
}

/// Of a longer payload a request keeps no more alive than four times its own bytes.
const BALLAST_FREE_BYTES: usize = 1024;

/// Byte strings share the frame they came in, or one copy of it, so that many keys cost one allocation. What else stood in
/// the frame cost its sender nothing and is in nobody's account, however long the request waits: if it is most of the
/// frame, each byte string is copied by itself.
fn decode_request(code: i32, reader: Reader<'_>) -> Result<Request, WireError> {
    let payload = reader.payload();
    let request = Request::decode(code, &mut reader.copying_once())?;
    match request.kept_bytes() {
        Some(kept) if payload.len() > BALLAST_FREE_BYTES.max(4 * kept) => {
            Request::decode(code, &mut Reader::copying(payload))
        }
        _ => Ok(request),
    }
}
