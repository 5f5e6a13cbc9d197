//! How much data of reads may wait for peers to take it.
//!
//! A peer that reads slowly must not make us hold what it asked for, and a thousand of them even less. The store hands
//! read data over at once; what does not fit is let go and read again, or cut to a short reply, which clients expect
//! anyway.
//!
//! Guarantees:
//! * one connection holds at most [`CONNECTION_BYTES_MAX`], or one reply
//! * all connections together hold at most what the room was made with, a quarter more, and [`LEAST_BYTES`] each

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use headwater_engine::api::ReadResult;

/// Read data that may wait for one peer, in bytes: enough that one reply travels while the next is fetched.
pub(crate) const CONNECTION_BYTES_MAX: usize = 4 << 20;
/// Size of a reply when the common room is used up.
pub(crate) const SHORT_BYTES: usize = 64 << 10;
/// And when such replies have taken a quarter of the room on top of it: a thousand of them are 64 MiB.
pub(crate) const LEAST_BYTES: usize = 4 << 10;

/// Room for read data, shared by all connections.
#[derive(Debug)]
pub struct ReadRoom {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl ReadRoom {
    /// Room for so many bytes.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX) })
    }

    fn take(&self, bytes: usize) -> bool {
        self.take_below(bytes, self.bytes_max)
    }

    /// Takes room for a short reply.
    fn take_short(&self, bytes: usize) -> bool {
        self.take_below(bytes, self.bytes_max.saturating_add(self.bytes_max / 4))
    }

    fn take_below(&self, bytes: usize, bytes_max: usize) -> bool {
        let fits = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= bytes_max;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "what is given back was taken");
    }
}

/// Read data of one connection that its peer has not taken.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    room: Arc<ReadRoom>,
    bytes: AtomicUsize,
}

impl ReadAhead {
    pub(crate) fn new(room: Arc<ReadRoom>) -> Self {
        Self { room, bytes: AtomicUsize::new(0) }
    }

    /// Counts the data of a read, shortened if it has to be. `None`: let it go and read again when something was
    /// written.
    pub(crate) fn admit(&self, read: ReadResult) -> Option<ReadResult> {
        let bytes = size(&read);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before > 0 && before + bytes > CONNECTION_BYTES_MAX {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        if self.room.take(bytes) {
            return Some(read);
        }
        let is_short = self.room.take_short(bytes.min(SHORT_BYTES));
        let read = shorten(read, if is_short { SHORT_BYTES } else { LEAST_BYTES });
        let short = size(&read);
        self.bytes.fetch_sub(bytes - short, Ordering::Relaxed);
        if !is_short {
            self.room.bytes.fetch_add(short, Ordering::Relaxed);
        }
        Some(read)
    }

    /// The peer took so many bytes of what was admitted.
    pub(crate) fn written(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "read data is counted before it is written");
        self.room.give_back(bytes);
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.room.give_back(*self.bytes.get_mut());
    }
}

/// Bytes of data that a read brought.
pub(crate) fn size(read: &ReadResult) -> usize {
    read.data.iter().map(Bytes::len).sum()
}

/// The beginning of a read, copied, so that nothing of the rest stays in memory.
fn shorten(read: ReadResult, bytes_max: usize) -> ReadResult {
    if size(&read) <= bytes_max {
        return read;
    }
    let mut short = Vec::with_capacity(bytes_max);
    for piece in &read.data {
        let left = bytes_max - short.len();
        short.extend_from_slice(&piece[..piece.len().min(left)]);
    }
    // More follows, whatever was said of the end of the whole.
    ReadResult { data: vec![short.into()], at_tail: false, end_of_segment: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: usize) -> ReadResult {
        let (first, second) = (bytes / 2, bytes - bytes / 2);
        let data = vec![vec![1; first].into(), vec![2; second].into()];
        ReadResult { data, at_tail: true, end_of_segment: true }
    }

    #[test]
    fn a_connection_holds_one_reply_whatever_its_size_and_then_up_to_its_limit() {
        let ahead = ReadAhead::new(ReadRoom::new(u64::MAX));
        assert_eq!(size(&ahead.admit(read(5 << 20)).unwrap()), 5 << 20);
        assert!(ahead.admit(read(1)).is_none());
        ahead.written(5 << 20);
        for _ in 0..2 {
            assert!(ahead.admit(read(2 << 20)).is_some());
        }
        assert!(ahead.admit(read(1)).is_none());
    }

    #[test]
    fn replies_are_short_once_the_common_room_is_used_up() {
        let room = ReadRoom::new(3 << 20);
        let crowd: Vec<_> = (0..100).map(|_| ReadAhead::new(room.clone())).collect();
        let (first, second) = (ReadAhead::new(room.clone()), ReadAhead::new(room.clone()));
        assert_eq!(size(&first.admit(read(2 << 20)).unwrap()), 2 << 20);
        let short = second.admit(read(2 << 20)).unwrap();
        assert_eq!(size(&short), SHORT_BYTES);
        assert!(!short.at_tail && !short.end_of_segment);
        assert_eq!(size(&second.admit(read(100)).unwrap()), 100, "what is short already stays whole");
        second.written(SHORT_BYTES);
        for one in &crowd {
            one.admit(read(1 << 20)).unwrap();
        }
        assert!(room.bytes.load(Ordering::Relaxed) <= (3 << 20) / 4 * 5 + crowd.len() * LEAST_BYTES);
        assert_eq!(size(&crowd[0].admit(read(2 << 20)).unwrap()), LEAST_BYTES, "and shorter still in a crowd");
        drop(crowd);
        drop(first);
        drop(second);
        assert_eq!(room.bytes.load(Ordering::Relaxed), 0, "a connection that ends gives back what it held");
    }
}
