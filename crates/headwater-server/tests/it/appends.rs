//! Writers: acknowledgements, reconnects, seals, conditions, uploads of large events.

use headwater_types::WriterId;
use headwater_wire::{Reply, Request, Token};

use crate::client::{Client, SEGMENT, Store, acknowledged, outgoing, read};

const NOTHING: i64 = i64::MIN;

/// Data that one read returns.
async fn content(client: &mut Client, segment: &str) -> Vec<u8> {
    let id = client.id();
    match client.ask(read(segment, 0, 1 << 20, id)).await {
        Reply::SegmentRead { offset: 0, data, .. } => data.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_come_in_order_and_name_the_one_before() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    assert_eq!(client.set_up(1, SEGMENT).await, NOTHING);
    let mut previous = NOTHING;
    for number in 1..=500 {
        client.put_append(1, number, b"ab");
    }
    client.send().await;
    for number in 1..=500 {
        assert_eq!(client.reply().await, acknowledged(1, number, previous, number * 2));
        previous = number;
    }
    assert_eq!(store.metrics.appends.get(), 500);
    assert_eq!(store.metrics.append_bytes.get(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_reconnects_learns_what_was_stored_and_goes_on() {
    let store = Store::open().await;
    let mut first = store.client().await;
    first.create(SEGMENT).await;
    first.set_up(1, SEGMENT).await;
    first.append(1, 7, b"a").await;
    drop(first);
    let mut second = store.client().await;
    assert_eq!(second.set_up(1, SEGMENT).await, 7);
    assert_eq!(second.append(1, 8, b"b").await, acknowledged(1, 8, 7, 2));
    assert_eq!(content(&mut second, SEGMENT).await, b"ab");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_connections_of_one_writer_the_older_loses_and_is_closed() {
    let store = Store::open().await;
    let (mut old, mut new) = (store.client().await, store.client().await);
    old.create(SEGMENT).await;
    old.set_up(1, SEGMENT).await;
    new.set_up(1, SEGMENT).await;
    new.append(1, 1, b"new").await;
    match old.append(1, 1, b"old").await {
        Reply::InvalidEventNumber { writer: WriterId(1), request_id: 1, event_number: 1, .. } => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(old.next().await, None);
    assert_eq!(content(&mut new, SEGMENT).await, b"new");
    assert!(store.metrics.render(None, None).contains("appends_refused_total{reason=\"stale\"} 1\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_segment_still_says_what_was_stored_and_refuses_each_append_once() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    client.set_up(1, SEGMENT).await;
    client.append(1, 1, b"a").await;
    client.seal(SEGMENT).await;
    assert_eq!(client.set_up(1, SEGMENT).await, 1, "a setup of a sealed segment succeeds");
    match client.append(1, 2, b"b").await {
        Reply::SegmentIsSealed { request_id: 2, segment, offset: 2, .. } => assert_eq!(&*segment, SEGMENT),
        other => panic!("{other:?}"),
    }
    // Dropped without a word: the next reply is the one to the question after it.
    client.put_append(1, 3, b"c");
    assert_eq!(client.length(SEGMENT).await, 1);
    assert!(store.metrics.render(None, None).contains("appends_refused_total{reason=\"sealed\"} 1\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_of_no_bytes_is_stored_and_acknowledged() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    client.set_up(1, SEGMENT).await;
    assert_eq!(client.append(1, 3, b"").await, acknowledged(1, 3, NOTHING, 0));
    assert_eq!(client.set_up(1, SEGMENT).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_event_and_blocks_in_the_manner_of_java_arrive_whole() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    client.set_up(1, SEGMENT).await;
    let large = vec![7; (8 << 20) + 8];
    assert_eq!(client.append(1, 1, &large).await, acknowledged(1, 1, NOTHING, large.len() as i64));

    client.end.open_block(outgoing(1, 2, b"hello"), 16, &mut client.out).unwrap();
    assert!(client.end.append_to_block(&outgoing(1, 3, b"pravega, in two pieces"), &mut client.out).unwrap());
    client.send().await;
    let length = large.len() as i64 + 27;
    match client.reply().await {
        Reply::DataAppended { event_number: 3, previous_event_number: 1, segment_length, .. } => {
            assert_eq!(segment_length, length);
        }
        other => panic!("{other:?}"),
    }
    let id = client.id();
    match client.ask(read(SEGMENT, large.len() as i64, 100, id)).await {
        Reply::SegmentRead { data, .. } => assert_eq!(&data[..], b"hellopravega, in two pieces"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conditional_append_that_fails_leaves_the_writer_usable() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    client.set_up(1, SEGMENT).await;
    assert_eq!(client.append_at(1, 0, 0, b"abc").await, acknowledged(1, 0, NOTHING, 3));
    for (number, offset) in [(1, 0), (2, 4), (3, -1)] {
        let expected = Reply::ConditionalCheckFailed { writer: WriterId(1), event_number: number, request_id: number };
        assert_eq!(client.append_at(1, number, offset, b"x").await, expected);
    }
    assert_eq!(client.append_at(1, 4, 3, b"d").await, acknowledged(1, 4, 0, 4));
    assert!(store.metrics.render(None, None).contains("appends_refused_total{reason=\"condition\"} 3\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_is_not_there_takes_no_writer() {
    let store = Store::open().await;
    let mut client = store.client().await;
    for name in [SEGMENT, "", "not a name", "_system/_tables/scopes"] {
        match client.try_set_up(1, name).await {
            Reply::NoSuchSegment { segment, offset: -1, .. } => assert_eq!(&*segment, name),
            other => panic!("{other:?}"),
        }
    }
    client.create(SEGMENT).await;
    assert_eq!(client.set_up(1, SEGMENT).await, NOTHING);
    let request_id = client.id();
    client.ask(Request::DeleteSegment { request_id, segment: SEGMENT.into(), token: Token::default() }).await;
    match client.append(1, 1, b"a").await {
        Reply::NoSuchSegment { request_id: 1, offset: -1, .. } => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_writer_id_may_write_to_one_segment_after_another() {
    let store = Store::open().await;
    let mut client = store.client().await;
    let other = "scope/stream/1.#epoch.0";
    client.create(SEGMENT).await;
    client.create(other).await;
    for segment in [SEGMENT, other] {
        assert_eq!(client.set_up(1, segment).await, NOTHING);
        assert_eq!(client.append(1, 1, b"a").await, acknowledged(1, 1, NOTHING, 1));
    }
    assert_eq!(client.set_up(1, SEGMENT).await, 1, "the state belongs to segment and writer");
}

async fn create_transient(client: &mut Client, parent: &str) -> String {
    let request_id = client.id();
    let (writer, token) = (WriterId(9), Token::default());
    match client.ask(Request::CreateTransientSegment { request_id, writer, parent: parent.into(), token }).await {
        Reply::SegmentCreated { segment, .. } => segment.to_string(),
        other => panic!("{other:?}"),
    }
}

async fn merge(client: &mut Client, target: &str, source: &str) -> Reply {
    let request_id = client.id();
    let request = Request::MergeSegments {
        request_id,
        target: target.into(),
        source: source.into(),
        token: Token::default(),
        attribute_updates: Vec::new(),
    };
    client.ask(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_event_is_uploaded_beside_the_stream_and_merged_at_once() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    let name = create_transient(&mut client, SEGMENT).await;
    assert!(name.starts_with(&format!("{SEGMENT}#transient.{:032x}.", 9)), "{name}");
    assert_eq!(client.set_up(9, &name).await, NOTHING);
    let piece = vec![5; 8 << 20];
    for number in 0..3 {
        let offset = number * piece.len() as i64;
        let previous = if number == 0 { NOTHING } else { number - 1 };
        let expected = acknowledged(9, number, previous, offset + piece.len() as i64);
        assert_eq!(client.append_at(9, number, offset, &piece).await, expected);
    }
    assert_eq!(client.length(SEGMENT).await, 0);
    match merge(&mut client, SEGMENT, &name).await {
        Reply::SegmentsMerged { target_length, .. } => assert_eq!(target_length, 3 * piece.len() as i64),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.length(SEGMENT).await, 3 * piece.len() as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_learns_from_its_appends_that_the_parent_is_sealed() {
    let store = Store::open().await;
    let mut client = store.client().await;
    client.create(SEGMENT).await;
    let name = create_transient(&mut client, SEGMENT).await;
    client.set_up(9, &name).await;
    client.seal(SEGMENT).await;
    match client.append_at(9, 0, 0, b"abc").await {
        Reply::SegmentIsSealed { segment, request_id: 0, .. } => assert_eq!(&*segment, SEGMENT),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_with_its_connection_and_no_other() {
    let store = Store::open().await;
    let (mut client, mut other) = (store.client().await, store.client().await);
    client.create(SEGMENT).await;
    let kept = create_transient(&mut other, SEGMENT).await;
    let dropped = create_transient(&mut client, SEGMENT).await;
    drop(client);
    let gone = async {
        while !matches!(other.info(&dropped).await, Reply::NoSuchSegment { .. }) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::client::PATIENCE, gone).await.expect("the upload is deleted");
    assert_eq!(other.length(&kept).await, 0);
}
