//! Verified blocks of chunks in memory, for all containers together.
//!
//! Guarantees:
//! * the blocks take at most the bytes the cache was made with, however many readers there are
//! * a block that several readers want at once is loaded once ([`BlockCache::find_or_load`])
//! * blocks fetched ahead of their reader never push out more than half of it ([`BlockCache::has_room_ahead`])

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard};

use bytes::Bytes;

use crate::error::StoreError;

/// Names a block.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct BlockKey {
    pub(super) container: u32,
    pub(super) chunk: u64,
    /// Where it begins among the chunk's bytes.
    pub(super) position: u64,
    /// Blocks have two sizes; this is one of the large ones.
    pub(super) is_large: bool,
}

/// Figures of a cache.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CacheUsage {
    /// Memory in use.
    pub(crate) bytes: u64,
    /// Memory it may use.
    pub(crate) bytes_max: u64,
    /// Blocks found.
    pub(crate) hits: u64,
    /// Blocks loaded because somebody waited for them.
    pub(crate) misses: u64,
    /// Blocks loaded ahead.
    pub(crate) ahead: u64,
}

/// See the module.
pub(crate) struct BlockCache {
    state: Mutex<State>,
    loaded: Condvar,
}

#[derive(Default)]
struct State {
    slots: BTreeMap<BlockKey, Slot>,
    /// Blocks by the time of their last use.
    order: BTreeMap<u64, BlockKey>,
    turn: u64,
    /// Bytes of blocks that were fetched ahead and not asked for yet.
    unused_ahead: u64,
    usage: CacheUsage,
}

enum Slot {
    /// Somebody reads it from the chunk.
    Loading,
    Ready {
        bytes: Bytes,
        turn: u64,
        /// Fetched ahead, and nobody has asked for it.
        is_unused: bool,
    },
}

/// Takes the mark of a load away that did not come to its end.
struct Loading<'a> {
    cache: &'a BlockCache,
    key: BlockKey,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        if matches!(state.slots.get(&self.key), Some(Slot::Loading)) {
            state.slots.remove(&self.key);
        }
        drop(state);
        self.cache.loaded.notify_all();
    }
}

impl BlockCache {
    /// A cache of at most so many bytes.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let state = State { usage: CacheUsage { bytes_max, ..CacheUsage::default() }, ..State::default() };
        Self { state: Mutex::new(state), loaded: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the block cache panics")
    }

    /// Figures of this moment.
    pub(crate) fn usage(&self) -> CacheUsage {
        self.lock().usage
    }

    /// The block if it is here.
    pub(super) fn find(&self, key: BlockKey) -> Option<Bytes> {
        let mut state = self.lock();
        let found = state.touch(key);
        state.usage.hits += u64::from(found.is_some());
        found
    }

    /// Whether more may be fetched ahead: what was fetched before is being read.
    pub(super) fn has_room_ahead(&self) -> bool {
        let state = self.lock();
        state.unused_ahead < state.usage.bytes_max / 2
    }

    /// The block, loaded by this thread or by another one that has begun.
    pub(super) fn find_or_load(
        &self,
        key: BlockKey,
        load: impl FnOnce() -> Result<Bytes, StoreError>,
    ) -> Result<Bytes, StoreError> {
        let mut state = self.lock();
        loop {
            if let Some(bytes) = state.touch(key) {
                state.usage.hits += 1;
                return Ok(bytes);
            }
            if !state.slots.contains_key(&key) {
                break;
            }
            state = self.loaded.wait(state).expect("no holder of the block cache panics");
        }
        state.usage.misses += 1;
        self.load(state, key, load, false)
    }

    /// Loads the block unless it is here or on its way.
    pub(super) fn fetch_ahead(
        &self,
        key: BlockKey,
        load: impl FnOnce() -> Result<Bytes, StoreError>,
    ) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.slots.contains_key(&key) {
            return Ok(());
        }
        state.usage.ahead += 1;
        self.load(state, key, load, true).map(|_| ())
    }

    fn load(
        &self,
        mut state: MutexGuard<'_, State>,
        key: BlockKey,
        load: impl FnOnce() -> Result<Bytes, StoreError>,
        is_unused: bool,
    ) -> Result<Bytes, StoreError> {
        state.slots.insert(key, Slot::Loading);
        drop(state);
        // Also tells those who wait, whatever became of it.
        let loading = Loading { cache: self, key };
        let bytes = load()?;
        self.lock().put(key, bytes.clone(), is_unused);
        drop(loading);
        Ok(bytes)
    }
}

impl State {
    fn touch(&mut self, key: BlockKey) -> Option<Bytes> {
        self.turn += 1;
        let Some(Slot::Ready { bytes, turn, is_unused }) = self.slots.get_mut(&key) else { return None };
        self.order.remove(turn);
        *turn = self.turn;
        self.order.insert(self.turn, key);
        if std::mem::take(is_unused) {
            self.unused_ahead -= bytes.len() as u64;
        }
        Some(bytes.clone())
    }

    fn put(&mut self, key: BlockKey, bytes: Bytes, is_unused: bool) {
        let length = bytes.len() as u64;
        while self.usage.bytes + length > self.usage.bytes_max
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.remove(oldest);
        }
        if self.usage.bytes + length > self.usage.bytes_max {
            // Larger than the whole cache; its reader has it, and the next one reads it again.
            self.slots.remove(&key);
            return;
        }
        self.turn += 1;
        self.usage.bytes += length;
        if is_unused {
            self.unused_ahead += length;
        }
        self.order.insert(self.turn, key);
        self.slots.insert(key, Slot::Ready { bytes, turn: self.turn, is_unused });
    }

    fn remove(&mut self, key: BlockKey) {
        if let Some(Slot::Ready { bytes, is_unused, .. }) = self.slots.remove(&key) {
            self.usage.bytes -= bytes.len() as u64;
            if is_unused {
                self.unused_ahead -= bytes.len() as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(position: u64) -> BlockKey {
        BlockKey { container: 0, chunk: 1, position, is_large: true }
    }

    fn block(length: usize) -> Result<Bytes, StoreError> {
        Ok(vec![0; length].into())
    }

    #[test]
    fn the_block_that_was_unused_for_longest_makes_room() {
        let cache = BlockCache::new(30);
        for position in 0..3 {
            cache.find_or_load(key(position), || block(10)).unwrap();
        }
        assert!(cache.find(key(0)).is_some());
        cache.find_or_load(key(3), || block(10)).unwrap();
        assert!(cache.find(key(1)).is_none());
        assert!(cache.find(key(0)).is_some());
        assert_eq!(cache.usage().bytes, 30);
        cache.find_or_load(key(4), || block(31)).unwrap();
        assert_eq!(cache.usage().bytes, 0, "what does not fit is passed through");
    }

    #[test]
    fn a_load_that_fails_leaves_the_block_to_the_next_reader() {
        let cache = BlockCache::new(100);
        let failed = || Err(StoreError::damaged("chunk", 0, "rot"));
        assert!(cache.find_or_load(key(0), failed).is_err());
        assert!(cache.fetch_ahead(key(0), failed).is_err());
        assert_eq!(cache.find_or_load(key(0), || block(5)).unwrap().len(), 5);
    }

    #[test]
    fn a_block_that_many_want_is_loaded_once() {
        let cache = BlockCache::new(100);
        let loads = std::sync::atomic::AtomicU64::new(0);
        let barrier = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    let load = || {
                        loads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        block(5)
                    };
                    cache.find_or_load(key(0), load).unwrap();
                });
            }
        });
        assert_eq!(loads.into_inner(), 1);
    }

    #[test]
    fn fetching_ahead_stops_until_what_was_fetched_is_read() {
        let cache = BlockCache::new(40);
        for position in 0..2 {
            assert!(cache.has_room_ahead());
            cache.fetch_ahead(key(position), || block(10)).unwrap();
        }
        assert!(!cache.has_room_ahead());
        assert!(cache.find(key(0)).is_some());
        assert!(cache.has_room_ahead());
    }
}
