//! The catalogue against a plain map, through checkpoints, merges and restarts.
#![allow(clippy::unwrap_used, reason = "tests say what they expect")]

use super::*;
use crate::io::{Disk, RealDisk};

const CONTAINER: u32 = 3;

struct Fixture {
    _directory: tempfile::TempDir,
    disk: RealDisk,
    cache: Arc<RunCache>,
    catalogue: Catalogue,
    manifest: Manifest,
    merge: Option<Merge>,
    model: BTreeMap<Key, Vec<u8>>,
}

impl Fixture {
    fn new(cache_bytes: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(directory.path());
        create(&disk, CONTAINER).unwrap();
        let cache = RunCache::new(cache_bytes);
        let (catalogue, manifest) = open(&disk, CONTAINER, &cache).unwrap();
        Self { _directory: directory, disk, cache, catalogue, manifest, merge: None, model: BTreeMap::new() }
    }

    fn put(&mut self, key: Key, value: Vec<u8>) {
        self.catalogue.put(key.clone(), value.clone());
        self.model.insert(key, value);
    }

    fn remove(&mut self, key: Key) {
        self.catalogue.remove(key.clone());
        self.model.remove(&key);
    }

    fn retire(&mut self, owner: u64) {
        self.catalogue.retire(owner);
        self.model.retain(|key, _| !OWNED.contains(&key[0]) || key[1..9] != owner.to_be_bytes());
    }

    fn checkpoint(&mut self) {
        let frozen = self.catalogue.freeze();
        let position = Position { sequence: self.manifest.position.sequence + 1, ..self.manifest.position };
        let installed = Checkpoint { frozen }.write(&self.disk, &mut self.manifest, position, &Entries::new()).unwrap();
        self.catalogue.install(installed);
    }

    /// One slice of a merge, or its beginning. False: there is nothing to merge.
    fn merge_some(&mut self) -> bool {
        let begun = self.merge.take().or_else(|| Merge::begin(&self.disk, &mut self.manifest).unwrap());
        let Some(mut merge) = begun else { return false };
        if merge.step().unwrap() {
            self.catalogue.merged(merge.finish(&self.disk, &mut self.manifest).unwrap());
        } else {
            self.merge = Some(merge);
        }
        true
    }

    fn restart(&mut self) {
        self.merge = None;
        self.checkpoint();
        self.cache = RunCache::new(1 << 20);
        (self.catalogue, self.manifest) = open(&self.disk, CONTAINER, &self.cache).unwrap();
        tidy(&self.disk, CONTAINER, &self.manifest).unwrap();
    }

    /// Looks every key of the model up, and as many that are not there, in every way there is.
    #[track_caller]
    fn check(&self) {
        let snapshot = self.catalogue.snapshot();
        for (key, value) in &self.model {
            for (key, value) in [(key.clone(), Some(value.clone())), ([key, &b"?"[..]].concat(), None)] {
                match self.catalogue.get_warm(&key).unwrap() {
                    Warm::Known(found) => assert_eq!(found, value, "{key:?}"),
                    Warm::Cold => assert_eq!(snapshot.get(&key).unwrap(), value, "{key:?}"),
                }
                assert_eq!(self.catalogue.get(&key).unwrap(), value, "{key:?}");
            }
        }
        let mut scan = self.catalogue.scan(Bound::Unbounded).unwrap();
        let mut found = BTreeMap::new();
        while let Some((key, value)) = scan.next().unwrap() {
            // What a retired owner left behind is nobody's.
            if self.model.contains_key(&key) || !OWNED.contains(&key[0]) && key[0] != RETIRED {
                found.insert(key, value);
            }
        }
        assert!(found == self.model, "a scan shows other keys than were put");
    }
}

fn owned(owner: u64, number: u64) -> Key {
    [b"T".as_slice(), &owner.to_be_bytes(), format!("key-{number:05}").as_bytes()].concat()
}

#[test]
fn a_catalogue_is_a_map_through_checkpoints_merges_and_restarts() {
    let mut store = Fixture::new(1 << 20);
    let mut state = 88_172_645_463_325_252_u64;
    let mut chance = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for round in 0..60_u64 {
        for _ in 0..3_000 {
            let key = owned(round / 8 + chance(3), chance(4_000));
            match chance(5) {
                0 => store.remove(key),
                _ => store.put(key, vec![round as u8; 4 + chance(40) as usize]),
            }
        }
        store.put([b"N".as_slice(), format!("name-{round}").as_bytes()].concat(), round.to_be_bytes().to_vec());
        if round % 8 == 7 {
            store.retire(round / 8);
        }
        store.checkpoint();
        store.merge_some();
        if round % 20 == 19 {
            store.restart();
            store.check();
        }
    }
    store.check();
    while store.merge_some() {}
    store.check();
    assert!(store.manifest.runs.len() <= 4, "{} runs are left", store.manifest.runs.len());
    let names = store.disk.list(&format!("catalogue-{CONTAINER:04}")).unwrap();
    assert_eq!(names.len(), store.manifest.runs.len() + 1, "{names:?}");
}

#[test]
fn what_retired_owners_left_is_gone_once_everything_is_merged() {
    let mut store = Fixture::new(1 << 20);
    for owner in 0..20 {
        for number in 0..2_000 {
            store.put(owned(owner, number), vec![1; 60]);
        }
        if owner % 2 == 0 {
            store.retire(owner);
        }
        store.checkpoint();
    }
    while store.merge_some() {}
    // Both halves as one run, the oldest: nothing is left to wait for.
    for owner in (1..20).step_by(2) {
        store.retire(owner);
    }
    for number in 0..60_000 {
        store.put(owned(99, number), vec![1; 60]);
    }
    store.checkpoint();
    while store.merge_some() {}
    assert_eq!(store.manifest.runs.len(), 1);
    let mut scan = store.catalogue.scan(Bound::Unbounded).unwrap();
    while let Some((key, _)) = scan.next().unwrap() {
        assert_eq!(key[1..9], 99_u64.to_be_bytes(), "{key:?} is still there");
    }
    store.check();
}

#[test]
fn keys_that_are_nowhere_are_known_to_be_so_without_their_blocks() {
    let mut store = Fixture::new(4 << 20);
    for number in 0..50_000 {
        store.put(owned(1, number), vec![0; 30]);
    }
    store.checkpoint();
    // What a checkpoint has just written is in the cache; after a restart nothing is.
    store.cache = RunCache::new(4 << 20);
    (store.catalogue, store.manifest) = open(&store.disk, CONTAINER, &store.cache).unwrap();
    let absent: Vec<Key> = (0..10_000).map(|number| owned(1, number * 7).into_iter().chain(*b"?").collect()).collect();
    // The first look-ups bring the filters into memory, and few blocks.
    for key in &absent {
        assert_eq!(store.catalogue.get(key).unwrap(), None);
    }
    let known = absent.iter().filter(|key| store.catalogue.get_warm(key).unwrap() == Warm::Known(None)).count();
    assert!(known > 9_500, "{known}");
    assert!(store.cache.bytes() < 2 << 20, "{} bytes were read for nothing", store.cache.bytes());
    assert!(store.catalogue.index_bytes() < 100_000, "{}", store.catalogue.index_bytes());
}

#[test]
fn a_flipped_bit_anywhere_in_a_run_is_found_when_it_is_met() {
    let mut store = Fixture::new(0);
    for number in 0..5_000 {
        store.put(owned(1, number), vec![0; 30]);
    }
    store.checkpoint();
    let path = store.manifest.runs[0].path().to_owned();
    let file = store.disk.open(&path).unwrap();
    let length = file.length().unwrap();
    for at in (0..length).step_by(997) {
        let mut byte = [0];
        file.read_at(at, &mut byte).unwrap();
        file.write_at(at, &[byte[0] ^ 4]).unwrap();
        let met = open(&store.disk, CONTAINER, &RunCache::new(1 << 20)).and_then(|(catalogue, _)| {
            // Look-ups meet filters, a scan meets every block.
            for number in 0..5_000 {
                catalogue.get(&owned(1, number))?;
            }
            let mut scan = catalogue.scan(Bound::Unbounded)?;
            while scan.next()?.is_some() {}
            Ok(())
        });
        assert!(matches!(met, Err(StoreError::Damaged { .. } | StoreError::Newer { .. })), "byte {at}: {met:?}");
        file.write_at(at, &byte).unwrap();
    }
}

#[test]
fn what_is_newer_than_the_runs_is_told_up_to_a_key() {
    let mut store = Fixture::new(1 << 20);
    for number in 0..100 {
        store.put(owned(1, number), vec![0; 3]);
    }
    store.checkpoint();
    for number in (0..50).map(|number| number * 2) {
        store.remove(owned(1, number));
    }
    let (some, end) = store.catalogue.newer(&owned(1, 10), &owned(2, 0), 7);
    assert_eq!((some.len(), end), (7, Some(owned(1, 22))));
    let (rest, end) = store.catalogue.newer(&owned(1, 10), &owned(1, 22), 7);
    assert_eq!((rest.len(), end), (7, None), "that was all");
    assert!(some.values().all(Option::is_none), "removals are told, too");
}
