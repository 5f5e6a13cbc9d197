//! Readers of a group that find out by themselves that one of them died.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use headwater::client::{
    AcknowledgingOptions, Client, Delivery, ErrorKind, EventReader, Name, ReaderGroup, ReaderGroupConfig,
    ReaderOptions, ScopedStream,
};
use headwater::testing::TestStore;
use tokio::time::{Instant, timeout};

use super::store::stream_of;

/// Nothing here takes longer, unless it hangs.
const LIMIT: Duration = Duration::from_secs(60);
const DEAD_AFTER: Duration = Duration::from_secs(1);

fn beating() -> ReaderOptions {
    ReaderOptions { dead_after: Some(DEAD_AFTER), ..ReaderOptions::at_once() }
}

async fn group_of(client: &Client, stream: &ScopedStream) -> ReaderGroup {
    let config = ReaderGroupConfig::of(stream).every(Duration::from_millis(50), None);
    let (scope, name) = (Name::parse("s").unwrap(), Name::parse("g").unwrap());
    assert!(client.create_reader_group(&scope, &name, &config).await.unwrap());
    client.reader_group(&scope, &name).await.unwrap()
}

async fn write(client: &Client, stream: &ScopedStream, count: u32) {
    let writer = client.event_writer(stream, Default::default()).await.unwrap();
    for number in 0..count {
        let _ = writer.write(&number.to_string(), number.to_string()).await.unwrap();
    }
    writer.flush().await.unwrap();
}

async fn event(reader: &mut EventReader) -> String {
    text(timeout(LIMIT, reader.next()).await.expect("the reader hangs").unwrap())
}

fn text(delivery: Option<Delivery>) -> String {
    match delivery {
        Some(Delivery::Event(event)) => String::from_utf8(event.event.to_vec()).unwrap(),
        other => panic!("no event: {other:?}"),
    }
}

/// Waits until these readers are in the group and no others; not so soon as they can be judged at all.
async fn until_online(group: &ReaderGroup, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|id| (*id).to_owned()).collect();
    let begun = Instant::now();
    while group.online_readers().await.unwrap() != expected {
        assert!(begun.elapsed() < LIMIT, "{:?} are in the group", group.online_readers().await.unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reader_had_that_died_others_read_on_from_where_it_said_last() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 4).await;
    let group = group_of(client, &stream).await;
    write(client, &stream, 400).await;
    let mut mortal = group.reader_with("mortal", beating()).await.unwrap();
    assert_eq!(group.reader_with("mortal", beating()).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..100 {
        *seen.entry(event(&mut mortal).await).or_default() += 1;
    }
    let handled = seen.clone();
    // Long enough that it says where it is when it is asked again.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for _ in 0..200 {
        *seen.entry(event(&mut mortal).await).or_default() += 1;
    }
    drop(mortal);
    let begun = Instant::now();
    let mut heir = group.reader_with("heir", beating()).await.unwrap();
    while seen.len() < 400 {
        *seen.entry(event(&mut heir).await).or_default() += 1;
    }
    assert!(begun.elapsed() >= DEAD_AFTER * 8 / 10, "nobody is dead so soon: {:?}", begun.elapsed());
    let twice: Vec<_> = handled.keys().filter(|event| seen[*event] > 1).collect();
    assert!(twice.is_empty(), "handled and said so, and read again: {twice:?}");
    until_online(&group, &["heir"]).await;
    heir.close().await.unwrap();
    until_online(&group, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_beats_or_is_only_busy_is_not_taken_for_dead() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 2).await;
    let group = group_of(client, &stream).await;
    // As Java's reader: silent for ever.
    let silent = group.reader_with("silent", ReaderOptions::at_once()).await.unwrap();
    // Busy with an event: it does not ask for another, and beats all the same.
    let busy = group.reader_with("busy", beating()).await.unwrap();
    let dead = group.reader_with("dead", beating()).await.unwrap();
    let _watch = group.watch(DEAD_AFTER);
    tokio::time::sleep(DEAD_AFTER * 3).await;
    assert_eq!(group.online_readers().await.unwrap().len(), 3);
    drop(dead);
    until_online(&group, &["busy", "silent"]).await;
    drop((busy, silent));
    // Of the readers that are left nobody watches but the watch.
    until_online(&group, &["silent"]).await;
    assert!(group.reader_offline("silent", None).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_dies_of_a_server_that_was_away() {
    let mut store = TestStore::start().await.unwrap();
    let client = store.client().clone();
    let stream = stream_of(&client, 2).await;
    let group = group_of(&client, &stream).await;
    let first = group.reader_with("a", beating()).await.unwrap();
    let options = AcknowledgingOptions { dead_after: Some(DEAD_AFTER), ..AcknowledgingOptions::default() };
    let mut second = group.acknowledging_reader("b", options).await.unwrap();
    tokio::time::sleep(DEAD_AFTER).await;
    store.pause().await;
    tokio::time::sleep(DEAD_AFTER * 2).await;
    store.resume().await.unwrap();
    tokio::time::sleep(DEAD_AFTER * 3).await;
    until_online(&group, &["a", "b"]).await;
    drop(first);
    // The other reads everything in the end.
    write(&client, &stream, 10).await;
    for _ in 0..10 {
        let received = timeout(LIMIT, second.next()).await.unwrap().unwrap().unwrap();
        assert!(second.acknowledger().acknowledge(&received.event));
    }
    until_online(&group, &["b"]).await;
    second.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_taken_for_dead_learns_of_it_and_may_come_back() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let group = group_of(client, &stream).await;
    write(client, &stream, 2).await;
    let mut reader = group.reader_with("a", beating()).await.unwrap();
    event(&mut reader).await;
    assert!(group.reader_offline("a", None).await.unwrap());
    let out = async {
        loop {
            if let Err(error) = reader.next().await {
                break error;
            }
        }
    };
    assert_eq!(timeout(LIMIT, out).await.unwrap().kind(), ErrorKind::Closed);
    let mut again = group.reader_with("a", beating()).await.unwrap();
    event(&mut again).await;
    tokio::time::sleep(DEAD_AFTER * 2).await;
    until_online(&group, &["a"]).await;
    // The first one is kept, and does not beat for the other.
    let _watch = group.watch(DEAD_AFTER);
    drop(again);
    until_online(&group, &[]).await;
    assert_eq!(reader.next().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_taken_for_dead_does_not_keep_another_of_its_id_alive() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 2).await;
    let group = group_of(client, &stream).await;
    write(client, &stream, 10).await;
    // It looks less often: it is out, and the other is in, before it can know; and it would beat for a dead one in time.
    let slow = ReaderOptions { dead_after: Some(DEAD_AFTER * 4), ..beating() };
    let _first = group.reader_with("a", slow).await.unwrap();
    assert!(group.reader_offline("a", None).await.unwrap());
    let mut second = group.reader_with("a", beating()).await.unwrap();
    event(&mut second).await;
    tokio::time::sleep(DEAD_AFTER * 2).await;
    drop(second);
    let mut heir = group.reader_with("b", beating()).await.unwrap();
    until_online(&group, &["b"]).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 10 {
        seen.insert(event(&mut heir).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_taken_for_dead_stops_even_if_another_of_its_id_has_all_it_had() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let group = group_of(client, &stream).await;
    write(client, &stream, 100).await;
    let mut first = group.reader_with("a", ReaderOptions::at_once()).await.unwrap();
    event(&mut first).await;
    let third = group.reader_with("b", ReaderOptions::at_once()).await.unwrap();
    assert!(group.reader_offline("a", None).await.unwrap());
    let mut second = group.reader_with("a", ReaderOptions::at_once()).await.unwrap();
    event(&mut second).await;
    let out = async {
        loop {
            if let Err(error) = first.next().await {
                break error;
            }
        }
    };
    assert_eq!(timeout(LIMIT, out).await.expect("it reads on").kind(), ErrorKind::Closed);
    first.close().await.unwrap();
    until_online(&group, &["a", "b"]).await;
    event(&mut second).await;
    // One that has not looked since does not take the other out either.
    assert!(group.reader_offline("b", None).await.unwrap());
    let _fourth = group.reader_with("b", ReaderOptions::at_once()).await.unwrap();
    third.close().await.unwrap();
    until_online(&group, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_readers_said_who_had_a_segment_before_counts_for_nobody_else() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let group = group_of(client, &stream).await;
    write(client, &stream, 300).await;
    let options = ReaderOptions { dead_after: Some(DEAD_AFTER), ..ReaderOptions::default() };
    let mut first = group.reader_with("first", options).await.unwrap();
    event(&mut first).await;
    let checkpoint = group.initiate_checkpoint("kept").await.unwrap();
    let kept = async {
        loop {
            match first.next().await.unwrap() {
                Some(Delivery::Checkpoint(_)) => break first.position(),
                Some(Delivery::Event(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
                None => panic!("the stream has no end"),
            }
        }
    };
    let kept = *timeout(LIMIT, kept).await.unwrap().offsets.values().next().unwrap();
    event(&mut first).await;
    timeout(LIMIT, checkpoint.wait()).await.unwrap().unwrap();
    // It says how far it is, and keeps nothing of that.
    for _ in 0..50 {
        event(&mut first).await;
        tokio::time::sleep(Duration::from_millis(70)).await;
    }
    drop(first);
    // What it kept last is where the next one begins, and the one after that: the next dies before it says anything.
    for id in ["second", "third"] {
        let mut reader = group.reader_with(id, beating()).await.unwrap();
        let Some(Delivery::Event(event)) = timeout(LIMIT, reader.next()).await.unwrap().unwrap() else {
            panic!("it is not asked to keep anything")
        };
        assert_eq!(i64::try_from(event.offset).unwrap(), kept, "reader {id}");
    }
}
