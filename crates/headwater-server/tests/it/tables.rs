//! Tables, as the Rust and the Java client use them.

use headwater_wire::{Reply, Request, TableEntry, TableKey, Token};

use crate::client::{Client, Store, entry};

const TABLE: &str = "scope/group_kvtable/0.#epoch.0";

async fn create(client: &mut Client, key_length: i32) -> Reply {
    let request_id = client.id();
    let request = Request::CreateTableSegment {
        request_id,
        segment: TABLE.into(),
        token: Token::default(),
        sorted: false,
        key_length,
        rollover_bytes: 0,
    };
    client.ask(request).await
}

async fn put(client: &mut Client, entries: Vec<TableEntry>, table_offset: i64) -> Reply {
    let request_id = client.id();
    let (segment, token) = (TABLE.into(), Token::default());
    client.ask(Request::UpdateTableEntries { request_id, segment, token, entries, table_offset }).await
}

async fn versions(client: &mut Client, entries: Vec<TableEntry>) -> Vec<i64> {
    match put(client, entries, -1).await {
        Reply::TableEntriesUpdated { versions, .. } => versions,
        other => panic!("{other:?}"),
    }
}

async fn remove(client: &mut Client, key: &'static str, version: i64) -> Reply {
    let request_id = client.id();
    let keys = vec![TableKey { key: key.into(), version }];
    let (segment, token) = (TABLE.into(), Token::default());
    client.ask(Request::RemoveTableKeys { request_id, segment, token, keys, table_offset: -1 }).await
}

async fn get(client: &mut Client, keys: &[&'static str]) -> Vec<TableEntry> {
    let request_id = client.id();
    let keys = keys.iter().map(|key| TableKey { key: (*key).into(), version: i64::MIN }).collect();
    match client.ask(Request::ReadTable { request_id, segment: TABLE.into(), token: Token::default(), keys }).await {
        Reply::TableRead { entries, .. } => entries,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_on_keys_are_checked_and_told_apart() {
    let store = Store::open().await;
    let mut client = store.client().await;
    assert!(matches!(create(&mut client, 0).await, Reply::SegmentCreated { .. }));
    assert!(matches!(create(&mut client, 0).await, Reply::SegmentAlreadyExists { .. }));
    let first = versions(&mut client, vec![entry("k1", -1, "v1")]).await;
    assert_eq!(first, [0], "versions begin at 0");
    assert!(matches!(put(&mut client, vec![entry("k1", -1, "x")], -1).await, Reply::TableKeyBadVersion { .. }));
    assert!(matches!(put(&mut client, vec![entry("k1", 5, "x")], -1).await, Reply::TableKeyBadVersion { .. }));
    assert!(matches!(put(&mut client, vec![entry("k2", 0, "x")], -1).await, Reply::TableKeyDoesNotExist { .. }));
    let second = versions(&mut client, vec![entry("k1", 0, "v2"), entry("k3", i64::MIN, "v3")]).await;
    assert!(second[0] > 0 && second[1] > second[0]);
    let found = get(&mut client, &["k3", "k2", "k1"]).await;
    assert_eq!(found, [entry("k3", second[1], "v3"), entry("k2", -1, ""), entry("k1", second[0], "v2")]);

    assert!(matches!(remove(&mut client, "k1", 0).await, Reply::TableKeyBadVersion { .. }));
    assert!(matches!(remove(&mut client, "k2", 0).await, Reply::TableKeyDoesNotExist { .. }));
    assert!(matches!(remove(&mut client, "k2", i64::MIN).await, Reply::TableKeysRemoved { .. }));
    assert!(matches!(remove(&mut client, "k1", second[0]).await, Reply::TableKeysRemoved { .. }));
    assert_eq!(get(&mut client, &["k1"]).await, [entry("k1", -1, "")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_may_name_a_key_several_times_as_the_rust_client_does() {
    let store = Store::open().await;
    let mut client = store.client().await;
    create(&mut client, 0).await;
    let versions = versions(&mut client, vec![entry("k", -1, "a"), entry("k", -1, "b")]).await;
    assert_eq!(versions.len(), 2);
    assert_eq!(get(&mut client, &["k"]).await, [entry("k", versions[1], "b")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_condition_on_a_tables_length_names_the_length() {
    let store = Store::open().await;
    let mut client = store.client().await;
    create(&mut client, 0).await;
    assert!(matches!(put(&mut client, vec![entry("k1", -1, "v1")], 0).await, Reply::TableEntriesUpdated { .. }));
    for wrong in [0, 22, -7] {
        match put(&mut client, vec![entry("k2", -1, "v2")], wrong).await {
            Reply::SegmentIsTruncated { start_offset: 21, offset, .. } => assert_eq!(offset, wrong),
            other => panic!("{other:?}"),
        }
        let request_id = client.id();
        let keys = vec![TableKey { key: "k1".into(), version: i64::MIN }];
        let (segment, token) = (TABLE.into(), Token::default());
        match client.ask(Request::RemoveTableKeys { request_id, segment, token, keys, table_offset: wrong }).await {
            Reply::SegmentIsTruncated { start_offset: 21, offset, .. } => assert_eq!(offset, wrong),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(get(&mut client, &["k1"]).await, [entry("k1", 0, "v1")]);
}

async fn page(client: &mut Client, continuation: bytes::Bytes) -> (Vec<TableEntry>, bytes::Bytes) {
    let request_id = client.id();
    let request = Request::ReadTableEntries {
        request_id,
        segment: TABLE.into(),
        token: Token::default(),
        suggested_count: 3,
        continuation,
        prefix: bytes::Bytes::new(),
        from_key: bytes::Bytes::new(),
        to_key: bytes::Bytes::new(),
    };
    match client.ask(request).await {
        Reply::TableEntriesRead { entries, continuation, .. } => (entries, continuation),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_iteration_ends_with_an_empty_page_and_an_empty_continuation() {
    let store = Store::open().await;
    let mut client = store.client().await;
    create(&mut client, 0).await;
    let keys: Vec<String> = (0..10).map(|key| format!("k{key}")).collect();
    for key in &keys {
        versions(&mut client, vec![entry(key, -1, "v")]).await;
    }
    let (mut found, mut continuation) = (Vec::new(), bytes::Bytes::new());
    loop {
        let (entries, next) = page(&mut client, continuation).await;
        assert_eq!(entries.is_empty(), next.is_empty());
        if entries.is_empty() {
            break;
        }
        found.extend(entries.into_iter().map(|entry| String::from_utf8(entry.key.key.to_vec()).unwrap()));
        continuation = next;
    }
    found.sort();
    assert_eq!(found, keys);
}

async fn delta(client: &mut Client, from_position: i64) -> Reply {
    let request_id = client.id();
    let (segment, token, suggested_count) = (TABLE.into(), Token::default(), 10);
    client.ask(Request::ReadTableEntriesDelta { request_id, segment, token, from_position, suggested_count }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_table_shows_only_what_is_still_true() {
    let store = Store::open().await;
    let mut client = store.client().await;
    create(&mut client, 0).await;
    let first = versions(&mut client, vec![entry("gone", -1, "v"), entry("kept", -1, "v")]).await;
    remove(&mut client, "gone", first[0]).await;
    let position = match delta(&mut client, 0).await {
        Reply::TableEntriesDeltaRead { entries, reached_end: true, last_position, .. } => {
            assert_eq!(entries, [entry("kept", first[1], "v")]);
            last_position
        }
        other => panic!("{other:?}"),
    };
    // Nothing is new: the next request may begin where this one did.
    match delta(&mut client, position).await {
        Reply::TableEntriesDeltaRead { entries, should_clear: false, reached_end: true, last_position, .. } => {
            assert!(entries.is_empty());
            assert_eq!(last_position, position);
        }
        other => panic!("{other:?}"),
    }
    for outside in [position + 1, i64::MAX, -1, i64::MIN] {
        assert!(matches!(delta(&mut client, outside).await, Reply::ErrorMessage { .. }), "{outside}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_fixed_key_length_is_paged_by_ranges_and_has_no_log_to_read() {
    let store = Store::open().await;
    let mut client = store.client().await;
    create(&mut client, 2).await;
    for key in ["aa", "ab", "ba"] {
        versions(&mut client, vec![entry(key, -1, "v")]).await;
    }
    assert!(matches!(put(&mut client, vec![entry("abc", -1, "v")], -1).await, Reply::ErrorMessage { .. }));
    let request_id = client.id();
    let request = Request::ReadTableKeys {
        request_id,
        segment: TABLE.into(),
        token: Token::default(),
        suggested_count: 10,
        continuation: bytes::Bytes::new(),
        prefix: bytes::Bytes::new(),
        from_key: "ab".into(),
        to_key: "ba".into(),
    };
    match client.ask(request).await {
        Reply::TableKeysRead { keys, .. } => {
            assert_eq!(keys.iter().map(|key| &key.key[..]).collect::<Vec<_>>(), [b"ab", b"ba"]);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(delta(&mut client, 0).await, Reply::OperationUnsupported { .. }));
    let request_id = client.id();
    let info = Request::GetTableSegmentInfo { request_id, segment: TABLE.into(), token: Token::default() };
    match client.ask(info).await {
        Reply::TableSegmentInfo { entry_count: 3, key_length: 2, .. } => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_deleted_empty_or_not_as_wished() {
    let store = Store::open().await;
    let mut client = store.client().await;
    create(&mut client, 0).await;
    versions(&mut client, vec![entry("k", -1, "v")]).await;
    let request_id = client.id();
    let delete = |must_be_empty| Request::DeleteTableSegment {
        request_id,
        segment: TABLE.into(),
        must_be_empty,
        token: Token::default(),
    };
    assert!(matches!(client.ask(delete(true)).await, Reply::TableSegmentNotEmpty { .. }));
    assert!(matches!(client.ask(delete(false)).await, Reply::SegmentDeleted { .. }));
    assert!(matches!(client.ask(delete(false)).await, Reply::NoSuchSegment { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_values_and_entries_at_their_limits_are_stored_and_one_byte_more_is_refused() {
    let store = Store::open().await;
    let mut client = store.client().await;
    create(&mut client, 0).await;
    let (key, value, whole) = (8192, 1_040_384, (1 << 20) - 17);
    for (key_length, value_length, good) in [
        (key, whole - key, true),
        (key + 1, 1, false),
        (1, value, true),
        (1, value + 1, false),
        (key, value, false),
        (whole - value + 1, value, false),
    ] {
        let sized = entry(&"k".repeat(key_length), i64::MIN, &"v".repeat(value_length));
        let reply = put(&mut client, vec![sized], -1).await;
        match reply {
            Reply::TableEntriesUpdated { .. } if good => {}
            Reply::ErrorMessage { .. } if !good => {}
            other => panic!("{key_length} and {value_length} bytes: {other:?}"),
        }
    }
    assert!(matches!(put(&mut client, Vec::new(), -1).await, Reply::ErrorMessage { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_fixed_key_length_refuses_what_its_layout_does_not_know() {
    let store = Store::open().await;
    let mut client = store.client().await;
    create(&mut client, 4).await;
    let version = versions(&mut client, vec![entry("key1", -1, "v")]).await[0];
    for wrong in ["key", "key12"] {
        assert!(
            matches!(put(&mut client, vec![entry(wrong, -1, "v")], -1).await, Reply::ErrorMessage { .. }),
            "{wrong}"
        );
    }
    // Every row of the condition table, which names a missing key a bad version here.
    for (key, version, good) in [
        ("key1", -1, false),
        ("key1", version + 1, false),
        ("none", 3, false),
        ("none", -1, true),
        ("key1", version, true),
    ] {
        match put(&mut client, vec![entry(key, version, "w")], -1).await {
            Reply::TableEntriesUpdated { .. } if good => {}
            Reply::TableKeyBadVersion { .. } if !good => {}
            other => panic!("{key} at {version}: {other:?}"),
        }
    }
    let request_id = client.id();
    let delete =
        Request::DeleteTableSegment { request_id, segment: TABLE.into(), must_be_empty: true, token: Token::default() };
    match client.ask(delete).await {
        Reply::OperationUnsupported { operation, .. } => assert_eq!(&*operation, "deleteTableSegment"),
        other => panic!("{other:?}"),
    }
    let request_id = client.id();
    let keys = Request::ReadTableKeys {
        request_id,
        segment: TABLE.into(),
        token: Token::default(),
        suggested_count: 10,
        continuation: bytes::Bytes::new(),
        prefix: bytes::Bytes::new(),
        from_key: bytes::Bytes::new(),
        to_key: "key1".into(),
    };
    match client.ask(keys).await {
        Reply::TableKeysRead { keys, .. } => {
            assert_eq!(keys.len(), 1);
            assert!(keys[0].version > version, "keys are listed with their versions");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_an_entry_at_least_and_each_kind_of_table_its_own_bounds() {
    let store = Store::open().await;
    let mut client = store.client().await;
    create(&mut client, 0).await;
    let stored = versions(&mut client, vec![entry("k1", -1, "v"), entry("k2", -1, "v")]).await;
    let page =
        |request_id, suggested_count, continuation: &'static str, from_key: &'static str| Request::ReadTableKeys {
            request_id,
            segment: TABLE.into(),
            token: Token::default(),
            suggested_count,
            continuation: continuation.into(),
            // Retired, and read by nobody.
            prefix: "none".into(),
            from_key: from_key.into(),
            to_key: "".into(),
        };
    for suggested in [0, -1, i32::MIN] {
        match client.ask(page(1, suggested, "", "")).await {
            Reply::TableKeysRead { request_id: 1, keys, continuation, .. } => {
                assert_eq!(keys, [TableKey { key: "k1".into(), version: stored[0] }]);
                assert!(!continuation.is_empty());
            }
            other => panic!("{suggested}: {other:?}"),
        }
    }
    for unknown in [page(2, 10, "", "k1"), page(2, 10, "forged", ""), page(2, 10, "\u{1}k1", "k1")] {
        assert!(matches!(client.ask(unknown).await, Reply::ErrorMessage { request_id: 2, .. }));
    }
    match client.ask(page(3, 10, "\u{1}k1", "")).await {
        Reply::TableKeysRead { keys, .. } => assert_eq!(keys, [TableKey { key: "k2".into(), version: stored[1] }]),
        other => panic!("{other:?}"),
    }
    let request_id = client.id();
    let delete = Request::DeleteTableSegment {
        request_id,
        segment: TABLE.into(),
        must_be_empty: false,
        token: Token::default(),
    };
    assert!(matches!(client.ask(delete).await, Reply::SegmentDeleted { .. }));
    create(&mut client, 2).await;
    versions(&mut client, vec![entry("k1", -1, "v"), entry("k2", -1, "v")]).await;
    assert!(matches!(client.ask(page(4, 10, "\u{1}k1", "")).await, Reply::ErrorMessage { request_id: 4, .. }));
    match client.ask(page(5, 10, "", "k2")).await {
        Reply::TableKeysRead { keys, .. } => assert_eq!(keys.len(), 1),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_has_keys_of_any_length_or_of_one_up_to_256_bytes() {
    let store = Store::open().await;
    let mut client = store.client().await;
    for no_length in [257, i32::MAX, -1, i32::MIN] {
        assert!(matches!(create(&mut client, no_length).await, Reply::ErrorMessage { .. }), "{no_length}");
    }
    assert!(matches!(create(&mut client, 256).await, Reply::SegmentCreated { .. }));
    versions(&mut client, vec![entry(&"k".repeat(256), -1, "v")]).await;
    let get = |request_id, length: usize| Request::ReadTable {
        request_id,
        segment: TABLE.into(),
        token: Token::default(),
        keys: vec![TableKey { key: vec![b'k'; length].into(), version: i64::MIN }],
    };
    assert!(matches!(client.ask(get(1, 256)).await, Reply::TableRead { entries, .. } if entries[0].value == "v"));
    for other in [255, 257, 8193] {
        assert!(matches!(client.ask(get(2, other)).await, Reply::ErrorMessage { request_id: 2, .. }), "{other}");
    }
    let none = Request::ReadTable { request_id: 3, segment: TABLE.into(), token: Token::default(), keys: Vec::new() };
    assert!(matches!(client.ask(none).await, Reply::TableRead { request_id: 3, entries, .. } if entries.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_value_is_stored_with_a_version_and_the_retired_flag_of_a_table_says_nothing() {
    let store = Store::open().await;
    let mut client = store.client().await;
    let request_id = client.id();
    let flagged = Request::CreateTableSegment {
        request_id,
        segment: TABLE.into(),
        token: Token::default(),
        sorted: true,
        key_length: 0,
        rollover_bytes: 0,
    };
    assert!(matches!(client.ask(flagged).await, Reply::SegmentCreated { .. }));
    let stored = versions(&mut client, vec![entry("k", -1, "")]).await;
    assert_eq!(get(&mut client, &["k", "none"]).await, [entry("k", stored[0], ""), entry("none", -1, "")]);
    let request_id = client.id();
    let info = Request::GetTableSegmentInfo { request_id, segment: TABLE.into(), token: Token::default() };
    match client.ask(info).await {
        Reply::TableSegmentInfo { start_offset: 0, length: 18, entry_count: 1, key_length: 0, .. } => {}
        other => panic!("{other:?}"),
    }
    assert!(matches!(remove(&mut client, "k", stored[0]).await, Reply::TableKeysRemoved { .. }));
    assert!(matches!(remove(&mut client, "k", -1).await, Reply::TableKeysRemoved { .. }), "there is no such key");
    versions(&mut client, vec![entry("k", -1, "v")]).await;
    assert!(matches!(remove(&mut client, "k", -1).await, Reply::TableKeyBadVersion { .. }));
}
