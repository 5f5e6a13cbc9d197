//! Chunks of which little is needed any more.

use headwater_engine::Stepper;

use super::*;

fn open(directory: &tempfile::TempDir) -> Stepper {
    Stepper::open(io(directory), small()).unwrap()
}

fn carry_out(stepper: &mut Stepper, request: Request) -> Outcome {
    let asked = stepper.submit(request).unwrap();
    stepper.run_all().unwrap();
    stepper.take_replies().into_iter().find(|(ticket, _)| *ticket == asked).expect("it is answered").1
}

fn checkpoint(stepper: &mut Stepper) {
    stepper.checkpoint(0).unwrap();
    stepper.run_all().unwrap();
    stepper.reap().unwrap();
}

fn read(stepper: &mut Stepper, segment: &str, offset: u64) -> Vec<u8> {
    match carry_out(stepper, Request::Read { segment: name(segment), offset, bytes_max: 1 << 20 }) {
        Ok(Response::Read(read)) => read.data.concat(),
        other => panic!("{other:?}"),
    }
}

/// Names and lengths of the first container's chunks.
fn chunks(directory: &tempfile::TempDir) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(directory.path().join("chunks-0000")).unwrap().map(|entry| entry.unwrap());
    let mut found: Vec<_> =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())).collect();
    found.sort();
    found
}

/// Segments of the first container, each with so many bytes of its own number, all in one chunk.
fn packed(stepper: &mut Stepper, count: usize, bytes: usize) -> Vec<String> {
    let names = (0..).map(|number| format!("scope/stream{number}/0.#epoch.0"));
    let segments: Vec<_> = names.filter(|segment| name(segment).container(2) == 0).take(count).collect();
    for (number, segment) in segments.iter().enumerate() {
        let create = Request::Create {
            segment: name(segment),
            kind: SegmentKind::Stream,
            policy: SegmentPolicy::default(),
            on_reserve: false,
        };
        carry_out(stepper, create).unwrap();
        carry_out(stepper, Request::Append(append(segment, None, 1, &vec![number as u8; bytes]))).unwrap();
    }
    checkpoint(stepper);
    segments
}

#[test]
fn a_mostly_dead_chunk_gives_its_room_back_and_its_live_bytes_stay() {
    let directory = tempfile::tempdir().unwrap();
    let mut stepper = open(&directory);
    let segments = packed(&mut stepper, 8, 60_000);
    let first = chunks(&directory);
    assert_eq!(first.len(), 1);
    for segment in &segments[..6] {
        carry_out(&mut stepper, Request::Delete { segment: name(segment) }).unwrap();
    }
    // Part of a piece is given up; its chunk keeps all of it.
    carry_out(&mut stepper, Request::Truncate { segment: name(&segments[7]), offset: 10_000 }).unwrap();
    checkpoint(&mut stepper);
    // The next checkpoint does not name the old chunk, and then it goes.
    carry_out(&mut stepper, Request::Append(append(&segments[6], Some(1), 2, b"more"))).unwrap();
    checkpoint(&mut stepper);
    let after = chunks(&directory);
    assert!(after.iter().all(|(name, _)| *name != first[0].0), "{after:?}");
    assert!(after.iter().map(|(_, length)| length).sum::<u64>() < 130_000, "{after:?}");
    for _ in 0..2 {
        assert_eq!(read(&mut stepper, &segments[6], 0)[..60_000], vec![6; 60_000]);
        assert_eq!(read(&mut stepper, &segments[7], 10_000), vec![7; 50_000]);
        // Everything fits together for one who looks from outside, and after a restart.
        drop(stepper);
        stepper = open(&directory);
    }
}

#[test]
fn what_is_given_up_while_its_chunk_is_compacted_is_given_up_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let mut stepper = open(&directory);
    let segments = packed(&mut stepper, 6, 100_000);
    for segment in &segments[..4] {
        carry_out(&mut stepper, Request::Delete { segment: name(segment) }).unwrap();
    }
    stepper.checkpoint(0).unwrap();
    // Frozen, and not written yet.
    stepper.submit(Request::Delete { segment: name(&segments[4]) }).unwrap();
    stepper.run_all().unwrap();
    for number in 2..5 {
        carry_out(&mut stepper, Request::Append(append(&segments[5], Some(number - 1), number, b"x"))).unwrap();
        checkpoint(&mut stepper);
    }
    let bytes: u64 = chunks(&directory).iter().map(|(_, length)| length).sum();
    assert!(bytes < 110_000, "{:?}", chunks(&directory));
    drop(stepper);
    let mut stepper = open(&directory);
    assert_eq!(read(&mut stepper, &segments[5], 0)[..100_000], vec![5; 100_000]);
    let gone = carry_out(&mut stepper, Request::Info { segment: name(&segments[4]) });
    assert_eq!(gone.unwrap_err(), Refusal::NoSuchSegment);
}
