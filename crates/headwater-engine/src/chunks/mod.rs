//! Chunks: what left the journal. A chunk is an immutable file that holds runs of segments' bytes and nothing else;
//! which segment they belong to is the catalogue's knowledge.
//!
//! ```text
//!   │ header │ bytes of one or more pieces │ table of checksums │ footer │
//! ```
//!
//! Invariants:
//! * a chunk is written once, synced together with its name, and never changed ([`write`])
//! * every 64 KiB of its bytes have a checksum, which is verified before any of them is served ([`Chunks::read`])
//! * a chunk is removed only after a durable checkpoint no longer names it
//!
//! Names are numbers; a segment's name is nowhere on disk but in the catalogue.

mod verify;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::codec::{Decoder, Encoder};
use crate::error::{IoContext, StoreError};
use crate::io::{Disk, File};
pub(crate) use verify::verify;

const MAGIC: &[u8; 8] = b"HWCHUNK\x01";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 64;
/// Magic, format, container, number, checksum; zeros follow.
const HEADER_USED_BYTES: usize = 8 + 4 + 4 + 8 + 4;
/// Length of the bytes, checksum of the table, checksum of the footer.
const FOOTER_BYTES: usize = 8 + 4 + 4;
/// Bytes under one checksum.
const BLOCK_BYTES: usize = 64 << 10;
/// A chunk that has grown to this is closed, so that truncation can give its disk space back.
const CHUNK_BYTES: u64 = 64 << 20;
/// A piece of at least this stands in a chunk of its own: it will usually be given up as one.
const LONE_PIECE_BYTES: u64 = 8 << 20;
/// Largest single write: long bursts delay the journal's commits.
const WRITE_BYTES: usize = 1 << 20;
/// Chunks kept open.
const OPEN_CHUNKS_MAX: usize = 128;

/// Where a run of a segment's bytes stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    /// Chunk.
    pub(crate) chunk: u64,
    /// Position among the chunk's bytes.
    pub(crate) position: u64,
}

/// A run of a segment's bytes that is to be stored.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) segment: u64,
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) parts: Vec<Bytes>,
}

/// A piece and where it is now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredPiece {
    pub(crate) segment: u64,
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) place: Place,
}

/// Directory of a container's chunks.
pub(crate) fn directory(container: u32) -> String {
    format!("chunks-{container:04}")
}

/// Path of a chunk.
pub(crate) fn path_of(container: u32, chunk: u64) -> String {
    format!("{}/{chunk:016}.chunk", directory(container))
}

/// Number of a chunk from its file name.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".chunk")?.parse().ok()
}

/// Writes pieces to new chunks, numbered from `next` on; content and names are durable afterwards. Returns where the
/// pieces are and the bytes in each chunk.
pub(crate) fn write(
    disk: &dyn Disk,
    container: u32,
    next: &mut u64,
    pieces: &[Piece],
) -> Result<(Vec<StoredPiece>, BTreeMap<u64, u64>), StoreError> {
    let mut stored = Vec::with_capacity(pieces.len());
    let mut sizes = BTreeMap::new();
    let mut open: Option<ChunkWriter> = None;
    for piece in pieces {
        let lone = piece.length >= LONE_PIECE_BYTES;
        if let Some(writer) = open.take_if(|writer| lone || writer.length >= CHUNK_BYTES) {
            sizes.insert(writer.chunk, writer.finish()?);
        }
        let writer = match &mut open {
            Some(writer) => writer,
            None => {
                *next += 1;
                open.insert(ChunkWriter::create(disk, container, *next - 1)?)
            }
        };
        let place = Place { chunk: writer.chunk, position: writer.length };
        for part in &piece.parts {
            writer.add(part)?;
        }
        assert_eq!(writer.length - place.position, piece.length, "a piece is as long as its parts together");
        stored.push(StoredPiece { segment: piece.segment, start: piece.start, length: piece.length, place });
        if lone && let Some(writer) = open.take() {
            sizes.insert(writer.chunk, writer.finish()?);
        }
    }
    if let Some(writer) = open {
        sizes.insert(writer.chunk, writer.finish()?);
    }
    if !sizes.is_empty() {
        let place = directory(container);
        disk.sync_directory(&place).on(&place, "sync")?;
    }
    Ok((stored, sizes))
}

struct ChunkWriter {
    chunk: u64,
    path: String,
    file: Arc<dyn File>,
    /// Bytes added so far.
    length: u64,
    /// Bytes of these that are in the file.
    written: u64,
    /// Bytes added and not yet written, always less than a write.
    pending: Vec<u8>,
    sums: Encoder,
}

impl ChunkWriter {
    fn create(disk: &dyn Disk, container: u32, chunk: u64) -> Result<Self, StoreError> {
        let path = path_of(container, chunk);
        let file = disk.create(&path).on(&path, "create")?;
        let mut header = Encoder::default();
        header.0.extend_from_slice(MAGIC);
        header.u32(FORMAT).u32(container).u64(chunk);
        let sum = crc32c::crc32c(&header.0);
        header.u32(sum);
        header.0.resize(HEADER_BYTES, 0);
        file.write_at(0, &header.0).on(&path, "write")?;
        Ok(Self { chunk, path, file, length: 0, written: 0, pending: Vec::new(), sums: Encoder::default() })
    }

    fn add(&mut self, mut part: &[u8]) -> Result<(), StoreError> {
        self.length += part.len() as u64;
        while !part.is_empty() {
            let (now, later) = part.split_at(part.len().min(WRITE_BYTES - self.pending.len()));
            self.pending.extend_from_slice(now);
            part = later;
            if self.pending.len() == WRITE_BYTES {
                self.write_pending()?;
            }
        }
        Ok(())
    }

    fn write_pending(&mut self) -> Result<(), StoreError> {
        const { assert!(WRITE_BYTES.is_multiple_of(BLOCK_BYTES), "a write ends with a block, unless it is the last") };
        for block in self.pending.chunks(BLOCK_BYTES) {
            self.sums.u32(crc32c::crc32c(block));
        }
        self.file.write_at(HEADER_BYTES as u64 + self.written, &self.pending).on(&self.path, "write")?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<u64, StoreError> {
        if !self.pending.is_empty() {
            self.write_pending()?;
        }
        let mut tail = self.sums;
        let sum = crc32c::crc32c(&tail.0);
        let mut footer = Encoder::default();
        footer.u64(self.length).u32(sum);
        let sum = crc32c::crc32c(&footer.0);
        footer.u32(sum);
        tail.0.extend_from_slice(&footer.0);
        self.file.write_at(HEADER_BYTES as u64 + self.length, &tail.0).on(&self.path, "write")?;
        self.file.sync().on(&self.path, "sync")?;
        Ok(self.length)
    }
}

/// Reads chunks of one container; cheap to share between threads.
pub(crate) struct Chunks {
    disk: Arc<dyn Disk>,
    container: u32,
    open: Mutex<OpenChunks>,
}

#[derive(Default)]
struct OpenChunks {
    turn: u64,
    chunks: BTreeMap<u64, (u64, Arc<OpenChunk>)>,
}

struct OpenChunk {
    path: String,
    file: Arc<dyn File>,
    length: u64,
    sums: Vec<u32>,
}

impl Chunks {
    pub(crate) fn new(disk: Arc<dyn Disk>, container: u32) -> Self {
        Self { disk, container, open: Mutex::default() }
    }

    /// Reads and verifies `length` bytes. Blocks on the disk.
    pub(crate) fn read(&self, place: Place, length: usize) -> Result<Bytes, StoreError> {
        let chunk = self.chunk(place.chunk)?;
        let end = place.position + length as u64;
        if end > chunk.length {
            let what = format!("chunk has {} bytes, {end} are expected", chunk.length);
            return Err(StoreError::damaged(&chunk.path, HEADER_BYTES as u64 + chunk.length, what));
        }
        let first = place.position / BLOCK_BYTES as u64;
        let from = first * BLOCK_BYTES as u64;
        let to = end.next_multiple_of(BLOCK_BYTES as u64).min(chunk.length);
        let mut bytes = vec![0; (to - from) as usize];
        chunk.file.read_at(HEADER_BYTES as u64 + from, &mut bytes).on(&chunk.path, "read")?;
        for (at, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
            let (expected, found) = (chunk.sums[first as usize + at], crc32c::crc32c(block));
            if expected != found {
                let offset = HEADER_BYTES as u64 + from + (at * BLOCK_BYTES) as u64;
                let what = format!("block has checksum {found:08x}, expected {expected:08x}");
                return Err(StoreError::damaged(&chunk.path, offset, what));
            }
        }
        let skip = (place.position - from) as usize;
        Ok(Bytes::from(bytes).slice(skip..skip + length))
    }

    /// Removes chunks that no durable checkpoint names any more. What cannot be removed now is at the next start.
    pub(crate) fn remove(&self, chunks: &[u64]) {
        for &chunk in chunks {
            self.open.lock().expect("no holder of the open chunks panics").chunks.remove(&chunk);
            let path = path_of(self.container, chunk);
            match self.disk.remove(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(path, %error, "could not remove a chunk");
                }
                _ => {}
            }
        }
    }

    fn chunk(&self, number: u64) -> Result<Arc<OpenChunk>, StoreError> {
        {
            let mut open = self.open.lock().expect("no holder of the open chunks panics");
            open.turn += 1;
            let turn = open.turn;
            if let Some((used, chunk)) = open.chunks.get_mut(&number) {
                *used = turn;
                return Ok(chunk.clone());
            }
        }
        let chunk = Arc::new(OpenChunk::open(&*self.disk, self.container, number)?);
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
    fn open(disk: &dyn Disk, container: u32, number: u64) -> Result<Self, StoreError> {
        let path = path_of(container, number);
        let file = disk.open(&path).on(&path, "open")?;
        let size = file.length().on(&path, "measure")?;
        let malformed = StoreError::malformed(&path, 0);
        if size < (HEADER_BYTES + FOOTER_BYTES) as u64 {
            return Err(StoreError::damaged(&path, size, "file is too short for a chunk"));
        }
        let mut header = [0; HEADER_BYTES];
        file.read_at(0, &mut header).on(&path, "read")?;
        let mut input = Decoder::new(&header);
        if input.take(8).map_err(&malformed)? != MAGIC {
            return Err(StoreError::damaged(&path, 0, "not a chunk"));
        }
        let format = input.u32().map_err(&malformed)?;
        if format > FORMAT {
            return Err(StoreError::Newer { path: path.clone(), found: format, known: FORMAT });
        }
        let owner = (input.u32().map_err(&malformed)?, input.u64().map_err(&malformed)?);
        let covered = HEADER_BYTES - input.remaining();
        if input.u32().map_err(&malformed)? != crc32c::crc32c(&header[..covered]) || owner != (container, number) {
            return Err(StoreError::damaged(&path, 0, "header fails its checksum"));
        }
        let footer_at = size - FOOTER_BYTES as u64;
        let mut footer = [0; FOOTER_BYTES];
        file.read_at(footer_at, &mut footer).on(&path, "read")?;
        let mut input = Decoder::new(&footer);
        let (length, table_sum) = (input.u64().map_err(&malformed)?, input.u32().map_err(&malformed)?);
        let footer_sum = input.u32().map_err(&malformed)?;
        let blocks = length.div_ceil(BLOCK_BYTES as u64);
        if footer_sum != crc32c::crc32c(&footer[..FOOTER_BYTES - 4])
            || (HEADER_BYTES as u64).checked_add(length).and_then(|end| end.checked_add(blocks * 4)) != Some(footer_at)
        {
            return Err(StoreError::damaged(&path, footer_at, "footer fails its checksum"));
        }
        let mut table = vec![0; (blocks * 4) as usize];
        let table_at = HEADER_BYTES as u64 + length;
        file.read_at(table_at, &mut table).on(&path, "read")?;
        if crc32c::crc32c(&table) != table_sum {
            return Err(StoreError::damaged(&path, table_at, "table of checksums fails its own"));
        }
        let sums = table.chunks_exact(4).map(|sum| u32::from_be_bytes(sum.try_into().expect("four bytes"))).collect();
        Ok(Self { path: path.clone(), file, length, sums })
    }
}
