//! Readers of a group whose events are acknowledged one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater::client::{
    AcknowledgingOptions, AcknowledgingReader, Client, ErrorKind, EventWriter, KeyRange, Name, ReaderGroup,
    ReaderGroupConfig, Received, ScopedStream,
};
use headwater::testing::TestStore;

use super::store::stream_of;

/// Nothing here takes longer, unless it hangs.
const LIMIT: Duration = Duration::from_secs(60);

async fn group_of(client: &Client, stream: &ScopedStream, checkpoints: Option<Duration>) -> ReaderGroup {
    let config = ReaderGroupConfig::of(stream).every(Duration::from_millis(50), checkpoints);
    let (scope, name) = (Name::parse("s").unwrap(), Name::parse("g").unwrap());
    assert!(client.create_reader_group(&scope, &name, &config).await.unwrap());
    client.reader_group(&scope, &name).await.unwrap()
}

async fn next(reader: &mut AcknowledgingReader) -> Received {
    tokio::time::timeout(LIMIT, reader.next()).await.expect("the reader hangs").unwrap().expect("there is more")
}

fn text(received: &Received) -> String {
    String::from_utf8(received.event.event.to_vec()).unwrap()
}

async fn write(writer: &EventWriter, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let _ = writer.write(&(number % 8).to_string(), number.to_string()).await.unwrap();
    }
    writer.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_acknowledged_in_any_order_and_come_again_until_they_are() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let group = group_of(client, &stream, None).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    write(&writer, 0..5).await;
    // So long that the four are out together, also on a machine that is busy.
    let redeliver_after = Duration::from_secs(3);
    let options = AcknowledgingOptions { unacknowledged_max: 4, redeliver_after, ..Default::default() };
    let mut reader = group.acknowledging_reader("a", options).await.unwrap();
    let acknowledger = reader.acknowledger();
    let mut out = Vec::new();
    for number in 0..4 {
        let received = next(&mut reader).await;
        assert_eq!((text(&received), received.attempt), (number.to_string(), 1));
        out.push(received.event);
    }
    // Four are out: the fifth has to wait.
    assert_eq!(reader.next().await.unwrap_err().kind(), ErrorKind::Exhausted);
    assert_eq!(acknowledger.unacknowledged(), 4);
    let offset = |reader: &mut AcknowledgingReader| *reader.position().offsets.values().next().unwrap();
    assert!(acknowledger.acknowledge(&out[2]) && acknowledger.acknowledge(&out[1]));
    assert!(!acknowledger.acknowledge(&out[1]));
    assert_eq!(offset(&mut reader), 0, "the first is missing");
    tokio::time::timeout(LIMIT, reader.room()).await.unwrap().unwrap();
    assert_eq!(text(&next(&mut reader).await), "4");
    // What is not acknowledged comes again.
    let again = next(&mut reader).await;
    assert_eq!((text(&again), again.attempt), ("0".to_owned(), 2));
    assert!(acknowledger.acknowledge(&again.event));
    assert_eq!(offset(&mut reader), 27, "three events of nine bytes");
    assert!(acknowledger.give_back(&out[3]));
    let again = next(&mut reader).await;
    assert_eq!((text(&again), again.attempt), ("3".to_owned(), 2));
    assert_eq!(reader.id(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_ends_when_all_of_it_is_acknowledged_and_a_closed_reader_leaves_the_rest() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let group = group_of(client, &stream, None).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    write(&writer, 0..3).await;
    let current = client.current_segments(&stream).await.unwrap();
    client.scale_stream(&stream, &[current[0].id], &KeyRange::split(2)).await.unwrap();
    write(&writer, 3..6).await;
    let mut reader = group.acknowledging_reader("a", Default::default()).await.unwrap();
    let mut out = Vec::new();
    for number in 0..3 {
        out.push(next(&mut reader).await);
        assert_eq!(text(&out[number]), number.to_string());
    }
    // What follows belongs to nobody before.
    let early = tokio::time::timeout(Duration::from_millis(500), reader.next()).await;
    assert!(early.is_err(), "{early:?}");
    let acknowledger = reader.acknowledger();
    assert!(out.iter().all(|received| acknowledger.acknowledge(&received.event)));
    let mut later = Vec::new();
    for _ in 0..3 {
        later.push(next(&mut reader).await);
    }
    let kept = later.pop().unwrap();
    assert!(later.iter().all(|received| acknowledger.acknowledge(&received.event)));
    reader.close().await.unwrap();
    assert!(!acknowledger.acknowledge(&kept.event), "another hands it out again");
    let mut heir = group.acknowledging_reader("b", Default::default()).await.unwrap();
    let again = next(&mut heir).await;
    assert_eq!((again.event.event.clone(), again.attempt), (kept.event.event, 1));
    assert!(heir.acknowledger().acknowledge(&again.event));
    client.seal_stream(&stream).await.unwrap();
    assert_eq!(tokio::time::timeout(LIMIT, heir.next()).await.unwrap().unwrap(), None);
    heir.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_readers_die_with_some_acknowledged() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let group = group_of(client, &stream, Some(Duration::from_millis(300))).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    let writing = async {
        for (round, parts) in (0..).zip([4, 1, 3]) {
            write(&writer, round * 200..round * 200 + 200).await;
            let sealed: Vec<_> = client.current_segments(&stream).await.unwrap().iter().map(|it| it.id).collect();
            client.scale_stream(&stream, &sealed, &KeyRange::split(parts)).await.unwrap();
        }
        write(&writer, 600..800).await;
        client.seal_stream(&stream).await.unwrap();
    };
    let redeliver_after = Duration::from_millis(200);
    let options = AcknowledgingOptions { unacknowledged_max: 50, redeliver_after, ..Default::default() };
    let reading = async {
        let mut handled: BTreeMap<String, u32> = BTreeMap::new();
        let mut turn = 0u32;
        // Each reader dies after some events, but the last, which stays until the end.
        for life in 0.. {
            let id = format!("life {life}");
            let mut reader = group.acknowledging_reader(&id, options).await.unwrap();
            let acknowledger = reader.acknowledger();
            let lives_on = life == 5;
            let mut events = 0;
            while lives_on || events < 150 {
                let received = match tokio::time::timeout(LIMIT, reader.next()).await.expect("the reader hangs") {
                    Ok(Some(received)) => received,
                    Ok(None) => return (handled, life),
                    Err(error) if error.kind() == ErrorKind::Exhausted => {
                        reader.room().await.unwrap();
                        continue;
                    }
                    Err(error) => panic!("{error:?}"),
                };
                (events, turn) = (events + 1, turn + 1);
                // Some are forgotten, and come again.
                if !turn.is_multiple_of(7) && acknowledger.acknowledge(&received.event) {
                    *handled.entry(text(&received)).or_default() += 1;
                }
            }
            assert!(group.reader_offline(&id, None).await.unwrap());
            assert!(acknowledger.unacknowledged() > 0, "it dies with something out");
        }
        unreachable!("the last one comes to the end")
    };
    let ((), (handled, lives)) = tokio::join!(writing, reading);
    assert_eq!(lives, 5, "all others died");
    let missing: Vec<_> = (0..800).filter(|number| !handled.contains_key(&number.to_string())).collect();
    assert!(missing.is_empty(), "never handled: {missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_that_fails_again_and_again_keeps_no_other_from_being_read() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let group = group_of(client, &stream, None).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    let mut reader = group.acknowledging_reader("a", Default::default()).await.unwrap();
    let acknowledger = reader.acknowledger();
    write(&writer, 0..1).await;
    let poison = next(&mut reader).await;
    assert!(acknowledger.give_back(&poison.event));
    // These arrive while it has something to hand out all the time.
    write(&writer, 1..100).await;
    let (mut handled, mut attempts, begun) = (0, 1, tokio::time::Instant::now());
    while handled < 99 {
        assert!(begun.elapsed() < LIMIT, "{handled} of 99 handled, {attempts} attempts at the first");
        let received = next(&mut reader).await;
        if received.event.offset == poison.event.offset {
            attempts += 1;
            assert!(acknowledger.give_back(&received.event));
        } else {
            handled += 1;
            assert!(acknowledger.acknowledge(&received.event));
        }
    }
    assert!(attempts > 50, "it takes turns with the others: {attempts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_no_room_takes_part_in_the_group() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let group = group_of(client, &stream, None).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    write(&writer, 0..10).await;
    let options = AcknowledgingOptions { unacknowledged_max: 1, ..Default::default() };
    // One asks again and again without waiting for room; the other has the same event again and again.
    for gives_back in [false, true] {
        let mut reader = group.acknowledging_reader("a", options).await.unwrap();
        let acknowledger = reader.acknowledger();
        let mut received = next(&mut reader).await;
        let checkpoint = group.initiate_checkpoint(&gives_back.to_string()).await.unwrap();
        let waiting = tokio::spawn(async move { checkpoint.wait().await });
        let begun = tokio::time::Instant::now();
        let mut is_out = false;
        let error = loop {
            assert!(begun.elapsed() < LIMIT, "it does not take part");
            if waiting.is_finished() && !is_out {
                assert!(group.reader_offline("a", None).await.unwrap());
                is_out = true;
            }
            if gives_back {
                acknowledger.give_back(&received.event);
            } else {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            match reader.next().await {
                Ok(again) => received = again.unwrap(),
                Err(error) if error.kind() == ErrorKind::Exhausted => assert!(!gives_back),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Closed);
        waiting.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_to_another_reader_is_forgotten_here_and_handed_out_there() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 2).await;
    let group = group_of(client, &stream, None).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    write(&writer, 0..40).await;
    let mut first = group.acknowledging_reader("a", Default::default()).await.unwrap();
    let mut out = Vec::new();
    for _ in 0..40 {
        out.push(next(&mut first).await);
    }
    let mut second = group.acknowledging_reader("b", Default::default()).await.unwrap();
    let (mut again, begun) = (Vec::new(), tokio::time::Instant::now());
    let acknowledger = first.acknowledger();
    // The first gives one of its two segments away, and has acknowledged nothing.
    while acknowledger.unacknowledged() == 40 || again.len() + acknowledger.unacknowledged() < 40 {
        assert!(begun.elapsed() < LIMIT, "nothing is given away");
        let _ = tokio::time::timeout(Duration::from_millis(20), first.next()).await;
        if let Ok(received) = tokio::time::timeout(Duration::from_millis(20), second.next()).await {
            again.push(received.unwrap().unwrap().event);
        }
    }
    assert!(!again.is_empty() && acknowledger.unacknowledged() > 0);
    let (here, there): (Vec<_>, Vec<_>) =
        out.into_iter().map(|received| received.event).partition(|event| acknowledger.acknowledge(event));
    assert_eq!(here.len() + there.len(), 40);
    assert_eq!(there, again);
}
