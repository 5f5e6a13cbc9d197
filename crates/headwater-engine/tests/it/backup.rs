//! Images: consistent while the store goes on, and whole when copied.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use headwater_engine::check::{Finding, Progress, Watch, directory as check_directory};
use headwater_engine::{Image, ImageError};

use super::*;

const S: &str = "scope/stream/0.#epoch.0";

struct Nothing(Vec<String>);

impl Watch for Nothing {
    fn finding(&mut self, finding: Finding) {
        self.0.push(format!("{}: {}", finding.file, finding.what));
    }

    fn progress(&mut self, _: Progress<'_>) -> bool {
        true
    }
}

/// Copies an image in small pieces, so that much happens meanwhile.
fn copy(image: &Image, to: &Path) {
    let mut after = String::new();
    loop {
        let page: Vec<_> = image.files(&after).take(3).collect();
        let Some(last) = page.last() else { break };
        after = last.name.clone();
        for file in page {
            let path = to.join(&file.name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut bytes = Vec::new();
            loop {
                let piece = image.read(&file.name, bytes.len() as u64, 200_000).unwrap().unwrap();
                if piece.is_empty() {
                    break;
                }
                bytes.extend(piece);
            }
            assert_eq!(bytes.len() as u64, file.length, "{}", file.name);
            std::fs::write(path, bytes).unwrap();
        }
    }
}

fn sound(directory: &Path) {
    let mut findings = Nothing(Vec::new());
    let summary = check_directory(directory, &mut findings).unwrap();
    assert!(summary.is_sound(), "{:?}", findings.0);
}

/// Event `number`: 30,000 bytes that say so.
fn event(number: i64) -> Vec<u8> {
    number.to_be_bytes().repeat(3_750)
}

#[test]
fn an_image_taken_under_load_has_all_that_was_acknowledged_before_and_nothing_torn() {
    let store = Fixture::with(&small());
    store.create(S, SegmentKind::Stream);
    let (acknowledged, is_over) = (AtomicI64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                store.append(S, (number > 0).then_some(number), number + 1, &event(number + 1)).unwrap();
                number += 1;
                acknowledged.store(number, Ordering::Relaxed);
                if number % 50 == 0 {
                    // So that runs, chunks and journal files are given up all the time.
                    let offset = (number as u64 - 40) * 30_000;
                    store.call(Request::Truncate { segment: name(S), offset }).unwrap();
                }
            }
        });
        for _ in 0..3 {
            let before = acknowledged.load(Ordering::Relaxed) + 100;
            eventually("events are written", || acknowledged.load(Ordering::Relaxed) >= before);
            let before = acknowledged.load(Ordering::Relaxed);
            let image = store.engine.image().unwrap();
            let copied = Arc::new(tempfile::tempdir().unwrap());
            // More than the journal is long is written while it is copied.
            let during = acknowledged.load(Ordering::Relaxed) + 300;
            eventually("events are written", || acknowledged.load(Ordering::Relaxed) >= during);
            copy(&image, copied.path());
            drop(image);
            sound(copied.path());
            let io = io(&copied);
            let restored = Fixture::open(copied, io, &small()).unwrap();
            let info = restored.info(S).unwrap();
            assert!(info.length >= before as u64 * 30_000, "{} bytes, {before} events were acknowledged", info.length);
            assert_eq!(info.length % 30_000, 0, "a torn event");
            let bytes = restored.read_all(S);
            for (at, found) in (info.start / 30_000..).zip(bytes.chunks(30_000)) {
                assert!(found == event(at as i64 + 1), "event {}", at + 1);
            }
            restored.append(S, Some((info.length / 30_000) as i64), 1 << 40, b"goes on").unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn an_image_pins_what_it_names_and_dropping_it_frees_the_disk() {
    let store = Fixture::with(&small());
    store.create(S, SegmentKind::Stream);
    let mut number = 0;
    let mut write = |events: i64| {
        for _ in 0..events {
            number += 1;
            store.append(S, (number > 1).then_some(number - 1), number, &event(number)).unwrap();
        }
        number as u64
    };
    write(200);
    let image = store.engine.image().unwrap();
    assert!(matches!(store.engine.image(), Err(ImageError::UnderWay)));
    // The image brings a witness of its own.
    let names = image.files("").map(|file| file.name).filter(|name| name != "journal/witness");
    let names: Vec<_> = names.collect();
    let is_there = |name: &String| store.directory.path().join(name).exists();
    for _ in 0..5 {
        let end = write(100) * 30_000;
        store.call(Request::Truncate { segment: name(S), offset: end }).unwrap();
    }
    let checkpoints = store.metric("checkpoints_total");
    write(200);
    eventually("a checkpoint gives chunks up", || store.metric("checkpoints_total") > checkpoints);
    let gone: Vec<_> = names.iter().filter(|name| !is_there(name)).collect();
    assert!(gone.is_empty(), "{gone:?}");
    let held = store.metric("wal_files_bytes");
    assert!(held > 20 << 20, "{held} bytes of journal for 27 MB");
    drop(image);
    eventually("chunks are removed", || names.iter().any(|name| name.ends_with(".chunk") && !is_there(name)));
    eventually("journal files are given up", || store.metric("wal_files_bytes") < 12 << 20);
    drop(store.engine.image().unwrap());
}

#[test]
fn what_a_dead_process_had_pinned_is_removed_at_the_next_start() {
    let store = Fixture::with(&small());
    store.create(S, SegmentKind::Stream);
    for number in 1..=300 {
        store.append(S, (number > 1).then_some(number - 1), number, &event(number)).unwrap();
    }
    let image = store.engine.image().unwrap();
    let chunks: Vec<_> = image.files("").map(|file| file.name).filter(|name| name.ends_with(".chunk")).collect();
    assert!(!chunks.is_empty());
    store.call(Request::Truncate { segment: name(S), offset: 300 * 30_000 }).unwrap();
    for number in 301..=500 {
        store.append(S, Some(number - 1), number, &event(number)).unwrap();
    }
    eventually("checkpoints are made", || store.metric("checkpoints_total") > 2);
    std::mem::forget(image);
    let store = store.reopen(&small());
    let is_there = |name: &String| store.directory.path().join(name).exists();
    eventually("what was pinned is removed", || !chunks.iter().any(is_there));
    store.engine.close();
    sound(store.directory.path());
}
