use std::collections::BTreeMap;

use bytes::Bytes;
use headwater::client::{ErrorKind, KeyRange, ReadFrom, StreamReader};
use headwater::testing::TestStore;

use super::store::stream_of;

/// Reads so many events, each `key number`, and checks that each key's numbers come in order.
async fn read_in_order(reader: &mut StreamReader, count: usize, next: &mut BTreeMap<String, usize>) {
    for _ in 0..count {
        let event = reader.next().await.unwrap().unwrap().event;
        let text = String::from_utf8(event.to_vec()).unwrap();
        let (key, number) = text.split_once(' ').unwrap();
        let expected = next.entry(key.to_owned()).or_default();
        assert_eq!(number.parse::<usize>().unwrap(), *expected, "key {key}");
        *expected += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_read_in_order_through_splits_and_merges_and_from_any_cut() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    let mut reader = client.stream_reader(&stream, ReadFrom::Head).await.unwrap();
    let mut next = BTreeMap::new();
    for (round, parts) in [3, 1, 4, 2].into_iter().enumerate() {
        for number in 0..100 {
            for key in 0..8 {
                let _ = writer.write(&key.to_string(), format!("{key} {}", round * 100 + number)).await.unwrap();
            }
        }
        writer.flush().await.unwrap();
        let sealed: Vec<_> = client.current_segments(&stream).await.unwrap().iter().map(|it| it.id).collect();
        client.scale_stream(&stream, &sealed, &KeyRange::split(parts)).await.unwrap();
        // Half with this reader, the rest with one that goes on at its cut, in the text form.
        read_in_order(&mut reader, 317, &mut next).await;
        let text = reader.cut().unwrap().to_text();
        let cut = headwater::client::StreamCut::from_text(&text).unwrap();
        reader = client.stream_reader(&stream, ReadFrom::Cut(cut)).await.unwrap();
        read_in_order(&mut reader, 800 - 317, &mut next).await;
    }
    assert!(next.values().all(|count| *count == 400), "{next:?}");
    client.seal_stream(&stream).await.unwrap();
    assert_eq!(reader.next().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_is_read_without_waiting_for_more() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    writer.write("a", "one").await.unwrap().await.unwrap();
    let current = client.current_segments(&stream).await.unwrap();
    client.scale_stream(&stream, &[current[0].id], &KeyRange::split(3)).await.unwrap();
    // The new segments are empty, and nobody writes to them.
    let read = async || {
        let tail = client.tail_cut(&stream).await.unwrap();
        let mut reader = client.stream_reader(&stream, ReadFrom::Head).await.unwrap();
        let mut found = Vec::new();
        while let Some(event) = reader.next_before(&tail).await.unwrap() {
            found.push(event.event);
        }
        found
    };
    assert_eq!(read().await, ["one"]);
    client.seal_stream(&stream).await.unwrap();
    assert_eq!(read().await, ["one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_in_the_middle_of_a_merge_is_one_that_the_server_truncates_at() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let current = client.current_segments(&stream).await.unwrap();
    client.scale_stream(&stream, &[current[0].id], &KeyRange::split(2)).await.unwrap();
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    for number in 0..100 {
        let _ = writer.write(&number.to_string(), number.to_string()).await.unwrap();
    }
    writer.flush().await.unwrap();
    let halves: Vec<_> = client.current_segments(&stream).await.unwrap().iter().map(|it| it.id).collect();
    client.scale_stream(&stream, &halves, &KeyRange::split(1)).await.unwrap();
    for number in 100..110 {
        let _ = writer.write(&number.to_string(), number.to_string()).await.unwrap();
    }
    writer.flush().await.unwrap();
    // From every position on, the rest is read, once, also after the stream was truncated there.
    let mut reader = client.stream_reader(&stream, ReadFrom::Head).await.unwrap();
    for read in 1..=110 {
        reader.next().await.unwrap().unwrap();
        if read % 9 == 0 || read > 95 {
            let cut = reader.cut().unwrap();
            client.truncate_stream(&cut).await.unwrap();
            for from in [ReadFrom::Cut(cut), ReadFrom::Head] {
                let mut again = client.stream_reader(&stream, from).await.unwrap();
                let tail = client.tail_cut(&stream).await.unwrap();
                let mut rest = 0;
                while again.next_before(&tail).await.unwrap().is_some() {
                    rest += 1;
                }
                assert_eq!(read + rest, 110);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_at_the_tail_gets_what_is_written_from_then_on() {
    let store = TestStore::start().await.unwrap();
    let stream = stream_of(store.client(), 1).await;
    let writer = store.client().event_writer(&stream, Default::default()).await.unwrap();
    writer.write("a", "before").await.unwrap().await.unwrap();
    let mut reader = store.client().stream_reader(&stream, ReadFrom::Tail).await.unwrap();
    let waiting = tokio::spawn(async move { reader.next().await });
    // A restart while it waits is nothing it has to know about.
    store.cut();
    writer.write("a", "after").await.unwrap().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().unwrap().event, "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn truncation_is_told_and_reading_goes_on_behind_it() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    let mut reader = client.stream_reader(&stream, ReadFrom::Head).await.unwrap();
    for number in 0..10 {
        writer.write("a", number.to_string()).await.unwrap().await.unwrap();
    }
    let cut = client.tail_cut(&stream).await.unwrap();
    client.truncate_stream(&cut).await.unwrap();
    client.truncate_stream(&cut).await.unwrap();
    writer.write("a", "after").await.unwrap().await.unwrap();
    assert_eq!(reader.next().await.unwrap_err().kind(), ErrorKind::Truncated);
    assert_eq!(reader.next().await.unwrap().unwrap().event, "after");
    assert_eq!(client.head_cut(&stream).await.unwrap(), cut);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_fetched_by_its_pointer() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 3).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    for number in 0..20 {
        let _ = writer.write(&number.to_string(), "x".repeat(number + 1)).await.unwrap();
    }
    writer.flush().await.unwrap();
    let mut reader = client.stream_reader(&stream, ReadFrom::Head).await.unwrap();
    for _ in 0..20 {
        let event = reader.next().await.unwrap().unwrap();
        let pointer = event.pointer(&stream).unwrap();
        assert_eq!(client.fetch_event(&pointer).await.unwrap(), event.event);
        let mut wrong = pointer.clone();
        wrong.length += 1;
        assert!(client.fetch_event(&wrong).await.is_err());
        wrong = pointer;
        wrong.offset += 3;
        assert!(client.fetch_event(&wrong).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_bytes_is_not_taken_for_one_of_events() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    writer.write("a", Bytes::from("an event whose inside is no event")).await.unwrap().await.unwrap();
    let segment = client.current_segments(&stream).await.unwrap()[0].id;
    let slice = headwater::client::SegmentSlice { stream, segment, start: 8, end: 41 };
    assert_eq!(client.read_slice(&slice).next().await.unwrap_err().kind(), ErrorKind::Protocol);
}
