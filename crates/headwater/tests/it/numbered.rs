//! Writers whose events have numbers, through the death of the process that writes.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use headwater_client::{Client, ErrorKind, EventWriterOptions, KeyRange, NumberedWriter, ScopedStream};

use super::Store;

const WRITER: &str = "writer";
/// Where a child of a test finds the store.
const ADDRESS: &str = "HEADWATER_TEST_NUMBERED";
const EVENTS: u64 = 20_000;
/// Nothing here takes longer, unless it hangs.
const LIMIT: Duration = Duration::from_secs(60);

fn key(number: u64) -> String {
    (number % 13).to_string()
}

async fn open(client: &Client, stream: &ScopedStream) -> NumberedWriter {
    let options = EventWriterOptions::default().batch_bytes(1 << 10).window_bytes(64 << 10);
    client.numbered_writer(stream, WRITER, options).await.unwrap()
}

/// Writes all events from a number on.
async fn write(writer: &NumberedWriter, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let _ = writer.write(number, &key(number), number.to_string()).await.unwrap();
    }
}

async fn rescale(store: &Store, stream: &ScopedStream, parts: usize) {
    let current = store.client.current_segments(stream).await.unwrap();
    let sealed: Vec<_> = current.iter().map(|segment| segment.id).collect();
    store.client.scale_stream(stream, &sealed, &KeyRange::split(parts)).await.unwrap();
}

/// Every event is there once, and those of one key in order.
async fn check(store: &Store, stream: &ScopedStream, count: u64) {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for event in store.read_all(stream).await {
        let number = std::str::from_utf8(&event).unwrap().parse().unwrap();
        found.entry(key(number)).or_default().push(number);
    }
    for (of, numbers) in found.clone() {
        let expected: Vec<_> = (1..=count).filter(|number| key(*number) == of).collect();
        assert_eq!(numbers.len(), expected.len(), "key {of}");
        assert_eq!(numbers, expected, "key {of}");
    }
    assert_eq!(found.values().map(Vec::len).sum::<usize>() as u64, count);
}

const KILLED: &str = "numbered::a_writer_that_is_killed_goes_on_without_losing_or_doubling";

/// This program again, as the process that [`KILLED`] kills.
fn start_child(store: &Store) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", KILLED]).env(ADDRESS, store.address());
    command.stdout(Stdio::null()).spawn().unwrap()
}

async fn be_the_child(address: &str) {
    let client = Client::connect(address).unwrap();
    let writer = open(&client, &ScopedStream::parse("s/t").unwrap()).await;
    write(&writer, writer.resume_after() + 1..=EVENTS).await;
    writer.flush().await.unwrap();
}

async fn bytes_of(store: &Store, stream: &ScopedStream) -> u64 {
    store.client.slices(stream).await.unwrap().iter().map(|slice| slice.end - slice.start).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_killed_goes_on_without_losing_or_doubling() {
    if let Ok(address) = std::env::var(ADDRESS) {
        return be_the_child(&address).await;
    }
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let mut killed = 0;
    for parts in [3, 1, 4] {
        let mut child = start_child(&store);
        let (before, begun) = (bytes_of(&store, &stream).await, Instant::now());
        while bytes_of(&store, &stream).await < before + 20_000 && child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < LIMIT, "nothing is written");
        }
        // The process dies in the middle of writing, while its segments are replaced.
        tokio::join!(rescale(&store, &stream, parts), async {
            tokio::time::sleep(Duration::from_millis(3)).await;
            killed += u32::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
        });
        child.wait().unwrap();
    }
    assert!(killed > 0, "no process lived long enough to be killed");
    let status = start_child(&store).wait().unwrap();
    assert!(status.success());
    check(&store, &stream, EVENTS).await;
    // All of it once more.
    let writer = open(&store.client, &stream).await;
    assert!((EVENTS - 13..=EVENTS).contains(&writer.resume_after()) || writer.resume_after() == 0);
    for number in 1..=EVENTS {
        assert!(writer.is_stored(number, &key(number)));
        let written = writer.write(number, &key(number), number.to_string()).await.unwrap().await.unwrap();
        assert_eq!(written.offset, None, "event {number} was found");
    }
    let written = writer.write(EVENTS + 1, &key(EVENTS + 1), (EVENTS + 1).to_string()).await.unwrap();
    assert!(written.await.unwrap().offset.is_some());
    check(&store, &stream, EVENTS + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_are_given_up_in_the_middle_of_splits_and_merges_are_followed_by_others() {
    let mut store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    for (life, parts) in (1..).zip([2, 5, 3, 1, 4, 2, 6]) {
        let writer = open(&store.client, &stream).await;
        let begin = writer.resume_after();
        let writing = tokio::spawn(async move { write(&writer, begin + 1..=begin.max(life * 400) + 1000).await });
        rescale(&store, &stream, parts).await;
        if life == 4 {
            store.restart().await;
        }
        // What it has handed over last is given up.
        writing.await.unwrap();
    }
    let writer = open(&store.client, &stream).await;
    write(&writer, writer.resume_after() + 1..=EVENTS).await;
    writer.flush().await.unwrap();
    check(&store, &stream, EVENTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_write_the_same_store_it_once() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 2).await;
    let writers = [open(&store.client, &stream).await, open(&store.client, &stream).await];
    let [first, second] = &writers;
    let scaling = async {
        for parts in [3, 2] {
            rescale(&store, &stream, parts).await;
        }
    };
    tokio::join!(write(first, 1..=5000), write(second, 1..=5000), scaling);
    for writer in &writers {
        writer.flush().await.unwrap();
    }
    check(&store, &stream, 5000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_grow_and_large_events_have_them_too() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let writer = open(&store.client, &stream).await;
    assert_eq!(writer.resume_after(), 0);
    let large = bytes::Bytes::from(vec![b'x'; 9 << 20]);
    let refused = async |number| writer.write(number, "a", "event").await.unwrap_err().kind();
    assert_eq!([refused(0).await, refused(1 << 62).await, refused(u64::MAX).await], [ErrorKind::Invalid; 3]);
    let _ = writer.write(5, "a", "five").await.unwrap();
    assert_eq!(refused(5).await, ErrorKind::Invalid);
    let _ = writer.write(7, "a", large.clone()).await.unwrap();
    let _ = writer.write_all(9, "a", &["nine".into(), "and more".into()]).await.unwrap();
    writer.flush().await.unwrap();
    drop(writer);
    let writer = open(&store.client, &stream).await;
    assert_eq!(writer.resume_after(), 9);
    let _ = writer.write(7, "a", large.clone()).await.unwrap();
    let _ = writer.write_all(9, "a", &["nine".into(), "and more".into()]).await.unwrap();
    let _ = writer.write(10, "a", "ten").await.unwrap();
    writer.flush().await.unwrap();
    let found = store.read_all(&stream).await;
    assert!(found == ["five".into(), large, "nine".into(), "and more".into(), "ten".into()]);
    store.client.seal_stream(&stream).await.unwrap();
    assert_eq!(writer.write(11, "a", "late").await.unwrap().await.unwrap_err().kind(), ErrorKind::Sealed);
    assert_eq!(writer.flush().await.unwrap_err().kind(), ErrorKind::Sealed);
    assert_eq!(
        store.client.numbered_writer(&stream, "", Default::default()).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(writer.write(12, "a", "later").await.unwrap_err().kind(), ErrorKind::Sealed);
}
