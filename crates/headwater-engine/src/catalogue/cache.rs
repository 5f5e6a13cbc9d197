//! Blocks of runs in memory, for all containers of a store together, within one budget.
//!
//! A block that was asked for again since it was last looked at gets a second round; one that was not, goes. So a scan over
//! everything pushes out little of what is in use.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

/// Where a block is: container, run, offset in the file.
pub(super) type Address = (u32, u64, u64);

/// What a block costs in memory beside its bytes.
const ENTRY_BYTES: usize = 128;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct RunCache {
    bytes_max: usize,
    blocks: Mutex<Blocks>,
}

#[derive(Debug, Default)]
struct Blocks {
    by_address: BTreeMap<Address, Block>,
    /// Every block of the map once, the next to be looked at first.
    round: VecDeque<Address>,
    bytes: usize,
}

#[derive(Debug)]
struct Block {
    content: Arc<[u8]>,
    used: bool,
}

impl RunCache {
    /// A cache of so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, blocks: Mutex::default() })
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().expect("no holder of the block cache panics")
    }

    pub(super) fn get(&self, address: Address) -> Option<Arc<[u8]>> {
        let mut blocks = self.blocks();
        let block = blocks.by_address.get_mut(&address)?;
        block.used = true;
        Some(block.content.clone())
    }

    pub(super) fn put(&self, address: Address, content: Arc<[u8]>) {
        let mut blocks = self.blocks();
        let blocks = &mut *blocks;
        let cost = content.len() + ENTRY_BYTES;
        if blocks.by_address.insert(address, Block { content, used: false }).is_some() {
            // Two readers met; a block never changes, so both brought the same.
            return;
        }
        blocks.bytes += cost;
        while blocks.bytes > self.bytes_max
            && let Some(next) = blocks.round.pop_front()
        {
            let block = blocks.by_address.get_mut(&next).expect("the round and the map hold the same blocks");
            if std::mem::take(&mut block.used) {
                blocks.round.push_back(next);
            } else {
                blocks.bytes -= block.content.len() + ENTRY_BYTES;
                blocks.by_address.remove(&next);
            }
        }
        blocks.round.push_back(address);
    }

    /// Memory in use, in bytes, about.
    pub(crate) fn bytes(&self) -> usize {
        self.blocks().bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_in_use_outlives_those_that_pass_by() {
        let cache = RunCache::new(4 * (1000 + ENTRY_BYTES));
        let block: Arc<[u8]> = vec![0; 1000].into();
        cache.put((0, 0, 0), block.clone());
        for number in 1..100 {
            cache.put((0, 1, number), block.clone());
            assert!(cache.get((0, 0, 0)).is_some(), "after {number} blocks");
            assert!(cache.bytes() <= cache.bytes_max);
        }
        assert!(cache.get((0, 1, 5)).is_none());
        assert!(cache.get((0, 1, 99)).is_some());
    }
}
