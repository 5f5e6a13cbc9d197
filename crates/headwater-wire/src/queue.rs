//! Where encoded frames go: one buffer, or a queue that shares large payloads instead of copying them.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Byte strings from here on are shared with the queue, smaller ones copied: below about a page the copy costs less
/// than one more piece in a vectored write.
pub const SHARE_BYTES_MIN: usize = 4096;

/// Takes the bytes of frames in order.
pub trait FrameSink {
    /// Bytes that the caller keeps.
    fn put_slice(&mut self, bytes: &[u8]);
    /// Bytes that the sink may keep a handle of.
    fn put_shared(&mut self, bytes: &Bytes);
}

impl FrameSink for BytesMut {
    fn put_slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
    fn put_shared(&mut self, bytes: &Bytes) {
        self.extend_from_slice(bytes);
    }
}

/// Frames on their way to the socket. It is a [`Buf`] with vectored reads, so that it can be handed to a vectored
/// write as it is. [`remaining`](Buf::remaining) is the number of bytes not written yet; bounding it is the caller's job.
#[derive(Debug, Default)]
pub struct FrameQueue {
    /// Complete pieces, oldest first; none is empty.
    pieces: VecDeque<Bytes>,
    /// Sum of the lengths of `pieces`.
    pieces_bytes: usize,
    /// What came after the last piece.
    tail: BytesMut,
}

impl FrameQueue {
    /// An empty queue, without an allocation.
    pub fn new() -> Self {
        Self::default()
    }

    fn push_piece(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.pieces_bytes += piece.len();
            self.pieces.push_back(piece);
        }
    }
}

impl FrameSink for FrameQueue {
    fn put_slice(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARE_BYTES_MIN {
            self.tail.extend_from_slice(bytes);
        } else {
            let before = self.tail.split().freeze();
            self.push_piece(before);
            self.push_piece(bytes.clone());
        }
    }
}

impl Buf for FrameQueue {
    fn remaining(&self) -> usize {
        self.pieces_bytes + self.tail.len()
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&self.tail, |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = Some(&*self.tail).filter(|tail| !tail.is_empty());
        let pieces = self.pieces.iter().map(|piece| &**piece).chain(tail);
        let mut filled = 0;
        for (slot, piece) in slices.iter_mut().zip(pieces) {
            *slot = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining(), "advanced past the end of the queue");
        while let Some(piece) = self.pieces.front_mut().filter(|_| count > 0) {
            let step = count.min(piece.len());
            piece.advance(step);
            self.pieces_bytes -= step;
            count -= step;
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        self.tail.advance(count);
    }
}
