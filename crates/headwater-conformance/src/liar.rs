//! A segment store that lies: what a client says reaches the real one, and what that answers is falsified on the way back.
//!
//! Whoever checks what is read must notice each lie; a check that does not is none. The encodings are read by hand, as in
//! [`raw`](crate::raw).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use crate::raw::code;

/// Says where a segment ends.
const SEGMENT_INFO_ANSWER: i32 = 12;
/// Says that table entries were put.
const TABLE_UPDATED: i32 = 75;
/// Brings table entries.
const TABLE_READ: i32 = 79;
/// Says that a key has another version.
const BAD_VERSION: i32 = 82;
/// Largest frame of the protocol.
const FRAME_BYTES_MAX: usize = 0x00FF_FFFF;
/// Before each event in a segment: a code, 0, and the length of what follows.
const EVENT_HEADER_BYTES: usize = 8;

/// What is falsified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// One bit of what is read, from segments and from tables, is another.
    Flip,
    /// The first event of a piece stands also where the second was, checksum and all.
    Repeat,
    /// Segments end a byte behind their last event.
    Longer,
    /// Updates whose condition does not hold are made all the same.
    Unconditional,
}

/// Lies until it is dropped.
#[derive(Debug)]
pub struct Liar {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl Liar {
    /// Stands before the segment store at `server`, host:port.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn start(server: &str, lie: Lie) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
        let address = listener.local_addr().context("find a free port")?;
        let stopped = Arc::new(AtomicBool::new(false));
        let (server, stop) = (server.to_owned(), Arc::clone(&stopped));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let server = server.clone();
                // A connection that breaks off is the client's to notice.
                std::thread::spawn(move || between(client, &server, lie));
            }
        });
        Ok(Self { address, stopped })
    }

    /// Where it listens, host:port.
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes whoever waits for the next connection.
        let _ = TcpStream::connect(self.address);
    }
}

/// Passes on what both sides say until one has ended.
fn between(client: TcpStream, server: &str, lie: Lie) -> std::io::Result<()> {
    let server = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(std::net::Shutdown::Both);
    });
    let outcome = falsify_all(server, &client, lie);
    let _ = client.shutdown(std::net::Shutdown::Both);
    outcome
}

fn falsify_all(mut server: TcpStream, mut client: &TcpStream, lie: Lie) -> std::io::Result<()> {
    loop {
        let mut header = [0; 8];
        server.read_exact(&mut header)?;
        let [kind, length] =
            [&header[..4], &header[4..]].map(|half| i32::from_be_bytes(half.try_into().expect("four bytes")));
        let length = usize::try_from(length).ok().filter(|length| *length <= FRAME_BYTES_MAX);
        let mut payload = vec![0; length.ok_or(std::io::ErrorKind::InvalidData)?];
        server.read_exact(&mut payload)?;
        let kind = falsify(lie, kind, &mut payload);
        let mut frame = Vec::with_capacity(8 + payload.len());
        frame.extend_from_slice(&kind.to_be_bytes());
        frame.extend_from_slice(&(payload.len() as i32).to_be_bytes());
        frame.extend_from_slice(&payload);
        client.write_all(&frame)?;
    }
}

/// Changes a frame, if the lie is about its kind; returns the kind it has then.
fn falsify(lie: Lie, kind: i32, payload: &mut Vec<u8>) -> i32 {
    match (lie, kind) {
        (Lie::Flip, code::SEGMENT_READ) => {
            if let Some(last) = segment_data(payload).and_then(<[u8]>::last_mut) {
                *last ^= 4;
            }
        }
        (Lie::Flip, TABLE_READ) => {
            // The value of the last entry ends where the frame does.
            if let Some(last) = payload.last_mut() {
                *last ^= 4;
            }
        }
        (Lie::Repeat, code::SEGMENT_READ) => {
            if let Some(data) = segment_data(payload)
                && let Some([0, 0, 0, 0, length @ ..]) = data.first_chunk::<EVENT_HEADER_BYTES>()
            {
                let event = EVENT_HEADER_BYTES + u32::from_be_bytes(*length) as usize;
                if data.len() >= 2 * event {
                    data.copy_within(..event, event);
                }
            }
        }
        (Lie::Longer, SEGMENT_INFO_ANSWER) => {
            // request id, name, exists, sealed, deleted, modified, end, start
            let at = name_end(payload, 8).map(|end| end + 3 + 8);
            if let Some(end) = at.and_then(|at| payload.get_mut(at..)?.first_chunk_mut::<8>()) {
                *end = (i64::from_be_bytes(*end) + 1).to_be_bytes();
            }
        }
        (Lie::Unconditional, BAD_VERSION) => {
            // The request id stays; one version follows.
            payload.truncate(8);
            payload.extend_from_slice(&1_i32.to_be_bytes());
            payload.extend_from_slice(&0_i64.to_be_bytes());
            return TABLE_UPDATED;
        }
        _ => {}
    }
    kind
}

/// Where a name ends that begins so many bytes behind the beginning.
fn name_end(payload: &[u8], at: usize) -> Option<usize> {
    let length = payload.get(at..)?.first_chunk::<2>()?;
    Some(at + 2 + usize::from(u16::from_be_bytes(*length)))
}

/// The data of a read: behind name, offset and two flags, with its length before it.
fn segment_data(payload: &mut [u8]) -> Option<&mut [u8]> {
    let at = name_end(payload, 0)? + 8 + 2;
    let length = i32::from_be_bytes(*payload.get(at..)?.first_chunk::<4>()?);
    payload.get_mut(at + 4..at + 4 + usize::try_from(length).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::text;

    /// Two events of three bytes, as a read brings them.
    fn read(events: [&[u8; 3]; 2]) -> Vec<u8> {
        let event = |payload: &[u8; 3]| [&[0, 0, 0, 0, 0, 0, 0, 3][..], payload].concat();
        let data = [event(events[0]), event(events[1])].concat();
        let length = (data.len() as i32).to_be_bytes();
        [&text("a/b/0")[..], &7_i64.to_be_bytes(), &[1, 0], &length, &data, &9_i64.to_be_bytes()].concat()
    }

    fn lied(lie: Lie, kind: i32, mut payload: Vec<u8>) -> (i32, Vec<u8>) {
        let kind = falsify(lie, kind, &mut payload);
        (kind, payload)
    }

    #[test]
    fn reads_are_falsified_and_nothing_else_of_them() {
        let honest = read([b"one", b"two"]);
        assert_eq!(lied(Lie::Repeat, code::SEGMENT_READ, honest.clone()).1, read([b"one", b"one"]));
        assert_eq!(lied(Lie::Flip, code::SEGMENT_READ, honest.clone()).1, read([b"one", b"twk"]));
        assert_eq!(lied(Lie::Longer, code::SEGMENT_READ, honest.clone()).1, honest);
        assert!(lied(Lie::Flip, code::KEEP_ALIVE, Vec::new()).1.is_empty());
    }

    #[test]
    fn a_segment_seems_longer_and_a_refused_update_seems_made() {
        let info = |end: i64| {
            let head = [&5_i64.to_be_bytes()[..], &text("a/b/0"), &[1, 0, 0], &0_i64.to_be_bytes()].concat();
            [&head[..], &end.to_be_bytes(), &0_i64.to_be_bytes()].concat()
        };
        assert_eq!(lied(Lie::Longer, SEGMENT_INFO_ANSWER, info(255)).1, info(256));
        let refused = [&5_i64.to_be_bytes()[..], &text("a/b/0"), &text("")].concat();
        let made = [&5_i64.to_be_bytes()[..], &1_i32.to_be_bytes(), &0_i64.to_be_bytes()].concat();
        assert_eq!(lied(Lie::Unconditional, BAD_VERSION, refused), (TABLE_UPDATED, made));
    }
}
