//! The formats and rules against what the published Java client wrote and made of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_records::group::{Initial, State, Update};
use headwater_records::revisioned::{Events, Payload};
use headwater_records::{Checkpoint, Cut, EventPointer, Input, Position, READ, StreamCut};
use headwater_types::{KeyRange, SegmentId, SegmentName, StreamSegment};

const GROUPS: [(&str, &[u8], &[u8]); 5] = [
    ("scaling", include_bytes!("../java/scaling.rg"), include_bytes!("../java/scaling.states")),
    ("checkpoint", include_bytes!("../java/checkpoint.rg"), include_bytes!("../java/checkpoint.states")),
    ("rebalance", include_bytes!("../java/rebalance.rg"), include_bytes!("../java/rebalance.states")),
    (
        "tooManyCheckpoints",
        include_bytes!("../java/tooManyCheckpoints.rg"),
        include_bytes!("../java/tooManyCheckpoints.states"),
    ),
    ("offline", include_bytes!("../java/offline.rg"), include_bytes!("../java/offline.states")),
];

fn events(bytes: &[u8]) -> Vec<Bytes> {
    let mut events = Events::new(0, 1 << 20);
    events.feed(bytes);
    let payloads = std::iter::from_fn(|| events.next_event().unwrap().map(|(_, payload)| payload)).collect();
    assert_eq!(events.offset(), bytes.len() as u64);
    payloads
}

/// Written anew, the same comes out, but for the order of maps.
#[track_caller]
fn check_written(payload: &Bytes) {
    let again = match Payload::decode(payload).unwrap() {
        Payload::Initial(initial) => {
            let initial = Initial::decode(&initial).unwrap();
            let bytes = initial.encode().unwrap();
            assert_eq!(Initial::decode(&bytes), Ok(initial));
            Payload::Initial(bytes)
        }
        Payload::Updates(updates) => {
            let again = updates.iter().map(|update| {
                let update = Update::decode(update).unwrap();
                let bytes = update.encode().unwrap();
                assert_eq!(Update::decode(&bytes), Ok(update));
                bytes
            });
            Payload::Updates(again.collect())
        }
    };
    let again = again.encode().unwrap();
    let sorted = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes.sort_unstable();
        bytes
    };
    // Java writes all of its buffer behind a whole state.
    let (record, rest) = payload.split_at(again.len());
    assert!(rest.iter().all(|byte| *byte == 0));
    assert_eq!(sorted(&again), sorted(record));
}

#[test]
fn every_state_of_a_java_group_is_the_one_that_java_comes_to() {
    let mut kinds: BTreeMap<u8, usize> = BTreeMap::new();
    for (name, group, states) in GROUPS {
        let (mut state, mut states) = (None::<State>, Input::new(states));
        for payload in events(group) {
            check_written(&payload);
            match Payload::decode(&payload).unwrap() {
                Payload::Initial(initial) => state = Some(Initial::decode(&initial).unwrap().into()),
                Payload::Updates(updates) => {
                    for update in updates {
                        *kinds.entry(update[1]).or_default() += 1;
                        state.as_mut().unwrap().apply(&Update::decode(&update).unwrap()).unwrap();
                    }
                }
            }
            let expected = Initial::decode(states.counted().unwrap().rest()).unwrap();
            let found = Initial::Compacted(Box::new(state.as_ref().unwrap().compacted()));
            assert_eq!(found, expected, "{name}");
        }
        assert!(states.is_empty());
    }
    // All but a compacted state as a change, and 11, which is among the objects.
    assert_eq!(kinds.into_keys().collect::<Vec<_>>(), [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13]);
}

#[test]
fn compacted_states_are_written_as_java_writes_them() {
    for (_, _, states) in GROUPS {
        let mut states = Input::new(states);
        while !states.is_empty() {
            let record = Bytes::copy_from_slice(states.counted().unwrap().rest());
            check_written(&Payload::Initial(record).encode().unwrap());
        }
    }
}

#[test]
fn objects_that_applications_keep_are_those_of_java() {
    let lines: BTreeMap<&str, &str> =
        include_str!("../java/objects.txt").lines().map(|line| line.split_once(' ').unwrap()).collect();
    let bytes = |name: &str| -> Vec<u8> {
        let hex = lines[name].as_bytes().chunks(2);
        hex.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    };
    let segment = |name: &str| -> StreamSegment { SegmentName::parse(name).unwrap().stream_segment().unwrap() };
    let (first, second) = (segment("scope/stream/0.#epoch.0"), segment("scope/stream/1.#epoch.1"));

    let offsets = [(SegmentId::new(0, 0), 123_456_789_012), (SegmentId::new(1, 1), READ)].into();
    let cut = Cut::At(StreamCut { stream: first.stream.clone(), offsets });
    assert_eq!(Cut::decode(&bytes("cut")), Ok(cut.clone()));
    assert_eq!(cut.encode().unwrap().len(), bytes("cut").len());
    assert_eq!(Cut::from_text(lines["text"]), Ok(cut));

    let position = Position {
        offsets: [(first.clone(), 28), (second.clone(), READ)].into(),
        ranges: [(first.clone(), KeyRange::new(0.25, 0.5).ok()), (second.clone(), None)].into(),
    };
    assert_eq!(Position::decode(&bytes("position")), Ok(position.clone()));
    assert_eq!(position.encode().unwrap().len(), bytes("position").len());

    let pointer = EventPointer { segment: first.clone(), offset: 1 << 40, length: 70_000 };
    assert_eq!(pointer.encode().unwrap(), bytes("pointer"));
    assert_eq!(EventPointer::decode(&bytes("pointer")), Ok(pointer));

    let checkpoint = Checkpoint::new("näme", &[(first, 5), (second, 6)].into());
    assert_eq!(Checkpoint::decode(&bytes("checkpoint")), Ok(checkpoint.clone()));
    assert_eq!(checkpoint.encode().unwrap().len(), bytes("checkpoint").len());

    for (name, published) in [("published-true", true), ("published-false", false)] {
        assert_eq!(Update::Published(published).encode().unwrap(), bytes(name));
        assert_eq!(Update::decode(&bytes(name)), Ok(Update::Published(published)));
    }
}

#[test]
fn no_damage_to_a_group_makes_reading_panic() {
    for (_, group, _) in GROUPS {
        for at in (0..group.len()).step_by(7) {
            let mut bad = group.to_vec();
            bad[at] ^= 0xff;
            let mut events = Events::new(0, 1 << 20);
            events.feed(&bad);
            let mut state = None::<State>;
            while let Ok(Some((_, payload))) = events.next_event() {
                match Payload::decode(&payload) {
                    Ok(Payload::Initial(initial)) => state = Initial::decode(&initial).ok().map(State::from),
                    Ok(Payload::Updates(updates)) => {
                        for update in updates.iter().filter_map(|update| Update::decode(update).ok()) {
                            let _ = state.as_mut().map(|state| state.apply(&update));
                        }
                    }
                    Err(_) => {}
                }
            }
        }
    }
}
