//! The catalogue: everything that needs order on disk, for one container.
//!
//! ```text
//!   hot map ──freeze──► frozen map ──checkpoint──► newest run ──merge──► older runs
//!    newest wins ◄──────────────── lookups go from left to right
//! ```
//!
//! The hot map lives in memory only: the journal holds whatever would rebuild it. A checkpoint writes the frozen map
//! as a sorted, checksummed, immutable file (a run) and then replaces the manifest, which names the runs and the last
//! operation they include. Recovery is: read the manifest, replay what is newer.
//!
//! Invariants:
//! * a run is never changed, and is removed only after a durable manifest no longer names it ([`Checkpoint`])
//! * the manifest names operations that are durable in the journal, never newer ones (the container waits for them)
//! * a removal hides older runs until it has reached the oldest one ([`Checkpoint`], merge rule)
//!
//! Why not a general store: `docs/decisions/0002-catalogue.md`. Start reading at [`Catalogue`].

mod checkpoint;
mod run;

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::Bound;
use std::sync::Arc;

use crate::error::StoreError;
pub(crate) use checkpoint::{
    Checkpoint, Installed, Manifest, Position, create, directory, manifest_path, open, open_run, run_path, tidy,
};
use run::{Run, RunIterator};

pub(crate) type Key = Vec<u8>;
/// `None` is a removal.
pub(crate) type Entries = BTreeMap<Key, Option<Vec<u8>>>;
/// A key and what was last written under it.
type Entry = (Key, Option<Vec<u8>>);

/// Letters whose keys belong to the owner whose number follows.
pub(crate) const OWNED: &[u8] = b"AET";
/// Letter of the keys that name owners who gave everything up.
const RETIRED: u8 = b'D';

/// What an entry costs in memory beyond its bytes: two vectors and its place in the map.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// The ordered state of one container.
pub(crate) struct Catalogue {
    hot: Entries,
    hot_bytes: usize,
    frozen: Option<Arc<Entries>>,
    /// Oldest first.
    runs: Vec<Arc<Run>>,
}

impl Catalogue {
    fn new(runs: Vec<Arc<Run>>) -> Self {
        Self { hot: Entries::new(), hot_bytes: 0, frozen: None, runs }
    }

    /// Memory the hot map takes, in bytes, about.
    pub(crate) fn hot_bytes(&self) -> usize {
        self.hot_bytes
    }

    /// Sets a key.
    pub(crate) fn put(&mut self, key: Key, value: Vec<u8>) {
        self.set(key, Some(value));
    }

    /// Removes a key; it need not exist.
    pub(crate) fn remove(&mut self, key: Key) {
        self.set(key, None);
    }

    fn set(&mut self, key: Key, value: Option<Vec<u8>>) {
        let length = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
        let (key_length, added) = (key.len(), length(&value));
        match self.hot.insert(key, value) {
            Some(old) => self.hot_bytes = self.hot_bytes + added - length(&old),
            None => self.hot_bytes += key_length + added + ENTRY_OVERHEAD_BYTES,
        }
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(entry) = self.hot.get(key) {
            return Ok(entry.clone());
        }
        if let Some(entry) = self.frozen.as_ref().and_then(|frozen| frozen.get(key)) {
            return Ok(entry.clone());
        }
        for run in self.runs.iter().rev() {
            if let Some(entry) = run.get(key)? {
                return Ok(entry);
            }
        }
        Ok(None)
    }

    /// Live entries from `from` on, in key order.
    pub(crate) fn scan(&self, from: Bound<&[u8]>) -> Result<Scan<'_>, StoreError> {
        let range = (from, Bound::<&[u8]>::Unbounded);
        let mut layers = vec![Layer::memory(self.hot.range::<[u8], _>(range))];
        if let Some(frozen) = &self.frozen {
            layers.push(Layer::memory(frozen.range::<[u8], _>(range)));
        }
        for run in self.runs.iter().rev() {
            layers.push(Layer::run(run.clone().iterate(from)?)?);
        }
        Ok(Scan { layers })
    }

    /// Live entries whose key begins with `prefix`, in key order.
    pub(crate) fn with_prefix(&self, prefix: &[u8]) -> Result<Vec<(Key, Vec<u8>)>, StoreError> {
        let mut found = Vec::new();
        let mut scan = self.scan(Bound::Included(prefix))?;
        while let Some((key, value)) = scan.next()? {
            if !key.starts_with(prefix) {
                break;
            }
            found.push((key, value));
        }
        Ok(found)
    }

    /// Live entries from one key to another, both included, in key order.
    pub(crate) fn between(&self, from: &[u8], to: &[u8]) -> Result<Vec<(Key, Vec<u8>)>, StoreError> {
        let mut found = Vec::new();
        let mut scan = self.scan(Bound::Included(from))?;
        while let Some((key, value)) = scan.next()?
            && key.as_slice() <= to
        {
            found.push((key, value));
        }
        Ok(found)
    }

    /// Gives up everything that `owner` owns: every key of a letter in [`OWNED`] followed by this number. It costs one
    /// key now; the owned ones go when runs are merged. The owner must never be asked for again.
    pub(crate) fn retire(&mut self, owner: u64) {
        self.put([&[RETIRED], &owner.to_be_bytes()[..]].concat(), Vec::new());
    }

    /// Sets the hot map aside for a checkpoint; what follows goes into a new one.
    pub(crate) fn freeze(&mut self) -> Arc<Entries> {
        assert!(self.frozen.is_none(), "one checkpoint at a time");
        let frozen = Arc::new(std::mem::take(&mut self.hot));
        self.hot_bytes = 0;
        self.frozen = Some(frozen.clone());
        frozen
    }

    /// The checkpoint is durable: its runs take the place of the frozen map and of the runs they were merged from.
    pub(crate) fn install(&mut self, installed: Installed) {
        assert!(self.frozen.take().is_some(), "a checkpoint follows a freeze");
        self.runs = installed.runs;
    }

    /// The runs a checkpoint starts from.
    pub(crate) fn runs(&self) -> Vec<Arc<Run>> {
        self.runs.clone()
    }
}

/// A merged walk over all layers; a newer layer hides the same key in older ones.
pub(crate) struct Scan<'a> {
    /// Newest first.
    layers: Vec<Layer<'a>>,
}

enum Source<'a> {
    Memory(btree_map::Range<'a, Key, Option<Vec<u8>>>),
    Run(RunIterator),
}

struct Layer<'a> {
    source: Source<'a>,
    head: Option<Entry>,
}

impl<'a> Layer<'a> {
    fn memory(range: btree_map::Range<'a, Key, Option<Vec<u8>>>) -> Self {
        let mut layer = Self { source: Source::Memory(range), head: None };
        layer.advance().expect("memory does not fail");
        layer
    }

    fn run(iterator: RunIterator) -> Result<Self, StoreError> {
        let mut layer = Self { source: Source::Run(iterator), head: None };
        layer.advance()?;
        Ok(layer)
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        self.head = match &mut self.source {
            Source::Memory(range) => range.next().map(|(key, value)| (key.clone(), value.clone())),
            Source::Run(iterator) => iterator.next_entry()?,
        };
        Ok(())
    }
}

impl Scan<'_> {
    /// The next live entry.
    pub(crate) fn next(&mut self) -> Result<Option<(Key, Vec<u8>)>, StoreError> {
        loop {
            match self.next_raw()? {
                Some((key, Some(value))) => return Ok(Some((key, value))),
                Some((_, None)) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next entry, removals included.
    fn next_raw(&mut self) -> Result<Option<Entry>, StoreError> {
        let Some(smallest) = self.layers.iter().filter_map(|layer| layer.head.as_ref().map(|(key, _)| key)).min()
        else {
            return Ok(None);
        };
        let smallest = smallest.clone();
        let mut newest = None;
        for layer in &mut self.layers {
            if layer.head.as_ref().is_some_and(|(key, _)| *key == smallest) {
                let head = layer.head.take();
                newest = newest.or(head);
                layer.advance()?;
            }
        }
        Ok(newest)
    }
}
