//! Chunks in object storage: whose bucket it is, what an emptied directory gets back, storage that fails.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use headwater_engine::io::{Content, Objects};
use headwater_engine::{BucketOptions, Stepper};

use super::*;

const S: &str = "scope/stream/0.#epoch.0";
const T: &str = "scope/group_kvtable/0.#epoch.0";

/// Object storage in memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(super) objects: Mutex<BTreeMap<String, Bytes>>,
    /// Nothing can be reached.
    pub(super) is_down: AtomicBool,
    /// Gets are answered only when this is over.
    is_silent: AtomicBool,
    /// Puts are done, and their replies are lost.
    loses_replies: AtomicBool,
}

impl Memory {
    /// With these objects in it.
    pub(crate) fn holding(objects: BTreeMap<String, Bytes>) -> Self {
        Self { objects: Mutex::new(objects), ..Self::default() }
    }

    /// Everything in it, by name.
    pub(crate) fn all(&self) -> BTreeMap<String, Bytes> {
        self.objects.lock().unwrap().clone()
    }

    fn reach(&self, name: &str, action: &'static str) -> Result<(), StoreError> {
        if self.is_down.load(Ordering::Relaxed) {
            let source = Error::from(ErrorKind::ConnectionRefused).into();
            return Err(StoreError::Unreachable { object: name.into(), action, attempts: 1, source });
        }
        Ok(())
    }

    fn refused<T>(name: &str, action: &'static str, kind: ErrorKind) -> Result<T, StoreError> {
        Err(StoreError::Io { path: name.into(), action, source: kind.into() })
    }

    pub(super) fn names(&self, part: &str) -> Vec<String> {
        self.objects.lock().unwrap().keys().filter(|name| name.contains(part)).cloned().collect()
    }
}

impl Objects for Memory {
    fn put(&self, name: &str, content: Content<'_>, pause: &mut dyn FnMut()) -> Result<(), StoreError> {
        self.reach(name, "put")?;
        pause();
        let mut objects = self.objects.lock().unwrap();
        let content = content.concat();
        match objects.get(name) {
            Some(found) if *found == content => {}
            Some(_) => return Self::refused(name, "put", ErrorKind::AlreadyExists),
            None => {
                objects.insert(name.into(), content);
            }
        }
        if self.loses_replies.load(Ordering::Relaxed) {
            let source = Error::from(ErrorKind::ConnectionReset).into();
            return Err(StoreError::Unreachable { object: name.into(), action: "put", attempts: 1, source });
        }
        Ok(())
    }

    fn get(&self, name: &str, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        self.reach(name, "get")?;
        while self.is_silent.load(Ordering::Relaxed) {
            std::thread::sleep(TICK);
        }
        match self.objects.lock().unwrap().get(name) {
            None => Self::refused(name, "get", ErrorKind::NotFound),
            Some(found) if found.len() < offset as usize + length => {
                Self::refused(name, "get", ErrorKind::UnexpectedEof)
            }
            Some(found) => Ok(found.slice(offset as usize..offset as usize + length)),
        }
    }

    fn length(&self, name: &str) -> Result<u64, StoreError> {
        self.reach(name, "measure")?;
        match self.objects.lock().unwrap().get(name) {
            None => Self::refused(name, "measure", ErrorKind::NotFound),
            Some(found) => Ok(found.len() as u64),
        }
    }

    fn give_up(&self, _name: &str) {}

    fn delete(&self, name: &str, _pause: &mut dyn FnMut()) -> Result<(), StoreError> {
        self.reach(name, "delete")?;
        self.objects.lock().unwrap().remove(name);
        Ok(())
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, StoreError> {
        self.reach(directory, "list")?;
        let start = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let objects = self.objects.lock().unwrap();
        Ok(objects.keys().filter_map(|name| name.strip_prefix(&start)).map(str::to_owned).collect())
    }

    fn ahead_bytes(&self) -> u64 {
        1 << 20
    }
}

pub(super) fn options(memory: &Arc<Memory>) -> Options {
    let bucket = BucketOptions { objects: memory.clone(), shown: "s3://bucket".into(), recover: false };
    Options { bucket: Some(bucket), ..small() }
}

fn recovering(memory: &Arc<Memory>) -> Options {
    let bucket = BucketOptions { objects: memory.clone(), shown: "s3://bucket".into(), recover: true };
    Options { bucket: Some(bucket), ..small() }
}

pub(super) fn directory() -> Arc<tempfile::TempDir> {
    Arc::new(tempfile::tempdir().unwrap())
}

pub(super) fn open(directory: &tempfile::TempDir, options: Options) -> Result<Stepper, StoreError> {
    Stepper::open(io(directory), options)
}

#[track_caller]
fn refused(directory: &tempfile::TempDir, options: Options, part: &str) {
    match open(directory, options) {
        Err(StoreError::Mismatched(what)) => assert!(what.contains(part), "{what}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it opens"),
    }
}

fn carry_out(stepper: &mut Stepper, request: Request) -> Outcome {
    let asked = stepper.submit(request).unwrap();
    stepper.run_all().unwrap();
    stepper.take_replies().into_iter().find(|(ticket, _)| *ticket == asked).expect("it is answered").1
}

fn create(stepper: &mut Stepper, segment: &str) {
    let policy = SegmentPolicy::default();
    let request = Request::Create { segment: name(segment), kind: SegmentKind::Stream, policy, on_reserve: false };
    carry_out(stepper, request).unwrap();
}

fn write(stepper: &mut Stepper, segment: &str, number: i64, data: &[u8]) {
    let request = Request::Append(append(segment, (number > 1).then_some(number - 1), number, data));
    carry_out(stepper, request).unwrap();
}

pub(super) fn read(stepper: &mut Stepper, segment: &str) -> Vec<u8> {
    match carry_out(stepper, Request::Read { segment: name(segment), offset: 0, bytes_max: 1 << 20 }) {
        Ok(Response::Read(read)) => read.data.concat(),
        other => panic!("{other:?}"),
    }
}

fn length(stepper: &mut Stepper, segment: &str) -> u64 {
    match carry_out(stepper, Request::Info { segment: name(segment) }) {
        Ok(Response::Info(info)) => info.length,
        other => panic!("{other:?}"),
    }
}

/// Moves everything into the bucket.
fn checkpoint(stepper: &mut Stepper) {
    for container in 0..stepper.containers() {
        stepper.checkpoint(container).unwrap();
    }
    stepper.run_all().unwrap();
}

/// A store that has some bytes in the bucket and was closed.
pub(super) fn stored() -> (Arc<Memory>, Arc<tempfile::TempDir>) {
    let (memory, directory) = (Arc::<Memory>::default(), directory());
    let mut stepper = open(&directory, options(&memory)).unwrap();
    create(&mut stepper, S);
    write(&mut stepper, S, 1, b"first ");
    checkpoint(&mut stepper);
    stepper.close().unwrap();
    (memory, directory)
}

#[test]
fn chunks_are_in_the_bucket_and_read_from_there_after_a_restart() {
    let (memory, directory) = stored();
    assert_eq!(memory.names(".chunk").len(), 1);
    let local = (0..2).map(|container| directory.path().join(format!("chunks-{container:04}")));
    assert!(local.into_iter().all(|place| std::fs::read_dir(place).unwrap().count() == 0));
    let mut stepper = open(&directory, options(&memory)).unwrap();
    write(&mut stepper, S, 2, b"second");
    assert_eq!(read(&mut stepper, S), b"first ");
    checkpoint(&mut stepper);
    stepper.close().unwrap();
    let mut stepper = open(&directory, options(&memory)).unwrap();
    assert_eq!(read(&mut stepper, S), b"first second");
    assert_eq!(memory.names("starts/").len(), 3);
}

#[test]
fn a_store_and_a_bucket_that_do_not_belong_together_are_refused() {
    let (memory, directory) = stored();
    let (other_memory, other_directory) = stored();
    refused(&directory, options(&other_memory), "belongs to another store");
    refused(&directory, options(&Arc::default()), "has no store");
    refused(&directory, small(), "--chunks");
    let plain = directory_with_plain_store();
    refused(&plain, options(&memory), "keeps its chunks in its directory");
    for (directory, memory) in [(directory, memory), (other_directory, other_memory)] {
        let mut stepper = open(&directory, options(&memory)).unwrap();
        assert_eq!(read(&mut stepper, S), b"first ", "nothing was touched");
    }
}

pub(super) fn directory_with_plain_store() -> Arc<tempfile::TempDir> {
    let directory = directory();
    open(&directory, small()).unwrap().close().unwrap();
    directory
}

#[test]
fn an_empty_directory_takes_a_bucket_over_only_if_it_is_told_to() {
    let (memory, first) = stored();
    {
        let mut stepper = open(&first, options(&memory)).unwrap();
        write(&mut stepper, S, 2, b"never copied");
        stepper.close().unwrap();
    }
    let empty = directory();
    refused(&empty, options(&memory), "--recover-from-chunks");
    let mut stepper = open(&empty, recovering(&memory)).unwrap();
    assert_eq!(read(&mut stepper, S), b"first ", "as of the last copy");
    let recovered = stepper.recovered().to_vec();
    assert_eq!(recovered.len(), 2);
    let container = name(S).container(2);
    let of = recovered.iter().find(|one| one.container == container).unwrap();
    assert!(of.operation >= 2 && of.copied_millis.is_some(), "{of:?}");
    write(&mut stepper, S, 2, b"and on");
    checkpoint(&mut stepper);
    stepper.close().unwrap();
    refused(&first, options(&memory), "another copy of this data directory");
    let mut stepper = open(&empty, options(&memory)).unwrap();
    assert!(stepper.recovered().is_empty());
    assert_eq!(read(&mut stepper, S), b"first and on");
}

#[test]
fn a_recovery_that_was_interrupted_begins_anew() {
    let (memory, _) = stored();
    let empty = directory();
    let rigged = super::rigged::Rigged::new(empty.path());
    // The identity comes last.
    rigged.refuse_once(super::rigged::Deed::Rename, "store.next", ErrorKind::Other);
    assert!(Stepper::open(rigged.io(), recovering(&memory)).is_err());
    refused(&empty, options(&memory), "--recover-from-chunks");
    let mut stepper = open(&empty, recovering(&memory)).unwrap();
    assert_eq!(read(&mut stepper, S), b"first ");
}

#[test]
fn a_creation_that_was_interrupted_goes_on() {
    let (memory, directory) = (Arc::<Memory>::default(), directory());
    let rigged = super::rigged::Rigged::new(directory.path());
    rigged.refuse_once(super::rigged::Deed::Rename, "store.next", ErrorKind::Other);
    assert!(Stepper::open(rigged.io(), options(&memory)).is_err());
    assert_eq!(memory.names("root/store").len(), 1);
    let mut stepper = open(&directory, options(&memory)).unwrap();
    create(&mut stepper, S);
    // Before anything of the bucket is written, too.
    memory.is_down.store(true, Ordering::Relaxed);
    let other = self::directory();
    assert!(matches!(open(&other, options(&memory)), Err(StoreError::Unreachable { .. })));
    let memory = Arc::<Memory>::default();
    open(&other, options(&memory)).unwrap();
}

#[test]
fn a_chunk_goes_only_when_the_copy_in_the_bucket_does_not_name_it() {
    let (memory, directory) = stored();
    let mut stepper = open(&directory, options(&memory)).unwrap();
    let before = memory.names(".chunk");
    carry_out(&mut stepper, Request::Delete { segment: name(S) }).unwrap();
    assert_eq!(memory.names(".chunk"), before);
    checkpoint(&mut stepper);
    stepper.reap().unwrap();
    assert_eq!(memory.names(".chunk"), Vec::<String>::new());
    let names = memory.names("catalogue-");
    assert_eq!(names.iter().filter(|name| name.ends_with(".copy")).count(), 2, "{names:?}");
}

#[test]
fn storage_that_is_away_delays_a_checkpoint_and_loses_nothing() {
    let (memory, directory) = (Arc::<Memory>::default(), directory());
    let mut stepper = open(&directory, options(&memory)).unwrap();
    create(&mut stepper, S);
    write(&mut stepper, S, 1, b"first ");
    for (down, deaf) in [(true, false), (false, true)] {
        memory.is_down.store(down, Ordering::Relaxed);
        memory.loses_replies.store(deaf, Ordering::Relaxed);
        for container in 0..stepper.containers() {
            stepper.checkpoint(container).unwrap();
        }
        // More tries than there would be in minutes; none of them may end the store.
        for choice in 0..50 {
            stepper.run_one(choice).unwrap();
        }
    }
    memory.loses_replies.store(false, Ordering::Relaxed);
    write(&mut stepper, S, 2, b"second");
    checkpoint(&mut stepper);
    stepper.close().unwrap();
    let mut stepper = open(&directory, options(&memory)).unwrap();
    assert_eq!(read(&mut stepper, S), b"first second");
    memory.is_down.store(true, Ordering::Relaxed);
    assert_eq!(length(&mut stepper, S), 12);
}

#[test]
fn a_read_from_storage_that_is_away_is_refused_for_now() {
    let (memory, directory) = stored();
    let mut stepper = open(&directory, options(&memory)).unwrap();
    memory.is_down.store(true, Ordering::Relaxed);
    let request = || Request::Read { segment: name(S), offset: 0, bytes_max: 100 };
    assert_eq!(carry_out(&mut stepper, request()).unwrap_err(), Refusal::Unavailable);
    memory.is_down.store(false, Ordering::Relaxed);
    assert_eq!(read(&mut stepper, S), b"first ");
}

#[test]
fn what_a_dead_start_left_in_the_bucket_goes_and_what_is_not_ours_stays() {
    let (memory, directory) = stored();
    let container = name(S).container(2);
    let orphan = format!("chunks-{container:04}/{:016}.chunk", (1_u64 << 36) + 99);
    for object in [orphan.as_str(), "chunks-0000/readme.txt", "catalogue-0000/0000000000000001-readme"] {
        memory.objects.lock().unwrap().insert(object.into(), Bytes::from_static(b"x"));
    }
    let mut stepper = open(&directory, options(&memory)).unwrap();
    write(&mut stepper, S, 2, b"second");
    checkpoint(&mut stepper);
    stepper.reap().unwrap();
    assert_eq!(memory.names(&orphan), Vec::<String>::new());
    assert_eq!(memory.names("readme").len(), 2);
    stepper.close().unwrap();
    assert_eq!(read(&mut open(&directory, options(&memory)).unwrap(), S), b"first second");
}

#[test]
fn a_server_keeps_its_chunks_in_a_bucket_and_gets_over_storage_that_was_away() {
    let memory = Arc::<Memory>::default();
    let options = options(&memory);
    let store = Fixture::with(&options);
    store.create(S, SegmentKind::Stream);
    store.create(T, SegmentKind::Table { key_length: 0 });
    let piece = vec![7; 1 << 20];
    memory.is_down.store(true, Ordering::Relaxed);
    let mut receivers = Vec::new();
    for number in 1..=40 {
        let previous = (number > 1).then_some(number - 1);
        receivers.push(store.submit(Request::Append(append(S, previous, number, &piece[..200_000]))));
    }
    eventually("a checkpoint has met the storage", || store.metric("chunk_storage_waits_total") > 0);
    memory.is_down.store(false, Ordering::Relaxed);
    for receiver in receivers {
        store.wait(&receiver).unwrap().unwrap();
    }
    eventually("chunks are in the bucket", || !memory.names(".chunk").is_empty());
    let store = store.reopen(&options);
    assert_eq!(store.read_all(S), vec![7; 40 * 200_000]);
}

#[test]
fn storage_that_says_nothing_holds_up_nobody_who_does_not_read_from_it() {
    let memory = Arc::<Memory>::default();
    let options = options(&memory);
    let store = Fixture::with(&options);
    store.create(S, SegmentKind::Stream);
    store.create(T, SegmentKind::Table { key_length: 0 });
    // So many that what the catalogue says of S is in a block that no start reads.
    for number in 0..300 {
        store.create(&format!("scope/filling-{number}/0.#epoch.0"), SegmentKind::Stream);
    }
    let key = |number: u64| Bytes::from(format!("key-{number:04}"));
    let value = Bytes::from(vec![7; 10_000]);
    let change = |number| TableChange { key: key(number), value: Some(value.clone()), expect: Expect::Any };
    let changes = (0..40).map(change).collect();
    store.call(Request::TableUpdate { segment: name(T), changes, at: None }).unwrap();
    store.flush();
    let store = store.reopen(&options);
    memory.is_silent.store(true, Ordering::Relaxed);
    let get = |number| store.submit(Request::TableGet { segment: name(T), keys: vec![key(number)] });
    let gets: Vec<_> = (0..20).map(get).collect();
    // Neither segment is in memory yet: what the catalogue says of them is looked up.
    assert_eq!(store.info(S).unwrap().length, 0);
    store.append(S, None, 1, b"first").unwrap();
    store.create("scope/another/0.#epoch.0", SegmentKind::Stream);
    assert!(gets.iter().all(|get| get.try_recv().is_err()), "they need what nobody gives them");
    memory.is_silent.store(false, Ordering::Relaxed);
    for get in gets {
        let Ok(Response::Values(values)) = store.wait(&get).unwrap() else { panic!("values answer a get") };
        assert_eq!(values[0].as_ref().unwrap().value, value);
    }
}
