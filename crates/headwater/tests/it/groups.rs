//! Reader groups.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater::client::{
    Batch, Client, Cut, Delivery, ErrorKind, EventReader, EventWriter, GroupEvent, KeyRange, Name, ReadFrom,
    ReaderGroup, ReaderGroupConfig, ReaderOptions, ScopedStream,
};
use headwater::testing::TestStore;
use tokio::sync::mpsc;

use super::store::stream_of;

/// Nothing here takes longer, unless it hangs.
const LIMIT: Duration = Duration::from_secs(60);

fn brisk(stream: &ScopedStream) -> ReaderGroupConfig {
    ReaderGroupConfig::of(stream).every(Duration::from_millis(50), None)
}

async fn group_of(client: &Client, name: &str, config: &ReaderGroupConfig) -> ReaderGroup {
    let (scope, name) = (Name::parse("s").unwrap(), Name::parse(name).unwrap());
    assert!(client.create_reader_group(&scope, &name, config).await.unwrap());
    client.reader_group(&scope, &name).await.unwrap()
}

async fn next(reader: &mut EventReader) -> Option<Delivery> {
    tokio::time::timeout(LIMIT, reader.next()).await.expect("the reader hangs").unwrap()
}

async fn event(reader: &mut EventReader) -> GroupEvent {
    match next(reader).await {
        Some(Delivery::Event(event)) => event,
        other => panic!("no event: {other:?}"),
    }
}

fn text(event: &GroupEvent) -> String {
    String::from_utf8(event.event.to_vec()).unwrap()
}

/// So many events for each of eight keys, each `key number`.
async fn write(writer: &EventWriter, numbers: std::ops::Range<usize>) {
    for number in numbers {
        for key in 0..8 {
            let _ = writer.write(&key.to_string(), format!("{key} {number}")).await.unwrap();
        }
    }
    writer.flush().await.unwrap();
}

async fn rescale(client: &Client, stream: &ScopedStream, parts: usize) {
    let sealed: Vec<_> = client.current_segments(stream).await.unwrap().iter().map(|it| it.id).collect();
    client.scale_stream(stream, &sealed, &KeyRange::split(parts)).await.unwrap();
}

/// Reads until the end of the group, and sends what it gets.
async fn read_all(mut reader: EventReader, found: mpsc::UnboundedSender<(String, Delivery)>) -> EventReader {
    while let Some(delivery) = next(&mut reader).await {
        found.send((reader.id().to_owned(), delivery)).unwrap();
    }
    reader
}

#[tokio::test(flavor = "multi_thread")]
async fn two_readers_share_all_events_once_and_in_order_through_scales_and_lost_connections() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let group = group_of(client, "g", &brisk(&stream)).await;
    let (sender, mut found) = mpsc::unbounded_channel();
    let mut readers = Vec::new();
    for id in ["a", "b"] {
        let reader = group.reader_with(id, ReaderOptions::at_once()).await.unwrap();
        readers.push(tokio::spawn(read_all(reader, sender.clone())));
    }
    drop(sender);
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    for (round, parts) in [4, 2, 3].into_iter().enumerate() {
        write(&writer, round * 100..round * 100 + 100).await;
        store.cut();
        rescale(client, &stream, parts).await;
        // Long enough that both take their part of it.
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    // Or as long as that takes.
    let (mut early, mut written, begun) = (Vec::new(), 300, std::time::Instant::now());
    loop {
        write(&writer, written..written + 100).await;
        written += 100;
        early.extend(std::iter::from_fn(|| found.try_recv().ok()));
        if ["a", "b"].iter().all(|id| early.iter().any(|(reader, _)| reader == id)) {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "one has had nothing");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    client.seal_stream(&stream).await.unwrap();
    let mut numbers = BTreeMap::<String, usize>::new();
    let mut early = early.into_iter();
    loop {
        let Some((reader, delivery)) = (match early.next() {
            Some(found) => Some(found),
            None => tokio::time::timeout(LIMIT, found.recv()).await.unwrap(),
        }) else {
            break;
        };
        let Delivery::Event(event) = delivery else { panic!("nobody asked for {delivery:?}") };
        let text = text(&event);
        let (key, number) = text.split_once(' ').unwrap();
        let expected = numbers.entry(key.to_owned()).or_default();
        assert_eq!(number.parse::<usize>().unwrap(), *expected, "key {key}, reader {reader}");
        *expected += 1;
    }
    assert_eq!(numbers.values().copied().collect::<Vec<_>>(), [written; 8]);
    for reader in readers {
        reader.await.unwrap().close().await.unwrap();
    }
    assert!(group.online_readers().await.unwrap().is_empty());
    assert_eq!(group.unread_bytes().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_reader_had_is_read_again_from_its_last_position() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 2).await;
    let group = group_of(client, "g", &brisk(&stream)).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    write(&writer, 0..50).await;
    let mut dead = group.reader("dead").await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..100 {
        seen.push(text(&event(&mut dead).await));
    }
    let kept = dead.position();
    for _ in 0..20 {
        event(&mut dead).await;
    }
    assert_eq!(group.reader("dead").await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(group.online_readers().await.unwrap(), ["dead".to_owned()].into());
    assert!(group.reader_offline("dead", Some(&kept)).await.unwrap());
    assert!(!group.reader_offline("dead", Some(&kept)).await.unwrap());
    let mut heir = group.reader("heir").await.unwrap();
    for _ in 0..300 {
        seen.push(text(&event(&mut heir).await));
    }
    seen.sort();
    let mut expected: Vec<_> = (0..50).flat_map(|number| (0..8).map(move |key| format!("{key} {number}"))).collect();
    expected.sort();
    assert_eq!(seen, expected);
    // It learns of its death and stays dead, even if another has its name.
    let dead_again = async {
        loop {
            if let Err(error) = dead.next().await {
                break error;
            }
        }
    };
    assert_eq!(tokio::time::timeout(LIMIT, dead_again).await.unwrap().kind(), ErrorKind::Closed);
    group.reader("dead").await.unwrap();
    assert_eq!(dead.next().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_begins_anew_at_a_checkpoint() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 3).await;
    let group = group_of(client, "g", &brisk(&stream)).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    write(&writer, 0..50).await;
    let mut reader = group.reader("a").await.unwrap();
    let mut before = Vec::new();
    for _ in 0..150 {
        before.push(text(&event(&mut reader).await));
    }
    let checkpoint = group.initiate_checkpoint("here").await.unwrap();
    assert_eq!(group.initiate_checkpoint("here").await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    loop {
        match next(&mut reader).await.unwrap() {
            Delivery::Event(event) => before.push(text(&event)),
            Delivery::Checkpoint(name) => break assert_eq!(name, "here"),
        }
    }
    let (position, waiting) = (reader.position(), tokio::spawn(async move { checkpoint.wait().await }));
    // It is kept when the application asks for more.
    write(&writer, 50..60).await;
    let mut after = vec![text(&event(&mut reader).await)];
    let checkpoint = tokio::time::timeout(LIMIT, waiting).await.unwrap().unwrap().unwrap();
    let of_checkpoint: Vec<_> = checkpoint.cuts[&stream].segments().collect();
    assert_eq!(of_checkpoint, position.offsets.into_iter().collect::<Vec<_>>());
    while before.len() + after.len() < 480 {
        after.push(text(&event(&mut reader).await));
    }
    group.reset_to(&checkpoint).await.unwrap();
    let out = async {
        loop {
            if let Err(error) = reader.next().await {
                break error;
            }
        }
    };
    assert_eq!(tokio::time::timeout(LIMIT, out).await.unwrap().kind(), ErrorKind::Closed);
    reader.close().await.unwrap();
    let mut again = group.reader("a").await.unwrap();
    let mut found = Vec::new();
    for _ in 0..after.len() {
        found.push(text(&event(&mut again).await));
    }
    found.sort();
    after.sort();
    assert_eq!(found, after);
}

/// Key and number of an event, without what fills it up.
fn parsed(event: &[u8]) -> (String, usize) {
    let mut words = std::str::from_utf8(event).unwrap().split_whitespace();
    (words.next().unwrap().to_owned(), words.next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_begins_anew_between_the_ends_of_two_segments_that_others_follow_on() {
    // Both are followed by one, or the first also by one that can be read before the second is.
    for bounds in [&[0.0, 1.0][..], &[0.0, 0.3, 1.0]] {
        let store = TestStore::start().await.unwrap();
        let client = store.client();
        // The configuration wants one segment at least.
        let stream = stream_of(client, 1).await;
        rescale(client, &stream, 2).await;
        let group = group_of(client, "g", &brisk(&stream)).await;
        let writer = client.event_writer(&stream, Default::default()).await.unwrap();
        let current = client.current_segments(&stream).await.unwrap();
        let [short, long] = [current[0].id, current[1].id];
        let mut counts = BTreeMap::new();
        let write = async |key: &str, number: usize| {
            let _ = writer.write(key, format!("{key} {number} {:900}", "")).await.unwrap();
        };
        for key in 0..16 {
            write(&key.to_string(), 0).await;
            counts.insert(key.to_string(), 1);
        }
        writer.flush().await.unwrap();
        let mut all = client.stream_reader(&stream, ReadFrom::Head).await.unwrap();
        let mut of_long = String::new();
        for _ in 0..16 {
            let event = all.next().await.unwrap().unwrap();
            if event.segment == long {
                of_long = parsed(&event.event).0;
            }
        }
        for number in 1..400 {
            write(&of_long, number).await;
            counts.insert(of_long.clone(), number + 1);
        }
        writer.flush().await.unwrap();
        let ranges: Vec<_> = bounds.windows(2).map(|pair| KeyRange::new(pair[0], pair[1]).unwrap()).collect();
        client.scale_stream(&stream, &[short, long], &ranges).await.unwrap();
        for (key, count) in &mut counts {
            write(key, *count).await;
            *count += 1;
        }
        writer.flush().await.unwrap();

        // Pieces of an event or so: the long one is not here before the short one ends.
        let options = ReaderOptions { piece_bytes: 1 << 10, ..ReaderOptions::at_once() };
        let mut reader = group.reader_with("a", options).await.unwrap();
        let mut passed: BTreeMap<String, usize> = BTreeMap::new();
        let mut checkpoints = 0..;
        let checkpoint = loop {
            let name = checkpoints.next().unwrap().to_string();
            let under_way = group.initiate_checkpoint(&name).await.unwrap();
            let mut seen = passed.clone();
            loop {
                match next(&mut reader).await.expect("the stream has no end yet") {
                    Delivery::Checkpoint(reached) => break assert_eq!(reached, name),
                    Delivery::Event(event) => _ = seen.insert(parsed(&event.event).0, parsed(&event.event).1 + 1),
                }
            }
            passed = seen;
            let waiting = tokio::spawn(async move { under_way.wait().await });
            let Some(Delivery::Event(event)) = next(&mut reader).await else { panic!("no event behind a checkpoint") };
            let checkpoint = tokio::time::timeout(LIMIT, waiting).await.unwrap().unwrap().unwrap();
            let cut = &checkpoint.cuts[&stream];
            if cut.offsets.contains_key(&long) && !cut.offsets.contains_key(&short) {
                break checkpoint;
            }
            passed.insert(parsed(&event.event).0, parsed(&event.event).1 + 1);
        };
        // As the readers say it, and with what cannot be opened yet, as the controller would.
        let cut = checkpoint.cuts[&stream].clone();
        assert_eq!(client.truncate_stream(&cut).await.unwrap_err().kind(), ErrorKind::Invalid);
        client.seal_stream(&stream).await.unwrap();
        let mut marked = cut.clone();
        let follows = client.successors(&stream, long).await.unwrap();
        let waiting = follows.iter().find(|one| one.predecessors.len() == 2).unwrap();
        assert_eq!(marked.offsets.insert(waiting.segment.id, -1), None);
        for (id, cut) in [("b", cut.clone()), ("c", marked)] {
            let config = ReaderGroupConfig { streams: [(stream.clone(), Cut::At(cut))].into(), ..brisk(&stream) };
            group.reset(&config).await.unwrap();
            let mut reader = group.reader_with(id, ReaderOptions::at_once()).await.unwrap();
            let mut of_group = passed.clone();
            while let Some(delivery) = next(&mut reader).await {
                let Delivery::Event(event) = delivery else { panic!("nobody asked for {delivery:?}") };
                let (key, number) = parsed(&event.event);
                assert_eq!(of_group.insert(key, number + 1).unwrap_or(0), number, "{bounds:?}");
            }
            assert_eq!(of_group, counts, "{bounds:?}");
        }
        // Who reads alone from there goes on the same way.
        let mut alone = client.stream_reader(&stream, ReadFrom::Cut(cut)).await.unwrap();
        let mut of_one = passed;
        while let Some(event) = tokio::time::timeout(LIMIT, alone.next()).await.expect("the reader hangs").unwrap() {
            let (key, number) = parsed(&event.event);
            assert_eq!(of_one.insert(key, number + 1).unwrap_or(0), number, "{bounds:?}");
        }
        assert_eq!(of_one, counts, "{bounds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_cuts_are_where_readers_are_and_a_group_is_reset_to_them() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 2).await;
    let group = group_of(client, "g", &brisk(&stream)).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    write(&writer, 0..10).await;
    let unread = group.unread_bytes().await.unwrap();
    assert_eq!(unread, 80 * (8 + 3));
    let mut reader = group.reader("a").await.unwrap();
    for _ in 0..80 {
        event(&mut reader).await;
    }
    let middle = {
        let asking = tokio::spawn({
            let group = group.clone();
            async move { group.generate_stream_cuts().await }
        });
        // The reader does not notice, but has to ask.
        while !asking.is_finished() {
            assert!(tokio::time::timeout(Duration::from_millis(20), reader.next()).await.is_err());
        }
        asking.await.unwrap().unwrap().remove(&stream).unwrap()
    };
    assert_eq!(middle, client.tail_cut(&stream).await.unwrap());
    write(&writer, 10..20).await;
    let end = client.tail_cut(&stream).await.unwrap();
    write(&writer, 20..30).await;
    let config = ReaderGroupConfig::default().stream_from(&stream, Cut::At(middle)).until(end);
    let config = config.every(Duration::from_millis(50), None);
    group.reset(&config).await.unwrap();
    assert_eq!(group.config().await.unwrap(), config);
    assert!(group.online_readers().await.unwrap().is_empty());
    assert_eq!(group.unread_bytes().await.unwrap(), 80 * (8 + 4));
    let mut reader = group.reader_with("a", ReaderOptions::at_once()).await.unwrap();
    for _ in 0..80 {
        let text = text(&event(&mut reader).await);
        let number: usize = text.split_once(' ').unwrap().1.parse().unwrap();
        assert!((10..20).contains(&number), "{text}");
    }
    assert_eq!(next(&mut reader).await, None);
    assert_eq!(group.unread_bytes().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_hand_over_at_checkpoints_follow_a_scale_and_end_with_a_sealed_stream() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let config = brisk(&stream).every(Duration::from_millis(50), Some(Duration::from_millis(200)));
    let group = group_of(client, "g", &config).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    write(&writer, 0..20).await;
    rescale(client, &stream, 2).await;
    write(&writer, 20..40).await;
    rescale(client, &stream, 1).await;
    write(&writer, 40..50).await;
    client.seal_stream(&stream).await.unwrap();
    let (sender, mut found) = mpsc::unbounded_channel();
    let reader = tokio::spawn(read_all(group.reader("a").await.unwrap(), sender));
    let (mut events, mut checkpoints) = (0, 0);
    while let Some((_, delivery)) = tokio::time::timeout(LIMIT, found.recv()).await.unwrap() {
        match delivery {
            Delivery::Event(_) => events += 1,
            Delivery::Checkpoint(_) => checkpoints += 1,
        }
    }
    assert_eq!(events, 400);
    assert!(checkpoints > 0);
    reader.await.unwrap().close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn truncation_is_told_once_and_reading_goes_on_behind_it() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let group = group_of(client, "g", &brisk(&stream)).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    write(&writer, 0..10).await;
    client.truncate_stream(&client.tail_cut(&stream).await.unwrap()).await.unwrap();
    write(&writer, 10..11).await;
    let mut reader = group.reader("a").await.unwrap();
    assert_eq!(reader.next().await.unwrap_err().kind(), ErrorKind::Truncated);
    let first = event(&mut reader).await;
    assert_eq!(text(&first), "0 10");
    assert_eq!(client.fetch_event(&first.pointer().unwrap()).await.unwrap(), first.event);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_whose_futures_are_dropped_all_the_time_loses_nothing() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let group = group_of(client, "g", &brisk(&stream)).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    write(&writer, 0..20).await;
    rescale(client, &stream, 3).await;
    write(&writer, 20..60).await;
    rescale(client, &stream, 2).await;
    write(&writer, 60..100).await;
    let mut reader = group.reader_with("a", ReaderOptions::at_once()).await.unwrap();
    let (mut numbers, mut count) = (BTreeMap::<String, usize>::new(), 0);
    let begun = std::time::Instant::now();
    while count < 800 {
        assert!(begun.elapsed() < LIMIT, "{count} of 800 events");
        let mut polls = 0;
        let delivery = std::future::poll_fn(|cx| {
            polls += 1;
            let next = std::pin::pin!(reader.next());
            match next.poll(cx) {
                std::task::Poll::Ready(delivery) => std::task::Poll::Ready(Some(delivery)),
                std::task::Poll::Pending if polls > 1 => std::task::Poll::Ready(None),
                std::task::Poll::Pending => std::task::Poll::Pending,
            }
        });
        let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_millis(5), delivery).await else { continue };
        let Some(Delivery::Event(event)) = delivery.unwrap() else { panic!("the stream has no end") };
        let text = text(&event);
        let (key, number) = text.split_once(' ').unwrap();
        let expected = numbers.entry(key.to_owned()).or_default();
        assert_eq!(number.parse::<usize>().unwrap(), *expected, "key {key}");
        *expected += 1;
        count += 1;
    }
}

/// Batches of a reader until it is told of a checkpoint, slowly: much of what was written is here and not delivered then.
async fn until_checkpoint(reader: &mut EventReader) -> String {
    loop {
        match tokio::time::timeout(LIMIT, reader.next_batch(10)).await.expect("the reader hangs").unwrap() {
            Some(Batch::Events(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
            Some(Batch::Checkpoint(name)) => return name,
            None => panic!("the stream has no end"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_delivered_behind_a_checkpoint_is_not_part_of_it_however_much_is_here() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let group = group_of(client, "g", &brisk(&stream)).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    write(&writer, 0..600).await;
    let mut reader = group.reader("a").await.unwrap();
    for name in ["1", "2", "3"] {
        event(&mut reader).await;
        let checkpoint = group.initiate_checkpoint(name).await.unwrap();
        assert_eq!(until_checkpoint(&mut reader).await, name);
        let position = reader.position();
        let waiting = tokio::spawn(async move { checkpoint.wait().await });
        while !waiting.is_finished() {
            let batch = tokio::time::timeout(LIMIT, reader.next_batch(1)).await.expect("the reader hangs").unwrap();
            assert!(matches!(batch, Some(Batch::Events(_))), "{batch:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let of_checkpoint: Vec<_> = waiting.await.unwrap().unwrap().cuts[&stream].segments().collect();
        assert_eq!(of_checkpoint, position.offsets.into_iter().collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_away_at_a_checkpoint_others_read_from_there() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 2).await;
    let group = group_of(client, "g", &brisk(&stream)).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    write(&writer, 0..600).await;
    let mut giver = group.reader("giver").await.unwrap();
    while giver.position().offsets.len() < 2 {
        event(&mut giver).await;
    }
    let mut taker = group.reader("taker").await.unwrap();
    // A reader gives nothing away that it has only just taken.
    tokio::time::sleep(Duration::from_secs(3)).await;
    group.initiate_checkpoint("here").await.unwrap();
    until_checkpoint(&mut giver).await;
    let kept = giver.position().offsets;
    let begun = std::time::Instant::now();
    let first = loop {
        assert!(begun.elapsed() < LIMIT, "nothing is given away");
        let _ = tokio::time::timeout(Duration::from_millis(20), giver.next_batch(1)).await;
        if let Ok(delivery) = tokio::time::timeout(Duration::from_millis(20), taker.next()).await
            && let Some(Delivery::Event(event)) = delivery.unwrap()
        {
            break event;
        }
    };
    assert_eq!(i64::try_from(first.offset).unwrap(), kept[&*first.segment]);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_made_once_and_deleted() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let (scope, name) = (Name::parse("s").unwrap(), Name::parse("g").unwrap());
    assert_eq!(client.reader_group(&scope, &name).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!client.delete_reader_group(&scope, &name).await.unwrap());
    let missing = ScopedStream::parse("s/missing").unwrap();
    let refused = client.create_reader_group(&scope, &name, &brisk(&missing)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    assert!(client.create_reader_group(&scope, &name, &brisk(&stream)).await.unwrap());
    assert!(!client.create_reader_group(&scope, &name, &brisk(&stream)).await.unwrap());
    let other = brisk(&stream).every(Duration::from_secs(1), None);
    let refused = client.create_reader_group(&scope, &name, &other).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert!(client.delete_reader_group(&scope, &name).await.unwrap());
    assert_eq!(client.reader_group(&scope, &name).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(client.create_reader_group(&scope, &name, &other).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_hold_every_event_once_and_end_where_the_group_ends() {
    let store = TestStore::start().await.unwrap();
    let (client, stream) = (store.client(), stream_of(store.client(), 3).await);
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    write(&writer, 0..50).await;
    let middle = client.tail_cut(&stream).await.unwrap();
    write(&writer, 50..80).await;
    let read = async |config: &ReaderGroupConfig, name: &str, count: usize| {
        let group = group_of(client, name, config).await;
        let mut reader = group.reader_with("r", ReaderOptions::at_once()).await.unwrap();
        let (mut found, mut largest) = (Vec::new(), 0);
        while found.len() < count {
            let batch = tokio::time::timeout(LIMIT, reader.next_batch(7)).await.expect("the reader hangs").unwrap();
            let Some(Batch::Events(events)) = batch else { panic!("{batch:?} after {} events", found.len()) };
            let end = i64::try_from(events.end()).unwrap();
            assert_eq!(reader.position().offsets[&**events.segment()], end, "behind the last of the batch");
            largest = largest.max(events.len());
            assert_eq!(events.iter().count(), events.len());
            let last = events.events().last().unwrap();
            assert_eq!(client.fetch_event(&last.pointer().unwrap()).await.unwrap(), last.event);
            found.extend(events.events().map(|event| text(&event)));
        }
        found.sort();
        (found, largest, reader)
    };
    let expected = |numbers: std::ops::Range<usize>| {
        let mut all: Vec<_> = numbers.flat_map(|number| (0..8).map(move |key| format!("{key} {number}"))).collect();
        all.sort();
        all
    };
    let (found, largest, _) = read(&brisk(&stream), "all", 640).await;
    assert_eq!((found, largest), (expected(0..80), 7));
    let (found, _, mut reader) = read(&brisk(&stream).until(middle), "half", 400).await;
    assert_eq!(found, expected(0..50));
    assert!(tokio::time::timeout(LIMIT, reader.next_batch(7)).await.unwrap().unwrap().is_none());
}
