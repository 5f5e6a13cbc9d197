//! A run: a sorted, immutable file of entries.
//!
//! ```text
//!   │ header │ block │ … │ block │ filter │ block │ … │ filter │ index │ footer │
//! ```
//!
//! Blocks hold entries in key order and end with a checksum. A filter covers the blocks between the one before it and
//! itself, and says of most keys that are not there that they are not. The index names where each block begins, in the
//! file and among the keys; it is kept in memory, about 60 bytes for 4 KiB. Every block and filter is verified when it
//! is read from disk.

mod verify;

use std::ops::Bound;
use std::sync::Arc;

use crate::codec::{Decoder, Encoder, Malformed};
use crate::error::{IoContext, StoreError, verify_sum};
use crate::io::{Disk, File};

use super::cache::RunCache;
use super::{Entry, filter};

pub(super) const MAGIC: &[u8; 8] = b"HWRUN\0\0\x01";
/// 2: with filters. Format 1 was never released.
pub(super) const FORMAT: u32 = 2;
pub(super) const HEADER_BYTES: usize = 8 + 4 + 8 + 4;
/// Index offset, index length, index checksum, entry count, footer checksum.
const FOOTER_BYTES: usize = 8 + 8 + 4 + 8 + 4;
/// Stored length of a removal's value.
pub(super) const REMOVED: u32 = u32::MAX;
/// Bytes that a walk over a whole run reads at a time.
const STREAM_BYTES: u64 = 256 << 10;

/// Where the blocks and filters of a run are.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// For each block a key that is above every key before the block and not above its first, one behind the other.
    keys: Vec<u8>,
    blocks: Vec<BlockIndex>,
    filters: Vec<FilterIndex>,
}

#[derive(Clone, Copy, Debug)]
struct BlockIndex {
    /// Where its key ends in `keys`.
    key_end: u32,
    length: u32,
    offset: u64,
}

#[derive(Clone, Copy, Debug)]
struct FilterIndex {
    /// The first block behind those it covers.
    end: u32,
    length: u32,
    offset: u64,
}

impl Index {
    pub(super) fn add_block(&mut self, first: &[u8], offset: u64, length: u32) {
        self.keys.extend_from_slice(first);
        let key_end = u32::try_from(self.keys.len()).expect("an index stays far below 4 GiB");
        self.blocks.push(BlockIndex { key_end, length, offset });
    }

    pub(super) fn add_filter(&mut self, offset: u64, length: u32) {
        self.filters.push(FilterIndex { end: self.blocks.len() as u32, length, offset });
    }

    /// Gives back what growing left over.
    pub(super) fn shrink(&mut self) {
        self.keys.shrink_to_fit();
        self.blocks.shrink_to_fit();
        self.filters.shrink_to_fit();
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u32(self.blocks.len() as u32);
        for (at, block) in self.blocks.iter().enumerate() {
            out.bytes(self.key(at)).u64(block.offset).u32(block.length);
        }
        out.u32(self.filters.len() as u32);
        for filter in &self.filters {
            out.u32(filter.end).u64(filter.offset).u32(filter.length);
        }
        out.0
    }

    /// `end`: where the blocks have to end.
    fn decode(bytes: &[u8], end: u64) -> Result<Self, Malformed> {
        let mut input = Decoder::new(bytes);
        let mut index = Self::default();
        let is_inside = |offset: u64, length: u32| {
            if length < 4 {
                return Err(Malformed("block is too short for its checksum"));
            }
            if offset.checked_add(u64::from(length)).is_none_or(|behind| behind > end) {
                return Err(Malformed("block lies outside of the blocks"));
            }
            Ok(())
        };
        for _ in 0..input.u32()? {
            let (first, offset, length) = (input.bytes()?, input.u64()?, input.u32()?);
            is_inside(offset, length)?;
            index.add_block(first, offset, length);
        }
        for _ in 0..input.u32()? {
            let (end, offset, length) = (input.u32()?, input.u64()?, input.u32()?);
            is_inside(offset, length)?;
            index.filters.push(FilterIndex { end, length, offset });
        }
        input.end()?;
        index.shrink();
        Ok(index)
    }

    fn key(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.blocks[before].key_end);
        &self.keys[start as usize..self.blocks[at].key_end as usize]
    }

    /// The only block that can hold the key.
    fn block_of(&self, key: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.blocks.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.key(middle) <= key { low = middle + 1 } else { high = middle }
        }
        low.checked_sub(1)
    }

    fn filter_of(&self, block: usize) -> Option<&FilterIndex> {
        self.filters.get(self.filters.partition_point(|filter| filter.end as usize <= block))
    }

    /// Memory it takes, in bytes.
    fn memory_bytes(&self) -> usize {
        self.keys.len() + self.blocks.len() * size_of::<BlockIndex>() + self.filters.len() * size_of::<FilterIndex>()
    }
}

/// An open run.
pub(crate) struct Run {
    container: u32,
    path: String,
    pub(super) number: u64,
    file: Arc<dyn File>,
    pub(super) length: u64,
    entries: u64,
    index: Index,
    cache: Arc<RunCache>,
}

/// What a look-up that may not touch the disk learns.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Found {
    /// The key is not in this run.
    Absent,
    /// `None` is a removal.
    Entry(Option<Vec<u8>>),
    /// Only the disk knows.
    Cold,
}

/// Why a walk does not go on.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The next block is not in memory, and the walk may not wait for the disk.
    Cold,
    Failed(StoreError),
}

impl Stop {
    /// For walks that may wait.
    pub(crate) fn failed(self) -> StoreError {
        match self {
            Self::Failed(error) => error,
            Self::Cold => unreachable!("a walk that may wait is never cold"),
        }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl Run {
    #[allow(clippy::too_many_arguments, reason = "the fields of one value, each once")]
    pub(super) fn new(
        container: u32,
        path: String,
        number: u64,
        file: Arc<dyn File>,
        length: u64,
        entries: u64,
        index: Index,
        cache: Arc<RunCache>,
    ) -> Self {
        Self { container, path, number, file, length, entries, index, cache }
    }

    /// Opens and verifies header, index and footer.
    pub(super) fn open(
        disk: &dyn Disk,
        container: u32,
        path: String,
        number: u64,
        cache: Arc<RunCache>,
    ) -> Result<Self, StoreError> {
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
        verify_sum(&path, 0, "header", input.u32().map_err(&malformed)?, &header[..HEADER_BYTES - 4])?;
        if stored_number != number {
            return Err(StoreError::damaged(&path, 0, format!("run {stored_number}, expected {number}")));
        }
        if format < FORMAT {
            return Err(damaged(0, "run of a format that was never released"));
        }
        let footer_at = length - FOOTER_BYTES as u64;
        let mut footer = [0; FOOTER_BYTES];
        file.read_at(footer_at, &mut footer).on(&path, "read")?;
        let mut input = Decoder::new(&footer);
        let (index_at, index_length) = (input.u64().map_err(&malformed)?, input.u64().map_err(&malformed)?);
        let index_sum = input.u32().map_err(&malformed)?;
        let entries = input.u64().map_err(&malformed)?;
        verify_sum(&path, footer_at, "footer", input.u32().map_err(&malformed)?, &footer[..FOOTER_BYTES - 4])?;
        if index_at.checked_add(index_length) != Some(footer_at) {
            return Err(damaged(footer_at, "index does not end where the footer begins"));
        }
        let mut bytes = vec![0; index_length as usize];
        file.read_at(index_at, &mut bytes).on(&path, "read")?;
        verify_sum(&path, index_at, "index", index_sum, &bytes)?;
        let index = Index::decode(&bytes, index_at).map_err(StoreError::malformed(&path, index_at))?;
        Ok(Self::new(container, path.clone(), number, file, length, entries, index, cache))
    }

    /// Path of the file.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Memory its index takes, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.index.memory_bytes()
    }

    /// Looks a key up; never [`Found::Cold`] if it `may_wait` for the disk.
    pub(super) fn get(&self, key: &[u8], hash: u64, may_wait: bool) -> Result<Found, StoreError> {
        let Some(at) = self.index.block_of(key) else { return Ok(Found::Absent) };
        if let Some(&FilterIndex { offset, length, .. }) = self.index.filter_of(at) {
            match self.content(offset, length, may_wait)? {
                None => return Ok(Found::Cold),
                Some(filter) if !filter::may_hold(&filter, hash) => return Ok(Found::Absent),
                Some(_) => {}
            }
        }
        let Some(block) = self.block(at, may_wait)? else { return Ok(Found::Cold) };
        let mut entries = BlockEntries::new(&block);
        while let Some((found, value)) = entries.next().map_err(self.malformed(at))? {
            match found.cmp(key) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(Found::Entry(value.map(<[u8]>::to_vec))),
                std::cmp::Ordering::Greater => break,
            }
        }
        Ok(Found::Absent)
    }

    /// Walks from a key on, through the cache.
    pub(super) fn iterate(self: Arc<Self>, from: Bound<&[u8]>, may_wait: bool) -> Result<RunIterator, Stop> {
        let first = match from {
            Bound::Included(key) | Bound::Excluded(key) => self.index.block_of(key).unwrap_or(0),
            Bound::Unbounded => 0,
        };
        let reading = Reading::Cached { may_wait };
        let mut iterator =
            RunIterator { run: self, next_block: first, block: Arc::default(), position: 0, reading, put_back: None };
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

    /// Walks over everything, in large reads that leave nothing in the cache.
    pub(super) fn stream(self: Arc<Self>) -> RunIterator {
        let reading = Reading::Streamed { bytes: Vec::new(), offset: 0, last: Vec::new() };
        RunIterator { run: self, next_block: 0, block: Arc::default(), position: 0, reading, put_back: None }
    }

    fn malformed(&self, block: usize) -> impl Fn(Malformed) -> StoreError {
        StoreError::malformed(&self.path, self.index.blocks[block].offset)
    }

    fn block(&self, at: usize, may_wait: bool) -> Result<Option<Arc<[u8]>>, StoreError> {
        let BlockIndex { offset, length, .. } = self.index.blocks[at];
        self.content(offset, length, may_wait)
    }

    /// A block or filter, verified; `None` if it is not in memory and the caller may not wait.
    fn content(&self, offset: u64, length: u32, may_wait: bool) -> Result<Option<Arc<[u8]>>, StoreError> {
        let address = (self.container, self.number, offset);
        if let Some(content) = self.cache.get(address) {
            return Ok(Some(content));
        }
        if !may_wait {
            return Ok(None);
        }
        let content: Arc<[u8]> = self.read_content(offset, length)?.into();
        self.cache.put(address, content.clone());
        Ok(Some(content))
    }

    /// A block or filter from the disk, verified.
    fn read_content(&self, offset: u64, length: u32) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; length as usize];
        self.file.read_at(offset, &mut bytes).on(&self.path, "read")?;
        let content = self.check_sum(&bytes, offset)?.len();
        bytes.truncate(content);
        Ok(bytes)
    }

    fn check_sum<'a>(&self, bytes: &'a [u8], offset: u64) -> Result<&'a [u8], StoreError> {
        let (content, sum) = bytes.split_at(bytes.len() - 4);
        verify_sum(&self.path, offset, "block", u32::from_be_bytes(sum.try_into().expect("four bytes")), content)?;
        Ok(content)
    }

    /// Reads the bytes from a block on, several blocks at once.
    fn stretch(&self, first: usize) -> Result<Vec<u8>, StoreError> {
        let start = self.index.blocks[first].offset;
        let rest = &self.index.blocks[first..];
        let count = rest.partition_point(|block| block.offset + u64::from(block.length) - start <= STREAM_BYTES);
        let last = rest[count.max(1) - 1];
        let mut bytes = vec![0; (last.offset + u64::from(last.length) - start) as usize];
        self.file.read_at(start, &mut bytes).on(&self.path, "read")?;
        Ok(bytes)
    }
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

/// How a walk gets its blocks.
enum Reading {
    Cached {
        may_wait: bool,
    },
    /// `bytes` are those of the file from `offset` on. What is streamed is written again, so its order is checked: `last` is
    /// the key before.
    Streamed {
        bytes: Vec<u8>,
        offset: u64,
        last: Vec<u8>,
    },
}

/// Walks a run in key order, removals included.
pub(super) struct RunIterator {
    run: Arc<Run>,
    next_block: usize,
    block: Arc<[u8]>,
    position: usize,
    reading: Reading,
    put_back: Option<Entry>,
}

impl RunIterator {
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, Stop> {
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
                if let Reading::Streamed { last, .. } = &mut self.reading {
                    if key <= last.as_slice() {
                        return Err(self.run.malformed(at)(Malformed("keys are out of order")).into());
                    }
                    last.clear();
                    last.extend_from_slice(key);
                }
                return Ok(Some((key.to_vec(), value.map(<[u8]>::to_vec))));
            }
            if self.next_block == self.run.index.blocks.len() {
                return Ok(None);
            }
            self.block = self.read(self.next_block)?;
            self.next_block += 1;
            self.position = 0;
        }
    }

    fn read(&mut self, at: usize) -> Result<Arc<[u8]>, Stop> {
        match &mut self.reading {
            Reading::Cached { may_wait } => self.run.block(at, *may_wait)?.ok_or(Stop::Cold),
            Reading::Streamed { bytes, offset, .. } => {
                let BlockIndex { offset: start, length, .. } = self.run.index.blocks[at];
                let is_there =
                    |bytes: &[u8], from: u64| start >= from && start + u64::from(length) <= from + bytes.len() as u64;
                if !is_there(bytes, *offset) {
                    *bytes = self.run.stretch(at)?;
                    *offset = start;
                }
                let from = (start - *offset) as usize;
                let content = self.run.check_sum(&bytes[from..from + length as usize], start)?;
                Ok(content.into())
            }
        }
    }
}
