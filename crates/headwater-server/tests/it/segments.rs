//! Reads, seals, truncations, deletions, merges and attributes.

use headwater_types::AttributeId;
use headwater_wire::{AttributeUpdate, ErrorCode, MergedSource, Reply, Request, TableKey, Text, Token};

use crate::client::{Client, SEGMENT, Store, entry, read};

const TRANSACTION: &str = "scope/stream/0.#epoch.0#transaction.00000000000000010000000000000002";
const ANOTHER: &str = "scope/stream/0.#epoch.0#transaction.00000000000000010000000000000003";

async fn write(client: &mut Client, segment: &str, data: &[u8]) {
    let writer = u128::from(data[0]);
    client.set_up(writer, segment).await;
    assert!(matches!(client.append(writer, 1, data).await, Reply::DataAppended { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_at_the_tail_waits_and_each_of_several_gets_its_answer() {
    let store = Store::open().await;
    let (mut reader, mut writer) = (store.client().await, store.client().await);
    writer.create(SEGMENT).await;
    // The Java client uses one id for all its reads.
    for _ in 0..3 {
        reader.tell(read(SEGMENT, 0, 100, 77)).await;
    }
    // Answers that overtake them show that the reads wait and hold nobody up.
    assert_eq!(reader.length(SEGMENT).await, 0);
    write(&mut writer, SEGMENT, b"hello").await;
    for _ in 0..3 {
        match reader.reply().await {
            Reply::SegmentRead { segment, offset: 0, at_tail, end_of_segment: false, data, request_id: 77 } => {
                assert_eq!((&*segment, &data[..], at_tail), (SEGMENT, &b"hello"[..], true));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_read_ends_with_its_segment() {
    let store = Store::open().await;
    let (mut reader, mut other) = (store.client().await, store.client().await);
    for (segment, offset) in [("a/b/0.#epoch.0", 0), ("a/b/1.#epoch.0", 0), ("a/b/2.#epoch.0", 50)] {
        other.create(segment).await;
        reader.tell(read(segment, offset, 100, 1)).await;
        assert_eq!(reader.length(segment).await, 0);
    }
    other.seal("a/b/0.#epoch.0").await;
    match reader.reply().await {
        Reply::SegmentRead { offset: 0, end_of_segment: true, data, .. } => assert!(data.is_empty()),
        Reply::SegmentIsSealed { offset: 0, .. } => {}
        unexpected => panic!("{unexpected:?}"),
    }
    let request_id = other.id();
    other.ask(Request::DeleteSegment { request_id, segment: "a/b/1.#epoch.0".into(), token: Token::default() }).await;
    match reader.reply().await {
        Reply::NoSuchSegment { offset: 0, .. } => {}
        unexpected => panic!("{unexpected:?}"),
    }
    other.seal("a/b/2.#epoch.0").await;
    match reader.reply().await {
        Reply::SegmentIsSealed { segment, offset: 50, request_id: 1, .. } => assert_eq!(&*segment, "a/b/2.#epoch.0"),
        unexpected => panic!("{unexpected:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_reads_may_wait_on_one_connection() {
    let store = Store::open().await;
    let (mut reader, mut writer) = (store.client().await, store.client().await);
    writer.create(SEGMENT).await;
    for id in 0..10_000 {
        reader.end.request(&read(SEGMENT, 0, 100, id), &mut reader.out).unwrap();
    }
    reader.send().await;
    assert_eq!(reader.length(SEGMENT).await, 0);
    write(&mut writer, SEGMENT, b"hello").await;
    for _ in 0..10_000 {
        assert!(matches!(reader.reply().await, Reply::SegmentRead { .. }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_outside_of_a_segment_say_why() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    write(&mut client, SEGMENT, b"0123456789").await;
    let request_id = client.id();
    let truncate = |truncation_offset| Request::TruncateSegment {
        request_id,
        segment: SEGMENT.into(),
        truncation_offset,
        token: Token::default(),
    };
    assert!(matches!(client.ask(truncate(4)).await, Reply::SegmentTruncated { .. }));
    assert!(matches!(client.ask(truncate(4)).await, Reply::SegmentTruncated { .. }), "the start itself is fine");
    for outside in [3, 11, -1] {
        match client.ask(truncate(outside)).await {
            Reply::SegmentIsTruncated { start_offset: 4, offset, .. } => assert_eq!(offset, outside),
            other => panic!("{outside}: {other:?}"),
        }
    }
    match client.ask(read(SEGMENT, 3, 100, 5)).await {
        Reply::SegmentIsTruncated { request_id: 5, start_offset: 4, offset: 3, .. } => {}
        other => panic!("{other:?}"),
    }
    client.seal(SEGMENT).await;
    assert!(matches!(client.seal(SEGMENT).await, Reply::SegmentIsSealed { offset: -1, .. }));
    match client.ask(read(SEGMENT, 10, 100, 5)).await {
        Reply::SegmentRead { offset: 10, at_tail: false, end_of_segment: true, data, .. } => assert!(data.is_empty()),
        other => panic!("{other:?}"),
    }
    for beyond in [11, -1] {
        assert!(matches!(client.ask(read(SEGMENT, beyond, 100, 5)).await, Reply::ErrorMessage { .. }), "{beyond}");
    }
    match client.ask(read("no/such/0.#epoch.0", 9, 100, 5)).await {
        Reply::NoSuchSegment { offset: 9, .. } => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_brings_no_more_than_was_asked_for() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    let data: Vec<u8> = (0..5 << 20).map(|at: usize| (at % 251) as u8 | 1).collect();
    write(&mut client, SEGMENT, &data).await;
    let mut collected = Vec::new();
    while collected.len() < data.len() {
        match client.ask(read(SEGMENT, collected.len() as i64, 8 << 20, 5)).await {
            Reply::SegmentRead { offset, data, .. } => {
                assert_eq!(offset, collected.len() as i64);
                assert!((1..=2 << 20).contains(&data.len()));
                collected.extend_from_slice(&data);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(collected == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_merge_one_by_one_and_together() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    for (segment, data) in [(TRANSACTION, b"abc"), (ANOTHER, b"def")] {
        client.create(segment).await;
        write(&mut client, segment, data).await;
    }
    let request_id = client.id();
    let batch = Request::MergeSegmentsBatch {
        request_id,
        target: SEGMENT.into(),
        sources: vec![TRANSACTION.into(), ANOTHER.into()],
        token: Token::default(),
    };
    let merged = |source: &str, target_length| MergedSource { source: source.into(), target_length };
    let expected = |first, second| Reply::SegmentsBatchMerged {
        request_id,
        target: SEGMENT.into(),
        merged: vec![merged(TRANSACTION, first), merged(ANOTHER, second)],
    };
    assert_eq!(client.ask(batch.clone()).await, expected(3, 6));
    assert_eq!(client.ask(batch).await, expected(6, 6), "a merge that is repeated is done");
    match client.ask(read(SEGMENT, 0, 100, 5)).await {
        Reply::SegmentRead { data, .. } => assert_eq!(&data[..], b"abcdef"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_whose_condition_fails_changes_nothing() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    client.create(TRANSACTION).await;
    write(&mut client, TRANSACTION, b"abc").await;
    let request_id = client.id();
    let merge = |update_type, old_value| Request::MergeSegments {
        request_id,
        target: SEGMENT.into(),
        source: TRANSACTION.into(),
        token: Token::default(),
        attribute_updates: vec![AttributeUpdate { attribute: AttributeId(5), update_type, new_value: 1, old_value }],
    };
    assert_eq!(client.ask(merge(4, 9)).await, Reply::SegmentAttributeUpdated { request_id, success: false });
    assert!(matches!(client.ask(merge(9, 9)).await, Reply::ErrorMessage { .. }), "no such type of update");
    assert_eq!(client.length(SEGMENT).await, 0);
    assert!(matches!(client.ask(merge(4, i64::MIN)).await, Reply::SegmentsMerged { target_length: 3, .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_are_compared_and_set() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    let (request_id, attribute) = (client.id(), AttributeId(0x7df9));
    let get =
        || Request::GetSegmentAttribute { request_id, segment: SEGMENT.into(), attribute, token: Token::default() };
    let set = |expected_value, new_value| Request::UpdateSegmentAttribute {
        request_id,
        segment: SEGMENT.into(),
        attribute,
        new_value,
        expected_value,
        token: Token::default(),
    };
    assert_eq!(client.ask(get()).await, Reply::SegmentAttribute { request_id, value: i64::MIN });
    for (expected, new, success, value) in
        [(1, 2, false, i64::MIN), (i64::MIN, 13, true, 13), (13, i64::MIN, true, i64::MIN)]
    {
        assert_eq!(client.ask(set(expected, new)).await, Reply::SegmentAttributeUpdated { request_id, success });
        assert_eq!(client.ask(get()).await, Reply::SegmentAttribute { request_id, value });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_is_created_once() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    let request_id = client.id();
    let create = Request::CreateSegment {
        request_id,
        segment: SEGMENT.into(),
        target_rate: 100,
        scale_type: 2,
        token: Token::default(),
        rollover_bytes: 0,
    };
    assert!(matches!(client.ask(create).await, Reply::SegmentAlreadyExists { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_answers_when_every_byte_written_before_is_in_a_chunk() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    write(&mut client, SEGMENT, &[7; 100_000]).await;
    for container_id in 0..2 {
        let request_id = client.id();
        let flush = Request::FlushToStorage { container_id, token: Token::default(), request_id };
        assert_eq!(client.ask(flush).await, Reply::StorageFlushed { request_id });
    }
    let request_id = client.id();
    let list = Request::ListStorageChunks { segment: SEGMENT.into(), token: Token::default(), request_id };
    match client.ask(list).await {
        Reply::StorageChunksListed { chunks, .. } => {
            let mut end = 0;
            for chunk in chunks {
                assert_eq!((chunk.start_offset, chunk.exists_in_storage), (end, true));
                assert_eq!(chunk.length_in_metadata, chunk.length_in_storage);
                end += chunk.length_in_metadata;
            }
            assert_eq!(end, 100_000);
        }
        other => panic!("{other:?}"),
    }
    for container_id in [2, i32::MAX, -1] {
        let request_id = client.id();
        let flush = Request::FlushToStorage { container_id, token: Token::default(), request_id };
        assert!(matches!(client.ask(flush).await, Reply::ErrorMessage { .. }), "{container_id}");
    }
    let request_id = client.id();
    let list = Request::ListStorageChunks { segment: "a/b/0".into(), token: Token::default(), request_id };
    assert!(matches!(client.ask(list).await, Reply::NoSuchSegment { offset: -1, .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fields_of_a_segment_are_read_as_attributes_and_the_rollover_size_outlives_a_new_policy() {
    let store = Store::open().await;
    let mut client = store.client().await;
    let request_id = client.id();
    let (segment, token) = (|| SEGMENT.into(), Token::default);
    let create = |rollover_bytes| Request::CreateSegment {
        request_id,
        segment: segment(),
        target_rate: 100,
        scale_type: 2,
        token: token(),
        rollover_bytes,
    };
    assert!(matches!(client.ask(create(4096)).await, Reply::SegmentCreated { .. }));
    write(&mut client, SEGMENT, b"event").await;
    let policy =
        Request::UpdateSegmentPolicy { request_id, segment: segment(), target_rate: 7, scale_type: 1, token: token() };
    assert!(matches!(client.ask(policy).await, Reply::SegmentPolicyUpdated { .. }));
    for (low, expected) in [(1, 1), (2, 1), (3, 7), (4, 4096), (9, 0), (12, i64::MIN)] {
        let attribute = AttributeId(0x8000_0000_0000_0000 << 64 | low);
        let get = Request::GetSegmentAttribute { request_id, segment: segment(), attribute, token: token() };
        assert_eq!(client.ask(get).await, Reply::SegmentAttribute { request_id, value: expected }, "{low}");
        let set = Request::UpdateSegmentAttribute {
            request_id,
            segment: segment(),
            attribute,
            new_value: 5,
            expected_value: expected,
            token: token(),
        };
        assert!(matches!(client.ask(set).await, Reply::ErrorMessage { .. }), "{low} is not for clients to set");
    }
    // A negative rollover size means the default.
    let request_id = client.id();
    let other = Request::CreateSegment {
        request_id,
        segment: "a/b/0".into(),
        target_rate: 0,
        scale_type: 0,
        token: token(),
        rollover_bytes: -1,
    };
    assert!(matches!(client.ask(other).await, Reply::SegmentCreated { .. }));
    let attribute = AttributeId(0x8000_0000_0000_0000 << 64 | 4);
    let get = Request::GetSegmentAttribute { request_id, segment: "a/b/0".into(), attribute, token: token() };
    assert_eq!(client.ask(get).await, Reply::SegmentAttribute { request_id, value: 0 });
}

/// What the batch client of Java's main line asks for to go from one stream cut to the next: no published client does.
/// Source: wire protocol 17, `LocateOffset`.
#[tokio::test(flavor = "multi_thread")]
async fn an_offset_is_located_where_an_event_ends_and_never_before_it() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    let locate = async |client: &mut Client, segment: &str, target: i64| {
        let request_id = client.id();
        let segment = segment.into();
        let token = Token::default();
        client.ask(Request::LocateOffset { request_id, segment, target_offset: target, token }).await
    };
    let located = async |client: &mut Client, target: i64| match locate(client, SEGMENT, target).await {
        Reply::OffsetLocated { segment, offset, .. } => {
            assert_eq!(&*segment, SEGMENT);
            offset
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(located(&mut client, 0).await, 0, "nothing is there");
    assert_eq!(located(&mut client, 1000).await, 0, "the length, if no event goes as far");
    client.set_up(1, SEGMENT).await;
    let mut boundaries = vec![0];
    for number in 1..=50_i64 {
        // An append is one event with its header here.
        let data = vec![7; usize::try_from(number).unwrap() * 3000];
        assert!(matches!(client.append(1, number, &data).await, Reply::DataAppended { .. }));
        boundaries.push(client.length(SEGMENT).await);
    }
    let length = *boundaries.last().unwrap();
    for target in (0..=length + 5).step_by(7_777).chain([length - 1, length, i64::MAX]) {
        let offset = located(&mut client, target).await;
        assert!(boundaries.contains(&offset), "{target} is located at {offset}, where no event ends");
        assert!(offset >= target.min(length), "{target} is located before it, at {offset}");
    }
    assert_eq!(located(&mut client, i64::MAX).await, length);
    assert!((0..=length).contains(&located(&mut client, -1).await), "a number that is no offset does no harm");
    // A walk with steps of some hundred kilobytes comes to the end.
    let (mut at, mut steps) = (0, 0);
    while at < length {
        let next = located(&mut client, at + 300_000).await;
        assert!(next > at, "a walk stands still at {at}");
        (at, steps) = (next, steps + 1);
    }
    assert!(steps > 3, "the whole of {length} bytes in {steps} steps of 300,000");

    // What was truncated is not located any more; a sealed segment is walked like an open one.
    let cut = boundaries[20];
    let request_id = client.id();
    let truncated = Request::TruncateSegment {
        request_id,
        segment: SEGMENT.into(),
        truncation_offset: cut,
        token: Token::default(),
    };
    assert!(matches!(client.ask(truncated).await, Reply::SegmentTruncated { .. }));
    client.seal(SEGMENT).await;
    for target in [0, 1, cut - 1, cut, cut + 1, length] {
        let offset = located(&mut client, target).await;
        assert!(boundaries.contains(&offset) && offset >= target.max(cut), "{target} is located at {offset}");
    }
    match locate(&mut client, "scope/stream/9.#epoch.0", 0).await {
        Reply::NoSuchSegment { .. } => {}
        other => panic!("{other:?}"),
    }
}

/// Every request about one segment, with the offset that a refusal repeats of it.
fn about(segment: &str, request_id: i64) -> Vec<(i64, Request)> {
    let (token, attribute) = (Token::default, AttributeId(5));
    let keys = || vec![TableKey { key: "k".into(), version: i64::MIN }];
    let segment = || Text::from(segment);
    macro_rules! request {
        ($offset:expr, $name:ident $(, $field:ident: $value:expr)*) => {
            ($offset, Request::$name { request_id, segment: segment(), token: token() $(, $field: $value)* })
        };
    }
    vec![
        request!(9, ReadSegment, offset: 9, suggested_length: 100),
        request!(-1, GetStreamSegmentInfo),
        request!(-1, SealSegment),
        request!(4, TruncateSegment, truncation_offset: 4),
        request!(-1, UpdateSegmentPolicy, target_rate: 1, scale_type: 1),
        request!(-1, GetSegmentAttribute, attribute: attribute),
        request!(-1, UpdateSegmentAttribute, attribute: attribute, new_value: 1, expected_value: 2),
        request!(-1, LocateOffset, target_offset: 3),
        request!(-1, ListStorageChunks),
        request!(-1, DeleteSegment),
        request!(-1, GetTableSegmentInfo),
        request!(12, UpdateTableEntries, entries: vec![entry("k", -1, "v")], table_offset: 12),
        request!(12, RemoveTableKeys, keys: keys(), table_offset: 12),
        request!(-1, ReadTable, keys: keys()),
        request!(-1, ReadTableKeys, suggested_count: 1, continuation: "".into(), prefix: "".into(),
            from_key: "".into(), to_key: "".into()),
        request!(-1, ReadTableEntries, suggested_count: 1, continuation: "".into(), prefix: "".into(),
            from_key: "".into(), to_key: "".into()),
        request!(-1, ReadTableEntriesDelta, from_position: 0, suggested_count: 1),
        request!(-1, DeleteTableSegment, must_be_empty: true),
    ]
}

fn merge(request_id: i64, target: &str, source: &str) -> Request {
    let (target, source, token) = (target.into(), source.into(), Token::default());
    Request::MergeSegments { request_id, target, source, token, attribute_updates: Vec::new() }
}

fn merge_batch(request_id: i64, target: &str, source: &str) -> Request {
    let (target, sources, token) = (target.into(), vec![source.into()], Token::default());
    Request::MergeSegmentsBatch { request_id, target, sources, token }
}

fn no_such(request_id: i64, segment: &str, offset: i64) -> Reply {
    Reply::NoSuchSegment { request_id, segment: segment.into(), trace: Text::default(), offset }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_is_not_there_is_named_with_what_was_asked_of_it() {
    let store = Store::open().await;
    let mut client = store.client().await;
    // The upper half of an id is how Java's client finds who asked.
    let request_id = 7 << 32 | 5;
    for gone in ["scope/stream/9.#epoch.0", "scope/gone_kvtable/0.#epoch.0"] {
        for (offset, request) in about(gone, request_id) {
            assert_eq!(client.ask(request).await, no_such(request_id, gone, offset));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_is_refused_in_the_name_of_its_source_and_a_batch_in_that_of_its_target() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(TRANSACTION).await;
    write(&mut client, TRANSACTION, b"abc").await;
    assert_eq!(client.ask(merge(1, SEGMENT, TRANSACTION)).await, no_such(1, TRANSACTION, -1), "the target is missing");
    assert_eq!(client.ask(merge_batch(2, SEGMENT, TRANSACTION)).await, no_such(2, SEGMENT, -1));
    client.create(SEGMENT).await;
    assert_eq!(client.ask(merge(3, SEGMENT, ANOTHER)).await, no_such(3, ANOTHER, -1));
    let (target, source) = (SEGMENT.into(), TRANSACTION.into());
    let merged = Reply::SegmentsMerged { request_id: 4, target, source, target_length: 3 };
    assert_eq!(client.ask(merge(4, SEGMENT, TRANSACTION)).await, merged);
    assert_eq!(
        client.ask(merge(5, SEGMENT, TRANSACTION)).await,
        no_such(5, TRANSACTION, -1),
        "merges are not remembered"
    );
    match client.ask(merge(6, SEGMENT, SEGMENT)).await {
        Reply::ErrorMessage { request_id: 6, code: ErrorCode::IllegalArgument, .. } => {}
        other => panic!("{other:?}"),
    }

    client.create(ANOTHER).await;
    write(&mut client, ANOTHER, b"def").await;
    assert!(matches!(client.seal(SEGMENT).await, Reply::SegmentSealed { .. }));
    let sealed = |request_id, segment: &str| Reply::SegmentIsSealed {
        request_id,
        segment: segment.into(),
        trace: Text::default(),
        offset: -1,
    };
    assert_eq!(client.ask(merge(7, SEGMENT, ANOTHER)).await, sealed(7, ANOTHER));
    assert_eq!(client.ask(merge_batch(8, SEGMENT, ANOTHER)).await, sealed(8, SEGMENT));
    assert_eq!((client.length(SEGMENT).await, client.length(ANOTHER).await), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_segment_is_read_cut_and_deleted_and_changes_no_more() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    write(&mut client, SEGMENT, b"01234").await;
    client.seal(SEGMENT).await;
    let sealed = Reply::SegmentIsSealed { request_id: 5, segment: SEGMENT.into(), trace: Text::default(), offset: -1 };
    let ask = async |client: &mut Client, wanted: fn(&Request) -> bool| {
        let (_, request) = about(SEGMENT, 5).into_iter().find(|(_, request)| wanted(request)).unwrap();
        client.ask(request).await
    };
    // Whatever the condition says: the attribute is not set, and 2 is expected.
    assert_eq!(ask(&mut client, |it| matches!(it, Request::UpdateSegmentAttribute { .. })).await, sealed);
    assert_eq!(ask(&mut client, |it| matches!(it, Request::UpdateSegmentPolicy { .. })).await, sealed);
    assert_eq!(ask(&mut client, |it| matches!(it, Request::SealSegment { .. })).await, sealed);
    match ask(&mut client, |it| matches!(it, Request::GetSegmentAttribute { .. })).await {
        Reply::SegmentAttribute { value: i64::MIN, .. } => {}
        other => panic!("{other:?}"),
    }
    match ask(&mut client, |it| matches!(it, Request::TruncateSegment { .. })).await {
        Reply::SegmentTruncated { .. } => {}
        other => panic!("{other:?}"),
    }
    match client.info(SEGMENT).await {
        Reply::StreamSegmentInfo { exists, sealed, deleted, last_modified, write_offset, start_offset, .. } => {
            assert_eq!((exists, sealed, deleted, write_offset, start_offset), (true, true, false, 5, 4));
            assert!(last_modified > 1_600_000_000_000, "{last_modified} is no time in milliseconds");
        }
        other => panic!("{other:?}"),
    }
    match client.ask(read(SEGMENT, 4, 100, 5)).await {
        Reply::SegmentRead { data, at_tail: false, end_of_segment: true, .. } => assert_eq!(&data[..], b"4"),
        other => panic!("{other:?}"),
    }
    match ask(&mut client, |it| matches!(it, Request::DeleteSegment { .. })).await {
        Reply::SegmentDeleted { .. } => {}
        other => panic!("{other:?}"),
    }
    let again = ask(&mut client, |it| matches!(it, Request::DeleteSegment { .. })).await;
    assert_eq!(again, no_such(5, SEGMENT, -1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_a_segment_of_another_kind_ends_its_connection_without_a_word() {
    const TABLE: &str = "scope/stream/0.#epoch.3";
    const CUT: &str = "scope/stream/0.#epoch.1";
    let store = Store::open().await;
    let mut witness = store.client().await;
    for segment in [SEGMENT, CUT] {
        witness.create(segment).await;
        write(&mut witness, segment, b"01234").await;
    }
    let (request_id, token) = (5, Token::default);
    let create = Request::CreateTableSegment {
        request_id,
        segment: TABLE.into(),
        token: token(),
        sorted: false,
        key_length: 0,
        rollover_bytes: 0,
    };
    assert!(matches!(witness.ask(create).await, Reply::SegmentCreated { .. }));
    let cut = Request::TruncateSegment { request_id, segment: CUT.into(), truncation_offset: 1, token: token() };
    assert!(matches!(witness.ask(cut).await, Reply::SegmentTruncated { .. }));

    let is_for_tables = |request: &Request| request.name().contains("Table");
    let mut misplaced: Vec<_> =
        about(SEGMENT, request_id).into_iter().map(|(_, request)| request).filter(is_for_tables).collect();
    assert_eq!(misplaced.len(), 8);
    misplaced.extend(
        about(TABLE, request_id)
            .into_iter()
            .map(|(_, request)| request)
            .filter(|request| matches!(request, Request::SealSegment { .. } | Request::TruncateSegment { .. })),
    );
    misplaced.extend([merge(5, SEGMENT, TABLE), merge(5, TABLE, SEGMENT), merge_batch(5, TABLE, SEGMENT)]);
    // What has lost its beginning is no source.
    misplaced.extend([merge(5, SEGMENT, CUT), merge_batch(5, SEGMENT, CUT)]);
    for request in misplaced {
        let mut client = store.client().await;
        client.tell(request.clone()).await;
        assert_eq!(client.next().await, None, "{request:?}");
    }
    let mut writer = store.client().await;
    assert_eq!(writer.set_up(1, TABLE).await, i64::MIN);
    writer.put_append(1, 1, b"no entry");
    writer.send().await;
    assert_eq!(writer.next().await, None);
    assert_eq!((witness.length(SEGMENT).await, witness.length(CUT).await, witness.length(TABLE).await), (5, 5, 0));
}
