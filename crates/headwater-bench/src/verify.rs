//! Reading segments from their beginning to their end, checked event by event: what every run ends with, and what
//! catching up is.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::thread;

use bytes::Bytes;
use headwater_wire::{Reply, Request, Text, Token};

use crate::check::{Checker, Violation};
use crate::connection::{Connection, refused};
use crate::error::BenchError;
use crate::event::HEADER_BYTES;
use crate::target::SCOPE;

/// How a reader asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    /// Bytes of each request.
    pub(crate) bytes: u32,
    /// Requests under way.
    pub(crate) depth: usize,
}

impl Default for Asking {
    fn default() -> Self {
        Self { bytes: 1 << 20, depth: 2 }
    }
}

/// What one segment must hold.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) segment: Text,
    /// Writers and the sequences of the events that each wrote there.
    pub(crate) writers: Vec<(u64, Range<u64>)>,
}

impl Written {
    pub(crate) fn events(&self) -> u64 {
        self.writers.iter().map(|(_, sequences)| sequences.end - sequences.start).sum()
    }
}

/// Reads every segment from its beginning to its end, by so many readers at a time.
///
/// # Errors
/// [`BenchError::Integrity`] with the first violation of a segment.
pub(crate) fn read_back(
    server: &str,
    readers: usize,
    event_bytes: usize,
    asking: Asking,
    written: &[Written],
) -> Result<(), BenchError> {
    let left = Mutex::new(written.iter());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..readers)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = Connection::open(server)?;
                    loop {
                        let next = left.lock().expect("no reader panics while it takes a segment").next();
                        let Some(written) = next else { return Ok(()) };
                        one_segment(&mut connection, event_bytes, asking, written)?;
                    }
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no reader panics"))
    })
}

fn one_segment(
    connection: &mut Connection,
    event_bytes: usize,
    asking: Asking,
    written: &Written,
) -> Result<(), BenchError> {
    let segment = &written.segment;
    let violated = |source: Violation| BenchError::Integrity { segment: segment.to_string(), source };
    let mut checker = Checker::new(event_bytes, written.writers.iter().cloned());
    let expected = checker.expected_bytes();
    let mut parts = Parts::new(expected, asking);
    while let Some(wanted) = parts.wanted() {
        for (offset, bytes) in wanted {
            connection.put_request(|request_id| Request::ReadSegment {
                segment: segment.clone(),
                offset: offset.cast_signed(),
                suggested_length: bytes.cast_signed(),
                token: Token::default(),
                request_id,
            })?;
        }
        connection.flush()?;
        match connection.reply("a segment was read")? {
            Reply::SegmentRead { offset, data, .. } if !data.is_empty() => parts.came(offset.cast_unsigned(), data),
            // Nothing is there although it was acknowledged: what is missing will be named.
            Reply::SegmentRead { .. } | Reply::SegmentIsSealed { .. } => break,
            Reply::Hello { .. } | Reply::KeepAlive => {}
            reply => return Err(refused("ReadSegment", &reply)),
        }
        while let Some(data) = parts.next() {
            checker.feed(&data, |_| {}).map_err(violated)?;
        }
    }
    checker.finish().map_err(violated)?;
    // Nothing may stand behind the last event either.
    length(connection, segment, expected)
}

/// That a stream of one segment is as long as so many events of another program, whose bytes nobody here knows.
///
/// # Errors
/// [`BenchError::Integrity`] if it is not.
pub(crate) fn length_of_stream(server: &str, stream: &str, event_bytes: usize, events: u64) -> Result<(), BenchError> {
    let segment = Text::from(format!("{SCOPE}/{stream}/0.#epoch.0").as_str());
    length(&mut Connection::open(server)?, &segment, events * (HEADER_BYTES + event_bytes) as u64)
}

fn length(connection: &mut Connection, segment: &Text, expected: u64) -> Result<(), BenchError> {
    let reply = connection.ask(|request_id| Request::GetStreamSegmentInfo {
        request_id,
        segment: segment.clone(),
        token: Token::default(),
    })?;
    match reply {
        Reply::StreamSegmentInfo { write_offset, .. } if write_offset.cast_unsigned() == expected => Ok(()),
        Reply::StreamSegmentInfo { write_offset: found, .. } => {
            let source = Violation::Length { expected, found };
            Err(BenchError::Integrity { segment: segment.to_string(), source })
        }
        reply => Err(refused("GetStreamSegmentInfo", &reply)),
    }
}

/// Puts the replies of several reads under way into order. A reply may be shorter than what was asked for, and replies
/// may overtake one another.
#[derive(Debug)]
struct Parts {
    asking: Asking,
    end: u64,
    /// Everything below was handed out.
    next: u64,
    /// Everything below was asked for at least once.
    asked: u64,
    /// Offsets of the requests under way.
    under_way: Vec<u64>,
    /// What came and is not in turn yet.
    here: BTreeMap<u64, Bytes>,
}

impl Parts {
    fn new(end: u64, asking: Asking) -> Self {
        Self { asking, end, next: 0, asked: 0, under_way: Vec::new(), here: BTreeMap::new() }
    }

    /// What to ask for now; `None` once everything came.
    fn wanted(&mut self) -> Option<Vec<(u64, u32)>> {
        if self.next >= self.end && self.under_way.is_empty() {
            return None;
        }
        let mut wanted = Vec::new();
        // A short reply left a hole in front of what was asked for after it.
        if self.next < self.asked && self.next < self.end && !self.under_way.contains(&self.next) {
            let behind = self.under_way.iter().chain(self.here.keys()).filter(|offset| **offset > self.next).min();
            let hole = behind.copied().unwrap_or(self.asked).min(self.end) - self.next;
            wanted.push((self.next, u32::try_from(hole).unwrap_or(self.asking.bytes).min(self.asking.bytes)));
        }
        while self.under_way.len() + self.here.len() + wanted.len() < self.asking.depth && self.asked < self.end {
            let bytes = u64::from(self.asking.bytes).min(self.end - self.asked);
            wanted.push((self.asked, bytes as u32));
            self.asked += bytes;
        }
        self.under_way.extend(wanted.iter().map(|(offset, _)| offset));
        Some(wanted)
    }

    fn came(&mut self, offset: u64, data: Bytes) {
        if let Some(at) = self.under_way.iter().position(|asked| *asked == offset) {
            self.under_way.swap_remove(at);
        }
        self.here.insert(offset, data);
    }

    /// The bytes in turn, if they are here.
    fn next(&mut self) -> Option<Bytes> {
        while let Some((offset, mut data)) = self.here.pop_first() {
            let end = offset + data.len() as u64;
            if offset > self.next {
                self.here.insert(offset, data);
                return None;
            }
            // Nothing of it is new if the reply to an earlier offset was longer than asked for.
            if end > self.next {
                let known = (self.next - offset) as usize;
                self.next = end;
                return Some(data.split_off(known));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a segment whose server answers by `answer`: which of the requests under way, and with how many bytes.
    fn read(length: usize, asking: Asking, mut answer: impl FnMut(&[(u64, u32)]) -> (usize, usize)) -> Vec<u8> {
        let segment: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let (mut parts, mut open, mut read) = (Parts::new(length as u64, asking), Vec::new(), Vec::new());
        while let Some(wanted) = parts.wanted() {
            open.extend(wanted);
            assert!(!open.is_empty() && open.len() <= asking.depth + 1, "{open:?}");
            let (index, bytes) = answer(&open);
            let (offset, asked) = open.remove(index % open.len());
            let from = offset as usize;
            let to = (from + bytes.clamp(1, asked as usize + 40)).min(length);
            parts.came(offset, Bytes::copy_from_slice(&segment[from..to]));
            while let Some(data) = parts.next() {
                read.extend_from_slice(&data);
            }
        }
        assert_eq!(read, segment);
        read
    }

    #[test]
    fn replies_are_put_in_order_whatever_their_length_and_order() {
        for depth in [1, 2, 5] {
            let asking = Asking { bytes: 100, depth };
            read(1234, asking, |_| (0, 100));
            read(1234, asking, |open| (open.len() - 1, 100));
            read(1234, asking, |_| (0, 33));
            let mut noise = 7_usize;
            read(5000, asking, |_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (noise >> 40, noise >> 33 & 127)
            });
        }
    }
}
