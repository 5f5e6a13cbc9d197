//! Feeding frames whole and in pieces, and seeing what comes out.

use bytes::{Bytes, BytesMut};
use headwater_types::WriterId;
use headwater_wire::{
    AppendCommand, ClientEnd, EncodeError, FrameQueue, Reply, Request, ServerEnd, ServerEvent, SessionCommand, Text,
    Token, WireError,
};

/// The writer of the recorded frames.
pub(crate) const W: WriterId = WriterId(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f);
/// The segment of the recorded frames.
pub(crate) const SEG: &str = "scope/stream/0.#epoch.0";

/// Bytes of hexadecimal digits; spaces and line breaks are skipped.
pub(crate) fn unhex(text: &str) -> Bytes {
    let digits: Vec<char> = text.chars().filter(|digit| !digit.is_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("hexadecimal digits"))
        .collect()
}

/// Everything a client can send, one frame each.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    Session(SessionCommand),
    Append(AppendCommand),
    Request(Request),
}

impl Command {
    pub(crate) fn from_frame(frame: &Bytes) -> Result<Self, WireError> {
        let code = i32::from_be_bytes(frame[..4].try_into().expect("four bytes"));
        let in_set = |codes: &[(i32, &str)]| codes.iter().any(|(known, _)| *known == code);
        if in_set(SessionCommand::CODES) {
            SessionCommand::from_frame(frame).map(Self::Session)
        } else if in_set(AppendCommand::CODES) {
            AppendCommand::from_frame(frame).map(Self::Append)
        } else {
            Request::from_frame(frame).map(Self::Request)
        }
    }

    pub(crate) fn encode(&self) -> Result<Bytes, EncodeError> {
        let mut out = BytesMut::new();
        match self {
            Self::Session(command) => command.encode(&mut out)?,
            Self::Append(command) => command.encode(&mut out)?,
            Self::Request(command) => command.encode(&mut out)?,
        }
        Ok(out.freeze())
    }
}

pub(crate) fn encode_reply(reply: &Reply) -> Bytes {
    let mut out = BytesMut::new();
    reply.encode(&mut out).expect("the reply fits");
    out.freeze()
}

/// Frames at the front of `bytes`, header included.
pub(crate) fn split_frames(mut bytes: Bytes) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let length = i32::from_be_bytes(bytes[4..8].try_into().expect("four bytes"));
        frames.push(bytes.split_to(8 + length as usize));
    }
    frames
}

pub(crate) fn hello() -> Bytes {
    unhex("ffffff81 00000008 00000011 00000005")
}

pub(crate) fn set_up(writer: WriterId, segment: &str) -> Bytes {
    let command =
        AppendCommand::SetupAppend { request_id: 1, writer, segment: Text::from(segment), token: Token::default() };
    Command::Append(command).encode().expect("fits")
}

/// Feeds the pieces to a new server end, taking what is there after each; ends at the first error.
pub(crate) fn serve(pieces: &[&[u8]]) -> (Vec<ServerEvent>, Result<usize, WireError>) {
    let (mut end, mut input, mut events) = (ServerEnd::new(), BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match end.next_event(&mut input) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(end.next_event(&mut input), Err(error.clone()), "the first error stays");
                    return (events, Err(error));
                }
            }
        }
    }
    (events, Ok(end.wanted()))
}

/// What a server sees of these bytes from a client that said hello and set up [`W`]: whole, and cut at every byte.
#[track_caller]
pub(crate) fn serve_cut_everywhere(bytes: &[u8]) -> (Vec<ServerEvent>, Result<usize, WireError>) {
    let start = [hello(), set_up(W, SEG)].concat();
    let (mut events, end) = serve(&[&start, bytes]);
    for cut in 1..bytes.len() {
        let (in_pieces, end_in_pieces) = serve(&[&start, &bytes[..cut], &bytes[cut..]]);
        assert_eq!((&in_pieces, &end_in_pieces), (&events, &end), "cut at {cut}");
    }
    (events.split_off(2), end)
}

/// Feeds the pieces to a new client end.
pub(crate) fn receive(pieces: &[&[u8]]) -> (Vec<Reply>, Result<usize, WireError>) {
    let (mut end, mut input, mut replies) = (ClientEnd::connect(&mut FrameQueue::new()), BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match end.next_reply(&mut input) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(end.next_reply(&mut input), Err(error.clone()), "the first error stays");
                    return (replies, Err(error));
                }
            }
        }
    }
    (replies, Ok(end.wanted()))
}

/// What a client sees of these bytes after the server's hello: whole, and cut at every byte.
#[track_caller]
pub(crate) fn receive_cut_everywhere(bytes: &[u8]) -> (Vec<Reply>, Result<usize, WireError>) {
    let (mut replies, end) = receive(&[&hello(), bytes]);
    for cut in 1..bytes.len() {
        let (in_pieces, end_in_pieces) = receive(&[&hello(), &bytes[..cut], &bytes[cut..]]);
        assert_eq!((&in_pieces, &end_in_pieces), (&replies, &end), "cut at {cut}");
    }
    (replies.split_off(1), end)
}
