//! The bodies of the fuzz targets of everything on the disk. The fuzz package includes this file; here the bodies replay a
//! small corpus, and meet it changed at random.
//!
//! A small store is made once, in memory. An input changes one of its files, byte for byte as it says, and then the store
//! is judged, opened and read whole. Whatever the file says now, that ends in answers or errors. The fuzz package builds
//! with a checksum that is always the same, so that changed bytes reach what is behind the checksums; here they are what
//! they are.
//!
//! ```text
//!   input: which file of its kind │ change │ change │ …
//!   change: what to do (1 byte) │ where (3 bytes) │ with what (1 to 8 bytes)
//! ```

#[cfg(test)]
#[path = "../../../../fuzz/mutate.rs"]
mod mutate;

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use headwater_engine::api::{Append, Expect, Request, SegmentKind, SegmentPolicy, TableChange};
use headwater_engine::check::{self, Finding, Progress, Watch};
use headwater_engine::io::{Clock, Content, Disk, File, Io, Objects, Random};
use headwater_engine::{BucketOptions, ContainerLimits, Options, Stepper, StoreError};
use headwater_types::{SegmentName, WriterId};

/// Files of one format.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Who the store is.
    Identity,
    /// Files of the journal: headers, frames, records, operations.
    Journal,
    /// What testifies to the journal's end.
    Witness,
    /// What a checkpoint consists of.
    Manifest,
    /// A part of a checkpoint: entries, index, filters.
    Run,
    /// Bytes of segments.
    Chunk,
    /// Whose bucket it is.
    BucketFile,
    /// The copy of the catalogue in the bucket, and what else is there beside chunks.
    BucketObject,
}

/// Every kind.
pub(crate) const KINDS: [Kind; 8] = [
    Kind::Identity,
    Kind::Journal,
    Kind::Witness,
    Kind::Manifest,
    Kind::Run,
    Kind::Chunk,
    Kind::BucketFile,
    Kind::BucketObject,
];

const JOURNAL_FILE_BYTES: u64 = 64 << 10;
const STREAM: &str = "scope/stream/0.#epoch.0";
const TABLE: &str = "_tables/t";

/// Files, or objects, by name.
type Files = BTreeMap<String, Arc<Vec<u8>>>;

/// A disk in memory that loses nothing.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, Arc<MemoryFile>>>>);

#[derive(Debug, Default)]
struct MemoryFile(Mutex<Arc<Vec<u8>>>);

impl Memory {
    fn of(files: &Files) -> Self {
        let file = |content: &Arc<Vec<u8>>| Arc::new(MemoryFile(Mutex::new(content.clone())));
        Self(Arc::new(Mutex::new(files.iter().map(|(name, content)| (name.clone(), file(content))).collect())))
    }

    fn files(&self) -> Files {
        let files = self.0.lock().unwrap();
        files.iter().map(|(name, file)| (name.clone(), file.0.lock().unwrap().clone())).collect()
    }

    fn file(&self, path: &str) -> Result<Arc<MemoryFile>> {
        self.0.lock().unwrap().get(path).cloned().ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Disk for Memory {
    fn create(&self, path: &str) -> Result<Arc<dyn File>> {
        let mut files = self.0.lock().unwrap();
        if files.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        Ok(files.entry(path.into()).or_default().clone())
    }

    fn open(&self, path: &str) -> Result<Arc<dyn File>> {
        Ok(self.file(path)?)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let mut files = self.0.lock().unwrap();
        let file = files.remove(from).ok_or(ErrorKind::NotFound)?;
        files.insert(to.into(), file);
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.0.lock().unwrap().remove(path).map(|_| ()).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn list(&self, directory: &str) -> Result<Vec<String>> {
        let files = self.0.lock().unwrap();
        let inside = |name: &String| match (directory, name.split_once('/')) {
            ("", None) => Some(name.clone()),
            (directory, Some((first, rest))) if first == directory => Some(rest.to_owned()),
            _ => None,
        };
        Ok(files.keys().filter_map(inside).collect())
    }

    fn create_directory(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn sync_directory(&self, _: &str) -> Result<()> {
        Ok(())
    }
}

impl File for MemoryFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let content = self.0.lock().unwrap();
        let range = usize::try_from(offset).ok().and_then(|from| Some(from..from.checked_add(buffer.len())?));
        let found = range.and_then(|range| content.get(range)).ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut content = self.0.lock().unwrap();
        let content = Arc::make_mut(&mut content);
        let from = offset as usize;
        content.resize(content.len().max(from + data.len()), 0);
        content[from..from + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn set_length(&self, length: u64) -> Result<()> {
        // A length that was read from a changed file and not compared with anything would show here.
        assert!(length <= 1 << 26, "a file of {length} bytes is asked for");
        Arc::make_mut(&mut self.0.lock().unwrap()).resize(length as usize, 0);
        Ok(())
    }

    fn length(&self) -> Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
}

/// Object storage in memory.
#[derive(Debug, Default)]
struct MemoryObjects(Mutex<Files>);

fn failed(error: ErrorKind, name: &str) -> StoreError {
    StoreError::Io { path: name.into(), action: "get", source: error.into() }
}

impl Objects for MemoryObjects {
    fn put(&self, name: &str, content: Content<'_>, _: &mut dyn FnMut()) -> std::result::Result<(), StoreError> {
        match self.0.lock().unwrap().entry(name.into()) {
            std::collections::btree_map::Entry::Occupied(_) => Err(failed(ErrorKind::AlreadyExists, name)),
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(Arc::new(content.concat().into()));
                Ok(())
            }
        }
    }

    fn get(&self, name: &str, offset: u64, length: usize) -> std::result::Result<Bytes, StoreError> {
        let objects = self.0.lock().unwrap();
        let object = objects.get(name).ok_or_else(|| failed(ErrorKind::NotFound, name))?;
        let range = usize::try_from(offset).ok().and_then(|from| Some(from..from.checked_add(length)?));
        let found = range.and_then(|range| object.get(range)).ok_or_else(|| failed(ErrorKind::UnexpectedEof, name))?;
        Ok(Bytes::copy_from_slice(found))
    }

    fn length(&self, name: &str) -> std::result::Result<u64, StoreError> {
        let objects = self.0.lock().unwrap();
        Ok(objects.get(name).ok_or_else(|| failed(ErrorKind::NotFound, name))?.len() as u64)
    }

    fn give_up(&self, _: &str) {}

    fn delete(&self, name: &str, _: &mut dyn FnMut()) -> std::result::Result<(), StoreError> {
        self.0.lock().unwrap().remove(name);
        Ok(())
    }

    fn list(&self, directory: &str) -> std::result::Result<Vec<String>, StoreError> {
        let objects = self.0.lock().unwrap();
        let inside = |name: &String| match (directory, name.split_once('/')) {
            ("", None) => Some(name.clone()),
            (directory, Some((first, rest))) if first == directory => Some(rest.to_owned()),
            _ => None,
        };
        Ok(objects.keys().filter_map(inside).collect())
    }

    fn is_empty(&self) -> std::result::Result<bool, StoreError> {
        Ok(self.0.lock().unwrap().is_empty())
    }

    fn ahead_bytes(&self) -> u64 {
        0
    }
}

/// Time stands still and chance repeats itself: an input does the same each time.
struct Still;

impl Clock for Still {
    fn wall_millis(&self) -> i64 {
        1_700_000_000_000
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

impl Random for Still {
    fn bits(&self) -> u128 {
        0x5eed
    }
}

fn open(disk: Memory, objects: Option<Arc<MemoryObjects>>) -> std::result::Result<Stepper, StoreError> {
    let limits = ContainerLimits {
        flush_bytes: 16 << 10,
        unstored_bytes_max: 64 << 10,
        hot_bytes: 16 << 10,
        cache_bytes: 4 << 10,
        idle_segments: 4,
        table_compact_bytes: 4 << 10,
        table_step_bytes: 512,
    };
    let bucket = objects.map(|objects| BucketOptions { objects, shown: "memory".into(), recover: false });
    let io = Io { disk: Arc::new(disk), clock: Arc::new(Still), random: Arc::new(Still) };
    let options = Options {
        containers: 1,
        memory_bytes: 0,
        journal_file_bytes: JOURNAL_FILE_BYTES,
        container_limits: Some(limits),
        bucket,
        ..Options::default()
    };
    Stepper::open(io, options)
}

fn name(text: &str) -> SegmentName {
    SegmentName::parse(text).unwrap()
}

fn append(number: i64, bytes: usize) -> Request {
    Request::Append(Append {
        segment: name(STREAM),
        writer: WriterId(7),
        data: vec![number as u8; bytes].into(),
        event_count: 1,
        previous: (number > 1).then(|| number - 1),
        number,
        expected_length: None,
    })
}

fn put(key: usize, value: Option<&str>) -> Request {
    let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
    let change = TableChange { key: format!("key-{key}").into_bytes().into(), value, expect: Expect::Any };
    Request::TableUpdate { segment: name(TABLE), changes: vec![change], at: None }
}

/// A store with a checkpoint, and something of every kind in the journal behind it. It was killed, but for the one whose
/// witness is looked at.
fn base(kind: Kind) -> &'static (Files, Files) {
    static BASES: [OnceLock<(Files, Files)>; 3] = [OnceLock::new(), OnceLock::new(), OnceLock::new()];
    let (in_bucket, is_closed) = (is_in_bucket(kind), kind == Kind::Witness);
    BASES[usize::from(in_bucket) + 2 * usize::from(is_closed)].get_or_init(|| {
        let (disk, objects) = (Memory::default(), Arc::<MemoryObjects>::default());
        let mut store = open(disk.clone(), in_bucket.then(|| objects.clone())).unwrap();
        let mut ask = |request| {
            store.submit(request).unwrap();
            store.run_all().unwrap();
        };
        let policy = SegmentPolicy::default();
        let create = |text: &str, kind| Request::Create { segment: name(text), kind, policy, on_reserve: false };
        ask(create(STREAM, SegmentKind::Stream));
        ask(create(TABLE, SegmentKind::Table { key_length: 0 }));
        ask(create("scope/gone/0.#epoch.0", SegmentKind::Stream));
        (1..=4).for_each(|number| ask(append(number, 3_000)));
        (0..40).for_each(|key| ask(put(key, Some("first"))));
        store.checkpoint(0).unwrap();
        store.run_all().unwrap();
        let mut ask = |request| {
            store.submit(request).unwrap();
            store.run_all().unwrap();
        };
        (5..=8).for_each(|number| ask(append(number, 200)));
        (0..4).for_each(|key| ask(put(key, (key > 1).then_some("second"))));
        ask(Request::Truncate { segment: name(STREAM), offset: 1_000 });
        ask(Request::Delete { segment: name("scope/gone/0.#epoch.0") });
        ask(create("scope/late/0.#epoch.0", SegmentKind::Transient));
        ask(Request::Seal { segment: name(STREAM) });
        if is_closed {
            store.close().unwrap();
        }
        let objects = objects.0.lock().unwrap().clone();
        (disk.files(), objects)
    })
}

fn is_in_bucket(kind: Kind) -> bool {
    matches!(kind, Kind::BucketFile | Kind::BucketObject)
}

/// Names of the files of a kind.
fn names(kind: Kind) -> Vec<&'static str> {
    let (files, objects) = base(kind);
    let is_of_kind = |name: &&str| match kind {
        Kind::Identity => *name == "store",
        Kind::Journal => name.starts_with("journal/") && name.ends_with(".log"),
        Kind::Witness => *name == "journal/witness",
        Kind::Manifest => name.ends_with("/manifest"),
        Kind::Run => name.ends_with(".run"),
        Kind::Chunk => name.ends_with(".chunk"),
        Kind::BucketFile => *name == "bucket",
        Kind::BucketObject => !name.ends_with(".chunk"),
    };
    let all = if kind == Kind::BucketObject { objects } else { files };
    all.keys().map(String::as_str).filter(is_of_kind).collect()
}

/// Changes a file as an input says.
fn change(content: &mut Vec<u8>, mut input: &[u8]) {
    while let Some((&[what, high, middle, low], rest)) = input.split_first_chunk::<4>() {
        let at = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let at = if content.is_empty() { 0 } else { at % content.len() };
        let used = match what % 6 {
            // One byte, or up to eight.
            0 | 1 => {
                let count = if what % 6 == 0 { 1 } else { 8 };
                let (with, place) = (&rest[..rest.len().min(count)], &mut content[at..]);
                let count = with.len().min(place.len());
                place[..count].copy_from_slice(&with[..count]);
                with.len()
            }
            2 => {
                content.truncate(at);
                0
            }
            // Something more, or less, in the middle.
            3 => {
                let with = &rest[..rest.len().min(4)];
                content.splice(at..at, with.iter().copied());
                with.len()
            }
            4 => {
                let end = content.len().min(at + rest.first().map_or(1, |count| usize::from(*count)));
                content.drain(at..end);
                rest.len().min(1)
            }
            // What stands there again behind it.
            _ => {
                let end = content.len().min(at + rest.first().map_or(1, |count| usize::from(*count)));
                let again = content[at..end].to_vec();
                content.splice(end..end, again);
                rest.len().min(1)
            }
        };
        input = &rest[used..];
    }
}

struct Unheard;

impl Watch for Unheard {
    fn finding(&mut self, finding: Finding) {
        assert!(!finding.code.is_empty());
    }

    fn progress(&mut self, _: Progress<'_>) -> bool {
        true
    }
}

/// Judges, opens and reads a store of which one file was changed.
pub(crate) fn fuzz_disk(kind: Kind, input: &[u8]) {
    let Some((&which, changes)) = input.split_first() else { return };
    let in_bucket = is_in_bucket(kind);
    let (mut files, mut objects) = base(kind).clone();
    let names = names(kind);
    let changed = names[usize::from(which) % names.len()];
    let all = if kind == Kind::BucketObject { &mut objects } else { &mut files };
    change(Arc::make_mut(all.get_mut(changed).unwrap()), changes);
    if !in_bucket {
        let _ = check::disk(Arc::new(Memory::of(&files)), &mut Unheard);
    }
    let objects = in_bucket.then(|| Arc::new(MemoryObjects(Mutex::new(objects))));
    let Ok(mut store) = open(Memory::of(&files), objects) else { return };
    let _ = read_all(&mut store);
}

fn read_all(store: &mut Stepper) -> std::result::Result<(), StoreError> {
    for offset in [0, 1_000, 5_000, 12_000, 12_700] {
        store.submit(Request::Read { segment: name(STREAM), offset, bytes_max: 4_000 })?;
    }
    store.submit(Request::Info { segment: name(STREAM) })?;
    let keys = (0..40).map(|key| format!("key-{key}").into_bytes().into()).collect();
    store.submit(Request::TableGet { segment: name(TABLE), keys })?;
    store.submit(put(3, Some("third")))?;
    store.checkpoint(0)?;
    for _ in 0..1_000 {
        if !store.run_one(0)? {
            break;
        }
    }
    Ok(())
}

/// What found something, or stands for much else: see the top of the file.
const CORPUS: &[(Kind, &[u8])] = &[
    // A run whose keys are out of order, which was merged into the next.
    (Kind::Run, &[0x0a, 0x1f, 0x1f, 0x1f, 0x1f, 0xff]),
    // A table's entry that is longer than the table, behind checksums that are right.
    (Kind::Run, &[0xd2, 0x1f, 0x00, 0x4d, 0xb2, 0x06]),
    // A segment that is truncated behind its end, by what checkpoint and journal say together.
    (Kind::Run, &[0xf8, 0x3d, 0xf7, 0xf4, 0xff, 0x0a]),
    // A chunk of which more is needed than its pieces have.
    (Kind::Run, &[0xff, 0x73, 0xa5, 0x6f, 0x77, 0x08]),
    // An identity whose journal files are nearly 2^64 bytes long, likewise.
    (Kind::Identity, &[0x01, 0x00, 0x06, 0x00, 0x00, 0xff]),
];

#[test]
fn a_file_that_is_changed_anywhere_ends_in_answers_or_errors() {
    for kind in KINDS {
        let count = names(kind).len();
        assert!(count > 0, "{kind:?} is in the store");
        for which in 0..count as u8 {
            // Untouched, cut, and a byte changed here and there.
            fuzz_disk(kind, &[which]);
            for at in (0..3_000_u32).step_by(61) {
                let [_, high, middle, low] = at.to_be_bytes();
                for changes in [&[2, high, middle, low][..], &[0, high, middle, low, 0xff], &[3, high, middle, low, 1]]
                {
                    fuzz_disk(kind, &[&[which], changes].concat());
                }
            }
        }
    }
    for (kind, input) in CORPUS {
        fuzz_disk(*kind, input);
    }
}

#[test]
fn files_changed_as_nobody_has_chosen_end_in_answers_or_errors() {
    let corpus: Vec<Vec<u8>> = CORPUS.iter().map(|(_, input)| input.to_vec()).collect();
    for kind in KINDS {
        // A change is the same whatever it changes: what was found in one kind of file is tried on all of them.
        mutate::meet(&format!("{kind:?}"), &corpus, Duration::from_millis(1_500), |input| fuzz_disk(kind, input));
    }
}
