//! Segments: append, read, seal, truncate, delete, merge, attributes.

use headwater_types::{AttributeId, attribute};

use super::*;

const S: &str = "scope/stream/0.#epoch.0";

fn transaction(number: u128) -> String {
    format!("{S}#transaction.{number:032x}")
}

#[test]
fn what_was_appended_is_read_back_and_the_end_waits() {
    let store = Fixture::new();
    store.create(S, SegmentKind::Stream);
    assert!(matches!(store.append(S, None, 1, b"hello"), Ok(Response::Appended { length: 5 })));
    assert!(matches!(store.append(S, Some(1), 3, b" world"), Ok(Response::Appended { length: 11 })));
    assert_eq!(store.read(S, 0).unwrap(), (b"hello world".to_vec(), true, false));
    assert_eq!(store.read(S, 6).unwrap().0, b"world");

    let (sender, receiver) = tokio::sync::oneshot::channel();
    store.engine.submit(Request::Read { segment: name(S), offset: 11, bytes_max: 100 }, Box::new(sender));
    store.append(S, Some(3), 4, b"!").unwrap();
    match receiver.blocking_recv().unwrap() {
        Ok(Response::Read(read)) => assert_eq!((read.data.concat(), read.at_tail), (b"!".to_vec(), true)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_writer_whose_number_does_not_follow_is_refused() {
    let store = Fixture::new();
    store.create(S, SegmentKind::Stream);
    store.append(S, None, 5, b"a").unwrap();
    assert_eq!(store.append(S, None, 6, b"b").unwrap_err(), Refusal::WriterConflict { stored: Some(5) });
    assert_eq!(store.append(S, Some(4), 6, b"b").unwrap_err(), Refusal::WriterConflict { stored: Some(5) });
    match store.call(Request::OpenWriter { segment: name(S), writer: WRITER }) {
        Ok(Response::LastEvent(last)) => assert_eq!(last, Some(5)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_conditional_append_has_one_winner_and_a_stale_writer_is_told_first() {
    let store = Fixture::new();
    store.create(S, SegmentKind::Stream);
    let conditional = |previous, expected| Append { expected_length: Some(expected), ..append(S, previous, 9, b"xy") };
    store.call(Request::Append(conditional(None, 0))).unwrap();
    let lost = store.call(Request::Append(conditional(Some(9), 0)));
    assert_eq!(lost.unwrap_err(), Refusal::LengthMismatch { length: 2 });
    let stale = store.call(Request::Append(conditional(None, 0)));
    assert_eq!(stale.unwrap_err(), Refusal::WriterConflict { stored: Some(9) });
    store.call(Request::Seal { segment: name(S) }).unwrap();
    assert_eq!(store.call(Request::Append(conditional(None, 0))).unwrap_err(), Refusal::Sealed);
}

#[test]
fn a_sealed_segment_ends_for_readers_that_wait_and_for_those_that_come() {
    let store = Fixture::new();
    store.create(S, SegmentKind::Stream);
    store.append(S, None, 1, b"abc").unwrap();
    let waits = |offset| {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        store.engine.submit(Request::Read { segment: name(S), offset, bytes_max: 100 }, Box::new(sender));
        receiver
    };
    let (at_end, behind) = (waits(3), waits(4));
    assert!(matches!(store.call(Request::Seal { segment: name(S) }), Ok(Response::Sealed { length: 3 })));
    assert!(matches!(
        at_end.blocking_recv().unwrap(),
        Ok(Response::Read(ReadResult { end_of_segment: true, at_tail: false, .. }))
    ));
    assert!(matches!(behind.blocking_recv().unwrap(), Err(Refusal::Sealed)), "it was no mistake to wait there");
    assert_eq!(store.read(S, 0).unwrap(), (b"abc".to_vec(), false, true));
    assert_eq!(store.read(S, 3).unwrap(), (Vec::new(), false, true));
    assert_eq!(store.read(S, 4).unwrap_err(), Refusal::BehindEnd { length: 3 });
    assert_eq!(store.call(Request::Seal { segment: name(S) }).unwrap_err(), Refusal::Sealed);
    match store.call(Request::OpenWriter { segment: name(S), writer: WRITER }) {
        Ok(Response::LastEvent(last)) => assert_eq!(last, Some(1)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn truncation_moves_the_start_and_nothing_before_it_comes_back() {
    let store = Fixture::new();
    store.create(S, SegmentKind::Stream);
    store.append(S, None, 1, b"0123456789").unwrap();
    let truncate = |offset| store.call(Request::Truncate { segment: name(S), offset });
    truncate(4).unwrap();
    truncate(4).unwrap();
    assert_eq!(truncate(3).unwrap_err(), Refusal::Truncated { start: 4 });
    assert_eq!(truncate(11).unwrap_err(), Refusal::Truncated { start: 4 });
    assert_eq!(store.read(S, 3).unwrap_err(), Refusal::Truncated { start: 4 });
    assert_eq!(store.read(S, 4).unwrap().0, b"456789");
    let store = store.reopen(&Options::default());
    assert_eq!(store.read(S, 4).unwrap().0, b"456789");
    assert_eq!(store.info(S).unwrap().start, 4);
}

#[test]
fn a_deleted_name_never_shows_old_bytes() {
    let store = Fixture::new();
    store.create(S, SegmentKind::Stream);
    store.append(S, None, 1, b"old").unwrap();
    store.call(Request::Delete { segment: name(S) }).unwrap();
    assert_eq!(store.info(S).unwrap_err(), Refusal::NoSuchSegment);
    assert_eq!(store.append(S, Some(1), 2, b"x").unwrap_err(), Refusal::NoSuchSegment);
    store.create(S, SegmentKind::Stream);
    assert_eq!(store.info(S).unwrap().length, 0);
    store.append(S, None, 1, b"new").unwrap();
    let store = store.reopen(&Options::default());
    assert_eq!(store.read(S, 0).unwrap().0, b"new");
}

#[test]
fn merging_moves_all_bytes_counts_the_events_and_removes_the_source() {
    let store = Fixture::new();
    let (first, second, gone) = (transaction(1), transaction(2), transaction(3));
    store.create(S, SegmentKind::Stream);
    store.append(S, None, 1, b"base ").unwrap();
    for (segment, data) in [(&first, b"one "), (&second, b"two ")] {
        store.create(segment, SegmentKind::Stream);
        store.append(segment, None, 1, data).unwrap();
    }
    // A rolling commit names the target by another epoch than the transaction's parent has.
    let sources = vec![name(&first), name(&gone), name(&second)];
    match store.call(Request::MergeBatch { target: name(S), sources: sources.clone() }) {
        Ok(Response::MergedBatch(lengths)) => assert_eq!(lengths, [9, 9, 13]),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.read(S, 0).unwrap().0, b"base one two ");
    assert_eq!(store.info(S).unwrap().event_count, 3);
    assert_eq!(store.info(&first).unwrap_err(), Refusal::NoSuchSegment);
    match store.call(Request::MergeBatch { target: name(S), sources }) {
        Ok(Response::MergedBatch(lengths)) => assert_eq!(lengths, [13, 13, 13]),
        other => panic!("{other:?}"),
    }
    let store = store.reopen(&Options::default());
    assert_eq!(store.read(S, 0).unwrap().0, b"base one two ");
}

#[test]
fn a_batch_of_merges_that_is_refused_has_merged_nothing() {
    let store = Fixture::new();
    let (sound, truncated) = (transaction(1), transaction(2));
    store.create(S, SegmentKind::Stream);
    for segment in [&sound, &truncated] {
        store.create(segment, SegmentKind::Stream);
        store.append(segment, None, 1, b"data").unwrap();
    }
    store.call(Request::Truncate { segment: name(&truncated), offset: 2 }).unwrap();
    let sources = vec![name(&sound), name(&truncated)];
    let refused = store.call(Request::MergeBatch { target: name(S), sources });
    assert_eq!(refused.unwrap_err(), Refusal::SourceTruncated);
    assert_eq!((store.info(S).unwrap().length, store.info(&sound).unwrap().length), (0, 4));
}

#[test]
fn a_batch_of_merges_that_all_happened_may_be_asked_for_again_after_the_seal() {
    let store = Fixture::new();
    let (source, other) = (transaction(1), transaction(2));
    store.create(S, SegmentKind::Stream);
    store.create(&source, SegmentKind::Stream);
    store.append(&source, None, 1, b"data").unwrap();
    let merge = |source: &str| store.call(Request::MergeBatch { target: name(S), sources: vec![name(source)] });
    assert!(matches!(merge(&source), Ok(Response::MergedBatch(lengths)) if lengths == [4]));
    store.call(Request::Seal { segment: name(S) }).unwrap();
    assert!(matches!(merge(&source), Ok(Response::MergedBatch(lengths)) if lengths == [4]));
    // A table is never merged, and nothing that waits to be.
    let table = transaction(3);
    store.create(&table, SegmentKind::Table { key_length: 0 });
    assert!(matches!(merge(&table), Ok(Response::MergedBatch(lengths)) if lengths == [4]));
    store.create(&other, SegmentKind::Stream);
    assert_eq!(merge(&other).unwrap_err(), Refusal::Sealed);
}

#[test]
fn a_merge_and_its_attribute_updates_happen_together_or_not_at_all() {
    let store = Fixture::new();
    let source = transaction(1);
    store.create(S, SegmentKind::Stream);
    store.create(&source, SegmentKind::Stream);
    store.append(&source, None, 1, b"x").unwrap();
    let merge = |expected| {
        let kind = UpdateKind::IfEquals(expected);
        let updates = vec![AttributeUpdate { id: AttributeId(1), kind, value: 8 }];
        store.call(Request::Merge { target: name(S), source: name(&source), updates })
    };
    assert_eq!(merge(3).unwrap_err(), Refusal::AttributeMismatch);
    assert_eq!(store.info(S).unwrap().length, 0);
    assert!(matches!(merge(attribute::NULL), Ok(Response::Merged { length: 1 })));
    assert_eq!(merge(8).unwrap_err(), Refusal::NoSuchSegment);
}

#[test]
fn attributes_follow_their_five_rules() {
    let store = Fixture::new();
    store.create(S, SegmentKind::Stream);
    let id = AttributeId(42);
    let update = |kind, value| {
        let updates = vec![AttributeUpdate { id, kind, value }];
        store.call(Request::UpdateAttributes { segment: name(S), updates })
    };
    let value = || match store.call(Request::Attribute { segment: name(S), id }) {
        Ok(Response::Attribute(value)) => value,
        other => panic!("{other:?}"),
    };
    assert_eq!(value(), attribute::NULL);
    update(UpdateKind::IfAbsent, 1).unwrap();
    assert_eq!(update(UpdateKind::IfAbsent, 2).unwrap_err(), Refusal::AttributeMismatch);
    update(UpdateKind::Replace, 5).unwrap();
    assert_eq!(update(UpdateKind::IfGreater, 5).unwrap_err(), Refusal::AttributeMismatch);
    update(UpdateKind::IfGreater, 6).unwrap();
    update(UpdateKind::Accumulate, -2).unwrap();
    assert_eq!(update(UpdateKind::IfEquals(5), 9).unwrap_err(), Refusal::AttributeMismatch);
    assert_eq!(value(), 4);
    update(UpdateKind::IfEquals(4), attribute::NULL).unwrap();
    assert_eq!(value(), attribute::NULL);
    assert!(matches!(update(UpdateKind::Accumulate, 3), Ok(Response::Done)));
    assert_eq!(value(), 3);
}

#[test]
fn transient_segments_do_not_survive_a_restart() {
    let store = Fixture::new();
    store.create(S, SegmentKind::Stream);
    let transient = store.engine.transient_name(&name(S), WRITER);
    store.create(transient.as_str(), SegmentKind::Transient);
    store.append(transient.as_str(), None, 0, b"half an upload").unwrap();
    let store = store.reopen(&Options::default());
    assert_eq!(store.info(transient.as_str()).unwrap_err(), Refusal::NoSuchSegment);
    assert!(store.info(S).is_ok());
}

#[test]
fn a_transient_segment_has_sixteen_attributes_and_not_one_more() {
    let store = Fixture::with(&small());
    store.create(S, SegmentKind::Stream);
    let transient = store.engine.transient_name(&name(S), WRITER);
    store.create(transient.as_str(), SegmentKind::Transient);
    let replace = |segment: &SegmentName, ids: std::ops::Range<u128>, value| {
        let update = |id| AttributeUpdate { id: AttributeId(id), kind: UpdateKind::Replace, value };
        store.call(Request::UpdateAttributes { segment: segment.clone(), updates: ids.map(update).collect() })
    };
    let append_as = |writer| {
        let append = Append { writer: WriterId(writer), ..append(transient.as_str(), None, 0, b"piece") };
        store.call(Request::Append(append))
    };
    append_as(1).unwrap();
    replace(&transient, 100..114, 5).unwrap();
    append_as(2).unwrap();
    // Changing one is always possible, one more never is, whichever way it comes and wherever the others are kept.
    for flushed in [false, true] {
        if flushed {
            store.flush();
        }
        assert!(matches!(append_as(3).unwrap_err(), Refusal::Invalid(what) if what.contains("16 attributes")));
        assert!(matches!(replace(&transient, 113..115, 6).unwrap_err(), Refusal::Invalid(_)));
        replace(&transient, 100..114, 7).unwrap();
    }
    replace(&transient, 100..101, attribute::NULL).unwrap();
    append_as(3).unwrap();
    assert!(matches!(append_as(4).unwrap_err(), Refusal::Invalid(_)));
    // Other segments have as many as they like.
    replace(&name(S), 100..140, 5).unwrap();
    store.call(Request::Merge { target: name(S), source: transient.clone(), updates: Vec::new() }).unwrap();
    assert_eq!(store.info(S).unwrap().length, 15);
}

#[test]
fn an_upload_into_a_sealed_parent_is_told_at_its_first_piece() {
    let store = Fixture::new();
    store.create(S, SegmentKind::Stream);
    let transient = store.engine.transient_name(&name(S), WRITER);
    store.create(transient.as_str(), SegmentKind::Transient);
    store.call(Request::Seal { segment: name(S) }).unwrap();
    assert_eq!(store.append(transient.as_str(), None, 0, b"piece").unwrap_err(), Refusal::Sealed);
}

#[test]
fn a_located_offset_is_where_an_append_ended() {
    let store = Fixture::new();
    store.create(S, SegmentKind::Stream);
    let event = vec![1; 60_000];
    for number in 1..=10 {
        store.append(S, (number > 1).then_some(number - 1), number, &event).unwrap();
    }
    let locate = |offset| match store.call(Request::Locate { segment: name(S), offset }) {
        Ok(Response::Located(located)) => located,
        other => panic!("{other:?}"),
    };
    for offset in (0..=600_000).step_by(7_777) {
        let located = locate(offset);
        assert!(located >= offset && located % 60_000 == 0, "{offset} is located at {located}");
    }
    assert_eq!(locate(1), 120_000);
    assert_eq!(locate(600_000), 600_000);
}

#[test]
fn a_read_that_waits_behind_the_end_is_answered_once_the_segment_has_grown_past_it() {
    let store = Fixture::new();
    store.create(S, SegmentKind::Stream);
    store.append(S, None, 1, b"abc").unwrap();
    let waiting = store.submit(Request::Read { segment: name(S), offset: 6, bytes_max: 100 });
    // Up to the offset is not past it: there is nothing to read there yet.
    store.append(S, Some(1), 2, b"def").unwrap();
    store.append(S, Some(2), 3, b"ghi").unwrap();
    match store.wait(&waiting).unwrap() {
        Ok(Response::Read(read)) => assert_eq!((read.data.concat(), read.at_tail), (b"ghi".to_vec(), true)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_read_that_nobody_waits_for_any_more_is_dropped_unanswered() {
    struct Gone(#[expect(dead_code, reason = "it is counted")] Arc<()>);
    impl Reply for Gone {
        fn send(self: Box<Self>, outcome: Outcome) {
            panic!("answered: {outcome:?}");
        }
        fn is_abandoned(&self) -> bool {
            true
        }
    }
    let store = Fixture::new();
    store.create(S, SegmentKind::Stream);
    let held = Arc::new(());
    let read = Request::Read { segment: name(S), offset: 0, bytes_max: 100 };
    store.engine.submit(read, Box::new(Gone(held.clone())));
    eventually("the read is dropped", || Arc::strong_count(&held) == 1);
    // Nobody is woken that is not there.
    store.append(S, None, 1, b"abc").unwrap();
}

#[test]
fn a_read_has_eight_bytes_at_least_and_says_the_end_only_if_there_was_room_for_more() {
    let store = Fixture::with(&small());
    store.create(S, SegmentKind::Stream);
    store.append(S, None, 1, b"0123456789").unwrap();
    let check = |store: &Fixture, sealed: bool| {
        let read = |offset, bytes_max| match store.call(Request::Read { segment: name(S), offset, bytes_max }) {
            Ok(Response::Read(read)) => (read.data.concat(), read.at_tail, read.end_of_segment),
            other => panic!("{other:?}"),
        };
        assert_eq!(read(0, 11), (b"0123456789".to_vec(), !sealed, sealed));
        assert_eq!(read(0, 10), (b"0123456789".to_vec(), false, false), "what follows is for the next read to say");
        assert_eq!(read(0, 9), (b"012345678".to_vec(), false, false));
        assert_eq!(read(0, 0), (b"01234567".to_vec(), false, false), "as many as the header of an event has");
        if sealed {
            assert_eq!(read(10, 0), (Vec::new(), false, true));
        }
    };
    let flushed = |store: Fixture| {
        store.flush();
        store.reopen(&small())
    };
    check(&store, false);
    let store = flushed(store);
    check(&store, false);
    store.call(Request::Seal { segment: name(S) }).unwrap();
    check(&store, true);
    check(&flushed(store), true);
}

#[test]
fn a_sealed_segment_is_cut_and_keeps_its_attributes_as_they_are() {
    let store = Fixture::new();
    store.create(S, SegmentKind::Stream);
    store.append(S, None, 1, b"0123456789").unwrap();
    store.call(Request::Seal { segment: name(S) }).unwrap();
    store.call(Request::Truncate { segment: name(S), offset: 4 }).unwrap();
    assert_eq!(store.read(S, 4).unwrap(), (b"456789".to_vec(), false, true));
    for kind in [UpdateKind::Replace, UpdateKind::IfEquals(7)] {
        let updates = vec![AttributeUpdate { id: AttributeId(1), kind, value: 8 }];
        let refused = store.call(Request::UpdateAttributes { segment: name(S), updates });
        assert_eq!(refused.unwrap_err(), Refusal::Sealed, "whether the condition holds or not");
    }
    let policy = SegmentPolicy { scale_type: 1, rate: 2, rollover_bytes: 3 };
    assert_eq!(store.call(Request::SetPolicy { segment: name(S), policy }).unwrap_err(), Refusal::Sealed);
    store.call(Request::Truncate { segment: name(S), offset: 10 }).unwrap();
    assert_eq!(store.read(S, 10).unwrap(), (Vec::new(), false, true));
}

#[test]
fn a_merge_brings_every_event_and_no_numbers_of_writers_and_an_upload_is_one_event() {
    let store = Fixture::new();
    let (full, empty) = (transaction(1), transaction(2));
    store.create(S, SegmentKind::Stream);
    for segment in [&full, &empty] {
        store.create(segment, SegmentKind::Stream);
    }
    let three = Append { event_count: 3, ..append(&full, None, 3, b"three") };
    store.call(Request::Append(three)).unwrap();
    // One that was sealed before is merged like one that is open.
    store.call(Request::Seal { segment: name(&full) }).unwrap();
    let upload = store.engine.transient_name(&name(S), WRITER);
    store.create(upload.as_str(), SegmentKind::Transient);
    for number in 0..4 {
        store.append(upload.as_str(), (number > 0).then_some(number - 1), number, b"piece").unwrap();
    }
    let merge =
        |source: &str, updates| match store.call(Request::Merge { target: name(S), source: name(source), updates }) {
            Ok(Response::Merged { length }) => length,
            other => panic!("{source}: {other:?}"),
        };
    assert_eq!(merge(&full, Vec::new()), 5);
    assert_eq!(store.info(S).unwrap().event_count, 3);
    let waiting = store.submit(Request::Read { segment: upload.clone(), offset: 20, bytes_max: 100 });
    assert_eq!(merge(upload.as_str(), Vec::new()), 25);
    assert_eq!(store.wait(&waiting).unwrap().unwrap_err(), Refusal::NoSuchSegment, "its segment is gone");
    assert_eq!(store.info(S).unwrap().event_count, 4);
    // Of an empty one nothing is left but what the merge says about attributes.
    let updates = vec![AttributeUpdate { id: AttributeId(1), kind: UpdateKind::IfAbsent, value: 8 }];
    assert_eq!(merge(&empty, updates), 25);
    assert_eq!(store.info(&empty).unwrap_err(), Refusal::NoSuchSegment);
    match store.call(Request::Attribute { segment: name(S), id: AttributeId(1) }) {
        Ok(Response::Attribute(value)) => assert_eq!(value, 8),
        other => panic!("{other:?}"),
    }
    match store.call(Request::OpenWriter { segment: name(S), writer: WRITER }) {
        Ok(Response::LastEvent(last)) => assert_eq!(last, None, "the writer has written to other segments"),
        other => panic!("{other:?}"),
    }
    let itself = Request::Merge { target: name(S), source: name(S), updates: Vec::new() };
    assert!(matches!(store.call(itself), Err(Refusal::Invalid(_))));
}

#[test]
fn attributes_are_set_together_and_outlive_memory() {
    let store = Fixture::with(&small());
    store.create(S, SegmentKind::Stream);
    let update = |id, kind, value| AttributeUpdate { id: AttributeId(id), kind, value };
    let set = |store: &Fixture, updates| store.call(Request::UpdateAttributes { segment: name(S), updates });
    let value = |store: &Fixture, id| match store.call(Request::Attribute { segment: name(S), id: AttributeId(id) }) {
        Ok(Response::Attribute(value)) => value,
        other => panic!("{other:?}"),
    };
    let half = vec![update(1, UpdateKind::Replace, 5), update(2, UpdateKind::IfEquals(9), 5)];
    assert_eq!(set(&store, half).unwrap_err(), Refusal::AttributeMismatch);
    assert_eq!(value(&store, 1), attribute::NULL, "all or none");
    // The second sees what the first makes.
    let both = vec![update(1, UpdateKind::Replace, 5), update(1, UpdateKind::Accumulate, 2)];
    set(&store, both).unwrap();
    let overflow = vec![update(1, UpdateKind::Accumulate, i64::MAX)];
    assert!(matches!(set(&store, overflow), Err(Refusal::Invalid(_))));
    let too_many = (0..=ATTRIBUTE_UPDATES_MAX as u128).map(|id| update(id, UpdateKind::Replace, 1)).collect();
    assert!(matches!(set(&store, too_many), Err(Refusal::Invalid(_))));
    store.flush();
    let store = store.reopen(&small());
    assert_eq!((value(&store, 1), value(&store, 2)), (7, attribute::NULL));
}

#[test]
fn what_a_segment_is_reads_as_attributes_that_nobody_sets() {
    let store = Fixture::new();
    let table = |key_length| SegmentKind::Table { key_length };
    let upload = store.engine.transient_name(&name(S), WRITER);
    let (hashed, fixed) = ("scope/a_kvtable/0.#epoch.0", "scope/b_kvtable/0.#epoch.0");
    const NONE: i64 = attribute::NULL;
    // What it holds, the length of its keys, how many there are.
    let segments = [
        (S, SegmentKind::Stream, (0, NONE, NONE)),
        (upload.as_str(), SegmentKind::Transient, (128, NONE, NONE)),
        (hashed, table(0), (1, NONE, 2)),
        (fixed, table(2), (5, 2, 2)),
    ];
    for (segment, kind, expected) in segments {
        store.create(segment, kind);
        if expected.0 & 1 == 1 {
            let put =
                |key| TableChange { key: Bytes::from_static(key), value: Some(Bytes::new()), expect: Expect::Any };
            let changes = vec![put(b"k1"), put(b"k2")];
            store.call(Request::TableUpdate { segment: name(segment), changes, at: None }).unwrap();
        }
        let core = |low: u128| AttributeId(0x8000_0000_0000_0000 << 64 | low);
        let value = |low| match store.call(Request::Attribute { segment: name(segment), id: core(low) }) {
            Ok(Response::Attribute(value)) => value,
            other => panic!("{other:?}"),
        };
        assert!(value(0) > 1_600_000_000_000, "{segment} was made at {}", value(0));
        assert_eq!((value(9), value(12), value(0x10_0001)), expected, "{segment}");
        for other in [5, 6, 7, 8, 10, 11, 15, 16, 0x10_0000, 0x10_0002, 0x10_0003, 0x10_0004, 0x10_0005, 0x10_0006] {
            assert_eq!(value(other), NONE, "{segment}, {other:x}");
        }
        for low in [0, 9, 12, 16, 0x10_0001, u128::from(u64::MAX)] {
            let updates = vec![AttributeUpdate { id: core(low), kind: UpdateKind::Replace, value: 1 }];
            let refused = store.call(Request::UpdateAttributes { segment: name(segment), updates });
            assert!(matches!(refused, Err(Refusal::Invalid(_))), "{segment}, {low:x}");
            let writer = WriterId(core(low).0);
            let refused = store.call(Request::OpenWriter { segment: name(segment), writer });
            assert!(matches!(refused, Err(Refusal::Invalid(_))), "{segment}, {low:x}");
        }
    }
}
