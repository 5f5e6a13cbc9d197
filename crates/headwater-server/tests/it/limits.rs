//! What a peer that is hostile, slow or out of order meets, and what its neighbours notice of it: nothing.

use bytes::{BufMut, BytesMut};
use headwater_engine::api::Request as Engine;
use headwater_server::connection::{PARKED_READS_MAX, TRANSIENTS_MAX};
use headwater_types::{SegmentName, WriterId};
use headwater_wire::{ClientEnd, FrameQueue, Reply, Request, Token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{PATIENCE, SEGMENT, Store, acknowledged, entry, outgoing, read};

/// Sends bytes on a new connection; the server has to close it. Returns what it said before.
async fn closed_after(store: &Store, bytes: &[u8]) -> Vec<u8> {
    let mut socket = store.socket().await;
    socket.write_all(bytes).await.unwrap();
    let mut said = Vec::new();
    tokio::time::timeout(PATIENCE, socket.read_to_end(&mut said)).await.expect("the server closes").unwrap();
    said
}

fn hello() -> BytesMut {
    let mut out = BytesMut::new();
    ClientEnd::connect(&mut out);
    out
}

fn frame(code: i32, payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i32(code);
    out.put_i32(payload.len() as i32);
    out.extend_from_slice(payload);
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_the_protocol_closes_that_connection_and_no_other() {
    let store = Store::open().await;
    let mut witness = store.client().await;
    witness.create(SEGMENT).await;
    let mut hostile: Vec<BytesMut> = vec![
        frame(11, &[0; 12]),
        frame(-127, &[0, 0, 0, 3, 0, 0, 0, 2]),
        BytesMut::from(&b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"[..]),
    ];
    for after_hello in [
        frame(12345, b""),
        frame(7, &[0; 40]),
        frame(3, &[0; 20]),
        frame(4, &[0; 44]),
        frame(11, &[0; 3]),
        BytesMut::from(&[0, 0, 0, 9, 0x7f, 0xff, 0xff, 0xff][..]),
        BytesMut::from(&[0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff][..]),
    ] {
        let mut bytes = hello();
        bytes.extend_from_slice(&after_hello);
        hostile.push(bytes);
    }
    let count = hostile.len();
    for bytes in hostile {
        closed_after(&store, &bytes).await;
        assert_eq!(witness.length(SEGMENT).await, 0);
    }
    assert_eq!(store.metrics.protocol_errors.get(), count as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_without_overlap_are_answered_and_closed() {
    let store = Store::open().await;
    let said = closed_after(&store, &frame(-127, &[0, 0, 0, 99, 0, 0, 0, 90])).await;
    assert_eq!(said, hello(), "our own hello says why");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_of_a_writer_whose_setup_was_refused_closes_the_connection() {
    let store = Store::open().await;
    let mut client = store.client().await;
    assert!(matches!(client.try_set_up(1, SEGMENT).await, Reply::NoSuchSegment { .. }));
    client.put_append(1, 1, b"a");
    client.send().await;
    assert_eq!(client.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_right_behind_hello_are_answered_after_it() {
    let store = Store::open().await;
    store.client().await.create(SEGMENT).await;
    let mut out = FrameQueue::new();
    let mut end = ClientEnd::connect(&mut out);
    end.request(&read(SEGMENT, -1, 10, 4), &mut out).unwrap();
    end.keep_alive(&mut out);
    let mut socket = store.socket().await;
    while bytes::Buf::has_remaining(&out) {
        socket.write_buf(&mut out).await.unwrap();
    }
    let (mut input, mut replies) = (BytesMut::new(), Vec::new());
    while replies.len() < 3 {
        match end.next_reply(&mut input).unwrap() {
            Some(reply) => replies.push(reply),
            None => assert!(socket.read_buf(&mut input).await.unwrap() > 0),
        }
    }
    assert_eq!(replies[0], Reply::hello());
    assert!(matches!(replies[1], Reply::ErrorMessage { request_id: 4, .. }));
    assert_eq!(replies[2], Reply::KeepAlive);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_is_not_read_from_and_loses_nothing() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    client.set_up(1, SEGMENT).await;
    let data = vec![3; 2 << 20];
    for number in 1..=8 {
        client.append(1, number, &data).await;
    }
    // 64 replies of 2 MiB: far more than the sockets' buffers and the server's limit hold.
    for id in 0..64 {
        client.end.request(&read(SEGMENT, (id % 8) * (2 << 20), 2 << 20, id), &mut client.out).unwrap();
    }
    client.send().await;
    let mut other = store.client().await;
    assert_eq!(other.length(SEGMENT).await, 16 << 20, "others are served meanwhile");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..64 {
        match client.reply().await {
            Reply::SegmentRead { offset, data: found, request_id, .. } => {
                assert_eq!(offset, (request_id % 8) * (2 << 20));
                assert!(found == data);
                assert!(seen.insert(request_id), "one reply per request");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_beyond_the_limit_of_a_connection_wait_and_are_all_stored() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    client.set_up(1, SEGMENT).await;
    let data = vec![4; 4 << 20];
    for number in 1..=24 {
        client.end.append(outgoing(1, number, &data), &mut client.out).unwrap();
    }
    // 96 MiB while nobody reads the answers: the server takes them all in the end.
    client.send().await;
    let mut previous = i64::MIN;
    for number in 1..=24 {
        assert_eq!(client.reply().await, acknowledged(1, number, previous, number * data.len() as i64));
        previous = number;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_a_connection_that_is_gone_are_dropped() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    client.tell(read(SEGMENT, 0, 100, 1)).await;
    assert_eq!(client.length(SEGMENT).await, 0);
    drop(client);
    // Whether the store still holds it cannot be seen from outside; that it goes on working can.
    let segment = SegmentName::parse(SEGMENT).unwrap();
    assert!(store.engine.call(Engine::Seal { segment }).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_what_is_under_way_and_ends_the_connection() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    client.set_up(1, SEGMENT).await;
    client.tell(read(SEGMENT, 0, 10, 1)).await;
    for number in 1..=10 {
        client.put_append(1, number, b"a");
    }
    client.send().await;
    // The last append was read if the question behind it is answered.
    let mut replies = vec![client.info(SEGMENT).await];
    store.stopping.cancel();
    while let Some(reply) = client.next().await {
        replies.push(reply);
    }
    let acknowledged = replies.iter().filter(|reply| matches!(reply, Reply::DataAppended { .. })).count();
    assert_eq!(acknowledged, 10);
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_closed_and_one_that_said_hello_may_be_silent() {
    let store = Store::open().await;
    let mut greeted = store.client().await;
    let mut silent = store.socket().await;
    let mut half = store.socket().await;
    half.write_all(&hello()).await.unwrap();
    let mut said = hello();
    half.read_exact(&mut said).await.unwrap();
    assert_eq!(said, hello());
    half.write_all(&[0, 0, 0, 9]).await.unwrap();

    // Time jumps to the next deadline whenever nothing else is left to do.
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    for socket in [&mut silent, &mut half] {
        assert_eq!(socket.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    }
    assert!(begun.elapsed() > std::time::Duration::from_secs(9));
    tokio::time::advance(std::time::Duration::from_secs(3600)).await;
    tokio::time::resume();
    greeted.create(SEGMENT).await;
}

#[tokio::test]
async fn a_peer_that_takes_nothing_for_a_minute_is_closed() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    client.set_up(1, SEGMENT).await;
    for number in 1..=8 {
        client.append(1, number, &vec![3; 2 << 20]).await;
    }
    for id in 0..64 {
        client.end.request(&read(SEGMENT, (id % 8) * (2 << 20), 2 << 20, id), &mut client.out).unwrap();
    }
    client.send().await;
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    while store.metrics.stalled.get() == 0 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(180), "it is still there");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        // The engine's threads do not live by this clock.
        std::thread::park_timeout(std::time::Duration::from_millis(1));
    }
    assert!(begun.elapsed() >= std::time::Duration::from_secs(60));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_the_room_for_answers_from_others_is_closed() {
    let store = Store::open().await;
    let mut client = store.client().await;
    const TABLE: &str = "scope/large_kvtable/0.#epoch.0";
    let request_id = client.id();
    let create = Request::CreateTableSegment {
        request_id,
        segment: TABLE.into(),
        token: Token::default(),
        sorted: false,
        key_length: 0,
        rollover_bytes: 0,
    };
    assert!(matches!(client.ask(create).await, Reply::SegmentCreated { .. }));
    let keys: Vec<String> = (0..15).map(|number| format!("key-{number}")).collect();
    for key in &keys {
        let request_id = client.id();
        let put = Request::UpdateTableEntries {
            request_id,
            segment: TABLE.into(),
            token: Token::default(),
            entries: vec![entry(key, -1, &"v".repeat(1_000_000))],
            table_offset: -1,
        };
        assert!(matches!(client.ask(put).await, Reply::TableEntriesUpdated { .. }));
    }
    let get = |request_id, keys: &[String]| Request::ReadTable {
        request_id,
        segment: TABLE.into(),
        token: Token::default(),
        keys: keys.iter().map(|key| entry(key, i64::MIN, "").key).collect(),
    };
    let mut hogs = Vec::new();
    for _ in 0..3 {
        let mut hog = store.client().await;
        for id in 0..2 {
            hog.tell(get(id, &keys)).await;
        }
        hogs.push(hog);
    }
    match client.ask(get(77, &keys[..1])).await {
        Reply::TableRead { request_id: 77, entries, .. } => assert_eq!(entries[0].value.len(), 1_000_000),
        other => panic!("{other:?}"),
    }
    assert!(store.metrics.stalled.get() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_all_connections_that_wait_have_a_common_limit() {
    let store = Store::open().await;
    let mut witness = store.client().await;
    witness.create(SEGMENT).await;
    witness.tell(read(SEGMENT, 0, 100, 1)).await;
    let (mut first, mut second) = (store.client().await, store.client().await);
    for client in [&mut first, &mut second] {
        for id in 0..10_000 {
            client.end.request(&read(SEGMENT, 0, 100, id), &mut client.out).unwrap();
        }
    }
    first.send().await;
    assert_eq!(first.length(SEGMENT).await, 0);
    // The server may close before all of it is sent.
    while bytes::Buf::has_remaining(&second.out) && second.socket.write_buf(&mut second.out).await.is_ok() {}
    let mut scrap = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, second.socket.read_to_end(&mut scrap)).await.expect("the server closes");
    let mut writer = store.client().await;
    writer.set_up(1, SEGMENT).await;
    writer.append(1, 1, b"x").await;
    assert!(matches!(first.reply().await, Reply::SegmentRead { .. }), "whoever came before is served");
    assert!(matches!(witness.reply().await, Reply::SegmentRead { .. }), "a few reads are always free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_a_bounded_number_of_uploads() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    let create = |request_id| {
        let (writer, parent, token) = (WriterId(9), SEGMENT.into(), Token::default());
        Request::CreateTransientSegment { request_id, writer, parent, token }
    };
    let most = i64::try_from(TRANSIENTS_MAX).unwrap();
    for id in 0..=most {
        client.end.request(&create(id), &mut client.out).unwrap();
    }
    client.send().await;
    // Those before it are answered, or given up with the connection.
    let mut made = 0;
    while let Some(reply) = client.next().await {
        assert!(matches!(reply, Reply::SegmentCreated { .. }), "{reply:?}");
        made += 1;
    }
    assert!(made <= most, "{made} uploads");
    let mut other = store.client().await;
    assert!(matches!(other.ask(create(0)).await, Reply::SegmentCreated { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_a_bounded_number_of_reads_that_wait() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    for _ in 0..PARKED_READS_MAX {
        client.end.request(&read(SEGMENT, 0, 100, 1), &mut client.out).unwrap();
    }
    client.send().await;
    assert_eq!(client.length(SEGMENT).await, 0, "so many wait and hold nobody up");
    client.tell(read(SEGMENT, 0, 100, 1)).await;
    assert_eq!(client.next().await, None);
    assert_eq!(store.metrics.protocol_errors.get(), 1);
}
