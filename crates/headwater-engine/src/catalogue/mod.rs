//! The catalogue: everything that needs order on disk, for one container.
//!
//! ```text
//!   hot map ──freeze──► frozen map ──checkpoint──► newest run ──merge──► older runs
//!    newest wins ◄──────────────── lookups go from left to right
//! ```
//!
//! The hot map lives in memory only: the journal holds whatever would rebuild it. A checkpoint writes the frozen map
//! as a sorted, checksummed, immutable file (a run) and then replaces the manifest, which names the runs and the last
//! operation they include. Small runs are merged by checkpoints, large ones beside them, piece by piece. Recovery is:
//! read the manifest, replay what is newer.
//!
//! Invariants:
//! * a run is never changed, and is removed only after a durable manifest no longer names it ([`Checkpoint`], [`Merge`])
//! * the manifest names operations that are durable in the journal, never newer ones (the container waits for them)
//! * a removal hides older runs until it has reached the oldest one (`merge::Walk`)
//!
//! Memory: the hot map, an index of about 1.5 % of a run, and what the [`RunCache`] may take. Whoever must not wait for
//! the disk asks with [`Catalogue::get_warm`] and [`Catalogue::scan_warm`], and has the rest looked up by somebody else in
//! a [`Snapshot`].
//!
//! Why not a general store: `docs/decisions/0002-catalogue.md`. Start reading at [`Catalogue`].

mod cache;
mod checkpoint;
mod filter;
mod merge;
mod run;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::Bound;
use std::sync::Arc;

use crate::error::StoreError;
pub(crate) use cache::RunCache;
pub(crate) use checkpoint::{
    Checkpoint, Installed, Manifest, Position, StoredManifest, create, directory, manifest_path, open, open_run,
    run_path, tidy,
};
pub(crate) use merge::Merge;
pub(crate) use run::Stop;
use run::{Found, Run, RunIterator};

pub(crate) type Key = Vec<u8>;
/// `None` is a removal.
pub(crate) type Entries = BTreeMap<Key, Option<Vec<u8>>>;
/// A key and what was last written under it.
pub(crate) type Entry = (Key, Option<Vec<u8>>);

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
    runs: Snapshot,
}

/// The runs of one moment; cheap to clone. Good for look-ups from another thread: what is newer is in the maps.
#[derive(Clone)]
pub(crate) struct Snapshot {
    /// Oldest first.
    runs: Arc<[Arc<Run>]>,
}

/// What is known of a key without the disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Warm {
    /// Its value, if it has one.
    Known(Option<Vec<u8>>),
    /// Only the disk knows; nothing newer than the runs has the key.
    Cold,
}

impl Snapshot {
    fn new(runs: Vec<Arc<Run>>) -> Self {
        Self { runs: runs.into() }
    }

    /// The value a key has in the runs. Blocks on the disk, and leaves what it read in the cache.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.look_up(key, true)? {
            Warm::Known(value) => Ok(value),
            Warm::Cold => unreachable!("a look-up that may wait knows"),
        }
    }

    fn look_up(&self, key: &[u8], may_wait: bool) -> Result<Warm, StoreError> {
        let hash = filter::hash(key);
        for run in self.runs.iter().rev() {
            match run.get(key, hash, may_wait)? {
                Found::Absent => {}
                Found::Entry(value) => return Ok(Warm::Known(value)),
                Found::Cold => return Ok(Warm::Cold),
            }
        }
        Ok(Warm::Known(None))
    }

    /// Entries of the runs from `from` on, with `newer` ones before them. Blocks on the disk.
    pub(crate) fn scan<'a>(&self, from: Bound<&[u8]>, newer: &'a Entries) -> Result<Scan<'a>, StoreError> {
        let mut layers = vec![Layer::memory(newer.range::<[u8], _>((from, Bound::Unbounded)))];
        for run in self.runs.iter().rev() {
            layers.push(Layer::run(run.clone().iterate(from, true).map_err(Stop::failed)?).map_err(Stop::failed)?);
        }
        Ok(Scan { layers })
    }
}

impl Catalogue {
    fn new(runs: Vec<Arc<Run>>) -> Self {
        Self { hot: Entries::new(), hot_bytes: 0, frozen: None, runs: Snapshot::new(runs) }
    }

    /// Memory the hot map takes, in bytes, about.
    pub(crate) fn hot_bytes(&self) -> usize {
        self.hot_bytes
    }

    /// Memory the indexes of the runs take, in bytes.
    pub(crate) fn index_bytes(&self) -> usize {
        self.runs.runs.iter().map(|run| run.memory_bytes()).sum()
    }

    /// The runs as they are now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.runs.clone()
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

    /// What the maps in memory say of a key, if anything.
    fn in_maps(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        self.hot.get(key).or_else(|| self.frozen.as_ref()?.get(key))
    }

    /// The value of a key. Blocks on the disk if it has to.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.in_maps(key) {
            Some(entry) => Ok(entry.clone()),
            None => self.runs.get(key),
        }
    }

    /// The value of a key, if it can be had without the disk.
    pub(crate) fn get_warm(&self, key: &[u8]) -> Result<Warm, StoreError> {
        match self.in_maps(key) {
            Some(entry) => Ok(Warm::Known(entry.clone())),
            None => self.runs.look_up(key, false),
        }
    }

    /// What is newer than the runs, from one key to another, both included, removals too: at most `count_max` entries.
    /// If there are more, the key of the last one is the end of what is known.
    pub(crate) fn newer(&self, from: &[u8], to: &[u8], count_max: usize) -> (Entries, Option<Key>) {
        let range = (Bound::Included(from), Bound::Included(to));
        let frozen = self.frozen.as_ref().map(|frozen| frozen.range::<[u8], _>(range));
        let mut layers: Vec<_> = vec![Layer::memory(self.hot.range::<[u8], _>(range))];
        layers.extend(frozen.map(Layer::memory));
        let mut scan = Scan { layers };
        let mut found = Entries::new();
        while found.len() < count_max
            && let Some((key, value)) = scan.next_raw().map_err(Stop::failed).expect("memory does not fail")
        {
            found.insert(key, value);
        }
        let is_more = scan.next_raw().map_err(Stop::failed).expect("memory does not fail").is_some();
        let end = if is_more { found.last_key_value().map(|(key, _)| key.clone()) } else { None };
        (found, end)
    }

    /// Live entries from `from` on, in key order. Blocks on the disk if it has to.
    pub(crate) fn scan(&self, from: Bound<&[u8]>) -> Result<Scan<'_>, StoreError> {
        self.layers(from, true).map_err(Stop::failed)
    }

    /// The same, but it stops with [`Stop::Cold`] where it would have to wait for the disk.
    pub(crate) fn scan_warm(&self, from: Bound<&[u8]>) -> Result<Scan<'_>, Stop> {
        self.layers(from, false)
    }

    fn layers(&self, from: Bound<&[u8]>, may_wait: bool) -> Result<Scan<'_>, Stop> {
        let range = (from, Bound::<&[u8]>::Unbounded);
        let mut layers = vec![Layer::memory(self.hot.range::<[u8], _>(range))];
        if let Some(frozen) = &self.frozen {
            layers.push(Layer::memory(frozen.range::<[u8], _>(range)));
        }
        for run in self.runs.runs.iter().rev() {
            layers.push(Layer::run(run.clone().iterate(from, may_wait)?)?);
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
        self.runs = Snapshot::new(installed.runs);
    }

    /// A merge is durable: its run takes the place of those it was made from.
    pub(crate) fn merged(&mut self, installed: Installed) {
        self.runs = Snapshot::new(installed.runs);
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
        layer.advance().map_err(Stop::failed).expect("memory does not fail");
        layer
    }

    fn run(iterator: RunIterator) -> Result<Self, Stop> {
        let mut layer = Self { source: Source::Run(iterator), head: None };
        layer.advance()?;
        Ok(layer)
    }

    fn advance(&mut self) -> Result<(), Stop> {
        self.head = match &mut self.source {
            Source::Memory(range) => range.next().map(|(key, value)| (key.clone(), value.clone())),
            Source::Run(iterator) => iterator.next_entry()?,
        };
        Ok(())
    }
}

impl Scan<'_> {
    /// The next live entry, of a walk that may wait for the disk.
    pub(crate) fn next(&mut self) -> Result<Option<(Key, Vec<u8>)>, StoreError> {
        self.next_warm().map_err(Stop::failed)
    }

    /// The next live entry.
    pub(crate) fn next_warm(&mut self) -> Result<Option<(Key, Vec<u8>)>, Stop> {
        loop {
            match self.next_raw()? {
                Some((key, Some(value))) => return Ok(Some((key, value))),
                Some((_, None)) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next entry, removals included.
    pub(crate) fn next_raw(&mut self) -> Result<Option<Entry>, Stop> {
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
