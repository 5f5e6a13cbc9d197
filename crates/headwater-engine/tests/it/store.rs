//! The store as a whole: restarts, bounded disk, bounded memory, files of others.

use super::*;

const S: &str = "scope/stream/0.#epoch.0";

fn disk_bytes(directory: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    // The store is open: what was listed may be gone by now.
    let bytes = |entry: &std::fs::DirEntry| entry.metadata().map_or(0, |metadata| metadata.len());
    entries.map(|entry| if entry.path().is_dir() { disk_bytes(&entry.path()) } else { bytes(&entry) }).sum()
}

fn pattern(from: u64, length: usize) -> Vec<u8> {
    (from..from + length as u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

#[test]
fn everything_survives_a_restart_through_journal_and_chunks() {
    let mut store = Fixture::with(&small());
    store.create(S, SegmentKind::Stream);
    let mut length = 0;
    for round in 0..3 {
        for number in 1..=40 {
            let last = round * 40 + number - 1;
            let data = pattern(length, 100_000);
            store.append(S, (last > 0).then_some(last), last + 1, &data).unwrap();
            length += data.len() as u64;
        }
        store = store.reopen(&small());
        assert_eq!(store.info(S).unwrap().length, length);
        assert!(store.read_all(S) == pattern(0, length as usize), "round {round}");
    }
}

#[test]
fn disk_use_stays_bounded_while_a_stream_is_written_and_truncated() {
    let store = Fixture::with(&small());
    store.create(S, SegmentKind::Stream);
    let data = pattern(0, 200_000);
    // Three times over: what is bounded does not grow with what was written.
    for round in 1..=3 {
        for number in (round - 1) * 200 + 1..=round * 200 {
            store.append(S, (number > 1).then_some(number - 1), number, &data).unwrap();
            if number % 20 == 0 {
                let offset = (number as u64) * 200_000 - 400_000;
                store.call(Request::Truncate { segment: name(S), offset }).unwrap();
            }
        }
        // What was given up goes beside the writes, as fast as the machine lets it. Journal files that are kept ready are
        // not of this stream: there are as many as the slowest checkpoint needed.
        let left = || {
            let places = ["chunks-0000", "chunks-0001"];
            let chunks: u64 = places.iter().map(|place| disk_bytes(&store.directory.path().join(place))).sum();
            (chunks, journal_files_in_use(&store))
        };
        let what = format!("40 MB more written in round {round}, 0.4 MB kept, few of them on the disk");
        eventually(&what, || matches!(left(), (chunks, files) if chunks < 8 << 20 && files < 20));
    }
}

fn journal_files_in_use(store: &Fixture) -> usize {
    let names = std::fs::read_dir(store.directory.path().join("journal")).unwrap();
    names.filter(|name| name.as_ref().unwrap().path().extension().is_some_and(|kind| kind == "log")).count()
}

#[test]
fn a_journal_pinned_by_an_idle_container_is_freed() {
    let store = Fixture::with(&small());
    let containers: Vec<_> = (0..64).map(|number| format!("scope/stream/{number}.#epoch.0")).collect();
    let busy = containers.iter().find(|segment| name(segment).container(2) == 0).unwrap();
    let idle = containers.iter().find(|segment| name(segment).container(2) == 1).unwrap();
    store.create(idle, SegmentKind::Stream);
    store.append(idle, None, 1, b"one small record").unwrap();
    store.create(busy, SegmentKind::Stream);
    let data = pattern(0, 200_000);
    for number in 1..=300 {
        store.append(busy, (number > 1).then_some(number - 1), number, &data).unwrap();
    }
    // What the last checkpoint freed is recycled beside the writes, so on a busy machine a little later. Files in use only:
    // as many as a slow checkpoint once needed are kept ready for a while, however few are in use by then.
    eventually("60 files of 1 MiB written, fewer than 20 in use", || journal_files_in_use(&store) < 20);
    let store = store.reopen(&small());
    assert_eq!(store.read_all(idle), b"one small record");
}

#[test]
fn a_store_of_a_newer_release_is_refused_and_not_touched() {
    let store = Fixture::new();
    store.create(S, SegmentKind::Stream);
    store.engine.close();
    let path = store.directory.path().join("store");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[11] = 9;
    std::fs::write(&path, &bytes).unwrap();
    let before = disk_bytes(store.directory.path());
    let error = Engine::open(io(&store.directory), &Options::default(), Arc::new(|_| {})).unwrap_err();
    assert_eq!(error.to_string(), "store has format 9, this release reads up to 1");
    assert_eq!(disk_bytes(store.directory.path()), before);
}

#[test]
fn a_rotten_journal_stops_the_store_and_names_the_file() {
    let store = Fixture::new();
    store.create(S, SegmentKind::Stream);
    for number in 1..=10 {
        store.append(S, (number > 1).then_some(number - 1), number, b"precious").unwrap();
    }
    store.engine.close();
    let path = store.directory.path().join("journal/0000000000000001.log");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[3 * 4096 + 70] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = Engine::open(io(&store.directory), &Options::default(), Arc::new(|_| {})).unwrap_err().to_string();
    assert!(error.starts_with("journal/0000000000000001.log at byte 12288: journal ends with frame 2"), "{error}");
}

#[test]
fn a_missing_journal_file_or_manifest_or_chunk_is_damage() {
    for victim in ["journal/0000000000000001.log", "catalogue-0000/manifest"] {
        let store = Fixture::new();
        store.create(S, SegmentKind::Stream);
        store.append(S, None, 1, b"precious").unwrap();
        store.engine.close();
        std::fs::remove_file(store.directory.path().join(victim)).unwrap();
        let error = Engine::open(io(&store.directory), &Options::default(), Arc::new(|_| {})).unwrap_err();
        assert!(matches!(error, headwater_engine::StoreError::Damaged { .. }), "{victim}: {error}");
    }
}

#[test]
fn two_processes_do_not_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let held = headwater_engine::io::lock_directory(directory.path()).unwrap();
    let refused = headwater_engine::io::lock_directory(directory.path()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock);
    drop(held);
    headwater_engine::io::lock_directory(directory.path()).unwrap();
}

#[test]
fn appends_of_many_threads_are_all_kept_in_order_per_writer() {
    let store = Fixture::with(&small());
    store.create(S, SegmentKind::Stream);
    std::thread::scope(|scope| {
        for writer in 0..4_u128 {
            let store = &store;
            scope.spawn(move || {
                for number in 1..=500_i64 {
                    let data = [&writer.to_be_bytes()[..], &number.to_be_bytes()[..]].concat();
                    let previous = (number > 1).then_some(number - 1);
                    let append = Append { writer: WriterId(writer), ..append(S, previous, number, &data) };
                    store.call(Request::Append(append)).unwrap();
                }
            });
        }
    });
    let all = store.read_all(S);
    assert_eq!(all.len(), 4 * 500 * 24);
    for writer in 0..4_u128 {
        let events = all.chunks(24).filter(|event| event[..16] == writer.to_be_bytes());
        let numbers: Vec<_> = events.map(|event| i64::from_be_bytes(event[16..].try_into().unwrap())).collect();
        assert_eq!(numbers, (1..=500).collect::<Vec<_>>());
    }
}

#[test]
fn a_flush_leaves_nothing_to_be_stored_and_is_answered_when_the_store_closes() {
    let store = Fixture::with(&small());
    let flush = |container| {
        let (sender, receiver) = channel();
        store.engine.flush(container, Box::new(Answer(sender)));
        receiver
    };
    store.create("a/b/0", SegmentKind::Stream);
    store.append("a/b/0", None, 1, &pattern(0, 50_000)).unwrap();
    for container in 0..store.engine.containers() {
        let receiver = flush(container);
        assert!(matches!(store.wait(&receiver), Ok(Ok(Response::Done))));
    }
    eventually("nothing is left to be stored", || store.metric("unstored_bytes") == 0);
    let Ok(Response::Chunks(chunks)) = store.call(Request::ListChunks { segment: name("a/b/0") }) else {
        panic!("a list of chunks answers the question for it")
    };
    assert_eq!(chunks.iter().map(|chunk| chunk.length).sum::<u64>(), 50_000);
    assert!(store.directory.path().join(&chunks[0].name).exists());
    // Nothing new, nothing to wait for.
    assert!(matches!(store.wait(&flush(0)), Ok(Ok(Response::Done))));
    store.engine.close();
    assert!(matches!(flush(0).recv().unwrap(), Err(Refusal::Closing)));
}
