//! Packing pieces into chunks.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::StoreError;
use crate::io::Content;

use super::format::{Sums, header, tail_bytes};
use super::{Chunks, Piece, Place, StoredPiece, path_of};

/// A chunk that has grown to this is closed, so that truncation can give its disk space back.
const CHUNK_BYTES: u64 = 64 << 20;
/// A piece of at least this stands in chunks of its own: it will usually be given up as one.
const LONE_PIECE_BYTES: u64 = 8 << 20;
/// Whoever stores a chunk gets its bytes by this much, so that they are still in the nearest cache after the checksum.
const SLICE_BYTES: usize = 16 << 10;

/// Where the pieces are, and the bytes in each new chunk.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) pieces: Vec<StoredPiece>,
    pub(crate) sizes: BTreeMap<u64, u64>,
}

/// A chunk that is being put together. Its bytes stay where they are.
struct OpenChunk {
    chunk: u64,
    parts: Vec<Bytes>,
    length: u64,
}

/// A chunk as it is stored: header, bytes, and the sums of those, which are added while somebody takes them. The bytes have
/// left the caches long ago, and fetching them twice costs more than the sums do.
struct Stored {
    header: Option<Bytes>,
    parts: std::vec::IntoIter<Bytes>,
    /// What is left of the part that is being taken.
    part: Bytes,
    /// `None`: the end was taken.
    sums: Option<Sums>,
}

impl Chunks {
    /// Writes pieces to new chunks, numbered from `next` on; content and names are durable afterwards. A piece that is
    /// larger than a chunk is cut between its parts. `pause` is called between writes.
    pub(crate) fn write(
        &self,
        next: &mut u64,
        pieces: &[Piece],
        pause: &mut dyn FnMut(),
    ) -> Result<Written, StoreError> {
        let mut written = Written::default();
        let mut open: Option<OpenChunk> = None;
        for piece in pieces {
            let is_lone = piece.length >= LONE_PIECE_BYTES;
            if is_lone && let Some(chunk) = open.take() {
                self.close(chunk, &mut written, pause)?;
            }
            let (mut start, mut length) = (piece.start, 0);
            for part in &piece.parts {
                if let Some(chunk) = open.take_if(|chunk| chunk.length >= CHUNK_BYTES) {
                    written.add(piece.segment, &mut start, &mut length, &chunk);
                    self.close(chunk, &mut written, pause)?;
                }
                let chunk = open.get_or_insert_with(|| {
                    *next += 1;
                    OpenChunk { chunk: *next - 1, parts: Vec::new(), length: 0 }
                });
                chunk.parts.push(part.clone());
                chunk.length += part.len() as u64;
                length += part.len() as u64;
            }
            if let Some(chunk) = &open {
                written.add(piece.segment, &mut start, &mut length, chunk);
            }
            assert_eq!(start - piece.start, piece.length, "a piece is as long as its parts together");
            if is_lone && let Some(chunk) = open.take() {
                self.close(chunk, &mut written, pause)?;
            }
        }
        if let Some(chunk) = open {
            self.close(chunk, &mut written, pause)?;
        }
        Ok(written)
    }

    fn close(&self, chunk: OpenChunk, written: &mut Written, pause: &mut dyn FnMut()) -> Result<(), StoreError> {
        let OpenChunk { chunk, parts, length } = chunk;
        let header = header(self.container, chunk);
        let whole = header.len() as u64 + length + tail_bytes(length);
        let stored =
            Stored { header: Some(header), parts: parts.into_iter(), part: Bytes::new(), sums: Some(Sums::default()) };
        self.objects.put(&path_of(self.container, chunk), Content::new(whole, stored), pause)?;
        self.note_length(chunk, length);
        written.sizes.insert(chunk, length);
        Ok(())
    }
}

impl Iterator for Stored {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if let Some(header) = self.header.take() {
            return Some(header);
        }
        while self.part.is_empty() {
            match self.parts.next() {
                Some(part) => self.part = part,
                None => return self.sums.take().map(Sums::tail),
            }
        }
        let slice = self.part.split_to(self.part.len().min(SLICE_BYTES));
        self.sums.as_mut()?.add(&slice);
        Some(slice)
    }
}

impl Written {
    /// Notes the `length` bytes from `start` on, which were added to `chunk` last, and goes on behind them.
    fn add(&mut self, segment: u64, start: &mut u64, length: &mut u64, chunk: &OpenChunk) {
        if *length > 0 {
            let place = Place { chunk: chunk.chunk, position: chunk.length - *length };
            self.pieces.push(StoredPiece { segment, start: *start, length: *length, place });
            *start += std::mem::take(length);
        }
    }
}
