use std::time::Duration;

use bytes::Bytes;
use headwater::client::{ErrorKind, EventWriterOptions};
use headwater::testing::TestStore;
use headwater::{Embedded, StartError};

use super::store::{all_of, stream_of};

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_store_keeps_what_it_acknowledged_and_a_directory_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path()).await.unwrap();
    let stream = stream_of(store.client(), 2).await;
    let writer = store.client().event_writer(&stream, Default::default()).await.unwrap();
    for number in 0..1000 {
        let _ = writer.write(&number.to_string(), number.to_string()).await.unwrap();
    }
    writer.flush().await.unwrap();
    let second = Embedded::open(directory.path()).await;
    assert!(matches!(second, Err(StartError::Locked { .. })), "{second:?}");
    store.stop().await;
    let error = writer.client_error_after_stop().await;
    assert_eq!(error, ErrorKind::Unavailable);

    let store = Embedded::open(directory.path()).await.unwrap();
    assert_eq!(all_of(store.client(), &stream).await.len(), 1000);
    // Not stopped: it closes by itself, and until then nobody else gets the directory.
    drop(store);
    let begun = std::time::Instant::now();
    let store = loop {
        match Embedded::open(directory.path()).await {
            Ok(store) => break store,
            Err(StartError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
    };
    assert_eq!(all_of(store.client(), &stream).await.len(), 1000);
    store.stop().await;
}

/// What a writer of a store that has stopped is told.
trait AfterStop {
    async fn client_error_after_stop(&self) -> ErrorKind;
}

impl AfterStop for headwater::client::EventWriter {
    async fn client_error_after_stop(&self) -> ErrorKind {
        let ack = self.write("a", "late").await.unwrap();
        match tokio::time::timeout(Duration::from_millis(300), ack).await {
            // It goes on trying for its time, which is longer than a test.
            Err(_) => ErrorKind::Unavailable,
            Ok(outcome) => outcome.unwrap_err().kind(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_memory_is_a_store() {
    let store = Embedded::memory().await.unwrap();
    let stream = stream_of(store.client(), 2).await;
    let writer = store.client().event_writer(&stream, Default::default()).await.unwrap();
    let large = Bytes::from(vec![3; 9 << 20]);
    writer.write("a", "small").await.unwrap().await.unwrap();
    writer.write("a", large.clone()).await.unwrap().await.unwrap();
    assert_eq!(all_of(store.client(), &stream).await, [Bytes::from("small"), large]);
    store.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_and_restarts_lose_double_and_reorder_nothing() {
    let mut store = TestStore::start().await.unwrap();
    let stream = stream_of(store.client(), 2).await;
    let options = EventWriterOptions::default().batch_bytes(2 << 10).window_bytes(64 << 10);
    let writer = store.client().event_writer(&stream, options).await.unwrap();
    let writing = tokio::spawn({
        let writer = writer.clone();
        async move {
            for number in 0..30_000u32 {
                let _ = writer.write(&(number % 7).to_string(), number.to_string()).await.unwrap();
            }
            writer.flush().await.unwrap();
        }
    });
    for round in 0..30 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if round % 10 == 9 {
            store.restart().await.unwrap();
        } else {
            store.cut();
        }
    }
    writing.await.unwrap();
    let mut last = [None; 7];
    let mut count = 0;
    for event in all_of(store.client(), &stream).await {
        let number: u32 = std::str::from_utf8(&event).unwrap().parse().unwrap();
        let before = last[number as usize % 7].replace(number);
        assert!(before < Some(number) && before.is_none_or(|before| before + 7 == number), "{number} after {before:?}");
        count += 1;
    }
    assert_eq!(count, 30_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_events_are_stored_once_however_often_their_upload_is_cut() {
    let store = TestStore::start().await.unwrap();
    let stream = stream_of(store.client(), 2).await;
    let writer = store.client().event_writer(&stream, Default::default()).await.unwrap();
    let large = Bytes::from(vec![9; 10 << 20]);
    let writing = tokio::spawn({
        let (writer, large) = (writer.clone(), large.clone());
        async move {
            for _ in 0..6 {
                let _ = writer.write("a", large.clone()).await.unwrap();
                let _ = writer.write("a", "small").await.unwrap();
            }
            writer.flush().await.unwrap();
        }
    });
    // Ever longer pauses: some upload gets through in the end.
    for pause in 1..20 {
        tokio::time::sleep(Duration::from_millis(pause * 5)).await;
        store.cut();
    }
    writing.await.unwrap();
    let found: Vec<_> = all_of(store.client(), &stream).await.iter().map(Bytes::len).collect();
    assert_eq!(found, [10 << 20, 5].repeat(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_makes_writers_wait_and_a_broken_one_loses_nothing_acknowledged() {
    let mut store = TestStore::start().await.unwrap();
    let stream = stream_of(store.client(), 2).await;
    let writer = store.client().event_writer(&stream, Default::default()).await.unwrap();
    writer.write("a", "before").await.unwrap().await.unwrap();
    store.break_disk(true);
    let mut under_way = writer.write("a", "during").await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(200), &mut under_way).await;
    assert!(waited.is_err(), "nothing is acknowledged by a store whose disk fails: {waited:?}");
    store.break_disk(false);
    store.restart().await.unwrap();
    under_way.await.unwrap();
    assert_eq!(all_of(store.client(), &stream).await, ["before", "during"]);
}
