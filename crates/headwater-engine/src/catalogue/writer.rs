//! Writing a run, entry by entry, in key order.

use std::sync::Arc;

use crate::canary;
use crate::codec::Encoder;
use crate::error::{IoContext, StoreError};
use crate::io::{Disk, File};

use super::Key;
use super::cache::RunCache;
use super::filter;
use super::run::{FORMAT, HEADER_BYTES, Index, MAGIC, REMOVED, Run};

/// A block is closed once it has grown to this.
const BLOCK_BYTES: usize = 4 << 10;
/// Bytes that one call writes: few calls, and no burst that delays the journal's.
const WRITE_BYTES: usize = 256 << 10;
/// Bytes after which the file is synced, so that no sync at the end has all of a large run to write.
const SYNC_BYTES: u64 = 16 << 20;

/// See the [module](self).
pub(super) struct RunWriter {
    container: u32,
    cache: Arc<RunCache>,
    keeps_blocks: bool,
    path: String,
    number: u64,
    file: Arc<dyn File>,
    /// Bytes given to the file.
    written: u64,
    /// Bytes that follow them.
    pending: Vec<u8>,
    unsynced: u64,
    block: Encoder,
    block_first: Key,
    last_key: Key,
    index: Index,
    /// Of the keys since the last filter.
    hashes: Vec<u64>,
    entries: u64,
}

impl RunWriter {
    /// `keeps_blocks`: what is written will be asked for soon, so it goes into the cache. Filters always do.
    pub(super) fn create(
        disk: &dyn Disk,
        container: u32,
        path: String,
        number: u64,
        cache: Arc<RunCache>,
        keeps_blocks: bool,
    ) -> Result<Self, StoreError> {
        let file = disk.create(&path).on(&path, "create")?;
        let mut header = Encoder::default();
        header.0.extend_from_slice(MAGIC);
        header.u32(FORMAT).u64(number);
        let sum = crc32c::crc32c(&header.0);
        header.u32(sum);
        assert_eq!(header.0.len(), HEADER_BYTES, "the header has its length");
        Ok(Self {
            container,
            cache,
            keeps_blocks,
            path,
            number,
            file,
            written: 0,
            pending: header.0,
            unsynced: 0,
            block: Encoder::default(),
            block_first: Key::new(),
            last_key: Key::new(),
            index: Index::default(),
            hashes: Vec::new(),
            entries: 0,
        })
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Bytes so far.
    pub(super) fn length(&self) -> u64 {
        self.written + (self.pending.len() + self.block.0.len()) as u64
    }

    pub(super) fn add(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        assert!(self.entries == 0 || key > self.last_key.as_slice(), "keys of a run grow");
        if self.block.0.is_empty() {
            // The shortest key that tells this block from the one before is enough to find it.
            let shared = key.iter().zip(&self.last_key).take_while(|(one, other)| one == other).count();
            self.block_first = key[..key.len().min(shared + 1)].to_vec();
        }
        self.block.bytes(key);
        match value {
            Some(value) => self.block.bytes(value),
            None => self.block.u32(REMOVED),
        };
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.hashes.push(filter::hash(key));
        self.entries += 1;
        if self.block.0.len() >= BLOCK_BYTES { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> Result<(), StoreError> {
        if self.block.0.is_empty() {
            return Ok(());
        }
        let content = std::mem::take(&mut self.block.0);
        let (offset, length) = self.put(&content)?;
        self.index.add_block(&self.block_first, offset, length);
        if self.keeps_blocks {
            self.cache.put((self.container, self.number, offset), content.as_slice().into());
        }
        self.block.0 = content;
        self.block.0.clear();
        if self.hashes.len() >= filter::KEYS_MAX { self.end_filter() } else { Ok(()) }
    }

    /// Closes the filter over the blocks since the last one.
    fn end_filter(&mut self) -> Result<(), StoreError> {
        if !self.hashes.is_empty() {
            let filter = filter::build(&std::mem::take(&mut self.hashes));
            let (offset, length) = self.put(&filter)?;
            self.index.add_filter(offset, length);
            self.cache.put((self.container, self.number, offset), filter.into());
        }
        Ok(())
    }

    /// Puts content and its checksum into the file; returns where they are.
    fn put(&mut self, content: &[u8]) -> Result<(u64, u32), StoreError> {
        let offset = self.written + self.pending.len() as u64;
        self.pending.extend_from_slice(content);
        self.pending.extend_from_slice(&crc32c::crc32c(content).to_be_bytes());
        if self.pending.len() >= WRITE_BYTES {
            self.write_pending()?;
        }
        Ok((offset, content.len() as u32 + 4))
    }

    fn write_pending(&mut self) -> Result<(), StoreError> {
        self.file.write_at(self.written, &self.pending).on(&self.path, "write")?;
        self.written += self.pending.len() as u64;
        self.unsynced += self.pending.len() as u64;
        self.pending.clear();
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.file.sync().on(&self.path, "sync")?;
        }
        Ok(())
    }

    /// Writes index and footer and syncs the file; its directory is the caller's business.
    pub(super) fn finish(mut self) -> Result<Run, StoreError> {
        self.end_block()?;
        self.end_filter()?;
        let index_at = self.written + self.pending.len() as u64;
        let index = self.index.encode();
        let mut footer = Encoder::default();
        footer.u64(index_at).u64(index.len() as u64).u32(crc32c::crc32c(&index)).u64(self.entries);
        let sum = crc32c::crc32c(&footer.0);
        footer.u32(sum);
        self.pending.extend_from_slice(&index);
        self.pending.extend_from_slice(&footer.0);
        self.write_pending()?;
        if !canary::is(26) {
            self.file.sync().on(&self.path, "sync")?;
        }
        self.index.shrink();
        Ok(Run::new(
            self.container,
            self.path,
            self.number,
            self.file,
            self.written,
            self.entries,
            self.index,
            self.cache,
        ))
    }
}
