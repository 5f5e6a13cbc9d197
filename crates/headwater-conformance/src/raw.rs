//! A raw connection to the segment store: bytes as a broken or hostile peer would send them.
//!
//! The few encodings below are written anew from the protocol's description (wire protocol 17) on purpose: the
//! server's own codec must not vouch for itself.

use anyhow::{Context, Result, bail, ensure};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// Command codes used here.
pub mod code {
    /// First command in both directions.
    pub const HELLO: i32 = -127;
    /// Registers a writer for a segment.
    pub const SETUP_APPEND: i32 = 1;
    /// Says that a writer is registered.
    pub const APPEND_SETUP: i32 = 2;
    /// Opens a block.
    pub const APPEND_BLOCK: i32 = 3;
    /// Ends a block and appends it.
    pub const APPEND_BLOCK_END: i32 = 4;
    /// Appends one event at an expected offset.
    pub const CONDITIONAL_APPEND: i32 = 5;
    /// Says that an append is stored.
    pub const DATA_APPENDED: i32 = 7;
    /// Reads bytes.
    pub const READ_SEGMENT: i32 = 9;
    /// Brings bytes.
    pub const SEGMENT_READ: i32 = 10;
    /// Asks for a segment's state.
    pub const SEGMENT_INFO: i32 = 11;
    /// Creates a segment.
    pub const CREATE_SEGMENT: i32 = 20;
    /// Says that there is no such segment.
    pub const NO_SUCH_SEGMENT: i32 = 53;
    /// Creates a table.
    pub const CREATE_TABLE: i32 = 70;
    /// Puts table entries.
    pub const UPDATE_TABLE: i32 = 74;
    /// Gets table values.
    pub const READ_TABLE: i32 = 78;
    /// Merges segments in a batch.
    pub const MERGE_BATCH: i32 = 90;
    /// Asked by one side, answered by the other.
    pub const KEEP_ALIVE: i32 = 100;
}

/// How long a server may take to answer or to close.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a server may take to close after an answer.
const AFTER_AN_ANSWER: Duration = Duration::from_millis(300);

/// One connection.
#[derive(Debug)]
pub struct Raw(TcpStream);

/// A frame as received.
pub type Frame = (i32, Vec<u8>);

/// What a server did with what it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// It closed the connection, after these frames.
    Closed(Vec<Frame>),
    /// It kept the connection and sent these frames; at least one.
    Answered(Vec<Frame>),
    /// It kept the connection and said nothing.
    Silent,
}

impl Raw {
    /// Connects without a word.
    ///
    /// # Errors
    /// When the server does not accept.
    pub fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true).context("set no-delay")?;
        stream.set_write_timeout(Some(ANSWER_WITHIN)).context("set a time limit")?;
        stream.set_read_timeout(Some(ANSWER_WITHIN)).context("set a time limit")?;
        Ok(Self(stream))
    }

    /// Connects and exchanges Hello.
    ///
    /// # Errors
    /// When the server does not answer with its own Hello.
    pub fn hello(address: &str) -> Result<Self> {
        let mut raw = Self::connect(address)?;
        raw.send(&frame(code::HELLO, &hello_payload()))?;
        let (kind, payload) = raw.receive()?.context("closed instead of Hello")?;
        ensure!(kind == code::HELLO && payload.len() >= 8, "command {kind} instead of Hello");
        Ok(raw)
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).context("send")
    }

    /// Sends as many bytes as the connection takes at once. False if it is gone.
    pub fn offer(&mut self, bytes: &[u8]) -> bool {
        self.offer_part(bytes).is_some()
    }

    /// Sends as many of the bytes as are taken at once, and says how many; `None` when the server has closed.
    pub fn offer_part(&mut self, bytes: &[u8]) -> Option<usize> {
        self.0.set_nonblocking(true).ok()?;
        let mut taken = 0;
        while taken < bytes.len() {
            match self.0.write(&bytes[taken..]) {
                Ok(count) => taken += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return None,
            }
        }
        self.0.set_nonblocking(false).ok()?;
        Some(taken)
    }

    /// Sends bytes; a server that closed in the middle is fine.
    pub fn send_or_be_closed(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// Says that nothing more will come.
    pub fn end(&mut self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }

    /// The next frame; `None` when the server closed.
    ///
    /// # Errors
    /// When nothing comes in time.
    pub fn receive(&mut self) -> Result<Option<Frame>> {
        self.receive_within(ANSWER_WITHIN)
    }

    /// The next frame; `None` when the server closed.
    ///
    /// # Errors
    /// When nothing comes within the limit.
    pub fn receive_within(&mut self, limit: Duration) -> Result<Option<Frame>> {
        self.0.set_read_timeout(Some(limit)).context("set a time limit")?;
        let mut header = [0; 8];
        if !self.fill(&mut header)? {
            return Ok(None);
        }
        let kind = i32::from_be_bytes(header[..4].try_into().expect("four bytes"));
        let length = i32::from_be_bytes(header[4..].try_into().expect("four bytes"));
        ensure!((0..=0x00FF_FFFF).contains(&length), "the server sent a frame of {length} bytes");
        let mut payload = vec![0; length as usize];
        ensure!(self.fill(&mut payload)?, "the server closed inside a frame");
        Ok(Some((kind, payload)))
    }

    /// False when the server closed before the first byte.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read(&mut buffer[filled..]) {
                Ok(0) => {
                    ensure!(filled == 0, "the server closed inside a frame");
                    return Ok(false);
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return Ok(false);
                }
                Err(error) => return Err(error).context("receive"),
            }
        }
        Ok(true)
    }

    /// What the server does within `limit`.
    ///
    /// # Errors
    /// When it sends something that is no frame.
    pub fn reaction(&mut self, limit: Duration) -> Result<Reaction> {
        let mut frames = Vec::new();
        loop {
            // Whoever answered at all has had its time to think; what follows is only a close.
            let limit = if frames.is_empty() { limit } else { limit.min(AFTER_AN_ANSWER) };
            match self.receive_within(limit) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return Ok(Reaction::Closed(frames)),
                Err(error) => {
                    let timed_out = error
                        .downcast_ref::<std::io::Error>()
                        .is_some_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
                    return match (timed_out, frames.is_empty()) {
                        (false, _) => Err(error),
                        (true, true) => Ok(Reaction::Silent),
                        (true, false) => Ok(Reaction::Answered(frames)),
                    };
                }
            }
        }
    }

    /// Asks for a sign of life and for the state of a segment that does not exist.
    ///
    /// # Errors
    /// When the server does not answer both as the protocol says.
    pub fn still_works(&mut self) -> Result<()> {
        self.send(&frame(code::KEEP_ALIVE, &[]))?;
        match self.receive()? {
            Some((code::KEEP_ALIVE, _)) => {}
            other => bail!("KeepAlive was answered by {other:?}"),
        }
        let request = [&77_i64.to_be_bytes()[..], &text("no/such/0.#epoch.0"), &text("")].concat();
        self.send(&frame(code::SEGMENT_INFO, &request))?;
        match self.receive()? {
            Some((code::NO_SUCH_SEGMENT, payload)) if payload.starts_with(&77_i64.to_be_bytes()) => Ok(()),
            other => bail!("a question about a segment that does not exist was answered by {other:?}"),
        }
    }
}

/// A frame: code, length, payload.
pub fn frame(kind: i32, payload: &[u8]) -> Vec<u8> {
    let length = i32::try_from(payload.len()).expect("test payloads are small");
    [&kind.to_be_bytes()[..], &length.to_be_bytes(), payload].concat()
}

/// A frame header that promises `length` bytes.
pub fn header(kind: i32, length: i32) -> Vec<u8> {
    [kind.to_be_bytes(), length.to_be_bytes()].concat()
}

/// The payload of Hello as the Java client of wire version 17 sends it.
pub fn hello_payload() -> Vec<u8> {
    [17_i32.to_be_bytes(), 5_i32.to_be_bytes()].concat()
}

/// A string: its length in two bytes, then its bytes.
pub fn text(content: &str) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("test strings are short");
    [&length.to_be_bytes()[..], content.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hello_is_encoded_as_the_protocol_says() {
        let expected = [0xff, 0xff, 0xff, 0x81, 0, 0, 0, 8, 0, 0, 0, 17, 0, 0, 0, 5];
        assert_eq!(frame(code::HELLO, &hello_payload()), expected);
        assert_eq!(text("ab"), [0, 2, b'a', b'b']);
    }
}
