//! Packing pieces into chunks.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::StoreError;

use super::format::{Sums, header};
use super::{Chunks, Piece, Place, StoredPiece, path_of};

/// A chunk that has grown to this is closed, so that truncation can give its disk space back.
const CHUNK_BYTES: u64 = 64 << 20;
/// A piece of at least this stands in chunks of its own: it will usually be given up as one.
const LONE_PIECE_BYTES: u64 = 8 << 20;

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
    sums: Sums,
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
                if let Some(chunk) = open.take_if(|chunk| chunk.sums.length() >= CHUNK_BYTES) {
                    written.add(piece.segment, &mut start, &mut length, &chunk);
                    self.close(chunk, &mut written, pause)?;
                }
                let chunk = open.get_or_insert_with(|| {
                    *next += 1;
                    OpenChunk {
                        chunk: *next - 1,
                        parts: vec![header(self.container, *next - 1)],
                        sums: Sums::default(),
                    }
                });
                chunk.sums.add(part);
                chunk.parts.push(part.clone());
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
        let OpenChunk { chunk, mut parts, sums } = chunk;
        let length = sums.length();
        parts.push(sums.tail());
        self.objects.put(&path_of(self.container, chunk), &parts, pause)?;
        self.note_length(chunk, length);
        written.sizes.insert(chunk, length);
        Ok(())
    }
}

impl Written {
    /// Notes the `length` bytes from `start` on, which were added to `chunk` last, and goes on behind them.
    fn add(&mut self, segment: u64, start: &mut u64, length: &mut u64, chunk: &OpenChunk) {
        if *length > 0 {
            let place = Place { chunk: chunk.chunk, position: chunk.sums.length() - *length };
            self.pieces.push(StoredPiece { segment, start: *start, length: *length, place });
            *start += std::mem::take(length);
        }
    }
}
