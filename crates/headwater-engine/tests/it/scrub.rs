//! The scrubber: finds what rotted under an open store, and nothing else.

use std::path::PathBuf;

use super::*;

const S: &str = "scope/stream/0.#epoch.0";

fn filled() -> Fixture {
    let store = Fixture::with(&small());
    store.create(S, SegmentKind::Stream);
    for number in 1..=200 {
        store.append(S, (number > 1).then_some(number - 1), number, &[number as u8; 60_000]).unwrap();
    }
    eventually("checkpoints are made", || store.metric("checkpoints_total") > 2);
    store.reopen(&small())
}

/// The chunk or run of the stream's container that is read last and not given up here.
fn newest(store: &Fixture, extension: &str) -> PathBuf {
    let place = if extension == "run" { "catalogue" } else { "chunks" };
    let place = store.directory.path().join(format!("{place}-{:04}", name(S).container(2)));
    let files = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|it| it == extension)).max().unwrap()
}

#[test]
fn a_sound_store_is_read_while_it_is_written_and_nothing_is_found() {
    let store = filled();
    store.engine.scrub(Duration::from_millis(1));
    let mut number = 200;
    eventually("everything is read twice", || {
        number += 1;
        store.append(S, Some(number - 1), number, &[7; 60_000]).unwrap();
        if number % 20 == 0 {
            let offset = (number as u64 - 10) * 60_000;
            store.call(Request::Truncate { segment: name(S), offset }).unwrap();
        }
        store.metric("scrub_passes_total") >= 2
    });
    assert!(store.metric("scrub_read_bytes_total") > 6 << 20);
    assert_eq!((store.metric("scrub_findings_total"), store.engine.doubts()), (0, 0));
}

#[test]
fn rot_in_chunks_runs_and_journal_files_is_found_and_the_store_goes_on() {
    for extension in ["chunk", "run", "log"] {
        let store = filled();
        // What the store remembers of the stream is in memory from here on.
        store.append(S, Some(200), 201, b"before").unwrap();
        // Nothing is given up, so that what rots is still there when it is read.
        let _image = store.engine.image().unwrap();
        let last = if extension == "log" { 260 } else { 201 };
        for number in 202..=last {
            store.append(S, Some(number - 1), number, &[number as u8; 60_000]).unwrap();
        }
        let victim = match extension {
            // Not the newest: that one is being written.
            "log" => {
                let files = std::fs::read_dir(store.directory.path().join("journal")).unwrap();
                let files = files.map(|entry| entry.unwrap().path());
                files.filter(|path| path.extension().is_some_and(|it| it == "log")).min().unwrap()
            }
            extension => newest(&store, extension),
        };
        let mut bytes = std::fs::read(&victim).unwrap();
        let at = if extension == "log" { 4096 + 80 } else { bytes.len() / 2 };
        bytes[at] ^= 1;
        std::fs::write(&victim, bytes).unwrap();
        assert_eq!(store.engine.doubts(), 0, "{extension}");
        store.engine.scrub(Duration::from_millis(1));
        eventually(&format!("the rot in a {extension} is found"), || store.metric("scrub_findings_total") > 0);
        assert!(store.engine.doubts() > 0 && victim.exists(), "{extension}");
        store.append(S, Some(last), last + 1, b"goes on").unwrap();
    }
}
