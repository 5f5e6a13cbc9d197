//! What is promised when the disk fails, fills up, rots or was tampered with, and when the process is killed.

use std::collections::BTreeMap;
use std::io::ErrorKind::{Other, QuotaExceeded, StorageFull};
use std::path::{Path, PathBuf};

use headwater_engine::Stepper;
use headwater_types::AttributeId;

use super::rigged::{Deed, Rigged};
use super::*;

const S: &str = "scope/stream/0.#epoch.0";
const T: &str = "scope/group_kvtable/0.#epoch.0";

fn directory() -> Arc<tempfile::TempDir> {
    Arc::new(tempfile::tempdir().unwrap())
}

fn create(segment: &str, kind: SegmentKind) -> Request {
    Request::Create { segment: name(segment), kind, policy: SegmentPolicy::default(), on_reserve: false }
}

/// The `number`th append of [`WRITER`], from 1 on.
fn event(number: i64, data: &[u8]) -> Request {
    Request::Append(append(S, (number > 1).then_some(number - 1), number, data))
}

fn put(keys: impl IntoIterator<Item = String>, value: &[u8]) -> Request {
    let value = Bytes::copy_from_slice(value);
    let change = |key| TableChange { key: Bytes::from(key), value: Some(value.clone()), expect: Expect::Any };
    Request::TableUpdate { segment: name(T), changes: keys.into_iter().map(change).collect(), at: None }
}

fn get(key: &str) -> Request {
    Request::TableGet { segment: name(T), keys: vec![Bytes::copy_from_slice(key.as_bytes())] }
}

/// Hands over a request and does everything that follows from it.
fn carry_out(stepper: &mut Stepper, request: Request) -> Outcome {
    let asked = stepper.submit(request).unwrap();
    stepper.run_all().unwrap();
    stepper.take_replies().into_iter().find(|(ticket, _)| *ticket == asked).expect("it is answered").1
}

/// Begins a checkpoint of the segment's container.
fn checkpoint(stepper: &mut Stepper, segment: &str) {
    stepper.checkpoint(name(segment).container(stepper.containers())).unwrap();
}

/// Makes a store that did this, moved all of it out of the journal, and was closed.
fn stored(requests: Vec<Request>) -> Arc<tempfile::TempDir> {
    let directory = directory();
    let mut stepper = Stepper::open(io(&directory), small()).unwrap();
    for request in requests {
        let segment = request.segment().as_str().to_owned();
        carry_out(&mut stepper, request).unwrap();
        checkpoint(&mut stepper, &segment);
        stepper.run_all().unwrap();
    }
    stepper.close().unwrap();
    directory
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn chunks(directory: &tempfile::TempDir) -> Vec<PathBuf> {
    files(directory.path()).into_iter().filter(|path| path.extension().is_some_and(|end| end == "chunk")).collect()
}

/// Changes a file in place.
fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// Position of the first call of this kind on a path that contains `part`.
fn first(calls: &[(Deed, String)], deed: Deed, part: &str) -> usize {
    let found = calls.iter().position(|(done, path)| *done == deed && path.contains(part));
    found.unwrap_or_else(|| panic!("no {deed:?} of {part}: {calls:?}"))
}

#[test]
fn a_failed_sync_is_never_tried_again_and_nothing_is_acknowledged_after_it() {
    let directory = directory();
    let rigged = Rigged::new(directory.path());
    let store = Fixture::open(directory, rigged.io(), &small()).unwrap();
    store.create(S, SegmentKind::Stream);
    // The second sync would succeed although the system has dropped the pages, also if the first named want of room.
    rigged.refuse_once(Deed::Sync, "journal/0000000000000001.log", StorageFull);
    let receiver = store.submit(event(1, b"x"));
    let fault = store.wait(&receiver).expect_err("a failed sync ends the store");
    assert_eq!(fault.to_string(), "journal/0000000000000001.log: could not write a frame");
}

#[test]
fn a_checkpoint_stands_although_what_it_replaced_cannot_be_removed() {
    let directory = directory();
    let rigged = Rigged::new(directory.path());
    let mut stepper = Stepper::open(rigged.io(), small()).unwrap();
    carry_out(&mut stepper, create(S, SegmentKind::Stream)).unwrap();
    carry_out(&mut stepper, event(1, b"one ")).unwrap();
    checkpoint(&mut stepper, S);
    stepper.run_all().unwrap();
    carry_out(&mut stepper, event(2, b"two")).unwrap();
    checkpoint(&mut stepper, S);
    // A full disk must not be taken for a checkpoint that failed: its chunks would be removed under the new manifest.
    rigged.refuse_all(Deed::Remove, ".run", QuotaExceeded);
    stepper.run_all().unwrap();
    first(&rigged.calls(), Deed::Remove, ".run");
    drop(stepper);
    let io = io(&directory);
    let store = Fixture::open(directory, io, &small()).unwrap();
    assert_eq!(store.read_all(S), b"one two");
}

#[test]
fn a_store_starts_and_takes_writes_on_a_full_disk() {
    let store = Fixture::with(&small());
    store.create(S, SegmentKind::Stream);
    store.append(S, None, 1, b"before").unwrap();
    let journal = store.directory.path().join("journal");
    let is_spare = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("spare-");
    eventually("a journal file is set aside", || files(&journal).iter().any(is_spare));
    store.engine.close();
    let rigged = Rigged::new(store.directory.path());
    rigged.refuse_all(Deed::Allocate, "", StorageFull);
    // A supervisor may start it again and again.
    for number in 2..10 {
        let store = Fixture::open(store.directory.clone(), rigged.io(), &small()).unwrap();
        store.append(S, Some(number - 1), number, b" and after").unwrap();
        assert_eq!(store.read_all(S).len() as i64, 6 + (number - 1) * 10);
    }
}

#[test]
fn a_checkpoint_waits_for_room_while_writes_go_on() {
    let directory = directory();
    let rigged = Rigged::new(directory.path());
    let store = Fixture::open(directory, rigged.io(), &small()).unwrap();
    store.create(S, SegmentKind::Stream);
    rigged.refuse_once(Deed::Create, ".run", StorageFull);
    let mut number = 0;
    let mut write = || {
        number += 1;
        store.call(event(number, &[7; 100_000])).unwrap();
    };
    eventually("a checkpoint finds the disk full", || {
        write();
        store.metric("disk_full_waits_total") > 0
    });
    write();
    eventually("the checkpoint is made", || store.metric("checkpoints_total") > 0);
    write();
    assert_eq!(store.read_all(S).len() as i64, number * 100_000);
}

#[test]
fn a_writer_that_sends_faster_than_the_disk_writes_chunks_waits_and_memory_stays_bounded() {
    const EVENTS: i64 = 800;
    let directory = directory();
    let rigged = Rigged::new(directory.path());
    let store = Fixture::open(directory, rigged.io(), &small()).unwrap();
    store.create(S, SegmentKind::Stream);
    rigged.refuse(|deed, path| {
        if deed == Deed::Write && path.contains(".chunk") {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        None
    });
    // All at once, as if there was no connection that stops being read from.
    let answers: Vec<_> = (1..=EVENTS).map(|number| store.submit(event(number, &[number as u8; 100_000]))).collect();
    // One of two containers has all of it, and a little on its way to the journal besides.
    let limit = store.metric("unstored_limit_bytes") / 2 + (1 << 20);
    let (mut most, mut most_held) = (0, 0);
    for answer in &answers {
        most = most.max(store.metric("unstored_bytes"));
        most_held = most_held.max(store.metric("requests_held"));
        assert!(matches!(store.wait(answer), Ok(Ok(Response::Appended { .. }))), "an append waits and is stored");
    }
    assert!(most_held > 0, "{most} of {limit} bytes were in no chunk and nothing had to wait");
    assert!(most <= limit, "{most} of {limit} bytes are in no chunk");
    let all = store.read_all(S);
    assert!(all.chunks(100_000).zip(1..).all(|(event, number)| event.iter().all(|byte| *byte == number as i64 as u8)));
    assert_eq!(all.len() as i64, EVENTS * 100_000);
}

#[test]
fn a_spare_that_cannot_be_filled_leaves_nothing_behind() {
    let directory = directory();
    let rigged = Rigged::new(directory.path());
    rigged.refuse_all(Deed::Write, "journal/zero-", StorageFull);
    let _store = Fixture::open(directory, rigged.io(), &small()).unwrap();
    let of_spares = || rigged.calls().into_iter().filter(|(_, path)| path.starts_with("journal/zero-"));
    eventually("a spare is tried twice", || of_spares().filter(|(deed, _)| *deed == Deed::Create).count() == 2);
    let calls: Vec<_> = of_spares().collect();
    let (made, path) = &calls[0];
    assert_eq!(*made, Deed::Create);
    let again = calls.iter().rposition(|(deed, _)| *deed == Deed::Create).unwrap();
    let removed = calls.iter().position(|call| *call == (Deed::Remove, path.clone()));
    assert!(removed.is_some_and(|removed| removed < again), "{calls:?}");
}

#[test]
fn a_rotten_value_is_refused_and_the_rest_of_the_table_is_served() {
    let directory = stored(vec![
        create(T, SegmentKind::Table { key_length: 0 }),
        put(["rotten".to_owned()], &[1; 10_000]),
        put(["sound".to_owned()], &[2; 10_000]),
    ]);
    let mut chunks = chunks(&directory);
    chunks.sort();
    damage(&chunks[0], |bytes| bytes[500] ^= 1);
    let io = io(&directory);
    let store = Fixture::open(directory, io, &small()).unwrap();
    assert_eq!(store.call(get("rotten")).unwrap_err(), Refusal::Damaged);
    let scan = Request::TableScan { segment: name(T), range: ScanRange::default(), count_max: 9, keys_only: false };
    assert_eq!(store.call(scan).unwrap_err(), Refusal::Damaged);
    assert!(matches!(store.call(get("sound")), Ok(Response::Values(values)) if values[0].is_some()));
    store.call(put(["rotten".to_owned()], b"mended")).unwrap();
    assert!(matches!(store.call(get("rotten")), Ok(Response::Values(values)) if values[0].is_some()));
}

#[test]
fn a_chunk_that_vanished_under_an_open_store_is_refused_and_counted() {
    let directory = stored(vec![create(S, SegmentKind::Stream), event(1, b"precious")]);
    let io = io(&directory);
    let store = Fixture::open(directory, io, &small()).unwrap();
    for path in chunks(&store.directory) {
        std::fs::remove_file(path).unwrap();
    }
    // Once may be a truncation that was faster than the read; twice is not.
    assert_eq!(store.read(S, 0).unwrap_err(), Refusal::Damaged);
    assert_eq!(store.metric("crc_failures_total"), 1);
    store.append(S, Some(1), 2, b" words").unwrap();
    assert_eq!(store.read(S, 8).unwrap().0, b" words");
}

#[test]
fn a_store_without_its_identity_is_not_made_anew() {
    let directory = stored(vec![create(S, SegmentKind::Stream), event(1, b"precious")]);
    let identity = directory.path().join("store");
    let bytes = std::fs::read(&identity).unwrap();
    std::fs::remove_file(&identity).unwrap();
    let error = Fixture::open(directory.clone(), io(&directory), &small()).err().expect("it is not opened");
    assert_eq!(error.to_string(), "store at byte 0: identity is missing, but there is a journal");
    std::fs::write(&identity, bytes).unwrap();
    let io = io(&directory);
    assert_eq!(Fixture::open(directory, io, &small()).unwrap().read_all(S), b"precious");
}

#[test]
fn a_refused_start_changes_nothing() {
    let snapshot = |directory: &tempfile::TempDir| -> BTreeMap<PathBuf, Vec<u8>> {
        files(directory.path()).into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    };
    for (file, at) in [
        ("store", 11),
        ("store", 20),
        ("catalogue-0001/manifest", 11),
        ("catalogue-0001/manifest", 20),
        ("journal/0000000000000001.log", 11),
        ("journal/0000000000000001.log", 4096 + 30),
    ] {
        let directory = stored(vec![create(S, SegmentKind::Stream), event(1, b"precious")]);
        // What a start that goes through would tidy away, in a container that is sound.
        for rest in ["chunks-0000/0000000000000099.chunk", "catalogue-0000/0000000000000099.run", "journal/zero-9"] {
            std::fs::write(directory.path().join(rest), b"left over").unwrap();
        }
        damage(&directory.path().join(file), |bytes| bytes[at] ^= 9);
        let before = snapshot(&directory);
        let error = Fixture::open(directory.clone(), io(&directory), &small()).err();
        let is_newer = matches!(error, Some(StoreError::Newer { .. }));
        assert!(is_newer == (at == 11) && error.is_some(), "{file}, byte {at}: {error:?}");
        assert!(snapshot(&directory) == before, "{file}, byte {at}: refused, but not untouched");
    }
}

#[test]
fn a_torn_tail_is_dropped_and_counted() {
    let directory = directory();
    let mut stepper = Stepper::open(io(&directory), small()).unwrap();
    carry_out(&mut stepper, create(S, SegmentKind::Stream)).unwrap();
    for number in 1..=5 {
        carry_out(&mut stepper, event(number, &[1; 6000])).unwrap();
    }
    drop(stepper);
    // The power went in the middle of the last frame.
    damage(&directory.path().join("journal/0000000000000001.log"), |bytes| {
        let last = bytes.iter().rposition(|byte| *byte == 1).unwrap();
        bytes[last] = 0;
    });
    let io = io(&directory);
    let store = Fixture::open(directory, io, &small()).unwrap();
    assert_eq!(store.info(S).unwrap().length, 4 * 6000);
    assert_eq!(store.metric("wal_tail_discarded_bytes"), 8192);
    // The segment's creation has one block, each event that is left two.
    assert_eq!(store.metric("wal_replayed_bytes"), 4096 + 4 * 8192);
}

#[test]
fn a_start_counts_the_journal_from_the_oldest_record_that_no_checkpoint_has() {
    let directory = directory();
    let mut stepper = Stepper::open(io(&directory), small()).unwrap();
    carry_out(&mut stepper, create(S, SegmentKind::Stream)).unwrap();
    for number in 1..=8 {
        carry_out(&mut stepper, event(number, &[1; 6000])).unwrap();
    }
    checkpoint(&mut stepper, S);
    stepper.run_all().unwrap();
    for number in 9..=10 {
        carry_out(&mut stepper, event(number, &[1; 6000])).unwrap();
    }
    drop(stepper);
    let io = io(&directory);
    let store = Fixture::open(directory, io, &small()).unwrap();
    assert_eq!(store.info(S).unwrap().length, 10 * 6000);
    // What the checkpoint itself left there comes to a few blocks.
    let replayed = store.metric("wal_replayed_bytes");
    assert!((2 * 8192..=4 * 8192).contains(&replayed), "{replayed} bytes");
}

#[test]
fn a_store_has_its_directories_before_its_identity() {
    let directory = directory();
    let rigged = Rigged::new(directory.path());
    Stepper::open(rigged.io(), small()).unwrap().close().unwrap();
    let calls = rigged.calls();
    let named = first(&calls, Deed::Rename, "store.next");
    let last_made = calls.iter().rposition(|(deed, _)| *deed == Deed::CreateDirectory).unwrap();
    let synced = calls[..named].iter().rposition(|call| *call == (Deed::SyncDirectory, String::new()));
    assert!(synced.is_some_and(|synced| last_made < synced), "{:?}", &calls[..=named]);
}

#[test]
fn a_commit_larger_than_a_journal_file_is_divided() {
    let directory = directory();
    let mut stepper = Stepper::open(io(&directory), small()).unwrap();
    carry_out(&mut stepper, create(S, SegmentKind::Stream)).unwrap();
    for number in 1..=15 {
        stepper.submit(event(number, &[7; 100_000])).unwrap();
    }
    stepper.run_all().unwrap();
    assert!(stepper.take_replies().iter().all(|(_, outcome)| outcome.is_ok()));
    drop(stepper);
    let io = io(&directory);
    assert_eq!(Fixture::open(directory, io, &small()).unwrap().info(S).unwrap().length, 1_500_000);
}

#[test]
fn nothing_is_removed_before_the_manifest_that_gave_it_up_is_durable() {
    let directory = directory();
    let rigged = Rigged::new(directory.path());
    let mut stepper = Stepper::open(rigged.io(), small()).unwrap();
    let place = format!("catalogue-{:04}", name(S).container(stepper.containers()));
    carry_out(&mut stepper, create(S, SegmentKind::Stream)).unwrap();
    carry_out(&mut stepper, event(1, b"one ")).unwrap();
    checkpoint(&mut stepper, S);
    stepper.run_all().unwrap();
    carry_out(&mut stepper, event(2, b"two")).unwrap();
    checkpoint(&mut stepper, S);
    // The process is killed between giving the manifest its name and making the name durable.
    let (mut is_named, at) = (false, place.clone());
    rigged.refuse(move |deed, path| {
        is_named |= deed == Deed::Rename && path.starts_with(&at);
        (is_named && deed == Deed::SyncDirectory && path == at).then_some(Other)
    });
    stepper.run_all().unwrap_err();
    drop(stepper);
    // The next one sees the name, in the page cache; if the power goes now, the older manifest is back.
    let rigged = Rigged::new(directory.path());
    let store = Fixture::open(directory, rigged.io(), &small()).unwrap();
    assert_eq!(store.read_all(S), b"one two");
    let calls = rigged.calls();
    assert!(first(&calls, Deed::SyncDirectory, &place) < first(&calls, Deed::Remove, &place), "{calls:?}");
}

#[test]
fn a_journal_whose_oldest_file_holds_no_records_is_freed() {
    let store = Fixture::with(&small()).reopen(&small());
    store.create(S, SegmentKind::Stream);
    // Nothing but the journal's own length asks for a checkpoint here: the values replace one another.
    let update = AttributeUpdate { id: AttributeId(0), kind: UpdateKind::Replace, value: 1 };
    let updates: Vec<_> = (1_000..1_064).map(|id| AttributeUpdate { id: AttributeId(id), ..update }).collect();
    for _ in 0..40 {
        let request = || Request::UpdateAttributes { segment: name(S), updates: updates.clone() };
        let answers: Vec<_> = (0..150).map(|_| store.submit(request())).collect();
        store.wait(answers.last().unwrap()).unwrap().unwrap();
    }
    // How much it is depends on how many updates share a frame; the figure comes a moment after the answer.
    eventually("enough is written to ask for a checkpoint", || store.metric("wal_written_bytes_total") > 8 << 20);
    eventually("the journal is short", || store.metric("wal_files_bytes") <= 7 << 20);
}

#[test]
fn restarts_do_not_make_the_journal_longer() {
    let mut store = Fixture::with(&small());
    for _ in 0..8 {
        store = store.reopen(&small());
    }
    // A closing frame is all that is left of each run. Before the journal's first report the figure is zero.
    eventually("old files are released", || (1..=2 << 20).contains(&store.metric("wal_files_bytes")));
}

#[test]
fn a_small_append_is_charged_what_it_takes_in_memory() {
    let store = Fixture::with(&small());
    store.create(S, SegmentKind::Stream);
    let mut number = 0;
    let mut append_many = || {
        let events = (0..2_000).map(|_| {
            number += 1;
            event(number, b"x")
        });
        let answers: Vec<_> = events.map(|event| store.submit(event)).collect();
        store.wait(answers.last().unwrap()).unwrap().unwrap();
    };
    append_many();
    let charged = store.metric("unstored_bytes");
    assert!(charged > 2_000 * 100, "2000 pieces of memory are charged as {charged} bytes");
    // So they are moved out of memory as soon as they fill it, long before their own bytes would.
    for _ in 0..8 {
        append_many();
    }
    eventually("a checkpoint of 18 kB is made", || store.metric("checkpoints_total") > 0);
}

#[test]
fn deleting_a_table_costs_the_same_however_many_keys_it_has() {
    let many = (0..5_000).map(|number| format!("key-{number:06}"));
    let directory = stored(vec![create(T, SegmentKind::Table { key_length: 0 }), put(many, b"v")]);
    let io = io(&directory);
    let store = Fixture::open(directory, io, &small()).unwrap();
    assert_eq!(store.metric("catalogue_hot_bytes"), 0);
    store.call(Request::DeleteTable { segment: name(T), must_be_empty: false }).unwrap();
    let hot = store.metric("catalogue_hot_bytes");
    assert!(hot < 4_096, "removing 5000 keys takes {hot} bytes of memory");
    // The keys are still on disk, and nobody's.
    store.create(T, SegmentKind::Table { key_length: 0 });
    assert!(matches!(store.call(get("key-000001")), Ok(Response::Values(values)) if values[0].is_none()));
}
