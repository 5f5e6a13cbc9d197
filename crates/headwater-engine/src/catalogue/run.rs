//! A run: a sorted, immutable file of entries.
//!
//! ```text
//!   │ header │ block │ block │ … │ index │ footer │
//! ```
//!
//! Blocks hold entries in key order and end with a checksum; the index names the first key of each block and is kept
//! in memory. Every block is verified when it is read from disk.

mod verify;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use crate::canary;
use crate::codec::{Decoder, Encoder, Malformed};
use crate::error::{IoContext, StoreError};
use crate::io::{Disk, File};

use super::{Entry, Key};

const MAGIC: &[u8; 8] = b"HWRUN\0\0\x01";
const FORMAT: u32 = 1;
/// A block is closed once it has grown to this.
const BLOCK_BYTES: usize = 4 << 10;
const HEADER_BYTES: usize = 8 + 4 + 8 + 4;
/// Index offset, index length, index checksum, entry count, footer checksum.
const FOOTER_BYTES: usize = 8 + 8 + 4 + 8 + 4;
/// Stored length of a removal's value.
const REMOVED: u32 = u32::MAX;

/// Writes a run, entry by entry, in key order.
pub(super) struct RunWriter {
    path: String,
    number: u64,
    file: Arc<dyn File>,
    position: u64,
    block: Encoder,
    block_first: Key,
    last_key: Key,
    index: Vec<IndexEntry>,
    entries: u64,
}

#[derive(Clone, Debug)]
struct IndexEntry {
    first: Key,
    offset: u64,
    length: u32,
}

impl RunWriter {
    pub(super) fn create(disk: &dyn Disk, path: String, number: u64) -> Result<Self, StoreError> {
        let file = disk.create(&path).on(&path, "create")?;
        let mut header = Encoder::default();
        header.0.extend_from_slice(MAGIC);
        header.u32(FORMAT).u64(number);
        let sum = crc32c::crc32c(&header.0);
        header.u32(sum);
        file.write_at(0, &header.0).on(&path, "write")?;
        Ok(Self {
            path,
            number,
            file,
            position: HEADER_BYTES as u64,
            block: Encoder::default(),
            block_first: Key::new(),
            last_key: Key::new(),
            index: Vec::new(),
            entries: 0,
        })
    }

    pub(super) fn add(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        assert!(self.entries == 0 || key > self.last_key.as_slice(), "keys of a run grow");
        if self.block.0.is_empty() {
            self.block_first = key.to_vec();
        }
        self.block.bytes(key);
        match value {
            Some(value) => self.block.bytes(value),
            None => self.block.u32(REMOVED),
        };
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.entries += 1;
        if self.block.0.len() >= BLOCK_BYTES { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> Result<(), StoreError> {
        if self.block.0.is_empty() {
            return Ok(());
        }
        let sum = crc32c::crc32c(&self.block.0);
        self.block.u32(sum);
        self.file.write_at(self.position, &self.block.0).on(&self.path, "write")?;
        self.index.push(IndexEntry {
            first: std::mem::take(&mut self.block_first),
            offset: self.position,
            length: self.block.0.len() as u32,
        });
        self.position += self.block.0.len() as u64;
        self.block.0.clear();
        Ok(())
    }

    /// Writes index and footer and syncs the file; its directory is the caller's business.
    pub(super) fn finish(mut self) -> Result<Run, StoreError> {
        self.end_block()?;
        let mut index = Encoder::default();
        for entry in &self.index {
            index.bytes(&entry.first).u64(entry.offset).u32(entry.length);
        }
        let mut footer = Encoder::default();
        footer.u64(self.position).u64(index.0.len() as u64).u32(crc32c::crc32c(&index.0)).u64(self.entries);
        let sum = crc32c::crc32c(&footer.0);
        footer.u32(sum);
        index.0.extend_from_slice(&footer.0);
        self.file.write_at(self.position, &index.0).on(&self.path, "write")?;
        if !canary::is(26) {
            self.file.sync().on(&self.path, "sync")?;
        }
        let length = self.position + index.0.len() as u64;
        Ok(Run {
            path: self.path,
            number: self.number,
            file: self.file,
            length,
            entries: self.entries,
            index: self.index,
            blocks: Mutex::default(),
        })
    }
}

/// An open run.
pub(crate) struct Run {
    path: String,
    pub(super) number: u64,
    file: Arc<dyn File>,
    pub(super) length: u64,
    entries: u64,
    index: Vec<IndexEntry>,
    blocks: Mutex<BlockCache>,
}

/// Recently read blocks of one run.
#[derive(Default)]
struct BlockCache {
    blocks: BTreeMap<usize, Arc<[u8]>>,
    order: VecDeque<usize>,
}

/// Blocks one run keeps in memory.
const CACHED_BLOCKS_MAX: usize = 256;

/// Either kind of value a key has in a run: `Some(None)` is a removal.
type Found = Option<Option<Vec<u8>>>;

impl Run {
    /// Opens and verifies header, index and footer.
    pub(super) fn open(disk: &dyn Disk, path: String, number: u64) -> Result<Self, StoreError> {
        let file = disk.open(&path).on(&path, "open")?;
        let length = file.length().on(&path, "measure")?;
        let damaged = |offset, what: &str| StoreError::damaged(&path, offset, what);
        if length < (HEADER_BYTES + FOOTER_BYTES) as u64 {
            return Err(damaged(length, "file is too short for a run"));
        }
        let mut header = [0; HEADER_BYTES];
        file.read_at(0, &mut header).on(&path, "read")?;
        let mut input = Decoder::new(&header);
        let malformed = StoreError::malformed(&path, 0);
        if input.take(8).map_err(&malformed)? != MAGIC {
            return Err(damaged(0, "not a run"));
        }
        let format = input.u32().map_err(&malformed)?;
        if format > FORMAT {
            return Err(StoreError::Newer { path: path.clone(), found: format, known: FORMAT });
        }
        let stored_number = input.u64().map_err(&malformed)?;
        if input.u32().map_err(&malformed)? != crc32c::crc32c(&header[..HEADER_BYTES - 4]) || stored_number != number {
            return Err(damaged(0, "header fails its checksum"));
        }
        let footer_at = length - FOOTER_BYTES as u64;
        let mut footer = [0; FOOTER_BYTES];
        file.read_at(footer_at, &mut footer).on(&path, "read")?;
        let mut input = Decoder::new(&footer);
        let (index_at, index_length) = (input.u64().map_err(&malformed)?, input.u64().map_err(&malformed)?);
        let index_sum = input.u32().map_err(&malformed)?;
        let entries = input.u64().map_err(&malformed)?;
        if input.u32().map_err(&malformed)? != crc32c::crc32c(&footer[..FOOTER_BYTES - 4])
            || index_at.checked_add(index_length) != Some(footer_at)
        {
            return Err(damaged(footer_at, "footer fails its checksum"));
        }
        let mut bytes = vec![0; index_length as usize];
        file.read_at(index_at, &mut bytes).on(&path, "read")?;
        if crc32c::crc32c(&bytes) != index_sum {
            return Err(damaged(index_at, "index fails its checksum"));
        }
        let index = decode_index(&bytes).map_err(StoreError::malformed(&path, index_at))?;
        Ok(Self { path: path.clone(), number, file, length, entries, index, blocks: Mutex::default() })
    }

    /// Path of the file.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Found, StoreError> {
        let Some(at) = self.block_of(key) else { return Ok(None) };
        let block = self.block(at)?;
        let mut entries = BlockEntries::new(&block);
        while let Some((found, value)) = entries.next().map_err(self.malformed(at))? {
            match found.cmp(key) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(Some(value.map(<[u8]>::to_vec))),
                std::cmp::Ordering::Greater => break,
            }
        }
        Ok(None)
    }

    pub(super) fn iterate(self: Arc<Self>, from: Bound<&[u8]>) -> Result<RunIterator, StoreError> {
        let first = match from {
            Bound::Included(key) | Bound::Excluded(key) => self.block_of(key).unwrap_or(0),
            Bound::Unbounded => 0,
        };
        let mut iterator =
            RunIterator { run: self, next_block: first, block: Arc::default(), position: 0, put_back: None };
        while let Some((key, value)) = iterator.next_entry()? {
            let before = match from {
                Bound::Included(bound) => key.as_slice() < bound,
                Bound::Excluded(bound) => key.as_slice() <= bound,
                Bound::Unbounded => false,
            };
            if !before {
                iterator.put_back = Some((key, value));
                break;
            }
        }
        Ok(iterator)
    }

    /// The only block that can hold the key.
    fn block_of(&self, key: &[u8]) -> Option<usize> {
        self.index.partition_point(|entry| entry.first.as_slice() <= key).checked_sub(1)
    }

    fn malformed(&self, block: usize) -> impl Fn(Malformed) -> StoreError {
        StoreError::malformed(&self.path, self.index[block].offset)
    }

    fn block(&self, at: usize) -> Result<Arc<[u8]>, StoreError> {
        if let Some(block) = self.blocks.lock().expect("no holder of the block cache panics").blocks.get(&at) {
            return Ok(block.clone());
        }
        let block: Arc<[u8]> = self.read_block(at)?.into();
        let mut cache = self.blocks.lock().expect("no holder of the block cache panics");
        if cache.order.len() >= CACHED_BLOCKS_MAX
            && let Some(oldest) = cache.order.pop_front()
        {
            cache.blocks.remove(&oldest);
        }
        if cache.blocks.insert(at, block.clone()).is_none() {
            cache.order.push_back(at);
        }
        Ok(block)
    }

    /// Content of a block, verified.
    fn read_block(&self, at: usize) -> Result<Vec<u8>, StoreError> {
        let IndexEntry { offset, length, .. } = self.index[at];
        let mut bytes = vec![0; length as usize];
        self.file.read_at(offset, &mut bytes).on(&self.path, "read")?;
        let sum = bytes.split_off(bytes.len() - 4);
        let (stored, found) = (u32::from_be_bytes(sum.try_into().expect("four bytes")), crc32c::crc32c(&bytes));
        if stored != found {
            let what = format!("block has checksum {found:08x}, expected {stored:08x}");
            return Err(StoreError::damaged(&self.path, offset, what));
        }
        Ok(bytes)
    }
}

fn decode_index(bytes: &[u8]) -> Result<Vec<IndexEntry>, Malformed> {
    let mut input = Decoder::new(bytes);
    let mut index = Vec::new();
    while !input.is_empty() {
        let entry = IndexEntry { first: input.bytes()?.to_vec(), offset: input.u64()?, length: input.u32()? };
        if entry.length < 4 {
            return Err(Malformed("block is too short for its checksum"));
        }
        index.push(entry);
    }
    Ok(index)
}

/// An entry where it stands in its block.
type BorrowedEntry<'a> = (&'a [u8], Option<&'a [u8]>);

struct BlockEntries<'a>(Decoder<'a>);

impl<'a> BlockEntries<'a> {
    fn new(block: &'a [u8]) -> Self {
        Self(Decoder::new(block))
    }

    fn next(&mut self) -> Result<Option<BorrowedEntry<'a>>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.0.bytes()?;
        let length = self.0.u32()?;
        let value = if length == REMOVED { None } else { Some(self.0.take(length as usize)?) };
        Ok(Some((key, value)))
    }
}

/// Walks a run in key order, removals included.
pub(super) struct RunIterator {
    run: Arc<Run>,
    next_block: usize,
    block: Arc<[u8]>,
    position: usize,
    put_back: Option<Entry>,
}

impl RunIterator {
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, StoreError> {
        if let Some(entry) = self.put_back.take() {
            return Ok(Some(entry));
        }
        loop {
            let mut entries = BlockEntries::new(&self.block[self.position..]);
            let at = self.next_block.saturating_sub(1);
            if !entries.0.is_empty() {
                let (key, value) = entries
                    .next()
                    .map_err(self.run.malformed(at))?
                    .expect("a decoder that is not at its end has an entry");
                self.position = self.block.len() - entries.0.remaining();
                return Ok(Some((key.to_vec(), value.map(<[u8]>::to_vec))));
            }
            if self.next_block == self.run.index.len() {
                return Ok(None);
            }
            self.block = self.run.block(self.next_block)?;
            self.next_block += 1;
            self.position = 0;
        }
    }
}
