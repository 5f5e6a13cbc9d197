use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_client::{ErrorKind, EventWriterOptions, KeyRange};

use super::Store;

/// `key` and a number, which each key counts for itself.
fn event(key: usize, number: usize) -> Bytes {
    format!("{key} {number} {}", "x".repeat(number % 50)).into()
}

/// Each key's numbers in the order in which they were read.
fn by_key(events: &[Bytes]) -> BTreeMap<usize, Vec<usize>> {
    let mut found: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for event in events {
        let text = std::str::from_utf8(event).unwrap();
        let mut words = text.split(' ');
        let mut number = || words.next().unwrap().parse().unwrap();
        let key = number();
        found.entry(key).or_default().push(number());
    }
    found
}

#[track_caller]
fn assert_each_once_in_order(events: &[Bytes], keys: usize, count: usize) {
    let found = by_key(events);
    assert_eq!(found.len(), keys);
    for (key, numbers) in found {
        assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "key {key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_stored_once_in_order_per_key_and_where_the_writer_is_told() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 3).await;
    let writer = store.client.event_writer(&stream, Default::default()).await.unwrap();
    let mut acks = Vec::new();
    for number in 0..500 {
        for key in 0..7 {
            acks.push((writer.write(&key.to_string(), event(key, number)).await.unwrap(), event(key, number)));
        }
    }
    writer.flush().await.unwrap();
    assert_eq!(writer.bytes_under_way(), 0);
    assert_each_once_in_order(&store.read_all(&stream).await, 7, 500);
    for (ack, event) in acks {
        let written = ack.await.unwrap();
        let start = written.offset.unwrap();
        let slice = headwater_client::SegmentSlice {
            stream: stream.clone(),
            segment: written.segment,
            start,
            end: start + written.length,
        };
        let mut reader = store.client.read_slice(&slice);
        assert_eq!(reader.next().await.unwrap(), Some((start, event)));
        assert_eq!(reader.next().await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn splits_and_merges_under_a_writer_lose_and_double_and_reorder_nothing() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let options = EventWriterOptions::default().batch_bytes(1 << 10).window_bytes(64 << 10);
    let writer = store.client.event_writer(&stream, options).await.unwrap();
    let writing = tokio::spawn({
        let writer = writer.clone();
        async move {
            for number in 0..3000 {
                for key in 0..10 {
                    let _ = writer.write(&key.to_string(), event(key, number)).await.unwrap();
                }
            }
        }
    });
    for parts in [2, 5, 3, 1, 4] {
        let sealed: Vec<_> =
            store.client.current_segments(&stream).await.unwrap().into_iter().map(|segment| segment.id).collect();
        store.client.scale_stream(&stream, &sealed, &KeyRange::split(parts)).await.unwrap();
    }
    writing.await.unwrap();
    writer.flush().await.unwrap();
    assert_each_once_in_order(&store.read_all(&stream).await, 10, 3000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_stream_refuses_what_is_written() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 2).await;
    let writer = store.client.event_writer(&stream, Default::default()).await.unwrap();
    writer.write("a", "before").await.unwrap().await.unwrap();
    store.client.seal_stream(&stream).await.unwrap();
    let error = writer.write("a", "after").await.unwrap().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Sealed);
    assert_eq!(writer.write("b", "later").await.unwrap_err().kind(), ErrorKind::Sealed);
    assert_eq!(writer.flush().await.unwrap_err().kind(), ErrorKind::Sealed);
    assert_eq!(store.read_all(&stream).await, ["before"]);
    let error = store.client.event_writer(&stream, Default::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Sealed);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_events_keep_their_place_among_the_others() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let writer = store.client.event_writer(&stream, Default::default()).await.unwrap();
    let large: Bytes = (0..20_000_000u32).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
    let events = [Bytes::from("small"), large.clone(), "between".into(), large.slice(..9_000_000), "last".into()];
    for event in &events {
        let _ = writer.write("key", event.clone()).await.unwrap();
    }
    writer.flush().await.unwrap();
    let found = store.read_all(&stream).await;
    assert_eq!(found.iter().map(Bytes::len).collect::<Vec<_>>(), events.iter().map(Bytes::len).collect::<Vec<_>>());
    assert!(found == events);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_event_can_be_is_refused() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let writer = store.client.event_writer(&stream, Default::default()).await.unwrap();
    for error in [writer.write("a", "").await.unwrap_err(), writer.write_all("a", &[]).await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_window_makes_writers_wait_and_nothing_else() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let writer =
        store.client.event_writer(&stream, EventWriterOptions::default().window_bytes(64 << 10)).await.unwrap();
    let data = Bytes::from(vec![7; 40 << 10]);
    for _ in 0..50 {
        let _ = writer.write("a", data.clone()).await.unwrap();
        assert!(writer.bytes_under_way() <= 64 << 10);
    }
    writer.flush().await.unwrap();
    assert_eq!(store.read_all(&stream).await.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_as_large_as_the_window_has_its_turn_among_small_ones() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let options = EventWriterOptions::default().window_bytes(64 << 10);
    let writer = store.client.event_writer(&stream, options).await.unwrap();
    let small = (0..4).map(|_| {
        let writer = writer.clone();
        tokio::spawn(async move {
            loop {
                let _ = writer.write("a", vec![7; 1000]).await.unwrap();
            }
        })
    });
    let small: Vec<_> = small.collect();
    for _ in 0..5 {
        let large = async { writer.write("a", vec![8; 64 << 10]).await.unwrap().await };
        let limit = std::time::Duration::from_secs(30);
        tokio::time::timeout(limit, large).await.expect("small ones are always faster").unwrap();
    }
    small.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_lingers_goes_when_its_time_is_over_or_somebody_flushes() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let options = EventWriterOptions::default().linger(std::time::Duration::from_millis(50));
    let writer = store.client.event_writer(&stream, options).await.unwrap();
    let first = writer.write("a", "1").await.unwrap();
    let second = writer.write("a", "2").await.unwrap();
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!((first.offset, second.offset), (Some(0), Some(9)));
    let _ = writer.write("a", "3").await.unwrap();
    writer.flush().await.unwrap();
    writer.write_all("a", &["4".into(), "5".into()]).await.unwrap().await.unwrap();
    assert_eq!(store.read_all(&stream).await, ["1", "2", "3", "4", "5"]);
    // What lingers while its segment is sealed goes to the successor at once.
    let current = store.client.current_segments(&stream).await.unwrap();
    let waiting = writer.write("a", "6").await.unwrap();
    store.client.scale_stream(&stream, &[current[0].id], &KeyRange::split(2)).await.unwrap();
    writer.flush().await.unwrap();
    waiting.await.unwrap();
}
