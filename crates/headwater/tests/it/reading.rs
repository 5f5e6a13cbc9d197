use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use headwater::client::{
    Client, Delivery, ErrorKind, KeyRange, Name, ReadFrom, ReaderGroupConfig, ReaderOptions, ScopedStream, SegmentId,
    StreamCut, StreamReader,
};
use headwater::testing::TestStore;

use super::store::stream_of;

/// Nothing here takes longer, unless it hangs.
const LIMIT: Duration = Duration::from_secs(60);

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

/// Replaces all segments by others with these bounds; ids of the new ones, by ascending keys.
async fn scale(client: &Client, stream: &ScopedStream, bounds: &[f64]) -> Vec<SegmentId> {
    let sealed: Vec<_> = client.current_segments(stream).await.unwrap().iter().map(|it| it.id).collect();
    let ranges: Vec<_> = bounds.windows(2).map(|pair| KeyRange::new(pair[0], pair[1]).unwrap()).collect();
    client.scale_stream(stream, &sealed, &ranges).await.unwrap();
    client.current_segments(stream).await.unwrap().iter().map(|it| it.id).collect()
}

/// Events of a stream and where they are, slice by slice.
async fn placed(client: &Client, stream: &ScopedStream) -> Vec<(SegmentId, u64, String)> {
    let mut found = Vec::new();
    for slice in client.slices(stream).await.unwrap() {
        let mut reader = client.read_slice(&slice);
        while let Some((offset, event)) = reader.next().await.unwrap() {
            found.push((slice.segment, offset, String::from_utf8(event.to_vec()).unwrap()));
        }
    }
    found
}

/// Reads a sealed stream to its end.
async fn rest_of(reader: &mut StreamReader) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(event) = tokio::time::timeout(LIMIT, reader.next()).await.expect("the reader hangs").unwrap() {
        found.push(String::from_utf8(event.event.to_vec()).unwrap());
    }
    found
}

/// Makes a group and reads it to its end.
async fn all_of_group(client: &Client, name: &str, config: &ReaderGroupConfig) -> Vec<String> {
    let (scope, name) = (Name::parse("s").unwrap(), Name::parse(name).unwrap());
    client.create_reader_group(&scope, &name, config).await.unwrap();
    let group = client.reader_group(&scope, &name).await.unwrap();
    let mut reader = group.reader_with("r", ReaderOptions::at_once()).await.unwrap();
    let mut found = Vec::new();
    while let Some(delivery) = tokio::time::timeout(LIMIT, reader.next()).await.expect("the reader hangs").unwrap() {
        let Delivery::Event(event) = delivery else { panic!("nobody asked for {delivery:?}") };
        found.push(String::from_utf8(event.event.to_vec()).unwrap());
    }
    found
}

/// These, each once, and those of each key in the order in which they were written.
#[track_caller]
fn assert_same(mut found: Vec<String>, expected: &[String]) {
    let mut last = BTreeMap::new();
    for text in &found {
        let (key, round) = text.split_once(' ').unwrap();
        let before = last.insert(key.to_owned(), round.to_owned());
        assert!(before.is_none_or(|before| *before < *round), "{round} of key {key} comes too late");
    }
    found.sort();
    assert_eq!(found, expected);
}

/// Segments of four epochs, of which each cut stands in several.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_begins_in_front_of_segments_that_were_not_opened_is_read_from_there_on() {
    for case in 0..3 {
        let store = TestStore::start().await.unwrap();
        let client = store.client();
        let stream = stream_of(client, 1).await;
        let writer = client.event_writer(&stream, Default::default()).await.unwrap();
        let write = async |round: usize| {
            for key in 0..100 {
                let _ = writer.write(&key.to_string(), format!("{key} {round}")).await.unwrap();
            }
            writer.flush().await.unwrap();
        };
        write(0).await;
        let first = client.current_segments(&stream).await.unwrap()[0].id;
        let halves = scale(client, &stream, &[0.0, 0.5, 1.0]).await;
        write(1).await;
        let thirds = scale(client, &stream, &[0.0, 0.3, 0.7, 1.0]).await;
        write(2).await;
        let last = scale(client, &stream, &[0.0, 0.2, 0.4, 1.0]).await;
        write(3).await;

        let all = placed(client, &stream).await;
        assert_eq!(all.len(), 400);
        // Behind three events of it.
        let within = |id: SegmentId| {
            let (_, offset, _) = all.iter().filter(|(segment, ..)| *segment == id).nth(3).unwrap();
            (id, i64::try_from(*offset).unwrap())
        };
        let high = within(halves[1]);
        let (cut, passed) = match case {
            // It follows on nothing in the cut.
            0 => (vec![(halves[0], -1), high], vec![first]),
            // What is in the middle follows on both halves.
            1 => (vec![high, within(thirds[0]), (thirds[1], -1)], vec![first, halves[0]]),
            // And what is between 0.2 and 0.4 on that and on the lower third.
            _ => {
                let cut = vec![high, (thirds[1], -1), within(last[0]), (last[1], -1)];
                (cut, vec![first, halves[0], thirds[0]])
            }
        };
        let cut = StreamCut { stream: stream.clone(), offsets: cut.into_iter().collect() };
        let is_behind = |(segment, offset, _): &&(SegmentId, u64, String)| {
            let at = cut.offsets.get(segment).copied().unwrap_or(0);
            !passed.contains(segment) && i64::try_from(*offset).unwrap() >= at
        };
        let mut expected: Vec<_> = all.iter().filter(is_behind).map(|(_, _, text)| text.clone()).collect();
        expected.sort();
        // In the end of a group, what follows on nothing was read, as in a checkpoint.
        let is_before = |it: &&(SegmentId, u64, String)| !is_behind(it) || case == 0 && it.0 == halves[0];
        let mut before: Vec<_> = all.iter().filter(is_before).map(|(_, _, text)| text.clone()).collect();
        before.sort();
        let config = ReaderGroupConfig::of(&stream).every(Duration::from_millis(50), None);
        assert_same(all_of_group(client, "before", &config.clone().until(cut.clone())).await, &before);
        client.truncate_stream(&cut).await.unwrap();
        client.seal_stream(&stream).await.unwrap();

        let mut head = cut.clone();
        if case == 0 {
            // The store keeps all of it.
            head.offsets.insert(halves[0], 0);
        }
        assert_eq!(client.head_cut(&stream).await.unwrap(), head);
        let begins = head.offsets.iter().filter(|(_, offset)| **offset >= 0);
        let begins: Vec<_> = begins.map(|(id, offset)| (*id, u64::try_from(*offset).unwrap())).collect();
        assert_eq!(client.head_segments(&stream).await.unwrap(), begins);
        let found = placed(client, &stream).await.into_iter().map(|(_, _, text)| text).collect();
        assert_same(found, &expected);
        for from in [ReadFrom::Head, ReadFrom::Cut(head.clone())] {
            let mut reader = client.stream_reader(&stream, from).await.unwrap();
            assert_eq!(reader.cut().unwrap(), head);
            assert_same(rest_of(&mut reader).await, &expected);
        }
        assert_same(all_of_group(client, "behind", &config).await, &expected);
    }
}
