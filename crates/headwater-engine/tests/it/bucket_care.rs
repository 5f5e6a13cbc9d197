//! Looking after a store whose chunks are in object storage: check, scrubber, images, restores.

use std::path::Path;
use std::sync::atomic::Ordering;

use headwater_engine::check::{self, CheckError, Finding, Progress, Severity, Summary, Watch};
use headwater_engine::{BucketOptions, BucketRestore, Image};

use super::bucket::{Memory, directory, directory_with_plain_store, open, options, read, stored};
use super::*;

const S: &str = "scope/stream/0.#epoch.0";

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Watch for Findings {
    fn finding(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    fn progress(&mut self, progress: Progress<'_>) -> bool {
        assert!(progress.bytes <= progress.bytes_total, "{progress:?}");
        true
    }
}

fn place(memory: &Arc<Memory>) -> BucketOptions {
    options(memory).bucket.unwrap()
}

fn judge(root: &Path, memory: &Arc<Memory>) -> Result<(Summary, Vec<Finding>), CheckError> {
    let mut findings = Findings::default();
    let summary = check::directory_with_bucket(root, &place(memory), &mut findings)?;
    Ok((summary, findings.0))
}

#[track_caller]
pub(super) fn sound_with(root: &Path, bucket: &BucketOptions) {
    let mut findings = Findings::default();
    let summary = check::directory_with_bucket(root, bucket, &mut findings).unwrap();
    assert!(summary.is_sound(), "{:?}", findings.0);
}

#[track_caller]
fn sound(root: &Path, memory: &Arc<Memory>) -> Summary {
    let (summary, findings) = judge(root, memory).unwrap();
    assert!(summary.is_sound() && !summary.are_chunks_left_out, "{findings:?}");
    summary
}

/// What the check says after the bucket was changed: code and object of each doubt.
fn after(change: impl FnOnce(&mut std::collections::BTreeMap<String, Bytes>)) -> Vec<(&'static str, String)> {
    let (memory, directory) = stored();
    change(&mut memory.objects.lock().unwrap());
    let (summary, findings) = judge(directory.path(), &memory).unwrap();
    let doubts = findings.into_iter().filter(|one| one.severity == Severity::Doubt);
    let doubts: Vec<_> = doubts.map(|one| (one.code, one.file)).collect();
    assert_eq!(summary.is_sound(), doubts.is_empty());
    doubts
}

fn named(objects: &std::collections::BTreeMap<String, Bytes>, suffix: &str) -> String {
    objects.keys().rfind(|name| name.ends_with(suffix)).unwrap().clone()
}

fn flip(objects: &mut std::collections::BTreeMap<String, Bytes>, name: &str) {
    let mut bytes = objects[name].to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    objects.insert(name.into(), bytes.into());
}

#[test]
fn check_reads_what_is_in_the_bucket_and_names_what_is_not_as_it_was() {
    assert_eq!(after(|_| {}), []);
    let mut chunk = String::new();
    let missing = after(|objects| {
        chunk = named(objects, ".chunk");
        objects.remove(&chunk);
    });
    // The copy of the catalogue is as it was; only the chunk is gone.
    assert_eq!(missing, [("missing", chunk.clone())]);
    let damaged = after(|objects| flip(objects, &named(objects, ".chunk")));
    assert_eq!(damaged, [("damaged", chunk.clone())]);
    let short = after(|objects| {
        let bytes = objects[&chunk].clone();
        objects.insert(chunk.clone(), bytes.slice(..bytes.len() - 1));
    });
    assert_eq!(short, [("damaged", chunk)]);
    for name in ["chunks-0000/thesis.txt", "catalogue-0001/thesis.txt"] {
        let foreign = after(|objects| drop(objects.insert(name.into(), Bytes::from_static(b"x"))));
        assert_eq!(foreign, [("foreign", name.to_owned())]);
    }
    for suffix in [".run", ".copy"] {
        let mut victim = String::new();
        let damaged = after(|objects| {
            victim = named(objects, suffix);
            flip(objects, &victim);
        });
        assert_eq!(damaged, [("damaged", victim)]);
    }
}

#[test]
fn what_a_killed_process_leaves_in_the_bucket_is_a_note() {
    let (memory, directory) = stored();
    for name in ["chunks-0000/0000000000000099.chunk", "catalogue-0000/0000000000000001-0000000000000077-000000.run"] {
        memory.objects.lock().unwrap().insert(name.into(), Bytes::from_static(b"x"));
    }
    let (summary, findings) = judge(directory.path(), &memory).unwrap();
    assert!(summary.is_sound(), "{findings:?}");
    assert_eq!(findings.iter().filter(|one| one.code == "unreferenced").count(), 2, "{findings:?}");
}

#[test]
fn chunks_that_were_not_looked_at_are_a_doubt_and_a_wrong_bucket_is_an_error() {
    let (memory, directory) = stored();
    let mut findings = Findings::default();
    let summary = check::directory(directory.path(), &mut findings).unwrap();
    assert!(!summary.is_sound() && !summary.is_complete && summary.are_chunks_left_out);
    assert!(
        findings.0.iter().any(|one| one.code == "not-checked" && one.what.contains("--chunks")),
        "{:?}",
        findings.0
    );

    let refused = |root: &Path, memory: &Arc<Memory>, part: &str| match judge(root, memory) {
        Err(CheckError::Store { source: StoreError::Mismatched(what), .. }) => assert!(what.contains(part), "{what}"),
        other => panic!("{other:?}"),
    };
    refused(directory.path(), &stored().0, "belongs to another store");
    refused(directory.path(), &Arc::default(), "has no store");
    refused(directory_with_plain_store().path(), &memory, "in its directory");

    memory.is_down.store(true, Ordering::Relaxed);
    let away = judge(directory.path(), &memory);
    assert!(matches!(&away, Err(CheckError::Store { source: StoreError::Unreachable { .. }, .. })), "{away:?}");
    memory.is_down.store(false, Ordering::Relaxed);

    let outdated = self::directory();
    for entry in ["store", "bucket", "journal", "catalogue-0000", "catalogue-0001", "chunks-0000", "chunks-0001"] {
        copy_all(&directory.path().join(entry), &outdated.path().join(entry));
    }
    drop(open(&directory, options(&memory)).unwrap());
    drop(open(&directory, options(&memory)).unwrap());
    let (summary, findings) = judge(outdated.path(), &memory).unwrap();
    assert!(!summary.is_sound() && findings.iter().any(|one| one.code == "misfit"), "{findings:?}");
}

#[test]
fn a_store_with_a_bucket_is_repaired_only_together_with_it_and_the_bucket_stays_as_it_is() {
    let (memory, directory) = stored();
    let left_here = directory.path().join("catalogue-0000/0000000000000777.run");
    std::fs::write(&left_here, b"x").unwrap();
    let left_there = "chunks-0000/0000000000000777.chunk";
    memory.objects.lock().unwrap().insert(left_there.into(), Bytes::from_static(b"x"));
    let objects = memory.objects.lock().unwrap().clone();
    let mend = |bucket: Option<&BucketOptions>| {
        let (mut before, mut after) = (Findings::default(), Findings::default());
        let repaired = check::repair::directory(directory.path(), bucket, &mut before, &mut after).unwrap();
        (repaired, after.0)
    };

    let (blind, _) = mend(None);
    assert!(blind.repairs.is_empty() && !blind.after.is_sound() && left_here.exists());

    memory.objects.lock().unwrap().insert("chunks-0000/thesis.txt".into(), Bytes::from_static(b"x"));
    let (doubtful, _) = mend(Some(&place(&memory)));
    assert!(doubtful.repairs.is_empty() && !doubtful.after.is_sound() && left_here.exists());
    memory.objects.lock().unwrap().remove("chunks-0000/thesis.txt");

    let (repaired, findings) = mend(Some(&place(&memory)));
    let files: Vec<_> = repaired.repairs.iter().map(|repair| repair.file.as_str()).collect();
    assert_eq!(files, ["catalogue-0000/0000000000000777.run"]);
    assert!(repaired.after.is_sound() && !left_here.exists(), "{findings:?}");
    assert!(findings.iter().any(|one| one.code == "unreferenced" && one.file == left_there), "{findings:?}");
    assert!(*memory.objects.lock().unwrap() == objects, "a repair writes to no bucket");
}

fn copy_all(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            copy_all(&from.join(&name), &to.join(&name));
        }
    } else {
        std::fs::copy(from, to).unwrap();
    }
}

/// A server with chunks in the bucket.
fn filled(memory: &Arc<Memory>) -> Fixture {
    let store = Fixture::with(&options(memory));
    store.create(S, SegmentKind::Stream);
    for number in 1..=200 {
        store.append(S, (number > 1).then_some(number - 1), number, &[number as u8; 60_000]).unwrap();
    }
    eventually("checkpoints are made", || store.metric("checkpoints_total") > 2);
    store.reopen(&options(memory))
}

#[test]
fn the_scrubber_reads_the_bucket_and_waits_for_storage_that_is_away() {
    let memory = Arc::<Memory>::default();
    let store = filled(&memory);
    let stored: u64 = memory
        .objects
        .lock()
        .unwrap()
        .iter()
        .map(|(name, bytes)| match name.ends_with(".chunk") {
            true => bytes.len() as u64,
            false => 0,
        })
        .sum();
    assert!(stored > 4 << 20);
    memory.is_down.store(true, Ordering::Relaxed);
    store.engine.scrub(Duration::from_millis(1));
    // Without their sizes nothing is begun; no pass, and nothing is found.
    std::thread::sleep(TICK * 10);
    assert_eq!((store.metric("scrub_passes_total"), store.engine.doubts()), (0, 0));
    memory.is_down.store(false, Ordering::Relaxed);
    eventually("everything is read", || store.metric("scrub_passes_total") >= 1);
    assert!(store.metric("scrub_read_bytes_total") > stored * 9 / 10, "{}", store.metric("scrub_read_bytes_total"));
    eventually("storage goes away while a chunk is read", || {
        memory.is_down.store(true, Ordering::Relaxed);
        std::thread::sleep(TICK);
        memory.is_down.store(false, Ordering::Relaxed);
        store.metric("scrub_storage_waits_total") > 0
    });
    assert_eq!((store.metric("scrub_findings_total"), store.engine.doubts()), (0, 0));
    let victim = memory.names(".chunk").pop().unwrap();
    flip(&mut memory.objects.lock().unwrap(), &victim);
    eventually("rot in the bucket is found", || store.metric("scrub_findings_total") > 0);
}

#[test]
fn reads_of_a_rotten_object_are_refused_and_the_rest_of_the_store_is_served() {
    const READ_BYTES: usize = 10_000;
    let memory = Arc::<Memory>::default();
    let store = filled(&memory);
    let victim = memory.names(".chunk")[0].clone();
    flip(&mut memory.objects.lock().unwrap(), &victim);
    let store = store.reopen(&options(&memory));
    let (mut offset, mut refused) = (0, 0);
    while offset < 200 * 60_000 {
        match store.call(Request::Read { segment: name(S), offset, bytes_max: READ_BYTES }) {
            Ok(Response::Read(read)) => {
                let data = read.data.concat();
                assert!(!data.is_empty() && data.len() <= READ_BYTES);
                for (at, byte) in (offset..).zip(&data) {
                    assert_eq!(*byte, (at / 60_000 + 1) as u8, "at {at}");
                }
                offset += data.len() as u64;
            }
            Err(refusal) => {
                assert_eq!(refusal, Refusal::Damaged, "at {offset}");
                refused += 1;
                offset += READ_BYTES as u64;
            }
            Ok(other) => panic!("{other:?} answers a read"),
        }
    }
    // One block of 64 KiB is under the checksum that fails, and a read begins before it.
    assert!((1..=8).contains(&refused), "{refused} reads were refused");
    assert_eq!(store.metric("crc_failures_total"), refused);
    store.append(S, Some(200), 201, b"goes on").unwrap();
    assert_eq!(store.read(S, 200 * 60_000).unwrap().0, b"goes on");
}

/// Copies an image: chunks into a bucket if there is one, everything else into a directory, the identity as `store.next`.
fn copy(image: &Image, to: &Path, bucket: Option<&BucketRestore>) {
    for file in image.files("") {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < file.length {
            bytes.extend(image.read(&file.name, bytes.len() as u64, 300_000).unwrap().unwrap());
        }
        match bucket.filter(|_| file.name.starts_with("chunks-")) {
            Some(bucket) => bucket.put(&file.name, Bytes::from(bytes).into()).unwrap(),
            None => {
                let path = to.join(if file.name == "store" { "store.next" } else { &file.name });
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
    for container in 0..2 {
        std::fs::create_dir_all(to.join(format!("chunks-{container:04}"))).unwrap();
    }
}

#[test]
fn an_image_of_a_store_in_a_bucket_holds_its_objects_and_is_a_store_on_a_disk() {
    let memory = Arc::<Memory>::default();
    let store = filled(&memory);
    let image = store.engine.image().unwrap();
    let held: Vec<_> = image.files("").map(|file| file.name).filter(|name| name.ends_with(".chunk")).collect();
    assert!(!held.is_empty());
    store.call(Request::Truncate { segment: name(S), offset: 200 * 60_000 }).unwrap();
    let checkpoints = store.metric("checkpoints_total");
    for number in 201..=400 {
        store.append(S, Some(number - 1), number, &[number as u8; 60_000]).unwrap();
    }
    eventually("checkpoints give chunks up", || {
        store.metric("checkpoints_total") > checkpoints + 2 && store.metric("chunk_storage_copies_due") == 0
    });
    assert!(held.iter().all(|name| !memory.names(name).is_empty()), "an object went while an image needed it");
    let copied = directory();
    copy(&image, copied.path(), None);
    std::fs::rename(copied.path().join("store.next"), copied.path().join("store")).unwrap();
    drop(image);
    eventually("what waited is deleted", || held.iter().any(|name| memory.names(name).is_empty()));
    let mut findings = Findings::default();
    assert!(check::directory(copied.path(), &mut findings).unwrap().is_sound(), "{:?}", findings.0);
    let io = io(&copied);
    let restored = Fixture::open(copied, io, &small()).unwrap();
    let expected: Vec<u8> = (1..=200_u8).flat_map(|number| [number; 60_000]).collect();
    assert!(restored.read_all(S) == expected);
    restored.append(S, Some(200), 201, b"goes on").unwrap();
}

#[test]
fn an_image_becomes_a_store_with_another_bucket_that_goes_on() {
    let memory = Arc::<Memory>::default();
    let store = filled(&memory);
    let image = store.engine.image().unwrap();
    let (to, other) = (directory(), Arc::<Memory>::default());
    let restore = BucketRestore::begin(&io(&to), &place(&other)).unwrap();
    copy(&image, to.path(), Some(&restore));
    // Not before it is finished.
    let refused = open(&directory(), options(&other)).err().unwrap().to_string();
    assert!(refused.contains("did not come to its end"), "{refused}");
    restore.finish(&io(&to)).unwrap();
    std::fs::rename(to.path().join("store.next"), to.path().join("store")).unwrap();
    assert!(sound(to.path(), &other).chunks > 0);
    let again = BucketRestore::begin(&io(&to), &place(&other)).unwrap_err().to_string();
    assert!(again.contains("not empty"), "{again}");
    drop(image);

    let before = other.names(".chunk");
    let restored = Fixture::open(to.clone(), io(&to), &options(&other)).unwrap();
    let expected: Vec<u8> = (1..=200_u8).flat_map(|number| [number; 60_000]).collect();
    assert!(restored.read_all(S) == expected);
    for number in 201..=300 {
        restored.append(S, Some(number - 1), number, &[number as u8; 60_000]).unwrap();
    }
    eventually("chunks are added", || other.names(".chunk").len() > before.len());
    let restored = restored.reopen(&options(&other));
    assert_eq!(restored.read_all(S).len(), 300 * 60_000);
    restored.engine.close();
    sound(to.path(), &other);
    // The copies that came with the restore are enough to begin from when the disk is lost.
    let recovering = Options { bucket: Some(BucketOptions { recover: true, ..place(&other) }), ..small() };
    let mut stepper = open(&directory(), recovering).unwrap();
    assert!(stepper.recovered().iter().all(|one| one.copied_millis.is_some()));
    assert!(!read(&mut stepper, S).is_empty());
}

#[test]
fn a_store_is_not_begun_among_the_objects_of_a_backup() {
    let (memory, _) = stored();
    let parts = Arc::<Memory>::default();
    let chunk = memory.names(".chunk").pop().unwrap();
    let bytes = memory.objects.lock().unwrap()[&chunk].clone();
    parts.objects.lock().unwrap().insert("chunks-0000/0000000000000001.chunk".into(), bytes);
    let refused = open(&directory(), options(&parts)).err().unwrap().to_string();
    assert!(refused.contains("is no store"), "{refused}");
    assert_eq!(parts.names("").len(), 1, "nothing was touched");
}
