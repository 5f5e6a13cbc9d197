use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use headwater::client::{
    Client, ClientOptions, Cut, Delivery, ErrorKind, EventWriter, KeyRange, Name, ReadFrom, ReaderGroupConfig,
    ReaderOptions, ScopedStream, SegmentId, StreamConfig, StreamCut, StreamReader, basic,
};
use headwater::testing::TestStore;
use headwater_server::AuthConfig;
use headwater_server::auth::users;

use super::Store;
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

/// Events between two cuts of a stream and where they are, slice by slice.
async fn placed(
    client: &Client,
    stream: &ScopedStream,
    from: Option<&StreamCut>,
    to: Option<&StreamCut>,
) -> Vec<(SegmentId, u64, String)> {
    let mut found = Vec::new();
    for slice in client.slices_between(stream, from, to).await.unwrap() {
        let mut reader = client.read_slice(&slice);
        while let Some((offset, event)) = reader.next().await.unwrap() {
            found.push((slice.segment, offset, String::from_utf8(event.to_vec()).unwrap()));
        }
    }
    found
}

/// The same, without where.
async fn between(
    client: &Client,
    stream: &ScopedStream,
    from: Option<&StreamCut>,
    to: Option<&StreamCut>,
) -> Vec<String> {
    placed(client, stream, from, to).await.into_iter().map(|(_, _, text)| text).collect()
}

/// Reads up to a cut.
async fn up_to(reader: &mut StreamReader, cut: &StreamCut) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(event) =
        tokio::time::timeout(LIMIT, reader.next_before(cut)).await.expect("the reader hangs").unwrap()
    {
        found.push(String::from_utf8(event.event.to_vec()).unwrap());
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

/// An event of each of a hundred keys.
async fn write_round(writer: &EventWriter, round: usize) {
    for key in 0..100 {
        let _ = writer.write(&key.to_string(), format!("{key} {round}")).await.unwrap();
    }
    writer.flush().await.unwrap();
}

/// Segments of four epochs, of which each cut stands in several.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_begins_in_front_of_segments_that_were_not_opened_is_read_from_there_on() {
    for case in 0..3 {
        let store = TestStore::start().await.unwrap();
        let client = store.client();
        let stream = stream_of(client, 1).await;
        let writer = client.event_writer(&stream, Default::default()).await.unwrap();
        let write = |round| write_round(&writer, round);
        write(0).await;
        let first = client.current_segments(&stream).await.unwrap()[0].id;
        let halves = scale(client, &stream, &[0.0, 0.5, 1.0]).await;
        write(1).await;
        let thirds = scale(client, &stream, &[0.0, 0.3, 0.7, 1.0]).await;
        write(2).await;
        let last = scale(client, &stream, &[0.0, 0.2, 0.4, 1.0]).await;
        write(3).await;

        let all = placed(client, &stream, None, None).await;
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
        // So it is for who reads up to there, or from there on, alone or in parts.
        let mut after: Vec<_> = all.iter().filter(|it| !is_before(it)).map(|(_, _, text)| text.clone()).collect();
        after.sort();
        assert_same(between(client, &stream, None, Some(&cut)).await, &before);
        assert_same(between(client, &stream, Some(&cut), None).await, &after);
        let tail = client.tail_cut(&stream).await.unwrap();
        let mut reader = client.stream_reader(&stream, ReadFrom::Cut(cut.clone())).await.unwrap();
        assert_same(up_to(&mut reader, &tail).await, &after);
        let mut reader = client.stream_reader(&stream, ReadFrom::Head).await.unwrap();
        let found = up_to(&mut reader, &cut).await;
        assert!(before.iter().all(|text| found.contains(text)), "case {case}");
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
        assert_same(between(client, &stream, None, None).await, &expected);
        assert_same(between(client, &stream, Some(&head), None).await, &expected);
        for from in [ReadFrom::Head, ReadFrom::Cut(head.clone())] {
            let mut reader = client.stream_reader(&stream, from).await.unwrap();
            assert_eq!(reader.cut().unwrap(), head);
            assert_same(rest_of(&mut reader).await, &expected);
        }
        assert_same(all_of_group(client, "behind", &config).await, &expected);
    }
}

/// A stream of two halves that were merged, with 100 events in each of the two epochs, and the halves.
async fn merged(client: &Client) -> (ScopedStream, Vec<SegmentId>) {
    let stream = stream_of(client, 1).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    let halves = scale(client, &stream, &[0.0, 0.5, 1.0]).await;
    for round in 0..2 {
        for key in 0..100 {
            let _ = writer.write(&key.to_string(), format!("{key} {round}")).await.unwrap();
        }
        writer.flush().await.unwrap();
        if round == 0 {
            scale(client, &stream, &[0.0, 1.0]).await;
        }
    }
    (stream, halves)
}

/// Behind three events of a segment.
fn behind_three(all: &[(SegmentId, u64, String)], id: SegmentId) -> (SegmentId, i64) {
    let (_, offset, _) = all.iter().filter(|(segment, ..)| *segment == id).nth(3).unwrap();
    (id, i64::try_from(*offset).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_began_at_the_checkpoint_of_a_group_reads_up_to_its_own_cuts() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let (stream, halves) = merged(client).await;
    let all = placed(client, &stream, None, None).await;
    // The lower half was read to its end.
    let offsets = [(halves[0], -1), behind_three(&all, halves[1])].into();
    let checkpoint = StreamCut { stream: stream.clone(), offsets };
    let mut reader = client.stream_reader(&stream, ReadFrom::Cut(checkpoint.clone())).await.unwrap();
    let own = reader.cut().unwrap();
    assert!(own.offsets[&halves[0]] > 0, "{own:?}");
    assert_eq!(up_to(&mut reader, &own).await.len(), 0);
    assert_eq!(up_to(&mut reader, &checkpoint).await.len(), 0);
    let next = client.next_cut(&checkpoint, 1).await.unwrap();
    let part = between(client, &stream, Some(&checkpoint), Some(&next)).await;
    assert!(!part.is_empty());
    assert_eq!(up_to(&mut reader, &next).await, part);
    let before = StreamCut { stream: stream.clone(), offsets: [(halves[0], 0), (halves[1], 0)].into() };
    assert_eq!(reader.next_before(&before).await.unwrap_err().kind(), ErrorKind::Invalid);
}

/// As the checkpoint of a group that has read the lower half to its end and knows what follows on both.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_that_names_one_of_two_segments_on_which_a_third_follows_leaves_nothing_out() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let (stream, halves) = merged(client).await;
    let all = placed(client, &stream, None, None).await;
    let (id, end) = behind_three(&all, halves[1]);
    let cut = StreamCut { stream: stream.clone(), offsets: [(id, end)].into() };
    let is_before = |(segment, offset, _): &(SegmentId, u64, String)| {
        *segment == halves[0] || *segment == id && i64::try_from(*offset).unwrap() < end
    };
    let (before, after): (Vec<_>, Vec<_>) = all.into_iter().partition(is_before);
    let sorted = |found: Vec<(SegmentId, u64, String)>| {
        let mut texts: Vec<_> = found.into_iter().map(|(_, _, text)| text).collect();
        texts.sort();
        texts
    };
    let (before, after) = (sorted(before), sorted(after));
    assert_same(between(client, &stream, None, Some(&cut)).await, &before);
    assert_same(between(client, &stream, Some(&cut), None).await, &after);
    let tail = client.tail_cut(&stream).await.unwrap();
    let mut reader = client.stream_reader(&stream, ReadFrom::Cut(cut.clone())).await.unwrap();
    assert_eq!(up_to(&mut reader, &cut).await.len(), 0);
    assert_same(up_to(&mut reader, &tail).await, &after);
    let mut reader = client.stream_reader(&stream, ReadFrom::Head).await.unwrap();
    let found = up_to(&mut reader, &cut).await;
    assert!(before.iter().all(|text| found.contains(text)));
    let config = ReaderGroupConfig::of(&stream).every(Duration::from_millis(50), None);
    assert_same(all_of_group(client, "before", &config.until(cut)).await, &before);
    // What nothing leads to is left out by whoever made the cut.
    scale(client, &stream, &[0.0, 0.5, 1.0]).await;
    let mut partly = client.tail_cut(&stream).await.unwrap();
    partly.offsets.pop_last();
    let mut reader = client.stream_reader(&stream, ReadFrom::Head).await.unwrap();
    assert_eq!(reader.next_before(&partly).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cut_says_was_read_is_not_read_again_where_it_follows_on_more_that_was() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let (stream, halves) = merged(client).await;
    let both = client.current_segments(&stream).await.unwrap()[0].id;
    let last = scale(client, &stream, &[0.0, 0.3, 1.0]).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    for key in 0..100 {
        let _ = writer.write(&key.to_string(), format!("{key} 2")).await.unwrap();
    }
    writer.flush().await.unwrap();
    client.seal_stream(&stream).await.unwrap();
    let all = placed(client, &stream, None, None).await;
    let mut upper: Vec<_> = all.iter().filter(|it| it.0 == last[1]).map(|(_, _, text)| text.clone()).collect();
    upper.sort();
    let (mut before, mut after): (Vec<_>, Vec<_>) =
        all.into_iter().map(|(_, _, text)| text).partition(|text| !text.ends_with(" 2"));
    before.sort();
    after.sort();
    let offsets = [(halves[0], -1), (halves[1], -1), (both, -1)].into();
    let cut = StreamCut { stream: stream.clone(), offsets };
    let mut reader = client.stream_reader(&stream, ReadFrom::Cut(cut.clone())).await.unwrap();
    assert_same(rest_of(&mut reader).await, &after);
    let config = ReaderGroupConfig::of(&stream).every(Duration::from_millis(50), None);
    assert_same(all_of_group(client, "before", &config.clone().until(cut.clone())).await, &before);
    let behind = config.stream_from(&stream, Cut::At(cut));
    assert_same(all_of_group(client, "behind", &behind).await, &after);
    // For some keys only.
    let cut = StreamCut { stream: stream.clone(), offsets: [(both, -1), (last[0], -1)].into() };
    let mut reader = client.stream_reader(&stream, ReadFrom::Cut(cut)).await.unwrap();
    assert_same(rest_of(&mut reader).await, &upper);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_ends_with_a_segment_reads_it_to_an_end_that_it_does_not_have_yet() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let only = client.current_segments(&stream).await.unwrap()[0].id;
    let cut = StreamCut { stream: stream.clone(), offsets: [(only, -1)].into() };
    let config = ReaderGroupConfig::of(&stream).every(Duration::from_millis(50), None).until(cut);
    let (scope, name) = (Name::parse("s").unwrap(), Name::parse("g").unwrap());
    assert!(client.create_reader_group(&scope, &name, &config).await.unwrap());
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    writer.write("a", "one").await.unwrap().await.unwrap();
    scale(client, &stream, &[0.0, 0.5, 1.0]).await;
    writer.write("a", "two").await.unwrap().await.unwrap();
    assert_eq!(all_of_group(client, "g", &config).await, ["one"]);
}

/// It follows on the lower half, and on what the upper was split into, where the cut did not come to.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_ends_in_front_of_a_segment_that_follows_on_others_behind_the_end() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 2).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    let write = |round| write_round(&writer, round);
    let halves: Vec<_> = client.current_segments(&stream).await.unwrap().iter().map(|it| it.id).collect();
    write(0).await;
    let quarters = [KeyRange::new(0.5, 0.75).unwrap(), KeyRange::new(0.75, 1.0).unwrap()];
    client.scale_stream(&stream, &[halves[1]], &quarters).await.unwrap();
    write(1).await;
    let last = scale(client, &stream, &[0.0, 0.3, 1.0]).await;
    write(2).await;
    let all = placed(client, &stream, None, None).await;
    let within = |id: SegmentId| {
        let (_, offset, _) = all.iter().filter(|(segment, ..)| *segment == id).nth(3).unwrap();
        (id, i64::try_from(*offset).unwrap())
    };
    let offsets = [within(halves[1]), within(last[0]), (last[1], -1)].into();
    let cut = StreamCut { stream: stream.clone(), offsets };
    let is_before = |(segment, offset, _): &&(SegmentId, u64, String)| {
        let ends = cut.offsets.get(segment).map(|end| u64::try_from(*end).unwrap_or(0));
        *segment == halves[0] || ends.is_some_and(|end| *offset < end)
    };
    let mut before: Vec<_> = all.iter().filter(is_before).map(|(_, _, text)| text.clone()).collect();
    before.sort();
    assert_same(between(client, &stream, None, Some(&cut)).await, &before);
    assert_eq!(between(client, &stream, Some(&cut), None).await.len(), all.len() - before.len());
    let mut reader = client.stream_reader(&stream, ReadFrom::Head).await.unwrap();
    let found = up_to(&mut reader, &cut).await;
    assert!(before.iter().all(|text| found.contains(text)));
    let config = ReaderGroupConfig::of(&stream).every(Duration::from_millis(50), None).until(cut);
    assert_same(all_of_group(client, "g", &config).await, &before);
}

/// A reader that is far in the keys below 0.5 and has hardly begun above, over scales that move bounds.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_is_one_whatever_follows_on_what_and_reading_goes_on_there() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 2).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    let (mut written, mut high) = (0, Vec::new());
    let first = client.current_segments(&stream).await.unwrap()[0].id;
    for key in 0..24 {
        let ack = writer.write(&key.to_string(), format!("{key} 0")).await.unwrap();
        if ack.await.unwrap().segment != first {
            high.push(key);
        }
        written += 1;
    }
    for number in 1..9 {
        for key in &high {
            // More than a reader asks for at a time, so that the others are read to their ends meanwhile.
            writer
                .write(&key.to_string(), format!("{key} {number}{}", " ".repeat(20_000)))
                .await
                .unwrap()
                .await
                .unwrap();
            written += 1;
        }
    }
    let bounds = [&[0.0, 0.3, 0.7, 1.0][..], &[0.0, 0.1, 0.2, 0.7, 0.8, 1.0], &[0.0, 0.15, 1.0]];
    for (round, bounds) in bounds.into_iter().enumerate() {
        scale(client, &stream, bounds).await;
        for key in 100..112 {
            writer.write(&key.to_string(), format!("{key} {round}")).await.unwrap().await.unwrap();
            written += 1;
        }
    }
    let tail = client.tail_cut(&stream).await.unwrap();
    let mut reader = client.stream_reader(&stream, ReadFrom::Head).await.unwrap();
    let mut unopened = Vec::new();
    for read in 1..=written {
        reader.next().await.unwrap().unwrap();
        let cut = reader.cut().unwrap();
        // The server takes it for a cut, and so much lies on its two sides.
        assert_eq!(between(client, &stream, Some(&cut), None).await.len(), written - read, "{cut:?}");
        assert_eq!(between(client, &stream, None, Some(&cut)).await.len(), read, "{cut:?}");
        let mut again = client.stream_reader(&stream, ReadFrom::Cut(cut.clone())).await.unwrap();
        assert_eq!(again.cut().unwrap(), cut);
        assert_eq!(read + up_to(&mut again, &tail).await.len(), written, "{cut:?}");
        if cut.offsets.values().any(|offset| *offset < 0) {
            unopened.push((read, cut));
        }
    }
    assert!(!unopened.is_empty(), "a reader was between two scales");
    for (read, cut) in unopened {
        let mut reader = client.stream_reader(&stream, ReadFrom::Head).await.unwrap();
        let found = up_to(&mut reader, &cut).await;
        let before = between(client, &stream, None, Some(&cut)).await;
        assert_eq!(before.len(), read);
        assert!(before.iter().all(|text| found.contains(text)), "{cut:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cuts_that_follow_on_one_another_part_a_stream_until_nothing_is_left() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    let head = client.head_cut(&stream).await.unwrap();
    assert_eq!(client.next_cut(&head, 1).await.unwrap(), head, "nothing is there");
    let mut at = head.clone();
    for (round, bounds) in [&[0.0, 0.3, 0.7, 1.0][..], &[0.0, 1.0]].into_iter().enumerate() {
        for number in 0..20 {
            let _ = writer.write(&number.to_string(), format!("{round} {number}")).await.unwrap();
        }
        writer.flush().await.unwrap();
        // As far as there is something, also into segments that were just opened and hold nothing yet.
        let next = client.next_cut(&at, u64::MAX).await.unwrap();
        assert_eq!(between(client, &stream, Some(&at), Some(&next)).await.len(), 20);
        assert_eq!(client.next_cut(&next, 1).await.unwrap(), next);
        scale(client, &stream, bounds).await;
        at = client.next_cut(&next, 1).await.unwrap();
        assert_eq!(at, client.tail_cut(&stream).await.unwrap());
        assert_eq!(between(client, &stream, Some(&next), Some(&at)).await.len(), 0);
    }
    writer.write("a", "last").await.unwrap().await.unwrap();
    client.seal_stream(&stream).await.unwrap();
    let end = client.next_cut(&at, 1).await.unwrap();
    assert_eq!(between(client, &stream, Some(&at), Some(&end)).await, ["last"]);
    assert_eq!(client.next_cut(&end, 1).await.unwrap(), end, "a sealed stream ends");
    // The cut at the tail of a sealed stream names no segment.
    let tail = client.tail_cut(&stream).await.unwrap();
    assert_eq!(client.next_cut(&tail, 1).await.unwrap(), tail);
    assert_eq!(between(client, &stream, Some(&head), Some(&tail)).await.len(), 41);
    assert_eq!(between(client, &stream, Some(&tail), None).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_part_of_a_stream_is_refused_and_what_was_truncated_is_told() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 2).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    let write = async |text: &'static str| {
        for key in 0..8 {
            writer.write(&key.to_string(), text).await.unwrap().await.unwrap();
        }
    };
    write("early").await;
    let (head, early) = (client.head_cut(&stream).await.unwrap(), client.tail_cut(&stream).await.unwrap());
    write("late").await;
    let tail = client.tail_cut(&stream).await.unwrap();
    let refused = async |from: &StreamCut, to: &StreamCut| {
        let error = client.slices_between(&stream, Some(from), Some(to)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    };
    refused(&tail, &early).await;
    let changed = |change: &dyn Fn(&mut StreamCut)| {
        let mut cut = tail.clone();
        change(&mut cut);
        cut
    };
    let elsewhere = changed(&|cut| cut.stream = ScopedStream::parse("s/other").unwrap());
    let beyond = changed(&|cut| cut.offsets.values_mut().for_each(|offset| *offset += 1));
    let partly = changed(&|cut| {
        cut.offsets.pop_first();
    });
    for bad in [&elsewhere, &beyond, &partly] {
        refused(&head, bad).await;
        refused(bad, &tail).await;
    }
    assert_eq!(client.next_cut(&beyond, 1).await.unwrap_err().kind(), ErrorKind::Invalid);
    // An empty one, that of the tail of a sealed stream, is of a stream, too.
    let nowhere = StreamCut { stream: elsewhere.stream.clone(), offsets: BTreeMap::new() };
    refused(&nowhere, &tail).await;
    refused(&head, &nowhere).await;
    // Nobody waits for what never comes.
    let mut reader = client.stream_reader(&stream, ReadFrom::Cut(tail.clone())).await.unwrap();
    for bad in [&elsewhere, &nowhere, &partly, &early] {
        let error = tokio::time::timeout(LIMIT, reader.next_before(bad)).await.expect("the reader hangs").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    }
    assert_eq!(reader.next_before(&tail).await.unwrap(), None);
    let unknown = changed(&|cut| _ = cut.offsets.insert(SegmentId::new(9, 9), -1));
    let error = client.stream_reader(&stream, ReadFrom::Cut(unknown)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");

    // What was truncated within a segment is told by whoever reads it, who goes on behind.
    client.truncate_stream(&early).await.unwrap();
    let (mut told, mut read) = (0, 0);
    for slice in client.slices_between(&stream, Some(&head), None).await.unwrap() {
        let mut reader = client.read_slice(&slice);
        loop {
            match reader.next().await {
                Ok(Some((_, event))) => {
                    assert_eq!(event, "late");
                    read += 1;
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Truncated, "{error:?}");
                    told += 1;
                }
            }
        }
    }
    assert_eq!((told, read), (2, 8));
    assert_eq!(between(client, &stream, None, None).await.len(), 8);
    // Whole segments are told at once.
    scale(client, &stream, &[0.0, 0.2, 1.0]).await;
    client.truncate_stream(&client.tail_cut(&stream).await.unwrap()).await.unwrap();
    let gone = client.slices_between(&stream, Some(&early), None).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Truncated, "{gone:?}");
    assert_eq!(client.next_cut(&early, 1).await.unwrap_err().kind(), ErrorKind::Truncated);
    assert_eq!(client.slices(&stream).await.unwrap().len(), 2);
    // Who begins at the head is past what is gone.
    let mut reader = client.stream_reader(&stream, ReadFrom::Head).await.unwrap();
    assert_eq!(up_to(&mut reader, &early).await.len(), 0);
    // And with the stream nothing was truncated.
    client.seal_stream(&stream).await.unwrap();
    client.delete_stream(&stream).await.unwrap();
    for error in [
        client.slices_between(&stream, Some(&early), None).await.unwrap_err(),
        client.next_cut(&early, 1).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    }
}

/// Drops the future when it has been polled so often and is not done.
async fn polled<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_only_read_a_stream_reads_between_its_cuts() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("users");
    for (name, grant) in [("admin", "prn::*,READ_UPDATE"), ("reader", "prn::/scope:s/stream:t,READ")] {
        users::add(&file, name, b"password", &[grant.to_owned()]).unwrap();
    }
    let auth = AuthConfig { passwords: Some(file), bearer: None, token_key: None, token_lifetime_seconds: 600 };
    let store = Store::start_with(Some(auth), |options| options.credentials(basic("admin", "password").unwrap())).await;
    let admin = &store.client;
    let options = ClientOptions::new(&store.address()).unwrap().retry_for(Duration::from_secs(20));
    let client = options.credentials(basic("reader", "password").unwrap()).connect().unwrap();

    let stream = stream_of(admin, 2).await;
    let writer = admin.event_writer(&stream, Default::default()).await.unwrap();
    let halves: Vec<_> = admin.current_segments(&stream).await.unwrap().iter().map(|it| it.id).collect();
    let mut cuts = Vec::new();
    for round in 0..4 {
        for key in 0..100 {
            let _ = writer.write(&key.to_string(), format!("{key} {round}")).await.unwrap();
        }
        writer.flush().await.unwrap();
        match round {
            1 => {
                let quarters = [KeyRange::new(0.5, 0.75).unwrap(), KeyRange::new(0.75, 1.0).unwrap()];
                admin.scale_stream(&stream, &[halves[1]], &quarters).await.unwrap();
            }
            2 => {
                cuts.push(admin.tail_cut(&stream).await.unwrap());
                scale(admin, &stream, &[0.0, 0.3, 1.0]).await;
            }
            _ => cuts.push(admin.tail_cut(&stream).await.unwrap()),
        }
    }
    let mut reader = client.stream_reader(&stream, ReadFrom::Cut(cuts[0].clone())).await.unwrap();
    let mut found = Vec::new();
    for pair in cuts.windows(2) {
        found.extend(up_to(&mut reader, &pair[1]).await);
        let part = between(&client, &stream, Some(&pair[0]), Some(&pair[1])).await;
        assert!(!part.is_empty() && part.iter().all(|text| found.contains(text)));
    }
    let mut expected: Vec<_> = (100..400).map(|number| format!("{} {}", number % 100, number / 100)).collect();
    expected.sort();
    assert_same(found, &expected);
    assert_ne!(client.next_cut(&cuts[0], 1).await.unwrap(), cuts[0]);
    let mut reader = client.stream_reader(&stream, ReadFrom::Cut(cuts[1].clone())).await.unwrap();
    let mut partly = cuts[2].clone();
    partly.offsets.pop_last();
    for bad in [&cuts[0], &partly] {
        assert_eq!(reader.next_before(bad).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    // What an offset below 0 means only the keys say.
    let mut marked = cuts[0].clone();
    marked.offsets.insert(halves[0], -1);
    let denied = client.stream_reader(&stream, ReadFrom::Cut(marked)).await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied, "{denied:?}");
    admin.truncate_stream(&cuts[2]).await.unwrap();
    let gone = client.slices_between(&stream, Some(&cuts[0]), None).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Truncated, "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_deleted_while_its_slices_are_made_is_not_there() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let scope = Name::parse("s").unwrap();
    client.create_scope(&scope).await.unwrap();
    let mut missed = 0;
    for polls in 0..30 {
        let stream = ScopedStream { scope: scope.clone(), stream: Name::parse(&format!("t{polls}")).unwrap() };
        client.create_stream(&stream, &StreamConfig::fixed(8)).await.unwrap();
        let mut slices = pin!(client.slices(&stream));
        if polled(slices.as_mut(), polls).await.is_some() {
            break;
        }
        client.seal_stream(&stream).await.unwrap();
        client.delete_stream(&stream).await.unwrap();
        match tokio::time::timeout(LIMIT, slices).await.expect("the call hangs") {
            Ok(all) => assert_eq!(all.len(), 8, "deleted after {polls} polls"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
                missed += 1;
            }
        }
    }
    assert!(missed > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_whose_futures_are_dropped_at_any_place_loses_nothing_and_stands_at_a_cut() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 2).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    let mut expected = Vec::new();
    for (round, bounds) in [&[0.0, 0.3, 0.7, 1.0][..], &[0.0, 0.1, 0.2, 0.7, 1.0], &[]].into_iter().enumerate() {
        for key in 0..40 {
            let _ = writer.write(&key.to_string(), format!("{key} {round}")).await.unwrap();
            expected.push(format!("{key} {round}"));
        }
        writer.flush().await.unwrap();
        if !bounds.is_empty() {
            scale(client, &stream, bounds).await;
        }
    }
    client.seal_stream(&stream).await.unwrap();
    expected.sort();
    let mut reader = client.stream_reader(&stream, ReadFrom::Head).await.unwrap();
    let (mut found, mut dropped) = (Vec::new(), 0);
    for polls in (0..200).cycle() {
        match tokio::time::timeout(LIMIT, polled(reader.next(), polls)).await.expect("the reader hangs") {
            Some(Ok(Some(event))) => found.push(String::from_utf8(event.event.to_vec()).unwrap()),
            Some(Ok(None)) => break,
            Some(Err(error)) => panic!("{error:?}"),
            None => {
                dropped += 1;
                let cut = reader.cut().unwrap();
                let left = between(client, &stream, Some(&cut), None).await.len();
                assert_eq!(found.len() + left, expected.len(), "{cut:?}");
            }
        }
    }
    assert_same(found, &expected);
    assert!(dropped > 0);
}
