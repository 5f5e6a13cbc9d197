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
        for container in 0..store.engine.containers() * u32::from(flushed) {
            let (sender, receiver) = channel();
            store.engine.flush(container, Box::new(Answer(sender)));
            store.wait(&receiver).unwrap().unwrap();
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
