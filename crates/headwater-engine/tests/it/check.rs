//! The offline check: sound stores are called sound, whatever is changed in one is found and named.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use headwater_engine::check::{
    CheckError, Finding, Progress, Severity, Summary, TLS, TOKEN_KEY, Watch, directory as check_directory,
};
use headwater_engine::{Stepper, Ticket};

use super::*;

pub(crate) const S: &str = "scope/stream/0.#epoch.0";
const T: &str = "_tables/names";

/// Keeps what was found.
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

/// What the check finds, or why it cannot look.
pub(crate) fn judged(root: &Path) -> Result<(Summary, Vec<Finding>), CheckError> {
    let mut findings = Findings::default();
    check_directory(root, &mut findings).map(|summary| (summary, findings.0))
}

/// Nothing is doubtful.
#[track_caller]
pub(crate) fn sound(root: &Path) {
    let (summary, findings) = check(root);
    assert!(summary.is_sound(), "{}: {:?}", root.display(), doubts(&findings));
}

fn check(root: &Path) -> (Summary, Vec<Finding>) {
    let (summary, findings) = judged(root).unwrap();
    let doubts = findings.iter().filter(|finding| finding.severity == Severity::Doubt).count();
    assert_eq!(summary.doubts, doubts as u64);
    (summary, findings)
}

fn doubts(findings: &[Finding]) -> Vec<String> {
    findings
        .iter()
        .filter(|one| one.severity == Severity::Doubt)
        .map(|one| format!("{}: {}", one.file, one.what))
        .collect()
}

/// Every plain file below a directory.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// A closed store with something of every kind: chunks, runs, a table, what is only in the journal.
fn fill(store: &Fixture) {
    store.create(S, SegmentKind::Stream);
    store.create(T, SegmentKind::Table { key_length: 0 });
    for key in 0..200 {
        let change = TableChange {
            key: format!("key-{key}").into_bytes().into(),
            value: Some(Bytes::from(vec![key as u8; 900])),
            expect: Expect::Any,
        };
        store.call(Request::TableUpdate { segment: name(T), changes: vec![change], at: None }).unwrap();
    }
    for number in 1..=150 {
        store.append(S, (number > 1).then_some(number - 1), number, &vec![number as u8; 60_000]).unwrap();
    }
    // Of both containers: the journal has become so long that the table's is asked for one, too.
    eventually("checkpoints are made", || store.metric("checkpoints_total") > 2);
    store.create("scope/late/1.#epoch.0", SegmentKind::Stream);
    store.append("scope/late/1.#epoch.0", None, 1, b"in the journal").unwrap();
    store.call(Request::Seal { segment: name("scope/late/1.#epoch.0") }).unwrap();
}

pub(crate) fn filled() -> Arc<tempfile::TempDir> {
    let store = Fixture::with(&small());
    fill(&store);
    store.engine.close();
    std::fs::set_permissions(store.directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    store.directory.clone()
}

#[test]
fn a_closed_store_is_sound_and_untouched() {
    let directory = filled();
    let contents = || files(directory.path()).into_iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>();
    // A server's own certificate and its key, and the key that it signs tokens with.
    let (tls, token_key) = (directory.path().join(TLS), directory.path().join(TOKEN_KEY));
    std::fs::create_dir(&tls).unwrap();
    std::fs::set_permissions(tls, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(&token_key, "secret").unwrap();
    std::fs::set_permissions(token_key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let before = (files(directory.path()), contents());
    let (summary, findings) = check(directory.path());
    assert!(summary.is_sound() && findings.is_empty(), "{summary:?} {findings:?}");
    assert!(summary.is_closed && summary.segments == 2 && summary.chunks > 0 && summary.records > 0, "{summary:?}");
    assert!((files(directory.path()), contents()) == before, "the check left a trace");
}

#[test]
fn a_store_in_use_is_not_judged_and_one_that_is_judged_does_not_start() {
    let directory = filled();
    let held = headwater_engine::io::lock_directory(directory.path()).unwrap();
    let refused = check_directory(directory.path(), &mut Findings::default());
    assert!(matches!(refused, Err(CheckError::Locked { .. })), "{refused:?}");
    drop(held);
    let judging = headwater_engine::io::lock_for_reading(directory.path()).unwrap();
    check(directory.path());
    let refused = headwater_engine::io::lock_directory(directory.path()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock);
    drop(judging);
    headwater_engine::io::lock_directory(directory.path()).unwrap();
}

#[test]
fn what_is_no_store_is_not_judged() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("thesis.txt"), b"years of work").unwrap();
    let refused = check_directory(directory.path(), &mut Findings::default());
    assert!(matches!(refused, Err(CheckError::NotAStore { .. })), "{refused:?}");
    let refused = check_directory(&directory.path().join("nothing"), &mut Findings::default());
    assert!(matches!(refused, Err(CheckError::Directory { .. })), "{refused:?}");
}

#[test]
fn what_a_killed_process_leaves_is_noted_and_no_doubt() {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let mut stepper = Stepper::open(io(&directory), small()).unwrap();
    let mut run = |request: Request| {
        let ticket: Ticket = stepper.submit(request).unwrap();
        stepper.run_all().unwrap();
        ticket
    };
    run(Request::Create {
        segment: name(S),
        kind: SegmentKind::Stream,
        policy: SegmentPolicy::default(),
        on_reserve: false,
    });
    for number in 1..=5 {
        run(Request::Append(append(S, (number > 1).then_some(number - 1), number, &[1; 6000])));
    }
    drop(stepper);
    let journal = directory.path().join("journal/0000000000000001.log");
    let mut bytes = std::fs::read(&journal).unwrap();
    // The power went in the middle of the last frame.
    let last = bytes.iter().rposition(|byte| *byte == 1).unwrap();
    bytes[last] = 0;
    std::fs::write(&journal, bytes).unwrap();
    std::fs::write(directory.path().join("chunks-0000/0000000000000099.chunk"), b"half").unwrap();
    std::fs::write(directory.path().join("catalogue-0001/0000000000000099.run"), b"half").unwrap();
    let (summary, findings) = check(directory.path());
    assert!(summary.is_sound() && !summary.is_closed, "{findings:?}");
    assert_eq!(summary.torn_bytes, 8192);
    let mut codes: Vec<_> = findings.iter().map(|finding| finding.code).filter(|code| *code != "permissions").collect();
    codes.sort_unstable();
    assert_eq!(codes, ["torn-tail", "unreferenced", "unreferenced"]);
}

#[test]
fn every_flipped_bit_of_small_files_is_found() {
    let directory = filled();
    for file in ["store", "catalogue-0000/manifest", "catalogue-0001/manifest"] {
        let path = directory.path().join(file);
        let sound = std::fs::read(&path).unwrap();
        for bit in 0..sound.len() * 8 {
            let mut rotten = sound.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, rotten).unwrap();
            let mut findings = Findings::default();
            match check_directory(directory.path(), &mut findings) {
                Ok(summary) => {
                    assert!(!summary.is_sound(), "{file}, bit {bit}");
                    assert!(findings.0.iter().any(|one| one.file == file), "{file}, bit {bit}: {:?}", findings.0);
                }
                Err(CheckError::Store { source: StoreError::Newer { path, .. }, .. }) => assert_eq!(path, file),
                Err(error) => panic!("{file}, bit {bit}: {error}"),
            }
        }
        std::fs::write(&path, sound).unwrap();
    }
    assert!(check(directory.path()).0.is_sound());
}

#[test]
fn a_flipped_bit_anywhere_in_large_files_is_found_and_named() {
    let directory = filled();
    let mut chance = 0x9E37_79B9_7F4A_7C15_u64;
    let mut below = |limit: usize| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (chance >> 33) as usize % limit
    };
    for path in files(directory.path()) {
        let name = path.strip_prefix(directory.path()).unwrap().to_str().unwrap().to_owned();
        let sound = std::fs::read(&path).unwrap();
        let live = match name.rsplit('.').next().unwrap() {
            "run" | "chunk" => sound.len(),
            "log" => end_of_frames(&sound),
            _ => continue,
        };
        for _ in 0..25 {
            let bit = below(live * 8);
            let mut rotten = sound.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, rotten).unwrap();
            let mut findings = Findings::default();
            match check_directory(directory.path(), &mut findings) {
                Ok(summary) => {
                    assert!(!summary.is_sound(), "{name}, bit {bit}");
                    assert!(
                        findings.0.iter().any(|one| one.file == name),
                        "{name}, bit {bit}: {:?}",
                        doubts(&findings.0)
                    );
                }
                Err(CheckError::Store { source: StoreError::Newer { path, .. }, .. }) => assert_eq!(path, name),
                Err(error) => panic!("{name}, bit {bit}: {error}"),
            }
        }
        std::fs::write(&path, sound).unwrap();
    }
    assert!(check(directory.path()).0.is_sound());
}

/// Where the last frame of a journal file ends. A recycled file has older frames behind it, of another file's number.
fn end_of_frames(file: &[u8]) -> usize {
    let number = &file[28..36];
    let mut heads =
        file.chunks(4096).enumerate().filter(|(_, block)| block[..4] == *b"HWFR" && block[5..13] == *number);
    let (at, head) = heads.next_back().unwrap();
    at * 4096 + 64 + u32::from_be_bytes(head[49..53].try_into().unwrap()) as usize
}

#[test]
fn a_rotten_chunk_names_the_segment_and_its_bytes() {
    let directory = filled();
    let chunks = directory.path().join(format!("chunks-{:04}", name(S).container(2)));
    let chunk = &files(&chunks)[0];
    let mut bytes = std::fs::read(chunk).unwrap();
    bytes[100] ^= 1;
    std::fs::write(chunk, bytes).unwrap();
    let (_, findings) = check(directory.path());
    let finding = findings.iter().find(|finding| finding.code == "damaged").unwrap();
    assert_eq!((finding.segment.as_deref(), finding.offset), (Some(S), Some(64)));
    assert!(finding.what.contains("expected") && finding.what.contains("bytes 0 to 6"), "{}", finding.what);
}

#[test]
fn whatever_is_missing_cut_or_swapped_is_found() {
    let directory = filled();
    // The oldest of several journal files may be one that the checkpoints have made superfluous.
    let oldest = files(&directory.path().join("journal")).into_iter().next().unwrap();
    for path in files(directory.path()) {
        let name = path.strip_prefix(directory.path()).unwrap().to_str().unwrap().to_owned();
        if path == oldest || name == "lock" || name.contains("spare-") {
            continue;
        }
        let sound = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (summary, findings) = check(directory.path());
        // Whether a store ever testified cannot be told while its journal is young.
        if name == "journal/witness" && summary.journal_files < 2 {
            std::fs::write(&path, sound).unwrap();
            continue;
        }
        assert!(!summary.is_sound(), "{name} is missing: {findings:?}");
        std::fs::write(&path, &sound[..sound.len() / 2]).unwrap();
        let (summary, findings) = check(directory.path());
        assert!(!summary.is_sound() || name == "journal/witness", "{name} is cut: {findings:?}");
        std::fs::write(&path, sound).unwrap();
    }
    assert!(check(directory.path()).0.is_sound());
    // An older checkpoint in the place of a newer one is whole in itself.
    let chunks: Vec<_> =
        files(directory.path()).into_iter().filter(|path| path.extension().is_some_and(|it| it == "chunk")).collect();
    assert!(chunks.len() > 1, "{chunks:?}");
    let (first, second) = (std::fs::read(&chunks[0]).unwrap(), std::fs::read(&chunks[1]).unwrap());
    std::fs::write(&chunks[0], second).unwrap();
    std::fs::write(&chunks[1], first).unwrap();
    assert_eq!(check(directory.path()).0.doubts.min(2), 2);
}

#[test]
fn files_of_others_are_pointed_out() {
    let directory = filled();
    std::fs::write(directory.path().join("thesis.txt"), b"years of work").unwrap();
    let (summary, findings) = check(directory.path());
    assert!(summary.is_sound(), "what lies beside the store is no doubt about it");
    assert!(findings.iter().any(|finding| finding.file == "thesis.txt" && finding.severity == Severity::Note));
    std::fs::write(directory.path().join("journal/thesis.txt"), b"years of work").unwrap();
    assert_eq!(
        doubts(&check(directory.path()).1),
        ["journal/thesis.txt: no store makes a file of this name; move it away"]
    );
}

#[test]
fn a_manifest_of_another_time_is_found() {
    let store = Fixture::with(&small());
    fill(&store);
    let container = name(S).container(2);
    let manifest = store.directory.path().join(format!("catalogue-{container:04}/manifest"));
    let old = std::fs::read(&manifest).unwrap();
    for number in 151..=300 {
        store.append(S, Some(number - 1), number, &vec![number as u8; 60_000]).unwrap();
    }
    store.engine.close();
    assert!(check(store.directory.path()).0.is_sound());
    assert!(old != std::fs::read(&manifest).unwrap());
    std::fs::write(&manifest, old).unwrap();
    assert!(!check(store.directory.path()).0.is_sound());
}
