//! Reading chunks: verified blocks, from memory if they are there.
//!
//! Two sizes of block: a reader that wants much of a mebibyte gets all of it, since the disk gives that at once; one
//! that wants little, such as the value of a table's key, costs no more than a block under one checksum.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::error::{StoreError, verify_sum};
use crate::io::Objects;

use super::cache::BlockKey;
use super::format::{BLOCK_BYTES, FOOTER_BYTES, Footer, HEADER_BYTES, check_header};
use super::{Chunks, Place, Stretch, path_of};

/// Size of a large block.
const LARGE_BYTES: u64 = 1 << 20;
/// Of a large block at least this must be wanted, or small ones do.
const LARGE_WANTED_BYTES: u64 = 256 << 10;
/// Chunks whose checksums are kept in memory.
const OPEN_CHUNKS_MAX: usize = 256;

/// Chunks whose checksums are in memory, with the time of their last use.
#[derive(Default)]
pub(super) struct OpenChunks {
    turn: u64,
    chunks: BTreeMap<u64, (u64, Arc<OpenChunk>)>,
}

/// A chunk whose header, footer and table were verified.
pub(super) struct OpenChunk {
    name: String,
    /// Bytes of pieces.
    pub(super) length: u64,
    sums: Vec<u32>,
}

/// Part of a block.
struct Part {
    key: BlockKey,
    /// Length of the block, unless the chunk ends before.
    block_length: u64,
    /// Where it begins in the block.
    skip: usize,
    length: usize,
}

/// The blocks that a stretch lies in.
fn parts(container: u32, stretch: Stretch) -> Vec<Part> {
    let (chunk, end) = (stretch.place.chunk, stretch.place.position + stretch.length);
    let mut parts = Vec::new();
    let mut position = stretch.place.position;
    while position < end {
        let cell_end = (position + 1).next_multiple_of(LARGE_BYTES).min(end);
        let is_large = cell_end - position >= LARGE_WANTED_BYTES;
        let block_length = if is_large { LARGE_BYTES } else { BLOCK_BYTES as u64 };
        while position < cell_end {
            let start = position - position % block_length;
            let part_end = (start + block_length).min(cell_end);
            let key = BlockKey { container, chunk, position: start, is_large };
            let (skip, length) = ((position - start) as usize, (part_end - position) as usize);
            parts.push(Part { key, block_length, skip, length });
            position = part_end;
        }
    }
    parts
}

impl Stretch {
    /// The stretch, cut where large blocks end.
    pub(crate) fn blocks(self) -> impl Iterator<Item = Self> {
        let end = self.place.position + self.length;
        let mut position = self.place.position;
        std::iter::from_fn(move || {
            let until = (position + 1).next_multiple_of(LARGE_BYTES).min(end);
            let place = Place { position, ..self.place };
            let block = (position < end).then_some(Self { place, length: until.saturating_sub(position) });
            position = until;
            block
        })
    }
}

impl Chunks {
    /// Reads and verifies `length` bytes, in one piece. Blocks on the disk.
    ///
    /// # Errors
    /// `NotFound` if the chunk was given up, whatever else was met on the way.
    pub(crate) fn read(&self, place: Place, length: usize) -> Result<Bytes, StoreError> {
        let mut pieces = self.read_pieces(Stretch { place, length: length as u64 })?;
        if pieces.len() == 1 {
            return Ok(pieces.swap_remove(0));
        }
        let mut joined = BytesMut::with_capacity(length);
        pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
        Ok(joined.freeze())
    }

    /// Reads and verifies a stretch, in the pieces in which it lies in memory. Blocks on the disk.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn read_pieces(&self, stretch: Stretch) -> Result<Vec<Bytes>, StoreError> {
        let mut pieces = Vec::new();
        for part in parts(self.container, stretch) {
            let block = match self.cached(part.key) {
                Some(block) => block,
                None => self.cache.find_or_load(part.key, || self.load(part.key, part.block_length))?,
            };
            let Some(piece) = block.get(part.skip..part.skip + part.length) else {
                return Err(self.too_short(part.key.chunk, part.key.position + (part.skip + part.length) as u64));
            };
            // What waits for a slow peer must not keep much more in memory than itself.
            let is_most = part.length as u64 >= part.block_length / 4;
            pieces.push(if is_most { block.slice_ref(piece) } else { Bytes::copy_from_slice(piece) });
        }
        Ok(pieces)
    }

    /// Brings a stretch into memory that somebody will want soon, unless memory is full of what was fetched before and
    /// not read yet. Blocks on the disk.
    pub(crate) fn fetch_ahead(&self, stretch: Stretch) -> Result<(), StoreError> {
        for part in parts(self.container, stretch) {
            if self.cache.has_room_ahead() {
                self.cache.fetch_ahead(part.key, || self.load(part.key, part.block_length))?;
            }
        }
        Ok(())
    }

    /// The block, or the large one around it, if it is in memory.
    fn cached(&self, key: BlockKey) -> Option<Bytes> {
        if key.is_large {
            return self.cache.find(key);
        }
        let large = BlockKey { position: key.position - key.position % LARGE_BYTES, is_large: true, ..key };
        let Some(block) = self.cache.find(large) else { return self.cache.find(key) };
        let from = ((key.position - large.position) as usize).min(block.len());
        Some(block.slice(from..block.len().min(from + BLOCK_BYTES)))
    }

    /// Reads and verifies a block, less if the chunk ends before.
    fn load(&self, key: BlockKey, block_length: u64) -> Result<Bytes, StoreError> {
        self.unless_gone(key.chunk, || {
            let chunk = self.chunk(key.chunk)?;
            let length = chunk.length.saturating_sub(key.position).min(block_length) as usize;
            let file_offset = HEADER_BYTES as u64 + key.position;
            let bytes = self.objects.get(&chunk.name, file_offset, length)?;
            for (at, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
                chunk.check_block(key.position + (at * BLOCK_BYTES) as u64, block)?;
            }
            Ok(bytes)
        })
    }

    /// A chunk that is being deleted may show anything; that it is gone is all that matters then.
    fn unless_gone<T>(&self, chunk: u64, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match read() {
            // Storage that does not answer would not tell either.
            Err(error) if !matches!(error, StoreError::Unreachable { .. }) => {
                match self.objects.length(&path_of(self.container, chunk)) {
                    Err(gone) if gone.is_not_found() => Err(gone),
                    _ => Err(error),
                }
            }
            read => read,
        }
    }

    fn too_short(&self, chunk: u64, end: u64) -> StoreError {
        let name = path_of(self.container, chunk);
        match self.chunk(chunk) {
            Ok(open) => {
                let what = format!("chunk has {} bytes, {end} are expected", open.length);
                StoreError::damaged(&name, HEADER_BYTES as u64 + open.length, what)
            }
            Err(error) => error,
        }
    }

    /// Forgets what is known of a chunk.
    pub(super) fn forget(&self, chunk: u64) {
        self.open.lock().expect("no holder of the open chunks panics").chunks.remove(&chunk);
    }

    pub(super) fn chunk(&self, number: u64) -> Result<Arc<OpenChunk>, StoreError> {
        {
            let mut open = self.open.lock().expect("no holder of the open chunks panics");
            open.turn += 1;
            let turn = open.turn;
            if let Some((used, chunk)) = open.chunks.get_mut(&number) {
                *used = turn;
                return Ok(chunk.clone());
            }
        }
        let chunk = Arc::new(OpenChunk::open(&*self.objects, self.container, number)?);
        let mut open = self.open.lock().expect("no holder of the open chunks panics");
        if open.chunks.len() >= OPEN_CHUNKS_MAX
            && let Some(oldest) = open.chunks.iter().min_by_key(|(_, (used, _))| *used).map(|(number, _)| *number)
        {
            open.chunks.remove(&oldest);
        }
        let turn = open.turn;
        open.chunks.insert(number, (turn, chunk.clone()));
        Ok(chunk)
    }
}

impl OpenChunk {
    /// Reads what stands around the bytes of a chunk, and verifies it.
    pub(super) fn open(objects: &dyn Objects, container: u32, number: u64) -> Result<Self, StoreError> {
        let name = path_of(container, number);
        let size = objects.length(&name)?;
        if size < (HEADER_BYTES + FOOTER_BYTES) as u64 {
            return Err(StoreError::damaged(&name, size, "file is too short for a chunk"));
        }
        check_header(&name, &objects.get(&name, 0, HEADER_BYTES)?, container, number)?;
        let footer = objects.get(&name, size - FOOTER_BYTES as u64, FOOTER_BYTES)?;
        let footer = Footer::decode(&name, size, &footer)?;
        let table_bytes = footer.table_bytes() as usize;
        let table = objects.get(&name, HEADER_BYTES as u64 + footer.length, table_bytes)?;
        Ok(Self { length: footer.length, sums: footer.sums(&name, &table)?, name })
    }

    /// Verifies the bytes under one checksum, which begin at `position` among the chunk's bytes.
    pub(super) fn check_block(&self, position: u64, block: &[u8]) -> Result<(), StoreError> {
        if crate::canary::is(7) {
            return Ok(());
        }
        let expected = self.sums[(position / BLOCK_BYTES as u64) as usize];
        verify_sum(&self.name, HEADER_BYTES as u64 + position, "block", expected, block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(position: u64, length: u64, expect: &[(u64, bool, usize, usize)]) {
        let stretch = Stretch { place: Place { chunk: 1, position }, length };
        let found: Vec<_> = parts(0, stretch)
            .iter()
            .map(|part| (part.key.position, part.key.is_large, part.skip, part.length))
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn much_is_read_in_large_blocks_and_little_in_small_ones() {
        const K: u64 = 1 << 10;
        check(0, 2 << 20, &[(0, true, 0, 1 << 20), (1 << 20, true, 0, 1 << 20)]);
        check(10, 20, &[(0, false, 10, 20)]);
        check(60 * K, 10 * K, &[(0, false, 60 << 10, 4 << 10), (64 * K, false, 0, 6 << 10)]);
        check(512 * K, (1 << 20) - 512 * K + 5, &[(0, true, 512 << 10, 512 << 10), (1 << 20, false, 0, 5)]);
        check(0, 0, &[]);
    }
}
