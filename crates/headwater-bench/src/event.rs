//! Events that prove themselves: who wrote them, which one it is, when it was due, and that no byte changed.
//!
//! ```text
//!   0        8          16        24      28
//!   │ writer │ sequence │ due, ns │ CRC32C │ filler │     big-endian; the checksum covers the filler, then bytes 0–24
//! ```
//!
//! In a segment each event stands behind the 8-byte header that event writers of the protocol put there (code 0 and the
//! payload's length), so genuine readers understand it.
//!
//! The filler is the same in every event. Its checksum is computed once and continued over the rest, so an event costs
//! its writer 28 bytes, however long it is; the reader sums up every byte.

use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// Bytes of an event's header in a segment.
pub const HEADER_BYTES: usize = 8;
/// Bytes that the checksum covers behind the filler.
const IDENTITY_BYTES: usize = 24;
/// Identity and checksum.
const PREFIX_BYTES: usize = IDENTITY_BYTES + 4;
/// Smallest payload an event can have.
pub(crate) const EVENT_BYTES_MIN: usize = PREFIX_BYTES;

/// What an event says about itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Identity {
    /// Unique within the run; never zero.
    pub(crate) writer: u64,
    /// Counts the writer's events from 0.
    pub(crate) sequence: u64,
    /// When it was due, in nanoseconds since the run began.
    pub(crate) due_ns: u64,
}

/// A run of events, laid out once and stamped again for every use.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: BytesMut,
    event_bytes: usize,
    filler_sum: u32,
}

impl Block {
    /// `events` events of `event_bytes` bytes of payload, at least [`EVENT_BYTES_MIN`].
    pub(crate) fn new(event_bytes: usize, events: usize) -> Self {
        assert!(event_bytes >= EVENT_BYTES_MIN && events > 0, "settings were checked");
        let mut noise = 0x9E37_79B9_7F4A_7C15_u64;
        let filler: Vec<u8> = std::iter::repeat_with(|| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise as u8
        })
        .take(event_bytes - PREFIX_BYTES)
        .collect();
        let mut bytes = BytesMut::with_capacity(events * (HEADER_BYTES + event_bytes));
        for _ in 0..events {
            bytes.extend_from_slice(&0_i32.to_be_bytes());
            bytes.extend_from_slice(&(event_bytes as i32).to_be_bytes());
            bytes.extend_from_slice(&[0; PREFIX_BYTES]);
            bytes.extend_from_slice(&filler);
        }
        Self { bytes, event_bytes, filler_sum: crc32c::crc32c(&filler) }
    }

    /// Bytes of one event as it is stored.
    pub(crate) fn stride(&self) -> usize {
        HEADER_BYTES + self.event_bytes
    }

    /// Gives the first `count` events their identities: one writer, consecutive sequences, `due_ns` of each.
    pub(crate) fn stamp(&mut self, writer: u64, sequences: Range<u64>, due_ns: impl Fn(u64) -> u64) {
        let stride = self.stride();
        for (event, sequence) in self.bytes.chunks_exact_mut(stride).zip(sequences) {
            let prefix = &mut event[HEADER_BYTES..HEADER_BYTES + PREFIX_BYTES];
            prefix[..8].copy_from_slice(&writer.to_be_bytes());
            prefix[8..16].copy_from_slice(&sequence.to_be_bytes());
            prefix[16..24].copy_from_slice(&due_ns(sequence).to_be_bytes());
            let sum = crc32c::crc32c_append(self.filler_sum, &prefix[..IDENTITY_BYTES]);
            prefix[IDENTITY_BYTES..].copy_from_slice(&sum.to_be_bytes());
        }
    }

    /// The first event with this identity, as it is stored.
    pub(crate) fn one(&mut self, identity: Identity) -> &[u8] {
        let Identity { writer, sequence, due_ns } = identity;
        self.stamp(writer, sequence..sequence + 1, |_| due_ns);
        &self.bytes[..self.stride()]
    }

    /// Lends out the bytes of all events; [`give_back`](Self::give_back) them before the next stamp.
    pub(crate) fn lend(&mut self) -> Bytes {
        std::mem::take(&mut self.bytes).freeze()
    }

    /// Takes the bytes back without copying them, if nobody else has kept a part.
    pub(crate) fn give_back(&mut self, bytes: Bytes) {
        self.bytes = bytes.try_into_mut().unwrap_or_else(|kept| BytesMut::from(&kept[..]));
    }
}

/// What one event says about itself, or `None` if its bytes are not what its writer made.
pub(crate) fn identify(payload: &[u8]) -> Option<Identity> {
    let (prefix, filler) = payload.split_first_chunk::<PREFIX_BYTES>()?;
    let number = |at: usize| u64::from_be_bytes(prefix[at..at + 8].try_into().expect("the slice has 8 bytes"));
    let sum = crc32c::crc32c_append(crc32c::crc32c(filler), &prefix[..IDENTITY_BYTES]);
    let whole = sum.to_be_bytes() == prefix[IDENTITY_BYTES..];
    whole.then(|| Identity { writer: number(0), sequence: number(8), due_ns: number(16) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stamped_event_says_who_it_is_and_any_flipped_bit_shows() {
        for event_bytes in [EVENT_BYTES_MIN, 100, 1024] {
            let mut block = Block::new(event_bytes, 3);
            block.stamp(9, 40..43, |sequence| sequence * 1000);
            let bytes = block.lend();
            for (i, event) in bytes.chunks_exact(block.stride()).enumerate() {
                assert_eq!(event[..8], [[0; 4], (event_bytes as u32).to_be_bytes()].concat());
                let sequence = 40 + i as u64;
                let identity = Identity { writer: 9, sequence, due_ns: sequence * 1000 };
                assert_eq!(identify(&event[8..]), Some(identity));
                for bit in 0..event_bytes * 8 {
                    let mut flipped = event[8..].to_vec();
                    flipped[bit / 8] ^= 1 << (bit % 8);
                    assert_eq!(identify(&flipped), None, "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_block_is_lent_and_given_back_without_a_copy() {
        let mut block = Block::new(100, 10);
        let bytes = block.lend();
        let place = bytes.as_ptr();
        block.give_back(bytes);
        assert_eq!(block.bytes.as_ptr(), place);
        let bytes = block.lend();
        let kept = bytes.slice(..1);
        block.give_back(bytes);
        assert_eq!(block.bytes.len(), 10 * block.stride());
        drop(kept);
    }
}
