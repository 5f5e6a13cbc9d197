//! Merging runs: fewer files to look into, and an end for what was removed.
//!
//! Large runs are merged beside checkpoints, a slice at a time, so that neither a checkpoint nor the journal ever waits
//! for more than a slice. Until a merge is finished its file is one that no manifest names, so a crash costs only work.

use std::ops::Bound;
use std::sync::Arc;

use crate::error::StoreError;
use crate::io::Disk;

use super::checkpoint::{Installed, Manifest, remove_all, run_path};
use super::run::{Run, Stop};
use super::writer::RunWriter;
use super::{Entries, Entry, Layer, OWNED, RETIRED, Scan};

/// A run is merged with the one before it as long as that one is not this many times larger: every entry is rewritten
/// about once per factor, and lookups see few runs.
pub(super) const MERGE_RATIO: u64 = 4;
/// Bytes written by one slice of a merge: some ten milliseconds.
const SLICE_BYTES: u64 = 2 << 20;

/// Walks over several layers at once and leaves out what is not needed in what they become.
pub(super) struct Walk<'a> {
    scan: Scan<'a>,
    /// The owners that some layer says have given everything up, once more for each letter of owned keys.
    retired: Option<(u8, Scan<'a>, Option<u64>)>,
    maps: Vec<&'a Entries>,
    runs: Vec<Arc<Run>>,
    is_oldest: bool,
}

impl<'a> Walk<'a> {
    /// `maps` are newer than `runs`, the newest first; of `runs` it is the last. `is_oldest`: nothing older than these
    /// layers remains, so removals have nothing left to hide.
    pub(super) fn new(maps: &[&'a Entries], runs: &[Arc<Run>], is_oldest: bool) -> Result<Self, StoreError> {
        let mut layers: Vec<_> = maps.iter().map(|map| Layer::memory(map.range::<[u8], _>(..))).collect();
        for run in runs.iter().rev() {
            layers.push(Layer::run(run.clone().stream()).map_err(Stop::failed)?);
        }
        Ok(Self { scan: Scan { layers }, retired: None, maps: maps.to_vec(), runs: runs.to_vec(), is_oldest })
    }

    /// The next entry that is still needed.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, StoreError> {
        while let Some((key, value)) = self.scan.next_raw().map_err(Stop::failed)? {
            // Owned keys of older runs wait for the merge that reaches them; their owner's retirement waits with them.
            let is_gone = match key.first() {
                Some(letter) if OWNED.contains(letter) => self.is_given_up(*letter, &key)?,
                Some(&RETIRED) => self.is_oldest,
                _ => false,
            };
            let is_done = self.is_oldest && value.is_none();
            if !is_gone && !is_done {
                return Ok(Some((key, value)));
            }
        }
        Ok(None)
    }

    /// Whether the owner of a key has given it up. Keys come in order, and so do the owners of one letter.
    fn is_given_up(&mut self, letter: u8, key: &[u8]) -> Result<bool, StoreError> {
        let Some(owner) = owner_of(key) else { return Ok(false) };
        if self.retired.as_ref().is_none_or(|(of, ..)| *of != letter) {
            let mut retirements = self.retirements()?;
            let first = next_retired(&mut retirements)?;
            self.retired = Some((letter, retirements, first));
        }
        let (_, retirements, next) = self.retired.as_mut().expect("it was just made");
        while next.is_some_and(|next| next < owner) {
            *next = next_retired(retirements)?;
        }
        Ok(*next == Some(owner))
    }

    fn retirements(&self) -> Result<Scan<'a>, StoreError> {
        let first = [RETIRED];
        let from = Bound::Included(&first[..]);
        let range = (from, Bound::Unbounded);
        let mut layers: Vec<_> = self.maps.iter().map(|map| Layer::memory(map.range::<[u8], _>(range))).collect();
        for run in &self.runs {
            layers.push(Layer::run(run.clone().iterate(from, true).map_err(Stop::failed)?).map_err(Stop::failed)?);
        }
        Ok(Scan { layers })
    }
}

fn owner_of(key: &[u8]) -> Option<u64> {
    key.get(1..9).map(|owner| u64::from_be_bytes(owner.try_into().expect("eight bytes")))
}

fn next_retired(retirements: &mut Scan<'_>) -> Result<Option<u64>, StoreError> {
    Ok(match retirements.next()? {
        Some((key, _)) if key.first() == Some(&RETIRED) => owner_of(&key),
        _ => None,
    })
}

/// Runs on their way to being one.
pub(crate) struct Merge {
    number: u64,
    path: String,
    writer: RunWriter,
    walk: Walk<'static>,
}

impl Merge {
    /// Begins the merge that a catalogue needs most, if it needs one. At most one per catalogue at a time.
    pub(crate) fn begin(disk: &dyn Disk, manifest: &mut Manifest) -> Result<Option<Self>, StoreError> {
        assert!(manifest.merging.is_none(), "one merge at a time");
        let mut merged = 0;
        let mut size = 0_u64;
        for older in manifest.runs.iter().rev() {
            if merged > 0 && older.length > size.saturating_mul(MERGE_RATIO) {
                break;
            }
            size += older.length;
            merged += 1;
        }
        if merged < 2 {
            return Ok(None);
        }
        let first = manifest.runs.len() - merged;
        let number = manifest.take_number();
        let path = run_path(manifest.container, number);
        let walk = Walk::new(&[], &manifest.runs[first..], first == 0)?;
        let writer = RunWriter::create(disk, manifest.container, path.clone(), number, manifest.cache.clone(), false)?;
        manifest.merging = manifest.runs.last().map(|newest| newest.number);
        Ok(Some(Self { number, path, writer, walk }))
    }

    /// Writes another slice. True: [`finish`](Self::finish) is next.
    pub(crate) fn step(&mut self) -> Result<bool, StoreError> {
        let end = self.writer.length() + SLICE_BYTES;
        while self.writer.length() < end {
            match self.walk.next()? {
                Some((key, value)) => self.writer.add(&key, value.as_deref())?,
                None => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Makes the new run durable in place of those it was made from.
    pub(crate) fn finish(self, disk: &dyn Disk, manifest: &mut Manifest) -> Result<Installed, StoreError> {
        assert_eq!(self.writer.path(), self.path, "a merge writes its own file");
        let run = Arc::new(self.writer.finish()?);
        let mut runs = manifest.runs.clone();
        let first = &self.walk.runs.first().expect("a merge has runs").number;
        let at = runs.iter().position(|run| run.number == *first).expect("runs being merged stay where they are");
        let replaced: Vec<_> = runs.splice(at..at + self.walk.runs.len(), [run]).collect();
        assert!(
            replaced.iter().map(|run| run.number).eq(self.walk.runs.iter().map(|run| run.number)),
            "what a merge replaces is what it read"
        );
        manifest.replace(disk, manifest.position, runs)?;
        manifest.merging = None;
        remove_all(disk, &replaced);
        Ok(Installed { runs: manifest.runs.clone() })
    }

    /// Forgets a merge that found the disk full, and gives its room back.
    pub(crate) fn abandon(disk: &dyn Disk, manifest: &mut Manifest, number: u64) {
        manifest.merging = None;
        // Without the file or with it, nothing names it.
        let _ = disk.remove(&run_path(manifest.container, number));
    }

    /// Number of the run that is being written.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}
