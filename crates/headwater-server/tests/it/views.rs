//! What operators see over HTTP of streams, transactions and reader groups that clients use.

use headwater_auth::HttpRoute;
use headwater_proto::controller as proto;
use headwater_records::group::{Compacted, Initial};
use headwater_types::{Name, ScopedStream, SegmentId, StreamSegment};
use headwater_wire::{Reply, Request as Wire, TableEntry, TableKey, Token};
use serde_json::{Value, json};

use crate::documented::Documented;
use crate::server::Running;

const STREAM: &str = "/v1/scopes/s/streams/t";

fn info(stream: &str) -> proto::StreamInfo {
    proto::StreamInfo { scope: "s".into(), stream: stream.into(), access_operation: 0 }
}

/// A scope `s` with a stream `t` of two segments.
async fn with_stream(running: &Running) {
    let mut controller = running.controller().await;
    controller.create_scope(proto::ScopeInfo { scope: "s".into() }).await.unwrap();
    let config = proto::StreamConfig {
        stream_info: Some(info("t")),
        scaling_policy: Some(proto::ScalingPolicy { min_num_segments: 2, ..Default::default() }),
        ..Default::default()
    };
    controller.create_stream(config).await.unwrap();
}

/// Replaces segments of `t`, and waits until they are sealed.
async fn scale(running: &Running, seal: &[i64], new: &[(f64, f64)]) {
    let mut controller = running.controller().await;
    let range = |(start, end): &(f64, f64)| proto::scale_request::KeyRangeEntry { start: *start, end: *end };
    let request = proto::ScaleRequest {
        stream_info: Some(info("t")),
        sealed_segments: seal.to_vec(),
        new_key_ranges: new.iter().map(range).collect(),
        scale_timestamp: 0,
    };
    let started = controller.scale(request).await.unwrap().into_inner();
    assert_eq!(started.status(), proto::scale_response::ScaleStreamStatus::Started);
    loop {
        let request = proto::ScaleStatusRequest { stream_info: Some(info("t")), epoch: started.epoch };
        match controller.check_scale(request).await.unwrap().into_inner().status() {
            proto::scale_status_response::ScaleStatus::InProgress => tokio::task::yield_now().await,
            status => break assert_eq!(status, proto::scale_status_response::ScaleStatus::Success),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_of_the_other_kind_in_place_of_ones_own_holds_nothing_up() {
    let running = Running::start(|_| {}).await;
    with_stream(&running).await;
    let mut controller = running.controller().await;
    let mut store = running.store().await;
    let table = proto::KeyValueTableConfig {
        scope: "s".into(),
        kvt_name: "k".into(),
        partition_count: 1,
        primary_key_length: 4,
        ..Default::default()
    };
    let created = controller.create_key_value_table(table.clone()).await.unwrap().into_inner();
    assert_eq!(created.status(), proto::create_key_value_table_status::Status::Success);

    // In place of a segment that there is, and of one that the next scale makes.
    let (request_id, token) = (1, Token::default);
    let delete = Wire::DeleteSegment { request_id, segment: "s/t/0.#epoch.0".into(), token: token() };
    assert!(matches!(store.ask(delete).await, Reply::SegmentDeleted { .. }));
    for segment in ["s/t/0.#epoch.0", "s/t/2.#epoch.1"] {
        let (sorted, key_length, rollover_bytes) = (false, 0, 0);
        let create = Wire::CreateTableSegment {
            request_id,
            segment: segment.into(),
            token: token(),
            sorted,
            key_length,
            rollover_bytes,
        };
        assert!(matches!(store.ask(create).await, Reply::SegmentCreated { .. }), "{segment}");
    }
    scale(&running, &[0], &[(0.0, 0.25), (0.25, 0.5)]).await;
    store.set_up(1, "s/t/2.#epoch.1").await;
    assert!(matches!(store.append(1, 1, b"goes on").await, Reply::DataAppended { .. }));
    let sealed = controller.seal_stream(info("t")).await.unwrap().into_inner();
    assert_eq!(sealed.status(), proto::update_stream_status::Status::Success);
    let deleted = controller.delete_stream(info("t")).await.unwrap().into_inner();
    assert_eq!(deleted.status(), proto::delete_stream_status::Status::Success);
    assert!(matches!(store.info("s/t/0.#epoch.0").await, Reply::NoSuchSegment { .. }));

    let segment = "s/k_kvtable/0.#epoch.0";
    let delete = Wire::DeleteTableSegment { request_id, segment: segment.into(), must_be_empty: false, token: token() };
    assert!(matches!(store.ask(delete).await, Reply::SegmentDeleted { .. }));
    store.create(segment).await;
    let named = proto::KeyValueTableInfo { scope: "s".into(), kvt_name: "k".into() };
    let deleted = controller.delete_key_value_table(named).await.unwrap().into_inner();
    assert_eq!(deleted.status(), proto::delete_kv_table_status::Status::Success);
    assert!(matches!(store.info(segment).await, Reply::NoSuchSegment { .. }));
    // What stood there before the table does not make way: it may be somebody's table.
    store.create("s/l_kvtable/0.#epoch.0").await;
    let table = proto::KeyValueTableConfig { kvt_name: "l".into(), ..table };
    let created = controller.create_key_value_table(table).await.unwrap().into_inner();
    assert_eq!(created.status(), proto::create_key_value_table_status::Status::Failure);
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_and_scaling_events_tell_the_life_of_a_stream() {
    let running = Running::start(|_| {}).await;
    with_stream(&running).await;
    let http = Documented::new(&running).await;
    // Times of epochs are told apart by milliseconds.
    let later = async || tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    later().await;
    scale(&running, &[0], &[(0.0, 0.25), (0.25, 0.5)]).await;
    later().await;
    scale(&running, &[1, 1 << 32 | 3], &[(0.25, 1.0)]).await;

    let epochs = http.ask(HttpRoute::Epochs, &format!("{STREAM}/epochs")).await.json();
    let epochs = epochs["epochs"].as_array().unwrap();
    let began: Vec<_> = epochs.iter().map(|epoch| epoch["beganAt"].as_i64().unwrap()).collect();
    assert!(began.is_sorted() && began.len() == 3, "{began:?}");
    let last = [
        json!({"segmentId": "4294967298", "number": 2, "epoch": 1, "keyStart": 0.0, "keyEnd": 0.25}),
        json!({"segmentId": "8589934596", "number": 4, "epoch": 2, "keyStart": 0.25, "keyEnd": 1.0}),
    ];
    assert_eq!(epochs[2]["segments"], json!(last));
    let one = http.ask(HttpRoute::Epochs, &format!("{STREAM}/epochs?first=1&limit=1")).await.json();
    assert_eq!(one["epochs"], json!([epochs[1]]));
    let none = http.ask(HttpRoute::Epochs, &format!("{STREAM}/epochs?first=3")).await.json();
    assert_eq!(none, json!({"epochs": []}));

    let events = async |from: i64, to: i64| -> Vec<(i64, i64, i64)> {
        let path = format!("{STREAM}/scaling-events?from={from}&to={to}");
        let events = http.ask(HttpRoute::ScalingEvents, &path).await.json();
        let part = |event: &Value, field: &str| event[field].as_i64().unwrap();
        let events = events.as_array().expect("a bare list");
        events.iter().map(|event| (part(event, "timestamp"), part(event, "splits"), part(event, "merges"))).collect()
    };
    let (created, split, merged) = ((began[0], 0, 0), (began[1], 1, 0), (began[2], 0, 1));
    assert_eq!(events(0, i64::MAX).await, [created, split, merged]);
    assert_eq!(events(began[1], began[1]).await, [created, split]);
    assert_eq!(events(began[2], i64::MAX).await, [split, merged]);
    assert_eq!(events(i64::MAX, i64::MAX).await, [merged], "the stream is still as it was");
    assert_eq!(events(0, began[0] - 1).await, []);
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heat_says_what_comes_into_each_open_segment() {
    let running = Running::start(|_| {}).await;
    with_stream(&running).await;
    let http = Documented::new(&running).await;
    let mut store = running.store().await;
    store.set_up(1, "s/t/0.#epoch.0").await;
    for number in 1..=50 {
        store.append(1, number, &[0; 1024]).await;
    }
    // Load is counted every five seconds.
    let heat = loop {
        let heat = http.ask(HttpRoute::SegmentHeat, &format!("{STREAM}/heat")).await.json();
        if heat["segments"][0]["eventsPerSecond"]["2m"].as_f64().unwrap() > 0.0 {
            break heat;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert_eq!((&heat["scalesBy"], &heat["targetRate"]), (&json!("nothing"), &Value::Null));
    let (busy, idle) = (&heat["segments"][0], &heat["segments"][1]);
    assert_eq!((&busy["segmentId"], &busy["keyEnd"], &idle["keyEnd"]), (&json!("0"), &json!(0.5), &json!(1.0)));
    assert!(busy["kilobytesPerSecond"]["20m"].as_f64().unwrap() > 0.0, "{heat}");
    assert_eq!(idle["eventsPerSecond"], json!({"2m": 0.0, "5m": 0.0, "10m": 0.0, "20m": 0.0}));
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_under_way_are_listed_until_they_are_over() {
    let running = Running::start(|_| {}).await;
    with_stream(&running).await;
    let http = Documented::new(&running).await;
    let path = format!("{STREAM}/transactions");
    assert_eq!(http.ask(HttpRoute::Transactions, &path).await.json(), json!({"transactions": [], "next": null}));
    let mut controller = running.controller().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let request = proto::CreateTxnRequest { stream_info: Some(info("t")), lease: 30_000, scale_grace_period: 0 };
        ids.push(controller.create_transaction(request).await.unwrap().into_inner().txn_id);
    }
    let listed = http.ask(HttpRoute::Transactions, &path).await.json();
    let listed = listed["transactions"].as_array().unwrap();
    assert_eq!(listed.len(), 3);
    for transaction in listed {
        assert_eq!((&transaction["state"], &transaction["leaseMillis"]), (&json!("OPEN"), &json!(30_000)));
        let (opened, aborted) = (transaction["openedAt"].as_i64().unwrap(), transaction["abortedAt"].as_i64().unwrap());
        assert!((opened + 44_000..opened + 46_000).contains(&aborted), "lease and half of it: {transaction}");
    }
    let mut paged = Vec::new();
    let mut place = String::new();
    loop {
        let page = http.ask(HttpRoute::Transactions, &format!("{path}?limit=1&next={place}")).await.json();
        paged.extend(page["transactions"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut place),
            None => break,
        }
    }
    let id = |transaction: &Value| transaction["id"].clone();
    assert_eq!(paged.iter().map(id).collect::<Vec<_>>(), listed.iter().map(id).collect::<Vec<_>>());
    let first = ids.first().unwrap().unwrap();
    let uuid = format!("{:032x}", (u128::from(first.high_bits as u64) << 64) | u128::from(first.low_bits as u64));
    assert_eq!(listed[0]["id"].as_str().unwrap().replace('-', ""), uuid);

    // The same over all streams, with one of another stream before them.
    let scope = proto::ScopeInfo { scope: "a".into() };
    controller.create_scope(scope).await.unwrap();
    let elsewhere = proto::StreamInfo { scope: "a".into(), stream: "u".into(), access_operation: 0 };
    let config = proto::StreamConfig {
        stream_info: Some(elsewhere.clone()),
        scaling_policy: Some(proto::ScalingPolicy { min_num_segments: 1, ..Default::default() }),
        ..Default::default()
    };
    controller.create_stream(config).await.unwrap();
    let request = proto::CreateTxnRequest { stream_info: Some(elsewhere), lease: 20_000, scale_grace_period: 0 };
    controller.create_transaction(request).await.unwrap();
    let all = http.ask(HttpRoute::OpenTransactions, "/v1/transactions").await.json();
    let names: Vec<_> =
        all["transactions"].as_array().unwrap().iter().map(|one| (&one["scopeName"], &one["streamName"])).collect();
    let (u, t) = ((&json!("a"), &json!("u")), (&json!("s"), &json!("t")));
    assert_eq!((names, &all["next"]), (vec![u, t, t, t], &Value::Null));
    let mut paged = Vec::new();
    let mut place = String::new();
    loop {
        let page = format!("/v1/transactions?limit=3&next={place}");
        let page = http.ask(HttpRoute::OpenTransactions, &page).await.json();
        paged.extend(page["transactions"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut place),
            None => break,
        }
    }
    // When they end is told by the wall clock as it is at each request.
    let mut same = all["transactions"].clone();
    for (one, other) in same.as_array_mut().unwrap().iter_mut().zip(&paged) {
        let (told, again) = (one["abortedAt"].as_i64().unwrap(), other["abortedAt"].as_i64().unwrap());
        assert!(told.abs_diff(again) < 1000, "{one} {other}");
        one["abortedAt"] = json!(again);
    }
    assert_eq!(json!(paged), same);
    for bad in ["?next=x", "?next=a/u/7", "?next=a/b/c/00000000000000000000000000000001", "?limit=0", "?limit=1001"] {
        assert_eq!(http.ask(HttpRoute::OpenTransactions, &format!("/v1/transactions{bad}")).await.status, 400, "{bad}");
    }

    for txn_id in ids {
        let request =
            proto::TxnRequest { stream_info: Some(info("t")), txn_id, writer_id: String::new(), timestamp: i64::MIN };
        controller.abort_transaction(request).await.unwrap();
    }
    while !http.ask(HttpRoute::Transactions, &path).await.json()["transactions"].as_array().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    running.server.stop().await;
}

/// Text as Java writers put it.
fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

fn segment(number: i32, epoch: i32) -> Vec<u8> {
    text(&format!("s/t/{number}.#epoch.{epoch}"))
}

/// A record of a type with one revision.
fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0, kind, 0, 1, 0][..], &length, body].concat()
}

/// An event that has a whole state, or some updates.
fn event(kind: i32, records: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = kind.to_be_bytes().to_vec();
    for record in records {
        if kind == 2 {
            payload.extend(i32::try_from(record.len()).unwrap().to_be_bytes());
        }
        payload.extend(record);
    }
    let length = i32::try_from(payload.len()).unwrap();
    [&[0; 4][..], &length.to_be_bytes(), &payload].concat()
}

fn long(number: i64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_of_a_group_follows_what_its_readers_write_down() {
    let running = Running::start(|_| {}).await;
    with_stream(&running).await;
    let http = Documented::new(&running).await;
    let groups = "/v1/scopes/s/readergroups";
    assert_eq!(http.ask(HttpRoute::ListGroups, groups).await.json(), json!({"readerGroups": []}));
    let cut = proto::StreamCut { stream_info: Some(info("t")), cut: Default::default() };
    let request = proto::ReaderGroupConfiguration {
        scope: "s".into(),
        reader_group_name: "g".into(),
        reader_group_id: "00000000-0000-0000-0000-000000000001".into(),
        starting_stream_cuts: vec![cut.clone()],
        ending_stream_cuts: vec![cut],
        ..Default::default()
    };
    running.controller().await.create_reader_group(request).await.unwrap();
    let listed = http.ask(HttpRoute::ListGroups, groups).await.json();
    assert_eq!(listed, json!({"readerGroups": [{"readerGroupName": "g"}]}));
    let group = format!("{groups}/g");
    let property = |readers: &[&str]| json!({"scopeName": "s", "readerGroupName": "g", "streamList": ["t"], "onlineReaderIds": readers});
    assert_eq!(http.ask(HttpRoute::GetGroup, &group).await.json(), property(&[]));
    let lag = async || http.ask(HttpRoute::GroupLag, &format!("{group}/lag")).await.json();
    assert_eq!(lag().await["unreadBytes"], Value::Null, "no reader has written anything");

    let mut store = running.store().await;
    let mut number = 0;
    let mut append = async |segment: &str, data: &[u8]| {
        store.set_up(1, segment).await;
        number += 1;
        assert!(matches!(store.append(1, number, data).await, Reply::DataAppended { .. }), "{segment}");
    };
    append("s/t/0.#epoch.0", &[0; 100]).await;
    append("s/t/1.#epoch.0", &[0; 40]).await;
    let state = "s/_RGg/0.#epoch.0";
    let positions = |list: &[(Vec<u8>, i64)]| {
        let entries = list.iter().flat_map(|(segment, offset)| [segment.clone(), long(*offset)].concat());
        [u8::try_from(list.len()).unwrap()].into_iter().chain(entries).collect::<Vec<u8>>()
    };
    let configuration = headwater_records::group::GroupConfiguration::default().encode().unwrap();
    let length = u8::try_from(configuration.len()).ok().filter(|length| *length < 0x80).unwrap();
    let configuration = [&[length][..], &configuration].concat();
    let whole = [configuration, positions(&[(segment(0, 0), 0), (segment(1, 0), 0)]), vec![0]].concat();
    append(state, &event(1, &[record(0, &whole)])).await;
    assert_eq!(lag().await["unreadBytes"], 140);
    let reader = |kind: u8, rest: &[u8]| record(kind, &[&text("r")[..], rest].concat());
    append(state, &event(2, &[reader(2, &[]), reader(5, &segment(0, 0))])).await;
    assert_eq!(http.ask(HttpRoute::GetGroup, &group).await.json(), property(&["r"]));

    // What it has read, with the ranges of the segments.
    let keys = [0.0, 0.5_f64].map(f64::to_be_bytes).concat();
    let ranged = [vec![1], segment(0, 0), keys, long(60)].concat();
    let length = |body: &[u8]| i32::try_from(body.len()).unwrap().to_be_bytes();
    let distance = [text("r"), long(1)].concat();
    let mut read = [&[0, 6, 0, 2, 0][..], &length(&distance), &distance].concat();
    read.extend([&[1][..], &length(&ranged), &ranged].concat());
    append(state, &event(2, &[read])).await;
    let now = lag().await;
    assert_eq!(now["unreadBytes"], 80, "{now}");
    let expected = json!([
        {"segmentId": "0", "number": 0, "epoch": 0, "readerId": "r", "offset": 60, "unreadBytes": 40},
        {"segmentId": "1", "number": 1, "epoch": 0, "readerId": null, "offset": 0, "unreadBytes": 40},
    ]);
    assert_eq!(now["streams"][0]["segments"], expected);

    // The stream parts its keys another way, and the reader has come to the end of one of its segments.
    scale(&running, &[0, 1], &[(0.0, 0.75), (0.75, 1.0)]).await;
    append("s/t/2.#epoch.1", &[0; 7]).await;
    assert_eq!(lag().await["unreadBytes"], 87);
    let both = [segment(2, 1), vec![2], long(0), long(1)].concat();
    let of_first = [segment(0, 0), vec![1], both.clone()].concat();
    append(state, &event(2, &[reader(7, &of_first)])).await;
    assert_eq!(lag().await["unreadBytes"], 47, "the other one keeps it from the next");
    let of_second = [segment(1, 0), vec![2], both, segment(3, 1), vec![1], long(1)].concat();
    append(state, &event(2, &[reader(5, &segment(1, 0)), reader(7, &of_second)])).await;
    let now = lag().await;
    assert_eq!(now["unreadBytes"], 7, "{now}");
    append(state, &event(2, &[reader(5, &segment(2, 1)), reader(3, &positions(&[(segment(2, 1), 5)]))])).await;
    let now = lag().await;
    assert_eq!((&now["unreadBytes"], &now["onlineReaderIds"]), (&json!(2), &json!([])), "{now}");

    // A truncation behind the readers changes nothing; one beyond them leaves what is there.
    let cut = proto::StreamCut { stream_info: Some(info("t")), cut: [(1 << 32 | 2, 6), (1 << 32 | 3, 0)].into() };
    running.controller().await.truncate_stream(cut).await.unwrap();
    assert_eq!(lag().await["unreadBytes"], 1);

    // A few hundred KiB that would be hundreds of MiB to tell: a long name, with each of many segments.
    let stream = ScopedStream { scope: Name::parse("s").unwrap(), stream: Name::parse("t").unwrap() };
    let held = (0..1000).map(|number| (StreamSegment { stream: stream.clone(), id: SegmentId::new(number, 0) }, 0));
    let assigned = [("n".repeat(60_000), held.collect())].into();
    let hostile = Initial::Compacted(Box::new(Compacted { assigned, ..Compacted::default() })).encode().unwrap();
    append(state, &event(1, &[hostile.to_vec()])).await;
    for _ in 0..5 {
        assert_eq!(http.ask(HttpRoute::GetGroup, &group).await.status, 507);
        assert_eq!(http.ask(HttpRoute::GroupLag, &format!("{group}/lag")).await.status, 507);
    }
    append(state, &event(1, &[record(0, &whole)])).await;
    assert_eq!(lag().await["unreadBytes"], 1, "what was taken is given back");

    // Bytes that no reader wrote.
    append(state, b"\0\0\0\0\0\0\0\x04nope").await;
    for (route, path) in [(HttpRoute::GetGroup, group.clone()), (HttpRoute::GroupLag, format!("{group}/lag"))] {
        let answer = http.ask(route, &path).await;
        assert_eq!(answer.status, 409, "{answer:?}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with("what clients wrote for reader group s/g is no state of a group: "), "{detail}");
    }

    assert_eq!(http.ask(HttpRoute::DeleteGroup, &group).await.status, 204);
    assert_eq!(http.ask(HttpRoute::DeleteGroup, &group).await.status, 404);
    assert_eq!(http.ask(HttpRoute::GetGroup, &group).await.status, 404);
    let request_id = 9;
    let gone = Wire::GetStreamSegmentInfo { request_id, segment: state.into(), token: Token::default() };
    assert!(matches!(running.store().await.ask(gone).await, Reply::NoSuchSegment { .. }));
    running.server.stop().await;
}

/// A short text in CBOR.
fn cbor(text: &str) -> Vec<u8> {
    [&[0x78, u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat()
}

/// A value as Rust and Python clients put it: its type, and its bytes as a list.
fn typed(kind: &str, data: &[u8]) -> Vec<u8> {
    let bytes = data.iter().flat_map(|byte| [0x18, *byte]);
    let count = [0x98, u8::try_from(data.len()).unwrap()];
    [vec![0xa2], cbor("type_id"), cbor(kind), cbor("data"), count.to_vec(), bytes.collect()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_of_a_group_that_lies_in_a_table_is_told_and_other_tables_are_no_groups() {
    let running = Running::start(|_| {}).await;
    with_stream(&running).await;
    let http = Documented::new(&running).await;
    let mut store = running.store().await;
    store.set_up(1, "s/t/0.#epoch.0").await;
    store.append(1, 1, &[0; 100]).await;
    let lag = "/v1/scopes/s/readergroups/g/lag";
    assert_eq!(http.ask(HttpRoute::GroupLag, lag).await.status, 404);

    let table = "s/g_kvtable/0.#epoch.0";
    let created = store
        .ask(Wire::CreateTableSegment {
            request_id: 1,
            segment: table.into(),
            token: Token::default(),
            sorted: false,
            key_length: 0,
            rollover_bytes: 0,
        })
        .await;
    assert!(matches!(created, Reply::SegmentCreated { .. }), "{created:?}");
    let mut put = async |key: &str, value: Vec<u8>| {
        let key = TableKey { key: cbor(key).into(), version: i64::MIN };
        let entries = vec![TableEntry { key, value: value.into() }];
        let (segment, token) = (table.into(), Token::default());
        let reply =
            store.ask(Wire::UpdateTableEntries { request_id: 2, segment, token, entries, table_offset: -1 }).await;
        assert!(matches!(reply, Reply::TableEntriesUpdated { .. }), "{reply:?}");
    };
    put("19unassigned_segments/s/t/1.#epoch.0", typed("Offset", b"\xa1\x64read\x00")).await;
    assert_eq!(http.ask(HttpRoute::GroupLag, lag).await.status, 404, "a table of whatever it may be");
    put("06config/default", typed("ReaderGroupConfigVersioned", b"")).await;
    put("17assigned_segments/r", typed("HashMap<ScopedSegment, Offset>", b"\xa0")).await;
    put("19unassigned_segments/s/t/0.#epoch.0", typed("Offset", b"\xa1\x64read\x18\x3c")).await;
    let found = http.ask(HttpRoute::GroupLag, lag).await.json();
    assert_eq!((&found["unreadBytes"], &found["onlineReaderIds"]), (&json!(40), &json!(["r"])), "{found}");
    // It is no object of the server.
    assert_eq!(http.ask(HttpRoute::GetGroup, "/v1/scopes/s/readergroups/g").await.status, 404);
    assert_eq!(http.ask(HttpRoute::DeleteGroup, "/v1/scopes/s/readergroups/g").await.status, 404);
    put("19unassigned_segments/s/t/0.#epoch.0", typed("Offset", b"\x01")).await;
    assert_eq!(http.ask(HttpRoute::GroupLag, lag).await.status, 409, "bytes that no reader wrote");
    running.server.stop().await;
}
